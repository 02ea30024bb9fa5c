"""The plan of a run: pure data, made from a config after everything that can be checked on this machine was checked.

`make_plan` reports all faults at once, before any host is touched. What comes out holds no object of the user's:
carrying it out, showing it and writing it down see the same plain values.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from remote_runner.config.component import Component, Config
from remote_runner.config.least_loaded import LeastLoaded
from remote_runner.config.paths import TreePath
from remote_runner.deploy.check import Checker
from remote_runner.deploy.placing import Placing, check_numbers
from remote_runner.deploy.secrets import MASK, Secrets
from remote_runner.deploy.selection import limited, only
from remote_runner.deploy.waves import in_waves
from remote_runner.errors import ConfigFaults, RemoteRunnerError, UsageError, together
from remote_runner.hosts.address import Address, parse_address

if TYPE_CHECKING:
    from remote_runner.deploy.sweeps import SweepPlan

NO_SECRETS = Secrets()
_SESSION = re.compile(r'[A-Za-z0-9_.-]{1,64}')


class FilePlan(NamedTuple):
    """One file to bring to a host, or one directory to create there.

    Args:
        local: absolute path on this machine; of a directory only its existence matters, not what is in it.
        remote: path on the host as the user wrote it: absolute, starting with `~`, or relative to `base_dir`.
        is_directory: whether `remote` is a directory to create.
        is_link: whether `remote` becomes a symbolic link with the target that `local` has, wherever that leads.
    """

    local: str
    remote: str
    is_directory: bool = False
    is_link: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Its values for JSON; of what is no link it is not said."""
        values = self._asdict()
        if not self.is_link:
            del values['is_link']
        return values

    @property
    def kind(self) -> str:
        """`file`, `folder` or `link`."""
        return 'link' if self.is_link else 'folder' if self.is_directory else 'file'


class FetchPlan(NamedTuple):
    """What to bring home from a host.

    Args:
        remote: path or glob on the host as the user wrote it: absolute, starting with `~`, or relative to `base_dir`.
        local: folder of this machine: absolute, or relative to the results folder of the component.
    """

    remote: str
    local: str


class ComponentPlan(NamedTuple):
    """One program on one host, ready to start. It is identified by (name, host).

    Args:
        name: its name.
        host: the host as the user wrote it; where that is not decided yet, `Placing.among`.
        address: the host, parsed.
        executable: on this machine an absolute path. On other hosts as the user wrote it: absolute, starting with `~`,
            or relative to `base_dir`; only the host can resolve that.
        args: the arguments; bytes that are no UTF-8 stand there as surrogates (`surrogateescape`).
        base_dir: the working directory; None: a fresh temporary directory. On this machine an absolute path. On other
            hosts as the user wrote it; a relative one is relative to the home directory.
        files: what to bring there first.
        trees: remote folders, as written, of which `files` has all that local ones hold, but for what was left out of
            them (their `exclude`).
        fetch: what to bring home.
        start_index: components start in ascending order of it, those of one index in parallel.
        ready: how to tell that it is ready: `kind`, and what belongs to it; None: it is when it has started.
        wait: whether the command returns only when this component has ended.
        start_timeout: seconds within which it must have started and be ready; None: what the command says.
        start_grace: seconds that it must live, or end with success, to count as started.
        stop_timeout: seconds between `stop_signal` and SIGKILL.
        stop_signal: what asks it to end: `TERM`, or a number.
        wave: components of one index start by it: those that depend on none of the same index have 0.
        depends_on: the labels of those that must have started before.
        env: variables of its environment; env_file: where others come from, whose values are `secret_env`.
        user: as whom it runs, by sudo; None: as who logs in.
        restart, max_restarts: whether it is started again (`no`, `on-failure`, `always`), and how often in a row.
        watchdog: seconds within which it must give a sign of life.
        critical: whether its failure stops the whole run.
        max_load: the load per core above which it is not started.
        log_limit: bytes of its output that are kept; 0: all.
        placing: how it is decided, or was, on which host it runs; None: the config says it.
    """

    name: str
    host: str
    address: Address
    executable: str
    args: tuple[str, ...] = ()
    base_dir: str | None = None
    files: tuple[FilePlan, ...] = ()
    trees: tuple[TreePath, ...] = ()
    fetch: tuple[FetchPlan, ...] = ()
    start_index: int = 0
    wait: bool = False
    ready: dict[str, Any] | None = None
    start_timeout: float | None = None
    start_grace: float = 0.1
    stop_timeout: float = 5.0
    stop_signal: str = 'TERM'
    wave: int = 0
    depends_on: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    env_file: str | None = None
    secret_env: tuple[tuple[str, str], ...] = ()
    user: str | None = None
    restart: str = 'no'
    max_restarts: int | None = None
    watchdog: float | None = None
    critical: bool = False
    max_load: float | None = None
    log_limit: int = 100_000_000
    placing: Placing | None = None

    @property
    def label(self) -> str:
        """`name@host`, as messages show it."""
        return f'{self.name}@{self.host}'

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine, without SSH."""
        return self.host == Config.LOCAL_HOST

    @property
    def is_undecided(self) -> bool:
        """Whether it is not decided yet on which host it runs: `host` and `address` are none then."""
        return self.placing is not None and self.host == self.placing.among

    def may_be_on(self, host: str) -> bool:
        """Whether it runs on this host (as it is written), or may."""
        return host in self.placing.names() if self.placing and self.is_undecided else host == self.host

    def at(self, address: Address) -> ComponentPlan:
        """The component on this host."""
        return self._replace(host=address.where, address=address._replace(weights=()))

    def where_it_was(self) -> ComponentPlan:
        """The component on the host where it ran last, where it is undecided and that is known; else as it is."""
        was = self.placing.was if self.placing is not None and self.is_undecided else None
        return self if was is None else self.at(parse_address(was))

    def digest(self) -> str:
        """What tells whether a component is as it was when it was started, but for the content of its files."""
        remotes = [{'link': file.remote} if file.is_link else file.remote for file in self.files]
        values = {**self._asdict(), 'address': None, 'files': remotes}
        del values['trees'], values['placing']  # they say no more of what it was started with
        return hashlib.sha1(json.dumps(values).encode(), usedforsecurity=False).hexdigest()

    def to_dict(self, secrets: Secrets = NO_SECRETS) -> dict[str, Any]:
        """Its values for JSON, with secrets masked; of those that come from a file none is shown."""
        values = self._asdict()
        for name in ('address', 'wave', 'secret_env', 'trees', 'placing'):
            del values[name]
        if self.placing is not None:
            values['least_loaded'] = self.placing.to_dict()
        values['files'] = [file.to_dict() for file in self.files]
        values['fetch'] = [wanted._asdict() for wanted in self.fetch]
        values['env'] = {**{name: MASK for name, _ in self.secret_env}, **dict(self.env)}
        for name in ('args', 'env', 'ready'):
            values[name] = secrets.mask_all(values[name])
        values['depends_on'] = list(self.depends_on)
        return values


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
