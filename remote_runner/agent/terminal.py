"""The inner pseudo-terminal with the program in it, and the screen window around it."""

import errno
import fcntl
import posix
import termios

from remote_runner.agent.records import PIECE, read_file
from remote_runner.agent.tree import default_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict

    Values = Dict[str, Any]

EXIT_NOT_FOUND = 127
#: Bytes that may wait for a slow window before its oldest lines are dropped.
RING = 1 << 18


def say(text: str) -> None:
    """A line of ours in the window."""
    try:
        posix.write(1, '[remote_runner: {}]\r\n'.format(text).encode('utf-8', 'surrogateescape'))
    except OSError:
        return  # the window is gone or full; the same is in status.json


class StartError(Exception):
    """The program could not be started: at which stage (`chdir` or `exec`), and errno."""

    def __init__(self, stage: str, number: int) -> None:
        super().__init__(stage, number)
        self.stage = stage
        self.number = number


def start_program(spec: "Values") -> "tuple[int, int, int]":
    """Start the program in a pseudo-terminal of its own; its pid, our side of the terminal and its side.

    We keep its side open, too: were it closed for a moment by all who have it, as by a program that closes its output
    before it exits, we would read an error, and closing our side for that would hang up on a program that still runs.

    Raises:
        StartError: its folder could not be entered, or exec failed.
    """
    master, slave = posix.openpty()
    copy_size(slave)
    report, write_report = posix.pipe2(posix.O_CLOEXEC)
    pid = posix.fork()
    if pid == 0:
        try:
            _become_program(spec, slave, write_report)
        finally:
            posix._exit(EXIT_NOT_FOUND)
    posix.close(write_report)
    failure = posix.read(report, 64)
    posix.close(report)
    if failure:
        posix.waitpid(pid, 0)
        posix.close(master)
        posix.close(slave)
        stage, number = failure.decode('ascii').split()
        raise StartError(stage, int(number))
    fcntl.ioctl(master, termios.FIONBIO, b'\1\0\0\0')
    return pid, master, slave


def copy_size(terminal: int) -> None:
    """Give the inner terminal the size of the window, where there still is one."""
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return  # the program keeps the size that it has


def _become_program(spec: "Values", terminal: int, report: int) -> None:
    """In the forked child: session leader, controlling terminal, folder, environment, exec."""
    stage = 'exec'
    try:
        posix.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        for fd in (0, 1, 2):
            posix.dup2(terminal, fd)
        posix.umask(spec['umask'])
        default_signals()
        stage = 'chdir'
        posix.chdir(spec['cwd'])
        stage = 'exec'
        environment = dict(spec['env'])
        environment[b'TERM'] = posix.environ.get(b'TERM', b'screen')
        try:
            posix.execve(spec['argv'][0], spec['argv'], environment)
        except OSError as error:
            if error.errno != errno.ENOEXEC or b'\0' in read_file(spec['argv'][0])[:256]:
                raise
            # A script without an interpreter line: what execvp(3) does.
            posix.execve('/bin/sh', [b'/bin/sh', *spec['argv']], environment)
    except OSError as error:
        posix.write(report, '{} {}'.format(stage, error.errno).encode('ascii'))


class Window:
    """The screen window: raw, never waited for; what it cannot take stands in a bounded ring."""

    def __init__(self) -> None:
        self.open = True
        self.pending = bytearray()
        self._dropped = False
        try:
            self._saved = termios.tcgetattr(0)
            mode = termios.tcgetattr(0)
            mode[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON | termios.INLCR)
            mode[1] &= ~termios.OPOST
            mode[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
            mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
            termios.tcsetattr(0, termios.TCSANOW, mode)
        except termios.error:
            self.open = False
        self._blocking(False)

    def _blocking(self, blocking: bool) -> None:
        for fd in (0, 1):
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
            flags = flags & ~posix.O_NONBLOCK if blocking else flags | posix.O_NONBLOCK
            fcntl.fcntl(fd, fcntl.F_SETFL, flags)

    def show(self, data: bytes) -> None:
        """Take output for the window; where it is behind, whole lines are dropped, the oldest first."""
        self.pending += data
        if len(self.pending) > RING:
            end = self.pending.find(b'\n', len(self.pending) - RING)
            del self.pending[: end + 1 if end >= 0 else len(self.pending) - RING]
            self._dropped = True
        self.flush()

    def flush(self) -> None:
        """Write what the window takes now."""
        try:
            while self.pending and self.open:
                if self._dropped:
                    self.pending[:0] = b'\r\n[remote_runner: this window was too slow; all output is in output.log]\r\n'
                    self._dropped = False
                del self.pending[: posix.write(1, self.pending[:PIECE])]
        except BlockingIOError:
            return
        except OSError:
            self.close()

    def close(self) -> None:
        """The window is gone; nothing is shown any more."""
        self.open = False
        self.pending.clear()

    def restore(self) -> None:
        """Give the terminal back as it was."""
        if self.open:
            self._blocking(True)
            try:
                termios.tcsetattr(0, termios.TCSANOW, self._saved)
            except termios.error:
                self.open = False
