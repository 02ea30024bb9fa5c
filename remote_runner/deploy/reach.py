"""The hosts of a run: connecting to all of them before anything is changed, and which component runs on which."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from remote_runner.defaults import LOCALHOST
from remote_runner.deploy.board import Board
from remote_runner.deploy.check import Checker
from remote_runner.deploy.outcome import Outcome, RunOptions
from remote_runner.deploy.plan import Plan
from remote_runner.errors import BootstrapFailed, ConfigFaults, HostError, HostsFailed, RemoteRunnerError
from remote_runner.events import (
    ComponentPlaced,
    Events,
    HostConnected,
    HostConnecting,
    HostFailed,
    HostMerged,
    HostReleased,
)
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

    Attributes:
        left: of hosts that are connected although no component is there, those that the last run may have left there.
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
        self.left: Mapping[str, list[str]] = {}

    def connect(self) -> Plan:
        """Connect to all hosts, and decide where components run of which that is not said; what is carried out then.

        Stop here, before anything is changed, if a host is out of reach that is needed, or a component has none.
        """
        outset = self._options.outset
        connected, failures = self._connect_all(outset.addresses if outset else self._plan.addresses())
        needed = set(self._plan.hosts_needed())
        missing = {name: error for name, error in failures.items() if name in needed}
        if missing:
            self._without(missing, len(needed) + len(self._plan.undecided()))
        if self._plan.undecided():
            self._plan = self._decide(connected, failures)
        used = {component.address.where for component in self._plan.components}
        self._place({name: host for name, host in connected.items() if name in used})
        return self._plan

    def _connect_all(self, addresses: Sequence[Address]) -> tuple[dict[str, Host], dict[str, RemoteRunnerError]]:
        """The hosts that could be connected to, and why others could not."""
        begun = time.monotonic()
        for address in addresses:
            self._events.emit(HostConnecting(host=address.where))
        failures: dict[str, RemoteRunnerError] = {}
        connected: dict[str, Host] = {}
        for address, outcome in self._pool.connect(addresses):
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
        return connected, failures

    def _decide(self, hosts: dict[str, Host], failures: dict[str, RemoteRunnerError]) -> Plan:
        """Decide where the components run of which that is not said, and let go of the hosts that have none.

        Further hosts that have to be connected to for that are added to `hosts` and `failures`.
        """
        from remote_runner.deploy.loads import Connected, decide_now  # late: most runs have nothing to decide

        def connect(addresses: Sequence[Address]) -> Connected:
            more, failed = self._connect_all(addresses)
            hosts.update(more)
            failures.update(failed)
            return more, failed

        decided = decide_now(self._plan, (dict(hosts), failures), connect, self._options)
        for name, why in decided.untried.items():
            self._events.emit(HostFailed(host=name, error=f'{name}: {why}'))
        for choice in decided.choices:
            self._events.emit(
                ComponentPlaced(
                    component=choice.component.name,
                    host=choice.address.where,
                    index=choice.component.start_index,
                    among=choice.component.host,
                    load=round(choice.load, 3),
                    score=round(choice.score, 3),
                    kept=choice.kept,
                    why=choice.why,
                )
            )
        used = {component.address.where for component in decided.plan.components}
        for name in hosts:
            if name in decided.left:
                log.info('%s: what the last run left there is ended', name)
            elif name not in used:
                self._forget(name)
                self._events.emit(HostReleased(host=name))
        for name in self._plan.before:
            if name in failures:
                log.warning('%s: what the last run started there may run on', name)
        self.left = decided.left
        return decided.plan

    def let_go(self) -> None:
        """What was left on hosts without components has been ended."""
        for name in self.left:
            self._forget(name)

    def _forget(self, name: str) -> None:
        """Nobody waits for this host, nor for its coming back where it was lost."""
        self._pool.forget(name)
        self._board.lost.pop(name, None)

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
