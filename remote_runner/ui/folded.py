"""Equal output of many, shown once."""

from __future__ import annotations

import sys
from collections.abc import Mapping


def print_folded(groups: Mapping[bytes, list[str]]) -> None:
    """Print each output under the folded names of those that have it, the largest group first."""
    from remote_runner.hosts.address import fold

    for output, names in sorted(groups.items(), key=lambda group: -len(group[1])):
        title = f'{fold(names)} ({len(names)})'
        rule = '-' * min(len(title), 80)
        sys.stdout.flush()
        sys.stdout.buffer.write(f'{rule}\n{title}\n{rule}\n'.encode('utf-8', 'surrogateescape') + output)
        sys.stdout.buffer.write(b'' if output.endswith(b'\n') or not output else b'\n')
    sys.stdout.flush()
