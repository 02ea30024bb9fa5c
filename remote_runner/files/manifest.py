"""What should stand on a host: the files of its components, by their paths there."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from remote_runner.config.paths import link_target
from remote_runner.errors import TransferFailed
from remote_runner.files.local import LocalFiles
from remote_runner.wire.columns import ANY_TIME, ROWS, UNKNOWN, pack

if TYPE_CHECKING:
    from remote_runner.wire.columns import Row


#: The header and the body of files packed for `wire/columns.py`.
Part = tuple[list[list[Any]], bytes]


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


class Entries(Sequence[Entry]):
    """Entries that are made when they are asked for: of files that are unchanged nobody does.

    Args:
        count: how many there are.
        load: tells the fields of each, with one more behind them; asked once.
    """

    def __init__(self, count: int, load: Callable[[], list[tuple[Any, ...]]]) -> None:
        self._count = count
        self._load: Callable[[], list[tuple[Any, ...]]] | None = load
        self._lock = threading.Lock()
        self._files: list[tuple[Any, ...]] = []

    def told(self) -> list[tuple[Any, ...]]:
        """What `load` tells."""
        with self._lock:
            if self._load is not None:
                self._files, self._load = self._load(), None
        return self._files

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> Entry: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Entry]: ...
    def __getitem__(self, number: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(number, slice):
            return [Entry(*file[:-1]) for file in self.told()[number]]
        return Entry(*self.told()[number][:-1])

    def __iter__(self) -> Iterator[Entry]:
        return (Entry(*file[:-1]) for file in self.told())


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


def _pack(files: Sequence[Entry], local: LocalFiles) -> Iterator[Part]:
    places: list[list[Any]] = []
    rows: list[Row] = []
    last = None
    for entry in files:
        folder, slash, name = entry.remote.rpartition('/')
        if not slash:
            folder, name = entry.remote, '.'  # a home
        if folder != last or not places:
            places.append([folder or '/', 0])
            last = folder
        places[-1][1] += 1
        rows.append((entry.size, entry.mtime, entry.mode, local.digest(entry.local) or UNKNOWN, name))
        if len(rows) >= ROWS:
            yield places, pack(rows)
            places, rows = [], []
    if rows:
        yield places, pack(rows)


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
