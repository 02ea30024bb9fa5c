"""Which host is the best one: pure decisions over what the hosts report.

    score = (load average + virtual load + 1) / cores x load weight + MEMORY x share of memory in use / memory weight

The lowest score is the best: it is how busy a host would be with one more command. The load average follows what runs
with a delay (it is an average over a minute, see proc(5), `/proc/loadavg`), so what was just given to a host counts
there as virtual load: each command as one more running process, which fades as the average takes it in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from remote_runner.hosts.address import Address

#: Weight of memory: a host whose memory is all in use counts as if a tenth of each core more were busy.
MEMORY = 0.1
#: Seconds in which the load average takes in 63 % of a change.
AVERAGED = 60.0
#: Seconds in which what is left of a command that has ended, or that somebody else starts, fades to 37 %.
FADING = 3.0
CHOICE_FADING = 15.0


class Report(NamedTuple):
    """What a host says of itself, see operation `load` of the agent.

    Args:
        load: load average of the last minute: processes that run or want to.
        cores: logical processors that may be used.
        memory: bytes in all.
        free_memory: bytes that can be had without swapping (`MemAvailable`).
        swap: bytes in all.
        free_swap: bytes.
        users: how many different users are logged in.
        tasks: how many commands, tasks and components of ours run there.
        platform: `linux-x86_64`, as in `Sweep.executables`.
        limited: which of `cores` and `memory` are what a control group allows (cgroups(7)), less than the host has.
    """

    load: float
    cores: int
    memory: int
    free_memory: int
    swap: int
    free_swap: int
    users: int
    tasks: int
    platform: str
    limited: str = ''


class Known(NamedTuple):
    """A host, and what is known of it.

    Args:
        address: with its weights.
        report: its last one.
        virtual: the virtual load of what was given to it since: processes.
        ended: so much of that is of commands that have ended.
    """

    address: Address
    report: Report
    virtual: float = 0.0
    ended: float = 0.0

    @property
    def name(self) -> str:
        """How the user wrote it, without weights."""
        return self.address.where

    @property
    def load_weight(self) -> float:
        """Multiplies the load: 2.0 is half as fast."""
        return self.address.weights[0] if self.address.weights else 1.0

    @property
    def memory_weight(self) -> float:
        """Higher is better."""
        return self.address.weights[1] if len(self.address.weights) > 1 else 1.0


class Wanted(NamedTuple):
    """Which hosts will do.

    Args:
        hosts: names of hosts, or patterns as fnmatch(3) has them; empty: all.
        prefer: of those, names or patterns that are taken as long as one of them has a core to spare.
        exclude: names or patterns that are not taken.
        min_memory: bytes that must be free.
        platform: `linux-x86_64`; None: any.
        max_load: load average per core, with the virtual load, above which a host is not taken; None: any.
    """

    hosts: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_memory: int = 0
    platform: str | None = None
    max_load: float | None = None


#: Lower is better.
Score = Callable[[Known], float]


def load_per_core(host: Known) -> float:
    """Measured and virtual."""
    return (host.report.load + host.virtual) / max(1, host.report.cores)


def has_core_to_spare(host: Known) -> bool:
    """Whether one more command would have a core for itself: what has ended needs none."""
    return load_per_core(host._replace(virtual=host.virtual - host.ended)) < 1.0


def score(host: Known) -> float:
    """The score of a host: see the top of this file."""
    used = 1.0 - host.report.free_memory / host.report.memory if host.report.memory else 0.0
    would_be = host._replace(virtual=host.virtual + 1)
    return load_per_core(would_be) * host.load_weight + MEMORY * used / host.memory_weight


def why_not(host: Known, wanted: Wanted) -> str | None:
    """Why a host will not do, for people; None if it will."""
    reason = unwanted(host.address, wanted)
    if reason is not None:
        return reason
    if wanted.platform is not None and host.report.platform != wanted.platform:
        return f'its platform is {host.report.platform}, not {wanted.platform}'
    if host.report.free_memory < wanted.min_memory:
        free, need = (f'{number / 1e9:.1f} GB' for number in (host.report.free_memory, wanted.min_memory))
        return f'{free} of memory are free, not {need}'
    if wanted.max_load is not None and load_per_core(host) > wanted.max_load:
        return f'its load is {load_per_core(host):.2f} a core, above {wanted.max_load:g}'
    return None


def unwanted(address: Address, wanted: Wanted) -> str | None:
    """Why a host will not do whatever its load is, for people; None if it may."""
    if wanted.hosts and not _matches(address, wanted.hosts):
        return 'it is not among the wanted ones'
    if _matches(address, wanted.exclude):
        return 'it is excluded'
    return None


def best(hosts: Iterable[Known], wanted: Wanted = Wanted(), rate: Score = score) -> Known | None:  # noqa: B008
    """The host with the lowest score among those that will do, the first of equal ones; None if none will."""
    ranked = rank([host for host in hosts if why_not(host, wanted) is None], rate)
    free = [host for host in ranked if _matches(host.address, wanted.prefer) and has_core_to_spare(host)]
    return next(iter(free or ranked), None)


def rank(hosts: Iterable[Known], rate: Score = score) -> list[Known]:
    """The hosts, the best one first."""
    return sorted(hosts, key=rate)


def _matches(address: Address, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in (address.where, address.name))


class VirtualLoad:
    """What was given to one host since when, and what of it the measured load does not show yet.

    Times are seconds of one clock that never goes back (time.monotonic).
    """

    def __init__(self) -> None:
        self._running: dict[object, float] = {}
        self._rest = 0.0  # of what fades, as of `_at`
        self._rest_at = 0.0
        self._choices: list[float] = []

    @property
    def running(self) -> int:
        """How many commands were given to the host and have not ended."""
        return len(self._running)

    def begin(self, key: object, now: float) -> None:
        """A command was given to the host; `key` is its own until `end`."""
        self._running[key] = now

    def end(self, key: object, now: float) -> None:
        """It has ended: what counts of it fades quickly."""
        began = self._running.pop(key, None)
        if began is not None:
            self._rest = self.ended(now) + math.exp((began - now) / AVERAGED)
            self._rest_at = now

    def choose(self, now: float) -> None:
        """Somebody was told that this is the best host, and will start something there that we do not see."""
        self._choices.append(now)

    def at(self, now: float) -> float:
        """Processes."""
        self._choices = [then for then in self._choices if now - then < 6 * CHOICE_FADING]
        running = sum(math.exp((began - now) / AVERAGED) for began in self._running.values())
        chosen = sum(math.exp((then - now) / CHOICE_FADING) for then in self._choices)
        return running + chosen + self.ended(now)

    def ended(self, now: float) -> float:
        """What of these is of commands that have ended: it spreads those that follow, and needs no core any more."""
        return self._rest * math.exp((self._rest_at - now) / FADING)
