"""Files on this host: folders for components, comparison by size and SHA-1, and writing what is sent.

A file is written under a temporary name beside its target, checked against its length and SHA-1, given its mode, and
renamed: a reader sees the old file or the new one, an interrupted copy leaves neither half a file nor rubbish, and a
running executable can be replaced.
"""

import errno
import os
import stat
from _collections import deque  # `collections` takes long to import

from remote_runner.agent import processes
from remote_runner.agent.hashes import new_sha1, sha1
from remote_runner.agent.request import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Deque, Dict, List, Optional, Set, Tuple

    from remote_runner.agent.request import Request

#: What the names of temporary folders begin with, and the random bytes that they end with in hexadecimal.
FOLDER = 'remote_runner-'
RANDOM = 5
#: What the names of files begin with that are not whole yet.
TEMPORARY = '.rr-'


def expand(path: str) -> str:
    """An absolute path: `~` is the home, a relative path is relative to it (as the login shell starts there)."""
    return os.path.normpath(os.path.join(os.path.expanduser('~'), os.path.expanduser(path)))


def prepare(request: "Request") -> "Dict[str, object]":
    """Operation `prepare`: the absolute base_dir of each of `components`, in their order.

    Each is [name, base_dir, user]. A base_dir of None becomes a fresh temporary folder, into which the user is let.
    With `create`, a base_dir that is missing is created where that is possible; where not, the start of the component
    (or its first file) says why. The result lists the folders, and those of them (and above them) that were missing.
    """
    folders: "List[str]" = []
    created: "List[str]" = []
    temporary: "List[str]" = []
    try:
        for name, base_dir, user in request.header['components']:
            if base_dir is None:
                folder = _temporary_folder(name)
                temporary.append(folder)
                if user is not None:
                    from remote_runner.agent.become import let_in

                    let_in(folder, user)
            else:
                folder = expand(base_dir)
                try:
                    created += make_folders(folder) if request.header['create'] else []
                except OSError:
                    pass  # entering it will fail with the same reason, which is then the component's
            folders.append(folder)
    except (Failure, OSError):
        for folder in (*temporary, *reversed(created)):  # nobody hears of them, so nobody else would remove them
            try:
                os.rmdir(folder)
            except OSError:
                continue  # something has come into it meanwhile
        raise
    return {'base_dirs': folders, 'created': created}


def _temporary_folder(name: str) -> str:
    """A new folder under $TMPDIR or /tmp, only for us, recognizable by the component's name."""
    safe = ''.join(c if (c.isalnum() and ord(c) < 128) or c in '-_.' else '_' for c in name)[:64]
    while True:
        folder = os.path.join(temporary_root(), '{}{}-{}'.format(FOLDER, safe, os.urandom(RANDOM).hex()))
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            continue
        return folder


def temporary_root() -> str:
    """Where temporary folders are made."""
    return os.environ.get('TMPDIR') or '/tmp'


def is_temporary(name: str) -> bool:
    """Whether a folder of this name may be one that `prepare` made."""
    first, _, last = name.rpartition('-')
    return first.startswith(FOLDER) and len(first) > len(FOLDER) and len(last) == 2 * RANDOM and _is_hex(last)


def _is_hex(text: str) -> bool:
    return all(c in '0123456789abcdef' for c in text)


def make_folders(folder: str) -> "List[str]":
    """`mkdir -p`; those that had to be made, outermost first."""
    made: "List[str]" = []
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for path in reversed(missing):
        try:
            os.mkdir(path)
            made.append(path)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
    return made


def _sha1_if_readable(path: str) -> "Optional[str]":
    """None for a file that we may replace and not read."""
    try:
        return sha1(path)
    except PermissionError:
        return None


def compare(request: "Request") -> "Dict[str, object]":
    """Operation `compare`: what stands at each path of `files` ([path, size or None]), in their order.

    Each answer is [kind, mode, SHA-1]: kind is `file`, `folder`, `missing` or `other`; the SHA-1 is there for files of
    the size asked about, and None for the rest.
    """
    found: "List[Tuple[str, int, Optional[str]]]" = []
    for path, size in request.header['files']:
        request.check()
        try:
            status = os.stat(expand(path))
        except (FileNotFoundError, NotADirectoryError):
            found.append(('missing', 0, None))
            continue
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISREG(status.st_mode):
            found.append(('file', mode, _sha1_if_readable(expand(path)) if status.st_size == size else None))
        else:
            found.append(('folder' if stat.S_ISDIR(status.st_mode) else 'other', mode, None))
    return {'found': found}


def put(request: "Request") -> "Dict[str, object]":
    """Operation `put`: make `folders`, set `modes` ([path, mode]), and write the files that come as parts.

    A part lists the files that begin in its body ([path, size, mode, SHA-1]); their contents follow one another without
    gaps, through as many parts as it takes.
    """
    for folder in request.header['folders']:
        make_folders(expand(folder))
    for path, mode in request.header['modes']:
        os.chmod(expand(path), mode)
    writer = _Writer()
    try:
        for entries, body in request.parts():
            writer.take(entries, memoryview(body))
        writer.finish()
    except BaseException:
        writer.abandon()
        raise
    return {}


class _Writer:
    """Cuts the stream of contents into files."""

    def __init__(self) -> None:
        self._waiting: "Deque[Tuple[str, int, int, str]]" = deque()
        self._file: "Optional[_Incoming]" = None
        self._folders: "Set[str]" = set()

    def take(self, entries: "List[List[Any]]", body: memoryview) -> None:
        self._waiting.extend((str(path), int(size), int(mode), str(digest)) for path, size, mode, digest in entries)
        while True:
            if self._file is None:
                if not self._waiting:
                    break
                path, size, mode, digest = self._waiting.popleft()
                self._file = _Incoming(self._target(path), size, mode, digest)
            body = self._file.write(body)
            if self._file.missing:
                break
            self._file.finish()
            self._file = None
        if body:
            raise Failure('{} bytes too many came'.format(len(body)), kind='transfer')

    def _target(self, path: str) -> str:
        target = os.path.realpath(expand(path))
        folder = os.path.dirname(target)
        if folder not in self._folders:
            if not make_folders(folder):
                _sweep(folder)
            self._folders.add(folder)
        return target

    def finish(self) -> None:
        """All parts came."""
        if self._file is not None or self._waiting:
            raise Failure('the contents ended too early', kind='transfer')

    def abandon(self) -> None:
        """Leave nothing of a file that is not whole."""
        if self._file is not None:
            self._file.remove()


def _temporary_name() -> str:
    """A name for a file that is not whole yet; it tells who writes it, on a file system that many hosts may share."""
    return '{}{}-{}-{}'.format(TEMPORARY, os.uname().nodename, os.getpid(), os.urandom(4).hex())


def _sweep(folder: str) -> None:
    """Remove what agents of this host left in a folder that were killed in the middle of a copy."""
    for path in abandoned_copies(folder):
        try:
            os.unlink(path)
        except OSError:
            continue  # not ours to remove


def abandoned_copies(folder: str) -> "List[str]":
    """The files in a folder that are not whole, and whose writers on this host are gone."""
    ours = '{}{}-'.format(TEMPORARY, os.uname().nodename)
    try:
        names = os.listdir(folder)
    except PermissionError:
        return []  # a folder to write into and not to look at
    found = []
    for name in names:
        pid, _, last = name[len(ours) :].partition('-')
        is_one = name.startswith(ours) and pid.isdigit() and len(last) == 8 and _is_hex(last)
        if is_one and processes.start_time(int(pid)) is None:
            found.append(os.path.join(folder, name))
    return found


class _Incoming:
    """One file on its way to its target."""

    def __init__(self, target: str, size: int, mode: int, digest: str) -> None:
        if os.path.isdir(target):
            raise Failure('{} is a folder'.format(target), kind='transfer')
        self.missing = size
        self._target = target
        self._mode = mode
        self._expected = digest
        self._digest = new_sha1(size)
        self._temporary = os.path.join(os.path.dirname(target), _temporary_name())
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            self._fd = os.open(self._temporary, flags, 0o600)
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> Failure:
        name = os.path.dirname(self._target) if isinstance(error, PermissionError) else self._target
        what = 'cannot write {}: {}'.format(name, error.strerror)
        return Failure(what, kind='transfer', errno_name=errno.errorcode.get(error.errno or 0, ''))

    def write(self, data: memoryview) -> memoryview:
        """Write what belongs to this file; the rest is given back."""
        own, rest = data[: self.missing], data[self.missing :]
        self._digest.update(own)
        self.missing -= len(own)
        try:
            while own:
                own = own[os.write(self._fd, own) :]
        except OSError as error:
            raise self._failure(error) from None
        return rest

    def finish(self) -> None:
        """The content is whole: check it and put it in its place."""
        if self._digest.hexdigest() != self._expected:
            raise Failure('{}: what came is not what was sent (SHA-1); was it changed meanwhile?'.format(self._target))
        try:
            os.fchmod(self._fd, self._mode)
            fd, self._fd = self._fd, -1
            os.close(fd)
            os.rename(self._temporary, self._target)
        except OSError as error:
            raise self._failure(error) from None

    def remove(self) -> None:
        """It does not become whole."""
        if self._fd >= 0:
            os.close(self._fd)
        try:
            os.unlink(self._temporary)
        except FileNotFoundError:
            return  # it was renamed already


def remove(request: "Request") -> "Dict[str, object]":
    """Operation `remove`: remove the `temporary` folders of components that never ran, with all that is in them, and
    those of `folders` (made by this run, outermost first) that are empty; others hold something that was wanted.
    """
    import shutil

    for folder in request.header['temporary']:
        shutil.rmtree(folder)
    for folder in reversed(request.header['folders']):
        try:
            os.rmdir(folder)
        except OSError:
            continue
    return {}
