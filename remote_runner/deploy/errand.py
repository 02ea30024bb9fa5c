"""One command on a host that does not share our folder: the folder goes there, and what the command changed comes back.

    with Errand(host, '/home/me/project') as errand:
        ...                       # a command runs in errand.folder
        errand.bring_back()

It is a folder of its own, so that many commands may be under way at once, and it is gone afterwards.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import TracebackType

from remote_runner.deploy.bring import Bringer
from remote_runner.errors import FetchIncomplete, HostError, RequestFailed, TransferFailed
from remote_runner.events import Events
from remote_runner.files.fetch import bring
from remote_runner.files.listing import Listing, RemoteFile, Wanted, look
from remote_runner.files.options import CopyOptions
from remote_runner.files.sources import gather
from remote_runner.hosts.host import ANSWER_TIMEOUT, GIVE_UP_TIMEOUT, Host

log = logging.getLogger(__name__)

#: What the folders on hosts are called; `remote_runner clean` finds one that was left behind.
NAME = 'dsh'


class Errand:
    """See above. A context manager.

    Args:
        host: where to.
        source: a folder of this machine, with all that is in it; symbolic links stay links.

    Raises:
        SourcesFailed: something in it cannot be read.
        TransferFailed: it cannot be brought.
        ConnectionLost: the connection broke.
    """

    def __init__(self, host: Host, source: str) -> None:
        self._host = host
        self._source = source
        self._sent: dict[str, tuple[int, int]] = {}
        #: Where it is there.
        self.folder = ''

    def __enter__(self) -> Errand:
        try:
            asked = {'components': [[NAME, None, None]], 'create': True}
            [self.folder] = self._host.request('prepare', timeout=ANSWER_TIMEOUT, **asked)['base_dirs']
        except RequestFailed as error:
            raise TransferFailed(f'there is no place for this folder: {error.what}', host=self._host.name) from error
        try:
            self._send()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _send(self) -> None:
        bringer = Bringer(CopyOptions(), Events())
        manifest = gather(bringer.local, [f'{self._source}/'], self.folder, keep_links=True)
        try:
            bringer.bring(self._host, manifest)
        except KeyboardInterrupt:
            bringer.give_up()
            self._host.give_up(GIVE_UP_TIMEOUT)
            raise
        self._sent = {entry.remote: (entry.size, entry.mtime) for entry in manifest.files}

    def bring_back(self) -> int:
        """Fetch the files that are new there, or have another size or time than when they were sent; how many.

        What is gone there stays here. Where a symbolic link is here, nothing is written through it or in its place.

        Raises:
            FetchIncomplete: some cannot be brought; all others are here.
            TransferFailed: the host does not do what it is asked.
            ConnectionLost: the connection broke.
        """
        found = look(self._host, [Wanted(self.folder, '.', self._source)])
        changed = tuple(file for file in found.files if self._is_changed(file))
        folders = tuple(folder for folder in found.folders if not _leads_through_link(self._source, folder.local))
        listing = Listing(found.host, changed, folders, failures=found.failures)
        failures = bring(self._host, listing, lambda *progress: None).failures
        if failures:
            raise FetchIncomplete(list(failures))
        return len(changed)

    def _is_changed(self, file: RemoteFile) -> bool:
        is_as_sent = self._sent.get(file.path) == (file.size, file.mtime)
        return not is_as_sent and not _leads_through_link(self._source, file.local)

    def _remove(self) -> None:
        try:
            self._host.request('remove', timeout=ANSWER_TIMEOUT, temporary=[self.folder], folders=[])
        except (HostError, RequestFailed) as error:
            log.warning('%s: %s is left there, for `remote_runner clean`: %s', self._host.name, self.folder, error)


def _leads_through_link(top: str, path: str) -> bool:
    """Whether a path below `top` is a symbolic link, or below one."""
    place = Path(path)
    while str(place) != top and place != place.parent:
        if place.is_symlink():
            return True
        place = place.parent
    return False
