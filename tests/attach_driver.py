"""Is the terminal of a window of a session, or of a command, on a host, as `remote_runner attach` will be.

    python -m tests.attach_driver [options] HOST window SERVER SESSION WINDOW
    python -m tests.attach_driver [options] HOST command COMMAND
"""

from __future__ import annotations

import argparse
import os
import sys

from remote_runner.errors import RemoteRunnerError
from remote_runner.hosts.address import parse_address
from remote_runner.hosts.pool import connect
from remote_runner.hosts.ssh import Connector
from remote_runner.hosts.ssh_config import SshOptions
from remote_runner.ui.attach import attach, relay, size_of


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument('-F', dest='config_file')
    parser.add_argument('--read-only', action='store_true')
    parser.add_argument('--silence', type=float, default=45.0)
    parser.add_argument('host')
    parser.add_argument('what', choices=['window', 'command'])
    parser.add_argument('rest', nargs='+')
    options = parser.parse_args()
    connector = Connector(
        SshOptions(config_file=options.config_file), keepalive=options.silence / 2, silence_limit=options.silence
    )
    with connector, connect(parse_address(options.host), connector, lambda host, header: None) as host:
        if options.what == 'window':
            server, session, window = options.rest
            return attach(
                host, int(server), session, int(window), sys.stdin, sys.stdout, read_only=options.read_only
            )
        channel = host.open_terminal(options.rest[0], os.environ['TERM'], *size_of(sys.stdin))
        return relay(channel, sys.stdin, sys.stdout, read_only=options.read_only)


if __name__ == '__main__':
    try:
        status = main()
    except RemoteRunnerError as error:
        print(f'ERROR: {error}')
        status = error.exit_status
    except KeyboardInterrupt:
        print('interrupted')
        status = 130
    sys.exit(status)
