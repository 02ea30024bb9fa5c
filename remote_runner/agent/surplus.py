"""Finding what stands in folders of this host and is not wanted there: what `--delete` is about.

No symbolic link to a folder is followed, and no other file system is entered. Paths are real ones here: what is wanted
may be written in other ways, through links, and is then found through them. Names are bytes, and text only on the wire.
"""

import os
import stat

from remote_runner.agent import copies, removal
from remote_runner.agent.files import expand, temporary_root
from remote_runner.agent.folders import state_home
from remote_runner.agent.hash_files import cache_path
from remote_runner.agent.request import Failure
from remote_runner.wire.columns import ROWS
from remote_runner.wire.groups import pack
from remote_runner.wire.rules import Rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Set, Tuple

    from remote_runner.agent.request import Request

    #: The rules of a tree, and its real folder.
    Cover = Tuple[Rules, bytes]

#: Symbolic links that one path may lead through, as for the kernel (path_resolution(7)).
MOST_LINKS = 40
#: Folders that no tree is, nor holds (hier(7)).
SYSTEM = (
    '/bin', '/boot', '/dev', '/etc', '/home', '/lib', '/lib32', '/lib64', '/proc', '/root', '/run', '/sbin', '/sys',
    '/tmp', '/usr', '/usr/bin', '/usr/lib', '/usr/sbin', '/usr/share', '/var', '/var/lib', '/var/log', '/var/tmp',
)  # fmt: skip


def check_trees(request: "Request") -> "Dict[str, object]":
    """Operation `check_trees`: whether `trees` (paths) may be mirrored.

    Each of `apart` is [path, what it is], a folder that none of them may hold.

    Raises:
        Failure: one may not; of the kind `refused`.
    """
    wanted = Wanted()
    _check(request, [wanted.real(_absolute(root)) for root in request.header['trees']])
    return {}


def surplus(request: "Request") -> "Dict[str, object]":
    """Operation `surplus`: what stands below `trees` ([path, rules of what is left out of it]) and is not wanted there.

    What is wanted comes as parts [[folder, count], ...] with the names in these folders as body, joined by NUL; where
    links stand there, what they lead to is wanted as well. Of `links` (paths) it is not. `apart` as for `check_trees`.

    The parts of the answer are those of `wire/groups.py`, with values [whether it is a folder, inode, ctime, mtime in
    ns]; what is in a folder comes before the folder, which is among them only where all that is in it is. What one of
    the trees leaves out is not, nor is what is in it; nor copies that are under way. The result says which folders on
    the way are `mounts` of other file systems, into which `closed` ones ([path, reason]) we may not look, and the real
    `trees`, in their order.

    Raises:
        Failure: a tree may not be mirrored; of the kind `refused`.
    """
    wanted = Wanted()
    trees = [(wanted.real(_absolute(root)), Rules(rules)) for root, rules in request.header['trees']]
    roots = [root for root, _ in trees]
    _check(request, roots)
    for places, body in request.parts():
        request.check()
        wanted.add(places, body)
    for path in request.header['links']:
        above, last = os.path.split(_absolute(path))
        wanted.keep(wanted.real(above), last)
    for root in roots:
        wanted.keep_folder(root)
    wanted.follow_links(roots)
    finder = Finder(trees, wanted)
    found: "List[Tuple[str, List[Tuple[str, List[Any]]]]]" = []
    count = 0
    for folder, name, values in finder.find(request.check):
        if not found or found[-1][0] != folder:
            found.append((folder, []))
        found[-1][1].append((name, values))
        count += 1
        if count >= ROWS:
            request.send(*pack(found))
            found, count = [], 0
    if found:
        request.send(*pack(found))
    return {
        'trees': [_text(root) for root in roots],
        'mounts': [_text(path) for path in finder.mounts],
        'closed': [[_text(path), reason] for path, reason in finder.closed],
    }


def _check(request: "Request", roots: "List[bytes]") -> None:
    paths = Wanted()
    own = [
        (os.path.expanduser('~'), 'the home directory', False),
        ('~/.ssh', 'the folder of the keys that are let in', False),
        (temporary_root(), 'the folder for temporary files', False),
        (os.path.dirname(cache_path()), 'a folder of remote_runner itself', False),
        (os.path.join(state_home(), 'remote_runner'), 'a folder of remote_runner itself', False),
    ]
    own += [(path, 'a folder of the system', False) for path in SYSTEM]
    own += [(path, what, True) for path, what in request.header['apart']]
    for root in roots:
        if root == b'/':
            raise Failure('/ is the root of the file system', kind='refused')
        for path, what, may_be_it in own:
            real = paths.real(_absolute(path))
            if real == root and not may_be_it:
                raise Failure('{} is {}'.format(_text(root), what), kind='refused')
            if real != root and is_in(real, root):
                raise Failure('{} holds {}, {}'.format(_text(root), what, path), kind='refused')


def _absolute(path: str) -> bytes:
    return _bytes(expand(path))


def _bytes(text: str) -> bytes:
    return text.encode('utf-8', 'surrogateescape')


def _text(path: bytes) -> str:
    return path.decode('utf-8', 'surrogateescape')


def is_in(path: bytes, folder: bytes) -> bool:
    """Whether a path is that of a folder, or below it."""
    return path == folder or path.startswith(folder.rstrip(b'/') + b'/')


class Wanted:
    """What is to stay, by real folders and names."""

    def __init__(self) -> None:
        #: Folder -> name -> whether what a link of that name leads to is wanted, too.
        self.names: "Dict[bytes, Dict[bytes, bool]]" = {}
        self._real: "Dict[bytes, bytes]" = {b'/': b'/'}

    def add(self, places: "List[Tuple[str, int]]", body: bytes) -> None:
        """Files and folders, as they come."""
        names = iter(body.split(b'\0'))
        for place, count in places:
            folder = self.real(_absolute(place))
            self.keep_folder(folder)
            own = self.names.setdefault(folder, {})
            for _ in range(count):
                own[next(names)] = True

    def keep(self, folder: bytes, name: bytes) -> None:
        """What stands at this name of a real folder."""
        self.keep_folder(folder)
        self.names.setdefault(folder, {}).setdefault(name, False)

    def keep_folder(self, folder: bytes) -> None:
        """A real folder, and those above it."""
        while folder != b'/':
            above, name = os.path.split(folder)
            names = self.names.setdefault(above, {})
            if name in names:
                return
            names[name] = False
            folder = above

    def real(self, path: bytes) -> bytes:
        """The real path of an absolute one; links on the way are wanted."""
        known = self._real.get(path)
        if known is not None:
            return known
        missing = [path]
        while os.path.dirname(missing[-1]) not in self._real:
            missing.append(os.path.dirname(missing[-1]))
        for each in reversed(missing):
            above, name = os.path.split(each)
            self._real[each] = self._follow(self._real[above], [name])
        return self._real[path]

    def _follow(self, folder: bytes, names: "List[bytes]") -> bytes:
        """The real path of what stands at these names (the last is the outermost) from a real folder on."""
        links = 0
        while names:
            name = names.pop()
            if name in (b'', b'.'):
                continue
            path = os.path.join(folder, name)
            if name == b'..':
                folder = os.path.dirname(folder)
                continue
            try:
                text = os.readlink(path)
            except OSError:  # it is no link, or not there
                folder = path
                continue
            self.keep(folder, name)
            links += 1
            if links > MOST_LINKS:
                return path
            names += reversed(text.split(b'/'))
            if text.startswith(b'/'):
                folder = b'/'
        return folder

    def follow_links(self, roots: "Iterable[bytes]") -> None:
        """Keep what wanted names lead to where links stand there, in these folders and below."""
        tops = tuple(roots)
        for folder in list(self.names):
            if not any(is_in(folder, top) for top in tops):
                continue
            followed = [name for name, is_followed in self.names[folder].items() if is_followed]
            links = _links(folder)
            for name in followed:
                if name in links:
                    above, last = os.path.split(self._follow(folder, [name]))
                    self.keep(above, last)


def _links(folder: bytes) -> "Set[bytes]":
    try:
        return {entry.name for entry in os.scandir(folder) if entry.is_symlink()}
    except OSError:
        return set()  # none yet; or the walk says why it cannot be looked into


class _Folder:
    """One that is being looked at.

    Args:
        path: its real path.
        status: what lstat(2) says of it.
        covers: the trees that it is in.
        is_wanted: whether it stays in any case.
    """

    def __init__(self, path: bytes, status: os.stat_result, covers: "List[Cover]", is_wanted: bool) -> None:
        self.path = path
        self.status = status
        self.covers = covers
        self.is_wanted = is_wanted
        #: Whether something in it stays.
        self.stays = False
        #: Folders in it that are still to be looked at: name, status, whether it is wanted; None: not listed yet.
        self.below: "Optional[List[Tuple[bytes, os.stat_result, bool]]]" = None


class Finder:
    """Looks through trees, each a real folder and rules of what is left out of it."""

    def __init__(self, trees: "List[Tuple[bytes, Rules]]", wanted: Wanted) -> None:
        self._trees = trees
        self._names = wanted.names
        self._mount_points = set(removal.mount_points())
        self._walked: "Set[bytes]" = set()
        self.mounts: "List[bytes]" = []
        self.closed: "List[Tuple[bytes, str]]" = []

    def find(self, check: "Callable[[], None]") -> "Iterator[Tuple[str, str, List[Any]]]":
        """Folder, name and values of what is not wanted; what is in a folder first. `check` is called now and then."""
        for root in sorted({root for root, _ in self._trees}):
            if root not in self._walked and not self._is_left_out(root):
                try:
                    status = os.lstat(root)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                if stat.S_ISDIR(status.st_mode):
                    for folder, name, values in self._walk(root, status, check):
                        yield _text(folder), _text(name), values

    def _is_left_out(self, root: bytes) -> bool:
        """Whether an outer tree leaves out the folder of an inner one."""
        for rules, top in self._covers(os.path.dirname(root)):
            at = len(top)
            while at < len(root):
                at = root.find(b'/', at + 1)
                at = len(root) if at < 0 else at
                if rules.excludes(_text(root[len(top) + 1 : at]), True):
                    return True
        return False

    def _covers(self, folder: bytes) -> "List[Cover]":
        return [(rules, root) for root, rules in self._trees if is_in(folder, root)]

    def _walk(
        self, root: bytes, status: os.stat_result, check: "Any"
    ) -> "Iterator[Tuple[bytes, bytes, List[Any]]]":
        stack = [_Folder(root, status, self._covers(root), is_wanted=True)]
        while stack:
            folder = stack[-1]
            if folder.below is None:
                check()
                self._walked.add(folder.path)
                folder.below = []
                for name, found in self._surplus_in(folder):
                    yield folder.path, name, _values(found)
            if folder.below:
                name, found, is_wanted = folder.below.pop()
                path = os.path.join(folder.path, name)
                covers = folder.covers
                if any(path == tree for tree, _ in self._trees):
                    covers = self._covers(path)
                stack.append(_Folder(path, found, covers, is_wanted))
                continue
            stack.pop()
            if stack and folder.stays:
                stack[-1].stays = True
            if not folder.is_wanted and not folder.stays:
                above, name = os.path.split(folder.path)
                yield above, name, _values(folder.status)

    def _surplus_in(self, folder: _Folder) -> "Iterator[Tuple[bytes, os.stat_result]]":
        """The files and links in a folder that are not wanted; notes the folders in it."""
        wanted = self._names.get(folder.path, {})
        below: "List[Tuple[bytes, os.stat_result, bool]]" = []
        try:
            entries = sorted(os.scandir(folder.path), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return  # it has just gone, or is another thing now
        except OSError as error:
            self.closed.append((folder.path, str(error.strerror)))
            folder.stays = True
            return
        under_way = self._copies(folder.path, entries)
        for entry in entries:
            name = entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            is_wanted = name in wanted
            if is_wanted and not is_folder:
                continue
            path = os.path.join(folder.path, name)
            if name in under_way or _excludes(folder.covers, path, is_folder):
                folder.stays = True
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:  # of a folder that may be listed and not entered
                self.closed.append((path, str(error.strerror)))
                folder.stays = True
                continue
            if path in self._mount_points or (is_folder and status.st_dev != folder.status.st_dev):
                self.mounts.append(path)
                folder.stays = True
            elif is_folder:
                below.append((name, status, is_wanted))
            else:
                yield name, status
        folder.below = below[::-1]

    @staticmethod
    def _copies(folder: bytes, entries: "List[os.DirEntry[bytes]]") -> "Set[bytes]":
        """Files that are not whole, and whose writers may be at work."""
        names = {entry.name for entry in entries if copies.is_copy(os.fsdecode(entry.name))}
        if names:
            names -= {os.path.basename(os.fsencode(path)) for path in copies.abandoned(os.fsdecode(folder))}
        return names


def _excludes(covers: "List[Cover]", path: bytes, is_folder: bool) -> bool:
    return any(rules.excludes(_text(path[len(root) + 1 :]), is_folder) for rules, root in covers)


def _values(status: os.stat_result) -> "List[Any]":
    return [stat.S_ISDIR(status.st_mode), status.st_ino, status.st_ctime_ns, status.st_mtime_ns]
