"""`remote_runner logs`: the output of components."""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

from remote_runner.cli.main import EXIT_INTERRUPTED
from remote_runner.cli.targets import make_parser as make_target_parser
from remote_runner.cli.targets import opened, parse, show_failures
from remote_runner.errors import HostError, UsageError

log = logging.getLogger(__name__)

_DESCRIPTION = """\
Show the output of components, each line with its component in front, those of several hosts in the order of their
times. -f goes on with what comes, through restarts and broken connections, until all have ended for good, or Ctrl-C.

    remote_runner logs -f
    remote_runner logs 'publisher*' --since 10m --grep 'ERROR|lost'
    remote_runner logs '*@node7' -n 100 --time
"""
#: Lines of each component with which -f begins.
TAIL = 10
_UNITS = {'s': 1, 'm': 60, 'h': 3600, 'd': 86400}


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = make_target_parser(
        'logs',
        _DESCRIPTION,
        '[NAMES...] [options]',
        '0 all was shown (with -f: and all have ended), 3 a host could not be reached, 130 ended by Ctrl-C',
        json='write lines as JSON objects of time, component, host and line',
    )
    parser.add_argument('-f', '--follow', action='store_true', help='go on with what comes until all have ended')
    parser.add_argument(
        '-n',
        '--lines',
        type=_count,
        metavar='N',
        help=f'only the last N lines of each component (default: all; with -f {TAIL})',
    )
    parser.add_argument(
        '--since',
        type=_moment,
        metavar='TIME',
        help='only what was written then or later: a span back from now (90s, 10m, 2h, 1d), a time of today (14:30) or '
        'a date and time (2026-01-31T14:30)',
    )
    parser.add_argument('--grep', type=_regex, metavar='REGEX', help='only lines in which this regular expression fits')
    parser.add_argument('--time', action='store_true', help='put the time of each line in front, by the clock here')
    parser.add_argument('--fold', action='store_true', help='show equal output of several components once')
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number')
    return int(text)


def _regex(text: str) -> re.Pattern[bytes]:
    try:
        return re.compile(text.encode('utf-8', 'surrogateescape'))
    except re.error as error:
        raise argparse.ArgumentTypeError(f'{text!r} is no regular expression: {error}') from None


def _moment(text: str) -> float:
    """Unix time."""
    span = re.fullmatch(r'(\d+(?:\.\d+)?)([smhd])', text)
    if span:
        return time.time() - float(span[1]) * _UNITS[span[2]]
    try:
        if re.fullmatch(r'\d{1,2}:\d\d(:\d\d)?', text):
            today = datetime.combine(datetime.now().date(), datetime.strptime(text[:5], '%H:%M').time())
            return (today + timedelta(seconds=int(text[6:] or 0))).timestamp()
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is no time (10m, 14:30, 2026-01-31T14:30)') from None


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = parse(make_parser(), arguments)
    if options.fold and (options.follow or options.json):
        raise UsageError('--fold compares whole outputs', remedy='leave out --follow and --json')
    with opened(options) as session:
        from remote_runner.deploy.logs import Source, follow, history
        from remote_runner.ui.logs import FoldedLines, JsonObjects, PrefixedLines
        from remote_runner.ui.terminal import can_color

        wanted = session.named(options.names)
        status = show_failures(session, wanted)
        sources = [Source(seen) for seen in wanted if seen.facts]
        color = can_color(sys.stdout)
        kind = FoldedLines if options.fold else JsonObjects if options.json else PrefixedLines
        how = {'with_time': options.time, 'color': color, 'terminal': sys.stdout.isatty()}
        printer = kind([source.seen for source in sources], options.grep, **how)
        if options.follow:
            lines = TAIL if options.lines is None and options.since is None else options.lines
            try:
                for line in history(session, sources, lines, options.since):
                    printer(line)
            except HostError as error:
                log.warning('%s', error)
            printer.flush()
            try:
                follow(session, sources, printer, printer.flush, lines, options.since)
            except KeyboardInterrupt:
                status = EXIT_INTERRUPTED
            for source in sources:
                for line in source.flush():
                    printer(line)
        else:
            try:
                for line in history(session, sources, options.lines, options.since, is_all=True):
                    printer(line)
            except HostError:
                printer.end()
                raise
        printer.end()
    return status
