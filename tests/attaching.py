"""A person at a terminal, who looks at a session of screen on a host and presses keys.

The terminal is tmux: it shows what a person would see, whatever screen sends to get there.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tests.deploying import sessions
from tests.testbed import Testbed, TestbedError
from tests.testbed.process import await_stop, wait_until

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
        return self._wait(lambda text: words in text, f'to show {words!r}')

    def wait_until_gone(self, words: str) -> str:
        """What the terminal shows, as soon as these words are not in it any more."""
        return self._wait(lambda text: words not in text, f'not to show {words!r}')

    def press(self, *keys: str) -> None:
        """Press keys, named as tmux names them: `q`, `C-a`, `Enter`, `PageUp`."""
        self._do('send-keys', *keys)

    def press_until_shown(self, key: str, words: str) -> None:
        """Press a key again and again, as a person does who does not know whether it is time for it already."""
        self._wait(lambda text: words in text, f'to show {words!r} after {key}', key)

    def press_until_gone(self, key: str, words: str) -> None:
        """The same for words that are to vanish."""
        self._wait(lambda text: words not in text, f'not to show {words!r} after {key}', key)

    def resize(self, width: int, height: int) -> None:
        self._do('resize-window', '-x', str(width), '-y', str(height))

    def shows_cursor(self) -> bool:
        return self.flags('cursor_flag') == ['1']

    def flags(self, *names: str) -> list[str]:
        """What tmux says of the terminal's modes, see FORMATS in tmux(1)."""
        return [self._do('display-message', '-p', f'#{{{name}}}').strip() for name in names]

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """While this lasts, what runs in the terminal takes nothing in, as over a line that hangs."""
        server = int(self._do('display-message', '-p', '#{pid}'))  # it lets go on what is stopped within
        os.kill(server, signal.SIGSTOP)
        await_stop(server)
        try:
            yield
        finally:
            os.kill(server, signal.SIGCONT)

    def close(self) -> None:
        """Close its window; the command gets SIGHUP."""
        self._do('kill-server', check=False)

    def _wait(self, condition: Callable[[str], bool], what: str, key: str | None = None) -> str:
        text = ''

        def is_so() -> bool:
            nonlocal text
            if key:
                self.press(key)
            text = self.text()
            return condition(text)

        try:
            wait_until(is_so, f'the terminal {what}', PATIENCE)
        except TestbedError as error:
            error.add_note(f'It shows:\n{text}')
            raise
        return text

    def _do(self, *command: str, check: bool = True) -> str:
        done = subprocess.run([*self._tmux, *command], capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def attached(
    bed: Testbed, host: str, session: str, folder: Path, *options: str, width: int = 80, height: int = 24
) -> Iterator[Terminal]:
    """A terminal in which `ssh -t HOST screen -x SESSION` runs; HOST may have a user@, and options are screen's."""
    user, _, name = host.rpartition('@')
    command = shlex.join(['screen', '-x', session, *options])
    terminal = Terminal(folder, ['ssh', '-F', str(bed.ssh_config), '-t', host, command], width, height)

    def is_attached() -> bool:
        return any(found.name == session and found.state != 'Detached' for found in sessions(bed[name], user or None))

    try:
        wait_until(is_attached, f'the terminal to be attached to {session}; it shows {terminal.text()}', PATIENCE)
        yield terminal
    finally:
        terminal.close()
