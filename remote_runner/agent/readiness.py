"""Whether a component is ready, as its keeper learns it: from a process that looks, or from the program itself.

The launcher imports this for components alone that have something to wait for.
"""

import posix

import _signal

from remote_runner.agent.notify import Notify
from remote_runner.agent.tree import PR_SET_PDEATHSIG, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, List, Optional, Tuple

    #: What it has to say: `('ready',)`, `('waiting', why)`, `('said', text)`, `('refused', errno, text)`,
    #: `('extend', seconds)`.
    News = Tuple[Any, ...]

PIECE = 1 << 16


class Readiness:
    """What a component says, or what is found out, from its start until it is ready, and what it says afterwards.

    Args:
        spec: what the launcher was told; what the program needs is added to its environment.
        folder: the component's folder.
    """

    def __init__(self, spec: "dict[str, Any]", folder: str) -> None:
        self._spec = spec
        self._folder = folder
        self._pid = 0
        self._pipe = -1
        self._rest = b''
        self._said = ''
        self._errno = 0
        self.is_ready = False
        self._notify: "Optional[Notify]" = None
        if spec['ready']['kind'] == 'notify':
            self._notify = Notify(spec['control'] + '.n')
            spec['env'][b'NOTIFY_SOCKET'] = self._notify.path.encode('utf-8', 'surrogateescape')
        else:
            from remote_runner.agent import ready  # with modules that the keeper does without

            self._ready = ready
            ready.before(spec)

    @property
    def fds(self) -> "List[int]":
        """The file descriptors to watch."""
        if self._notify is not None:
            return [self._notify.fd]
        return [self._pipe] if self._pipe >= 0 else []

    def begin(self, offset: int) -> None:
        """The program runs; its output begins at `offset` of `output.log`."""
        if self._notify is not None:
            return
        self._pipe, write = posix.pipe2(posix.O_CLOEXEC)
        self._pid = posix.fork()
        if self._pid == 0:
            self._look(offset, write)
        posix.close(write)

    def _look(self, offset: int, write: int) -> None:
        """In the forked process."""
        try:
            prctl(PR_SET_PDEATHSIG, _signal.SIGKILL)
            _signal.set_wakeup_fd(-1)
            for number in (_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT, _signal.SIGCHLD, _signal.SIGWINCH):
                _signal.signal(number, _signal.SIG_DFL)
            self._ready.probe(self._spec, self._folder, offset, write)
        except BaseException as error:  # a fault of ours: told as the reason why it is not ready
            posix.write(write, '{}: {}\n'.format(type(error).__name__, error).encode('utf-8', 'replace'))
        finally:
            posix._exit(0)

    def hear(self) -> "List[News]":
        """The news, when one of `fds` is readable."""
        return self._hear_program() if self._notify is not None else self._hear_look()

    def _hear_look(self) -> "List[News]":
        data = posix.read(self._pipe, PIECE)
        if not data:
            self.end()
            return []
        *lines, self._rest = (self._rest + data).split(b'\n')
        news: "List[News]" = []
        for line in lines:
            self.is_ready = self.is_ready or not line
            news.append(('waiting', line.decode('utf-8', 'replace')) if line else ('ready',))
        return news

    def _hear_program(self) -> "List[News]":
        assert self._notify is not None
        news: "List[News]" = []
        for message in self._notify.receive():
            if 'STATUS' in message and message['STATUS'] != self._said:
                self._said = message['STATUS']
                news.append(('said', self._said))
            if 'EXTEND_TIMEOUT_USEC' in message and message['EXTEND_TIMEOUT_USEC'].isdigit():
                news.append(('extend', int(message['EXTEND_TIMEOUT_USEC']) / 1e6))
            if message.get('ERRNO', '0').isdigit():
                self._errno = int(message.get('ERRNO', self._errno))
            if message.get('READY') == '1' and not self.is_ready:
                self.is_ready = True
                news.append(('ready',))
            elif self._errno and not self.is_ready:
                news.append(('refused', self._errno, self._said))
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
            posix.close(self._pipe)
            self._pipe = -1

    def close(self) -> None:
        """Leave nothing behind."""
        self.end()
        if self._notify is not None:
            self._notify.close()
