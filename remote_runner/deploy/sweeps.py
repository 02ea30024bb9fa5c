"""The sweeps of a config, checked on this machine: pure data, and what makes tasks of it."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from remote_runner.config.collect import Collector, Names, ToFile
from remote_runner.config.paths import TreePath, expanded, named
from remote_runner.config.reading import BadValueError, read_args
from remote_runner.config.sweep import Sweep, Tasks, program_name
from remote_runner.config.sweep_reading import STDIN
from remote_runner.deploy.check import Checker
from remote_runner.deploy.component_plan import FilePlan
from remote_runner.errors import AddressError
from remote_runner.hosts.address import Address, parse_hosts

Call = Callable[..., Any]


class SweepPlan(NamedTuple):
    """One sweep, ready to run.

    Args:
        name: its name.
        hosts: where it runs; `slots` of each where they were said.
        tasks: what runs, in the order of the parameter sets.
        names: of the parameters and the results of each task.
        command: as the user wrote it, for people.
        files: what to bring to each host; relative remote paths are to be found in the working folder of every task.
        trees: remote folders, as written, of which `files` has all that local ones hold, but for what was left out.
        executables: pairs of platform (`linux-x86_64`) and absolute local path.
        program: what the executable is called in working folders; None without one.
        keep_files: whether what is brought for working folders stays on the hosts at the end.
        retries, timeout, timeout_share, duplicates, delay, load: as in `jobs.policy.Policy`.
        retry_on: causes (`exit`, `timeout`, `rejected`, `resources`), each with the exit status or None; None: all.
        halt: at how many failed tasks (below 1: at what share of all) to give up, and whether what runs is ended, too.
        keep: which working folders stay: `all`, `failed`, `none`.
        lease: seconds that a host goes on without a master; on_lost: what it does then, `kill` or `finish`.
        validate: the user's function that `accepts` asks.
        collector: where results go, see `collecting`; None: they are not collected.
        config_dir: the directory to which the paths of the config are relative.
        call: calls a user's function, so that its errors name its own lines.
    """

    name: str
    hosts: tuple[Address, ...]
    tasks: Tasks
    names: Names
    command: str
    files: tuple[FilePlan, ...]
    trees: tuple[TreePath, ...]
    executables: tuple[tuple[str, str], ...]
    program: str | None
    keep_files: bool
    retries: int
    retry_on: tuple[tuple[str, int | None], ...] | None
    timeout: float | None
    timeout_share: float | None
    duplicates: bool
    halt: tuple[float, bool] | None
    delay: float
    load: float | None
    keep: str
    lease: float
    on_lost: str
    validate: Call | None
    collector: Collector | None
    config_dir: str
    call: Call

    @property
    def label(self) -> str:
        """What messages call it."""
        return f'sweep {self.name}'

    def accepts(self, parameters: Mapping[str, Any], results: Mapping[str, bytes]) -> bool:
        """Whether the user's `validate` accepts what a task brought.

        Raises:
            UserCodeError: it raised an error; the message names its own line.
        """
        if self.validate is None:
            return True
        return bool(self.call(_is_true, self.validate, dict(parameters), dict(results)))

    @contextmanager
    def collecting(self) -> Iterator[Callable[[Mapping[str, Any], Mapping[str, bytes]], None]]:
        """What takes the accepted results, one task after the other in the order of the parameter sets.

        What is written of them is there when this ends, and all of it is; after an error, what was there before is.

        Raises:
            UserCodeError: the user's own collector raised an error; the message names its own line.
            CollectingFailed: a file cannot be written.
        """
        collector = self.collector
        if collector is None:
            yield lambda parameters, results: None
            return
        call = _directly if isinstance(collector, ToFile) else self.call
        try:
            call(collector.begin, self.config_dir, self.names)
            yield lambda parameters, results: call(collector.add, dict(parameters), dict(results))
            call(collector.end)
        except BaseException:
            if hasattr(collector, 'drop'):
                call(collector.drop)
            raise

    def to_dict(self) -> dict[str, Any]:
        """Its values for JSON."""
        values = self._asdict()
        for name in ('tasks', 'names', 'trees', 'validate', 'collector', 'config_dir', 'call'):
            del values[name]
        values['hosts'] = [str(address) for address in self.hosts]
        values['tasks'] = len(self.tasks)
        values['parameters'] = list(self.names.parameters)
        values['results'] = list(self.names.results)
        values['files'] = [file.to_dict() for file in self.files]
        values['executables'] = [
            {'platform': platform, 'local': local, 'remote': self.program} for platform, local in self.executables
        ]
        values['halt'] = None if self.halt is None else {'at': self.halt[0], 'now': self.halt[1]}
        values['validates'] = self.validate is not None
        values['collects'] = repr(self.collector) if isinstance(self.collector, ToFile) else self.collector is not None
        return values


def plan_sweeps(sweeps: Iterable[Sweep], checker: Checker, config_dir: str, call: Call | None) -> tuple[SweepPlan, ...]:
    """The plans of sweeps; all that is wrong with them goes to `checker`.

    Args:
        sweeps: what users wrote.
        checker: for the config in which they stand.
        config_dir: absolute directory to which relative local paths are relative.
        call: what calls users' functions; None: they are called, and that is all.
    """
    sweeps = list(sweeps)
    planned = [_plan_sweep(sweep, checker, config_dir, call or _directly) for sweep in sweeps]
    found = [plan for plan in planned if plan is not None]
    for name, count in Counter(sweep.name for sweep in sweeps if isinstance(sweep.name, str)).items():
        if count > 1:
            checker.fault(f'sweep {name}', f'{count} sweeps of the same name')
    seen: dict[str, str] = {}
    for plan in found:
        if isinstance(plan.collector, ToFile):
            target = plan.collector.target(config_dir)
            other = seen.setdefault(target, plan.label)
            if other != plan.label:
                checker.fault(plan.label, f'collect: {other} collects into {named(target)} as well')
    return tuple(found)


def _plan_sweep(sweep: Sweep, checker: Checker, config_dir: str, call: Call) -> SweepPlan | None:
    """The plan of one sweep; None if something is wrong with it."""
    label = sweep.label
    values, faults = sweep.read()
    for fault in faults:
        checker.fault(label, fault)
    before = len(checker.faults)
    hosts = _hosts(values.get('hosts', ()), label, checker, config_dir)
    written = values.get('files', ())
    files = tuple(FilePlan(*entry) for entry in checker.read_files(label, written, is_local=False))
    checker.check_sweep(label, files, [path for path in values.get('inputs', ()) if path != STDIN])
    executables = tuple(checker.read_executables(label, values.get('executables', ())))
    collector = values.get('collect')
    if isinstance(collector, ToFile):
        try:
            obstacle = _obstacle(Path(collector.target(config_dir)))
            if obstacle:
                checker.fault(label, f'collect: {obstacle}')
        except BadValueError as bad:
            for reason in bad.reasons:
                checker.fault(label, f'collect {reason}')
    if faults or len(checker.faults) > before:
        return None
    limit = values['timeout']
    trees = dict.fromkeys((remote.root, remote.exclude) for _, remote in written if isinstance(remote, TreePath))
    return SweepPlan(
        **{name: values[name] for name in SweepPlan._fields if name in values and name not in ('command', 'timeout')}
        | {
            'hosts': hosts,
            'tasks': Tasks(values),
            'names': Names(values['parameters'].names, tuple(values['results'])),
            'command': sweep.command if isinstance(sweep.command, str) else shlex.join(read_args(sweep.command)),
            'files': files,
            'trees': tuple(TreePath(root, root, exclude=exclude) for root, exclude in trees),
            'executables': executables,
            'program': program_name(values['executables']),
            'timeout': limit if isinstance(limit, float) else None,
            'timeout_share': float(limit.removesuffix('%')) / 100 if isinstance(limit, str) else None,
            'collector': collector,
            'config_dir': config_dir,
            'call': call,
        }
    )


def _obstacle(target: Path) -> str:
    """Why a file could not be written when all tasks have run; '': it seems that it can."""
    folder = next(folder for folder in target.parents if os.path.lexists(folder))
    if not folder.is_dir():
        return f'{named(str(folder))} is no folder'
    return '' if os.access(folder, os.W_OK | os.X_OK) else f'you cannot write into {named(str(folder))}'


def _hosts(texts: Iterable[str], label: str, checker: Checker, config_dir: str) -> tuple[Address, ...]:
    """What the texts mean; `@FILE` is relative to the config."""
    found: list[Address] = []
    before = len(checker.faults)
    for text in texts:
        try:
            if text.startswith('@') and len(text) > 1:
                found += parse_hosts([f'@{Path(config_dir) / expanded(text[1:])}'])
            else:
                found += parse_hosts([text])
        except AddressError as error:
            checker.fault(label, f'hosts: {error}')
    known: dict[tuple[str, str | None, int | None], Address] = {}
    for address in found:
        other = known.setdefault((address.name, address.user, address.port), address)
        if other.slots != address.slots:
            checker.fault(label, f'hosts: {address.where} is there twice, as {str(other)!r} and as {str(address)!r}')
    if texts and not found and len(checker.faults) == before:
        checker.fault(label, 'hosts: there are none')
    return tuple(known.values())


def _is_true(function: Call, *arguments: object) -> bool:
    return bool(function(*arguments))


def _directly(function: Call, *arguments: object) -> Any:
    return function(*arguments)
