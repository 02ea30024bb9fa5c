"""Batches that are interrupted, killed, cut off from their hosts, and gone on with: `jobs resume` (AN4, AN8)."""

from __future__ import annotations

import random
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from remote_runner.errors import ControlFailed
from remote_runner.jobs.control import ask
from remote_runner.jobs.journal import Journal
from remote_runner.jobs.policy import Cause
from tests.batching import PATIENCE, WAIT, Batches, batches, dispatchers, frames, marking, numbers, sleepers
from tests.commands import LONG, Done, Running, environment
from tests.days import FreshBed
from tests.deploying import agents, kill
from tests.testbed import HostProcess, Testbed, TestHost
from tests.testbed.process import wait_until

#: How often a master is killed at a moment that nobody chose.
KILLS = 200 if LONG else 20


@pytest.fixture
def site(bed: Testbed, tmp_path: Path) -> Iterator[Batches]:
    with batches(bed, tmp_path) as site:
        yield site


def once(number: int) -> Counter[str]:
    """Each of so many tasks was begun once."""
    return Counter(map(str, range(number)))


def settled(site: Batches) -> set[int]:
    """The tasks of the newest job of which the journal says what became of them."""
    with Journal.look(site.jobs[-1]) as reader:
        return {row.number for row in reader.tasks() if row.outcome is not None}


class TestInterrupted:
    @pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_nothing_is_left_and_the_rest_is_run_later(self, site: Batches, number: signal.Signals) -> None:
        lines = [marking('echo $RR_TASK')] * 4 + [marking(f'{WAIT}; echo $RR_TASK')] * 8
        with site.begin_batch(lines, '2/h1,2/h2', '--no-duplicates') as running:
            site.wait_for_marks(8, running)
            site.wait_for_ends(4)
            running.signal(number)
            done = running.end(PATIENCE)
        assert done.status == 130
        assert f'`remote_runner jobs resume {site.job.name}` goes on' in done.stderr
        assert 'Traceback' not in done.stderr
        site.leaves_nothing()
        for host in site.up:
            assert not sleepers(host)
        [listed] = site.tell('list', '--json').objects
        assert (listed['state'], listed['done'], listed['left']) == ('interrupted', 4, 8)
        site.go()
        again = site.resume()
        assert sorted((done.out + again.out).split(), key=int) == [b'%d' % n for n in range(12)]
        assert all(site.marks()[str(n)] == 1 for n in range(4))
        assert all(site.marks()[str(n)] <= 2 for n in range(4, 12))
        site.is_accounted_for(done=12)
        site.leaves_nothing()

    def test_twice_in_a_row(self, site: Batches) -> None:
        """Impatient, while the first is being obeyed."""
        with site.begin_batch(['trap "" TERM; while :; do sleep 1; done'] * 2, '1/h1,1/h2') as running:
            wait_until(lambda: b'h2: ready' in running.err and b'h1: ready' in running.err, 'both', PATIENCE)
            running.signal(signal.SIGINT)
            running.signal(signal.SIGINT)
            done = running.end(PATIENCE)
        assert done.status == 130
        assert 'Traceback' not in done.stderr

    @pytest.mark.parametrize('on_lost', ['kill', 'finish'])
    def test_who_does_not_wait_for_the_end_is_told_what_becomes_of_it(self, site: Batches, on_lost: str) -> None:
        """The host does not answer; the second Ctrl-C leaves it to its lease."""
        lines = [marking(f'{WAIT}; echo $RR_TASK')] * 2
        options = ['--no-duplicates', '--lease', '3', '--on-lost', on_lost]
        alone = {
            'kill': 'they end it when they have not heard of us for 3 s',
            'finish': 'they let it end, and keep what it brings for `jobs resume`',
        }[on_lost]
        with site.begin_batch(lines, '2/h1', *options) as running:
            site.wait_for_marks(2, running)
            pids = [each.pid for each in dispatchers(site.bed['h1'])]
            kill(site.bed['h1'], signal.SIGSTOP, *pids)
            running.signal(signal.SIGINT)
            said = f'INFO: ending what runs on the hosts; a second Ctrl-C leaves that to them: {alone}'
            wait_until(lambda: said.encode() in running.err, 'what a second one would do', PATIENCE)
            running.signal(signal.SIGINT)
            done = running.end(PATIENCE)
        kill(site.bed['h1'], signal.SIGCONT, *pids)
        assert done.status == 130
        assert f'WARNING: what still runs on the hosts was left to them: {alone}' in done.stderr
        assert 'Traceback' not in done.stderr
        if on_lost == 'kill':
            site.is_clean()
        site.go()
        assert sorted(site.resume().stdout.split()) == ['0', '1']
        site.is_accounted_for(done=2)
        site.leaves_nothing()

    @pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
    def test_again_and_again(self, site: Batches, number: signal.Signals) -> None:
        """It is no fault of a task, nor of a host, that nobody was there: on no matter how many hosts."""
        arguments = site.arguments_of([marking(f'{WAIT}; echo done')], '1/h1,1/h2,1/h3', ['--lease', '2'])
        for times in range(1, 5):
            with site.start(*arguments) as running:
                site.wait_for_marks(times, running)
                running.signal(number)
                running.end(PATIENCE)
            site.is_clean()
            arguments = ['jobs', 'resume', '-F', site.ssh_config]
        site.go()
        assert site.resume().stdout == 'done\n'
        assert [each.outcome and each.outcome.cause for each in site.attempts() if each.state == 'counts'] == [None]
        site.is_accounted_for(done=1)
        site.leaves_nothing()

    def test_with_a_host_that_is_cut_off(self, fresh_bed: FreshBed, tmp_path: Path) -> None:
        """It ends what it runs when its lease is over."""
        bed = fresh_bed(2)
        with batches(bed, tmp_path) as site:
            with site.begin_batch([marking('exec sleep 600')] * 4, '2/h1,2/h2', '--lease', '4') as running:
                site.wait_for_marks(4, running)
                bed['h2'].cut()
                running.signal(signal.SIGINT)
                assert running.end(PATIENCE).status == 130
            site.is_clean()
            bed['h2'].heal()
            for host in bed.hosts:
                assert not sleepers(host)


class TestKilled:
    """The master, by SIGKILL."""

    LINES = (*[marking('echo $RR_TASK')] * 3, marking('exit 3'))
    OPTIONS = ('--format', 'framed', '--no-duplicates', '--retries', '0', '--keep', 'none')

    def killed_at(self, site: Batches, turn: int, when: str) -> Running:
        argv = site.arguments_of(self.LINES, '1/h1,1/h2', self.OPTIONS)
        words = [sys.executable, '-m', 'tests.batch_driver', str(turn), when, *argv]
        return Running(words, cwd=site.home, env=environment(site.home))

    @pytest.mark.timeout(600)
    @pytest.mark.parametrize('when', ['before', 'after'])
    def test_around_every_commit(self, site: Batches, when: str) -> None:
        for turn in range(1, 1000):
            site.forget()
            with self.killed_at(site, turn, when) as running:
                first = running.end(PATIENCE)
            if first.status != -signal.SIGKILL:
                assert first.status == 1, first
                break
            again = site.resume(status=1)
            assert site.marks() == once(4), again
            assert dict(frames(first.out)) | dict(frames(again.out)) == {n: b'%d\n' % n for n in range(3)}
            site.is_accounted_for(done=3, failed=1)
            site.leaves_nothing()
        assert turn > 8, 'tasks are added, and each turn is one'
        assert len(site.jobs) == turn

    @pytest.mark.timeout(600 * KILLS // 20)
    def test_at_random_moments(self, site: Batches) -> None:
        chance = random.Random(5)
        lines = [marking('sleep 0.0$(($RR_TASK % 7)); echo $RR_TASK')] * 40
        for _ in range(KILLS):
            site.forget()
            number = len(site.jobs)
            with site.begin_batch(lines, '2/h1,2/h2', *self.OPTIONS) as running:
                if chance.random() < 0.9:  # else it may be too early for a journal
                    wait_until(lambda number=number: len(site.jobs) > number, 'a journal')  # type: ignore[misc]
                with suppress(subprocess.TimeoutExpired):
                    running.process.wait(chance.uniform(0.0, 1.2))
                running.process.kill()
                running.process.wait()
                first = running.out
            if len(site.jobs) == number:
                assert site.marks() == Counter(), 'no journal, and yet something runs'
                continue
            before = settled(site)
            again = site.resume()
            marks = site.marks()
            assert marks.keys() == once(40).keys(), (before, again)
            for task in (int(task) for task, times in marks.items() if times > 1):
                # It waited at a host, which began it in the moment in which it was given to an idle one.
                assert task not in before, again
                ends = Counter((each.state, each.outcome and each.outcome.cause) for each in site.attempts(task))
                withdrawn = ends.pop(('superseded', Cause.CANCELLED))
                assert ends == Counter([('counts', None)]), (task, again)
                assert marks[str(task)] <= withdrawn + 1, (task, again)
            assert dict(frames(first)) | dict(frames(again.out)) == {n: b'%d\n' % n for n in range(40)}
            site.is_accounted_for(done=40)
            site.leaves_nothing()
        assert len(site.jobs) > KILLS // 3

    def test_what_runs_is_adopted(self, site: Batches) -> None:
        with site.begin_batch([marking(f'{WAIT}; echo $RR_TASK')] * 4, '2/h1,2/h2', '--no-duplicates') as running:
            site.wait_for_marks(4, running)
            running.process.kill()
        site.go()
        assert sorted(site.resume().stdout.split()) == ['0', '1', '2', '3']
        assert site.marks() == once(4)
        assert [each.attempt for each in site.attempts()] == [1] * 4
        site.leaves_nothing()

    def test_what_came_of_it_waits_for_the_next_master(self, site: Batches) -> None:
        """It ends while there is none, and long after the lease, as it is told to."""
        lines = [marking(f'{WAIT}; echo $RR_TASK')] * 4
        options = ['--no-duplicates', '--lease', '2', '--on-lost', 'finish']
        with site.begin_batch(lines, '2/h1,2/h2', *options) as running:
            site.wait_for_marks(4, running)
            running.process.kill()
        site.go()
        site.is_clean()
        assert sorted(site.resume().stdout.split()) == ['0', '1', '2', '3']
        assert site.marks() == once(4)
        site.leaves_nothing()

    def test_after_the_lease_nothing_runs(self, site: Batches) -> None:
        with site.begin_batch([marking('exec sleep 600')] * 4, '2/h1,2/h2', '--lease', '2') as running:
            site.wait_for_marks(4, running)
            running.process.kill()
        site.is_clean()
        assert not any(sleepers(host) for host in site.up)

    @pytest.mark.parametrize('on_lost', ['kill', 'finish'])
    def test_a_master_that_sleeps_beyond_the_lease(self, site: Batches, on_lost: str) -> None:
        """As on a laptop that is closed: its hosts do without it meanwhile, and then it goes on."""
        lines = [marking(f'{WAIT}; echo $RR_TASK')] * 8
        options = ['--no-duplicates', '--lease', '2', '--on-lost', on_lost]
        with site.begin_batch(lines, '2/h1,2/h2', *options) as running:
            site.wait_for_marks(4, running)
            running.signal(signal.SIGSTOP)
            if on_lost == 'kill':
                site.is_clean()
            site.go()
            site.is_clean()
            running.signal(signal.SIGCONT)
            done = running.end(PATIENCE)
        assert done.status == 0, done
        assert sorted(map(int, done.stdout.split())) == list(range(8))
        assert sorted(site.marks().values()) == ([1, 1, 1, 1, 2, 2, 2, 2] if on_lost == 'kill' else [1] * 8)
        site.is_accounted_for(done=8)
        site.leaves_nothing()

    def test_commands_that_were_edited_since(self, site: Batches) -> None:
        """Exactly what changed is run, whatever its place."""
        old = [marking(f'echo {name}') for name in ('a', 'b', 'b', 'c')] + [marking(f'{WAIT}; echo d')]
        with site.begin_batch(old, '1/h1,1/h2', '--format', 'jsonl', '--no-duplicates') as running:
            site.wait_for_ends(4)
            site.wait_for_marks(5, running)
            running.process.kill()
        site.forget()
        site.lines([marking(f'echo {name}') for name in ('new', 'b', 'c', 'b', 'b', 'other')])
        again = site.resume()
        assert {one['stdout'].strip() for one in again.objects} - {'a', 'b', 'c'} == {'new', 'other'}
        assert site.marks() == Counter({'0': 1, '4': 1, '5': 1}), again
        site.is_accounted_for(done=6)
        site.leaves_nothing()

    def test_a_stream_cannot_be_read_again(self, site: Batches) -> None:
        """What was read of it is run."""
        lines = ['echo a', marking(f'{WAIT}; echo b'), marking('echo c')]
        with site.begin_batch('-', '1/h1', '--no-duplicates', stdin=subprocess.PIPE) as running:
            assert running.process.stdin is not None
            running.process.stdin.write(''.join(f'{line}\n' for line in lines).encode())
            running.process.stdin.flush()
            site.wait_for_marks(1, running)
            wait_until(lambda: running.out == b'a\n', 'the first result', PATIENCE)
            running.process.kill()
        site.go()
        again = site.resume()
        assert 'the job was ended before all its commands were read' in again.stderr
        told = again.stdout.split()  # what was written at the last moment may come again
        assert sorted(told) in (['b', 'c'], ['a', 'b', 'c'])
        assert site.marks() == Counter('12')
        site.is_accounted_for(done=3)

    def test_other_hosts_said_in_files_of_another_folder(self, site: Batches) -> None:
        with site.begin_batch([marking(f'{WAIT}; echo $RR_TASK')] * 4, '2/h1', '--no-duplicates') as running:
            site.wait_for_marks(2, running)
            running.process.kill()
        site.go()
        site.file('else/where', site.ssh_config.read_text())
        site.file('else/hosts', '2/h2\n')
        again = site.tell('resume', '-F', 'where', '-H', '@hosts', cwd=site.folder / 'else')
        assert sorted(again.stdout.split()) == ['0', '1', '2', '3']
        counting = [each for each in site.attempts() if each.state == 'counts' and each.outcome]
        assert {each.host for each in counting if each.outcome and each.outcome.cause is None} == {'h2'}

    def test_once_more_what_failed(self, site: Batches) -> None:
        lines = [marking('echo a'), marking('[ -e /tmp/go ] && echo b')]
        site.batch(lines, 'h1', '--retries', '0', status=1)
        assert site.resume(status=1).stdout == ''
        site.go()
        assert site.resume('--retry-failed').stdout == 'b\n'
        assert site.marks() == Counter({'0': 1, '1': 2})


class TestAnotherPolicy:
    """What `jobs resume` is told of retries and the like, in the place of what the batch was told."""

    def test_more_retries_go_on_from_those_that_were_had(self, site: Batches) -> None:
        """Two of three tasks had failed for good; what failed before counts, and more retries are remembered."""
        lines = [marking('[ $RR_ATTEMPT = 4 ] && echo late'), marking('exit 75'), marking('echo ok')]
        done = site.batch(lines, 'h1', '--retries', '1', '--json', status=1)
        assert numbers(done)['failed'] == {'exit': 2}
        assert site.marks() == Counter({'0': 2, '1': 2, '2': 1})
        again = site.resume('--retries', '2', status=1)
        assert 'trying 2 tasks again that had failed: there are more retries now' in again.stderr
        assert site.marks() == Counter({'0': 3, '1': 3, '2': 1})
        assert 'again' not in site.resume(status=1).stderr
        assert site.resume('--retries', '3', status=1).stdout == 'late\n'
        assert site.marks() == Counter({'0': 4, '1': 4, '2': 1})
        site.is_accounted_for(done=2, failed=1)
        assert site.resume('--retry-failed', status=1).stdout == ''
        assert site.marks() == Counter({'0': 4, '1': 8, '2': 1}), 'with the three retries said last'
        site.is_clean()

    def test_other_causes_and_a_longer_time(self, site: Batches) -> None:
        lines = [marking(f'{WAIT}; echo slow'), marking('exit 75'), marking('exit 76')]
        site.batch(lines, '3/h1', '--retries', '1', '--retry-on', 'exit:1', '--timeout', '0.5', status=1)
        assert site.marks() == Counter('012')
        assert 'trying 1 task again' in site.resume('--retry-on', 'exit:75', status=1).stderr
        assert site.marks() == Counter({'0': 1, '1': 2, '2': 1})
        site.go()
        again = site.resume('--retry-on', 'timeout,exit:75', '--timeout', '1h', status=1)
        assert again.stdout == 'slow\n'
        assert site.marks() == Counter({'0': 2, '1': 2, '2': 1})

    def test_the_rest_of_it(self, site: Batches) -> None:
        """Of a job that was ended: when to give up, what stays on hosts, second copies."""
        lines = [marking(f'{WAIT}; exit 1')] * 6
        with site.begin_batch(lines, '2/h1', '--duplicates', '--retries', '0') as running:
            site.wait_for_marks(2, running)
            running.signal(signal.SIGINT)
            assert running.end(PATIENCE).status == 130
        site.forget()
        site.go()
        options = ['--halt', 'now,fail=1', '--keep', 'none', '--no-duplicates', '--lease', '7', '--on-lost', 'finish']
        done = site.resume(*options, '--delay', '0.2', status=1)
        assert 'so many have failed that it was given up (halt)' in done.stderr
        assert site.marks().total() <= 2
        site.leaves_nothing()
        with Journal.look(site.job) as reader:
            said = {'delay', 'duplicates', 'halt', 'keep', 'lease', 'on_lost'}
            assert set(reader.meta['resumed_with']) == said

    def test_not_of_one_that_runs(self, site: Batches) -> None:
        with site.begin_batch([marking(f'{WAIT}; echo done')], 'h1') as running:
            site.wait_for_marks(1, running)
            assert 'as it was begun' in site.resume('--retries', '5', status=1).stderr
            site.go()
            assert running.end(PATIENCE).stdout == 'done\n'
        assert "'many' is not a whole number" in site.resume('--retries', 'many', status=2).stderr


class TestSeveralAtOnce:
    """Masters of one job."""

    def test_who_comes_second_reads_who_was_first(self, site: Batches) -> None:
        lines = [marking(f'{WAIT}; echo $RR_TASK')] * 2
        with site.begin_batch(lines, '2/h1', '--no-duplicates') as running:
            site.wait_for_marks(2, running)
            running.process.kill()
        with ExitStack() as stack:
            arguments = ['jobs', 'resume', '-F', site.ssh_config]
            masters = [stack.enter_context(site.start(*arguments)) for _ in range(4)]
            ended = [each.process.poll for each in masters]
            wait_until(lambda: sum(poll() is not None for poll in ended) == 3, 'three to give up', PATIENCE)
            [first] = [each for each in masters if each.process.returncode is None]
            who = rf'pid {first.pid} on {re.escape(socket.gethostname())} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d'
            held = rf'ERROR: job {site.job.name} is being worked on by {who}'
            wait_until(lambda: b'ready' in first.err, 'the first one to be at work', PATIENCE)
            for words in (['resume'], ['resume', '-F', site.ssh_config]):
                assert re.match(held, site.tell(*words, status=1).stderr)
            site.go()
            assert sorted(first.end(PATIENCE).stdout.split()) == ['0', '1']
            for each in masters:
                if each is not first:
                    assert each.process.returncode == 1
                    assert 'is being worked on by pid ' in each.err.decode()
        assert site.marks() == once(2)
        site.leaves_nothing()


class TestHostsThatGo:
    """While the batch runs."""

    LINES = (marking('sleep 0.3; echo $RR_TASK'),) * 40

    def is_right(self, site: Batches, done: Done) -> None:
        assert done.status == 0, done
        assert sorted(map(int, done.stdout.split())) == list(range(40))
        site.is_accounted_for(done=40)
        site.leaves_nothing()

    def begin(self, site: Batches, *options: str) -> Running:
        return site.begin_batch(self.LINES, '2/h1,2/h2', '--json', '--no-duplicates', *options)

    def test_cut_off_for_a_moment(self, fresh_bed: FreshBed, tmp_path: Path) -> None:
        bed = fresh_bed(2)
        with batches(bed, tmp_path) as site, self.begin(site) as running:
            site.wait_for_marks(8, running)
            bed['h2'].cut()
            site.wait_for_marks(16, running)
            bed['h2'].heal()
            self.is_right(site, running.end(PATIENCE))
            assert site.marks() == once(40)

    def test_connections_that_end(self, fresh_bed: FreshBed, tmp_path: Path) -> None:
        bed = fresh_bed(2)
        with batches(bed, tmp_path) as site, self.begin(site) as running:
            for number in (8, 16):
                site.wait_for_marks(number, running)
                bed['h2'].stop_sshd(sessions=True)
                wait_until(lambda n=number: running.err.count(b'h2: connection lost') >= n // 8, 'the loss', PATIENCE)
                bed['h2'].start_sshd()
            done = running.end(PATIENCE)
            self.is_right(site, done)
            assert site.marks() == once(40)
        # What was on its way to h2 when its connection ended counts as lost, and was never begun.
        assert {one['name']: one['lost'] for one in numbers(done)['hosts']}['h1'] == 0

    def test_agents_that_are_killed(self, site: Batches) -> None:
        with self.begin(site) as running:
            site.wait_for_marks(8, running)
            for host in site.bed.hosts[:2]:
                kill(host, signal.SIGKILL, *[agent.pid for agent in agents(host)])
            self.is_right(site, running.end(PATIENCE))
        assert site.marks() == once(40)

    @pytest.mark.parametrize('finish', [False, True])
    def test_cut_off_beyond_the_lease(self, fresh_bed: FreshBed, tmp_path: Path, finish: bool) -> None:
        """What ran there runs elsewhere; what comes of it later does not count."""
        bed = fresh_bed(2)
        options = ['--lease', '3', *(['--on-lost', 'finish'] if finish else [])]
        lines = [marking(f'[ $RR_HOST = h1 ] || {WAIT}; sleep 0.2; echo $RR_TASK')] * 40
        lines.append(marking('while [ ! -e /tmp/end ]; do sleep 0.02; done; echo $RR_TASK'))
        with batches(bed, tmp_path) as site:
            lines = [lines[-1], *lines[:-1]]
            with site.begin_batch(lines, '2/h1,2/h2', '--no-duplicates', '--json', *options) as running:
                wait_until(lambda: bed['h2'].path('/tmp/mark').exists(), 'tasks on h2', PATIENCE)
                site.wait_for_marks(4, running)
                bed['h2'].cut()
                site.wait_for_ends(42)  # two of them are lost
                bed['h2'].path('/tmp/go').touch()
                bed['h2'].heal()
                wait_until(lambda: running.err.count(b'h2: ready') == 2, 'h2 to be back', PATIENCE)
                for host in bed.hosts:
                    host.path('/tmp/end').touch()
                done = running.end(PATIENCE)
            assert done.status == 0, done
            assert sorted(map(int, done.stdout.split())) == list(range(41))
            site.is_accounted_for(done=41)
            site.leaves_nothing()

    @pytest.mark.timeout(300)
    @pytest.mark.parametrize('who', [agents, dispatchers])
    def test_stopped_beyond_the_lease_and_continued(
        self, site: Batches, who: Callable[[TestHost], list[HostProcess]]
    ) -> None:
        """What ran there runs elsewhere, and what comes of it when it goes on does not count."""
        host = site.bed['h2']
        lines = [f'{WAIT}; echo $RR_TASK', *[marking(f'[ $RR_HOST = h1 ] || {WAIT}; echo $RR_TASK')] * 39]
        with site.begin_batch(lines, '2/h1,2/h2', '--no-duplicates', '--json', '--lease', '3') as running:
            wait_until(lambda: host.path('/tmp/mark').exists(), 'tasks on h2', PATIENCE)
            pids = [each.pid for each in who(host)]
            kill(host, signal.SIGSTOP, *pids)
            site.wait_for_ends(40)  # at least one of them is lost, and another one waits
            assert not {each.pid for each in host.processes()}.isdisjoint(pids)
            kill(host, signal.SIGCONT, *pids)
            wait_until(lambda: running.err.count(b'h2: ready') >= 2, 'h2 to be back', PATIENCE)
            site.go()
            done = running.end(PATIENCE)
        self.is_right(site, done)
        wait_until(lambda: {each.pid for each in host.processes()}.isdisjoint(pids), 'the end of those', PATIENCE)
        said = numbers(done)
        lost = {one['name']: one['lost'] for one in said['hosts']}
        assert lost['h1'] == 0
        assert 0 < lost['h2'] == said['lost']

    def test_dispatchers_that_are_killed(self, site: Batches) -> None:
        """With all that they run: that runs again, and costs no try."""
        with self.begin(site, '--retries', '0') as running:
            site.wait_for_marks(8, running)
            kill(site.bed['h2'], signal.SIGKILL, *[each.pid for each in dispatchers(site.bed['h2'])])
            done = running.end(PATIENCE)
            self.is_right(site, done)
        again = [task for task, count in site.marks().items() if count > 1]
        assert len(again) <= 4
        said = numbers(done)
        assert 0 < {one['name']: one['lost'] for one in said['hosts']}['h2'] <= 4
        assert said['copies']['begun'] == 0


class TestTold:
    """Of a batch that runs, and told what to do, from another terminal."""

    def test_paused_and_gone_on_with(self, site: Batches) -> None:
        with site.begin_batch([marking('sleep 0.2')] * 40, '1/h1,1/h2', '--no-duplicates') as running:
            site.wait_for_marks(4, running)
            assert 'is paused' in site.tell('pause').stdout
            site.wait_for_ends(len(site.attempts()))
            begun = site.marks().total()
            assert begun < 40
            why = site.tell('explain', '39').stdout
            assert 'paused' in why
            assert site.marks().total() == begun
            assert 'goes on' in site.tell('resume').stdout
            assert running.end(PATIENCE).status == 0
        assert site.marks() == once(40)

    def test_by_another_version(self, site: Batches) -> None:
        """What it does not understand it refuses, and hears who comes next."""
        with site.begin_batch([marking(f'{WAIT}; echo done')], 'h1', '--no-duplicates') as running:
            site.wait_for_marks(1, running)
            for request in ({'do': 'explain'}, {'do': 'explain', 'task': 'a'}, {'do': 'explain', 'task': None}):
                with pytest.raises(ControlFailed, match=r'is no task \(who asks may be of another version\)'):
                    ask(site.job, request)
            with pytest.raises(ControlFailed, match=r'nothing this master can do \(it may be of another version\)'):
                ask(site.job, {'do': 'dance'})
            assert 'runs' in site.tell('explain', '0').stdout
            site.go()
            assert running.end(PATIENCE).stdout == 'done\n'

    def test_cancelled(self, site: Batches) -> None:
        with site.begin_batch([marking('exec sleep 600')] * 40, '2/h1,2/h2', '--json') as running:
            site.wait_for_marks(4, running)
            [shown] = site.tell('show', '--json').objects
            assert (shown['state'], shown['tasks'], shown['running'] >= 4) == ('running', 40, True)
            assert 'runs' in site.tell('explain', '0').stdout
            assert 'is cancelled' in site.tell('cancel').stdout
            done = running.end(PATIENCE)
        assert done.status == 1
        assert numbers(done)['cancelled'] == 40
        site.leaves_nothing()
        assert not any(sleepers(host) for host in site.up)
        assert site.tell('pause', status=1).stderr.count('ERROR') == 1

    def test_beside_another_on_the_same_hosts(self, site: Batches) -> None:
        with site.begin_batch([marking(f'{WAIT}; echo a')] * 2, '1/h1,1/h2', '--no-duplicates') as first:
            site.wait_for_marks(2, first)
            site.lines([marking('echo b')], 'others')
            second = site.batch(site.folder / 'others', '1/h1,1/h2', '--name', 'second')
            assert second.stdout == 'b\n'
            assert [one['state'] for one in site.tell('list', '--json').objects] == ['done', 'running']
            site.go()
            assert first.end(PATIENCE).stdout == 'a\na\n'
        site.leaves_nothing()
