"""`stop`, `restart`, `signal` and `wait`: what is done to components that stand."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands import Done, alias_of, component, ssh_config
from tests.deploying import agents, kill
from tests.standing import Standing, by_label, python, sh
from tests.testbed import Testbed
from tests.testbed.process import wait_until

_TRAPS = """\
trap 'echo got USR1' USR1
trap 'echo got TERM; exit 0' TERM
trap 'echo got HUP' HUP
echo set
while :; do sleep 0.05; done
"""
_FORKS = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        time.sleep(31337)
os.execv('/bin/sleep', ['sleep', '31337'])
"""


@pytest.fixture
def site(bed: Testbed, tmp_path: Path) -> Iterator[Standing]:
    with Standing(bed, tmp_path) as site:
        yield site


def in_order(done: Done, kind: str) -> list[str]:
    return [f'{event["component"]}@{event["host"]}' for event in done.events(kind)]


def outcome(done: Done) -> tuple[str, int, dict[str, str]]:
    """What the last line of `--json` says: the command, its exit status, and the states of components."""
    last = done.objects[-1]
    assert last['event'] == 'command_ended'
    return last['command'], last['exit_status'], last['components']


class TestStop:
    def test_in_the_reverse_order_of_the_starts(self, site: Standing) -> None:
        site.write(
            component('first', 'h1'),
            component('second', 'h2', start_index=1),
            component('third', 'h1', start_index=1, depends_on=['second']),
            component('last', 'localhost', start_index=7),
        )
        site.deploy()
        done = site.later('stop', '--json')
        assert in_order(done, 'component_stopped') == ['last@localhost', 'third@h1', 'second@h2', 'first@h1']
        assert set(site.states().values()) == {'stopped'}
        assert [site.deployment.own_sessions(host) for host in ('h1', 'h2')] == [[], []]
        assert site.sessions_here() == []
        assert site.deployment.sleepers() == []

    def test_some_leave_the_others_and_all_windows(self, site: Standing) -> None:
        site.write(*(component(name, 'h1') for name in ('pub-1', 'sub', 'pub-2')), component('pub-1', 'h2'))
        site.deploy()
        done = site.later('stop', 'pub*@h1')
        assert done.stdout == '2 components stopped\n'
        states = {'pub-1@h1': 'stopped', 'sub@h1': 'started', 'pub-2@h1': 'stopped', 'pub-1@h2': 'started'}
        assert site.states() == states
        assert site.deployment.windows() == {0: 'pub-1', 1: 'sub', 2: 'pub-2'}
        assert len(site.deployment.sleepers()) == 1
        # Again: nothing of them is left to be stopped.
        assert site.later('stop', 'pub*@h1').stdout == '0 components stopped\n'
        assert site.later('stop').stdout == '2 components stopped\n'
        assert site.deployment.own_sessions() == []
        assert site.later('stop').stdout == '0 components stopped\n'
        hosts = ['h[1-2]', '-F', site.ssh_config]
        assert site.session not in site.run('ps', *hosts).stdout
        assert site.run('ps', *hosts, '--all').stdout.count(f' {site.session} ') == 4

    def test_all_descendants_end(self, site: Standing) -> None:
        site.write(python('forks', 'h1', _FORKS, stop_timeout=0.3))
        site.deploy()
        wait_until(lambda: len(site.deployment.processes('31337')) == 1, 'its last step')
        assert site.seen()['forks@h1']['processes'] == 5
        site.later('stop', 'forks')
        assert site.deployment.processes('31337') == []
        assert site.states() == {'forks@h1': 'stopped'}

    def test_from_the_config_and_from_hosts(self, site: Standing) -> None:
        site.write(component('one', 'h1'), component('two', 'h2'), component('three', 'h3'))
        site.deploy()
        other = site.from_elsewhere()
        muddler = site.file('muddler.py', 'def muddle(config):\n    [*config.all_components()][0].args.append("x")\n')
        asked = ['-F', site.ssh_config, '--screen', site.session]
        other.run('stop', 'one', '-c', site.config, '-m', muddler, *asked)
        other.run('stop', '*@h2', *site.elsewhere('h[1-3]'))
        assert site.states() == {'one@h1': 'stopped', 'two@h2': 'stopped', 'three@h3': 'started'}
        other.run('stop', *site.elsewhere('h1,h2'))
        assert site.deployment.own_sessions('h1') == []
        assert len(site.deployment.own_sessions('h3')) == 1

    def test_the_outcome_as_json(self, site: Standing) -> None:
        site.write(component('one', 'h1'), component('two', 'h2'), sh('over', 'h1', 'exit 0'))
        site.deploy()
        site.comes_to('over@h1', 'exited')
        assert outcome(site.later('stop', 'two', '--json')) == ('stop', 0, {'two@h2': 'stopped'})
        assert outcome(site.later('restart', 'two', '--json')) == ('restart', 0, {'two@h2': 'started'})
        both = {'one@h1': 'stopped', 'two@h2': 'stopped'}
        assert outcome(site.later('stop', '--json')) == ('stop', 0, both)
        again = site.later('stop', '--json')
        assert outcome(again) == ('stop', 0, {})
        assert len(again.objects) == 1
        assert outcome(site.run('run', 'one', '--screen', site.session, '--json')) == ('run', 0, {'one@h1': 'started'})

    def test_in_a_session_that_is_not_there(self, site: Standing) -> None:
        assert site.run('stop', *site.elsewhere('h1')).stdout == '0 components stopped\n'

    def test_other_sessions_stay(self, site: Standing) -> None:
        site.write(component('one', 'h1'))
        site.deploy()
        site.deploy('--screen', f'{site.session}x')
        site.later('stop')
        assert [found.name for found in site.deployment.sessions()] == [f'{site.session}x']
        site.run('stop', '--screen', f'{site.session}x')
        assert site.deployment.sleepers() == []

    def test_while_a_run_is_at_work_somebody_else_changes_nothing(self, site: Standing) -> None:
        site.write(sh('slow', 'h1', 'exec sleep 1000', 'ready=ready.file("/tmp/never")'))
        with site.begin() as running:
            wait_until(lambda: b'component_started' in running.out, 'its start')
            done = site.later('stop', status=None)
            assert done.status == 1
            assert f'{site.by()} (pid {running.pid})' in done.stderr
            assert site.states() == {'slow@h1': 'started'}
            running.signal(signal.SIGINT)
            running.end()


class TestRestart:
    def test_one_that_runs(self, site: Standing) -> None:
        site.write(
            sh('before', 'h1', 'exec sleep 1000'),
            sh('worker', 'h1', 'echo "begin $GREETING $1"; exec sleep 1000', env={'GREETING': 'hello'}),
            sh('behind', 'h1', 'exec sleep 1000'),
        )
        site.deploy()
        old = site.seen()
        done = site.later('restart', 'worker', '--json')
        assert in_order(done, 'component_stopped') == ['worker@h1']
        assert in_order(done, 'component_started') == ['worker@h1']
        new = site.seen()
        assert new['worker@h1']['pid'] == done.event('component_started')['pid'] != old['worker@h1']['pid']
        assert site.deployment.runs(new['worker@h1']['pid'])
        assert not site.deployment.runs(old['worker@h1']['pid'])
        assert new['worker@h1']['restarts'] == 0
        assert new['worker@h1']['uptime'] < old['before@h1']['uptime'] + 60
        for label in ('before@h1', 'behind@h1'):
            assert (new[label]['pid'], new[label]['window']) == (old[label]['pid'], old[label]['window'])
        assert sorted(site.deployment.windows().items()) == [(0, 'before'), (1, 'worker'), (2, 'behind')]
        assert new['worker@h1']['window'] == 1
        log = site.deployment.output_log('worker')
        wait_until(lambda: log.read_text().count('begin hello') == 2, 'its output to go on')
        assert site.later('logs', 'worker').stdout == 'worker@h1 | begin hello \n' * 2

    def test_one_whose_end_screen_sees_late(self, site: Standing) -> None:
        site.write(component('worker', 'h1'), component('behind', 'h1'))
        site.deploy()
        host, server = site.deployment.host(), site.deployment.the_session().pid
        kill(host, signal.SIGSTOP, server)
        with site.begin_later('restart', 'worker', '--json') as running:
            wait_until(lambda: any('-Q' in process.argv for process in host.processes()), 'the question for windows')
            kill(host, signal.SIGCONT, server)
            assert running.end().status == 0
        assert site.deployment.windows() == {0: 'worker', 1: 'behind'}

    def test_one_that_has_ended_and_all_its_windows(self, site: Standing) -> None:
        site.write(sh('short', 'h1', 'echo done; exit 0'), component('long', 'h1'))
        site.deploy()
        site.comes_to('short@h1', 'exited')
        for times in (2, 3):
            assert site.later('restart', 'short').stdout == '1 component started again\n'
            wait_until(lambda times=times: site.later('logs', 'short').stdout.count('done') == times, 'its output')
            assert site.deployment.windows() == {0: 'short', 1: 'long'}
        seen = site.comes_to('short@h1', 'exited')
        assert (seen['window'], seen['status']) == (0, 0)

    def test_a_whole_session_in_its_order(self, site: Standing) -> None:
        site.write(
            component('broker', 'h1'),
            component('worker', 'h2', start_index=1),
            component('here', 'localhost', start_index=2),
        )
        site.deploy()
        done = site.later('restart', '*', '--json')
        assert in_order(done, 'component_stopped') == ['here@localhost', 'worker@h2', 'broker@h1']
        assert in_order(done, 'component_started') == ['broker@h1', 'worker@h2', 'here@localhost']
        assert set(site.states().values()) == {'started'}

    def test_after_the_session_was_stopped(self, site: Standing) -> None:
        site.write(component('one', 'h1'), component('two', 'h2'))
        site.deploy()
        site.later('stop')
        site.later('restart', 'two')
        assert site.states() == {'one@h1': 'stopped', 'two@h2': 'started'}
        assert site.deployment.windows('h2') == {0: 'two'}
        assert site.deployment.own_sessions('h1') == []

    def test_components_of_different_runs(self, site: Standing) -> None:
        """Each stays in its own run: on no host does another one come to stand, and hide it."""
        site.write(component('one', 'h1', start_index=1), component('two', 'h2'))
        site.deploy()
        site.write(component('two', 'h2'))
        site.deploy()
        elsewhere = site.elsewhere('h1,h2')
        old = by_label(site.run('status', '--json', *elsewhere))
        assert old['one@h1']['run'] < old['two@h2']['run']
        site.run('restart', '*', *elsewhere)
        site.run('stop', *elsewhere)
        new = by_label(site.run('status', '--json', *elsewhere))
        assert {label: (seen['run'], seen['state']) for label, seen in new.items()} == {
            label: (seen['run'], 'stopped') for label, seen in old.items()
        }

    def test_beside_one_whose_spec_was_lost(self, site: Standing) -> None:
        """A host that loses its power may have files afterwards in which nothing stands."""
        site.write(component('one', 'h1'), sh('lost', 'h1', 'exit 0'))
        site.deploy()
        site.comes_to('lost@h1', 'exited')
        site.deployment.output_log('lost').with_name('spec').write_bytes(b'')
        site.later('restart', 'one')
        assert site.states() == {'one@h1': 'started', 'lost@h1': 'missing'}

    def test_with_the_config_its_secrets_are_masked(self, site: Standing) -> None:
        (site.folder / 'secrets').write_text('TOKEN=do-not-show-me\n')
        script = 'echo "my $TOKEN"; [ -e /tmp/goes ] || exit 7; exec sleep 1000'
        site.write(sh('one', 'h1', script, env_file='secrets', start_grace=5))
        site.deployment.host().path('/tmp/goes').touch()
        site.deploy()
        site.deployment.host().path('/tmp/goes').unlink()
        done = site.later('restart', 'one', '-c', site.config, '-F', site.ssh_config, '--json', status=1)
        for text in (done.stdout, done.stderr):
            assert 'my ***' in text
            assert 'do-not-show-me' not in text

    def test_one_whose_window_was_closed(self, site: Standing) -> None:
        site.write(component('one', 'h1'), component('two', 'h1'))
        site.deploy()
        site.deployment.screen('at', '0#', 'kill')
        site.comes_to('one@h1', 'stopped')
        site.later('restart', 'one')
        assert sorted(site.deployment.windows().values()) == ['one', 'two']
        assert site.states() == {'one@h1': 'started', 'two@h1': 'started'}

    def test_a_program_whose_children_go_on(self, site: Standing) -> None:
        site.write(sh('parent', 'h1', 'setsid sleep 1000 & sleep 0.1'))
        site.deploy()
        site.comes_to('parent@h1', 'exited')
        [old] = site.deployment.sleepers(1000)
        site.later('restart', 'parent')
        wait_until(lambda: len(site.deployment.sleepers(1000)) == 1, 'one child')
        assert site.deployment.sleepers(1000) != [old]

    def test_one_that_can_be_started_no_more(self, site: Standing) -> None:
        program = site.deployment.host().path('/tmp/program')
        program.write_text('#!/bin/sh\nexec sleep 1000\n')
        program.chmod(0o755)
        site.write(component('one', 'h1', '/tmp/program'), component('two', 'h1'))
        site.deploy()
        program.unlink()
        done = site.later('restart', 'one', status=1)
        assert done.stderr.splitlines()[-1] == 'ERROR: one@h1: there is no file /tmp/program'
        assert done.stdout == ''
        own = site.seen()
        assert (own['one@h1']['state'], own['two@h1']['state']) == ('failed', 'started')
        assert '/tmp/program' in own['one@h1']['reason']

    def test_one_that_ends_at_once(self, site: Standing) -> None:
        marker = site.deployment.host().path('/tmp/broken')
        site.write(sh('one', 'h1', 'test ! -e /tmp/broken || { echo it is broken; exit 7; }; exec sleep 1000'))
        site.deploy()
        marker.touch()
        done = site.later('restart', 'one', status=1)
        assert 'ERROR: one@h1: ' in done.stderr
        assert done.stderr.count('it is broken') == 1
        marker.unlink()
        site.later('restart', 'one')
        assert site.states() == {'one@h1': 'started'}

    def test_waits_until_it_is_ready(self, site: Standing) -> None:
        script = 'sleep 0.3; echo ready now; exec sleep 1000'
        site.write(sh('one', 'h1', script, 'ready=ready.log("ready now")'))
        site.deploy()
        done = site.later('restart', 'one', '--json')
        assert [event['event'] for event in done.objects if event['event'] in ('component_started', 'component_ready')]
        assert done.event('component_ready')['seconds'] > 0.3
        assert site.states() == {'one@h1': 'ready'}

    def test_what_its_host_does_not_know_and_hosts_out_of_reach(self, site: Standing) -> None:
        site.write(component('one', 'h1'))
        site.deploy()
        config = site.file('more.py', site.config.read_text() + component('new', 'h2') + component('far', 'nowhere'))
        pid = site.pid('one@h1')
        asked = ['-F', site.ssh_config, '--screen', site.session, '-c', config]
        assert 'nowhere' in site.run('restart', '*', *asked, status=3).stderr
        config.write_text(site.config.read_text() + component('new', 'h2'))
        assert 'new@h2' in site.run('restart', '*', *asked, status=2).stderr
        assert site.pid('one@h1') == pid

    def test_needs_names(self, site: Standing) -> None:
        assert 'NAMES' in site.later('restart', status=2).stderr

    def test_under_two_names_of_one_machine(self, bed: Testbed, tmp_path: Path) -> None:
        config = ssh_config(tmp_path, bed, alias_of(bed, 'h1', 'twin'))
        with Standing(bed, tmp_path, config) as site:
            site.write(component('one', 'h1'), component('two', 'twin'))
            site.deploy()
            old = site.seen()
            site.later('restart', 'two')
            new = site.seen()
            assert new['one@h1']['pid'] == old['one@h1']['pid']
            assert new['two@twin']['pid'] != old['two@twin']['pid']


class TestSignal:
    @pytest.fixture
    def trapping(self, site: Standing) -> Standing:
        site.write(sh('traps', 'h1', _TRAPS), sh('also', 'h2', _TRAPS), sh('over', 'h1', 'exit 0'))
        site.deploy()
        site.comes_to('over@h1', 'exited')
        self.says(site, 'traps@h1', 'set')
        self.says(site, 'also@h2', 'set')
        return site

    @staticmethod
    def says(site: Standing, label: str, words: str) -> None:
        wait_until(lambda: words in site.later('logs', label).stdout, f'{label} to say {words}')

    def test_arrives(self, trapping: Standing) -> None:
        assert trapping.later('signal', 'USR1', 'traps').out == b''
        self.says(trapping, 'traps@h1', 'got USR1')
        assert 'USR1' not in trapping.later('logs', 'also').stdout
        [told] = trapping.later('signal', 'sighup', '--json').objects  # all that run
        assert told == {'signal': 'HUP', 'sent': ['traps@h1', 'also@h2'], 'failed': {}}
        self.says(trapping, 'traps@h1', 'got HUP')
        self.says(trapping, 'also@h2', 'got HUP')
        trapping.run('signal', '15', *trapping.elsewhere('h[1-2]'), 'also')
        seen = trapping.comes_to('also@h2', 'exited')
        assert seen['status'] == 0
        assert trapping.states('traps') == {'traps@h1': 'started'}

    def test_to_what_does_not_run(self, trapping: Standing) -> None:
        done = trapping.later('signal', 'USR1', 'over', 'traps', '--json', status=1)
        assert done.objects == [{'signal': 'USR1', 'sent': ['traps@h1'], 'failed': {'over@h1': 'it does not run'}}]
        assert done.stderr == 'ERROR: over@h1: it does not run\n'
        trapping.later('stop')
        done = trapping.later('signal', 'USR1', status=2)
        assert f'nothing runs in session {trapping.session}' in done.stderr

    def test_between_two_restarts(self, site: Standing) -> None:
        site.write(
            sh('flaky', 'h1', 'sleep 0.2; exit 1', restart='always'), sh('fine', 'h1', 'exec sleep 1000')
        )
        site.deploy()
        site.comes_to('flaky@h1', 'restarting', restarts=5)  # for 8 s
        assert 'flaky@h1: it does not run' in site.later('signal', 'USR1', 'flaky', status=1).stderr
        assert site.later('signal', 'CONT').stderr == ''  # means those that run

    @pytest.mark.parametrize('name', ['FOO', '0', '65', '-1', '1.5', ''])
    def test_unknown_ones(self, site: Standing, name: str) -> None:
        assert 'ERROR: ' in site.later('signal', '--json', '--', name, status=2).stderr


class TestWait:
    def test_until_they_have_ended(self, site: Standing) -> None:
        site.write(
            sh('client-1', 'h1', 'until [ -e /tmp/end ]; do sleep 0.05; done'),
            sh('client-2', 'h2', 'until [ -e /tmp/end ]; do sleep 0.05; done'),
            component('server', 'h1'),
        )
        site.deploy()
        with site.begin_later('wait', 'client*') as running:
            site.deployment.host('h2').path('/tmp/end').touch()
            site.comes_to('client-2@h2', 'exited')
            assert running.process.poll() is None
            site.deployment.host('h1').path('/tmp/end').touch()
            assert running.end().status == 0
        assert site.later('wait', 'client*').status == 0  # of what has ended, too
        assert site.states('server') == {'server@h1': 'started'}

    def test_one_fails(self, site: Standing) -> None:
        site.write(sh('good', 'h1', 'exit 0'), sh('bad', 'h2', 'sleep 0.3; echo because; exit 3'))
        site.deploy()
        done = site.later('wait', status=1)
        assert done.stderr.count('bad@h2: it ended with exit status 3') == 1
        assert done.stdout == ''
        assert site.later('wait', 'bad', status=1).stderr.count('exit status 3') == 1
        assert site.later('wait', 'good').stderr == ''

    def test_no_longer_than_that(self, site: Standing) -> None:
        site.write(component('one', 'h1'), component('two', 'h2'), sh('bad', 'h1', 'sleep 0.2; exit 3'))
        site.deploy()
        site.comes_to('bad@h1', 'exited')
        done = site.later('wait', '--timeout', '5', status=124)
        assert 'ERROR: not ended within 5 s: one@h1,two@h2\n' in done.stderr
        assert 'bad@h1: it ended with exit status 3' in done.stderr
        assert '--timeout' in site.later('wait', '--timeout', '-1', status=2).stderr

    def test_until_they_are_ready(self, site: Standing) -> None:
        site.write(sh('slow', 'h1', 'exec sleep 1000', 'ready=ready.file("/tmp/is-ready")'), component('fast', 'h1'))
        with site.begin() as deploying:
            wait_until(lambda: b'component_started' in deploying.out, 'its start')
            assert site.later('wait', '--for', 'ready', 'fast').status == 0
            done = site.later('wait', '--for', 'ready', '--timeout', '5', status=124)
            assert 'not ready within 5 s: slow@h1\n' in done.stderr
            with site.begin_later('wait', '--for', 'ready') as running:
                site.deployment.host().path('/tmp/is-ready').touch()
                assert running.end().status == 0
            assert deploying.end().status == 0
        assert site.later('wait', '--for', 'ready').status == 0
        site.later('stop', 'slow')
        assert site.later('wait', '--for', 'ready', status=1).stderr.startswith('ERROR: slow@h1: ')

    def test_through_restarts(self, site: Standing) -> None:
        tries = 'echo x >> /tmp/tries; sleep 0.2; test $(wc -l < /tmp/tries) -ge 3'
        site.write(sh('third', 'h1', tries, restart='on-failure'))
        site.deploy()
        site.later('wait')
        seen = site.seen()['third@h1']
        assert (seen['state'], seen['status'], seen['restarts']) == ('exited', 0, 2)

    def test_one_that_is_stopped_meanwhile_has_not_ended_with_success(self, site: Standing) -> None:
        site.write(component('one', 'h1'))
        site.deploy()
        host = site.deployment.host()
        wait_until(lambda: not agents(host), 'the deployment to hang up')
        with site.begin_later('wait') as running:
            wait_until(lambda: agents(host), 'the wait to be under way')
            site.later('stop', 'one')
            assert running.end().status == 1

    def test_the_time_is_up_while_hosts_are_silent(self, fresh_bed: Callable[..., Testbed], tmp_path: Path) -> None:
        bed = fresh_bed(2)
        with Standing(bed, tmp_path) as site:
            site.write(sh('one', 'h1', 'exit 0'), component('two', 'h2'))
            site.deploy()
            site.comes_to('one@h1', 'exited')
            far_off = ('--connect-timeout', '600', '--timeout')
            bed['h2'].cut()
            done = site.later('wait', '--json', *far_off, '1', status=124)
            assert done.stderr == 'ERROR: the time was up before there was a connection to h2\n'
            assert outcome(done) == ('wait', 124, {})
            assert outcome(site.later('wait', 'one', '--json', *far_off, '60')) == ('wait', 0, {'one@h1': 'exited'})
            bed['h2'].heal()

    def test_the_time_is_up_while_an_agent_is_silent(self, site: Standing) -> None:
        site.write(component('one', 'h1'))
        site.deploy()
        host = site.deployment.host()
        wait_until(lambda: not agents(host), 'the deployment to hang up')
        with site.begin_later('wait', '--timeout', '3') as running:
            wait_until(lambda: agents(host), 'the wait to be under way')
            for agent in agents(host):
                kill(host, signal.SIGSTOP, agent.pid)
            done = running.end()
            for agent in agents(host):
                kill(host, signal.SIGKILL, agent.pid)
        assert done.status == 124, done.stderr

    def test_the_outcome_as_json(self, site: Standing) -> None:
        site.write(sh('good', 'h1', 'exit 0'), sh('bad', 'h2', 'exit 3', start_grace=0), component('on', 'h1'))
        site.deploy(status=None)
        site.comes_to('good@h1', 'exited')
        assert outcome(site.later('wait', 'good', '--json')) == ('wait', 0, {'good@h1': 'exited'})
        done = site.later('wait', '--for', 'ready', 'on', 'bad', '--json', status=1)
        assert outcome(done) == ('wait', 1, {'bad@h2': 'failed', 'on@h1': 'started'})
        assert outcome(site.later('wait', 'none', '--json', status=2)) == ('wait', 2, {})
        nowhere = ['-F', site.ssh_config, '--screen', f'{site.session}x', '-H', 'h1', '--json']
        done = site.run('wait', *nowhere)
        [told] = done.objects
        assert set(told) == {'event', 'time', 'command', 'session', 'exit_status', 'components'}
        assert (told['session'], *outcome(done)) == (f'{site.session}x', 'wait', 0, {})
        host = site.deployment.host()
        wait_until(lambda: not agents(host), 'the others to hang up')
        with site.begin_later('wait', 'on', '--json') as running:
            wait_until(lambda: agents(host), 'the wait to be under way')
            running.signal(signal.SIGINT)
            done = running.end()
        assert (done.status, outcome(done)[:2]) == (130, ('wait', 130))

    def test_one_that_is_missing(self, site: Standing) -> None:
        site.write(sh('one', 'h1', 'exit 0'))
        site.deploy()
        site.write(sh('one', 'h1', 'exit 0'), component('new', 'h2'))
        asked = ['-F', site.ssh_config, '--screen', site.session, '-c', site.config]
        assert site.run('wait', *asked, status=1).stderr == 'ERROR: new@h2: its host knows nothing of it\n'
        assert 'new@h2: its host' in site.run('signal', 'USR1', 'new', *asked, status=1).stderr

    def test_ctrl_c(self, site: Standing) -> None:
        site.write(component('one', 'h1'))
        site.deploy()
        host = site.deployment.host()
        wait_until(lambda: not agents(host), 'the deployment to hang up')
        with site.begin_later('wait') as running:
            wait_until(lambda: agents(host), 'the wait to be under way')
            running.signal(signal.SIGINT)
            done = running.end()
        assert done.status == 130
        assert 'Traceback' not in done.stderr
        assert site.states() == {'one@h1': 'started'}
