"""All hosts of a command: connecting to them in parallel, and working on them in parallel.

    with Pool(connector, listener, fanout=64) as pool:
        for host, outcome in pool.connect(addresses): ...
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

from remote_runner.defaults import FANOUT, LOCALHOST
from remote_runner.errors import ConnectionLost, RemoteRunnerError
from remote_runner.hosts.address import Address
from remote_runner.hosts.call import INTERRUPTIBLE, Header
from remote_runner.hosts.connection import Connection
from remote_runner.hosts.host import Host

log = logging.getLogger(__name__)

#: Seconds between two heartbeats: without any for a minute an agent ends, and lets go of its locks.
HEARTBEAT = 15.0

Item = TypeVar('Item')
Result = TypeVar('Result')


class Opens(Protocol):
    """Makes connections; `hosts.ssh.Connector` is one."""

    def connect(self, address: Address) -> Connection: ...

    def endpoint(self, address: Address) -> Hashable: ...


def each(
    items: Iterable[Item], work: Callable[[Item], Result], fanout: int = FANOUT, deadline: float | None = None
) -> Iterator[tuple[Item, Result | RemoteRunnerError]]:
    """Do `work` on all items, at most `fanout` at a time; yield each with its outcome as it comes.

    Those that are not done at `deadline` (time.monotonic) are left out.

    An error of ours is an outcome; any other is raised here. The threads are daemons, so that an interrupted command
    does not wait for a host that does not answer.
    """
    waiting = list(items)
    todo: SimpleQueue[Item | None] = SimpleQueue()
    done: SimpleQueue[tuple[Item, Result | RemoteRunnerError | BaseException]] = SimpleQueue()
    over = threading.Event()

    def serve() -> None:
        while (item := todo.get()) is not None and not over.is_set():
            try:
                done.put((item, work(item)))
            except BaseException as error:  # raised again in the thread that waits for it
                done.put((item, error))

    for item in waiting:
        todo.put(item)
    threads = min(fanout, len(waiting))
    for _ in range(threads):
        todo.put(None)
        threading.Thread(target=serve, daemon=True).start()
    try:
        for _ in waiting:
            while True:
                left = INTERRUPTIBLE if deadline is None else deadline - time.monotonic()
                try:
                    item, outcome = done.get(timeout=min(left, INTERRUPTIBLE)) if left > 0 else done.get_nowait()
                    break
                except Empty:
                    if left <= 0:
                        return
            if isinstance(outcome, BaseException) and not isinstance(outcome, RemoteRunnerError):
                raise outcome
            yield item, outcome
    finally:
        over.set()  # interrupted, or not wanted any more: what has not begun does not begin


def distinct(addresses: Iterable[Address], connector: Opens, fanout: int = FANOUT) -> dict[Address, list[Address]]:
    """The hosts without those that ssh_config resolves to one that was written before; each with its other names."""
    wanted = list(dict.fromkeys(addresses))
    ends: dict[Address, object] = dict(each([a for a in wanted if a.where != LOCALHOST], connector.endpoint, fanout))
    first: dict[object, Address] = {}
    found: dict[Address, list[Address]] = {}
    for address in wanted:
        end = ends.get(address, LOCALHOST)
        # A name that cannot be resolved is a host of its own: connecting to it says what is wrong.
        same = first.setdefault(address if isinstance(end, RemoteRunnerError) else end, address)
        found.setdefault(same, []).extend([] if same == address else [address])
    return found


def _nothing(host: Host, header: Header) -> None:
    """For those who only ask: a lost connection fails the request under way, and nothing else comes unasked."""


def connect(address: Address, connector: Opens, listener: Callable[[Host, Header], None] = _nothing) -> Host:
    """Connect to a host and start its agent; this machine (`localhost`) needs no SSH. See `Host` for `listener`.

    Raises:
        HostError: it cannot be reached, trusted or authenticated, or the agent could not be started.
    """
    if address.where == LOCALHOST:
        from remote_runner.hosts.local import LocalConnection

        # Our own interpreter: a python3 in PATH may be a version manager's shim that changes the environment.
        return Host(LOCALHOST, LocalConnection(), listener, python=sys.executable)
    return Host(address.where, connector.connect(address), listener)


class Pool:
    """The connected hosts, by the name under which the user wrote them. A context manager that closes them all.

    Args:
        connector: makes the SSH connections; this machine (`localhost`) needs none.
        listener: see `Host`.
        fanout: hosts that are worked on at the same time.
        leave: closing leaves the connections to the system: the process ends now (2 ms a host are saved).
    """

    def __init__(
        self,
        connector: Opens,
        listener: Callable[[Host, Header], None] = _nothing,
        fanout: int = FANOUT,
        *,
        leave: bool = False,
    ) -> None:
        self.fanout = fanout
        self.hosts: dict[str, Host] = {}
        self._connector = connector
        self._listener = listener
        self._leave = leave
        self._closed = threading.Event()
        threading.Thread(target=self._beat, name='heartbeat', daemon=True).start()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(
        self, addresses: Iterable[Address], deadline: float | None = None
    ) -> Iterator[tuple[Address, Host | RemoteRunnerError]]:
        """Connect to hosts in parallel and start their agents; yield each with its outcome as it comes, see `each`."""
        for address, outcome in each(addresses, self._open, self.fanout, deadline):
            if isinstance(outcome, Host):
                self.hosts[address.where] = outcome
            yield address, outcome

    def connect_machines(self, addresses: Iterable[Address]) -> dict[str, RemoteRunnerError]:
        """Connect to hosts, to each machine once for each user, under the first of its names; why others cannot be had.
        """
        failures: dict[str, RemoteRunnerError] = {}
        machines: dict[str, str] = {}
        for address, outcome in self.connect(addresses):
            if isinstance(outcome, RemoteRunnerError):
                failures[address.where] = outcome
                continue
            first = machines.setdefault(outcome.facts.identity, address.where)
            if first != address.where:
                log.info('%s is another name of %s', address.where, first)
                self.forget(address.where)
        return failures

    def serve(
        self, addresses: Iterable[Address], work: Callable[[Host], Result]
    ) -> Iterator[tuple[Address, Result | RemoteRunnerError]]:
        """Connect to hosts in parallel and do `work` on each as soon as it is there; yield as `each` does.

        Those that are connected already are taken as they are.
        """

        def connect_and_work(address: Address) -> Result:
            host = self.hosts.get(address.where)
            if host is None:
                host = self.hosts[address.where] = self._open(address)
            return work(host)

        return each(addresses, connect_and_work, self.fanout)

    def reconnect(self, address: Address) -> Host:
        """Connect again to a host whose connection broke.

        Raises:
            HostError: it is still out of reach.
        """
        self.hosts[address.where].close()
        host = self.hosts[address.where] = self._open(address)
        return host

    def forget(self, name: str) -> None:
        """Close the connection to a host that is not wanted any more, if there is one."""
        host = self.hosts.pop(name, None)
        if host is not None:
            host.close()

    def _open(self, address: Address) -> Host:
        host = connect(address, self._connector, self._listener)
        if self._closed.is_set():
            host.close()
            raise ConnectionLost('the command has ended', host=host.name)
        host.beat()  # from now on its agent misses us, however soon we are gone
        return host

    def each(
        self, work: Callable[[Host], Result], deadline: float | None = None
    ) -> Iterator[tuple[Host, Result | RemoteRunnerError]]:
        """Do `work` on all connected hosts in parallel, see `each`."""
        return each(list(dict.fromkeys(self.hosts.values())), work, self.fanout, deadline)

    def close(self) -> None:
        """Close all connections. Safe to call twice."""
        self._closed.set()
        for host in list(self.hosts.values()):
            host.dismiss()
            if not self._leave:
                host.close()

    def _beat(self) -> None:
        while not self._closed.wait(HEARTBEAT):
            for host in list(self.hosts.values()):
                host.beat()
