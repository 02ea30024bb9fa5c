"""What a test does to a host, and sees of it, from outside: nothing of this goes over SSH."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.testbed.boot import Machine, switch_off, switch_on, wait_for_sshd
from tests.testbed.errors import TestbedError
from tests.testbed.furnish import FRESH, KEPT, SEARCH_PATH, authorize
from tests.testbed.mounts import Mounts
from tests.testbed.network import ip_batch
from tests.testbed.process import Process, wait_until

_NAMESPACES = ["--mount", "--uts", "--ipc", "--net", "--pid"]


class HostProcess(NamedTuple):
    """A process as the host itself sees it; a parent outside of the host is 0."""

    pid: int
    ppid: int
    argv: list[str]


@dataclass(frozen=True)
class Account:
    """A line of the host's passwd(5)."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


class TestHost:
    """One host of a bed. Methods that need it switched on raise TestbedError when it is off."""

    __test__ = False  # pytest takes every class called Test… for a test

    port = 22

    def __init__(self, machine: Machine, key: Path) -> None:
        self.machine = machine
        self._key = key
        self._mounts = Mounts(self)
        self._unshare: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<TestHost {self.name} {self.address}{'' if self.machine.init else ' off'}>"

    @property
    def name(self) -> str:
        return self.machine.name

    @property
    def address(self) -> str:
        return self.machine.network.address(self.machine.number)

    @property
    def init(self) -> Process:
        """The host's first process, as this machine sees it."""
        init = self.machine.init
        if init is None:
            raise TestbedError(f"{self.name} is off")
        return init

    # Its files and processes

    @property
    def root(self) -> Path:
        """The host's `/` as long as it is on. Mind absolute links in there: this machine follows them in its own tree."""
        return Path(f"/proc/{self.init.pid}/root")

    def path(self, path: str) -> Path:
        """Where this machine sees a file of the host. For files on the host's own disk (/root, /home, /tmp, …) this holds while
        the host is off, too.
        """
        is_private = any(path == f"/{folder}" or path.startswith(f"/{folder}/") for folder in KEPT | FRESH)
        if is_private and not self._mounts.covers(path):
            return self.machine.on_disk(path)
        return self.root / path.lstrip("/")

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        input: bytes | None = None,
        user: str | None = None,
        timeout: float = 30,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program in the host, in the user's home, by default as root, and return its output.

        Raises subprocess.CalledProcessError, with what it wrote to standard error as a note, when `check` and it fails. On
        TimeoutExpired the program is killed.
        """
        command, environment = self.entry(argv, user)
        done = subprocess.run(command, input=input or b"", capture_output=True, timeout=timeout, env=environment)
        if check and done.returncode:
            error = subprocess.CalledProcessError(done.returncode, list(argv), done.stdout, done.stderr)
            error.add_note(f"{self.name}: {done.stderr.decode(errors='replace').strip()}")
            raise error
        return done

    def entry(self, argv: Sequence[str], user: str | None = None) -> tuple[list[str], dict[str, str]]:
        """The command of this machine that runs argv in the host, and the environment to give it."""
        account = self.account(user or "root")
        become = [f"--reuid={account.uid}", f"--regid={account.gid}", "--init-groups"] if user else []
        nsenter = ["nsenter", f"--target={self.init.pid}", *_NAMESPACES, f"--wdns={account.home}"]
        environment = {
            "PATH": SEARCH_PATH,
            "HOME": account.home,
            "USER": account.name,
            "LOGNAME": account.name,
            "SHELL": account.shell,
            "TERM": os.environ.get("TERM", "dumb"),
        }
        return [*nsenter, "setpriv", "--pdeathsig=KILL", *become, "--", *argv], environment

    def processes(self) -> list[HostProcess]:
        """What runs in the host beyond what a host is made of: its init, and the sshd that listens."""
        own = {"1", self._number("run/testbed/sleeper"), self._number("run/sshd.pid")}
        found = []
        for folder in (self.root / "proc").iterdir():
            if folder.name.isdigit() and folder.name not in own:
                try:
                    name, _, fields = (folder / "stat").read_text().partition("(")[2].rpartition(")")
                    argv = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
                except (FileNotFoundError, ProcessLookupError):
                    continue
                found.append(HostProcess(int(folder.name), int(fields.split()[1]), argv or [f"[{name}]"]))
        return sorted(found)

    # Its cable and its power

    def cut(self) -> None:
        """Pull the cable: from now on packets to and from the host vanish."""
        ip_batch([f"link set {self._link()} down"])

    def heal(self) -> None:
        """Plug the cable in again."""
        ip_batch([f"link set {self._link()} up"])

    def kill(self) -> None:
        """Pull the plug. All processes end at once, and nobody hears a farewell: the cable goes first."""
        init = self.init
        ip_batch([f"link delete {self.machine.link}"])
        switch_off(init)
        self.wait_off()

    def boot(self) -> None:
        """Switch a killed host on: same address, key, users, /root and /home; /tmp and /run are empty. What a test has mounted
        is mounted again, what it has hidden is hidden again.
        """
        if self.machine.init:
            raise TestbedError(f"{self.name} is on already")
        [unshare] = switch_on([self.machine])
        self.came_up(unshare)
        self._mounts.restore()

    # Its sshd

    def stop_sshd(self, *, sessions: bool = False) -> None:
        """Stop the sshd that listens: new connections are refused. With `sessions` those there are die as well."""
        pid = self._number("run/sshd.pid")
        if pid is None:
            raise TestbedError(f"{self.name}: sshd is stopped already")
        self._kill("TERM", [pid])
        if sessions:
            self._kill("KILL", [str(process.pid) for process in self.processes() if process.argv[0].startswith("sshd")])

    def start_sshd(self, options: Mapping[str, str | int] | None = None) -> None:
        """Start sshd, with options of sshd_config(5) that go before those it has."""
        if self._number("run/sshd.pid"):
            raise TestbedError(f"{self.name}: sshd runs already")
        given = [argument for key, value in (options or {}).items() for argument in ("-o", f"{key}={value}")]
        self.run(["/usr/sbin/sshd", *given])
        wait_for_sshd(self.machine)

    # Its users

    def account(self, user: str) -> Account:
        """The user's line in the host's /etc/passwd."""
        for line in self.path("/etc/passwd").read_text().splitlines():
            name, _, uid, gid, _, home, shell = line.split(":")
            if name == user:
                return Account(name, int(uid), int(gid), home, shell)
        raise TestbedError(f"{self.name} has no user {user!r}")

    def add_user(self, name: str, shell: str = "/bin/bash", password: str | None = None) -> str:
        """Add a user whom the bed's key lets in, and return the home inside of the host."""
        # Without a password, but not locked either: sshd refuses locked accounts even with a key.
        self.run(["useradd", "--create-home", "--password=*", f"--shell={shell}", name])
        account = self.account(name)
        authorize(self.path(account.home), self._key.with_suffix(".pub").read_text(), account.uid, account.gid)
        if password is not None:
            self.set_password(name, password)
        return account.home

    def set_shell(self, shell: str, user: str = "root") -> None:
        self.run(["usermod", f"--shell={shell}", user])

    def set_password(self, user: str, password: str) -> None:
        self.run(["chpasswd", "--crypt-method=SHA256"], input=f"{user}:{password}\n".encode())

    # What is there and what is not

    def hide(self, program: str) -> None:
        """Take a program away, in all versions (`python3` is python3.11 too): "command not found", until `unhide`."""
        self._mounts.hide(program)

    def unhide(self, program: str) -> None:
        self._mounts.unhide(program)

    def tmpfs(self, path: str, size: str = "1M") -> None:
        """Mount an empty file system of this size, which can be filled up; the folder is made when missing."""
        self._mounts.tmpfs(path, size)

    def share(self, path: str, folder: Path) -> None:
        """Mount a folder (or file) of this machine; given to several hosts, it is their shared file system."""
        self._mounts.share(path, folder)

    # For the bed

    def came_up(self, unshare: subprocess.Popen[bytes]) -> None:
        """Keep the process under which the host runs."""
        self._unshare = unshare

    def wait_off(self) -> None:
        """Reap that process, if it is ours."""
        if self._unshare:
            self._unshare.wait()
            self._unshare = None

    def _link(self) -> str:
        _ = self.init
        return self.machine.link

    def _number(self, file: str) -> str | None:
        """The pid in a file on the host's disk, None when there is no such file."""
        try:
            return self.machine.on_disk(file).read_text().strip()
        except FileNotFoundError:
            return None

    def _kill(self, signal: str, pids: Sequence[str]) -> None:
        proc = self.root / "proc"
        if pids:
            self.run(["kill", f"-{signal}", *pids], check=False)  # some may be gone already
            wait_until(lambda: not any((proc / pid).exists() for pid in pids), f"{self.name}: the end of {' '.join(pids)}")
