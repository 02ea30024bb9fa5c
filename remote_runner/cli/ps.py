"""`remote_runner ps`: all sessions of hosts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from remote_runner.cli.main import show_error
from remote_runner.cli.options import (
    Parser,
    add_connection_options,
    add_hosts_argument,
    add_log_level,
    dial_hosts,
)

_DESCRIPTION = """\
Show all sessions of hosts and their components, whoever began them and from wherever, as far as they belong to the user
that one is there.

    remote_runner ps node[1-40]
    remote_runner ps hosts.txt --all
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = Parser(
        prog='remote_runner ps',
        description=_DESCRIPTION,
        usage='%(prog)s HOSTS... [options]',
        epilog='exit status: 0, or 3 if a host could not be reached',
    )
    add_hosts_argument(parser)
    parser.add_argument('-a', '--all', action='store_true', help='what has ended, too')
    parser.add_argument('--json', action='store_true', help='write one JSON object a host and line to stdout')
    add_log_level(parser)
    add_connection_options(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = make_parser().parse_intermixed_args(arguments)
    addresses, connector = dial_hosts(options)
    # The rest is imported while the hosts answer.
    from remote_runner.deploy.sessions import Found, find_sessions
    from remote_runner.ui.output import Output
    from remote_runner.ui.status import sessions_table
    from remote_runner.ui.terminal import can_color

    status = 0
    found: list[Found] = []
    with connector:
        for outcome in find_sessions(addresses, connector, options.fanout, everything=options.all):
            if not isinstance(outcome, Found):
                show_error(outcome)
                status = outcome.exit_status
            elif options.json:
                Output().write(json.dumps(outcome.to_dict()) + '\n')
            else:
                found.append(outcome)
    if not options.json:
        Output().write(sessions_table(found, color=can_color(sys.stdout)))
    return status
