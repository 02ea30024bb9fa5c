"""Two TCP ports for scripts that read text: all hosts with their loads, and the name of the best one.

    nc localhost 8181
    ssh "$(nc localhost 8282)"

Whoever connects gets the text at once, and the end of it; nothing that they say is heard. A line of the list has these
words, the best host first; `-` is what is not known:

    name state score load virtual cores free_memory free_swap users tasks age

`state` as in `member.py`; `load` the average of a minute; `virtual` processes that were given to it and do not show
there yet; memory and swap in MiB; `age` of the report in seconds.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from remote_runner.errors import RemoteRunnerError, UsageError
from remote_runner.placement.choose import Wanted
from remote_runner.placement.keeper import Cluster
from remote_runner.placement.loads import by_score
from remote_runner.placement.loop import Stream
from remote_runner.placement.member import HostState
from remote_runner.placement.server import Server

log = logging.getLogger(__name__)

#: Seconds that somebody has to take the text.
PATIENCE = 10.0
#: Connections that wait until they are accepted.
BACKLOG = 128
_MIB = 1 << 20


def host_list(cluster: Cluster) -> str:
    """A line for each host."""
    return ''.join(f'{_line(state)}\n' for state in by_score(cluster.hosts()))


def _line(state: HostState) -> str:
    words = [state.address.where, state.state, _short(state.score)]
    report = state.report
    if report is None:
        return ' '.join([*words, *'--------'])
    load, virtual = _short(report.load), _short(state.virtual)
    memory, swap = report.free_memory // _MIB, report.free_swap // _MIB
    return ' '.join(
        map(str, [*words, load, virtual, report.cores, memory, swap, report.users, report.tasks, _short(state.age)])
    )


def _short(number: float | None) -> str:
    return '-' if number is None else f'{number:.2f}'


def best_host(cluster: Cluster, *, peek: bool) -> str:
    """The name of the best host, in a line; nothing where none will do."""
    [(name, _)] = cluster.choose(Wanted(), peek=peek)
    return f'{name}\n'


def offer(server: Server, address: str, port: int, text: Callable[[], str]) -> int:
    """Give `text()` to whoever connects to a port of this address; 0: one that is free. The port.

    Raises:
        UsageError: there is no such address, or the port is taken.
    """
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(where)
            listening.listen(BACKLOG)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        what = f'nothing can be offered at port {port} of {address}: {error.strerror}'
        raise UsageError(what, remedy='another port, or another --listen') from error
    server.listen(listening, lambda connection: _give(server, connection, text))
    return int(listening.getsockname()[1])


def _give(server: Server, connection: socket.socket, text: Callable[[], str]) -> None:
    # What they say is read, so that the kernel does not break the connection (RST) before they have read all.
    stream = Stream(server.loop, connection, lambda data: None, lambda: None)
    try:
        stream.put(text().encode('utf-8', 'surrogateescape'))
    except RemoteRunnerError as error:
        log.warning('who asked by a port got no answer: %s', error)
    stream.finish()
    server.loop.later(PATIENCE, stream.close)
