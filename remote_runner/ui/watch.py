"""`status --watch`: the table of a session again and again, in place; on no terminal, one after the other."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext

from remote_runner.deploy.seen import Seen
from remote_runner.deploy.session import Session
from remote_runner.deploy.vigil import Vigil
from remote_runner.ui.frame import Line
from remote_runner.ui.live import Display
from remote_runner.ui.output import Output
from remote_runner.ui.status import as_json, status_picture, status_table
from remote_runner.ui.terminal import can_draw


def watch(session: Session, names: Sequence[str], interval: float, *, json_lines: bool) -> None:
    """Look and show until interrupted; hosts that are lost are connected to again, and keep nobody waiting.

    Args:
        session: connected.
        names: which components.
        interval: seconds between two looks.
        json_lines: whether to write a JSON object a look instead.
    """
    shown = _Shown(session, names)
    is_live = can_draw(sys.stdout) and can_draw(sys.stderr) and not json_lines
    display = Display(shown.picture, owns_screen=True) if is_live else None
    output = Output()
    vigil = Vigil(session)
    with display or nullcontext():
        while output.is_open:
            shown.take()
            if display is not None:
                display.changed()
            elif json_lines:
                output.write(json.dumps(as_json(session, shown.components)) + '\n')
            else:
                output.write(status_table(shown.components, session.session, shown.rates) + '\n')
            vigil.look(interval)


class _Shown:
    """What is shown at the moment. Written by one thread, drawn by another."""

    def __init__(self, session: Session, names: Sequence[str]) -> None:
        self._session = session
        self._names = names
        self._lock = threading.Lock()
        self._before: dict[str, tuple[Seen, float]] = {}  # what was shown of each, and when it was first shown
        self.components: list[Seen] = []
        self.rates: dict[str, float] = {}

    def take(self) -> None:
        """Show what the session has seen last."""
        now = time.monotonic()
        components = self._session.named(self._names)
        rates: dict[str, float] = {}
        shown: dict[str, tuple[Seen, float]] = {}
        for seen in components:
            before, then = self._before.get(seen.label, (None, now))
            if before is seen and seen.label in self.rates:  # its host has not answered since
                rates[seen.label] = self.rates[seen.label]
            elif before is not None and before.cpu is not None and seen.cpu is not None and now > then:
                rates[seen.label] = max(0.0, seen.cpu - before.cpu) / (now - then)
            shown[seen.label] = (seen, then if before is seen else now)
        self._before = shown
        with self._lock:
            self.components, self.rates = components, rates

    def picture(self, height: int) -> list[Line]:
        """At most so many lines: what has gone wrong first, if there is not room for all."""
        with self._lock:
            return status_picture(self.components, self._session.session, self.rates, height)
