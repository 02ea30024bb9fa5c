"""How much of ours runs on this host, counted again and again at little cost.

Components count one each (their launchers name their folders), and so do the tasks below the dispatchers of jobs and
the commands below agents, whoever of this user's masters they work for.
"""

import os

from remote_runner.agent import tree
from remote_runner.agent.living import is_agent, is_dispatcher, is_launcher
from remote_runner.agent.records import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Tuple

#: Looks at a process after which it is known what it is: at first it may not be yet what it is going to be.
LOOKS = 2
#: Counts after which everything is looked at anew: pids come again.
THOROUGH = 40
_DISPATCHER, _AGENT = 'dispatcher', 'agent'


class Census:
    """Remembers which processes are of which kind, so that each is looked at twice only."""

    def __init__(self) -> None:
        self._counts = 0
        #: How often a process was looked at, and what it is: `/` and a component's folder, one of ours, or ''.
        self._known: "Dict[int, Tuple[int, str]]" = {}

    def count(self) -> int:
        """How many components, tasks and commands of ours there are now."""
        before = self._known if self._counts % THOROUGH else {}
        self._counts += 1
        self._known = {}
        for name in os.listdir('/proc'):
            if name.isdigit():
                looks, kind = before.get(int(name), (0, ''))
                self._known[int(name)] = (looks, kind) if looks == LOOKS else (looks + 1, _kind(name))
        components = {kind for _, kind in self._known.values() if kind.startswith('/')}
        found = len(components)
        for pid, (_, kind) in self._known.items():
            if kind in (_DISPATCHER, _AGENT):
                # A process of the same kind below it is another half of it.
                found += sum(1 for child in tree.children(pid) if self._known.get(child, (0, ''))[1] != kind)
        return found


def _kind(pid: str) -> str:
    try:
        if os.stat('/proc/' + pid).st_uid != os.getuid():
            return ''
        argv = read_file('/proc/{}/cmdline'.format(pid)).split(b'\0')
    except OSError:
        return ''  # it has just ended
    if is_launcher(argv):
        return os.path.join('/', os.fsdecode(argv[3]))
    if is_dispatcher(argv):
        return _DISPATCHER
    return _AGENT if is_agent(argv) else ''
