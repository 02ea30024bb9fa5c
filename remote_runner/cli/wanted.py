"""The options that say which hosts are meant and which of them will do, of all commands that choose by loads."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remote_runner.placement.choose import Score, Wanted

_FORMS = 'names, folded as node[1-40], or patterns such as node*'


def add_cluster_option(parser: argparse.ArgumentParser, *more: str) -> None:
    """The hosts, see `placement/cluster.py`; `more`: other names of the option."""
    what = 'a FILE with one or more hosts a line, or hosts: [user@]name[:port], with commas, folded as node[1-40]'
    names = ('-H', *more, '--host-file')
    parser.add_argument(*names, dest='cluster', action='append', default=[], metavar='CLUSTER', help=what)


def add_evaluate_option(parser: argparse.ArgumentParser) -> None:
    """The user's own score, see `rate_of`."""
    what = 'a Python file with score(host) -> float, lower is better, in the place of our own'
    parser.add_argument('--evaluate', metavar='FILE', help=what)


def rate_of(options: argparse.Namespace) -> Score | None:
    """The user's own score, if there is one.

    Raises:
        ConfigError, UserCodeError: see `placement/evaluate.py`.
    """
    if options.evaluate is None:
        return None
    from remote_runner.placement.evaluate import read_score

    return read_score(options.evaluate)


def add_wanted_options(parser: argparse.ArgumentParser) -> None:
    """The options; see `wanted`."""
    group = parser.add_argument_group('which hosts will do')
    group.add_argument(
        '--prefer',
        action='append',
        default=[],
        metavar='HOSTS',
        help=f'as long as one of these has a core to spare, no other one is chosen: {_FORMS}; repeatable',
    )
    what = f'leave these out: {_FORMS}; repeatable'
    group.add_argument('-x', '--exclude', action='append', default=[], metavar='HOSTS', help=what)
    what = 'so much memory must be free, as in 2G (1 G is 1,000,000,000 bytes)'
    group.add_argument('--min-memory', type=_size, default=0, metavar='BYTES', help=what)
    group.add_argument('--platform', metavar='P', help='such as linux-x86_64 or linux-aarch64')


def wanted(options: argparse.Namespace) -> Wanted:
    """What the options of `add_wanted_options` say.

    Raises:
        AddressError: a host cannot be understood.
    """
    from remote_runner.placement.choose import Wanted

    return Wanted(
        prefer=tuple(_patterns(options.prefer)),
        exclude=tuple(_patterns(options.exclude)),
        min_memory=options.min_memory,
        platform=options.platform,
    )


def _patterns(texts: Sequence[str]) -> Iterator[str]:
    """The patterns of fnmatch(3) that texts mean: hosts as they are written everywhere, or patterns."""
    import glob

    from remote_runner.hosts.address import parse_hosts

    for text in texts:
        if any(character in text for character in '*?'):
            yield from (word for word in text.replace(',', ' ').split() if word)
        else:
            yield from (glob.escape(address.where) for address in parse_hosts([text]))


def _size(text: str) -> int:
    from remote_runner.config.reading import BadValueError, read_size

    try:
        return read_size(int(text) if text.isdecimal() else text)
    except BadValueError as error:
        raise argparse.ArgumentTypeError(f'{text!r}: {error}') from error
