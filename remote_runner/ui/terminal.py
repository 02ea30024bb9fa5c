"""A run for a person at a terminal, or for the log file that stands in for one.

    with Terminal() as terminal:
        events.listen(terminal)
        ...

On a terminal a live display shows how far each host is, and log records tell of trouble alone. Elsewhere each fact is
a log record of a fitting level. At the end the table of components goes to stdout, what failed goes to stderr.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from remote_runner.events import Event, FilesDeleted
from remote_runner.ui.lines import line_of
from remote_runner.ui.output import Output
from remote_runner.ui.progress import Progress, State

if TYPE_CHECKING:
    from remote_runner.ui.frame import Line
    from remote_runner.ui.live import Display
    from remote_runner.ui.tables import Row

_logger = logging.getLogger('remote_runner')


class Terminal:
    """Shows one run. Use as a context manager, and as listener of its events.

    Args:
        table: whether the table is printed at the end (not with `--json`: stdout is the events').
        quiet: nothing is said of what goes well: whoever uses this says it at the end.
        live: whether there is a live display; None: where stderr is a terminal that can show one.
    """

    def __init__(
        self,
        *,
        table: bool = True,
        quiet: bool = False,
        live: bool | None = None,
    ) -> None:
        self._table = table
        self._quiet = quiet
        self._progress = Progress()
        self._lock = threading.Lock()  # over _progress; nothing is written while it is held
        is_live = can_draw(sys.stderr) if live is None else live
        self._display = self._live_display() if is_live else None
        self._hints: list[str] = []

    def __enter__(self) -> Terminal:
        if self._display:
            self._display.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display:
            self._display.__exit__()
        rows = self.rows()
        if not rows:
            return
        from remote_runner.ui.tables import failures, result_table

        if all(row.state == State.NOT_STARTED for row in rows):
            return
        if self._table:
            Output().write(result_table(rows, self._progress.session, color=can_color(sys.stdout)))
        failed = failures(rows)
        if failed:
            _logger.error('%s', failed)

    def __call__(self, event: Event) -> None:
        """Show what happened."""
        with self._lock:
            self._progress.apply(event, time.monotonic())
        if self._display:
            self._display.changed()
        line = line_of(event)
        if line is None:
            return
        level, text = line
        is_told = level >= logging.WARNING or isinstance(event, FilesDeleted)  # nobody can look that up later
        if is_told or not (self._display or self._quiet) or _logger.isEnabledFor(logging.DEBUG):
            _logger.log(level, '%s', text)

    def rows(self) -> list[Row]:
        """The components as they are now, by start index."""
        with self._lock:
            components = list(self._progress.components())
        if not components:
            return []  # of a copy: what tables take to import is spared
        from remote_runner.ui.tables import row_of

        return [row_of(component) for component in components]

    def paused(self) -> AbstractContextManager[None]:
        """Meanwhile the terminal is somebody else's, who asks for a password, say. From any thread."""
        return self._display.paused() if self._display else nullcontext()

    def _live_display(self) -> Display:
        from remote_runner.ui.live import Display  # and all that it draws with

        return Display(self._picture)

    def _picture(self, height: int) -> list[Line]:
        with self._lock:
            if not self._progress.is_running():
                self._hints = []
            elif not self._hints:
                from remote_runner.ui.tables import attach_lines, row_of

                rows = [row_of(component) for component in self._progress.components()]
                self._hints = attach_lines(rows, self._progress.session)
            from remote_runner.ui.frame import frame

            return frame(self._progress, height, time.monotonic(), self._hints)


def can_draw(stream: TextIO | None) -> bool:
    """Whether `stream` is a terminal that does more than show text."""
    return stream is not None and stream.isatty() and os.environ.get('TERM', 'dumb') not in ('dumb', 'unknown', '')


def can_color(stream: TextIO | None) -> bool:
    """Whether `stream` is such a terminal, and colours are wanted (https://no-color.org)."""
    return can_draw(stream) and not os.environ.get('NO_COLOR')
