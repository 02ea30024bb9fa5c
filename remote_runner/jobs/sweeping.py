"""Sweeps of a config as jobs: what their tasks are, what they need, and what becomes of their results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from remote_runner.deploy.sweeps import SweepPlan
from remote_runner.jobs.journal import Journal
from remote_runner.jobs.policy import Cause, Halt, Policy, RetryOn
from remote_runner.jobs.task import Task


def tasks_of(plan: SweepPlan) -> Iterator[Task]:
    """Its tasks, in the order of its parameter sets."""
    return (Task(*task) for task in plan.tasks)


def policy_of(plan: SweepPlan) -> Policy:
    """How its attempts are made."""
    wanted = plan.retry_on
    return Policy(
        retries=plan.retries,
        retry_on=None if wanted is None else tuple(RetryOn(Cause(cause), status) for cause, status in wanted),
        timeout=plan.timeout,
        timeout_share=plan.timeout_share,
        duplicates=plan.duplicates,
        halt=None if plan.halt is None else Halt(*plan.halt),
        delay=plan.delay,
        load=plan.load,
    )


class Validation:
    """Why what a task brought is not accepted, see `master.Validate`."""

    def __init__(self, plan: SweepPlan) -> None:
        self._plan = plan

    def __call__(self, position: int, results: Mapping[str, bytes | Path]) -> str:
        """'': it is accepted.

        Raises:
            UserCodeError: the user's function raised an error.
        """
        is_accepted = self._plan.accepts(self._plan.tasks[position].parameters, _whole(self._plan, results))
        return '' if is_accepted else 'validate does not accept it'


def collect(plan: SweepPlan, journal: Journal) -> int:
    """Give all accepted results to its collector, in the order of the parameter sets; how many there were.

    Raises:
        UserCodeError: the user's own collector raised an error.
        CollectingFailed: a file cannot be written.
        JournalFailed: a result cannot be read.
    """
    count = 0
    with plan.collecting() as add:
        for row in journal.tasks():
            if row.outcome is not None and row.outcome.cause is None and row.position is not None:
                add(plan.tasks[row.position].parameters, _whole(plan, journal.results(row.number)))
                count += 1
    return count


def _whole(plan: SweepPlan, results: Mapping[str, bytes | Path]) -> dict[str, bytes]:
    """All of each, in the order in which the user named them."""
    return {
        name: data.read_bytes() if isinstance(data := results[name], Path) else data for name in plan.names.results
    }
