"""Coming to trust many hosts in one step: fetch their keys, let a person compare the fingerprints, store them.

    found = collect(connector, addresses)
    ...                                     # show found.offers, ask once
    add(connector, found.new)               # then again with found.waiting, if there are any
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from remote_runner.defaults import FANOUT
from remote_runner.errors import HostKeyChanged, HostKeyUnknown, RemoteRunnerError
from remote_runner.hosts.address import Address
from remote_runner.hosts.handshake import host_key
from remote_runner.hosts.known_hosts import Verdict
from remote_runner.hosts.pool import each
from remote_runner.hosts.public_key import PublicKey
from remote_runner.hosts.ssh import Connector
from remote_runner.hosts.ssh_config import Target


class Offer(NamedTuple):
    """A host's key as the host itself shows it now.

    Args:
        where: the host as the user wrote it; for a jump host, its name in ssh_config.
        target: what that was resolved to.
        key: the key; the host has proved that it holds it.
        verdict: what the known_hosts files say about it.
    """

    where: str
    target: Target
    key: PublicKey
    verdict: Verdict

    @property
    def file(self) -> str | None:
        """The file to which `add` adds the key; None: ssh_config names none, and it is trusted in this run alone."""
        return next(iter(self.target.user_known_hosts_files), None)


class Collection(NamedTuple):
    """What was found.

    Args:
        offers: one for each host and for each jump host on the way, in the order asked for.
        waiting: hosts behind a jump host that is not trusted yet: collect them again once it is.
        failures: hosts that could not be asked.
    """

    offers: tuple[Offer, ...]
    waiting: tuple[Address, ...]
    failures: tuple[RemoteRunnerError, ...]

    @property
    def new(self) -> tuple[Offer, ...]:
        """Those that can be added."""
        return tuple(offer for offer in self.offers if offer.verdict is Verdict.NEW)


def collect(connector: Connector, addresses: Sequence[Address], fanout: int = FANOUT) -> Collection:
    """Fetch the keys of hosts in parallel. Nobody is logged in, but on jump hosts that are trusted already.

    A host that is known is asked for the types of keys that are known of it, another one for the type that we (and
    OpenSSH) like best.
    """
    failures: list[RemoteRunnerError] = []
    resolved: dict[Address, Target] = {}
    for address, target in each(addresses, connector.resolver.resolve, fanout):
        if isinstance(target, RemoteRunnerError):
            failures.append(target)
        else:
            resolved[address] = target
    hops = {hop.known_as: (hop, hop.alias) for target in resolved.values() for hop in target.hops}
    ends = {target.known_as: (target, address.where) for address, target in resolved.items()}
    offers: dict[str, Offer] = {}
    untrusted: set[str] = set()
    for (target, _where), offer in each(list({**hops, **ends}.values()), _fetch(connector), fanout):
        if isinstance(offer, Offer):
            offers[target.known_as] = offer
        elif isinstance(offer, HostKeyUnknown):  # that of a jump host before it
            untrusted.add(target.known_as)
        else:
            failures.append(offer)
    order = [*hops, *(resolved[address].known_as for address in addresses if address in resolved)]
    return Collection(
        offers=tuple(offers[name] for name in dict.fromkeys(order) if name in offers),
        waiting=tuple(a for a in addresses if a in resolved and resolved[a].known_as in untrusted),
        failures=tuple(failures),
    )


def add(connector: Connector, offers: Iterable[Offer]) -> tuple[str, ...]:
    """Store exactly the keys of `offers` as trusted.

    Returns:
        The files they were added to.

    Raises:
        HostKeyChanged: one is not new; nothing was added then.
        HostError: a file cannot be written, or another key of a host was stored meanwhile.
    """
    offers = tuple(offers)
    for offer in offers:
        verdict, _entry = connector.known_hosts.judge(offer.target, offer.key)
        if verdict not in (Verdict.NEW, Verdict.KNOWN):
            raise HostKeyChanged(f'its key {offer.key} is {verdict.value}; it is not stored', host=offer.where)
    files = [connector.known_hosts.add(offer.target, offer.key) for offer in offers]
    return tuple(dict.fromkeys(file for file in files if file is not None))


def _fetch(connector: Connector) -> Callable[[tuple[Target, str]], Offer]:
    def fetch(host: tuple[Target, str]) -> Offer:
        target, where = host
        transport = connector.handshake(target, where)
        try:
            key = host_key(transport, where)
        finally:
            transport.link.close()
            transport.close()
        return Offer(where, target, key, connector.known_hosts.judge(target, key)[0])

    return fetch
