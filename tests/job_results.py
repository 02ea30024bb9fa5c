"""Results of tasks, for tests of what is delivered and shown of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from remote_runner.jobs.engines.base import Ended
from remote_runner.jobs.formats import Result
from remote_runner.jobs.policy import Cause, Outcome
from remote_runner.jobs.task import Task

FAILED = Outcome(Cause.EXIT, 3)


def ended(number: int, results: Mapping[str, bytes | Path] | None = None, **other: object) -> Ended:
    """The end of the first attempt at a task."""
    fields: dict[str, object] = {'attempt': 1, 'host': 'h1', 'slot': 1, 'outcome': Outcome(status=0), 'began': 1000.0}
    fields |= {'seconds': 0.5, 'results': results or {}, 'tail': '', **other}
    return Ended(number=number, **fields)  # type: ignore[arg-type]


def result(position: int, stdout: bytes | Path = b'', outcome: Outcome | None = None, **other: object) -> Result:
    """A task that has succeeded, or ended so; its number is 1000 more than its position."""
    task = other.pop('task', None) or Task(f'echo {position}')
    outcome = outcome or Outcome(status=0)
    results = {} if outcome.cause else {'stdout': stdout}
    found = ended(1000 + position, **{'results': results, 'outcome': outcome, **other})  # type: ignore[arg-type]
    return Result(position, task, found)  # type: ignore[arg-type]
