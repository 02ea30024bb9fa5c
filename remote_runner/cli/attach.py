"""`remote_runner attach`: this terminal in the window of a component."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from remote_runner.cli.options import ssh_record
from remote_runner.cli.targets import make_parser as make_target_parser
from remote_runner.cli.targets import opened, parse, show_failures
from remote_runner.errors import SessionFailed, UsageError

if TYPE_CHECKING:
    from remote_runner.deploy.seen import Seen

_DESCRIPTION = """\
Put this terminal into the screen window of a component. Ctrl-a d leaves it, as does `~.` after Enter; what runs there
goes on. In the window all that screen can: Ctrl-a [ scrolls back, Ctrl-a " lists the other windows of its host.

    remote_runner attach broker
    remote_runner attach publisher@node7 --read-only
    remote_runner attach broker --json | jq -r '.command | @sh'     what shows it, for another terminal
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = make_target_parser(
        'attach',
        _DESCRIPTION,
        'NAME [options]',
        '0 left, 1 there is no such window, 3 its host could not be reached',
        names=1,
        json='attach to nothing, and write to stdout where the window is, and the command that shows it',
    )
    parser.add_argument('-r', '--read-only', action='store_true', help='send no keys; q, Ctrl-C or Ctrl-a d leave')
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = parse(make_parser(), arguments)
    from remote_runner.ui.attach import attach, size_of

    if not options.json:
        size_of(sys.stdin)
    elif options.read_only:
        raise UsageError('--read-only and --json exclude each other', remedy='the command that --json shows sends keys')
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
        if options.json:
            from remote_runner.ui.output import Output

            where = _where(seen, servers[0], session.session, seen.window, ssh_record(options))
            Output().write(f'{json.dumps(where)}\n')
            return 0
        host = session.pool.hosts[seen.at]
        return attach(
            host, servers[0], session.session, seen.window, sys.stdin, sys.stdout, read_only=options.read_only
        )


def _where(seen: Seen, server: int, session: str, window: int, ssh: Mapping[str, str]) -> dict[str, Any]:
    """For JSON: where the window of a component is, and what shows it.

    Args:
        server, session, window: see `screen_command`.
        ssh: how hosts are reached, see `ssh_record`.
    """
    from remote_runner.hosts.address import parse_address
    from remote_runner.hosts.screen import screen_command, terminal_argv

    return {
        'component': seen.name,
        'host': seen.host,
        'session': session,
        'server': f'{server}.{session}',
        'window': window,
        'command': terminal_argv(parse_address(seen.at), screen_command(server, session, window), ssh),
    }
