"""`--detach`: the master of a job runs in a screen session of its own, and goes on without the terminal.

    remote_runner batch commands.txt -H node[1-9] --detach
    remote_runner jobs attach
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from remote_runner.cli.options import ssh_options
from remote_runner.defaults import LOCALHOST
from remote_runner.errors import HostError, HostsFailed, HostUnreachable, JobNotRunning, RemoteRunnerError, UsageError
from remote_runner.hosts.credentials import Credentials
from remote_runner.hosts.ssh_config import SshOptions

if TYPE_CHECKING:
    from remote_runner.hosts.address import Address
    from remote_runner.jobs.places import Place

log = logging.getLogger('remote_runner')
#: Seconds that the master has to begin, and between two looks at whether it has.
PATIENCE, LOOK = 30.0, 0.05
#: What the master of a job is told when it is begun: nobody is there whom it could ask.
_ENVIRONMENT = ('SSH_AUTH_SOCK', 'RR_PASS_FILE', 'XDG_STATE_HOME', 'PYTHONPATH', 'HOME', 'PATH')


def add_detach_option(parser: argparse.ArgumentParser) -> None:
    """`--detach`."""
    what = 'let the job go on in a screen session of this machine, and end; `jobs attach` follows it'
    parser.add_argument('--detach', action='store_true', help=what)


def add_detach_to_option(parser: argparse.ArgumentParser) -> None:
    """`--detach-to`."""
    what = 'let it go on on another host, from which all hosts can be reached, and which has remote_runner, too'
    parser.add_argument('--detach-to', metavar='HOST', help=what)


def check_credentials(options: argparse.Namespace, addresses: Iterable[Address]) -> None:
    """Whether the hosts let us in when nobody can be asked for a password.

    Raises:
        UsageError: a password was given that the job could not be given.
        HostsFailed: some do not, or none can be reached.
    """
    if options.password:
        remedy = 'name a file that holds it in the environment variable RR_PASS_FILE'
        raise UsageError('--detach hands no password on', remedy=remedy)
    from remote_runner.hosts.ahead import Ahead
    from remote_runner.hosts.host import Host
    from remote_runner.hosts.pool import Pool

    unattended = ssh_options(options)
    unattended.credentials = Credentials()
    wanted = list(addresses)
    connector = Ahead(unattended, wanted, options.fanout).connector()
    failures: list[RemoteRunnerError] = []
    away = 0
    with connector, Pool(connector, fanout=options.fanout) as pool:
        for _, outcome in pool.connect(wanted):
            if isinstance(outcome, HostUnreachable):
                log.warning('%s; the job will try again', outcome)
                away += 1
            elif not isinstance(outcome, Host):
                failures.append(outcome)
    if failures:
        raise HostsFailed(failures, 'the job was not begun: it could not ask anybody for what is missing')
    if away == len(wanted):
        raise HostError('no host can be reached: the job was not begun')


def detach(place: Place, options: argparse.Namespace) -> int:
    """Begin a screen session in which the job is run; the exit status.

    Args:
        place: of the job, with a journal that nobody holds.
        options: of the command.
    """
    from remote_runner.config.component import Component, Config
    from remote_runner.deploy.plan import make_plan
    from remote_runner.deploy.record import Recorder
    from remote_runner.deploy.run import RunOptions, deploy
    from remote_runner.events import Events
    from remote_runner.hosts.ssh import Connector

    component = Component()
    component.name = place.id
    component.host = LOCALHOST
    component.base_dir = str(Path.cwd())
    component.executable = sys.executable
    component.args = ['-P', '-m', 'remote_runner', 'jobs', 'resume', place.id, '--no-results', '-l', options.log_level]
    component.env = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    config = Config()
    config.add_component(component)
    session = f'job-{place.id}'
    plan = make_plan(config, str(Path.cwd()), session)
    events = Events()
    events.listen(Recorder(plan, {}))
    with Connector(SshOptions()) as connector:
        outcome = deploy(plan, connector, RunOptions(zombie=False, last=True), events)
    if outcome.error is not None:
        raise outcome.error
    _wait_for_master(place)
    log.info('job %s runs in the screen session %s', place.id, session)
    log.info('follow it: remote_runner jobs attach %s; end it: remote_runner jobs cancel %s', place.id, place.id)
    return 0


def _wait_for_master(place: Place) -> None:
    """Until it is at work, or was.

    Raises:
        JobNotRunning: it does not come.
    """
    from remote_runner.jobs.holding import master
    from remote_runner.jobs.journal import Journal

    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    with Journal.look(place.folder) as reader:
        while not reader.meta.get('epoch'):
            if time.monotonic() > deadline:
                what = f'the master of job {place.id} has not begun within {PATIENCE:g} s'
                raise JobNotRunning(what, remedy=f'`remote_runner logs --screen job-{place.id}` shows what it says')
            pause.wait(LOOK)
    if master(place.folder) is None:
        log.debug('the master of job %s has ended already', place.id)
