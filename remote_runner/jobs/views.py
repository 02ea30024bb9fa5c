"""What statistics say at a moment: for the terminal, `--json`, and other processes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from remote_runner.jobs.policy import Cause


class State(StrEnum):
    """What a host is at."""

    UP = 'up'
    #: Its connection is being made anew.
    SILENT = 'silent'
    #: It is being tried again.
    DOWN = 'down'
    #: It is not tried again.
    GONE = 'gone'


class HostView(NamedTuple):
    """What a host did.

    Args:
        name: as the user wrote it.
        slots: tasks that it runs at a time.
        state: what it is at.
        why: why it is not up; of one that is up, why it gets nothing new.
        running: attempts that run there.
        done: tasks that succeeded there.
        failed: attempts that failed there, but those that were lost.
        lost: attempts that were lost with it.
        superseded: attempts that were begun there and did not count.
        busy: seconds for which slots of it were.
        share: that of the time of its slots since it came up, from 0 to 1.
        bytes: of results that came from there.
    """

    name: str
    slots: int
    state: State
    why: str
    running: int
    done: int
    failed: int
    lost: int
    superseded: int
    busy: float
    share: float
    bytes: int


class Slow(NamedTuple):
    """A task that takes, or took, long."""

    position: int
    host: str
    seconds: float


class Failure(NamedTuple):
    """A task that finally failed: its last attempt, and the last line that it printed."""

    position: int
    cause: Cause
    host: str
    status: int | None
    why: str
    last_line: str


class Copies(NamedTuple):
    """Second copies of slow tasks.

    Args:
        begun: how many were.
        won: how many of them ended first.
        saved: seconds that tasks ended earlier for it, as the scheduler reckons.
    """

    begun: int = 0
    won: int = 0
    saved: float = 0.0


class View(NamedTuple):
    """All numbers at a moment.

    Args:
        seconds: since the beginning.
        total: tasks that are known.
        is_all: whether no more come.
        done: tasks that succeeded.
        failed: tasks that failed for good, by cause; those that were cancelled are not among them.
        cancelled: tasks that were.
        running: attempts under way.
        retried: attempts that were begun because one before had failed or was lost.
        superseded: attempts that did not count any more.
        lost: attempts that were lost with their hosts.
        rate: tasks a second lately, and `mean_rate` in all.
        left: seconds until all have ended, if it goes on like this; None: nobody can tell.
        bytes: of results that came.
        hosts: in the order in which they came up, or were expected.
        slow_running: attempts that run for longest, and `slow_done` those that took longest of the ones that succeeded.
        failures: the first of what failed; `failed` says how many there are.
        copies: second copies.
    """

    seconds: float
    total: int
    is_all: bool
    done: int
    failed: dict[Cause, int]
    cancelled: int
    running: int
    retried: int
    superseded: int
    lost: int
    rate: float
    mean_rate: float
    left: float | None
    bytes: int
    hosts: list[HostView]
    slow_running: list[Slow]
    slow_done: list[Slow]
    failures: list[Failure]
    copies: Copies

    @property
    def has_failed(self) -> int:
        """How many tasks failed for good."""
        return sum(self.failed.values())


def told(view: View) -> dict[str, Any]:
    """It in JSON: the fields are explained in docs/job-results.md."""
    return {
        **view._asdict(),
        'failed': {cause.value: count for cause, count in view.failed.items()},
        'hosts': [{**host._asdict(), 'state': host.state.value} for host in view.hosts],
        'slow_running': [_named(one) for one in view.slow_running],
        'slow_done': [_named(one) for one in view.slow_done],
        'failures': [{**_named(one), 'cause': one.cause.value} for one in view.failures],
        'copies': view.copies._asdict(),
    }


def _named(one: Slow | Failure) -> dict[str, object]:
    """As users see it: they call a position an index."""
    fields = one._asdict()
    return {'index': fields.pop('position'), **fields}


def view_of(values: Mapping[str, Any]) -> View:
    """The numbers that `told` has made JSON of, maybe in another process."""
    return View(
        **{
            **{name: values[name] for name in View._fields},
            'failed': {Cause(cause): count for cause, count in values['failed'].items()},
            'hosts': [HostView(**{**host, 'state': State(host['state'])}) for host in values['hosts']],
            'slow_running': [Slow(*one.values()) for one in values['slow_running']],
            'slow_done': [Slow(*one.values()) for one in values['slow_done']],
            'failures': [Failure(*one.values())._replace(cause=Cause(one['cause'])) for one in values['failures']],
            'copies': Copies(**values['copies']),
        }
    )
