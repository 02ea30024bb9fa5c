"""What a dispatcher has to tell its master: short messages, and what tasks brought, however large that is.

Nothing is read from the disk before there is room on the way, and the kernel hands what is large from file to socket:
it takes the same memory for a byte and a gigabyte.
"""

import errno
import os
import stat
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
_SHORTENED = 'somebody has shortened what it brought'
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
#: Why the kernel may not be able to hand a file over by itself: kinds of files.
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
#: Bytes of results in one frame of small ones.
TOGETHER = 1 << 17


class Outbox:
    """The frames on their way to one master, over a socket that does not block."""

    def __init__(self) -> None:
        self._messages: "Deque[Dict[str, Any]]" = deque()
        self._ended: "Deque[Attempt]" = deque()
        self._frames: "Iterator[bytes]" = iter(())
        self._waiting = b''
        self._at = 0
        #: A file of which bytes follow what waits, and how many.
        self._file = -1
        self._left = 0
        #: Whether it had less of them than it was said to have.
        self._is_cut = False

    def say(self, message: "Dict[str, Any]") -> None:
        """A short message; it overtakes results."""
        self._messages.append(message)

    def tell(self, attempt: "Attempt") -> None:
        """An attempt has ended."""
        self._ended.append(attempt)

    @property
    def is_empty(self) -> bool:
        """Whether all was handed over."""
        return not (self._messages or self._ended or self._has_waiting() or self._has_frames())

    def _has_waiting(self) -> bool:
        return self._at < len(self._waiting) or self._left > 0

    def _has_frames(self) -> bool:
        """Whether a large result is under way; takes its next frame, as nothing else waits."""
        self._waiting, self._at = next(self._frames, b''), 0
        return self._has_waiting()

    def flush(self, sock: "_socket.socket") -> None:
        """Hand over what there is room for. Raises OSError: the other side is gone."""
        while self._has_waiting() or self._fill():
            try:
                if self._at < len(self._waiting):
                    self._at += sock.send(memoryview(self._waiting)[self._at :])
                else:
                    self._left -= self._hand_over(sock)
            except BlockingIOError:
                return

    def _hand_over(self, sock: "_socket.socket") -> int:
        """Hand over more of the file; how much. What is missing in it is filled up."""
        try:
            count = os.sendfile(sock.fileno(), self._file, None, self._left)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            self._waiting, self._at = os.read(self._file, self._left), 0
            count = len(self._waiting)
        if not count:
            self._is_cut = True
            self._waiting, self._at = bytes(self._left), 0
            count = self._left
        return count

    def _fill(self) -> bool:
        frame = b''
        waiting = [frames.encode(message) for message in self._messages]
        self._messages.clear()
        frame = next(self._frames, b'')
        if not frame and self._ended:
            self._frames = self._take()
            frame = next(self._frames, b'')
        self._waiting, self._at = b''.join([*waiting, frame]), 0
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
                    yield from self._in_pieces(attempt, name, expected)
            self._ended.popleft()
            sizes: "List[Tuple[str, int, bool]]" = []
            for name, expected in attempt.sizes:
                is_small = expected <= SMALL
                sizes.append((name, expected, is_small))
                if is_small and expected:
                    # What is missing although it was there is filled up, and told to be no result.
                    content = _read(attempt.file(attempt.results[name]), expected)
                    if len(content) < expected:
                        attempt.cause, attempt.why = RESOURCES, _SHORTENED
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

    def _in_pieces(self, attempt: "Attempt", name: str, expected: int) -> "Iterator[bytes]":
        """What comes before each piece of a large result; the piece itself is left to be handed over from its file."""
        header: "Dict[str, object]" = {'piece': [attempt.key[0], attempt.key[1], name]}
        try:
            self._file = os.open(attempt.file(attempt.results[name]), _READ)
        except OSError:
            return  # fewer bytes come than were promised, which the master sees
        try:
            self._is_cut = not stat.S_ISREG(os.fstat(self._file).st_mode)
            while expected > 0 and not self._is_cut:
                self._left = min(PIECE, expected)
                expected -= self._left
                yield frames.begin(header, self._left)
        finally:
            os.close(self._file)
            self._file = -1
        if self._is_cut:
            attempt.cause, attempt.why = RESOURCES, _SHORTENED


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
