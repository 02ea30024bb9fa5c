"""Hosts far away: proxies on this machine that hand on what they are given some time after it came.

Only the time is that of a long way. How fast the data flow is not limited, and TCP does not begin slowly, as it would.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.testbed.bed import Testbed

Address = tuple[str, int]

_CHUNK = 1 << 16
# Pieces on their way in one direction: 2.5 GB/s at 25 ms if they are full. With more, the sender has to wait.
_MOST = 1024

_SSH_CONFIG = """\
Host {host}
    HostName {address}
    Port {port}
    UserKnownHostsFile {known_hosts}
"""


class Delay:
    """Ports of this machine, one for each target, over which a round trip takes `round_trip` seconds more.

    A connection takes a round trip until the first byte can be sent, as with TCP. To a target that refuses it, it
    is closed. In a `with` block; the ports are in `addresses` from the beginning, what is connected ends with it.
    """

    def __init__(self, targets: Sequence[Address], round_trip: float) -> None:
        self._way = round_trip / 2
        self._targets = targets
        self._listeners = [socket.create_server(("127.0.0.1", 0), backlog=128) for _ in targets]
        self._loop = asyncio.new_event_loop()
        self._serving = self._loop.create_task(self._serve())
        self._thread = threading.Thread(target=self._run, name="delay")

    @property
    def addresses(self) -> list[Address]:
        """Where to connect to, in the order of the targets."""
        return [listener.getsockname() for listener in self._listeners]

    def __enter__(self) -> Delay:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._serving.cancel)
        self._thread.join()
        self._loop.close()
        if not self._serving.cancelled():
            self._serving.result()  # raises what ended it

    def _run(self) -> None:
        self._loop.run_until_complete(asyncio.wait([self._serving]))

    async def _serve(self) -> None:
        with ExitStack() as listeners:  # closed whatever ends this: nobody is to wait in vain
            async with asyncio.TaskGroup() as group:
                for listener, target in zip(self._listeners, self._targets, strict=True):
                    listeners.enter_context(listener)
                    group.create_task(self._accept(group, listener, target))

    async def _accept(self, group: asyncio.TaskGroup, listener: socket.socket, target: Address) -> None:
        listener.setblocking(False)
        while True:
            client, _ = await asyncio.get_running_loop().sock_accept(listener)
            group.create_task(self._connect(client, target))

    async def _connect(self, client: socket.socket, target: Address) -> None:
        loop = asyncio.get_running_loop()
        with client, socket.socket() as server:
            for end in (client, server):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.sleep(2 * self._way)  # SYN, and SYN+ACK: before that the client could not have sent anything
            there, back = _Way(self._way), _Way(self._way)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(there.enter(client))
                    await asyncio.sleep(self._way)  # ACK: only now the target knows of the connection
                    await loop.sock_connect(server, target)
                    group.create_task(there.leave(server))
                    group.create_task(back.enter(server))
                    group.create_task(back.leave(client))
            except* OSError:
                pass  # a connection that breaks on one side breaks on the other, for both are closed now


class _Way:
    """One direction of a connection: pieces, each with the time at which it arrives; an empty one is the end."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST)

    async def enter(self, source: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        data = b"first"
        while data:
            data = await loop.sock_recv(source, _CHUNK)
            await self._pieces.put((loop.time() + self._seconds, data))

    async def leave(self, target: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            arrival, data = await self._pieces.get()
            if (wait := arrival - loop.time()) > 0:
                await asyncio.sleep(wait)
            if not data:
                target.shutdown(socket.SHUT_WR)
                return
            await loop.sock_sendall(target, data)


@contextmanager
def far_away(bed: Testbed, round_trip: float) -> Iterator[Path]:
    """An ssh_config by which the hosts of the bed are away by `round_trip` seconds, there and back, while it lasts."""
    with Delay([(host.address, host.port) for host in bed.hosts], round_trip) as delay:
        known, config = bed.directory / "known_hosts.far", bed.directory / "ssh_config.far"
        keys = dict(line.split(" ", 1) for line in bed.known_hosts.read_text().splitlines())
        places = dict(zip(bed.hosts, delay.addresses, strict=True))
        known.write_text(
            "".join(
                f"[{address}]:{port} {keys[f'{host.name},{host.address}']}\n"
                for host, (address, port) in places.items()
            )
        )
        config.write_text(
            "".join(
                _SSH_CONFIG.format(host=host.name, address=address, port=port, known_hosts=known)
                for host, (address, port) in places.items()
            )
            + bed.ssh_config.read_text()
        )
        yield config
