"""Files of this host on their way to the master: finding what is wanted, and sending its contents.

Names are bytes here, and text only on the wire, so the host's encoding has no say in them.
"""

import errno
import os
import stat

from remote_runner.agent.sha1 import new_sha1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

    from remote_runner.agent.request import Request

    #: The folders above one, innermost first: its (device, inode), and those above.
    Chain = Optional[Tuple[Tuple[int, int], Any]]

#: Entries of one part, of a list or of ends of files.
ENTRIES = 500
WILDCARDS = frozenset(b'*?[')


def list_files(request: "Request") -> "Dict[str, object]":
    """Operation `list_files`: what stands at each of `patterns` ([base_dir, path or glob]).

    A relative path is relative to its base_dir, `~` is the home. Links are followed. A folder means all in it. In a
    glob, `*`, `?` and `[...]` match within a name, `**` any number of folders; names with a leading dot only where the
    pattern has it. Each part is a pair of lists: entries [number of the pattern, name, absolute path, kind, size,
    mode, mtime in ns], and errors [absolute path, reason]. The name is the path below the folder of what was wanted;
    of a glob, below the folder before the first wildcard. Kinds are `file`, `folder`, and of what cannot be brought
    `dangling` (a link to nothing), `loop` (a folder that is in itself), and `other` (a device, a socket, a pipe). The
    result says of each pattern whether something is `found`, a glob is `empty`, or a path is `missing`.
    """
    finder = _Finder(request)
    states = [
        finder.find(number, _encode(base_dir), _encode(pattern))
        for number, (base_dir, pattern) in enumerate(request.header['patterns'])
    ]
    finder.flush()
    return {'patterns': states}


def _encode(text: str) -> bytes:
    return text.encode('utf-8', 'surrogateescape')


def _decode(name: bytes) -> str:
    return name.decode('utf-8', 'surrogateescape')


def _expand(path: bytes) -> bytes:
    """As `files.expand`."""
    return os.path.join(os.path.expanduser(b'~'), os.path.expanduser(path))


def _normal(path: bytes) -> bytes:
    """normpath(3) keeps two leading slashes apart from one; Linux does not."""
    return b'/' + os.path.normpath(path).lstrip(b'/')


def _resolve(base_dir: bytes, pattern: bytes) -> "Tuple[bytes, List[bytes]]":
    """The absolute path before the first wildcard, and the names that follow: none of a plain path."""
    if pattern.startswith(b'~'):
        head, _, pattern = pattern.partition(b'/')
        base = _expand(head)
    else:
        base = b'/' if pattern.startswith(b'/') else _expand(base_dir)
    names = os.path.normpath(pattern.lstrip(b'/') or b'.').split(b'/')
    fixed = 0
    while fixed < len(names) and not WILDCARDS & set(names[fixed]):
        fixed += 1
    return _normal(os.path.join(base, *names[:fixed])), names[fixed:]


def _own_name(path: bytes, pattern: bytes) -> bytes:
    """The name of what a plain path means. `.` and the like mean what is in the folder: none."""
    if (pattern.startswith(b'~') and b'/' not in pattern) or pattern.rstrip(b'/') == b'':
        return b''
    last = pattern.rstrip(b'/').rpartition(b'/')[2]
    return b'' if last in (b'.', b'..') else os.path.basename(path)


class _Finder:
    """Sends what it finds as it finds it."""

    def __init__(self, request: "Request") -> None:
        self._request = request
        self._entries: "List[List[object]]" = []
        self._errors: "List[List[str]]" = []
        self._number = 0
        self._seen: "Set[bytes]" = set()

    def find(self, number: int, base_dir: bytes, pattern: bytes) -> str:
        """Send all that a pattern means; whether that is anything."""
        self._number = number
        self._seen = set()
        path, rest = _resolve(base_dir, pattern)
        if rest:
            for name in self._matches(path, rest):
                self._tree(name, os.path.join(path, name))
            return 'found' if self._seen else 'empty'
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return 'missing'
        except OSError as error:
            self._error(path, error.strerror)
            return 'found'
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            self._tree(_own_name(path, pattern) if stat.S_ISDIR(mode) else os.path.basename(path), path)
        else:
            self._error(path, 'is neither a file nor a folder')
        return 'found'

    def _tree(self, name: bytes, path: bytes) -> None:
        """One match, with all that is in it. A stack of our own: folders may be deeper than Python's."""
        stack: "List[Tuple[bytes, bytes, Chain]]" = [(name, path, None)]
        while stack:
            name, path, above = stack.pop()
            if name in self._seen:
                continue  # another match held it already
            try:
                status = os.stat(path)
            except OSError as error:
                self._no_status(name, path, error)
                continue
            self._seen.add(name)
            if stat.S_ISREG(status.st_mode):
                self._entry(name, path, 'file', status)
            elif not stat.S_ISDIR(status.st_mode):
                self._entry(name, path, 'other', status)
            elif _is_above(status, above):
                self._entry(name, path, 'loop', status)
            else:
                self._entry(name, path, 'folder', status)
                here = ((status.st_dev, status.st_ino), above)
                for child in reversed(self._names(path)):
                    stack.append((os.path.join(name, child), os.path.join(path, child), here))

    def _no_status(self, name: bytes, path: bytes, error: OSError) -> None:
        """A link that leads nowhere is one thing, a file that has just been removed another, and no news."""
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            self._seen.add(name)
            self._error(path, error.strerror)
        elif os.path.islink(path):
            self._seen.add(name)
            self._entry(name, path, 'loop' if error.errno == errno.ELOOP else 'dangling', os.lstat(path))

    def _names(self, folder: bytes) -> "List[bytes]":
        """What is in a folder, sorted; of one that has just been removed, or never was a folder, nothing."""
        try:
            return sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self._error(folder, error.strerror)
            return []

    def _matches(self, root: bytes, rest: "List[bytes]") -> "Iterator[bytes]":
        """The paths below `root` that match a pattern; some may come twice."""
        stack: "List[Tuple[bytes, int, Chain]]" = [(b'', 0, None)]
        visited: "Set[Tuple[bytes, int]]" = set()
        accepts = [_matcher(part) for part in rest]
        while stack:
            self._request.check()
            place = name, at, above = stack.pop()
            if place[:2] in visited:
                continue
            visited.add(place[:2])
            folder = os.path.join(root, name)
            deeper = rest[at] == b'**' and at + 1 < len(rest)
            children = [os.path.join(name, child) for child in self._names(folder) if accepts[at](child)]
            if deeper:
                here = _status_if_folder(folder)
                if here is not None and not _is_above(here, above):
                    chain = ((here.st_dev, here.st_ino), above)
                    stack += [(child, at, chain) for child in reversed(children)]
                    stack.append((name, at + 1, None))
            elif at + 1 < len(rest):
                stack += [(child, at + 1, None) for child in reversed(children)]
            else:
                for child in children:
                    yield child

    def _entry(self, name: bytes, path: bytes, kind: str, status: os.stat_result) -> None:
        if name:  # else what is wanted is what is in the folder
            mode = stat.S_IMODE(status.st_mode)
            size, mtime = status.st_size, status.st_mtime_ns
            self._entries.append([self._number, _decode(name), _decode(path), kind, size, mode, mtime])
            self._flush_if_full()

    def _error(self, path: bytes, reason: "Optional[str]") -> None:
        self._errors.append([_decode(path), str(reason)])
        self._flush_if_full()

    def _flush_if_full(self) -> None:
        if len(self._entries) + len(self._errors) >= ENTRIES:
            self.flush()

    def flush(self) -> None:
        """Send what was found since the last time."""
        if self._entries or self._errors:
            self._request.send([self._entries, self._errors], b'')
            self._entries, self._errors = [], []


def _is_above(status: os.stat_result, above: "Chain") -> bool:
    """Whether a folder is one of those above it: by a link, or by a folder below one."""
    while above is not None:
        folder, above = above
        if folder == (status.st_dev, status.st_ino):
            return True
    return False


def _status_if_folder(path: bytes) -> "Optional[os.stat_result]":
    try:
        status = os.stat(path)
    except OSError:
        return None  # listing it says more, where there is more to say
    return status if stat.S_ISDIR(status.st_mode) else None


def _matcher(part: bytes) -> "Callable[[bytes], bool]":
    """Tells whether a name matches one part of a glob; a leading dot must stand there, as in shells."""
    import fnmatch
    import re

    compiled = re.compile(fnmatch.translate(_decode(b'*' if part == b'**' else part)))
    hidden = part.startswith(b'.')

    def accepts(name: bytes) -> bool:
        return (hidden or not name.startswith(b'.')) and compiled.match(_decode(name)) is not None

    return accepts


def get(request: "Request") -> "Dict[str, object]":
    """Operation `get`: send the first `size` bytes of each of `files` ([absolute path, size]), in their order.

    The body of a part holds contents without gaps: less than twice the `part` bytes that are read at once. The part
    lists them: [bytes, end], where end is None if the file goes on, the SHA-1 of all bytes sent of it, or
    {'what': why there is no more}.
    """
    sender = _Sender(request)
    for path, size in request.header['files']:
        request.check()
        sender.file(_encode(path), size)
    sender.flush()
    return {}


class _Sender:
    """Joins the contents of files to parts."""

    def __init__(self, request: "Request") -> None:
        self._request = request
        self._part = int(request.header['part'])
        self._listed: "List[List[object]]" = []
        self._body = bytearray()
        self._unlisted = 0

    def file(self, path: bytes, size: int) -> None:
        """Send one file, or why it cannot be sent."""
        try:
            # Not to wait where a pipe stands in its place meanwhile.
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self._end({'what': error.strerror})
            return
        try:
            self._end(self._contents(fd, size))
        finally:
            os.close(fd)

    def _contents(self, fd: int, size: int) -> object:
        """Send so many bytes; what is said at their end."""
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return {'what': 'is no file any more'}
        digest = new_sha1(size)
        missing = size
        while missing:
            try:
                piece = os.read(fd, min(self._part, missing))
            except OSError as error:
                return {'what': error.strerror}
            if not piece:
                return {'what': 'became shorter while it was fetched: {} of {} bytes'.format(size - missing, size)}
            digest.update(piece)
            missing -= len(piece)
            self._unlisted += len(piece)
            self._body += piece
            if len(self._body) >= self._part:
                self.flush()
        return digest.hexdigest()

    def _end(self, end: object) -> None:
        self._listed.append([self._unlisted, end])
        self._unlisted = 0
        if len(self._listed) >= ENTRIES:
            self.flush()

    def flush(self) -> None:
        """Send what has gathered."""
        if self._unlisted:
            self._listed.append([self._unlisted, None])
            self._unlisted = 0
        if self._listed:
            self._request.send(self._listed, bytes(self._body))
            self._listed, self._body = [], bytearray()
