"""Results of tasks that were settled before, read from the journal: for whoever delivers them later."""

from __future__ import annotations

from pathlib import Path

from remote_runner.errors import JournalFailed
from remote_runner.jobs.engines.base import Ended
from remote_runner.jobs.formats import Result
from remote_runner.jobs.journal import Journal
from remote_runner.jobs.reading import Reader


class Recall:
    """Gives results by the numbers of their tasks. One thread uses it, the one that asks first.

    Args:
        folder: of the job.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reader: Reader | None = None

    def __call__(self, number: int) -> Result:
        """The result of a task.

        Raises:
            JournalFailed: it cannot be read, or there is none.
        """
        if self._reader is None:
            self._reader = Journal.look(self._folder)
        return recall(self._reader, number)


def recall(reader: Reader, number: int) -> Result:
    """The result of a task that is settled.

    Raises:
        JournalFailed: it cannot be read, or there is none.
    """
    found = reader.settled(number)
    if found is None:
        raise JournalFailed(f'task {number} of {reader.folder.name} is not settled')
    position, task, attempt, outcome = found
    row = reader.attempt(number, attempt)
    results = reader.results(number)
    if row is None:
        return Result(position, task, Ended(number, attempt, '', 0, outcome, 0.0, 0.0, results))
    began, seconds = row.began or 0.0, row.seconds or 0.0
    return Result(
        position, task, Ended(number, attempt, row.host, row.slot or 0, outcome, began, seconds, results, row.tail)
    )
