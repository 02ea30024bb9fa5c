"""Sockets of ours in the runtime folder that nobody listens on any more: those who made them were killed."""

import errno
import os
import stat
import time

import _socket

from remote_runner.agent import records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Set

#: Seconds after which a socket on which nobody listens is none that somebody is about to listen on.
AGE = 60.0


def forget_dead(folder: str) -> None:
    """Remove the sockets of launchers that were killed.

    Those that the kernel knows are not touched: launchers that do well are not even woken. What it does not know may be
    bound in another network namespace, as in a container: it is asked.
    """
    paths = [os.path.join(folder, name) for name in os.listdir(folder) if not name.startswith('agent-')]
    old = [path for path in paths if _is_old_socket(path)]
    known = _bound() if old else set()
    for path in old:
        if path not in known and is_deaf(path):
            records.forget(path)


def _bound() -> "Set[str]":
    """The paths of sockets that are open here (proc(5), `net/unix`)."""
    with open('/proc/net/unix', encoding='utf-8', errors='surrogateescape') as file:
        return {'/' + line.rstrip('\n').partition(' /')[2] for line in file}


def _is_old_socket(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False  # it has just gone
    return stat.S_ISSOCK(found.st_mode) and found.st_mtime < time.time() - AGE


def is_deaf(path: str) -> bool:
    """Whether nobody listens on a socket, of whichever type (unix(7))."""
    for kind in (_socket.SOCK_STREAM, _socket.SOCK_DGRAM):
        sock = _socket.socket(_socket.AF_UNIX, kind | _socket.SOCK_CLOEXEC)
        try:
            sock.settimeout(1.0)
            sock.connect(path)
            return False
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:
                return error.errno == errno.ECONNREFUSED
        finally:
            sock.close()
    return False
