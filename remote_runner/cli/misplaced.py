"""Options that stand before the name of the command they are meant for: what to say about that."""

from __future__ import annotations

import argparse
import importlib
import shlex
from collections.abc import Iterator, Mapping, Sequence

from remote_runner.cli.main import COMMANDS
from remote_runner.errors import UsageError

Options = Mapping[str, argparse.Action]


def check(arguments: Sequence[str]) -> None:
    """Refuse a command's name behind options, and show the right order. `arguments` do not begin with a command's name.

    A run takes no words but options and their values, so such a name cannot mean anything else.

    Raises:
        UsageError: there is one.
    """
    options: dict[str, argparse.Action] = {}
    for module, _ in COMMANDS.values():
        for name, action in importlib.import_module(module).make_parser()._option_string_actions.items():
            options.setdefault(name, action)
    pieces = list(_pieces(arguments, options))
    place = next((place for place, piece in enumerate(pieces) if not piece[0].startswith('-')), len(pieces))
    if place < len(pieces) and pieces[place][0] in COMMANDS:
        right = [*pieces[place], *_shown([*pieces[:place], *pieces[place + 1 :]], options)]
        raise UsageError('options of a command follow its name', remedy=f'write: remote_runner {shlex.join(right)}')


def _pieces(arguments: Sequence[str], options: Options) -> Iterator[list[str]]:
    """The arguments one by one, but for an option and its value, and all that follows `--`."""
    words = iter(arguments)
    for word in words:
        if word == '--':
            yield [word, *words]
        elif word in options and options[word].nargs != 0:
            yield [word, *(value for value in [next(words, None)] if value is not None)]
        else:
            yield [word]


def _shown(pieces: Sequence[Sequence[str]], options: Options) -> Iterator[str]:
    """All words, with `***` for a password."""
    for first, *rest in pieces:
        name = first.partition('=')[0] if first.startswith('--') else first[:2]
        is_secret = name in options and options[name].dest == 'password'
        if is_secret and first != name:
            yield f'{name}=***' if first.startswith('--') else f'{name}***'
        else:
            yield first
            yield from ['***'] if is_secret and rest else rest
