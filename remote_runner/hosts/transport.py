"""paramiko's Transport, made fit for many links that may die: what lies below it (`Link`) and what it does itself.

A `Link` is the socket, jump channel or proxy that a transport reads and writes. It remembers when something was last
heard, so that a dead link is noticed whichever thread is waiting on it, and wakes its reader when it is closed.
Protocol: RFC 4253 (transport), RFC 4252 (authentication), RFC 4254 (connection, global requests).
"""

from __future__ import annotations

import logging
import socket
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from remote_runner.hosts.paramiko_import import AuthOnlyHandler, ServiceRequestingTransport, paramiko

KEEPALIVE = 15.0  # seconds of silence after which the other side is asked for a sign of life
SILENCE_LIMIT = 45.0  # seconds of silence after which a link is dead
WINDOW = 4 * 1024 * 1024  # bytes a channel; with 2 MiB a fast link waits for window adjustments
HEAD = 1024  # bytes remembered of what came first, for messages
# Seconds between looks at the clock while a link comes up; paramiko's own 0.1 s keeps links busy. Later they are as
# rare as the signs of life allow: with one a second 200 idle links cost a twentieth of a core.
_TICK = 1.0
_AT_ONCE = 1 << 16  # bytes that are received at once
_CIPHERS = ('aes128-gcm@openssh.com', 'aes256-gcm@openssh.com')  # fastest by far
_COMPRESSION = 'zlib@openssh.com'  # begins after the authentication
_LEVEL = 4  # text at 90 MB/s to 29 %; level 6 at 35 MB/s to 27 %
_KEEPALIVE_REQUEST = 'keepalive@openssh.com'
LOG_NAME = 'remote_runner.paramiko'


class Stream(Protocol):
    """What a link may lie on: a socket, or paramiko's channel through a jump host."""

    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: bytes, /) -> int: ...
    def settimeout(self, timeout: float | None, /) -> None: ...
    def close(self) -> None: ...


class Link:
    """The byte stream below one transport.

    Args:
        stream: what carries it; a socket has TCP_NODELAY set.
        on_close: called once when the link is closed.
    """

    def __init__(self, stream: Stream, on_close: Callable[[], None] | None = None) -> None:
        self.stream = stream
        self._tcp = stream if isinstance(stream, socket.socket) and stream.family != socket.AF_UNIX else None
        self._on_close = on_close
        self._lock = threading.Lock()
        self._closed = False
        self._keepalive: float | None = None
        self._silence_limit: float | None = None
        self._ask: Callable[[], None] | None = None
        self._asked = 0.0
        self._heard = time.monotonic()
        self._held, self._at = b'', 0  # what came last, and how much of that was taken
        self.head = b''  # what came first
        self.ended = False  # the other side closed it, or it broke
        self.lost: str | None = None  # why it is of no use any more; None while it is
        stream.settimeout(_TICK)

    def watch(self, keepalive: float, silence_limit: float, ask: Callable[[], None]) -> None:
        """From now on call `ask` after `keepalive` seconds of silence, and give the link up after `silence_limit`."""
        self._heard = time.monotonic()
        self._keepalive, self._silence_limit, self._ask = keepalive, silence_limit, ask
        self.stream.settimeout(min(keepalive / 2, silence_limit / 4))  # who closes the link wakes who waits on it

    def recv(self, size: int) -> bytes:
        """At most so many bytes; none at the end. The system is asked for more: paramiko asks twice for each packet."""
        if self._at == len(self._held):
            self._held, self._at = self._receive(), 0
        begin, self._at = self._at, min(self._at + size, len(self._held))
        return self._held[begin : self._at]

    def _receive(self) -> bytes:
        try:
            data = self.stream.recv(_AT_ONCE)
        except TimeoutError:
            self._check()
            if (
                self._ask is not None
                and self._keepalive is not None
                and min(self.silent, time.monotonic() - self._asked) > self._keepalive
            ):
                self._asked = time.monotonic()
                self._ask()
            raise
        except OSError as error:
            raise self._broke(error) from error
        self._heard = time.monotonic()
        self._acknowledge()
        if len(self.head) < HEAD:
            self.head += data[: HEAD - len(self.head)]
        if not data:
            self.ended = True
            self._lose('the other side closed the connection')
        return data

    def _acknowledge(self) -> None:
        """Acknowledge now what came (tcp(7), TCP_QUICKACK; the kernel forgets that it is set).

        sshd sends small packets with Nagle's algorithm, each when the one before it is acknowledged (RFC 1122,
        4.2.3.4); the kernel would put that off for 40 ms.
        """
        if self._tcp is not None:
            with suppress(OSError):
                self._tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def send(self, data: bytes) -> int:
        try:
            return self.stream.send(data)
        except TimeoutError:
            self._check()
            raise
        except OSError as error:
            raise self._broke(error) from error

    def settimeout(self, timeout: float | None) -> None:
        """Nothing: the link knows better."""

    def close(self) -> None:
        """Close it, and wake whoever waits on it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._lose('the connection was closed')
        if isinstance(self.stream, socket.socket):
            with suppress(OSError):
                self.stream.shutdown(socket.SHUT_RDWR)
        with suppress(OSError, EOFError, paramiko.SSHException):  # a channel through a jump host that is gone
            self.stream.close()
        if self._on_close is not None:
            self._on_close()

    @property
    def silent(self) -> float:
        """Seconds since something was heard."""
        return time.monotonic() - self._heard

    def _check(self) -> None:
        if self._closed:
            raise EOFError
        if self._silence_limit is not None and self.silent > self._silence_limit:
            self._lose(f'the connection was silent for {self._silence_limit:g} s')
            raise EOFError

    def _broke(self, error: OSError) -> EOFError:
        """What to raise: EOFError is the one that paramiko takes in its stride."""
        self.ended = True
        self._lose(f'the connection broke: {(error.strerror or str(error)).lower()}')
        return EOFError()

    def _lose(self, why: str) -> None:
        self.lost = self.lost or why


class _TypedHandler(AuthOnlyHandler):
    """What the type stubs leave out."""

    if TYPE_CHECKING:

        def _parse_userauth_failure(self, message: paramiko.Message) -> None: ...


class AuthHandler(_TypedHandler):
    """Without the race of its parent, which waits for an answer only after it may have come.

    Attributes:
        allowed: the methods that the server named when it last refused one (RFC 4252, 5.1); None: it refused none yet.
    """

    transport: Transport
    allowed: tuple[str, ...] | None = None

    def send_auth_request(
        self,
        username: str,
        method: str,
        finish_message: Callable[[paramiko.Message], None] | None = None,
    ) -> list[str]:
        self.auth_method = method
        self.username = username
        message = paramiko.Message()
        message.add_byte(b'\x32')  # SSH_MSG_USERAUTH_REQUEST
        message.add_string(username)
        message.add_string('ssh-connection')
        message.add_string(method)
        if finish_message is not None:
            finish_message(message)
        self.auth_event = event = threading.Event()
        with self.transport.lock:
            self.transport._send_message(message)
        return self.wait_for_response(event)

    def _parse_userauth_failure(self, message: paramiko.Message) -> None:
        self.allowed = tuple(message.get_list())
        message.rewind()
        super()._parse_userauth_failure(message)


class _Compressor:
    """What paramiko's does, which is slow (level 6) and forgets what it has seen at the end of each packet."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(_LEVEL)

    def __call__(self, data: bytes) -> bytes:
        return self._stream.compress(data) + self._stream.flush(zlib.Z_PARTIAL_FLUSH)  # RFC 4253, 6.2


class Transport(ServiceRequestingTransport):
    """One SSH connection on a link.

    Attributes:
        link: what it lies on.
        farewell: what the server said when it ended the connection (SSH_MSG_DISCONNECT), if it did.
    """

    _compression_info: Mapping[str, tuple[Callable[[], object] | None, Callable[[], object] | None]]
    _send_message: Callable[[paramiko.Message], None]
    _send_user_message: Callable[[paramiko.Message], None]

    def __init__(self, link: Link, host_key_algorithms: tuple[str, ...], *, compress: bool = False) -> None:
        super().__init__(link, default_window_size=WINDOW)  # type: ignore[arg-type]
        self.link = link
        self.farewell: str | None = None
        self._auth_allowed = threading.Event()
        self.name = 'ssh'
        self.set_log_channel(LOG_NAME)
        options = self.get_security_options()
        options.ciphers = (*_CIPHERS, *(name for name in options.ciphers if name not in _CIPHERS))
        if compress:
            self._preferred_compression = (_COMPRESSION, 'none')
            known = self._compression_info
            self._compression_info = {**known, _COMPRESSION: (_Compressor, known[_COMPRESSION][1])}
        self._host_key_algorithms = host_key_algorithms

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """The algorithms of host keys, in our order; the parent's adds certificates behind."""
        return self._host_key_algorithms

    def keep_alive(self, interval: float, silence_limit: float) -> None:
        """Ask for a sign of life every `interval` seconds of silence; end the connection after `silence_limit`."""
        self.link.watch(interval, silence_limit, self._ask_for_life)

    def _ask_for_life(self) -> None:
        # In the transport's own thread: during a key exchange it must not wait for the end of it.
        if self.in_kex or not self.clear_to_send.is_set():
            return
        message = paramiko.Message()
        message.add_byte(b'\x50')  # SSH_MSG_GLOBAL_REQUEST
        message.add_string(_KEEPALIVE_REQUEST)
        message.add_boolean(True)  # want reply; that it is refused is as good a sign of life
        self._send_user_message(message)

    @property
    def allowed(self) -> tuple[str, ...] | None:
        """The methods of authentication that may help, once the server has refused one."""
        return self.auth_handler.allowed if isinstance(self.auth_handler, AuthHandler) else None

    def get_auth_handler(self) -> AuthOnlyHandler:
        return AuthHandler(self)

    def ensure_session(self) -> None:
        """As the parent's, which looks every 0.1 s whether the server's answer came."""
        if self._auth_allowed.is_set():
            return
        message = paramiko.Message()
        message.add_byte(b'\x05')  # SSH_MSG_SERVICE_REQUEST
        message.add_string('ssh-userauth')
        self._send_message(message)
        deadline = time.monotonic() + self.auth_timeout
        while not self._auth_allowed.wait(0.1):
            if not self.is_active() or time.monotonic() > deadline:
                raise paramiko.SSHException('no authentication service')
        self.auth_handler = self.get_auth_handler()

    def _parse_service_accept(self, message: paramiko.Message) -> None:
        if message.get_text() == 'ssh-userauth':
            self._auth_allowed.set()

    def _parse_disconnect(self, message: paramiko.Message) -> None:
        message.get_int()
        self.farewell = message.get_text()
        self.link.lost = self.link.lost or f'the server ended the connection: {self.farewell}'


class _Quiet(logging.Filter):
    """paramiko reports as errors, with its stack, what we report ourselves in one line: show that to debuggers only."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.levelno, record.levelname = logging.DEBUG, 'DEBUG'
        return logging.getLogger('remote_runner').isEnabledFor(logging.DEBUG)


logging.getLogger(LOG_NAME).addFilter(_Quiet())
