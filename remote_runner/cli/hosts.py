"""`remote_runner hosts trust HOSTS`: the keys of many hosts, reviewed and accepted in one step."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from remote_runner.cli.main import show_error
from remote_runner.cli.options import (
    Parser,
    add_connection_options,
    add_hosts_argument,
    add_log_level,
    hosts_or_files,
    ssh_options,
)
from remote_runner.errors import UsageError

if TYPE_CHECKING:
    from remote_runner.hosts.address import Address
    from remote_runner.hosts.ssh import Connector
    from remote_runner.hosts.trust import Offer

_DESCRIPTION = """\
Show the keys of hosts with their fingerprints, ask once, and add the new ones to known_hosts, as ssh would.

    remote_runner hosts trust node[1-40]
    remote_runner hosts trust hosts.txt --yes     (only where nobody can stand between you and them)

Compare the fingerprints with what the hosts themselves say: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = Parser(
        prog='remote_runner hosts',
        description=_DESCRIPTION,
        usage='%(prog)s trust HOSTS... [options]',
        epilog='exit status: 0 all are trusted now, 1 not confirmed, 3 a host was out of reach or shows a changed key',
    )
    parser.add_argument('action', choices=['trust'], metavar='trust', help='fetch, show and add keys')
    add_hosts_argument(parser)
    parser.add_argument('-y', '--yes', action='store_true', help='add without asking')
    add_log_level(parser)
    add_connection_options(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = make_parser().parse_args(arguments)
    from remote_runner.hosts.address import parse_hosts
    from remote_runner.hosts.ssh import Connector
    from remote_runner.ui.log import configure

    configure(options.log_level)
    addresses = parse_hosts(hosts_or_files(options.hosts), exclude=options.exclude)
    with Connector(ssh_options(options)) as connector:
        return _trust(connector, addresses, options.fanout, options.yes)


def _trust(connector: Connector, addresses: Sequence[Address], fanout: int, yes: bool) -> int:
    """Show, ask, add; again for hosts behind jump hosts that had to be trusted first."""
    from remote_runner.hosts.known_hosts import Verdict
    from remote_runner.hosts.trust import add, collect

    failed = False
    waiting: Sequence[Address] = addresses
    while waiting:
        found = collect(connector, waiting, fanout)
        for offer in found.offers:
            _show(offer)
        for failure in found.failures:
            show_error(failure)
            failed = True
        if found.new and not (yes or _confirmed(len(found.new))):
            print('nothing was added', file=sys.stderr)  # noqa: T201
            return 1
        for file in add(connector, found.new):
            print(f'added to {file}', file=sys.stderr)  # noqa: T201
        failed = failed or any(offer.verdict in (Verdict.CHANGED, Verdict.REVOKED) for offer in found.offers)
        waiting = found.waiting if found.new else ()
    return 3 if failed else 0


def _show(offer: Offer) -> None:
    via = f'  {offer.target.hostname}:{offer.target.port}'
    print(f'{offer.where:<24} {offer.verdict.value:<8} {offer.key}{via}')  # noqa: T201


def _confirmed(count: int) -> bool:
    """Ask once for all."""
    if not sys.stdin.isatty():
        raise UsageError('there is nobody to confirm the fingerprints', remedy='--yes adds them without asking')
    keys = 'this new key' if count == 1 else f'these {count} new keys'
    sys.stdout.flush()
    sys.stderr.write(f'Trust {keys} and add to known_hosts? [yes/no] ')
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ('y', 'yes')
