"""Where another master goes on: what the journal knows of tasks that are not settled, and of what nobody was told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from remote_runner.jobs.database import COUNTS, LIVE, outcome, unpack
from remote_runner.jobs.policy import Cause, Outcome
from remote_runner.jobs.reading import Reader, task_of
from remote_runner.jobs.task import Task


class Unsettled(NamedTuple):
    """A task that is not settled.

    Args:
        number: which never changes.
        position: where it stands in what the user wrote.
        task: what it is.
        attempts: the last attempt that was ordered; 0: none.
        failures: attempts that failed, by cause, as far as they count for its retries.
        lost_on: hosts on which it was lost.
        live: attempts of whose end nothing is known: attempt, host, when it was ordered.
    """

    number: int
    position: int
    task: Task
    attempts: int = 0
    failures: Mapping[Cause, int] = {}
    lost_on: frozenset[str] = frozenset()
    live: tuple[tuple[int, str, float], ...] = ()


class Undelivered(NamedTuple):
    """A task that is settled, and of which nobody was told; `Reader.results` has what it brought."""

    number: int
    position: int
    attempt: int
    outcome: Outcome


class Loaded(NamedTuple):
    """Where another master goes on.

    Args:
        tasks: how many are wanted.
        done: of these, how many succeeded.
        failed: how many finally failed, by cause.
        unsettled: the others, by their positions.
        undelivered: settled ones of which nobody was told, by their positions.
        stray: attempts of whose end nothing is known at tasks that are settled, or not wanted any more: number,
            attempt, host. They are to be cancelled.
    """

    tasks: int
    done: int
    failed: dict[Cause, int]
    unsettled: list[Unsettled]
    undelivered: list[Undelivered]
    stray: list[tuple[int, int, str]]


def read_loaded(reader: Reader) -> Loaded:
    """All of it."""
    counts = reader.counts()
    begun = _begun(reader)
    inputs = _inputs(reader)
    unsettled = [
        _unsettled(number, position, task_of(command, detail), inputs.get(number), begun.get(number))
        for number, position, command, detail in reader.rows(_UNSETTLED)
    ]
    undelivered = [
        Undelivered(number, position, attempt, outcome(cause, status, why))
        for number, position, attempt, cause, status, why in reader.rows(_UNDELIVERED)
    ]
    stray = [(number, attempt, unpack(host)) for number, attempt, host in reader.rows(_STRAY)]
    return Loaded(counts.tasks, counts.done, counts.failed, unsettled, undelivered, stray)


class _Begun:
    """Attempts at a task that is not settled."""

    __slots__ = ('attempts', 'failures', 'live', 'lost_on')

    def __init__(self) -> None:
        self.attempts = 0
        self.failures: Counter[Cause] = Counter()
        self.lost_on: set[str] = set()
        self.live: list[tuple[int, str, float]] = []


def _begun(reader: Reader) -> dict[int, _Begun]:
    """The attempts at tasks that are not settled, by their numbers."""
    found: dict[int, _Begun] = {}
    for number, attempt, host, ordered, state, cause, forgiven in reader.rows(_ATTEMPTS):
        begun = found.get(number)
        if begun is None:
            begun = found[number] = _Begun()
        begun.attempts = attempt
        if state == LIVE:
            begun.live.append((attempt, unpack(host), ordered))
        elif state == COUNTS and cause is not None and attempt > forgiven:
            if cause == Cause.LOST.value:
                begun.lost_on.add(unpack(host))
            begun.failures[Cause(cause)] += 1
    return found


def _inputs(reader: Reader) -> dict[int, dict[str, bytes]]:
    found: dict[int, dict[str, bytes]] = {}
    for number, name, data in reader.rows(_INPUTS):
        found.setdefault(number, {})[unpack(name)] = data
    return found


def _unsettled(
    number: int, position: int, task: Task, inputs: dict[str, bytes] | None, begun: _Begun | None
) -> Unsettled:
    if inputs:
        task = task._replace(inputs=inputs)
    if begun is None:
        return Unsettled(number, position, task)
    known = begun.attempts, begun.failures, frozenset(begun.lost_on), tuple(begun.live)
    return Unsettled(number, position, task, *known)


_UNSETTLED = 'SELECT number, position, command, detail FROM unsettled ORDER BY position'
_ATTEMPTS = (
    'SELECT number, attempt, host, ordered, state, cause, forgiven FROM attempt JOIN unsettled USING (number) '
    'ORDER BY number, attempt'
)
_INPUTS = 'SELECT number, name, data FROM input JOIN unsettled USING (number)'
_UNDELIVERED = (
    'SELECT number, position, attempt, cause, status, why FROM settled JOIN task USING (number) WHERE position IS NOT '
    'NULL AND NOT EXISTS (SELECT 1 FROM delivered WHERE delivered.number = settled.number) ORDER BY position'
)
_STRAY = (
    'SELECT number, attempt, host FROM live WHERE number NOT IN (SELECT number FROM unsettled) ORDER BY number, attempt'
)
