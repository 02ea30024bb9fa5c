"""Processes that were found on hosts, and what became of them, for people to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from remote_runner.deploy.pgrep import Found
from remote_runner.ui.tables import Column, layout
from remote_runner.ui.text import count, elapsed, harmless, size

_WIDTH = 100  # characters of a command line that a table shows
_COLUMNS = [Column(name, name in ('PID', 'TIME', 'CPU', 'MEMORY')) for name in ('HOST', 'PID', 'TIME', 'CPU', 'MEMORY')]
_COLUMNS.append(Column('COMMAND'))
_OUTCOMES = {
    'ended': 'ended',
    'gone': 'had ended before',
    'sent': 'got the signal',
    'left': 'still running',
    'refused': 'refused',
}


def processes_table(found: Sequence[Found], *, color: bool = False) -> str:
    """A line a process, and how many there are."""
    rows = [
        [
            harmless(each.host),
            str(process.pid),
            elapsed(process.age),
            elapsed(process.cpu),
            size(process.memory),
            _shortened(harmless(process.command)),
        ]
        for each in found
        for process in each.processes
    ]
    lines = layout(_COLUMNS, rows, color=color) if rows else []
    return '\n'.join([*lines, f'{total(found)}{_left_out(found)}']) + '\n'


def total(found: Iterable[Found]) -> str:
    """`3 processes on 2 hosts`."""
    having = [each for each in found if each.processes]
    number = sum(len(each.processes) for each in having)
    if not number:
        return 'no process'
    return f'{count(number, "process")} on {count(len(having), "host")}'


def _left_out(found: Iterable[Found]) -> str:
    """What was not shown, and why."""
    ours = sum(each.ours for each in found)
    return f'; {count(ours, "process")} of remote_runner itself left out' if ours else ''


def ended_line(done: Found) -> str:
    """What came of the processes of one host: `h1: 2 ended, 1 still running (4711)`."""
    outcomes = Counter(process.outcome for process in done.processes)
    told = []
    for outcome, words in _OUTCOMES.items():
        if outcomes[outcome]:
            pids = ' '.join(str(process.pid) for process in done.processes if process.outcome == outcome)
            told.append(f'{outcomes[outcome]} {words}' + (f' ({pids})' if outcome in ('left', 'refused') else ''))
    return f'{harmless(done.host)}: {", ".join(told)}'


def _shortened(text: str) -> str:
    return text if len(text) <= _WIDTH else f'{text[: _WIDTH - 1]}…'
