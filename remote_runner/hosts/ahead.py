"""Dialling hosts before all of the program is there: paramiko is imported while sshd takes its first steps.

    connector = Ahead(options, addresses).connector()
    ...  # import the rest, while keys are exchanged with those hosts that have answered
    with connector: ...

Nobody is logged in yet. What goes wrong is told to who connects to the host, as if it had happened then.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from remote_runner.defaults import FANOUT, LOCALHOST
from remote_runner.errors import HostError
from remote_runner.hosts.address import Address
from remote_runner.hosts.dial import dial
from remote_runner.hosts.ssh_config import Resolver, SshOptions, Target

if TYPE_CHECKING:
    from remote_runner.hosts.ssh import Connector

#: Threads that dial; what they have not come to when the program is there is dialled in the ordinary way.
WORKERS = 8


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

    def connected(self) -> list[tuple[Target, socket.socket]]:
        """The connections that are there by now; who calls this takes them."""
        with self._lock:
            there = {key: dialled for key, dialled in self._begun.items() if dialled.is_connected}
            for key in there:
                del self._begun[key]
        return [(dialled.target, connection) for dialled in there.values() if (connection := dialled.result())]

    def take(self, target: Target) -> socket.socket | None:
        """The connection to a host, which is waited for; None if there is none.

        Raises:
            HostUnreachable: it could not be reached.
        """
        with self._lock:
            self._is_over = True
            dialled = self._begun.pop(_key(target), None)
        return dialled.result() if dialled is not None else None

    def close(self) -> None:
        """Close the connections that nobody took."""
        with self._lock:
            self._is_over = True
            left, self._begun = self._begun, {}
        for dialled in left.values():
            dialled.give_up()

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
            dialled = _Dialled(target)
            with self._lock:
                if self._is_over:
                    return
                if self._begun.setdefault(_key(target), dialled) is not dialled:
                    continue  # another name of a host that is dialled already
            dialled.dial(address.where)


class _Dialled:
    """One connection that is being made."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._given_up = False
        self._connection: socket.socket | None = None
        self._failure: BaseException | None = None

    @property
    def is_connected(self) -> bool:
        """Whether `result` gives a connection at once."""
        return self._done.is_set() and self._failure is None

    def dial(self, where: str) -> None:
        target = self.target
        deadline = time.monotonic() + target.connect_timeout
        try:
            connection = dial(target.hostname, target.port, target.address_family, deadline, where)
            with self._lock:
                self._connection = connection
                if self._given_up:
                    connection.close()
        except BaseException as failure:  # raised again where the connection is taken
            self._failure = failure
        finally:
            self._done.set()

    def result(self) -> socket.socket | None:
        self._done.wait()
        if self._failure is not None:
            raise self._failure
        return self._connection

    def give_up(self) -> None:
        with self._lock:
            self._given_up = True
            if self._connection is not None:
                self._connection.close()


def _key(target: Target) -> tuple[str, int, str]:
    return target.hostname, target.port, target.address_family
