"""Signals as something to wait for, so that none of them interrupts what must not be left half done."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from types import FrameType, TracebackType


class Signals:
    """While this context lasts, these signals are only noted; `fileno()` is readable when some came.

    At its end the first that came of those that end the process is sent again: it does then what it did before.
    Signals that are ignored (as by nohup(1)) stay so. For the main thread alone, as `signal.signal` is.

    Args:
        ending: signals that end the process, or raise an error.
        others: signals that are news and no more.
    """

    def __init__(self, ending: Iterable[signal.Signals], others: Iterable[signal.Signals]) -> None:
        self._ending = frozenset(ending)
        self._wanted = [*self._ending, *others]
        self._before: dict[signal.Signals, object] = {}
        self._ends: list[signal.Signals] = []

    def __enter__(self) -> Signals:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self._wanted:
            before = signal.getsignal(number)
            if before not in (signal.SIG_IGN, None):
                self._before[number] = before
                signal.signal(number, _only_noted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._wakeup_before)
        self.take()
        os.close(self._read)
        os.close(self._write)
        if self.end is not None:
            signal.raise_signal(self.end)

    def fileno(self) -> int:
        return self._read

    @property
    def end(self) -> signal.Signals | None:
        """The first that came of those that end the process."""
        return self._ends[0] if self._ends else None

    def take(self) -> frozenset[int]:
        """Which came since the last time. Never waits."""
        try:
            came = os.read(self._read, 4096)
        except BlockingIOError:
            return frozenset()
        self._ends += [signal.Signals(number) for number in came if number in self._ending]
        return frozenset(came)


def _only_noted(number: int, frame: FrameType | None) -> None:
    """Python writes the number to the wakeup descriptor, see signal.set_wakeup_fd."""
