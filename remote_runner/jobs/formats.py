"""Results as bytes on stdout: framed for programs that read many, a JSON object a line, and plain text.

A format makes the pieces of one result. Large results are files; no piece holds one as a whole.
"""

from __future__ import annotations

import codecs
import math
import os
import struct
from base64 import b64encode
from collections.abc import Iterable, Iterator
from json import dumps
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from remote_runner.errors import ResultTooLarge
from remote_runner.jobs.engines.base import Ended
from remote_runner.jobs.sink import PIECE
from remote_runner.jobs.task import Task

#: Bytes of the longest result, and the highest index, that a frame can say.
MOST = 2**31 - 1
_HEADER = struct.Struct('<ii')
_STDOUT = {'stdout': 'stdout'}
# Of which base64 without padding in between is made.
_PIECE_OF_THREES = PIECE - PIECE % 3


class Result(NamedTuple):
    """What became of a task, finally.

    Args:
        position: its place in what the user wrote, from 0: the index that users see.
        task: what it is.
        ended: the attempt that counts, else the last one; its outcome is that of the task. Of a task that was never
            begun `attempt` is 0.
    """

    position: int
    task: Task
    ended: Ended


class Span(NamedTuple):
    """A piece of a result: the first `size` bytes of a file."""

    file: BinaryIO
    size: int


Piece = bytes | Span


class Format(Protocol):
    """How a result is written."""

    def check(self, result: Result) -> None:
        """Whether it can be written so; before anything of it is.

        Raises:
            ResultTooLarge: it cannot.
        """

    def __call__(self, result: Result) -> Iterable[Piece]:
        """Its pieces, in order; none: nothing is to be written of it."""


class Framed:
    """Of each task that succeeded: its index and the length of its stdout, both int32 little-endian, and its stdout."""

    def check(self, result: Result) -> None:
        """See `Format`."""
        if result.ended.outcome.cause is not None:
            return
        size = size_of(stdout_of(result))
        if size > MOST:
            raise ResultTooLarge(
                f'task {result.position}: a frame cannot hold its stdout of {size} bytes',
                remedy=f'the most is {MOST}; --format jsonl and text know no limit',
            )

    def __call__(self, result: Result) -> Iterator[Piece]:
        """See `Format`."""
        if result.ended.outcome.cause is not None:
            return
        data = stdout_of(result)
        if isinstance(data, bytes):
            yield _HEADER.pack(result.position, len(data)) + data
            return
        with data.open('rb') as file:
            size = os.fstat(file.fileno()).st_size
            yield _HEADER.pack(result.position, size)
            yield Span(file, size)


class Text:
    """The stdout of each task that succeeded, as it is.

    Args:
        tag: whether each line has the index of its task and a tab in front, and the last one always an end.
    """

    def __init__(self, *, tag: bool = False) -> None:
        self._tag = tag

    def check(self, result: Result) -> None:
        """See `Format`."""

    def __call__(self, result: Result) -> Iterator[Piece]:
        """See `Format`."""
        if result.ended.outcome.cause is not None:
            return
        data = stdout_of(result)
        if self._tag:
            yield from _tagged(b'%d\t' % result.position, _chunks(data, PIECE))
        elif isinstance(data, bytes):
            yield data
        else:
            with data.open('rb') as file:
                yield Span(file, os.fstat(file.fileno()).st_size)


class JsonLines:
    """An object a task, also of those that failed: the fields are explained in docs/job-results.md."""

    def check(self, result: Result) -> None:
        """See `Format`."""

    def __call__(self, result: Result) -> Iterator[Piece]:
        """See `Format`."""
        ended, task = result.ended, result.task
        fields: dict[str, object] = {'index': result.position, 'command': task.command}
        if task.parameters:
            fields['parameters'] = plain(task.parameters)
        fields |= {
            'host': ended.host,
            'attempt': ended.attempt,
            'began': round(ended.began, 3),
            'seconds': round(ended.seconds, 6),
            'status': ended.outcome.status,
            'cause': ended.outcome.cause and ended.outcome.cause.value,
            'why': ended.outcome.why,
            'tail': ended.tail,
        }
        yield dumps(fields)[:-1].encode('ascii')
        if task.results == _STDOUT:
            yield from _blob('stdout', ended.results.get('stdout', b''))
        else:
            yield b', "results": {'
            for number, (name, data) in enumerate(ended.results.items()):
                pieces = _blob(name, data)
                yield from pieces if number else [next(pieces)[2:], *pieces]
            yield b'}'
        yield b'}\n'


def stdout_of(result: Result) -> bytes | Path:
    """What it wrote to stdout, as far as that is a result of it."""
    name = next((name for name, source in result.task.results.items() if source == 'stdout'), 'stdout')
    return result.ended.results.get(name, b'')


def size_of(data: bytes | Path) -> int:
    """Bytes of a result; 0 of a file that is gone."""
    try:
        return data.stat().st_size if isinstance(data, Path) else len(data)
    except OSError:
        return 0  # who reads it says so


def plain(value: object) -> object:
    """`value` as JSON can say it; what it has no word for is a string."""
    if isinstance(value, str | int | None) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, 'items'):
        return {str(key): plain(one) for key, one in value.items()}
    return str(value)


def _blob(name: str, data: bytes | Path) -> Iterator[bytes]:
    """`, "name": "text"`; of what is no UTF-8 `, "name_base64": "..."`."""
    if _is_utf8(data):
        yield f', {dumps(name)}: "'.encode('ascii')
        decoder = codecs.getincrementaldecoder('utf-8')()
        for chunk in _chunks(data, PIECE):
            yield dumps(decoder.decode(chunk))[1:-1].encode('ascii')
    else:
        yield f', {dumps(f"{name}_base64")}: "'.encode('ascii')
        for chunk in _chunks(data, _PIECE_OF_THREES):
            yield b64encode(chunk)
    yield b'"'


def _is_utf8(data: bytes | Path) -> bool:
    decoder = codecs.getincrementaldecoder('utf-8')()
    try:
        for chunk in _chunks(data, PIECE):
            decoder.decode(chunk)
        decoder.decode(b'', final=True)
    except UnicodeDecodeError:
        return False
    return True


def _tagged(tag: bytes, chunks: Iterable[bytes]) -> Iterator[bytes]:
    is_begun = False  # whether a line is, and not ended
    for chunk in chunks:
        ends = chunk.endswith(b'\n')
        text = (chunk[:-1] if ends else chunk).replace(b'\n', b'\n' + tag)
        yield (b'' if is_begun else tag) + text + (b'\n' if ends else b'')
        is_begun = not ends
    if is_begun:
        yield b'\n'


def _chunks(data: bytes | Path, size: int) -> Iterator[bytes]:
    """All of it, in pieces of `size` but for the last one."""
    if isinstance(data, bytes):
        for begin in range(0, len(data), size):
            yield data[begin : begin + size]
        return
    with data.open('rb') as file:
        while chunk := file.read(size):
            yield chunk
