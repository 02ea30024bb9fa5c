"""`remote_runner run NAMES` and `restart`: start components as they were started before."""

from __future__ import annotations

import argparse

from remote_runner.cli.options import sudo_credentials
from remote_runner.cli.targets import ChangeShown, opened
from remote_runner.errors import UsageError


def start_again(options: argparse.Namespace, *, end_first: bool) -> int:
    """Start those that `options.names` mean as they were started before; the exit status.

    Args:
        options: those of a command on a session, with `start_timeout`.
        end_first: whether those that run are ended; else that is wrong usage.
    """
    command = 'restart' if end_first else 'run'
    with ChangeShown(command, options) as shown, opened(options) as session:
        session.require_all()
        from remote_runner.deploy import lifecycle
        from remote_runner.ui.text import count

        wanted = session.named(options.names)
        never = [seen.label for seen in wanted if not seen.facts]
        if never:
            raise UsageError(f'their hosts know nothing of {", ".join(never)}', remedy='-c CONFIG deploys them')
        lifecycle.allow(session, wanted, sudo_credentials())
        shown.hear(session)
        if end_first:
            lifecycle.stop(session, wanted, quit_sessions=False)
            session.look()
            labels = {seen.label for seen in wanted}
            wanted = [seen for seen in session.components if seen.label in labels]
        started = lifecycle.start_again(session, wanted, options.start_timeout)
        shown.say(f'{count(len(started), "component")} started{" again" if end_first else ""}')
    return 0
