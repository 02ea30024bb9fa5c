"""The hosts of a run: connecting to all of them before anything is changed, and which component runs on which."""

from __future__ import annotations

import logging
import time

from remote_runner.defaults import LOCALHOST
from remote_runner.deploy.board import Board
from remote_runner.deploy.check import Checker
from remote_runner.deploy.outcome import Outcome, RunOptions
from remote_runner.deploy.plan import Plan
from remote_runner.errors import BootstrapFailed, ConfigFaults, HostError, HostsFailed, RemoteRunnerError
from remote_runner.events import Events, HostConnected, HostConnecting, HostFailed, HostMerged
from remote_runner.hosts.address import Address
from remote_runner.hosts.host import Host
from remote_runner.hosts.pool import Pool

log = logging.getLogger(__name__)


class Reach:
    """Connects to the hosts of a plan, and puts its components on the board.

    Args:
        plan: what is carried out.
        pool: gets the connections.
        board: gets the components.
        options: how the run is carried out.
        outcome: is told which hosts were left out.
        events: hears what happens.
    """

    def __init__(
        self, plan: Plan, pool: Pool, board: Board, options: RunOptions, outcome: Outcome, events: Events
    ) -> None:
        self._plan = plan
        self._pool = pool
        self._board = board
        self._options = options
        self._outcome = outcome
        self._events = events

    def connect(self) -> None:
        """Connect to all hosts; stop here, before anything is changed, if one is out of reach."""
        addresses = {c.address.where: c.address for c in self._plan.components}
        begun = time.monotonic()
        for name in addresses:
            self._events.emit(HostConnecting(host=name))
        failures: dict[str, RemoteRunnerError] = {}
        connected: dict[str, Host] = {}
        for address, outcome in self._pool.connect(addresses.values()):
            name = address.where
            if isinstance(outcome, Host) and outcome.facts.screen is None:
                outcome = BootstrapFailed('screen was not found', host=name, remedy='install the package screen there')
            if isinstance(outcome, Host):
                connected[name] = outcome
                self._events.emit(HostConnected(host=name, seconds=time.monotonic() - begun))
            else:
                failures[name] = outcome
                self._pool.forget(name)
                log.debug('%s failed', name, exc_info=outcome)
                self._events.emit(HostFailed(host=name, error=str(outcome)))
        if failures:
            self._without(failures, len(addresses))
        self._place(connected)

    def _without(self, failures: dict[str, RemoteRunnerError], of: int) -> None:
        """Some of so many hosts cannot be had."""
        may_skip = self._options.skip_unreachable and all(isinstance(e, HostError) for e in failures.values())
        if not may_skip:
            remedy = 'nothing was changed on any host; --skip-unreachable goes on without such hosts'
            raise HostsFailed(list(failures.values()), remedy)
        self._outcome.skipped = {host: error.args[0] for host, error in failures.items()}
        if len(failures) == of:
            raise HostsFailed(list(failures.values()), 'no host is left')

    def _place(self, hosts: dict[str, Host]) -> None:
        """Put the components of these hosts on the board, each under the one connection of its machine."""
        addresses = {c.address.where: c.address for c in self._plan.components if c.address.where in hosts}
        first: dict[str, Address] = {}
        for name in sorted(addresses, key=lambda name: name != LOCALHOST):  # else in the order of the config
            machine = first.setdefault(hosts[name].facts.identity, addresses[name])
            if machine.where != name:
                self._events.emit(HostMerged(host=name, same_as=machine.where))
        placed = [
            (component, first[hosts[component.address.where].facts.identity])
            for component in self._plan.components
            if component.address.where in hosts
        ]
        if len(first) < len(hosts):
            checker = Checker(self._plan.config_dir)
            merged = [component._replace(address=machine) for component, machine in placed]
            checker.check_unique(merged)
            checker.check_targets(merged)
            if checker.faults:
                raise ConfigFaults(checker.report())
        for name in hosts.keys() - {machine.where for machine in first.values()}:
            self._pool.forget(name)
        for component, machine in placed:
            self._board.add(component, machine.where)
