"""The tasks of one job on this host, and what is said of them between the dispatcher and masters.

The master's frames (`wire/frames.py`) come over a unix socket, by way of an agent that passes them on
(`agent/tasks.py`). To the dispatcher:

* `{"hello": {...}}` first: see `_greet`. Who says it with the same epoch or a later one takes the place of who did
  before. Answered with `{"welcome": {"pid": ..., "have": [[task, attempt], ...]}}`, or `{"refused": why}`.
* `{"start": [[task, attempt, position, command, limit, results, [[name, size], ...]], ...]}`: carry out; the body holds
  the inputs, one after the other. What is known already is not begun again.
* `{"cancel": [[task, attempt], ...]}`: end it, and tell nothing of it.
* `{"taken": [[task, attempt, keep], ...]}`: forget what came of it.
* `{"beat": n}`: answered with the same. Silence for as long as the lease means that there is no master any more.
* `{"close": "drain" | "kill" | "detach"}`: all is settled, what runs still does not count; end all; go on alone.
  Answered with `{"closed": true}`.

To the master: `{"began": [[task, attempt, seconds ago], ...]}` of what has run for a while, and what
`agent/outbox.py` makes of those that have ended. All of that is told anew to each master until it has `taken` it.
"""

import os
import select
import sys
import time
from _collections import deque

import _signal
import _socket

from remote_runner.agent import peers, processes, records, remains, staged, tree
from remote_runner.agent.attempt import Attempt
from remote_runner.agent.outbox import Outbox
from remote_runner.agent.spares import Spares
from remote_runner.agent.strays import UnderWay
from remote_runner.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Deque, Dict, List, Optional, Set

    from remote_runner.agent.attempt import Key

#: What masters and dispatchers of another number do not understand.
PROTOCOL = 1
#: Seconds after which the master is told that an attempt began: of shorter ones it hears when they have ended.
TELLING = 0.1
#: Seconds for which it is not told that attempts have ended while more wait here: short ones are told together.
HOLD = 0.01
#: Bytes that are read at once.
CHUNK = 1 << 18
#: Seconds that a lease has until the first master says what it is to be.
FIRST_LEASE = 60.0
#: The exit status of a dispatcher that leaves something for another one.
EXIT_KEPT = 3
#: Why a master is turned away.
TAKEN_OVER = 'another master has taken its place'
ENDING = {_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT}


class Client:
    """One connection of a master."""

    def __init__(self, sock: "_socket.socket") -> None:
        sock.setblocking(False)
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
        self._under_way = UnderWay()
        #: All that the master may ask about, in any state.
        self._known: "Dict[Key, Attempt]" = {}
        self._ended: "Dict[Key, Attempt]" = {}
        self._slots = 0
        self._free: "List[int]" = []
        self._untold: "Set[Attempt]" = set()
        self._environment = dict(processes.ENVIRONMENT)
        #: What stands in working folders, see `jobs/staging.py`.
        self._links: "Dict[str, Optional[str]]" = {}
        self._keep = 'failed'
        self._lease = FIRST_LEASE
        self._on_lost = 'kill'
        self._heard = time.monotonic()
        #: How it is to end: as masters say in `close`; or `lapsed` (the lease has ended), or `ended` (by a signal).
        self._mode = ''
        self._killed_for_memory = _memory_kills()
        self._spares = Spares(folder)
        #: What has ended and the master is not told yet, and when it is at last.
        self._held: "List[Attempt]" = []
        self._held_until = 0.0

    def run(self) -> int:
        """Serve until the job is over here, or its lease has ended; the exit status: 0, or that something is left."""
        self._ended.update(remains.recall(self._folder))
        self._known.update(self._ended)
        self._poll.register(self._signals.fd, select.POLLIN)
        self._poll.register(self._listening.fileno(), select.POLLIN)
        while not self._is_over():
            self._turn()
        self._spares.clear()
        if self._mode in ('drain', 'kill'):
            self._clear()
            return 0
        return EXIT_KEPT if self._ended else 0

    def _is_over(self) -> bool:
        is_idle = not self._queue and self._under_way.is_idle
        if self._mode in ('drain', 'kill', 'ended'):
            return is_idle
        return is_idle and self._master is None and self._mode in ('detach', 'lapsed')

    def _turn(self) -> None:
        master = self._master
        if master is not None and master.waits_for_room != (not master.outbox.is_empty):
            master.waits_for_room = not master.waits_for_room
            self._poll.modify(master.fd, select.POLLIN | (select.POLLOUT if master.waits_for_room else 0))
        for fd, event in self._poll.poll(tree.milliseconds(self._wait())):
            if fd == self._listening.fileno():
                self._accept()
            elif fd in self._clients and event & ~select.POLLOUT:
                self._read(self._clients[fd])
        came = self._signals.take()
        if came & ENDING:
            self._end()
        if _signal.SIGCHLD in came or self._under_way.wants_looks:
            for attempt in self._under_way.reap():
                self._is_over_with(attempt)
        self._look_at_clock()
        self._begin()
        self._tell()

    def _wait(self) -> "Optional[float]":
        """Seconds until something is due."""
        moments = [each.due for each in self._under_way.all() if each.due is not None]
        if self._untold and self._master is not None:
            moments.append(min(each.began for each in self._untold) + TELLING)
        if self._held and self._master is not None:
            moments.append(self._held_until)
        if not self._mode:
            moments.append(self._heard + self._lease)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _end(self) -> None:
        """We were told to, or the guard was killed: masters find that out at once, and begin another dispatcher."""
        if self._mode != 'ended':
            self._mode = 'ended'
            for client in list(self._clients.values()):
                self._drop(client)
            self._poll.unregister(self._listening.fileno())
            self._listening.close()
            self._end_all()

    # ---- the master --------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            client = Client(peers.accept(self._listening).sock)
        except OSError as error:
            _log('a master cannot be let in: {}'.format(error))
            return
        self._clients[client.fd] = client
        self._poll.register(client.fd, select.POLLIN)

    def _read(self, client: Client) -> None:
        try:
            data = client.sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        if client is self._master:
            self._heard = time.monotonic()  # also a part of a large frame is a sign of life
        try:
            for header, body in client.decoder.feed(data) if data else ():
                self._hear(client, header, body)
        except (frames.FrameError, AttributeError, KeyError, ValueError, TypeError, IndexError) as error:
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
        if not (self._epoch or self._clients or self._mode):
            self._mode = 'lapsed'  # who began us is gone, and has not said who it is: there is nothing to wait for

    def _hear(self, client: Client, header: "Dict[str, Any]", body: bytes) -> None:
        if 'hello' in header:
            self._greet(client, header['hello'])
        elif client is not self._master:
            return  # of a master whose place another one has taken
        elif 'start' in header:
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
            client.outbox.say({'closed': True})
            if self._mode in ('drain', 'kill'):
                self._end_all()  # of what it wants it has all: what it did not take is told twice, or was cancelled
            elif self._mode == 'detach':
                self._on_lost = 'finish'

    def _greet(self, client: Client, hello: "Dict[str, Any]") -> None:
        """A master says who it is: its `epoch`, and how things are to be done from now on."""
        if hello['protocol'] != PROTOCOL:
            _refuse(client, 'another version of remote_runner has begun it on this host')
            return
        if hello['epoch'] < self._epoch:
            _refuse(client, TAKEN_OVER)
            return
        if self._master is not None and self._master is not client:
            if hello['epoch'] > self._epoch:
                _refuse(self._master, TAKEN_OVER)
            self._drop(self._master)
        self._master = client
        self._mode = ''
        self._heard = time.monotonic()
        self._epoch = hello['epoch']
        self._lease, self._on_lost, self._keep = hello['lease'], hello['on_lost'], hello['keep']
        self._links = hello['links']
        _mark_as_used(self._links)
        self._environment[b'RR_HOST'] = hello['host'].encode('utf-8', 'surrogateescape')
        for name, value in hello['environment'].items():
            self._environment[name.encode('utf-8', 'surrogateescape')] = value.encode('utf-8', 'surrogateescape')
        self._resize(hello['slots'])
        have = [list(key) for key, attempt in self._known.items() if not attempt.is_unwanted]
        client.outbox.say({'welcome': {'pid': os.getpid(), 'have': have}})
        self._untold = {each for each in self._under_way.running.values() if not each.is_unwanted}
        self._held.clear()
        for attempt in self._ended.values():
            client.outbox.tell(attempt)

    def _resize(self, slots: int) -> None:
        used = {each.slot for each in self._under_way.all()}
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
                except (OSError, ValueError) as error:
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
            self._untold.discard(attempt)
            attempt.end()
        else:
            self._queue.remove(attempt)
            del self._known[key]
            attempt.forget(keep=False)

    def _forget(self, key: "Key", keep: bool) -> None:
        attempt = self._ended.pop(key, None)
        if attempt is not None:
            del self._known[key]
            attempt.is_unwanted = True  # the outbox may not have told of it yet
            # In a folder that is used again, whoever still works there could write among another task's results.
            attempt.forget(keep or self._keep == 'all', None if self._under_way.has_foreign else self._spares)

    def _tell(self) -> None:
        master = self._master
        if master is None:
            return
        now = time.monotonic()
        began = [each for each in self._untold if now >= each.began + TELLING] if self._untold else []
        if began:
            self._untold.difference_update(began)
            master.outbox.say({'began': [[each.key[0], each.key[1], now - each.began] for each in began]})
        if self._held and (not self._queue or now >= self._held_until):
            for attempt in self._held:
                master.outbox.tell(attempt)
            self._held.clear()
        try:
            master.outbox.flush(master.sock)
        except OSError:
            self._drop(master)

    # ---- tasks -------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        while self._queue and self._free:
            attempt = self._queue.popleft()
            slot = self._free.pop()
            try:
                attempt.begin(slot, self._environment, self._links, self._spares)
            except (OSError, ValueError) as error:
                self._release(slot)
                attempt.fail(error)
                self._has_ended(attempt)
                continue
            self._under_way.running[attempt.pid] = attempt
            self._untold.add(attempt)

    def _release(self, slot: int) -> None:
        if slot <= self._slots:
            self._free.append(slot)

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
            if not self._held:
                self._held_until = time.monotonic() + HOLD
            self._held.append(attempt)

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        for attempt in self._under_way.all():
            attempt.tick(now)
        if not self._mode and now > self._heard + self._lease:
            if self._master is not None:
                self._drop(self._master)
            self._mode = 'detach' if self._on_lost == 'finish' else 'lapsed'
            if self._mode == 'lapsed':
                self._end_all()

    def _end_all(self) -> None:
        """End what runs, and begin nothing more; nobody is told of it."""
        for attempt in self._queue:
            del self._known[attempt.key]
            attempt.forget(keep=False)
        self._queue.clear()
        self._untold.clear()
        for attempt in self._under_way.all():
            attempt.is_unwanted = True
            attempt.end()

    def _clear(self) -> None:
        """The master has all that it wants: leave what people may want to look at, and nothing else."""
        for attempt in self._ended.values():
            attempt.forget(self._keep == 'all' or (self._keep == 'failed' and attempt.cause is not None))


def _refuse(client: Client, why: str) -> None:
    """Tell a master that it is none; it goes then, or is dropped."""
    client.outbox.say({'refused': why})
    try:
        client.outbox.flush(client.sock)
    except OSError:
        return  # it did not wait for that


def _mark_as_used(links: "Dict[str, Optional[str]]") -> None:
    """`remote_runner clean` removes what nobody has used for long."""
    for folder in {staged.root_of(target) for target in links.values() if target is not None} - {''}:
        try:
            os.utime(folder)
        except OSError:
            continue  # it is another user's, or on a disk that cannot be written


def _log(text: str) -> None:
    sys.stderr.write(text + '\n')
    sys.stderr.flush()


def _memory_kills() -> int:
    """How many processes this machine has killed because it had no memory left (proc(5), `vmstat`)."""
    try:
        for line in records.read_file('/proc/vmstat').split(b'\n'):
            if line.startswith(b'oom_kill '):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0
