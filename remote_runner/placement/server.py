"""Serves those who ask which host is the best one, and those whose commands run there: `placement/wire.py` says how.

    with Server(cluster) as server:
        server.listen(socket)       # the daemon's; or server.adopt(connection) for one client
        server.run()                # until `stop`

One thread serves all clients and waits for none of them. A client that breaks the rules is hung up on, alone; one that
vanishes takes its commands with it.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from remote_runner import __version__
from remote_runner.errors import ConnectionLost, RemoteRunnerError, UsageError
from remote_runner.hosts.call import Header
from remote_runner.hosts.host import Host
from remote_runner.placement.choose import Wanted
from remote_runner.placement.keeper import Cluster
from remote_runner.placement.loop import READ, Loop, Stream
from remote_runner.placement.passing import Lane, Run, refusal
from remote_runner.wire import frames

log = logging.getLogger(__name__)

#: Bytes of the header of a frame of a client: arguments and environment, escaped.
MAX_HEADER = 16 << 20
#: Seconds that hosts have to end the commands that are under way when the server stops.
FAREWELL = 5.0
#: Seconds until new clients are accepted again where there is no room for one more.
PAUSE = 0.5
_UCRED = struct.Struct('3i')
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Server:
    """See the top of this file. A context manager that hangs up on everybody.

    Args:
        cluster: of what hosts.
        about: what `ping` says beside `pid`, `version`, `uptime` (seconds) and `runs` (commands under way).
    """

    def __init__(self, cluster: Cluster, about: Callable[[], Header] = dict) -> None:
        self.cluster = cluster
        self.loop = Loop()
        self.runs: set[Run] = set()
        self._about = about
        self._began = time.monotonic()
        self._listening: list[socket.socket] = []
        self._clients: set[Client] = set()
        self._lanes: dict[str, Lane] = {}
        self._is_stopping = False
        self._is_over = False

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_doors()
        for client in list(self._clients):
            client.close()
        self.loop.__exit__()

    def listen(self, listening: socket.socket, accept: Callable[[socket.socket], object] | None = None) -> None:
        """Accept who connects there: a client, or what `accept` makes of the connection. Closed with the server."""
        listening.setblocking(False)
        self._listening.append(listening)
        self._accept_from(listening, accept or self._admit)

    def adopt(self, connection: socket.socket) -> None:
        """Serve this client; from any thread, before or while the server runs."""
        self.loop.soon(lambda: self._add(connection))

    def run(self) -> None:
        """Serve until `stop`, and end what is under way then."""
        self.loop.run(lambda: self._is_stopping)
        self._close_doors()
        stopped = RemoteRunnerError('the daemon has been stopped', remedy='start it again: remote_runner dshd')
        for client in self._clients:
            client.dismiss(stopped)
        self.loop.later(FAREWELL, self._give_up)
        self.loop.run(lambda: not self.runs or self._is_over)

    def stop(self) -> None:
        """End `run`; from any thread, and from handlers of signals."""
        self._is_stopping = True
        self.loop.soon(lambda: None)

    def about(self) -> Header:
        """The answer to `ping`."""
        own = {'pid': os.getpid(), 'version': __version__, 'runs': len(self.runs)}
        return {**own, 'uptime': time.monotonic() - self._began, **self._about()}

    # ---- for clients -----------------------------------------------------------------------------------------------

    def begin(self, number: int, client: Client, wanted: Wanted, header: Header) -> Run:
        """Start a command on the best host.

        Raises:
            RemoteRunnerError: no host will do (NoHostFits); or the best one is gone, and so are all others.
        """
        failed: list[str] = []
        while True:
            key = object()
            [(name, host)] = self.cluster.choose(wanted, key=key)
            try:
                over = partial(self._end, client, key)
                run = Run(number, name, self._lane(name, host), client.put, self.loop, over)
                break
            except ConnectionLost:  # which is known here before it is known there
                self.cluster.ended(name, key)
                if name in failed:
                    raise
                failed.append(name)
                wanted = wanted._replace(exclude=(*wanted.exclude, name))
        self.runs.add(run)
        client.put(frames.encode({'id': number, 'host': name}))
        run.begin(header)
        return run

    def forget(self, client: Client) -> None:
        """It is gone."""
        self._clients.discard(client)

    def _lane(self, name: str, host: Host) -> Lane:
        lane = self._lanes.get(name)
        if lane is None or lane.host is not host:  # it has been connected to again
            lane = self._lanes[name] = Lane(host)
        return lane

    def _end(self, client: Client, key: object, run: Run) -> None:
        self.runs.discard(run)
        client.end(run)
        self.cluster.ended(run.name, key)

    def _close_doors(self) -> None:
        while self._listening:
            listening = self._listening.pop()
            self.loop.watch(listening.fileno(), 0, lambda events: None)
            listening.close()

    def _give_up(self) -> None:
        self._is_over = True

    # ---- who connects ----------------------------------------------------------------------------------------------

    def _accept_from(self, listening: socket.socket, accept: Callable[[socket.socket], object]) -> None:
        def ready(events: int) -> None:
            try:
                connection, _ = listening.accept()
            except OSError as error:
                if error.errno in _FULL:
                    log.warning('nobody else can connect for now: %s', error.strerror)
                    self.loop.watch(listening.fileno(), 0, ready)
                    self.loop.later(PAUSE, watch)
                return  # it has gone again
            accept(connection)

        def watch() -> None:
            if not self._is_stopping:
                self.loop.watch(listening.fileno(), READ, ready)

        watch()

    def _admit(self, connection: socket.socket) -> None:
        """A client, if it is of this user: the permissions of the socket do not keep root out."""
        pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        client = self._add(connection)
        if uid != os.getuid():
            log.warning('process %d of user %d was refused: it is not ours', pid, uid)
            what = f'this daemon serves user {os.getuid()} alone, not user {uid}'
            client.refuse(RemoteRunnerError(what, remedy='start one of your own: remote_runner dshd'), 'user')

    def _add(self, connection: socket.socket) -> Client:
        client = Client(self, connection)
        self._clients.add(client)
        return client


class Client:
    """One connection of somebody who asks."""

    def __init__(self, server: Server, connection: socket.socket) -> None:
        self._server = server
        self._runs: dict[int, Run] = {}
        self._decoder = frames.Decoder(MAX_HEADER, frames.WINDOW)
        self._is_refused = False
        self._stream = Stream(server.loop, connection, self._hear, self._vanish)

    def put(self, data: bytes) -> None:
        """Send this; from any thread."""
        self._stream.put(data)

    def end(self, run: Run) -> None:
        """Nothing more comes of this one."""
        if self._runs.get(run.number) is run:
            del self._runs[run.number]

    def refuse(self, error: RemoteRunnerError, kind: str) -> None:
        """Tell it why it is not served any more, and hang up as soon as it knows."""
        self._is_refused = True
        self.put(refusal(None, error, kind))
        self._stream.finish()
        self._leave_all()

    def dismiss(self, error: RemoteRunnerError) -> None:
        """The server stops."""
        for number in list(self._runs):
            self.put(refusal(number, error, 'stopped'))
        self._leave_all()

    def close(self) -> None:
        """Hang up."""
        self._stream.close()
        self._vanish()

    def _vanish(self) -> None:
        self._leave_all()
        self._server.forget(self)

    def _leave_all(self) -> None:
        for run in self._runs.values():
            run.leave()
        self._runs.clear()

    def _hear(self, data: bytes) -> None:
        if self._is_refused:
            return
        try:
            for header, body in self._decoder.feed(data):
                if 'op' in header:
                    self._answer(header)
                else:
                    self._pass_on(header, body)
        except frames.FrameError as error:
            what = f'what came is not what was agreed upon: {error}'
            log.warning('a client was hung up on: %s', what)
            self.refuse(RemoteRunnerError(what, remedy='client and daemon may be of different versions'), 'frame')

    def _pass_on(self, header: Header, body: bytes) -> None:
        run = self._runs.get(_number(header))
        part: Header = {name: header[name] for name in ('part', 'credit', 'cancel') if name in header}
        if len(part) != 1 or not isinstance(part.get('credit', 0), int):
            raise frames.FrameError(f'a frame that is neither part nor credit: {list(header)}')
        if run is not None:  # else it has ended already
            run.pass_on(part, body)

    def _answer(self, header: Header) -> None:
        number = _number(header)
        work = _OPERATIONS.get(header['op']) if isinstance(header['op'], str) else None
        try:
            if work is not None:
                self.put(frames.encode({'id': number, 'result': work(self._server, header)}))
            elif header['op'] == 'run':
                self._begin(number, header)
            else:
                what = f'this daemon (version {__version__}) knows no {header["op"]!r}'
                raise UsageError(what, remedy='it may be of another version: remote_runner dshd --stop')
        except UsageError as error:
            self.put(refusal(number, error, 'usage'))
        except RemoteRunnerError as error:
            self.put(refusal(number, error, 'no host'))

    def _begin(self, number: int, header: Header) -> None:
        if number in self._runs:
            raise frames.FrameError(f'the id {number} is taken')
        if not isinstance(header.get('window', 0), int):
            raise UsageError('`window` is a number of bytes')
        wanted = wanted_of(header.get('wanted', {}))
        asked = {name: value for name, value in header.items() if name != 'wanted'}
        self._runs[number] = self._server.begin(number, self, wanted, asked)


def _number(header: Header) -> int:
    number = header.get('id')
    if not isinstance(number, int):
        raise frames.FrameError(f'a frame without an id: {list(header)}')
    return number


def wanted_of(fields: Any) -> Wanted:
    """What a client wants, from its frame.

    Raises:
        UsageError: it makes no sense.
    """
    if not isinstance(fields, dict) or not fields.keys() <= set(Wanted._fields):
        raise UsageError(f'`wanted` is an object of {", ".join(Wanted._fields)}')
    for name, value in fields.items():
        kinds = _KINDS[name]
        if not isinstance(value, kinds) or (kinds is list and not all(isinstance(each, str) for each in value)):
            raise UsageError(f'`wanted` has {value!r} as its {name}')
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return Wanted(**given)


_KINDS: dict[str, Any] = {
    'hosts': list,
    'prefer': list,
    'exclude': list,
    'min_memory': int,
    'platform': (str, type(None)),
    'max_load': (int, float, type(None)),
}


# ---- what is answered here ---------------------------------------------------------------------------------------


def _hosts(server: Server, header: Header) -> Header:
    return {'hosts': [state.to_dict() for state in server.cluster.hosts()], 'version': __version__}


def _best(server: Server, header: Header) -> Header:
    count, peek = header.get('count', 1), header.get('peek', False)
    if not isinstance(count, int) or count < 1 or not isinstance(peek, bool):
        raise UsageError('`count` is a whole number above 0, `peek` is true or false')
    chosen = server.cluster.choose(wanted_of(header.get('wanted', {})), count, peek)
    return {'hosts': [name for name, _ in chosen]}


def _ping(server: Server, header: Header) -> Header:
    return server.about()


_OPERATIONS: dict[str, Callable[[Server, Header], Header]] = {'hosts': _hosts, 'best': _best, 'ping': _ping}
