"""Bringing files to hosts: what every command does that copies, with its events.

    bringer = Bringer(CopyOptions(), events)
    bringer.bring(host, manifest)
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import AbstractContextManager
from itertools import islice

from remote_runner.deploy.conflicts import Whose
from remote_runner.deploy.sharing import Sharing, Turn
from remote_runner.errors import DeletionFailed
from remote_runner.events import Events, FilesCompared, FilesDeleted, FilesSending, FilesSent
from remote_runner.files.ahead import Gathering
from remote_runner.files.compare import Asking, Difference, compare
from remote_runner.files.delete import delete, find_surplus
from remote_runner.files.lanes import Lanes
from remote_runner.files.limit import Limit
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import NO_MIRROR, Manifest, Mirror, Placed, build_manifest
from remote_runner.files.options import CopyOptions
from remote_runner.files.transfer import send
from remote_runner.hosts.call import Call
from remote_runner.hosts.host import Host

log = logging.getLogger(__name__)

#: Paths that are named of what is deleted on a host.
NAMED = 10


class Bringer:
    """Brings files to any number of hosts, each local file looked at and hashed once. Thread-safe.

    Of hosts that see the same folder one is sent what belongs there, see `deploy/sharing.py`.

    Args:
        options: how.
        events: hears what is found, how far it is, and what came of it.
        whose: the components to which a path of a host belongs, by both, for errors.
    """

    def __init__(self, options: CopyOptions, events: Events, whose: Whose = lambda host, path: ()) -> None:
        self.options = options
        self._events = events
        self._limit = Limit(options.rate) if options.rate else None
        self._lanes = Lanes()
        #: What came of each host.
        self.done: list[FilesSent] = []
        self._calls: dict[str, list[Call]] = defaultdict(list)
        self.local = LocalFiles(remembered=options.remembered, times=options.times)
        self._sharing = Sharing(self.local, deletes=options.delete, whose=whose)

    def sent_bytes(self) -> int:
        """Bytes of content that were sent, also to hosts that did not get all."""
        done = {sent.host: sent.sent_bytes for sent in self.done}
        part = sum(call.delivered for host, calls in list(self._calls.items()) if host not in done for call in calls)
        return sum(done.values()) + part

    def give_up(self) -> None:
        """Nothing is wanted any more: who waits to send need not, nor who waits for what others bring."""
        if self._limit is not None:
            self._limit.end()
        self._sharing.give_up()

    def manifest(
        self, placed: Iterable[Placed], mirror: Mirror = NO_MIRROR, tops: Iterable[str] = ()
    ) -> Manifest:
        """What is to stand on a host, see `build_manifest`.

        Args:
            placed: it.
            mirror: from where the rest goes, with `--delete`.
            tops: folders that hold together what is in them, see `files/places.py`.
        """
        return build_manifest(self.local, placed)._replace(mirror=mirror, tops=tuple(dict.fromkeys(tops)))

    def bring(self, host: Host, wanted: Manifest | Gathering) -> None:
        """Compare, send, and with `--delete` delete. What is still being gathered is compared as it comes.

        Raises:
            ConfigError: from a folder of the manifest nothing may be deleted; nothing was changed.
            ConnectionLost: the connection broke.
            DeletionFailed: something could not be deleted; all else is done.
            TransferFailed: a file could not be read here or written there, or another host brings another one to the
                same place; those written already are whole.
            SourcesFailed, ValueError: see `Gathering`.
        """
        begun = time.monotonic()
        with self.turn(host) as turn:
            manifest, asking = self.gathered(host, wanted)
            difference = self.compare(host, manifest, turn, asking)
            self.send(host, manifest, difference, begun, turn)
            self.delete(host, manifest, difference, turn)

    def gathered(self, host: Host, wanted: Manifest | Gathering) -> tuple[Manifest, Asking | None]:
        """All that is wanted; and what is still being gathered, the host is being asked about."""
        if isinstance(wanted, Manifest):
            return wanted, None
        if self.options.always_copy:
            return wanted.whole(self.local), None
        asking = Asking(host, self.local, wanted.parts(self.local))
        try:
            return wanted.whole(self.local), asking
        except BaseException:
            asking.call.cancel()
            raise

    def turn(self, host: Host) -> AbstractContextManager[Turn]:
        """The time from comparing to the end of all: what is not there by then, other hosts bring."""
        return self._sharing.turn(host)

    def compare(self, host: Host, manifest: Manifest, turn: Turn, asking: Asking | None = None) -> Difference:
        """What has to be done on a host, by whichever host; raises as `bring` does. `asking`: see there."""
        always_copy = self.options.always_copy
        difference = compare(host, manifest, self.local, always_copy=always_copy, turn=turn, asking=asking)
        if self.options.delete:
            difference = difference._replace(surplus=find_surplus(host, manifest))
        files, to_send = len(manifest.files), len(difference.send)
        self._events.emit(FilesCompared(host=host.name, files=files, to_send=to_send, bytes=difference.bytes))
        return difference

    def send(self, host: Host, manifest: Manifest, difference: Difference, begun: float, turn: Turn) -> None:
        """Do it; `begun` is when it was begun, by time.monotonic(). Raises as `bring` does."""

        def progress(arrived: int, of: int, files: int, of_files: int) -> None:
            self._events.emit(
                FilesSending(host=host.name, bytes=arrived, of_bytes=of, files=files, of_files=of_files)
            )

        began = self._calls[host.name].append
        done = [difference.without(turn.awaited)]
        sent_bytes = send(host, manifest, done[0], self.local, progress, self._limit, self._lanes, began)
        turn.sent()
        for more in turn.others():
            done.append(compare(host, more, self.local))
            sent_bytes += send(host, more, done[-1], self.local, progress, self._limit, self._lanes, began)
        modes = {path for each in done for path, _ in each.modes}
        times = {path for each in done for path, _ in each.times} - modes
        sent_files, shared = sum(len(each.send) for each in done), turn.shared.total()
        unchanged = len(manifest.files) - sent_files - len(modes) - len(times) - shared
        sent = FilesSent(
            host=host.name,
            files=len(manifest.files),
            sent=sent_files,
            modes=len(modes),
            bytes=sum(each.bytes for each in done),
            seconds=time.monotonic() - begun,
            sent_bytes=sent_bytes,
            times=len(times),
            unchanged=unchanged,
            hashed=min(difference.hashed, len(modes) + len(times) + unchanged),
            shared=shared,
            shared_with=tuple(turn.shared),
            links=len({path for each in done for path, _ in each.links}),
        )
        self.done.append(sent)
        self._events.emit(sent)

    def delete(self, host: Host, manifest: Manifest, difference: Difference, turn: Turn) -> None:
        """Delete what is gone here, after all was sent; raises as `bring` does."""
        if not self.options.delete or not manifest.mirror:
            return
        with turn.deleting(difference.surplus) as surplus:
            deleted = delete(host, surplus)
        for path in surplus.mounts:
            log.warning('%s: %s is another file system: nothing in it is deleted', host.name, path)
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
