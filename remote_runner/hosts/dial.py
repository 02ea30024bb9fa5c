"""The first step to a host: a TCP connection, or the ends of a ProxyCommand."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

from remote_runner.errors import HostUnreachable

_END_LIMIT = 1.0  # seconds a proxy command has to end by itself
_SAID = 4096  # bytes of what it says that are shown
_FAMILIES = {'inet': socket.AF_INET, 'inet6': socket.AF_INET6}
_AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


def dial(hostname: str, port: int, family: str, deadline: float, where: str) -> socket.socket:
    """A TCP connection with TCP_NODELAY (else each small request waits 40 ms for an acknowledgement).

    Args:
        family: `any`, `inet` or `inet6`; all addresses of the name are tried in the system's order.
        deadline: on the monotonic clock.
        where: the host as the user wrote it, for errors.

    Raises:
        HostUnreachable: the name is unknown, nothing listens, no route, or no answer in time.
    """
    started = time.monotonic()
    infos = _look_up(hostname, port, family, deadline, where)
    failure: OSError | None = None
    for index, (kind, _type, protocol, _name, address) in enumerate(infos):
        share = (deadline - time.monotonic()) / (len(infos) - index)  # a dead address leaves time for the next one
        if share <= 0:
            break
        try:
            connection = socket.socket(kind, socket.SOCK_STREAM, protocol)
        except OSError as error:
            failure = error  # this machine has no such network
            continue
        try:
            connection.settimeout(share)
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    what = f'{hostname} port {port}' if hostname != where else f'port {port}'
    if failure is None or isinstance(failure, TimeoutError):
        limit = time.monotonic() - started
        raise HostUnreachable(
            f'no answer from {what} within {limit:.0f} s', host=where, remedy='is it switched on and reachable?'
        ) from failure
    remedy = 'does sshd run there, on this port?' if isinstance(failure, ConnectionRefusedError) else None
    said = (failure.strerror or str(failure)).lower()
    raise HostUnreachable(f'cannot connect to {what}: {said}', host=where, remedy=remedy) from failure


def _look_up(hostname: str, port: int, family: str, deadline: float, where: str) -> Sequence[_AddressInfo]:
    """getaddrinfo(3), but no longer than until `deadline`."""
    kind = _FAMILIES.get(family, socket.AF_UNSPEC)
    with suppress(OSError, UnicodeError):
        # Of bytes Python does not ask whether they are an internationalized name, for which it imports much.
        return socket.getaddrinfo(hostname.encode('ascii'), port, kind, socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    found: list[Sequence[_AddressInfo] | OSError | UnicodeError] = []

    def ask() -> None:
        try:
            found.append(socket.getaddrinfo(hostname, port, kind, socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error)

    thread = threading.Thread(target=ask, name='getaddrinfo', daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
    if not found:
        raise HostUnreachable(f'no answer from the name service about {hostname} in time', host=where)
    answer = found[0]
    if isinstance(answer, OSError):
        raise HostUnreachable(
            f'the name {hostname} is unknown: {(answer.strerror or str(answer)).lower()}',
            host=where,
            remedy='see that it is spelt right, or give its HostName in ssh_config',
        ) from answer
    if isinstance(answer, UnicodeError):
        raise HostUnreachable(f'{hostname} is no valid host name', host=where) from answer
    return answer


class Proxy:
    """A running ProxyCommand (ssh_config(5)): the user's shell, which is told to `exec` it.

    Attributes:
        socket: our end of its stdin and stdout.
    """

    def __init__(self, command: str) -> None:
        self.socket, theirs = socket.socketpair()
        import tempfile  # which most commands do not need

        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the command
        self._said = b''
        shell = os.environ.get('SHELL') or '/bin/sh'
        with theirs:
            self._process = subprocess.Popen(
                [shell, '-c', f'exec {command}'],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._stderr,
                start_new_session=True,  # Ctrl-C is for us: connections are needed for what is to be tidied up
            )

    def said(self) -> str:
        """The end of what it printed on stderr."""
        if not self._stderr.closed:
            size = os.fstat(self._stderr.fileno()).st_size
            self._said = os.pread(self._stderr.fileno(), _SAID, max(0, size - _SAID))
        return self._said.decode(errors='replace')

    def close(self) -> None:
        """End it, with all that it started and did not take out of its session."""
        self.socket.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(_END_LIMIT)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self.said()
        self._stderr.close()
