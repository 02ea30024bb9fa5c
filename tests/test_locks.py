"""The locks of sessions."""

from __future__ import annotations

import os

import pytest

from remote_runner.agent import locks


def test_a_lock_that_cannot_be_signed_is_let_go_of() -> None:
    """On a full disk, for example: nobody would hear who holds it."""
    file = os.open('/dev/full', os.O_RDWR)
    with pytest.raises(OSError, match=r'Invalid argument|No space'):
        locks._sign(file, 'me')
    with pytest.raises(OSError, match='Bad file descriptor'):
        os.fstat(file)
