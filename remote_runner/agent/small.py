"""Writing files that came whole in one piece. Of many, nearly all the time is the kernel's, so two threads write them:
each its own folders, for who makes files in one folder waits for each other.
"""

import errno
import os
import stat
from _collections import deque  # `collections` takes long to import

from remote_runner.agent import copies
from remote_runner.agent.request import Failure
from remote_runner.agent.sha1 import new_sha1
from remote_runner.agent.threads import Condition, Thread
from remote_runner.wire.columns import ANY_TIME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Deque, List, Optional, Tuple

    from remote_runner.agent.hashes import Hashes

    #: Real folder, name, permission bits, time in ns, SHA-1 in hexadecimal, content.
    Small = Tuple[str, str, int, int, str, memoryview]

#: Threads that write.
WRITERS = 2
#: Batches that may wait for one of them: each is about as large as a part of the stream.
WAITING = 2
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Writers:
    """Threads that write small files; they begin with the first of these.

    Args:
        hashes: is told what was written.
    """

    def __init__(self, hashes: "Hashes") -> None:
        self._hashes = hashes
        self._changed = Condition()
        self._batches: "List[Deque[List[Small]]]" = [deque() for _ in range(WRITERS)]
        self._unfinished = [0] * WRITERS
        self._error: "Optional[BaseException]" = None
        self._is_over = False
        self._threads: "List[Thread]" = []

    def add(self, files: "List[List[Small]]") -> None:
        """Write these, those of each list one after the other; waits while much is waiting.

        Raises:
            Failure: one of those added so far could not be written.
        """
        if not self._threads:
            self._threads = [Thread(self._work, number) for number in range(WRITERS)]
        with self._changed:
            for number, own in enumerate(files):
                while self._unfinished[number] > WAITING and self._error is None:
                    self._changed.wait()
                if own and self._error is None:
                    self._batches[number].append(own)
                    self._unfinished[number] += 1
            self._changed.notify_all()
        self._check()

    def finish(self) -> None:
        """Wait until all are written; raises as `add` does."""
        self.stop()
        self._check()

    def stop(self) -> None:
        """Write what was added, unless something failed, and no more."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self, number: int) -> None:
        while True:
            with self._changed:
                while not self._batches[number] and not self._is_over and self._error is None:
                    self._changed.wait()
                if not self._batches[number] or self._error is not None:
                    return
                batch = self._batches[number].popleft()
            try:
                for file in batch:
                    self._write(*file)
            except BaseException as error:
                with self._changed:
                    self._error = self._error or error
                    self._changed.notify_all()
                return
            with self._changed:
                self._unfinished[number] -= 1
                self._changed.notify_all()

    def _write(self, folder: str, name: str, mode: int, mtime: int, digest: str, data: memoryview) -> None:
        target = folder + '/' + name
        sha1 = new_sha1(len(data))
        sha1.update(data)
        if sha1.hexdigest() != digest:
            raise mismatch(target)
        temporary = copies.temporary_path(folder, name)
        try:
            fd = create(temporary, mode)
            try:
                rest = data
                while rest:
                    rest = rest[write(fd, rest) :]
                if mtime != ANY_TIME:
                    os.utime(fd, ns=(mtime, mtime))
                status = os.fstat(fd)
                if stat.S_IMODE(status.st_mode) != mode:
                    os.fchmod(fd, mode)
            finally:
                os.close(fd)  # a program that is open for writing cannot be run
            os.rename(temporary, target)
        except OSError as error:
            try:
                os.unlink(temporary)
            except OSError:
                pass  # it was never made
            raise failure(target, len(data), error) from None
        self._hashes.written(target, status, digest)


def mismatch(target: str) -> Failure:
    """What came is not what was sent."""
    what = '{}: what came is not what was sent (SHA-1); was it changed meanwhile?'
    return Failure(what.format(target), kind='mismatch')


def failure(target: str, size: int, error: OSError, verb: str = 'write') -> Failure:
    """Why a file of so many bytes cannot be written (or read)."""
    folder = os.path.dirname(target)
    where = folder if error.errno == errno.EACCES else target
    what = 'cannot {} {}: {}'.format(verb, where, error.strerror)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what += ' ({} bytes{})'.format(size, _free(folder))
    return Failure(what, kind='transfer', errno_name=errno.errorcode.get(error.errno or 0, ''))


def _free(folder: str) -> str:
    """How much room there is, in words."""
    try:
        system = os.statvfs(folder)
    except OSError:
        return ''
    if system.f_files and not system.f_favail:
        return ', no more files can be made there: all inodes are used'
    return ', {} are free there'.format(system.f_bavail * system.f_frsize)


def create(path: str, mode: int) -> int:
    """A new file to write to; in place of what a process left that had our number."""
    try:
        return os.open(path, _FLAGS, mode & 0o777)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, _FLAGS, mode & 0o777)


#: The seam where writing can fail.
write = os.write
