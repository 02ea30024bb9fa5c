"""`remote_runner dsh` where the daemon runs: a command elsewhere with our streams, signals and exit status.

It starts for every command, maybe for each file that is compiled, so it and what it imports (`command_line.py`,
`attended.py`) import next to nothing: modules that Python has loaded anyway, or that are built into it. What it does
not understand at once (`--help`, wrong options, hosts other than the daemon's, no daemon) it leaves to `cli/dsh.py`,
which has its own server in the end, and `attend` as well.
"""

import os
import sys

import _signal
import _socket

from remote_runner.agent import seen
from remote_runner.placement.attended import NUMBER, Attended, complain, die_by
from remote_runner.placement.command_line import Options, environment, read
from remote_runner.placement.wire import socket_path
from remote_runner.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remote_runner.placement.attended import Header
    from remote_runner.placement.terminal import Terminal


def main(arguments: list[str]) -> int | None:
    """Run a command line (what follows `dsh`); the exit status, or None: it is one for `cli/dsh.py`."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # there is nothing that had to be put in order first
    fill_streams()
    options = read(arguments)
    sock = None if options is None else connect()
    if options is None or sock is None:
        return None
    status = attend(sock, options)
    return status if status >= 0 else die_by(-status)


def fill_streams() -> None:
    """Standard streams that are closed (`>&-`) are as /dev/null: else the next file that is opened would be one."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def connect() -> '_socket.socket | None':
    """A connection to the daemon of this user; None: there is none."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(socket_path())
        credentials = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        if int.from_bytes(credentials[4:8], sys.byteorder) == os.getuid():
            return sock
    except OSError:
        pass  # `cli/dsh.py` says why, where it is not that there is none
    sock.close()
    return None


def attend(sock: '_socket.socket', options: Options) -> int:
    """Have the command run by who is at the other end of `sock`, and be its streams; its exit status.

    Where a signal ended it that had come to us: its number, negative; see `die_by`.
    """
    terminal = _terminal() if options.is_terminal else None
    try:
        asked = request(options, folder() if options.folder is None else None, terminal)
    except OSError as error:
        return complain(f'the folder in which this is cannot be found: {error.strerror}')
    command = Attended(sock, options, terminal)
    try:
        status = command.run(asked)
        if command.changes:
            status = command.await_files() or status
        if command.is_output_lost:
            status = status or 1
    except frames.FrameError as error:
        return complain(f'what the daemon says makes no sense: {error}', remedy='is it of another version?')
    finally:
        command.release_signals()
    is_ended_by_ours = status - 128 in command.came and status - 128 != _signal.SIGQUIT  # we would leave a core dump
    return 128 - status if is_ended_by_ours else status


def _terminal() -> 'Terminal | None':
    """Ours, if our input is one."""
    if not os.isatty(0):
        return None
    from remote_runner.placement.terminal import Terminal

    return Terminal()


def request(options: Options, here: str | None, own: 'Terminal | None') -> 'Header':
    """What is asked for.

    Args:
        options: what the command line says.
        here: the folder in which we are, if it runs there.
        own: our terminal, if it gets one.

    Raises:
        OSError: nobody can say what is in that folder.
    """
    umask = os.umask(0o77)
    os.umask(umask)
    given = environment(options.env)
    shared = None
    if here is not None:
        given.setdefault('PWD', here)  # compilers write it into what they make
        if options.wait_files:
            shared = {**seen.Place('.').facts(), 'files': sights(options.command), 'wait': options.wait_files}
    terminal = None
    if own is not None:
        rows, columns = own.size()
        terminal = {'term': os.environ.get('TERM', 'dumb'), 'rows': rows, 'columns': columns}
    return {
        'id': NUMBER,
        'op': 'run',
        'wanted': {
            'hosts': options.hosts,
            'prefer': options.prefer,
            'exclude': options.exclude,
            'min_memory': options.min_memory,
            'platform': options.platform,
        },
        'argv': [_text(word) for word in options.command],
        'cwd': _text(here or options.folder or '~'),
        'shared': shared,
        'umask': umask,
        'env': {_text(name): _text(value) for name, value in given.items()},
        'terminal': terminal,
        'window': frames.WINDOW,
    }


def folder() -> str:
    """Where we are, as the shell calls it (links and automounters), if that is the same.

    Raises:
        OSError: the folder is gone.
    """
    here = os.stat('.')
    try:
        shown = os.environ.get('PWD', '')
        there = os.stat(shown)
        if shown[:1] == '/' and (here.st_ino, here.st_dev) == (there.st_ino, there.st_dev):
            return shown
    except OSError:
        pass  # a variable can hold anything
    return os.getcwd()


def sights(words: list[str]) -> dict[str, 'seen.Sight']:
    """What we see of this folder, and of words that are paths on the same file system."""
    device = os.stat('.').st_dev
    found = {'.': seen.look('.')}
    for word in seen.named(words):
        try:
            if os.stat(word).st_dev != device:
                continue
        except (OSError, ValueError):
            continue
        found[_text(word)] = seen.look(word)
    return found


def _text(word: str) -> str:
    """A word as it goes over the wire, whatever the locale is that it was read by."""
    return os.fsencode(word).decode('utf-8', 'surrogateescape')
