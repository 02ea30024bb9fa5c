"""What starts the commands of one agent, see `agent/command.py`: a process of its own, forked once for each command.

The *starter* waits on stdin for commands and forks a *minder* for each, which starts the command and waits for it. Both
are child subreapers (prctl(2)): whatever a command leaves behind becomes a child of its minder, so that the minder can
end all of it, and knows when nothing is left (`waitpid` answers ECHILD). What ends them:

* the agent takes the command back, is killed, or its connection ends: the minder reads end of file, and ends all below.
* a minder is killed: what it leaves behind becomes the starter's, which ends what is not a minder.
* the starter is killed: the minders have a parent-death signal, and end all that is below them.

What is left when a command has ended by itself is what it wanted to leave, as a server that it started: it stays, as
with ssh, and the minder stays as long, so that the starter does not take it for a dead minder's.

Over the socket that comes with a command (`agent/peers.py`) its minder is told `(argv, environment, cwd, umask, path of
a terminal or b'')` and then `('signal', number, process group in front or 0)`; that nothing more can be told means that
the command is not wanted any more. It answers `('started', pid)`, `('signalled',)` to each signal, and `('ended', exit
status)`, or `('orphaned',)` where it has ended the command itself, because the starter or itself was killed; or
`('cwd', errno, why)` or `('failed', errno, why)` where there was no begin, and `('left', pids)` for what it cannot end.

It imports little, and is forked from a process that has imported it already: a command costs one fork of some 8 MB and
one posix_spawn.

    python3 -IS starter.py
"""

import errno
import os
import select
import struct
import sys

import _signal
import _socket

if __name__ == '__main__':
    sys.path.insert(0, __file__.rsplit('/', 3)[0])

from remote_runner.agent import processes, spawning, tree
from remote_runner.agent.peers import Peer
from remote_runner.agent.records import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Optional, Tuple

#: Seconds that a command has to end which is not wanted any more, before it is killed.
GRACE = 2.0
#: What comes with each command: the socket to its agent, and its stdin, stdout and stderr, where it has no terminal.
MOST_FILES = 4
#: Where programs are looked for without PATH, see execvp(3).
DEFAULT_PATH = b'/bin:/usr/bin'


class Starter:
    """See above."""

    def __init__(self) -> None:
        tree.prctl(tree.PR_SET_CHILD_SUBREAPER, 1)
        self._signals = tree.Signals((_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT, _signal.SIGCHLD))
        self._agent = _socket.socket(fileno=0)
        self._minders: "set[int]" = set()

    def run(self) -> None:
        """Until the agent is gone, or a signal asks for it: then the minders see to what is below them."""
        poll = select.poll()
        poll.register(self._agent, select.POLLIN)
        poll.register(self._signals.fd, select.POLLIN)
        strays: "List[int]" = []
        while True:
            ready = dict(poll.poll(20 if strays else None))
            if 0 in ready and not self._take():
                return
            if self._signals.take() - {_signal.SIGCHLD}:
                return
            strays = self._reap(bool(strays))

    def _take(self) -> bool:
        """Start the next command; False where the agent is gone."""
        room = _socket.CMSG_SPACE(4 * MOST_FILES)
        try:
            data, ancillary, _, _ = self._agent.recvmsg(1, room, _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        files = [fd for _, _, packed in ancillary for (fd,) in struct.iter_unpack('i', packed[: len(packed) & ~3])]
        control = Peer(_socket.socket(fileno=files[0]))
        own = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, or no memory
            control.send(('failed', error.errno, 'fork: {}'.format(error.strerror)))
            pid = -1
        if pid == 0:
            try:
                _mind(control, files[1:], own)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os.kill(os.getpid(), _signal.SIGKILL)  # a fault of ours: the starter ends what is left
            os._exit(0)
        for fd in files[1:]:
            os.close(fd)
        control.sock.close()
        self._minders.add(pid)
        return True

    def _reap(self, has_strays: bool) -> "List[int]":
        """Take note of what has ended, and end what dead minders left behind; what of that is still there."""
        ended, is_any_left = tree.reap()
        dead = [pid for pid, status in ended.items() if pid in self._minders and os.WIFSIGNALED(status)]
        self._minders.difference_update(ended)
        if not is_any_left or not (dead or has_strays):
            return []
        strays = [pid for pid in tree.children(os.getpid()) if pid not in self._minders]
        for pid in [below for stray in strays for below in [stray, *tree.descendants(stray)]]:
            try:
                os.kill(pid, _signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue  # it has just ended; or it is another user's, and not ours to end
        return strays


def _mind(control: Peer, files: "List[int]", starter: int) -> None:
    """Start one command and see to it: the life of a minder."""
    tree.prctl(tree.PR_SET_CHILD_SUBREAPER, 1)
    tree.prctl(tree.PR_SET_PDEATHSIG, _signal.SIGTERM)
    if os.getppid() != starter:
        return  # it was killed before that
    signals = tree.Signals((_signal.SIGTERM, _signal.SIGCHLD))
    os.dup2(1, 0)  # the socket to the agent is the starter's
    poll = select.poll()
    poll.register(control.fd, select.POLLIN)
    messages: "Optional[List[Tuple[Any, ...]]]" = []
    while not messages:
        poll.poll()
        messages = control.receive()
        if messages is None:
            return
    argv, environment, cwd, umask, terminal = messages.pop(0)
    try:
        os.chdir(cwd)
    except OSError as error:
        control.send(('cwd', error.errno, error.strerror))
        return
    os.umask(umask)
    try:
        pid = begin(argv, environment, ((terminal, os.O_RDWR), 0, 0) if terminal else tuple(files))
    except OSError as error:
        control.send(('failed', error.errno, error.strerror))
        return
    control.send(('started', pid))
    for fd in files:
        os.close(fd)
    _Minder(control, signals, pid, messages).run()


def begin(argv: "List[bytes]", environment: "Dict[bytes, bytes]", files: "spawning.Files") -> int:
    """Start a program as execvp(3) does, which looks along the PATH of `environment`; its pid.

    Raises:
        OSError: it cannot be started.
    """
    failure = OSError(errno.ENOENT, 'there is no such program')
    for program in _candidates(argv[0], environment):
        try:
            return spawning.spawn(argv, environment, files, program)
        except OSError as error:
            if error.errno == errno.ENOEXEC and b'\0' not in read_file(os.fsdecode(program))[:256]:
                # A script without an interpreter line.
                return spawning.spawn([b'sh', program, *argv[1:]], environment, files)
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                raise
            failure = _better(failure, error, program)
    raise failure


def _candidates(name: bytes, environment: "Dict[bytes, bytes]") -> "Iterator[bytes]":
    if b'/' in name:
        yield name
    elif name:
        for folder in environment.get(b'PATH', DEFAULT_PATH).split(b':'):
            path = os.path.join(folder or b'.', name)
            if os.path.exists(path):  # to try costs more than to look
                yield path


def _better(failure: OSError, error: OSError, program: bytes) -> OSError:
    """The one of two that tells more: that one may not is more than that there is none."""
    if failure.errno == errno.EACCES:
        return failure
    missing = error.errno == errno.ENOENT and os.path.exists(program)
    return OSError(error.errno, 'its interpreter is missing' if missing else error.strerror)


class _Minder:
    """Waits for a command that runs, and for what is said of it."""

    def __init__(self, control: Peer, signals: tree.Signals, pid: int, messages: "List[Tuple[Any, ...]]") -> None:
        self._control = control
        self._signals = signals
        self._pid = pid
        self._messages = messages
        self._below = tree.Tree()
        self._has_ended = False
        self._is_orphaned = False

    def run(self) -> None:
        """Until nothing is left of it, or nobody may see to it any more."""
        poll = select.poll()
        poll.register(self._control.fd, select.POLLIN)
        poll.register(self._signals.fd, select.POLLIN)
        while True:
            for _, number, group in self._messages:
                self._signal(number, group)
                self._control.send(('signalled',))
            ended, is_any_left = tree.reap()
            if self._pid in ended:
                self._has_ended = True
                status = tree.exit_code(ended[self._pid])
                self._control.send(('orphaned',) if self._is_orphaned else ('ended', status))
            if not is_any_left:
                return
            ready = dict(poll.poll(tree.milliseconds(self._below.wait())))
            messages = self._control.receive() if self._control.fd in ready else []
            if messages is None:
                poll.unregister(self._control.fd)
                self._end()
            self._messages = messages or []
            if _signal.SIGTERM in self._signals.take():
                if self._has_ended:
                    return  # what is left was meant to be
                self._is_orphaned = True
                self._end()
            self._below.tick()
            if self._below.left:
                self._control.send(('left', self._below.left))

    def _end(self) -> None:
        """The command is not wanted any more."""
        if not self._has_ended:
            self._below.end(GRACE)

    def _signal(self, number: int, group: int) -> None:
        """Pass a signal on to a process group of the command's session, or to the command's own."""
        for wanted in (group, self._pid):
            try:
                if wanted and not self._has_ended and os.getsid(wanted) == self._pid:
                    os.killpg(wanted, number)
                    return
            except (ProcessLookupError, PermissionError):
                continue  # it has just ended, or has become another user's


def main() -> None:
    """Serve the agent at the other end of stdin."""
    tree.default_signals()
    for number in processes.IGNORED_BY_PYTHON:
        _signal.signal(number, _signal.SIG_IGN)
    Starter().run()


if __name__ == '__main__':
    try:
        main()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)
