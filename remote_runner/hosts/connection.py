"""What a connection to a host can do, whatever carries it (SSH, or pipes to this machine)."""

from __future__ import annotations

from typing import Protocol


class Channel(Protocol):
    """The three streams of one command running on a host."""

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """Up to `size` bytes of stdout as soon as there are any; b'' at the end of the stream.

        Raises:
            TimeoutError: nothing came within `timeout` seconds.
            ConnectionLost: the connection broke.
        """

    def write(self, data: bytes | memoryview) -> None:
        """Write all of `data` to stdin, waiting while the other side does not read.

        Raises:
            ConnectionLost: the connection broke, or the command ended.
        """

    def stderr(self) -> bytes:
        """What came on stderr so far (the last 64 KiB of it). Never waits."""

    def close(self) -> None:
        """Close all streams: the command reads end of file. Safe to call twice, from any thread; wakes a `read`."""


class Connection(Protocol):
    """An open, trusted and authenticated way to run commands on one host as one user."""

    def open(self, command: str) -> Channel:
        """Run `command` in the login shell of the user, without a terminal.

        Raises:
            ConnectionLost: the connection broke.
        """

    def close(self) -> None:
        """Close the connection and all its channels. Safe to call twice, from any thread."""
