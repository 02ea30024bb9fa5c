"""`remote_runner signal`: send a signal to components."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from remote_runner.cli.main import show_error
from remote_runner.cli.options import signal_name
from remote_runner.cli.targets import make_parser as make_target_parser
from remote_runner.cli.targets import opened, parse, show_failures
from remote_runner.errors import RemoteRunnerError, UsageError

if TYPE_CHECKING:
    from remote_runner.deploy.seen import Seen

_DESCRIPTION = """\
Send a signal to the process groups of components' programs, as their terminals would do it for a key.

    remote_runner signal USR1 'publisher*'
    remote_runner signal HUP
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    return make_target_parser(
        'signal',
        _DESCRIPTION,
        'SIGNAL [NAMES...] [options]',
        '0 all got it, 1 one did not, 3 a host could not be reached',
        first=lambda parser: parser.add_argument(
            'signal', type=signal_name, metavar='SIGNAL', help='`USR1`, `SIGUSR1` or a number'
        ),
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = parse(make_parser(), arguments)
    with opened(options) as session:
        from remote_runner.deploy.lifecycle import send_signal

        wanted = session.named(options.names)
        status = show_failures(session, wanted)
        # Without NAMES those are meant that run.
        meant = [seen for seen in wanted if seen.at or seen.state == 'missing'] if options.names else running(wanted)
        if not meant and not status:
            raise UsageError(f'nothing runs in session {session.session}')
        failed = send_signal(session, meant, options.signal)
        if options.json:
            sent = [seen.label for seen in meant if seen.label not in failed]
            sys.stdout.write(json.dumps({'signal': options.signal, 'sent': sent, 'failed': failed}) + '\n')
        for label, why in failed.items():
            show_error(RemoteRunnerError(f'{label}: {why}'))
        return 1 if failed else status


def running(components: Sequence[Seen]) -> list[Seen]:
    """Those whose programs run at this moment."""
    return [seen for seen in components if seen.is_alive and seen.state != 'restarting']
