"""Hosts that see the same folder: one of them brings what several want there, and the others
see to it that it has come.

    sharing = Sharing(local)
    with sharing.turn(host) as turn:
        turn.divide(manifest, places, difference)  # what others bring already need not be brought
        ...                                        # the rest is brought
        for manifest in turn.others():             # what others brought has come, but for these
            ...

Whoever asks first brings a file. No host waits before it has brought its own part, so none waits for ever. If the one
that brings a file fails, the next one that waits for it does it.
"""

from __future__ import annotations

import logging
import posixpath
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager

from remote_runner.deploy.conflicts import Whose, are_alike, are_of_one_source, conflict, conflict_of_names
from remote_runner.deploy.regions import Batch, Claim, Region, State
from remote_runner.deploy.visible import Sight, only
from remote_runner.errors import HostError, TransferFailed
from remote_runner.files.compare import Difference
from remote_runner.files.delete import Surplus
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import Entry, Manifest
from remote_runner.files.places import Item, Meeting, Place, above, folder_of, is_in, items, meet, plain
from remote_runner.hosts.call import INTERRUPTIBLE
from remote_runner.hosts.host import ANSWER_TIMEOUT, Host

log = logging.getLogger(__name__)

#: Seconds after which marks that were not seen are looked for again.
MARK_PAUSES = (0.05, 0.15)

#: A place of a host and a region that it may be, or that it is.
Met = tuple[Place, Region, Meeting]


class Sharing:
    """What the hosts of one command share. Thread-safe.

    Args:
        local: the files of this machine.
        deletes: whether hosts delete what is not wanted there.
        whose: tells components, for errors.
        only_conflicts: nothing is brought: hosts are told apart only where they do not agree on what is to stand there.
    """

    def __init__(
        self,
        local: LocalFiles,
        *,
        deletes: bool = False,
        whose: Whose = lambda host, path: (),
        only_conflicts: bool = False,
    ) -> None:
        self.local = local
        self.only_conflicts = only_conflicts
        self.deletes = deletes
        self.whose = whose
        self.changed = threading.Condition()
        self.regions: list[Region] = []
        #: How many hosts have begun to delete (`--delete`), and how many are at it.
        self.deletions = self.deleting = 0
        self._active = 0
        self._is_over = False

    @contextmanager
    def turn(self, host: Host) -> Iterator[Turn]:
        """The time in which a host is brought what it needs; what it has not brought at the end, others bring."""
        with self.changed:
            self._active += 1
            turn = Turn(self, host)
        try:
            yield turn
        finally:
            with self.changed:
                turn.end()
                self._active -= 1
                regions = [] if self._active else list(self.regions)
                self.changed.notify_all()
            for region in regions:
                region.unmark(lambda: self._active > 0)

    def give_up(self) -> None:
        """Nobody waits any more for what others bring."""
        with self.changed:
            self._is_over = True
            self.changed.notify_all()

    def wait(self, host: Host, until: Callable[[], bool], seconds: float | None = None) -> None:
        """Wait, with the lock held, for so long at most.

        Raises:
            TransferFailed: the command was interrupted.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while not until() and not self._is_over:
            left = INTERRUPTIBLE if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return
            self.changed.wait(min(left, INTERRUPTIBLE))
        if self._is_over:
            raise TransferFailed('interrupted while it waited for what another host brings', host=host.name)


class Turn:
    """What one host wants, and what of that others bring.

    Attributes:
        changed: the paths at which something else stood, or nothing.
        awaited: those of them that others bring.
        shared: how many files each of these has brought, by its name.
    """

    def __init__(self, sharing: Sharing, host: Host) -> None:
        self._sharing = sharing
        self.host = host
        self.changed: set[str] = set()
        self.awaited: dict[str, Claim] = {}
        self.shared: Counter[str] = Counter()
        #: Paths that only seem to be in a shared folder: others bring what they have there.
        self.elsewhere: set[str] = set()
        #: Paths that were right here and that another host has changed in this command.
        self.changed_by_others: set[str] = set()
        self._batch = Batch()
        #: Of those under way nobody knows what they have yet to delete: one more counts as not seen.
        self._deletions = sharing.deletions - bool(sharing.deleting)
        self._is_stale = False
        self._places: list[Place] = []
        self._by_top: dict[str, list[tuple[str, Item]]] | None = None
        self._manifest = Manifest(())
        self._regions: dict[str, list[tuple[Region, str]]] = {}

    # ---- what is brought by whom ------------------------------------------------------------------------------

    def divide(self, manifest: Manifest, places: list[Place], difference: Difference) -> set[str]:
        """Find out who else sees these places; what others bring of that which differs.

        Raises:
            TransferFailed: another host brings something else there, or this one would, to the same path by two names.
            ConnectionLost: the connection broke.
        """
        self._manifest, self._places, self.changed = manifest, places, difference.paths()
        local = self._sharing.local
        wrong = conflict_of_names(self.host, places, self._in, local, self._sharing.whose)
        if wrong is not None:
            raise wrong
        found = self._join()
        others: dict[str, tuple[Item, Claim]] = {}
        while found:
            conflicts = {path for path, (item, claim) in found.items() if not are_alike(item, claim.item, local)}
            about = {path for path in found if path in self.changed or found[path][1].changes} | conflicts
            here, there = self._elsewhere({path: found[path] for path in about}, conflicts)
            others.update((path, found[path]) for path in about - here - there)
            for path in conflicts & others.keys():
                item, claim = others[path]
                raise conflict(self.host, path, item, claim, self._sharing.whose)
            with self._sharing.changed:
                for path in there:
                    claim = found[path][1]
                    claim.turn.elsewhere.add(claim.path)
                found = self._claim(there - here) if there - here else {}
        self.awaited = {path: claim for path, (_, claim) in others.items() if path in self.changed}
        self.changed_by_others = others.keys() - self.awaited.keys()
        return set(self.awaited)

    def _join(self) -> dict[str, tuple[Item, Claim]]:
        """Find the regions of others that this host sees; what none of them holds becomes one of its own.

        What others bring there.
        """
        looked: set[tuple[str, int]] = set()
        joined: list[Met] = []
        while True:
            with self._sharing.changed:
                new = [
                    (place, region, meeting)
                    for place in self._places
                    for region in self._sharing.regions
                    if (place.top, id(region)) not in looked and (meeting := meet(region.place, place)) is not None
                ]
                # What was right may have been deleted since, as long as nobody knew that this host wants it.
                is_fresh = self._deletions == self._sharing.deletions
                if not looked and not self.changed and is_fresh and not self._sharing.deletes:
                    new = self._needed(new)
                if self._sharing.only_conflicts:
                    new = [each for each in new if self._is_conflicting(*each)]
                if not new:
                    self._is_stale = bool(joined) and not is_fresh
                    self._found(joined)
                    return self._claim() if joined else {}
            joined += self._seen(new)
            looked |= {(place.top, id(region)) for place, region, _ in new}

    def _needed(self, met: list[Met]) -> list[Met]:
        """Those places that have to be told apart, of a host on which all is right, with the lock held.

        Where the first host that may see the same brings all of that, and nothing else, nothing depends on it.
        """
        first = {place.top: (region, meeting) for place, region, meeting in reversed(met)}
        boring = set()
        for place in self._places:
            if place.top not in first:
                continue
            region, meeting = first[place.top]
            claims = region.claimed()
            if all(
                (claim := claims.get(path)) is not None and not claim.changes and are_of_one_source(item, claim.item)
                for path, _, item in self._translated(place, meeting.path)
            ):
                boring.add(place.top)
        self._places = [place for place in self._places if place.top not in boring]
        return [each for each in met if each[0].top not in boring]

    def _is_conflicting(self, place: Place, region: Region, meeting: Meeting) -> bool:
        """Whether something else would come to stand at a path if both are the same folder, with the lock held."""
        claims = region.claimed()
        return any(
            (claim := claims.get(path)) is not None and not are_alike(item, claim.item, self._sharing.local)
            for path, _, item in self._translated(place, meeting.path)
        )

    def _seen(self, met: list[Met]) -> list[Met]:
        """Those regions that this host sees: by their marks."""
        names = {id(region): region.mark() for _, region, _ in met}
        unseen = [each for each in met if names[id(each[1])] is not None]
        seen: list[Met] = []
        for pause in (*MARK_PAUSES, None):
            paths = [posixpath.join(meeting.folder, names[id(region)] or '') for _, region, meeting in unseen]
            answer = self.host.request('see_marks', timeout=ANSWER_TIMEOUT, paths=paths)['seen'] if paths else []
            seen += [each for each, is_there in zip(unseen, answer, strict=True) if is_there]
            unseen = [each for each, is_there in zip(unseen, answer, strict=True) if not is_there]
            if not unseen or pause is None:
                break
            self._pause(pause)
        return seen

    def _found(self, joined: list[Met]) -> None:
        """Be known to others, with the lock held."""
        self._regions = {place.top: [] for place in self._places}
        for place, region, meeting in joined:
            self._regions[place.top].append((region, meeting.path))
            region.members.append((self.host, meeting.folder))
        for place in self._places:
            known = self._regions[place.top]
            if not any(is_in(path, region.place.path) for region, path in known):
                region = Region(self, place)
                if known:
                    region.claims = {}  # which `_claim` fills
                known.append((region, place.path))
                self._sharing.regions.append(region)

    def _claim(self, only: Container[str] | None = None) -> dict[str, tuple[Item, Claim]]:
        """Bring all (or `only` these paths) that nobody else brings, with the lock held; what others do."""
        others: dict[str, tuple[Item, Claim]] = {}
        for place in self._places:
            if all(region.turn is self for region, _ in self._regions[place.top]):
                continue  # nobody else sees it; who comes to see it asks `claims_in`
            for path, item, claim in self._claim_all(place, only):
                if claim is not None:
                    others[path] = item, claim
        return others

    def _claim_all(self, place: Place, only: Container[str] | None = None) -> Iterator[tuple[str, Item, Claim | None]]:
        """Bring all of a place (or `only` these paths) that no other host does; each path, with the claim of others."""
        known = [(region.claimed(), self._translated(place, path)) for region, path in self._regions[place.top]]
        for row in zip(*[names for _, names in known], strict=True):
            _, path, item = row[0]
            if only is not None and path not in only:
                continue
            where = [(claims, name) for (claims, _), (name, _, _) in zip(known, row, strict=True)]
            claims_of_others = (
                claim
                for claims, name in where
                if (claim := claims.get(name)) is not None
                and claim.turn is not self
                and claim.batch.state is not State.FAILED
                and claim.path not in claim.turn.elsewhere
            )
            other = next(claims_of_others, None)
            if other is None:
                for claims, name in where:
                    claims[name] = Claim(self, self._batch, path, item)
            yield path, item, other

    def _translated(self, place: Place, to: str) -> Iterator[tuple[str, str, Item]]:
        """What is in a place: path where the top is called `to`, path here, what is to stand there."""
        for path, item in self._in(place):
            yield to.rstrip('/') + plain(path)[len(place.top.rstrip('/')) :], path, item

    def _in(self, place: Place) -> list[tuple[str, Item]]:
        if self._by_top is None:
            self._by_top = defaultdict(list)
            tops = {place.top for place in self._places}
            known: dict[str, str | None] = {}
            for path, item in items(self._manifest):
                folder = plain(path if item is None else folder_of(path))
                if folder not in known:
                    known[folder] = next((top for top in above(folder) if top in tops), None)
                top = known[folder]
                if top is not None:
                    self._by_top[top].append((path, item))
        return self._by_top[place.top]

    def claims_in(self, place: Place) -> dict[str, Claim]:
        """Those of a host that brings all of a place itself."""
        return {name: Claim(self, self._batch, path, item) for name, path, item in self._translated(place, place.path)}

    # ---- what only looks shared -------------------------------------------------------------------------------

    def _elsewhere(
        self, others: dict[str, tuple[Item, Claim]], exact: Container[str]
    ) -> tuple[set[str], set[str]]:
        """Those that lie elsewhere, on this host and on the other: a link or a mount is on the way there.

        `exact`: of these the files themselves, too, may be links.
        """
        here: dict[str, list[str]] = defaultdict(list)
        there: dict[Turn, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for path, (item, claim) in others.items():
            # The text of a link stands in the folder, wherever it leads.
            is_whole = item is None or (path in exact and isinstance(item, Entry) and isinstance(claim.item, Entry))
            here[path if is_whole else folder_of(path)].append(path)
            there[claim.turn][claim.path if is_whole else folder_of(claim.path)].append(path)
        if not others:
            return set(), set()
        return (
            {path for folder in self.strays(list(here)) for path in here[folder]},
            {path for turn, paths in there.items() for folder in turn.strays(list(paths)) for path in paths[folder]},
        )

    def strays(self, paths: list[str]) -> list[str]:
        """Those of these paths that lie elsewhere than their top. On a host that is gone, none is known to."""
        groups: dict[str, list[str]] = defaultdict(list)
        tops = {place.top for place in self._places}
        for path in paths:
            groups[next(top for top in above(plain(path)) if top in tops)].append(path)
        try:
            answer = self.host.request('strays', timeout=ANSWER_TIMEOUT, groups=list(groups.items()))
        except HostError as error:
            log.debug('%s does not say what is a link there: %s', self.host.name, error.what)
            return []
        found = zip(groups.values(), answer['strays'], strict=True)
        return [group[number] for group, numbers in found for number in numbers]

    # ---- what others bring ------------------------------------------------------------------------------------

    def sent(self) -> None:
        """All that was this host's to bring is there."""
        with self._sharing.changed:
            self._batch.state = State.DONE
            self._sharing.changed.notify_all()

    def end(self) -> None:
        """Whoever waits for what is not there by now brings it; with the lock held."""
        if self._batch.state is State.BUSY:
            self._batch.state = State.FAILED

    def others(self) -> Iterator[Manifest]:
        """Wait until all has come that others bring; yields what this host has to bring itself after all.

        Raises:
            TransferFailed: the command was interrupted, or a folder is where a file should be.
            ConnectionLost: the connection broke.
        """
        while self.awaited:
            with self._sharing.changed:
                self._sharing.wait(self.host, self._is_settled)
                own = self._take_over()
            if own is not None:
                if own:
                    yield only(self._manifest, own)
                    self.sent()
                continue
            left = self._sight().wait(self.awaited)
            for path in self.awaited.keys() - left:
                claim = self.awaited[path]
                if isinstance(claim.item, Entry):
                    self.shared[claim.turn.host.name] += 1
            self.awaited = {}
            if left:
                yield only(self._manifest, left)
        if self._is_stale:
            with self._sharing.changed:
                self._sharing.wait(self.host, lambda: not self._sharing.deleting)
            yield self._manifest

    def _sight(self) -> Sight:
        return Sight(self.host, self._manifest, self._sharing.local, self._pause, self.strays)

    def _pause(self, seconds: float) -> None:
        with self._sharing.changed:
            self._sharing.wait(self.host, lambda: False, seconds)

    @contextmanager
    def deleting(self, surplus: Surplus) -> Iterator[Surplus]:
        """The time in which something is deleted: what of it no other host wants."""
        sharing = self._sharing
        with sharing.changed:
            surplus = surplus.without(self._is_wanted_by_others())
            sharing.deletions += bool(surplus.groups)
            sharing.deleting += 1
        try:
            yield surplus
        finally:
            with sharing.changed:
                sharing.deleting -= 1
                sharing.changed.notify_all()

    def _is_wanted_by_others(self) -> Callable[[str], bool]:
        """Tells real paths of this host that others bring, or in which they bring something; with the lock held."""
        wanted: set[str] = set()
        for place in self._places:
            for region, base in self._regions.get(place.top, []):
                for name, claim in (region.claims or {}).items():
                    if claim.turn is not self and is_in(name, base):
                        real = posixpath.join(place.path, name[len(base) :].lstrip('/')).rstrip('/')
                        for path in above(real):
                            if path in wanted:
                                break
                            wanted.add(path)
        return wanted.__contains__

    def _is_settled(self) -> bool:
        states = {claim.batch.state for claim in self.awaited.values()}
        return State.FAILED in states or State.BUSY not in states

    def _take_over(self) -> set[str] | None:
        """What is to be brought now in place of hosts that failed, with the lock held; None: none did."""
        failed = {path for path, claim in self.awaited.items() if claim.batch.state is State.FAILED}
        if not failed:
            return None
        self._batch = Batch()
        own = set()
        for place in self._places:
            for path, _, claim in self._claim_all(place, failed):
                if claim is None:
                    own.add(path)
                    del self.awaited[path]
                else:
                    self.awaited[path] = claim
        if not own:
            self._batch.state = State.DONE
        return own
