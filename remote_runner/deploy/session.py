"""A session that stands: its hosts, connected, and its components as they are there.

    with Session(target, connector) as session:
        session.connect()
        for seen in session.components: ...

What a later command works on comes from the hosts themselves; a record, a config or a list of hosts only says where to
look, and what should be there.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from remote_runner.defaults import FANOUT
from remote_runner.deploy.board import Board, Tracked
from remote_runner.deploy.holder import CHANGE, lock, whoami
from remote_runner.deploy.plan import ComponentPlan, FetchPlan, Plan
from remote_runner.deploy.record import Record
from remote_runner.deploy.secrets import Secrets
from remote_runner.errors import ConnectionLost, HostError, HostsFailed, RemoteRunnerError, UsageError
from remote_runner.events import Event, Events, HostConnected, HostConnecting, HostFailed
from remote_runner.hosts.address import Address, parse_address
from remote_runner.hosts.host import Header, Host
from remote_runner.hosts.pool import Opens, Pool

log = logging.getLogger(__name__)

#: Seconds that one host has to say how its components are.
SURVEY_TIMEOUT = 30.0
#: States in which a component has gone wrong.
WRONG = frozenset(['failed', 'killed', 'gone', 'unknown', 'aborted'])
#: States in which it runs, or will by itself.
ALIVE = frozenset(['starting', 'started', 'ready', 'restarting', 'stopping'])


class Target(NamedTuple):
    """Where to look for a session, and what should be there.

    Args:
        session: its name.
        addresses: its hosts.
        runs: whose components count although they have ended; None: those of the newest run of each host.
        expected: what should be there: component and host (as the user wrote it), with their start indexes.
    """

    session: str
    addresses: tuple[Address, ...]
    runs: tuple[str, ...] | None = None
    expected: tuple[tuple[str, str, int], ...] = ()

    @classmethod
    def of_record(cls, record: Record) -> Target:
        """What a record says."""
        expected = tuple((c['name'], c['host'], c['start_index']) for c in record.components)
        hosts = dict.fromkeys(host for _, host, _ in expected)
        return cls(record.session, tuple(parse_address(host) for host in hosts), (record.run,), expected)

    @classmethod
    def of_plan(cls, plan: Plan) -> Target:
        """What a config says."""
        expected = tuple((c.name, c.host, c.start_index) for c in plan.components)
        return cls(plan.session, tuple(dict.fromkeys(c.address for c in plan.components)), None, expected)

    @classmethod
    def of_hosts(cls, session: str, addresses: Iterable[Address]) -> Target:
        """What hosts alone say."""
        return cls(session, tuple(addresses))


@dataclass
class Seen:
    """A component as its host shows it.

    Args:
        name, host: what identifies it; the host as the config wrote it.
        index: its start index.
        at: the name under which its host is connected; '' where that is out of reach.
        run: the run to which it belongs.
        by: who started it.
        state: starting, started, ready, restarting, stopping, stopped, exited, failed, aborted, killed (its launcher
            was), gone (nobody saw its end), unknown (its host is out of reach), missing (its host knows nothing of it).
        ready: whether it is ready; None: it does not run.
        pid: of its program.
        window: its window in the screen session.
        started, ended: when, Unix time by this machine's clock.
        uptime: seconds for which it has run; None: it does not run.
        status: its exit status (128 + n for signal n).
        restarts: how often its launcher has started it again.
        said: what it says of itself.
        reason: why it failed, or what is wrong.
        cpu: seconds of processor time that all its processes have used.
        memory: bytes of memory that they hold (resident).
        processes: how many they are.
        left: pids of processes that nobody watches over, which are being ended.
    """

    name: str
    host: str
    index: int = 0
    at: str = ''
    run: str = ''
    by: str = ''
    state: str = 'unknown'
    ready: bool | None = None
    pid: int | None = None
    window: int | None = None
    started: float | None = None
    ended: float | None = None
    uptime: float | None = None
    status: int | None = None
    restarts: int = 0
    said: str = ''
    reason: str = ''
    cpu: float | None = None
    memory: int | None = None
    processes: int | None = None
    left: tuple[int, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        """`name@host`."""
        return f'{self.name}@{self.host}'

    @property
    def is_alive(self) -> bool:
        """Whether its program runs, or will again by itself."""
        return self.state in ALIVE

    @property
    def is_wrong(self) -> bool:
        """Whether it has gone wrong."""
        return self.state in WRONG or (self.state == 'exited' and bool(self.status))

    def order(self) -> tuple[int, int]:
        """Where it stands in the order of starts."""
        return self.index, self.facts['about']['wave'] if self.facts else 0

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is not known is not there."""
        values = {name: value for name, value in vars(self).items() if name not in ('facts', 'at')}
        return {name: value for name, value in values.items() if value is not None and value not in ('', ())}

    def plan(self) -> ComponentPlan:
        """The part of its plan that its host remembers."""
        about = self.facts['about']
        return ComponentPlan(
            self.name,
            self.host,
            parse_address(self.host),
            '',
            start_index=self.index,
            wave=about['wave'],
            wait=about['wait'],
            critical=about['critical'],
            ready={} if self.facts['has_readiness'] else None,
            start_timeout=self.facts['start_timeout'],
            start_grace=self.facts['start_grace'],
            stop_timeout=self.facts['stop_timeout'],
            fetch=tuple(FetchPlan(*pair) for pair in about['fetch']),
            base_dir=self.facts['cwd'],
        )


class Session:
    """A session on its hosts. A context manager that closes the connections; what runs stays.

    Args:
        target: where to look.
        connector: makes the connections.
        events: hears of connections, and (once watched) of what becomes of components.

    Attributes:
        components: all that should be there or are, by start index.
        failures: the hosts that cannot be had, and why.
        board: what is watched.
    """

    def __init__(
        self, target: Target, connector: Opens, events: Events, fanout: int = FANOUT, *, leave: bool = False
    ) -> None:
        self.target = target
        self.session = target.session
        self.components: list[Seen] = []
        self.failures: dict[str, RemoteRunnerError] = {}
        self.servers: dict[str, list[int]] = {}
        self.events = events
        self._is_quiet = False
        own = Events()
        own.listen(self._pass_on)
        self.board = Board(own)
        self.pool = Pool(connector, self.board.hear, fanout, leave=leave)

    def __enter__(self) -> Session:
        return self

    def keep_secret(self, password: str) -> None:
        """From now on no event shows it."""
        self.events.mask = Secrets([password]).mask

    def _pass_on(self, event: Event) -> None:
        if not self._is_quiet:
            self.events.emit(event)

    def __exit__(self, *_: object) -> None:
        self.pool.close()

    def connect(self) -> None:
        """Connect to all hosts and look; those that cannot be had are in `failures`."""
        self._connect(self.target.addresses)
        self.look()

    def come_back(self) -> None:
        """Connect again to hosts that could not be had, or that are lost."""
        for name in [*self.board.lost, *self.failures]:
            self.pool.forget(name)
        wanted = [a for a in self.target.addresses if a.where in self.failures or a.where in self.board.lost]
        self.board.lost.clear()
        self.failures.clear()
        self._connect(wanted)

    def _connect(self, addresses: Iterable[Address]) -> None:
        for address in addresses:
            self.events.emit(HostConnecting(host=address.where))
        begun = time.monotonic()
        machines = {host.facts.identity for host in self.pool.hosts.values()}
        for address, outcome in self.pool.connect(addresses):
            if not isinstance(outcome, Host):
                self._fail(address.where, outcome)
            elif outcome.facts.identity in machines:
                self.pool.forget(address.where)
            else:
                machines.add(outcome.facts.identity)
                self.events.emit(HostConnected(host=address.where, seconds=time.monotonic() - begun))

    def _fail(self, name: str, error: RemoteRunnerError) -> None:
        self.failures[name] = error
        self.events.emit(HostFailed(host=name, error=str(error)))

    def require_all(self) -> None:
        """Raises:
        HostsFailed: a host cannot be had.
        """
        if self.failures:
            raise HostsFailed(list(self.failures.values()), 'nothing was changed on any host')

    def look(self) -> None:
        """Ask all connected hosts how their components are."""
        found: dict[str, Seen] = {}
        for host, answer in self.pool.each(self._ask):
            if isinstance(answer, RemoteRunnerError):
                self._fail(host.name, answer)
            else:
                self._take(host, answer, found)
        for name, on, index in self.target.expected:
            seen = found.setdefault(f'{name}@{on}', Seen(name, on, index))
            failure = self.failures.get(parse_address(on).where)
            if seen.at:
                continue
            seen.state = 'unknown' if failure else 'missing'
            seen.reason = failure.what if failure else 'its host knows nothing of it'
        self.components = sorted(found.values(), key=Seen.order)

    def _ask(self, host: Host, *, watch: bool = False) -> Header:
        runs = None if self.target.runs is None else list(self.target.runs)
        answer: Header = host.request('survey', timeout=SURVEY_TIMEOUT, session=self.session, runs=runs, watch=watch)
        return answer

    def _take(self, host: Host, answer: Header, found: dict[str, Seen]) -> None:
        self.servers[host.name] = answer['servers'].get(self.session, [])
        for facts in answer['components']:
            seen = seen_of(facts, host.name, answer['now'], time.time())
            found[seen.label] = seen

    # ---- which of them ----------------------------------------------------------------------------------------

    def named(self, patterns: Iterable[str]) -> list[Seen]:
        """The components that are meant: `publisher*`, `name@host`, `*@host`; without any pattern all of them.

        Raises:
            UsageError: a pattern means none of them.
        """
        patterns = list(patterns)
        if not patterns:
            return self.components
        meant: set[str] = set()
        for pattern in patterns:
            own = {seen.label for seen in self.components if is_meant(seen, pattern)}
            if not own:
                there = ', '.join(seen.label for seen in self.components[:10]) or 'none'
                what = f'no component of session {self.session} is called {pattern!r}'
                raise UsageError(what, remedy=f'there: {there}')
            meant |= own
        return [seen for seen in self.components if seen.label in meant]

    # ---- watching and changing --------------------------------------------------------------------------------

    def watch(self, seen: Iterable[Seen]) -> list[Tracked]:
        """Put components on the board, where from now on stands what becomes of them."""
        own = {one.label: one for one in seen if one.at}
        for one in own.values():
            self.board.add(one.plan(), one.at)
        found: dict[str, Seen] = {}
        hosts = {one.at for one in own.values()}
        self._is_quiet = True  # what has become of them so far is no news
        for host, answer in self.pool.each(lambda host: self._ask(host, watch=True) if host.name in hosts else None):
            if isinstance(answer, RemoteRunnerError):
                self._fail(host.name, answer)
            elif answer is not None:
                self._take(host, answer, found)
        tracked = [tracked for tracked in self.board.all() if tracked.key in own]
        for each in tracked:
            self._restore(each, found.get(each.key))
        self._is_quiet = False
        return tracked

    def _restore(self, tracked: Tracked, seen: Seen | None) -> None:
        if seen is None:
            self.board.restore(tracked, None)
            return
        tracked.window = seen.window if seen.window is not None else -1
        tracked.launcher = seen.facts['alive']
        self.board.restore(tracked, {**seen.facts['status'], 'alive': seen.facts['alive']})

    def reconnect(self, name: str) -> None:
        """Connect to a host again, and learn what became of its components.

        Raises:
            HostError: it is still out of reach.
        """
        address = next(address for address in self.target.addresses if address.where == name)
        loss = self.board.lost.get(name)
        self.events.emit(HostConnecting(host=name))
        begun = time.monotonic()
        host = self.pool.reconnect(address)
        own = {tracked.key: tracked for tracked in self.board.all() if tracked.host == name}
        unknown = self.board.sight_again(own.values())
        found: dict[str, Seen] = {}
        try:
            self._take(host, self._ask(host, watch=True), found)
        except RemoteRunnerError as error:
            self.board.lose_sight(unknown, error.what)
            if isinstance(error, HostError):
                raise
            raise ConnectionLost(f'the host cannot say what runs there: {error.what}', host=name) from error
        self.board.found(name, loss)
        for label, tracked in own.items():
            self._restore(tracked, found.get(label))
        self.events.emit(HostConnected(host=name, seconds=time.monotonic() - begun))

    def lock(self, hosts: Iterable[str]) -> None:
        """Be the only one who changes this session on these hosts.

        Raises:
            SessionHeld: somebody else does.
        """
        me = whoami()
        wanted = set(hosts)
        self.each(lambda host: lock(host, self.session, me, [CHANGE]), wanted)

    def each(self, work: Callable[[Host], None], hosts: Iterable[str]) -> None:
        """Do `work` on these hosts in parallel.

        Raises:
            RemoteRunnerError: the first error, when all are done.
        """
        wanted = set(hosts)
        failures = [
            outcome
            for _, outcome in self.pool.each(lambda host: work(host) if host.name in wanted else None)
            if outcome is not None
        ]
        if len(failures) > 1:
            raise HostsFailed(failures, 'the other hosts did what was asked')
        if failures:
            raise failures[0]


def is_meant(seen: Seen, pattern: str) -> bool:
    """Whether a pattern of the command line means this component."""
    return any(text == pattern or fnmatchcase(text, pattern) for text in (seen.name, seen.label))


def seen_of(facts: Header, at: str, now: float, here: float) -> Seen:
    """What a host says of a component (operation `survey`).

    Args:
        at: the name under which the host is connected.
        now: the time by the host's clock when it said so; here: by ours. Its times are told by our clock.
    """
    status, usage = facts['status'], facts['usage'] or {}
    seen = Seen(facts['name'], facts['host'], facts['about']['index'], at, facts['run'], facts['by'], facts=facts)
    seen.state = status['state']
    if seen.state == 'exited' and status.get('reason'):
        seen.state = 'failed'
    seen.pid, seen.window, seen.status = status.get('pid'), status.get('window'), status.get('exit_status')
    seen.restarts = status.get('restarts', 0)
    seen.said, seen.reason = status.get('said', ''), status.get('reason', '')
    seen.left = tuple(facts['left'])
    if 'started' in status:
        seen.started = status['started'] + here - now
    if 'ended' in status:
        seen.ended = status['ended'] + here - now
    if seen.is_alive:
        seen.ready = bool(facts['ready']) and seen.state in ('started', 'ready')
    if seen.is_alive and seen.started is not None and seen.state != 'restarting':
        seen.uptime = max(0.0, here - seen.started)
    seen.cpu, seen.memory, seen.processes = usage.get('cpu'), usage.get('memory'), usage.get('processes')
    seen.reason = seen.reason or _explained(seen)
    if status.get('log_errno'):
        trouble = f'its output cannot be written there: {os.strerror(status["log_errno"])}'
        seen.reason = '; '.join(filter(None, [seen.reason, trouble]))
    return seen


def _explained(seen: Seen) -> str:
    if seen.left:
        return f'its launcher was killed; {len(seen.left)} processes that it left are being ended'
    if seen.state == 'gone':
        return 'nobody saw its end; was the host restarted?'
    return ''


def counts(components: Iterable[Seen]) -> Counter[str]:
    """How many are in which state."""
    return Counter(seen.state for seen in components)
