"""Files and folders of this machine that are to stand below a folder of other hosts: what `rsync SRC... DEST` means."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from remote_runner.config.exclude import Exclusion
from remote_runner.config.paths import link_target, neighbour
from remote_runner.config.trees import Folder, below, walk
from remote_runner.errors import SourcesFailed
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import Entries, Group, Manifest, Mirror, Tree

#: Where the type stands in st_mode, and that of a regular file: inode(7).
_TYPE, _REGULAR = 12, 0o10
#: Permission bits of a file that everybody may read: of the others the system is asked.
_READABLE = 0o444
#: Last names of paths that name no folder of their own: what is in it is meant.
_INSIDE = ('', '.', '..')


def is_ambiguous(sources: Sequence[str], dest: str) -> bool:
    """Whether it depends on what is there on a host: a single file goes to DEST, or into DEST if that is a folder."""
    return len(sources) == 1 and not os.path.isdir(sources[0]) and not _names_folder(dest)  # noqa: PTH112 - `x/` is one


def gather(
    local: LocalFiles,
    sources: Sequence[str],
    dest: str,
    *,
    exclude: Sequence[str] = (),
    keep_links: bool = False,
    into: bool = True,
    hear: Callable[[Group], None] = lambda group: None,
) -> Manifest:
    """What should stand on a host.

    Args:
        local: is told of all files.
        sources: files and folders; `folder` becomes `DEST/folder`, what is in `folder/` comes into DEST.
        dest: a path on the host; relative: below the home there.
        exclude: what is left out, patterns as in a `.gitignore` in each folder.
        keep_links: links stay links; else they are followed. One that ends with a slash is followed in any case.
        into: DEST is a folder; else a single file is to become DEST itself.
        hear: is told of files as they are found, in the order in which they stand in the manifest.

    Raises:
        SourcesFailed: something is not there, not readable, no file, or two would have one path; all at once.
        ValueError: a pattern can match nothing.
    """
    gatherer = _Gatherer(local, Exclusion(exclude), hear, keep_links=keep_links, several=len(sources) > 1)
    place = _place(dest)
    try:
        here = os.getcwd()  # noqa: PTH109 - to the letter
    except FileNotFoundError:  # somebody has removed it
        here = ''
    for source in sources:
        if source.startswith('/') or here:
            path = source if source.startswith('/') else f'{here}/{source}'
            gatherer.take(path, place, into=into or len(sources) > 1)
        else:
            gatherer.faults.append(f'cannot read {source}: the folder that this was begun in is gone')
    if gatherer.faults:
        raise SourcesFailed(gatherer.faults)
    return gatherer.manifest()


def _names_folder(dest: str) -> bool:
    """Whether DEST cannot be a file."""
    return dest.rpartition('/')[2] in _INSIDE or (dest.startswith('~') and '/' not in dest)


def _place(dest: str) -> str:
    """DEST as hosts take it, without a slash at its end; empty: the root."""
    absolute = dest if dest.startswith(('/', '~')) else f'~/{dest}'
    return absolute.rstrip('/')


class _Gatherer:
    """Collects it source by source."""

    def __init__(
        self,
        local: LocalFiles,
        exclusion: Exclusion,
        hear: Callable[[Group], None],
        *,
        keep_links: bool,
        several: bool,
    ) -> None:
        self.faults: list[str] = []
        self._local = local
        self._exclusion = exclusion
        self._hear = hear
        self._keep_links = keep_links
        self._several = several
        self._groups: list[Group] = []
        #: Where links, and the files of several sources, come from, by their paths on the host.
        self._taken: dict[str, str] = {}
        self._folders: dict[str, int | None] = {}
        self._bits: dict[str, int] = {}
        self._links: dict[str, str] = {}
        self._trees: list[Tree] = []

    def manifest(self) -> Manifest:
        """What it came to."""
        groups = self._groups
        files = Entries(sum(len(group.names) for group in groups), lambda: groups, self._local)
        folders, bits = tuple(self._folders.items()), tuple(self._bits.items())
        return Manifest(files, folders, tuple(self._links.items()), bits, mirror=Mirror(tuple(self._trees)))

    def take(self, source: str, place: str, *, into: bool) -> None:
        """Collect what one SRC means."""
        name = source.rpartition('/')[2]
        try:
            is_link = self._keep_links and os.path.islink(source) and name not in _INSIDE  # noqa: PTH114 - `x/` is none
            status = os.stat(source, follow_symlinks=not is_link)  # noqa: PTH116 - `x/` is a folder
        except OSError as error:
            self._fault(source, error)
            return
        is_folder = stat.S_ISDIR(status.st_mode)
        if name not in _INSIDE and self._exclusion.excludes(name, is_folder=is_folder):
            return
        if is_folder:
            self._take_tree(source, place if name in _INSIDE else f'{place}/{name}', is_top=name in _INSIDE)
            return
        if into:
            self._folders.setdefault(place or '/', None)
        remote = f'{place}/{name}' if into else place
        if is_link:
            self._take_link(source, remote)
        else:
            self._take_file(source, remote, status)

    def _take_tree(self, source: str, place: str, *, is_top: bool) -> None:
        self._trees.append(Tree(place or '/', self._exclusion.patterns))
        try:
            for folder in walk(source, self._exclusion, keep_links=self._keep_links, on_fault=self._closed):
                remote = f'{place}/{folder.path}' if folder.path else place
                self._take_folder(folder.local, remote or '/', folder.status, is_top and not folder.path)
                for name in folder.links:
                    self._take_link(below(folder.local, name), f'{remote}/{name}')
                self._take_files(folder, remote)
        except OSError as error:
            self._fault(error.filename or source, error)

    def _take_files(self, folder: Folder, remote: str) -> None:
        """The files of a folder, of which there may be very many."""
        source = folder.local.rstrip('/')
        names: list[str] = []
        statuses: list[os.stat_result] = []
        for name in folder.files:
            try:
                status = os.stat(name, dir_fd=folder.file)
            except OSError as error:
                self._fault(f'{source}/{name}', error)
                continue
            if status.st_mode >> _TYPE != _REGULAR:
                self._refuse(f'{source}/{name}', status.st_mode)
                continue
            readable = status.st_mode & _READABLE == _READABLE or os.access(name, os.R_OK, dir_fd=folder.file)
            if not readable:
                self._locked(f'{source}/{name}')
                continue
            names.append(name)
            statuses.append(status)
        self._add(Group(remote, names, source, names, statuses))

    def _take_file(self, local: str, remote: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            self._refuse(local, status.st_mode)
            return
        if not os.access(local, os.R_OK):
            self._locked(local)
            return
        folder, _, name = remote.rpartition('/')
        source, _, called = local.rpartition('/')
        self._add(Group(folder, [name], source, [called], [status]))

    def _add(self, group: Group) -> None:
        """Add files, each path of which stands there once: within one source it cannot be otherwise."""
        if self._several:
            folder, names, source, called, statuses = group
            new = [n for n, name in enumerate(names) if self._is_new(f'{folder}/{name}', f'{source}/{called[n]}')]
            kept, theirs = [names[n] for n in new], [called[n] for n in new]
            group = Group(folder, kept, source, theirs, [statuses[n] for n in new])
        if group.names:
            self._groups.append(group)
            self._hear(group)

    def _is_new(self, remote: str, local: str) -> bool:
        """Whether nothing else becomes this path, which is taken now."""
        other = self._taken.get(remote)
        if other is not None:
            if os.path.abspath(other) != os.path.abspath(local):  # noqa: PTH100 - to the letter
                self.faults.append(f'{other} and {local} would both become {remote}')
            return False
        if remote in self._folders or remote in self._bits:
            self.faults.append(f'{local} would become {remote}, which is to be a folder')
        self._taken[remote] = local
        return True

    def _closed(self, folder: str, error: OSError | ValueError) -> None:
        """A folder in a tree that cannot be entered."""
        if isinstance(error, OSError):
            self._fault(folder, error)
        else:
            self.faults.append(f'the link {error}')

    def _locked(self, local: str) -> None:
        self._fault(local, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))

    def _refuse(self, local: str, mode: int) -> None:
        self.faults.append(f'{local} is no file, folder or link, but {_kind(mode)}')

    def _take_folder(self, local: str, remote: str, status: os.stat_result, is_top: bool) -> None:
        mode = stat.S_IMODE(status.st_mode)
        if remote in self._taken:
            self.faults.append(f'{local} would become {remote}, which is to be a file')
        elif is_top:
            self._folders.setdefault(remote, mode)
        else:
            self._bits.setdefault(remote, mode)

    def _take_link(self, local: str, remote: str) -> None:
        if not self._is_new(remote, local):
            return
        try:
            self._links[remote] = link_target(local)
        except OSError as error:
            self._fault(local, error)

    def _fault(self, path: str, error: OSError) -> None:
        if os.path.islink(path) and isinstance(error, FileNotFoundError):  # noqa: PTH114
            self.faults.append(f'the link {path} leads to {link_target(path)}, where nothing is')
            return
        hint = neighbour(Path(path).absolute()) if isinstance(error, FileNotFoundError) else None
        self.faults.append(f'cannot read {path}: {error.strerror}' + (f' ({hint})' if hint else ''))


def _kind(mode: int) -> str:
    names = {stat.S_IFIFO: 'a pipe', stat.S_IFSOCK: 'a socket', stat.S_IFBLK: 'a device', stat.S_IFCHR: 'a device'}
    return names.get(stat.S_IFMT(mode), 'something else')
