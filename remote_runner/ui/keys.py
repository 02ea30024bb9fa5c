"""What keys mean while a terminal is relayed: which reach the program, and which leave it."""

from __future__ import annotations

from enum import Enum, auto
from typing import Protocol

_NEWLINES = b'\r\n'
_ESCAPE = ord('~')
_LEAVE = ord('.')


class Keys(Protocol):
    """Takes the bytes that a terminal sends for keys."""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What of it goes to the program, and whether the user leaves; what follows that is dropped."""


class EscapedKeys:
    """All go to the program, but after Enter `~.` leaves and `~~` is one `~`, see ESCAPE CHARACTERS in ssh(1)."""

    def __init__(self) -> None:
        self._at_start = True  # of a line
        self._pending = False  # a `~` there, whose meaning the next key tells

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """See `Keys.feed`."""
        passed = bytearray()
        for byte in data:
            if self._pending:
                self._pending = False
                if byte == _LEAVE:
                    return bytes(passed), True
                if byte != _ESCAPE:
                    passed.append(_ESCAPE)
            elif self._at_start and byte == _ESCAPE:
                self._pending = True
                continue
            self._at_start = byte in _NEWLINES
            passed.append(byte)
        return bytes(passed), False


class _Place(Enum):
    """Where in the bytes of a terminal one is (ECMA-48, 5)."""

    GROUND = auto()
    ESCAPE = auto()
    CONTROL_SEQUENCE = auto()
    CONTROL_STRING = auto()
    END_OF_STRING = auto()


_CTRL_A, _CTRL_C, _CTRL_D, _BELL, _ESC = 0x01, 0x03, 0x04, 0x07, 0x1B


class WatchingKeys:
    """None goes to the program; `q`, Ctrl-C, and Ctrl-a d (screen's own way to detach) leave.

    What a terminal sends by itself (answers, the mouse) or for other keys begins with Escape, and is skipped whole:
    a `q` in there is nobody's.
    """

    def __init__(self) -> None:
        self._place = _Place.GROUND
        self._prefixed = False

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """See `Keys.feed`."""
        return b'', any(self._leaves(byte) for byte in data)

    def _leaves(self, byte: int) -> bool:
        is_key = self._place is _Place.GROUND and byte != _ESC
        self._place = _next(self._place, byte)
        if not is_key:
            self._prefixed = False
            return False
        leaves = byte in (ord('q'), _CTRL_C) or (self._prefixed and byte in (ord('d'), _CTRL_D))
        self._prefixed = byte == _CTRL_A
        return leaves


def _next(place: _Place, byte: int) -> _Place:
    if place is _Place.CONTROL_STRING:
        if byte == _BELL:
            return _Place.GROUND
        return _Place.END_OF_STRING if byte == _ESC else place
    if byte == _ESC:
        return _Place.ESCAPE
    if place is _Place.ESCAPE:
        if byte in b'[O':
            return _Place.CONTROL_SEQUENCE
        return _Place.CONTROL_STRING if byte in b'P]X^_' else _Place.GROUND
    if place is _Place.CONTROL_SEQUENCE:
        return _Place.GROUND if 0x40 <= byte <= 0x7E or byte < 0x20 else place
    return _Place.GROUND  # the second byte of an end of string is one of no other meaning
