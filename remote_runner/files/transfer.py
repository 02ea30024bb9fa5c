"""Comparing the files of one host with what should be there, in one exchange, and sending what differs.

A file that is missing or of another size is sent; of equal size, the SHA-1 is compared, computed on the host while we
compute ours. The host checks length and SHA-1 of what came before it replaces anything (see `agent/files.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from remote_runner.errors import ConnectionLost, RequestFailed, TransferFailed
from remote_runner.files.manifest import Entry, LocalFiles, Manifest
from remote_runner.hosts.host import Call, Host

#: Bytes of one part: many small files, or a piece of a large one.
PART = 1 << 18
#: Seconds between two reports of progress.
REPORT_STEP = 0.1

Progress = Callable[[int, int], None]


class Difference(NamedTuple):
    """What has to be done on a host: files to send, and (path, mode) of those that need other permission bits alone."""

    send: tuple[Entry, ...]
    modes: tuple[tuple[str, int], ...]

    @property
    def bytes(self) -> int:
        """The size of what has to be sent."""
        return sum(entry.size for entry in self.send)


def compare(host: Host, manifest: Manifest, local: LocalFiles, always_copy: bool = False) -> Difference:
    """Ask a host what it has, in one exchange; hash here meanwhile. `always_copy`: everything differs.

    Raises:
        ConnectionLost: the connection broke.
        TransferFailed: a local file cannot be read, or a path on the host cannot be looked at.
    """
    if always_copy or not manifest.files:
        return Difference(manifest.files, ())
    call = host.call('compare', files=[[entry.remote, entry.size] for entry in manifest.files])
    digests = [local.sha1(entry.local) for entry in manifest.files]
    send: list[Entry] = []
    modes: list[tuple[str, int]] = []
    for entry, digest, (kind, mode, found) in zip(manifest.files, digests, _result(host, call)['found'], strict=True):
        if kind == 'folder':
            raise TransferFailed(f'{entry.remote} is a folder there, and a file here ({entry.local})', host=host.name)
        if kind != 'file' or found != digest:
            send.append(entry)
        elif mode != entry.mode:
            modes.append((entry.remote, entry.mode))
    return Difference(tuple(send), tuple(modes))


def send(host: Host, folders: tuple[str, ...], difference: Difference, local: LocalFiles, progress: Progress) -> None:
    """Bring a host up to date. `progress` hears how many bytes arrived of how many, now and then.

    Raises:
        ConnectionLost: the connection broke.
        TransferFailed: a file could not be read here or written there; those written already are whole.
    """
    if not folders and not difference.send and not difference.modes:
        return
    call = host.call('put', folders=folders, modes=difference.modes)
    reported = time.monotonic()
    try:
        for entries, body in _parts(difference.send, local):
            if not call.send(entries, body):
                break  # its answer says why
            if time.monotonic() - reported > REPORT_STEP:
                reported = time.monotonic()
                progress(call.delivered, difference.bytes)
        call.finish()
    except TransferFailed:
        call.cancel()
        raise
    _result(host, call)
    progress(difference.bytes, difference.bytes)


def _result(host: Host, call: Call) -> Any:
    try:
        return call.result()
    except RequestFailed as error:
        raise TransferFailed(error.what, host=host.name) from error
    except ConnectionLost as error:
        raise ConnectionLost(f'{error.what}; nothing is half written there', host=host.name) from error


def _parts(files: tuple[Entry, ...], local: LocalFiles) -> Iterator[tuple[list[list[Any]], bytes]]:
    """The contents of all files, one after another, cut into parts; each names the files that begin in it."""
    entries: list[list[Any]] = []
    body = bytearray()
    for entry in files:
        entries.append([entry.remote, entry.size, entry.mode, local.sha1(entry.local)])
        for piece in _pieces(entry):
            body += piece
            if len(body) >= PART:
                yield entries, bytes(body)
                entries, body = [], bytearray()
    if entries or body:
        yield entries, bytes(body)


def _pieces(entry: Entry) -> Iterator[bytes]:
    """The content of one file, exactly as many bytes as the manifest says."""
    missing = entry.size
    try:
        with Path(entry.local).open('rb', buffering=0) as file:
            while missing:
                piece = file.read(min(PART, missing))
                if not piece:
                    break
                missing -= len(piece)
                yield piece
    except OSError as error:
        raise TransferFailed(f'cannot read {entry.local}: {error.strerror}') from error
    if missing:
        raise TransferFailed(f'{entry.local} became shorter while it was copied')
