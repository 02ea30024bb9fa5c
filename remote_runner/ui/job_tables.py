"""What a job came to: a table of its hosts, and what failed, for people to read."""

from __future__ import annotations

from collections.abc import Iterable

from remote_runner.jobs.views import Failure, HostView, State, View
from remote_runner.ui.job_frame import causes, pace
from remote_runner.ui.jobs import how
from remote_runner.ui.tables import MOST_ROWS, Column, layout
from remote_runner.ui.text import count, first_line, harmless, seconds, size

#: Groups of failures that are listed.
MOST_GROUPS = 50
_COLUMNS = [
    Column('HOST'),
    *(Column(name, is_number=True) for name in ('SLOTS', 'DONE', 'FAILED', 'LOST', 'BUSY', 'SHARE', 'RESULTS')),
    Column('STATE'),
]
_STATES = {State.UP: '', State.SILENT: 'silent', State.DOWN: 'gone', State.GONE: 'given up'}
# Tasks that are named as the slowest, and seconds from which on one is.
_SLOW, _LONG = 3, 1.0


def summary(view: View) -> str:
    """What was done in which time, a table of the hosts, and what else is worth a line."""
    text = f'{view.done} of {count(view.total, "task")} done in {seconds(view.seconds)}'
    if view.mean_rate:
        text += f' ({pace(view.mean_rate)})'
    if view.failed:
        text += f', {view.has_failed} failed: {causes(view.failed)}'
    if view.cancelled:
        text += f', {view.cancelled} cancelled'
    hosts = view.hosts if len(view.hosts) <= MOST_ROWS else [host for host in view.hosts if _is_worse(host)][:MOST_ROWS]
    lines = [text, *(layout(_COLUMNS, map(_cells, hosts), color=False) if hosts else [])]
    if len(hosts) < len(view.hosts):
        lines.append(f'… and {count(len(view.hosts) - len(hosts), "more host")}')
    return '\n'.join([*lines, *_facts(view)])


def failures(view: View, more: str = '') -> str:
    """What failed; what failed in the same way stands together. `more`: see `JobsTerminal`."""
    groups: dict[tuple[object, ...], list[Failure]] = {}
    for one in view.failures:
        groups.setdefault((one.cause, one.status, one.why, one.last_line), []).append(one)
    lines = [f'{view.has_failed} of {count(view.total, "task")} failed:']
    shown = 0
    for group in list(groups.values())[:MOST_GROUPS]:
        shown += len(group)
        positions = [one.position for one in group]
        line = f'  {"task" if len(group) == 1 else "tasks"} {ranges(positions)}: {how(group[0])}'
        where = list(dict.fromkeys(one.host for one in group if one.host))
        if where:
            line += f', on {_folded(where)}'
        lines.append(line)
        if group[0].last_line:
            lines.append(f'    | {first_line(group[0].last_line)}')
    if shown < view.has_failed and not shown:
        lines = [f'{view.has_failed} of {count(view.total, "task")} failed before{f", see {more}" if more else ""}']
    elif shown < view.has_failed:
        lines.append(f'  … and {view.has_failed - shown} more{f", see {more}" if more else ""}')
    return '\n'.join(lines)


def ranges(numbers: Iterable[int]) -> str:
    """`3, 7-9`."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ', '.join(str(first) if first == last else f'{first}-{last}' for first, last in found)


def _folded(hosts: list[str]) -> str:
    from remote_runner.hosts.address import fold

    return harmless(fold(hosts))


def _is_worse(host: HostView) -> bool:
    return bool(host.failed or host.lost) or host.state is not State.UP


def _cells(host: HostView) -> tuple[str, ...]:
    numbers = (str(number) if number else '-' for number in (host.slots, host.done, host.failed, host.lost))
    share = f'{host.share * 100:.0f} %' if host.busy else '-'
    return (
        harmless(host.name),
        *numbers,
        seconds(host.busy) if host.busy else '-',
        share,
        size(host.bytes) if host.bytes else '-',
        'never there' if host.state is State.DOWN and not host.slots else _STATES[host.state],
    )


def _facts(view: View) -> list[str]:
    facts = []
    slow = [one for one in view.slow_done[:_SLOW] if one.seconds >= _LONG]
    if slow:
        told = ', '.join(f'{one.position} on {harmless(one.host)} {seconds(one.seconds)}' for one in slow)
        facts.append(f'slowest tasks: {told}')
    if view.retried:
        facts.append(f'tried again: {count(view.retried, "attempt")}')
    if view.lost:
        facts.append(f'lost with their hosts: {count(view.lost, "attempt")}')
    if view.copies.begun:
        text = f'second copies: {view.copies.begun}, of which {view.copies.won} ended first'
        facts.append(f'{text} and saved {seconds(view.copies.saved)}' if view.copies.saved else text)
    return facts
