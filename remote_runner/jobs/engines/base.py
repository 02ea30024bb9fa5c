"""What an engine is: it carries immutable attempts out and reports facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from remote_runner.jobs.policy import Outcome
from remote_runner.jobs.task import Task

#: (task, attempt): what names an attempt. Attempts count from 1.
Key = tuple[int, int]

#: What is to stand in working folders: paths there, and where each is a link to; None: it is a folder.
Links = Mapping[str, str | None]


def nothing(host: object) -> Links:
    """Brings nothing to a host: its tasks need nothing."""
    return {}


class Attempt(NamedTuple):
    """One go at a task.

    Args:
        number: that of the task, which never changes.
        attempt: counted from 1.
        host: where it is to run.
        task: what.
        position: the task's place in what the user wrote, from 0.
        timeout: seconds that it may take; None: as long as it takes.
    """

    number: int
    attempt: int
    host: str
    task: Task
    position: int
    timeout: float | None = None


class HostUp(NamedTuple):
    """A host can be told what to do; of attempts before, those in `have` are still known there."""

    host: str
    slots: int
    have: frozenset[Key] = frozenset()


class HostDown(NamedTuple):
    """A host is gone, with all that was under way there. `is_final`: it is not tried again."""

    host: str
    why: str
    is_final: bool = False


class HostSilent(NamedTuple):
    """The connection to a host is lost, and is being made anew; what is under way there may go on."""

    host: str
    why: str


class HostLoad(NamedTuple):
    """The load per core of a host, where that matters: what it is first, when it crosses `most`, and all above that."""

    host: str
    load: float
    most: float

    @property
    def is_above(self) -> bool:
        """Whether nothing new is begun there."""
        return self.load > self.most


class Started(NamedTuple):
    """An attempt began `ago` seconds ago. Of short ones nobody is told."""

    number: int
    attempt: int
    host: str
    ago: float


class Ended(NamedTuple):
    """An attempt has ended, and all that it brought is here.

    Args:
        number: that of the task.
        attempt: which go at it.
        host: where it ran.
        slot: in which of its slots, from 1.
        outcome: how it ended.
        began: Unix time by our clock.
        seconds: how long it took.
        results: what was wanted of it, by name: bytes, or a file of ours that may be moved away.
        tail: the end of what it wrote to stderr, else to stdout.
    """

    number: int
    attempt: int
    host: str
    slot: int
    outcome: Outcome
    began: float
    seconds: float
    results: Mapping[str, bytes | Path] = {}
    tail: str = ''


Fact = HostUp | HostDown | HostSilent | HostLoad | Started | Ended


class Engine(Protocol):
    """Carries attempts out. One thread calls it, but for `wake`."""

    #: Of: stage, stream, cancel, resources, reattach, load.
    caps: frozenset[str]

    def open(self) -> None:
        """Begin: hosts come up one after the other."""

    def submit(self, attempts: Sequence[Attempt]) -> None:
        """Carry these out; those that are known already are not begun again."""

    def poll(self, timeout: float | None) -> list[Fact]:
        """What happened since; waits for something to happen, `timeout` seconds at most."""

    def cancel(self, keys: Iterable[tuple[str, Key]]) -> None:
        """End these attempts at these hosts; nothing is reported of them any more."""

    def taken(self, ended: Iterable[tuple[str, Key, bool]]) -> None:
        """The facts of their end are safe: hosts may forget them, and (True) keep their working folders."""

    def wake(self) -> None:
        """Let `poll` return at once. From any thread, and from a handler of a signal."""

    def close(self, mode: str) -> None:
        """Let go: `drain` (nothing is left), `kill` (end all), or `detach` (hosts go on by themselves)."""
