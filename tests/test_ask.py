"""Asking the daemon: where there is none, where there is another thing, and where it does not answer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from remote_runner import __version__
from remote_runner.errors import NoDaemon, RemoteRunnerError, RequestFailed
from remote_runner.hosts.address import parse_hosts
from remote_runner.placement.ask import ask
from remote_runner.placement.choose import Report
from remote_runner.placement.told import NOTHING, STALE, hear
from remote_runner.wire import frames


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv('RR_DSHD_SOCKET', str(tmp_path / 'dshd'))
    return tmp_path / 'dshd'


@pytest.fixture
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        yield sock


def answering(listening: socket.socket, answer: bytes) -> threading.Thread:
    """Somebody who gives this answer to the first who asks, and hangs up."""

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_an_answer(listening: socket.socket) -> None:
    asked: list[dict[str, object]] = []

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            [(header, _)] = frames.Decoder().feed(connection.recv(1 << 16))
            asked.append(header)
            answer = frames.encode({'id': header['id'], 'result': {'hosts': ['h1'] * 100000}})
            for begin in range(0, len(answer), 1000):
                connection.sendall(answer[begin : begin + 1000])

    thread = threading.Thread(target=serve)
    thread.start()
    assert ask('best', count=2) == {'hosts': ['h1'] * 100000}
    thread.join()
    assert asked == [{'id': 1, 'op': 'best', 'count': 2}]


def test_a_refusal(listening: socket.socket) -> None:
    error = {'what': 'no host will do', 'kind': 'no host', 'host': None, 'remedy': 'wait', 'status': 3}
    answering(listening, frames.encode({'id': 1, 'error': error}))
    with pytest.raises(RequestFailed, match=r'^no host will do \(wait\)$') as raised:
        ask('best')
    assert (raised.value.kind, raised.value.exit_status) == ('no host', 3)


def test_none(path: Path) -> None:
    with pytest.raises(NoDaemon, match=rf'no daemon listens at {path} \(start it with `remote_runner dshd`\)'):
        ask('ping')


def test_a_socket_left_behind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    with pytest.raises(NoDaemon):
        ask('ping')


def test_one_that_hangs_up(listening: socket.socket) -> None:
    answering(listening, b'')
    with pytest.raises(NoDaemon, match='has just ended'):
        ask('ping')


def test_one_that_does_not_answer(listening: socket.socket, path: Path) -> None:
    with pytest.raises(RemoteRunnerError, match=f'the daemon at {path} has not answered for 0.2 s') as raised:
        ask('ping', timeout=0.2)
    assert not isinstance(raised.value, NoDaemon)


def test_one_that_accepts_nobody(path: Path) -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket(socket.AF_UNIX))
        full.bind(str(path))
        full.listen(0)
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(str(path))
        with pytest.raises(RemoteRunnerError, match=f'the daemon at {path} has accepted nobody for 0.2 s'):
            ask('ping', timeout=0.2)


def test_another_thing(listening: socket.socket) -> None:
    answering(listening, b'HTTP/1.1 400 Bad Request\r\n\r\n')
    with pytest.raises(RemoteRunnerError, match='is no daemon of ours'):
        ask('ping')


def test_a_socket_that_is_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text('')
    with pytest.raises(NoDaemon):
        ask('ping')
    monkeypatch.setenv('RR_DSHD_SOCKET', '/' + 'x' * 200)
    with pytest.raises(RemoteRunnerError, match='see RR_DSHD_SOCKET'):
        ask('ping')


@pytest.mark.skipif(os.getuid() != 0, reason='needs another user')
def test_another_users_daemon(path: Path) -> None:
    script = 'import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.setuid(65534)'
    with subprocess.Popen(
        [sys.executable, '-c', f'{script}; s.listen(); print(flush=True); sys.stdin.read()', path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        says = r'the daemon there is one of the user with uid 65534 \(name another place in RR_DSHD_SOCKET\)'
        with pytest.raises(RemoteRunnerError, match=says):
            ask('ping')
        other.kill()


# What a run asks before it decides where its components are: `told.py`


REPORT = {'load': 1.0, 'cores': 2, 'memory': 8, 'free_memory': 4, 'swap': 0, 'free_swap': 0, 'users': 0, 'tasks': 0}
UP = {
    'name': 'h1',
    'state': 'up',
    'error': None,
    'report': {**REPORT, 'platform': 'linux-x86_64'},
    'age': 0.5,
    'virtual': 1.5,
    'identity': 'a machine',
}
LOST = {**UP, 'name': 'h2', 'state': 'lost', 'error': 'no route to host', 'identity': None}


def test_what_is_told(listening: socket.socket) -> None:
    hosts = [
        UP,
        LOST,
        {**LOST, 'name': 'h3', 'error': 'it is another name of h1', 'identity': 'a machine'},
        {**UP, 'name': 'h4', 'state': 'connecting', 'identity': 'another'},
        {**UP, 'name': 'h5', 'age': STALE + 1, 'identity': 'one more'},
    ]
    answering(listening, frames.encode({'id': 1, 'result': {'hosts': hosts, 'version': __version__}}))
    told = hear(parse_hosts(['h[1-6] 2']))
    assert {name: (host.name, host.virtual, host.load_weight) for name, host in told.known.items()} == {
        'h1': ('h1', 1.5, 2.0),
        'h3': ('h3', 1.5, 2.0),
    }
    assert told.known['h1'].report == Report(**{**REPORT, 'platform': 'linux-x86_64'})
    assert told.lost == {'h2': 'no route to host (so says the daemon)'}
    assert told.machines == {'h1': 'a machine', 'h3': 'a machine'}
    assert told.names['h3'] == 'h1'


@pytest.mark.parametrize(
    'result',
    [
        {'hosts': [UP]},
        {'hosts': [UP], 'version': '0.0'},
        {'version': __version__},
        {'hosts': ['h1'], 'version': __version__},
        {'hosts': [{'name': 'h1'}], 'version': __version__},
        {'hosts': [{**UP, 'report': {'load': 1.0}}], 'version': __version__},
        {'hosts': [{**UP, 'virtual': 'much'}], 'version': __version__},
        ['h1'],
    ],
)
def test_what_cannot_be_understood_is_left(
    listening: socket.socket, result: object, caplog: pytest.LogCaptureFixture
) -> None:
    answering(listening, frames.encode({'id': 1, 'result': result}))
    with caplog.at_level('DEBUG'):
        assert hear(parse_hosts(['h1'])) == NOTHING
    [said] = caplog.records
    assert said.levelname == 'DEBUG'


@pytest.mark.parametrize('answer', [b'', b'HTTP/1.1 400 Bad Request\r\n\r\n', frames.encode({'id': 1})])
def test_who_cannot_tell_is_in_nobodys_way(
    listening: socket.socket, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answering(listening, answer)
    assert hear(parse_hosts(['h1'])) == NOTHING
    assert not caplog.records


def test_what_was_chosen_is_told_to_a_daemon_that_has_ended(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level('DEBUG'):
        NOTHING.choose(Counter(['h1', 'h2']))
    [said] = caplog.messages
    assert 'no daemon listens' in said
