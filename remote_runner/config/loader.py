"""Loading what users write: arg parser, config, muddlers, in that order.

The result is a `Config` as the user's files left it; what is in it is checked by `remote_runner.deploy.plan`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from remote_runner.config import util
from remote_runner.config.component import Component, Config
from remote_runner.config.settings import ExtraArgs, Options, Settings
from remote_runner.config.usercode import UserCode, UserFile
from remote_runner.errors import ConfigError, ConfigFaults, UsageError

if TYPE_CHECKING:
    from inspect import Parameter

# A second parameter with a default gets our second argument only if it is named for it.
_SECOND_NAMES = ('options', 'opts', 'ssh_user', 'user')


class Loaded(NamedTuple):
    """What users' files made: the config, and the `options` and `extra_options` that they have seen."""

    config: Config
    options: Options
    extra_options: Any


def load(settings: Settings) -> Loaded:
    """Run the arg parser, the config and the muddlers.

    Raises:
        UsageError: there are extra arguments and no parser for them.
        ConfigError: a file is missing or unreadable, or does not define what it must.
        UserCodeError: a file raised an error; the message names its own line.
        SystemExit: the user's arg parser ended the command: status 0 after its `--help`, 2 after argparse's message
            about a wrong argument.
    """
    if settings.extra_args and settings.arg_parser is None:
        raise UsageError('--extra-args needs --arg-parser', remedy='name the file whose parse_args() reads them')
    config_file, parser_file, muddler_files = _files(settings)
    options = settings.options()
    namespace: dict[str, object] = {
        'Component': Component,
        'util': util,
        'options': options,
        'localhost': Config.LOCAL_HOST,
    }
    with UserCode() as code, util.relative_to(settings.config_dir):
        extra_options = None
        if parser_file:
            module = code.run(parser_file, 'remote_runner_arg_parser', namespace)
            extra_args = ExtraArgs(settings.extra_args or '')
            extra_options = _call(code, parser_file, module, 'parse_args', (extra_args, settings.ssh_user))
        namespace['extra_options'] = extra_options
        config = _run_config(code, config_file, namespace)
        for number, file in enumerate(muddler_files, start=1):
            module = code.run(file, f'remote_runner_muddler_{number}', namespace)
            _call(code, file, module, 'muddle', (config, options))
    return Loaded(config, options, extra_options)


def _files(settings: Settings) -> tuple[UserFile, UserFile | None, list[UserFile]]:
    """The users' files, all of them readable; else one error that names all that are not."""
    config = UserFile(settings.config_file, 'config')
    parser = UserFile(settings.arg_parser, 'arg parser') if settings.arg_parser else None
    muddlers = [UserFile(path, 'muddler') for path in settings.muddlers]
    failures: list[ConfigError] = []
    for file in (config, parser, *muddlers):
        try:
            if file:
                file.source()
        except ConfigError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ConfigFaults([str(failure) for failure in failures])
    return config, parser, muddlers


def _run_config(code: UserCode, file: UserFile, namespace: dict[str, object]) -> Config:
    """Run the config in its own directory."""
    with working_directory(file.directory):
        module = code.run(file, 'remote_runner_config', {**namespace, 'config': Config()})
    config = module.__dict__.get('config')
    if not isinstance(config, Config):
        raise ConfigError(f'config {file.path}: `config` is {config!r} at its end', remedy='leave it the Config it was')
    return config


def _call(code: UserCode, file: UserFile, module: ModuleType, name: str, arguments: Sequence[object]) -> Any:
    """Call the function that a muddler or parser must define, with as many of `arguments` as it takes."""
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
        return code.call(file, function, *arguments)
    count = _takes(list(signature.parameters.values()))
    if count is None:
        raise ConfigError(f'{file.kind} {file.path}: {name}{signature} cannot be called', remedy=f'define {wanted}')
    return code.call(file, function, *arguments[:count])


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
