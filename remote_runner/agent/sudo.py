"""Becoming another user of this host by sudo(8): what a keeper does, and an agent that tries whether it would work.

sudo has one end of a socket pair as stdin, where it reads the password that it asks for, and where afterwards the
user's Python takes its orders. Its terminal is a pseudo-terminal that nobody sees: some hosts want one (`requiretty`),
and through it alone can we signal sudo, which is root's.

The password goes to sudo when it asks for it, and only then: were it sent unasked, the program would read it. sudo asks
three times, and each wrong answer counts (pam_faillock(8) locks accounts). So a password is tried first, by `try_once`:
while it is being checked, sudo gets what Ctrl-C sends. It blocks SIGINT there, and looks for it before it asks again:
then it gives up. With the right password SIGINT ends it before the command runs. SIGINT must come after the password
was read, and before the check is over, which may take less than a millisecond: so meanwhile sudo has the same processor
as we, and only when we leave it alone.

Like all of the launcher this imports built-in modules and its siblings alone.
"""

import fcntl
import posix
import select
import termios
import time

import _signal
import _socket

from remote_runner.agent.tree import default_signals, milliseconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Optional

    from remote_runner.agent.tree import Signals

#: Bytes of the code that comes first, filled up: a read takes exactly that.
STAGE = 2048
#: What the user's Python does first: it says which Python and who it is, and takes its code. It stands in sudo's log.
FIRST = (
    'import posix,sys;'
    'posix.fstat(0).st_mode>>12==12 or sys.exit("sudo hands our socket not on (log_input in sudoers)");'
    'posix.write(0,("%s %d\\n"%(sys.implementation.cache_tag,posix.getuid())).encode());'
    'exec(posix.read(0,{}))'.format(STAGE)
)
#: Signals that end the waiting for sudo, or for a person.
ENDING = frozenset([_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT])
#: ioctl_tty(2): signals the foreground process group of a pseudo-terminal, whoever its processes belong to.
_TIOCSIG = 0x40045436
#: Seconds between two signals while a password is being checked, and between two looks at what takes longer.
_STEP = 0.0001
_LOOK = 0.01
#: Bytes of what sudo says that are kept.
_MOST = 4096


class Refused(Exception):
    """sudo did not do it; `why` says it in sudo's own words, where it had some."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Sudo:
    """One sudo, until the user's Python runs.

    Args:
        means: the paths `sudo` and `python`, the user's `name`, and our own (`login`).
        password: what it is told when it asks. None: it is told not to ask.
        is_trial: it is for `try_once`.

    Attributes:
        sock: our end of its stdin.
        pid: of sudo itself.
        tag: which Python it is (`cpython-311`); uid: as whom it runs.
    """

    def __init__(self, means: "Dict[str, str]", password: "Optional[bytes]", is_trial: bool = False) -> None:
        self._is_trial = is_trial
        self._means = means
        self._password = password
        self._question = b'[%s]' % posix.urandom(12).hex().encode('ascii')
        self._said = b''
        self._is_asked = False
        self.tag, self.uid = '', -1
        self.sock, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self._errors, write = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
        fcntl.fcntl(write, fcntl.F_SETFL, 0)
        self._terminal, slave = posix.openpty()
        self.pid = posix.fork()
        if self.pid == 0:
            try:
                self._exec(theirs.fileno(), write, slave)
            finally:
                posix._exit(127)
        theirs.close()
        posix.close(write)
        posix.close(slave)

    def _exec(self, stdin: int, stderr: int, terminal: int) -> None:
        """In the forked child."""
        if self._is_trial:
            _take_back_seat()
        posix.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        null = posix.open('/dev/null', posix.O_RDWR)
        for target, fd in enumerate((stdin, null, stderr)):
            posix.dup2(fd, target)
        posix.chdir('/')
        default_signals()
        means = self._means
        how = '-n' if self._password is None else '-S'
        argv = [means['sudo'], how, '-u', means['name'], '--', means['python'], '-IS', '-c', FIRST]
        environment = {b'LC_ALL': b'C', b'SUDO_PROMPT': self._question}
        for name in (b'PATH', b'TERM'):
            if name in posix.environ:
                environment[name] = posix.environ[name]
        try:
            posix.execve(means['sudo'], argv, environment)
        except OSError as error:
            posix.write(2, posix.strerror(error.errno or 0).encode('utf-8', 'replace'))

    def wait(self, deadline: float, signals: "Optional[Signals]" = None) -> None:
        """Wait until the user's Python runs.

        Args:
            deadline: until when (time.monotonic).
            signals: TERM, HUP and INT among them end the waiting.

        Raises:
            Refused: it does not.
        """
        if self._converse(deadline, signals):
            return
        self.close()
        wait_for_end(self.pid, deadline)
        raise Refused(self._why())

    def try_once(self, deadline: float) -> None:
        """Have sudo take the password, which is tried once, and let us run Python as the user, which it does not do.

        For a process of its own, which keeps to one processor from then on.

        Raises:
            Refused: it does not.
        """
        runs = self._converse(deadline, None)
        self.close()
        ended = wait_for_end(self.pid, deadline)
        by_our_signal = ended is not None and posix.WIFSIGNALED(ended) and posix.WTERMSIG(ended) == _signal.SIGINT
        if not runs and not by_our_signal:
            raise Refused(self._why())

    def close(self) -> None:
        """Let go of it: what it runs finds its stdin closed, and sudo itself a terminal that was hung up."""
        self.sock.close()
        for fd in (self._errors, self._terminal):
            posix.close(fd)

    # ---- what it asks and says --------------------------------------------------------------------------------

    def _converse(self, deadline: float, signals: "Optional[Signals]") -> bool:
        """Answer its question; whether the user's Python runs."""
        poll = select.poll()
        for fd in (self.sock.fileno(), self._errors):
            poll.register(fd, select.POLLIN)
        if signals is not None:
            poll.register(signals.fd, select.POLLIN)
        first = b''
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                self._said += b'it did not answer in time'
                return False
            if self._is_trial and self._is_asked:
                time.sleep(_STEP)
                self._interrupt()
                ready = [fd for fd, _ in poll.poll(0)]
            else:
                ready = [fd for fd, _ in poll.poll(milliseconds(left))]
            if signals is not None and signals.take() & ENDING:
                self._said += b'the start was given up'
                return False
            if self._errors in ready and not self._hear():
                poll.unregister(self._errors)
            if self.sock.fileno() in ready:
                data = self._receive()
                first += data
                if not data:
                    while self._hear():
                        continue
                    return False
                if b'\n' in first:
                    return self._take(first)
            if self._question in self._said and not self._answer():
                return False

    def _receive(self) -> bytes:
        try:
            return self.sock.recv(1024)
        except OSError:
            return b''

    def _hear(self) -> bool:
        """Take in what it says; False when there is no more (for now)."""
        try:
            data = posix.read(self._errors, 1024)
        except BlockingIOError:
            return False
        self._said = (self._said + data)[-_MOST:]
        return bool(data)

    def _answer(self) -> bool:
        """Tell it the password, once; False when it asks again."""
        self._said = self._said.replace(self._question, b'')
        if self._is_asked or self._password is None:
            return False
        self._is_asked = True
        try:
            self.sock.send(self._password + b'\n', _socket.MSG_NOSIGNAL)
        except OSError:
            return True  # it has ended; what it said tells why
        finally:
            self._password = None  # we live as long as the program does
        return True

    def _interrupt(self) -> None:
        """Press Ctrl-C, if it has read the password (TIOCOUTQ is SIOCOUTQ of unix(7): what it has not)."""
        try:
            if not any(fcntl.ioctl(self.sock.fileno(), termios.TIOCOUTQ, bytes(4))):
                fcntl.ioctl(self._terminal, _TIOCSIG, _signal.SIGINT)
        except OSError:
            return  # it has ended

    def _take(self, first: bytes) -> bool:
        tag, _, uid = first.decode('ascii', 'replace').strip().partition(' ')
        if not uid.isdigit():
            return False
        self.tag, self.uid = tag, int(uid)
        return True

    def _why(self) -> str:
        said = self._said.decode('utf-8', 'replace').replace(FIRST, '...')
        words = ' '.join(said.split()) or 'it says nothing'
        once = ' (the password was tried once)' if self._is_asked else ''
        return '{login} cannot become {name} by sudo: {}{}'.format(words, once, **self._means)


def _take_back_seat() -> None:
    """Run only when nobody else wants our processor, which is our parent's, too (sched(7))."""
    processor = min(posix.sched_getaffinity(0))
    posix.sched_setaffinity(posix.getppid(), [processor])
    posix.sched_setaffinity(0, [processor])
    posix.sched_setscheduler(0, posix.SCHED_IDLE, posix.sched_param(0))


def wait_for_end(pid: int, deadline: float) -> "Optional[int]":
    """The wait status of a child; None when it goes on, or was waited for already."""
    while True:
        try:
            ended, status = posix.waitpid(pid, posix.WNOHANG)
        except ChildProcessError:
            return None
        if ended:
            return status
        if time.monotonic() >= deadline:
            return None
        select.poll().poll(_LOOK * 1000)
