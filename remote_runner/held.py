"""Files that one process at a time holds, as long as it lives, and that say which one.

It is a lock of an open file (`F_OFD_SETLK`, fcntl(2)): it goes with the process, however that ends, and others can ask
for it without taking it. Over NFS it holds for all machines that mount the folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import time
from pathlib import Path
from typing import NamedTuple

_WHOLE_FILE = 'hhqqi0q'  # struct flock: type, whence, start, length, pid


class Holder(NamedTuple):
    """Who holds a file: a process of a machine, since when (Unix time)."""

    pid: int
    host: str
    since: float

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine."""
        return self.host == socket.gethostname()

    def __str__(self) -> str:
        return f'pid {self.pid} on {self.host}'

    @property
    def in_full(self) -> str:
        """Which process on which machine, and since when: for whoever wants it instead."""
        moment = time.strftime(' since %Y-%m-%d %H:%M:%S', time.localtime(self.since)) if self.since else ''
        return f'{self}{moment}'


def hold(path: Path) -> int:
    """Hold a file, until the file descriptor that is given back is closed; it is made where it is not there.

    Raises:
        BlockingIOError, PermissionError: another process holds it; or it may not be written.
        OSError: it cannot be written.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _lock())
        text = json.dumps(Holder(os.getpid(), socket.gethostname(), time.time())).encode()
        os.pwrite(file, text.ljust(os.fstat(file).st_size), 0)  # at once: others read it meanwhile
        os.ftruncate(file, len(text))
    except BaseException:
        os.close(file)
        raise
    return file


def holder(path: Path) -> Holder | None:
    """Who holds a file now, if anybody does."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if struct.unpack(_WHOLE_FILE, fcntl.fcntl(file, fcntl.F_OFD_GETLK, _lock()))[0] == fcntl.F_UNLCK:
            return None
        try:
            return Holder(*json.loads(os.pread(file, 4096, 0)))
        except (ValueError, TypeError):
            return Holder(0, 'an unknown host', 0.0)  # it has the lock, and is about to say who it is
    finally:
        os.close(file)


def _lock() -> bytes:
    return struct.pack(_WHOLE_FILE, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
