"""`remote_runner -c CONFIG`: load a config, carry it out, show what became of it."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from remote_runner import __version__
from remote_runner.cli.main import COMMANDS, show_error
from remote_runner.cli.options import (
    Parser,
    add_config_options,
    add_connection_options,
    add_copy_options,
    add_log_level,
    add_results_option,
    add_screen_option,
    copy_options,
    joined,
    seconds,
    ssh_options,
    ssh_record,
    sudo_credentials,
)
from remote_runner.defaults import START_TIMEOUT
from remote_runner.errors import UsageError

if TYPE_CHECKING:
    from remote_runner.config.settings import Settings
    from remote_runner.deploy.outset import Outset
    from remote_runner.deploy.plan import Plan
    from remote_runner.deploy.run import Outcome

_DESCRIPTION = """\
Deploy and run the components of a config file over many hosts, through plain SSH, in one screen session a host.

    remote_runner -c config.py
    remote_runner -c config.py -m ta3_muddler.py --arg-parser parser.py --extra-args "--hosts h1,h2"

Afterwards `remote_runner status` shows how they are, `logs` their output; `attach NAME` puts this terminal into the
window of one, and `stop` ends them. `ssh -t HOST screen -x runner` shows all windows of a host, from anywhere.

`remote_runner run NAMES` starts components of the last run again that have ended, as they were started; with -c as the
config says now.
"""


#: Options that say how a config is deployed, by their attributes.
_OF_DEPLOYING = (
    'muddlers',
    'arg_parser',
    'extra_args',
    'only',
    'limit',
    'no_kill',
    'keep_running',
    'no_zombie',
    'always_copy',
    'no_times',
    'no_hash_cache',
    'bwlimit',
    'delete',
    'terminate',
    'on_failure',
    'skip_unreachable',
    'results',
    'no_fetch',
)


def make_parser(*, names: bool = True) -> argparse.ArgumentParser:
    """The parser of the command's options; `names`: whether components may be named that are started again."""
    commands = '\n'.join(f'  {name:<10} {what}' for name, (_, what) in COMMANDS.items())
    parser = Parser(
        prog='remote_runner',
        description=_DESCRIPTION,
        usage='%(prog)s -c CONFIG [-m MUDDLER]... [options]\n       %(prog)s run NAMES... [options]\n'
        '       %(prog)s COMMAND ...',
        epilog=f'commands (each has its own --help):\n{commands}\n\n'
        'exit status: 0 done, 1 something that ran failed, 2 wrong usage or config,\n'
        '3 a host could not be reached, trusted or authenticated, 130 interrupted',
    )
    parser.add_argument('--version', action='version', version=f'remote_runner {__version__}')
    add_log_level(parser)
    if names:
        what = 'components to start again: names, `name@host`, or patterns of either with * and ?'
        parser.add_argument('names', nargs='*', metavar='NAMES', help=what)
    config = add_config_options(parser, required=not names)
    config.add_argument(
        '--only',
        action='append',
        default=[],
        metavar='NAMES',
        help='only these components: names or name@host with * and ?, several with commas; repeatable '
        '(the session is replaced all the same; with --no-kill or --keep-running the others run on)',
    )
    config.add_argument(
        '--limit', action='append', default=[], metavar='HOSTS', help='only the components of these hosts; repeatable'
    )
    _add_how(parser)
    add_connection_options(parser)
    return parser


def _add_how(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group('how to run it')
    add_screen_option(how)
    how.add_argument(
        '--no-kill',
        action='store_true',
        help='do not quit sessions of that name that an earlier run left: add windows to them',
    )
    how.add_argument(
        '--keep-running',
        action='store_true',
        help='leave components of the last run as they are that run, are ready and have not changed (their files '
        'neither); the others are replaced',
    )
    how.add_argument('--no-zombie', action='store_true', help='windows close when their programs end')
    add_copy_options(how)
    how.add_argument(
        '-t',
        '--terminate',
        action='store_true',
        help='when the components with wait=True have ended, end all others too',
    )
    how.add_argument(
        '--start-timeout',
        type=seconds,
        default=START_TIMEOUT,
        metavar='SECONDS',
        help=f'time limit of the start of one component (default: {START_TIMEOUT:g})',
    )
    how.add_argument(
        '--on-failure',
        choices=('leave', 'stop'),
        default='leave',
        help='when a component does not start, leave those that run (the default), or stop them',
    )
    how.add_argument(
        '--skip-unreachable',
        action='store_true',
        help='go on without hosts that cannot be reached, and without their components',
    )
    add_results_option(how)
    what = 'do not bring home what components wrote, after waiting for them'
    how.add_argument('--no-fetch', action='store_true', help=what)
    how.add_argument('--json', action='store_true', help='write events to stdout, one JSON object a line')
    how.add_argument('--remote-done-dir', metavar='DIR', help='accepted for old command lines; has no effect')


def main(arguments: Sequence[str], *, names: bool = True) -> int:
    """Run the command; its exit status. `names`: whether components may be named, see `make_parser`."""
    parser = make_parser(names=names)
    options = parser.parse_args(joined(arguments, ('--extra-args',)), argparse.Namespace(names=[]))
    if options.names:
        from remote_runner.cli.again import start_again

        if not options.config:
            _refuse_without_config(options, parser)
            options.hosts = []
            return start_again(options, end_first=False)
        options.only.append(','.join(options.names))
        options.no_kill = True
    else:
        check_how(options)
        if not options.config:
            parser.error('the following arguments are required: -c/--config')
    return deploy_config(options)


def check_how(options: argparse.Namespace) -> None:
    """Whether a deployment can be all that these options say.

    Raises:
        UsageError: it cannot.
    """
    if options.keep_running and options.no_kill:
        raise UsageError('--keep-running and --no-kill exclude each other')


def _refuse_without_config(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """What says how to deploy means nothing for components that are started as they were.

    Raises:
        UsageError: there is such an option.
    """
    for name in _OF_DEPLOYING:
        if getattr(options, name) != parser.get_default(name):
            option = next(action.option_strings[-1] for action in parser._actions if action.dest == name)
            raise UsageError(f'{option} needs a config: -c CONFIG')


def deploy_config(options: argparse.Namespace) -> int:
    """Carry out a config as these options say; the exit status."""
    from remote_runner.deploy.secrets import Secrets
    from remote_runner.hosts.ahead import Ahead
    from remote_runner.ui.log import configure

    configure(options.log_level)
    plan = load_plan(options)
    if not plan.components:
        what = f'{options.config} has sweeps alone'
        raise UsageError(what, remedy=f'run them with `remote_runner sweep {options.config}`')
    sudo = sudo_credentials(lambda: terminal.paused())
    if any(component.user for component in plan.components):
        plan = plan._replace(secrets=plan.secrets | Secrets([sudo.password()]))
    begin = outset_of(plan)
    addresses = begin.addresses if begin else plan.addresses()
    connector = Ahead(ssh_options(options, lambda: terminal.paused()), addresses, options.fanout).connector()
    if begin:
        begin.announce()
    # The rest is imported while the hosts answer.
    from remote_runner.deploy.record import Recorder
    from remote_runner.deploy.run import RunOptions, deploy
    from remote_runner.events import Events
    from remote_runner.ui.output import JsonLines
    from remote_runner.ui.terminal import Terminal

    events = Events()
    how = RunOptions(
        kill_first=not options.no_kill,
        zombie=not options.no_zombie,
        copying=copy_options(options),
        terminate=options.terminate,
        stop_on_failure=options.on_failure == 'stop',
        skip_unreachable=options.skip_unreachable,
        fanout=options.fanout,
        start_timeout=options.start_timeout,
        sudo=sudo,
        last=True,
        join=run_to_join(options),
        keep_running=options.keep_running,
        is_part=is_part(options),
        results=None if options.no_fetch else options.results or Path(plan.config_dir) / 'results',
        outset=begin,
    )
    if plan.sweeps and how.is_part:
        logging.getLogger(__name__).warning('sweeps run with all components alone: they are left out')
    elif plan.sweeps:
        from remote_runner.cli.experiment import Sweeps

        how = how._replace(experiment=Sweeps(plan, connector, options, lambda: terminal.paused()))
    if how.join is None:
        _warn_of_others(options.screen, plan, ssh_record(options))
    terminal = Terminal(table=not options.json)
    events.listen(terminal)
    if options.json:
        events.listen(JsonLines())
    events.listen(Recorder(plan, ssh_record(options), is_part=how.is_part))
    with connector, terminal:
        outcome = deploy(plan, connector, how, events)
    _show_end(outcome, ssh_record(options))
    return outcome.exit_status


def outset_of(plan: Plan) -> Outset | None:
    """What is known before the first host is connected; None where all is decided."""
    if not plan.undecided():
        return None
    from remote_runner.deploy.outset import outset

    return outset(plan)


def _warn_of_others(session: str, plan: Plan, ssh: Mapping[str, str]) -> None:
    """The session is replaced on the hosts of this plan alone: say where else the last run started something."""
    from remote_runner.deploy.record import records
    from remote_runner.hosts.address import fold
    from remote_runner.ui.tables import stop_command

    last = next(records(session), None)
    own = {address.where for address in plan.addresses()}
    others = [] if last is None or last.is_stopped() else sorted({c['host'] for c in last.components} - own)
    if others:
        hosts = fold(others)
        logging.getLogger(__name__).warning(
            'what the last run of session %s started on %s is left alone, as it is not in this plan; '
            'to end it: %s',
            session,
            hosts,
            stop_command(hosts, session, ssh),
        )


def is_part(options: argparse.Namespace) -> bool:
    """Whether components are left out of which the run to which these belong may have more."""
    return bool(options.names or options.only or options.limit or options.no_kill)


def run_to_join(options: argparse.Namespace) -> str | None:
    """The run to which components belong that are named; None: this is a run of its own."""
    from remote_runner.deploy.record import records

    if not (options.names or options.keep_running or options.no_kill):
        return None
    return next((record.run for record in records(options.screen)), None)


def load_plan(options: argparse.Namespace) -> Plan:
    """The plan of the config and muddlers that these options name.

    Raises:
        ConfigFaults, UsageError: it makes no sense.
    """
    from remote_runner.config.loader import load_noting
    from remote_runner.deploy.plan import check_session, make_plan
    from remote_runner.deploy.secrets import Secrets

    check_session(options.screen)
    settings = _settings(options)
    # With --json stdout is for JSON alone, and configs like to print.
    with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
        loaded = load_noting(settings)
    plan = make_plan(
        loaded.config,
        settings.config_dir,
        options.screen,
        settings.config_file,
        loaded.faults,
        Secrets([settings.ssh_pass]),
    )
    if plan.undecided():
        from remote_runner.deploy.placing import remembering
        from remote_runner.deploy.record import records

        plan = remembering(plan, records(options.screen))
    return _selected(plan, options)


def _settings(options: argparse.Namespace) -> Settings:
    from remote_runner.config.settings import Settings
    from remote_runner.hosts.credentials import Credentials

    return Settings(
        config_file=options.config,
        muddlers=tuple(options.muddlers),
        extra_args=options.extra_args,
        arg_parser=options.arg_parser,
        ssh_user=options.user,
        ssh_pass=Credentials(options.password).password(),
        log_level=options.log_level,
        screen=options.screen,
        kill_first=not options.no_kill,
        terminate=options.terminate,
        always_copy=options.always_copy,
        no_zombie=options.no_zombie,
        remote_done_dir=options.remote_done_dir,
        more={
            'only': options.only,
            'limit': options.limit,
            'start_timeout': options.start_timeout,
            'connect_timeout': options.connect_timeout,
            'fanout': options.fanout,
            'ssh_config': options.ssh_config,
        },
    )


def _selected(plan: Plan, options: argparse.Namespace) -> Plan:
    if options.only:
        plan = plan.only(name for names in options.only for name in names.split(','))
    if options.limit:
        plan = plan.limit(options.limit)
    return plan


def _show_end(outcome: Outcome, ssh: Mapping[str, str]) -> None:
    """What ended the run, and after an interruption what runs on and how to stop it."""
    from remote_runner.errors import ComponentFailed, HostsFailed, StartFailed
    from remote_runner.ui.tables import stop_lines

    log = logging.getLogger(__name__)
    for host, why in outcome.skipped.items():
        log.warning('%s was left out, with its components: %s', host, why)
    if isinstance(outcome.error, KeyboardInterrupt):
        log.error('interrupted; what was starting was taken back')
    elif isinstance(outcome.error, HostsFailed):
        log.error('%s', outcome.error.advice)
    elif outcome.error is not None and not isinstance(outcome.error, StartFailed | ComponentFailed):
        show_error(outcome.error)  # of components and hosts the display has said it all
    if outcome.error is not None:
        log.debug('what ended the run', exc_info=outcome.error)
        for line in stop_lines(outcome, ssh):
            log.error('%s', line)
