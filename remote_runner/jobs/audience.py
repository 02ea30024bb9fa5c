"""Who is told how a job goes: who waits for results, the joblog, the statistics, and people."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from remote_runner.jobs.book import Cancel, Start
from remote_runner.jobs.deliver import Delivery
from remote_runner.jobs.engines.base import Ended, Fact
from remote_runner.jobs.formats import Result
from remote_runner.jobs.joblog import Joblog
from remote_runner.jobs.policy import Cause
from remote_runner.jobs.statistics import Statistics, last_line

log = logging.getLogger(__name__)
#: Failed tasks that are named one by one.
NAMED = 100


class Audience:
    """See `master.Hears`.

    Args:
        statistics: counts.
        delivery: writes results; None: nobody waits for them.
        joblog: a line a task; None: nobody wants it.
    """

    def __init__(self, statistics: Statistics, delivery: Delivery | None = None, joblog: Joblog | None = None) -> None:
        self.statistics = statistics
        self.delivery = delivery
        self._joblog = joblog
        self._delivered: list[int] = []
        self.failed = 0

    def expect(self, total: int, *, is_all: bool) -> None:
        """See `Hears`."""
        self.statistics.expect(total, is_all=is_all)

    def ordered(self, orders: Iterable[Start | Cancel]) -> None:
        """See `Hears`."""
        self.statistics.ordered(orders)

    def hear(self, fact: Fact, *, counted: bool = True) -> None:
        """See `Hears`."""
        self.statistics.hear(fact, counted=counted)
        if isinstance(fact, Ended) and counted and fact.outcome.cause is not None:
            log.debug('task %d, attempt %d: %s', fact.number, fact.attempt, how(fact))

    def give(self, results: list[Result]) -> None:
        """See `Hears`.

        Raises:
            OutputClosed, OutputFailed: results, or the joblog, cannot be written any more.
        """
        for result in results:
            outcome = result.ended.outcome
            self.statistics.settled(result.ended.number, outcome)
            if outcome.cause is not None:
                self._name(result)
        if self._joblog is not None:
            self._joblog.write(results)
        if self.delivery is None:
            self._delivered += [result.ended.number for result in results]
            return
        for refused in self.delivery.give(results):
            self.failed += 1
            log.error('%s', refused)

    def delivered(self) -> list[int]:
        """See `Hears`."""
        if self.delivery is not None:
            return self.delivery.take_written()
        found, self._delivered = self._delivered, []
        return found

    def _name(self, result: Result) -> None:
        """Say that a task has failed for good."""
        if result.ended.outcome.cause is Cause.CANCELLED:
            return
        self.failed += 1
        if self.failed <= NAMED:
            ended = result.ended
            times = f'{ended.attempt} attempts, the last ' if ended.attempt > 1 else ''
            log.error('task %d has failed: %s (%son %s)', result.position, how(ended), times, ended.host or 'no host')
        if self.failed == NAMED:
            log.error('further tasks that fail are not named here; `remote_runner jobs failed` lists them')


def how(ended: Ended) -> str:
    """How an attempt failed, in words."""
    cause, status, why = ended.outcome
    words = {
        Cause.EXIT: f'exit status {status}',
        Cause.TIMEOUT: 'time limit',
        Cause.LOST: 'lost with its host',
        Cause.POISON: 'poison: it was lost on three different hosts',
        Cause.REJECTED: 'its result is rejected',
        Cause.RESOURCES: 'resources',
        Cause.CANCELLED: 'cancelled',
        None: 'succeeded',
    }[cause]
    if cause is Cause.EXIT and status is not None and status > 128:
        words = f'{words}, signal {status - 128}'
    line = last_line(ended.tail)
    return ': '.join(part for part in (words, why, line) if part)
