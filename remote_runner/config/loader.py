"""Loading what users write: arg parser, config, muddlers, in that order.

The result is a `Config` as the user's files left it; what is in it is checked by `remote_runner.deploy.plan`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from remote_runner.config import ready, util
from remote_runner.config.component import Component, Config
from remote_runner.config.settings import ExtraArgs, Options, Settings
from remote_runner.config.usercode import Caller, UserCode, UserFile
from remote_runner.errors import ConfigError, RemoteRunnerError, UsageError, together

if TYPE_CHECKING:
    from inspect import Parameter

# Files in which none of this stands cannot tell whether there are sweeps.
_SWEEPS = re.compile(r'Sweep|collect|(exec|eval|vars)\s*\(|globals|__dict__|sys\.modules')
# A second parameter with a default gets our second argument only if it is named for it.
_SECOND_NAMES = ('options', 'opts', 'ssh_user', 'user')


class Loaded(NamedTuple):
    """What users' files made.

    Args:
        config: the config.
        options, extra_options: what the files have seen under these names.
        faults: what is wrong with the files. With any, the config is worth no more than a look for further ones.
    """

    config: Config
    options: Options
    extra_options: Any
    faults: tuple[RemoteRunnerError, ...] = ()


def load(settings: Settings) -> Loaded:
    """Run the arg parser, the config and the muddlers; all is well with them.

    Raises:
        ConfigError, UserCodeError, UsageError, ConfigFaults, SystemExit: as `load_noting`, and for all that it notes.
    """
    loaded = load_noting(settings)
    if loaded.faults:
        raise together(loaded.faults)
    return loaded


def load_noting(settings: Settings) -> Loaded:
    """Run the arg parser, the config and the muddlers.

    What is wrong with them is gathered for as long as the config is worth a look, and then is in the result; an error
    that leaves no such config is raised, with all that were found before.

    Raises:
        ConfigError: a file is missing or unreadable, or does not define what it must.
        UserCodeError: a file raised an error; the message names its own line.
        UsageError: there are extra arguments and no parser for them.
        ConfigFaults: several of these.
        SystemExit: the user's arg parser ended the command: status 0 after its `--help`, 2 after argparse's message
            about a wrong argument.
    """
    options = settings.options()
    namespace: dict[str, object] = {
        'Component': Component,
        'util': util,
        'ready': ready,
        'options': options,
        'localhost': Config.LOCAL_HOST,
    }
    with UserCode() as code, util.relative_to(settings.config_dir):
        if settings.extra_args and settings.arg_parser is None:
            remedy = 'name the file whose parse_args() reads them'
            code.note(UsageError('--extra-args needs --arg-parser', remedy=remedy))
        config_file, parser_file, muddler_files = _files(code, settings)
        namespace['extra_options'] = None
        if code.finds(_SWEEPS):
            namespace.update(_names_for_sweeps())
        if parser_file:
            with code.noting():
                module = code.run(parser_file, 'remote_runner_arg_parser', namespace)
                extra_args = ExtraArgs(settings.extra_args or '')
                parse_args = _function(parser_file, module, 'parse_args')
                namespace['extra_options'] = parse_args.call(code, extra_args, settings.ssh_user)
            if code.faults:
                raise together(code.faults)
        config = None
        with code.noting():
            config = _run_config(code, config_file, namespace)
        muddles = []
        for number, file in enumerate(muddler_files, start=1):
            with code.noting():
                module = code.run(file, f'remote_runner_muddler_{number}', namespace)
                muddles.append(_function(file, module, 'muddle'))
        if config is not None:
            with code.noting():
                for muddle in muddles:
                    muddle.call(code, config, options)
                return Loaded(config, options, namespace['extra_options'], tuple(code.faults))
        raise together(code.faults)


def _files(code: UserCode, settings: Settings) -> tuple[UserFile, UserFile | None, list[UserFile]]:
    """The users' files, all of which can be read and compiled; else one error that names all that cannot."""
    config = UserFile(settings.config_file, 'config')
    parser = UserFile(settings.arg_parser, 'arg parser') if settings.arg_parser else None
    muddlers = [UserFile(path, 'muddler') for path in settings.muddlers]
    readable = True
    for file in (config, parser, *muddlers):
        if file:
            readable = code.compiles(file) and readable
    if not readable:
        raise together(code.faults)
    return config, parser, muddlers


def _names_for_sweeps() -> dict[str, object]:
    from remote_runner.config import collect  # late: most files have no use for it
    from remote_runner.config.sweep import Sweep

    return {'Sweep': Sweep, 'collect': collect}


def _run_config(code: UserCode, file: UserFile, namespace: dict[str, object]) -> Config:
    """Run the config in its own directory."""
    with working_directory(file.directory):
        module = code.run(file, 'remote_runner_config', {**namespace, 'config': Config(Caller(code, file))})
    config = module.__dict__.get('config')
    if not isinstance(config, Config):
        raise ConfigError(f'config {file.path}: `config` is {config!r} at its end', remedy='leave it the Config it was')
    return config


class _Function(NamedTuple):
    """A function that a user's file defines for us to call, with as many of the arguments as it takes."""

    file: UserFile
    function: Callable[..., Any]
    takes: int

    def call(self, code: UserCode, *arguments: object) -> Any:
        return code.call(self.file, self.function, *arguments[: self.takes])


def _function(file: UserFile, module: ModuleType, name: str) -> _Function:
    """The function that a muddler or parser must define."""
    import inspect  # late: it takes 10 ms, and most runs have no muddler

    function = module.__dict__.get(name)
    wanted = 'muddle(config) or muddle(config, options)' if name == 'muddle' else 'parse_args(extra_args, ssh_user)'
    if function is None:
        raise ConfigError(f'{file.kind} {file.path}: does not define {name}', remedy=f'define {wanted}')
    if not callable(function):
        raise ConfigError(f'{file.kind} {file.path}: {name} is {function!r}, no function', remedy=f'define {wanted}')
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        raise ConfigError(f'{file.kind} {file.path}: {name} would do nothing when called', remedy='no yield, no async')
    try:
        signature = inspect.signature(function)
    except ValueError:  # a built-in function without one
        return _Function(file, function, 2)
    count = _takes(list(signature.parameters.values()))
    if count is None:
        raise ConfigError(f'{file.kind} {file.path}: {name}{signature} cannot be called', remedy=f'define {wanted}')
    return _Function(file, function, count)


def _takes(parameters: Sequence[Parameter]) -> int | None:
    """With how many arguments (1 or 2) to call a function of these parameters; None if it takes neither."""
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        return None
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in positional)
    if required > 2:
        return None
    if required == 2 or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 2
    if len(positional) >= 2 and positional[1].name in _SECOND_NAMES:
        return 2
    return 1 if positional else None


@contextmanager
def working_directory(directory: str) -> Iterator[None]:
    """Work in `directory`, and afterwards where it was before, even if that has been renamed meanwhile."""
    before = os.open('.', os.O_PATH | os.O_DIRECTORY)
    try:
        os.chdir(directory)
        yield
    finally:
        os.fchdir(before)
        os.close(before)
