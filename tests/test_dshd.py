"""`remote_runner dshd`: one daemon a user, that serves whoever asks and leaves nothing behind."""

from __future__ import annotations

import configparser
import os
import re
import resource
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pexpect
import pytest

from remote_runner.agent import screen
from remote_runner.errors import RemoteRunnerError
from remote_runner.hosts.ssh import Connector, SshOptions
from remote_runner.placement import seat, wire
from remote_runner.placement.keeper import Cluster
from remote_runner.placement.seat import Seat
from remote_runner.placement.server import Server
from remote_runner.wire import frames
from tests.commands import ROOT, environment, nothing_runs
from tests.daemons import Client, Daemons, is_alive
from tests.privileges import NOBODY, unprivileged
from tests.testbed import Testbed
from tests.testbed.process import await_stop, wait_until

HOSTS = {'h1': 'up', 'h2': 'up', 'h3': 'up'}


@pytest.fixture
def daemons(bed: Testbed, tmp_path: Path) -> Iterator[Daemons]:
    with Daemons(bed, tmp_path) as daemons:
        yield daemons
    for host in bed.hosts:
        nothing_runs(host)


@pytest.fixture(scope='module')
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    """One that runs all the time, with hosts of its own."""
    with Testbed(count=3) as own, Daemons(own, tmp_path_factory.mktemp('dshd')) as served:
        served.begin('-t', '0', '-r', '0')
        yield served
        served.dshd('--stop')


def passes_on(pid: int) -> bool:
    """Whether a dsh would pass on the last of the signals that it catches, and so the others."""
    found = re.search(r'^SigCgt:\s*(\w+)', Path(f'/proc/{pid}/status').read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) & 1 << signal.SIGUSR2 - 1)


def words_on(daemons: Daemons) -> set[str]:
    return {word for host in daemons.bed.hosts for process in host.processes() for word in process.argv}


class TestLife:
    def test_in_the_background(self, daemons: Daemons) -> None:
        pid = daemons.begin()
        status = daemons.status()
        assert status['pid'] == pid
        assert status['cluster'] == str(daemons.cluster)
        assert {host['name']: host['state'] for host in status['hosts']} == HOSTS, 'before the pid was printed'
        assert os.getsid(pid) == pid
        assert stat.S_IMODE(daemons.socket.stat().st_mode) == 0o600
        assert f'ready, with the pid {pid}; 3 hosts: 3 up' in daemons.log()
        done = daemons.dshd('--status')
        assert re.search(r'^h2 +up ', done.stdout, re.MULTILINE)
        daemons.dshd('--stop')
        assert not is_alive(pid)
        assert not daemons.socket.exists()
        assert 'stopped' in daemons.log()
        for host in daemons.bed.hosts:
            nothing_runs(host)

    def test_in_the_background_it_holds_nothing_that_it_was_given(self, daemons: Daemons) -> None:
        read, write = os.pipe()
        daemons.begin(pass_fds=[write])
        os.close(write)
        with open(read, 'rb') as pipe:
            assert pipe.read() == b''

    @pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
    def test_in_the_foreground(self, daemons: Daemons, number: signal.Signals) -> None:
        with daemons.start('dshd', '-F', daemons.ssh_config, '-f', daemons.cluster, '--json') as daemon:
            wait_until(lambda: daemon.out, 'the daemon')
            assert f'"pid": {daemon.pid}'.encode() in daemon.out
            daemon.signal(number)
            done = daemon.end()
        assert done.status == 0
        assert 'ERROR' not in done.stderr
        assert not daemons.socket.exists()

    def test_its_pid(self, daemons: Daemons) -> None:
        with daemons.start('dshd', '-F', daemons.ssh_config, '-f', daemons.cluster, '-p') as daemon:
            wait_until(lambda: daemon.out.endswith(b'\n'), 'the daemon')
            assert int(daemon.out) == daemon.pid
            assert set(daemons.states().values()) == {'up'}
            daemon.signal(signal.SIGTERM)
            assert daemon.end().status == 0

    def test_there_is_one_at_a_time(self, daemons: Daemons) -> None:
        pid = daemons.begin()
        for more in ([], ['-b']):
            done = daemons.dshd('-F', daemons.ssh_config, '-H', 'h1', *more, status=1)
            assert done.stderr.startswith(f'ERROR: a daemon runs already, with the pid {pid}')
            assert done.stdout == ''
        assert daemons.states() == HOSTS

    def test_none_runs(self, daemons: Daemons) -> None:
        for word in ('--stop', '--status'):
            assert daemons.dshd(word, status=1).stderr.startswith('ERROR: no daemon runs')

    def test_killed_and_started_again(self, daemons: Daemons) -> None:
        first = daemons.begin()
        daemons.kill(first)
        assert daemons.socket.is_socket(), 'it is left behind'
        assert daemons.dshd('--status', status=1).stderr.startswith('ERROR: no daemon runs')
        second = daemons.begin()
        assert daemons.status()['pid'] == second != first

    @pytest.mark.parametrize('which', ['socket', 'lock', 'both', 'folder'])
    def test_what_is_removed_beside_it_comes_back(self, daemons: Daemons, tmp_path: Path, which: str) -> None:
        place = tmp_path / 'place'
        place.mkdir()
        daemons.socket = place / 'dshd'
        daemons.variables['RR_DSHD_SOCKET'] = str(daemons.socket)
        pid = daemons.begin()
        lock = place / 'dshd.lock'
        before = lock.stat().st_ino, daemons.socket.stat().st_ino
        if which == 'folder':
            place.rename(tmp_path / 'elsewhere')
            place.mkdir()
        for file in (daemons.socket, lock):
            if which in ('both', file.suffix[1:] or 'socket'):
                file.unlink()
        wait_until(lambda: 'there is another one now' in daemons.log(), 'it notices')
        assert (lock.stat().st_ino, daemons.socket.stat().st_ino) != before
        assert daemons.status()['pid'] == pid
        refused = daemons.dshd('-F', daemons.ssh_config, '-H', 'h1', status=1)
        assert f'a daemon runs already, with the pid {pid}' in refused.stderr
        daemons.dshd('--stop')
        assert not daemons.socket.exists()

    def test_it_ends_where_another_one_has_its_place(self, daemons: Daemons) -> None:
        first = daemons.begin()
        other = daemons.socket.with_name('other')
        with Seat(str(other)):
            other.with_name('other.lock').rename(daemons.socket.with_name('socket.lock'))
            wait_until(lambda: not is_alive(first), 'its end')
            assert daemons.socket.exists(), 'it may be the other one\'s'
        assert f'a daemon runs already, with the pid {os.getpid()}' in daemons.log()

    def test_what_it_ran_ends_with_it_however_it_ends(self, daemons: Daemons) -> None:
        for end in (daemons.kill, lambda pid: daemons.dshd('--stop')):
            pid = daemons.begin()
            with daemons.client() as client:
                client.run('sh', '-c', 'trap "" HUP INT; sleep 4040 & sleep 4040')
                wait_until(lambda: '4040' in words_on(daemons), 'the command')
                end(pid)
                for host in daemons.bed.hosts:
                    nothing_runs(host)

    def test_a_dsh_of_one_that_is_killed(self, daemons: Daemons) -> None:
        for answer in ('first', 'second'):
            pid = daemons.begin()
            assert daemons.run('dsh', '--dir', '/', 'echo', answer).stdout == f'{answer}\n'
            with daemons.start('dsh', '-n', '--dir', '/', 'sh', '-c', 'echo up; sleep 4047') as command:
                wait_until(lambda: command.out == b'up\n', 'it runs')
                daemons.kill(pid)
                done = command.end()
            assert done.status == 3
            what = 'the daemon has ended, and the command with it (start it again: remote_runner dshd)'
            assert re.fullmatch(rf'ERROR: h[1-3]: {re.escape(what)}\n', done.stderr)
            for host in daemons.bed.hosts:
                nothing_runs(host)

    def test_who_waits_for_a_command_is_told(self, daemons: Daemons) -> None:
        daemons.begin()
        with daemons.client() as client:
            client.run('sleep', '4041')
            daemons.dshd('--stop')
            _, answer = client.output()
        assert answer['error']['kind'] == 'stopped'
        assert 'remote_runner dshd' in answer['error']['remedy']

    def test_one_that_is_stopped_answers_nobody_and_is_not_taken_for_dead(self, daemons: Daemons) -> None:
        pid = daemons.begin()
        os.kill(pid, signal.SIGSTOP)
        await_stop(pid)
        assert str(pid) in daemons.dshd('-F', daemons.ssh_config, '-H', 'h1', status=1).stderr
        with daemons.start('dsh', '--dir', '/', 'true') as command:
            wait_until(lambda: passes_on(command.pid), 'dsh to ask it')
            command.signal(signal.SIGINT)
            done = command.end()
        assert done.status == -signal.SIGINT
        assert done.stderr.startswith('ERROR: the daemon does not answer: 5 s after signal 2 it has named no host (')
        os.kill(pid, signal.SIGCONT)
        assert daemons.states() == HOSTS

    def test_hosts_that_are_out_of_reach_are_in_nobodys_way(self, daemons: Daemons, tmp_path: Path) -> None:
        config = tmp_path / 'ssh_config'
        config.write_text(f'Host dead\n  HostName 127.0.0.1\n  Port 9\nHost *\n  Include {daemons.ssh_config}\n')
        daemons.name_hosts('h1', 'dead')
        daemons.ssh_config = config
        done = daemons.dshd('-F', config, '-H', daemons.cluster, '-b')
        assert daemons.states() == {'h1': 'up', 'dead': 'lost'}
        with daemons.client() as client:
            assert client.ask('best', count=2)['result'] == {'hosts': ['h1', 'h1']}
            assert client.ask('best', wanted={'hosts': ['dead']})['error']['status'] == 3
        for text in (done.stderr, daemons.log()):
            assert re.search(r'WARNING: dead: .*refused.*tried again', text)
        daemons.dshd('--stop')

    def test_mistakes_are_seen_before_it_goes_into_the_background(self, daemons: Daemons) -> None:
        start = ['-F', daemons.ssh_config, '-H', daemons.cluster, '-b']
        with socket.create_server(('127.0.0.1', 0)) as taken:
            done = daemons.dshd(*start, '-t', str(taken.getsockname()[1]), status=2)
        assert 'in use' in done.stderr
        daemons.name_hosts('h1 -')
        assert f'{daemons.cluster}, line 1' in daemons.dshd(*start, status=2).stderr
        daemons.name_hosts('h1')
        daemons.variables['RR_DSHD_SOCKET'] = '/nowhere/socket'
        assert 'RR_DSHD_SOCKET' in daemons.dshd(*start, status=1).stderr

    def test_a_log_that_cannot_be_written(self, daemons: Daemons, tmp_path: Path) -> None:
        (tmp_path / 'file').touch()
        daemons.variables['XDG_STATE_HOME'] = str(tmp_path / 'file')
        done = daemons.dshd('-F', daemons.ssh_config, '-H', 'h1', '-b', status=1)
        what = rf'the log {tmp_path}/file/.* cannot be written: Not a directory \(XDG_STATE_HOME names another place\)'
        assert re.fullmatch(rf'ERROR: {what}', done.stderr.strip())
        assert daemons.dshd('--status', status=1).stderr.startswith('ERROR: no daemon runs')

    def test_a_password_is_asked_for_at_the_terminal_that_it_leaves_then(
        self, daemons: Daemons, tmp_path: Path, bed: Testbed
    ) -> None:
        bed['h1'].set_password('root', 'open sesame')
        config = tmp_path / 'ssh_config'
        known = f'  UserKnownHostsFile {bed.known_hosts}\n  GlobalKnownHostsFile /dev/null\n'
        config.write_text(f'Host h1\n  HostName {bed["h1"].address}\n  User root\n  IdentityFile none\n{known}')
        words = ['-m', 'remote_runner', 'dshd', '-F', str(config), '-H', 'h1', '-b']
        variables = environment(daemons.home) | daemons.variables
        with pexpect.spawn(sys.executable, words, env=variables, encoding='utf-8', timeout=60) as terminal:
            terminal.expect('[Pp]assword')
            terminal.sendline('open sesame')
            terminal.expect(r'\r\n(\d+)\r\n')
            pid = daemons.know(int(terminal.match[1]))
            terminal.expect(pexpect.EOF)
        assert daemons.states() == {'h1': 'up'}, 'the terminal is gone'
        bed['h1'].stop_sshd(sessions=True)
        wait_until(lambda: re.search('h1: .*tried again', daemons.log()), 'the loss of h1')
        bed['h1'].start_sshd()
        wait_until(lambda: 'h1: it is there' in daemons.log(), 'h1 to be back')
        assert daemons.status()['pid'] == pid, 'nobody was asked again'
        daemons.dshd('--stop')

    def test_interrupted_before_it_is_set_up(self, daemons: Daemons, fresh_bed: type[Testbed]) -> None:
        with socket.create_server(('127.0.0.1', 0)) as silent:  # no banner ever comes
            config = daemons.home / 'ssh_config'
            port = silent.getsockname()[1]
            daemons.home.mkdir(exist_ok=True)
            config.write_text(f'Host silent\n  HostName 127.0.0.1\n  Port {port}\n')
            arguments = ['-F', config, '-H', 'silent', '-b', '--connect-timeout', '60']
            with daemons.start('dshd', *arguments) as daemon:
                lock = Path(f'{daemons.socket}.lock')
                wait_until(lambda: lock.exists() and lock.read_text(), 'the daemon')
                daemon.signal(signal.SIGTERM)
                daemon.end()
            assert daemons.dshd('--status', status=1).stderr.startswith('ERROR: no daemon runs')


class TestCluster:
    def test_it_is_read_again_when_it_changes(self, daemons: Daemons) -> None:
        daemons.name_hosts('h1')
        daemons.begin()
        daemons.name_hosts('h1', 'h2 2.0')
        daemons.becomes(h1='up', h2='up')
        daemons.name_hosts('h2')
        daemons.becomes(h2='up')
        nothing_runs(daemons.bed['h1'])

    def test_which_it_is_is_told_in_any_folder(self, daemons: Daemons) -> None:
        daemons.dshd('-F', daemons.ssh_config, '-f', daemons.cluster.name, '-b', cwd=daemons.cluster.parent)
        assert daemons.status()['cluster'] == str(daemons.cluster)
        daemons.dshd('--stop')

    def test_hup(self, daemons: Daemons) -> None:
        pid = daemons.begin()
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: 'was read again' in daemons.log(), 'that it reads it')
        assert daemons.states() == HOSTS

    def test_a_mistake_is_told_and_changes_nothing(self, daemons: Daemons) -> None:
        pid = daemons.begin()
        daemons.name_hosts('h1 -')
        wait_until(lambda: 'the hosts stay as they were' in daemons.log(), 'the fault in the log')
        assert is_alive(pid)
        assert daemons.states() == HOSTS

    def test_a_score_of_ones_own(self, daemons: Daemons) -> None:
        file = daemons.cluster.with_name('score.py')
        file.write_text("def score(host):\n    return 1.0 if host.name == 'h3' else 2.0\n")
        daemons.begin('--evaluate', file)
        with daemons.client() as client:
            assert client.ask('best', count=3)['result'] == {'hosts': ['h3'] * 3}

    def test_a_mistake_in_it_is_told_to_whoever_asks(self, daemons: Daemons) -> None:
        file = daemons.cluster.with_name('score.py')
        file.write_text('def score(host):\n    return host.nonsense\n')
        pid = daemons.begin('--evaluate', file)
        for words in (['load', '--best'], ['dsh', '--dir', '/', 'true']):
            assert f'{file}, line 2' in daemons.run(*words, status=2).stderr
        assert f'{file}, line 2' in daemons.log()
        done = daemons.dshd('--status', status=2)
        assert done.stdout.startswith(f'pid {pid}, ')
        assert f'{file}, line 2' in done.stderr


class TestCommands:
    def test_200_at_once(self, served: Daemons) -> None:
        def run(number: int) -> tuple[bytes, int]:
            with served.client() as client:
                client.run('sh', '-c', f'read line; echo {number} $line')
                client.send({'id': 1, 'part': 'in'}, b'x\n')
                out, answer = client.output()
                return out, answer['result']['status']

        with ThreadPoolExecutor(200) as pool:
            assert list(pool.map(run, range(200))) == [(b'%d x\n' % number, 0) for number in range(200)]

    def test_many_of_one_client(self, served: Daemons) -> None:
        with served.client() as client:
            hosts = {client.run('cat', number=number) for number in range(1, 31)}
            assert hosts == {'h1', 'h2', 'h3'}
            for number in reversed(range(1, 31)):
                client.send({'id': number, 'part': 'in'}, b'%d' % number)
                client.send({'id': number, 'part': None})
                out, answer = client.output(number)
                assert (out, answer['result']) == (b'%d' % number, {'status': 0})

    def test_a_client_that_does_not_read_is_in_nobodys_way(self, served: Daemons) -> None:
        with served.client() as lazy, served.client() as greedy, served.client() as other:
            lazy.run('yes')
            greedy.run('yes', window=1 << 40)
            for number in range(3, 13):
                other.run('echo', str(number), number=number)
                assert other.output(number)[0] == b'%d\n' % number
            assert int(memory_of(served.status()['pid'])) < 150_000

    def test_a_client_that_vanishes_takes_its_commands_with_it(self, served: Daemons) -> None:
        with served.client() as client:
            client.run('sleep', '4042')
            client.run('sleep', '4042', number=2)
            wait_until(lambda: '4042' in words_on(served), 'the commands')
        wait_until(lambda: '4042' not in words_on(served), 'their end')
        wait_until(lambda: served.status()['runs'] == 0, 'that they are over')

    def test_cancel(self, served: Daemons) -> None:
        with served.client() as client:
            client.run('sleep', '4043')
            client.send({'id': 1, 'cancel': True})
            assert client.output()[1]['error']['kind'] == 'cancelled'

    def test_signals_do_not_wait_behind_input(self, served: Daemons) -> None:
        with served.client() as client:
            client.run('sleep', '4044')
            for _ in range(16):
                client.send({'id': 1, 'part': 'in'}, bytes(1 << 16))
            client.send({'id': 1, 'part': ['signal', signal.SIGTERM]})
            assert client.output()[1]['result'] == {'status': 128 + signal.SIGTERM}

    def test_a_host_that_is_cut_off_and_heals(self, fresh_bed: type[Testbed], tmp_path: Path) -> None:
        bed = fresh_bed(2)
        with Daemons(bed, tmp_path) as daemons:
            daemons.begin()
            with daemons.client() as client:
                wanted = {'hosts': ['h1']}
                client.send(run_of(1, wanted, 'cat'))
                assert client.next()[0]['host'] == 'h1'
                bed['h1'].cut()
                for _ in range(16):  # as much as may be under way
                    client.send({'id': 1, 'part': 'in'}, b'x' * (1 << 16))
                client.send({'id': 1, 'part': None})
                daemons.becomes(h1='lost', h2='up')
                with daemons.client() as other:
                    assert other.run('echo', 'fine') == 'h2'
                    assert other.output()[0] == b'fine\n'
                bed['h1'].heal()
                out, answer = client.output()
                assert (len(out), answer['result']) == (1 << 20, {'status': 0})
                daemons.becomes(h1='up', h2='up')

    def test_a_host_that_dies(self, fresh_bed: type[Testbed], tmp_path: Path) -> None:
        bed = fresh_bed(2)
        with Daemons(bed, tmp_path) as daemons:
            daemons.begin()
            with daemons.client() as client:
                client.send(run_of(1, {'hosts': ['h1']}, 'sleep', '4045'))
                bed['h1'].stop_sshd(sessions=True)
                _, answer = client.output_after_host()
                assert answer['error']['kind'] == 'lost'
                assert answer['error']['host'] == 'h1'
                assert answer['error']['status'] == 3
            assert daemons.status()['runs'] == 0


def run_of(number: int, wanted: dict[str, object], *argv: str) -> dict[str, object]:
    rest = {'cwd': '/', 'umask': 0o22, 'env': {}, 'terminal': None}
    return {'id': number, 'op': 'run', 'wanted': wanted, 'argv': list(argv), **rest}


def memory_of(pid: int) -> str:
    """Resident memory of a process, kB."""
    found = re.search(r'^VmRSS:\s*(\d+) kB', Path(f'/proc/{pid}/status').read_text(), re.MULTILINE)
    assert found
    return found[1]


class TestMistakes:
    """Of clients: each is told, and nobody else hears of it."""

    @pytest.mark.parametrize(
        'data',
        [
            b'GET / HTTP/1.1\r\n\r\n',
            struct.pack('>II', 5, 0) + b'hello',
            struct.pack('>II', 2, 0) + b'[]',
            struct.pack('>II', 1 << 30, 0),
            struct.pack('>II', 2, (1 << 20) + 1),
            frames.encode({'op': 'ping'}),
            frames.encode({'id': 'seven', 'op': 'ping'}),
            frames.encode({'id': 1}),
            frames.encode({'id': 1, 'credit': 'much'}),
            frames.encode({'id': 1, 'part': 'in', 'credit': 3}),
        ],
    )
    def test_broken_frames(self, served: Daemons, data: bytes) -> None:
        with served.client() as other, served.client() as client:
            other.run('cat')
            client.socket.sendall(data)
            header, _ = client.next()
            assert header['error']['kind'] == 'frame'
            with pytest.raises(EOFError):
                client.next()
            other.send({'id': 1, 'part': None})
            assert other.output()[1]['result'] == {'status': 0}

    def test_more_than_there_is_credit_for(self, served: Daemons) -> None:
        with served.client() as client:
            client.run('sleep', '4046')
            for _ in range(20):  # a pipe takes some of it
                client.send({'id': 1, 'part': 'in'}, bytes(1 << 16))
            header, _ = client.next()
            while 'credit' in header:
                header, _ = client.next()
            assert header['error']['kind'] == 'frame'
            assert 'credit' in header['error']['what']
        wait_until(lambda: '4046' not in words_on(served), 'its end')

    @pytest.mark.parametrize(
        ('op', 'fields'),
        [
            ('fly', {}),
            (['run'], {}),
            ('best', {'count': 0}),
            ('best', {'count': 'all'}),
            ('best', {'peek': 1}),
            ('best', {'wanted': []}),
            ('best', {'wanted': {'colour': 'red'}}),
            ('best', {'wanted': {'hosts': 'h1'}}),
            ('best', {'wanted': {'hosts': [1]}}),
            ('best', {'wanted': {'min_memory': '2G'}}),
            ('run', {'wanted': {'max_load': 'low'}}),
            ('run', {'window': 'large'}),
        ],
    )
    def test_requests_that_make_no_sense(self, served: Daemons, op: str, fields: dict[str, object]) -> None:
        with served.client() as client:
            answer = client.ask(op, **fields)
            assert answer['error']['kind'] == 'usage'
            assert answer['error']['status'] == 2
            assert client.ask('ping', 2)['result']['pid'] == served.status()['pid']

    def test_no_host_fits(self, served: Daemons) -> None:
        with served.client() as client:
            answer = client.ask('run', wanted={'platform': 'vax'}, argv=['true'])
            assert answer['error']['kind'] == 'no host'
            assert 'not vax' in answer['error']['what']

    def test_what_the_host_cannot_do_is_said_by_it(self, served: Daemons) -> None:
        with served.client() as client:
            host = client.run('true', cwd='/nowhere')
            _, answer = client.output()
            assert answer['error']['kind'] == 'cwd'
            assert answer['error']['host'] == host

    def test_more_clients_than_files(self, daemons: Daemons) -> None:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 100))

        daemons.begin(preexec_fn=limit)
        with ExitStack() as clients:
            many = [clients.enter_context(daemons.client()) for _ in range(200)]
            wait_until(lambda: 'nobody else can connect' in daemons.log(), 'a warning')
            for client in many[:150]:
                client.socket.close()
            assert many[-1].ask('ping')['result']['pid']


class TestUsers:
    def test_nobody_else_gets_in(self, served: Daemons) -> None:
        if os.geteuid():
            pytest.skip('only root can be another user')
        served.socket.parent.chmod(0o755)
        with unprivileged(), pytest.raises(PermissionError):
            Client(served.socket)

    def test_root_is_told_whose_it_is(self, tmp_path: Path) -> None:
        """Whom the permissions do not keep out."""
        if os.geteuid():
            pytest.skip('only root can be another user')
        folder = Path(tempfile.mkdtemp(dir='/tmp'))
        os.chown(folder, NOBODY, NOBODY)
        pid = os.fork()
        if pid == 0:
            os.setresuid(NOBODY, NOBODY, NOBODY)
            serve_nothing(folder / 'socket')
        try:
            wait_until((folder / 'socket').exists, 'the socket')
            with Client(folder / 'socket') as client:
                answer = client.ask('ping', number=None)
                assert answer['error']['kind'] == 'user'
                assert f'serves user {NOBODY} alone' in answer['error']['what']
                with pytest.raises(EOFError):
                    client.next()
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            shutil.rmtree(folder)


def serve_nothing(path: Path) -> NoReturn:
    """Be a daemon without hosts."""
    try:
        connector = Connector(SshOptions())
        with Seat(str(path)) as seat, Cluster(connector, []) as cluster, Server(cluster) as server:
            server.listen(seat.listen())
            server.run()
    finally:
        os._exit(1)


class TestPlace:
    """Where nobody names another one."""

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / f'runtime-{os.getuid()}'
        for module in (wire, seat):
            monkeypatch.setattr(module, 'FOLDER', str(tmp_path / 'runtime'))
        monkeypatch.setattr(screen, 'runtime_candidates', lambda: [str(folder)])
        monkeypatch.delenv(wire.SOCKET, raising=False)
        return folder

    def test_it_is_the_one_of_all_our_sockets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(wire.SOCKET, raising=False)
        assert wire.socket_path() == f'{screen.runtime_candidates()[0]}/dshd'

    @pytest.mark.parametrize('is_there', [False, True])
    def test_it_is_ours_alone(self, folder: Path, is_there: bool) -> None:
        if is_there:
            folder.mkdir()
            folder.chmod(0o755)
        with Seat(wire.socket_path()) as taken, taken.listen():
            assert wire.socket_path() == f'{folder}/dshd'
            modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / 'dshd', folder / 'dshd.lock')]
            assert modes == [0o700, 0o600, 0o600]

    def test_what_is_somebody_elses_is_left_alone(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / 'theirs').mkdir()
        folder.symlink_to('theirs')
        with pytest.raises(RemoteRunnerError, match=r'is not a folder of ours .*RR_DSHD_SOCKET'):
            Seat(wire.socket_path()).__enter__()
        assert list((tmp_path / 'theirs').iterdir()) == []


class TestPorts:
    def read(self, port: int, say: bytes = b'') -> list[str]:
        with socket.create_connection(('127.0.0.1', port)) as connection:
            connection.sendall(say)
            with connection.makefile() as text:
                return text.read().splitlines()

    def test_the_list(self, served: Daemons) -> None:
        lines = self.read(served.status()['ports']['list'])
        assert {line.split()[0] for line in lines} == {'h1', 'h2', 'h3'}
        for line in lines:
            assert re.fullmatch(r'h\d up \d+\.\d\d \d+\.\d\d \d+\.\d\d \d+ \d+ \d+ \d+ \d+ \d+\.\d\d', line), line
        scores = [float(line.split()[2]) for line in lines]
        assert scores == sorted(scores)

    def test_the_best_one_is_a_choice(self, served: Daemons) -> None:
        port = served.status()['ports']['best']
        found = [self.read(port, b'GET / HTTP/1.1\r\n\r\n' * 1000) for _ in range(12)]
        assert {name for [name] in found} == {'h1', 'h2', 'h3'}
        assert sum(host['virtual'] for host in served.status()['hosts']) > 3

    def test_or_is_not(self, daemons: Daemons) -> None:
        daemons.begin('--peek', '-r', '0')
        port = daemons.status()['ports']['best']
        assert len({self.read(port)[0] for _ in range(5)}) == 1
        assert sum(host['virtual'] for host in daemons.status()['hosts']) == 0

    def test_as_it_was_always_written(self, daemons: Daemons) -> None:
        with socket.create_server(('127.0.0.1', 0)) as one, socket.create_server(('127.0.0.1', 0)) as other:
            ports = [str(each.getsockname()[1]) for each in (one, other)]
        words = ['-f', daemons.cluster, '-b', '-p', '-t', ports[0], '-r', ports[1]]
        daemons.dshd('-F', daemons.ssh_config, *words)
        assert len(self.read(int(ports[0]))) == 3
        assert len(self.read(int(ports[1]))) == 1
        daemons.dshd('--stop')

    def test_loopback_alone_unless_asked(self, daemons: Daemons) -> None:
        daemons.begin('-t', '0')
        assert self.listening(daemons) == {'127.0.0.1'}
        daemons.dshd('--stop')
        daemons.begin('-t', '0', '--listen', '::1')
        assert self.listening(daemons) == {'[::1]'}

    def listening(self, daemons: Daemons) -> set[str]:
        status = daemons.status()
        table = subprocess.run(['ss', '-Hltnp'], capture_output=True, text=True, check=True).stdout
        own = [line.split()[3] for line in table.splitlines() if f'pid={status["pid"]},' in line]
        assert [where.rpartition(':')[2] for where in own] == [str(status['ports']['list'])]
        return {where.rpartition(':')[0] for where in own}

    def test_where_no_host_will_do(self, daemons: Daemons, tmp_path: Path) -> None:
        config = tmp_path / 'ssh_config'
        config.write_text('Host dead\n  HostName 127.0.0.1\n  Port 9\n')
        daemons.ssh_config = config
        daemons.name_hosts('dead')
        daemons.begin('-t', '0', '-r', '0')
        ports = daemons.status()['ports']
        assert self.read(ports['list']) == ['dead lost - - - - - - - - -']
        assert self.read(ports['best']) == []
        assert 'no host will do' in daemons.log()


def test_systemd_is_told(daemons: Daemons, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / 'notify'))
        systemd.settimeout(60)
        daemons.variables['NOTIFY_SOCKET'] = str(tmp_path / 'notify')
        with daemons.start('dshd', '-F', daemons.ssh_config, '-H', daemons.cluster) as daemon:
            assert systemd.recv(100) == b'READY=1'
            assert daemons.states() == HOSTS
            daemon.signal(signal.SIGTERM)
            assert systemd.recv(100) == b'STOPPING=1'
            assert daemon.end().status == 0


def test_the_unit_of_systemd(daemons: Daemons) -> None:
    """Its command, as systemd runs it, for somebody who has done what it says at its top."""
    unit = configparser.ConfigParser(interpolation=None, delimiters=['='])
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / 'example/dshd.service')
    assert unit['Service']['Type'] == 'notify'
    program, *words = unit['Service']['ExecStart'].split()
    assert program == '%h/.local/bin/remote_runner'
    (daemons.home / '.config/remote_runner').mkdir(parents=True)
    (daemons.home / '.config/remote_runner/cluster').write_text('h[1-3]\n')
    with daemons.start(*words, '-F', daemons.ssh_config, '--json') as daemon:
        wait_until(lambda: daemon.out, 'the daemon')
        assert daemons.states() == HOSTS
        reload = unit['Service']['ExecReload'].replace('$MAINPID', str(daemon.pid))
        subprocess.run(reload.split(), check=True)
        wait_until(lambda: b'was read again' in daemon.err, 'that it reads the hosts again')
        daemon.signal(signal.SIGTERM)
        assert daemon.end().status == 0


def test_options_that_exclude_each_other(daemons: Daemons) -> None:
    for words in (['--status', '--stop'], ['--peek'], ['--listen', '::1'], ['--stop', '-b'], ['-t', '70000']):
        assert daemons.dshd(*words, status=2).stderr.startswith('ERROR: ')
