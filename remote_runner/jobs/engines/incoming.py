"""What a dispatcher says, made into facts; large results go into files as they come.

See `agent/job.py` and `agent/outbox.py` for the frames.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

from remote_runner.jobs.engines.base import Ended, Fact, HostUp, Started
from remote_runner.jobs.policy import Cause, Outcome
from remote_runner.wire import frames

_serial = itertools.count()
GOOD = Outcome(None, 0)


class Incoming:
    """One connection to a dispatcher, as far as it is heard. One thread uses it.

    Args:
        host: the host, as the user wrote it.
        folder: where files of results are put, for the journal to take over.

    Attributes:
        heard: when a sign of life came (time.monotonic).
        is_welcome: the dispatcher takes orders.
        refused: why it does not, if it says so.
        is_closed: it has heard that nothing more is wanted.
    """

    def __init__(self, host: str, folder: Path) -> None:
        self._host = host
        self._folder = folder
        self._decoder = frames.Decoder(may_be_cut=lambda header: 'piece' in header)
        self._files: dict[tuple[int, int, str], _Piecewise] = {}
        self.heard = time.monotonic()
        self.is_welcome = self.is_closed = False
        self.refused = ''
        self.slots = 1

    @property
    def standing(self) -> tuple[bool, str, bool]:
        """How we stand with it: where that changes, somebody may have waited for it."""
        return self.is_welcome, self.refused, self.is_closed

    def take(self, data: bytes) -> list[Fact]:
        """The facts in what came.

        Raises:
            FrameError, KeyError, ValueError, TypeError: it is not understood.
            OSError: a result could not be stored here.
        """
        found: list[Fact] = []
        self.heard = time.monotonic()
        for header, body in self._decoder.feed(data):
            self._hear(header, body, found)
        return found

    def _hear(self, header: dict[str, Any], body: bytes, found: list[Fact]) -> None:
        if 'ended' in header:
            self._end(header['ended'], body, found)
        elif 'piece' in header:
            self._store(header['piece'], body)
        elif 'began' in header:
            found += [Started(number, attempt, self._host, ago) for number, attempt, ago in header['began']]
        elif 'welcome' in header:
            self.is_welcome = True
            have = frozenset((number, attempt) for number, attempt in header['welcome']['have'])
            found.append(HostUp(self._host, self.slots, have))
        elif 'refused' in header:
            self.refused = header['refused']
        elif 'closed' in header:
            self.is_closed = True

    def _store(self, piece: list[Any], body: bytes) -> None:
        key = (piece[0], piece[1], piece[2])
        file = self._files.get(key)
        if file is None:
            # Of a name of its own: what is told twice must not be written into what was told first.
            file = self._files[key] = _Piecewise(self._folder / f'{piece[0]}.{piece[1]}.{next(_serial)}')
        file.add(body)

    def _end(self, items: list[list[Any]], body: bytes, found: list[Fact]) -> None:
        now = time.time()
        offset = 0
        for number, attempt, slot, cause, status, why, ago, seconds, sizes, tail in items:
            outcome = GOOD if cause is None else Outcome(Cause(cause), status, why)
            results: dict[str, bytes | Path] = {}
            files = []
            for name, size, is_inline in sizes:
                if is_inline:
                    results[name] = body[offset : offset + size]
                    offset += size
                    continue
                file = self._files.pop((number, attempt, name), None)
                if file is None or file.close() != size:
                    outcome = Outcome(Cause.LOST, None, f'not all of its {name} came')
                else:
                    results[name] = file.path
                if file is not None:
                    files.append(file.path)
            if outcome.cause is not None:
                results = _NONE  # part of them, or of an attempt that was found wanting when they were read
                for path in files:
                    path.unlink(missing_ok=True)
            found.append(
                Ended(
                    number, attempt, self._host, slot, outcome, now - ago, seconds, results if sizes else _NONE, tail
                )
            )

    def close(self) -> None:
        """Nothing more comes: what came in part is forgotten."""
        for file in self._files.values():
            file.close()
            file.path.unlink(missing_ok=True)
        self._files.clear()


_NONE: dict[str, bytes | Path] = {}


class _Piecewise:
    """A file that is written piece by piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open('wb', buffering=0)  # pieces are large
        self._size = 0

    def add(self, data: bytes) -> None:
        self._size += len(data)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def close(self) -> int:
        """How many bytes there are."""
        self._file.close()
        return self._size
