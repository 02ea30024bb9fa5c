"""A job in a few numbers: what it is, how far it is, and who works on it."""

from __future__ import annotations

from typing import Any, NamedTuple

from remote_runner.jobs.holding import Master, master
from remote_runner.jobs.journal import Journal
from remote_runner.jobs.places import JOURNAL, Place
from remote_runner.jobs.policy import Cause
from remote_runner.jobs.reading import Counts, Reader


class Summary(NamedTuple):
    """See above.

    Args:
        place: where it lies.
        meta: see `Journal.create`.
        counts: how far it is.
        master: who works on it; None: nobody.
        changed: when something happened last, Unix time.
    """

    place: Place
    meta: dict[str, Any]
    counts: Counts
    master: Master | None
    changed: float

    @property
    def state(self) -> str:
        """`running`, `interrupted` (nobody works on it, something is left), `cancelled`, `failed` (in part), `done`."""
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
            'tasks': counts.tasks,
            'done': counts.done,
            'failed': {cause.value: number for cause, number in counts.failed.items()},
            'left': counts.left,
            'running': counts.running,
            'folder': str(self.place.folder),
        }


def summary(place: Place) -> Summary:
    """Of one job.

    Raises:
        JournalFailed: its journal cannot be read.
    """
    with Journal.look(place.folder) as reader:
        return summary_of(place, reader)


def summary_of(place: Place, reader: Reader) -> Summary:
    """Of a job that is being read."""
    at = master(place.folder)  # asked first: who ends now has written all before
    with reader.at_one_time():
        meta, counts = reader.meta, reader.counts()
    return Summary(place, meta, counts, at, _changed(place))


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
