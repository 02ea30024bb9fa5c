"""Folders that several machines share: whether one is the same as another's, and whether both see the same in it.

A network file system shows what others wrote a little later: attributes are remembered for seconds, and so is that a
file is not there (nfs(5), "Data and metadata coherence"). Opening a file or a folder asks the server. So whoever waits
for something that another machine has seen opens it, looks, and tries again. Both sides of a command do that, see
`placement/attended.py`.

What is seen of a path is `[size, mtime, ctime]` (in nanoseconds; the size of a folder is -1) or None, where there is
nothing. Times are those of the server's clock, and ctime never goes back: a later one is news that we may also have.
"""

import errno
import os
import stat
import time

from remote_runner.agent.stamps import PRIVATE, Mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Iterable, Iterator, List, Optional

    Sight = Optional[List[int]]

#: Seconds between two looks: at first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.1
#: Folders above one that are compared as well: two of them may have one number by chance.
LEVELS = 4
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ELOOP)


def look(path: str) -> "Sight":
    """What is at `path`, as the server of the file system has it. A stale handle counts as nothing yet."""
    try:
        found = os.stat(path)
        if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
            try:
                file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
            except PermissionError:
                pass  # then what we know of it has to do
            else:
                try:
                    found = os.fstat(file)
                finally:
                    os.close(file)
    except OSError as error:
        if error.errno not in _NOTHING:
            return [-2, 0, 0]  # something is there that is not for us to see
        return None
    return [-1 if stat.S_ISDIR(found.st_mode) else found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def ask_again(path: str) -> None:
    """Have the server asked for what is in the folder of `path`: that a file is not there is remembered, too."""
    try:
        os.close(os.open(os.path.dirname(path) or '.', os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError:
        return  # it is not there itself


def is_current(seen: "Sight", wanted: "Sight") -> bool:
    """Whether what is seen is what another machine has seen, or newer."""
    if seen is None or wanted is None:
        return seen is wanted
    return seen[:2] == wanted[:2] or seen[2] > wanted[2]


def wait(
    wanted: "Dict[str, Sight]", folder: str, deadline: float, pause: "Callable[[float], object]"
) -> "List[str]":
    """Wait until all of `wanted` is seen (paths, relative to `folder`); those that are not, at `deadline`.

    Args:
        deadline: by time.monotonic().
        pause: waits so many seconds.
    """
    late = list(wanted)
    seconds = FIRST_PAUSE
    while True:
        late = [path for path in late if not is_current(look(os.path.join(folder, path)), wanted[path])]
        left = deadline - time.monotonic()
        if not late or left <= 0:
            return late
        pause(min(seconds, left))
        seconds = min(2 * seconds, LONGEST_PAUSE)
        for path in late:
            ask_again(os.path.join(folder, path))


def named(words: "Iterable[str]") -> "Iterator[str]":
    """The words of a command that may be paths, and what is behind `-o` and `=` in others."""
    for word in words:
        if not word.startswith('-'):
            yield word
        elif word.startswith('-o') and len(word) > 2:
            yield word[2:]
        value = word.partition('=')[2]
        if value:
            yield value


class Place:
    """Where a folder lies, for comparison with one of another machine.

    Args:
        folder: that is there.

    Raises:
        OSError: it is not, or is no folder.
    """

    def __init__(self, folder: str) -> None:
        found = os.stat(os.path.join(folder, '.'))
        mounts = Mounts('/proc')
        self.boot = mounts.boot()
        self.device = found.st_dev
        #: Whether no other kernel writes there.
        self.is_private = mounts.type(folder, found.st_dev) in PRIVATE
        #: The inode numbers of the folder and of those above it, up to the mount point.
        self.inodes = [found.st_ino]
        above = folder
        while len(self.inodes) < LEVELS:
            above = os.path.join(above, '..')
            found = os.stat(above)
            if found.st_dev != self.device or found.st_ino == self.inodes[-1]:
                break
            self.inodes.append(found.st_ino)

    def facts(self) -> "Dict[str, object]":
        """For the other machine."""
        return {'boot': self.boot, 'device': self.device, 'private': self.is_private, 'inodes': self.inodes}

    def common(self, other: "Dict[str, object]") -> int:
        """How many folders, from this one upwards, it and another machine's share: 0, it is another one.

        Disks are cloned, so equal numbers mean little on file systems which one kernel has for itself. On others it
        would take a whole row of equal numbers for a mistake.
        """
        theirs = other['inodes']
        assert isinstance(theirs, list)
        is_one_kernel = self.boot == other['boot'] and self.device == other['device']
        if self.is_private and other['private'] and not is_one_kernel:
            return 0
        shared = 0
        while shared < min(len(self.inodes), len(theirs)) and self.inodes[shared] == theirs[shared]:
            shared += 1
        if is_one_kernel or shared == min(len(self.inodes), len(theirs)):
            return shared
        return 0
