"""Hosts that are far away: late is all that they are."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.testbed import Testbed
from tests.testbed.delay import Delay, far_away
from tests.testbed.process import wait_until

ROUND_TRIP = 0.05
MEGABYTE = 1 << 20
# linger(socket(7)): close() sends a reset instead of an end.
AT_ONCE = struct.pack("ii", 1, 0)

Far = Callable[[Callable[[socket.socket], None]], socket.socket]


@pytest.fixture
def far() -> Iterator[Far]:
    """A connection over ROUND_TRIP to a server that does this with it: `far(echo)`."""
    with ExitStack() as stack:

        def far(serve: Callable[[socket.socket], None]) -> socket.socket:
            address = stack.enter_context(serving(serve))
            delay = stack.enter_context(Delay([address], ROUND_TRIP))
            return stack.enter_context(socket.create_connection(delay.addresses[0], timeout=30))

        yield far


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            connection, _ = listener.accept()
            connection.settimeout(30)
            with connection:
                serve(connection)

        server = threading.Thread(target=run)
        server.start()
        yield listener.getsockname()
        server.join()


def pieces(connection: socket.socket) -> Iterator[bytes]:
    while piece := connection.recv(MEGABYTE):
        yield piece


def echo(connection: socket.socket) -> None:
    for piece in pieces(connection):
        connection.sendall(piece)


def digest(connection: socket.socket) -> None:
    """Answers with the digest of all it is sent, once that has ended."""
    seen = hashlib.sha256()
    for piece in pieces(connection):
        seen.update(piece)
    connection.sendall(seen.digest())


def test_every_round_trip_takes_its_time(far: Far) -> None:
    connection = far(echo)
    for number in range(5):
        begun = time.monotonic()
        connection.sendall(b"%d" % number)
        assert connection.recv(10) == b"%d" % number
        assert time.monotonic() - begun >= ROUND_TRIP
    connection.shutdown(socket.SHUT_WR)


def test_a_greeting_comes_after_two_round_trips(far: Far) -> None:
    begun = time.monotonic()
    assert far(lambda connection: connection.sendall(b"hello")).recv(10) == b"hello"
    assert time.monotonic() - begun >= 2 * ROUND_TRIP


def test_much_arrives_whole_and_fast(far: Far) -> None:
    data = os.urandom(MEGABYTE) * 128
    connection = far(digest)
    begun = time.monotonic()
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(100) == hashlib.sha256(data).digest()
    assert len(data) / (time.monotonic() - begun) >= 50e6


def test_what_is_not_read_does_not_pile_up(far: Far) -> None:
    read = threading.Event()

    def late(connection: socket.socket) -> None:
        read.wait(30)
        digest(connection)

    connection = far(late)
    connection.settimeout(1)  # only for the end of what gets through
    data = os.urandom(MEGABYTE)
    sent = hashlib.sha256()
    amount = 0
    while amount < 1000 * MEGABYTE:
        try:
            taken = connection.send(data)
        except TimeoutError:
            break
        sent.update(data[:taken])
        amount += taken
    assert amount < 500 * MEGABYTE
    read.set()
    connection.settimeout(30)
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(100) == sent.digest()


def test_the_end_of_one_direction_is_not_that_of_the_other(far: Far) -> None:
    connection = far(digest)
    connection.sendall(b"hello")
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(100) == hashlib.sha256(b"hello").digest()


def test_a_connection_that_breaks_there_breaks_here(far: Far) -> None:
    connection = far(lambda connection: connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE))
    assert connection.recv(10) == b""


def test_what_is_said_to_one_who_has_gone(far: Far) -> None:
    connection = far(lambda connection: None)
    assert connection.recv(10) == b""
    connection.sendall(b"hello")
    time.sleep(ROUND_TRIP)  # until hello is refused
    connection.shutdown(socket.SHUT_WR)
    time.sleep(ROUND_TRIP)  # until the end is refused, too; the end of the proxy says if it minds


def test_a_connection_that_breaks_here_breaks_there(far: Far) -> None:
    heard: list[bytes] = []

    def see(connection: socket.socket) -> None:
        heard.append(connection.recv(10))
        connection.sendall(b"heard")
        heard.append(connection.recv(10))

    connection = far(see)
    connection.sendall(b"hello")
    assert connection.recv(10) == b"heard"
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    connection.close()
    wait_until(lambda: heard == [b"hello", b""], "the server to see the end")


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with Delay([address], ROUND_TRIP) as delay:
        for _ in range(2):
            with socket.create_connection(delay.addresses[0], timeout=30) as connection:
                assert connection.recv(10) == b""


def test_hosts_far_away_are_reached_by_their_names(bed: Testbed) -> None:
    with far_away(bed, ROUND_TRIP) as ssh_config:
        for host in bed.hosts:
            begun = time.monotonic()
            answer = hostname(ssh_config, host.name)
            assert answer.stdout == f"{host.name}\n", answer.stderr
            assert time.monotonic() - begun >= 5 * ROUND_TRIP  # TCP, versions, key exchange, authentication, command
    refused = hostname(ssh_config, "h1")
    assert "refused" in refused.stderr


def hostname(ssh_config: Path, host: str) -> subprocess.CompletedProcess[str]:
    argv = ["ssh", "-F", str(ssh_config), "-o", "BatchMode=yes", host, "hostname"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
