"""The man page remote_runner(1), made from the parsers of all commands. See man(7) for the language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from remote_runner import __version__
from remote_runner.cli.shell.commands import Command, Group, Option, commands

_ENVIRONMENT = {
    'RR_PASS_FILE': 'A file whose first line is the password for hosts and encrypted keys.',
    'RR_SUDO_PASS_FILE': 'The same for what sudo asks for, where components run as other users.',
    'RR_DSHD_SOCKET': 'Where the daemon of `dshd` listens, and where it is looked for.',
    'RR_CLUSTER': 'The hosts among which `load`, `dsh` and `dshd` choose, or a file with them.',
    'SSH_AUTH_SOCK': 'The socket of ssh-agent, as for ssh itself.',
    'NO_COLOR': 'The table of a run is not coloured.',
    'TMPDIR': 'On a host: where fresh temporary directories of components are made, instead of `/tmp`.',
    'XDG_CACHE_HOME': 'On a host: instead of `~/.cache`.',
    'XDG_STATE_HOME': 'Here and on a host: instead of `~/.local/state`.',
}
_FILES = {
    '~/.ssh/config, /etc/ssh/ssh_config': 'How hosts are reached, see ssh_config(5).',
    '~/.ssh/known_hosts, /etc/ssh/ssh_known_hosts': 'The keys of hosts. New ones that you agreed to go to the first.',
    '~/.config/remote_runner/cluster': 'The same, where that is not set; one or more hosts a line, with weights.',
    '~/.local/state/remote_runner/runs/SESSION/RUN/': 'What is known here of a run; completion takes names from it.',
    '~/.local/state/remote_runner/jobs/ID/': 'The journal of a job, and its results.',
    '~/.local/state/remote_runner/dshd/HOSTNAME.log': 'The log of the daemon of `dshd`, where it is in the background.',
    '~/.local/state/remote_runner/hosts/HOSTNAME/SESSION/RUN/': 'On a host: what components were started with, their '
    'state and output.',
    '~/.cache/remote_runner/': 'On a host: the agent, compiled.',
    '$XDG_RUNTIME_DIR/remote_runner/, /tmp/remote_runner-UID/': 'Here that of the daemon, on a host others: '
    'sockets and locks, in the second if possible.',
}
_SEE_ALSO = ('screen(1)', 'ssh(1)', 'ssh-agent(1)', 'ssh_config(5)', 'sshd(8)')
_EXIT_STATUS = 'exit status: '
_SPECIAL = {
    '\\': r'\e',
    '-': r'\-',
    "'": r'\(aq',
    '^': r'\(ha',
    '~': r'\(ti',
    '"': r'\(dq',
}


def page() -> str:
    """The man page as roff source."""
    found = commands()
    return '\n'.join(_lines(found)) + '\n'


def _lines(found: list[Command]) -> Iterator[str]:
    default = found[0]
    yield f'.TH REMOTE_RUNNER 1 "" "remote_runner {__version__}" "User Commands"'
    yield from ('.nh', '.ad l')  # options are not to be hyphenated
    yield '.SH NAME'
    yield r'remote_runner \- deploy and run multi\-process systems over many Linux hosts through plain SSH'
    yield '.SH SYNOPSIS'
    yield from _verbatim(line.strip() for command in found for line in command.usage.split('\n'))
    yield '.SH DESCRIPTION'
    yield from _prose(_apart(default.description)[0])
    yield '.SH COMMANDS'
    seen: dict[Group, Command] = {}
    for command in found:
        yield from _command(command, seen, [command.title] if command is default else _apart(command.description)[0])
    yield '.SH EXIT STATUS'
    for command in found:
        for paragraph in _paragraphs(command.epilog):
            if paragraph.startswith(_EXIT_STATUS):
                yield from _entry(_bold(_label(command)), paragraph.removeprefix(_EXIT_STATUS))
    yield '.SH ENVIRONMENT'
    for name, meaning in _ENVIRONMENT.items():
        yield from _entry(_bold(name), meaning)
    yield '.SH FILES'
    for name, meaning in _FILES.items():
        yield from _entry(_italic(name), meaning)
    yield '.SH EXAMPLES'
    for command in found:
        for paragraph in _apart(command.description)[1]:
            yield from _verbatim(line.strip() for line in paragraph.split('\n'))
    yield '.SH SEE ALSO'
    yield ',\n'.join(_bold(name[:-3]) + name[-3:] for name in _SEE_ALSO)


def _label(command: Command) -> str:
    return f'remote_runner {command.name}'


def _command(command: Command, seen: dict[Group, Command], description: Iterable[str]) -> Iterator[str]:
    """A command. Groups of options that an earlier one (in `seen`) has too are explained there."""
    yield f'.SS {_text(_label(command))}'
    yield from _prose(description)
    for operand in command.operands:
        yield from _entry(_italic(operand.value.metavar + ('...' if operand.value.many else '')), operand.help)
    if command.groups and all(group in seen for group in command.groups):
        yield '.PP'
        yield _text(f'Its options are those of `{_label(seen[command.groups[0]])}`.')
        return
    for group in command.groups:
        if group in seen and group.title:
            yield '.PP'
            yield _text(f'{_heading(group)}: the options of that name of `{_label(seen[group])}`.')
            continue
        seen[group] = command
        yield from _group(group)


def _heading(group: Group) -> str:
    return f'{group.title[0].upper()}{group.title[1:]}'


def _group(group: Group) -> Iterator[str]:
    if group.title:
        yield '.PP'
        yield _text(f'{_heading(group)}. {group.description}' if group.description else f'{_heading(group)}:')
    for option in group.options:
        yield from _entry(_names(option), option.help)


def _names(option: Option) -> str:
    value = f' {_italic(option.value.metavar)}' if option.value else ''
    return ', '.join(_bold(name) for name in option.names) + value


def _paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a help text. Those of examples keep their lines, each with four spaces in front."""
    for paragraph in text.strip('\n').split('\n\n'):
        lines = paragraph.split('\n')
        yield paragraph if lines[0].startswith('    ') else ' '.join(line.strip() for line in lines)


def _apart(text: str) -> tuple[list[str], list[str]]:
    """The paragraphs of a description, and its examples but for those that a paragraph speaks of (it ends with `:`)."""
    kept: list[str] = []
    examples: list[str] = []
    for paragraph in _paragraphs(text):
        is_apart = paragraph.startswith('    ') and not (kept and kept[-1].endswith(':'))
        (examples if is_apart else kept).append(paragraph)
    return kept, examples


def _prose(paragraphs: Iterable[str]) -> Iterator[str]:
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield '.PP'
        if paragraph.startswith('    '):
            yield from _verbatim(paragraph.split('\n'))
        else:
            yield _text(paragraph)


def _entry(term: str, meaning: str) -> Iterator[str]:
    yield '.TP'
    yield term
    yield _text(meaning)


def _verbatim(lines: Iterable[str]) -> Iterator[str]:
    yield '.nf'
    yield from (_text(line) for line in lines)
    yield '.fi'


def _text(text: str) -> str:
    """Text as it is, but for what stands between backticks, which is bold."""
    pieces = text.split('`')
    pieces[::2] = map(_escaped, pieces[::2])
    pieces[1::2] = map(_bold, pieces[1::2])
    line = ''.join(pieces)
    return rf'\&{line}' if line.startswith('.') else line


def _bold(text: str) -> str:
    return rf'\fB{_escaped(text)}\fR'


def _italic(text: str) -> str:
    return rf'\fI{_escaped(text)}\fR'


def _escaped(text: str) -> str:
    return ''.join(_SPECIAL.get(letter, letter if letter.isascii() else f'\\[u{ord(letter):04X}]') for letter in text)
