"""`remote_runner killall`: end processes of hosts, found by their command lines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from remote_runner.cli.find import make_parser_of, split, write_json
from remote_runner.cli.options import add_signal_option, dial_hosts, positive_seconds
from remote_runner.errors import UsageError

if TYPE_CHECKING:
    from remote_runner.deploy.pgrep import Found

#: Seconds that processes get to end.
PATIENCE = 5.0

_DESCRIPTION = """\
Show the processes of hosts whose command lines contain a text, ask once, and send them a signal: those of the user that
one is there, but for those of remote_runner itself. Which they are, `remote_runner find` shows.

    remote_runner killall simulator -H node[1-40]
    remote_runner killall 'python3 client.py' -H @hosts.txt --signal KILL --yes
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = make_parser_of(
        'killall',
        _DESCRIPTION,
        '0 all have ended, or got a signal that ends nothing, 1 there were none,\nnot confirmed, or some still run',
    )
    add_signal_option(parser)
    parser.add_argument(
        '--timeout',
        type=positive_seconds,
        default=PATIENCE,
        metavar='SECONDS',
        help=f'how long they get to end (default: {PATIENCE:g})',
    )
    parser.add_argument('-y', '--yes', action='store_true', help='send it without asking')
    what = 'write one JSON object a host and line to stdout, with what became of each'
    parser.add_argument('--json', action='store_true', help=what)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = make_parser().parse_intermixed_args(arguments)
    addresses, connector = dial_hosts(options)
    # The rest is imported while the hosts answer.
    from remote_runner.deploy.pgrep import Hunter
    from remote_runner.ui.output import Output
    from remote_runner.ui.pgrep import ended_line, processes_table
    from remote_runner.ui.terminal import can_color

    with connector, Hunter(connector, options.fanout) as hunter:
        found, failed = split(hunter.find(options.text, addresses))
        if not options.json:
            Output().write(processes_table(found, color=can_color(sys.stdout)))
        wanted = [each for each in found if each.processes]
        if wanted and not options.yes and not _confirmed(wanted, options):
            print('nothing was sent', file=sys.stderr)  # noqa: T201
            wanted = []
        done, failed_then = split(hunter.end(options.signal, options.timeout)) if wanted else ([], 0)
    if options.json:
        write_json({each.host: each for each in [*found, *done]}.values())
    else:
        Output().write(''.join(f'{ended_line(each)}\n' for each in done))
    outcomes = {process.outcome for each in done for process in each.processes}
    return max(failed, failed_then) or int(not done or not outcomes <= {'ended', 'gone', 'sent'})


def _confirmed(found: Sequence[Found], options: argparse.Namespace) -> bool:
    """Ask once for all; whom JSON on stdout tells nothing reads on stderr what it is about."""
    from remote_runner.ui.pgrep import processes_table, total
    from remote_runner.ui.terminal import can_color

    if not sys.stdin.isatty():
        raise UsageError('there is nobody to confirm what is to be ended', remedy='--yes ends it without asking')
    sys.stdout.flush()
    if options.json:
        sys.stderr.write(processes_table(found, color=can_color(sys.stderr)))
    sys.stderr.write(f'Send {options.signal} to {total(found)}? [yes/no] ')
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ('y', 'yes')
