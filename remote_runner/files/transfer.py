"""Comparing the files of one host with what should be there, in one exchange, and sending what differs.

A file that is missing or of another size is sent; of equal size, the SHA-1 is compared, computed on the host while we
compute ours. The host checks length and SHA-1 of what came before it replaces anything (see `agent/put.py`). Of a large
file only those pieces go over that are not there already, see `files/delta.py`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from itertools import groupby, zip_longest
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from remote_runner.errors import ConnectionLost, RequestFailed, TransferFailed
from remote_runner.files.delete import NOTHING, Surplus
from remote_runner.files.delta import LEAST, Basis, Looking, block_size, is_alike, steps
from remote_runner.files.lanes import Lane, Lanes
from remote_runner.files.limit import Limit
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import Entry, Manifest
from remote_runner.files.places import Place, tops_of
from remote_runner.hosts.host import Call, Host
from remote_runner.wire.columns import ANY_TIME, ROWS

#: Bytes of one part: many small files, or a piece of a large one.
PART = 1 << 18
#: Seconds between two reports of progress.
REPORT_STEP = 0.1
#: Large files that a host looks at at the same time.
LOOKS = 16

#: Hears of bytes and files: how many of how many.
Progress = Callable[[int, int, int, int], None]


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
) -> Difference:
    """Ask a host what it has, in one exchange; hash here meanwhile.

    Args:
        host: where.
        manifest: what should be there.
        local: the files here.
        always_copy: everything differs.
        turn: learns what differs, before more is found out of files that this host need not be sent.

    Raises:
        ConnectionLost: the connection broke.
        TransferFailed: a local file cannot be read, or a path on the host cannot be looked at.
    """
    if manifest.is_empty:
        return Difference(())
    tops = () if turn is None else tops_of(manifest)
    if always_copy:
        folders = (*manifest.folders, *manifest.bits)
        difference = Difference(manifest.files, links=manifest.links, folders=folders, bits=manifest.bits)
        looked = Looked(difference, [], look(host, Manifest(()), local, tops).places if tops else [])
    else:
        looked = look(host, manifest, local, tops)
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


def look(host: Host, manifest: Manifest, local: LocalFiles, tops: tuple[str, ...] = ()) -> Looked:
    """What `compare` does first; raises as it does."""
    folders = (*manifest.folders, *manifest.bits)
    paths = [path for path, _ in folders]
    call = host.call('compare', cache=local.remembered, links=manifest.links, folders=paths, tops=tops)
    for places, body in manifest.parts(local):
        if not call.send(places, body):
            break  # its answer says why
    call.finish()
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
    return found, read, suspected, _result(host, call)


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


def send(
    host: Host,
    manifest: Manifest,
    difference: Difference,
    local: LocalFiles,
    progress: Progress,
    limit: Limit | None = None,
    lanes: Lanes | None = None,
) -> int:
    """Bring a host up to date; how many bytes of content were sent.

    Args:
        progress: hears how many bytes and files are there of how many, now and then.
        limit: how fast, with all others that have it.
        lanes: the turns of all hosts that are sent to; None: there is no other.

    Raises:
        ConnectionLost: the connection broke.
        TransferFailed: a file could not be read here or written there; those written already are whole.
    """
    if difference.is_empty:
        return 0
    lanes = lanes or Lanes()
    sent, stale = _put(host, difference, local, progress, limit, lanes)
    if stale:  # what was there already is something else by now: all of them is sent
        whole = Difference(tuple(entry for entry in difference.send if entry.remote in stale))
        size, count = difference.bytes, len(difference.send)

        def rest(there: int, of: int, files: int, of_files: int) -> None:
            progress(size - of + there, size, count - of_files + files, count)

        sent += _put(host, whole, local, rest, limit, lanes)[0]
    return sent


def _put(
    host: Host,
    difference: Difference,
    local: LocalFiles,
    progress: Progress,
    limit: Limit | None,
    lanes: Lanes,
) -> tuple[int, set[str]]:
    """How many bytes were sent, and the files that were to be made from what is not there any more."""
    spared = [path for path, basis in difference.bases.items() if basis.partial]
    call = host.call(
        'put',
        cache=local.remembered,
        folders=difference.folders,
        modes=difference.modes,
        times=difference.times,
        links=difference.links,
        spared=spared,
        bits=difference.bits[::-1],  # what is below a folder first: afterwards it may not be reached
    )
    try:
        with lanes.lane() as lane:
            sender = _Sender(call, local, difference, progress, limit, lane)
            sender.run()
        call.finish()
    except TransferFailed:
        call.cancel()
        raise
    stale = set(_result(host, call)['stale'])
    if not stale:
        sender.report(difference.bytes, len(difference.send))
    return sender.sent, stale


def _result(host: Host, call: Call) -> Any:
    try:
        return call.result()
    except RequestFailed as error:
        raise TransferFailed(error.what, host=host.name) from error
    except ConnectionLost as error:
        raise ConnectionLost(f'{error.what}; nothing is half written there', host=host.name) from error


class _Enough(Exception):
    """The host wants no more: its answer says why."""


class _Sender:
    """Cuts files into parts, see `agent/put.py`: many small ones into one, a large one into many."""

    def __init__(
        self,
        call: Call,
        local: LocalFiles,
        difference: Difference,
        progress: Progress,
        limit: Limit | None,
        lane: Lane,
    ) -> None:
        self._call = call
        self._local = local
        self._difference = difference
        self._progress = progress
        self._limit = limit
        self._lane = lane
        self._part = PART if limit is None else min(PART, limit.part)
        self._reported = time.monotonic()
        self._items: list[list[Any]] = []
        self._body = bytearray()
        self._buffer = memoryview(bytearray(PART))
        self._spared = 0  # bytes that need not be sent
        self._files = 0  # that are whole in what was sent
        self._flushed: deque[tuple[int, int]] = deque()  # bytes after which so many files are there
        self._there = 0
        self._of = (difference.bytes, len(difference.send))
        self.sent = 0

    def run(self) -> None:
        """Send all files."""
        try:
            for is_small, entries in groupby(self._difference.send, lambda entry: entry.size < self._part):
                for entry in _interleaved(list(entries)) if is_small else entries:
                    if is_small:
                        self._small(entry)
                    else:
                        self._large(entry, self._difference.bases.get(entry.remote))
                self._flush()
        except _Enough:
            return

    def _small(self, entry: Entry) -> None:
        with self._local.reading(entry.local) as reading:
            content = _read(reading.file, entry)
            digest = self._local.known(entry.local)
            if digest is None:
                digest = hashlib.sha1(content, usedforsecurity=False).hexdigest()
                self._local.learn(entry.local, reading, digest)
        self._items.append([entry.remote, entry.size, entry.mode, entry.mtime, digest])
        self._body += content
        self._files += 1
        if len(self._body) >= self._part or len(self._items) >= ROWS:
            self._flush()

    def _large(self, entry: Entry, basis: Basis | None) -> None:
        """A large one; its SHA-1 is computed as it goes, if it is not known."""
        resume = basis is not None and bool(basis.partial)
        self._flush()
        self._items.append([entry.remote, entry.size, entry.mode, entry.mtime, None, resume])
        with self._local.reading(entry.local) as reading:
            digest = self._local.known(entry.local)
            computes = digest is None and self._local.is_ours_to_hash(entry.local)
            sha1 = hashlib.sha1(usedforsecurity=False) if computes else None
            for kind, offset, length, there in steps(reading.file, entry, basis, self._local):
                if kind != 'data':
                    self._items.append(_spared(kind, length, there))
                    self._spared += length
                    if length >= LEAST:  # the host has something to do
                        self._put(memoryview(b''))
                if kind != 'data' and sha1 is None:
                    continue
                for piece in self._pieces(reading.file, entry, offset, length):
                    if sha1 is not None:
                        sha1.update(piece)
                    if kind == 'data':
                        self._items.append(['d', len(piece)])
                        self._put(piece)
            if sha1 is not None:
                digest = sha1.hexdigest()
                self._local.learn(entry.local, reading, digest)
            else:
                self._local.check_unchanged(entry.local, os.fstat(reading.file))
        self._items.append(['e', digest or self._local.sha1(entry.local)])
        self._files += 1

    def _pieces(self, fd: int, entry: Entry, offset: int, length: int) -> Iterator[memoryview]:
        """So many bytes of a file; each piece is there until the next is asked for."""
        end = offset + length
        while offset < end:
            try:
                size = os.preadv(fd, [self._buffer[: min(self._part, end - offset)]], offset)
            except OSError as error:
                raise TransferFailed(f'cannot read {entry.local}: {error.strerror}') from error
            if not size:
                raise TransferFailed(f'{entry.local} became shorter while it was copied')
            offset += size
            yield self._buffer[:size]

    def _flush(self) -> None:
        """Send what small files there are."""
        if self._items:
            body, self._body = self._body, bytearray()
            self._put(memoryview(body))

    def _put(self, body: memoryview) -> None:
        """Send what there is to say and to send."""
        if self._limit is not None:
            self._limit(len(body))
        items = self._items
        if not self._lane.send(len(body), lambda: self._call.send(items, body), lambda: self._call.ended):
            raise _Enough
        self.sent += len(body)
        self._items = []
        self._flushed.append((self.sent, self._files))
        if time.monotonic() - self._reported > REPORT_STEP:
            delivered = self._call.delivered
            while self._flushed and self._flushed[0][0] <= delivered:
                _, self._there = self._flushed.popleft()
            self.report(delivered + self._spared, self._there)

    def report(self, arrived: int, files: int) -> None:
        """Say how far it is."""
        self._reported = time.monotonic()
        self._progress(arrived, self._of[0], files, self._of[1])


def _interleaved(entries: list[Entry]) -> Iterator[Entry]:
    """Entries of two folders in turns: a host writes two files at a time, and not well into one folder."""
    half = (len(entries) + 1) // 2
    for pair in zip_longest(entries[:half], entries[half:]):
        yield from filter(None, pair)


def _spared(kind: str, length: int, there: int) -> list[Any]:
    """The item of a step for which nothing is sent."""
    return ['c', length, there] if kind == 'copy' else ['p' if kind == 'partial' else 'z', length]


def _read(file: int, entry: Entry) -> bytes:
    """The content of a small file, exactly as many bytes as the manifest says."""
    try:
        content = os.read(file, entry.size + 1)
    except OSError as error:
        raise TransferFailed(f'cannot read {entry.local}: {error.strerror}') from error
    if len(content) != entry.size:
        raise TransferFailed(f'{entry.local} was changed while it was copied')
    return content
