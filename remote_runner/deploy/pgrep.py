"""Processes of hosts that are found by their command lines, and ended: `remote_runner find` and `killall`.

    with Hunter(connector, fanout) as hunter:
        for outcome in hunter.find('simulator', addresses): ...
        for outcome in hunter.end('TERM', patience=5): ...

What belongs to remote_runner itself, and whatever other users run, is left out by the hosts (`agent/pgrep.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from remote_runner.defaults import FANOUT
from remote_runner.errors import RemoteRunnerError
from remote_runner.hosts.address import Address
from remote_runner.hosts.call import Header
from remote_runner.hosts.host import ANSWER_TIMEOUT, Host
from remote_runner.hosts.pool import Opens, Pool, distinct


class Process(NamedTuple):
    """A process of a host.

    Args:
        pid: its number there.
        started: when it was started, in clock ticks since that host began: pids come again.
        age: seconds since then.
        cpu: seconds of processor time that it has used.
        memory: resident bytes.
        command: its command line.
        outcome: '' nothing was sent to it; `ended`, `left` (it goes on), `sent` (a signal that does not end it), `gone`
            (it had ended before) or `refused`.
    """

    pid: int
    started: int
    age: float
    cpu: float
    memory: int
    command: str
    outcome: str = ''

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = self._asdict()
        del values['started']
        return {name: value for name, value in values.items() if value != ''}


class Found(NamedTuple):
    """What was found on one host.

    Args:
        host: as the user wrote it.
        processes: by their pids.
        ours: how many processes of remote_runner itself have the text in their command lines, too.
    """

    host: str
    processes: tuple[Process, ...]
    ours: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            'host': self.host,
            'processes': [process.to_dict() for process in self.processes],
            'left_out': self.ours,
        }


class Hunter:
    """Connections to hosts whose processes are looked for, and maybe ended; a context manager that closes them.

    Args:
        connector: makes the connections.
        fanout: hosts that are worked on at the same time.
    """

    def __init__(self, connector: Opens, fanout: int = FANOUT) -> None:
        self._connector = connector
        self._fanout = fanout
        self._pool = Pool(connector, fanout=fanout, leave=True)
        self._found: dict[str, Found] = {}

    def __enter__(self) -> Hunter:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def find(self, text: str, addresses: Iterable[Address]) -> Iterator[Found | RemoteRunnerError]:
        """Connect, and look for processes with this text in their command lines: one outcome a host, in the order of
        `addresses`. Two names of one machine and user are one host.
        """
        names = distinct(addresses, self._connector, self._fanout)
        outcomes: dict[str, Found | RemoteRunnerError] = {**self._pool.connect_machines(names)}

        def look(host: Host) -> Found:
            answer: Header = host.request('find', ANSWER_TIMEOUT, text=text)
            return Found(host.name, tuple(Process(*values) for values in answer['found']), answer['ours'])

        for host, outcome in self._pool.each(look):
            outcomes[host.name] = outcome
        told = {address.where: outcomes[address.where] for address in names if address.where in outcomes}
        self._found = {name: outcome for name, outcome in told.items() if isinstance(outcome, Found)}
        yield from told.values()

    def end(self, signal: str, patience: float) -> Iterator[Found | RemoteRunnerError]:
        """Send a signal to all that was found: one outcome for each host that has any.

        Args:
            signal: `TERM`, or a number as text.
            patience: seconds that processes get to end.
        """
        wanted = {name: found for name, found in self._found.items() if found.processes}

        def end(host: Host) -> Found | None:
            found = wanted.get(host.name)
            if found is None:
                return None
            pairs = [(process.pid, process.started) for process in found.processes]
            answer = host.request('end', ANSWER_TIMEOUT + patience, processes=pairs, signal=signal, patience=patience)
            ended = zip(found.processes, answer['results'], strict=True)
            return found._replace(processes=tuple(process._replace(outcome=outcome) for process, outcome in ended))

        done = {host.name: outcome for host, outcome in self._pool.each(end)}
        yield from (outcome for name in wanted if (outcome := done[name]) is not None)
