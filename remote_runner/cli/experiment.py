"""The sweeps of a config that has components, too: they run when these are ready."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from remote_runner.cli import sweep
from remote_runner.errors import SweepFailed

if TYPE_CHECKING:
    from remote_runner.deploy.plan import Plan
    from remote_runner.deploy.sweeps import SweepPlan
    from remote_runner.hosts.pool import Opens

#: Seconds after which a sweep that goes on is told again that it is cancelled.
AGAIN = 0.05


class Sweeps:
    """See `deploy.outcome.Experiment`.

    Args:
        plan: of which the sweeps are run, one after the other.
        connector: makes connections.
        options: of the command.
        paused: meanwhile the terminal is theirs, see `Terminal.paused`.
    """

    def __init__(
        self,
        plan: Plan,
        connector: Opens,
        options: argparse.Namespace,
        paused: Callable[[], AbstractContextManager[None]],
    ) -> None:
        # With --json stdout is for JSON alone, and users' functions like to print.
        self._sweeps = [sweep.telling_stderr(each) for each in plan.sweeps] if options.json else plan.sweeps
        self._paused = paused
        self._connector = connector
        self._options = sweep.make_parser().parse_args([options.config, '--fanout', str(options.fanout)])
        self._cancel: Callable[[], None] = lambda: None
        self._is_cancelled = threading.Event()
        self._is_over = threading.Event()

    def run(self) -> None:
        """Run them.

        Raises:
            SweepFailed: tasks have failed for good, or it was cancelled.
        """
        try:
            with self._paused():
                failed = [plan.name for plan in self._sweeps if not self._has_succeeded(plan)]
        finally:
            self._is_over.set()
        if failed:
            which = f'sweep {failed[0]}' if len(failed) == 1 else f'sweeps {", ".join(failed)}'
            what = 'cancelled' if self._is_cancelled.is_set() else 'not done: tasks have failed'
            raise SweepFailed(f'{which}: {what}', remedy='`remote_runner jobs failed` lists them')

    def _has_succeeded(self, plan: SweepPlan) -> bool:
        if self._is_cancelled.is_set():
            return False
        meta: dict[str, object] = {'kind': 'sweep of a run', 'sweep': plan.name, 'what': self._options.config}
        return sweep.begin(plan, self._options, self._connector, meta, self._meet) == 0

    def cancel(self) -> None:
        """See `Experiment`. Waits until they are over; a sweep that has just begun hears of it when it can."""
        self._is_cancelled.set()
        while not self._is_over.wait(AGAIN):
            self._cancel()

    def _meet(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
