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
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import NamedTuple

from remote_runner.deploy.holder import is_held
from remote_runner.deploy.seen import Seen, all_seen
from remote_runner.deploy.session import SURVEY_TIMEOUT, Session
from remote_runner.deploy.watch import reconnect_until
from remote_runner.errors import HostError, RemoteRunnerError
from remote_runner.hosts.call import INTERRUPTIBLE, Call, Header
from remote_runner.hosts.host import Host

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
#: Seconds between two looks whether anything is left that may write more, at least and at most. In between they are
#: so many times what a look takes: it has to read the specs of all components of its host.
LOOK, LAST_LOOK = 1.0, 10.0
EASE = 20


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


#: What followers of hosts bring: pieces, or why one of them cannot go on; None: all components have ended for good.
Arrived = Queue[Piece | RemoteRunnerError | None]


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
    session: Session,
    sources: Sequence[Source],
    lines: int | None = None,
    since: float | None = None,
    *,
    is_all: bool = False,
) -> Iterator[Line]:
    """What there is, in the order of times. Where a connection breaks the rest is told before that is raised.

    Args:
        session: connected.
        sources: the components, each from its position on, if it has one.
        lines: how many of each that has none, the last ones; None: all.
        since: only what was written then (Unix time) or later; None: ever.
        is_all: nothing will be read after it: what stands at an end without a newline is a line.

    Raises:
        HostError: a connection broke.
    """
    there = {source.seen.at for source in sources}
    looks = session.pool.each(lambda host: host.look_at_clock() if host.name in there else None)
    failures = [outcome for _, outcome in looks if outcome is not None]
    streams = []
    for source in sources:
        host = session.pool.hosts[source.seen.at]
        try:
            call = _begin(session, host, source, lines, since)
            streams.append(_read(source, host, call, failures, is_all))
        except HostError as error:
            failures.append(error)
    yield from heapq.merge(*streams, key=lambda line: line.time)
    if failures:
        raise failures[0]


def _begin(session: Session, host: Host, source: Source, lines: int | None, since: float | None) -> Call:
    seen = source.seen
    asked: Header = {
        'session': session.session,
        'runs': [seen.run],
        'names': [seen.name],
        'positions': {} if source.position is None else {seen.name: source.position},
        'lines': lines,
        'since': None if since is None else since + host.clock_offset,
        'follow': False,
        'window': WINDOW,
    }
    return host.call('logs', **asked)


def _read(
    source: Source, host: Host, call: Call, failures: list[RemoteRunnerError], is_all: bool
) -> Iterator[Line]:
    try:
        for (_, *place), data in call.parts():
            if place:
                yield from source.take(place[0], place[1] - host.clock_offset, data)
        source.position = call.result()['positions'].get(source.seen.name, source.position)
    except RemoteRunnerError as error:
        failures.append(error)
    if is_all:
        yield from source.flush()


def follow(
    session: Session,
    sources: Sequence[Source],
    tell: Callable[[Line], None],
    flush: Callable[[], None],
    lines: int | None = None,
    since: float | None = None,
) -> None:
    """Tell what comes, from the positions of `sources` on, until all components have ended for good.

    It goes on through restarts, by their hosts or by somebody's `restart`, and through broken connections. A host that
    cannot be asked any more for another reason than its connection ends the telling.

    Args:
        session: connected.
        sources: the components.
        tell: gets each line.
        flush: called when no more lines are there at the moment.
        lines, since: where to begin with a source of which nothing has come, see `history`.

    Raises:
        RemoteRunnerError: that reason.
    """
    while sources:
        _follow_while_they_live(session, sources, tell, flush, lines, since)
        try:
            for line in history(session, sources, lines, since):
                tell(line)
        except HostError as error:
            log.warning('%s', error)
        else:
            return


def _follow_while_they_live(
    session: Session,
    sources: Sequence[Source],
    tell: Callable[[Line], None],
    flush: Callable[[], None],
    lines: int | None,
    since: float | None,
) -> None:
    """What has come may not be all yet when this returns."""
    following = _Following(session, lines, since)
    for name in dict.fromkeys(source.seen.at for source in sources):
        own = {source.seen.name: source for source in sources if source.seen.at == name}
        following.begin(f'logs {name}', following.host, name, own)
    following.begin('logs end', following.end, sources)
    try:
        is_over = False
        while not is_over:
            found, is_over = _batch(following.arrived)
            for line in found:
                tell(line)
            flush()
    finally:
        following.stop()


def _batch(arrived: Arrived) -> tuple[list[Line], bool]:
    """The lines that came within a moment, in the order of their times; and whether all components have ended."""
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
        if item is None:
            return _in_order(found), True
        found += item.source.take(item.position, item.time, item.data)
        deadline = deadline or time.monotonic() + SETTLE
        if time.monotonic() > deadline + SETTLE or len(found) > MOST_LINES:
            break
    return _in_order(found), False


def _in_order(lines: list[Line]) -> list[Line]:
    """By their times, but those of one component as they came, though its host's clock were set back."""
    latest: dict[str, float] = {}

    def moment(line: Line) -> float:
        latest[line.label] = max(line.time, latest.get(line.label, line.time))
        return latest[line.label]

    return [line for _, _, line in sorted((moment(line), number, line) for number, line in enumerate(lines))]


class _Following:
    """The threads that follow: one a host, and one that finds out when nothing more can come.

    Args:
        lines, since: see `history`.

    Attributes:
        arrived: what they bring.
    """

    def __init__(self, session: Session, lines: int | None, since: float | None) -> None:
        self.arrived: Arrived = Queue(WAITING)
        self._session = session
        self._lines = lines
        self._since = since
        self._over = threading.Event()
        self._calls: dict[str, Call] = {}

    def begin(self, name: str, work: Callable[..., None], *arguments: object) -> None:
        """Let a thread do this."""
        threading.Thread(target=work, args=arguments, name=name, daemon=True).start()

    def stop(self) -> None:
        """Follow no more."""
        self._over.set()
        for call in list(self._calls.values()):
            with suppress(HostError):
                call.cancel()

    def _put(self, item: Piece | RemoteRunnerError | None) -> None:
        while not self._over.is_set():
            try:
                self.arrived.put(item, timeout=INTERRUPTIBLE)
                break
            except Full:
                continue

    # ---- one host ---------------------------------------------------------------------------------------------

    def host(self, name: str, sources: dict[str, Source]) -> None:
        """Follow components of one host, connected to again when its connection breaks."""
        positions = {name: source.position for name, source in sources.items() if source.position is not None}
        while not self._over.is_set():
            try:
                self._follow(name, sources, positions)
            except HostError as error:
                if not self._over.is_set():
                    log.warning('%s', error)
                reconnect_until(name, self._session.reconnect, self._over)
            except RemoteRunnerError as error:
                self._put(error)
                return

    def _follow(self, name: str, sources: dict[str, Source], positions: dict[str, int]) -> None:
        host = self._session.pool.hosts[name]
        host.look_at_clock()
        asked: Header = {
            'session': self._session.session,
            'runs': list({source.seen.run for source in sources.values()}),
            'names': list(sources),
            'positions': positions,
            'lines': self._lines,
            'since': None if self._since is None else self._since + host.clock_offset,
            'follow': True,
            'window': WINDOW,
        }
        call = self._calls[name] = host.call('logs', **asked)
        if self._over.is_set():
            call.cancel()
        for (component, *place), data in call.parts():
            if place:
                self._put(Piece(sources[component], place[0], place[1] - host.clock_offset, data))
                positions[component] = place[0] + len(data)
        call.result()

    # ---- the end ----------------------------------------------------------------------------------------------

    def end(self, sources: Sequence[Source]) -> None:
        """Wait until all have ended for good; as long as a host is out of reach, or silent, nobody knows."""
        witness: Seen | None = None  # as long as one is there, the others need not be asked
        while True:
            begun = time.monotonic()
            try:
                if witness is None or not self._there([witness]):
                    witness = self._first_that_lives(sources)
                if witness is None:
                    self._put(None)
                    return
            except HostError as error:
                log.debug('%s', error)
            except RemoteRunnerError as error:
                self._put(error)
                return
            if self._over.wait(min(max(LOOK, EASE * (time.monotonic() - begun)), LAST_LOOK)):
                return

    def _first_that_lives(self, sources: Sequence[Source]) -> Seen | None:
        """One that runs, or will again; None: nothing does, nor is about to be started by somebody."""
        components: dict[str, list[Seen]] = {}
        for source in sources:
            components.setdefault(source.seen.at, []).append(source.seen)

        def look() -> Seen | None:
            return next((seen for own in components.values() for seen in self._there(own)), None)

        found = look()
        while found is None:
            # In this order: who starts something again holds the session until it runs.
            held = [name for name in components if is_held(self._session.pool.hosts[name], self._session.session)]
            found = look()
            if not held or self._over.wait(LOOK):
                break
        return found

    def _there(self, components: Sequence[Seen]) -> list[Seen]:
        """Those of one host that run, or of which anything does."""
        runs = {seen.name: seen.run for seen in components}
        asked = {'session': self._session.session, 'runs': list(set(runs.values())), 'names': list(runs)}
        host = self._session.pool.hosts[components[0].at]
        answer = host.request('survey', timeout=SURVEY_TIMEOUT, **asked)
        return [seen for seen in all_seen(answer, host.name) if seen.is_there and seen.run == runs[seen.name]]
