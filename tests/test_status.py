"""`status` and `ps`: how components are, of which session and on which hosts, and what is recorded of runs."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands import alias_of, component, ssh_config
from tests.deploying import kill, the_agent
from tests.standing import Standing, by_label, python, sh
from tests.testbed import Testbed
from tests.testbed.process import wait_until

_WORKERS = """
import os, time
for number in range(3):
    if os.fork() == 0:
        memory = bytearray(20_000_000)
        end = time.monotonic() + (1 if number == 0 else 0)
        while time.monotonic() < end:
            pass
        time.sleep(1000)
time.sleep(1000)
"""
_NOTIFIES = """
import os, socket, time
to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
to.connect(os.environ['NOTIFY_SOCKET'])
to.send(b'READY=1\\nSTATUS=serving 3 clients')
time.sleep(1000)
"""
_CONFIG = (
    component('broker', 'h1'),
    python('workers', 'h1', _WORKERS, start_index=1),
    sh('pub-0', 'h2', 'exec sleep 1000', start_index=1),
    sh('pub-1', 'h3', 'exec sleep 1000', start_index=1),
    sh('pub-1', 'h2', 'exec sleep 1000', start_index=1),
    'talker = Component(name="talker", host="h2", executable="/usr/bin/python3", start_index=2)\n',
    f'talker.args = ["-ISc", {_NOTIFIES!a}]\n',
    'talker.ready = ready.notify()\n',
    'config.add_component(talker)\n',
    component('here', 'localhost', start_index=2),
)
_ALL = ['broker@h1', 'workers@h1', 'pub-0@h2', 'pub-1@h3', 'pub-1@h2', 'talker@h2', 'here@localhost']


@pytest.fixture
def site(bed: Testbed, tmp_path: Path) -> Iterator[Standing]:
    with Standing(bed, tmp_path) as site:
        yield site


class TestLooking:
    """A session that is only looked at."""

    @pytest.fixture(scope='class')
    @classmethod
    def site(cls, bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
        with Standing(bed, tmp_path_factory.mktemp('looking')) as site:
            site.write(*_CONFIG)
            site.deploy()
            yield site

    def test_the_table(self, site: Standing) -> None:
        heading, *rows, last = site.table()
        assert heading.split() == ['COMPONENT', 'HOST', 'STATE', 'PID', 'TIME', 'CPU', 'MEMORY', 'SAYS']
        assert [f'{row.split()[0]}@{row.split()[1]}' for row in rows] == _ALL
        assert re.fullmatch(r'broker +h1 +started +\d+ +\d+ s +0 % +\d\.\d MB', rows[0])
        assert re.fullmatch(r'talker +h2 +ready +\d+ +\d+ s +\d+ % +\d+\.\d MB +serving 3 clients', rows[5])
        assert last == f'session {site.session}: 7 components: 6 started, 1 ready'

    def test_it_is_the_same_each_time(self, site: Standing) -> None:
        tables = [[row.split()[:2] for row in site.table()] for _ in range(2)]
        assert tables[0] == tables[1]

    def test_json(self, site: Standing) -> None:
        done = site.later('status', '--json')
        [whole] = done.objects
        assert set(whole) == {'session', 'time', 'components', 'unreachable'}
        assert (whole['session'], whole['unreachable']) == (site.session, {})
        own = by_label(done)
        assert list(own) == _ALL
        known = {'name', 'host', 'index', 'run', 'by', 'state', 'ready', 'pid', 'window', 'started', 'uptime'}
        assert set(own['broker@h1']) == known | {'restarts', 'cpu', 'memory', 'processes'}
        assert set(own['talker@h2']) == set(own['broker@h1']) | {'said'}
        broker = own['broker@h1']
        assert (broker['state'], broker['ready'], broker['restarts'], broker['window']) == ('started', True, 0, 0)
        assert (own['talker@h2']['state'], own['talker@h2']['said']) == ('ready', 'serving 3 clients')
        assert site.deployment.argv(broker['pid']) == ['/bin/sleep', '100000']
        assert broker['uptime'] == pytest.approx(whole['time'] - broker['started'], abs=1)
        assert [own[label]['index'] for label in _ALL] == [0, 1, 1, 1, 1, 2, 2]

    def test_what_the_whole_tree_uses(self, site: Standing) -> None:
        wait_until(lambda: site.seen('workers')['workers@h1']['cpu'] > 0.2, 'some use of a processor')
        workers = site.seen()['workers@h1']
        assert workers['processes'] == 4
        assert 60e6 < workers['memory'] < 200e6
        assert workers['cpu'] <= workers['uptime'] * 1.1 + 0.1

    def test_from_the_config(self, site: Standing) -> None:
        other = site.from_elsewhere()
        asked = ['-F', site.ssh_config, '--screen', site.session, '--json']
        assert list(by_label(site.run('status', '-c', site.config, *asked))) == _ALL
        config = site.file('more.py', site.config.read_text() + component('new', 'h3'))
        found = by_label(other.run('status', '-c', config, *asked, status=1))
        assert sorted(found) == sorted([*_ALL, 'new@h3'])
        # What runs here is known to whose home it began from.
        missing = {label: seen['reason'] for label, seen in found.items() if seen['state'] == 'missing'}
        assert missing == dict.fromkeys(['new@h3', 'here@localhost'], 'its host knows nothing of it')
        muddler = site.file('muddler.py', 'def muddle(config):\n    config.clear_components()\n')
        assert other.run('status', '-c', config, '-m', muddler, *asked, status=2).stdout == ''

    def test_a_muddler_changes_what_is_expected(self, site: Standing) -> None:
        muddler = site.file('another.py', 'def muddle(config):\n    [*config.all_components()][0].name = "chief"\n')
        asked = ['-F', site.ssh_config, '-c', site.config, '-m', muddler, '--screen', site.session, '--json']
        found = by_label(site.from_elsewhere().run('status', *asked, status=1))
        assert found['chief@h1']['state'] == 'missing'
        assert found['broker@h1']['state'] == 'started'  # whatever the config says, it is there

    def test_from_hosts_alone(self, site: Standing) -> None:
        other = site.from_elsewhere()
        found = by_label(other.run('status', *site.elsewhere('h[1-3]'), '--json'))
        assert sorted(found) == sorted(_ALL[:-1])
        assert list(by_label(site.run('status', *site.elsewhere('localhost'), '--json'))) == ['here@localhost']
        assert list(by_label(other.run('status', *site.elsewhere('h1'), '--json'))) == ['broker@h1', 'workers@h1']
        assert other.run('status', *site.elsewhere('h1'), '-c', site.config, status=2).stdout == ''

    @pytest.mark.parametrize(
        ('patterns', 'meant'),
        [
            (['broker'], ['broker@h1']),
            (['pub*'], ['pub-0@h2', 'pub-1@h3', 'pub-1@h2']),
            (['pub-1'], ['pub-1@h3', 'pub-1@h2']),
            (['pub-1@h2'], ['pub-1@h2']),
            (['*@h2'], ['pub-0@h2', 'pub-1@h2', 'talker@h2']),
            (['here', 'pub-?@h3'], ['pub-1@h3', 'here@localhost']),
            (['*'], _ALL),
        ],
    )
    def test_names(self, site: Standing, patterns: list[str], meant: list[str]) -> None:
        assert list(site.seen(*patterns)) == meant

    def test_names_between_options(self, site: Standing) -> None:
        done = site.run('status', 'broker', '--json', '--screen', site.session, 'here')
        assert list(by_label(done)) == ['broker@h1', 'here@localhost']

    def test_a_name_that_nobody_has(self, site: Standing) -> None:
        for command in ('status', 'stop', 'restart'):
            done = site.later(command, 'broker', 'tolker', status=2)
            assert "'tolker'" in done.stderr
            assert 'the nearest is talker@h2' in done.stderr
            assert done.stdout == ''
        assert site.states('broker') == {'broker@h1': 'started'}

    def test_names_that_nobody_has_among_no_components(self, site: Standing) -> None:
        elsewhere = ['-F', site.ssh_config, '--screen', f'{site.session}x', '-H', 'h1']
        assert site.run('status', *elsewhere).stdout == f'session {site.session}x: 0 components\n'
        assert 'there: none' in site.run('status', *elsewhere, 'broker', status=2).stderr

    def test_without_a_record_the_sessions_that_have_one_are_named(self, site: Standing) -> None:
        done = site.run('status', '--screen', 'another', status=2)
        assert 'session another' in done.stderr
        assert site.session in done.stderr
        assert site.from_elsewhere().run('status', status=2).stderr.count('\n') == 1

    def test_ps(self, site: Standing) -> None:
        other = site.from_elsewhere()
        done = other.run('ps', 'h1', '-F', site.ssh_config, 'h2,h3')
        heading, *rows, last = done.stdout.splitlines()
        assert heading.split() == ['HOST', 'SESSION', 'COMPONENT', 'STATE', 'TIME', 'RUN', 'BY']
        own = [row.split() for row in rows if site.session in row]
        assert sorted(f'{row[2]}@{row[0]}' for row in own) == sorted(_ALL[:-1])
        assert all(row.endswith(f'  {site.by()}') for row in rows)
        assert last.endswith('on 3 hosts')
        found = other.run('ps', 'h1,h3', '--json', '-F', site.ssh_config).objects
        assert [set(each) for each in found] == [{'host', 'sessions', 'servers'}] * 2
        assert [each['host'] for each in found] == ['h1', 'h3']
        assert [seen['name'] for seen in found[0]['sessions'][site.session]] == ['broker', 'workers']
        assert found[0]['servers'][site.session] == [site.deployment.the_session().pid]
        assert found[0]['sessions'][site.session][0]['by'].startswith(f'{site.by()} (pid ')

    def test_ps_of_a_host_that_is_not_there(self, site: Standing) -> None:
        done = site.run('ps', 'h1,nowhere', '-F', site.ssh_config, status=3)
        assert 'ERROR: nowhere: ' in done.stderr
        assert 'broker' in done.stdout

    def test_another_users_sessions_are_their_own(self, site: Standing) -> None:
        account = site.deployment.user('reader')
        assert site.run('ps', f'{account}@h1', '-F', site.ssh_config).stdout == '0 sessions on 1 host\n'

    def test_no_colours_in_a_pipe(self, site: Standing) -> None:
        done = site.later('status', variables={'FORCE_COLOR': '1', 'CLICOLOR_FORCE': '1'})
        assert b'\x1b' not in done.out + done.err


class TestStates:
    """What components come to, and how it is shown."""

    def test_ended_and_starting_again(self, site: Standing) -> None:
        site.write(
            sh('well', 'h1', 'exit 0'),
            sh('bad', 'h1', 'sleep 0.3; exit 3'),
            sh('shot', 'h1', 'exec sleep 1000'),
            sh('flaky', 'h2', 'sleep 0.2; exit 4', restart='on-failure'),
            sh('lost', 'h2', 'sleep 0.2; exit 5', restart='on-failure', max_restarts=1),
            sh('loner', 'h3', 'exec sleep 1000'),
        )
        site.deploy()
        kill(site.deployment.host(), signal.SIGKILL, site.pid('shot@h1'))
        site.later('stop', 'loner')
        site.comes_to('bad@h1', 'exited')
        site.comes_to('lost@h2', 'exited')
        flaky = site.comes_to('flaky@h2', 'restarting', restarts=3)
        assert 'pid' not in flaky
        assert 'uptime' not in flaky
        assert (flaky['ready'], flaky['status']) == (False, 4)
        done = site.later('status', status=1)
        cells = {row.split()[0]: re.split(r'  +', row) for row in done.stdout.splitlines()[1:-1]}
        assert {name: row[2] for name, row in cells.items() if name != 'flaky'} == {
            'well': 'exited 0',
            'bad': 'exited 3',
            'shot': 'exited 137',
            'lost': 'failed',
            'loner': 'stopped',
        }
        assert 'RESTARTS' in done.stdout
        assert cells['lost'][-1] == 'it ended with exit status 5, after 1 restart'
        own = site.seen()
        assert (own['well@h1']['status'], own['bad@h1']['status'], own['lost@h2']['restarts']) == (0, 3, 1)
        assert own['bad@h1']['ended'] - own['bad@h1']['started'] == pytest.approx(0.3, abs=0.25)
        assert site.later('status', 'well', 'loner').status == 0

    def test_not_ready_and_ready(self, site: Standing) -> None:
        site.write(sh('slow', 'h1', 'exec sleep 1000', 'ready=ready.file("/tmp/is-ready")'))
        with site.begin() as running:
            wait_until(lambda: b'component_started' in running.out, 'its start')
            table = site.table()
            assert re.match(r'slow +h1 +not ready ', table[1])
            assert site.seen()['slow@h1']['ready'] is False
            site.deployment.host().path('/tmp/is-ready').touch()
            assert running.end().status == 0
        assert site.states() == {'slow@h1': 'ready'}

    def test_never_begun(self, site: Standing) -> None:
        site.write(sh('bad', 'h1', 'sleep 1.2; exit 3', start_grace=1.5), component('next', 'h2', start_index=1))
        site.deploy(status=1)
        assert site.states() == {'bad@h1': 'exited', 'next@h2': 'aborted'}  # its window was opened ahead
        assert 'aborted' in site.later('status', 'next', status=1).stdout
        assert site.deployment.sleepers(host='h2') == []

    def test_a_program_whose_children_go_on(self, site: Standing) -> None:
        site.write(sh('parent', 'h1', 'setsid sleep 1000 & setsid sleep 1000 & sleep 0.1'))
        site.deploy()
        seen = site.comes_to('parent@h1', 'exited')
        assert (seen['processes'], seen['status']) == (2, 0)
        assert 'run on: 2' in site.table()[1]
        site.later('stop', 'parent')
        assert site.deployment.sleepers(1000) == []

    def test_a_host_that_is_out_of_reach(self, fresh_bed: Callable[..., Testbed], tmp_path: Path) -> None:
        bed = fresh_bed(2)
        with Standing(bed, tmp_path) as site:
            site.write(component('one', 'h1'), component('two', 'h2'))
            site.deploy()
            bed['h2'].cut()
            done = site.later('status', '--connect-timeout', '1', status=3)
            assert re.search(r'^two +h2 +unknown ', done.stdout, re.MULTILINE)
            assert 'ERROR: h2: ' in done.stderr
            [whole] = site.later('status', '--connect-timeout', '1', '--json', status=3).objects
            assert [seen['state'] for seen in whole['components']] == ['started', 'unknown']
            assert list(whole['unreachable']) == ['h2']
            assert site.later('status', 'one', '--connect-timeout', '1').stdout.count('h2') == 0
            bed['h2'].heal()
            assert site.states() == {'one@h1': 'started', 'two@h2': 'started'}

    def test_two_names_of_one_machine(self, bed: Testbed, tmp_path: Path) -> None:
        config = ssh_config(tmp_path, bed, alias_of(bed, 'h1', 'twin'))
        with Standing(bed, tmp_path, config) as site:
            site.write(component('one', 'h1'), component('two', 'twin'), component('three', 'h2'))
            site.deploy()
            assert site.states() == {'one@h1': 'started', 'two@twin': 'started', 'three@h2': 'started'}
            assert list(site.seen('*@twin')) == ['two@twin']
            found = by_label(site.from_elsewhere().run('status', *site.elsewhere('twin,h1'), '--json'))
            assert sorted(found) == ['one@h1', 'two@twin']
            site.later('stop')
            assert site.states() == {'one@h1': 'stopped', 'two@twin': 'stopped', 'three@h2': 'stopped'}


class TestRecords:
    """What is kept on this machine of each run."""

    def test_what_is_in_it(self, site: Standing) -> None:
        site.file('secrets', 'TOKEN=hidden-token\n')
        script = 'echo $TOKEN; exec sleep 1000'
        site.write(
            sh('one', 'h1', script, env_file='secrets', env={'PLAIN': 'shown'}),
            sh('two', 'localhost', 'exec sleep 1000 # my-password', start_index=3),
        )
        done = site.deploy('-p', 'my-password')
        [folder] = site.runs_folder().iterdir()
        assert {path.name for path in folder.iterdir()} == {'record.json', 'events.jsonl'}
        assert [stat.S_IMODE(path.stat().st_mode) for path in (*folder.iterdir(), folder)] == [0o600, 0o600, 0o700]
        record = json.loads((folder / 'record.json').read_text())
        assert set(record) == {'version', 'run', 'session', 'started', 'by', 'config_file', 'ssh', 'components'}
        run = done.event('run_started')
        assert (record['version'], record['run'], record['session']) == (1, run['run'], site.session)
        assert (folder.name, record['started']) == (run['run'], run['time'])
        assert record['by'].startswith(f'{site.by()} (pid ')
        assert (record['config_file'], record['ssh']) == (str(site.config), {'ssh_config': str(site.ssh_config)})
        assert [(c['name'], c['host'], c['start_index']) for c in record['components']] == [
            ('one', 'h1', 0),
            ('two', 'localhost', 3),
        ]
        events = [json.loads(line) for line in (folder / 'events.jsonl').read_text().splitlines()]
        assert events == [event for event in done.objects if event['event'] != 'files_sending']
        text = ''.join(path.read_text() for path in folder.iterdir())
        assert 'hidden-token' not in text
        assert 'my-password' not in text
        assert 'shown' in text

    def test_the_newest_counts_and_fifty_are_kept(self, site: Standing) -> None:
        for number in range(60):
            (site.runs_folder() / f'20200101-0000{number:02}-abcde').mkdir(parents=True)
        site.write(component('one', 'h1'))
        site.deploy()
        site.write(component('two', 'h2'))
        site.deploy()
        assert site.states() == {'two@h2': 'started'}
        kept = sorted(path.name for path in site.runs_folder().iterdir())
        assert len(kept) == 50
        assert kept[0] == '20200101-000012-abcde'

    def test_the_newest_is_that_whatever_the_clocks_of_those_who_began_them_show(self, site: Standing) -> None:
        site.write(component('one', 'h1'))
        site.deploy(variables={'TZ': 'Asia/Tokyo'})
        site.write(component('two', 'h1'))
        site.deploy(variables={'TZ': 'America/Los_Angeles'})
        site.later('stop')
        assert list(site.states()) == list(site.states(*site.elsewhere('h1'))) == ['two@h1']

    @pytest.mark.parametrize(
        'damage',
        [
            lambda text: text[: len(text) // 2],
            lambda text: text.replace('"version": 1', '"version": 2'),
            lambda text: '[]',
            lambda text: text.replace('"components"', '"komponents"'),
            lambda text: '',
        ],
        ids=['half', 'version', 'list', 'key', 'empty'],
    )
    def test_a_damaged_one_is_left_out(self, site: Standing, damage: Callable[[str], str]) -> None:
        site.write(component('one', 'h1'))
        site.deploy()
        [folder] = site.runs_folder().iterdir()
        newer = folder.with_name('29990101-000000-abcde')
        newer.mkdir()
        text = (folder / 'record.json').read_text()
        (newer / 'record.json').write_text(damage(text))
        done = site.later('status')
        assert re.search(r'^one +h1 +started ', done.stdout, re.MULTILINE)
        assert [line.partition(':')[0] for line in done.stderr.splitlines()] == ['WARNING']
        assert str(newer) in done.stderr
        os.rename(newer / 'record.json', folder / 'record.json')
        newer.rmdir()
        assert f'no run of session {site.session}' in site.later('status', status=2).stderr

    def test_one_that_cannot_be_written_does_not_stop_the_run(self, site: Standing) -> None:
        site.home.mkdir()
        site.file('home/.local', 'a file\n')
        site.write(component('one', 'h1'))
        done = site.deploy()
        assert done.stderr.count('WARNING: the record of this run cannot be written') == 1
        assert done.event('component_started')

    def test_how_hosts_are_reached_is_remembered(self, site: Standing, tmp_path: Path) -> None:
        account = site.deployment.user('runner')
        site.write(component('one', 'h1'))
        site.deploy('-u', account)
        [seen] = site.seen().values()
        assert seen['state'] == 'started'
        assert site.deployment.own_sessions('h1', account) != []
        assert site.later('status', '-u', 'root', status=1).stdout.count('missing') == 2

    def test_a_command_leaves_no_agent(self, site: Standing) -> None:
        site.write(component('one', 'h1'))
        site.deploy()
        with site.begin_later('wait') as running:
            agent = the_agent(site.deployment.host())
            running.process.kill()
            running.end()
        site.deployment.ends(agent.pid)
        assert site.states() == {'one@h1': 'started'}
