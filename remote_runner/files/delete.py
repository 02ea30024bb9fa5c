"""What stands on a host below a tree and is gone here: asking for it, and deleting it (`--delete`).

    surplus = find_surplus(host, manifest)
    ...  # send what differs
    failures = delete(host, surplus).failures

What was not there, or was other, when it was asked for is not deleted. See `agent/surplus.py` and `agent/deletion.py`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from remote_runner.config.exclude import Exclusion
from remote_runner.errors import ConfigError, RequestFailed, TransferFailed
from remote_runner.files.manifest import Manifest, Mirror
from remote_runner.hosts.call import Call
from remote_runner.hosts.host import Host
from remote_runner.wire.columns import ROWS
from remote_runner.wire.groups import pack, unpack

if TYPE_CHECKING:
    from remote_runner.wire.groups import Group

_REMEDY = 'a folder of its own is needed as dest; without --delete nothing is deleted'


class Surplus(NamedTuple):
    """What is to be deleted on a host.

    Args:
        groups: it, see `agent.surplus.surplus`; what is in a folder before the folder.
        trees: the roots of the trees that lose something.
        mounts: folders below them that are left alone, as they are other file systems.
        closed: (path, reason) of folders into which we may not look.
    """

    groups: tuple[Group, ...] = ()
    trees: frozenset[str] = frozenset()
    mounts: tuple[str, ...] = ()
    closed: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return any(self[:])

    @property
    def total(self) -> int:
        """How many files, links and folders."""
        return sum(len(entries) for _, entries in self.groups)

    def without(self, is_spared: Callable[[str], bool]) -> Surplus:
        """The same, but for those paths that are spared."""
        kept = (
            (folder, [entry for entry in entries if not is_spared(posixpath.join(folder, entry[0]))])
            for folder, entries in self.groups
        )
        return self._replace(groups=tuple((folder, entries) for folder, entries in kept if entries))

    def paths(self) -> Iterator[str]:
        """Where they are; of folders with a slash at the end."""
        for folder, entries in self.groups:
            for name, (is_folder, *_) in entries:
                yield posixpath.join(folder, f'{name}/' if is_folder else name)


NOTHING = Surplus()


class Deleted(NamedTuple):
    """What came of it.

    Args:
        total: how much was deleted; what was gone already does not count.
        failures: (path, reason) of what could not be.
        changed: what stays as it was changed since, or has something in it that came since.
    """

    total: int = 0
    failures: tuple[tuple[str, str], ...] = ()
    changed: tuple[str, ...] = ()


def check_trees(host: Host, mirror: Mirror) -> None:
    """Whether the trees of a mirror are folders that may be mirrored; nothing is changed.

    Raises:
        ConfigError: one is not.
        ConnectionLost: the connection broke.
    """
    if mirror:
        call = host.call('check_trees', trees=[tree.root for tree in mirror.trees], apart=mirror.apart)
        _result(host, call)


def find_surplus(host: Host, manifest: Manifest) -> Surplus:
    """Ask a host what stands below the trees of a manifest and is not in it, nor left out of them.

    Raises:
        ConfigError: one of the trees is no folder that may be mirrored.
        ConnectionLost: the connection broke.
        TransferFailed: the host cannot say.
    """
    mirror = manifest.mirror
    if not mirror:
        return NOTHING
    trees = [[tree.root, Exclusion(tree.exclude).rules] for tree in mirror.trees]
    links = [path for path, _ in manifest.links]
    call = host.call('surplus', trees=trees, links=links, apart=mirror.apart)
    for places, body in _parts(_wanted(manifest)):
        if not call.send(places, body):
            break  # its answer says why
    call.finish()
    groups = [group for part, body in call.parts() for group in unpack(part, body)]
    result = _result(host, call)
    touched = {folder for folder, _ in groups}
    roots = [
        tree.root
        for tree, real in zip(mirror.trees, result['trees'], strict=True)
        if any(folder == real or folder.startswith(f'{real}/') for folder in touched)
    ]
    closed = tuple((path, f'it cannot be looked at: {reason}') for path, reason in result['closed'])
    return Surplus(tuple(groups), frozenset(roots), tuple(result['mounts']), closed)


def _wanted(manifest: Manifest) -> Iterator[str]:
    yield from (entry.remote for entry in manifest.files)
    yield from (path for path, _ in (*manifest.folders, *manifest.bits))
    yield from manifest.mirror.also


def _parts(paths: Iterable[str]) -> Iterator[tuple[list[list[Any]], bytes]]:
    """Paths as [folder, count] with their names."""
    rest = iter(paths)
    while some := list(islice(rest, ROWS)):
        places: list[list[Any]] = []
        names: list[str] = []
        for path in some:
            folder, _, name = path.rstrip('/').rpartition('/')
            if name in ('', '.', '..') or not folder:
                folder, name = path, '.'
            if not places or places[-1][0] != folder:
                places.append([folder, 0])
            places[-1][1] += 1
            names.append(name)
        yield places, '\0'.join(names).encode('utf-8', 'surrogateescape')


def delete(host: Host, surplus: Surplus) -> Deleted:
    """Delete what was found.

    Raises:
        ConnectionLost: the connection broke.
        TransferFailed: the host cannot do it at all.
    """
    if not surplus.groups:
        return Deleted(failures=surplus.closed)
    call = host.call('delete')
    for groups in _cut(surplus.groups):
        if not call.send(*pack(groups)):
            break  # its answer says why
    call.finish()
    failures: list[tuple[str, str]] = [*surplus.closed]
    changed: list[str] = []
    for (failed, left), _ in call.parts():
        failures += [(path, reason) for path, reason in failed]
        changed += left
    return Deleted(_result(host, call)['deleted'], tuple(failures), tuple(changed))


def _cut(groups: Iterable[Group]) -> Iterator[list[Group]]:
    """Groups of about `ROWS` entries each."""
    some: list[Group] = []
    count = 0
    for group in groups:
        some.append(group)
        count += len(group[1])
        if count >= ROWS:
            yield some
            some, count = [], 0
    if some:
        yield some


def _result(host: Host, call: Call) -> Any:
    try:
        return call.result()
    except RequestFailed as error:
        if error.kind == 'refused':
            raise ConfigError(f'--delete: {error.what}', host=host.name, remedy=_REMEDY) from error
        raise TransferFailed(error.what, host=host.name) from error
