"""Components over their lives: how often they are started, what their status file says, who stands behind them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from remote_runner.hosts.address import parse_address
from remote_runner.hosts.host import Host
from remote_runner.hosts.pool import connect
from remote_runner.hosts.ssh import Connector, SshOptions
from tests.deploying import Deployment, Json, ancestors
from tests.testbed.process import wait_until


class Lives:
    """A program whose lives can be counted: each writes its pid into a file before it does what the script says."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._path = f'/tmp/lives-{deployment.session}'

    def add(self, name: str, script: str, **attributes: Any) -> None:
        """Add the component; in the script `$life` is the number of the life, from 1."""
        count = f'echo $$ >>{self._path}; life=$(wc -l <{self._path}); echo "life $life";'
        self._deployment.sh(name, f'{count} {script}', **{'start_grace': 0, **attributes})

    @property
    def pids(self) -> list[int]:
        """Those of all lives so far, dead ones too."""
        return [int(line) for line in self._deployment.written(self._path).split()]


@contextmanager
def connected(deployment: Deployment, name: str = 'h1') -> Iterator[Host]:
    """A host that can be asked what commands ask it."""
    options = SshOptions(config_file=str(deployment.bed.ssh_config))
    with Connector(options) as connector, connect(parse_address(name), connector, lambda host, header: None) as host:
        yield host


def status(deployment: Deployment, name: str, host: str = 'h1') -> Json:
    """What the status file of a component says."""
    found: Json = json.loads(deployment.output_log(name, host).with_name('status.json').read_text())
    return found


def becomes(deployment: Deployment, name: str, state: str) -> Json:
    """Wait until the status file says so."""
    wait_until(lambda: status(deployment, name)['state'] == state, f'{name} to be {state}')
    return status(deployment, name)


def launcher_of(deployment: Deployment, pid: int) -> tuple[int, int]:
    """The pids of the keeper and the guard of a program."""
    keeper, guard, *_ = ancestors(deployment.host(), pid)
    return keeper.pid, guard.pid
