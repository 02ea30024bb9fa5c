"""A session that stands, what later commands say of it, and programs by which a loss shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.commands import Done, Running, Site, Word
from tests.deploying import agents, children_of, is_alive, launchers, the_agent
from tests.testbed import HostProcess, Testbed, TestHost
from tests.testbed.process import wait_until

FreshBed = Callable[..., Testbed]
#: Numbers its lines.
COUNTER = """
import itertools, time
for number in itertools.count(1):
    print('line', number, flush=True)
    time.sleep(0.01)
"""


class Standing(Site):
    """A site whose components run, and the commands on them."""

    def start_all(self, *options: str) -> None:
        """Deploy what was added to `deployment`, and wait until the agents that did so are gone."""
        ended = self.deployment.run(*options)
        assert ended.status == 0, ended.stderr
        wait_until(lambda: not any(agents(host) for host in self.bed.hosts), 'the end of the agents that deployed')

    def tell(self, command: str, *arguments: Word, **options: Any) -> Done:
        """A command on the session: `tell('stop', 'broker', status=0)`."""
        return self.run(command, '--screen', self.session, *arguments, **options)

    def begin_to(self, command: str, *arguments: Word, **options: Any) -> Running:
        """Start a command on the session."""
        return self.start(command, '--screen', self.session, *arguments, **options)

    def seen(self, *arguments: Word, status: int | None = None) -> dict[str, dict[str, Any]]:
        """What `status --json` says, by `name@host`."""
        [answer] = self.tell('status', '--json', *arguments, status=status).objects
        return {f'{one["name"]}@{one["host"]}': one for one in answer['components']}

    def numbered(self, name: str, host: str = 'h1', **attributes: Any) -> None:
        """Add a component that numbers its lines."""
        self.deployment.python(name, COUNTER, host, **attributes)

    def until(self, name: str, host: str = 'h1', **attributes: Any) -> None:
        """Add a component that ends when `end` is called."""
        script = f'while [ ! -e /tmp/may-end-{name} ]; do sleep 0.01; done'
        self.deployment.sh(name, script, host, **{'start_grace': 0, **attributes})

    def end(self, name: str, host: str = 'h1') -> None:
        """End what was added by `until`."""
        self.bed[host].path(f'/tmp/may-end-{name}').touch()

    def folder_of(self, name: str, host: str = 'h1') -> Path:
        """The folder of a component on its host."""
        return self.deployment.output_log(name, host).parent

    def state(self, name: str, host: str = 'h1') -> dict[str, Any]:
        """What status.json on the host says."""
        found: dict[str, Any] = json.loads((self.folder_of(name, host) / 'status.json').read_text())
        return found

    def pids(self, host: str = 'h1') -> tuple[int, int]:
        """Guard and keeper of the only component of a host."""
        [guard] = launchers(self.bed[host], self.session)
        [keeper] = children_of(self.bed[host], guard.pid)
        return guard.pid, keeper.pid

    def catches_up(self, follower: Running, name: str = 'counter', host: str = 'h1') -> None:
        """Wait until `logs -f` has shown a line that is yet to be written."""
        goal = numbers(self.deployment.output_log(name, host).read_bytes())[-1] + 1
        wait_until(lambda: goal in numbers(follower.out, f'{name}@{host}'), f'line {goal} of {name}@{host}')


@contextmanager
def standing(bed: Testbed, folder: Path) -> Iterator[Standing]:
    """A site on a bed."""
    with Standing(bed, folder) as site:
        yield site


def is_watched(host: TestHost, count: int = 1) -> None:
    """Wait until so many agents of the host listen to what launchers say."""
    folder = host.path('/tmp/remote_runner-0')
    wait_until(lambda: len(list(folder.glob('agent-*'))) == count, f'{count} agents to listen')


def watching_agent(host: TestHost) -> HostProcess:
    """The only agent of a host, once it listens to what launchers say."""
    agent = the_agent(host)
    wait_until(host.path(f'/tmp/remote_runner-0/agent-{agent.pid}').exists, f'{agent.pid} to listen')
    return agent


def numbers(output: bytes, name: str = '') -> list[int]:
    """The numbers of the lines, as `logs` or `output.log` show them."""
    return [int(number) for number in re.findall(rb'^%b.*?line (\d+)\r?$' % name.encode(), output, re.MULTILINE)]


def is_whole(output: bytes, name: str) -> bool:
    """Whether no number is missing and none is there twice."""
    found = numbers(output, name)
    assert len(found) > 1, output
    assert found == list(range(found[0], found[0] + len(found)))
    return True


def all_gone(host: TestHost, pids: list[int]) -> None:
    """Wait for the end of all of these."""
    wait_until(lambda: not any(is_alive(host, pid) for pid in pids), f'the end of {pids}')
