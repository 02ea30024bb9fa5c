"""`remote_runner dshd`: the daemon that keeps hosts connected and knows their loads, for `load`, `dsh` and scripts."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_runner.cli.options import Parser, add_connection_options, add_log_level, ssh_options
from remote_runner.cli.wanted import add_cluster_option, add_evaluate_option, rate_of
from remote_runner.errors import NoDaemon, UsageError

if TYPE_CHECKING:
    from remote_runner.placement.background import Child
    from remote_runner.placement.choose import Score
    from remote_runner.placement.cluster import ClusterFile
    from remote_runner.placement.keeper import Cluster
    from remote_runner.placement.server import Server

log = logging.getLogger('remote_runner')

_DESCRIPTION = """\
Keep one connection to each host of a cluster and know their loads, so that `remote_runner dsh` and `remote_runner load`
answer at once. There is one daemon a user and machine; it needs no privileges. A host that is out of reach is tried
again and again; the cluster file is read again when it changes, and on SIGHUP.

    remote_runner dshd -H cluster                   in the foreground, until Ctrl-C
    remote_runner dshd -H cluster --background      prints its pid once each host has answered or failed
    remote_runner dshd -f cluster -b -t 8181 -r 8282
    nc localhost 8181                               all hosts with their loads, the best one first
    ssh "$(nc localhost 8282)"                      the best host
    remote_runner dshd --status
    remote_runner dshd --stop

Without -H the hosts are those of RR_CLUSTER or ~/.config/remote_runner/cluster: a file with hosts, one or more a line,
with weights if you like: `name [load weight [memory weight]]`.
"""
LOOPBACK = '127.0.0.1'


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = Parser(
        prog='remote_runner dshd',
        description=_DESCRIPTION,
        usage='%(prog)s [-H CLUSTER] [options]\n       %(prog)s --status|--stop [--json]',
        epilog='exit status: 0 it was stopped (-b: it runs now; --status: it runs), 1 one runs already, or none where\n'
        'there should be one, 2 wrong usage or cluster file',
    )
    add_cluster_option(parser, '-f')
    parser.add_argument('-x', '--exclude', action='append', default=[], metavar='HOSTS', help='leave these out')
    what = 'go on in the background: print the pid and end once each host has answered or failed'
    parser.add_argument('-b', '--background', action='store_true', help=what)
    what = 'print the pid once each host has answered or failed, also in the foreground'
    parser.add_argument('-p', '--pid', action='store_true', help=what)
    add_evaluate_option(parser)
    what = 'tell of the daemon that runs, and of its hosts'
    parser.add_argument('--status', action='store_true', help=what)
    what = 'end the daemon that runs, and the commands that it has under way'
    parser.add_argument('--stop', action='store_true', help=what)
    what = 'write one JSON object to stdout: once it is set up the pid and more; also with --status, --stop'
    parser.add_argument('--json', action='store_true', help=what)
    ports = parser.add_argument_group('text for scripts', 'Whoever can connect there may read; see also --listen.')
    what = 'a TCP port that gives a line for each host, the best one first'
    ports.add_argument('-t', '--list-port', type=_port, metavar='PORT', help=what)
    what = 'a TCP port that gives the name of the best host, which counts as a choice: it is a bit worse for a while'
    ports.add_argument('-r', '--best-port', type=_port, metavar='PORT', help=what)
    what = 'asking the port of -r is no choice, only a question'
    ports.add_argument('--peek', action='store_true', help=what)
    what = f'the address of these ports (default: {LOOPBACK}, this machine alone)'
    ports.add_argument('--listen', default=LOOPBACK, metavar='ADDRESS', help=what)
    add_log_level(parser)
    add_connection_options(parser, password=('--pass',))
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number from 0 (any port that is free) to 65535')
    return int(text)


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = make_parser().parse_args(arguments)
    _check(options)
    from remote_runner.ui.log import configure

    configure(options.log_level)
    if options.status:
        return _status(options)
    if options.stop:
        return _stop(options)
    from remote_runner.placement.cluster import find

    file = find(options.cluster, options.exclude)
    file.read()
    rate = rate_of(options)
    if not options.background:
        return _serve(options, file, rate, None)
    from remote_runner.placement.background import Child, fork
    from remote_runner.ui.output import Output

    forked = fork()
    if isinstance(forked, Child):
        return _serve(options, file, rate, forked)
    status, said = forked
    Output().write(said)
    return status


def _check(options: argparse.Namespace) -> None:
    if options.status and options.stop:
        raise UsageError('--status and --stop exclude each other')
    if options.peek and options.best_port is None:
        raise UsageError('--peek belongs to --best-port')
    if options.listen != LOOPBACK and options.best_port is None and options.list_port is None:
        raise UsageError('--listen belongs to --list-port and --best-port')
    if (options.status or options.stop) and (options.cluster or options.background):
        raise UsageError('the daemon that runs has its hosts', remedy='give --status or --stop alone')


def _serve(options: argparse.Namespace, file: ClusterFile, rate: Score | None, child: Child | None) -> int:
    """Be the daemon; the exit status."""
    from remote_runner.placement.seat import Seat
    from remote_runner.placement.wire import socket_path

    with ExitStack() as stack:
        seat = stack.enter_context(Seat(socket_path()))
        if options.ssh_config is not None:
            options.ssh_config = str(Path(options.ssh_config).absolute())
        from remote_runner.hosts.ahead import Ahead

        addresses = file.read()
        connector = stack.enter_context(Ahead(ssh_options(options), addresses, options.fanout).connector())
        from remote_runner.placement import background
        from remote_runner.placement.choose import score
        from remote_runner.placement.daemon import Daemon
        from remote_runner.placement.keeper import Cluster
        from remote_runner.placement.server import Server
        from remote_runner.ui.loads import summary
        from remote_runner.ui.output import Output

        about: dict[str, Any] = {'socket': str(seat.path), 'cluster': file.where, 'log': None}
        if child is not None:
            about['log'] = str(background.log_path())
        cluster = stack.enter_context(Cluster(connector, addresses, rate=rate or score, fanout=options.fanout))
        server = stack.enter_context(Server(cluster, lambda: about))
        about['ports'] = _offer_ports(options, cluster, server)

        def be_ready() -> bool:
            told = server.about()
            said = f'{json.dumps(told) if options.json else os.getpid()}\n'
            if child is not None:
                child.detach(said, Path(about['log']))
            elif options.json or options.pid:
                Output().write(said)
            background.notify('READY=1')
            log.info('the daemon is ready, with the pid %d; %s', os.getpid(), summary(cluster.states()))
            return child is not None

        daemon = Daemon(file, cluster, server, be_ready)
        _set_signals(server.stop, daemon.reread)

        def keep_open() -> bool:
            listening = seat.keep()
            if listening is not None:
                server.listen(listening)
            return listening is not None

        daemon.run(lambda: server.listen(seat.listen()), keep_open)
        seat.leave()
        background.notify('STOPPING=1')
        log.info('the daemon was stopped')
    return 0


def _offer_ports(options: argparse.Namespace, cluster: Cluster, server: Server) -> dict[str, Any]:
    """The ports that are wanted; where they are."""
    if options.list_port is None and options.best_port is None:
        return {}
    from remote_runner.placement.ports import best_host, host_list, offer

    offered: dict[str, Any] = {'address': options.listen}
    texts = {
        'list': (options.list_port, lambda: host_list(cluster)),
        'best': (options.best_port, lambda: best_host(cluster, peek=options.peek)),
    }
    for name, (port, text) in texts.items():
        if port is not None:
            offered[name] = offer(server, options.listen, port, text)
    return offered


def _set_signals(stop: Callable[[], object], reread: Callable[[], object]) -> None:
    """INT and TERM stop it, HUP has the cluster file read again, unless the terminal is gone at which it runs."""
    is_at_terminal = sys.stdin is not None and sys.stdin.isatty()

    def hang_up(number: int, frame: object) -> None:
        is_gone = is_at_terminal and not os.isatty(0)
        (stop if is_gone else reread)()

    signal.signal(signal.SIGTERM, lambda number, frame: stop())
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: stop())
    signal.signal(signal.SIGHUP, hang_up)


# ---- the daemon that runs ----------------------------------------------------------------------------------------


def _stop(options: argparse.Namespace) -> int:
    """End it; the exit status."""
    from remote_runner.placement.seat import end_daemon
    from remote_runner.placement.wire import socket_path
    from remote_runner.ui.output import Output

    pid = end_daemon(socket_path())
    if options.json:
        Output().write(json.dumps({'pid': pid}) + '\n')
    return 0


def _status(options: argparse.Namespace) -> int:
    """Tell of it; the exit status."""
    from remote_runner.placement.ask import ask
    from remote_runner.placement.loads import DaemonsLoads, by_score
    from remote_runner.placement.seat import daemon_pid
    from remote_runner.placement.wire import socket_path
    from remote_runner.ui.loads import as_json, loads_table
    from remote_runner.ui.output import Output
    from remote_runner.ui.terminal import can_color

    pid = daemon_pid(socket_path())
    try:
        about = ask('ping')
    except NoDaemon as error:
        what = f'the daemon (pid {pid}) does not listen: no host has answered so far, or its socket was removed'
        raise NoDaemon(what, remedy='wait a moment: it makes another one') from error
    if options.json:
        Output().write(json.dumps({**about, **as_json(by_score(DaemonsLoads().hosts()))}) + '\n')
        return 0
    Output().write(about_text(about))  # also where the user's evaluation function fails
    Output().write(loads_table(by_score(DaemonsLoads().hosts()), color=can_color(sys.stdout)))
    return 0


def about_text(about: dict[str, Any]) -> str:
    """What `ping` says, for people."""
    from remote_runner.ui.text import count, elapsed

    ports = about['ports']
    runs = count(about['runs'], 'command')
    lines = [
        f'pid {about["pid"]}, version {about["version"]}, for {elapsed(about["uptime"])}: {runs} under way',
        f'cluster: {about["cluster"]}',
        f'socket: {about["socket"]}',
    ]
    if about['log']:
        lines.append(f'log: {about["log"]}')
    for name, what in (('list', 'list of hosts'), ('best', 'best host')):
        if name in ports:
            lines.append(f'{what}: port {ports[name]} of {ports["address"]}')
    return '\n'.join([*lines, '', ''])
