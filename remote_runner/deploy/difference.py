"""What a run would change on its hosts, for `remote_runner plan --diff`: they are connected to, and only looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from remote_runner.defaults import FANOUT
from remote_runner.deploy.plan import ComponentPlan, Plan
from remote_runner.deploy.seen import all_seen
from remote_runner.deploy.session import SURVEY_TIMEOUT
from remote_runner.errors import RemoteRunnerError
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import Placed, build_manifest, remote_path
from remote_runner.files.transfer import Difference, compare
from remote_runner.hosts.address import Address
from remote_runner.hosts.host import Header, Host
from remote_runner.hosts.pool import Opens, connect, each

#: Stands for the folder that a component without base_dir would get.
TEMPORARY = '/<temporary>'


class HostDifference(NamedTuple):
    """What a run would do on one host.

    Args:
        host: as the user wrote it.
        send: (path there, bytes) of files that are missing there or differ.
        modes: (path there, mode) of files that would get other permission bits alone.
        unchanged: how many files are as they should be.
        stop: the components of the session that run there and would be ended.
    """

    host: str
    send: tuple[tuple[str, int], ...]
    modes: tuple[tuple[str, int], ...]
    unchanged: int
    stop: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            'host': self.host,
            'send': [{'remote': path, 'size': size} for path, size in self.send],
            'modes': [{'remote': path, 'mode': f'{mode:04o}'} for path, mode in self.modes],
            'unchanged': self.unchanged,
            'stop': list(self.stop),
        }


def differences(
    plan: Plan, connector: Opens, *, kill_first: bool = True, always_copy: bool = False, fanout: int = FANOUT
) -> Iterator[tuple[str, HostDifference | RemoteRunnerError]]:
    """Look at all hosts of a plan in parallel; nothing is changed there.

    Args:
        plan: what would be carried out.
        connector: makes the connections.
        kill_first, always_copy: see `RunOptions`.
    """
    local_files = LocalFiles()

    def work(address: Address) -> HostDifference:
        own = [component for component in plan.components if component.address.where == address.where]
        with connect(address, connector) as host:
            return _look(host, plan, own, local_files, kill_first=kill_first, always_copy=always_copy)

    for address, outcome in each(dict.fromkeys(component.address for component in plan.components), work, fanout):
        yield address.where, outcome


def _look(
    host: Host,
    plan: Plan,
    own: list[ComponentPlan],
    local_files: LocalFiles,
    *,
    kill_first: bool,
    always_copy: bool,
) -> HostDifference:
    asked = host.call('survey', timeout=SURVEY_TIMEOUT, session=plan.session, runs=[])
    new = [c for c in own if c.base_dir is None]
    lasting = [c for c in own if c.base_dir is not None]
    manifest = build_manifest(local_files, _placed(lasting))
    fresh = build_manifest(local_files, _placed(new))
    difference = compare(host, manifest, local_files, always_copy=always_copy)
    answer: Header = asked.result(SURVEY_TIMEOUT)
    running = all_seen(answer, host.name)
    return HostDifference(
        own[0].host,
        tuple((entry.remote, entry.size) for entry in (*difference.send, *fresh.files)),
        difference.modes,
        len(manifest.files) - len(difference.send) - len(difference.modes),
        tuple(seen.label for seen in running if seen.is_alive) if kill_first else (),
    )


def _placed(components: list[ComponentPlan]) -> Iterator[Placed]:
    for component in components:
        # Two temporary folders are never the same.
        base_dir = component.base_dir or f'{TEMPORARY}/{component.name}'
        for file in component.files:
            yield Placed(file.local, remote_path(base_dir, file.remote), file.kind)
