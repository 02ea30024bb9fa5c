"""One picture of a run for a terminal: a line a host, as many as there is room for, and one for the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil

from remote_runner.ui.progress import Host, Phase, Progress, State
from remote_runner.ui.text import count, elapsed, first_line, harmless, size, width

#: A line is pieces of text, each with a style of rich.
Line = list[tuple[str, str]]

_WIDEST_NAME = 32
_STYLES = {
    Phase.WAITING: 'dim',
    Phase.CONNECTING: 'yellow',
    Phase.CONNECTED: 'green',
    Phase.COPYING: 'cyan',
    Phase.READY: 'green',
    Phase.STARTING: 'cyan',
    Phase.RUNNING: 'green',
    Phase.SAME: 'dim',
    Phase.LOST: 'bold red',
    Phase.FAILED: 'bold red',
    Phase.FETCHING: 'cyan',
}
_WORDS = {
    Phase.WAITING: 'waiting',
    Phase.CONNECTING: 'connecting',
    Phase.CONNECTED: 'connected',
    Phase.COPYING: 'copying',
    Phase.READY: 'ready',
    Phase.STARTING: 'starting',
    Phase.RUNNING: 'running',
    Phase.SAME: 'same machine',
    Phase.LOST: 'connection lost',
    Phase.FAILED: 'failed',
    Phase.FETCHING: 'fetching',
}
# Where not all hosts can be shown, these come first; then those that have been at it for longest.
_RANKS = (
    {Phase.COPYING, Phase.STARTING, Phase.FETCHING},
    {Phase.CONNECTING},
    {Phase.CONNECTED, Phase.READY},
    {Phase.RUNNING},
)
# What takes a while, and for how long it has.
_TAKES_TIME = {Phase.CONNECTING, Phase.COPYING, Phase.STARTING, Phase.LOST, Phase.FETCHING}


def frame(progress: Progress, height: int, now: float, hints: Sequence[str] = ()) -> list[Line]:
    """The picture at `now`, of at most `height` lines (at least two).

    Args:
        hints: lines that stand below it, as far as there is room.
    """
    hosts = list(progress.hosts.values())
    below = [*[[(hint, '')] for hint in hints[: max(height - 3, 0)]], _total(progress, now)]
    room = max(height - len(below), 1)
    shown = hosts if len(hosts) <= room else _choose(hosts, room - 1)
    column = min(max((width(harmless(host.name)) for host in hosts), default=0), _WIDEST_NAME)
    lines = [_host_line(host, column, now) for host in shown]
    if len(shown) < len(hosts):
        lines.append([(_rest(hosts, shown), 'dim')])
    return [*lines, *below]


def _choose(hosts: list[Host], room: int) -> list[Host]:
    """The hosts that matter most, in their own order, so that lines move as little as can be.

    Hosts in trouble get half of the room at most: of each the log has a line that stays, work has none.
    """
    by_age = sorted(hosts, key=lambda host: host.since)
    trouble = [host for host in by_age if host.is_in_trouble]
    others = [host for host in by_age if not host.is_in_trouble]
    others.sort(key=lambda host: next((i for i, phases in enumerate(_RANKS) if host.phase in phases), len(_RANKS)))
    busy = sum(host.phase in _RANKS[0] | _RANKS[1] for host in others)
    trouble = trouble[: max(room // 2, room - busy)]
    chosen = {host.name for host in trouble + others[: room - len(trouble)]}
    return [host for host in hosts if host.name in chosen]


def _rest(hosts: list[Host], shown: list[Host]) -> str:
    names = {host.name for host in shown}
    phases = Counter(_WORDS[host.phase] for host in hosts if host.name not in names)
    return f'… and {phases.total()} more: ' + ', '.join(f'{number} {word}' for word, number in phases.most_common())


def _host_line(host: Host, column: int, now: float) -> Line:
    name = harmless(host.name)
    style = 'red' if host.is_in_trouble and host.phase in (Phase.STARTING, Phase.RUNNING) else _STYLES[host.phase]
    line = [(name + ' ' * (column - width(name)) + '  ', ''), (_doing(host, now), style)]
    if host.phase in _TAKES_TIME and now - host.since >= 1:
        line.append((f'  {elapsed(now - host.since)}', 'dim'))
    return line


def _doing(host: Host, now: float) -> str:
    match host.phase:
        case Phase.COPYING | Phase.FETCHING:
            return _copying(_WORDS[host.phase], [host], now)
        case Phase.STARTING:
            number = f'{host.started}/{host.of_index[host.index]}'
            return f'starting: {number} components of index {host.index}{_trouble(host.states)}'
        case Phase.RUNNING:
            return _running(host)
        case Phase.SAME:
            return f'same machine as {harmless(host.same_as)}'
        case Phase.LOST | Phase.FAILED:
            return f'{_WORDS[host.phase]}: {first_line(host.error.removeprefix(f"{host.name}: "))}'
    return _WORDS[host.phase]


def _copying(word: str, hosts: Sequence[Host], now: float) -> str:
    """How far the copying to, or from, these hosts is."""
    sent, to_send = sum(host.sent for host in hosts), sum(host.to_send for host in hosts)
    done, files = sum(host.files_done for host in hosts), sum(host.files for host in hosts)
    text = f'{word}: {100 * sent // to_send if to_send else 0:3} %, {size(sent)} of {size(to_send)}, '
    text += f'{done} of {count(files, "file")}' if done else count(files, 'file')
    rate = sum(host.rate(now) for host in hosts)
    if rate < 1:
        return text
    text += f', {size(int(rate))}/s'
    left = (to_send - sent) / rate
    return f'{text}, {elapsed(ceil(left))} left' if left > 0 else text


def _running(host: Host) -> str:
    states = host.states
    ended = states[State.EXITED] + states[State.STOPPED]
    parts = [f'{number} {word}' for number, word in ((_alive(states), 'running'), (ended, 'ended')) if number]
    return f'{count(states.total(), "component")}: {(", ".join(parts) + _trouble(states)).lstrip(", ")}'


def _trouble(states: Counter[State]) -> str:
    return ''.join(f', {states[s]} {s}' for s in (State.FAILED, State.UNKNOWN, State.ABORTED) if states[s])


def _total(progress: Progress, now: float) -> Line:
    states, hosts = progress.states, progress.hosts.values()
    untouched = states[State.NOT_STARTED]
    if untouched < states.total():
        ran = _alive(states) + states[State.EXITED] + states[State.STOPPED]
        text = f'{ran} of {count(states.total(), "component")} started'
        if states[State.STARTING]:
            text += f' (index {progress.index})'
        text += _trouble(states)
    else:
        phases = Counter(host.phase for host in hosts)
        away = sum(phases[phase] for phase in (Phase.WAITING, Phase.CONNECTING, Phase.FAILED, Phase.LOST))
        if progress.session:
            text = f'{len(hosts) - away} of {count(len(hosts), "host")} connected'
        else:
            text = f'{phases[Phase.READY] + phases[Phase.SAME]} of {count(len(hosts), "host")} ready'
        text += ''.join(f', {phases[p]} {_WORDS[p]}' for p in (Phase.FAILED, Phase.LOST) if phases[p])
    copying = [host for host in hosts if host.to_send]
    if len(copying) > 1 and any(host.is_copying and host.sent for host in copying):
        word = next(_WORDS[host.phase] for host in copying if host.is_copying)
        text += f'; {_copying(word, copying, now)}'
    taken = now - (progress.begun if progress.begun is not None else now)
    return [(text, 'bold')] + ([(f'  {elapsed(taken)}', 'dim')] if taken >= 1 else [])


def _alive(states: Counter[State]) -> int:
    return states[State.STARTED] + states[State.READY] + states[State.RESTARTING]
