"""Sending a host what differs there (`files/compare.py`).

The host checks length and SHA-1 of what came before it replaces anything (see `agent/put.py`). Of a large file only
those pieces go over that are not there already, see `files/delta.py`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import groupby, zip_longest
from typing import Any

from remote_runner.errors import TransferFailed
from remote_runner.files.compare import Difference, result_of
from remote_runner.files.delta import LEAST, Basis, steps
from remote_runner.files.lanes import Lane, Lanes
from remote_runner.files.limit import Limit
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import Entry, Manifest
from remote_runner.hosts.call import Call
from remote_runner.hosts.host import Host
from remote_runner.wire.columns import ROWS

#: Bytes of one part: many small files, or a piece of a large one.
PART = 1 << 18
#: Seconds between two reports of progress.
REPORT_STEP = 0.1

#: Hears of bytes and files: how many of how many.
Progress = Callable[[int, int, int, int], None]


def send(
    host: Host,
    manifest: Manifest,
    difference: Difference,
    local: LocalFiles,
    progress: Progress,
    limit: Limit | None = None,
    lanes: Lanes | None = None,
    began: Callable[[Call], None] = lambda call: None,
) -> int:
    """Bring a host up to date; how many bytes of content were sent.

    Args:
        progress: hears how many bytes and files are there of how many, now and then.
        limit: how fast, with all others that have it.
        lanes: the turns of all hosts that are sent to; None: there is no other.
        began: hears of each call that content is sent by: how much of it came, if not all did.

    Raises:
        ConnectionLost: the connection broke.
        TransferFailed: a file could not be read here or written there; those written already are whole.
    """
    if difference.is_empty:
        return 0
    lanes = lanes or Lanes()
    sent, stale = _put(host, difference, local, progress, limit, lanes, began)
    if stale:  # what was there already is something else by now: all of them is sent
        whole = Difference(tuple(entry for entry in difference.send if entry.remote in stale))
        size, count = difference.bytes, len(difference.send)

        def rest(there: int, of: int, files: int, of_files: int) -> None:
            progress(size - of + there, size, count - of_files + files, count)

        sent += _put(host, whole, local, rest, limit, lanes, began)[0]
    return sent


def _put(
    host: Host,
    difference: Difference,
    local: LocalFiles,
    progress: Progress,
    limit: Limit | None,
    lanes: Lanes,
    began: Callable[[Call], None],
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
    began(call)
    try:
        with lanes.lane() as lane:
            sender = _Sender(call, local, difference, progress, limit, lane)
            sender.run()
        call.finish()
    except TransferFailed:
        call.cancel()
        raise
    stale = set(result_of(host, call)['stale'])
    if not stale:
        sender.report(difference.bytes, len(difference.send))
    return sender.sent, stale


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
