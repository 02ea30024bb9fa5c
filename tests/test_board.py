"""The board: what becomes of a component by what agents say, where real hosts show it too rarely."""

from __future__ import annotations

from typing import Any, cast

import pytest

from remote_runner.deploy.board import Board, State, Tracked
from remote_runner.deploy.component_plan import ComponentPlan
from remote_runner.events import Event, Events
from remote_runner.hosts.address import parse_address
from remote_runner.hosts.host import Host


class _Agent:
    """The host as far as the board looks at it."""

    name = 'h1'


@pytest.fixture
def board() -> Board:
    board = Board(Events())
    board.add(ComponentPlan('c', 'h1', parse_address('h1'), 'x'), 'h1')
    board.starting(board.all())
    return board


def _say(board: Board, *message: object, **fields: Any) -> Tracked:
    [tracked] = board.all()
    event = {'event': 'launcher', 'key': tracked.key, 'message': list(message), **fields}
    board.hear(cast('Host', _Agent()), event)
    return tracked


def test_an_end_that_only_the_status_tells_of_is_no_riddle(board: Board) -> None:
    """An agent that comes just as the program ends is left before it hears so; what the launcher wrote is final."""
    _say(board, 'hello', 1, 0, 0.0)
    _say(board, 'started', 2, 0.0, 0)
    tracked = _say(board, 'closed', status={'state': 'exited', 'exit_status': 7, 'output': 'last words'})
    assert (tracked.state, tracked.status, tracked.output) == (State.EXITED, 7, 'last words')


def test_an_end_that_nobody_saw_is_unknown(board: Board) -> None:
    _say(board, 'hello', 1, 0, 0.0)
    _say(board, 'started', 2, 0.0, 0)
    assert _say(board, 'closed', status={'state': 'started', 'output': ''}).state is State.UNKNOWN


_RUNS = {'state': 'started', 'pid': 2, 'alive': True}


@pytest.mark.parametrize(
    ('last', 'state'),
    [
        ({'state': 'exited', 'pid': 2, 'exit_status': 3, 'output': ''}, State.EXITED),
        ({'state': 'started', 'pid': 2, 'output': ''}, State.UNKNOWN),
        ({'state': 'killed', 'pid': 2, 'output': ''}, State.FAILED),
    ],
)
def test_an_end_while_the_host_said_how_it_was_counts(board: Board, last: dict[str, Any], state: State) -> None:
    """A keeper that was asked how it is, and ended before it took the call of the agent that wants to hear more."""
    [tracked] = board.all()
    tracked.state = State.PLANNED
    _say(board, 'closed', status=last)
    board.restore(tracked, _RUNS)
    assert (tracked.state, tracked.gone) == (state, True)
    assert tracked.status == last.get('exit_status')


def test_a_launcher_that_dies_before_its_turn_is_told_then(board: Board) -> None:
    [tracked] = board.all()
    tracked.state = State.PLANNED
    _say(board, 'hello', 1, 0, 0.0)
    _say(board, 'closed', status={'state': 'aborted', 'reason': 'ended by signal 15', 'output': ''})
    assert tracked.state is State.PLANNED
    board.starting([tracked])
    assert (tracked.state, tracked.reason) == (State.ABORTED, 'ended by signal 15')


# Restarts: a launcher tells its present life again to each agent that comes later, before or after what `watch` answers


@pytest.fixture
def events() -> list[Event]:
    """What the board of `running` told since the first start."""
    return []


@pytest.fixture
def running(board: Board, events: list[Event]) -> Tracked:
    """A component that has started, with readiness, and is ready."""
    [tracked] = board.all()
    tracked.plan = tracked.plan._replace(ready={'kind': 'notify'})
    _say(board, 'hello', 1, 0, 0.0)
    _say(board, 'started', 2, 0.0, 0)
    _say(board, 'ready', 0.0)
    board._events.listen(events.append)
    return tracked


_FIRST_LIFE = (('started', 2, 0.0, 0), ('ready', 0.0))
_PAUSE = (*_FIRST_LIFE, ('restarting', 3, 0.5, 1, 'why', 0.0))
_SECOND_LIFE = (('started', 7, 0.0, 1), ('ready', 0.0))
_RESTING = {'state': 'restarting', 'pid': 2, 'restarts': 1, 'exit_status': 3, 'ended': 5.0, 'next': 5.5, 'alive': True}
_AGAIN = {'state': 'ready', 'pid': 7, 'restarts': 1, 'ready': 6.0, 'alive': True}


@pytest.mark.parametrize('is_told_first', [True, False])
@pytest.mark.parametrize(
    ('status', 'told', 'state', 'kinds'),
    [
        ({'state': 'ready', 'pid': 2, 'ready': 0.0, 'restarts': 0, 'alive': True}, _FIRST_LIFE, State.STARTED, []),
        (_RESTING, _PAUSE, State.RESTARTING, ['component_restarting']),
    ],
)
def test_what_is_told_again_after_a_lost_connection_counts_once(
    board: Board,
    running: Tracked,
    events: list[Event],
    status: dict[str, Any],
    told: tuple[tuple[object, ...], ...],
    state: State,
    kinds: list[str],
    is_told_first: bool,
) -> None:
    if not is_told_first:
        board.restore(running, status)
    for message in told:
        _say(board, *message)
    board.restore(running, status)
    assert running.state is state
    assert [event.kind() for event in events] == kinds
    for message in _SECOND_LIFE:
        _say(board, *message)
    assert (running.state, running.pid, running.restarts, running.is_ready) == (State.STARTED, 7, 1, True)


def test_a_restart_that_nobody_saw_is_told_afterwards(board: Board, running: Tracked, events: list[Event]) -> None:
    board.restore(running, _AGAIN)
    for message in _SECOND_LIFE:
        _say(board, *message)
    assert (running.state, running.pid, running.restarts, running.is_ready) == (State.STARTED, 7, 1, True)
    assert [event.kind() for event in events] == ['component_started', 'component_ready']


def test_a_pause_found_after_a_start_that_nobody_saw(board: Board) -> None:
    [tracked] = board.all()
    tracked.state = State.GOING
    board.restore(tracked, _RESTING)
    assert (tracked.state, tracked.pid, tracked.restarts) == (State.RESTARTING, 2, 1)


def test_a_component_that_cannot_be_started_again_rests_once_more(
    board: Board, running: Tracked, events: list[Event]
) -> None:
    for number in (1, 2, 3):
        _say(board, 'restarting', 127, 0.5, number, 'not started', 0.0)
    assert (running.state, running.restarts, len(events)) == (State.RESTARTING, 3, 3)


def test_what_programs_say_stands_there_without_secrets(board: Board, running: Tracked) -> None:
    board._events.mask = lambda text: text.replace('secret', '***')
    _say(board, 'said', 'the secret', 0.0)
    assert running.said == 'the ***'
    _say(board, 'exited', 3, 0.0, 'no secret', output='secret words')
    assert (running.state, running.reason, running.output) == (State.FAILED, 'no ***', '*** words')
