"""What a test does to a host, and sees of it, from outside: nothing of this goes over SSH."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import NamedTuple

from tests.testbed.boot import Machine, switch_off, switch_on, wait_for_sshd
from tests.testbed.errors import TestbedError
from tests.testbed.furnish import SEARCH_PATH, authorize, is_private
from tests.testbed.mounts import Mounts
from tests.testbed.network import ip_batch
from tests.testbed.process import Process, children, wait_until

_SSHD_PID, _SLEEPER_PID = "run/sshd.pid", "run/testbed/sleeper"
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
            raise self._is_off()
        return init

    # Its files and processes

    @property
    def root(self) -> Path:
        """The host's `/` while it is on. Mind absolute links in there: this machine follows them in its own tree."""
        return Path(f"/proc/{self.init.pid}/root")

    def path(self, path: str) -> Path:
        """Where this machine sees a file of the host.

        For files on the host's own disk (/root, /home, /tmp, …) this holds while the host is off, too.
        """
        if is_private(path) and not self._mounts.covers(path):
            return self.machine.on_disk(path)
        return self.root / path.lstrip("/")

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        input: bytes | None = None,  # noqa: A002  (named as in subprocess.run)
        user: str | None = None,
        timeout: float = 30,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program in the host, in the user's home, by default as root, and return its output.

        Raises subprocess.CalledProcessError when `check` and it fails, with a note of what it wrote to standard error;
        subprocess.TimeoutExpired after `timeout` seconds, when it is killed.
        """
        command, environment = self.entry(argv, user)
        with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment) as nsenter:
            try:
                stdout, stderr = nsenter.communicate(input, timeout)
            except BaseException:
                programs = children(nsenter.pid)
                for program in programs:  # rather than nsenter, which is to reap it
                    program.kill()
                if not programs:
                    nsenter.kill()
                raise
        if check and nsenter.returncode:
            error = subprocess.CalledProcessError(nsenter.returncode, list(argv), stdout, stderr)
            error.add_note(f"{self.name}: {stderr.decode(errors='replace').strip()}")
            raise error
        return subprocess.CompletedProcess(list(argv), nsenter.returncode, stdout, stderr)

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
        own = {"1", self._number(_SLEEPER_PID), self._listener()}
        found = []
        for folder in (self.root / "proc").iterdir():
            if folder.name.isdigit() and folder.name not in own:
                with suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
                    found.append(_read_process(folder))
        return sorted(found)

    # Its cable and its power

    def cut(self) -> None:
        """Pull the cable: from now on packets to and from the host vanish."""
        self._on_cable(self.machine.network.cut(self.machine.number))

    def heal(self) -> None:
        """Plug the cable in again."""
        self._on_cable(self.machine.network.heal(self.machine.number))

    def kill(self) -> None:
        """Pull the plug. All processes end at once, and nobody hears a farewell: the cable goes first."""
        init = self.init
        ip_batch([f"link delete {self.machine.link}"])
        switch_off(init)
        self.reap()

    def boot(self) -> None:
        """Switch a killed host on: same address, key, users, /root and /home; /tmp and /run are empty.

        What was mounted or hidden through this object is so again.
        """
        if self.machine.init:
            raise TestbedError(f"{self.name} is on already")
        [unshare] = switch_on([self.machine])
        self.came_up(unshare)
        self._mounts.restore()

    # Its sshd

    def stop_sshd(self, *, sessions: bool = False) -> None:
        """Stop the sshd that listens: new connections are refused. With `sessions` those there are die as well."""
        pid = self._listener()
        if pid is None:
            raise TestbedError(f"{self.name}: sshd is stopped already")
        self._kill("TERM", [pid])
        if sessions:
            self._kill("KILL", [str(process.pid) for process in self.processes() if process.argv[0].startswith("sshd")])

    def start_sshd(self, options: Mapping[str, str | int] | None = None) -> None:
        """Start sshd, with options of sshd_config(5) that go before those it has."""
        if self._listener():
            raise TestbedError(f"{self.name}: sshd runs already")
        self.machine.on_disk(_SSHD_PID).unlink(missing_ok=True)
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

    def reap(self) -> None:
        """End that process, if it is ours; it has ended with the host, unless someone deleted the bed's folder."""
        if self._unshare:
            for init in children(self._unshare.pid):
                switch_off(init)
            self._unshare.wait()
            self._unshare = None

    def _on_cable(self, command: str) -> None:
        if self.machine.init is None:
            raise self._is_off()
        ip_batch([command])

    def _is_off(self) -> TestbedError:
        return TestbedError(f"{self.name} is off")

    def _listener(self) -> str | None:
        """The pid of the sshd that listens, None when it is stopped."""
        pid = self._number(_SSHD_PID)
        return pid if pid and (self.root / "proc" / pid).exists() else None

    def _number(self, file: str) -> str | None:
        """The pid in a file on the host's disk, None when there is no such file."""
        try:
            return self.machine.on_disk(file).read_text().strip()
        except FileNotFoundError:
            return None

    def _kill(self, signal: str, pids: Sequence[str]) -> None:
        """Send the signal, and wait for the end of these processes."""
        if pids:
            proc = self.root / "proc"
            self.run(["kill", f"-{signal}", *pids], check=False)  # some may be gone already
            what = f"{self.name}: the end of {' '.join(pids)}"
            wait_until(lambda: not any((proc / pid).exists() for pid in pids), what)


def _read_process(folder: Path) -> HostProcess:
    """The process of this folder of /proc; one that is dead but not reaped goes by its name in brackets, as in ps."""
    name, _, fields = (folder / "stat").read_text().partition("(")[2].rpartition(")")
    argv = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    return HostProcess(int(folder.name), int(fields.split()[1]), argv or [f"[{name}]"])
