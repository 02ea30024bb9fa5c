"""A process that goes on without the terminal it was begun at, once it is set up.

Until then it stays at the terminal: it may ask for a password there, its errors are seen, and Ctrl-C ends it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from pathlib import Path

from remote_runner.errors import RemoteRunnerError

#: Bytes of a log that is put aside when the next daemon begins.
LARGE = 1 << 20
_FORMAT = '%(asctime)s %(levelname)s: %(message)s'


class Child:
    """In the process that goes on: `detach` lets the other one end."""

    def __init__(self, tell: int) -> None:
        self._tell = tell

    def detach(self, said: str, log: Path) -> None:
        """Leave the terminal, and have the process at it end with 0, and `said` on stdout.

        Raises:
            RemoteRunnerError: the log cannot be written.
        """
        try:
            file = _open_log(log)
        except OSError as error:
            what = f'the log {log} cannot be written: {error.strerror}'
            raise RemoteRunnerError(what, remedy='XDG_STATE_HOME names another place') from error
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.setsid()
        os.chdir('/')
        for old, new in ((nothing, 0), (file, 1), (file, 2)):
            os.dup2(old, new)
        os.close(file)
        os.close(nothing)
        log_with_times()
        with contextlib.suppress(BrokenPipeError):  # who began us was killed
            os.write(self._tell, said.encode())
        os.close(self._tell)


def _open_log(log: Path) -> int:
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LARGE:
        log.replace(f'{log}.old')
    return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def log_with_times() -> None:
    """From now on records say when they were made: nobody watches as they come."""
    root = logging.getLogger()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_FORMAT))
    root.handlers[:] = [handler]


def fork() -> Child | tuple[int, str]:
    """Go on in another process: `Child` there; here, at its end or `detach`, the exit status and what was said.

    No thread may run yet.
    """
    heard, tell = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(heard)
        _close_inherited()
        return Child(tell)
    os.close(tell)
    try:
        with os.fdopen(heard) as file:
            said = file.read()
        if said:
            return 0, said
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), ''
    except KeyboardInterrupt:
        _end(pid)
        raise


def _close_inherited() -> None:
    """Whoever gave us a pipe may wait for its end, and for that of a lock."""
    for entry in list(Path('/proc/self/fd').iterdir()):
        number = int(entry.name)
        with contextlib.suppress(OSError):  # that of the list
            if number > 2 and os.get_inheritable(number):  # ours are not
                os.close(number)


def _end(pid: int) -> None:
    """End what was begun: what interrupted us may have reached us alone."""
    import signal

    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def log_path() -> Path:
    """The log of the daemon of this machine: others may share the home."""
    state = Path(os.environ.get('XDG_STATE_HOME') or Path('~/.local/state').expanduser())
    return state / 'remote_runner' / 'dshd' / f'{socket.gethostname()}.log'


def notify(state: str) -> None:
    """Tell systemd, if it has begun us, how we are: sd_notify(3)."""
    path = os.environ.get('NOTIFY_SOCKET')
    if path:
        address = f'\0{path[1:]}' if path.startswith('@') else path
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.sendto(state.encode(), address)
