"""The way between a master and a dispatcher: narrow, slow, and cut at every byte."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_runner.hosts import local
from remote_runner.jobs.engines import link
from remote_runner.jobs.engines.base import Attempt, Ended, HostUp, Key
from remote_runner.jobs.policy import Cause
from remote_runner.jobs.task import Task
from tests.commands import LONG
from tests.dispatching import Job, agents_of_ours, content, job_of, socket_of

#: Bytes that a socket on the way holds; Linux doubles it, and has a least.
NARROW = 2048
UP, DOWN = 'up', 'down'
#: Commands of 10 kB with 1 MB of output each.
MANY = 2000 if LONG else 200


@pytest.fixture
def job(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    """A job that is reached by pipes of 4 kB, and again without a pause."""
    monkeypatch.setattr(local, '_PIPE_SIZE', 4096)
    monkeypatch.setattr(link, 'PAUSE', 0.001)
    monkeypatch.setattr(link, 'LONGEST_PAUSE', 0.001)
    with job_of(home) as job:
        yield job


class Relay:
    """Stands between agents and the dispatcher of a job; a context manager.

    Attributes:
        passed: bytes that went each way over the present connection.
        cut: connections that were cut where they should be.
    """

    def __init__(self, job: Job) -> None:
        self._path = socket_of(job)
        self._real = self._path.with_name(self._path.name + '-real')
        self._path.rename(self._real)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self._path))
        self._listening.listen()
        self._lock = threading.Lock()
        self._cuts: list[dict[str, int]] = []
        self._pair: tuple[socket.socket, socket.socket] | None = None
        self.passed = {UP: 0, DOWN: 0}
        self.cut = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._real.rename(self._path)
        self.drop()

    def arm(self, *cuts: dict[str, int]) -> None:
        """Cut the next connections, one after the other: each when so many bytes have gone one of these ways."""
        with self._lock:
            self._cuts = list(cuts)

    def drop(self) -> None:
        """Cut the connection that there is."""
        with self._lock:
            pair = self._pair
        for sock in pair or ():
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    @property
    def is_armed(self) -> bool:
        with self._lock:
            return bool(self._cuts)

    def _serve(self) -> None:
        while True:
            try:
                agent, _ = self._listening.accept()
            except OSError:
                return
            dispatcher = socket.socket(socket.AF_UNIX)
            dispatcher.connect(str(self._real))
            for sock in (agent, dispatcher):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NARROW)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
            with self._lock:
                self._pair = agent, dispatcher
                limits, self.passed = self._cuts[0] if self._cuts else {}, {UP: 0, DOWN: 0}
            ways = [(UP, agent, dispatcher), (DOWN, dispatcher, agent)]
            threads = [threading.Thread(target=self._pass, args=(*way, limits), daemon=True) for way in ways]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            agent.close()
            dispatcher.close()

    def _pass(self, way: str, source: socket.socket, target: socket.socket, limits: dict[str, int]) -> None:
        with suppress(OSError):
            while not self._is_cut(way, limits):
                data = source.recv(min(4096, limits[way] - self.passed[way]) if way in limits else 4096)
                if not data:
                    break
                target.sendall(data)
                self.passed[way] += len(data)
        for sock in (source, target):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _is_cut(self, way: str, limits: dict[str, int]) -> bool:
        if way not in limits or self.passed[way] < limits[way]:
            return False
        with self._lock:
            if self._cuts and self._cuts[0] is limits:  # else the other way was faster
                del self._cuts[0]
                self.cut += 1
        return True


def _through(job: Job) -> Relay:
    """A relay, over which the job has come up again."""
    relay = Relay(job)
    relay.__enter__()
    [agent] = agents_of_ours()
    os.kill(agent, signal.SIGKILL)
    job.up()
    return relay


class Careful:
    """A master as `jobs/master.py` is one: tasks whose attempts are lost are tried again, ends are taken.

    Attributes:
        results: what each task brought.
        counts: how many ends of its attempts counted.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._attempts: dict[int, int] = {}
        self._tasks: dict[int, Task] = {}
        self._live: set[Key] = set()
        self.results: dict[int, bytes] = {}
        self.counts: dict[int, int] = {}

    def start(self, number: int, command: str, **task: object) -> None:
        self._tasks[number] = Task(command, **task)  # type: ignore[arg-type]
        self._again(number)

    def _again(self, number: int) -> None:
        go = self._attempts[number] = self._attempts.get(number, 0) + 1
        self._live.add((number, go))
        self._job.engine.submit([Attempt(number, go, self._job.host, self._tasks[number], number)])

    def go_on(self) -> None:
        """Hear what there is."""
        facts, self._job.facts = self._job.facts, []
        for fact in facts or self._job.engine.poll(10.0):
            if isinstance(fact, HostUp):
                lost = self._live - fact.have
                strange = fact.have - self._live
                self._job.engine.cancel([(fact.host, key) for key in strange])
                self._live -= lost
                for number in sorted({number for number, _ in lost}):
                    self._again(number)
            elif isinstance(fact, Ended):
                self._end(fact)

    def _end(self, fact: Ended) -> None:
        key = fact.number, fact.attempt
        self._job.take(key)
        if key not in self._live:
            return
        self._live.remove(key)
        if fact.outcome.cause is Cause.LOST:
            self._again(fact.number)
            return
        assert fact.outcome.cause is None, fact
        self.counts[fact.number] = self.counts.get(fact.number, 0) + 1
        self.results[fact.number] = content(fact.results['stdout'])

    def finish(self) -> None:
        while self._live:
            self.go_on()


@pytest.mark.timeout(600)
@pytest.mark.parametrize('way', [UP, DOWN])
def test_cut_at_every_byte(job: Job, way: str) -> None:
    """Each task ends once, with the right bytes, wherever the stream was cut."""
    relay = _through(job)
    master = Careful(job)
    uncut = 0
    for limit in range(2000):
        relay.arm({way: limit})
        relay.drop()
        master.start(limit, f'echo {limit}')
        master.finish()
        job.facts += job.engine.poll(0.01)  # what was taken is on its way
        uncut = uncut + 1 if relay.is_armed else 0
        if uncut == 10:
            break
    else:
        pytest.fail('there is no end of it')
    assert limit > 150
    assert master.results == {number: b'%d\n' % number for number in range(limit + 1)}
    assert set(master.counts.values()) == {1}
    relay.__exit__()


@pytest.mark.timeout(600)
@pytest.mark.parametrize('way', [UP, DOWN])
def test_cut_amid_large_things(job: Job, way: str) -> None:
    relay = _through(job)
    master = Careful(job)
    expected = {}
    for number, limit in enumerate([200, 290, 300, 1000, 4096, 40_000, 65_536, 100_000, 262_000, 263_000, 500_000]):
        relay.arm({way: limit})
        relay.drop()
        given = os.urandom(1000) * 300
        master.start(number, 'cat', inputs={'stdin': given})
        expected[number] = given
        master.finish()
    assert master.results == expected
    assert set(master.counts.values()) == {1}
    relay.__exit__()


#: Where a connection is cut, in bytes of either way.
CUTS = st.dictionaries(st.sampled_from([UP, DOWN]), st.integers(0, 800) | st.integers(0, 150_000), min_size=1)
#: Tasks: bytes that go out with each, and of these so many come home.
SIZES = st.integers(0, 300) | st.integers(0, 50_000)


@pytest.mark.timeout(900)
def test_cut_at_random_places(job: Job) -> None:
    """Of some tasks at once, over connections that are cut in both ways, again and again."""
    relay = _through(job)
    master = Careful(job)
    numbers = itertools.count()

    @settings(max_examples=1000 if LONG else 60, database=None)
    @given(cuts=st.lists(CUTS, min_size=1, max_size=6), tasks=st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=5))
    def check(cuts: list[dict[str, int]], tasks: list[tuple[int, int]]) -> None:
        relay.arm(*cuts)
        relay.drop()
        expected = {}
        for out, home in tasks:
            number = next(numbers)
            given = os.urandom(out)
            expected[number] = given[:home]
            master.start(number, f'head -c {home}', inputs={'stdin': given})
        master.finish()
        job.facts += job.engine.poll(0.01)  # what was taken is on its way
        assert {number: master.results[number] for number in expected} == expected
        assert {master.counts[number] for number in expected} == {1}

    check()
    assert relay.cut > 30  # most examples come to their cuts
    relay.arm()
    relay.__exit__()


@pytest.mark.timeout(600 * MANY // 200)
def test_large_commands_against_large_outputs(job: Job) -> None:
    """Each brings 1 MB home while 10 kB go out for the next, through buffers of 4 kB: neither waits for ever."""
    relay = _through(job)
    command = 'head -c 1000000 /dev/zero | tr "\\0" {} #' + 'x' * 10_000
    keys = [job.start(command.format(chr(97 + n % 26))) for n in range(MANY)]
    threading.Event().wait(2.0)  # nobody looks at what comes
    for number, key in enumerate(keys):
        result = job.end_of(key).results['stdout']
        assert content(result) == bytes([97 + number % 26]) * 1_000_000
        assert isinstance(result, Path)
        result.unlink()
    assert relay.passed[DOWN] > MANY * 1_000_000
    relay.__exit__()


def test_inputs_that_are_more_than_one_frame_may_hold(job: Job) -> None:
    from remote_runner.wire import frames

    keys = [job.start('wc -c', inputs={'stdin': bytes(3_000_000)}) for _ in range(5)]
    number = 100
    attempts = [Attempt(number + n, 1, job.host, Task('wc -c', inputs={'stdin': bytes(20 << 20)}), n) for n in range(5)]
    job.engine.submit(attempts)  # 100 MB together
    for key in keys:
        assert job.end_of(key).results == {'stdout': b'3000000\n'}
    for attempt in attempts:
        assert job.end_of((attempt.number, 1)).results == {'stdout': b'%d\n' % (20 << 20)}
    ended = job.run('wc -c', inputs={'stdin': bytes(frames.MAX_BODY + 1)})
    assert ended.outcome.cause is Cause.RESOURCES
    assert f'{frames.MAX_BODY + 1} bytes' in ended.outcome.why
