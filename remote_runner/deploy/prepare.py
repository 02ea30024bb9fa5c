"""What stands on a host before the first start: nothing of an earlier run, the folders, the files."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from remote_runner.defaults import LOCALHOST
from remote_runner.deploy.board import Board, State, Tracked
from remote_runner.deploy.bring import Bringer
from remote_runner.deploy.conflicts import conflict_of_sources
from remote_runner.deploy.keep import end_others, has_changed_files, unchanged, watched
from remote_runner.deploy.mirror import Mirrors, check_temporary
from remote_runner.deploy.outcome import RunOptions
from remote_runner.deploy.plan import Plan
from remote_runner.deploy.room import Room
from remote_runner.deploy.session import survey_run
from remote_runner.deploy.sharing import Turn
from remote_runner.errors import DeletionFailed, DeletionIncomplete, RequestFailed, SessionFailed, TransferFailed
from remote_runner.events import Events, SessionQuit
from remote_runner.files.compare import Difference
from remote_runner.files.delete import check_trees
from remote_runner.files.manifest import NO_MIRROR, Manifest, Mirror, Placed, remote_path
from remote_runner.hosts.host import GIVE_UP_TIMEOUT, Host

log = logging.getLogger(__name__)

#: Seconds that one host has to look at small things.
SHORT = 30.0
#: Seconds that one host has to clean up after an interrupted run.
CLEAN_TIMEOUT = 6.0


class Preparation:
    """Makes hosts ready for the components of a plan, and takes that back where nothing came of it.

    Args:
        plan: what is to be started.
        board: where its components stand, each with its host.
        options: how the run is carried out.
        events: hears what happens.
        left: of hosts on which no component is any more, those that the last run may have left there.

    Attributes:
        base_dirs: the absolute base_dir of each component, on its host.
    """

    def __init__(
        self,
        plan: Plan,
        board: Board,
        options: RunOptions,
        events: Events,
        left: Mapping[str, list[str]] = MappingProxyType({}),
    ) -> None:
        self._plan = plan
        self._left = left
        self._board = board
        self._options = options
        self._events = events
        self.base_dirs: dict[str, str] = {}
        self._created: dict[str, list[str]] = {}
        self._temporary: dict[str, dict[str, str]] = {}
        self._bringer = Bringer(options.copying, events, self._whose)
        self._room = Room(self._bringer.local)
        self._mirrors = Mirrors(plan) if options.copying.delete else None
        self._undeleted: list[DeletionFailed] = []
        self._given_up = False
        self._busy: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def check(self, host: Host) -> None:
        """Whether what the options ask for may be done on a host; nothing is changed.

        Raises:
            ConfigError: with `--delete`, something would be deleted that is none of ours.
            HostError: the connection broke.
        """
        if self._mirrors is not None:
            own = [tracked.plan for tracked in self._own(host)]
            check_temporary(own)
            base_dirs = {plan.label: plan.base_dir for plan in own if plan.base_dir is not None}
            check_trees(host, self._mirrors.of(own, base_dirs))

    def check_room(self, host: Host) -> None:
        """Whether a host on which an earlier run is to be quit has room for the files; nothing is changed.

        Raises:
            TransferFailed: it has not.
            HostError: the connection broke.
        """
        own = [tracked.plan for tracked in self._own(host)]
        self._room.check(host, self._plan.session, own, keeps=self._options.keep_running)

    def make_ready(self, host: Host) -> None:
        """Quit what an earlier run left, and bring folders and files.

        Raises:
            SessionFailed: the old session could not be quit.
            TransferFailed: a folder or file could not be brought.
            ConfigError: with `--delete`, something would be deleted that is none of ours.
            HostError: the connection broke.
        """
        steps = [self._quit_leftovers, self._prepare, self._copy]
        if host.name in self._left:
            steps = [self._end_what_is_left]
        elif self._options.keep_running and self._options.join:
            steps = [self._keep_what_is_unchanged]
        with self._busy[host.name]:
            for step in steps:
                if not self._given_up:
                    step(host)

    def _end_what_is_left(self, host: Host) -> None:
        """Components that were there run elsewhere now."""
        if not self._options.kill_first:
            return
        if not self._options.is_part:
            self._quit_leftovers(host)
        elif self._left[host.name]:
            patience = max(component.stop_timeout for component in self._plan.components)
            end_others(host, self._plan.session, [], self._left[host.name], patience)

    def _keep_what_is_unchanged(self, host: Host) -> None:
        """With `--keep-running`: end what has changed or is not wanted any more, and bring its files."""
        with self._bringer.turn(host) as turn:
            self._keep(host, turn)

    def _keep(self, host: Host, turn: Turn) -> None:
        session, run, own = self._plan.session, self._options.join or '', self._own(host)
        kept = unchanged(survey_run(host, session, run), run, [tracked.plan for tracked in own])
        self._prepare(host, {key: seen.facts['cwd'] for key, seen in kept.items()})
        begun = time.monotonic()
        manifest = self._manifest(own)
        difference = Difference(()) if manifest is None else self._bringer.compare(host, manifest, turn)
        staying = [
            tracked
            for tracked in own
            if tracked.key in kept
            and not has_changed_files(
                tracked.plan, self.base_dirs[tracked.key], difference, turn.changed_by_others
            )
        ]
        if staying or self._options.is_part:
            patience = max(tracked.plan.stop_timeout for tracked in own)
            among = [tracked.plan.name for tracked in own] if self._options.is_part else None
            end_others(host, session, [tracked.plan.name for tracked in staying], among, patience)
        else:
            self._quit_leftovers(host)
        if manifest is not None:
            self._bringer.send(host, manifest, difference, begun, turn)
            with self._remembering_failures():
                self._bringer.delete(host, manifest, difference, turn)
        for tracked in staying:
            self._board.keep(tracked, kept[tracked.key].facts['status'])
        found = watched(host, session, run, [tracked.plan.name for tracked in staying])
        for tracked in staying:
            facts = found[tracked.key].facts
            self._board.restore(tracked, {**facts['status'], 'alive': facts['alive']})

    def _own(self, host: Host) -> list[Tracked]:
        return [tracked for tracked in self._board.all() if tracked.host == host.name]

    def _quit_leftovers(self, host: Host) -> None:
        if not self._options.kill_first:
            return
        patience = max((c.stop_timeout for c in self._plan.components), default=0.0)
        try:
            asked = {'session': self._plan.session, 'stop_timeout': patience}
            ended = host.request('quit', timeout=patience + SHORT, **asked)
        except RequestFailed as error:
            raise SessionFailed(error.what, host=host.name) from error
        if ended['sessions']:
            self._events.emit(SessionQuit(host=host.name, session=self._plan.session, **ended))

    def _prepare(self, host: Host, known: Mapping[str, str] = MappingProxyType({})) -> None:
        """Make folders; `known`: the base_dirs of components that have them already, by key."""
        own = self._own(host)
        plans = {tracked.key: tracked.plan for tracked in own}
        asked = [[plan.name, known.get(key, plan.base_dir), plan.user] for key, plan in plans.items()]
        try:
            answer = host.request('prepare', timeout=SHORT, components=asked, create=host.name != LOCALHOST)
        except RequestFailed as error:
            raise TransferFailed(error.what, host=host.name) from error
        self._created[host.name] = answer['created']
        for tracked, folder in zip(own, answer['base_dirs'], strict=True):
            self.base_dirs[tracked.key] = folder
            if tracked.plan.base_dir is None and tracked.key not in known:
                self._temporary.setdefault(host.name, {})[tracked.key] = folder

    def _copy(self, host: Host) -> None:
        manifest = self._manifest(self._own(host))
        if manifest is not None:
            with self._remembering_failures():
                self._bringer.bring(host, manifest)

    @contextmanager
    def _remembering_failures(self) -> Iterator[None]:
        """What cannot be deleted is in nobody's way: the run goes on, see `complain`."""
        try:
            yield
        except DeletionFailed as error:
            self._undeleted.append(error)

    def complain(self) -> None:
        """Raises:
        DeletionFailed, DeletionIncomplete: something could not be deleted, on one host or several.
        """
        if self._undeleted:
            raise self._undeleted[0] if len(self._undeleted) == 1 else DeletionIncomplete(self._undeleted)

    def _manifest(self, own: list[Tracked]) -> Manifest | None:
        """What is to stand on a host; None: nothing is brought there.

        Raises:
            TransferFailed: components want different things at one path.
        """
        placed = [
            Placed(file.local, remote_path(self.base_dirs[tracked.key], file.remote), file.kind)
            for tracked in own
            for file in tracked.plan.files
        ]
        if len(own) > 1:  # of one by itself its config tells
            wrong = conflict_of_sources(own[0].host, placed, self._bringer.local, self._whose)
            if wrong is not None:
                raise wrong
        tops = [self.base_dirs[tracked.key] for tracked in own if tracked.plan.base_dir is not None]
        return self._bringer.manifest(placed, self._mirror(own), tops) if placed else None

    def _whose(self, host: str, path: str) -> list[str]:
        """The components that have a file at this path of a host."""
        return [
            tracked.plan.label
            for tracked in self._board.all()
            if tracked.host == host
            and any(remote_path(self.base_dirs[tracked.key], file.remote) == path for file in tracked.plan.files)
        ]

    def _mirror(self, own: list[Tracked]) -> Mirror:
        if self._mirrors is None:
            return NO_MIRROR
        base_dirs = {tracked.plan.label: self.base_dirs[tracked.key] for tracked in own}
        return self._mirrors.of([tracked.plan for tracked in own], base_dirs)

    def remember(self) -> None:
        """All files were brought: what was found out of those of this machine is kept for the next run, and of it in
        this one no more than it needs.
        """
        self._bringer.local.save()
        self._bringer.local.forget_pieces()

    # ---- taking back ------------------------------------------------------------------------------------------

    def give_up(self) -> None:
        """Begin no further step on any host."""
        self._given_up = True
        self._bringer.give_up()

    def clean(self, host: Host, *, has_own_session: bool) -> None:
        """After a run that was ended early: quit a session that nothing ran in, remove folders that nothing needs.

        Args:
            has_own_session: whether this run has started the host's session.
        """
        if self._busy[host.name].acquire(timeout=GIVE_UP_TIMEOUT):  # what it was at is known now
            self._busy[host.name].release()
        else:
            log.warning('%s is still at what was interrupted; folders made for the run may be left there', host.name)
        own = self._own(host)
        never = [t for t in own if t.state in (State.PLANNED, State.ABORTED)]
        nothing_ran = len(never) == len(own)
        if nothing_ran and has_own_session:
            host.request('quit', timeout=CLEAN_TIMEOUT, session=self._plan.session, stop_timeout=0.0)
        temporary = self._temporary.get(host.name, {})
        host.request(
            'remove',
            timeout=CLEAN_TIMEOUT,
            temporary=[temporary[t.key] for t in never if t.key in temporary],
            folders=self._created.get(host.name, []) if nothing_ran else [],
        )
