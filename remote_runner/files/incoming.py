"""Files that hosts send here: where they may be written, and writing each so that it is whole or not there.

Nothing that a host says of names is believed: whatever it answers, only what is below the wanted folder is touched.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from remote_runner.agent.copies import unique_path

#: How file systems and old kernels say that they know no unnamed files.
_NOT_THERE = (errno.EOPNOTSUPP, errno.EISDIR)


class UnsafePath(ValueError):
    """A host names a path that may not be written to; the message follows the path."""


class LocalFolder:
    """A folder of this machine to which hosts may bring files; what is outside of it is not theirs.

    Args:
        path: where it is, or will be.
    """

    def __init__(self, path: str) -> None:
        self._root = os.path.realpath(path)
        self._known: dict[str, str] = {}

    def file(self, name: str) -> str:
        """The absolute path of a file that a host calls `name`.

        Links among the folders above it are followed as long as they stay inside. The file itself replaces a link.

        Raises:
            UnsafePath: it would lie outside, or the name is none.
        """
        _check_name(name)
        above, _, last = name.rpartition('/')
        return f'{self._folder(above)}/{last}'

    def folder(self, name: str) -> str:
        """The same of a folder; here a link is followed.

        Raises:
            UnsafePath: it would lie outside, or the name is none.
        """
        _check_name(name)
        return self._folder(name)

    def _folder(self, name: str) -> str:
        real = self._known.get(name)
        if real is None:
            real = os.path.realpath(f'{self._root}/{name}')
            if real != self._root and not real.startswith(f'{self._root.rstrip("/")}/'):
                raise UnsafePath(f'would be written to {real}, outside of {self._root}: a link leads there')
            self._known[name] = real
        return real


def _check_name(name: str) -> None:
    """Raises UnsafePath where it is no path of names, one below the other."""
    if '\0' in name or not {'', '.', '..'}.isdisjoint(name.split('/')):
        raise UnsafePath('is a name that leads elsewhere')
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise UnsafePath('is a name that cannot be') from None


class Incoming:
    """One file on its way to its target. It has no name until it is whole, so that nothing is left of it whatever
    ends us; where the file system cannot do that, it has a temporary one (open(2), `O_TMPFILE`).

    Args:
        target: its absolute path, in a folder that is there.
        mode: its permission bits.
        mtime: when it was changed, in ns.

    Raises:
        OSError: it cannot be created, as all methods do when they cannot do their work.
    """

    def __init__(self, target: str, mode: int, mtime: int) -> None:
        self.received = 0
        self._target = target
        self._mode = mode
        self._mtime = mtime
        self._digest = hashlib.sha1(usedforsecurity=False)
        self._folder = Path(target).parent
        self._temporary: Path | None = None
        self._fd = -1
        unnamed = getattr(os, 'O_TMPFILE', 0)
        if unnamed:
            try:
                self._fd = os.open(self._folder, unnamed | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            except OSError as error:
                if error.errno not in _NOT_THERE:
                    raise
        if self._fd < 0:
            temporary = self._temporary_path()
            self._fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._temporary = temporary

    def write(self, data: memoryview) -> None:
        """More of its content."""
        self._digest.update(data)
        self.received += len(data)
        while data:
            data = data[os.write(self._fd, data) :]

    def sha1(self) -> str:
        """The SHA-1 of what has come, in hexadecimal."""
        return self._digest.hexdigest()

    def finish(self) -> None:
        """It is whole: put it in its place."""
        os.fchmod(self._fd, self._mode)
        os.utime(self._fd, ns=(time.time_ns(), self._mtime))
        if self._temporary is None:
            self._name()
        fd, self._fd = self._fd, -1
        os.close(fd)
        if self._temporary is not None:
            self._temporary.rename(self._target)
            self._temporary = None

    def abandon(self) -> None:
        """Leave nothing of it. Safe to call at any time, and twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):  # a server may tell only now that it is full (close(2)): nothing is wanted of it
                os.close(fd)
        if self._temporary is not None:
            self._temporary.unlink()
            self._temporary = None

    def _name(self) -> None:
        """Give the unnamed file a name: that of its target, or where a file is already, one that can be renamed."""
        try:
            self._link(self._target)
        except FileExistsError:
            temporary = self._temporary_path()
            self._link(temporary)
            self._temporary = temporary

    def _link(self, path: str | Path) -> None:
        # linkat(2) follows the link in /proc only if asked, which Python does only when given a descriptor.
        os.link(f'/proc/self/fd/{self._fd}', path, src_dir_fd=self._fd, follow_symlinks=True)

    def _temporary_path(self) -> Path:
        return Path(unique_path(str(self._folder)))
