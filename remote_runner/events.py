"""Everything that happens in a run, as one stream of typed events.

The terminal, `--json` and whoever runs a plan from Python read the same stream:

    events = Events()
    events.listen(lambda event: print(event.to_dict()))
"""

from __future__ import annotations

import math
import re
import threading
import time as clock
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, dataclass_transform

#: Seconds by which an event may be overtaken by one of another thread, between its making and its place in the stream.
_OVERTAKEN = 1.0


@dataclass_transform(eq_default=False, kw_only_default=True, frozen_default=True)
class _Fields:
    """What `dataclass(eq=False, kw_only=True, frozen=True)` makes of a class: annotations are fields, given by keyword.

    To make twenty classes with `dataclass` takes longer than all else of the import.
    """

    _names: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls._names = (*cls._names, *cls.__annotations__)

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)
        wrong = values.keys() - set(self._names) or {name for name in self._names if not hasattr(self, name)}
        if wrong:
            raise TypeError(f'{type(self).__name__}: unknown or missing: {", ".join(sorted(wrong))}')

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f'{name} is fixed')

    def __repr__(self) -> str:
        return f'{type(self).__name__}({", ".join(f"{name}={getattr(self, name)!r}" for name in self._names)})'


class Event(_Fields):
    """Something that happened.

    Args:
        time: when, in seconds since the epoch, by the clock of this machine; the moment of its making, if not given.
        host: where, as the user wrote it; None where it concerns the whole run.
        component: the name of the component that it concerns.
    """

    time: float = math.nan
    host: str | None = None
    component: str | None = None

    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            super().__init__(**{'time': clock.time(), **values})

    def with_text(self, change: Callable[[str], str], names: Iterable[str]) -> Event:
        """The same event, with the texts of these fields changed."""
        texts = {name: self.__dict__[name] for name in names if name in self.__dict__}
        changed = {name: change(text) for name, text in texts.items()}
        return self if changed == texts else type(self)(**{**self.__dict__, **changed})

    def not_before(self, moment: float) -> Event:
        """The same event, not earlier than that."""
        return self if self.time >= moment else type(self)(**{**self.__dict__, 'time': moment})

    @classmethod
    def kind(cls) -> str:
        """What such events are called in JSON: the name of the class in snake case."""
        return re.sub(r'(?<!^)(?=[A-Z])', '_', cls.__name__).lower()

    def to_dict(self) -> dict[str, Any]:
        """The event for JSON: its kind as `event`, and those of its fields that are not None."""
        values = {name: getattr(self, name) for name in self._names}
        return {'event': self.kind(), **{name: value for name, value in values.items() if value is not None}}


class RunStarted(Event):
    """A run begins. `components` are labels (`name@host`) by start index.

    `undecided` are the names of those of which it is still to be decided on which host they run, see `ComponentPlaced`.
    """

    run: str
    session: str
    hosts: tuple[str, ...]
    components: dict[int, tuple[str, ...]]
    undecided: tuple[str, ...] | None = None


class HostConnecting(Event):
    """The connection to a host is being made."""


class HostConnected(Event):
    """A host is connected and its agent runs; `seconds` since it was asked for."""

    seconds: float


class HostFailed(Event):
    """A host could not be reached, trusted or authenticated, or cannot be worked with; `error` says why."""

    error: str


class HostMerged(Event):
    """`host` and `same_as` are two names of one machine and user; both are served over one connection."""

    same_as: str


class HostReleased(Event):
    """No component came to a host that came into question for some: it is let go of."""


class HostLost(Event):
    """The connection to a host broke after it was made."""

    error: str


class SessionQuit(Event):
    """What an earlier run left was ended: so many sessions with so many processes."""

    session: str
    sessions: int
    processes: int


class FilesCompared(Event):
    """What is on a host was compared with what should be there; `to_send` of `files` differ, of `bytes` bytes."""

    files: int
    to_send: int
    bytes: int


class FilesSending(Event):
    """How far the copying to a host is: so many of its files and bytes arrived, or were there already in part."""

    bytes: int
    of_bytes: int
    files: int = 0
    of_files: int = 0


class FilesSent(Event):
    """All files of a host are there: `sent` were sent, of `bytes` bytes, of which `sent_bytes` went over the wire: of
    large files only those pieces go that are not there already. Of the others, `modes` got other permission bits,
    `times` another modification time alone, and `unchanged` were left as they were; `hashed` of them had to be read on
    the host to know their SHA-1, which it remembered of the rest. `shared` were brought by the hosts `shared_with`,
    which see the same folder; this one has seen that they came. `links`, which are no files, were made.
    """

    files: int
    sent: int
    modes: int
    bytes: int
    seconds: float
    sent_bytes: int = 0
    times: int = 0
    unchanged: int = 0
    hashed: int = 0
    shared: int = 0
    shared_with: tuple[str, ...] = ()
    links: int = 0


class FilesDeleted(Event):
    """With `--delete`: so many files, links and folders that are gone here were deleted; `failed` could not be.

    `paths` are the first of all these there; those of folders end with a slash.
    """

    deleted: int
    failed: int
    paths: tuple[str, ...]


class ComponentPlaced(Event):
    """It was decided that a component runs on `host`, for which several came into question (`among`).

    `load`: the load per core there, with what was placed there before it; `score`: what the host scored, lower is
    better. `kept`: it ran there last, and stays. `why`: why it does not run any more where it ran last.
    """

    index: int
    among: str
    load: float
    score: float
    kept: bool
    why: str = ''


class ComponentStarting(Event):
    """The window of a component is being opened."""

    index: int


class ComponentStarted(Event):
    """A component's program runs: it was proven by its launcher. Where it is not `ready` yet, that is told later.

    `restarts`: how often its launcher has started it again. `seconds` count from its turn, or the end of the pause.
    """

    pid: int
    window: int
    seconds: float
    ready: bool = True
    restarts: int = 0


class ComponentKept(Event):
    """A component runs since an earlier run, has not changed, and goes on; `ready`: it has become ready, too."""

    pid: int
    window: int
    ready: bool


class ComponentReady(Event):
    """A component is ready, so many seconds after its turn came, or after the pause before a restart."""

    seconds: float


class ComponentSaid(Event):
    """What a component says of itself: STATUS of sd_notify(3)."""

    text: str


class ComponentFailed(Event):
    """A component did not start, or (while it was waited for) ended without success. `output`: its last lines."""

    reason: str
    output: str = ''


class ComponentRestarting(Event):
    """A component's program ended with `status`; its launcher starts it again in `pause` seconds.

    `restarts` counts this one; `reason` is there where it is more than the exit status.
    """

    status: int
    pause: float
    restarts: int
    reason: str = ''


class ComponentTroubled(Event):
    """A component runs on, but something is wrong: its output cannot be written, say."""

    reason: str


class ComponentExited(Event):
    """A component's program ended; `status` as a shell shows it (128 + n for signal n)."""

    status: int


class ComponentStopped(Event):
    """A component was ended by us, with all its descendants."""


class ComponentAborted(Event):
    """A component's start was given up before its program ran."""

    reason: str


class ComponentUnknown(Event):
    """Nobody can say whether a component runs; `reason` says what is known."""

    reason: str


class ResultsFetching(Event):
    """How far the fetching from a host is: so many of its files and bytes came."""

    bytes: int
    of_bytes: int
    files: int = 0
    of_files: int = 0


class ResultsFetched(Event):
    """What components of a host wrote is here: `files` came (`bytes` bytes), `unchanged` were here already.

    `folders`: the results folder of each component, by `name@host`.
    """

    files: int
    bytes: int
    unchanged: int
    seconds: float
    folders: dict[str, str]


class RunEnded(Event):
    """The run is over. `exit_status`: 0 done, 1 something failed, 2 usage, 3 a host, 130 interrupted."""

    run: str
    exit_status: int
    seconds: float


class CommandEnded(Event):
    """The last line of `stop`, `restart`, `wait` and `run NAMES` with `--json`: what came of the command.

    `components`: the state of each that it was about, by `name@host`; there are none where nothing was there to be
    stopped or waited for. `exit_status`: 0 done, 1 something failed, 2 usage, 3 a host, 124 the time is up, 130
    interrupted.
    """

    command: str
    session: str
    exit_status: int
    components: dict[str, str]


class CopyEnded(Event):
    """The last line of `copy` with `--json`: what came of it on all `hosts` together; `failed` says why some have not
    all of it: `interrupted`, where Ctrl-C came before they were through. The rest are sums of what `FilesSent` says;
    `sent_bytes` also counts what came to hosts that have not all. `exit_status`: 0 done, 1 something failed, 2 a SRC
    cannot be read or `--delete` was refused, 3 a host, 130 interrupted.
    """

    hosts: int
    failed: dict[str, str]
    exit_status: int
    files: int
    sent: int
    bytes: int
    sent_bytes: int
    seconds: float


Listener = Callable[[Event], None]


class Events:
    """The stream: hands each event to all listeners, one at a time, in one order for all, which is that of times."""

    #: Fields that hold text of programs and systems, in which a secret may stand.
    _FREE_TEXT = ('error', 'reason', 'output', 'text')

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._lock = threading.RLock()
        #: The time of the last event.
        self._latest = 0.0
        #: What makes secrets unreadable in such text; None: there are none.
        self.mask: Callable[[str], str] | None = None

    def listen(self, listener: Listener) -> None:
        """Call `listener` with every event from now on, from whichever thread it comes. It must not wait."""
        with self._lock:
            self._listeners.append(listener)

    def masked(self, text: str) -> str:
        """`text` without secrets."""
        return text if self.mask is None else self.mask(text)

    def emit(self, event: Event) -> None:
        """Something happened."""
        event = event.with_text(self.masked, self._FREE_TEXT)
        with self._lock:
            if event.time > self._latest - _OVERTAKEN:  # else the clock was set back
                event = event.not_before(self._latest)
            self._latest = event.time
            for listener in self._listeners:
                listener(event)
