"""The form of a journal: its tables, how things are written in them, and what its errors mean to users.

What a task is does not change; what became of it is in rows of their own, which are added and hardly ever changed: a
command of 10 kB is written once.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from remote_runner.errors import JournalDamaged, JournalFailed
from remote_runner.jobs.places import JOURNAL
from remote_runner.jobs.policy import Cause, Outcome
from remote_runner.jobs.task import Task

#: What makes a database one of ours, and the form of its tables (sqlite.org/pragma.html).
APPLICATION, VERSION = 0x72726A6F, 1
#: Of an attempt: nothing is known of its end; it counts; it does not.
LIVE, COUNTS, SUPERSEDED = 0, 1, 2
#: Seconds to wait for who has the database open: only another program can.
_PATIENCE = 10.0
_SCHEMA = """
BEGIN;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- position NULL: it is not wanted any more. forgiven: failures of attempts up to this one do not count any more.
CREATE TABLE task (number INTEGER PRIMARY KEY, position INTEGER, forgiven INTEGER NOT NULL DEFAULT 0,
    key BLOB NOT NULL, occurrence INTEGER NOT NULL, command NOT NULL, detail TEXT);
CREATE TABLE input (number INTEGER, name, data BLOB NOT NULL, PRIMARY KEY (number, name)) WITHOUT ROWID;
CREATE TABLE attempt (number INTEGER, attempt INTEGER, host NOT NULL, ordered REAL, state INTEGER NOT NULL DEFAULT 0,
    slot INTEGER, began REAL, seconds REAL, cause TEXT, status INTEGER, why, tail,
    PRIMARY KEY (number, attempt)) WITHOUT ROWID;
CREATE TABLE settled (number INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, cause TEXT, status INTEGER, why);
-- data NULL: it is in `file`, below `results`.
CREATE TABLE result (number INTEGER, name, size INTEGER NOT NULL, file TEXT, data BLOB,
    PRIMARY KEY (number, name)) WITHOUT ROWID;
CREATE TABLE delivered (number INTEGER PRIMARY KEY);
CREATE VIEW live AS SELECT * FROM attempt WHERE state = 0;
CREATE VIEW unsettled AS SELECT * FROM task WHERE position IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM settled WHERE settled.number = task.number);
"""
_PLAIN = Task('')
_REMEDIES = {
    sqlite3.SQLITE_FULL: 'make room there; what was finished before is safe, and a resumed job goes on from there',
    sqlite3.SQLITE_BUSY: 'another program has it open: end that one',
    sqlite3.SQLITE_LOCKED: 'another program has it open: end that one',
    sqlite3.SQLITE_READONLY: 'see whose it is, and whether it may be written',
    sqlite3.SQLITE_CANTOPEN: 'see whose it is, and whether it may be written',
    sqlite3.SQLITE_IOERR: 'look at the disk: it is full, or fails',
}
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def make(folder: Path, meta: dict[str, object]) -> None:
    """Make the journal of a job: it is there as a whole, or not at all."""
    path = folder / 'journal.new'
    with failing(folder, 'written'):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))  # what SQLite makes beside it is so, too
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute('PRAGMA journal_mode = WAL')
            connection.executescript(_SCHEMA)
            connection.execute(f'PRAGMA application_id = {APPLICATION}')
            connection.execute(f'PRAGMA user_version = {VERSION}')
            connection.executemany('INSERT INTO meta VALUES (?, ?)', [(n, json.dumps(v)) for n, v in meta.items()])
            connection.execute('COMMIT')
        finally:
            connection.close()
        path.rename(folder / JOURNAL)


def connect(folder: Path, *, writing: bool) -> sqlite3.Connection:
    """Open the journal of a job.

    Raises:
        JournalFailed: there is none, it is none of ours, or of another version.
    """
    path = folder / JOURNAL
    with failing(folder, 'read'):
        # `?` and `#` would end the path in a URI (RFC 3986), `%` would begin a code.
        name = str(path.absolute()).replace('%', '%25').replace('?', '%3f').replace('#', '%23')
        mode = 'rw' if writing else 'ro'
        if not writing and not os.access(folder, os.W_OK) and not Path(f'{path}-wal').exists():
            mode += '&immutable=1'  # all of it is in the file, and nothing can be made beside it
        connection = sqlite3.connect(f'file:{name}?mode={mode}', _PATIENCE, isolation_level=None, uri=True)
        try:
            form = [connection.execute(f'PRAGMA {name}').fetchone()[0] for name in ('application_id', 'user_version')]
            if form[0] != APPLICATION:
                raise damaged(folder, f'{path} is no journal of remote_runner')
            if form[1] != VERSION:
                remedy = 'use the version that began the job'
                raise JournalFailed(f'{path} was written by another version of remote_runner', remedy=remedy)
            if writing:
                connection.execute('PRAGMA synchronous = NORMAL')
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def failing(folder: Path, done: str) -> Iterator[None]:
    """Errors of the system and of SQLite are raised as ours.

    Args:
        folder: that of the job.
        done: what cannot be done then: `read`, `written`.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, 'sqlite_errorcode', None)
        kind = code & 0xFF if code is not None else -1  # the lowest byte is the kind
        what = f'the journal {folder / JOURNAL} cannot be {done}: {error}'
        if kind in _DAMAGED:
            raise damaged(folder, what) from error
        raise JournalFailed(what, remedy=_REMEDIES.get(kind)) from error
    except OSError as error:
        path = error.filename or folder
        remedy = _REMEDIES[sqlite3.SQLITE_FULL if error.errno in _FULL else sqlite3.SQLITE_READONLY]
        raise JournalFailed(f'{path} cannot be {done}: {error.strerror}', remedy=remedy) from error


def damaged(folder: Path, what: str) -> JournalDamaged:
    """The error of a journal that is none."""
    again = f'the job has to be run anew, and `remote_runner jobs clean {folder.name}` removes it'
    return JournalDamaged(what, remedy=f'it is damaged; results beside it may be whole, {again}')


# ---- values ----------------------------------------------------------------------------------------------------


def pack(text: str) -> str | bytes:
    """Text as it is written: as bytes where it may hold surrogates (PEP 383), for which SQLite has no form."""
    return text if text.isascii() else text.encode('utf-8', 'surrogatepass')


def unpack(value: str | bytes | None) -> str:
    """What `pack` made; NULL is ''."""
    if isinstance(value, bytes):
        return value.decode('utf-8', 'surrogatepass')
    return value or ''


def detail(task: Task) -> str | None:
    """What a task is beside its command and the content of its inputs; None for one of a batch."""
    if not task.parameters and not task.inputs and task.results == _PLAIN.results:
        return None
    # A parameter that JSON cannot say is for people alone: the config that made it makes it again.
    return json.dumps([dict(task.parameters), dict(task.results), bool(task.inputs)], default=repr)


def outcome(cause: str | None, status: int | None, why: str | bytes | None) -> Outcome:
    """From its columns."""
    return Outcome(None if cause is None else Cause(cause), status, unpack(why))


def columns(outcome: Outcome) -> tuple[str | None, int | None, str | bytes | None]:
    """Cause, status, why."""
    return None if outcome.cause is None else outcome.cause.value, outcome.status, pack(outcome.why) or None
