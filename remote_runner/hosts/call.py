"""Requests to an agent that are under way: see `wire/frames.py` for what goes over the connection."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from remote_runner.errors import ConnectionLost, HostError, HostSilent, RequestFailed
from remote_runner.wire import frames

Header = dict[str, Any]
#: Seconds that a thread waits before it looks again: a signal that comes just before a wait without time limit begins
#: would be seen only at its end.
INTERRUPTIBLE = 0.5
#: Seconds that a frame of a request with a time limit may wait for another that is being written.
FRAME_TIMEOUT = 3.0


class Writes(Protocol):
    """What a request needs of its host."""

    name: str

    def write(self, header: Header, body: bytes | memoryview = b'', timeout: float | None = None) -> None: ...


class Call:
    """A request under way: its parts in both directions, and its one answer."""

    def __init__(
        self,
        host: Writes,
        number: int,
        op: str,
        on_end: Callable[[], None] | None = None,
        on_part: Callable[[Any, bytes], None] | None = None,
        *,
        is_stream: bool = False,
    ) -> None:
        #: Whether it does not matter where its parts end.
        self.is_stream = is_stream
        self._on_end = on_end
        self._on_part = on_part
        self._host = host
        self._number = number
        self._op = op
        self._changed = threading.Condition()
        self._credit = frames.WINDOW
        self._cancelled = False
        self._parts: deque[tuple[Any, bytes]] = deque()
        self._answer: Header | None = None
        self._lost: HostError | None = None
        #: Bytes that the host has dealt with, of those sent as parts.
        self.delivered = 0

    # Called by the reading thread.

    def take(self, header: Header, body: bytes) -> None:
        """A frame that belongs to this request."""
        if self._on_part is not None and 'part' in header:
            self._on_part(header['part'], body)
            return
        with self._changed:
            if 'credit' in header:
                self._credit += header['credit']
                self.delivered += header['credit']
            elif 'part' in header:
                self._parts.append((header['part'], body))
            else:
                self._answer = header
            self._changed.notify_all()
        if self._on_end is not None and self.ended:
            self._on_end()

    def lose(self, error: HostError) -> None:
        """The connection is gone; nothing will come any more."""
        with self._changed:
            self._lost = error
            self._changed.notify_all()
        if self._on_end is not None:
            self._on_end()

    # Called by whoever asked.

    @property
    def answered(self) -> bool:
        """True once the answer is there."""
        return self._answer is not None

    @property
    def ended(self) -> bool:
        """True once the answer is there, or never comes."""
        return self._answer is not None or self._lost is not None

    @property
    def failed(self) -> bool:
        """True once it is known that there will be no result."""
        return self._lost is not None or (self._answer is not None and 'error' in self._answer)

    def send(self, part: Any, body: bytes | memoryview, timeout: float | None = None) -> bool:
        """Send a part, waiting for credit; False when no more are wanted: the answer then says why.

        Raises:
            ConnectionLost: the connection broke.
            HostSilent: the host has taken nothing for `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._credit >= len(body) or self.ended or self._cancelled, timeout
            ):
                raise HostSilent('it does not take what is sent to it', host=self._host.name)
            if self._lost is not None:
                raise self._lost
            if self._answer is not None or self._cancelled:
                return False
            self._credit -= len(body)
        self._host.write({'id': self._number, 'part': part}, body)
        return True

    def finish(self) -> None:
        """No more parts follow."""
        if not self.ended and not self._cancelled:
            self._host.write({'id': self._number, 'part': None})

    def parts(self) -> Iterator[tuple[Any, bytes]]:
        """The parts that come, until the answer is there.

        Raises:
            ConnectionLost: the connection broke.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._parts or self.ended)
                if not self._parts:
                    if self._lost is not None:
                        raise self._lost
                    return
                part, body = self._parts.popleft()
            yield part, body
            self.give_credit(len(body))

    def give_credit(self, size: int) -> None:
        """So many bytes of the parts that came have been dealt with: for who hears of them by `on_part`.

        Raises:
            ConnectionLost: the connection broke.
        """
        if not self.ended:
            self._host.write({'id': self._number, 'credit': size})

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the answer.

        Raises:
            ConnectionLost: the connection broke.
            RequestFailed: the agent says that it cannot be done.
            HostSilent: no answer within `timeout` seconds; the request is cancelled.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self.ended:
                left = deadline - time.monotonic()
                if left <= 0:
                    with contextlib.suppress(HostError):
                        self.cancel()
                    raise HostSilent(f'no answer to «{self._op}» within {timeout:g} s', host=self._host.name)
                self._changed.wait(min(left, INTERRUPTIBLE))
            if self._answer is None:
                raise self._lost or ConnectionLost('the connection is gone', host=self._host.name)
        if 'error' in self._answer:
            error = self._answer['error']
            raise RequestFailed(
                error['what'], host=self._host.name, errno_name=error.get('errno', ''), kind=error.get('kind', '')
            )
        return self._answer['result']

    def cancel(self) -> None:
        """Tell the agent to give it up; its answer then says that it did.

        Raises:
            ConnectionLost, HostSilent: the agent cannot be told any more.
        """
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()
        if not self.ended:
            self._host.write({'id': self._number, 'cancel': True}, timeout=FRAME_TIMEOUT)


class Relayed(Call):
    """A request of somebody else: what comes for it is handed on as it is, and what belongs to it is written as it is.

    Args:
        on_frame: called by the reading thread with each frame that comes: parts, credit, the answer. It must not wait.
        on_lost: called by it where the connection broke: nothing comes any more.
    """

    def __init__(
        self,
        host: Writes,
        number: int,
        on_frame: Callable[[Header, bytes], None],
        on_lost: Callable[[HostError], None],
    ) -> None:
        super().__init__(host, number, 'a request of somebody else')
        #: The id of its frames.
        self.number = number
        self._on_frame = on_frame
        self._on_lost = on_lost

    def take(self, header: Header, body: bytes) -> None:
        """A frame that belongs to this request."""
        if 'part' not in header and 'credit' not in header:
            super().take(header, body)
        self._on_frame(header, body)

    def lose(self, error: HostError) -> None:
        """The connection is gone; nothing will come any more."""
        super().lose(error)
        self._on_lost(error)
