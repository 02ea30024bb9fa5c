"""Telling what of a manifest stands on this host already, and which pieces of a large file need not come again."""

import os
import stat
from itertools import islice

from remote_runner.agent import copies
from remote_runner.agent.files import expand
from remote_runner.agent.request import Failure
from remote_runner.agent.sharing import where
from remote_runner.agent.stamps import entry
from remote_runner.wire.columns import ANY_TIME, ROWS, unpack
from remote_runner.wire.pieces import digest_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Tuple

    from remote_runner.agent.hashes import Hashes
    from remote_runner.agent.request import Request

    #: Number, kind, permission bits, time in ns, SHA-1.
    Answer = Tuple[int, str, int, int, str]

#: Bytes after which the master hears of SHA-1s, so that it sees that we are at work.
SOON = 64 << 20


def compare(request: "Request") -> "Dict[str, object]":
    """Operation `compare`: which files differ from those that come as parts (`wire/columns.py`).

    Parts of the answer are two lists. The first holds [number, kind, permission bits, time, SHA-1] of files (counted
    from 0) that are not there as they should be, or whose SHA-1 the master does not know yet: `kind` is `file`,
    `folder`, `device`, `missing` or `other`; the SHA-1 in hexadecimal is '' for files of another size, and '?' where it
    is being computed. The second holds [number, SHA-1] of those, when it is; '' for a file that we may replace and not
    read.

    The last part is another. Its `links` ([path, text]) are to be symbolic links; the result says of each whether it
    is: `same`, `folder`, or anything else. Of its `folders` it says the permission bits (-1: it is none), and of its
    `tops` where they lie (`agent/sharing.py`). It says, too, how many copies were interrupted that can be gone on with.
    """
    hashes = request.agent.hashes(request.header['cache'])
    interrupted = copies.interrupted()
    unread: "List[Tuple[int, str, os.stat_result]]" = []
    number = -1
    rest: "Dict[str, List[Any]]" = {}
    for places, body in request.parts():
        if isinstance(places, dict):
            rest = places
            continue
        found, number = _differing(places, body, number, hashes, unread)
        request.send([found, []], b'')
    read: "List[Tuple[int, str]]" = []
    unsent = 0
    for number, path, status in unread:
        request.check()
        read.append((number, _read(hashes, path, status, request.check)))
        unsent += status.st_size
        if unsent > SOON or len(read) >= ROWS:
            request.send([[], read], b'')
            read, unsent = [], 0
    request.send([[], read], b'')
    links = [_link_state(expand(path), text) for path, text in rest['links']]
    request.agent.save_hashes()
    folders = [_bits(expand(path)) for path in rest['folders']]
    places = [where(top, hashes) for top in rest['tops']]
    return {'links': links, 'folders': folders, 'places': places, 'interrupted': len(interrupted)}


def _differing(
    places: "List[Tuple[str, int]]",
    body: bytes,
    number: int,
    hashes: "Hashes",
    unread: "List[Tuple[int, str, os.stat_result]]",
) -> "Tuple[List[Answer], int]":
    """The answer to one part behind the file of this number, and the number of its last; fills `unread`."""
    found: "List[Answer]" = []
    rows = iter(unpack(sum(count for _, count in places), body))
    for place, count in places:
        folder = expand(place)
        opened = _open(folder)
        try:
            known = hashes.of_folder(folder, os.fstat(opened).st_dev) if opened is not None else {}
            # What is done for each of 20,000 files that are as they should be stands here, and nothing else.
            for size, mtime, mode, digest, name in islice(rows, count):
                number += 1
                try:
                    status = os.stat(name, dir_fd=opened) if opened is not None else os.stat(folder + '/' + name)
                except (FileNotFoundError, NotADirectoryError):
                    found.append((number, 'missing', 0, 0, ''))
                    continue
                except OSError as error:  # which may know the name alone
                    raise OSError(error.errno, error.strerror, folder + '/' + name) from None
                if (
                    status.st_mode != mode | stat.S_IFREG
                    or mtime not in (status.st_mtime_ns, ANY_TIME)
                    or known.get(name, b'?') != entry(status, digest)
                ):
                    answer = _answer(number, folder + '/' + name, status, (size, mtime, mode, digest), hashes, unread)
                    found += answer
        finally:
            if opened is not None:
                os.close(opened)
    return found, number


def _open(folder: str) -> "Optional[int]":
    """A folder, where it can be opened; one that others may not list can still be gone through."""
    try:
        return os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None


def _answer(
    number: int,
    path: str,
    status: os.stat_result,
    wanted: "Tuple[int, int, int, bytes]",
    hashes: "Hashes",
    unread: "List[Tuple[int, str, os.stat_result]]",
) -> "List[Answer]":
    """What there is to say of what stands at a path: nothing, if it is as it should be."""
    size, mtime, mode, digest = wanted
    bits = status.st_mode & 0o7777
    if not stat.S_ISREG(status.st_mode):
        return [(number, _kind(status.st_mode), bits, 0, '')]
    is_it = ''
    if status.st_size == size:
        is_it = hashes.known(path, status) or '?'
        if is_it == '?':
            unread.append((number, path, status))
    if is_it == digest.hex() and bits == mode and mtime in (ANY_TIME, status.st_mtime_ns):
        return []
    return [(number, 'file', bits, status.st_mtime_ns, is_it)]


def _kind(mode: int) -> str:
    """What stands where a file should be."""
    if stat.S_ISDIR(mode):
        return 'folder'
    return 'device' if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 'other'


def _read(hashes: "Hashes", path: str, status: os.stat_result, check: "Callable[[], None]") -> str:
    try:
        return hashes.sha1(path, status, check)
    except PermissionError:
        return ''


def _bits(path: str) -> int:
    """The permission bits of a folder; -1 where there is none, or nobody can tell."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return -1
    return mode & 0o7777 if stat.S_ISDIR(mode) else -1


def _link_state(path: str, text: str) -> str:
    try:
        return 'same' if os.readlink(path) == text else 'link'
    except FileNotFoundError:
        return 'missing'
    except OSError:
        return 'folder' if os.path.isdir(path) else 'file'


def blocks(request: "Request") -> "Dict[str, object]":
    """Operation `blocks`: what there is of a large file at `path` already, as digests of its pieces of `block` bytes.

    Parts are [what, number of the first piece] with the digest (`wire/pieces.py`) of each piece as body: of the file
    itself as `front`, counted from its begin, and, where it has another size than `size`, as `back`, counted from its
    end; of what came of an interrupted copy as `partial`. A piece that is shorter does not count. The result holds the
    size of the file (0 where there is none). Equal digests prove nothing: the SHA-1 of the whole decides at the end.
    """
    header = request.header
    path = os.path.realpath(expand(header['path']))
    copy = copies.find(path)
    if copy is not None:
        _look(request, copy.path, ('partial',))
    return {'size': _look(request, path, ('front', 'back'))}


def _look(request: "Request", path: str, directions: "Tuple[str, ...]") -> int:
    """Send the digests of a file; its size."""
    block, wanted = int(request.header['block']), int(request.header['size'])
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0  # then all of it has to come
    try:
        status = os.fstat(fd)
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        for what in directions:
            if what != 'back':
                _digest(request, what, fd, 0, size // block)
            elif size != wanted:
                _digest(request, what, fd, size % block, size // block)
        return size
    finally:
        os.close(fd)


def _digest(request: "Request", what: str, fd: int, start: int, count: int) -> None:
    block = int(request.header['block'])
    for first in range(0, count, ROWS):
        digests = []
        for number in range(first, min(first + ROWS, count)):
            piece = os.pread(fd, block, start + number * block)
            if len(piece) < block:
                raise Failure('it became shorter while it was looked at: {}'.format(request.header['path']))
            digests.append(digest_of(piece))
            request.check()
        request.send([what, first], b''.join(digests))
