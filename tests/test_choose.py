"""DS1, DS3: which host is the best one, and what was given to hosts that their loads do not show yet."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_runner.hosts.address import Address, parse_address
from remote_runner.placement.choose import Known, Report, VirtualLoad, Wanted, best, load_per_core, rank, score, why_not

GB = 10**9


def report(load: float = 0.0, cores: int = 4, free: int = 8 * GB, platform: str = 'linux-x86_64') -> Report:
    return Report(load, cores, 8 * GB, free, 0, 0, 0, 0, platform)


def host(text: str, virtual: float = 0.0, **figures: float) -> Known:
    return Known(parse_address(text), report(**figures), virtual)  # type: ignore[arg-type]


def best_name(hosts: list[Known], wanted: Wanted = Wanted()) -> str | None:  # noqa: B008
    found = best(hosts, wanted)
    return found and found.name


@pytest.mark.parametrize(
    ('better', 'worse'),
    [
        (host('a', load=1.0), host('b', load=2.0)),
        (host('a', load=0.1), host('b 2.0')),
        (host('a', load=0.1, cores=8), host('b', cores=1)),
        (host('a', load=3.0, cores=8), host('b', load=2.0)),
        (host('a', load=1.0, virtual=0.5), host('b', load=1.0, virtual=1.0)),
        (host('a 0.5', load=3.0), host('b', load=2.0)),
        (host('a', load=1.0), host('b 2.0', load=1.0)),
        (host('a', free=4 * GB), host('b', free=3 * GB)),
        (host('a 1 4', free=3 * GB), host('b', free=4 * GB)),
        (host('a', load=0.2, free=0), host('b', load=0.8)),
    ],
)
def test_the_better_one(better: Known, worse: Known) -> None:
    assert score(better) < score(worse)
    assert best_name([worse, better]) == best_name([better, worse]) == 'a'
    assert [each.name for each in rank([worse, better])] == ['a', 'b']


def test_the_first_of_equal_ones() -> None:
    assert best_name([host('b'), host('a')]) == 'b'
    assert best_name([]) is None


@pytest.mark.parametrize(
    ('wanted', 'reason'),
    [
        (Wanted(hosts=('node[2-9]', 'gate')), 'it is not among the wanted ones'),
        (Wanted(exclude=('node*',)), 'it is excluded'),
        (Wanted(platform='linux-aarch64'), 'its platform is linux-x86_64, not linux-aarch64'),
        (Wanted(min_memory=4 * GB), '3.0 GB of memory are free, not 4.0 GB'),
        (Wanted(max_load=0.5), 'its load is 0.75 a core, above 0.5'),
    ],
)
def test_why_one_will_not_do(wanted: Wanted, reason: str) -> None:
    node = host('me@node1', load=2.0, virtual=1.0, free=3 * GB)
    assert why_not(node, wanted) == reason
    assert best_name([node], wanted) is None
    assert why_not(node, Wanted(('me@node1',), (), ('me@node2',), 3 * GB, 'linux-x86_64', 0.75)) is None


def test_preferred_as_long_as_they_have_a_core_to_spare() -> None:
    wanted = Wanted(prefer=('mine*',))
    hosts = [host('other'), host('mine1', load=3.0), host('mine2', load=2.0)]
    assert best_name(hosts, wanted) == 'mine2'
    assert best_name(hosts, wanted._replace(exclude=('mine2',))) == 'mine1'
    assert best_name([host('other'), host('mine1', load=4.0), host('mine2', virtual=4.0)], wanted) == 'other'


_HOSTS = st.lists(
    st.tuples(st.integers(1, 64), st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0])), min_size=1, max_size=8
).map(lambda given: [(Address(f'h{number}', weights=(weight,)), cores) for number, (cores, weight) in enumerate(given)])


@given(hosts=_HOSTS, known_end=st.booleans())
def test_commands_that_come_at_once_spread_in_proportion(hosts: list[tuple[Address, int]], known_end: bool) -> None:
    """100 of them within a second, on idle hosts: each host within 20 % of its share, as far as they are whole."""
    virtual = {address: VirtualLoad() for address, _ in hosts}
    counts = dict.fromkeys(virtual, 0)
    for number in range(100):
        now = 1000.0 + number / 100
        known = [Known(address, report(cores=cores), virtual[address].at(now)) for address, cores in hosts]
        chosen = best(known)
        assert chosen is not None
        counts[chosen.address] += 1
        if known_end:
            virtual[chosen.address].begin(number, now)
        else:
            virtual[chosen.address].choose(now)
    power = {address: cores / address.weights[0] for address, cores in hosts}
    for address, count in counts.items():
        share = 100 * power[address] / sum(power.values())
        assert abs(count - share) <= max(1.0, 0.2 * share), (hosts, counts)


class TestVirtualLoad:
    def test_a_command_counts_as_one_process_until_the_average_shows_it(self) -> None:
        virtual = VirtualLoad()
        virtual.begin('a', 100.0)
        virtual.begin('b', 100.0)
        assert virtual.at(100.0) == pytest.approx(2.0)
        assert virtual.running == 2
        for seconds in (1.0, 30.0, 60.0, 300.0):  # with what the average of a minute shows by then it is two processes
            assert virtual.at(100.0 + seconds) + 2 * (1 - math.exp(-seconds / 60)) == pytest.approx(2.0)

    def test_what_has_ended_fades_within_seconds(self) -> None:
        virtual = VirtualLoad()
        virtual.begin('a', 100.0)
        virtual.end('a', 101.0)
        virtual.end('a', 102.0)
        virtual.end('unknown', 102.0)
        assert virtual.running == 0
        assert 0.9 < virtual.at(101.0) < 1.0
        assert virtual.at(104.0) < 0.4
        assert virtual.at(120.0) < 0.01

    def test_what_has_ended_needs_no_core_any_more(self) -> None:
        """Commands that ended just now push nobody away from hosts that are preferred."""
        virtual = VirtualLoad()
        for number in range(8):
            virtual.begin(number, 100.0)
        mine = host('mine', virtual=virtual.at(100.0))._replace(ended=virtual.ended(100.0))
        assert best_name([host('other'), mine], Wanted(prefer=('mine',))) == 'other'
        for number in range(8):
            virtual.end(number, 100.1)
        assert virtual.ended(100.1) == pytest.approx(virtual.at(100.1))
        mine = host('mine', virtual=virtual.at(100.1))._replace(ended=virtual.ended(100.1))
        assert best_name([host('other'), mine], Wanted(prefer=('mine',))) == 'mine'
        assert best_name([host('other'), mine]) == 'other'

    def test_choices_fade_by_themselves(self) -> None:
        virtual = VirtualLoad()
        virtual.choose(100.0)
        assert virtual.at(100.0) == pytest.approx(1.0)
        assert virtual.at(115.0) == pytest.approx(math.exp(-1))
        assert virtual.at(1000.0) == 0.0


def test_load_per_core_of_a_host_without_cores() -> None:
    assert load_per_core(host('a', load=1.0, cores=0)) == 1.0
