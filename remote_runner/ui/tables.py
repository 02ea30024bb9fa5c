"""What a run came to: a table of its components, how to attach to them, and what went wrong with which output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, NamedTuple

from remote_runner.defaults import LOCALHOST, SCREEN
from remote_runner.deploy import board
from remote_runner.ui.progress import Component, State
from remote_runner.ui.text import count, harmless, indented, seconds, width

if TYPE_CHECKING:
    from remote_runner.deploy.outcome import Outcome

#: Rows that are shown; of more only those that went wrong.
MOST_ROWS = 200
_SGR = {'bold': '1', 'dim': '2', 'green': '32', 'yellow': '33', 'bold red': '1;31'}
_STYLES = {
    **dict.fromkeys(('started', 'ready', 'up'), 'green'),
    **dict.fromkeys(('restarting', 'aborted', 'not ready', 'stopping', 'connecting'), 'yellow'),
    **dict.fromkeys(('failed', 'unknown', 'gone', 'killed', 'missing', 'lost'), 'bold red'),
    'not started': 'dim',
}


class Column(NamedTuple):
    """A column of a table; numbers stand at its right side."""

    name: str
    is_number: bool = False


_NUMBERS = {'PID', 'WINDOW', 'TIME'}
_COLUMNS = [Column(name, name in _NUMBERS) for name in ('COMPONENT', 'HOST', 'PID', 'WINDOW', 'STATE', 'TIME')]


@dataclass(frozen=True)
class Row:
    """One component at the end of a run.

    Args:
        component: its name.
        host: as the user wrote it.
        index: its start index; None: not known.
        state: started, exited N, failed, aborted, stopped, unknown, not started.
        pid: of the program; None: it did not start.
        window: its window in the screen session; None: not known.
        seconds: how long it took to start.
        detail: why it failed.
        output: what it printed last.
    """

    component: str
    host: str
    index: int | None = None
    state: str = str(State.NOT_STARTED)
    pid: int | None = None
    window: int | None = None
    seconds: float | None = None
    detail: str = ''
    output: str = ''

    @property
    def label(self) -> str:
        """`name@host`, harmless."""
        return harmless(f'{self.component}@{self.host}')

    @property
    def is_worse(self) -> bool:
        """Whether it ran, or was to run, and went wrong."""
        return self.has_failed or (self.state.startswith('exited') and self.state != 'exited 0')

    @property
    def has_failed(self) -> bool:
        """Whether it counts as a failure, to be told with its output."""
        return self.state in ('failed', 'unknown')


def row_of(component: Component) -> Row:
    """The row of a component."""
    state = f'exited {component.status}' if component.state == State.EXITED else str(component.state)
    return Row(
        component=component.name,
        host=component.host,
        index=component.index,
        state=state,
        pid=component.pid,
        window=component.window,
        seconds=component.seconds,
        detail=component.reason,
        output=component.output,
    )


def result_table(rows: Sequence[Row], session: str, *, color: bool = False) -> str:
    """The table, a line that counts, and how to attach.

    Args:
        rows: one a component, in the order in which they shall stand.
        session: the screen session's name.
        color: whether to colour it for a terminal (ECMA-48 SGR).
    """
    shown = list(rows) if len(rows) <= MOST_ROWS else [row for row in rows if row.is_worse][:MOST_ROWS]
    lines = layout(_COLUMNS, [_cells(row) for row in shown], color=color) if shown else []
    if len(shown) < len(rows):
        lines.append(f'… and {len(rows) - len(shown)} more' if shown else '')
    lines += [_counts(rows), *attach_lines(rows, session)]
    return '\n'.join(lines).lstrip('\n') + '\n'


def attach_lines(rows: Iterable[Row], session: str) -> list[str]:
    """How to look at the components that have a window; no line where none has."""
    shown = [row for row in rows if row.state not in ('not started', 'aborted')]
    if not shown:
        return []
    names = {row.component for row in shown}
    some = 'NAME' if len(names) == len(shown) else 'NAME@HOST'
    words = ['attach', quote(shown[0].component) if len(shown) == 1 else some, *_screen_option(session)]
    return [f'attach: remote_runner {harmless(" ".join(words))}   (windows: Ctrl-a ", leave: Ctrl-a d)']


def stop_lines(outcome: Outcome, ssh: Mapping[str, str]) -> list[str]:
    """What runs on, a line a host with the command that stops it.

    Args:
        ssh: how hosts are reached, see `deploy.record.Record`.
    """
    lines: list[str] = []
    for host in outcome.servers:
        left = [tracked for tracked in outcome.running if tracked.host == host]
        names = [tracked.plan.name for tracked in left]
        is_known = all(tracked.state in board.RUNNING for tracked in left)
        if names:
            state = 'still running' if is_known else 'nobody knows whether still running'
            stop = stop_command(host, outcome.session, ssh)
            lines.append(f'{", ".join(names)} on {host}: {state}; to stop: {stop}')
    return lines


def stop_command(hosts: str, session: str, ssh: Mapping[str, str]) -> str:
    """The command that ends a session on hosts, wherever it was begun; `ssh`: see `stop_lines`."""
    words = ['-H', quote(hosts), *_screen_option(session)]
    for option, name in (('-u', 'user'), ('-F', 'ssh_config')):
        words += [option, quote(ssh[name])] if name in ssh and hosts != LOCALHOST else []
    return ' '.join(['remote_runner', 'stop', *words])


def _screen_option(session: str) -> list[str]:
    return [] if session == SCREEN else ['--screen', quote(session)]


def failures(rows: Iterable[Row]) -> str:
    """What failed, each with its reason and its last output; equal ones together. Empty: nothing failed."""
    rows = list(rows)
    failed: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.has_failed:
            failed.setdefault((row.detail, row.output), []).append(row)
    if not failed:
        return ''
    number = sum(len(group) for group in failed.values())
    lines = [f'{number} of {count(len(rows), "component")} failed:']
    for (reason, output), group in failed.items():
        lines.append(f'  {_labels(group)}: {harmless(reason)}')
        lines += indented(output)
    return '\n'.join(lines)


def _labels(rows: Sequence[Row]) -> str:
    if len(rows) < 3:
        return ', '.join(row.label for row in rows)
    from remote_runner.hosts.address import fold_labels

    return fold_labels(row.label for row in rows)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        harmless(row.component),
        harmless(row.host),
        '-' if row.pid is None else str(row.pid),
        '-' if row.window is None else str(row.window),
        row.state,
        '-' if row.seconds is None else seconds(row.seconds),
    )


def aligned(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> list[list[tuple[str, str]]]:
    """The lines of a table, a heading and one a row, as pieces of text with styles; the column STATE has some."""
    heading = [column.name for column in columns]
    table = [heading, *rows]
    widths = [max(width(row[number]) for row in table) for number in range(len(columns))]
    lines = []
    for row in table:
        line: list[tuple[str, str]] = []
        for column, cell, room in zip(columns, row, widths, strict=True):
            space = ' ' * (room - width(cell))
            style = 'bold' if row is heading else _style(cell) if column.name == 'STATE' else ''
            line += [(space, ''), (cell, style)] if column.is_number else [(cell, style), (space, '')]
            line.append(('  ', ''))
        while line and not line[-1][0].strip():
            line.pop()
        lines.append(line)
    return lines


def layout(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, color: bool) -> list[str]:
    """The lines of a table; `color`: for a terminal (ECMA-48 SGR)."""
    return [
        ''.join(f'\x1b[{_SGR[style]}m{text}\x1b[0m' if color and style and text else text for text, style in line)
        for line in aligned(columns, rows)
    ]


def _style(state: str) -> str:
    return _STYLES.get(state, '') or ('bold red' if state.startswith('exited ') and state != 'exited 0' else '')


def _counts(rows: Sequence[Row]) -> str:
    states = Counter(row.state for row in rows)
    return f'{count(len(rows), "component")}: ' + ', '.join(f'{number} {state}' for state, number in states.items())

