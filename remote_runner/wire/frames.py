"""The frames that a master and an agent exchange: a JSON header and a binary body, both length-prefixed.

Layout, all numbers big-endian: uint32 length of the header, uint32 length of the body, the header (a JSON object in
ASCII), the body (any bytes). Three kinds of header go over one connection:

* a request `{"id": 7, "op": "compare", ...}` and its one answer `{"id": 7, "result": ...}` or
  `{"id": 7, "error": {"what": ..., "errno": ..., "kind": ...}}`;
* pieces of a stream that belongs to a request, in either direction: `{"id": 7, "part": ...}` with the piece as body,
  and the credits that the receiver gives back for what it has dealt with: `{"id": 7, "credit": 65536}`;
* events that come unasked: `{"event": "hello", ...}`.

A sender of stream pieces never has more than `WINDOW` bytes without credit under way, so whoever reads frames can
always take the next one: a full pipe in one direction never blocks the other.

Text that is not valid UTF-8 (paths, arguments) travels as lone surrogates (PEP 383).
"""

import struct

from remote_runner.wire.compact_json import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional

PREFIX = struct.Struct('>II')
#: Bytes of a stream that may be under way without credit. Less than the window of an SSH channel (2 MiB with OpenSSH),
#: so there is always room for other frames: a stream to a side that does not read holds up nothing else.
WINDOW = 1 << 20
#: Bytes of one stream piece.
PIECE = 1 << 16
#: Larger frames are a sign that the two sides do not speak the same language.
MAX_HEADER = 256 << 20
MAX_BODY = 64 << 20


class FrameError(ValueError):
    """What came is not a frame."""


def encode(header: "dict[str, object]", body: "bytes | memoryview" = b'') -> bytes:
    """The bytes of one frame."""
    return begin(header, len(body)) + body


def begin(header: "dict[str, object]", size: int) -> bytes:
    """What comes before the body of a frame."""
    text = dumps(header).encode('ascii')
    return PREFIX.pack(len(text), size) + text


class Decoder:
    """Cuts a stream of bytes into frames, whatever the sizes in which the bytes come.

    Args:
        max_header, max_body: bytes that a frame has at most.
        may_be_cut: whether a frame of this header may be told as several, each with some of its body, as that comes.
    """

    def __init__(
        self,
        max_header: int = MAX_HEADER,
        max_body: int = MAX_BODY,
        may_be_cut: "Optional[Callable[[dict[str, object]], bool]]" = None,
    ) -> None:
        self._max_header = max_header
        self._max_body = max_body
        self._may_be_cut = may_be_cut
        #: The header of a frame that is told in pieces, and how much is missing of it.
        self._header: "dict[str, object]" = {}
        self._missing = 0
        self._pieces: "list[bytes]" = []
        self._have = 0
        self._need = PREFIX.size

    def feed(self, data: bytes) -> "list[tuple[dict[str, object], bytes]]":
        """Take in more bytes; the frames that are complete now, each as (header, body).

        Raises:
            FrameError: the bytes are not frames.
        """
        frames = []
        if self._missing:
            if len(data) <= self._missing:
                self._missing -= len(data)
                return [(self._header, data)] if data else []
            frames.append((self._header, data[: self._missing]))
            data, self._missing = data[self._missing :], 0
        self._pieces.append(data)
        self._have += len(data)
        if self._have < self._need:
            return frames
        buffer = b''.join(self._pieces)
        start = 0
        while True:
            if len(buffer) - start < PREFIX.size:
                self._need = PREFIX.size
                break
            header_size, body_size = PREFIX.unpack_from(buffer, start)
            if header_size > self._max_header or body_size > self._max_body:
                raise FrameError('a frame of {} + {} bytes'.format(header_size, body_size))
            body_start = start + PREFIX.size + header_size
            self._need = PREFIX.size + header_size + body_size
            if len(buffer) - start < self._need:
                if self._may_be_cut is None:
                    break
                if len(buffer) < body_start:
                    self._need = PREFIX.size + header_size
                    break
                header = _header(buffer[start + PREFIX.size : body_start])
                if not self._may_be_cut(header):
                    break
                self._header, self._missing = header, body_start + body_size - len(buffer)
                if len(buffer) > body_start:
                    frames.append((header, buffer[body_start:]))
                self._need = PREFIX.size
                start = len(buffer)
                break
            frames.append((_header(buffer[start + PREFIX.size : body_start]), buffer[body_start : start + self._need]))
            start += self._need
        rest = buffer[start:]
        self._pieces = [rest] if rest else []
        self._have = len(rest)
        return frames


def _header(text: bytes) -> "dict[str, object]":
    try:
        header = loads(text.decode('ascii'))
    except ValueError:
        raise FrameError('a header that is not JSON: {!r}'.format(text[:80])) from None
    if not isinstance(header, dict):
        raise FrameError('a header that is no object: {!r}'.format(text[:80]))
    return header
