"""Who waits for whom: `depends_on` beside `start_index`, made into waves that start one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from remote_runner.nearest import nearest

if TYPE_CHECKING:
    from remote_runner.deploy.check import Checker
    from remote_runner.deploy.plan import ComponentPlan


def in_waves(components: Sequence[ComponentPlan], checker: Checker) -> list[ComponentPlan]:
    """The components, each with its wave within its index and with `depends_on` as labels; faults go to `checker`."""
    if not any(component.depends_on for component in components):
        return list(components)
    by_label = {component.label: component for component in components}
    needs = {component.label: _needed(component, components, checker) for component in components}
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        circle = error.args[1]
        # graphlib names them so that each is needed by the next.
        checker.fault('', f'depends_on makes a circle: {" needs ".join(reversed(circle))}')
        return list(components)
    waves: dict[str, int] = {}
    for label in order:
        index = by_label[label].start_index
        same_index = [waves[need] for need in needs[label] if by_label[need].start_index == index]
        waves[label] = max(same_index, default=-1) + 1
    return [c._replace(wave=waves[c.label], depends_on=tuple(needs[c.label])) for c in components]


def _needed(component: ComponentPlan, components: Sequence[ComponentPlan], checker: Checker) -> list[str]:
    """The labels of those that must have started before."""
    needed: dict[str, None] = {}
    for name in component.depends_on:
        found = [other for other in components if name in (other.name, other.label)]
        if not found:
            known = nearest(name, [other.name for other in components])
            hint = f'; the nearest is {known!r}' if known else ''
            checker.fault(component.label, f'depends_on: there is no component {name!r}{hint}')
        for other in found:
            if other.start_index > component.start_index:
                checker.fault(
                    component.label,
                    f'depends_on: {other.label} starts later: its start_index is {other.start_index}, '
                    f'this one has {component.start_index}',
                )
            else:
                needed[other.label] = None
    return list(needed)
