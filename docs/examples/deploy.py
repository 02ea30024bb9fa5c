"""Deploys a config, and says what happens: python deploy.py CONFIG [SSH_CONFIG]"""

import sys

from remote_runner.config.loader import load
from remote_runner.config.settings import Settings
from remote_runner.deploy.plan import make_plan
from remote_runner.deploy.run import Outcome, RunOptions, deploy
from remote_runner.errors import RemoteRunnerError
from remote_runner.events import ComponentFailed, ComponentStarted, Event, Events
from remote_runner.hosts.ssh import Connector
from remote_runner.hosts.ssh_config import SshOptions


def show(event: Event) -> None:
    if isinstance(event, ComponentStarted):
        print(f'{event.component} runs on {event.host} as process {event.pid}')
    elif isinstance(event, ComponentFailed):
        print(f'{event.component} failed on {event.host}: {event.reason}')


def run(config_file: str, ssh_config: str | None = None) -> Outcome:
    settings = Settings(config_file=config_file, screen='from-python')
    loaded = load(settings)
    plan = make_plan(loaded.config, settings.config_dir, settings.screen, settings.config_file)
    events = Events()
    events.listen(show)
    with Connector(SshOptions(config_file=ssh_config)) as connector:
        return deploy(plan, connector, RunOptions(stop_on_failure=True), events)


if __name__ == '__main__':
    try:
        outcome = run(*sys.argv[1:])
    except RemoteRunnerError as error:
        sys.exit(f'{error}')
    if outcome.error:
        print(outcome.error, file=sys.stderr)
    sys.exit(outcome.exit_status)
