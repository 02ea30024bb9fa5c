"""A session that stands: its hosts, connected, and its components as they are there.

    with Session(target, connector) as session:
        session.connect()
        for seen in session.components: ...

What a later command works on comes from the hosts themselves; a record, a config or a list of hosts only says where to
look, and what should be there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from remote_runner.defaults import FANOUT
from remote_runner.deploy.board import Board, Tracked
from remote_runner.deploy.holder import CHANGE, lock, whoami
from remote_runner.deploy.secrets import Secrets
from remote_runner.deploy.seen import Seen, all_seen
from remote_runner.deploy.target import Target, is_meant
from remote_runner.errors import (
    ConnectionLost,
    HostError,
    HostsFailed,
    HostSilent,
    RemoteRunnerError,
    SessionFailed,
    TimeIsUp,
    UsageError,
)
from remote_runner.events import Event, Events, HostConnected, HostConnecting, HostFailed
from remote_runner.hosts.address import Address, fold, parse_address
from remote_runner.hosts.call import Header
from remote_runner.hosts.host import Host
from remote_runner.hosts.pool import Opens, Pool
from remote_runner.nearest import ALIKE, nearest

#: Seconds that one host has to say how its components are.
SURVEY_TIMEOUT = 30.0
#: Components that a message lists.
LISTED = 10

Result = TypeVar('Result')


class Session:
    """A session on its hosts. A context manager that closes the connections; what runs stays.

    Args:
        target: where to look.
        connector: makes the connections.
        events: hears of connections, and (once watched) of what becomes of components.
        deadline: by when (time.monotonic) its hosts must be connected and have said how they are; None: no matter when.

    Attributes:
        components: all that should be there or are, by start index.
        failures: the hosts that cannot be had, and why.
        board: what is watched.
    """

    def __init__(
        self,
        target: Target,
        connector: Opens,
        events: Events,
        fanout: int = FANOUT,
        *,
        leave: bool = False,
        deadline: float | None = None,
    ) -> None:
        self.target = target
        self.session = target.session
        self.components: list[Seen] = []
        self.failures: dict[str, RemoteRunnerError] = {}
        self.servers: dict[str, list[int]] = {}
        self.events = events
        self._deadline = deadline
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
        """Connect to all hosts and look; those that cannot be had are in `failures`.

        Raises:
            TimeIsUp: not all hosts have answered at the deadline.
        """
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

    def _connect(self, addresses: Sequence[Address]) -> None:
        for address in addresses:
            self.events.emit(HostConnecting(host=address.where))
        begun = time.monotonic()
        machines = self.machines()
        left = {address.where: None for address in addresses}
        for address, outcome in self.pool.connect(addresses, self._deadline):
            left.pop(address.where, None)
            self.meet(address, outcome, machines, begun)
        if left:
            raise TimeIsUp(f'the time was up before there was a connection to {fold(left)}')

    def machines(self) -> dict[str, str]:
        """What the connected hosts are, and the name under which each is connected."""
        return {host.facts.identity: name for name, host in list(self.pool.hosts.items())}

    def meet(self, address: Address, outcome: Host | RemoteRunnerError, machines: dict[str, str], begun: float) -> None:
        """What came of connecting to a host, which may be one of `machines` under another name; else it is one now."""
        if not isinstance(outcome, Host):
            self._fail(address.where, outcome)
        elif machines.setdefault(outcome.facts.identity, address.where) != address.where:
            self._same[address.where] = machines[outcome.facts.identity]
            self.pool.forget(address.where)
        else:
            self.events.emit(HostConnected(host=address.where, seconds=time.monotonic() - begun))

    def is_other_name(self, name: str) -> bool:
        """Whether this is a further name of a host that was connected under another one."""
        return name in self._same

    def _each(self, work: Callable[[Host], Result]) -> Iterator[tuple[Host, Result | RemoteRunnerError]]:
        """Ask all connected hosts, until the deadline."""
        left = dict.fromkeys(self.pool.hosts)
        for host, outcome in self.pool.each(work, self._deadline):
            left.pop(host.name, None)
            yield host, outcome
        if left:
            raise TimeIsUp(f'the time was up before it was known how components are on {fold(left)}')

    def lose(self, name: str, error: RemoteRunnerError) -> None:
        """The connection to a host is of no use any more."""
        self.board.lost.pop(name, None)
        self.failures[name] = error
        self.pool.forget(name)

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
        seen: dict[str, list[Seen]] = {}
        for host, answer in self._each(lambda host: self._ask(host, timeout=timeout)):
            if isinstance(answer, RemoteRunnerError):
                self._fail(host.name, answer)
            else:
                self.failures.pop(host.name, None)
                seen[host.name] = self.hear(host, answer)
        self.arrange(seen)

    def arrange(self, seen: Mapping[str, Iterable[Seen]]) -> None:
        """Make `components` of what hosts have said. What a host that is in `failures` said last is unknown now."""
        found = {f'{name}@{on}': Seen(name, on, index) for name, on, index in self.target.expected}
        # In an order of our own, not that of the answers: two looks show the same table.
        for name in self._names():
            failure = self.failures.get(name)
            own = seen.get(name, ())
            found.update((one.label, one if failure is None else _out_of_sight(one, failure)) for one in own)
        expected = {f'{name}@{on}' for name, on, _ in self.target.expected}
        if expected:  # a later part of the run may have gone without what has ended since
            found = {label: one for label, one in found.items() if one.is_there or label in expected}
        for one in found.values():
            if not one.facts:
                where = parse_address(one.host).where
                failure = self.failures.get(self._same.get(where, where))
                one.state = 'unknown' if failure else 'missing'
                one.reason = failure.what if failure else 'its host knows nothing of it'
        self.components = sorted(found.values(), key=Seen.order)

    def _names(self) -> list[str]:
        """The hosts, in the order in which they were written."""
        return [address.where for address in self.target.addresses]

    def _ask(self, host: Host, timeout: float = SURVEY_TIMEOUT, **how: bool | list[str]) -> Header:
        try:
            answer: Header = host.request('survey', timeout=timeout, **self.question(), **how)
        except HostSilent as error:
            what = f'it has not said within {timeout:g} s how its components are'
            raise HostSilent(what, host=host.name, remedy=error.remedy) from error
        return answer

    def question(self) -> Header:
        """What a host is asked by operation `survey`."""
        return {'session': self.session, 'runs': None if self.target.runs is None else list(self.target.runs)}

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

    def hear(self, host: Host, answer: Header) -> list[Seen]:
        """What a host has answered to `question`."""
        self.servers[host.name] = answer['servers'].get(self.session, [])
        return all_seen(answer, host.name)

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
            for host, answer in self._each(
                lambda host: self._ask(host, watch=True, names=names[host.name]) if host.name in names else None
            ):
                if isinstance(answer, RemoteRunnerError):
                    self._fail(host.name, answer)
                elif answer is not None:
                    found.update((one.label, one) for one in self.hear(host, answer))
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
        # Its launcher may have ended while the host was answering: that is heard before the answer.
        tracked.launcher = seen.facts['alive'] and tracked.last_word is None
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
            found.update((one.label, one) for one in self.hear(host, self._ask(host, watch=True, names=names)))
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

        def hold(host: Host) -> None:
            lock(host, self.session, me, [CHANGE])

        self.each(hold, wanted)

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


def _out_of_sight(seen: Seen, why: RemoteRunnerError) -> Seen:
    """What is left to be said of a component whose host cannot be asked any more."""
    return Seen(seen.name, seen.host, seen.index, run=seen.run, by=seen.by, reason=why.what, facts=seen.facts)


def _who_is_there(pattern: str, components: Sequence[Seen]) -> str:
    """The component whose name is the nearest, and a few of the others."""

    labels = [seen.label for seen in components]
    names = {name: seen.label for seen in reversed(components) for name in (seen.name, seen.label)}
    alike = nearest(pattern, names, ALIKE)
    hints = [f'the nearest is {names[alike]}'] if alike else []
    more = f' and {len(labels) - LISTED} more' if len(labels) > LISTED else ''
    return '; '.join([*hints, f'there: {", ".join(labels[:LISTED]) or "none"}{more}'])


def survey_run(
    host: Host, session: str, run: str, *, watch: bool = False, names: list[str] | None = None
) -> list[Seen]:
    """The components of one run on a host, of these names or all.

    `watch`: its agent passes on what becomes of them from now on.
    """
    answer = host.request('survey', timeout=SURVEY_TIMEOUT, session=session, runs=[run], watch=watch, names=names)
    return all_seen(answer, host.name)
