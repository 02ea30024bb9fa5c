"""Sets of parameters for sweeps, each a dict of name to value; they are made one by one, as they are asked for.

    util.parameters('params.csv')                       # a file, a set a line
    util.product(rate=[1, 10], seed=range(5))           # each with each: 10 sets
    util.zip(rate=[1, 10], seed=[7, 8])                 # the first ones, the second ones: 2 sets
    one * other                                         # each set of one with each of the other
    one + other                                         # the sets of one, then those of the other

What is held in memory are the values that were given, however many sets they make.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from remote_runner.config.paths import neighbour
from remote_runner.config.reading import BadValueError, argument, plain, shown
from remote_runner.errors import ConfigError

SEPARATOR = '|'

_NAME = re.compile(r'[^\W\d][\w.-]*')
#: Faults of one kind that are told.
_MOST = 5


class Parameters(ABC):
    """Sets of parameters, all with the same names: goes through dicts, as often as wanted, and knows how many they are.

    Attributes:
        names: of the parameters, in the order of columns.
    """

    names: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __iter__(self) -> Iterator[dict[str, Any]]: ...

    @abstractmethod
    def _at(self, position: int) -> dict[str, Any]:
        """The set at a position from 0 to below the length."""

    @abstractmethod
    def reasons(self) -> Iterator[str]:
        """What is wrong with the values."""

    def __getitem__(self, position: int) -> dict[str, Any]:
        count = len(self)
        if not -count <= position < count:
            raise IndexError(f'there are {count} parameter sets, and none is at {position}')
        return self._at(position % count)

    def __mul__(self, other: object) -> Parameters:
        """Each set with each of `other`, whose sets change faster.

        Raises:
            ValueError: both have a parameter of the same name.
        """
        return _Product(self, other) if isinstance(other, Parameters) else NotImplemented

    def __add__(self, other: object) -> Parameters:
        """All sets, then those of `other`.

        Raises:
            ValueError: the names of the parameters differ.
        """
        return _Sum(self, other) if isinstance(other, Parameters) else NotImplemented

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Parameters):
            return NotImplemented
        return len(self) == len(other) and all(one == another for one, another in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f'<{len(self)} parameter sets of {", ".join(self.names)}>'

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameters:
        return self  # nothing in it changes


class _Values(Parameters):
    """One parameter and its values."""

    def __init__(self, name: str, values: Sequence[Any]) -> None:
        self.names = (name,)
        self._name = name
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return ({self._name: value} for value in self._values)

    def _at(self, position: int) -> dict[str, Any]:
        return {self._name: self._values[position]}

    def reasons(self) -> Iterator[str]:
        if not isinstance(self._values, range):
            for position, value in enumerate(self._values):
                yield from _value_reasons(f'[{self._name!r}][{position}]', value)


class Table(Parameters):
    """Rows of values, those of a file for one.

    Args:
        names: of the columns.
        rows: each with as many values.
    """

    def __init__(self, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        self.names = tuple(names)
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        names = self.names
        return (dict(zip(names, row, strict=True)) for row in self._rows)

    def _at(self, position: int) -> dict[str, Any]:
        return dict(zip(self.names, self._rows[position], strict=True))

    def reasons(self) -> Iterator[str]:
        for position, row in enumerate(self._rows):
            for name, value in zip(self.names, row, strict=True):
                yield from _value_reasons(f'[{position}][{name!r}]', value)


class _Product(Parameters):
    def __init__(self, slow: Parameters, fast: Parameters) -> None:
        self.names = _joined(slow, fast)
        self._slow = slow
        self._fast = fast

    def __len__(self) -> int:
        return len(self._slow) * len(self._fast)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return ({**slow, **fast} for slow in self._slow for fast in self._fast)

    def _at(self, position: int) -> dict[str, Any]:
        slow, fast = divmod(position, len(self._fast))
        return {**self._slow[slow], **self._fast[fast]}

    def reasons(self) -> Iterator[str]:
        yield from self._slow.reasons()
        yield from self._fast.reasons()


class _Zip(Parameters):
    def __init__(self, one: Parameters, other: Parameters) -> None:
        self.names = _joined(one, other)
        if len(one) != len(other):
            raise ValueError(
                f'{", ".join(one.names)}: {len(one)} values, but {", ".join(other.names)}: {len(other)}; '
                'zip needs as many of each'
            )
        self._one = one
        self._other = other

    def __len__(self) -> int:
        return len(self._one)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return ({**one, **other} for one, other in zip(self._one, self._other, strict=True))

    def _at(self, position: int) -> dict[str, Any]:
        return {**self._one[position], **self._other[position]}

    def reasons(self) -> Iterator[str]:
        yield from self._one.reasons()
        yield from self._other.reasons()


class _Sum(Parameters):
    def __init__(self, first: Parameters, second: Parameters) -> None:
        if set(first.names) != set(second.names):
            raise ValueError(
                f'parameter sets of {", ".join(first.names) or "nothing"} cannot be followed by '
                f'sets of {", ".join(second.names) or "nothing"}: all need the same names'
            )
        self.names = first.names
        before = first._parts if isinstance(first, _Sum) else [first]  # adding up makes no tower
        self._parts: list[Parameters] = [*before, second]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        names = self.names
        return ({name: each[name] for name in names} for part in self._parts for each in part)

    def _at(self, position: int) -> dict[str, Any]:
        for part in self._parts:
            if position < len(part):
                found = part[position]
                return {name: found[name] for name in self.names}
            position -= len(part)
        raise AssertionError('no such position')

    def reasons(self) -> Iterator[str]:
        for part in self._parts:
            yield from part.reasons()


def product(*sets: Parameters, **values: Iterable[Any]) -> Parameters:
    """Each value with each of the others, see `util.product`."""
    result: Parameters = Table((), [()])
    for part in _parts('product', sets, values):
        result = part if not result.names else result * part
    return result


def zipped(*sets: Parameters, **values: Iterable[Any]) -> Parameters:
    """The first values, the second ones and so on, see `util.zip`."""
    parts = _parts('zip', sets, values)
    if not parts:
        return Table((), [])
    result = parts[0]
    for part in parts[1:]:
        result = _Zip(result, part)
    return result


def read_table(path: Path) -> Parameters:
    """The parameter sets of a file: cells separated by `|`, names in its first line, a set in each line after it.

    Lines that are empty do not count, nor do spaces around a cell. The values are text.

    Raises:
        ConfigError: it cannot be read, or it is something else; the message names file and line.
    """
    names: list[str] = []
    rows: list[tuple[str, ...]] = []
    wrong: list[str] = []
    for number, line in enumerate(_text(path).split('\n'), 1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split(SEPARATOR)]
        if not names:
            names = cells
            reasons = list(_name_reasons(names))
            if reasons:
                raise ConfigError(f'{path}, line {number}: {"; ".join(reasons)}')
        elif len(cells) == len(names):
            rows.append(tuple(cells))
        else:
            counted = f'{len(cells)} cell{"s" if len(cells) > 1 else ""}'
            wrong.append(f'{path}, line {number}: {counted}, but the first line has {len(names)} names')
    if not names:
        raise ConfigError(f'{path}: is empty', remedy=f'its first line holds the names, separated by {SEPARATOR}')
    if wrong:
        more = f'\nand {len(wrong) - _MOST} more such lines' if len(wrong) > _MOST else ''
        raise ConfigError('\n'.join(wrong[:_MOST]) + more)
    return Table(names, rows)


def read_parameters(value: object) -> Parameters:
    """Parameter sets that tasks can be made of."""
    if isinstance(value, Parameters):
        found = value
    elif isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        advice = "; write util.parameters('FILE') or util.product(NAME=[...])"
        raise BadValueError(f'must be parameter sets, is {shown(value)}{advice}')
    else:
        found = _listed(list(value))
    if not len(found):
        raise BadValueError('holds no parameter set')
    reasons = [*_name_reasons(found.names), *found.reasons()]
    if len(reasons) > _MOST:
        reasons[_MOST:] = [f'has {len(reasons) - _MOST} more values of that kind']
    if reasons:
        raise BadValueError(*reasons)
    return found


def _listed(sets: Sequence[Any]) -> Table:
    """A list of dicts as users may write it."""
    for position, each in enumerate(sets):
        if not isinstance(each, Mapping):
            raise BadValueError(f'[{position}] must be a dict of name to value, is {shown(each)}')
        if set(each) != set(sets[0]):
            raise BadValueError(f'[{position}] has other names than [0]: {_names(each)}, not {_names(sets[0])}')
    names = tuple(sets[0]) if sets else ()
    return Table(names, [tuple(each[name] for name in names) for each in sets])


def _names(each: Mapping[Any, Any]) -> str:
    return ', '.join(map(str, each)) or 'none'


def _parts(what: str, sets: Iterable[object], values: Mapping[str, Any]) -> list[Parameters]:
    parts: list[Parameters] = []
    for each in sets:
        if not isinstance(each, Parameters):
            raise TypeError(f'{what} takes lists of values by name, as rate=[1, 2], and parameter sets, not {each!r}')
        parts.append(each)
    for name, given in values.items():
        if isinstance(given, (str, bytes)):
            raise TypeError(f'{name} must be a list of values, is the text {given!r}; write [{given!r}]')
        if not isinstance(given, Iterable):
            raise TypeError(f'{name} must be a list of values, is {given!r}; write [{given!r}]')
        parts.append(_Values(name, given if isinstance(given, range) else tuple(given)))
    return parts


def _joined(one: Parameters, other: Parameters) -> tuple[str, ...]:
    """The names of both, which are different ones."""
    twice = [name for name in other.names if name in one.names]
    if twice:
        raise ValueError(f'both have a parameter {", ".join(map(repr, twice))}')
    return one.names + other.names


def _name_reasons(names: Iterable[object]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if not isinstance(name, str) or not _NAME.fullmatch(plain(name)):
            yield f'{shown(name)} is no name for a parameter: a letter, then letters, digits and any of _ . -'
        if count > 1:
            yield f'{shown(name)} is the name of {count} parameters'


def _value_reasons(place: str, value: object) -> Iterator[str]:
    try:
        argument(value)
    except BadValueError as bad:
        for reason in bad.reasons:
            yield f'{place} {reason}'


def _text(path: Path) -> str:
    """The text of a file, in UTF-8."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f'{path}: no such file', remedy=neighbour(path)) from None
    except OSError as error:
        raise ConfigError(f'{path}: cannot be read: {error.strerror}') from None
    try:
        return data.decode('utf-8').removeprefix('\ufeff')
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        raise ConfigError(
            f'{path}, line {line}: byte {data[error.start]:#04x} is no UTF-8 text', remedy='save the file as UTF-8'
        ) from None
