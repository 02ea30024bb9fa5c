"""Many files in the body of one frame, column by column: 20,000 of them cost either side a few milliseconds.

Layout, all numbers little-endian, of `n` files: sizes (int64), modification times (int64, in ns; `ANY_TIME`: it may
have any), permission bits (uint16), SHA-1s (20 bytes; zeros: not known yet), names (joined by NUL). Which folders they
are in, and how many in each, says the header: [[folder, count], ...].
"""

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, List, Tuple

    #: Size, time, permission bits, SHA-1 and name.
    Row = Tuple[int, int, int, bytes, str]

#: Files of one part.
ROWS = 1000
#: Stands for a modification time that does not matter.
ANY_TIME = -(1 << 63)
UNKNOWN = bytes(20)


def pack(
    sizes: "List[int]", times: "List[int]", modes: "List[int]", digests: "List[bytes]", names: "List[str]"
) -> bytes:
    """The body of these files."""
    return b''.join(
        (
            struct.pack('<{0}q{0}q{0}H'.format(len(sizes)), *sizes, *times, *modes),
            b''.join(digests),
            '\0'.join(names).encode('utf-8', 'surrogateescape'),
        )
    )


def unpack(count: int, body: bytes) -> "Iterable[Row]":
    """The files again, row by row."""
    numbers = struct.unpack_from('<{0}q{0}q{0}H'.format(count), body)
    start = 18 * count
    digests = [body[at : at + 20] for at in range(start, start + 20 * count, 20)]
    names = body[start + 20 * count :].decode('utf-8', 'surrogateescape').split('\0')
    return zip(numbers[:count], numbers[count : 2 * count], numbers[2 * count :], digests, names)
