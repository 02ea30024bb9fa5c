"""Text as people read it: made harmless, measured in columns, and with numbers in units."""

from __future__ import annotations

import re
import unicodedata

# What a terminal obeys instead of showing (C0, DEL, C1), what turns the direction of a line round (UAX #9), what breaks
# a line (UAX #14), and what cannot be encoded.
_TAB = '\t'
_HARMFUL = re.compile('[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')

# What a terminal obeys (ECMA-48): colours, the only group; other control sequences, command strings, single escapes,
# each also where it is not whole, since it would take in what follows; C1 in UTF-8; C0 and DEL but for tab and return.
_OBEYED = re.compile(
    rb'(\x1b\[[0-9;:]*m)|\x1b\[[0-?]*[ -/]*[@-~]?|\x1b[]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?'
    rb'|\xc2[\x80-\x9f]|[\x00-\x08\x0a-\x0c\x0e-\x1a\x1c-\x1f\x7f]'
)


def harmless(text: str, keep: str = '') -> str:
    """`text` as a terminal can show it whatever is in it: control characters appear as `\\x1b`, they do nothing.

    Args:
        text: from anywhere; bytes that were no UTF-8 may stand there as surrogates, they appear as `\\xff`.
        keep: control characters that are wanted, such as a newline.
    """
    return _HARMFUL.sub(lambda match: match[0] if match[0] in keep else _escaped(match[0]), text)


def tame(line: bytes, *, color: bool) -> bytes:
    """A line without its end, without what a terminal would obey but for colours, if these are wanted."""
    return _OBEYED.sub(lambda found: found[1] or b'' if color else b'', line)


def first_line(text: str) -> str:
    """The first line of `text`, harmless."""
    return harmless(text.strip().partition('\n')[0])


def indented(text: str) -> list[str]:
    """The lines that a program printed, as messages show them. Of a line that rewrote itself the last state counts."""
    lines = [line.rstrip('\r').rpartition('\r')[2] for line in text.rstrip().split('\n')]
    return [f'    | {harmless(line, keep=_TAB)}'.rstrip() for line in lines] if text.strip() else []


def width(text: str) -> int:
    """The columns that `text` takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def size(count: int) -> str:
    """So many bytes: `512 B`, `12.3 kB`, `1.2 GB` (1 kB is 1000 bytes)."""
    if count < 1000:
        return f'{count} B'
    number = float(count)
    for unit in ('kB', 'MB', 'GB'):
        number /= 1000
        if number < 999.95:
            return f'{number:.1f} {unit}'
    return f'{number / 1000:.1f} TB'


def seconds(number: float) -> str:
    """A length of time that was measured: `0.12 s`, `12.3 s`, `2 min 05 s`, `3 h 02 min`."""
    if number < 9.995:
        return f'{number:.2f} s'
    if number < 59.95:
        return f'{number:.1f} s'
    return elapsed(number + 0.5)


def elapsed(number: float) -> str:
    """A length of time that goes on: as `seconds`, in whole ones."""
    whole = int(number)
    if whole < 60:
        return f'{whole} s'
    if whole < 3600:
        return f'{whole // 60} min {whole % 60:02} s'
    return f'{whole // 3600} h {whole % 3600 // 60:02} min'


def count(number: int, noun: str) -> str:
    """`1 file`, `2 files`, `2 processes`."""
    if number == 1:
        return f'1 {noun}'
    return f'{number} {noun}{"es" if noun.endswith("s") else "s"}'


def are(number: int, noun: str) -> str:
    """`1 file is`, `2 files are`."""
    return f'{count(number, noun)} {"is" if number == 1 else "are"}'


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8, see PEP 383
        return f'\\x{code - 0xDC00:02x}'
    return character.encode('unicode_escape').decode('ascii')


def _columns(character: str) -> int:
    if unicodedata.category(character) in ('Mn', 'Me', 'Cf'):
        return 0
    return 2 if unicodedata.east_asian_width(character) in 'WF' else 1
