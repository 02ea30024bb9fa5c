"""`remote_runner wait`: wait until components have ended, or are ready."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from remote_runner.cli.options import seconds
from remote_runner.cli.targets import ChangeShown, opened, parse, show_failures
from remote_runner.cli.targets import make_parser as make_target_parser

_DESCRIPTION = """\
Wait until components have ended, or are ready. Connections that break are made again, for as long as it takes or
--timeout says.

    remote_runner wait 'client*' && remote_runner stop
    remote_runner wait --for ready --timeout 60
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = make_target_parser(
        'wait',
        _DESCRIPTION,
        '[NAMES...] [options]',
        '0 all have ended with success, or are ready; 1 one failed; 3 a host could not be reached; 124 the time is up',
        json='write events to stdout, one JSON object a line',
    )
    parser.add_argument(
        '--for', dest='what', choices=('exit', 'ready'), default='exit', help='what to wait for (default: exit)'
    )
    parser.add_argument('--timeout', type=seconds, metavar='SECONDS', help='wait no longer, all connecting included')
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = parse(make_parser(), arguments)
    begun = time.monotonic()
    deadline = None if options.timeout is None else begun + options.timeout
    with ChangeShown('wait', options) as shown, opened(options, deadline=deadline) as session:
        from remote_runner.deploy.lifecycle import wait

        wanted = session.named(options.names)
        shown.hear(session, wanted)
        shown.exit_status = show_failures(session, wanted)
        if not shown.exit_status:
            wait(session, wanted, options.what, options.timeout, begun)
    return shown.exit_status
