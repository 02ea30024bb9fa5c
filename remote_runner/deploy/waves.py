"""Who waits for whom: `depends_on` beside `start_index`, made into waves that start one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from remote_runner.nearest import nearest

if TYPE_CHECKING:
    from remote_runner.deploy.check import Checker
    from remote_runner.deploy.component_plan import ComponentPlan


def in_waves(components: Sequence[ComponentPlan], checker: Checker) -> list[ComponentPlan]:
    """The components, each with its wave within its index and with `depends_on` as labels; faults go to `checker`."""
    if not any(component.depends_on for component in components):
        return list(components)
    needs = {at: _needed(component, components, checker) for at, component in enumerate(components)}
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        circle = [components[at].label for at in reversed(error.args[1])]
        # graphlib names them so that each is needed by the next.
        checker.fault('', f'depends_on makes a circle: {" needs ".join(circle)}')
        return list(components)
    waves: dict[int, int] = {}
    for at in order:
        index = components[at].start_index
        same_index = [waves[need] for need in needs[at] if components[need].start_index == index]
        waves[at] = max(same_index, default=-1) + 1
    labels = {at: tuple(dict.fromkeys(components[need].label for need in needs[at])) for at in needs}
    return [c._replace(wave=waves[at], depends_on=labels[at]) for at, c in enumerate(components)]


def _needed(component: ComponentPlan, components: Sequence[ComponentPlan], checker: Checker) -> list[int]:
    """The positions of those that must have started before.

    `name@host` means one that may come to that host, too, where that is not decided yet.
    """
    needed: dict[int, None] = {}
    for name in component.depends_on:
        found = [at for at, other in enumerate(components) if _is_called(other, name)]
        if not found:
            known = nearest(name, [other.name for other in components])
            hint = f'; the nearest is {known!r}' if known else ''
            checker.fault(component.label, f'depends_on: there is no component {name!r}{hint}')
        for at in found:
            other = components[at]
            if other.start_index > component.start_index:
                checker.fault(
                    component.label,
                    f'depends_on: {other.label} starts later: its start_index is {other.start_index}, '
                    f'this one has {component.start_index}',
                )
            else:
                needed[at] = None
    return list(needed)


def _is_called(component: ComponentPlan, name: str) -> bool:
    if name in (component.name, component.label):
        return True
    return name.startswith(f'{component.name}@') and component.may_be_on(name.removeprefix(f'{component.name}@'))
