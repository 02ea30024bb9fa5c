"""Which files the helpers of `util` leave out: patterns as in a `.gitignore`, see gitignore(5)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from remote_runner.config.reading import plain, shown
from remote_runner.wire.rules import Rules

if TYPE_CHECKING:
    from remote_runner.wire.rules import Rule


class Exclusion:
    """Patterns that say which of the files below a folder are left out. The last one that matches decides.

    Args:
        patterns: one, or several.

    Raises:
        TypeError: a pattern is no text.
        ValueError: a pattern can match nothing.
    """

    def __init__(self, patterns: str | Iterable[str]) -> None:
        if isinstance(patterns, (str, bytes)):
            patterns = [patterns]
        if not isinstance(patterns, Iterable):
            raise TypeError(f'exclude must be a pattern or a list of patterns, is {shown(patterns)}')
        written = list(patterns)
        #: The rules of the patterns, as a host is told them.
        self.rules: tuple[Rule, ...] = tuple(reversed([_rule(pattern) for pattern in written]))
        #: The patterns, as text.
        self.patterns: tuple[str, ...] = tuple(plain(pattern) for pattern in written)
        self._rules = Rules(self.rules)

    def __bool__(self) -> bool:
        """Whether there is any pattern."""
        return bool(self.rules)

    def excludes(self, path: str, *, is_folder: bool) -> bool:
        """Whether a file, link or folder is left out, where no folder that it is in is.

        Args:
            path: relative to the folder that the patterns are for, without `.` and `..` in it.
            is_folder: whether it is a folder that would be entered.
        """
        return self._rules.excludes(path, is_folder)


def _rule(pattern: object) -> Rule:
    """One pattern, see `wire/rules.py`."""
    if not isinstance(pattern, str):
        raise TypeError(f'exclude: a pattern must be text, is {shown(pattern)}')
    text = plain(pattern)
    keeps = text.startswith('!')
    body = text.removeprefix('!')
    is_for_folders = body.endswith('/')
    body = body.removesuffix('/')
    is_for_paths = '/' in body
    body = body.removeprefix('/')
    if not body:
        raise ValueError(f'exclude: the pattern {text!r} matches nothing')
    try:
        regex = _translated(body)
    except ValueError as error:
        raise ValueError(f'exclude: the pattern {text!r} matches nothing: {error}') from None
    return regex, is_for_paths, is_for_folders, keeps


def _translated(pattern: str) -> str:
    """The regular expression of a pattern."""
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        if character == '*':
            part, at = _stars(pattern, at)
        elif character == '[':
            part, at = _brackets(pattern, at)
        elif character == '?':
            part, at = '[^/]', at + 1
        else:
            literal, at = _literal(pattern, at)
            part = re.escape(literal)
        parts.append(part)
    return ''.join(parts)


def _literal(pattern: str, at: int) -> tuple[str, int]:
    """The character that stands at a position, or behind the backslash there, and the position after it."""
    if pattern[at] != '\\':
        return pattern[at], at + 1
    if at + 1 == len(pattern):
        raise ValueError('there is nothing behind its last backslash')
    return pattern[at + 1], at + 2


def _stars(pattern: str, begin: int) -> tuple[str, int]:
    """The expression of the asterisks at a position, and the position after them."""
    end = begin
    while pattern[end : end + 1] == '*':
        end += 1
    is_alone = (begin == 0 or pattern[begin - 1] == '/') and pattern[end : end + 1] in ('', '/')
    if end - begin == 1 or not is_alone:
        return '[^/]*', end
    return ('.*', end) if end == len(pattern) else ('(?:.*/)?', end + 1)


def _brackets(pattern: str, begin: int) -> tuple[str, int]:
    """The expression of the set at a position, and the position after it. No set has a slash in it."""
    at = begin + 1
    is_negated = pattern[at : at + 1] in ('!', '^')
    at += is_negated
    ranges: list[tuple[str, str]] = []
    is_first = True
    while is_first or pattern[at : at + 1] != ']':
        is_first = False
        if at >= len(pattern):
            raise ValueError('no ] ends its [ (write \\[ for a bracket)')
        if pattern.startswith('[:', at):
            raise ValueError('it has a named class, [:NAME:], which is unknown here (write \\[ for a bracket)')
        low, at = _literal(pattern, at)
        high = low
        if pattern[at : at + 1] == '-' and pattern[at + 1 : at + 2] not in ('', ']'):
            high, at = _literal(pattern, at + 1)
        ranges.append((low, max(low, high)))  # of one that is written backwards, git takes the first character
    inside = ''.join(f'{re.escape(low)}-{re.escape(high)}' for low, high in ranges)
    return f'(?!/)[{"^" if is_negated else ""}{inside}]', at + 1
