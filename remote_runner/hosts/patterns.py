"""Patterns that stand for host names in ssh_config and known_hosts: PATTERNS in ssh_config(5)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether the patterns match `name` (`*`, `?`). One with `!` that matches forbids it."""
    matched = False
    for pattern in patterns:
        if _matches(name, pattern.removeprefix('!')):
            if pattern.startswith('!'):
                return False
            matched = True
    return matched


def _matches(name: str, pattern: str) -> bool:
    if '*' not in pattern and '?' not in pattern:
        return name == pattern
    return _pattern(pattern).fullmatch(name) is not None


@lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(''.join({'*': '.*', '?': '.'}.get(letter, re.escape(letter)) for letter in text), re.DOTALL)
