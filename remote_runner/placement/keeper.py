"""The hosts of a cluster, kept connected, with their loads as fresh as they send them; and the choice among them.

    with Cluster(connector, addresses) as cluster:
        cluster.start()
        cluster.wait_until_up(30.0)
        [(name, host)] = cluster.choose(Wanted(min_memory=2 << 30))

What becomes of one of them is the matter of `member.py`.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from remote_runner.defaults import FANOUT
from remote_runner.errors import HostSilent, NoHostFits, RemoteRunnerError
from remote_runner.hosts.address import Address
from remote_runner.hosts.call import INTERRUPTIBLE
from remote_runner.hosts.host import Host
from remote_runner.hosts.pool import HEARTBEAT, Opens, connect
from remote_runner.placement.choose import Known, Report, Score, Wanted, best, score, unwanted, why_not
from remote_runner.placement.member import CONNECTING, UP, HostState, Member

#: Seconds between two reports of a host.
INTERVAL = 1.5
#: Seconds by which we wake too late that mean that we have been stopped, or have had no processor.
LATE = 0.2


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
        self._members = {address.where: self._new(address) for address in addresses}
        #: Members that are not wanted any more, where commands still run.
        self._leaving: list[Member] = []
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
            members = [(member.known(), member.told()) for member in self._members.values()]
        for known, state in members:
            found.append(state if known is None else state._replace(score=self._rate(known)))
        return found

    def states(self) -> list[HostState]:
        """All hosts, but for their scores: also where the user's evaluation function fails."""
        with self._changed:
            return [member.told() for member in self._members.values()]

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
                    known = [member.known() for member in self._members.values()]
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
                        member.virtual.choose(self._clock())
                    else:
                        member.virtual.begin(key, self._clock())
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
                member = before.pop(address.where, None) or self._returning(address) or self._new(address)
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

    def _none(self, up: Sequence[Known], wanted: Wanted) -> NoHostFits:
        """Why no host will do; those that were not meant are left out, unless none was."""
        reasons = {each.name: why_not(each, wanted) for each in up}
        found: dict[str, str] = {}
        is_out_of_reach = True
        with self._changed:
            for member in self._members.values():
                if unwanted(member.address, wanted) is None:
                    lost = member.error.what if member.error is not None else 'it is not connected yet'
                    found[member.name] = reasons.get(member.name) or lost
                    is_out_of_reach &= member.name not in reasons
            if not found:
                unmeant = {member.name: unwanted(member.address, wanted) or '' for member in self._members.values()}
                return NoHostFits(unmeant)
            others = len(self._members) - len(found)
        return NoHostFits(found, others, out_of_reach=is_out_of_reach)

    def _new(self, address: Address) -> Member:
        return Member(address, self._interval, self._clock, self._jitter)

    def _returning(self, address: Address) -> Member | None:
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
        expected = self._clock()
        while True:
            with self._changed:
                if self._is_closed.is_set():
                    return
                if self._clock() > expected + LATE:
                    for member in self._all():
                        member.excuse()
                lost = [member for member in self._all() if member.look()]
                if lost:
                    self._changed.notify_all()
                closing = [host for member in self._all() if (host := member.give_up()) is not None]
                self._leaving = [member for member in self._leaving if member.host is not None]
                now = self._clock()
                due = [member for member in self._members.values() if member.due is not None and member.due <= now]
                due = due[: self._fanout - self._connecting]
                for member in due:
                    member.due = None
                self._connecting += len(due)
                pause = 0.0 if closing or due else self._pause()
                expected = self._clock() + pause
                if pause:
                    self._changed.wait(pause)
            for host in closing:
                _in_background(host.close, host.name)
            for member in due:
                _in_background(self._reach, member.name, member)

    def _all(self) -> list[Member]:
        return [*self._members.values(), *self._leaving]

    def _pause(self) -> float:
        """Seconds until something may be due."""
        now = self._clock()
        times = [now + HEARTBEAT]
        times += [moment for member in self._all() for moment in member.times()]
        if self._connecting < self._fanout:
            times += [member.due for member in self._members.values() if member.due is not None]
        return max(0.01, min(times) - now)

    def _beat(self) -> None:
        """Without a sign of life for a minute an agent ends."""
        while not self._is_closed.wait(HEARTBEAT):
            with self._changed:
                hosts = [member.host for member in self._all() if member.host is not None and member.state == UP]
            for host in hosts:
                host.beat()

    # ---- one host --------------------------------------------------------------------------------------------------

    def _reach(self, member: Member) -> None:
        """Let a host report, and connect to it if need be. In a thread of its own."""
        host = member.host
        try:
            host = host or self._accepted(member, connect(member.address, self._connector))
            if host is not None:
                self._ask(member, host)
        except RemoteRunnerError as error:
            with self._changed:
                member.lose(error)
                self._changed.notify_all()
        finally:
            with self._changed:
                self._connecting -= 1
                self._changed.notify_all()

    def _accepted(self, member: Member, host: Host) -> Host | None:
        """The new connection of a host, or None: it is not wanted."""
        with self._changed:
            member.identity = host.facts.identity
            twin = next((other for other in self._members.values() if other.is_twin_of(member)), None)
            if twin is None and member.is_wanted and not self._is_closed.is_set():
                member.connected(host)
                return host
            if twin is not None:
                member.is_other_name_of(twin)
        host.close()
        return None

    def _ask(self, member: Member, host: Host) -> None:
        call = host.call('load', on_part=partial(self._take, member, host), on_end=self._wake, interval=self._interval)
        with self._changed:
            if member.host is host:
                member.asked(call)
                self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _take(self, member: Member, host: Host, part: dict[str, Any], body: bytes) -> None:
        """A report; in the reading thread of a host."""
        report = Report(**part)
        with self._changed:
            if member.host is not host:
                return
            was_up, was_silent = member.state == UP, isinstance(member.error, HostSilent)
            member.take(report)
            if was_up:
                return
            self._changed.notify_all()
        if was_silent:  # and so were we
            _in_background(host.beat, host.name)


def _in_background(work: Callable[..., object], name: str, *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, name=f'cluster {name}', daemon=True).start()
