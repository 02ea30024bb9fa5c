"""The completion scripts: tables of all commands and options, put into what lasts (`bash.sh`, `zsh.sh`, `fish.sh`)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from remote_runner.cli.shell.commands import UNNAMED, Command, Operand, Option, Value, commands, with_unnamed


def script(shell: str) -> str:
    """The completion script for `bash`, `zsh` or `fish`."""
    found = commands()
    text = Path(__file__).with_name(f'{shell}.sh').read_text(encoding='utf-8')
    for name, lines in _MAKERS[shell](found).items():
        text = text.replace(f'@{name}@', '\n'.join(lines))
    return text.replace('@UNNAMED@', UNNAMED)


def _bash(found: list[Command]) -> dict[str, list[str]]:
    return {
        'TABLES': [line for command in with_unnamed(found) for line in _bash_table(command)],
        'COMMANDS': [
            '    commands=(',
            *(f'        {command.name} - {shlex.quote(command.title)}' for command in found),
            '    )',
        ],
    }


def _bash_table(command: Command) -> Iterator[str]:
    yield f'        {command.name})'
    yield '            options=('
    for option in command.options:
        kind = 'flag' if option.value is None else _bash_kind(option.value)
        for name in option.names:
            yield f'                {name} {kind} {shlex.quote(option.help)}'
    yield '            )'
    yield f'            operands=({" ".join(_bash_kind(operand.value) for operand in command.completed)})'
    if command.completed and command.completed[-1].value.many:
        yield f'            others={_bash_kind(command.completed[-1].value)}'
    yield '            ;;'


def _bash_kind(value: Value) -> str:
    return shlex.quote('=' + ' '.join(value.choices)) if value.choices else value.kind or '-'


def _zsh(found: list[Command]) -> dict[str, list[str]]:
    return {
        'TABLES': [line for command in with_unnamed(found) for line in _zsh_table(command)],
        'COMMANDS': [f'        {shlex.quote(f"{command.name}:{command.title}")}' for command in found],
    }


def _zsh_table(command: Command) -> Iterator[str]:
    specs = [spec for option in command.options for spec in _zsh_option(option)]
    specs += [
        spec for number, operand in enumerate(command.completed, 1) for spec in _zsh_operand(number, operand)
    ]
    yield f'        {command.name})'
    yield '            _arguments -s -S : \\'
    yield from (f'                {shlex.quote(spec)} \\' for spec in specs[:-1])
    yield f'                {shlex.quote(specs[-1])}'
    yield '            ;;'


def _zsh_option(option: Option) -> Iterator[str]:
    """Specs of _arguments, zshcompsys(1): one a name."""
    others = '*' if option.repeatable else f'({" ".join(option.names)})'
    for name in option.names:
        # The value follows in the same word or in the next one.
        joint = '' if option.value is None else '=' if name.startswith('--') else '+'
        value = '' if option.value is None else _zsh_value(option.value)
        yield f'{others}{name}{joint}[{_zsh_escaped(option.help, "[]")}]{value}'


def _zsh_operand(number: int, operand: Operand) -> Iterator[str]:
    value = _zsh_value(operand.value)
    if operand.value.kind == 'command':
        yield f'(-){number}{value}'
        yield '(-)*:argument:_files'
    else:
        yield f'{"*" if operand.value.many else number}{value}'


def _zsh_value(value: Value) -> str:
    action = {
        '': ' ',
        'choice': f'({" ".join(value.choices)})',
        'command': '_command_names -e',
        'components': '_remote_runner_components',
        'file': '_files',
        'folder': '_files -/',
        'hosts': '_remote_runner_hosts',
        'jobs': '_remote_runner_jobs',
        'python': '_files -g "*.py"',
        'sessions': '_remote_runner_sessions',
    }[value.kind]
    return f':{_zsh_escaped(value.metavar, ":")}:{action}'


def _zsh_escaped(text: str, letters: str) -> str:
    return ''.join(f'\\{letter}' if letter in f'\\{letters}' else letter for letter in text)


def _fish(found: list[Command]) -> dict[str, list[str]]:
    lines = [
        f'complete -c remote_runner -n __remote_runner_begins -a {command.name} -d {_fish_quoted(command.title)}'
        for command in found
    ]
    # An option that several commands have in the same form takes one line.
    users: dict[Option, list[str]] = {}
    for command in with_unnamed(found):
        for option in command.options:
            users.setdefault(option, []).append(command.name)
    lines += [_fish_option(option, names) for option, names in users.items()]
    lines += [
        line
        for command in found
        for number, operand in enumerate(command.completed)
        for line in _fish_operand(command, number, operand)
    ]
    valued = [
        f"'{command.name} {name}'"
        for command in with_unnamed(found)
        for option in command.options
        if option.value is not None
        for name in option.names
    ]
    return {'TABLES': lines, 'VALUED': [' '.join(valued)], 'NAMES': [' '.join(command.name for command in found)]}


def _fish_option(option: Option, users: Sequence[str]) -> str:
    names = ' '.join(f'-l {name[2:]}' if name.startswith('--') else f'-s {name[1:]}' for name in option.names)
    value = '' if option.value is None else f' -r {_fish_value(option.value)}'
    condition = _fish_quoted(f'__remote_runner_is {" ".join(users)}')
    return f'complete -c remote_runner -n {condition} {names}{value} -d {_fish_quoted(option.help)}'


def _fish_operand(command: Command, number: int, operand: Operand) -> Iterator[str]:
    def line(number: int, more: str, value: str) -> str:
        return f"complete -c remote_runner -n '__remote_runner_operand {command.name} {number}{more}' {value}"

    if operand.value.kind == 'command':
        yield line(number, '', _fish_value(operand.value))
        yield line(number + 1, ' +', '-F')
    else:
        yield line(number, ' +' if operand.value.many else '', _fish_value(operand.value))


def _fish_value(value: Value) -> str:
    return {
        '': '-f',
        'choice': f'-f -a {_fish_quoted(" ".join(value.choices))}',
        'command': "-f -a '(__fish_complete_command)'",
        'components': "-f -a '(__remote_runner_components)'",
        'file': '-F',
        'folder': "-f -a '(__fish_complete_directories (__remote_runner_typed))'",
        'hosts': "-f -a '(__remote_runner_hosts)'",
        'jobs': "-f -a '(__remote_runner_jobs)'",
        'python': "-f -a '(__remote_runner_python)'",
        'sessions': "-f -a '(__remote_runner_sessions)'",
    }[value.kind]


def _fish_quoted(text: str) -> str:
    return "'" + text.replace('\\', '\\\\').replace("'", "\\'") + "'"


_MAKERS = {'bash': _bash, 'zsh': _zsh, 'fish': _fish}
SHELLS = tuple(_MAKERS)
