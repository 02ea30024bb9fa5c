"""The agent's main loop: reads frames, hands each request to a thread of its own, ends with its connection.

The one thread that reads never waits for anything but the next frame; what could wait (work, writing) happens in the
threads of the requests. See `wire/frames.py` for the format and `OPERATIONS` for what can be asked.
"""

import errno
import os
import select
import sys
import time

import _signal

from remote_runner.agent import processes, tree
from remote_runner.agent.request import Failure, Gone, Request
from remote_runner.agent.threads import Lock, Thread
from remote_runner.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Set

    import _socket

    from remote_runner.agent.command import Starter
    from remote_runner.agent.hashes import Hashes
    from remote_runner.agent.starts import Starts

#: Seconds of silence after which a master that sends heartbeats counts as gone.
SILENCE = 60.0
#: Seconds that requests get to clean up when the connection is gone.
FAREWELL = 10.0


class Agent:
    """The connection to the master, and what belongs to it."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._is_dismissed = False
        self._write_lock = Lock()
        self._requests: "Dict[int, Request]" = {}
        self._threads: "List[Thread]" = []
        self._heartbeat = False
        self.locks: "Dict[str, int]" = {}
        self.sessions: "Dict[str, List[int]]" = {}
        #: What is done to its end even if the connection is gone.
        self.duties: "List[Thread]" = []
        #: What sudo is told where it asks, once it has proven right.
        self.sudo_password: "Optional[bytes]" = None
        #: Files that go with us, if nobody removed them before.
        self.temporary: "List[str]" = []
        #: The commands that run now: operation `run`.
        self.commands: "Set[Request]" = set()
        self._starts: "Optional[Starts]" = None
        self._starter: "Optional[Starter]" = None
        self._hashes: "Optional[Hashes]" = None
        self._making = Lock()
        self._can_splice = hasattr(os, 'splice')  # Python 3.10

    @property
    def starts(self) -> "Starts":
        """The components that are started or watched over this connection."""
        with self._making:
            if self._starts is None:
                from remote_runner.agent.starts import Starts

                self._starts = Starts(self)
            return self._starts

    def starter(self, broken: "Optional[Starter]" = None) -> "Starter":
        """What starts commands on this host, another one than that which is `broken`."""
        with self._making:
            if self._starter is None or self._starter is broken:
                from remote_runner.agent.command import Starter

                if self._starter is not None:
                    self._starter.bury()
                self._starter = Starter()
            return self._starter

    def hashes(self, remembered: bool) -> "Hashes":
        """The SHA-1s of files of this host; with `remembered`, also those that earlier agents found out."""
        with self._making:
            if self._hashes is None:
                from remote_runner.agent.hash_files import cache_path
                from remote_runner.agent.hashes import Hashes

                self._hashes = Hashes(cache_path() if remembered else None)
            return self._hashes

    def save_hashes(self) -> None:
        """Remember them, in the background."""
        if self._hashes is not None:
            self.duties = [thread for thread in self.duties if thread.is_alive()] + [Thread(self._hashes.save)]

    def send(self, header: "Dict[str, Any]", body: bytes = b'') -> None:
        """Send one frame.

        Raises:
            Gone: the connection is lost.
        """
        with self._write_lock:
            try:
                self._write(frames.encode(header, body))
            except OSError:
                raise Gone from None

    def pass_on(self, header: "Dict[str, Any]", source: "_socket.socket", size: int) -> None:
        """Send one frame whose body waits in a socket: so many bytes are there. The kernel moves them, if it can.

        Raises:
            Gone: the connection is lost.
        """
        with self._write_lock:
            try:
                self._write(frames.begin(header, size))
                while size:
                    moved = self._move(source, size)
                    if not moved:
                        raise Gone
                    size -= moved
            except OSError:
                raise Gone from None

    def _move(self, source: "_socket.socket", size: int) -> int:
        if self._can_splice:
            try:
                return os.splice(source.fileno(), self._outgoing, size)  # novm
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOSYS):  # stdout is no pipe
                    raise
                self._can_splice = False
        data = source.recv(size)
        self._write(data)
        return len(data)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._outgoing, rest) :]

    def event(self, name: str, **fields: object) -> None:
        """Tell the master something that it did not ask for; nothing where it is gone."""
        try:
            self.send(dict(fields, event=name))
        except Gone:
            return  # the reading thread finds the same and ends us

    def dismiss(self, number: int, frame: object) -> None:
        """The handler of TERM: our connection broke, says the agent of the next one."""
        if not self._is_dismissed:
            self._is_dismissed = True
            raise Gone

    def run(self) -> None:
        """Read and dispatch frames until the connection ends."""
        decoder = frames.Decoder()
        poll = select.poll()
        poll.register(self._incoming, select.POLLIN)
        while not self._is_dismissed:
            if not poll.poll(SILENCE * 1000 if self._heartbeat else None):
                return
            data = os.read(self._incoming, 1 << 18)
            if not data:
                return
            for header, body in decoder.feed(data):
                self._dispatch(header, body)

    def _dispatch(self, header: "Dict[str, Any]", body: bytes) -> None:
        if 'op' not in header:
            request = self._requests.get(header['id'])
            if request is not None:  # else it ended already; what was under way is late
                request.take(header, body)
        elif header['op'] == 'ping':
            self._heartbeat = True
            self.send({'id': header['id'], 'result': {}})
        else:
            request = self._requests[header['id']] = Request(self, header)
            if header['op'] in INLINE:
                self._work(request)
                return
            self._threads = [old for old in self._threads if old.is_alive()] + [Thread(self._work, request)]

    def _work(self, request: Request) -> None:
        number = request.header['id']
        try:
            answer: "Dict[str, Any]" = {'id': number, 'result': operation(request.header['op'])(request)}
        except Gone:
            answer = {'id': number, 'error': {'what': 'cancelled', 'kind': 'cancelled'}}
        except Failure as failure:
            answer = {'id': number, 'error': {'what': failure.what, 'kind': failure.kind, 'errno': failure.errno_name}}
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, '')
            where = ': {}'.format(os.fsdecode(error.filename)) if error.filename is not None else ''
            answer = {'id': number, 'error': {'what': '{}{}'.format(error.strerror, where), 'errno': name}}
        except Exception as error:  # a fault of ours: told to the master, who shows it
            if isinstance(error, ImportError) and not os.path.exists(__file__):
                answer = {'id': number, 'error': {'what': self._abandon(), 'kind': 'removed'}}
            else:
                answer = {'id': number, 'error': {'what': _fault(error), 'kind': 'fault'}}
        del self._requests[number]
        try:
            self.send(answer)
        except Gone:
            return  # nobody to answer to

    def _abandon(self) -> str:
        """We cannot do all that we should any more: unless commands need us, another agent comes instead."""
        if not self.commands:
            self._is_dismissed = True
        folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        return 'somebody removed our program while it ran: {}; it comes again with the next connection'.format(folder)

    def remove_temporary(self) -> None:
        """Remove the files that are there for a while only."""
        while self.temporary:
            try:
                os.unlink(self.temporary.pop())
            except OSError:
                continue  # it could not even be written

    def farewell(self) -> None:
        """The connection is gone: let requests clean up, then leave nothing of ours."""
        self._is_dismissed = True  # TERM ends us no sooner, and must not keep us from this
        for request in list(self._requests.values()):
            request.take({'cancel': True}, b'')
        deadline = time.monotonic() + FAREWELL
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for file in self.locks.values():
            os.close(file)  # the next run need not wait for what follows
        self.remove_temporary()
        if self._starts is not None:
            self._starts.close()
        for thread in self.duties:
            thread.join()


def describe(request: "Optional[Request]" = None) -> "Dict[str, object]":
    """What the master wants to know of this host: operation `describe`, and the agent's first words."""
    uts = os.uname()
    return {
        'python': sys.version.split()[0],
        'pid': os.getpid(),
        'uid': os.getuid(),
        'home': os.path.expanduser('~'),
        'hostname': uts.nodename,
        'platform': '{}-{}'.format(uts.sysname.lower(), uts.machine),
        'identity': machine_identity(),
        'screen': processes.find('screen'),
        'cores': os.cpu_count(),
        'load': os.getloadavg()[0],
        'time': time.time(),
    }


def machine_identity() -> str:
    """The same for two connections that reach the same machine (or container) as the same user."""
    with open('/proc/sys/kernel/random/boot_id') as file:
        boot = file.read().strip()
    return '{} {} {}'.format(boot, os.stat('/proc/self/ns/pid').st_ino, os.getuid())


#: Where the operations are that do not stand here: many connections need few of them, and imports take time.
OPERATIONS = {
    'exec': 'processes.execute',
    'run': 'command.run',
    'prepare': 'files.prepare',
    'are_folders': 'files.are_folders',
    'compare': 'compare.compare',
    'blocks': 'compare.blocks',
    'put': 'put.put',
    'room': 'room.room',
    'leave_mark': 'sharing.leave_mark',
    'remove_mark': 'sharing.remove_mark',
    'see_marks': 'sharing.see_marks',
    'strays': 'sharing.strays',
    'check_trees': 'surplus.check_trees',
    'surplus': 'surplus.surplus',
    'delete': 'deletion.delete',
    'list_files': 'fetch.list_files',
    'get': 'fetch.get',
    'remove': 'files.remove',
    'sudo': 'become.sudo',
    'lock': 'locks.lock',
    'unlock': 'locks.unlock',
    'running': 'starts.running',
    'survey': 'survey.survey',
    'signal': 'survey.signal',
    'end_others': 'survey.end_others',
    'logs': 'logs.logs',
    'quit': 'screen.quit_session',
    'open': 'starts.open_windows',
    'answer': 'starts.answer',
    'watch': 'starts.watch',
    'stop': 'starts.stop',
    'close_windows': 'starts.close_windows',
    'examine': 'doctor.examine',
    'neighbours': 'doctor.neighbours',
    'tidy': 'doctor.tidy',
    'rubbish': 'clean.rubbish',
    'clean': 'clean.clean',
    'find': 'pgrep.find',
    'end': 'pgrep.end',
    'dispatch': 'tasks.dispatch',
    'load': 'load.load',
}


def _fault(error: Exception) -> str:
    import traceback

    return '{}: {}\n{}'.format(type(error).__name__, error, traceback.format_exc())


def operation(name: str) -> "Callable[[Request], Any]":
    """What answers a request.

    Raises:
        KeyError: there is no such operation.
    """
    if name == 'describe':
        return describe
    module, _, function = OPERATIONS[name].partition('.')
    module = 'remote_runner.agent.' + module
    __import__(module)
    found: "Callable[[Request], Any]" = getattr(sys.modules[module], function)
    return found


#: Done by the reading thread itself: they never wait, and their order counts.
INLINE = frozenset(['answer', 'describe'])


def main() -> None:
    """Serve the master on stdin and stdout until it is gone."""
    outgoing = os.dup(1)
    os.dup2(2, 1)  # nothing but frames goes out there
    # All that runs here later descends from us.
    tree.default_signals()
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    for number in processes.IGNORED_BY_PYTHON:
        _signal.signal(number, _signal.SIG_IGN)
    agent = Agent(0, outgoing)
    _signal.signal(_signal.SIGTERM, agent.dismiss)
    try:
        agent.send(dict(describe(), event='agent'))
        agent.run()
    except (Gone, OSError, frames.FrameError) as error:
        print('the agent ends: {!r}'.format(error), file=sys.stderr)
    finally:
        agent.farewell()
        os._exit(0)
