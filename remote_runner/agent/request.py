"""A request that an agent works on, and the two ways in which it can end early."""

from _collections import deque  # `collections` takes long to import

from remote_runner.agent.threads import Condition
from remote_runner.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Deque, Dict, Iterator, List, Optional, Tuple

    import _socket

    from remote_runner.agent.main import Agent


class Failure(Exception):
    """What was asked cannot be done; `kind` lets the master tell cases apart."""

    def __init__(self, what: str, kind: str = '', errno_name: str = '') -> None:
        super().__init__(what)
        self.what = what
        self.kind = kind
        self.errno_name = errno_name


class Gone(Exception):
    """The master is gone, or takes back what it asked for."""


class Request:
    """One request being worked on: its header, the parts that come for it, and the way to answer."""

    def __init__(self, agent: "Agent", header: "Dict[str, Any]") -> None:
        self.agent = agent
        self.header = header
        self._parts: "Deque[Tuple[object, bytes]]" = deque()
        self._credit = header.get('window', frames.WINDOW)
        self._gone = False
        self._when_gone: "Optional[Callable[[], object]]" = None
        self._when_changed: "Optional[Callable[[], object]]" = None
        self._changed = Condition()

    # Called by the reading thread.

    def take(self, header: "Dict[str, Any]", body: bytes) -> None:
        """A frame for this request: a part, credit, or its cancellation."""
        with self._changed:
            if 'credit' in header:
                self._credit += header['credit']
            elif 'cancel' in header:
                self._gone = True
                if self._when_gone is not None:
                    self._when_gone()
            else:
                self._parts.append((header['part'], body))
            self._changed.notify_all()
            if self._when_changed is not None:
                self._when_changed()

    # Called by the thread that works on it.

    def check(self) -> None:
        """Raises Gone when there is nobody to work for any more."""
        if self._gone:
            raise Gone

    def when_gone(self, wake: "Callable[[], object]") -> None:
        """Call `wake` when there is nobody to work for any more: for work that waits elsewhere than here."""
        with self._changed:
            self._when_gone = wake
            if self._gone:
                wake()

    def when_changed(self, wake: "Optional[Callable[[], object]]") -> None:
        """Call `wake` with each frame that comes (None: no more), for work that waits elsewhere and for many things.

        It then looks at `is_gone`, `take_parts` and `credit`, and never waits in `send`.
        """
        with self._changed:
            self._when_changed = wake
            if wake is not None:
                wake()

    @property
    def is_gone(self) -> bool:
        """Whether there is nobody to work for any more."""
        return self._gone

    @property
    def credit(self) -> int:
        """Bytes that `send` would take at once."""
        return int(self._credit)

    def take_parts(self) -> "List[Tuple[Any, bytes]]":
        """The parts that came since the last time. What of them is dealt with is told by `give_credit`."""
        with self._changed:
            taken = list(self._parts)
            self._parts.clear()
            return taken

    def give_credit(self, size: int) -> None:
        """So many bytes of the parts that were taken are dealt with."""
        self.agent.send({'id': self.header['id'], 'credit': size})

    def parts(self) -> "Iterator[Tuple[Any, bytes]]":
        """The parts in order, until the one that is None. Gives credit for each as the next is asked for."""
        while True:
            with self._changed:
                while not self._parts and not self._gone:
                    self._changed.wait()
                self.check()
                part, body = self._parts.popleft()
            if part is None:
                return
            yield part, body
            self.give_credit(len(body))

    def send(self, part: object, body: bytes) -> None:
        """Send a part, waiting for credit."""
        self._spend(len(body))
        self.agent.send({'id': self.header['id'], 'part': part}, body)

    def pass_on(self, part: object, source: "_socket.socket", size: int) -> None:
        """The same of a part that waits in a socket."""
        self._spend(size)
        self.agent.pass_on({'id': self.header['id'], 'part': part}, source, size)

    def _spend(self, size: int) -> None:
        with self._changed:
            while self._credit < size and not self._gone:
                self._changed.wait()
            self.check()
            self._credit -= size
