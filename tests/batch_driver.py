"""The command in a process that is killed at a certain commit of the journal.

    python -m tests.batch_driver 3 before batch FILE -H h1      dies when it is about to write its third turn
    python -m tests.batch_driver 3 after batch FILE -H h1       dies when it has
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import count

from remote_runner.cli.main import run
from remote_runner.jobs.journal import Journal, Turn

_write = Journal.write
_turns = count(1)


def _die_at(last: int, when: str) -> None:
    def write(journal: Journal, turn: Turn) -> None:
        turns = next(_turns)
        if (turns, when) == (last, 'before'):
            os.kill(os.getpid(), signal.SIGKILL)
        _write(journal, turn)
        if (turns, when) == (last, 'after'):
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.write = write  # type: ignore[method-assign]


if __name__ == '__main__':
    _die_at(int(sys.argv[1]), sys.argv[2])
    del sys.argv[1:3]
    run()
