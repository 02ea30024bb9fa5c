"""The hosts of a cluster, kept connected, with their loads as fresh as they send them; and the choice among them.

    with Cluster(connector, addresses) as cluster:
        cluster.start()
        cluster.wait_until_up(30.0)
        [(name, host)] = cluster.choose(Wanted(min_memory=2 << 30))

A host that is silent for three reports, or whose connection breaks, is lost: it is not chosen, and it is connected to
again after delays that grow. Where commands of ours still run on a host that has become silent, its connection is left
alone: the host speaks again, or the connection counts as dead (`hosts/transport.py`) and takes them with it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

from remote_runner.defaults import FANOUT
from remote_runner.errors import (
    AuthenticationFailed,
    ConnectionLost,
    HostError,
    HostSilent,
    NoHostFits,
    RemoteRunnerError,
    RequestFailed,
)
from remote_runner.hosts.address import Address
from remote_runner.hosts.host import INTERRUPTIBLE, Call, Host
from remote_runner.hosts.pool import HEARTBEAT, Opens, connect
from remote_runner.placement.choose import Known, Report, Score, VirtualLoad, Wanted, best, score, unwanted, why_not

#: Seconds between two reports of a host.
INTERVAL = 1.5
#: So many of them that do not come mean that it is lost.
MISSED = 3
#: Seconds that the first one of a connection may take: the agent begins with it.
FIRST = 30.0
#: Seconds after which a host that was lost is connected to again: at first, and at most.
FIRST_DELAY, MOST_DELAY = 1.0, 60.0
#: Seconds after which one is tried again that has not let us in: many attempts may lock the user out.
REFUSED_DELAY = 600.0
#: How the hosts are.
UP, CONNECTING, LOST = 'up', 'connecting', 'lost'


class HostState(NamedTuple):
    """How a host of the cluster is.

    Args:
        address: as the user wrote it.
        state: `up`; `connecting`: it was not tried yet, or its first report is awaited; `lost`: it is tried again.
        error: why it is not up, without its name.
        report: the last one; None: there was none over the last connection.
        age: seconds since that came.
        virtual: processes that were given to it and that its load does not show yet.
        score: lower is better; None: it is not up.
        identity: the same for all names of one machine and user; None: it was never connected to.
    """

    address: Address
    state: str
    error: str | None
    report: Report | None
    age: float | None
    virtual: float
    score: float | None
    identity: str | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, and the daemon's answers; see `wire.py`."""
        load_weight, memory_weight = (*self.address.weights, 1.0, 1.0)[:2]
        return {
            'name': self.address.where,
            'state': self.state,
            'error': self.error,
            'report': self.report and self.report._asdict(),
            'age': self.age,
            'virtual': self.virtual,
            'score': self.score,
            'load_weight': load_weight,
            'memory_weight': memory_weight,
            'identity': self.identity,
        }


class _Member:
    """One host of the cluster. All of it belongs to the cluster's lock."""

    def __init__(self, address: Address, now: float) -> None:
        self.address = address
        self.virtual = VirtualLoad()
        self.state = CONNECTING
        self.error: RemoteRunnerError | None = None
        self.host: Host | None = None
        self.identity: str | None = None
        #: The member that is the same machine, while that is up.
        self.twin: _Member | None = None
        #: The request that makes it report.
        self.call: Call | None = None
        self.report: Report | None = None
        self.heard = now
        self.up_since: float | None = None
        #: When it is to be connected to, or asked again; None: it is connected, or nobody knows yet whether it can be.
        self.due: float | None = now
        self.failures = 0
        self.is_wanted = True

    @property
    def name(self) -> str:
        return self.address.where

    def known(self, now: float) -> Known | None:
        """What a choice needs to know; None: it cannot be chosen."""
        if self.state != UP or self.report is None:
            return None
        return Known(self.address, self.report, self.virtual.at(now))


class Cluster:
    """Hosts that are kept connected, and their loads. Thread-safe; a context manager that closes the connections.

    Args:
        connector: makes the connections; it is not closed with this.
        addresses: the hosts, with their weights.
        rate: the evaluation function: lower is better. What it raises is raised by `hosts` and `choose`.
        interval: seconds between two reports of a host.
        clock: seconds that never go back.
        jitter: between 0 and 1, for delays.
        fanout: hosts that are connected to at the same time.
    """

    def __init__(
        self,
        connector: Opens,
        addresses: Iterable[Address],
        *,
        rate: Score = score,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        fanout: int = FANOUT,
    ) -> None:
        self._connector = connector
        self._rate = rate
        self._interval = interval
        self._clock = clock
        self._jitter = jitter
        self._fanout = fanout
        self._members = {address.where: _Member(address, clock()) for address in addresses}
        #: Members that are not wanted any more, where commands still run.
        self._leaving: list[_Member] = []
        self._changed = threading.Condition()
        self._choosing = threading.Lock()
        self._connecting = 0
        self._is_closed = threading.Event()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- what others ask -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect to all hosts, in the background."""
        for work, name in ((self._keep, 'cluster'), (self._beat, 'heartbeat')):
            threading.Thread(target=work, name=name, daemon=True).start()

    def wait_until_up(self, timeout: float, *, every: bool = True) -> bool:
        """Wait until each host is up or has failed, or (not `every`) until one is up or all have failed.

        For `timeout` seconds at most; whether one is up then.
        """
        deadline = self._clock() + timeout
        with self._changed:
            while True:
                states = [member.state for member in self._members.values()]
                if CONNECTING not in states or (not every and UP in states):
                    break
                left = deadline - self._clock()
                if left <= 0:
                    break
                self._changed.wait(min(left, INTERRUPTIBLE))
            return UP in states

    def hosts(self) -> list[HostState]:
        """All hosts, in the order of the user's list.

        Raises:
            UserCodeError: the user's evaluation function failed.
        """
        found = []
        with self._changed:
            now = self._clock()
            members = [(member, member.known(now), self._state(member, now)) for member in self._members.values()]
        for _, known, state in members:
            found.append(state if known is None else state._replace(score=self._rate(known)))
        return found

    def choose(
        self, wanted: Wanted = Wanted(), count: int = 1, peek: bool = False, key: object = None  # noqa: B008
    ) -> list[tuple[str, Host]]:
        """The best hosts for so many commands, one after the other: a host that is much better may be there repeatedly.

        Args:
            wanted: which hosts will do.
            count: how many.
            peek: whether this is a question alone: else each choice counts as load for a while.
            key: the command that will run there, until `ended` is told of it; its `count` is 1. None: nobody will tell.

        Raises:
            NoHostFits: none will do; the reason of each is in it.
            UserCodeError: the user's evaluation function failed.
        """
        found: list[tuple[str, Host]] = []
        given: dict[str, float] = {}  # what this call has given, where it only asks
        with self._choosing:
            while len(found) < count:
                with self._changed:
                    now = self._clock()
                    known = [member.known(now) for member in self._members.values()]
                up = [each._replace(virtual=each.virtual + given.get(each.name, 0.0)) for each in known if each]
                chosen = best(up, wanted, self._rate)
                if chosen is None:
                    raise self._none(up, wanted)
                with self._changed:
                    member = self._members.get(chosen.name)
                    if member is None or member.state != UP or member.host is None:
                        continue  # it was lost while it was chosen
                    if peek:
                        given[chosen.name] = given.get(chosen.name, 0.0) + 1.0
                    elif key is None:
                        member.virtual.choose(now)
                    else:
                        member.virtual.begin(key, now)
                    found.append((chosen.name, member.host))
        return found

    def ended(self, name: str, key: object) -> None:
        """The command of this key, which was given to this host, has ended."""
        with self._changed:
            for member in self._all():
                if member.name == name:
                    member.virtual.end(key, self._clock())
            self._changed.notify_all()  # its connection may have stayed open for that alone

    def set_addresses(self, addresses: Iterable[Address]) -> None:
        """These are the hosts from now on: new ones are connected to, others are left once no command runs there.

        Those that are lost are tried at once.
        """
        with self._changed:
            now = self._clock()
            before, self._members = self._members, {}
            for address in addresses:
                member = before.pop(address.where, None) or self._returning(address) or _Member(address, now)
                member.address = address
                member.due = now if member.due is not None else None
                self._members[address.where] = member
            for member in before.values():
                member.is_wanted = False
                self._leaving.append(member)
            self._changed.notify_all()

    def close(self) -> None:
        """Close all connections. Safe to call twice."""
        with self._changed:
            self._is_closed.set()
            hosts = [member.host for member in [*self._members.values(), *self._leaving] if member.host is not None]
            self._changed.notify_all()
        for host in hosts:
            host.dismiss()
        for host in hosts:
            host.close()

    # ---- what it makes of what it knows ----------------------------------------------------------------------------

    def _state(self, member: _Member, now: float) -> HostState:
        error = None if member.error is None else str(member.error).removeprefix(f'{member.name}: ')
        age = max(0.0, now - member.heard) if member.report is not None else None
        virtual = member.virtual.at(now)
        return HostState(member.address, member.state, error, member.report, age, virtual, None, member.identity)

    def _none(self, up: Sequence[Known], wanted: Wanted) -> NoHostFits:
        """Why no host will do; those that were not meant are left out."""
        reasons = {each.name: why_not(each, wanted) for each in up}
        found: dict[str, str] = {}
        is_out_of_reach = True
        with self._changed:
            for member in self._members.values():
                if unwanted(member.address, wanted) is None:
                    lost = member.error.what if member.error is not None else 'it is not connected yet'
                    found[member.name] = reasons.get(member.name) or lost
                    is_out_of_reach &= member.name not in reasons
            others = len(self._members) - len(found)
        return NoHostFits(found, others, out_of_reach=bool(found) and is_out_of_reach)

    def _returning(self, address: Address) -> _Member | None:
        """A host that was to be left, and is wanted again."""
        for member in self._leaving:
            if member.name == address.where and member.host is not None:
                self._leaving.remove(member)
                member.is_wanted = True
                return member
        return None

    # ---- the thread that looks after them --------------------------------------------------------------------------

    def _keep(self) -> None:
        """Connect to hosts that are due, and lose those that are silent, until `close`."""
        while True:
            with self._changed:
                if self._is_closed.is_set():
                    return
                now = self._clock()
                for member in self._all():
                    self._look_at(member, now)
                closing = [host for host in map(self._given_up, self._all()) if host is not None]
                self._leaving = [member for member in self._leaving if member.host is not None]
                due = [member for member in self._members.values() if member.due is not None and member.due <= now]
                due = due[: self._fanout - self._connecting]
                for member in due:
                    member.due = None
                self._connecting += len(due)
                if not (closing or due):
                    self._changed.wait(self._pause())
            for host in closing:
                _in_background(host.close, host.name)
            for member in due:
                _in_background(self._reach, member.name, member)

    def _all(self) -> list[_Member]:
        return [*self._members.values(), *self._leaving]

    def _look_at(self, member: _Member, now: float) -> None:
        """See what has become of a host; the lock is held."""
        if member.call is not None and member.call.ended:
            self._lose(member, _why_ended(member.call))
        elif _is_awaited(member) and now - member.heard > self._patience(member):
            self._lose(member, HostSilent(f'it has been silent for {self._patience(member):g} s', host=member.name))
        if member.twin is not None and (member.twin.host is None or not member.twin.is_wanted):
            member.twin, member.due = None, now  # it can be had under this name alone

    def _given_up(self, member: _Member) -> Host | None:
        """The connection of a host, if it is to be closed: it is broken, or of no use, and no command needs it."""
        host = member.host
        if host is None:
            return None
        is_useless = not member.is_wanted or isinstance(member.error, HostSilent)
        is_broken = member.error is not None and not isinstance(member.error, HostSilent | RequestFailed)
        if not is_broken and (not is_useless or member.virtual.running):
            return None
        member.host = member.call = None
        if member.is_wanted:
            self._try_again(member)
        return host

    def _pause(self) -> float:
        """Seconds until something may be due."""
        now = self._clock()
        times = [now + HEARTBEAT]
        times += [member.heard + self._patience(member) for member in self._all() if _is_awaited(member)]
        if self._connecting < self._fanout:
            times += [member.due for member in self._members.values() if member.due is not None]
        return max(0.01, min(times) - now)

    def _patience(self, member: _Member) -> float:
        """Seconds without a report after which a host is silent."""
        return MISSED * self._interval if member.state == UP else max(FIRST, MISSED * self._interval)

    def _lose(self, member: _Member, error: RemoteRunnerError) -> None:
        """A host is of no use for now; the lock is held."""
        member.state, member.error = LOST, error
        if isinstance(error, RequestFailed) or member.host is None:
            member.call = None
            self._try_again(member)
        self._changed.notify_all()

    def _try_again(self, member: _Member) -> None:
        """Say when: after a delay that grows while it does not stay up; the lock is held."""
        now = self._clock()
        if member.up_since is not None and now - member.up_since > MOST_DELAY:
            member.failures = 0
        member.up_since = None
        member.due = now + delay_after(member.failures, member.error, self._jitter())
        member.failures += 1

    def _beat(self) -> None:
        """Without a sign of life for a minute an agent ends."""
        while not self._is_closed.wait(HEARTBEAT):
            with self._changed:
                hosts = [member.host for member in self._all() if member.host is not None and member.state == UP]
            for host in hosts:
                host.beat()

    # ---- one host --------------------------------------------------------------------------------------------------

    def _reach(self, member: _Member) -> None:
        """Let a host report, and connect to it if need be. In a thread of its own."""
        host = member.host
        try:
            host = host or self._accepted(member, connect(member.address, self._connector))
            if host is not None:
                self._ask(member, host)
        except RemoteRunnerError as error:
            with self._changed:
                self._lose(member, error)
        finally:
            with self._changed:
                self._connecting -= 1
                self._changed.notify_all()

    def _accepted(self, member: _Member, host: Host) -> Host | None:
        """The new connection of a host, or None: it is not wanted."""
        with self._changed:
            member.identity = host.facts.identity
            twin = next((other for other in self._members.values() if _is_twin(other, member)), None)
            if twin is None and member.is_wanted and not self._is_closed.is_set():
                member.host, member.error, member.state = host, None, CONNECTING
                return host
            if twin is not None:
                member.state, member.twin = LOST, twin
                member.error = HostError(f'it is another name of {twin.name}', host=member.name)
        host.close()
        return None

    def _ask(self, member: _Member, host: Host) -> None:
        call = host.call('load', on_part=partial(self._take, member, host), on_end=self._wake, interval=self._interval)
        with self._changed:
            if member.host is host:
                member.call = call
                member.heard = self._clock()
                self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _take(self, member: _Member, host: Host, part: dict[str, Any], body: bytes) -> None:
        """A report; in the reading thread of a host."""
        report = Report(**part)
        with self._changed:
            if member.host is not host:
                return
            now = self._clock()
            member.report, member.heard = report, now
            if member.state == UP:
                return
            was_silent = isinstance(member.error, HostSilent)
            member.state, member.error = UP, None
            member.up_since = member.up_since or now
            self._changed.notify_all()
        if was_silent:  # and so were we
            _in_background(host.beat, host.name)


def delay_after(failures: int, error: RemoteRunnerError | None, jitter: float) -> float:
    """Seconds until a host is tried again that was lost for this reason, after so many failures before."""
    most = min(MOST_DELAY, FIRST_DELAY * 2.0 ** min(failures, 30))
    if isinstance(error, AuthenticationFailed):
        most = REFUSED_DELAY
    return most * (0.5 + jitter / 2)


def _is_awaited(member: _Member) -> bool:
    """Whether a report should come, or have come."""
    return member.call is not None and not isinstance(member.error, HostSilent)


def _is_twin(other: _Member, member: _Member) -> bool:
    """Whether the other one is the same machine and user, and connected."""
    return other is not member and other.host is not None and other.identity == member.identity


def _why_ended(call: Call) -> RemoteRunnerError:
    """Why a host does not report any more."""
    try:
        call.result(0.0)
    except RemoteRunnerError as error:
        return error
    return ConnectionLost('it has stopped to report')


def _in_background(work: Callable[..., object], name: str, *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, name=f'cluster {name}', daemon=True).start()
