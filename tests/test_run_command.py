"""The agent's operation `run`: one command with its streams, its signals, its terminal and its end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from remote_runner.errors import HostError, RequestFailed
from remote_runner.hosts.address import parse_address
from remote_runner.hosts.call import Call, Header
from remote_runner.hosts.host import Host
from remote_runner.hosts.local import LocalConnection
from remote_runner.hosts.pool import connect
from remote_runner.hosts.ssh import Connector, SshOptions
from remote_runner.wire import frames
from tests.commands import nothing_runs
from tests.testbed import Testbed
from tests.testbed.process import wait_until

TERMINAL = {'term': 'xterm', 'rows': 21, 'columns': 77}


class Ran(NamedTuple):
    """What came of a command."""

    status: int
    out: bytes
    err: bytes
    why: str | None


def ignore(host: Host, header: Header) -> None:
    """Nothing that an agent says unasked matters here."""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """The agent of this machine, in a home of its own."""
    (tmp_path / 'home').mkdir()
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    with Host('localhost', LocalConnection(), ignore) as connected:
        yield connected


@pytest.fixture
def far(bed: Testbed) -> Iterator[Host]:
    """The agent of a test host, which is at rest afterwards."""
    with (
        Connector(SshOptions(config_file=str(bed.ssh_config))) as connector,
        connect(parse_address('h1'), connector, ignore) as host,
    ):
        yield host
    nothing_runs(bed['h1'])


def start(host: Host, *argv: str | bytes, cwd: str = '/', **fields: Any) -> Call:
    words = [os.fsdecode(word) for word in argv]
    return host.call('run', argv=words, cwd=cwd, **{'umask': 0o22, 'env': {}, 'terminal': None, **fields})


def end(call: Call) -> Ran:
    streams: dict[str, list[bytes]] = {'out': [], 'err': [], 'closed': [], 'signalled': []}
    for stream, body in call.parts():
        streams[stream].append(body)
    result = call.result()
    return Ran(result['status'], b''.join(streams['out']), b''.join(streams['err']), result.get('why'))


def run(host: Host, *argv: str | bytes, stdin: bytes = b'', **fields: Any) -> Ran:
    call = start(host, *argv, **fields)
    if stdin:
        call.send('in', stdin)
    call.finish()
    return end(call)


def script(host: Host, text: str, **fields: Any) -> Ran:
    return run(host, 'sh', '-c', text, **fields)


class TestWhatItIsGiven:
    @pytest.mark.parametrize(
        'words',
        [
            [b'-DUTS="i386"', b"-DX='\"y\"'"],
            [b''],
            [b'', b' ', b'\n', b'\t'],
            [b'\xff\xfe', 'Grüße'.encode()],
            [b'$HOME', b'*', b'`id`'],
        ],
    )
    def test_its_words_are_exactly_these(self, host: Host, words: list[bytes]) -> None:
        tell = 'import os, sys; os.write(1, b"\\0".join(map(os.fsencode, sys.argv[1:])))'
        ran = run(host, sys.executable, '-c', tell, *words)
        assert ran == (0, b'\0'.join(words), b'', None)

    def test_folder_and_umask(self, host: Host, tmp_path: Path) -> None:
        ran = script(host, 'pwd -P; umask; >made', cwd=str(tmp_path), umask=0o027)
        assert ran == (0, f'{tmp_path}\n0027\n'.encode(), b'', None)
        assert (tmp_path / 'made').stat().st_mode & 0o777 == 0o640

    def test_a_folder_that_is_not_there(self, host: Host) -> None:
        with pytest.raises(RequestFailed, match='/no/such/folder') as failed:
            run(host, 'true', cwd='/no/such/folder')
        assert (failed.value.kind, failed.value.errno_name) == ('cwd', 'ENOENT')

    def test_the_environment_lies_over_that_of_a_login(self, host: Host) -> None:
        value = 'a\nb \udcff'
        ran = run(host, 'sh', '-c', 'printf %s "$NEW"; echo; echo $HOME', env={'NEW': value})
        assert ran.out == b'a\nb \xff\n' + os.environ['HOME'].encode() + b'\n'
        assert script(host, 'echo $PWD-$HOME', env={'HOME': '/x'}).out == b'/-/x\n'

    def test_programs_are_looked_for_along_the_path_that_it_is_given(self, host: Host, tmp_path: Path) -> None:
        for name, text in (('one', '#!/bin/sh\necho with'), ('two', 'echo without $0 $1'), ('three', '#!/no/sh\n')):
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        env = {'PATH': f'/nowhere:{tmp_path}:/bin:/usr/bin'}
        assert run(host, 'one', env=env) == (0, b'with\n', b'', None)
        assert run(host, 'two', 'word', env=env).out == f'without {tmp_path}/two word\n'.encode()
        assert run(host, './one', cwd=str(tmp_path)).out == b'with\n'
        assert run(host, 'one') == (127, b'', b'', 'there is no such program')
        assert run(host, 'three', env=env)[::3] == (127, 'its interpreter is missing')

    def test_what_cannot_be_executed(self, host: Host) -> None:
        assert run(host, '/etc/passwd') == (126, b'', b'', 'Permission denied')
        assert run(host, '/etc') == (126, b'', b'', 'Permission denied')
        assert run(host, '/etc/passwd/x')[::3] == (127, 'Not a directory')
        assert run(host, 'true', 'x' * (1 << 18))[::3] == (126, 'Argument list too long')
        with pytest.raises(RequestFailed, match='zero byte'):
            run(host, 'true', '\0')

    def test_signals_are_as_in_a_new_shell(self, host: Host) -> None:
        said = run(host, 'sed', '-n', 's/^Sig[BIC][lgk][knt]://p', '/proc/self/status').out.split()
        glibc = 1 << 31 | 1 << 32  # posix_spawn(3) of glibc ignores the two signals that it keeps for itself
        assert {int(mask, 16) & ~glibc for mask in said} == {0}
        assert len(said) == 3


class TestStreams:
    def test_they_are_separate_and_any_bytes(self, host: Host) -> None:
        ran = script(host, r"cat; printf '\377\000' >&2", stdin=b'\0\xff\r\n')
        assert ran == (0, b'\0\xff\r\n', b'\xff\0', None)

    def test_100_mb_both_ways_at_once(self, host: Host) -> None:
        block = os.urandom(1 << 16)
        call = start(host, 'cat')

        def feed() -> None:
            for _ in range(1600):
                assert call.send('in', block)
            call.finish()

        feeder = threading.Thread(target=feed)
        feeder.start()
        came = b''
        count = 0
        for stream, body in call.parts():
            assert stream == 'out'
            came += body
            while len(came) >= len(block):
                assert came.startswith(block)
                came = came[len(block) :]
                count += 1
        feeder.join()
        assert (call.result(), count, came) == ({'status': 0}, 1600, b'')

    def test_it_may_end_without_having_read_its_input(self, host: Host) -> None:
        call = start(host, 'sh', '-c', 'head -c 3; exec <&-; echo; sleep 0.2; echo more')
        body = b'abc' + bytes(1 << 15)
        closed = threading.Event()

        def feed() -> None:
            while call.send('in', body):
                continue
            closed.set()

        feeder = threading.Thread(target=feed)
        feeder.start()
        assert end(call)[:2] == (0, b'abc\nmore\n')
        feeder.join()
        assert closed.is_set()

    def test_it_is_told_when_nobody_reads_its_input(self, host: Host) -> None:
        call = start(host, 'sh', '-c', 'exec <&-; exec sleep 1010')
        assert next(call.parts()) == ('closed', b'')
        call.cancel()

    def test_it_is_told_when_nobody_reads_its_output(self, host: Host) -> None:
        call = start(host, 'sh', '-c', 'yes >&2; kill -l $?; exec yes')
        for part, _ in call.parts():
            host.write({'id': call._number, 'part': ['close', part]})
        assert call.result() == {'status': 128 + signal.SIGPIPE}

    def test_what_it_leaves_behind_stays_and_is_not_waited_for(self, far: Host, bed: Testbed) -> None:
        assert script(far, 'sleep 1011 & echo $!').status == 0
        ran = script(far, 'setsid sh -c "yes | head -c 100000000 >&2; exec sleep 1012" & echo started')
        assert ran[:2] == (0, b'started\n')
        far.close()
        wait_until(lambda: words(bed) == {'sleep', '1011', '1012'}, 'they stay alone')
        bed['h1'].run(['pkill', '-KILL', 'sleep'])

    def test_a_side_that_does_not_read_blocks_nothing_else(self, host: Host) -> None:
        flood = start(host, 'sh', '-c', 'head -c 50000000 /dev/zero; echo over >&2')
        assert script(host, 'echo still there').out == b'still there\n'
        before = cpu_seconds(host.facts.pid)
        assert script(host, 'sleep 0.5').status == 0
        assert cpu_seconds(host.facts.pid) - before < 0.3
        flood.finish()
        ran = end(flood)
        assert (len(ran.out), ran.err) == (50_000_000, b'over\n')


def cpu_seconds(pid: int) -> float:
    """What a process has used (proc(5), `stat`)."""
    with open(f'/proc/{pid}/stat') as stat:
        fields = stat.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


class TestSignals:
    @pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1])
    def test_a_signal_ends_it(self, host: Host, number: int) -> None:
        call = start(host, 'sh', '-c', 'ulimit -c 0; echo up; exec sleep 1020')
        parts = call.parts()
        assert next(parts)[1] == b'up\n'
        host.write({'id': call._number, 'part': ['signal', number]})
        assert end(call).status == 128 + number

    def test_it_reaches_all_of_its_group_and_can_be_caught(self, host: Host) -> None:
        text = '(trap "echo below; exit" TERM; echo up; while :; do sleep 0.01; done) & trap "wait; exit 7" TERM; wait'
        call = start(host, 'sh', '-c', text)
        assert next(call.parts())[1] == b'up\n'
        host.write({'id': call._number, 'part': ['signal', signal.SIGTERM]})
        assert end(call)[:2] == (7, b'below\n')

    def test_it_does_not_wait_behind_input(self, host: Host) -> None:
        call = start(host, 'sh', '-c', 'echo up; exec sleep 1021')
        assert next(call.parts())[1] == b'up\n'
        call.send('in', bytes(frames.WINDOW))  # all that may be under way
        host.write({'id': call._number, 'part': ['signal', signal.SIGINT]})
        assert end(call).status == 130

    def test_stopped_and_continued(self, host: Host) -> None:
        call = start(host, 'sh', '-c', 'echo $$; read line; echo on')
        parts = call.parts()
        pid = int(next(parts)[1])

        def state() -> str:
            with open(f'/proc/{pid}/stat') as stat:
                return stat.read().rpartition(')')[2].split()[0]

        host.write({'id': call._number, 'part': ['signal', signal.SIGSTOP]})
        wait_until(lambda: state() == 'T', 'it is stopped')
        host.write({'id': call._number, 'part': ['signal', signal.SIGCONT]})
        call.send('in', b'\n')
        assert end(call)[:2] == (0, b'on\n')


class TestTerminal:
    def test_it_is_one(self, host: Host) -> None:
        ran = script(host, 'tty; stty size; echo $TERM; echo err >&2; ps -o tpgid= -p $$; echo $$', terminal=TERMINAL)
        tty, size, term, err, group, pid = ran.out.split(b'\r\n')[:-1]
        assert tty.startswith(b'/dev/pts/')
        assert (size, term, err, ran.err, int(group)) == (b'21 77', b'xterm', b'err', b'', int(pid))

    def test_nothing_of_what_it_said_last_is_lost(self, host: Host) -> None:
        for _ in range(30):
            assert script(host, 'seq 2000; echo end', terminal=TERMINAL).out.endswith(b'2000\r\nend\r\n')

    def test_keys_and_size(self, host: Host) -> None:
        text = 'trap "stty size" WINCH; trap "echo caught; exit 3" INT; echo up; while :; do read x; done'
        call = start(host, 'sh', '-c', text, terminal=TERMINAL)
        seen = b''
        for _, body in call.parts():
            before, seen = seen, seen + body
            if b'up\r\n' in seen and b'up\r\n' not in before:
                host.write({'id': call._number, 'part': ['size', 30, 90]})
            if b'30 90' in seen and b'30 90' not in before:
                call.send('in', b'\x03')
        assert call.result() == {'status': 3}
        assert seen.endswith(b'caught\r\n')

    def test_the_end_of_its_input(self, host: Host) -> None:
        ran = run(host, 'cat', terminal=TERMINAL, stdin=b'line\n')
        assert ran[:2] == (0, b'line\r\nline\r\n')

    def test_it_stays_although_nobody_has_it_open(self, host: Host) -> None:
        """Programs close their streams before they end, some long before."""
        text = 'exec </dev/null >/dev/null 2>&1; sleep 0.3; echo still there >/dev/tty; exit 3'
        assert script(host, text, terminal=TERMINAL)[:2] == (3, b'still there\r\n')

    def test_a_signal_goes_to_who_is_in_front(self, host: Host) -> None:
        call = start(host, 'bash', '-ic', 'bash -c "echo up; exec sleep 1022"; echo status $?', terminal=TERMINAL)
        said = b''
        for _, body in call.parts():
            if b'up' in body:
                host.write({'id': call._number, 'part': ['signal', signal.SIGTERM]})
            said += body
        assert call.result() == {'status': 0}
        assert said.endswith(b'status 143\r\n')


#: Ignores what it can, and has children that hide: in other sessions, their parents gone.
STUBBORN = 'trap "" TERM HUP INT; (setsid sh -c "sleep 1030 & sleep 1031 &"); sleep 1032 & echo up; sleep 1033'


class TestItsEnd:
    @pytest.fixture(params=[None, TERMINAL], ids=['pipes', 'terminal'])
    def running(self, request: pytest.FixtureRequest, far: Host, bed: Testbed) -> Call:
        call = start(far, 'sh', '-c', STUBBORN, terminal=request.param)
        for _, body in call.parts():
            if b'up' in body:
                break
        wait_until(lambda: {'1030', '1031', '1032', '1033'} <= words(bed), 'all of it runs')
        return call

    def test_cancelled(self, running: Call, far: Host, bed: Testbed) -> None:
        running.cancel()
        with pytest.raises(RequestFailed, match='cancelled'):
            running.result()
        assert 'sleep' not in words(bed)
        assert script(far, 'echo good').out == b'good\n'

    def test_the_connection_ends(self, running: Call, far: Host, bed: Testbed) -> None:
        far.close()
        nothing_runs(bed['h1'])

    def test_the_agent_is_killed(self, running: Call, far: Host, bed: Testbed) -> None:
        bed['h1'].run(['kill', '-KILL', str(far.facts.pid)])
        with pytest.raises(HostError):
            running.result()
        wait_until(lambda: not any(word == 'sleep' or 'starter.py' in word for word in words(bed)), 'nothing is left')

    @pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
    @pytest.mark.parametrize('which', [0, 1], ids=['starter', 'minder'])
    def test_what_stands_above_it_is_killed(
        self, running: Call, far: Host, bed: Testbed, which: int, number: signal.Signals
    ) -> None:
        above = [p.pid for p in bed['h1'].processes() if any('/starter.py' in word for word in p.argv)]
        bed['h1'].run(['kill', f'-{number.value}', str(sorted(above)[which])])
        with pytest.raises(RequestFailed, match='was killed'):
            running.result()
        wait_until(lambda: 'sleep' not in words(bed), 'nothing of it is left')
        assert script(far, 'echo good').out == b'good\n'  # there is another one

    @pytest.mark.parametrize('terminal', [None, TERMINAL], ids=['pipes', 'terminal'])
    def test_all_above_it_is_killed(self, far: Host, bed: Testbed, terminal: Header | None) -> None:
        text = 'trap "" TERM HUP; (sleep 1034 &); setsid sh -c "sleep 1035; :" & sleep 1036; :'
        running = start(far, 'sh', '-c', text, terminal=terminal)
        wait_until(lambda: {'1034', '1035', '1036'} <= words(bed), 'all of it runs')
        above = [p.pid for p in bed['h1'].processes() if any('/starter.py' in word for word in p.argv)]
        bed['h1'].run(['kill', '-KILL', *map(str, above)])
        with pytest.raises(RequestFailed, match='was killed'):
            running.result()
        assert 'sleep' not in words(bed)
        assert script(far, 'echo good').out == b'good\n'
        parents = bed['h1'].run(['ps', '-o', 'stat=', '--ppid', str(far.facts.pid)])
        assert b'Z' not in parents.stdout

    def test_others_go_on(self, running: Call, far: Host, bed: Testbed) -> None:
        other = start(far, 'cat')
        running.cancel()
        with pytest.raises(RequestFailed, match='cancelled'):
            running.result()
        other.send('in', b'here')
        other.finish()
        assert end(other)[:2] == (0, b'here')


def words(bed: Testbed) -> set[str]:
    return {word for process in bed['h1'].processes() for word in process.argv}


def test_200_at_once(host: Host) -> None:
    calls = [start(host, 'sh', '-c', f'cat; exit {number % 100}') for number in range(200)]
    for number, call in enumerate(calls):
        call.send('in', b'%d' % number)
        call.finish()
    assert [end(call)[:2] for call in calls] == [(number % 100, b'%d' % number) for number in range(200)]
    proc = f'/proc/{host.facts.pid}'
    wait_until(lambda: len(os.listdir(f'{proc}/task')) == 1, 'the threads of the commands to end')
    assert len(os.listdir(f'{proc}/fd')) < 20

