"""`remote_runner batch` on real hosts: commands, hosts, results, tries (AN1 to AN5, AN7)."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.batching import PATIENCE, WAIT, WORK, Batches, batches, frames, marking, numbers, objects, sleepers
from tests.commands import COMMAND, ROOT, Word, alias_of, environment, ssh_config
from tests.days import FreshBed
from tests.testbed import Testbed, TestHost
from tests.testbed.process import wait_until

ALL = '2/h1,2/h2,2/h3'
FRAMED = [sys.executable, str(ROOT / 'tests/clients/framed.py')]


@pytest.fixture
def site(bed: Testbed, tmp_path: Path) -> Iterator[Batches]:
    with batches(bed, tmp_path) as site:
        yield site


def echo(number: int) -> list[str]:
    return [f'echo {n}' for n in range(number)]


def so_many(size: int) -> str:
    """A command that prints so many bytes."""
    return f"head -c {size} /dev/zero | tr '\\0' x"


def frame(index: int, data: bytes) -> bytes:
    return index.to_bytes(4, 'little') + len(data).to_bytes(4, 'little') + data


def received(host: TestHost) -> int:
    """Bytes that have come to a host over its network."""
    lines = host.run(['cat', '/proc/net/dev']).stdout.decode().splitlines()[2:]
    return sum(int(line.split(':')[1].split()[0]) for line in lines if not line.strip().startswith('lo:'))


class TestCommands:
    def test_all_slots_of_all_hosts_work_at_once(self, site: Batches) -> None:
        done = site.together('echo $RR_HOST $RR_SLOT', ALL, 6)
        assert sorted(done.stdout.splitlines()) == [f'h{host} {slot}' for host in (1, 2, 3) for slot in (1, 2)]
        site.leaves_nothing()

    def test_slots_are_cores_unless_said(self, site: Batches) -> None:
        cores = int(site.bed['h1'].run(['nproc']).stdout)
        said = site.together(':', 'h1,3/h2', cores + 3).stderr
        assert f'h1: ready, {cores} slot' in said
        assert 'h2: ready, 3 slots' in said

    def test_lines_that_hold_nothing_do_not_count(self, site: Batches) -> None:
        path = site.file('commands', b'\necho $RR_TASK a\n   \n\t\n\r\necho $RR_TASK b\r\n\n\n  echo $RR_TASK c')
        assert sorted(site.batch(path, 'h1').stdout.splitlines()) == ['0 a', '1 b', '2 c']
        assert site.batch([], 'h1').stdout == ''

    def test_what_a_command_may_hold(self, site: Batches) -> None:
        lines = [b"printf '%s' \"$0 '|{}\"", b"printf '\\377\\000\\n'", b'printf "\xff\xfe"', b'echo ' + b'y' * 200_000]
        done = site.batch(site.file('commands', b'\n'.join(lines)), 'h1', '--format', 'framed', '-k', status=None)
        assert done.status == 0, done.stderr[-2000:]
        frames = [b'\xff\0\n', b'\xff\xfe', b'y' * 200_000 + b'\n']
        assert done.out == frame(0, b"sh '|{}") + b''.join(frame(n, data) for n, data in enumerate(frames, 1))

    def test_streamed_ones_run_while_more_are_written(self, site: Batches) -> None:
        with site.begin_batch('-', 'h1,h2', stdin=subprocess.PIPE) as running:
            assert running.process.stdin is not None
            for number in range(3):
                running.process.stdin.write(b'echo %d\n' % number)
                running.process.stdin.flush()
                wait_until(lambda number=number: b'%d\n' % number in running.out, f'result {number}', PATIENCE)
            running.process.stdin.close()
            done = running.end()
        assert (done.out, done.status) == (b'0\n1\n2\n', 0)
        site.leaves_nothing()

    def test_a_stream_that_goes_on_when_the_batch_is_interrupted(self, site: Batches) -> None:
        """Also where a file that we got open makes Python take itself apart at the end."""
        with site.file('open').open('wb') as file:
            running = site.begin_batch('-', 'h1', stdin=subprocess.PIPE, pass_fds=[file.fileno()])
        with running:
            assert running.process.stdin is not None
            running.process.stdin.write(b'echo 0\n')
            running.process.stdin.flush()
            wait_until(lambda: running.out == b'0\n', 'the first result', PATIENCE)
            running.signal(signal.SIGINT)
            done = running.end(PATIENCE)
        assert done.status == 130, done
        assert done.stderr.splitlines()[-1] == 'ERROR: interrupted'

    def test_no_stream(self, site: Batches) -> None:
        argv = [*COMMAND, *site.arguments_of('-', 'h1', [])]
        words = ['sh', '-c', 'exec "$@" <&-', 'sh', *map(str, argv)]
        done = subprocess.run(words, env=environment(site.home), capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (2, 'ERROR: there is no standard input to read commands from\n')

    def test_a_writer_that_reads_late(self, site: Batches) -> None:
        """All commands first, 5 MB of them, then all results, as much."""
        line = f': {"c" * 10_000}; {so_many(10_000)}\n'.encode()
        with site.begin_batch(
            '-', ALL, '--format', 'framed', stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as running:
            assert running.process.stdin is not None
            running.process.stdin.write(500 * line)
            running.process.stdin.close()
            read = subprocess.run(FRAMED, stdin=running.process.stdout, capture_output=True, text=True, check=True)
            done = running.end(PATIENCE)
        crc = f'{zlib.crc32(b"x" * 10_000):08x}'
        assert sorted(read.stdout.splitlines()) == sorted(f'{index} 10000 {crc}' for index in range(500))
        assert done.status == 0

    def test_a_file_that_is_a_pipe_or_is_not_there(self, site: Batches) -> None:
        os.mkfifo(site.folder / 'pipe')
        with site.begin_batch(site.folder / 'pipe', 'h1') as running:
            (site.folder / 'pipe').write_text('echo from a pipe\n')
            assert running.end().stdout == 'from a pipe\n'
        done = site.batch(site.folder / 'missing', 'h1', status=2)
        assert f'ERROR: the commands {site.folder}/missing cannot be read: No such file' in done.stderr
        assert 'cannot be read: Is a directory' in site.batch(site.folder, 'h1', status=2).stderr
        assert len(site.jobs) == 1

    def test_a_line_that_is_none(self, site: Batches) -> None:
        done = site.batch(site.file('commands', b'echo a\necho \0b\n'), 'h1', status=2)
        assert 'commands, line 2 holds a NUL byte' in done.stderr
        assert 'Traceback' not in done.stderr
        site.leaves_nothing()


class TestDependencies:
    def said(self, site: Batches, command: str, what: str = 'tools') -> str:
        """What is printed on each of two hosts."""
        done = site.together(command, '1/h1,1/h2', 2, site.folder / what, '--format', 'jsonl')
        site.leaves_nothing()
        found = objects(done).values()
        assert {one['host'] for one in found} == {'h1', 'h2'}
        [said] = {one['stdout'] for one in found}
        return str(said)

    def test_a_folder_is_brought_and_kept_up_to_date(self, site: Batches) -> None:
        site.file('tools/a', 'one')
        site.file('tools/deep/b', 'two')
        run = site.file('tools/run', '#!/bin/sh\necho ran\n', 0o755)
        command = 'dependencies/run; cd dependencies; cat a deep/b; echo; echo *'
        assert self.said(site, command) == 'ran\nonetwo\na deep run\n'
        site.file('tools/a', 'ONE')
        site.file('tools/new', '')
        run.write_text('#!/bin/sh\necho again\n')
        assert self.said(site, command) == 'again\nONEtwo\na deep new run\n'
        (site.folder / 'tools/new').unlink()
        (site.folder / 'tools/deep/b').unlink()
        site.file('tools/deep/c', 'three')
        assert self.said(site, command.replace('/b', '/c')) == 'again\nONEthree\na deep run\n'

    def test_a_file(self, site: Batches) -> None:
        site.file('data.csv', 'a,b\n')
        assert self.said(site, 'ls dependencies; cat dependencies/data.csv', 'data.csv') == 'data.csv\na,b\n'

    def test_none_there(self, site: Batches) -> None:
        done = site.batch(echo(2), 'h1', site.folder / 'nowhere', status=None)
        assert done.status in (1, 2)
        assert f'{site.folder}/nowhere' in done.stderr
        assert 'Traceback' not in done.stderr
        assert site.jobs == []

    def test_hosts_that_share_a_file_system(self, fresh_bed: FreshBed, tmp_path: Path) -> None:
        bed = fresh_bed(2)
        (shared := tmp_path / 'shared').mkdir()
        for host in bed.hosts:
            host.share('/root/.cache', shared)
        with batches(bed, tmp_path / 'site') as site:
            site.file('tools/large', os.urandom(20_000_000))
            before = sum(map(received, bed.hosts))
            self.said(site, 'cksum <dependencies/large')
            assert 20_000_000 < sum(map(received, bed.hosts)) - before < 30_000_000, 'it was sent once'
        [copy] = shared.glob('remote_runner/dependencies/*/large')
        assert copy.read_bytes() == (site.folder / 'tools/large').read_bytes()
        assert [path.name for path in copy.parent.iterdir()] == ['large']


class TestHosts:
    def test_a_file_of_them(self, site: Batches) -> None:
        hosts = site.file('hosts', '# all of ours\n\n3/h1\nh2  # as many as it has cores\n')
        cores = int(site.bed['h2'].run(['nproc']).stdout)
        said = site.together('echo $RR_HOST', f'@{hosts}', 4 + cores, '-H', '1/h3')
        assert Counter(said.stdout.split())['h1'] == 3
        assert set(said.stdout.split()) == {'h1', 'h2', 'h3'}

    def test_files_that_name_others(self, site: Batches) -> None:
        hosts = site.file('hosts', '@racks/one\n1/h2\n')
        site.file('racks/one', '@two\n')
        site.file('racks/two', '2/h1\n')
        said = site.together('echo $RR_HOST', str(hosts), 3)
        assert Counter(said.stdout.split()) == {'h1': 2, 'h2': 1}
        site.file('racks/two', '@../hosts\n')
        done = site.batch(['true'], f'@{hosts}', status=2)
        assert f'ERROR: {site.folder}/racks/two, line 1: hosts files go round in a circle' in done.stderr

    def test_this_machine(self, site: Batches) -> None:
        go, mark = site.folder / 'go', site.folder / 'mark'
        lines = [f'touch {mark}$RR_SLOT; while [ ! -e {go} ]; do sleep 0.02; done; pwd'] * 2
        with site.begin_batch(lines, '2/localhost', '--format', 'jsonl') as running:
            wait_until(lambda: len(list(site.folder.glob('mark?'))) == 2, 'two tasks to run', PATIENCE)
            go.touch()
            done = running.end()
        assert {one['host'] for one in done.objects} == {'localhost'}
        assert all(str(site.home) in one['stdout'] for one in done.objects)
        assert list(site.home.glob('.local/state/remote_runner/work/*/*')) == []

    def test_two_names_of_one(self, site: Batches) -> None:
        site.ssh_config = ssh_config(site.folder, site.bed, alias_of(site.bed, 'h1', 'first'))
        with site.begin_batch([marking(WAIT)] * 30, '2/h1,2/first,1/h2', '--no-duplicates') as running:
            wait_until(lambda: b'another name of a host' in running.err, 'the other name', PATIENCE)
            site.go()
            done = running.end(PATIENCE)
        assert set(site.marks()) == {str(n) for n in range(30)}
        assert site.marks().total() == 30
        assert 'another name of a host' in done.stderr

    def test_behind_another(self, site: Batches) -> None:
        site.ssh_config = ssh_config(site.folder, site.bed, 'Host h2\n  ProxyJump h1\nHost h3\n  ProxyJump h2\n')
        done = site.together('echo $RR_HOST; echo $SSH_CONNECTION', '1/h2,1/h3', 2, '--tag')
        assert {line.split('\t')[1] for line in done.stdout.splitlines()} >= {'h2', 'h3'}
        site.leaves_nothing()


class TestResults:
    LINES = ('echo 0', 'sleep 0.3; exit 3', "printf 'a\\nb'", 'echo e >&2; exit 4', 'sleep 0.6; echo 4', 'echo 5')

    def test_text(self, site: Batches) -> None:
        done = site.batch(self.LINES, '2/h1,h2', '--retries', '0', status=1)
        assert sorted(done.out.replace(b'a\nb', b'AB\n').split()) == [b'0', b'4', b'5', b'AB']
        assert 'task 1 failed on' in done.stderr
        assert 'task 3 failed on' in done.stderr
        assert 'ERROR: 2 of 6 tasks failed:' in done.stderr.splitlines()

    def test_in_order_and_with_tags(self, site: Batches) -> None:
        done = site.batch(self.LINES, '3/h1,3/h2', '-k', '--tag', status=1)
        assert done.stdout == '0\t0\n2\ta\n2\tb\n4\t4\n5\t5\n'

    def test_frames_through_a_pipe(self, site: Batches) -> None:
        argv = site.arguments_of(self.LINES, '2/h1,2/h2', ['--format', 'framed', '-k'])
        with site.start(*argv, stdout=subprocess.PIPE) as running:
            read = subprocess.run(FRAMED, stdin=running.process.stdout, capture_output=True, text=True, check=True)
            done = running.end()
        expected = {0: b'0\n', 2: b'a\nb', 4: b'4\n', 5: b'5\n'}
        assert read.stdout.splitlines() == [f'{n} {len(data)} {zlib.crc32(data):08x}' for n, data in expected.items()]
        assert done.status == 1
        assert 'task 3: exit status 4' in done.stderr

    def test_objects(self, site: Batches) -> None:
        found = objects(site.batch(self.LINES, '2/h1', '--format', 'jsonl', '--retries', '1', status=1))
        assert sorted(found) == list(range(6))
        assert {n: (one['cause'], one['status'], one['attempt']) for n, one in found.items()} == {
            0: (None, 0, 1), 1: ('exit', 3, 2), 2: (None, 0, 1), 3: ('exit', 4, 2), 4: (None, 0, 1), 5: (None, 0, 1),
        }  # fmt: skip
        assert (found[2]['stdout'], found[3]['tail'], found[3]['command']) == ('a\nb', 'e\n', self.LINES[3])

    def test_what_they_write_to_stderr(self, site: Batches) -> None:
        """Of those that fail it is told; of others it is kept where that is wanted."""
        lines = ['echo a; echo b >&2', "echo c; printf '\\377' >&2", 'echo d >&2; exit 3']
        site.batch(lines, 'h1', '--retries', '0', status=1)
        assert [row['results'] for row in site.tell('export', 'jsonl').objects] == [
            {'stdout': 'a\n'}, {'stdout': 'c\n'}, {}
        ]  # fmt: skip
        done = site.batch(lines, 'h1', '--retries', '0', '--stderr', '-k', status=1)
        assert done.stdout == 'a\nc\n'
        rows = list(csv.DictReader(io.StringIO(site.tell('export', 'csv').stdout)))
        assert [(row['stdout'], row['stderr']) for row in rows] == [('a\n', 'b\n'), ('c\n', '\\xff'), ('', '')]
        assert '    | d\n' in site.tell('failed').stdout
        site.lines([*lines, 'echo e >&2'])
        again = site.resume(status=1)
        assert 'commands has changed: 1 command is new, 0 are gone' in again.stderr, again
        assert site.tell('export', 'jsonl').objects[3]['results'] == {'stdout': '', 'stderr': 'e\n'}

    def test_a_reader_that_has_enough(self, site: Batches) -> None:
        lines = ['echo x', *[marking('sleep 0.1; echo y')] * 3000]
        with site.begin_batch(lines, ALL, stdout=subprocess.PIPE) as running:
            assert running.process.stdout is not None
            assert running.process.stdout.readline() in (b'x\n', b'y\n')
            running.process.stdout.close()
            done = running.end(PATIENCE)
        assert done.status == 141
        assert 'Traceback' not in done.stderr
        assert site.marks().total() < 3000
        site.leaves_nothing()

    def test_on_a_full_disk(self, site: Batches) -> None:
        with open('/dev/full', 'wb') as full:
            done = site.batch(echo(100), 'h1', stdout=full, status=1)
        assert 'ERROR: the results cannot be written: No space left on device' in done.stderr
        assert 'jobs resume' in done.stderr
        site.leaves_nothing()
        done = site.resume()
        assert sorted(done.stdout.split(), key=int) == [str(n) for n in range(100)]

    def test_on_a_closed_stdout(self, site: Batches) -> None:
        """Nothing is run of which nobody could be told, and nothing that waits in a journal is taken for delivered."""

        def closed(*arguments: Word) -> str:
            words = ['sh', '-c', 'exec "$@" >&-', 'sh', *COMMAND, *map(str, arguments)]
            done = subprocess.run(words, cwd=site.home, env=environment(site.home), capture_output=True, text=True)
            assert done.returncode == 1, done
            return done.stderr

        said = 'ERROR: the results cannot be written: stdout is closed'
        assert said in closed(*site.arguments_of(['echo 0'], 'h1', []))
        assert site.jobs == []
        with open('/dev/full', 'wb') as full:
            site.batch([marking('echo 0')], 'h1', stdout=full, status=1)
        for more in (['resume', '-F', site.ssh_config], ['attach', '--format', 'text']):
            assert said in closed('jobs', *more)
        assert 'ERROR: what is exported cannot be written: stdout is closed' in closed('jobs', 'export', 'csv')
        assert site.resume().stdout == '0\n'
        assert site.marks() == Counter({'0': 1})


class TestTries:
    def count(self, site: Batches, command: str, *options: str, status: int = 1) -> int:
        """How often a command is run that fails."""
        site.batch([marking(command)], 'h1,h2', '--no-duplicates', *options, status=status)
        site.is_clean()
        return site.marks().total()

    @pytest.mark.parametrize(
        ('command', 'options', 'expected'),
        [
            ('exit 1', (), 3),
            ('exit 1', ('--retries', '0'), 1),
            ('exit 1', ('--retries', '4'), 5),
            ('exit 1', ('--retry-on', 'exit:75,timeout'), 1),
            ('exit 75', ('--retry-on', 'exit:75,timeout'), 3),
            ('kill -SEGV $$', ('--retry-on', 'exit'), 3),
            ('sleep 600', ('--retry-on', 'exit', '--timeout', '0.3'), 1),
            ('sleep 600', ('--retries', '1', '--timeout', '0.3'), 2),
        ],
    )
    def test_how_often(self, site: Batches, command: str, options: tuple[str, ...], expected: int) -> None:
        assert self.count(site, command, *options) == expected

    def test_until_it_succeeds(self, site: Batches) -> None:
        done = site.batch(['[ $RR_ATTEMPT = 3 ] && echo $RR_ATTEMPT'], 'h1,h2', '--format', 'jsonl')
        assert (objects(done)[0]['stdout'], objects(done)[0]['attempt']) == ('3\n', 3)
        assert [each.outcome and each.outcome.cause is None for each in site.attempts()] == [False, False, True]
        site.is_accounted_for(done=1)

    def test_a_time_limit_ends_all_of_it(self, site: Batches) -> None:
        done = site.batch(['sleep 600 & sleep 601', 'echo 1'], 'h1', '--timeout', '0.5', '--retries', '0', status=1)
        assert done.stdout == '1\n'
        assert 'task 0 failed on h1: it took more than 0.5 s' in done.stderr or 'timeout' in done.stderr
        assert not sleepers(site.bed['h1'])

    def test_halt_soon_lets_what_runs_end(self, site: Batches) -> None:
        lines = [marking('exit 1'), marking(f'{WAIT}; echo late'), *[marking('sleep 0.2')] * 200]
        with site.begin_batch(lines, '2/h1', '--halt', 'soon,fail=1', '--retries', '0') as running:
            wait_until(lambda: b'task 0 failed' in running.err, 'the failure', PATIENCE)
            site.go()
            done = running.end()
        assert done.status == 1
        assert done.stdout == 'late\n'
        assert site.marks().total() < 100
        site.is_clean()

    def test_halt_now_ends_it(self, site: Batches) -> None:
        lines = [*[f'{WAIT}; exit 1'] * 2, 'sleep 600', 'sleep 601', *['sleep 0.5'] * 200]
        site.go()
        done = site.batch(lines, '4/h1,1/h2', '--halt', 'now,fail=2', '--retries', '0', '--json', status=1)
        assert numbers(done)['cancelled'] > 100
        assert numbers(done)['failed'] == {'exit': 2}
        site.is_clean()
        assert not sleepers(site.bed['h1'])

    def test_halt_at_a_share(self, site: Batches) -> None:
        lines = ['true'] * 20 + ['false'] * 300
        done = site.batch(lines, '1/h1', '--halt', 'now,fail=50%', '--retries', '0', '--json', status=1)
        said = numbers(done)
        assert 20 <= said['failed']['exit'] < 100
        assert said['cancelled'] + said['failed']['exit'] + said['done'] == 320

    def test_delay(self, site: Batches) -> None:
        site.batch(['date +%s.%N >>/tmp/times'] * 5, '4/h1', '--delay', '0.3')
        times = sorted(map(float, site.bed['h1'].path('/tmp/times').read_text().split()))
        assert times[-1] - times[0] > 4 * 0.3 - 0.25

    def test_a_command_that_runs_into_its_own_limit_of_memory(self, site: Batches) -> None:
        """That is its own fault, whatever the host has: it ends as it likes, and what it said is told."""
        python = 'python3 -c "x = bytearray(10**9); print(len(x))"'
        lines = [f'ulimit -v 300000; {python}', python, 'echo beside it']
        done = site.batch(lines, '1/h1', '--retries', '1', '-k', status=1)
        assert done.stdout == '1000000000\nbeside it\n'
        assert 'task 0 failed on h1, attempt 2: exit status 1: MemoryError' in done.stderr
        assert 'set aside' not in done.stderr
        [failed] = site.tell('failed', '--json').objects
        assert (failed['cause'], failed['status'], failed['why']) == ('exit', 1, '')
        assert failed['attempts'][-1]['tail'].endswith('MemoryError\n')
        site.is_accounted_for(done=2, failed=1)

    def test_joblog(self, site: Batches) -> None:
        site.batch(['echo ab', 'exit 3'], 'h1', '--joblog', 'log.tsv', '--retries', '0', status=1)
        head, *rows = [line.split('\t') for line in (site.home / 'log.tsv').read_text().splitlines()]
        assert head == ['Seq', 'Host', 'Starttime', 'JobRuntime', 'Send', 'Receive', 'Exitval', 'Signal', 'Command']
        assert [(r[0], r[1], *r[4:]) for r in sorted(rows)] == [
            ('1', 'h1', '0', '3', '0', '0', 'echo ab'),
            ('2', 'h1', '0', '0', '3', '0', 'exit 3'),
        ]

    def test_dry_run(self, site: Batches) -> None:
        done = site.batch(['echo a', '', 'b | c'], 'nowhere', '--dry-run')
        assert done.stdout == '0\techo a\n1\tb | c\n'
        assert done.stderr == 'INFO: 2 commands on 1 host: nowhere (a slot a core)\n'
        done = site.batch(['true'], 'n[1-3],4/gate,1/joe@n5,4/n7', '--dry-run')
        assert done.stderr == (
            'INFO: 1 command on 6 hosts: n[1-3] (a slot a core), gate,n7 (4 slots), joe@n5 (1 slot)\n'
        )
        with site.begin_batch('-', 'h1', '--dry-run', stdin=subprocess.PIPE) as running:
            assert running.process.stdin is not None
            running.process.stdin.write(b'echo 1\n')
            running.process.stdin.close()
            assert running.end().stdout == '0\techo 1\n'
        assert site.jobs == []

    def test_names(self, site: Batches) -> None:
        site.batch(['echo a'], 'h1', '--name', 'first')
        site.batch(['echo b'], 'h1')
        [shown] = site.tell('show', 'first', '--json').objects
        assert (shown['name'], shown['done'], shown['state']) == ('first', 1, 'done')

    @pytest.mark.parametrize(
        ('keep', 'expected'), [('none', set()), ('failed', {'1.1', '1.2'}), ('all', {'0.1', '1.1', '1.2'})]
    )
    def test_folders_that_stay(self, site: Batches, keep: str, expected: set[str]) -> None:
        site.batch(['echo a >file', 'echo b >file; exit 1'], '1/h1', '--keep', keep, '--retries', '1', status=1)
        site.is_clean()
        left = site.folders().get('h1', [])
        assert {name for name in left if name.count('.') == 1} == expected
        folder = site.bed['h1'].path(f'{WORK}/h1/{site.job.name}')
        assert all((folder / name / 'file').read_text() in ('a\n', 'b\n') for name in expected)
        assert {'lock', 'log'} & set(left) == set()


class TestBadHosts:
    """A good host beside bad ones: all succeed, without any option."""

    def test_refused_silent_and_dying(self, fresh_bed: FreshBed, tmp_path: Path) -> None:
        bed = fresh_bed(4)
        with batches(bed, tmp_path) as site:
            bed['h2'].stop_sshd()
            bed['h3'].kill()
            # Those on h1 wait until there are some on h4, however late that comes.
            wait = 'while [ $RR_HOST = h1 ] && [ ! -e /tmp/begin ]; do sleep 0.05; done'
            lines = [marking(f'{wait}; [ $RR_HOST = h1 ] || {WAIT}; echo $RR_TASK')] * 40
            with site.begin_batch(lines, 'h1,h2,h3,h4', '--lease', '5', '--no-duplicates', '--json') as running:
                wait_until(lambda: bed['h4'].path('/tmp/mark').exists(), 'tasks on h4', PATIENCE)
                bed['h1'].path('/tmp/begin').touch()
                bed['h4'].kill()
                done = running.end(PATIENCE)
            assert done.status == 0, done
            assert sorted(map(int, done.stdout.split())) == list(range(40))
            site.is_accounted_for(done=40)
            site.leaves_nothing()
        hosts = {one['name']: one for one in numbers(done)['hosts']}
        assert hosts['h1']['done'] == 40
        assert hosts['h4']['lost'] > 0

    def test_one_where_everything_fails_at_once(self, site: Batches) -> None:
        """It is set aside."""
        lines = [marking('[ $RR_HOST != h2 ] || exit 127; sleep 0.1; echo $RR_TASK')] * 80
        done = site.batch(lines, '2/h1,2/h2,2/h3', '--json')
        assert sorted(map(int, done.stdout.split())) == list(range(80))
        assert {one['name']: one['done'] for one in numbers(done)['hosts']}['h2'] == 0
        assert 'h2: set aside, and tried again in 10 s: everything fails there at once' in done.stderr
        assert site.bed['h2'].path('/tmp/mark').read_text().count('\n') < 80

    def test_one_where_everything_fails_for_a_while(self, site: Batches) -> None:
        """It is set aside, and tried again later."""
        broken = '[ $RR_HOST != h2 ] || [ -e /tmp/go ] || exit 127'
        lines = [marking(f'{broken}; echo $RR_TASK'), *[marking(f'{broken}; sleep 0.2; echo $RR_TASK')] * 160]
        with site.begin_batch(lines, '2/h1,2/h2', '--no-duplicates', '--json') as running:
            wait_until(lambda: b'h2: set aside' in running.err, 'h2 to be set aside', PATIENCE)
            site.bed['h2'].path('/tmp/go').touch()
            done = running.end(PATIENCE)
        assert sorted(map(int, done.stdout.split())) == list(range(161))
        assert {one['name']: one['done'] for one in numbers(done)['hosts']}['h2'] > 0
        site.is_accounted_for(done=161)

    def test_one_with_a_full_disk(self, fresh_bed: FreshBed, tmp_path: Path) -> None:
        bed = fresh_bed(2)
        bed['h2'].tmpfs('/root/.local/state', '1M')
        bed['h2'].run(['sh', '-c', 'head -c 900000 /dev/zero >/root/.local/state/filler'])
        with batches(bed, tmp_path) as site:
            done = site.batch([f'sleep 0.1; {so_many(60_000)}'] * 30, '2/h1,4/h2', '--format', 'framed')
            assert sorted(frames(done.out)) == [(n, b'x' * 60_000) for n in range(30)]

    def test_the_only_one_has_a_full_disk_for_a_while(self, fresh_bed: FreshBed, tmp_path: Path) -> None:
        """It is waited for, and no task loses a try."""
        bed = fresh_bed(1)
        bed['h1'].tmpfs('/root/.local/state', '1M')
        filler = bed['h1'].path('/root/.local/state/filler')
        with batches(bed, tmp_path) as site:
            lines = [so_many(60_000)] * 6
            options = ['--format', 'framed', '--retries', '1', '--keep', 'none', '--no-duplicates']
            bed['h1'].run(['sh', '-c', 'head -c 2000000 /dev/zero >/root/.local/state/filler'], check=False)
            with site.begin_batch(lines, '2/h1', *options) as running:
                said = b'WARNING: h1: set aside, and tried again in 10 s: '
                wait_until(lambda: said in running.err, 'h1 to be set aside', PATIENCE)
                why = site.tell('explain', '5').stdout
                filler.unlink()
                done = running.end(PATIENCE)
        assert 'all hosts are set aside, h1 for ' in why
        assert sorted(frames(done.out)) == [(n, b'x' * 60_000) for n in range(6)]
        assert done.status == 0

    def test_what_ends_its_hosts_is_given_up(self, site: Batches) -> None:
        """It kills all of ours on its host, each time."""
        poison = 'kill -9 $(pgrep -f agent/dispatcher.py)'
        lines = ['echo 0', poison, *['sleep 0.2; echo $RR_TASK'] * 20]
        done = site.batch(lines, '2/h1,2/h2,2/h3', '--json', '--no-duplicates', status=1)
        assert numbers(done)['failed'] == {'poison': 1}
        assert len(done.stdout.split()) == 21
        assert 'poison' in done.stderr
        tried = [each for each in site.attempts() if each.number == 1]
        assert {each.host for each in tried} == {'h1', 'h2', 'h3'}
        site.is_accounted_for(done=21, failed=1)
        site.is_clean()

    def test_none(self, fresh_bed: FreshBed, tmp_path: Path) -> None:
        bed = fresh_bed(2)
        bed['h1'].stop_sshd()
        bed['h2'].stop_sshd()
        with batches(bed, tmp_path) as site:
            done = site.batch(echo(3), 'h1,h2,no-such-host', status=3)
            for host in ('h1', 'h2', 'no-such-host'):
                assert any(line.startswith(f'ERROR: {host}: ') for line in done.stderr.splitlines()), done
            assert done.stderr.splitlines()[-1] == 'ERROR: no host could be had'
            assert f'`remote_runner jobs resume {site.job.name}` goes on' in done.stderr
            bed['h2'].start_sshd()
            assert sorted(site.resume().stdout.split()) == ['0', '1', '2']


class TestStragglers:
    def test_the_slow_one_is_overtaken_and_ended(self, site: Batches) -> None:
        """The last task is slow where it runs first, whichever host that is."""
        lines = ['sleep 0.05'] * 20 + [marking('[ $RR_ATTEMPT = 2 ] || sleep 600; echo $RR_ATTEMPT')]
        done = site.batch(lines, '1/h1,1/h2', '--json')
        assert done.stdout == '2\n'
        said = numbers(done)
        assert (said['copies']['begun'], said['copies']['won'], said['superseded']) == (1, 1, 1)
        assert said['copies']['saved'] > 0
        for host in ('h1', 'h2'):
            assert not sleepers(site.bed[host])
        assert [each.state for each in site.attempts() if each.number == 20] == ['superseded', 'counts']
        site.is_accounted_for(done=21)
        site.leaves_nothing()

    def test_not_where_that_is_unwanted(self, site: Batches) -> None:
        lines = ['sleep 0.05'] * 20 + [marking(f'{WAIT}; echo $RR_ATTEMPT')]
        with site.begin_batch(lines, '1/h1,1/h2', '--json', '--no-duplicates') as running:
            site.wait_for_ends(20)
            site.go()
            done = running.end()
        assert done.stdout == '1\n'
        assert numbers(done)['copies']['begun'] == 0
        assert site.marks().total() == 1


class TestMany:
    def test_two_thousand(self, site: Batches) -> None:
        done = site.batch([marking('echo $RR_TASK')] * 2000, ALL, '--no-duplicates', '--json')
        assert Counter(done.stdout.split()) == Counter(map(str, range(2000)))
        assert site.marks() == Counter(map(str, range(2000)))
        assert numbers(done)['done'] == 2000
        site.is_accounted_for(done=2000)
        site.leaves_nothing()

    def test_memory_stays_small_whatever_waits_for_a_reader(self, site: Batches) -> None:
        """300 MB, of which nothing is read until all tasks have ended."""
        with site.begin_batch([so_many(1_000_000)] * 300, ALL, stdout=subprocess.PIPE) as running:
            site.wait_for_ends(300)
            stdout = running.process.stdout
            assert stdout is not None
            size = sum(len(data) for data in iter(lambda: stdout.read(1 << 20), b''))
            done = running.end()
        assert size == 300_000_000
        assert done.peak < 200
        site.leaves_nothing()

