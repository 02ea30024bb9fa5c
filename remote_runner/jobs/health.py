"""Which hosts can do it: one where everything fails at once, while it does not elsewhere, is set aside for a while."""

from __future__ import annotations

from remote_runner.jobs.book import Book, Host
from remote_runner.jobs.policy import Cause

#: Fast failures in a row after which a host is set aside, and how many seconds are fast.
STREAK, FAST = 5, 1.0
#: Seconds that a host is set aside: the first and the longest time.
ASIDE, LONGEST_ASIDE = 10.0, 600.0


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

    def look_at(self, host: Host) -> None:
        """A host has come or gone, or more is known of it."""
        is_sound = host.is_usable and host.done > 0 and not host.is_tried and len(host.streak) < STREAK
        (self._sound.add if is_sound else self._sound.discard)(host)

    def succeeded(self, host: Host) -> None:
        """A task did."""
        host.done += 1
        host.pause = ASIDE
        self._is_fit(host)

    def failed(self, host: Host, task: int, cause: Cause, took: float, now: float) -> bool:
        """A task did, as it is written down. Whether its host is set aside: then that is no fault of the task."""
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
        self._set_aside(host, now)
        return True

    def due(self, now: float) -> None:
        """Those whose time aside is over get one task."""
        if self._soonest is None or now < self._soonest:
            return
        for host in [host for host in self._aside if host.aside_until is not None and host.aside_until <= now]:
            self._aside.discard(host)
            host.aside_until, host.is_tried = None, True
            self._book.look_at(host)
        self._find_soonest()

    @property
    def soonest(self) -> float | None:
        """When the first of those set aside is tried again."""
        return self._soonest

    def _is_fit(self, host: Host) -> None:
        if host.streak:
            host.streak.clear()
        if host.is_tried:
            host.is_tried = False
            self._book.look_at(host)
        self.look_at(host)

    def _set_aside(self, host: Host, now: float) -> None:
        for task, cause in host.streak:
            self._excuse(task, cause)
        host.streak.clear()
        host.aside_until, host.pause = now + host.pause, min(2 * host.pause, LONGEST_ASIDE)
        host.is_tried = False
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
