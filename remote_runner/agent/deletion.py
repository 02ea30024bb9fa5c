"""Deleting what `agent/surplus.py` found, and nothing that came, or was changed, since.

Each folder is opened from `/` on, name by name, and no link is followed on the way: what was put in the place of a
folder since is not entered.
"""

import errno
import os
import stat

from remote_runner.wire.groups import unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Set, Tuple

    from remote_runner.agent.request import Request

_ON_THE_WAY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def delete(request: "Request") -> "Dict[str, object]":
    """Operation `delete`: delete what comes as parts, see `wire/groups.py`; folders after what is in them.

    Each part is answered by one: [path, reason] of what could not be deleted, and paths of what was changed since, or
    has something in it that came since, and stays. The result says how much was `deleted`, without what was gone.
    """
    deleter = _Deleter()
    for part, body in request.parts():
        request.check()
        for folder, entries in unpack(part, body):
            deleter.delete(folder, entries)
        request.send([deleter.failures, deleter.changed], b'')
        deleter.failures, deleter.changed = [], []
    return {'deleted': deleter.count}


class _Deleter:
    def __init__(self) -> None:
        self.count = 0
        self.failures: "List[Tuple[str, str]]" = []
        self.changed: "List[str]" = []
        #: Folders in which something stays of which was told.
        self._told: "Set[str]" = set()
        #: Files of which we took away one name: that alone changes the ctime of the others.
        self._shared: "Set[Tuple[int, int]]" = set()

    def delete(self, folder: str, entries: "List[Tuple[str, List[Any]]]") -> None:
        """Entries of one folder."""
        try:
            fd = _open(folder)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            for name, _ in entries:
                self._stays(folder, name, '' if error.errno in (errno.ENOTDIR, errno.ELOOP) else str(error.strerror))
            return
        try:
            for name, values in entries:
                self._entry(fd, folder, name, *values)
        finally:
            os.close(fd)

    def _entry(self, fd: int, folder: str, name: str, is_folder: bool, inode: int, ctime: int, mtime: int) -> None:
        path = _join(folder, name)
        raw = name.encode('utf-8', 'surrogateescape')
        try:
            status = os.stat(raw, dir_fd=fd, follow_symlinks=False)
            if status.st_ino != inode or stat.S_ISDIR(status.st_mode) != is_folder:
                self._stays(folder, name, '')
            elif is_folder:
                os.rmdir(raw, dir_fd=fd)
                self.count += 1
            elif status.st_mtime_ns != mtime or (status.st_ctime_ns != ctime and not self._is_shared(status)):
                self._stays(folder, name, '')
            else:
                os.unlink(raw, dir_fd=fd)
                self.count += 1
                if status.st_nlink > 1:
                    self._shared.add((status.st_dev, status.st_ino))
        except FileNotFoundError:
            return  # somebody else was faster
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                self._stays(folder, name, str(error.strerror))
            elif path in self._told:
                self._told.add(folder)
            else:
                self._stays(folder, name, '')

    def _is_shared(self, status: os.stat_result) -> bool:
        return (status.st_dev, status.st_ino) in self._shared

    def _stays(self, folder: str, name: str, reason: str) -> None:
        """Something stays; without a reason because it was changed."""
        self._told.add(folder)
        if reason:
            self.failures.append((_join(folder, name), reason))
        else:
            self.changed.append(_join(folder, name))


def _join(folder: str, name: str) -> str:
    return '{}/{}'.format(folder.rstrip('/'), name)


def _open(folder: str) -> int:
    """An open folder, by its real path."""
    fd = os.open(b'/', _ON_THE_WAY)
    for name in folder.encode('utf-8', 'surrogateescape').split(b'/'):
        if name:
            above = fd
            try:
                fd = os.open(name, _ON_THE_WAY, dir_fd=above)
            finally:
                os.close(above)
    return fd
