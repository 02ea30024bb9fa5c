"""Jobs for a person at a terminal, or for the log file that stands in for one; results go to stdout past all this.

    with JobsTerminal(statistics) as terminal:
        ...
        terminal.hear(fact)
        terminal.changed()      # once a turn

On a terminal a live display on stderr shows how far it is, elsewhere a log record says so now and then. At the end
there is a table of the hosts, and what failed; with `--json` all numbers as an object.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from remote_runner.jobs.book import Aside
from remote_runner.jobs.engines.base import Fact, HostDown, HostLoad, HostSilent, HostUp
from remote_runner.jobs.formats import Result
from remote_runner.jobs.policy import Cause, Outcome
from remote_runner.jobs.sink import Descriptor, Sink, copy_by_pieces
from remote_runner.jobs.statistics import last_line
from remote_runner.jobs.views import Failure, View
from remote_runner.ui.terminal import can_color, can_draw
from remote_runner.ui.text import count, first_line, tame

if TYPE_CHECKING:
    from remote_runner.ui.frame import Line
    from remote_runner.ui.live import Display

_logger = logging.getLogger('remote_runner')
#: Seconds between two lines that say how far it is, where no display does: at the beginning, and after a minute.
OFTEN, SELDOM = 10.0, 60.0
#: Failures that are told at once; all are at the end.
TOLD_AT_ONCE = 20
_SAYS = {
    Cause.LOST: 'lost with its host',
    Cause.TIMEOUT: 'over its time limit',
    Cause.REJECTED: 'rejected',
    Cause.RESOURCES: 'could not be run',
    Cause.CANCELLED: 'cancelled',
    Cause.POISON: 'poison, lost on three different hosts',
}


class Numbers(Protocol):
    """What is shown: `Statistics`, or what another process tells of its own."""

    def view(self) -> View: ...

    def to_dict(self) -> dict[str, Any]: ...


class JobsTerminal:
    """Shows the numbers of one job. Use as a context manager.

    Args:
        statistics: the numbers.
        as_json: whether they are an object of JSON at the end, and no table.
        live: whether there is a live display; None: where stderr is a terminal that can show one.
        more: a command that lists all failures, named where not all are.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        statistics: Numbers,
        *,
        as_json: bool = False,
        live: bool | None = None,
        more: str = '',
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._statistics = statistics
        self._as_json = as_json
        self._more = more
        self._clock = clock
        self._begun = clock()
        self._next_line = self._begun + OFTEN
        self._told = 0
        #: Hosts that get nothing new because of their load.
        self._loaded: set[str] = set()
        is_live = can_draw(sys.stderr) if live is None else live
        self._display = self._live_display() if is_live else None

    def __enter__(self) -> JobsTerminal:
        if self._display:
            self._display.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display:
            self._display.__exit__()
        from remote_runner.ui.job_tables import failures, summary

        view = self._statistics.view()
        if self._as_json and sys.stderr is not None:
            sys.stderr.write(json.dumps(self._statistics.to_dict()) + '\n')
            sys.stderr.flush()
        elif view.total:
            _logger.info('%s', summary(view))
        if view.failed:
            _logger.error('%s', failures(view, self._more))

    def changed(self) -> None:
        """There are new numbers. Does not wait for the drawing."""
        if self._display:
            self._display.changed()
            return
        now = self._clock()
        if now >= self._next_line:
            self._next_line = now + (OFTEN if now - self._begun < SELDOM else SELDOM)
            from remote_runner.ui.job_frame import progress

            _logger.info('%s', ', '.join(progress(self._statistics.view())))

    def hear(self, fact: Fact | Aside) -> None:
        """A host came or went, or is set aside: whoever reads a log is told, at a terminal of trouble alone."""
        match fact:
            case HostUp(host, slots):
                if not self._display:
                    _logger.info('%s: ready, %s', host, count(slots, 'slot'))
            case HostLoad(host, load, most):
                if fact.is_above != (host in self._loaded):
                    (self._loaded.add if fact.is_above else self._loaded.discard)(host)
                    what = f'above {most:g}: it gets nothing new' if fact.is_above else 'it gets tasks again'
                    _logger.info('%s: load %.2f a core, %s', host, load, what)
            case Aside(host, seconds, why):
                _logger.warning('%s: set aside, and tried again in %.0f s: %s', host, seconds, first_line(why))
            case HostSilent(host, why):
                _logger.warning('%s: connection lost, connecting again: %s', host, _reason(host, why))
            case HostDown(host, why, is_final):
                level, what = (logging.ERROR, 'given up') if is_final else (logging.WARNING, 'gone')
                _logger.log(level, '%s: %s: %s', host, what, _reason(host, why))

    def failed(self, result: Result) -> None:
        """A task has failed for good; the first ones are told at once."""
        outcome = result.ended.outcome
        if outcome.cause in (None, Cause.CANCELLED):
            return
        self._told += 1
        if self._told == TOLD_AT_ONCE + 1:
            _logger.error('more tasks fail; all that did are listed at the end')
        if self._told > TOLD_AT_ONCE:
            return
        where = f' on {result.ended.host}' if result.ended.host else ''
        tries = f', attempt {result.ended.attempt}' if result.ended.attempt > 1 else ''
        line = last_line(result.ended.tail)
        said = f': {first_line(line)}' if line else ''
        _logger.error('task %d failed%s%s: %s%s', result.position, where, tries, how(outcome), said)

    def _live_display(self) -> Display:
        from remote_runner.ui.live import Display  # and all that it draws with

        return Display(self._picture)

    def _picture(self, height: int) -> list[Line]:
        from remote_runner.ui.job_frame import frame

        return frame(self._statistics.view(), height)


def how(outcome: Outcome | Failure) -> str:
    """In words how an attempt failed."""
    cause = outcome.cause
    text = f'exit status {outcome.status}' if cause in (Cause.EXIT, None) else _SAYS[cause]
    return f'{text} ({first_line(outcome.why)})' if outcome.why else text


def stdout_sink() -> Sink:
    """Where results go: stdout, or the terminal where that is one, above the live display."""
    if sys.stdout.isatty():
        return _Shown()
    sys.stdout.flush()
    return Descriptor(sys.stdout.fileno())


class _Shown:
    """Stdout that is a terminal: nothing reaches it that it would obey."""

    def write(self, data: bytes) -> None:
        """See `Sink`. The stream of this moment, for a display may have replaced it."""
        if data:
            color = can_color(sys.stdout)
            lines = b'\n'.join(tame(line, color=color) for line in data.split(b'\n'))
            sys.stdout.write(lines.decode('utf-8', 'backslashreplace'))
            sys.stdout.flush()

    def copy(self, file: BinaryIO, size: int) -> None:
        """See `Sink`."""
        copy_by_pieces(self, file, 0, size)


def _reason(host: str, why: str) -> str:
    return first_line(why.removeprefix(f'{host}: '))
