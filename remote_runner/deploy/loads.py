"""What hosts report, for the decision where components run; nothing is changed there.

What the daemon has told (`outset.py`) is not asked again, and of its hosts only those are connected to that are chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from remote_runner.deploy.decide import Choice, decide
from remote_runner.deploy.outcome import RunOptions
from remote_runner.deploy.outset import Outset
from remote_runner.deploy.plan import Plan
from remote_runner.deploy.seen import Seen, all_seen
from remote_runner.deploy.session import SURVEY_TIMEOUT
from remote_runner.errors import NoHostFits, RemoteRunnerError
from remote_runner.hosts.address import Address
from remote_runner.hosts.host import Host
from remote_runner.hosts.pool import each
from remote_runner.placement.choose import CHOICE_FADING, Known, Report


class Asked(NamedTuple):
    """What a host has said: its report, and what runs there of the session; and its virtual load, from the daemon."""

    report: Report
    running: tuple[Seen, ...]
    virtual: float = 0.0


class Decided(NamedTuple):
    """A plan all of whose components have a host.

    Args:
        plan: it.
        choices: what was decided, in the order of the components that were undecided.
        left: of hosts where the session stands and that have nothing in the plan any more, those of its components
            that are there, as far as the plan knew where they were.
        untried: why hosts were left out that nobody tried to reach now, by name.
    """

    plan: Plan
    choices: list[Choice]
    left: Mapping[str, list[str]]
    untried: Mapping[str, str]


#: The hosts that could be connected to, and why others could not.
Connected = tuple[Mapping[str, Host], Mapping[str, RemoteRunnerError]]


def decide_now(
    plan: Plan,
    connected: Connected,
    connect: Callable[[Sequence[Address]], Connected],
    options: RunOptions,
    *,
    peek: bool = False,
) -> Decided:
    """Ask those hosts that come into question of which the daemon has told nothing, decide, and connect to the chosen.

    What the run is going to end is not held against the host where it runs now: neither its load nor its memory.

    Args:
        plan: what is to be carried out.
        connected: the hosts of the outset, or all that come into question.
        connect: connects to others.
        options: how it is carried out.
        peek: whether this is a question alone; else the daemon is told.

    Raises:
        NoHostFits: there is none for a component.
    """
    deciding = _Deciding(plan, options, peek=peek)
    deciding.take(*connected)
    return deciding.carry_out(connect)


class _Deciding:
    """See `decide_now`."""

    def __init__(self, plan: Plan, options: RunOptions, *, peek: bool) -> None:
        self._plan = plan
        self._outset = outset = options.outset or Outset(plan.addresses())
        self._options = options
        self._peek = peek
        self._goes_on = options.join is not None  # with --keep-running and --no-kill
        self._before = {*plan.before, *(c.placing.was for c in plan.undecided() if c.placing is not None)}
        self._candidates = {address.where: address for address in plan.candidates()}
        self._hosts: dict[str, Host] = {}
        self._running: dict[str, tuple[Seen, ...]] = {}
        self._known = dict(outset.told.known)
        self._untried = dict(outset.told.lost)
        self._absent = dict(outset.told.lost)
        #: What is decided; None: it has to be, with what is known now.
        self._choices: Sequence[Choice] | None = outset.choices
        self._announced = outset.chosen(outset.choices or ())

    def carry_out(self, connect: Callable[[Sequence[Address]], Connected]) -> Decided:
        while True:
            try:
                if self._choices is None:
                    self._choices = self._decide()
            except NoHostFits as error:
                missing = [self._candidates[name] for name in error.reasons if name in self._untried]
                if not missing:
                    raise
            else:
                self._announce(self._choices)
                chosen = {choice.address.where: choice.address for choice in self._choices}
                missing = [address for name, address in chosen.items() if name not in self._hosts]
                if not missing:
                    return self._decided(self._choices)
            self.take(*connect(missing))

    def take(self, hosts: Mapping[str, Host], failures: Mapping[str, RemoteRunnerError]) -> None:
        """These are connected, and those cannot be had: ask what is not known yet."""
        self._hosts.update(hosts)
        machines = self._outset.told.machines
        if any(h.facts.identity in machines.values() and name not in machines for name, h in hosts.items()):
            self._choices = None  # what is fixed there is on one of the daemon's machines, under another name
        tried = self._candidates.keys() & {*hosts, *failures}
        for name in tried:
            self._untried.pop(name, None)
        for name in tried & failures.keys():
            self._leave_out(name, failures[name])
        wanted = [host for name, host in hosts.items() if name in tried and not self._is_told(host)]
        for host, asked in each(wanted, self._ask, self._options.fanout):
            if isinstance(asked, RemoteRunnerError):
                self._leave_out(host.name, asked)
            else:
                self._choices = None
                self._running[host.name] = asked.running
                address = self._candidates[host.name]
                if self._goes_on:
                    self._known[host.name] = Known(address, asked.report, asked.virtual)
                else:
                    self._known[host.name] = Known(address, without_own(asked), virtual_without_own(asked))

    def _leave_out(self, name: str, error: RemoteRunnerError) -> None:
        self._choices = None
        self._known.pop(name, None)
        self._absent[name] = error.what

    def _is_told(self, host: Host) -> bool:
        """Whether there is nothing to ask: the daemon knows this very machine, and nothing of ours may be there."""
        return self._told(host) is not None and host.name not in self._before

    def _told(self, host: Host) -> Known | None:
        told = self._outset.told
        return told.known.get(host.name) if told.machines.get(host.name) == host.facts.identity else None

    def _ask(self, host: Host) -> Asked:
        told = self._told(host)
        report = told.report if told else Report(**host.request('load', timeout=SURVEY_TIMEOUT, interval=None))
        virtual = told.virtual if told else 0.0
        if host.name not in self._before:
            return Asked(report, (), virtual)
        answer = host.request('survey', timeout=SURVEY_TIMEOUT, session=self._plan.session, runs=[])
        return Asked(report, tuple(seen for seen in all_seen(answer, host.name) if seen.is_alive), virtual)

    def _alive(self) -> set[tuple[str, str]]:
        return {(seen.name, name) for name, found in self._running.items() for seen in found}

    def _decide(self) -> list[Choice]:
        going = self._alive() if self._goes_on else ()
        machines = {**self._outset.told.machines, **{name: host.facts.identity for name, host in self._hosts.items()}}
        return decide(self._plan, self._known, self._absent, going, machines)

    def _announce(self, choices: Sequence[Choice]) -> None:
        """Tell the daemon what it was not told yet."""
        chosen = self._outset.chosen(choices, self._alive())
        if not self._peek:
            self._outset.told.choose(chosen - self._announced)
        self._announced |= chosen

    def _decided(self, choices: Sequence[Choice]) -> Decided:
        plan = self._plan.placed([choice.address for choice in choices])
        hosts = [self._hosts.get(component.address.where) for component in plan.components]
        used = {host.facts.identity for host in hosts if host is not None}  # a machine may have two names
        names = {component.name for component in self._plan.undecided()}
        left = {
            name: [seen.name for seen in self._running[name] if seen.name in names]
            for name in plan.before
            if name in self._running and self._hosts[name].facts.identity not in used
        }
        return Decided(plan, list(choices), left, self._untried)


def without_own(asked: Asked) -> Report:
    """The report as it would be without what runs there of the session: each has used so many cores on average."""
    report = asked.report
    load = sum((seen.cpu or 0.0) / max(1.0, seen.uptime or 0.0) for seen in asked.running)
    memory = sum(seen.memory or 0 for seen in asked.running)
    free = min(report.memory, report.free_memory + memory)
    return report._replace(load=max(0.0, report.load - load), free_memory=max(report.free_memory, free))


def virtual_without_own(asked: Asked) -> float:
    """The virtual load without what is left of our own choices: what started there a moment ago was one."""
    return max(0.0, asked.virtual - sum(math.exp(-(seen.uptime or 0.0) / CHOICE_FADING) for seen in asked.running))
