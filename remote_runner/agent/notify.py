"""What a program says of itself: the receiving side of sd_notify(3).

A datagram socket in the runtime folder, by path (an abstract one could be spoofed by anyone, and is not seen from other
network namespaces). The keeper drains it, because eleven unread messages block the sender. What other users send is
dropped: the kernel tells whose a message is (SCM_CREDENTIALS, unix(7)).
"""

import posix
import sys

import _socket

from remote_runner.agent.records import forget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional

PIECE = 1 << 16
#: struct ucred: pid, uid, gid, of four bytes each.
_UCRED = 12
_FDS = 256
#: Messages that are taken at once: who never stops sending must not keep us from all else.
MOST = 1024


def bind(path: str) -> "_socket.socket":
    """The socket at `path`; one that a launcher left there that was killed is gone."""
    forget(path)
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    sock.bind(path)
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
    return sock


class Notify:
    """The receiving end of a socket; `fd` is readable when a message came.

    Args:
        path: where it is.
        sock: what another user bound there; None: it is bound now, by us.
        uid: whose messages count, beside root's; None: ours.
    """

    def __init__(self, path: str, sock: "Optional[_socket.socket]" = None, uid: "Optional[int]" = None) -> None:
        self.path = path
        self._socket = bind(path) if sock is None else sock
        self._trusted = (0, posix.getuid() if uid is None else uid)
        self._is_ours = sock is None
        self.fd = self._socket.fileno()

    def receive(self) -> "List[Dict[str, str]]":
        """The messages that came, or the first of them, each as its assignments (`{'READY': '1'}`)."""
        messages: "List[Dict[str, str]]" = []
        space = _socket.CMSG_SPACE(_UCRED) + _socket.CMSG_SPACE(4 * _FDS)
        for _ in range(MOST):
            try:
                flags = _socket.MSG_CMSG_CLOEXEC | _socket.MSG_DONTWAIT
                data, ancillary, _, _ = self._socket.recvmsg(PIECE, space, flags)
            except OSError:
                return messages  # there is none (any more)
            is_trusted = False
            for level, kind, content in ancillary:
                if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                    for start in range(0, len(content) // 4 * 4, 4):
                        # Of BARRIER=1: the sender waits until we have closed it. We keep none of any other kind.
                        posix.close(int.from_bytes(content[start : start + 4], sys.byteorder))
                elif level == _socket.SOL_SOCKET and kind == _socket.SCM_CREDENTIALS:
                    uid = int.from_bytes(content[4:8], sys.byteorder)
                    is_trusted = uid in self._trusted
            if is_trusted:
                messages.append(parse(data))
        return messages

    def close(self) -> None:
        """Close it, and remove it from its folder if we put it there."""
        self._socket.close()
        if self._is_ours:
            forget(self.path)


def parse(data: bytes) -> "Dict[str, str]":
    """The assignments of one message; of several to one name the last holds."""
    lines = data.decode('utf-8', 'replace').split('\n')
    return dict(line.split('=', 1) for line in lines if '=' in line)
