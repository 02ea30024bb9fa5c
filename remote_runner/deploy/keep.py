"""Which components of an earlier run go on as they are: `--keep-running`."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from remote_runner.deploy.component_plan import ComponentPlan
from remote_runner.deploy.holder import whoami
from remote_runner.deploy.seen import Seen
from remote_runner.deploy.session import SURVEY_TIMEOUT, survey_run
from remote_runner.errors import RequestFailed, SessionFailed
from remote_runner.files.compare import Difference
from remote_runner.files.manifest import remote_path
from remote_runner.hosts.host import Host


def unchanged(found: Iterable[Seen], run: str, plans: Iterable[ComponentPlan]) -> dict[str, Seen]:
    """Those of a host that run, are ready, belong to `run` and were started as they would be now; by label.

    Args:
        found: what the host says of its components.
        plans: how they would be started.
    """
    by_label = {seen.label: seen for seen in found}
    kept: dict[str, Seen] = {}
    for plan in plans:
        seen = by_label.get(plan.label)
        is_well = seen is not None and seen.run == run and bool(seen.ready)
        if seen is not None and is_well and seen.facts['about']['digest'] == plan.digest():
            kept[plan.label] = seen
    return kept


def watched(host: Host, session: str, run: str, names: list[str]) -> dict[str, Seen]:
    """These components of a run on a host, by key; the agent passes on what becomes of them from now on.

    Of the others nothing must be heard: what an earlier life of one said last is no word of the one that begins.
    """
    return {seen.label: seen for seen in survey_run(host, session, run, watch=True, names=names)}


def has_changed_files(
    plan: ComponentPlan, base_dir: str, difference: Difference, also: Collection[str] = ()
) -> bool:
    """Whether a file or link of the component has to be sent, gets other permission bits, is to be deleted, or is one
    of `also`."""
    if any(remote_path(base_dir, root) in difference.surplus.trees for root in plan.trees):
        return True
    changed = {*also, *(entry.remote for entry in difference.send)}
    changed.update(path for path, _ in (*difference.modes, *difference.links))
    return any(remote_path(base_dir, file.remote) in changed for file in plan.files)


def end_others(host: Host, session: str, kept: list[str], among: list[str] | None, patience: float) -> int:
    """End components of a session on a host, all but those of the names `kept`; how many there were.

    Args:
        among: only these are meant; None: all.
        patience: seconds that they have to end.

    Raises:
        SessionFailed: one could not be ended.
    """
    try:
        asked = {'session': session, 'spare': kept, 'among': among, 'stop_timeout': patience, 'by': whoami()}
        return int(host.request('end_others', timeout=patience + SURVEY_TIMEOUT, **asked)['ended'])
    except RequestFailed as error:
        raise SessionFailed(error.what, host=host.name) from error
