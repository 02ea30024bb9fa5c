"""Which host gets which task: free slots first, then what hosts have at hand, then what idle slots can do for others.

A turn costs as much as there is to give and to take, however many hosts and tasks there are: only hosts with room are
looked at, see `Book.free` and `Book.roomy`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from remote_runner.jobs.book import UNPROVEN, Book, Host, Live
from remote_runner.jobs.policy import Policy
from remote_runner.jobs.times import Times, Watch

#: Tasks that are looked through for one that may run on a host.
LOOKED_THROUGH = 20


class _Source(Protocol):
    """Where tasks for a host come from."""

    def __bool__(self) -> bool:
        """Whether there are any."""

    def take(self, host: Host) -> int | None:
        """The next one for this host, which is begun there now; None: there is none for this one."""


class Placement:
    """See above."""

    def __init__(self, book: Book, policy: Policy, times: Times) -> None:
        self._book = book
        self._policy = policy
        self._times = times
        #: Attempts whose hosts could not be told how long they may take.
        self._unlimited = Watch()
        #: Attempts that may be slow one day, and those of which there might be a second copy now.
        self._quick = Watch()
        self._slow: deque[Live] = deque()
        #: How many a slot has at hand, and how many tasks were done when that became more.
        self._ahead = self._done = 0
        self._next_start = 0.0
        self.is_closed = False
        self.copies = 0

    # ---- what is under way -------------------------------------------------------------------------------------

    def started(self, live: Live) -> None:
        """It was started."""
        if not live.is_limited:
            self._unlimited.add(live)
        if self._policy.duplicates:
            self._quick.add(live)

    def silent(self, host: Host) -> None:
        """Nothing is heard of a host: others may do what is under way there."""
        if self._policy.duplicates:
            self._slow.extend(host.attempts.values())

    def heard_of(self, host: Host) -> None:
        """A host is there again, with what is under way there."""
        for live in host.attempts.values():
            self.started(live)

    def is_alone(self, live: Live) -> None:
        """The other copy has failed."""
        if not self._policy.duplicates:
            return
        if live.host.is_silent:
            self._slow.append(live)
        else:
            self._quick.add(live)

    def late(self, now: float) -> list[Live]:
        """Attempts that took too long, where the host does not look at the clock itself."""
        if self._times.limit is None or not self._times.is_limit_known:
            return []
        return self._unlimited.take(self._times.limit, now)

    # ---- giving ------------------------------------------------------------------------------------------------

    def use_slots(self, now: float, done: int) -> None:
        """Order what can be begun now; so many tasks have succeeded."""
        self._find_ahead(done)
        self._give(_Queue(self._book), now)
        if self._book.waiting:
            return
        if self._book.jammed:
            self._give(_Queued(self._book), now)
        if self._policy.duplicates:
            self._copy(now)

    def _find_ahead(self, done: int) -> None:
        """More at hand makes room on all hosts: looked at after as many tasks as there are hosts.

        It becomes more little by little: the first tasks may be shorter than the others.
        """
        if self._times.ahead < self._ahead:
            self._ahead = self._times.ahead
        elif self._times.ahead > self._ahead and done - self._done >= len(self._book.hosts):
            self._ahead, self._done = min(self._times.ahead, max(UNPROVEN, 2 * self._ahead)), done
            self._book.roomy.update(dict.fromkeys(self._book.hosts.values()))

    def _give(self, source: _Source, now: float) -> None:
        if source:
            self._deal(source, self._book.free, _free, now)
        if source and self._ahead:
            self._deal(source, self._book.roomy, self._room, now)

    def _deal(self, source: _Source, hosts: OrderedDict[Host, None], room: Callable[[Host], int], now: float) -> int:
        """One task to each host in turn, while there are tasks and room for them; how many that were."""
        number = 0
        passed_over: list[Host] = []
        while hosts and source and not self._is_too_soon(now):
            host, _ = hosts.popitem(last=False)
            if not host.is_usable or room(host) <= 0:
                continue  # it comes back when that changes
            task = source.take(host)
            if task is None:
                passed_over.append(host)
                continue
            self._start(task, host, now)
            number += 1
            hosts[host] = None
        for host in passed_over:
            hosts[host] = None
        return number

    def _room(self, host: Host) -> int:
        return host.room(self._ahead)

    def _is_too_soon(self, now: float) -> bool:
        return self._policy.delay > 0 and now < self._next_start

    def _start(self, task: int, host: Host, now: float) -> None:
        live = self._book.begin(task, host, self._times.limit)
        live.is_limited = self._times.is_limit_known
        self._next_start = now + self._policy.delay

    # ---- second copies -----------------------------------------------------------------------------------------

    def _copy(self, now: float) -> None:
        """Run once more on idle slots: what nothing is heard of; near the end, what takes long."""
        if self.is_closed:
            self._slow.extend(self._quick.take(self._times.slow, now))
        if self._slow:
            source = _Slow(self._book, self._slow, self._is_wanted(now))
            self.copies += self._deal(source, self._book.free, _free, now)

    def _is_wanted(self, now: float) -> Callable[[Live], bool]:
        """Whether there may be a second copy of this one."""

        def is_wanted(live: Live) -> bool:
            if not live.is_live:
                return False
            others = self._book.tasks[live.task].live
            if live.host.is_silent:
                return all(other.host.is_silent for other in others.values())
            if len(others) > 1 or live.began is None:
                return False
            if self.is_closed and live.began + self._times.slow < now:
                return True
            self._quick.add(live)  # tasks take longer than we thought: not yet
            return False

        return is_wanted

    # ---- time --------------------------------------------------------------------------------------------------

    def next_times(self) -> list[float]:
        """When there may be something to do, if nothing happens before."""
        times = [self._next_start] if self._policy.delay else []
        if self._times.limit is not None and self._times.is_limit_known:
            times += _known(self._unlimited.next_time(self._times.limit))
        if self.is_closed and not self._book.waiting:
            times += _known(self._quick.next_time(self._times.slow))
        return times


def _known(time: float | None) -> list[float]:
    return [] if time is None else [time]


def _free(host: Host) -> int:
    return host.free


class _Queue:
    """Tasks that wait."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def __bool__(self) -> bool:
        return bool(self._book.again or self._book.waiting)

    def take(self, host: Host) -> int | None:
        """Where a task has failed it is not tried again while there is another host.

        Where the host may lack room or memory others come first: they show whether it does, or the task needs too much.
        """
        again = self._book.again
        if again and not (host.is_short and self._book.waiting):
            for place, task in enumerate(islice(again, LOOKED_THROUGH)):
                if self._book.may_run(task, host):
                    del again[place]
                    return task
        return self._book.waiting.popleft() if self._book.waiting else None


class _Queued:
    """Attempts that wait at hosts all slots of which are busy for long: they are begun elsewhere instead."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._queued = book.queued()
        self._next: list[Live] = []

    def __bool__(self) -> bool:
        return bool(self._next) or self._find(1)

    def take(self, host: Host) -> int | None:
        """It is not begun any more where it is, because it is begun here."""
        self._find(LOOKED_THROUGH)
        for place, live in enumerate(self._next):
            if self._book.may_run(live.task, host):
                del self._next[place]
                self._book.cancel(live, 'superseded')
                return live.task
        return None

    def _find(self, number: int) -> bool:
        self._next += islice(self._queued, number - len(self._next))
        return bool(self._next)


class _Slow:
    """Attempts that there is to be a second copy of."""

    def __init__(self, book: Book, slow: deque[Live], is_wanted: Callable[[Live], bool]) -> None:
        self._book = book
        self._slow = slow
        self._is_wanted = is_wanted

    def __bool__(self) -> bool:
        return bool(self._slow)

    def take(self, host: Host) -> int | None:
        place = 0
        while place < min(len(self._slow), LOOKED_THROUGH):
            live = self._slow[place]
            if not self._is_wanted(live):
                del self._slow[place]
                continue
            begun = self._book.tasks[live.task]
            if host.name not in begun.avoided and all(other.host is not host for other in begun.live.values()):
                del self._slow[place]
                return live.task
            place += 1
        return None
