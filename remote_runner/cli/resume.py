"""`remote_runner jobs resume`: a job whose master is gone goes on."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from remote_runner.cli.job_options import POLICY, add_policy_options, words_said
from remote_runner.cli.options import Parser, add_connection_options, add_log_level, hosts_or_files
from remote_runner.errors import ControlFailed, JobHeld, UsageError
from remote_runner.jobs.holding import Master, master
from remote_runner.jobs.journal import Journal
from remote_runner.jobs.places import Place
from remote_runner.jobs.policy import Cause
from remote_runner.jobs.summary import meant
from remote_runner.ui.output import check_stdout
from remote_runner.ui.text import count

log = logging.getLogger(__name__)
#: What goes on with a job of each kind: modules with `make_parser` and `resume`.
KINDS = {'batch': 'remote_runner.cli.batch', 'sweep': 'remote_runner.cli.sweep'}

_DESCRIPTION = """\
Go on with a batch or sweep where its master left it: it was interrupted, killed, or its machine was switched off. What
has succeeded is not run again; what still runs on the hosts is taken over. The file of its commands is read again:
what stands there now and was not run before is run, whatever its place. A job that runs and is paused goes on there.

    remote_runner jobs resume
    remote_runner jobs resume latency --retry-failed -H node[1-8]
    remote_runner jobs resume --retries 5 --timeout 1h

What is said of retries, time limits and the like holds from now on, also when the job is resumed once more. With more
retries, or for more causes, what had failed for good is tried again as far as it now may be.
"""
_AGAIN = (Cause.EXIT, Cause.TIMEOUT, Cause.REJECTED, Cause.RESOURCES, Cause.LOST, Cause.POISON)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = Parser(
        prog='remote_runner jobs resume',
        description=_DESCRIPTION,
        usage='%(prog)s [ID] [options]',
        epilog='exit status: that of the job, as of `batch`',
    )
    parser.add_argument('id', nargs='?', metavar='ID', help='the job that is meant (default: the newest)')
    parser.add_argument('--retry-failed', action='store_true', help='try once more what has finally failed')
    what = 'other hosts than those that it was begun with, see `batch`'
    parser.add_argument('-H', '--hosts', action='append', metavar='HOSTS', help=what)
    parser.add_argument('--no-results', action='store_true', help='write no results to stdout')
    add_policy_options(parser, duplicates=None)
    add_log_level(parser)
    add_connection_options(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    said = make_parser().parse_intermixed_args(arguments)
    place = meant(said.id)
    at = master(place.folder)
    if at is not None:
        return _unpause(place, at, said)
    with Journal.open(place.folder) as journal:
        if journal.meta.get('kind') not in KINDS:
            what = f'job {place.id} is a sweep of a config with components'
            raise UsageError(what, remedy='run that again with `remote_runner -c`')
        options = _options(place, journal, said, arguments)
        if options.format is not None:
            check_stdout()
        causes = (Cause.CANCELLED, *_AGAIN) if said.retry_failed else (Cause.CANCELLED,)
        forgiven = journal.forgive(causes)
        if forgiven:
            log.info('trying %s again', count(forgiven, 'task'))
        status: int = importlib.import_module(KINDS[journal.meta['kind']]).resume(place, journal, options)
        return status


def _unpause(place: Place, at: Master, said: argparse.Namespace) -> int:
    """One that runs goes on after a pause.

    Raises:
        JobHeld: options were said that only another master could follow, or it is not paused.
        ControlFailed: it has ended meanwhile.
    """
    from remote_runner.jobs.control import ask
    from remote_runner.ui.output import Output

    what = f'job {place.id} is being worked on by {at.in_full}, as it was begun'
    held = JobHeld(what, remedy=f'`remote_runner jobs attach {place.id}` follows it')
    usual = vars(make_parser().parse_intermixed_args([]))
    if {name for name, value in vars(said).items() if value != usual[name]} - {'id', 'log_level'}:
        raise held
    try:
        ask(place.folder, {'do': 'resume'})
    except ControlFailed as error:
        if master(place.folder) is None:
            raise
        raise held from error
    Output().write(f'job {place.id} goes on\n')
    return 0


def _options(
    place: Place, journal: Journal, said: argparse.Namespace, arguments: Sequence[str]
) -> argparse.Namespace:
    """The options with which it was begun, over them those of the policy that resumes have said, and all said now."""
    meta = journal.meta
    _stay(said)
    try:
        os.chdir(meta['folder'])
    except OSError as error:
        what = f'job {place.id} was begun in {meta["folder"]}, which cannot be entered: {error.strerror}'
        raise UsageError(what) from error
    module = importlib.import_module(KINDS[meta['kind']])
    options: argparse.Namespace = module.make_parser().parse_intermixed_args(meta['arguments'])
    now = {name: word for name, word in words_said(make_parser(), arguments).items() if name in POLICY}
    policy = {**meta.get('resumed_with', {}), **now}
    if now:
        journal.note(resumed_with=policy)
    usual = vars(make_parser().parse_intermixed_args([]))
    changed = make_parser().parse_intermixed_args(list(policy.values()))
    for name, value in [*vars(changed).items(), *vars(said).items()]:
        if value != usual[name] and name in options:
            setattr(options, name, value)
    if said.no_results:
        options.format = None
    return options


def _stay(said: argparse.Namespace) -> None:
    """Files that were named now mean the same from any folder."""
    if said.ssh_config is not None and Path(said.ssh_config).is_file():
        said.ssh_config = str(Path(said.ssh_config).absolute())
    if said.hosts is not None:
        texts = hosts_or_files(said.hosts)
        said.hosts = [f'@{Path(text[1:]).absolute()}' if text.startswith('@') else text for text in texts]
