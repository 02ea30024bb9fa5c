"""`remote_runner plan`: what a run with the same options would do."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from remote_runner.cli import run
from remote_runner.cli.main import show_error
from remote_runner.cli.options import copy_options, joined, ssh_options
from remote_runner.errors import HostError

if TYPE_CHECKING:
    from remote_runner.deploy.difference import HostDifference
    from remote_runner.deploy.outcome import RunOptions
    from remote_runner.deploy.outset import Outset
    from remote_runner.deploy.plan import Plan
    from remote_runner.errors import RemoteRunnerError
    from remote_runner.hosts.address import Address
    from remote_runner.hosts.pool import Pool

_DESCRIPTION = """\
Show what a run with these options would do: hosts, components in their order, files with their sizes. Nothing is done,
and no host is connected to. With --diff all are: which files differ there, and what runs there and would be ended, or
(with --keep-running) would go on, and on which hosts components would run of which that is decided then; nothing is
changed. Options of a run that make no difference here are taken, too.

    remote_runner plan -c config.py -m ta3_muddler.py
    remote_runner plan -c config.py --diff
    remote_runner plan -c config.py --diff --keep-running
    remote_runner plan -c config.py --json | jq '.indexes[].components[].name'
"""


log = logging.getLogger(__name__)

#: Options of a run that say how it goes on: they change nothing of what is planned. Configs may look at them.
_OF_RUNS_ALONE = (
    'version',
    'no_zombie',
    'terminate',
    'start_timeout',
    'on_failure',
    'results',
    'no_fetch',
    'remote_done_dir',
)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options: all those of a run, so that a command line needs but one word more."""
    parser = run.make_parser(names=False)
    for action in parser._actions:
        if action.dest in _OF_RUNS_ALONE:
            action.help = argparse.SUPPRESS
        elif action.dest == 'json':
            action.help = 'write the plan to stdout as one JSON object'
    parser.prog = 'remote_runner plan'
    parser.description = _DESCRIPTION
    parser.usage = '%(prog)s -c CONFIG [-m MUDDLER]... [options]'
    parser.epilog = (
        'exit status: 0 the config is right, 2 it is not, 1 a file vanished meanwhile, 3 (with --diff) a host could '
        'not be reached'
    )
    parser.add_argument('--diff', action='store_true', help='connect to the hosts and compare what is there')
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = make_parser().parse_args(joined(arguments, ('--extra-args',)))
    from remote_runner.deploy.preview import preview
    from remote_runner.ui.log import configure
    from remote_runner.ui.output import Output
    from remote_runner.ui.preview import differences_text, preview_text

    configure(options.log_level)
    options.names = []
    run.check_how(options)
    plan = run.load_plan(options)
    found: list[HostDifference] = []
    failures: dict[str, RemoteRunnerError] = {}
    if options.diff:
        plan, found, failures = _differences(plan, options)
    shown = preview(plan)
    if options.diff:
        shown['differences'] = [each.to_dict() for each in found]
        shown['unreachable'] = {host: str(error) for host, error in failures.items()}
    if options.json:
        Output().write(f'{json.dumps(shown, indent=2)}\n')
    else:
        Output().write(preview_text(shown) + differences_text(shown.get('differences', [])))
    if options.skip_unreachable and found and all(isinstance(error, HostError) for error in failures.values()):
        for host, error in failures.items():
            log.warning('%s would be left out, with its components: %s', host, error.what)
        return 0
    for error in failures.values():
        show_error(error)
    return max((error.exit_status for error in failures.values()), default=0)


def _differences(
    plan: Plan, options: argparse.Namespace
) -> tuple[Plan, list[HostDifference], dict[str, RemoteRunnerError]]:
    """The plan with the hosts that would be decided, what differs on hosts, in its order, and why others cannot say."""
    from remote_runner.hosts.ahead import Ahead

    begin = run.outset_of(plan)
    addresses = begin.addresses if begin else plan.addresses()
    connector = Ahead(ssh_options(options), addresses, options.fanout).connector()
    # The rest is imported while the hosts answer.
    from remote_runner.deploy.difference import HostDifference, differences
    from remote_runner.deploy.outcome import RunOptions
    from remote_runner.hosts.pool import Pool

    how = RunOptions(
        kill_first=not options.no_kill,
        copying=copy_options(options),
        fanout=options.fanout,
        join=run.run_to_join(options),
        keep_running=options.keep_running,
        is_part=run.is_part(options),
        outset=begin,
    )
    with connector, Pool(connector, fanout=options.fanout) as pool:
        if begin:
            plan = _decided(plan, begin, pool, how)
        outcomes = differences(plan, pool, how)
    found = [outcomes[address.where] for address in plan.addresses()]
    failures = {host: outcome for host, outcome in outcomes.items() if not isinstance(outcome, HostDifference)}
    return plan, [outcome for outcome in found if isinstance(outcome, HostDifference)], failures


def _decided(plan: Plan, begin: Outset, pool: Pool, how: RunOptions) -> Plan:
    """The plan with the hosts on which its components would run now; why, where they were elsewhere, is told."""
    from remote_runner.deploy.loads import Connected, decide_now
    from remote_runner.errors import RemoteRunnerError

    def connect(addresses: Sequence[Address]) -> Connected:
        failures: dict[str, RemoteRunnerError] = {}
        for address, outcome in pool.connect(addresses):
            if isinstance(outcome, RemoteRunnerError):
                failures[address.where] = outcome
                log.warning('%s', outcome)
        return {a.where: pool.hosts[a.where] for a in addresses if a.where in pool.hosts}, failures

    candidates = {address.where for address in plan.candidates()}
    first = connect([address for address in begin.addresses if address.where in candidates])
    decided = decide_now(plan, first, connect, how, peek=True)
    for name, why in decided.untried.items():
        log.warning('%s: %s', name, why)
    for choice in decided.choices:
        if choice.why:
            log.warning('%s would run on %s: %s', choice.component.name, choice.address.where, choice.why)
    for name, names in decided.left.items():
        if names and how.kill_first:
            log.warning('%s: %s would be ended there', name, ', '.join(names))
    for host in pool.hosts.keys() - {component.address.where for component in decided.plan.components}:
        pool.forget(host)
    return decided.plan
