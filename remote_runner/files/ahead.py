"""Looking at the files of a copy in a process of its own, while this one imports what it needs and connects to hosts.

Threads would not do: of Python's threads only one thinks at a time. The process is forked, so it has to begin before
there are threads here. It says what it finds folder by folder, so that hosts can look what they have of it meanwhile.
"""

from __future__ import annotations

import contextlib
import gc
import marshal
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from remote_runner.errors import TransferFailed

if TYPE_CHECKING:
    from remote_runner.files.local import LocalFiles
    from remote_runner.files.manifest import Group, Manifest
    from remote_runner.files.packing import Part

    #: Looks, see `files/sources.py`; what hears is told of files as they are found.
    Gather = Callable[[LocalFiles, Callable[[Group], None]], Manifest]

#: How a process ends that could not say what it found.
_FAILED = 70


class Gathering:
    """Begins to look at once; `parts` are what is found, as it is, and `whole` is all of it. Thread-safe.

    Args:
        gather: looks.
        remembered, times: see `LocalFiles`.
    """

    def __init__(self, gather: Gather, *, remembered: bool, times: bool) -> None:
        self._gather = gather
        self._options = {'remembered': remembered, 'times': times}
        self._changed = threading.Condition()
        self._parts: list[Part] = []
        #: What else it says at the end; empty: it ended without a word of that.
        self._end: tuple[Any, ...] | None = None
        self._manifest: Manifest | None = None
        self._pid = -1
        heard, telling = os.pipe()
        asked, self._asking = os.pipe()
        try:
            self._pid = os.fork()
        except OSError:
            self._end = ()  # no process more is allowed: then it is done here
        finally:
            if self._pid:
                os.close(telling)
                os.close(asked)
        if not self._pid:
            os.close(heard)  # so that we end if nobody reads any more
            os.close(self._asking)
            self._tell(telling, asked)
        self._file = os.fdopen(heard, 'rb')
        if self._pid > 0:
            threading.Thread(target=self._hear, name='gathering', daemon=True).start()

    def parts(self, local: LocalFiles) -> Iterator[Part]:
        """The files for `wire/columns.py`, which are told as they are found. After a fault no more come."""
        for number in count():
            with self._changed:
                while len(self._parts) == number and self._end is None:
                    self._changed.wait()
                if len(self._parts) == number:
                    break
            yield self._parts[number]
        if not self._parts and not self._end:
            yield from self.whole(local).parts(local)

    def whole(self, local: LocalFiles) -> Manifest:
        """What should stand on a host.

        Raises:
            SourcesFailed: something is not there, cannot be read, or is no file; all at once.
            TransferFailed: the process was killed.
            ValueError: a pattern can match nothing.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._end is not None)
            if self._manifest is None:
                self._manifest = self._made(local)
            return self._manifest

    def _made(self, local: LocalFiles) -> Manifest:
        from remote_runner.errors import SourcesFailed
        from remote_runner.files.manifest import Entries, Manifest, Mirror, Tree

        if not self._end:
            if self._parts:
                raise TransferFailed('the process that looked at the files was killed')
            return self._gather(local, lambda group: None)  # it could not begin, or was killed
        kind, *values = self._end
        if kind == 'faults':
            raise SourcesFailed(*values)
        if kind == 'error':
            raise ValueError(*values)
        files, folders, links, bits, trees, tops = values
        mirror = Mirror(tuple(Tree(*tree) for tree in trees))
        return Manifest(Entries(files, self._groups, local), folders, links, bits, tuple(self._parts), mirror, tops)

    def _groups(self) -> Iterator[Group]:
        """The files one by one, asked for."""
        from remote_runner.files.local import Status
        from remote_runner.files.manifest import Group

        with contextlib.suppress(BrokenPipeError):
            os.write(self._asking, b'?')
        told = self._message()
        if told is None:
            raise TransferFailed('the process that looked at the files was killed')
        for folder, names, source, called, statuses in told:
            yield Group(folder, names, source, called, [Status(*status) for status in statuses])

    def _hear(self) -> None:
        """In a thread: hear what is found."""
        message: Any = None
        while (message := self._message()) is not None and message[0] == 'part':
            with self._changed:
                self._parts.append(message[1:])
                self._changed.notify_all()
        with self._changed:
            self._end = message or ()
            self._changed.notify_all()

    def _message(self) -> Any:
        """What it says next; None: nothing more."""
        size = int.from_bytes(self._file.read(8), 'big')
        data = self._file.read(size)
        return marshal.loads(data) if size and len(data) == size else None  # noqa: S302 - of our own process

    def close(self) -> None:
        """Whatever it has not said is not wanted."""
        os.close(self._asking)
        if self._pid > 0:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # somebody else has waited for it
                if self._end is None:
                    os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
        self._file.close()

    # ---- in the process of its own ------------------------------------------------------------------------------

    def _tell(self, telling: int, asked: int) -> NoReturn:
        """Look, tell, and end."""
        status = _FAILED
        try:
            from remote_runner.files.local import LocalFiles

            gc.disable()  # all that is made here stays until the end
            with open(telling, 'wb') as file:
                _look(self._gather, LocalFiles(**self._options), file, asked)
            status = 0
        except BrokenPipeError:
            pass  # nobody reads any more
        except Exception:  # a defect of ours: who reads cannot know more than that we have ended
            traceback.print_exc()
        finally:
            os._exit(status)  # nothing of the other process must be flushed or cleaned up here


def _look(gather: Gather, local: LocalFiles, file: BinaryIO, asked: int) -> None:
    """Tell parts, what else hosts are asked, and then, if that is asked for, all files."""
    from remote_runner.errors import SourcesFailed
    from remote_runner.files.local import Status
    from remote_runner.files.packing import Packing
    from remote_runner.wire.columns import ANY_TIME, UNKNOWN

    def say(message: Any) -> None:
        data = marshal.dumps(message, 2)  # which does not look for objects that are there twice
        file.write(len(data).to_bytes(8, 'big') + data)
        file.flush()

    groups: list[Group] = []
    packing = Packing()

    def hear(group: Group) -> None:
        groups.append(group)
        statuses = group.statuses
        times = [status.st_mtime_ns for status in statuses] if local.times else [ANY_TIME] * len(statuses)
        digests = [digest or UNKNOWN for digest in local.digests(group.source, group.called, statuses)]
        sizes, modes = [status.st_size for status in statuses], [status.st_mode & 0o7777 for status in statuses]
        for part in packing.add(group.folder, sizes, times, modes, digests, group.names):
            say(('part', *part))

    try:
        found = gather(local, hear)
    except SourcesFailed as error:
        say(('faults', error.faults))
        return
    except ValueError as error:
        say(('error', str(error)))
        return
    for part in packing.rest():
        say(('part', *part))
    trees = tuple((tree.root, tree.exclude) for tree in found.mirror.trees)
    say(('end', len(found.files), found.folders, found.links, found.bits, trees, found.tops))
    local.save()
    if os.read(asked, 1):
        say([(*group[:-1], [tuple(Status.of(status)) for status in group.statuses]) for group in groups])
