"""What runs as another user, under sudo, in the place of a keeper that cannot: the program is its child.

Two processes, as behind every component: this one starts the program in a terminal, ends its tree, sends it signals and
looks whether it is ready; the one above it ends what is left should this one be killed. Both are child subreapers.

It has no path and no connection of the user who deployed, but for its stdin: a socket pair with the keeper
(`agent/delegate.py`). Orders come as `agent/peers.py` packs them. It answers in lines of ASCII, because the keeper may
not trust it: whoever can become this user can put words into its mouth. File descriptors go beside the lines
(SCM_RIGHTS, unix(7)). The end of that socket is the end of the tree.

Its code comes over that socket too, so it imports built-in modules and what came with it alone.
"""

import errno
import posix
import select
import sys

import _signal
import _socket

from remote_runner.agent.notify import bind
from remote_runner.agent.peers import Peer
from remote_runner.agent.records import forget
from remote_runner.agent.terminal import StartError, start_program
from remote_runner.agent.tree import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_PDEATHSIG,
    Signals,
    Tree,
    exit_code,
    milliseconds,
    prctl,
    reap,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict

ENDING = frozenset([_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT])


class Deputy:
    """Does for the keeper what only this user can do.

    Args:
        spec: what of the component's spec concerns the program.
        signals: that came to us.
        socket: where the program may tell how it is; '' where it has nothing to tell.
    """

    def __init__(self, spec: "Dict[str, Any]", signals: Signals, socket: str) -> None:
        self._spec = spec
        self._signals = signals
        self._notify = socket
        self._keeper = Peer(_socket.socket(fileno=0))
        self._tree = Tree(spec['stop_signal'])
        self._pid = 0
        self._looker = 0
        self._slave = -1
        self._is_over = False

    def run(self) -> None:
        """Until the keeper is gone and no descendant is left."""
        poll = select.poll()
        for fd in (self._signals.fd, 0):
            poll.register(fd, select.POLLIN)
        self._tell('ready {}'.format(posix.getpid()))
        while True:
            poll.poll(milliseconds(self._tree.wait()))
            if not self._is_over:
                messages = self._keeper.receive()
                for message in messages or []:
                    getattr(self, '_' + message[0])(*message[1:])
                if messages is None:
                    self._is_over = True
                    poll.unregister(0)
            came = self._signals.take()
            if came & ENDING or (self._is_over and not self._tree.ending):
                self._tree.end(self._spec['stop_timeout'])
            before = self._tree.left
            self._tree.tick()
            if self._tree.left != before:
                self._tell('left {}'.format(' '.join(map(str, self._tree.left))))
            if not self._reap() and self._is_over:
                return

    def _tell(self, line: str, fd: int = -1) -> None:
        """Say a line to the keeper, and hand over a file descriptor."""
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))] if fd >= 0 else []
        try:
            self._keeper.sock.sendmsg([line.encode('ascii') + b'\n'], rights, _socket.MSG_NOSIGNAL)
        except OSError:
            return  # it is gone: the next read finds that

    def _reap(self) -> bool:
        """Take in ended children; False when none is left."""
        ended, left = reap()
        if self._looker in ended:
            self._looker = 0
        if self._pid in ended:
            self._tell('ended {}'.format(ended[self._pid]))
            self._pid = -1
        if not left and self._pid < 0:
            self._pid = 0
            self._tell('empty')
        return left

    # ---- orders -----------------------------------------------------------------------------------------------

    def _start(self, environment: "Dict[bytes, bytes]", term: bytes) -> None:
        """Start the program."""
        self._spec['env'] = environment
        posix.environ[b'TERM'] = term
        self._tree = Tree(self._spec['stop_signal'])
        if self._spec['ready'] is not None and self._spec['ready']['kind'] == 'file':
            _ready().before(self._spec)
        try:
            self._pid, master, slave = start_program(self._spec)
        except StartError as error:
            self._tell('failed {} {}'.format(error.stage, error.number))
            return
        self._tell('started {}'.format(self._pid), master)
        posix.close(master)
        if self._slave >= 0:
            posix.close(self._slave)
        self._slave = slave  # open until the next life: the keeper may still be reading

    def _end(self, seconds: float) -> None:
        self._tree.end(seconds)

    def _signal(self, number: int) -> None:
        """To the program's process group."""
        error = 0 if self._pid > 0 else errno.ESRCH  # in a pause between two lives there is none
        try:
            if self._pid > 0:
                posix.killpg(self._pid, number)
        except OSError as failure:
            error = failure.errno or -1
        self._tell('signalled {}'.format(error))

    def _bind(self) -> None:
        """Make the socket to which the program tells how it is."""
        sock = bind(self._notify)
        self._tell('bound {}'.format(self._notify), sock.fileno())
        sock.close()

    def _look(self) -> None:
        """Begin to look whether the program is ready; what is found goes to a pipe of its own."""
        read, write = posix.pipe2(posix.O_CLOEXEC)
        self._looker = posix.fork()
        if self._looker == 0:
            _look(self._spec, write)
        posix.close(write)
        self._tell('looks', read)
        posix.close(read)

    def _unlook(self) -> None:
        if self._looker:
            posix.kill(self._looker, _signal.SIGKILL)


def _ready() -> "Any":
    """The module that looks; it is there where it is needed."""
    return sys.modules['remote_runner.agent.ready']


def _look(spec: "Dict[str, Any]", write: int) -> None:
    """In the forked process."""
    from remote_runner.agent.readiness import look_and_exit

    posix.dup2(posix.open('/dev/null', posix.O_RDWR), 0)
    look_and_exit(lambda: _ready().probe(spec, '', 0, write), write)


def main(spec: "Dict[str, Any]") -> int:
    """Be the deputy of the keeper at the other end of stdin, and guard it; the exit status."""
    signals = Signals((*sorted(ENDING), _signal.SIGCHLD))
    null = posix.open('/dev/null', posix.O_RDWR)
    for fd in (1, 2):
        posix.dup2(null, fd)
    posix.umask(0o077)
    folder = '/tmp/remote_runner-{}-{}'.format(posix.getuid(), posix.urandom(8).hex()) if spec['tells'] else ''
    if folder:
        posix.mkdir(folder, 0o700)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    above = posix.getpid()
    deputy = posix.fork()
    if deputy == 0:
        try:
            signals = Signals((*sorted(ENDING), _signal.SIGCHLD))
            prctl(PR_SET_CHILD_SUBREAPER, 1)
            prctl(PR_SET_PDEATHSIG, _signal.SIGTERM)
            if posix.getppid() == above:
                Deputy(spec, signals, folder and folder + '/notify').run()
        finally:
            _remove(folder)
            posix._exit(0)
    code = _guard(deputy, spec, signals)
    _remove(folder)
    return code


def _remove(folder: str) -> None:
    """Remove the folder of the socket; whichever of us two was not killed does it."""
    if folder:
        forget(folder + '/notify')
        try:
            posix.rmdir(folder)
        except OSError:
            return  # the other one was faster


def _guard(deputy: int, spec: "Dict[str, Any]", signals: Signals) -> int:
    """Wait for the deputy; if it was killed, end what it leaves behind."""
    poll = select.poll()
    poll.register(signals.fd, select.POLLIN)
    tree = Tree(spec['stop_signal'])
    code = 0
    while True:
        ended, left = reap()
        if deputy in ended:
            code = exit_code(ended[deputy])
            tree.end(spec['stop_timeout'])
        if not left:
            return code
        poll.poll(milliseconds(tree.wait()))
        if signals.take() & ENDING and not tree.ending:
            posix.kill(deputy, _signal.SIGTERM)
        tree.tick()
