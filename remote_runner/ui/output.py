"""Stdout, where results go: it may be closed, or read by somebody who stops reading, and the run goes on."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import ClassVar, TextIO

from remote_runner.errors import OutputFailed
from remote_runner.events import Event


class Output:
    """Stdout (or `stream`), written until nobody reads it any more (`is_open`)."""

    #: Whether something could not be written to stdout in this process, and not because nobody wants to read it.
    has_failed: ClassVar[bool] = False

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self.is_open = True

    def write(self, text: str) -> None:
        """Write all of `text` now, waiting while the reader does not read. What cannot be encoded is escaped."""
        stream = self._stream or sys.stdout
        if stream is None or not self.is_open:
            return
        encoding = getattr(stream, 'encoding', None) or 'utf-8'
        try:
            stream.write(text.encode(encoding, 'backslashreplace').decode(encoding))
            stream.flush()
        except BrokenPipeError:
            self._give_up(stream)
        except OSError as error:
            self._give_up(stream)
            Output.has_failed = True
            logging.getLogger(__name__).error('stdout cannot be written: %s', error.strerror)

    def _give_up(self, stream: TextIO) -> None:
        """Let what is still in the stream's buffer go nowhere: Python would fail when it flushes it at its end."""
        self.is_open = False
        with suppress(OSError, ValueError):
            number = stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, number)
            os.close(nowhere)


def check_stdout(what: str = 'the results') -> None:
    """To be called before work whose outcome goes to stdout, and nowhere else.

    Raises:
        OutputFailed: whoever started this process has closed it (`>&-`).
    """
    if sys.__stdout__ is None:
        remedy = 'redirect it to a file, or to /dev/null if nobody wants them'
        raise OutputFailed(f'{what} cannot be written: stdout is closed', remedy=remedy)


class JsonLines:
    """Writes each event as a line of JSON to stdout, for `--json`: ASCII, flushed line by line.

        events.listen(JsonLines())

    Bytes that are no UTF-8 (of arguments, names, output) stand there as lone surrogates, escaped, see PEP 383.
    """

    def __init__(self, output: Output | None = None) -> None:
        self._output = output or Output()

    def __call__(self, event: Event) -> None:
        """Write one event."""
        import json  # which few commands need

        self._output.write(json.dumps(event.to_dict()) + '\n')
