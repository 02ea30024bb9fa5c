"""Real terminals to look at: tmux, on which a command runs, or `terminal_driver` shows a run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.testbed.process import PATIENCE

ROOT = Path(__file__).parents[1]


def until(condition: Callable[[], object], what: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f'not in time: {what()}'
        threading.Event().wait(0.005)


class Window:
    """A terminal of 100 x 24, or as many rows, on which a command runs."""

    def __init__(self, command: str, folder: Path = ROOT, rows: int = 24) -> None:
        self._folder = TemporaryDirectory(prefix='rr-tmux-')  # a socket's path must be short
        self('new-session', '-d', '-x', '100', '-y', str(rows), '-c', str(folder), command)

    def __call__(self, *arguments: str) -> str:
        command = ['tmux', '-S', f'{self._folder.name}/socket', '-f', '/dev/null', *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def type(self, text: str) -> None:
        """Press these keys."""
        self('send-keys', '-l', '--', text)

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
        self('kill-server')
        self._folder.cleanup()


class Tmux(Window):
    """A terminal on which the driver runs."""

    def __init__(self) -> None:
        self._pipe = TemporaryDirectory(prefix='rr-tmux-')
        lines = Path(self._pipe.name, 'lines')
        os.mkfifo(lines)
        self._lines = os.open(lines, os.O_RDWR)
        super().__init__(f'{sys.executable} -m tests.terminal_driver {lines}; echo "status $?"; exec cat')

    def do(self, *lines: str) -> None:
        for line in lines:
            os.write(self._lines, f'{line}\n'.encode())

    def end(self) -> None:
        self.do('raise SystemExit(7)')

    def close(self) -> None:
        os.close(self._lines)
        super().close()
        self._pipe.cleanup()
