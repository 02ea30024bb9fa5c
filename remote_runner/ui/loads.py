"""The loads of hosts for people to read: a table, a line a host, the best one first."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

from remote_runner.placement.choose import Report
from remote_runner.placement.member import UP, HostState
from remote_runner.ui.frame import Line
from remote_runner.ui.live import Display
from remote_runner.ui.output import Output
from remote_runner.ui.tables import Column, aligned, layout
from remote_runner.ui.terminal import can_draw
from remote_runner.ui.text import count, first_line, harmless, size


def loads_table(states: Sequence[HostState], *, color: bool = False) -> str:
    """The table, and a line that counts.

    Args:
        states: in the order in which they shall stand.
        color: whether to colour it for a terminal.
    """
    lines = layout(*_table(states), color=color) if states else []
    return '\n'.join([*lines, summary(states)]) + '\n'


def loads_picture(states: Sequence[HostState], height: int) -> list[Line]:
    """The table in `height` lines: the best hosts, and those that are not up, if there is not room for all."""
    room = height - 2  # beside the heading and the line that counts
    lost = [state for state in states if state.state != UP]
    shown = list(states)
    if len(states) > room:
        up = [state for state in states if state.state == UP]
        lost = lost[: max(0, (room - 1) // 2)]
        shown = [*up[: max(0, room - 1 - len(lost))], *lost]
    lines = aligned(*_table(shown)) if shown else []
    if len(shown) < len(states):
        lines.append([(f'… and {len(states) - len(shown)} more', '')])
    return [*lines[: max(0, height - 1)], [(summary(states), 'bold')]]


def summary(states: Sequence[HostState]) -> str:
    """`3 hosts: 2 up, 1 lost`."""
    counts = Counter(state.state for state in states)
    found = ', '.join(f'{number} {state}' for state, number in counts.items())
    return f'{count(len(states), "host")}{": " if found else ""}{found}'


def as_json(states: Sequence[HostState]) -> dict[str, object]:
    """What `load --json` writes."""
    return {'time': time.time(), 'hosts': [state.to_dict() for state in states]}


def watch(look: Callable[[], Sequence[HostState]], interval: float, *, json_lines: bool) -> None:
    """Look and show until interrupted: in place, or (on no terminal) one table after the other.

    Args:
        look: the hosts, in the order in which they shall stand.
        interval: seconds between two looks.
        json_lines: whether to write a JSON object a look instead.
    """
    shown: list[HostState] = []
    lock = threading.Lock()

    def picture(height: int) -> list[Line]:
        with lock:
            return loads_picture(shown, height)

    is_live = can_draw(sys.stdout) and can_draw(sys.stderr) and not json_lines
    display = Display(picture, owns_screen=True) if is_live else None
    output = Output()
    pause = threading.Event()
    with display or nullcontext():
        while output.is_open:
            states = look()
            with lock:
                shown[:] = states
            if display is not None:
                display.changed()
            else:
                output.write(json.dumps(as_json(states)) + '\n' if json_lines else loads_table(states) + '\n')
            pause.wait(interval)


def _table(states: Sequence[HostState]) -> tuple[list[Column], list[list[str]]]:
    """The columns that have something to say, and a row a host."""
    says = any(map(_says, states))
    columns = [column for column in _COLUMNS if column.name != 'SAYS' or says]
    return columns, [[_CELLS[column.name](state) for column in columns] for state in states]


def _says(state: HostState) -> str:
    if state.state != UP:
        return first_line(state.error or '')
    return f'limited: {state.report.limited}' if state.report and state.report.limited else ''


def _of_report(text: Callable[[Report], str]) -> Callable[[HostState], str]:
    """A cell of a host that is up: what one that is lost said last helps nobody."""
    return lambda state: text(state.report) if state.report is not None and state.state == UP else '-'


def _swap(report: Report) -> str:
    return size(report.swap - report.free_swap) if report.swap else '-'


_CELLS: Mapping[str, Callable[[HostState], str]] = {
    'HOST': lambda state: harmless(state.address.where),
    'STATE': lambda state: state.state,
    'SCORE': lambda state: '-' if state.score is None else f'{state.score:.2f}',
    'LOAD': _of_report(lambda report: f'{report.load:.2f}'),
    'VIRTUAL': lambda state: f'{state.virtual:.2f}' if state.state == UP else '-',
    'CORES': _of_report(lambda report: str(report.cores)),
    'FREE': _of_report(lambda report: size(report.free_memory)),
    'MEMORY': _of_report(lambda report: size(report.memory)),
    'SWAPPED': _of_report(_swap),
    'USERS': _of_report(lambda report: str(report.users)),
    'TASKS': _of_report(lambda report: str(report.tasks)),
    'AGE': lambda state: '-' if state.age is None else f'{state.age:.1f} s',
    'SAYS': _says,
}
_TEXT = {'HOST', 'STATE', 'SAYS'}
_COLUMNS = [Column(name, is_number=name not in _TEXT) for name in _CELLS]
