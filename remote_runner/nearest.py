"""What somebody meant who wrote a name that is not there."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, names: Iterable[str], alike: float = 0.0) -> str | None:
    """The most similar of these names; None if there is none, or none that is `alike` (0 to 1, see difflib)."""
    from difflib import get_close_matches  # which takes its time

    return next(iter(get_close_matches(name, list(names), n=1, cutoff=alike)), None)


#: As alike as names are that one takes for another.
ALIKE = 0.6
