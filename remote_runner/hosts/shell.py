"""Command lines that survive every login shell: the one place where a command for a host is quoted.

Between single quotes sh, csh, fish, rc, xonsh and all others change nothing, but for a few characters, which no
command of ours may hold: the quote itself, the backslash (fish), `!` (csh) and newlines (csh).
"""

from __future__ import annotations

import re

_UNSAFE = re.compile(r"['\\!\n\r\0]")


def sh(script: str) -> str:
    """The command line that has /bin/sh run `script`, whatever shell reads it.

    Raises:
        ValueError: the script holds a character that some shell changes, even between single quotes.
    """
    found = _UNSAFE.search(script)
    if found:
        raise ValueError(f'{found.group()!r} cannot stand in a command for any shell: {script}')
    return f"/bin/sh -c '{script}'"
