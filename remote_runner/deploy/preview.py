"""What a run would do, as data for `remote_runner plan`: nothing is touched for it but files of this machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from remote_runner.config.paths import link_target
from remote_runner.deploy.plan import Plan
from remote_runner.errors import TransferFailed
from remote_runner.files.local import LocalFiles


def preview(plan: Plan) -> dict[str, Any]:
    """The plan for JSON, in the order in which it is carried out, with the sizes of files.

    Args:
        plan: what would be carried out.

    Returns:
        `session`, `config_file`, `config_dir`, `hosts`, `candidates` (those of which some are decided upon later, if
        there are any), and `indexes`: objects of `index` and `components`, which have the values of the config and of
        each file `local`, `remote`, `is_directory`, `size` (bytes) and `mode` (`0755`), of a symbolic link `is_link`
        and `target`. With sweeps also `sweeps`, each with its values and the number of its
        `tasks`; files as of components, executables with `platform`, `local`, `remote` and `size`.

    Raises:
        TransferFailed: a local file, or link, is not there any more.
    """
    local_files = LocalFiles()
    components: dict[int, list[dict[str, Any]]] = {index: [] for index in plan.indexes()}
    for component in plan.components:
        shown = component.to_dict(plan.secrets)
        _look_at(shown['files'], local_files)
        components[component.start_index].append(shown)
    sweeps = plan.sweeps_to_dict()
    for sweep in sweeps.get('sweeps', ()):
        _look_at(sweep['files'], local_files)
        _look_at(sweep['executables'], local_files)
    return {
        'session': plan.session,
        'config_file': plan.config_file,
        'config_dir': plan.config_dir,
        'hosts': list(plan.hosts()),
        **({'candidates': [str(address) for address in plan.candidates()]} if plan.undecided() else {}),
        'indexes': [{'index': index, 'components': of_index} for index, of_index in components.items()],
        **sweeps,
    }


def _look_at(files: Iterable[dict[str, Any]], local_files: LocalFiles) -> None:
    """Add to files what they are on this machine."""
    for file in files:
        if file.get('is_link'):
            file['target'] = _target(file['local'])
        elif not file.get('is_directory'):
            size, mode, _ = local_files.look(file['local'])
            file.update(size=size, mode=f'{mode:04o}')


def _target(local: str) -> str:
    try:
        return link_target(local)
    except OSError as error:
        raise TransferFailed(f'cannot read the link {local}: {error.strerror}') from error
