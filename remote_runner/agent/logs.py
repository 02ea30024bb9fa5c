"""The output of components, piece by piece with its times: what there is, and what comes.

A position is a number of bytes since the component's first start, whatever `output.log` still holds of them. Each piece
goes to the master with its component, position and time, so that a master that comes back after a broken connection
goes on exactly where it was.
"""

import os
import select
import struct

from remote_runner.agent import records, survey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Optional, Tuple

    from remote_runner.agent.request import Request

PIECE = 1 << 16
#: Bytes of one component that are sent before it is another's turn.
TURN = 1 << 19
#: Bytes at the end of a file in which lines are looked for first, when only the last ones are wanted.
BLOCK = 1 << 16
#: Seconds between two looks where the kernel does not tell of changes.
LOOK = 0.1
_ENTRY = struct.Struct('<dQ')
# inotify(7)
_IN_MODIFY, _IN_CREATE, _IN_MOVED_TO = 0x2, 0x100, 0x80
_IN_CLOEXEC, _IN_NONBLOCK = 0o2000000, 0o4000
_EVENT = struct.Struct('iIII')


def logs(request: "Request") -> "Dict[str, object]":
    """Operation `logs`: the output of the components `names` of a session, as parts `[name, position, time]`.

    Of each what stands at `positions` (by name) and later, else its last `lines` (None: all), of these what was written
    at `since` (Unix time of this host; None: ever) or later. A part with the name alone says that what follows is new.
    With `follow` it goes on until the request is cancelled, through restarts. The result holds the `positions` that
    were reached.
    """
    header = request.header
    readers = []
    for one in survey.in_session(header['session'], header.get('runs'), header['names']):
        if one.peer is not None:
            one.peer.sock.close()
        reader = Reader(one.spec['name'], one.folder)
        position = header['positions'].get(reader.name)
        reader.begin(position, header['lines'], header['since'])
        readers.append(reader)
    changes = Changes([reader.folder for reader in readers]) if header['follow'] else None
    try:
        told = set() if changes is not None else set(readers)
        behind = list(readers)
        while behind or changes is not None:
            behind = [reader for reader in behind if not reader.send(request)]
            for reader in set(readers) - told - set(behind):
                request.send([reader.name], b'')
                told.add(reader)
            if changes is not None:
                changed = changes.wait(request, at_once=bool(behind))
                changed_too = [reader for reader in readers if None in changed or reader.folder in changed]
                behind += [reader for reader in changed_too if reader not in behind]
    finally:
        if changes is not None:
            changes.close()
        for reader in readers:
            reader.close()
    return {'positions': {reader.name: reader.position for reader in readers}}


class Reader:
    """Reads the output of one component from a position on, through both generations of its files.

    Attributes:
        position: of the next byte.
    """

    def __init__(self, name: str, folder: str) -> None:
        self.name = name
        self.folder = folder
        self.position = 0
        self._file = -1
        self._inode = 0
        self._base = 0
        self._index = -1
        self._index_rest = b''
        self._times: "List[Tuple[float, int]]" = []
        self._when = 0.0

    # ---- where to begin ---------------------------------------------------------------------------------------

    def begin(self, position: "Optional[int]", lines: "Optional[int]", since: "Optional[float]") -> None:
        """Go to `position`, or to where the last `lines` begin that were written at `since` or later."""
        if position is not None:
            self.position = position
            return
        generations = self._generations()
        self.position = generations[0][1] if generations else 0
        if lines is not None:
            self.position = self._begin_of_lines(generations, lines)
        if since is not None:
            end = max((base + size for _, base, size in generations), default=0)
            later = min((offset for when, offset in self._all_times() if when >= since), default=end)
            self.position = max(self.position, later)

    def _generations(self) -> "List[Tuple[str, int, int]]":
        """The files of output that are there, the older first: path, position of its first byte, size."""
        found = []
        for suffix in ('.1', ''):
            path = os.path.join(self.folder, 'output.log' + suffix)
            index = os.path.join(self.folder, 'output.idx' + suffix)
            if suffix and not os.path.exists(index):
                continue  # it is being replaced
            try:
                found.append((path, records.read_base(index), os.stat(path).st_size))
            except OSError:
                continue
        return found

    def _begin_of_lines(self, generations: "List[Tuple[str, int, int]]", lines: int) -> int:
        """The position at which the last so many lines begin."""
        missing, is_end = lines, True
        for path, base, size in reversed(generations):
            end = size
            if lines == 0:
                return base + size
            # What ends with a newline has no further line behind it.
            if is_end and size and records.read_piece(path, size - 1, 1) == b'\n':
                end -= 1
            is_end = is_end and size == 0
            while end > 0:
                begin = max(0, end - BLOCK)
                block = records.read_piece(path, begin, end - begin)
                if block.count(b'\n') >= missing:
                    for _ in range(missing):
                        end = begin + block.rindex(b'\n', 0, end - begin)
                    return base + end + 1
                missing -= block.count(b'\n')
                end = begin
        return generations[0][1] if generations else 0

    def _all_times(self) -> "Iterator[Tuple[float, int]]":
        for suffix in ('.1', ''):
            try:
                file = os.open(os.path.join(self.folder, 'output.idx' + suffix), os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                data = os.read(file, PIECE)
                while data:
                    yield from _entries(data)
                    data = os.read(file, PIECE)
            finally:
                os.close(file)

    # ---- reading ----------------------------------------------------------------------------------------------

    def send(self, request: "Request") -> bool:
        """Send what stands there now, or a good part of it; True if it is all."""
        sent = 0
        for position, when, piece in self.pieces():
            request.send([self.name, position, when], piece)
            sent += len(piece)
            if sent >= TURN:
                return False
        return True

    def pieces(self) -> "Iterator[Tuple[int, float, bytes]]":
        """All that stands there now: position, time and bytes of each piece."""
        while True:
            if self._file < 0 and not self._open():
                return
            while True:
                data = os.pread(self._file, PIECE, self.position - self._base)
                if not data:
                    break
                for when, piece in self._cut(data):
                    self.position += len(piece)
                    yield self.position - len(piece), when, piece
            if self._is_current():
                return
            # It was given another name before we read its last bytes, and nothing is added to it any more.
            data = os.pread(self._file, PIECE, self.position - self._base)
            if not data:
                self.close()

    def _open(self) -> bool:
        """Open the file in which our position lies; False where there is none (yet)."""
        for path, base, size in self._generations():
            is_newest = not path.endswith('.1')
            if not is_newest and self.position >= base + size:
                continue
            try:
                file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return False
            found = os.fstat(file)
            self._file, self._base, self._inode = file, base, found.st_ino
            self._when = found.st_mtime  # where its index is gone already
            still = any((path, base) == other[:2] for other in self._generations()) and _inode(path) == self._inode
            if not still:
                self.close()  # they are being renamed: what is there next tells of it
                return False
            self.position = max(self.position, base)
            return True
        return False

    def _is_current(self) -> bool:
        """Whether output is still added to the file that is open."""
        return _inode(os.path.join(self.folder, 'output.log')) in (self._inode, None)

    def _cut(self, data: bytes) -> "Iterator[Tuple[float, bytes]]":
        """The data in pieces of one time each."""
        end = self.position + len(data)
        self._read_times(end)
        later = [(when, offset) for when, offset in self._times if self.position < offset < end]
        earlier = [when for when, offset in self._times if offset <= self.position]
        when, begin = (earlier[-1] if earlier else self._when), self.position
        first = begin
        for next_when, stop in [*later, (0.0, end)]:
            if stop > begin:
                yield when, data[begin - first : stop - first]
            self._when = when
            when, begin = next_when, stop
        self._times = self._times[max(0, len(earlier) + len(later) - 1) :]

    def _read_times(self, end: int) -> None:
        """Take in the index up to the position `end`; an entry stands there before its output does."""
        if self._index < 0:
            self._index = self._open_index()
            if self._index >= 0:
                os.lseek(self._index, self._entry_of(self.position), os.SEEK_SET)
        while self._index >= 0 and not (self._times and self._times[-1][1] >= end):
            data = os.read(self._index, PIECE)
            if not data:
                return
            data = self._index_rest + data
            self._times += _entries(data)
            self._index_rest = data[len(data) // _ENTRY.size * _ENTRY.size :]

    def _entry_of(self, position: int) -> int:
        """Where in the index the entry stands that tells of a position."""
        first, last = 0, os.fstat(self._index).st_size // _ENTRY.size
        while last - first > 1:
            middle = (first + last) // 2
            offset = _ENTRY.unpack(os.pread(self._index, _ENTRY.size, middle * _ENTRY.size))[1]
            first, last = (middle, last) if offset <= position else (first, middle)
        return first * _ENTRY.size

    def _open_index(self) -> int:
        """The index of the file that is open, which may have been renamed; -1: it has none."""
        for name in ('output.idx', 'output.idx.1'):
            try:
                file = os.open(os.path.join(self.folder, name), os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            first = os.pread(file, _ENTRY.size, 0)
            if len(first) == _ENTRY.size and _ENTRY.unpack(first)[1] == self._base:
                return file
            os.close(file)
        return -1

    def close(self) -> None:
        """Close what is open."""
        for file in (self._file, self._index):
            if file >= 0:
                os.close(file)
        self._file = self._index = -1
        self._times, self._index_rest = [], b''


def _entries(data: bytes) -> "List[Tuple[float, int]]":
    """The whole entries of a piece of an index: times and positions."""
    whole = data[: len(data) // _ENTRY.size * _ENTRY.size]
    return [(entry[0], entry[1]) for entry in _ENTRY.iter_unpack(whole)]


def _inode(path: str) -> "Optional[int]":
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


class Changes:
    """Waits for changes in folders: told by the kernel (inotify(7)), or where it cannot, looked for ten times a second.

    Args:
        watched: the folders.
    """

    def __init__(self, watched: "List[str]") -> None:
        self._folders: "Dict[int, str]" = {}
        self._fd = -1
        fd = _call('inotify_init1', _IN_CLOEXEC | _IN_NONBLOCK)
        if fd < 0:
            return  # the user's budget of them is used up
        for folder in watched:
            number = _call('inotify_add_watch', fd, os.fsencode(folder), _IN_MODIFY | _IN_CREATE | _IN_MOVED_TO)
            if number < 0:
                os.close(fd)
                return
            self._folders[number] = folder
        self._fd = fd

    def wait(self, request: "Request", at_once: bool) -> "List[Optional[str]]":
        """The folders in which something changed (None: maybe in any of them); `at_once`: so far.

        Raises:
            Gone: the request was cancelled.
        """
        woken, wake = os.pipe()
        request.when_gone(lambda: os.write(wake, b'.'))
        poll = select.poll()
        poll.register(woken, select.POLLIN)
        if self._fd >= 0:
            poll.register(self._fd, select.POLLIN)
        try:
            poll.poll(0 if at_once else None if self._fd >= 0 else LOOK * 1000)
            request.check()
        finally:
            request.when_gone(lambda: None)
            os.close(woken)
            os.close(wake)
        return [None] if self._fd < 0 else self._changed()

    def _changed(self) -> "List[Optional[str]]":
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return []
        found: "Dict[str, None]" = {}
        at = 0
        while at + _EVENT.size <= len(data):
            number, _, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            if number in self._folders:
                found[self._folders[number]] = None
            else:
                found.update(dict.fromkeys(self._folders.values()))  # events were lost: look at all
        return list(found)

    def close(self) -> None:
        """Wait no more."""
        if self._fd >= 0:
            os.close(self._fd)


def _call(name: str, *arguments: "Any") -> int:
    """A function of the C library; Python has no other way to it than through ctypes."""
    import _ctypes

    function = _ctypes.dlsym(_ctypes.dlopen(None, 0), name)  # type: ignore[arg-type]
    return int(_ctypes.call_function(function, arguments))
