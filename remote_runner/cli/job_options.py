"""Options that `batch` and `sweep` share: how often, how long and how many at most, and what is shown of it."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from remote_runner.errors import UsageError

if TYPE_CHECKING:
    from remote_runner.jobs.formats import Format
    from remote_runner.jobs.policy import Halt, Policy, RetryOn

#: What the options of `add_policy_options` set.
POLICY = ('retries', 'retry_on', 'timeout', 'halt', 'delay', 'load', 'duplicates', 'keep', 'lease', 'on_lost')
FORMATS = ('framed', 'jsonl', 'text')
#: Seconds for which hosts that have lost their master wait for it.
LEASE = 60.0
#: The shortest of such times.
LEAST_LEASE = 1.0
_RETRIED = ('exit', 'timeout', 'rejected', 'resources')
_RETRY_ON = 'exit, exit:N, timeout, rejected or resources'
_HALT = 'soon,fail=N, soon,fail=N%, now,fail=N or now,fail=N%'
_UNITS = {'': 1, 's': 1, 'm': 60, 'h': 3600, 'd': 86400}
_LENGTH = re.compile(r'(\d+(?:\.\d*)?|\.\d+)([smhd]?)', re.ASCII)
_NUMBER = re.compile(r'(\d+(?:\.\d*)?|\.\d+)%', re.ASCII)
_PLAIN = re.compile(r'\d+(?:\.\d*)?|\.\d+', re.ASCII)
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{0,63}', re.ASCII)


def add_policy_options(parser: argparse.ArgumentParser, *, duplicates: bool | None) -> None:
    """How attempts are made, see `policy_of`.

    Args:
        parser: gets the options.
        duplicates: whether there are second copies unless told otherwise; None: of a job that is gone on with, where
            all is as it was unless it is said.
    """

    def usual(text: object) -> str:
        return '' if duplicates is None else f' (default: {text})'

    group = parser.add_argument_group('trying', 'in the place of what was said before' if duplicates is None else None)
    what = f'try a task again N times for each fault of its own{usual(2)}; a host that is lost never counts'
    group.add_argument('--retries', type=_whole, metavar='N', help=what)
    what = f'try it again for these causes alone, with commas: {_RETRY_ON}{usual("all of them")}'
    group.add_argument('--retry-on', type=_retry_on, metavar='CAUSES', help=what)
    what = 'end an attempt that takes longer: seconds, 10m, 2h, or 300%% of the median of those that succeeded'
    group.add_argument('--timeout', type=_timeout, metavar='TIME', help=what)
    what = 'give up when N tasks, or N %% of them, have failed: `soon` lets what runs end, `now` ends it'
    group.add_argument('--halt', type=_halt, metavar='soon|now,fail=N', help=what)
    group.add_argument('--delay', type=_length, metavar='TIME', help='let so much time pass between two starts')
    what = 'begin nothing on a host whose load per core (average of the last minute, of all that runs there) is above N'
    group.add_argument('--load', type=_load, metavar='N', help=what)
    copies = group.add_mutually_exclusive_group()
    what = 'let idle slots run second copies of what takes long, when nothing else is left; the first to end counts'
    default = ' (the default)'
    copies.add_argument('--duplicates', action='store_true', default=None, help=what + (default if duplicates else ''))
    what = 'never run a second copy of a task that runs' + (default if duplicates is False else '')
    copies.add_argument('--no-duplicates', dest='duplicates', action='store_false', default=None, help=what)
    group = parser.add_argument_group('hosts')
    what = f'working folders that stay there: those of failed attempts, of all, or none{usual("failed")}'
    group.add_argument('--keep', choices=('all', 'failed', 'none'), help=what)
    what = f'time after which a host that does not hear of us any more does without{usual(f"{LEASE:g}")}'
    group.add_argument('--lease', type=_lease, metavar='TIME', help=what)
    what = f'what it does then: kill what runs{"" if duplicates is None else " (default)"}, or finish, and keep the '
    group.add_argument('--on-lost', choices=('kill', 'finish'), help=f'{what}results for us')
    if duplicates is not None:
        parser.set_defaults(keep='failed', lease=LEASE, on_lost='kill')


def add_result_options(
    parser: argparse.ArgumentParser, *, default: str | None = 'text'
) -> argparse._ArgumentGroup:
    """What is written where, see `format_of`; `default`: the format of results, None: they are not written.

    Returns:
        where they stand, for further ones.
    """
    group = parser.add_argument_group('results')
    what = (
        f'how results are written to stdout, each as soon as it is there: as text{" (default)" if default else ""}, as '
        'a JSON object a line, or framed: int32 index, int32 length, both little-endian, and the bytes'
        f'{"" if default else " (default: they are not)"}'
    )
    group.add_argument('--format', choices=FORMATS, default=default, help=what)
    group.add_argument('--tag', action='store_true', help='text: put the index of its task and a tab before each line')
    group.add_argument('-k', '--keep-order', action='store_true', help='write results in the order of their tasks')
    what = 'append a line a task to FILE, with the columns of GNU parallel'
    group.add_argument('--joblog', type=_file, metavar='FILE', help=what)
    what = 'the statistics at the end as a JSON object, on stderr: stdout is that of results'
    group.add_argument('--json', action='store_true', help=what)
    group.add_argument('--dry-run', action='store_true', help='show what would be run, and run nothing')
    what = 'what `remote_runner jobs` calls it: letters, digits, dots, dashes and underscores'
    group.add_argument('--name', type=_name, metavar='NAME', help=what)
    return group


def policy_of(options: argparse.Namespace, base: Policy | None = None) -> Policy:
    """What the options of `add_policy_options` say; what they do not say is as in `base`."""
    from remote_runner.jobs.policy import Policy

    said: dict[str, object] = {
        name: value
        for name in ('retries', 'retry_on', 'halt', 'delay', 'duplicates', 'load')
        if (value := getattr(options, name)) is not None
    }
    if options.timeout is not None:
        said['timeout'], said['timeout_share'] = options.timeout
    return (base or Policy())._replace(**said)  # type: ignore[arg-type]  # by name


def format_of(options: argparse.Namespace) -> Format:
    """What the options of `add_result_options` say.

    Raises:
        UsageError: they contradict each other, or a terminal would get frames.
    """
    if options.tag and options.format != 'text':
        raise UsageError(f'--tag puts an index before lines of text: there are none with --format {options.format}')
    from remote_runner.jobs.formats import Framed, JsonLines, Text

    if options.format == 'framed' and sys.stdout is not None and sys.stdout.isatty():
        what = 'frames are for programs, and stdout is a terminal'
        raise UsageError(what, remedy='redirect it, or use --format text')
    if options.format == 'text':
        return Text(tag=options.tag)
    return Framed() if options.format == 'framed' else JsonLines()


def words_said(
    parser: argparse.ArgumentParser, arguments: Sequence[str], leave_out: Collection[str] = ()
) -> dict[str, str]:
    """The options that arguments say, by what they set: each as one word that says it again.

    Args:
        parser: understands them; it is of no use for anything else afterwards.
        arguments: of the command.
        leave_out: what options set that are not wanted.
    """
    for action in parser._actions:
        action.type = None
    options = vars(parser.parse_intermixed_args(arguments))
    words: dict[str, str] = {}
    for action in parser._actions:
        if action.dest in leave_out or action.dest not in options or not action.option_strings:
            continue
        value = options[action.dest]
        if value == action.default:
            continue
        if action.nargs != 0:
            words[action.dest] = f'{action.option_strings[-1]}={value}'
        elif value == action.const:
            words[action.dest] = action.option_strings[-1]
    return words


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 0')
    return int(text)


def _load(text: str) -> float:
    if not _PLAIN.fullmatch(text) or not 0 < float(text) < float('inf'):
        raise argparse.ArgumentTypeError(f'{text!r} is not a number above 0')
    return float(text)


def _retry_on(text: str) -> tuple[RetryOn, ...]:
    from remote_runner.jobs.policy import Cause, RetryOn

    found = []
    for word in text.split(','):
        cause, colon, status = word.strip().partition(':')
        if cause not in _RETRIED or (colon and cause != 'exit'):
            more = '; what was lost with its host is always tried again' if cause == 'lost' else ''
            raise argparse.ArgumentTypeError(f'{word!r} is no cause: it is {_RETRY_ON}{more}')
        if colon and not (status.isascii() and status.isdecimal() and 1 <= int(status) <= 255):
            raise argparse.ArgumentTypeError(f'{word!r}: the exit status of what failed is 1 to 255')
        found.append(RetryOn(Cause(cause), int(status) if colon else None))
    return tuple(found)


def _halt(text: str) -> Halt:
    from remote_runner.jobs.policy import Halt

    when, _, rest = text.partition(',')
    name, _, amount = rest.partition('=')
    if when not in ('soon', 'now') or name != 'fail':
        raise argparse.ArgumentTypeError(f'{text!r} says not when to give up: it is {_HALT}')
    if amount.isascii() and amount.isdecimal() and int(amount):
        return Halt(int(amount), now=when == 'now')
    share = _NUMBER.fullmatch(amount)
    if share is None or not 0 < float(share[1]) < 100:
        what = 'N is a whole number from 1, N% a share above 0 and below 100'
        raise argparse.ArgumentTypeError(f'{text!r}: {what}')
    return Halt(float(share[1]) / 100, now=when == 'now')


def _timeout(text: str) -> tuple[float | None, float | None]:
    """Seconds, and the share of the median; one of them is None."""
    share = _NUMBER.fullmatch(text)
    if share is None:
        return _positive_length(text, ', or a share of the median as 300%'), None
    if float(share[1]) <= 100:
        raise argparse.ArgumentTypeError(f'{text!r}: half of all tasks take longer than the median; it is above 100%')
    return None, float(share[1]) / 100


def _positive_length(text: str, more: str = '') -> float:
    value = _length(text, more)
    if not value:
        raise argparse.ArgumentTypeError(f'{text!r} is no time above 0')
    return value


def _length(text: str, more: str = '') -> float:
    found = _LENGTH.fullmatch(text)
    value = float(found[1]) * _UNITS[found[2]] if found else -1.0
    if not 0 <= value < 1e7:
        raise argparse.ArgumentTypeError(f'{text!r} is no time: a number of seconds, or 10m, 2h, 1d{more}')
    return value


def _lease(text: str) -> float:
    value = _length(text)
    if value < LEAST_LEASE:
        raise argparse.ArgumentTypeError(f'{text!r} is shorter than {LEAST_LEASE:g} s, in which nobody can be heard of')
    return value


def _file(text: str) -> Path:
    path = Path(text).expanduser().absolute()
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f'there is no folder {path.parent}')
    return path


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f'{text!r} is no name: 1 to 64 letters, digits, dots, dashes and underscores, first a letter or digit'
        )
    return text
