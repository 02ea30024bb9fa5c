"""What a dispatcher has to tell goes to its master whole, by the kernel where it can, and past it where it cannot."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_runner.agent.attempt import Attempt
from remote_runner.agent.main import Agent
from remote_runner.agent.outbox import PIECE, Outbox
from remote_runner.wire import frames

SIZE = 3 * PIECE + 5
Frames = list[tuple[dict[str, Any], bytes]]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def ended(tmp_path: Path) -> Attempt:
    """An attempt that printed much and left a small file."""
    attempt = Attempt(str(tmp_path), (7, 1), 7, b'', 0.0, {'stdout': 'stdout', 'little': 'little'})
    Path(attempt.file('stdout')).write_bytes(os.urandom(SIZE))
    Path(attempt.path).mkdir()
    Path(attempt.file('little')).write_bytes(b'little')
    attempt.conclude(out_of_memory=False)
    assert attempt.sizes == [('stdout', SIZE), ('little', 6)]
    return attempt


def heard(
    outbox: Outbox, pair: tuple[socket.socket, socket.socket], decoder: frames.Decoder | None = None
) -> Frames:
    """All that it has to say, taken as it comes; `decoder` has what came before."""
    ours, theirs = pair
    decoder = decoder or frames.Decoder()
    found: Frames = []
    while not outbox.is_empty:
        outbox.flush(ours)
        while data := _come(theirs):
            found += decoder.feed(data)
    return found


def _come(sock: socket.socket) -> bytes:
    try:
        return sock.recv(1 << 20, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b''


def told(found: Frames) -> tuple[bytes, list[Any]]:
    """The large result as it came, and what was said of the attempt."""
    pieces = [body for header, body in found if 'piece' in header]
    [(header, body)] = [one for one in found if 'ended' in one[0]]
    [item] = header['ended']
    assert body == b'little'
    return b''.join(pieces), item


def test_a_large_result(ended: Attempt, pair: tuple[socket.socket, socket.socket]) -> None:
    outbox = Outbox()
    outbox.tell(ended)
    outbox.say({'beat': 1})
    found = heard(outbox, pair)
    assert found[0] == ({'beat': 1}, b'')
    content, item = told(found)
    assert content == Path(ended.file('stdout')).read_bytes()
    assert item[3] is None


def test_messages_come_between_pieces_and_never_within(
    ended: Attempt, pair: tuple[socket.socket, socket.socket]
) -> None:
    """The socket holds less than a piece, so each is handed over in several steps."""
    outbox = Outbox()
    outbox.tell(ended)
    decoder = frames.Decoder()
    found: Frames = []
    beats = range(10)
    for number in beats:
        outbox.flush(pair[0])
        assert not outbox.is_empty
        outbox.say({'beat': number})
        found += decoder.feed(pair[1].recv(1 << 16))
    found += heard(outbox, pair, decoder)
    assert [header['beat'] for header, _ in found if 'beat' in header] == list(beats)
    assert told(found)[0] == Path(ended.file('stdout')).read_bytes()


def test_a_file_that_the_kernel_does_not_hand_over(
    ended: Attempt, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, 'no')

    monkeypatch.setattr(os, 'sendfile', refuse)
    outbox = Outbox()
    outbox.tell(ended)
    assert told(heard(outbox, pair))[0] == Path(ended.file('stdout')).read_bytes()


@pytest.mark.parametrize('left', [0, 5, PIECE, SIZE - 1])
def test_a_result_that_somebody_shortens_is_none(
    ended: Attempt, pair: tuple[socket.socket, socket.socket], left: int
) -> None:
    os.truncate(ended.file('stdout'), left)
    outbox = Outbox()
    outbox.tell(ended)
    _, item = told(heard(outbox, pair))
    assert item[3:6] == ['resources', None, 'somebody has shortened what it brought']


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize('spoil', [Path.unlink, _fifo])
def test_a_result_that_is_no_file_any_more(
    ended: Attempt, pair: tuple[socket.socket, socket.socket], spoil: Callable[[Path], None]
) -> None:
    """Fewer bytes come than there should be."""
    spoil(Path(ended.file('stdout')))
    outbox = Outbox()
    outbox.tell(ended)
    assert told(heard(outbox, pair))[0] == b''


def test_nobody_hears_any_more(ended: Attempt, pair: tuple[socket.socket, socket.socket]) -> None:
    outbox = Outbox()
    outbox.tell(ended)
    outbox.flush(pair[0])
    pair[1].close()
    with pytest.raises(OSError, match='Broken pipe'):
        outbox.flush(pair[0])


@pytest.mark.parametrize('way', ['a pipe', 'a socket', 'an old Python'])
def test_an_agent_passes_on_what_waits_in_a_socket(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    read, write = os.pipe()
    if way == 'a socket':
        ours, theirs = socket.socketpair()
        os.dup2(ours.fileno(), read)
        os.dup2(theirs.fileno(), write)
        ours.close()
        theirs.close()
    elif way == 'an old Python':
        monkeypatch.delattr(os, 'splice')
    agent = Agent(os.dup(0), write)
    data = os.urandom(30_000)
    pair[1].sendall(data + b'more')
    agent.pass_on({'id': 1, 'part': 0}, pair[0], len(data))
    agent.send({'id': 2, 'result': None})
    decoder = frames.Decoder()
    found: Frames = []
    while len(found) < 2:
        found += decoder.feed(os.read(read, 1 << 20))
    assert found == [({'id': 1, 'part': 0}, data), ({'id': 2, 'result': None}, b'')]
    assert pair[0].recv(100) == b'more'
    os.close(read)
    os.close(write)
