"""The joblog: a line a task with the columns of GNU parallel's `--joblog`, for the tools that read these.

What the columns hold is explained in docs/job-results.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from remote_runner.errors import OutputFailed
from remote_runner.jobs.formats import Result, size_of
from remote_runner.jobs.sink import Descriptor

_COLUMNS = ('Seq', 'Host', 'Starttime', 'JobRuntime', 'Send', 'Receive', 'Exitval', 'Signal', 'Command')
_HEADER = ('\t'.join(_COLUMNS) + '\n').encode('ascii')
#: Of an attempt that ended, but not by itself, or that never began.
NO_STATUS = -1
_SIGNALS = range(128 + 1, 128 + 65)


class Joblog:
    """A file to which lines are appended, each as a whole: several commands may write to one.

    Raises:
        OutputFailed: it cannot be opened; so all methods where it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            is_cut = _is_cut(path)
            self._file = os.open(path, flags, 0o666)
        except OSError as error:
            raise OutputFailed(f'the joblog {path} cannot be opened: {error.strerror}') from error
        self._sink = Descriptor(self._file, f'the joblog {path}')
        try:
            self._begin(is_cut=is_cut)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Joblog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def write(self, results: Iterable[Result]) -> None:
        """A line for each; none for a task that was cancelled before it began."""
        self._sink.write(b''.join(_line(result) for result in results if result.ended.attempt))

    def _begin(self, *, is_cut: bool) -> None:
        if is_cut:
            self._sink.write(b'\n')
        elif not os.fstat(self._file).st_size:
            self._sink.write(_HEADER)


def _is_cut(path: Path) -> bool:
    """Whether a full disk has cut the last line of a file."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open('rb') as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b'\n'


def _line(result: Result) -> bytes:
    ended, task = result.ended, result.task
    exit_value, signal = (0, 0) if ended.outcome.cause is None else _ending(ended.outcome.status)
    sent = sum(map(len, task.inputs.values()))
    received = sum(map(size_of, ended.results.values()))
    command = task.command.replace('\n', '\\n')
    text = (
        f'{result.position + 1}\t{ended.host}\t{ended.began:.3f}\t{ended.seconds:10.3f}\t{sent}\t{received}\t'
        f'{exit_value}\t{signal}\t{command}\n'
    )
    return text.encode('utf-8', 'surrogateescape')


def _ending(status: int | None) -> tuple[int, int]:
    """Exitval and Signal of what failed, with this status: never 0, for tools look at Exitval alone."""
    if not status:
        return NO_STATUS, 0
    return status, status - 128 if status in _SIGNALS else 0
