"""Masters that write a journal until they are killed, and what must be true of it whenever that was."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from pathlib import Path

from remote_runner.jobs.engines.base import Ended
from remote_runner.jobs.journal import SMALL, Journal, Turn
from remote_runner.jobs.policy import Cause, Outcome
from remote_runner.jobs.task import Task
from tests.commands import ROOT, Running

#: Tasks that are dealt with in one turn.
GROUP = 5
HOST = 'h1'
LOST = Outcome(Cause.LOST, why='killed')


def tasks(number: int) -> list[tuple[int, Task]]:
    return [(position, Task(f'echo {position}')) for position in range(number)]


def result(number: int, attempt: int) -> dict[str, bytes]:
    """Of each group one is large."""
    line = b'%d.%d\n' % (number, attempt)
    return {'stdout': line * (SMALL if number % GROUP == 0 else 3)}


def ended(number: int, attempt: int = 1, outcome: Outcome | None = None, **more: object) -> Ended:
    outcome = outcome or Outcome()
    values = {'results': result(number, attempt) if outcome.cause is None else {}, **more}
    return Ended(number, attempt, HOST, 1, outcome, 1000.0, 0.5, **values)  # type: ignore[arg-type]


def succeed(journal: Journal, *numbers: int, attempt: int = 1) -> None:
    """Tasks that run and succeed."""
    journal.write(Turn(ordered=[(number, attempt, HOST, 1000.0) for number in numbers]))
    facts = [(ended(number, attempt), True) for number in numbers]
    journal.write(Turn(ended=facts, settled=[(number, attempt, Outcome()) for number in numbers]))


def work(folder: Path) -> None:
    """A master, which goes on where the one before it has ended: in each turn one group is ordered, the one before it
    ends and is settled, and the one before that is delivered. It says on stdout how many are settled for sure.
    """
    journal = Journal.open(folder)
    loaded = journal.load()
    lost = [(ended(task.number, attempt, LOST), True) for task in loaded.unsettled for attempt, _, _ in task.live]
    told = [each.number for each in loaded.undelivered]
    running: list[tuple[int, int]] = []
    done = loaded.done
    left = [loaded.unsettled[at : at + GROUP] for at in range(0, len(loaded.unsettled), GROUP)]
    for group in [*left, [], []]:
        ordered = [(task.number, task.attempts + 1, HOST, 1000.0) for task in group]
        facts = [(ended(number, attempt), True) for number, attempt in running]
        settled = [(number, attempt, Outcome()) for number, attempt in running]
        journal.write(Turn(ordered=ordered, ended=[*lost, *facts], settled=settled, delivered=told))
        done += len(settled)
        os.write(1, b'%d\n' % done)
        lost, told, running = [], [number for number, _ in running], [(n, a) for n, a, _, _ in ordered]
    signal.pause()


def master(folder: Path) -> Running:
    """A process that does `work`."""
    code = 'import sys, pathlib; from tests.journals import work; work(pathlib.Path(sys.argv[1]))'
    return Running([sys.executable, '-c', code, str(folder)], cwd=ROOT)


def check(folder: Path, number: int) -> int:
    """All of each transaction is there, or nothing; how many tasks are settled."""
    with Journal.look(folder) as reader:
        rows = list(reader.tasks())
        counts = reader.counts()
        settled = [row for row in rows if row.outcome is not None]
        assert len(rows) == counts.tasks == number
        assert [row.number for row in settled] == list(range(len(settled))), 'groups end in their order'
        assert len(settled) % GROUP == 0
        attempts = list(reader.attempts())
        assert len({(each.number, each.attempt) for each in attempts}) == len(attempts)
        live = [each for each in attempts if each.state == 'running']
        assert counts.running == len(live)
        groups = Counter(each.number // GROUP for each in live)
        assert set(groups.values()) <= {GROUP}, 'part of a group was ordered'
        assert set(groups) <= {len(settled) // GROUP}, 'what is settled does not run any more'
        for row in settled:
            assert row.attempt is not None
            counting = reader.attempt(row.number, row.attempt)
            assert counting is not None
            assert (counting.state, counting.outcome) == ('counts', Outcome())
            [(name, content)] = reader.results(row.number).items()
            content = content.read_bytes() if isinstance(content, Path) else content
            assert {name: content} == result(row.number, row.attempt)
    return len(settled)
