"""What should stand on a host: the files of its components, by their paths there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from remote_runner.config.paths import link_target
from remote_runner.errors import TransferFailed
from remote_runner.files.local import LocalFiles
from remote_runner.wire.columns import ANY_TIME


class Entry(NamedTuple):
    """One file that should stand on a host.

    Args:
        local: its absolute path on this machine.
        remote: its path on the host: absolute, or starting with `~`.
        size: in bytes; mode: its permission bits.
        mtime: when it was changed, in ns; `ANY_TIME`: the file there may have any.
    """

    local: str
    remote: str
    size: int
    mode: int
    mtime: int = ANY_TIME


class Manifest(NamedTuple):
    """All that should stand on one host, each path once.

    Args:
        files: with content.
        folders: path and permission bits of those that are named themselves; None: whatever is usual there.
        links: path and text of symbolic links.
        bits: path and permission bits of folders that get these bits whether they are there already or not.
        tops: folders that hold together what is below them, see `files/places.py`; the rest goes by itself.
    """

    files: tuple[Entry, ...]
    folders: tuple[tuple[str, int | None], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    bits: tuple[tuple[str, int], ...] = ()
    tops: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to stand there."""
        return not any((self.files, self.folders, self.links, self.bits))

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(entry.size for entry in self.files)


class Placed(NamedTuple):
    """One thing of this machine and where it goes.

    Args:
        local: its absolute path.
        remote: its path on the host.
        kind: `file`, `folder` (it is created, without what is in it) or `link` (it is created anew, with its text).
    """

    local: str
    remote: str
    kind: str = 'file'


def build_manifest(local: LocalFiles, placed: Iterable[Placed]) -> Manifest:
    """The manifest of one host; of repetitions the first counts.

    Raises:
        TransferFailed: something local is not there any more, or not what it was.
    """
    files: dict[str, Entry] = {}
    folders: dict[str, int | None] = {}
    links: dict[str, str] = {}
    for source, target, kind in placed:
        if kind == 'folder':
            folders.setdefault(target, _mode(source))
        elif kind == 'link':
            links.setdefault(target, _text(source))
        elif target not in files:
            size, mode, mtime = local.look(source)
            files[target] = Entry(source, target, size, mode, mtime)
    return Manifest(tuple(files.values()), tuple(folders.items()), tuple(links.items()))


def _mode(path: str) -> int | None:
    try:
        return stat.S_IMODE(os.stat(path).st_mode)  # noqa: PTH116 - of many folders
    except OSError:
        return None  # a folder that is only named


def _text(path: str) -> str:
    try:
        return link_target(path)
    except OSError as error:
        raise TransferFailed(f'cannot read the link {path}: {error.strerror}') from error


def remote_path(base_dir: str, path: str) -> str:
    """Where a remote path as users write it stands: absolute and `~` paths as they are, others under `base_dir`."""
    return path if path.startswith('~') else str(PurePosixPath(base_dir) / path)
