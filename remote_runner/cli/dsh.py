"""`remote_runner dsh COMMAND…`: one command on the host that has the least to do, as if it ran here.

Where the daemon runs, `placement/client.py` has done that before this is imported. What comes here: help and mistakes,
hosts other than the daemon's, and no daemon, where we connect to the hosts ourselves.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from remote_runner.cli.options import Parser, add_connection_options, add_log_level, seconds, ssh_options
from remote_runner.cli.wanted import add_cluster_option, add_wanted_options, wanted
from remote_runner.errors import UsageError
from remote_runner.placement import client
from remote_runner.placement.attended import die_by
from remote_runner.placement.command_line import WAIT_FILES, Options

if TYPE_CHECKING:
    from remote_runner.hosts.address import Address
    from remote_runner.placement.choose import Wanted
    from remote_runner.placement.keeper import Cluster

_DESCRIPTION = """\
Run a command on the host that has the least to do, as if it ran here: in this directory, with this umask, our standard
input, output and error, our signals, and its exit status. Its words arrive as they are; no shell reads them.

    remote_runner dsh hostname
    remote_runner dsh -v --min-memory 2G ./simulate --seed 7 <in >out
    make -j8 CC='remote_runner dsh gcc'

The daemon (remote_runner dshd) makes it fast: it keeps the hosts connected and knows their loads. Without it, or with
hosts that it does not have, each command connects to the hosts itself. Hosts are those of -H, else the daemon's, else
those of RR_CLUSTER or ~/.config/remote_runner/cluster.
"""
_ENVIRONMENT = """\
These variables go with the command: PATH, LANG, LC_*, TERM, TZ, CC, CXX, CFLAGS, CXXFLAGS, LDFLAGS, and MAKEFLAGS
without the jobserver and -j, which mean something to make on this machine alone. All others are those of a login there.
"""
#: Seconds that hosts have to be connected to without a daemon; and that others have, once one is there.
PATIENCE, LONGER = 60.0, 1.0


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = Parser(
        prog='remote_runner dsh',
        description=_DESCRIPTION,
        usage='%(prog)s [options] [--] COMMAND...',
        epilog='exit status: that of the command, 128 + n if signal n ended it, 127 if it is not there; else 2 for '
        'wrong usage, 3 if a host is lost, 1 if no host will do',
    )
    what = 'what follows belongs to it, also what begins with a dash'
    parser.add_argument('command', nargs='*', metavar='COMMAND', help=what)
    add_cluster_option(parser)
    parser.add_argument('-v', '--verbose', action='store_true', help='write on stderr where it runs')
    what = 'give it a terminal, if our input is one: for what is used by keys, as top or an editor'
    parser.add_argument('-t', '--terminal', action='store_true', help=what)
    what = 'it reads nothing, as with </dev/null: in loops that read a list'
    parser.add_argument('-n', '--no-input', action='store_true', help=what)
    what = 'write one JSON object to stdout when it has ended: host, status, stdout, stderr, seconds'
    parser.add_argument('--json', action='store_true', help=what)
    add_wanted_options(parser)
    group = parser.add_argument_group(
        'directory', 'The command runs in this directory, which the host must share with us, as over NFS.'
    )
    where = group.add_mutually_exclusive_group()
    what = 'run in this directory of the host, which need not be shared; ~ is the home there'
    where.add_argument('--dir', metavar='DIR', help=what)
    what = 'bring this directory with all that is in it to the host, and what the command changed back'
    where.add_argument('--sync', action='store_true', help=what)
    group.add_argument(
        '--wait-files',
        type=_seconds,
        default=WAIT_FILES,
        metavar='SECONDS',
        help='how long the host may take until it sees the files that the command names as they are here, and we those '
        f'that it wrote (default: {WAIT_FILES:g}; 0: do not look, nor whether the directory is shared)',
    )
    group = parser.add_argument_group('environment', _ENVIRONMENT)
    group.add_argument(
        '--env',
        action='append',
        default=[],
        metavar='NAME',
        help='this variable too: NAME, NAME=VALUE or a pattern as MY_*; --env=-NAME leaves one out, --env=-* all so '
        'far; repeatable',
    )
    add_log_level(parser)
    add_connection_options(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    parser = make_parser()
    own, command = split(parser, arguments)
    options = parser.parse_args(own)
    if not command:
        raise UsageError('which command?', remedy='remote_runner dsh --help shows examples')
    from remote_runner.ui.log import configure

    configure(options.log_level)
    asked = _asked(options, command)
    if options.json:
        return _told(asked, options)
    status = _run(asked, options)
    return status if status >= 0 else die_by(-status)


def _run(asked: Options, options: argparse.Namespace) -> int:
    """Run it; see `client.attend`."""
    from remote_runner.placement.cluster import find

    addresses = find(options.cluster).read() if options.cluster else None
    status = None
    if options.sync:
        addresses = _best_of_daemon(asked, addresses) or addresses
    else:
        status = _by_daemon(asked, addresses)
    if status is None:
        status = _by_ourselves(asked, find().read() if addresses is None else addresses, options)
    return status


def _told(asked: Options, options: argparse.Namespace) -> int:
    """Run it, and tell of it as `exec --json` does."""
    import json
    import tempfile
    import time

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        asked.outputs = out.fileno(), err.fileno()
        begun = time.monotonic()
        status = _run(asked, options)
        if status < 0:
            die_by(-status)
        if asked.has_ended:
            texts = {}
            for name, file in (('stdout', out), ('stderr', err)):
                file.seek(0)
                texts[name] = file.read().decode('utf-8', 'replace')
            seconds = round(time.monotonic() - begun, 3)
            sys.stdout.write(json.dumps({'host': asked.ran_on, 'status': status, **texts, 'seconds': seconds}) + '\n')
    return status


def _seconds(text: str) -> float:
    return 0.0 if text == '0' else seconds(text)


def split(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our options, and the command: it begins at the first word that is no option, or behind `--`."""
    with_value = {name for name, action in parser._option_string_actions.items() if action.nargs is None}
    own: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == '--':
            return own, list(words)
        if not word.startswith('-') or word == '-':
            return own, [word, *words]
        value = next(words, None) if word in with_value else None
        if value is None:
            own.append(word)
        else:  # in one word: else argparse takes no value that begins with a dash
            own += [f'{word}={value}'] if word.startswith('--') else [word + value]
    return own, []


def _asked(options: argparse.Namespace, command: list[str]) -> Options:
    for variable in options.env:
        if not variable or variable[0] == '=':
            what = f'--env {variable!r} names no variable'
            raise UsageError(what, remedy='write NAME, NAME=VALUE or a pattern as MY_*')
    asked = Options()
    wish = wanted(options)
    asked.prefer, asked.exclude = list(wish.prefer), list(wish.exclude)
    asked.min_memory, asked.platform = wish.min_memory, wish.platform
    asked.env = options.env
    asked.folder, asked.wait_files = options.dir, options.wait_files
    asked.is_terminal, asked.is_verbose, asked.has_no_input = options.terminal, options.verbose, options.no_input
    asked.command = command
    return asked


def _by_daemon(asked: Options, addresses: Sequence[Address] | None) -> int | None:
    """Run it by the daemon, if there is one that has these hosts (None: any); its exit status.

    Raises:
        RequestFailed, RemoteRunnerError: see `ask`.
    """
    import glob

    from remote_runner.placement.loads import find_daemon

    if find_daemon(None, addresses) is None:
        return None
    sock = client.connect()
    if sock is None:
        return None  # it has just ended
    asked.hosts = [glob.escape(address.where) for address in addresses or ()]
    return client.attend(sock, asked)


def _best_of_daemon(asked: Options, addresses: Sequence[Address] | None) -> list[Address] | None:
    """The host that the daemon chooses, if there is one that has these hosts (None: any).

    Raises:
        RequestFailed, RemoteRunnerError: see `ask`; also that no host will do.
    """
    from remote_runner.hosts.address import parse_address
    from remote_runner.placement.loads import find_daemon

    daemon = find_daemon(None, addresses)
    if daemon is None:
        return None
    return [parse_address(name) for name in daemon.best(_wish(asked), 1, peek=False)]


def _wish(asked: Options) -> Wanted:
    """Which hosts will do, but for their names."""
    from remote_runner.placement.choose import Wanted

    return Wanted((), tuple(asked.prefer), tuple(asked.exclude), asked.min_memory, asked.platform)


def _by_ourselves(asked: Options, addresses: Sequence[Address], options: argparse.Namespace) -> int:
    """Run it over connections of our own, by a server as the daemon's, for this command alone."""
    from remote_runner.hosts.ahead import Ahead
    from remote_runner.placement.keeper import Cluster
    from remote_runner.placement.server import Server

    if not options.sync and (asked.is_verbose or os.isatty(sys.stderr.fileno())):
        text = 'dsh: no daemon has these hosts, so they are connected to for this command alone; faster: '
        sys.stderr.write(f'{text}remote_runner dshd --background\n')
        sys.stderr.flush()
    ours, theirs = socket.socketpair()
    with (
        Ahead(ssh_options(options), addresses, options.fanout).connector() as connector,
        Cluster(connector, addresses, fanout=options.fanout) as cluster,
        Server(cluster) as server,
    ):
        cluster.start()
        cluster.wait_until_up(PATIENCE, every=False)
        cluster.wait_until_up(LONGER)
        server.adopt(theirs)
        serving = threading.Thread(target=server.run, name='server', daemon=True)
        serving.start()
        try:
            return _with_folder(asked, ours, cluster) if options.sync else client.attend(ours, asked)
        finally:
            ours.close()
            server.stop()
            serving.join()


def _with_folder(asked: Options, sock: socket.socket, cluster: Cluster) -> int:
    """Run it where this folder is brought to, and what it changed comes back from; its exit status.

    Raises:
        NoHostFits: no host will do.
        SourcesFailed, TransferFailed, FetchIncomplete, ConnectionLost: see `Errand`.
    """
    import glob

    from remote_runner.deploy.errand import Errand

    [(name, host)] = cluster.choose(_wish(asked), peek=True)
    with Errand(host, client.folder()) as errand:
        asked.hosts, asked.folder = [glob.escape(name)], errand.folder
        status = client.attend(sock, asked)
        if status >= 0:  # else somebody does not want it any more
            errand.bring_back()
    return status
