"""Which components start after which others, which end all others when they fail, and which a busy host refuses."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from remote_runner.config import ready
from tests.days import FreshBed
from tests.deploying import PATIENCE, Deployment, connections, deploying, kill
from tests.living import Lives, status
from tests.testbed.process import wait_until

# Who waits for whom


def test_who_depends_on_another_starts_when_that_is_ready(deployment: Deployment) -> None:
    deployment.sleep('web', depends_on=['db'])
    deployment.sleep('free')
    deployment.sh('db', 'while [ ! -e /tmp/go ]; do sleep 0.01; done; touch up; exec sleep 100000',
                  ready=ready.file('up'), depends_on=['disk@h2'])  # fmt: skip
    deployment.sleep('disk', host='h1')
    deployment.sleep('disk', host='h2')
    deployment.sleep('last', start_index=1, depends_on=['web'])
    running = deployment.begin()
    running.wait_for('component_started', 'db')
    assert 'web' not in {event.get('component') for event in running.events}
    deployment.host().run(['touch', '/tmp/go'])
    ended = running.finish()
    assert ended.status == 0, ended.stderr

    def at(kind: str, name: str, host: str) -> int:
        return ended.events.index(ended.the(f'component_{kind}', name, host))

    assert at('started', 'disk', 'h2') < at('starting', 'db', 'h1') < at('ready', 'db', 'h1')
    assert at('ready', 'db', 'h1') < at('starting', 'web', 'h1') < at('started', 'web', 'h1')
    assert at('started', 'web', 'h1') < at('starting', 'last', 'h1')
    assert at('starting', 'free', 'h1') < at('starting', 'db', 'h1')
    assert [event['index'] for event in ended.of('component_starting')] == [0, 0, 0, 0, 0, 1]


def test_who_depends_on_one_that_failed_is_not_started(deployment: Deployment) -> None:
    deployment.sh('db', 'exit 3')
    deployment.sleep('web', depends_on=['db'])
    ended = deployment.run()
    assert ended.status == 1
    assert ended.names('component_starting') == ['db']
    assert deployment.sleepers() == []


# Critical ones


def test_a_critical_component_that_does_not_start_ends_all_others(deployment: Deployment) -> None:
    deployment.sleep()
    deployment.sleep(host='h2')
    deployment.sh('it', 'exit 3', start_index=1, critical=True)
    ended = deployment.run()
    assert ended.status == 1
    assert ended.the('component_failed', 'it')['reason'].endswith('with exit status 3')
    assert ended.labels('component_stopped') == ['sleeper@h1', 'sleeper@h2']
    assert deployment.sleepers() == deployment.sleepers(host='h2') == []


def test_a_critical_component_that_fails_later_ends_the_run(deployment: Deployment, lives: Lives) -> None:
    deployment.sleep('waited', wait=True)
    deployment.sleep('other', host='h2')
    lives.add('it', 'echo bad luck; exit 3', critical=True, restart='on-failure', max_restarts=1)
    ended = deployment.run()
    assert ended.status == 1
    assert 'bad luck' in ended.failure('it')
    assert 'ERROR: it@h1 has failed and is critical: all components are stopped' in ended.stderr
    assert ended.labels('component_stopped') == ['other@h2', 'waited@h1']
    assert deployment.sleepers() == deployment.sleepers(host='h2') == []
    assert len(ended.of('component_restarting')) == 1


def test_a_critical_component_that_fails_while_others_become_ready_ends_the_run(deployment: Deployment) -> None:
    deployment.sh('it', 'while [ ! -e /tmp/fail ]; do sleep 0.01; done; exit 3', critical=True)
    deployment.sleep('slow', host='h2', start_index=1, ready=ready.tcp(1), start_timeout=100)
    running = deployment.begin()
    running.wait_for('component_started', 'slow')
    deployment.host().run(['touch', '/tmp/fail'])
    ended = running.finish()
    assert ended.status == 1
    assert 'it@h1 has failed and is critical' in ended.stderr
    assert deployment.sleepers(host='h2') == []


def test_a_critical_component_may_end_with_success(deployment: Deployment) -> None:
    deployment.sh('it', 'exit 0', critical=True)
    deployment.sh('waited', 'sleep 0.3', wait=True)
    deployment.sleep()
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert deployment.runs(ended.pid('sleeper'))


def test_a_broken_connection_hides_no_end_of_a_critical_component(deployment: Deployment) -> None:
    """Though what is waited for runs on another host."""
    deployment.sleep('waited', wait=True)
    deployment.sh('it', 'while [ ! -e /tmp/fail ]; do sleep 0.01; done; exit 3', critical=True, host='h2')
    running = deployment.begin()
    running.wait_for('component_started', 'it')
    running.wait_for('component_started', 'waited')
    host = deployment.host('h2')
    kill(host, signal.SIGKILL, *(sshd.pid for sshd in connections(host)))
    running.wait_for('host_lost', host='h2')
    host.run(['touch', '/tmp/fail'])
    ended = running.finish()
    host.run(['rm', '/tmp/fail'])
    assert ended.status == 1
    assert 'it@h2 has failed and is critical' in ended.stderr
    assert ended.labels('component_stopped') == ['waited@h1']
    assert deployment.sleepers() == []


def test_a_critical_component_that_went_with_its_host_ends_the_run(fresh_bed: FreshBed, tmp_path: Path) -> None:
    with deploying(fresh_bed(2), tmp_path) as deployment:
        deployment.sleep('waited', wait=True)
        deployment.sleep('it', critical=True, host='h2')
        running = deployment.begin()
        running.wait_for('component_started', 'it')
        running.wait_for('component_started', 'waited')
        deployment.host('h2').kill()
        deployment.host('h2').boot()
        ended = running.finish()
        assert ended.status == 1
        assert 'it@h2 has failed and is critical' in ended.stderr
        assert ended.labels('component_stopped') == ['waited@h1']
        assert deployment.sleepers() == []


def test_a_run_without_wait_stays_for_its_critical_components(deployment: Deployment) -> None:
    deployment.sh('it', 'while [ ! -e /tmp/fail ]; do sleep 0.01; done; exit 3', critical=True)
    deployment.sleep('other', host='h2')
    running = deployment.begin()
    running.wait_for('component_started', 'other')
    deployment.host().run(['touch', '/tmp/fail'])
    ended = running.finish()
    deployment.host().run(['rm', '/tmp/fail'])
    assert ended.status == 1
    assert 'it@h1 has failed and is critical' in ended.stderr
    assert ended.labels('component_stopped') == ['other@h2']
    assert deployment.sleepers(host='h2') == []


def test_a_run_without_wait_ends_with_its_last_critical_component(deployment: Deployment) -> None:
    deployment.sh('first', 'exit 0', critical=True)
    deployment.sh('second', 'sleep 0.5', critical=True, host='h2')
    deployment.sleep()
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert sorted(ended.names('component_exited')) == ['first', 'second']
    assert deployment.runs(ended.pid('sleeper'))


# The load


def test_a_busy_host_refuses(deployment: Deployment) -> None:
    deployment.sleep('it', max_load=1e-9)
    deployment.sleep('any', max_load=1e9)
    with subprocess.Popen(['sh', '-c', 'while :; do :; done']) as busy:
        try:
            wait_until(lambda: os.getloadavg()[0] > 0, 'the load to show', PATIENCE)
            ended = deployment.run()
        finally:
            busy.kill()
    assert ended.status == 1
    reason = ended.the('component_failed', 'it')['reason']
    assert reason.startswith('it refused to start: the load per core is ')
    assert reason.endswith(', above its max_load of 1e-09')
    assert status(deployment, 'it')['reason'] == reason
    assert [process.pid for process in deployment.sleepers()] == [ended.pid('any')]
