"""Sweeps by the commands, as users run them, and what became of them on the hosts.

    def test_it(study: Study) -> None:
        study.write(adding(command="'echo {n}'"))
        assert study.sweep().status == 0
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from typing import Any

from tests.commands import Done, Running, Site, Word
from tests.testbed import TestHost
from tests.testbed.process import wait_until

Json = dict[str, Any]
#: Where hosts keep the working folders of jobs, and the files that sweeps bring.
WORK = '/root/.local/state/remote_runner/work'
BROUGHT = '/root/.cache/remote_runner/dependencies'


def adding(**attributes: str) -> str:
    """The lines of a config that add a sweep; values are as they are typed. Its results go to `s.txt` by blocks."""
    name = attributes.get('name', "'s'").strip("'")
    usual = {
        'name': repr(name),
        'hosts': "['2/h1', '2/h2']",
        'parameters': 'util.product(n=range(4))',
        'command': "'echo {n}'",
    }
    wanted = {**usual, **attributes}
    typed = ''.join(f'    {attribute}={value},\n' for attribute, value in wanted.items())
    return f'config.add_sweep(Sweep(\n{typed}))\n'


class Study(Site):
    """A config with sweeps. It leaves the hosts without what jobs have brought and kept there."""

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for host in self.bed.hosts:
            if host.machine.init:
                host.run(['rm', '-rf', WORK, BROUGHT])

    def add(self, **attributes: str) -> None:
        """Write a config with this sweep, see `adding`."""
        self.write(adding(**attributes))

    def nothing_sleeps(self) -> None:
        """No task of these tests runs any more, on any host."""
        assert not any(self.deployment.sleepers(host=host.name) for host in self.bed.hosts if host.machine.init)

    def options(self, *arguments: Word) -> list[Word]:
        return ['sweep', '-F', self.ssh_config, self.config, *arguments]

    def begin_sweep(self, *arguments: Word, **options: Any) -> Running:
        """`remote_runner sweep CONFIG ARGUMENTS`, not waited for."""
        return self.start(*self.options(*arguments), **options)

    def sweep(self, *arguments: Word, status: int | None = 0, **options: Any) -> Done:
        """`remote_runner sweep CONFIG ARGUMENTS`."""
        return self.run(*self.options(*arguments), status=status, **options)

    def jobs(self, *arguments: Word, status: int | None = 0) -> Done:
        """`remote_runner jobs ARGUMENTS`."""
        return self.run('jobs', *arguments, status=status)

    def tasks(self, *arguments: Word, status: int | None = 0) -> list[Json]:
        """What the sweep gives out as JSON lines, in the order of its parameter sets."""
        return self.sweep('--format', 'jsonl', '-k', *arguments, status=status).objects

    def numbers(self, *arguments: Word, status: int | None = 0) -> Json:
        """The statistics at the end."""
        return statistics(self.sweep('--json', *arguments, status=status))

    def failed(self, *arguments: Word) -> list[Json]:
        """`jobs failed --json`, by position."""
        return sorted(self.jobs('failed', '--json', *arguments).objects, key=lambda task: int(task['task']))

    def job(self, name: str | None = None) -> Json:
        """What `jobs list` says of the newest job, or of the newest of that name."""
        return next(job for job in self.jobs('list', '--json').objects if name in (None, job['name']))

    def table(self, name: str) -> list[list[str]]:
        """The rows of a table beside the config."""
        with (self.folder / name).open(newline='', encoding='utf-8', errors='surrogateescape') as file:
            return list(csv.reader(file))

    def column(self, name: str, title: str = 'stdout') -> list[str]:
        """A column of a table beside the config."""
        head, *rows = self.table(name)
        return [row[head.index(title)] for row in rows]

    def lines(self, name: str) -> list[str]:
        """The lines of a file beside the config; none, if it is not there."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def wait_for_lines(self, host: TestHost, path: str, count: int) -> list[str]:
        """Wait until a file of a host has so many lines."""
        file = host.path(path)
        wait_until(lambda: file.exists() and len(file.read_text().splitlines()) >= count, f'{count} lines in {path}')
        return file.read_text().splitlines()


def statistics(done: Done) -> Json:
    """What `--json` says on stderr."""
    [line] = [line for line in done.stderr.splitlines() if line.startswith('{')]
    found: Json = json.loads(line)
    return found


def working_folders(host: TestHost) -> list[str]:
    """The working folders of attempts that are kept on a host: `task.attempt`, sorted."""
    return sorted(path.name for path in host.path(WORK).glob('*/*/*.*') if path.is_dir())


def brought(host: TestHost) -> list[str]:
    """What stands on a host of what sweeps brought, without the folders of the sweeps themselves."""
    root = host.path(BROUGHT)
    files = [path for path in root.rglob('*') if not path.is_dir()]
    return sorted('/'.join(path.relative_to(root).parts[1:]) for path in files)


def clear(host: TestHost, *paths: str) -> None:
    """Remove what tests wrote."""
    host.run(['rm', '-rf', *paths])


def hosts_of(tasks: Sequence[Json]) -> set[str]:
    return {task['host'] for task in tasks}
