"""What a screen window runs: it calls back, starts the component's program on «go», and ends its whole tree.

Two processes of this file stand behind every component (`main` forks once, before anything else):

* the *guard*, the window's own process. It waits for the keeper and takes over its duties if that is killed.
* the *keeper*: it calls back and waits for «go». Then it owns the inner pseudo-terminal, starts the program in it,
  relays between it and the window, writes `output.log`, answers whoever connects to its control socket, and ends the
  tree on TERM, HUP or `stop`.

Both are child subreapers (prctl(2)), so that no descendant of the program can leave the tree, and the keeper has a
parent-death signal, so that no single `kill -9` leaves a descendant behind or `status.json` wrong. The proof that
nothing is left is `waitpid` answering ECHILD.

It starts in milliseconds, because it imports built-in modules alone. Its one argument is the folder of the component:
`spec` (marshal: see `agent/folders.py`; named `spec.new` until it is claimed, so that a second start of the same
window, the `r` key of a zombie window, counts as one by hand), and what it writes itself: `status.json`, `output.log`
(mode 0600) and `output.idx` (records of two little-endian numbers, float64 Unix time and uint64 offset in
`output.log`).
It imports modules that are built into Python and its siblings alone.
"""

import posix
import select
import sys
import time

import _signal

if __name__ == '__main__':
    sys.path.insert(0, __file__.rsplit('/', 3)[0])

from remote_runner.agent.peers import Peer, accept, connect, forget, listen
from remote_runner.agent.records import PIECE, Folder, Log
from remote_runner.agent.terminal import EXIT_NOT_FOUND, RING, StartError, Window, copy_size, say, start_program
from remote_runner.agent.tree import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_PDEATHSIG,
    Signals,
    Tree,
    exit_code,
    prctl,
    reap,
)

TYPE_CHECKING = False
if TYPE_CHECKING:

    import _socket

    from remote_runner.agent.readiness import Readiness

EXIT_ABORTED = 75  # EX_TEMPFAIL, sysexits(3)


def wait_for_go(folder: Folder, agent: Peer, signals: Signals) -> str:
    """Say hello and wait for the answer: '' for go, else the reason why not."""
    try:
        load = posix.getloadavg()[0]
    except OSError:
        load = -1.0
    agent.send(('hello', folder.spec['token'], folder.status['launcher'], folder.status['window'], load))
    poll = select.poll()
    poll.register(agent.fd, select.POLLIN)
    poll.register(signals.fd, select.POLLIN)
    while True:
        # CLOCK_MONOTONIC is the machine's, so the agent and we mean the same moment.
        left = folder.spec['deadline'] - time.monotonic()
        if left <= 0:
            return 'no answer within the time limit'
        poll.poll(left * 1000)
        came = signals.take() & {_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT}
        if came:
            return 'ended by signal {}'.format(min(came))
        messages = agent.receive()
        if messages is None:
            return 'the connection was lost before the start'
        for message in messages:
            if message[0] == 'abort':
                return str(message[1])  # also behind a go that we read too late
        if any(message[0] == 'go' for message in messages) and time.monotonic() < folder.spec['deadline']:
            return ''


class Keeper:
    """Starts the program and stays with it until no descendant is left."""

    def __init__(self, folder: Folder, agent: "Peer | None", control: "_socket.socket", signals: Signals) -> None:
        self._folder = folder
        self._spec = folder.spec
        self._signals = signals
        self._control = control
        self._peers: "dict[int, Peer]" = {agent.fd: agent} if agent else {}
        self._history: "list[tuple[object, ...]]" = []
        self._tree = Tree()
        self._poll = select.poll()
        self._log = Log(folder.path)
        self._pid = 0
        self._master = -1
        self._typed = bytearray()
        self._watches_window = False
        self._readiness: "Readiness | None" = None
        self.code = 0

    def run(self) -> int:
        """The exit status to end with: the program's own, or 127 where it did not start."""
        if self._spec['ready'] is not None:
            from remote_runner.agent.readiness import Readiness

            self._readiness = Readiness(self._spec, self._folder.path)
        begin = self._log.size
        try:
            self._pid, self._master = start_program(self._spec)
        except StartError as error:
            if self._readiness is not None:
                self._readiness.close()
            now = time.time()
            self._folder.write_status('failed', stage=error.stage, errno=error.number, ended=now)
            self._tell('failed', error.stage, error.number, now)
            path = self._spec['cwd' if error.stage == 'chdir' else 'argv']
            path = path if isinstance(path, bytes) else path[0]
            say('not started: {}: {}'.format(path.decode('utf-8', 'replace'), posix.strerror(error.number)))
            return EXIT_NOT_FOUND
        now = time.time()
        self._folder.write_status('started', pid=self._pid, keeper=posix.getpid(), started=now)
        self._tell('started', self._pid, now)
        if self._readiness is not None:
            self._readiness.begin(begin)
            for fd in self._readiness.fds:
                self._poll.register(fd, select.POLLIN)
        self._window = Window()
        for fd in (self._signals.fd, self._master, self._control.fileno(), *self._peers):
            self._poll.register(fd, select.POLLIN)
        self._watches_window = self._window.open
        if self._watches_window:
            self._poll.register(0, select.POLLIN)
        alive = True
        while alive:
            alive = self._turn()
        self._finish()
        return self.code

    def _tell(self, *message: object) -> None:
        """To all agents that are there, and to each that comes later."""
        self._history.append(message)
        for peer in self._peers.values():
            peer.send(message)

    def _turn(self) -> bool:
        """One round of the loop; False when no descendant is left."""
        if self._watches_window and not self._window.open:
            self._drop_window()  # writing to it found it gone
        wait = self._tree.wait()
        if self._watches_window:
            self._poll.register(1, select.POLLOUT if self._window.pending else 0)
        self._poll.register(self._master, select.POLLIN | (select.POLLOUT if self._typed else 0))
        for fd, event in self._poll.poll(None if wait is None else wait * 1000 + 1):
            if fd == self._master:
                self._relay_output()
                self._relay_keys()
            elif fd == 0:
                self._read_keys()
            elif fd == 1:
                self._window.flush()
                if event & (select.POLLHUP | select.POLLERR):
                    self._drop_window()
            elif fd == self._control.fileno():
                self._accept()
            elif fd in self._peers:
                self._listen_to(self._peers[fd])
            elif self._readiness is not None and fd in self._readiness.fds:
                self._hear_readiness(self._readiness)
        came = self._signals.take()
        if came & {_signal.SIGTERM, _signal.SIGHUP}:
            self._tree.end(self._spec['stop_timeout'])
        if _signal.SIGWINCH in came:
            self._pass_size()
        before = self._tree.left
        self._tree.tick()
        if self._tree.left != before:
            self._folder.write_status('unknown', left=list(self._tree.left))
            self._tell('gone', self._tree.left, time.time())
        return _signal.SIGCHLD not in came or self._reap()

    def _hear_readiness(self, readiness: "Readiness") -> None:
        """What is found out, or said, about whether the program is ready."""
        before = readiness.fds
        for news in readiness.hear():
            now = time.time()
            self._tell(*news, now)
            if news[0] == 'ready':
                self._folder.write_status('ready', ready=now)
                readiness.end()
            elif news[0] == 'said':
                self._folder.write_status(str(self._folder.status['state']), said=news[1])
            elif news[0] == 'refused':
                self._folder.note('refused', refused=news[1])
                self._tree.end(self._spec['stop_timeout'])
        for fd in before:
            if fd not in readiness.fds:
                self._poll.unregister(fd)

    def _relay_output(self, whole: bool = False) -> None:
        """From the program to log and window; `whole`: until nothing is left in the terminal."""
        try:
            while True:
                data = posix.read(self._master, PIECE)
                self._log.write(data)
                self._window.show(data)
                if not whole:
                    return
        except BlockingIOError:
            return

    def _read_keys(self) -> None:
        try:
            data = posix.read(0, PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        if not data:
            self._drop_window()
        else:
            self._typed += data
            self._relay_keys()

    def _relay_keys(self) -> None:
        """To the program; what it does not read waits here, and screen waits once that is much."""
        try:
            while self._typed:
                del self._typed[: posix.write(self._master, self._typed[:PIECE])]
        except BlockingIOError:
            del self._typed[: max(0, len(self._typed) - RING)]
        except OSError:
            self._typed.clear()

    def _drop_window(self) -> None:
        if self._watches_window:
            self._watches_window = False
            self._window.close()
            self._poll.unregister(0)
            self._poll.unregister(1)
            self._tree.end(self._spec['stop_timeout'])

    def _pass_size(self) -> None:
        if self._window.open:
            copy_size(self._master)

    def _accept(self) -> None:
        peer = accept(self._control)
        self._peers[peer.fd] = peer
        self._poll.register(peer.fd, select.POLLIN)
        for message in self._history:
            peer.send(message)

    def _listen_to(self, peer: Peer) -> None:
        messages = peer.receive()
        if messages is None:
            self._poll.unregister(peer.fd)
            del self._peers[peer.fd]
            peer.sock.close()
            return
        for message in messages:
            if message[0] == 'abort':
                self._tree.end(self._spec['stop_timeout'])
            elif message[0] == 'stop':
                self._tree.end(float(message[1]))

    def _reap(self) -> bool:
        """Take in ended children; False when none is left."""
        ended, left = reap()
        if self._readiness is not None:
            self._readiness.reaped(ended)
        if self._pid in ended:
            if self._readiness is not None:
                self._hear_last(self._readiness)
            self._relay_output(whole=True)
            status = ended[self._pid]
            self.code = exit_code(status)
            now = time.time()
            state = 'stopping' if self._tree.ending else 'exited'
            # Where nothing is left `_finish` writes it, with the rest.
            write = self._folder.write_status if left else self._folder.note
            write(state, exit_status=self.code, ended=now, log_errno=self._log.error)
            self._tell('exited', status, now)
        return left

    def _hear_last(self, readiness: "Readiness") -> None:
        """The program has ended: what it said before counts, what it would have become does not."""
        if readiness.fds:
            poll = select.poll()
            poll.register(readiness.fds[0], select.POLLIN)
            if poll.poll(0):
                self._hear_readiness(readiness)
        for fd in readiness.fds:
            self._poll.unregister(fd)
        readiness.close()
        self._readiness = None

    def _finish(self) -> None:
        """No descendant is left."""
        self._relay_output(whole=True)
        now = time.time()
        self._folder.write_status('stopped' if self._tree.ending else 'exited', gone=now)
        self._tell('gone', (), now)
        self._window.show(
            '\r\n[remote_runner: ended at {} with status {}; q closes this window, r runs it again]\r\n'.format(
                time.strftime('%H:%M:%S'), self.code
            ).encode('ascii')
        )
        self._window.restore()


def guard(folder: Folder, keeper: int, signals: Signals) -> int:
    """Wait for the keeper; if it was killed, end what it leaves behind. The exit status to end with."""
    poll = select.poll()
    poll.register(signals.fd, select.POLLIN)
    tree = Tree()
    code = None
    while True:
        ended, left = reap()
        if keeper in ended:
            code = exit_code(ended[keeper])
            if not left and posix.WIFEXITED(ended[keeper]):
                return code
            tree.end(folder.spec['stop_timeout'])
        if not left:
            folder.write_status('killed', exit_status=code, ended=time.time(), reason='the launcher was killed')
            say('the launcher was killed; the program was ended')
            return EXIT_ABORTED if code is None else code
        wait = tree.wait()
        poll.poll(None if wait is None else wait * 1000 + 1)
        if signals.take() & {_signal.SIGTERM, _signal.SIGHUP} and code is None:
            posix.kill(keeper, _signal.SIGTERM)
        tree.tick()


def keep(folder: Folder) -> int:
    """What the keeper does, from calling back to the end of the tree; the exit status of the window."""
    signals = Signals((_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT, _signal.SIGCHLD, _signal.SIGWINCH))
    if posix.getppid() != folder.status['launcher']:
        return EXIT_ABORTED
    agent = None
    if folder.claimed:
        agent = connect(folder.spec['agent'])
        reason = wait_for_go(folder, agent, signals) if agent else 'the one who opened this window is gone'
        if reason:
            folder.write_status('aborted', reason=reason, ended=time.time())
            say('not started: {}; r starts it by hand'.format(reason))
            return EXIT_ABORTED
    else:
        say('started by hand')
    control = listen(folder.spec['control'])
    code = Keeper(folder, agent, control, signals).run()
    forget(folder.spec['control'])
    return code


def main(path: str) -> int:
    """Run the component in folder `path`; the exit status of the window."""
    signals = Signals((_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT, _signal.SIGCHLD))
    folder = Folder(path)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    keeper = posix.fork()
    if keeper:
        return guard(folder, keeper, signals)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, _signal.SIGTERM)
    try:
        return keep(folder)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        posix.kill(posix.getpid(), _signal.SIGKILL)  # a fault of ours: the guard ends the tree and says so
        raise


if __name__ == '__main__':
    posix._exit(main(sys.argv[1]))
