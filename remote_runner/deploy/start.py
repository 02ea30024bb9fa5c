"""Starting the components of one index, each proven by its call-back; and taking back what has not started."""

from __future__ import annotations

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from remote_runner.agent.tree import describe_status
from remote_runner.deploy.board import PENDING, Board, State, Tracked
from remote_runner.deploy.component_plan import ComponentPlan
from remote_runner.deploy.secrets import Secrets
from remote_runner.errors import ConnectionLost, HostError, RemoteRunnerError, RequestFailed
from remote_runner.hosts.call import Call, Header
from remote_runner.hosts.pool import Pool

#: Seconds that components which are still starting get when another one of their index has failed.
SIBLING_TIMEOUT = 3.0
#: Seconds that launchers and agents get to obey an abort.
ABORT_TIMEOUT = 3.0
#: Seconds before the end of an index's grace at which the windows of the next one are opened; its programs wait.
LEAD = 1.0
_NOT_WELL = (State.FAILED, State.ABORTED, State.UNKNOWN)


class Starter:
    """Opens windows, answers hellos with go, and waits until every component of an index has started or failed.

    Args:
        board: where the components stand.
        pool: the connected hosts.
        session: the screen session; run: the id of this run; by: who starts them, for others to read.
        describe: what a host is told of a component, but for key and time limit.
        start_timeout: seconds from asking for the window until the program must run, where a component says nothing.
        zombie: windows of ended programs stay.
    """

    def __init__(
        self,
        board: Board,
        pool: Pool,
        session: str,
        run: str,
        by: str,
        describe: Callable[[Tracked], Header],
        *,
        start_timeout: float,
        zombie: bool,
    ) -> None:
        self._board = board
        self._pool = pool
        self._session = session
        self._run = run
        self._by = by
        self._describe = describe
        self._start_timeout = start_timeout
        self._zombie = zombie
        #: The pid of the screen server of each host on which we opened windows.
        self.servers: dict[str, int] = {}
        #: The hosts of those that were started for them.
        self.own_servers: set[str] = set()
        self._calls: dict[str, Call] = {}
        self._ahead: list[Tracked] = []

    def start(self, components: list[Tracked], following: list[Tracked]) -> bool:
        """Start these; True if all have started and none failed within its grace.

        Windows for those `following` are opened meanwhile. They must be the `components` of the next call; if this one
        answers False they are closed again.
        """
        self._board.starting(components)
        calls = self._calls
        opened, self._ahead = self._ahead, []
        for name, own in by_host(tracked for tracked in components if tracked not in opened).items():
            try:
                calls[name] = self._open(name, own, 0.0)
            except ConnectionLost as error:
                self._board.abort(own, error.what)
        self.see_through(components)
        self._grace(components, following)
        if self._board.of(*_NOT_WELL, among=components):
            self._close_ahead('a component of an earlier index failed')
            return False
        return True

    def see_through(self, components: list[Tracked]) -> None:
        """Wait until each of these, which are being started, has started and is ready, or has failed."""
        calls = self._calls
        end = math.inf
        while True:
            waiting = self._waiting(components)
            if not waiting:
                break
            if end == math.inf and self._is_hopeless(components):
                end = time.monotonic() + SIBLING_TIMEOUT
            if end <= time.monotonic():
                is_sibling = bool(self._board.of(State.FAILED, among=components))
                who = 'another component of its index' if is_sibling else 'a critical component'
                self._take_back(waiting, f'{who} failed')
                continue
            deadline = min(end, *map(self._deadline, waiting))
            ready = partial(self._something_to_do, components, calls, end == math.inf)
            if not self._board.wait(ready, deadline):
                self._too_late([tracked for tracked in waiting if self._deadline(tracked) <= time.monotonic()])
            self._check_calls(calls)
            self._check_hosts(waiting)
            self._go(self._board.of(State.CALLED_BACK, among=components))

    def _waiting(self, components: Iterable[Tracked]) -> list[Tracked]:
        """Those that have neither started, and are ready, nor failed."""
        begun = self._board.of(State.STARTING, State.CALLED_BACK, State.GOING, State.STARTED, among=components)
        return [tracked for tracked in begun if not tracked.is_ready]

    def _is_hopeless(self, components: list[Tracked]) -> bool:
        """Whether the next index will not start, whatever becomes of those that are starting."""
        return bool(self._board.of(State.FAILED, among=components) or self._board.failed_critical())

    def _limit(self, tracked: Tracked) -> float:
        return self._start_timeout if tracked.plan.start_timeout is None else tracked.plan.start_timeout

    def _deadline(self, tracked: Tracked) -> float:
        if tracked.restarts:
            return math.inf  # its launcher looks after it now, with a limit for each restart
        return max(tracked.asked_at + self._limit(tracked), tracked.extends_to)

    def _something_to_do(self, components: list[Tracked], calls: dict[str, Call], all_well: bool) -> bool:
        if all_well and self._is_hopeless(components):
            return True
        waiting = self._waiting(components)
        return (
            not waiting
            or any(tracked.state is State.CALLED_BACK for tracked in waiting)
            or any(call.ended for call in calls.values())
            or any(tracked.host in self._board.lost or self._last_words(tracked) is not None for tracked in waiting)
        )

    def _last_words(self, tracked: Tracked) -> str | None:
        """What the screen server printed that was to open its window and has ended; None where that stands."""
        server, said = self._board.dead_sessions.get(tracked.host, (0, ''))
        is_its_own = tracked.state is State.STARTING and server == self.servers.get(tracked.host)
        return said if is_its_own else None

    def _open(self, name: str, own: list[Tracked], lead: float) -> Call:
        """Ask a host for the windows of its components, whose turn comes so many seconds later."""
        return self._pool.hosts[name].call(
            'open',
            on_end=self._board.touch,
            session=self._session,
            run=self._run,
            by=self._by,
            zombie=self._zombie,
            components=[
                {'key': tracked.key, 'start_timeout': self._limit(tracked) + lead, **self._describe(tracked)}
                for tracked in own
            ],
        )

    def _open_ahead(self, components: list[Tracked]) -> None:
        """Let launchers come up while the index before theirs still has its grace; they wait for go."""
        for name, own in by_host(components).items():
            self._ahead += own
            with contextlib.suppress(ConnectionLost):  # found and told when their turn comes
                self._calls[name] = self._open(name, own, LEAD)

    def _check_calls(self, calls: dict[str, Call]) -> None:
        """Take in the answers to `open`; one that failed fails all that it was to open."""
        for name in [name for name, call in calls.items() if call.ended]:
            try:
                self._know_server(name, calls.pop(name).result())
            except RequestFailed as error:
                self._board.fail([t for t in self._board.of(*PENDING) if t.host == name], error.what)
            except ConnectionLost:
                continue  # the board knows: see _check_hosts

    def _check_hosts(self, waiting: list[Tracked]) -> None:
        """Give up on hosts that are gone, and on sessions that ended before their windows called back."""
        for tracked in waiting:
            if tracked.host in self._board.lost:
                if tracked.state in (State.GOING, State.STARTED):
                    self._board.lose_sight([tracked], 'the connection was lost while it was being started')
                elif tracked.state in PENDING:
                    self._board.abort([tracked], 'the connection was lost before it was started')
            elif (said := self._last_words(tracked)) is not None:
                self._board.fail([tracked], f'the screen session ended at once: {said}')

    def _go(self, components: list[Tracked]) -> None:
        for name, own in by_host(components).items():
            self._board.going(own)
            try:
                self._pool.hosts[name].call('answer', keys=[tracked.key for tracked in own], go=True)
            except ConnectionLost as error:
                self._board.lose_sight(own, error.what)

    def _too_late(self, components: list[Tracked]) -> None:
        """No call-back in time: they have failed, and whatever of them still comes ends itself."""
        given_up: dict[str, list[Tracked]] = defaultdict(list)
        for tracked in components:
            limit = f'within {self._deadline(tracked) - tracked.asked_at:.3g} s'
            what, more = f'no call-back {limit}', '; what comes of it later ends itself'
            if tracked.state is State.STARTED:
                what, more = f'it was not ready {limit}', f': {tracked.waiting}' if tracked.waiting else ''
            if self._board.give_up(tracked, what + more):
                given_up[what].append(tracked)
        for what, own in given_up.items():
            self._answer_abort(own, what)

    def _grace(self, components: list[Tracked], following: list[Tracked]) -> None:
        """Give the index its grace: who ends in it without success has failed."""
        started = sorted(self._board.of(State.STARTED, State.EXITED, among=components), key=_end_of_grace)
        for tracked in started:
            ended, end = partial(_has_ended, tracked), _end_of_grace(tracked)
            opening = _end_of_grace(started[-1]) - LEAD
            self._board.wait(ended, min(end, opening))
            if not self._ahead and opening <= time.monotonic() < end and all(map(_is_well, components)):
                self._open_ahead(following)
            self._board.wait(ended, end)
            # Others of its index may have taken so long that its own grace is over long ago.
            if tracked.state is State.EXITED and tracked.status and tracked.ended_at < end:
                how = f'within its start_grace ({tracked.plan.start_grace:g} s), {describe_status(tracked.status)}'
                self._board.fail([tracked], f'it ended {how}', tracked.output)

    # ---- taking back ------------------------------------------------------------------------------------------

    def abort(self, reason: str) -> None:
        """Take back all that is starting, and close its windows; what has started stays."""
        self._learn_servers()
        self._close_ahead(reason)
        self._take_back(self._board.all(), reason)

    def _learn_servers(self) -> None:
        """Take in the answers to `open` that are still to come: they name sessions that we have started."""
        deadline = time.monotonic() + ABORT_TIMEOUT
        for name, call in self._calls.items():
            with contextlib.suppress(RemoteRunnerError):
                self._know_server(name, call.result(max(0.0, deadline - time.monotonic())))

    def _know_server(self, name: str, answer: Header) -> None:
        self.servers[name] = answer['server']
        if answer['started']:
            self.own_servers.add(name)

    def _take_back(self, pending: list[Tracked], reason: str) -> None:
        pending = self._waiting(pending)
        had_go = [tracked for tracked in pending if tracked.state in (State.GOING, State.STARTED)]
        self._board.ending(had_go)
        self._answer_abort(pending, reason)
        patience = max((tracked.plan.stop_timeout for tracked in had_go), default=0.0)
        deadline = time.monotonic() + ABORT_TIMEOUT + patience
        self._board.wait(lambda: all(tracked.gone or not tracked.launcher for tracked in pending), deadline)
        self._board.lose_sight([tracked for tracked in had_go if not tracked.gone], f'{reason} while it was starting')
        self._board.abort([tracked for tracked in pending if tracked not in had_go or tracked.gone], reason)
        self._ask('close_windows', [t for t in pending if t.state is State.ABORTED], session=self._session)

    def _close_ahead(self, reason: str) -> None:
        """Close the windows of those whose turn will not come now: they were never begun."""
        ahead, lost = self._ahead, self._board.lost
        broken = {name for name, call in self._calls.items() if call.failed} | self._board.dead_sessions.keys()
        # Only when its launcher has called back can a window be told from others.
        self._board.wait(lambda: all(t.launcher or t.gone or t.host in {*lost, *broken} for t in ahead), _soon())
        self._answer_abort(ahead, reason)
        self._board.wait(lambda: all(t.gone or not t.launcher or t.host in lost for t in ahead), _soon())
        self._ask('close_windows', ahead, session=self._session)
        self._board.never_begun(ahead)
        self._ahead = []

    def _answer_abort(self, components: Iterable[Tracked], reason: str) -> None:
        self._ask('answer', components, go=False, reason=reason)

    def _ask(self, op: str, components: Iterable[Tracked], **fields: Any) -> None:
        """Ask all hosts at once for what is only good manners: one that is gone, or hangs, does it by itself."""
        deadline = time.monotonic() + ABORT_TIMEOUT
        calls: list[Call] = []
        for name, own in by_host(components).items():
            with contextlib.suppress(HostError):
                keys = [tracked.key for tracked in own]
                calls.append(self._pool.hosts[name].call(op, timeout=ABORT_TIMEOUT, keys=keys, **fields))
        for call in calls:
            with contextlib.suppress(RemoteRunnerError):
                call.result(max(0.0, deadline - time.monotonic()))


def described(plan: ComponentPlan, base_dir: str, run: str, session: str, secrets: Secrets) -> Header:
    """What a host is told of a component of this run, whose absolute base_dir on the host is given.

    Which of the run's `secrets` stand in its arguments and the like it is told, too: it shall mask them for commands
    that do not know them. It is told none that it does not get anyway.
    """
    own = {
        **dict(plan.env),
        'RR_RUN': run,
        'RR_SESSION': session,
        'RR_COMPONENT': plan.name,
        'RR_HOST': plan.host,
        'RR_INDEX': str(plan.start_index),
    }
    return {
        'name': plan.name,
        'executable': plan.executable,
        'args': plan.args,
        'cwd': base_dir,
        'user': plan.user,
        'start_grace': plan.start_grace,
        'stop_timeout': plan.stop_timeout,
        'stop_signal': plan.stop_signal,
        'ready': plan.ready,
        'watchdog': plan.watchdog,
        'restart': plan.restart,
        'max_restarts': plan.max_restarts,
        'max_load': plan.max_load,
        'log_limit': plan.log_limit,
        # What the host remembers for commands that come later and have no plan.
        'about': {
            'host': plan.host,
            'index': plan.start_index,
            'wave': plan.wave,
            'wait': plan.wait,
            'critical': plan.critical,
            'fetch': plan.fetch,
            'digest': plan.digest(),
        },
        'environment': {**dict(plan.secret_env), **own},
        # The variables whose values the host masks in what it tells; those that others win over are none.
        'secrets': [name for name, _ in plan.secret_env if name not in own],
        'hidden': secrets.within([plan.executable, plan.args, own, plan.ready]),
    }


def _soon() -> float:
    return time.monotonic() + ABORT_TIMEOUT


def _has_ended(tracked: Tracked) -> bool:
    return tracked.state is not State.STARTED


def _is_well(tracked: Tracked) -> bool:
    return tracked.state is State.STARTED or (tracked.state is State.EXITED and not tracked.status)


def _end_of_grace(tracked: Tracked) -> float:
    return tracked.started_at + tracked.plan.start_grace


def by_host(components: Iterable[Tracked]) -> dict[str, list[Tracked]]:
    """The components of each host, by the name under which it is connected."""
    found: dict[str, list[Tracked]] = defaultdict(list)
    for tracked in components:
        found[tracked.host].append(tracked)
    return found
