"""Removing what runs have left and nobody needs any more: operations `rubbish`, which shows it, and `clean`.

Only what was shown goes, and only if it is rubbish still. A session is held while it is looked at and its runs are
moved out of the way, which takes a moment: a run that begins meanwhile waits for that.
"""

import fcntl
import os
import time

from remote_runner.agent import folders, living, locks, processes, removal, survey
from remote_runner.agent.request import Failure
from remote_runner.agent.rubbish import (
    AGENT,
    BASE_DIR,
    COPY,
    DEPENDENCIES,
    JOB,
    LINK,
    LOCK,
    PROGRAM,
    RUN,
    SESSION,
    SOCKET,
    Item,
    Look,
    Session,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Iterable, List, Set, Tuple

    from remote_runner.agent.request import Request

    Key = Tuple[str, str, int]

#: Seconds that what is left of programs has to end, beyond what each has itself.
END_TIMEOUT = 30.0
USED_AGAIN = 'it is in use now'


def rubbish(request: "Request") -> "Dict[str, object]":
    """Operation `rubbish`: what runs have left here and nobody needs; of each session `keep` runs stay.

    The result holds `now`, the time of this host's clock; `items`, each with `kind`, `path`, `inode`, `session`,
    `version`, `count`, `size` (bytes on disk) and `changed` (Unix time); `kept`, sessions of which nothing goes, and
    why; `versions`, the agents that are in use here; `hosts`, the others that see this home; and `unknown`, how many
    agents are connected of which nobody can say which version they are.
    """
    look = Look(request.header['keep'])
    items = [*look.programs(), *look.runs(), *look.base_dirs()]
    covered = [item.path + '/' for item in items if item.kind == BASE_DIR]
    items += [item for item in look.copies() if not item.path.startswith(tuple(covered))]
    items += [*look.agents(), *look.jobs(), *look.dependencies(), *look.sockets()]
    items += look.links(_going(look, items))
    items += look.locks()
    described = []
    for item in items:
        request.check()
        described.append(
            {
                'kind': item.kind,
                'path': item.path,
                'inode': item.inode,
                'session': item.session,
                'version': item.version,
                'count': item.count,
                'size': 0 if item.kind == PROGRAM else removal.room(item.path),
                'changed': item.changed,
            }
        )
    return {
        'now': time.time(),
        'items': described,
        'kept': look.kept(),
        'versions': look.versions(),
        'hosts': look.hosts,
        'unknown': len(look.now.unknown_agents),
    }


def _going(look: Look, items: "Iterable[Item]") -> "List[str]":
    """The folders that will be gone when these items are: of sessions and agents, to which links lead."""
    runs = {item.path for item in items if item.kind == RUN}
    sessions = [
        session.path
        for session in look.sessions.values()
        if session.runs and all(os.path.join(session.path, run) in runs for run in session.runs)
    ]
    return sessions + [item.path for item in items if item.kind in (AGENT, SESSION)]


def clean(request: "Request") -> "Dict[str, object]":
    """Operation `clean`: remove those of `items` ([kind, path, inode]) that nobody needs still; see `rubbish`.

    `holder` is who removes them. The result tells of each, in their order, what became of it: [`removed`, ''] (also if
    somebody else was faster), [`kept`, why] or [`failed`, why].
    """
    header = request.header
    cleaning = _Cleaning(request, [(str(kind), str(path), int(inode)) for kind, path, inode in header['items']])
    cleaning.run()
    return {'results': [cleaning.outcome(key) for key in cleaning.wanted]}


class _Cleaning:
    """One request to clean."""

    def __init__(self, request: "Request", wanted: "List[Key]") -> None:
        self.wanted = wanted
        self._request = request
        self._keep = int(request.header['keep'])
        self._holder = str(request.header['holder'])
        self._failed: "Dict[Key, str]" = {}
        self._kept: "Dict[Key, str]" = {}
        self._ended: "Set[Key]" = set()
        self._root = folders.state_root()

    def run(self) -> None:
        """The story; each step looks anew."""
        self._end_programs()
        self._remove(COPY, lambda look: look.copies())  # specs tell where they are
        sessions = {os.path.dirname(key[1]) for key in self._of(RUN)} | {key[1] for key in self._of(SESSION)}
        nobodys: "Set[str]" = set()
        for session in sorted(sessions):
            nobodys |= self._clean_session(os.path.basename(session))
        if self._of(BASE_DIR):
            self._remove_base_dirs(nobodys)
        self._remove_agents()
        self._remove_jobs()
        self._remove(DEPENDENCIES, lambda look: look.dependencies())
        self._remove(SOCKET, lambda look: look.sockets())
        self._remove_links()
        self._remove_locks()

    def _of(self, kind: str) -> "List[Key]":
        return [key for key in self.wanted if key[0] == kind]

    def outcome(self, key: "Key") -> "Tuple[str, str]":
        """What became of an item."""
        if key in self._failed:
            return 'failed', self._failed[key]
        if key in self._kept:
            return 'kept', self._kept[key]
        if key in self._ended or not _stands(key):
            return 'removed', ''
        return 'kept', USED_AGAIN

    def _take(self, key: "Key", path: "str | None" = None) -> None:
        """Remove what an item stands for, or what it has become."""
        self._request.check()
        why = removal.remove(path or key[1], key[2])
        if why:
            self._failed[key] = why

    # ---- sessions ---------------------------------------------------------------------------------------------

    def _end_programs(self) -> None:
        wanted = {key[1]: key for key in self._of(PROGRAM)}
        if not wanted:
            return
        look = Look(self._keep)
        shown = {item.key for item in look.programs()}
        ending = [
            one
            for session in look.sessions.values()
            for one in session.abandoned
            if one.folder in wanted and wanted[one.folder] in shown
        ]
        before = {one.folder: processes.identify(one.left) for one in ending}
        for one in ending:
            one.left = []
        patience = max([float(one.spec['stop_timeout']) for one in ending], default=0.0) + END_TIMEOUT
        for thread in survey.end_abandoned(ending):
            thread.join(patience)
        for one in ending:
            left = processes.alive(before[one.folder])
            if left:
                pids = ', '.join(str(pid) for pid, _ in sorted(left))
                self._failed[wanted[one.folder]] = 'these processes could not be ended: {}'.format(pids)
        self._ended = {wanted[one.folder] for one in ending} | {key for key in wanted.values() if not _stands(key)}

    def _clean_session(self, name: str) -> "Set[str]":
        """Remove runs of a session, and itself if nothing is left of it; the base_dirs that are nobody's now."""
        own = {key[1]: key for key in self._of(RUN) if os.path.dirname(key[1]) == os.path.join(self._root, name)}
        moved: "Dict[Key, str]" = {}
        nobodys: "Set[str]" = set()
        try:
            with locks.Hold(name, self._holder):
                session = Session(self._root, name, self._keep, living.Living())
                if session.why:
                    self._kept.update(dict.fromkeys(own.values(), session.why))
                    return set()
                for run in session.old:
                    key = own.get(os.path.join(session.path, run))
                    if key is not None and self._move_away(key, moved):
                        nobodys.update(session.base_dirs.get(run, []))
        except Failure as failure:
            self._kept.update(dict.fromkeys(own.values(), failure.what))
            return set()
        except FileNotFoundError:
            return set()  # somebody else was faster
        for key, path in moved.items():
            self._take(key, path)
        self._remove_empty(name)
        return nobodys

    def _move_away(self, key: "Key", moved: "Dict[Key, str]") -> bool:
        """Take a run out of the way, while its session is held: nobody starts anything of it any more."""
        folder, name = os.path.split(key[1])
        hidden = os.path.join(folder, folders.HIDDEN + name)
        try:
            if not name.startswith(folders.HIDDEN):
                os.rename(key[1], hidden)
            moved[key] = key[1] if name.startswith(folders.HIDDEN) else hidden
        except OSError as error:
            self._failed[key] = str(error.strerror)
            return False
        return True

    def _remove_empty(self, name: str) -> None:
        """Remove the folder of a session of which nothing is left, while nobody can come into it."""
        try:
            with locks.Hold(name, self._holder):
                os.rmdir(os.path.join(self._root, name))
        except (Failure, OSError):
            return  # it is needed, or there is something in it

    def _remove_base_dirs(self, nobodys: "Set[str]") -> None:
        """Those that no spec knows any more; `nobodys` are, whoever is at work on other sessions."""
        look = Look(self._keep)
        now = {item.key for item in look.base_dirs()}
        used = {path for session in look.sessions.values() for path in session.known_base_dirs()}
        used |= living.in_use(nobodys) | look.now.base_dirs()
        for key in self._of(BASE_DIR):
            real = os.path.realpath(key[1])
            if real not in used and (key in now or real in nobodys):
                self._take(key)

    # ---- the rest ---------------------------------------------------------------------------------------------

    def _remove(self, kind: str, find: "Callable[[Look], Iterable[Item]]") -> None:
        """Remove things that one look is enough for."""
        wanted = self._of(kind)
        now = {item.key for item in find(Look(self._keep))} if wanted else set()
        for key in wanted:
            if key in now:
                self._take(key)

    def _remove_agents(self) -> None:
        """Each is moved away first: who begins to use it meanwhile finds it missing, and stores it anew."""
        wanted = self._of(AGENT)
        now = {item.key for item in Look(self._keep).agents()} if wanted else set()
        for key in wanted:
            if key not in now:
                continue
            away = '{}.{}.{}.gone'.format(key[1], os.uname().nodename, os.getpid())
            try:
                os.rename(key[1], away)
            except OSError as error:
                self._failed[key] = str(error.strerror)
                continue
            code = living.Living().code
            if key[1] in code or away in code:
                self._kept[key] = USED_AGAIN
                try:
                    os.rename(away, key[1])
                    continue
                except OSError:
                    del self._kept[key]  # it was stored anew
            self._take(key, away)

    def _remove_jobs(self) -> None:
        """The folder of a job goes while its lock is held: a dispatcher that begins meanwhile makes another one."""
        wanted = self._of(JOB)
        now = {item.key for item in Look(self._keep).jobs()} if wanted else set()
        for key in wanted:
            if key not in now:
                continue
            try:
                lock = os.open(key[1] + '/lock', os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                self._failed[key] = str(error.strerror)
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._take(key)
            except BlockingIOError:
                self._kept[key] = USED_AGAIN
            finally:
                os.close(lock)

    def _remove_links(self) -> None:
        """A link to the folder of a session goes while that is held: nobody is about to use it."""
        wanted = self._of(LINK)
        now = {item.key: item.session for item in Look(self._keep).links()} if wanted else {}
        for key in wanted:
            if key not in now:
                continue
            try:
                if now[key]:
                    with locks.Hold(now[key], self._holder):
                        self._remove_link(key)
                else:
                    self._remove_link(key)
            except Failure as failure:
                self._kept[key] = failure.what
            except FileNotFoundError:
                continue

    def _remove_link(self, key: "Key") -> None:
        if not os.path.lexists(os.readlink(key[1])):
            self._take(key)

    def _remove_locks(self) -> None:
        wanted = self._of(LOCK)
        now = {item.key for item in Look(self._keep).locks()} if wanted else set()
        for key in wanted:
            if key not in now:
                continue
            try:
                if not locks.remove(key[1]):
                    self._kept[key] = USED_AGAIN
            except FileNotFoundError:
                continue
            except OSError as error:
                self._failed[key] = str(error.strerror)


def _stands(key: "Key") -> bool:
    """Whether an item is there still."""
    try:
        return os.lstat(key[1]).st_ino == key[2]
    except OSError:
        return False
