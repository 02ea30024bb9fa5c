"""Whether the file systems of this host have room for what is to be written, before anything is ended for it.

Whatever is uncertain counts as room: an error here keeps a run from beginning that might have come to its end.
"""

import os
import stat

from remote_runner.agent import copies, screen, tree
from remote_runner.agent.files import expand, temporary_root
from remote_runner.agent.sharing import nearest
from remote_runner.agent.stamps import Mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterator, List, Optional, Tuple

    from remote_runner.agent.request import Request

#: File systems on which what is written takes the room that it has: no compression, no server of which nobody knows.
PLAIN = ('ext2', 'ext3', 'ext4', 'xfs', 'tmpfs')
#: Of these, those on which what a large file has in common with the one before it need not take room again.
REFLINKS = ('xfs',)
#: Bytes from which on a file is written by itself, after all before it; smaller ones by several threads.
LARGE = 1 << 20


class _System:
    """A file system, and what is to be written to it."""

    def __init__(self, folder: str, kind: str) -> None:
        self.folder = folder
        self.kind = kind
        self.spare = 0
        self._total = self._done = self._peak = 0

    def add(self, new: int, old: int) -> None:
        """A file of so many bytes in place of one: both are there until the new one is whole."""
        if old and new >= LARGE and self.kind in REFLINKS:
            new = 0
        self._total += new - old
        if new >= LARGE:
            self._peak = max(self._peak, self._done + new)
            self._done += new - old
        else:
            self._done += min(0, new - old)

    @property
    def needed(self) -> int:
        """Bytes that will be taken at least at one time."""
        return max(self._peak, self._total)

    @property
    def free(self) -> int:
        """Bytes that can be had: of what is kept for root (ext4), root alone may take."""
        system = os.statvfs(self.folder)
        return (system.f_bavail if os.geteuid() else system.f_bfree) * system.f_frsize + self.spare

    @property
    def is_known(self) -> bool:
        """Whether what it says of itself is meant: a tmpfs without a limit has no size."""
        return self.kind in PLAIN and os.statvfs(self.folder).f_blocks > 0


def room(request: "Request") -> "Dict[str, object]":
    """Operation `room`: where there is too little room for files that come as parts, lists of [path, bytes].

    A path of None is in the folder for temporary ones; that of a folder means so many bytes in it. `session` is quit
    before: what its processes have open for writing, or hold though it is deleted, may be free then. So is what is left
    of interrupted copies. The result lists `lacking`: [folder, type, bytes that are needed, bytes that are free].
    """
    systems: "Dict[int, _System]" = {}
    folders: "Dict[str, int]" = {}
    mounts = Mounts('/proc')
    for rows, _ in request.parts():
        for path, size in rows:
            path = temporary_root() if path is None else expand(path)
            old = _status(path)
            if old is not None:
                device = old.st_dev
                _system(systems, mounts, path, device)
            else:
                above = os.path.dirname(path)
                if above not in folders:
                    folder, status = nearest(os.path.realpath(above))
                    folders[above] = status.st_dev
                    _system(systems, mounts, folder, status.st_dev)
                device = folders[above]
            is_freed = old is not None and stat.S_ISREG(old.st_mode) and old.st_nlink == 1
            systems[device].add(size, old.st_blocks * 512 if is_freed and old is not None else 0)
    lacking = [device for device, system in systems.items() if system.is_known and system.needed > system.free]
    if lacking:
        for device, size in _spare(request.header['session']):
            if device in systems:
                systems[device].spare += size
    found = [systems[device] for device in lacking]
    return {'lacking': [[one.folder, one.kind, one.needed, one.free] for one in found if one.needed > one.free]}


def _system(systems: "Dict[int, _System]", mounts: Mounts, path: str, device: int) -> None:
    if device not in systems:
        folder = path if os.path.isdir(path) else os.path.dirname(os.path.realpath(path))
        systems[device] = _System(folder, mounts.type(folder, device))


def _status(path: str) -> "Optional[os.stat_result]":
    try:
        return os.stat(path)
    except OSError:
        return None


def _spare(session: str) -> "Iterator[Tuple[int, int]]":
    """Device and bytes of what may be gone before anything is written."""
    for copy in copies.interrupted():
        found = _status(copy.path)
        if found is not None:
            yield found.st_dev, found.st_blocks * 512
    seen = set()
    for pid in (each for server in screen.sessions(session) for each in [server, *tree.descendants(server)]):
        for path, is_written in _open_files(pid):
            found = _status(path)
            if found is None or not stat.S_ISREG(found.st_mode) or (found.st_dev, found.st_ino) in seen:
                continue
            if is_written or not found.st_nlink:
                seen.add((found.st_dev, found.st_ino))
                yield found.st_dev, found.st_blocks * 512


def _open_files(pid: int) -> "List[Tuple[str, bool]]":
    """Paths to what a process has open, and whether for writing (proc(5), `fd`), and to its program."""
    folder = '/proc/{}/fd'.format(pid)
    found = [('/proc/{}/exe'.format(pid), False)]
    try:
        for name in os.listdir(folder):
            path = '{}/{}'.format(folder, name)
            found.append((path, bool(os.lstat(path).st_mode & stat.S_IWUSR)))
    except OSError:
        return found  # it has just ended, or closed one
    return found
