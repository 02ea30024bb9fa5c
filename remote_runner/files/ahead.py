"""Looking at the files of a copy in a process of its own, while this one imports what it needs and connects to hosts.

Threads would not do: of Python's threads only one thinks at a time. The process is forked, so it has to begin before
there are threads here.
"""

from __future__ import annotations

import contextlib
import gc
import marshal
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from remote_runner.errors import TransferFailed

if TYPE_CHECKING:
    from remote_runner.files.local import LocalFiles
    from remote_runner.files.manifest import Manifest

#: How a process ends that could not say what it found.
_FAILED = 70


class Gathering:
    """Begins to look at once; `result` says what was found.

    Args:
        gather: looks, see `files/sources.py`.
        remembered, times: see `LocalFiles`.
    """

    def __init__(self, gather: Callable[[LocalFiles], Manifest], *, remembered: bool, times: bool) -> None:
        self._gather = gather
        self._options = {'remembered': remembered, 'times': times}
        self._pid = -1
        self._reading, writing = os.pipe()
        self._file = os.fdopen(self._reading, 'rb')
        try:
            self._pid = os.fork()
        except OSError:
            return  # no process more is allowed: then it is done here
        finally:
            if self._pid:
                os.close(writing)
        if not self._pid:
            self._tell(writing)

    def _tell(self, writing: int) -> NoReturn:
        """In the process of its own: look, tell, and end."""
        status = _FAILED
        try:
            from remote_runner.files.local import LocalFiles

            os.close(self._reading)  # so that we end if nobody reads any more
            local = LocalFiles(**self._options)
            gc.disable()  # all that is made here stays until the end
            with open(writing, 'wb') as file:
                for data in _found(self._gather, local):
                    file.write(len(data).to_bytes(8, 'big') + data)
                    file.flush()
                    local.save()
            status = 0
        finally:
            os._exit(status)  # nothing of the other process must be flushed or cleaned up here

    def result(self, local: LocalFiles) -> Manifest:
        """What should stand on a host; `local` is told of all files.

        Raises:
            SourcesFailed: something is not there, cannot be read, or is no file; all at once.
            ValueError: a pattern can match nothing.
        """
        from remote_runner.errors import SourcesFailed
        from remote_runner.files.local import Status
        from remote_runner.files.manifest import Entries, Manifest, Mirror, Tree

        first = self._read()
        if not first:
            return self._gather(local)  # it could not begin, or was killed
        kind, *values = marshal.loads(first)  # noqa: S302 - of our own process
        if kind == 'faults':
            raise SourcesFailed(*values)
        if kind == 'error':
            raise ValueError(*values)
        count, folders, links, bits, packed, trees, tops = values
        files = Entries(count, self._files)
        local.adopt(lambda: ((path, Status(*status)) for path, _, _, _, _, status in files.told()))
        return Manifest(files, folders, links, bits, packed, Mirror(tuple(Tree(*tree) for tree in trees)), tops)

    def _files(self) -> list[tuple[Any, ...]]:
        second = self._read()
        if not second:
            raise TransferFailed('the process that looked at the files was killed')
        found: list[tuple[Any, ...]] = marshal.loads(second)  # noqa: S302 - of our own process
        return found

    def _read(self) -> bytes:
        """What it says next; empty: nothing more."""
        size = int.from_bytes(self._file.read(8), 'big')
        data = self._file.read(size)
        return data if len(data) == size else b''

    def close(self) -> None:
        """Whatever it has not said is not wanted."""
        self._file.close()
        if self._pid > 0:
            with contextlib.suppress(ChildProcessError):  # somebody else has waited for it
                os.waitpid(self._pid, 0)


def _found(gather: Callable[[LocalFiles], Manifest], local: LocalFiles) -> Iterator[bytes]:
    """What is told: first what hosts are asked, then what is needed of files that they lack."""
    from remote_runner.errors import SourcesFailed

    try:
        manifest = gather(local)
    except SourcesFailed as error:
        yield marshal.dumps(('faults', error.faults))
        return
    except ValueError as error:
        yield marshal.dumps(('error', str(error)))
        return
    trees = tuple((tree.root, tree.exclude) for tree in manifest.mirror.trees)
    files, *rest = manifest[:4]
    # Version 2 does not look for objects that are there twice.
    yield marshal.dumps(('found', len(files), *rest, tuple(manifest.parts(local)), trees, manifest.tops), 2)
    yield marshal.dumps([(*entry, tuple(local.status(entry.local))) for entry in files], 2)
