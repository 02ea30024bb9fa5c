"""What the status of a file proves: the clocks of this machine, its file systems, and who is about to write."""

import os
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, List, Optional, Tuple

#: What a file's entry consists of: device, inode, size, mtime and ctime in nanoseconds, and behind them the SHA-1.
_STATUS = struct.Struct('<QQqqq')
KEY = _STATUS.size
ENTRY = KEY + 20

SECOND = 1000000000
#: Beyond the tick itself: for file systems that cut their times off, and Pythons that tell the time as a float.
MARGIN = SECOND // 100
_WHOLE_SECONDS = 2 * SECOND
MINUTE = 60 * SECOND
#: Steps of the clock that are no more than the noise of reading it; far less than MARGIN.
STEP = SECOND // 1000

#: What the times on a file system mean, see `agent/hashes.py`.
LOCAL, LAYERED, NETWORK, NEVER = 'local', 'layered', 'network', ''
_KINDS = {
    'ext2': LOCAL, 'ext3': LOCAL, 'ext4': LOCAL, 'xfs': LOCAL, 'btrfs': LOCAL, 'f2fs': LOCAL, 'zfs': LOCAL,
    'bcachefs': LOCAL, 'jfs': LOCAL, 'reiserfs': LOCAL, 'nilfs2': LOCAL, 'ubifs': LOCAL, 'overlay': LAYERED,
    'nfs': NETWORK, 'nfs4': NETWORK, 'ceph': NETWORK, 'lustre': NETWORK,
}  # fmt: skip
#: File systems that no other kernel writes to.
PRIVATE = {name for name, kind in _KINDS.items() if kind in (LOCAL, LAYERED)} | {'tmpfs', 'ramfs'}


# ---- time ---------------------------------------------------------------------------------------------------------


def _roughly(number: int) -> int:
    """What Python 3.6 can tell."""
    return int(time.clock_gettime(number) * SECOND)


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
        time.sleep(nanoseconds / SECOND)


class Steps:
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
        elif offset < self.offset - STEP and self._look() < self.offset - STEP:
            return None
        return now

    def accept(self) -> None:
        """Nobody relies any more on what was before a step."""
        self.offset = self._look()


# ---- file systems -------------------------------------------------------------------------------------------------


class Mounts:
    """Tells file systems by the devices of their files (proc(5), `mountinfo`)."""

    def __init__(self, proc: str) -> None:
        self._proc = proc
        self._types: "Optional[Dict[int, str]]" = None
        self._kinds: "Dict[int, str]" = {}

    def kind(self, path: str, device: int) -> str:
        """What times on the file system mean on which `path` lies."""
        kind = self._kinds.get(device)
        if kind is None:
            kind = self._kinds[device] = _KINDS.get(self.type(path, device), NEVER)
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


def is_open_for_writing(file: int) -> "Optional[bool]":
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


def key_of(status: os.stat_result) -> bytes:
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


def is_as_written(status: os.stat_result, then: os.stat_result, renamed: int) -> bool:
    """Whether a file is what it was before it was renamed, at this time or a moment earlier."""
    return (
        (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        == (then.st_dev, then.st_ino, then.st_size, then.st_mtime_ns)
        and then.st_ctime_ns <= status.st_ctime_ns <= renamed
    )


def age_of(status: os.stat_result, tick: int) -> int:
    """Nanoseconds since the tick of its last change was over; 0 or less if it is not."""
    needed = MARGIN if status.st_ctime_ns % SECOND else MARGIN + _WHOLE_SECONDS
    return tick - max(status.st_ctime_ns, status.st_mtime_ns) - needed
