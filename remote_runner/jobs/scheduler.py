"""Which attempt at which task runs where and when: all policy of jobs, and nothing else.

    scheduler = Scheduler(Policy(retries=2))
    scheduler.host_up('h1', slots=4)
    scheduler.add(0)
    for order in scheduler.orders(now): ...            # Start and Cancel, for an engine to carry out
    scheduler.started(0, 1, now)                       # facts, as the engine hears of them
    scheduler.ended(0, 1, Outcome(), now)
    scheduler.settled()                                # what became of tasks, to be delivered

It knows tasks by their numbers, talks to nobody, and reads no clock: time comes with each call, in seconds that never go
back. Whatever facts come in whatever order, a task is settled once. What comes of an attempt that does not count any more
is `superseded`, and changes nothing.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, deque
from collections.abc import Iterable
from typing import NamedTuple

from remote_runner.jobs.policy import Cause, Outcome, Policy

#: Different hosts on which a task is lost before it is given up.
POISONOUS = 3
#: Fast failures in a row after which a host is set aside, and how many seconds are fast.
STREAK, FAST = 5, 1.0
#: Seconds that a host is set aside: the first and the longest time.
ASIDE, LONGEST_ASIDE = 10.0, 600.0
#: Tasks that have to be done before their median says something.
FEW = 3
#: Seconds of work that a host has at hand, so that it need not wait for us between two tasks.
AHEAD = 0.05
#: Tasks that a slot has at hand at most.
MOST_AHEAD = 50
#: Seconds that a task must have run before a second copy of it is started.
LEAST_SLOW = 0.2
#: Tasks that succeeded of which the times are known: the last ones.
SAMPLE = 1000
#: Tasks that are looked through for one that may run on a host.
LOOKED_THROUGH = 20


class Start(NamedTuple):
    """Begin an attempt on a host; `timeout`: seconds that it may take, where that is known by now."""

    task: int
    attempt: int
    host: str
    timeout: float | None = None


class Cancel(NamedTuple):
    """End an attempt; nothing of it counts any more. `why`: `superseded`, `timeout` or `cancelled`."""

    task: int
    attempt: int
    host: str
    why: str


Order = Start | Cancel


class Settled(NamedTuple):
    """What finally became of a task: the attempt that counts, or the last one, and its outcome."""

    task: int
    attempt: int
    outcome: Outcome


class _Attempt:
    """An attempt that was ordered, and of whose end nothing is known."""

    __slots__ = ('began', 'host', 'number', 'task')

    def __init__(self, task: int, number: int, host: _Host) -> None:
        self.task = task
        self.number = number
        self.host = host
        #: When it was started there; None while it waits for a slot.
        self.began: float | None = None


class _Task:
    """A task that was begun and is not settled."""

    __slots__ = ('attempts', 'avoided', 'failures', 'live', 'lost_on')

    def __init__(self) -> None:
        self.attempts = 0
        #: Those under way, by number.
        self.live: dict[int, _Attempt] = {}
        self.failures: Counter[Cause] = Counter()
        #: Hosts on which it failed or was lost: others are tried first.
        self.avoided: set[str] = set()
        self.lost_on: set[str] = set()


class _Host:
    """A host, and what it was told to do."""

    __slots__ = ('aside_until', 'attempts', 'done', 'is_tried', 'is_up', 'name', 'pause', 'slots', 'streak')

    def __init__(self, name: str) -> None:
        self.name = name
        self.slots = 0
        self.is_up = False
        self.attempts: dict[tuple[int, int], _Attempt] = {}
        self.done = 0
        #: Tasks that failed fast here since the last one that succeeded, and why.
        self.streak: list[tuple[int, Cause]] = []
        #: When it is tried again; None: it is not set aside.
        self.aside_until: float | None = None
        #: Whether it was set aside, and gets one task to show whether it can do it now.
        self.is_tried = False
        self.pause = ASIDE


class _Times:
    """Seconds that tasks took which succeeded: the last ones of them, sorted."""

    def __init__(self) -> None:
        self._last: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        """One more."""
        self._last.append(seconds)
        insort(self._sorted, seconds)
        if len(self._last) > SAMPLE:
            del self._sorted[bisect_left(self._sorted, self._last.popleft())]

    @property
    def median(self) -> float | None:
        """None while there are too few."""
        return self._sorted[len(self._sorted) // 2] if len(self._sorted) >= FEW else None


class Scheduler:
    """See above. Not thread-safe: one thread uses it."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self._hosts: dict[str, _Host] = {}
        #: Tasks that were not begun; those that are tried again come before them.
        self._waiting: deque[int] = deque()
        self._again: deque[int] = deque()
        self._tasks: dict[int, _Task] = {}
        self._settled: list[Settled] = []
        self._orders: list[Order] = []
        #: Attempts without a time limit, because the median was not known when they were ordered.
        self._unlimited: dict[tuple[int, int], _Attempt] = {}
        self._times = _Times()
        self._next_start = 0.0
        self._is_closed = self._is_paused = self._is_halted = False
        self.done = self.failed = 0

    # ---- what is to be done ------------------------------------------------------------------------------------

    def add(self, task: int) -> None:
        """One more task, of a number that there was not before."""
        if self._is_halted:
            self._settle(task, 0, Outcome(Cause.CANCELLED))
        else:
            self._waiting.append(task)

    def close(self) -> None:
        """No further task comes."""
        self._is_closed = True

    @property
    def is_over(self) -> bool:
        """Whether all tasks are settled, and none comes any more."""
        return self._is_closed and not self.unsettled

    @property
    def unsettled(self) -> int:
        """How many tasks are not settled."""
        return len(self._waiting) + len(self._tasks)

    def pause(self) -> None:
        """Begin nothing more; what runs goes on."""
        self._is_paused = True

    def resume(self) -> None:
        """Go on."""
        self._is_paused = False

    def cancel(self, *, now_running: bool = True) -> None:
        """Settle what is not begun, and (`now_running`) what is, as cancelled."""
        self._is_halted = True
        for task in self._waiting:
            self._settle(task, 0, Outcome(Cause.CANCELLED))
        self._waiting.clear()
        idle = [task for task in self._again if not self._tasks[task].live]
        self._again.clear()
        for task in idle:
            self._settle(task, self._tasks[task].attempts, Outcome(Cause.CANCELLED))
        if now_running:
            for task in list(self._tasks):
                self._settle(task, self._tasks[task].attempts, Outcome(Cause.CANCELLED), 'cancelled')

    # ---- facts -------------------------------------------------------------------------------------------------

    def host_up(self, name: str, slots: int) -> None:
        """A host is there, or has so many slots from now on."""
        host = self._hosts.setdefault(name, _Host(name))
        host.slots, host.is_up = slots, True

    def host_down(self, name: str, now: float, why: str = '') -> None:
        """A host is gone, with all that was under way there."""
        host = self._hosts.get(name)
        if host is None:
            return
        host.is_up = False
        for attempt in list(host.attempts.values()):
            self.ended(attempt.task, attempt.number, Outcome(Cause.LOST, why=why), now)

    def started(self, task: int, attempt: int, now: float) -> None:
        """An attempt was started."""
        found = self._attempt(task, attempt)
        if found is not None and found.began is None:
            found.began = now

    def ended(self, task: int, attempt: int, outcome: Outcome, now: float) -> bool:
        """An attempt has ended, or was lost. Whether it counts: else it was superseded."""
        found = self._attempt(task, attempt)
        if found is None:
            return False
        self._forget(found)
        took = 0.0 if found.began is None else max(0.0, now - found.began)
        if outcome.cause is None:
            self._has_succeeded(found.host)
            self._times.add(took)
            self._settle(task, attempt, outcome)
        else:
            self._has_failed(found, outcome, took, now)
        return True

    def _attempt(self, task: int, attempt: int) -> _Attempt | None:
        known = self._tasks.get(task)
        return None if known is None else known.live.get(attempt)

    def _forget(self, attempt: _Attempt) -> None:
        key = attempt.task, attempt.number
        self._tasks[attempt.task].live.pop(attempt.number, None)
        attempt.host.attempts.pop(key, None)
        self._unlimited.pop(key, None)

    def _has_failed(self, attempt: _Attempt, outcome: Outcome, took: float, now: float) -> None:
        task, host, cause = self._tasks[attempt.task], attempt.host, outcome.cause
        assert cause is not None  # noqa: S101 - for the type checker
        task.avoided.add(host.name)
        if cause is Cause.CANCELLED:
            self._settle(attempt.task, attempt.number, outcome)
            return
        if cause is Cause.LOST:
            task.lost_on.add(host.name)
            if len(task.lost_on) >= POISONOUS:
                self._settle(attempt.task, attempt.number, outcome._replace(cause=Cause.POISON))
                return
        else:
            task.failures[cause] += 1
            if took < FAST:
                host.streak.append((attempt.task, cause))
                self._maybe_set_aside(host, now)
        if task.live:
            return  # another copy of it is under way
        is_spent = cause is not Cause.LOST and task.failures[cause] > self.policy.retries
        if is_spent or (cause is not Cause.LOST and not self.policy.allows(outcome)) or self._is_halted:
            self._settle(attempt.task, attempt.number, outcome)
        else:
            self._again.append(attempt.task)

    def _has_succeeded(self, host: _Host) -> None:
        host.done += 1
        host.streak.clear()
        host.is_tried = False
        host.pause = ASIDE

    def _maybe_set_aside(self, host: _Host, now: float) -> None:
        """Everything fails at once on a host while it does not elsewhere: that is no fault of the tasks."""
        others = (other for other in self._hosts.values() if other is not host and other.is_up)
        if not host.is_tried and len(host.streak) < STREAK:
            return
        if not any(other.done and len(other.streak) < STREAK for other in others):
            return
        for task, cause in host.streak:
            if task in self._tasks:
                self._tasks[task].failures[cause] -= 1
        host.streak.clear()
        host.aside_until, host.pause = now + host.pause, min(2 * host.pause, LONGEST_ASIDE)
        host.is_tried = False
        for attempt in [attempt for attempt in host.attempts.values() if attempt.began is None]:
            self._withdraw(attempt)

    def _withdraw(self, attempt: _Attempt) -> None:
        """It is not begun yet, and is to be begun elsewhere."""
        self._forget(attempt)
        self._orders.append(Cancel(attempt.task, attempt.number, attempt.host.name, 'superseded'))
        if not self._tasks[attempt.task].live:
            self._again.appendleft(attempt.task)

    def _settle(self, task: int, attempt: int, outcome: Outcome, why: str = 'superseded') -> None:
        """It is decided; what else is under way for it is ended."""
        known = self._tasks.get(task)
        if known is not None:
            for other in list(known.live.values()):
                self._forget(other)
                self._orders.append(Cancel(task, other.number, other.host.name, why))
            del self._tasks[task]
        self._settled.append(Settled(task, attempt, outcome))
        if outcome.cause is None:
            self.done += 1
        elif outcome.cause is not Cause.CANCELLED:
            self.failed += 1
            self._maybe_halt()

    def _maybe_halt(self) -> None:
        halt = self.policy.halt
        if halt is None or self._is_halted:
            return
        least = halt.at if halt.at >= 1 else max(FEW, halt.at * (self.done + self.failed))
        if self.failed >= least:
            self.cancel(now_running=halt.now)

    # ---- orders ------------------------------------------------------------------------------------------------

    def settled(self) -> list[Settled]:
        """What was decided since this was asked last."""
        found, self._settled = self._settled, []
        return found

    def orders(self, now: float) -> list[Order]:
        """What is to be done now."""
        self._end_what_takes_too_long(now)
        if not self._is_paused and not self._is_halted:
            self._use_slots(now)
        found, self._orders = self._orders, []
        return found

    def _end_what_takes_too_long(self, now: float) -> None:
        limit = self._limit()
        if limit is None:
            return
        late = [one for one in self._unlimited.values() if one.began is not None and now - one.began > limit]
        for attempt in late:
            self._orders.append(Cancel(attempt.task, attempt.number, attempt.host.name, 'timeout'))
            self.ended(attempt.task, attempt.number, Outcome(Cause.TIMEOUT), now)

    def _limit(self) -> float | None:
        """Seconds that an attempt may take, as far as that is known by now."""
        share, median = self.policy.timeout_share, self._times.median
        limits = [self.policy.timeout, share * median if share is not None and median is not None else None]
        return min((limit for limit in limits if limit is not None), default=None)

    def _use_slots(self, now: float) -> None:
        free = deque(host for host in self._hosts.values() if len(host.attempts) < self._capacity(host, now))
        while free and (self._again or self._waiting):
            if self.policy.delay and now < self._next_start:
                return
            host = free.popleft()
            task = self._task_for(host, now)
            if task is None:
                continue
            self._start(task, host, now)
            if len(host.attempts) < self._capacity(host, now):
                free.append(host)
        if not self._again and not self._waiting:
            self._use_idle_slots(now)

    def _capacity(self, host: _Host, now: float) -> int:
        """How many attempts a host may be told of: as many as it has slots, and more of those that take no time."""
        if not host.is_up:
            return 0
        if host.aside_until is not None:
            if now < host.aside_until:
                return 0
            host.aside_until, host.is_tried = None, True
        if host.is_tried:
            return 1
        median = self._times.median
        ahead = 0 if median is None else min(MOST_AHEAD, int(AHEAD / max(median, 1e-6)))
        return host.slots * (1 + ahead)

    def _task_for(self, host: _Host, now: float) -> int | None:
        """The next task that may run there. Where one has failed it is not tried again while there is another host."""
        for place, task in enumerate(self._again):
            if place >= LOOKED_THROUGH:
                break
            avoided = self._tasks[task].avoided
            if host.name not in avoided or all(
                name in avoided for name, other in self._hosts.items() if self._capacity(other, now)
            ):
                del self._again[place]
                return task
        return self._waiting.popleft() if self._waiting else None

    def _start(self, task: int, host: _Host, now: float) -> None:
        known = self._tasks.setdefault(task, _Task())
        known.attempts += 1
        attempt = known.live[known.attempts] = _Attempt(task, known.attempts, host)
        host.attempts[task, attempt.number] = attempt
        limit = self._limit()
        if self.policy.timeout_share is not None and self._times.median is None:
            self._unlimited[task, attempt.number] = attempt
        self._orders.append(Start(task, attempt.number, host.name, limit))
        self._next_start = now + self.policy.delay

    def _use_idle_slots(self, now: float) -> None:
        """Nothing waits: what waits at a host is begun at another one; and what takes long, once more."""
        hosts = self._hosts.values()
        idle = [host for host in hosts if len(host.attempts) < min(host.slots, self._capacity(host, now))]
        if not idle:
            return
        queued = (attempt for host in hosts if len(host.attempts) > host.slots for attempt in host.attempts.values())
        for attempt in [attempt for attempt in queued if attempt.began is None and attempt.host not in idle]:
            self._withdraw(attempt)
        if self._again:
            self._use_slots(now)
        elif self.policy.duplicates and self._is_closed:
            self._start_copies(idle, now)

    def _start_copies(self, idle: Iterable[_Host], now: float) -> None:
        alone = [next(iter(task.live.values())) for task in self._tasks.values() if len(task.live) == 1]
        slow = [one for one in alone if one.began is not None and now - one.began >= self._slow()]
        slow.sort(key=lambda attempt: attempt.began or 0.0, reverse=True)
        for host in idle:
            for _ in range(host.slots - len(host.attempts)):
                place = next((n for n, a in reversed(list(enumerate(slow))) if self._may_copy(a, host)), None)
                if place is None:
                    break
                self._start(slow.pop(place).task, host, now)

    def _may_copy(self, attempt: _Attempt, host: _Host) -> bool:
        return attempt.host is not host and host.name not in self._tasks[attempt.task].avoided

    def _slow(self) -> float:
        """Seconds after which a task is slow."""
        return max(LEAST_SLOW, self._times.median or 0.0)

    def next_time(self, now: float) -> float | None:
        """When there may be more orders, if nothing happens before; None: not before something does."""
        times = [host.aside_until for host in self._hosts.values() if host.is_up and host.aside_until is not None]
        if self.policy.delay and (self._again or self._waiting) and self._next_start > now:
            times.append(self._next_start)
        limit = self._limit()
        if limit is not None:
            times += [one.began + limit for one in self._unlimited.values() if one.began is not None]
        if self.policy.duplicates and self._is_closed and not self._again and not self._waiting:
            alone = (one for task in self._tasks.values() if len(task.live) == 1 for one in task.live.values())
            times += [one.began + self._slow() for one in alone if one.began is not None]
        return min((time for time in times if time > now), default=None)
