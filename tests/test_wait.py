"""RR13: waiting for components, over broken connections too, and ending all the others afterwards."""

from __future__ import annotations

import getpass
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deploying import Deployment, ancestors, connections, deploying, kill, launchers, the_agent
from tests.test_screen import add_hydra, wait_for_heads
from tests.testbed import HostProcess, Testbed, TestHost
from tests.testbed.process import wait_until

FreshBed = Callable[..., Testbed]


@pytest.fixture
def alone(fresh_bed: FreshBed, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment on two hosts of its own."""
    with deploying(fresh_bed(2), tmp_path) as deployment:
        yield deployment


def _add_until(deployment: Deployment, name: str, status: int = 0, host: str = 'h1') -> None:
    """Add a component that is waited for, and ends with the status when /tmp/may-end-NAME is there."""
    script = f'while [ ! -e /tmp/may-end-{name} ]; do sleep 0.01; done; echo "{name} ends"; exit {status}'
    deployment.sh(name, script, host, wait=True, start_grace=0)


def _end(deployment: Deployment, name: str, host: str = 'h1') -> None:
    deployment.host(host).run(['touch', f'/tmp/may-end-{name}'])


# The end of the command


def test_the_command_returns_when_all_that_are_waited_for_have_ended(deployment: Deployment) -> None:
    _add_until(deployment, 'a')
    _add_until(deployment, 'b', host='h2')
    deployment.sleep()
    running = deployment.begin()
    for name in ('a', 'b', 'sleeper'):
        running.wait_for('component_started', name)
    _end(deployment, 'a')
    running.wait_for('component_exited', 'a')
    assert not running.is_over
    _end(deployment, 'b', 'h2')
    ended = running.finish()
    assert ended.status == 0, ended.stderr
    assert ended.the('component_exited', 'b')['status'] == 0
    assert deployment.runs(ended.pid('sleeper'))
    assert ended.events[-1]['event'] == 'run_ended'


@pytest.mark.parametrize(('script', 'status'), [('exit 3', 3), ('kill -9 $$', 137), ('kill -TERM $$', 143)])
def test_it_fails_when_one_of_them_failed(deployment: Deployment, script: str, status: int) -> None:
    start = 'while [ ! -e /tmp/may-end-bad ]; do sleep 0.01; done; seq 5; echo "bad luck";'
    deployment.sh('bad', f'{start} {script}', wait=True, start_grace=0)
    _add_until(deployment, 'good')
    running = deployment.begin()
    running.wait_for('component_started', 'good')
    running.wait_for('component_started', 'bad')
    _end(deployment, 'bad')
    running.wait_for('component_exited', 'bad')
    _end(deployment, 'good')
    ended = running.finish()
    assert ended.status == 1
    assert ended.the('component_exited', 'bad')['status'] == status
    assert 'bad luck' in ended.failure('bad')
    assert 'bad@h1' in ended.stderr
    assert str(status) in ended.stderr or 'SIG' in ended.stderr


def test_who_is_not_waited_for_may_fail(deployment: Deployment) -> None:
    deployment.sh('careless', 'while [ ! -e /tmp/may-end-careless ]; do sleep 0.01; done; exit 3', start_grace=0)
    _add_until(deployment, 'good')
    running = deployment.begin()
    running.wait_for('component_started', 'good')
    running.wait_for('component_started', 'careless')
    _end(deployment, 'careless')
    running.wait_for('component_exited', 'careless')
    _end(deployment, 'good')
    ended = running.finish()
    assert ended.status == 0, ended.stderr


def test_a_component_that_ends_before_the_last_index_started_counts(deployment: Deployment) -> None:
    deployment.sh('early', 'sleep 0.2; exit 5', wait=True)
    deployment.sleep('later', start_index=1, start_grace=0.5)
    ended = deployment.run()
    assert ended.status == 1
    assert ended.the('component_exited', 'early')['status'] == 5


def test_a_window_closed_while_waiting_is_an_end(deployment: Deployment) -> None:
    deployment.sleep(wait=True)
    running = deployment.begin()
    running.wait_for('component_started')
    deployment.quit()
    ended = running.finish()
    assert ended.status == 1
    assert 'sleeper@h1' in ended.stderr


# --terminate


def test_terminate_ends_all_the_others_with_their_descendants_and_nothing_else(deployment: Deployment) -> None:
    host = deployment.host()
    _add_until(deployment, 'waited')
    word = add_hydra(deployment, 'hydra')
    deployment.sleep()
    deployment.sleep(host='h2')
    host.run(['screen', '-dmS', f'{deployment.session}2', 'sleep', '100000'])
    host.run(['sh', '-c', 'setsid sleep 100000 >/dev/null 2>&1 &'])
    wait_until(lambda: len(deployment.sleepers()) == 2, 'the bystanders to run')
    bystanders = deployment.sleepers()
    running = deployment.begin('--terminate')
    running.wait_for('component_started', 'sleeper', 'h1')
    running.wait_for('component_started', 'sleeper', 'h2')
    wait_for_heads(deployment, word)
    _end(deployment, 'waited')
    ended = running.finish()
    assert ended.status == 0, ended.stderr
    assert deployment.sleepers() == bystanders
    assert deployment.sleepers(host='h2') == []
    assert deployment.processes(word) == []
    assert ended.labels('component_stopped') == ['hydra@h1', 'sleeper@h1', 'sleeper@h2']
    assert [session.name for session in deployment.sessions() if session.name != deployment.session] == [
        f'{deployment.session}2'
    ]


def test_terminate_after_a_failure_ends_the_others_too_and_fails(deployment: Deployment) -> None:
    _add_until(deployment, 'waited', status=3)
    deployment.sleep()
    running = deployment.begin('-t')
    running.wait_for('component_started', 'sleeper')
    running.wait_for('component_started', 'waited')
    _end(deployment, 'waited')
    ended = running.finish()
    assert ended.status == 1
    assert deployment.sleepers() == []


# Broken connections


def _sshd_of_agent(host: TestHost) -> HostProcess:
    """The process of sshd that serves the connection of the agent."""
    return next(above for above in ancestors(host, the_agent(host).pid) if above.argv[0].startswith('sshd'))


@pytest.mark.parametrize('status', [0, 7])
def test_a_broken_connection_is_made_again_and_the_wait_goes_on(deployment: Deployment, status: int) -> None:
    host = deployment.host()
    _add_until(deployment, 'waited', status)
    running = deployment.begin()
    running.wait_for('component_started')
    agent = the_agent(host)
    kill(host, signal.SIGKILL, _sshd_of_agent(host).pid)
    deployment.ends(agent.pid)
    assert the_agent(host).pid != agent.pid
    assert not running.is_over
    _end(deployment, 'waited')
    ended = running.finish()
    assert ended.the('component_exited', 'waited')['status'] == status
    assert ended.status == (1 if status else 0), ended.stderr
    assert ended.of('host_lost', host='h1')


@pytest.mark.parametrize('status', [0, 7])
def test_what_ended_while_the_connection_was_down_counts_with_its_own_status(alone: Deployment, status: int) -> None:
    host = alone.host()
    _add_until(alone, 'waited', status)
    running = alone.begin()
    pid = running.wait_for('component_started')['pid']
    host.stop_sshd(sessions=True)
    _end(alone, 'waited')
    alone.ends(pid)
    running.wait_for('host_lost', host='h1')
    host.start_sshd()
    ended = running.finish()
    assert ended.the('component_exited', 'waited')['status'] == status
    assert ended.status == (1 if status else 0), ended.stderr


def test_a_cable_that_was_out_for_a_moment_is_not_even_noticed(alone: Deployment) -> None:
    host = alone.host()
    _add_until(alone, 'waited', 7)
    running = alone.begin()
    pid = running.wait_for('component_started')['pid']
    host.cut()
    _end(alone, 'waited')
    alone.ends(pid)
    host.heal()
    ended = running.finish()
    assert ended.status == 1
    assert ended.the('component_exited', 'waited')['status'] == 7
    assert ended.of('host_lost') == []


def test_an_agent_that_is_killed_is_started_again(deployment: Deployment) -> None:
    host = deployment.host()
    _add_until(deployment, 'waited', 7)
    running = deployment.begin()
    running.wait_for('component_started')
    agent = the_agent(host)
    kill(host, signal.SIGKILL, agent.pid)
    deployment.ends(agent.pid)
    _end(deployment, 'waited')
    ended = running.finish()
    assert ended.the('component_exited', 'waited')['status'] == 7
    assert ended.status == 1


def test_a_host_that_lost_its_power_while_waiting_is_told_as_what_is_known(alone: Deployment) -> None:
    """After the boot nothing of the program is there, nor its end."""
    _add_until(alone, 'waited', host='h2')
    running = alone.begin()
    running.wait_for('component_started')
    alone.host('h2').kill()
    alone.host('h2').boot()
    ended = running.finish()
    assert ended.status != 0
    assert 'waited@h2' in ended.stderr


# Others in the same session


@pytest.mark.parametrize('phase', ['starting', 'waiting'])
def test_a_second_run_in_the_same_session_says_who_is_there_and_changes_nothing(
    deployment: Deployment, tmp_path: Path, phase: str
) -> None:
    if phase == 'waiting':
        deployment.sleep(wait=True)
    else:
        deployment.sleep(start_grace=1000)
    first = deployment.begin()
    pid = first.wait_for('component_started')['pid']
    session, windows = deployment.the_session(), deployment.windows()

    deployment.clear()
    deployment.sleep('other', 'h2')
    deployment.sleep('other')
    for options in ([], ['--no-kill']):
        second = deployment.run(*options)
        assert second.status == 1
        for word in (getpass.getuser(), socket.gethostname(), str(first.pid)):
            assert word in second.stderr
        assert second.of('component_starting') == []
    assert deployment.the_session() == session
    assert deployment.windows() == windows
    assert deployment.runs(pid)
    assert deployment.own_sessions('h2') == []
    assert not first.is_over

    first.interrupt()
    first.finish()
    third = deployment.run()
    assert third.status == 0, third.stderr
    assert not deployment.runs(pid)


def test_of_two_that_come_at_the_same_time_one_waits_for_nothing_and_one_is_sent_away(deployment: Deployment) -> None:
    for host in ('h1', 'h2', 'h3'):
        deployment.sleep(host=host, wait=True)
    both = [deployment.begin(), deployment.begin()]
    wait_until(lambda: any(running.is_over for running in both), 'one to be sent away')
    [winner] = [running for running in both if not running.is_over]
    [loser] = [running for running in both if running.is_over]
    sent_away = loser.finish()
    assert sent_away.status == 1
    assert sent_away.of('component_starting') == []
    assert str(winner.pid) in sent_away.stderr
    for host in ('h1', 'h2', 'h3'):
        winner.wait_for('component_started', host=host)
    winner.interrupt()
    ended = winner.finish()
    assert ended.status == 130
    assert ended.labels('component_started') == ['sleeper@h1', 'sleeper@h2', 'sleeper@h3']


def test_a_run_that_was_killed_holds_nothing(deployment: Deployment) -> None:
    deployment.sleep(wait=True)
    first = deployment.begin()
    first.wait_for('component_started')
    first.kill()
    wait_until(lambda: not connections(deployment.host()), 'the connection to end')
    assert len(deployment.sleepers()) == 1
    deployment.clear()
    deployment.sleep()
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert len(launchers(deployment.host(), deployment.session)) == 1


def test_runs_in_other_sessions_are_not_in_the_way(deployment: Deployment) -> None:
    deployment.sleep(wait=True)
    first = deployment.begin()
    first.wait_for('component_started')
    second = deployment.begin(session=f'{deployment.session}2')
    second.wait_for('component_started')
    assert len(deployment.sleepers()) == 2
    for running in (first, second):
        running.interrupt()
        running.finish()
