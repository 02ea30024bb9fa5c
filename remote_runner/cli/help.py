"""`remote_runner help [COMMAND]`: what `--help` shows, and with `--json` all commands and options as data."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from remote_runner.cli.main import COMMANDS
from remote_runner.cli.main import main as run_command
from remote_runner.cli.options import Parser

_DESCRIPTION = """\
Show what a command does and all its options, as `remote_runner COMMAND --help`; without COMMAND what there is.

    remote_runner help restart
    remote_runner help --json | jq -r '.[].name'
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = Parser(
        prog='remote_runner help',
        description=_DESCRIPTION,
        usage='%(prog)s [COMMAND] [options]',
        epilog='exit status: 0 it was shown, 2 there is no such command',
    )
    what = 'the command that is explained'
    parser.add_argument('command', nargs='?', choices=list(COMMANDS), metavar='COMMAND', help=what)
    parser.add_argument('--json', action='store_true', help='write commands and their options to stdout as JSON')
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = make_parser().parse_args(arguments)
    if not options.json:
        return run_command([options.command, '--help'] if options.command else ['--help'])
    import json

    from remote_runner.cli.shell.commands import commands, plain
    from remote_runner.ui.output import Output

    shown = [plain(command) for command in commands() if options.command in (None, command.name)]
    Output().write(f'{json.dumps(shown, indent=2)}\n')
    return 0
