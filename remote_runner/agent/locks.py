"""Who changes a session: locks (flock(2)) on files in the runtime folder, each held as long as its agent lives.

The files of sessions that nobody works on may be removed at any time, by whoever holds their locks: a lock counts only
while its file is still the one that stands there.
"""

import fcntl
import os
import select
import time

import _signal

from remote_runner.agent import processes, records, screen
from remote_runner.agent.request import Failure
from remote_runner.wire.compact_json import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Optional, Set

    from remote_runner.agent.request import Request

#: What the names of their files end with.
SUFFIX = '.lock'
#: What can be held of a session.
KINDS = ('run', 'change')
#: Seconds that everybody waits for a session, and for one whose holder says that it is only for a moment.
BRIEF = 1.0
MOMENT = 20.0
#: Seconds that an agent of ours gets to let go of a session, when its connection broke and it does not know yet.
TAKE_OVER_TIMEOUT = 15.0


def lock(request: "Request") -> "Dict[str, object]":
    """Operation `lock`: hold `session` for `holder` as long as this agent lives; a Failure names another holder.

    `kinds`: `run` is held by a run until its end, `change` by whoever changes something, a run too. They are waited for
    `patience` seconds. Where the same `holder` has it over a connection that broke, unknown to us, that agent is ended.
    The result says to a run whether the session `is_running`.
    """
    from remote_runner.agent.screen import is_running

    header = request.header
    for kind in header['kinds']:
        name = '{}.{}'.format(header['session'], kind)
        if name not in request.agent.locks:
            file = _take(header['session'], kind, max(header['patience'], BRIEF), request.check, header['holder'])
            request.agent.locks[name] = _sign(file, header['holder'])
    return {'is_running': 'run' in header['kinds'] and is_running(header['session'])}


def unlock(request: "Request") -> "Dict[str, object]":
    """Operation `unlock`: let go of `kinds` of `session`, if this agent holds them."""
    for kind in request.header['kinds']:
        file = request.agent.locks.pop('{}.{}'.format(request.header['session'], kind), None)
        if file is not None:
            os.close(file)
    return {}


class Hold:
    """Holds a session for a moment (`with`), for which others wait; at the end its lock files are removed.

    Args:
        session: its name.
        holder: who we are.

    Raises:
        Failure: somebody else holds it; kind `held`.
    """

    def __init__(self, session: str, holder: str) -> None:
        self._session = session
        self._holder = holder
        self._files: "Dict[str, int]" = {}

    def __enter__(self) -> None:
        try:
            for kind in KINDS:
                self._files[kind] = _sign(_take(self._session, kind, 0.0), self._holder, brief=True)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        for kind, file in self._files.items():
            records.forget(_path(self._session, kind))
            os.close(file)


def _path(session: str, kind: str) -> str:
    return os.path.join(screen.runtime_folder(), '{}.{}{}'.format(session, kind, SUFFIX))


def _take(
    session: str, kind: str, patience: float, check: "Optional[Callable[[], object]]" = None, holder: str = ''
) -> int:
    """The file of a lock, now held."""
    path = _path(session, kind)
    deadline = time.monotonic() + patience
    dismissed: "Set[processes.Process]" = set()
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        while not _is_ours(file):
            before = _agent_of(file, holder)
            if before is not None and before not in dismissed:
                dismissed.add(before)
                processes.kill([before], _signal.SIGTERM)
                deadline = max(deadline, time.monotonic() + TAKE_OVER_TIMEOUT)
            late = time.monotonic() - deadline
            if late >= 0 and (check is None or late >= MOMENT or not _is_brief(file)):
                raise Failure('session {} is held by {}'.format(session, _signed(file)), kind='held')
            if check is not None:
                check()
            select.poll().poll(50)  # no wait for a lock has an end
        if _stands(path, file):
            return file
        os.close(file)  # removed by whoever held it before


def _sign(file: int, holder: str, brief: bool = False) -> int:
    """Say in the file of a lock who holds it, and whether that is for a moment only; where it cannot be said (the disk
    is full), let go of it."""
    try:
        os.ftruncate(file, 0)
        [me] = processes.identify([os.getpid()])
        os.write(file, dumps({'holder': holder, 'brief': brief, 'agent': list(me)}).encode('ascii'))
    except OSError:
        os.close(file)
        raise
    return file


def _agent_of(file: int, holder: str) -> "Optional[processes.Process]":
    """The agent by which this same holder has the lock of a file; None: another has it."""
    try:
        signed = loads(os.pread(file, 4096, 0).decode('ascii'))
        pid, started = signed['agent']
        return (pid, started) if signed['holder'] == holder else None
    except (ValueError, KeyError, TypeError):
        return None  # it has not been written yet


def _is_brief(file: int) -> bool:
    """Whether who holds the lock of a file lets go of it in a moment."""
    try:
        return bool(loads(os.pread(file, 4096, 0).decode('ascii')).get('brief'))
    except (ValueError, AttributeError):
        return False  # it has not been written yet


def _signed(file: int) -> str:
    """Who holds the lock of a file, which is closed."""
    with open(file) as held:
        text = held.read()
    try:
        return str(loads(text)['holder'])
    except (ValueError, KeyError, TypeError):
        return 'another run'  # it holds the lock and has not written its name yet


def _is_ours(file: int, how: int = fcntl.LOCK_EX) -> bool:
    """Whether we hold the lock of a file, now that we have tried."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _stands(path: str, file: int) -> bool:
    """Whether what stands at a path is this open file."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(file))
    except FileNotFoundError:
        return False


# ---- for those who clean up ----------------------------------------------------------------------------------------


class Held:
    """A lock that somebody holds: of which session, who, and since when (Unix time, by the file's clock)."""

    def __init__(self, session: str, holder: str, since: float) -> None:
        self.session = session
        self.holder = holder
        self.since = since


def session_of(name: str) -> str:
    """The session of a lock file `runner.change.lock`; '' for the name of any other file."""
    for kind in KINDS:
        end = '.{}{}'.format(kind, SUFFIX)
        if name.endswith(end):
            return name[: -len(end)]
    return ''


def held(folder: str) -> "Dict[str, Held]":
    """The sessions that somebody holds, by the lock files of a folder. To look disturbs nobody, see `BRIEF`."""
    found: "Dict[str, Held]" = {}
    for name in sorted(os.listdir(folder)):
        session = session_of(name)
        if not session:
            continue
        try:
            file = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue  # it was removed meanwhile, or is no file
        if _is_ours(file, fcntl.LOCK_SH):
            os.close(file)
            continue
        since = os.fstat(file).st_mtime
        first = found.get(session)
        found[session] = Held(session, _signed(file), min(since, first.since) if first else since)
    return found


def remove(path: str) -> bool:
    """Remove a lock file; False where somebody holds it.

    Raises:
        FileNotFoundError: it is gone.
        OSError: it cannot be removed.
    """
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        if not _is_ours(file):
            return False
        if _stands(path, file):
            os.unlink(path)
        return True
    finally:
        os.close(file)
