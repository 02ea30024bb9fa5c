"""The journal of a job: what is true of its tasks, whatever happens to whoever writes it.

    with Journal.create(place.folder, {'kind': 'batch'}) as journal:
        journal.add(enumerate(tasks))
        journal.write(Turn(ordered=[...]))             # before any host is told
        journal.write(Turn(ended=[...], settled=[...]))   # before anybody is given a result
    with Journal.open(folder) as journal: loaded = journal.load()     # another master goes on
    with Journal.look(folder) as reader: print(reader.counts())       # anybody, at any time

It is an SQLite database in WAL mode (sqlite.org/wal.html) with `synchronous = NORMAL`. Each `write` is one transaction,
there as a whole or not at all. What was written is safe from the end of the process, `kill -9` too. When the *machine*
loses its power, the last transactions may be lost, those of some seconds (`vm.dirty_expire_centisecs`, proc(5)); what
is left is whole and is what was true a moment before. Then attempts since are made again: at least once is kept. Large
results are files beside it, renamed into place before their transaction; one that the power took although its
transaction was written is found missing or short by `load`, and its task is not settled any more, unless it was
delivered.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from remote_runner.errors import JournalFailed
from remote_runner.jobs import database
from remote_runner.jobs.database import COUNTS, SUPERSEDED, columns, detail, failing, pack, unpack
from remote_runner.jobs.engines.base import Ended
from remote_runner.jobs.holding import hold, master
from remote_runner.jobs.loading import Loaded, Undelivered, Unsettled, read_loaded
from remote_runner.jobs.policy import Cause, Outcome, Policy
from remote_runner.jobs.reading import RESULTS, Reader, is_whole, task_of
from remote_runner.jobs.result_files import ResultFiles
from remote_runner.jobs.task import Task

__all__ = ['Journal', 'Loaded', 'Matched', 'Turn', 'Undelivered', 'Unsettled']
log = logging.getLogger(__name__)

#: Bytes up to which a result is in the database.
SMALL = 16_000
#: Tasks that are added in one transaction.
BATCH = 5000


class Turn(NamedTuple):
    """What one turn of the master makes true.

    Args:
        ordered: attempts that a host will be told of: number, attempt, host, Unix time.
        ended: attempts that have ended, each with whether it counts (else it is superseded). Those that were lost with
            their host, or cancelled, too: nobody else says that they are over. Results are kept of those that count and
            succeeded; files of the others are removed.
        settled: what finally became of tasks: number, attempt, outcome. Once for a task.
        delivered: tasks whose results were given to who waits for them.
    """

    ordered: Sequence[tuple[int, int, str, float]] = ()
    ended: Sequence[tuple[Ended, bool]] = ()
    settled: Sequence[tuple[int, int, Outcome]] = ()
    delivered: Collection[int] = ()


class Matched(NamedTuple):
    """What became of an edited list of tasks.

    Args:
        numbers: of each task in the list, in its order.
        new: tasks that there were not before.
        dropped: tasks that were wanted before, and are not any more.
    """

    numbers: list[int]
    new: int
    dropped: int


class Journal(Reader):
    """Writes the journal of a job; see above. One thread uses it.

    Raises (all that it does):
        JournalFailed: it cannot be written or read: the message says why and what to do. Nothing of the transaction is
            there then, and the same call may be made again.
    """

    def __init__(self, folder: Path, lock: int) -> None:
        """Not to be called but by `create` and `open`."""
        self._lock = lock
        try:
            super().__init__(folder, database.connect(folder, writing=True))
        except BaseException:
            os.close(lock)
            raise
        self._files = ResultFiles(folder / RESULTS)
        #: How many equal tasks there are, by their keys; None: not asked for yet.
        self._equal: dict[bytes, int] | None = None
        [[last]] = self.rows('SELECT MAX(number) FROM task')
        self._next = 0 if last is None else last + 1

    @classmethod
    def create(cls, folder: Path, meta: dict[str, object]) -> Journal:
        """Make the journal of a new job in a folder that is there, and be its master.

        Args:
            folder: see `places.make`.
            meta: what is to be known of the job as a whole; JSON has to have a form for it. Commands show `kind`
                (batch, sweep), `what` (in words), `started` (Unix time, by default now), and `ended`, which `note` adds
                when a master has done all: without it the job counts as interrupted.
        """
        lock = hold(folder)
        try:
            database.make(folder, {'started': time.time(), **meta})
        except BaseException:
            os.close(lock)
            raise
        journal = cls(folder, lock)
        journal._equal = {}
        return journal

    @classmethod
    def open(cls, folder: Path) -> Journal:
        """Be the master of a job that was begun before.

        Raises:
            JobHeld: there is one; the message says who.
            JournalFailed: there is no journal, or it cannot be read.
        """
        return cls(folder, hold(folder))

    @staticmethod
    def look(folder: Path) -> Reader:
        """Read it, whether a master writes it or not.

        Raises:
            JournalFailed: there is none, it cannot be read, or its master is on another machine: WAL is for one.
        """
        at = master(folder)
        if at is not None and not at.is_here:
            what = f'the journal of job {folder.name} can be read only where its master is ({at})'
            raise JournalFailed(what, remedy=f'ask on {at.host}')
        return Reader(folder, database.connect(folder, writing=False))

    def close(self) -> None:
        """Let go of it: another master may open it."""
        try:
            super().close()
        finally:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it, or nothing."""
        with failing(self.folder, 'written'):
            self._db.execute('BEGIN IMMEDIATE')
            try:
                yield self._db
                self._db.execute('COMMIT')
            finally:
                if self._db.in_transaction:
                    self._db.execute('ROLLBACK')

    # ---- tasks -------------------------------------------------------------------------------------------------

    def note(self, **values: object) -> None:
        """Change what is known of the job as a whole, see `meta`."""
        with self._changing() as db:
            rows = [(name, json.dumps(value)) for name, value in values.items()]
            db.executemany('INSERT OR REPLACE INTO meta VALUES (?, ?)', rows)

    def add(self, tasks: Iterable[tuple[int, Task]]) -> int:
        """Add tasks, each with its position; of many each few thousand in a transaction of their own.

        Returns:
            The number of the first one; the others follow it.
        """
        first, left = self._next, iter(tasks)
        while some := list(islice(left, BATCH)):
            with self._counting_equals() as occurrence, self._changing() as db:
                self._insert(db, [(position, task, *occurrence(task)) for position, task in some])
            self._next += len(some)
        return first

    def _insert(self, db: sqlite3.Connection, rows: Sequence[tuple[int, Task, bytes, int]]) -> None:
        """Tasks with positions, keys and occurrences."""
        numbered = list(enumerate(rows, self._next))
        db.executemany(
            'INSERT INTO task (number, position, key, occurrence, command, detail) VALUES (?, ?, ?, ?, ?, ?)',
            [(number, at, key, nth, pack(task.command), detail(task)) for number, (at, task, key, nth) in numbered],
        )
        inputs = [
            (number, pack(name), data) for number, (_, task, _, _) in numbered for name, data in task.inputs.items()
        ]
        if inputs:
            db.executemany('INSERT INTO input VALUES (?, ?, ?)', inputs)

    @contextmanager
    def _counting_equals(self) -> Iterator[Callable[[Task], tuple[bytes, int]]]:
        """What gives the key of a further task, and how many equal ones there are; forgotten if the block fails."""
        if self._equal is None:
            self._equal = dict(self.rows('SELECT key, MAX(occurrence) + 1 FROM task GROUP BY key'))
        equal = self._equal

        def occurrence(task: Task) -> tuple[bytes, int]:
            key = task.key()
            nth = equal.get(key, 0)
            equal[key] = nth + 1
            return key, nth

        try:
            yield occurrence
        except BaseException:
            self._equal = None
            raise

    def match(self, tasks: Sequence[Task]) -> Matched:
        """The user wants these tasks now, in this order, by their content and not by their positions.

        Those that were known keep number and outcome, new ones are added. Those that are not there any more lose their
        position and nothing else: in a later list they are known.
        """
        known = {(key, nth): (number, at) for number, at, key, nth in self.rows(_KNOWN)}
        seen: Counter[bytes] = Counter()
        numbers: list[int] = []
        moved: list[tuple[int, int]] = []
        new: list[tuple[int, Task, bytes, int]] = []
        for position, task in enumerate(tasks):
            key = task.key()
            number, before = known.pop((key, seen[key]), (self._next + len(new), None))
            if number >= self._next:
                new.append((position, task, key, seen[key]))
            elif before != position:
                moved.append((position, number))
            seen[key] += 1
            numbers.append(number)
        dropped = [(number,) for number, at in known.values() if at is not None]
        with self._changing() as db:
            db.executemany('UPDATE task SET position = NULL WHERE number = ?', dropped)
            db.executemany('UPDATE task SET position = ? WHERE number = ?', moved)
            self._insert(db, new)
        self._next += len(new)
        self._equal = None
        return Matched(numbers, len(new), len(dropped))

    def forgive(self, causes: Collection[Cause]) -> int:
        """Tasks that finally failed for one of these causes are not settled any more; how many there are.

        What failed before does not count for their retries. For a job that is resumed to try once more what failed, or
        what was cancelled.
        """
        found: list[int] = []
        with self._changing() as db:
            for cause in causes:
                found += [number for (number,) in db.execute(_SETTLED_BY, (cause.value,))]
            self._unsettle(db, found)
        return len(found)

    def reopen(self, policy: Policy) -> int:
        """Tasks that finally failed and would be tried again by this policy are not settled any more; how many.

        What failed before counts for their retries.
        """
        with self._changing() as db:
            found = [
                (number,)
                for number, cause, status, failures in db.execute(_FAILED)
                if failures <= policy.retries and policy.allows(Outcome(Cause(cause), status))
            ]
            for sql in _FORGET:
                db.executemany(sql, found)
        return len(found)

    def _unsettle(self, db: sqlite3.Connection, numbers: Iterable[int]) -> None:
        for sql in _UNSETTLE:
            db.executemany(sql, [(number,) for number in numbers])

    # ---- what happens ------------------------------------------------------------------------------------------

    def write(self, turn: Turn) -> None:
        """Make a turn true, in one transaction."""
        results, unwanted = self._results(turn.ended)
        with self._changing() as db:
            if turn.ordered:
                rows = [(number, attempt, pack(host), when) for number, attempt, host, when in turn.ordered]
                db.executemany('INSERT INTO attempt (number, attempt, host, ordered) VALUES (?, ?, ?, ?)', rows)
            if turn.ended:
                db.executemany(_END, [_ended(ended, counts) for ended, counts in turn.ended])
            if results:
                db.executemany('INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?, ?)', results)
            if turn.settled:
                db.executemany(
                    'INSERT INTO settled VALUES (?, ?, ?, ?, ?)', [(n, a, *columns(o)) for n, a, o in turn.settled]
                )
            if turn.delivered:
                db.executemany('INSERT OR IGNORE INTO delivered VALUES (?)', [(number,) for number in turn.delivered])
        self._files.are_known()
        for path in unwanted:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning('%s is not needed any more, and cannot be removed: %s', path, error.strerror)

    def _results(self, ended: Iterable[tuple[Ended, bool]]) -> tuple[list[_Result], list[Path]]:
        """Rows of results, whose files are in their places now; and files that nobody wants."""
        rows: list[_Result] = []
        unwanted: list[Path] = []
        for fact, counts in ended:
            is_wanted = counts and fact.outcome.cause is None
            for name, content in fact.results.items():
                if not is_wanted:
                    unwanted += [content] if isinstance(content, Path) else []
                elif isinstance(content, bytes) and len(content) <= SMALL:
                    rows.append((fact.number, pack(name), len(content), None, content))
                else:
                    with failing(self.folder, 'written'):
                        file, size = self._files.take(fact.number, name, content)
                    rows.append((fact.number, pack(name), size, file, None))
        return rows, unwanted

    # ---- another master ----------------------------------------------------------------------------------------

    def load(self) -> Loaded:
        """Where the master before has left it. Files of results that nobody knows, or that are damaged, go."""
        self._repair()
        with self.at_one_time():
            return read_loaded(self)

    def task(self, number: int) -> Task:
        """A task with its inputs."""
        [[command, detail]] = self.rows('SELECT command, detail FROM task WHERE number = ?', number)
        inputs = {unpack(name): data for name, data in self.rows(_INPUTS_OF, number)}
        return task_of(command, detail)._replace(inputs=inputs)

    def _repair(self) -> None:
        """Tasks whose large results are not whole have to run again, unless somebody has them; unknown files go."""
        rows = list(self.rows('SELECT number, file, size FROM result WHERE file IS NOT NULL'))
        damaged = {number for number, file, size in rows if not is_whole(self.folder / RESULTS / file, size)}
        if damaged:
            damaged.difference_update(number for (number,) in self.rows('SELECT number FROM delivered'))
            log.warning(
                'tasks that run again, because this machine failed before their results were written: %d', len(damaged)
            )
            with self._changing() as db:
                self._unsettle(db, damaged)
        with failing(self.folder, 'written'):
            self._files.keep({file for number, file, _ in rows if number not in damaged})


#: A row of the table: number, name, size, file, data.
_Result = tuple[int, str | bytes, int, str | None, bytes | None]
_KNOWN = 'SELECT number, position, key, occurrence FROM task'
_INPUTS_OF = 'SELECT name, data FROM input WHERE number = ?'
_SETTLED_BY = 'SELECT number FROM settled WHERE cause = ?'
#: Tasks that finally failed by a fault of their own, and how often they did so by the cause that was the last.
_FAILED = (
    'SELECT settled.number, settled.cause, settled.status, COUNT(*) FROM settled JOIN task USING (number) '
    'JOIN attempt ON attempt.number = settled.number AND attempt.cause = settled.cause AND attempt.state = 1 '
    "AND attempt.attempt > forgiven WHERE settled.cause IN ('exit', 'timeout', 'rejected', 'resources') "
    'GROUP BY settled.number'
)
_FORGET = (
    'DELETE FROM settled WHERE number = ?',
    'DELETE FROM delivered WHERE number = ?',
    'DELETE FROM result WHERE number = ?',
)
_UNSETTLE = (
    'UPDATE task SET forgiven = COALESCE((SELECT MAX(attempt) FROM attempt WHERE attempt.number = task.number), 0) '
    'WHERE number = ?',
    *_FORGET,
)
#: The first end of an attempt is the one that is known.
_END = (
    'INSERT INTO attempt (number, attempt, host, state, slot, began, seconds, cause, status, why, tail) '
    'VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (number, attempt) DO UPDATE SET host = excluded.host, '
    'state = excluded.state, slot = excluded.slot, began = excluded.began, seconds = excluded.seconds, '
    'cause = excluded.cause, status = excluded.status, why = excluded.why, tail = excluded.tail WHERE state = 0'
)


def _ended(ended: Ended, counts: bool) -> tuple[object, ...]:
    """The row of an attempt that has ended."""
    cause, status, why = columns(ended.outcome)
    tail = None if cause is None else pack(ended.tail)
    state = COUNTS if counts else SUPERSEDED
    where = ended.number, ended.attempt, pack(ended.host), state, ended.slot or None
    return *where, ended.began, ended.seconds, cause, status, why, tail
