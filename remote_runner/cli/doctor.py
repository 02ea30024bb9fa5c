"""`remote_runner doctor HOSTS`: whether hosts have what a deployment needs, and what to do where they have not."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from remote_runner.cli.options import (
    Parser,
    add_connection_options,
    add_hosts_argument,
    add_log_level,
    dial_hosts,
)

_DESCRIPTION = """\
Find out whether hosts have what a deployment needs, and say what to do where they have not.

    remote_runner doctor node[1-40]
    remote_runner doctor hosts.txt --verbose

Looked at are: connection, host key and login, sessions of sshd, python3, screen and its socket folder, .screenrc, free
space and inodes, noexec, home, folder for sockets, clock, open files, logout, start-up files, shared homes. What is
made on a host for that is removed again.
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = Parser(
        prog='remote_runner doctor',
        description=_DESCRIPTION,
        usage='%(prog)s HOSTS... [options]',
        epilog='exit status: 0 all well, or warnings only, 1 an error was found,\n'
        '3 a host could not be reached, trusted or authenticated',
    )
    add_hosts_argument(parser)
    parser.add_argument('-v', '--verbose', action='store_true', help='tell one by one what is well, too')
    parser.add_argument('--json', action='store_true', help='one JSON object a host and line, with findings and facts')
    add_log_level(parser)
    add_connection_options(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = make_parser().parse_args(arguments)
    addresses, connector = dial_hosts(options)
    # The rest is imported while the hosts answer.
    from remote_runner.deploy.doctor import diagnose
    from remote_runner.ui.doctor import doctor_text
    from remote_runner.ui.output import Output
    from remote_runner.ui.terminal import can_color

    with connector:
        diagnoses = diagnose(addresses, connector, options.fanout)
    if options.json:
        Output().write(''.join(f'{json.dumps(diagnosis.to_dict())}\n' for diagnosis in diagnoses))
    else:
        Output().write(doctor_text(diagnoses, verbose=options.verbose, color=can_color(sys.stdout)))
    return max(diagnosis.exit_status for diagnosis in diagnoses)
