"""What can be found out on this machine about the components of a config, before any host is touched."""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from remote_runner.config.env_file import read_variables
from remote_runner.config.paths import expanded, neighbour
from remote_runner.config.reading import BadValueError
from remote_runner.errors import AddressError
from remote_runner.hosts.address import Address, parse_address

if TYPE_CHECKING:
    from remote_runner.deploy.plan import ComponentPlan

_LABELS_SHOWN = 3


class Target(NamedTuple):
    """What one entry of `files` wants to stand at a path of a host."""

    is_directory: bool
    local: str
    label: str
    remote: str

    def agrees_with(self, other: Target) -> bool:
        """Whether both are the same file, or are both a directory."""
        if self.is_directory or other.is_directory:
            return self.is_directory == other.is_directory
        return self.local == other.local or os.path.realpath(self.local) == os.path.realpath(other.local)

    def __str__(self) -> str:
        return f'{self.local} ({"directory" if self.is_directory else "file"} of {self.label})'


class Checker:
    """Collects the faults of one config. What was asked once of the file system is not asked again.

    Args:
        config_dir: absolute directory to which relative local paths are relative.
    """

    def __init__(self, config_dir: str) -> None:
        self.faults: dict[str, list[str]] = {}  # text -> labels of the components that have it
        self._config_dir = config_dir
        self._local_paths: dict[str, str] = {}
        self._kinds: dict[str, tuple[bool, str | None]] = {}
        self._addresses: dict[str, Address | AddressError] = {}

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

    def local_path(self, path: str) -> str:
        """A local path as users write it, made absolute."""
        if path not in self._local_paths:
            self._local_paths[path] = str(Path(self._config_dir) / expanded(path))
        return self._local_paths[path]

    def read_files(
        self, label: str, files: Sequence[tuple[str, str]], *, is_local: bool
    ) -> Iterator[tuple[str, str, bool]]:
        """Local path (absolute), remote path and whether it is a directory, of each entry that makes sense."""
        if files and is_local:
            self.fault(label, 'files must be empty on localhost: nothing is copied there')
            return
        for written, remote in files:
            local = self.local_path(written)
            is_directory, reason = self._kind(local)
            if reason:
                self.fault(label, f'files: {local} {reason}')
            elif not is_directory and _names_directory(remote):
                better = f'{remote.rstrip("/")}/{Path(local).name}'
                self.fault(label, f'files: {remote!r} is a directory, but {local} is a file; write {better!r}')
            else:
                yield local, remote, is_directory

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
                self.fault(label, f'executable {executable} {reason}{_on_path(values["executable"])}')
        if values.get('base_dir'):
            result['base_dir'] = base_dir = self.local_path(values['base_dir'])
            if Path(base_dir).exists() and not Path(base_dir).is_dir():
                self.fault(label, f'base_dir {base_dir} is no directory')
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
                self._add_targets(targets, component, number)
            self._check_parents(targets)
            self._check_executables(targets, there)

    def _add_targets(self, targets: dict[str, Target], component: ComponentPlan, number: int) -> None:
        for file in component.files:
            path = target_path(_base_dir(component, number), file.remote)
            target = Target(file.is_directory, file.local, component.label, file.remote)
            other = targets.setdefault(path, target)
            if not target.agrees_with(other):
                self.fault(component.label, f'files: {target} and {other} would both become {file.remote!r}')

    def _check_parents(self, targets: Mapping[str, Target]) -> None:
        for path, target in targets.items():
            above = posixpath.dirname(path)
            while above not in ('', '/'):
                other = targets.get(above)
                if other:
                    if not other.is_directory:
                        self.fault(
                            target.label,
                            f'files: {other} would become {other.remote!r}, '
                            f'which must be a directory for {target} to become {target.remote!r}',
                        )
                    break
                above = posixpath.dirname(above)

    def _check_executables(self, targets: Mapping[str, Target], there: Iterable[ComponentPlan]) -> None:
        """What is brought to be run has the execute bit, which goes with it."""
        for number, component in enumerate(there):
            target = targets.get(target_path(_base_dir(component, number), component.executable))
            if target is not None and not target.is_directory:
                _, reason = self._kind(target.local, needs=os.X_OK)
                if reason:
                    self.fault(component.label, f'executable {component.executable} is {target.local}, which {reason}')

    def _kind(self, path: str, needs: int = os.R_OK) -> tuple[bool, str | None]:
        """Whether a local path is a directory, and why it cannot be used."""
        key = f'{needs}{path}'
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


def _look_at(path: Path, needs: int) -> tuple[bool, str | None]:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            return False, 'is a link to nothing'
        hint = neighbour(path)
        return False, f'does not exist ({hint})' if hint else 'does not exist'
    except OSError as error:
        return False, f'cannot be used: {error.strerror}'
    if stat.S_ISDIR(mode):
        return True, None
    if not stat.S_ISREG(mode):
        return False, 'is neither a file nor a directory'
    if not os.access(path, os.R_OK):
        return False, 'is not readable'
    if needs == os.X_OK and not os.access(path, os.X_OK):
        return False, f'is not executable (chmod +x {path})'
    return False, None


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
