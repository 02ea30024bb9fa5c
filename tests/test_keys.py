"""What keys mean while a terminal is relayed, and what a program leaves in the terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_runner.ui.keys import EscapedKeys, Keys, WatchingKeys
from remote_runner.ui.tty import Picture

_KEYS = st.lists(st.sampled_from([b'~', b'.', b'\r', b'\n', b'a', b'\x1b', b'\xff']), max_size=30).map(b''.join)


def in_pieces(keys: Keys, data: bytes, pieces: list[int]) -> tuple[bytes, bool]:
    """What becomes of data that comes in pieces of these lengths."""
    passed = b''
    for length in [*pieces, len(data)]:
        piece, data = data[:length], data[length:]
        some, leaves = keys.feed(piece)
        passed += some
        if leaves:
            return passed, True
    return passed, False


class TestEscapedKeys:
    @pytest.mark.parametrize(
        ('typed', 'passed', 'leaves'),
        [
            (b'~.', b'', True),
            (b'ls\r~.more', b'ls\r', True),
            (b'ls\n~.', b'ls\n', True),
            (b'a~.', b'a~.', False),
            (b'\r~~.', b'\r~.', False),
            (b'\r~~~.', b'\r~~.', False),
            (b'\r~x~.', b'\r~x~.', False),
            (b'\r~\r~.', b'\r~\r', True),
            (b'\r~', b'\r', False),
        ],
    )
    def test_as_ssh_has_them(self, typed: bytes, passed: bytes, leaves: bool) -> None:
        assert EscapedKeys().feed(typed) == (passed, leaves)

    @given(_KEYS, st.lists(st.integers(1, 5), max_size=10))
    def test_it_does_not_matter_how_they_come(self, data: bytes, pieces: list[int]) -> None:
        assert in_pieces(EscapedKeys(), data, pieces) == in_pieces(EscapedKeys(), data, [])

    @given(st.binary())
    def test_what_begins_no_line_with_a_tilde_is_unchanged(self, data: bytes) -> None:
        data = b'x' + data.replace(b'~', b'')
        assert EscapedKeys().feed(data) == (data, False)


class TestWatchingKeys:
    @pytest.mark.parametrize(
        'typed',
        [b'q', b'xyzq', b'\x03', b'\x01d', b'\x01\x04', b'\x1b[Aq', b'\x1b]0;t\x07q', b'\x1bP1\x1b\\q', b'\x1bxq'],
    )
    def test_leaving(self, typed: bytes) -> None:
        assert in_pieces(WatchingKeys(), typed, []) == (b'', True)
        assert in_pieces(WatchingKeys(), typed, [1] * len(typed)) == (b'', True)

    @pytest.mark.parametrize(
        'typed',
        [
            b'Qx~.',
            b'\x01xd',
            b'd\x04',
            b'\x1bq',  # Alt-q
            b'\x1b[2 q',
            b'\x1bOq',  # a key of the keypad
            b'\x1bP1$r2 q\x1b\\',  # the terminal tells the shape of its cursor
            b'\x1b]11;q\x1b\\',
            b'\x01\x1b[Ad',
        ],
    )
    def test_staying(self, typed: bytes) -> None:
        assert in_pieces(WatchingKeys(), typed, []) == (b'', False)
        assert in_pieces(WatchingKeys(), typed, [1] * len(typed)) == (b'', False)

    @given(st.binary())
    def test_nothing_passes(self, data: bytes) -> None:
        passed, _ = WatchingKeys().feed(data)
        assert passed == b''


class TestPicture:
    @staticmethod
    def left(output: bytes) -> bytes:
        picture = Picture()
        picture.note(output)
        return picture.put_away()

    def test_lines_alone(self) -> None:
        assert self.left(b'one\r\n\x1b[31mtwo') == b'\r\n'

    def test_modes_that_were_switched_back_are_left_alone(self) -> None:
        assert self.left(b'\x1b[?1049h\x1b[?25l\x1b[?25h\x1b[?1049l') == b'\r\n'

    def test_the_other_screen_is_left_last(self) -> None:
        put_away = self.left(b'\x1b[?1049h\x1b[?1;2004h\x1b[?7;25l\x1b[3;4H')
        assert put_away.endswith(b'\x1b[?25h\x1b[?7h\x1b[?2004l\x1b[?1l\x1b[?1049l')

    @given(st.lists(st.sampled_from([b'\x1b[?1049h', b'\x1b[?25l', b'\x1b[?25h', b'x', b'\x1b[5;5H', b'\x1b'])))
    def test_it_does_not_matter_how_it_comes(self, parts: list[bytes]) -> None:
        output = b''.join(parts)
        picture = Picture()
        for byte in output:
            picture.note(bytes([byte]))
        assert picture.put_away() == self.left(output)
