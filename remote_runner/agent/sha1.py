"""The SHA-1 of what is read, with the one of two that is faster: Python's own for a little, OpenSSL's for much."""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import hashlib
    from typing import Callable, Optional, Tuple

    #: Raises something when nobody wants the answer any more.
    Check = Optional[Callable[[], object]]

#: Bytes that are read at once.
PIECE = 1 << 20
#: Bytes that Python's own SHA-1 may hash: it is there at once, OpenSSL's is faster and takes as long as this to load.
_left_for_own = 1 << 20


def new_sha1(size: int) -> "hashlib._Hash":
    """A SHA-1 that so many bytes will be fed to."""
    global _left_for_own
    _left_for_own -= size
    return _fast_sha1() if _left_for_own < 0 else early_sha1()


def _fast_sha1() -> "hashlib._Hash":
    import hashlib

    return hashlib.sha1()


def early_sha1() -> "hashlib._Hash":
    """The one that is there at once."""
    if 'hashlib' not in sys.modules:
        try:
            import _sha1

            own: "hashlib._Hash" = _sha1.sha1()
            return own
        except ImportError:
            pass  # a Python that was built without it
    return _fast_sha1()


def sha1(path: str, check: "Check" = None) -> str:
    """The SHA-1 of a file's content in hexadecimal; `check` is called after each piece."""
    with open(path, 'rb', 0) as file:
        return sha1_of(file.fileno(), os.fstat(file.fileno()).st_size, check)[0]


def sha1_of(file: int, size: int, check: "Check" = None) -> "Tuple[str, int]":
    """The SHA-1 of what is read from here on, which may be `size` bytes, and how many they were."""
    digest = new_sha1(size)
    piece_size = min(PIECE, size + 1)  # one more: most files are read at once
    total = 0
    while True:
        piece = os.read(file, piece_size)
        if not piece:
            return digest.hexdigest(), total
        digest.update(piece)
        total += len(piece)
        if check is not None:
            check()
