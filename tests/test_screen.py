"""RR10: a session a host and a window a component, to look at, to use, and to quit."""

from __future__ import annotations

import re
import shlex
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.attaching import attached
from tests.deploying import Deployment, descendants, gone, kill
from tests.testbed.process import wait_until

# A program that is hard to end: it ignores signals, forks twice, and has a child in a session of its own. All of it
# has the word that is its argument in its argv.
HYDRA = """\
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 100)
        os.chdir("/")
        time.sleep(100000)
    os._exit(0)
os.wait()
if os.fork() == 0:
    os.setsid()
    os.execv("/bin/sh", ["sh", "-c", "sleep 100000", sys.argv[1]])
print("hydra is up", flush=True)
time.sleep(100000)
"""
HEADS = 3


def add_hydra(deployment: Deployment, name: str, host: str = 'h1') -> str:
    """Add a component that is hard to end, and return the word that its processes have in their argv."""
    word = f'hydra-{deployment.session}-{name}'
    deployment.python(name, HYDRA, host, stop_timeout=0.2)
    deployment.components[-1]['args'].append(word)
    return word


def wait_for_heads(deployment: Deployment, word: str, host: str = 'h1') -> None:
    wait_until(lambda: len(deployment.processes(word, host)) == HEADS, f'all of {word} to run')


# What is there to see

_NAMES = ['plain', 'two words', '$HOME', '^x', '^Ax', "it's", '"', 's', 'server', 'serve', '%n', '%', '\\', ';', '#']
_NAMES += ['0', '-c', 'a/b', '../..', '`id`', '$(id)', '*', '~', '{a,b}', '&', 'ä', '語', 'e\u0301', 'x' * 60, '-1']


def test_a_window_a_component_titled_with_its_name(deployment: Deployment) -> None:
    for number, name in enumerate(_NAMES):
        deployment.sleep(name, start_index=number % 2)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert deployment.the_session().name == deployment.session
    windows = {event['window']: event['component'] for event in ended.of('component_started')}
    assert deployment.windows() == windows
    assert sorted(windows.values()) == sorted(_NAMES)


def test_an_odd_title_is_shown_as_it_is(deployment: Deployment, tmp_path: Path) -> None:
    names = ['ä語 $HOME ^x', "it's %n \\ \"q\""]
    for name in names:
        deployment.sleep(name)
    assert deployment.run().status == 0
    with attached(deployment.bed, 'h1', deployment.session, tmp_path) as terminal:
        terminal.press('C-a', '"')
        for name in names:
            terminal.wait_for(name)


def test_the_session_is_called_runner_unless_told(deployment: Deployment) -> None:
    deployment.sleep()
    assert deployment.begin(session='runner').finish().status == 0
    assert [session.name for session in deployment.sessions()] == ['runner']


@pytest.mark.parametrize('name', ['', 'a b', 'a/b', '../x', '$HOME', '-x', 'x' * 80, 'ä', 'a\nb'])
def test_a_session_name_that_screen_cannot_take_is_wrong_usage(deployment: Deployment, name: str) -> None:
    deployment.sleep()
    ended = deployment.begin(f'--screen={name}').finish()
    assert ended.status == 2
    assert '--screen' in ended.stderr or 'session' in ended.stderr
    assert deployment.sessions() == []


def test_a_person_sees_live_output_scrolls_back_and_reads_on_after_the_end(
    deployment: Deployment, tmp_path: Path
) -> None:
    script = 'seq -f "line %.0f of old" 500; while read -r word; do echo "you said $word"; done; echo good bye; exit 7'
    deployment.sh('talker', script)
    deployment.sleep('other')
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    with attached(deployment.bed, 'h1', deployment.session, tmp_path, '-p', 'talker') as terminal:
        terminal.wait_for('line 500 of old')
        terminal.press('hello', 'Enter')
        terminal.wait_for('you said hello')

        terminal.press('C-a', '[')
        terminal.wait_for('Copy mode')
        terminal.press('g')
        terminal.wait_for('line 1 of old')
        terminal.press('Escape')
        terminal.wait_for('you said hello')

        terminal.press('C-d')
        terminal.wait_for('good bye')
        deployment.ends(ended.pid('talker'))
        terminal.press('C-a', '[')
        terminal.press('g')
        terminal.wait_for('line 1 of old')
        terminal.press('Escape')
        wait_until(lambda: '7' in terminal.text().partition('good bye')[2], 'with which it ended')

        terminal.press('q')
        wait_until(lambda: list(deployment.windows().values()) == ['other'], 'the window to be closed')


def test_r_runs_the_program_again(deployment: Deployment, tmp_path: Path) -> None:
    deployment.sh('again', 'echo run >>/tmp/runs; n=$(wc -l </tmp/runs); echo "this is run $n"; read -r line; exit 3')
    deployment.sleep('other')
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    with attached(deployment.bed, 'h1', deployment.session, tmp_path, '-p', 'again') as terminal:
        terminal.wait_for('this is run 1')
        terminal.press('Enter')
        deployment.ends(ended.pid('again'))
        for number in (2, 3):
            terminal.press_until_shown('r', f'this is run {number}')
            terminal.press('Enter')
    # What a person started is ended with the session as well.
    deployment.quit()


def test_a_program_that_prints_much_is_held_back_by_nobody_who_watches(deployment: Deployment, tmp_path: Path) -> None:
    """Neither in copy mode nor over a line that hangs; and the log has it all."""
    lines = 400_000
    deployment.sh('flood', f'read -r go; seq -f "line number %.0f" {lines}; touch /tmp/flood-over; exec sleep 100000')
    assert deployment.run().status == 0
    watch = partial(attached, deployment.bed, 'h1', deployment.session, tmp_path)
    with watch() as hanging, watch() as reading:
        reading.press('C-a', '[')
        reading.wait_for('Copy mode')
        reading.press('Escape')
        with hanging.stalled():
            reading.press('Enter')
            reading.press('C-a', '[')
            deployment.appears('/tmp/flood-over')
            reading.wait_for('Copy mode')
    log = deployment.output_log('flood')
    wait_until(lambda: f'line number {lines}\r\n'.encode() in log.read_bytes()[-200:], 'the end of the log')
    numbers = re.findall(rb'^line number (\d+)\r?$', log.read_bytes(), re.MULTILINE)
    assert [int(number) for number in numbers] == list(range(1, lines + 1))
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_hundred_and_fifty_components_on_a_host(deployment: Deployment) -> None:
    for number in range(150):
        deployment.sleep(f'sleeper {number}', start_index=number // 100)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert len(ended.of('component_started')) == 150
    assert {event['pid'] for event in ended.of('component_started')} == {each.pid for each in deployment.sleepers()}
    windows = {event['window']: event['component'] for event in ended.of('component_started')}
    assert deployment.windows() == windows
    deployment.quit()
    assert deployment.sleepers() == []


# What ends with it


def test_quitting_the_session_ends_all_processes_of_all_programs(deployment: Deployment) -> None:
    words = [add_hydra(deployment, name) for name in ('a', 'b')]
    deployment.sleep()
    assert deployment.run().status == 0
    for word in words:
        wait_for_heads(deployment, word)
    deployment.quit()
    for word in words:
        assert deployment.processes(word) == []
    assert deployment.sleepers() == []


def test_whatever_way_a_window_ends_its_program_ends_with_it_and_no_other(deployment: Deployment) -> None:
    """Also when the launcher is killed in whole or in part: it leaves no one behind."""
    words = {name: add_hydra(deployment, name) for name in ('window', 'outer', 'inner', 'both', 'server')}
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    for word in words.values():
        wait_for_heads(deployment, word)
    host = deployment.host()
    server = deployment.the_session().pid

    def launchers(name: str) -> list[int]:
        """The processes between screen and the program."""
        above = []
        pid = ended.pid(name)
        processes = {process.pid: process for process in host.processes()}
        while (pid := processes[pid].ppid) != server:
            above.append(pid)
        return above

    def ends(name: str) -> None:
        wait_until(lambda: deployment.processes(words[name]) == [], f'the end of {name}')
        del words[name]
        for word in words.values():
            assert len(deployment.processes(word)) == HEADS

    deployment.screen('at', f'{ended.the("component_started", "window")["window"]}#', 'kill')
    ends('window')
    kill(host, signal.SIGKILL, launchers('outer')[-1])
    ends('outer')
    kill(host, signal.SIGKILL, launchers('inner')[0])
    ends('inner')
    kill(host, signal.SIGKILL, *launchers('both')[:-1])
    ends('both')
    family = descendants(host, server)
    kill(host, signal.SIGKILL, server)
    ends('server')
    gone(host, family)


def test_programs_are_asked_to_end_and_given_time_for_it(deployment: Deployment) -> None:
    """By whatever quits them: a person, or the next run, which starts nothing before they are done."""
    deployment.sh('old', 'trap "sleep 0.5; echo >/tmp/in-order; exit" TERM; sleep 100000 & wait; sleep 100000')
    assert deployment.run().status == 0
    wait_until(lambda: deployment.sleepers() != [], 'the program to set its trap')
    deployment.quit()
    assert deployment.host().path('/tmp/in-order').exists()

    deployment.host().run(['rm', '/tmp/in-order'])
    assert deployment.run().status == 0
    wait_until(lambda: deployment.sleepers() != [], 'the program to set its trap')
    deployment.clear()
    deployment.sh('new', 'test -e /tmp/in-order || exit 9; exec sleep 100000')
    ended = deployment.run()
    assert ended.status == 0, ended.stderr


def test_what_a_program_leaves_behind_ends_with_the_session(deployment: Deployment) -> None:
    child = "setsid sh -c 'touch /tmp/child; exec sleep 100000' >/dev/null 2>&1 </dev/null &"
    deployment.sh('parent', f'{child} while [ ! -e /tmp/child ]; do sleep 0.01; done; exit 0', wait=True)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    wait_until(lambda: len(deployment.sleepers()) == 1, 'the child to sleep')
    deployment.quit()
    assert deployment.sleepers() == []


# What an earlier run left


def test_what_an_earlier_run_left_is_gone_before_anything_new_starts(deployment: Deployment) -> None:
    words = [add_hydra(deployment, name) for name in ('a', 'b')]
    assert deployment.run().status == 0
    for word in words:
        wait_for_heads(deployment, word)
    old = deployment.the_session()

    deployment.clear()
    look = f'cat /proc/[0-9]*/cmdline | grep -a -q "hydra-{deployment.session}" && exit 9; exec sleep 100000'
    deployment.add('new', '/bin/sh', ['-c', look.replace('hydra', 'hydr[a]')])
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert ended.the('session_quit')['sessions'] == 1
    assert deployment.the_session() != old
    assert deployment.windows() == {0: 'new'}


def test_sessions_of_other_names_are_left_alone(deployment: Deployment) -> None:
    name = deployment.session
    host = deployment.host()
    for other in (f'{name}2', f'x{name}', f'{name}.1', f'1.{name}', name[:-1]):
        host.run(['screen', '-dmS', other, 'sleep', '100001'])
    wait_until(lambda: len(deployment.sleepers(100001)) == 5, 'the other sessions to start')
    others = set(deployment.sessions())
    sleepers = deployment.sleepers(100001)
    deployment.sleep()
    for _ in range(2):
        assert deployment.run().status == 0
        assert {session for session in deployment.sessions() if session.name != name} == others
        assert deployment.sleepers(100001) == sleepers
    assert deployment.windows() == {0: 'sleeper'}


def test_the_command_that_users_are_told_to_stop_with_stops_this_session_and_no_other(deployment: Deployment) -> None:
    name = deployment.session
    host = deployment.host()
    host.run(['screen', '-dmS', f'{name}2', 'sleep', '100001'])
    deployment.sleep()
    deployment.sh('fails', 'exit 3', 'h2', start_index=1)
    ended = deployment.run()
    assert ended.status == 1
    deployment.the_session()
    [stop] = deployment.stop_lines(ended)
    for _ in range(2):  # as by someone who is not sure that it worked
        deployment.shell(stop)
        wait_until(lambda: not deployment.own_sessions(), 'the session to be quit')
        wait_until(lambda: not deployment.sleepers(), 'the program to end')
        assert [session.name for session in deployment.sessions()] == [f'{name}2']


def test_sessions_of_our_name_that_are_no_work_of_ours_are_quit_too(deployment: Deployment) -> None:
    """Two of one name, which breaks `screen -X`; made by hand; one of them stopped, one dead."""
    host = deployment.host()
    for seconds in ('100001', '100002', '100003', '100004'):
        host.run(['screen', '-dmS', deployment.session, 'sh', '-c', 'trap "" HUP TERM; sleep "$0"', seconds])
    wait_until(lambda: len(deployment.own_sessions()) == 4, 'the sessions to start')
    killed, stopped, *others = (session.pid for session in deployment.own_sessions())
    family = [process for pid in (stopped, *others) for process in descendants(host, pid)]
    kill(host, signal.SIGKILL, killed)
    kill(host, signal.SIGSTOP, stopped)
    deployment.sleep()
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert deployment.the_session().pid not in (killed, stopped)
    gone(host, family)


def test_a_dead_session_of_our_name_is_no_obstacle(deployment: Deployment) -> None:
    word = add_hydra(deployment, 'hydra')
    assert deployment.run().status == 0
    wait_for_heads(deployment, word)
    kill(deployment.host(), signal.SIGKILL, deployment.the_session().pid)
    wait_until(lambda: deployment.the_session().state != 'Detached', 'the end of the session')
    deployment.clear()
    deployment.sleep()
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert deployment.processes(word) == []
    assert deployment.windows() == {0: 'sleeper'}
    assert deployment.the_session().state == 'Detached'


_STALE = """\
import os, socket, sys
folder, session, pid = sys.argv[1:]
socket.socket(socket.AF_UNIX).bind(os.path.join(folder, pid + '.' + session))
"""


@pytest.mark.parametrize('is_running', [False, True])
def test_another_program_that_has_the_pid_of_a_dead_session_is_left_alone(
    deployment: Deployment, is_running: bool
) -> None:
    deployment.sleep()
    assert deployment.run().status == 0
    host, server = deployment.host(), deployment.the_session().pid
    pid = int(host.run(['sh', '-c', 'setsid sleep 100017 >/dev/null 2>&1 & echo $!']).stdout)
    try:
        host.run(['python3', '-c', _STALE, '/run/screen/S-root', deployment.session, str(pid)])
        if not is_running:
            kill(host, signal.SIGKILL, server)
        ended = deployment.run()
        assert ended.status == 0, ended.stderr
        assert deployment.runs(pid)
        assert not deployment.runs(server)
        assert deployment.the_session().state == 'Detached'
    finally:
        kill(host, signal.SIGKILL, pid)


def test_a_session_whose_server_is_stopped_is_quit_with_all_its_processes(deployment: Deployment) -> None:
    word = add_hydra(deployment, 'hydra')
    assert deployment.run().status == 0
    wait_for_heads(deployment, word)
    server = deployment.the_session().pid
    kill(deployment.host(), signal.SIGSTOP, server)
    deployment.clear()
    deployment.sleep()
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert deployment.processes(word) == []
    assert not deployment.runs(server)
    assert deployment.windows() == {0: 'sleeper'}


# Adding to a session


def test_no_kill_adds_windows_to_the_session_that_is_there(deployment: Deployment) -> None:
    deployment.sleep('first')
    first = deployment.run()
    session = deployment.the_session()
    deployment.clear()
    deployment.sleep('second')
    deployment.sleep('elsewhere', 'h2')
    second = deployment.run('--no-kill')
    assert second.status == 0, second.stderr
    assert deployment.the_session() == session
    assert sorted(deployment.windows().values()) == ['first', 'second']
    assert list(deployment.windows('h2').values()) == ['elsewhere']
    assert deployment.runs(first.pid('first'))
    assert second.of('session_quit') == []


def test_no_kill_never_starts_a_second_one_of_what_still_runs(deployment: Deployment) -> None:
    deployment.sleep('runs')
    deployment.sh('ended', 'exit 0')
    first = deployment.run()
    assert first.status == 0, first.stderr
    deployment.ends(first.pid('ended'))
    windows = deployment.windows()
    deployment.sleep('new', start_index=-1)

    second = deployment.run('--no-kill')
    assert second.status == 1
    assert 'runs@h1' in second.stderr
    assert 'ended@h1' not in second.stderr
    assert second.of('component_started') == []
    assert deployment.windows() == windows

    deployment.components[:] = [component for component in deployment.components if component['name'] != 'runs']
    third = deployment.run('--no-kill')
    assert third.status == 0, third.stderr
    assert sorted(third.names('component_started')) == ['ended', 'new']
    assert deployment.runs(first.pid('runs'))


def test_no_zombie_closes_windows_with_their_programs(deployment: Deployment) -> None:
    deployment.sh('short', 'while [ ! -e /tmp/may-end ]; do sleep 0.01; done')
    deployment.sh('long', 'while [ ! -e /tmp/may-end-too ]; do sleep 0.01; done')
    assert deployment.run('--no-zombie').status == 0
    assert sorted(deployment.windows().values()) == ['long', 'short']
    deployment.host().run(['touch', '/tmp/may-end'])
    wait_until(lambda: list(deployment.windows().values()) == ['long'], 'the window to close')
    deployment.host().run(['touch', '/tmp/may-end-too'])
    wait_until(lambda: deployment.own_sessions() == [], 'the session to end with its last window')


# Users' own settings

_SCREENRCS = {
    'sessionname': 'sessionname mine\n',
    'shell': 'shell /bin/nope\ndefshell -$SHELL\n',
    'windows': 'screen -t mine\nscreen -t x 7 sleep 100002\nselect 7\n',
    'zombie': 'zombie kr\n',
    'no zombie': 'zombie\n',
    'startup message': 'startup_message on\nvbell on\n',
    'a broken line': 'nosuchcommand "unbalanced\nbind\ndefutf8 maybe\n\n\x01\x02\n',
    'escape': 'escape ^Bb\nterm nosuch\nmaxwin 2\ndefscrollback 5\nshelltitle "$ |bash"\n',
    'hardstatus': 'hardstatus alwayslastline "%{= kw}%-w%n %t%+w"\ncaption always\ndeflog on\nlogfile /nosuch/log\n',
    'multiuser': 'multiuser on\nacladd nobody\nsource /nosuch\nchdir /nosuch\nsetenv PATH /nosuch\numask 777\n',
}


def test_users_own_screenrcs_do_not_get_in_the_way(deployment: Deployment, tmp_path: Path) -> None:
    host = deployment.host('h2')
    users = {f'rc{number}': lines for number, lines in enumerate(_SCREENRCS.values())}
    for user, lines in users.items():
        home = host.add_user(user)
        host.path(f'{home}/.screenrc').write_text(lines)
        deployment.sh('a', 'echo "I am a"; read -r line; exit 3', f'{user}@h2')
        deployment.sleep('b', f'{user}@h2')
        deployment.sleep('c', f'{user}@h2', start_index=1)
    for _ in range(2):
        ended = deployment.run()
        assert ended.status == 0, ended.stderr
    for user in users:
        started = ended.of('component_started', host=f'{user}@h2')
        windows = {event['window']: event['component'] for event in started}
        assert sorted(windows.values()) == ['a', 'b', 'c']
        assert deployment.windows('h2', user).items() >= windows.items()
        with attached(deployment.bed, f'{user}@h2', deployment.session, tmp_path, '-p', 'a', height=30) as terminal:
            terminal.wait_for('I am a')
            terminal.press('Enter')
            [pid] = [event['pid'] for event in started if event['component'] == 'a']
            deployment.ends(pid, 'h2')
            terminal.press_until_gone('q', 'I am a')
            assert 'a' not in deployment.windows('h2', user).values()


def test_a_password_in_a_users_screenrc_is_an_error_that_says_so(deployment: Deployment) -> None:
    deployment.sleep()
    with deployment.file('/root/.screenrc', 'password ydP3NSvUO2CyE\n'):
        ended = deployment.run()
    assert ended.status in (1, 3)
    assert '.screenrc' in ended.stderr
    assert 'password' in ended.stderr
    assert deployment.sleepers() == []


def test_a_users_screendir_is_where_the_session_is(deployment: Deployment) -> None:
    host = deployment.host()
    host.run(['sh', '-c', 'mkdir -p -m 700 /root/screens'])
    deployment.sleep()
    with deployment.file('/root/.bashrc', 'export SCREENDIR=/root/screens\n'):
        for _ in range(2):
            ended = deployment.run()
            assert ended.status == 0, ended.stderr
    assert [path.name.partition('.')[2] for path in host.path('/root/screens').iterdir()] == [deployment.session]


@pytest.mark.parametrize(('path', 'mode'), [('/run/screen', '755'), ('/run/screen/S-{}', '755')])
def test_a_socket_folder_that_screen_will_not_use_is_an_error_that_says_so(
    deployment: Deployment, path: str, mode: str
) -> None:
    host = deployment.host('h3')
    alice = deployment.user('alice', 'h3')
    path = path.format(alice)
    host.run(['install', '-d', '-m', '700', '-o', alice, f'/run/screen/S-{alice}'])
    before = f'{host.path(path).stat().st_mode & 0o7777:o}'
    host.run(['chmod', mode, path])
    try:
        deployment.sleep(host=f'{alice}@h3')
        ended = deployment.run()
    finally:
        host.run(['chmod', before, path], check=False)
    assert ended.status in (1, 3)
    assert path in ended.stderr
    assert mode in ended.stderr or 'mode' in ended.stderr
    assert deployment.sleepers(host='h3') == []


_HOMES = ['/nosuch', '', 'relative', '/tmp/odd $HOME \'"*ä\n/home', '/etc/passwd']


@pytest.mark.parametrize('home', [*_HOMES, None])
def test_an_odd_home_or_none(deployment: Deployment, home: str | None) -> None:
    nomad = deployment.user('nomad', 'h3')
    value = 'unset HOME\n' if home is None else f'export HOME={shlex.quote(home)}\n'
    deployment.sleep(host=f'{nomad}@h3')
    with deployment.file(f'/home/{nomad}/.bashrc', value, 'h3'):
        ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert len(deployment.sleepers(host='h3')) == 1
