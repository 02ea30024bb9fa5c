"""Asking the daemon of this user one thing, and waiting for the answer; see `wire.py` for what can be asked.

Light to import, as `wire.py` is.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import Any

from remote_runner.errors import NoDaemon, RemoteRunnerError, RequestFailed
from remote_runner.placement.wire import SOCKET, socket_path
from remote_runner.wire import frames

#: Seconds that the daemon has for an answer: it only tells what it knows.
PATIENCE = 10.0
_PIECE = 1 << 16
_CREDENTIALS = struct.Struct('3i')  # pid, uid, gid, see SO_PEERCRED in unix(7)
_TIMEVAL = struct.Struct('ll')  # seconds, microseconds: see SO_SNDTIMEO in socket(7)
_START = 'start it with `remote_runner dshd`'
_AGAIN = 'end it, and start it again'


def ask(op: str, *, timeout: float = PATIENCE, **fields: Any) -> Any:
    """The answer of the daemon to one request.

    Raises:
        NoDaemon: there is none.
        RequestFailed: it says that it cannot be done; with its remedy and exit status.
        RemoteRunnerError: it does not answer, or it is none of ours.
    """
    with connected(timeout) as sock:
        return _answer(sock, {'id': 1, 'op': op, **fields}, timeout)


def connected(timeout: float = PATIENCE) -> socket.socket:
    """A connection to the daemon, which is waited for where too many others have not been accepted yet.

    Raises:
        NoDaemon: there is none.
        RemoteRunnerError: what listens there belongs to another user.
    """
    path = socket_path()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # Not settimeout, with which connect(2) does not wait at all (EAGAIN).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(timeout), int(timeout % 1 * 1e6)))
        sock.connect(path)
        _, owner, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if owner != os.getuid():
            what = f'{path}: the daemon there is one of the user with uid {owner}'
            raise RemoteRunnerError(what, remedy=f'name another place in {SOCKET}')
    except OSError as error:
        sock.close()
        if isinstance(error, BlockingIOError):
            what = f'the daemon at {path} has accepted nobody for {timeout:g} s'
            raise RemoteRunnerError(what, remedy=_AGAIN) from None
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):  # it was never there, or was killed
            raise NoDaemon(f'no daemon listens at {path}', remedy=_START) from None
        raise RemoteRunnerError(f'{path}: {error.strerror or error}', remedy=f'see {SOCKET}') from error
    except BaseException:
        sock.close()
        raise
    return sock


def _answer(sock: socket.socket, request: dict[str, Any], timeout: float) -> Any:
    deadline = time.monotonic() + timeout
    decoder = frames.Decoder()
    try:
        sock.settimeout(timeout)
        sock.sendall(frames.encode(request))
        while True:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            data = sock.recv(_PIECE)
            if not data:
                raise NoDaemon('the daemon has just ended', remedy=_START)
            for header, _ in decoder.feed(data):
                return _result(header)
    except TimeoutError:
        what = f'the daemon at {socket_path()} has not answered for {timeout:g} s'
        raise RemoteRunnerError(what, remedy=_AGAIN) from None
    except ConnectionError:
        raise NoDaemon('the daemon has just ended', remedy=_START) from None
    except frames.FrameError as error:
        raise RemoteRunnerError(f'what listens at {socket_path()} is no daemon of ours: {error}') from None


def _result(header: dict[str, Any]) -> Any:
    if 'error' not in header:
        return header['result']
    said = header['error']
    error = RequestFailed(said['what'], host=said.get('host'), kind=said.get('kind') or '')
    error.remedy = said.get('remedy')
    error.exit_status = said.get('status', 1)
    raise error
