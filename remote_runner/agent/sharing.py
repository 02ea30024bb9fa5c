"""Which folders this host shares with others: where a folder lies, and marks that tell whether another host sees it.

That two folders have one inode number says little: disks are cloned, and file systems count from the same number. So
one host leaves a mark, an empty file of a random name, and the other one says whether it sees that.
"""

import os
import stat

from remote_runner.agent import copies
from remote_runner.agent.files import expand, is_temporary, temporary_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Tuple

    from remote_runner.agent.hashes import Hashes
    from remote_runner.agent.request import Request

    #: Real path of the nearest folder that is there, inode numbers of it and of those above it, what of the path is
    #: below it, and the file system.
    Place = Tuple[str, List[int], str, str]

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def where(top: str, hashes: 'Hashes') -> 'Optional[Place]':
    """Where a folder lies that may not be there yet; None for the temporary ones that no other host has.

    The inode numbers go up to the mount point. The file system has a name where no other kernel writes to it; else ''.
    """
    path = os.path.realpath(expand(top))
    folder, status = nearest(path)
    if is_temporary(os.path.relpath(path, os.path.realpath(temporary_root())).partition('/')[0]):
        return None
    inodes = [status.st_ino]
    above = os.path.dirname(folder)
    while above != folder:
        try:
            found = os.stat(above)
        except OSError:
            break
        if found.st_dev != status.st_dev:
            break
        inodes.append(found.st_ino)
        if above == '/':
            break
        above = os.path.dirname(above)
    kernel = hashes.kernel(folder, status.st_dev)
    system = '{} {}'.format(kernel, status.st_dev) if kernel else ''
    return folder, inodes, path[len(folder) :].strip('/'), system


def nearest(path: str) -> 'Tuple[str, os.stat_result]':
    """The nearest folder that is there, at or above a path."""
    while True:
        try:
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode) or path == '/':
                return path, status
        except OSError:
            pass  # it is missing, or below a file, or nobody lets us look
        path = os.path.dirname(path)


def leave_mark(request: 'Request') -> 'Dict[str, object]':
    """Operation `leave_mark`: make a mark in `folder`; its name. It goes with us, if nobody removes it before."""
    folder = request.header['folder']
    path = copies.unique_path(folder)
    temporary = request.agent.temporary
    journal = copies.note_mark(folder)
    if journal not in temporary:
        temporary.append(journal)
    temporary.append(path)
    try:
        os.close(os.open(path, _FLAGS, 0o600))
    except OSError:
        temporary.remove(path)
        raise
    return {'name': os.path.basename(path)}


def remove_mark(request: 'Request') -> 'Dict[str, object]':
    """Operation `remove_mark`: remove the mark of this `name` from `folder`."""
    path = os.path.join(request.header['folder'], request.header['name'])
    os.unlink(path)
    request.agent.temporary.remove(path)
    return {}


def see_marks(request: 'Request') -> 'Dict[str, object]':
    """Operation `see_marks`: whether each of `paths` is there."""
    return {'seen': [os.path.lexists(path) for path in request.header['paths']]}


def strays(request: 'Request') -> 'Dict[str, object]':
    """Operation `strays`: of each of `groups` ([top, paths below it]) the numbers of those paths that lie elsewhere.

    Such a path is a symbolic link, or on another file system, or below one that is.
    """
    return {'strays': [_strays(expand(top), paths) for top, paths in request.header['groups']]}


def _strays(top: str, paths: 'List[str]') -> 'List[int]':
    real = os.path.realpath(top)
    device = nearest(real)[1].st_dev
    known = {real: False}

    def is_stray(path: str) -> bool:
        found = known.get(path)
        if found is None:
            found = known[path] = path == '/' or is_stray(os.path.dirname(path)) or _leads_away(path, device)
        return found

    found = []
    for number, path in enumerate(paths):
        path = expand(path)
        is_below = path == top or path.startswith(top.rstrip('/') + '/')
        if not is_below or is_stray((real.rstrip('/') + '/' + path[len(top) :].lstrip('/')).rstrip('/') or '/'):
            found.append(number)
    return found


def _leads_away(path: str, device: int) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False  # there is nothing yet
    return stat.S_ISLNK(status.st_mode) or status.st_dev != device
