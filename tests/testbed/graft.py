"""Mounts a folder or file of this machine in the mount namespace of another process: graft.py PID SOURCE TARGET.

A bind mount cannot do it: inside of the host the source may be hidden (by its /tmp, its /root), and mount(2) refuses
sources of another namespace. open_tree(2) takes a copy along as a file descriptor. A program of its own, because
setns(2) wants a process with one thread.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

# The same numbers on all architectures of Linux >= 5.2; glibc has names for them since 2.36 only.
_OPEN_TREE, _MOVE_MOUNT = 428, 429
_OPEN_TREE_CLONE = 1
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOVE_MOUNT_F_EMPTY_PATH = 4
_CLONE_NEWNS = 0x20000

_libc = ctypes.CDLL(None, use_errno=True)


def graft(pid: int, source: Path, target: Path) -> None:
    tree = _checked(_libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), _OPEN_TREE_CLONE | _AT_RECURSIVE), source)
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    _checked(_libc.setns(namespace, _CLONE_NEWNS), target)
    _checked(_libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH), target)


def _checked(result: int, path: Path) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), str(path))
    return result


if __name__ == "__main__":
    graft(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
