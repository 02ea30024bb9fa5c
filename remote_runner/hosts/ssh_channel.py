"""One command on an SSH connection: its stdin, stdout and the end of its stderr (RFC 4254, 5 and 6)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import suppress

from remote_runner.errors import ConnectionLost, HostError
from remote_runner.hosts.paramiko_import import paramiko
from remote_runner.hosts.tail import KEPT, Tail
from remote_runner.hosts.transport import Transport

CHANNEL_LIMIT = 30.0  # seconds to open one
_NO_STATUS = -1  # what paramiko says where the server sent none
_ENDED_BY_SIGNAL = 255  # as ssh(1) says it
_PACKET = 32 * 1024  # bytes; OpenSSH takes no more at once


class _Wakeup(threading.Event):
    """Set by paramiko when there is something to read. paramiko also clears it, too early for a reader of two pipes."""

    def clear(self) -> None:
        """Nothing; `forget` clears."""

    def forget(self) -> None:
        super().clear()


class SshChannel:
    """See `connection.Channel`. stderr is taken off the channel by whoever reads, so that it never fills the window.

    Raises:
        ConnectionLost: the connection broke.
        HostError: the server opens no further session.
    """

    def __init__(
        self, transport: Transport, where: str, command: str, environment: Iterable[tuple[str, str]] = ()
    ) -> None:
        self._transport = transport
        self._where = where
        self._closed = False
        self._tail = Tail()
        self._wakeup = _Wakeup()
        try:
            self._channel = transport.open_session(timeout=CHANNEL_LIMIT)
            self._channel.in_buffer.set_event(self._wakeup)
            self._channel.in_stderr_buffer.set_event(self._wakeup)
            for name, value in environment:
                self._channel.set_environment_variable(name, value)
            self._prepare()
            self._channel.exec_command(command)
        except paramiko.ChannelException as error:
            raise HostError(
                f'the server opens no further session: {error.text.lower()}',
                host=where,
                remedy='see MaxSessions in its sshd_config',
            ) from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            if transport.link.lost is None and transport.is_active():
                raise HostError('the server does not run the command', host=where) from error
            raise self._broken() from error

    def _prepare(self) -> None:
        """Ask for what the command needs before it is run."""

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """See `Channel.read`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._wakeup.forget()
            ended = self._channel.eof_received or self._channel.closed
            self._drain()
            if self._channel.recv_ready():
                return self._channel.recv(size)
            if ended:
                if self._closed or self._channel.eof_received or self._transport.link.lost is None:
                    return b''
                raise self._broken()
            left = None if deadline is None else deadline - time.monotonic()
            if (left is not None and left <= 0) or not self._wakeup.wait(left):
                raise TimeoutError(f'nothing came within {timeout} s')

    def write(self, data: bytes | memoryview) -> None:
        """See `Channel.write`."""
        view = memoryview(data).cast('B')
        while view:
            try:
                sent = self._channel.send(bytes(view[:_PACKET]))
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise self._broken() from error
            if not sent:
                raise self._broken()
            view = view[sent:]

    def stderr(self) -> bytes:
        """See `Channel.stderr`."""
        self._drain()
        return self._tail.bytes()

    def close(self) -> None:
        """See `Channel.close`."""
        self._closed = True
        try:
            self._channel.close()
        except (OSError, EOFError, paramiko.SSHException):
            return  # it is closed with the connection

    def _drain(self) -> None:
        while self._channel.recv_stderr_ready():
            self._tail.add(self._channel.recv_stderr(KEPT))

    def _broken(self) -> ConnectionLost:
        return ConnectionLost(self._transport.link.lost or 'the command has ended', host=self._where)


def spare_sessions(transport: Transport, where: str, most: int) -> int:
    """How many sessions the server opens beside those that are open (MaxSessions, sshd_config(5)).

    They are opened, `most` of them at most, and closed again; nothing runs in them.

    Raises:
        ConnectionLost: the connection broke.
    """
    opened: list[paramiko.Channel] = []
    try:
        while len(opened) < most:
            opened.append(transport.open_session(timeout=CHANNEL_LIMIT))
    except paramiko.ChannelException:
        return len(opened)
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise ConnectionLost(transport.link.lost or 'it does not answer', host=where) from error
    finally:
        for channel in opened:
            with suppress(OSError, EOFError, paramiko.SSHException):  # it is closed with the connection
                channel.close()
    return len(opened)


class SshTerminal(SshChannel):
    """See `connection.TerminalChannel`: `pty-req` and `window-change` of RFC 4254, 6.2 and 6.7.

    Raises:
        ConnectionLost: the connection broke.
        HostError: the server opens no further session, or gives no terminal.
    """

    def __init__(
        self,
        transport: Transport,
        where: str,
        command: str,
        environment: Iterable[tuple[str, str]],
        *,
        term: str,
        columns: int,
        rows: int,
    ) -> None:
        self._kind = (term, columns, rows)
        super().__init__(transport, where, command, environment)

    def _prepare(self) -> None:
        try:
            self._channel.get_pty(*self._kind)
        except (paramiko.SSHException, EOFError, OSError) as error:
            if self._transport.link.lost is not None or not self._transport.is_active():
                raise
            raise HostError(
                'the server gives no terminal', host=self._where, remedy='see PermitTTY in its sshd_config'
            ) from error

    def resize(self, columns: int, rows: int) -> None:
        """See `TerminalChannel.resize`."""
        try:
            self._channel.resize_pty(columns, rows)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._broken() from error

    def exit_status(self, timeout: float | None = None) -> int:
        """See `TerminalChannel.exit_status`."""
        if not self._channel.status_event.wait(timeout):
            raise TimeoutError(f'the command goes on after {timeout} s')
        status = self._channel.exit_status
        if status != _NO_STATUS:
            return status
        if not self._closed and self._transport.link.lost is not None:
            raise self._broken()
        return _ENDED_BY_SIGNAL
