"""`remote_runner clean HOSTS`: removes what runs left on hosts and nobody needs any more."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from remote_runner.cli.main import show_error
from remote_runner.cli.options import (
    Parser,
    add_connection_options,
    add_hosts_argument,
    add_log_level,
    dial_hosts,
)
from remote_runner.errors import CleaningFailed, RemoteRunnerError, UsageError

if TYPE_CHECKING:
    from remote_runner.deploy.clean import Cleaner, Rubbish

_DESCRIPTION = """\
Show what runs of remote_runner have left on hosts and nobody needs any more, ask once, and remove it.

    remote_runner clean node[1-40]
    remote_runner clean hosts.txt --dry-run --verbose
    remote_runner clean node[1-40] --keep 0 --yes

That is: temporary base_dirs and the folders of runs that are over, with their output.log; agents of other versions in
~/.cache; unfinished copies of files; dead sockets, links and lock files; programs whose launchers were killed; folders
of tasks that jobs have kept, and dependencies of jobs that nobody has used for 30 days. A
session of which anything is alive, its screen session too, or on which anybody is at work, is left alone, and so are
the newest runs of each session, with their base_dirs: logs, restart and fetch need them.
"""
log = logging.getLogger(__name__)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = Parser(
        prog='remote_runner clean',
        description=_DESCRIPTION,
        usage='%(prog)s HOSTS... [options]',
        epilog='exit status: 0 all of it is gone, or there was nothing, 1 not confirmed, or something could not be\n'
        'removed, 3 a host could not be reached, trusted or authenticated',
    )
    add_hosts_argument(parser)
    parser.add_argument(
        '--keep',
        type=_number,
        default=1,
        metavar='N',
        help='newest runs of each session that stay, with output.log and temporary base_dirs, and newest jobs '
        '(default: 1)',
    )
    parser.add_argument('--dry-run', action='store_true', help='show what would be removed, and remove nothing')
    parser.add_argument('-y', '--yes', action='store_true', help='remove without asking')
    parser.add_argument('-v', '--verbose', action='store_true', help='show each thing with its path')
    parser.add_argument(
        '--json', action='store_true', help='write one JSON object a host and line to stdout, with what became of each'
    )
    add_log_level(parser)
    add_connection_options(parser)
    return parser


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 0 on')
    return int(text)


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = make_parser().parse_args(arguments)
    addresses, connector = dial_hosts(options)
    # The rest is imported while the hosts answer.
    from remote_runner.deploy.clean import Cleaner

    with connector, Cleaner(connector, options.fanout, keep=options.keep) as cleaner:
        found, failed = _split(cleaner.look(addresses))
        _show(found, options)
        wanted = [each for each in found if each.items]
        done: list[Rubbish] = []
        if wanted and not options.dry_run:
            if not options.yes and not _confirmed(wanted, options):
                print('nothing was removed', file=sys.stderr)  # noqa: T201
                if options.json:
                    _write_json(found, done)
                return max(1, failed)
            done, failed_then = _remove(cleaner, options)
            failed = max(failed, failed_then)
    if options.json:
        _write_json(found, done)
    return failed


def _split(outcomes: Iterable[Rubbish | RemoteRunnerError]) -> tuple[list[Rubbish], int]:
    """What is there; errors are shown, the worst exit status of theirs is given back."""
    found: list[Rubbish] = []
    status = 0
    for outcome in outcomes:
        if isinstance(outcome, RemoteRunnerError):
            show_error(outcome)
            status = max(status, outcome.exit_status)
        else:
            found.append(outcome)
    return found, status


def _show(found: Sequence[Rubbish], options: argparse.Namespace) -> None:
    """What there is, and what stays and why."""
    from remote_runner.hosts.address import fold
    from remote_runner.ui.clean import rubbish_table
    from remote_runner.ui.output import Output
    from remote_runner.ui.terminal import can_color
    from remote_runner.ui.text import harmless

    if not options.json:
        Output().write(rubbish_table(found, verbose=options.verbose, color=can_color(sys.stdout)))
    alike: dict[str, list[str]] = {}
    for each in found:
        kept = [f'session {session} is left alone: {why}' for session, why in each.kept.items()]
        for note in (*kept, *each.notes):
            alike.setdefault(note, []).append(each.host)
    for note, hosts in alike.items():
        log.info('%s: %s', harmless(fold(hosts)), harmless(note))


def _confirmed(found: Sequence[Rubbish], options: argparse.Namespace) -> bool:
    """Ask once for all; whom JSON on stdout tells nothing reads on stderr what it is about."""
    from remote_runner.ui.clean import rubbish_table, total
    from remote_runner.ui.terminal import can_color
    from remote_runner.ui.text import count

    if not sys.stdin.isatty():
        raise UsageError('there is nobody to confirm what is to be removed', remedy='--yes removes it without asking')
    sys.stdout.flush()
    if options.json:
        sys.stderr.write(rubbish_table(found, verbose=options.verbose, color=can_color(sys.stderr)))
    sys.stderr.write(f'Remove {total(found)} from {count(len(found), "host")}? [yes/no] ')
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ('y', 'yes')


def _remove(cleaner: Cleaner, options: argparse.Namespace) -> tuple[list[Rubbish], int]:
    """Remove it and say what went, and what could not go and why."""
    from remote_runner.ui.clean import removed_line
    from remote_runner.ui.output import Output
    from remote_runner.ui.text import harmless

    done, status = _split(cleaner.remove())
    for each in done:
        if not options.json:
            Output().write(removed_line(each) + '\n')
        for item in each.items:
            if item.outcome == 'kept':
                log.info('%s: %s stays: %s', each.host, harmless(item.path), harmless(item.why))
            elif item.outcome == 'failed':
                what = f'{harmless(item.path)} could not be removed: {harmless(item.why)}'
                show_error(CleaningFailed(what, host=each.host))
                status = max(status, CleaningFailed.exit_status)
    return done, status


def _write_json(found: Sequence[Rubbish], done: Sequence[Rubbish]) -> None:
    """A line a host: what became of what was there, or what is there."""
    from remote_runner.ui.output import Output

    last = {each.host: each for each in [*found, *done]}
    Output().write(''.join(f'{json.dumps(each.to_dict())}\n' for each in last.values()))
