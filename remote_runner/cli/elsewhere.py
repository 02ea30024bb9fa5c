"""`batch --detach-to HOST`: what is needed is copied there, and `batch --detach` is run there.

Whether that host can reach all others, without anybody to ask, `batch --detach` finds out there before it begins.
"""

from __future__ import annotations

import argparse
import logging
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from remote_runner import __version__
from remote_runner.cli.job_options import words_said
from remote_runner.cli.options import hosts_or_files, ssh_options
from remote_runner.errors import UsageError

if TYPE_CHECKING:
    from remote_runner.deploy.execute import Executed
    from remote_runner.hosts.address import Address
    from remote_runner.hosts.ssh import Connector
    from remote_runner.jobs.source import Source

log = logging.getLogger('remote_runner')
#: Where it lies on that host, below the home.
FOLDER = '.cache/remote_runner/detached'
#: What begins it there.
_BEGIN = 'begin.sh'
#: What is said anew there, or is none of its business.
_OWN = ('commands', 'dependencies', 'hosts', 'exclude', 'detach', 'detach_to', 'password', 'ssh_config')
#: Where pip puts commands that a login without a terminal may not find.
_FIND = 'PATH="$PATH:$HOME/.local/bin"; command -v remote_runner >/dev/null || exit 127; '


def begin_batch(
    options: argparse.Namespace, parser: argparse.ArgumentParser, arguments: Sequence[str], source: Source
) -> int:
    """Begin it there; the exit status.

    Args:
        options: of the command.
        parser: that of the command.
        arguments: what the command was told.
        source: its commands.

    Raises:
        UsageError: an option means nothing there, or there is no remote_runner.
        RemoteRunnerError: that host cannot be reached, or nothing can be copied there.
    """
    from remote_runner.hosts.address import parse_address, parse_hosts
    from remote_runner.hosts.ssh import Connector
    from remote_runner.ui.log import configure

    configure(options.log_level)
    if options.joblog is not None:
        raise UsageError('--joblog would be written on the other host', remedy='`jobs export` there has all of it')
    address = parse_address(options.detach_to)
    addresses = parse_hosts(hosts_or_files(options.hosts), exclude=options.exclude)
    if not addresses:
        raise UsageError('no host is left', remedy='see HOSTS and -x')
    with Connector(ssh_options(options)) as connector:
        _check_version(address, connector)
        folder = f'{FOLDER}/{time.strftime("%Y%m%d-%H%M%S")}-{secrets.token_hex(2)}'
        words = [word for each in addresses for word in ('-H', str(each).partition(' ')[0])]
        words += [*words_said(parser, arguments, _OWN).values(), '--detach']
        _copy(options, source, words, folder, address, connector)
        outcome = _execute(address, f'cd {folder} && . ./{_BEGIN}', connector)
        sys.stderr.write(outcome.stderr.decode('utf-8', 'replace'))
        status = outcome.status
    if not status:
        log.info('that was on %s: `ssh %s remote_runner jobs attach` follows it', address.where, address.where)
    return status


def _check_version(address: Address, connector: Connector) -> None:
    outcome = _execute(address, 'remote_runner version', connector)
    own, there = __version__, outcome.stdout.decode('utf-8', 'replace').strip()
    if outcome.status:
        why = outcome.stderr.decode('utf-8', 'replace')
        what = 'there is no remote_runner on it' if outcome.status == 127 else 'its remote_runner does not work'
        raise UsageError(what, host=address.where, remedy='pip install remote_runner there', output=why)
    if own not in there.split():
        raise UsageError(f'it has another version: {there}', host=address.where, remedy=f'install {own} there')


def _copy(
    options: argparse.Namespace,
    source: Source,
    words: Sequence[str],
    folder: str,
    address: Address,
    connector: Connector,
) -> None:
    """Copy commands and dependencies there, and the command that begins it with these words."""
    from remote_runner.deploy.bring import Bringer
    from remote_runner.deploy.copying import Copying, Wanted
    from remote_runner.events import Events
    from remote_runner.files.options import CopyOptions

    with tempfile.TemporaryDirectory() as scratch:
        commands = Path(scratch, 'commands')
        with commands.open('wb') as file:
            for command in _lines(source):
                file.write(command)
        line = ['remote_runner', 'batch', 'commands']
        wanted = [(str(commands), f'{folder}/')]
        if options.dependencies is not None:
            path = Path(options.dependencies)
            line.append('needed' if path.is_dir() else f'./{path.name}')
            wanted.append((f'{path}/', f'{folder}/needed/') if path.is_dir() else (str(path), f'{folder}/'))
        begin = Path(scratch, _BEGIN)
        begin.write_text(' '.join(map(quote, [*line, *words])) + '\n', 'utf-8')
        wanted.append((str(begin), f'{folder}/'))
        for what, dest in wanted:
            events = Events()
            copying = Copying(Wanted((what,), dest), Bringer(CopyOptions(), events), events)
            for error in copying.copy([address], connector).values():
                raise error


def _lines(source: Source) -> Iterator[bytes]:
    while not source.is_over:
        for task in source.take(1000):
            yield task.command.encode('utf-8', 'surrogateescape') + b'\n'
        source.wait()


def _execute(address: Address, command: str, connector: Connector) -> Executed:
    """Run a command there.

    Raises:
        RemoteRunnerError: the host cannot be had.
    """
    from remote_runner.deploy.execute import Executed, execute
    from remote_runner.hosts.shell import sh

    [(_, outcome)] = execute([address], sh(_FIND + command), connector)
    if not isinstance(outcome, Executed):
        raise outcome
    return outcome
