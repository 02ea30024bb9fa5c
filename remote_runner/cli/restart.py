"""`remote_runner restart`: end components and start them again."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from remote_runner.cli.again import start_again
from remote_runner.cli.options import seconds
from remote_runner.cli.targets import make_parser as make_target_parser
from remote_runner.cli.targets import parse
from remote_runner.defaults import START_TIMEOUT

_DESCRIPTION = """\
End components, in the reverse order of their starts, and start them again as they were started: same arguments, same
environment, in their order, each start verified. Those that have ended are started, too. If sudo wants a password for
components of other users, it is asked for again. To bring changed files or arguments over, deploy again.

    remote_runner restart broker
    remote_runner restart '*@node7'
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = make_target_parser(
        'restart',
        _DESCRIPTION,
        'NAMES... [options]',
        '0 all have started, 1 one has not, 3 a host could not be reached',
        names='+',
        json='write events to stdout, one JSON object a line',
    )
    parser.add_argument(
        '--start-timeout',
        type=seconds,
        default=START_TIMEOUT,
        metavar='SECONDS',
        help=f'time limit of the start of one component (default: {START_TIMEOUT:g})',
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    return start_again(parse(make_parser(), arguments), end_first=True)
