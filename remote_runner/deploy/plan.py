"""The plan of a run: pure data, made from a config after everything that can be checked on this machine was checked.

`make_plan` reports all faults at once, before any host is touched. What comes out holds no object of the user's:
carrying it out, showing it and writing it down see the same plain values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from remote_runner.config.component import Component, Config
from remote_runner.config.least_loaded import LeastLoaded
from remote_runner.config.paths import TreePath
from remote_runner.deploy.check import Checker
from remote_runner.deploy.component_plan import ComponentPlan, FetchPlan, FilePlan
from remote_runner.deploy.placing import Placing, check_numbers
from remote_runner.deploy.secrets import NO_SECRETS, Secrets
from remote_runner.deploy.selection import limited, only
from remote_runner.deploy.waves import in_waves
from remote_runner.errors import ConfigFaults, RemoteRunnerError, UsageError, together
from remote_runner.hosts.address import Address

if TYPE_CHECKING:
    from remote_runner.deploy.sweeps import SweepPlan

__all__ = ['ComponentPlan', 'FetchPlan', 'FilePlan', 'Plan', 'check_session', 'make_plan']

_SESSION = re.compile(r'[A-Za-z0-9_.-]{1,64}')


class Plan(NamedTuple):
    """All components of a run, in the order in which the config added them.

    Args:
        components: what to start.
        config_dir: the directory to which the config's local paths were relative.
        session: the name of the screen session, the same on all hosts.
        config_file: the config; None if there is no file.
        secrets: what is masked wherever the plan is shown.
        left_out: components of the config that are none of this plan: what they bring is wanted all the same.
        sweeps: what runs over them.
        before: of the hosts that come into question for undecided components, those on which the last run of the
            session started something, or an earlier one such a component.
    """

    components: tuple[ComponentPlan, ...]
    config_dir: str
    session: str
    config_file: str | None = None
    secrets: Secrets = NO_SECRETS
    left_out: tuple[ComponentPlan, ...] = ()
    sweeps: tuple[SweepPlan, ...] = ()
    before: tuple[str, ...] = ()

    def hosts(self) -> tuple[str, ...]:
        """The hosts as they are written, in the order of their first component; without those that are undecided."""
        return tuple(dict.fromkeys(component.host for component in self.components if not component.is_undecided))

    def hosts_needed(self) -> tuple[str, ...]:
        """The hosts, as messages show them, without which a component cannot run."""
        return tuple(dict.fromkeys(c.address.where for c in self.components if not c.is_undecided))

    def undecided(self) -> tuple[ComponentPlan, ...]:
        """The components of which it is not decided yet on which host they run."""
        return tuple(component for component in self.components if component.is_undecided)

    def candidates(self) -> tuple[Address, ...]:
        """The hosts that come into question for these, each once, with the weights of its first mention."""
        found: dict[str, Address] = {}
        for component in self.components:
            if component.placing is not None and component.is_undecided:
                for address in component.placing.candidates:
                    found.setdefault(address.where, address)
        return tuple(found.values())

    def addresses(self) -> tuple[Address, ...]:
        """All hosts that have to be connected to."""
        found = {c.address.where: c.address for c in self.components if not c.is_undecided}
        for address in self.candidates():
            found.setdefault(address.where, address)
        return tuple(found.values())

    def placed(self, hosts: Sequence[Address]) -> Plan:
        """The plan with the hosts on which its undecided components run, in their order."""
        chosen = iter(hosts)
        components = tuple(c.at(next(chosen)) if c.is_undecided else c for c in self.components)
        labels: dict[str, list[str]] = {}
        for before, after in zip(self.components, components, strict=True):
            labels.setdefault(before.label, []).append(after.label)

        def decided(needs: Iterable[str]) -> tuple[str, ...]:
            return tuple(dict.fromkeys(label for need in needs for label in labels.get(need, [need])))

        return self._replace(components=tuple(c._replace(depends_on=decided(c.depends_on)) for c in components))

    def indexes(self) -> tuple[int, ...]:
        """All start indexes, in the order in which they start."""
        return tuple(sorted({component.start_index for component in self.components}))

    def components_of(self, *, host: str | None = None, index: int | None = None) -> tuple[ComponentPlan, ...]:
        """The components of one host (as it is written), of one start index, or of both."""
        return tuple(
            component
            for component in self.components
            if host in (None, component.host) and index in (None, component.start_index)
        )

    def only(self, names: Iterable[str]) -> Plan:
        """The plan with those components alone whose name or `name@host` one of `names` matches (`*`, `?`, `[...]`).

        Raises:
            UsageError: a name matches no component.
        """
        return self._with(only(self.components, names))

    def limit(self, hosts: Iterable[str]) -> Plan:
        """The plan with the components of those hosts alone.

        Where it is not decided yet on which host one runs, it is the host where it ran last that counts. One that never
        ran stays where one of those hosts comes into question for it, and runs there.

        Args:
            hosts: hosts in any form in which hosts are written (folded lists and `@FILE` too), or patterns with `*`
                or `?`. One without user or port means that name under any.

        Raises:
            UsageError: one means no host of the plan.
            AddressError: one cannot be understood.
        """
        return self._with(limited(self.components, hosts))

    def _with(self, chosen: Mapping[int, ComponentPlan]) -> Plan:
        """The plan with these components alone, by their positions."""
        others = (c for position, c in enumerate(self.components) if position not in chosen)
        left_out = tuple(c.where_it_was() for c in others)
        return self._replace(components=tuple(chosen.values()), left_out=self.left_out + left_out)

    def to_dict(self) -> dict[str, Any]:
        """The plan for JSON, with its secrets masked."""
        return {
            'session': self.session,
            'config_file': self.config_file,
            'config_dir': self.config_dir,
            'components': [component.to_dict(self.secrets) for component in self.components],
            **self.sweeps_to_dict(),
        }

    def sweeps_to_dict(self) -> dict[str, Any]:
        """`sweeps` for JSON, with secrets masked; nothing where there are none."""
        if not self.sweeps:
            return {}
        return {'sweeps': [self.secrets.mask_all(sweep.to_dict()) for sweep in self.sweeps]}


def make_plan(
    config: Config,
    config_dir: str,
    session: str,
    config_file: str | None = None,
    faults: Sequence[RemoteRunnerError] = (),
    secrets: Secrets = NO_SECRETS,
) -> Plan:
    """Check everything that can be checked on this machine, and make the plan.

    Args:
        config: what the user's files made.
        config_dir: absolute directory to which relative local paths are relative.
        session: the name of the screen session.
        config_file: absolute path of the config, to be remembered.
        faults: what is known to be wrong with the user's files.
        secrets: what else nobody shall read: the password.

    Raises:
        UsageError: the session's name is none that screen can be trusted with.
        ConfigFaults: something is wrong with the components; all of it in one report, after `faults`.
        RemoteRunnerError: the one of `faults`, if nothing else is wrong.
    """
    check_session(session)
    checker = Checker(config_dir)
    components: list[ComponentPlan] = []
    for component in config.all_components():
        components += _plan_component(component, checker)
    sweeps = _plan_sweeps(config, checker, config_dir)
    if not any((next(config.all_components(), None), next(config.all_sweeps(), None))):
        why = 'config.add_component was not called, or a muddler cleared them all'
        checker.fault('', f'there are no components and no sweeps: {why}')
    fixed = [component for component in components if not component.is_undecided]
    checker.check_unique(fixed)
    checker.check_targets(fixed)
    for planned in components:
        if planned.is_undecided:  # with those of the same host, when that is known
            checker.check_targets([planned])
    check_numbers(components, checker)
    components = in_waves(components, checker)
    if checker.faults:
        raise ConfigFaults([*map(str, faults), *checker.report()])
    if faults:
        raise together(faults)
    secrets |= Secrets(value for component in components for _, value in component.secret_env)
    return Plan(tuple(components), config_dir, session, config_file, secrets, sweeps=sweeps)


def _plan_sweeps(config: Config, checker: Checker, config_dir: str) -> tuple[SweepPlan, ...]:
    if not next(config.all_sweeps(), None):
        return ()
    from remote_runner.deploy.sweeps import plan_sweeps  # late: most configs have none

    return plan_sweeps(config.all_sweeps(), checker, config_dir, config.caller.call if config.caller else None)


def check_session(name: str) -> None:
    """Raises:
    UsageError: `name` is no name for a screen session.
    """
    if not _SESSION.fullmatch(name) or name.startswith('-') or name in ('.', '..'):
        raise UsageError(
            f'{name!r} is no name for a screen session',
            remedy='1 to 64 letters, digits, dots, dashes and underscores; no dash in front',
        )


def _plan_component(component: Component, checker: Checker) -> list[ComponentPlan]:
    """The plan of one component, so many times as it is to run; its faults go to `checker`.

    With faults it is what can still be compared with other components, or nothing.
    """
    values, faults = component.read()
    for fault in faults:
        checker.fault(component.label, fault)
    host = values.get('host')
    placing = None
    if isinstance(host, LeastLoaded):
        placing = Placing.of(host, checker.candidates(component.label, host))
        values['host'] = placing.among
        address: Address | None = Address(placing.among)
    else:
        address = checker.address(component.label, host)
    is_local = values.get('host') == Config.LOCAL_HOST
    written = values.get('files', ())
    files = tuple(FilePlan(*entry) for entry in checker.read_files(component.label, written, is_local=is_local))
    trees = dict.fromkeys((remote.root, remote.exclude) for _, remote in written if isinstance(remote, TreePath))
    fetch = tuple(FetchPlan(*entry) for entry in checker.read_fetch(component.label, values.get('fetch', ())))
    if is_local:
        values.update(checker.read_local(component.label, values))
    if values.get('env_file') is not None:
        values.update(checker.read_env_file(component.label, values['env_file']))
    if address is None or 'name' not in values:
        return []
    known: dict[str, Any] = {name: values[name] for name in ComponentPlan._fields if name in values}
    roots = tuple(TreePath(root, root, exclude=exclude) for root, exclude in trees)
    made = {'address': address, 'files': files, 'trees': roots, 'fetch': fetch, 'placing': placing}
    planned = ComponentPlan(**{'executable': '', **known, **made})
    return [planned] * ((host.count or 1) if isinstance(host, LeastLoaded) else 1)
