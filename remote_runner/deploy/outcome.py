"""How a plan is to be carried out, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from remote_runner.agent.tree import describe_status
from remote_runner.defaults import FANOUT, START_TIMEOUT
from remote_runner.deploy.board import RUNNING, State, Tracked
from remote_runner.errors import RemoteRunnerError
from remote_runner.files.options import CopyOptions
from remote_runner.hosts.credentials import Credentials

if TYPE_CHECKING:
    from remote_runner.deploy.outset import Outset


class Experiment(Protocol):
    """What is done with the components once all of them are ready: the sweeps of a config."""

    def run(self) -> None:
        """Do it; returns when all is done.

        Raises:
            RemoteRunnerError: it has failed, in part or as a whole.
        """

    def cancel(self) -> None:
        """Let `run` come to its end soon, and wait for that. From any other thread."""


class RunOptions(NamedTuple):
    """How a plan is carried out.

    Args:
        kill_first: quit sessions of the same name that an earlier run left; else add windows to them.
        zombie: windows stay when their programs have ended.
        copying: how files are brought.
        terminate: when the components with `wait` have ended, end all others too.
        stop_on_failure: when a component does not start, end those that this run has started.
        skip_unreachable: go on without hosts that cannot be reached.
        fanout: hosts that are worked on at the same time.
        start_timeout: seconds until a component must run, where it says nothing itself.
        sudo: where the password comes from that sudo may want of components that run as other users.
        last: the process ends with this run, and leaves closing connections to the system.
        keep_running: leave components of the run `join` alone that have not changed.
        is_part: the plan is a part of that run; the rest of it is none of our business.
        results: the folder into which what components wrote is brought after waiting for them; None: nothing is.
        experiment: what is done once all have started; None: nothing is.
        join: the id of a run that these components belong to; None: this is a run of its own.
        outset: what is known before the first host is connected; None: nothing is.
    """

    kill_first: bool = True
    zombie: bool = True
    copying: CopyOptions = CopyOptions()
    terminate: bool = False
    stop_on_failure: bool = False
    skip_unreachable: bool = False
    fanout: int = FANOUT
    start_timeout: float = START_TIMEOUT
    sudo: Credentials | None = None
    last: bool = False
    join: str | None = None
    keep_running: bool = False
    is_part: bool = False
    results: Path | None = None
    experiment: Experiment | None = None
    outset: Outset | None = None


@dataclass
class Outcome:
    """What became of a run. `error` is None, or what ended it early."""

    run: str
    session: str
    exit_status: int = 0
    error: BaseException | None = None
    components: list[Tracked] = field(default_factory=list)
    servers: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def running(self) -> list[Tracked]:
        """The components that run on when the command has ended."""
        return [tracked for tracked in self.components if tracked.state in RUNNING | {State.UNKNOWN}]


def report(tracked: Tracked) -> str:
    """One failed component in words: where, why, and its last lines."""
    reason = tracked.reason
    if not reason and tracked.status is not None:
        reason = f'it ended {describe_status(tracked.status)}'
    error = RemoteRunnerError(
        reason or tracked.state.value, host=tracked.plan.host, component=tracked.plan.name, output=tracked.output
    )
    return str(error)
