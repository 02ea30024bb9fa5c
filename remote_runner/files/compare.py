"""Comparing the files of one host with what should be there, in one exchange.

A file that is missing or of another size is sent; of equal size, the SHA-1 is compared, computed on the host while we
compute ours. Of a large file it is found out which pieces are there already, see `files/delta.py`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from remote_runner.errors import ConnectionLost, RequestFailed, TransferFailed
from remote_runner.files.delete import NOTHING, Surplus
from remote_runner.files.delta import LEAST, Basis, Looking, block_size, is_alike
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import Entry, Manifest
from remote_runner.files.packing import Part
from remote_runner.files.places import Place, tops_of
from remote_runner.hosts.call import Call
from remote_runner.hosts.host import Host
from remote_runner.wire.columns import ANY_TIME

#: Large files that a host looks at at the same time.
LOOKS = 16


class Difference(NamedTuple):
    """What has to be done on a host.

    Args:
        send: files to send.
        modes: (path, mode) of files that need other permission bits alone.
        times: (path, ns) of files that need another modification time.
        links: (path, text) of symbolic links to make.
        bases: what there is already of large files of `send`, by path.
        folders: (path, mode) of folders to make.
        bits: (path, mode) of folders that need these permission bits when all is in them.
        hashed: how many of the other files the host had to read.
        suspects: SHA-1 and permission bits of large files that are taken for changed because of their times.
        interrupted: copies that were not brought to their end, and are gone when this is done.
        surplus: what is to be deleted afterwards, see `files/delete.py`.
    """

    send: Sequence[Entry]
    modes: tuple[tuple[str, int], ...] = ()
    times: tuple[tuple[str, int], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    bases: Mapping[str, Basis] = MappingProxyType({})
    folders: tuple[tuple[str, int | None], ...] = ()
    bits: tuple[tuple[str, int], ...] = ()
    hashed: int = 0
    suspects: Mapping[str, tuple[str, int]] = MappingProxyType({})
    interrupted: int = 0
    surplus: Surplus = NOTHING

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        work = (self.send, self.modes, self.times, self.links, self.folders, self.bits, self.interrupted)
        return not any(work)

    @property
    def bytes(self) -> int:
        """The size of what has to be sent."""
        return sum(entry.size for entry in self.send)

    def paths(self) -> set[str]:
        """All paths at which something has to be done."""
        pairs = (*self.modes, *self.times, *self.links, *self.folders, *self.bits)
        return {entry.remote for entry in self.send} | {path for path, _ in pairs}

    def without(self, paths: Container[str]) -> Difference:
        """What has to be done at other paths."""
        return self._replace(
            send=tuple(entry for entry in self.send if entry.remote not in paths),
            modes=tuple(each for each in self.modes if each[0] not in paths),
            times=tuple(each for each in self.times if each[0] not in paths),
            links=tuple(each for each in self.links if each[0] not in paths),
            folders=tuple(each for each in self.folders if each[0] not in paths),
            bits=tuple(each for each in self.bits if each[0] not in paths),
        )


class Divides(Protocol):
    """Somebody who knows what other hosts bring into folders that a host shares with them."""

    def divide(self, manifest: Manifest, places: list[Place], difference: Difference) -> Container[str]:
        """The paths at which this host has nothing to do, of those that differ."""


def compare(
    host: Host,
    manifest: Manifest,
    local: LocalFiles,
    *,
    always_copy: bool = False,
    turn: Divides | None = None,
    asking: Asking | None = None,
) -> Difference:
    """Ask a host what it has, in one exchange; hash here meanwhile.

    Args:
        host: where.
        manifest: what should be there.
        local: the files here.
        always_copy: everything differs.
        turn: learns what differs, before more is found out of files that this host need not be sent.
        asking: has begun to ask it.

    Raises:
        ConnectionLost: the connection broke.
        TransferFailed: a local file cannot be read, or a path on the host cannot be looked at.
    """
    if manifest.is_empty and asking is None:
        return Difference(())
    tops = () if turn is None else tops_of(manifest)
    if always_copy:
        folders = (*manifest.folders, *manifest.bits)
        difference = Difference(manifest.files, links=manifest.links, folders=folders, bits=manifest.bits)
        looked = Looked(difference, [], look(host, Manifest(()), local, tops).places if tops else [])
    else:
        looked = look(host, manifest, local, tops, asking)
    others = () if turn is None else turn.divide(manifest, looked.places, looked.difference)
    large = [entry for entry in looked.large if entry.remote not in others]
    return _without_touched(looked.difference._replace(bases=_bases(host, large, local)), local)


def _without_touched(difference: Difference, local: LocalFiles) -> Difference:
    """Without large files that were taken for changed because of their times, and were not."""
    same = {
        entry.remote: difference.suspects[entry.remote]
        for entry in difference.send
        if entry.remote in difference.suspects
        and is_alike(entry, difference.bases.get(entry.remote), local)
        and local.sha1(entry.local) == difference.suspects[entry.remote][0]
    }
    if not same:
        return difference
    touched = [entry for entry in difference.send if entry.remote in same]
    return difference._replace(
        send=tuple(entry for entry in difference.send if entry.remote not in same),
        modes=(*difference.modes, *((e.remote, e.mode) for e in touched if same[e.remote][1] != e.mode)),
        times=(*difference.times, *((e.remote, e.mtime) for e in touched)),
        bases={path: basis for path, basis in difference.bases.items() if path not in same},
    )


class Looked(NamedTuple):
    """What a host said.

    Args:
        difference: what has to be done, but for its `bases`.
        large: files to send of which something is there already.
        places: where the tops lie that were asked for.
    """

    difference: Difference
    large: list[Entry]
    places: list[Place]


class Asking:
    """Asking a host what it has of files that are told part by part (`wire/columns.py`).

    Raises:
        ConnectionLost: the connection broke.
    """

    def __init__(self, host: Host, local: LocalFiles, parts: Iterable[Part]) -> None:
        self.call = host.call('compare', cache=local.remembered)
        for places, body in parts:
            if not self.call.send(places, body):
                break  # its answer says why

    def finish(self, manifest: Manifest, tops: tuple[str, ...]) -> Call:
        """Ask for what else there is in the manifest of these files; the answers can be listened to."""
        folders = [path for path, _ in (*manifest.folders, *manifest.bits)]
        self.call.send({'links': manifest.links, 'folders': folders, 'tops': tops}, b'')
        self.call.finish()
        return self.call


def look(
    host: Host, manifest: Manifest, local: LocalFiles, tops: tuple[str, ...] = (), asking: Asking | None = None
) -> Looked:
    """What `compare` does first; raises as it does."""
    call = (asking or Asking(host, local, manifest.parts(local))).finish(manifest, tops)
    folders = (*manifest.folders, *manifest.bits)
    found, read, suspected, result = _answers(host, call, manifest.files, local)
    send: list[Entry] = []
    sending: list[int] = []
    modes: list[tuple[str, int]] = []
    times: list[tuple[str, int]] = []
    suspects: dict[str, tuple[str, int]] = {}
    for number in sorted(found):
        entry, (kind, mode, mtime, digest) = manifest.files[number], found[number]
        if kind in ('folder', 'device'):
            raise TransferFailed(f'{entry.remote} is a {kind} there, and a file here ({entry.local})', host=host.name)
        if number in suspected:
            suspects[entry.remote] = (digest, mode)
        if number in suspected or kind != 'file' or not digest or digest != local.sha1(entry.local):
            send.append(entry)
            sending.append(number)
            continue
        if mode != entry.mode:
            modes.append((entry.remote, entry.mode))
        if entry.mtime not in (ANY_TIME, mtime):
            times.append((entry.remote, entry.mtime))
    for (path, _), state in zip(manifest.links, result['links'], strict=True):
        if state == 'folder':
            raise TransferFailed(f'{path} is a folder there, and a link here', host=host.name)
    links = [link for link, state in zip(manifest.links, result['links'], strict=True) if state != 'same']
    missing = {manifest.files[number].remote for number, answer in found.items() if answer[0] != 'file'}
    large = [e for e in send if e.size >= LEAST and (result['interrupted'] or e.remote not in missing)]
    there = dict(zip(folders, result['folders'], strict=True))
    difference = Difference(
        tuple(send),
        tuple(modes),
        tuple(times),
        tuple(links),
        folders=tuple(folder for folder in folders if there[folder] < 0),
        bits=tuple(folder for folder in manifest.bits if there[folder] != folder[1]),
        hashed=len(read.difference(sending)),
        interrupted=result['interrupted'],
        suspects=suspects,
    )
    lie = [Place.of(top, where) for top, where in zip(tops, result['places'], strict=True) if where is not None]
    return Looked(difference, large, lie)


def _is_suspect(entry: Entry, answer: tuple[str, int, int, str], local: LocalFiles) -> bool:
    """Whether a large file has certainly changed but for the SHA-1, which takes long to compute."""
    kind, _, mtime, digest = answer
    return (
        kind == 'file'
        and len(digest) > 1  # else it has another size, or the host is at it
        and entry.size >= LEAST
        and entry.mtime not in (ANY_TIME, mtime)
        and local.known(entry.local) is None
    )


def _answers(
    host: Host, call: Call, files: Sequence[Entry], local: LocalFiles
) -> tuple[dict[int, tuple[str, int, int, str]], set[int], set[int], Any]:
    """What a host says of files that differ, by number; the numbers of those that it had to read, of those that are
    taken for changed, and the rest of its answer. What it hashes, we hash too.
    """
    found: dict[int, tuple[str, int, int, str]] = {}
    read: set[int] = set()
    suspected: set[int] = set()
    for (answers, digests), _ in _heard(host, call):
        for number, *answer in answers:
            found[number] = tuple(answer)
            if _is_suspect(files[number], found[number], local):
                suspected.add(number)
        local.hash_soon(files[n].local for n, *answer in answers if answer[-1] and n not in suspected)
        for number, digest in digests:
            read.add(number)
            if number in found:
                found[number] = (*found[number][:-1], digest)
            elif digest != local.sha1(files[number].local):
                found[number] = ('file', files[number].mode, files[number].mtime, digest)
    return found, read, suspected, result_of(host, call)


def _heard(host: Host, call: Call) -> Iterator[tuple[Any, bytes]]:
    try:
        yield from call.parts()
    except ConnectionLost as error:
        raise ConnectionLost(f'{error.what}; nothing is half written there', host=host.name) from error


def _bases(host: Host, large: list[Entry], local: LocalFiles) -> dict[str, Basis]:
    """What a host has already of large files that it is sent."""
    bases: dict[str, Basis] = {}
    for begin in range(0, len(large), LOOKS):
        looking = [(entry, Looking(host, entry)) for entry in large[begin : begin + LOOKS]]
        local.look_at_pieces((entry.local, block_size(entry.size)) for entry, _ in looking)
        for entry, each in looking:
            try:
                bases[entry.remote] = each.result()
            except RequestFailed:
                continue  # it changes just now: all of it is sent
    return bases


def result_of(host: Host, call: Call) -> Any:
    """What a call about files ended with.

    Raises:
        ConnectionLost: the connection broke.
        TransferFailed: the host says why it could not be done.
    """
    try:
        return call.result()
    except RequestFailed as error:
        raise TransferFailed(error.what, host=host.name) from error
    except ConnectionLost as error:
        raise ConnectionLost(f'{error.what}; nothing is half written there', host=host.name) from error
