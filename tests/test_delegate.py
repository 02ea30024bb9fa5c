"""What a keeper believes of a deputy, which is another user's: no more than it must."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator

import pytest

from remote_runner.agent.delegate import Delegate, DeputyLost


@pytest.fixture
def pair() -> Iterator[tuple[Delegate, socket.socket]]:
    """A delegate that has its deputy already, and the end of the socket at which that sits."""
    ours, theirs = socket.socketpair()
    delegate = Delegate.__new__(Delegate)
    delegate._sock = ours
    delegate.fd = ours.fileno()
    delegate._data = b''
    delegate._news = []
    delegate._fds = []
    with ours, theirs:
        yield delegate, theirs


def _open_files() -> int:
    return len(os.listdir('/proc/self/fd'))


def test_a_deputy_that_hands_over_more_than_one_file_at_once_is_lost(pair: tuple[Delegate, socket.socket]) -> None:
    delegate, deputy = pair
    before = _open_files()
    deputy.sendmsg([b'looks\n'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0, 1, 2]))])
    with pytest.raises(DeputyLost):
        delegate.hear()
    for fd in delegate._fds:
        os.close(fd)
    assert _open_files() == before


def test_a_deputy_that_never_stops_talking_is_lost(pair: tuple[Delegate, socket.socket]) -> None:
    delegate, deputy = pair

    def talk() -> None:
        for _ in range(1000):
            deputy.sendall(b'left\n' * 100)
            delegate.hear()

    with pytest.raises(DeputyLost):
        talk()
    assert len(delegate._news) <= 10000


def test_a_file_that_is_handed_over_comes(pair: tuple[Delegate, socket.socket]) -> None:
    delegate, deputy = pair
    read, write = os.pipe()
    deputy.sendmsg([b'looks\n'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [write]))])
    os.close(write)
    delegate.hear()
    assert delegate._await('looks') == ['looks']
    handed = delegate._handed()
    os.write(handed, b'x')
    assert os.read(read, 1) == b'x'
    os.close(read)
    os.close(handed)
