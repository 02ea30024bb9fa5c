"""What should stand on a host: the files of its components, by their paths there."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import PurePosixPath
from typing import NamedTuple, overload

from remote_runner.config.paths import link_target
from remote_runner.errors import TransferFailed
from remote_runner.files.local import LocalFiles, Status
from remote_runner.files.packing import Packing, Part
from remote_runner.wire.columns import ANY_TIME, UNKNOWN


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


class Tree(NamedTuple):
    """A folder of a host that becomes what one of this machine is.

    Args:
        root: its path on the host.
        exclude: patterns of what is left out of it, see `config/exclude.py`.
    """

    root: str
    exclude: tuple[str, ...] = ()


class Mirror(NamedTuple):
    """Folders from which goes what is not in the manifest: `--delete`.

    Args:
        trees: these folders.
        also: further paths of the host that stay.
        apart: (path, what it is) of folders that none of the trees may hold.
    """

    trees: tuple[Tree, ...] = ()
    also: tuple[str, ...] = ()
    apart: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        """Whether there is any tree."""
        return bool(self.trees)


NO_MIRROR = Mirror()


class Group(NamedTuple):
    """Files that stand in one folder of a host.

    Args:
        folder: its path there, without a slash at its end.
        names: theirs in it.
        source: the absolute path of the folder on this machine in which all of them are, without a slash at its end.
        called: their names there.
        statuses: what was seen of them.
    """

    folder: str
    names: list[str]
    source: str
    called: list[str]
    statuses: Sequence[os.stat_result | Status]


class Entries(Sequence[Entry]):
    """Entries that are made when they are asked for: of files that are unchanged nobody does.

    Args:
        count: how many there are.
        load: tells the files; asked once.
        local: is told of them then.
    """

    def __init__(self, count: int, load: Callable[[], Iterable[Group]], local: LocalFiles) -> None:
        self._count = count
        self._load = load
        self._local = local
        self._lock = threading.Lock()
        self._entries: list[Entry] | None = None

    def _all(self) -> list[Entry]:
        with self._lock:
            if self._entries is None:
                self._entries = [entry for group in self._load() for entry in self._made(group)]
            return self._entries

    def _made(self, group: Group) -> Iterator[Entry]:
        for name, called, status in zip(group.names, group.called, group.statuses, strict=True):
            local = f'{group.source}/{called}'
            self._local.saw(local, status)
            yield Entry(local, f'{group.folder}/{name}', *self._local.look(local))

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> Entry: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Entry]: ...
    def __getitem__(self, number: int | slice) -> Entry | Sequence[Entry]:
        return self._all()[number]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._all())


class Manifest(NamedTuple):
    """All that should stand on one host, each path once.

    Args:
        files: with content.
        folders: path and permission bits of those that are named themselves; None: whatever is usual there.
        links: path and text of symbolic links.
        bits: path and permission bits of folders that get these bits whether they are there already or not.
        packed: the files as `parts` yields them, if that is known.
        mirror: from where the rest goes.
        tops: folders that hold together what is in them, see `files/places.py`.
    """

    files: Sequence[Entry]
    folders: tuple[tuple[str, int | None], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    bits: tuple[tuple[str, int], ...] = ()
    packed: tuple[Part, ...] | None = None
    mirror: Mirror = NO_MIRROR
    tops: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to stand there, and nothing to go."""
        return not any((self.files, self.folders, self.links, self.bits, self.mirror))

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(entry.size for entry in self.files)

    def parts(self, local: LocalFiles) -> Iterable[Part]:
        """The files for `wire/columns.py`: headers and bodies of parts."""
        return self.packed if self.packed is not None else _pack(self.files, local)


def _pack(files: Iterable[Entry], local: LocalFiles) -> Iterator[Part]:
    packing = Packing()
    for folder, group in groupby(files, lambda entry: _folder_and_name(entry.remote)[0]):
        entries = list(group)
        names = [_folder_and_name(entry.remote)[1] for entry in entries]
        digests = [local.digest(entry.local) or UNKNOWN for entry in entries]
        columns = ([getattr(entry, name) for entry in entries] for name in ('size', 'mtime', 'mode'))
        yield from packing.add(folder, *columns, digests, names)
    yield from packing.rest()


def _folder_and_name(path: str) -> tuple[str, str]:
    folder, slash, name = path.rpartition('/')
    return (folder, name) if slash else (path, '.')  # a home


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
