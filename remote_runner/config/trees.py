"""Folders with all that is in them: what `util.recursive_files_dict` finds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from remote_runner.config.exclude import Exclusion


class Leaf(NamedTuple):
    """What stands in a tree and has nothing below it: a file, a link, an empty folder.

    Args:
        path: below the top of the tree; empty: the top itself.
        is_link: whether it is a link that is to stay one.
    """

    path: str
    is_link: bool = False


class _Entry(NamedTuple):
    leaf: Leaf
    is_folder: bool
    above: tuple[tuple[int, int], ...] = ()


def leaves(top: str, exclusion: Exclusion, *, keep_links: bool) -> Iterator[Leaf]:
    """All leaves of a tree, folder by folder, each sorted by name.

    Args:
        top: the local folder.
        exclusion: what is left out; a folder that is, is not entered.
        keep_links: whether links stay links; else they are followed.

    Raises:
        FileNotFoundError, NotADirectoryError, PermissionError: a folder is not there, none, or not readable.
        ValueError: a link that is followed leads back to a directory above it.
    """
    waiting = [_Entry(Leaf(''), is_folder=True)]
    while waiting:
        entry = waiting.pop()
        inside = list(_inside(top, entry, exclusion, keep_links)) if entry.is_folder else []
        if inside:
            waiting += reversed(inside)
        else:
            yield entry.leaf


def _inside(top: str, folder: _Entry, exclusion: Exclusion, keep_links: bool) -> Iterator[_Entry]:
    """What is in a folder and not left out."""
    local = below(top, folder.leaf.path)
    status = Path(local).stat()
    here = (status.st_dev, status.st_ino)
    if here in folder.above:
        raise ValueError(f'{local} leads back to a directory above it')
    above = (*folder.above, here)
    with os.scandir(local) as listing:
        found = sorted(listing, key=lambda item: item.name)
    for item in found:
        path = below(folder.leaf.path, item.name) if folder.leaf.path else item.name
        is_link = item.is_symlink()
        # Where a link leads nowhere, a DirEntry may raise an error.
        is_folder = not keep_links and Path(item.path).is_dir() if is_link else item.is_dir(follow_symlinks=False)
        if not exclusion.excludes(path, is_folder=is_folder):
            yield _Entry(Leaf(path, is_link and keep_links), is_folder, above)


def below(directory: str, path: str) -> str:
    """`directory/path` as text, `directory` left as it is written; without a path, `directory` itself."""
    if not path:
        return directory
    return directory + path if directory.endswith('/') else f'{directory}/{path}'
