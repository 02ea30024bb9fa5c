"""`util.least_loaded`: what users write, what the plan makes of it, and what is decided from the hosts' reports."""

from __future__ import annotations

import copy
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from remote_runner.config import util
from remote_runner.config.component import Component, Config
from remote_runner.deploy.decide import Choice, decide
from remote_runner.deploy.loads import Asked, virtual_without_own, without_own
from remote_runner.deploy.placing import remembering
from remote_runner.deploy.plan import Plan, make_plan
from remote_runner.deploy.record import Record
from remote_runner.deploy.seen import Seen
from remote_runner.deploy.target import Target
from remote_runner.errors import AddressError, ConfigFaults, NoHostFits, UsageError
from remote_runner.hosts.address import parse_address
from remote_runner.placement.choose import CHOICE_FADING, Known, Report
from remote_runner.ui.preview import preview_text

GB = 10**9
THREE = util.least_loaded('node[1-3]')


def component(**attributes: Any) -> Component:
    return Component(**{'name': 'worker', 'host': THREE, 'executable': 'run-it', **attributes})


def plan_of(*components: Component, folder: Path = Path('/')) -> Plan:
    config = Config()
    for one in components:
        config.add_component(one)
    return make_plan(config, str(folder), 'runner')


def faults_of(*components: Component) -> list[str]:
    with pytest.raises(ConfigFaults) as caught:
        plan_of(*components)
    return list(caught.value.faults)


def known(load: float = 0.0, cores: int = 1, free: int = 8 * GB, platform: str = 'linux-x86_64') -> Known:
    """A host; its name is that of its place among `hosts`."""
    report = Report(load, cores, 8 * GB, free, 0, 0, 0, 0, platform)
    return Known(parse_address('nowhere'), report)


def decided(plan: Plan, hosts: dict[str, Known], absent: dict[str, str] | None = None, **more: Any) -> list[Choice]:
    found = {name: host._replace(address=parse_address(name)) for name, host in hosts.items()}
    return decide(plan, found, absent or {}, **more)


def where(choices: list[Choice]) -> list[str]:
    return [choice.address.where for choice in choices]


def ran(plan: Plan, **hosts: str | list[str]) -> Plan:
    """The plan after a run in which components of these names were on these hosts."""
    told = [(name, [at] if isinstance(at, str) else at) for name, at in hosts.items()]
    components = [{'name': name, 'host': host} for name, every in told for host in every]
    return remembering(plan, [Record('1', 'runner', 0.0, 'me', None, {}, components)])


class TestWhatIsWritten:
    def test_it_is_shown_as_it_is_written(self) -> None:
        wanted = util.least_loaded(['4/node[1-2] 2.0', 'root@big:22 1 3'], '4G', 'linux-aarch64', count=2, spread=True)
        assert str(wanted) == 'least_loaded(node[1-2],root@big:22)'
        assert repr(wanted) == (
            "util.least_loaded(['node1 2', 'node2 2', 'root@big:22 1 3'], min_memory=4000000000, "
            "platform='linux-aarch64', count=2, spread=True)"
        )
        assert eval(repr(wanted), {'util': util}) == wanted == copy.deepcopy(wanted)
        assert len({wanted, copy.deepcopy(wanted)}) == 1

    def test_muddlers_see_and_change_it(self) -> None:
        config = Config()
        config.add_component(component())
        config.add_component(component(name='other', host='localhost'))
        assert config.all_hosts() == {THREE, 'localhost'}
        [remote] = config.all_remote_components()
        assert repr(remote) == '<Component worker@least_loaded(node[1-3])>'
        remote.host = util.least_loaded([str(host) for host in remote.host.hosts[1:]])
        [changed, _] = config.all_components()
        assert str(changed.host) == 'least_loaded(node[2-3])'

    @pytest.mark.parametrize(
        ('arguments', 'error', 'message'),
        [
            (('',), ValueError, 'there are no hosts'),
            ((['h', 7],), TypeError, 'one is 7'),
            (('h,localhost',), ValueError, 'localhost cannot be one of several hosts'),
            (('h:port',), AddressError, 'the port of'),
            (('@nowhere',), AddressError, 'nowhere cannot be read'),
            (('h', 'much'), ValueError, "min_memory must be a number of bytes, or text as '100M', is 'much'"),
            (('h', 0, 7), TypeError, "platform must be text as 'linux-x86_64', is 7"),
            (('h', 0, None, 0), ValueError, 'count must be at least 1, is 0'),
            (('h', 0, None, 1.5), TypeError, 'count must be a whole number, is 1.5'),
            (('h', 0, None, None, 1), TypeError, 'spread must be True, False or a name, is 1'),
        ],
    )
    def test_what_makes_no_sense(self, arguments: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            util.least_loaded(*arguments)


class TestThePlan:
    def test_it_is_shown_as_undecided(self) -> None:
        plan = plan_of(component(host=util.least_loaded('node[1-3]', '4G', spread=True)), component(host='node2'))
        assert [one.label for one in plan.components] == ['worker@least_loaded(node[1-3])', 'worker@node2']
        assert plan.hosts() == ('node2',)
        assert [str(address) for address in plan.addresses()] == ['node2', 'node1', 'node3']
        shown = plan.to_dict()['components']
        assert shown[0]['host'] == 'least_loaded(node[1-3])'
        group = repr(util.least_loaded('node[1-3]', '4G', spread=True))
        placing = {'hosts': ['node1', 'node2', 'node3'], 'min_memory': 4 * GB, 'platform': None, 'was': None}
        assert shown[0]['least_loaded'] == {**placing, 'spread': group}
        assert 'least_loaded' not in shown[1]
        text = preview_text(
            {
                'session': 's',
                'hosts': ['node2'],
                'candidates': ['node1', 'node2', 'node3'],
                'indexes': [{'index': 0, 'components': shown}],
            }
        )
        assert text.splitlines()[0] == 'session s: 2 components on 1 host and the least loaded of 3'
        assert '  worker@least_loaded(node[1-3])  run-it  [4.0 GB of memory, spread]' in text

    def test_count_is_so_many_components(self) -> None:
        plan = plan_of(component(host=util.least_loaded('node[1-3]', count=2)))
        assert len(plan.components) == len(plan.undecided()) == 2

    def test_too_few_hosts(self) -> None:
        [fault] = faults_of(component(host=util.least_loaded('node[1-3]', count=4)))
        assert fault == 'worker@least_loaded(node[1-3]): 4 components of one name, but 3 hosts for them'
        apart = util.least_loaded('node[1-2]', spread='db')
        [fault] = faults_of(*(component(name=name, host=apart) for name in 'abc'))
        assert fault.endswith('3 components of which no two run on one host (spread), but 2 hosts for them')

    def test_depends_on(self) -> None:
        plan = plan_of(
            component(name='client', host='far', depends_on=['worker']),
            component(name='one', host='far', depends_on=['worker@node2']),
            component(host=util.least_loaded('node[1-3]', count=2)),
        )
        assert [one.wave for one in plan.components] == [1, 1, 0, 0]
        placed = plan.placed([parse_address('node3'), parse_address('node1 2')])
        assert [one.label for one in placed.components] == ['client@far', 'one@far', 'worker@node3', 'worker@node1']
        assert placed.components[0].depends_on == placed.components[1].depends_on == ('worker@node3', 'worker@node1')
        [fault] = faults_of(component(), component(name='client', host='far', depends_on=['worker@node9']))
        assert "depends_on: there is no component 'worker@node9'" in fault
        [fault] = faults_of(component(depends_on=['other']), component(name='other', depends_on=['worker']))
        assert 'depends_on makes a circle' in fault

    def test_what_is_started_does_not_change_with_how_its_host_was_found(self) -> None:
        [placed] = plan_of(component()).placed([parse_address('node1')]).components
        [fixed] = plan_of(component(host='node1')).components
        assert placed.digest() == fixed.digest()

    def test_the_cluster_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / 'cluster').write_text('4/node[1-2] 2.0\nlocalhost\n')
        monkeypatch.setenv('RR_CLUSTER', str(tmp_path / 'cluster'))
        plan = plan_of(component(host=util.least_loaded()))
        assert [str(address) for address in plan.candidates()] == ['node1 2', 'node2 2']
        (tmp_path / 'cluster').write_text('localhost\n')
        [fault] = faults_of(component(host=util.least_loaded()))
        assert 'has no host but this machine' in fault
        monkeypatch.delenv('RR_CLUSTER')
        monkeypatch.setenv('XDG_CONFIG_HOME', str(tmp_path / 'nowhere'))
        [fault] = faults_of(component(host=util.least_loaded()))
        assert 'which hosts? There is no -H, no RR_CLUSTER' in fault


class TestWhereItWas:
    def test_names_and_hosts_mean_where_it_was(self) -> None:
        plan = ran(plan_of(component(), component(name='new')), worker='node2')
        assert [one.name for one in plan.only(['worker@node2']).components] == ['worker']
        assert [one.name for one in plan.only(['*@node2']).components] == ['worker']
        limited = plan.limit(['node2'])
        assert [one.name for one in limited.components] == ['worker', 'new']
        assert [address.where for address in limited.addresses()] == ['node2']
        assert [one.name for one in plan.limit(['node1']).components] == ['new']
        with pytest.raises(UsageError, match="no component runs on 'node9'"):
            plan.limit(['node9'])
        assert [left.label for left in plan.only(['new']).left_out] == ['worker@node2']

    def test_a_session_is_looked_for_there(self) -> None:
        target = Target.of_plan(ran(plan_of(component()), worker='node2'))
        assert target.expected == (('worker', 'node2', 0),)
        assert [address.where for address in target.addresses] == ['node2']
        target = Target.of_plan(plan_of(component()))
        assert target.expected == ()
        assert [address.where for address in target.addresses] == ['node1', 'node2', 'node3']

    def test_several_of_one_name_were_on_different_hosts(self) -> None:
        plan = plan_of(component(host=util.least_loaded('node[1-4]', count=3)), component(host='node4'))
        plan = ran(plan, worker=['node4', 'node9', 'node3', 'node1'])
        assert [one.placing and one.placing.was for one in plan.undecided()] == ['node3', 'node1', 'node9']
        assert plan.before == ('node1', 'node3', 'node4')


class TestTheDecision:
    def test_the_least_load_per_core(self) -> None:
        [choice] = decided(plan_of(component()), {'node1': known(2, 1), 'node2': known(4, 4), 'node3': known(3, 1)})
        assert choice.address.where == 'node2'
        assert (choice.load, choice.kept, choice.why) == (1.0, False, '')

    def test_weights_are_those_that_are_written_here(self) -> None:
        plan = plan_of(component(host=util.least_loaded('node1 4,node2')))
        assert where(decided(plan, {'node1': known(1), 'node2': known(3)})) == ['node2']

    def test_several_spread_by_cores(self) -> None:
        plan = plan_of(*(component(name=f'w{number}') for number in range(14)))
        hosts = {'node1': known(0, 1), 'node2': known(0, 2), 'node3': known(0, 4)}
        assert Counter(where(decided(plan, hosts))) == {'node1': 2, 'node2': 4, 'node3': 8}

    def test_what_others_were_given_there_counts(self) -> None:
        plan = plan_of(*(component(name=f'w{number}') for number in range(4)))
        hosts = {'node1': known()._replace(virtual=2.0), 'node2': known()}
        choices = decided(plan, hosts)
        assert Counter(where(choices)) == {'node1': 1, 'node2': 3}
        assert {(choice.address.where, choice.load) for choice in choices} >= {('node1', 2.0), ('node2', 0.0)}

    def test_what_the_config_puts_there_counts(self) -> None:
        plan = plan_of(component(name='other', host='node1'), component())
        assert where(decided(plan, {'node1': known(), 'node2': known(0.5), 'node3': known(9)})) == ['node2']

    def test_two_names_of_one_machine(self) -> None:
        plan = plan_of(component(host=util.least_loaded('node[1-3]', count=2)))
        hosts = {'node1': known(), 'node2': known(), 'node3': known(9)}
        assert where(decided(plan, hosts, machines={'node1': 'one', 'node2': 'one'})) == ['node1', 'node3']

    def test_count_and_equal_names_are_apart(self) -> None:
        plan = plan_of(component(host='node1'), component(host=util.least_loaded('node[1-3]', count=2)))
        assert where(decided(plan, {'node1': known(), 'node2': known(5), 'node3': known(3)})) == ['node3', 'node2']

    def test_spread(self) -> None:
        apart = util.least_loaded('node[1-3]', spread=True)
        named = util.least_loaded('node[1-2]', spread='named')
        plan = plan_of(
            *(component(name=name, host=apart) for name in 'abc'), *(component(name=name, host=named) for name in 'xy')
        )
        chosen = where(decided(plan, {'node1': known(), 'node2': known(30), 'node3': known(60)}))
        assert chosen[:3] == ['node1', 'node2', 'node3']
        assert chosen[3:] == ['node1', 'node2']

    def test_different_files_at_one_path(self, tmp_path: Path) -> None:
        for name in 'ab':
            (tmp_path / name).write_text(name)
        plan = plan_of(
            *(component(name=name, files={name: 'it'}, base_dir='/srv') for name in 'ab'),
            component(name='c', files={'a': 'it'}, base_dir='/srv'),
            folder=tmp_path,
        )
        assert where(decided(plan, {'node1': known(), 'node2': known(9)})) == ['node1', 'node2', 'node1']

    def test_no_host_will_do(self) -> None:
        plan = plan_of(component(host=util.least_loaded('node[1-4]', '4G', 'linux-x86_64')))
        hosts = {'node1': known(free=GB), 'node2': known(platform='linux-armv7l')}
        with pytest.raises(NoHostFits) as caught:
            decided(plan, hosts, {'node3': 'no route to host', 'node4': 'no route to host'})
        assert caught.value.exit_status == 1
        assert str(caught.value) == (
            'worker: no host will do:\n  - node[3-4]: no route to host\n'
            '  - node1: 1.0 GB of memory are free, not 4.0 GB\n'
            '  - node2: its platform is linux-armv7l, not linux-x86_64 (nothing was changed on any host)'
        )
        with pytest.raises(NoHostFits) as caught:
            decided(plan, {}, {f'node{number}': 'no route to host' for number in range(1, 5)})
        assert caught.value.exit_status == 3


class TestTheNextDecision:
    def test_it_stays(self) -> None:
        plan = ran(plan_of(component()), worker='node2')
        [choice] = decided(plan, {'node1': known(1.0), 'node2': known(2.9), 'node3': known(1.0)})
        assert (choice.address.where, choice.kept, choice.why) == ('node2', True, '')

    def test_it_stays_where_little_is_to_be_gained(self) -> None:
        plan = ran(plan_of(component()), worker='node2')
        assert where(decided(plan, {'node1': known(0.0, 16), 'node2': known(1.5, 16)})) == ['node2']

    def test_it_leaves_a_host_that_scores_twice_the_best(self) -> None:
        plan = ran(plan_of(component()), worker='node2')
        [choice] = decided(plan, {'node1': known(1.0), 'node2': known(3.1), 'node3': known(1.5)})
        assert (choice.address.where, choice.kept) == ('node1', False)
        assert choice.why == 'node2 scores 4.10, node1 2.00'

    def test_it_leaves_a_host_that_cannot_be_had(self) -> None:
        plan = ran(plan_of(component()), worker='node2')
        [choice] = decided(plan, {'node1': known(), 'node3': known(1)}, {'node2': 'no route to host'})
        assert (choice.address.where, choice.why) == ('node1', 'node2: no route to host')

    def test_it_leaves_a_host_that_is_not_meant_any_more(self) -> None:
        plan = ran(plan_of(component()), worker='node7')
        assert decided(plan, {'node1': known()})[0].why == 'node7 is not among its hosts any more'

    def test_it_leaves_a_host_that_will_not_do_any_more(self) -> None:
        plan = ran(plan_of(component(host=util.least_loaded('node[1-3]', '4G'))), worker='node2')
        [choice] = decided(plan, {'node1': known(9), 'node2': known(free=GB)})
        assert choice.why == 'node2: 1.0 GB of memory are free, not 4.0 GB'
        plan = ran(plan_of(component(), component(host='node2')), worker=['node2', 'node2'])
        assert where(decided(plan, {'node1': known(), 'node2': known()})) == ['node1']

    def test_what_the_run_replaces_is_taken_off(self) -> None:
        report = Report(3.0, 4, 8 * GB, GB, 0, 0, 0, 0, 'linux-x86_64')
        running = (
            Seen('a', 'h', cpu=180.0, uptime=100.0, memory=GB),
            Seen('b', 'h', cpu=0.5, uptime=0.1, memory=GB),
            Seen('c', 'h'),
        )
        without = without_own(Asked(report, running))
        assert (round(without.load, 6), without.free_memory) == (0.7, 3 * GB)
        assert without_own(Asked(report._replace(load=0.2), running)).load == 0.0
        assert without_own(Asked(report, ())) == report

    def test_so_is_what_is_left_of_having_chosen_it(self) -> None:
        report = Report(0.0, 4, 8 * GB, GB, 0, 0, 0, 0, 'linux-x86_64')
        running = (Seen('a', 'h', uptime=0.0), Seen('b', 'h', uptime=CHOICE_FADING))
        assert virtual_without_own(Asked(report, running, 3.0)) == pytest.approx(2 - 1 / math.e)
        assert virtual_without_own(Asked(report, running, 1.0)) == 0.0
        assert virtual_without_own(Asked(report, (), 3.0)) == 3.0

    def test_what_goes_on_running_stays_whatever_scores(self) -> None:
        plan = ran(plan_of(component(), component(name='new')), worker='node2')
        hosts = {'node1': known(0.5), 'node2': known(0.8), 'node3': known(9)}
        assert where(decided(plan, hosts, running={('worker', 'node2')})) == ['node2', 'node1']
        assert where(decided(plan, hosts)) == ['node2', 'node1']
        hosts['node2'] = known(7)
        assert where(decided(plan, hosts, running={('worker', 'node2')})) == ['node2', 'node1']

    def test_all_that_stay_are_counted_first(self) -> None:
        """Else those that came first would be thought to have their host for themselves, and others to crowd it."""
        names = [f'w{number}' for number in range(6)]
        plan = plan_of(*(component(name=name, host=util.least_loaded('node[1-2]')) for name in [*names, 'new']))
        was = dict(zip(names, ['node1'] * 3 + ['node2'] * 3, strict=True))
        chosen = decided(ran(plan, **was), {'node1': known(0.1), 'node2': known()})
        assert where(chosen) == [*was.values(), 'node2']
        assert [choice.kept for choice in chosen] == [True] * 6 + [False]

    def test_a_new_host_takes_its_share(self) -> None:
        names = [f'w{number}' for number in range(4)]
        plan = plan_of(*(component(name=name, host=util.least_loaded('node[1-2]')) for name in names))
        chosen = decided(ran(plan, **dict.fromkeys(names, 'node1')), {'node1': known(), 'node2': known()})
        assert sorted(where(chosen)) == ['node1', 'node1', 'node1', 'node2']
