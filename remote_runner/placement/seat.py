"""The daemon of this user: there is one at a time, it listens where `wire.socket_path` says, and others can end it.

    with Seat(socket_path()) as seat:   # DaemonRuns: there is one
        listening = seat.listen()

The seat is a file beside the socket that its holder keeps locked, so that what a killed daemon left is in nobody's way.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from pathlib import Path
from types import TracebackType

from remote_runner import held
from remote_runner.errors import DaemonRuns, NoDaemon, RemoteRunnerError
from remote_runner.placement.wire import FOLDER, SOCKET

#: Clients that wait until they are accepted: many commands of one make(1) come at once.
BACKLOG = 1024
#: Seconds that a daemon has to end: commands that are under way get some of them.
PATIENCE = 30.0


class Seat:
    """This process is the daemon, while `with` lasts.

    Args:
        path: of the socket.

    Raises:
        DaemonRuns: another process is.
        RemoteRunnerError: there is no place for the socket.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._file = -1
        self._has_socket = False
        #: The socket in its folder, as stat(2) knows it.
        self._known_by = (0, 0)

    def __enter__(self) -> Seat:
        self._file = self._take()
        return self

    def _take(self) -> int:
        _make_folder(self.path.parent)
        file = _lock_file(self.path)
        while True:
            try:
                return held.hold(file)
            except BlockingIOError:
                other = held.holder(file)
                if other is not None:
                    remedy = 'remote_runner dshd --status tells of it, --stop ends it'
                    raise DaemonRuns(f'a daemon runs already, with the pid {other.pid}', remedy=remedy) from None
            except OSError as error:
                raise self._no_place(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
        os.close(self._file)

    def listen(self) -> socket.socket:
        """The socket, on which nobody connected yet. What is left of a killed daemon's is replaced.

        Raises:
            RemoteRunnerError: it cannot be made.
        """
        new = self.path.with_name(f'{self.path.name}.new')
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            new.unlink(missing_ok=True)
            listening.bind(os.fsencode(new))
            new.chmod(0o600)
            listening.listen(BACKLOG)
            new.rename(self.path)  # whoever looks for it finds one that listens
        except OSError as error:
            listening.close()
            raise self._no_place(error) from error
        self._has_socket = True
        self._known_by = _identity(self.path)
        return listening

    def keep(self) -> socket.socket | None:
        """Stay who can be found, whatever tidied the folder up (as cleaners of /tmp do); the socket that is new then.

        Raises:
            DaemonRuns: another process has taken the seat meanwhile.
            RemoteRunnerError: there is no place for the socket any more.
        """
        lock = _lock_file(self.path)
        try:
            os.utime(self._file)  # it is in use
            is_ours = _identity(lock) == _identity(self._file)
        except OSError as error:
            raise self._no_place(error) from error
        if not is_ours:
            self._has_socket = False
            lost, self._file = self._file, self._take()
            os.close(lost)
        elif _identity(self.path) == self._known_by:
            return None
        return self.listen()

    def leave(self) -> None:
        """From now on nobody finds the socket."""
        if self._has_socket:
            self._has_socket = False
            self.path.unlink(missing_ok=True)

    def _no_place(self, error: OSError) -> RemoteRunnerError:
        what = f'there can be no socket {self.path}: {error.strerror or error}'
        return RemoteRunnerError(what, remedy=f'name another place in {SOCKET}')


def _identity(file: Path | int) -> tuple[int, int]:
    try:
        status = file.stat() if isinstance(file, Path) else os.fstat(file)
    except (FileNotFoundError, NotADirectoryError):
        return 0, 0
    return status.st_dev, status.st_ino


def _lock_file(path: Path) -> Path:
    return path.with_name(f'{path.name}.lock')


def _make_folder(folder: Path) -> None:
    """Make the private folder of sockets; others must be there.

    Raises:
        RemoteRunnerError: it belongs to somebody else.
    """
    if str(folder) != f'{FOLDER}-{os.getuid()}':
        return
    from remote_runner.agent.request import Failure
    from remote_runner.agent.screen import runtime_folder

    try:
        problem = '' if runtime_folder() == str(folder) else f'{folder} is not a folder of ours'
    except Failure as failure:
        problem = failure.what
    if problem:
        raise RemoteRunnerError(problem, remedy=f'remove it, or name another place for the socket in {SOCKET}')


def daemon_pid(path: str) -> int:
    """The pid of the daemon that has its socket there, or will have in a moment.

    Raises:
        NoDaemon: there is none.
    """
    holder = held.holder(_lock_file(Path(path)))
    if holder is None or not holder.pid:
        raise NoDaemon('no daemon runs', remedy='start it with `remote_runner dshd`')
    return holder.pid


def end_daemon(path: str, patience: float = PATIENCE) -> int:
    """End the daemon, and wait until it is gone; its pid.

    Raises:
        NoDaemon: there is none.
        RemoteRunnerError: it does not end.
    """
    pid = daemon_pid(path)
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return pid  # it has just ended
    try:
        if daemon_pid(path) != pid:  # else the number is its, and stays its as long as we look at the process
            return end_daemon(path, patience)
        signal.pidfd_send_signal(process, signal.SIGTERM)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        if not poll.poll(patience * 1000):
            what = f'the daemon (pid {pid}) has not ended within {patience:g} s'
            raise RemoteRunnerError(what, remedy=f'kill -9 {pid} is safe: its hosts end what belongs to it')
    except ProcessLookupError:
        return pid
    finally:
        os.close(process)
    return pid
