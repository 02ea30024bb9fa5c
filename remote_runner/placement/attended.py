"""A command that runs elsewhere, and our side of it: its streams are ours, and so are its signals.

It imports next to nothing, see `placement/client.py`.
"""

import errno
import os
import select
import time
from stat import S_ISREG

import _signal
import _socket

from remote_runner.agent import seen
from remote_runner.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from remote_runner.placement.command_line import Options
    from remote_runner.placement.terminal import Terminal

    Header = dict[str, Any]

#: The id of its frames: there is one command over a connection.
NUMBER = 1
#: Bytes that a pipe or terminal which says that it can be written to takes at once (PIPE_BUF).
PIPE_ROOM = 4096
#: Credit is given back when so many bytes were written.
CREDIT_STEP = frames.WINDOW // 4
#: Signals that are passed on, and those of them after some of which we end ourselves, whatever the command does.
PASSED = tuple(getattr(_signal, 'SIG' + name) for name in ('INT', 'TERM', 'HUP', 'QUIT', 'USR1', 'USR2'))
ENDING = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT)
MOST_ENDING = 3
#: Seconds that a host has to say that it has passed on one of these. One that is cut off or hangs never says so.
WAIT_HEARD = 5.0
#: Exit status where the daemon is lost; of other failures it says that itself, see `errors.py`.
EXIT_LOST = 3
#: What no name of a program has, and a line for a shell may have; and what to say of it.
_OF_SHELLS = frozenset(' \n;|&<>()$`"\'')
_FOR_A_SHELL = "no shell reads the words of a command; where one should: dsh sh -c '...'"
_REMEDIES = {
    'cwd': '--sync brings this folder over and back, --dir names a folder of the host',
    'late': '--wait-files SECONDS waits longer',
}


class _Output:
    """One of our two outputs, and what waits to be written there."""

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.name = name
        self.waiting: list[memoryview] = []
        self.is_open = True
        try:
            #: What can be written at once without waiting, once it says that it can be written to.
            self.room = frames.WINDOW if S_ISREG(os.fstat(fd).st_mode) else PIPE_ROOM
        except OSError:
            self.is_open = False

    def write(self) -> int:
        """Write a piece; how many bytes are dealt with."""
        piece = self.waiting[0]
        size = os.write(self.fd, piece[: self.room])
        if size == len(piece):
            del self.waiting[0]
        else:
            self.waiting[0] = piece[size:]
        return size


class Attended:
    """See above.

    Args:
        sock: to who runs it.
        options: what is wanted; it is told where the command runs.
        terminal: ours, if the command has one of its own.
    """

    def __init__(self, sock: '_socket.socket', options: 'Options', terminal: 'Terminal | None') -> None:
        self._sock = sock
        self._options = options
        self._terminal = terminal
        self._decoder = frames.Decoder()
        self._sending = bytearray()
        self._outputs = {
            name: _Output(fd, name) for fd, name in zip(options.outputs, ('out', 'err'), strict=True)
        }
        self._credit = frames.WINDOW
        self._owed = 0
        self._reads = not options.has_no_input
        self._is_in_front = True
        self._answer: Header | None = None
        self._is_lost = False
        #: Something that it wrote could not be written here, and not for want of a reader.
        self.is_output_lost = False
        self._handlers: dict[int, Any] = {}
        #: The signals of `ENDING` that came, in this order.
        self.came: list[int] = []
        #: Until when the host has to say that it has passed them on, and whether it did not.
        self._heard_until: float | None = None
        self._is_unheard = False
        #: What the command changed in our folder, as its host sees it.
        self.changes: dict[str, seen.Sight] = {}

    def run(self, header: 'Header') -> int:
        """From asking for it to its end; its exit status."""
        self._catch_signals()
        self._sock.setblocking(False)
        self._send(header)
        if not self._reads:
            self._send({'id': NUMBER, 'part': None})
        if self._terminal is not None:
            self._terminal.make_raw()
        try:
            while not self._is_over():
                self._turn()
        finally:
            if self._terminal is not None:
                self._terminal.restore()
        return self._status()

    def _is_over(self) -> bool:
        if len(self.came) >= MOST_ENDING or self._is_unheard:
            return True
        has_ended = self._answer is not None or self._is_lost
        return has_ended and not any(output.waiting for output in self._outputs.values())

    def _status(self) -> int:
        answer = self._answer or {}
        if 'error' in answer:
            error = answer['error']
            remedy = error.get('remedy') or _REMEDIES.get(error.get('kind'))
            return complain(error['what'], error.get('host') or self._options.ran_on, remedy, error.get('status', 1))
        if 'result' in answer:
            result = answer['result']
            self._options.has_ended = True
            self.changes = result.get('seen', {})
            if result.get('why'):
                program = self._options.command[0]
                remedy = _FOR_A_SHELL if set(program) & _OF_SHELLS else None
                complain(f'{program}: {result["why"]}', self._options.ran_on, remedy)
            return int(result['status'])
        if len(self.came) >= MOST_ENDING:
            return 128 + self.came[-1]
        if self._is_unheard:
            if self._options.ran_on is None:
                what = f'the daemon does not answer: {WAIT_HEARD:g} s after signal {self.came[0]} it has named no host'
                return complain(what, None, 'end it, and start it again: remote_runner dshd', 128 + self.came[-1])
            what = f'nobody answers there: in {WAIT_HEARD:g} s the command was not sent the signal {self.came[0]}'
            remedy = 'what runs there ends when the host answers again, or finds that its connection is gone'
            return complain(what, self._options.ran_on, remedy, 128 + self.came[-1])
        what = 'the daemon has ended, and the command with it'
        return complain(what, self._options.ran_on, 'start it again: remote_runner dshd', EXIT_LOST)

    def await_files(self) -> int:
        """Wait until we see what the command wrote; 1 where we do not, else 0."""
        wanted = {os.fsdecode(path.encode('utf-8', 'surrogateescape')): sight for path, sight in self.changes.items()}
        if wanted.get('.', ()) is None:
            del wanted['.']  # it was removed: while we are in it, it is still there for us
        late = seen.wait(wanted, '', time.monotonic() + self._options.wait_files, self._pause)
        if not late or self.came:
            return 0
        from remote_runner.agent.views import listed  # late: it is rare

        what = f'what the command has written is not seen here within {self._options.wait_files:g} s: {listed(late)}'
        return complain(what, self._options.ran_on, _REMEDIES['late'])

    def _pause(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        poll.poll(seconds * 1000)
        try:
            self.came += [number for number in os.read(self._woken, 4096) if number in ENDING]
        except BlockingIOError:
            return
        if self.came:
            die_by(self.came[-1])

    # ---- the loop ----------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Wait for something to do, and do it."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if not self._is_lost:
            poll.register(self._sock, select.POLLIN | (select.POLLOUT if self._sending else 0))
        may_read = self._reads and self._credit > 0 and not self._sending and self._is_in_front
        if may_read and self._answer is None and not self._is_lost:
            poll.register(0, select.POLLIN)
        for output in self._outputs.values():
            if output.waiting:
                poll.register(output.fd, select.POLLOUT)
        ready = dict(poll.poll(self._patience()))
        if not ready and self._heard_until is not None:
            self._is_unheard = time.monotonic() >= self._heard_until
        if self._woken in ready:
            self._hear_signals()
        if self._sock.fileno() in ready:
            self._hear()
        for output in self._outputs.values():
            if output.fd in ready and output.waiting:
                self._write(output)
        if 0 in ready:
            self._read()
        self._flush()

    def _patience(self) -> float | None:
        """Milliseconds until the host should have said that it has passed on a signal; None: for ever."""
        if self._heard_until is None or self._answer is not None or self._is_lost:
            return None
        return max(0.0, self._heard_until - time.monotonic()) * 1000

    def _send(self, header: 'Header', body: bytes = b'') -> None:
        self._sending += frames.encode(header, body)

    def _flush(self) -> None:
        try:
            while self._sending and not self._is_lost:
                del self._sending[: self._sock.send(self._sending, _socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            return
        except OSError:
            self._sending.clear()  # what it has said before is still to be read

    def _hear(self) -> None:
        try:
            data = self._sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        if not data:
            self._is_lost = True
        for header, body in self._decoder.feed(data):
            self._take(header, body)

    def _take(self, header: 'Header', body: bytes) -> None:
        if 'part' in header:
            if header['part'] == 'closed':
                self._close_input()
            elif header['part'] == 'signalled':
                self._heard_until = None
            elif body:
                output = self._outputs[header['part']]
                if output.is_open:
                    output.waiting.append(memoryview(body))
                else:
                    self._owe(len(body))
        elif 'credit' in header:
            self._credit += header['credit']
        elif 'host' in header:
            self._options.ran_on = header['host']
            if self._options.is_verbose:
                _write_all(2, f'dsh: {self._options.ran_on}\n'.encode('utf-8', 'surrogateescape'))
        else:
            self._answer = header

    # ---- its output --------------------------------------------------------------------------------------------

    def _write(self, output: _Output) -> None:
        try:
            self._owe(output.write())
        except BlockingIOError:
            return  # somebody made it so, and somebody else was faster
        except OSError as error:
            output.is_open = False
            self._owe(sum(map(len, output.waiting)))
            output.waiting.clear()
            self._send({'id': NUMBER, 'part': ['close', output.name]})
            if error.errno != errno.EPIPE:
                self.is_output_lost = True
                complain(f'the output cannot be written: {error.strerror}')

    def _owe(self, size: int) -> None:
        """So many bytes are dealt with."""
        self._owed += size
        if self._owed >= CREDIT_STEP and self._answer is None:
            self._send({'id': NUMBER, 'credit': self._owed})
            self._owed = 0

    # ---- its input ---------------------------------------------------------------------------------------------

    def _read(self) -> None:
        if self._terminal is None and os.isatty(0) and os.tcgetpgrp(0) != os.getpgrp():
            self._is_in_front = False  # until we are continued there: who reads a terminal from behind is stopped
            return
        try:
            data = os.read(0, min(frames.PIECE, self._credit))
        except BlockingIOError:
            return
        except OSError:
            data = b''  # it is a folder, or a terminal that is gone
        if data:
            self._credit -= len(data)
            self._send({'id': NUMBER, 'part': 'in'}, data)
        else:
            self._reads = False
            self._send({'id': NUMBER, 'part': None})

    def _close_input(self) -> None:
        """Nobody reads it: let whoever writes it know, as if the command ran here."""
        self._reads = False
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.close(null)

    # ---- signals ------------------------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (*PASSED, _signal.SIGTSTP, _signal.SIGCONT, _signal.SIGWINCH):
            if _signal.getsignal(number) != _signal.SIG_IGN:  # as nohup(1) has it
                self._handlers[number] = _signal.signal(number, _noted)

    def release_signals(self) -> None:
        """From now on they do what they did before."""
        for number, handler in self._handlers.items():
            _signal.signal(number, handler)
        _signal.set_wakeup_fd(-1)
        os.close(self._woken)
        os.close(self._wake)

    def _hear_signals(self) -> None:
        for number in os.read(self._woken, 4096):
            if number in PASSED:
                self._send({'id': NUMBER, 'part': ['signal', number]})
                if number in ENDING:
                    self.came.append(number)
                    self._heard_until = self._heard_until or time.monotonic() + WAIT_HEARD
            elif number == _signal.SIGTSTP:
                self._stop()
            elif number == _signal.SIGCONT:  # also after a SIGSTOP, which tells nobody
                self._is_in_front = True
                self._send({'id': NUMBER, 'part': ['signal', number]})
            elif number == _signal.SIGWINCH and self._terminal is not None:
                self._send({'id': NUMBER, 'part': ['size', *self._terminal.size()]})

    def _stop(self) -> None:
        """Stop, and the command as well: it is alone in its session, where SIGTSTP would do nothing."""
        self._send({'id': NUMBER, 'part': ['signal', int(_signal.SIGSTOP)]})
        self._sock.setblocking(True)
        self._flush()
        self._sock.setblocking(False)
        if self._terminal is not None:
            self._terminal.restore()
        _signal.signal(_signal.SIGTSTP, _signal.SIG_DFL)
        os.kill(os.getpid(), _signal.SIGTSTP)
        # Here we were continued, or there is nobody who could do that.
        _signal.signal(_signal.SIGTSTP, _noted)
        self._send({'id': NUMBER, 'part': ['signal', int(_signal.SIGCONT)]})
        self._is_in_front = True
        if self._terminal is not None:
            self._terminal.make_raw()


def die_by(number: int) -> 'NoReturn':
    """End as a process does that this signal ends: a shell then knows that somebody pressed Ctrl-C."""
    _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def complain(what: str, host: str | None = None, remedy: str | None = None, status: int = 1) -> int:
    """Say what is wrong on stderr; the status."""
    from remote_runner.errors import RemoteRunnerError

    lines = str(RemoteRunnerError(what, host=host, remedy=remedy)).split('\n')
    text = ''.join(f'{line}\n' if line[:1] == ' ' else f'ERROR: {line}\n' for line in lines)
    _write_all(2, text.encode('utf-8', 'surrogateescape'))
    return status


def _write_all(fd: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError:
        return  # nobody is there to read it


def _noted(number: int, frame: object) -> None:
    """Python writes the number to the wake-up pipe, see signal.set_wakeup_fd."""
