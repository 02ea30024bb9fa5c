"""Which processes are whose: the attempts under way on this host, and what they leave behind them.

The dispatcher is a child subreaper (prctl(2)): a process whose parent has ended becomes its child. Such a stray is one
of the attempt in whose session it is, or with whose variables it was started. Where it shows neither, it may belong to
any attempt that was under way when it appeared: it is ended when none of these is any more.
"""

import os

import _signal

from remote_runner.agent import processes, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterator, List, Optional, Set

    from remote_runner.agent.attempt import Attempt

#: Seconds in which killed processes are gone.
PATIENCE = 5.0
_MARKS = (b'RR_TASK', b'RR_ATTEMPT', b'RR_SLOT')


class UnderWay:
    """The attempts of which processes are left.

    Attributes:
        running: those whose main processes run, by their pids.
        lingering: those whose main processes have ended.
    """

    def __init__(self) -> None:
        self.running: "Dict[int, Attempt]" = {}
        self.lingering: "Set[Attempt]" = set()
        #: Children that no attempt owns up to, and the attempts that were under way when they appeared.
        self._foreign: "Dict[int, Set[Attempt]]" = {}

    @property
    def is_idle(self) -> bool:
        """Whether none of their processes is left."""
        return not (self.running or self.lingering or self._foreign)

    @property
    def has_foreign(self) -> bool:
        """Whether there are processes that no attempt owns up to."""
        return bool(self._foreign)

    @property
    def wants_looks(self) -> bool:
        """Whether processes may have ended of whose end no signal tells."""
        return bool(self.lingering or self._foreign)

    def all(self) -> "List[Attempt]":
        """Those that run, and those that linger."""
        return list(self.running.values()) + list(self.lingering)

    def reap(self) -> "List[Attempt]":
        """Take note of what has ended; the attempts of which nothing is left now."""
        ended, any_left = tree.reap()
        for pid, status in ended.items():
            attempt = self.running.pop(pid, None)
            if attempt is not None:
                attempt.main_ended(status)
                self.lingering.add(attempt)
        if any_left:
            self._look()
        else:
            self._foreign.clear()
            for attempt in self.lingering:
                attempt.strays.clear()
        over = [attempt for attempt in self.lingering if not attempt.strays]
        self.lingering.difference_update(over)
        if self._foreign:
            self._end_foreign()
        return over

    def _look(self) -> None:
        """Find the children of ours that we did not start."""
        strays = set(tree.children(os.getpid())) - set(self.running)
        for pid in set(self._foreign) - strays:
            del self._foreign[pid]
        owned: "Set[int]" = set(self._foreign)
        for attempt in self.all():
            attempt.strays &= strays
            owned |= attempt.strays
        for pid in strays - owned:
            owner = self._owner(pid)
            if owner is not None:
                owner.strays.add(pid)
            else:
                self._foreign[pid] = set(self.all())
        for attempt in self.lingering:
            if attempt.strays:
                attempt.linger()

    def _owner(self, pid: int) -> "Optional[Attempt]":
        session = _session(pid)
        for attempt in self.all():
            if attempt.pid == session:
                return attempt
        try:
            environment = processes.environment(pid)
        except OSError:
            return None  # it is just ending, or has become another user's
        for attempt in self.all():
            own = (attempt.position, attempt.key[1], attempt.slot)
            if tuple(environment.get(name) for name in _MARKS) == tuple(str(word).encode('ascii') for word in own):
                return attempt
        return None

    def _end_foreign(self) -> None:
        """End what belongs to none of the attempts under way."""
        under_way = set(self.all())
        for pid, candidates in self._foreign.items():
            if not candidates & under_way:
                for each in [pid, *tree.descendants(pid)]:
                    _kill(each)


def end_left_over(folder: str) -> None:
    """End processes of tasks in this folder whose dispatcher and guard were both killed. There must be no others."""
    from remote_runner.agent import living

    place = os.path.realpath(folder) + '/'
    while True:
        found = [pid for pid in living.own_processes() if _is_task_in(pid, place)]
        wanted = processes.identify([each for pid in found for each in [pid, *tree.descendants(pid)]])
        for pid, _ in wanted:
            _kill(pid)
        if not wanted or processes.wait_gone(wanted, PATIENCE):
            return  # of one that cannot be ended now somebody else has to hear


def _is_task_in(pid: int, place: str) -> bool:
    """Whether a process is of a task, and is in its folder, or has its files: `12.2`, `12.2.stdout`."""
    try:
        environment = processes.environment(pid)
    except OSError:
        return False
    return all(mark in environment for mark in _MARKS) and any(
        path.startswith(place) and path[len(place) :][:1].isdigit() for path in _places(pid)
    )


def _places(pid: int) -> "Iterator[str]":
    for name in ('cwd', 'fd/0', 'fd/1', 'fd/2'):
        try:
            yield os.readlink('/proc/{}/{}'.format(pid, name))
        except OSError:
            continue  # it is gone, or not for us to see


def _kill(pid: int) -> None:
    try:
        os.kill(pid, _signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # it has just ended; or it is another user's, and not ours to end


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0
