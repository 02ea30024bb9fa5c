"""Which master works on a job: one at a time, which holds a file in the folder of the job, see `held.py`."""

from __future__ import annotations

from pathlib import Path

from remote_runner import held
from remote_runner.errors import JobHeld, JournalFailed

#: The file that is held, in which the master stands.
FILE = 'master'
Master = held.Holder


def hold(folder: Path) -> int:
    """Become the master of a job, until the file that is given back is closed.

    Raises:
        JobHeld: there is one; the message says who.
        JournalFailed: the file cannot be written.
    """
    path = folder / FILE
    try:
        return held.hold(path)
    except (BlockingIOError, PermissionError) as error:
        other = master(folder)
        if other is None and isinstance(error, BlockingIOError):
            return hold(folder)  # it has just ended
        if other is None:
            raise JournalFailed(f'{path} cannot be locked: {error.strerror}', remedy='see whose it is') from error
        remedy = f'end it, or wait until it has ended; `remote_runner jobs attach {folder.name}` follows it'
        raise JobHeld(f'job {folder.name} is being worked on by {other.in_full}', remedy=remedy) from error
    except OSError as error:
        remedy = 'see whether the disk is full, and whose the folder is'
        raise JournalFailed(f'{path} cannot be written: {error.strerror}', remedy=remedy) from error


def master(folder: Path) -> Master | None:
    """Who works on a job now, if anybody does."""
    return held.holder(folder / FILE)
