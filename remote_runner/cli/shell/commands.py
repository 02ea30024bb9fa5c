"""All commands with their options as plain data, read from their parsers."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from typing import NamedTuple

from remote_runner.cli.main import COMMANDS

#: What stands for a command where none is named: a run, which then takes no names.
UNNAMED = 'unnamed'
_DEFAULT = 'run'
#: What completes a value, by its metavar. Others are for the user alone to know.
_KINDS = {
    'CLUSTER': 'file',
    'COMMAND': 'command',
    'DIR': 'folder',
    'FILE': 'file',
    'HOSTS': 'hosts',
    'ID': 'jobs',
    'NAMES': 'components',
    'SRC': 'file',
}
#: Options whose FILE is a Python file, by their `dest`.
_PYTHON = ('config', 'muddlers', 'arg_parser', 'evaluate')


class Value(NamedTuple):
    """What an option or a command takes.

    Args:
        metavar: what help calls it.
        kind: what completes it: `choice`, `command`, `components`, `file`, `folder`, `hosts`, `jobs`, `python` (a
            Python file), `sessions`, or '' for nothing.
        choices: the words that it may be, if only some may.
        many: there may be several.
    """

    metavar: str
    kind: str
    choices: tuple[str, ...]
    many: bool


class Option(NamedTuple):
    """An option; `value` is None for a flag, `help` one text without line breaks."""

    names: tuple[str, ...]
    help: str
    value: Value | None
    repeatable: bool


class Operand(NamedTuple):
    """A word that is no option, by its position."""

    help: str
    value: Value


class Group(NamedTuple):
    """Options that the help of a command shows together; of the first group the title is '' ."""

    title: str
    description: str
    options: tuple[Option, ...]


class Command(NamedTuple):
    """A command. `usage` and `description` are texts of several lines, as its help shows them."""

    name: str
    title: str
    usage: str
    description: str
    epilog: str
    operands: tuple[Operand, ...]
    groups: tuple[Group, ...]

    @property
    def completed(self) -> tuple[Operand, ...]:
        """The operands up to the first that may be several: while that is typed, nobody knows where the next begins."""
        many = [number for number, operand in enumerate(self.operands) if operand.value.many]
        return self.operands[: many[0] + 1] if many else self.operands

    @property
    def options(self) -> Iterator[Option]:
        """Those of all groups."""
        for group in self.groups:
            yield from group.options


def commands() -> list[Command]:
    """All commands, in the order in which help lists them."""
    modules = ((name, title, importlib.import_module(module)) for name, (module, title) in COMMANDS.items())
    return [_command(name, title, module.make_parser()) for name, title, module in modules]


def plain(value: object) -> object:
    """A command, or a part of it, of dicts and lists, for JSON."""
    if isinstance(value, tuple):
        values = getattr(value, '_asdict', None)
        return {name: plain(part) for name, part in values().items()} if values else [plain(part) for part in value]
    return value


def with_unnamed(found: list[Command]) -> list[Command]:
    """The commands, and what is meant where none is named."""
    [default] = [command for command in found if command.name == _DEFAULT]
    return [*found, default._replace(name=UNNAMED, operands=())]


def _command(name: str, title: str, parser: argparse.ArgumentParser) -> Command:
    groups = []
    for number, group in enumerate(parser._action_groups):
        options = tuple(_option(action, parser.prog) for action in group._group_actions if _is_option(action))
        if options:
            # argparse's own two groups, of operands and of options, have titles that say nothing.
            groups.append(Group(group.title or '' if number > 1 else '', group.description or '', options))
    operands = (action for action in parser._get_positional_actions() if action.help != argparse.SUPPRESS)
    return Command(
        name=name,
        title=title,
        usage=(parser.usage or '%(prog)s [options]') % {'prog': parser.prog},
        description=parser.description or '',
        epilog=parser.epilog or '',
        operands=tuple(Operand(_help(action, parser.prog), _value(action)) for action in operands),
        groups=tuple(groups),
    )


def _is_option(action: argparse.Action) -> bool:
    return bool(action.option_strings) and action.help != argparse.SUPPRESS


def _option(action: argparse.Action, prog: str) -> Option:
    return Option(
        names=tuple(action.option_strings),
        help=_help(action, prog),
        value=None if action.nargs == 0 else _value(action),
        repeatable=isinstance(action, argparse._AppendAction),
    )


def _help(action: argparse.Action, prog: str) -> str:
    return ' '.join(((action.help or '') % {**vars(action), 'prog': prog}).split())


def _value(action: argparse.Action) -> Value:
    choices = tuple(map(str, action.choices or ()))
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if choices and action.metavar is None:
        metavar = '|'.join(choices)
    return Value(metavar, _kind(action, metavar), choices, action.nargs in ('+', '*', argparse.REMAINDER))


def _kind(action: argparse.Action, metavar: str) -> str:
    if action.choices:
        return 'choice'
    if '--screen' in action.option_strings:
        return 'sessions'
    if metavar == 'FILE' and action.dest in _PYTHON:
        return 'python'
    return _KINDS.get(metavar, '')
