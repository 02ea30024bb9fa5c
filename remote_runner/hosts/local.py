"""A connection to this machine, without SSH: commands run through pipes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from remote_runner.defaults import LOCALHOST
from remote_runner.errors import ConnectionLost
from remote_runner.hosts.local_streams import CHUNK, LocalStreams
from remote_runner.hosts.local_terminal import LocalTerminal
from remote_runner.hosts.tail import Tail

if TYPE_CHECKING:
    from remote_runner.hosts.ahead import Begun
    from remote_runner.hosts.bootstrap import Started

Made = TypeVar('Made', bound=LocalStreams)
_PIPE_SIZE = 1024 * 1024  # bytes; what Linux allows everybody (pipe(7))


class LocalConnection:
    """Runs commands here, as this user. See `connection.Connection`."""

    agent: Begun[Started] | None = None

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channels: set[LocalStreams] = set()
        self._closed = False

    def open(self, command: str) -> LocalChannel:
        """Run `command` with /bin/sh in a session of its own, in the current directory.

        Raises:
            ConnectionLost: the connection was closed.
        """
        return self._keep(lambda: LocalChannel(command))

    def open_terminal(self, command: str, term: str, columns: int, rows: int) -> LocalTerminal:
        """Run `command` with /bin/sh in a terminal of its own, in the current directory.

        Raises:
            ConnectionLost: the connection was closed.
            HostError: there is no terminal to be had.
        """
        return self._keep(lambda: LocalTerminal(command, term, columns, rows))

    def _keep(self, make: Callable[[], Made]) -> Made:
        """Make a channel that is closed together with this."""
        with self._lock:
            if self._closed:
                raise ConnectionLost('the connection was closed', host=LOCALHOST)
            self._channels = {channel for channel in self._channels if not channel.closed}
            channel = make()
            self._channels.add(channel)
            return channel

    def close(self) -> None:
        """Close all channels."""
        with self._lock:
            self._closed = True
            channels, self._channels = self._channels, set()
        for channel in channels:
            channel.close()


class LocalChannel(LocalStreams):
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
        stdin, stdout, self._stderr = (file.fileno() for file in self._files)
        super().__init__(stdin, stdout)
        os.set_blocking(self._stderr, False)
        for descriptor in (stdin, stdout):
            with suppress(OSError):  # the user's budget for pipes is used up: a smaller one is slower, no more
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        self._stderr_ended = False
        self._tail = Tail()
        self.pid = process.pid  # of the shell, which leads the session

    def stderr(self) -> bytes:
        """See `Channel.stderr`."""
        if self._reading.acquire(blocking=False):  # who reads now drains it too
            try:
                if not self.closed:
                    self._drain()
            finally:
                self._reading.release()
        return self._tail.bytes()

    def wait(self, timeout: float) -> int:
        """Wait for the end of the command and return its exit status; -N if signal N ended it.

        Raises:
            TimeoutError: it goes on.
        """
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f'the command goes on after {timeout} s') from error

    def _beside(self) -> list[int]:
        self._drain()
        return [] if self._stderr_ended else [self._stderr]

    def _close_files(self) -> None:
        self._drain()
        for file in self._files:
            file.close()
        if self._process.poll() is None:
            threading.Thread(target=self._process.wait, name='reaper', daemon=True).start()

    def _drain(self) -> None:
        """Take what is there of stderr. You hold the lock of reading."""
        while not self._stderr_ended:
            try:
                data = os.read(self._stderr, CHUNK)
            except BlockingIOError:
                return
            self._tail.add(data)
            self._stderr_ended = not data
