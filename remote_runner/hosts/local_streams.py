"""Descriptors that lead to a command of this machine, read, written and closed by different threads."""

from __future__ import annotations

import errno
import os
import select
import threading
import time

from remote_runner.defaults import LOCALHOST
from remote_runner.errors import ConnectionLost

CHUNK = 64 * 1024  # bytes


class LocalStreams:
    """See `connection.Duplex`. `stdin` and `stdout` may be one descriptor, that of a terminal."""

    def __init__(self, stdin: int, stdout: int) -> None:
        self._stdin = stdin
        self._stdout = stdout
        for descriptor in (stdin, stdout):
            os.set_blocking(descriptor, False)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # readable once closed
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._closing = threading.Lock()
        self.closed = False

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """See `Duplex.read`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._reading:
            while not self.closed:
                beside = self._beside()
                try:
                    return os.read(self._stdout, size)
                except BlockingIOError:
                    pass
                except OSError as error:
                    if error.errno != errno.EIO:
                        raise
                    return b''  # a terminal that no program has open any more
                poll = select.poll()
                for descriptor in (self._stdout, self._wake, *beside):
                    poll.register(descriptor, select.POLLIN)
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f'nothing came within {timeout} s')
                poll.poll(None if left is None else left * 1000)
        return b''

    def write(self, data: bytes | memoryview) -> None:
        """See `Duplex.write`."""
        view = memoryview(data).cast('B')
        poll = select.poll()
        with self._writing:
            while view and not self.closed:
                try:
                    view = view[os.write(self._stdin, view[: 16 * CHUNK]) :]
                except BlockingIOError:
                    poll.register(self._stdin, select.POLLOUT)
                    poll.register(self._wake, select.POLLIN)
                    poll.poll()
                except OSError as error:
                    if error.errno not in (errno.EPIPE, errno.EIO):
                        raise
                    raise ConnectionLost('the command reads no more input', host=LOCALHOST) from error
        if view:
            raise ConnectionLost('the channel was closed', host=LOCALHOST)

    def close(self) -> None:
        """See `Duplex.close`. A command that goes on nevertheless is left alone, as sshd does."""
        with self._closing:
            if self.closed:
                return
            self.closed = True
            os.eventfd_write(self._wake, 1)
            with self._reading, self._writing:
                self._close_files()
                os.close(self._wake)

    def _beside(self) -> list[int]:
        """Take what is to be taken while reading; the descriptors on which more of it may come."""
        return []

    def _close_files(self) -> None:
        """Close the descriptors. Nobody reads or writes them now."""
        raise NotImplementedError
