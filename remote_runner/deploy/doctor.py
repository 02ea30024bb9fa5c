"""Examining many hosts: connect, find out the facts of each, see which of them share a home, leave nothing behind."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from remote_runner.defaults import FANOUT
from remote_runner.deploy.findings import (
    Finding,
    HostFacts,
    Level,
    is_out_of_reach,
    judge,
    judge_failure,
    read_facts,
    shared_home,
)
from remote_runner.errors import RemoteRunnerError
from remote_runner.hosts.address import Address, fold
from remote_runner.hosts.host import Host
from remote_runner.hosts.pool import Opens, Pool, distinct
from remote_runner.hosts.ssh import SshConnection

#: Seconds that a host has for the facts: file systems and screen may hang.
EXAMINE_TIMEOUT = 45.0
ANSWER_TIMEOUT = 20.0
#: Sessions that are tried on a connection; sshd opens 10 unless told otherwise.
MOST_SESSIONS = 12
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Diagnosis:
    """One host: its findings, and the facts that led to them.

    Args:
        host: as the user wrote it.
        findings: what was found, in the order of the checks.
        facts: None: it could not be examined.
        out_of_reach: it could not be reached, trusted or authenticated.
    """

    host: str
    findings: tuple[Finding, ...]
    facts: HostFacts | None = None
    out_of_reach: bool = False

    @property
    def exit_status(self) -> int:
        """What a command that finds this ends with."""
        if self.out_of_reach:
            return 3
        return int(any(finding.level is Level.ERROR for finding in self.findings))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            'host': self.host,
            'findings': [asdict(finding) for finding in self.findings],
            'facts': {} if self.facts is None else asdict(self.facts),
        }


def diagnose(addresses: Iterable[Address], connector: Opens, fanout: int = FANOUT) -> list[Diagnosis]:
    """Examine hosts in parallel; one diagnosis each, in the order of `addresses`.

    Two names of one machine and user are one host, under the name that was written first (or connected first).
    """
    names = distinct(addresses, connector, fanout)
    for address, others in names.items():
        for other in others:
            log.info('%s is another name of %s', other.where, address.where)
    found: dict[str, Diagnosis] = {}
    with Pool(connector, fanout=fanout) as pool:
        found |= {name: _failure(name, error) for name, error in pool.connect_machines(names).items()}
        run = secrets.token_hex(6)
        marks = {name: f'{run}-{number}' for number, name in enumerate(pool.hosts)}
        for host, outcome in pool.each(lambda host: _examine(host, marks[host.name])):
            found[host.name] = (
                _failure(host.name, outcome)
                if isinstance(outcome, RemoteRunnerError)
                else Diagnosis(host.name, judge(outcome), outcome)
            )
        for group in _homes(pool, run, marks):
            for name in group:
                found[name] = _with(found[name], shared_home(fold(group)))
        _tidy(pool)
    return [found[address.where] for address in names if address.where in found]


def _failure(name: str, error: RemoteRunnerError) -> Diagnosis:
    return Diagnosis(name, judge_failure(error), out_of_reach=is_out_of_reach(error))


def _examine(host: Host, mark: str) -> HostFacts:
    """The facts of one host. It has the mark in its home afterwards."""
    said = host.request('examine', EXAMINE_TIMEOUT, mark=mark)
    connection = host.connection
    sessions: int | None = None
    if isinstance(connection, SshConnection):
        sessions = 1 + connection.spare_sessions(MOST_SESSIONS - 1)  # one is the agent's
    return read_facts(
        said,
        uid=host.facts.uid,
        python=host.facts.python,
        home=host.facts.home,
        clock_offset=host.clock_offset,
        sessions=sessions,
        start_seconds=host.started.seconds,
        printed=host.started.printed,
    )


def _homes(pool: Pool, run: str, marks: Mapping[str, str]) -> list[list[str]]:
    """The groups of hosts of which one sees the mark of another in its home.

    One look is enough for both: over NFS the host that was marked first may still remember the folder as it was.
    """
    owners = {mark: name for name, mark in marks.items()}
    groups = {name: {name} for name in marks}
    for host, seen in pool.each(lambda host: host.request('neighbours', ANSWER_TIMEOUT, prefix=run)):
        if isinstance(seen, RemoteRunnerError):
            log.debug('%s was not asked who shares its home: %s', host.name, seen)
            continue
        for other in [owners[mark] for mark in seen]:
            group = groups[host.name] | groups[other]
            groups.update(dict.fromkeys(group, group))
    distinct_groups = {id(group): group for group in groups.values() if len(group) > 1}
    return [[name for name in marks if name in group] for group in distinct_groups.values()]


def _with(diagnosis: Diagnosis, finding: Finding) -> Diagnosis:
    return Diagnosis(diagnosis.host, (*diagnosis.findings, finding), diagnosis.facts, diagnosis.out_of_reach)


def _tidy(pool: Pool) -> None:
    for host, outcome in pool.each(lambda host: host.request('tidy', ANSWER_TIMEOUT)):
        if isinstance(outcome, RemoteRunnerError):
            log.debug('%s tidies up when its connection ends: %s', host.name, outcome)
