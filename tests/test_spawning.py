"""Starting a task's shell, with Pythons and C libraries that have posix_spawn and setsid for it, and without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from remote_runner.agent import spawning, tree
from remote_runner.agent.attempt import Attempt
from remote_runner.agent.strays import UnderWay

CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def _no_setsid(*args: object, **named: object) -> int:
    raise NotImplementedError('posix_spawn: setsid is not supported on this system')


@pytest.fixture(params=['spawn', 'no posix_spawn', 'no setsid'])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != 'spawn':
        monkeypatch.setattr(spawning, '_posix_spawn', None if request.param == 'no posix_spawn' else _no_setsid)
    return str(request.param)


def _files(folder: Path, stdin: str = os.devnull) -> spawning.Files:
    return (stdin, os.O_RDONLY), (str(folder / 'out'), CREATE), (str(folder / 'err'), CREATE)


def test_it_begins_as_it_should(way: str, tmp_path: Path) -> None:
    (tmp_path / 'in').write_bytes(b'given')
    script = b'cat; echo "$A"; echo err >&2; ps -o sid= -p $$; cat /proc/self/status | grep SigIgn; ls /proc/$$/fd'
    before = os.listdir('/proc/self/fd')
    environment = {b'A': b'\xff\n', b'PATH': b'/bin:/usr/bin'}
    pid = spawning.spawn([b'sh', b'-c', script], environment, _files(tmp_path, str(tmp_path / 'in')))
    assert os.waitpid(pid, 0)[1] == 0
    assert os.listdir('/proc/self/fd') == before
    assert (tmp_path / 'err').read_bytes() == b'err\n'
    said = (tmp_path / 'out').read_bytes()
    assert said.startswith(b'given\xff\n\n')
    session, ignored, *files = said[len(b'given\xff\n\n') :].split(b'\n')
    assert int(session) == pid
    pipes = (1 << signal.SIGPIPE - 1) | (1 << signal.SIGXFSZ - 1)
    assert int(ignored.split()[1], 16) & pipes == 0
    assert files[:3] == [b'0', b'1', b'2']
    assert (tmp_path / 'out').stat().st_mode & 0o777 == 0o600


def test_a_program_gets_what_is_open(way: str) -> None:
    read, write = os.pipe()
    pid = spawning.spawn([b'echo', b'a  b'], {}, (read, write, write), '/bin/echo')
    assert os.waitpid(pid, 0)[1] == 0
    os.close(write)
    assert os.read(read, 100) == b'a  b\n'
    os.close(read)


def test_a_terminal_becomes_the_controlling_one(way: str) -> None:
    master, slave = os.openpty()
    name = os.ttyname(slave)
    pid = spawning.spawn([b'sh', b'-c', b'tty; tty </dev/tty; tty <&2'], {}, ((name, os.O_RDWR), 0, 0))
    said = b''
    while said.count(b'\n') < 3:
        said += os.read(master, 100)
    assert said.split()[0] == said.split()[2] == name.encode()
    assert b'not a tty' not in said
    assert os.waitpid(pid, 0)[1] == 0
    os.close(master)
    os.close(slave)


def test_a_file_that_cannot_be_opened(way: str, tmp_path: Path) -> None:
    before = os.listdir('/proc/self/fd')
    with pytest.raises(FileNotFoundError):
        spawning.spawn([b'sh', b'-c', b'true'], {}, _files(tmp_path, str(tmp_path / 'missing')))
    assert os.listdir('/proc/self/fd') == before


def test_a_command_that_is_too_long(way: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match='too long'):
        spawning.spawn([b'sh', b'-c', b'x' * (1 << 18)], {}, _files(tmp_path))


def test_a_zero_byte(way: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='null byte'):
        spawning.spawn([b'sh', b'-c', b'a\0b'], {}, _files(tmp_path))


@pytest.mark.parametrize('has_children_files', [True, False])
def test_what_is_left_behind_is_found(tmp_path: Path, has_children_files: bool) -> None:
    """Also on kernels without the `children` files of proc(5)."""
    program = f"""if True:
        import os, sys, select
        sys.path.insert(0, {str(Path(__file__).resolve().parents[1])!r})
        from remote_runner.agent import strays, tree
        from remote_runner.agent.attempt import Attempt
        from remote_runner.agent.spares import Spares
        if not {has_children_files}:
            tree.children = tree._children_by_scan
        tree.prctl(tree.PR_SET_CHILD_SUBREAPER, 1)
        under_way = strays.UnderWay()
        command = b'(setsid sleep 1000 & setsid env -i sleep 1000 & wait) & sleep 0.3; kill -9 $!; exit 3'
        attempt = Attempt({str(tmp_path)!r}, (0, 1), 0, command, 0, None)
        environment = {{b'PATH': os.fsencode(os.environ['PATH'])}}
        attempt.begin(1, environment, {{}}, Spares({str(tmp_path)!r}))
        under_way.running[attempt.pid] = attempt
        over = []
        seen = set()
        while not under_way.is_idle:
            over += under_way.reap()
            seen |= attempt.strays
            for each in under_way.all():
                each.tick(float('inf'))
            select.poll().poll(20)
        print(over == [attempt], attempt.status, seen != set(), tree.reap())
    """
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ('True 3 True ({}, False)\n', '')


def test_children_are_the_same_with_and_without_their_files() -> None:
    child = subprocess.Popen(['sleep', '1000'])
    try:
        assert child.pid in tree.children(os.getpid())
        assert sorted(tree._children_by_scan(os.getpid())) == sorted(tree.children(os.getpid()))
    finally:
        child.kill()
        child.wait()


def test_nothing_under_way_is_idle() -> None:
    assert UnderWay().is_idle
    assert Attempt('/nowhere', (3, 2), 0, b'', 0, None).name == '3.2'
