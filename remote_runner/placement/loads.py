"""The loads of the hosts of a cluster, and the best of them: the daemon knows them, or connections of our own tell."""

from __future__ import annotations

import glob
from collections.abc import Collection, Sequence
from typing import Any, Protocol

from remote_runner.errors import NoDaemon, NoHostFits
from remote_runner.hosts.address import Address, parse_address
from remote_runner.placement.ask import ask
from remote_runner.placement.choose import Known, Report, Score, Wanted, best, why_not
from remote_runner.placement.keeper import Cluster
from remote_runner.placement.member import LOST, UP, HostState


class Loads(Protocol):
    """Who knows the loads of hosts."""

    def hosts(self) -> list[HostState]:
        """All hosts."""

    def best(self, wanted: Wanted, count: int, peek: bool) -> list[str]:
        """The names of the best hosts for so many commands, see `Cluster.choose`.

        Raises:
            NoHostFits, RequestFailed: none will do.
        """


class OwnLoads:
    """Those of a cluster that is connected for this command alone."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def hosts(self) -> list[HostState]:
        """See `Loads`."""
        return self._cluster.hosts()

    def best(self, wanted: Wanted, count: int, peek: bool) -> list[str]:
        """See `Loads`."""
        return [name for name, _ in self._cluster.choose(wanted, count, peek)]


class DaemonsLoads:
    """Those that the daemon of this user knows.

    Args:
        rate: the user's own evaluation function; None: the daemon's.
        names: the hosts that are meant; None: all that it has.
    """

    def __init__(self, rate: Score | None = None, names: Collection[str] | None = None) -> None:
        self._rate = rate
        self._names = names

    def hosts(self) -> list[HostState]:
        """See `Loads`."""
        found = [_state(told) for told in ask('hosts')['hosts']]
        found = [state for state in found if self._names is None or state.address.where in self._names]
        return [state._replace(score=self._score(state)) for state in found]

    def best(self, wanted: Wanted, count: int, peek: bool) -> list[str]:
        """See `Loads`."""
        if self._names is not None:
            wanted = wanted._replace(hosts=tuple(map(glob.escape, self._names)))
        if self._rate is None:
            return _best(wanted, count, peek)
        chosen = self._ranked(wanted, count, self._rate)
        for name in () if peek else chosen:
            _best(Wanted(hosts=(glob.escape(name),)), 1, peek)  # it counts as chosen from now on
        return chosen

    def _score(self, state: HostState) -> float | None:
        known = as_known(state)
        return state.score if self._rate is None or known is None else self._rate(known)

    def _ranked(self, wanted: Wanted, count: int, rate: Score) -> list[str]:
        """The choice by a function that the daemon does not have."""
        states = self.hosts()
        up = {known.name: known for known in map(as_known, states) if known is not None}
        found: list[str] = []
        while len(found) < count:
            chosen = best(up.values(), wanted, rate)
            if chosen is None:
                reasons = {state.address.where: state.error or 'it is not connected yet' for state in states}
                reasons |= {name: why_not(known, wanted) or '' for name, known in up.items()}
                raise NoHostFits(reasons, out_of_reach=bool(reasons) and not up)
            found.append(chosen.name)
            up[chosen.name] = chosen._replace(virtual=chosen.virtual + 1.0)
        return found


def find_daemon(rate: Score | None, addresses: Sequence[Address] | None) -> DaemonsLoads | None:
    """What the daemon knows, if there is one that has all these hosts with these weights; None as `addresses`: any.

    Raises:
        RequestFailed, RemoteRunnerError: see `ask`.
    """
    try:
        has = {_key(state.address) for state in map(_state, ask('hosts')['hosts'])}
    except NoDaemon:
        return None
    if addresses is None:
        return DaemonsLoads(rate)
    if not has.issuperset(map(_key, addresses)):
        return None
    return DaemonsLoads(rate, {address.where for address in addresses})


def as_known(state: HostState) -> Known | None:
    """What an evaluation function gets; None: the host cannot be chosen."""
    if state.state != UP or state.report is None:
        return None
    return Known(state.address, state.report, state.virtual, state.ended)


def will_do(state: HostState, wanted: Wanted) -> bool:
    """Whether a host may be chosen, or could be if it were not lost."""
    known = as_known(state) or Known(state.address, state.report or _NOTHING, state.virtual)
    if state.report is None:
        wanted = wanted._replace(platform=None, min_memory=0, max_load=None)  # nobody knows
    return why_not(known, wanted) is None


def by_score(states: Sequence[HostState]) -> list[HostState]:
    """The best one first, those that are lost at the end."""
    order = {UP: 0, LOST: 2}
    return sorted(states, key=lambda state: (order.get(state.state, 1), state.score or 0.0))


_NOTHING = Report(0.0, 1, 0, 0, 0, 0, 0, 0, '')


def _best(wanted: Wanted, count: int, peek: bool) -> list[str]:
    names: list[str] = ask('best', wanted=wanted._asdict(), count=count, peek=peek)['hosts']
    return names


def _state(told: dict[str, Any]) -> HostState:
    """A host as the daemon tells of it, see `wire.py`."""
    weights = (told['load_weight'], told['memory_weight'])
    report = Report(**told['report']) if told['report'] is not None else None
    rest = {name: told[name] for name in ('state', 'error', 'age', 'virtual', 'ended', 'score', 'identity')}
    return HostState(address=parse_address(told['name'])._replace(weights=weights), report=report, **rest)


def _key(address: Address) -> tuple[object, ...]:
    return address.where, (*address.weights, 1.0, 1.0)[:2]
