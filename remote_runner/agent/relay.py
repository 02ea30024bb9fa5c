"""Between a program's terminal, the window around it and its log: what is printed goes to both, keys go to it."""

import posix
import select

from remote_runner.agent.records import PIECE, Log
from remote_runner.agent.terminal import RING, Window, copy_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional


class Relay:
    """Carries from one to the other what is there; its owner waits on `poll`, and tells it which files are ready.

    Args:
        folder: that of the component.
        log_limit: see `records.Log`.
        poll: what the owner waits on.

    Attributes:
        log: where all that is printed goes.
    """

    def __init__(self, folder: str, log_limit: int, poll: select.poll) -> None:
        self.log = Log(folder, log_limit)
        self._poll = poll
        self._window: "Optional[Window]" = None
        self._watches_window = False
        self._master = self._slave = -1
        self._typed = bytearray()

    def begin(self, master: int, slave: int) -> None:
        """The program runs in a terminal whose sides these are; -1: its own side is not ours to keep open."""
        self._master, self._slave = master, slave
        self._poll.register(master, select.POLLIN)
        if self._window is None:
            self._window = Window()
            self._watches_window = self._window.open
            if self._watches_window:
                self._poll.register(0, select.POLLIN)
        else:
            self.pass_size()

    def end(self) -> None:
        """Nobody is left in the terminal: take what it still holds, and close it."""
        self.take_output(whole=True)
        self._poll.unregister(self._master)
        posix.close(self._master)
        if self._slave >= 0:
            posix.close(self._slave)
        self._master = self._slave = -1
        self._typed.clear()

    def has_lost_window(self) -> bool:
        """Whether the window is gone, where it was there; told once."""
        if not self._watches_window or self._window is None or self._window.open:
            return False
        self._watches_window = False
        self._poll.unregister(0)
        self._poll.unregister(1)
        return True

    def prepare(self) -> None:
        """Before each wait: say for what."""
        if self._watches_window and self._window is not None:
            self._poll.register(1, select.POLLOUT if self._window.pending else 0)
        if self._master >= 0:
            self._poll.register(self._master, select.POLLIN | (select.POLLOUT if self._typed else 0))

    def serves(self, fd: int) -> bool:
        """Whether this is a file of ours."""
        return fd in (0, 1) or (fd == self._master and fd >= 0)

    def hear(self, fd: int, event: int) -> None:
        """One of our files is ready."""
        assert self._window is not None
        if fd == self._master:
            self.take_output()
            self._pass_keys()
        elif fd == 0:
            self._read_keys()
        else:
            self._window.flush()
            if event & (select.POLLHUP | select.POLLERR):
                self._window.close()

    def take_output(self, whole: bool = False) -> None:
        """From the program to log and window; `whole`: until nothing is left in the terminal."""
        assert self._window is not None
        try:
            while True:
                data = posix.read(self._master, PIECE)
                self.log.write(data)
                self._window.show(data)
                if not whole:
                    return
        except BlockingIOError:
            return  # that was all

    def _read_keys(self) -> None:
        assert self._window is not None
        try:
            data = posix.read(0, PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        if not data:
            self._window.close()
        elif self._master >= 0:
            self._typed += data
            self._pass_keys()

    def _pass_keys(self) -> None:
        """To the program; what it does not read waits here, and screen waits once that is much."""
        try:
            while self._typed:
                del self._typed[: posix.write(self._master, self._typed[:PIECE])]
        except BlockingIOError:
            del self._typed[: max(0, len(self._typed) - RING)]
        except OSError:
            self._typed.clear()

    def pass_size(self) -> None:
        """Give the terminal the size of the window."""
        if self._master >= 0 and self._window is not None and self._window.open:
            copy_size(self._master)

    def say(self, text: str) -> None:
        """A line of ours in the window."""
        if self._window is not None:
            self._window.show('\r\n[remote_runner: {}]\r\n'.format(text).encode('utf-8', 'replace'))

    def restore(self) -> None:
        """Give the window back as it was."""
        if self._window is not None:
            self._window.restore()
