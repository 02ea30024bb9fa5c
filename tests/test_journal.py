"""The journal of a job: what is written is there as a whole, whoever is killed whenever, and whatever the disk does."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_runner.deploy.run import new_run_id
from remote_runner.errors import JobHeld, JournalFailed, UsageError
from remote_runner.jobs import places
from remote_runner.jobs.engines.base import Ended
from remote_runner.jobs.holding import master as master_of
from remote_runner.jobs.journal import SMALL, Journal, Turn, Unsettled
from remote_runner.jobs.policy import Cause, Outcome, Policy, RetryOn
from remote_runner.jobs.task import Task
from tests.commands import ROOT
from tests.journals import GROUP, HOST, LOST, check, ended, master, result, succeed, tasks
from tests.testbed.process import wait_until

BAD = Outcome(Cause.EXIT, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / '20261122-000000-0000'
    folder.mkdir()
    return folder


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    with Journal.create(folder, {'kind': 'batch'}) as journal:
        yield journal


class TestPlaces:
    @pytest.fixture(autouse=True)
    def state(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('XDG_STATE_HOME', str(tmp_path / 'state'))

    @staticmethod
    def make(name: str = '') -> str:
        place = places.make(name)
        Journal.create(place.folder, {}).close()
        return place.id

    def test_of_all_users_ours_alone(self) -> None:
        folder = places.make().folder
        assert folder.stat().st_mode & 0o777 == 0o700
        with Journal.create(folder, {}) as journal:
            journal.add(tasks(1))
            assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}

    def test_the_newest_and_by_its_name(self) -> None:
        ids = [self.make('latency'), self.make('latency'), self.make('other'), self.make()]
        assert len(set(ids)) == 4
        assert places.find() == places.places()[0]
        assert sorted(ids, reverse=True) == [place.id for place in places.places()]
        assert places.find('latency').id == max(ids[:2])
        assert places.find('other').id == ids[2]

    def test_ids_sort_by_time(self) -> None:
        moments = [1e9 + number / 200 for number in range(500)]
        ids = [places._new_id(moment)[:18] for moment in moments]
        assert sorted(ids) == ids
        assert len(set(ids)) == len(ids)

    def test_also_when_summer_time_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """And the ids of runs are made alike."""
        monkeypatch.setenv('TZ', 'Europe/Berlin')
        time.tzset()
        try:
            end = 1792890000.0  # 2026-10-25 01:00 UTC: 3 o'clock becomes 2 o'clock
            assert time.localtime(end - 1).tm_hour == time.localtime(end + 3599).tm_hour == 2
            ids = [places._new_id(end + minutes * 60)[:15] for minutes in range(-90, 90)]
            assert sorted(ids) == ids
            assert places._new_id(end).startswith('20261025-010000-')
            monkeypatch.setattr(time, 'time', lambda: end)
            assert new_run_id()[:15] == places._new_id(end)[:15]
        finally:
            monkeypatch.undo()
            time.tzset()

    def test_the_beginning_of_an_id(self) -> None:
        found = self.make()
        assert places.find(found[:17]).id == found
        assert places.find(found).id == found
        (places.jobs_folder() / found).rename(places.jobs_folder() / '19990101-000000-aaaa')
        self.make()
        assert places.find('1').id == '19990101-000000-aaaa'
        self.make()
        with pytest.raises(UsageError, match='may be any of 2 jobs'):
            places.find('2')

    def test_there_is_none(self) -> None:
        with pytest.raises(UsageError, match='no job is recorded here'):
            places.find()
        with pytest.raises(UsageError, match="there is no job 'x'"):
            places.find('x')
        places.make()  # whoever made it was killed before there was a journal
        with pytest.raises(UsageError, match='no job is recorded here'):
            places.find()
        self.make()
        with pytest.raises(UsageError, match="there is no job ''"):
            places.find('')

    def test_a_place_that_cannot_be_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / 'file').touch()
        monkeypatch.setenv('XDG_STATE_HOME', str(tmp_path / 'file'))
        with pytest.raises(JournalFailed, match=r'Not a directory.*XDG_STATE_HOME'):
            places.make()


class TestTasks:
    def test_numbers_follow_one_another(self, journal: Journal) -> None:
        assert journal.add(tasks(3)) == 0
        assert journal.add(iter([])) == 3
        assert journal.add([(3, Task('more'))]) == 3
        assert [(task.number, task.position) for task in journal.load().unsettled] == [(n, n) for n in range(4)]

    def test_whatever_is_in_them_comes_back(self, journal: Journal) -> None:
        odd = 'a\0b\n\t"\'\\ ü 🙂 \udc80 \ud800'
        plain = [Task('true'), Task(''), Task('a\0b\n'), Task('\udcff ü'), Task('x' * 2_000_000)]
        swept = [
            Task(
                'x', {'a': 1, 'b': 1.5, 'c': None, 'd': True, 'e': 'text', odd: odd, 'f': math.inf, 'g': [1, {'h': 2}]}
            ),
            Task('x', inputs={'stdin': bytes(range(256)), 'in/dat': b'', odd: b'x'}),
            Task('x', {'a': 1}, {'stdin': b'1'}, {'out': 'stdout', odd: odd}),
        ]
        journal.add(enumerate([*plain, *swept]))
        assert [task.task for task in journal.load().unsettled] == [*plain, *swept]
        assert [journal.task(number) for number in range(8)] == [*plain, *swept]

    def test_values_that_json_cannot_say_are_shown(self, journal: Journal) -> None:
        journal.add([(0, Task('x', {'path': Path('/x'), 'bytes': b'x', 'set': {1}}))])
        assert journal.load().unsettled[0].task.parameters == {'path': "PosixPath('/x')", 'bytes': "b'x'", 'set': '{1}'}

    def test_a_list_that_fails_half_way_leaves_whole_tasks(self, journal: Journal) -> None:
        def endless() -> Iterator[tuple[int, Task]]:
            yield from tasks(12_000)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            journal.add(endless())
        assert journal.counts().tasks == 10_000
        assert journal.add([(10_000, Task('echo 11000')), (10_001, Task('echo 1'))]) == 10_000
        assert journal.match([Task('echo 1'), Task('echo 1'), Task('echo 11000')]).numbers == [1, 10_001, 10_000]

    def test_what_is_known_of_the_job(self, journal: Journal, folder: Path) -> None:
        journal.note(ended=1.5, kind='sweep', hosts=['a', 'b'])
        with Journal.look(folder) as reader:
            assert reader.meta == {
                'kind': 'sweep',
                'ended': 1.5,
                'hosts': ['a', 'b'],
                'started': reader.meta['started'],
            }


class TestMatch:
    """A list of tasks that was edited."""

    def test_equal_content_keeps_number_and_outcome(self, journal: Journal) -> None:
        journal.add(tasks(4))
        succeed(journal, 0, 1, 2, 3)
        changed = [Task('new'), Task('echo 3'), Task('echo 0'), Task('echo 2')]
        assert journal.match(changed) == ([4, 3, 0, 2], 1, 1)
        loaded = journal.load()
        assert (loaded.tasks, loaded.done) == (4, 3)
        assert loaded.unsettled == [Unsettled(4, 0, Task('new'))]
        assert [(each.number, each.position) for each in loaded.undelivered] == [(3, 1), (0, 2), (2, 3)]
        assert [row.position for row in journal.tasks()] == [0, 1, 2, 3]
        assert len(list(journal.attempts())) == 4
        assert journal.match([task for _, task in tasks(4)]) == ([0, 1, 2, 3], 0, 1)
        assert journal.counts().done == 4

    def test_other_inputs_are_another_task(self, journal: Journal) -> None:
        journal.add([(0, Task('x', inputs={'stdin': b'1'})), (1, Task('x', {'a': 1}))])
        assert journal.match([Task('x', inputs={'stdin': b'2'}), Task('x', {'a': 1})]) == ([2, 1], 1, 1)
        assert journal.load().unsettled[0].task.inputs == {'stdin': b'2'}

    def test_what_runs_and_is_not_wanted_any_more_is_stray(self, journal: Journal) -> None:
        journal.add(tasks(3))
        journal.write(Turn(ordered=[(0, 1, 'h1', 1.0), (1, 1, 'h2', 1.0), (1, 2, 'h3', 1.0)]))
        journal.write(Turn(ended=[(ended(1, 2), True)], settled=[(1, 2, Outcome())]))
        journal.match([Task('echo 1'), Task('echo 2')])
        assert journal.load().stray == [(0, 1, 'h1'), (1, 1, 'h2')]

    @settings(max_examples=60)
    @given(lists=st.lists(st.lists(st.sampled_from('abc'), max_size=6), min_size=1, max_size=5))
    def test_against_a_model(self, lists: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> None:
        """The nth of equal commands has always the same number."""
        numbers: dict[tuple[str, int], int] = {}
        before: set[int] = set()
        with Journal.create(tmp_path_factory.mktemp('job'), {}) as journal:
            for commands in lists:
                seen: Counter[str] = Counter()
                expected, new = [], 0
                for command in commands:
                    new += (command, seen[command]) not in numbers
                    expected.append(numbers.setdefault((command, seen[command]), len(numbers)))
                    seen[command] += 1
                matched = journal.match([Task(command) for command in commands])
                assert matched == (expected, new, len(before - set(expected)))
                before = set(expected)
                rows = [(row.number, row.position, row.task.command) for row in journal.tasks()]
                assert rows == [(n, at, c) for at, (n, c) in enumerate(zip(expected, commands, strict=True))]


class TestTurns:
    def test_where_another_master_goes_on(self, journal: Journal, folder: Path) -> None:
        journal.add(tasks(6))
        succeed(journal, 0)
        journal.write(Turn(delivered=[0]))
        succeed(journal, 1)
        journal.write(Turn(ordered=[(2, 1, 'h1', 1.0), (2, 2, 'h2', 2.0), (3, 1, 'h3', 3.0), (4, 1, 'h1', 4.0)]))
        failed = [(ended(2, 1, BAD), True), (ended(4, 1, BAD, tail='no!\n'), True)]
        journal.write(Turn(ended=failed, settled=[(4, 1, BAD)]))
        journal.write(Turn(ended=[(ended(2, 2, LOST), True)], ordered=[(2, 3, 'h4', 5.0)]))
        journal.close()
        with Journal.open(folder) as journal:
            loaded = journal.load()
            assert (loaded.tasks, loaded.done, loaded.failed, loaded.stray) == (6, 2, {Cause.EXIT: 1}, [])
            first, second, third = loaded.unsettled
            assert first[3:] == (3, {Cause.EXIT: 1, Cause.LOST: 1}, {HOST}, ((3, 'h4', 5.0),))
            assert second == Unsettled(3, 3, Task('echo 3'), 1, live=((1, 'h3', 3.0),))
            assert third == Unsettled(5, 5, Task('echo 5'))
            assert [(each.number, each.attempt, each.outcome) for each in loaded.undelivered] == [
                (1, 1, Outcome()),
                (4, 1, BAD),
            ]
            assert journal.results(1) == result(1, 1)
            row = journal.attempt(4, 1)
            assert row is not None
            assert (row.tail, row.outcome, row.slot, row.seconds) == ('no!\n', BAD, 1, 0.5)

    def test_all_attempts_are_listed_and_the_first_end_of_one_counts(self, journal: Journal) -> None:
        journal.add(tasks(1))
        journal.write(Turn(ordered=[(0, 1, 'h1', 1.0), (0, 2, 'h2', 2.0), (0, 3, 'h3', 3.0)]))
        journal.write(Turn(ended=[(ended(0, 1, LOST), True)]))
        journal.write(Turn(ended=[(ended(0, 2), True), (ended(0, 3), False)], settled=[(0, 2, Outcome())]))
        journal.write(Turn(ended=[(ended(0, 1), False), (ended(0, 2, BAD), False)]))
        found = [(row.attempt, row.state, row.outcome) for row in journal.attempts(0)]
        assert found == [(1, 'counts', LOST), (2, 'counts', Outcome()), (3, 'superseded', Outcome())]
        assert journal.results(0) == {'stdout': (journal.folder / 'results/0.stdout')}
        assert (journal.folder / 'results/0.stdout').read_bytes() == result(0, 2)['stdout']

    def test_a_task_is_settled_once(self, journal: Journal) -> None:
        journal.add(tasks(2))
        succeed(journal, 1)
        with pytest.raises(JournalFailed, match='UNIQUE'):
            journal.write(Turn(ordered=[(0, 1, HOST, 1.0)], settled=[(1, 1, BAD)]))
        assert journal.counts() == (2, 1, {}, 0), 'nothing of that turn is there'
        with pytest.raises(JournalFailed, match='UNIQUE'):
            journal.write(Turn(ordered=[(1, 1, HOST, 1.0)]))

    def test_what_failed_is_tried_again(self, journal: Journal, folder: Path) -> None:
        journal.add(tasks(3))
        cancelled = Outcome(Cause.CANCELLED)
        journal.write(Turn(ordered=[(0, 1, HOST, 1.0), (0, 2, HOST, 1.0)]))
        failed = [(ended(0, attempt, BAD), True) for attempt in (1, 2)]
        journal.write(Turn(ended=failed, settled=[(0, 2, BAD), (1, 0, cancelled)], delivered=[0]))
        succeed(journal, 2)
        assert [row.number for row in journal.tasks(only_failed=True)] == [0]
        assert journal.forgive([Cause.TIMEOUT]) == 0
        assert journal.forgive([Cause.EXIT, Cause.CANCELLED]) == 2
        assert journal.load().unsettled == [Unsettled(0, 0, Task('echo 0'), 2), Unsettled(1, 1, Task('echo 1'))]
        journal.write(Turn(ordered=[(0, 3, HOST, 1.0)]))
        journal.write(Turn(ended=[(ended(0, 3, BAD), True)]))
        assert journal.load().unsettled[0].failures == {Cause.EXIT: 1}
        assert len(list(journal.attempts(0))) == 3

    def test_once_more_where_there_are_more_retries(self, journal: Journal) -> None:
        """What failed before counts: each cause by itself, and not what was forgiven or superseded."""
        journal.add(tasks(5))
        late = Outcome(Cause.TIMEOUT)
        journal.write(Turn(ordered=[(task, go, HOST, 1.0) for task in range(4) for go in (1, 2, 3)]))
        ends = [(0, 1, BAD), (0, 2, BAD), (0, 3, BAD)]
        ends += [(1, 1, late), (1, 2, late), (1, 3, BAD), (2, 2, late), (2, 3, BAD)]
        failed = [(ended(task, go, outcome), True) for task, go, outcome in ends]
        poison = Outcome(Cause.POISON)
        lost = [(ended(3, go, LOST), True) for go in (1, 2, 3)]
        settled = [(0, 3, BAD), (1, 3, BAD), (2, 3, BAD), (3, 3, poison)]
        journal.write(Turn(ended=[*failed, (ended(2, 1, BAD), False), *lost], settled=settled, delivered=[0]))
        succeed(journal, 4)
        assert journal.reopen(Policy(retries=0)) == 0
        assert journal.reopen(Policy(retries=2, retry_on=(RetryOn(Cause.TIMEOUT),))) == 0
        assert journal.reopen(Policy(retries=2)) == 2
        assert {each.number: each.failures for each in journal.load().unsettled} == {
            1: {Cause.TIMEOUT: 2, Cause.EXIT: 1},
            2: {Cause.TIMEOUT: 1, Cause.EXIT: 1},
        }
        assert journal.forgive([Cause.EXIT]) == 1
        journal.write(Turn(ordered=[(0, 4, HOST, 1.0)]))
        journal.write(Turn(ended=[(ended(0, 4, BAD), True)], settled=[(0, 4, BAD)]))
        assert journal.reopen(Policy(retries=1)) == 1

    def test_text_that_is_no_unicode(self, journal: Journal) -> None:
        journal.add(tasks(1))
        odd = Outcome(Cause.RESOURCES, None, 'no \udcff')
        journal.write(Turn(ordered=[(0, 1, 'ü\udc80', 1.0)]))
        fact = Ended(0, 1, 'ü\udc80', 2, odd, 1.0, 1.0, tail='\udcfe\0')
        journal.write(Turn(ended=[(fact, True)], settled=[(0, 1, odd)]))
        [row] = journal.attempts()
        assert (row.host, row.outcome, row.tail) == ('ü\udc80', odd, '\udcfe\0')
        assert next(journal.tasks()).outcome == odd


class TestResults:
    def test_small_and_large_ones(self, journal: Journal, tmp_path: Path) -> None:
        journal.add(tasks(1))
        (tmp_path / 'file').write_bytes(b'x' * 100_000)
        wanted: dict[str, bytes | Path] = {
            '': b'empty name', 'none': b'', 'edge': bytes(SMALL), 'more': bytes(SMALL + 1), 'file': tmp_path / 'file',
            '../../up': b'u' * 20_000, 'a/b': b'v' * 20_000, '\udc80' * 200: b'w' * 20_000, 'x.new': b'z' * 20_000,
        }  # fmt: skip
        journal.write(Turn(ended=[(ended(0, results=wanted), True)], settled=[(0, 1, Outcome())]))
        found = journal.results(0)
        read = {name: c.read_bytes() if isinstance(c, Path) else c for name, c in found.items()}
        assert read == {**wanted, 'file': b'x' * 100_000}
        files = {path.parent for path in found.values() if isinstance(path, Path)}
        assert files == {journal.folder / 'results'}
        assert not (tmp_path / 'file').exists()
        assert len(list((journal.folder / 'results').iterdir())) == 6
        assert journal.load().done == 1

    def test_from_another_file_system(self, journal: Journal) -> None:
        journal.add(tasks(1))
        source = Path('/dev/shm') / f'{os.getpid()}.result'
        assert source.parent.stat().st_dev != journal.folder.stat().st_dev
        source.write_bytes(b'x' * 100_000)
        journal.write(Turn(ended=[(ended(0, results={'a': source}), True)], settled=[(0, 1, Outcome())]))
        [path] = journal.results(0).values()
        assert isinstance(path, Path)
        assert path.read_bytes() == b'x' * 100_000
        assert not source.exists()

    def test_files_that_nobody_wants_go(self, journal: Journal, tmp_path: Path) -> None:
        journal.add(tasks(1))
        late, bad = tmp_path / 'late', tmp_path / 'bad'
        late.write_text('late')
        bad.write_text('bad')
        facts = [(ended(0, 1, BAD, results={'x': bad}), True), (ended(0, 2, results={'x': late}), False)]
        journal.write(Turn(ended=facts))
        assert journal.results(0) == {}
        assert not late.exists()
        assert not bad.exists()

    def test_what_the_power_took_runs_again(self, journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
        journal.add(tasks(11))
        succeed(journal, *range(11))
        journal.write(Turn(delivered=range(5, 11)))
        (journal.folder / 'results/0.stdout').write_bytes(b'')
        (journal.folder / 'results/5.stdout').unlink()
        (journal.folder / 'results/7.stdout').write_bytes(b'of no transaction')
        with pytest.raises(JournalFailed, match=r'is not there, or damaged.*makes it again'):
            journal.results(5)
        loaded = journal.load()
        assert [(task.number, task.attempts, task.failures) for task in loaded.unsettled] == [(0, 1, {})]
        assert [each.number for each in loaded.undelivered] == [1, 2, 3, 4], 'nobody is given anything twice'
        assert [path.name for path in (journal.folder / 'results').iterdir()] == ['10.stdout']
        assert 'results were written: 1' in caplog.text
        succeed(journal, 0, attempt=2)
        assert [each.number for each in journal.load().undelivered] == [0, 1, 2, 3, 4]


class TestKilled:
    def test_at_random_moments(self, tmp_path: Path) -> None:
        number, rounds = 4000, 80
        rng = random.Random(5)
        moments: set[tuple[int, int]] = set()
        job, known = -1, number
        for round_ in range(rounds):
            if known == number:
                job, known = job + 1, 0
                folder = tmp_path / f'job-{job}'
                folder.mkdir()
                with Journal.create(folder, {}) as journal:
                    journal.add(tasks(number))
            with master(folder) as running:
                if round_ % 2:  # while it works, else perhaps while it begins
                    wait_until(lambda running=running: running.out, 'its first turn')
                threading.Event().wait(rng.random() * (0.01 if round_ % 2 else 0.15))
                running.signal(signal.SIGKILL)
                done = running.end()
            assert done.status == -signal.SIGKILL, done
            said = [int(line) for line in done.stdout.splitlines()]
            before, known = known, check(folder, number)
            assert max([before, *said]) <= known <= max([before, *said]) + GROUP, 'what was written is there'
            moments.add((job, known))
        assert len(moments) > rounds / 4, 'it was killed on its way'
        with Journal.open(folder) as journal:
            loaded = journal.load()
            assert loaded.done == known
            assert len(loaded.undelivered) <= 2 * GROUP
            names = {path.name for path in (folder / 'results').glob('*')}
            assert names == {f'{n}.stdout' for n in range(0, known, GROUP)}, 'no file is left of what was not written'

    def test_before_there_was_a_journal(self, folder: Path) -> None:
        (folder / 'journal.new').write_bytes(b'half')
        with pytest.raises(JournalFailed, match=r'journal\.db.*unable to open'):
            Journal.look(folder)
        with pytest.raises(JournalFailed, match='unable to open'):
            Journal.open(folder)
        assert master_of(folder) is None, 'it was let go of'

    def test_with_the_end_of_its_wal_cut_off(self, folder: Path, tmp_path: Path) -> None:
        number = 200
        with Journal.create(folder, {}) as journal:
            journal.add(tasks(number))
        with master(folder) as running:
            wait_until(lambda: running.out.endswith(b'%d\n' % number), 'its last turn')
            wait_until(lambda: b'\n%d\n%d\n' % (number, number) in running.out, 'what is delivered')
            running.signal(signal.SIGKILL)
            running.end()
        wal = (folder / 'journal.db-wal').read_bytes()
        rng = random.Random(6)
        found = set()
        ends = [len(wal), len(wal) - 1, 31, 32, 33, 0, *(rng.randrange(len(wal)) for _ in range(60))]
        for round_, end in enumerate(ends):
            copy = tmp_path / f'{round_}'
            shutil.copytree(folder, copy, ignore=shutil.ignore_patterns('*-shm'))
            damaged = wal[:end] if round_ % 2 == 0 else wal[:end] + rng.randbytes(min(5000, len(wal) - end))
            (copy / 'journal.db-wal').write_bytes(damaged)
            with Journal.open(copy) as journal:
                done = journal.load().done
            assert check(copy, number) == done
            found.add(done)
            shutil.rmtree(copy)
        assert {0, number} <= found
        assert len(found) > 10

    def test_whoever_looks_sees_what_is_true(self, folder: Path) -> None:
        number = 5000
        with Journal.create(folder, {}) as journal:
            journal.add(tasks(number))
        seen = []
        with master(folder) as running:
            while not seen or seen[-1] < number:
                with Journal.look(folder) as reader, reader.at_one_time():
                    counts = reader.counts()
                    rows = sum(row.outcome is not None for row in reader.tasks())
                    assert counts.done == rows
                    assert counts.done % GROUP == 0
                    seen.append(rows)
            assert master_of(folder) == (running.pid, socket.gethostname(), pytest.approx(0, abs=1e10))
            running.signal(signal.SIGKILL)
            running.end()
        assert seen == sorted(seen)
        assert master_of(folder) is None
        assert check(folder, number) == number


class TestMasters:
    def test_there_is_one(self, folder: Path) -> None:
        with Journal.create(folder, {}) as journal:
            journal.add(tasks(10))
        with master(folder) as running:
            wait_until(lambda: running.out, 'its first turn')
            with pytest.raises(JobHeld, match=f'pid {running.pid} on {socket.gethostname()}.*end it'):
                Journal.open(folder)
            check(folder, 10)
            running.signal(signal.SIGKILL)
            running.end()
        with Journal.open(folder) as journal:
            assert journal.load().tasks == 10
            with pytest.raises(JobHeld, match=f'pid {os.getpid()}'):
                Journal.open(folder)
        Journal.open(folder).close()

    def test_one_of_another_machine(self, folder: Path) -> None:
        """SQLite's WAL is shared memory: who read it from there might spoil it."""
        with Journal.create(folder, {}):
            (folder / 'master').write_text(json.dumps([17, 'elsewhere', 1.0]))
            with pytest.raises(JournalFailed, match=r'only where its master is \(pid 17 on elsewhere\) \(ask on else'):
                Journal.look(folder)
            with pytest.raises(JobHeld, match='pid 17 on elsewhere'):
                Journal.open(folder)
        Journal.look(folder).close()

    def test_programs_that_it_runs_do_not_hold_it(self, journal: Journal, folder: Path) -> None:
        with subprocess.Popen(['sleep', '100']) as child:
            journal.close()
            journal.close()
            Journal.open(folder).close()
            child.kill()


class TestDamage:
    """Each fault has its sentence, and says what to do."""

    def test_no_journal_at_all(self, folder: Path) -> None:
        for content, what in ((b'', 'is no journal of remote_runner'), (b'x' * 5000, 'not a database')):
            (folder / 'journal.db').write_bytes(content)
            for opened in (Journal.open, Journal.look):
                with pytest.raises(JournalFailed, match=what):
                    opened(folder)

    def test_of_another_program_or_version(self, folder: Path) -> None:
        Journal.create(folder, {}).close()
        for pragma, what in (('user_version = 9', 'another version'), ('application_id = 9', 'no journal of')):
            db = sqlite3.connect(folder / 'journal.db')
            db.execute(f'PRAGMA {pragma}')
            db.close()
            with pytest.raises(JournalFailed, match=what):
                Journal.look(folder)

    def test_pages_that_are_lost(self, folder: Path) -> None:
        with Journal.create(folder, {}) as journal:
            journal.add(tasks(2000))
        path = folder / 'journal.db'
        path.write_bytes(path.read_bytes()[:8192] + bytes(path.stat().st_size - 8192))
        with pytest.raises(JournalFailed, match=r'malformed.*it is damaged'), Journal.open(folder) as journal:
            journal.load()

    def test_another_program_has_it_open(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr('remote_runner.jobs.database._PATIENCE', 0.05)
        with Journal.create(folder, {}) as journal:
            db = sqlite3.connect(folder / 'journal.db', isolation_level=None)
            db.execute('BEGIN IMMEDIATE')
            with pytest.raises(JournalFailed, match=r'locked.*another program has it open'):
                journal.add(tasks(1))
            db.close()
            assert journal.add(tasks(1)) == 0

    def test_odd_paths(self, tmp_path: Path) -> None:
        for name in ('a?mode=memory', 'a#b', '100%25', 'with space', "it's"):
            folder = tmp_path / name
            folder.mkdir()
            with Journal.create(folder, {}) as journal:
                journal.add(tasks(1))
            with Journal.look(folder) as reader:
                assert reader.counts().tasks == 1

    def test_a_file_system_that_is_read_only(self, folder: Path) -> None:
        with Journal.create(folder, {}) as journal:
            journal.add(tasks(3))
        told = self.mounted(folder, 'mount --bind -o ro "$1" "$1" && mount -o remount,bind,ro "$1"', _LOOK)
        assert told['tasks'] == 3
        assert 'Read-only file system' in told['error']

    @pytest.mark.parametrize('large', [False, True])
    def test_a_full_disk(self, folder: Path, large: bool) -> None:
        """What fails leaves nothing; with room it is done again, and all is right."""
        told = self.mounted(folder, 'mount -t tmpfs -o size=2m tmpfs "$1"', _FILL, str(int(large)))
        assert str(folder) in told['error']
        assert 'make room there' in told['error']
        assert 0 < told['settled'] < 100_000
        assert told['before'] == [told['settled'], 1], 'one attempt was ordered before'
        assert told['after'] == [told['settled'] + 1, 0]
        assert told['result'] == 'right'

    @staticmethod
    def mounted(folder: Path, mount: str, program: str, *arguments: str) -> dict[str, Any]:
        """What a program says that sees another file system in the folder."""
        script = f'{mount} && shift && exec "$@"'
        words = ['unshare', '--mount', 'sh', '-c', script, 'sh', str(folder), sys.executable, '-c', program]
        done = subprocess.run([*words, str(folder), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


_LOOK = """
import json, sys
from pathlib import Path
from remote_runner.errors import JournalFailed
from remote_runner.jobs.journal import Journal
with Journal.look(Path(sys.argv[1])) as reader:
    tasks = reader.counts().tasks
try:
    Journal.open(Path(sys.argv[1]))
except JournalFailed as error:
    print(json.dumps({'tasks': tasks, 'error': str(error)}))
"""

_FILL = """
import json, sys
from pathlib import Path
from remote_runner.errors import JournalFailed
from remote_runner.jobs.journal import Journal, Turn
from remote_runner.jobs.policy import Outcome
from tests.journals import ended, tasks
folder, large = Path(sys.argv[1]), int(sys.argv[2])
with Journal.create(folder, {}) as journal:
    journal.add(tasks(1000))
    (folder / 'filler').write_bytes(bytes(1 << 20))
    for number in range(1000):
        content = b'x' * (50_000 if large else 15_000)
        turn = Turn(ended=[(ended(number, results={'a': content}), True)], settled=[(number, 1, Outcome())])
        try:
            journal.write(Turn(ordered=[(number, 1, 'h1', 1.0)]))
            journal.write(turn)
        except JournalFailed as failed:
            error = failed
            break
    with Journal.look(folder) as reader:
        before = reader.counts()
    (folder / 'filler').unlink()
    if before.running == 0:
        journal.write(Turn(ordered=[(number, 1, 'h1', 1.0)]))
        before = journal.counts()
    journal.write(turn)
    after = journal.counts()
    [found] = journal.results(number).values()
    found = found if isinstance(found, bytes) else found.read_bytes()
    assert len(journal.load().unsettled) == 1000 - after.done
print(json.dumps({
    'error': str(error), 'settled': number, 'before': [before.done, before.running],
    'after': [after.done, after.running], 'result': 'right' if found == content else 'wrong',
}))
"""


def test_many_tasks(folder: Path) -> None:
    number = 100_000
    with Journal.create(folder, {}) as journal:
        journal.add(tasks(number))
        for first in range(0, number // 2, 500):
            some = range(first, first + 500)
            facts = [(ended(n, results={'stdout': b'%d' % n}), True) for n in some]
            journal.write(Turn(ordered=[(n, 1, HOST, 1.0) for n in some]))
            journal.write(Turn(ended=facts, settled=[(n, 1, Outcome()) for n in some], delivered=some))
    with Journal.open(folder) as journal:
        loaded = journal.load()
        assert (loaded.tasks, loaded.done, loaded.undelivered, loaded.stray) == (number, number // 2, [], [])
        assert loaded.unsettled == [Unsettled(n, n, Task(f'echo {n}')) for n in range(number // 2, number)]
        matched = journal.match([Task(f'echo {n}') for n in range(number, 0, -1)])
        assert matched == ([number, *range(number - 1, 0, -1)], 1, 1)
        assert journal.counts().done == number // 2 - 1
        assert journal.results(4711) == {'stdout': b'4711'}
