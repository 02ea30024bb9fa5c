"""Processes known by pid and start time, so that a pid used again is not mistaken for them; waiting; whole files."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.testbed.errors import TestbedError

PATIENCE = 30.0  # seconds until a condition that should have come true long ago is given up


@dataclass(frozen=True)
class Process:
    """A process of this machine; `start` is its start time in clock ticks since boot (proc(5), stat field 22)."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this pid now. Raises ProcessLookupError when there is none."""
        start = _start_time(pid)
        if start is None:
            raise ProcessLookupError(pid)
        return cls(pid, start)

    @property
    def is_alive(self) -> bool:
        return _start_time(self.pid) == self.start

    def kill(self) -> None:
        """SIGKILL; a process already gone is fine."""
        if self.is_alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that others read all of it or nothing, whenever we are killed."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text)
    fresh.rename(path)


def await_stop(pid: int, proc: Path = Path("/proc")) -> None:
    """Return once all threads of a process that SIGSTOP was sent to have stopped: kill(2) returns before.

    `proc` is the proc(5) of the host that has this pid; a process that is gone has stopped.
    """

    def has_stopped() -> bool:
        try:
            stats = [(task / "stat").read_text() for task in (proc / str(pid) / "task").iterdir()]
        except (FileNotFoundError, ProcessLookupError):
            return not (proc / str(pid)).exists()
        return all(stat.rpartition(")")[2].split()[0] in "TtZX" for stat in stats)

    wait_until(has_stopped, f"process {pid} to stop")


def children(pid: int) -> list[Process]:
    """The processes whose parent this is; none when it is gone."""
    try:
        pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [Process.of(int(child)) for child in pids]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _start_time(pid: int) -> int | None:
    """None when the process is gone, or dead and not yet waited for."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])


def wait_until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Return once the condition holds; raises TestbedError naming `what` when it does not within `patience` seconds."""
    deadline = time.monotonic() + patience
    pause = 0.001
    while not condition():
        if time.monotonic() > deadline:
            raise TestbedError(f"waited {patience:g} s in vain: {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
