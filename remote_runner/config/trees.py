"""Folders with all that is in them: what `util.recursive_files_dict` finds, and `remote_runner copy`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
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


class Found(NamedTuple):
    """What stands in a tree.

    Args:
        path: below the top of the tree; empty: the top itself.
        local: where it is.
        kind: `folder`, `link` (one that is to stay one), or `file` for whatever else it is.
        status: what stat(2) says of a folder.
        is_empty: of a folder, whether there is nothing in it that is not left out.
    """

    path: str
    local: str
    kind: str
    status: os.stat_result | None = None
    is_empty: bool = False


def leaves(top: str, exclusion: Exclusion, *, keep_links: bool) -> Iterator[Leaf]:
    """All leaves of a tree, see `walk`."""
    for found in walk(top, exclusion, keep_links=keep_links):
        if found.kind != 'folder' or found.is_empty:
            yield Leaf(found.path, found.kind == 'link')


def walk(
    top: str,
    exclusion: Exclusion,
    *,
    keep_links: bool,
    on_fault: Callable[[str, OSError | ValueError], object] | None = None,
) -> Iterator[Found]:
    """All that is in a tree, each folder before what is in it, sorted by name.

    Args:
        top: the local folder.
        exclusion: what is left out; a folder that is, is not entered.
        keep_links: whether links stay links; else they are followed.
        on_fault: is told a folder below `top` that cannot be entered, and why; then all else comes.

    Raises:
        FileNotFoundError, NotADirectoryError, PermissionError: a folder is not there, none, or not readable.
        ValueError: a link that is followed leads back to a directory above it.
    """
    status, inside = _inside(top, '', exclusion, keep_links)
    yield Found('', top, 'folder', status, not inside)
    above = [(status.st_dev, status.st_ino)]
    listings = [iter(inside)]
    while listings:
        for found in listings[-1]:
            if found.kind != 'folder':
                yield found
                continue
            try:
                status, inside = _inside(found.local, found.path, exclusion, keep_links)
                here = (status.st_dev, status.st_ino)
                if here in above:
                    raise ValueError(f'{found.local} leads back to a directory above it')
            except (OSError, ValueError) as error:
                if on_fault is None:
                    raise
                on_fault(found.local, error)
                continue
            yield found._replace(status=status, is_empty=not inside)
            above.append(here)
            listings.append(iter(inside))
            break
        else:
            listings.pop()
            above.pop()


def _inside(local: str, path: str, exclusion: Exclusion, keep_links: bool) -> tuple[os.stat_result, list[Found]]:
    """What a folder is, and what is in it and not left out."""
    status = os.stat(local)  # noqa: PTH116 - of many folders
    with os.scandir(local) as listing:
        items = sorted(listing, key=_name)
    prefix = f'{path}/' if path else ''
    found: list[Found] = []
    for item in items:
        is_link = item.is_symlink()
        # Where a link leads nowhere, a DirEntry may raise an error.
        is_folder = not keep_links and os.path.isdir(item.path) if is_link else item.is_dir(follow_symlinks=False)  # noqa: PTH112
        below_top = prefix + item.name
        if not (exclusion and exclusion.excludes(below_top, is_folder=is_folder)):
            kind = 'folder' if is_folder else 'link' if is_link and keep_links else 'file'
            found.append(Found(below_top, item.path, kind))
    return status, found


def _name(item: os.DirEntry[str]) -> str:
    return item.name


def below(directory: str, path: str) -> str:
    """`directory/path` as text, `directory` left as it is written; without a path, `directory` itself."""
    if not path:
        return directory
    return directory + path if directory.endswith('/') else f'{directory}/{path}'
