"""A limit of the bytes that a command sends in a second, to all hosts together."""

from __future__ import annotations

import math
import re
import threading
import time

#: What suffixes of rates multiply with (rsync's): alone or with `ib` powers of 1024, with `b` powers of 1000.
_POWERS = {'k': 1, 'm': 2, 'g': 3, 't': 4, 'p': 5}
_RATE = re.compile(r'(\d+(?:\.\d*)?|\.\d+)(?:([kmgtp])(i?b)?|(b))?', re.ASCII | re.IGNORECASE)
#: Parts of what is sent in a second: each is sent whole.
_PARTS = 8
#: Bytes of the smallest part.
_LEAST = 4096


def parse_rate(text: str) -> float:
    """Bytes a second, written as for rsync's `--bwlimit`: `100` (KiB), `1.5m` (MiB), `2mb` (1000000 bytes), `512b`.

    Raises:
        ValueError: it is something else.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f'{text!r} is no rate: a number of KiB/s, or one with a suffix, such as 500k, 1.5m or 1g')
    number, suffix, kind, plain = found.groups()
    if plain:
        return float(number)
    base = 1000 if (kind or '').lower() == 'b' else 1024
    return float(number) * math.pow(base, _POWERS[(suffix or 'k').lower()])


class Limit:
    """Keeps all threads that send together below a rate. Thread-safe.

    Args:
        rate: bytes a second.

    Attributes:
        part: bytes that should be sent at once, at most.
    """

    def __init__(self, rate: float) -> None:
        self.part = max(_LEAST, int(rate / _PARTS))
        self._rate = rate
        self._lock = threading.Lock()
        self._free = 0.0  # when all that was asked for so far has had its time
        self._over = threading.Event()

    def __call__(self, size: int) -> None:
        """So many bytes are about to be sent: wait for their turn."""
        with self._lock:
            begin = max(self._free, time.monotonic())
            self._free = begin + size / self._rate
        self._over.wait(max(0.0, begin - time.monotonic()))

    def end(self) -> None:
        """Nobody waits any more: what is under way is given up."""
        self._over.set()
