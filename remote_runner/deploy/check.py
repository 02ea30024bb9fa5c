"""What can be found out on this machine about the components of a config, before any host is touched."""

from __future__ import annotations

import filecmp
import os
import posixpath
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from remote_runner.config.env_file import read_variables
from remote_runner.config.paths import TreePath, expanded, link_target, named, neighbour
from remote_runner.config.reading import BadValueError, check_length, plain
from remote_runner.defaults import LOCALHOST
from remote_runner.errors import AddressError, ConfigError, RemoteRunnerError
from remote_runner.hosts.address import Address, parse_address

if TYPE_CHECKING:
    from remote_runner.config.least_loaded import LeastLoaded
    from remote_runner.deploy.component_plan import ComponentPlan, FilePlan

_LABELS_SHOWN = 3
#: What stands for the working folder of a task; no component has such a base_dir.
_WORKING_FOLDER = '/<task>'


class Target(NamedTuple):
    """What one entry of `files` wants to stand at a path of a host, and the component that has it."""

    file: FilePlan
    label: str

    @property
    def kind(self) -> str:
        """What it becomes there, in a word."""
        return 'link' if self.file.is_link else 'directory' if self.file.is_directory else 'file'

    def __str__(self) -> str:
        return f'{named(self.file.local)} ({self.kind} of {self.label})'


class Checker:
    """Collects the faults of one config. What was asked once of the file system is not asked again.

    Args:
        config_dir: absolute directory to which relative local paths are relative.
    """

    def __init__(self, config_dir: str) -> None:
        self.faults: dict[str, list[str]] = {}  # text -> labels of the components that have it
        self._config_dir = config_dir
        self._local_paths: dict[str, str] = {}
        self._kinds: dict[tuple[str, int | None], tuple[bool, str | None]] = {}
        self._same: dict[tuple[str, str, str], bool] = {}
        self._addresses: dict[str, Address | AddressError] = {}
        self._cluster: tuple[Address, ...] | RemoteRunnerError | None = None

    def fault(self, label: str, text: str) -> None:
        """Note that the component `label` has the fault `text`."""
        labels = self.faults.setdefault(text, [])
        if label and label not in labels:
            labels.append(label)

    def report(self) -> list[str]:
        """One line a fault. Components with the same one share the line."""
        return [f'{_some(labels)}: {text}' if labels else text for text, labels in self.faults.items()]

    def address(self, label: str, host: str | None) -> Address | None:
        """The parsed host; None if it makes no sense."""
        if host is None:
            return None
        if host not in self._addresses:
            try:
                self._addresses[host] = parse_address(host)
            except AddressError as error:
                self._addresses[host] = error
        address = self._addresses[host]
        if isinstance(address, AddressError):
            self.fault(label, f'host: {address}')
            return None
        return address

    def candidates(self, label: str, wanted: LeastLoaded) -> tuple[Address, ...]:
        """The hosts that come into question for a component: those of the cluster file, where none are said."""
        if wanted.hosts is not None:
            return wanted.hosts
        if self._cluster is None:
            from remote_runner.placement.cluster import find  # late: most configs say which hosts

            try:
                cluster = find()
                found = [address._replace(slots=None) for address in cluster.read() if address.name != LOCALHOST]
                self._cluster = tuple(found) or ConfigError(f'{cluster.source} has no host but this machine')
            except RemoteRunnerError as error:
                self._cluster = error
        if isinstance(self._cluster, RemoteRunnerError):
            self.fault(label, f'host: {self._cluster}')
            return ()
        return self._cluster

    def local_path(self, path: str) -> str:
        """A local path as users write it, made absolute."""
        if path not in self._local_paths:
            self._local_paths[path] = str(Path(self._config_dir) / expanded(path))
        return self._local_paths[path]

    def read_files(
        self, label: str, files: Sequence[tuple[str, str]], *, is_local: bool
    ) -> Iterator[tuple[str, str, bool, bool]]:
        """Local path (absolute), remote path, whether it is a directory, whether a link, of entries that make sense."""
        if files and is_local:
            self.fault(label, 'files must be empty on localhost: nothing is copied there')
            return
        for written, remote in files:
            local = self.local_path(written)
            is_link = isinstance(remote, TreePath) and remote.is_link
            is_directory, reason = self._kind(local, needs=None if is_link else os.R_OK)
            if reason:
                self.fault(label, f'files: {named(local)} {reason}')
            elif not is_directory and _names_directory(remote):
                better = f'{remote.rstrip("/")}/{Path(local).name}'
                self.fault(label, f'files: {remote!r} is a directory, but {named(local)} is a file; write {better!r}')
            else:
                yield local, plain(remote), is_directory, is_link

    def read_fetch(self, label: str, fetch: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Remote path and local folder of each entry that makes sense; of the folder, `~` is expanded."""
        for remote, written in fetch:
            folder = expanded(written)
            if folder.startswith('~'):
                self.fault(label, f'fetch: {written}: this machine has no such user')
            else:
                yield remote, folder

    def read_local(self, label: str, values: Mapping[str, Any]) -> dict[str, str]:
        """Executable and base_dir of a component on this machine, absolute."""
        result: dict[str, str] = {}
        if values.get('executable'):
            result['executable'] = executable = self.local_path(values['executable'])
            is_directory, reason = self._kind(executable, needs=os.X_OK)
            if is_directory:
                reason = 'is a directory'
            if reason:
                self.fault(label, f'executable {named(executable)} {reason}{_on_path(values["executable"])}')
        if values.get('base_dir'):
            result['base_dir'] = base_dir = self.local_path(values['base_dir'])
            if Path(base_dir).exists() and not Path(base_dir).is_dir():
                self.fault(label, f'base_dir {named(base_dir)} is no directory')
        return result

    def read_env_file(self, label: str, written: str) -> dict[str, Any]:
        """The path of a file of variables, absolute, and what is in it."""
        path = self.local_path(written)
        try:
            return {'env_file': path, 'secret_env': tuple(read_variables(path).items())}
        except BadValueError as bad:
            self.fault(label, f'env_file {bad}')
            return {'env_file': path}

    def check_unique(self, components: Iterable[ComponentPlan]) -> None:
        """Each pair of name and host stands for one component."""
        counts: dict[tuple[str, Address], list[str]] = {}
        for component in components:
            counts.setdefault((component.name, _machine(component.address)), []).append(component.label)
        for labels in counts.values():
            if len(labels) > 1:
                for label in labels:
                    self.fault(label, f'{len(labels)} components of the same name on the same host')

    def check_targets(self, components: Sequence[ComponentPlan]) -> None:
        """No two entries want different things at one path of a host."""
        machines: dict[Address, list[ComponentPlan]] = {}
        for component in components:
            machines.setdefault(_machine(component.address), []).append(component)
        for there in machines.values():
            targets: dict[str, Target] = {}
            for number, component in enumerate(there):
                self._add_targets(targets, component.label, component.files, _base_dir(component, number))
            self._check_parents(targets)
            self._check_executables(targets, there)

    def check_sweep(self, label: str, files: Sequence[FilePlan], inputs: Iterable[str]) -> None:
        """No two entries of a sweep want different things at one path, nor do files and the inputs of its tasks."""
        targets: dict[str, Target] = {}
        self._add_targets(targets, label, files, _WORKING_FOLDER)
        self._check_parents(targets)
        for path in inputs:
            above = posixpath.dirname(path)
            while above:
                target = targets.get(target_path(_WORKING_FOLDER, above))
                if target is not None and target.kind != 'directory':
                    self.fault(label, f'inputs: {path!r} needs a directory where {target} would become {above!r}')
                above = posixpath.dirname(above)

    def read_executables(self, label: str, executables: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Platform and local path (absolute) of each that can be run."""
        for platform, written in executables:
            local = self.local_path(written)
            is_directory, reason = self._kind(local, needs=os.X_OK)
            if is_directory or reason:
                self.fault(label, f'executables: {named(local)} {reason or "is a directory"}')
            else:
                yield platform, local

    def _add_targets(self, targets: dict[str, Target], label: str, files: Iterable[FilePlan], base_dir: str) -> None:
        for file in files:
            path = target_path(base_dir, file.remote)
            try:
                check_length(path)
            except BadValueError as bad:
                self.fault(label, f'files: {named(file.local)} would get a path that {bad}')
                continue
            target = Target(file, label)
            other = targets.setdefault(path, target)
            if other is not target and not self._agree(target, other):
                self.fault(label, f'files: {target} and {other} would both become {file.remote!r}')

    def _agree(self, one: Target, other: Target) -> bool:
        """Whether both want the same there: a directory, a link of the same target, a file of the same content."""
        if one.kind != other.kind:
            return False
        if one.file.is_directory or one.file.local == other.file.local:
            return True
        key = (one.kind, one.file.local, other.file.local)
        if key not in self._same:
            are_same = _are_same_links if one.file.is_link else _are_same_files
            try:
                self._same[key] = are_same(one.file.local, other.file.local)
            except OSError as error:
                self._same[key] = True
                self.fault(one.label, f'files: {one} and {other} cannot be compared: {error.strerror}')
        return self._same[key]

    def _check_parents(self, targets: Mapping[str, Target]) -> None:
        """What other targets are below of is a directory."""
        nearest: dict[str, Target | None] = {'': None, '/': None}  # folder -> what is at it, or else above it
        for path, target in targets.items():
            above = posixpath.dirname(path)
            passed: list[str] = []
            while above not in nearest:
                passed.append(above)
                if above in targets:
                    nearest[above] = targets[above]
                else:
                    above = posixpath.dirname(above)
            other = nearest[above]
            nearest.update(dict.fromkeys(passed, other))
            if other and not other.file.is_directory:
                self.fault(
                    target.label,
                    f'files: {other} would become {other.file.remote!r}, '
                    f'which must be a directory for {target} to become {target.file.remote!r}',
                )

    def _check_executables(self, targets: Mapping[str, Target], there: Iterable[ComponentPlan]) -> None:
        """What is brought to be run has the execute bit, which goes with it."""
        for number, component in enumerate(there):
            target = targets.get(target_path(_base_dir(component, number), component.executable))
            if target is not None and target.kind == 'file':
                _, reason = self._kind(target.file.local, needs=os.X_OK)
                if reason:
                    what = f'executable {named(component.executable)} is {named(target.file.local)}'
                    self.fault(component.label, f'{what}, which {reason}')

    def _kind(self, path: str, needs: int | None = os.R_OK) -> tuple[bool, str | None]:
        """Whether a local path is a directory, and why it cannot be used; see `_look_at`."""
        key = (path, needs)
        if key not in self._kinds:
            self._kinds[key] = _look_at(Path(path), needs)
        return self._kinds[key]


def target_path(base_dir: str, remote: str) -> str:
    """Where `remote` lies on its host, as far as that can be said from here; `base_dir` as `_from_home` gives it."""
    path = remote if remote.startswith(('/', '~')) else f'{base_dir}/{remote}'
    return posixpath.normpath(f'/{path.lstrip("/")}' if path.startswith('/') else path)


def _base_dir(component: ComponentPlan, number: int) -> str:
    """The base_dir of one of the components of a host, or what stands for a temporary one."""
    return f'/<{number}>' if component.base_dir is None else _from_home(component.base_dir)


def _from_home(base_dir: str) -> str:
    return base_dir if base_dir.startswith(('/', '~')) else f'~/{base_dir}'


def _look_at(path: Path, needs: int | None) -> tuple[bool, str | None]:
    """Whether it is a directory, and why it cannot be used.

    Args:
        path: a local path.
        needs: what must be allowed with a file (`os.R_OK`, `os.X_OK`); None: it must be a symbolic link, to anything.
    """
    try:
        mode = (path.lstat() if needs is None else path.stat()).st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            return False, 'is a link to nothing'
        hint = neighbour(path)
        return False, f'does not exist ({hint})' if hint else 'does not exist'
    except OSError as error:
        return False, f'cannot be used: {error.strerror}'
    if needs is None:
        return False, None if stat.S_ISLNK(mode) else 'is no symbolic link any more'
    if stat.S_ISDIR(mode):
        return True, None
    if not stat.S_ISREG(mode):
        return False, 'is neither a file nor a directory'
    if not os.access(path, os.R_OK):
        return False, 'is not readable'
    if needs == os.X_OK and not os.access(path, os.X_OK):
        return False, f'is not executable (chmod +x {named(str(path))})'
    return False, None


def _are_same_links(one: str, other: str) -> bool:
    return link_target(one) == link_target(other)


def _are_same_files(one: str, other: str) -> bool:
    """Whether the content is the same; what they are called does not matter, nor do their permissions."""
    return Path(one).samefile(other) or filecmp.cmp(one, other, shallow=False)


def _names_directory(remote: str) -> bool:
    """Whether a remote path can only mean a directory."""
    last = remote.rpartition('/')[2]
    return last in ('', '.', '..') or (remote.startswith('~') and '/' not in remote)


def _machine(address: Address) -> Address:
    """What tells one host from another in an address: slots and weights do not."""
    return Address(address.name, address.user, address.port)


def _on_path(executable: str) -> str:
    """A hint for who wrote a bare command name, which is relative to the config file."""
    found = None if '/' in executable else shutil.which(executable)
    return f' (for the command of that name write {found!r})' if found else ''


def _some(labels: Sequence[str]) -> str:
    """The first few of many."""
    if len(labels) <= _LABELS_SHOWN + 1:
        return ', '.join(labels)
    return f'{", ".join(labels[:_LABELS_SHOWN])} and {len(labels) - _LABELS_SHOWN} more'
