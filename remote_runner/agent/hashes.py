"""The SHA-1 of files, and a cache of them: a file that did not change since is not read again.

Used on hosts and by the master. An entry is believed while path, device, inode, size, mtime and ctime of the file are
what they were. That is proof only if every later change must give the file another ctime, so a file is remembered if

- the tick of its ctime was over on the clock that file systems stamp with before the first byte was read: whatever
  changes it from then on gets a later ctime, even if the mtime is restored. ctimes of whole seconds come from file
  systems that know no finer ones, and take two seconds;
- nobody had it open for writing or mapped then (a read lease was granted, fcntl(2)): a write that is under way, or a
  page that was written to through a mapping before, gives no new ctime. Where no lease can be had (the file is not
  ours), and on overlay, where old kernels do not count all mappings, the ctime must be a minute old instead;
- its status before and after was the same, and as many bytes came as it says;
- its file system keeps a ctime of its own that follows every change. tmpfs does not for mappings, FAT and FUSE know
  none, images repeat theirs when they are made again, CIFS and 9p stamp late: files there are never remembered. NFS,
  Ceph and Lustre have other clocks: there the ctime must be a minute old, and a file is opened to ask for its status.

Whatever was learned before the clock was set back is forgotten. What stays possible: a ctime that comes again to the
nanosecond, when the clock was set back between two boots, or back and forth between two runs; a crash of the machine
that loses a ctime and keeps what was written then; the clock of a file server that is more than a minute late; a write
or mapping that takes longer than a minute, in a file that is not ours or on overlay; an overlay on tmpfs; and for
`written`, see there.
"""

import _thread
import errno
import marshal
import os
import stat
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import hashlib
    from typing import Callable, Dict, List, Optional, Set, Tuple

    Names = Dict[str, bytes]
    #: Path, status before it was renamed, SHA-1, and when that was done at the latest.
    Written = Tuple[str, os.stat_result, str, int]
    Groups = Dict[str, Tuple[int, Names]]

PIECE = 1 << 20
#: The number in it is that of the format: what follows is the SHA-1 of the rest, and the rest a marshalled tuple of
#: Unix time of saving, boot, offset (see `_Steps`), and by folder the day of its last use and its files' entries.
MAGIC = b'remote_runner hashes 1\n'
#: Files that the cache is spread over, by the folder of what is hashed: a small deployment reads few.
SHARDS = 64
#: Bytes of all of them together: no entry takes less than 68, so these are less than 400,000.
LIMIT = 27000000
#: What a file's entry consists of: device, inode, size, mtime and ctime in nanoseconds, and behind them the SHA-1.
_STATUS = struct.Struct('<QQqqq')
_KEY = _STATUS.size
_ENTRY = _KEY + 20

_SECOND = 1000000000
_DAY = 86400 * _SECOND
#: Beyond the tick itself: for file systems that cut their times off, and Pythons that tell the time as a float.
_MARGIN = _SECOND // 100
_WHOLE_SECONDS = 2 * _SECOND
_MINUTE = 60 * _SECOND
#: Steps of the clock that are no more than the noise of reading it; far less than _MARGIN.
_STEP = _SECOND // 1000
#: Files of ours that wait for the end of their tick; beyond them it is looked whether it is over for the first.
_PENDING = 1000
#: Times that a tick is waited for, _MARGIN each; with whole seconds it takes longer, and is not waited for.
_LOOKS = 5
#: Seconds that another run gets to save.
_PATIENCE = 1.0

_LOCAL, _LAYERED, _NETWORK, _NEVER = 'local', 'layered', 'network', ''
_KINDS = {
    'ext2': _LOCAL, 'ext3': _LOCAL, 'ext4': _LOCAL, 'xfs': _LOCAL, 'btrfs': _LOCAL, 'f2fs': _LOCAL, 'zfs': _LOCAL,
    'bcachefs': _LOCAL, 'jfs': _LOCAL, 'reiserfs': _LOCAL, 'nilfs2': _LOCAL, 'ubifs': _LOCAL, 'overlay': _LAYERED,
    'nfs': _NETWORK, 'nfs4': _NETWORK, 'ceph': _NETWORK, 'lustre': _NETWORK,
}  # fmt: skip
#: File systems that no other kernel writes to.
_PRIVATE = {name for name, kind in _KINDS.items() if kind in (_LOCAL, _LAYERED)} | {'tmpfs', 'ramfs'}


# ---- without a cache ----------------------------------------------------------------------------------------------

#: Bytes that Python's own SHA-1 may hash: it is there at once, OpenSSL's is faster and takes as long as this to load.
_left_for_own = 1 << 20


def new_sha1(size: int) -> "hashlib._Hash":
    """A SHA-1 that so many bytes will be fed to."""
    global _left_for_own
    _left_for_own -= size
    return _fast_sha1() if _left_for_own < 0 else _early_sha1()


def _fast_sha1() -> "hashlib._Hash":
    import hashlib

    return hashlib.sha1()


def _early_sha1() -> "hashlib._Hash":
    """The one that is there at once."""
    if 'hashlib' not in sys.modules:
        try:
            import _sha1

            own: "hashlib._Hash" = _sha1.sha1()
            return own
        except ImportError:
            pass  # a Python that was built without it
    return _fast_sha1()


def sha1(path: str) -> str:
    """The SHA-1 of a file's content in hexadecimal."""
    with open(path, 'rb', 0) as file:
        return _digest(file.fileno(), os.fstat(file.fileno()).st_size)[0]


def _digest(file: int, size: int) -> "Tuple[str, int]":
    """The SHA-1 of what is read from here on, which may be `size` bytes, and how many they were."""
    digest = new_sha1(size)
    piece_size = min(PIECE, size + 1)  # one more: most files are read at once
    total = 0
    while True:
        piece = os.read(file, piece_size)
        if not piece:
            return digest.hexdigest(), total
        digest.update(piece)
        total += len(piece)


# ---- time ---------------------------------------------------------------------------------------------------------


def _roughly(number: int) -> int:
    """What Python 3.6 can tell."""
    return int(time.clock_gettime(number) * _SECOND)


_read_clock: "Callable[[int], int]" = getattr(time, 'clock_gettime_ns', _roughly)


class Clock:
    """The clocks of this machine, in nanoseconds (clock_gettime(2))."""

    def tick(self) -> int:
        """When the last tick began: what file systems stamp with, or earlier (CLOCK_REALTIME_COARSE)."""
        return _read_clock(5)

    def read(self) -> "Tuple[int, int]":
        """Unix time, and right after it the time since the start of this machine (CLOCK_BOOTTIME)."""
        return _read_clock(0), _read_clock(7)

    def wait(self, nanoseconds: int) -> None:
        """Let time pass."""
        time.sleep(nanoseconds / _SECOND)


class _Steps:
    """Notices that the clock was set back: Unix time minus time since boot, the offset, changes by steps alone."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.offset = self._look()

    def _look(self) -> int:
        """The offset. Each reading may be interrupted in its middle, which makes it too small."""
        return max(now - since_boot for now, since_boot in (self._clock.read() for _ in range(5)))

    def now(self) -> "Optional[int]":
        """Unix time in nanoseconds; None if it was set back, until that is accepted."""
        now, since_boot = self._clock.read()
        offset = now - since_boot
        if offset >= self.offset:
            self.offset = offset
        elif offset < self.offset - _STEP and self._look() < self.offset - _STEP:
            return None
        return now

    def accept(self) -> None:
        """Nobody relies any more on what was before a step."""
        self.offset = self._look()


# ---- file systems -------------------------------------------------------------------------------------------------


class _Mounts:
    """Tells file systems by the devices of their files (proc(5), `mountinfo`)."""

    def __init__(self, proc: str) -> None:
        self._proc = proc
        self._types: "Optional[Dict[int, str]]" = None
        self._kinds: "Dict[int, str]" = {}

    def kind(self, path: str, device: int) -> str:
        """What times on the file system mean on which `path` lies."""
        kind = self._kinds.get(device)
        if kind is None:
            kind = self._kinds[device] = _KINDS.get(self.type(path, device), _NEVER)
        return kind

    def type(self, path: str, device: int) -> str:
        """The name of its type; '' where it cannot be told."""
        if self._types is None:
            self._types = {number: name for _, number, name in self._table()}
        found = self._types.get(device)
        if found is None:
            # btrfs and overlay show other devices than they are mounted as, but the mount of an open file is known.
            mount = self._mount_of(path, device)
            found = next((name for number, _, name in self._table() if number == mount), '')
            self._types[device] = found
        return found

    def _table(self) -> "List[Tuple[str, int, str]]":
        """Number, device and type of each mount."""
        found = []
        for line in self._read('self/mountinfo').splitlines():
            first, _, last = line.partition(' - ')
            number, _, device = first.split(' ')[:3]
            major, _, minor = device.partition(':')
            found.append((number, os.makedev(int(major), int(minor)), last.partition(' ')[0]))
        return found

    def _mount_of(self, path: str, device: int) -> str:
        """The number of the mount on which `path` is; '' if it is on another device by now, or cannot be told."""
        try:
            file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return ''
        try:
            if os.fstat(file).st_dev != device:
                return ''
            for line in self._read('self/fdinfo/{}'.format(file)).splitlines():
                if line.startswith('mnt_id:'):
                    return line[len('mnt_id:') :].strip()
            return ''
        finally:
            os.close(file)

    def _read(self, name: str) -> str:
        try:
            with open(os.path.join(self._proc, name), 'rb') as file:
                return file.read().decode('ascii', 'replace')
        except OSError:
            return ''

    def boot(self) -> str:
        """A name for the time since the start of this kernel; '' where there is none."""
        return self._read('sys/kernel/random/boot_id').strip()


def _is_open_for_writing(file: int) -> "Optional[bool]":
    """Whether anybody has a file open for writing, or mapped so; None where it cannot be told.

    A lease is given back at once. Who wants to write meanwhile waits for that, and we get a signal that means nothing.
    """
    import fcntl

    import _signal

    try:
        fcntl.fcntl(file, fcntl.F_SETSIG, _signal.SIGURG)  # SIGIO would end us
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _key(status: os.stat_result) -> bytes:
    """What a file is known by; b'' if one of its times cannot be told in 64 bits."""
    try:
        return _STATUS.pack(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    except struct.error:
        return b''


def entry(status: os.stat_result, digest: bytes) -> bytes:
    """What `Hashes.of_folder` holds of a file of this status and SHA-1; b'' if nothing can be."""
    try:
        return (
            _STATUS.pack(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns) + digest
        )
    except struct.error:
        return b''


def _is_as_written(status: os.stat_result, then: os.stat_result, renamed: int) -> bool:
    """Whether a file is what it was before it was renamed, at this time or a moment earlier."""
    return (
        (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        == (then.st_dev, then.st_ino, then.st_size, then.st_mtime_ns)
        and then.st_ctime_ns <= status.st_ctime_ns <= renamed
    )


def _age(status: os.stat_result, tick: int) -> int:
    """Nanoseconds since the tick of its last change was over; 0 or less if it is not."""
    needed = _MARGIN if status.st_ctime_ns % _SECOND else _MARGIN + _WHOLE_SECONDS
    return tick - max(status.st_ctime_ns, status.st_mtime_ns) - needed


# ---- the cache ----------------------------------------------------------------------------------------------------


def cache_path() -> str:
    """Where the cache of this user is."""
    home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return os.path.join(home, 'remote_runner', 'hashes')


class Hashes:
    """The SHA-1 of files, remembered. Threads may share one; while one reads a file, the others are not held up.

    Args:
        path: the folder of the cache, made where it is missing; None: nothing is remembered. It is looked at when it is
            first needed. A folder or file that is not ours, that others may write to, or that is a link, is not read.
        clock: tells the time.
        proc: where the kernel tells of mounts (proc(5)).
    """

    def __init__(self, path: "Optional[str]", clock: "Optional[Clock]" = None, proc: str = '/proc') -> None:
        self._path = path
        self._clock = clock if clock is not None else Clock()
        self._steps = _Steps(self._clock)
        self._mounts = _Mounts(proc)
        self._lock = _thread.allocate_lock()
        self._forget()

    def _forget(self) -> None:
        """Know nothing but what is read from now on."""
        #: By folder, the entries of its files; those of all shards that are loaded.
        self._groups: "Dict[str, Names]" = {}
        self._loaded: "Set[int]" = set()
        self._days: "Dict[str, int]" = {}
        self._used: "Set[str]" = set()
        #: What is not saved yet.
        self._fresh: "Dict[str, Names]" = {}
        #: What may become an entry when its tick is over.
        self._pending: "List[Written]" = []

    def sha1(self, path: str, status: "Optional[os.stat_result]" = None) -> str:
        """The SHA-1 of a file's content in hexadecimal.

        Args:
            path: absolute; a file at a relative one is read each time.
            status: what stat(2) has just said of it, if that was asked for anyway.

        Raises:
            OSError: it cannot be read.
        """
        if self._path is None:
            return sha1(path)
        found = self.known(path, os.stat(path) if status is None else status)
        return self._read(path) if found is None else found

    def known(self, path: str, status: os.stat_result) -> "Optional[str]":
        """The SHA-1 of a file of this `status` as far as it is known without reading the file."""
        if self._path is None:
            return None
        folder, _, name = path.rpartition('/')
        groups = self._groups
        names = groups.get(folder)
        if names is None:
            with self._lock:
                names = self._names(folder)
                groups = self._groups
        entry = names.get(name)
        if entry is None or entry[:_KEY] != _key(status):
            return None
        kind = self._mounts.kind(path, status.st_dev)
        now = self._steps.now()
        if now is None:
            self._now()
            return None
        if kind == _NEVER or status.st_ctime_ns > now or status.st_mtime_ns > now:
            return None
        if kind == _NETWORK and entry[:_KEY] != self._status_on_server(path):
            return None
        if groups is not self._groups:
            return None  # another thread noticed a step of the clock
        self._used.add(folder)
        return entry[_KEY:].hex()

    def of_folder(self, folder: str, device: int) -> "Names":
        """What is known of the files in a folder: by name, an entry that holds good for the file that has its `entry`.

        For many files at once. Nothing where each has to be asked for by itself (`known`): on the network.
        """
        if self._path is None or self._mounts.kind(folder, device) not in (_LOCAL, _LAYERED) or self._now() is None:
            return {}
        with self._lock:
            names = self._names(folder)
        self._used.add(folder)
        return names

    def kernel(self, path: str, device: int) -> str:
        """A name for this kernel, if no other one writes to the file system at `path`; else, or if unknown, ''."""
        return self._mounts.boot() if self._mounts.type(path, device) in _PRIVATE else ''

    def _now(self) -> "Optional[int]":
        """Unix time; None if the clock was set back, and all is forgotten."""
        now = self._steps.now()
        if now is None:
            with self._lock:
                self._forget()
                self._steps.accept()  # not before: other threads must not take what is there for new
        return now

    @staticmethod
    def _status_on_server(path: str) -> bytes:
        """The status of a file, as it is asked for when it is opened; otherwise what was heard earlier may be told."""
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return b''
        try:
            return _key(os.fstat(file))
        finally:
            os.close(file)

    # ---- learning ---------------------------------------------------------------------------------------------

    def _read(self, path: str) -> str:
        """Read a file, and remember what comes out, if that is proof."""
        with self.reading(path) as reading:
            digest, size = _digest(reading.file, reading.status.st_size)
            reading.learn(digest, size)
        return digest

    def reading(self, path: str) -> "Reading":
        """A file that somebody else reads from its begin to its end, and finds out the SHA-1 of.

        Raises:
            OSError: it cannot be opened.
        """
        return Reading(self, path)

    def begin(self, path: str, file: int) -> "Tuple[os.stat_result, Optional[object]]":
        """The status of a file that is about to be read; and, if what is read will be proof, what `learn` wants."""
        if self._path is None:
            return os.fstat(file), None
        self._now()  # a step that was before this is none that spoils what is read now
        groups = self._groups
        tick = self._clock.tick()
        status = os.fstat(file)
        return status, groups if self._is_quiet(path, file, status, tick) else None

    def learn(self, path: str, status: os.stat_result, digest: str, groups: object) -> None:
        """It was read, as what `begin` said of it, and is still that."""
        if self._now() is not None:
            with self._lock:
                if groups is self._groups:
                    self._remember(path, status, digest)

    def _is_quiet(self, path: str, file: int, status: os.stat_result, tick: int) -> bool:
        """Whether any change to a file from now on gives it another status; see the top of this file."""
        age = _age(status, tick)
        kind = self._mounts.kind(path, status.st_dev)
        if age <= 0 or kind == _NEVER or not stat.S_ISREG(status.st_mode):
            return False
        if kind == _NETWORK:
            return age > _MINUTE
        is_written = _is_open_for_writing(file)
        if is_written is None or kind == _LAYERED:
            return age > _MINUTE and not is_written
        return not is_written

    def _remember(self, path: str, status: os.stat_result, digest: str) -> None:
        """With the lock held: this is proof."""
        key = _key(status)
        folder, _, name = path.rpartition('/')
        if key and path.startswith('/'):
            self._names(folder)[name] = self._fresh.setdefault(folder, {})[name] = key + bytes.fromhex(digest)

    def written(self, path: str, status: os.stat_result, digest: str) -> None:
        """We have just put a file in its place, by renaming it, and know what is in it.

        It is remembered, when the tick of its ctime is over, if it has the same status then, and an mtime before that
        of the renaming: who writes to it afterwards changes its mtime, even in the tick of the renaming. What stays
        possible: somebody writes to it and restores its mtime, both in that tick (or has it open under its temporary
        name, and goes on writing). On file systems of the network nothing is remembered so.

        A file that is written and renamed in the same tick has no earlier mtime, and is read once, by the next run: it
        may be given one (`os.utime` of a tick ago) before it is renamed.

        Args:
            path: where it is now.
            status: as fstat(2) told it before the renaming, or after it.
            digest: the SHA-1 in hexadecimal.
        """
        if self._path is None or not stat.S_ISREG(status.st_mode) or status.st_mtime_ns >= status.st_ctime_ns:
            return
        if self._mounts.kind(path, status.st_dev) not in (_LOCAL, _LAYERED):
            return
        now = self._now()
        if now is None:
            return
        with self._lock:
            self._pending.append((path, status, digest, now))
            if len(self._pending) % _PENDING == 0:
                self._pending = self._confirm(self._pending)

    def _confirm(self, pending: "List[Written]") -> "List[Written]":
        """With the lock held: remember the files that are as we left them; those are returned for which it is early."""
        early = []
        tick = self._clock.tick()
        for one in pending:
            path, then, digest, renamed = one
            try:
                status = os.stat(path)
            except OSError:
                continue  # it is not there any more
            if not _is_as_written(status, then, renamed):
                continue
            if _age(status, tick) <= 0:
                early.append(one)
            else:
                self._remember(path, status, digest)
        return early

    # ---- keeping ----------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Keep what was learned for later runs. If that cannot be, because the disk is full or the home read-only, they
        read the files again. It takes milliseconds; nothing is written if nothing was learned.
        """
        if self._path is None or self._now() is None:
            return
        with self._lock:
            for _ in range(_LOOKS):
                self._pending = self._confirm(self._pending)
                if not self._pending:
                    break
                self._clock.wait(_MARGIN)
            self._pending = []
        now = self._now()  # it may have been set back while we waited
        if now is None:
            return
        with self._lock:
            today = now // _DAY
            folders = [*self._fresh, *(folder for folder in list(self._used) if self._days.get(folder, today) != today)]
            if not folders:
                return
            try:
                is_saved = self._save(dict.fromkeys(folders))
            except OSError:
                return  # what is there is whole: the old, or nothing
            if is_saved:
                self._fresh = {}
                self._days.update(dict.fromkeys(folders, today))

    def _save(self, folders: "Dict[str, None]") -> bool:
        """Add what was learned of `folders` to what is there by now; False if the clock was set back meanwhile."""
        with _Home(self._path or '', self._mounts, create=True) as home:
            home.lock()
            now = self._steps.now()  # later than whatever others saved
            if now is None:
                return False
            by_shard: "Dict[int, List[str]]" = {}
            for folder in folders:
                by_shard.setdefault(_shard(folder), []).append(folder)
            for shard, changed in by_shard.items():
                groups = home.load(shard, now, self._steps.offset)
                for folder in changed:
                    names = groups[folder][1] if folder in groups else {}
                    names.update(self._fresh.get(folder, {}))
                    if names:
                        groups[folder] = (now // _DAY, names)
                home.store(shard, groups, now, self._steps.offset)
            home.prune(now, self._steps.offset)
        return True

    def _names(self, folder: str) -> "Names":
        """With the lock held: the entries of the files in a folder."""
        names = self._groups.get(folder)
        if names is not None:
            return names
        shard = _shard(folder)
        if shard not in self._loaded:
            for other, (day, names) in self._load(shard).items():
                self._groups[other] = names
                self._days[other] = day
            self._loaded.add(shard)
        return self._groups.setdefault(folder, {})

    def _load(self, shard: int) -> "Groups":
        try:
            with _Home(self._path or '', self._mounts) as home:
                return home.load(shard, self._clock.read()[0], self._steps.offset)
        except OSError:
            return {}


class Reading:
    """A file that is open to be read (`with`), see `Hashes.reading`.

    Attributes:
        file: its descriptor, at its begin.
        status: what fstat(2) said of it before anything was read.
    """

    def __init__(self, hashes: Hashes, path: str) -> None:
        self._hashes = hashes
        self._path = path
        self.file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self.status, self._proof = hashes.begin(path, self.file)
            if stat.S_ISDIR(self.status.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        except BaseException:
            os.close(self.file)
            raise

    def __enter__(self) -> "Reading":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.file)

    def learn(self, digest: str, size: int) -> bool:
        """All of it was read, so many bytes with this SHA-1; whether it is still what it was before."""
        is_same = size == self.status.st_size and _key(self.status) == _key(os.fstat(self.file))
        if is_same and self._proof is not None:
            self._hashes.learn(self._path, self.status, digest, self._proof)
        return is_same


def _shard(folder: str) -> int:
    digest = _early_sha1()
    digest.update(folder.encode('utf-8', 'surrogatepass'))
    return digest.digest()[0] % SHARDS


class _Home:
    """The folder of the cache while it is open (`with`).

    Raises:
        OSError: it is missing, is not ours, or others may write to it.
    """

    def __init__(self, path: str, mounts: _Mounts, create: bool = False) -> None:
        self._lock = -1
        self._boot = mounts.boot()
        if create:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        self._folder = _open_folder(path, create)
        try:
            device = os.fstat(self._folder).st_dev
            #: Times of other boots are times of other machines, where many have this home.
            self._is_shared = mounts.type(path, device) not in _PRIVATE
            if self._is_shared:
                outer, self._folder = self._folder, _open_folder(os.uname().nodename, create, self._folder)
                os.close(outer)
        except OSError:
            os.close(self._folder)
            raise

    def __enter__(self) -> "_Home":
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
        if saved > now or (is_same_boot and offset_then - _STEP > offset) or (self._is_shared and not is_same_boot):
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
    digest = _early_sha1()
    digest.update(body)
    return digest.digest()


def _is_group(group: object) -> bool:
    """Whether it has the shape of the entries of a folder."""
    if not (isinstance(group, tuple) and tuple(map(type, group)) == (int, dict)):
        return False
    names = group[1]
    entries = names.values()
    return (
        set(map(type, names)) <= {str} and set(map(type, entries)) <= {bytes} and set(map(len, entries)) <= {_ENTRY}
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
