"""One picture of jobs for a terminal: a line a host, as many as there is room for, what is slow, and the whole."""

from __future__ import annotations

from collections import Counter
from math import ceil

from remote_runner.jobs.policy import Cause
from remote_runner.jobs.views import HostView, State, View
from remote_runner.ui.frame import Line
from remote_runner.ui.text import count, elapsed, first_line, harmless, width

_WIDEST_NAME = 32
_WORDS = {State.UP: 'up', State.SILENT: 'connecting again', State.DOWN: 'not there', State.GONE: 'given up'}
_STYLES = {State.UP: 'green', State.SILENT: 'yellow', State.DOWN: 'yellow', State.GONE: 'bold red'}
#: Slow tasks that are named while it runs, and seconds from which on a task is.
_SLOW, _LONG = 3, 5.0


def frame(view: View, height: int) -> list[Line]:
    """The picture, of at most `height` lines (at least three)."""
    done, rest = progress(view)
    below: list[Line] = [[(done, 'bold')], [(rest, 'bold')]]
    if view.seconds >= 1:
        below[1].append((f'  {elapsed(view.seconds)}', 'dim'))
    slow = [f'{one.position} on {harmless(one.host)} for {elapsed(one.seconds)}' for one in view.slow_running]
    slow = [text for text, one in zip(slow, view.slow_running, strict=True) if one.seconds >= _LONG][:_SLOW]
    if slow and height > 4:
        below.insert(0, [(f'slowest: {", ".join(slow)}', 'dim')])
    room = max(height - len(below), 1)
    shown = view.hosts if len(view.hosts) <= room else _choose(view.hosts, room - 1)
    lines = _host_lines(shown, view)
    if len(shown) < len(view.hosts):
        names = {host.name for host in shown}
        states = Counter(_word(host) for host in view.hosts if host.name not in names)
        told = ', '.join(f'{number} {word}' for word, number in states.most_common())
        lines.append([(f'… and {states.total()} more: {told}', 'dim')])
    return [*lines, *below]


def progress(view: View) -> list[str]:
    """What is done, and how it goes on, in two lines."""
    done = (
        f'{view.done} of {count(view.total, "task")} done'
        if view.is_all
        else f'{view.done} of so far {view.total} done'
    )
    if view.failed:
        done += f', {view.has_failed} failed: {causes(view.failed)}'
    if view.cancelled:
        done += f', {view.cancelled} cancelled'
    up = sum(host.state is State.UP for host in view.hosts)
    rest = f'{view.running} running on {up} of {count(len(view.hosts), "host")}'
    if view.rate or view.mean_rate:
        rest += f', {pace(view.rate or view.mean_rate)}'
    if view.left:
        rest += f', {elapsed(ceil(view.left))} left'
    return [done, rest]


def causes(failed: dict[Cause, int]) -> str:
    """`3 exit, 1 timeout`."""
    return ', '.join(f'{number} {cause.value}' for cause, number in Counter(failed).most_common())


def pace(rate: float) -> str:
    """So many tasks a second, or in a longer time where that is less than one."""
    for unit, seconds in (('s', 1), ('min', 60)):
        if rate * seconds >= 0.95:
            number = rate * seconds
            return f'{number:.0f}/{unit}' if number >= 9.95 else f'{number:.1f}/{unit}'
    return f'{rate * 3600:.1f}/h'


def _choose(hosts: list[HostView], room: int) -> list[HostView]:
    """The hosts that matter most, in their own order; those in trouble get half of the room at most."""
    trouble = [host for host in hosts if host.state is not State.UP]
    trouble = trouble[: max(room // 2, room - (len(hosts) - len(trouble)))]
    taken = {host.name for host in trouble}
    others = sorted((host for host in hosts if host.name not in taken), key=lambda host: -host.running)
    taken |= {host.name for host in others[: room - len(trouble)]}
    return [host for host in hosts if host.name in taken]


def _host_lines(shown: list[HostView], view: View) -> list[Line]:
    """A line each; numbers stand below each other, and columns of which all are 0 are left out."""
    column = min(max((width(harmless(host.name)) for host in view.hosts), default=0), _WIDEST_NAME)
    names = [name for name in ('failed', 'lost', 'superseded') if any(getattr(host, name) for host in view.hosts)]
    widths = (
        {name: max(len(str(getattr(host, name))) for host in view.hosts) for name in ('done', *names)} if shown else {}
    )
    slots = max((len(str(host.slots)) for host in view.hosts), default=1)
    lines: list[Line] = []
    for host in shown:
        name = harmless(host.name)
        line: Line = [(name + ' ' * (column - width(name)) + '  ', '')]
        if host.state is State.UP:
            line.append((f'{host.running:{slots}} of {host.slots:{slots}} running', 'green' if host.running else ''))
            line.append((f', {host.share * 100:3.0f} % busy', ''))
            if host.why:
                line.append((f', {_reason(host)}', 'yellow'))
        else:
            line.append((f'{_word(host)}{f": {_reason(host)}" if host.why else ""}', _STYLES[host.state]))
        if host.state is State.UP or host.done or host.failed or host.lost:
            for name, room in widths.items():
                number = getattr(host, name)
                style = 'dim' if not number else 'red' if name == 'failed' else ''
                line.append((f', {number:{room}} {name}', style))
        lines.append(line)
    return lines


def _word(host: HostView) -> str:
    return 'connecting' if host.state is State.DOWN and not host.why else _WORDS[host.state]


def _reason(host: HostView) -> str:
    return first_line(host.why.removeprefix(f'{host.name}: '))
