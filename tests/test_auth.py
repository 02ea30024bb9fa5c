"""Logging in on real sshd with everything that RR12 names, and what is said when it does not work."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa

from remote_runner.errors import AuthenticationFailed, HostUnreachable, UsageError
from remote_runner.hosts import ssh
from remote_runner.hosts.address import parse_address
from remote_runner.hosts.ahead import Ahead, Begun
from remote_runner.hosts.credentials import Credentials
from remote_runner.hosts.keys import KeyFile
from remote_runner.hosts.ssh import Connector, SshConnection
from remote_runner.hosts.ssh_config import SshOptions
from tests.ssh_tools import PATIENCE, make_key, server, ssh_agent
from tests.testbed import Testbed, TestHost
from tests.testbed.process import wait_until

PASSWORD = 'correct horse'


@pytest.fixture(scope='module')
def own_bed() -> Iterator[Testbed]:
    with Testbed(count=3) as bed:
        for host in bed.hosts:
            host.add_user('anne', password=PASSWORD)
        yield bed


@pytest.fixture
def host(own_bed: Testbed) -> Iterator[TestHost]:
    """h1, where nobody's keys let anne in until the test says so."""
    host = own_bed['h1']
    authorized = host.path('/home/anne/.ssh/authorized_keys')
    before = authorized.read_text()
    authorized.write_text('')
    yield host
    authorized.write_text(before)


def authorize(host: TestHost, *keys: Path) -> None:
    text = ''.join(Path(f'{key}.pub').read_text() for key in keys)
    host.path('/home/anne/.ssh/authorized_keys').write_text(text)


Config = Callable[..., SshOptions]


@pytest.fixture
def config(own_bed: Testbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Options with the given keys alone, no agent, and the given password."""
    monkeypatch.delenv('SSH_AUTH_SOCK', raising=False)
    monkeypatch.delenv('RR_PASS_FILE', raising=False)

    def make(*keys: Path, extra: str = '', **password: object) -> SshOptions:
        hosts = ''.join(f'Host {host.name}\n  HostName {host.address}\n' for host in own_bed.hosts)
        identities = ''.join(f'  IdentityFile {key}\n' for key in keys) or '  IdentityFile none\n'
        file = tmp_path / 'config'
        file.write_text(
            f'{extra}{hosts}Host *\n  User anne\n{identities}  UserKnownHostsFile {own_bed.known_hosts}\n'
        )
        return SshOptions(config_file=str(file), connect_timeout=5, credentials=Credentials(**password))  # type: ignore[arg-type]

    return make


def who(options: SshOptions, address: str = 'h1') -> str:
    """Connect, and say who we are there."""
    with Connector(options) as connector, connector.connect(parse_address(address)) as connection:
        return connection.open('whoami').read(100, PATIENCE).decode().strip()


def refusal(options: SshOptions, address: str = 'h1') -> str:
    """Be refused, and say why, in one line."""
    with Connector(options) as connector, pytest.raises(AuthenticationFailed) as caught:
        connector.connect(parse_address(address))
    assert caught.value.exit_status == 3
    assert '\n' not in str(caught.value)
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


def test_nobody_is_asked_before_somebody_connects(host: TestHost, config: Config) -> None:
    asked: list[str] = []
    waiting = threading.Event()

    class Patient(Begun[SshConnection]):
        def wait_until_wanted(self) -> None:
            waiting.set()
            super().wait_until_wanted()

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return PASSWORD

    ahead = Ahead(config(ask=ask), [parse_address('h1')])
    wait_until(lambda: bool(ahead.connected()), 'the connection')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssh, 'Begun', Patient)
        connector = ahead.connector()
    with connector:
        assert waiting.wait(PATIENCE)
        assert asked == []
        with connector.connect(parse_address('h1')) as connection:
            assert connection.open('whoami').read(100, PATIENCE).decode().strip() == 'anne'
        assert asked == ['Password for anne@h1: ']


KINDS = [('ed25519',), ('ecdsa', '-b', '256'), ('ecdsa', '-b', '384'), ('ecdsa', '-b', '521'), ('rsa', '-b', '2048')]


class TestKeys:
    @pytest.mark.parametrize('kind', KINDS, ids='-'.join)
    @pytest.mark.parametrize('password', ['', PASSWORD], ids=['plain', 'encrypted'])
    def test_every_kind(
        self, host: TestHost, config: Config, tmp_path: Path, kind: tuple[str, ...], password: str
    ) -> None:
        key = make_key(tmp_path / 'key', '-t', *kind, password=password)
        authorize(host, key)
        assert who(config(key, password=password)) == 'anne'

    @pytest.mark.parametrize('form', ['PEM', 'PKCS8'])
    @pytest.mark.parametrize('kind', ['rsa', 'ecdsa'])
    @pytest.mark.parametrize('password', ['', PASSWORD], ids=['plain', 'encrypted'])
    def test_older_formats(
        self, host: TestHost, config: Config, tmp_path: Path, form: str, kind: str, password: str
    ) -> None:
        key = make_key(tmp_path / 'key', '-t', kind, '-m', form, password=password)
        authorize(host, key)
        assert who(config(key, password=password)) == 'anne'

    def test_an_encrypted_key_without_a_password(self, host: TestHost, config: Config, tmp_path: Path) -> None:
        key = make_key(tmp_path / 'key', '-t', 'ed25519', password=PASSWORD)
        authorize(host, key)
        assert f'not tried: {key} is encrypted and no password was given' in refusal(config(key))
        assert f'{key} is not unlocked by the password' in refusal(config(key, password='wrong'))

    def test_an_encrypted_key_is_unlocked_once_for_all_hosts(
        self, own_bed: Testbed, host: TestHost, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = make_key(tmp_path / 'key', '-t', 'ed25519', password=PASSWORD)
        authorize(host, key)
        unlocked: list[str] = []
        decrypted = KeyFile._decrypted
        monkeypatch.setattr(
            KeyFile, '_decrypted', lambda file, password: (unlocked.append(file.path), decrypted(file, password))[1]
        )
        with Connector(config(key, password=PASSWORD)) as connector, ThreadPoolExecutor(8) as pool:
            for connection in pool.map(connector.connect, [parse_address('h1')] * 8):
                connection.close()
        assert unlocked == [str(key)]

    def test_the_wrong_key(self, host: TestHost, config: Config, tmp_path: Path) -> None:
        key = make_key(tmp_path / 'key', '-t', 'ed25519')
        said = refusal(config(key))
        assert said.startswith('h1: user anne was not accepted; tried: ED25519 SHA256:')
        assert str(key) in said
        assert 'the server accepts password, publickey' in said

    def test_no_key_at_all(self, host: TestHost, config: Config) -> None:
        assert 'there was nothing to try' in refusal(config())

    @pytest.mark.filterwarnings('ignore:SSH DSA key support')  # that of whom makes one here
    def test_dsa_is_no_longer_supported(self, host: TestHost, config: Config, tmp_path: Path) -> None:
        private = dsa.generate_private_key(1024)
        forms = {
            'pem': serialization.PrivateFormat.TraditionalOpenSSL,
            'openssh': serialization.PrivateFormat.OpenSSH,
        }
        for name, form in forms.items():
            key = tmp_path / name
            key.touch(0o600)
            key.write_bytes(private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
            assert f'not tried: {key} DSA keys are no longer supported' in refusal(config(key))

    def test_a_key_that_others_can_read_is_not_used(self, host: TestHost, config: Config, tmp_path: Path) -> None:
        key = make_key(tmp_path / 'key', '-t', 'ed25519')
        authorize(host, key)
        key.chmod(0o644)
        assert f'{key} can be read by others (chmod 600 {key})' in refusal(config(key))

    def test_files_that_are_no_keys(self, host: TestHost, config: Config, tmp_path: Path) -> None:
        for name, content in (('text', b'hello'), ('cut', b'-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END')):
            key = tmp_path / name
            key.touch(0o600)
            key.write_bytes(content)
            assert str(key) in refusal(config(key))
        right = make_key(tmp_path / 'right', '-t', 'ed25519')
        authorize(host, right)
        assert who(config(tmp_path / 'text', tmp_path / 'none', right)) == 'anne'

    def test_a_certificate_beside_the_key(self, host: TestHost, config: Config, tmp_path: Path) -> None:
        authority = make_key(tmp_path / 'ca', '-t', 'ed25519')
        key = make_key(tmp_path / 'key', '-t', 'rsa', '-b', '2048')
        sign = ['ssh-keygen', '-q', '-s', authority, '-I', 'me', '-n', 'anne', f'{key}.pub']
        subprocess.run(sign, check=True)
        trusted = Path(f'{authority}.pub').read_text()
        host.path('/home/anne/.ssh/authorized_keys').write_text(f'cert-authority {trusted}')
        assert who(config(key)) == 'anne'
        moved = (tmp_path / 'key-cert.pub').rename(tmp_path / 'elsewhere')
        assert who(config(key, extra=f'CertificateFile {moved}\n')) == 'anne'
        assert 'tried: RSA SHA256:' in refusal(config(key))


class TestAgent:
    def test_a_key_of_the_agent(
        self, host: TestHost, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keys = [make_key(tmp_path / kind[0], '-t', *kind) for kind in (KINDS[0], KINDS[1], KINDS[4])]
        with ssh_agent(tmp_path, *keys) as path:
            monkeypatch.setenv('SSH_AUTH_SOCK', path)
            for key in keys:
                authorize(host, key)
                assert who(config()) == 'anne'
            authorize(host)
            said = refusal(config())
            assert [kind in said for kind in ('ED25519 SHA256:', 'ECDSA SHA256:', 'RSA SHA256:')] == [True] * 3
            assert said.count('of ssh-agent') == 3
        assert 'ssh-agent cannot be reached' in refusal(config())

    def test_identity_agent(self, host: TestHost, config: Config, tmp_path: Path) -> None:
        key = make_key(tmp_path / 'key', '-t', 'ed25519')
        authorize(host, key)
        with ssh_agent(tmp_path, key) as path:
            assert who(config(extra=f'IdentityAgent {path}\n')) == 'anne'
            assert 'nothing to try' in refusal(config(extra='IdentityAgent none\n'))

    def test_many_hosts_share_the_agent(self, host: TestHost, config: Config, tmp_path: Path) -> None:
        key = make_key(tmp_path / 'key', '-t', 'ed25519')
        authorize(host, key)
        with (
            ssh_agent(tmp_path, key) as path,
            Connector(config(extra=f'IdentityAgent {path}\n')) as connector,
            ThreadPoolExecutor(16) as pool,
        ):
            for connection in pool.map(connector.connect, [parse_address('h1')] * 16):
                connection.close()

    def test_a_key_that_the_agent_does_not_use_is_passed_over(
        self, host: TestHost, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        guarded, free = (make_key(tmp_path / name, '-t', 'ed25519') for name in ('guarded', 'free'))
        monkeypatch.setenv('SSH_ASKPASS', '/bin/false')  # whoever is asked for permission says no
        monkeypatch.setenv('SSH_ASKPASS_REQUIRE', 'force')
        with ssh_agent(tmp_path) as path:
            for command in (['-c', guarded], [free]):
                environment = {**os.environ, 'SSH_AUTH_SOCK': path}
                subprocess.run(['ssh-add', '-q', *command], env=environment, check=True, capture_output=True)
            options = config(extra=f'IdentityAgent {path}\n')
            authorize(host, guarded)
            assert 'ssh-agent refused to sign with' in refusal(options)
            authorize(host, free)
            assert who(options) == 'anne'

    def test_a_certificate_in_the_agent(self, host: TestHost, config: Config, tmp_path: Path) -> None:
        authority, key = (make_key(tmp_path / name, '-t', 'rsa', '-b', '2048') for name in ('ca', 'key'))
        sign = ['ssh-keygen', '-q', '-s', authority, '-I', 'me', '-n', 'anne', f'{key}.pub']
        subprocess.run(sign, check=True)
        trusted = Path(f'{authority}.pub').read_text()
        host.path('/home/anne/.ssh/authorized_keys').write_text(f'cert-authority {trusted}')
        with ssh_agent(tmp_path, key) as path:
            assert who(config(extra=f'IdentityAgent {path}\n')) == 'anne'

    def test_identities_only(self, host: TestHost, config: Config, tmp_path: Path) -> None:
        wanted, other = (make_key(tmp_path / name, '-t', 'ed25519', '-C', name) for name in ('wanted', 'other'))
        with ssh_agent(tmp_path, other, wanted) as path:
            extra = f'IdentityAgent {path}\nIdentitiesOnly yes\n'
            authorize(host, other)
            said = refusal(config(Path(f'{wanted}.pub'), extra=extra))
            assert 'wanted of ssh-agent' in said
            assert 'other' not in said
            authorize(host, wanted)
            wanted.unlink()  # the agent has it, the file with the public half names it
            assert who(config(Path(f'{wanted}.pub'), extra=extra)) == 'anne'
            assert who(config(wanted, extra=extra)) == 'anne'

    def test_more_keys_than_the_server_takes(self, host: TestHost, config: Config, tmp_path: Path) -> None:
        keys = [make_key(tmp_path / f'key{number}', '-t', 'ed25519') for number in range(8)]
        authorize(host, keys[-1])
        with ssh_agent(tmp_path, *keys) as path:
            said = refusal(config(extra=f'IdentityAgent {path}\n'))
            assert 'the server ended the connection after 6 attempts' in said
            assert 'IdentitiesOnly' in said
            # The one that ssh_config names is tried first.
            assert who(config(keys[-1], extra=f'IdentityAgent {path}\n')) == 'anne'


def test_a_server_that_falls_silent(config: Config, tmp_path: Path) -> None:
    class Silent(paramiko.ServerInterface):
        def check_auth_password(self, username: str, password: str) -> int:
            over.wait(PATIENCE)
            return paramiko.AUTH_FAILED

        def get_allowed_auths(self, username: str) -> str:
            return 'password'

    def serve(connection: socket.socket) -> None:
        transport = paramiko.Transport(connection)
        transport.add_server_key(paramiko.RSAKey.generate(2048))
        transport.start_server(server=Silent())
        over.wait(PATIENCE)
        transport.close()

    over = threading.Event()
    with server(serve) as port:
        extra = f'UserKnownHostsFile {tmp_path}/known\nStrictHostKeyChecking no\n'
        options = config(extra=extra, password=PASSWORD)
        try:
            with Connector(options, auth_limit=1) as connector, pytest.raises(HostUnreachable) as caught:
                connector.connect(parse_address(f'127.0.0.1:{port}'))
        finally:
            over.set()
    assert 'no answer to the password within 1 s' in str(caught.value)


class TestPassword:
    def test_it(self, host: TestHost, config: Config) -> None:
        assert who(config(password=PASSWORD)) == 'anne'

    def test_it_is_the_last_attempt_that_the_server_allows(
        self, host: TestHost, config: Config, tmp_path: Path
    ) -> None:
        keys = [make_key(tmp_path / f'key{number}', '-t', 'ed25519') for number in range(5)]
        assert who(config(*keys, ask=lambda prompt: PASSWORD)) == 'anne'

    def test_an_encrypted_key_that_the_agent_offered_needs_no_password(
        self, host: TestHost, config: Config, tmp_path: Path
    ) -> None:
        key = make_key(tmp_path / 'key', '-t', 'ed25519')
        with ssh_agent(tmp_path, key) as path:
            subprocess.run(['ssh-keygen', '-q', '-p', '-N', PASSWORD, '-f', key], check=True)
            asked: list[str] = []
            options = config(key, extra=f'IdentityAgent {path}\nPasswordAuthentication no\n', ask=asked.append)
            said = refusal(options)
        assert asked == []
        assert 'of ssh-agent' in said
        assert 'not tried' not in said

    def test_a_wrong_one(self, host: TestHost, config: Config) -> None:
        said = refusal(config(password='wrong one'))
        assert 'tried: the password' in said
        assert 'wrong one' not in said

    def test_a_server_that_takes_none(self, fresh_bed: Callable[..., Testbed], tmp_path: Path) -> None:
        bed = fresh_bed()
        bed['h1'].stop_sshd()
        bed['h1'].start_sshd({'PasswordAuthentication': 'no'})
        config = tmp_path / 'config'
        config.write_text(f'PubkeyAuthentication no\nInclude {bed.ssh_config}\n')
        asked: list[str] = []
        options = SshOptions(config_file=str(config), credentials=Credentials(ask=asked.append))
        assert 'the server accepts publickey' in refusal(options, 'root@h1')
        assert asked == []  # where a password does not help nobody is asked for one

    def test_keyboard_interactive(self, fresh_bed: Callable[..., Testbed], tmp_path: Path) -> None:
        bed = fresh_bed()
        bed['h1'].add_user('anne', password=PASSWORD)
        bed['h1'].stop_sshd()
        bed['h1'].start_sshd({'PasswordAuthentication': 'no', 'KbdInteractiveAuthentication': 'yes', 'UsePAM': 'yes'})
        config = tmp_path / 'config'
        config.write_text(f'PubkeyAuthentication no\nInclude {bed.ssh_config}\n')
        options = SshOptions(config_file=str(config), credentials=Credentials(PASSWORD))
        assert who(options, 'anne@h1') == 'anne'
        options = SshOptions(config_file=str(config), credentials=Credentials('wrong'))
        assert 'tried: the password (keyboard-interactive)' in refusal(options, 'anne@h1')

    def test_a_server_that_wants_a_key_and_a_password(
        self, fresh_bed: Callable[..., Testbed], tmp_path: Path
    ) -> None:
        bed = fresh_bed()
        bed['h1'].add_user('anne', password=PASSWORD)
        bed['h1'].stop_sshd()
        bed['h1'].start_sshd({'AuthenticationMethods': 'publickey,password'})
        options = SshOptions(config_file=str(bed.ssh_config), credentials=Credentials(PASSWORD))
        assert who(options, 'anne@h1') == 'anne'
        assert 'the server accepts password' in refusal(SshOptions(config_file=str(bed.ssh_config)), 'anne@h1')

    def test_it_is_asked_for_once_for_all_hosts(self, own_bed: Testbed, host: TestHost, config: Config) -> None:
        prompts: list[str] = []

        def ask(prompt: str) -> str:
            prompts.append(prompt)
            return PASSWORD

        for other in own_bed.hosts[1:]:
            other.path('/home/anne/.ssh/authorized_keys').write_text('')
        with Connector(config(ask=ask)) as connector, ThreadPoolExecutor(3) as pool:
            hosts = [parse_address(name) for name in ('h1', 'h2', 'h3')]
            for connection in pool.map(connector.connect, hosts):
                connection.close()
        assert len(prompts) == 1
        assert prompts[0].startswith('Password for anne@h')

    def test_it_is_not_asked_for_where_a_key_is_enough(
        self, host: TestHost, config: Config, tmp_path: Path
    ) -> None:
        key = make_key(tmp_path / 'key', '-t', 'ed25519')
        locked = make_key(tmp_path / 'locked', '-t', 'ed25519', password=PASSWORD)
        authorize(host, key)
        asked: list[str] = []
        assert who(config(locked, key, ask=asked.append)) == 'anne'
        assert asked == []

    def test_what_is_asked_for_unlocks_keys_too(self, host: TestHost, config: Config, tmp_path: Path) -> None:
        key = make_key(tmp_path / 'key', '-t', 'ed25519', password='unlock me')
        authorize(host, key)
        assert who(config(key, ask=lambda prompt: 'unlock me')) == 'anne'

    def test_nobody_answers(self, host: TestHost, config: Config) -> None:
        assert 'nothing to try' in refusal(config(ask=lambda prompt: None))

    def test_a_password_file(
        self,
        host: TestHost,
        config: Config,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        file = tmp_path / 'password'
        file.touch(0o600)
        file.write_text(f'{PASSWORD}\nsecond line\n')
        monkeypatch.setenv('RR_PASS_FILE', str(file))
        assert who(config()) == 'anne'
        assert caplog.text == ''
        file.chmod(0o640)
        assert who(config()) == 'anne'
        assert f'the password file {file} can be read by others' in caplog.text
        file.write_text('\n')
        with pytest.raises(UsageError, match='empty'):
            who(config())
        os.chown(file, 12345, -1)
        with pytest.raises(UsageError, match='another user'):
            who(config())
        file.unlink()
        with pytest.raises(UsageError, match='No such file'):
            who(config())

    def test_it_is_never_shown(self) -> None:
        assert PASSWORD not in repr(SshOptions(credentials=Credentials(PASSWORD)))
