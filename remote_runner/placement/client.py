"""`remote_runner dsh` where the daemon runs: a command elsewhere with our streams, signals and exit status.

It starts for every command, maybe for each file that is compiled, so it imports next to nothing: modules that Python
has loaded anyway, or that are built into it. What it does not understand at once (`--help`, wrong options, hosts other
than the daemon's, no daemon) it leaves to `cli/dsh.py`, which has its own server in the end, and `attend` as well.
"""

import errno
import os
import select
import sys
import time
from stat import S_ISREG

import _signal
import _socket

from remote_runner.agent import seen
from remote_runner.placement.wire import socket_path
from remote_runner.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NoReturn

    Header = dict[str, Any]

#: Variables of the environment that go with a command unless `--env` says otherwise.
ENVIRONMENT = (
    'PATH', 'LANG', 'LC_*', 'TERM', 'TZ', 'CC', 'CXX', 'CFLAGS', 'CXXFLAGS', 'LDFLAGS', 'MAKEFLAGS',
)  # fmt: skip
#: Words of MAKEFLAGS that mean something to processes below the same make(1) alone, on this machine.
_OWN_OF_MAKE = ('--jobserver-', '--sync-mutex', '-j', '--jobs')
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
#: Seconds that what one machine wrote has to be seen by another, on a network file system.
WAIT_FILES = 10.0
#: Exit status where a host or the daemon is lost, see `errors.py`.
EXIT_LOST = 3
_UNITS = {'k': 10**3, 'M': 10**6, 'G': 10**9, 'T': 10**12}
_NUMBER = 1
_REMEDIES = {
    'cwd': '--sync brings this folder over and back, --dir names a folder of the host',
    'late': '--wait-files SECONDS waits longer',
}


class Options:
    """What the command line says.

    Attributes:
        prefer, exclude: names of hosts, or patterns.
        min_memory: bytes that must be free.
        platform: such hosts alone.
        hosts: those of these names alone; none: all.
        env: what `--env` says: NAME, NAME=VALUE, a pattern, or one of these behind `-`, which is left out.
        folder: of the host, in which it runs; None: ours, which has to be shared.
        wait_files: seconds that a host has to see the files that are here, and we have to see what it wrote.
        is_terminal: the command gets a terminal, if we have one.
        is_verbose: tell where it runs.
        has_no_input: its input is empty.
        command: its words.
        outputs: files that its output and its errors go to.
        ran_on: the host on which it runs, once that is known.
        has_ended: it ran to its end, or could not be executed.
    """

    def __init__(self) -> None:
        self.prefer: list[str] = []
        self.exclude: list[str] = []
        self.hosts: list[str] = []
        self.env: list[str] = []
        self.min_memory = 0
        self.platform: str | None = None
        self.folder: str | None = None
        self.wait_files = WAIT_FILES
        self.is_terminal = self.is_verbose = self.has_no_input = False
        self.command: list[str] = []
        self.outputs = (1, 2)
        self.ran_on: str | None = None
        self.has_ended = False


_FLAGS = {
    '-t': 'is_terminal', '--terminal': 'is_terminal',
    '-v': 'is_verbose', '--verbose': 'is_verbose',
    '-n': 'has_no_input', '--no-input': 'has_no_input',
}  # fmt: skip
_HOSTS = {'--prefer': 'prefer', '--exclude': 'exclude', '-x': 'exclude'}


def main(arguments: list[str]) -> int | None:
    """Run a command line (what follows `dsh`); the exit status, or None: it is one for `cli/dsh.py`."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # there is nothing that had to be put in order first
    fill_streams()
    options = read(arguments)
    sock = None if options is None else connect()
    if options is None or sock is None:
        return None
    status = attend(sock, options)
    return status if status >= 0 else die_by(-status)


def read(arguments: list[str]) -> Options | None:
    """What a command line says; None where that is not plain."""
    options = Options()
    words = iter(arguments)
    rest: list[str] = []
    for word in words:
        if word == '--':
            break
        if word[:1] != '-' or word == '-':
            rest.append(word)
            break
        if word in _FLAGS:
            setattr(options, _FLAGS[word], True)
            continue
        name, equals, value = word.partition('=')
        if not equals:
            value = next(words, '')
        if name == '--env' and value and value[0] != '=':
            options.env.append(value)
        elif name in _HOSTS and _is_plain(value):
            getattr(options, _HOSTS[name]).append(value)
        elif name == '--platform' and value:
            options.platform = value
        elif name == '--dir' and value:
            options.folder = value
        elif name == '--min-memory' and value[:-1].isdecimal() and value[-1] in _UNITS:
            options.min_memory = int(value[:-1]) * _UNITS[value[-1]]
        else:
            return None
    options.command = rest + list(words)
    return options if options.command else None


def _is_plain(name: str) -> bool:
    """Whether this is one host, or a pattern for fnmatch(3), and nothing that has to be unfolded first."""
    return name.translate({ord(character): None for character in '.-_*?'}).isalnum()


def fill_streams() -> None:
    """Standard streams that are closed (`>&-`) are as /dev/null: else the next file that is opened would be one."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def connect() -> '_socket.socket | None':
    """A connection to the daemon of this user; None: there is none."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(socket_path())
        credentials = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        if int.from_bytes(credentials[4:8], sys.byteorder) == os.getuid():
            return sock
    except OSError:
        pass  # `cli/dsh.py` says why, where it is not that there is none
    sock.close()
    return None


def environment(wanted: 'Iterable[str]') -> dict[str, str]:
    """The variables that go with a command: by default `ENVIRONMENT`, and what `--env` says."""
    given: dict[str, str] = {}
    patterns = [*ENVIRONMENT, *wanted]
    for pattern in patterns:
        if '=' in pattern and pattern[:1] != '-':
            name, _, value = pattern.partition('=')
            given[name] = value
        elif pattern[:1] == '-':
            given = {name: value for name, value in given.items() if not _matches(name, pattern[1:])}
        else:
            given.update((name, value) for name, value in os.environ.items() if name and _matches(name, pattern))
    if 'MAKEFLAGS' in given and 'MAKEFLAGS' not in (word.partition('=')[0] for word in wanted):
        given['MAKEFLAGS'] = without_jobserver(given['MAKEFLAGS'])
    return given


def _matches(name: str, pattern: str) -> bool:
    if pattern[-1:] == '*' and not set(pattern[:-1]) & set('*?['):
        return name.startswith(pattern[:-1])
    if set(pattern) & set('*?['):
        from fnmatch import fnmatchcase

        return fnmatchcase(name, pattern)
    return name == pattern


def without_jobserver(flags: str) -> str:
    """MAKEFLAGS without what only this machine's make(1) can serve: who asks a jobserver that is not there waits."""
    options, dashes, variables = flags.partition(' -- ')
    kept = [word for word in options.split(' ') if word != '--jobs' and not word.startswith(_OWN_OF_MAKE)]
    return ' '.join(kept) + dashes + variables


def folder() -> str:
    """Where we are, as the shell calls it (links and automounters), if that is the same.

    Raises:
        OSError: the folder is gone.
    """
    here = os.stat('.')
    try:
        shown = os.environ.get('PWD', '')
        there = os.stat(shown)
        if shown[:1] == '/' and (here.st_ino, here.st_dev) == (there.st_ino, there.st_dev):
            return shown
    except OSError:
        pass  # a variable can hold anything
    return os.getcwd()


def request(options: Options, here: str | None, has_terminal: bool) -> 'Header':
    """What is asked for; `here`: the folder in which we are, if it runs there."""
    umask = os.umask(0o77)
    os.umask(umask)
    given = environment(options.env)
    shared = None
    if here is not None:
        given.setdefault('PWD', here)  # compilers write it into what they make
        if options.wait_files:
            shared = {**seen.Place('.').facts(), 'files': sights(options.command), 'wait': options.wait_files}
    terminal = None
    if has_terminal:
        columns, rows = os.get_terminal_size(0)
        terminal = {'term': os.environ.get('TERM', 'dumb'), 'rows': rows, 'columns': columns}
    return {
        'id': _NUMBER,
        'op': 'run',
        'wanted': {
            'hosts': options.hosts,
            'prefer': options.prefer,
            'exclude': options.exclude,
            'min_memory': options.min_memory,
            'platform': options.platform,
        },
        'argv': [_text(word) for word in options.command],
        'cwd': _text(here or options.folder or '~'),
        'shared': shared,
        'umask': umask,
        'env': {_text(name): _text(value) for name, value in given.items()},
        'terminal': terminal,
        'window': frames.WINDOW,
    }


def sights(words: list[str]) -> dict[str, 'seen.Sight']:
    """What we see of this folder, and of words that are paths on the same file system."""
    device = os.stat('.').st_dev
    found = {'.': seen.look('.')}
    for word in seen.named(words):
        try:
            if os.stat(word).st_dev != device:
                continue
        except (OSError, ValueError):
            continue
        found[_text(word)] = seen.look(word)
    return found


def _text(word: str) -> str:
    """A word as it goes over the wire, whatever the locale is that it was read by."""
    return os.fsencode(word).decode('utf-8', 'surrogateescape')


def attend(sock: '_socket.socket', options: Options) -> int:
    """Have the command run by who is at the other end of `sock`, and be its streams; its exit status.

    Where a signal ended it that had come to us: its number, negative; see `die_by`.
    """
    has_terminal = options.is_terminal and os.isatty(0)
    try:
        asked = request(options, folder() if options.folder is None else None, has_terminal)
    except OSError as error:
        return complain(f'the folder in which this is cannot be found: {error.strerror}')
    command = _Attended(sock, options, has_terminal)
    try:
        status = command.run(asked)
        if command.changes:
            status = command.await_files() or status
        if command.is_output_lost:
            status = status or 1
    except frames.FrameError as error:
        return complain(f'what the daemon says makes no sense: {error}', remedy='is it of another version?')
    finally:
        command.release_signals()
    is_ended_by_ours = status - 128 in command.came and status - 128 != _signal.SIGQUIT  # we would leave a core dump
    return 128 - status if is_ended_by_ours else status


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


class _Attended:
    """A command that runs elsewhere, and our side of it."""

    def __init__(self, sock: '_socket.socket', options: Options, has_terminal: bool) -> None:
        self._sock = sock
        self._options = options
        self._has_terminal = has_terminal
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
            self._send({'id': _NUMBER, 'part': None})
        terminal = self._make_raw() if self._has_terminal else None
        try:
            while not self._is_over():
                self._turn()
        finally:
            if terminal is not None:
                self._restore(terminal)
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
            status = error.get('status') or (EXIT_LOST if error.get('kind') == 'lost' else 1)
            remedy = error.get('remedy') or _REMEDIES.get(error.get('kind'))
            return complain(error['what'], error.get('host') or self._options.ran_on, remedy, status)
        if 'result' in answer:
            result = answer['result']
            self._options.has_ended = True
            self.changes = result.get('seen', {})
            if result.get('why'):
                complain(f'{self._options.command[0]}: {result["why"]}', self._options.ran_on)
            return int(result['status'])
        if len(self.came) >= MOST_ENDING:
            return 128 + self.came[-1]
        if self._is_unheard:
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
        names = ', '.join(sorted(late)[:3]) + (f' and {len(late) - 3} more' if len(late) > 3 else '')
        what = f'what the command has written is not seen here within {self._options.wait_files:g} s: {names}'
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
            self._send({'id': _NUMBER, 'part': ['close', output.name]})
            if error.errno != errno.EPIPE:
                self.is_output_lost = True
                complain(f'the output cannot be written: {error.strerror}')

    def _owe(self, size: int) -> None:
        """So many bytes are dealt with."""
        self._owed += size
        if self._owed >= CREDIT_STEP and self._answer is None:
            self._send({'id': _NUMBER, 'credit': self._owed})
            self._owed = 0

    # ---- its input ---------------------------------------------------------------------------------------------

    def _read(self) -> None:
        if os.isatty(0) and not self._has_terminal and os.tcgetpgrp(0) != os.getpgrp():
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
            self._send({'id': _NUMBER, 'part': 'in'}, data)
        else:
            self._reads = False
            self._send({'id': _NUMBER, 'part': None})

    def _close_input(self) -> None:
        """Nobody reads it: let whoever writes it know, as if the command ran here."""
        self._reads = False
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.close(null)

    # ---- signals, and the terminal -----------------------------------------------------------------------------

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
                self._send({'id': _NUMBER, 'part': ['signal', number]})
                if number in ENDING:
                    self.came.append(number)
                    self._heard_until = self._heard_until or time.monotonic() + WAIT_HEARD
            elif number == _signal.SIGTSTP:
                self._stop()
            elif number == _signal.SIGCONT:  # also after a SIGSTOP, which tells nobody
                self._is_in_front = True
                self._send({'id': _NUMBER, 'part': ['signal', number]})
            elif number == _signal.SIGWINCH and self._has_terminal:
                columns, rows = os.get_terminal_size(0)
                self._send({'id': _NUMBER, 'part': ['size', rows, columns]})

    def _stop(self) -> None:
        """Stop, and the command as well: it is alone in its session, where SIGTSTP would do nothing."""
        self._send({'id': _NUMBER, 'part': ['signal', int(_signal.SIGSTOP)]})
        self._sock.setblocking(True)
        self._flush()
        self._sock.setblocking(False)
        if self._has_terminal:
            self._restore(self._cooked)
        _signal.signal(_signal.SIGTSTP, _signal.SIG_DFL)
        os.kill(os.getpid(), _signal.SIGTSTP)
        # Here we were continued, or there is nobody who could do that.
        _signal.signal(_signal.SIGTSTP, _noted)
        self._send({'id': _NUMBER, 'part': ['signal', int(_signal.SIGCONT)]})
        self._is_in_front = True
        if self._has_terminal:
            self._make_raw()

    def _make_raw(self) -> 'list[Any]':
        """Every key goes to the command; what the terminal was before."""
        import termios
        import tty

        self._cooked = termios.tcgetattr(0)
        tty.setraw(0, termios.TCSANOW)
        return self._cooked

    def _restore(self, mode: 'list[Any]') -> None:
        import termios

        try:
            termios.tcsetattr(0, termios.TCSANOW, mode)
        except termios.error:
            return  # it is gone


def _noted(number: int, frame: object) -> None:
    """Python writes the number to the wake-up pipe, see signal.set_wakeup_fd."""
