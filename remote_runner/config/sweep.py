"""`Sweep`: one command over many sets of parameters, on the slots of many hosts; and the tasks that it makes."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from remote_runner.config.attributed import Attributed, fault
from remote_runner.config.collect import Names, ToFile
from remote_runner.config.parameters import Parameters
from remote_runner.config.reading import argument
from remote_runner.config.sweep_attributes import SWEEP_ATTRIBUTES
from remote_runner.config.sweep_reading import STDIN
from remote_runner.config.template import Template, quoted
from remote_runner.errors import ConfigFaults


class Sweep(Attributed, table=SWEEP_ATTRIBUTES):
    """One command over many sets of parameters, on the slots of many hosts.

    Set what is needed, then `config.add_sweep(sweep)` stores a copy. Values are checked when the whole config is, all
    at once; only an attribute that does not exist is an error at once.

        sweep = Sweep()
        sweep.name = 'latency'
        sweep.hosts = ['4/node1', 'node2']
        sweep.parameters = util.product(rate=[1, 10], seed=range(5))
        sweep.command = './client --rate {rate} --seed {seed}'
        sweep.files = {'bin/client': 'client'}
        sweep.collect = collect.csv('results.csv')
        config.add_sweep(sweep)
    """

    def __repr__(self) -> str:
        return f'<Sweep {self.label.removeprefix("sweep ")}>'

    @property
    def label(self) -> str:
        """`sweep NAME`, as messages show it."""
        name = self.__dict__.get('name')
        return f'sweep {"(no name)" if name is None else name}'

    def read(self) -> tuple[dict[str, Any], list[str]]:
        """All values in the form that a plan holds, and all that is wrong with them, also with one another."""
        values, faults = super().read()
        for name, reason in (
            *_unknown_parameters(values),
            *_clashes(values),
            *_program(values),
            *_collector(values),
        ):
            faults.append(fault(name, reason))
        return values, faults


class SweepTask(NamedTuple):
    """A task of a sweep, with the fields of `jobs.task.Task`.

    Args:
        command: for `sh -c`; bytes that are no UTF-8 stand there as surrogates (`surrogateescape`).
        parameters: the values that it was made with.
        inputs: content of files in its working folder; `stdin` is its standard input.
        results: names of results, each with `stdout`, `stderr` or a path below the working folder.
    """

    command: str
    parameters: Mapping[str, object]
    inputs: Mapping[str, bytes]
    results: Mapping[str, str]


class Tasks:
    """The tasks of a sweep in the order of its parameter sets. Each is made when it is asked for, as often as wanted.

    Args:
        values: what `Sweep.read` gives where nothing is wrong.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._parameters: Parameters = values['parameters']
        self._command: Template | tuple[Template, ...] = values['command']
        self._inputs: Mapping[str, Template] = values['inputs']
        self._results: Mapping[str, str] = values['results']

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[SweepTask]:
        return map(self._made, self._parameters)

    def __getitem__(self, position: int) -> SweepTask:
        return self._made(self._parameters[position])

    def _made(self, parameters: dict[str, Any]) -> SweepTask:
        texts = {name: argument(value) for name, value in parameters.items()}
        if isinstance(self._command, Template):
            command = self._command.shell(texts)
        else:
            command = ' '.join([quoted(word.text(texts)) for word in self._command])
        inputs = {
            name: content.text(texts).encode('utf-8', 'surrogateescape') for name, content in self._inputs.items()
        }
        return SweepTask(command, parameters, inputs, self._results)


def tasks(sweep: Sweep) -> Tasks:
    """The tasks of a sweep.

    Raises:
        ConfigFaults: something is wrong with it.
    """
    values, faults = sweep.read()
    if faults:
        raise ConfigFaults([f'{sweep.label}: {each}' for each in faults])
    return Tasks(values)


def program_name(executables: Iterable[tuple[str, str]]) -> str | None:
    """What the program of `executables` is called in a working folder; None without one."""
    return next((posixpath.basename(path.rstrip('/')) for _, path in executables), None)


Reasons = Iterator[tuple[str, str]]


def _unknown_parameters(values: Mapping[str, Any]) -> Reasons:
    """Templates that name a parameter which is none: attribute and reason."""
    if 'parameters' not in values:
        return
    names = values['parameters'].names
    command = values.get('command', ())
    if isinstance(command, Template):
        yield from (('command', reason) for reason in command.unknown(names))
    else:
        for position, word in enumerate(command):
            yield from (('command', f'[{position}] {reason}') for reason in word.unknown(names))
    for path, content in values.get('inputs', {}).items():
        yield from (('inputs', f'[{path!r}] {reason}') for reason in content.unknown(names))


def _brought(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What stands in a working folder before the command runs: attribute, and path below the folder."""
    for _, remote in values.get('files', ()):
        if not remote.startswith(('/', '~')):
            yield 'files', posixpath.normpath(remote)
    program = program_name(values.get('executables', ()))
    if program:
        yield 'executables', program
    for path in values.get('inputs', {}):
        if path != STDIN:
            yield 'inputs', path


def _clashes(values: Mapping[str, Any]) -> Reasons:
    """What two attributes want to have at one path of the working folder."""
    for _, remote in values.get('files', ()):
        if not remote.startswith(('/', '~')) and posixpath.normpath(remote).split('/')[0] == '..':
            yield 'files', f'leads out of the working folder: {remote!r}; an absolute path may lie anywhere'
    seen: dict[str, str] = {}
    for attribute, path in _brought(values):
        other = seen.setdefault(path, attribute)
        if other != attribute:
            yield attribute, f'and {other} both bring {path!r}'


def _program(values: Mapping[str, Any]) -> Reasons:
    """A command that begins with a program of the working folder, to which nothing brings it."""
    if not {'command', 'files', 'executables', 'inputs'} <= values.keys():
        return
    command = values['command']
    template = command if isinstance(command, Template) else command[0]
    if not isinstance(template.pieces[0], str):
        return
    text = template.pieces[0]
    if isinstance(command, Template):
        found = re.match(r'\s*([\w./+-]+)(?=[\s;&|]|$)', text)
        is_whole = found is not None and (found.end() < len(text) or len(template.pieces) == 1)
        text = found[1] if found and is_whole else ''
    elif len(template.pieces) > 1:
        return
    if '/' not in text or text.startswith(('/', '~')):
        return
    path = posixpath.normpath(text)
    there = {brought for _, brought in _brought(values)}
    if path not in there:
        yield 'command', f'runs {shlex.quote(text)}, but neither files nor executables nor inputs bring {path!r}'


def _collector(values: Mapping[str, Any]) -> Reasons:
    """A collector that cannot do with what the tasks have."""
    collector = values.get('collect')
    if isinstance(collector, ToFile) and {'parameters', 'results'} <= values.keys():
        names = Names(values['parameters'].names, tuple(values['results']))
        yield from (('collect', reason) for reason in collector.reasons(names))
