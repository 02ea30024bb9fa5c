"""Batches as users run them: commands in a file, hosts of a bed, and what is left of a batch on both sides."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from remote_runner.jobs.journal import Journal
from remote_runner.jobs.places import JOURNAL
from remote_runner.jobs.reading import AttemptRow
from tests.commands import Done, Running, Site, Word
from tests.testbed import HostProcess, Testbed, TestHost
from tests.testbed.process import wait_until

#: Where dispatchers keep the folders of jobs on a host, and where they listen.
WORK, RUNTIME = '/root/.local/state/remote_runner/work', '/tmp/remote_runner-0'
#: Seconds that anything here may take, never what it should take.
PATIENCE = 100.0
#: What a task does until it may `go` on.
WAIT = 'while [ ! -e /tmp/go ]; do sleep 0.02; done'


class Batches(Site):
    """A site whose user runs batches; what they leave on hosts is removed with it."""

    @property
    def jobs(self) -> list[Path]:
        """The folders of all jobs that were begun, in their order."""
        return sorted(path.parent for path in self.home.glob(f'.local/state/remote_runner/jobs/*/{JOURNAL}'))

    @property
    def job(self) -> Path:
        """That of the only one."""
        [found] = self.jobs
        return found

    def lines(self, lines: Iterable[str], name: str = 'commands') -> Path:
        """A file with these commands."""
        return self.file(name, ''.join(f'{line}\n' for line in lines))

    def arguments_of(self, commands: Word | Iterable[str], hosts: str, options: Sequence[Word]) -> list[Word]:
        path: Word = commands if isinstance(commands, str | Path) else self.lines(commands)
        return ['batch', '-F', self.ssh_config, path, '-H', hosts, *options]

    def batch(
        self, commands: Word | Iterable[str], hosts: str, *options: Word, status: int | None = 0, **more: Any
    ) -> Done:
        """Run a batch to its end: lines, or the name of a file of them."""
        with self.begin_batch(commands, hosts, *options, **more) as running:
            done = running.end(PATIENCE)
        assert status is None or done.status == status, done
        return done

    def begin_batch(self, commands: Word | Iterable[str], hosts: str, *options: Word, **more: Any) -> Running:
        """Begin a batch."""
        return self.start(*self.arguments_of(commands, hosts, options), **more)

    def tell(self, *arguments: Word, status: int | None = 0, **more: Any) -> Done:
        """`remote_runner jobs ARGUMENTS`."""
        with self.start('jobs', *arguments, **more) as running:
            done = running.end(PATIENCE)
        assert status is None or done.status == status, done
        return done

    def resume(self, *arguments: Word, status: int | None = 0, **more: Any) -> Done:
        """`remote_runner jobs resume ARGUMENTS`."""
        return self.tell('resume', '-F', self.ssh_config, *arguments, status=status, **more)

    def together(self, command: str, hosts: str, number: int, *options: Word) -> Done:
        """Run a command so often, all at the same time: on all slots, if there are so many."""
        self.forget()
        lines = [f'{marking(WAIT)}; {command}'] * number
        with self.begin_batch(lines, hosts, '--no-duplicates', *options) as running:
            self.wait_for_marks(number, running)
            self.go()
            done = running.end(PATIENCE)
        assert done.status == 0, done
        return done

    # ---- what hosts say ----------------------------------------------------------------------------------------

    @property
    def up(self) -> list[TestHost]:
        """The hosts of the bed that are on."""
        return [host for host in self.bed.hosts if host.machine.init]

    def marks(self) -> Counter[str]:
        """Which tasks have begun, on all hosts, and how often: see `marking`."""
        found: Counter[str] = Counter()
        for host in self.up:
            path = host.path('/tmp/mark')
            if path.exists():
                found.update(path.read_text().split())
        return found

    def wait_for_marks(self, number: int, running: Running) -> None:
        """Wait until tasks of a batch that runs have written so many."""

        def are_there() -> bool:
            assert running.process.poll() is None, running.err.decode()
            return self.marks().total() >= number

        wait_until(are_there, f'{number} marks', PATIENCE)

    def wait_for_ends(self, number: int) -> None:
        """Wait until so many attempts have ended and count, as the journal of the newest job says."""

        def are_there() -> bool:
            return bool(self.jobs) and sum(each.state == 'counts' for each in self.attempts()) >= number

        wait_until(are_there, f'{number} ends', PATIENCE)

    def forget(self) -> None:
        """Remove marks, and what lets tasks go on."""
        for host in self.up:
            for name in ('go', 'mark'):
                host.path(f'/tmp/{name}').unlink(missing_ok=True)

    def go(self) -> None:
        """Let tasks go on which are `waiting`."""
        for host in self.up:
            host.path('/tmp/go').touch()

    def is_clean(self) -> None:
        """Wait until nothing of any job runs or listens on the hosts."""
        for host in self.up:
            wait_until(lambda host=host: not dispatchers(host), f'the end of the dispatchers on {host.name}', PATIENCE)
            assert not host.path(RUNTIME).exists() or not list(host.path(RUNTIME).glob('tasks-*'))

    def folders(self) -> dict[str, list[str]]:
        """What the newest job has left on hosts, by their names."""
        found = {}
        for host in self.up:
            folder = host.path(f'{WORK}/{host.name}/{self.jobs[-1].name}')
            if folder.exists():
                found[host.name] = sorted(path.name for path in folder.iterdir())
        return found

    def leaves_nothing(self) -> None:
        """Nothing of the newest job runs, listens or lies on the hosts."""
        self.is_clean()
        assert self.folders() == {}, self.folders()

    # ---- what the journal says ---------------------------------------------------------------------------------

    def attempts(self, task: int | None = None) -> list[AttemptRow]:
        """All attempts of the newest job, or those at one of its tasks."""
        with Journal.look(self.jobs[-1]) as reader:
            return list(reader.attempts(task))

    def is_accounted_for(self, *, done: int, failed: int = 0) -> None:
        """The journal of the newest job has one winner a task that succeeded, and the end of each attempt."""
        with Journal.look(self.jobs[-1]) as reader:
            rows, attempts = list(reader.tasks()), list(reader.attempts())
        assert [row.position for row in rows] == list(range(done + failed))
        assert all(row.outcome is not None for row in rows)
        winners = [(row.number, row.attempt) for row in rows if row.outcome is not None and row.outcome.cause is None]
        assert len(winners) == done
        ended = {(each.number, each.attempt): each for each in attempts}
        assert len(ended) == len(attempts)
        assert [key for key, each in ended.items() if each.outcome is None] == []
        counting = [key for key, each in ended.items() if each.state == 'counts' and each.outcome]
        wanted = {row.number for row in rows}
        won = [key for key in counting if key[0] in wanted and ended[key].outcome.cause is None]
        assert sorted(won) == sorted(winners)


@contextmanager
def batches(bed: Testbed, folder: Path) -> Iterator[Batches]:
    """Batches on a bed, whose hosts are as they were afterwards."""
    with Batches(bed, folder) as site:
        try:
            yield site
        finally:
            names = [job.name for job in site.jobs]
    for host in bed.hosts:
        for name in names:
            if host.machine.init and host.path(f'{WORK}/{host.name}/{name}').exists():
                host.run(['rm', '-rf', f'{WORK}/{host.name}/{name}'])


def marking(command: str = ':') -> str:
    """A command that writes down on its host that it was begun: its index."""
    return f'echo $RR_TASK >>/tmp/mark; {command}'


def dispatchers(host: TestHost) -> list[HostProcess]:
    """Guards and dispatchers of all jobs."""
    return [each for each in host.processes() if any('/agent/dispatcher.py' in word for word in each.argv)]


def objects(done: Done) -> dict[int, dict[str, Any]]:
    """What `--format jsonl` wrote, by index."""
    return {one['index']: one for one in done.objects}


def numbers(done: Done) -> dict[str, Any]:
    """What `--json` wrote at the end."""
    [found] = [json.loads(line) for line in done.stderr.splitlines() if line.startswith('{')]
    return dict(found)


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """What `--format framed` wrote, but for a last frame that is cut: index and result."""
    found = []
    while len(data) >= 8:
        index, size = int.from_bytes(data[:4], 'little'), int.from_bytes(data[4:8], 'little')
        if len(data) >= 8 + size:
            found.append((index, data[8 : 8 + size]))
        data = data[8 + size :]
    return found


def sleepers(host: TestHost) -> list[HostProcess]:
    """What tasks of tests run."""
    return [each for each in host.processes() if each.argv[0] == 'sleep']
