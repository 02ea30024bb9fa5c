"""Which beds there are on this machine, whose they are, and how one is removed; for beds of any process.

A bed is a folder under BASE, named by its number and described by its bed.json. Numbers are given out, and beds
removed, under a lock on BASE.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from tests.testbed.boot import read_init, switch_off
from tests.testbed.errors import TestbedError
from tests.testbed.network import NUMBERS, Network, routed_networks
from tests.testbed.process import Process, write_whole

BASE = Path("/tmp/remote_runner-testbeds")


def _boot() -> str:
    """Which start of this machine this is (proc_sys_kernel(5), random/boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _namespaces() -> str:
    return " ".join(os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "net", "user"))


@dataclass(frozen=True)
class Claim:
    """A bed's entry: `owner` is the process with which it goes, or None for one that stays until it is taken down.

    `boot` and `namespaces` tell where it was brought up, for elsewhere its processes and links cannot be seen.
    """

    number: int
    name: str
    count: int
    owner: Process | None
    boot: str
    namespaces: str

    @property
    def directory(self) -> Path:
        return BASE / str(self.number)

    @property
    def network(self) -> Network:
        return Network(self.number)

    @property
    def is_stale(self) -> bool:
        """This machine was started anew since, or its owner is dead."""
        if self.boot != _boot():
            return True
        return self.is_here and self.owner is not None and not self.owner.is_alive

    @property
    def is_here(self) -> bool:
        """Whether it was brought up in the namespaces that we are in: nobody else can judge it or take it down."""
        return self.boot == _boot() and self.namespaces == _namespaces()

    def write(self) -> None:
        write_whole(self.directory / "bed.json", json.dumps(asdict(self)))


def claims() -> list[Claim]:
    """All beds of this machine, stale ones too."""
    found = []
    for path in BASE.glob("*/bed.json"):
        with suppress(FileNotFoundError):  # just removed
            found.append(_read(path))
    return sorted(found, key=lambda claim: claim.number)


def find(name: str) -> Claim:
    """The bed of this name. Raises TestbedError when there is none."""
    for claim in claims():
        if claim.name == name:
            return claim
    raise TestbedError(f"no bed is called {name!r}")


def claim(name: str | None, count: int) -> Claim:
    """Take a free number for a bed owned by this process, and make its folder."""
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise TestbedError(f"a bed cannot be called {name!r}: letters, digits, - and _ only")
    with _locked():
        _remove_stale()
        present = claims()
        if name in [bed.name for bed in present]:
            raise TestbedError(f"a bed called {name!r} is up already")
        number = _free_number({bed.number for bed in present})
        new = Claim(number, name or f"bed{number}", count, Process.of(os.getpid()), _boot(), _namespaces())
        shutil.rmtree(new.directory, ignore_errors=True)  # half removed by someone killed meanwhile
        new.directory.mkdir(mode=0o700)
        new.write()
        return new


def remove(claim: Claim) -> None:
    """Take a bed down, whoever's it is: its processes, its links, its folder. One that is gone already is fine.

    Raises TestbedError when it was brought up in other namespaces than ours.
    """
    if not (claim.is_here or claim.is_stale):
        raise TestbedError(f"{claim.name} was brought up in other namespaces: take it down from there")
    with _locked():
        _remove(claim)


def remove_stale() -> list[str]:
    """Remove the beds that are stale, and return their names."""
    with _locked():
        return _remove_stale()


def _read(path: Path) -> Claim:
    entry = json.loads(path.read_text())
    owner = Process(**entry["owner"]) if entry["owner"] else None
    return Claim(**entry | {"owner": owner})


def _remove(claim: Claim) -> None:
    inits = [init for path in claim.directory.glob("h*") if (init := read_init(path))]
    for init in inits:
        init.kill()
    for init in inits:
        switch_off(init)
    claim.network.remove()
    with suppress(FileNotFoundError):
        shutil.rmtree(claim.directory)


def _remove_stale() -> list[str]:
    stale = [bed for bed in claims() if bed.is_stale]
    for bed in stale:
        _remove(bed)
    return [bed.name for bed in stale]


def _free_number(taken: set[int]) -> int:
    """The next free number after the one given out last, so that nothing takes a new bed for one just removed."""
    last = BASE / "last"
    start = int(last.read_text()) + 1 if last.exists() else 0
    routed = routed_networks()
    for number in chain(NUMBERS[start:], NUMBERS[:start]):
        network = Network(number)
        if number in taken or network.exists or any(network.subnet.overlaps(other) for other in routed):
            continue
        write_whole(last, str(number))
        return number
    raise TestbedError(f"all {len(NUMBERS)} numbers for beds are taken")


@contextmanager
def _locked() -> Iterator[None]:
    """Hold the lock on BASE, made when missing. Only our own folder will do: hosts are made of what is in it."""
    with suppress(FileExistsError):
        BASE.mkdir(mode=0o700)
    if BASE.is_symlink() or BASE.stat().st_uid != os.geteuid():
        raise TestbedError(f"{BASE} belongs to someone else")
    with (BASE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
