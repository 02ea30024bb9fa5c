"""Folders of random files, and whether a copy of one is right."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

MEGABYTE = 1_000_000
#: Sizes in bytes of small files, and how many there are in a folder.
SMALL = (200, 8_000)
OF_FOLDER = 100
#: Every tenth file can be executed.
MODES = (0o755,) + 9 * (0o644,)


class Content(NamedTuple):
    """What a file has to be: its permissions, and the digest of what is in it."""

    mode: int
    digest: bytes


class State(NamedTuple):
    """What changes whenever a file is written or replaced."""

    inode: int
    size: int
    changed: int


@dataclass
class Tree:
    """A folder whose files are known."""

    root: Path
    _contents: dict[str, Content] = field(default_factory=dict)
    #: Files of copies that were found right, by path: what has not been touched since need not be read again.
    _seen: dict[Path, tuple[State, Content]] = field(default_factory=dict)

    @classmethod
    def of_small_files(cls, root: Path, count: int) -> Tree:
        """Files of SMALL sizes, 100 in a folder; sizes are the same every time, contents are not."""
        tree, sizes = cls(root), random.Random(count)
        for number in range(count):
            name = f'part{number // OF_FOLDER:03}/file{number:05}'
            tree._write(name, sizes.randint(*SMALL), MODES[number % len(MODES)])
        return tree

    @classmethod
    def of_one_file(cls, root: Path, size: int) -> Tree:
        """One large file."""
        tree = cls(root)
        tree._write('large', size, MODES[-1])
        return tree

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum((self.root / name).stat().st_size for name in self._contents)

    def change_middle(self, size: int) -> None:
        """Other bytes in the middle of each file, which stays as large as it was."""
        for name, content in self._contents.items():
            path = self.root / name
            with path.open('r+b') as file:
                file.seek((path.stat().st_size - size) // 2)
                file.write(os.urandom(size))
            self._contents[name] = content._replace(digest=_digest(path))

    def fault(self, copy: Path) -> str | None:
        """What is wrong with a copy: a file too few or too many, other permissions, other contents."""
        found = {str(path.relative_to(copy)) for path in _files(copy)}
        for name in sorted(found ^ self._contents.keys()):
            return f'{name} is missing' if name in self._contents else f'{name} should not be there'
        for name, wanted in self._contents.items():
            path = copy / name
            status = path.lstat()
            state = State(status.st_ino, status.st_size, status.st_ctime_ns)
            mode = status.st_mode & 0o7777
            if mode != wanted.mode:
                return f'{name} has mode {mode:o}, not {wanted.mode:o}'
            if self._seen.get(path) == (state, wanted):
                continue
            if _digest(path) != wanted.digest:
                return f'{name} has other contents'
            self._seen[path] = (state, wanted)
        return None

    def _write(self, name: str, size: int, mode: int) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('wb') as file:
            for start in range(0, size, MEGABYTE):
                file.write(os.urandom(min(MEGABYTE, size - start)))
        path.chmod(mode)
        self._contents[name] = Content(mode, _digest(path))


def read(folder: Path) -> None:
    """Have the page cache hold what is in the folder, if it is there."""
    for path in _files(folder):
        _read(path)


def _files(folder: Path) -> Iterator[Path]:
    """All that are no folders."""
    return (path for path in folder.rglob('*') if path.is_symlink() or not path.is_dir())


def _digest(path: Path) -> bytes:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha1').digest()


def _read(path: Path) -> None:
    with path.open('rb', buffering=0) as file:
        while file.read(MEGABYTE):
            pass
