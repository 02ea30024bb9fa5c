"""The command in a process that is killed at a certain commit of the journal.

    python -m tests.batch_driver 3 before batch FILE -H h1      dies when it is about to make its third commit
    python -m tests.batch_driver 3 after batch FILE -H h1       dies when it has
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from remote_runner.cli.main import run
from remote_runner.jobs.journal import Journal

_changing = Journal._changing
_commits = count(1)


def _die_at(last: int, when: str) -> None:
    def die(commit: int, at: str) -> None:
        if (commit, at) == (last, when):
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def changing(journal: Journal) -> Iterator[sqlite3.Connection]:
        commit = next(_commits)
        die(commit, 'before')
        with _changing(journal) as db:
            yield db
        die(commit, 'after')

    Journal._changing = changing  # type: ignore[method-assign]


if __name__ == '__main__':
    _die_at(int(sys.argv[1]), sys.argv[2])
    del sys.argv[1:3]
    run()
