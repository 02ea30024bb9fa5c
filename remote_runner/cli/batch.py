"""`remote_runner batch`: many commands over the slots of many hosts."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from remote_runner.cli.detach import add_detach_option, add_detach_to_option
from remote_runner.cli.job_options import add_policy_options, add_result_options, format_of, policy_of
from remote_runner.cli.options import (
    Parser,
    add_connection_options,
    add_hosts_option,
    add_log_level,
    dial_hosts,
    hosts_or_files,
)
from remote_runner.errors import UsageError
from remote_runner.ui.output import check_stdout

if TYPE_CHECKING:
    from remote_runner.hosts.address import Address
    from remote_runner.hosts.host import Host
    from remote_runner.jobs.engines.base import Links
    from remote_runner.jobs.journal import Journal
    from remote_runner.jobs.places import Place
    from remote_runner.jobs.run import Job
    from remote_runner.jobs.source import Source
    from remote_runner.jobs.task import Task

log = logging.getLogger(__name__)

_DESCRIPTION = """\
Run the commands of a file, one a line, over the slots of many hosts, and write what each of them prints to stdout as
soon as it has succeeded. Nothing has to be installed on the hosts.

    remote_runner batch commands.txt -H node[1-40]
    remote_runner batch commands.txt tools/ -H 4/node1,node2 --format jsonl --retries 0
    generate | remote_runner batch - -H @hosts.txt --timeout 10m --joblog log.tsv

Each command is run by `sh` in a folder of its own, with RR_TASK (its index, from 0), RR_ATTEMPT, RR_HOST and RR_SLOT
set; the DEPENDENCIES, a folder or a file, are found there as `dependencies/`. A host has as many slots as it has cores,
or as are written before it: `4/node1`. What failed is tried again, elsewhere if possible; what is lost with a host is
run again, and costs no try. Whatever happens to this command, `remote_runner jobs resume` goes on where it was.
"""
_STDERR = 'keep what commands that succeed write to stderr, too, for `jobs export` and --format jsonl'


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = Parser(
        prog='remote_runner batch',
        description=_DESCRIPTION,
        usage='%(prog)s COMMANDS [DEPENDENCIES] -H HOSTS [options]',
        epilog='exit status: 0 all succeeded, 1 some failed, 2 wrong usage, 3 no host could be had, 130 interrupted,\n'
        '141 nobody reads the results any more',
    )
    parser.add_argument('commands', metavar='COMMANDS', help='a file with a command a line; -: standard input')
    parser.add_argument(
        'dependencies', nargs='?', metavar='DEPENDENCIES', help='a folder or file that all commands need, brought first'
    )
    add_hosts_option(parser)
    add_policy_options(parser, duplicates=True)
    add_result_options(parser).add_argument('--stderr', action='store_true', help=_STDERR)
    add_detach_option(parser)
    add_detach_to_option(parser)
    add_log_level(parser)
    add_connection_options(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = make_parser().parse_intermixed_args(arguments)
    format_of(options)
    source = _source(options.commands, _results(options))
    if options.dry_run:
        return _show(source, options)
    if options.detach_to is not None:
        from remote_runner.cli.elsewhere import begin_batch

        return begin_batch(options, make_parser(), arguments, source)
    if options.detach:
        return _detach(options, arguments, source)
    check_stdout()
    addresses, connector = dial_hosts(options)
    # The rest is imported while the hosts answer.
    from remote_runner.cli.job import Running, Told, meta_of
    from remote_runner.jobs.journal import Journal
    from remote_runner.jobs.places import make

    with connector, ExitStack() as stack:
        prepare = _prepare(options.dependencies, stack)
        place = make(options.name or '')
        meta = {**meta_of('batch', arguments), 'what': _what(options)}
        journal = stack.enter_context(Journal.create(place.folder, meta))
        job = _job(options, place, addresses, source, prepare)
        return Running(job, place, Told.of(options)).begin(journal, connector)


def resume(place: Place, journal: Journal, options: argparse.Namespace) -> int:
    """Go on with a batch that another master began; the exit status.

    Args:
        place: where it lies.
        journal: its journal, of which we are the master.
        options: what `make_parser` made of what it was begun with, and of what was said when it was resumed.
    """
    from remote_runner.cli.job import Running, Told, tell_changes
    from remote_runner.jobs.source import Given

    addresses, connector = dial_hosts(options)
    path = Path(options.commands)
    if options.commands != '-' and path.is_file():
        tell_changes(str(path), journal.match(list(_tasks(path, _results(options)))), 'command')
    elif journal.meta.get('is_complete') and options.commands != '-':
        log.warning('%s is not there any more: the commands are those that were read when the job was begun', path)
    elif not journal.meta.get('is_complete'):
        log.warning('the job was ended before all its commands were read: what was not read then is not run')
    with connector, ExitStack() as stack:
        job = _job(options, place, addresses, Given(()), _prepare(options.dependencies, stack))
        return Running(job, place, Told.of(options)).resume(journal, connector)


def _detach(options: argparse.Namespace, arguments: Sequence[str], source: Source) -> int:
    """Let it be run in the background; the exit status."""
    from remote_runner.cli.detach import check_credentials, detach
    from remote_runner.cli.job import meta_of
    from remote_runner.jobs.journal import Journal
    from remote_runner.jobs.places import make
    from remote_runner.ui.log import configure

    configure(options.log_level)
    check_credentials(options, _addresses(options))
    place = make(options.name or '')
    with Journal.create(place.folder, {**meta_of('batch', arguments), 'what': _what(options)}) as journal:
        position = 0
        while not source.is_over:
            tasks = source.take(1000)
            journal.add(enumerate(tasks, position))
            position += len(tasks)
            source.wait()
        journal.note(is_complete=True)
    return detach(place, options)


def _addresses(options: argparse.Namespace) -> Sequence[Address]:
    """The hosts that are meant.

    Raises:
        UsageError: none is left.
        AddressError: one cannot be understood.
    """
    from remote_runner.hosts.address import parse_hosts

    addresses = parse_hosts(hosts_or_files(options.hosts), exclude=options.exclude)
    if not addresses:
        raise UsageError('no host is left', remedy='see HOSTS and -x')
    return addresses


def _job(
    options: argparse.Namespace,
    place: Place,
    addresses: Sequence[Address],
    source: Source,
    prepare: Callable[[Host], Links],
) -> Job:
    from remote_runner.jobs.policy import Policy
    from remote_runner.jobs.run import Job

    return Job(
        id=place.id,
        addresses=addresses,
        source=source,
        policy=policy_of(options, Policy(duplicates=True)),
        lease=options.lease,
        on_lost=options.on_lost,
        keep=options.keep,
        prepare=prepare,
        fanout=options.fanout,
    )


def _what(options: argparse.Namespace) -> str:
    """What it is, for lists of jobs."""
    return f'{options.commands} on {",".join(options.hosts)}'


def _results(options: argparse.Namespace) -> dict[str, str]:
    """What is wanted of each command."""
    from remote_runner.jobs.task import Task

    return {**Task('').results, **({'stderr': 'stderr'} if options.stderr else {})}


def _source(name: str, results: Mapping[str, str]) -> Source:
    """The commands, each as a task of which these results are wanted.

    Raises:
        UsageError: there is no such file.
    """
    from remote_runner.jobs.source import Given, Streamed

    if name == '-':
        if sys.stdin is None:
            raise UsageError('there is no standard input to read commands from')
        # Not the reader of `sys.stdin`, which Python wants to close at the end while a thread waits in it.
        return Streamed(open(sys.stdin.fileno(), 'rb', closefd=False), results=results)
    path = Path(name)
    try:
        file = path.open('rb')
    except OSError as error:
        raise UsageError(f'the commands {name} cannot be read: {error.strerror}') from error
    if not path.is_file():
        return Streamed(file, name, results)  # a pipe, whose writer would not stay for a second one
    file.close()
    return Given(_tasks(path, results))


def _tasks(path: Path, results: Mapping[str, str]) -> Iterator[Task]:
    from remote_runner.jobs.source import commands

    with path.open('rb') as file:
        yield from commands(file, str(path), results)


def _prepare(dependencies: str | None, stack: ExitStack) -> Callable[[Host], Links]:
    """Brings them to a host, if there are some."""
    if dependencies is None:
        from remote_runner.jobs.engines.base import nothing

        return nothing
    from remote_runner.events import Events
    from remote_runner.jobs.staging import Dependencies

    found = Dependencies(Path(dependencies), Events())
    stack.callback(found.close)
    return found.bring


def _show(source: Source, options: argparse.Namespace) -> int:
    """What would be run, and where: `--dry-run`."""
    from remote_runner.cli.job import tell_plan
    from remote_runner.ui.log import configure
    from remote_runner.ui.output import Output
    from remote_runner.ui.text import count

    configure(options.log_level)
    addresses = _addresses(options)
    output = Output()
    index = 0
    while not source.is_over:
        for task in source.take(1000):
            output.write(f'{index}\t{task.command}\n')
            index += 1
        source.wait()
    tell_plan(count(index, 'command'), addresses)
    return 0
