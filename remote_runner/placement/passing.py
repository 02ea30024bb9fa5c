"""A command of a client on a host: the frames of either side are passed on as they are, but for their id.

Client and agent give each other credit end to end, so that what is under way of a command is bounded, whoever is slow.
What comes from a host is put into the client's stream by the thread that reads the host, and never waits. What goes to
a host waits in its `Lane`, which has a thread of its own: a host that is cut off takes nothing, and must be in nobody
else's way.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from remote_runner.errors import HostError, RemoteRunnerError
from remote_runner.hosts.call import Header
from remote_runner.hosts.host import Host
from remote_runner.placement.loop import Loop
from remote_runner.wire import frames

#: Seconds that the thread of a lane stays when there is nothing to do.
IDLE = 30.0

Frame = tuple[Header, bytes]
#: Sends a frame to a client; from any thread.
Put = Callable[[bytes], None]


class Lane:
    """The way to a host, for the frames of all clients. Signals and such overtake what is large."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._changed = threading.Condition()
        self._urgent: deque[Frame] = deque()
        self._bulk: deque[Frame] = deque()
        self._has_thread = False

    def put(self, header: Header, body: bytes = b'') -> None:
        """Send a frame, in its turn. Where the connection breaks, the host's calls hear of it."""
        is_bulk = 'part' in header and header['part'] in ('in', None)  # the end of the input follows the input
        with self._changed:
            (self._bulk if is_bulk else self._urgent).append((header, body))
            if self._has_thread:
                self._changed.notify()
            else:
                self._has_thread = True
                threading.Thread(target=self._write, name=f'write {self.host.name}', daemon=True).start()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._urgent or self._bulk, IDLE)
                if not self._urgent and not self._bulk:
                    self._has_thread = False
                    return
                header, body = (self._urgent or self._bulk).popleft()
            try:
                self.host.write(header, body)
            except HostError:
                continue  # whoever reads it finds the same, and tells the calls why


class Run:
    """A command that is under way.

    Args:
        number: the id of its frames at the client's.
        name: the host's.
        lane: the way to it.
        put: the way to the client.
        loop: in which all else is called.
        on_over: called in the loop when there is nothing more to come.

    Raises:
        ConnectionLost: the host is gone.
    """

    def __init__(
        self, number: int, name: str, lane: Lane, put: Put, loop: Loop, on_over: Callable[[Run], object]
    ) -> None:
        self.number = number
        self.name = name
        self._lane = lane
        self._put = put
        self._loop = loop
        self._on_over = on_over
        self._lock = threading.Lock()
        self._credit = frames.WINDOW
        self._is_left = False
        self._call = lane.host.relay(self._from_host, self._lost)

    def begin(self, header: Header) -> None:
        """Ask the host for it."""
        window = header.get('window', frames.WINDOW)
        self._lane.put({**header, 'id': self._call.number, 'window': min(window, frames.WINDOW)})

    def pass_on(self, header: Header, body: bytes) -> None:
        """A frame of the client.

        Raises:
            FrameError: it has sent more than it was given credit for.
        """
        with self._lock:
            self._credit -= len(body)
            if self._credit < 0:
                raise frames.FrameError(f'{-self._credit} bytes without credit')
        self._lane.put({**header, 'id': self._call.number}, body)

    def leave(self) -> None:
        """The client wants no more of it: it is ended, and over when the host says that it has."""
        self._is_left = True
        self._lane.put({'id': self._call.number, 'cancel': True})

    # Called by the thread that reads the host.

    def _from_host(self, header: Header, body: bytes) -> None:
        if 'credit' in header:
            with self._lock:
                self._credit += header['credit']
        if 'error' in header:
            header = {**header, 'error': {**header['error'], 'host': self.name}}
        if not self._is_left:
            self._put(frames.encode({**header, 'id': self.number}, body))
        if 'part' not in header and 'credit' not in header:
            self._loop.soon(lambda: self._on_over(self))

    def _lost(self, error: HostError) -> None:
        if not self._is_left:
            self._put(refusal(self.number, error, 'lost', self.name))
        self._loop.soon(lambda: self._on_over(self))


def refusal(number: Any, error: RemoteRunnerError, kind: str, host: str | None = None) -> bytes:
    """The frame that answers a request with an error."""
    told: Header = {'what': error.what, 'kind': kind, 'host': host or error.host, 'remedy': error.remedy}
    told['status'] = error.exit_status
    return frames.encode({'id': number, 'error': told})
