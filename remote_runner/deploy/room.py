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

from remote_runner.deploy.component_plan import ComponentPlan
from remote_runner.errors import TransferFailed
from remote_runner.files.compare import look, result_of
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import Placed, build_manifest, remote_path
from remote_runner.hosts.host import Host
from remote_runner.wire.columns import ROWS

#: How paths on hosts begin that are not below a base_dir.
ELSEWHERE = ('/', '~')
#: A path, or None: a new temporary folder; and how many bytes come there.
Row = tuple[str | None, int]


class Room:
    """Asks hosts whether they have room. Thread-safe.

    Args:
        local: the files here.
    """

    def __init__(self, local: LocalFiles) -> None:
        self._local = local
        self._sizes: dict[str, int] = {}

    def check(self, host: Host, session: str, own: Sequence[ComponentPlan], *, keeps: bool) -> None:
        """Ask one.

        Args:
            host: where `session` runs, and is going to be quit.
            own: its components.
            keeps: whether some may be left as they are, so that new temporary folders are not needed for all.

        Raises:
            TransferFailed: some file system has too little; the message says which, and how much is needed.
            ConnectionLost: the connection broke.
        """
        most = self._most(own)
        if keeps:
            most.pop(None, None)
        if not most or not _lacking(host, session, most.items()):
            return
        placed, new = [], []
        for plan in own:
            for file in plan.files:
                path = remote_path(plan.base_dir or '', file.remote)
                if file.kind == 'file' and plan.base_dir is None and not path.startswith(ELSEWHERE):
                    new += [] if keeps else [(None, self._size(file.local))]
                elif file.kind == 'file':
                    placed.append(Placed(file.local, path, file.kind))
        difference = look(host, build_manifest(self._local, placed), self._local).difference
        # What is taken for changed because of its time may be right.
        sent = [entry for entry in difference.send if entry.remote not in difference.suspects]
        lacking = _lacking(host, session, [*((entry.remote, self._size(entry.local)) for entry in sent), *new])
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

    def _most(self, own: Iterable[ComponentPlan]) -> dict[str | None, int]:
        """By folder, how much may come into it at most."""
        most: Counter[str | None] = Counter()
        for plan in own:
            total = 0
            for file in plan.files:
                if file.kind == 'file':
                    size = self._size(file.local)
                    if file.remote.startswith(ELSEWHERE):
                        most[posixpath.dirname(file.remote)] += size
                    else:
                        total += size
            if total:
                most[plan.base_dir] += total
        return dict(most)

    def _size(self, path: str) -> int:
        """Bytes of a file that are no hole, at most."""
        if path not in self._sizes:
            self._local.look(path)
            self._sizes[path] = self._local.data(path)
        return self._sizes[path]


def _lacking(host: Host, session: str, rows: Iterable[Row]) -> list[Any]:
    call = host.call('room', session=session)
    left = iter(rows)
    while part := list(islice(left, ROWS)):
        if not call.send(part, b''):
            break  # its answer says why
    call.finish()
    found: list[Any] = result_of(host, call)['lacking']
    return found
