"""One thread that serves many connections and waits for none of them: `Loop`, and `Stream`, a connection of it.

Other threads hand over work by `Loop.soon` and bytes by `Stream.put`; all else is for the thread of the loop alone.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
#: Bytes that may wait for who does not read before nothing more is taken from them.
MOST_WAITING = 8 << 20
_PIECE = 1 << 18


class Loop:
    """Calls whoever waits for a file, for a time, or for its turn. A context manager; `run` is its life."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._soon: deque[Callable[[], object]] = deque()
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self.watch(self._bell, READ, lambda events: os.eventfd_read(self._bell))

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        os.close(self._bell)

    def soon(self, work: Callable[[], object]) -> None:
        """Call `work` in the loop. From any thread, and from handlers of signals."""
        self._soon.append(work)
        os.eventfd_write(self._bell, 1)

    def later(self, seconds: float, work: Callable[[], object]) -> None:
        """Call `work` after so many seconds."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), work))

    def watch(self, file: int, events: int, work: Callable[[int], object]) -> None:
        """Call `work` with the events of a file (`READ`, `WRITE`) as they come; no events: no more."""
        known = file in self._selector.get_map()
        if not events:
            if known:
                self._selector.unregister(file)
        elif known:
            self._selector.modify(file, events, work)
        else:
            self._selector.register(file, events, work)

    def run(self, until: Callable[[], bool]) -> None:
        """Serve until that is so: it is looked at each time that something was done."""
        while not until():
            left = max(0.0, self._later[0][0] - time.monotonic()) if self._later else None
            for key, events in self._selector.select(left):
                if key.fileobj in self._selector.get_map():  # else it has gone by what was done before it
                    key.data(events)
            for _ in range(len(self._soon)):
                self._soon.popleft()()
            while self._later and self._later[0][0] <= time.monotonic():
                heapq.heappop(self._later)[2]()


class Stream:
    """A connection: what is to be sent waits here until the other side takes it.

    Args:
        loop: serves it.
        connection: is closed by `close`, or when nothing comes or goes over it any more.
        on_data: called in the loop with what came.
        on_end: called in the loop, once, when the other side is gone.
    """

    def __init__(
        self, loop: Loop, connection: socket.socket, on_data: Callable[[bytes], object], on_end: Callable[[], object]
    ) -> None:
        connection.setblocking(False)
        self._loop = loop
        self._connection = connection
        self._on_data = on_data
        self._on_end = on_end
        self._lock = threading.Lock()
        self._waiting: deque[memoryview] = deque()
        self._size = 0
        self._events = 0
        self._is_finished = False
        self._is_closed = False
        self._update()

    def put(self, data: bytes) -> None:
        """Send this, now or when there is room. From any thread."""
        with self._lock:
            if self._is_closed:
                return
            view = memoryview(data)
            if not self._waiting:
                view = view[self._send(view) :]
            if view:
                self._waiting.append(view)
                self._size += len(view)
                self._loop.soon(self._update)

    def finish(self) -> None:
        """Nothing follows: the other side reads to the end of it."""
        self._is_finished = True
        self._update()

    def close(self) -> None:
        """Close the connection; what waits is lost. Safe to call twice."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._waiting.clear()
            self._watch(0)
            self._connection.close()

    def _send(self, view: memoryview) -> int:
        try:
            return self._connection.send(view)
        except BlockingIOError:
            return 0
        except OSError:
            self._loop.soon(self._end)
            return len(view)

    def _update(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            while self._waiting:
                sent = self._send(self._waiting[0])
                self._size -= sent
                if sent < len(self._waiting[0]):
                    self._waiting[0] = self._waiting[0][sent:]
                    break
                self._waiting.popleft()
            if self._is_finished and not self._waiting:
                self._is_finished = False
                try:
                    self._connection.shutdown(socket.SHUT_WR)
                except OSError:
                    self._loop.soon(self._end)
            self._watch((WRITE if self._waiting else 0) | (READ if self._size < MOST_WAITING else 0))

    def _watch(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._loop.watch(self._connection.fileno(), events, self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._update()
        if events & READ and not self._is_closed:
            try:
                data = self._connection.recv(_PIECE)
            except BlockingIOError:
                return
            except OSError:
                data = b''
            if data:
                self._on_data(data)
            else:
                self._end()

    def _end(self) -> None:
        if not self._is_closed:
            self.close()
            self._on_end()
