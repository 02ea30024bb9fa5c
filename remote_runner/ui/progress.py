"""How far a run is: what its events have said so far, by host and by component."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from enum import IntEnum, StrEnum

from remote_runner import events as e


class Phase(IntEnum):
    """What a host is at."""

    WAITING = 0
    CONNECTING = 1
    CONNECTED = 2
    COPYING = 3
    READY = 4
    STARTING = 5
    RUNNING = 6
    SAME = 7
    LOST = 8
    FAILED = 9
    FETCHING = 10


class State(StrEnum):
    """What became of a component."""

    NOT_STARTED = 'not started'
    STARTING = 'starting'
    STARTED = 'started'
    READY = 'ready'
    RESTARTING = 'restarting'
    EXITED = 'exited'
    FAILED = 'failed'
    ABORTED = 'aborted'
    STOPPED = 'stopped'
    UNKNOWN = 'unknown'


# What a component was called stays, where a later event only says what follows from it: one that failed is cleared
# away, one that was stopped has exited.
_STAYS = {State.FAILED: {State.EXITED, State.STOPPED, State.ABORTED}, State.STOPPED: {State.EXITED}}

#: Seconds over which a rate is taken, and the least after which there is one.
_PACE, _LEAST_PACE = 10.0, 0.5


class Component:
    """One component: `seconds` it took to start, `status` it exited with, why it failed and what it printed last."""

    def __init__(self, name: str, host: str, index: int | None = None) -> None:
        self.name = name
        self.host = host
        self.index = index
        self.state = State.NOT_STARTED
        self.pid: int | None = None
        self.window: int | None = None
        self.seconds: float | None = None
        self.status: int | None = None
        self.restarts = 0
        self.reason = ''
        self.output = ''


class Host:
    """One host: its phase and since when, what is copied to it, and how many of its components are in which state.

    Attributes:
        sent: bytes that have arrived, or come, of the `to_send` that are to.
        files: how many files these bytes are of; `files_done` of them are there.
        index: the start index that its components are at; `of_index` of them are there, `started` of which started.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.phase = Phase.WAITING
        self.since = 0.0
        self.error = ''
        self.same_as = ''
        self.files = self.files_done = 0
        self.sent = self.to_send = 0
        self.pace: deque[tuple[float, int]] = deque()
        self.index = 0
        self.of_index: Counter[int] = Counter()
        self.started = 0
        self.states: Counter[State] = Counter()

    @property
    def is_in_trouble(self) -> bool:
        """Whether something went wrong there."""
        return self.phase in (Phase.LOST, Phase.FAILED) or bool(self.states[State.FAILED] + self.states[State.UNKNOWN])

    @property
    def is_copying(self) -> bool:
        """Whether files are under way, in either direction."""
        return self.phase in (Phase.COPYING, Phase.FETCHING)

    def rate(self, now: float) -> float:
        """Bytes a second, lately; 0 where that cannot be told yet."""
        if not self.is_copying or not self.pace or now - self.pace[0][0] < _LEAST_PACE:
            return 0.0
        begin, already = self.pace[0]
        return (self.sent - already) / (now - begin)

    def advance(self, phase: Phase, sent: int, to_send: int, now: float) -> None:
        """So many bytes are there."""
        if phase != self.phase:
            self.pace.clear()
            self.enter(phase, now)
        self.sent, self.to_send = sent, to_send
        self.pace.append((now, sent))
        while len(self.pace) > 1 and self.pace[1][0] <= now - _PACE:
            self.pace.popleft()

    def enter(self, phase: Phase, now: float) -> None:
        """Be at another phase from `now` on; being at it already changes nothing."""
        if phase != self.phase:
            self.phase, self.since = phase, now


class Progress:
    """Follows the events of one run. `now` is seconds of any clock that does not jump."""

    def __init__(self) -> None:
        self.session = ''
        self.begun: float | None = None
        self.index = 0
        self.hosts: dict[str, Host] = {}
        self.states: Counter[State] = Counter()
        self._components: dict[str, Component] = {}

    def components(self) -> Iterator[Component]:
        """All components, by start index."""
        return iter(sorted(self._components.values(), key=lambda component: component.index or 0))

    def is_running(self) -> bool:
        """Whether all that is to start has, and some of it runs."""
        waits = self.states[State.NOT_STARTED] + self.states[State.STARTING]
        return not waits and bool(self.states[State.STARTED] + self.states[State.READY] + self.states[State.RESTARTING])

    def apply(self, event: e.Event, now: float) -> None:
        """Take note of what happened."""
        if self.begun is None:
            self.begun = now
        match event:
            case e.RunStarted():
                self._begin(event)
            case e.ComponentPlaced():
                self._component(event.component or '', event.host or '', event.index)
            case e.HostReleased():
                self.hosts.pop(event.host or '', None)
            case _ if event.component is not None:
                self._apply_to_component(event, event.component, event.host or '', now)
            case _ if event.host is not None:
                _apply_to_host(event, self._host(event.host), now)

    def _begin(self, event: e.RunStarted) -> None:
        self.session = event.session
        for name in event.hosts:
            self._host(name)
        by_length = sorted(event.hosts, key=len, reverse=True)
        for index, labels in sorted(event.components.items()):
            for label in labels:
                # Names and hosts may both hold an @: the longest host that fits.
                host = next((host for host in by_length if label.endswith(f'@{host}')), label.rpartition('@')[2])
                self._component(label.removesuffix(f'@{host}'), host, index)

    def _host(self, name: str) -> Host:
        return self.hosts.setdefault(name, Host(name))

    def _component(self, name: str, host: str, index: int | None = None) -> Component:
        label = f'{name}@{host}'
        if label not in self._components:
            self._components[label] = Component(name, host, index)
            self.states[State.NOT_STARTED] += 1
            at = self._host(host)
            at.states[State.NOT_STARTED] += 1
            at.of_index[index or 0] += 1
        return self._components[label]

    def _apply_to_component(self, event: e.Event, name: str, host_name: str, now: float) -> None:
        component, host = self._component(name, host_name), self._host(host_name)
        match event:
            case e.ComponentStarting(index=index):
                component.index = index
                if host.phase != Phase.STARTING or host.index != index:
                    host.index, host.started, host.since = index, 0, now
                self.index = index
                self._enter(component, State.STARTING)
            case e.ComponentStarted():
                component.pid, component.window, component.restarts = event.pid, event.window, event.restarts
                if not event.restarts:
                    component.seconds = event.seconds
                if event.ready:
                    host.started += not event.restarts
                    self._enter(component, State.STARTED)
            case e.ComponentKept(pid=pid, window=window, ready=is_ready):
                component.pid, component.window = pid, window
                host.started += 1
                self._enter(component, State.READY if is_ready else State.STARTED)
            case e.ComponentReady(seconds=seconds):
                if component.seconds is None or not component.restarts:
                    component.seconds = seconds
                    host.started += 1
                self._enter(component, State.READY)
            case e.ComponentRestarting(restarts=restarts):
                component.restarts = restarts
                self._enter(component, State.RESTARTING)
            case e.ComponentExited(status=status):
                component.status = status
                self._enter(component, State.EXITED)
            case e.ComponentFailed(reason=reason, output=output):
                component.reason, component.output = reason, output
                self._enter(component, State.FAILED)
            case e.ComponentUnknown(reason=reason):
                component.reason = reason
                self._enter(component, State.UNKNOWN)
            case e.ComponentAborted(reason=reason):
                component.reason = component.reason or reason
                self._enter(component, State.ABORTED)
            case e.ComponentStopped():
                self._enter(component, State.STOPPED)
        if host.phase not in (Phase.LOST, Phase.FAILED):
            host.enter(Phase.STARTING if host.states[State.STARTING] else Phase.RUNNING, now)

    def _enter(self, component: Component, state: State) -> None:
        if state in _STAYS.get(component.state, ()):
            return
        for states in (self.states, self.hosts[component.host].states):
            states[component.state] -= 1
            states[state] += 1
        component.state = state


def _apply_to_host(event: e.Event, host: Host, now: float) -> None:
    match event:
        case e.HostConnecting():
            host.enter(Phase.CONNECTING, now)
        case e.HostConnected():
            ran = sum(host.states.values()) - host.states[State.NOT_STARTED]
            host.enter(Phase.RUNNING if ran else Phase.CONNECTED, now)
        case e.HostFailed(error=error):
            host.error = error
            host.enter(Phase.FAILED, now)
        case e.HostLost(error=error):
            host.error = error
            host.enter(Phase.LOST, now)
        case e.HostMerged(same_as=same_as):
            host.same_as = same_as
            host.enter(Phase.SAME, now)
        case e.FilesCompared():
            host.files, host.files_done = event.to_send, 0
            host.advance(Phase.COPYING if event.to_send else Phase.READY, 0, event.bytes, now)
        case e.FilesSending():
            host.files, host.files_done = event.of_files or host.files, event.files
            host.advance(Phase.COPYING, event.bytes, event.of_bytes, now)
        case e.FilesSent():
            host.files_done, host.sent = host.files, host.to_send
            host.enter(Phase.READY, now)
        case e.ResultsFetching():
            host.files, host.files_done = event.of_files, event.files
            host.advance(Phase.FETCHING, event.bytes, event.of_bytes, now)
        case e.ResultsFetched():
            host.files_done, host.sent = host.files, host.to_send
            host.enter(Phase.RUNNING if host.states else Phase.READY, now)
