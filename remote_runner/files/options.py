"""How files are copied."""

from __future__ import annotations

from typing import NamedTuple


class CopyOptions(NamedTuple):
    """How files are copied, as users say it.

    Args:
        always_copy: send all files, whatever is there.
        times: modification times are kept.
        remembered: SHA-1s of earlier runs are believed, where the file was certainly not changed since.
        rate: bytes a second that are sent to all hosts together at most; 0: as many as can be.
        delete: what stands below the trees of a manifest and is not in it is deleted.
    """

    always_copy: bool = False
    times: bool = True
    remembered: bool = True
    rate: float = 0.0
    delete: bool = False
