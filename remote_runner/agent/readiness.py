"""Whether a component is ready and well, as its keeper learns it: from a process that looks, or the program itself.

The launcher imports this for components alone that have something to wait for, or a watchdog.
"""

import posix
import time

import _signal

from remote_runner.agent.notify import Notify
from remote_runner.agent.tree import PR_SET_PDEATHSIG, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

    from remote_runner.agent.delegate import Delegate

    #: What it has to say: `('ready',)`, `('waiting', why)`, `('said', text)`, `('refused', errno, text)`,
    #: `('extend', seconds)`, `('leaving',)`, `('hung', why)`.
    News = Tuple[Any, ...]

PIECE = 1 << 16
#: Digits of a number that may mean something: more of them, and it is no number of microseconds.
MAX_DIGITS = 18
#: What strerror(3) takes.
MAX_ERRNO = (1 << 31) - 1
#: Characters of what it says of itself that are told, and seconds between two times that it is.
MAX_SAID = 4096
SAID_STEP = 0.1


class Readiness:
    """What a component says, or what is found out, from its start until it is ready, and what it says afterwards.

    Args:
        spec: what the launcher was told; what the program needs is added to its environment.
        folder: the component's folder.
        delegate: who starts the program, where it runs as another user.

    Attributes:
        is_ready: whether it is; a component with nothing but a watchdog is ready at once.
    """

    def __init__(self, spec: "dict[str, Any]", folder: str, delegate: "Optional[Delegate]" = None) -> None:
        self._spec = spec
        self._folder = folder
        self._delegate = delegate
        self._pid = 0
        self._pipe = -1
        self._rest = b''
        self._said = ''
        self._is_told = True
        self._tell_at = 0.0
        self._extends_to = 0.0
        self._errno = 0
        self._is_given_up = False
        self._notify: "Optional[Notify]" = None
        self._kind = spec['ready']['kind'] if spec['ready'] is not None else ''
        self.is_ready = not self._kind
        self._watchdog: "Optional[float]" = spec['watchdog']
        self._alive_until: "Optional[float]" = None
        if self._kind == 'notify' or self._watchdog is not None:
            self._notify = Notify(spec['control'] + '.n') if delegate is None else delegate.notify()
            spec['env'][b'NOTIFY_SOCKET'] = self._notify.path.encode('utf-8', 'surrogateescape')
        if self._watchdog is not None:
            spec['env'][b'WATCHDOG_USEC'] = str(int(self._watchdog * 1e6)).encode('ascii')
        # Our output is in our own files, which another user cannot read.
        self._delegate_looks = delegate is not None and self._kind not in ('', 'notify', 'log')
        if self._kind not in ('', 'notify') and not self._delegate_looks:
            from remote_runner.agent import ready  # with modules that the keeper does without

            self._ready = ready
            ready.before(spec)

    @property
    def fds(self) -> "List[int]":
        """The file descriptors to watch."""
        notify = [] if self._notify is None else [self._notify.fd]
        return notify + ([self._pipe] if self._pipe >= 0 else [])

    @property
    def deadline(self) -> "Optional[float]":
        """When (time.monotonic) to look at the clock; None: nothing is due."""
        due = [self._alive_until, None if self._is_told else self._tell_at]
        return min((moment for moment in due if moment is not None), default=None)

    def begin(self, offset: int) -> None:
        """The program runs; its output begins at `offset` of `output.log`."""
        if self.is_ready:
            self._feed()
        if self._kind in ('', 'notify'):
            return
        if self._delegate is not None and self._delegate_looks:
            self._pipe = self._delegate.look()
            return
        self._pipe, write = posix.pipe2(posix.O_CLOEXEC)
        self._pid = posix.fork()
        if self._pid == 0:
            look_and_exit(lambda: self._ready.probe(self._spec, self._folder, offset, write), write)
        posix.close(write)

    def hear(self, fd: int) -> "List[News]":
        """The news, when this one of `fds` is readable."""
        return self._hear_look() if fd == self._pipe else self._hear_program()

    def _hear_look(self) -> "List[News]":
        data = posix.read(self._pipe, PIECE)
        if not data:
            self.end()
            return []
        *lines, rest = (self._rest + data).split(b'\n')
        self._rest = rest[-PIECE:]  # another user's deputy may hand over whatever has no end
        news: "List[News]" = []
        for line in lines:
            news.append(('waiting', line.decode('utf-8', 'replace')) if line else self._become_ready())
        return news

    def _become_ready(self) -> "News":
        self.is_ready = True
        self._feed()
        return ('ready',)

    def _feed(self) -> None:
        """It has given a sign of life."""
        if self._watchdog is not None and self.is_ready:
            self._alive_until = time.monotonic() + self._watchdog

    def _hear_program(self) -> "List[News]":
        assert self._notify is not None
        news: "List[News]" = []
        for message in self._notify.receive():
            news += self._hear_said(message)
            if _is_number(message, 'EXTEND_TIMEOUT_USEC'):
                news += self._extend(int(message['EXTEND_TIMEOUT_USEC']) / 1e6)
            if _is_number(message, 'ERRNO'):
                self._errno = min(int(message['ERRNO']), MAX_ERRNO)
            if message.get('READY') == '1' and not self.is_ready and self._kind == 'notify':
                news += [*self.last_words(), self._become_ready()]
            elif self._errno and not self.is_ready and not self._is_given_up:
                self._is_given_up = True
                news += [*self.last_words(), ('refused', self._errno, self._said)]
            if message.get('STOPPING') == '1':
                news += [*self.last_words(), ('leaving',)]
                self._watchdog = self._alive_until = None  # on its way out it has no time for signs of life
            news += self._hear_watchdog(message)
        return news

    def _hear_said(self, message: "Dict[str, str]") -> "List[News]":
        """What it says of itself; of a flood of that, what is the latest now and then."""
        text = message.get('STATUS', self._said)
        if len(text) > MAX_SAID:
            text = self._cut(text)
        if text == self._said:
            return []
        self._said, self._is_told = text, False
        return self.last_words() if time.monotonic() >= self._tell_at else []

    def _cut(self, text: str) -> str:
        from remote_runner.agent import secrets  # which deputies do not have

        return secrets.cut(text, MAX_SAID, secrets.of_spec(self._spec))

    def last_words(self) -> "List[News]":
        """What it said last, if that was not told yet."""
        if self._is_told:
            return []
        self._is_told, self._tell_at = True, time.monotonic() + SAID_STEP
        return [('said', self._said)]

    def _extend(self, seconds: float) -> "List[News]":
        end = time.monotonic() + seconds
        if end < self._extends_to + SAID_STEP:
            return []
        self._extends_to = end
        return [('extend', seconds)]

    def _hear_watchdog(self, message: "Dict[str, str]") -> "List[News]":
        if self._watchdog is None:
            return []
        if _is_number(message, 'WATCHDOG_USEC') and int(message['WATCHDOG_USEC']):
            self._watchdog = int(message['WATCHDOG_USEC']) / 1e6
            self._feed()
        if message.get('WATCHDOG') == '1':
            self._feed()
        elif message.get('WATCHDOG') == 'trigger':
            return self._hang('it said itself that it does not work any more')
        return []

    def _hang(self, why: str) -> "List[News]":
        if self._is_given_up:
            return []
        self._is_given_up = True
        return [*self.last_words(), ('hung', why)]

    def look_at_clock(self) -> "List[News]":
        """News if it should have given a sign of life by now, or said something a moment ago."""
        now = time.monotonic()
        news = self.last_words() if now >= self._tell_at else []
        if self._alive_until is not None and now >= self._alive_until:
            self._alive_until = None
            news += self._hang('it gave no sign of life for {:g} s (watchdog)'.format(self._watchdog or 0.0))
        return news

    def reaped(self, pids: "Iterable[int]") -> None:
        """These processes have ended, and were waited for."""
        if self._pid in pids:
            self._pid = 0

    def end(self) -> None:
        """The program has ended, or is ready: nobody looks any more; what it says is still heard until `close`."""
        if self._pid:
            posix.kill(self._pid, _signal.SIGKILL)
        if self._pipe >= 0:
            if self._delegate is not None and self._delegate_looks:
                self._delegate.unlook()
            posix.close(self._pipe)
            self._pipe = -1

    def close(self) -> None:
        """Leave nothing behind."""
        self.end()
        if self._notify is not None:
            self._notify.close()


def look_and_exit(probe: "Callable[[], None]", write: int) -> None:
    """In a forked process: let `probe` look until it has told what there is to tell."""
    try:
        prctl(PR_SET_PDEATHSIG, _signal.SIGKILL)
        _signal.set_wakeup_fd(-1)
        for number in (_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT, _signal.SIGCHLD, _signal.SIGWINCH):
            _signal.signal(number, _signal.SIG_DFL)
        probe()
    except BaseException as error:  # a fault of ours: told as the reason why it is not ready
        posix.write(write, '{}: {}\n'.format(type(error).__name__, error).encode('utf-8', 'replace'))
    finally:
        posix._exit(0)


def _is_number(message: "Dict[str, str]", name: str) -> bool:
    return message.get(name, '').isdecimal() and len(message[name]) < MAX_DIGITS
