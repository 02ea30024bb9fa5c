"""Looking at the files of a copy in a process of its own, while this one imports what it needs and connects to hosts.

Threads would not do: of Python's threads only one thinks at a time. The process is forked, so it has to begin before
there are threads here.
"""

from __future__ import annotations

import contextlib
import marshal
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

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
            with open(writing, 'wb') as file:
                file.write(_found(self._gather, local))
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

        with open(self._reading, 'rb') as file:  # noqa: PTH123 - a descriptor
            data = file.read()
        if self._pid > 0:
            with contextlib.suppress(ChildProcessError):  # somebody else has waited for it
                os.waitpid(self._pid, 0)
        if not data:
            return self._gather(local)  # it could not begin, or was killed
        kind, *values = marshal.loads(data)  # noqa: S302 - of our own process
        if kind == 'faults':
            raise SourcesFailed(*values)
        if kind == 'error':
            raise ValueError(*values)
        files, folders, links, bits, packed, trees = values
        local.adopt(lambda: ((path, Status(*status)) for path, _, _, _, _, status in files))
        return Manifest(Entries(files), folders, links, bits, packed, Mirror(tuple(Tree(*tree) for tree in trees)))


def _found(gather: Callable[[LocalFiles], Manifest], local: LocalFiles) -> bytes:
    from remote_runner.errors import SourcesFailed

    try:
        manifest = gather(local)
    except SourcesFailed as error:
        return marshal.dumps(('faults', error.faults))
    except ValueError as error:
        return marshal.dumps(('error', str(error)))
    files = [(*entry, tuple(local.status(entry.local))) for entry in manifest.files]
    # Version 2 does not look for objects that are there twice.
    trees = tuple((tree.root, tree.exclude) for tree in manifest.mirror.trees)
    return marshal.dumps(('found', files, *manifest[1:4], tuple(manifest.parts(local)), trees), 2)
