"""What hosts report, for the decision where components run; nothing is changed there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from remote_runner.deploy.decide import Choice, decide
from remote_runner.deploy.outcome import RunOptions
from remote_runner.deploy.plan import Plan
from remote_runner.deploy.seen import Seen, all_seen
from remote_runner.deploy.session import SURVEY_TIMEOUT
from remote_runner.errors import RemoteRunnerError
from remote_runner.hosts.host import Host
from remote_runner.hosts.pool import each
from remote_runner.placement.choose import Known, Report


class Asked(NamedTuple):
    """What a host has said: its report, and what runs there of the session."""

    report: Report
    running: tuple[Seen, ...]


class Decided(NamedTuple):
    """A plan all of whose components have a host.

    Args:
        plan: it.
        choices: what was decided, in the order of the components that were undecided.
        left: of hosts where the session stands and that have nothing in the plan any more, those of its components
            that are there, as far as the plan knew where they were.
    """

    plan: Plan
    choices: list[Choice]
    left: Mapping[str, list[str]]


def decide_now(
    plan: Plan, hosts: Mapping[str, Host], absent: Mapping[str, str], options: RunOptions
) -> Decided:
    """Ask the hosts that come into question, and decide.

    What the run is going to end is not held against the host where it runs now: neither its load nor its memory.

    Args:
        plan: what is to be carried out.
        hosts: those that are connected, by name.
        absent: why others are not.
        options: how it is carried out.

    Raises:
        NoHostFits: there is none for a component.
    """
    absent = dict(absent)
    known: dict[str, Known] = {}
    running: dict[str, tuple[Seen, ...]] = {}
    candidates = {address.where: address for address in plan.candidates()}
    wanted = [hosts[name] for name in candidates if name in hosts]
    before = {*plan.before, *(c.placing.was for c in plan.undecided() if c.placing is not None)}
    found = dict(each(wanted, lambda host: _ask(host, plan.session, looks=host.name in before), options.fanout))
    goes_on = options.join is not None  # with --keep-running and --no-kill
    for host in wanted:
        asked = found[host]
        if isinstance(asked, RemoteRunnerError):
            absent[host.name] = asked.what
        else:
            running[host.name] = asked.running
            known[host.name] = Known(candidates[host.name], asked.report if goes_on else without_own(asked))
    going = {(seen.name, name) for name, seen_there in running.items() for seen in seen_there} if goes_on else set()
    machines = {name: host.facts.identity for name, host in hosts.items()}
    choices = decide(plan, known, absent, going, machines)
    decided = plan.placed([choice.address for choice in choices])
    used = {component.address.where for component in decided.components}
    names = {component.name for component in plan.undecided()}
    left = {
        name: [seen.name for seen in running.get(name, ()) if seen.name in names]
        for name in plan.before
        if name in running and name not in used
    }
    return Decided(decided, choices, left)


def _ask(host: Host, session: str, *, looks: bool) -> Asked:
    report = Report(**host.request('load', timeout=SURVEY_TIMEOUT, interval=None))
    if not looks:
        return Asked(report, ())
    answer = host.request('survey', timeout=SURVEY_TIMEOUT, session=session, runs=[])
    return Asked(report, tuple(seen for seen in all_seen(answer, host.name) if seen.is_alive))


def without_own(asked: Asked) -> Report:
    """The report as it would be without what runs there of the session: each has used so many cores on average."""
    report = asked.report
    load = sum((seen.cpu or 0.0) / max(1.0, seen.uptime or 0.0) for seen in asked.running)
    memory = sum(seen.memory or 0 for seen in asked.running)
    free = min(report.memory, report.free_memory + memory)
    return report._replace(load=max(0.0, report.load - load), free_memory=max(report.free_memory, free))
