"""`remote_runner dsh`: a command elsewhere is as one here."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from remote_runner.placement import attended
from remote_runner.placement.command_line import ENVIRONMENT, without_jobserver
from tests.commands import COMMAND, ROOT, environment, nothing_runs
from tests.dshing import Dsh, Served
from tests.privileges import NOBODY, unprivileged
from tests.testbed import HostProcess, Testbed, TestbedError
from tests.testbed.process import wait_until

PATIENCE = 30


@pytest.fixture(scope='module')
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two hosts that share a folder with us."""
    folder = tmp_path_factory.mktemp('dsh')
    shared = folder / 'shared'
    shared.mkdir()
    (folder / 'loadavg').write_text('0.00 0.00 0.00 1/1 1\n')
    with Testbed(count=2) as bed:
        for host in bed.hosts:
            host.share(str(shared), shared)
            host.share('/proc/loadavg', folder / 'loadavg')  # else it is this machine's
        with Served(bed, folder) as served:
            yield served


@pytest.fixture
def dsh(served: Served, tmp_path: Path) -> Dsh:
    folder = Path(tempfile.mkdtemp(dir=served.socket.parent / 'shared'))
    return Dsh(served, tmp_path / 'home', folder)


def words_of(served: Served) -> set[str]:
    """All words of what runs on the hosts."""
    return {word for host in served.bed.hosts for process in host.processes() for word in process.argv}


class TestExitStatus:
    @pytest.mark.parametrize('status', [0, 1, 2, 3, 77, 126, 127, 130, 255])
    def test_of_the_command(self, dsh: Dsh, status: int) -> None:
        assert dsh.script(f'exit {status}', status=status).stderr == ''

    @pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV, signal.SIGPIPE])
    def test_of_a_signal(self, dsh: Dsh, number: int) -> None:
        assert dsh.script(f'ulimit -c 0; kill -{int(number)} $$', status=128 + number).stderr == ''

    def test_of_what_is_not_there(self, dsh: Dsh) -> None:
        done = dsh.dsh('no-such-program', '-x', status=127)
        assert re.fullmatch(r'ERROR: h[12]: no-such-program: there is no such program\n', done.stderr)

    @pytest.mark.parametrize('line', ['echo a; echo b', 'ls|wc', 'make all'])
    def test_of_a_line_for_a_shell(self, dsh: Dsh, line: str) -> None:
        done = dsh.dsh(line, status=127)
        what = re.escape(f'{line}: there is no such program')
        assert re.fullmatch(rf"ERROR: h[12]: {what} \(no shell reads .*: dsh sh -c '\.\.\.'\)\n", done.stderr)

    def test_of_what_cannot_be_executed(self, dsh: Dsh) -> None:
        (dsh.folder / 'data').write_text('x')
        done = dsh.dsh('./data', status=126)
        assert re.fullmatch(r'ERROR: h[12]: \./data: Permission denied\n', done.stderr)

    def test_of_a_mistake(self, dsh: Dsh) -> None:
        for words in ([], ['--nonsense', 'true'], ['--min-memory', 'much', 'true'], ['--exclude'], ['-v', '--']):
            done = dsh.dsh(*words, status=2)
            assert done.stderr.startswith('ERROR: ')


class TestJson:
    def test_one_object(self, dsh: Dsh) -> None:
        [found] = dsh.script(r"printf 'a\377\000'; echo err >&2; exit 4", '--json', status=4).objects
        assert found.pop('seconds') >= 0
        assert found.pop('host') in ('h1', 'h2')
        assert found == {'status': 4, 'stdout': 'a\ufffd\0', 'stderr': 'err\n'}

    def test_an_error_is_none(self, dsh: Dsh) -> None:
        done = dsh.dsh('--json', '--exclude', 'h*', 'true', status=1)
        assert done.stdout == ''
        assert done.stderr.startswith('ERROR: ')


class TestStreams:
    def test_they_are_separate_and_any_bytes(self, dsh: Dsh) -> None:
        with open(dsh.folder / 'in', 'wb+') as stdin:
            stdin.write(b'\0\xff\r\n')
            stdin.seek(0)
            done = dsh.script(r"cat; printf '\377\000' >&2", stdin=stdin)
        assert (done.out, done.stderr.encode('utf-8', 'surrogateescape')) == (b'\0\xff\r\n', b'\xff\0')

    def test_100_mb_through_both_at_once(self, dsh: Dsh) -> None:
        block = os.urandom(1 << 20)
        with open(dsh.folder / 'in', 'wb') as file:
            for number in range(100):
                file.write(number.to_bytes(4, 'big') + block)
        with open(dsh.folder / 'in', 'rb') as stdin, open(dsh.folder / 'out', 'wb') as stdout:
            done = dsh.dsh('cat', stdin=stdin, stdout=stdout)
        assert subprocess.run(['cmp', dsh.folder / 'in', dsh.folder / 'out'], check=False).returncode == 0
        assert done.peak < 60

    def test_a_pipe_that_is_slow_is_not_filled_into_memory(self, dsh: Dsh) -> None:
        done = dsh.shell('$DSH head -c 40000000 /dev/zero | (sleep 1; wc -c)')
        assert (done.stdout.strip(), done.stderr) == (b'40000000', b'')

    def test_whoever_read_enough_ends_it(self, dsh: Dsh) -> None:
        done = dsh.shell('($DSH yes; echo $? >&2) | head -1')
        assert (done.stdout, done.stderr) == (b'y\n', b'141\n')

    def test_nobody_reads_what_we_read(self, dsh: Dsh) -> None:
        text = 'yes | $DSH sh -c "head -1; exec <&-; sleep 0.5; echo over"; echo ${PIPESTATUS[@]}'
        done = dsh.shell(text, 'bash')
        assert (done.stdout, done.stderr) == (b'y\nover\n141 0\n', b'')

    @pytest.mark.parametrize('closed', ['<&-', '>&-', '2>&-', '<&- >&- 2>&-'])
    def test_closed_ones(self, dsh: Dsh, closed: str) -> None:
        text = f'$DSH sh -c "cat; echo out; echo err >&2; exit 5" {closed}'
        done = dsh.shell(text, stdin=subprocess.DEVNULL)
        assert done.returncode == 5
        assert done.stdout == (b'' if ' >&-' in f' {closed}' else b'out\n')
        assert done.stderr == (b'' if '2>&-' in closed else b'err\n')

    def test_input_is_left_alone_if_asked(self, dsh: Dsh) -> None:
        done = dsh.shell('while read line; do $DSH -n echo $line; done', input=b'1\n2\n3\n')
        assert done.stdout == b'1\n2\n3\n'

    def test_a_full_disk(self, dsh: Dsh) -> None:
        with open('/dev/full', 'wb') as full:
            done = dsh.dsh('yes', stdout=full, status=141)
        assert done.stderr == 'ERROR: the output cannot be written: No space left on device\n'

    def test_what_is_lost_on_a_full_disk_is_no_success(self, dsh: Dsh) -> None:
        with open('/dev/full', 'wb') as full:
            assert dsh.script('echo lost', stdout=full, status=1).stderr.startswith('ERROR: the output cannot be')
            assert dsh.script('echo lost; exit 7', stdout=full, status=7).stderr.startswith('ERROR: ')


class TestWhatItIsGiven:
    @pytest.mark.parametrize(
        'words',
        [
            ['-DUTS="i386"', "it's", '$HOME', '*', '\\', '`id`', '-v', '--', '--exclude', 'h1'],
            ['', ' ', '\n', '\t\n '],
            ['Grüße', b'\xff\xfe'],
        ],
    )
    def test_its_words(self, dsh: Dsh, words: list[str | bytes]) -> None:
        done = dsh.dsh('printf', '%s\\0', *map(os.fsdecode, words))
        assert done.out == b''.join(os.fsencode(word) + b'\0' for word in words)

    def test_folder_and_umask(self, dsh: Dsh) -> None:
        (dsh.folder / 'below').mkdir()
        done = dsh.script('pwd; umask; >made', cwd=dsh.folder / 'below', umask=0o027)
        assert done.stdout == f'{dsh.folder}/below\n0027\n'
        assert (dsh.folder / 'below/made').stat().st_mode & 0o777 == 0o640

    def test_the_folder_as_the_shell_calls_it(self, dsh: Dsh) -> None:
        (dsh.folder / 'real').mkdir()
        (dsh.folder / 'link').symlink_to('real')
        done = dsh.script('pwd -L; pwd -P', cwd=dsh.folder / 'link', variables={'PWD': f'{dsh.folder}/link'})
        assert done.stdout == f'{dsh.folder}/link\n{dsh.folder}/real\n'

    @pytest.mark.parametrize('nameless', ['', '=value'])
    def test_a_variable_without_a_name(self, dsh: Dsh, nameless: str) -> None:
        done = dsh.dsh(f'--env={nameless}', 'true', status=2)
        assert done.stderr.startswith(f'ERROR: --env {nameless!r} names no variable')

    def test_a_nameless_one_of_ours_stays_here(self, dsh: Dsh) -> None:
        """execve(2) takes any text for a variable, and passes it on."""
        assert dsh.script('echo "$ONE"', '--env', '*', variables={'': 'value', 'ONE': '1'}).stdout == '1\n'

    def test_the_environment(self, dsh: Dsh) -> None:
        given = {'CFLAGS': '-O2 "x"', 'LC_TIME': 'C', 'TZ': 'UTC-1', 'OTHER': 'no'}
        given |= {'MY_1': '1', 'MY_2': '2', 'ONE': 'é\n'}
        make = ' -j8 --jobserver-auth=3,4 -k -- V=1 -j=2'
        text = 'echo "$CFLAGS|$LC_TIME|$TZ|$OTHER|$MY_1|$MY_2|$ONE|$SET|$MAKEFLAGS|$HOME"'
        done = dsh.script(text, variables={**given, 'MAKEFLAGS': make})
        assert done.stdout == '-O2 "x"|C|UTC-1|||||| -k -- V=1 -j=2|/root\n'
        options = ['--env', 'MY_*', '--env=-MY_2', '--env', 'ONE', '--env', 'SET=a=b', '--env=-MAKEFLAGS']
        done = dsh.script(text, *options, variables={**given, 'MAKEFLAGS': make})
        assert done.stdout == '-O2 "x"|C|UTC-1||1||é\n|a=b||/root\n'

    def test_which_of_it_go_by_themselves(self, dsh: Dsh) -> None:
        names = ['LC_TIME', 'LC_NUMERIC', 'TERM', 'TZ', 'CC', 'CXX', 'CFLAGS', 'CXXFLAGS', 'LDFLAGS', 'MAKEFLAGS']
        given = {name: f'our {name}' for name in [*names, 'LANGUAGE', 'CPPFLAGS', 'MAKE', 'USER', 'TERMCAP', 'XLC_']}
        given |= {'PATH': '/our/own:/usr/bin:/bin', 'LANG': 'C.UTF-8'}
        lines = dsh.dsh('env', variables=given).stdout.splitlines()
        assert {line for line in lines if '=our ' in line} == {f'{name}=our {name}' for name in names}
        assert {'PATH=/our/own:/usr/bin:/bin', 'LANG=C.UTF-8'} <= set(lines)

    def test_programs_are_those_of_our_path(self, dsh: Dsh) -> None:
        (dsh.folder / 'bin').mkdir()
        (dsh.folder / 'bin/ours').write_text('#!/bin/sh\necho found')
        (dsh.folder / 'bin/ours').chmod(0o755)
        assert dsh.dsh('ours', variables={'PATH': f'{dsh.folder}/bin:/usr/bin:/bin'}).stdout == 'found\n'


@pytest.mark.parametrize(
    ('flags', 'expected'),
    [
        ('', ''),
        ('k', 'k'),
        ('ks -j8 --jobserver-auth=3,4', 'ks'),
        (' -j --jobserver-fds=3,4 --debug', ' --debug'),
        (' -j2 --jobserver-auth=fifo:/tmp/GMfifo1 --sync-mutex=fnm:/tmp/x -Oline', ' -Oline'),
        (' --jobs=4 -- CC=gcc\\ -j8', ' -- CC=gcc\\ -j8'),
    ],
)
def test_makeflags(flags: str, expected: str) -> None:
    assert without_jobserver(flags) == expected


class TestWhichHost:
    def test_it_is_told(self, dsh: Dsh) -> None:
        done = dsh.dsh('-v', 'hostname')
        assert done.stderr == f'dsh: {done.stdout}'

    def test_wishes(self, dsh: Dsh) -> None:
        for host, other in (('h1', 'h2'), ('h2', 'h1')):
            for words in (['--exclude', other], ['-x', f'{other[0]}[{other[1]}]'], [f'--exclude={other}*']):
                assert dsh.dsh(*words, 'hostname').stdout == f'{host}\n'
            assert dsh.dsh('--prefer', host, 'hostname').stdout == f'{host}\n'
        machine = os.uname().machine
        assert dsh.dsh('--platform', f'linux-{machine}', '--min-memory', '1M', 'true')

    def test_none_will_do(self, dsh: Dsh) -> None:
        for words, why in (
            (['--exclude', 'h*'], 'it is excluded'),
            (['--platform', 'linux-pdp11'], rf'its platform is linux-{os.uname().machine}, not linux-pdp11'),
            (['--min-memory', '900T'], r'.* GB of memory are free, not 900000\.0 GB'),
        ):
            done = dsh.dsh(*words, 'true', status=1)
            assert re.fullmatch(rf'ERROR: no host will do:\n  - h\[1-2\]: {why}\n', done.stderr)

    def test_a_host_list_narrows_the_daemons(self, dsh: Dsh) -> None:
        assert dsh.dsh('-H', 'h2', 'hostname').stdout == 'h2\n'
        (dsh.folder / 'cluster').write_text('h1\n')
        done = dsh.dsh('-v', '--host-file', 'cluster', 'hostname')
        assert (done.stdout, done.stderr) == ('h1\n', 'dsh: h1\n')


class TestSignals:
    def until(self, dsh: Dsh, file: str) -> None:
        wait_until(lambda: (dsh.folder / file).exists(), f'the command has made {file}')

    @pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_one_that_ends_it_ends_us(self, dsh: Dsh, number: signal.Signals) -> None:
        with dsh.begin('sh', '-c', '>up; exec sleep 1040') as command:
            self.until(dsh, 'up')
            command.signal(number)
            done = command.end()
        assert (done.status, done.stderr) == (-number, '')
        wait_until(lambda: 'sleep' not in words_of(dsh.served), 'its end')

    def test_quit_leaves_no_core_here(self, dsh: Dsh) -> None:
        with dsh.begin('sh', '-c', 'ulimit -c 0; >up; exec sleep 1040') as command:
            self.until(dsh, 'up')
            command.signal(signal.SIGQUIT)
            assert command.end().status == 128 + signal.SIGQUIT

    def test_one_that_it_catches(self, dsh: Dsh) -> None:
        text = 'trap "echo usr" USR1; trap "echo int; exit 9" INT; >up; while :; do sleep 0.01; done'
        with dsh.begin('sh', '-c', text) as command:
            self.until(dsh, 'up')
            command.signal(signal.SIGUSR1)
            wait_until(lambda: command.out == b'usr\n', 'it was told')
            command.signal(signal.SIGINT)
            done = command.end()
        assert (done.status, done.stdout) == (9, 'usr\nint\n')

    def test_who_insists_is_heard_here(self, dsh: Dsh) -> None:
        with dsh.begin('sh', '-c', 'trap "" INT TERM; >up; sleep 1041') as command:
            self.until(dsh, 'up')
            for _ in range(2):
                command.signal(signal.SIGINT)
                wait_until(lambda: not pending(command.pid, signal.SIGINT), 'it is heard')
            command.signal(signal.SIGINT)
            assert command.end().status == -signal.SIGINT
        wait_until(lambda: '1041' not in words_of(dsh.served), 'its end')

    @pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
    def test_where_nobody_answers_there(self, dsh: Dsh, number: signal.Signals) -> None:
        host = dsh.served.bed['h1']
        dsh.dsh('--exclude', 'h2', 'true')
        [starter] = [process.pid for process in host.processes() if is_starter(process)]
        host.run(['kill', '-STOP', str(starter)])
        try:
            with dsh.begin('-v', '--exclude', 'h2', 'sh', '-c', '>up; sleep 1044') as command:
                wait_until(lambda: command.err == b'dsh: h1\n', 'the host is asked for it')
                command.signal(number)  # once, as timeout(1) does
                done = command.end()
        finally:
            host.run(['kill', '-CONT', str(starter)])
        assert done.status == -number
        told = f'ERROR: h1: nobody answers there: in 5 s the command was not sent the signal {number.value}'
        assert told in done.stderr
        assert dsh.dsh('--exclude', 'h2', 'echo', 'on').stdout == 'on\n'
        wait_until(lambda: '1044' not in words_of(dsh.served), 'its end')

    def test_one_that_ignores_it_is_waited_for(self, dsh: Dsh) -> None:
        text = 'trap "" TERM; >up; while [ ! -e go ]; do sleep 0.01; done; echo done'
        with dsh.begin('sh', '-c', text) as command:
            self.until(dsh, 'up')
            command.signal(signal.SIGTERM)
            with pytest.raises(TestbedError):  # longer than a host may take to say that it was passed on
                command.end(attended.WAIT_HEARD + 1)
            (dsh.folder / 'go').touch()
            done = command.end()
        assert (done.status, done.stdout, done.stderr) == (0, 'done\n', '')

    def test_before_it_begins(self, dsh: Dsh) -> None:
        """The host waits until it sees a file as it is here, and sees an older one."""
        host = dsh.served.bed['h1']
        (old, new) = (dsh.folder / 'old', dsh.folder / 'new')
        old.touch()
        os.utime(old, (1, 1))
        new.write_text('new')
        host.run(['mount', '--bind', str(old), str(new)])
        try:
            with dsh.begin('-v', '--exclude', 'h2', '--wait-files', '600', 'touch', 'up', 'new') as command:
                wait_until(lambda: command.err == b'dsh: h1\n', 'the host is asked for it')
                command.signal(signal.SIGTERM)
                done = command.end()
        finally:
            host.run(['umount', str(new)])
        assert (done.status, done.stderr) == (-signal.SIGTERM, 'dsh: h1\n')
        assert not (dsh.folder / 'up').exists()

    def test_ignored_ones_stay_ignored(self, dsh: Dsh) -> None:
        text = '>up; while [ ! -e go ]; do sleep 0.01; done; echo done'
        script = f'trap "" HUP; exec {sys.executable} -m remote_runner dsh sh -c "{text}"'
        env = {**environment(dsh.home), **dsh.variables}
        with subprocess.Popen(['sh', '-c', script], cwd=dsh.folder, env=env, stdout=subprocess.PIPE) as command:
            self.until(dsh, 'up')
            command.send_signal(signal.SIGHUP)
            (dsh.folder / 'go').touch()
            assert command.communicate()[0] == b'done\n'
        assert command.returncode == 0

    def test_killed_here_it_ends_there(self, dsh: Dsh) -> None:
        text = 'trap "" TERM HUP; (setsid sleep 1042 &); >up; sleep 1043; sleep 1043'
        with dsh.begin('sh', '-c', text) as command:
            self.until(dsh, 'up')
            command.signal(signal.SIGKILL)
            command.end()
        wait_until(lambda: 'sleep' not in words_of(dsh.served), 'its end')

    def test_stopped_and_continued(self, dsh: Dsh) -> None:
        with dsh.begin('sh', '-c', '>up; while [ ! -e go ]; do sleep 0.01; done; echo on', process_group=0) as command:
            self.until(dsh, 'up')
            os.kill(command.pid, signal.SIGTSTP)
            wait_until(lambda: state(command.pid) == 'T', 'we are stopped')
            wait_until(lambda: 'T' in states(dsh.served), 'and so is it')
            (dsh.folder / 'go').touch()
            command.signal(signal.SIGCONT)
            assert command.end().stdout == 'on\n'


def is_starter(process: HostProcess) -> bool:
    return any('agent/starter.py' in word for word in process.argv)


def pending(pid: int, number: int) -> bool:
    with open(f'/proc/{pid}/status') as status:
        found = re.search(r'^ShdPnd:\s*(\w+)', status.read(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) & 1 << number - 1)


def state(pid: int) -> str:
    with open(f'/proc/{pid}/stat') as stat:
        return stat.read().rpartition(')')[2].split()[0]


def states(served: Served) -> set[str]:
    found = set()
    for host in served.bed.hosts:
        done = host.run(['ps', '-eo', 'stat='])
        found |= {line[:1] for line in done.stdout.decode().split()}
    return found


class TestTerminal:
    @pytest.fixture
    def terminal(self, dsh: Dsh) -> Iterator[pexpect.spawn]:
        """A shell that somebody sits in front of."""
        own = {'PS1': 'prompt> ', 'RR': f'{sys.executable} -m remote_runner dsh'}
        shell = pexpect.spawn(
            '/bin/bash',
            ['--norc', '--noediting'],
            env={**environment(dsh.home), **dsh.variables, **own},
            cwd=str(dsh.folder),
            timeout=PATIENCE,
            dimensions=(33, 99),
        )
        shell.expect('prompt> ')
        yield shell
        shell.close(force=True)

    def test_ctrl_c(self, terminal: pexpect.spawn, dsh: Dsh) -> None:
        terminal.sendline('$RR sh -c "echo u\\"\\"p; exec sleep 1050"; echo status $?')
        terminal.expect('up')
        terminal.sendintr()
        terminal.expect('prompt> ')
        terminal.sendline('echo $?')
        terminal.expect('130')
        wait_until(lambda: '1050' not in words_of(dsh.served), 'its end')

    def test_it_has_one(self, terminal: pexpect.spawn) -> None:
        text = 'tty; stty size; echo $TERM; read -r x; echo [\\$x]'
        terminal.sendline(f'$RR -t sh -c "{text}"; stty -a | grep -o " icanon"')
        terminal.expect(r'/dev/pts/\d+\r\n33 99\r\nxterm-256color\r\n')
        terminal.sendline('typed')
        terminal.expect('typed\r\n\\[typed\\]\r\n icanon')

    def test_without_the_option_it_has_none(self, terminal: pexpect.spawn) -> None:
        terminal.sendline('$RR tty; echo status $?')
        terminal.expect('not a tty\r\nstatus 1')

    def test_its_keys_and_size(self, terminal: pexpect.spawn, dsh: Dsh) -> None:
        text = "trap 'stty size' WINCH; trap 'echo caught; exit 4' INT; echo up; while :; do sleep 0.01; done"
        (dsh.folder / 'keys').write_text(text)
        terminal.sendline('$RR -t sh keys; echo status $?')
        terminal.expect('\nup')
        terminal.setwinsize(44, 111)
        terminal.expect('44 111')
        terminal.sendintr()
        terminal.expect('caught\r\nstatus 4')

    def test_it_is_put_in_order_again_whatever_ends_us(self, terminal: pexpect.spawn, dsh: Dsh) -> None:
        terminal.sendline('$RR -t sh -c "trap : HUP; echo u\\"\\"p; exec sleep 1051"; echo status $?')
        terminal.expect('\nup')
        [ours] = Path(f'/proc/{terminal.pid}/task/{terminal.pid}/children').read_text().split()
        os.kill(int(ours), signal.SIGTERM)
        terminal.expect(r'status 143')
        terminal.sendline('stty -a | grep -o " icanon"')
        terminal.expect('\n icanon')

    def test_keys_that_stop(self, terminal: pexpect.spawn, dsh: Dsh) -> None:
        (dsh.folder / 'wait').write_text('echo up; while [ ! -e go ]; do sleep 0.01; done; echo on')
        terminal.sendline('$RR sh wait')
        terminal.expect('\nup')
        terminal.sendcontrol('z')
        terminal.expect('Stopped')
        (dsh.folder / 'go').touch()
        terminal.sendline('fg')
        terminal.expect('\non\r\n')

    def test_in_the_background_it_takes_no_keys(self, terminal: pexpect.spawn, dsh: Dsh) -> None:
        (dsh.folder / 'wait').write_text('>up; while [ ! -e go ]; do sleep 0.01; done; echo la""te')
        terminal.sendline('$RR sh wait &')
        wait_until(lambda: (dsh.folder / 'up').exists(), 'it runs')
        terminal.sendline('echo key"s"')
        terminal.expect('keys')
        (dsh.folder / 'go').touch()
        terminal.expect('late')
        terminal.sendline('wait %1; echo status $?')
        terminal.expect('status 0')


class TestSharedFolder:
    def test_what_was_written_is_seen(self, dsh: Dsh) -> None:
        for number in range(10):
            (dsh.folder / 'in').write_text(f'{number}\n')
            dsh.dsh('cp', 'in', 'out')
            assert (dsh.folder / 'out').read_text() == f'{number}\n'

    def test_a_folder_that_is_not_there(self, dsh: Dsh, tmp_path: Path) -> None:
        done = dsh.dsh('true', cwd=tmp_path, status=1)
        what = f'{tmp_path}: No such file or directory'
        assert re.fullmatch(rf'ERROR: h[12]: {what} \(.*--sync.*--dir.*\)\n', done.stderr)

    def test_another_folder_of_the_same_name(self, dsh: Dsh, tmp_path: Path) -> None:
        for host in dsh.served.bed.hosts:
            host.run(['mkdir', '-p', str(tmp_path)])
        done = dsh.dsh('true', cwd=tmp_path, status=1)
        what = f'{tmp_path}: it is another folder there than here'
        assert re.fullmatch(rf'ERROR: h[12]: {what} \(.*--sync.*--dir.*\)\n', done.stderr)

    def test_a_folder_of_the_host(self, dsh: Dsh, tmp_path: Path) -> None:
        assert dsh.dsh('--dir', '/usr/bin', 'pwd', cwd=tmp_path).stdout == '/usr/bin\n'
        assert dsh.dsh('--dir', '~', 'pwd', cwd=tmp_path).stdout == '/root\n'
        done = dsh.dsh('--dir=~/nowhere', 'pwd', cwd=tmp_path, status=1)
        assert re.match('ERROR: h[12]: /root/nowhere: No such file or directory', done.stderr)

    def test_the_folder_itself_may_go(self, dsh: Dsh) -> None:
        (dsh.folder / 'below').mkdir()
        dsh.dsh('rmdir', str(dsh.folder / 'below'), cwd=dsh.folder / 'below')
        assert not (dsh.folder / 'below').exists()

    def test_make(self, dsh: Dsh) -> None:
        write_project(dsh.folder, 30)
        env = {**environment(dsh.home), **dsh.variables}
        cc = f'CC={sys.executable} -m remote_runner dsh -v gcc'
        done = subprocess.run(['make', '-j8', cc], cwd=dsh.folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert set(re.findall(r'^dsh: (\w+)$', done.stderr, re.MULTILINE)) == {'h1', 'h2'}
        said = subprocess.run([dsh.folder / 'all'], capture_output=True, text=True, check=True).stdout
        assert said == f'"i386" {sum(range(30))}\n'

    def test_make_tells_of_an_error(self, dsh: Dsh) -> None:
        write_project(dsh.folder, 4)
        (dsh.folder / 'f2.c').write_text('int f2(void) { return nonsense; }\n')
        env = {**environment(dsh.home), **dsh.variables}
        cc = f'CC={sys.executable} -m remote_runner dsh gcc'
        done = subprocess.run(['make', '-j8', cc], cwd=dsh.folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert re.search(r'f2\.c:1:\d+: error: .*nonsense', done.stderr)


def write_project(folder: Path, files: int) -> None:
    """A program of so many files in C, and a header that is made first."""
    for number in range(files):
        (folder / f'f{number}.c').write_text(f'#include "all.h"\nint f{number}(void) {{ return {number}; }}\n')
    total = '+'.join(f'f{number}()' for number in range(files))
    (folder / 'main.c').write_text(
        f'#include <stdio.h>\n#include "all.h"\nint main(void) {{ printf("%s %d\\n", UTS, {total}); return 0; }}\n'
    )
    names = ' '.join(f'f{number}.o' for number in range(files))
    (folder / 'Makefile').write_text(
        f"CFLAGS = -DUTS='\"\\\"i386\\\"\"'\nall: main.o {names}\n\t$(CC) -o $@ $^\n"
        f'%.o: %.c all.h\n\t$(CC) $(CFLAGS) -c -o $@ $<\n'
        f'all.h:\n\tfor i in $$(seq 0 {files - 1}); do echo "int f$$i(void);"; done >$@\n'
    )


def test_200_at_once(dsh: Dsh) -> None:
    env = {**environment(dsh.home), **dsh.variables}
    one = f'{sys.executable} -m remote_runner dsh -n sh -c "echo {{}} \\$(hostname); exit 0"'
    script = f"seq 200 | xargs -P 200 -I '{{}}' {one}"
    done = subprocess.run(['sh', '-c', script], cwd=dsh.folder, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, '')
    said = [line.split() for line in done.stdout.splitlines()]
    assert sorted(int(number) for number, _ in said) == list(range(1, 201))
    hosts = [host for _, host in said]
    assert min(hosts.count('h1'), hosts.count('h2')) >= 80


class TestWithoutADaemon:
    @pytest.fixture
    def alone(self, dsh: Dsh) -> Dsh:
        dsh.variables = {'RR_DSHD_SOCKET': str(dsh.home / 'none')}
        return dsh

    def test_it_connects_itself(self, alone: Dsh) -> None:
        done = alone.script('cat; hostname; exit 6', '-F', alone.ssh_config, '-H', 'h[1-2]', status=6)
        assert re.fullmatch(r'h[12]\n', done.stdout)
        assert done.stderr == ''

    def test_it_says_how_to_make_it_fast(self, alone: Dsh) -> None:
        done = alone.dsh('-v', '-F', alone.ssh_config, '-H', 'h1', 'true')
        first, second = done.stderr.splitlines()
        assert 'remote_runner dshd' in first
        assert second == 'dsh: h1'

    def test_it_says_so_at_a_terminal_unasked(self, alone: Dsh) -> None:
        words = ['-m', 'remote_runner', 'dsh', '-F', str(alone.ssh_config), '-H', 'h1', 'hostname']
        variables = {**environment(alone.home), **alone.variables}
        with pexpect.spawn(sys.executable, words, env=variables, cwd=str(alone.folder), timeout=PATIENCE) as terminal:
            terminal.expect('faster: remote_runner dshd --background\r\nh1\r\n')
            terminal.expect(pexpect.EOF)

    @pytest.mark.skipif(os.getuid() != 0, reason='needs another user')
    def test_another_users_is_told_nothing(self, alone: Dsh) -> None:
        path = alone.folder / 'theirs'
        alone.variables = {'RR_DSHD_SOCKET': str(path)}
        with socket.socket(socket.AF_UNIX) as theirs:
            theirs.bind(str(path))
            with unprivileged():  # who listens is who is seen at the other end, see unix(7), SO_PEERCRED
                theirs.listen()
            theirs.settimeout(PATIENCE)
            done = alone.dsh('env', status=1)
            assert f'{path}: the daemon there is one of the user with uid {NOBODY}' in done.stderr
            for _ in range(2):  # each of the two that may ask it: without and with all of Python
                connection, _ = theirs.accept()
                with connection:
                    assert connection.recv(1) == b''

    def test_where_hosts_come_from(self, alone: Dsh) -> None:
        done = alone.dsh('-F', alone.ssh_config, 'hostname', status=2)
        for word in ('-H', 'RR_CLUSTER', '.config/remote_runner/cluster'):
            assert word in done.stderr
        (alone.home / '.config/remote_runner').mkdir(parents=True)
        (alone.home / '.config/remote_runner/cluster').write_text('h2\n')
        assert alone.dsh('-F', alone.ssh_config, 'hostname').stdout == 'h2\n'
        assert alone.dsh('-F', alone.ssh_config, 'hostname', variables={'RR_CLUSTER': 'h1'}).stdout == 'h1\n'
        words = ['-F', alone.ssh_config, '-H', 'h2', 'hostname']
        assert alone.dsh(*words, variables={'RR_CLUSTER': 'h1'}).stdout == 'h2\n'

    def test_no_host_can_be_reached(self, alone: Dsh, tmp_path: Path) -> None:
        (tmp_path / 'ssh_config').write_text('Host dead\n  HostName 127.0.0.1\n  Port 9\n')
        done = alone.dsh('-F', tmp_path / 'ssh_config', '-H', 'dead', 'true', status=None)
        assert re.match(r'ERROR: no host will do:\n  - dead: .*refused', done.stderr)
        assert done.status == 3

    def test_interrupted(self, alone: Dsh) -> None:
        with alone.begin('-F', alone.ssh_config, '-H', 'h1', 'sh', '-c', '>up; exec sleep 1060') as command:
            wait_until(lambda: (alone.folder / 'up').exists(), 'it runs')
            command.signal(signal.SIGINT)
            assert command.end().status == -signal.SIGINT
        wait_until(lambda: '1060' not in words_of(alone.served), 'its end')


class TestSync:
    @pytest.fixture
    def apart(self, dsh: Dsh, tmp_path: Path) -> Dsh:
        """In a folder that no host has."""
        dsh.folder = tmp_path / 'apart'
        dsh.folder.mkdir()
        return dsh

    @pytest.fixture(params=['daemon', 'alone'])
    def options(self, request: pytest.FixtureRequest, apart: Dsh) -> list[str]:
        if request.param == 'alone':
            apart.variables = {'RR_DSHD_SOCKET': str(apart.home / 'none')}
        words = ['--sync', '-F', str(apart.ssh_config)]
        return words if request.param == 'daemon' else [*words, '-H', 'h[1-2]']

    def test_there_and_back(self, apart: Dsh, options: list[str]) -> None:
        write_project(apart.folder, 3)
        (apart.folder / 'link').symlink_to('main.c')
        (apart.folder / 'tool').write_text('#!/bin/sh\nexec make "$@"\n')
        (apart.folder / 'tool').chmod(0o755)
        (apart.folder / 'in').mkdir()
        (apart.folder / 'in/data').write_text('data')
        before = (apart.folder / 'main.c').stat()
        text = './tool && mkdir -p new/er && cat in/data link >new/er/file; rm f1.c; exit 3'
        done = apart.script(text, *options, status=3)
        assert done.stderr == ''
        assert (apart.folder / 'new/er/file').read_text() == 'data' + (apart.folder / 'main.c').read_text()
        assert (apart.folder / 'link').is_symlink()
        assert (apart.folder / 'f1.c').exists()
        after = (apart.folder / 'main.c').stat()
        assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
        assert subprocess.run([apart.folder / 'all'], capture_output=True, check=True).stdout == b'"i386" 3\n'
        for host in apart.served.bed.hosts:
            assert host.run(['sh', '-c', 'ls -d /tmp/remote_runner-dsh-* || echo none']).stdout == b'none\n'

    def test_what_was_changed_here_meanwhile_stays(self, apart: Dsh, options: list[str]) -> None:
        (apart.folder / 'ours').write_text('old')
        (apart.folder / 'theirs').write_text('old')
        text = 'echo up; while read -r line; do echo "$line" >theirs; done'
        with apart.begin(*options, 'sh', '-c', text, stdin=subprocess.PIPE) as command:
            wait_until(lambda: command.out == b'up\n', 'it runs')
            (apart.folder / 'ours').write_text('new')
            assert command.process.stdin is not None
            command.process.stdin.write(b'new\n')
            command.process.stdin.close()
            assert command.end().status == 0
        assert ((apart.folder / 'ours').read_text(), (apart.folder / 'theirs').read_text()) == ('new', 'new\n')

    def test_interrupted(self, apart: Dsh, options: list[str]) -> None:
        with apart.begin(*options, 'sh', '-c', '>made; echo up; exec sleep 1080') as command:
            wait_until(lambda: command.out == b'up\n', 'it runs')
            command.signal(signal.SIGINT)
            assert command.end().status == -signal.SIGINT
        assert not (apart.folder / 'made').exists()
        for host in apart.served.bed.hosts:
            assert host.run(['sh', '-c', 'ls -d /tmp/remote_runner-dsh-* || echo none']).stdout == b'none\n'

    def test_what_cannot_come_back(self, apart: Dsh, options: list[str]) -> None:
        (apart.folder / 'place').mkdir()
        done = apart.dsh(*options, 'sh', '-c', 'rmdir place; >place; >good', status=1)
        assert 'place' in done.stderr
        assert (apart.folder / 'good').exists()


class TestLost:
    def test_the_program_on_the_host(self, fresh_bed: type[Testbed], tmp_path: Path) -> None:
        """As where somebody empties ~/.cache while the daemon runs for weeks."""
        bed = fresh_bed(1)
        with Served(bed, tmp_path) as served:
            dsh = Dsh(served, tmp_path / 'home', tmp_path)
            bed['h1'].run(['rm', '-r', '/root/.cache/remote_runner'])
            done = dsh.dsh('--dir', '/tmp', 'echo', 'on', status=1)
            assert re.fullmatch(r'ERROR: h1: somebody removed our program while it ran: /root/.cache/.*\n', done.stderr)
            wait_until(lambda: dsh.dsh('--dir', '/tmp', 'echo', 'on', status=None).stdout == 'on\n', 'it is back')
            bed['h1'].run(['rm', '-r', '/root/.cache/remote_runner'])
            assert dsh.dsh('--dir', '/tmp', 'echo', 'on').stdout == 'on\n', 'what it needs runs already'

    def test_the_host(self, fresh_bed: type[Testbed], tmp_path: Path) -> None:
        bed = fresh_bed(1)
        with Served(bed, tmp_path) as served:
            dsh = Dsh(served, tmp_path / 'home', tmp_path)
            with dsh.begin('--dir', '/tmp', 'sh', '-c', 'echo up; sleep 1070') as command:
                wait_until(lambda: command.out == b'up\n', 'it runs')
                bed['h1'].stop_sshd(sessions=True)
                done = command.end(120)
            assert done.status == 3
            assert done.stderr.startswith('ERROR: h1: ')

    def test_the_daemon(self, bed: Testbed, tmp_path: Path) -> None:
        with Served(bed, tmp_path, ['h1']) as served:
            dsh = Dsh(served, tmp_path / 'home', tmp_path)
            with dsh.begin('--dir', '/tmp', 'sh', '-c', 'echo up; sleep 1071') as command:
                wait_until(lambda: command.out == b'up\n', 'it runs')
                served.stop()
                done = command.end()
            assert done.stderr.startswith('ERROR: ')
            assert 'dshd' in done.stderr
            assert done.status in (1, 3)
        nothing_runs(bed['h1'])


def test_it_imports_next_to_nothing() -> None:
    """Every command pays for what is imported."""
    code = (
        'import sys; before = set(sys.modules); sys.argv = ["x", "dsh", "true"]; '
        'import remote_runner.cli.entry, remote_runner.placement.client; '
        'print(*sorted(set(sys.modules) - before))'
    )
    env = {'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, check=True)
    heavy = {'argparse', 're', 'typing', 'json', 'socket', 'subprocess', 'threading', 'logging', 'enum', 'paramiko'}
    found = set(done.stdout.split())
    assert 'remote_runner.placement.client' in found
    assert found & heavy == set()
    assert len(found) < 25, found


def test_help(dsh: Dsh) -> None:
    done = dsh.dsh('--help')
    for word in (*ENVIRONMENT, '--env', '--min-memory', '--wait-files', '--dir', 'exit status'):
        assert word in done.stdout
    assert COMMAND[-1] == 'remote_runner'
