"""After the start: waiting for components, through broken connections, and ending components."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from remote_runner.deploy.board import OVER, Board, State, Tracked
from remote_runner.deploy.holder import whoami
from remote_runner.deploy.start import by_host
from remote_runner.errors import HostError
from remote_runner.hosts.call import FRAME_TIMEOUT
from remote_runner.hosts.pool import Pool

log = logging.getLogger(__name__)

#: Seconds before the first and between later attempts to reach a lost host again; the delay doubles up to the second.
FIRST_DELAY, LAST_DELAY = 0.5, 30.0
#: Seconds beyond its stop_timeout that a component gets until its end must have been reported.
STOP_SLACK = 10.0


def wait_for_components(
    board: Board,
    waited: list[Tracked],
    reconnect: Callable[[str], None],
    enough: Callable[[], bool] = lambda: False,
    *,
    beside: Iterable[Tracked] = (),
    settled: Callable[[Tracked], bool] = lambda tracked: tracked.state in OVER,
    deadline: float | None = None,
) -> bool:
    """Wait until all of `waited` have ended; False at `deadline` (time.monotonic).

    Lost hosts are connected to again, for as long as it takes.

    Args:
        enough: ends the waiting earlier.
        beside: not waited for, but their hosts, too, are connected to again.
        settled: what is waited for, where that is not the end.
    """
    hosts = set(by_host([*waited, *beside]))
    reconnecting: set[str] = set()
    over = threading.Event()

    def is_over() -> bool:
        return all(map(settled, waited)) or enough()

    def lost() -> set[str]:
        return hosts & set(board.lost) - reconnecting

    def come_back(name: str) -> None:
        try:
            reconnect_until(name, reconnect, over)
        finally:
            reconnecting.discard(name)
            board.touch()

    try:
        while not is_over():
            if not board.wait(lambda: is_over() or bool(lost()), deadline):
                return False
            for name in lost():
                reconnecting.add(name)
                threading.Thread(target=come_back, args=(name,), daemon=True).start()
        return True
    finally:
        over.set()


@contextmanager
def watching(board: Board, reconnect: Callable[[str], None], alarm: Callable[[], None]) -> Iterator[None]:
    """Meanwhile hosts that are lost are connected to again, and `alarm` is called if a critical component has failed.

    Args:
        board: where all components stand.
        reconnect: connects to a host again.
        alarm: called once at most, by another thread.
    """
    over = threading.Event()

    def watch() -> None:
        wait_for_components(board, board.all(), reconnect, lambda: over.is_set() or bool(board.failed_critical()))
        if not over.is_set() and board.failed_critical():
            alarm()

    thread = threading.Thread(target=watch, name='watch', daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        board.touch()
        thread.join()


def reconnect_until(name: str, reconnect: Callable[[str], None], over: threading.Event) -> None:
    """Try until it is back or nobody waits any more, with growing delays: a host in trouble is never hammered."""
    delay = FIRST_DELAY
    while not over.wait(delay * random.uniform(0.75, 1.25)):
        try:
            reconnect(name)
            return
        except HostError as error:
            delay = min(delay * 2, LAST_DELAY)
            log.warning('%s; the next attempt is in about %.0f s', error, delay)


def stop_components(board: Board, pool: Pool, components: list[Tracked]) -> None:
    """End the trees of these components, TERM then KILL, and return when nothing of them is left.

    What cannot be proven to have ended becomes unknown on the board.
    """
    wanted = [tracked for tracked in components if not tracked.gone and tracked.state is not State.PLANNED]
    board.ending(wanted)
    patience = max((tracked.plan.stop_timeout for tracked in wanted), default=0.0)
    me = whoami()
    for name, own in by_host(wanted).items():
        try:
            for timeout in {tracked.plan.stop_timeout for tracked in own}:
                keys = [tracked.key for tracked in own if tracked.plan.stop_timeout == timeout]
                pool.hosts[name].call('stop', timeout=FRAME_TIMEOUT, keys=keys, stop_timeout=timeout, by=me)
        except HostError as error:
            board.lose_sight(own, f'it could not be told to stop: {error.what}')
    deadline = time.monotonic() + patience + STOP_SLACK
    board.wait(lambda: all(tracked.gone or tracked.host in board.lost for tracked in wanted), deadline)
    board.lose_sight([tracked for tracked in wanted if not tracked.gone], 'it did not say that it has ended')
