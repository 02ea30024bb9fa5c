"""Components whose hosts are decided when the run is carried out: `util.least_loaded` in a plan.

Until then such a component has a host that is none, `least_loaded(node[1-3])`; `decide.py` decides, and `Plan.placed`
puts the real one in its place. Where a component was in the last run stands in the record of that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from remote_runner.config.least_loaded import LeastLoaded
from remote_runner.deploy.check import Checker
from remote_runner.hosts.address import Address, parse_address

if TYPE_CHECKING:
    from remote_runner.deploy.component_plan import ComponentPlan
    from remote_runner.deploy.plan import Plan
    from remote_runner.deploy.record import Record


class Placing(NamedTuple):
    """How it is decided where a component runs.

    Args:
        among: how that is written where the host would be.
        candidates: the hosts that come into question, with their weights.
        min_memory: bytes that must be free there.
        platform: what it must be, as `linux-x86_64`; None: any.
        group: of those components that have the same one no two run on one host; None: they may.
        was: where it ran last; None: it did not, or nobody knows.
    """

    among: str
    candidates: tuple[Address, ...]
    min_memory: int = 0
    platform: str | None = None
    group: str | None = None
    was: str | None = None

    @classmethod
    def of(cls, wanted: LeastLoaded, candidates: tuple[Address, ...]) -> Placing:
        """What a config wants, with the hosts that it means."""
        return cls(str(wanted), candidates, wanted.min_memory, wanted.platform, wanted.group)

    def names(self) -> list[str]:
        """The hosts that come into question, as messages show them."""
        return [address.where for address in self.candidates]

    def to_dict(self) -> dict[str, Any]:
        """Its values for JSON."""
        return {
            'hosts': [str(address) for address in self.candidates],
            'min_memory': self.min_memory,
            'platform': self.platform,
            'spread': self.group,
            'was': self.was,
        }


def check_numbers(components: Sequence[ComponentPlan], checker: Checker) -> None:
    """Where components must be on different hosts there are as many."""
    sets: dict[tuple[str, str], list[ComponentPlan]] = defaultdict(list)
    for component in components:
        if component.placing is not None and component.is_undecided:
            sets['name', component.name].append(component)
            if component.placing.group is not None:
                sets['group', component.placing.group].append(component)
    for (kind, _), members in sets.items():
        hosts = {address.where for c in members if c.placing for address in c.placing.candidates}
        if 0 < len(hosts) < len(members):
            what = 'of one name' if kind == 'name' else 'of which no two run on one host (spread)'
            for component in members:
                checker.fault(component.label, f'{len(members)} components {what}, but {len(hosts)} hosts for them')


def remembering(plan: Plan, records: Iterable[Record]) -> Plan:
    """The plan whose undecided components know where they ran last.

    Args:
        plan: what is to be carried out.
        records: of the session, the newest first.
    """
    undecided = [component for component in plan.components if component.is_undecided]
    if not undecided:
        return plan
    fixed = {(c.name, c.host) for c in plan.components if not c.is_undecided}
    names = {component.name for component in undecided}
    was: dict[str, list[str]] = {}
    before: set[str] | None = None
    for record in records:
        if before is None:
            before = set() if record.is_stopped() else {_where(c) for c in record.components}
        for name in names - was.keys():
            found = [_where(c) for c in record.components if c['name'] == name and (name, c['host']) not in fixed]
            if found:
                was[name] = found
        if was.keys() == names:
            break
    there = {*(before or ()), *(host for hosts in was.values() for host in hosts)}
    return plan._replace(
        components=tuple(_remembering(c, was) for c in plan.components),
        before=tuple(address.where for address in plan.candidates() if address.where in there),
    )


def _where(component: dict[str, Any]) -> str:
    """The host of a component of a record."""
    return parse_address(component['host']).where


def _remembering(component: ComponentPlan, was: dict[str, list[str]]) -> ComponentPlan:
    """The component with where it was, which is taken out of `was`: another one of that name was elsewhere.

    A host that comes into question is taken first.
    """
    if component.placing is None or not component.is_undecided or not was.get(component.name):
        return component
    hosts, names = was[component.name], set(component.placing.names())
    host = next((host for host in hosts if host in names), hosts[0])
    hosts.remove(host)
    return component._replace(placing=component.placing._replace(was=host))
