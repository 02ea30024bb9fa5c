"""A master, an agent, a dispatcher or its guard is gone, silent or too late: what becomes of the tasks."""

from __future__ import annotations

import os
import secrets
import select
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_runner.agent.job import FIRST_LEASE
from remote_runner.jobs.engines import link
from remote_runner.jobs.engines.base import Ended, HostDown, HostSilent, HostUp, Started
from remote_runner.jobs.engines.link import PROTOCOL
from remote_runner.jobs.policy import Cause
from tests.dispatching import (
    HungUp,
    Job,
    Raw,
    agents_of_ours,
    behind,
    content,
    gone,
    is_alive,
    job_of,
    local_host,
    nobody_is_behind,
    pid_in,
    processes_behind,
    socket_of,
    stopped,
    work_folder,
)
from tests.testbed.process import await_stop, wait_until

#: A task that says who it is and goes on for ever, with a child that wants to stay.
ENDLESS = "(trap '' TERM; echo $$ >'{0}.pid'; while :; do sleep 1; done) & wait"


@pytest.fixture
def job(home: Path) -> Iterator[Job]:
    with job_of(home, 'kill') as job:
        yield job


# ---- killed ----------------------------------------------------------------------------------------------------


def test_the_dispatcher_is_killed(job: Job, tmp_path: Path) -> None:
    """All tasks end with it; what was over is told by the next one, and what was not is not among what that has."""
    over = job.start('echo over; head -c 100000 /dev/zero')
    ended = job.end_of(over, take=False)
    endless = job.start(ENDLESS.format(tmp_path / 'first'))
    pid = pid_in(tmp_path / 'first.pid')
    guard, dispatcher = behind(job)
    os.kill(dispatcher, signal.SIGKILL)
    gone(pid)
    gone(guard)
    job.next(HostSilent)
    assert job.up().have == {over}
    again = job.end_of(over)
    assert content(again.results['stdout']) == content(ended.results['stdout']) == b'over\n' + bytes(100_000)
    assert abs(again.seconds - ended.seconds) < 0.001
    assert abs(again.began - ended.began) < 5
    assert job.run('ls -A ..').outcome.cause is None
    assert endless not in [(fact.number, fact.attempt) for fact in job.facts if isinstance(fact, Ended)]


def test_the_guard_is_killed(job: Job, tmp_path: Path) -> None:
    """The dispatcher ends all, and itself, and the master hears of that at once."""
    job.start(ENDLESS.format(tmp_path / 'first'))
    pid = pid_in(tmp_path / 'first.pid')
    guard, dispatcher = behind(job)
    os.kill(guard, signal.SIGKILL)
    job.next(HostSilent)
    assert job.up().have == frozenset()
    assert not is_alive(pid)
    assert not is_alive(dispatcher)
    assert job.run('echo on').results == {'stdout': b'on\n'}


def test_the_guard_is_killed_while_no_master_is_there(job: Job, tmp_path: Path) -> None:
    job.start(ENDLESS.format(tmp_path / 'first'))
    pid = pid_in(tmp_path / 'first.pid')
    job.engine.close('detach')
    guard, dispatcher = behind(job)
    os.kill(guard, signal.SIGKILL)
    gone(pid)
    gone(dispatcher)
    assert not socket_of(job).exists()
    job.connect(epoch=2)
    assert job.up().have == frozenset()


def test_both_are_killed(job: Job, tmp_path: Path) -> None:
    """Tasks go on, for nobody is there to end them; the next dispatcher does before it begins anything."""
    job.start(ENDLESS.format(tmp_path / 'first'))
    pid = pid_in(tmp_path / 'first.pid')
    guard, dispatcher = behind(job)
    os.kill(guard, signal.SIGSTOP)
    await_stop(guard)
    os.kill(dispatcher, signal.SIGKILL)
    os.kill(guard, signal.SIGKILL)
    job.next(HostSilent)
    assert job.up().have == frozenset()
    assert job.run('ls -A ../ | wc -l').results == {'stdout': b'5\n'}  # lock, log, its folder, stdout and stderr
    gone(pid)


def test_the_agent_is_killed(job: Job, tmp_path: Path) -> None:
    """What runs goes on, and the next connection adopts it."""
    go = tmp_path / 'go'
    running = job.start(f"echo begun; while ! test -e '{go}'; do sleep 0.02; done; echo ended")
    queued = [job.start(f"while ! test -e '{go}'; do sleep 0.02; done; echo {number}") for number in range(3)]
    job.next(Started)
    processes = behind(job)
    [agent] = agents_of_ours()
    os.kill(agent, signal.SIGKILL)
    job.next(HostSilent)
    assert job.up().have == {running, *queued}
    assert behind(job) == processes
    go.touch()
    assert job.end_of(running).results == {'stdout': b'begun\nended\n'}
    for number, key in enumerate(queued):
        assert job.end_of(key).results == {'stdout': b'%d\n' % number}
    assert not [fact for fact in job.facts if isinstance(fact, Ended)]


def test_what_was_not_taken_is_told_again_and_what_was_told_before_stays_whole(job: Job) -> None:
    """The files of both are whole, although the first was not looked at before the second came."""
    key = job.start('head -c 3000000 /dev/zero; echo end')
    first = job.end_of(key, take=False)
    [agent] = agents_of_ours()
    os.kill(agent, signal.SIGKILL)
    job.next(HostSilent)
    job.up()
    second = job.end_of(key)
    for ended in (first, second):
        assert content(ended.results['stdout']) == bytes(3_000_000) + b'end\n'


def test_a_host_that_gets_nothing_to_do_stays(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, 'WELCOME', 1.0)
    job = Job(tmp_path, lease=2.0)
    job.up()
    assert job.engine.poll(6.0) == []
    assert job.run('echo fine').results == {'stdout': b'fine\n'}
    job.engine.close('drain')
    nobody_is_behind(job)


# ---- leases ----------------------------------------------------------------------------------------------------


def _leave(job: Job) -> None:
    """The master is gone without a word, and comes no more."""
    job.engine.connecting = threading.Lock()
    job.engine.connecting.acquire()
    [agent] = agents_of_ours()
    os.kill(agent, signal.SIGKILL)


def test_after_the_lease_all_ends_and_nothing_is_left(home: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, lease=1.0)
    job.up()
    job.start(ENDLESS.format(tmp_path / 'first'))
    pid = pid_in(tmp_path / 'first.pid')
    _leave(job)
    nobody_is_behind(job)
    assert not is_alive(pid)
    assert not work_folder(home, job).exists(), sorted(work_folder(home, job).rglob('*'))


def test_after_the_lease_results_stay_for_the_next_master(home: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, lease=1.0)
    job.up()
    over = job.start('echo over')
    job.end_of(over, take=False)
    job.start(ENDLESS.format(tmp_path / 'first'))
    pid_in(tmp_path / 'first.pid')
    _leave(job)
    nobody_is_behind(job)
    job.connect(epoch=2)
    assert job.up().have == {over}
    assert job.end_of(over).results == {'stdout': b'over\n'}
    job.engine.close('drain')
    nobody_is_behind(job)
    assert not work_folder(home, job).exists()


def test_with_finish_all_goes_on_to_the_end(home: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, '1/localhost', lease=0.5, on_lost='finish')
    job.up()
    keys = [job.start(f'sleep 0.5; echo {number}; head -c 50000 /dev/zero') for number in range(4)]
    started = job.next(Started)
    _leave(job)
    nobody_is_behind(job)
    job.connect(epoch=2)
    assert job.up().have == set(keys)
    for number, key in enumerate(keys):
        assert content(job.end_of(key).results['stdout']) == b'%d\n' % number + bytes(50_000)
    job.engine.close('drain')
    nobody_is_behind(job)
    assert started.number == keys[0][0]


def test_a_dispatcher_that_was_stopped_past_its_lease(home: Path, tmp_path: Path) -> None:
    """When it goes on it ends its tasks, and the next connection finds none of them."""
    job = Job(tmp_path, lease=1.0)
    job.up()
    key = job.start(ENDLESS.format(tmp_path / 'first'))
    pid = pid_in(tmp_path / 'first.pid')
    _, dispatcher = behind(job)
    with stopped(dispatcher):
        job.next(HostSilent)
        job.next(HostDown)
    up = job.up()
    assert up.have <= {key}  # it may have heard the old master's last words first, or not
    job.engine.cancel([(job.host, each) for each in up.have])
    gone(pid)
    assert job.run('echo on').results == {'stdout': b'on\n'}
    job.engine.close('drain')
    nobody_is_behind(job)
    assert not work_folder(home, job).exists()


def test_a_master_that_says_nothing_over_an_open_connection(home: Path, tmp_path: Path) -> None:
    with local_host() as host:
        master = Raw(host, 'silent', lease=1.0)
        master.hear('welcome')
        master.say({'start': [[0, 1, 0, ENDLESS.format(tmp_path / 'first'), 0, None, []]]})
        pid = pid_in(tmp_path / 'first.pid')
        master.ends()
        gone(pid)


def test_large_frames_that_come_slowly_are_signs_of_life(home: Path, tmp_path: Path) -> None:
    from remote_runner.wire import frames

    with local_host() as host:
        master = Raw(host, 'slow', lease=4.0)
        master.hear('welcome')
        data = frames.encode({'start': [[0, 1, 0, 'wc -c', 0, None, [['stdin', 40_000]]]]}, bytes(40_000))
        clock = select.poll()
        for start in range(0, len(data), 3500):
            master._call.send(0, data[start : start + 3500])
            clock.poll(500)
        assert master.hear('ended')[0][3] is None
        master.say({'close': 'kill'})
        master.ends()


# ---- several masters -------------------------------------------------------------------------------------------


def test_a_later_master_takes_over_and_the_first_is_told(home: Path, tmp_path: Path) -> None:
    with local_host() as one, local_host() as two:
        first = Raw(one, 'two', epoch=4)
        pid = first.hear('welcome')['pid']
        first.say({'start': [[7, 1, 0, 'read x; echo $x', 0, None, []], [8, 1, 1, 'exec sleep 1000', 0, None, []]]})
        first.hear('ended')
        second = Raw(two, 'two', epoch=5)
        welcome = second.hear('welcome')
        assert (welcome['pid'], welcome['have']) == (pid, [[7, 1], [8, 1]])
        assert first.hear('refused') == 'another master has taken its place'
        first.ends()
        assert second.hear('ended')[0][:2] == [7, 1]
        stale = Raw(one, 'two', epoch=4)
        assert stale.hear('refused') == 'another master has taken its place'
        stale.say({'cancel': [[8, 1]], 'close': 'kill'})  # not its to say
        second.say({'beat': 1})
        assert second.hear('beat') == 1
        second.say({'close': 'kill'})
        second.ends()


def test_another_protocol_is_refused(home: Path) -> None:
    with local_host() as one, local_host() as two:
        first = Raw(one, 'protocol')
        first.hear('welcome')
        other = Raw(two, 'protocol', epoch=9, protocol=PROTOCOL + 1)
        assert 'another version' in other.hear('refused')
        first.say({'close': 'drain'})
        first.ends()


def test_a_refused_engine_gives_the_host_up(home: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, epoch=1)
    with local_host() as host:
        job.up()
        later = Raw(host, job.id, epoch=2)
        later.hear('welcome')
        down = job.next(HostDown)
        assert down.is_final
        assert 'another master has taken its place' in down.why
        later.say({'close': 'kill'})
        later.ends()
    job.engine.close('detach')


def test_who_hangs_up_at_once_does_no_harm(home: Path, tmp_path: Path) -> None:
    """Also a stale master that does not wait for its answer."""
    with local_host() as host:
        master = Raw(host, 'rude', epoch=3)
        pid = master.hear('welcome')['pid']
        for number in range(30):
            with local_host() as other:
                Raw(other, 'rude', epoch=1 if number % 2 else 2)
        with local_host() as other:
            broken = Raw(other, 'rude')
            broken.say({'hello': {'protocol': PROTOCOL, 'epoch': 3}})
            broken.ends()
        master = Raw(host, 'rude', epoch=3)
        assert master.hear('welcome')['pid'] == pid
        master.say({'close': 'kill'})
        master.ends()


def test_who_goes_without_a_word_leaves_nobody_waiting(home: Path, tmp_path: Path) -> None:
    """A master that is killed before it has said who it is, and so for how long it may be silent."""
    job = secrets.token_hex(8)
    with local_host() as host:
        is_there = threading.Event()
        host.call('dispatch', job=job, on_part=lambda part, body: is_there.set())
        assert is_there.wait(30)
        assert processes_behind(job)
        [agent] = agents_of_ours()
        os.kill(agent, signal.SIGKILL)
    wait_until(lambda: not processes_behind(job), 'the dispatcher to end', FIRST_LEASE / 2)
    with local_host() as host:
        master = Raw(host, job)
        assert master.hear('welcome')['have'] == []
        master.say({'close': 'kill'})
        master.ends()


def test_a_stale_master_does_not_keep_the_lease_alive(home: Path, tmp_path: Path) -> None:
    with local_host() as one, local_host() as two:
        master = Raw(one, 'stale', epoch=3, lease=2.0)
        master.hear('welcome')
        stale = Raw(two, 'stale', epoch=2)
        pause = select.poll()
        for _ in range(300):
            try:
                stale.hear('refused')
            except HungUp:
                break
            pause.poll(100)
            stale.say({'beat': 0})
            stale.greet(epoch=2)
        else:
            pytest.fail('it lives on')
        master.ends()


def test_who_comes_while_all_is_being_ended_adopts_nothing(home: Path, tmp_path: Path) -> None:
    with local_host() as one, local_host() as two:
        first = Raw(one, 'late', epoch=1, lease=1.0)
        first.hear('welcome')
        first.say({'start': [[0, 1, 0, ENDLESS.format(tmp_path / 'first'), 0, None, []]]})
        pid = pid_in(tmp_path / 'first.pid')
        first.ends()  # the lease: what does not hear TERM has two seconds from now on
        second = Raw(two, 'late', epoch=2)
        assert second.hear('welcome')['have'] == []
        second.say({'start': [[1, 1, 0, 'echo new', 0, None, []]]})
        assert second.hear('ended')[0][:2] == [1, 1]
        gone(pid)
        second.say({'close': 'kill'})
        second.ends()


def test_it_can_be_told_to_end_all(job: Job, tmp_path: Path) -> None:
    job.start(ENDLESS.format(tmp_path / 'first'))
    pid = pid_in(tmp_path / 'first.pid')
    job.engine.close('kill')
    assert not is_alive(pid)


def test_what_was_kept_is_nobodys_business_any_more(home: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, keep='failed')
    job.up()
    key = job.start('echo why >reason; exit 1')
    job.next(Ended)
    job.take(key, keep=True)
    assert job.run('true').outcome.cause is None
    job.engine.close('drain')
    nobody_is_behind(job)
    folder = work_folder(home, job)
    assert sorted(path.name for path in folder.iterdir()) == ['0.1', '0.1.kept', '0.1.stderr', '0.1.stdout']
    assert (folder / '0.1' / 'reason').read_text() == 'why\n'
    job.connect(epoch=2)
    assert job.up().have == frozenset()
    job.engine.close('drain')
    nobody_is_behind(job)
    assert (folder / '0.1' / 'reason').read_text() == 'why\n'


def test_what_another_dispatcher_left_in_pieces_is_removed(home: Path, tmp_path: Path) -> None:
    """Killed at any moment, or the host lost its power: only what is whole counts."""
    job = Job(tmp_path)
    job.up()
    whole = job.start('echo whole')
    job.end_of(whole, take=False)
    job.engine.close('detach')
    nobody_is_behind(job)
    folder = work_folder(home, job)
    for key in ('5.1', '6.1', '7.2', '8.1'):
        (folder / key).mkdir()
        (folder / key / 'file').write_text('part')
        (folder / f'{key}.stdout').write_text('part')
    (folder / '6.1.json').write_bytes(b'')
    (folder / '7.2.json').write_bytes((folder / '0.1.json').read_bytes()[:40])
    (folder / '8.1.json.4711').write_bytes(b'{}')
    (folder / '9.1.stderr').touch()
    job.connect(epoch=2)
    assert job.up().have == {whole}
    wait_until(lambda: not [path for path in folder.iterdir() if path.name[0] in '56789'], 'the pieces to be gone')
    assert job.end_of(whole).results == {'stdout': b'whole\n'}
    job.engine.close('drain')
    nobody_is_behind(job)
    assert not folder.exists()


def test_masters_that_come_as_it_ends_find_another_one(home: Path, tmp_path: Path) -> None:
    """Each takes the place of one that is just removing its folder."""
    job = Job(tmp_path)
    for number in range(8):
        job.up()
        assert job.run(f'echo {number}').results == {'stdout': b'%d\n' % number}
        job.engine.close('drain')
        job.connect()
    job.up()
    job.engine.close('drain')
    assert not [fact for fact in job.facts if isinstance(fact, HostDown | HostUp)]
    assert Cause.LOST not in [fact.outcome.cause for fact in job.facts if isinstance(fact, Ended)]
