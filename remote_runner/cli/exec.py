"""`remote_runner exec -H HOSTS -- COMMAND`: one command on many hosts."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from remote_runner.cli.main import show_error
from remote_runner.cli.options import Parser, add_connection_options, add_hosts_option, add_log_level, ssh_options
from remote_runner.errors import UsageError

if TYPE_CHECKING:
    from remote_runner.deploy.execute import Executed

_DESCRIPTION = """\
Run a command on many hosts, in the login shell of the user, as `ssh HOST COMMAND` would.

    remote_runner exec -H node[1-40] -- uptime
    remote_runner exec -H @hosts.txt --fold -- 'cat /etc/debian_version; uname -r'
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = Parser(
        prog='remote_runner exec',
        description=_DESCRIPTION,
        usage='%(prog)s -H HOSTS [options] -- COMMAND...',
        epilog='exit status: the highest one of the command, at least 3 if a host could not be reached',
    )
    parser.add_argument('command', nargs='+', metavar='COMMAND', help='the words are joined with spaces, as ssh does')
    add_hosts_option(parser)
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument('--fold', action='store_true', help='show equal output once, when all hosts have ended')
    shape.add_argument('--json', action='store_true', help='one JSON object a host and line')
    add_log_level(parser)
    add_connection_options(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = make_parser().parse_args(arguments)
    from remote_runner.hosts.address import parse_hosts
    from remote_runner.hosts.ahead import Ahead
    from remote_runner.ui.log import configure

    configure(options.log_level)
    addresses = parse_hosts(options.hosts, exclude=options.exclude)
    if not addresses:
        raise UsageError('no host is left', remedy='see --hosts and --exclude')
    connector = Ahead(ssh_options(options), addresses, options.fanout).connector()
    # The rest is imported while the hosts answer.
    from remote_runner.deploy.execute import Executed, execute

    printer = None if options.fold or options.json else _Prefixed()
    worst = 0
    done: list[Executed] = []
    with connector:
        command = ' '.join(options.command)
        for _, outcome in execute(addresses, command, connector, fanout=options.fanout, hear=printer):
            if not isinstance(outcome, Executed):
                show_error(outcome)
                worst = max(worst, outcome.exit_status)
                continue
            worst = max(worst, outcome.status)
            done.append(outcome)
            if printer is not None:
                printer.end(outcome)
            elif options.json:
                _print_json(outcome)
    if options.fold:
        order = {address.where: number for number, address in enumerate(addresses)}
        _print_folded(sorted(done, key=lambda outcome: order[outcome.host]))
    return worst


class _Prefixed:
    """Output as it comes, every line with its host in front."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rest: dict[tuple[str, str], list[bytes]] = defaultdict(list)

    def __call__(self, host: str, stream: str, data: bytes) -> None:
        """Some output of a host, on `out` or `err`."""
        rest = self._rest[host, stream]
        lines, newline, last = data.rpartition(b'\n')
        if newline:
            print_prefixed(host, stream, b''.join([*rest, lines]), self._lock)
            rest.clear()
        if last:
            rest.append(last)

    def end(self, outcome: Executed) -> None:
        """Print what stands without a newline at the end."""
        for stream in ('out', 'err'):
            rest = b''.join(self._rest.pop((outcome.host, stream), []))
            if rest:
                print_prefixed(outcome.host, stream, rest, self._lock)
        _print_status(outcome, self._lock)


def print_prefixed(host: str, stream: str, text: bytes, lock: threading.Lock) -> None:
    """Print lines with their host in front, on stdout or stderr."""
    target = sys.stdout if stream == 'out' else sys.stderr
    prefix = f'{host}: '.encode('utf-8', 'surrogateescape')
    with lock:
        target.flush()
        target.buffer.write(b''.join(prefix + line + b'\n' for line in text.split(b'\n')))
        target.flush()


def _print_status(outcome: Executed, lock: threading.Lock) -> None:
    if outcome.status:
        print_prefixed(outcome.host, 'err', f'exit status {outcome.status}'.encode(), lock)


def _print_json(outcome: Executed) -> None:
    fields = {
        'host': outcome.host,
        'status': outcome.status,
        'stdout': outcome.stdout.decode('utf-8', 'replace'),
        'stderr': outcome.stderr.decode('utf-8', 'replace'),
        'seconds': round(outcome.seconds, 3),
    }
    sys.stdout.write(json.dumps(fields) + '\n')
    sys.stdout.flush()


def _print_folded(done: list[Executed]) -> None:
    """Equal stdout once, under the folded names of its hosts, the largest group first; so stderr, and statuses."""
    from remote_runner.hosts.address import fold
    from remote_runner.ui.folded import print_folded

    lock = threading.Lock()
    outputs: dict[bytes, list[str]] = defaultdict(list)
    errors: dict[bytes, list[str]] = defaultdict(list)
    for outcome in done:
        outputs[outcome.stdout].append(outcome.host)
        if outcome.stderr:
            errors[outcome.stderr.rstrip(b'\n')].append(outcome.host)
    for outcome in done:
        if outcome.status:
            errors[f'exit status {outcome.status}'.encode()].append(outcome.host)
    for text, hosts in errors.items():
        print_prefixed(fold(hosts), 'err', text, lock)
    print_folded(outputs, fold)
