"""What runs left on hosts, and what became of it, for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from remote_runner.deploy.clean import Item, Rubbish
from remote_runner.ui.tables import Column, layout
from remote_runner.ui.text import count, harmless, size

_NAMES = {
    'base_dir': 'temporary base_dir',
    'run': 'run that is over, with its output.log',
    'session': 'folder of a session without runs',
    'agent': 'cached agent of another version',
    'job': 'what a job left of its tasks',
    'dependencies': 'dependencies of jobs that nobody has used for 30 days',
    'copy': 'unfinished copy of a file',
    'socket': 'dead socket',
    'link': 'dead link',
    'lock': 'lock file that nobody holds',
    'program': 'process of a program whose launcher was killed',
}
_COLUMNS = [Column('HOST'), Column('WHAT'), Column('COUNT', True), Column('SIZE', True), Column('OLDEST', True)]


def rubbish_table(found: Sequence[Rubbish], *, verbose: bool = False, color: bool = False) -> str:
    """A line for each kind of things on each host, and how much that is together.

    Args:
        found: what there is, one a host.
        verbose: name each thing, in a line of its own.
        color: whether to colour it for a terminal.
    """
    rows = []
    for each in found:
        for kind, items in _by_kind(each.items).items():
            groups = [[item] for item in items] if verbose else [items]
            for group in groups:
                what = f'{_NAMES[kind]}: {group[0].path}' if verbose else _NAMES[kind]
                number, oldest = sum(item.count for item in group), max(item.age for item in group)
                cells = [each.host, what, str(number), size(sum(item.size for item in group)), age(oldest)]
                rows.append([harmless(cell) for cell in cells])
    lines = layout(_COLUMNS, rows, color=color) if rows else []
    things = total(found) if rows else 'nothing to remove'
    return '\n'.join([*lines, f'{things} on {count(len(found), "host")}']) + '\n'


def total(found: Iterable[Rubbish]) -> str:
    """`3 things (1.2 GB)`."""
    items = [item for each in found for item in each.items]
    return f'{count(sum(item.count for item in items), "thing")} ({size(sum(item.size for item in items))})'


def removed_line(done: Rubbish) -> str:
    """What went from one host: `h1: removed 3 things (12.3 MB): base_dir 2, run 1`."""
    gone = [item for item in done.items if item.outcome == 'removed']
    if not gone:
        return f'{harmless(done.host)}: removed nothing'
    kinds = ', '.join(f'{kind} {sum(i.count for i in items)}' for kind, items in _by_kind(gone).items())
    return f'{harmless(done.host)}: removed {total([Rubbish(done.host, tuple(gone))])}: {kinds}'


def age(seconds: float) -> str:
    """How old a thing is: `12 s`, `5 min`, `3 h`, `12 days`."""
    for unit, limit in (('s', 60), ('min', 3600), ('h', 86400)):
        if seconds < limit:
            return f'{int(seconds / {"s": 1, "min": 60, "h": 3600}[unit])} {unit}'
    return count(int(seconds / 86400), 'day')


def _by_kind(items: Iterable[Item]) -> dict[str, list[Item]]:
    """In the order in which the kinds are told."""
    found: dict[str, list[Item]] = {kind: [] for kind in _NAMES}
    for item in items:
        found[item.kind].append(item)
    return {kind: own for kind, own in found.items() if own}
