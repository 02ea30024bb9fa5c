"""The command line as users' files see it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from remote_runner.config.paths import expanded
from remote_runner.errors import ConfigError
from remote_runner.nearest import nearest


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line says about users' files, and what it tells them.

    Paths may be relative to the working directory and start with `~`; they become absolute here, links resolved.

    Args:
        config_file: the config.
        muddlers: the muddlers, in the order in which they are applied.
        extra_args: the text of `--extra-args`, None without it.
        arg_parser: the file whose `parse_args` reads `extra_args`.
        ssh_user: `--user`; ssh_pass: `--pass` (never shown by repr).
        log_level, screen, kill_first, terminate, always_copy, no_zombie, remote_done_dir: the options of those names.
        more: further options that users' files may read, by name.
    """

    config_file: str
    muddlers: tuple[str, ...] = ()
    extra_args: str | None = None
    arg_parser: str | None = None
    ssh_user: str | None = None
    ssh_pass: str | None = field(default=None, repr=False)
    log_level: str = 'INFO'
    screen: str = 'runner'
    kill_first: bool = True
    terminate: bool = False
    always_copy: bool = False
    no_zombie: bool = False
    remote_done_dir: str | None = None
    more: Mapping[str, object] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, 'config_file', absolute(self.config_file))
        object.__setattr__(self, 'muddlers', tuple(absolute(muddler) for muddler in self.muddlers))
        if self.arg_parser is not None:
            object.__setattr__(self, 'arg_parser', absolute(self.arg_parser))

    @property
    def config_dir(self) -> str:
        """The directory of the config, to which its relative local paths are relative."""
        return str(Path(self.config_file).parent)

    def options(self) -> Options:
        """A fresh `options` for users' files."""
        return Options(
            **self.more,
            config_file=self.config_file,
            muddler=self.muddlers[-1] if self.muddlers else None,
            muddlers=list(self.muddlers),
            extra_args=self.extra_args,
            arg_parser=self.arg_parser,
            ssh_user=self.ssh_user,
            ssh_pass=self.ssh_pass,
            log_level=self.log_level,
            screen=self.screen,
            kill_first=self.kill_first,
            terminate=self.terminate,
            always_copy=self.always_copy,
            no_zombie=self.no_zombie,
            remote_done_dir=self.remote_done_dir,
        )


class Options(SimpleNamespace):
    """`options` in users' files: the command line, one attribute an option. Its repr leaves the password out."""

    def __getattr__(self, name: str) -> Any:
        known = nearest(name, vars(self)) if not name.startswith('__') else None
        hint = f'; the nearest is {known!r}' if known else ''
        raise AttributeError(f'options has no attribute {name!r}{hint}')

    def __repr__(self) -> str:
        shown = {name: value for name, value in vars(self).items() if name != 'ssh_pass'}
        return f'options({", ".join(f"{name}={value!r}" for name, value in shown.items())})'


class ExtraArgs(str):
    """The text of `--extra-args`, as `parse_args` gets it.

    It is a string (`extra_args.split()`, `shlex.split(extra_args)`), and going through it yields its words as a shell
    would cut them, so that `parser.parse_args(extra_args)` works too.
    """

    __slots__ = ()

    def __iter__(self) -> Iterator[str]:
        try:
            return iter(shlex.split(str.__str__(self)))
        except ValueError as error:
            reason = str(error)[:1].lower() + str(error)[1:]
            raise ConfigError(f'--extra-args {str.__str__(self)!r}: {reason}') from None


def absolute(path: str) -> str:
    """A path of the command line, made absolute, with `~` and links resolved."""
    return os.path.realpath(expanded(path))
