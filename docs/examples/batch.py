"""Runs commands over the slots of hosts, without the command line: python batch.py HOSTS [SSH_CONFIG]"""

import sys

from remote_runner.hosts.address import parse_hosts
from remote_runner.hosts.ssh import Connector
from remote_runner.hosts.ssh_config import SshOptions
from remote_runner.jobs.policy import Policy
from remote_runner.jobs.simple import results


def squares(hosts: str, ssh_config: str | None = None) -> int:
    commands = (f'echo $(({number} * {number}))' for number in range(10))
    total = 0
    with Connector(SshOptions(config_file=ssh_config)) as connector:
        for result in results(commands, parse_hosts([hosts]), connector, Policy(retries=1)):
            if result.ended.outcome.cause is None:
                total += int(result.ended.results['stdout'])
            else:
                print(f'task {result.position}: {result.ended.outcome.cause.value} on {result.ended.host}')
    return total


if __name__ == '__main__':
    print(squares(*sys.argv[1:]))
