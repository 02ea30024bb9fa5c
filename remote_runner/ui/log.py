"""Log records on stderr, as scripts read them: `LEVEL: message`, and nothing else."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

from remote_runner.ui.text import harmless


class LogHandler(logging.Handler):
    """Writes records to stderr; where a live display is up, stderr is its, and the line appears above it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        stream = sys.stderr  # now, not when we were made: a display or a test may have replaced it
        if stream is None:  # the caller has closed it
            return
        with suppress(OSError, ValueError):  # nobody reads any more: the run goes on
            stream.write(f'{_text(record)}\n')
            stream.flush()


def configure(level: str) -> None:
    """Send the records of all loggers to stderr.

    Args:
        level: the least level that is shown: `DEBUG`, `INFO`, `WARNING` or `ERROR`. Below it nothing is shown; what
            paramiko says is shown at DEBUG alone, because it says of each failure what our own messages say better.
    """
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, LogHandler)]:
        root.removeHandler(handler)
    root.addHandler(LogHandler())
    root.setLevel(level)
    logging.getLogger('paramiko').setLevel(logging.NOTSET if level == 'DEBUG' else logging.CRITICAL + 1)


_TRACEBACKS = logging.Formatter()


def _text(record: logging.LogRecord) -> str:
    try:
        message = record.getMessage()
    except (TypeError, ValueError, KeyError) as error:
        place = f'{record.pathname}, line {record.lineno}'
        message = f'{record.msg!r} cannot be logged with {record.args!r}: {error} ({place})'
    text = f'{record.levelname}: {message}'
    if record.exc_info:
        text += '\n' + _TRACEBACKS.formatException(record.exc_info)
    if record.stack_info:
        text += '\n' + record.stack_info
    return harmless(text, keep='\n\t')
