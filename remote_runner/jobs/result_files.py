"""Results that are too large for the journal's database: files beside it, each in its place before it is known."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Collection
from pathlib import Path

#: Names of results that may be part of the name of a file.
_PLAIN = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}')
_HALF = '.new'


class ResultFiles:
    """Files `<number>.<name>` in a folder.

    Args:
        folder: made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: Files that were moved, and of which the journal does not know yet: a transaction may be tried again.
        self._moved: dict[Path, Path] = {}

    def take(self, number: int, name: str, content: bytes | Path) -> tuple[str, int]:
        """Put a result of a task into its place; a file is moved there. The name of the file, and its bytes.

        Raises:
            OSError: it cannot be written.
        """
        target = self._folder / f'{number}.{_harmless(name)}'
        if isinstance(content, Path) and self._moved.get(content) == target:
            return target.name, target.stat().st_size
        try:
            self._put(content, target)
        except FileNotFoundError:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._put(content, target)
        if isinstance(content, Path):
            self._moved[content] = target
        return target.name, target.stat().st_size

    def are_known(self) -> None:
        """The journal knows all that was taken."""
        self._moved.clear()

    def keep(self, names: Collection[str]) -> None:
        """Remove all others: what was put there, and then came no transaction.

        Raises:
            OSError: one cannot be removed.
        """
        if self._folder.is_dir():
            for entry in list(os.scandir(self._folder)):
                if entry.name not in names:
                    Path(entry.path).unlink()

    def _put(self, content: bytes | Path, target: Path) -> None:
        half = target.with_name(f'{target.name}{_HALF}')
        try:
            if isinstance(content, bytes):
                half.write_bytes(content)
            else:
                try:
                    content.rename(target)
                    return
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                import shutil

                shutil.copyfile(content, half)
            half.rename(target)
        except BaseException:
            half.unlink(missing_ok=True)
            raise
        if isinstance(content, Path):
            content.unlink()


def _harmless(name: str) -> str:
    """A name that can be part of a file's, another one for each name."""
    if _PLAIN.fullmatch(name) and not name.endswith(_HALF) and not name.startswith('_'):
        return name
    return '_' + hashlib.blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()
