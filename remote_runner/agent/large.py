"""Putting one large file together from what comes, what is there already, and holes.

It grows under a temporary name, and what came of it stays for the next run to go on with (`agent/copies.py`). Much that
is there already is copied by the kernel, and hashed beside that.
"""

import errno
import os
import stat
import time

from remote_runner.agent import copies, small
from remote_runner.agent.request import Failure
from remote_runner.agent.sha1 import new_sha1
from remote_runner.agent.threads import Condition, Thread
from remote_runner.wire.columns import ANY_TIME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional, Tuple

#: Bytes that are taken at once from what is there already.
PIECE = 1 << 17
#: Bytes that are worth to be copied by the kernel, and that it copies at once.
MUCH = 4 << 20
#: Bytes of which it is told to write them out.
WRITE_OUT = 16 << 20
#: Why the kernel may not be able to: file systems and old kernels.
_CANNOT = (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


class Incoming:
    """One file on its way to its target.

    Args:
        folder, name: its target.
        size, mode, mtime: what it is to have.
        check: raises something when nobody wants it any more; called with each piece of what is not sent.
        resume: whether an interrupted copy is gone on with.
    """

    def __init__(
        self,
        folder: str,
        name: str,
        size: int,
        mode: int,
        mtime: int,
        check: "Callable[[], object]",
        *,
        resume: bool,
    ) -> None:
        self.target = '/' + name if folder == '/' else folder + '/' + name
        self.has_failed = False
        self._size = size
        self._done = 0
        self._mode = mode
        self._mtime = mtime
        self._check = check
        self._digest = new_sha1(size)
        self._resumed = resume
        self._reuses = resume
        self._is_spoilt = False
        self._source = -1
        self._fd = -1
        self._temporary = copies.temporary_path(folder, name)
        try:
            self._open()
        except OSError as error:
            raise self._failure(error) from None

    def _open(self) -> None:
        if self._resumed and self._open_interrupted():
            return
        self._fd = small.create(self._temporary, 0o600)

    def _open_interrupted(self) -> bool:
        """Go on with an interrupted copy, if it is still there."""
        copy = copies.find(self.target)
        try:
            if copy is not None:
                self._fd = os.open(copy.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                os.rename(copy.path, self._temporary)
                return True
        except (FileNotFoundError, PermissionError):
            self._close()  # another agent was faster; or it has its permission bits already, and we may not write it
        self._resumed = False
        self._is_spoilt = True
        return False

    def _failure(self, error: OSError, verb: str = 'write') -> Failure:
        self.has_failed = True
        if self._fd >= 0 and error.errno in (errno.ENOSPC, errno.EDQUOT):
            try:
                os.ftruncate(self._fd, 0)  # what came of it is no use, and was free before
            except OSError:
                pass  # NFS writes what it has yet to write before, and fails again: less counts as free
        return small.failure(self.target, self._size, error, verb)

    def write(self, data: memoryview) -> None:
        """More of its content."""
        if self._is_spoilt:
            return
        self._grow(len(data))
        self._digest.update(data)
        try:
            while data:
                data = data[small.write(self._fd, data) :]
        except OSError as error:
            raise self._failure(error) from None

    def _grow(self, size: int) -> None:
        self._done += size
        if size < 0 or self._done > self._size:
            raise Failure('{}: more came than there is'.format(self.target), kind='transfer')

    def skip(self, size: int) -> None:
        """A hole; in what is gone on with, something else may stand there, and is overwritten."""
        end = self._done + size
        while self._done < end and not self._is_spoilt:
            data, hole = _data(self._fd, self._done, end) if self._resumed else (end, end)
            self._zeros(data - self._done, self._leave_out)
            self._zeros(hole - data, self.write)

    def _zeros(self, size: int, use: "Callable[[memoryview], object]") -> None:
        zeros = memoryview(bytes(min(size, PIECE)))
        for begin in range(0, size, PIECE):
            self._check()
            use(zeros[: size - begin])

    def _leave_out(self, zeros: memoryview) -> None:
        self._grow(len(zeros))
        self._digest.update(zeros)
        self._seek(len(zeros))

    def _seek(self, size: int) -> None:
        try:
            os.lseek(self._fd, size, os.SEEK_CUR)
        except OSError as error:
            raise self._failure(error) from None

    def keep(self, size: int) -> None:
        """What an interrupted copy brought already."""
        if self._is_spoilt:
            return
        begin = self._done
        self._grow(size)
        self._take(self._fd, size, begin, self._digest.update)
        self._seek(size)

    def copy(self, size: int, offset: int) -> None:
        """What stands in the file that is there already; holes stay holes."""
        self._reuses = True
        if self._source < 0 and not self._is_spoilt:
            try:
                self._source = os.open(self.target, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                self._is_spoilt = not stat.S_ISREG(os.fstat(self._source).st_mode)
            except OSError:
                self._is_spoilt = True
        end = offset + size
        while offset < end and not self._is_spoilt:
            data, hole = _data(self._source, offset, end)
            self.skip(data - offset)
            if hole - data >= MUCH and hasattr(os, 'copy_file_range'):  # Python 3.8
                data += self._copy_much(hole - data, data)
            self._take(self._source, hole - data, data, lambda piece: self.write(memoryview(piece)))
            offset = hole

    def _copy_much(self, size: int, offset: int) -> int:
        """Let the kernel copy, and hash what it has written meanwhile; how much it did: less where it cannot."""
        begin = self._done
        kernel = _KernelCopy(self._source, offset, self._fd, begin, size)
        hashed = 0
        try:
            while not self._is_spoilt:
                done = kernel.wait(hashed)
                if done == hashed:
                    break
                self._grow(done - hashed)
                self._take(self._fd, done - hashed, begin + hashed, self._digest.update)
                hashed = done
        finally:
            kernel.end()  # before its files are closed
        self._seek(hashed)
        if kernel.error is not None and kernel.error.errno not in _CANNOT:
            raise self._failure(kernel.error)
        return hashed

    def _take(self, fd: int, size: int, offset: int, use: "Callable[[bytes], object]") -> None:
        while size and not self._is_spoilt:
            self._check()
            try:
                piece = os.pread(fd, min(PIECE, size), offset)
            except OSError as error:
                raise self._failure(error, 'read') from None
            if not piece:
                self._is_spoilt = True  # it became shorter meanwhile
            else:
                use(piece)
            size -= len(piece)
            offset += len(piece)

    def is_stale(self, expected: str) -> bool:
        """The content is whole: whether it is wrong, and what was there already may be why."""
        return self._is_spoilt or (self._reuses and self._digest.hexdigest() != expected)

    def finish(self, expected: str) -> os.stat_result:
        """The content is whole: check it and put it in its place; what fstat(2) said of it just before."""
        if self._done != self._size or self._digest.hexdigest() != expected:
            raise small.mismatch(self.target)
        try:
            os.ftruncate(self._fd, self._size)  # it may end with a hole
            if self._mtime != ANY_TIME:
                os.utime(self._fd, ns=(int(time.time() * 1e9), self._mtime))
            os.fchmod(self._fd, self._mode)
            status = os.fstat(self._fd)
            self._close()  # a program that is open for writing cannot be run
            os.rename(self._temporary, self.target)
        except OSError as error:
            raise self._failure(error) from None
        return status

    def _close(self) -> None:
        """Both files are closed even where that fails: file systems of the network may tell only then that they have no
        room (close(2))."""
        fd, source, self._fd, self._source = self._fd, self._source, -1, -1
        if source >= 0:
            os.close(source)
        if fd >= 0:
            os.close(fd)

    def give_up(self, keep: bool) -> bool:
        """It does not become whole. Whether nothing is left of it: with `keep` a large one stays for the next run."""
        try:
            self._close()
        except OSError:
            keep = False  # not all that was written is there
        if keep and self._done >= copies.LEAST:
            return False
        try:
            os.unlink(self._temporary)
        except FileNotFoundError:
            return True  # it was renamed already
        except OSError:
            return False  # the folder cannot be written to any more
        return True


class _KernelCopy:
    """Copies a range from file to file, in a thread of its own (copy_file_range(2))."""

    def __init__(self, source: int, offset: int, target: int, to: int, size: int) -> None:
        self.error: "Optional[OSError]" = None
        self._changed = Condition()
        self._done = 0
        self._is_over = False
        self._thread = Thread(self._copy, source, offset, target, to, size)

    def _copy(self, source: int, offset: int, target: int, to: int, size: int) -> None:
        count = 1
        begun = 0
        write_out = _write_out() if size >= WRITE_OUT else None
        while count and self._done < size and not self._is_over:
            try:
                some = min(size - self._done, MUCH)
                count = os.copy_file_range(source, target, some, offset + self._done, to + self._done)  # novm
            except OSError as error:
                self.error, count = error, 0
            with self._changed:
                self._done += count
                self._changed.notify_all()
            if write_out is not None and self._done - begun >= WRITE_OUT:
                write_out(target, to + begun, self._done - begun)
                begun = self._done
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def wait(self, known: int) -> int:
        """How much is copied: more than `known`, unless nothing more comes."""
        with self._changed:
            while self._done == known and not self._is_over:
                self._changed.wait()
            return self._done

    def end(self) -> None:
        """Copy no more."""
        self._is_over = True
        self._thread.join()


def _write_out() -> "Optional[Callable[[int, int, int], object]]":
    """Tells the kernel to begin to write a range of a file to the disk (sync_file_range(2)); None where that cannot be.

    ext4 begins with all of it when the file is renamed in place of another, and lets us wait until it has.
    """
    try:
        from ctypes import CDLL, c_int, c_int64, c_uint

        function = CDLL(None).sync_file_range
    except (ImportError, OSError, AttributeError):
        return None
    function.argtypes = [c_int, c_int64, c_int64, c_uint]
    return lambda fd, offset, size: function(fd, offset, size, 2)  # SYNC_FILE_RANGE_WRITE; an error does not matter


def _data(fd: int, begin: int, end: int) -> "Tuple[int, int]":
    """Where in this range of a file data begin, and the next hole (lseek(2)); both the end, where there is only one."""
    place = os.lseek(fd, 0, os.SEEK_CUR)
    try:
        data = min(os.lseek(fd, begin, os.SEEK_DATA), end)
        return data, min(os.lseek(fd, data, os.SEEK_HOLE), end) if data < end else end
    except OSError as error:
        if error.errno != errno.ENXIO:
            return begin, end  # a file system that does not tell
        return end, end
    finally:
        os.lseek(fd, place, os.SEEK_SET)
