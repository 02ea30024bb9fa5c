"""Removing what was made for runs, and nothing else: no symbolic link is followed, no mount is entered.

Everything is addressed through the open folder above it (openat(2) and its kin, O_NOFOLLOW), so that nobody who may
write beside it can put something else in its place between the look and the deed.
"""

import os
import stat

from remote_runner.agent.records import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator, List

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
#: Folders below one another that are open at the same time; what lies deeper is moved up first.
MOST_OPEN = 100


def remove(path: str, inode: int) -> str:
    """Remove what stands at `path`, a folder with all that is in it; why that failed, or ''.

    What is gone needs no removing. What is not ours, or has another inode than `inode`, is left alone.
    """
    parent, name = os.path.split(path)
    try:
        above = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return ''
    try:
        found = os.stat(name, dir_fd=above, follow_symlinks=False)
        if found.st_ino != inode or found.st_uid != os.getuid():
            return 'something else stands there now'
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=above)
            return ''
        mount = _mount_below(path)
        if mount:
            return '{} is a mount point'.format(mount)
        return _remove_folder(above, name, found)
    except FileNotFoundError:
        return ''
    except OSError as error:
        return str(error.strerror)
    finally:
        os.close(above)


def _remove_folder(above: int, name: str, found: os.stat_result) -> str:
    fd = os.open(name, _FOLDER, dir_fd=above)
    try:
        if not os.path.samestat(os.fstat(fd), found):
            return 'something else stands there now'
        emptying = _Emptying(fd)
        emptying.run()
    finally:
        os.close(fd)
    if emptying.failures:
        more = len(emptying.failures) - 1
        return emptying.failures[0] + (' (and {} more)'.format(more) if more else '')
    os.rmdir(name, dir_fd=above)
    return ''


class _Emptying:
    """Takes all out of an open folder that can be."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._moved = 0
        self.failures: "List[str]" = []

    def run(self) -> None:
        """Do it; again as long as something was moved up from the depth."""
        before = -1
        while self._moved > before:
            before = self._moved
            self._empty(self._top, '', 0)

    def _empty(self, folder: int, where: str, depth: int) -> None:
        """`where` is its path below the top, for messages."""
        if os.fstat(folder).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.fchmod(folder, stat.S_IRWXU)  # ours, as all of this
        for name in os.listdir(folder):
            path = os.path.join(where, name)
            try:
                self._remove(folder, name, path, depth)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.failures.append('{}: {}'.format(path, error.strerror))

    def _remove(self, folder: int, name: str, path: str, depth: int) -> None:
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
            return
        if depth == MOST_OPEN:
            os.rename(name, '.rr-deep-{}'.format(os.urandom(8).hex()), src_dir_fd=folder, dst_dir_fd=self._top)
            self._moved += 1
            return
        fd = os.open(name, _FOLDER, dir_fd=folder)
        before = len(self.failures)
        try:
            self._empty(fd, path, depth + 1)
        finally:
            os.close(fd)
        if len(self.failures) == before:
            os.rmdir(name, dir_fd=folder)


def _mount_below(path: str) -> str:
    """A mount point in a folder, or the folder itself as one; '' where there is none."""
    real = os.fsencode(os.path.realpath(path))
    for point in mount_points():
        if point == real or point.startswith(real + b'/'):
            return os.fsdecode(point)
    return ''


def mount_points() -> "Iterator[bytes]":
    """Where something is mounted on this host (proc(5), `mountinfo`)."""
    for line in read_file('/proc/self/mountinfo').splitlines():
        yield _unescaped(line.split(b' ')[4])


def _unescaped(field: bytes) -> bytes:
    """Space, tab, newline and backslash stand there as `\\040` and so on."""
    first, *rest = field.split(b'\\')
    return first + b''.join(bytes([int(piece[:3], 8)]) + piece[3:] for piece in rest)


def room(path: str) -> int:
    """Bytes that a file, or a folder with all that is in it, takes on its disk."""
    try:
        top = os.lstat(path)
    except OSError:
        return 0
    total = top.st_blocks
    folders = [path] if stat.S_ISDIR(top.st_mode) else []
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:
            continue  # gone, or not ours to look into
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            total += found.st_blocks
            if stat.S_ISDIR(found.st_mode) and found.st_dev == top.st_dev:
                folders.append(entry.path)
    return total * 512
