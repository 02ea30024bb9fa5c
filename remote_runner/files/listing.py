"""What there is to fetch from hosts, and where it would come to stand here. Nothing is written yet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from remote_runner.errors import FetchFailed, HostError, RequestFailed, TransferFailed
from remote_runner.files.incoming import LocalFolder, UnsafePath
from remote_runner.hosts.call import Call
from remote_runner.hosts.host import Host

#: What is taken over of a file's mode: who may what. Set-user-ID would let a host choose what runs as us.
PERMISSIONS = 0o777
#: What stands in a listing and cannot be brought: see `agent.fetch.list_files`.
_NOT_BROUGHT = {
    'dangling': 'a link to nothing',
    'loop': 'a folder that is in itself',
    'other': 'neither a file nor a folder',
}


class Wanted(NamedTuple):
    """What is to be fetched, and where to.

    Args:
        base_dir: the folder of the host to which `remote` is relative; `~` works.
        remote: a file, a folder (all in it), or a glob.
        folder: a local folder, absolute; made when something comes.
    """

    base_dir: str
    remote: str
    folder: str


class RemoteFile(NamedTuple):
    """A file of a host and its place here.

    Args:
        path: its absolute path there.
        local: its absolute path here.
        size: bytes that it had when it was listed.
        mode: its permission bits.
        mtime: when it was changed, in ns.
    """

    path: str
    local: str
    size: int
    mode: int
    mtime: int


class RemoteFolder(NamedTuple):
    """A folder of a host and its place here; see `RemoteFile`."""

    path: str
    local: str
    mode: int


class Listing(NamedTuple):
    """What there is to fetch from one host.

    Args:
        host: its name.
        files: those that can be brought.
        folders: theirs, and empty ones.
        empty: globs that match nothing, as they were written.
        left_out: (path, reason) of what is in wanted folders and is neither file nor folder.
        failures: what is missing, may not be read, or may not be written to where the host says.
    """

    host: str
    files: tuple[RemoteFile, ...]
    folders: tuple[RemoteFolder, ...]
    empty: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    failures: tuple[FetchFailed, ...] = ()


def look(host: Host, wanted: Iterable[Wanted]) -> Listing:
    """Ask a host what there is to fetch. Nothing is written.

    Raises:
        ConnectionLost: the connection broke.
        TransferFailed: the host did not answer what it was asked.
    """
    asked = list(wanted)
    builder = _Builder(host.name, asked)
    call = host.call('list_files', patterns=[[each.base_dir, each.remote] for each in asked])
    try:
        for (entries, errors), _ in call.parts():
            for entry in entries:
                builder.add(*entry)
            for path, reason in errors:
                builder.fail(path, reason)
        states = result_of(host, call)['patterns']
    except BaseException:
        cancel(call)
        raise
    for each, state in zip(asked, states, strict=True):
        if state == 'missing':
            builder.fail(each.remote, f'is not there (in {each.base_dir})')
    empty = [each.remote for each, state in zip(asked, states, strict=True) if state == 'empty']
    return builder.listing(tuple(dict.fromkeys(empty)))


class _Builder:
    """Makes a listing of what a host answers, and believes nothing of it."""

    def __init__(self, host: str, wanted: Sequence[Wanted]) -> None:
        self._host = host
        places = {each.folder: LocalFolder(each.folder) for each in wanted}
        self._places = [places[each.folder] for each in wanted]
        self._files: dict[tuple[str, str], RemoteFile] = {}
        self._folders: dict[tuple[str, str], RemoteFolder] = {}
        self._left_out: dict[str, str] = {}
        self._failures: dict[str, FetchFailed] = {}

    def add(self, number: int, name: str, path: str, kind: str, size: int, mode: int, mtime: int) -> None:
        """An entry; two patterns may have the same."""
        if kind in _NOT_BROUGHT:
            self._left_out[path] = _NOT_BROUGHT[kind]
            return
        try:
            place = self._places[number]
            local = place.folder(name) if kind == 'folder' else place.file(name)
        except UnsafePath as unsafe:
            self.fail(path, f'{name!r} {unsafe}')
            return
        key = (path, local)
        if kind == 'folder':
            self._folders[key] = RemoteFolder(path, local, mode & PERMISSIONS)
        else:
            self._files[key] = RemoteFile(path, local, size, mode & PERMISSIONS, mtime)

    def fail(self, path: str, reason: str) -> None:
        """Something that cannot be brought."""
        self._failures.setdefault(path, FetchFailed(reason, host=self._host, path=path))

    def listing(self, empty: tuple[str, ...]) -> Listing:
        """All that came."""
        files, folders = tuple(self._files.values()), tuple(self._folders.values())
        left_out, failures = tuple(self._left_out.items()), tuple(self._failures.values())
        return Listing(self._host, files, folders, empty, left_out, failures)


def check_distinct(listings: Iterable[Listing]) -> None:
    """No two files, of whatever hosts, have one local path, and none has that of a folder.

    Raises:
        FetchFailed: two have; it names both.
    """
    taken: dict[str, tuple[str, str]] = {}
    folders: dict[str, tuple[str, str]] = {}
    for listing in listings:
        for file in listing.files:
            here = (listing.host, file.path)
            other = taken.setdefault(file.local, here)
            if other != here:
                what = f'and {other[1]} of {other[0]} would both become {file.local}'
                raise FetchFailed(what, host=listing.host, path=file.path)
            for above in Path(file.local).parents:
                if str(above) in folders:
                    break
                folders[str(above)] = here
        for folder in listing.folders:
            folders.setdefault(folder.local, (listing.host, folder.path))
    for local in taken.keys() & folders.keys():
        (name, path), other = taken[local], folders[local]
        what = f'would become the file {local}, which must be a folder for {other[1]} of {other[0]}'
        raise FetchFailed(what, host=name, path=path)


def result_of(host: Host, call: Call) -> Any:
    """Wait for an answer.

    Raises:
        ConnectionLost: the connection broke.
        TransferFailed: the agent says that it cannot be done.
    """
    try:
        return call.result()
    except RequestFailed as error:
        raise TransferFailed(error.what, host=host.name) from error


def cancel(call: Call) -> None:
    """Nobody wants to know its answer any more; nothing where it is there already."""
    with contextlib.suppress(HostError):
        call.cancel()
