"""What the tasks of a job need on every host: brought up to date before the first of them, once a shared file system.

It lies in a folder of the user's cache there that is named after where it comes from, and stays for the next job that
needs the same. In the working folder of each attempt stand links to it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

from remote_runner.agent.staged import FOLDER
from remote_runner.deploy.bring import Bringer
from remote_runner.deploy.component_plan import FilePlan
from remote_runner.errors import RemoteRunnerError, TransferFailed
from remote_runner.events import Events
from remote_runner.files.manifest import Manifest, Placed
from remote_runner.files.options import CopyOptions
from remote_runner.files.sources import gather
from remote_runner.hosts.address import Address
from remote_runner.hosts.host import GIVE_UP_TIMEOUT, Host
from remote_runner.hosts.pool import Opens, each
from remote_runner.jobs.engines.base import Links

log = logging.getLogger(__name__)


class _Bringing:
    """Brings manifests to hosts for as long as that is wanted. Thread-safe."""

    def __init__(self, options: CopyOptions, events: Events) -> None:
        self._bringer = Bringer(options, events)
        self._lock = threading.Lock()
        self._under_way: set[Host] = set()
        self._is_over = False

    def _bring(self, host: Host, manifest: Manifest) -> None:
        with self._lock:
            if self._is_over:
                raise TransferFailed('the job is over', host=host.name)
            self._under_way.add(host)
        try:
            self._bringer.bring(host, manifest)
        finally:
            with self._lock:
                self._under_way.discard(host)

    def give_up(self) -> None:
        """The job is over: what is being brought is not wanted any more."""
        with self._lock:
            self._is_over = True
            hosts = list(self._under_way)
        self._bringer.give_up()
        for _ in each(hosts, lambda host: host.give_up(GIVE_UP_TIMEOUT)):
            continue

    def close(self) -> None:
        """The same; and what was hashed is remembered."""
        self.give_up()
        self._bringer.local.save()


class Dependencies(_Bringing):
    """A folder, of which the content is meant, or a file: what is found as `dependencies/`. Thread-safe.

    Args:
        path: of this machine.
        events: hears of files that are sent.

    Raises:
        SourcesFailed: it is not there, or cannot be read.
    """

    def __init__(self, path: Path, events: Events) -> None:
        source = path.resolve()
        self._folder = _folder(str(source))
        super().__init__(CopyOptions(delete=True), events)
        inside = f'{source}/' if source.is_dir() else str(source)
        self._manifest: Manifest = gather(self._bringer.local, [inside], self._folder + '/')

    def bring(self, host: Host) -> Links:
        """Bring it to a host.

        Raises:
            RemoteRunnerError: as `Bringer.bring`.
        """
        self._bring(host, self._manifest)
        return {'dependencies': f'{host.facts.home}/{self._folder}'}


class Files(_Bringing):
    """The files and the program of a sweep. Thread-safe.

    Args:
        files: each with its path in working folders, or an absolute one.
        executables: platforms (`linux-x86_64`) with paths of this machine.
        program: what the executable is called in working folders.
        owner: what names the sweep on this machine.
        events: hears of files that are sent.
    """

    def __init__(
        self,
        files: Iterable[FilePlan],
        executables: Iterable[tuple[str, str]],
        program: str | None,
        owner: str,
        events: Events,
    ) -> None:
        super().__init__(CopyOptions(), events)
        self._files = list(files)
        self._executables = dict(executables)
        self._program = program
        self._folder = _folder(owner)
        #: The hosts that some of it was brought to.
        self.hosts: set[str] = set()

    def bring(self, host: Host) -> Links:
        """Bring them to a host.

        Raises:
            TransferFailed: there is no executable for it, or a file could not be brought.
            RemoteRunnerError: as `Bringer.bring`.
        """
        placed: list[Placed] = []
        links: dict[str, str | None] = {}
        there = f'{host.facts.home}/{self._folder}'
        for file in self._files:
            if file.remote.startswith(('/', '~')):
                placed.append(Placed(file.local, file.remote, file.kind))
                continue
            remote = os.path.normpath(file.remote)
            if file.is_directory:
                links[remote] = None
            else:
                links[remote] = f'{there}/{remote}'
                placed.append(Placed(file.local, f'{there}/{remote}', file.kind))
        if self._program is not None:
            local = self._executables.get(host.facts.platform)
            if local is None:
                known = ', '.join(self._executables)
                raise TransferFailed(f'there is no executable for {host.facts.platform}, only {known}', host=host.name)
            # Hosts of several platforms may share a home.
            path = f'{there}/{host.facts.platform}/{self._program}'
            links[self._program] = path
            placed.append(Placed(local, path))
        if placed:
            self.hosts.add(host.name)
            self._bring(host, self._bringer.manifest(placed))
        return links

    def remove(self, addresses: Iterable[Address], connector: Opens, fanout: int) -> None:
        """Remove from these hosts what was brought for working folders, as far as they can be reached."""
        from remote_runner.deploy.execute import Executed, execute

        for address, outcome in execute(addresses, f'rm -rf ~/{self._folder}', connector, fanout=fanout):
            if isinstance(outcome, RemoteRunnerError) or outcome.status:
                why = outcome.stderr.decode(errors='replace').strip() if isinstance(outcome, Executed) else outcome.what
                log.warning('%s: the files of the sweep stay there in ~/%s: %s', address.where, self._folder, why)


def _folder(owner: str) -> str:
    name = f'{socket.gethostname()}:{owner}'
    return f'{FOLDER}/{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}'
