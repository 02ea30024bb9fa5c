"""One connected host: its connection, and the agent at the other end of it.

    with connect(address, connector) as host:
        host.request('describe')

One thread a host reads what the agent sends; answers wake whoever waits for them, events go to the host's listener.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from remote_runner.errors import BootstrapFailed, ConnectionLost, HostError, HostSilent, RequestFailed
from remote_runner.hosts.bootstrap import start_agent
from remote_runner.hosts.call import Call, Header, Relayed
from remote_runner.hosts.connection import Channel, Connection, TerminalChannel
from remote_runner.wire import frames

#: Seconds that an agent has for an answer that needs no work.
ANSWER_TIMEOUT = 30.0
#: Seconds that one host has to let go of what it is doing when the command is interrupted.
GIVE_UP_TIMEOUT = 3.0
#: Bytes of a body that is sent without being copied.
LARGE = 1 << 15


class Facts(NamedTuple):
    """What an agent says of its host: the operation `describe`."""

    python: str
    pid: int
    uid: int
    home: str
    hostname: str
    platform: str
    identity: str
    screen: str | None
    cores: int
    load: float
    time: float


class Host:
    """A connected host. Thread-safe; a context manager that closes agent and connection.

    Args:
        name: the host as the user wrote it.
        connection: closed together with this.
        listener: called by the reading thread with each event of the agent, and at last, if the connection broke
            without `close`, with `{'event': 'lost', 'error': ConnectionLost}`. It must not wait.
        python: the path of an interpreter that is known to be there; None: the host's own python3 is looked for.

    Raises:
        BootstrapFailed, ConnectionLost: the agent could not be started.
    """

    def __init__(
        self,
        name: str,
        connection: Connection,
        listener: Callable[[Host, Header], None],
        python: str | None = None,
    ) -> None:
        self.name = name
        self._connection = connection
        self._listener = listener
        self._numbers = itertools.count(1)
        self._calls: dict[int, Call] = {}
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._closed = False
        self._lost: HostError | None = None
        try:
            #: How its agent came up.
            begun = connection.agent
            self.started = start_agent(name, connection, python) if begun is None else begun.result()
            self._channel = self.started.channel
            self._decoder = frames.Decoder(may_be_cut=self._is_of_stream)
            asked = time.time()
            self.facts = self._meet(self.started.first)
        except BaseException:
            connection.close()
            raise
        #: Seconds that the host's clock is ahead of ours.
        self.clock_offset = self.facts.time - (asked + time.time()) / 2
        self._thread = threading.Thread(target=self._read, name=f'read {name}', daemon=True)
        self._thread.start()

    def _meet(self, data: bytes) -> Facts:
        """The agent's first words."""
        while True:
            try:
                found = self._decoder.feed(data)
            except frames.FrameError as error:
                what = f'the agent was disturbed: {error}'
                raise BootstrapFailed(what, host=self.name, output=_text(self._channel)) from error
            if found:
                (header, _), *_ = found
                header.pop('event')
                return Facts(**header)  # type: ignore[arg-type]
            try:
                data = self._channel.read(1 << 18, ANSWER_TIMEOUT)
            except TimeoutError:
                raise BootstrapFailed('the agent says nothing', host=self.name, output=_text(self._channel)) from None
            if not data:
                raise BootstrapFailed('the agent ended at once', host=self.name, output=_text(self._channel))

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connection(self) -> Connection:
        """What it is connected by."""
        return self._connection

    @property
    def channel(self) -> Channel:
        """The agent's channel."""
        return self._channel

    def call(
        self,
        op: str,
        *,
        on_end: Callable[[], None] | None = None,
        on_part: Callable[[Any, bytes], None] | None = None,
        is_stream: bool = False,
        timeout: float | None = None,
        **fields: Any,
    ) -> Call:
        """Send a request; its answer is waited for elsewhere. `on_end` is called by the reading thread when it came.

        `on_part` is called by it with each part that comes, in the place of `Call.parts`; see `Call.give_credit`. Of a
        stream it may be called with some of the body of a part, as that comes.

        Raises:
            ConnectionLost: the connection is gone.
            HostSilent: it could not be sent within `timeout` seconds.
        """
        number = next(self._numbers)
        call = Call(self, number, op, on_end, on_part, is_stream=is_stream)
        self._expect(number, call)
        try:
            self.write({'id': number, 'op': op, **fields}, timeout=timeout)
        except HostError:
            with self._lock:
                del self._calls[number]
            raise
        return call

    def relay(self, on_frame: Callable[[Header, bytes], None], on_lost: Callable[[HostError], None]) -> Relayed:
        """Make room for a request of somebody else, whose frames are passed on: see `Relayed`.

        Nothing is sent: its frames, the request being the first, are for `write`, with its `number` as their id.

        Raises:
            ConnectionLost: the connection is gone.
        """
        number = next(self._numbers)
        call = Relayed(self, number, on_frame, on_lost)
        self._expect(number, call)
        return call

    def _expect(self, number: int, call: Call) -> None:
        with self._lock:
            if self._lost is not None:
                raise self._lost
            self._calls[number] = call

    def request(self, op: str, timeout: float | None = None, **fields: Any) -> Any:
        """Send a request and wait for its answer (`timeout` in seconds; None: as long as it takes).

        Raises:
            ConnectionLost: the connection is gone.
            RequestFailed: the agent says that it cannot be done.
            HostSilent: no answer in time.
        """
        return self.call(op, timeout=timeout, **fields).result(timeout)

    def write(self, header: Header, body: bytes | memoryview = b'', timeout: float | None = None) -> None:
        """Send one frame, whole: one thread at a time.

        Raises:
            ConnectionLost: the connection is gone.
            HostSilent: another frame that nobody takes was in the way for `timeout` seconds.
        """
        if not self._writing.acquire(timeout=-1 if timeout is None else timeout):
            raise HostSilent('it does not take what is sent to it', host=self.name)
        try:
            if len(body) < LARGE:
                self._channel.write(frames.encode(header, body))
            else:  # to join them costs more than a packet
                self._channel.write(frames.begin(header, len(body)))
                self._channel.write(body)
        finally:
            self._writing.release()

    def open_terminal(self, command: str, term: str, columns: int, rows: int) -> TerminalChannel:
        """Run `command` in a terminal, beside the agent and over the same connection, see `Connection.open_terminal`.

        Raises:
            ConnectionLost: the connection is gone.
            HostError: the host gives no terminal.
        """
        return self._connection.open_terminal(command, term, columns, rows)

    def give_up(self, timeout: float) -> None:
        """Cancel all requests under way, and wait until the agent has let go of them, for `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._lock:
            calls = list(self._calls.values())
        for call in calls:
            with contextlib.suppress(HostError):
                call.cancel()
        for call in calls:
            with contextlib.suppress(RequestFailed, HostError):
                call.result(max(0.0, deadline - time.monotonic()))

    def look_at_clock(self, times: int = 3) -> None:
        """Find out better by how much the host's clock is ahead of ours than while everything was beginning.

        The quickest of so many answers counts: the host's time was ours in the middle of it, give or take half of that.

        Raises:
            ConnectionLost: the connection is gone.
            HostSilent: no answer in time.
        """
        found: list[tuple[float, float]] = []
        for _ in range(times):
            asked = time.time()
            answer = self.request('describe', timeout=ANSWER_TIMEOUT)['time']
            answered = time.time()
            found.append((answered - asked, answer - (asked + answered) / 2))
        self.clock_offset = min(found)[1]

    def beat(self) -> None:
        """Tell the agent that we are there. Where the connection is gone, its reader says so."""
        with contextlib.suppress(HostError):
            self.write({'id': 0, 'op': 'ping'}, timeout=0.0)  # a frame that is under way is a sign of life itself

    def dismiss(self) -> None:
        """From now on the end of the connection is no news."""
        with self._lock:
            self._closed = True

    def close(self) -> None:
        """Close the connection; the agent ends with it. What it started for the user stays. Safe to call twice."""
        self.dismiss()
        self._connection.close()  # and with it the channel

    def _read(self) -> None:
        error: HostError = ConnectionLost('the agent ended', host=self.name)
        try:
            while True:
                data = self._channel.read(1 << 18)
                if not data:
                    break
                for header, body in self._decoder.feed(data):
                    self._dispatch(header, body)
        except HostError as lost:
            error = lost
        except frames.FrameError as broken:
            error = ConnectionLost(f'the agent was disturbed: {broken}', host=self.name)
        except Exception as fault:  # of ours, or of a listener: whoever waits for this host must not wait for ever
            error = ConnectionLost(f'its messages could not be handled: {fault!r}', host=self.name)
            error.__cause__ = fault
        with self._lock:
            if not self._closed and _text(self._channel):
                error.output = _text(self._channel)
            self._lost = error
            calls = list(self._calls.values())
            closed = self._closed
        for call in calls:
            call.lose(error)
        if not closed:
            self._listener(self, {'event': 'lost', 'error': error})

    def _is_of_stream(self, header: Header) -> bool:
        call = self._calls.get(header['id']) if 'part' in header else None
        return call is not None and call.is_stream

    def _dispatch(self, header: Header, body: bytes) -> None:
        if 'event' in header:
            self._listener(self, header)
            return
        call = self._calls.get(header['id'])
        if call is None:
            return  # an answer that nobody waits for any more
        call.take(header, body)
        if call.answered:
            with self._lock:
                del self._calls[header['id']]


def _text(channel: Channel) -> str:
    return channel.stderr().decode('utf-8', 'replace')
