"""Bringing files to hosts: what every command does that copies, with its events.

    bringer = Bringer(CopyOptions(), events)
    bringer.bring(host, manifest)
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager

from remote_runner.deploy.sharing import Sharing, Turn, Whose
from remote_runner.events import Events, FilesCompared, FilesSending, FilesSent
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import Manifest, Placed, build_manifest
from remote_runner.files.options import CopyOptions
from remote_runner.files.transfer import Difference, compare, send
from remote_runner.hosts.host import Host


class Bringer:
    """Brings files to any number of hosts, each local file looked at and hashed once. Thread-safe.

    Of hosts that see the same folder one is sent what belongs there, see `deploy/sharing.py`.

    Args:
        options: how.
        events: hears what is found, how far it is, and what came of it.
        whose: the components to which a path of a host belongs, by both, for errors.
    """

    def __init__(self, options: CopyOptions, events: Events, whose: Whose = lambda host, path: ()) -> None:
        self._options = options
        self._events = events
        self.local = LocalFiles(remembered=options.remembered, times=options.times)
        self._sharing = Sharing(self.local, whose)

    def manifest(self, placed: Iterable[Placed], tops: Iterable[str] = ()) -> Manifest:
        """What is to stand on a host, see `build_manifest`; `tops` are folders that hold together what is in them."""
        return build_manifest(self.local, placed)._replace(tops=tuple(dict.fromkeys(tops)))

    def bring(self, host: Host, manifest: Manifest) -> None:
        """Compare and send.

        Raises:
            ConnectionLost: the connection broke.
            TransferFailed: a file could not be read here or written there, or another host brings another one to the
                same place; those written already are whole.
        """
        begun = time.monotonic()
        with self.turn(host) as turn:
            self.send(host, manifest, self.compare(host, manifest, turn), begun, turn)

    def turn(self, host: Host) -> AbstractContextManager[Turn]:
        """The time from comparing to the end of sending: what is not there by then, other hosts bring."""
        return self._sharing.turn(host)

    def give_up(self) -> None:
        """The command is interrupted: no host waits any more for what others bring. Safe to call twice."""
        self._sharing.give_up()

    def compare(self, host: Host, manifest: Manifest, turn: Turn) -> Difference:
        """What has to be done on a host, by whichever host; raises as `bring` does."""
        difference = compare(host, manifest, self.local, always_copy=self._options.always_copy, turn=turn)
        files, to_send = len(manifest.files), len(difference.send)
        self._events.emit(FilesCompared(host=host.name, files=files, to_send=to_send, bytes=difference.bytes))
        return difference

    def send(self, host: Host, manifest: Manifest, difference: Difference, begun: float, turn: Turn) -> None:
        """Do it; `begun` is when it was begun, by time.monotonic(). Raises as `bring` does."""

        def progress(arrived: int, of: int) -> None:
            self._events.emit(FilesSending(host=host.name, bytes=arrived, of_bytes=of))

        done = [difference.without(turn.awaited)]
        send(host, manifest, done[0], self.local, progress)
        turn.sent()
        for more in turn.others():
            done.append(compare(host, more, self.local))
            send(host, more, done[-1], self.local, progress)
        self._events.emit(
            FilesSent(
                host=host.name,
                files=len(manifest.files),
                sent=sum(len(each.send) for each in done),
                modes=sum(len(each.modes) for each in done),
                bytes=sum(each.bytes for each in done),
                shared=turn.shared.total(),
                shared_with=tuple(turn.shared),
                seconds=time.monotonic() - begun,
            )
        )
