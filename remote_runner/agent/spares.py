"""Empty working folders of attempts that are over, for those that follow.

ext4 hands an inode out again only some time after it was freed, and whoever makes a folder looks past all of those
(`recently_deleted` in fs/ext4/ialloc.c): where thousands come and go, making one costs up to a millisecond. One that is
only given another name costs 0.02 ms. Files are never used again: who still had one open could write into the result of
another task.
"""

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List

#: What their names begin with.
NAME = 'spare'
#: Kept at most.
MOST = 100
_AS_NEW = stat.S_IFDIR | 0o700


class Spares:
    """See above.

    Args:
        folder: of the job on this host, in which they lie.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._paths: "List[str]" = []
        self._count = 0

    def give(self, path: str) -> bool:
        """Whether there is an empty folder at `path` now, which was not there before."""
        if not self._paths:
            return False
        try:
            os.rename(self._paths[-1], path)  # over an empty folder alone, rename(2)
        except OSError:
            return False  # there is one with inputs
        self._paths.pop()
        return True

    def take(self, path: str) -> bool:
        """Take over a folder that nobody needs, if it is as a new one but for the links in it."""
        if len(self._paths) >= MOST:
            return False
        self._count += 1
        spare = '{}/{}.{}'.format(self._folder, NAME, self._count)
        try:
            found = os.lstat(path)
            if found.st_mode != _AS_NEW or found.st_uid != os.geteuid() or os.listxattr(path):
                return False
            for entry in os.scandir(path):
                if not entry.is_symlink():
                    return False
                os.unlink(entry.path)
            os.rename(path, spare)
        except OSError:
            return False
        self._paths.append(spare)
        return True

    def clear(self) -> None:
        """Remove all."""
        while self._paths:
            discard(self._paths.pop())


def discard(path: str) -> None:
    """Remove one, if it is there."""
    try:
        os.rmdir(path)
    except OSError:
        return  # `remote_runner clean` tells of it
