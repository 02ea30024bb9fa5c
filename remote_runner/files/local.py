"""The files of this machine that are sent: each is looked at and hashed once, for however many hosts."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from remote_runner.agent.hash_files import cache_path
from remote_runner.agent.hashes import Hashes, Reading
from remote_runner.agent.stamps import entry
from remote_runner.errors import TransferFailed
from remote_runner.wire.columns import ANY_TIME
from remote_runner.wire.pieces import digest_of


class Status(NamedTuple):
    """What matters of a stat_result, see stat(2)."""

    st_size: int
    st_mode: int
    st_mtime_ns: int
    st_ctime_ns: int
    st_ino: int
    st_blocks: int

    @classmethod
    def of(cls, status: os.stat_result | Status) -> Status:
        """That of a file that another process has looked at."""
        times = status.st_mtime_ns, status.st_ctime_ns
        return cls(status.st_size, status.st_mode, *times, status.st_ino, status.st_blocks)


class LocalFiles:
    """What is known of them. Thread-safe.

    Args:
        remembered: whether SHA-1s of earlier runs are believed, and those of this one remembered.
        times: whether modification times are kept.
    """

    def __init__(self, *, remembered: bool = True, times: bool = True) -> None:
        self.remembered = remembered
        self.times = times
        self._hashes = Hashes(cache_path() if remembered else None)
        self._lock = threading.Lock()
        self._seen: dict[str, os.stat_result | Status] = {}
        self._folders: dict[tuple[str, int], Mapping[str, bytes]] = {}
        self._sent: set[str] = set()
        self._digests: dict[str, Future[str]] = {}
        self._pieces: dict[tuple[str, int], Future[tuple[bytes, ...]]] = {}
        self._workers: ThreadPoolExecutor | None = None

    def look(self, local: str) -> tuple[int, int, int]:
        """Size, permission bits and modification time (`ANY_TIME` where times are not kept) of a file.

        Raises:
            TransferFailed: it is not there any more, or no file.
        """
        status = self._seen.get(local)
        if status is None:
            try:
                status = os.stat(local)  # noqa: PTH116 - of many files
            except OSError as error:
                raise TransferFailed(f'cannot read {local}: {error.strerror}') from error
            if not stat.S_ISREG(status.st_mode):
                raise TransferFailed(f'cannot read {local}: it is no file')
            self._seen[local] = status
        return status.st_size, status.st_mode & 0o7777, status.st_mtime_ns if self.times else ANY_TIME

    def saw(self, local: str, status: os.stat_result | Status) -> None:
        """Somebody else has just looked at a file."""
        self._seen[local] = status

    def data(self, local: str) -> int:
        """Bytes of a file that are no hole, at most."""
        status = self._seen[local]
        return min(status.st_size, status.st_blocks * 512)

    def is_sparse(self, local: str) -> bool:
        """Whether a file may have holes."""
        return self.data(local) < self._seen[local].st_size

    def known(self, local: str) -> str | None:
        """The SHA-1 of a file in hexadecimal, if it is known without reading it."""
        digest = self.digest(local)
        return None if digest is None else digest.hex()

    def digest(self, local: str) -> bytes | None:
        """The same as bytes."""
        if local in self._digests:
            future = self._digests[local]
            return bytes.fromhex(future.result()) if future.done() and future.exception() is None else None
        status = self._seen[local]
        if not isinstance(status, os.stat_result):
            return None
        folder, _, name = local.rpartition('/')
        place = folder, status.st_dev
        if place not in self._folders:
            self._folders[place] = self._hashes.of_folder(*place)
        return self._remembered(self._folders[place], folder, [name], [status])[0]

    def digests(
        self, folder: str, names: Sequence[str], statuses: Sequence[os.stat_result | Status]
    ) -> list[bytes | None]:
        """The SHA-1s of many files of one folder, as far as earlier runs knew them."""
        known: Mapping[str, bytes] = {}
        devices = {status.st_dev for status in statuses if isinstance(status, os.stat_result)}
        if len(devices) == 1:
            known = self._hashes.of_folder(folder, devices.pop())
        return self._remembered(known, folder, names, statuses)

    def _remembered(
        self,
        known: Mapping[str, bytes],
        folder: str,
        names: Iterable[str],
        statuses: Iterable[os.stat_result | Status],
    ) -> list[bytes | None]:
        """What is known of files; each is asked for by itself if nothing in its folder is that holds good for many."""
        found: list[bytes | None] = []
        for name, status in zip(names, statuses, strict=True):
            remembered = known.get(name)
            if not isinstance(status, os.stat_result):
                found.append(None)  # what another process saw does not tell enough
            elif remembered is not None:
                digest = remembered[-20:]
                found.append(digest if remembered == entry(status, digest) else None)
            else:
                asked = self._hashes.known(f'{folder}/{name}', status)
                found.append(None if asked is None else bytes.fromhex(asked))
        return found

    def hash_soon(self, locals_: Iterable[str]) -> None:
        """Begin to hash files, on all cores."""
        with self._lock:
            workers = self._pool()
        for local in locals_:
            workers.submit(self._hash, local)

    def _pool(self) -> ThreadPoolExecutor:
        """With the lock held: threads that hash."""
        if self._workers is None:
            self._workers = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix='hash')
        return self._workers

    def is_ours_to_hash(self, local: str) -> bool:
        """Whether a file is hashed by who sends it to the first host. For others, who do not wait for that host, it is
        hashed beside them.
        """
        with self._lock:
            if local not in self._sent:
                self._sent.add(local)
                return True
        self.hash_soon([local])
        return False

    def sha1(self, local: str) -> str:
        """The SHA-1 of a file in hexadecimal; computed by the first who asks.

        Raises:
            TransferFailed: it cannot be read, or it was changed since it was looked at.
        """
        return self._hash(local).result()

    def _hash(self, local: str) -> Future[str]:
        with self._lock:
            future = self._digests.get(local)
            if future is not None:
                return future
            future = self._digests[local] = Future()
        try:
            future.set_result(self._hashes.sha1(local))
        except OSError as error:
            future.set_exception(TransferFailed(f'cannot read {local}: {error.strerror}'))
        except BaseException as error:
            future.set_exception(error)  # all other hosts wait for it
            raise
        return future

    def look_at_pieces(self, files: Iterable[tuple[str, int]]) -> None:
        """Begin to compute the digests of the pieces of large files, see `pieces`."""
        for local, block in files:
            with self._lock:
                if (local, block) not in self._pieces:
                    self._pieces[local, block] = self._pool().submit(self._digests_of, local, block)

    def pieces(self, local: str, block: int) -> tuple[bytes, ...]:
        """The digests (`wire/pieces.py`) of the pieces of `block` bytes of a file; a shorter last one has none.

        Raises:
            TransferFailed: it cannot be read.
        """
        self.look_at_pieces([(local, block)])
        return self._pieces[local, block].result()

    def _digests_of(self, local: str, block: int) -> tuple[bytes, ...]:
        count = self._seen[local].st_size // block
        try:
            with Path(local).open('rb', buffering=0) as file:
                return tuple(digest_of(os.pread(file.fileno(), block, number * block)) for number in range(count))
        except OSError as error:
            raise TransferFailed(f'cannot read {local}: {error.strerror}') from error

    def forget_pieces(self) -> None:
        """No host wants the digests of pieces any more."""
        with self._lock:
            self._pieces.clear()

    def reading(self, local: str) -> Reading:
        """A file that is about to be read from its begin to its end.

        Raises:
            TransferFailed: it cannot be opened, or it is not what it was when it was looked at.
        """
        try:
            reading = self._hashes.reading(local)
        except OSError as error:
            raise TransferFailed(f'cannot read {local}: {error.strerror}') from error
        try:
            self.check_unchanged(local, reading.status)
        except TransferFailed:
            os.close(reading.file)
            raise
        return reading

    def learn(self, local: str, reading: Reading, digest: str) -> None:
        """All of a file was read, with this SHA-1.

        Raises:
            TransferFailed: it was changed meanwhile.
        """
        status = os.fstat(reading.file)
        self.check_unchanged(local, status)
        reading.learn(digest, status.st_size)
        future: Future[str] = Future()
        future.set_result(digest)
        with self._lock:
            self._digests.setdefault(local, future)

    def save(self) -> None:
        """Remember for the next run what was found out; nothing where that is not possible."""
        if self._workers is not None:
            self._workers.shutdown(wait=False, cancel_futures=True)
        self._hashes.save()

    def check_unchanged(self, local: str, now: os.stat_result) -> None:
        """Raises:
        TransferFailed: a file is not what it was when it was looked at.
        """
        then = self._seen[local]
        if (now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino) != (
            then.st_size,
            then.st_mtime_ns,
            then.st_ctime_ns,  # who writes can set the mtime back, and not this
            then.st_ino,
        ):
            became = 'became shorter' if now.st_size < then.st_size else 'was changed'
            raise TransferFailed(f'{local} {became} while it was copied')
