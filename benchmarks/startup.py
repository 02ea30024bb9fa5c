"""How long each command takes to say what it can do."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import peers
from benchmarks.measure import Series, take_turns
from benchmarks.stage import OURS, Stage


def measure(stage: Stage, runs: int, wanted: Callable[[str], bool], say: Callable[[str], None]) -> list[Series]:
    """`--help` of all that are wanted, in turns."""
    programs = {
        'ours': OURS,
        'pyinfra': peers.program('pyinfra'),
        'clush': peers.program('clush'),
        'ansible': peers.program('ansible'),
    }
    return take_turns(
        [stage.contender(name, program, '--help') for name, program in programs.items() if wanted(name)],
        runs,
        before=lambda contender: None,
        check=lambda contender: None,
        after=lambda contender: None,
        say=say,
    )
