"""The way to the dispatcher of one host: made, kept and made anew by a thread of its own.

What goes to the dispatcher waits in a queue, so that a host which takes nothing holds up nobody else. What it says is
made into facts by the thread that reads from its connection.
"""

from __future__ import annotations

import functools
import logging
import random
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from remote_runner.errors import (
    AddressError,
    AuthenticationFailed,
    BootstrapFailed,
    ConnectionLost,
    HostError,
    HostKeyChanged,
    HostKeyUnknown,
    RemoteRunnerError,
    RequestFailed,
)
from remote_runner.errors import HostSilent as HostSilentError
from remote_runner.hosts.address import Address
from remote_runner.hosts.call import Call
from remote_runner.hosts.host import Host
from remote_runner.hosts.pool import HEARTBEAT, Opens, connect
from remote_runner.jobs.engines.base import Fact, HostDown, HostLoad, HostSilent, Links
from remote_runner.jobs.engines.incoming import Incoming
from remote_runner.wire import frames

log = logging.getLogger(__name__)

#: What `agent/job.py` of this version speaks.
PROTOCOL = 1
#: Bytes of a part; a frame may have several.
PART = 1 << 17
#: Bytes for which credit is given together.
CREDIT = 1 << 18
#: Seconds until a dispatcher must have answered.
WELCOME = 30.0
#: Seconds between two tries to connect: the first, and the longest.
PAUSE, LONGEST_PAUSE = 0.5, 60.0
#: Seconds between two reports of a load (the kernel reckons it anew every 5 s), and what changes of it are told.
LOAD_INTERVAL, NOTEWORTHY = 2.0, 0.05
#: Seconds after which a connection that is lost was a good one.
LONG = 10.0
#: Seconds that a dispatcher has to end what runs, and itself; and those in which a lost connection is made once more.
FAREWELL, LAST_TRY = 15.0, 5.0
#: What is the same when it is tried again, of a host that was never there.
FINAL = (AddressError, AuthenticationFailed, BootstrapFailed, HostKeyChanged, HostKeyUnknown)


class Terms(NamedTuple):
    """What dispatchers are told of a job.

    Args:
        job: its id.
        epoch: counts its masters.
        lease: seconds that a host goes on without a master.
        on_lost: `kill` or `finish`: what it does then.
        keep: of which attempts working folders stay: `all`, `failed` or `none`.
        environment: variables for the tasks.
        incoming: a folder of ours for results that come.
    """

    job: str
    epoch: int
    lease: float
    on_lost: str
    keep: str
    environment: Mapping[str, str]
    incoming: Path


class Engine(Protocol):
    """What a link needs of its engine, from several threads."""

    @property
    def connecting(self) -> AbstractContextManager[object]: ...

    @property
    def most_load(self) -> float | None: ...

    def prepare(self, host: Host) -> Links: ...

    def is_first(self, host: Host, link: Link) -> bool: ...

    def report(self, link: Link, facts: list[Fact], size: int) -> None: ...

    def fail(self, error: BaseException) -> None: ...


class Link:
    """See above.

    Args:
        address: the host; its slots, if they were said.
        connector: makes connections.
        terms: what its dispatcher is told.
        engine: hears what happens.
    """

    def __init__(self, address: Address, connector: Opens, terms: Terms, engine: Engine) -> None:
        self.name = address.where
        self._address = address
        self._connector = connector
        self._terms = terms
        self._engine = engine
        self._changed = threading.Condition()
        self._outgoing: list[tuple[dict[str, Any], bytes]] = []
        self._credit = self._owed = 0
        self._mode = ''
        self._is_admitted = False
        #: Of how many dispatchers that welcomed us the engine has not heard yet.
        self._unheard = 0
        self._broken: ConnectionLost | None = None
        self._incoming: Incoming | None = None
        #: The load per core that was told last.
        self._load: float | None = None
        #: Held while something is made into facts: none comes of a connection that was given up.
        self._hearing = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name=f'job {self.name}', daemon=True)

    # ---- for the engine ----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Connect, in the background."""
        self._thread.start()

    def send(self, header: dict[str, Any], body: bytes = b'') -> None:
        """To its dispatcher, if there is one now; the next one begins with what it has."""
        with self._changed:
            if self._is_admitted:
                self._outgoing.append((header, body))
                self._changed.notify_all()

    def admit(self) -> None:
        """It is known what its dispatcher has: from now on that may be told more, if it is the one of now."""
        with self._changed:
            self._unheard -= 1
            self._is_admitted = not self._unheard and self._incoming is not None and self._incoming.is_welcome

    def give_credit(self, size: int) -> None:
        """So many bytes of what it said have been dealt with."""
        with self._changed:
            self._credit += size
            if self._credit >= CREDIT:
                self._changed.notify_all()

    def close(self, mode: str) -> None:
        """Let go of it, in the background: see `Engine.close`. Where the connection is just lost, it is made once more.
        """
        with self._changed:
            self._mode = mode
            self._changed.notify_all()

    @property
    def is_up(self) -> bool:
        """Whether there is a dispatcher at the other end now."""
        incoming = self._incoming
        return incoming is not None and incoming.is_welcome

    def join(self, timeout: float) -> bool:
        """Wait until it has let go; whether it has."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    # ---- its own thread ----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            self._keep_up()
        except BaseException as error:  # a fault of ours, or a full disk: the job must not wait for this host
            self._engine.fail(error)

    def _keep_up(self) -> None:
        """Connect, talk until the connection is lost, and again; until the job lets go of the host."""
        pause = PAUSE
        was_up = is_last = False
        gone_at: float | None = None  # when a host that was there counts as gone
        while not is_last:
            is_last = bool(self._mode)
            if is_last and gone_at is None:
                return
            began, failure = time.monotonic(), self._try()
            if failure is None:
                return
            is_up = self._incoming is not None and self._incoming.is_welcome
            was_up = was_up or is_up
            self._forget()
            if _is_final(failure, was_up=was_up):
                self._tell(HostDown(self.name, str(failure), is_final=True))
                return
            if is_up:
                gone_at = time.monotonic() + self._terms.lease
                self._tell(HostSilent(self.name, str(failure)))
                pause = PAUSE if time.monotonic() - began > LONG else pause
            elif gone_at is None:
                self._tell(HostDown(self.name, str(failure)))
            if self._rest(pause * random.uniform(0.5, 1.5), gone_at):
                gone_at = None
                self._tell(HostDown(self.name, str(failure)))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _try(self) -> RemoteRunnerError | None:
        """Connect and talk; why that has ended, or None where that was wanted."""
        try:
            with ExitStack() as stack:
                with self._engine.connecting:
                    host = stack.enter_context(connect(self._address, self._connector))
                    if not self._engine.is_first(host, self):
                        raise RequestFailed('it is another name of a host that is there', host=self.name)
                    call = self._greet(host)
                self._talk(host, call)
                return None
        except RemoteRunnerError as error:
            return error

    def _rest(self, pause: float, gone_at: float | None) -> bool:
        """Wait before the next try; True where the host is to count as gone from now on."""
        until = time.monotonic() + pause
        if gone_at is not None:
            until = min(until, gone_at)
        with self._changed:
            while not self._mode and time.monotonic() < until:
                self._changed.wait(until - time.monotonic())
        return gone_at is not None and time.monotonic() >= gone_at

    def _greet(self, host: Host) -> Call:
        """Begin to talk to its dispatcher, which is begun where there is none."""
        terms = self._terms
        links = self._engine.prepare(host)
        incoming = Incoming(self.name, terms.incoming)
        incoming.slots = self._address.slots or host.facts.cores
        with self._changed:
            self._incoming, self._broken = incoming, None
            self._credit = self._owed = 0
            self._outgoing.clear()
        hear = functools.partial(self._hear, incoming)
        call = host.call('dispatch', job=terms.job, on_part=hear, on_end=self._wake, is_stream=True)
        hello = {
            'protocol': PROTOCOL,
            'epoch': terms.epoch,
            'lease': terms.lease,
            'on_lost': terms.on_lost,
            'keep': terms.keep,
            'environment': dict(terms.environment),
            'host': self.name,
            'slots': incoming.slots,
            'links': dict(links),
        }
        call.send(0, frames.encode({'hello': hello}), WELCOME)
        until = time.monotonic() + WELCOME
        with self._changed:
            while not (incoming.is_welcome or incoming.refused or call.ended or self._broken):
                if not self._changed.wait(max(0.0, until - time.monotonic())) and time.monotonic() >= until:
                    raise HostSilentError('its dispatcher does not answer', host=self.name)
        self._check(call, incoming)
        return call

    def _check(self, call: Call, incoming: Incoming) -> None:
        """Raises what has come between us."""
        if incoming.refused:
            raise RequestFailed(incoming.refused, host=self.name)
        if self._broken is not None:
            raise self._broken
        if call.ended:
            call.result()
            raise ConnectionLost('its dispatcher has ended', host=self.name)

    def _talk(self, host: Host, call: Call) -> None:
        """Until the job lets go of it, or (an error) the connection is lost."""
        incoming = self._incoming
        assert incoming is not None  # noqa: S101 - for the type checker
        beat = min(self._terms.lease / 4, HEARTBEAT)
        next_beat = 0.0
        loads = self._ask_for_loads(host, incoming)
        while True:
            with self._changed:
                if not self._has_news(call):
                    self._changed.wait(max(0.0, next_beat - time.monotonic()))
                outgoing, self._outgoing = self._outgoing, []
                credit, self._credit = self._credit, 0
                self._owed -= credit
            self._check(call, incoming)
            if loads is not None and loads.ended:
                loads.result()  # raises why it does not say how loaded it is
            if credit:
                call.give_credit(credit)
            now = time.monotonic()
            if now >= next_beat:
                next_beat = now + beat
                host.beat()
                outgoing.append(({'beat': 0}, b''))
            if self._owed > CREDIT:
                incoming.heard = now  # what it says waits for us
            elif now - incoming.heard > max(self._terms.lease, 2 * beat):
                raise HostSilentError('its dispatcher says nothing', host=self.name)
            self._send(call, outgoing)
            if self._mode and not self._outgoing:
                self._take_leave(call, incoming)
                return

    def _ask_for_loads(self, host: Host, incoming: Incoming) -> Call | None:
        """Have its agent report the load again and again, where that matters."""
        most = self._engine.most_load
        if most is None:
            return None

        def hear(part: Any, body: bytes) -> None:
            with self._hearing:
                if incoming is self._incoming:
                    self._hear_load(part['load'] / max(1, part['cores']), most)

        return host.call('load', interval=LOAD_INTERVAL, on_part=hear, on_end=self._wake)

    def _hear_load(self, load: float, most: float) -> None:
        last = self._load
        has_crossed = last is None or (last > most) != (load > most)
        if has_crossed or (load > most and last is not None and abs(load - last) >= NOTEWORTHY):
            self._load = load
            self._tell(HostLoad(self.name, load, most))

    def _has_news(self, call: Call) -> bool:
        return bool(
            self._outgoing or self._credit >= CREDIT or self._mode or self._broken is not None or call.ended
        )

    def _send(self, call: Call, outgoing: list[tuple[dict[str, Any], bytes]]) -> None:
        data = memoryview(b''.join(frames.encode(header, body) for header, body in outgoing))
        for start in range(0, len(data), PART):
            call.send(0, data[start : start + PART], self._terms.lease)

    def _take_leave(self, call: Call, incoming: Incoming) -> None:
        self._send(call, [({'close': self._mode}, b'')])
        call.give_credit(1 << 40)  # nobody waits for what it may still say
        until = time.monotonic() + FAREWELL
        with self._changed:
            while not self._has_let_go(call, incoming) and time.monotonic() < until:
                self._changed.wait(until - time.monotonic())
            if not self._has_let_go(call, incoming):
                log.warning('%s: what the job began there has not ended within %g s', self.name, FAREWELL)
        if not incoming.is_closed:
            self._check(call, incoming)

    def _has_let_go(self, call: Call, incoming: Incoming) -> bool:
        return call.ended or (incoming.is_closed and self._mode == 'detach')

    def _forget(self) -> None:
        with self._hearing, self._changed:
            incoming, self._incoming = self._incoming, None
            self._load = None
            self._is_admitted = False
        if incoming is not None:
            incoming.close()

    def _tell(self, fact: Fact) -> None:
        self._engine.report(self, [fact], 0)

    # ---- the thread that reads from its connection -------------------------------------------------------------

    def _hear(self, incoming: Incoming, part: object, body: bytes) -> None:
        with self._hearing:
            if incoming is self._incoming:  # else it is of a connection that we have given up
                self._make_facts(incoming, body)

    def _make_facts(self, incoming: Incoming, body: bytes) -> None:
        was_welcome, *_ = before = incoming.standing
        try:
            facts = incoming.take(body)
        except OSError as error:
            self._engine.fail(error)
            return
        except (frames.FrameError, KeyError, ValueError, TypeError) as error:
            self._broken = ConnectionLost(f'its dispatcher is not understood: {error!r}', host=self.name)
            self._wake()
            return
        with self._changed:
            self._owed += len(body)
            self._unheard += incoming.is_welcome and not was_welcome
            if not facts:  # a piece of a result, which is safe
                self._credit += len(body)
            if self._credit >= CREDIT or incoming.standing != before:  # what `_greet` or `_talk` waits for
                self._changed.notify_all()
        if facts:
            self._engine.report(self, facts, len(body))

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _is_final(failure: RemoteRunnerError, *, was_up: bool) -> bool:
    """Whether it is the same when it is tried again."""
    if isinstance(failure, RequestFailed):
        return not (failure.kind or failure.errno_name)  # else what is missing there may come: room on its disk, say
    return isinstance(failure, HostKeyChanged if was_up else FINAL) or not isinstance(failure, HostError)
