"""LB1, LB2, LB5: only what called back in time runs, whatever is stopped, killed or cut while it starts.

Most tests here strike while many components start at once, so that some have had their go and some have not. Whoever
that hits: what runs afterwards is what was reported as started or unknown, and nothing else is left on the host.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deploying import Deployment, Ended, Running, agents, connections, deploying, kill, launchers, the_agent
from tests.testbed import Testbed, TestHost
from tests.testbed.process import wait_until

FreshBed = Callable[..., Testbed]
MANY = 60
ATTEMPTS = 5


@pytest.fixture
def alone(fresh_bed: FreshBed, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment on two hosts of its own."""
    with deploying(fresh_bed(2), tmp_path) as deployment:
        yield deployment


def _add_many(deployment: Deployment) -> None:
    deployment.clear()
    for number in range(MANY):
        deployment.sh(f'c{number}', f'echo >/tmp/ran-c{number}; exec sleep 100000')


def _ran(host: TestHost) -> set[str]:
    """The components whose programs ever ran."""
    return {path.name.removeprefix('ran-') for path in host.path('/tmp').glob('ran-*')}


def _forget(host: TestHost) -> None:
    for path in host.path('/tmp').glob('ran-*'):
        path.unlink()


def _settle(deployment: Deployment) -> None:
    """Wait until each launcher that is left has its program, and no agent or connection is left."""
    host = deployment.host()

    def is_settled() -> bool:
        left = {launcher.pid for launcher in launchers(host, deployment.session)}
        return len(left) == len(deployment.sleepers()) and not connections(host) and not agents(host)

    wait_until(is_settled, 'launchers without programs, agents and connections to end', 60)


def _check(deployment: Deployment, ended: Ended) -> bool:
    """What ran is what was reported. Returns whether the strike hit: some have started, or not."""
    host = deployment.host()
    _settle(deployment)
    ran = _ran(host)
    failed = set(ended.names('component_failed')) | set(ended.names('component_aborted'))
    started, unknown = set(ended.names('component_started')), set(ended.names('component_unknown'))
    assert started <= ran, ended.stderr
    assert ran <= started | unknown, _of(ended, ran - started - unknown)
    # What is unknown was told to end as well: whether that reached it before it ran, nobody here can say.
    assert len(started) <= len(deployment.sleepers()) <= len(ran), ended.stderr
    if failed or unknown:
        assert ended.status == 1
    else:
        assert ended.status == 0
        assert len(started) == MANY
    return bool(failed | unknown)


def _of(ended: Ended, names: set[str]) -> list[str]:
    """What was said of these components."""
    return [line for line in ended.stderr.splitlines() if any(f'{name}@' in line for name in names)]


def _strike(deployment: Deployment, strike: Callable[[Running, TestHost], None], *options: str) -> Ended:
    """Deploy many, and strike as soon as the first launcher is there; again, if it was too late."""
    host = deployment.host()
    for _ in range(ATTEMPTS):
        _add_many(deployment)
        _forget(host)
        running = deployment.begin(*options)
        wait_until(lambda: launchers(host, deployment.session) != [], 'the first window to open')
        strike(running, host)
        ended = running.finish()
        if _check(deployment, ended):
            return ended
        deployment.quit()
    raise AssertionError(f'{ATTEMPTS} strikes were all too late')


def test_the_agent_is_killed_while_components_start(deployment: Deployment) -> None:
    _strike(deployment, lambda _, host: kill(host, signal.SIGKILL, the_agent(host).pid))


def test_the_agent_is_stopped_past_the_time_limit(deployment: Deployment) -> None:
    stopped: list[int] = []

    def strike(running: Running, host: TestHost) -> None:
        stopped[:] = [the_agent(host).pid]
        kill(host, signal.SIGSTOP, *stopped)
        running.finish()
        kill(host, signal.SIGCONT, *stopped)

    _strike(deployment, strike, '--start-timeout', '2')


def test_the_agent_is_stopped_before_the_windows_open(deployment: Deployment) -> None:
    """It finds the order to start them when it goes on, and the link gone: nothing must come of it."""
    deployment.sleep('first', start_grace=1)
    deployment.sh('second', 'echo >/tmp/ran-second; exec sleep 100000', start_index=1)
    _forget(deployment.host())
    running = deployment.begin('--start-timeout', '2')
    running.wait_for('component_started', 'first')
    agent = the_agent(deployment.host()).pid
    kill(deployment.host(), signal.SIGSTOP, agent)
    ended = running.finish()
    assert ended.status == 1
    assert 'second@h1' in ended.stderr
    kill(deployment.host(), signal.SIGCONT, agent)
    deployment.ends(agent)
    _settle(deployment)
    assert _ran(deployment.host()) == set()
    assert deployment.runs(ended.pid('first'))
    assert len(deployment.sleepers()) == 1


def test_the_command_is_stopped_past_the_time_limit(deployment: Deployment) -> None:
    def strike(running: Running, host: TestHost) -> None:
        running.signal(signal.SIGSTOP)
        wait_until(lambda: len(launchers(host, deployment.session)) <= len(deployment.sleepers()), 'launchers to end')
        running.signal(signal.SIGCONT)

    _strike(deployment, strike, '--start-timeout', '2')


def test_the_command_is_killed(deployment: Deployment) -> None:
    host = deployment.host()
    for _ in range(ATTEMPTS):
        _add_many(deployment)
        _forget(host)
        running = deployment.begin()
        wait_until(lambda: launchers(host, deployment.session) != [], 'the first window to open')
        running.kill()
        _settle(deployment)
        started = {event['component'] for event in running.events if event['event'] == 'component_started'}
        assert started <= _ran(host)
        assert len(deployment.sleepers()) == len(_ran(host))
        if len(_ran(host)) < MANY:
            return
        deployment.quit()
    raise AssertionError(f'{ATTEMPTS} strikes were all too late')


def test_the_link_is_cut(alone: Deployment) -> None:
    def strike(running: Running, host: TestHost) -> None:
        host.cut()
        running.finish()
        host.heal()

    ended = _strike(alone, strike, '--start-timeout', '2')
    assert 'h1' in ended.stderr


def test_a_launcher_that_is_stopped_past_the_time_limit_starts_nothing(deployment: Deployment) -> None:
    host = deployment.host()
    for _ in range(ATTEMPTS):
        _add_many(deployment)
        _forget(host)
        command, environment = host.entry(['python3', '-ISuc', _STOP_LAUNCHERS, deployment.session])
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as stopper:
            assert stopper.stdout
            assert stopper.stdout.readline() == 'ready\n'
            running = deployment.begin('--start-timeout', '2')
            stopped = [int(pid) for pid in stopper.stdout.readline().split()]
        ended = running.finish()
        kill(host, signal.SIGCONT, *stopped)
        if _check(deployment, ended):
            return
        deployment.quit()
    raise AssertionError(f'{ATTEMPTS} strikes were all too late')


# Stops screen when it has started five processes in the windows of a session, and these processes; prints all pids.
# Screen first, for it makes its stopped children go on.
_STOP_LAUNCHERS = """\
import os, signal, sys
print("ready")
def read(pid, name):
    try:
        with open("/proc/" + pid + "/" + name) as file:
            return file.read()
    except OSError:
        return ""
def is_server(pid):
    words = read(pid, "cmdline").split("\\0")
    return "SCREEN" in words[0] and sys.argv[1] in words
def children(pid):
    return read(pid, "task/" + pid + "/children").split()
servers = []
while not servers or len(children(servers[0])) < 5:
    servers = servers or [pid for pid in os.listdir("/proc") if pid.isdigit() and is_server(pid)]
stopped = []
for pid in servers[:1] + children(servers[0]):
    os.kill(int(pid), signal.SIGSTOP)
    stopped.append(pid)
print(*stopped)
"""


@pytest.mark.parametrize('killed', ['the command', 'the agent', 'the connection'])
def test_what_was_reported_as_started_stays_although_its_grace_is_not_over(deployment: Deployment, killed: str) -> None:
    host = deployment.host()
    deployment.sleep(start_grace=3)
    running = deployment.begin()
    pid = running.wait_for('component_started')['pid']
    agent = the_agent(host).pid
    if killed == 'the command':
        running.kill()
    elif killed == 'the agent':
        kill(host, signal.SIGKILL, agent)
    else:
        kill(host, signal.SIGKILL, *(sshd.pid for sshd in connections(host)))
    deployment.ends(agent)
    ended = running.finish()
    deployment.clear()
    deployment.sleep('another')
    assert deployment.run('--no-kill').status == 0
    assert deployment.runs(pid)
    if killed != 'the command':
        assert 'sleeper' in ended.stderr


def test_windows_that_open_too_late_start_nothing(alone: Deployment) -> None:
    """screen itself hangs past the time limit. A sibling that has started in time stays."""
    _slow_screen(alone, 'h1')
    alone.sh('late', 'echo >/tmp/ran-late; exec sleep 100000', start_timeout=2)
    alone.sleep('early', 'h2')
    ended = alone.run('--start-timeout', '1000')
    assert ended.status == 1
    assert ended.names('component_failed') == ['late']
    assert alone.runs(ended.pid('early'), 'h2')
    assert 'late@h1' in ended.stderr
    alone.host().run(['touch', '/tmp/screen-may-go-on'])
    wait_until(lambda: alone.processes('screen-may-go-on') == [], 'screen to go on')
    _settle(alone)
    assert _ran(alone.host()) == set()
    assert alone.sleepers() == []


@pytest.mark.parametrize('how', ['a sibling fails', 'Ctrl-C'])
def test_an_abort_reaches_what_is_still_starting(alone: Deployment, how: str) -> None:
    """LB5: nobody waits for the time limit, which is long; what comes up later runs nothing."""
    _slow_screen(alone, 'h1')
    alone.sh('late', 'echo >/tmp/ran-late; exec sleep 100000')
    alone.sleep('early', 'h2')
    if how == 'a sibling fails':
        alone.add('bad', '/no/such/program', host='h2')
    running = alone.begin('--start-timeout', '1000')
    running.wait_for('component_started', 'early')
    if how == 'Ctrl-C':
        running.interrupt()
    ended = running.finish()
    assert ended.status == (130 if how == 'Ctrl-C' else 1)
    assert 'late' not in ended.names('component_started')
    alone.host().run(['touch', '/tmp/screen-may-go-on'])
    wait_until(lambda: alone.processes('screen-may-go-on') == [], 'screen to go on')
    _settle(alone)
    assert _ran(alone.host()) == set()
    assert alone.sleepers() == []
    assert alone.runs(ended.pid('early'), 'h2')


def _slow_screen(deployment: Deployment, host: str) -> None:
    """From now on screen on this host does nothing but list sessions until /tmp/screen-may-go-on is there."""
    real = deployment.host(host).path('/root/screen')
    real.write_bytes(Path('/usr/bin/screen').read_bytes())
    slow = deployment.folder / 'slow-screen'
    slow.write_text(
        '#!/bin/sh\n[ "$1" = -ls ] || sh -c \'while [ ! -e "/tmp/$0" ]; do sleep 0.01; done\' screen-may-go-on\n'
        'exec /root/screen "$@"\n'
    )
    for program in (real, slow):
        program.chmod(0o755)
    deployment.host(host).share('/usr/bin/screen', slow)
