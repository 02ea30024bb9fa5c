"""One command on this host for somebody elsewhere, as if it ran there: its streams, its signals, its exit status.

The commands of an agent are started by one process beside it, which forks one for each to see to it: see
`agent/starter.py` for what that is good for. The streams (`agent/streams.py`) go between the command and us alone.
"""

import errno
import os
import select
import struct

import _signal
import _socket

from remote_runner.agent import processes, tree
from remote_runner.agent.files import expand
from remote_runner.agent.peers import Peer, pack
from remote_runner.agent.request import Failure, Gone
from remote_runner.agent.streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Set

    from remote_runner.agent.processes import Process
    from remote_runner.agent.request import Request
    from remote_runner.agent.views import View

#: As shells have it: the exit status of what is not there, and of what is there and cannot be executed.
NOT_FOUND, NOT_EXECUTABLE = 127, 126
#: Signals after which a command is not begun any more.
ENDING = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT)
KILLED = 'what started the command there was killed, and the command with it'


class _EndedEarly(Exception):
    """A signal came that ends what has not begun yet."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Starter:
    """Our end of the process that starts commands."""

    def __init__(self) -> None:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        self._sock = ours
        code = '{}/starter{}'.format(os.path.dirname(__file__), os.path.splitext(__file__)[1])
        if not os.path.exists(code):
            raise ImportError(code)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            argv = [os.fsencode(word) for word in (processes.PYTHON, '-IS', code)]
            self._pid = processes.spawn(argv, (theirs.fileno(), null, 2))
        finally:
            os.close(null)
            theirs.close()

    def begin(self, files: "List[int]") -> Peer:
        """Have a command started whose stdin, stdout and stderr are these (none: it opens a terminal).

        How its minder is told which command, and what it answers, see `agent/starter.py`.

        Raises:
            OSError: this starter is gone.
        """
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            packed = b''.join(struct.pack('i', fd) for fd in [theirs.fileno(), *files])
            self._sock.sendmsg([b'.'], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)], _socket.MSG_NOSIGNAL)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return Peer(ours)

    def bury(self) -> None:
        """Forget a process that is gone: the kernel keeps what nobody asks about."""
        self._sock.close()
        os.waitpid(self._pid, 0)


def run(request: "Request") -> "Dict[str, object]":
    """Operation `run`: run a command in the folder `cwd`, with `umask`, and with `env` over the login environment.

    Header fields: `argv` (the words, exactly), `cwd` (`~` is the home), `umask`, `env` ({name: value}), and `terminal`:
    null, or `{"term": ..., "rows": ..., "columns": ...}` for one of its own. With `shared` the folder is the client's
    own one, and what that has seen there is waited for: see `agent/views.py`. What is no UTF-8 travels as lone
    surrogates (PEP 383).

    Parts to here: `in` with a body, null for the end of input; `["signal", NUMBER]` for the process group of the
    command, with a terminal for the one in front; `["size", ROWS, COLUMNS]` of the terminal; `["close", "out"]` (or
    `err`): nobody reads that any more, so that whoever writes to it is told by SIGPIPE. Only bodies need credit.
    Parts from here: `out` and `err` (with a terminal all is `out`); `closed`: nobody reads its input any more;
    `signalled`: a signal was passed on.

    The result is `{"status": 0..255}`: 128 + the number of the signal that ended it. Where it could not be executed it
    is 127 (it was not found) or 126, with `why`. With `shared` it has `seen`: what changed. A command is over when its
    own process has ended and what that had written is read: what it leaves behind stays, as with ssh, and is listened
    to no more.

    When it is cancelled, or the connection ends, or the agent is killed, all that descends from the command ends:
    TERM (with a terminal HUP, too), and KILL two seconds later.

    Raises:
        Failure: of kind `cwd`: there is no such folder here, it is not the client's, or nobody may enter it; of kind
            `late`: something that the client has seen is not seen here in time.
    """
    try:
        command = Command(request)
    except _EndedEarly as early:
        return {'status': 128 + early.number}
    request.agent.commands.add(request)
    try:
        return command.run()
    finally:
        request.agent.commands.discard(request)
        command.close()


class Command:
    """One command, from its begin to its end."""

    def __init__(self, request: "Request") -> None:
        self._request = request
        self._streams = Streams(request)
        self._is_cancelled = False
        self._result: "Optional[Dict[str, object]]" = None
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._control: "Optional[Peer]" = None
        #: Its own process, once it runs: pid and start time.
        self._process: "Optional[Process]" = None
        self._folder = expand(request.header['cwd'])
        self._view: "Optional[View]" = None
        #: Signals that came before it was there.
        self._early: "List[int]" = []
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of all."""
        self._request.when_changed(None)
        if self._control is not None:
            self._control.sock.close()
        self._streams.close()
        os.close(self._woken)
        os.close(self._wake)

    # ---- its begin ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        header = self._request.header
        argv = [_encode(word) for word in header['argv']]
        environment = dict(processes.ENVIRONMENT)
        environment.update({_encode(name): _encode(value) for name, value in header['env'].items()})
        words = [*argv, *environment, *environment.values(), _encode(self._folder)]
        if not argv or any(b'\0' in word for word in words):
            raise Failure('there is no command, or a zero byte in a word of it', kind='usage')
        self._request.when_changed(self._notify)
        if header.get('shared'):
            from remote_runner.agent.views import View

            self._view = View(self._folder, header['argv'], header['shared'], self._pause)
        terminal = b''
        theirs: "List[int]" = []
        if header.get('terminal'):
            environment[b'TERM'] = _encode(header['terminal']['term'])
            terminal = self._streams.open_terminal(header['terminal']['rows'], header['terminal']['columns'])
        else:
            theirs = self._streams.open_pipes()
        try:
            control = self._control = self._ask(theirs)
        finally:
            for fd in theirs:
                os.close(fd)
        try:
            control.sock.sendall(pack((argv, environment, _encode(self._folder), header['umask'], terminal)))
        except OSError:
            pass  # it says why, or nothing
        for number in self._early:
            self._signal(number)

    def _pause(self, seconds: float) -> None:
        """Wait, for something that nobody tells us of."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        poll.poll(seconds * 1000)
        self._hear()
        self._request.check()
        for number in self._early:
            if number in ENDING:
                raise _EndedEarly(number)

    def _ask(self, files: "List[int]") -> Peer:
        starter = self._request.agent.starter()
        try:
            return starter.begin(files)
        except OSError:  # it was killed
            return self._request.agent.starter(broken=starter).begin(files)

    # ---- the loop ----------------------------------------------------------------------------------------------

    def _notify(self) -> None:
        try:
            os.write(self._wake, b'.')
        except BlockingIOError:
            return  # it is noted already

    def run(self) -> "Dict[str, object]":
        """Until it has ended, and all that it wrote is sent; its result."""
        while self._result is None or not self._streams.are_read:
            ready = dict(self._wanted().poll(0 if self._streams.is_emptying else None))
            if self._woken in ready:
                self._hear()
            self._streams.serve(ready)
            if self._control is not None and self._control.fd in ready:
                self._hear_minder()
            if self._is_cancelled and (self._result is not None or self._control is None):
                raise Gone
        if self._view is not None:
            self._result['seen'] = self._view.changes()
        return self._result

    def _wanted(self) -> select.poll:
        """What is waited for now."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if self._control is not None:
            poll.register(self._control.fd, select.POLLIN)
        self._streams.watch(poll)
        return poll

    def _hear(self) -> None:
        """What came from the other side, in the order in which it came, but that input waits for the command."""
        try:
            os.read(self._woken, 4096)
        except BlockingIOError:
            pass
        for part, body in self._request.take_parts():
            if part is not None and part[0] == 'signal':
                self._signal(part[1])
            else:
                self._streams.take(part, body)
        if self._request.is_gone and not self._is_cancelled:
            self._cancel()

    def _cancel(self) -> None:
        """Have it ended; what it still writes goes nowhere."""
        self._is_cancelled = True
        self._streams.cut()
        if self._control is not None:
            self._control.sock.shutdown(_socket.SHUT_WR)

    def _signal(self, number: int) -> None:
        if self._control is None:
            self._early.append(number)
            return
        if 0 < number < _signal.NSIG:
            self._control.send(('signal', number, self._streams.front()))

    # ---- its end -----------------------------------------------------------------------------------------------

    def _hear_minder(self) -> None:
        assert self._control is not None
        messages = self._control.receive()
        for kind, *values in messages or ():
            if kind == 'started':
                self._process = (values[0], processes.start_time(values[0]) or 0)
            elif kind == 'signalled':
                self._streams.say('signalled')
            elif kind == 'ended':
                self._end({'status': values[0]})
            elif kind == 'orphaned':
                if not self._is_cancelled:
                    raise Failure(KILLED, kind='killed')
            elif kind == 'failed':
                status = NOT_FOUND if values[0] in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE
                self._end({'status': status, 'why': values[1]})
            elif kind == 'cwd':
                name = errno.errorcode[values[0]]
                raise Failure('{}: {}'.format(self._folder, values[1]), kind='cwd', errno_name=name)
            elif self._is_cancelled:  # `left`: what nobody can end now
                raise Gone
        if messages is None:
            self._control.sock.close()
            self._control = None
            if self._result is None and self._process is not None:
                _end_orphans(self._process)
            if self._result is None and not self._is_cancelled:
                raise Failure(KILLED, kind='killed')

    def _end(self, result: "Dict[str, object]") -> None:
        """Its own process has ended."""
        if self._result is not None or self._is_cancelled:
            return
        self._result = result
        self._streams.ended()


def _end_orphans(command: "Process") -> None:
    """End a command whose minder was killed, and its starter with it, by killall(1) or so: nobody else would.

    What had left its session, and whose parents are gone, is not found: it is nobody's now.
    """
    pid, started = command
    if processes.is_gone(pid, started):
        return
    left = processes.identify(_kin(pid))
    while left:
        processes.kill(left, _signal.SIGKILL)
        if processes.wait_gone(left, tree.KILL_TIMEOUT):
            return
        left = processes.identify(_session(pid))  # what they forked meanwhile


def _kin(leader: int) -> "Set[int]":
    """A session, and all that descends from it."""
    members = _session(leader)
    return {below for member in members for below in (member, *tree.descendants(member))}


def _session(leader: int) -> "List[int]":
    found = []
    for name in os.listdir('/proc'):
        try:
            if name.isdigit() and os.getsid(int(name)) == leader:
                found.append(int(name))
        except (ProcessLookupError, PermissionError):
            continue  # it has just ended, or may not be looked at
    return found


def _encode(text: str) -> bytes:
    return text.encode('utf-8', 'surrogateescape')
