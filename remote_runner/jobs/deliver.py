"""Delivers results as they come, in whatever format, to a reader that may be slow.

    with Delivery(Framed(), Descriptor(1), read=journal.result) as delivery:
        delivery.give(results)

A thread writes, so that hosts are heard whatever the reader does: one that first writes all its commands to us, and
reads results afterwards, is no reason for a deadlock. What waits to be written is held in memory up to a limit, and
read back from the journal beyond it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

from remote_runner.errors import OutputFailed, ResultTooLarge
from remote_runner.jobs.formats import Format, Piece, Result, Span
from remote_runner.jobs.sink import Sink

#: Bytes of results that wait in memory.
ROOM = 16_000_000
#: Bytes that are written together.
TOGETHER = 1 << 17
# Bytes of a result without its content, about.
_RESULT = 1000


class Delivery:
    """Writes each result once. Thread-safe; in the `with` block, whose end waits until all is written.

    Args:
        form: how a result is written.
        sink: where to.
        read: a result by the number of its task, from the journal; called from a thread of ours.
        keep_order: whether results are written in the order of their positions, from 0; each is waited for.
        room: bytes of results that wait in memory.
        on_failure: called once, from a thread of ours, when nothing can be written any more; `give` then says why.
        on_written: called from it when something was, see `take_written`.
    """

    def __init__(
        self,
        form: Format,
        sink: Sink,
        *,
        read: Callable[[int], Result],
        keep_order: bool = False,
        room: int = ROOM,
        on_failure: Callable[[], None] = lambda: None,
        on_written: Callable[[], None] = lambda: None,
    ) -> None:
        self._format = form
        self._sink = sink
        self._read = read
        self._keeps_order = keep_order
        self._room = room
        self._on_failure = on_failure
        self._on_written = on_written
        self._changed = threading.Condition()  # over all that follows
        #: Results to be written, or the numbers of their tasks.
        self._queue: deque[Result | int] = deque()
        #: Those that wait for others, by position. None: nothing is written of it.
        self._held: dict[int, Result | int | None] = {}
        self._next = 0
        self._bytes = 0
        self._unwritten = 0
        #: Tasks of which all is written that is to be.
        self._written_numbers: list[int] = []
        self._is_closed = False
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Delivery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    @property
    def waiting(self) -> int:
        """How many results were given and are not written."""
        return self._unwritten + len(self._held)

    def give(self, results: Iterable[Result]) -> list[ResultTooLarge]:
        """Write these as soon as it is their turn; what failed is given as well. Returns what cannot be delivered.

        Raises:
            OutputClosed: nobody reads any more.
            OutputFailed: nothing can be written any more.
        """
        refused = []
        with self._changed:
            self._raise()
            for result in results:
                try:
                    self._format.check(result)
                except ResultTooLarge as error:
                    refused.append(error)
                    self._put(result.position, None)
                else:
                    self._put(result.position, self._fitting(result))
            self._changed.notify()
        return refused

    def check(self) -> None:
        """Raises what `give` would, if nothing can be written any more."""
        with self._changed:
            self._raise()

    def take_written(self) -> list[int]:
        """The numbers of the tasks of which all was written since this was asked last."""
        with self._changed:
            found, self._written_numbers = self._written_numbers, []
        return found

    def recall(self, position: int, number: int) -> None:
        """As `give`, of a task whose result is in the journal, and was settled before."""
        with self._changed:
            self._raise()
            self._put(position, number)
            self._changed.notify()

    def skip(self, positions: Iterable[int]) -> None:
        """Nothing is given at these: in order, those behind them need not wait for them."""
        with self._changed:
            for position in positions:
                self._put(position, None)
            self._changed.notify()

    def close(self) -> None:
        """Wait until all that was given is written; in order, what is still held back by a gap goes after it.

        Raises:
            OutputClosed, OutputFailed: as `give`.
        """
        with self._changed:
            for position in sorted(self._held):
                self._enqueue(self._held.pop(position))
            self._changed.notify()
            self._changed.wait_for(lambda: self._error or not self._unwritten)
            self._is_closed = True
            self._changed.notify_all()
            self._raise()

    def abandon(self) -> None:
        """Begin to write nothing more. Does not wait: who reads may never go on."""
        with self._changed:
            self._is_closed = True
            self._queue.clear()
            self._changed.notify_all()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _fitting(self, result: Result) -> Result | int:
        """What is kept of it in memory until it is its turn."""
        size = _size(result)
        if self._bytes + size > self._room:
            return result.ended.number
        self._bytes += size
        return result

    def _put(self, position: int, entry: Result | int | None) -> None:
        if not self._keeps_order:
            self._enqueue(entry)
            return
        self._held[position] = entry
        while self._next in self._held:
            self._enqueue(self._held.pop(self._next))
            self._next += 1

    def _enqueue(self, entry: Result | int | None) -> None:
        if entry is None:
            return
        self._queue.append(entry)
        self._unwritten += 1
        if self._thread is None:
            # A daemon: Ctrl-C ends us also while nobody reads.
            self._thread = threading.Thread(target=self._run, name='delivery', daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._queue or self._is_closed)
                    if self._is_closed:
                        return
                self._write_what_waits()
        except Exception as error:  # whatever it is, `give` and `close` raise it
            with self._changed:
                self._error = error
                self._queue.clear()
                self._held.clear()
                self._changed.notify_all()
            self._on_failure()

    def _write_what_waits(self) -> None:
        batch = _Batch(self._sink)
        done: list[int] = []
        freed = 0
        try:
            while True:
                try:
                    entry = self._queue.popleft()
                except IndexError:
                    break
                if isinstance(entry, int):
                    result = self._read(entry)
                else:
                    result = entry
                    freed += _size(entry)
                batch.add(result.position, self._format(result))
                done.append(result.ended.number)
                if batch.is_written:
                    self._written(done, freed)
                    done, freed = [], 0
        except Exception:
            if not batch.is_cut:
                batch.write()
                self._written(done, freed)
            raise
        batch.write()
        self._written(done, freed)

    def _written(self, numbers: list[int], size: int) -> None:
        with self._changed:
            self._written_numbers += numbers
            self._unwritten -= len(numbers)
            self._bytes -= size
            if not self._unwritten:
                self._changed.notify_all()
        self._on_written()


class _Batch:
    """Results that are written together; whole ones, whatever happens to those behind them."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._pieces: list[bytes] = []
        self._bytes = 0
        #: How many of the pieces are of whole results.
        self._whole = 0
        #: Whether some of what was added could not be written.
        self.is_cut = False

    @property
    def is_written(self) -> bool:
        """Whether nothing of what was added waits."""
        return not self._pieces

    def add(self, position: int, pieces: Iterable[Piece]) -> None:
        """One more result: written, or to be written with those that follow."""
        try:
            for piece in pieces:
                if isinstance(piece, bytes):
                    self._pieces.append(piece)
                    self._bytes += len(piece)
                    if self._bytes < TOGETHER:
                        continue
                self._write()
                if isinstance(piece, Span):
                    self._sink.copy(piece.file, piece.size)
        except OSError as error:
            what = f'the result of task {position} cannot be read'
            raise OutputFailed(f'{what}: {error.filename}: {error.strerror}') from error
        self._whole = len(self._pieces)

    def write(self) -> None:
        """Write all whole ones."""
        del self._pieces[self._whole :]
        self._write()

    def _write(self) -> None:
        data = b''.join(self._pieces)
        self._pieces.clear()
        self._bytes = self._whole = 0
        self.is_cut = True
        self._sink.write(data)
        self.is_cut = False


def _size(result: Result) -> int:
    data = result.ended.results.values()
    return _RESULT + len(result.task.command) + sum(len(one) for one in data if not isinstance(one, Path))
