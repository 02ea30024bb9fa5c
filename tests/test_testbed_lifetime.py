"""Beds come up beside each other, go down with their owner, and leave nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE
from typing import NamedTuple

import pytest

from tests.openssh import output, ssh
from tests.testbed import Testbed, TestbedError, registry
from tests.testbed.__main__ import main as command_line
from tests.testbed.process import Process, wait_until

FreshBed = Callable[..., Testbed]
REPOSITORY = Path(__file__).parents[1]


def test_beds_do_not_meet(bed: Testbed, fresh_bed: FreshBed) -> None:
    other = fresh_bed(1, name=unique("other"))
    assert other.directory != bed.directory
    other["h1"].path("/root/note").write_text("in other")
    assert output(other, "h1", "cat note; rm note") == "in other"
    assert not bed["h1"].path("/root/note").exists()
    with pytest.raises(TestbedError, match="is up already"):
        fresh_bed(1, name=other.name)
    assert ssh(bed, "h1", f"timeout 1 bash -c '</dev/tcp/{other['h1'].address}/22'").returncode != 0


@pytest.mark.parametrize(("count", "name"), [(0, None), (251, None), (1, "../other"), (1, "")])
def test_what_cannot_be_a_bed(count: int, name: str | None) -> None:
    with pytest.raises(TestbedError, match=r"a bed (has 1 to 250 hosts|cannot be called)"):
        Testbed(count, name=name)


def test_a_bed_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(TestbedError, match="a test bed needs root"):
        Testbed(1)


def test_beds_of_other_namespaces_are_left_alone(fresh_bed: FreshBed) -> None:
    """From elsewhere neither the links nor the processes of a bed are seen, as if they were gone."""
    bed = fresh_bed(1)
    elsewhere = ["unshare", "--net", "--pid", "--mount-proc", "--fork", sys.executable, "-m", "tests.testbed"]
    listed = subprocess.run([*elsewhere, "list"], cwd=REPOSITORY, capture_output=True, text=True).stdout
    assert re.search(f"^{bed.name} .* in other namespaces", listed, re.MULTILINE)
    refused = subprocess.run([*elsewhere, "down", bed.name], cwd=REPOSITORY, capture_output=True, text=True)
    assert "take it down from there" in refused.stderr
    assert output(bed, "h1", "hostname") == "h1"


def test_a_bed_is_stale_when_its_owner_or_its_machine_ended(fresh_bed: FreshBed) -> None:
    claim = registry.find(fresh_bed(1).name)
    dead = Process(os.getpid(), start=0)
    assert not claim.is_stale
    assert not replace(claim, owner=None).is_stale
    assert replace(claim, owner=dead).is_stale
    assert not replace(claim, owner=dead, namespaces="others").is_stale
    assert replace(claim, owner=None, boot="an earlier one").is_stale


def test_a_bed_whose_folder_was_deleted_goes_down(fresh_bed: FreshBed) -> None:
    bed = fresh_bed(2)
    traces = Traces(bed)
    shutil.rmtree(bed.directory)
    bed.down()
    assert traces.left() == []


@pytest.mark.parametrize(
    ("part", "wrong", "words"),
    [
        ("_fstab", lambda directory: "none /nowhere tmpfs defaults 0 0\n", "/nowhere: mount point does not exist"),
        ("_SSHD_CONFIG", "Nonsense yes\n", "Bad configuration option: Nonsense"),
    ],
)
def test_a_host_that_cannot_start_says_why(
    monkeypatch: pytest.MonkeyPatch, part: str, wrong: object, words: str
) -> None:
    monkeypatch.setattr(f"tests.testbed.furnish.{part}", wrong)
    name = unique("broken")
    with pytest.raises(TestbedError, match=rf"h1 did not start: (.|\n)*{words}"):
        Testbed(2, name=name)
    assert name not in [claim.name for claim in registry.claims()]


def test_nothing_is_left_behind() -> None:
    with Testbed(count=2) as bed:
        bed["h1"].run(["sh", "-c", "setsid sleep 1003 >/dev/null 2>&1 &"])
        bed["h1"].tmpfs("/mnt/small")
        bed["h1"].hide("python3")
        bed["h2"].kill()
        bed["h2"].boot()
        traces = Traces(bed)
        assert traces.left()
    assert traces.left() == []


def test_a_bed_goes_with_its_owner_however_that_ends() -> None:
    with owner_elsewhere() as owner:
        traces = Traces(Testbed.open(owner.bed))
        os.kill(owner.pid, signal.SIGKILL)
    wait_until(lambda: traces.left() == [], "the bed of a killed owner to go")


def test_a_bed_that_nobody_took_down_is_removed_by_the_next(fresh_bed: FreshBed) -> None:
    with owner_elsewhere() as owner:
        traces = Traces(Testbed.open(owner.bed))
        os.kill(owner.watcher, signal.SIGKILL)
        os.kill(owner.pid, signal.SIGKILL)
    assert traces.left()
    fresh_bed(1)
    assert traces.left() == []


class Owner(NamedTuple):
    """Another process that has brought up a bed, and who watches over it."""

    pid: int
    watcher: int
    bed: str


@contextmanager
def owner_elsewhere() -> Iterator[Owner]:
    program = "from tests.testbed import Testbed; b = Testbed(2); print(b._watcher.pid, b.name, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=PIPE, stdout=PIPE, text=True, cwd=REPOSITORY) as owner:
        assert owner.stdout is not None
        watcher, name = owner.stdout.readline().split()
        yield Owner(owner.pid, int(watcher), name)


class Traces:
    """All that this machine has of a bed: the processes of its hosts, or about its folder, links, mounts, and files."""

    def __init__(self, bed: Testbed) -> None:
        self._folder = str(bed.directory)
        self._bridge = bed["h1"].machine.network.bridge
        namespaces = {os.readlink(f"/proc/{host.init.pid}/ns/pid") for host in bed.hosts}
        self._inside = [process for process in every_process() if namespace(process) in namespaces]

    def left(self) -> list[str]:
        inside = [f"{process}: was in a host" for process in self._inside if process.is_alive]
        about = [f"{process}: {command(process)!r}" for process in every_process() if self._is_in(command(process))]
        links = [name for _, name in socket.if_nameindex() if re.fullmatch(f"{self._bridge}(h.*)?", name)]
        mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if self._is_in(line)]
        folders = [self._folder] if os.path.lexists(self._folder) else []
        return [*inside, *about, *links, *mounts, *folders]

    def _is_in(self, text: str) -> bool:
        """Whether a text names the folder or what is in it; that of bed 14 is not in that of bed 1."""
        return re.search(rf"{re.escape(self._folder)}\b", text) is not None


def every_process() -> list[Process]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(ProcessLookupError):
                found.append(Process.of(int(name)))
    return found


def namespace(process: Process) -> str:
    with suppress(FileNotFoundError, PermissionError):  # some systems guard their first process
        return os.readlink(f"/proc/{process.pid}/ns/pid")
    return ""


def command(process: Process) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process.pid}/cmdline").read_bytes().decode(errors="replace")
    return ""


def unique(name: str) -> str:
    """A name that other sessions on this machine do not take."""
    return f"{name}{os.getpid()}"


# The command line


def test_the_command_line(capfd: pytest.CaptureFixture[str]) -> None:
    name = unique("cli")
    assert command_line(["up", "2", "--name", name]) == 0
    try:
        bed = Testbed.open(name)
        assert f"ssh -F {bed.ssh_config} h2" in capfd.readouterr().out
        assert command_line(["list"]) == 0
        assert name in capfd.readouterr().out
        assert command_line(["exec", "--name", name, "2", "sh", "-c", "hostname; exit 7"]) == 7
        assert capfd.readouterr().out == "h2\n"
        assert command_line(["cut", "--name", name, "h2"]) == 0
        assert ssh(bed, "h2", "true", "-o", "ConnectTimeout=1").returncode == 255
        assert command_line(["heal", "--name", name, "h2"]) == 0
        assert output(bed, "h2", "hostname") == "h2"
        assert command_line(["kill", "--name", name, "1"]) == 0
        assert command_line(["exec", "--name", name, "1", "true"]) == 1
        assert capfd.readouterr().err == "testbed: h1 is off\n"
        assert command_line(["boot", "--name", name, "1"]) == 0
        assert command_line(["cut", "--name", name, "3"]) == 1
        assert capfd.readouterr().err == f"testbed: {name} has no host '3'\n"
        traces = Traces(bed)
    finally:
        assert command_line(["down", name]) == 0
    assert traces.left() == []
    assert command_line(["down", name]) == 1
    assert capfd.readouterr().err == f"testbed: no bed is called '{name}'\n"


def test_a_bed_of_the_command_line_outlives_it() -> None:
    name = unique("outlives")
    argv = [sys.executable, "-m", "tests.testbed", "up", "1", "--name", name]
    subprocess.run(argv, cwd=REPOSITORY, check=True, capture_output=True)
    with Testbed.open(name) as bed:
        assert output(bed, "h1", "hostname") == "h1"
