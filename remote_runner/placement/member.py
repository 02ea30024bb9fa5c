"""One host of a cluster that is kept connected: how it is, and what is to be done about it.

A host that is silent (`SILENCE`), or whose connection breaks, is lost: it is not chosen, and it is connected to again
after delays that grow. Where commands of ours still run on a host that has become silent, its connection is left
alone: the host speaks again, or the connection counts as dead (`hosts/transport.py`) and takes them with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from remote_runner.errors import (
    AuthenticationFailed,
    ConnectionLost,
    HostError,
    HostSilent,
    RemoteRunnerError,
    RequestFailed,
)
from remote_runner.hosts.address import Address
from remote_runner.hosts.call import Call
from remote_runner.hosts.host import Host
from remote_runner.placement.choose import Known, Report, VirtualLoad

#: So many intervals without any report mean that a host is lost: of two reports that say the same it sends one.
SILENCE = 4
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
        ended: so much of `virtual` is of commands that have ended.
    """

    address: Address
    state: str
    error: str | None
    report: Report | None
    age: float | None
    virtual: float
    score: float | None
    identity: str | None
    ended: float = 0.0

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
            'ended': self.ended,
            'score': self.score,
            'load_weight': load_weight,
            'memory_weight': memory_weight,
            'identity': self.identity,
        }


class Member:
    """One host of a cluster, and what is to be done about it. All of it belongs to the cluster's lock.

    Args:
        address: of the host.
        interval: seconds between two reports.
        clock: seconds that never go back.
        jitter: between 0 and 1, for delays.
    """

    def __init__(
        self, address: Address, interval: float, clock: Callable[[], float], jitter: Callable[[], float]
    ) -> None:
        self._interval = interval
        self._clock = clock
        self._jitter = jitter
        self.address = address
        self.virtual = VirtualLoad()
        self.state = CONNECTING
        self.error: RemoteRunnerError | None = None
        self.host: Host | None = None
        self.identity: str | None = None
        #: The member that is the same machine, while that is up.
        self.twin: Member | None = None
        #: The request that makes it report.
        self.call: Call | None = None
        self.report: Report | None = None
        self.heard = clock()
        #: Until when it does not count as silent, since we did not listen; None: we did.
        self._excused: float | None = None
        self._up_since: float | None = None
        #: When it is to be connected to, or asked again; None: it is connected, or nobody knows yet whether it can be.
        self.due: float | None = clock()
        self._failures = 0
        self.is_wanted = True

    @property
    def name(self) -> str:
        """As the user wrote it, without weights."""
        return self.address.where

    def known(self) -> Known | None:
        """What a choice needs to know; None: it cannot be chosen."""
        if self.state != UP or self.report is None:
            return None
        now = self._clock()
        return Known(self.address, self.report, self.virtual.at(now), self.virtual.ended(now))

    def told(self) -> HostState:
        """How it is, but for its score."""
        now = self._clock()
        error = None if self.error is None else str(self.error).removeprefix(f'{self.name}: ')
        age = max(0.0, now - self.heard) if self.report is not None else None
        virtual, ended = self.virtual.at(now), self.virtual.ended(now)
        return HostState(self.address, self.state, error, self.report, age, virtual, None, self.identity, ended)

    def is_twin_of(self, other: Member) -> bool:
        """Whether it is the same machine and user as the other one, and connected."""
        return self is not other and self.host is not None and self.identity == other.identity

    # ---- what happens to it ----------------------------------------------------------------------------------------

    def connected(self, host: Host) -> None:
        """There is a new connection."""
        self.host, self.error, self.state = host, None, CONNECTING

    def asked(self, call: Call) -> None:
        """It reports from now on."""
        self.call, self.heard = call, self._clock()

    def take(self, report: Report) -> None:
        """It has reported."""
        now = self._clock()
        self.report, self.heard, self._excused = report, now, None
        if self.state != UP:
            self.state, self.error = UP, None
            self._up_since = self._up_since or now

    def lose(self, error: RemoteRunnerError) -> None:
        """It is of no use for now."""
        self.state, self.error = LOST, error
        if isinstance(error, RequestFailed) or self.host is None:
            self.call = None
            self._try_again()

    def is_other_name_of(self, twin: Member) -> None:
        """It is of no use as long as the other one is connected."""
        self.state, self.twin = LOST, twin
        self.error = HostError(f'it is another name of {twin.name}', host=self.name)

    # ---- what is to be done about it -------------------------------------------------------------------------------

    def look(self) -> bool:
        """See what has become of it; whether it is lost now."""
        now = self._clock()
        if self.twin is not None and (self.twin.host is None or not self.twin.is_wanted):
            self.twin, self.due = None, now  # it can be had under this name alone
        if self.call is not None and self.call.ended:
            self.lose(_why_ended(self.call))
        elif self._is_awaited and now > self._silent_from:
            self.lose(HostSilent(f'it has been silent for {self._patience:g} s', host=self.name))
        else:
            return False
        return True

    def excuse(self) -> None:
        """We could not listen for a while (we were stopped, say): what it said meanwhile may still be unread.

        Once only until it is heard again, so that who is always late still finds that a host is silent.
        """
        if self._excused is None:
            self._excused = self._clock() + self._patience

    def give_up(self) -> Host | None:
        """The connection, if it is to be closed: it is broken, or of no use, and no command needs it."""
        host = self.host
        if host is None:
            return None
        is_useless = not self.is_wanted or isinstance(self.error, HostSilent)
        is_broken = self.error is not None and not isinstance(self.error, HostSilent | RequestFailed)
        if not is_broken and (not is_useless or self.virtual.running):
            return None
        self.host = self.call = None
        if self.is_wanted:
            self._try_again()
        return host

    def times(self) -> Iterator[float]:
        """When there may be something to do about it, but for what is `due`."""
        if self._is_awaited:
            yield self._silent_from

    @property
    def _is_awaited(self) -> bool:
        """Whether a report should come, or have come."""
        return self.call is not None and not isinstance(self.error, HostSilent)

    @property
    def _silent_from(self) -> float:
        """When it counts as silent, unless it reports before."""
        return max(self.heard + self._patience, self._excused or 0.0)

    @property
    def _patience(self) -> float:
        """Seconds without a report after which it is silent."""
        return SILENCE * self._interval if self.state == UP else max(FIRST, SILENCE * self._interval)

    def _try_again(self) -> None:
        """Say when: after a delay that grows while it does not stay up."""
        now = self._clock()
        if self._up_since is not None and now - self._up_since > MOST_DELAY:
            self._failures = 0
        self._up_since = None
        self.due = now + delay_after(self._failures, self.error, self._jitter())
        self._failures += 1


def delay_after(failures: int, error: RemoteRunnerError | None, jitter: float) -> float:
    """Seconds until a host is tried again that was lost for this reason, after so many failures before."""
    most = min(MOST_DELAY, FIRST_DELAY * 2.0 ** min(failures, 30))
    if isinstance(error, AuthenticationFailed):
        most = REFUSED_DELAY
    return most * (0.5 + jitter / 2)


def _why_ended(call: Call) -> RemoteRunnerError:
    """Why a host does not report any more."""
    try:
        call.result(0.0)
    except RemoteRunnerError as error:
        return error
    return ConnectionLost('it has stopped to report')
