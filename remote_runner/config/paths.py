"""Local paths as users write them."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path


def expanded(path: str) -> str:
    """`path` with a leading `~` or `~user` replaced by that home directory, where it is known."""
    try:
        return str(Path(path).expanduser()) if path.startswith('~') else path
    except RuntimeError:  # no such user
        return path


def neighbour(path: Path) -> str | None:
    """A hint for a file that is missing: the nearest name in its directory, if there is one like it."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return None
    nearest = get_close_matches(path.name, names, n=1)
    return f'there is {nearest[0]} beside it' if nearest else None
