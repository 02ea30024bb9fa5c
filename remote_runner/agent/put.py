"""Writing files that the master sends.

A file is written under a temporary name beside its target, checked against its length and SHA-1, given its times and
mode, and renamed: a reader sees the old file or the new one, an interrupted copy leaves no half a file, and a running
executable can be replaced. What came of a large one stays, for the next run to go on with (`agent/copies.py`).
"""

import errno
import os
import stat
import time

from remote_runner.agent import copies, small
from remote_runner.agent.files import expand, make_folders
from remote_runner.agent.hashes import new_sha1
from remote_runner.agent.request import Failure
from remote_runner.agent.threads import Condition, Thread
from remote_runner.wire.columns import ANY_TIME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Set, Tuple

    from remote_runner.agent.hashes import Hashes
    from remote_runner.agent.request import Request

#: Bytes that are taken at once from what is there already.
PIECE = 1 << 17
#: Bytes that are worth to be copied by the kernel, and that it copies at once.
MUCH = 4 << 20
#: Why the kernel may not be able to: file systems and old kernels.
_CANNOT = (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
#: Items of this length at least begin a file.
_BEGIN = 5


def put(request: "Request") -> "Dict[str, object]":
    """Operation `put`: make `folders` ([path, mode or None]), write the files that come as parts, make `links`
    ([path, text]), set `modes` ([path, mode]) and `times` ([path, ns]), and at last `bits` ([path, mode]) of folders.

    Each part lists what to do with its body, from begin to end:

    * [path, size, mode, time, SHA-1]: a file, all of whose content comes next.
    * [path, size, mode, time, None, resume]: a file that is put together of what follows: ['d', n] so many bytes of the
      body, ['c', n, offset] bytes that stand at `offset` of the file that is there already, ['z', n] a hole, and
      ['e', SHA-1] its end. With `resume` an interrupted copy is gone on with, and ['p', n] are bytes that are right.

    `spared` are files whose interrupted copies are needed for that; others are removed. The result lists the `stale`
    files: what was to be taken from what is there already is not that any more. They are as they were.
    """
    header = request.header
    made: "Set[str]" = set()
    for path, mode in header['folders']:
        _make_folder(expand(path), mode, made)
    hashes = request.agent.hashes(header['cache'])
    spared = [os.path.realpath(expand(path)) for path in header['spared']]
    copies.remove_interrupted(spared)  # before what they hold is missing elsewhere
    writer = _Writer(hashes, spared)
    try:
        for items, body in request.parts():
            writer.take(items, memoryview(body))
        writer.finish()
        for path, text in header['links']:
            writer.link(expand(path), text)
    finally:
        writer.close()
    copies.remove_interrupted(())
    for path, mode in header['modes']:
        _set_bits(expand(path), mode)
    for path, mtime in header['times']:
        _set_time(expand(path), mtime)
    for path, mode in header.get('bits', ()):
        _set_bits(expand(path), mode)
    request.agent.save_hashes()
    return {'stale': writer.stale}


def _make_folder(path: str, mode: "Optional[int]", made: "Set[str]") -> None:
    """Make a folder, and those above it; one that is new gets its mode, but so that we may write into it."""
    made.update(_make_missing(path))
    if mode is not None and path in made:
        os.chmod(path, mode | stat.S_IRWXU)


def _make_missing(folder: str) -> "List[str]":
    """`make_folders`, and words for what goes wrong."""
    try:
        return make_folders(folder)
    except OSError as error:
        is_there = isinstance(error, FileExistsError)
        why = '{} is no folder'.format(error.filename) if is_there else error.strerror
        raise Failure('cannot make the folder {}: {}'.format(folder, why), kind='transfer') from None


def _refuse_device(path: str, mode: int) -> None:
    """Nobody wants /dev/null to become a file."""
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise Failure('{} is a device'.format(path), kind='transfer')


def _set_bits(path: str, mode: int) -> None:
    try:
        os.chmod(path, mode)
    except OSError as error:
        what = 'cannot set the permission bits of {} to {:04o}: {}'.format(path, mode, error.strerror)
        raise Failure(what, kind='transfer', errno_name=errno.errorcode.get(error.errno or 0, '')) from None


def _set_time(path: str, mtime: int) -> None:
    try:
        os.utime(path, ns=(int(time.time() * 1e9), mtime))
    except PermissionError:
        return  # the content is right, and whose file it is decides about its time


class _Writer:
    """Puts files together from what comes."""

    def __init__(self, hashes: "Hashes", spared: "List[str]") -> None:
        self._hashes = hashes
        self._spared = spared
        self._file: "Optional[_Incoming]" = None
        self._path = ''
        #: The paths, as they came, of files that were to be made from what is not there any more.
        self.stale: "List[str]" = []
        self._writers = small.Writers(hashes, _failure)
        self._folders: "Dict[str, str]" = {}
        self._new: "Set[str]" = set()
        self._turns: "Dict[str, int]" = {}
        self._journal = copies.Journal()
        self._is_clean = True
        self._body = memoryview(b'')

    def take(self, items: "List[List[Any]]", body: memoryview) -> None:
        self._body = body
        whole: "List[List[small.Small]]" = [[] for _ in range(small.WRITERS)]
        for item in items:
            if len(item) < _BEGIN:
                self._step(item)
                continue
            path, size, mode, mtime, digest = item[:_BEGIN]
            if self._file is not None:
                raise Failure('a file has no end', kind='transfer')
            folder, name = self._target(path)
            if digest is None:
                self._path = path
                self._file = _Incoming(folder, name, size, mode, mtime, resume=item[_BEGIN])
            else:
                number = self._turns.setdefault(folder, len(self._turns) % small.WRITERS)
                whole[number].append((folder, name, mode, mtime, digest, self._cut(size)))
        if any(whole):
            self._writers.add(whole)
        if self._body:
            raise Failure('{} bytes too many came'.format(len(self._body)), kind='transfer')

    def _step(self, item: "List[Any]") -> None:
        what = item[0]
        if self._file is None:
            raise Failure('what came belongs to no file', kind='transfer')
        if what == 'd':
            self._file.write(self._cut(item[1]))
        elif what == 'z':
            self._file.skip(item[1])
        elif what == 'e':
            self._end(item[1])
        elif what == 'c':
            self._file.copy(item[1], item[2])
        elif what == 'p':
            self._file.keep(item[1])
        else:
            raise Failure('what came is no step of a copy: {!r}'.format(item), kind='transfer')

    def _cut(self, size: int) -> memoryview:
        if len(self._body) < size:
            raise Failure('the contents ended too early', kind='transfer')
        own, self._body = self._body[:size], self._body[size:]
        return own

    def _end(self, digest: str) -> None:
        incoming, self._file = self._file, None
        assert incoming is not None
        try:
            is_stale = incoming.is_stale(digest)
            status = None if is_stale else incoming.finish(digest)
        except BaseException:
            self._is_clean = incoming.give_up(keep=False) and self._is_clean
            raise
        if is_stale:
            self._is_clean = incoming.give_up(keep=False) and self._is_clean
            self.stale.append(self._path)
        elif status is not None:
            self._hashes.written(incoming.target, status, digest)

    def _target(self, path: str) -> "Tuple[str, str]":
        """The real folder and the name of a file; a link is followed, and stays."""
        place, slash, name = path.rpartition('/')
        if not slash:
            place, name = path, '.'  # a home
        folder = self._folder(place)
        if folder in self._new:
            return folder, name  # nothing is in it but what we write
        try:
            status = os.lstat(folder + '/' + name)
        except OSError:
            return folder, name  # there is none; or writing it says why that cannot be known
        if stat.S_ISLNK(status.st_mode):
            folder, name = os.path.split(os.path.realpath(folder + '/' + name))
            self._enter(folder)
            if os.path.isdir(folder + '/' + name):
                raise Failure('{}/{} is a folder'.format(folder, name), kind='transfer')
            try:
                status = os.lstat(folder + '/' + name)
            except OSError:
                return folder, name  # as above
        elif stat.S_ISDIR(status.st_mode):
            raise Failure('{}/{} is a folder'.format(folder, name), kind='transfer')
        _refuse_device('{}/{}'.format(folder, name), status.st_mode)
        return folder, name

    def _folder(self, place: str) -> str:
        """The real folder in which something is to stand."""
        folder = self._folders.get(place)
        if folder is None:
            folder = os.path.realpath(expand(place or '/'))
            self._enter(folder)
            self._folders[place] = folder
        return folder

    def link(self, path: str, text: str) -> None:
        """Make a symbolic link, in place of whatever file is there."""
        place, name = os.path.split(path)
        temporary = copies.temporary_path(self._folder(place), name)
        try:
            _refuse_device(path, os.lstat(path).st_mode)
        except OSError:
            pass  # there is nothing; or making it says why that cannot be known
        try:
            try:
                os.symlink(text, temporary)
            except FileExistsError:  # of a process that had our number
                os.unlink(temporary)
                os.symlink(text, temporary)
            os.rename(temporary, path)
        except OSError as error:
            try:
                os.unlink(temporary)
            except OSError:
                pass  # it was never made
            raise Failure('cannot make the link {}: {}'.format(path, error.strerror), kind='transfer') from None

    def _enter(self, folder: str) -> None:
        if _make_missing(folder):
            self._new.add(folder)
        else:
            copies.sweep(folder, self._spared)
        self._journal.note(folder)

    def finish(self) -> None:
        """All parts came."""
        if self._file is not None:
            raise Failure('the contents ended too early', kind='transfer')
        self._writers.finish()

    def close(self) -> None:
        """Leave nothing of a file that is not whole, but what is worth to be gone on with."""
        self._writers.stop()
        if self._file is not None:
            self._is_clean = self._file.give_up(keep=not self._file.has_failed)
        self._journal.close(self._is_clean)


class _Incoming:
    """One file on its way to its target."""

    def __init__(self, folder: str, name: str, size: int, mode: int, mtime: int, *, resume: bool) -> None:
        self.target = '/' + name if folder == '/' else folder + '/' + name
        self.has_failed = False
        self._size = size
        self._done = 0
        self._mode = mode
        self._mtime = mtime
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
            os.ftruncate(self._fd, 0)  # what came of it is no use, and was free before
        return _failure(self.target, self._size, error, verb)

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
        for fd in (self._fd, self._source):
            if fd >= 0:
                os.close(fd)
        self._fd = self._source = -1

    def give_up(self, keep: bool) -> bool:
        """It does not become whole. Whether nothing is left of it: with `keep` a large one stays for the next run."""
        self._close()
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
        while count and self._done < size and not self._is_over:
            try:
                some = min(size - self._done, MUCH)
                count = os.copy_file_range(source, target, some, offset + self._done, to + self._done)  # novm
            except OSError as error:
                self.error, count = error, 0
            with self._changed:
                self._done += count
                self._changed.notify_all()
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


def _failure(target: str, size: int, error: OSError, verb: str = 'write') -> Failure:
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

