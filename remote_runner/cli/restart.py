"""`remote_runner restart`: end components and start them again."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from remote_runner.cli.options import seconds, sudo_credentials
from remote_runner.cli.targets import ChangeShown, opened, parse
from remote_runner.cli.targets import make_parser as make_target_parser
from remote_runner.defaults import START_TIMEOUT
from remote_runner.errors import UsageError

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
    options = parse(make_parser(), arguments)
    with opened(options) as session:
        session.require_all()
        from remote_runner.deploy.lifecycle import allow, start_again, stop
        from remote_runner.ui.text import count

        wanted = session.named(options.names)
        never = [seen.label for seen in wanted if not seen.facts]
        if never:
            raise UsageError(f'their hosts know nothing of {", ".join(never)}', remedy='deploy them: remote_runner -c')
        allow(session, wanted, sudo_credentials())
        with ChangeShown(session, as_json=options.json) as shown:
            stop(session, wanted, quit_sessions=False)
            session.look()
            labels = {seen.label for seen in wanted}
            again = [seen for seen in session.components if seen.label in labels]
            started = start_again(session, again, options.start_timeout)
            shown.say(f'{count(len(started), "component")} started again')
    return 0
