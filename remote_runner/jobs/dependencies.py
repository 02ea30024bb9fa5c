"""What the tasks of a batch need on every host: brought up to date before the first of them, once a shared file system.

It stays there for the next batch that needs the same, in a folder of the user's cache that is named after where it
comes from.
"""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

from remote_runner.deploy.bring import Bringer
from remote_runner.events import Events
from remote_runner.files.manifest import Manifest
from remote_runner.files.options import CopyOptions
from remote_runner.files.sources import gather
from remote_runner.hosts.host import Host

#: Where it lies on hosts, below the home.
FOLDER = '.cache/remote_runner/dependencies'


class Dependencies:
    """A folder, of which the content is meant, or a file. Thread-safe.

    Args:
        path: of this machine.
        events: hears of files that are sent.

    Raises:
        SourcesFailed: it is not there, or cannot be read.
    """

    def __init__(self, path: Path, events: Events) -> None:
        source = path.resolve()
        name = f'{socket.gethostname()}:{source}'
        self._folder = f'{FOLDER}/{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}'
        self._bringer = Bringer(CopyOptions(delete=True), events)
        inside = f'{source}/' if source.is_dir() else str(source)
        self._manifest: Manifest = gather(self._bringer.local, [inside], self._folder + '/')

    def bring(self, host: Host) -> str:
        """Bring it to a host; its path there.

        Raises:
            RemoteRunnerError: as `Bringer.bring`.
        """
        self._bringer.bring(host, self._manifest)
        return f'{host.facts.home}/{self._folder}'

    def close(self) -> None:
        """Remember what was hashed, and let nobody wait any more."""
        self._bringer.give_up()
        self._bringer.local.save()
