"""`component.user`: programs that run as another user of their host, by sudo."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from remote_runner.agent import peers
from remote_runner.agent.peers import Peer
from tests.attaching import Terminal, attached
from tests.commands import Done, Site, component, environment
from tests.deploying import agents, connections, gone, is_alive, kill
from tests.test_command import Watcher
from tests.testbed import Testbed, TestHost
from tests.testbed.process import wait_until

PASSWORD = 'correct zebra 8'
HOSTS = ('h1', 'h2', 'h3')
#: Who may become sim: `free` without a password, `anne` with hers, `other` not at all.
RULES = """\
Defaults logfile=/var/log/sudo.log, loglinelen=0
free ALL=(sim, root) NOPASSWD: ALL
anne ALL=(sim, root) ALL
"""
#: Counts wrong passwords, as hosts do that lock accounts.
PAM = """\
auth required pam_faillock.so preauth deny=100 dir=/run/faillock
auth sufficient pam_unix.so nodelay
auth [default=die] pam_faillock.so authfail deny=100 dir=/run/faillock
auth required pam_deny.so
account required pam_unix.so
session required pam_permit.so
"""
STUBBORN = 'trap "" TERM HUP; (trap "" TERM HUP; while :; do sleep 1; done) & while :; do echo on; sleep 1; done'


@pytest.fixture(scope='module')
def own() -> Iterator[Testbed]:
    with Testbed(count=3) as bed:
        for host in bed.hosts:
            for name in ('free', 'anne', 'other', 'sim'):
                host.add_user(name, password=PASSWORD)
            host.run(['tee', '/etc/sudoers.d/test'], input=RULES.encode())
            host.run(['tee', '/etc/pam.d/sudo'], input=PAM.encode())
        yield bed


@pytest.fixture
def site(own: Testbed, tmp_path: Path) -> Iterator[Site]:
    for host in own.hosts:
        host.run(['sh', '-c', 'rm -rf /run/faillock; mkdir /run/faillock; rm -f /var/log/sudo.log'])
    with Site(own, tmp_path) as site:
        yield site


def say(name: str, host: str, script: str, **more: Any) -> str:
    return component(name, host, '/bin/sh', ['-c', script], **{'user': 'sim', **more})


def folder(site: Site, name: str, host: str = 'h1', user: str = 'free') -> Path:
    """The newest folder of a component on its host."""
    runs = site.bed[host].path(f'/home/{user}/.local/state/remote_runner/hosts/{host}/{site.session}')
    found = [path.parent for path in runs.glob('*/*/status.json') if json.loads(path.read_text())['name'] == name]
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def status(site: Site, name: str, host: str = 'h1', user: str = 'free') -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder(site, name, host, user) / 'status.json').read_text())
    return found


def inside(host: TestHost, path: Path) -> str:
    """The path of a file of the host as the host sees it."""
    base = host.path('/home')
    return f'/home/{path.relative_to(base)}'


def later(site: Site, *arguments: str, code: int | None = 0, **options: Any) -> Done:
    """A command on the session, after the one that deployed has ended."""
    command, *rest = arguments
    return site.run(command, '-F', site.ssh_config, '--screen', site.session, *rest, status=code, **options)


def prints(site: Site, name: str, words: str, host: str = 'h1', user: str = 'free') -> str:
    """What a component has printed, as soon as these words are in it."""
    log = folder(site, name, host, user) / 'output.log'
    wait_until(lambda: log.exists() and words in log.read_text(), f'{words!r} of {name}')
    return log.read_text()


def sim_runs(host: TestHost) -> list[str]:
    """What runs as sim."""
    shown = host.run(['ps', '-u', 'sim', '-o', 'stat=,args='], check=False).stdout.decode().splitlines()
    return [line for line in shown if not line.startswith('Z')]


def nothing_of_sim(host: TestHost) -> None:
    """Wait until nothing runs as sim, and nothing of ours is left of it in /tmp."""
    wait_until(lambda: not sim_runs(host), f'the end of {sim_runs(host)}')
    uid = host.account('sim').uid
    wait_until(lambda: not list(host.path('/tmp').glob(f'remote_runner-{uid}*')), 'its sockets to go')


def attempts(host: TestHost, user: str = 'anne') -> int:
    """Wrong passwords that the host has counted."""
    shown = host.run(['faillock', '--dir', '/run/faillock', '--user', user]).stdout.decode()
    return sum(line.split()[-1:] == ['V'] for line in shown.splitlines())


# ---- what it runs as and gets --------------------------------------------------------------------------------------


def test_who_it_is_and_what_it_gets(site: Site) -> None:
    site.file('secrets', 'KEY=hidden value\n', 0o600)
    script = 'id -un; id -Gn; env; echo "$@"; exec sleep 1000'
    args = ['-c', script, 'x', '$HOME *', "it's"]
    more = {'env': {'OWN': 'one  two'}, 'env_file': 'secrets', 'user': 'sim'}
    site.write(component('x', 'free@h1', '/bin/sh', args, **more))
    pid = site.deploy().event('component_started')['pid']
    lines = prints(site, 'x', "it's").splitlines()
    assert lines[:2] == ['sim', 'sim']
    assert {'HOME=/home/sim', 'USER=sim', 'LOGNAME=sim', 'SHELL=/bin/bash'} <= set(lines)
    assert {'OWN=one  two', 'KEY=hidden value', 'RR_COMPONENT=x', "$HOME * it's"} <= set(lines)
    host = site.bed['h1']
    assert os.stat(host.root / 'proc' / str(pid)).st_uid == host.account('sim').uid
    [index] = json.loads(site.run('plan', '-c', site.config, '--json').stdout)['indexes']
    assert index['components'][0]['user'] == 'sim'


def test_its_secrets_are_masked_by_its_host(site: Site) -> None:
    site.file('secrets', 'KEY=hidden value\n', 0o600)
    script = 'systemd-notify --status="has $KEY"; echo "with $KEY"; sleep 0.5; exit 3'
    more = {'env_file': 'secrets', 'user': 'sim', 'watchdog': 30, 'start_grace': 5}
    site.write(component('x', 'free@h1', '/bin/sh', ['-c', script], **more))
    site.deploy(status=1)
    done = later(site, 'restart', 'x', '--json', code=1)
    assert 'hidden value' not in done.stdout + done.stderr
    assert done.event('component_said')['text'] == 'has ***'
    assert done.event('component_failed')['output'] == 'with ***\r\n'


def test_a_temporary_base_dir_is_theirs_too_and_nobody_elses(site: Site) -> None:
    script = '#!/bin/sh\ncat given >result; mkdir deep; echo x >deep/er; echo done; pwd; exec sleep 1000\n'
    site.file('tool', script, 0o755)
    site.file('given', 'content\n')
    files = {'tool': 'tool', 'given': 'given'}
    site.write(component('x', 'free@h1', 'tool', ['1'], files=files, user='sim', base_dir=None))
    assert site.deploy().event('component_started')
    place = prints(site, 'x', '/tmp/').split('done')[1].split()[0]
    host = site.bed['h1']
    for path in ('result', 'deep/er'):
        assert host.run(['cat', f'{place}/{path}'], user='free').stdout
        assert host.run(['cat', f'{place}/{path}'], user='other', check=False).returncode != 0
    assert host.run(['ls', place], user='other', check=False).returncode != 0
    assert host.run(['touch', f'{place}/x'], user='other', check=False).returncode != 0


def test_who_logs_in_needs_no_sudo_and_root_can_be_meant(site: Site) -> None:
    site.bed['h1'].hide('sudo')
    try:
        site.write(say('same', 'free@h1', 'id -un; exec sleep 1000', user='free'))
        site.deploy()
        assert prints(site, 'same', 'free')
    finally:
        site.bed['h1'].unhide('sudo')
    site.write(say('root', 'free@h1', 'id -un; pwd; exec sleep 1000', user='root', base_dir=None))
    site.deploy()
    assert prints(site, 'root', '/tmp/').startswith('root')


def test_nobody_else_can_read_or_reach_anything(site: Site) -> None:
    site.write(say('x', 'free@h1', 'echo words; exec sleep 1000'))
    site.deploy()
    prints(site, 'x', 'words')
    host = site.bed['h1']
    own = folder(site, 'x')
    uid = host.account('free').uid
    for user in ('sim', 'other'):
        for name in ('spec', 'status.json', 'output.log'):
            assert host.run(['cat', inside(host, own / name)], user=user, check=False).returncode != 0
        assert host.run(['ls', f'/tmp/remote_runner-{uid}'], user=user, check=False).returncode != 0
    for name in ('spec', 'status.json', 'output.log'):
        assert (own / name).stat().st_mode & 0o777 == 0o600
        assert (own / name).stat().st_uid == uid
        assert host.run(['cat', inside(host, own / name)], user='free').stdout
    said = host.run(['sh', '-c', 'ps -u sim -o pid= | while read pid; do cat /proc/$pid/environ; done']).stdout
    assert json.loads((own / 'status.json').read_text())['run'].encode() in said
    assert b'token' not in said


# ---- commands that come later --------------------------------------------------------------------------------------


def test_commands_after_the_start(site: Site) -> None:
    script = 'trap "echo got it" USR1; echo begun; while :; do sleep 0.1; done'
    site.write(say('x', 'free@h1', script))
    site.deploy()
    prints(site, 'x', 'begun')
    [shown] = json.loads(later(site, 'status', '--json').stdout)['components']
    assert (shown['state'], shown['pid']) == ('started', status(site, 'x')['pid'])
    assert 1 <= shown['processes'] <= 2  # the shell and its sleep, but not what stands behind them
    later(site, 'signal', 'USR1', 'x')
    prints(site, 'x', 'got it')
    assert 'got it' in later(site, 'logs', 'x').stdout
    host = site.bed['h1']
    before = status(site, 'x')['pid']
    later(site, 'restart', 'x')
    assert not is_alive(host, before)
    assert status(site, 'x')['pid'] != before
    assert sim_runs(host)
    later(site, 'stop')
    assert not sim_runs(host)
    assert status(site, 'x')['state'] == 'stopped'
    nothing_of_sim(host)


def test_what_ignores_being_stopped_is_killed(site: Site) -> None:
    site.write(say('x', 'free@h1', STUBBORN, stop_timeout=0.3))
    site.deploy()
    prints(site, 'x', 'on')
    later(site, 'stop')
    assert not sim_runs(site.bed['h1'])


def test_quitting_the_session_ends_it(site: Site) -> None:
    site.write(say('x', 'free@h1', STUBBORN, stop_timeout=0.3))
    site.deploy()
    prints(site, 'x', 'on')
    host = site.bed['h1']
    [session] = site.deployment.own_sessions(user='free')
    host.run(['screen', '-S', f'{session.pid}.{session.name}', '-X', 'quit'], user='free')
    nothing_of_sim(host)
    wait_until(lambda: status(site, 'x').get('gone'), 'its last word')
    assert status(site, 'x')['state'] == 'stopped'


def test_deploying_again_replaces_it(site: Site) -> None:
    site.write(say('x', 'free@h1', STUBBORN, stop_timeout=0.3))
    first = site.deploy().event('component_started')['pid']
    prints(site, 'x', 'on')
    second = site.deploy().event('component_started')['pid']
    assert not is_alive(site.bed['h1'], first)
    assert is_alive(site.bed['h1'], second)


@pytest.mark.parametrize('whom', ['launcher', 'keeper', 'both', 'deputy', 'above deputy'])
def test_kill_9_leaves_nothing(site: Site, whom: str) -> None:
    site.write(say('x', 'free@h1', STUBBORN, stop_timeout=0.3, watchdog=1000))  # which has a socket of its own
    site.deploy()
    prints(site, 'x', 'on')
    host = site.bed['h1']
    now = status(site, 'x')
    above = next(process.ppid for process in host.processes() if process.pid == now['deputy'])
    pids = {'both': [now['launcher'], now['keeper']], 'above deputy': [above]}
    behind = [process for process in host.processes() if process.pid in (now['launcher'], now['keeper'], above)]
    kill(host, signal.SIGKILL, *pids.get(whom, [now.get(whom, 0)]))
    nothing_of_sim(host)
    gone(host, behind)
    if whom in ('keeper', 'deputy'):
        assert status(site, 'x')['state'] == 'killed'
    [shown] = json.loads(later(site, 'status', '--json', code=None).stdout)['components']
    assert shown['state'] in ('killed', 'gone', 'stopped', 'exited')


def test_what_we_may_not_end_is_named(site: Site) -> None:
    """Both processes that could end it are killed, by someone who may."""
    site.write(say('x', 'free@h1', STUBBORN, stop_timeout=0.3))
    site.deploy()
    prints(site, 'x', 'on')
    host = site.bed['h1']
    now = status(site, 'x')
    above = next(process.ppid for process in host.processes() if process.pid == now['deputy'])
    kill(host, signal.SIGKILL, above, now['deputy'])
    wait_until(lambda: status(site, 'x')['state'] == 'unknown', 'what is left')
    [shown] = json.loads(later(site, 'status', '--json', code=None).stdout)['components']
    assert shown['state'] == 'unknown'
    assert now['pid'] in status(site, 'x')['left']
    kill(host, signal.SIGKILL, *status(site, 'x')['left'])
    wait_until(lambda: status(site, 'x')['state'] == 'killed', 'its end')


# ---- restarts and readiness ----------------------------------------------------------------------------------------


def test_it_is_started_again(site: Site) -> None:
    script = 'echo life; sleep 0.3; [ -e /tmp/enough ] || exit 3; exec sleep 1000'
    site.write(say('x', 'free@h1', script, restart='on-failure'))
    site.deploy()
    log = folder(site, 'x') / 'output.log'
    wait_until(lambda: log.read_text().count('life') >= 2, 'a second life')
    site.bed['h1'].run(['touch', '/tmp/enough'])
    wait_until(lambda: status(site, 'x')['state'] == 'started', 'the last life')
    assert status(site, 'x')['restarts'] >= 1
    later(site, 'stop')
    assert log.read_text().count('life') == status(site, 'x')['restarts'] + 1
    nothing_of_sim(site.bed['h1'])


def test_a_signal_in_a_pause(site: Site) -> None:
    site.write(say('x', 'free@h1', 'sleep 0.2; exit 3', restart='always', start_grace=0))
    site.deploy()
    wait_until(lambda: status(site, 'x').get('restarts') == 3, 'the pause of two seconds')
    wait_until(lambda: status(site, 'x')['state'] == 'restarting', 'a pause')
    assert 'it does not run' in later(site, 'signal', 'USR1', 'x', code=1).stderr
    later(site, 'stop')


@contextmanager
def called(site: Site, name: str) -> Iterator[Peer]:
    """A connection to the keeper of a component."""
    found = folder(site, name)
    uid = site.bed['h1'].account('free').uid
    runtime = os.open(site.bed['h1'].path(f'/tmp/remote_runner-{uid}'), os.O_PATH)
    # By way of the folder: the path of a socket must be short.
    keeper = peers.connect(f'/proc/self/fd/{runtime}/{found.parent.name}-{found.name}')
    os.close(runtime)
    assert keeper is not None
    yield keeper
    keeper.sock.close()


def is_at_rest(keeper: Peer) -> None:
    """Wait until it and its deputy have done with all that came before: signal 0 does nothing, and goes to both."""
    asked = 0
    heard: list[tuple[object, ...]] = []

    def has_done_so() -> bool:
        nonlocal asked
        if asked == len(heard):  # the deputy may not have begun the program yet, of which the status speaks already
            keeper.send(('signal', 0))
            asked += 1
        messages = keeper.receive()
        assert messages is not None
        heard.extend(message for message in messages if message[0] == 'signalled')
        return heard[-1:] == [('signalled', 0)]

    wait_until(has_done_so, 'its answer')


@pytest.mark.parametrize('user', ['sim', None])
def test_lives_leave_no_files_open(site: Site, user: str | None) -> None:
    site.write(say('x', 'free@h1', 'exec sleep 1000', restart='always', user=user, start_grace=0))
    site.deploy()
    host = site.bed['h1']
    wait_until(lambda: not agents(host), 'the deployment to hang up')

    def open_files(life: int) -> list[int]:
        """How many files those behind the program have open in that life, which is the next."""
        kill(host, signal.SIGKILL, status(site, 'x')['pid'])
        wait_until(
            lambda: (status(site, 'x')['state'], status(site, 'x').get('restarts')) == ('started', life), f'life {life}'
        )
        is_at_rest(keeper)
        pids = [status(site, 'x')[who] for who in ('keeper', 'deputy') if who in status(site, 'x')]
        return [len(list((host.root / 'proc' / str(pid) / 'fd').iterdir())) for pid in pids]

    with called(site, 'x') as keeper:
        assert open_files(1) == open_files(2)


NOTIFY = """
import os, socket, stat, time
path = os.environ['NOTIFY_SOCKET']
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.sendto(b'STATUS=on its way', path)
    notify.sendto(b'READY=1', path)
print(oct(stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode)), path, flush=True)
time.sleep(1000)
"""


def test_it_says_that_it_is_ready(site: Site) -> None:
    line = component('x', 'free@h1', '/usr/bin/python3', ['-ISc', NOTIFY], user='sim', ready=0)
    site.write(line.replace("'ready': 0", "'ready': ready.notify()"))
    done = site.deploy()
    assert done.event('component_ready')
    assert done.event('component_said')['text'] == 'on its way'
    mode, path = prints(site, 'x', '/notify').split()[:2]
    assert mode == '0o700'
    host = site.bed['h1']
    assert host.run(['ls', os.path.dirname(path)], user='other', check=False).returncode != 0
    later(site, 'stop')
    nothing_of_sim(host)


@pytest.mark.parametrize(
    ('ready', 'script'),
    [
        ('ready.file("made")', 'umask 077; mkdir -p ~/p; sleep 0.2; touch ~/p/made'),
        ('ready.command(["sh", "-c", "id -un >who; cat made"], interval=0.05)', 'sleep 0.2; touch ~/p/made'),
        ('ready.tcp(7711)', 'python3 -m http.server 7711 & :'),
        ('ready.log("all is well")', 'sleep 0.2; echo all is well'),
    ],
    ids=['file', 'command', 'tcp', 'log'],
)
def test_it_is_found_to_be_ready(site: Site, ready: str, script: str) -> None:
    host = site.bed['h1']
    host.run(['sh', '-c', 'rm -rf ~/p; mkdir -m 700 ~/p'], user='sim')
    host.run(['chmod', '711', '/home/sim'])
    line = say('x', 'free@h1', f'{script}; exec sleep 1000', base_dir='/home/sim/p', ready=0)
    site.write(line.replace("'ready': 0", f"'ready': {ready}"))
    assert site.deploy().event('component_ready')
    later(site, 'stop')
    nothing_of_sim(host)


# ---- the password --------------------------------------------------------------------------------------------------


def password_file(site: Site, text: str = PASSWORD) -> dict[str, str]:
    return {'RR_SUDO_PASS_FILE': str(site.file('sudo-password', f'{text}\n', 0o600))}


def test_a_password_is_asked_for_once_for_all_hosts(site: Site) -> None:
    lines = [say(name, f'anne@{host}', 'echo words; exec sleep 1000') for host in HOSTS for name in ('a', 'b')]
    site.write(*lines)
    argv = [sys.executable, '-m', 'remote_runner', *map(str, site.arguments())]
    variables = [f'{name}={value}' for name, value in environment(site.home).items()]
    line = f'{shlex.join(argv)}; echo "status $?"; cat'
    terminal = Terminal(site.folder, ['env', '-i', *variables, 'sh', '-c', line])
    try:
        shown = terminal.wait_for('sudo password')
        assert 'anne@h' in shown
        terminal.press('-l', PASSWORD)
        terminal.press('Enter')
        shown = terminal.wait_for('status')
    finally:
        terminal.close()
    assert 'status 0' in shown
    assert shown.count('password') <= 1
    assert PASSWORD not in shown
    for host in HOSTS:
        for name in ('a', 'b'):
            prints(site, name, 'words', host, 'anne')
        assert attempts(site.bed[host]) == 0


def test_the_password_is_nowhere_to_be_found(site: Site) -> None:
    site.write(
        say('x', 'anne@h1', 'env; cat /proc/self/cmdline; read line; echo "$line"; exec sleep 1000'),
        say('y', 'anne@h2', 'exit 3', start_index=1, start_grace=1),
    )
    variables = password_file(site)
    with Watcher(PASSWORD, site.session) as watcher:
        done = site.deploy('-l', 'DEBUG', variables=variables, status=1)
        plain = site.run(*site.arguments(), variables=variables, status=1)
    assert watcher.where(PASSWORD) == []
    assert any(file == 'cmdline' and 'SCREEN' in text for _, file, text in watcher.where(site.session))
    for text in (done.stdout, done.stderr, plain.stdout, plain.stderr):
        assert PASSWORD not in text
    for host in site.bed.hosts:
        places = ['/root', '/home', '/tmp', '/run', '/var/log']
        assert host.run(['grep', '-rlF', PASSWORD, *places], check=False).stdout == b''
    here = [path for path in site.home.rglob('*') if path.is_file()]
    assert here
    assert [path for path in here if PASSWORD.encode() in path.read_bytes()] == []
    assert 'sim' in prints(site, 'x', 'LOGNAME', user='anne')


def test_a_program_never_gets_the_password(site: Site) -> None:
    """Where sudo asks for none, none is sent: its stdin is the program's way to us."""
    site.write(say('x', 'free@h1', 'exec sleep 1000'), say('y', 'anne@h2', 'exec sleep 1000'))
    done = site.deploy(variables=password_file(site))
    assert len(done.events('component_started')) == 2
    for host, user in (('h1', 'free'), ('h2', 'anne')):
        pids = site.bed[host].run(['pgrep', '-u', 'sim']).stdout.decode().split()
        memory = ' '.join(f'/proc/{pid}/environ /proc/{pid}/cmdline' for pid in pids)
        assert PASSWORD.encode() not in site.bed[host].run(['sh', '-c', f'cat {memory}']).stdout
        assert status(site, 'x' if user == 'free' else 'y', host, user)['state'] == 'started'


def test_a_wrong_password_is_tried_once_on_each_host(site: Site) -> None:
    lines = [say(name, f'anne@{host}', 'exec sleep 1000') for host in HOSTS for name in ('a', 'b')]
    site.write(*lines, say('root', 'anne@h1', 'exec sleep 1000', user='root'))
    done = site.deploy(variables=password_file(site, 'wrong one'), status=1)
    for host in HOSTS:
        assert attempts(site.bed[host]) == 1
        for name in ('a', 'b'):
            reason = done.event('component_failed', host=f'anne@{host}', component=name)['reason']
            assert 'anne cannot become sim' in reason or ('anne cannot become root' in reason and host == 'h1')
            assert 'tried once' in reason
        assert site.deployment.own_sessions(host, 'anne') == []
    assert 'wrong one' not in done.stdout + done.stderr
    assert done.events('component_started') == []


def test_a_connection_that_breaks_between_two_indexes(site: Site) -> None:
    """The agent that knew the password is gone; the next one is told it again."""
    first = say('a', 'anne@h2', 'exec sleep 1000', ready=0).replace("'ready': 0", "'ready': ready.file('/tmp/go-on')")
    site.write(first, say('b', 'anne@h2', 'exec sleep 1000', start_index=1))
    host = site.bed['h2']
    host.run(['rm', '-f', '/tmp/go-on'])
    with site.begin(variables=password_file(site)) as running:
        wait_until(lambda: b'component_started' in running.out, 'its first component')
        kill(host, signal.SIGKILL, *[process.pid for process in connections(host)])
        host.run(['touch', '/tmp/go-on'])
        done = running.end()
    assert done.status == 0, done
    assert {event['component'] for event in done.events('component_started')} == {'a', 'b'}
    assert attempts(host) == 0


def test_it_is_masked_where_arguments_hold_it(site: Site) -> None:
    site.write(component('x', 'anne@h1', '/bin/sh', ['-c', 'exit 3', PASSWORD], user='sim', start_grace=1))
    done = site.deploy(variables=password_file(site), status=1)
    assert PASSWORD not in done.stdout + done.stderr
    assert [path for path in site.home.rglob('*.json*') if PASSWORD in path.read_text()] == []


def test_a_password_that_only_one_reader_gets(site: Site) -> None:
    """`RR_SUDO_PASS_FILE=<(pass show ...)`: a pipe can be read once."""
    site.write(say('x', 'anne@h1', 'exec sleep 1000'))
    read, write = os.pipe()
    os.write(write, f'{PASSWORD}\n'.encode())
    os.close(write)
    done = site.deploy(variables={'RR_SUDO_PASS_FILE': f'/dev/fd/{read}'}, pass_fds=[read])
    os.close(read)
    assert done.event('component_started')


def test_nothing_is_replaced_by_what_cannot_run(site: Site) -> None:
    site.write(component('x', 'anne@h1'))
    pid = site.deploy().event('component_started')['pid']
    site.write(say('x', 'anne@h1', 'exec sleep 1000'))
    reason = site.deploy(status=1).event('component_failed')['reason']
    assert 'RR_SUDO_PASS_FILE' in reason
    assert is_alive(site.bed['h1'], pid)
    assert attempts(site.bed['h1']) == 0


def test_restart_asks_where_sudo_does(site: Site) -> None:
    site.write(say('x', 'anne@h1', 'echo words; exec sleep 1000'))
    site.deploy(variables=password_file(site))
    pid = status(site, 'x', user='anne')['pid']
    refused = later(site, 'restart', 'x', code=1)
    assert 'RR_SUDO_PASS_FILE' in refused.stderr
    wrong = later(site, 'restart', 'x', code=1, variables=password_file(site, 'wrong one'))
    assert 'tried once' in wrong.stderr
    assert attempts(site.bed['h1']) == 1
    assert is_alive(site.bed['h1'], pid)  # it is not ended before it is known that it can be started
    later(site, 'restart', 'x', variables=password_file(site))
    assert status(site, 'x', user='anne')['pid'] != pid
    later(site, 'signal', 'CONT', 'x')
    later(site, 'stop')
    assert not sim_runs(site.bed['h1'])


def test_what_has_ended_is_run_again(site: Site) -> None:
    site.write(say('x', 'anne@h1', 'echo life; exec sleep 1000'))
    site.deploy(variables=password_file(site))
    later(site, 'stop', 'x')
    assert 'RR_SUDO_PASS_FILE' in later(site, 'run', 'x', code=1).stderr
    later(site, 'run', 'x', variables=password_file(site))
    assert is_alive(site.bed['h1'], status(site, 'x', user='anne')['pid'])


def test_what_has_not_changed_runs_on(site: Site) -> None:
    site.write(say('x', 'free@h1', 'exec sleep 1000'))
    pid = site.deploy().event('component_started')['pid']
    assert site.deploy('--keep-running').events('component_started') == []
    assert is_alive(site.bed['h1'], pid)
    site.write(say('x', 'free@h1', 'exec sleep 1000', user='root'))
    again = site.deploy('--keep-running').event('component_started')['pid']
    assert os.stat(site.bed['h1'].root / 'proc' / str(again)).st_uid == 0
    assert not is_alive(site.bed['h1'], pid)


def test_by_hand_the_person_at_the_window_is_asked(site: Site) -> None:
    site.write(say('x', 'anne@h1', 'date +%s%N >>~/lives; wc -l <~/lives; echo "life over"'))
    host = site.bed['h1']
    host.run(['rm', '-f', '/home/sim/lives'])
    site.deploy(variables=password_file(site))
    prints(site, 'x', 'life over', user='anne')
    with attached(site.bed, 'anne@h1', site.session, site.folder) as terminal:
        terminal.wait_for('ended')
        its = status(site, 'x', user='anne')['launcher']
        wait_until(lambda: not is_alive(host, its), 'the end of its launcher')
        terminal.press('r')
        terminal.wait_for('password of anne')
        terminal.press('-l', PASSWORD)
        terminal.press('Enter')
        wait_until(lambda: len(site.bed['h1'].path('/home/sim/lives').read_text().split()) == 2, 'a second life')
        assert PASSWORD not in terminal.wait_for('ended')
    assert attempts(site.bed['h1']) == 0


# ---- what stands in the way ----------------------------------------------------------------------------------------


def why_not(site: Site, host: str, user: str = 'sim', **more: Any) -> str:
    site.write(say('x', host, 'exec sleep 1000', user=user))
    reason = site.deploy(status=1, **more).event('component_failed')['reason']
    assert isinstance(reason, str)
    return reason


def test_reasons(site: Site) -> None:
    given = {'variables': password_file(site)}
    assert 'there is no user nix' in why_not(site, 'free@h1', 'nix')
    assert 'other is not in the sudoers file' in why_not(site, 'other@h1', **given)
    assert 'free is not allowed' in why_not(site, 'free@h1', 'anne', **given)
    site.bed['h1'].hide('sudo')
    try:
        assert 'sudo is not installed' in why_not(site, 'free@h1')
    finally:
        site.bed['h1'].unhide('sudo')


def test_a_folder_that_is_not_for_them(site: Site) -> None:
    site.write(say('x', 'free@h1', 'exec sleep 1000', base_dir='~/private'))
    site.bed['h1'].run(['chmod', '700', '/home/free'])
    reason = site.deploy(status=1).event('component_failed')['reason']
    assert '/home/free/private as sim' in reason


@pytest.mark.parametrize('setting', ['requiretty', '!use_pty', 'use_pty', '!env_reset', 'log_output'])
def test_however_sudo_is_set(site: Site, setting: str) -> None:
    site.bed['h3'].run(['tee', '/etc/sudoers.d/zz'], input=f'Defaults {setting}\n'.encode())
    try:
        site.write(
            say('x', 'free@h3', 'echo words; exec sleep 1000'), say('y', 'anne@h3', 'echo words; exec sleep 1000')
        )
        site.deploy(variables=password_file(site))
        prints(site, 'x', 'words', 'h3')
        prints(site, 'y', 'words', 'h3', 'anne')
        later(site, 'stop')
        assert not sim_runs(site.bed['h3'])
    finally:
        site.bed['h3'].run(['rm', '/etc/sudoers.d/zz'])


def test_where_sudo_logs_what_is_typed(site: Site) -> None:
    site.bed['h3'].run(['tee', '/etc/sudoers.d/zz'], input=b'Defaults log_input\n')
    try:
        assert 'log_input' in why_not(site, 'free@h3')
    finally:
        site.bed['h3'].run(['rm', '/etc/sudoers.d/zz'])


def test_on_this_machine(site: Site) -> None:
    site.write(say('x', 'localhost', 'id -un; pwd; exec sleep 1000', user='nobody', base_dir='/'))
    done = site.deploy()
    pid = done.event('component_started')['pid']
    assert Path(f'/proc/{pid}').stat().st_uid == 65534
    later(site, 'stop')
    assert not Path(f'/proc/{pid}').exists()


def test_the_config_is_checked(site: Site) -> None:
    site.write(*[component(f'x{number}', 'h1', user=user) for number, user in enumerate(['', '-x', 'a:b', 7, '#0'])])
    done = site.deploy(status=2)
    assert done.stderr.count('user') >= 5
