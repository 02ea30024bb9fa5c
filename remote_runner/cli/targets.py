"""What commands on a session that stands have in common: which session, on which hosts, and which components."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from remote_runner.cli.main import EXIT_INTERRUPTED, show_error
from remote_runner.cli.options import (
    Parser,
    add_config_options,
    add_connection_options,
    add_log_level,
    add_screen_option,
    joined,
    ssh_options,
)
from remote_runner.defaults import START_TIMEOUT
from remote_runner.errors import RemoteRunnerError, UsageError

if TYPE_CHECKING:
    from remote_runner.deploy.seen import Seen
    from remote_runner.deploy.session import Session
    from remote_runner.deploy.target import Target
    from remote_runner.events import Event, Events

_WHERE = """
Without -c and -H it is the last run of the session that was begun from this machine.
"""


def make_parser(
    command: str,
    description: str,
    usage: str,
    epilog: str,
    *,
    names: str | int | None = '*',
    json: str | None = None,
    first: Callable[[Parser], object] = lambda parser: None,
) -> Parser:
    """A parser with the options that all these commands have.

    Args:
        command: its name.
        description: what it does, with examples.
        usage: what follows the command's name.
        epilog: the exit statuses.
        names: how many NAMES there may be (argparse's nargs); None: it takes none.
        json: what `--json` writes; None: one object.
        first: adds what stands before NAMES.
    """
    parser = Parser(
        prog=f'remote_runner {command}',
        description=description + _WHERE,
        usage=f'%(prog)s {usage}',
        epilog=f'exit status: {epilog}',
    )
    first(parser)
    if names is not None:
        parser.add_argument(
            'names',
            nargs=names,
            default=[],
            metavar='NAMES',
            help='components: names, `name@host`, or patterns of either with * and ? (`publisher*`, `*@h1`)'
            + ('; default: all of them' if names == '*' else ''),
        )
    where = add_config_options(parser, required=False)
    add_screen_option(where)
    where.add_argument(
        '-H',
        '--hosts',
        action='append',
        default=[],
        metavar='HOSTS',
        help='look on these hosts, whoever began the run: [user@]name[:port], several with commas, folded as '
        'node[1-40], or @FILE with one a line; repeatable',
    )
    parser.add_argument('--json', action='store_true', help=json or 'write JSON to stdout')
    add_log_level(parser)
    add_connection_options(parser)
    parser.set_defaults(
        only=[],
        limit=[],
        no_kill=False,
        no_zombie=False,
        terminate=False,
        always_copy=False,
        start_timeout=START_TIMEOUT,
        remote_done_dir=None,
    )
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The options and arguments; NAMES may stand before, between and behind options."""
    return parser.parse_intermixed_args(joined(arguments, ('--extra-args',)))


def find_target(options: argparse.Namespace) -> Target:
    """Where to look, as the options say; those of the connection are completed from the record.

    Raises:
        UsageError: nothing says where.
    """
    from remote_runner.deploy.plan import check_session
    from remote_runner.deploy.record import newest
    from remote_runner.deploy.target import Target
    from remote_runner.hosts.address import parse_hosts

    check_session(options.screen)
    if options.hosts:
        if options.config:
            raise UsageError('-c and -H both say where to look', remedy='take one of them')
        addresses = parse_hosts(options.hosts)
        if not addresses:
            raise UsageError('no host is left', remedy='see --hosts')
        return Target.of_hosts(options.screen, addresses)
    if options.config:
        from remote_runner.cli.run import load_plan

        return Target.of_plan(load_plan(options))
    record = newest(options.screen)
    options.user = options.user or record.ssh.get('user')
    options.ssh_config = options.ssh_config or record.ssh.get('ssh_config')
    return Target.of_record(record)


@contextmanager
def opened(
    options: argparse.Namespace, events: Events | None = None, deadline: float | None = None
) -> Iterator[Session]:
    """The session that the options mean, connected and looked at.

    Where `options.names` say which components, only the hosts on which these should be are dialled, if that is known.

    Raises:
        TimeIsUp: not all of these hosts have answered at `deadline` (time.monotonic).
    """
    from remote_runner.hosts.ahead import Ahead
    from remote_runner.ui.log import configure

    configure(options.log_level)
    target = find_target(options).narrowed(options.names)
    ssh = ssh_options(options)
    connector = Ahead(ssh, target.addresses, options.fanout).connector()
    # The rest is imported while the hosts answer.
    from remote_runner.deploy.session import Session
    from remote_runner.events import Events

    with (
        connector,
        Session(target, connector, events or Events(), options.fanout, leave=True, deadline=deadline) as session,
    ):
        session.connect()
        password = ssh.credentials.password() if ssh.credentials is not None else None
        if password:
            session.keep_secret(password)
        yield session


class ChangeShown:
    """Shows what becomes of components: lines on stderr as for a run, or (`--json`) events on stdout.

    With `--json` the last of these says what came of it all, whatever that was (`with`).

    Args:
        command: whose outcome it is.
        options: its options.

    Attributes:
        exit_status: that of the command, where it ends without an error.
    """

    def __init__(self, command: str, options: argparse.Namespace) -> None:
        self.exit_status = 0
        self._command = command
        self._name: str = options.screen
        self._as_json: bool = options.json
        self._session: Session | None = None
        self._meant: Sequence[Seen] = ()

    def __enter__(self) -> ChangeShown:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not self._as_json or not isinstance(error, RemoteRunnerError | KeyboardInterrupt | None):
            return
        from remote_runner.events import CommandEnded
        from remote_runner.ui.output import JsonLines

        status = self.exit_status if error is None else getattr(error, 'exit_status', EXIT_INTERRUPTED)
        states = self._states()
        JsonLines()(
            CommandEnded(command=self._command, session=self._name, exit_status=status, components=states)
        )

    def _states(self) -> dict[str, str]:
        """How all are that were meant or touched, in words as `status --json` has them."""
        from remote_runner.deploy.board import State

        states = {seen.label: seen.state for seen in self._meant}
        for one in self._session.board.all() if self._session is not None else []:
            is_ready = one.state is State.STARTED and one.is_ready and one.plan.ready is not None
            states[one.key] = 'ready' if is_ready else one.state.value
        return states

    def hear(self, session: Session, meant: Sequence[Seen] = ()) -> None:
        """From now on show what becomes of the components of a session; how these are is told in any case."""
        from remote_runner.ui.output import JsonLines

        self._session, self._meant = session, meant
        session.events.listen(_log_line)
        if self._as_json:
            session.events.listen(JsonLines())

    def say(self, text: str) -> None:
        """What came of it all."""
        from remote_runner.ui.output import Output

        if not self._as_json:
            Output().write(text + '\n')


def _log_line(event: Event) -> None:
    from remote_runner.events import ComponentFailed, ComponentUnknown
    from remote_runner.ui.lines import line_of

    if isinstance(event, ComponentFailed | ComponentUnknown):
        return  # the command ends by telling of them, with their output
    line = line_of(event)
    if line is not None:
        logging.getLogger('remote_runner').log(line[0], '%s', line[1])


def show_failures(session: Session, wanted: Sequence[Seen]) -> int:
    """Tell of hosts that cannot be had and what was to be done there; the exit status."""
    for error in session.failures.values():
        show_error(error)
    # Of hosts that only -H names nobody knows what should be there.
    is_missed = not session.target.expected or any(not seen.at for seen in wanted)
    return 3 if session.failures and is_missed else 0
