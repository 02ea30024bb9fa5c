"""`remote_runner stop`: end components."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from remote_runner.cli.main import show_error
from remote_runner.cli.targets import ChangeShown, opened, parse, show_failures
from remote_runner.cli.targets import make_parser as make_target_parser
from remote_runner.errors import RemoteRunnerError

if TYPE_CHECKING:
    from remote_runner.deploy.target import Target

_DESCRIPTION = """\
End components, in the reverse order of their starts, each with all its descendants. Without NAMES the whole session
ends, with its windows; output stays: `remote_runner logs` shows it.

    remote_runner stop
    remote_runner stop 'publisher*'
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    return make_target_parser(
        'stop',
        _DESCRIPTION,
        '[NAMES...] [options]',
        '0 nothing of them is left, 1 something could not be ended, 3 a host could not be reached',
        json='write events to stdout, one JSON object a line',
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = parse(make_parser(), arguments)
    with ChangeShown('stop', options) as shown, opened(options) as session:
        from remote_runner.deploy.board import State
        from remote_runner.deploy.lifecycle import stop
        from remote_runner.ui.text import count

        wanted = session.named(options.names)
        shown.hear(session, [seen for seen in wanted if seen.state == 'unknown'])
        stopped = stop(session, wanted, quit_sessions=not options.names)
        left = [tracked for tracked in stopped if tracked.state is State.UNKNOWN]
        shown.say(f'{count(len(stopped) - len(left), "component")} stopped')
        for tracked in left:
            show_error(RemoteRunnerError(tracked.reason, host=tracked.plan.host, component=tracked.plan.name))
        shown.exit_status = 1 if left else show_failures(session, wanted)
        if not shown.exit_status and not options.names:
            _note_end(session.target)
    return shown.exit_status


def _note_end(target: Target) -> None:
    """In the record of the run, if that is what was stopped."""
    from remote_runner.deploy.record import records

    for record in records(target.session):
        if target.runs is not None and record.run in target.runs:
            record.note_stop()
