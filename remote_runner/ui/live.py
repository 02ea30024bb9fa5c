"""The live display: draws pictures of a run at the bottom of the terminal, and lets all other text pass above it.

rich is imported by the drawing thread, so that nobody waits for that.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from remote_runner.ui.frame import Line

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live
    from rich.text import Text

#: Pictures a second, at most.
FRAME_RATE = 10
#: Seconds after which a picture is drawn though nothing happened: elapsed times go on.
TICK = 0.5
# Columns left free: a terminal that shows `^C` after the last line must not wrap it.
_MARGIN = 3


class Display:
    """Draws what `picture` gives on stderr, from the first `changed` on until the end of the `with` block.

    Args:
        picture: called with the number of lines that there is room for; from a thread, at most `FRAME_RATE` times a
            second.
        console: another console to draw on.
        owns_screen: nothing else on the screen matters: it is cleared when the terminal's size changes, of which
            terminals make what they like.
    """

    def __init__(
        self, picture: Callable[[int], list[Line]], console: Console | None = None, *, owns_screen: bool = False
    ) -> None:
        self._picture = picture
        self._console = console
        self._owns_screen = owns_screen
        self._turning = threading.Lock()  # over the next four: held while drawing is begun or ended
        self._is_open = False
        self._is_wanted = False
        self._pauses = 0
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._changed = threading.Event()
        self._lock = threading.RLock()  # held while the terminal is written to
        self._live: Live | None = None

    def __enter__(self) -> Display:
        self._is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        with self._turning:
            self._is_open = False
            self._end()

    def changed(self) -> None:
        """There is something new to draw. Does not wait for the drawing."""
        self._changed.set()
        if not self._is_wanted:
            with self._turning:
                self._is_wanted = True
                self._begin()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Meanwhile the terminal is as it was. From any thread, also several times at once."""
        with self._turning:
            self._pauses += 1
            self._end()
        try:
            yield
        finally:
            with self._turning:
                self._pauses -= 1
                self._begin()

    def _begin(self) -> None:
        if self._is_open and self._is_wanted and not self._pauses and self._thread is None:
            self._ended.clear()
            self._thread = threading.Thread(target=self._run, name='display')
            self._thread.start()

    def _end(self) -> None:
        self._ended.set()
        self._changed.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        from rich.console import Console
        from rich.live import Live

        if self._ended.is_set():
            return
        console = self._console or Console(file=sys.stderr, force_terminal=True)
        live = Live(
            console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        with suppress(OSError), self._streams_above():  # the terminal may be gone
            try:
                with self._lock:
                    live.start()
                    console.show_cursor(True)  # rich hides it, and nobody would show it after Ctrl-Z or SIGKILL
                    self._live = live
                self._draw(console, live)
            finally:
                with self._lock:
                    self._live = None
                    live.stop()

    def _draw(self, console: Console, live: Live) -> None:
        drawn: tuple[object, object] = (None, console.size)
        while not self._ended.is_set():
            self._changed.clear()
            size = console.size
            picture = self._picture(size.height - 1)
            if (picture, size) != drawn:
                is_resized = size != drawn[1]
                drawn = (picture, size)
                with self._lock, console:  # one write
                    if is_resized and self._owns_screen:
                        console.clear()
                    live.update(_text(picture, size.width - _MARGIN, console.encoding), refresh=True)
            self._ended.wait(1 / FRAME_RATE)
            self._changed.wait(TICK)

    @contextmanager
    def _streams_above(self) -> Iterator[None]:
        """What is written to stderr, and to stdout where that is the terminal too, appears above the picture."""
        replaced: dict[str, _Above] = {}
        for name in ('stdout', 'stderr'):
            stream = getattr(sys, name)
            if stream is not None and stream.isatty():
                stream.flush()
                replaced[name] = _Above(stream, partial(self._print, stream))
                setattr(sys, name, replaced[name])
        try:
            yield
        finally:
            for name, above in replaced.items():
                if getattr(sys, name) is above:
                    setattr(sys, name, above.stream)
                above.finish()

    def _print(self, stream: TextIO, text: str) -> None:
        with self._lock:
            if self._live is None:
                stream.write(text)
                stream.flush()
            else:
                self._live.console.print(_Raw(text), soft_wrap=True)


class _Above(io.TextIOBase):
    """A stream whose whole lines are printed above a display; the rest of a line waits for its end."""

    def __init__(self, stream: TextIO, write: Callable[[str], None]) -> None:
        self.stream = stream
        self._write = write
        self._rest = ''
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        with self._lock:
            lines, newline, self._rest = (self._rest + text).rpartition('\n')
        if newline:
            self._write(lines + newline)
        return len(text)

    def finish(self) -> None:
        """Write what has not been."""
        with self._lock:
            rest, self._rest = self._rest, ''
        if rest:
            self._write(rest)

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.stream.errors

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Raw:
    """Text that goes to the terminal as it is: colours that users' files print are theirs."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        yield Segment(self._text)


def _text(picture: list[Line], width: int, encoding: str) -> Text:
    from rich.text import Text

    lines = []
    for pieces in picture:
        line = Text.assemble(*pieces)
        line.truncate(width, overflow='ellipsis')
        lines.append(line)
    text = Text('\n', no_wrap=True, overflow='crop').join(lines)
    if not encoding.startswith('utf'):
        text.plain = text.plain.replace('…', '~')
    return text
