"""What should stand on a host: the files of its components, by their absolute paths there."""

from __future__ import annotations

import hashlib
import stat
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from remote_runner.errors import TransferFailed


class Entry(NamedTuple):
    """One file that should stand on a host.

    Args:
        local: its absolute path on this machine.
        remote: its path on the host: absolute, or starting with `~`.
        size: in bytes; mode: its permission bits.
    """

    local: str
    remote: str
    size: int
    mode: int


class Manifest(NamedTuple):
    """All files and folders that should stand on one host, each path once."""

    files: tuple[Entry, ...]
    folders: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(entry.size for entry in self.files)


class LocalFiles:
    """What is known of the files of this machine: each is looked at and hashed once, for however many hosts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._digests: dict[str, Future[str]] = {}

    def entry(self, local: str, remote: str) -> Entry:
        """The manifest's entry of a local file.

        Raises:
            TransferFailed: it is not there any more.
        """
        try:
            status = Path(local).stat()
        except OSError as error:
            raise TransferFailed(f'cannot read {local}: {error.strerror}') from error
        return Entry(local, remote, status.st_size, stat.S_IMODE(status.st_mode))

    def sha1(self, local: str) -> str:
        """The SHA-1 of a local file in hexadecimal; computed by the first who asks.

        Raises:
            TransferFailed: it cannot be read.
        """
        with self._lock:
            future = self._digests.get(local)
            ours = future is None
            if future is None:
                future = self._digests[local] = Future()
        if ours:
            try:
                with Path(local).open('rb') as file:
                    future.set_result(hashlib.file_digest(file, _new_sha1).hexdigest())
            except OSError as error:
                future.set_exception(TransferFailed(f'cannot read {local}: {error.strerror}'))
            except BaseException as error:
                future.set_exception(error)  # all other hosts wait for it
                raise
        return future.result()


def _new_sha1() -> hashlib._Hash:
    return hashlib.sha1(usedforsecurity=False)


def build_manifest(local: LocalFiles, placed: Iterable[tuple[str, str, bool]]) -> Manifest:
    """The manifest of one host.

    Args:
        local: the files of this machine.
        placed: (local path, path on the host, whether it is a folder to create) of each; repetitions count once.

    Raises:
        TransferFailed: a local file is not there any more.
    """
    files: dict[str, Entry] = {}
    folders: dict[str, None] = {}
    for source, target, is_folder in placed:
        if is_folder:
            folders[target] = None
        elif target not in files:
            files[target] = local.entry(source, target)
    return Manifest(tuple(files.values()), tuple(folders))


def remote_path(base_dir: str, path: str) -> str:
    """Where a remote path as users write it stands: absolute and `~` paths as they are, others under `base_dir`."""
    return path if path.startswith('~') else str(PurePosixPath(base_dir) / path)
