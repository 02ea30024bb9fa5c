"""A component as its host shows it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

from remote_runner.deploy.component_plan import ComponentPlan, FetchPlan
from remote_runner.hosts.address import parse_address
from remote_runner.hosts.call import Header

#: States in which a component has gone wrong.
WRONG = frozenset(['failed', 'killed', 'gone', 'unknown', 'aborted'])
#: States in which it runs, or will by itself.
ALIVE = frozenset(['starting', 'started', 'ready', 'restarting', 'stopping'])


@dataclass
class Seen:
    """A component as its host shows it.

    Args:
        name, host: what identifies it; the host as the config wrote it.
        index: its start index.
        at: the name under which its host is connected; '' where that is out of reach.
        run: the run to which it belongs.
        by: who started it.
        state: starting, started, ready, restarting, stopping, stopped, exited, failed, aborted, killed (its launcher
            was), gone (nobody saw its end), unknown (its host is out of reach), missing (its host knows nothing of it).
        ready: whether it is ready; None: it does not run.
        pid: of its program.
        window: its window in the screen session.
        started, ended: when, Unix time by this machine's clock.
        uptime: seconds for which it has run; None: it does not run.
        status: its exit status (128 + n for signal n).
        restarts: how often its launcher has started it again.
        said: what it says of itself.
        reason: why it failed, or what is wrong.
        cpu: seconds of processor time that all its processes have used.
        memory: bytes of memory that they hold (resident).
        processes: how many they are.
        left: pids of processes that nobody watches over, which are being ended.
    """

    name: str
    host: str
    index: int = 0
    at: str = ''
    run: str = ''
    by: str = ''
    state: str = 'unknown'
    ready: bool | None = None
    pid: int | None = None
    window: int | None = None
    started: float | None = None
    ended: float | None = None
    uptime: float | None = None
    status: int | None = None
    restarts: int = 0
    said: str = ''
    reason: str = ''
    cpu: float | None = None
    memory: int | None = None
    processes: int | None = None
    left: tuple[int, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        """`name@host`."""
        return f'{self.name}@{self.host}'

    @property
    def is_alive(self) -> bool:
        """Whether its program runs, or will again by itself."""
        return self.state in ALIVE

    @property
    def is_there(self) -> bool:
        """Whether its program runs, or will again, or anything that it started does."""
        return self.is_alive or bool(self.processes)

    @property
    def is_wrong(self) -> bool:
        """Whether it has gone wrong."""
        return self.state in WRONG or (self.state == 'exited' and bool(self.status))

    def order(self) -> tuple[int, int]:
        """Where it stands in the order of starts."""
        return self.index, self.facts['about']['wave'] if self.facts else 0

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is not known is not there."""
        values = {name: value for name, value in vars(self).items() if name not in ('facts', 'at')}
        return {name: value for name, value in values.items() if value is not None and value not in ('', ())}

    def plan(self) -> ComponentPlan:
        """The part of its plan that its host remembers."""
        about = self.facts['about']
        return ComponentPlan(
            self.name,
            self.host,
            parse_address(self.host),
            '',
            start_index=self.index,
            wave=about['wave'],
            wait=about['wait'],
            critical=about['critical'],
            ready={} if self.facts['has_readiness'] else None,
            start_timeout=self.facts['start_timeout'],
            start_grace=self.facts['start_grace'],
            stop_timeout=self.facts['stop_timeout'],
            fetch=tuple(FetchPlan(*pair) for pair in about['fetch']),
            base_dir=self.facts['cwd'],
        )


def all_seen(answer: Header, at: str) -> list[Seen]:
    """The components in an answer to operation `survey`; `at`: the name under which the host is connected."""
    here = time.time()
    return [seen_of(facts, at, answer['now'], here) for facts in answer['components']]


def seen_of(facts: Header, at: str, now: float, here: float) -> Seen:
    """What a host says of a component (operation `survey`).

    Args:
        at: the name under which the host is connected.
        now: the time by the host's clock when it said so; here: by ours. Its times are told by our clock.
    """
    status, usage = facts['status'], facts['usage'] or {}
    seen = Seen(facts['name'], facts['host'], facts['about']['index'], at, facts['run'], facts['by'], facts=facts)
    seen.state = status['state']
    if seen.state == 'exited' and status.get('reason'):
        seen.state = 'failed'
    seen.pid, seen.window, seen.status = status.get('pid'), status.get('window'), status.get('exit_status')
    seen.restarts = status.get('restarts', 0)
    seen.said, seen.reason = status.get('said', ''), status.get('reason', '')
    seen.left = tuple(facts['left'])
    if 'started' in status:
        seen.started = status['started'] + here - now
    if 'ended' in status:
        seen.ended = status['ended'] + here - now
    if seen.is_alive:
        seen.ready = bool(facts['ready']) and seen.state in ('started', 'ready')
    if seen.is_alive and seen.started is not None and seen.state != 'restarting':
        seen.uptime = max(0.0, here - seen.started)
    seen.cpu, seen.memory, seen.processes = usage.get('cpu'), usage.get('memory'), usage.get('processes')
    if seen.state == 'restarting':
        seen.pid = None  # that of the program that has ended
    seen.reason = _explained(seen) or seen.reason
    if seen.state == 'restarting' and 'next' in status:
        seen.reason += f', starts again in {max(0.0, status["next"] - now):.1f} s'
    if status.get('log_errno'):
        trouble = f'its output cannot be written there: {os.strerror(status["log_errno"])}'
        seen.reason = '; '.join(filter(None, [seen.reason, trouble]))
    return seen


def _explained(seen: Seen) -> str:
    if seen.state == 'restarting':
        return f'ended with status {seen.status}'
    if seen.state == 'exited' and seen.processes:
        return f'processes that it started run on: {seen.processes}'
    if seen.left:
        return f'its launcher was killed; {len(seen.left)} processes that it left are being ended'
    if seen.state == 'gone':
        return 'nobody saw its end; was the host restarted, or its launcher killed?'
    return ''
