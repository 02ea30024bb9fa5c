"""What users are told when something does not start, and what becomes of the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from remote_runner.config import ready
from tests.deploying import Deployment, Ended, deploying
from tests.testbed import Testbed
from tests.testbed.process import wait_until

FreshBed = Callable[..., Testbed]


def _files(deployment: Deployment) -> str:
    """A folder of programs that cannot run, on h1."""
    folder = f'/tmp/{deployment.session}'
    programs: dict[str, tuple[bytes, int]] = {
        'not executable': (b'#!/bin/sh\nsleep 100000\n', 0o644),
        'wrong interpreter': (b'#!/no/such/interpreter\nsleep 100000\n', 0o755),
        'windows interpreter': (b'#!/bin/sh\r\nsleep 100000\n', 0o755),
        'random bytes': (bytes(range(256)) * 64, 0o755),
        'for another machine': (b'\x7fELF\x02\x01\x01' + bytes(11) + b'\xb7\0\1\0\0\0' + bytes(100), 0o755),
        'empty interpreter': (b'#!\nsleep 100000\n', 0o755),
    }
    host = deployment.host()
    host.run(['mkdir', folder])
    for name, (content, mode) in programs.items():
        path = host.path(f'{folder}/{name}')
        path.write_bytes(content)
        path.chmod(mode)
    return folder


def _one_fails(deployment: Deployment, *options: str) -> tuple[Ended, str]:
    """Deploy one more component at index 0 and one at index 1, which is not to start; why the other one failed."""
    failing = deployment.components[0]['name']
    deployment.sleep('sibling', 'h2')
    deployment.sh('later', 'touch /tmp/later-ran; exec sleep 100000', 'h2', start_index=1)
    ended = deployment.run(*options)
    assert ended.status == 1
    assert ended.names('component_failed') == [failing]
    assert 'later' not in ended.names('component_starting')
    assert not deployment.host('h2').path('/tmp/later-ran').exists()
    assert f'{failing}@h1' in ended.stderr
    return ended, ended.failure(failing)


_CANNOT_RUN = {
    '/no/such/program': '/no/such/program',
    'not there': 'not there',
    'not executable': 'execut',
    'wrong interpreter': '/no/such/interpreter',
    'windows interpreter': '\\r',
    'random bytes': 'random bytes',
    'for another machine': 'for another machine',
    '/tmp': 'folder',
    'not executable/under': 'not executable/under',
}


def test_each_program_that_cannot_run_is_reported_with_the_reason(deployment: Deployment) -> None:
    base_dir = _files(deployment)
    for number, program in enumerate(_CANNOT_RUN):
        deployment.add(f'bad-{number}', program, base_dir=base_dir)
    deployment.sleep('sibling')
    deployment.sleep('later', start_index=1)
    ended = deployment.run()
    assert ended.status == 1
    assert ended.names('component_started') == ['sibling']
    for number, words in enumerate(_CANNOT_RUN.values()):
        assert words in ended.failure(f'bad-{number}')
        assert f'bad-{number}@h1' in ended.stderr
    assert 'Traceback' not in ended.stderr


def test_what_cannot_run_stops_later_indexes_and_leaves_what_runs(deployment: Deployment) -> None:
    deployment.add('bad', '/no/such/program')
    ended, why = _one_fails(deployment)
    assert '/no/such/program' in why
    assert ended.names('component_started') == ['sibling']
    assert len(deployment.sleepers(host='h2')) == 1


def test_a_script_without_interpreter_line_runs_as_from_a_shell(deployment: Deployment) -> None:
    deployment.host().run(['sh', '-c', 'echo \'echo "$@" >/tmp/said; exec sleep 100000\' >/tmp/script'])
    deployment.host().run(['chmod', '+x', '/tmp/script'])
    deployment.add('script', '/tmp/script', ['a  b', '$HOME', 'c'])
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert deployment.written('/tmp/said') == 'a  b $HOME c\n'


def test_base_dirs_that_cannot_be_entered(deployment: Deployment) -> None:
    host = deployment.host()
    alice = deployment.user('alice')
    host.run(['sh', '-c', 'mkdir -p /tmp/closed/in; chmod 0 /tmp/closed; touch /tmp/file'])
    try:
        for name, user, folder in [
            ('file', 'root', '/tmp/file'),
            ('below a file', 'root', '/tmp/file/below'),
            ('closed', alice, '/tmp/closed'),
            ('below closed', alice, '/tmp/closed/in'),
            ('not to be made', alice, '/usr/mine'),
            ('in proc', 'root', '/proc/mine'),
        ]:
            deployment.sleep(name, f'{user}@h1', base_dir=folder)
        ended = deployment.run()
    finally:
        host.run(['chmod', '700', '/tmp/closed'])
    assert ended.status == 1
    assert ended.of('component_started') == []
    assert deployment.sleepers() == []
    for component in deployment.components:
        assert component['base_dir'] in ended.failure(component['name'])
        assert f'{component["name"]}@{component["host"]}' in ended.stderr


def test_a_program_that_ends_at_once_with_a_status_is_reported_with_its_last_words(deployment: Deployment) -> None:
    deployment.sh('bad', 'seq 1000; echo "cannot open the port" >&2; exit 3')
    ended, why = _one_fails(deployment)
    assert '3' in ended.the('component_failed')['reason']
    assert why.rstrip().endswith('cannot open the port')
    assert '\n1000\n' in why.replace('\r', '')
    assert '\n1\n' not in why.replace('\r', '')
    assert 'cannot open the port' in ended.stderr


def test_last_words_cannot_play_tricks_with_the_terminal(deployment: Deployment) -> None:
    deployment.sh('bad', "printf '\\033]0;title\\007\\033[2Jwords\\377\\n'; exit 3")
    ended, _ = _one_fails(deployment)
    assert 'words' in ended.stderr
    assert '\x1b' not in ended.stderr
    assert '\a' not in ended.stderr


def test_a_program_killed_by_a_signal_at_once(deployment: Deployment) -> None:
    deployment.sh('bad', 'kill -SEGV $$')
    _, why = _one_fails(deployment)
    assert 'SIGSEGV' in why or 'signal 11' in why


def test_programs_that_end_at_once_with_success_have_started(deployment: Deployment) -> None:
    for number in range(40):
        deployment.add(f'true-{number}', '/bin/true')
    deployment.sleep('later', start_index=1)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert len(ended.of('component_started')) == 41


def test_who_outlives_its_grace_has_started_however_long_the_others_of_its_index_take(deployment: Deployment) -> None:
    deployment.sh('early', 'sleep 0.4; touch /tmp/early-has-ended; exit 3')
    until = 'until [ -e /tmp/early-has-ended ]; do sleep 0.01; done'
    deployment.sh('late', f'{until}; sleep 0.2; echo I am ready; exec sleep 1000', ready=ready.log('I am ready'))
    ended = deployment.run()
    assert (ended.status, ended.names('component_failed')) == (0, [])
    assert ended.the('component_exited', 'early')['status'] == 3


def test_start_grace_is_each_components_own(deployment: Deployment) -> None:
    """One ends within its grace, one after it; a grace of zero forgives what ends later."""
    deployment.sh('patient', 'read -r x </tmp/pipe; exit 5', start_grace=50)
    deployment.sh('quick', 'while [ ! -e /tmp/quick-may-end ]; do sleep 0.01; done; exit 6', start_grace=0)
    deployment.host().run(['mkfifo', '/tmp/pipe'])
    deployment.sleep('later', 'h2', start_index=1)
    running = deployment.begin()
    for name in ('quick', 'patient'):
        running.wait_for('component_started', name)
    deployment.host().run(['touch', '/tmp/quick-may-end'])
    running.wait_for('component_exited', 'quick')
    deployment.host().run(['sh', '-c', 'echo >/tmp/pipe'])
    ended = running.finish()
    assert ended.status == 1
    assert ended.names('component_failed') == ['patient']
    assert 'later' not in ended.names('component_starting')


@pytest.mark.parametrize('options', [(), ('--on-failure', 'stop')], ids=['leave', 'stop'])
def test_what_a_program_leaves_behind_that_fails_is_ended(deployment: Deployment, options: tuple[str, ...]) -> None:
    deployment.sh('bad', 'setsid sleep 100000 & sleep 0.05; exit 3', start_grace=5)
    deployment.sh('done', 'setsid sleep 100000 & sleep 0.05; exit 0', 'h2', start_grace=5)
    ended = deployment.run(*options)
    assert ended.names('component_failed') == ['bad']
    assert deployment.sleepers() == []
    assert len(deployment.sleepers(host='h2')) == (0 if options else 1)


def test_windows_opened_ahead_are_closed_when_the_index_before_fails(deployment: Deployment) -> None:
    """During a grace the launchers of the next index come up; nobody sees any of it when the grace ends badly."""
    folders = f'/root/.local/state/remote_runner/hosts/h1/{deployment.session}'
    deployment.sh('bad', f'until [ -e {folders}/*/1/spec ]; do sleep 0.01; done; exit 3', start_grace=0.9)
    deployment.sleep('later', start_index=1)
    deployment.sleep('later', 'h2', start_index=1)
    ended = deployment.run()
    assert ended.status == 1
    assert ended.names('component_failed') == ['bad']
    assert {event['component'] for event in ended.events if 'component' in event} == {'bad'}
    assert deployment.windows() == {0: 'bad'}
    wait_until(lambda: deployment.own_sessions('h2') == [], 'the end of the session that had nothing but such a window')
    assert deployment.sleepers() + deployment.sleepers(host='h2') == []


def test_a_failure_ends_no_sibling_that_has_started(deployment: Deployment) -> None:
    """Even if that is still in its grace."""
    deployment.sleep(start_grace=2)
    deployment.sh('bad', 'while [ ! -e /tmp/bad-may-end ]; do sleep 0.01; done; exit 3', start_grace=1000)
    running = deployment.begin()
    running.wait_for('component_started', 'sleeper')
    running.wait_for('component_started', 'bad')
    deployment.host().run(['touch', '/tmp/bad-may-end'])
    ended = running.finish()
    assert ended.status == 1
    assert ended.names('component_failed') == ['bad']
    assert deployment.runs(ended.pid('sleeper'))
    [stop] = deployment.stop_lines(ended)
    deployment.shell(stop)
    deployment.ends(ended.pid('sleeper'))


def test_all_that_fail_of_one_index_are_reported(deployment: Deployment) -> None:
    for number in range(5):
        deployment.add(f'bad-{number}', f'/no/such/{number}', host=f'h{number % 3 + 1}')
    deployment.sh('bad-5', 'exit 9')
    deployment.sleep('good')
    ended = deployment.run()
    assert ended.status == 1
    assert ended.names('component_failed') == [f'bad-{number}' for number in range(6)]
    assert 'good' in ended.names('component_started')
    for number in range(5):
        assert f'/no/such/{number}' in ended.stderr


def test_on_failure_stop_ends_what_runs_already(deployment: Deployment) -> None:
    for host in ('h1', 'h2', 'h3'):
        deployment.sh('early', 'trap "" TERM HUP; sleep 100000; sleep 100000', host, stop_timeout=0.1)
    deployment.add('bad', '/no/such/program', start_index=1)
    deployment.sleep('sibling', 'h2', start_index=1)
    deployment.sleep('later', 'h3', start_index=2)
    bystander = ['screen', '-dmS', f'{deployment.session}2', 'sleep', '100000']
    deployment.host().run(bystander)
    ended = deployment.run('--on-failure', 'stop')
    assert ended.status == 1
    assert ended.labels('component_stopped') == ['early@h1', 'early@h2', 'early@h3', 'sibling@h2']
    assert [len(deployment.sleepers(host=host)) for host in ('h1', 'h2', 'h3')] == [1, 0, 0]


def test_what_runs_already_is_left_and_listed_with_what_stops_it(deployment: Deployment) -> None:
    deployment.sleep('early')
    deployment.sleep('early', 'h2')
    deployment.add('bad', '/no/such/program', host='h3', start_index=1)
    ended = deployment.run()
    assert ended.status == 1
    for host in ('h1', 'h2'):
        assert len(deployment.sleepers(host=host)) == 1
    for line in deployment.stop_lines(ended):
        deployment.shell(line)
    for host in ('h1', 'h2'):
        deployment.is_stopped(host)


# Hosts


@pytest.mark.parametrize(('program', 'package'), [('python3', 'python3'), ('screen', 'screen')])
def test_a_host_without_what_is_needed(fresh_bed: FreshBed, tmp_path: Path, program: str, package: str) -> None:
    bed = fresh_bed(2)
    bed['h2'].hide(program)
    with deploying(bed, tmp_path) as deployment:
        deployment.sleep(host='h1')
        deployment.sleep(host='h2')
        ended = deployment.run()
        assert ended.status == 3
        assert 'h2' in ended.stderr
        assert package in ended.stderr
        assert 'install' in ended.stderr or 'package' in ended.stderr
        assert 'Traceback' not in ended.stderr
        assert deployment.sleepers() == []
        assert deployment.sessions() == []


def test_a_host_out_of_reach_stops_the_run_before_anything_is_changed(fresh_bed: FreshBed, tmp_path: Path) -> None:
    bed = fresh_bed(2)
    with deploying(bed, tmp_path) as deployment:
        deployment.sleep()
        assert deployment.run().status == 0
        session = deployment.the_session()
        bed['h2'].cut()
        deployment.sleep(host='h2')
        ended = deployment.run('--connect-timeout', '1')
        assert ended.status == 3
        assert ended.the('host_failed')['host'] == 'h2'
        assert deployment.the_session() == session
        assert len(deployment.sleepers()) == 1

        ended = deployment.run('--connect-timeout', '1', '--skip-unreachable')
        assert ended.labels('component_started') == ['sleeper@h1']
        assert deployment.the_session() != session
        assert 'h2' in ended.stderr.splitlines()[-1]
