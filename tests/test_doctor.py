"""`remote_runner doctor`: what is wrong on real hosts is found, said with a remedy, and nothing of it is left there."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_runner.deploy.findings import HostFacts, Level
from tests.commands import Commands, Done, alias_of, nothing_runs, ssh_config
from tests.deploying import agents
from tests.ssh_tools import make_key
from tests.testbed import Testbed, TestHost
from tests.testbed.process import wait_until

#: What depends on how busy this machine is.
TIMING = {'login'}
CHECKS = {
    'connection', 'host-key', 'authentication', 'python', 'screen', 'space', 'home', 'runtime', 'clock', 'sessions',
    'nofile', 'logout', 'login',
}  # fmt: skip


@pytest.fixture(scope='module')
def own() -> Iterator[Testbed]:
    """Hosts that may be changed, with the user `anne`."""
    with Testbed(count=3) as bed:
        for host in bed.hosts:
            host.add_user('anne')
        yield bed


@pytest.fixture
def commands(own: Testbed, tmp_path: Path) -> Iterator[Commands]:
    yield Commands(tmp_path / 'home', own.ssh_config)
    for host in own.hosts:
        nothing_runs(host)


def doctor(commands: Commands, *arguments: str, **options: Any) -> Done:
    return commands.run('doctor', '-F', commands.ssh_config, *arguments, **options)


def examine(commands: Commands, host: str, status: int = 0) -> dict[str, dict[str, str]]:
    """The findings that are not well, by check."""
    done = doctor(commands, host, '--json', status=status)
    assert done.stderr == ''
    [shown] = done.objects
    return {f['check']: f for f in shown['findings'] if f['level'] != 'ok' and f['check'] not in TIMING}


def files(host: TestHost) -> set[str]:
    """All that lies where remote_runner may write."""
    found = host.run(['find', '/root', '/home', '/tmp', '/run', '/var/tmp', '-not', '-type', 's']).stdout.decode()
    return {path for path in found.splitlines() if 'run/testbed' not in path}


class TestHealthy:
    def test_all_well_in_one_line(self, commands: Commands) -> None:
        done = doctor(commands, 'h[1-3]')
        headings = [line for line in done.stdout.splitlines() if not line.startswith(' ')]
        # A login shell that this machine was too busy for is a warning.
        one = r'h\S+: (all well|1 warning) \(python 3[.\d]+, screen [.\d]+, clock [+-]0\.\d\d s\)'
        assert all(re.fullmatch(one, heading) for heading in headings)
        assert 'error' not in done.stdout
        assert done.stderr == ''
        assert '\x1b' not in done.stdout

    def test_nothing_is_left(self, commands: Commands, own: Testbed) -> None:
        for name in ('root', 'anne'):
            commands.exec(f'{name}@h1', '--', 'screen -ls; true')  # stores the agent, and screen makes its folder
            before = files(own['h1'])
            assert any('remote_runner' in path for path in before)
            doctor(commands, f'{name}@h1')
            assert files(own['h1']) == before

    def test_verbose_tells_what_is_well(self, commands: Commands) -> None:
        lines = doctor(commands, 'h[1-2]', '--verbose').stdout.splitlines()
        assert {re.sub(r'^  \S+: ([\w-]+): .*', r'\1', line) for line in lines[1:]} >= CHECKS - TIMING
        assert '  ok: host-key: known' in lines

    def test_json(self, commands: Commands) -> None:
        done = doctor(commands, 'h2', 'h1,h3', '-x', 'h3', '--json')
        assert [shown['host'] for shown in done.objects] == ['h2', 'h1']
        for shown in done.objects:
            assert set(shown) == {'host', 'findings', 'facts'}
            assert {finding['check'] for finding in shown['findings']} - {'login-output'} == CHECKS
            for finding in shown['findings']:
                assert set(finding) == {'check', 'level', 'what', 'remedy'}
                assert finding['level'] in list(Level)
                assert bool(finding['remedy']) == (finding['level'] in ('warning', 'error'))
            facts = shown['facts']
            assert set(facts) == {field.name for field in dataclasses.fields(HostFacts)}
            assert [place['name'] for place in facts['places']] == ['home', 'state folder', '/tmp']
            assert facts['sessions'] == 10
            assert facts['screen']['status'] >= 9
            assert abs(facts['clock_offset']) < 2
            assert facts['runtime'] == '/tmp/remote_runner-0'

    def test_from_a_file(self, commands: Commands, tmp_path: Path) -> None:
        (tmp_path / 'hosts.txt').write_text('h1  # the first\nh2\n')
        done = doctor(commands, str(tmp_path / 'hosts.txt'), '--json')
        assert [shown['host'] for shown in done.objects] == ['h1', 'h2']

    def test_this_machine(self, commands: Commands) -> None:
        [shown] = doctor(commands, 'localhost', '--json', status=None).objects
        assert shown['facts']['sessions'] is None
        assert shown['facts']['home'] == str(commands.home)
        assert list(commands.home.glob('.remote_runner-*')) == []

    def test_another_name_of_a_machine_is_examined_once(self, own: Testbed, tmp_path: Path) -> None:
        commands = Commands(tmp_path, ssh_config(tmp_path, own, alias_of(own, 'h1', 'alias')))
        done = doctor(commands, 'h1,alias', '--json')
        assert len(done.objects) == 1
        assert 'is another name of' in done.stderr

    @pytest.mark.parametrize(
        ('variables', 'colored'), [({}, True), ({'NO_COLOR': '1'}, False), ({'TERM': 'dumb'}, False)]
    )
    def test_colours_on_a_terminal(self, commands: Commands, variables: dict[str, str], colored: bool) -> None:
        master, slave = os.openpty()
        try:
            doctor(commands, 'localhost', '--verbose', status=None, stdout=slave, variables=variables)
            assert (b'\x1b[32mok\x1b[0m' in os.read(master, 10_000)) == colored
        finally:
            os.close(master)
            os.close(slave)

    def test_no_host(self, commands: Commands) -> None:
        assert doctor(commands, 'h1', '-x', 'h1', status=2).stderr.startswith('ERROR: ')
        assert commands.run('doctor', status=2).stderr.startswith('ERROR: ')


class TestScreen:
    def test_it_is_not_there(self, commands: Commands, own: Testbed) -> None:
        own['h1'].hide('screen')
        try:
            found = examine(commands, 'h1', status=1)
            done = doctor(commands, 'h[1-2]', status=1)
        finally:
            own['h1'].unhide('screen')
        assert found == {'screen': found['screen']}
        assert found['screen']['level'] == 'error'
        assert 'install' in found['screen']['remedy']
        assert '  error: screen is not installed (install the package screen there)' in done.stdout.splitlines()
        assert [line.partition(':')[0] for line in done.stdout.splitlines() if line.startswith('h')] == ['h1', 'h2']

    @pytest.mark.parametrize(
        ('spoil', 'mend', 'remedy'),
        [
            ('chmod 755 /run/screen', 'chmod 1777 /run/screen', 'chmod 1777 /run/screen'),
            ('chmod 755 /run/screen/S-anne', 'chmod 700 /run/screen/S-anne', 'chmod 700 /run/screen/S-anne'),
            ('chown 1 /run/screen/S-anne', 'chown anne /run/screen/S-anne', 'remove it'),
            ('mv /run/screen /run/away', 'mv /run/away /run/screen', 'mkdir -m 1777 /run/screen'),
        ],
        ids=['mode', 'own mode', 'owner', 'missing'],
    )
    def test_its_socket_folder_is_not_as_it_wants_it(
        self, commands: Commands, own: Testbed, spoil: str, mend: str, remedy: str
    ) -> None:
        host = own['h1']
        host.run(['screen', '-ls'], user='anne', check=False)  # makes its folder
        host.run(['sh', '-c', spoil])
        try:
            found = examine(commands, 'anne@h1', status=1)
        finally:
            host.run(['sh', '-c', mend])
        assert '/run/screen' in found['screen']['what']  # screen's own words
        assert remedy in found['screen']['remedy']
        assert examine(commands, 'anne@h1') == {}

    def test_screendir(self, commands: Commands, own: Testbed) -> None:
        with text_in(own['h1'], '/home/anne/.bashrc', 'export SCREENDIR=/home/anne/sockets\n'):
            own['h1'].run(['mkdir', '-m', '755', '/home/anne/sockets'], user='anne')
            found = examine(commands, 'anne@h1', status=1)
            own['h1'].run(['chmod', '700', '/home/anne/sockets'])
            assert examine(commands, 'anne@h1') == {}
        assert found['screen']['remedy'] == 'chmod 700 /home/anne/sockets'

    def test_a_password_in_screenrc(self, commands: Commands, own: Testbed) -> None:
        with text_in(own['h1'], '/home/anne/.screenrc', 'vbell off\npassword x\n'):
            found = examine(commands, 'anne@h1', status=1)
        assert set(found) == {'screenrc'}
        assert found['screenrc']['level'] == 'error'
        assert found['screenrc']['remedy']


class text_in:  # noqa: N801 - used as a function
    """While this lasts, a file of a host has this text."""

    def __init__(self, host: TestHost, path: str, text: str) -> None:
        self._path = host.path(path)
        self._text = text

    def __enter__(self) -> None:
        self._before = self._path.read_text() if self._path.exists() else None
        self._path.write_text(self._text)

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            self._path.unlink()
        else:
            self._path.write_text(self._before)


class TestFileSystems:
    @pytest.fixture
    def small(self, own: Testbed) -> Iterator[TestHost]:
        """A host on which the home of `tiny` is a file system of 1 MB."""
        host = own['h3']
        host.run(['useradd', '--no-create-home', '--password=*', '--shell=/bin/bash', 'tiny'])
        host.tmpfs('/home/tiny', '1M')
        host.run(['cp', '-r', '/home/anne/.ssh', '/home/tiny/.ssh'])
        host.run(['sh', '-c', 'chmod 755 /home/tiny; chown -R tiny: /home/tiny'])
        yield host
        host.run(['rm', '-rf', f'/tmp/remote_runner-{host.account("tiny").uid}'])
        host.run(['umount', '--lazy', '/home/tiny'])
        host.run(['userdel', 'tiny'])

    def test_a_home_with_little_room(self, commands: Commands, small: TestHost) -> None:
        found = examine(commands, 'tiny@h3')
        assert set(found) == {'space'}
        assert found['space']['level'] == 'warning'
        assert '/home/tiny' in found['space']['what']

    def test_a_full_home(self, commands: Commands, small: TestHost) -> None:
        small.run(['sh', '-c', 'dd if=/dev/zero of=/home/tiny/full 2>/dev/null || true'])
        found = examine(commands, 'tiny@h3', status=1)
        assert {check: finding['level'] for check, finding in found.items()} == {'space': 'warning', 'home': 'error'}
        assert 'ENOSPC' in found['home']['what']
        assert list(small.path('/home/tiny').glob('.remote_runner-*')) == []

    def test_few_inodes(self, commands: Commands, small: TestHost) -> None:
        small.run(['mount', '-o', 'remount,size=200M,nr_inodes=1000', '/home/tiny'])
        small.run(['sh', '-c', 'mkdir /home/tiny/full; cd /home/tiny/full; touch $(seq 1000) 2>/dev/null; rm [1-8]'])
        found = examine(commands, 'tiny@h3')
        assert set(found) == {'inodes'}

    def test_a_home_that_cannot_be_written_to(self, commands: Commands, small: TestHost) -> None:
        small.run(['mount', '-o', 'remount,ro,size=200M', '/home/tiny'])
        found = examine(commands, 'tiny@h3')
        assert set(found) == {'home'}
        assert 'EROFS' in found['home']['what']

    def test_noexec(self, commands: Commands, small: TestHost) -> None:
        small.run(['mount', '-o', 'remount,noexec,size=200M', '/home/tiny'])
        small.run(['mount', '-o', 'remount,bind,noexec', '/tmp'])
        try:
            done = doctor(commands, 'tiny@h3', '--json')
        finally:
            small.run(['mount', '-o', 'remount,bind,exec', '/tmp'])
        [shown] = done.objects
        found = [finding for finding in shown['findings'] if finding['check'] == 'noexec']
        assert [finding['what'].split()[0] for finding in found] == ['home', '/tmp']
        assert {finding['level'] for finding in found} == {'warning'}

    def test_the_runtime_folder_is_another_users(self, commands: Commands, own: Testbed) -> None:
        host = own['h1']
        uid = host.account('anne').uid
        folder = host.path(f'/tmp/remote_runner-{uid}')
        host.run(['rm', '-rf', f'/tmp/remote_runner-{uid}'])
        assert examine(commands, 'anne@h1') == {}
        assert not folder.exists()  # it was only tried
        folder.mkdir()
        try:
            found = examine(commands, 'anne@h1', status=1)
        finally:
            folder.rmdir()
        assert set(found) == {'runtime'}
        assert found['runtime']['level'] == 'error'
        assert f'/tmp/remote_runner-{uid}' in found['runtime']['what']
        assert found['runtime']['remedy']


class TestSettings:
    def test_processes_are_killed_at_logout(self, commands: Commands, own: Testbed) -> None:
        with text_in(own['h1'], '/etc/systemd/logind.conf', '[Login]\n#KillUserProcesses=no\nKillUserProcesses=yes\n'):
            found = examine(commands, 'anne@h1')
            assert set(found) == {'logout'}
            assert found['logout']['level'] == 'warning'
            assert '/etc/systemd/logind.conf' in found['logout']['what']
            assert 'anne' in found['logout']['remedy']
            assert examine(commands, 'root@h1') == {}  # excluded unless something else is said

            own['h1'].run(['mkdir', '/etc/systemd/logind.conf.d'])
            text = '[Other]\nx=y\n[Login]\nKillUserProcesses = 0\n'
            with text_in(own['h1'], '/etc/systemd/logind.conf.d/9.conf', text):
                assert examine(commands, 'anne@h1') == {}
                with text_in(own['h1'], '/etc/systemd/logind.conf.d/99.conf', '[Login]\nKillOnlyUsers=bert anne\n'):
                    assert set(examine(commands, 'anne@h1')) == {'logout'}
            own['h1'].run(['rmdir', '/etc/systemd/logind.conf.d'])
        assert examine(commands, 'anne@h1') == {}

    def test_few_open_files(self, commands: Commands, own: Testbed) -> None:
        with text_in(own['h1'], '/home/anne/.bashrc', 'ulimit -S -n 300\n'):
            found = examine(commands, 'anne@h1')
        assert set(found) == {'nofile'}
        assert found['nofile']['level'] == 'warning'
        assert '300' in found['nofile']['what']

    @pytest.mark.parametrize(('most', 'warned'), [(1, True), (2, True), (3, False)])
    def test_sessions_of_sshd(self, commands: Commands, own: Testbed, most: int, warned: bool) -> None:
        own['h2'].stop_sshd()
        own['h2'].start_sshd({'MaxSessions': most})
        try:
            [shown] = doctor(commands, 'h2', '--json').objects
        finally:
            own['h2'].stop_sshd()
            own['h2'].start_sshd()
        assert shown['facts']['sessions'] == most
        [found] = [finding for finding in shown['findings'] if finding['check'] == 'sessions']
        assert (found['level'] == 'warning') == warned

    def test_start_up_files_that_print_and_are_slow(self, commands: Commands, own: Testbed) -> None:
        script = 'echo "welcome to h1"; echo oops >&2; sleep 1.2\n'
        with text_in(own['h1'], '/home/anne/.bashrc', script):
            [shown] = doctor(commands, 'anne@h1', '--json').objects
            done = doctor(commands, 'anne@h1')
        found = {finding['check']: finding for finding in shown['findings']}
        assert found['login']['level'] == 'warning'
        assert found['login-output']['level'] == 'info'
        assert 'welcome to h1' in found['login-output']['what']
        assert shown['facts']['start_seconds'] > 1.2
        assert 'oops' in shown['facts']['printed']
        assert 'welcome to h1' in done.stdout


class TestSharedHome:
    def test_is_named_and_left_clean(self, commands: Commands, own: Testbed, tmp_path: Path) -> None:
        shared = tmp_path / 'shared'
        shared.mkdir()
        shared.chmod(0o755)
        for name in ('h1', 'h2'):
            host = own[name]
            host.run(['useradd', '--no-create-home', '--password=*', '--uid=2000', '--shell=/bin/bash', 'nomad'])
            host.share('/home/nomad', shared)
        own['h1'].run(['cp', '-r', '/home/anne/.ssh', '/home/nomad/.ssh'])
        own['h1'].run(['chown', '-R', 'nomad:', '/home/nomad'])
        doctor(commands, 'nomad@h[1-2]')
        before = set(shared.rglob('*'))
        done = doctor(commands, 'nomad@h[1-2],anne@h3', '--json')
        found = {
            shown['host']: [finding['what'] for finding in shown['findings'] if finding['check'] == 'shared-home']
            for shown in done.objects
        }
        what = 'nomad@h[1-2] see the same home'
        assert found == {'nomad@h1': [what], 'nomad@h2': [what], 'anne@h3': []}
        assert set(shared.rglob('*')) == before
        assert f'  info: {what}' in doctor(commands, 'nomad@h[1-2]').stdout.splitlines()


class TestInterrupted:
    def test_nothing_is_left(self, commands: Commands, own: Testbed) -> None:
        """While one host hangs, what the other has is still there; it goes with the command."""
        marks = own['h1'].path('/home/anne')
        own['h2'].run(['mkfifo', '/home/anne/.screenrc'])  # whoever reads it waits
        rc = own['h2'].path('/home/anne/.screenrc')
        try:
            with commands.start('doctor', '-F', commands.ssh_config, 'anne@h[1-2]') as command:
                wait_until(lambda: len(list(marks.glob('.remote_runner-*'))) == 1, 'the mark')
                command.signal(signal.SIGKILL)
                command.end()
            wait_until(lambda: list(marks.glob('.remote_runner-*')) == [], 'the mark to be removed')
        finally:
            # It may not have come so far.
            wait_until(lambda: wakes(rc) or not agents(own['h2']), 'the other host to read on')
            rc.unlink()
        wait_until(lambda: list(rc.parent.glob('.remote_runner-*')) == [], 'the other mark to be removed')


def wakes(fifo: Path) -> bool:
    """Whether somebody reads this; they come to its end."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False
    return True


class TestOutOfReach:
    def test_unreachable(self, own: Testbed, tmp_path: Path) -> None:
        commands = Commands(tmp_path, ssh_config(tmp_path, own, 'Host dead\n  HostName 127.0.0.1\n  Port 9\n'))
        done = doctor(commands, 'dead,h1', '--json', status=3)
        dead, well = done.objects
        [finding] = dead['findings']
        assert (dead['host'], finding['check'], finding['level'], dead['facts']) == ('dead', 'connection', 'error', {})
        assert len(well['findings']) >= len(CHECKS)
        lines = doctor(commands, 'dead,h1', status=3).stdout.splitlines()
        assert lines[0] == 'dead: 1 error'
        assert lines[1].startswith('  error: ')

    def test_a_changed_key(self, commands: Commands, own: Testbed, tmp_path: Path) -> None:
        known = tmp_path / 'known_hosts'
        other = make_key(tmp_path / 'other').with_suffix('.pub').read_text()
        known.write_text(f'{own["h1"].address} {other}\n')
        commands.ssh_config = ssh_config(tmp_path, own, f'Host h1\n  UserKnownHostsFile {known}\n')
        found = examine(commands, 'h1', status=3)
        assert set(found) == {'host-key'}
        assert 'ssh-keygen' in found['host-key']['remedy']
        known.write_text('')
        found = examine(commands, 'h1', status=3)
        assert set(found) == {'host-key'}
        assert 'hosts trust' in found['host-key']['remedy']

    def test_nobody_is_let_in(self, commands: Commands) -> None:
        assert set(examine(commands, 'stranger@h1', status=3)) == {'authentication'}

    def test_no_python(self, commands: Commands, own: Testbed) -> None:
        own['h2'].hide('python3')
        try:
            found = examine(commands, 'h2', status=1)
        finally:
            own['h2'].unhide('python3')
        assert set(found) == {'python'}
        assert 'install' in found['python']['remedy']

    def test_a_login_that_leads_elsewhere_is_quoted(self, commands: Commands, own: Testbed) -> None:
        with text_in(own['h1'], '/home/anne/.bashrc', 'echo this account is closed; exit 1\n'):
            done = doctor(commands, 'anne@h1', status=1)
        assert '      | this account is closed' in done.stdout.splitlines()
