"""Equal output of many, shown once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping


def print_folded(groups: Mapping[bytes, list[str]], fold: Callable[[Iterable[str]], str]) -> None:
    """Print each output under the names of those that have it, as `fold` writes them, the largest group first."""
    for output, names in sorted(groups.items(), key=lambda group: -len(group[1])):
        title = f'{fold(names)} ({len(names)})'
        rule = '-' * min(len(title), 80)
        sys.stdout.flush()
        sys.stdout.buffer.write(f'{rule}\n{title}\n{rule}\n'.encode('utf-8', 'surrogateescape') + output)
        sys.stdout.buffer.write(b'' if output.endswith(b'\n') or not output else b'\n')
    sys.stdout.flush()
