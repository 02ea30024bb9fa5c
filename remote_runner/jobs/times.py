"""How long tasks take, and what follows from that: time limits, which are slow, how many a host has at hand."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from collections import deque
from typing import TYPE_CHECKING

from remote_runner.jobs.policy import Policy

if TYPE_CHECKING:
    from remote_runner.jobs.book import Live


#: Tasks that have to be done before their median says something.
FEW = 3
#: Tasks that succeeded of which the times are known: the last ones.
SAMPLE = 1000
#: Seconds of work that a slot has at hand, so that it need not wait for us between two tasks.
AHEAD = 0.05
#: Tasks that a slot has at hand at most.
MOST_AHEAD = 50
#: Seconds that a task must have run before a second copy of it is started.
LEAST_SLOW = 0.2
#: How many times as long as the median it must have run.
SLOWER = 1.5


class Times:
    """Seconds that tasks took which succeeded: the last ones of them, sorted."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._last: deque[float] = deque()
        self._sorted: list[float] = []
        #: None while there are too few.
        self.median: float | None = None
        #: Seconds that an attempt may take, as far as that is known by now.
        self.limit = policy.timeout
        #: Seconds after which a task is slow.
        self.slow = LEAST_SLOW
        #: How many tasks a slot has at hand besides the one that it runs.
        self.ahead = 0

    def add(self, seconds: float) -> None:
        """One more."""
        self._last.append(seconds)
        insort(self._sorted, seconds)
        if len(self._last) > SAMPLE:
            del self._sorted[bisect_left(self._sorted, self._last.popleft())]
        if len(self._sorted) >= FEW:
            self._reckon(self._sorted[len(self._sorted) // 2])

    def _reckon(self, median: float) -> None:
        if median == self.median:
            return
        self.median = median
        self.slow = max(LEAST_SLOW, SLOWER * median)
        if not self._policy.delay and self._policy.load is None:  # else what is at hand would begin all the same
            self.ahead = min(MOST_AHEAD, int(AHEAD / max(median, 1e-6)))
        if self._policy.timeout_share is not None:
            share = self._policy.timeout_share * median
            self.limit = share if self._policy.timeout is None else min(share, self._policy.timeout)

    @property
    def is_limit_known(self) -> bool:
        """Whether a host can be told how long an attempt may take; else it is us who look at the clock."""
        return self._policy.timeout_share is None or self.median is not None


class Watch:
    """Attempts that were started, the oldest first. Those that ended, or of which nothing is heard, leave unasked."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, Live]] = []
        self._most = 100

    def add(self, live: Live) -> None:
        """One more, that was started; a second time does no harm."""
        if live.began is None:
            return
        if len(self._heap) >= self._most:
            self._heap = [entry for entry in self._heap if self._is_of_use(entry[3])]
            heapq.heapify(self._heap)
            self._most = 2 * len(self._heap) + 100
        heapq.heappush(self._heap, (live.began, live.task, live.number, live))

    def next_time(self, seconds: float) -> float | None:
        """When one will have run for more than so many seconds."""
        first = self.first()
        return None if first is None else math.nextafter(first + seconds, math.inf)

    def first(self) -> float | None:
        """When the oldest was started."""
        while self._heap and not self._is_of_use(self._heap[0][3]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, seconds: float, now: float) -> list[Live]:
        """Take out those that have run for more than so many seconds."""
        found: list[Live] = []
        while (first := self.first()) is not None and first + seconds < now:
            found.append(heapq.heappop(self._heap)[3])
        return found

    @staticmethod
    def _is_of_use(live: Live) -> bool:
        return live.is_live and not live.host.is_silent
