"""What a command finds in a folder that this host shares with the client, and what it leaves there.

The client tells where its folder lies and what it has seen there: of the folder itself (the path `.`), and of the words
of the command that are paths. The command starts once the same is seen here. Afterwards the client is told what has
changed of that, and waits in its turn. See `agent/seen.py`.
"""

import os
import time

from remote_runner.agent import seen
from remote_runner.agent.request import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List

#: Paths that an error names.
NAMED = 3


class View:
    """See above.

    Args:
        folder: in which the command is going to run.
        words: of the command.
        shared: what the client says: `boot`, `device`, `private` and `inodes` of `seen.Place`, `files` ({path: what it
            has seen}) and `wait` (seconds).
        pause: waits so many seconds.

    Raises:
        Failure: it is not the client's folder; or something is not seen here in time.
    """

    def __init__(
        self, folder: str, words: "List[str]", shared: "Dict[str, Any]", pause: "Callable[[float], object]"
    ) -> None:
        self._folder = folder
        deadline = time.monotonic() + shared['wait']
        levels = _levels(folder, shared, deadline, pause)
        root = os.path.normpath(folder)
        for _ in range(levels - 1):
            root = os.path.dirname(root)
        self._root = root.rstrip('/') + '/'
        files = {path: sight for path, sight in shared['files'].items() if self._is_shared(path)}
        late = seen.wait(files, folder, deadline, pause)
        if late:
            raise Failure(
                'it has not seen within {:g} s what is here: {}'.format(shared['wait'], listed(late)), kind='late'
            )
        paths = {'.', *files, *filter(self._is_shared, seen.named(words))}
        self._before = {path: self._look(path) for path in paths}

    def changes(self) -> "Dict[str, seen.Sight]":
        """What is seen now of all that is not as it was before."""
        now = {path: self._look(path) for path in self._before}
        return {path: sight for path, sight in now.items() if sight != self._before[path]}

    def _look(self, path: str) -> "seen.Sight":
        return seen.look(os.path.join(self._folder, path))

    def _is_shared(self, path: str) -> bool:
        """Whether a path lies in what is shared, as far as its name tells."""
        return (os.path.normpath(os.path.join(self._folder, path)) + '/').startswith(self._root) and '\0' not in path


def listed(paths: "List[str]") -> str:
    """A few of them."""
    more = ' and {} more'.format(len(paths) - NAMED) if len(paths) > NAMED else ''
    return ', '.join(sorted(paths)[:NAMED]) + more


def _levels(folder: str, shared: "Dict[str, Any]", deadline: float, pause: "Callable[[float], object]") -> int:
    """How many folders are shared, from `folder` upwards; waits where it may be seen a little later.

    Raises:
        Failure: it is not shared.
    """
    while True:
        why = 'it is another folder there than here'
        errno_name = ''
        try:
            place = seen.Place(folder)
            levels = place.common(shared)
            if levels:
                return levels
            is_final = place.is_private
        except OSError as error:
            why = str(error.strerror)
            errno_name = 'ENOENT' if isinstance(error, FileNotFoundError) else ''
            is_final = _is_missing_for_good(folder)
        if is_final or time.monotonic() > deadline:
            raise Failure('{}: {}'.format(folder, why), kind='cwd', errno_name=errno_name)
        pause(seen.LONGEST_PAUSE)
        seen.ask_again(folder)


def _is_missing_for_good(folder: str) -> bool:
    """Whether nobody else can make a folder: the nearest one above it that is there is this kernel's alone."""
    above = folder
    while above != os.path.dirname(above):
        above = os.path.dirname(above)
        try:
            return seen.Place(above).is_private
        except OSError:
            continue
    return True
