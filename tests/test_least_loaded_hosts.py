"""Runs of components whose hosts are decided by load: on real hosts that say what a test wants of theirs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_runner.config import util
from remote_runner.config.least_loaded import LeastLoaded
from tests.burdens import GB, Burden
from tests.commands import alias_of, ssh_config
from tests.standing import Standing, placed
from tests.testbed import Testbed

ANY = util.least_loaded('h[1-3]')


@pytest.fixture
def site(own: Testbed, tmp_path: Path) -> Iterator[Standing]:
    with Standing(own, tmp_path) as site:
        yield site


def sleeps(name: str, host: str | LeastLoaded = ANY, **more: Any) -> str:
    """The line of a config that adds a component that sleeps."""
    values = {'name': name, 'host': host, 'executable': '/bin/sleep', 'args': ['100000'], **more}
    return f'config.add_component(Component(**{values!a}))\n'


def record(site: Standing) -> list[dict[str, Any]]:
    """The components in the record of the last run."""
    found: list[dict[str, Any]] = json.loads(max(site.runs_folder().glob('*/record.json')).read_text())['components']
    return found


def sleepers(site: Standing) -> dict[str, int]:
    return {host: number for host in ('h1', 'h2', 'h3') if (number := len(site.deployment.sleepers(host=host)))}


def test_the_least_loaded_host_is_taken_and_all_that_follows_knows_it(
    site: Standing, loads: dict[str, Burden]
) -> None:
    loads['h1'].load(8.0)
    loads['h3'].load(4.0)
    site.file('data', 'one\n')
    site.write(
        sleeps('worker', files={'data': 'data'}, fetch={'data': None}),
        sleeps('client', 'h1', start_index=1, depends_on=['worker']),
    )
    done = site.deploy()
    begun = done.event('run_started')
    assert (begun['hosts'], begun['undecided']) == (['h1'], ['worker'])
    assert begun['components'] == {'0': [], '1': ['client@h1']}
    event = done.event('component_placed')
    assert (event['component'], event['host'], event['among']) == ('worker', 'h2', 'least_loaded(h[1-3])')
    assert (event['load'], event['kept'], event['why']) == (0.0, False, '')
    assert [released['host'] for released in done.events('host_released')] == ['h3']
    assert sleepers(site) == {'h1': 1, 'h2': 1}
    [worker, client] = record(site)
    assert (worker['host'], worker['least_loaded']['hosts']) == ('h2', ['h1', 'h2', 'h3'])
    assert client['depends_on'] == ['worker@h2']
    assert site.states() == site.states('worker@h2') | site.states('client') == {
        'worker@h2': 'started',
        'client@h1': 'started',
    }
    assert json.loads(site.later('attach', 'worker@h2', '--json').stdout)['host'] == 'h2'
    site.later('fetch', 'worker@h2', '--results', site.folder / 'home-brought')
    [brought] = (site.folder / 'home-brought').rglob('data')
    assert brought.read_text() == 'one\n'
    found = site.run('status', *site.arguments('--json')).stdout  # by the config, not by the record
    assert {seen['host'] for seen in json.loads(found)['components']} == {'h1', 'h2'}
    site.later('stop')
    site.deployment.is_stopped('h2')


def test_several_spread(site: Standing, loads: dict[str, Burden]) -> None:
    site.write(*(sleeps(f'w{number}') for number in range(6)), sleeps('every', util.least_loaded('h[1-3]', count=3)))
    done = site.deploy()
    assert sleepers(site) == {'h1': 3, 'h2': 3, 'h3': 3}
    assert Counter(placed(done).values()).keys() == {'h1', 'h2', 'h3'}
    assert sorted(label for label in site.states() if label.startswith('every')) == ['every@h1', 'every@h2', 'every@h3']


def test_it_stays_until_another_host_is_far_better(site: Standing, loads: dict[str, Burden]) -> None:
    loads['h1'].load(8.0)
    loads['h3'].load(8.0)
    site.file('data', 'x' * 100_000)
    site.write(sleeps('worker', base_dir='work', files={'data': 'data'}))
    assert placed(site.deploy()) == {'worker': 'h2'}
    loads['h1'].load(7.0)
    loads['h2'].load(13.0)
    done = site.deploy()
    assert placed(done) == {'worker': 'h2'}
    assert done.event('component_placed')['kept'] is True
    assert done.event('files_sent')['sent'] == 0
    loads['h2'].load(30.0)
    shown = site.run('plan', *site.arguments('--diff', '--json'))
    [component] = json.loads(shown.stdout)['indexes'][0]['components']
    assert (component['host'], component['least_loaded']['was']) == ('h1', 'h2')
    assert 'h2: worker would be ended there' in shown.stderr
    assert placed(site.deploy('--keep-running')) == {'worker': 'h2'}
    assert sleepers(site) == {'h2': 1}
    done = site.deploy()
    event = done.event('component_placed')
    assert (event['host'], event['kept']) == ('h1', False)
    assert event['why'].startswith('h2 scores ')
    assert done.event('session_quit')['host'] == 'h2'  # nothing is left where it was
    assert sleepers(site) == {'h1': 1}


def test_what_it_holds_itself_is_not_held_against_its_host(site: Standing, loads: dict[str, Burden]) -> None:
    """The memory and the processor time of what this run replaces."""
    loads['h1'].load(8.0)
    loads['h3'].load(8.0)
    program = 'import pathlib, time; held = b"x" * 200_000_000; pathlib.Path("/tmp/up").touch(); time.sleep(100000)'
    host = util.least_loaded('h[1-3]', '4G')
    site.write(sleeps('worker', host, executable='/usr/bin/python3', args=['-ISc', program]))
    assert placed(site.deploy()) == {'worker': 'h2'}
    site.deployment.appears('/tmp/up', 'h2')
    loads['h2'].memory(4 * GB - GB // 10)
    site.bed['h2'].path('/tmp/up').unlink()
    assert placed(site.deploy()) == {'worker': 'h2'}
    site.deployment.appears('/tmp/up', 'h2')
    site.later('stop')
    site.deployment.is_stopped('h2')
    done = site.deploy()  # now it is somebody else who holds that
    assert placed(done) == {'worker': 'h1'}
    assert done.event('component_placed')['why'] == 'h2: 3.9 GB of memory are free, not 4.0 GB'


def test_an_unreachable_host_is_left_out(site: Standing, loads: dict[str, Burden]) -> None:
    site.write(sleeps('worker', util.least_loaded('h1:9,h2,h3')), sleeps('other', 'h3'))
    done = site.deploy()
    assert [event['host'] for event in done.events('host_failed')] == ['h1:9']
    assert placed(done) == {'worker': 'h2'}
    site.write(sleeps('worker', util.least_loaded('h1:9,h2:9')), sleeps('other', 'h3'))
    done = site.deploy(status=3)
    assert 'worker: no host will do:' in done.stderr
    assert 'nothing was changed on any host' in done.stderr
    assert sleepers(site) == {'h2': 1, 'h3': 1}
    site.write(sleeps('worker', util.least_loaded('h1,h2', '9G')))
    loads['h2'].memory(GB, 16 * GB)
    done = site.deploy(status=1)
    assert '  - h1: 8.0 GB of memory are free, not 9.0 GB' in done.stderr


def test_it_comes_back_to_life_elsewhere_when_its_host_is_off(site: Standing, loads: dict[str, Burden]) -> None:
    loads['h1'].load(4.0)
    loads['h3'].load(8.0)
    site.write(sleeps('worker'))
    assert placed(site.deploy()) == {'worker': 'h2'}
    site.bed['h2'].cut()
    try:
        done = site.deploy('--connect-timeout', '1')
    finally:
        site.bed['h2'].heal()
    event = done.event('component_placed')
    assert event['host'] == 'h1'
    assert event['why'].startswith('h2: ')
    assert 'h2: what the last run started there may run on' in done.stderr
    assert record(site)[0]['host'] == 'h1'


def test_only_and_limit_mean_where_it_was(site: Standing, loads: dict[str, Burden]) -> None:
    loads['h1'].load(4.0)
    site.write(sleeps('a', util.least_loaded('h[1-2]')), sleeps('b', 'h3'))
    site.deploy()
    loads['h2'].load(16.0)
    done = site.deploy('--limit', 'h2')
    assert placed(done) == {'a': 'h2'}
    assert [event['host'] for event in done.events('host_connected')] == ['h2']
    assert 'no component runs on' in site.deploy('--limit', 'h1', status=2).stderr
    assert placed(site.deploy('--only', 'a@h2')) == {'a': 'h1'}
    assert sleepers(site) == {'h1': 1, 'h3': 1}


def test_a_component_that_ended_starts_again_where_it_was(site: Standing, loads: dict[str, Burden]) -> None:
    loads['h1'].load(1.0)
    site.write(sleeps('worker', util.least_loaded('h[1-2]')), sleeps('other', util.least_loaded('h[1-2]')))
    first = placed(site.deploy())
    site.later('stop', 'worker')
    done = site.run('run', 'worker', *site.arguments('--json'))
    assert placed(done) == {'worker': first['worker']}
    assert site.states() == {f'{name}@{host}': 'started' for name, host in first.items()}


def test_the_plan_shows_that_it_is_decided_later(site: Standing, loads: dict[str, Burden]) -> None:
    site.write(sleeps('worker'), sleeps('fixed', 'h1'))
    text = site.run('plan', *site.arguments()).stdout
    assert text.startswith(f'session {site.session}: 2 components on 1 host and the least loaded of 3\n')
    assert '  worker@least_loaded(h[1-3])  /bin/sleep 100000\n' in text
    loads['h1'].load(4.0)
    loads['h2'].load(4.0)
    text = site.run('plan', *site.arguments('--diff')).stdout
    assert text.startswith(f'session {site.session}: 2 components on 2 hosts\n')
    assert '  worker@h3  /bin/sleep 100000\n' in text
    assert sleepers(site) == {}


def test_two_names_of_a_host_are_one(own: Testbed, loads: dict[str, Burden], tmp_path: Path) -> None:
    config = ssh_config(tmp_path, own, alias_of(own, 'h1', 'other'))
    with Standing(own, tmp_path, config) as site:
        loads['h3'].load(9.0)
        site.write(sleeps('worker', util.least_loaded('h1,other,h3', count=2)))
        assert [event['host'] for event in site.deploy().events('component_placed')] == ['h1', 'h3']


def test_the_terminal_and_the_log_say_where(site: Standing, loads: dict[str, Burden]) -> None:
    loads['h1'].load(4.0)
    loads['h2'].load(4.0)
    site.write(sleeps('worker'))
    done = site.run(*site.arguments('-l', 'INFO'))
    assert 'worker@h3: is to run there, load 0.00 a core' in done.stderr
    assert 'worker' in done.stdout
    assert 'h3' in done.stdout


def test_fewer_of_them(site: Standing, loads: dict[str, Burden]) -> None:
    site.write(sleeps('worker', util.least_loaded('h[1-3]', count=3)))
    site.deploy()
    site.write(sleeps('worker', util.least_loaded('h[1-3]', count=2)))
    assert 'worker' in site.deploy('--no-kill', status=1).stderr  # it still runs
    assert sleepers(site) == {'h1': 1, 'h2': 1, 'h3': 1}
    site.deploy('--keep-running')
    assert sleepers(site) == {'h1': 1, 'h2': 1}
    site.write(sleeps('worker', util.least_loaded('h[1-3]', count=1)))
    site.deploy()
    assert sleepers(site) == {'h1': 1}


def test_what_a_part_of_an_earlier_run_left_is_found(site: Standing, loads: dict[str, Burden]) -> None:
    loads['h1'].load(9.0)
    site.write(sleeps('a', util.least_loaded('h[1-2]')), sleeps('b', 'h3'))
    assert placed(site.deploy()) == {'a': 'h2'}
    site.deploy('--only', 'b')  # the record of this run knows nothing of the other one
    assert sleepers(site) == {'h2': 1, 'h3': 1}
    loads['h1'].load(0.0)
    loads['h2'].load(9.0)
    assert placed(site.deploy()) == {'a': 'h1'}
    assert sleepers(site) == {'h1': 1, 'h3': 1}


def test_where_a_machine_is_used_under_another_name_nothing_was_left(
    own: Testbed, loads: dict[str, Burden], tmp_path: Path
) -> None:
    with Standing(own, tmp_path, ssh_config(tmp_path, own, alias_of(own, 'h2', 'other'))) as site:
        loads['h3'].load(9.0)
        site.write(sleeps('worker', util.least_loaded('h2,h3')))
        assert placed(site.deploy()) == {'worker': 'h2'}
        site.write(sleeps('worker', 'other'), sleeps('worker', util.least_loaded('h2,h3')))
        assert placed(site.deploy()) == {'worker': 'h3'}
        assert sleepers(site) == {'h2': 1, 'h3': 1}
