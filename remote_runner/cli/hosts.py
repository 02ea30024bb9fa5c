"""`remote_runner hosts trust HOSTS`: the keys of many hosts, reviewed and accepted in one step."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from remote_runner.cli.main import show_error
from remote_runner.cli.options import (
    Parser,
    add_connection_options,
    add_hosts_argument,
    add_log_level,
    hosts_or_files,
    ssh_options,
)
from remote_runner.errors import RemoteRunnerError, UsageError

if TYPE_CHECKING:
    from remote_runner.hosts.address import Address
    from remote_runner.hosts.known_hosts import KnownHosts
    from remote_runner.hosts.ssh import Connector
    from remote_runner.hosts.trust import Collection, Offer

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
    parser.add_argument('--json', action='store_true', help='one JSON object a host and line, with its key')
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
        review = _Review(connector.known_hosts, as_json=options.json)
        try:
            return _trust(connector, addresses, options.fanout, options.yes, review)
        finally:
            review.end()


def _trust(connector: Connector, addresses: Sequence[Address], fanout: int, yes: bool, review: _Review) -> int:
    """Show, ask, add; again for hosts behind jump hosts that had to be trusted first."""
    from remote_runner.hosts.known_hosts import Verdict
    from remote_runner.hosts.trust import add, collect

    failed = False
    waiting: Sequence[Address] = addresses
    while waiting:
        found = collect(connector, waiting, fanout)
        review.show(found, is_asked=bool(found.new) and not yes)
        failed = failed or bool(found.failures)
        if found.new and not (yes or _confirmed(len(found.new))):
            print('nothing was added', file=sys.stderr)  # noqa: T201
            return 1
        for file in add(connector, found.new):
            print(f'added to {file}', file=sys.stderr)  # noqa: T201
        failed = failed or any(offer.verdict in (Verdict.CHANGED, Verdict.REVOKED) for offer in found.offers)
        waiting = found.waiting if found.new else ()
    return 3 if failed else 0


class _Review:
    """Shows keys to whoever is asked, and what could not be asked; with `--json` all of it as objects at the end."""

    def __init__(self, known_hosts: KnownHosts, *, as_json: bool) -> None:
        self._known_hosts = known_hosts
        self._as_json = as_json
        self._offers: dict[str, Offer] = {}
        self._failures: list[RemoteRunnerError] = []
        self._waiting: tuple[Address, ...] = ()

    def show(self, found: Collection, *, is_asked: bool) -> None:
        """Show what was found; JSON is for programs, so that who is asked reads of the keys on stderr."""
        for offer in found.offers:
            self._offers.setdefault(offer.target.known_as, offer)
            if is_asked or not self._as_json:
                via = f'  {offer.target.hostname}:{offer.target.port}'
                line = f'{offer.where:<24} {offer.verdict.value:<8} {offer.key}{via}'
                print(line, file=sys.stderr if self._as_json else sys.stdout)
        for failure in found.failures:
            show_error(failure)
        self._failures += found.failures
        self._waiting = found.waiting

    def end(self) -> None:
        """With `--json`: write an object a host."""
        if not self._as_json:
            return
        from remote_runner.ui.output import Output

        rows = [self._row(offer) for offer in self._offers.values()]
        rows += [{'host': failure.host, 'error': failure.what} for failure in self._failures]
        why = 'a jump host on the way to it is not trusted'
        rows += [{'host': address.where, 'error': why} for address in self._waiting]
        Output().write(''.join(f'{json.dumps(row)}\n' for row in rows))

    def _row(self, offer: Offer) -> dict[str, Any]:
        from remote_runner.hosts.known_hosts import Verdict

        # Asked of the files: where one could not be written, others may have been before.
        is_known = self._known_hosts.judge(offer.target, offer.key)[0] is Verdict.KNOWN
        is_added = offer.verdict is Verdict.NEW and is_known and offer.file is not None
        return {
            'host': offer.where,
            'hostname': offer.target.hostname,
            'port': offer.target.port,
            'type': offer.key.type,
            'fingerprint': offer.key.fingerprint,
            'verdict': offer.verdict.value,
            'added': is_added,
            'file': offer.file if is_added else None,
        }


def _confirmed(count: int) -> bool:
    """Ask once for all."""
    if not sys.stdin.isatty():
        raise UsageError('there is nobody to confirm the fingerprints', remedy='--yes adds them without asking')
    keys = 'this new key' if count == 1 else f'these {count} new keys'
    sys.stdout.flush()
    sys.stderr.write(f'Trust {keys} and add to known_hosts? [yes/no] ')
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ('y', 'yes')
