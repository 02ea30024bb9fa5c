"""Which hosts can do it: those where everything fails at once, while it does not elsewhere, are set aside for a while.

So is one that has no room or memory. That may pass, and where there is no other host it is waited for, five minutes in
all. A task alone may need too much, though: others are tried first, and what succeeds shows that there is room.
"""

from __future__ import annotations

from remote_runner.jobs.book import Aside, Book, Host
from remote_runner.jobs.policy import Cause, Outcome

#: Fast failures in a row after which a host is set aside, and how many seconds are fast.
STREAK, FAST = 5, 1.0
#: Seconds that a host is set aside: the first and the longest time.
ASIDE, LONGEST_ASIDE = 10.0, 600.0
#: Such failures in a row that are too many to be the tasks', and how often room is waited for then: for 310 s in all.
SHORT, SHORTAGES = 2, 5
_ALL_FAILS = 'everything fails there at once'


class Health:
    """Hosts by what comes of tasks there.

    After its time aside, a host gets one task. When that succeeds, or runs for longer than a host lives where nothing
    works, the host is one as others are; when it fails at once, the host is set aside for twice as long.
    """

    def __init__(self, book: Book) -> None:
        self._book = book
        #: Hosts that are there, have done something, and do not fail all the time.
        self._sound: set[Host] = set()
        self._aside: set[Host] = set()
        #: When the first of them is tried again.
        self._soonest: float | None = None
        self._news: list[Aside] = []

    def look_at(self, host: Host) -> None:
        """A host has come or gone, or more is known of it."""
        is_sound = host.is_usable and host.done > 0 and not host.is_tried and len(host.streak) < STREAK
        (self._sound.add if is_sound else self._sound.discard)(host)

    def succeeded(self, host: Host) -> None:
        """A task did."""
        host.done += 1
        host.pause = ASIDE
        if host.is_short:
            self._has_room(host)
        self._is_fit(host)

    def failed(self, host: Host, task: int, outcome: Outcome, took: float, now: float) -> bool:
        """A task did, as it is written down. Whether its host is set aside: then that is no fault of the task."""
        cause = outcome.cause
        assert cause is not None  # noqa: S101 - for the type checker
        if cause is Cause.RESOURCES:
            if self._is_short(host, task):
                self._wait_for_room(host, task, outcome, now)
                return True
        elif host.is_short and took >= FAST:
            self._has_room(host)
        if took >= FAST:
            self._is_fit(host)
            return False
        if host.aside_until is not None:
            self._excuse(task, cause)
            return True
        host.streak.append((task, cause))
        self.look_at(host)
        if len(host.streak) < STREAK and not host.is_tried:
            return False
        if len(self._sound) == (host in self._sound):  # it is the tasks
            host.is_tried = False
            self._book.look_at(host)
            return False
        for other, why in host.streak:
            self._excuse(other, why)
        self._set_aside(host, now, _ALL_FAILS)
        return True

    def due(self, now: float) -> None:
        """Those whose time aside is over get one task."""
        if self._soonest is None or now < self._soonest:
            return
        for host in [host for host in self._aside if host.aside_until is not None and host.aside_until <= now]:
            self._aside.discard(host)
            host.aside_until, host.is_tried = None, True
            host.beside = frozenset(host.attempts)
            self._book.look_at(host)
        self._find_soonest()

    @property
    def soonest(self) -> float | None:
        """When the first of those set aside is tried again."""
        return self._soonest

    def news(self) -> list[Aside]:
        """Hosts that were set aside since this was asked last."""
        found, self._news = self._news, []
        return found

    # ---- room and memory ---------------------------------------------------------------------------------------

    def _is_short(self, host: Host, task: int) -> bool:
        """Whether it is the host that has no room, and not the task that needs too much."""
        if host.aside_until is not None:
            return True
        if host.shortages == SHORTAGES:
            return False
        host.short.append(task)
        if host.shortages or any(other != task for other in host.short):
            return True
        # Where another one has succeeded after such a failure, that was not excused.
        if self._book.tasks[task].failures[Cause.RESOURCES] > len(host.short):
            return False
        are_others = self._book.waiting or self._book.again or host.attempts
        return len(host.short) >= SHORT or not are_others

    def _wait_for_room(self, host: Host, task: int, outcome: Outcome, now: float) -> None:
        if host.aside_until is not None:
            self._excuse(task, Cause.RESOURCES)
            return
        for other in host.short:
            self._excuse(other, Cause.RESOURCES)
        host.shortages += 1
        self._set_aside(host, now, outcome.why or 'it has no room')

    def _has_room(self, host: Host) -> None:
        """It need not be waited for any more."""
        host.short.clear()
        if host.shortages and host.aside_until is not None:
            host.aside_until = None
            self._aside.discard(host)
            self._find_soonest()
            self._book.look_at(host)
        host.shortages = 0

    # ---- all hosts that are set aside --------------------------------------------------------------------------

    def _is_fit(self, host: Host) -> None:
        if host.streak:
            host.streak.clear()
        if host.is_tried:
            host.is_tried = False
            self._book.look_at(host)
        self.look_at(host)

    def _set_aside(self, host: Host, now: float, why: str) -> None:
        self._news.append(Aside(host.name, host.pause, why))
        host.streak.clear()
        host.short.clear()
        host.aside_until, host.pause = now + host.pause, min(2 * host.pause, LONGEST_ASIDE)
        host.why_aside, host.is_tried = why, False
        self._aside.add(host)
        self._find_soonest()
        self._book.look_at(host)
        self.look_at(host)

    def _excuse(self, task: int, cause: Cause) -> None:
        begun = self._book.tasks.get(task)
        if begun is not None:
            begun.failures[cause] -= 1

    def _find_soonest(self) -> None:
        self._soonest = min((host.aside_until for host in self._aside if host.aside_until is not None), default=None)
