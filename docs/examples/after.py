"""Says how the components of a session are, and stops it: python after.py SESSION HOSTS [SSH_CONFIG]"""

import sys

from remote_runner.deploy.lifecycle import stop
from remote_runner.deploy.session import Session
from remote_runner.deploy.target import Target
from remote_runner.events import Events
from remote_runner.hosts.address import parse_hosts
from remote_runner.hosts.ssh import Connector
from remote_runner.hosts.ssh_config import SshOptions


def look_and_stop(name: str, hosts: str, ssh_config: str | None = None) -> None:
    target = Target.of_hosts(name, parse_hosts([hosts]))
    with Connector(SshOptions(config_file=ssh_config)) as connector, Session(target, connector, Events()) as session:
        session.connect()
        for host, error in session.failures.items():
            print(f'{host}: {error}')
        for seen in session.components:
            print(f'{seen.label} {seen.state}')
        stopped = stop(session, session.named(['*']), quit_sessions=True)
        print(f'{len(stopped)} stopped')


if __name__ == '__main__':
    look_and_stop(*sys.argv[1:])
