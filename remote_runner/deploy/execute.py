"""One command on many hosts, over the same connections and agents as everything else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from remote_runner.defaults import FANOUT
from remote_runner.errors import RemoteRunnerError
from remote_runner.hosts.address import Address
from remote_runner.hosts.pool import Opens, connect, distinct, each

log = logging.getLogger(__name__)


class Executed(NamedTuple):
    """What a command did on one host.

    Args:
        host: as the user wrote it.
        status: its exit status, or 128 + n for signal n.
        stdout, stderr: all that it printed.
        seconds: from the beginning of connecting to its end.
    """

    host: str
    status: int
    stdout: bytes
    stderr: bytes
    seconds: float


#: Hears output as it comes: host, `out` or `err`, bytes. Called from many threads.
Hear = Callable[[str, str, bytes], None]


def execute(
    addresses: Iterable[Address],
    command: str,
    connector: Opens,
    *,
    fanout: int = FANOUT,
    hear: Hear | None = None,
) -> Iterator[tuple[Address, Executed | RemoteRunnerError]]:
    """Run `command` in the login shell of the user on each host; yield each with its outcome as it comes.

    Two names of one machine and user are one host: it runs the command once, under the name that was written first
    (or, where only the machines themselves can tell, under the one that is connected first).

    With `hear` output is handed on as it comes, and the outcomes hold none. A host is left as soon as its command has
    ended. stdin is empty.
    """

    machines: set[str] = set()
    lock = threading.Lock()

    def work(address: Address) -> Executed | None:
        begun = time.monotonic()
        name = address.where
        with connect(address, connector) as host:
            with lock:
                if host.facts.identity in machines:
                    log.info('%s is another name of a machine that has run it', name)
                    return None
                machines.add(host.facts.identity)
            call = host.call('exec', command=command)
            streams: dict[str, list[bytes]] = {'out': [], 'err': []}
            for stream, data in call.parts():
                if hear is not None:
                    hear(name, stream, data)
                else:
                    streams[stream].append(data)
            status = int(call.result()['status'])
        return Executed(name, status, b''.join(streams['out']), b''.join(streams['err']), time.monotonic() - begun)

    hosts = distinct(addresses, connector, fanout)
    for address, others in hosts.items():
        for other in others:
            log.info('%s is another name of %s', other.where, address.where)
    for address, outcome in each(hosts, work, fanout):
        if outcome is not None:
            yield address, outcome
