"""A scheduler, with hosts that do what it orders, and time that goes on when it is told to."""

from __future__ import annotations

from collections.abc import Sequence

from remote_runner.jobs.policy import Cause, Outcome, Policy
from remote_runner.jobs.scheduler import Order, Scheduler, Settled, Start

GOOD = Outcome()
BAD = Outcome(Cause.EXIT, 1)


class World:
    """A scheduler, and a clock that goes on when it is told to."""

    def __init__(self, policy: Policy | None = None, tasks: int = 0, **slots: int) -> None:
        self.scheduler = Scheduler(policy)
        self.now = 0.0
        self.settled: list[Settled] = []
        for name, number in slots.items():
            self.scheduler.host_up(name, number)
        for task in range(tasks):
            self.scheduler.add(task)
        self.scheduler.close()

    def orders(self) -> list[Order]:
        orders = self.scheduler.orders(self.now)
        self.settled += self.scheduler.settled()
        return orders

    def starts(self) -> list[Start]:
        """What is begun now; it begins at once."""
        found = [order for order in self.orders() if isinstance(order, Start)]
        for start in found:
            self.scheduler.started(start.task, start.attempt, self.now)
        return found

    def end(self, start: Start, outcome: Outcome = GOOD, seconds: float = 0.0, took: float | None = None) -> bool:
        self.now += seconds
        counts = self.scheduler.ended(start.task, start.attempt, outcome, self.now, took)
        self.settled += self.scheduler.settled()
        return counts

    def work(self, fails: Sequence[str] = (), seconds: float = 2.0, most: int = 1000) -> None:
        """Do all that is ordered, until nothing is; on these hosts everything fails."""
        for _ in range(most):
            starts = self.starts()
            for start in starts:
                self.end(start, BAD if start.host in fails else GOOD)
            if not starts:
                later = self.scheduler.next_time(self.now)
                if later is None:
                    return
                self.now = later
            self.now += seconds
        raise AssertionError('no end')

    def outcomes(self) -> dict[int, Cause | None]:
        assert len({one.task for one in self.settled}) == len(self.settled)
        return {one.task: one.outcome.cause for one in self.settled}
