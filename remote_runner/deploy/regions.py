"""Folders that several hosts may see, and who brings what there: what `deploy/sharing.py` keeps of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from remote_runner.errors import HostError, RequestFailed
from remote_runner.files.places import Item, Place
from remote_runner.hosts.host import ANSWER_TIMEOUT, Host

if TYPE_CHECKING:
    from remote_runner.deploy.sharing import Turn

log = logging.getLogger(__name__)

#: Seconds that the end of a copy waits for a mark to be removed; else it goes with the agent.
UNMARK_TIMEOUT = 3.0


class State(Enum):
    """How far a host is with what it brings; others bring what is `FAILED`."""

    BUSY = 'busy'
    DONE = 'done'
    FAILED = 'failed'


class Batch:
    """What a host brings at one time."""

    def __init__(self) -> None:
        self.state = State.BUSY


class Claim(NamedTuple):
    """Who brings what to a path.

    Args:
        turn: of which host, and in which `batch`.
        path: what that host calls the path.
        item: what is to stand there.
    """

    turn: Turn
    batch: Batch
    path: str
    item: Item

    @property
    def changes(self) -> bool:
        """Whether something else, or nothing, stood there before."""
        return self.path in self.turn.changed


class Region:
    """A folder that hosts may see together, found out of by the first of them; paths are called as that one does."""

    def __init__(self, turn: Turn, place: Place) -> None:
        self.turn = turn
        self.place = place
        #: Who brings what; made when another host comes.
        self.claims: dict[str, Claim] | None = None
        #: The hosts that see it, and what they call `place.folder`.
        self.members: list[tuple[Host, str]] = [(turn.host, place.folder)]
        self._marking = threading.Lock()
        self._mark: tuple[Host, str, str] | None = None

    def claimed(self) -> dict[str, Claim]:
        """The claims; with the lock of `Sharing` held."""
        if self.claims is None:
            self.claims = self.turn.claims_in(self.place)
        return self.claims

    def mark(self) -> str | None:
        """The name of a mark in the folder; None where no host can make one."""
        with self._marking:
            for host, folder in [] if self._mark else list(self.members):
                try:
                    name = host.request('leave_mark', timeout=ANSWER_TIMEOUT, folder=folder)['name']
                except (RequestFailed, HostError) as error:
                    log.debug('%s cannot tell others of %s: %s', host.name, folder, error.what)
                    continue
                self._mark = host, folder, name
                break
            return self._mark[2] if self._mark else None

    def unmark(self, is_needed: Callable[[], bool]) -> None:
        """Remove the mark, if there is one, and it is not needed again."""
        with self._marking:
            if self._mark is None or is_needed():
                return
            host, folder, name = self._mark
            self._mark = None
            try:
                host.request('remove_mark', timeout=UNMARK_TIMEOUT, folder=folder, name=name)
            except (RequestFailed, HostError) as error:  # its agent removes it at its end
                log.debug('%s: the mark %s/%s could not be removed: %s', host.name, folder, name, error.what)
