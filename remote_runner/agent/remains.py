"""What a dispatcher that was killed has left in the folder of its job: what was over counts, the rest is removed."""

import os

from remote_runner.agent import records, spares
from remote_runner.agent.attempt import Attempt
from remote_runner.agent.strays import end_left_over
from remote_runner.wire.compact_json import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Optional, Set

    from remote_runner.agent.attempt import Key


def recall(folder: str) -> "Dict[Key, Attempt]":
    """The attempts that were over and that no master has taken. Of all others nothing is left afterwards."""
    found: "Dict[Key, Attempt]" = {}
    unfinished: "Dict[Key, Set[str]]" = {}
    for key, ends in _files(folder).items():
        attempt = _recall_one(folder, key) if 'json' in ends else None
        if attempt is not None:
            found[key] = attempt
        elif 'kept' not in ends:
            unfinished[key] = ends
    if unfinished:
        end_left_over(folder)
    for key, ends in unfinished.items():
        attempt = Attempt(folder, key, 0, b'', 0, None)
        for end in ends - {''}:
            records.forget('{}.{}'.format(attempt.path, end))
        attempt.forget(keep=False)
    return found


def _files(folder: str) -> "Dict[Key, Set[str]]":
    """The files of each attempt, by what comes after its name: '' for its folder, `stdout`, `json`, ... Spares go."""
    found: "Dict[Key, Set[str]]" = {}
    for name in os.listdir(folder):
        number, _, rest = name.partition('.')
        go, _, end = rest.partition('.')
        if number == spares.NAME:
            spares.discard('{}/{}'.format(folder, name))
        elif number.isdigit() and go.isdigit():
            found.setdefault((int(number), int(go)), set()).add(end)
    return found


def _recall_one(folder: str, key: "Key") -> "Optional[Attempt]":
    try:
        told = loads(records.read_file('{}/{}.{}.json'.format(folder, *key)).decode('ascii'))
        return Attempt.recall(folder, key, told)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # the host lost its power
