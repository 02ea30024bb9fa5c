"""The output of components as lines, those of many hosts in the order of their times.

What there is comes from each component in its own stream, and the streams are merged; what comes later arrives host by
host and is brought into order over a moment. Each component's position is known at all times, so that nothing is lost
or told twice when a connection breaks.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, Full, Queue
from typing import NamedTuple

from remote_runner.deploy.seen import Seen
from remote_runner.deploy.session import Session
from remote_runner.deploy.watch import reconnect_until
from remote_runner.errors import HostError, RemoteRunnerError
from remote_runner.hosts.host import INTERRUPTIBLE, Call, Header, Host

log = logging.getLogger(__name__)

#: Bytes of one component's output that may be under way: hundreds are read at once.
WINDOW = 1 << 17
#: Bytes of a line that is told in pieces because it does not end.
LONGEST_LINE = 1 << 16
#: Pieces of output that wait to be told; whoever brings more of it waits.
WAITING = 16
#: Lines that are brought into order at once.
MOST_LINES = 10_000
#: Seconds in which lines of several hosts that come late are still brought into order.
SETTLE = 0.03


class Line(NamedTuple):
    """One line of output.

    Args:
        time: when it began to be written, Unix time by this machine's clock.
        label: `name@host` of its component.
        text: without its end.
    """

    time: float
    label: str
    text: bytes


class Piece(NamedTuple):
    """A piece of output as it came: its component, where it stands, when it was written, and itself."""

    source: Source
    position: int
    time: float
    data: bytes


#: What followers of hosts bring: pieces, or why one of them cannot go on.
Arrived = Queue[Piece | RemoteRunnerError]


class Source:
    """The output of one component, cut into lines.

    Args:
        seen: the component.

    Attributes:
        position: how much of it has come.
    """

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.label = seen.label
        self.position: int | None = None
        self._rest = b''
        self._begun = 0.0

    def take(self, position: int, when: float, data: bytes) -> Iterator[Line]:
        """A piece that stands at `position`, written at `when`; the lines that are whole now."""
        if self.position is not None and position > self.position:
            gone = position - self.position + len(self._rest)  # half a line would be mistaken for a whole one
            self._rest = b''
            yield Line(when, self.label, b'[remote_runner: %d bytes are not kept any more (log_limit)]' % gone)
        self.position = position + len(data)
        *lines, rest = data.split(b'\n')
        for line in lines:
            yield Line(self._begun if self._rest else when, self.label, (self._rest + line).removesuffix(b'\r'))
            self._rest = b''
        if rest:
            self._begun = self._begun if self._rest else when
            self._rest += rest
            if len(self._rest) > LONGEST_LINE:
                yield from self.flush()

    def flush(self) -> Iterator[Line]:
        """What stands at the end without a newline."""
        if self._rest:
            yield Line(self._begun, self.label, self._rest)
            self._rest = b''


def history(
    session: Session, sources: Sequence[Source], lines: int | None = None, since: float | None = None
) -> Iterator[Line]:
    """What there is, in the order of times. Where a connection breaks the rest is told before that is raised.

    Args:
        session: connected.
        sources: the components.
        lines: how many of each, the last ones; None: all.
        since: only what was written then (Unix time) or later; None: ever.

    Raises:
        HostError: a connection broke.
    """
    failures = [outcome for _, outcome in session.pool.each(Host.look_at_clock) if outcome is not None]
    streams = []
    for source in sources:
        host = session.pool.hosts[source.seen.at]
        try:
            streams.append(_read(source, host, _begin(session, host, source.seen, lines, since), failures))
        except HostError as error:
            failures.append(error)
    yield from heapq.merge(*streams, key=lambda line: line.time)
    if failures:
        raise failures[0]


def _begin(session: Session, host: Host, seen: Seen, lines: int | None, since: float | None) -> Call:
    asked: Header = {
        'session': session.session,
        'runs': [seen.run],
        'names': [seen.name],
        'positions': {},
        'lines': lines,
        'since': None if since is None else since + host.clock_offset,
        'follow': False,
        'window': WINDOW,
    }
    return host.call('logs', **asked)


def _read(source: Source, host: Host, call: Call, failures: list[RemoteRunnerError]) -> Iterator[Line]:
    try:
        for (_, *place), data in call.parts():
            if place:
                yield from source.take(place[0], place[1] - host.clock_offset, data)
        source.position = call.result()['positions'].get(source.seen.name, source.position)
    except RemoteRunnerError as error:
        failures.append(error)


def follow(
    session: Session,
    sources: Sequence[Source],
    tell: Callable[[Line], None],
    flush: Callable[[], None],
    lines: int | None = None,
    since: float | None = None,
) -> None:
    """Tell what comes, from the positions of `sources` on, until interrupted; through restarts and broken connections.

    A host that cannot be asked any more for another reason than its connection ends the telling.

    Args:
        session: connected.
        sources: the components.
        tell: gets each line.
        flush: called when no more lines are there at the moment.
        lines, since: where to begin with a source of which nothing has come, see `history`.

    Raises:
        RemoteRunnerError: that reason.
    """
    arrived: Arrived = Queue(WAITING)
    over = threading.Event()
    for name in dict.fromkeys(source.seen.at for source in sources):
        own = {source.seen.name: source for source in sources if source.seen.at == name}
        arguments = (session, name, own, lines, since, arrived, over)
        threading.Thread(target=_follow_host, args=arguments, name=f'logs {name}', daemon=True).start()
    try:
        while True:
            for line in _batch(arrived):
                tell(line)
            flush()
    finally:
        over.set()


def _batch(arrived: Arrived) -> list[Line]:
    """The lines that came within a moment, in the order of their times."""
    found: list[Line] = []
    deadline: float | None = None
    while True:
        left = INTERRUPTIBLE if deadline is None else deadline - time.monotonic()
        try:
            item = arrived.get(timeout=left) if left > 0 else arrived.get_nowait()
        except Empty:
            if deadline is None:
                continue
            break
        if isinstance(item, RemoteRunnerError):
            raise item
        found += item.source.take(item.position, item.time, item.data)
        deadline = deadline or time.monotonic() + SETTLE
        if time.monotonic() > deadline + SETTLE or len(found) > MOST_LINES:
            break
    return _in_order(found)


def _in_order(lines: list[Line]) -> list[Line]:
    """By their times, but those of one component as they came, though its host's clock were set back."""
    latest: dict[str, float] = {}

    def moment(line: Line) -> float:
        latest[line.label] = max(line.time, latest.get(line.label, line.time))
        return latest[line.label]

    return [line for _, _, line in sorted((moment(line), number, line) for number, line in enumerate(lines))]


def _follow_host(
    session: Session,
    name: str,
    sources: dict[str, Source],
    lines: int | None,
    since: float | None,
    arrived: Arrived,
    over: threading.Event,
) -> None:
    """One host, connected to again when its connection breaks."""

    def put(item: Piece | RemoteRunnerError) -> None:
        while not over.is_set():
            try:
                arrived.put(item, timeout=INTERRUPTIBLE)
                break
            except Full:
                continue

    positions = {name: source.position for name, source in sources.items() if source.position is not None}
    while not over.is_set():
        try:
            _follow_connection(session, session.pool.hosts[name], sources, positions, lines, since, put)
        except HostError as error:
            log.warning('%s', error)
            reconnect_until(name, session.reconnect, over)
        except RemoteRunnerError as error:
            put(error)
            return


def _follow_connection(
    session: Session,
    host: Host,
    sources: dict[str, Source],
    positions: dict[str, int],
    lines: int | None,
    since: float | None,
    put: Callable[[Piece], None],
) -> None:
    host.look_at_clock()
    asked: Header = {
        'session': session.session,
        'runs': list({source.seen.run for source in sources.values()}),
        'names': list(sources),
        'positions': positions,
        'lines': lines,
        'since': None if since is None else since + host.clock_offset,
        'follow': True,
        'window': WINDOW,
    }
    call = host.call('logs', **asked)
    for (name, *place), data in call.parts():
        if place:
            put(Piece(sources[name], place[0], place[1] - host.clock_offset, data))
            positions[name] = place[0] + len(data)
    call.result()
