"""The engine that brings files, against an agent of this machine: folders `here` and `there`, and what came of it."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from remote_runner.files.compare import Difference, compare
from remote_runner.files.limit import Limit
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import Placed, build_manifest
from remote_runner.files.transfer import send
from remote_runner.hosts.call import Header
from remote_runner.hosts.connection import Channel, Connection
from remote_runner.hosts.host import Host
from remote_runner.hosts.local import LocalChannel, LocalConnection

MTIME = 10**18 + 123456789
PATIENCE = 60_000  # ms; the longest that an agent may take to end, never what it should take


def ignore(host: Host, header: Header) -> None:
    """Nothing that an agent says unasked matters here."""


def silent(done: int, total: int, files: int, of_files: int) -> None:
    """Nobody watches."""


class Hook(Limit):
    """Calls something before each part is sent, with the bytes in it, and limits nothing."""

    def __init__(self, hear: Callable[[int], object]) -> None:
        super().__init__(1 << 40)
        self._hear = hear

    def __call__(self, size: int) -> None:
        self._hear(size)


def write(path: Path, content: str | bytes = 'content\n', mode: int = 0o644, mtime: int = MTIME) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    os.utime(path, ns=(mtime, mtime))
    return path


def sha1(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha1').hexdigest()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def facts(folder: Path, times: bool = True) -> dict[bytes, Any]:
    """All below a folder: of files mode, time and content, of links their text, of folders that they are some."""
    found: dict[bytes, Any] = {}
    root = os.fsencode(folder)
    for path, folders, files in os.walk(root):
        for name in (*folders, *files):
            one = os.path.join(path, name)
            status = os.lstat(one)
            if stat.S_ISLNK(status.st_mode):
                found[os.path.relpath(one, root)] = os.readlink(one)
            elif stat.S_ISDIR(status.st_mode):
                found[os.path.relpath(one, root)] = 'folder'
            else:
                digest = sha1(Path(os.fsdecode(one)))
                found[os.path.relpath(one, root)] = (
                    stat.S_IMODE(status.st_mode),
                    status.st_mtime_ns if times else 0,
                    digest,
                )
    return found


def placed(here: Path, there: str | Path) -> list[Placed]:
    """A whole tree: links stay links, and each folder is named itself."""
    found = []
    for path, folders, files in os.walk(here):
        for name in sorted([*folders, *files]):
            one = os.path.join(path, name)
            kind = 'link' if os.path.islink(one) else 'folder' if os.path.isdir(one) else 'file'
            found.append(Placed(one, os.path.join(there, os.path.relpath(one, here)), kind))
    return found


def rubbish(*folders: Path) -> list[str]:
    """What is left below of copies that are not whole."""
    return [
        os.path.join(path, name)
        for folder in folders
        for path, _, names in os.walk(folder)
        for name in names
        if name.startswith(('.rr-', 'copying-'))
    ]


def wait_for_end(pid: int) -> None:
    """Wait until a process that may be nobody's child here is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(PATIENCE), f'{pid} does not end'
    finally:
        os.close(pidfd)


class Brought(NamedTuple):
    """What was found different, and how many bytes were sent."""

    difference: Difference
    sent: int

    def names(self, there: Path) -> dict[str, set[str]]:
        """What was to be done, by paths below `there`."""
        found = {'send': [entry.remote for entry in self.difference.send]}
        for what in ('modes', 'times', 'links'):
            found[what] = [path for path, _ in getattr(self.difference, what)]
        return {what: {os.path.relpath(path, there) for path in paths} for what, paths in found.items()}


@dataclass
class Lab:
    """A home, a folder `here` whose files are to stand in `there`, and the ways to bring them."""

    folder: Path
    always_copy: bool = False
    times: bool = True
    remembered: bool = True
    #: Makes the connection to the host.
    connect: Callable[[], Connection] = LocalConnection
    #: Called between looking and sending.
    between: Callable[[], object] = lambda: None
    #: Called before each part is sent, with the bytes in it; and with the host, before anything is asked.
    limit: Callable[[int], object] = lambda size: None
    met: Callable[[Host], object] = lambda host: None
    here: Path = field(init=False)
    there: Path = field(init=False)
    home: Path = field(init=False)

    def __post_init__(self) -> None:
        self.here, self.there, self.home = (self.folder / name for name in ('here', 'there', 'home'))
        for path in (self.here, self.there, self.home):
            path.mkdir(parents=True, exist_ok=True)

    def bring(self, what: Iterable[Placed] | None = None) -> Brought:
        """Bring all of `here` to `there`, or `what`; the agent is gone when this returns."""
        with Host('localhost', self.connect(), ignore) as host:
            try:
                self.met(host)
                return self.bring_to(host, what)
            finally:
                host.close()
                self.wait_for(host)

    def wait_for(self, host: Host) -> None:
        """Wait for the end of an agent."""
        if host.facts.pid != os.getpid():
            wait_for_end(host.facts.pid)

    def bring_to(self, host: Host, what: Iterable[Placed] | None = None) -> Brought:
        """The same over a connection that stays."""
        local = LocalFiles(remembered=self.remembered, times=self.times)
        manifest = build_manifest(local, placed(self.here, self.there) if what is None else what)
        difference = compare(host, manifest, local, always_copy=self.always_copy)
        self.between()
        sent = send(host, manifest, difference, local, silent, Hook(self.limit))
        local.save()
        return Brought(difference, sent)

    def is_equal(self) -> None:
        """Both sides are, and nothing is left of copies."""
        assert facts(self.there, self.times) == facts(self.here, self.times)
        assert self.rubbish() == []

    def rubbish(self) -> list[str]:
        return rubbish(self.there, self.home / '.cache')

    def copies(self) -> list[Path]:
        """The copies that were interrupted."""
        return sorted(Path(path) for path in rubbish(self.there))


class Cut(LocalConnection):
    """A connection that breaks after so many writes and bytes of the next one, once it is `armed`."""

    def __init__(self, writes: int, part: float) -> None:
        super().__init__()
        self.writes = writes
        self.part = part
        self.is_armed = False
        self.is_cut = False

    def open(self, command: str) -> LocalChannel:
        channel: Any = _CutChannel(super().open(command), self)
        return channel


class Deaf(LocalConnection):
    """A connection to an agent that is killed when we have heard of it so many times since its `pid` was told."""

    def __init__(self, reads: int) -> None:
        super().__init__()
        self.reads = reads
        self.pid = 0
        self.is_cut = False

    def open(self, command: str) -> LocalChannel:
        channel: Any = _DeafChannel(super().open(command), self)
        return channel


class _DeafChannel:
    def __init__(self, channel: Channel, deaf: Deaf) -> None:
        self._channel = channel
        self._deaf = deaf

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def read(self, *arguments: Any, **options: Any) -> Any:
        heard = self._channel.read(*arguments, **options)
        deaf = self._deaf
        if deaf.pid and not deaf.is_cut:
            deaf.is_cut = deaf.reads == 0
            deaf.reads -= 1
            if deaf.is_cut:
                os.kill(deaf.pid, signal.SIGKILL)
        return heard


class _CutChannel:
    def __init__(self, channel: Channel, cut: Cut) -> None:
        self._channel = channel
        self._cut = cut

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def write(self, data: bytes | memoryview) -> None:
        cut = self._cut
        if cut.is_armed and not cut.is_cut:
            if cut.writes == 0:
                cut.is_cut = True
                self._channel.write(memoryview(data)[: int(len(data) * cut.part)])
                self._channel.close()
            cut.writes -= 1
        self._channel.write(data)
