"""Threads of an agent, on Python's own primitives: to import `threading` takes as long as all modules of the agent."""

import _thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, List

Lock = _thread.allocate_lock


class Thread:
    """A thread that runs `work` and does not keep the agent alive."""

    def __init__(self, work: "Callable[..., object]", *arguments: object) -> None:
        self._runs = Lock()
        self._runs.acquire()
        _thread.start_new_thread(self._run, (work, arguments))

    def _run(self, work: "Callable[..., object]", arguments: "tuple[object, ...]") -> None:
        try:
            work(*arguments)
        finally:  # Python writes what it raises to stderr, which the master quotes
            self._runs.release()

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._runs.locked()

    def join(self, timeout: float = -1) -> None:
        """Wait for its end, so many seconds at most (-1: as long as it takes)."""
        if self._runs.acquire(True, timeout):
            self._runs.release()


class Condition:
    """A lock, and a wait until another thread changed what it guards."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: "List[_thread.LockType]" = []

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self) -> None:
        """Give the lock away until `notify_all`; whether what is waited for has come is for the caller to see."""
        waiter = Lock()
        waiter.acquire()
        self._waiting.append(waiter)
        self._lock.release()
        try:
            waiter.acquire()
        finally:
            self._lock.acquire()

    def notify_all(self) -> None:
        """Wake all that wait. The lock must be held."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.release()
