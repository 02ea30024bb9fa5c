"""A master that runs is told what to do from other terminals, whatever those do and whoever was there before."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from remote_runner.errors import ControlFailed, JobNotRunning, UsageError
from remote_runner.jobs import places
from remote_runner.jobs.control import LINK, Asker, Control, ask
from remote_runner.jobs.holding import FILE, hold
from remote_runner.jobs.journal import Journal, Turn
from remote_runner.jobs.policy import Outcome
from tests.commands import ROOT, Commands, Done, Running
from tests.journals import ended, succeed, tasks
from tests.testbed.process import wait_until

#: A master that says on stdout what it was told; task 9 is none, and `status` with `size` is a long answer.
_MASTER = """
import json, os, signal, sys
from pathlib import Path
from remote_runner.errors import UsageError
from remote_runner.jobs.control import Control
from remote_runner.jobs.journal import Journal

def handler(request):
    os.write(1, json.dumps(request).encode() + b'\\n')
    if request['do'] == 'explain':
        return {'why': 'it waits for a slot\\n\\x1b[31mred'}
    if request['do'] == 'detach-viewers':
        raise UsageError('nobody looks', remedy='attach first')
    return {'long': 'x' * request.get('size', 0)}

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
with Journal.open(Path(sys.argv[1])), Control(Path(sys.argv[1]), handler):
    os.write(1, b'ready\\n')
    signal.sigwait([signal.SIGTERM])
"""


class Site(Commands):
    """Somebody who has a job."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / 'home', folder / 'none')
        self.home.mkdir()
        self.variables = {'XDG_STATE_HOME': os.environ['XDG_STATE_HOME']}
        self.place = places.make()
        with Journal.create(self.place.folder, {}) as journal:
            journal.add(tasks(3))

    @property
    def folder(self) -> Path:
        return self.place.folder

    def master(self) -> Running:
        """A master of the job, that hears."""
        running = Running([sys.executable, '-c', _MASTER, str(self.folder)], cwd=ROOT)
        wait_until(lambda: b'ready\n' in running.out, 'a master')
        return running

    def jobs(self, *words: str, status: int = 0) -> Done:
        return self.run('jobs', *words, status=status)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    state = tmp_path / ('long' * 25) / ('deep' * 25)  # no path of a socket may be so long, unix(7)
    monkeypatch.setenv('XDG_STATE_HOME', str(state))
    site = Site(tmp_path)
    yield site
    link = site.folder / LINK
    if link.is_symlink():
        link.readlink().unlink(missing_ok=True)  # that of one that was killed


def heard(running: Running) -> list[dict[str, object]]:
    return [json.loads(line) for line in running.out.splitlines() if line != b'ready']


def test_a_master_is_told_from_another_process(site: Site) -> None:
    with site.master() as running:
        assert 'is paused: what runs goes on' in site.jobs('pause').stdout
        assert site.jobs('resume', site.place.id).stdout == f'job {site.place.id} goes on\n'
        assert 'is cancelled' in site.jobs('cancel').stdout
        assert heard(running) == [{'do': 'pause'}, {'do': 'resume'}, {'do': 'cancel'}]
        assert (site.folder / LINK).is_symlink()
        at = (site.folder / LINK).readlink()
        assert stat.S_IMODE(at.stat().st_mode) == 0o600
        assert stat.S_IMODE(at.parent.stat().st_mode) == 0o700
        running.signal(signal.SIGTERM)
        assert running.end().status == 0
    assert not (site.folder / LINK).is_symlink()
    assert not at.exists()


@pytest.mark.parametrize('action', ['pause', 'cancel'])
def test_no_master(site: Site, action: str) -> None:
    done = site.jobs(action, status=1)
    assert f'ERROR: job {site.place.id} is not running' in done.stderr
    assert done.stdout == ''
    assert 'there is no job' in site.jobs(action, 'x', status=2).stderr


def test_a_master_that_was_killed_and_another_one(site: Site) -> None:
    for _ in range(2):
        with site.master() as running:
            assert ask(site.folder, {'do': 'status'}) == {'long': ''}
            running.signal(signal.SIGKILL)
            running.end()
        assert (site.folder / LINK).is_symlink()
        with pytest.raises(JobNotRunning, match='is not running'):
            ask(site.folder, {'do': 'status'})


def test_a_master_that_is_stopped_and_goes_on(site: Site) -> None:
    with site.master() as running:
        running.signal(signal.SIGSTOP)
        with pytest.raises(ControlFailed, match=r'pid .* did not answer within 0\.3 s'):
            ask(site.folder, {'do': 'pause'}, timeout=0.3)
        running.signal(signal.SIGCONT)
        assert ask(site.folder, {'do': 'status'}) == {'long': ''}


def test_a_master_that_ends_while_it_is_asked(site: Site) -> None:
    with site.master() as running, Asker(site.folder) as asker:
        assert asker.ask({'do': 'status'}) == {'long': ''}
        running.signal(signal.SIGKILL)
        running.end()
        with pytest.raises(ControlFailed, match=r'is gone|has ended'):
            asker.ask({'do': 'status'})


def test_refusals(site: Site) -> None:
    with site.master():
        with pytest.raises(ControlFailed, match=r'refuses: nobody looks \(attach first\)'):
            ask(site.folder, {'do': 'detach-viewers'})
        with pytest.raises(ControlFailed, match='that is nothing this master can do'):
            ask(site.folder, {'do': 'dance'})


def test_one_that_has_no_socket(site: Site) -> None:
    with Journal.open(site.folder), pytest.raises(ControlFailed, match='cannot be reached: No such file'):
        ask(site.folder, {'do': 'status'})
    assert 'is not running' in site.jobs('pause', status=1).stderr


def test_one_of_another_machine(site: Site) -> None:
    lock = hold(site.folder)
    try:
        (site.folder / FILE).write_text(json.dumps([17, 'elsewhere', 1.0]))
        with pytest.raises(
            JobNotRunning, match=r'not running on this machine: pid 17 on elsewhere \(ask on elsewhere\)'
        ):
            ask(site.folder, {'do': 'status'})
    finally:
        os.close(lock)


def test_a_job_runs_also_where_there_can_be_no_socket(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr('remote_runner.agent.screen.runtime_candidates', lambda: [str(site.folder / 'x' / 'y')])
    with Control(site.folder, lambda request: {}):
        assert not (site.folder / LINK).exists()
    assert f'other terminals cannot reach job {site.place.id}' in caplog.text


class TestAskers:
    def test_many_at_once_with_long_answers(self, site: Site) -> None:
        with site.master() as running:
            with ThreadPoolExecutor(30) as pool:
                sizes = [1 << (number % 20) for number in range(90)]
                asked = pool.map(lambda size: ask(site.folder, {'do': 'status', 'size': size}), sizes)
                assert [len(answer['long']) for answer in asked] == sizes
            assert len(heard(running)) == 90

    def test_several_questions_over_one_connection(self, site: Site) -> None:
        with site.master(), Asker(site.folder) as asker:
            assert [len(asker.ask({'do': 'status', 'size': size})['long']) for size in (5, 0, 70_000)] == [5, 0, 70_000]

    def test_what_is_no_question(self, site: Site) -> None:
        with site.master() as running:
            for line in (b'\n', b'{\n', b'[]\n', b'null\n', b'\xff\n', b'{"do": ["x"]}\n'):
                with self.connected(site) as raw:
                    raw.sendall(line)
                    assert b'"error"' in raw.recv(1000), line
            with self.connected(site) as raw, pytest.raises(OSError, match=r'Broken pipe|reset by peer'):
                raw.sendall(b'x' * 10_000_000)  # a line without an end
            assert heard(running) == []
            assert ask(site.folder, {'do': 'status'}) == {'long': ''}

    def test_who_goes_or_does_not_listen_keeps_nobody_waiting(self, site: Site) -> None:
        with site.master() as running:
            with self.connected(site) as raw:
                raw.sendall(b'{"do": "sta')
            with self.connected(site) as gone:
                gone.sendall(b'{"do": "status", "size": 900000}\n')
            with self.connected(site) as deaf, self.connected(site):
                deaf.sendall(b'{"do": "status", "size": 9000000}\n')
                assert ask(site.folder, {'do': 'status'}, timeout=30) == {'long': ''}
            running.signal(signal.SIGTERM)
            assert running.end().status == 0

    @staticmethod
    def connected(site: Site) -> socket.socket:
        raw = socket.socket(socket.AF_UNIX)
        raw.settimeout(30)
        raw.connect(str((site.folder / LINK).readlink()))
        return raw


class TestExplain:
    def test_a_task_that_waits(self, site: Site) -> None:
        with site.master() as running:
            told = site.jobs('explain', '1').stdout
            assert told.splitlines() == [
                'task 1: not settled',
                'command: echo 1',
                'it waits for a slot',
                '\\x1b[31mred',
            ]
            assert heard(running) == [{'do': 'explain', 'task': 1}]
        assert 'the job is not running' in site.jobs('explain', '1', site.place.id).stdout

    def test_what_became_of_one(self, site: Site) -> None:
        with Journal.open(site.folder) as journal:
            succeed(journal, 0)
            journal.write(Turn(ended=[(ended(0, 2), False)], ordered=[(1, 1, 'h7', 1000.0)]))
            [told] = site.jobs('explain', '0', '--json').objects
            assert [(each['attempt'], each['state']) for each in told['attempts']] == [(1, 'counts'), (2, 'superseded')]
            assert told['cause'] is None
            assert told['explained'] == ''
            text = site.jobs('explain', '0').stdout
            assert 'task 0: ok' in text
            assert text.splitlines()[-1].split()[-2:] == ['ok', 'superseded']
            assert Outcome() == next(journal.tasks(position=0)).outcome

    def test_what_makes_no_sense(self, site: Site) -> None:
        for words, why in (
            (['explain'], 'a task is missing'),
            (['explain', 'x'], "'x' is no task"),
            (['explain', '9' * 30], 'is no task'),
            (['explain', '3'], 'has no task 3'),
            (['explain', '1', 'nosuch'], 'there is no job'),
            (['pause', '--yes'], 'belong to `jobs clean`'),
        ):
            assert why in site.jobs(*words, status=2).stderr
        with pytest.raises(UsageError):
            places.find('nosuch')
