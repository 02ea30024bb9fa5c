"""After the start: waiting for components, through broken connections, and ending components."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from remote_runner.deploy.board import OVER, Board, State, Tracked
from remote_runner.deploy.start import by_host
from remote_runner.errors import HostError, RemoteRunnerError
from remote_runner.hosts.pool import Pool

log = logging.getLogger(__name__)

#: Seconds before the first and between later attempts to reach a lost host again; the delay doubles up to the second.
FIRST_DELAY, LAST_DELAY = 0.5, 30.0
#: Seconds beyond its stop_timeout that a component gets until its end must have been reported.
STOP_SLACK = 10.0


def wait_for_components(board: Board, waited: list[Tracked], reconnect: Callable[[str], None]) -> None:
    """Return when all of `waited` have ended. Lost hosts are connected to again, for as long as it takes."""
    hosts = set(by_host(waited))
    reconnecting: set[str] = set()

    def settled() -> bool:
        return all(tracked.state in OVER for tracked in waited)

    while not board.wait(lambda: settled() or bool(hosts & set(board.lost) - reconnecting)) or not settled():
        for name in hosts & set(board.lost) - reconnecting:
            reconnecting.add(name)
            thread = threading.Thread(target=_reconnect, args=(board, name, reconnect, reconnecting), daemon=True)
            thread.start()


def _reconnect(board: Board, name: str, reconnect: Callable[[str], None], reconnecting: set[str]) -> None:
    """Try until it is back, with growing delays: a host in trouble is never hammered."""
    delay = FIRST_DELAY
    never = threading.Event()
    while True:
        never.wait(delay * random.uniform(0.75, 1.25))
        try:
            reconnect(name)
        except HostError as error:
            delay = min(delay * 2, LAST_DELAY)
            log.warning('%s; the next attempt is in about %.0f s', error, delay)
        else:
            reconnecting.discard(name)
            board.touch()
            return


def stop_components(board: Board, pool: Pool, session: str, components: list[Tracked]) -> None:
    """End the trees of these components, TERM then KILL, and return when nothing of them is left.

    What cannot be proven to have ended becomes unknown on the board.
    """
    wanted = [tracked for tracked in components if not tracked.gone and tracked.state is not State.PLANNED]
    board.ending(wanted)
    patience = 0.0
    for name, own in by_host(wanted).items():
        patience = max(patience, *(tracked.plan.stop_timeout for tracked in own))
        try:
            for timeout in {tracked.plan.stop_timeout for tracked in own}:
                keys = [tracked.key for tracked in own if tracked.plan.stop_timeout == timeout]
                pool.hosts[name].request('stop', timeout=STOP_SLACK, session=session, keys=keys, stop_timeout=timeout)
        except RemoteRunnerError as error:
            board.lose_sight(own, f'it could not be told to stop: {error}')
    deadline = time.monotonic() + patience + STOP_SLACK
    board.wait(lambda: all(tracked.gone or tracked.host in board.lost for tracked in wanted), deadline)
    board.lose_sight([tracked for tracked in wanted if not tracked.gone], 'it did not say that it has ended')
