"""The end of a stream, for error messages."""

from __future__ import annotations

import threading

KEPT = 64 * 1024  # bytes


class Tail:
    """Keeps the last 64 KiB of what it is given. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        """Append `data`, forgetting what is too old."""
        with self._lock:
            self._data += data
            if len(self._data) > KEPT:
                del self._data[:-KEPT]

    def bytes(self) -> bytes:
        """What is kept."""
        with self._lock:
            return bytes(self._data)
