"""The streams of a command that runs here for somebody elsewhere, or the terminal that stands for all three.

What they carry from and to there is told by operation `run`, see `agent/command.py`. Nothing here waits: whoever polls
has `watch` say for what, and `serve` do what is to be done.
"""

import errno
import fcntl
import os
import select
import struct
import termios

from remote_runner.agent.request import Gone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List

    from remote_runner.agent.request import Request

PIECE = 1 << 16
#: Control-D: what ends the input of a terminal.
END_OF_INPUT = b'\x04'


class Streams:
    """Our ends of pipes, or of a terminal; see above.

    Args:
        request: for whom they are: it gets what comes out, with credit, and is given credit for what went in.
    """

    def __init__(self, request: "Request") -> None:
        self._request = request
        #: The input of the command, or its terminal and the other side of that, and what it writes: {file: part}.
        self._stdin = self._master = self._slave = -1
        self._sources: "Dict[int, str]" = {}
        self._pending: "List[memoryview]" = []
        #: Bytes of the part that is being written.
        self._size = 0
        self._is_input_ended = self._is_cut = self._has_ended = False
        #: Of what is left in each pipe once the command has ended: bytes.
        self._rest: "Dict[int, int]" = {}

    def open_pipes(self) -> "List[int]":
        """The other ends: stdin, stdout and stderr of the command, which whoever asks has to close."""
        theirs = []
        stdin, self._stdin = os.pipe()
        theirs.append(stdin)
        for name in ('out', 'err'):
            read, write = os.pipe()
            self._sources[read] = name
            theirs.append(write)
        os.set_blocking(self._stdin, False)
        return theirs

    def open_terminal(self, rows: int, columns: int) -> bytes:
        """The path of a new terminal.

        Its other side stays open here until the command has ended: once nobody has it open the terminal is as good as
        gone, and whoever closes its streams before it ends (cat(1) does) would be hung up on.
        """
        self._master, self._slave = os.openpty()
        self._resize(rows, columns)
        os.set_blocking(self._master, False)
        self._sources[self._master] = 'out'
        return os.fsencode(os.ttyname(self._slave))

    def close(self) -> None:
        """Let go of all."""
        for fd in {self._stdin, self._master, self._slave, *self._sources} - {-1}:
            os.close(fd)

    # ---- what the loop asks ------------------------------------------------------------------------------------

    @property
    def are_read(self) -> bool:
        """Whether nothing more comes of what the command writes."""
        return not self._sources

    @property
    def is_emptying(self) -> bool:
        """Whether a terminal is read to its end: all that was written is there, and nobody can write any more."""
        return self._has_ended and self._master >= 0 and self._can_send

    def watch(self, poll: select.poll) -> None:
        """Register what is waited for now."""
        if self._can_send:  # else nobody listens to it: also that it hung up would be no news
            for fd in self._sources:
                poll.register(fd, select.POLLIN)
        has_input = bool(self._pending) or self._is_input_ended
        if self._stdin >= 0:
            poll.register(self._stdin, select.POLLOUT if has_input else 0)
        elif self._master >= 0 and has_input:
            poll.register(self._master, select.POLLOUT | (select.POLLIN if self._can_send else 0))

    def serve(self, ready: "Dict[int, int]") -> None:
        """Read and write what can be, by what poll(2) has found."""
        for fd in list(self._sources):
            if self._can_send:
                if fd in ready:
                    self._read(fd)
                elif self.is_emptying:
                    self._drop(fd)
        self._write(ready)

    # ---- what happens ------------------------------------------------------------------------------------------

    def take(self, part: "Any", body: bytes) -> None:
        """A part that came for it, but for signals."""
        if part is None:
            self._is_input_ended = True
        elif part == 'in':
            self._pending.append(memoryview(body))
        elif part[0] == 'size':
            self._resize(part[1], part[2])
        elif part[0] == 'close':
            for fd in [fd for fd, name in self._sources.items() if name == part[1] and fd != self._master]:
                self._drop(fd)

    def front(self) -> int:
        """The process group that is in front at the terminal; 0: there is none."""
        if self._master >= 0:
            try:
                return os.tcgetpgrp(self._master)
            except OSError:
                pass  # the command is just starting, or ending
        return 0

    def ended(self) -> None:
        """The command's own process has ended: what it wrote is in the pipes now."""
        self._has_ended = True
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1
        for fd in self._sources.keys() - {self._master}:
            self._rest[fd] = struct.unpack('i', fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]
            if not self._rest[fd]:
                self._drop(fd)

    def cut(self) -> None:
        """Nobody wants it any more: what it still writes goes nowhere."""
        self._is_cut = True
        if self._master >= 0:
            self._sources.clear()
            self._close_terminal()

    def _resize(self, rows: int, columns: int) -> None:
        if self._master >= 0:
            size = struct.pack('HHHH', min(max(rows, 0), 0xFFFF), min(max(columns, 0), 0xFFFF), 0, 0)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def _close_terminal(self) -> None:
        """Which hangs up on whoever is in it."""
        for fd in {self._master, self._slave} - {-1}:
            os.close(fd)
        self._master = self._slave = -1

    # ---- its input ---------------------------------------------------------------------------------------------

    def _write(self, ready: "Dict[int, int]") -> None:
        """Give it of its input what it takes."""
        fd = self._stdin if self._master < 0 else self._master
        if fd < 0:
            self._discard()
            return
        if ready.get(fd, 0) & (select.POLLERR | select.POLLNVAL) and self._master < 0:
            self._close_input()
            self.say('closed')
            self._discard()
            return
        try:
            while self._pending:
                self._size = self._size or len(self._pending[0])
                self._pending[0] = self._pending[0][os.write(fd, self._pending[0]) :]
                if not self._pending[0]:
                    del self._pending[0]
                    size, self._size = self._size, 0
                    self._give_credit(size)
            if self._is_input_ended:
                self._is_input_ended = False
                if self._master >= 0:
                    os.write(fd, END_OF_INPUT)
                else:
                    self._close_input()
        except BlockingIOError:
            pass  # it takes more later
        except OSError:  # its reader has just gone: poll says so
            pass

    def _close_input(self) -> None:
        os.close(self._stdin)
        self._stdin = -1

    def _discard(self) -> None:
        """Nobody wants what comes for it."""
        for piece in self._pending:
            self._give_credit(self._size or len(piece))
            self._size = 0
        self._pending = []

    def _give_credit(self, size: int) -> None:
        if size and not self._is_cut:
            self._request.give_credit(size)

    # ---- its output --------------------------------------------------------------------------------------------

    @property
    def _can_send(self) -> bool:
        """It is listened to as long as what it says can be passed on."""
        return self._is_cut or self._request.credit >= PIECE

    def _read(self, fd: int) -> None:
        most = PIECE
        if fd in self._rest:
            most = min(PIECE, self._rest[fd])
            self._rest[fd] -= most
        try:
            data = os.read(fd, most)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # that is: a terminal that nobody has open any more
                raise
            data = b''
        if data:
            self._send_part(self._sources[fd], data)
        if not data or self._rest.get(fd) == 0:
            self._drop(fd)

    def say(self, part: str) -> None:
        """Tell the other side something."""
        self._send_part(part, b'')

    def _send_part(self, part: str, data: bytes) -> None:
        if not self._is_cut:
            try:
                self._request.send(part, data)
            except Gone:
                pass  # the next round sees that, too

    def _drop(self, fd: int) -> None:
        """Nothing more comes from there."""
        del self._sources[fd]
        if fd == self._master:
            self._close_terminal()
        else:
            os.close(fd)
