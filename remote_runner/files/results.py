"""Where on this machine the files that a run brings home lie."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

#: Bytes of a file name (NAME_MAX of Linux's file systems).
_LONGEST = 255


def results_folder(root: str | os.PathLike[str], run: str, name: str, host: str) -> Path:
    """`<root>/<run>/<name>@<host>`, the folder of one component; different components never share one.

    In names, what would not be one plain path component stands as `%` and two hexadecimal digits a byte: slashes,
    `%`, control characters, a leading dot, and `@` in the name of the component. Hosts stay readable. What is longer
    than a file name can be is cut, and ends with `%-` and its SHA-1.
    """
    return run_folder(root, run) / _cut(f'{_safe(name, "@")}@{_safe(host)}')


def run_folder(root: str | os.PathLike[str], run: str) -> Path:
    """`<root>/<run>`, where the folders of its components are."""
    return Path(root) / _cut(_safe(run))


def local_folder(results: Path, wanted: str) -> str:
    """Where a folder of `component.fetch` lies: absolute as it is, relative below the component's results folder."""
    return str(results / wanted)


def _safe(text: str, special: str = '') -> str:
    safe = ''.join(_escaped(c) if c in f'/%{special}' or not c.isprintable() else c for c in text)
    return f'%2E{safe[1:]}' if safe.startswith('.') else safe


def _escaped(character: str) -> str:
    return ''.join(f'%{byte:02X}' for byte in character.encode('utf-8', 'surrogatepass'))


def _cut(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= _LONGEST:
        return text
    end = f'%-{hashlib.sha1(encoded, usedforsecurity=False).hexdigest()}'
    return encoded[: _LONGEST - len(end)].decode(errors='ignore') + end
