"""`remote_runner sweep`: one command over many sets of parameters, on the slots of many hosts."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any

from remote_runner.cli.detach import add_detach_option
from remote_runner.cli.job_options import add_policy_options, add_result_options, format_of
from remote_runner.cli.job_options import policy_of as policy_said
from remote_runner.cli.options import (
    Parser,
    add_connection_options,
    add_log_level,
    add_muddler_options,
    hosts_or_files,
    joined,
    ssh_options,
)
from remote_runner.defaults import SCREEN, START_TIMEOUT
from remote_runner.errors import RemoteRunnerError, UsageError

if TYPE_CHECKING:
    from remote_runner.cli.job import Running
    from remote_runner.deploy.sweeps import SweepPlan
    from remote_runner.hosts.pool import Opens
    from remote_runner.hosts.ssh import Connector
    from remote_runner.jobs.journal import Journal
    from remote_runner.jobs.places import Place
    from remote_runner.jobs.run import Job
    from remote_runner.jobs.source import Source
    from remote_runner.jobs.staging import Files

log = logging.getLogger(__name__)

_DESCRIPTION = """\
Run the sweeps of a config: one command over many sets of parameters, on the slots of many hosts. Each attempt runs in
a folder of its own; what is accepted of its results is collected as the config says.

    remote_runner sweep latency.py
    remote_runner sweep study.py coarse --retries 0 --joblog log.tsv

A config with components and sweeps is carried out by `remote_runner -c`: there the components are started first.
Whatever happens to this command, `remote_runner jobs resume` goes on where it was. Options beat what the config says.
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = Parser(
        prog='remote_runner sweep',
        description=_DESCRIPTION,
        usage='%(prog)s SWEEP [NAMES] [options]',
        epilog='exit status: 0 all succeeded, 1 some failed, 2 wrong usage or config, 3 no host could be had, 130 '
        'interrupted',
    )
    parser.add_argument('config', metavar='SWEEP', help='the config, a Python program')
    parser.add_argument('names', nargs='*', metavar='NAMES', help='sweeps of it (default: all, one after the other)')
    what = 'run on these hosts, in the place of those that the config names, see `batch`'
    parser.add_argument('-H', '--hosts', action='append', metavar='HOSTS', help=what)
    add_muddler_options(parser.add_argument_group('what to run'))
    add_policy_options(parser, duplicates=False)
    add_result_options(parser, default=None)
    add_detach_option(parser)
    add_log_level(parser)
    add_connection_options(parser)
    parser.set_defaults(
        keep=None,
        lease=None,
        on_lost=None,
        screen=SCREEN,
        start_timeout=START_TIMEOUT,
        only=[],
        limit=[],
        no_kill=False,
        no_zombie=False,
        terminate=False,
        always_copy=False,
        remote_done_dir=None,
        hosts=None,
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = make_parser().parse_intermixed_args(joined(arguments, ('--extra-args',)))
    if (options.tag or options.keep_order) and options.format is None:
        options.format = 'text'
    if options.format is not None:
        format_of(options)
    from remote_runner.ui.log import configure

    configure(options.log_level)
    plans = _plans(options)
    if options.dry_run:
        return _show(plans)
    from remote_runner.cli.job import meta_of

    if options.detach:
        return _detach(plans, options, meta_of('sweep', arguments))
    if options.format is not None:
        from remote_runner.ui.output import check_stdout

        check_stdout()
    status = 0
    with _connector(options, plans) as connector:
        for plan in plans:
            meta = {**meta_of('sweep', arguments), 'sweep': plan.name, 'what': options.config}
            status = max(status, begin(plan, options, connector, meta))
    return status


def begin(
    plan: SweepPlan,
    options: argparse.Namespace,
    connector: Opens,
    meta: dict[str, object],
    meet: Callable[[Callable[[], None]], None] = lambda cancel: None,
) -> int:
    """Run a sweep from its beginning, and collect its results; the exit status.

    Args:
        plan: the sweep.
        options: those of `make_parser`.
        connector: makes connections.
        meta: what the journal keeps of the command.
        meet: is given what cancels the sweep.
    """
    from remote_runner.cli.job import Running, Told
    from remote_runner.jobs.journal import Journal
    from remote_runner.jobs.places import make
    from remote_runner.jobs.source import Given
    from remote_runner.jobs.sweeping import tasks_of
    from remote_runner.ui.text import count

    hosts, tasks = len(plan.hosts), len(plan.tasks)
    log.info('sweep %s: %s on %s', plan.name, count(tasks, 'task'), count(hosts, 'host'))
    with ExitStack() as stack:
        place = make(options.name or plan.name)
        journal = stack.enter_context(Journal.create(place.folder, meta))
        files = _files(plan, place, stack)
        if not plan.keep_files:
            stack.callback(lambda: _remove(files, plan, connector, options, files.hosts))
        job = _job(plan, options, place, Given(tasks_of(plan)), files)
        running = Running(job, place, Told.of(options))
        meet(running.cancel)
        return _collect(plan, journal, running, running.begin(journal, connector))


def _detach(plans: Sequence[SweepPlan], options: argparse.Namespace, meta: dict[str, object]) -> int:
    """Let it be run in the background; the exit status."""
    from remote_runner.cli.detach import check_credentials, detach
    from remote_runner.jobs.journal import Journal
    from remote_runner.jobs.places import make
    from remote_runner.jobs.sweeping import tasks_of

    if len(plans) > 1:
        names = ', '.join(plan.name for plan in plans)
        raise UsageError('--detach takes one sweep at a time', remedy=f'name one of {names}')
    [plan] = plans
    check_credentials(options, plan.hosts)
    place = make(options.name or plan.name)
    with Journal.create(place.folder, {**meta, 'sweep': plan.name, 'what': options.config}) as journal:
        journal.add(enumerate(tasks_of(plan)))
        journal.note(is_complete=True)
    return detach(place, options)


def resume(place: Place, journal: Journal, options: argparse.Namespace) -> int:
    """Go on with a sweep that another master began; see `batch.resume`."""
    from remote_runner.cli.job import Running, Told, tell_changes
    from remote_runner.jobs.source import Given
    from remote_runner.jobs.sweeping import tasks_of
    from remote_runner.ui.log import configure

    configure(options.log_level)
    options.names = [journal.meta['sweep']]
    [plan] = _plans(options)
    tell_changes(options.config, journal.match(list(tasks_of(plan))), 'task')
    with _connector(options, [plan]) as connector, ExitStack() as stack:
        files = _files(plan, place, stack)
        if not plan.keep_files:  # also what the master before has brought
            stack.callback(lambda: _remove(files, plan, connector, options, {host.where for host in plan.hosts}))
        job = _job(plan, options, place, Given(()), files)
        running = Running(job, place, Told.of(options))
        return _collect(plan, journal, running, running.resume(journal, connector))


def _plans(options: argparse.Namespace) -> Sequence[SweepPlan]:
    """The sweeps that are wanted."""
    from remote_runner.cli.run import load_plan

    is_apart = _stdout_is_apart(options)
    with redirect_stdout(sys.stderr) if is_apart else nullcontext():
        plan = load_plan(options)
    if plan.components:
        what = f'{options.config} has components, which its sweeps may need'
        raise UsageError(what, remedy='`remote_runner -c` starts them, and runs the sweeps')
    known = {sweep.name: sweep for sweep in plan.sweeps}
    for name in options.names:
        if name not in known:
            from remote_runner.nearest import nearest

            raise UsageError(f'there is no sweep {name!r}', remedy=f'the nearest is {nearest(name, known)!r}')
    wanted = [known[name] for name in options.names or known]
    if options.hosts:
        from remote_runner.hosts.address import parse_hosts

        hosts = tuple(parse_hosts(hosts_or_files(options.hosts)))
        wanted = [sweep._replace(hosts=hosts) for sweep in wanted]
    return [telling_stderr(sweep) for sweep in wanted] if is_apart else wanted


def _stdout_is_apart(options: argparse.Namespace) -> bool:
    """Whether results go to stdout, and nothing else may: users' code likes to print."""
    return options.format is not None and not sys.stdout.isatty()


def telling_stderr(plan: SweepPlan) -> SweepPlan:
    """The same, but what its functions print goes to stderr."""
    call = plan.call

    def call_apart(function: Callable[..., Any], *arguments: object) -> Any:
        with redirect_stdout(sys.stderr):
            return call(function, *arguments)

    return plan._replace(call=call_apart)


def _connector(options: argparse.Namespace, plans: Sequence[SweepPlan]) -> Connector:
    from remote_runner.hosts.ahead import Ahead

    addresses = list(dict.fromkeys(address for plan in plans for address in plan.hosts))
    return Ahead(ssh_options(options), addresses, options.fanout).connector()


def _files(plan: SweepPlan, place: Place, stack: ExitStack) -> Files:
    """What its tasks need. What is not kept at the end lies in a folder of its own: another sweep may need the same."""
    from remote_runner.events import Events
    from remote_runner.jobs.staging import Files

    owner = f'{plan.config_dir}:{plan.name}' if plan.keep_files else place.id
    files = Files(plan.files, plan.executables, plan.program, owner, Events())
    stack.callback(files.close)
    return files


def _remove(
    files: Files, plan: SweepPlan, connector: Opens, options: argparse.Namespace, names: Collection[str]
) -> None:
    """Remove from these hosts what it has brought."""
    files.remove([host for host in plan.hosts if host.where in names], connector, options.fanout)


def _job(plan: SweepPlan, options: argparse.Namespace, place: Place, source: Source, files: Files) -> Job:
    from remote_runner.jobs.run import Job
    from remote_runner.jobs.sweeping import Validation, policy_of

    return Job(
        id=place.id,
        addresses=plan.hosts,
        source=source,
        policy=policy_said(options, policy_of(plan)),
        lease=options.lease or plan.lease,
        on_lost=options.on_lost or plan.on_lost,
        keep=options.keep or plan.keep,
        prepare=files.bring,
        give_up=files.give_up,
        validate=None if plan.validate is None else Validation(plan),
        fanout=options.fanout,
    )


def _collect(plan: SweepPlan, journal: Journal, running: Running, status: int) -> int:
    if plan.collector is None:
        return status
    if running.is_cancelled:
        log.warning('sweep %s was cancelled: its results are in the journal, and are not collected', plan.name)
        return status
    if not journal.counts().done:
        log.warning('no task of sweep %s has succeeded: nothing is collected', plan.name)
        return status
    from remote_runner.jobs.sweeping import collect
    from remote_runner.ui.text import count

    try:
        tasks = collect(plan, journal)
    except RemoteRunnerError:
        again = 'resume' if journal.meta['kind'] == 'sweep' else 'export csv'
        what = 'the results of sweep %s are in the journal: `remote_runner jobs %s %s` brings them out again'
        log.warning(what, plan.name, again, journal.folder.name)
        raise
    log.info('the results of %s of sweep %s are collected', count(tasks, 'task'), plan.name)
    return status


def _show(plans: Sequence[SweepPlan]) -> int:
    """What would be run, and where: `--dry-run`."""
    from remote_runner.cli.job import tell_plan
    from remote_runner.ui.output import Output
    from remote_runner.ui.text import count

    output = Output()
    for plan in plans:
        for position, task in enumerate(plan.tasks):
            output.write(f'{plan.name}\t{position}\t{task.command}\n')
        tell_plan(f'sweep {plan.name}: {count(len(plan.tasks), "task")}', plan.hosts)
    return 0
