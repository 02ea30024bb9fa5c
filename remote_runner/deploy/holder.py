"""Who changes a session: one at a time, on every host of it."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import time
from collections.abc import Callable, Iterable

from remote_runner.errors import HostError, RequestFailed, SessionFailed, SessionHeld
from remote_runner.hosts.host import Host

#: What can be held: a run holds both, and `CHANGE` no longer than it changes something.
RUN, CHANGE = 'run', 'change'
#: Seconds that a host has to say whether a session is free.
LOCK_TIMEOUT = 30.0
#: Seconds that a run waits for somebody else who is just changing its session.
PATIENCE = 20.0

#: Does something on all hosts of a run, see `deploy/run.py`.
Each = Callable[[Callable[[Host], None]], None]


def whoami() -> str:
    """Who we are, for others to read: user, machine, process, and since when."""
    return f'{user()} on {socket.gethostname()} (pid {os.getpid()}) since {time.strftime("%Y-%m-%d %H:%M:%S")}'


def user() -> str:
    """The name of this user; a number where there is none (in many containers)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f'user {os.getuid()}'


def is_held(host: Host, session: str) -> bool:
    """Whether somebody else changes `session` on a host. To find out it is held for a moment, which disturbs nobody."""
    try:
        lock(host, session, whoami(), [CHANGE])
    except SessionHeld:
        return True
    except SessionFailed:
        return False  # where it cannot be held, on a full disk say, nobody starts anything
    host.request('unlock', timeout=LOCK_TIMEOUT, session=session, kinds=[CHANGE])
    return False


def lock(host: Host, session: str, holder: str, kinds: Iterable[str] = (RUN, CHANGE), patience: float = 0.0) -> bool:
    """Hold `session` on a host, for as long as the connection stands; whether it runs there.

    Args:
        holder: who we are, see `whoami`.
        kinds: `RUN` keeps other runs away, `CHANGE` all that change something.
        patience: seconds to wait for somebody else.

    Raises:
        SessionHeld: somebody else does; the message says who.
        SessionFailed: the host cannot say.
    """
    asked = {'session': session, 'holder': holder, 'kinds': list(kinds), 'patience': patience}
    try:
        return bool(host.request('lock', timeout=LOCK_TIMEOUT + patience, **asked)['is_running'])
    except RequestFailed as error:
        if error.kind != 'held':
            raise SessionFailed(error.what, host=host.name) from error
        remedy = 'wait for it, end it, or take another session with --screen'
        raise SessionHeld(error.what, host=host.name, remedy=remedy) from error


class Hold:
    """What a run holds of its session, on all its hosts: both kinds, but while it only waits.

    Args:
        session: its name.
        holder: who we are, see `whoami`.

    Attributes:
        running: the hosts on which the session ran when this run came.
    """

    def __init__(self, session: str, holder: str) -> None:
        self._session = session
        self._holder = holder
        self._kinds: tuple[str, ...] = (RUN, CHANGE)
        self.running: set[str] = set()

    def take(self, host: Host) -> None:
        """Be the only one at work on the session of this host; raises what `lock` does."""
        if lock(host, self._session, self._holder, self._kinds):
            self.running.add(host.name)

    def renew(self, host: Host) -> None:
        """Hold what was held before the connection broke; raises what `lock` does."""
        lock(host, self._session, self._holder, self._kinds)

    def let_others_change(self, each: Each) -> None:
        """While the run only waits, others may change the session."""
        self._kinds = (RUN,)
        each(self._let_change)

    def keep_others_out(self, each: Each) -> None:
        """The run is about to change something again."""
        if CHANGE not in self._kinds:
            self._kinds = (RUN, CHANGE)
            each(self._keep_out)

    def _let_change(self, host: Host) -> None:
        with contextlib.suppress(HostError):  # the lock of a connection that is gone is gone, too
            host.request('unlock', timeout=LOCK_TIMEOUT, session=self._session, kinds=[CHANGE])

    def _keep_out(self, host: Host) -> None:
        with contextlib.suppress(HostError):  # what is done to a host out of reach says so itself
            lock(host, self._session, self._holder, [CHANGE], PATIENCE)
