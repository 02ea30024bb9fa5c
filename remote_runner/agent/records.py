"""What a launcher leaves on disk: the folder of its component, its spec and status, and its output.

Like all of the launcher this imports built-in modules alone, so that a window starts in milliseconds.
"""

import marshal
import posix
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Tuple

    Values = Dict[str, Any]

PIECE = 1 << 16
#: Seconds between two entries of `output.idx`.
INDEX_STEP = 0.01
#: Bytes of an entry: when (float64, Unix time) and where (uint64) a piece of output begins, both little-endian.
ENTRY = 16
#: Bytes at the end of a file in which it ends with the last line that has an end.
LINE = 4096


def write_file(path: str, data: bytes) -> None:
    """Replace `path` (mode 0600) in one step: a reader sees the old content or the new one."""
    temporary = '{}.{}'.format(path, posix.getpid())
    file = posix.open(temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o600)
    try:
        while data:
            data = data[posix.write(file, data) :]
    except OSError:
        posix.unlink(temporary)
        raise
    finally:
        posix.close(file)
    posix.rename(temporary, path)


def write_status(path: str, status: "Values") -> int:
    """Replace a `status.json`; 0, or errno of why not.

    Where the disk is full it is written over in its place: what became of a component shall be known all the same.
    """
    data = json_text(status).encode('ascii') + b'\n'
    try:
        write_file(path, data)
    except OSError as error:
        _overwrite(path, data)
        return error.errno or -1
    return 0


def _overwrite(path: str, data: bytes) -> None:
    try:
        file = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            # With one write, so that a reader sees the old content or the new one.
            posix.pwrite(file, data.ljust(posix.fstat(file).st_size), 0)
        finally:
            posix.close(file)
    except OSError:
        return  # it stays as it was; whoever asks over the sockets hears the truth


def read_file(path: str) -> bytes:
    """All bytes of a small file."""
    file = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        pieces: "List[bytes]" = []
        while True:
            piece = posix.read(file, PIECE)
            if not piece:
                return b''.join(pieces)
            pieces.append(piece)
    finally:
        posix.close(file)


def json_text(value: object) -> str:
    """JSON of a flat object of numbers, strings and None, or of a list of numbers."""
    if isinstance(value, dict):
        return '{' + ', '.join('{}: {}'.format(json_text(key), json_text(value[key])) for key in value) + '}'
    if isinstance(value, (list, tuple)):
        return '[' + ', '.join(json_text(item) for item in value) + ']'
    if value is None:
        return 'null'
    if isinstance(value, bool):
        return 'true' if value else 'false'
    if isinstance(value, (int, float)):
        return repr(value)
    text = ''
    for character in str(value):
        code = ord(character)
        if character in '"\\' or code < 32 or code > 126:
            if code > 0xFFFF:
                code -= 0x10000
                text += '\\u{:04x}'.format(0xD800 + (code >> 10))
                code = 0xDC00 + (code & 0x3FF)
            text += '\\u{:04x}'.format(code)
        else:
            text += character
    return '"' + text + '"'


class Folder:
    """The component's folder: its spec, and the status that outlives us."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.error = 0
        #: Whether this is the start that the agent waits for; any later one is by hand.
        self.claimed = self._claim()
        self.spec: "Values" = marshal.loads(read_file(path + '/spec'))
        self.status = {
            'name': self.spec['name'],
            'run': self.spec['run'],
            'session': self.spec['session'],
            'window': int(posix.environ.get(b'WINDOW', b'-1')),
            'launcher': posix.getpid(),
        }  # type: Values

    def _claim(self) -> bool:
        try:
            posix.rename(self.path + '/spec.new', self.path + '/spec')
        except FileNotFoundError:
            return False
        return True

    def note(self, state: str, **more: object) -> None:
        """Make `state` the component's state, for the next `write_status` to tell. What is None is forgotten."""
        self.status.update(more, state=state)
        for name in [name for name in more if more[name] is None]:
            del self.status[name]

    def write_status(self, state: str, **more: object) -> None:
        """Make `state` the component's state for everyone who looks.

        A full disk must not end the program.
        """
        self.note(state, **more)
        self.error = write_status(self.path + '/status.json', self.status) or self.error


class Log:
    """`output.log` and, from the first output on, its index of times. A full disk loses output, never the program.

    What is lost is told in its place, as soon as there is room again.

    When both have `limit / 2` bytes they become `output.log.1` and `output.idx.1`, in place of those that were there.
    Offsets go on counting; the first entry of an index whose file is not the first tells where that begins.

    Args:
        folder: where they lie.
        limit: bytes that both generations may have; 0: as many as come.

    Attributes:
        size: bytes that were written since the first start, whether they are kept or not.
        error: errno of the last piece, where that could not be written; 0: it could.
    """

    def __init__(self, folder: str, limit: int = 0) -> None:
        self.error = 0
        self._folder = folder
        self._missing = 0
        self._is_full = False
        self._limit = limit // 2
        self._end_rotation()
        self._fd = self._open('output.log')
        self._index = -1
        indexed = size_of(folder + '/output.idx')
        written = posix.fstat(self._fd).st_size
        self._base = read_base(folder + '/output.idx')
        self._filled = written + max(0, indexed)
        self._has_base = indexed > 0
        self.size = self._base + written
        self._indexed = 0.0

    def _open(self, name: str) -> int:
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC
        return posix.open(self._folder + '/' + name, flags, 0o600)

    def write(self, data: bytes) -> None:
        """Append; `error` tells whether that was possible."""
        self.error = 0
        if self._missing and not self._tell_missing():
            self._missing += len(data)
            return
        while data:
            end, is_full = self._fitting(data)
            self._write(data[:end])
            self._is_full = self._is_full or is_full
            data = data[end:]

    def _fitting(self, data: bytes) -> "Tuple[int, bool]":
        """How much of it goes into one file, and whether that is full then.

        New files begin with a line, where that is possible: who reads and falls behind goes on where a file begins.
        """
        if not self._limit:
            return len(data), False
        most = max(1, self._limit - 2 * ENTRY)
        room = most if self._is_full else self._limit - self._filled - ENTRY
        if len(data) <= room - min(LINE, self._limit // 8):
            return len(data), False
        end = data.rfind(b'\n', 0, max(0, room)) + 1
        return (end, True) if end else (min(len(data), most), False)

    def _write(self, data: bytes) -> None:
        try:
            if self._limit and (self._is_full or self._filled + ENTRY + len(data) > self._limit):
                self._rotate()
            self._note_time()
        except OSError as error:
            self.error = error.errno or -1  # without the index the output is still worth something
        self._missing += self._append(data)

    def _tell_missing(self) -> bool:
        missing, self._missing = self._missing, 0
        self._write('\r\n[remote_runner: {} bytes of output are missing here]\r\n'.format(missing).encode('ascii'))
        if self._missing:  # there is still no room
            self._missing = missing
        return not self._missing

    def _append(self, data: bytes) -> int:
        """How many bytes of it could not be written."""
        try:
            while data:
                written = posix.write(self._fd, data)
                self.size += written
                self._filled += written
                data = data[written:]
        except OSError as error:
            self.error = error.errno or -1
        return len(data)

    def _note_time(self) -> None:
        now = time.time()
        if abs(now - self._indexed) >= INDEX_STEP:
            self._indexed = now
            if self._index < 0:
                self._index = self._open('output.idx')
            self._filled += posix.write(self._index, _entry(now, self.size if self._has_base else self._base))
            self._has_base = True

    def _rotate(self) -> None:
        """Begin new files. At each moment a log and an index of one name belong together, or one of them is missing."""
        for name in ('idx.1', 'log.1'):
            forget(self._folder + '/output.' + name)  # first, for the disk may be full
        if not self._has_base:
            self._indexed = 0.0
            self._note_time()
        fresh, index = self._open('output.log.new'), -1
        try:
            index = self._open('output.idx.new')
            posix.ftruncate(index, 0)
            now = time.time()
            posix.write(index, _entry(now, self.size))
            for old, new in (('log', 'log.1'), ('idx', 'idx.1'), ('idx.new', 'idx'), ('log.new', 'log')):
                posix.rename(self._folder + '/output.' + old, self._folder + '/output.' + new)
        except OSError:
            posix.close(fresh)
            if index >= 0:
                posix.close(index)
            raise
        posix.close(self._fd)
        if self._index >= 0:
            posix.close(self._index)
        self._fd, self._index, self._indexed = fresh, index, now
        self._base, self._filled, self._is_full = self.size, ENTRY, False

    def _end_rotation(self) -> None:
        """A launcher may have been killed amid `_rotate`: go on where it was."""
        path = self._folder + '/output.'
        if size_of(path + 'log') >= 0:
            forget(path + 'idx.new')  # it had renamed nothing yet, or all
            return
        for old, new in (('idx', 'idx.1'), ('idx.new', 'idx')):
            if size_of(path + 'idx.new') >= ENTRY and size_of(path + old) >= 0:
                posix.rename(path + old, path + new)


def size_of(path: str) -> int:
    """Bytes of a file; -1 where there is none."""
    try:
        return posix.stat(path).st_size
    except OSError:
        return -1


def forget(path: str) -> None:
    """Remove a file or socket, if it is still there and can be removed."""
    try:
        posix.unlink(path)
    except OSError:
        return


def _entry(now: float, offset: int) -> bytes:
    # A marshalled float is a type byte and the little-endian float64.
    return marshal.dumps(now, 2)[1:] + offset.to_bytes(8, 'little')


def read_base(path: str) -> int:
    """The offset at which the `output.log` of this index begins; 0 where there is none."""
    try:
        first = read_piece(path, 0, ENTRY)
    except OSError:
        return 0
    return int.from_bytes(first[8:], 'little')


def read_piece(path: str, begin: int, size: int) -> bytes:
    """So many bytes of a file, or what there is of them."""
    file = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.pread(file, size, begin)
    finally:
        posix.close(file)
