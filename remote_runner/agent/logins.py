"""Who is logged in at this host, at a terminal or a desktop: utmp(5), and the sessions of systemd-logind(8).

Newer systems have one of the two alone. Connections without a terminal (ours, for one) are no logins.
"""

import os
import sys
import time

from remote_runner.agent.records import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterator, Set, Tuple

UTMP = ('/run/utmp', '/var/run/utmp')
SESSIONS = '/run/systemd/sessions'
#: Bytes of a record of utmp: they differ between architectures.
_RECORDS = (384, 400)
#: Seconds after its last change from which on a file that looks unchanged is.
SETTLED = 2.0
_USER_PROCESS = 7
_LAST_TYPE = 9


class Logins:
    """Counts them again and again; files that have not changed are not read again."""

    def __init__(self) -> None:
        self._stamps: "Dict[str, object]" = {}
        self._found: "Dict[str, Set[Tuple[str, int]]]" = {}
        #: What had not been changed for a while when it was read: clocks of file systems are coarse.
        self._settled: "Set[str]" = set()

    def count(self) -> int:
        """How many different users are logged in."""
        users = {name for name, pid in self._utmp() if os.path.exists('/proc/{}'.format(pid))}  # some died silently
        return len(users | {name for name, _ in self._sessions()})

    def _utmp(self) -> "Set[Tuple[str, int]]":
        for path in UTMP:
            if self._has_changed(path):
                try:
                    self._found[UTMP[0]] = set(utmp_users(read_file(path)))
                except OSError:
                    continue
            if self._stamps[path] is not None:
                return self._found.get(UTMP[0], set())
        return set()

    def _sessions(self) -> "Set[Tuple[str, int]]":
        if self._has_changed(SESSIONS):
            self._found[SESSIONS] = set()
            if self._stamps[SESSIONS] is not None:
                for name in os.listdir(SESSIONS):
                    path = os.path.join(SESSIONS, name)
                    if os.path.isfile(path):  # there are pipes beside them
                        self._found[SESSIONS].update(session_user(path))
        return self._found[SESSIONS]

    def _has_changed(self, path: str) -> bool:
        stamp: object = None
        is_settled = True
        try:
            status = os.stat(path)
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            is_settled = abs(time.time() - status.st_mtime) > SETTLED
        except OSError:
            pass  # it is not there
        is_new = path not in self._settled or self._stamps[path] != stamp
        self._stamps[path] = stamp
        if is_settled:
            self._settled.add(path)
        else:
            self._settled.discard(path)
        return is_new


def utmp_users(data: bytes) -> "Iterator[Tuple[str, int]]":
    """The users in what utmp holds, and the pids of their first processes."""
    for size in _RECORDS:
        records = [data[at : at + size] for at in range(0, len(data), size)]
        kinds = [int.from_bytes(record[:2], sys.byteorder) for record in records]
        if len(data) % size == 0 and max(kinds, default=0) <= _LAST_TYPE:
            break
    else:
        return  # it is something else
    for kind, record in zip(kinds, records):  # noqa: B905  # Python 3.6
        name = record[44:76].split(b'\0')[0]
        if kind == _USER_PROCESS and name:
            yield os.fsdecode(name), int.from_bytes(record[4:8], sys.byteorder)


def session_user(path: str) -> "Iterator[Tuple[str, int]]":
    """The user of a session of logind, if there is a terminal, a display or a seat, and it is not about to end."""
    try:
        lines = read_file(path).decode('utf-8', 'surrogateescape').split('\n')
    except OSError:
        return  # it has just ended
    values = {name: value for name, _, value in (line.partition('=') for line in lines)}
    is_there = any(values.get(name) for name in ('TTY', 'DISPLAY', 'SEAT')) and values.get('STATE') != 'closing'
    if is_there and values.get('CLASS', 'user').startswith('user') and values.get('USER'):
        yield values['USER'], 0
