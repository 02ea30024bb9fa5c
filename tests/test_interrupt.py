"""Ctrl-C, SIGTERM and SIGHUP in each phase: what was starting is taken back, what runs is listed with what stops it."""

from __future__ import annotations

import random
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.attaching import Terminal
from tests.deploying import Deployment, Ended, agents, connections, deploying, kill, launchers, the_agent
from tests.testbed import Testbed, TestHost
from tests.testbed.process import wait_until

FreshBed = Callable[..., Testbed]
SIGNALS = pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)


@pytest.fixture
def alone(fresh_bed: FreshBed, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment on two hosts of its own."""
    with deploying(fresh_bed(2), tmp_path) as deployment:
        yield deployment


def _check_host(deployment: Deployment, host: TestHost, running: int) -> None:
    def is_quiet() -> bool:
        return len(launchers(host, deployment.session)) == running and not agents(host) and not connections(host)

    wait_until(is_quiet, f'{host.name} to be quiet', 60)
    assert host.run(['find', '/root', '/tmp', '-name', '.rr-*']).stdout == b''
    sleepers = deployment.sleepers(host=host.name)
    assert len(sleepers) == running
    folders = {f'/tmp/{path.name}' for path in host.path('/tmp').glob('remote_runner-sleeper-*')}
    assert {str((host.root / f'proc/{sleeper.pid}/cwd').readlink()) for sleeper in sleepers} == folders
    if not running:
        assert deployment.own_sessions(host.name) == []


def _check(deployment: Deployment, ended: Ended, *, running: dict[str, int]) -> None:
    """Everything is taken back but `running`, so many sleepers by host, and they are stopped as the user is told."""
    assert ended.status == 130, ended.stderr
    assert 'Traceback' not in ended.stderr
    if ended.events:
        assert ended.events[-1]['event'] == 'run_ended'
        assert ended.events[-1]['exit_status'] == 130
    for host in deployment.bed.hosts:
        _check_host(deployment, host, running.get(host.name, 0))
    lines = deployment.stop_lines(ended)
    assert len(lines) == len(running), ended.stderr
    for name in running:
        assert f'sleeper@{name}' in ended.stderr or f'sleeper on {name}' in ended.stderr
    for line in lines:
        deployment.shell(line)
    for name in running:
        deployment.is_stopped(name)


@SIGNALS
def test_while_connecting(alone: Deployment, number: signal.Signals) -> None:
    alone.bed['h2'].cut()
    alone.sleep()
    alone.sleep(host='h2')
    running = alone.begin('--connect-timeout', '1000')
    running.wait_for('host_connected', host='h1')
    running.signal(number)
    ended = running.finish()
    alone.bed['h2'].heal()
    _check(alone, ended, running={})


@SIGNALS
def test_while_an_old_session_is_quit(deployment: Deployment, number: signal.Signals) -> None:
    """What is being quit goes on to its end, or stays whole; nothing new is there."""
    deployment.sh('old', 'trap "echo >/tmp/told-to-end" TERM HUP; while :; do sleep 1; done', stop_timeout=3)
    assert deployment.run().status == 0
    deployment.host().run(['rm', '-f', '/tmp/told-to-end'])
    deployment.clear()
    deployment.sleep()
    running = deployment.begin()
    deployment.appears('/tmp/told-to-end')
    running.signal(number)
    ended = running.finish()
    assert ended.of('component_starting') == []
    wait_until(lambda: launchers(deployment.host(), deployment.session) == [], 'the end of the old program')
    wait_until(lambda: deployment.own_sessions() == [], 'the end of the old session')
    _check(deployment, ended, running={})


def _nothing_but_what_is_gone_on_with(deployment: Deployment, target: str) -> None:
    """What came of a large file stays until the next run, and nothing else."""
    folder = deployment.host().path(target)
    left = list(folder.iterdir()) if folder.exists() else []
    assert [path.name[:4] for path in left] in ([], ['.rr-'])
    deployment.host().run(['rm', '-rf', target])


@SIGNALS
def test_while_a_big_file_is_copied(deployment: Deployment, number: signal.Signals) -> None:
    (deployment.folder / 'big').write_bytes(random.Random(1).randbytes(1_000_000) * 300)
    target = f'/tmp/{deployment.session}'
    deployment.sleep(base_dir=target, files={'big': 'big'})
    running = deployment.begin('--bwlimit', '50M')
    running.wait_for('files_compared', host='h1')
    host = deployment.host()
    wait_until(lambda: host.path(target).exists() and list(host.path(target).iterdir()) != [], 'some of the file')
    running.signal(number)
    ended = running.finish()
    assert ended.of('component_starting') == []
    wait_until(lambda: not connections(host), 'the connection to be closed')
    assert not host.path(f'{target}/big').exists()
    _nothing_but_what_is_gone_on_with(deployment, target)
    _check(deployment, ended, running={})


def test_while_a_big_file_is_copied_by_an_agent_that_is_stopped(deployment: Deployment) -> None:
    (deployment.folder / 'big').write_bytes(random.Random(1).randbytes(1_000_000) * 300)
    target = f'/tmp/{deployment.session}'
    deployment.sleep(base_dir=target, files={'big': 'big'})
    running = deployment.begin('--bwlimit', '50M')
    host = deployment.host()
    agent = the_agent(host).pid
    wait_until(lambda: host.path(target).exists() and list(host.path(target).iterdir()) != [], 'some of the file')
    kill(host, signal.SIGSTOP, agent)
    running.interrupt()
    ended = running.finish()
    kill(host, signal.SIGCONT, agent)
    deployment.ends(agent)
    assert not host.path(f'{target}/big').exists()
    _nothing_but_what_is_gone_on_with(deployment, target)
    _check(deployment, ended, running={})


@SIGNALS
def test_while_starting(deployment: Deployment, number: signal.Signals) -> None:
    """Index 0 has started on two hosts, and is in its grace; the rest is still to come."""
    deployment.sleep(start_grace=1000)
    deployment.sleep(host='h2', start_grace=1000)
    deployment.sh('later', 'echo >/tmp/later; exec sleep 100000', 'h3', start_index=1)
    running = deployment.begin()
    for host in ('h1', 'h2'):
        running.wait_for('component_started', host=host)
    running.signal(number)
    ended = running.finish()
    _check(deployment, ended, running={'h1': 1, 'h2': 1})


def test_while_windows_are_opened_ahead(deployment: Deployment) -> None:
    """The launchers of the next index wait already for the end of the grace of this one."""
    deployment.sleep(start_grace=0.9)
    deployment.sh('later', 'echo >/tmp/later; exec sleep 100000', 'h3', start_index=1)
    host = deployment.host('h3')
    running = deployment.begin()
    wait_until(lambda: bool(launchers(host, deployment.session)), 'a launcher that waits')
    running.interrupt()
    ended = running.finish()
    assert ended.of('component_starting', 'later') == []
    _check(deployment, ended, running={'h1': 1})


def test_a_session_to_which_windows_were_to_be_added_stays(deployment: Deployment) -> None:
    """Nothing of the interrupted run has run on its host, but what an earlier one started there does."""
    deployment.sleep('earlier', 'h3')
    first = deployment.run()
    deployment.clear()
    deployment.sleep(start_grace=0.9)
    deployment.sleep('later', 'h3', start_index=1)
    host = deployment.host('h3')
    running = deployment.begin('--no-kill')
    wait_until(lambda: len(launchers(host, deployment.session)) == 2, 'a launcher that waits')
    running.interrupt()
    ended = running.finish()
    assert ended.of('component_starting', 'later') == []
    assert deployment.runs(first.pid('earlier'), 'h3')
    assert list(deployment.windows('h3').values()) == ['earlier']


def test_while_starting_by_an_agent_that_is_stopped(deployment: Deployment) -> None:
    """What the agent has not begun never begins, although it finds the order when it goes on."""
    deployment.sleep(host='h2')
    deployment.sleep('first', start_grace=1)
    deployment.sh('second', 'echo >/tmp/ran-second; exec sleep 100000', start_index=1)
    running = deployment.begin('--start-timeout', '1000')
    running.wait_for('component_started', 'first')
    host = deployment.host()
    agent = the_agent(host).pid
    kill(host, signal.SIGSTOP, agent)
    running.wait_for('component_starting', 'second')
    running.interrupt()
    ended = running.finish()
    assert ended.status == 130
    kill(host, signal.SIGCONT, agent)
    deployment.ends(agent)
    wait_until(lambda: len(launchers(host, deployment.session)) == 1, 'what was starting to end')
    assert not host.path('/tmp/ran-second').exists()
    for line in deployment.stop_lines(ended):
        deployment.shell(line)
    for name in ('h1', 'h2'):
        deployment.is_stopped(name)


@SIGNALS
def test_while_waiting(deployment: Deployment, number: signal.Signals) -> None:
    deployment.sleep(wait=True, start_grace=0)
    deployment.sleep(host='h2', start_grace=0)
    deployment.sh('short', 'while [ ! -e /tmp/short-may-end ]; do sleep 0.01; done', 'h3', wait=True, start_grace=0)
    running = deployment.begin()
    for host in ('h1', 'h2', 'h3'):
        running.wait_for('component_started', host=host)
    deployment.host('h3').run(['touch', '/tmp/short-may-end'])
    running.wait_for('component_exited', 'short')
    running.signal(number)
    ended = running.finish()
    assert ended.status == 130
    assert deployment.windows('h3') == {0: 'short'}  # to be read
    deployment.quit('h3')
    _check(deployment, ended, running={'h1': 1, 'h2': 1})


def test_twice_ends_at_once_even_if_a_host_does_not_answer(alone: Deployment) -> None:
    alone.sleep(wait=True)
    running = alone.begin()
    running.wait_for('component_started')
    alone.bed['h1'].cut()
    running.interrupt()
    running.interrupt()
    ended = running.finish()
    assert ended.status in (130, -signal.SIGINT)
    assert 'Traceback' not in ended.stderr


def test_at_a_terminal_which_is_left_in_order(deployment: Deployment, tmp_path: Path) -> None:
    deployment.sleep(start_grace=1000)
    environment = [f'{name}={value}' for name, value in deployment.environment.items()]
    terminal = Terminal(tmp_path, ['env', '-i', *environment, 'sh'])
    try:
        (tmp_path / 'go').write_text(shlex.join(deployment.command()))
        terminal.press('. ' + str(tmp_path / 'go'), 'Enter')
        wait_until(lambda: deployment.sleepers() != [], 'the program to start')
        terminal.press('C-c')
        terminal.wait_for('to stop:')
        terminal.press('echo "status $?"; stty -a | tr " ;" "\\n\\n" | grep -x -e -echo -e echo', 'Enter')
        shown = terminal.wait_for('status 130')
        shown = terminal.wait_for('\necho\n')
        assert '\n-echo\n' not in shown
        assert 'Traceback' not in shown
        assert terminal.shows_cursor()
    finally:
        terminal.close()
