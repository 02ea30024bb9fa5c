"""Whom we believe: known_hosts as OpenSSH reads and writes it, and what is done about keys that are not in it."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from remote_runner.errors import HostError, HostKeyChanged, HostKeyUnknown, HostUnreachable
from remote_runner.hosts.address import parse_address, parse_hosts
from remote_runner.hosts.known_hosts import KnownHosts, Verdict
from remote_runner.hosts.public_key import PublicKey
from remote_runner.hosts.ssh import Connector
from remote_runner.hosts.ssh_config import SshOptions, Target
from remote_runner.hosts.trust import add, collect
from tests.ssh_tools import PATIENCE, make_key
from tests.testbed import Testbed

ED25519 = 'ssh-ed25519'


def key(number: int, kind: str = ED25519) -> PublicKey:
    return PublicKey(kind, bytes([0, 0, 0, 1, number]))


def line(names: str, host_key: PublicKey, marker: str = '') -> str:
    return f'{marker} {names} {host_key.type} {base64.b64encode(host_key.blob).decode()} a comment\n'.lstrip()


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(
        'node', 'node.example.org', 'root', user_known_hosts_files=(str(tmp_path / '.ssh/user'), str(tmp_path / 'two'))
    )


@pytest.fixture
def file(target: Target) -> Path:
    file = Path(target.user_known_hosts_files[0])
    file.parent.mkdir(mode=0o700)
    return file


class TestReading:
    @pytest.mark.parametrize(
        ('names', 'verdict'),
        [
            ('node.example.org', Verdict.KNOWN),
            ('other,Node.Example.org', Verdict.KNOWN),
            ('*.example.org', Verdict.KNOWN),
            ('node.example.???', Verdict.KNOWN),
            ('*.example.org,!node*', Verdict.NEW),
            ('!*.example.com,*', Verdict.KNOWN),
            ('node.example.orgs', Verdict.NEW),
            ('[node.example.org]:2222', Verdict.NEW),
            ('node[a-z].example.org', Verdict.NEW),
        ],
    )
    def test_names(self, target: Target, file: Path, names: str, verdict: Verdict) -> None:
        file.write_text(line(names, key(1)))
        assert KnownHosts().judge(target, key(1))[0] is verdict

    def test_hashed_names(self, target: Target, file: Path) -> None:
        file.write_text(line('node.example.org', key(1)) + line('[node.example.org]:2222', key(2)))
        subprocess.run(['ssh-keygen', '-q', '-H', '-f', file], check=True, capture_output=True)
        assert 'node' not in file.read_text()
        assert KnownHosts().judge(target, key(1))[0] is Verdict.KNOWN
        assert KnownHosts().judge(target._replace(port=2222), key(2))[0] is Verdict.KNOWN
        assert KnownHosts().judge(target._replace(hostname='elsewhere'), key(1))[0] is Verdict.NEW

    def test_other_ports(self, target: Target, file: Path) -> None:
        file.write_text(line('node.example.org', key(1)) + line('[node.example.org]:2222', key(2)))
        assert KnownHosts().judge(target._replace(port=2222), key(2))[0] is Verdict.KNOWN
        assert KnownHosts().judge(target._replace(port=2222), key(1))[0] is Verdict.CHANGED
        # As with OpenSSH, a host on another port may show the key that it shows on port 22, and nothing follows from
        # it showing another one.
        assert KnownHosts().judge(target._replace(port=3333), key(1))[0] is Verdict.KNOWN
        assert KnownHosts().judge(target._replace(port=3333), key(2))[0] is Verdict.NEW

    def test_a_host_key_alias(self, target: Target, file: Path) -> None:
        file.write_text(line('alias', key(1)))
        assert KnownHosts().judge(target._replace(host_key_alias='alias', port=7), key(1))[0] is Verdict.KNOWN
        assert KnownHosts().judge(target, key(1))[0] is Verdict.NEW

    def test_changed(self, target: Target, file: Path) -> None:
        file.write_text('# comment\n\n' + line('node.example.org', key(1)))
        verdict, entry = KnownHosts().judge(target, key(2))
        assert verdict is Verdict.CHANGED
        assert entry is not None
        assert (entry.file, entry.line) == (str(file), 3)
        # The host is asked for the type that is known: one with another type has not got the known key any more.
        assert KnownHosts().known_types(target) == (ED25519,)
        assert KnownHosts().judge(target, key(1, 'ssh-rsa'))[0] is Verdict.CHANGED

    def test_several_keys_of_a_host(self, target: Target, file: Path) -> None:
        keys = [key(1), key(2), key(3, 'ssh-rsa')]
        file.write_text(''.join(line('node.example.org', each) for each in keys))
        assert all(KnownHosts().judge(target, each)[0] is Verdict.KNOWN for each in keys)

    def test_revoked(self, target: Target, file: Path) -> None:
        file.write_text(line('node.example.org', key(1)) + line('*', key(1), '@revoked'))
        assert KnownHosts().judge(target, key(1))[0] is Verdict.REVOKED

    def test_the_key_of_an_authority_is_no_host_key(self, target: Target, file: Path) -> None:
        file.write_text(line('*.example.org', key(1), '@cert-authority'))
        assert KnownHosts().judge(target, key(1))[0] is Verdict.NEW
        assert KnownHosts().judge(target, key(2))[0] is Verdict.NEW

    def test_lines_that_make_no_sense(self, target: Target, file: Path) -> None:
        file.write_bytes(
            b'short\nnode.example.org ssh-ed25519\nnode.example.org ssh-ed25519 !!!\n\xff\xfe\n'
            b'|1|x|y ssh-ed25519 AAAA\n@other node.example.org ssh-ed25519 AAAA\n'
            b'node.example.org ssh-dss AAAA\n' + line('node.example.org', key(1)).encode()
        )
        assert KnownHosts().judge(target, key(1))[0] is Verdict.KNOWN

    def test_all_files_count(self, target: Target, file: Path, tmp_path: Path) -> None:
        (tmp_path / 'two').write_text(line('node.example.org', key(2)))
        (tmp_path / 'global').write_text(line('node.example.org', key(3)))
        everywhere = target._replace(global_known_hosts_files=(str(tmp_path / 'global'), str(tmp_path / 'none')))
        known = KnownHosts()
        assert [known.judge(everywhere, key(n))[0] for n in (2, 3)] == [Verdict.KNOWN] * 2
        assert known.judge(everywhere, key(4))[0] is Verdict.CHANGED

    def test_a_file_that_cannot_be_read(self, target: Target, file: Path) -> None:
        file.mkdir()
        with pytest.raises(HostError, match='cannot be read: Is a directory'):
            KnownHosts().judge(target, key(1))

    def test_fingerprints(self, tmp_path: Path) -> None:
        path = make_key(tmp_path / 'key', '-t', 'ecdsa')
        kind, blob, _ = Path(f'{path}.pub').read_text().split()
        shown = subprocess.run(['ssh-keygen', '-lf', path], check=True, capture_output=True, text=True).stdout
        assert PublicKey(kind, base64.b64decode(blob)).fingerprint == shown.split()[1]
        assert str(PublicKey(kind, base64.b64decode(blob))).startswith('ECDSA SHA256:')


class TestAdding:
    def test_a_first_key(self, target: Target) -> None:
        file = Path(target.user_known_hosts_files[0])
        known = KnownHosts()
        assert known.add(target, key(1)) == str(file)
        assert known.judge(target, key(1))[0] is Verdict.KNOWN
        assert file.read_text() == f'node.example.org {ED25519} {base64.b64encode(key(1).blob).decode()}\n'
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700

    def test_what_is_there_stays(self, target: Target, file: Path) -> None:
        file.write_text('# mine\nwithout an end')
        file.chmod(0o644)
        KnownHosts().add(target._replace(port=2222), key(1))
        assert file.read_text().startswith('# mine\nwithout an end\n[node.example.org]:2222 ssh-ed25519 ')
        assert file.stat().st_mode & 0o777 == 0o644

    def test_hashed(self, target: Target, file: Path) -> None:
        hashed = target._replace(hash_known_hosts=True)
        KnownHosts().add(hashed, key(1))
        assert file.read_text().startswith('|1|')
        assert KnownHosts().judge(hashed, key(1))[0] is Verdict.KNOWN
        found = subprocess.run(['ssh-keygen', '-F', 'node.example.org', '-f', file], capture_output=True, text=True)
        assert 'found: line 1' in found.stdout

    def test_nothing_twice(self, target: Target, file: Path) -> None:
        for _ in range(2):
            KnownHosts().add(target, key(1))
        assert len(file.read_text().splitlines()) == 1

    def test_many_runs_at_once(self, target: Target, file: Path) -> None:
        def store(number: int) -> None:
            KnownHosts().add(target._replace(hostname=f'n{number}'), key(number))

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(store, range(100)))
        assert sorted(text.split()[0] for text in file.read_text().splitlines()) == sorted(f'n{n}' for n in range(100))

    def test_another_run_has_stored_another_key(self, target: Target, file: Path) -> None:
        known = KnownHosts()
        assert known.judge(target, key(1))[0] is Verdict.NEW
        KnownHosts().add(target, key(2))
        with pytest.raises(HostError, match='another run has just stored another host key'):
            known.add(target, key(1))
        assert len(file.read_text().splitlines()) == 1

    def test_without_a_file_for_this_run_alone(self, target: Target) -> None:
        nowhere = target._replace(user_known_hosts_files=())
        known = KnownHosts()
        assert known.add(nowhere, key(1)) is None
        assert known.judge(nowhere, key(1))[0] is Verdict.KNOWN
        assert KnownHosts().judge(nowhere, key(1))[0] is Verdict.NEW

    def test_a_file_that_cannot_be_written(self, target: Target) -> None:
        with pytest.raises(HostError, match=r'cannot be stored in /dev/null/x'):
            KnownHosts().add(target._replace(user_known_hosts_files=('/dev/null/x',)), key(1))


Config = Callable[..., SshOptions]


@pytest.fixture
def config(bed: Testbed, tmp_path: Path) -> Config:
    """Options with a known_hosts of the test's own, tmp_path/known_hosts, and what else the test wants."""

    def make(extra: str = '', accept: bool = False) -> SshOptions:
        hosts = ''.join(f'Host {host.name}\n  HostName {host.address}\n' for host in bed.hosts)
        common = f'  User root\n  IdentityFile {bed.key}\n  UserKnownHostsFile {tmp_path}/known_hosts\n'
        (tmp_path / 'config').write_text(f'{extra}{hosts}Host *\n{common}  GlobalKnownHostsFile none\n')
        return SshOptions(config_file=str(tmp_path / 'config'), connect_timeout=5, accept_new_host_keys=accept)

    return make


@pytest.fixture
def known(tmp_path: Path) -> Path:
    return tmp_path / 'known_hosts'


def connect(options: SshOptions, address: str = 'h1') -> None:
    with Connector(options) as connector:
        connector.connect(parse_address(address)).close()


class TestRealHosts:
    def test_an_unknown_key(self, bed: Testbed, config: Config, known: Path) -> None:
        with pytest.raises(HostKeyUnknown) as caught:
            connect(config())
        assert str(caught.value).startswith('h1: the host key is in no known_hosts file: ED25519 SHA256:')
        assert 'remote_runner hosts trust h1' in str(caught.value)
        assert '--accept-new-host-keys' in str(caught.value)
        assert '\n' not in str(caught.value)
        assert not known.exists()

    @pytest.mark.parametrize('setting', ['ask', 'yes'])
    def test_strict(self, config: Config, known: Path, setting: str) -> None:
        with pytest.raises(HostKeyUnknown):
            connect(config(f'StrictHostKeyChecking {setting}\n'))
        assert not known.exists()

    @pytest.mark.parametrize('setting', ['accept-new', 'no'])
    def test_what_ssh_config_accepts(self, config: Config, known: Path, setting: str) -> None:
        connect(config(f'StrictHostKeyChecking {setting}\n'))
        assert len(known.read_text().splitlines()) == 1
        connect(config())

    def test_accepting_new_keys_of_many_hosts(self, bed: Testbed, config: Config, known: Path) -> None:
        with Connector(config(accept=True)) as connector, ThreadPoolExecutor(3) as pool:
            for connection in pool.map(connector.connect, parse_hosts(['h[1-3]'])):
                connection.close()
        assert sorted(text.split()[0] for text in known.read_text().splitlines()) == [
            host.address for host in bed.hosts
        ]
        # OpenSSH reads what we wrote.
        command = ['ssh', '-F', str(known.parent / 'config'), '-o', 'StrictHostKeyChecking=yes', 'h3', 'hostname']
        assert subprocess.run(command, capture_output=True, timeout=PATIENCE).stdout == b'h3\n'

    @pytest.mark.parametrize('setting', ['yes', 'accept-new', 'no'])
    @pytest.mark.parametrize('accept', [False, True])
    def test_a_changed_key_is_always_refused(
        self, bed: Testbed, config: Config, known: Path, setting: str, accept: bool
    ) -> None:
        known.write_text(line(bed['h1'].address, key(1)))
        before = known.read_bytes()
        said = rf'^h1: the host shows the key ED25519 SHA256:\S+, not the one in {known} line 1'
        with pytest.raises(HostKeyChanged, match=said):
            connect(config(f'StrictHostKeyChecking {setting}\n', accept=accept))
        assert known.read_bytes() == before

    def test_a_revoked_key(self, bed: Testbed, config: Config, known: Path) -> None:
        [_names, kind, blob] = bed.known_hosts.read_text().splitlines()[0].split()
        known.write_text(f'@revoked * {kind} {blob}\n')
        with pytest.raises(HostKeyChanged, match='is revoked in'):
            connect(config(accept=True))

    def test_the_server_is_asked_for_the_key_that_is_known(
        self, fresh_bed: Callable[..., Testbed], tmp_path: Path
    ) -> None:
        bed = fresh_bed()
        host = bed['h1']
        make_key(tmp_path / 'rsa', '-t', 'rsa', '-b', '2048')
        host.path('/root/rsa').write_bytes((tmp_path / 'rsa').read_bytes())
        host.path('/root/rsa').chmod(0o600)
        host.stop_sshd()
        host.start_sshd({'HostKey': '/root/rsa'})  # beside that of the bed, which is ed25519
        known = tmp_path / 'known_hosts'
        kind, blob, _ = (tmp_path / 'rsa.pub').read_text().split()
        known.write_text(f'{host.address} {kind} {blob}\n')
        config = tmp_path / 'config'
        config.write_text(f'UserKnownHostsFile {known}\nInclude {bed.ssh_config}\n')
        connect(SshOptions(config_file=str(config)))


@pytest.fixture(scope='module')
def own_bed() -> Iterator[Testbed]:
    with Testbed(count=1) as bed:
        yield bed


class TestCertificates:
    """Hosts that an authority vouches for, as `ssh-keygen -h -s` signs them."""

    @pytest.fixture(params=[('ed25519',), ('ecdsa',), ('rsa', '-b', '2048')], ids=lambda kind: kind[0])
    def authority(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        return make_key(tmp_path / 'authority', '-t', *request.param)

    def serve(self, bed: Testbed, authority: Path, kind: str, *signing: str) -> None:
        """Let h1 show a new host key with a certificate."""
        folder, host = authority.parent, bed['h1']
        make_key(folder / 'host', '-t', kind)
        subprocess.run(['ssh-keygen', '-q', '-s', authority, '-I', 'h1', *signing, folder / 'host.pub'], check=True)
        for name in ('host', 'host-cert.pub'):
            host.path(f'/root/{name}').write_bytes((folder / name).read_bytes())
            host.path(f'/root/{name}').chmod(0o600)
        host.stop_sshd()
        host.start_sshd({'HostKey': '/root/host', 'HostCertificate': '/root/host-cert.pub'})

    def options(self, bed: Testbed, folder: Path, known: str, name: str = 'h1.example.org') -> SshOptions:
        (folder / 'known').write_text(known)
        config = folder / 'config'
        config.write_text(f'UserKnownHostsFile {folder}/known\nHostKeyAlias {name}\nInclude {bed.ssh_config}\n')
        return SshOptions(config_file=str(config), connect_timeout=5)

    @pytest.mark.parametrize('kind', ['ed25519', 'rsa'])
    def test_believed(self, own_bed: Testbed, authority: Path, tmp_path: Path, kind: str) -> None:
        self.serve(own_bed, authority, kind, '-h', '-n', 'h1.example.org,other')
        public = Path(f'{authority}.pub').read_text()
        connect(self.options(own_bed, tmp_path, f'@cert-authority *.example.org {public}'))
        assert (tmp_path / 'known').read_text() == f'@cert-authority *.example.org {public}'  # nothing added

    @pytest.mark.parametrize(
        ('signing', 'known', 'why'),
        [
            (('-h', '-n', 'h2.example.org'), '@cert-authority * {}', 'it is not for h1.example.org'),
            (('-h',), '@cert-authority * {}', 'it is not for h1.example.org'),
            (('-n', 'h1.example.org'), '@cert-authority * {}', 'it was made for a user'),
            (('-h', '-n', 'h1.example.org', '-V', '20200101:20200102'), '@cert-authority * {}', 'it has expired'),
            (('-h', '-n', 'h1.example.org', '-t', 'rsa-sha2-512'), '@cert-authority *.com {}', ''),
            (('-h', '-n', 'h1.example.org'), '@cert-authority * {}@revoked * {}', ''),
        ],
        ids=['name', 'no-name', 'user', 'expired', 'elsewhere', 'revoked'],
    )
    def test_not_believed(
        self,
        own_bed: Testbed,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        signing: tuple[str, ...],
        known: str,
        why: str,
    ) -> None:
        caplog.set_level('DEBUG', 'remote_runner')
        authority = make_key(tmp_path / 'authority', '-t', 'rsa', '-b', '2048')
        self.serve(own_bed, authority, 'ed25519', *signing)
        public = Path(f'{authority}.pub').read_text()
        with pytest.raises(HostKeyUnknown):
            connect(self.options(own_bed, tmp_path, known.format(public, public)))
        assert why in caplog.text

    def test_of_another_authority(self, own_bed: Testbed, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level('DEBUG', 'remote_runner')
        ours, theirs = (make_key(tmp_path / name, '-t', 'ed25519') for name in ('ours', 'theirs'))
        self.serve(own_bed, theirs, 'ed25519', '-h', '-n', 'h1.example.org')
        options = self.options(own_bed, tmp_path, f'@cert-authority * {Path(f"{ours}.pub").read_text()}')
        with pytest.raises(HostKeyUnknown):
            connect(options)
        assert 'it was signed by another authority' in caplog.text
        # Without a certificate to believe the key itself counts.
        kind, blob, _ = (tmp_path / 'host.pub').read_text().split()
        with (tmp_path / 'known').open('a') as file:
            file.write(f'h1.example.org {kind} {blob}\n')
        connect(options)

    def test_signed_with_sha1(self, own_bed: Testbed, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level('DEBUG', 'remote_runner')
        authority = make_key(tmp_path / 'authority', '-t', 'rsa', '-b', '2048')
        self.serve(own_bed, authority, 'ed25519', '-t', 'ssh-rsa', '-h', '-n', 'h1.example.org')
        with pytest.raises(HostKeyUnknown):
            connect(self.options(own_bed, tmp_path, f'@cert-authority * {Path(f"{authority}.pub").read_text()}'))
        assert 'it was signed with SHA-1' in caplog.text


class TestTrust:
    @pytest.fixture
    def connector(self, config: Config) -> Iterator[Connector]:
        with Connector(config()) as connector:
            yield connector

    def test_many_hosts(self, bed: Testbed, connector: Connector, known: Path) -> None:
        addresses = parse_hosts(['h[1-3]', 'h9:7'])
        found = collect(connector, addresses)
        assert [offer.where for offer in found.offers] == ['h1', 'h2', 'h3']
        assert found.new == found.offers
        assert [type(failure) for failure in found.failures] == [HostUnreachable]
        assert not known.exists()
        assert add(connector, found.new) == (str(known),)
        again = collect(connector, addresses[:3])
        assert [offer.verdict for offer in again.offers] == [Verdict.KNOWN] * 3
        assert again.new == ()
        connector.connect(parse_address('h2')).close()
        assert {offer.key for offer in found.offers} == {
            PublicKey(kind, base64.b64decode(blob))
            for _, kind, blob in (text.split() for text in bed.known_hosts.read_text().splitlines())
        }

    def test_what_is_added_is_what_was_shown(self, bed: Testbed, connector: Connector, known: Path) -> None:
        [offer] = collect(connector, [parse_address('h1')]).offers
        other = offer._replace(key=key(1))
        add(connector, [other])  # whoever answered then: this is the key that was looked at
        with pytest.raises(HostKeyChanged):
            connector.connect(parse_address('h1'))
        with pytest.raises(HostKeyChanged, match='is changed; it is not stored'):
            add(connector, [offer])
        assert len(known.read_text().splitlines()) == 1

    def test_changed_keys_are_shown_and_not_added(self, bed: Testbed, connector: Connector, known: Path) -> None:
        known.write_text(line(bed['h1'].address, key(1)))
        found = collect(connector, parse_hosts(['h[1-2]']))
        assert [offer.verdict for offer in found.offers] == [Verdict.CHANGED, Verdict.NEW]
        assert [offer.where for offer in found.new] == ['h2']

    def test_hosts_behind_a_jump_host(self, bed: Testbed, config: Config) -> None:
        with Connector(config('Host h2 h3\n  ProxyJump h1\n')) as connector:
            found = collect(connector, parse_hosts(['h[2-3]']))
            assert [offer.where for offer in found.offers] == ['h1']
            assert [str(address) for address in found.waiting] == ['h2', 'h3']
            assert found.failures == ()
            add(connector, found.new)
            found = collect(connector, found.waiting)
            assert [(offer.where, offer.verdict) for offer in found.offers] == [
                ('h1', Verdict.KNOWN),
                ('h2', Verdict.NEW),
                ('h3', Verdict.NEW),
            ]
            add(connector, found.new)
            connector.connect(parse_address('h3')).close()
