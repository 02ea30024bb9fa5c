"""`remote_runner find`: processes of hosts by their command lines."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from remote_runner.cli.main import show_error
from remote_runner.cli.options import Parser, add_connection_options, add_hosts_option, add_log_level, dial_hosts

if TYPE_CHECKING:
    from remote_runner.deploy.pgrep import Found
    from remote_runner.errors import RemoteRunnerError

_DESCRIPTION = """\
Show the processes of hosts whose command lines contain a text, as `pgrep -f` does with a pattern: those of the user
that one is there, but for those of remote_runner itself.

    remote_runner find simulator -H node[1-40]
    remote_runner find 'python3 client.py' -H @hosts.txt
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = make_parser_of('find', _DESCRIPTION, '0 there are some, 1 there are none')
    parser.add_argument('--json', action='store_true', help='write one JSON object a host and line to stdout')
    return parser


def make_parser_of(command: str, description: str, statuses: str) -> Parser:
    """A parser of what all that look for processes have in common."""
    parser = Parser(
        prog=f'remote_runner {command}',
        description=description,
        usage='%(prog)s STRING -H HOSTS [options]',
        epilog=f'exit status: {statuses}, 3 a host could not be reached, trusted or authenticated',
    )
    parser.add_argument('text', type=_text, metavar='STRING', help='what their command lines contain, to the letter')
    add_hosts_option(parser)
    add_log_level(parser)
    add_connection_options(parser)
    return parser


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError('every process would be meant')
    return text


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = make_parser().parse_intermixed_args(arguments)
    addresses, connector = dial_hosts(options)
    # The rest is imported while the hosts answer.
    from remote_runner.deploy.pgrep import Hunter
    from remote_runner.ui.output import Output
    from remote_runner.ui.pgrep import processes_table
    from remote_runner.ui.terminal import can_color

    with connector, Hunter(connector, options.fanout) as hunter:
        found, failed = split(hunter.find(options.text, addresses))
    if options.json:
        write_json(found)
    else:
        Output().write(processes_table(found, color=can_color(sys.stdout)))
    return failed or int(not any(each.processes for each in found))


def split(outcomes: Iterable[Found | RemoteRunnerError]) -> tuple[list[Found], int]:
    """What there is; errors are shown, the worst exit status of theirs is given back."""
    from remote_runner.deploy.pgrep import Found

    found: list[Found] = []
    status = 0
    for outcome in outcomes:
        if isinstance(outcome, Found):
            found.append(outcome)
        else:
            show_error(outcome)
            status = max(status, outcome.exit_status)
    return found, status


def write_json(found: Iterable[Found]) -> None:
    """A line a host."""
    from remote_runner.ui.output import Output

    Output().write(''.join(f'{json.dumps(each.to_dict())}\n' for each in found))


