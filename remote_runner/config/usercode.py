"""Running users' own Python files, and telling their errors by their own lines.

Such a file runs as a module of its own (never `__main__`, so that `if __name__ == '__main__'` blocks do not run),
registered in `sys.modules` while a load lasts, because dataclasses and pickle look it up there. The modules that stand
beside it can be imported; they are forgotten afterwards, so that two configs with a `hosts.py` each do not meet.
"""

from __future__ import annotations

import importlib
import importlib.util
import linecache
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from types import CodeType, ModuleType, TracebackType
from typing import Any, NamedTuple

from remote_runner.config import going_on
from remote_runner.config.attributed import UnknownAttributeError
from remote_runner.config.attributes import ATTRIBUTES
from remote_runner.config.paths import neighbour
from remote_runner.errors import ConfigError, RemoteRunnerError, UserCodeError

# Files whose frames are no user's: our own, the standard library, what pip or the system installed.
_OURS = str(Path(__file__).resolve().parents[1])
_LIBRARY = tuple(sysconfig.get_path(name) + os.sep for name in ('stdlib', 'platstdlib'))
_INSTALLED = ('site-packages', 'dist-packages')

_FRAMES_SHOWN = 6


class UserFile(NamedTuple):
    """A file of a user's: `kind` is what messages call it ('config', 'muddler', 'arg parser')."""

    path: str
    kind: str

    @property
    def directory(self) -> str:
        return str(Path(self.path).parent)

    def source(self) -> str:
        """Its text.

        Raises:
            ConfigError: it is missing, unreadable, a directory, or no text.
        """
        path = Path(self.path)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise ConfigError(f'{self.kind} {path}: no such file', remedy=neighbour(path)) from None
        except IsADirectoryError:
            raise ConfigError(f'{self.kind} {path}: is a directory', remedy='name the file in it') from None
        except OSError as error:
            raise ConfigError(f'{self.kind} {path}: cannot be read: {error.strerror}') from None
        if b'\0' in data:
            raise ConfigError(f'{self.kind} {path}: is no Python file, it holds NUL bytes')
        try:
            return importlib.util.decode_source(data)
        except UnicodeDecodeError as error:
            line = data.count(b'\n', 0, error.start) + 1
            raise ConfigError(
                f'{self.kind} {path}, line {line}: byte {data[error.start]:#04x} is no {error.encoding} text',
                remedy='save the file as UTF-8, or name its encoding in its first line: # -*- coding: latin-1 -*-',
            ) from None
        except SyntaxError as error:
            raise ConfigError(f'{self.kind} {path}, line 1: {error.msg}') from None


class UserCode:
    """The modules that users' files become, for as long as one load lasts. Use as a context manager.

    Attributes:
        faults: what was found to be wrong and did not end the load.
    """

    def __init__(self) -> None:
        self.faults: list[RemoteRunnerError] = []
        self._sources: dict[UserFile, str] = {}
        self._codes: dict[UserFile, CodeType] = {}
        self._replaced: dict[str, ModuleType | None] = {}
        self._beside: dict[str, dict[str, ModuleType]] = {}

    def __enter__(self) -> UserCode:
        return self

    def __exit__(self, *_: object) -> None:
        for name, module in self._replaced.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module

    def note(self, fault: RemoteRunnerError) -> None:
        """One fault more, unless the same line said the same before (in a loop, say)."""
        if str(fault) not in map(str, self.faults):
            self.faults.append(fault)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """An error of a user's file in here is one fault more, and what comes after it goes on."""
        try:
            yield
        except ConfigError as error:
            self.note(error)

    def compiles(self, file: UserFile) -> bool:
        """Whether `file` can be read and compiled; if not, that is noted."""
        with self.noting():
            self._sources[file] = source = file.source()
            with self.inside(file):
                self._codes[file] = going_on.compiled(source, file.path, _legal(source))
        return file in self._codes

    def finds(self, pattern: re.Pattern[str]) -> bool:
        """Whether the text of a file that was compiled has a match."""
        return any(pattern.search(source) for source in self._sources.values())

    def run(self, file: UserFile, name: str, namespace: Mapping[str, object]) -> ModuleType:
        """Run `file`, which compiles, as the module `name`, with the names of `namespace` in it.

        Raises:
            UserCodeError: it raised an error.
        """

        def noted() -> bool:
            """Whether the error in hand is one after which the file may go on."""
            error = sys.exc_info()[1]
            if isinstance(error, UnknownAttributeError):
                self.note(told(error, file))
                return True
            return False

        module = ModuleType(name)
        module.__dict__.update(namespace, __file__=file.path)
        module.__dict__[going_on.NOTED] = noted
        self._replaced.setdefault(name, sys.modules.get(name))
        sys.modules[name] = module
        with self.inside(file):
            exec(self._codes[file], module.__dict__)  # noqa: S102 - it is the point
        return module

    def call(self, file: UserFile, function: Callable[..., Any], *args: object) -> Any:
        """Call a function that `file` has defined.

        Raises:
            UserCodeError: it raised an error.
            SystemExit: a library that it called ended the program (argparse's `--help`, for one).
        """
        with self.inside(file):
            return function(*args)

    @contextmanager
    def inside(self, file: UserFile) -> Iterator[None]:
        """What is done in here is done by code of `file`: its neighbours can be imported, its errors are its own."""
        beside = self._beside.setdefault(file.directory, {})
        before = set(sys.modules)
        sys.modules.update(beside)
        sys.path.insert(0, file.directory)
        importlib.invalidate_caches()
        try:
            yield
        except (Exception, SystemExit) as error:  # users' code may raise anything: here it becomes their own message
            if isinstance(error, SystemExit) and file.kind == 'arg parser' and _is_meant(error):
                raise
            raise told(error, file) from error
        finally:
            if file.directory in sys.path:
                sys.path.remove(file.directory)
            for name in set(sys.modules) - before:
                if _stands_in(sys.modules.get(name.partition('.')[0]), file.directory):
                    beside[name] = sys.modules[name]
            for name in beside:
                sys.modules.pop(name, None)


class Caller(NamedTuple):
    """Calls functions that users' files have left behind, also when the load is long over."""

    code: UserCode
    file: UserFile

    def __deepcopy__(self, memo: object) -> Caller:
        return self

    def call(self, function: Callable[..., Any], *args: object) -> Any:
        """Call one.

        Raises:
            UserCodeError: it raised an error; the message names its own line.
        """
        return self.code.call(self.file, function, *args)


def _legal(source: str) -> Container[str]:
    """The attributes that all have of which a file speaks: setting any other one may be an error."""
    text = source.lower()
    if 'sweep' not in text:
        return ATTRIBUTES
    from remote_runner.config.sweep_attributes import SWEEP_ATTRIBUTES  # late: most configs have none

    return ATTRIBUTES.keys() & SWEEP_ATTRIBUTES.keys() if 'component' in text else SWEEP_ATTRIBUTES


class Place(NamedTuple):
    """A line of a user's file."""

    path: str
    line: int

    @property
    def text(self) -> str:
        linecache.checkcache(self.path)
        return linecache.getline(self.path, self.line).strip()

    def __str__(self) -> str:
        return f'{self.path}, line {self.line}'


def told(error: BaseException, file: UserFile) -> UserCodeError:
    """What a user's code raised as a message that names the user's own lines and no others."""
    from remote_runner.config import python2  # late: its patterns take a millisecond, and most files are right

    places = [
        Place(frame.f_code.co_filename, line)
        for frame, line in walk_tb(error.__traceback__)
        if frame.f_code.co_filename == file.path or is_users(frame.f_code.co_filename)
    ]
    places.reverse()
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_file():
        places.insert(0, Place(error.filename, error.lineno or 1))
    if not places:
        return UserCodeError(f'{file.kind} {file.path}: {_said(error, file)}')
    lines = [places[0].text]
    for place in places[1:_FRAMES_SHOWN]:
        lines += [f'called from {place}:', f'  {place.text}']
    if len(places) > _FRAMES_SHOWN:
        lines.append(f'and {len(places) - _FRAMES_SHOWN} calls above')
    return UserCodeError(
        f'{places[0]}: {_said(error, file)}',
        remedy=python2.remedy(error, places[0].text),
        output='\n'.join(lines),
    )


def is_users(path: str) -> bool:
    """Whether a file is a user's own: neither ours nor Python's nor an installed library's."""
    if path.startswith(('<', _OURS + os.sep)):
        return False
    parts = Path(path).parts
    return not any(name in parts for name in _INSTALLED) and not path.startswith(_LIBRARY)


def _said(error: BaseException, file: UserFile) -> str:
    """What an error says, in one phrase."""
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return f'the {file.kind} ended itself, with status {error.code or 0}'
        return f'the {file.kind} ended itself: {error.code}'
    if isinstance(error, RemoteRunnerError):
        return str(error)
    kind = 'AttributeError' if isinstance(error, UnknownAttributeError) else type(error).__name__
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception:  # the user's own __str__ is broken
        text = '(its message cannot be shown)'
    return f'{kind}: {text}' if text else kind


def _is_meant(error: SystemExit) -> bool:
    """Whether a parser ended the command on purpose: without failure, or through a library (argparse's errors)."""
    if error.code in (None, 0):
        return True
    innermost = _innermost(error.__traceback__)
    # exit() and quit() are Python's, but it was the user's own line that called them.
    return innermost is not None and not is_users(innermost) and '_sitebuiltins' not in innermost


def _innermost(traceback: TracebackType | None) -> str | None:
    files = [frame.f_code.co_filename for frame, _ in walk_tb(traceback)]
    return files[-1] if files else None


def _stands_in(module: ModuleType | None, directory: str) -> bool:
    """Whether a top-level module is a file or a package standing in `directory`."""
    spec = getattr(module, '__spec__', None)
    if spec is None:
        return False
    places = list(spec.submodule_search_locations or ()) or [spec.origin or '']
    return any(str(Path(place).parent) == directory for place in places)
