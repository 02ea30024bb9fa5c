"""The keeper's side of a component that runs as another user: what it has a deputy do (`agent/deputy.py`).

The keeper stays who it is: files, sockets and the window are its own, and the other user has no way to them. What the
deputy says is lines of a few words, never data that could be more; a deputy that is gone, or talks nonsense, is lost.
"""

import fcntl
import posix
import select
import sys
import termios
import time

import _socket

from remote_runner.agent.peers import pack
from remote_runner.agent.records import read_file
from remote_runner.agent.sudo import ENDING, STAGE, Refused, Sudo, wait_for_end
from remote_runner.agent.terminal import StartError, copy_size
from remote_runner.agent.tree import Signals, milliseconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Tuple

    from remote_runner.agent.notify import Notify

#: Seconds that a deputy has for what it can do at once.
ANSWER_TIMEOUT = 30.0
#: Seconds that sudo has to end once its command has.
FAREWELL = 5.0
#: Bytes of a line of the deputy, at most.
MAX_LINE = 1000
#: Lines of it that may wait to be heard: far more than it has to say.
MAX_NEWS = 10000
#: What the deputy imports, in this order, and what else where it has to look whether the program is ready.
MODULES = ('records', 'peers', 'tree', 'terminal', 'notify', 'deputy')
LOOKING = ('readiness', 'ready')
#: Seconds that a person has at the window, and sudo to start what it was told to.
BY_HAND = 120.0
_SECOND_STAGE = """
import marshal, posix, sys
data = b''
while len(data) < 8 or len(data) < 8 + int.from_bytes(data[:8], 'big'):
    piece = posix.read(0, 1 << 16)
    if not piece:
        posix._exit(0)
    data += piece
modules, spec = marshal.loads(data[8:])
for name, code in modules:
    module = sys.modules[name] = type(sys)(name)
    exec(marshal.loads(code), module.__dict__)
posix._exit(sys.modules['remote_runner.agent.deputy'].main(spec))
"""


class DeputyLost(Exception):
    """The deputy is gone without a word, or says what no deputy does."""


class Delegate:
    """A deputy, and what it has said. For the keeper it also stands in the place of the `Tree` of its descendants.

    Args:
        spec: the component's.
        password: for sudo; None: there is none.
        signals: our own; some of them end the waiting for sudo.
        by_hand: whether a person at the window started us, who can be asked.

    Attributes:
        fd: readable when the deputy said something.
        deputy: its pid.
        left: pids that nothing could end.

    Raises:
        Refused: sudo does not do it.
    """

    deadline: "Optional[float]" = None  # the deputy looks at the clock itself

    def __init__(self, spec: "Dict[str, Any]", password: "Optional[bytes]", signals: Signals, by_hand: bool) -> None:
        deadline = time.monotonic() + BY_HAND if by_hand else spec['deadline']
        self._sudo = _become(spec['user'], password, deadline, signals, by_hand)
        self._sock = self._sudo.sock
        self.fd = self._sock.fileno()
        self.left: "Tuple[int, ...]" = ()
        self._left: "Tuple[int, ...]" = ()
        self._data = b''
        self._news: "List[List[str]]" = []
        self._fds: "List[int]" = []
        self._ended: "Dict[int, int]" = {}
        self._pid = 0
        self._is_empty = False
        self._waiting: "List[Callable[[int], None]]" = []
        self._is_closed = False
        try:
            self._send_code(spec)
            self.deputy = _number(self._await('ready'), 1)
        except DeputyLost:
            self.close()
            raise Refused('what {name} runs by sudo ended at once'.format(**spec['user'])) from None
        except Refused:
            self.close()
            raise

    def _send_code(self, spec: "Dict[str, Any]") -> None:
        import marshal

        mine = sys.implementation.cache_tag
        if self._sudo.tag != mine:
            why = '{name} has another Python there: {}, not {}'
            raise Refused(why.format(self._sudo.tag, mine, **spec['user']))
        kind = spec['ready']['kind'] if spec['ready'] is not None else ''
        looks = kind not in ('', 'notify', 'log')
        kept = {name: spec[name] for name in ('argv', 'cwd', 'umask', 'stop_signal', 'stop_timeout', 'ready')}
        kept['tells'] = kind == 'notify' or spec['watchdog'] is not None
        codes = [('remote_runner.agent.' + name, _code(name)) for name in MODULES + (LOOKING if looks else ())]
        data = marshal.dumps((codes, kept), 2)
        try:
            self._sock.sendall(_SECOND_STAGE.ljust(STAGE).encode('ascii'), _socket.MSG_NOSIGNAL)
            self._sock.sendall(len(data).to_bytes(8, 'big') + data, _socket.MSG_NOSIGNAL)
        except OSError:
            raise DeputyLost from None

    def close(self) -> None:
        """Let it go, with all that is left of its tree, and wait a while for its end. Safe to call twice."""
        if not self._is_closed:
            self._is_closed = True
            self._sudo.close()
            wait_for_end(self._sudo.pid, time.monotonic() + FAREWELL)

    # ---- orders -----------------------------------------------------------------------------------------------

    def start(self, environment: "Dict[bytes, bytes]") -> "Tuple[int, int]":
        """Start the program; its pid and our side of its terminal, as of `terminal.start_program`.

        Raises:
            StartError: its folder could not be entered, or exec failed.
        """
        self.left = self._left = ()
        self._ended, self._is_empty = {}, False
        self._order('start', environment, posix.environ.get(b'TERM', b'screen'))
        words = self._await('started', 'failed')
        if words[0] == 'failed':
            stage = words[1] if words[1:] in (['chdir', words[-1]], ['exec', words[-1]]) else 'exec'
            raise StartError(stage, _number(words, 2))
        master = self._handed()
        fcntl.ioctl(master, termios.FIONBIO, b'\1\0\0\0')
        copy_size(master)
        self._pid = _number(words, 1)
        return self._pid, master

    def end(self, seconds: float) -> None:
        """End all descendants; a second call can only shorten the time."""
        self._order('end', float(seconds))

    def signal(self, number: int, then: "Callable[[int], None]") -> None:
        """Send a signal to the program's process group; `then` is told the errno, or 0."""
        self._waiting.append(then)
        self._order('signal', number)

    def notify(self) -> "Notify":
        """A socket to which the program can tell how it is."""
        from remote_runner.agent.notify import Notify

        self._order('bind')
        words = self._await('bound')
        if len(words) != 2:
            raise DeputyLost
        return Notify(words[1], _socket.socket(fileno=self._handed()), self._sudo.uid)

    def look(self) -> int:
        """Have it look whether the program is ready; the pipe that tells, as `ready.probe` writes to it."""
        self._order('look')
        self._await('looks')
        return self._handed()

    def unlook(self) -> None:
        """Nobody wants to know any more."""
        self._order('unlook')

    def _order(self, *message: object) -> None:
        try:
            self._sock.sendall(pack(message), _socket.MSG_NOSIGNAL)
        except OSError:
            return  # it is gone: the next read finds that

    # ---- what it says -----------------------------------------------------------------------------------------

    @property
    def has_news(self) -> bool:
        """Whether it has said what nobody has heard yet."""
        return bool(self._news)

    def hear(self) -> None:
        """Take in what it says now.

        Raises:
            DeputyLost: it is gone.
        """
        try:
            # With CMSG_SPACE there would be room for two, and what is more than one is never closed.
            data, ancillary, flags, _ = self._sock.recvmsg(
                1 << 16, _socket.CMSG_LEN(4), _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            raise DeputyLost from None
        for level, kind, content in ancillary:
            if (level, kind, len(content)) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, 4):
                self._fds.append(int.from_bytes(content, sys.byteorder))
        *lines, self._data = (self._data + data).split(b'\n')
        too_much = len(self._data) > MAX_LINE or len(self._fds) > 1 or len(self._news) + len(lines) > MAX_NEWS
        if not data or too_much or flags & _socket.MSG_CTRUNC:
            raise DeputyLost
        self._news += [line.decode('ascii', 'replace').split() or [''] for line in lines]

    def take(self) -> bool:
        """Let what was heard count; whether there was anything.

        Raises:
            DeputyLost: it makes no sense.
        """
        news, self._news = self._news, []
        for words in news:
            if words[0] == 'ended':
                self._ended[self._pid] = _number(words, 1)
            elif words[0] == 'empty':
                self._is_empty = True
            elif words[0] == 'left':
                self._left = tuple(_number(words, at) for at in range(1, len(words)))
            elif words[0] == 'signalled' and self._waiting:
                self._waiting.pop(0)(_number(words, 1))
            else:
                raise DeputyLost
        return bool(news)

    def tick(self) -> None:
        """As of a `Tree`: `left` is up to date."""
        self.left = self._left

    def reap(self) -> "Tuple[Dict[int, int], bool]":
        """As `tree.reap`, of the descendants of the deputy."""
        ended, self._ended = self._ended, {}
        return ended, not self._is_empty

    def _await(self, *kinds: str) -> "List[str]":
        """The next line of one of these kinds; others that come before it are kept."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        deadline = time.monotonic() + ANSWER_TIMEOUT
        while True:
            for position, words in enumerate(self._news):
                if words[0] in kinds:
                    del self._news[position]
                    return words
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeputyLost
            poll.poll(milliseconds(left))
            self.hear()

    def _handed(self) -> int:
        """The file descriptor that came with the last line."""
        if not self._fds:
            raise DeputyLost
        return self._fds.pop()


def _number(words: "List[str]", at: int) -> int:
    if len(words) <= at or not words[at].isdigit() or len(words[at]) > 18:
        raise DeputyLost
    return int(words[at])


def _code(name: str) -> bytes:
    """The compiled code of a module of ours, for a Python of the same kind."""
    data = read_file('{}/{}{}'.format(__file__.rsplit('/', 1)[0], name, '.pyc'))
    return data[16 if sys.version_info >= (3, 7) else 12 :]


# ---- sudo --------------------------------------------------------------------------------------------------------


def _become(
    means: "Dict[str, str]", password: "Optional[bytes]", deadline: float, signals: Signals, by_hand: bool
) -> Sudo:
    """Have sudo run the user's Python; by hand, the person at the window is asked where sudo wants a password.

    Raises:
        Refused: sudo does not do it.
    """
    try:
        sudo = Sudo(means, password)
        sudo.wait(deadline, signals)
        return sudo
    except Refused:
        if not by_hand:
            raise
        password = _ask(means, deadline, signals)
        if password is None:
            raise
    sudo = Sudo(means, password)
    sudo.wait(deadline, signals)
    return sudo


def _ask(means: "Dict[str, str]", deadline: float, signals: Signals) -> "Optional[bytes]":
    """The password, typed at the window; None where nobody gives it."""
    try:
        before = termios.tcgetattr(0)
    except termios.error:
        return None
    silent = list(before)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(0, termios.TCSAFLUSH, silent)
    posix.write(1, '[remote_runner: password of {login} for sudo:] '.format(**means).encode('utf-8', 'replace'))
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(signals.fd, select.POLLIN)
    try:
        while time.monotonic() < deadline:
            ready = [fd for fd, _ in poll.poll(milliseconds(deadline - time.monotonic()))]
            if signals.take() & ENDING:
                return None
            if 0 in ready:
                return posix.read(0, 1024).rstrip(b'\r\n') or None
        return None
    except OSError:
        return None  # the window is gone
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        posix.write(1, b'\r\n')
