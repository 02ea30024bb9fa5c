"""One command on this host for somebody elsewhere, as if it ran there: its streams, its signals, its exit status.

The commands of an agent are started by one process beside it, which forks one for each to see to it: see
`agent/starter.py` for what that is good for. The streams go between the command and us alone.
"""

import errno
import fcntl
import os
import select
import struct
import termios

import _signal
import _socket

from remote_runner.agent import processes, tree
from remote_runner.agent.files import expand
from remote_runner.agent.peers import Peer, pack
from remote_runner.agent.request import Failure, Gone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Set

    from remote_runner.agent.processes import Process
    from remote_runner.agent.request import Request
    from remote_runner.agent.views import View

PIECE = 1 << 16
#: As shells have it: the exit status of what is not there, and of what is there and cannot be executed.
NOT_FOUND, NOT_EXECUTABLE = 127, 126
#: Signals after which a command is not begun any more.
ENDING = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT)
#: Control-D: what ends the input of a terminal.
END_OF_INPUT = b'\x04'


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

        What it answers, and how it is told which command, see `run`.

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
    """One command, and the loop that carries its streams."""

    def __init__(self, request: "Request") -> None:
        self._request = request
        #: Its input, and what it writes: {file: part}.
        self._stdin = self._master = self._slave = -1
        self._sources: "Dict[int, str]" = {}
        self._pending: "List[memoryview]" = []
        #: Bytes of the part that is being written.
        self._size = 0
        self._is_input_ended = self._is_cancelled = False
        self._result: "Optional[Dict[str, object]]" = None
        #: Of what is left in each pipe once it has ended: bytes.
        self._rest: "Dict[int, int]" = {}
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
        files = {self._woken, self._wake, self._stdin, self._master, self._slave, *self._sources} - {-1}
        for fd in files:
            os.close(fd)

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
            terminal = self._open_terminal()
        else:
            theirs = self._open_pipes()
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

    def _open_pipes(self) -> "List[int]":
        theirs = []
        stdin, self._stdin = os.pipe()
        theirs.append(stdin)
        for name in ('out', 'err'):
            read, write = os.pipe()
            self._sources[read] = name
            theirs.append(write)
        os.set_blocking(self._stdin, False)
        return theirs

    def _open_terminal(self) -> bytes:
        """Its path. Its other side is ours to keep open until the command has it."""
        self._master, self._slave = os.openpty()
        size = self._request.header['terminal']
        self._resize(size['rows'], size['columns'])
        os.set_blocking(self._master, False)
        self._sources[self._master] = 'out'
        return os.fsencode(os.ttyname(self._slave))

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
        while self._result is None or self._sources:
            ready = dict(self._wanted().poll(0 if self._is_emptying else None))
            if self._woken in ready:
                self._hear()
            for fd in list(self._sources):
                if self._can_send:
                    if fd in ready:
                        self._read(fd)
                    elif self._is_emptying:
                        self._drop(fd)
            self._write(ready)
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
        if self._can_send:  # else nobody listens to it: also that it hung up would be no news
            for fd in self._sources:
                poll.register(fd, select.POLLIN)
        has_input = bool(self._pending) or self._is_input_ended
        if self._stdin >= 0:
            poll.register(self._stdin, select.POLLOUT if has_input else 0)
        elif self._master >= 0 and has_input:
            poll.register(self._master, select.POLLOUT | (select.POLLIN if self._can_send else 0))
        return poll

    @property
    def _is_emptying(self) -> bool:
        """Whether a terminal is read to its end: all that was written is there, and nobody can write any more."""
        return self._result is not None and self._master >= 0 and self._can_send

    def _hear(self) -> None:
        """What came from the other side, in the order in which it came, but that input waits for the command."""
        try:
            os.read(self._woken, 4096)
        except BlockingIOError:
            pass
        for part, body in self._request.take_parts():
            if part is None:
                self._is_input_ended = True
            elif part == 'in':
                self._pending.append(memoryview(body))
            elif part[0] == 'signal':
                self._signal(part[1])
            elif part[0] == 'size':
                self._resize(part[1], part[2])
            elif part[0] == 'close':
                for fd in [fd for fd, name in self._sources.items() if name == part[1] and fd != self._master]:
                    self._drop(fd)
        if self._request.is_gone and not self._is_cancelled:
            self._cancel()

    def _cancel(self) -> None:
        """Have it ended; what it still writes goes nowhere."""
        self._is_cancelled = True
        if self._master >= 0:
            self._sources.clear()
            self._close_terminal()
        if self._control is not None:
            self._control.sock.shutdown(_socket.SHUT_WR)

    def _signal(self, number: int) -> None:
        if self._control is None:
            self._early.append(number)
            return
        group = 0
        if self._master >= 0:
            try:
                group = os.tcgetpgrp(self._master)
            except OSError:
                pass  # the command is just starting, or ending
        if 0 < number < _signal.NSIG:
            self._control.send(('signal', number, group))

    def _resize(self, rows: int, columns: int) -> None:
        if self._master >= 0:
            size = struct.pack('HHHH', min(max(rows, 0), 0xFFFF), min(max(columns, 0), 0xFFFF), 0, 0)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    # ---- its input ---------------------------------------------------------------------------------------------

    def _write(self, ready: "Dict[int, int]") -> None:
        """Give it of its input what it takes."""
        fd = self._stdin if self._master < 0 else self._master
        if fd < 0:
            self._discard()
            return
        if ready.get(fd, 0) & (select.POLLERR | select.POLLNVAL) and self._master < 0:
            self._close_input()
            self._send_part('closed', b'')
            self._discard()
            return
        try:
            while self._pending:
                self._size = self._size or len(self._pending[0])
                self._pending[0] = self._pending[0][os.write(fd, self._pending[0]) :]
                if not self._pending[0]:
                    del self._pending[0]
                    size, self._size = self._size, 0
                    self._give_credit(size)
            if self._is_input_ended:
                self._is_input_ended = False
                if self._master >= 0:
                    os.write(fd, END_OF_INPUT)
                else:
                    self._close_input()
        except BlockingIOError:
            pass  # it takes more later
        except OSError:  # its reader has just gone: poll says so
            pass

    def _close_input(self) -> None:
        os.close(self._stdin)
        self._stdin = -1

    def _discard(self) -> None:
        """Nobody wants what comes for it."""
        for piece in self._pending:
            self._give_credit(self._size or len(piece))
            self._size = 0
        self._pending = []

    def _give_credit(self, size: int) -> None:
        if size and not self._is_cancelled:
            self._request.give_credit(size)

    # ---- its output --------------------------------------------------------------------------------------------

    @property
    def _can_send(self) -> bool:
        """It is listened to as long as what it says can be passed on."""
        return self._is_cancelled or self._request.credit >= PIECE

    def _read(self, fd: int) -> None:
        most = PIECE
        if fd in self._rest:
            most = min(PIECE, self._rest[fd])
            self._rest[fd] -= most
        try:
            data = os.read(fd, most)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # that is: a terminal that nobody has open any more
                raise
            data = b''
        if data:
            self._send_part(self._sources[fd], data)
        if not data or self._rest.get(fd) == 0:
            self._drop(fd)

    def _send_part(self, part: str, data: bytes) -> None:
        if not self._is_cancelled:
            try:
                self._request.send(part, data)
            except Gone:
                pass  # the next round sees that, too

    def _drop(self, fd: int) -> None:
        """Nothing more comes from there."""
        del self._sources[fd]
        if fd == self._master:
            self._close_terminal()
        else:
            os.close(fd)

    # ---- its end -----------------------------------------------------------------------------------------------

    def _close_terminal(self) -> None:
        """Which hangs up on whoever is in it."""
        for fd in {self._master, self._slave} - {-1}:
            os.close(fd)
        self._master = self._slave = -1

    def _hear_minder(self) -> None:
        assert self._control is not None
        messages = self._control.receive()
        for kind, *values in messages or ():
            if kind == 'started':
                self._process = (values[0], processes.start_time(values[0]) or 0)
                if self._slave >= 0:
                    os.close(self._slave)
                    self._slave = -1
            elif kind == 'signalled':
                self._send_part('signalled', b'')
            elif kind == 'ended':
                self._end({'status': values[0]})
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
                raise Failure('what started the command there was killed, and the command with it', kind='killed')

    def _end(self, result: "Dict[str, object]") -> None:
        """Its own process has ended: what it wrote is in the pipes now."""
        if self._result is not None or self._is_cancelled:
            return
        self._result = result
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1
        for fd in self._sources.keys() - {self._master}:
            self._rest[fd] = struct.unpack('i', fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]
            if not self._rest[fd]:
                self._drop(fd)


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
