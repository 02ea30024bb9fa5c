"""Runs of components whose hosts are decided by load, where a daemon knows these: who is connected to, who is told."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from remote_runner.config import util
from remote_runner.config.least_loaded import LeastLoaded
from tests.burdens import GB, Burden
from tests.commands import Done, alias_of, component, nothing_runs, ssh_config
from tests.daemons import Daemons
from tests.standing import Standing, placed
from tests.testbed import Testbed
from tests.testbed.process import await_stop, wait_until

ANY = util.least_loaded('h[1-3]')


@pytest.fixture
def loads(loads: dict[str, Burden]) -> dict[str, Burden]:
    """h2 has the least to do, h1 the most."""
    loads['h1'].load(8.0)
    loads['h3'].load(4.0)
    return loads


@pytest.fixture
def daemons(own: Testbed, loads: object, tmp_path: Path) -> Iterator[Daemons]:
    with Daemons(own, tmp_path) as daemons:
        yield daemons
    for host in own.hosts:
        nothing_runs(host)


@pytest.fixture
def site(daemons: Daemons, tmp_path: Path) -> Iterator[Standing]:
    with standing(daemons, tmp_path) as site:
        yield site


@contextmanager
def standing(daemons: Daemons, folder: Path) -> Iterator[Standing]:
    with Standing(daemons.bed, folder) as site:
        site.variables |= daemons.variables
        yield site


def sleeps(name: str, host: str | LeastLoaded = ANY, **more: Any) -> str:
    return component(name, host, **more)  # type: ignore[arg-type]  # as it is written, it is the same to a config


def connecting(done: Done) -> list[str]:
    """The hosts that this run has connected to, or tried to."""
    return sorted(event['host'] for event in done.events('host_connecting'))


def failed(done: Done) -> dict[str, str]:
    return {event['host']: event['error'] for event in done.events('host_failed')}


def virtual(daemons: Daemons) -> dict[str, float]:
    """The virtual load of the hosts that have some."""
    return {host['name']: host['virtual'] for host in daemons.status()['hosts'] if host['virtual']}


def knows(daemons: Daemons, **averages: float) -> None:
    """Wait until the daemon has heard of these loads."""

    def are_so() -> bool:
        found = {host['name']: host['report'] for host in daemons.status()['hosts']}
        return all(found[name] and found[name]['load'] == average for name, average in averages.items())

    wait_until(are_so, f'{averages}', 30)


@contextmanager
def deaf(daemons: Daemons, *hosts: str) -> Iterator[None]:
    """Nobody can connect to these hosts any more; what is connected stays so."""
    for host in hosts:
        daemons.bed[host].stop_sshd()
    try:
        yield
    finally:
        for host in hosts:
            daemons.bed[host].start_sshd()


def test_only_the_chosen_hosts_are_connected_to_and_the_daemon_is_told(site: Standing, daemons: Daemons) -> None:
    daemons.begin()
    site.write(sleeps('worker'), sleeps('fixed', 'h2'))
    with deaf(daemons, 'h1', 'h3'):
        shown = site.run('plan', *site.arguments('--diff', '--json'))
        assert json.loads(shown.stdout)['hosts'] == ['h2']
        assert virtual(daemons) == {}, 'a plan only asks'
        done = site.deploy()
    assert (placed(done), connecting(done), failed(done)) == ({'worker': 'h2'}, ['h2'], {})
    assert done.event('component_placed')['load'] == round(1 / len(os.sched_getaffinity(0)), 3), 'fixed is there, too'
    assert done.events('host_released') == []
    assert virtual(daemons).keys() == {'h2'}
    assert site.states() == {'worker@h2': 'started', 'fixed@h2': 'started'}


def test_what_was_chosen_counts_for_those_who_come_next(site: Standing, daemons: Daemons, tmp_path: Path) -> None:
    daemons.begin()
    knows(daemons, h1=8.0, h2=0.0, h3=4.0)
    site.write(*(sleeps(f'w{number}') for number in range(8)))
    assert Counter(placed(site.deploy()).values()) == {'h2': 6, 'h3': 2}
    found = virtual(daemons)
    assert found.keys() == {'h2', 'h3'}
    assert found['h2'] > 2 * found['h3']
    site.run('load', '--best', '--count', '20', '--exclude', 'h[1,3]')  # by others, who never heard of this run
    assert virtual(daemons)['h2'] > 6
    assert site.run('load', '--best', '--peek', '--exclude', 'h1').stdout == 'h3\n'
    (tmp_path / 'other').mkdir()
    with standing(daemons, tmp_path / 'other') as other:
        other.write(sleeps('worker'))
        done = other.deploy()
        assert (placed(done), connecting(done)) == ({'worker': 'h3'}, ['h3'])


def test_it_stays_where_it_was_whatever_the_daemon_remembers_of_its_own_choice(
    site: Standing, daemons: Daemons, loads: dict[str, Burden]
) -> None:
    daemons.begin()
    loads['h1'].load(4.0)
    knows(daemons, h1=4.0, h2=0.0, h3=4.0)
    site.write(*(sleeps(f'w{number}') for number in range(4)))
    first = placed(site.deploy())
    assert set(first.values()) == {'h2'}
    loads['h1'].load(2.0)
    knows(daemons, h1=2.0)
    told = virtual(daemons)
    with deaf(daemons, 'h1', 'h3'):
        done = site.deploy()
    assert (placed(done), connecting(done)) == (first, ['h2'])
    assert all(event['kept'] for event in done.events('component_placed'))
    assert virtual(daemons)['h2'] <= told['h2'], 'they ran there already'
    loads['h2'].load(30.0)
    knows(daemons, h2=30.0)
    done = site.deploy()
    assert (set(placed(done).values()), connecting(done)) == ({'h1', 'h3'}, ['h1', 'h2', 'h3'])
    assert done.event('session_quit')['host'] == 'h2'
    assert virtual(daemons).keys() == {'h1', 'h2', 'h3'}
    done = site.deploy('--keep-running')
    assert not done.events('host_released')


def test_hosts_that_the_daemon_does_not_have_are_asked(
    site: Standing, daemons: Daemons, loads: dict[str, Burden]
) -> None:
    daemons.name_hosts('h1', 'h3 7')
    daemons.begin()
    site.write(sleeps('worker'))
    done = site.deploy()
    assert (placed(done), connecting(done)) == ({'worker': 'h2'}, ['h2'])
    assert virtual(daemons) == {}
    site.later('stop')
    loads['h2'].load(30.0)
    done = site.deploy()
    assert (placed(done), connecting(done)) == ({'worker': 'h3'}, ['h2', 'h3']), 'by the weights that the config has'
    assert virtual(daemons).keys() == {'h3'}


def test_a_daemon_that_has_none_of_them(site: Standing, daemons: Daemons) -> None:
    daemons.name_hosts('root@h1')
    daemons.begin()
    site.write(sleeps('worker'))
    done = site.deploy()
    assert (placed(done), connecting(done)) == ({'worker': 'h2'}, ['h1', 'h2', 'h3'])
    assert virtual(daemons) == {}


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGSTOP])
def test_a_daemon_that_cannot_answer_is_in_nobodys_way(
    site: Standing, daemons: Daemons, number: signal.Signals
) -> None:
    pid = daemons.begin()
    os.kill(pid, number)
    await_stop(pid)
    site.write(sleeps('worker'))
    done = site.deploy()
    assert (placed(done), connecting(done)) == ({'worker': 'h2'}, ['h1', 'h2', 'h3'])
    assert 'daemon' not in done.stderr
    assert daemons.socket.exists()


def test_a_chosen_host_that_only_the_daemon_can_reach(site: Standing, daemons: Daemons) -> None:
    daemons.begin()
    site.write(sleeps('worker'))
    with deaf(daemons, 'h2'):
        done = site.deploy()
    assert (placed(done), connecting(done)) == ({'worker': 'h3'}, ['h2', 'h3'])
    assert 'refused' in failed(done)['h2']
    assert virtual(daemons).keys() == {'h2', 'h3'}


def test_a_host_that_the_daemon_has_lost_is_tried_where_no_other_one_will_do(
    site: Standing, daemons: Daemons, loads: dict[str, Burden], tmp_path: Path
) -> None:
    daemons.ssh_config = ssh_config(tmp_path, daemons.bed, 'Host h2\n  Port 9')
    daemons.begin()
    assert daemons.states() == {'h1': 'up', 'h2': 'lost', 'h3': 'up'}
    site.write(sleeps('worker'))
    shown = site.run('plan', *site.arguments('--diff', '--json'))
    assert json.loads(shown.stdout)['hosts'] == ['h3']
    assert 'h2: ' in shown.stderr
    done = site.deploy()
    assert (placed(done), connecting(done)) == ({'worker': 'h3'}, ['h3'])
    assert failed(done).keys() == {'h2'}
    assert failed(done)['h2'].endswith('(so says the daemon)')
    site.later('stop')
    site.write(sleeps('worker', util.least_loaded('h[2-3]', '8G', count=2)))
    loads['h3'].memory(8 * GB, 8 * GB)
    done = site.deploy()
    assert sorted(event['host'] for event in done.events('component_placed')) == ['h2', 'h3']
    assert (connecting(done), failed(done)) == (['h2', 'h3'], {})
    loads['h3'].load(40.0)
    knows(daemons, h3=40.0)
    site.write(sleeps('worker'))
    done = site.deploy()
    assert placed(done) == {'worker': 'h2'}, 'it ran there'
    assert failed(done) == {}


def test_none_can_be_had(site: Standing, daemons: Daemons) -> None:
    daemons.name_hosts('h1', 'h1:9', 'h2:9')
    daemons.begin()
    site.write(sleeps('worker', util.least_loaded('h1:9,h2:9')))
    done = site.deploy(status=3)
    assert connecting(done) == ['h1:9', 'h2:9']
    assert 'refused' in failed(done)['h1:9']
    assert 'so says the daemon' not in done.stderr
    assert 'worker: no host will do:' in done.stderr


def test_another_machine_of_that_name_is_asked_itself(
    site: Standing, daemons: Daemons, loads: dict[str, Burden], tmp_path: Path
) -> None:
    daemons.ssh_config = ssh_config(tmp_path, daemons.bed, alias_of(daemons.bed, 'h2', 'h1'))
    daemons.name_hosts('h1', 'h3')
    daemons.begin()
    knows(daemons, h1=0.0, h3=4.0)
    site.write(sleeps('worker', util.least_loaded('h1,h3')))
    done = site.deploy()
    assert (placed(done), connecting(done)) == ({'worker': 'h3'}, ['h1', 'h3'])
    assert [event['host'] for event in done.events('host_released')] == ['h1']


def test_two_names_of_a_host_are_one(site: Standing, daemons: Daemons, tmp_path: Path) -> None:
    both = ssh_config(tmp_path, daemons.bed, alias_of(daemons.bed, 'h2', 'other'))
    daemons.ssh_config = site.ssh_config = both
    daemons.name_hosts('h2', 'h3')
    daemons.begin()
    daemons.name_hosts('h2', 'h3', 'other')
    daemons.becomes(h2='up', h3='up', other='lost')
    site.write(sleeps('worker', util.least_loaded('other,h3')))
    done = site.deploy()
    assert (placed(done), connecting(done)) == ({'worker': 'other'}, ['other'])
    assert virtual(daemons).keys() == {'h2'}
    site.write(sleeps('worker', 'other'), sleeps('next', util.least_loaded('h[2-3]'), files={'config.py': '/tmp/x'}))
    done = site.deploy()
    assert placed(done) == {'next': 'h2'}
    site.write(sleeps('worker', 'other'), sleeps('worker', util.least_loaded('h[2-3]')))
    assert placed(site.deploy()) == {'worker': 'h3'}, 'no two of one name'
