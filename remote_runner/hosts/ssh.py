"""Connections over SSH: from an address to a trusted, authenticated connection on which commands run.

`Connector` holds what many hosts share: the resolved ssh_config, known_hosts, keys, password, jump hosts. It limits
how many of them knock at one server at once, because sshd drops simultaneous strangers (MaxStartups, sshd_config(5)).
"""

from __future__ import annotations

import logging
import random
import shlex
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from remote_runner.errors import HostError, HostKeyChanged, HostKeyUnknown, HostUnreachable
from remote_runner.hosts.address import Address
from remote_runner.hosts.ahead import Ahead, Begun
from remote_runner.hosts.auth import Wallet, authenticate
from remote_runner.hosts.dial import Proxy, dial
from remote_runner.hosts.handshake import exchange_keys, host_key, hung_up, signature_algorithms, why_no_ssh
from remote_runner.hosts.known_hosts import KnownHosts, Verdict
from remote_runner.hosts.paramiko_import import paramiko
from remote_runner.hosts.ssh_channel import SshChannel, SshTerminal, spare_sessions
from remote_runner.hosts.ssh_config import SshOptions, Target
from remote_runner.hosts.transport import KEEPALIVE, SILENCE_LIMIT, Link, Transport

if TYPE_CHECKING:
    from remote_runner.hosts.bootstrap import Started

PENDING = 8  # connects to one server at a time; sshd's MaxStartups begins to drop at 10
AUTH_LIMIT = 30.0  # seconds for each attempt to log in; PAM may take its time
_RETRY = (0.1, 0.5)  # seconds before the first retry when a server drops us; doubled each time
_PROHIBITED = 1  # SSH_OPEN_ADMINISTRATIVELY_PROHIBITED (RFC 4254, 5.1)
_log = logging.getLogger(__name__)


class SshConnection:
    """An open connection to one host. See `connection.Connection`.

    Attributes:
        where: the host as the user wrote it.
        target: what it was resolved to.
        transport: paramiko's transport, for programs that need it (scp).
        agent: the agent, where it is started already; see `hosts/bootstrap.py`.
    """

    def __init__(self, where: str, target: Target, transport: Transport) -> None:
        self.where = where
        self.target = target
        self.transport = transport
        self.agent: Begun[Started] | None = None

    @property
    def lost(self) -> str | None:
        """Why the connection is of no use any more; None while it is."""
        if self.transport.link.lost is None and not self.transport.is_active():
            return 'the connection broke'
        return self.transport.link.lost

    def open(self, command: str) -> SshChannel:
        """Run `command` in the user's login shell.

        Raises:
            ConnectionLost: the connection broke.
            HostError: the server opens no further session (MaxSessions, sshd_config(5)).
        """
        return SshChannel(self.transport, self.where, command, self.target.environment)

    def spare_sessions(self, most: int) -> int:
        """How many further sessions the server opens, of `most` that are tried.

        Raises:
            ConnectionLost: the connection broke.
        """
        return spare_sessions(self.transport, self.where, most)

    def open_terminal(self, command: str, term: str, columns: int, rows: int) -> SshTerminal:
        """Run `command` in the user's login shell, in a terminal, see `Connection.open_terminal`.

        Raises:
            ConnectionLost: the connection broke.
            HostError: the server opens no further session, or gives no terminal.
        """
        environment = self.target.environment
        return SshTerminal(self.transport, self.where, command, environment, term=term, columns=columns, rows=rows)

    def close(self) -> None:
        """See `Connection.close`."""
        self.transport.link.close()
        self.transport.close()

    def __enter__(self) -> SshConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server:
    """One server: how many knock at once, and when it last did not answer."""

    def __init__(self) -> None:
        self.slots = threading.Semaphore(PENDING)
        self.failed = float('-inf')
        self.failure: HostUnreachable | None = None

    def did_not_answer(self, failure: HostUnreachable) -> None:
        """Who waits for a turn meanwhile gets the same error."""
        self.failed, self.failure = time.monotonic(), failure


class _Jump:
    """The one connection to a jump host, made by the first who needs it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: SshConnection | None = None
        self.failed = float('-inf')
        self.failure: HostError | None = None


class Connector:
    """Connects to hosts. Safe to use from many threads; close it after the connections it made.

    Args:
        options: what the command line says.
        ahead: connections that are begun already, with options of their own.
        keepalive: seconds of silence after which a host is asked for a sign of life.
        silence_limit: seconds of silence after which a connection counts as dead.
        auth_limit: seconds that a server has to answer each attempt to log in.

    Example:
        >>> with Connector(SshOptions()) as connector:
        ...     with connector.connect(parse_address('root@node1')) as connection:
        ...         print(connection.open('hostname').read(100))
    """

    def __init__(
        self,
        options: SshOptions | None = None,
        *,
        ahead: Ahead | None = None,
        keepalive: float = KEEPALIVE,
        silence_limit: float = SILENCE_LIMIT,
        auth_limit: float = AUTH_LIMIT,
    ) -> None:
        self._ahead = ahead or Ahead(options or SshOptions(), [])
        self.options = self._ahead.options
        self.resolver = self._ahead.resolver
        self.known_hosts = KnownHosts()
        self._wallet = Wallet(self.options.credentials)
        self._keepalive = keepalive
        self._silence_limit = silence_limit
        self._auth_limit = auth_limit
        self._lock = threading.Lock()
        self._servers: dict[object, _Server] = {}
        self._jumps: dict[Target, _Jump] = {}
        self._begun: dict[tuple[Target, str], Begun[SshConnection]] = {}
        for target, where in self._ahead.connected():
            begun = self._begun[target, where] = Begun()
            threading.Thread(target=self._begin, args=(target, where, begun), name='connect', daemon=True).start()

    def __enter__(self) -> Connector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def connect(self, address: Address) -> SshConnection:
        """Connect, check the host key, log in; or wait for that, where it is begun.

        Raises:
            HostUnreachable: no connection within the time limit, or no SSH server there.
            HostKeyUnknown, HostKeyChanged: the host is not to be trusted (yet).
            AuthenticationFailed: nothing was accepted.
            HostError: ssh_config is wrong.
        """
        target = self.resolver.resolve(address)
        begun = self._begun.pop((target, address.where), None)
        return begun.result() if begun is not None else self._connect(target, address.where)

    def endpoint(self, address: Address) -> Hashable:
        """What names of one machine and user have in common, as far as ssh_config tells.

        Raises:
            HostError: ssh_config is wrong.
        """
        target = self.resolver.resolve(address)
        return target.hostname, target.port, target.user, target.jump, target.proxy_command

    def close(self) -> None:
        """Close the connections to jump hosts and agents, and those that were begun for nothing."""
        with self._lock:
            jumps = list(self._jumps.values())
        for jump in jumps:
            if jump.connection is not None:
                jump.connection.close()
        while self._begun:
            _, begun = self._begun.popitem()
            begun.give_up()
        self._ahead.close()
        self._wallet.close()

    def handshake(self, target: Target, where: str) -> Transport:
        """Connect and exchange keys; whether the host is to be trusted was not looked at, and nobody is logged in.

        Raises:
            HostUnreachable: as for `connect`; and all that it raises, about a jump host on the way.
        """
        with self._slot(target, where) as server:
            return self._handshake(target, where, server)

    def _begin(self, target: Target, where: str, begun: Begun[SshConnection]) -> None:
        """In a thread: connect, and start the agent, which nearly everybody wants."""
        agent: Begun[Started] = Begun()

        def connect() -> SshConnection:
            connection = self._connect(target, where, begun.wait_until_wanted)
            connection.agent = agent
            return connection

        begun.make(connect)
        if begun.is_there:
            from remote_runner.hosts.bootstrap import start_agent

            agent.make(lambda: start_agent(where, begun.result()))

    def _connect(
        self, target: Target, where: str, before_asking: Callable[[], object] = lambda: None
    ) -> SshConnection:
        with self._slot(target, where) as server:
            transport = self._handshake(target, where, server)
            try:
                self._check_key(transport, target, where)
                transport.auth_timeout = self._auth_limit
                authenticate(transport, target, self._wallet, where, before_asking)
            except BaseException:
                transport.link.close()
                transport.close()
                raise
        transport.keep_alive(self._keepalive, self._silence_limit)
        return SshConnection(where, target, transport)

    def _handshake(self, target: Target, where: str, server: _Server) -> Transport:
        """A connection whose keys are exchanged; once again through a new connection to a jump host that has died."""
        if target.jump is None:
            return self._knock(target, None, where, server)
        jump = self._jump(target.jump, where)
        try:
            return self._knock(target, jump, where, server)
        except HostUnreachable:
            if jump.lost is None:
                raise
        return self._knock(target, self._jump(target.jump, where), where, server)

    def _knock(self, target: Target, jump: SshConnection | None, where: str, server: _Server) -> Transport:
        """Try until the server does not hang up at once, which it does when many others knock (MaxStartups)."""
        known_hosts = self.known_hosts
        algorithms = signature_algorithms(known_hosts.known_types(target), bool(known_hosts.authorities(target)))
        deadline = time.monotonic() + target.connect_timeout
        pause = random.uniform(*_RETRY)
        while True:
            proxy = Proxy(target.proxy_command) if target.proxy_command is not None else None
            try:
                link = self._link(target, jump, proxy, deadline, where)
            except HostUnreachable as error:
                if jump is None or jump.lost is None:
                    server.did_not_answer(error)
                raise
            transport = exchange_keys(link, algorithms, deadline, compress=target.compression)
            if transport.is_active() and transport.initial_kex_done:
                return transport
            failure = why_no_ssh(transport, target, where, proxy.said() if proxy is not None else '')
            link.close()
            transport.close()
            if not link.head and not link.ended:
                server.did_not_answer(failure)
            if proxy is not None or not hung_up(link) or time.monotonic() + pause > deadline:
                raise failure
            threading.Event().wait(pause)
            pause *= 2

    def _link(
        self, target: Target, jump: SshConnection | None, proxy: Proxy | None, deadline: float, where: str
    ) -> Link:
        if jump is not None:
            return Link(_through(jump, target, deadline, where))
        if proxy is not None:
            return Link(proxy.socket, proxy.close)
        try:
            begun = self._ahead.take(target)
        except HostUnreachable as error:
            raise _same(error, error.what, where) from error
        return Link(begun or dial(target.hostname, target.port, target.address_family, deadline, where))

    def _jump(self, target: Target, where: str) -> SshConnection:
        """The connection to a jump host. Whoever waited while it could not be made gets the same error."""
        asked = time.monotonic()
        with self._lock:
            jump = self._jumps.setdefault(target, _Jump())
        with jump.lock:
            if jump.connection is not None and jump.connection.lost is None:
                return jump.connection
            if jump.failure is None or jump.failed < asked:
                try:
                    jump.connection = self._connect(target, target.alias)
                except HostError as error:
                    jump.failed, jump.failure = time.monotonic(), error
                else:
                    jump.failure = None
                    return jump.connection
            raise _same(jump.failure, f'jump host {target.alias}: {jump.failure.what}', where)

    @contextmanager
    def _slot(self, target: Target, where: str) -> Iterator[_Server]:
        """Wait for a turn at the server. Who waited while it did not answer at all need not find out again."""
        key = target.proxy_template or (target.jump, target.hostname, target.port)
        with self._lock:
            server = self._servers.setdefault(key, _Server())
        asked = time.monotonic()
        with server.slots:
            if server.failure is not None and server.failed > asked and not target.proxy_template:
                raise _same(server.failure, server.failure.what, where)
            yield server

    def _check_key(self, transport: Transport, target: Target, where: str) -> None:
        key = host_key(transport, where)
        verdict, entry = self.known_hosts.judge(target, key)
        if verdict is Verdict.KNOWN:
            return
        place = f'{entry.file} line {entry.line}' if entry is not None else ''
        if verdict is Verdict.REVOKED:
            raise HostKeyChanged(f'the host key {key} is revoked in {place}', host=where)
        if verdict is Verdict.CHANGED:
            forget = f'ssh-keygen -f {shlex.quote(entry.file if entry else "")} -R {shlex.quote(target.known_as)}'
            raise HostKeyChanged(
                f'the host shows the key {key}, not the one in {place}: installed anew, or somebody is in between',
                host=where,
                remedy=f'if you know why: {forget}; remote_runner hosts trust {where}',
            )
        accept = self.options.accept_new_host_keys or target.strict_host_key_checking in ('accept-new', 'no')
        if not accept:
            raise HostKeyUnknown(
                f'the host key is in no known_hosts file: {key}',
                host=where,
                remedy=f'remote_runner hosts trust {where} shows and stores it; or --accept-new-host-keys',
            )
        file = self.known_hosts.add(target, key)
        _log.info('%s: new host key %s%s', where, key, f' added to {file}' if file else '')


def _through(jump: SshConnection, target: Target, deadline: float, where: str) -> paramiko.Channel:
    """A channel from the jump host to the target (`direct-tcpip`, RFC 4254, 7.2)."""
    place = f'{target.hostname} port {target.port}'
    try:
        return jump.transport.open_channel(
            'direct-tcpip',
            (target.hostname, target.port),
            ('127.0.0.1', 0),
            timeout=max(0.1, deadline - time.monotonic()),
        )
    except paramiko.ChannelException as error:
        if error.code == _PROHIBITED:
            raise HostUnreachable(
                f'jump host {jump.where} does not let us through to {place}',
                host=where,
                remedy='see AllowTcpForwarding and PermitOpen in its sshd_config',
            ) from error
        raise HostUnreachable(
            f'jump host {jump.where} cannot connect to {place}: {error.text.lower()}', host=where
        ) from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        if jump.lost is not None:
            raise HostUnreachable(f'jump host {jump.where}: {jump.lost}', host=where) from error
        raise HostUnreachable(
            f'no answer from {place} through jump host {jump.where} within {target.connect_timeout:g} s', host=where
        ) from error


def _same(error: HostError, what: str, where: str) -> HostError:
    """The error for another host."""
    return type(error)(what, host=where, remedy=error.remedy, output=error.output)
