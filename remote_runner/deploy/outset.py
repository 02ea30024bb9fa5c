"""Where components run as far as that can be decided before any host is connected: if the daemon knows the hosts.

Light to import: hosts are dialled while the rest is imported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from typing import NamedTuple

from remote_runner.deploy.decide import Choice, decide
from remote_runner.deploy.plan import Plan
from remote_runner.errors import NoHostFits
from remote_runner.hosts.address import Address
from remote_runner.placement.told import NOTHING, Told, hear


class Outset(NamedTuple):
    """Where a run begins.

    Args:
        addresses: the hosts that have to be connected to at first.
        told: what the daemon knows of the hosts that come into question.
        choices: where components run, as far as these hosts can be had; None: others have to be asked first.
    """

    addresses: tuple[Address, ...]
    told: Told = NOTHING
    choices: tuple[Choice, ...] | None = None

    def announce(self) -> None:
        """Tell the daemon what is chosen by now, before anybody else is told to choose the same."""
        self.told.choose(self.chosen(self.choices or ()))

    def chosen(self, choices: Iterable[Choice], alive: Container[tuple[str, str]] = ()) -> Counter[str]:
        """How many processes more there will be on hosts of the daemon.

        Args:
            choices: what is decided.
            alive: (name, host) of those that run there already, and that the load of the host has in it.
        """
        where = [(choice.component.name, choice.address.where) for choice in choices]
        return Counter(host for name, host in where if host in self.told.known and (name, host) not in alive)


def outset(plan: Plan) -> Outset:
    """What the daemon, if there is one, can tell for a plan.

    A host where the last run may have left something is connected to in any case, as is one of which the daemon knows
    nothing; one that it cannot reach is left for when no other one will do.
    """
    candidates = plan.candidates()
    told = hear(candidates) if candidates else NOTHING
    if not told.known:
        return Outset(plan.addresses())
    was = {*plan.before, *(c.placing.was for c in plan.undecided() if c.placing is not None)}
    asked = [each for each in candidates if each.where in was or each.where not in told.known.keys() | told.lost.keys()]
    choices = None if asked else _choices(plan, told)
    at_first = {c.address.where: c.address for c in plan.components if not c.is_undecided}
    for address in asked if choices is None else [choice.address for choice in choices]:
        at_first.setdefault(address.where, address)
    return Outset(tuple(at_first.values()), told, choices)


def _choices(plan: Plan, told: Told) -> tuple[Choice, ...] | None:
    try:
        return tuple(decide(plan, told.known, told.lost, machines=told.machines))
    except NoHostFits:
        return None
