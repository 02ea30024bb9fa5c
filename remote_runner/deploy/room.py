"""Whether hosts have room for what a run brings, asked before what runs there is ended: without room it goes on.

First it is asked whether there is room for all, as if nothing were there yet; only where that may be too little it is
compared what is there.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from remote_runner.errors import TransferFailed
from remote_runner.files.compare import look, result_of
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import Placed, build_manifest
from remote_runner.hosts.host import Host
from remote_runner.wire.columns import ROWS

#: A path, or None: a new temporary folder; and how many bytes come there.
Row = tuple[str | None, int]


def check_room(
    host: Host, session: str, placed: Sequence[Placed], temporary: Iterable[str], local: LocalFiles
) -> None:
    """Ask a host whether it has room.

    Args:
        host: where `session` runs, and is going to be quit.
        placed: what is to stand there.
        temporary: local files that are to stand in folders that are not there yet.
        local: the files here.

    Raises:
        TransferFailed: some file system has too little; the message says which, and how much is needed.
        ConnectionLost: the connection broke.
    """
    files = [each for each in placed if each.kind == 'file']
    most: Counter[str | None] = Counter()
    for each in files:
        most[posixpath.dirname(each.remote)] += _data(each.local, local)
    new: list[Row] = [(None, _data(path, local)) for path in temporary]
    if not _lacking(host, session, [*most.items(), *new]):
        return
    difference = look(host, build_manifest(local, files), local).difference
    # What is taken for changed because of its time may be right.
    sent = [entry for entry in difference.send if entry.remote not in difference.suspects]
    lacking = _lacking(host, session, [*((entry.remote, _data(entry.local, local)) for entry in sent), *new])
    if lacking:
        told = (
            f'{folder} ({kind}) has too little room: {needed} bytes are needed, {free} are free there'
            for folder, kind, needed, free in lacking
        )
        raise TransferFailed(
            '; '.join(told),
            host=host.name,
            remedy=f'make room there; nothing was changed, and session {session} runs on',
        )


def _data(path: str, local: LocalFiles) -> int:
    """Bytes of a file that are no hole, at most."""
    local.look(path)
    return local.data(path)


def _lacking(host: Host, session: str, rows: Iterable[Row]) -> list[Any]:
    call = host.call('room', session=session)
    left = iter(rows)
    while part := list(islice(left, ROWS)):
        if not call.send(part, b''):
            break  # its answer says why
    call.finish()
    found: list[Any] = result_of(host, call)['lacking']
    return found
