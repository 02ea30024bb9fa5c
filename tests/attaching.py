"""A person at a terminal, who looks at a session of screen on a host and presses keys.

The terminal is tmux: it shows what a person would see, whatever screen sends to get there.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tests.testbed import Testbed
from tests.testbed.process import wait_until

PATIENCE = 30.0  # seconds; the longest that anything may take to appear
_SETTINGS = 'set -g status off\nset -g default-terminal xterm-256color\nset -g escape-time 0\n'
_numbers = count(1)


class Terminal:
    """A terminal in which a command runs."""

    def __init__(self, folder: Path, argv: list[str], width: int = 80, height: int = 24) -> None:
        settings = folder / 'tmux.conf'
        settings.write_text(_SETTINGS)
        self._tmux = ['tmux', '-u', '-f', str(settings), '-L', f'remote_runner-{os.getpid()}-{next(_numbers)}']
        self._do('new-session', '-d', '-x', str(width), '-y', str(height), shlex.join(argv))

    def text(self) -> str:
        """What the terminal shows; nothing once its command has ended."""
        return self._do('capture-pane', '-p', check=False)

    def wait_for(self, words: str) -> str:
        """What the terminal shows, as soon as these words are in it."""
        wait_until(lambda: words in self.text(), f'the terminal to show {words!r}', PATIENCE)
        return self.text()

    def wait_until_gone(self, words: str) -> str:
        """What the terminal shows, as soon as these words are not in it any more."""
        wait_until(lambda: words not in self.text(), f'the terminal not to show {words!r}', PATIENCE)
        return self.text()

    def press(self, *keys: str) -> None:
        """Press keys, named as tmux names them: `q`, `C-a`, `Enter`, `PageUp`."""
        self._do('send-keys', *keys)

    def resize(self, width: int, height: int) -> None:
        self._do('resize-window', '-x', str(width), '-y', str(height))

    def close(self) -> None:
        """Close its window; the command gets SIGHUP."""
        self._do('kill-server', check=False)

    def _do(self, *command: str, check: bool = True) -> str:
        done = subprocess.run([*self._tmux, *command], capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def attached(
    bed: Testbed, host: str, session: str, folder: Path, *options: str, width: int = 80, height: int = 24
) -> Iterator[Terminal]:
    """A terminal in which `ssh -t HOST screen -x SESSION` runs; options are screen's."""
    command = shlex.join(['screen', '-x', session, *options])
    terminal = Terminal(folder, ['ssh', '-F', str(bed.ssh_config), '-t', host, command], width, height)
    try:
        yield terminal
    finally:
        terminal.close()
