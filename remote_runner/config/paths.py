"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from remote_runner.nearest import ALIKE, nearest


class TreePath(str):
    """A remote path that belongs to a tree: text, which also knows where it comes from.

    Copies and pickles know it too; what is made of it by string operations is plain text.

    Args:
        path: the remote path.
        root: the remote folder that the tree becomes.
        is_link: whether a symbolic link is to stand there, with the target that the local one has.
        exclude: the patterns of what was left out of the tree.
    """

    __slots__ = ('_exclude', '_is_link', '_root')

    _root: str
    _is_link: bool
    _exclude: tuple[str, ...]

    def __new__(cls, path: str, root: str, is_link: bool = False, exclude: tuple[str, ...] = ()) -> TreePath:
        made = super().__new__(cls, path)
        made._root = root
        made._is_link = is_link
        made._exclude = exclude
        return made

    @property
    def root(self) -> str:
        """The remote folder that the tree becomes, as it was written."""
        return self._root

    @property
    def is_link(self) -> bool:
        """Whether a symbolic link is to stand there."""
        return self._is_link

    @property
    def exclude(self) -> tuple[str, ...]:
        """The patterns of what was left out of the tree."""
        return self._exclude

    def __reduce__(self) -> tuple[Any, ...]:
        return TreePath, (str(self), self._root, self._is_link, self._exclude)

    def __copy__(self) -> TreePath:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TreePath:
        return self


def expanded(path: str) -> str:
    """`path` with a leading `~` or `~user` replaced by that home directory, where it is known."""
    try:
        return str(Path(path).expanduser()) if path.startswith('~') else path
    except RuntimeError:  # no such user
        return path


def link_target(path: str) -> str:
    """What is written in a symbolic link, to the letter."""
    return os.readlink(path)  # noqa: PTH115 - a Path would not keep the letter: `./x/` becomes `x`


def named(path: str) -> str:
    """A path for a message: as it is, or as a literal of Python where it holds what would not be seen as it is."""
    return path if path.isprintable() else repr(path)


def neighbour(path: Path) -> str | None:
    """A hint for a file that is missing: the nearest name in its directory, if there is one like it."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return None
    alike = nearest(path.name, names, ALIKE)
    return f'there is {named(alike)} beside it' if alike else None
