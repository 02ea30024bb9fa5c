"""The terminal of the person who runs us: raw mode and back, its size, and what a program leaves of itself in it.

See termios(3) and tty_ioctl(2); the sequences are those of xterm and of all that are like it (ECMA-48; DECSET and
DECRST).
"""

from __future__ import annotations

import errno
import re
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_IFLAG, _OFLAG, _CFLAG, _LFLAG, _CC = 0, 1, 2, 3, 6
_MEANINGS_OF_INPUT = (
    termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.INPCK | termios.ISTRIP | termios.INLCR
    | termios.IGNCR | termios.ICRNL | termios.IXON | termios.IXOFF | termios.IXANY
)  # fmt: skip
_MEANINGS_OF_KEYS = termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN


@contextmanager
def raw(terminal: int) -> Iterator[Callable[[], None]]:
    """While this lasts, every byte passes the terminal as it is, both ways; nothing that was typed ahead is lost.

    What it gives does so again, for when somebody else has changed the terminal meanwhile. Neither waits until the
    terminal has taken what was printed (TCSADRAIN): one that stalls never does, and Linux heeds OPOST at once.

    Raises:
        termios.error: it is no terminal.
    """
    before = termios.tcgetattr(terminal)

    def enter() -> None:
        termios.tcsetattr(terminal, termios.TCSANOW, _raw(before))

    try:
        enter()
        yield enter
    finally:
        try:
            termios.tcsetattr(terminal, termios.TCSANOW, before)
        except termios.error as error:
            if error.args[0] != errno.EIO:  # that is: the terminal is gone, and has no mode any more
                raise


def _raw(attributes: list[Any]) -> list[Any]:
    """As cfmakeraw(3)."""
    made = list(attributes)
    made[_IFLAG] &= ~_MEANINGS_OF_INPUT
    made[_OFLAG] &= ~termios.OPOST
    made[_CFLAG] = made[_CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    made[_LFLAG] &= ~_MEANINGS_OF_KEYS
    made[_CC] = list(made[_CC])
    made[_CC][termios.VMIN], made[_CC][termios.VTIME] = 1, 0
    return made


def size(terminal: int) -> tuple[int, int]:
    """Columns and rows.

    Raises:
        termios.error: it is no terminal.
    """
    rows, columns = termios.tcgetwinsize(terminal)
    return columns, rows


_CONTROL = re.compile(rb'\x1b\[(\?[\d;]+[hl]|[\d;]*H)')
_CONTROL_BEGUN = re.compile(rb'\x1b(\[\??[\d;]*)?\Z')
#: Lines wrap, the cursor is seen: what is switched on as a rule. All other modes are switched off.
_USUALLY_ON = frozenset({b'7', b'25'})
#: The other screen, that of programs which fill it, in three forms.
_OTHER_SCREEN = frozenset({b'47', b'1047', b'1049'})
#: Bytes of a sequence, at most: more is no such sequence.
_LONGEST = 64
#: Plain characters, ASCII, the keypad's digits; all lines scroll.
_PLAIN = b'\x1b[m\x1b(B\x0f\x1b>\x1b[r'
#: Below the last line, wherever that is.
_BELOW_ALL = b'\x1b[999;1H\r\n'


class Picture:
    """What a program has done to a terminal, as its output tells: modes that it switched, lines that it wrote over.

    A program that ends puts it away. One that we leave, or lose, cannot: the cursor would stay hidden, the mouse
    would type, and what the shell prints would stand in the middle.
    """

    def __init__(self) -> None:
        self._switched: dict[bytes, None] = {}  # in this order
        self._fills = False  # it moves the cursor where it likes
        self._begun = b''  # a sequence of which the end is to come

    def note(self, output: bytes) -> None:
        """Some output has gone to the terminal."""
        text = self._begun + output
        for control in _CONTROL.findall(text):
            if control.endswith(b'H'):
                self._fills = True
                continue
            for mode in control[1:-1].split(b';'):
                self._switched.pop(mode, None)
                if control.endswith(b'h') != (mode in _USUALLY_ON):
                    self._switched[mode] = None
        begun = _CONTROL_BEGUN.search(text[-_LONGEST:])
        self._begun = begun.group() if begun else b''

    def put_away(self) -> bytes:
        """What is to go to the terminal so that a shell can go on in it."""
        last_first = list(reversed(self._switched))
        other_screen = [mode for mode in last_first if mode in _OTHER_SCREEN]
        modes = [mode for mode in last_first if mode not in _OTHER_SCREEN] + other_screen
        back = b''.join(b'\x1b[?%b%b' % (mode, b'h' if mode in _USUALLY_ON else b'l') for mode in modes)
        if other_screen:
            return _PLAIN + back
        return _PLAIN + back + _BELOW_ALL if self._fills else back + b'\r\n'
