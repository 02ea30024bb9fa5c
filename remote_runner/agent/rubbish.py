"""What runs have left on this host and nobody needs any more. Only looks: `agent/clean.py` removes it.

Nothing counts as rubbish that a session needs of which anything is alive, on which anybody is at work, or whose newest
runs are kept. The order in which things are looked at makes a run that begins meanwhile safe, see `Look`.
"""

import os
import stat
import time

from remote_runner.agent import copies, files, folders, living, locks, processes, screen, sockets, staged, survey, tasks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Iterable, Iterator, List, Optional, Tuple

#: What there is: folders that `prepare` made, runs that are over, sessions without runs, agents of other versions,
#: copies that never became whole, sockets, links, locks, programs whose launchers were killed, what jobs left of their
#: tasks, and what tasks needed.
BASE_DIR, RUN, SESSION, AGENT, COPY, SOCKET, LINK, LOCK, PROGRAM, JOB, DEPENDENCIES = (
    'base_dir', 'run', 'session', 'agent', 'copy', 'socket', 'link', 'lock', 'program', 'job', 'dependencies',
)  # fmt: skip
#: Seconds by which a folder must be older than the lock of a run to be none of its own: file servers have own clocks.
CLOCKS = 3600.0
#: Seconds for which results wait that no master has taken, and for which dependencies wait for another job.
AWAITED, UNUSED = 7 * 86400.0, 30 * 86400.0


class Item:
    """One thing that may go.

    Args:
        kind: see above.
        path: where it stands; of a program the folder of its component.
        found: what lstat(2) says of it.
        session: to which it belongs; '' where that is unknown, or it belongs to none.
        version: of an agent, as other hosts that share the home know it.
        count: processes of a program.
    """

    def __init__(
        self, kind: str, path: str, found: os.stat_result, session: str = '', version: str = '', count: int = 1
    ) -> None:
        self.kind = kind
        self.path = path
        self.inode = found.st_ino
        self.session = session
        self.changed = found.st_mtime
        self.version = version
        self.count = count

    @property
    def key(self) -> "Tuple[str, str, int]":
        """What it is known by between two looks."""
        return self.kind, self.path, self.inode


class Session:
    """The runs of one session, and whether any of it is alive.

    Attributes:
        runs: the names of its runs, the newest first; last those that are being removed already.
        old: those of them that are not kept.
        why: why all of it stays; '' where nothing is alive.
        abandoned: components whose launchers were killed and whose programs were not.
        base_dirs: the real paths of the working folders of each run's components.
        copied_to: the folders into which files may have been copied.
    """

    def __init__(self, root: str, name: str, keep: int, now: living.Living) -> None:
        self.name = name
        self.path = os.path.join(root, name)
        visible = folders.run_names(self.path)
        names = [run for run in os.listdir(self.path) if _is_folder(os.path.join(self.path, run))]
        self.runs = visible + [run for run in names if run.startswith(folders.HIDDEN)]
        self.old = visible[keep:] + self.runs[len(visible) :]
        self.abandoned: "List[survey.Found]" = []
        self.base_dirs: "Dict[str, List[str]]" = {}
        self.copied_to: "Dict[str, None]" = {}
        alive = sum(self._look_at(run, now) for run in self.runs)
        self.why = ''
        if alive:
            self.why = '{} alive'.format('1 component is' if alive == 1 else '{} components are'.format(alive))
        elif name in now.servers:
            self.why = 'its screen session stands (`remote_runner stop` ends it)'

    def known_base_dirs(self) -> "List[str]":
        """Those of the runs that stand."""
        return [path for run, paths in self.base_dirs.items() if not run.startswith(folders.HIDDEN) for path in paths]

    def _look_at(self, run: str, now: living.Living) -> int:
        """How many components of a run are alive."""
        alive = 0
        own = now.marked.get(run, {})
        for folder in folders.component_folders(os.path.join(self.path, run)):
            try:
                one = survey.Found(folder, folders.read_spec(folder))
            except folders.UNREADABLE:
                alive += os.path.realpath(folder) in now.launchers
                continue  # its spec was never written, or not whole
            cwd = os.fsdecode(one.spec['cwd'])
            self.base_dirs.setdefault(run, []).append(os.path.realpath(cwd))
            self.copied_to.update(dict.fromkeys([cwd, os.path.dirname(os.fsdecode(one.spec['argv'][0]))]))
            left = own.get(one.spec['name'], [])
            if one.peer is not None:
                one.peer.sock.close()
            if one.peer is not None or os.path.realpath(folder) in now.launchers or one.guard_lives():
                alive += 1
            elif left and one.is_abandoned:
                one.left = left
                self.abandoned.append(one)
            elif left:
                alive += 1
        return alive


class Look:
    """All that there is, at one moment.

    Temporary folders are listed first, then who holds a session, then what lives, then specs. So a folder without a
    spec, and older than the lock of each run that is under way, is one that no run will ever come back to: a run makes
    its folders, and writes its specs, while it holds its session.

    Args:
        keep: how many of the newest runs of each session stay.
    """

    def __init__(self, keep: int) -> None:
        self._temporary = list(_temporary_folders())
        self.held: "Dict[str, locks.Held]" = {}
        self.runtime = [folder for folder in screen.runtime_candidates() if _is_our_folder(folder)]
        for folder in self.runtime:
            self.held.update(locks.held(folder))
        self.now = living.Living()
        self.root = folders.state_root()
        self.sessions: "Dict[str, Session]" = {}
        for name in survey.all_sessions():
            try:
                self.sessions[name] = Session(self.root, name, keep, self.now)
            except FileNotFoundError:
                continue  # removed meanwhile
        self.hosts = _other_hosts(self.root)
        self._keep = keep

    def kept(self) -> "List[Dict[str, object]]":
        """The sessions that stay whole, and why."""
        found: "List[Dict[str, object]]" = []
        for name in sorted({*self.sessions, *self.held}):
            why = self._why_kept(name)
            if why:
                found.append({'session': name, 'why': why})
        return found

    def _why_kept(self, session: str) -> str:
        if session in self.held:
            return 'it is held by {}'.format(self.held[session].holder)
        return self.sessions[session].why if session in self.sessions else ''

    def _over(self) -> "Iterator[Session]":
        return (session for name, session in self.sessions.items() if not self._why_kept(name))

    # ---- what belongs to sessions -----------------------------------------------------------------------------

    def programs(self) -> "Iterator[Item]":
        """Programs whose launchers were killed."""
        for session in self._over():
            for one in session.abandoned:
                yield Item(PROGRAM, one.folder, os.lstat(one.folder), session.name, count=len(one.left))

    def runs(self) -> "Iterator[Item]":
        """The folders of runs that are over, and those of sessions without any run."""
        for session in self._over():
            for run in session.old:
                yield from _items(RUN, os.path.join(session.path, run), session.name)
            if not session.runs:
                yield from _items(SESSION, session.path, session.name)

    def base_dirs(self) -> "Iterator[Item]":
        """Temporary folders of which nobody makes use, and which no run that is kept knows."""
        owners: "Dict[str, List[Tuple[str, bool]]]" = {}
        for name, session in self.sessions.items():
            for run, paths in session.base_dirs.items():
                goes = not self._why_kept(name) and run in session.old
                for path in paths:
                    owners.setdefault(path, []).append((name, goes))
        left = [(one.spec['run'], one.spec['name']) for session in self._over() for one in session.abandoned]
        used = living.in_use([os.path.realpath(path) for path, _ in self._temporary], left)
        elsewhere = self.now.base_dirs()
        for path, found in self._temporary:
            real = os.path.realpath(path)
            if real in used or any(_is_within(base, real) for base in elsewhere):
                continue
            own = [owner for base, known in owners.items() if _is_within(base, real) for owner in known]
            if own and all(goes for _, goes in own):
                yield Item(BASE_DIR, path, found, own[0][0])
            elif not own and self._is_nobodys(found):
                yield Item(BASE_DIR, path, found)

    def _is_nobodys(self, found: os.stat_result) -> bool:
        """Whether a folder that no spec knows was made for a run that is over."""
        since = min([held.since for held in self.held.values()], default=None)
        return not found.st_mode & 0o077 and (since is None or found.st_ctime < since - CLOCKS)

    def copies(self) -> "Iterator[Item]":
        """Files that were never copied as a whole, in folders that are known from specs."""
        for folder in dict.fromkeys(folder for session in self.sessions.values() for folder in session.copied_to):
            try:
                for path in copies.abandoned(folder):
                    yield from _items(COPY, path)
            except OSError:
                continue  # it is gone

    # ---- what belongs to jobs ---------------------------------------------------------------------------------

    def jobs(self) -> "Iterator[Item]":
        """The folders of jobs of which nothing lives, but for the newest, and results that a master may still take."""
        over = []
        for path in _jobs(os.uname().nodename):
            if os.path.realpath(path) in self.now.jobs:
                continue
            try:
                names = os.listdir(path)
                changed = max(os.lstat(os.path.join(path, name)).st_mtime for name in [*names, '.'])
            except FileNotFoundError:
                continue  # somebody is just removing it
            is_awaited = any(name.endswith('.json') for name in names) and time.time() < changed + AWAITED
            if not is_awaited:
                over.append((changed, path))
        for _, path in sorted(over, reverse=True)[self._keep :]:
            yield from _items(JOB, path)

    def dependencies(self) -> "Iterator[Item]":
        """What no job has needed for long, on any of the hosts that see this home."""
        needed = {os.path.realpath(folder) for folder in _needed_by_tasks()}
        folder = os.path.join(os.path.expanduser('~'), staged.FOLDER)
        unused = {}
        for name in _names_in(folder):
            path = os.path.join(folder, name)
            for item in _items(DEPENDENCIES, path):
                # Dispatchers mark what they use with the time.
                if os.path.realpath(path) not in needed and time.time() > item.changed + UNUSED:
                    unused[os.path.realpath(path)] = item
        used = living.in_use(unused)
        yield from (item for path, item in unused.items() if path not in used)

    # ---- what belongs to the host -----------------------------------------------------------------------------

    def agents(self) -> "Iterator[Item]":
        """Agents of other versions in the caches, and what was left there by agents that were killed."""
        in_use = {os.path.basename(path) for path in self.now.code}
        own = os.path.basename(living.own_code()).partition('-')[0]
        is_known = not self.now.unknown_agents
        for cache, is_shared in _caches():
            for name in sorted(os.listdir(cache)):
                path = os.path.join(cache, name)
                version, _, rest = name.partition('.')
                if not living.is_version(version):
                    continue
                if rest and _is_left_over(rest):
                    yield from _items(AGENT, path)
                elif not rest and version.partition('-')[0] != own and is_known and version not in in_use:
                    yield from _items(AGENT, path, version=version if is_shared else '')

    def versions(self) -> "List[str]":
        """The agents that are in use here."""
        return sorted(os.path.basename(path) for path in self.now.code)

    def sockets(self) -> "Iterator[Item]":
        """Sockets on which nobody listens."""
        launchers = {'-'.join(path.rsplit('/', 2)[1:]) for path in self.now.launchers}
        for path, found in self._in_runtime(stat.S_ISSOCK):
            name = os.path.basename(path)
            kind, _, pid = name.partition('-')
            if kind == 'agent' and pid.isdigit() and processes.start_time(int(pid)) is not None:
                continue  # it may be about to listen
            if (name[:-2] if name.endswith('.n') else name) not in launchers and sockets.is_deaf(path):
                yield Item(SOCKET, path, found)

    def links(self, going: "Iterable[str]" = ()) -> "Iterator[Item]":
        """Links to what is gone, or is `going`."""
        gone = set(going)
        for path, found in self._in_runtime(stat.S_ISLNK):
            target = os.readlink(path)
            if target in gone or not os.path.lexists(target):
                is_session = os.path.dirname(target) == self.root
                yield Item(LINK, path, found, os.path.basename(target) if is_session else '')

    def locks(self) -> "Iterator[Item]":
        """Lock files that nobody holds."""
        for path, found in self._in_runtime(stat.S_ISREG):
            session = locks.session_of(os.path.basename(path))
            if session and not self._why_kept(session):
                yield Item(LOCK, path, found, session)

    def _in_runtime(self, is_meant: "Callable[[int], bool]") -> "Iterator[Tuple[str, os.stat_result]]":
        for folder in self.runtime:
            for name in sorted(os.listdir(folder)):
                path = os.path.join(folder, name)
                found = _lstat(path)
                if found is not None and found.st_uid == os.getuid() and is_meant(found.st_mode):
                    yield path, found


# ---- details -------------------------------------------------------------------------------------------------------


def _lstat(path: str) -> "Optional[os.stat_result]":
    try:
        return os.lstat(path)
    except OSError:
        return None


def _items(kind: str, path: str, session: str = '', version: str = '') -> "Iterator[Item]":
    """The item at a path, if that is ours."""
    found = _lstat(path)
    if found is not None and found.st_uid == os.getuid():
        yield Item(kind, path, found, session, version)


def _names_in(folder: str) -> "List[str]":
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []  # there is none


def _jobs(host: str) -> "Iterator[str]":
    """The folders of jobs of a host."""
    for root in [os.path.join(folders.state_home(), 'remote_runner'), *screen.runtime_candidates()]:
        folder = os.path.join(root, tasks.WORK, host)
        for name in _names_in(folder):
            if _is_our_folder(os.path.join(folder, name)):
                yield os.path.join(folder, name)


def _needed_by_tasks() -> "Iterator[str]":
    """The folders with what tasks under way on all hosts need, as links in their own folders lead there."""
    for host in _names_in(os.path.join(folders.state_home(), 'remote_runner', tasks.WORK)):
        for job in _jobs(host):
            for task in _names_in(job):
                for name in _names_in(os.path.join(job, task)):
                    path = os.path.join(job, task, name)
                    root = staged.root_of(os.readlink(path)) if os.path.islink(path) else ''
                    if root:
                        yield root


def _is_folder(path: str) -> bool:
    found = _lstat(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def _is_our_folder(path: str) -> bool:
    found = _lstat(path)
    return found is not None and stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + '/')


def _temporary_folders() -> "Iterator[Tuple[str, os.stat_result]]":
    """The folders with names as `prepare` makes them, where it makes them, as far as they are ours."""
    for root in dict.fromkeys(['/tmp', os.path.normpath(files.temporary_root())]):
        try:
            names = sorted(os.listdir(root))
        except OSError:
            continue  # nobody can have made any there
        for name in names:
            path = os.path.join(root, name)
            if files.is_temporary(name) and _is_our_folder(path):
                found = _lstat(path)
                if found is not None:
                    yield path, found


def _caches() -> "Iterator[Tuple[str, bool]]":
    """The folders in which agents lie, and whether other hosts may have them, too; see `agent/stage.py`."""
    home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    for cache, is_shared in (
        (os.path.join(home, 'remote_runner'), True),
        ('/tmp/remote_runner-{}/cache'.format(os.getuid()), False),
    ):
        if _is_our_folder(cache):
            yield os.path.realpath(cache), is_shared


def _is_left_over(rest: str) -> bool:
    """Whether a name that goes on like this, `HOST.PID` or `HOST.PID.damaged`, is of an agent of ours that is gone."""
    ours = os.uname().nodename + '.'
    pid = rest[len(ours) :].partition('.')[0]
    return rest.startswith(ours) and pid.isdigit() and processes.start_time(int(pid)) is None


def _other_hosts(root: str) -> "List[str]":
    """The other hosts that keep their state in this home."""
    try:
        return sorted(name for name in os.listdir(os.path.dirname(root)) if name != os.uname().nodename)
    except OSError:
        return []
