"""Something is brought to one path twice, by two hosts that both see the folder, or by one host that knows the path by
two names: is it the same, and what to say if not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from remote_runner.deploy.regions import Claim
from remote_runner.errors import TransferFailed
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import Entry, Placed, build_manifest
from remote_runner.files.places import Item, Place, is_in, items, plain
from remote_runner.hosts.host import Host

#: Says to which components a path of a host belongs.
Whose = Callable[[str, str], Sequence[str]]
#: Tells what is to stand in a place: paths as the manifest calls them.
Within = Callable[[Place], Iterable[tuple[str, Item]]]

_REMEDY = 'give them different names or folders'


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
    here, there = _owners(whose(host.name, path)), _owners(whose(other, claim.path))
    return TransferFailed(
        f'{path}{here} and {claim.path} on {other}{there} are the same on a file system that they share, and '
        f'would become {_described(item)} and {_described(claim.item)}',
        host=host.name,
        remedy=_REMEDY,
    )


def conflict_of_names(
    host: Host, places: Sequence[Place], within: Within, local: LocalFiles, whose: Whose
) -> TransferFailed | None:
    """What to say when a host is to have two things at one path, which `~` or a link there gives two names."""
    known: dict[str, tuple[str, Item]] = {}
    for place in places:
        others = (other.path for other in places if other != place)
        if not any(is_in(place.path, path) or is_in(path, place.path) for path in others):
            continue
        for path, item in within(place):
            real = place.path.rstrip('/') + plain(path)[len(place.top.rstrip('/')) :]
            first, other_item = known.setdefault(real, (path, item))
            if first == path or are_alike(item, other_item, local):
                continue
            one, other = (f'{name}{_owners(whose(host.name, name))}' for name in (first, path))
            return TransferFailed(
                f'{one} and {other} are the same there, and would become {_described(other_item)} and '
                f'{_described(item)}',
                host=host.name,
                remedy=_REMEDY,
            )
    return None


def conflict_of_sources(host: str, placed: Iterable[Placed], local: LocalFiles, whose: Whose) -> TransferFailed | None:
    """What to say when components want two things at one path of a host; it is known by now where their folders are."""
    known: dict[str, Placed] = {}
    for one in placed:
        other = known.setdefault(plain(one.remote), one)
        if (other.local, other.kind) == (one.local, one.kind):
            continue
        (_, item), (_, other_item) = (next(items(build_manifest(local, [each]))) for each in (one, other))
        if not are_alike(item, other_item, local):
            labels = dict.fromkeys([*whose(host, other.remote), *whose(host, one.remote)])
            return TransferFailed(
                f'{one.remote}{_owners(tuple(labels))} would become {_described(other_item)} and {_described(item)}',
                host=host,
                remedy=_REMEDY,
            )
    return None


def _owners(labels: Sequence[str]) -> str:
    return f' ({", ".join(labels)})' if labels else ''


def _described(item: Item) -> str:
    if isinstance(item, Entry):
        return f'a copy of {item.local}'
    return 'a folder' if item is None else f'a link to {item}'
