"""What the scheduler remembers: tasks that were begun, attempts under way, hosts, and the orders that are to be given.

No policy is here. What is written down is written in one place each, so that counts and lists never disagree.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from remote_runner.jobs.policy import Cause, Outcome

#: Different hosts on which a task is lost before it is given up.
POISONOUS = 3
#: Times that it is lost before that, on however few hosts.
LOSSES = 12
#: Tasks that a slot has at hand at most at first, and while its host has done nothing yet.
UNPROVEN = 4


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


class Live:
    """An attempt that was ordered, and of whose end nothing is known."""

    __slots__ = ('began', 'host', 'is_copy', 'is_inherited', 'is_limited', 'is_live', 'number', 'task')

    def __init__(self, task: int, number: int, host: Host, *, is_copy: bool = False) -> None:
        self.task = task
        self.number = number
        self.host = host
        #: When it was started there; None: it waits for a slot, has just begun, or is too short to be told of.
        self.began: float | None = None
        #: Whether another attempt was under way when it was ordered.
        self.is_copy = is_copy
        #: Whether its host knows how long it may take.
        self.is_limited = True
        #: Whether another master ordered it, and its host has not said yet whether it knows it.
        self.is_inherited = False
        #: Until it is forgotten.
        self.is_live = True


class Aside(NamedTuple):
    """A host is set aside for so many seconds, and then tried again. `why`: what is wrong with it."""

    host: str
    seconds: float
    why: str


class Begun:
    """A task that was begun and is not settled."""

    __slots__ = ('attempts', 'avoided', 'failures', 'is_retried', 'live', 'lost_on')

    def __init__(self) -> None:
        self.attempts = 0
        #: Those under way, by number.
        self.live: dict[int, Live] = {}
        self.failures: dict[Cause, int] = {}
        #: Hosts on which it failed or was lost: others are tried first.
        self.avoided: set[str] = set()
        self.lost_on: set[str] = set()
        self.is_retried = False

    @property
    def is_suspect(self) -> bool:
        """Whether it is poison when it is lost on one more host."""
        return len(self.lost_on) >= POISONOUS - 1


class Host:
    """A host, and what it was told to do. It may be known by its name before it is there."""

    __slots__ = (
        'aside_until', 'attempts', 'begun', 'beside', 'done', 'is_loaded', 'is_silent', 'is_tried', 'is_up', 'load',
        'name', 'pause', 'short', 'shortages', 'slots', 'streak', 'why_aside',
    )  # fmt: skip

    def __init__(self, name: str, pause: float) -> None:
        self.name = name
        self.slots = 0
        #: Whether it can be told what to do.
        self.is_up = False
        #: Whether the connection is being made anew: what is under way there may go on.
        self.is_silent = False
        #: In the order in which it was told of them.
        self.attempts: dict[tuple[int, int], Live] = {}
        #: How many of them are known to have been started.
        self.begun = 0
        self.done = 0
        #: Tasks that failed fast here in a row, and why.
        self.streak: list[tuple[int, Cause]] = []
        #: Tasks for which it had no room or memory, since one succeeded here, as far as that counts; and how often it
        #: was set aside for it.
        self.short: list[int] = []
        self.shortages = 0
        #: When it is tried again; None: it is not set aside. And why it was the last time.
        self.aside_until: float | None = None
        self.why_aside = ''
        #: Whether it was set aside, and gets one task to show whether it can do it now.
        self.is_tried = False
        #: What had been under way here when that began.
        self.beside: frozenset[tuple[int, int]] = frozenset()
        #: Seconds for which it is set aside the next time.
        self.pause = pause
        #: The load per core that it reported last; None: nobody knows.
        self.load: float | None = None
        #: Whether that, or not to know it, keeps tasks away.
        self.is_loaded = False

    @property
    def is_usable(self) -> bool:
        """Whether it may be given something."""
        return self.is_up and self.slots > 0 and self.aside_until is None and not self.is_loaded

    @property
    def is_short(self) -> bool:
        """Whether nothing has succeeded since it had no room or memory for a task."""
        return bool(self.short or self.shortages)

    @property
    def free(self) -> int:
        """How many of its slots have nothing to do."""
        if self.is_tried:
            return min(self.slots, 1 + len(self.beside & self.attempts.keys())) - len(self.attempts)
        return self.slots - len(self.attempts)

    def room(self, ahead: int) -> int:
        """How many more it may be told of where each slot has `ahead` at hand.

        Slots that are busy for long have nothing at hand, nor those of a host where something failed at once last; few
        those of one that has done nothing yet.
        """
        if self.is_tried or self.streak or self.is_short:
            return self.free
        if not self.done:
            ahead = min(ahead, UNPROVEN)
        return self.slots + max(0, self.slots - self.begun) * ahead - len(self.attempts)

    @property
    def is_jammed(self) -> bool:
        """Whether all its slots are known to be busy, and more waits there."""
        return self.is_up and self.slots <= self.begun < len(self.attempts)

    @property
    def busy(self) -> int:
        """How many attempts were begun there or fill slots; all where the number of slots is not known yet."""
        number = len(self.attempts)
        return max(self.begun, min(number, self.slots)) if self.slots else number

    def running(self) -> set[Live]:
        """Those that `busy` counts: the others wait for certain."""
        begun = [live for live in self.attempts.values() if live.began is not None]
        others = (live for live in self.attempts.values() if live.began is None)
        return {*begun, *islice(others, self.busy - len(begun))}


class Book:
    """See above."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        #: Names of those that may be given something.
        self.usable: set[str] = set()
        #: Names of those that may be there soon.
        self.coming: set[str] = set()
        #: Tasks that were not begun; those that were, and are to be begun again, come before them.
        self.waiting: deque[int] = deque()
        self.again: deque[int] = deque()
        self.tasks: dict[int, Begun] = {}
        self.orders: list[Order] = []
        #: Each host with a free slot is in `free`, each with room for more in `roomy`, each that is jammed in `jammed`.
        #: So are others: they are taken out when they are looked at.
        self.free: OrderedDict[Host, None] = OrderedDict()
        self.roomy: OrderedDict[Host, None] = OrderedDict()
        self.jammed: dict[Host, None] = {}

    def find(self, task: int, attempt: int) -> Live | None:
        """An attempt that is under way."""
        begun = self.tasks.get(task)
        return None if begun is None else begun.live.get(attempt)

    def attempts(self, task: int) -> int:
        """How many attempts a task had."""
        begun = self.tasks.get(task)
        return 0 if begun is None else begun.attempts

    def may_run(self, task: int, host: Host) -> bool:
        """Where a task has failed it is not tried again while there is another host.

        One of those that may be what ends hosts is on a host at a time: else others would be taken for it.
        """
        begun = self.tasks[task]
        if begun.is_suspect and any(self.tasks[live.task].is_suspect for live in host.attempts.values()):
            return False
        return host.name not in begun.avoided or not self.has_another(begun)

    def has_another(self, begun: Begun) -> bool:
        """Whether there is a host, or may be soon, on which a task has not failed."""
        return not (self.usable <= begun.avoided and self.coming <= begun.avoided)

    def begin(self, task: int, host: Host, timeout: float | None) -> Live:
        """Order one more attempt at a task."""
        begun = self.tasks.get(task)
        if begun is None:
            begun = self.tasks[task] = Begun()
        begun.attempts = number = begun.attempts + 1
        live = self.put(begun, Live(task, number, host, is_copy=bool(begun.live)))
        self.orders.append(Start(task, number, host.name, timeout))
        return live

    def put(self, begun: Begun, live: Live) -> Live:
        """An attempt is under way."""
        host = live.host
        begun.live[live.number] = live
        host.attempts[live.task, live.number] = live
        if host.begun >= host.slots:
            self.jammed[host] = None
        return live

    def start(self, live: Live, began: float) -> None:
        """It was started there."""
        live.began = began
        live.host.begun += 1
        if live.host.is_jammed:
            self.jammed[live.host] = None

    def forget(self, live: Live) -> None:
        """It is not under way any more, or does not count."""
        host = live.host
        live.is_live = False
        del self.tasks[live.task].live[live.number]
        del host.attempts[live.task, live.number]
        if live.began is not None:
            host.begun -= 1
        self.made_room(host)

    def cancel(self, live: Live, why: str) -> None:
        """Forget it, and let its host end it."""
        self.forget(live)
        self.orders.append(Cancel(live.task, live.number, live.host.name, why))

    def look_at(self, host: Host) -> None:
        """Whether it may be given something has perhaps changed."""
        if host.is_usable:
            self.usable.add(host.name)
            self.made_room(host)
        else:
            self.usable.discard(host.name)
        if host.is_jammed:
            self.jammed[host] = None

    def made_room(self, host: Host) -> None:
        """There may be room on a host where there was none."""
        self.free[host] = None
        self.roomy[host] = None

    def queued(self) -> Iterator[Live]:
        """What waits at hosts all slots of which are busy for long; what came there last comes first."""
        for host in list(self.jammed):
            if not host.is_jammed:
                del self.jammed[host]
                continue
            for live in reversed(list(host.attempts.values())):
                if live.began is None:
                    yield live
