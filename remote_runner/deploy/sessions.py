"""All sessions of hosts, whoever began them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from remote_runner.defaults import FANOUT
from remote_runner.deploy.seen import Seen, all_seen
from remote_runner.deploy.session import SURVEY_TIMEOUT
from remote_runner.errors import RemoteRunnerError
from remote_runner.hosts.address import Address
from remote_runner.hosts.call import Header
from remote_runner.hosts.pool import Opens, connect, distinct, each


class Found(NamedTuple):
    """What stands on one host.

    Args:
        host: as the user wrote it.
        sessions: the components of each session.
        servers: the pids of the screen servers of each session.
    """

    host: str
    sessions: dict[str, list[Seen]]
    servers: dict[str, list[int]]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        sessions = {name: [seen.to_dict() for seen in found] for name, found in self.sessions.items()}
        return {'host': self.host, 'sessions': sessions, 'servers': self.servers}


def find_sessions(
    addresses: Iterable[Address], connector: Opens, fanout: int = FANOUT, *, everything: bool = False
) -> Iterator[Found | RemoteRunnerError]:
    """What stands on each host, in the order of `addresses`; an error for a host that cannot be had.

    Args:
        everything: also sessions of which nothing runs any more.
    """

    def work(address: Address) -> Found:
        with connect(address, connector) as host:
            answer: Header = host.request('survey', timeout=SURVEY_TIMEOUT, session=None)
        sessions: dict[str, list[Seen]] = {}
        for seen in all_seen(answer, address.where):
            sessions.setdefault(seen.facts['session'], []).append(seen)
        wanted = {
            name: found
            for name, found in sessions.items()
            if everything or answer['servers'].get(name) or any(seen.is_alive for seen in found)
        }
        return Found(address.where, wanted, {name: answer['servers'].get(name, []) for name in wanted})

    hosts = distinct(addresses, connector, fanout)
    outcomes = dict(each(hosts, work, fanout))
    for address in hosts:
        yield outcomes[address]
