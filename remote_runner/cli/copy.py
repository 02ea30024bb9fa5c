"""`remote_runner copy HOSTS SRC... DEST`: files and folders to many hosts."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from remote_runner.cli.options import (
    Parser,
    add_connection_options,
    add_copy_options,
    add_hosts_argument,
    add_log_level,
    copy_options,
    dial_hosts,
)
from remote_runner.errors import UsageError

if TYPE_CHECKING:
    from remote_runner.deploy.looking import Looker
    from remote_runner.errors import RemoteRunnerError
    from remote_runner.events import Events
    from remote_runner.files.ahead import Gathering
    from remote_runner.files.local import LocalFiles
    from remote_runner.files.manifest import Group, Manifest
    from remote_runner.hosts.address import Address

#: Files of a folder for which a process of its own would take longer than they do.
FEW = 100

_DESCRIPTION = """\
Copy files and folders to many hosts. What is there already is not sent again.

    remote_runner copy node[1-40] data/ /srv/data
    remote_runner copy @hosts.txt program settings.toml '~/tools/'
    remote_runner copy node[1-40] data/ /srv/data --delete --exclude '*.log'
    remote_runner copy node[1-40] data/ /srv/data --delete --dry-run

`folder` becomes DEST/folder; what is in `folder/` comes into DEST, as with rsync. A file becomes DEST, or comes into it
if DEST ends with a slash, is a folder there, or there are several SRC. A relative DEST is below the home there. Nothing
is removed on the hosts, unless --delete is given: then what a folder there has, and the SRC has not. With --dry-run
it is only said what would be done.
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = Parser(
        prog='remote_runner copy',
        description=_DESCRIPTION,
        usage='%(prog)s HOSTS SRC... DEST [options]',
        epilog='exit status: 0 all is there, 1 a file could not be brought, 2 wrong usage, a SRC that cannot be\n'
        'read, or a refused --delete, 3 a host could not be reached, trusted or authenticated, 130 interrupted',
    )
    add_hosts_argument(parser, words=1, exclude='--exclude-hosts')
    parser.add_argument('sources', nargs='+', metavar='SRC', help='a file or folder of this machine')
    parser.add_argument('dest', metavar='DEST', help='where to on the hosts; `~/...` is written in quotes')
    how = parser.add_argument_group('how to copy')
    how.add_argument(
        '--exclude',
        dest='patterns',
        action='append',
        default=[],
        metavar='PATTERN',
        help='leave this out, a pattern as in a .gitignore in each SRC; repeatable, the last one that matches counts',
    )
    how.add_argument(
        '--links',
        choices=('follow', 'keep'),
        default='follow',
        help='symbolic links: copy what they lead to (the default), or the links themselves',
    )
    add_copy_options(how)
    what = 'compare, say for each host what would be sent, changed and deleted, and change nothing there'
    how.add_argument('-n', '--dry-run', action='store_true', help=what)
    what = 'write events to stdout, one JSON object a line; with --dry-run one object of what would be done'
    parser.add_argument('--json', action='store_true', help=what)
    add_log_level(parser)
    add_connection_options(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = make_parser().parse_intermixed_args(arguments)
    if not options.dest:
        raise UsageError('DEST is empty', remedy='. is the home there')
    if ':' in options.dest.partition('/')[0]:
        raise UsageError(
            f'DEST {options.dest!r} begins with a host, as for scp', remedy=f'hosts are HOSTS; else ./{options.dest}'
        )
    gathering = _begin_to_gather(options)
    addresses, connector = dial_hosts(options)
    # The rest is imported, and the files are looked at, while the hosts answer.
    from remote_runner.deploy.bring import Bringer
    from remote_runner.deploy.copying import Copying, Wanted, exit_status
    from remote_runner.events import Events
    from remote_runner.ui.copied import Summary
    from remote_runner.ui.output import JsonLines, Output
    from remote_runner.ui.terminal import Terminal

    events = Events()
    summary = Summary()
    terminal = Terminal(table=False, quiet=True)
    events.listen(terminal)
    looker = _looker(options, events) if options.dry_run else None
    if looker is None:
        events.listen(JsonLines() if options.json else summary)
    wanted = Wanted(tuple(options.sources), options.dest, tuple(options.patterns), options.links == 'keep')
    with connector:
        try:
            copying = Copying(wanted, looker or Bringer(copy_options(options), events), events, gathering)
            with terminal:
                failures = copying.copy(addresses, connector, options.fanout, leave=True)
        except ValueError as error:
            raise UsageError(str(error)) from error
        finally:
            Output().write(summary.text())
    if looker is not None:
        Output().write(_shown(looker, failures, addresses, as_json=options.json))
    return exit_status(failures.values())


def _looker(options: argparse.Namespace, events: Events) -> Looker:
    from remote_runner.deploy.looking import Looker

    return Looker(copy_options(options), events)


def _shown(
    looker: Looker, failures: Mapping[str, RemoteRunnerError], addresses: Iterable[Address], *, as_json: bool
) -> str:
    """What `--dry-run` found out, host by host as they were written, as `plan --diff` shows it."""
    from remote_runner.ui.preview import differences_text

    names = dict.fromkeys(address.where for address in addresses)
    differences = [looker.found[name].to_dict() for name in names if name in looker.found]
    if not as_json:
        return differences_text(differences)
    import json

    unreachable = {name: str(failures[name]) for name in names if name in failures}
    return f'{json.dumps({"differences": differences, "unreachable": unreachable}, indent=2)}\n'


def _begin_to_gather(options: argparse.Namespace) -> Gathering | None:
    """Look at folders while all else begins; files, and folders of a few, are looked at soon enough."""
    if not any(map(_takes_long, options.sources)):
        return None
    from remote_runner.files.ahead import Gathering

    def gather(local: LocalFiles, hear: Callable[[Group], None]) -> Manifest:
        from remote_runner.files.sources import gather

        keep_links = options.links == 'keep'
        return gather(local, options.sources, options.dest, exclude=options.patterns, keep_links=keep_links, hear=hear)

    return Gathering(gather, remembered=not options.no_hash_cache, times=not options.no_times)


def _takes_long(source: str) -> bool:
    """Whether there is much to look at, as far as can be told at once."""
    try:
        with os.scandir(source) as listing:
            return any(number >= FEW or item.is_dir() for number, item in enumerate(listing))
    except OSError:
        return False  # it is a file; or what is wrong with it is said where it is read
