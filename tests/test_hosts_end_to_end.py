"""RR12, LB4: deploying to hosts as they are found: users, keys, passwords, jump hosts, host keys, shells, packages."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Done, Site, component, eventually_exists, ssh_config
from tests.ssh_tools import make_key
from tests.testbed import Testbed, TestHost
from tests.testbed.process import wait_until

PASSWORD = 'correct horse'
KEY_PASSWORD = 'battery staple'


@pytest.fixture(scope='module')
def own() -> Iterator[Testbed]:
    """Hosts that may be changed: with users, of whom `typist` has a password, and nobody may log in with both."""
    with Testbed(count=3) as bed:
        for name in ('anne', 'bert', 'carl', 'keys'):
            bed['h1'].add_user(name)
        for host in bed.hosts:
            home = host.path(host.add_user('typist', password=PASSWORD))
            (home / '.ssh/authorized_keys').unlink()
        yield bed


@pytest.fixture
def site(own: Testbed, tmp_path: Path) -> Iterator[Site]:
    with Site(own, tmp_path) as site:
        yield site


def say(site: Site, text: str) -> None:
    """Let the ssh_config say this first."""
    site.ssh_config = ssh_config(site.folder, site.bed, text)


def users(site: Site, done: Done) -> dict[str, str]:
    """Who runs the components, by component."""
    found = {}
    for event in done.events('component_started'):
        host = site.bed[event['host'].rpartition('@')[2].partition(':')[0]]
        uid = os.stat(host.root / 'proc' / str(event['pid'])).st_uid
        [name] = re.findall(rf'^([^:]+):[^:]*:{uid}:', host.path('/etc/passwd').read_text(), re.MULTILINE)
        found[event['component']] = name
    return found


def the_error(done: Done) -> str:
    """The only error of one host."""
    lines = [line for line in done.stderr.splitlines() if re.match(r'ERROR: (\S+@)?h[123]', line)]
    assert len(lines) == 1, done
    assert 'Traceback' not in done.stderr
    return lines[0]


class TestUsers:
    def test_the_one_that_counts_most(self, site: Site) -> None:
        say(site, 'Host h1\n  User carl\n')
        site.write(component('named', 'anne@h1'), component('plain', 'h1'))
        assert users(site, site.deploy()) == {'named': 'anne', 'plain': 'carl'}
        assert users(site, site.deploy('-u', 'bert')) == {'named': 'anne', 'plain': 'bert'}

    def test_unknown(self, site: Site) -> None:
        site.write(component('x', 'nobody-there@h1'))
        assert 'nobody-there' in the_error(site.deploy(status=3))


class TestPasswords:
    @pytest.fixture(autouse=True)
    def _no_keys(self, site: Site) -> None:
        say(site, 'Host *\n  IdentityFile none\n  User typist\n')
        site.write(*[component('x', f'h{number}', start_index=number) for number in (1, 2, 3)])

    def file(self, site: Site, text: str) -> dict[str, str]:
        return {'RR_PASS_FILE': str(site.file('password', f'{text}\n', 0o600))}

    def test_given_in_either_way(self, site: Site) -> None:
        assert users(site, site.deploy('--pass', PASSWORD)) == {'x': 'typist'}
        assert users(site, site.deploy(variables=self.file(site, PASSWORD))) == {'x': 'typist'}
        assert len(site.deploy('-p', PASSWORD, variables=self.file(site, 'wrong')).events('component_started')) == 3

    def test_wrong(self, site: Site) -> None:
        done = site.deploy(status=3, variables=self.file(site, 'not the one'))
        for number in (1, 2, 3):
            [line] = [line for line in done.stderr.splitlines() if f'h{number}: ' in line]
            assert 'typist' in line
            assert 'password' in line
        assert 'not the one' not in done.stdout + done.stderr

    def test_none(self, site: Site) -> None:
        site.write(component('x', 'h1'))
        assert '--pass' in the_error(site.deploy(status=3))


class TestEncryptedKeys:
    def prepare(self, site: Site, *kind: str) -> Path:
        """Let `keys` log in on h1 with a new key, and no other."""
        key = make_key(site.folder / 'key', *kind, password=KEY_PASSWORD)
        site.bed['h1'].path('/home/keys/.ssh/authorized_keys').write_text(key.with_name('key.pub').read_text())
        login = f'  User keys\n  IdentityFile {key}\n  IdentitiesOnly yes\n'
        address = f'  HostName {site.bed["h1"].address}\n  UserKnownHostsFile {site.bed.known_hosts}\n'
        site.ssh_config = site.file('ssh_config', f'Host h1\n{address}{login}')
        site.write(component('x', 'h1'))
        return key

    @pytest.mark.parametrize('kind', ['ed25519', 'ecdsa', 'rsa'])
    def test_unlocked_by_the_password_file(self, site: Site, kind: str) -> None:
        self.prepare(site, '-t', kind)
        password = site.file('password', f'{KEY_PASSWORD}\n', 0o600)
        assert users(site, site.deploy(variables={'RR_PASS_FILE': str(password)})) == {'x': 'keys'}

    def test_unlocked_by_the_option(self, site: Site) -> None:
        key = self.prepare(site, '-t', 'ed25519')
        assert users(site, site.deploy('--pass', KEY_PASSWORD)) == {'x': 'keys'}
        error = the_error(site.deploy(status=3))
        assert str(key) in error
        assert 'encrypted' in error
        error = the_error(site.deploy('--pass', 'the wrong one', status=3))
        assert str(key) in error
        assert 'the wrong one' not in error


def test_two_jump_hosts(site: Site) -> None:
    say(site, 'Host h3\n  ProxyJump h2\nHost h2\n  ProxyJump h1\n')
    site.file('program', '#!/bin/sh\necho "$SSH_CONNECTION" >from; exec sleep 100000\n', 0o755)
    base = f'/tmp/base-{site.session}'
    site.write(
        *[
            component('x', f'h{number}', 'program', files={'program': 'program'}, base_dir=base, start_index=3 - number)
            for number in (1, 2, 3)
        ]
    )
    done = site.deploy()
    assert [event['host'] for event in done.events('component_started')] == ['h3', 'h2', 'h1']
    for number in (2, 3):
        seen = eventually_exists(site.bed[f'h{number}'].path(f'{base}/from')).read_text()
        assert seen.split()[0] == site.bed[f'h{number - 1}'].address
    done = site.deploy()
    assert [event['to_send'] for event in done.events('files_compared')] == [0, 0, 0]


def test_a_jump_host_that_is_out_of_reach(site: Site) -> None:
    gate = 'Host gate\n  HostName 127.0.0.1\n  Port 9\n'
    say(site, f'{gate}Host h3\n  ProxyJump gate\n')
    site.write(component('x', 'h3'), component('y', 'h1'))
    done = site.deploy(status=3)
    error = the_error(done)
    assert 'h3' in error
    assert 'gate' in error
    assert not done.events('component_starting')


class TestHostKeys:
    @pytest.fixture
    def known(self, site: Site) -> Path:
        """An empty known_hosts."""
        known = site.file('known_hosts', '')
        say(site, f'Host *\n  UserKnownHostsFile {known}\n')
        site.write(component('x', 'h1'), component('x', 'h2'))
        return known

    def fingerprint(self, host: TestHost, known: Path | None = None) -> str:
        """As ssh-keygen shows it of the bed's own known_hosts, or another."""
        argv = ['ssh-keygen', '-lF', host.address, '-f', str(known or host.machine.directory.parent / 'known_hosts')]
        shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        [found] = re.findall(r'SHA256:\S+', shown)
        return str(found)

    def test_unknown(self, site: Site, known: Path) -> None:
        done = site.deploy(status=3)
        for name in ('h1', 'h2'):
            [line] = [line for line in done.stderr.splitlines() if line.startswith(f'ERROR: {name}: ')]
            assert self.fingerprint(site.bed[name]) in line
        assert 'hosts trust' in done.stderr
        assert known.read_text() == ''
        assert not done.events('component_starting')

    def test_accepted_and_then_held_to(self, site: Site, known: Path, own: Testbed) -> None:
        known.write_text('# mine\n')
        done = site.deploy('--accept-new-host-keys')
        assert len(done.events('component_started')) == 2
        text = known.read_text()
        assert text.startswith('# mine\n')
        for name in ('h1', 'h2'):
            assert self.fingerprint(own[name], known) == self.fingerprint(own[name])
        site.deploy()
        other = make_key(site.folder / 'other', '-t', 'ed25519').with_name('other.pub').read_text()
        address = re.escape(own['h1'].address)
        changed = re.sub(rf'^(\S*{address}) \S+ \S+', lambda line: f'{line[1]} {other.strip()}', text, flags=re.M)
        assert changed != text
        known.write_text(changed)
        for arguments in ([], ['--accept-new-host-keys']):
            done = site.deploy(*arguments, status=3)
            error = the_error(done)
            assert 'h1' in error
            assert self.fingerprint(own['h1']) in error
            assert str(known) in error
            assert not done.events('session_quit')
            assert known.read_text() == changed

    def test_reviewed(self, site: Site, known: Path) -> None:
        done = site.run('hosts', 'trust', '-F', site.ssh_config, 'h[1-2]', status=2)
        assert 'Traceback' not in done.stderr
        assert known.read_text() == ''
        done = site.run('hosts', 'trust', '-F', site.ssh_config, 'h[1-2]', '--yes')
        for name in ('h1', 'h2'):
            [line] = [line for line in done.stdout.splitlines() if re.match(rf'{name}\b', line)]
            assert self.fingerprint(site.bed[name]) in line
        assert len(site.deploy().events('component_started')) == 2

    def trust(self, site: Site, *arguments: str, status: int) -> dict[str, dict[str, Any]]:
        """What `hosts trust --json` says of each host."""
        done = site.run('hosts', 'trust', '-F', site.ssh_config, '--json', *arguments, status=status)
        return {shown.pop('host'): shown for shown in done.objects}

    def test_reviewed_as_json(self, site: Site, known: Path) -> None:
        new = {
            name: {
                'hostname': site.bed[name].address,
                'port': 22,
                'type': 'ssh-ed25519',
                'fingerprint': self.fingerprint(site.bed[name]),
                'verdict': 'new',
                'added': False,
                'file': None,
            }
            for name in ('h1', 'h2')
        }
        assert self.trust(site, 'h[1-2]', status=2) == new  # nobody is there who could confirm it
        assert known.read_text() == ''
        shown = self.trust(site, 'h1', 'dead', '--yes', status=3)
        assert shown['h1'] == {**new['h1'], 'added': True, 'file': str(known)}
        assert set(shown['dead']) == {'error'}
        assert self.trust(site, 'h[1-2]', '--yes', status=0) == {
            'h1': {**new['h1'], 'verdict': 'known'},
            'h2': {**new['h2'], 'added': True, 'file': str(known)},
        }
        assert len(known.read_text().splitlines()) == 2

    @pytest.mark.parametrize(('answer', 'status'), [('no', 1), ('yes', 0)])
    def test_who_is_asked_sees_the_keys_apart_from_the_json(
        self, site: Site, known: Path, answer: str, status: int
    ) -> None:
        master, slave = os.openpty()
        os.write(master, f'{answer}\n'.encode())
        done = site.run('hosts', 'trust', '-F', site.ssh_config, '--json', 'h1', stdin=slave, status=status)
        os.close(master)
        os.close(slave)
        [shown] = done.objects
        assert shown['added'] == (answer == 'yes')
        assert shown['fingerprint'] in done.stderr
        assert bool(known.read_text()) == shown['added']

    def test_behind_a_jump_host_as_json(self, site: Site, known: Path) -> None:
        say(site, f'Host h2\n  ProxyJump h1\nHost *\n  UserKnownHostsFile {known}\n')
        shown = self.trust(site, 'h2', status=2)
        assert shown['h1']['verdict'] == 'new'
        assert 'jump host' in shown['h2']['error']
        shown = self.trust(site, 'h2', '--yes', status=0)
        assert {name: (each['verdict'], each['added']) for name, each in shown.items()} == {
            'h1': ('new', True),
            'h2': ('new', True),
        }


# Login shells and their start-up files, which print, ask, and have what a stricter shell would stumble over.
NOISE = 'echo welcome; echo 12345; echo to stderr >&2\n'
SHELLS = {
    'bash': ('.bashrc', f'{NOISE}alias python3=false exec=echo sh=false; set -u\n'),
    'csh': ('.cshrc', 'echo welcome; echo 12345; sh -c "echo to stderr >&2"; alias exec echo; set noclobber\n'),
    'tcsh': ('.tcshrc', 'echo welcome; alias sh false; set histchars\n'),
    'fish': ('.config/fish/config.fish', f'{NOISE}function sh; false; end\n'),
    'zsh': ('.zshenv', f'{NOISE}setopt nomatch; PS1=; alias -g sh=false\n'),
    'ksh': ('.kshrc', NOISE),
    'mksh': ('.mkshrc', NOISE),
    'sh': ('.profile', NOISE),
}


class TestShells:
    def test_all(self, site: Site, own: Testbed) -> None:
        """Every shell makes noise of its own, and still: files, arguments and environment arrive."""
        for shell, (file, text) in SHELLS.items():
            home = own['h2'].add_user(f'u-{shell}', f'/bin/{shell}')
            path = own['h2'].path(f'{home}/{file}')
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            own['h2'].run(['chown', '-R', f'u-{shell}', home])
        site.file('program', '#!/bin/sh\nprintf "%s|" "$SHELL" "$@" >out.new; mv out.new out; exec sleep 1000\n', 0o755)
        args = ['a b', '$HOME', "it's", '*', '', 'x\ny', '!1', '~', '`id`', 'ü']
        site.write(
            *[
                component(shell, f'u-{shell}@h2', 'program', args, base_dir='work dir', files={'program': 'program'})
                for shell in SHELLS
            ]
        )
        done = site.deploy()
        assert users(site, done) == {shell: f'u-{shell}' for shell in SHELLS}
        for shell in SHELLS:
            out = eventually_exists(own['h2'].path(f'/home/u-{shell}/work dir/out'))
            assert out.read_text() == '|'.join([f'/bin/{shell}', *args, ''])

    def test_one_that_goes_elsewhere_is_quoted(self, site: Site, own: Testbed) -> None:
        home = own['h2'].path(own['h2'].add_user('lost'))
        (home / '.bashrc').write_text('echo this account is closed; exit 1\n')
        site.write(component('x', 'lost@h2'))
        done = site.deploy(status=3)
        assert 'lost@h2' in the_error(done)
        assert 'this account is closed' in done.stderr
        assert 'Traceback' not in done.stderr


class TestMissingPackages:
    @pytest.mark.parametrize('program', ['python3', 'screen'])
    def test_are_named(self, site: Site, own: Testbed, program: str) -> None:
        site.write(component('x', 'h1'), component('x', 'h3'))
        site.deploy()
        own['h3'].hide(program)
        try:
            done = site.deploy(status=3)
            error = the_error(done)
            assert error.startswith('ERROR: h3: ')
            assert program in error
            assert 'install' in error
            assert not done.events('session_quit')
            done = site.deploy('--skip-unreachable')
            assert [event['host'] for event in done.events('component_started')] == ['h1']
        finally:
            own['h3'].unhide(program)
        assert len(site.deploy().events('component_started')) == 2

    def test_exec_needs_no_screen(self, site: Site, own: Testbed) -> None:
        own['h3'].hide('screen')
        try:
            assert site.exec('h3', '--', 'hostname').stdout == 'h3: h3\n'
        finally:
            own['h3'].unhide('screen')


def test_the_connection_ends_with_the_command(site: Site) -> None:
    site.write(component('x', 'h1'), component('x', 'h2'))
    done = site.deploy()
    for event in done.events('component_started'):
        host = site.bed[event['host']]
        wait_until(
            lambda host=host: not any('sshd' in process.argv[0] for process in host.processes()),  # type: ignore[misc]
            'the connection is gone',
        )
        assert site.deployment.runs(event['pid'], host.name)
