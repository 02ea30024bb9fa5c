"""What becomes of components after their start: restarts, how they are stopped, what killed launchers leave."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from remote_runner.config import ready
from remote_runner.hosts.host import Host
from tests.attaching import attached
from tests.deploying import Deployment, connections, kill
from tests.living import Lives, becomes, launcher_of, status
from tests.test_ready import NOTIFIER, add
from tests.test_screen import add_hydra, wait_for_heads
from tests.testbed.process import wait_until

# Restarts


def test_it_is_started_again_with_growing_pauses_until_it_ends_well(deployment: Deployment, lives: Lives) -> None:
    lives.add('it', 'test $life -gt 3 || exit 3', restart='on-failure', wait=True)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    again = ended.of('component_restarting', 'it')
    assert [(e['status'], e['pause'], e['restarts']) for e in again] == [(3, 0.5, 1), (3, 1, 2), (3, 2, 3)]
    started = ended.of('component_started', 'it')
    assert [event['restarts'] for event in started] == [0, 1, 2, 3]
    assert [event['pid'] for event in started] == lives.pids
    assert ended.the('component_exited', 'it')['status'] == 0
    for before, after, pause in zip(again, started[1:], (0.5, 1, 2), strict=True):
        assert after['time'] - before['time'] >= pause - 0.01
    assert 'WARNING: it@h1: exited with status 3; starts again in 0.5 s (restart 1)' in ended.stderr
    log = deployment.output_log('it')
    assert log.read_bytes() == b''.join(b'life %d\r\n' % number for number in (1, 2, 3, 4))
    assert status(deployment, 'it')['restarts'] == 3


@pytest.mark.parametrize(
    ('restart', 'end', 'again'),
    [
        ('always', 'exit 0', True),
        ('always', 'exit 1', True),
        ('always', 'kill -TERM $$', True),
        ('on-failure', 'exit 0', False),
        ('on-failure', 'exit 1', True),
        ('on-failure', 'kill -SEGV $$', True),
        ('no', 'exit 1', False),
    ],
)
def test_when_it_is_started_again(
    deployment: Deployment, lives: Lives, restart: str, end: str, again: bool
) -> None:
    lives.add('it', f'test $life = 1 && {end}; test $life = 2 && exit 0', restart=restart, max_restarts=1, wait=True)
    ended = deployment.run()
    assert len(ended.of('component_restarting', 'it')) == again
    assert ended.status == (0 if again or end == 'exit 0' else 1), ended.stderr
    assert len(lives.pids) == 1 + again


def test_after_so_many_restarts_it_has_failed(deployment: Deployment, lives: Lives) -> None:
    lives.add('it', 'exit 3', restart='on-failure', max_restarts=1, wait=True)
    ended = deployment.run()
    assert ended.status == 1
    failed = ended.the('component_failed', 'it')
    assert failed['reason'] == 'it ended with exit status 3, after 1 restart'
    assert failed['output'].split() == ['life', '2'], 'the lines of the life that failed'
    assert status(deployment, 'it')['reason'] == failed['reason']


@pytest.mark.parametrize(
    ('attributes', 'reason'),
    [
        ({'start_grace': 30}, 'it ended within its start_grace (30 s), with exit status 3'),
        ({'ready': ready.tcp(1)}, 'it ended before it was ready, with exit status 3'),
    ],
)
def test_a_false_start_is_not_repeated(
    deployment: Deployment, lives: Lives, attributes: dict[str, Any], reason: str
) -> None:
    lives.add('it', 'exit 3', restart='always', **attributes)
    ended = deployment.run()
    assert ended.status == 1
    assert ended.the('component_failed', 'it')['reason'] == reason
    assert ended.of('component_restarting') == []
    assert len(lives.pids) == 1
    wait_until(lambda: 'gone' in status(deployment, 'it'), 'its end')
    assert status(deployment, 'it')['exit_status'] == 3


@pytest.mark.parametrize('how', ['the launcher', 'the session', 'the command'])
def test_a_pause_can_be_ended(deployment: Deployment, lives: Lives, how: str) -> None:
    """It ends at once, not when the pause would have, and nothing is started after it."""
    lives.add('it', 'exit 3', restart='always', wait=how != 'the command')
    if how == 'the command':
        deployment.sh('ender', 'while [ ! -e /tmp/enough ]; do sleep 0.01; done', wait=True)
    running = deployment.begin('--terminate')
    running.wait_for('component_started', 'it')
    wait_until(lambda: len(lives.pids) == 4, 'the life before the pause of four seconds')
    wait_until(lambda: status(deployment, 'it')['state'] == 'restarting', 'the end of that')
    resting = status(deployment, 'it')
    if how == 'the launcher':
        kill(deployment.host(), signal.SIGTERM, resting['launcher'])
    elif how == 'the session':
        deployment.quit()
    else:
        deployment.host().run(['touch', '/tmp/enough'])
    ended = running.finish()
    stopped = becomes(deployment, 'it', 'stopped')
    assert stopped['gone'] < resting['next']
    deployment.ends(resting['launcher'])
    assert len(lives.pids) == 4
    assert ended.status == (0 if how == 'the command' else 1), ended.stderr
    assert len(ended.of('component_stopped' if how == 'the command' else 'component_exited', 'it')) == 1


def test_a_component_that_is_stopped_is_not_started_again(deployment: Deployment, lives: Lives) -> None:
    lives.add('it', 'exec sleep 100000', restart='always')
    assert deployment.run().status == 0
    deployment.quit()
    assert status(deployment, 'it')['state'] == 'stopped'
    assert len(lives.pids) == 1


def test_a_signal_for_a_program_in_its_pause_reaches_nobody(deployment: Deployment, lives: Lives, agent: Host) -> None:
    lives.add('it', 'exit 3', restart='always')
    assert deployment.run().status == 0
    wait_until(lambda: len(lives.pids) == 4, 'the pause of four seconds')
    becomes(deployment, 'it', 'restarting')
    answer = agent.request('signal', 30, session=deployment.session, names=['it'], signal='USR1')
    assert answer['results'] == {'it': 'it does not run'}
    assert status(deployment, 'it')['state'] == 'restarting'
    [found] = agent.request('survey', 30, session=deployment.session)['components']
    assert (found['status']['state'], found['status']['restarts'], found['alive']) == ('restarting', 4, True)


def test_what_one_life_leaves_is_ended_before_the_next_begins(deployment: Deployment, lives: Lives) -> None:
    child = "setsid sh -c 'trap \"\" TERM; echo $$ >/tmp/child; while :; do sleep 1; done' >/dev/null 2>&1 &"
    wait = 'while [ ! -s /tmp/child ]; do sleep 0.01; done'
    see = 'kill -0 $(cat /tmp/child) && echo alive || echo gone'
    lives.add('it', f'test $life = 2 && {{ {see}; exit 0; }}; {child} {wait}; exit 3', restart='on-failure', wait=True,
              stop_timeout=0.3)  # fmt: skip
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert deployment.output_log('it').read_text().split()[-1] == 'gone'


def test_the_window_shows_restarts_and_takes_keys_again(deployment: Deployment, lives: Lives, tmp_path: Path) -> None:
    lives.add('it', 'read -r word; echo "you said $word"; exit 3', restart='always')
    deployment.sleep('other')
    assert deployment.run().status == 0
    with attached(deployment.bed, 'h1', deployment.session, tmp_path, '-p', 'it') as terminal:
        terminal.wait_for('life 1')
        terminal.press('hello', 'Enter')
        terminal.wait_for('you said hello')
        terminal.wait_for('[remote_runner: ended with status 3; starts again in 0.5 s]')
        terminal.wait_for('life 2')
        terminal.press('again', 'Enter')
        terminal.wait_for('you said again')
        terminal.wait_for('starts again in 1 s]')


def test_it_becomes_ready_again(deployment: Deployment, lives: Lives) -> None:
    lives.add('it', 'sleep 0.3; echo up; sleep 0.3; test $life = 2 || exit 1', ready=ready.log('^up$'),
              restart='on-failure', wait=True)  # fmt: skip
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    events = [e['event'].removeprefix('component_') for e in ended.events if e.get('component') == 'it']
    assert events == ['starting', 'started', 'ready', 'restarting', 'started', 'ready', 'exited']
    _, again = ended.of('component_ready')
    assert 0.3 <= again['seconds'] <= again['time'] - ended.the('component_restarting')['time'] - 0.4


def test_the_time_limit_holds_for_a_restart_too(deployment: Deployment, lives: Lives) -> None:
    lives.add('it', 'test $life = 1 && { echo up; sleep 0.5; exit 1; }; exec sleep 100000', ready=ready.log('^up$'),
              start_timeout=1.5, restart='on-failure', max_restarts=1, wait=True)  # fmt: skip
    ended = deployment.run()
    assert ended.status == 1
    assert ended.the('component_failed', 'it')['reason'] == 'it was not ready within 1.5 s, after 1 restart'
    assert deployment.sleepers() == []


def test_more_time_can_be_asked_for_at_a_restart_too(deployment: Deployment) -> None:
    words = ['EXTEND_TIMEOUT_USEC=20000000', 'sleep:2.5', 'READY=1', 'once:/tmp/first']
    add(deployment, 'it', NOTIFIER_ONCE, *words, ready=ready.notify(), start_timeout=2, restart='on-failure',
        wait=True)  # fmt: skip
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert len(ended.of('component_ready')) == 2


#: Ends with status 1 at `once:FILE` when the file is not there yet, which it is then; with 0 when it is.
NOTIFIER_ONCE = NOTIFIER.replace(
    "    elif kind == 'exit':",
    "    elif kind == 'once':\n"
    '        if os.path.exists(rest): sys.exit(0)\n'
    "        open(rest, 'w').close(); sys.exit(1)\n"
    "    elif kind == 'exit':",
)


def test_a_life_that_ends_before_it_is_ready_is_a_failure_whatever_its_status(
    deployment: Deployment, lives: Lives
) -> None:
    script = 'case $life in 1) echo up; sleep 0.3; exit 1;; 2) exit 0;; 3) echo up; sleep 0.3; exit 0;; esac'
    lives.add('it', script, ready=ready.log('^up$'), restart='on-failure', wait=True)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    reasons = [event['reason'] for event in ended.of('component_restarting')]
    assert reasons == ['', 'it ended before it was ready, with exit status 0']


def test_a_program_that_is_gone_when_it_is_to_be_started_again(deployment: Deployment) -> None:
    host = deployment.host()
    program = f'/tmp/program-{deployment.session}'
    host.path(program).write_text('#!/bin/sh\nrm "$0"; exit 1\n')
    host.run(['chmod', '755', program])
    deployment.add('it', program, restart='on-failure', max_restarts=2, wait=True, start_grace=0)
    ended = deployment.run()
    assert ended.status == 1
    reasons = [event['reason'] for event in ended.of('component_restarting')]
    assert reasons == ['', f'not started: {program}: No such file or directory']
    assert ended.the('component_failed')['reason'] == f'{reasons[-1]}, after 2 restarts'
    assert becomes(deployment, 'it', 'exited')['exit_status'] == 127


def test_restarts_while_the_connection_is_broken_are_told_afterwards(deployment: Deployment, lives: Lives) -> None:
    lives.add('it', 'while [ ! -e /tmp/on-$life ]; do sleep 0.01; done; test $life = 2 || exit 1',
              restart='on-failure', wait=True)  # fmt: skip
    running = deployment.begin()
    running.wait_for('component_started', 'it')
    host = deployment.host()
    kill(host, signal.SIGSTOP, running_sshd := connections(host)[0].pid)
    host.run(['touch', '/tmp/on-1'])
    wait_until(lambda: len(lives.pids) == 2, 'the second life')
    kill(host, signal.SIGKILL, running_sshd, *(sshd.pid for sshd in connections(host)))
    running.wait_for('host_connected', host='h1')
    wait_until(lambda: len([e for e in running.events if e['event'] == 'component_started']) == 2, 'the second start')
    host.run(['touch', '/tmp/on-2'])
    ended = running.finish()
    assert ended.status == 0, ended.stderr
    assert [(e['pid'], e['restarts']) for e in ended.of('component_started')] == [*zip(lives.pids, (0, 1), strict=True)]


def test_a_restart_while_others_of_its_index_still_start_has_a_time_limit_of_its_own(
    deployment: Deployment, lives: Lives
) -> None:
    script = 'echo up; test $life = 1 && sleep 0.5 && exit 1; exec sleep 100000'
    lives.add('it', script, ready=ready.log('^up$'), restart='always', start_timeout=1.5)
    add(deployment, 'slow', NOTIFIER, 'wait:/tmp/go', 'READY=1', ready=ready.notify(), start_timeout=60)
    running = deployment.begin()
    wait_until(lambda: len([e for e in running.events if e['event'] == 'component_ready']) == 2, 'both to be ready')
    deployment.host().run(['touch', '/tmp/go'])
    ended = running.finish()
    assert ended.status == 0, ended.stderr


# How they are stopped

FAMILY = """\
import os, signal, sys, time
def note(number, frame):
    open('/tmp/got-' + name, 'w').write(str(int(number)))
    os._exit(0)
name = 'parent'
child = os.fork()
if child == 0:
    os.setsid()
    name = 'child'
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, note)
print(name, 'is up', flush=True)
time.sleep(100000)
"""


@pytest.mark.parametrize(('stop_signal', 'number'), [('INT', 2), ('SIGINT', 2), (2, 2), ('TERM', 15)])
def test_the_stop_signal_reaches_all_processes(deployment: Deployment, stop_signal: object, number: int) -> None:
    deployment.python('family', FAMILY, stop_signal=stop_signal)
    assert deployment.run().status == 0
    log = deployment.output_log('family')
    wait_until(lambda: log.read_text().count('is up') == 2, 'both to be up')
    deployment.quit()
    assert [deployment.text(f'/tmp/got-{name}') for name in ('parent', 'child')] == [str(number)] * 2


# Killed launchers


def test_a_killed_keeper_is_told(deployment: Deployment) -> None:
    deployment.sleep('it', wait=True)
    running = deployment.begin()
    started = running.wait_for('component_started', 'it')
    keeper, guard = launcher_of(deployment, started['pid'])
    kill(deployment.host(), signal.SIGKILL, keeper)
    ended = running.finish()
    assert ended.status == 1
    assert ended.the('component_failed')['reason'] == 'its launcher was killed, and the program was ended'
    assert deployment.sleepers() == []
    found = becomes(deployment, 'it', 'killed')
    assert (found['pid'], found['keeper'], found['launcher']) == (started['pid'], keeper, guard)
    assert found['started'] <= found['ended']
    assert found['reason'] == 'the launcher was killed'


def test_a_killed_guard_is_told(deployment: Deployment) -> None:
    deployment.sleep('it', restart='always', wait=True)
    running = deployment.begin()
    started = running.wait_for('component_started', 'it')
    _, guard = launcher_of(deployment, started['pid'])
    kill(deployment.host(), signal.SIGKILL, guard)
    ended = running.finish()
    assert ended.status == 1
    assert ended.the('component_failed')['reason'] == 'its launcher was killed, and the program was ended'
    assert deployment.sleepers() == []
    assert becomes(deployment, 'it', 'killed')['pid'] == started['pid']


def test_a_killed_keeper_in_a_pause(deployment: Deployment, lives: Lives) -> None:
    lives.add('it', 'exit 3', restart='always', wait=True)
    running = deployment.begin()
    keeper = running.wait_for('component_restarting', 'it')
    keeper = status(deployment, 'it')['keeper']
    kill(deployment.host(), signal.SIGKILL, keeper)
    assert running.finish().status == 1
    assert becomes(deployment, 'it', 'killed')['launcher'] != keeper


def test_what_a_launcher_left_that_was_killed_whole_is_ended_by_the_next_who_looks(
    deployment: Deployment, agent: Host
) -> None:
    word = add_hydra(deployment, 'it')
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    wait_for_heads(deployment, word)
    heads = {process.pid for process in deployment.processes(word)}
    launcher = launcher_of(deployment, ended.pid('it'))
    kill(deployment.host(), signal.SIGKILL, *launcher)
    for pid in launcher:
        deployment.ends(pid)
    [found] = agent.request('survey', 30, session=deployment.session)['components']
    assert (found['status']['state'], found['alive']) == ('killed', False)
    assert heads <= set(found['left'])
    wait_until(lambda: deployment.processes(word) == [], 'the end of what was left')
    found = becomes(deployment, 'it', 'killed')
    assert found['reason'] == 'its launcher was killed; what was left of the program was ended later'
    assert found['pid'] == ended.pid('it')


def test_after_its_keeper_was_killed_a_person_can_run_it_again(deployment: Deployment, tmp_path: Path) -> None:
    """Also one with sockets, which the killed one left."""
    deployment.sleep('it', watchdog=100)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    keeper, _ = launcher_of(deployment, ended.pid('it'))
    kill(deployment.host(), signal.SIGKILL, keeper)
    becomes(deployment, 'it', 'killed')
    with attached(deployment.bed, 'h1', deployment.session, tmp_path) as terminal:
        terminal.wait_for('the program was ended')
        terminal.press_until_shown('r', 'started by hand')
        wait_until(lambda: len(deployment.sleepers()) == 1, 'the program to run')
