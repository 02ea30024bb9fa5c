"""The folder in which SHA-1s of files stand from run to run (`agent/hashes.py`): many small files, each replaced in one
step, believed only if it is whole and nobody else can have written it.
"""

import marshal
import os
import stat
import time

from remote_runner.agent.sha1 import PIECE, early_sha1
from remote_runner.agent.stamps import ENTRY, PRIVATE, STEP, Mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Tuple

    #: By file name, its entry, see `entry` of `agent/stamps.py`.
    Names = Dict[str, bytes]
    #: By folder, the day of its last use and its files.
    Groups = Dict[str, Tuple[int, Names]]

#: The number in it is that of the format: what follows is the SHA-1 of the rest, and the rest a marshalled tuple of
#: Unix time of saving, boot, offset (see `Steps`), and by folder the day of its last use and its files' entries.
MAGIC = b'remote_runner hashes 1\n'
#: Files that the cache is spread over, by the folder of what is hashed: a small deployment reads few.
SHARDS = 64
#: Bytes of all of them together: no entry takes less than 68, so these are less than 400,000.
LIMIT = 27000000
#: Seconds that another run gets to save.
_PATIENCE = 1.0


def cache_path() -> str:
    """Where the cache of this user is."""
    home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return os.path.join(home, 'remote_runner', 'hashes')


def shard_of(folder: str) -> int:
    digest = early_sha1()
    digest.update(folder.encode('utf-8', 'surrogatepass'))
    return digest.digest()[0] % SHARDS


class Home:
    """The folder of the cache while it is open (`with`).

    Raises:
        OSError: it is missing, is not ours, or others may write to it.
    """

    def __init__(self, path: str, mounts: Mounts, create: bool = False) -> None:
        self._lock = -1
        self._boot = mounts.boot()
        if create:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        self._folder = _open_folder(path, create)
        try:
            device = os.fstat(self._folder).st_dev
            #: Times of other boots are times of other machines, where many have this home.
            self._is_shared = mounts.type(path, device) not in PRIVATE
            if self._is_shared:
                outer, self._folder = self._folder, _open_folder(os.uname().nodename, create, self._folder)
                os.close(outer)
        except OSError:
            os.close(self._folder)
            raise

    def __enter__(self) -> "Home":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)
        if self._lock >= 0:
            os.close(self._lock)

    def lock(self) -> None:
        """Keep other runs from saving.

        Raises:
            OSError: one of them does so for too long, or files cannot be locked here.
        """
        import fcntl
        import select

        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._lock = os.open('lock', flags, 0o600, dir_fd=self._folder)
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                select.poll().poll(5)  # no wait for a lock has an end

    def load(self, shard: int, now: int, offset: int) -> "Groups":
        """What is in a shard; nothing if it is missing, damaged, not ours, or from before the clock was set back."""
        data = self._data(_name(shard))
        if data[: len(MAGIC)] != MAGIC:
            return {}
        body = data[len(MAGIC) + 20 :]
        if data[len(MAGIC) : len(MAGIC) + 20] != _checksum(body):
            return {}
        try:
            found = marshal.loads(body)
        except (EOFError, ValueError, TypeError):
            return {}
        if not (isinstance(found, tuple) and tuple(map(type, found)) == (int, str, int, dict)):
            return {}
        saved, boot, offset_then, groups = found
        is_same_boot = boot == self._boot != ''
        if saved > now or (is_same_boot and offset_then - STEP > offset) or (self._is_shared and not is_same_boot):
            return {}
        return {folder: group for folder, group in groups.items() if type(folder) is str and _is_group(group)}

    def _data(self, name: str) -> bytes:
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(name, flags, dir_fd=self._folder)
        except OSError:
            return b''
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode) or not _is_ours(status):
                return b''
            pieces: "List[bytes]" = []
            while True:
                piece = os.read(file, min(PIECE, status.st_size + 1))
                if not piece:
                    return b''.join(pieces)
                pieces.append(piece)
        except OSError:
            return b''
        finally:
            os.close(file)

    def store(self, shard: int, groups: "Groups", now: int, offset: int) -> None:
        """Replace a shard in one step."""
        body = marshal.dumps((now, self._boot, offset, groups), 2)
        temporary = _name(shard) + '.new'
        try:
            os.unlink(temporary, dir_fd=self._folder)  # of a run that was killed: we hold the lock
        except FileNotFoundError:
            pass
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(temporary, flags, 0o600, dir_fd=self._folder)
        try:
            rest = memoryview(MAGIC + _checksum(body) + body)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.rename(temporary, _name(shard), src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except OSError:
            os.unlink(temporary, dir_fd=self._folder)
            raise
        finally:
            os.close(file)

    def prune(self, now: int, offset: int) -> None:
        """If there is too much, let go of the folders that were not used for the longest time, to three quarters."""
        sizes = {shard: size for shard, size in ((shard, self._size(shard)) for shard in range(SHARDS)) if size}
        if sum(sizes.values()) <= LIMIT:
            return
        found = []
        for shard in sizes:
            for folder, (day, names) in self.load(shard, now, offset).items():
                found.append((day, len(marshal.dumps((folder, day, names), 2)), len(names), folder))
        room = LIMIT * 3 // 4
        kept: "Dict[str, int]" = {}
        for _, size, number, folder in sorted(found, reverse=True):
            kept[folder] = number if size <= room else number * room // size
            room = max(0, room - size)
        for shard in sizes:
            groups = self.load(shard, now, offset)
            less = {
                folder: (day, {name: names[name] for name in list(names)[: kept.get(folder, 0)]})
                for folder, (day, names) in groups.items()
                if kept.get(folder, 0)
            }
            self.store(shard, less, now, offset)

    def _size(self, shard: int) -> int:
        try:
            return os.stat(_name(shard), dir_fd=self._folder, follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0


def _name(shard: int) -> str:
    return '{:02x}'.format(shard)


def _checksum(body: bytes) -> bytes:
    digest = early_sha1()
    digest.update(body)
    return digest.digest()


def _is_group(group: object) -> bool:
    """Whether it has the shape of the entries of a folder."""
    if not (isinstance(group, tuple) and tuple(map(type, group)) == (int, dict)):
        return False
    names = group[1]
    entries = names.values()
    return (
        set(map(type, names)) <= {str} and set(map(type, entries)) <= {bytes} and set(map(len, entries)) <= {ENTRY}
    )


def _open_folder(path: str, create: bool, parent: "Optional[int]" = None) -> int:
    """Open a folder that is ours alone to write to."""
    if create:
        try:
            os.mkdir(path, 0o700, dir_fd=parent)
        except FileExistsError:
            pass
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    if not _is_ours(os.fstat(folder)):
        os.close(folder)
        raise PermissionError('{} is not ours alone'.format(path))
    return folder


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022
