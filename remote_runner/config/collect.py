"""What becomes of the results of a sweep: the `collect` of configs and muddlers.

    sweep.collect = collect.csv('results.csv')              # a table: a row a task
    sweep.collect = collect.concat('all.dat')               # the results, one behind the other
    sweep.collect = collect.blocks('all.dat')               # the same, each headed by its parameters
    sweep.collect = function                                # called with (parameters, results) of each task

A collector gets the accepted results in the order of the parameter sets, of a resumed sweep from the first on again.
What is called is `begin(folder, names)`, then `add(parameters, results)` for each task, then `end()`; where it comes
to no end, `drop()`, if there is one. `results` are bytes by name. The files of those here appear under their names when
all is in them: what was there before stays until then.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from remote_runner.config.paths import expanded, named
from remote_runner.config.reading import BadValueError, argument, read_path, shown
from remote_runner.errors import CollectingFailed
from remote_runner.nearest import nearest

__all__ = ['blocks', 'concat', 'csv']

_PLAIN = re.compile(r'[\w.,:/%+@~^-]+')


class Names(NamedTuple):
    """What tasks have: the names of their parameters, and of their results."""

    parameters: tuple[str, ...]
    results: tuple[str, ...]


class Collector(Protocol):
    """What results are given to."""

    def begin(self, folder: str, names: Names) -> object:
        """Called first; relative paths are relative to `folder`."""

    def add(self, parameters: Mapping[str, Any], results: Mapping[str, bytes]) -> object:
        """Called for each task whose results were accepted, in the order of the parameter sets."""

    def end(self) -> object:
        """Called last."""


class OfFunction:
    """A user's function as a collector."""

    def __init__(self, function: Callable[[Mapping[str, Any], Mapping[str, bytes]], object]) -> None:
        self.function = function

    def begin(self, folder: str, names: Names) -> None:
        """Nothing is to be done."""

    def add(self, parameters: Mapping[str, Any], results: Mapping[str, bytes]) -> None:
        """Call it."""
        self.function(parameters, results)

    def end(self) -> None:
        """Nothing is to be done."""


class ToFile(ABC):
    """Results go into one file.

    Args:
        path: of the file.
        result: the name of the result that is wanted; None: the only one.
    """

    KIND = ''

    def __init__(self, path: str | os.PathLike[str], result: str | None = None) -> None:
        self.path = path
        self.result = result
        self._whole: _WholeFile | None = None

    def __repr__(self) -> str:
        """As it is written in a config."""
        result = f', result={self.result!r}' if self.result is not None else ''
        return f'collect.{self.KIND}({os.fspath(self.path)!r}{result})'

    def target(self, folder: str) -> str:
        """Where the file will be.

        Raises:
            BadValueError: the path is none.
        """
        path = expanded(read_path(self.path))
        if path.endswith(('/', '/.')) or Path(folder, path).is_dir():
            raise BadValueError(f'must name a file, is the folder {shown(path)}')
        return os.path.realpath(Path(folder, path))

    def reasons(self, names: Names) -> Iterator[str]:
        """What is wrong with it for tasks with these names."""
        if self.result is None:
            if len(names.results) > 1:
                yield f"needs to know which result: result='{names.results[0]}', or another of {_listed(names.results)}"
        elif self.result not in names.results:
            best = nearest(str(self.result), names.results)
            yield f'wants the result {shown(self.result)}, which there is not; the nearest is {best!r}'

    def begin(self, folder: str, names: Names) -> None:
        """Make the file, which is nothing yet to others."""
        self._whole = _WholeFile(self.target(folder))
        self._names = names
        self._result = self.result or names.results[0]
        self.write(self.head())

    def add(self, parameters: Mapping[str, Any], results: Mapping[str, bytes]) -> None:
        """Write what one task adds to it."""
        self.write(self.part(parameters, results))

    def end(self) -> None:
        """Give the file its name."""
        if self._whole is not None:
            self._whole.finish()
            self._whole = None

    def drop(self) -> None:
        """Remove what was written."""
        if self._whole is not None:
            self._whole.drop()
            self._whole = None

    def write(self, data: bytes) -> None:
        """Put more into the file."""
        if self._whole is None:
            raise ValueError('it has not begun')
        self._whole.write(data)

    def head(self) -> bytes:
        """What it begins with."""
        return b''

    @abstractmethod
    def part(self, parameters: Mapping[str, Any], results: Mapping[str, bytes]) -> bytes:
        """What one task adds to it."""


class _Csv(ToFile):
    KIND = 'csv'

    def reasons(self, names: Names) -> Iterator[str]:
        twice = [name for name in names.results if name in names.parameters]
        if twice:
            yield f'would have two columns {_listed(twice)}: a parameter and a result have that name'

    def head(self) -> bytes:
        return _row([*self._names.parameters, *self._names.results])

    def part(self, parameters: Mapping[str, Any], results: Mapping[str, bytes]) -> bytes:
        cells = [argument(parameters[name]) for name in self._names.parameters]
        cells += [_text(results[name]).rstrip('\r\n') for name in self._names.results]
        return _row(cells)


class _Concat(ToFile):
    KIND = 'concat'

    def part(self, parameters: Mapping[str, Any], results: Mapping[str, bytes]) -> bytes:
        return results[self._result]


class _Blocks(ToFile):
    KIND = 'blocks'
    _is_first = True

    def head(self) -> bytes:
        self._is_first = True
        return b''

    def part(self, parameters: Mapping[str, Any], results: Mapping[str, bytes]) -> bytes:
        content = results[self._result]
        between = b'' if self._is_first else b'\n\n'
        self._is_first = False
        values = ' '.join(f'{name}={_shown_value(parameters[name])}' for name in self._names.parameters)
        end = b'' if content.endswith(b'\n') or not content else b'\n'
        return b''.join([between, f'# {values}\n'.encode('utf-8', 'surrogateescape'), content, end])


def csv(path: str | os.PathLike[str]) -> Collector:
    """A table (RFC 4180, UTF-8): a column for each parameter and for each result, a row for each task.

    A result is its text, without newlines at its end, as `$(...)` of the shell gives it. Bytes that are no UTF-8 are
    written as they are.

    Args:
        path: of the file; a relative one is relative to the config.
    """
    return _Csv(path)


def concat(path: str | os.PathLike[str], result: str | None = None) -> Collector:
    """All results of one name, one behind the other, to the byte.

    Args:
        path: of the file; a relative one is relative to the config.
        result: the name of the result; None: the only one that there is.
    """
    return _Concat(path, result)


def blocks(path: str | os.PathLike[str], result: str | None = None) -> Collector:
    """All results of one name, each headed by its parameters: `# rate=10 seed=3`.

    Two empty lines lie between blocks, so that gnuplot takes them for data sets (`plot 'FILE' index 3`). A value that
    is no single word is written as a string of JSON. A result that does not end with a newline gets one.

    Args:
        path: of the file; a relative one is relative to the config.
        result: the name of the result; None: the only one that there is.
    """
    return _Blocks(path, result)


def _text(data: bytes) -> str:
    return data.decode('utf-8', 'surrogateescape')


def _row(cells: Sequence[str]) -> bytes:
    from csv import writer

    line = io.StringIO()
    writer(line).writerow(cells)
    return line.getvalue().encode('utf-8', 'surrogateescape')


def _shown_value(value: object) -> str:
    import json

    text = argument(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _listed(names: Sequence[str]) -> str:
    return ', '.join(map(repr, names))


class _WholeFile:
    """A file that appears under its name when it is whole. Nobody else writes it meanwhile.

    Args:
        path: absolute.

    Raises:
        CollectingFailed: it cannot be written; so do the methods.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._part = self._path.with_name(f'.{self._path.name}.part')
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
        except OSError as error:
            raise self._failed(error) from error

    def _open(self) -> BinaryIO:
        while True:
            number = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            file = open(number, 'wb', buffering=1 << 16)  # noqa: PTH123, SIM115 - closed by finish and drop
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise CollectingFailed(
                    f'{named(str(self._path))} is being written by another sweep',
                    remedy='let one of them collect into another file',
                ) from None
            with suppress(FileNotFoundError):  # another one has finished it since it was opened
                if os.path.samestat(os.fstat(number), self._part.stat()):
                    file.truncate(0)
                    return file
            file.close()

    def write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise self._failed(error) from error

    def finish(self) -> None:
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._part.rename(self._path)
        except OSError as error:
            raise self._failed(error) from error
        self._file.close()

    def drop(self) -> None:
        self._part.unlink(missing_ok=True)
        with suppress(OSError):  # what cannot be written any more is not wanted any more
            self._file.close()

    def _failed(self, error: OSError) -> CollectingFailed:
        advice = {
            errno.ENOSPC: 'make room there; all results are in the journal, a resume collects them again',
            errno.EACCES: 'results are collected as you; name a file where you may write',
        }
        where = named(str(self._path))
        return CollectingFailed(f'{where} cannot be written: {error.strerror}', remedy=advice.get(error.errno or 0))
