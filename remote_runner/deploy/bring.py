"""Bringing files to hosts: what every command does that copies, with its events.

    bringer = Bringer(CopyOptions(), events)
    bringer.bring(host, manifest)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from itertools import islice

from remote_runner.errors import DeletionFailed
from remote_runner.events import Events, FilesCompared, FilesDeleted, FilesSending, FilesSent
from remote_runner.files.delete import delete, find_surplus
from remote_runner.files.limit import Limit
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import NO_MIRROR, Manifest, Mirror, Placed, build_manifest
from remote_runner.files.options import CopyOptions
from remote_runner.files.transfer import Difference, compare, send
from remote_runner.hosts.host import Host

log = logging.getLogger(__name__)

#: Paths that are named of what is deleted on a host.
NAMED = 10


class Bringer:
    """Brings files to any number of hosts, each local file looked at and hashed once. Thread-safe.

    Args:
        options: how.
        events: hears what is found, how far it is, and what came of it.
    """

    def __init__(self, options: CopyOptions, events: Events) -> None:
        self._options = options
        self._events = events
        self._limit = Limit(options.rate) if options.rate else None
        #: What came of each host.
        self.done: list[FilesSent] = []
        self.local = LocalFiles(remembered=options.remembered, times=options.times)

    def give_up(self) -> None:
        """Nothing is wanted any more: who waits to send need not."""
        if self._limit is not None:
            self._limit.end()

    def manifest(self, placed: Iterable[Placed], mirror: Mirror = NO_MIRROR) -> Manifest:
        """What is to stand on a host, see `build_manifest`; `mirror`: from where the rest goes, with `--delete`."""
        return build_manifest(self.local, placed)._replace(mirror=mirror)

    def bring(self, host: Host, manifest: Manifest) -> None:
        """Compare, send, and with `--delete` delete.

        Raises:
            ConfigError: from a folder of the manifest nothing may be deleted; nothing was changed.
            ConnectionLost: the connection broke.
            DeletionFailed: something could not be deleted; all else is done.
            TransferFailed: a file could not be read here or written there; those written already are whole.
        """
        begun = time.monotonic()
        difference = self.compare(host, manifest)
        self.send(host, manifest, difference, begun)
        self.delete(host, manifest, difference)

    def compare(self, host: Host, manifest: Manifest) -> Difference:
        """What has to be done on a host; raises as `bring` does."""
        difference = compare(host, manifest, self.local, always_copy=self._options.always_copy)
        if self._options.delete:
            difference = difference._replace(surplus=find_surplus(host, manifest))
        files, to_send = len(manifest.files), len(difference.send)
        self._events.emit(FilesCompared(host=host.name, files=files, to_send=to_send, bytes=difference.bytes))
        return difference

    def send(self, host: Host, manifest: Manifest, difference: Difference, begun: float) -> None:
        """Do it; `begun` is when it was begun, by time.monotonic(). Raises as `bring` does."""

        def progress(arrived: int, of: int, files: int, of_files: int) -> None:
            self._events.emit(
                FilesSending(host=host.name, bytes=arrived, of_bytes=of, files=files, of_files=of_files)
            )

        sent_bytes = send(host, manifest, difference, self.local, progress, self._limit)
        modes = {path for path, _ in difference.modes}
        times = {path for path, _ in difference.times} - modes
        sent = FilesSent(
            host=host.name,
            files=len(manifest.files),
            sent=len(difference.send),
            modes=len(modes),
            bytes=difference.bytes,
            seconds=time.monotonic() - begun,
            sent_bytes=sent_bytes,
            times=len(times),
            unchanged=len(manifest.files) - len(difference.send) - len(modes) - len(times),
            hashed=difference.hashed,
        )
        self.done.append(sent)
        self._events.emit(sent)

    def delete(self, host: Host, manifest: Manifest, difference: Difference) -> None:
        """Delete what is gone here, after all was sent; raises as `bring` does."""
        if not self._options.delete or not manifest.mirror:
            return
        surplus = difference.surplus
        for path in surplus.mounts:
            log.warning('%s: %s is another file system: nothing in it is deleted', host.name, path)
        deleted = delete(host, surplus)
        for path in deleted.changed:
            log.warning('%s: %s is not deleted: it was changed since it was looked at', host.name, path)
        self._events.emit(
            FilesDeleted(
                host=host.name,
                deleted=deleted.total,
                failed=len(deleted.failures),
                paths=tuple(islice(surplus.paths(), NAMED)),
            )
        )
        if deleted.failures:
            raise DeletionFailed(deleted.failures, host=host.name)
