"""One component of a plan, ready to start: on which host, with which files, and how. Pure data."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

from remote_runner.config.component import Config
from remote_runner.config.paths import TreePath
from remote_runner.deploy.placing import Placing
from remote_runner.deploy.secrets import MASK, NO_SECRETS, Secrets
from remote_runner.hosts.address import Address, parse_address


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
