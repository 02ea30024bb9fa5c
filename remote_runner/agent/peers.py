"""Messages between launchers and agents, over unix sockets in a private folder.

Messages are marshalled tuples behind a length of four bytes (big-endian); both sides run the same Python.

A launcher says of the start `('hello', token, pid, window, load)`, `('started', pid, time, restarts)`, `('failed',
stage, errno, time)` (with why as a fifth where the stage is `sudo`), `('refused', errno, text, time)`; of the program
what `agent/readiness.py` has to say, each with the time, and `('log', errno, time)`; of its end `('restarting', exit
status, pause, restarts, reason, time)`, `('exited', exit status, time, reason)`, `('gone', pids left, time)`. It hears
`('go', password)` (None but for sudo that needs one), `('abort', reason)`, `('stop', seconds, who)`, `('signal',
number)`, which it answers with `('signalled', errno)`, and `('status',)`, with `('status', JSON)`.
"""

import marshal

import _socket

from remote_runner.agent.records import forget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Tuple

    Message = Tuple[Any, ...]

PIECE = 1 << 16


def pack(message: "Message") -> bytes:
    """The bytes of one message."""
    body = marshal.dumps(message, 2)
    return len(body).to_bytes(4, 'big') + body


def unpack(buffer: bytearray) -> "List[Message]":
    """Take the complete messages off the front of `buffer`."""
    messages: "List[Message]" = []
    while len(buffer) >= 4:
        size = int.from_bytes(buffer[:4], 'big')
        if len(buffer) < 4 + size:
            break
        messages.append(marshal.loads(bytes(buffer[4 : 4 + size])))
        del buffer[: 4 + size]
    return messages


class Peer:
    """One connection between a launcher and an agent, at either end."""

    def __init__(self, sock: "_socket.socket") -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self._buffer = bytearray()

    def send(self, message: "Message") -> None:
        """Send, or forget: who does not read its few small messages is as good as gone."""
        try:
            self.sock.send(pack(message), _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
        except OSError:
            return  # the next read finds it closed

    def receive(self) -> "List[Message] | None":
        """The messages that came; None when the other side is gone, or speaks another language."""
        try:
            data = self.sock.recv(PIECE, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        self._buffer += data
        try:
            return unpack(self._buffer)
        except (EOFError, ValueError, TypeError):
            return None


def connect(path: str) -> "Peer | None":
    """Connect to who listens at `path`: the agent that opened our window, or a launcher. None where it is gone."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
    except OSError:
        return None
    return Peer(sock)


def listen(path: str) -> "_socket.socket":
    """A socket on which others find us (its folder is private: mode 0700)."""
    forget(path)
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    sock.bind(path)
    sock.listen(128)  # callers wait for room: those of a launcher that is stopped for a while must not, either
    return sock


def accept(listening: "_socket.socket") -> Peer:
    """Take one caller."""
    fd, _ = listening._accept()  # type: ignore[attr-defined]
    return Peer(_socket.socket(fileno=fd))
