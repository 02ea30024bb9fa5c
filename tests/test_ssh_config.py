"""What ssh_config says of a host: what it says to `ssh`, without asking that for each of many hosts alike."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote_runner.errors import HostError
from remote_runner.hosts import ssh_config
from remote_runner.hosts.address import Address, parse_address, parse_hosts
from remote_runner.hosts.ssh_config import Resolver, SshOptions, Target
from remote_runner.hosts.ssh_config_files import ConfigFiles

HOME = pwd.getpwuid(os.getuid()).pw_dir
ME = pwd.getpwuid(os.getuid()).pw_name
Resolve = Callable[..., Target]


@pytest.fixture(params=['openssh', 'paramiko'])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With OpenSSH installed, and without."""
    if request.param == 'paramiko':
        monkeypatch.setattr(ssh_config.shutil, 'which', lambda name: None)
    return str(request.param)


@pytest.fixture
def resolve(tmp_path: Path) -> Resolve:
    """`resolve(text of an ssh_config, address, options of SshOptions…)`."""

    def resolve(text: str, address: str, **options: object) -> Target:
        file = tmp_path / 'config'
        file.write_text(text)
        return Resolver(SshOptions(config_file=str(file), **options)).resolve(parse_address(address))  # type: ignore[arg-type]

    return resolve


@pytest.mark.usefixtures('reader')
class TestBothReaders:
    def test_nothing_said(self, resolve: Resolve) -> None:
        target = resolve('', 'node1')
        assert (target.alias, target.hostname, target.user, target.port) == ('node1', 'node1', ME, 22)
        assert target.jump is None
        assert target.proxy_command is None
        assert f'{HOME}/.ssh/id_ed25519' in target.identity_files
        assert target.user_known_hosts_files[0] == f'{HOME}/.ssh/known_hosts'
        assert target.global_known_hosts_files[0] == '/etc/ssh/ssh_known_hosts'
        assert target.strict_host_key_checking == 'ask'
        assert target.connect_timeout == 10
        assert target.known_as == 'node1'

    def test_the_usual(self, resolve: Resolve) -> None:
        target = resolve(
            'Host node1\n  HostName 10.0.0.7\n  Port 2222\n  User joe\n'
            'Host *\n  User other\n  ConnectTimeout 3\n  StrictHostKeyChecking accept-new\n  IdentitiesOnly yes\n'
            '  HashKnownHosts yes\n  HostKeyAlias alias\n  UserKnownHostsFile /a /b\n  PasswordAuthentication no\n',
            'node1',
        )
        assert (target.hostname, target.port, target.user) == ('10.0.0.7', 2222, 'joe')
        assert target.connect_timeout == 3
        assert target.strict_host_key_checking == 'accept-new'
        assert target.identities_only
        assert target.hash_known_hosts
        assert target.known_as == 'alias'
        assert target.user_known_hosts_files == ('/a', '/b')
        assert not target.password_authentication

    def test_what_is_written_in_an_address_counts_most(self, resolve: Resolve) -> None:
        text = 'Host *\n  User config\n  Port 1\n  ConnectTimeout 3\n'
        assert resolve(text, 'n').user == 'config'
        assert resolve(text, 'n', user='option').user == 'option'
        assert resolve(text, 'address@n', user='option').user == 'address'
        assert resolve(text, 'n:7').port == 7
        assert resolve(text, 'n:7').known_as == '[n]:7'
        assert resolve(text, 'n', connect_timeout=0.5).connect_timeout == 0.5

    def test_tokens(self, resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('KEYS', '/keys')
        text = (
            'Host node\n  HostName %h.example.org\n  Port 7\n  User joe\n'
            '  IdentityFile ~/.ssh/id_%h_%r\n  IdentityFile ${KEYS}/%n\n  IdentityFile %d/%u-%p-%%-%L\n'
            '  ProxyCommand nc %h %p %r\n'
        )
        target = resolve(text, 'node')
        assert target.identity_files == (
            f'{HOME}/.ssh/id_node.example.org_joe',
            '/keys/node',
            f'{HOME}/{ME}-7-%-{socket.gethostname().partition(".")[0]}',
        )
        assert target.proxy_command == 'nc node.example.org 7 joe'

    def test_agents(self, resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('SSH_AUTH_SOCK', '/default')
        monkeypatch.setenv('MINE', '/mine')
        assert resolve('', 'n').identity_agent == '/default'
        assert resolve('IdentityAgent SSH_AUTH_SOCK', 'n').identity_agent == '/default'
        assert resolve('IdentityAgent $MINE', 'n').identity_agent == '/mine'
        assert resolve('IdentityAgent ~/agent', 'n').identity_agent == f'{HOME}/agent'
        assert resolve('IdentityAgent none', 'n').identity_agent is None
        monkeypatch.delenv('SSH_AUTH_SOCK')
        assert resolve('', 'n').identity_agent is None

    def test_the_environment(self, resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('RR_A', 'one')
        monkeypatch.setenv('OTHER', 'two')
        target = resolve('SendEnv RR_*\nSetEnv RR_C=three RR_D="fo ur"\n', 'n')
        assert target.environment == (('RR_A', 'one'), ('RR_C', 'three'), ('RR_D', 'fo ur'))

    def test_methods(self, resolve: Resolve) -> None:
        target = resolve('PreferredAuthentications publickey\n', 'n')
        assert target.pubkey_authentication
        assert not target.password_authentication
        assert not target.kbd_interactive_authentication
        assert not resolve('PubkeyAuthentication no\n', 'n').pubkey_authentication

    def test_none(self, resolve: Resolve) -> None:
        target = resolve('ProxyJump none\nUserKnownHostsFile none\nIdentityFile none\n', 'n')
        assert (target.jump, target.user_known_hosts_files, target.identity_files) == (None, (), ())
        assert resolve('ProxyCommand none\n', 'n').proxy_command is None

    def test_jump_hosts(self, resolve: Resolve) -> None:
        text = (
            'Host inner\n  ProxyJump joe@middle:7\n  User inside\n'
            'Host middle\n  ProxyJump gate\nHost gate\n  HostName 10.0.0.1\n  User porter\n'
        )
        target = resolve(text, 'inner', user='me')
        assert [(hop.alias, hop.hostname, hop.user, hop.port) for hop in target.hops] == [
            ('gate', '10.0.0.1', 'porter', 22),
            ('middle', 'middle', 'joe', 7),
        ]
        assert target.user == 'me'  # -u is for the hosts that were asked for, as ssh -l is

    def test_several_jump_hosts_in_one_line(self, resolve: Resolve) -> None:
        # As with ssh -J a,b: b is reached through a, whatever its own entry says.
        text = 'Host n\n  ProxyJump a,ssh://joe@b:7\nHost b\n  ProxyJump c\nHost a\n  ProxyJump d\n'
        assert [hop.alias for hop in resolve(text, 'n').hops] == ['d', 'a', 'b']

    @pytest.mark.parametrize(
        'text', ['Host *\n  ProxyJump gate\n', 'Host a\n ProxyJump b\nHost b\n ProxyJump a\nHost n\n ProxyJump a\n']
    )
    def test_jump_hosts_in_circles(self, resolve: Resolve, text: str) -> None:
        with pytest.raises(HostError, match=r'(?s)^n: .*(circles|loop)'):
            resolve(text, 'n')

    def test_a_wrong_jump_host(self, resolve: Resolve) -> None:
        with pytest.raises(HostError):
            resolve('ProxyJump a:b:c\n', 'n')

    def test_include(self, resolve: Resolve, tmp_path: Path) -> None:
        (tmp_path / 'more').write_text('Host n\n  Port 7\n')
        assert resolve(f'Include {tmp_path}/mor*\n', 'n').port == 7

    def test_a_config_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(HostError):
            Resolver(SshOptions(config_file=str(tmp_path / 'none'))).resolve(parse_address('n'))


def test_match_exec(resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'Match exec true\n  Port 7\n'
    assert resolve(text, 'n').port == 7
    monkeypatch.setattr(ssh_config.shutil, 'which', lambda name: None)
    with pytest.raises(HostError, match='Match exec in ssh_config needs OpenSSH'):
        resolve(text, 'n')


def test_a_config_that_ssh_refuses(resolve: Resolve) -> None:
    with pytest.raises(HostError, match='ssh cannot read its configuration') as caught:
        resolve('NoSuchOption yes\n', 'n')
    assert 'nosuchoption' in str(caught.value)


def test_spaces_in_paths(resolve: Resolve) -> None:
    text = 'UserKnownHostsFile "/with a space/x" /b\nIdentityFile "/with a space/y"\n'
    target = resolve(text, 'n')
    assert target.user_known_hosts_files == ('/with a space/x', '/b')
    assert target.identity_files == ('/with a space/y',)


def outcome(resolver: Resolver, address: Address) -> Target | str:
    try:
        return resolver.resolve(address)
    except HostError as error:
        return str(error)


class TestSharing:
    """One answer of ssh -G for many hosts, and never a wrong one."""

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The names that ssh -G was asked about."""
        if shutil.which('ssh') != '/usr/bin/ssh':
            pytest.fail('these tests need the ssh of the system')
        names: list[str] = []
        ask = ssh_config.values_of_openssh

        def note(ssh: str, name: str, *more: object) -> ssh_config.Values:
            names.append(name)
            return ask(ssh, name, *more)  # type: ignore[arg-type]

        monkeypatch.setattr(ssh_config, 'values_of_openssh', note)
        return names

    def check(self, file: Path, text: str, names: str, **options: object) -> None:
        """The same targets as with one call for each."""
        file.write_text(text)
        given = SshOptions(config_file=str(file), **options)  # type: ignore[arg-type]
        shared = Resolver(given)
        for address in parse_hosts([names]):
            alone = Resolver(given)
            alone._files = None
            assert outcome(shared, address) == outcome(alone, address)

    @pytest.mark.parametrize(
        ('text', 'calls'),
        [
            ('', 2),
            ('Host node*\n  HostName %h.example.org\n  User joe\n', 2),
            (''.join(f'Host node{n}\n  HostName 10.0.0.{n}\n  Port {n}\n' for n in range(1, 9)) + 'User x\n', 2),
            ('Host node[1-4]\nHost node1 node2 node3 node4\n  IdentityFile /a\nHost *\n  IdentityFile /%h\n', 4),
            ('Match all\n  Compression yes\n', 2),
            # What depends on the name, or is not understood here, is asked for host by host.
            ('UserKnownHostsFile /hosts/%h\n', 10),
            ('Match host node1\n  Port 7\n', 8),
            ('CanonicalizeHostname no\n', 8),
            ('Host "node1"\n  Port 7\n', 8),
            ('Host node1 # the first\n  Port 7\n', 8),
        ],
    )
    def test_calls(self, tmp_path: Path, asked: list[str], text: str, calls: int) -> None:
        file = tmp_path / 'config'
        file.write_text(text)
        resolver = Resolver(SshOptions(config_file=str(file)))
        for address in parse_hosts(['node[1-8]']):
            resolver.resolve(address)
        assert len(asked) == min(calls, 8)
        self.check(file, text, 'node[1-8],Node1,other')

    def test_includes_count_where_they_stand(self, tmp_path: Path) -> None:
        (tmp_path / 'inner').write_text('Port 5\nHost node2\n  User two\nHost *\n  User all\n')
        text = f'Host node1 node2\n  Include {tmp_path}/inner\n  HostName x-%h\nHost *\n  Port 9\n'
        self.check(tmp_path / 'config', text, 'node[1-5]')

    def test_what_red_hat_ships(self, tmp_path: Path, asked: list[str]) -> None:
        (tmp_path / 'policy').write_text('Ciphers aes128-ctr\n')
        text = f'Host node*\n  User joe\nMatch final all\n  Include {tmp_path}/policy\n  ForwardX11Trusted yes\n'
        self.check(tmp_path / 'config', text, 'node[1-4]')
        assert len(asked) == 2 + 4
        # What comes in the second pass is not foretold.
        (tmp_path / 'policy').write_text('Port 7\nUser root\n')
        self.check(tmp_path / 'config', text, 'node[1-4]')
        assert len(asked) == 6 + 8

    def test_addresses_with_users_and_ports(self, tmp_path: Path) -> None:
        text = 'Host n1\n  User x\n  Port 8\n'
        self.check(tmp_path / 'config', text, 'n1 n2 n3 n4 a@n1 a@n2 a@n3 n1:7 n2:7 n3:7', user='me')

    _patterns = st.lists(st.sampled_from(['n1', 'n2', 'n*', '?2', '*', '!n3', '!n1', 'm?']), min_size=1, max_size=3)
    _settings = st.sampled_from(
        [
            *('User a', 'User=b', 'Port 7', 'port = 8', 'HostName %h.x', 'HostName 10.0.0.1', 'ProxyJump g'),
            *('IdentityFile /%h', 'IdentityFile /a', 'UserKnownHostsFile /%h', 'Compression yes'),
        ]
    )
    _blocks = st.lists(st.tuples(_patterns, st.lists(_settings, max_size=4)), max_size=4)

    @settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(_blocks)
    def test_any_config_means_what_it_means_to_ssh(
        self, tmp_path: Path, blocks: list[tuple[list[str], list[str]]]
    ) -> None:
        text = 'Host g\n  ProxyJump none\n' + ''.join(
            f'Host {" ".join(patterns)}\n' + ''.join(f'  {setting}\n' for setting in block)
            for patterns, block in blocks
        )
        self.check(tmp_path / 'config', text, 'n1,n2,n3,n4')


def test_files_of_the_system_and_the_user(tmp_path: Path) -> None:
    folder = tmp_path / '.ssh'
    folder.mkdir()
    (folder / 'config').write_text('Include more\nUser last\n')
    (folder / 'more').write_text('Host n\n  User first\n')
    files = ConfigFiles.read(None, str(tmp_path))
    assert files is not None
    assert files.outline('n').user == 'first'
    assert files.outline('m').user == 'last'
