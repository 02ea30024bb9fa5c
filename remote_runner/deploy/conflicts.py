"""Two hosts that bring something to one path of a folder that both see: is it the same, and what to say if not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from remote_runner.deploy.regions import Claim
from remote_runner.errors import TransferFailed
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import Entry
from remote_runner.files.places import Item
from remote_runner.hosts.host import Host

#: Says to which components a path of a host belongs.
Whose = Callable[[str, str], Sequence[str]]


def are_alike(one: Item, other: Item, local: LocalFiles) -> bool:
    """Whether both are the same, as far as its content goes."""
    if not isinstance(one, Entry) or not isinstance(other, Entry):
        return one == other
    if one.local == other.local:
        return True
    return one.size == other.size and local.sha1(one.local) == local.sha1(other.local)


def are_of_one_source(one: Item, other: Item) -> bool:
    """Whether both are the same, as far as can be told without reading anything."""
    return _source(one) == _source(other)


def _source(item: Item) -> tuple[bool, str | None]:
    return isinstance(item, Entry), item.local if isinstance(item, Entry) else item


def conflict(host: Host, path: str, item: Item, claim: Claim, whose: Whose) -> TransferFailed:
    """What to say when `host` wants `item` at `path`, and another one brings something else there."""
    other = claim.turn.host.name
    owners = whose(host.name, path), whose(other, claim.path)
    here, there = (f' ({", ".join(names)})' if names else '' for names in owners)
    return TransferFailed(
        f'{path}{here} and {claim.path} on {other}{there} are the same on a file system that they share, and '
        f'would become {_described(item)} and {_described(claim.item)}',
        host=host.name,
        remedy='give them different names or folders',
    )


def _described(item: Item) -> str:
    if isinstance(item, Entry):
        return f'a copy of {item.local}'
    return 'a folder' if item is None else f'a link to {item}'
