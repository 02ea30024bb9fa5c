"""What the facts of a host mean for whoever wants to deploy on it: findings, each with its remedy. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from remote_runner.errors import (
    AuthenticationFailed,
    BootstrapFailed,
    ConnectionLost,
    HostError,
    HostKeyChanged,
    HostKeyUnknown,
    HostUnreachable,
    PythonMissing,
    RemoteRunnerError,
)

#: Bytes and share of inodes below which a file system is nearly full.
LEAST_ROOM = 100_000_000
LEAST_INODES = 0.01
#: Seconds between two clocks, above which times of files and logs mislead.
MOST_OFFSET = 2.0
#: Sessions that a connection should have: one for the agent, one for large files, one to spare.
LEAST_SESSIONS = 3
LEAST_FILES = 1024
#: Seconds that a login shell may take to come up.
SLOW_START = 1.0
LEAST_PYTHON = (3, 6)
#: From this exit status of `screen -q -ls` on screen works (screen(1)).
SCREEN_WORKS = 9
_FULL = ('ENOSPC', 'EDQUOT')
_QUOTED = 100


class Level(StrEnum):
    """How much a finding matters, the least first."""

    OK = 'ok'
    INFO = 'info'
    WARNING = 'warning'
    ERROR = 'error'


@dataclass(frozen=True)
class Finding:
    """One thing that was found out about a host.

    Args:
        check: what was looked at, a word for programs.
        level: how much it matters.
        what: what was found, a sentence without a full stop; lines after the first are what the host printed.
        remedy: what to do about it; empty: nothing.
    """

    check: str
    level: Level
    what: str
    remedy: str = ''


@dataclass(frozen=True)
class Place:
    """A file system that is written to, and what for.

    Args:
        name: what for: home, state folder, /tmp, TMPDIR.
        path: the folder, or the one above it that exists.
        device: tells file systems of a host apart.
        free: bytes that this user may still write.
        inodes, inodes_free: files that it can hold, and can still hold for this user; 0 and 0: there is no limit.
        noexec: no program on it can be run.
    """

    name: str
    path: str
    device: int
    free: int
    inodes: int
    inodes_free: int
    noexec: bool


@dataclass(frozen=True)
class Screen:
    """GNU screen on a host.

    Args:
        path: None: it is not there.
        version: `4.9.0`; empty: it did not say.
        status: of `screen -q -ls`; None: it could not be run.
        said: what `screen -ls` printed.
        screendir: $SCREENDIR.
        folders: its socket folders that exist: path, uid of the owner, mode.
        password: the user's .screenrc sets a password.
    """

    path: str | None
    version: str = ''
    status: int | None = None
    said: str = ''
    screendir: str | None = None
    folders: tuple[tuple[str, int, int], ...] = ()
    password: bool = False


@dataclass(frozen=True)
class Logind:
    """What logind.conf(5) says of processes at logout.

    Args:
        kill: KillUserProcesses; None: not set.
        only: KillOnlyUsers.
        exclude: KillExcludeUsers; None: not set, which excludes root.
        file: the last file that says something of it.
        linger: the user lingers (loginctl(1)).
    """

    kill: bool | None = None
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] | None = None
    file: str = ''
    linger: bool = False


@dataclass(frozen=True)
class HostFacts:
    """What was found out about a host.

    Args:
        user, uid: as whom we are there.
        python: version of the python3 that runs the agent.
        screen, logind: see there.
        places: the file systems that are written to.
        home: the home folder.
        home_error: name of the errno with which a file there could not be written; None: it could.
        runtime: the private folder for sockets and locks; None: there is none, for the reason `runtime_problem`.
        clock_offset: seconds that its clock is ahead of ours.
        nofile: files that a program there may have open (soft limit); None: no limit.
        sessions: sessions that its sshd opens on one connection, as far as was tried; None: there is no sshd between.
        start_seconds: how long the login shell took to come up.
        printed: the end of what its start-up files printed.
    """

    user: str
    uid: int
    python: str
    screen: Screen
    logind: Logind
    places: tuple[Place, ...]
    home: str
    home_error: str | None
    runtime: str | None
    runtime_problem: str
    clock_offset: float
    nofile: int | None
    sessions: int | None
    start_seconds: float
    printed: str


def read_facts(said: Mapping[str, Any], **others: Any) -> HostFacts:
    """The facts from what the agent's operation `examine` says, and what is known without it."""
    screen, logind, runtime = said['screen'], said['logind'], said['runtime']
    exclude = logind['exclude']
    folders = tuple((folder['path'], folder['uid'], folder['mode']) for folder in screen['folders'])
    return HostFacts(
        user=said['user'],
        screen=Screen(**{**screen, 'folders': folders}),
        logind=Logind(
            **{**logind, 'only': tuple(logind['only']), 'exclude': None if exclude is None else tuple(exclude)}
        ),
        places=tuple(Place(**place) for place in said['places']),
        home_error=said['home_error'],
        runtime=runtime['folder'],
        runtime_problem=runtime['problem'],
        nofile=said['nofile'],
        **others,
    )


def judge(facts: HostFacts) -> tuple[Finding, ...]:
    """All findings about a host that was examined."""
    return tuple(finding for check in CHECKS for finding in check(facts))


def judge_failure(error: RemoteRunnerError) -> tuple[Finding, ...]:
    """The finding about a host that could not be examined."""
    check = next((check for kind, check in _FAILURES if isinstance(error, kind)), 'agent')
    output = '\n'.join(f'    | {line}' for line in (error.output or '').rstrip().splitlines())
    what = f'{error.what}\n{output}' if output else error.what
    return (Finding(check, Level.ERROR, what, error.remedy or ''),)


def shared_home(names: str) -> Finding:
    """The finding about hosts that share a home, named in `names`."""
    return Finding('shared-home', Level.INFO, f'{names} see the same home')


#: The checks that fail with errors of each kind; the first that fits counts.
_FAILURES: tuple[tuple[type[RemoteRunnerError], str], ...] = (
    (HostKeyUnknown, 'host-key'),
    (HostKeyChanged, 'host-key'),
    (AuthenticationFailed, 'authentication'),
    (HostUnreachable, 'connection'),
    (ConnectionLost, 'connection'),
    (PythonMissing, 'python'),
    (BootstrapFailed, 'agent'),
    (HostError, 'connection'),
)


def is_out_of_reach(error: RemoteRunnerError) -> bool:
    """Whether a host could not be reached, trusted or authenticated, rather than lacking something."""
    return isinstance(error, HostError) and not isinstance(error, BootstrapFailed)


def _connection(facts: HostFacts) -> Iterator[Finding]:
    if facts.sessions is None:
        yield Finding('connection', Level.OK, 'this machine, without SSH')
        return
    yield Finding('connection', Level.OK, 'reached')
    yield Finding('host-key', Level.OK, 'known')
    yield Finding('authentication', Level.OK, f'logged in as {facts.user}')


def _python(facts: HostFacts) -> Iterator[Finding]:
    version = tuple(int(number) for number in facts.python.split('.')[:2])
    if version < LEAST_PYTHON:
        yield Finding('python', Level.ERROR, f'python3 is {facts.python}', 'install python3 3.6 or newer')
    else:
        yield Finding('python', Level.OK, f'python {facts.python}')


def _screen(facts: HostFacts) -> Iterator[Finding]:
    screen = facts.screen
    if screen.path is None:
        yield Finding('screen', Level.ERROR, 'screen is not installed', 'install the package screen there')
    elif screen.status is None or screen.status < SCREEN_WORKS:
        yield Finding('screen', Level.ERROR, f'screen does not work: {screen.said}', _screen_remedy(facts))
    else:
        yield Finding('screen', Level.OK, f'screen {screen.version or "of unknown version"}')
    if screen.password:
        yield Finding(
            'screenrc', Level.ERROR, '.screenrc sets a password: no command reaches a session', 'remove that line'
        )


def _screen_remedy(facts: HostFacts) -> str:
    """What has to be done about the socket folder: its own, then that of all users (screen(1), SCREENDIR)."""
    screen = facts.screen
    for path, uid, mode in screen.folders:
        is_own = path == screen.screendir or path.endswith(('/S-' + facts.user, '/.screen'))
        if is_own and uid != facts.uid:
            return f'{path} belongs to the user {uid}: remove it, as that user or as root'
        if is_own and mode & 0o777 != 0o700:
            return f'chmod 700 {path}'
    if screen.screendir:
        return f'SCREENDIR names {screen.screendir}: make it a folder with mode 700, or unset SCREENDIR'
    for path, _, mode in screen.folders:
        if mode & 0o777 != 0o777:
            return f'chmod 1777 {path}, as root'
    return 'its folder for sockets is made by: mkdir -m 1777 /run/screen, as root'


def _space(facts: HostFacts) -> Iterator[Finding]:
    devices: dict[int, list[Place]] = {}
    for place in facts.places:
        devices.setdefault(place.device, []).append(place)
    for places in devices.values():
        first = places[0]
        names = ', '.join(place.name for place in places)
        where = names if names == first.path else f'{names} ({first.path})'
        room = f'{first.free / 1e6:.0f} MB free in {where}'
        if first.free < LEAST_ROOM:
            yield Finding('space', Level.WARNING, room, 'make room there')
        else:
            yield Finding('space', Level.OK, room)
        if first.inodes and first.inodes_free / first.inodes < LEAST_INODES:
            yield Finding(
                'inodes', Level.WARNING, f'{first.inodes_free} files more can be made in {where}', 'remove files there'
            )
    for place in facts.places:
        if place.noexec and place.name != 'state folder':  # no base_dir lies there
            yield Finding(
                'noexec',
                Level.WARNING,
                f'{place.name} is mounted noexec: no program whose base_dir lies there can be run',
                'name a base_dir elsewhere, or have it mounted with exec',
            )


def _home(facts: HostFacts) -> Iterator[Finding]:
    if facts.home_error is None:
        yield Finding('home', Level.OK, f'{facts.home} can be written to')
    elif facts.home_error in _FULL:
        what = f'nothing can be written to {facts.home}: it is full ({facts.home_error})'
        yield Finding('home', Level.ERROR, what, 'make room there, or raise the quota')
    else:
        what = f'{facts.home} cannot be written to ({facts.home_error}): what is kept there goes to /tmp'
        yield Finding('home', Level.WARNING, what, 'name a base_dir elsewhere for components, or mend the home')


def _runtime(facts: HostFacts) -> Iterator[Finding]:
    if facts.runtime is not None:
        yield Finding('runtime', Level.OK, f'sockets and locks in {facts.runtime}')
    else:
        yield Finding(
            'runtime',
            Level.ERROR,
            f'no private folder for sockets and locks: {facts.runtime_problem}',
            'remove what stands there, or set XDG_RUNTIME_DIR to a folder of yours',
        )


def clock_text(offset: float) -> str:
    """`clock +0.01 s`."""
    return f'clock {round(offset, 2) + 0.0:+.2f} s'


def _clock(facts: HostFacts) -> Iterator[Finding]:
    offset = facts.clock_offset
    if abs(offset) > MOST_OFFSET:
        side = 'ahead of' if offset > 0 else 'behind'
        what = f'the clock is {abs(offset):.1f} s {side} that of this machine'
        yield Finding('clock', Level.WARNING, what, 'let both follow a time server (timedatectl set-ntp true)')
    else:
        yield Finding('clock', Level.OK, clock_text(offset))


def _sessions(facts: HostFacts) -> Iterator[Finding]:
    if facts.sessions is None:
        return
    if facts.sessions < LEAST_SESSIONS:
        what = f'sshd opens {facts.sessions} session{"s" if facts.sessions > 1 else ""} on a connection'
        yield Finding('sessions', Level.WARNING, what, 'MaxSessions 10 in sshd_config there')
    else:
        yield Finding('sessions', Level.OK, f'{facts.sessions} sessions or more on a connection')


def _files(facts: HostFacts) -> Iterator[Finding]:
    if facts.nofile is not None and facts.nofile < LEAST_FILES:
        what = f'a program may have {facts.nofile} files open'
        yield Finding('nofile', Level.WARNING, what, 'raise nofile, in /etc/security/limits.conf for example')
    else:
        yield Finding('nofile', Level.OK, f'{facts.nofile or "any number of"} open files a program')


def kills_at_logout(logind: Logind, user: str) -> bool:
    """Whether logind ends what a user leaves behind at logout (logind.conf(5), KillUserProcesses and below it)."""
    if user in (('root',) if logind.exclude is None else logind.exclude):
        return False
    return user in logind.only if logind.only else bool(logind.kill)


def _logout(facts: HostFacts) -> Iterator[Finding]:
    """Lingering keeps the user's own manager, not the scope of a session, in which screen runs (systemd-run(1))."""
    if not kills_at_logout(facts.logind, facts.user):
        yield Finding('logout', Level.OK, 'programs go on after logout')
        return
    excluded = ' '.join([*(('root',) if facts.logind.exclude is None else facts.logind.exclude), facts.user])
    what = f'logind ends programs of {facts.user} at logout ({facts.logind.file}), and lingering does not help'
    yield Finding('logout', Level.WARNING, what, f'as root: KillExcludeUsers={excluded} there, restart systemd-logind')


def _login(facts: HostFacts) -> Iterator[Finding]:
    if facts.start_seconds > SLOW_START:
        what = f'the login shell takes {facts.start_seconds:.1f} s to come up'
        yield Finding('login', Level.WARNING, what, 'see what its start-up files do where there is no terminal')
    else:
        yield Finding('login', Level.OK, f'the login shell comes up in {facts.start_seconds:.2f} s')
    if facts.printed.strip():
        first = facts.printed.strip().splitlines()[0][:_QUOTED]
        yield Finding('login-output', Level.INFO, f'start-up files of the login shell print: {first!r}')


CHECKS: tuple[Callable[[HostFacts], Iterable[Finding]], ...] = (
    _connection,
    _python,
    _screen,
    _space,
    _home,
    _runtime,
    _clock,
    _sessions,
    _files,
    _logout,
    _login,
)
