"""Deploys components that are made here, without a config file: python build.py HOSTS [SSH_CONFIG]"""

import sys
from pathlib import Path

from remote_runner.config import util
from remote_runner.config.component import Component, Config
from remote_runner.deploy.plan import make_plan
from remote_runner.deploy.run import Outcome, RunOptions, deploy
from remote_runner.events import Events
from remote_runner.hosts.ssh import Connector
from remote_runner.hosts.ssh_config import SshOptions


def run(hosts: str, ssh_config: str | None = None) -> Outcome:
    config = Config()
    for host in util.hosts(hosts):
        config.add_component(Component(name='load', host=host, executable='/usr/bin/uptime', wait=True))
    plan = make_plan(config, str(Path.cwd()), 'from-python')
    with Connector(SshOptions(config_file=ssh_config)) as connector:
        return deploy(plan, connector, RunOptions(), Events())


if __name__ == '__main__':
    outcome = run(*sys.argv[1:])
    for tracked in outcome.components:
        print(f'{tracked.host}: {tracked.output.strip() or tracked.reason}')
    sys.exit(outcome.exit_status)
