"""The hosts of a cluster as the user wrote them: where that is found, and when it has changed.

They are written as hosts are everywhere (`hosts/address.py`), one or more a line:

    node[1-8]
    node9 2.0         # half as fast: its load counts twice
    node10 1 4        # its memory counts a quarter
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from remote_runner.errors import RemoteRunnerError, UsageError
from remote_runner.hosts.address import Address, is_file, parse_hosts

#: The environment variable that holds the cluster, in all forms of `-H`.
VARIABLE = 'RR_CLUSTER'
#: Seconds between two looks at a file.
LOOK = 2.0
#: When a file was changed, its size and number; None: it cannot be seen.
Stamp = tuple[int, int, int] | None


class ClusterFile:
    """Where the hosts are written.

    Args:
        texts: as for `parse_hosts`; paths of files (`@FILE`) are absolute.
        exclude: hosts that are left out.
        source: what messages call it.
    """

    def __init__(self, texts: Sequence[str], exclude: Sequence[str] = (), source: str = '-H') -> None:
        self._texts = tuple(texts)
        self._exclude = tuple(exclude)
        self.source = source
        self._taken: list[Stamp] = []
        self._seen: list[Stamp] = []

    @property
    def where(self) -> str:
        """The hosts, or paths of files, that mean the same in any folder."""
        return ' '.join(text.removeprefix('@') for text in self._texts)

    def read(self) -> list[Address]:
        """The hosts.

        Raises:
            AddressError: one cannot be understood, or a file cannot be read.
            UsageError: there is none.
        """
        self._taken = self._seen = self._stamps()
        addresses = parse_hosts(self._texts, self._exclude)
        if not addresses:
            raise UsageError(f'{self.source} has no host', remedy='write one or more a line, as in node[1-8]')
        return addresses

    def reread(self) -> list[Address] | None:
        """The hosts, if they were written anew and are not just being written; None: they were not.

        Raises:
            AddressError, UsageError: the new version is wrong; it is told once.
        """
        before, self._seen = self._seen, self._stamps()
        if self._seen == self._taken or self._seen != before:
            return None
        return self.read()

    def _stamps(self) -> list[Stamp]:
        return [_stamp(text[1:]) for text in self._texts if text.startswith('@')]


def find(texts: Sequence[str] = (), exclude: Sequence[str] = ()) -> ClusterFile:
    """The cluster that `texts` (of `-H`) say, else the environment, else the user's own file.

    Args:
        texts: hosts, or paths of files, with or without `@`.
        exclude: hosts that are left out.

    Raises:
        UsageError: there is none.
    """
    if texts:
        return ClusterFile([_absolute(text) for text in texts], exclude, ' '.join(texts))
    if os.environ.get(VARIABLE):
        return ClusterFile([_absolute(os.environ[VARIABLE])], exclude, f'{VARIABLE} ({os.environ[VARIABLE]})')
    path = default_path()
    if path.is_file():
        return ClusterFile([f'@{path}'], exclude, str(path))
    raise UsageError(f'which hosts? There is no -H, no {VARIABLE}, and no file {path}', remedy='write one host a line')


def default_path() -> Path:
    """The user's own file."""
    home = os.environ.get('XDG_CONFIG_HOME')
    return (Path(home) if home else Path('~/.config').expanduser()) / 'remote_runner/cluster'


def _absolute(text: str) -> str:
    """The path of a file means the file, as `@FILE` does; whoever reads it later may be in another folder."""
    is_marked = text.startswith('@')
    path = Path(text.removeprefix('@')).expanduser()
    if not is_marked and not is_file(path):
        if '/' in text and ',' not in text and not text.partition('/')[0].isdigit():  # 4/node1: slots
            raise UsageError(f'{text}: no such file')
        return text
    return f'@{path.absolute()}' if text != '@' else text


def _stamp(path: str) -> Stamp:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


class Following:
    """Looks at a cluster file again and again, while the `with` block lasts.

    Args:
        file: that was read.
        take: called with the hosts when they were written anew.
        tell: called with what is wrong with a new version, which is not taken.
        interval: seconds between two looks.
    """

    def __init__(
        self,
        file: ClusterFile,
        take: Callable[[list[Address]], None],
        tell: Callable[[RemoteRunnerError], None],
        interval: float = LOOK,
    ) -> None:
        self._file = file
        self._take = take
        self._tell = tell
        self._interval = interval
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name='cluster file', daemon=True)

    def __enter__(self) -> Following:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(self._interval):
            try:
                addresses = self._file.reread()
            except RemoteRunnerError as error:
                self._tell(error)
            else:
                if addresses is not None:
                    self._take(addresses)
