"""A connection to this machine, without SSH: commands run through pipes."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import threading
import time
from contextlib import suppress

from remote_runner.defaults import LOCALHOST
from remote_runner.errors import ConnectionLost
from remote_runner.hosts.tail import Tail

_PIPE_SIZE = 1024 * 1024  # bytes; what Linux allows everybody (pipe(7))
_CHUNK = 64 * 1024


class LocalConnection:
    """Runs commands here, as this user. See `connection.Connection`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channels: set[LocalChannel] = set()
        self._closed = False

    def open(self, command: str) -> LocalChannel:
        """Run `command` with /bin/sh in a session of its own, in the current directory.

        Raises:
            ConnectionLost: the connection was closed.
        """
        with self._lock:
            if self._closed:
                raise ConnectionLost('the connection was closed', host=LOCALHOST)
            self._channels = {channel for channel in self._channels if not channel.closed}
            channel = LocalChannel(command)
            self._channels.add(channel)
            return channel

    def close(self) -> None:
        """Close all channels."""
        with self._lock:
            self._closed = True
            channels, self._channels = self._channels, set()
        for channel in channels:
            channel.close()


class LocalChannel:
    """The streams of one local command. See `connection.Channel`."""

    def __init__(self, command: str) -> None:
        self._process = subprocess.Popen(
            ['/bin/sh', '-c', command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        process = self._process
        assert process.stdin is not None  # noqa: S101 - as are the others; for mypy
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        self._files = (process.stdin, process.stdout, process.stderr)
        self._stdin, self._stdout, self._stderr = (file.fileno() for file in self._files)
        for descriptor in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(descriptor, False)
        for descriptor in (self._stdin, self._stdout):
            with suppress(OSError):  # the user's budget for pipes is used up: a smaller one is slower, no more
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        self._stderr_ended = False
        self._tail = Tail()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # readable once closed
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._closing = threading.Lock()
        self.closed = False
        self.pid = process.pid  # of the shell, which leads the session

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """See `Channel.read`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._reading:
            while not self.closed:
                self._drain()
                try:
                    return os.read(self._stdout, size)
                except BlockingIOError:
                    pass
                poll = select.poll()
                poll.register(self._stdout, select.POLLIN)
                poll.register(self._wake, select.POLLIN)
                if not self._stderr_ended:
                    poll.register(self._stderr, select.POLLIN)
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f'nothing came within {timeout} s')
                poll.poll(None if left is None else left * 1000)
        return b''

    def write(self, data: bytes | memoryview) -> None:
        """See `Channel.write`."""
        view = memoryview(data).cast('B')
        poll = select.poll()
        with self._writing:
            while view and not self.closed:
                try:
                    view = view[os.write(self._stdin, view[: 16 * _CHUNK]) :]
                except BlockingIOError:
                    poll.register(self._stdin, select.POLLOUT)
                    poll.register(self._wake, select.POLLIN)
                    poll.poll()
                except BrokenPipeError as error:
                    raise ConnectionLost('the command reads no more input', host=LOCALHOST) from error
        if view:
            raise ConnectionLost('the channel was closed', host=LOCALHOST)

    def stderr(self) -> bytes:
        """See `Channel.stderr`."""
        if self._reading.acquire(blocking=False):  # who reads now drains it too
            try:
                if not self.closed:
                    self._drain()
            finally:
                self._reading.release()
        return self._tail.bytes()

    def close(self) -> None:
        """See `Channel.close`. A command that goes on nevertheless is left alone, as sshd does."""
        with self._closing:
            if self.closed:
                return
            self.closed = True
            os.eventfd_write(self._wake, 1)
            with self._reading, self._writing:
                self._drain()
                for file in self._files:
                    file.close()
                os.close(self._wake)
        if self._process.poll() is None:
            threading.Thread(target=self._process.wait, name='reaper', daemon=True).start()

    def wait(self, timeout: float) -> int:
        """Wait for the end of the command and return its exit status; -N if signal N ended it.

        Raises:
            TimeoutError: it goes on.
        """
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f'the command goes on after {timeout} s') from error

    def _drain(self) -> None:
        """Take what is there of stderr. You hold the lock of reading."""
        while not self._stderr_ended:
            try:
                data = os.read(self._stderr, _CHUNK)
            except BlockingIOError:
                return
            self._tail.add(data)
            self._stderr_ended = not data
