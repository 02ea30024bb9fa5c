"""The components of a session for people to read: a table, a line a component."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from remote_runner.deploy.seen import Seen
from remote_runner.deploy.session import Session
from remote_runner.deploy.sessions import Found
from remote_runner.ui.frame import Line
from remote_runner.ui.tables import Column, aligned, layout
from remote_runner.ui.text import count, elapsed, first_line, harmless, size

#: Seconds of processor time used in the last second, by label; for `--watch`.
Rates = Mapping[str, float]


def status_table(components: Sequence[Seen], session: str, rates: Rates | None = None, *, color: bool = False) -> str:
    """The table, and a line that counts.

    Args:
        components: in the order in which they shall stand.
        session: its name.
        rates: what is shown in place of the average since the start.
        color: whether to colour it for a terminal.
    """
    lines = layout(*_table(components, rates or {}), color=color) if components else []
    return '\n'.join([*lines, summary(components, session)]) + '\n'


def _table(components: Sequence[Seen], rates: Rates) -> tuple[list[Column], list[list[str]]]:
    """The columns that have something to say, and a row a component."""
    restarts = any(seen.restarts for seen in components)
    columns = [column for column in _COLUMNS if column.name != 'RESTARTS' or restarts]
    return columns, [[_CELLS[column.name](seen, rates) for column in columns] for seen in components]


def status_picture(components: Sequence[Seen], session: str, rates: Rates, height: int) -> list[Line]:
    """The table in `height` lines: where there is no room for all, what is well is counted by index and state."""
    room = height - 2  # beside the heading and the line that counts
    if len(components) <= room:
        lines = aligned(*_table(components, rates)) if components else []
        return [*lines, [(summary(components, session), 'bold')]]
    wrong = [seen for seen in components if _is_in_trouble(seen)]
    rest = _grouped(seen for seen in components if not _is_in_trouble(seen))[: max(0, room // 2)]
    shown = wrong[: max(0, room - len(rest))]
    if len(shown) < len(wrong):
        shown = shown[:-1]
        rest.append(f'… and {len(wrong) - len(shown)} more in trouble')
    lines = aligned(*_table(shown, rates)) if shown else []
    lines += [[(line, '')] for line in rest]
    return [*lines[: max(0, height - 1)], [(summary(components, session), 'bold')]]


def _is_in_trouble(seen: Seen) -> bool:
    return seen.is_wrong or seen.state in ('missing', 'restarting')


def _grouped(components: Iterable[Seen]) -> list[str]:
    """`index 1: 80 started on node[1-40]`, a line an index and state."""
    from remote_runner.hosts.address import fold

    groups: dict[tuple[int, str], list[Seen]] = defaultdict(list)
    for seen in components:
        groups[seen.index, shown_state(seen)].append(seen)
    return [
        f'index {index}: {len(group)} {state} on {harmless(fold(dict.fromkeys(seen.host for seen in group)))}'
        for (index, state), group in sorted(groups.items())
    ]


def as_json(session: Session, components: Iterable[Seen]) -> dict[str, object]:
    """What `status --json` writes."""
    return {
        'session': session.session,
        'time': time.time(),
        'components': [seen.to_dict() for seen in components],
        'unreachable': {host: str(error) for host, error in session.failures.items()},
    }


def summary(components: Sequence[Seen], session: str) -> str:
    """`session runner: 3 components: 2 ready, 1 failed`."""
    counts = Counter(map(shown_state, components))
    states = ', '.join(f'{number} {state}' for state, number in counts.items())
    return f'session {harmless(session)}: {count(len(components), "component")}{": " if states else ""}{states}'


def shown_state(seen: Seen) -> str:
    """The state in words."""
    if seen.state == 'exited':
        return f'exited {seen.status}'
    if seen.state == 'started' and seen.facts.get('has_readiness'):
        return 'not ready'
    return seen.state


def _cpu(seen: Seen, rates: Rates) -> str:
    if seen.cpu is None:
        return '-'
    rate = rates.get(seen.label, seen.cpu / seen.uptime if seen.uptime else 0.0)
    return f'{100 * rate:.0f} %'


def _time(seen: Seen, rates: Rates) -> str:
    if seen.uptime is not None:
        return elapsed(seen.uptime)
    if seen.ended is not None and seen.started is not None:
        return elapsed(max(0.0, seen.ended - seen.started))
    return '-'


def _trouble(seen: Seen) -> str:
    """Why it is in trouble; who stopped what is stopped is told to who waits for it, and by `--json`."""
    return '' if seen.state == 'stopped' else seen.reason


def _or_dash(value: object) -> str:
    return '-' if value is None else str(value)


_CELLS: Mapping[str, Callable[[Seen, Rates], str]] = {
    'COMPONENT': lambda seen, rates: harmless(seen.name),
    'HOST': lambda seen, rates: harmless(seen.host),
    'STATE': lambda seen, rates: shown_state(seen),
    'PID': lambda seen, rates: _or_dash(seen.pid if seen.is_alive else None),
    'TIME': _time,
    'RESTARTS': lambda seen, rates: str(seen.restarts),
    'CPU': _cpu,
    'MEMORY': lambda seen, rates: '-' if seen.memory is None else size(seen.memory),
    'SAYS': lambda seen, rates: first_line('; '.join(filter(None, [_trouble(seen), seen.said]))),
}
_NUMBERS = {'PID', 'TIME', 'RESTARTS', 'CPU', 'MEMORY'}
_COLUMNS = [Column(name, is_number=name in _NUMBERS) for name in _CELLS]


def sessions_table(found: Sequence[Found], *, color: bool = False) -> str:
    """All sessions of hosts: a line a component."""
    rows = []
    for each in found:
        for session, components in each.sessions.items():
            for seen in components:
                by = seen.by.partition(' (')[0]  # the user and machine; the run tells when
                cells = [each.host, session, seen.name, shown_state(seen), _time(seen, {}), seen.run, by]
                rows.append([harmless(cell) for cell in cells])
    sessions = {(each.host, session) for each in found for session in each.sessions}
    lines = layout(_SESSION_COLUMNS, rows, color=color) if rows else []
    what = f'{count(len(sessions), "session")} on {count(len(found), "host")}'
    return '\n'.join([*lines, what]) + '\n'


_SESSION_COLUMNS = [
    Column(name, is_number=name == 'TIME') for name in ('HOST', 'SESSION', 'COMPONENT', 'STATE', 'TIME', 'RUN', 'BY')
]
