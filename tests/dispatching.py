"""A dispatcher, and the engine that talks to it, without a master: attempts go in, facts come out.

    def test_it(job: Job) -> None:
        assert job.run('echo hello').results == {'stdout': b'hello\n'}
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any, TypeVar

from remote_runner.hosts.address import parse_address
from remote_runner.hosts.host import Host
from remote_runner.hosts.local import LocalConnection
from remote_runner.hosts.pool import Opens
from remote_runner.jobs.engines.base import Attempt, Ended, Fact, HostUp, Key
from remote_runner.jobs.engines.link import PROTOCOL, Terms
from remote_runner.jobs.engines.ssh import SshEngine, nothing
from remote_runner.jobs.task import Task
from remote_runner.wire import frames
from tests.testbed.process import await_stop, wait_until

#: Seconds that anything here may take, never what it should take.
PATIENCE = 60.0
LOCALHOST = 'localhost'

Kind = TypeVar('Kind')


class Job:
    """A job whose master is the test.

    Args:
        folder: where files of results come to.
        address: of its host, with slots.
        connector: makes connections, for hosts other than this machine.
        prepare: see `SshEngine`.
        terms: what dispatchers are told beside its id.
    """

    def __init__(
        self,
        folder: Path,
        address: str = '2/localhost',
        connector: Opens | None = None,
        prepare: Callable[[Host], str | None] = nothing,
        **terms: Any,
    ) -> None:
        self.id = secrets.token_hex(8)
        self.address = parse_address(address)
        self.host = self.address.where
        self.facts: list[Fact] = []
        self._connector = connector
        self._prepare = prepare
        self._folder = folder
        self._terms = {'epoch': 1, 'lease': 30.0, 'on_lost': 'kill', 'keep': 'none', 'environment': {}, **terms}
        self._number = 0
        self._seen: set[Key] = set()
        self.connect()

    def connect(self, **terms: Any) -> None:
        """A master begins, or another one after it."""
        self._terms.update(terms)
        incoming = self._folder / secrets.token_hex(4)
        incoming.mkdir()
        self.engine = SshEngine(
            [self.address], self._connector, Terms(self.id, incoming=incoming, **self._terms), self._prepare
        )
        self.engine.open()

    def up(self) -> HostUp:
        """Wait for the host."""
        return self.next(HostUp)

    def next(self, kind: type[Kind], where: Callable[[Kind], bool] = lambda fact: True) -> Kind:
        """The next fact of a kind; those before it stay."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for number, fact in enumerate(self.facts):
                if isinstance(fact, kind) and where(fact):
                    del self.facts[number]
                    return fact
            assert time.monotonic() < deadline, f'no {kind.__name__} came, but {self.facts}'
            self.facts += self.engine.poll(1.0)

    def start(self, command: str, timeout: float | None = None, **task: Any) -> Key:
        """Give the host one attempt at a new task."""
        number, self._number = self._number, self._number + 1
        self.engine.submit([Attempt(number, 1, self.host, Task(command, **task), number + 1000, timeout)])
        return number, 1

    def end_of(self, key: Key, *, take: bool = True) -> Ended:
        """Wait for the end of an attempt, which is told once."""
        ended = self.next(Ended, lambda fact: (fact.number, fact.attempt) == key)
        if take:
            assert key not in self._seen, 'it was told again after it was taken'
            self._seen.add(key)
            self.take(key)
        return ended

    def take(self, *keys: Key, keep: bool = False) -> None:
        """The hosts may forget these."""
        self.engine.taken([(self.host, key, keep) for key in keys])

    def run(self, command: str, timeout: float | None = None, **task: Any) -> Ended:
        """One task, to its end."""
        return self.end_of(self.start(command, timeout, **task))


@contextmanager
def job_of(home: Path, end: str = 'drain') -> Iterator[Job]:
    """A job on this machine, where that is our home, which leaves nothing behind; at last its engine is closed so."""
    job = Job(home.parent)
    job.up()
    yield job
    job.engine.close(end)
    nobody_is_behind(job)
    assert not work_folder(home, job).exists(), sorted(work_folder(home, job).rglob('*'))


def content(result: bytes | Path) -> bytes:
    """What a result holds."""
    return result.read_bytes() if isinstance(result, Path) else result


def work_folder(home: Path, job: Job) -> Path:
    """Where a job has its folders on this machine."""
    return home / '.local' / 'state' / 'remote_runner' / 'work' / os.uname().nodename / job.id


def socket_of(job: Job) -> Path:
    return _socket(job.id)


def _socket(job: str) -> Path:
    return Path(f'/tmp/remote_runner-{os.getuid()}') / f'tasks-{job}'


def own_processes() -> Iterator[tuple[int, bytes]]:
    """All processes of this machine that can be seen, with their command lines; no zombies."""
    for folder in Path('/proc').iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / 'cmdline').read_bytes()
            except OSError:
                continue
            if line:
                yield int(folder.name), line


def agents_of_ours() -> list[int]:
    """The agents of this machine that this test has."""
    return [pid for pid, line in own_processes() if b'\0-ISc\0import sys;print(' in line and _is_ours(pid)]


def _is_ours(pid: int) -> bool:
    try:
        parent = parent_of(pid)
        return os.getpid() in (parent, parent_of(parent))
    except (FileNotFoundError, ProcessLookupError):  # of another test, and gone
        return False


def behind(job: Job) -> tuple[int, int]:
    """The pids of the guard and the dispatcher of a job on this machine."""
    wait_until(lambda: len(processes_behind(job.id)) == 2, 'two processes behind the job')
    first, second = processes_behind(job.id)
    return (first, second) if parent_of(second) == first else (second, first)


def processes_behind(job: str) -> list[int]:
    """The pids of all that stands behind a job on this machine, by its id."""
    word = b'\0' + os.fsencode(_socket(job)) + b'\0'
    return [pid for pid, line in own_processes() if b'dispatcher.py' in line and word in line]


def nobody_is_behind(job: Job) -> None:
    """Wait until a job has no processes of ours any more on this machine."""
    wait_until(lambda: not processes_behind(job.id), 'the dispatcher to end')


def parent_of(pid: int) -> int:
    return int(Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1])


def is_alive(pid: int) -> bool:
    """Whether it is there, and no zombie."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] not in ('Z', 'X')
    except OSError:
        return False


def pid_in(path: Path) -> int:
    """The pid that a task writes there; waits for it."""
    wait_until(lambda: path.exists() and path.read_text().endswith('\n'), f'a pid in {path}')
    return int(path.read_text())


def gone(pid: int) -> None:
    wait_until(lambda: not is_alive(pid), f'process {pid} to end')


class HungUp(Exception):
    """The dispatcher has hung up without saying what was waited for."""


class Raw:
    """A master that says what the test wants, word for word.

    Args:
        host: by way of its agent.
        job: an id.
        hello: what is said first, beside what must be.
    """

    def __init__(self, host: Host, job: str, **hello: Any) -> None:
        self._messages: Queue[tuple[dict[str, Any], bytes] | None] = Queue()
        self._decoder = frames.Decoder()
        self._call = host.call('dispatch', job=job, on_part=self._take, on_end=lambda: self._messages.put(None))
        self.greet(**hello)

    def greet(self, **hello: Any) -> None:
        """Say who it is."""
        first: dict[str, Any] = {'protocol': PROTOCOL, 'epoch': 1, 'lease': 30.0, 'on_lost': 'kill', 'keep': 'none'}
        first.update(environment={}, host=LOCALHOST, slots=1, links={})
        self.say({'hello': {**first, **hello}})

    def _take(self, part: object, body: bytes) -> None:
        for message in self._decoder.feed(body):
            self._messages.put(message)
        if body:  # else it is the first word of all, while `call` has not returned
            self._call.give_credit(len(body))

    def say(self, header: dict[str, Any], body: bytes = b'') -> None:
        self._call.send(0, frames.encode(header, body), PATIENCE)

    def hear(self, what: str) -> Any:
        """What comes next under this name; what comes before it is forgotten."""
        while True:
            message = self._messages.get(timeout=PATIENCE)
            if message is None:
                raise HungUp(what)
            if what in message[0]:
                return message[0][what]

    def ends(self) -> None:
        """Wait until the dispatcher has hung up."""
        while self._messages.get(timeout=PATIENCE) is not None:
            continue


@contextmanager
def local_host() -> Iterator[Host]:
    with Host(LOCALHOST, LocalConnection(), lambda host, header: None) as host:
        yield host


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing for a while."""
    os.kill(pid, signal.SIGSTOP)
    await_stop(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
