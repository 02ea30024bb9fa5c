"""`remote_runner attach`: this terminal in the window of a component."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from remote_runner.cli.targets import make_parser as make_target_parser
from remote_runner.cli.targets import opened, parse, show_failures
from remote_runner.errors import SessionFailed, UsageError

_DESCRIPTION = """\
Put this terminal into the screen window of a component. Ctrl-a d leaves it, as does `~.` after Enter; what runs there
goes on. In the window all that screen can: Ctrl-a [ scrolls back, Ctrl-a " lists the other windows of its host.

    remote_runner attach broker
    remote_runner attach publisher@node7 --read-only
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = make_target_parser(
        'attach',
        _DESCRIPTION,
        'NAME [options]',
        '0 left, 1 there is no such window, 3 its host could not be reached',
        names=1,
        json='not possible here: what is shown is a terminal',
    )
    parser.add_argument('-r', '--read-only', action='store_true', help='send no keys; q, Ctrl-C or Ctrl-a d leave')
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = parse(make_parser(), arguments)
    from remote_runner.ui.attach import attach, size_of

    size_of(sys.stdin)
    if options.json:
        raise UsageError('--json has no meaning for attach')
    with opened(options) as session:
        found = session.named(options.names)
        if len(found) > 1:
            there = ', '.join(seen.label for seen in found[:10])
            raise UsageError(f'{options.names[0]!r} means {len(found)} components', remedy=f'one of {there}')
        status = show_failures(session, found)
        if status:
            return status
        [seen] = found
        servers = session.servers.get(seen.at, [])
        if seen.window is None or seen.window < 0 or not servers:
            what = 'it has no window: its session has ended' if not servers else 'it has no window'
            raise SessionFailed(what, host=seen.host, component=seen.name, remedy='`logs` shows its output')
        host = session.pool.hosts[seen.at]
        return attach(
            host, servers[0], session.session, seen.window, sys.stdin, sys.stdout, read_only=options.read_only
        )
