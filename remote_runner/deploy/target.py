"""Where to look for a session that stands, and what should be there, as a record, a config or a list of hosts says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from remote_runner.deploy.plan import Plan
from remote_runner.deploy.record import Record
from remote_runner.deploy.secrets import Secrets
from remote_runner.deploy.seen import Seen
from remote_runner.hosts.address import Address, parse_address


class Target(NamedTuple):
    """Where to look for a session, and what should be there.

    Args:
        session: its name.
        addresses: its hosts.
        runs: whose components count although they have ended; None: those of the newest run of each host.
        expected: what should be there: component and host (as the user wrote it), with their start indexes.
        home: the folder of the config, or the working directory.
        secrets: what no event shows, as far as it is known.
    """

    session: str
    addresses: tuple[Address, ...]
    runs: tuple[str, ...] | None = None
    expected: tuple[tuple[str, str, int], ...] = ()
    home: Path = Path()
    secrets: Secrets = Secrets()

    @classmethod
    def of_record(cls, record: Record) -> Target:
        """What a record says."""
        expected = tuple((c['name'], c['host'], c['start_index']) for c in record.components)
        hosts = dict.fromkeys(host for _, host, _ in expected)
        addresses = tuple(parse_address(host) for host in hosts)
        return cls(record.session, addresses, (record.run,), expected, _home(record.config_file))

    @classmethod
    def of_plan(cls, plan: Plan) -> Target:
        """What a config says; of components whose host is decided with each run, where they ran last.

        Those that never ran may be on each of their hosts.
        """
        components = [component.where_it_was() for component in plan.components]
        expected = tuple((c.name, c.host, c.start_index) for c in components if not c.is_undecided)
        addresses = plan._replace(components=tuple(components)).addresses()
        return cls(plan.session, addresses, None, expected, Path(plan.config_dir), plan.secrets)

    @classmethod
    def of_hosts(cls, session: str, addresses: Iterable[Address]) -> Target:
        """What hosts alone say."""
        return cls(session, tuple(addresses), home=_home(None))

    def narrowed(self, patterns: Sequence[str]) -> Target:
        """Only the hosts on which something should be that one of the patterns means, and what should be there.

        All hosts without patterns, or where one means nothing that should be there: who knows where it is then?
        """
        labels = [Seen(*expected) for expected in self.expected]
        meant = [[seen.host for seen in labels if is_meant(seen, pattern)] for pattern in patterns]
        if not all(meant):
            return self
        wanted = {parse_address(host).where for hosts in meant for host in dict.fromkeys(hosts)}
        if not wanted:
            return self
        there = {host for _, host, _ in self.expected if parse_address(host).where in wanted}
        return self._replace(
            addresses=tuple(address for address in self.addresses if address.where in wanted),
            expected=tuple(expected for expected in self.expected if expected[1] in there),
        )


def _home(config_file: str | None) -> Path:
    return Path(config_file).parent if config_file else Path.cwd()


def is_meant(seen: Seen, pattern: str) -> bool:
    """Whether a pattern of the command line means this component."""
    return any(text == pattern or fnmatchcase(text, pattern) for text in (seen.name, seen.label))
