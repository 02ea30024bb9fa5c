"""`remote_runner run NAMES`: start components again that have ended."""

from __future__ import annotations

import argparse

from remote_runner.cli.options import sudo_credentials
from remote_runner.cli.targets import ChangeShown, opened
from remote_runner.errors import UsageError


def run_again(options: argparse.Namespace) -> int:
    """Start those that `options.names` mean as they were started before; the exit status."""
    options.hosts = []
    with opened(options) as session:
        session.require_all()
        from remote_runner.deploy.lifecycle import allow, start_again
        from remote_runner.ui.text import count

        wanted = session.named(options.names)
        never = [seen.label for seen in wanted if not seen.facts]
        if never:
            raise UsageError(f'their hosts know nothing of {", ".join(never)}', remedy='-c CONFIG deploys them')
        allow(session, wanted, sudo_credentials())
        with ChangeShown(session, as_json=options.json) as shown:
            started = start_again(session, wanted, options.start_timeout)
            shown.say(f'{count(len(started), "component")} started')
    return 0
