"""Files on this host that are not whole yet: their names, who writes them, and what is left of writers that are gone.

A copy lies beside its target, under a name that tells who writes it (host, pid and the time when that process was
started, for pids come again) and for which target. The folders into which an agent writes stand in a journal in the
user's cache (or where the agent had to be stored instead) until it is done. So the next agent finds what one left that
was killed, wherever that was: it goes on with what is large, and removes the rest.
"""

import os
from binascii import crc32

from remote_runner.agent import processes
from remote_runner.agent.hash_files import cache_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, Iterator, List, Optional, Set, Tuple

#: What the names of files begin with that are not whole yet.
TEMPORARY = '.rr-'
#: Bytes of an interrupted copy that are worth to be gone on with.
LEAST = 1 << 20
_JOURNAL = 'copying-'
#: What the names of journals of marks end with (`agent/sharing.py`), which go with the agent.
_MARKS = '.marks'


class Copy:
    """An interrupted one.

    Args:
        path: where it is.
        size: how many bytes of it came.
    """

    def __init__(self, path: str, size: int) -> None:
        self.path = path
        self.size = size

    def is_of(self, target: str) -> bool:
        """Whether it was to become this file (its real path)."""
        folder, name = os.path.split(target)
        return os.path.dirname(self.path) == folder and self.path.endswith(_sum(name))


def _sum(name: str) -> str:
    return '-{:08x}'.format(crc32(os.fsencode(name)))


#: Our pid, and the name that we have with it.
_own = (0, '')


def _writer() -> str:
    """What tells this process from others of this host, also from those that had its pid before."""
    global _own
    pid = os.getpid()
    if _own[0] != pid:
        _own = pid, '{}-{}'.format(pid, processes.start_time(pid) or 0)
    return _own[1]


def _is_gone(writer: str) -> bool:
    """Whether a process of this host has ended; agents of other versions may have told its pid alone."""
    pid, _, started = writer.partition('-')
    is_one = pid.isdigit() and (started or '0').isdigit()
    return is_one and processes.is_gone(int(pid), int(started or '0'))


def temporary_path(folder: str, name: str) -> str:
    """Where the file `name` of a folder is written before it is whole: on a file system that many hosts may share."""
    return '{}/{}{}-{}{}'.format(folder, TEMPORARY, os.uname().nodename, _writer(), _sum(name))


def unique_path(folder: str) -> str:
    """Where something can stand in a folder that is taken for a copy, of no known target, if we are killed."""
    name = '{}{}-{}-{}'.format(TEMPORARY, os.uname().nodename, _writer(), os.urandom(4).hex())
    return os.path.join(folder, name)


def abandoned(folder: str) -> "List[str]":
    """The files in a folder that are not whole, and whose writers on this host are gone."""
    ours = '{}{}-'.format(TEMPORARY, os.uname().nodename)
    try:
        names = os.listdir(folder)
    except (PermissionError, FileNotFoundError, NotADirectoryError):
        return []  # a folder to write into and not to look at, or none any more
    found = []
    for name in names:
        writer = name[len(ours) :].rpartition('-')[0]
        if name.startswith(ours) and is_copy(name) and _is_gone(writer):
            found.append(os.path.join(folder, name))
    return found


def is_copy(name: str) -> bool:
    """Whether a file of this name is one that is not whole, of whichever host."""
    writer, _, last = name.rpartition('-')
    is_sum = len(last) == 8 and all(c in '0123456789abcdef' for c in last)
    return name.startswith(TEMPORARY) and is_sum and writer.rpartition('-')[2].isdigit()


def sweep(folder: str, spared: "Iterable[str]" = ()) -> None:
    """Remove what agents of this host left in a folder that were killed in the middle of a copy.

    Those of the targets `spared` (real paths) stay: they are gone on with.
    """
    for path in abandoned(folder):
        if any(Copy(path, 0).is_of(target) for target in spared):
            continue
        try:
            os.unlink(path)
        except OSError:
            continue  # not ours to remove


def _folder() -> str:
    """Where journals are: in the user's cache, or where the agent lies if that cannot be used (`agent/stage.py`)."""
    beside = os.path.realpath(__file__).rsplit('/', 4)[0]
    other = os.path.realpath('/tmp/remote_runner-{}/cache'.format(os.getuid()))
    return other if beside == other else os.path.dirname(cache_path())


def note_mark(folder: str) -> str:
    """A mark may be left in this folder; the path of the journal that says so until we end."""
    journal = Journal(_MARKS)
    journal.note(folder)
    journal.close(is_clean=False)
    return journal.path


class Journal:
    """Where this agent writes copies, or something else of this `kind`."""

    def __init__(self, kind: str = '') -> None:
        name = '{}{}-{}{}'.format(_JOURNAL, os.uname().nodename, _writer(), kind)
        self.path = os.path.join(_folder(), name)
        self._known: "Set[str]" = set()
        self._fd = -1

    def note(self, folder: str) -> None:
        """Copies may be left in this folder from now on."""
        if folder in self._known:
            return
        self._known.add(folder)
        try:
            if self._fd < 0:
                os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
                self._fd = os.open(self.path, flags, 0o600)
            os.write(self._fd, os.fsencode(folder) + b'\0')
        except OSError:
            return  # a disk that is full: what is left is found by the next copy into the folder

    def close(self, is_clean: bool) -> None:
        """No copy is under way any more; `is_clean`: nor is anything left of one."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            if is_clean:
                _forget(self.path)


def interrupted() -> "List[Copy]":
    """The copies whose writers on this host are gone and that are worth to be gone on with; others are removed."""
    found: "List[Copy]" = []
    for journal, folders in _journals():
        left: "List[Copy]" = []
        for folder in folders:
            for path in abandoned(folder):
                try:
                    size = os.lstat(path).st_size
                    if size < LEAST:
                        os.unlink(path)
                    else:
                        left.append(Copy(path, size))
                except OSError:
                    continue  # somebody else was faster
        if left:
            found += left
        else:
            _forget(journal)
    return found


def find(target: str) -> "Optional[Copy]":
    """The largest interrupted copy of a file (its real path)."""
    own = [copy for copy in interrupted() if copy.is_of(target)]
    return max(own, key=lambda copy: copy.size) if own else None


def remove_interrupted(spared: "Iterable[str]") -> None:
    """Remove all interrupted copies but those of the targets `spared`."""
    kept = set(spared)
    for copy in interrupted():
        if not any(copy.is_of(target) for target in kept):
            try:
                os.unlink(copy.path)
            except OSError:
                continue
    interrupted()  # which forgets the journals of which nothing is left


def _journals() -> "Iterator[Tuple[str, List[str]]]":
    """The journals of agents of this host that are gone, and the folders in each."""
    ours = '{}{}-'.format(_JOURNAL, os.uname().nodename)
    folder = _folder()
    try:
        names = os.listdir(folder)
    except OSError:
        return  # nothing was ever copied
    for name in names:
        if name.startswith(ours) and _is_gone(name[len(ours) :].partition('.')[0]):
            try:
                with open(os.path.join(folder, name), 'rb') as file:
                    yield os.path.join(folder, name), [os.fsdecode(one) for one in file.read().split(b'\0')[:-1]]
            except OSError:
                continue  # another agent was faster


def _forget(journal: str) -> None:
    try:
        os.unlink(journal)
    except OSError:
        return  # somebody was faster
