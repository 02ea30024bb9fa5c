"""Running commands from outside: how long, how much CPU, how much memory; in turns, after a warm-up run of each."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

#: Seconds until a command is given up, unless its contender has others.
PATIENCE = 300.0


@dataclass(frozen=True)
class Contender:
    """A command that is measured, under the name that the tables show.

    Args:
        name: short; `note`: what else a reader should know of how it is run.
        argv, folder, environment: the command, where it is run, and all of its environment.
        patience: seconds until a run is given up; then there is no further one.
        most_runs: timed runs of one that is slow, where others have more.
        tasks: how many it carries out, where seconds are those of each; 0: they are those of all.
    """

    name: str
    argv: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    note: str = ''
    patience: float = PATIENCE
    most_runs: int | None = None
    tasks: int = 0

    @property
    def log(self) -> Path:
        """What its last run printed."""
        return self.folder / 'output.log'


@dataclass(frozen=True)
class Wire:
    """Bytes on the cables of all hosts, with the headers of the packets."""

    to_hosts: int
    from_hosts: int

    def __sub__(self, earlier: Wire) -> Wire:
        return Wire(self.to_hosts - earlier.to_hosts, self.from_hosts - earlier.from_hosts)


@dataclass(frozen=True)
class Run:
    """One run of a command.

    Args:
        seconds: from before its process is made until it has ended.
        cpu: seconds of CPU of it and of the children it waited for, on this side of the connections.
        fault: why it does not count; None if it does.
        is_given_up: whether that is because it took too long.
        wire: what it sent and was sent; None where that is not counted.
    """

    seconds: float
    cpu: float
    fault: str | None = None
    is_given_up: bool = False
    wire: Wire | None = None


@dataclass(frozen=True)
class Memory:
    """Peaks in bytes.

    Args:
        largest: resident memory of the largest process.
        together: of all processes, what they share counted once.
    """

    largest: int
    together: int


@dataclass
class Series:
    """All runs of a contender."""

    contender: Contender
    warm_up: Run
    runs: list[Run] = field(default_factory=list)
    memory: Memory | None = None

    @property
    def good(self) -> list[Run]:
        """The runs that count."""
        return [run for run in self.runs if run.fault is None]

    @property
    def faults(self) -> list[str]:
        """Why the others do not."""
        return [run.fault for run in self.runs if run.fault is not None]

    @property
    def is_given_up(self) -> bool:
        """Whether a run took too long, so that there are no more."""
        return any(run.is_given_up for run in (self.warm_up, *self.runs))

    @property
    def median(self) -> float:
        """Seconds, of a task where there are some; not a number when no run counts."""
        return _median([run.seconds for run in self.good]) / (self.contender.tasks or 1)

    @property
    def median_sent(self) -> float:
        """Bytes to the hosts; not a number when no run counts, or they are not counted."""
        return _median([run.wire.to_hosts for run in self.good if run.wire])

    @property
    def median_received(self) -> float:
        """Bytes from the hosts, likewise."""
        return _median([run.wire.from_hosts for run in self.good if run.wire])


def run(contender: Contender) -> Run:
    """Run the command once, its output into its log."""
    with contender.log.open('wb') as log:
        begun = time.perf_counter()
        process = _start(contender, log.fileno())
        given_up = threading.Event()

        def give_up() -> None:
            given_up.set()
            _kill(process.pid)

        killer = threading.Timer(contender.patience, give_up)
        killer.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        killer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    fault = f'exit status {process.returncode}' if process.returncode else None
    if given_up.is_set():
        fault = f'given up after {contender.patience:g} s'
    return Run(seconds, usage.ru_utime + usage.ru_stime, fault, given_up.is_set())


def memory(contender: Contender) -> Memory:
    """Run the command once more, and look at its processes every 10 ms.

    The kernel's own peak (getrusage(2)) will not do: it holds what the process was before exec, a copy of us.
    """
    largest = together = 0
    with contender.log.open('wb') as log, _start(contender, log.fileno()) as process:
        deadline = time.monotonic() + contender.patience
        while process.poll() is None:
            family = _family(process.pid)
            largest = max(largest, *(_kilobytes(pid, 'status', 'VmHWM:') * 1024 for pid in family))
            together = max(together, sum(_kilobytes(pid, 'smaps_rollup', 'Pss:') * 1024 for pid in family))
            if time.monotonic() > deadline:
                _kill(process.pid)
            time.sleep(0.01)
    return Memory(largest, together)


def take_turns(
    contenders: Sequence[Contender],
    runs: int,
    *,
    before: Callable[[Contender], None],
    check: Callable[[Contender], str | None],
    after: Callable[[Contender], None],
    say: Callable[[str], None],
    wire: Callable[[], Wire] | None = None,
) -> list[Series]:
    """Warm all up, then A B C A B C …, then each once more for its memory.

    `before`, `check` (gives a fault) and `after` each run are not timed. `wire` gives the bytes there have ever been.
    """

    def once(contender: Contender) -> Run:
        before(contender)
        bytes_before = wire() if wire else None
        result = run(contender)
        if wire and bytes_before:
            result = replace(result, wire=wire() - bytes_before)
        fault = result.fault or check(contender)
        after(contender)
        say(f'    {contender.name:<10} {result.seconds:6.2f} s{f"  FAILED: {fault}" if fault else ""}')
        if fault:
            say(_tail(contender.log))
        return replace(result, fault=fault)

    say('warm-up')
    series = [Series(contender, once(contender)) for contender in contenders]
    for number in range(1, runs + 1):
        say(f'round {number} of {runs}')
        for one in series:
            if not one.is_given_up and number <= (one.contender.most_runs or runs):
                one.runs.append(once(one.contender))
    say('memory')
    for one in [one for one in series if not one.is_given_up]:
        before(one.contender)
        one.memory = memory(one.contender)
        after(one.contender)
        say(f'    {one.contender.name:<10} {one.memory.largest / 1e6:6.1f} MB')
    return series


def _start(contender: Contender, log: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        contender.argv,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=contender.folder,
        env=contender.environment,
        process_group=0,
    )


def _kill(pid: int) -> None:
    """End a command with all that it started, in its process group or not (the workers of ansible are not)."""
    for one in _family(pid):
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _family(pid: int) -> list[int]:
    """The process and its descendants."""
    found = [pid]
    for parent in found:
        try:
            for children in Path(f'/proc/{parent}/task').glob('*/children'):
                found += map(int, children.read_text().split())
        except OSError:
            continue  # it, or a thread of it, has just ended
    return found


def _kilobytes(pid: int, file: str, name: str) -> int:
    """A number of /proc/PID/FILE (proc(5)); 0 when the process is gone."""
    try:
        lines = Path(f'/proc/{pid}/{file}').read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float('nan')


def _tail(log: Path, lines: int = 12) -> str:
    return '\n'.join(f'    | {line}' for line in log.read_text(errors='replace').splitlines()[-lines:])
