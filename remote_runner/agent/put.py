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
from remote_runner.agent.request import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Set, Tuple

    from remote_runner.agent.hashes import Hashes
    from remote_runner.agent.large import Incoming
    from remote_runner.agent.request import Request

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
    writer = _Writer(hashes, spared, request.check)
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
    except OSError as error:
        raise Failure('cannot set the time of {}: {}'.format(path, error.strerror), kind='transfer') from None


class _Writer:
    """Puts files together from what comes."""

    def __init__(self, hashes: "Hashes", spared: "List[str]", check: "Callable[[], None]") -> None:
        self._hashes = hashes
        self._spared = spared
        self._check = check
        self._file: "Optional[Incoming]" = None
        self._path = ''
        #: The paths, as they came, of files that were to be made from what is not there any more.
        self.stale: "List[str]" = []
        self._writers = small.Writers(hashes)
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
                from remote_runner.agent.large import Incoming

                self._path = path
                self._file = Incoming(folder, name, size, mode, mtime, self._check, resume=item[_BEGIN])
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
