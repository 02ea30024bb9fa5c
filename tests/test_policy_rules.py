"""The rules behind `restart`, `max_restarts` and `depends_on`, and what is wrong with values of such attributes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_runner.agent import policy
from remote_runner.agent.policy import Policy
from remote_runner.config.component import Component, Config
from remote_runner.deploy.component_plan import ComponentPlan
from remote_runner.deploy.plan import make_plan
from remote_runner.deploy.waves import in_waves
from remote_runner.errors import ConfigFaults
from remote_runner.hosts.address import parse_address

#: Ends of a program: whether each is a failure, and for how long it ran.
_ends = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 5.0, policy.WELL_AFTER, 1e6])), max_size=30)


@given(st.sampled_from(['no', 'on-failure', 'always']), st.none() | st.integers(0, 5), _ends)
def test_the_policy(restart: str, most: int | None, ends: list[tuple[bool, float]]) -> None:
    policies = Policy({'restart': restart, 'max_restarts': most})
    row: list[float] = []  # the pauses since it last ran well
    total = 0
    for is_failure, lived in ends:
        pause = policies.pause(is_failure, lived)
        if restart == 'no' or (restart == 'on-failure' and not is_failure):
            assert pause is None
            continue
        if lived >= policy.WELL_AFTER:
            row = []
        if pause is None:
            assert most is not None
            assert len(row) == most
            continue
        assert most is None or len(row) < most
        expected = min(2 * row[-1], policy.LAST_PAUSE) if row else policy.FIRST_PAUSE
        assert pause == expected
        row.append(pause)
        total += 1
        assert policies.count == total


def test_a_program_that_never_runs_well_is_not_hammered_however_long_it_tries() -> None:
    policies = Policy({'restart': 'always', 'max_restarts': None})
    assert {policies.pause(True, 0.0) for _ in range(100_000)} == {0.5, 1, 2, 4, 8, 16, 30}


# Who waits for whom


class Faults(list[tuple[str, str]]):
    """Takes faults as the checker does."""

    def fault(self, label: str, text: str) -> None:
        self.append((label, text))


def component(name: str, index: int = 0, depends_on: tuple[str, ...] = (), host: str = 'h1') -> ComponentPlan:
    return ComponentPlan(
        name=name, host=host, address=parse_address(host), executable='x', start_index=index, depends_on=depends_on
    )


@st.composite
def _without_circles(draw: st.DrawFn) -> list[ComponentPlan]:
    """Components of which each depends on earlier ones alone, in any order."""
    made: list[ComponentPlan] = []
    for number in range(draw(st.integers(1, 8))):
        needs = tuple(draw(st.lists(st.sampled_from(made), max_size=3))) if made else ()
        lowest = max((other.start_index for other in needs), default=0)
        names = tuple(draw(st.sampled_from([other.name, other.label])) for other in needs)
        made.append(component(f'c{number}', lowest + draw(st.integers(0, 1)), names))
    return list(draw(st.permutations(made)))


@given(_without_circles())
def test_each_starts_after_all_that_it_needs_and_no_later_than_it_must(components: list[ComponentPlan]) -> None:
    faults = Faults()
    planned = {c.label: c for c in in_waves(components, faults)}  # type: ignore[arg-type]
    assert faults == []
    assert list(planned) == [c.label for c in components]
    for one in planned.values():
        needed = [planned[label] for label in one.depends_on]
        assert all((other.start_index, other.wave) < (one.start_index, one.wave) for other in needed)
        assert one.wave == max((n.wave + 1 for n in needed if n.start_index == one.start_index), default=0)


def faults_of(*components: dict[str, Any]) -> str:
    """What is said about a config with these components."""
    config = Config()
    for values in components:
        config.add_component(Component(**{'host': 'h1', 'executable': '/x', **values}))
    with pytest.raises(ConfigFaults) as caught:
        make_plan(config, '/', 'runner')
    return str(caught.value)


@pytest.mark.parametrize(
    ('components', 'fault'),
    [
        ([{'name': 'a', 'depends_on': ['a']}], 'depends_on makes a circle: a@h1 needs a@h1'),
        (
            [{'name': 'a', 'depends_on': ['b']}, {'name': 'b', 'depends_on': ['a@h1']}],
            'depends_on makes a circle: ',
        ),
        ([{'name': 'server'}, {'name': 'b', 'depends_on': ['sever']}],
         "b@h1: depends_on: there is no component 'sever'; the nearest is 'server'"),
        ([{'name': 'a'}, {'name': 'b', 'depends_on': ['a@h2']}], "depends_on: there is no component 'a@h2'"),
        ([{'name': 'a', 'start_index': 2}, {'name': 'b', 'start_index': 1, 'depends_on': ['a']}],
         'b@h1: depends_on: a@h1 starts later: its start_index is 2, this one has 1'),
        ([{'name': 'a', 'depends_on': 'b'}], "a@h1: depends_on must be a list of names, is 'b'"),
        ([{'name': 'a', 'depends_on': [7]}], 'a@h1: depends_on[0] must be text, is 7'),
        ([{'name': 'a', 'depends_on': 7}], 'a@h1: depends_on must be a list of names, is 7'),
    ],
)  # fmt: skip
def test_faults_of_depends_on(components: list[dict[str, Any]], fault: str) -> None:
    assert fault in faults_of(*components)


def test_a_circle_is_told_in_the_order_in_which_they_need_each_other() -> None:
    told = faults_of(
        {'name': 'a', 'depends_on': ['b']}, {'name': 'b', 'depends_on': ['c']}, {'name': 'c', 'depends_on': ['a']}
    )
    circle = told.partition('circle: ')[2].splitlines()[0].split(' needs ')
    assert circle[0] == circle[-1]
    assert {(one[0], other[0]) for one, other in pairwise(circle)} == {('a', 'b'), ('b', 'c'), ('c', 'a')}


@pytest.mark.parametrize(
    ('values', 'fault'),
    [
        ({'restart': 'sometimes'}, "restart must be 'no', 'on-failure' or 'always', is 'sometimes'"),
        ({'restart': True}, "restart must be 'no', 'on-failure' or 'always', is True"),
        ({'restart': []}, "restart must be 'no', 'on-failure' or 'always', is []"),
        ({'max_restarts': -1}, 'max_restarts must be a whole number from 0, is -1'),
        ({'max_restarts': 1.5}, 'max_restarts must be a whole number from 0, is 1.5'),
        ({'max_restarts': True}, 'max_restarts must be a whole number from 0, is True'),
        ({'watchdog': 0}, 'watchdog must be more than 0 seconds'),
        ({'watchdog': -1}, 'watchdog must be a number of seconds from 0, is -1'),
        ({'watchdog': 1e10}, 'watchdog must be at most 1,000,000,000 seconds, is 10000000000.0'),
        ({'watchdog': 10**400}, 'watchdog must be at most 1,000,000,000 seconds, is 1000'),
        ({'stop_signal': 'NOPE'}, "stop_signal must be a signal such as 'INT', is 'NOPE'"),
        ({'stop_signal': 0}, "stop_signal must be a signal such as 'INT', is 0"),
        ({'stop_signal': 65}, "stop_signal must be a signal such as 'INT', is 65"),
        ({'critical': 1}, 'critical must be True or False, is 1'),
        ({'max_load': 0}, 'max_load must be a number above 0, is 0'),
        ({'max_load': '2'}, "max_load must be a number above 0, is '2'"),
        ({'max_load': float('nan')}, 'max_load must be a number above 0, is nan'),
        ({'max_load': 10**400}, 'max_load must be a number above 0, is 1000'),
    ],
)
def test_faults_of_values(values: dict[str, Any], fault: str) -> None:
    assert f'a@h1: {fault}' in faults_of({'name': 'a', **values})
