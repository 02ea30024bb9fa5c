"""Where jobs lie on this machine: `~/.local/state/remote_runner/jobs/<id>/` (below XDG_STATE_HOME, if that is set).

Ids are `YYYYMMDD-HHMMSS-xxxx`, by UTC as those of runs, and sort by time. A job may have a name, which others may have,
too: the name of a sweep. Nobody else may read what lies there (mode 0700).
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import NamedTuple

from remote_runner.errors import JournalFailed, UsageError

#: The journal of a job: a folder without it is no job.
JOURNAL = 'journal.db'
_NAME = 'name'


class Place(NamedTuple):
    """Where a job lies; `name` is empty for one that has none."""

    id: str
    folder: Path
    name: str = ''


def jobs_folder() -> Path:
    """Where all jobs are."""
    state = os.environ.get('XDG_STATE_HOME') or Path('~/.local/state').expanduser()
    return Path(state) / 'remote_runner' / 'jobs'


def make(name: str = '') -> Place:
    """A place for a new job, of which there is nothing yet but the folder.

    Raises:
        JournalFailed: it cannot be made.
    """
    root = jobs_folder()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            folder = root / _new_id(time.time())
            try:
                folder.mkdir(mode=0o700)
                break
            except FileExistsError:
                continue  # another one of this moment
        if name:
            (folder / _NAME).write_text(name, 'utf-8', 'surrogatepass')
    except OSError as error:
        what = f'there is no place for a job in {root}: {error.strerror}'
        raise JournalFailed(what, remedy='make room there, or name another folder in XDG_STATE_HOME') from error
    return Place(folder.name, folder, name)


def _new_id(now: float) -> str:
    """Those of one second sort by time, too, by 1/256 s."""
    moment = time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))
    return f'{moment}-{int(now % 1 * 256):02x}{secrets.token_hex(1)}'


def places() -> list[Place]:
    """All jobs, the newest first."""
    found = sorted((path.parent for path in jobs_folder().glob(f'*/{JOURNAL}')), reverse=True)
    return [Place(folder.name, folder, _name(folder)) for folder in found]


def find(text: str | None = None) -> Place:
    """The job that is meant.

    Args:
        text: its id, or the beginning of it that no other has, or its name, which means the newest of that name; None:
            the newest of all.

    Raises:
        UsageError: there is none, or there are several.
    """
    known = places()
    if text is None:
        if not known:
            raise UsageError('no job is recorded here', remedy=f'they are kept in {jobs_folder()}')
        return known[0]
    for place in known:
        if text in (place.id, place.name) and text:
            return place
    begun = [place for place in known if text and place.id.startswith(text)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        some = ', '.join(place.id for place in begun[:5])
        raise UsageError(f'{text!r} may be any of {len(begun)} jobs', remedy=f'they begin with {some}')
    there = f'the newest is {known[0].id}; ' if known else ''
    raise UsageError(f'there is no job {text!r}', remedy=f'{there}`remote_runner jobs list` shows all')


def _name(folder: Path) -> str:
    try:
        return (folder / _NAME).read_text('utf-8', 'surrogatepass')
    except (FileNotFoundError, ValueError):
        return ''
