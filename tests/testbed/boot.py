"""Switching hosts on and off. Many start at once: their steps overlap, and what `ip` does for them comes in batches."""

from __future__ import annotations

import select
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.testbed.errors import TestbedError
from tests.testbed.furnish import SEARCH_PATH, freshen
from tests.testbed.network import Network, ip_batch
from tests.testbed.process import PATIENCE, Process, wait_until, write_whole

_INIT = Path(__file__).with_name("init.sh")
_UNSHARE = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"]


@dataclass(frozen=True)
class Machine:
    """The hardware of a host, there whether the host is on or off.

    Its folder holds the host's disk, and in `init` the pid and start time of the host's first process.
    """

    name: str
    number: int
    network: Network
    directory: Path

    @property
    def link(self) -> str:
        """The end of the cable at the bridge."""
        return self.network.link(self.number)

    @property
    def init(self) -> Process | None:
        """The host's init, None while the host is off."""
        return read_init(self.directory)

    def on_disk(self, path: str) -> Path:
        """Where this machine keeps a file of the host's private folders."""
        return self.directory / path.lstrip("/")


def read_init(directory: Path) -> Process | None:
    """The init of the host whose folder this is, None while the host is off."""
    try:
        pid, start = (directory / "init").read_text().split()
    except FileNotFoundError:
        return None
    init = Process(int(pid), int(start))
    return init if init.is_alive else None


def switch_on(machines: Sequence[Machine]) -> list[subprocess.Popen[bytes]]:
    """Start these hosts and return when the sshd of each listens. Raises TestbedError with the words of one that fails.

    Returns for each host the unshare(1) it runs under, which is to be waited for once the host is off.
    """
    with ExitStack() as on_failure:
        starts = []
        for machine in machines:
            starts.append(start := _Start(machine))
            on_failure.callback(start.give_up)
        ip_batch([start.cable() for start in starts])
        for start in starts:
            start.proceed()
        for start in starts:
            start.wait_for_sshd()
        ip_batch([command for machine in machines for command in machine.network.plug_in(machine.number)])
        on_failure.pop_all()
    return [start.unshare for start in starts]


def switch_off(init: Process) -> None:
    """End all processes of the host whose init this is at once, as when the power fails."""
    init.kill()
    wait_until(lambda: not init.is_alive, f"the end of the host of process {init.pid}")


def wait_for_sshd(machine: Machine) -> None:
    """Return when sshd has written its pid file, which it does once it listens."""
    wait_until(machine.on_disk("run/sshd.pid").exists, f"{machine.name}: sshd to listen")


class _Start:
    """A host on its way up: this machine's side of the talk with init.sh."""

    def __init__(self, machine: Machine) -> None:
        freshen(machine.directory, machine.network, machine.number)
        self._machine = machine
        self._log = machine.directory / "boot.log"
        with self._log.open("wb") as log:
            self.unshare = subprocess.Popen(
                [*_UNSHARE, "sh", _INIT, machine.directory, machine.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"PATH": SEARCH_PATH},
                cwd="/",
                start_new_session=True,  # a Ctrl-C at the terminal is not for the hosts
            )

    def cable(self) -> str:
        """Learn the host's init, and return the ip command that gives the host its eth0."""
        init = Process.of(int(self._hear()))
        write_whole(self._machine.directory / "init", f"{init.pid} {init.start}")
        return self._machine.network.cable(self._machine.number, init.pid)

    def proceed(self) -> None:
        assert self.unshare.stdin is not None
        with self.unshare.stdin as to_init:
            to_init.write(b"eth0\n")

    def wait_for_sshd(self) -> None:
        assert self.unshare.stdout is not None
        self._hear()
        self.unshare.stdout.close()
        wait_for_sshd(self._machine)

    def give_up(self) -> None:
        self.unshare.kill()  # and with it the host, by --kill-child
        self.unshare.wait()

    def _hear(self) -> bytes:
        """The next line from init.sh."""
        assert self.unshare.stdout is not None
        poll = select.poll()
        poll.register(self.unshare.stdout, select.POLLIN)
        line = self.unshare.stdout.readline() if poll.poll(PATIENCE * 1000) else b""
        if not line:
            words = self._log.read_text().strip() or "it says nothing"
            raise TestbedError(f"{self._machine.name} did not start: {words}")
        return line
