"""Seeing what another host has brought into a shared folder: late on NFS, and never where it only looks shared."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Mapping

from remote_runner.deploy.regions import Claim
from remote_runner.files.compare import look
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import Entry, Manifest
from remote_runner.hosts.host import Host

log = logging.getLogger(__name__)

#: Seconds after which what another host has brought is visible, or is not waited for any more: NFS shows changes after
#: `acdirmax`, 60 s unless it was mounted otherwise (nfs(5)).
VISIBLE_TIMEOUT = 70.0
#: Seconds between two looks whether it is: the first and the longest pause.
LOOK_STEP, LONGEST_STEP = 0.05, 2.0


class Sight:
    """What one host sees.

    Args:
        host: it.
        manifest: what it wants.
        local: the files here.
        pause: lets so many seconds pass.
        strays: tells which of its paths lie elsewhere than they seem to.
    """

    def __init__(
        self,
        host: Host,
        manifest: Manifest,
        local: LocalFiles,
        pause: Callable[[float], object],
        strays: Callable[[list[str]], list[str]],
    ) -> None:
        self._host = host
        self._manifest = manifest
        self._local = local
        self._pause = pause
        self._strays = strays

    def wait(self, awaited: Mapping[str, Claim]) -> set[str]:
        """Wait until it sees what others have brought; what it does not see in time, or cannot see.

        Raises:
            ConnectionLost: the connection broke.
            TransferFailed: the command was interrupted.
        """
        wanted = dict(awaited)
        given_up: set[str] = set()
        deadline = time.monotonic() + VISIBLE_TIMEOUT
        pause = LOOK_STEP
        while True:
            wanted = {path: wanted[path] for path in self._unseen(wanted) & wanted.keys()}
            if pause == LOOK_STEP and wanted:
                hopeless = self._hopeless(wanted)
                given_up |= hopeless
                wanted = {path: claim for path, claim in wanted.items() if path not in hopeless}
            if not wanted or time.monotonic() > deadline:
                break
            self._pause(pause)
            pause = min(2 * pause, LONGEST_STEP)
        for path, claim in list(wanted.items())[:1]:
            what = '%s does not see after %g s what %s has brought, %s (%d in all): it is brought again'
            log.warning(what, self._host.name, VISIBLE_TIMEOUT, claim.turn.host.name, path, len(wanted))
        return given_up | wanted.keys()

    def _unseen(self, wanted: Mapping[str, Claim]) -> set[str]:
        """The paths that are not as the others have brought them. Times may differ: who brings a file cannot always
        set its time."""
        manifest = only(self._manifest, set(wanted))
        files = []
        for entry in manifest.files:
            item = wanted[entry.remote].item
            if isinstance(item, Entry):
                files.append(item._replace(remote=entry.remote))
        difference = look(self._host, manifest._replace(files=tuple(files)), self._local).difference
        return difference._replace(times=()).paths()

    def _hopeless(self, wanted: Mapping[str, Claim]) -> set[str]:
        """What will not be seen however long it is waited for: files of others that may not be read, and links."""
        uid = self._host.facts.uid
        found = {path for path, claim in wanted.items() if claim.turn.host.facts.uid != uid}
        links = {path for path, _ in self._manifest.links}
        return found | set(self._strays([path for path in wanted if path not in found and path not in links]))


def only(manifest: Manifest, paths: Container[str]) -> Manifest:
    """What of a manifest is to stand at these paths."""
    return Manifest(
        tuple(entry for entry in manifest.files if entry.remote in paths),
        tuple(each for each in manifest.folders if each[0] in paths),
        tuple(each for each in manifest.links if each[0] in paths),
        tuple(each for each in manifest.bits if each[0] in paths),
    )
