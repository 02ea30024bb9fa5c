"""`remote_runner load`: the loads of hosts, and which of them is the best one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from remote_runner.cli.main import EXIT_INTERRUPTED
from remote_runner.cli.options import Parser, add_connection_options, add_log_level, seconds, ssh_options
from remote_runner.cli.wanted import add_wanted_options, wanted
from remote_runner.errors import UsageError

if TYPE_CHECKING:
    from remote_runner.placement.choose import Score
    from remote_runner.placement.loads import Loads
    from remote_runner.placement.member import HostState

_DESCRIPTION = """\
Show the loads of hosts, the best one first: load average of a minute, cores, free memory, used swap, users logged in,
running tasks of remote_runner, and the score by which hosts are chosen (lower is better).

    remote_runner load
    remote_runner load -H cluster --watch
    ssh "$(remote_runner load --best --min-memory 2G)"

The daemon (remote_runner dshd) is asked where there is one that has these hosts; else they are connected to, which
takes longer. Without -H the daemon's hosts are meant, else those of RR_CLUSTER or ~/.config/remote_runner/cluster: a
file with hosts, one or more a line, with weights if you like: `name [load weight [memory weight]]`.
"""
#: Seconds between two looks of `--watch`.
INTERVAL = 1.5
#: Seconds that hosts have to tell their loads, where there is no daemon.
PATIENCE = 60.0


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = Parser(
        prog='remote_runner load',
        description=_DESCRIPTION,
        usage='%(prog)s [-H CLUSTER] [--best] [options]',
        epilog='exit status: 0, 1 if no host will do, 3 if a host is lost (with --best: if all of them are)',
    )
    what = 'a FILE with one or more hosts a line, or hosts: [user@]name[:port], with commas, folded as node[1-40]'
    parser.add_argument('-H', '--host-file', dest='cluster', action='append', default=[], metavar='CLUSTER', help=what)
    what = 'write the name of the best host alone, which counts as a choice: it is a bit worse for a while'
    parser.add_argument('--best', action='store_true', help=what)
    what = 'with --best: where so many commands should run, one host a line; one that is much better comes repeatedly'
    parser.add_argument('--count', type=_count, default=None, metavar='N', help=what)
    parser.add_argument('--peek', action='store_true', help='with --best: it is no choice, only a question')
    parser.add_argument('-w', '--watch', action='store_true', help='look again and again, until Ctrl-C')
    parser.add_argument(
        '-n',
        '--interval',
        type=seconds,
        default=INTERVAL,
        metavar='SECONDS',
        help=f'time between two looks of --watch (default: {INTERVAL:g})',
    )
    what = 'write one JSON object to stdout; with --watch one a line and look'
    parser.add_argument('--json', action='store_true', help=what)
    what = 'a Python file with score(host) -> float, lower is better, in the place of our own'
    parser.add_argument('--evaluate', metavar='FILE', help=what)
    add_wanted_options(parser)
    add_log_level(parser)
    add_connection_options(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = make_parser().parse_args(arguments)
    _check(options)
    from remote_runner.placement.cluster import find
    from remote_runner.placement.loads import OwnLoads, find_daemon
    from remote_runner.ui.log import configure

    configure(options.log_level)
    rate = _rate(options)
    addresses = find(options.cluster).read() if options.cluster else None
    daemon = find_daemon(rate, addresses)
    if daemon is not None:
        return _tell(daemon, options)
    if addresses is None:
        addresses = find().read()
    from remote_runner.hosts.ahead import Ahead
    from remote_runner.placement.choose import score
    from remote_runner.placement.keeper import Cluster

    with (
        Ahead(ssh_options(options), addresses, options.fanout).connector() as connector,
        Cluster(connector, addresses, rate=rate or score, fanout=options.fanout) as cluster,
    ):
        cluster.start()
        cluster.wait_until_up(PATIENCE)
        return _tell(OwnLoads(cluster), options)


def _check(options: argparse.Namespace) -> None:
    if options.best and options.watch:
        raise UsageError('--best and --watch exclude each other', remedy='--watch shows the best one first')
    for name in ('peek', 'count'):
        if getattr(options, name) and not options.best:
            raise UsageError(f'--{name} belongs to --best')


def _rate(options: argparse.Namespace) -> Score | None:
    if options.evaluate is None:
        return None
    from remote_runner.placement.evaluate import read_score

    return read_score(options.evaluate)


def _tell(loads: Loads, options: argparse.Namespace) -> int:
    """Show what is to be shown; the exit status."""
    from remote_runner.placement.loads import by_score, will_do
    from remote_runner.ui.output import Output

    which = wanted(options)
    if options.best:
        names = loads.best(which, options.count or 1, options.peek)
        Output().write(json.dumps({'hosts': names}) + '\n' if options.json else ''.join(f'{name}\n' for name in names))
        return 0

    def look() -> list[HostState]:
        return by_score([state for state in loads.hosts() if will_do(state, which)])

    from remote_runner.ui.loads import as_json, loads_table, watch

    if options.watch:
        try:
            watch(look, options.interval, json_lines=options.json)
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
        return 0
    import sys

    from remote_runner.placement.member import UP
    from remote_runner.ui.terminal import can_color

    states = look()
    color = can_color(sys.stdout)
    Output().write(json.dumps(as_json(states)) + '\n' if options.json else loads_table(states, color=color))
    return 0 if all(state.state == UP for state in states) else 3


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number above 0')
    return int(text)
