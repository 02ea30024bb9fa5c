"""The tree of processes below a launcher: looking at it, and ending it so that nothing is left.

A child subreaper (prctl(2)) inherits every descendant whose parent ends, so none can leave the tree; `waitpid`
answering ECHILD is the proof that none is left.
"""

import errno
import posix
import time

import _signal

from remote_runner.agent.records import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict

#: Seconds after KILL until what is still there counts as left over.
KILL_TIMEOUT = 5.0
#: About 12 days; who waits for longer looks at the clock once more then.
MOST_MILLISECONDS = 1 << 30
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def prctl(option: int, value: int) -> None:
    """prctl(2); Python has no other way to it than through ctypes."""
    import _ctypes

    function = _ctypes.dlsym(_ctypes.dlopen(None, 0), 'prctl')  # type: ignore[arg-type]
    _ctypes.call_function(function, (option, value, 0, 0, 0))


def children(pid: int) -> "list[int]":
    """The direct children of a process, of all its threads (proc(5), `children`)."""
    found = []
    try:
        for thread in posix.listdir('/proc/{}/task'.format(pid)):
            found += [int(child) for child in read_file('/proc/{}/task/{}/children'.format(pid, thread)).split()]
    except OSError:
        if not _has_children_files():
            return _children_by_scan(pid)
    return found


def _has_children_files() -> bool:
    """False on kernels without CONFIG_PROC_CHILDREN."""
    me = posix.getpid()
    try:
        posix.stat('/proc/{}/task/{}/children'.format(me, me))
    except OSError:
        return False
    return True


def _children_by_scan(parent: int) -> "list[int]":
    found = []
    for name in posix.listdir('/proc'):
        if name.isdigit():
            try:
                stat = read_file('/proc/{}/stat'.format(name))
            except OSError:
                continue
            if int(stat[stat.rindex(b')') + 2 :].split()[1]) == parent:
                found.append(int(name))
    return found


def descendants(pid: int) -> "list[int]":
    """All processes below `pid`, parents first."""
    found = []
    wave = [pid]
    while wave:
        wave = [child for parent in wave for child in children(parent)]
        found += wave
    return found


def signal_tree(number: int, spare: "tuple[int, ...]" = ()) -> None:
    """Send a signal to every descendant of ours but those in `spare`."""
    for pid in descendants(posix.getpid()):
        if pid not in spare:
            try:
                posix.kill(pid, number)
            except OSError as error:
                if error.errno not in (errno.ESRCH, errno.EPERM):
                    raise


class Tree:
    """Ends all descendants: TERM, then KILL after a while, until none is left. Driven by the loop of its owner.

    Args:
        number: the signal that asks them to end.
    """

    def __init__(self, number: int = _signal.SIGTERM) -> None:
        self._number = number
        self.deadline: "float | None" = None
        self.ending = False
        self.left: "tuple[int, ...]" = ()
        self._killed_at = 0.0

    def end(self, seconds: float) -> None:
        """Begin to end the tree; a second call can only shorten the time."""
        if not self.ending:
            self.ending = True
            signal_tree(self._number)
            signal_tree(_signal.SIGCONT)
            self.deadline = time.monotonic() + seconds
        elif self.deadline is not None:
            self.deadline = min(self.deadline, time.monotonic() + seconds)

    def tick(self) -> None:
        """Go on with what is due: KILL, and again for what was forked meanwhile."""
        now = time.monotonic()
        if self.deadline is None or now < self.deadline:
            return
        self._killed_at = self._killed_at or now
        signal_tree(_signal.SIGKILL)
        if now - self._killed_at > KILL_TIMEOUT:
            self.left = tuple(descendants(posix.getpid()))
        self.deadline = now + (0.02 if now - self._killed_at < KILL_TIMEOUT else 5.0)

    def wait(self) -> "float | None":
        """Seconds until `tick` is due; None: nothing is."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


def reap() -> "tuple[dict[int, int], bool]":
    """The wait statuses of all children that ended, and whether any child is left."""
    ended: "Dict[int, int]" = {}
    while True:
        try:
            pid, status = posix.waitpid(-1, posix.WNOHANG)
        except ChildProcessError:
            return ended, False
        if pid == 0:
            return ended, True
        ended[pid] = status


class Signals:
    """Signals as something to poll: `fd` is readable when one came. A forked process makes one of its own."""

    def __init__(self, numbers: "tuple[int, ...]") -> None:
        self.fd, write = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
        _signal.set_wakeup_fd(write)
        for number in numbers:
            _signal.signal(number, _nothing)

    def take(self) -> "set[int]":
        """The signals that came since the last call."""
        try:
            return set(posix.read(self.fd, 4096))
        except BlockingIOError:
            return set()


def default_signals() -> None:
    """Give all signals their default actions and block none: what began us may have had it otherwise (nohup(1), cron).

    What is ignored or blocked is inherited by all that a process executes (signal(7)), and a shell cannot even trap it.
    """
    for number in range(1, _signal.NSIG):
        try:
            _signal.signal(number, _signal.SIG_DFL)
        except (OSError, ValueError):
            continue  # KILL, STOP and the two that libc keeps for itself
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _nothing(number: int, frame: object) -> None:
    """The wake-up pipe carries the signal."""


def exit_code(status: int) -> int:
    """A wait status as a shell shows it: the exit status, or 128 + signal."""
    return 128 + posix.WTERMSIG(status) if posix.WIFSIGNALED(status) else posix.WEXITSTATUS(status)


def describe_status(status: int) -> str:
    """An exit status, as a shell shows it, in words."""
    return 'killed by signal {}'.format(status - 128) if status > 128 else 'with exit status {}'.format(status)


def milliseconds(seconds: "float | None") -> "float | None":
    """A time limit as poll(2) takes it: a little later rather than too early, and no more than its int can hold."""
    return None if seconds is None else min(seconds * 1000 + 1, MOST_MILLISECONDS)
