"""Terminals in which commands run, over each way to a host: the same from above."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from remote_runner.errors import ConnectionLost, HostError
from remote_runner.hosts.address import parse_address
from remote_runner.hosts.connection import Connection, TerminalChannel
from remote_runner.hosts.local import LocalConnection
from remote_runner.hosts.pool import connect
from remote_runner.hosts.screen import screen_command
from remote_runner.hosts.shell import sh
from remote_runner.hosts.ssh import Connector
from remote_runner.hosts.ssh_config import SshOptions
from tests.deploying import connections
from tests.ssh_tools import PATIENCE
from tests.testbed import Testbed


@pytest.fixture
def connector(bed: Testbed) -> Iterator[Connector]:
    with Connector(SshOptions(config_file=str(bed.ssh_config))) as connector:
        yield connector


@pytest.fixture(params=['ssh', 'local'])
def connection(request: pytest.FixtureRequest, connector: Connector) -> Iterator[Connection]:
    connection = connector.connect(parse_address('h1')) if request.param == 'ssh' else LocalConnection()
    yield connection
    connection.close()


def open_terminal(connection: Connection, command: str) -> TerminalChannel:
    return connection.open_terminal(command, 'vt220', 90, 30)


def read_until(channel: TerminalChannel, words: bytes) -> bytes:
    output = b''
    while words not in output:
        part = channel.read(1 << 16, PATIENCE)
        assert part, f'it ended after {output!r}'
        output += part
    return output


def read_all(channel: TerminalChannel) -> bytes:
    parts = []
    while part := channel.read(1 << 16, PATIENCE):
        parts.append(part)
    return b''.join(parts)


def test_kind_size_and_exit_status(connection: Connection) -> None:
    channel = open_terminal(connection, 'echo $TERM; stty size; exit 5')
    assert read_all(channel) == b'vt220\r\n30 90\r\n'
    assert channel.exit_status(PATIENCE) == 5
    channel.close()


def test_the_program_hears_of_another_size(connection: Connection) -> None:
    program = "trap 'stty size; exit' WINCH; echo ready; while read -r line; do :; done"
    channel = open_terminal(connection, f'exec sh -c "{program}"')
    read_until(channel, b'ready')
    channel.resize(123, 45)
    read_until(channel, b'45 123')
    channel.close()


def test_the_program_begins_with_default_signals(connection: Connection) -> None:
    ours = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ours}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ours)
    try:
        channel = open_terminal(connection, 'exec grep -E "^Sig(Blk|Ign):" /proc/self/status')
        shown = re.findall(rb'Sig...:\t(\w+)', read_all(channel))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
    of_libc = 0b11 << 31  # it keeps two for itself, and posix_spawn(3) leaves them ignored
    assert [int(word, 16) & ~of_libc for word in shown] == [0, 0]
    channel.close()


def test_closing_hangs_up(connection: Connection) -> None:
    channel = open_terminal(connection, "trap 'exit 3' HUP; echo ready; while read -r line; do :; done")
    read_until(channel, b'ready')
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(channel.read, 100)
        channel.close()
        channel.close()
        assert reading.result(PATIENCE) == b''
    with pytest.raises(ConnectionLost):
        channel.resize(80, 24)
    with pytest.raises(ConnectionLost):
        channel.write(b'more')
    assert channel.exit_status(PATIENCE) in (3, 255)  # over SSH nobody says any more which it was


def test_one_that_goes_on(connection: Connection) -> None:
    channel = open_terminal(connection, 'exec sleep 1000')
    with pytest.raises(TimeoutError):
        channel.read(100, 0.05)
    with pytest.raises(TimeoutError):
        channel.exit_status(0.05)
    channel.close()


def test_a_closed_connection(connection: Connection) -> None:
    channel = open_terminal(connection, 'exec cat')
    connection.close()
    with pytest.raises(ConnectionLost):
        open_terminal(connection, 'true')
    with pytest.raises(ConnectionLost):
        channel.write(bytes(100))


def test_nothing_is_left(connection: Connection) -> None:
    def one() -> None:
        channel = open_terminal(connection, 'exec cat')
        channel.write(b'\x04')
        read_all(channel)
        assert channel.exit_status(PATIENCE) == 0
        channel.close()

    one()
    before = sorted(os.listdir('/proc/self/fd'))
    for _ in range(20):
        one()
    assert sorted(os.listdir('/proc/self/fd')) == before


def test_beside_the_agent_of_a_host(bed: Testbed, connector: Connector) -> None:
    with connect(parse_address('h1'), connector, lambda host, header: None) as host:
        before = {process.pid for process in connections(bed['h1'])}
        channel = host.open_terminal('tty; hostname; read -r line', 'xterm', 80, 24)
        assert b'/dev/pts/' in read_until(channel, b'h1\r\n')
        assert {process.pid for process in connections(bed['h1'])} <= before
        assert host.request('describe')['hostname'] == 'h1'
        channel.write(b'\n')
        assert channel.exit_status(PATIENCE) == 0


def test_a_terminal_is_one_of_the_sessions_that_a_server_allows(connector: Connector) -> None:
    with connector.connect(parse_address('h1')) as connection:
        channels = [connection.open('cat') for _ in range(10)]
        with pytest.raises(HostError, match=r'h1: the server opens no further session.*MaxSessions'):
            open_terminal(connection, 'true')
        for channel in channels:
            channel.close()


@pytest.mark.parametrize('character', ["'", '\\', '!', '\n'])
def test_what_some_shell_changes_is_refused(character: str) -> None:
    with pytest.raises(ValueError, match='cannot stand in a command'):
        sh(f'echo {character}')


@pytest.mark.parametrize('name', ['', 'a b', '$(reboot)', "'", '*', 'x' * 65])
def test_a_name_that_no_session_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match='no name of a session'):
        screen_command(1, name, 0)
