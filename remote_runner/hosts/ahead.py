"""Dialling hosts before all of the program is there: paramiko is imported while sshd takes its first steps.

    connector = Ahead(options, addresses).connector()
    ...  # import the rest, while the connector goes on with those hosts that have answered
    with connector: ...

What goes wrong is told to who connects to the host, as if it had happened then; nobody is asked for a password before.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar, cast

from remote_runner.defaults import FANOUT, LOCALHOST
from remote_runner.errors import ConnectionLost, HostError
from remote_runner.hosts.address import Address
from remote_runner.hosts.dial import dial
from remote_runner.hosts.ssh_config import Resolver, SshOptions, Target

if TYPE_CHECKING:
    from remote_runner.hosts.ssh import Connector

Thing = TypeVar('Thing', bound='Closes')

#: Threads that dial; what they have not come to when the program is there is dialled in the ordinary way.
WORKERS = 8


class Closes(Protocol):
    """Something that has to be closed."""

    def close(self) -> None: ...


class Begun(Generic[Thing]):
    """Something that is made before anybody asks for it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._done = threading.Event()
        self._given_up = False
        self._thing: Thing | None = None
        self._failure: BaseException | None = None

    @property
    def is_there(self) -> bool:
        """Whether `result` gives it at once."""
        return self._done.is_set() and self._failure is None

    def make(self, make: Callable[[], Thing]) -> None:
        """Make it; what goes wrong is told to who asks for it."""
        try:
            thing = make()
            with self._lock:
                self._thing = thing
                if self._given_up:
                    thing.close()
        except BaseException as failure:  # raised again where the result is asked for
            self._failure = failure
        finally:
            self._done.set()

    def wait_until_wanted(self) -> None:
        """For who makes it: wait until somebody asks for it.

        Raises:
            ConnectionLost: nobody will.
        """
        self._wanted.wait()
        if self._given_up:
            raise ConnectionLost('the command has ended')

    def result(self) -> Thing:
        """It, when it is made; raises what went wrong."""
        self._wanted.set()
        self._done.wait()
        if self._failure is not None:
            raise self._failure
        return cast('Thing', self._thing)

    def give_up(self) -> None:
        """Nobody asks for it any more: it is closed, as soon as it is there."""
        with self._lock:
            self._given_up = True
            if self._thing is not None:
                self._thing.close()
        self._wanted.set()


class Ahead:
    """TCP connections to hosts, begun in the background; those through jump hosts and proxies are left for later.

    Args:
        options: what the command line says; `resolver` keeps what is found out about the hosts with it.
        addresses: the hosts.
        fanout: how many of them, the first, are dialled at most.
    """

    def __init__(self, options: SshOptions, addresses: Iterable[Address], fanout: int = FANOUT) -> None:
        self.options = options
        self.resolver = Resolver(options)
        self._lock = threading.Lock()
        self._todo = [address for address in addresses if address.where != LOCALHOST][:fanout]
        self._is_over = False  # who connects now dials by themselves
        self._begun: dict[tuple[str, int, str], _Dialled] = {}
        for _ in range(min(WORKERS, len(self._todo))):
            threading.Thread(target=self._work, name='dial', daemon=True).start()

    def connector(self) -> Connector:
        """What connects to the hosts; paramiko is imported for it."""
        from remote_runner.hosts.ssh import Connector

        return Connector(ahead=self)

    def connected(self) -> list[tuple[Target, str]]:
        """The hosts with which there are connections by now, and how the user wrote them."""
        with self._lock:
            return [(each.target, each.where) for each in self._begun.values() if each.connection.is_there]

    def take(self, target: Target) -> socket.socket | None:
        """The connection to a host, which is waited for; None if there is none.

        Raises:
            HostUnreachable: it could not be reached.
        """
        with self._lock:
            self._is_over = True
            dialled = self._begun.pop(_key(target), None)
        return dialled.connection.result() if dialled is not None else None

    def close(self) -> None:
        """Close the connections that nobody took."""
        with self._lock:
            self._is_over = True
            left, self._begun = self._begun, {}
        for dialled in left.values():
            dialled.connection.give_up()

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._is_over or not self._todo:
                    return
                address = self._todo.pop(0)
            try:
                target = self.resolver.resolve(address)
            except HostError:
                continue  # told when it is connected to
            if target.jump is not None or target.proxy_command is not None:
                continue
            dialled = _Dialled(target, address.where, Begun())
            with self._lock:
                if self._is_over:
                    return
                if self._begun.setdefault(_key(target), dialled) is not dialled:
                    continue  # another name of a host that is dialled already
            dialled.connection.make(partial(_dial, target, address.where))


class _Dialled(NamedTuple):
    """A host that is dialled, as it was resolved and as the user wrote it."""

    target: Target
    where: str
    connection: Begun[socket.socket]


def _dial(target: Target, where: str) -> socket.socket:
    deadline = time.monotonic() + target.connect_timeout
    return dial(target.hostname, target.port, target.address_family, deadline, where)


def _key(target: Target) -> tuple[str, int, str]:
    return target.hostname, target.port, target.address_family
