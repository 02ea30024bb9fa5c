"""`remote_runner jobs`: what is recorded of jobs on this machine is shown, handed on, and removed."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pexpect
import pytest

from remote_runner.jobs import places
from remote_runner.jobs.engines.base import Ended
from remote_runner.jobs.journal import Journal, Turn
from remote_runner.jobs.policy import Cause, Outcome
from remote_runner.jobs.task import Task
from tests.commands import Commands, Done, environment
from tests.journals import LOST, ended, master, succeed, tasks
from tests.testbed.process import wait_until

BAD = Outcome(Cause.EXIT, 3)
HOSTILE = 'evil \x1b[31m\n\u202e\udcff'


class User(Commands):
    """Somebody who has jobs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / 'home', folder / 'none')
        self.home.mkdir()
        self.state = self.home / '.local/state'

    def job(self, number: int = 3, name: str = '', **meta: object) -> places.Place:
        """A job of so many tasks, none of which was begun."""
        place = places.make(name)
        with Journal.create(place.folder, {'kind': 'batch', 'what': 'commands.txt', **meta}) as journal:
            journal.add(tasks(number))
        return place

    def done(self, number: int = 3, name: str = '') -> places.Place:
        """A job that is over."""
        place = self.job(number, name)
        with Journal.open(place.folder) as journal:
            succeed(journal, *range(number))
            journal.note(ended=time.time())
        return place

    def jobs(self, *words: str, status: int = 0, **options: object) -> Done:
        return self.run('jobs', *words, status=status, **options)


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    user = User(tmp_path)
    monkeypatch.setenv('XDG_STATE_HOME', str(user.state))
    return user


def failing(user: User) -> places.Place:
    """A job of which one task succeeded, one failed after several attempts, and one was cancelled."""
    place = user.job()
    with Journal.open(place.folder) as journal:
        succeed(journal, 0)
        journal.write(Turn(ordered=[(1, attempt, 'h1', 1.0) for attempt in (1, 2)]))
        facts = [(ended(1, 1, LOST), True), (ended(1, 2, BAD, tail=f'last words\n{HOSTILE}'), True)]
        journal.write(Turn(ended=facts, settled=[(1, 2, BAD), (2, 0, Outcome(Cause.CANCELLED))]))
        journal.note(ended=time.time())
    return place


class TestList:
    def test_there_is_none(self, user: User) -> None:
        assert user.jobs('list').stdout == 'no job\n'
        assert user.jobs('list', '--json').stdout == ''
        assert 'no job is recorded here' in user.jobs('show', status=2).stderr

    def test_all_with_their_states(self, user: User) -> None:
        left, good, bad = user.job(), user.done(name='latency'), failing(user)
        found = {job['id']: job for job in user.jobs('list', '--json').objects}
        assert [found[place.id]['state'] for place in (left, good, bad)] == ['interrupted', 'done', 'cancelled']
        assert list(found) == sorted(found, reverse=True), 'the newest first'
        assert found[bad.id]['failed'] == {'exit': 1, 'cancelled': 1}
        assert (found[bad.id]['done'], found[bad.id]['left'], found[bad.id]['tasks']) == (1, 0, 3)
        assert found[good.id]['name'] == 'latency'
        assert found[good.id]['folder'] == str(user.state / 'remote_runner/jobs' / good.id)
        table = user.jobs('list').stdout.splitlines()
        assert table[0].split() == ['ID', 'NAME', 'STATE', 'TASKS', 'DONE', 'FAILED', 'LEFT', 'WHAT']
        assert f'{good.id} latency done 3 3 0 0 commands.txt' in [' '.join(line.split()) for line in table]
        assert table[-1] == '3 jobs'

    def test_one_that_runs(self, user: User) -> None:
        place = user.job(50)
        with master(place.folder) as running:
            wait_until(lambda: running.out, 'its first turn')
            [job] = user.jobs('list', '--json').objects
            assert (job['state'], job['pid']) == ('running', running.pid)
            assert f'running (pid {running.pid} on ' in user.jobs('show').stdout
            running.signal(signal.SIGKILL)
            running.end()
        assert user.jobs('list', '--json').objects[0]['state'] == 'interrupted'

    def test_one_that_is_damaged_hides_no_other(self, user: User) -> None:
        good, bad = user.done(), user.done()
        (bad.folder / 'journal.db').write_bytes(b'x' * 5000)
        done = user.jobs('list', status=1)
        assert good.id in done.stdout
        assert str(bad.folder) in done.stderr
        assert 'Traceback' not in done.stderr
        rows = [line.split() for line in done.stdout.splitlines()]
        assert [bad.id, '-', 'damaged', '-', '-', '-', '-'] in rows
        found = {one['id']: one for one in user.jobs('list', '--json', status=1).objects}
        assert (found[good.id]['state'], found[good.id]['damage']) == ('done', None)
        assert (found[bad.id]['state'], found[bad.id]['tasks']) == ('damaged', None)
        assert found[bad.id]['damage'].startswith(f'the journal {bad.folder}/journal.db cannot be read: ')


class TestDamage:
    """A journal of which the file system has lost something, or that somebody else has written."""

    @staticmethod
    def harm(place: places.Place, how: str) -> None:
        file = place.folder / 'journal.db'
        content = file.read_bytes()
        harmed = {'empty': b'', 'other': b'x' * 5000, 'cut': content[:6000], 'zeros': content[:100] + bytes(9000)}
        file.write_bytes(harmed[how])

    @pytest.mark.parametrize('how', ['empty', 'other', 'cut', 'zeros'])
    def test_it_is_told_removed_and_in_nobodys_way(self, user: User, how: str) -> None:
        older = user.done(2)
        place = user.done()
        self.harm(place, how)
        assert 'damaged' in user.jobs('list', status=1).stdout
        said = user.jobs('show', place.id, status=1).stderr
        assert 'it is damaged; results beside it may be whole, the job has to be run anew, and `remote_runner' in said
        for words in (['show', '--json'], ['failed'], ['export', 'jsonl'], ['explain', '0']):
            done = user.jobs(*words)
            assert f'WARNING: job {place.id} is damaged, and one before it is meant' in done.stderr
        assert user.jobs('show', '--json').objects[0]['id'] == older.id
        newer = user.done()
        assert user.jobs('show', '--json').objects[0]['id'] == newer.id
        assert user.jobs('show').stderr == ''
        kept = user.jobs('clean', '--yes', '--json', '--older', '1d', status=1)
        assert 'it is damaged' in kept.stderr
        assert place in places.places(), 'what might be worth a look goes when it is named'
        table = user.jobs('clean', place.id, '--yes').stdout
        assert [place.id, '-', 'damaged', '-'] == table.splitlines()[1].split()[:4]
        assert place not in places.places()
        assert user.jobs('list').stderr == ''

    def test_all_are(self, user: User) -> None:
        for place in (user.done(), user.done()):
            self.harm(place, 'other')
        done = user.jobs('show', status=1)
        assert 'ERROR: the journal ' in done.stderr
        assert 'Traceback' not in done.stderr

    def test_not_while_a_master_has_it(self, user: User) -> None:
        place = user.job()
        with Journal.open(place.folder):
            self.harm(place, 'other')
            done = user.jobs('clean', place.id, '--yes', status=1)
        assert f'job {place.id} is running (pid {os.getpid()}' in done.stderr
        assert place in places.places()


class TestShow:
    def test_by_host_and_cause(self, user: User) -> None:
        place = failing(user)
        text = user.jobs('show', place.id).stdout
        assert '3: 1 done, 2 failed, 0 left' in text
        assert 'ended without success' in text
        assert ' '.join(text.splitlines()[-1].split()) == 'h1 1 1 1 0 0 1.50 s'
        [shown] = user.jobs('show', '--json').objects
        counts = {'done': 1, 'failed': 1, 'lost': 1, 'superseded': 0, 'running': 0, 'seconds': 1.5}
        assert shown['hosts'] == [{'host': 'h1', **counts}]

    def test_which_one_is_meant(self, user: User) -> None:
        first, second = user.done(1, 'latency'), user.done(2, 'latency')
        assert user.jobs('show', 'latency', '--json').objects[0]['id'] == max(first.id, second.id)
        for place in (first, second):
            assert user.jobs('show', '--json', place.id).objects[0]['id'] == place.id
        assert "there is no job 'nosuch'" in user.jobs('show', 'nosuch', status=2).stderr
        assert 'one word too many' in user.jobs('show', first.id, second.id, status=2).stderr
        assert 'shows one' in user.jobs('list', first.id, status=2).stderr
        assert 'belong to `jobs clean`' in user.jobs('show', '--yes', status=2).stderr

    def test_what_is_hostile_is_shown_harmless(self, user: User) -> None:
        place = user.job(0, HOSTILE, what=HOSTILE)
        with Journal.open(place.folder) as journal:
            journal.add([(0, Task(HOSTILE))])
            bad = Outcome(Cause.REJECTED, None, HOSTILE)
            journal.write(Turn(ordered=[(0, 1, HOSTILE, 1.0)]))
            fact = Ended(0, 1, HOSTILE, 1, bad, 1.0, 1.0, tail=HOSTILE)
            journal.write(Turn(ended=[(fact, True)], settled=[(0, 1, bad)]))
        for words in (['list'], ['show'], ['failed']):
            shown = user.jobs(*words).stdout
            assert 'evil \\x1b[31m' in shown
            assert not {'\x1b', '\u202e', '\udcff'} & set(shown)
        for words in (['list'], ['show'], ['failed'], ['export', 'jsonl']):
            assert user.jobs(*words, '--json').stdout.isascii()


class TestAnotherVersion:
    """Somebody has installed another one since: what it does not understand it says, and nothing is lost."""

    def test_numbers_of_a_job_that_is_over(self, user: User) -> None:
        place = user.done()
        with Journal.open(place.folder) as journal:
            journal.note(is_complete=True, statistics={'done': 3, 'new': 1})
        done = user.jobs('attach', status=1)
        assert 'ERROR: the numbers that its master has told are not understood: KeyError' in done.stderr
        assert 'it is of another version of remote_runner' in done.stderr
        assert 'Traceback' not in done.stderr
        assert user.jobs('show', '--json').objects[0]['done'] == 3

    def test_a_journal(self, user: User) -> None:
        older, place = user.done(), user.done()
        with closing(sqlite3.connect(place.folder / 'journal.db')) as db:
            db.execute('PRAGMA user_version = 9')
        for words in (['list'], ['show'], ['failed'], ['attach'], ['resume'], ['export', 'csv'], ['explain', '0']):
            done = user.jobs(*words, status=1)
            said = f'ERROR: {place.folder}/journal.db was written by another version of remote_runner (use the version'
            assert said in done.stderr, words
            assert 'Traceback' not in done.stderr
        assert [one['id'] for one in user.jobs('list', '--json', status=1).objects] == [older.id]
        assert place in places.places()
        assert user.jobs('clean', '--yes', '--json', status=1).objects[0]['id'] == older.id
        assert places.places() == [place], 'nobody knows whether it is over'


class TestFailed:
    def test_with_what_each_printed_last(self, user: User) -> None:
        failing(user)
        text = user.jobs('failed').stdout
        assert text.splitlines()[1].split()[:4] == ['1', 'exit', '3', '2']
        assert '    | last words\n' in text
        assert text.endswith('1 task failed: 1 ended without success\n')
        [first] = user.jobs('failed', '--json').objects
        assert (first['task'], first['command'], first['cause'], first['status']) == (1, 'echo 1', 'exit', 3)
        causes = [(each['attempt'], each['host'], each['cause']) for each in first['attempts']]
        assert causes == [(1, 'h1', 'lost'), (2, 'h1', 'exit')]
        assert first['attempts'][1]['tail'] == f'last words\n{HOSTILE}'

    def test_none(self, user: User) -> None:
        user.done()
        assert user.jobs('failed').stdout == 'no task failed\n'
        assert user.jobs('failed', '--json').stdout == ''


class TestExport:
    @staticmethod
    def sweep(user: User) -> None:
        place = user.job(0, 'latency', kind='sweep')
        rows = [{'rate': 1, 'task': 'a'}, {'rate': 2.5, 'task': 'quo"te,\nx\udcff'}, {'rate': None, 'task': ''}]
        with Journal.open(place.folder) as journal:
            journal.add((n, Task(f'./c {n}', row, results={'out': 'stdout'})) for n, row in enumerate(rows))
            journal.write(Turn(ordered=[(n, 1, 'h1', 1.0) for n in range(2)]))
            facts = [
                (ended(0, results={'out': 'ü\n'.encode(), 'rate': b'x' * 50_000}), True),
                (ended(1, results={'out': b'\xff\0'}), True),
            ]
            journal.write(Turn(ended=facts, settled=[(n, 1, Outcome()) for n in range(2)]))

    def test_json_lines(self, user: User) -> None:
        self.sweep(user)
        for words in (['jsonl'], ['jsonl', 'latency', '--json']):
            first, second, third = user.jobs('export', *words).objects
            assert first == {
                'task': 0, 'outcome': 'ok', 'status': None, 'attempt': 1, 'host': 'h1', 'seconds': 0.5,
                'command': './c 0', 'parameters': {'rate': 1, 'task': 'a'},
                'results': {'out': 'ü\n', 'rate': 'x' * 50_000},
            }  # fmt: skip
            assert base64.b64decode(second['results']['out']['base64']) == b'\xff\0'
            assert (third['outcome'], third['attempt'], third['results']) == (None, None, {})

    def test_csv(self, user: User) -> None:
        self.sweep(user)
        rows = list(csv.reader(io.StringIO(user.jobs('export', 'csv').stdout, newline='')))
        assert rows[0] == [
            'task', 'outcome', 'status', 'attempt', 'host', 'seconds', 'rate', 'parameter.task', 'out', 'result.rate',
        ]  # fmt: skip
        assert rows[1] == ['0', 'ok', '', '1', 'h1', '0.5', '1', 'a', 'ü\n', 'x' * 50_000]
        assert rows[2] == ['1', 'ok', '', '1', 'h1', '0.5', '2.5', 'quo"te,\nx\\udcff', '\\xff\0', '']
        assert rows[3] == ['2', '', '', '', '', '', '', '', '', '']

    def test_failures(self, user: User) -> None:
        failing(user)
        rows = list(csv.DictReader(io.StringIO(user.jobs('export', 'csv').stdout)))
        assert [row['outcome'] for row in rows] == ['ok', 'exit', 'cancelled']
        assert [row['status'] for row in rows] == ['', '3', '']

    def test_what_makes_no_sense(self, user: User) -> None:
        user.done()
        assert 'a format is missing' in user.jobs('export', status=2).stderr
        assert "'xml' is no format" in user.jobs('export', 'xml', status=2).stderr
        assert 'exclude each other' in user.jobs('export', 'csv', '--json', status=2).stderr

    def test_who_reads_may_have_enough(self, user: User) -> None:
        place = user.done(20_000)
        code = f'{sys.executable} -m remote_runner jobs export jsonl {place.id} | head -1; echo "${{PIPESTATUS[0]}}"'
        env = environment(user.home)
        done = subprocess.run(['bash', '-c', code], env=env, capture_output=True, text=True, timeout=60)
        first, status = done.stdout.splitlines()
        assert json.loads(first)['task'] == 0
        assert (status, done.stderr) == ('0', '')


class TestClean:
    def test_what_is_over(self, user: User) -> None:
        good, left, bad = user.done(), user.job(), failing(user)
        assert (good.folder / 'results').is_dir()
        assert 'nobody to confirm' in user.jobs('clean', status=2).stderr
        table = user.jobs('clean', '--older', '1h', '--yes').stdout
        assert table == 'nothing to remove\n'
        removed = user.jobs('clean', '--yes', '--json').objects
        assert {each['id'] for each in removed} == {good.id, bad.id}
        assert all(each['size'] > 0 for each in removed)
        assert [place.id for place in places.places()] == [left.id]
        assert [path.name for path in places.jobs_folder().iterdir()] == [left.id]
        assert '1 job' in user.jobs('clean', left.id, '--yes').stdout
        assert places.places() == []

    def test_only_what_is_old(self, user: User) -> None:
        old, new = user.done(), user.done()
        for path in old.folder.glob('journal.db*'):
            os.utime(path, (1e9, 1e9))
        assert [each['id'] for each in user.jobs('clean', '--older', '30d', '-y', '--json').objects] == [old.id]
        assert places.places() == [new]
        for age in ('30', '1y', '-1d', ''):
            assert 'is no age' in user.jobs('clean', f'--older={age}', status=2).stderr

    def test_never_one_that_runs(self, user: User) -> None:
        place, other = user.job(50), user.done()
        with Journal.open(place.folder) as journal:
            journal.note(ended=1.0)
            succeed(journal, *range(50))
            done = user.jobs('clean', other.id, place.id, '--yes', status=1)
            assert f'{place.id} is running (pid {os.getpid()}' in done.stderr
            assert len(places.places()) == 2, 'all or nothing of what was named'
            removed = user.jobs('clean', '--yes', '--json').objects
            assert [each['id'] for each in removed] == [other.id]
            assert journal.load().done == 50

    def test_asked_at_a_terminal(self, user: User) -> None:
        place = user.done()
        for answer, status in (('no', 1), ('yes', 0)):
            words = ['-m', 'remote_runner', 'jobs', 'clean', place.id[:15]]
            env = environment(user.home)
            child = pexpect.spawn(sys.executable, words, env=env, encoding='utf-8', timeout=60)
            child.expect(r'Remove 1 job \([\d.]+ kB\) with all results\? \[yes/no\] ')
            child.sendline(answer)
            child.expect(pexpect.EOF)
            child.close()
            assert child.exitstatus == status
            assert len(places.places()) == status
