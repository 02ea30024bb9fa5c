"""Connections to real sshd: reaching, running commands, and noticing that a host is gone."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from remote_runner.errors import ConnectionLost, HostError, HostUnreachable
from remote_runner.hosts.address import parse_address, parse_hosts
from remote_runner.hosts.ssh import Connector, SshConnection
from remote_runner.hosts.ssh_channel import SshChannel
from remote_runner.hosts.ssh_config import SshOptions
from remote_runner.hosts.transport import Link
from tests.ssh_tools import PATIENCE, server
from tests.testbed import Testbed
from tests.testbed.process import wait_until

Beds = Callable[..., Testbed]


@pytest.fixture
def connector(bed: Testbed) -> Iterator[Connector]:
    with Connector(SshOptions(config_file=str(bed.ssh_config))) as connector:
        yield connector


@pytest.fixture
def connection(connector: Connector) -> Iterator[SshConnection]:
    with connector.connect(parse_address('h1')) as connection:
        yield connection


def options_for(bed: Testbed, folder: Path, extra: str, timeout: float = 5.0) -> SshOptions:
    """Options with an ssh_config that says `extra` first, then what the bed's own says."""
    config = folder / 'config'
    config.write_text(f'{extra}\nHost *\n  Include {bed.ssh_config}\n')
    return SshOptions(config_file=str(config), connect_timeout=timeout)


def read_all(channel: SshChannel) -> bytes:
    parts = []
    while part := channel.read(1 << 20, PATIENCE):
        parts.append(part)
    return b''.join(parts)


def read_exactly(channel: SshChannel, size: int) -> Iterator[bytes]:
    while size:
        part = channel.read(size, PATIENCE)
        assert part
        size -= len(part)
        yield part


def write_on(channel: SshChannel) -> None:
    for _ in range(10_000):
        channel.write(bytes(1 << 16))


def eventually(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, 'it never happened'
        threading.Event().wait(0.02)


class TestCommands:
    def test_streams(self, connection: SshConnection) -> None:
        channel = connection.open('hostname; echo oops >&2; cat')
        assert channel.read(100, PATIENCE) == b'h1\n'
        channel.write(b'some input')
        assert channel.read(100, PATIENCE) == b'some input'
        wait_until(lambda: channel.stderr() == b'oops\n', 'stderr, which is another pipe')
        channel.close()
        assert channel.stderr() == b'oops\n'
        assert channel.read(100) == b''

    def test_the_environment_is_that_of_ssh(
        self, bed: Testbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv('LC_X', 'ours')
        options = options_for(bed, tmp_path, 'SendEnv LC_*\nSetEnv LANG=here')
        with Connector(options) as connector, connector.connect(parse_address('h1')) as connection:
            assert read_all(connection.open('echo $LC_X $LANG')) == b'ours here\n'

    def test_the_end_of_the_output(self, connection: SshConnection) -> None:
        channel = connection.open('printf done')
        assert read_all(channel) == b'done'
        assert channel.read(100) == b''

    def test_much_both_ways(self, connection: SshConnection) -> None:
        data = os.urandom(30_000_000)
        channel = connection.open('cat')
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(channel.write, memoryview(data))
            received = hashlib.sha256()
            size = 0
            while size < len(data):
                part = channel.read(1 << 20, PATIENCE)
                size += len(part)
                received.update(part)
            writing.result(PATIENCE)
        assert received.digest() == hashlib.sha256(data).digest()

    def test_much_on_stderr_holds_nothing_up(self, connection: SshConnection) -> None:
        channel = connection.open('head -c 20000000 /dev/zero >&2; echo end >&2; printf done')
        assert channel.read(100, PATIENCE) == b'done'
        assert channel.read(100, PATIENCE) == b''
        assert channel.stderr().endswith(b'\0end\n')
        assert len(channel.stderr()) <= 64 * 1024

    def test_a_read_has_a_time_limit(self, connection: SshConnection) -> None:
        with pytest.raises(TimeoutError):
            connection.open('cat').read(100, 0.05)

    def test_closing_wakes_a_reader(self, connection: SshConnection) -> None:
        channel = connection.open('cat')
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(channel.read, 100)
            channel.close()
            assert reading.result(PATIENCE) == b''
        channel.close()

    def test_closing_ends_the_command(self, bed: Testbed, connection: SshConnection) -> None:
        connection.open('exec cat # the-one').close()
        eventually(lambda: not any(process.argv == ['cat'] for process in bed['h1'].processes()))

    def test_writing_to_a_command_that_has_ended(self, connection: SshConnection) -> None:
        channel = connection.open('true')
        assert channel.read(1, PATIENCE) == b''
        with pytest.raises(ConnectionLost, match='h1: '):
            write_on(channel)

    def test_a_closed_connection(self, connector: Connector) -> None:
        connection = connector.connect(parse_address('h1'))
        channel = connection.open('cat')
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(channel.read, 100)
            connection.close()
            connection.close()
            assert isinstance(reading.exception(PATIENCE), ConnectionLost)
        with pytest.raises(ConnectionLost):
            connection.open('true')

    def test_more_sessions_than_the_server_allows(self, connection: SshConnection) -> None:
        channels = [connection.open('cat') for _ in range(10)]
        with pytest.raises(HostError, match=r'h1: the server opens no further session.*MaxSessions'):
            connection.open('true')
        for channel in channels:
            channel.close()

    @pytest.mark.parametrize('how', ['option', 'ssh_config'])
    def test_compression(self, bed: Testbed, tmp_path: Path, how: str) -> None:
        options = options_for(bed, tmp_path, 'Compression yes' if how == 'ssh_config' else '')
        options.compress = how == 'option'
        with Connector(options) as connector, connector.connect(parse_address('h1')) as connection:
            transport = connection.transport
            assert transport.local_compression == transport.remote_compression == 'zlib@openssh.com'
            for data in (bytes(5_000_000), os.urandom(5_000_000), b'some text, ' * 500_000):
                channel = connection.open('cat')
                writer = threading.Thread(target=channel.write, args=(data,))
                writer.start()
                assert b''.join(read_exactly(channel, len(data))) == data
                writer.join()
                channel.close()

    def test_fast_ciphers_and_no_delay(self, connection: SshConnection) -> None:
        assert connection.transport.local_cipher == 'aes128-gcm@openssh.com'
        assert connection.transport.local_compression == 'none'
        stream = connection.transport.link.stream
        assert isinstance(stream, socket.socket)
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


class TestReaching:
    def test_a_dead_host_is_reported_in_time_while_others_connect(self, fresh_bed: Beds, tmp_path: Path) -> None:
        bed = fresh_bed(2)
        bed['h2'].cut()
        with Connector(options_for(bed, tmp_path, '', timeout=1)) as connector, ThreadPoolExecutor(2) as pool:
            dead = pool.submit(connector.connect, parse_address('h2'))
            with connector.connect(parse_address('h1')) as connection:
                assert read_all(connection.open('hostname')) == b'h1\n'
            error = dead.exception(PATIENCE)
        assert isinstance(error, HostUnreachable)
        assert error.exit_status == 3
        assert str(error).startswith('h2: no answer from 10.')
        assert '\n' not in str(error)

    def test_refused(self, bed: Testbed, tmp_path: Path) -> None:
        with (
            Connector(options_for(bed, tmp_path, '')) as connector,
            pytest.raises(HostUnreachable, match=r'^root@h1:2: cannot connect to \S+ port 2: connection refused \('),
        ):
            connector.connect(parse_address('root@h1:2'))

    def test_an_unknown_name(self, bed: Testbed, tmp_path: Path) -> None:
        with Connector(options_for(bed, tmp_path, '')) as connector:
            with pytest.raises(HostUnreachable, match=r'^nosuch\.invalid: the name nosuch\.invalid is unknown'):
                connector.connect(parse_address('nosuch.invalid'))
            with pytest.raises(HostUnreachable, match='no valid host name'):
                connector.connect(parse_address('a..b'))

    def test_a_server_that_never_says_a_word(self, bed: Testbed, tmp_path: Path) -> None:
        with (
            server(lambda connection: connection.recv(1000) and connection.recv(1000) and None) as port,
            Connector(options_for(bed, tmp_path, '', timeout=1)) as connector,
            pytest.raises(HostUnreachable, match='no SSH banner came within 1 s'),
        ):
            connector.connect(parse_address(f'127.0.0.1:{port}'))

    def test_a_server_that_hangs_up(self, bed: Testbed, tmp_path: Path) -> None:
        with (
            server(lambda connection: None) as port,
            Connector(options_for(bed, tmp_path, '', timeout=1)) as connector,
            pytest.raises(HostUnreachable, match=r'port \d+: the .* before an SSH banner came'),
        ):
            connector.connect(parse_address(f'127.0.0.1:{port}'))

    def test_a_server_of_something_else(self, bed: Testbed, tmp_path: Path) -> None:
        with (
            server(lambda connection: connection.sendall(b'HTTP/1.1 400 Bad Request\r\n\r\n')) as port,
            Connector(options_for(bed, tmp_path, '')) as connector,
            pytest.raises(HostUnreachable, match=r"does not speak SSH: 'HTTP/1\.1 400 Bad Request'"),
        ):
            connector.connect(parse_address(f'127.0.0.1:{port}'))

    def test_a_server_that_shares_no_algorithm(self, fresh_bed: Beds, tmp_path: Path) -> None:
        bed = fresh_bed()
        bed['h1'].stop_sshd()
        bed['h1'].start_sshd({'Ciphers': 'chacha20-poly1305@openssh.com'})
        with (
            Connector(options_for(bed, tmp_path, '')) as connector,
            pytest.raises(HostUnreachable, match='shares no algorithm with us'),
        ):
            connector.connect(parse_address('h1'))

    def test_a_server_that_drops_all_but_two_at_once(self, fresh_bed: Beds, tmp_path: Path) -> None:
        bed = fresh_bed()
        bed['h1'].stop_sshd()
        bed['h1'].start_sshd({'MaxStartups': '2:100:2'})
        with Connector(options_for(bed, tmp_path, '', timeout=PATIENCE)) as connector, ThreadPoolExecutor(16) as pool:
            connections = list(pool.map(connector.connect, [parse_address('h1')] * 16))
            for connection in connections:
                connection.close()

    def test_who_waited_for_a_dead_server_need_not_find_out_again(self, fresh_bed: Beds, tmp_path: Path) -> None:
        bed = fresh_bed()
        bed['h1'].cut()
        with Connector(options_for(bed, tmp_path, '', timeout=1)) as connector, ThreadPoolExecutor(40) as pool:
            tries = [pool.submit(connector.connect, parse_address('h1')) for _ in range(40)]
            errors = [attempt.exception(PATIENCE) for attempt in tries]
        assert all(isinstance(error, HostUnreachable) for error in errors)

    def test_the_user_of_an_address_beats_that_of_the_options(self, own_bed: Testbed, tmp_path: Path) -> None:
        for user in ('anne', 'bert', 'carl'):
            own_bed['h1'].add_user(user)
        extra = 'Host h1\n  User carl'
        options = options_for(own_bed, tmp_path, extra)
        with Connector(options) as connector, connector.connect(parse_address('h1')) as connection:
            assert read_all(connection.open('whoami')) == b'carl\n'
        with Connector(SshOptions(user='bert', config_file=options.config_file)) as connector:
            with connector.connect(parse_address('h1')) as connection:
                assert read_all(connection.open('whoami')) == b'bert\n'
            with connector.connect(parse_address('anne@h1')) as connection:
                assert read_all(connection.open('whoami')) == b'anne\n'


@pytest.fixture(scope='module')
def own_bed() -> Iterator[Testbed]:
    """Hosts that the tests here may add users to."""
    with Testbed(count=3) as bed:
        yield bed


class TestLosing:
    """A link is dead after 45 s of silence; here after one or two."""

    @pytest.fixture
    def lossy(self, fresh_bed: Beds) -> Iterator[tuple[Testbed, SshConnection]]:
        bed = fresh_bed()
        options = SshOptions(config_file=str(bed.ssh_config), connect_timeout=5)
        with (
            Connector(options, keepalive=0.3, silence_limit=1.5) as connector,
            connector.connect(parse_address('h1')) as connection,
        ):
            yield bed, connection

    def test_a_cut_link_while_reading(self, lossy: tuple[Testbed, SshConnection]) -> None:
        bed, connection = lossy
        channel = connection.open('echo ready; cat')
        assert channel.read(100, PATIENCE) == b'ready\n'
        bed['h1'].cut()
        with pytest.raises(ConnectionLost, match=r'^h1: the connection was silent for 1\.5 s'):
            channel.read(100, PATIENCE)
        assert connection.lost == 'the connection was silent for 1.5 s'
        with pytest.raises(ConnectionLost):
            connection.open('true')

    def test_a_cut_link_while_writing(self, lossy: tuple[Testbed, SshConnection]) -> None:
        bed, connection = lossy
        channel = connection.open('echo ready; cat > /dev/null')
        assert channel.read(100, PATIENCE) == b'ready\n'
        bed['h1'].cut()
        with pytest.raises(ConnectionLost, match='silent'):
            write_on(channel)
        with pytest.raises(ConnectionLost, match='silent'):
            channel.read(100, PATIENCE)

    def test_a_server_that_is_stopped(self, lossy: tuple[Testbed, SshConnection]) -> None:
        bed, connection = lossy
        channel = connection.open('echo $PPID; cat')
        session = int(channel.read(100, PATIENCE))
        pid = str(next(process.pid for process in bed['h1'].processes() if process.pid == session))
        bed['h1'].run(['kill', '-STOP', pid])
        with pytest.raises(ConnectionLost, match='silent'):
            channel.read(100, PATIENCE)

    def test_a_quiet_link_lives_on(self, lossy: tuple[Testbed, SshConnection]) -> None:
        _bed, connection = lossy
        channel = connection.open('cat')
        with pytest.raises(TimeoutError):
            channel.read(100, 4)
        channel.write(b'still there')
        assert channel.read(100, PATIENCE) == b'still there'

    def test_a_command_that_reads_nothing_is_no_dead_link(self, lossy: tuple[Testbed, SshConnection]) -> None:
        _bed, connection = lossy
        channel = connection.open('exec sleep 60')
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(channel.write, bytes(20_000_000))
            with pytest.raises(TimeoutError):
                channel.read(100, 4)
            assert connection.lost is None
            channel.close()
            assert isinstance(writing.exception(PATIENCE), ConnectionLost)

    def test_a_server_that_is_killed(self, lossy: tuple[Testbed, SshConnection]) -> None:
        bed, connection = lossy
        channel = connection.open('echo ready; cat')
        assert channel.read(100, PATIENCE) == b'ready\n'
        bed['h1'].stop_sshd(sessions=True)
        with pytest.raises(ConnectionLost, match=r'^h1: the other side closed the connection'):
            channel.read(100, PATIENCE)
        with pytest.raises(ConnectionLost):
            channel.write(b'x')


class TestDetours:
    @pytest.fixture(autouse=True)
    def _config(self, own_bed: Testbed, tmp_path: Path) -> None:
        # h3 is reached through h2, and that through h1.
        self.options = options_for(own_bed, tmp_path, 'Host h3\n  ProxyJump h2\nHost h2\n  ProxyJump h1\n')

    def test_two_jump_hosts(self, own_bed: Testbed) -> None:
        with Connector(self.options) as connector, connector.connect(parse_address('h3')) as connection:
            assert connection.target.hops[0].alias == 'h1'
            assert read_all(connection.open('echo $SSH_CONNECTION')).split()[0].decode() == own_bed['h2'].address
            channel = connection.open('cat')
            channel.write(b'x' * 100_000)
            assert len(channel.read(1, PATIENCE)) == 1

    def test_many_hosts_through_one_connection(self, own_bed: Testbed, tmp_path: Path) -> None:
        # 60 names of two hosts, all behind h1.
        names = ''.join(
            f'Host n{number}\n  HostName {own_bed[f"h{2 + number % 2}"].address}\n  ProxyJump h1\n  HostKeyAlias '
            f'h{2 + number % 2}\n'
            for number in range(60)
        )
        common = f'Host n*\n  IdentityFile {own_bed.key}\n  UserKnownHostsFile {own_bed.known_hosts}\n  User root\n'
        options = options_for(own_bed, tmp_path, names + common, timeout=PATIENCE)
        with Connector(options) as connector, ThreadPoolExecutor(60) as pool:
            connections = list(pool.map(connector.connect, parse_hosts(['n[0-59]'])))
            assert [read_all(connection.open('hostname')) for connection in connections] == [b'h2\n', b'h3\n'] * 30
            sessions = [process for process in own_bed['h1'].processes() if process.argv[0].startswith('sshd: root')]
            assert len(sessions) == 1
            for connection in connections:
                connection.close()
        eventually(lambda: not own_bed['h1'].processes())

    def test_a_jump_host_that_is_gone(self, fresh_bed: Beds, tmp_path: Path) -> None:
        bed = fresh_bed(2)
        options = options_for(bed, tmp_path, 'Host h2\n  ProxyJump h1\n', timeout=1)
        with Connector(options, keepalive=0.3, silence_limit=1) as connector:
            connection = connector.connect(parse_address('h2'))
            channel = connection.open('cat')
            bed['h1'].cut()
            with pytest.raises(ConnectionLost, match=r'^h2: '):
                channel.read(100, PATIENCE)
            with pytest.raises(HostUnreachable, match=r'^h2: jump host h1: no answer from 10\.'):
                connector.connect(parse_address('h2'))
            bed['h1'].heal()
            with connector.connect(parse_address('h2')) as connection:
                assert read_all(connection.open('hostname')) == b'h2\n'

    def test_a_dead_host_behind_a_jump_host(self, fresh_bed: Beds, tmp_path: Path) -> None:
        bed = fresh_bed(2)
        bed['h2'].cut()
        options = options_for(bed, tmp_path, 'Host h2\n  ProxyJump h1\n', timeout=1)
        with (
            Connector(options) as connector,
            pytest.raises(HostUnreachable, match=r'^h2: no answer from \S+ port 22 through jump host h1 within 1 s'),
        ):
            connector.connect(parse_address('h2'))

    def test_nothing_listens_behind_a_jump_host(self) -> None:
        with (
            Connector(self.options) as connector,
            pytest.raises(HostUnreachable, match=r'^h2:7: jump host h1 cannot connect to \S+ port 7: connect'),
        ):
            connector.connect(parse_address('h2:7'))

    def test_a_jump_host_that_forwards_nothing(self, fresh_bed: Beds, tmp_path: Path) -> None:
        bed = fresh_bed(2)
        bed['h1'].stop_sshd()
        bed['h1'].start_sshd({'AllowTcpForwarding': 'no'})
        with (
            Connector(options_for(bed, tmp_path, 'Host h2\n  ProxyJump h1\n')) as connector,
            pytest.raises(HostUnreachable, match=r'^h2: jump host h1 does not let us through .*AllowTcpForwarding'),
        ):
            connector.connect(parse_address('h2'))

    def test_jump_hosts_in_a_circle(self, own_bed: Testbed, tmp_path: Path) -> None:
        options = options_for(own_bed, tmp_path, 'Host h3\n  ProxyJump h2\nHost h2\n  ProxyJump h3\n')
        with Connector(options) as connector, pytest.raises(HostError, match='circles'):
            connector.connect(parse_address('h3'))

    def test_a_proxy_command(self, own_bed: Testbed, tmp_path: Path) -> None:
        command = f'ssh -F {own_bed.ssh_config} -W %h:%p h1'
        options = options_for(own_bed, tmp_path, f'Host h2\n  ProxyCommand {command}\n')
        before = children()
        with Connector(options) as connector:
            with connector.connect(parse_address('h2')) as connection:
                assert read_all(connection.open('hostname')) == b'h2\n'
                assert len(children() - before) == 1
            assert not children() - before

    def test_a_proxy_command_that_fails(self, own_bed: Testbed, tmp_path: Path) -> None:
        options = options_for(own_bed, tmp_path, 'Host h2\n  ProxyCommand sh -c "echo no way to %h >&2; exit 1"\n')
        before = children()
        with Connector(options) as connector, pytest.raises(HostUnreachable, match='ProxyCommand') as caught:
            connector.connect(parse_address('h2'))
        assert f'    | no way to {own_bed["h2"].address}' in str(caught.value)
        assert not children() - before


def children() -> set[str]:
    """The processes that this one started."""
    return set(Path(f'/proc/self/task/{threading.get_native_id()}/children').read_text().split()) | {
        child for task in Path('/proc/self/task').iterdir() for child in (task / 'children').read_text().split()
    }




class Broken:
    """A stream through a jump host that is gone."""

    def settimeout(self, timeout: float | None, /) -> None: ...

    def recv(self, size: int, /) -> bytes:
        raise EOFError

    def send(self, data: bytes, /) -> int:
        raise EOFError

    def close(self) -> None:
        raise EOFError


class TestLink:
    def test_what_came_is_given_in_the_pieces_that_are_asked_for(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            link = Link(ours)
            theirs.sendall(b'0123456789')
            assert [link.recv(size) for size in (4, 1, 100)] == [b'0123', b'4', b'56789']
            assert link.head == b'0123456789'
            theirs.sendall(b'the end')
            theirs.shutdown(socket.SHUT_WR)
            assert [link.recv(3), link.recv(100), link.recv(100)] == [b'the', b' end', b'']
            assert link.lost == 'the other side closed the connection'
            link.close()

    def test_one_that_cannot_be_closed_is_let_go(self) -> None:
        let_go: list[bool] = []
        link = Link(Broken(), lambda: let_go.append(True))
        link.close()
        link.close()
        assert let_go == [True]
