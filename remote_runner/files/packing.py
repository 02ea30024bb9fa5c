"""Files on their way to being compared: packed column by column (`wire/columns.py`), so many in one part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from remote_runner.wire.columns import ROWS, pack

#: What goes to a host at once: the header and the body of `wire/columns.py`.
Part = tuple[list[list[Any]], bytes]


class Packing:
    """Makes parts of files that come folder by folder."""

    def __init__(self) -> None:
        self._places: list[list[Any]] = []
        self._columns: tuple[list[Any], ...] = ([], [], [], [], [])

    def add(self, folder: str, *columns: Sequence[Any]) -> Iterator[Part]:
        """Files of a folder of a host: sizes, modification times, permission bits, SHA-1s and names.

        The parts that are full now.
        """
        count, at = len(columns[0]), 0
        while at < count:
            end = min(count, at + ROWS - len(self._columns[0]))
            for whole, more in zip(self._columns, columns, strict=True):
                whole += more if end - at == count else more[at:end]
            self._places.append([folder or '/', end - at])
            at = end
            if len(self._columns[0]) == ROWS:
                yield self._part()

    def rest(self) -> Iterator[Part]:
        """The last part, if there is something left."""
        if self._places:
            yield self._part()

    def _part(self) -> Part:
        part = self._places, pack(*self._columns)
        self._places, self._columns = [], ([], [], [], [], [])
        return part
