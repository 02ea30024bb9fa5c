"""What a dispatcher has to tell its master: short messages, and what tasks brought, however large that is.

Nothing is read from the disk before there is room on the way, so it takes the same memory for a byte and a gigabyte.
"""

import os
import time
from _collections import deque

from remote_runner.agent.attempt import RESOURCES
from remote_runner.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Deque, Dict, Iterator, List, Tuple

    import _socket

    from remote_runner.agent.attempt import Attempt

#: Bytes of a result that travels with the word that its task has ended; larger ones come before it, in pieces.
SMALL = 1 << 15
PIECE = 1 << 18
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
#: Bytes of results in one frame of small ones.
TOGETHER = 1 << 17


class Outbox:
    """The frames on their way to one master."""

    def __init__(self) -> None:
        self._messages: "Deque[Dict[str, Any]]" = deque()
        self._ended: "Deque[Attempt]" = deque()
        self._pieces: "Iterator[bytes]" = iter(())
        self._waiting = b''
        self._at = 0

    def say(self, message: "Dict[str, Any]") -> None:
        """A short message; it overtakes results."""
        self._messages.append(message)

    def tell(self, attempt: "Attempt") -> None:
        """An attempt has ended."""
        self._ended.append(attempt)

    @property
    def is_empty(self) -> bool:
        """Whether all was handed over."""
        return not (self._messages or self._ended or self._at < len(self._waiting)) and not self._has_pieces()

    def _has_pieces(self) -> bool:
        """Whether a large result is under way; takes its next piece, if nothing else waits."""
        if self._at == len(self._waiting):
            self._waiting, self._at = next(self._pieces, b''), 0
        return self._at < len(self._waiting)

    def flush(self, sock: "_socket.socket", flags: int) -> None:
        """Hand over what there is room for. Raises OSError: the other side is gone."""
        while True:
            if self._at == len(self._waiting) and not self._fill():
                return
            try:
                self._at += sock.send(memoryview(self._waiting)[self._at :], flags)
            except BlockingIOError:
                return

    def _fill(self) -> bool:
        self._waiting, self._at = b'', 0
        pieces = []
        while self._messages:
            pieces.append(frames.encode(self._messages.popleft()))
        piece = next(self._pieces, b'')
        if piece:
            pieces.append(piece)
        elif self._ended:
            self._pieces = self._take()
            pieces.append(next(self._pieces, b''))
        self._waiting = b''.join(pieces)
        return bool(self._waiting)

    def _take(self) -> "Iterator[bytes]":
        """The frames of the next attempts that have ended: one of which much came, or some of which little came."""
        items: "List[List[Any]]" = []
        bodies: "List[bytes]" = []
        size = 0
        while self._ended and size < TOGETHER and len(items) < 1000:
            attempt = self._ended[0]
            if attempt.is_unwanted:
                self._ended.popleft()
                continue
            large = [item for item in attempt.sizes if item[1] > SMALL]
            if large:
                if items:
                    break  # these first
                for name, expected in large:
                    yield from _in_pieces(attempt, name, expected)
            self._ended.popleft()
            sizes: "List[Tuple[str, int, bool]]" = []
            for name, expected in attempt.sizes:
                is_small = expected <= SMALL
                sizes.append((name, expected, is_small))
                if is_small and expected:
                    # What is missing although it was there is filled up, and told to be no result.
                    content = _read(attempt.file(attempt.results[name]), expected)
                    if len(content) < expected:
                        attempt.cause, attempt.why = RESOURCES, 'somebody has shortened what it brought'
                    bodies.append(content.ljust(expected))
                    size += expected
            size += len(attempt.tail)
            now = time.monotonic()
            items.append(
                [
                    attempt.key[0],
                    attempt.key[1],
                    attempt.slot,
                    attempt.cause,
                    attempt.status,
                    attempt.why,
                    now - attempt.began,
                    attempt.ended - attempt.began,
                    sizes,
                    attempt.tail,
                ]
            )
            if large:
                break
        if items:
            header: "Dict[str, Any]" = {'ended': items}
            yield frames.encode(header, b''.join(bodies))


def _read(path: str, expected: int) -> bytes:
    """So many bytes of a file, or what there is of them."""
    try:
        fd = os.open(path, _READ)
    except OSError:
        return b''
    try:
        return os.read(fd, expected)
    finally:
        os.close(fd)


def _in_pieces(attempt: "Attempt", name: str, expected: int) -> "Iterator[bytes]":
    header: "Dict[str, object]" = {'piece': [attempt.key[0], attempt.key[1], name]}
    try:
        fd = os.open(attempt.file(attempt.results[name]), _READ)
    except OSError:
        return  # fewer bytes come than were promised, which the master sees
    try:
        while expected > 0:
            data = os.read(fd, min(PIECE, expected))
            if not data:
                return
            expected -= len(data)
            yield frames.encode(header, data)
    finally:
        os.close(fd)
