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
import os
import stat

from remote_runner.agent.hash_files import Home, shard_of
from remote_runner.agent.sha1 import sha1, sha1_of
from remote_runner.agent.stamps import (
    KEY,
    LAYERED,
    LOCAL,
    MARGIN,
    MINUTE,
    NETWORK,
    NEVER,
    PRIVATE,
    SECOND,
    Clock,
    Mounts,
    Steps,
    age_of,
    is_as_written,
    is_open_for_writing,
    key_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Set, Tuple

    from remote_runner.agent.hash_files import Groups, Names
    from remote_runner.agent.sha1 import Check

    #: Path, status before it was renamed, SHA-1, and when that was done at the latest.
    Written = Tuple[str, os.stat_result, str, int]

_DAY = 86400 * SECOND
#: Files of ours that wait for the end of their tick; beyond them it is looked whether it is over for the first.
_PENDING = 1000
#: Times that a tick is waited for, MARGIN each; with whole seconds it takes longer, and is not waited for.
_LOOKS = 5


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
        self._steps = Steps(self._clock)
        self._mounts = Mounts(proc)
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

    def sha1(self, path: str, status: "Optional[os.stat_result]" = None, check: "Check" = None) -> str:
        """The SHA-1 of a file's content in hexadecimal.

        Args:
            path: absolute; a file at a relative one is read each time.
            status: what stat(2) has just said of it, if that was asked for anyway.
            check: called now and then while it is read; what it raises ends that.

        Raises:
            OSError: it cannot be read.
        """
        if self._path is None:
            return sha1(path, check)
        found = self.known(path, os.stat(path) if status is None else status)
        return self._read(path, check) if found is None else found

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
        if entry is None or entry[:KEY] != key_of(status):
            return None
        kind = self._mounts.kind(path, status.st_dev)
        now = self._steps.now()
        if now is None:
            self._now()
            return None
        if kind == NEVER or status.st_ctime_ns > now or status.st_mtime_ns > now:
            return None
        if kind == NETWORK and entry[:KEY] != self._status_on_server(path):
            return None
        if groups is not self._groups:
            return None  # another thread noticed a step of the clock
        self._used.add(folder)
        return entry[KEY:].hex()

    def of_folder(self, folder: str, device: int) -> "Names":
        """What is known of the files in a folder: by name, an entry that holds good for the file that has its `entry`.

        For many files at once. Nothing where each has to be asked for by itself (`known`): on the network.
        """
        if self._path is None or self._mounts.kind(folder, device) not in (LOCAL, LAYERED) or self._now() is None:
            return {}
        with self._lock:
            names = self._names(folder)
        self._used.add(folder)
        return names

    def kernel(self, path: str, device: int) -> str:
        """A name for this kernel, if no other one writes to the file system at `path`; else, or if unknown, ''."""
        return self._mounts.boot() if self._mounts.type(path, device) in PRIVATE else ''

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
            return key_of(os.fstat(file))
        finally:
            os.close(file)

    # ---- learning ---------------------------------------------------------------------------------------------

    def _read(self, path: str, check: "Check") -> str:
        """Read a file, and remember what comes out, if that is proof."""
        with self.reading(path) as reading:
            digest, size = sha1_of(reading.file, reading.status.st_size, check)
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
        age = age_of(status, tick)
        kind = self._mounts.kind(path, status.st_dev)
        if age <= 0 or kind == NEVER or not stat.S_ISREG(status.st_mode):
            return False
        if kind == NETWORK:
            return age > MINUTE
        is_written = is_open_for_writing(file)
        if is_written is None or kind == LAYERED:
            return age > MINUTE and not is_written
        return not is_written

    def _remember(self, path: str, status: os.stat_result, digest: str) -> None:
        """With the lock held: this is proof."""
        key = key_of(status)
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
        if self._mounts.kind(path, status.st_dev) not in (LOCAL, LAYERED):
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
            if not is_as_written(status, then, renamed):
                continue
            if age_of(status, tick) <= 0:
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
                self._clock.wait(MARGIN)
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
        with Home(self._path or '', self._mounts, create=True) as home:
            home.lock()
            now = self._steps.now()  # later than whatever others saved
            if now is None:
                return False
            by_shard: "Dict[int, List[str]]" = {}
            for folder in folders:
                by_shard.setdefault(shard_of(folder), []).append(folder)
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
        shard = shard_of(folder)
        if shard not in self._loaded:
            for other, (day, names) in self._load(shard).items():
                self._groups[other] = names
                self._days[other] = day
            self._loaded.add(shard)
        return self._groups.setdefault(folder, {})

    def _load(self, shard: int) -> "Groups":
        try:
            with Home(self._path or '', self._mounts) as home:
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
        is_same = size == self.status.st_size and key_of(self.status) == key_of(os.fstat(self.file))
        if is_same and self._proof is not None:
            self._hashes.learn(self._path, self.status, digest, self._proof)
        return is_same
