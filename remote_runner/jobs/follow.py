"""Following a job from another terminal than that of its master: its results as they come, and how far it is.

    with Follower(folder) as follower:
        while not follower.look(): ...      # gives `delivery` what is new

It reads the journal, and asks the master; it needs neither to be there from the beginning.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from remote_runner.errors import ControlFailed, JobNotRunning
from remote_runner.jobs.control import ask
from remote_runner.jobs.deliver import Delivery
from remote_runner.jobs.holding import master
from remote_runner.jobs.journal import Journal
from remote_runner.jobs.statistics import Statistics
from remote_runner.jobs.views import View, view_of

#: Seconds between two looks.
PAUSE = 0.3
#: Seconds that a master has to say how it is.
ANSWER = 5.0


class Followed:
    """The numbers of a job that another process runs, in the place of `Statistics`."""

    def __init__(self) -> None:
        self._told: dict[str, Any] = Statistics().to_dict()
        self._view = view_of(self._told)

    def take(self, told: dict[str, Any]) -> None:
        """What its master has told.

        Raises:
            ControlFailed: that is not what masters of this version tell.
        """
        try:
            self._view = view_of(told)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            what = f'the numbers that its master has told are not understood: {error!r}'
            remedy = 'it is of another version of remote_runner: use that one; `jobs export` brings results out'
            raise ControlFailed(what, remedy=remedy) from error
        self._told = told

    def view(self) -> View:
        """See `Statistics`."""
        return self._view

    def to_dict(self) -> dict[str, Any]:
        """See `Statistics`."""
        return self._told


class Follower:
    """See above. A context manager.

    Args:
        folder: of the job.
        numbers: are kept up to date.
        delivery: is given results of tasks that are settled; None: nobody wants them.
    """

    def __init__(self, folder: Path, numbers: Followed, delivery: Delivery | None) -> None:
        self._folder = folder
        self._numbers = numbers
        self._delivery = delivery
        self._reader = Journal.look(folder)
        self._given: set[int] = set()
        self._version = -1

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._reader.close()

    def look(self) -> bool:
        """See what is new; whether the job is at its end.

        Raises:
            JobNotRunning: it is not at its end, and nobody works on it.
            ControlFailed: its master is of another version.
            JournalFailed: it cannot be read.
        """
        is_there = master(self._folder) is not None
        told = self._ask() if is_there else None
        if told is not None:
            self._numbers.take(told)
        self._give()
        if is_there:
            return False
        counts = self._reader.counts()
        if counts.left or not self._reader.meta.get('is_complete'):
            left = f'{counts.left} of {counts.tasks} tasks'
            what = f'job {self._folder.name} has {left} left, and nobody works on it'
            raise JobNotRunning(what, remedy=f'`remote_runner jobs resume {self._folder.name}` goes on')
        last = self._reader.meta.get('statistics')
        if last:
            self._numbers.take(last)
        return True

    def _ask(self) -> dict[str, Any] | None:
        try:
            told = ask(self._folder, {'do': 'status'}, ANSWER)
        except (JobNotRunning, ControlFailed):
            return None  # it has just begun, or is at its end: the journal says more
        told.pop('state', None)
        return told

    def _give(self) -> None:
        if self._delivery is None:
            return
        version = self._reader.version()
        if version == self._version:
            return
        self._version = version
        for number, position in self._reader.settled_tasks():
            if number not in self._given:
                self._given.add(number)
                self._delivery.recall(position, number)

    def status(self) -> int:
        """The exit status of the job that is at its end."""
        counts = self._reader.counts()
        return int(bool(counts.failed))
