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
from remote_runner.wire.columns import ANY_TIME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Set, Tuple

    from remote_runner.agent.hashes import Hashes
    from remote_runner.agent.request import Request

#: Bytes that are taken at once from what is there already.
PIECE = 1 << 20
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

    `spared` are files whose interrupted copies are needed for that; others are removed.
    """
    header = request.header
    for path, mode in header['folders']:
        _make_folder(expand(path), mode)
    hashes = request.agent.hashes(header['cache'])
    writer = _Writer(hashes, [os.path.realpath(expand(path)) for path in header['spared']])
    try:
        for items, body in request.parts():
            writer.take(items, memoryview(body))
        writer.finish()
    finally:
        writer.close()
    for path, text in header['links']:
        _link(expand(path), text)
    for path, mode in header['modes']:
        os.chmod(expand(path), mode)
    for path, mtime in header['times']:
        _set_time(expand(path), mtime)
    for path, mode in header.get('bits', ()):
        os.chmod(expand(path), mode)
    request.agent.save_hashes()
    return {}


def _make_folder(path: str, mode: "Optional[int]") -> None:
    """Make a folder, and those above it; with a mode, but so that we may write into it."""
    try:
        made = make_folders(path)
    except OSError as error:
        is_there = isinstance(error, FileExistsError)
        why = '{} is no folder'.format(error.filename) if is_there else error.strerror
        raise Failure('cannot make the folder {}: {}'.format(path, why), kind='transfer') from None
    if mode is not None and path in made:
        os.chmod(path, mode | stat.S_IRWXU)


def _set_time(path: str, mtime: int) -> None:
    try:
        os.utime(path, ns=(int(time.time() * 1e9), mtime))
    except PermissionError:
        return  # the content is right, and whose file it is decides about its time


def _link(path: str, text: str) -> None:
    """Make a symbolic link, in place of whatever file is there."""
    folder, name = os.path.split(path)
    make_folders(folder)
    temporary = copies.temporary_path(os.path.realpath(folder), name)
    try:
        os.symlink(text, temporary)
        os.rename(temporary, path)
    except OSError as error:
        try:
            os.unlink(temporary)
        except OSError:
            pass  # it was never made
        raise Failure('cannot make the link {}: {}'.format(path, error.strerror), kind='transfer') from None


class _Writer:
    """Puts files together from what comes."""

    def __init__(self, hashes: "Hashes", spared: "List[str]") -> None:
        self._hashes = hashes
        self._spared = spared
        self._file: "Optional[_Incoming]" = None
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
            status = incoming.finish(digest)
        except BaseException:
            self._is_clean = incoming.give_up(keep=False) and self._is_clean
            raise
        self._hashes.written(incoming.target, status, digest)

    def _target(self, path: str) -> "Tuple[str, str]":
        """The real folder and the name of a file; a link is followed, and stays."""
        place, _, name = path.rpartition('/')
        folder = self._folders.get(place)
        if folder is None:
            folder = os.path.realpath(expand(place or '/'))
            self._enter(folder)
            self._folders[place] = folder
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
        elif stat.S_ISDIR(status.st_mode):
            raise Failure('{}/{} is a folder'.format(folder, name), kind='transfer')
        return folder, name

    def _enter(self, folder: str) -> None:
        if make_folders(folder):
            self._new.add(folder)
        else:
            copies.sweep(folder, self._spared)
        self._journal.note(folder)

    def finish(self) -> None:
        """All parts came."""
        if self._file is not None:
            raise Failure('the contents ended too early', kind='transfer')
        self._writers.finish()
        copies.remove_interrupted(())

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
        self._source = -1
        self._fd = -1
        self._temporary = copies.temporary_path(folder, name)
        try:
            self._open()
        except OSError as error:
            raise self._failure(error) from None

    def _open(self) -> None:
        if self._resumed:
            copy = copies.find(self.target)
            if copy is None:
                raise Failure('the interrupted copy of {} is gone'.format(self.target), kind='transfer')
            os.rename(copy.path, self._temporary)
            self._fd = os.open(self._temporary, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            return
        self._fd = small.create(self._temporary, 0o600)

    def _failure(self, error: OSError) -> Failure:
        self.has_failed = True
        return _failure(self.target, self._size, error)

    def write(self, data: memoryview) -> None:
        """More of its content."""
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
        """A hole; only in what is gone on with it is written, as something else may stand there."""
        zeros = bytes(min(size, PIECE))
        for begin in range(0, size, PIECE):
            some = zeros[: size - begin]
            if self._resumed:
                self.write(memoryview(some))
            else:
                self._grow(len(some))
                self._digest.update(some)
                self._seek(len(some))

    def _seek(self, size: int) -> None:
        try:
            os.lseek(self._fd, size, os.SEEK_CUR)
        except OSError as error:
            raise self._failure(error) from None

    def keep(self, size: int) -> None:
        """What an interrupted copy brought already."""
        begin = self._done
        self._grow(size)
        self._take(self._fd, size, begin, self._digest.update)
        self._seek(size)

    def copy(self, size: int, offset: int) -> None:
        """What stands in the file that is there already."""
        if self._source < 0:
            try:
                self._source = os.open(self.target, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                raise self._failure(error) from None
        self._take(self._source, size, offset, self._write_or_skip)

    def _write_or_skip(self, piece: bytes) -> None:
        if piece.count(0) == len(piece):
            self.skip(len(piece))
        else:
            self.write(memoryview(piece))

    def _take(self, fd: int, size: int, offset: int, use: "Callable[[bytes], object]") -> None:
        while size:
            piece = os.pread(fd, min(PIECE, size), offset)
            if not piece:
                raise Failure('{} became shorter meanwhile'.format(self.target), kind='transfer')
            use(piece)
            size -= len(piece)
            offset += len(piece)

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
        return True


def _failure(target: str, size: int, error: OSError) -> Failure:
    """Why a file of so many bytes cannot be written."""
    folder = os.path.dirname(target)
    where = folder if isinstance(error, PermissionError) else target
    what = 'cannot write {}: {}'.format(where, error.strerror)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what += ' ({} bytes{})'.format(size, _free(folder))
    return Failure(what, kind='transfer', errno_name=errno.errorcode.get(error.errno or 0, ''))


def _free(folder: str) -> str:
    """How much room there is, in words."""
    try:
        system = os.statvfs(folder)
    except OSError:
        return ''
    return ', {} are free there'.format(system.f_bavail * system.f_frsize)

