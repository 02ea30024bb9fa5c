"""The user's terminal as that of a program on a host: what `remote_runner attach` puts between the two.

    channel = host.open_terminal(command, os.environ['TERM'], *size_of(sys.stdin))
    status = relay(channel, sys.stdin, sys.stdout)

Three threads, each of which waits for one thing: the main thread for keys and signals, one for what the program
prints, and one until the program has taken the keys, so that `~.` is heard even when it takes none.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import termios
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from remote_runner.errors import ConnectionLost, UsageError
from remote_runner.hosts.connection import TerminalChannel
from remote_runner.hosts.host import Host
from remote_runner.hosts.screen import screen_command
from remote_runner.ui import tty
from remote_runner.ui.keys import EscapedKeys, Keys, WatchingKeys
from remote_runner.ui.signals import Signals

_CHUNK = 64 * 1024  # bytes
_PIECE = 4096  # bytes that are written to the terminal at once; a terminal that stalls keeps no more of us waiting
_BACKLOG = 1024 * 1024  # bytes of keys that may wait; a paste that is longer waits in the terminal
_LEAVING = 1.0  # seconds that threads have to end once there is nothing to wait for any more
_ENDING = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
_NEWS = (signal.SIGWINCH, signal.SIGCONT)
_TERMINAL_GONE = 128 + signal.SIGHUP


def attach(
    host: Host, server: int, session: str, window: int, stdin: IO[Any], stdout: IO[Any], *, read_only: bool = False
) -> int:
    """Put the terminal into a window of a screen session of a host, until the user leaves it.

    Args:
        server, session, window: see `screen_command`.
        stdin, stdout, read_only: see `relay`.

    Returns:
        0 where the user has left it, or the session has ended; `hosts.screen.SESSION_GONE` and its like where
        there is nothing to look at, which the terminal then says; see `relay`.

    Raises:
        UsageError, ConnectionLost, OSError: see `relay`.
        HostError: the host gives no terminal.
    """
    columns, rows = size_of(stdin)
    command = screen_command(server, session, window)
    channel = host.open_terminal(command, os.environ.get('TERM', ''), columns, rows)
    return relay(channel, stdin, stdout, read_only=read_only)


def relay(channel: TerminalChannel, stdin: IO[Any], stdout: IO[Any], *, read_only: bool = False) -> int:
    """Be the terminal of a command on a host, until it ends or the user leaves it; closes the channel.

    The user leaves by `~.` after Enter, as in ssh(1), and what is left of the program's picture is put away. The
    local terminal is in raw mode meanwhile, and has its old mode back whatever happens; signals that end the process
    (INT, QUIT, TERM, HUP) do so afterwards. To be called in the main thread.

    Args:
        channel: the command's terminal; it gets the size of ours.
        stdin: a terminal.
        stdout: where the command's output goes, as a rule the same terminal.
        read_only: send no keys; `q`, Ctrl-C and Ctrl-a d leave.

    Returns:
        The command's exit status; 0 where the user has left it; 129 where the terminal is gone.

    Raises:
        UsageError: stdin is no terminal.
        ConnectionLost: the connection broke.
        OSError: stdout cannot be written to.
    """
    try:
        size_of(stdin)
        stdout.flush()
        keys = WatchingKeys() if read_only else EscapedKeys()
        return _Relay(channel, stdin.fileno(), stdout.fileno(), keys).run()
    finally:
        channel.close()


def size_of(terminal: IO[Any] | None) -> tuple[int, int]:
    """Columns and rows of the terminal that is stdin (None where it is closed).

    Raises:
        UsageError: it is no terminal.
    """
    try:
        if terminal is not None:
            return tty.size(terminal.fileno())
    except (termios.error, OSError, ValueError):
        pass  # a file or a pipe, or it has been closed
    raise UsageError('stdin is no terminal', remedy='run it in a terminal, without < or |')


class _Relay:
    """One relay, from its beginning to its end."""

    def __init__(self, channel: TerminalChannel, stdin: int, stdout: int, keys: Keys) -> None:
        self._channel = channel
        self._stdin = stdin
        self._stdout = stdout
        self._keys = keys
        self._picture = tty.Picture()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)  # readable when there is news from the threads
        self._leave = os.eventfd(0, os.EFD_CLOEXEC)  # readable when nothing more is to be printed
        self._left = False
        self._outbox = _Outbox(lambda: os.eventfd_write(self._wake, 1))
        self._printing = threading.Lock()  # while a piece is written to the terminal
        self._status: int | None = None
        self._error: BaseException | None = None

    def run(self) -> int:
        """See `relay`."""
        threads = [
            threading.Thread(target=self._receive, name='attach output', daemon=True),
            threading.Thread(target=self._send, name='attach keys', daemon=True),
        ]
        try:
            with Signals(_ENDING, _NEWS) as signals, tty.raw(self._stdin) as enter_raw:
                for thread in threads:
                    thread.start()
                try:
                    return self._loop(signals, enter_raw)
                finally:
                    self._stop_printing()
        finally:
            self._outbox.close()
            self._channel.close()  # and so wakes the threads
            for thread in threads:
                if thread.ident is not None:
                    thread.join(_LEAVING)
            if not any(thread.is_alive() for thread in threads):
                os.close(self._wake)
                os.close(self._leave)

    # The main thread.

    def _loop(self, signals: Signals, enter_raw: Callable[[], None]) -> int:
        """Pass on keys and sizes until there is an exit status."""
        self._outbox.put(tty.size(self._stdin))  # it may have changed while we connected
        poll = select.poll()
        poll.register(signals, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            if signals.end is not None:
                return 128 + signals.end
            if self._error is not None:
                raise self._error
            if self._status is not None:
                return self._status
            poll.register(self._stdin, 0 if self._outbox.is_full else select.POLLIN)
            ready = dict(poll.poll())
            if self._wake in ready:
                os.eventfd_read(self._wake)
            self._hear(signals.take(), enter_raw)
            if self._stdin in ready:
                typed = self._typed()
                passed, leaves = self._keys.feed(typed)
                if passed:
                    self._outbox.put(passed)
                if leaves:
                    return 0
                if not typed:
                    return _TERMINAL_GONE

    def _hear(self, came: frozenset[int], enter_raw: Callable[[], None]) -> None:
        with suppress(termios.error):  # the terminal is gone: reading it says so
            if signal.SIGCONT in came:
                enter_raw()
            if not came.isdisjoint(_NEWS):
                self._outbox.put(tty.size(self._stdin))

    def _typed(self) -> bytes:
        """What was typed; b'' where the terminal is gone."""
        try:
            return os.read(self._stdin, _CHUNK)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return b''

    def _stop_printing(self) -> None:
        """Print nothing more but what puts away the picture of a program that has not done so itself."""
        self._left = True
        os.eventfd_write(self._leave, 1)
        if self._status is not None:
            return
        if not self._printing.acquire(timeout=_LEAVING):
            return  # the terminal stalls
        poll = select.poll()
        poll.register(self._stdout, select.POLLOUT)
        if poll.poll(_LEAVING * 1000):
            with suppress(OSError):  # it is gone
                os.write(self._stdout, self._picture.put_away())
        self._printing.release()

    # Threads of their own.

    def _receive(self) -> None:
        """Print what comes until the command has ended."""
        try:
            while output := self._channel.read(_CHUNK):
                self._print(memoryview(output))
            self._status = self._channel.exit_status()
        except BaseException as error:  # raised again in the main thread
            self._error = error
        finally:
            os.eventfd_write(self._wake, 1)

    def _print(self, output: memoryview) -> None:
        poll = select.poll()
        poll.register(self._stdout, select.POLLOUT)
        poll.register(self._leave, select.POLLIN)
        while output:
            poll.poll()
            with self._printing:
                if self._left:
                    return
                with suppress(BlockingIOError):
                    printed = os.write(self._stdout, output[:_PIECE])
                    self._picture.note(bytes(output[:printed]))
                    output = output[printed:]

    def _send(self) -> None:
        """Pass on what is in the outbox until it is closed."""
        try:
            while (item := self._outbox.first()) is not None:
                if isinstance(item, bytes):
                    self._channel.write(item)
                else:
                    self._channel.resize(*item)
                self._outbox.drop_first()
        except ConnectionLost:
            return  # whoever reads the output finds out whether the command has ended or the connection broke
        except BaseException as error:  # raised again in the main thread
            self._error = error
            os.eventfd_write(self._wake, 1)


class _Outbox:
    """Keys and sizes on their way, in their order.

    Args:
        on_room: called when it is not full any more.
    """

    def __init__(self, on_room: Callable[[], object]) -> None:
        self._on_room = on_room
        self._items: deque[bytes | tuple[int, int]] = deque()
        self._bytes = 0
        self._is_open = True
        self._changed = threading.Condition()

    @property
    def is_full(self) -> bool:
        """Whether keys had better wait in the terminal."""
        return self._bytes >= _BACKLOG

    def put(self, item: bytes | tuple[int, int]) -> None:
        """Some keys, or columns and rows."""
        with self._changed:
            self._items.append(item)
            self._bytes += len(item) if isinstance(item, bytes) else 0
            self._changed.notify()

    def first(self) -> bytes | tuple[int, int] | None:
        """Wait for the first item; None once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or not self._is_open)
            return self._items[0] if self._is_open else None

    def drop_first(self) -> None:
        """The first item was passed on."""
        with self._changed:
            was_full = self.is_full
            item = self._items.popleft()
            self._bytes -= len(item) if isinstance(item, bytes) else 0
            if was_full and not self.is_full:
                self._on_room()

    def close(self) -> None:
        """What is in it is not passed on any more."""
        with self._changed:
            self._is_open = False
            self._changed.notify()
