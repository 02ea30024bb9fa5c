"""A terminal of this machine in which one command runs, see pty(7)."""

from __future__ import annotations

import os
import signal
import termios
import threading

from remote_runner.defaults import LOCALHOST
from remote_runner.errors import ConnectionLost, HostError
from remote_runner.hosts.local_streams import LocalStreams

_SHELL = '/bin/sh'
#: A program expects the system's own way (signal(7)), whatever Python, or nohup(1), ignores. These two nobody can.
_DEFAULT = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
#: What a shell may have said of another terminal than the new one.
_OF_THE_OLD_TERMINAL = ('LINES', 'COLUMNS')


class LocalTerminal(LocalStreams):
    """See `connection.TerminalChannel`. The command's shell leads a session whose controlling terminal this is.

    Raises:
        HostError: the system has no terminal left, or no process.
    """

    def __init__(self, command: str, term: str, columns: int, rows: int) -> None:
        try:
            ours, theirs = os.openpty()
        except OSError as error:
            raise HostError(f'there is no terminal to be had: {error.strerror}', host=LOCALHOST) from error
        try:
            termios.tcsetwinsize(ours, (rows, columns))
            self.pid = _start(command, os.ttyname(theirs), term)
        except OSError as error:
            os.close(ours)
            raise HostError(f'the command could not be started: {error.strerror}', host=LOCALHOST) from error
        finally:
            os.close(theirs)
        super().__init__(ours, ours)
        self._status = 0
        self._ended = threading.Event()
        threading.Thread(target=self._wait, name='reaper', daemon=True).start()

    def resize(self, columns: int, rows: int) -> None:
        """See `TerminalChannel.resize`."""
        with self._closing:
            if self.closed:
                raise ConnectionLost('the channel was closed', host=LOCALHOST)
            termios.tcsetwinsize(self._stdin, (rows, columns))

    def exit_status(self, timeout: float | None = None) -> int:
        """See `TerminalChannel.exit_status`."""
        if not self._ended.wait(timeout):
            raise TimeoutError(f'the command goes on after {timeout} s')
        return self._status

    def _close_files(self) -> None:
        os.close(self._stdin)

    def _wait(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._status = code if code >= 0 else 128 - code
        self._ended.set()


def _start(command: str, terminal: str, term: str) -> int:
    """Start the shell; its pid. The first terminal that a session leader opens becomes its controlling one."""
    environment = {name: value for name, value in os.environ.items() if name not in _OF_THE_OLD_TERMINAL}
    return os.posix_spawn(
        _SHELL,
        [_SHELL, '-c', command],
        {**environment, 'TERM': term},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, terminal, os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, 0, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=_DEFAULT,
    )
