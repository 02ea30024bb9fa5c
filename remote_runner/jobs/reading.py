"""What a journal says, for whoever looks: also while a master writes it, and after one was killed."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from remote_runner.errors import JournalFailed
from remote_runner.jobs import database
from remote_runner.jobs.database import failing, outcome, unpack
from remote_runner.jobs.policy import Cause, Outcome
from remote_runner.jobs.task import Task

#: Results that are too large for the database are files in this folder.
RESULTS = 'results'
_STATES = {database.LIVE: 'running', database.COUNTS: 'counts', database.SUPERSEDED: 'superseded'}
_SETTLED = (
    'SELECT position, command, detail, attempt, cause, status, why FROM task JOIN settled USING (number) '
    'WHERE number = ?'
)
_ATTEMPTS = 'SELECT * FROM attempt ORDER BY number, attempt'
_HOSTS = (
    "SELECT host, SUM(state = 1 AND cause IS NULL), SUM(state = 1 AND cause IS NOT NULL AND cause != 'lost'), "
    "SUM(state = 1 AND cause IS 'lost'), SUM(state = 2), SUM(state = 0), COALESCE(SUM(seconds), 0.0) "
    'FROM attempt GROUP BY host ORDER BY host'
)
_ATTEMPTS_AT = 'SELECT * FROM attempt WHERE number = ? ORDER BY attempt'


class Counts(NamedTuple):
    """How far a job is, in tasks that are wanted now.

    Args:
        tasks: how many there are.
        done: that succeeded.
        failed: that finally failed, by cause.
        running: attempts that were ordered and of whose end nothing is known.
    """

    tasks: int
    done: int
    failed: dict[Cause, int]
    running: int

    @property
    def left(self) -> int:
        """Tasks that are not settled."""
        return self.tasks - self.done - sum(self.failed.values())


class AttemptRow(NamedTuple):
    """An attempt, and what came of it.

    Args:
        number: that of the task.
        attempt: which go at it.
        host: where it was to run.
        ordered: when the host was told, Unix time.
        state: `running` (or its end is not known), `counts`, or `superseded`.
        slot: in which slot of the host; None: not known.
        began: Unix time; None: not known.
        seconds: how long it took; None: not known.
        outcome: how it ended; None while it runs.
        tail: what it printed last, if it failed.
    """

    number: int
    attempt: int
    host: str
    ordered: float | None
    state: str
    slot: int | None
    began: float | None
    seconds: float | None
    outcome: Outcome | None
    tail: str


class TaskRow(NamedTuple):
    """A task, and what became of it.

    Args:
        number: which never changes.
        position: where it stands in what the user wrote; None: there no more.
        task: what it is, without its inputs.
        outcome: what finally became of it; None: it is not settled.
        attempt: the attempt that counts, or the last one; 0: none was made; None: it is not settled.
    """

    number: int
    position: int | None
    task: Task
    outcome: Outcome | None
    attempt: int | None


class HostRow(NamedTuple):
    """What a host did, in attempts.

    Args:
        host: its name.
        done: that succeeded and count.
        failed: that failed there by a fault of the task's.
        lost: that were lost with it.
        superseded: that did not count any more when they ended.
        running: of whose end nothing is known.
        seconds: how long all together took.
    """

    host: str
    done: int
    failed: int
    lost: int
    superseded: int
    running: int
    seconds: float


class Reader:
    """Reads the journal of a job; `with`, or `close`. One thread uses it.

    Raises (all that it does):
        JournalFailed: it cannot be read.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self._db = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        self._db.close()

    @contextmanager
    def at_one_time(self) -> Iterator[None]:
        """What is read in this block is all of one moment, whatever a master writes meanwhile."""
        with failing(self.folder, 'read'):
            self._db.execute('BEGIN')
            try:
                yield
            finally:
                if self._db.in_transaction:
                    self._db.execute('COMMIT')

    @property
    def meta(self) -> dict[str, Any]:
        """What whoever made the journal wanted to be known of the job as a whole."""
        try:
            return {name: json.loads(value) for name, value in self.rows('SELECT name, value FROM meta')}
        except ValueError as error:
            what = f'the journal of job {self.folder.name} cannot be read: {error}'
            raise database.damaged(self.folder, what) from error

    def counts(self) -> Counts:
        """How far the job is."""
        sql = (
            'SELECT settled.number IS NOT NULL, cause, COUNT(*) FROM task LEFT JOIN settled USING (number) '
            'WHERE position IS NOT NULL GROUP BY 1, 2'
        )
        tasks = done = 0
        failed: Counter[Cause] = Counter()
        for is_settled, cause, number in self.rows(sql):
            tasks += number
            if is_settled and cause is None:
                done = number
            elif is_settled:
                failed[Cause(cause)] = number
        [[running]] = self.rows('SELECT COUNT(*) FROM live')
        return Counts(tasks, done, dict(failed), running)

    def tasks(self, *, position: int | None = None, only_failed: bool = False) -> Iterator[TaskRow]:
        """Tasks that are wanted, by their positions; the one at `position`, those that finally failed, or all."""
        sql = (
            'SELECT task.number, position, command, detail, settled.number IS NOT NULL, cause, status, why, attempt '
            'FROM task LEFT JOIN settled USING (number) WHERE position IS NOT NULL'
        )
        sql += " AND cause IS NOT NULL AND cause != 'cancelled'" if only_failed else ''
        values = () if position is None else (position,)
        sql += ' AND position = ?' if values else ''
        for number, at, command, detail, is_settled, cause, status, why, attempt in self.rows(
            f'{sql} ORDER BY position', *values
        ):
            known = outcome(cause, status, why) if is_settled else None
            yield TaskRow(number, at, task_of(command, detail), known, attempt)

    def settled(self, number: int) -> tuple[int, Task, int, Outcome] | None:
        """Of a task that is settled: its position, what it is, the attempt that counts, and what became of it."""
        for position, command, detail, attempt, cause, status, why in self.rows(_SETTLED, number):
            return position, task_of(command, detail), attempt, outcome(cause, status, why)
        return None

    def settled_tasks(self) -> Iterator[tuple[int, int]]:
        """Number and position of all tasks that are wanted and settled."""
        sql = 'SELECT number, position FROM settled JOIN task USING (number) WHERE position IS NOT NULL'
        yield from self.rows(sql)

    def version(self) -> int:
        """Another number when somebody else has written since (sqlite.org/pragma.html, `data_version`)."""
        [[version]] = self.rows('PRAGMA data_version')
        return int(version)

    def attempts(self, number: int | None = None) -> Iterator[AttemptRow]:
        """All attempts, or those at one task, in their order."""
        rows = self.rows(_ATTEMPTS) if number is None else self.rows(_ATTEMPTS_AT, number)
        return map(_attempt, rows)

    def attempt(self, number: int, attempt: int) -> AttemptRow | None:
        """One of them; None: it was never ordered."""
        sql = 'SELECT * FROM attempt WHERE number = ? AND attempt = ?'
        return next(map(_attempt, self.rows(sql, number, attempt)), None)

    def hosts(self) -> list[HostRow]:
        """What each host did, by their names."""
        return [HostRow(unpack(host), *rest) for host, *rest in self.rows(_HOSTS)]

    def result_names(self) -> list[str]:
        """All names that results have."""
        return [unpack(name) for (name,) in self.rows('SELECT DISTINCT name FROM result ORDER BY name')]

    def results(self, number: int) -> dict[str, bytes | Path]:
        """What a task that succeeded has brought, by name: large ones are files, which must stay where they are."""
        sql = 'SELECT name, size, file, data FROM result WHERE number = ?'
        found: dict[str, bytes | Path] = {}
        for name, size, file, data in self.rows(sql, number):
            if file is not None:
                path = self.folder / RESULTS / file
                if not is_whole(path, size):
                    remedy = (
                        'this machine may have lost its power then; a resumed job makes it again if nobody was given it'
                    )
                    raise JournalFailed(f'the result {path} is not there, or damaged', remedy=remedy)
                found[unpack(name)] = path
            else:
                found[unpack(name)] = data
        return found

    def rows(self, sql: str, *values: object) -> Iterator[tuple[Any, ...]]:
        with failing(self.folder, 'read'):
            rows = self._db.execute(sql, values)
            while some := rows.fetchmany(1000):
                yield from some


def is_whole(path: Path, size: int) -> bool:
    """Whether a file is there, and as long as it was when it was written."""
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def task_of(command: str | bytes, detail: str | None) -> Task:
    """A task from its columns, without its inputs."""
    if detail is None:
        return Task(unpack(command))
    parameters, results, _ = json.loads(detail)
    return Task(unpack(command), parameters, results=results)


def _attempt(row: tuple[Any, ...]) -> AttemptRow:
    number, attempt, host, ordered, state, slot, began, seconds, cause, status, why, tail = row
    ended = None if state == database.LIVE else outcome(cause, status, why)
    names = number, attempt, unpack(host), ordered, _STATES[state], slot, began, seconds
    return AttemptRow(*names, ended, unpack(tail))
