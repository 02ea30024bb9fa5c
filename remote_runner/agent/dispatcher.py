"""What runs the tasks of one job on this host: it outlives the connection to the master, until its lease ends.

Two processes of this file stand behind a job on a host: the *dispatcher*, and its *guard*, which ends all tasks if the
dispatcher is killed. Both are child subreapers (prctl(2)), so that whatever a task starts stays below them: an attempt
is over when none of its processes is left.

The master's frames (`wire/frames.py`) come over a unix socket, by way of an agent that passes them on
(`agent/tasks.py`). To the dispatcher:

* `{"hello": {...}}` first: see `_greet`. Who says it with the same epoch or a later one takes the place of who did
  before. Answered with `{"welcome": {"pid": ..., "have": [[task, attempt], ...]}}`, or `{"refused": why}`.
* `{"start": [[task, attempt, position, command, limit, results, [[name, size], ...]], ...]}`: carry out; the body holds
  the inputs, one after the other. What is known already is not begun again.
* `{"cancel": [[task, attempt], ...]}`: end it, and tell nothing of it.
* `{"taken": [[task, attempt, keep], ...]}`: forget what came of it.
* `{"beat": n}`: answered with the same. Silence for as long as the lease means that there is no master any more.
* `{"close": "drain" | "kill" | "detach"}`: nothing more is wanted; end all; go on alone, to the end.

To the master: `{"began": [[task, attempt, seconds ago], ...]}` of what has run for a while, and what
`agent/outbox.py` makes of those that have ended. All of that is told anew to each master until it has `taken` it.

    python3 -IS dispatcher.py FOLDER SOCKET
"""

import fcntl
import os
import select
import sys
import time
from _collections import deque

import _signal
import _socket

if __name__ == '__main__':
    sys.path.insert(0, __file__.rsplit('/', 3)[0])

from remote_runner.agent import peers, processes, records, tree
from remote_runner.agent.attempt import Attempt
from remote_runner.agent.outbox import Outbox
from remote_runner.wire import frames
from remote_runner.wire.compact_json import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Deque, Dict, List, Optional, Set

    from remote_runner.agent.attempt import Key

#: What masters and dispatchers of another number do not understand.
PROTOCOL = 1
#: Seconds after which the master is told that an attempt began: of shorter ones it hears when they have ended.
TELLING = 0.1
#: Bytes that are read at once.
CHUNK = 1 << 18
#: Seconds that a lease has until the first master says what it is to be.
FIRST_LEASE = 60.0
#: The exit status of a dispatcher that leaves something for another one.
EXIT_KEPT = 3
_ENDING = {_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT}


class Client:
    """One connection of a master."""

    def __init__(self, sock: "_socket.socket") -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.decoder = frames.Decoder()
        self.outbox = Outbox()
        self.waits_for_room = False


class Dispatcher:
    """See above.

    Args:
        folder: of the job on this host.
        listening: where masters find us.
        signals: that came to us.
    """

    def __init__(self, folder: str, listening: "_socket.socket", signals: tree.Signals) -> None:
        self._folder = folder
        self._listening = listening
        self._signals = signals
        self._poll = select.poll()
        self._clients: "Dict[int, Client]" = {}
        self._master: "Optional[Client]" = None
        self._epoch = 0
        self._queue: "Deque[Attempt]" = deque()
        #: By the pids of their main processes, and those whose main processes have ended.
        self._running: "Dict[int, Attempt]" = {}
        self._lingering: "Set[Attempt]" = set()
        #: All that the master may ask about, in any state.
        self._known: "Dict[Key, Attempt]" = {}
        self._ended: "Dict[Key, Attempt]" = {}
        self._slots = 0
        self._free: "List[int]" = []
        #: Children that no attempt owns up to, and the attempts that ran when they appeared.
        self._foreign: "Dict[int, Set[Attempt]]" = {}
        self._untold: "Set[Attempt]" = set()
        self._environment = dict(processes.ENVIRONMENT)
        #: What stands in working folders, see `jobs/staging.py`.
        self._links: "Dict[str, Optional[str]]" = {}
        self._keep = 'failed'
        self._lease = FIRST_LEASE
        self._on_lost = 'kill'
        self._heard = time.monotonic()
        self._mode = ''
        self._killed_for_memory = _memory_kills()

    def run(self) -> int:
        """Serve until the job is over here, or its lease has ended; the exit status: 0, or that something is left."""
        self._recall()
        self._poll.register(self._signals.fd, select.POLLIN)
        self._poll.register(self._listening.fileno(), select.POLLIN)
        while not self._is_over():
            self._turn()
        if self._mode in ('drain', 'kill'):
            self._clear()
            return 0
        return EXIT_KEPT

    def _recall(self) -> None:
        """What another dispatcher, which was killed, left here: what was over counts, the rest is removed."""
        names = set(os.listdir(self._folder))
        for name in names:
            number, _, go = name.partition('.')
            if number.isdigit() and go.isdigit() and not {name + '.json', name + '.kept'} & names:
                Attempt(self._folder, (int(number), int(go)), 0, b'', 0, None).forget(keep=False)
        for name in names:
            number, _, rest = name.partition('.')
            go, _, end = rest.partition('.')
            if end != 'json':
                continue
            try:
                found = loads(records.read_file('{}/{}'.format(self._folder, name)).decode('ascii'))
                attempt = Attempt.recall(self._folder, (int(number), int(go)), found)
            except (OSError, ValueError, KeyError, TypeError):
                continue  # not ours, or not whole: it counts for nothing
            self._known[attempt.key] = self._ended[attempt.key] = attempt

    def _is_over(self) -> bool:
        is_idle = not (self._queue or self._running or self._lingering or self._foreign)
        if self._mode == 'drain':
            return is_idle and not self._ended
        if self._mode == 'kill':
            return is_idle
        return is_idle and self._is_orphan and (self._mode != '' or time.monotonic() > self._heard + self._lease)

    @property
    def _is_orphan(self) -> bool:
        return self._master is None

    def _turn(self) -> None:
        master = self._master
        if master is not None and master.waits_for_room != (not master.outbox.is_empty):
            master.waits_for_room = not master.waits_for_room
            self._poll.modify(master.fd, select.POLLIN | (select.POLLOUT if master.waits_for_room else 0))
        for fd, event in self._poll.poll(tree.milliseconds(self._wait())):
            if fd == self._listening.fileno():
                client = Client(peers.accept(self._listening).sock)
                self._clients[client.fd] = client
                self._poll.register(client.fd, select.POLLIN)
            elif fd in self._clients and event & ~select.POLLOUT:
                self._read(self._clients[fd])
        came = self._signals.take()
        if came & _ENDING:
            self._mode = self._mode or 'ended'
            self._end_all()
        if _signal.SIGCHLD in came or self._foreign or self._lingering:
            self._reap()
        self._look_at_clock()
        self._begin()
        self._tell()

    def _wait(self) -> "Optional[float]":
        """Seconds until something is due."""
        moments = [each.due for each in self._running.values() if each.due is not None]
        moments += [each.due for each in self._lingering if each.due is not None]
        if self._untold and self._master is not None:
            moments.append(min(each.began for each in self._untold) + TELLING)
        if not self._mode:
            moments.append(self._heard + self._lease)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    # ---- the master --------------------------------------------------------------------------------------------

    def _read(self, client: Client) -> None:
        try:
            data = client.sock.recv(CHUNK, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        try:
            for header, body in client.decoder.feed(data) if data else ():
                self._hear(client, header, body)
        except (frames.FrameError, KeyError, ValueError, TypeError, IndexError) as error:
            _log('what came from a master is not understood: {!r}'.format(error))
            data = b''
        if not data and client.fd in self._clients:
            self._drop(client)

    def _drop(self, client: Client) -> None:
        self._poll.unregister(client.fd)
        del self._clients[client.fd]
        client.sock.close()
        if client is self._master:
            self._master = None
            if self._mode == 'drain':
                self._mode = ''  # it cannot say any more what it has taken

    def _hear(self, client: Client, header: "Dict[str, Any]", body: bytes) -> None:
        if 'hello' in header:
            self._greet(client, header['hello'])
        elif client is not self._master:
            return  # of a master whose place another one has taken
        self._heard = time.monotonic()
        if 'start' in header:
            self._take_in(header['start'], body)
        elif 'cancel' in header:
            for number, go in header['cancel']:
                self._cancel((number, go))
        elif 'taken' in header:
            for number, go, keep in header['taken']:
                self._forget((number, go), bool(keep))
        elif 'beat' in header:
            client.outbox.say({'beat': header['beat']})
        elif 'close' in header:
            self._mode = header['close']
            if self._mode == 'kill':
                self._end_all()
            elif self._mode == 'detach':
                self._on_lost = 'finish'
                client.outbox.say({'closed': True})

    def _greet(self, client: Client, hello: "Dict[str, Any]") -> None:
        """A master says who it is: its `epoch`, and how things are to be done from now on."""
        if self._mode == 'ended':
            return  # we are about to end
        if hello['protocol'] != PROTOCOL or hello['epoch'] < self._epoch:
            why = 'another master has taken its place'
            if hello['protocol'] != PROTOCOL:
                why = 'another version of remote_runner has begun it on this host'
            client.outbox.say({'refused': why})
            client.outbox.flush(client.sock, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
            return
        if self._master is not None and self._master is not client:
            self._drop(self._master)
        self._master = client
        self._mode = ''
        self._epoch = hello['epoch']
        self._lease, self._on_lost, self._keep = hello['lease'], hello['on_lost'], hello['keep']
        self._links = hello['links']
        self._environment[b'RR_HOST'] = hello['host'].encode('utf-8', 'surrogateescape')
        for name, value in hello['environment'].items():
            self._environment[name.encode('utf-8', 'surrogateescape')] = value.encode('utf-8', 'surrogateescape')
        self._resize(hello['slots'])
        client.outbox.say({'welcome': {'pid': os.getpid(), 'have': [list(key) for key in self._known]}})
        self._untold = set(self._running.values())
        for attempt in self._ended.values():
            client.outbox.tell(attempt)

    def _resize(self, slots: int) -> None:
        used = {each.slot for each in self._running.values()} | {each.slot for each in self._lingering}
        self._slots = slots
        self._free = [slot for slot in range(slots, 0, -1) if slot not in used]

    def _take_in(self, items: "List[List[Any]]", body: bytes) -> None:
        offset = 0
        for number, go, position, command, limit, results, inputs in items:
            contents = []
            for name, size in inputs:
                contents.append((name, body[offset : offset + size]))
                offset += size
            key = (number, go)
            if key in self._known:
                continue
            text = command.encode('utf-8', 'surrogateescape')
            attempt = self._known[key] = Attempt(self._folder, key, position, text, limit, results)
            if contents:
                try:
                    attempt.put_inputs(contents)
                except OSError as error:
                    attempt.fail(error)
                    self._has_ended(attempt)
                    continue
            self._queue.append(attempt)

    def _cancel(self, key: "Key") -> None:
        attempt = self._known.get(key)
        if attempt is None:
            return
        if key in self._ended:
            self._forget(key, keep=False)
        elif attempt.pid:
            attempt.is_unwanted = True
            attempt.end()
        else:
            self._queue.remove(attempt)
            del self._known[key]
            attempt.forget(keep=False)

    def _forget(self, key: "Key", keep: bool) -> None:
        attempt = self._ended.pop(key, None)
        if attempt is not None:
            del self._known[key]
            attempt.forget(keep or self._keep == 'all')

    def _tell(self) -> None:
        master = self._master
        if master is None:
            return
        now = time.monotonic()
        began = [each for each in self._untold if now >= each.began + TELLING] if self._untold else []
        if began:
            self._untold.difference_update(began)
            master.outbox.say({'began': [[each.key[0], each.key[1], now - each.began] for each in began]})
        try:
            master.outbox.flush(master.sock, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
        except OSError:
            self._drop(master)

    # ---- tasks -------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        while self._queue and self._free and self._mode != 'ended':
            attempt = self._queue.popleft()
            slot = self._free.pop()
            try:
                attempt.begin(slot, self._environment, self._links)
            except OSError as error:
                self._release(slot)
                attempt.fail(error)
                self._has_ended(attempt)
                continue
            self._running[attempt.pid] = attempt
            self._untold.add(attempt)

    def _release(self, slot: int) -> None:
        if slot <= self._slots:
            self._free.append(slot)

    def _reap(self) -> None:
        ended, any_left = tree.reap()
        for pid, status in ended.items():
            attempt = self._running.pop(pid, None)
            if attempt is not None:
                attempt.main_ended(status)
                self._lingering.add(attempt)
        if any_left:
            self._look_for_strays()
        elif self._foreign or self._lingering:
            self._foreign.clear()
            for attempt in self._lingering:
                attempt.strays.clear()
        for attempt in [each for each in self._lingering if not each.strays]:
            self._lingering.remove(attempt)
            self._is_over_with(attempt)

    def _look_for_strays(self) -> None:
        """Children of ours that we did not start: their parents have ended, and the kernel gave them to us."""
        strays = set(tree.children(os.getpid())) - set(self._running)
        for pid in set(self._foreign) - strays:
            del self._foreign[pid]
        owned: "Set[int]" = set(self._foreign)
        for attempt in self._attempts():
            attempt.strays &= strays
            owned |= attempt.strays
        for pid in strays - owned:
            owner = self._owner(pid)
            if owner is not None:
                owner.strays.add(pid)
            else:
                self._foreign[pid] = set(self._attempts())
        for attempt in self._lingering:
            if attempt.strays:
                attempt.linger()
        self._end_foreign()

    def _attempts(self) -> "List[Attempt]":
        return list(self._running.values()) + list(self._lingering)

    def _owner(self, pid: int) -> "Optional[Attempt]":
        """Whose process it is: it is in the session of a task, or was started with the variables of one."""
        session = _session(pid)
        for attempt in self._attempts():
            if attempt.pid == session:
                return attempt
        try:
            environment = processes.environment(pid)
        except OSError:
            return None  # it is just ending, or has become another user's
        for attempt in self._attempts():
            own = (attempt.position, attempt.key[1], attempt.slot)
            if tuple(environment.get(name) for name in _MARKS) == tuple(str(word).encode('ascii') for word in own):
                return attempt
        return None

    def _end_foreign(self) -> None:
        """End what belongs to none of the attempts under way."""
        under_way = set(self._attempts())
        for pid, candidates in self._foreign.items():
            if not candidates & under_way:
                for each in [pid, *tree.descendants(pid)]:
                    try:
                        os.kill(each, _signal.SIGKILL)
                    except (ProcessLookupError, PermissionError):
                        continue  # it has just ended; or it is another user's, and not ours to end

    def _is_over_with(self, attempt: Attempt) -> None:
        """None of its processes is left."""
        self._release(attempt.slot)
        if attempt.is_unwanted:
            del self._known[attempt.key]
            self._untold.discard(attempt)
            attempt.forget(keep=self._keep == 'all')
            return
        out_of_memory = False
        if attempt.status == 128 + _signal.SIGKILL and not attempt.is_ending:
            kills = _memory_kills()
            out_of_memory, self._killed_for_memory = kills > self._killed_for_memory, kills
        attempt.conclude(out_of_memory)
        self._has_ended(attempt)

    def _has_ended(self, attempt: Attempt) -> None:
        self._untold.discard(attempt)
        self._ended[attempt.key] = attempt
        if self._master is not None:
            self._master.outbox.tell(attempt)

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        for attempt in self._attempts():
            attempt.tick(now)
        if now > self._heard + self._lease and self._mode not in ('detach', 'ended'):
            if self._master is not None:
                self._drop(self._master)
            if self._on_lost == 'kill':
                self._end_all()
            else:
                self._mode = 'detach'

    def _end_all(self) -> None:
        """End what runs, and begin nothing more; nobody is told of it."""
        for attempt in self._queue:
            del self._known[attempt.key]
            attempt.forget(keep=False)
        self._queue.clear()
        for attempt in self._attempts():
            attempt.is_unwanted = True
            attempt.end()

    def _clear(self) -> None:
        """The master has all that it wants: leave what people may want to look at, and nothing else."""
        for attempt in self._ended.values():
            attempt.forget(self._keep == 'all' or (self._keep == 'failed' and attempt.cause is not None))


def _log(text: str) -> None:
    sys.stderr.write(text + '\n')
    sys.stderr.flush()


_MARKS = (b'RR_TASK', b'RR_ATTEMPT', b'RR_SLOT')


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _memory_kills() -> int:
    """How many processes this machine has killed because it had no memory left (proc(5), `vmstat`)."""
    try:
        for line in records.read_file('/proc/vmstat').split(b'\n'):
            if line.startswith(b'oom_kill '):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0


def guard(dispatcher: int, signals: tree.Signals) -> int:
    """Wait for the dispatcher; if it was killed, end what it leaves behind. The exit status to end with."""
    poll = select.poll()
    poll.register(signals.fd, select.POLLIN)
    below = tree.Tree()
    code = 1
    while True:
        ended, is_left = tree.reap()
        if dispatcher in ended:
            code = tree.exit_code(ended[dispatcher])
            below.end(0.0)
        if not is_left:
            return code
        poll.poll(tree.milliseconds(below.wait()))
        if signals.take() & _ENDING and not below.ending:
            os.kill(dispatcher, _signal.SIGTERM)
        below.tick()


def main(folder: str, path: str) -> int:
    """Serve the job in `folder` at the socket `path`, if nobody does; says so on stdout, or why not."""
    lock = os.open(folder + '/lock', os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(folder + '/lock').st_ino != os.fstat(lock).st_ino:
            return 0  # it was removed by the one before us
    except OSError:
        return 0  # another one was faster: whoever asked finds it
    if os.fork():
        os._exit(0)
    log = os.open(folder + '/log', os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 2)
    tree.prctl(tree.PR_SET_CHILD_SUBREAPER, 1)
    signals = tree.Signals((_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT, _signal.SIGCHLD))
    listening = peers.listen(path)
    dispatcher = os.fork()
    if dispatcher:
        listening.close()
        os.close(1)
        code = guard(dispatcher, signals)
        records.forget(path)
        if code == 0:
            _leave(folder)
        return 0
    tree.prctl(tree.PR_SET_CHILD_SUBREAPER, 1)
    tree.prctl(tree.PR_SET_PDEATHSIG, _signal.SIGTERM)
    signals = tree.Signals((_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT, _signal.SIGCHLD))
    os.write(1, b'ready\n')
    os.dup2(0, 1)
    try:
        return Dispatcher(folder, listening, signals).run()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)  # a fault of ours: the guard ends the tasks


def _leave(folder: str) -> None:
    """Remove what is ours of the folder of a job that is over here, and the folder itself, if nothing else is there."""
    for name in ('lock', 'log'):
        records.forget('{}/{}'.format(folder, name))
    try:
        os.rmdir(folder)
    except OSError:
        return  # there is something that people may want to look at


if __name__ == '__main__':
    os._exit(main(sys.argv[1], sys.argv[2]))
