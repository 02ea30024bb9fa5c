"""Who is told how a job goes: who waits for results, the joblog, the statistics, and people."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol

from remote_runner.jobs.book import Aside, Cancel, Start
from remote_runner.jobs.deliver import Delivery
from remote_runner.jobs.engines.base import Ended, Fact, Started
from remote_runner.jobs.formats import Result
from remote_runner.jobs.joblog import Joblog
from remote_runner.jobs.policy import Cause
from remote_runner.jobs.statistics import Statistics

log = logging.getLogger(__name__)


class Shows(Protocol):
    """Shows people how it goes."""

    def hear(self, fact: Fact | Aside) -> None:
        """A host came or went, or is set aside."""

    def failed(self, result: Result) -> None:
        """A task has failed for good."""

    def changed(self) -> None:
        """There are new numbers."""


class Audience:
    """See `master.Hears`.

    Args:
        statistics: counts.
        shows: shows it to people.
        delivery: writes results; None: nobody waits for them.
        joblog: a line a task; None: nobody wants it.

    Attributes:
        refused: tasks that succeeded and whose results cannot be delivered.
    """

    def __init__(
        self,
        statistics: Statistics,
        shows: Shows,
        delivery: Delivery | None = None,
        joblog: Joblog | None = None,
    ) -> None:
        self._statistics = statistics
        self._shows = shows
        self._delivery = delivery
        self._joblog = joblog
        self._delivered: list[int] = []
        self.refused = 0

    def expect(self, total: int, *, is_all: bool) -> None:
        """See `Hears`."""
        self._statistics.expect(total, is_all=is_all)
        self._shows.changed()

    def ordered(self, orders: Iterable[Start | Cancel]) -> None:
        """See `Hears`."""
        self._statistics.ordered(orders)
        self._shows.changed()

    def hear(self, fact: Fact | Aside, *, counted: bool = True) -> None:
        """See `Hears`."""
        if not isinstance(fact, Aside):
            self._statistics.hear(fact, counted=counted)
        if not isinstance(fact, Ended | Started):
            self._shows.hear(fact)
        elif isinstance(fact, Ended) and counted and fact.outcome.cause is not None:
            log.debug('task %d, attempt %d on %s: %s', fact.number, fact.attempt, fact.host, fact.outcome)

    def give(self, results: list[Result]) -> None:
        """See `Hears`.

        Raises:
            OutputClosed, OutputFailed: results, or the joblog, cannot be written any more.
        """
        for result in results:
            outcome = result.ended.outcome
            self._statistics.settled(result.ended.number, outcome)
            if outcome.cause not in (None, Cause.CANCELLED):
                self._shows.failed(result)
        self._shows.changed()
        if self._joblog is not None:
            self._joblog.write(results)
        if self._delivery is None:
            self._delivered += [result.ended.number for result in results]
            return
        for refused in self._delivery.give(results):
            self.refused += 1
            log.error('%s', refused)

    def delivered(self) -> list[int]:
        """See `Hears`."""
        if self._delivery is not None:
            return self._delivery.take_written()
        found, self._delivered = self._delivered, []
        return found
