"""What a connection to a host can do, whatever carries it (SSH, or pipes to this machine)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from remote_runner.hosts.ahead import Begun
    from remote_runner.hosts.bootstrap import Started


class Duplex(Protocol):
    """What goes to a command running on a host, and what comes from it."""

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

    def close(self) -> None:
        """Close all streams: the command reads end of file. Safe to call twice, from any thread; wakes a `read`."""


class Channel(Duplex, Protocol):
    """The three streams of one command running on a host."""

    def stderr(self) -> bytes:
        """What came on stderr so far (the last 64 KiB of it). Never waits."""


class TerminalChannel(Duplex, Protocol):
    """A terminal in which one command runs on a host: what it reads and prints. Closing it hangs up (SIGHUP)."""

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal this size, in characters; the program hears of it by SIGWINCH.

        Raises:
            ConnectionLost: the connection broke, or the command ended.
        """

    def exit_status(self, timeout: float | None = None) -> int:
        """Wait for the end of the command, whose output was read to the end; 128 + N if signal N ended it.

        sshd names the signal only of what the login shell ran: 255 stands for one that ended the shell itself.

        Raises:
            TimeoutError: it goes on after `timeout` seconds.
            ConnectionLost: the connection broke, so that nobody knows.
        """


class Connection(Protocol):
    """An open, trusted and authenticated way to run commands on one host as one user.

    Attributes:
        agent: the agent there, where it is started already; see `hosts/bootstrap.py`.
    """

    agent: Begun[Started] | None

    def open(self, command: str) -> Channel:
        """Run `command` in the login shell of the user, without a terminal.

        Raises:
            ConnectionLost: the connection broke.
        """

    def open_terminal(self, command: str, term: str, columns: int, rows: int) -> TerminalChannel:
        """Run `command` in the login shell of the user, in a terminal of its own. ssh-agents are not forwarded.

        Args:
            command: as for `open`.
            term: the kind of terminal, which the command finds as TERM; the host may not know it.
            columns, rows: its size in characters.

        Raises:
            ConnectionLost: the connection broke.
            HostError: the host gives no terminal.
        """

    def close(self) -> None:
        """Close the connection and all its channels. Safe to call twice, from any thread."""
