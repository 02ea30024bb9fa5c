"""What `--delete` is about on a host: the trees of its components, and what nevertheless stays there."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping

from remote_runner.deploy.component_plan import ComponentPlan
from remote_runner.deploy.plan import Plan
from remote_runner.errors import ConfigError
from remote_runner.files.manifest import NO_MIRROR, Mirror, Tree, remote_path


class Mirrors:
    """The mirrors of the hosts of a plan.

    Whether two hosts see the same folder cannot be known from here. So what a component brings to one of them stays on
    all, at that path, and so does what components bring that are left out of this plan.

    Args:
        plan: what is carried out.
    """

    def __init__(self, plan: Plan) -> None:
        self._all = (*plan.components, *plan.left_out)
        self._wanted: dict[str, set[str]] = {}
        for component in self._all:
            self._wanted.setdefault(component.base_dir or '', set()).update(_fixed(component))

    def of(self, own: Iterable[ComponentPlan], base_dirs: Mapping[str, str]) -> Mirror:
        """The mirror of one host.

        Args:
            own: the components of the host.
            base_dirs: where they are there, by label; of those that are not in it nothing is known yet.
        """
        here = list(own)
        trees = dict.fromkeys(
            Tree(remote_path(base_dirs[component.label], root), root.exclude)
            for component in here
            if component.label in base_dirs
            for root in component.trees
        )
        if not trees:
            return NO_MIRROR
        names = {component.address.where for component in here}
        brought: dict[str, set[str]] = {}
        for component in here:
            brought.setdefault(component.base_dir or '', set()).update(_fixed(component))
        also = [
            remote_path(base_dir, remote)
            for base_dir, remotes in self._wanted.items()
            for remote in sorted(remotes - brought.get(base_dir, set()))
        ]
        apart = {base_dirs[c.label]: f'base_dir of {c.label}' for c in reversed(here) if c.label in base_dirs}
        for component in self._all:
            if component.base_dir is not None and component.address.where in names:
                apart.setdefault(component.base_dir, f'base_dir of {component.label}')
        return Mirror(tuple(trees), (*also, *apart), tuple(apart.items()))


def _fixed(component: ComponentPlan) -> Iterable[str]:
    """The remote paths of its files, as far as they can be known before it has a folder."""
    remotes = (file.remote for file in component.files)
    return remotes if component.base_dir is not None else (path for path in remotes if path.startswith(('/', '~')))


def check_temporary(components: Iterable[ComponentPlan]) -> None:
    """Trees of components without base_dir are below the folders that these get.

    Raises:
        ConfigError: one is not.
    """
    for component in components:
        for root in component.trees:
            is_elsewhere = root.startswith(('/', '~'))
            if component.base_dir is None and not is_elsewhere and posixpath.normpath(root).split('/')[0] == '..':
                what = f'--delete: {root} leads out of its temporary base_dir'
                raise ConfigError(what, component=component.name, host=component.host)
