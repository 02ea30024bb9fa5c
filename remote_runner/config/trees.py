"""Folders with all that is in them: what `util.recursive_files_dict` finds, and `remote_runner copy`."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
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


class Folder(NamedTuple):
    """A folder of a tree, and the names of what stands in it and is not left out, sorted.

    Args:
        path: below the top of the tree; empty: the top itself.
        local: where it is.
        status: what stat(2) says of it.
        file: it is open as this file descriptor, until the next folder is asked for.
        files: what is neither a folder nor a link that is to stay one.
        links: those.
        is_empty: whether there is nothing else, either.
    """

    path: str
    local: str
    status: os.stat_result
    file: int
    files: list[str]
    links: list[str]
    is_empty: bool


def leaves(top: str, exclusion: Exclusion, *, keep_links: bool) -> Iterator[Leaf]:
    """All leaves of a tree, see `walk`."""
    for folder in walk(top, exclusion, keep_links=keep_links):
        if folder.is_empty:
            yield Leaf(folder.path)
        prefix = f'{folder.path}/' if folder.path else ''
        for name in folder.files:
            yield Leaf(prefix + name)
        for name in folder.links:
            yield Leaf(prefix + name, is_link=True)


def walk(
    top: str,
    exclusion: Exclusion,
    *,
    keep_links: bool,
    on_fault: Callable[[str, OSError | ValueError], object] | None = None,
) -> Iterator[Folder]:
    """All folders of a tree, each before those in it, sorted by name.

    Args:
        top: the local folder.
        exclusion: what is left out; a folder that is, is not entered.
        keep_links: whether links stay links; else they are followed.
        on_fault: is told a folder below `top` that cannot be entered, and why; then all else comes.

    Raises:
        FileNotFoundError, NotADirectoryError, PermissionError: a folder is not there, none, or not readable.
        ValueError: a link that is followed leads back to a directory above it.
    """
    todo: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [('', top, ())]
    while todo:
        path, local, above = todo.pop()
        prefix = f'{path}/' if path else ''
        with ExitStack() as opened:
            try:
                file = os.open(local, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                opened.callback(os.close, file)
                status = os.fstat(file)
                here = (status.st_dev, status.st_ino)
                if here in above:
                    raise ValueError(f'{local} leads back to a directory above it')
                folders, files, links = _inside(file, prefix, exclusion, keep_links)
            except (OSError, ValueError) as error:
                if on_fault is None or not path:
                    raise
                on_fault(local, error)
                continue
            yield Folder(path, local, status, file, files, links, not (folders or files or links))
        todo += [(prefix + name, below(local, name), (*above, here)) for name in reversed(folders)]


def _inside(file: int, prefix: str, exclusion: Exclusion, keep_links: bool) -> tuple[list[str], list[str], list[str]]:
    """The names of the folders, of the links that stay links, and of what else is in an open folder."""
    folders: list[str] = []
    files: list[str] = []
    links: list[str] = []
    with os.scandir(file) as listing:
        for item in listing:
            name, found = item.name, files
            if not item.is_file(follow_symlinks=False):
                if item.is_symlink():
                    found = links if keep_links else folders if _leads_to_folder(file, name) else files
                elif item.is_dir(follow_symlinks=False):
                    found = folders
            if not exclusion or not exclusion.excludes(prefix + name, is_folder=found is folders):
                found.append(name)
    return sorted(folders), sorted(files), sorted(links)


def _leads_to_folder(file: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=file).st_mode)
    except OSError:
        return False  # it leads nowhere, or into itself


def below(directory: str, path: str) -> str:
    """`directory/path` as text, `directory` left as it is written; without a path, `directory` itself."""
    if not path:
        return directory
    return directory + path if directory.endswith('/') else f'{directory}/{path}'
