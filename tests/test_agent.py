"""The agent on this machine: how it is brought over, kept and shared, and what becomes of it when all goes wrong."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from remote_runner.errors import BootstrapFailed, ConnectionLost, HostError, HostSilent, RequestFailed
from remote_runner.hosts import local
from remote_runner.hosts.bootstrap import NUDGE, agent_key
from remote_runner.hosts.call import Header
from remote_runner.hosts.host import Host
from remote_runner.hosts.local import LocalConnection
from remote_runner.wire import frames
from tests.commands import ROOT
from tests.testbed.process import await_stop


def ignore(host: Host, header: Header) -> None:
    """Nothing that an agent says unasked matters here."""


@pytest.fixture
def host(home: Path) -> Iterator[Host]:
    with Host('localhost', LocalConnection(), ignore) as connected:
        yield connected


def cached(home: Path) -> list[Path]:
    """The agents that lie in the cache."""
    return sorted((home / '.cache' / 'remote_runner').iterdir())


def run(host: Host, command: str) -> tuple[bytes, int]:
    """stdout and exit status of a command."""
    call = host.call('exec', command=command)
    out = b''.join(body for stream, body in call.parts() if stream == 'out')
    return out, call.result()['status']


def test_is_stored_once_and_found_again(home: Path) -> None:
    for _ in range(2):
        with Host('localhost', LocalConnection(), ignore) as host:
            assert host.facts.home == str(home)
    (folder,) = cached(home)
    assert folder.name.startswith(agent_key())
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_damaged_copy_is_replaced(home: Path) -> None:
    Host('localhost', LocalConnection(), ignore).close()
    (folder,) = cached(home)
    (folder / 'remote_runner' / 'agent' / 'main.pyc').write_bytes(b'rubbish')
    with Host('localhost', LocalConnection(), ignore) as host:
        assert run(host, 'echo works') == (b'works\n', 0)
    assert cached(home) == [folder]
    assert (folder / 'remote_runner' / 'agent' / 'main.pyc').read_bytes() != b'rubbish'


#: Modules that are imported at the start, when something is brought, and never.
MODULES = ('agent/main', 'agent/put', 'agent/store', 'wire/rules')
DAMAGE = ('shorter', 'empty', 'zeros', 'flipped', 'another', 'gone', 'folder', 'loop')


def _damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == 'shorter':
        path.write_bytes(content[: len(content) // 2])
    elif how == 'empty':
        path.write_bytes(b'')
    elif how == 'zeros':
        path.write_bytes(bytes(len(content)))
    elif how == 'flipped':
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :])
    elif how == 'another':
        path.write_bytes(path.with_name('__init__.pyc').read_bytes())
    else:
        path.unlink()
        if how == 'folder':
            path.mkdir()
            (path / 'in it').touch()
        elif how == 'loop':
            path.symlink_to(path.name)


def _all_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize('how', DAMAGE)
@pytest.mark.parametrize('what', [f'remote_runner/{name}.pyc' for name in MODULES])
def test_what_is_damaged_is_sent_again(home: Path, what: str, how: str) -> None:
    """Also what is only imported when it is needed; some damage would end the interpreter that imports it."""
    Host('localhost', LocalConnection(), ignore).close()
    (folder,) = cached(home)
    before = _all_in(folder)
    _damage(folder / what, how)
    for _ in range(2):
        with Host('localhost', LocalConnection(), ignore) as host:
            call = host.call('put', cache=False, folders=[], links=[], times=[], spared=[], modes=[], bits=[])
            call.finish()
            call.result()
            assert cached(home) == [folder]
            assert _all_in(folder) == before
            assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize('how', [how for how in DAMAGE if how != 'another'])
def test_the_check_itself_is_damaged(home: Path, how: str) -> None:
    Host('localhost', LocalConnection(), ignore).close()
    (folder,) = cached(home)
    before = _all_in(folder)
    _damage(folder / 'check', how)
    Host('localhost', LocalConnection(), ignore).close()
    assert cached(home) == [folder]
    assert _all_in(folder) == before


@pytest.mark.parametrize('how', ['file', 'link', 'empty', 'closed'])
def test_something_else_is_where_the_agent_should_be(home: Path, how: str) -> None:
    Host('localhost', LocalConnection(), ignore).close()
    (folder,) = cached(home)
    before = _all_in(folder)
    if how == 'closed':
        (folder / 'remote_runner').chmod(0)
        (folder / 'check').chmod(0)
        (folder / 'check').write_bytes(b'')
        folder.chmod(0)
    else:
        shutil.rmtree(folder)
        if how == 'file':
            folder.write_text('in the way')
        elif how == 'link':
            folder.symlink_to('nowhere')
        else:
            folder.mkdir()
    for _ in range(2):
        with Host('localhost', LocalConnection(), ignore) as host:
            assert run(host, 'echo works') == (b'works\n', 0)
            assert cached(home) == [folder]
            assert _all_in(folder) == before


def test_many_at_once_repair_a_damaged_copy(home: Path) -> None:
    Host('localhost', LocalConnection(), ignore).close()
    (folder,) = cached(home)
    before = _all_in(folder)
    _damage(folder / 'remote_runner/agent/put.pyc', 'flipped')

    def start(_: int) -> str:
        with Host('localhost', LocalConnection(), ignore) as host:
            return host.facts.home

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(start, range(16))) == {str(home)}
    assert cached(home) == [folder]
    assert _all_in(folder) == before


def test_many_at_once_in_one_home_leave_one_copy(home: Path) -> None:
    def start(_: int) -> str:
        with Host('localhost', LocalConnection(), ignore) as host:
            return host.facts.home

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(start, range(16))) == {str(home)}
    assert len(cached(home)) == 1


def test_a_home_that_cannot_be_written_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', '/proc')  # not even root can write there
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    with Host('localhost', LocalConnection(), ignore) as host:
        assert run(host, 'echo works') == (b'works\n', 0)


def test_answers_many_requests_at_once(host: Host) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: run(host, f'echo {number}; exit {number}'), range(40)))
    assert answers == [(b'%d\n' % number, number) for number in range(40)]


def test_a_stream_that_nobody_reads_blocks_nothing_else(host: Host) -> None:
    flood = host.call('exec', command='head -c 50000000 /dev/zero; exit 5')
    assert run(host, 'echo still there') == (b'still there\n', 0)
    assert sum(len(body) for _, body in flood.parts()) == 50_000_000
    assert flood.result()['status'] == 5


def test_what_it_cannot_do_it_says(host: Host) -> None:
    modes = [['/no/such/folder', 0o600]]
    call = host.call('put', cache=False, folders=[], links=[], times=[], spared=[], modes=modes)
    call.finish()
    with pytest.raises(RequestFailed, match=r'localhost: .*/no/such/folder') as caught:
        call.result()
    assert caught.value.errno_name == 'ENOENT'


def test_a_silent_agent_is_an_error_with_its_time_limit(host: Host) -> None:
    os.kill(host.facts.pid, signal.SIGSTOP)
    await_stop(host.facts.pid)
    try:
        with pytest.raises(HostSilent, match='describe'):
            host.request('describe', timeout=0.1)
    finally:
        os.kill(host.facts.pid, signal.SIGCONT)
    assert host.request('describe')['pid'] == host.facts.pid


def test_a_killed_agent_is_a_lost_connection(home: Path) -> None:
    told = threading.Event()
    events: list[Header] = []

    def hear(host: Host, header: Header) -> None:
        events.append(header)
        told.set()

    with Host('localhost', LocalConnection(), hear) as host:
        call = host.call('exec', command='sleep 1000')
        os.kill(host.facts.pid, signal.SIGKILL)
        with pytest.raises(ConnectionLost):
            call.result(timeout=30)
        assert told.wait(30)
        with pytest.raises(HostError):
            host.request('describe')
    assert [event['event'] for event in events] == ['lost']


def test_its_commands_end_with_the_connection(host: Host) -> None:
    call = host.call('exec', command='trap "" HUP; echo $$; exec sleep 1000')
    _, pid = next(iter(call.parts()))
    pidfd = os.pidfd_open(int(pid))
    try:
        host.close()
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(30_000), 'the command runs on'
    finally:
        os.close(pidfd)


@pytest.mark.parametrize('op', ['run', 'exec'])
def test_without_a_sign_of_life_it_ends_with_its_commands(home: Path, op: str) -> None:
    """As where the network is cut: nothing says that the connection is gone. It is a minute elsewhere."""
    code = 'import sys; sys.path.insert(0, sys.argv[1]); from remote_runner.agent import main; '
    code += 'main.SILENCE = 2.0; main.main()'
    argv = [sys.executable, '-ISc', code, str(ROOT)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        text = 'trap "" HUP TERM; sleep 3030 & echo $!; wait; wait'
        how = {'argv': ['sh', '-c', text], 'cwd': '/', 'umask': 0, 'env': {}, 'terminal': None, 'command': text}
        agent.stdin.write(frames.encode({'id': 0, 'op': 'ping'}) + frames.encode({'id': 1, 'op': op, **how}))
        agent.stdin.flush()
        decoder = frames.Decoder()
        out = b''
        while not out.endswith(b'\n'):
            out += b''.join(body for _, body in decoder.feed(os.read(agent.stdout.fileno(), 1 << 16)))
        sleeps = os.pidfd_open(int(out))
        try:
            poll = select.poll()
            poll.register(sleeps, select.POLLIN)
            assert poll.poll(60_000), 'the command runs on'
        finally:
            os.close(sleeps)
        assert agent.wait(60) == 0


def test_no_python_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('PATH', '/nowhere')
    monkeypatch.setattr('remote_runner.hosts.bootstrap._PYTHONS', 'python3')
    with pytest.raises(BootstrapFailed, match='install the package python3'):
        Host('localhost', LocalConnection(), ignore)


def test_a_host_that_is_slow_to_load_its_agent(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start-up files may wait for input; once our own code runs there, nothing goes over that it did not ask for."""

    class Slow(local.LocalChannel):
        is_ours = False

        def read(self, size: int, timeout: float | None = None) -> bytes:
            if self.is_ours and timeout is not None and timeout <= NUDGE:
                raise TimeoutError
            return super().read(size, timeout)

        def write(self, data: bytes | memoryview) -> None:
            self.is_ours = True
            super().write(data)

    monkeypatch.setattr(local, 'LocalChannel', Slow)
    with Host('localhost', LocalConnection(), ignore) as host:
        assert host.request('describe')['pid'] == host.facts.pid
