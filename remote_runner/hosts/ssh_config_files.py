"""Which hosts an ssh_config treats alike, so that one answer of `ssh -G` serves them all.

`ssh -G` takes 5 ms; for 200 hosts that is half a second of two cores. Two hosts to which exactly the same lines apply,
apart from HostName, Port and User, get the same answer apart from these. `Outline` is what decides that. The files are
understood only as far as that is certain; where they hold anything else (Match with conditions, canonical names,
quoting, tokens), `read` gives up and each host is asked for by itself.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from remote_runner.hosts.patterns import matches
from remote_runner.hosts.ssh_config_lines import split

_DEPTH = 16  # of Include; the same as OpenSSH's
_OWN = ('hostname', 'port', 'user')  # each host may have its own
_SYSTEM = Path('/etc/ssh')
Patterns = tuple[str, ...]


class _Unclear(Exception):
    """The files hold something whose meaning here is not certain."""


class Outline(NamedTuple):
    """What the files say about one name.

    Args:
        hostname, port, user: the first value that applies to the name; None: none does.
        rest: all other lines that apply, in order.
    """

    hostname: str | None
    port: str | None
    user: str | None
    rest: tuple[str, ...]


class _Line(NamedTuple):
    """A setting, and the Host lines (with those around an Include) that must all match for it to apply."""

    conditions: tuple[Patterns, ...]
    keyword: str
    value: str


class ConfigFiles:
    """The lines of all files that `ssh` would read."""

    def __init__(self, lines: list[_Line]) -> None:
        self._lines = lines

    @classmethod
    def read(cls, config_file: str | None, home: str) -> ConfigFiles | None:
        """Read them; None if their meaning is not certain here.

        Args:
            config_file: that of `ssh -F`.
            home: the user's home.
        """
        if config_file is not None:
            files = [Path(config_file)] if config_file != 'none' else []
        else:
            files = [Path(home, '.ssh', 'config'), _SYSTEM / 'ssh_config']
        try:
            return cls([line for file in files for line in _read(file, Path(home), (), 0)])
        except _Unclear:
            return None

    def outline(self, name: str) -> Outline:
        """What applies to a host of this name."""
        own: dict[str, str] = {}
        rest: list[str] = []
        matched: dict[Patterns, bool] = {}
        for line in self._lines:
            for patterns in line.conditions:
                if patterns not in matched:
                    matched[patterns] = matches(name, patterns)
            if all(matched[patterns] for patterns in line.conditions):
                if line.keyword in _OWN:
                    own.setdefault(line.keyword, line.value)
                else:
                    rest.append(f'{line.keyword} {line.value}')
        return Outline(own.get('hostname'), own.get('port'), own.get('user'), tuple(rest))


def _read(
    file: Path, home: Path, outer: tuple[Patterns, ...], depth: int, in_match: bool = False
) -> Iterator[_Line]:
    """`outer` and `in_match`: the Host lines, and whether there is a Match, around the Include of this file."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise _Unclear from error
    conditions, included_in_match = outer, in_match
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith('#'):
            continue
        keyword, value = split(line)
        if keyword == 'host':
            if any(letter in value for letter in '"\'\\#'):
                raise _Unclear
            conditions, in_match = (*outer, tuple(value.split())), included_in_match
        elif keyword == 'match':
            if value.lower() not in ('all', 'final all'):
                raise _Unclear
            conditions, in_match = outer, True
        elif keyword == 'include':
            yield from _include(value, file, home, conditions, depth, in_match)
        elif keyword.startswith('canonical') or (keyword in _OWN and (in_match or _unclear(keyword, value))):
            raise _Unclear
        else:
            yield _Line(conditions, keyword, value)


def _unclear(keyword: str, value: str) -> bool:
    plain = value.replace('%h', '') if keyword == 'hostname' else value
    return not plain.isascii() or any(letter in plain for letter in '"\'\\#%$ \t')


def _include(
    value: str, file: Path, home: Path, conditions: tuple[Patterns, ...], depth: int, in_match: bool
) -> Iterator[_Line]:
    if depth == _DEPTH or any(letter in value for letter in '"\'\\#%$'):
        raise _Unclear
    base = _SYSTEM if file.is_relative_to(_SYSTEM) else home / '.ssh'
    for pattern in value.split():
        if pattern.startswith('~') and not pattern.startswith('~/'):
            raise _Unclear
        path = str(home / pattern[2:] if pattern.startswith('~/') else base / pattern)
        for included in sorted(glob.glob(path)):  # noqa: PTH207 - sorted, as glob(3) does
            yield from _read(Path(included), home, conditions, depth + 1, in_match)
