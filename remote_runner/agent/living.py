"""What of ours lives on this host at one moment: launchers, dispatchers, agents, screen sessions, and components.

Processes tell it themselves: the command line of a launcher names its component's folder and its own code, that of a
dispatcher those of its job, an agent keeps the folder of its code open (`agent/stage.py`), and whatever a program
started has its run in its environment.
"""

import os

from remote_runner.agent import folders, screen, survey
from remote_runner.agent.records import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterable, Iterator, List, Set, Tuple

#: How the command line of an agent begins, see `hosts/bootstrap.py`.
_AGENT = b'import sys;print('


def own_code() -> str:
    """The folder that this agent was imported from."""
    return os.path.realpath(__file__).rsplit('/', 3)[0]


def is_version(name: str) -> bool:
    """Whether this is the name of an agent in a cache: a hash and a tag of Python, and maybe more."""
    key, _, tag = name.partition('-')
    return len(key) == 20 and all(c in '0123456789abcdef' for c in key) and tag != ''


def is_launcher(argv: "List[bytes]") -> bool:
    """Whether this is the command line of one of the processes behind a component."""
    return len(argv) > 3 and argv[1] == b'-IS' and b'/remote_runner/agent/launcher.py' in argv[2]


def is_dispatcher(argv: "List[bytes]") -> bool:
    """Whether this is the command line of one of the two processes behind a job."""
    return len(argv) > 4 and argv[1] == b'-IS' and b'/remote_runner/agent/dispatcher.py' in argv[2]


def is_agent(argv: "List[bytes]") -> bool:
    """Whether this is the command line of an agent."""
    return len(argv) > 2 and argv[1] == b'-ISc' and argv[2].startswith(_AGENT)


def is_starter(argv: "List[bytes]") -> bool:
    """Whether this is the command line of the process that starts an agent's commands, or of one that sees to one."""
    return len(argv) > 2 and argv[1] == b'-IS' and b'/remote_runner/agent/starter.py' in argv[2]


class Living:
    """What lives now.

    Attributes:
        launchers: the folders of the components whose launchers live.
        jobs: the folders of the jobs whose dispatchers live.
        code: the folders from which all these were imported.
        unknown_agents: pids of agents that do not show where theirs is.
        servers: the pids of screen's servers by session.
        marked: the pids of processes of components, by run and component.
    """

    def __init__(self) -> None:
        self.launchers: "Set[str]" = set()
        self.jobs: "Set[str]" = set()
        self.code = {own_code()}
        self.unknown_agents: "List[int]" = []
        for pid in own_processes():
            try:
                self._look_at(pid, read_file('/proc/{}/cmdline'.format(pid)).split(b'\0'))
            except OSError:
                continue  # it has just ended
        self.servers = screen.all_sessions()
        self.marked: "Dict[str, Dict[str, List[int]]]" = {}
        for pid, run, name in survey.marked():
            self.marked.setdefault(run, {}).setdefault(name, []).append(pid)

    def base_dirs(self) -> "Set[str]":
        """The real paths in which living launchers began their programs, also those of another state folder."""
        found = set()
        for folder in self.launchers:
            try:
                found.add(os.path.realpath(os.fsdecode(folders.read_spec(folder)['cwd'])))
            except folders.UNREADABLE:
                continue  # it has just ended
        return found

    def _look_at(self, pid: int, argv: "List[bytes]") -> None:
        if is_launcher(argv) or is_dispatcher(argv):
            self.code.add(os.path.realpath(os.fsdecode(argv[2])).rsplit('/', 3)[0])
            own = self.launchers if is_launcher(argv) else self.jobs
            own.add(os.path.realpath(os.fsdecode(argv[3])))
        elif is_agent(argv) and pid != os.getpid():
            found = [path for path in _open_files(pid) if is_version(os.path.basename(path))]
            self.code.update(found)
            if not found:
                self.unknown_agents.append(pid)


def own_processes() -> "Iterator[int]":
    """The pids of all processes of this user."""
    for entry in os.listdir('/proc'):
        if entry.isdigit():
            try:
                if os.stat('/proc/' + entry).st_uid == os.getuid():
                    yield int(entry)
            except OSError:
                continue  # it has just ended


def _open_files(pid: int) -> "Iterator[str]":
    """The paths of what a process has open (proc(5), `fd`)."""
    folder = '/proc/{}/fd'.format(pid)
    for name in os.listdir(folder):
        try:
            yield os.readlink(os.path.join(folder, name))
        except OSError:
            continue  # it was just closed


def in_use(paths: "Iterable[str]", apart_from: "Iterable[Tuple[str, str]]" = ()) -> "Set[str]":
    """Those of `paths` (real ones of folders) in which a process works, of which it runs, or has a file open.

    Processes of the components `apart_from`, (run, name), do not count, whenever they were forked.
    """
    wanted = set(paths)
    found: "Set[str]" = set()
    ignored = set(apart_from)
    for pid in [pid for pid in own_processes() if pid != os.getpid()] if wanted else []:
        for path in _paths(pid):
            while path not in wanted and len(path) > 1:
                path = os.path.dirname(path) if path.startswith('/') else ''
            if path in wanted and path not in found and not (ignored and survey.component_of(pid) in ignored):
                found.add(path)
    return found


def _paths(pid: int) -> "Iterator[str]":
    for name in ('cwd', 'exe', 'root'):
        try:
            yield os.readlink('/proc/{}/{}'.format(pid, name))
        except OSError:
            continue  # it is gone, or not for us to see
    try:
        yield from _open_files(pid)
    except OSError:
        return
