"""Which master works on a job: one at a time, which holds a lock on a file in its folder as long as it lives.

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

from remote_runner.errors import JobHeld, JournalFailed

#: The file that is locked, in which the master stands.
FILE = 'master'
_WHOLE_FILE = 'hhqqi0q'  # struct flock: type, whence, start, length, pid


class Master(NamedTuple):
    """Who works on a job: a process of a machine, since when (Unix time)."""

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
        """Which process on which machine, and since when: for whoever wants to be master in its place."""
        moment = time.strftime(' since %Y-%m-%d %H:%M:%S', time.localtime(self.since)) if self.since else ''
        return f'{self}{moment}'


def hold(folder: Path) -> int:
    """Become the master of a job, until the file that is given back is closed.

    Raises:
        JobHeld: there is one; the message says who.
        JournalFailed: the file cannot be written.
    """
    path = folder / FILE
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, _lock())
            text = json.dumps(Master(os.getpid(), socket.gethostname(), time.time())).encode()
            os.pwrite(file, text.ljust(os.fstat(file).st_size), 0)  # at once: others read it meanwhile
            os.ftruncate(file, len(text))
        except BaseException:
            os.close(file)
            raise
    except (BlockingIOError, PermissionError) as error:
        other = master(folder)
        if other is None and isinstance(error, BlockingIOError):
            return hold(folder)  # it has just ended
        if other is None:
            raise JournalFailed(f'{path} cannot be locked: {error.strerror}', remedy='see whose it is') from error
        remedy = f'end it, or wait until it has ended; `remote_runner jobs attach {folder.name}` follows it'
        raise JobHeld(f'job {folder.name} is being worked on by {other.in_full}', remedy=remedy) from error
    except OSError as error:
        remedy = 'see whether the disk is full, and whose the folder is'
        raise JournalFailed(f'{path} cannot be written: {error.strerror}', remedy=remedy) from error
    return file


def master(folder: Path) -> Master | None:
    """Who works on a job now, if anybody does."""
    try:
        file = os.open(folder / FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if struct.unpack(_WHOLE_FILE, fcntl.fcntl(file, fcntl.F_OFD_GETLK, _lock()))[0] == fcntl.F_UNLCK:
            return None
        try:
            return Master(*json.loads(os.pread(file, 4096, 0)))
        except (ValueError, TypeError):
            return Master(0, 'an unknown host', 0.0)  # it has the lock, and is about to say who it is
    finally:
        os.close(file)


def _lock() -> bytes:
    return struct.pack(_WHOLE_FILE, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
