"""Where the tasks of a batch come from: a command a line, of a file or of whoever writes to us."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import BinaryIO, Protocol

from remote_runner.errors import UsageError
from remote_runner.jobs.task import Task

#: Lines that wait to be taken; who writes more of them waits, too.
ROOM = 20_000


class Source(Protocol):
    """Tasks, in the order in which they are numbered. One thread takes them, and never waits for more."""

    @property
    def is_over(self) -> bool:
        """Whether none comes any more."""

    @property
    def has_more(self) -> bool:
        """Whether there are some now."""

    def take(self, most: int) -> list[Task]:
        """The next ones, as far as they are there."""

    def wait(self) -> None:
        """Until there are some, or none comes any more."""

    def listen(self, hear: Callable[[], None]) -> None:
        """Call `hear`, from any thread, when there are some again, or none comes any more."""


class Given:
    """Tasks that can be made whenever they are asked for."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = iter(tasks)
        self.is_over = False

    @property
    def has_more(self) -> bool:
        """See `Source`."""
        return not self.is_over

    def take(self, most: int) -> list[Task]:
        """See `Source`."""
        found = list(islice(self._tasks, most))
        self.is_over = len(found) < most
        return found

    def wait(self) -> None:
        """See `Source`."""

    def listen(self, hear: Callable[[], None]) -> None:
        """See `Source`."""


class Streamed:
    """Commands that somebody writes, line by line, for as long as it takes: a thread waits for them.

    Args:
        file: what is read.
        name: of it, for errors.
        results: what is wanted of each command, see `Task`.
    """

    def __init__(
        self, file: BinaryIO, name: str = 'standard input', results: Mapping[str, str] = Task('').results
    ) -> None:
        self._file = file
        self._name = name
        self._results = results
        self._tasks: deque[Task] = deque()
        self._changed = threading.Condition()
        self._has_ended = False
        self._failure: UsageError | None = None
        self._hear: Callable[[], None] = lambda: None
        threading.Thread(target=self._read, name='commands', daemon=True).start()

    @property
    def is_over(self) -> bool:
        """See `Source`."""
        return self._has_ended and not self._tasks and self._failure is None

    @property
    def has_more(self) -> bool:
        """See `Source`."""
        return bool(self._tasks)

    def take(self, most: int) -> list[Task]:
        """See `Source`.

        Raises:
            UsageError: it cannot be read.
        """
        with self._changed:
            if self._failure is not None and not self._tasks:
                raise self._failure
            found = [self._tasks.popleft() for _ in range(min(most, len(self._tasks)))]
            self._changed.notify_all()
        return found

    def wait(self) -> None:
        """See `Source`."""
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or self._has_ended)

    def listen(self, hear: Callable[[], None]) -> None:
        """See `Source`."""
        with self._changed:
            self._hear = hear
        hear()

    def _read(self) -> None:
        try:
            for task in commands(self._file, self._name, self._results):
                with self._changed:
                    self._changed.wait_for(lambda: len(self._tasks) < ROOM)
                    self._tasks.append(task)
                    is_first = len(self._tasks) == 1
                    self._changed.notify_all()
                if is_first:
                    self._hear()
        except (OSError, UsageError) as error:
            self._failure = error if isinstance(error, UsageError) else UsageError(f'{self._name}: {error.strerror}')
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()
        self._hear()


def commands(lines: Iterable[bytes], name: str, results: Mapping[str, str]) -> Iterator[Task]:
    """A task for each line that is not empty, of which these results are wanted.

    Raises:
        UsageError: a line cannot be a command.
    """
    for number, line in enumerate(lines, 1):
        text = line.rstrip(b'\r\n')
        if not text.strip():
            continue
        if b'\0' in text:
            raise UsageError(f'{name}, line {number} holds a NUL byte, which no command can')
        yield Task(text.decode('utf-8', 'surrogateescape'), results=results)
