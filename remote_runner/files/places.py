"""Where folders lie on hosts, and whether those of two hosts may be one: file systems can be shared."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import NamedTuple

from remote_runner.files.manifest import Entry, Manifest

#: Folders that hosts are asked for at most.
MOST = 16
#: What stands at a path: a file, a symbolic link by its text, or (None) a folder.
Item = Entry | str | None


class Place(NamedTuple):
    """Where a folder lies that a copy is about; see `agent/sharing.py`.

    Args:
        top: the folder, as the manifest calls it.
        folder: the real path of the nearest folder, at or above it, that is there.
        inodes: inode numbers of that one and of those above it, up to its mount point.
        rest: what of the path is below it.
        system: the file system, where only one kernel writes to it; else ''.
    """

    top: str
    folder: str
    inodes: tuple[int, ...]
    rest: str
    system: str

    @classmethod
    def of(cls, top: str, found: tuple[str, list[int], str, str]) -> Place:
        """What a host said of a top."""
        folder, inodes, rest, system = found
        return cls(top, folder, tuple(inodes), rest, system)

    @property
    def path(self) -> str:
        """The real path of the top."""
        return posixpath.join(self.folder, self.rest) if self.rest else self.folder


class Meeting(NamedTuple):
    """How the places of two hosts belong together, if they share what their inode numbers say.

    Args:
        path: of the top of the one, as the other one sees it.
        folder: of the other one's `folder`, as the one sees it.
    """

    path: str
    folder: str


def meet(there: Place, here: Place) -> Meeting | None:
    """Whether one of the tops of two hosts may be the other, or in it."""
    if there.system != here.system:
        return None
    if there.inodes[0] in here.inodes:
        folder, below = _up(here.folder, here.inodes.index(there.inodes[0]))
        path = posixpath.join(there.folder, below, here.rest).rstrip('/') or '/'
    elif here.inodes[0] in there.inodes:
        above, below = _up(there.folder, there.inodes.index(here.inodes[0]))
        folder = posixpath.join(here.folder, below)
        path = posixpath.join(above, here.rest).rstrip('/') or '/'
    else:
        return None
    return Meeting(path, folder.rstrip('/') or '/') if is_in(path, there.path) or is_in(there.path, path) else None


def _up(folder: str, levels: int) -> tuple[str, str]:
    """The folder so many levels above one, and the path from there."""
    names = folder.rstrip('/').split('/')
    cut = len(names) - levels
    return '/'.join(names[:cut]) or '/', '/'.join(names[cut:])


def is_in(path: str, folder: str) -> bool:
    """Whether a path is this folder, or below it."""
    return path == folder or path.startswith(folder.rstrip('/') + '/')


def folder_of(path: str) -> str:
    """The folder in which something stands."""
    return path.rpartition('/')[0] or '/'


def above(path: str) -> Iterator[str]:
    """A path and all folders above it, the nearest first."""
    yield path
    while path.strip('/') and '/' in path:
        path = folder_of(path)
        yield path


def items(manifest: Manifest) -> Iterator[tuple[str, Item]]:
    """All paths of a manifest and what is to stand there."""
    for entry in manifest.files:
        yield entry.remote, entry
    yield from manifest.links
    for path, _ in (*manifest.folders, *manifest.bits):
        yield path, None


def plain(path: str) -> str:
    """A path without `.` and `..`, as hosts take it (`agent/files.py::expand`)."""
    return posixpath.normpath(path) if ('/.' in path or '//' in path) and not path.startswith('~') else path


def tops_of(manifest: Manifest) -> tuple[str, ...]:
    """The folders that a manifest is about, none of them in another one.

    What is in one of the manifest's own tops is held together by the folder that has all of it. The others are those
    that something stands in, or those above them where these are many.
    """
    if manifest.packed is None:
        folders = {plain(folder_of(entry.remote)) for entry in manifest.files}
    else:  # no entries are made for this
        folders = {plain(folder) for places, _ in manifest.packed for folder, _ in places}
    folders |= {plain(tree.root) for tree in manifest.mirror.trees}
    folders |= {plain(folder_of(path)) for path, _ in manifest.links}
    folders |= {plain(path) for path, _ in (*manifest.folders, *manifest.bits)}
    for top in map(plain, manifest.tops):
        inside = {folder for folder in folders if is_in(folder, top)}
        if inside:
            folders = folders - inside | {posixpath.commonpath(inside)}
    tops = _outermost(folders)
    while len(tops) > MOST:
        deepest = max(top.count('/') for top in tops)
        tops = _outermost({folder_of(top) if top.count('/') == deepest else top for top in tops})
    return tops


def _outermost(folders: set[str]) -> tuple[str, ...]:
    """Those folders that are in none of the others."""
    found: list[str] = []
    for folder in sorted(folders, key=lambda folder: folder.rstrip('/') + '/'):
        if not found or not is_in(folder, found[-1]):
            found.append(folder)
    return tuple(found)
