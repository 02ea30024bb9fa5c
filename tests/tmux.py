"""A real terminal to look at: tmux, on which `terminal_driver` shows a run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]


def until(condition: Callable[[], object], what: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f'not in time: {what()}'
        threading.Event().wait(0.005)


class Tmux:
    """A terminal of 100 x 24 on which the driver runs."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix='rr-tmux-')  # a socket's path must be short
        lines = Path(self._folder.name, 'lines')
        os.mkfifo(lines)
        self._lines = os.open(lines, os.O_RDWR)
        driver = f'{sys.executable} -m tests.terminal_driver {lines}; echo "status $?"; exec cat'
        self('new-session', '-d', '-x', '100', '-y', '24', '-c', str(ROOT), driver)

    def __call__(self, *arguments: str) -> str:
        command = ['tmux', '-S', f'{self._folder.name}/socket', '-f', '/dev/null', *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def do(self, *lines: str) -> None:
        for line in lines:
            os.write(self._lines, f'{line}\n'.encode())

    def end(self) -> None:
        self.do('raise SystemExit(7)')

    def screen(self) -> list[str]:
        return [line.rstrip() for line in self('capture-pane', '-p').rstrip().split('\n')]

    def shows(self, condition: Callable[[list[str]], object]) -> list[str]:
        """The screen, as soon as `condition` holds for its lines."""
        lines: list[str] = []

        def holds() -> object:
            lines[:] = self.screen()
            return condition(lines)

        until(holds, lambda: '\n'.join(lines))
        return lines

    def close(self) -> None:
        os.close(self._lines)
        self('kill-server')
        self._folder.cleanup()
