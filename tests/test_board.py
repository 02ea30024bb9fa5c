"""The board: what becomes of a component by what agents say, where real hosts show it too rarely."""

from __future__ import annotations

from typing import Any, cast

import pytest

from remote_runner.deploy.board import Board, State, Tracked
from remote_runner.deploy.plan import ComponentPlan
from remote_runner.events import Events
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


def test_a_launcher_that_dies_before_its_turn_is_told_then(board: Board) -> None:
    [tracked] = board.all()
    tracked.state = State.PLANNED
    _say(board, 'hello', 1, 0, 0.0)
    _say(board, 'closed', status={'state': 'aborted', 'reason': 'ended by signal 15', 'output': ''})
    assert tracked.state is State.PLANNED
    board.starting([tracked])
    assert (tracked.state, tracked.reason) == (State.ABORTED, 'ended by signal 15')
