"""What a run or a copy would change on its hosts, for `remote_runner plan --diff` and `remote_runner copy --dry-run`:
they are connected to, and only looked at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from remote_runner.deploy.component_plan import ComponentPlan
from remote_runner.deploy.keep import has_changed_files, unchanged
from remote_runner.deploy.mirror import Mirrors, check_temporary
from remote_runner.deploy.outcome import RunOptions
from remote_runner.deploy.plan import Plan
from remote_runner.deploy.seen import all_seen
from remote_runner.deploy.session import SURVEY_TIMEOUT
from remote_runner.deploy.sharing import Sharing, Turn
from remote_runner.errors import RemoteRunnerError
from remote_runner.files.compare import Asking, Difference, Divides, compare, look
from remote_runner.files.delete import Surplus, find_surplus
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import Manifest, Placed, build_manifest, remote_path
from remote_runner.files.options import CopyOptions
from remote_runner.files.places import Place
from remote_runner.hosts.host import Host
from remote_runner.hosts.pool import Pool

#: Paths of what would be deleted on a host that are named.
MOST_NAMED = 1000
#: Stands for the folder that a component without base_dir would get.
TEMPORARY = '/<temporary>'


class HostDifference(NamedTuple):
    """What a run or a copy would do on one host.

    Args:
        host: as the user wrote it.
        send: (path there, bytes) of files that are missing there or differ.
        modes: (path there, mode) of files that would get other permission bits alone.
        unchanged: how many files are as they should be.
        stop: the components of the session that run there and would be ended; None: it is no run.
        keep: with `--keep-running` those that would run on as they are; None: it was not asked for.
        surplus: with `--delete` what would be deleted; None: it was not asked for.
        links: (path there, text) of symbolic links that would be made.
        times: paths there of files that would get another modification time.
        folders: paths there of folders that would be made for themselves, and not for what is in them alone.
        folder_modes: (path there, mode) of folders that would get other permission bits.
    """

    host: str
    send: tuple[tuple[str, int], ...]
    modes: tuple[tuple[str, int], ...]
    unchanged: int
    stop: tuple[str, ...] | None
    keep: tuple[str, ...] | None = None
    surplus: Surplus | None = None
    links: tuple[tuple[str, str], ...] = ()
    times: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    folder_modes: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, host: str, manifest: Manifest, difference: Difference, *, deletes: bool) -> HostDifference:
        """What bringing the files of a manifest would do."""
        folders = dict(difference.folders)
        return cls(
            host,
            tuple((entry.remote, entry.size) for entry in difference.send),
            difference.modes,
            len(manifest.files) - len(difference.send) - len(difference.modes),
            None,
            None,
            difference.surplus if deletes else None,
            difference.links,
            tuple(path for path, _ in difference.times),
            tuple(folders),
            tuple((path, mode) for path, mode in difference.bits if path not in folders),
        )

    def without(self, kept: Container[str]) -> HostDifference:
        """The same, but that none of these components is ended."""
        return self._replace(stop=tuple(label for label in self.stop or () if label not in kept))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        keep = {} if self.keep is None else {'keep': list(self.keep)}
        links = {'links': [{'remote': path, 'text': text} for path, text in self.links]} if self.links else {}
        times = {'times': list(self.times)} if self.times else {}
        folders = {'folders': list(self.folders)} if self.folders else {}
        folder_modes = {'folder_modes': _with_modes(self.folder_modes)} if self.folder_modes else {}
        stop = {} if self.stop is None else {'stop': list(self.stop)}
        delete: dict[str, Any] = {}
        if self.surplus is not None:
            delete = {
                'delete': list(islice(self.surplus.paths(), MOST_NAMED)),
                'delete_count': self.surplus.total,
                'left_alone': [*self.surplus.mounts, *(path for path, _ in self.surplus.closed)],
            }
        return {
            'host': self.host,
            'send': [{'remote': path, 'size': size} for path, size in self.send],
            'modes': _with_modes(self.modes),
            'unchanged': self.unchanged,
            **stop,
            **links,
            **times,
            **folders,
            **folder_modes,
            **keep,
            **delete,
        }


def _with_modes(pairs: Iterable[tuple[str, int]]) -> list[dict[str, str]]:
    return [{'remote': path, 'mode': f'{mode:04o}'} for path, mode in pairs]


class _Look(NamedTuple):
    """What was found under one name of a machine."""

    machine: str
    difference: HostDifference


def differences(plan: Plan, pool: Pool, options: RunOptions) -> dict[str, HostDifference | RemoteRunnerError]:
    """Look at all hosts of a plan in parallel; nothing is changed there. By host: what differs, or why it cannot say.

    A host that wants something else than another one at a path of a folder that both see fails, as in a run. Where that
    may be so, an empty file tells whether they see the same one; it is removed at once.

    Args:
        plan: what would be carried out.
        pool: gets the connections; it must be open until all have looked, since hosts are asked for others, too.
        options: how it would be.
    """
    local_files = LocalFiles(remembered=options.copying.remembered, times=options.copying.times)

    mirrors = Mirrors(plan) if options.copying.delete else None
    owners: dict[tuple[str, str], list[str]] = defaultdict(list)
    sharing = Sharing(local_files, whose=lambda host, path: owners[host, path], only_conflicts=True)

    def work(host: Host) -> _Look:
        own = [component for component in plan.components if component.address.where == host.name]
        with sharing.turn(host) as turn:
            difference = _look(host, plan.session, own, local_files, options, mirrors, _Divider(turn, owners))
            turn.sent()
        return _Look(host.facts.identity, difference)

    found = {address.where: outcome for address, outcome in pool.serve(plan.addresses(), work)}
    # What is kept under one name of a machine is not ended under another.
    keep: dict[str, set[str]] = defaultdict(set)
    for seen in found.values():
        if isinstance(seen, _Look):
            keep[seen.machine].update(seen.difference.keep or ())
    return {
        where: seen if isinstance(seen, RemoteRunnerError) else seen.difference.without(keep[seen.machine])
        for where, seen in found.items()
    }


class _Divider(NamedTuple):
    """Finds out what hosts do not agree upon; each is told what it lacks, whoever would bring it.

    Args:
        turn: that of the host.
        owners: is told the components of a path of a host.
    """

    turn: Turn
    owners: dict[tuple[str, str], list[str]]

    def own(self, components: Iterable[tuple[ComponentPlan, str]]) -> None:
        """What components bring is theirs."""
        for component, base_dir in components:
            for file in component.files:
                self.owners[self.turn.host.name, remote_path(base_dir, file.remote)].append(component.label)

    def divide(self, manifest: Manifest, places: list[Place], difference: Difference) -> Container[str]:
        """Nothing is left to others.

        Raises:
            TransferFailed: another host brings something else there.
        """
        self.turn.divide(manifest, places, difference)
        return ()


def _look(
    host: Host,
    session: str,
    own: list[ComponentPlan],
    local_files: LocalFiles,
    options: RunOptions,
    mirrors: Mirrors | None,
    divider: _Divider,
) -> HostDifference:
    answer = host.request('survey', timeout=SURVEY_TIMEOUT, session=session, runs=[])
    alive = [seen for seen in all_seen(answer, host.name) if seen.is_alive]
    joined = options.join if options.keep_running else None
    same = unchanged(alive, joined, own) if joined is not None else {}
    # What runs on has its folder already, be it a temporary one; two of these are never the same.
    temporary = {label: seen.facts['cwd'] for label, seen in same.items()}
    folders = {c.label: temporary.get(c.label) if c.base_dir is None else c.base_dir for c in own}
    placed = [(c, folder) for c in own if (folder := folders[c.label])]
    divider.own(placed)
    tops = dict.fromkeys(c.base_dir for c in own if c.base_dir is not None)
    manifest = build_manifest(local_files, _placed(placed))._replace(tops=tuple(tops))
    new = [(c, f'{TEMPORARY}/{c.name}') for c in own if not folders[c.label]]
    fresh = build_manifest(local_files, _placed(new))
    if mirrors is not None:
        check_temporary(own)
        known = {label: folder for label, folder in folders.items() if folder}
        manifest = manifest._replace(mirror=mirrors.of(own, known))
    difference = find_difference(host, manifest, local_files, options.copying, turn=divider)
    keep = tuple(
        c.label for c in own if c.label in same and not has_changed_files(c, folders[c.label] or '', difference)
    )
    stop = [seen for seen in alive if seen.label not in keep] if options.kill_first else []
    if joined is not None and options.is_part:  # then the rest of that run is left alone
        names = {c.name for c in own}
        stop = [seen for seen in stop if seen.name in names]
    found = HostDifference.of(own[0].host, manifest, difference, deletes=mirrors is not None)
    return found._replace(
        send=(*found.send, *((entry.remote, entry.size) for entry in fresh.files)),
        stop=tuple(seen.label for seen in stop),
        keep=keep if options.keep_running else None,
        links=(*found.links, *fresh.links),
        folders=(*found.folders, *(path for path, _ in fresh.folders)),
    )


def find_difference(
    host: Host,
    manifest: Manifest,
    local: LocalFiles,
    options: CopyOptions,
    asking: Asking | None = None,
    turn: Divides | None = None,
) -> Difference:
    """What has to be done on a host, with what is to be deleted there; nothing is changed.

    Raises:
        ConfigError: from a folder of the manifest nothing may be deleted.
        ConnectionLost: the connection broke.
        TransferFailed: a local file cannot be read, or a path on the host cannot be looked at.
    """
    difference = compare(host, manifest, local, always_copy=options.always_copy, asking=asking, turn=turn)
    if options.always_copy and (manifest.folders or manifest.bits):  # folders that are there are not made anew
        there = look(host, Manifest((), manifest.folders, bits=manifest.bits), local).difference
        difference = difference._replace(folders=there.folders, bits=there.bits)
    return difference._replace(surplus=find_surplus(host, manifest)) if options.delete else difference


def _placed(components: Iterable[tuple[ComponentPlan, str]]) -> Iterator[Placed]:
    """What `build_manifest` takes of components and their folders."""
    for component, base_dir in components:
        for file in component.files:
            yield Placed(file.local, remote_path(base_dir, file.remote), file.kind)
