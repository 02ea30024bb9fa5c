"""On which of several hosts each component runs: `util.least_loaded`, decided from what the hosts report.

Pure decisions. A component counts where it runs as one process more (`placement/choose.py`: virtual load), so several
of them spread. One that ran before stays where it was, with its files, unless that host will not do any more or scores
far worse than the best one; all that stay are counted before any other one is placed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Mapping
from types import MappingProxyType
from typing import NamedTuple

from remote_runner.deploy.check import Checker
from remote_runner.deploy.component_plan import ComponentPlan
from remote_runner.deploy.plan import Plan
from remote_runner.errors import NoHostFits
from remote_runner.hosts.address import Address
from remote_runner.placement.choose import Known, Wanted, load_per_core, rank, score, why_not

#: A component leaves the host where it was when that scores so many times what the best one does,
WORSE = 2.0
#: and so much more: a tenth of a process a core is no reason to bring files elsewhere.
MORE = 0.1


class Choice(NamedTuple):
    """What was decided for one component.

    Args:
        component: as it was before.
        address: the host where it runs.
        load: the load per core there, with what was placed there before it.
        score: what the host scored then; lower is better.
        kept: whether it ran there before.
        why: why it does not run any more where it ran before; '': it did not run, or does.
    """

    component: ComponentPlan
    address: Address
    load: float
    score: float
    kept: bool = False
    why: str = ''


def decide(
    plan: Plan,
    hosts: Mapping[str, Known],
    absent: Mapping[str, str],
    running: Container[tuple[str, str]] = (),
    machines: Mapping[str, str] = MappingProxyType({}),
) -> list[Choice]:
    """Where the undecided components of a plan run, in their order.

    Args:
        plan: what is to be carried out.
        hosts: what is known of the hosts that can be had, by name.
        absent: why others cannot be had.
        running: (name, host) of components that go on running: they stay, whatever scores.
        machines: what tells the machines behind names of hosts; where it is not said a name is one of its own.

    Raises:
        NoHostFits: there is none for a component; the message says why not.
    """
    return _Deciding(plan, hosts, absent, machines).carry_out(running)


class _Deciding:
    """See `decide`."""

    def __init__(
        self, plan: Plan, hosts: Mapping[str, Known], absent: Mapping[str, str], machines: Mapping[str, str]
    ) -> None:
        self._plan = plan
        self._hosts = hosts
        self._absent = absent
        self._machines = machines
        #: What runs on each machine as far as that is decided, and how many processes that will be.
        self._there: dict[str, list[ComponentPlan]] = defaultdict(list)
        self._virtual: Counter[str] = Counter()
        for component in plan.components:
            if not component.is_undecided:
                self._put(component, component.address.where)

    def carry_out(self, running: Container[tuple[str, str]]) -> list[Choice]:
        undecided = self._plan.undecided()
        was = {number: known.name for number, component in enumerate(undecided) if (known := self._was(component))}
        for number, host in was.items():
            self._put(undecided[number], host)
        choices: dict[int, Choice] = {}
        reasons: dict[int, str] = {}
        for number, host in was.items():
            component = undecided[number]
            self._take(component, host)
            goes_on = (component.name, host) in running
            reasons[number] = '' if goes_on else self._why_not_again(component, host)
            best = self._best(component) if reasons[number] else self._candidates(component)[host]
            if best is not None:  # else when those that crowd it have left
                choices[number] = self._choose(component, best, reasons[number])
                self._virtual[self._machine(host)] -= goes_on  # what runs is in the measured load
        for number, component in enumerate(undecided):
            if number not in choices:
                best = self._best(component)
                if best is None:
                    raise self._no_host(component)
                choices[number] = self._choose(component, best, reasons.get(number) or self._why_gone(component))
        return [choices[number] for number in range(len(undecided))]

    def _choose(self, component: ComponentPlan, known: Known, why: str) -> Choice:
        """It runs there; `why` not where it was, if that is elsewhere."""
        self._put(component, known.name)
        is_there = component.placing is not None and component.placing.was == known.name
        return Choice(component, known.address, load_per_core(known), score(known), is_there, '' if is_there else why)

    def _put(self, component: ComponentPlan, host: str) -> None:
        self._there[self._machine(host)].append(component)
        self._virtual[self._machine(host)] += 1

    def _take(self, component: ComponentPlan, host: str) -> None:
        self._there[self._machine(host)].remove(component)
        self._virtual[self._machine(host)] -= 1

    def _machine(self, host: str) -> str:
        return self._machines.get(host, host)

    def _candidates(self, component: ComponentPlan) -> dict[str, Known]:
        """The hosts that come into question and can be had, with what they have been given by now."""
        addresses = component.placing.candidates if component.placing is not None else ()
        given = {address.where: self._virtual[self._machine(address.where)] for address in addresses}
        return {
            address.where: known._replace(address=address, virtual=known.virtual + given[address.where])
            for address in addresses
            if (known := self._hosts.get(address.where)) is not None
        }

    def _was(self, component: ComponentPlan) -> Known | None:
        """The host where it ran last, if that comes into question and can be had."""
        was = component.placing.was if component.placing is not None else None
        return None if was is None else self._candidates(component).get(was)

    def _why_gone(self, component: ComponentPlan) -> str:
        """Why a component does not stay on a host that cannot be asked."""
        was = component.placing.was if component.placing is not None else None
        if was is None or component.placing is None:
            return ''
        if was not in component.placing.names():
            return f'{was} is not among its hosts any more'
        return f'{was}: {self._absent.get(was, "it cannot be had")}'

    def _why_not_again(self, component: ComponentPlan, host: str) -> str:
        """Why it does not stay there; '': it does."""
        known = self._candidates(component)[host]
        reason = self._hindrance(component, known)
        if reason:
            return f'{host}: {reason}'
        best = self._best(component)
        if best is None or best.name == host:
            return ''
        own, least = score(known), score(best)
        if own > WORSE * least and own - least > MORE:
            return f'{host} scores {own:.2f}, {best.name} {least:.2f}'
        return ''

    def _best(self, component: ComponentPlan) -> Known | None:
        """The best of the hosts that will do."""
        ranked = rank(self._candidates(component).values())
        return next((known for known in ranked if not self._hindrance(component, known)), None)

    def _hindrance(self, component: ComponentPlan, known: Known) -> str:
        """Why a host will not do for a component, with what is there; '': it will."""
        placing = component.placing
        if placing is None:
            return ''
        reason = why_not(known, Wanted(min_memory=placing.min_memory, platform=placing.platform))
        if reason is not None:
            return reason
        there = self._there[self._machine(known.name)]
        for other in there:
            if other.name == component.name:
                return 'one of the same name runs there'
            if placing.group is not None and other.placing is not None and other.placing.group == placing.group:
                return f'{other.name} runs there, and no two of these may (spread)'
        if not there or not component.files:
            return ''
        checker = Checker(self._plan.config_dir)
        checker.check_targets([*(other.at(known.address) for other in there), component.at(known.address)])
        return next(iter(checker.faults), '')

    def _no_host(self, component: ComponentPlan) -> NoHostFits:
        hosts = self._candidates(component)
        names = component.placing.names() if component.placing is not None else []
        reasons = {name: self._absent.get(name, 'it is not there') for name in names if name not in hosts}
        reasons |= {name: self._hindrance(component, known) for name, known in hosts.items()}
        error = NoHostFits(reasons, out_of_reach=not hosts)
        error.component = component.name
        error.remedy = 'nothing was changed on any host'
        return error
