"""A session that stands: its hosts, connected, and its components as they are there.

    with Session(target, connector) as session:
        session.connect()
        for seen in session.components: ...

What a later command works on comes from the hosts themselves; a record, a config or a list of hosts only says where to
look, and what should be there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from remote_runner.defaults import FANOUT
from remote_runner.deploy.board import Board, Tracked
from remote_runner.deploy.holder import CHANGE, lock, whoami
from remote_runner.deploy.plan import Plan
from remote_runner.deploy.record import Record
from remote_runner.deploy.secrets import Secrets
from remote_runner.deploy.seen import Seen, all_seen
from remote_runner.errors import ConnectionLost, HostError, HostsFailed, RemoteRunnerError, SessionFailed, UsageError
from remote_runner.events import Event, Events, HostConnected, HostConnecting, HostFailed
from remote_runner.hosts.address import Address, parse_address
from remote_runner.hosts.host import Header, Host
from remote_runner.hosts.pool import Opens, Pool

#: Seconds that one host has to say how its components are.
SURVEY_TIMEOUT = 30.0
#: Components that a message lists.
LISTED = 10


class Target(NamedTuple):
    """Where to look for a session, and what should be there.

    Args:
        session: its name.
        addresses: its hosts.
        runs: whose components count although they have ended; None: those of the newest run of each host.
        expected: what should be there: component and host (as the user wrote it), with their start indexes.
        home: the folder of the config, or the working directory.
        secrets: what no event shows, as far as it is known.
    """

    session: str
    addresses: tuple[Address, ...]
    runs: tuple[str, ...] | None = None
    expected: tuple[tuple[str, str, int], ...] = ()
    home: Path = Path()
    secrets: Secrets = Secrets()

    @classmethod
    def of_record(cls, record: Record) -> Target:
        """What a record says."""
        expected = tuple((c['name'], c['host'], c['start_index']) for c in record.components)
        hosts = dict.fromkeys(host for _, host, _ in expected)
        addresses = tuple(parse_address(host) for host in hosts)
        return cls(record.session, addresses, (record.run,), expected, _home(record.config_file))

    @classmethod
    def of_plan(cls, plan: Plan) -> Target:
        """What a config says."""
        expected = tuple((c.name, c.host, c.start_index) for c in plan.components)
        addresses = tuple(dict.fromkeys(c.address for c in plan.components))
        return cls(plan.session, addresses, None, expected, Path(plan.config_dir), plan.secrets)

    @classmethod
    def of_hosts(cls, session: str, addresses: Iterable[Address]) -> Target:
        """What hosts alone say."""
        return cls(session, tuple(addresses), home=_home(None))


def _home(config_file: str | None) -> Path:
    return Path(config_file).parent if config_file else Path.cwd()


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
        self._same: dict[str, str] = {}  # further names of hosts, each with that under which it is connected
        self._is_quiet = False
        self._own_events = Events()
        self._own_events.listen(self._pass_on)
        self._mask(target.secrets)
        self.board = Board(self._own_events)
        self.pool = Pool(connector, self.board.hear, fanout, leave=leave)

    def __enter__(self) -> Session:
        return self

    def keep_secret(self, password: str) -> None:
        """From now on no event shows it, and nothing that stands on the board."""
        self._mask(self.target.secrets | Secrets([password]))

    def _mask(self, secrets: Secrets) -> None:
        if secrets:
            self.events.mask = self._own_events.mask = secrets.mask

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
        machines = {host.facts.identity: name for name, host in self.pool.hosts.items()}
        for address, outcome in self.pool.connect(addresses):
            if not isinstance(outcome, Host):
                self._fail(address.where, outcome)
            elif outcome.facts.identity in machines:
                self._same[address.where] = machines[outcome.facts.identity]
                self.pool.forget(address.where)
            else:
                machines[outcome.facts.identity] = address.where
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

    def look(self, timeout: float = SURVEY_TIMEOUT) -> None:
        """Ask all connected hosts how their components are; each has so many seconds."""
        found = {f'{name}@{on}': Seen(name, on, index) for name, on, index in self.target.expected}
        asked = self.pool.each(lambda host: self._ask(host, timeout=timeout))
        answers = {host.name: (host, answer) for host, answer in asked}
        # In an order of our own, not that of the answers: two looks show the same table.
        for host, answer in (answers[name] for name in self._names() if name in answers):
            if isinstance(answer, RemoteRunnerError):
                self._fail(host.name, answer)
            else:
                self._take(host, answer, found)
        expected = {f'{name}@{on}' for name, on, _ in self.target.expected}
        if expected:  # a later part of the run may have gone without what has ended since
            found = {label: seen for label, seen in found.items() if seen.is_there or label in expected}
        for seen in found.values():
            if not seen.at:
                where = parse_address(seen.host).where
                failure = self.failures.get(self._same.get(where, where))
                seen.state = 'unknown' if failure else 'missing'
                seen.reason = failure.what if failure else 'its host knows nothing of it'
        self.components = sorted(found.values(), key=Seen.order)

    def _names(self) -> list[str]:
        """The hosts, in the order in which they were written."""
        return [address.where for address in self.target.addresses]

    def _ask(self, host: Host, timeout: float = SURVEY_TIMEOUT, **how: bool | list[str]) -> Header:
        runs = None if self.target.runs is None else list(self.target.runs)
        answer: Header = host.request('survey', timeout=timeout, session=self.session, runs=runs, **how)
        return answer

    def settle(self, wanted: Iterable[Seen]) -> None:
        """Wait until nothing is left of what killed launchers of these components left.

        Raises:
            SessionFailed: it cannot be ended.
        """
        left = [one for one in wanted if one.left]
        if not left:
            return
        patience = SURVEY_TIMEOUT + max(one.facts['stop_timeout'] for one in left)

        def work(host: Host) -> None:
            answer = self._ask(host, patience, settle=True)
            still = [str(pid) for one in answer['components'] for pid in one['left']]
            if still:
                what = f'these processes, which killed launchers left, could not be ended: {", ".join(still)}'
                raise SessionFailed(what, host=host.name)

        self.each(work, {one.at for one in left})

    def _take(self, host: Host, answer: Header, found: dict[str, Seen]) -> None:
        self.servers[host.name] = answer['servers'].get(self.session, [])
        found.update((seen.label, seen) for seen in all_seen(answer, host.name))

    # ---- which of them ----------------------------------------------------------------------------------------

    def named(self, patterns: Iterable[str]) -> list[Seen]:
        """The components that are meant: `publisher*`, `name@host`, `*@host`; without any pattern all of them.

        Raises:
            UsageError: a pattern means none of them.
            HostsFailed: it may mean one of a host that is out of reach.
        """
        patterns = list(patterns)
        if not patterns:
            return self.components
        meant: set[str] = set()
        for pattern in patterns:
            own = {seen.label for seen in self.components if is_meant(seen, pattern)}
            if not own and self.failures:
                advice = f'nobody can say whether there is a component {pattern!r} in session {self.session}'
                raise HostsFailed(list(self.failures.values()), advice)
            if not own:
                what = f'no component of session {self.session} is called {pattern!r}'
                raise UsageError(what, remedy=_who_is_there(pattern, self.components))
            meant |= own
        return [seen for seen in self.components if seen.label in meant]

    # ---- watching and changing --------------------------------------------------------------------------------

    def watch(self, seen: Iterable[Seen]) -> list[Tracked]:
        """Put components on the board, where from now on stands what becomes of them."""
        own = {one.label: one for one in seen if one.at}
        for one in own.values():
            self.board.add(one.plan(), one.at)
        found: dict[str, Seen] = {}
        names: dict[str, list[str]] = {}
        for one in own.values():
            names.setdefault(one.at, []).append(one.name)
        tracked = [tracked for tracked in self.board.all() if tracked.key in own]
        self._is_quiet = True  # what has become of them so far is no news
        try:
            # Nothing of others: the last word of one that is to be started again is none of its new life.
            for host, answer in self.pool.each(
                lambda host: self._ask(host, watch=True, names=names[host.name]) if host.name in names else None
            ):
                if isinstance(answer, RemoteRunnerError):
                    self._fail(host.name, answer)
                elif answer is not None:
                    self._take(host, answer, found)
            for each in tracked:
                self._restore(each, found.get(each.key))
        finally:
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
            names = [tracked.plan.name for tracked in own.values()]
            self._take(host, self._ask(host, watch=True, names=names), found)
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


def _who_is_there(pattern: str, components: Sequence[Seen]) -> str:
    """The component whose name is the nearest, and a few of the others."""
    from difflib import get_close_matches

    labels = [seen.label for seen in components]
    names = {name: seen.label for seen in reversed(components) for name in (seen.name, seen.label)}
    nearest = [f'the nearest is {names[name]}' for name in get_close_matches(pattern, names, n=1)]
    more = f' and {len(labels) - LISTED} more' if len(labels) > LISTED else ''
    return '; '.join([*nearest, f'there: {", ".join(labels[:LISTED]) or "none"}{more}'])


def survey_run(
    host: Host, session: str, run: str, *, watch: bool = False, names: list[str] | None = None
) -> list[Seen]:
    """The components of one run on a host, of these names or all.

    `watch`: its agent passes on what becomes of them from now on.
    """
    answer = host.request('survey', timeout=SURVEY_TIMEOUT, session=session, runs=[run], watch=watch, names=names)
    return all_seen(answer, host.name)


def is_meant(seen: Seen, pattern: str) -> bool:
    """Whether a pattern of the command line means this component."""
    return any(text == pattern or fnmatchcase(text, pattern) for text in (seen.name, seen.label))
