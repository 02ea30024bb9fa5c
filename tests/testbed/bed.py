"""A bed: hosts, their network, the key that opens them, and the ssh_config that names them, from up to down."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from tests.testbed import registry
from tests.testbed.boot import Machine, switch_on
from tests.testbed.errors import TestbedError
from tests.testbed.furnish import furnish, write_private
from tests.testbed.host import TestHost
from tests.testbed.keys import Key
from tests.testbed.network import MOST_HOSTS
from tests.testbed.registry import Claim

_REPOSITORY = Path(__file__).resolve().parents[2]

_SSH_CONFIG = """\
Host h*
    User root
    IdentityFile {key}
    IdentitiesOnly yes
    UserKnownHostsFile {known_hosts}
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
"""


class Testbed:
    """`count` hosts named h1, h2, …, up from here on to `down()` or the end of the `with` block.

    The bed goes with the process that made it, however that ends, unless it is disowned. Raises TestbedError.
    """

    __test__ = False  # pytest takes every class called Test… for a test

    hosts: list[TestHost]
    _claim: Claim
    _watcher: subprocess.Popen[bytes] | None

    def __init__(self, count: int = 3, *, name: str | None = None) -> None:
        if os.geteuid() != 0:
            raise TestbedError("a test bed needs root, for its hosts are namespaces of this machine: try sudo")
        if not 1 <= count <= MOST_HOSTS:
            raise TestbedError(f"a bed has 1 to {MOST_HOSTS} hosts, not {count}")
        self._settle(registry.claim(name, count))
        try:
            self._watcher = self._watch()
            self._furnish()
            self._claim.network.create()
            starts = switch_on([host.machine for host in self.hosts])
            for host, unshare in zip(self.hosts, starts, strict=True):
                host.came_up(unshare)
        except BaseException:
            self.down()
            raise

    @classmethod
    def up(cls, count: int = 3, *, name: str | None = None) -> Testbed:
        """The same as Testbed(count), for those who call `down` themselves."""
        return cls(count, name=name)

    @classmethod
    def open(cls, name: str) -> Testbed:
        """A bed that is up already, whoever brought it up."""
        bed = cls.__new__(cls)
        bed._settle(registry.find(name))
        return bed

    def __enter__(self) -> Testbed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def __getitem__(self, name: str) -> TestHost:
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)

    def __repr__(self) -> str:
        return f"<Testbed {self.name}: {len(self.hosts)} hosts in {self._claim.network.subnet}>"

    @property
    def name(self) -> str:
        return self._claim.name

    @property
    def directory(self) -> Path:
        """The bed's own folder, which goes with the bed."""
        return self._claim.directory

    @property
    def ssh_config(self) -> Path:
        """For `ssh -F`: names the hosts, the key, and the host keys."""
        return self.directory / "ssh_config"

    @property
    def key(self) -> Path:
        """The private key that opens every host, without passphrase; key.pub is beside it."""
        return self.directory / "key"

    @property
    def known_hosts(self) -> Path:
        """The host keys, by name and by address."""
        return self.directory / "known_hosts"

    def down(self) -> None:
        """End and remove everything; a bed that is down already is fine."""
        registry.remove(self._claim)
        for host in self.hosts:
            host.reap()
        self._dismiss_watcher()

    def disown(self) -> None:
        """Let the bed outlive this process, until someone takes it down."""
        self._claim = replace(self._claim, owner=None)
        self._claim.write()
        self._dismiss_watcher()

    def _settle(self, claim: Claim) -> None:
        """Know the hosts of this bed, up or not."""
        self._claim = claim
        self._watcher = None
        self.hosts = [
            TestHost(Machine(f"h{number}", number, claim.network, claim.directory / f"h{number}"), self.key)
            for number in range(1, claim.count + 1)
        ]

    def _furnish(self) -> None:
        """Write the bed's keys and tables, and the folders of its hosts."""
        key = Key.generate()
        write_private(self.key, key.private)
        self.key.with_suffix(".pub").write_text(f"{key.public} {self.name}\n")
        addresses = {host.name: host.address for host in self.hosts}
        host_keys = {host.name: Key.generate() for host in self.hosts}
        for host in self.hosts:
            furnish(host.machine.directory, host.name, addresses, host_keys[host.name], key.public)
        self.known_hosts.write_text(
            "".join(f"{host.name},{host.address} {host_keys[host.name].public}\n" for host in self.hosts)
        )
        self.ssh_config.write_text(
            "".join(f"Host {name}\n    HostName {address}\n" for name, address in addresses.items())
            + _SSH_CONFIG.format(key=self.key, known_hosts=self.known_hosts)
        )

    def _watch(self) -> subprocess.Popen[bytes]:
        """Start a process that takes the bed down when we are gone: it waits for the end of a pipe only we hold."""
        return subprocess.Popen(
            ["sh", "-c", 'read -r _; exec "$@"', "sh", sys.executable, "-m", "tests.testbed", "down", self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=_REPOSITORY,
            start_new_session=True,
        )

    def _dismiss_watcher(self) -> None:
        if self._watcher:
            self._watcher.kill()
            self._watcher.communicate()
            self._watcher = None
