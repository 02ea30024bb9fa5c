"""Counts what becomes of tasks and of the hosts' time, while it happens: for the terminal, `--json` and pages.

    statistics = Statistics()
    statistics.expect(1000)
    statistics.ordered(scheduler.orders(now))
    statistics.hear(fact, counted=True)             # whether it changed anything for its task
    statistics.settled(number, outcome)
    statistics.view()                               # from any thread

It decides nothing. Each call takes a few microseconds; a `view` as long as there are hosts and attempts under way.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from heapq import heappush, heapreplace, nlargest
from typing import Any

from remote_runner.jobs.engines.base import Ended, Fact, HostDown, HostLoad, HostSilent, HostUp, Key, Started
from remote_runner.jobs.formats import size_of
from remote_runner.jobs.policy import Cause, Outcome
from remote_runner.jobs.scheduler import Cancel, Order, Start
from remote_runner.jobs.views import Copies, Failure, HostView, Slow, State, View, told

#: Tasks that are named as slowest, of those that run and of those that are done.
SLOWEST = 5
#: Failed tasks that are named.
MOST_FAILURES = 1000
#: Seconds over which the rate lately is taken, and how many tasks must have ended in them to say something.
LATELY, FEW = 10, 10


class _Host:
    """A host, as counted so far."""

    __slots__ = (
        'busy',
        'bytes',
        'done',
        'failed',
        'live',
        'lost',
        'name',
        'slots',
        'state',
        'superseded',
        'up_seconds',
        'up_since',
        'why',
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.slots = self.done = self.failed = self.lost = self.superseded = self.bytes = 0
        self.busy = self.up_seconds = 0.0
        self.up_since: float | None = None
        self.state = State.DOWN
        self.why = ''
        #: Attempts that it was told of, and when they began; None: they wait, or are too short to be told of.
        self.live: dict[Key, float | None] = {}

    def down(self, now: float) -> None:
        """It is not up any more."""
        if self.up_since is not None:
            self.up_seconds += now - self.up_since
            self.up_since = None

    def view(self, now: float) -> HostView:
        """All of it."""
        begun = [began for began in self.live.values() if began is not None]
        busy = self.busy + sum(now - began for began in begun)
        there = self.slots * (self.up_seconds + (0.0 if self.up_since is None else now - self.up_since))
        return HostView(
            name=self.name,
            slots=self.slots,
            state=self.state,
            why=self.why,
            running=max(min(self.slots, len(self.live)), len(begun)),
            done=self.done,
            failed=self.failed,
            lost=self.lost,
            superseded=self.superseded,
            busy=busy,
            share=min(1.0, busy / there) if there > 0 else 0.0,
            bytes=self.bytes,
        )


class Statistics:
    """See above. Thread-safe.

    Args:
        position: the position of a task by its number: users know tasks by that.
        clock: seconds that never go back.
    """

    def __init__(
        self, position: Callable[[int], int] = lambda number: number, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._position = position
        self._clock = clock
        self._lock = threading.RLock()
        self._begun = clock()
        self._total = self._done = self._cancelled = self._ended = 0
        self._retried = self._superseded = self._lost = 0
        self._is_all = False
        self._failed: Counter[Cause] = Counter()
        self._hosts: dict[str, _Host] = {}
        #: The host of each attempt that is under way.
        self._where: dict[Key, _Host] = {}
        #: Second copies among them.
        self._copies: set[Key] = set()
        self._begun_copies = self._won_copies = 0
        self._saved = 0.0
        #: What went wrong last with tasks that are not settled.
        self._trouble: dict[int, Failure] = {}
        self._failures: list[Failure] = []
        self._slow_done: list[tuple[float, int, str]] = []
        #: How many tasks have ended in each of the last seconds.
        self._lately: deque[list[int]] = deque()

    # ---- what is fed --------------------------------------------------------------------------------------------

    def expect(self, total: int, *, is_all: bool = True, hosts: Iterable[str] = ()) -> None:
        """So many tasks are known by now.

        Args:
            total: how many.
            is_all: whether no more come.
            hosts: that shall be there, to be listed before they are.
        """
        with self._lock:
            self._total, self._is_all = total, is_all
            for name in hosts:
                self._host(name)

    def resumed(self, done: int, failed: Mapping[Cause, int]) -> None:
        """So many tasks had been settled before we began; they make us no faster."""
        with self._lock:
            self._done += done
            for cause, count in failed.items():
                if cause is Cause.CANCELLED:
                    self._cancelled += count
                else:
                    self._failed[cause] += count

    def ordered(self, orders: Iterable[Order]) -> None:
        """This is to be begun, and ended, now. What goes on after a resume is told as a `Start`, too."""
        with self._lock:
            for order in orders:
                key = order.task, order.attempt
                if isinstance(order, Start):
                    self._start(key, order.host)
                elif isinstance(order, Cancel):
                    self._end_early(key, order.why)

    def hear(self, fact: Fact, *, counted: bool = True) -> None:
        """A fact of an engine; `counted`: whether the scheduler took it for one about an attempt that counts."""
        with self._lock:
            if isinstance(fact, Ended):
                self._end(fact, counted)
            elif isinstance(fact, Started):
                key = fact.number, fact.attempt
                if counted and key in self._where:
                    self._where[key].live[key] = self._clock() - fact.ago
            else:
                self._hear_of_host(fact)

    def settled(self, number: int, outcome: Outcome) -> None:
        """So a task has ended for good."""
        with self._lock:
            trouble = self._trouble.pop(number, None)
            if outcome.cause is Cause.CANCELLED:
                self._cancelled += 1
                return
            self._ended += 1
            second = int(self._clock())
            if self._lately and self._lately[-1][0] == second:
                self._lately[-1][1] += 1
            else:
                self._lately.append([second, 1])
                while self._lately[0][0] < second - LATELY:
                    self._lately.popleft()
            if outcome.cause is None:
                self._done += 1
                return
            self._failed[outcome.cause] += 1
            if len(self._failures) < MOST_FAILURES:
                known = trouble or Failure(number, outcome.cause, '', None, '', '')
                self._failures.append(
                    known._replace(cause=outcome.cause, status=outcome.status, why=outcome.why or known.why)
                )

    def saved(self, seconds: float) -> None:
        """A second copy has ended so much earlier than the first one would have."""
        with self._lock:
            self._saved += seconds

    # ---- what is told -------------------------------------------------------------------------------------------

    def view(self) -> View:
        """All numbers now."""
        with self._lock:
            now = self._clock()
            hosts = [host.view(now) for host in self._hosts.values()]
            rate, mean = self._rates(now)
            rest = self._total - self._done - self._cancelled - sum(self._failed.values())
            running = (
                (now - began, key[0], host.name)
                for host in self._hosts.values()
                for key, began in host.live.items()
                if began is not None
            )
            return View(
                seconds=now - self._begun,
                total=self._total,
                is_all=self._is_all,
                done=self._done,
                failed={cause: count for cause, count in self._failed.items() if count},
                cancelled=self._cancelled,
                running=sum(host.running for host in hosts),
                retried=self._retried,
                superseded=self._superseded,
                lost=self._lost,
                rate=rate,
                mean_rate=mean,
                left=rest / (rate or mean) if self._is_all and (rate or mean) else None,
                bytes=sum(host.bytes for host in hosts),
                hosts=hosts,
                slow_running=[self._slow(*one) for one in nlargest(SLOWEST, running)],
                slow_done=[self._slow(*one) for one in sorted(self._slow_done, reverse=True)],
                failures=[one._replace(position=self._position(one.position)) for one in self._failures],
                copies=Copies(self._begun_copies, self._won_copies, self._saved),
            )

    def to_dict(self) -> dict[str, Any]:
        """All numbers now, for JSON: the fields are explained in docs/job-results.md."""
        return told(self.view())

    def _slow(self, seconds: float, number: int, host: str) -> Slow:
        return Slow(self._position(number), host, seconds)

    def _rates(self, now: float) -> tuple[float, float]:
        """Tasks a second lately, 0 where few have ended lately, and in all."""
        taken = now - self._begun
        mean = self._ended / taken if taken > 0 else 0.0
        whole = [count for second, count in self._lately if now - LATELY <= second]
        over = min(taken, float(LATELY))
        return (sum(whole) / over if sum(whole) >= FEW and over > 0 else 0.0), mean

    # ---- attempts and hosts --------------------------------------------------------------------------------------

    def _host(self, name: str) -> _Host:
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host(name)
        return host

    def _start(self, key: Key, name: str) -> None:
        host = self._where[key] = self._host(name)
        host.live[key] = None
        number, attempt = key
        if attempt == 1:
            return
        if any((number, other) in self._where for other in range(1, attempt)):
            self._copies.add(key)
            self._begun_copies += 1
        elif number in self._trouble:
            self._retried += 1

    def _end_early(self, key: Key, why: str) -> None:
        """It is ended by us, and nothing will be heard of it."""
        host = self._where.pop(key, None)
        if host is None:
            return
        began = host.live.pop(key)
        self._copies.discard(key)
        if began is not None:
            host.busy += self._clock() - began
        if why == 'timeout':
            host.failed += 1
            self._trouble[key[0]] = Failure(key[0], Cause.TIMEOUT, host.name, None, '', '')
        elif why == 'superseded' and began is not None:
            host.superseded += 1
            self._superseded += 1

    def _end(self, fact: Ended, counted: bool) -> None:
        number, cause = fact.number, fact.outcome.cause
        key = number, fact.attempt
        host = self._where.pop(key, None) or self._host(fact.host)
        host.live.pop(key, None)
        host.busy += fact.seconds
        is_copy = key in self._copies
        self._copies.discard(key)
        for data in fact.results.values():
            host.bytes += size_of(data)
        if not counted:
            host.superseded += 1
            self._superseded += 1
        elif cause is None:
            host.done += 1
            self._won_copies += is_copy
            slow = (fact.seconds, number, host.name)
            if len(self._slow_done) < SLOWEST:
                heappush(self._slow_done, slow)
            elif slow > self._slow_done[0]:
                heapreplace(self._slow_done, slow)
        elif cause is not Cause.CANCELLED:
            if cause is Cause.LOST:
                host.lost += 1
                self._lost += 1
            else:
                host.failed += 1
            outcome = fact.outcome
            self._trouble[number] = Failure(number, cause, host.name, outcome.status, outcome.why, last_line(fact.tail))

    def _hear_of_host(self, fact: HostUp | HostSilent | HostDown | HostLoad) -> None:
        host, now = self._host(fact.host), self._clock()
        if isinstance(fact, HostUp):
            host.slots, host.state, host.why = fact.slots, State.UP, ''
            if host.up_since is None:
                host.up_since = now
            self._lose(host, [key for key in host.live if key not in fact.have], 'its dispatcher was gone', now)
            return
        if isinstance(fact, HostLoad):
            host.why = f'load {fact.load:.2f} a core, above {fact.most:g}' if fact.is_above else ''
            return
        host.why = fact.why
        if isinstance(fact, HostSilent):
            host.state = State.SILENT
            return
        host.down(now)
        host.state = State.GONE if fact.is_final else State.DOWN
        self._lose(host, list(host.live), fact.why, now)

    def _lose(self, host: _Host, keys: list[Key], why: str, now: float) -> None:
        """Attempts are lost with their host, or with what ran them there."""
        for key in keys:
            began = host.live.pop(key)
            self._where.pop(key, None)
            self._copies.discard(key)
            host.busy += 0.0 if began is None else now - began
            self._trouble[key[0]] = Failure(key[0], Cause.LOST, host.name, None, why, '')
        host.lost += len(keys)
        self._lost += len(keys)


def last_line(text: str) -> str:
    """The last line of what was printed that is not empty."""
    return text.rstrip().rpartition('\n')[2]
