"""The engine for hosts that are reached by SSH: nothing has to be installed there.

Each host has a `Link` to a dispatcher of the job (`agent/dispatcher.py`), which outlives the connection for a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from remote_runner.defaults import FANOUT
from remote_runner.hosts.address import Address
from remote_runner.hosts.call import INTERRUPTIBLE
from remote_runner.hosts.host import Host
from remote_runner.hosts.pool import Opens
from remote_runner.jobs.engines.base import Attempt, Ended, Fact, HostUp, Key, Links, nothing
from remote_runner.jobs.engines.link import FAREWELL, LAST_TRY, Link, Terms
from remote_runner.jobs.policy import Cause, Outcome
from remote_runner.wire import frames

_STDOUT = {'stdout': 'stdout'}
#: Bytes of commands and inputs that travel in one frame, unless one task alone has more.
TOGETHER = 4 << 20


class _Order:
    """Attempts that one host is told to begin, in one frame."""

    def __init__(self) -> None:
        self.items: list[list[object]] = []
        self.bodies: list[bytes] = []
        self.size = 0


class SshEngine:
    """See `base.Engine`. A context manager; what was not let go of by `close` goes on until its lease ends.

    Args:
        addresses: the hosts, with their slots; where these are not said, as many as the host has cores.
        connector: makes connections.
        terms: what dispatchers are told of the job.
        prepare: brings what tasks need to a host, before the first of them; what is to stand in working folders.
        fanout: hosts that are connected to at the same time.
        most_load: the load per core above which nothing is begun: hosts report theirs; None: they need not.
    """

    caps = frozenset(['stage', 'cancel', 'reattach', 'load'])

    def __init__(
        self,
        addresses: Iterable[Address],
        connector: Opens,
        terms: Terms,
        prepare: Callable[[Host], Links] = nothing,
        fanout: int = FANOUT,
        most_load: float | None = None,
    ) -> None:
        self._prepare = prepare
        self.most_load = most_load
        self.connecting: AbstractContextManager[object] = threading.BoundedSemaphore(fanout)
        self._changed = threading.Condition()
        self._facts: list[Fact] = []
        self._is_woken = False
        self._failure: BaseException | None = None
        #: Bytes that belong to facts which `poll` has not given out, and to those that it gave out last.
        self._arrived: dict[Link, int] = {}
        self._given: dict[Link, int] = {}
        self._machines: dict[str, Link] = {}
        self._links = {address.where: Link(address, connector, terms, self) for address in addresses}

    def open(self) -> None:
        """Connect to all hosts, in the background."""
        for link in self._links.values():
            link.begin()

    @property
    def hosts(self) -> list[str]:
        """Their names, as the user wrote them."""
        return list(self._links)

    def submit(self, attempts: Sequence[Attempt]) -> None:
        """See `base.Engine`."""
        by_host: dict[str, _Order] = {}
        for attempt in attempts:
            number, go, host, task, position, timeout = attempt
            results = None if task.results == _STDOUT else dict(task.results)
            inputs = [[name, len(content)] for name, content in task.inputs.items()]
            size = sum(map(len, task.inputs.values())) if inputs else 0
            if size > frames.MAX_BODY:
                self._refuse(attempt, f'its inputs have {size} bytes; {frames.MAX_BODY} are the most')
                continue
            order = by_host.get(host)
            if order is None:
                order = by_host[host] = _Order()
            elif order.size + size > TOGETHER:
                self._links[host].send({'start': order.items}, b''.join(order.bodies))
                order = by_host[host] = _Order()
            order.items.append([number, go, position, task.command, timeout or 0, results, inputs])
            order.bodies.extend(task.inputs.values())
            order.size += size + len(task.command)
        for host, order in by_host.items():
            self._links[host].send({'start': order.items}, b''.join(order.bodies))

    def _refuse(self, attempt: Attempt, why: str) -> None:
        outcome = Outcome(Cause.RESOURCES, None, why)
        with self._changed:
            self._facts.append(Ended(attempt.number, attempt.attempt, attempt.host, 0, outcome, time.time(), 0.0))

    def cancel(self, keys: Iterable[tuple[str, Key]]) -> None:
        """See `base.Engine`."""
        by_host: dict[str, list[Key]] = {}
        for host, key in keys:
            by_host.setdefault(host, []).append(key)
        for host, cancelled in by_host.items():
            if host in self._links:
                self._links[host].send({'cancel': cancelled})

    def taken(self, ended: Iterable[tuple[str, Key, bool]]) -> None:
        """See `base.Engine`."""
        by_host: dict[str, list[tuple[int, int, bool]]] = {}
        for host, (number, go), keep in ended:
            by_host.setdefault(host, []).append((number, go, keep))
        for host, items in by_host.items():
            self._links[host].send({'taken': items})

    def poll(self, timeout: float | None) -> list[Fact]:
        """See `base.Engine`.

        Raises:
            OSError: what came could not be stored here.
        """
        for link, size in self._given.items():
            link.give_credit(size)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not (self._facts or self._is_woken or self._failure is not None):
                left = INTERRUPTIBLE if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, INTERRUPTIBLE))
            if self._failure is not None:
                raise self._failure
            facts, self._facts = self._facts, []
            self._given, self._arrived = self._arrived, {}
            self._is_woken = False
        for fact in facts:
            if isinstance(fact, HostUp):
                self._links[fact.host].admit()
        return facts

    def wake(self) -> None:
        """See `base.Engine`."""
        with self._changed:
            self._is_woken = True
            self._changed.notify()

    def close(self, mode: str) -> None:
        """See `base.Engine`; waits for it, but not for ever."""
        for link in self._links.values():
            link.close(mode)
        began = time.monotonic()
        for link in self._links.values():
            patience = FAREWELL + 1.0 if link.is_up else LAST_TRY
            link.join(max(0.0, began + patience - time.monotonic()))

    # ---- for links, from their threads -------------------------------------------------------------------------

    def prepare(self, host: Host) -> Links:
        """Bring what tasks need to a host."""
        return self._prepare(host)

    def is_first(self, host: Host, link: Link) -> bool:
        """Whether no other link leads to the same machine and user."""
        with self._changed:
            return self._machines.setdefault(host.facts.identity, link) is link

    def report(self, link: Link, facts: list[Fact], size: int) -> None:
        """What a host says, and how many bytes that were."""
        with self._changed:
            self._facts += facts
            if size:
                self._arrived[link] = self._arrived.get(link, 0) + size
            if facts:
                self._changed.notify()

    def fail(self, error: BaseException) -> None:
        """The job cannot go on."""
        with self._changed:
            self._failure = error
            self._changed.notify()
