"""Options that several commands share, and the parser that all of them use."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from remote_runner.defaults import CONNECT_TIMEOUT, FANOUT, SCREEN
from remote_runner.errors import UsageError

if TYPE_CHECKING:
    from remote_runner.files.options import CopyOptions
    from remote_runner.hosts.address import Address
    from remote_runner.hosts.credentials import Credentials
    from remote_runner.hosts.ssh import Connector
    from remote_runner.hosts.ssh_config import SshOptions

LOG_LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR')


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that takes options by their whole names only, and raises UsageError."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **kwargs)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Raises UsageError with argparse's message."""
        raise UsageError(message, remedy=f'{self.prog} --help explains every option')


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=min(110, _columns()))


def _columns() -> int:
    try:
        return os.get_terminal_size().columns - 2
    except OSError:
        return 100


def add_connection_options(parser: argparse.ArgumentParser, password: Sequence[str] = ('-p', '--pass')) -> None:
    """How hosts are reached; `password`: what the option is called."""
    group = parser.add_argument_group('connecting', 'Everything else comes from your ssh_config, as with ssh itself.')
    group.add_argument(
        '-u', '--user', type=_user, metavar='USER', help='remote user; user@ in a host beats it, it beats ssh_config'
    )
    group.add_argument(
        *password,
        dest='password',
        metavar='PASS',
        help='password for hosts and encrypted keys; others can see it in the list of processes, so better name a file '
        'that holds it in the environment variable RR_PASS_FILE, or wait to be asked',
    )
    what = 'compress what goes over the wire, as ssh -C: faster on slow links alone'
    group.add_argument('-C', '--compress', action='store_true', help=what)
    group.add_argument('-F', '--ssh-config', metavar='FILE', help='another ssh_config, as ssh -F')
    group.add_argument(
        '--connect-timeout',
        type=positive_seconds,
        metavar='SECONDS',
        help=f'time limit of one connection (default: that of ssh_config, else {CONNECT_TIMEOUT:g})',
    )
    group.add_argument(
        '--accept-new-host-keys',
        action='store_true',
        help='trust hosts that are in no known_hosts file and remember them; a changed key is refused all the same',
    )
    group.add_argument(
        '--fanout',
        type=_positive,
        default=FANOUT,
        metavar='N',
        help=f'hosts to work on at the same time (default: {FANOUT})',
    )


def add_watch_options(parser: argparse.ArgumentParser, interval: float) -> None:
    """Looking again and again, by default with so many seconds between two looks."""
    parser.add_argument('-w', '--watch', action='store_true', help='look again and again, until Ctrl-C')
    what = f'time between two looks of --watch (default: {interval:g})'
    parser.add_argument('-n', '--interval', type=seconds, default=interval, metavar='SECONDS', help=what)


def add_log_level(parser: argparse.ArgumentParser) -> None:
    """`-l`."""
    parser.add_argument(
        '-l',
        '--log-level',
        type=str.upper,
        choices=LOG_LEVELS,
        default='INFO',
        help='what is logged on stderr, as LEVEL: message (default: INFO); DEBUG shows our own stack with errors',
    )


def add_config_options(parser: argparse.ArgumentParser, *, required: bool = True) -> argparse._ArgumentGroup:
    """`-c`, and what changes a config; the group in which they stand."""
    title = 'what to run' if required else 'where to look (default: the record of the last run)'
    config = parser.add_argument_group(title)
    config.add_argument('-c', '--config', required=required, metavar='FILE', help='the config, a Python program')
    add_muddler_options(config)
    return config


def add_muddler_options(config: argparse._ActionsContainer) -> None:
    """What changes a config."""
    config.add_argument(
        '-m',
        '--muddler',
        dest='muddlers',
        action='append',
        default=[],
        metavar='FILE',
        help='a Python file whose muddle(config) or muddle(config, options) changes the config; repeatable, in order',
    )
    config.add_argument(
        '-a',
        '--arg-parser',
        metavar='FILE',
        help='a Python file whose parse_args(extra_args, ssh_user) makes extra_options of --extra-args',
    )
    config.add_argument(
        '--extra-args', metavar='STRING', help='options for the arg parser, as one string ("--help" shows its help)'
    )


def add_screen_option(group: argparse._ActionsContainer) -> None:
    """`--screen`."""
    what = f'name of the screen session (default: {SCREEN})'
    group.add_argument('--screen', default=SCREEN, metavar='NAME', help=what)


def add_copy_options(group: argparse._ActionsContainer) -> None:
    """How files are copied; see `copy_options`."""
    group.add_argument('--always-copy', action='store_true', help='send all files, even those that are there already')
    group.add_argument('--no-times', action='store_true', help='do not keep modification times')
    add_comparison_options(group)
    what = 'below folders that are brought with all that is in them, delete there what is gone here'
    group.add_argument('--delete', action='store_true', help=what)


def add_comparison_options(group: argparse._ActionsContainer) -> None:
    """How files are copied in either direction."""
    what = 'hash all files of equal size, here and on the hosts, also those that were not changed since the last time'
    group.add_argument('--no-hash-cache', action='store_true', help=what)
    what = 'copy at most so much a second to (or from) all hosts together: KiB, or with a suffix as 1.5m; 0: no limit'
    group.add_argument('--bwlimit', type=_rate, default=0.0, metavar='RATE', help=what)


def copy_options(arguments: argparse.Namespace) -> CopyOptions:
    """What the options of `add_copy_options` say."""
    from remote_runner.files.options import CopyOptions

    return CopyOptions(
        always_copy=arguments.always_copy,
        times=not arguments.no_times,
        remembered=not arguments.no_hash_cache,
        rate=arguments.bwlimit,
        delete=arguments.delete,
    )


def _rate(text: str) -> float:
    from remote_runner.files.limit import parse_rate

    try:
        return parse_rate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_results_option(group: argparse._ActionsContainer) -> None:
    """`--results`."""
    what = 'where what is fetched comes to stand (default: `results` beside the config)'
    group.add_argument('--results', type=_absolute, metavar='DIR', help=what)


def _absolute(text: str) -> Path:
    return Path(text).expanduser().absolute()


def add_hosts_option(parser: argparse.ArgumentParser) -> None:
    """`-H` and `-x`."""
    parser.add_argument(
        '-H',
        '--hosts',
        action='append',
        required=True,
        metavar='HOSTS',
        help='[user@]name[:port], several with commas, folded as node[1-40], or @FILE with one a line; repeatable',
    )
    parser.add_argument('-x', '--exclude', action='append', default=[], metavar='HOSTS', help='leave these out')


def signal_name(text: str) -> str:
    """The type of an argument: `USR1`, `SIGUSR1` or a number."""
    import signal

    name = text.upper().removeprefix('SIG')
    if f'SIG{name}' not in signal.Signals.__members__ and not (text.isdecimal() and 0 < int(text) < signal.NSIG):
        raise argparse.ArgumentTypeError(f'{text!r} is no signal')
    return name


def add_signal_option(parser: argparse.ArgumentParser) -> None:
    """`--signal`."""
    what = '`INT`, `SIGINT` or a number (default: TERM)'
    parser.add_argument('--signal', type=signal_name, default='TERM', metavar='SIGNAL', help=what)


def add_hosts_argument(
    parser: argparse.ArgumentParser, *, words: int | str = '+', exclude: str = '--exclude'
) -> None:
    """HOSTS and `-x`, for commands about hosts; `parse_hosts` takes what `hosts_or_files` makes of them.

    `words`: how many there may be, as `nargs` of argparse; `exclude`: what `-x` is called in full.
    """
    parser.add_argument(
        'hosts',
        nargs=words,
        metavar='HOSTS',
        help='[user@]name[:port], several with commas, folded as node[1-40], or a FILE with one a line',
    )
    what = 'leave these hosts out' if exclude != '--exclude' else 'leave these out'
    parser.add_argument('-x', exclude, dest='exclude', action='append', default=[], metavar='HOSTS', help=what)


def hosts_or_files(texts: Sequence[str]) -> list[str]:
    """The path of a file means the file, as `@FILE` does."""
    from remote_runner.hosts.address import is_file

    return [f'@{text}' if is_file(text) else text for text in texts]


def dial_hosts(arguments: argparse.Namespace) -> tuple[Sequence[Address], Connector]:
    """The hosts that HOSTS and `-x` mean, and what connects to them; it begins to while the command imports the rest.
    Logs are set up.

    Raises:
        UsageError: none is left.
        AddressError: one cannot be understood.
    """
    from remote_runner.hosts.address import parse_hosts
    from remote_runner.hosts.ahead import Ahead
    from remote_runner.ui.log import configure

    configure(arguments.log_level)
    addresses = parse_hosts(hosts_or_files(arguments.hosts), exclude=arguments.exclude)
    if not addresses:
        raise UsageError('no host is left', remedy='see HOSTS and -x')
    return addresses, Ahead(ssh_options(arguments), addresses, arguments.fanout).connector()


def ssh_options(
    arguments: argparse.Namespace, paused: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
) -> SshOptions:
    """The options of `add_connection_options` as the connector takes them.

    A password is asked for at a terminal while `paused()` keeps everybody else from writing to it.
    """
    from remote_runner.hosts.credentials import Credentials
    from remote_runner.hosts.ssh_config import SshOptions

    if arguments.ssh_config is not None and not os.access(arguments.ssh_config, os.R_OK):
        raise UsageError(f'the ssh_config {arguments.ssh_config} cannot be read')

    return SshOptions(
        user=arguments.user,
        config_file=arguments.ssh_config,
        connect_timeout=arguments.connect_timeout,
        accept_new_host_keys=arguments.accept_new_host_keys,
        compress=arguments.compress,
        credentials=Credentials(arguments.password, ask=_asker(paused)),
    )


def sudo_credentials(
    paused: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> Credentials:
    """What sudo is told where components run as other users: from a file, or asked for as in `ssh_options`."""
    from remote_runner.hosts.credentials import SUDO_PASSWORD_FILE_VARIABLE, Credentials

    return Credentials(variable=SUDO_PASSWORD_FILE_VARIABLE, ask=_asker(paused))


def _asker(paused: Callable[[], AbstractContextManager[None]]) -> Callable[[str], str | None] | None:
    """Asks at the terminal; None where there is none."""

    def ask(prompt: str) -> str | None:
        try:
            with paused():
                return getpass.getpass(prompt, stream=sys.stderr)
        except EOFError:
            return None

    return ask if _can_ask() else None


def ssh_record(arguments: argparse.Namespace) -> dict[str, str]:
    """How hosts are reached, for commands that come later; never a password."""
    file = arguments.ssh_config and str(Path(arguments.ssh_config).resolve())
    return {name: value for name, value in (('user', arguments.user), ('ssh_config', file)) if value}


def _can_ask() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def positive_seconds(text: str) -> float:
    """The type of an argument."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e7:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of seconds above 0')
    return value


def _user(text: str) -> str:
    if not text.strip() or text.startswith('-'):  # as OpenSSH has it, see valid_ruser() in its ssh.c
        raise argparse.ArgumentTypeError(f'{text!r} is no name of a user')
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number above 0')
    return int(text)


seconds = positive_seconds


def joined(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """The arguments with `OPTION VALUE` written as `OPTION=VALUE` for these options.

    argparse takes a value that begins with a dash only in that form, and these options take any value whole.
    """
    result: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == '--':
            return [*result, word, *words]
        value = next(words, None) if word in options else None
        result.append(word if value is None else f'{word}={value}')
    return result
