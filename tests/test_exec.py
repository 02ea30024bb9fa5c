"""`remote_runner exec`: one command on many hosts, as a user sees it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import COMMAND, ROOT, Commands, alias_of, nothing_runs, ssh_config
from tests.openssh import output
from tests.testbed import Testbed
from tests.testbed.process import wait_until


@pytest.fixture
def commands(bed: Testbed) -> Iterator[Commands]:
    yield Commands(bed.directory / 'home', bed.ssh_config)
    for host in bed.hosts:
        nothing_runs(host)


def running(bed: Testbed, word: str) -> list[str]:
    """The hosts on which a process has this word in its argv."""
    return [host.name for host in bed.hosts if any(word in process.argv for process in host.processes())]


class TestOutput:
    def test_every_line_says_its_host(self, commands: Commands) -> None:
        done = commands.exec('h[1-3]', '--', 'echo one; hostname')
        assert sorted(done.stdout.splitlines()) == [
            'h1: h1', 'h1: one', 'h2: h2', 'h2: one', 'h3: h3', 'h3: one'
        ]  # fmt: skip
        assert done.stderr == ''

    def test_stdout_and_stderr_stay_apart(self, commands: Commands) -> None:
        done = commands.exec('h[1-2]', '--', 'echo good; echo bad >&2')
        assert sorted(done.stdout.splitlines()) == ['h1: good', 'h2: good']
        assert sorted(done.stderr.splitlines()) == ['h1: bad', 'h2: bad']

    def test_a_last_line_without_newline_is_a_line(self, commands: Commands) -> None:
        done = commands.exec('h[1-3]', '--', 'printf "$(hostname) has no end"; printf oops >&2')
        assert sorted(done.stdout.splitlines()) == [f'h{n}: h{n} has no end' for n in (1, 2, 3)]
        assert done.stdout.endswith('\n')
        assert sorted(done.stderr.splitlines()) == ['h1: oops', 'h2: oops', 'h3: oops']

    def test_no_output(self, commands: Commands) -> None:
        done = commands.exec('h[1-3]', '--', 'true')
        assert (done.stdout, done.stderr) == ('', '')

    def test_any_bytes_arrive_as_they_are(self, commands: Commands) -> None:
        done = commands.exec('h1', '--', r"printf '\377\000\r\033[1m\303\n\n\200'")
        assert done.out == b'h1: \xff\x00\r\x1b[1m\xc3\nh1: \nh1: \x80\n'

    def test_lines_come_while_the_command_runs(self, commands: Commands, bed: Testbed) -> None:
        start = commands.start('exec', '-F', bed.ssh_config, '-H', 'h1', '--', 'echo first; exec sleep 1001')
        with start as command:
            wait_until(lambda: command.out == b'h1: first\n', 'the first line, before the command has ended')
            command.signal(signal.SIGINT)
            command.end()

    def test_50_mb_are_not_held_in_memory(self, commands: Commands) -> None:
        line = 'x' * 999
        done = commands.exec('h[1-2]', '--', f'yes {line} | head -c 50000000')
        expected = {f'h{n}: {line}' for n in (1, 2)}
        lines = done.stdout.split('\n')
        assert len(lines) == 2 * 50_000 + 1
        assert set(lines[:-1]) == expected
        assert 20 < done.peak < 120

    def test_a_long_line(self, commands: Commands) -> None:
        done = commands.exec('h1', '--', 'head -c 20000000 /dev/zero')
        assert done.out == b'h1: ' + bytes(20_000_000) + b'\n'

    def test_whoever_read_enough_ends_it(self, commands: Commands, bed: Testbed) -> None:
        read, write = os.pipe()
        with commands.start('exec', '-F', bed.ssh_config, '-H', 'h[1-3]', '--', 'yes', stdout=write) as command:
            os.close(write)
            assert re.match(rb'h[123]: y\n', os.read(read, 100))
            os.close(read)
            done = command.end()
        assert done.stderr == ''
        assert done.status == 128 + signal.SIGPIPE


class TestFolded:
    def folded(self, text: str) -> list[tuple[str, str]]:
        """Titles and what stands below them."""
        found = re.findall(r'^-+\n(.+)\n-+\n((?:(?!-).*\n)*)', text, re.MULTILINE)
        assert ''.join(body for _, body in found).count('\n') + 3 * len(found) == text.count('\n'), text
        return [(title, body) for title, body in found]

    def test_equal_output_is_shown_once(self, commands: Commands) -> None:
        done = commands.exec('h[1-3]', '--fold', '--', '[ $(hostname) = h2 ] && echo other || echo same; echo end')
        assert self.folded(done.stdout) == [('h[1,3] (2)', 'same\nend\n'), ('h2 (1)', 'other\nend\n')]

    def test_output_that_differs_in_an_empty_line_differs(self, commands: Commands) -> None:
        done = commands.exec('h[1-2]', '--fold', '--', '[ $(hostname) = h2 ] && echo x || printf "x\\n\\n"')
        assert sorted(self.folded(done.stdout)) == [('h1 (1)', 'x\n\n'), ('h2 (1)', 'x\n')]

    def test_stderr_goes_to_stderr(self, commands: Commands) -> None:
        done = commands.exec('h[1-3]', '--fold', '--', 'echo same; echo "I am $(hostname)" >&2')
        assert self.folded(done.stdout) == [('h[1-3] (3)', 'same\n')]
        for number in (1, 2, 3):
            assert f'I am h{number}' in done.stderr

    def test_exit_statuses_are_told(self, commands: Commands) -> None:
        done = commands.exec('h[1-3]', '--fold', '--', 'echo same; [ $(hostname) != h2 ] || exit 7', status=7)
        told = [line for line in (done.stdout + done.stderr).splitlines() if '7' in line]
        assert told
        assert all('h2' in line for line in told)

    def test_stderr_and_statuses_too(self, commands: Commands) -> None:
        done = commands.exec('h[1-3]', '--fold', '--', 'echo oops >&2; [ $(hostname) = h2 ] || exit 4', status=4)
        assert done.stderr.splitlines() == ['h[1-3]: oops', 'h[1,3]: exit status 4']

    def test_hosts_that_say_nothing_make_no_noise_but_failing_ones_are_named(self, commands: Commands) -> None:
        done = commands.exec('h[1-3]', '--fold', '--', '[ $(hostname) != h3 ]', status=1)
        assert 'h3' in done.stdout + done.stderr


class TestJson:
    def test_one_object_a_host(self, commands: Commands) -> None:
        done = commands.exec(
            'h[1-3]', '--json', '--', 'hostname; printf no-newline; echo bad >&2; exit $(hostname | tr -d h)', status=3
        )
        assert sorted((o['host'], o['status'], o['stdout'], o['stderr']) for o in done.objects) == [
            (f'h{n}', n, f'h{n}\nno-newline', 'bad\n') for n in (1, 2, 3)
        ]
        assert done.stderr == ''

    def test_bytes_that_are_no_text(self, commands: Commands) -> None:
        [found] = commands.exec('h1', '--json', '--', r"printf 'a\377\000\303\251z'").objects
        assert re.fullmatch('a.+\0éz', found['stdout'])

    def test_a_host_out_of_reach_is_no_object_but_an_error(self, bed: Testbed, tmp_path: Path) -> None:
        commands = Commands(tmp_path, ssh_config(tmp_path, bed, 'Host dead\n  HostName 127.0.0.1\n  Port 9\n'))
        done = commands.exec('h1,dead', '--json', '--', 'true', status=3)
        assert [found['host'] for found in done.objects] == ['h1']
        assert 'dead' in done.stderr


class TestExitStatus:
    def test_the_worst(self, commands: Commands) -> None:
        done = commands.exec('h[1-3]', '--', '[ $(hostname) = h2 ] && exit 42; [ $(hostname) = h1 ]', status=42)
        assert re.search(r'h2.*42', done.stderr)
        assert re.search(r'h3.*\b1\b', done.stderr)

    def test_a_signal(self, commands: Commands) -> None:
        commands.exec('h1', '--', 'kill -KILL $$', status=128 + 9)

    def test_a_command_that_is_not_there(self, commands: Commands) -> None:
        done = commands.exec('h1', '--', 'no-such-command', status=127)
        assert 'no-such-command' in done.stderr

    def test_a_host_out_of_reach_beside_good_ones(self, bed: Testbed, tmp_path: Path) -> None:
        commands = Commands(tmp_path, ssh_config(tmp_path, bed, 'Host dead\n  HostName 127.0.0.1\n  Port 9\n'))
        done = commands.exec('dead,h[1-2]', '--', 'hostname', status=3)
        assert sorted(done.stdout.splitlines()) == ['h1: h1', 'h2: h2']
        [line] = done.stderr.splitlines()
        assert re.match(r'ERROR: dead: .*refused', line)
        assert commands.exec('dead,h1', '--', 'exit 9', status=9)

    def test_a_cut_host_costs_the_time_limit_alone(self, commands: Commands, bed: Testbed) -> None:
        bed['h2'].cut()
        try:
            done = commands.exec('h[1-3]', '--connect-timeout', '1', '--', 'hostname', status=3)
        finally:
            bed['h2'].heal()
        assert sorted(done.stdout.splitlines()) == ['h1: h1', 'h3: h3']
        [line] = done.stderr.splitlines()
        assert line.startswith('ERROR: h2: ')

    def test_wrong_usage(self, commands: Commands) -> None:
        for arguments in (['exec', '--', 'true'], ['exec', '-H', 'h1'], ['exec', '-H', 'h1', '--fol', '--', 'true']):
            done = commands.run(*arguments, status=2)
            assert done.stderr.startswith('ERROR: ')
            assert done.stdout == ''


class TestCommandLine:
    @pytest.mark.parametrize(
        'words',
        [
            ['echo', 'a  b', '$HOME', "'c  d'", '*', '"e', 'f"'],
            ['echo', '-n', '--fold', '-H', 'x'],
            ['echo', '--', 'x'],
            ['printf', '%s', "'it'\"'\"'s'", ';', 'echo', '\\\\'],
            ['echo', 'Grüße', '→'],
        ],
        ids=['spaces', 'options', 'dashes', 'quotes', 'text'],
    )
    def test_its_words_are_joined_as_ssh_does(self, commands: Commands, bed: Testbed, words: list[str]) -> None:
        expected = output(bed, 'h1', ' '.join(words))
        done = commands.exec('h1', '--', *words)
        assert done.stdout.rstrip('\n') == '\n'.join(f'h1: {line}' for line in expected.splitlines())

    def test_environment_and_folder_are_those_of_ssh(self, commands: Commands, bed: Testbed) -> None:
        def shown(text: str) -> set[str]:
            return {line for line in text.splitlines() if not line.startswith(('SSH_', '_=', 'SHLVL='))}

        done = commands.exec('h1', '--', 'pwd; env', variables={'LC_ALL': 'C.UTF-8'})
        ours = '\n'.join(line.removeprefix('h1: ') for line in done.stdout.splitlines())
        assert shown(ours) == shown(output(bed, 'h1', 'pwd; env'))

    def test_stdin_is_empty(self, commands: Commands) -> None:
        read, write = os.pipe()
        try:
            done = commands.exec('h[1-3]', '--', 'cat; echo end', stdin=read)
        finally:
            os.close(read)
            os.close(write)
        assert sorted(done.stdout.splitlines()) == ['h1: end', 'h2: end', 'h3: end']

    def test_many_lines_of_script(self, commands: Commands) -> None:
        done = commands.exec('h1', '--', 'for i in 1 2\ndo\n  echo "$i"\ndone\n# end')
        assert done.stdout == 'h1: 1\nh1: 2\n'


class TestHosts:
    def test_excluded(self, commands: Commands) -> None:
        done = commands.exec('h[1-3]', '-x', 'h2', '--', 'true', status=0)
        assert done.stdout == ''
        done = commands.exec('h[1-3]', '-x', 'h2', '--', 'hostname')
        assert sorted(done.stdout.splitlines()) == ['h1: h1', 'h3: h3']

    def test_from_a_file(self, commands: Commands, tmp_path: Path) -> None:
        (tmp_path / 'hosts').write_text('# ours\nh1   # the first\n\nroot@h3\n')
        done = commands.exec('@hosts', '--', 'hostname', cwd=tmp_path)
        assert sorted(line.split(': ')[1] for line in done.stdout.splitlines()) == ['h1', 'h3']

    def test_several_options(self, commands: Commands) -> None:
        done = commands.exec('h1', '-H', 'h2,h3', '-x', 'h[2]', '--', 'hostname')
        assert sorted(done.stdout.splitlines()) == ['h1: h1', 'h3: h3']

    def test_none_left(self, commands: Commands) -> None:
        done = commands.exec('h1', '-x', 'h1', '--', 'true', status=2)
        assert done.stderr.startswith('ERROR: ')

    def test_this_machine_without_ssh(self, commands: Commands, tmp_path: Path) -> None:
        marker = tmp_path / 'here'
        marker.write_text('seen')
        done = commands.exec('localhost,h1', '--', f'cat {marker} 2>/dev/null || echo not here')
        assert sorted(done.stdout.splitlines()) == ['h1: not here', 'localhost: seen']
        done = commands.exec('localhost', '--', 'echo "<$SSH_CONNECTION>"; exit 4', status=4)
        assert done.stdout == 'localhost: <>\n'

    def test_one_machine_under_two_names_runs_it_once(self, bed: Testbed, tmp_path: Path) -> None:
        commands = Commands(tmp_path, ssh_config(tmp_path, bed, alias_of(bed, 'h1', 'alias')))
        done = commands.exec('h1,alias', '--', 'echo ran')
        assert len(done.stdout.splitlines()) == 1

    def test_the_shell_of_the_user_runs_it(self, commands: Commands, bed: Testbed) -> None:
        bed['h2'].set_shell('/usr/bin/fish')
        try:
            done = commands.exec('h2', '--', 'set -l x (echo fishy); echo $x; string length abc')
        finally:
            bed['h2'].set_shell('/bin/bash')
        assert done.stdout == 'h2: fishy\nh2: 3\n'


class TestEnding:
    COMMAND = 'trap "" INT HUP; sleep 1002 & (trap "" HUP; sleep 1003); wait'

    @pytest.mark.parametrize(
        ('number', 'status'),
        [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGHUP, 130), (signal.SIGKILL, -9)],
        ids=['INT', 'TERM', 'HUP', 'KILL'],
    )
    def test_interrupted_leaves_nothing_on_the_hosts(
        self, commands: Commands, bed: Testbed, number: signal.Signals, status: int
    ) -> None:
        with commands.start('exec', '-F', bed.ssh_config, '-H', 'h[1-3]', '--', self.COMMAND) as command:
            wait_until(lambda: running(bed, '1002') == running(bed, '1003') == ['h1', 'h2', 'h3'], 'it runs')
            command.signal(number)
            done = command.end()
        assert done.status == status
        assert 'Traceback' not in done.stderr
        for host in bed.hosts:
            nothing_runs(host)

    def test_what_does_not_listen_to_term_ends_too(self, commands: Commands, bed: Testbed) -> None:
        script = 'trap "" TERM INT HUP; sleep 1004; sleep 1004'
        with commands.start('exec', '-F', bed.ssh_config, '-H', 'h1', '--', script) as command:
            wait_until(lambda: running(bed, '1004') == ['h1'], 'it runs')
            command.signal(signal.SIGINT)
            assert command.end().status == 130
        nothing_runs(bed['h1'])

    def test_a_background_process_that_holds_stdout_does_not_hold_us(self, commands: Commands, bed: Testbed) -> None:
        try:
            done = commands.exec('h[1-2]', '--', 'sleep 1005 & echo started')
        finally:
            for host in bed.hosts:
                host.run(['pkill', '-f', 'sleep 1005'], check=False)
        assert sorted(done.stdout.splitlines()) == ['h1: started', 'h2: started']

    def test_nor_does_one_that_never_stops_talking(self, commands: Commands, bed: Testbed) -> None:
        try:
            done = commands.exec('h1', '--', 'yes talking & echo started')
        finally:
            bed['h1'].run(['pkill', '-x', 'yes'], check=False)
        assert 'h1: started' in done.stdout.splitlines()

    def test_what_goes_on_in_the_background_goes_on(self, commands: Commands, bed: Testbed) -> None:
        done = commands.exec('h1', '--', 'nohup sleep 1006 >/dev/null 2>&1 & echo started')
        assert done.stdout == 'h1: started\n'
        wait_until(lambda: all(process.argv[0] == 'sleep' for process in bed['h1'].processes()), 'the connection ends')
        assert running(bed, '1006') == ['h1']
        bed['h1'].run(['pkill', '-f', 'sleep 1006'])


def test_help_is_there_without_hosts(commands: Commands) -> None:
    done = commands.run('exec', '--help')
    assert '--fold' in done.stdout
    assert done.stderr == ''


@pytest.mark.parametrize(('redirection', 'status'), [('>&-', 0), ('2>&-', 0), ('>&- 2>&-', 0), ('>/dev/full', 1)])
def test_streams_that_are_closed_or_full(redirection: str, status: int) -> None:
    command = f'{" ".join(map(shlex.quote, COMMAND))} exec -H localhost -- echo hi {redirection}'
    done = subprocess.run(['sh', '-c', command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert 'Traceback' not in done.stderr
    assert ('cannot be written' in done.stderr) == (status == 1)
