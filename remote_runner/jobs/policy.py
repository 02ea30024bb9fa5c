"""How tasks are tried, and what may come of an attempt: what all of jobs talk about."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Cause(Enum):
    """Why an attempt failed."""

    #: Its host, the connection, or what ran it there is gone: no fault of the task.
    LOST = 'lost'
    TIMEOUT = 'timeout'
    #: An exit status other than 0, or a signal.
    EXIT = 'exit'
    #: What it brought was not accepted.
    REJECTED = 'rejected'
    #: It could not be started, or had no room.
    RESOURCES = 'resources'
    CANCELLED = 'cancelled'
    #: Of a task alone: it was lost on so many different hosts that it may be what ends them.
    POISON = 'poison'


class RetryOn(NamedTuple):
    """What is tried again: a cause, and of `EXIT` one status alone, or any (None)."""

    cause: Cause
    status: int | None = None


class Halt(NamedTuple):
    """When to give up: `at` tasks (or that share of all, below 1) have failed; `now`: what runs is cancelled, too."""

    at: float
    now: bool = False


class Policy(NamedTuple):
    """How attempts are made.

    Args:
        retries: how often a task is tried again for each cause that is a fault of its own.
        retry_on: for which; None: for all.
        timeout: seconds that an attempt may take; None: for ever.
        timeout_share: the same in terms of the median of those that succeeded.
        duplicates: whether idle slots run second copies of what takes long when nothing else is left.
        halt: when to give up.
        delay: seconds between two starts at least.
        load: the load per core above which nothing new is begun on a host; None: any.
    """

    retries: int = 2
    retry_on: tuple[RetryOn, ...] | None = None
    timeout: float | None = None
    timeout_share: float | None = None
    duplicates: bool = False
    halt: Halt | None = None
    delay: float = 0.0
    load: float | None = None

    def allows(self, outcome: Outcome) -> bool:
        """Whether what ended so is tried again at all."""
        if self.retry_on is None:
            return True
        return any(on.cause is outcome.cause and on.status in (None, outcome.status) for on in self.retry_on)


class Outcome(NamedTuple):
    """What came of an attempt.

    Args:
        cause: why it failed; None: it succeeded.
        status: its exit status, where it has one; 128 + N for signal N.
        why: in words, what else is to be said.
    """

    cause: Cause | None = None
    status: int | None = None
    why: str = ''
