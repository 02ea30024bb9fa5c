"""Commands on this machine, which look the same from above as those over SSH."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from remote_runner.errors import ConnectionLost
from remote_runner.hosts.local import LocalConnection
from tests.ssh_tools import PATIENCE


@pytest.fixture
def connection() -> LocalConnection:
    return LocalConnection()


def test_streams(connection: LocalConnection) -> None:
    channel = connection.open('echo oops >&2; echo out; cat')
    assert channel.read(100, PATIENCE) == b'out\n'
    channel.write(b'some input')
    assert channel.read(100, PATIENCE) == b'some input'
    channel.close()
    assert channel.stderr() == b'oops\n'
    assert channel.read(100) == b''


def test_the_end_of_the_output(connection: LocalConnection) -> None:
    channel = connection.open('printf done')
    assert channel.read(100, PATIENCE) == b'done'
    assert channel.read(100, PATIENCE) == b''
    channel.close()


def test_much_both_ways(connection: LocalConnection) -> None:
    data = os.urandom(30_000_000)
    channel = connection.open('cat')
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(channel.write, memoryview(data))
        received = bytearray()
        while len(received) < len(data):
            received += channel.read(1 << 20, PATIENCE)
        writing.result(PATIENCE)
    assert received == data
    channel.close()


def test_much_on_stderr_holds_nothing_up(connection: LocalConnection) -> None:
    channel = connection.open('head -c 20000000 /dev/zero >&2; echo end >&2; printf done')
    assert channel.read(100, PATIENCE) == b'done'
    assert channel.read(100, PATIENCE) == b''
    assert channel.stderr().endswith(b'\0end\n')
    assert len(channel.stderr()) <= 64 * 1024
    channel.close()


def test_a_read_has_a_time_limit(connection: LocalConnection) -> None:
    channel = connection.open('cat')
    with pytest.raises(TimeoutError):
        channel.read(100, 0.05)
    channel.close()


def test_closing_wakes_readers_and_writers(connection: LocalConnection) -> None:
    channel = connection.open('exec sleep 60')
    with ThreadPoolExecutor(2) as pool:
        reading = pool.submit(channel.read, 100)
        writing = pool.submit(channel.write, bytes(10_000_000))
        with pytest.raises(TimeoutError):
            writing.result(0.1)
        channel.close()
        channel.close()
        assert reading.result(PATIENCE) == b''
        assert isinstance(writing.exception(PATIENCE), ConnectionLost)
    os.killpg(channel.pid, 15)


def test_writing_to_a_command_that_has_ended(connection: LocalConnection) -> None:
    channel = connection.open('true')
    assert channel.read(1, PATIENCE) == b''
    with pytest.raises(ConnectionLost, match=r'^localhost: the command reads no more input'):
        channel.write(bytes(1 << 22))
    channel.close()


def test_a_session_of_its_own(connection: LocalConnection) -> None:
    channel = connection.open('cat')
    assert os.getsid(channel.pid) == channel.pid
    channel.close()


def test_closing_ends_all_and_leaves_no_zombie(connection: LocalConnection) -> None:
    channels = [connection.open('exec cat') for _ in range(3)]
    connection.close()
    connection.close()
    for channel in channels:
        channel.wait(PATIENCE)
        assert not Path(f'/proc/{channel.pid}').exists()
    with pytest.raises(ConnectionLost):
        connection.open('true')


def test_no_descriptors_are_left(connection: LocalConnection) -> None:
    before = len(os.listdir('/proc/self/fd'))
    for _ in range(20):
        channel = connection.open('cat')
        channel.close()
    assert len(os.listdir('/proc/self/fd')) == before
