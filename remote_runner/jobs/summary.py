"""A job in a few numbers: what it is, how far it is, and who works on it."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from remote_runner.errors import JournalDamaged, JournalFailed
from remote_runner.jobs.holding import Master, master
from remote_runner.jobs.journal import Journal
from remote_runner.jobs.places import JOURNAL, Place, find, places
from remote_runner.jobs.policy import Cause
from remote_runner.jobs.reading import Counts, Reader

log = logging.getLogger(__name__)


class Summary(NamedTuple):
    """See above.

    Args:
        place: where it lies.
        meta: see `Journal.create`.
        counts: how far it is.
        master: who works on it; None: nobody.
        changed: when something happened last, Unix time.
        damage: why its journal is none; then nothing else is known of it.
    """

    place: Place
    meta: dict[str, Any]
    counts: Counts
    master: Master | None
    changed: float
    damage: str = ''

    @property
    def state(self) -> str:
        """`running`, `interrupted` (nobody works on it, something is left), `cancelled`, `failed` (in part), `done`;
        `damaged` where nobody can tell.
        """
        if self.damage:
            return 'damaged'
        if self.master is not None:
            return 'running'
        if self.counts.left or not self.meta.get('ended'):
            return 'interrupted'
        if Cause.CANCELLED in self.counts.failed:
            return 'cancelled'
        return 'failed' if self.counts.failed else 'done'

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        counts = self.counts
        numbers = {
            'tasks': counts.tasks,
            'done': counts.done,
            'failed': {cause.value: number for cause, number in counts.failed.items()},
            'left': counts.left,
            'running': counts.running,
        }
        return {
            'id': self.place.id,
            'name': self.place.name or None,
            'kind': self.meta.get('kind'),
            'what': self.meta.get('what'),
            'state': self.state,
            'pid': None if self.master is None else self.master.pid,
            'host': None if self.master is None else self.master.host,
            'started': self.meta.get('started'),
            'ended': self.meta.get('ended'),
            **(dict.fromkeys(numbers) if self.damage else numbers),
            'folder': str(self.place.folder),
            'damage': self.damage or None,
        }


def summary(place: Place) -> Summary:
    """Of one job, also of one that is damaged.

    Raises:
        JournalFailed: its journal cannot be read for another reason.
    """
    try:
        with Journal.look(place.folder) as reader:
            return summary_of(place, reader)
    except JournalDamaged as error:
        return Summary(place, {}, Counts(0, 0, {}, 0), master(place.folder), _changed(place), str(error))


def summary_of(place: Place, reader: Reader) -> Summary:
    """Of a job that is being read."""
    at = master(place.folder)  # asked first: who ends now has written all before
    with reader.at_one_time():
        meta, counts = reader.meta, reader.counts()
    return Summary(place, meta, counts, at, _changed(place))


def meant(text: str | None = None) -> Place:
    """The job that is meant, see `places.find`; where none is named, the newest one that is not damaged.

    Raises:
        UsageError: there is none, or there are several.
        JournalDamaged: all are.
    """
    if text is not None:
        return find(text)
    find()  # raises an error where there is none at all
    damage: JournalDamaged | None = None
    for place in places():
        try:
            with Journal.look(place.folder) as reader:
                reader.meta  # noqa: B018 - it is read
        except JournalDamaged as error:
            log.warning('job %s is damaged, and one before it is meant', place.id)
            damage = damage or error
        except JournalFailed:
            return place  # whoever reads it says more
        else:
            return place
    assert damage is not None  # noqa: S101 - for the type checker
    raise damage


def _changed(place: Place) -> float:
    """When its journal was written last. Whoever reads makes an empty `-wal`, too."""
    times = [0.0]
    for name in (JOURNAL, f'{JOURNAL}-wal'):
        try:
            found = (place.folder / name).stat()
        except FileNotFoundError:
            continue  # a master that ends removes it
        times += [found.st_mtime] if found.st_size else []
    return max(times)
