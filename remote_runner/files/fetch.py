"""Bringing files of hosts home: asking what there is, and writing what comes.

    listing = look(host, [Wanted('~/work', 'logs/*.log', '/home/me/results/1/x@h1')])
    check_distinct([listing])
    fetched = bring(host, listing, progress)

A host says of each file how long it is, and then sends exactly so many bytes: of a file that grows, those that were
there. See `agent/fetch.py` for the other end.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from remote_runner.agent.copies import sweep
from remote_runner.agent.files import make_folders
from remote_runner.errors import ConnectionLost, FetchFailed, TransferFailed
from remote_runner.files.compare import look
from remote_runner.files.incoming import Incoming
from remote_runner.files.limit import Limit
from remote_runner.files.listing import Listing, RemoteFile, cancel, result_of
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import Entry, Manifest
from remote_runner.files.transfer import REPORT_STEP, Progress
from remote_runner.hosts.host import Host
from remote_runner.wire import frames

#: Bytes that a host reads at once.
PART = 4 * frames.PIECE


class Fetched(NamedTuple):
    """What became of it.

    Args:
        host: its name.
        files: the local paths of those that came.
        bytes: how many came.
        skipped: the local paths of those that were here already, of equal size, time and SHA-1.
        empty, left_out: as in `Listing`.
        failures: those that did not come, and why.
    """

    host: str
    files: tuple[str, ...]
    bytes: int
    skipped: tuple[str, ...]
    empty: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    failures: tuple[FetchFailed, ...]


def bring(
    host: Host, listing: Listing, progress: Progress, limit: Limit | None = None, *, remembered: bool = True
) -> Fetched:
    """Fetch what a listing holds. One file that fails stops no other: it is among the `failures` of the result.

    Args:
        progress: hears how many bytes and files came of how many, now and then.
        limit: how fast, with all others that have it.
        remembered: whether SHA-1s of earlier runs are believed.

    Raises:
        ConnectionLost: the connection broke; files that came are whole, nothing is left of others.
        TransferFailed: the host did not send what it was asked for.
    """
    receiver = _Receiver(host, listing, progress, limit)
    receiver.make_folders()
    skipped = receiver.skip_unchanged(remembered=remembered)
    while receiver.todo:
        receiver.receive()
    receiver.report()
    return Fetched(
        host.name,
        tuple(receiver.done),
        receiver.bytes,
        skipped,
        listing.empty,
        listing.left_out,
        (*listing.failures, *receiver.failures),
    )


class _Receiver:
    """Writes the files of one host, one after the other, as they come."""

    def __init__(self, host: Host, listing: Listing, progress: Progress, limit: Limit | None) -> None:
        self.todo = deque(listing.files)
        self.done: list[str] = []
        self.failures: list[FetchFailed] = []
        self.bytes = 0
        self._host = host
        self._folders = listing.folders
        self._progress = progress
        self._limit = limit
        self._reported = time.monotonic()
        self._incoming: Incoming | None = None
        self._left = 0  # bytes of the files of `todo`
        self._received = 0  # of the first of them
        self._failed = False  # that file; what still comes of it is dropped
        self._made: set[str] = set()

    def make_folders(self) -> None:
        """The folders of the listing; those that are new get their permission bits, and we may write into them."""
        for folder in self._folders:
            try:
                is_new = not Path(folder.local).is_dir()
                self._make(folder.local)
                if is_new:
                    Path(folder.local).chmod(folder.mode | stat.S_IRWXU)
            except OSError as error:
                what = f'cannot make the folder {folder.local}: {error.strerror}'
                self.failures.append(FetchFailed(what, host=self._host.name, path=folder.path))

    def _make(self, folder: str) -> None:
        """Make a folder, where it is missing; what runs left in it that were killed goes."""
        if folder not in self._made:
            make_folders(folder)
            sweep(folder)
            self._made.add(folder)

    def skip_unchanged(self, *, remembered: bool) -> tuple[str, ...]:
        """Take out of `todo` what is here already; the local paths. Both sides hash at the same time."""
        candidates = [file for file in self.todo if _looks_unchanged(file)]
        if not candidates:
            return ()
        local = LocalFiles(remembered=remembered)
        wanted = [Entry(file.local, file.path, file.size, file.mode) for file in candidates]
        try:
            for file in candidates:
                local.look(file.local)
            difference = look(self._host, Manifest(tuple(wanted)), local).difference
        except TransferFailed:
            return ()  # one of them cannot be looked at any more: which, fetching them says
        finally:
            local.save()
        differing = {entry.remote for entry in difference.send}
        unchanged = {file.local for file in candidates if file.path not in differing and _set_mode(file)}
        self.todo = deque(file for file in self.todo if file.local not in unchanged)
        return tuple(sorted(unchanged))

    def receive(self) -> None:
        """Fetch what is to do; return earlier where much would come that cannot be written."""
        self._left = sum(file.size for file in self.todo)
        files = [[file.path, file.size] for file in self.todo]
        part = PART if self._limit is None else min(PART, self._limit.part)
        call = self._host.call('get', files=files, part=part, window=frames.WINDOW if self._limit is None else 2 * part)
        try:
            for entries, body in call.parts():
                if self._limit is not None:
                    self._limit(len(body))
                self._take(entries, memoryview(body))
                if time.monotonic() - self._reported > REPORT_STEP:
                    self.report()
                if self._failed and self.todo[0].size - self._received > frames.WINDOW:
                    self._next()
                    return  # the rest is asked for anew
            result_of(self._host, call)
            if self.todo:
                raise self._nonsense()
        except ConnectionLost as error:
            came = f'{len(self.done)} file{"" if len(self.done) == 1 else "s"}'
            what = f'{error.what}; came: {came}; {len(self.todo)} did not, and nothing is half written here'
            raise ConnectionLost(what, host=self._host.name, output=error.output) from error
        finally:
            self._abandon()
            cancel(call)

    def report(self) -> None:
        """Say how much came."""
        self._reported = time.monotonic()
        done = len(self.done)
        self._progress(self.bytes, self.bytes + self._left - self._received, done, done + len(self.todo))

    def _take(self, entries: Sequence[Any], body: memoryview) -> None:
        for length, end in entries:
            if not self.todo or not 0 <= length <= min(len(body), self.todo[0].size - self._received):
                raise self._nonsense()
            if length or not isinstance(end, dict):
                self._write(self.todo[0], body[:length])
            body = body[length:]
            if end is not None:
                self._finish(self.todo[0], end)
                self._next()
        if body:
            raise self._nonsense()

    def _write(self, file: RemoteFile, data: memoryview) -> None:
        self._received += len(data)
        self.bytes += len(data)
        if self._failed:
            return
        try:
            if self._incoming is None:
                self._make(str(Path(file.local).parent))
                self._incoming = Incoming(file.local, file.mode, file.mtime)
            self._incoming.write(data)
        except OSError as error:
            self._fail_here(file, error)

    def _finish(self, file: RemoteFile, end: Any) -> None:
        """All of a file came, or what came is all that there is."""
        if self._failed:
            return
        if isinstance(end, dict):
            self._fail(file, str(end['what']))
        elif self._incoming is None or self._received != file.size or self._incoming.sha1() != end:
            self._fail(file, 'what came is not what was sent (length or SHA-1)')
        else:
            try:
                self._incoming.finish()
                self.done.append(file.local)
            except OSError as error:
                self._fail_here(file, error)

    def _next(self) -> None:
        self._abandon()
        self._left -= self.todo.popleft().size
        self._received = 0
        self._failed = False

    def _fail(self, file: RemoteFile, reason: str) -> None:
        self._abandon()
        self._failed = True
        self.failures.append(FetchFailed(reason, host=self._host.name, path=file.path))

    def _fail_here(self, file: RemoteFile, error: OSError) -> None:
        self._abandon()  # what it took of a full disk is free again: that was not enough
        self._fail(file, _local_reason(file, error))

    def _abandon(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.abandon()

    def _nonsense(self) -> TransferFailed:
        return TransferFailed('the agent sends something else than it was asked for', host=self._host.name)


def _looks_unchanged(file: RemoteFile) -> bool:
    """Whether a local file may be the one that would come."""
    try:
        status = Path(file.local).lstat()
    except OSError:
        return False
    # A file that we may replace and not read comes anew.
    is_same = (status.st_size, status.st_mtime_ns) == (file.size, file.mtime)
    return stat.S_ISREG(status.st_mode) and is_same and os.access(file.local, os.R_OK)


def _set_mode(file: RemoteFile) -> bool:
    """Give a local file its permission bits; False where it is not ours, and can only be replaced."""
    try:
        if stat.S_IMODE(Path(file.local).stat().st_mode) != file.mode:
            Path(file.local).chmod(file.mode)
    except OSError:
        return False
    return True


def _local_reason(file: RemoteFile, error: OSError) -> str:
    """Why a file cannot be written here; of a full disk, how full."""
    reason = f'cannot write {file.local}: {error.strerror}'
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return reason
    try:
        system = os.statvfs(Path(file.local).parent)
    except OSError:
        return f'{reason} ({file.size} bytes)'
    return f'{reason} ({file.size} bytes, {system.f_bavail * system.f_frsize} are free there)'
