"""When a component is ready: what users assign to `component.ready`.

    component.ready = ready.tcp(7000)                    # something listens there
    component.ready = ready.http('http://localhost:8080/health', status=200)
    component.ready = ready.log('listening on port [0-9]+')
    component.ready = ready.file('run/server.sock')
    component.ready = ready.command(['./check', '--fast'], interval=0.5)
    component.ready = ready.notify()                     # it says so itself: sd_notify(3)

All checks run on the component's host, from its start until it is ready. The values are checked with those of all
other attributes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ['Ready', 'command', 'file', 'http', 'log', 'notify', 'tcp']

#: Seconds between two runs of a command that looks whether a component is ready.
INTERVAL = 1.0


class Ready(NamedTuple):
    """One way to tell that a component is ready: its kind, and what belongs to it."""

    kind: str
    values: dict[str, Any]

    def __repr__(self) -> str:
        """As it is written in a config."""
        return f'ready.{self.kind}({", ".join(f"{name}={value!r}" for name, value in self.values.items())})'


def notify() -> Ready:
    """The program says so itself: `READY=1` to the socket that NOTIFY_SOCKET names (sd_notify(3))."""
    return Ready('notify', {})


def tcp(port: int, host: str = 'localhost') -> Ready:
    """Something accepts connections there.

    Args:
        port: 1 to 65535.
        host: name or address, as the component's host knows it.
    """
    return Ready('tcp', {'port': port, 'host': host})


def http(url: str, status: int = 200) -> Ready:
    """A GET request is answered with this status; redirections are not followed.

    Args:
        url: `http://` or `https://` (whose certificate is not checked: it is the component's own host).
        status: 100 to 599.
    """
    return Ready('http', {'url': url, 'status': status})


def log(regex: str) -> Ready:
    """Its output matches a regular expression (re.search on each line, without escape sequences of terminals)."""
    return Ready('log', {'regex': regex})


def command(argv: Iterable[str], interval: float = INTERVAL) -> Ready:
    """A command ends with status 0; it runs in `base_dir`, with the environment of the component.

    Args:
        argv: its words; a relative path with a slash in it is relative to `base_dir`.
        interval: seconds between the end of one run and the next.
    """
    return Ready('command', {'argv': argv, 'interval': interval})


def file(path: str) -> Ready:
    """A file or folder of this path is there; a relative one is relative to `base_dir`. One that is there before the
    start counts only once it has been changed.
    """
    return Ready('file', {'path': path})
