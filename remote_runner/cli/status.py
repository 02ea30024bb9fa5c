"""`remote_runner status`: how the components of a session are."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from remote_runner.cli.main import EXIT_INTERRUPTED, show_error
from remote_runner.cli.options import add_watch_options
from remote_runner.cli.targets import make_parser as make_target_parser
from remote_runner.cli.targets import opened, parse

if TYPE_CHECKING:
    from remote_runner.deploy.seen import Seen
    from remote_runner.deploy.session import Session

_DESCRIPTION = """\
Show how the components of a session are: state, readiness, pid, time, restarts, processor time and memory of all their
processes, and what they say of themselves. A host that cannot be reached is shown as unknown, not as gone.

    remote_runner status
    remote_runner status 'publisher*' '*@node7'
    remote_runner status --watch
    remote_runner status --json | jq '.components[] | select(.state == "failed")'
"""
#: Seconds between two looks of `--watch`.
INTERVAL = 2.0


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = make_target_parser(
        'status',
        _DESCRIPTION,
        '[NAMES...] [options]',
        '0 all is well, 1 something failed, is gone or is missing, 3 a host could not be reached',
        json='write one JSON object to stdout; with --watch one a line and look',
    )
    add_watch_options(parser, INTERVAL)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = parse(make_parser(), arguments)
    with opened(options) as session:
        if options.watch:
            from remote_runner.ui.watch import watch

            try:
                watch(session, options.names, options.interval, json_lines=options.json)
            except KeyboardInterrupt:
                return EXIT_INTERRUPTED
            return 0
        shown = session.named(options.names)
        if options.json:
            from remote_runner.ui.output import Output
            from remote_runner.ui.status import as_json

            Output().write(json.dumps(as_json(session, shown)) + '\n')
        else:
            _show(session, shown)
        return exit_status(session, shown)


def _show(session: Session, shown: Sequence[Seen]) -> None:
    import sys

    from remote_runner.ui.output import Output
    from remote_runner.ui.status import status_table
    from remote_runner.ui.terminal import can_color

    Output().write(status_table(shown, session.session, color=can_color(sys.stdout)))
    for error in session.failures.values():
        show_error(error)


def exit_status(session: Session, shown: Sequence[Seen]) -> int:
    """0 well, 1 something is wrong, 3 a host is out of reach."""
    if any(seen.is_wrong and seen.state != 'unknown' for seen in shown):
        return 1
    return 3 if session.failures else int(any(seen.state == 'missing' for seen in shown))
