"""Removing jobs that nobody needs any more; never one that runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from remote_runner.errors import JournalFailed
from remote_runner.jobs.holding import hold
from remote_runner.jobs.places import JOURNAL, Place


def room(place: Place) -> int:
    """Bytes that a job takes on disk."""
    return sum(_blocks(Path(folder, name)) for folder, _, names in os.walk(place.folder) for name in names)


def _blocks(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0  # a master has just removed it


def remove(place: Place) -> None:
    """Remove a job with all its results.

    Raises:
        JobHeld: a master works on it.
        JournalFailed: something cannot be removed.
    """
    lock = hold(place.folder)
    try:
        (place.folder / JOURNAL).unlink()  # from now on it is no job, whatever else is left
        shutil.rmtree(place.folder)
    except OSError as error:
        what = f'{error.filename or place.folder} cannot be removed: {error.strerror}'
        raise JournalFailed(what, remedy='see whose it is') from error
    finally:
        os.close(lock)
