"""Turns in sending to many hosts: whoever is sent to as fast as this machine can has company of a few others alone.

Encrypting for twenty hosts at once takes a third longer than for three at a time: threads of Python get in each other's
way. A host that takes what it is sent more slowly than this machine can send it needs no turn, and waits for nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Hosts that are sent to at full speed at a time.
LANES = 3
#: Bytes that show how fast a host takes them, and bytes a second below which it is slow: less than this machine can
#: send to each of few hosts.
SAMPLE = 4 << 20
SLOW = 50e6
#: Bytes after which it is another one's turn.
SHARE = 64 << 20
#: Seconds after which who waits looks whether there is still somebody to send to.
LOOK = 0.5


class Lanes:
    """What all who send together share. Thread-safe."""

    def __init__(self) -> None:
        self._free = threading.Semaphore(LANES)

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """For sending to one host."""
        lane = Lane(self._free)
        try:
            yield lane
        finally:
            lane.leave()


class Lane:
    """One host's; not thread-safe."""

    def __init__(self, free: threading.Semaphore) -> None:
        self._free = free
        self._has_turn = False
        self._is_slow = False
        self._left = 0
        self._bytes = 0
        self._seconds = 0.0

    def send(self, size: int, work: Callable[[], bool], is_over: Callable[[], bool]) -> bool:
        """Do `work`, which sends so many bytes, when it is the host's turn; `is_over`: nobody takes them any more."""
        if size and not self._is_slow and not self._has_turn:
            while not self._has_turn and not is_over():
                self._has_turn = self._free.acquire(timeout=LOOK)
            self._left = SHARE
        begun = time.monotonic()
        outcome = work()
        self._left -= size
        self._bytes += size
        self._seconds += time.monotonic() - begun
        if self._bytes >= SAMPLE:
            self._is_slow = self._bytes < SLOW * self._seconds
            self._bytes, self._seconds = 0, 0.0
        if self._has_turn and (self._is_slow or self._left <= 0):
            self.leave()
        return outcome

    def leave(self) -> None:
        """It is somebody else's turn."""
        if self._has_turn:
            self._has_turn = False
            self._free.release()
