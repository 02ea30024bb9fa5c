"""The board: what is known of every component of a run, kept up to date by what the agents say.

Reader threads write to it, the thread that carries out the run waits on it. Every change is told as an event.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from remote_runner.agent.tree import describe_status
from remote_runner.deploy.component_plan import ComponentPlan
from remote_runner.errors import RemoteRunnerError
from remote_runner.events import (
    ComponentAborted,
    ComponentExited,
    ComponentFailed,
    ComponentKept,
    ComponentReady,
    ComponentRestarting,
    ComponentSaid,
    ComponentStarted,
    ComponentStarting,
    ComponentStopped,
    ComponentTroubled,
    ComponentUnknown,
    Event,
    Events,
    HostLost,
)
from remote_runner.hosts.call import INTERRUPTIBLE, Header
from remote_runner.hosts.host import Host


class State(Enum):
    """Where a component stands. The text is what users read."""

    PLANNED = 'not started'
    STARTING = 'starting'
    CALLED_BACK = 'called back'
    GOING = 'going'
    STARTED = 'started'
    RESTARTING = 'restarting'
    EXITED = 'exited'
    FAILED = 'failed'
    ABORTED = 'aborted'
    STOPPED = 'stopped'
    UNKNOWN = 'unknown'


#: Its window is being opened, or its launcher waits for go: nothing of the user's runs yet.
PENDING = frozenset([State.STARTING, State.CALLED_BACK])
#: Its program runs, or will again by itself.
RUNNING = frozenset([State.STARTED, State.RESTARTING])
#: Nothing can be expected of it any more.
OVER = frozenset([State.EXITED, State.FAILED, State.ABORTED, State.STOPPED, State.UNKNOWN])


@dataclass
class Tracked:
    """One component of the run, and what is known of it.

    Args:
        waiting: why it is not ready yet, as far as that can be found out.
        said: what it says of itself (STATUS of sd_notify(3)).
        extends_to: until when (time.monotonic) it asked to be given time to become ready.
        restarts: how often its launcher has started it again.
        kept: it runs since an earlier run.
        last_word: what its host wrote of it last, once its launcher has ended.
    """

    plan: ComponentPlan
    host: str
    state: State = State.PLANNED
    pid: int = 0
    window: int = -1
    status: int | None = None
    reason: str = ''
    output: str = ''
    asked_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    is_ready: bool = False
    waiting: str = ''
    said: str = ''
    extends_to: float = 0.0
    restarts: int = 0
    kept: bool = False
    gone: bool = False
    launcher: bool = field(default=False, repr=False)
    last_word: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """What the agents call it."""
        return self.plan.label

    @property
    def has_failed(self) -> bool:
        """Whether it has failed for good, or ended without success."""
        return self.state is State.FAILED or (self.state is State.EXITED and bool(self.status))


class Board:
    """All components of a run. Thread-safe. What programs said stands there without the secrets of the run."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._changed = threading.Condition(threading.RLock())
        self._components: dict[str, Tracked] = {}
        self._ending: set[str] = set()
        #: Why each host is out of reach whose connection broke; the one who reconnects removes it.
        self.lost: dict[str, RemoteRunnerError] = {}
        #: The screen server of each host that ended last: its pid, and what it printed.
        self.dead_sessions: dict[str, tuple[int, str]] = {}

    def add(self, plan: ComponentPlan, host: str) -> None:
        """Put a component on the board; `host` is the name under which its host is connected."""
        self._components[plan.label] = Tracked(plan, host)

    def forget(self, keys: Iterable[str]) -> None:
        """Take components off the board."""
        with self._changed:
            for key in keys:
                self._components.pop(key, None)
            self._ending.difference_update(keys)

    def all(self) -> list[Tracked]:
        """All components, in the order of the plan."""
        return list(self._components.values())

    def in_order(self) -> list[list[Tracked]]:
        """All components, those that start together in one list, in the order in which they start."""
        found: dict[tuple[int, int], list[Tracked]] = defaultdict(list)
        for tracked in self.all():
            found[tracked.plan.start_index, tracked.plan.wave].append(tracked)
        return [found[key] for key in sorted(found)]

    def of(self, *states: State, among: Iterable[Tracked] | None = None) -> list[Tracked]:
        """Those in one of these states."""
        with self._changed:
            return [tracked for tracked in (self.all() if among is None else among) if tracked.state in states]

    def failed_critical(self) -> list[Tracked]:
        """The critical components that have failed, and those that their hosts have lost."""
        with self._changed:
            critical = [tracked for tracked in self.all() if tracked.plan.critical]
            return [
                tracked
                for tracked in critical
                if tracked.has_failed or (tracked.state is State.UNKNOWN and tracked.host not in self.lost)
            ]

    def wait(self, ready: Callable[[], bool], deadline: float | None = None) -> bool:
        """Wait until `ready()`, which is asked after every change; False at `deadline` (time.monotonic)."""
        with self._changed:
            while not ready():
                left = math.inf if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, INTERRUPTIBLE))
            return True

    def touch(self) -> None:
        """Something changed that is not on the board: whoever waits asks again."""
        with self._changed:
            self._changed.notify_all()

    # ---- what we do -------------------------------------------------------------------------------------------

    def starting(self, components: Iterable[Tracked]) -> None:
        """It is their turn: their windows are asked for now, or were opened ahead."""
        with self._changed:
            for tracked in components:
                tracked.state = State.CALLED_BACK if tracked.launcher else State.STARTING
                tracked.asked_at = time.monotonic()
                self._tell(tracked, ComponentStarting, index=tracked.plan.start_index)
                if tracked.gone:
                    self._end(tracked, State.ABORTED, tracked.reason)

    def keep(self, tracked: Tracked, status: dict[str, Any]) -> None:
        """It runs since an earlier run, and goes on: see operation `survey` for `status`."""
        with self._changed:
            tracked.state, tracked.is_ready, tracked.kept, tracked.launcher = State.STARTED, True, True, True
            tracked.pid, tracked.window = status['pid'], status['window']
            tracked.restarts = status.get('restarts', 0)
            tracked.asked_at = tracked.started_at = time.monotonic() - tracked.plan.start_grace
            fields = {'pid': tracked.pid, 'window': tracked.window, 'ready': tracked.plan.ready is not None}
            self._tell(tracked, ComponentKept, **fields)

    def never_begun(self, components: Iterable[Tracked]) -> None:
        """Windows that were opened ahead for them are closed again: they are as before."""
        with self._changed:
            for tracked in components:
                tracked.launcher = tracked.gone = False
                tracked.window, tracked.reason, tracked.last_word = -1, '', None

    def going(self, components: Iterable[Tracked]) -> None:
        """They are told go now: from here on their programs may run."""
        with self._changed:
            for tracked in components:
                tracked.state = State.GOING

    def ending(self, components: Iterable[Tracked]) -> None:
        """They are being stopped by us: their end is no failure."""
        with self._changed:
            self._ending.update(tracked.key for tracked in components)

    def fail(self, components: Iterable[Tracked], reason: str, output: str = '') -> None:
        """They have failed."""
        with self._changed:
            for tracked in components:
                self._end(tracked, State.FAILED, reason, output)

    def give_up(self, tracked: Tracked, reason: str) -> bool:
        """Its time is up: it has failed. Once told go, nobody knows what it did. False: it has started meanwhile."""
        with self._changed:
            if tracked.state is State.STARTED and not tracked.is_ready:
                self._end(tracked, State.FAILED, reason)
            elif tracked.state is State.GOING:
                self._end(tracked, State.UNKNOWN, f'it was told to start, and then to end again: {reason}')
            elif tracked.state in PENDING:
                self._end(tracked, State.FAILED, reason)
            else:
                return False
            return True

    def abort(self, components: Iterable[Tracked], reason: str) -> None:
        """Their start is given up before their programs ran; those that have started just now stay."""
        with self._changed:
            for tracked in components:
                if tracked.state is not State.STARTED or not tracked.is_ready:
                    self._end(tracked, State.ABORTED, reason)

    def lose_sight(self, components: Iterable[Tracked], reason: str) -> None:
        """Nobody can say whether they run."""
        with self._changed:
            for tracked in components:
                self._end(tracked, State.UNKNOWN, reason)

    def sight_again(self, components: Iterable[Tracked]) -> list[Tracked]:
        """Their host is being asked again: what was unknown may become known. Those that were."""
        with self._changed:
            unknown = [tracked for tracked in components if tracked.state is State.UNKNOWN]
            for tracked in unknown:
                tracked.state = State.STARTED if tracked.started_at else State.GOING
            return unknown

    def found(self, host: str, loss: Exception | None) -> None:
        """A host is connected again after `loss`; a later loss stands."""
        with self._changed:
            if self.lost.get(host) is loss:
                self.lost.pop(host, None)
            self._changed.notify_all()

    def restore(self, tracked: Tracked, status: dict[str, Any] | None) -> None:
        """What a host says of a component when it is watched from now on, or again: see operation `survey`.

        `alive` stands in it beside what its launcher says. That may have ended before the host's answer came.
        """
        with self._changed:
            if tracked.last_word is not None and status is not None and status.get('alive'):
                status = {**tracked.last_word, 'alive': False}
            if status is None or 'state' not in status:
                if tracked.state in PENDING or tracked.state is State.GOING:
                    self._end(tracked, State.ABORTED, 'its connection was lost before it was started')
                elif tracked.state is State.STARTED:
                    self._end(tracked, State.UNKNOWN, 'the host does not know it any more')
            elif status['state'] == 'failed':
                self._end(tracked, State.FAILED, str(status.get('reason') or 'it could not be started'))
            elif status['state'] == 'aborted':
                self._end(tracked, State.ABORTED, str(status['reason']))
            else:
                self._restore_running(tracked, status)
            self._changed.notify_all()

    def _restore_running(self, tracked: Tracked, status: dict[str, Any]) -> None:
        """It has been started; what has become of it since?"""
        state = status['state']
        if tracked.state not in OVER | RUNNING and 'pid' in status:
            # In a pause the restart that comes is counted already.
            self._start(tracked, status['pid'], status.get('restarts', 0) - (state == 'restarting'))
        if 'ready' in status:
            self._become_ready(tracked)
        if state == 'restarting' and status.get('alive'):
            pause, reason = status.get('next', status['ended']) - status['ended'], str(status.get('reason', ''))
            self._restart(tracked, status['exit_status'], pause, status['restarts'], reason)
        if state in ('exited', 'stopping', 'stopped', 'killed') and 'exit_status' in status:
            self._exit(tracked, status['exit_status'], str(status.get('output', '')), str(status.get('reason', '')))
        if not status.get('alive'):
            tracked.gone = True
            if tracked.state in RUNNING and state == 'killed':
                self._end(tracked, State.FAILED, 'its launcher was killed, and the program was ended')
            elif tracked.state in RUNNING:
                self._end(tracked, State.UNKNOWN, 'its launcher is gone; was the host restarted, or was it killed?')

    # ---- what agents say --------------------------------------------------------------------------------------

    def hear(self, host: Host, header: Header) -> None:
        """The listener of all hosts: one event of an agent."""
        with self._changed:
            if header['event'] == 'lost':
                self.lost[host.name] = header['error']
                self._events.emit(HostLost(host=host.name, error=header['error'].what))
            elif header['event'] == 'session-ended':
                self.dead_sessions[host.name] = (header['server'], header['output'])
            elif header['event'] == 'launcher' and header['key'] in self._components:
                self._launcher_says(self._components[header['key']], header)
            self._changed.notify_all()

    def _launcher_says(self, tracked: Tracked, header: Header) -> None:
        kind, *rest = header['message']
        if kind == 'hello':
            tracked.window = rest[1]
            tracked.launcher = True
            if tracked.state is State.STARTING:
                tracked.state = State.CALLED_BACK
        elif kind == 'started':
            self._start(tracked, rest[0], rest[2])
        elif kind == 'failed':
            self._end(tracked, State.FAILED, header['reason'])
        elif kind == 'ready':
            self._become_ready(tracked)
        elif kind == 'waiting':
            tracked.waiting = self._events.masked(rest[0])
        elif kind == 'said':
            tracked.said = tracked.waiting = self._events.masked(rest[0])
            self._tell(tracked, ComponentSaid, text=rest[0])
        elif kind == 'extend':
            self._extend(tracked, rest[0])
        elif kind == 'refused':
            number, text, _ = rest
            self._end(tracked, State.FAILED, f'it refused to start: {text or os.strerror(number)}')
        elif kind == 'restarting':
            status, pause, restarts, reason, _ = rest
            self._restart(tracked, status, pause, restarts, reason)
        elif kind == 'log':
            what = f'its output cannot be written on the host any more: {os.strerror(rest[0])}'
            self._tell(tracked, ComponentTroubled, reason=what)
        elif kind == 'hung':
            self._tell(tracked, ComponentTroubled, reason=f'{rest[0]}; it is being ended')
        elif kind == 'exited':
            self._exit(tracked, rest[0], header.get('output', ''), rest[2])
        elif kind == 'gone':
            tracked.gone = not rest[0]
            if rest[0]:
                pids = ', '.join(str(pid) for pid in rest[0])
                self._end(tracked, State.UNKNOWN, f'processes that could not be ended are left: {pids}')
        elif kind == 'closed':
            tracked.launcher = False
            tracked.last_word = status = header.get('status') or {}
            tracked.gone = True
            why = str(status.get('reason') or 'its launcher ended')
            if tracked.state is State.PLANNED:
                tracked.reason = self._events.masked(why)  # for when its turn comes
            elif tracked.state in PENDING or tracked.state is State.GOING:
                self._end(tracked, State.ABORTED, why)
            elif tracked.state in RUNNING and status.get('state') == 'killed':
                self._end(tracked, State.FAILED, 'its launcher was killed, and the program was ended')
            elif tracked.state in RUNNING and 'exit_status' in status:  # it ended just as the agent came
                self._exit(tracked, status['exit_status'], str(status['output']), str(status.get('reason', '')))
            elif tracked.state in RUNNING:
                self._end(tracked, State.UNKNOWN, 'its launcher was killed, and nobody saw the program end')

    def _start(self, tracked: Tracked, pid: int, restarts: int = 0) -> None:
        # To an agent that comes later a launcher tells all of its present life again.
        is_known = restarts < tracked.restarts or (tracked.state is State.STARTED and restarts == tracked.restarts)
        if tracked.state in OVER or is_known:
            return
        now = time.monotonic()
        if tracked.state is State.STARTED:  # the end of the life before was missed
            tracked.asked_at = now
        tracked.state = State.STARTED
        tracked.pid = pid
        tracked.restarts = restarts
        tracked.started_at = now
        seconds = max(0.0, tracked.started_at - tracked.asked_at)
        tracked.is_ready = tracked.plan.ready is None
        window, is_ready = tracked.window, tracked.is_ready
        fields = {'pid': pid, 'window': window, 'seconds': seconds, 'ready': is_ready, 'restarts': restarts}
        self._tell(tracked, ComponentStarted, **fields)

    def _restart(self, tracked: Tracked, status: int, pause: float, restarts: int, reason: str) -> None:
        """Its program has ended, and its launcher starts it again."""
        if tracked.state in RUNNING and restarts > tracked.restarts:
            tracked.state, tracked.restarts, tracked.is_ready = State.RESTARTING, restarts, False
            tracked.asked_at = time.monotonic() + pause
            fields = {'status': status, 'pause': pause, 'restarts': restarts, 'reason': reason}
            self._tell(tracked, ComponentRestarting, **fields)

    def _become_ready(self, tracked: Tracked) -> None:
        if tracked.state is State.STARTED and not tracked.is_ready:
            tracked.is_ready = True
            self._tell(tracked, ComponentReady, seconds=time.monotonic() - tracked.asked_at)

    def _extend(self, tracked: Tracked, seconds: float) -> None:
        """Its time limit is no sooner than so many seconds from now (EXTEND_TIMEOUT_USEC of sd_notify(3))."""
        tracked.extends_to = max(tracked.extends_to, time.monotonic() + seconds)

    def _exit(self, tracked: Tracked, status: int, output: str, failure: str) -> None:
        """Its program has ended; `failure` says why that is one whatever the status is."""
        if tracked.state in OVER:
            return
        tracked.status = status
        tracked.ended_at = time.monotonic()
        tracked.output = self._events.masked(output)
        if tracked.key in self._ending:
            tracked.state = State.STOPPED
            self._tell(tracked, ComponentStopped)
        elif failure:
            self._end(tracked, State.FAILED, failure, output)
        elif not tracked.is_ready and tracked.state is not State.RESTARTING:
            how = describe_status(status)
            said = f': {tracked.said}' if tracked.said else ''
            self._end(tracked, State.FAILED, f'it ended before it was ready, {how}{said}', output)
        else:
            tracked.state = State.EXITED
            self._tell(tracked, ComponentExited, status=status)

    def _end(self, tracked: Tracked, state: State, reason: str, output: str = '') -> None:
        if tracked.state in OVER and not (tracked.state is State.EXITED and state is State.FAILED):
            return
        tracked.state = state
        tracked.reason = self._events.masked(reason)
        tracked.output = self._events.masked(output) or tracked.output
        if state is State.FAILED:
            self._tell(tracked, ComponentFailed, reason=reason, output=tracked.output)
        elif state is State.ABORTED:
            self._tell(tracked, ComponentAborted, reason=reason)
        elif state is State.UNKNOWN:
            self._tell(tracked, ComponentUnknown, reason=reason)
        self._changed.notify_all()

    def _tell(self, tracked: Tracked, kind: type[Event], **fields: Any) -> None:
        self._events.emit(kind(host=tracked.plan.host, component=tracked.plan.name, **fields))
