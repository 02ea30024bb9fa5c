"""Looking at a session again and again, where no host waits for another.

A host that is silent, or that is being connected to again, keeps nobody waiting: its own components become unknown, and
those of all others are as fresh as ever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import NoReturn

from remote_runner.deploy.seen import Seen
from remote_runner.deploy.session import Session
from remote_runner.errors import HostError, HostSilent, RemoteRunnerError
from remote_runner.hosts.address import Address
from remote_runner.hosts.call import FRAME_TIMEOUT, INTERRUPTIBLE, Call
from remote_runner.hosts.host import Host

#: Seconds that a look waits for hosts that have always answered at once.
GLANCE = 1.0
#: Seconds without an answer after which nobody can say any more how the components of a host are.
PATIENCE = 3.0


class Vigil:
    """Looks at the hosts of a session, each by itself. For one thread.

    Args:
        session: connected, and looked at. `components` and `failures` are as of the last look.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        #: What has come, to be dealt with in our own thread.
        self._news: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._asked: dict[str, tuple[Call, float]] = {}  # what hosts have not answered yet, and since when
        self._connecting: set[str] = set()
        self._seen: dict[str, list[Seen]] = {}
        for seen in session.components:
            if seen.at:
                self._seen.setdefault(seen.at, []).append(seen)

    def look(self, interval: float) -> None:
        """Look again in so many seconds; hosts that are lost are connected to again."""
        self._hear(time.monotonic() + interval)
        late = set(self._asked)
        self._find_lost()
        self._ask_all()
        patience = GLANCE if interval < PATIENCE else PATIENCE
        self._hear(time.monotonic() + patience, lambda: self._asked.keys() <= late)
        for name, (_, since) in self._asked.items():
            silence = time.monotonic() - since
            if silence >= PATIENCE:
                self._session.failures[name] = HostSilent(f'it has not answered for {silence:.0f} s', host=name)
        self._session.arrange(self._seen)

    def _hear(self, deadline: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Deal with what comes, until that is enough."""
        while not enough():
            left = deadline - time.monotonic()
            try:
                deal = self._news.get(timeout=min(left, INTERRUPTIBLE)) if left > 0 else self._news.get_nowait()
            except Empty:
                if left <= 0:
                    return
            else:
                deal()

    # ---- hosts that are connected -----------------------------------------------------------------------------

    def _ask_all(self) -> None:
        """Ask those who owe no answer, and connect to those who are not there."""
        pool = self._session.pool
        for address in self._session.target.addresses:
            name = address.where
            if name in self._connecting or name in self._asked:
                continue
            host = pool.hosts.get(name)
            if host is not None:
                self._ask(host)
            elif not self._session.is_other_name(name) and len(self._connecting) < pool.fanout:
                self._connect(address)

    def _ask(self, host: Host) -> None:
        begun = time.monotonic()
        answered = partial(self._news.put, partial(self._answered, host))
        try:
            call = host.call('survey', on_end=answered, timeout=FRAME_TIMEOUT, **self._session.question())
        except HostError as error:
            self._lose(host.name, error)
        else:
            self._asked[host.name] = call, begun

    def _answered(self, host: Host) -> None:
        if self._session.pool.hosts.get(host.name) is not host or host.name not in self._asked:
            return  # it was lost
        call, _ = self._asked.pop(host.name)
        try:
            answer = call.result()
        except HostError as error:
            self._lose(host.name, error)
        except RemoteRunnerError as error:
            self._session.failures[host.name] = error
        else:
            self._session.failures.pop(host.name, None)
            self._seen[host.name] = self._session.hear(host, answer)

    # ---- hosts that are not -----------------------------------------------------------------------------------

    def _find_lost(self) -> None:
        for name, error in list(self._session.board.lost.items()):
            if name in self._session.pool.hosts and name not in self._connecting:
                self._lose(name, error)

    def _lose(self, name: str, error: RemoteRunnerError) -> None:
        """The connection to a host is of no use any more."""
        self._asked.pop(name, None)
        self._session.lose(name, error)

    def _connect(self, address: Address) -> None:
        self._connecting.add(address.where)
        threading.Thread(target=self._reach, args=(address,), name=f'reach {address.where}', daemon=True).start()

    def _reach(self, address: Address) -> None:
        begun = time.monotonic()
        try:
            for _, outcome in self._session.pool.connect([address]):
                self._news.put(partial(self._reached, address, outcome, begun))
        except BaseException as fault:
            self._news.put(partial(_raise, fault))

    def _reached(self, address: Address, outcome: Host | RemoteRunnerError, begun: float) -> None:
        name = address.where
        self._connecting.discard(name)
        machines = {machine: other for machine, other in self._session.machines().items() if other != name}
        self._session.meet(address, outcome, machines, begun)
        host = self._session.pool.hosts.get(name)
        if host is not None:
            self._session.board.lost.pop(name, None)  # this tells of the connection before
            self._ask(host)
        elif self._session.is_other_name(name):
            self._session.failures.pop(name, None)


def _raise(fault: BaseException) -> NoReturn:
    """In the thread that looks."""
    raise fault
