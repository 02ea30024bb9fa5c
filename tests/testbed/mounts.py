"""What a test mounts in a host: small disks, shared folders, and layers under which a program is not there."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.testbed.errors import TestbedError
from tests.testbed.furnish import SEARCH_PATH

if TYPE_CHECKING:
    from tests.testbed.host import TestHost

_GRAFT = Path(__file__).with_name("graft.py")
_PROGRAM_FOLDERS = [*SEARCH_PATH.split(":"), "/usr/libexec"]


class Mounts:
    """The mounts of one host beyond those it boots with. `restore` makes them anew after a boot, as an fstab would."""

    def __init__(self, host: TestHost) -> None:
        self._host = host
        self._by_path: dict[str, Callable[[], None]] = {}
        self._hidden: set[str] = set()
        self._layered: list[str] = []

    def covers(self, path: str) -> bool:
        """Whether the path lies in something mounted here, rather than on the host's own disk."""
        return any(path == mounted or path.startswith(f"{mounted}/") for mounted in self._by_path)

    def tmpfs(self, path: str, size: str) -> None:
        def mount() -> None:
            self._make_mount_point(path, is_folder=True)
            self._host.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=1777", "host-tmpfs", path])

        self._mount(path, mount)

    def share(self, path: str, source: Path) -> None:
        def mount() -> None:
            self._make_mount_point(path, is_folder=source.is_dir())
            command = [sys.executable, "-IS", str(_GRAFT), str(self._host.init.pid), str(source.resolve()), path]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise TestbedError(f"{self._host.name}: cannot share {source}: {done.stderr.splitlines()[-1]}")

        self._mount(path, mount)

    def hide(self, program: str) -> None:
        self._hidden.add(program)
        self._layer()

    def unhide(self, program: str) -> None:
        self._hidden.discard(program)
        self._layer()

    def restore(self) -> None:
        self._layered.clear()
        for mount in self._by_path.values():
            mount()
        self._layer()

    def _mount(self, path: str, mount: Callable[[], None]) -> None:
        mount()
        self._by_path[path] = mount

    def _make_mount_point(self, path: str, *, is_folder: bool) -> None:
        point = self._host.path(path)
        if point.exists():
            return
        try:
            point.parent.mkdir(parents=True, exist_ok=True)
            if is_folder:
                point.mkdir()
            else:
                point.touch()
        except OSError as error:
            raise TestbedError(f"{self._host.name}: cannot mount on {path}: {error.strerror}") from error

    def _layer(self) -> None:
        """Lay over each folder of programs an overlay with a whiteout for each hidden name: there it is truly absent.

        A file bound over the program would not do: shells then say "Permission denied" and exit with 126, not 127.
        """
        for folder in self._layered:
            self._host.run(["umount", "--lazy", folder])  # lazy, for what was started from it may run still
        self._layered.clear()
        for folder in sorted({os.path.realpath(folder) for folder in _PROGRAM_FOLDERS}):
            names = self._hidden_names(folder)
            if not names:
                continue
            whiteouts = Path(tempfile.mkdtemp(dir=self._host.machine.on_disk("run/testbed"), prefix="hidden."))
            whiteouts.chmod(0o755)
            for name in names:
                os.mknod(whiteouts / name, stat.S_IFCHR, os.makedev(0, 0))
            options = f"lowerdir=/run/testbed/{whiteouts.name}:{folder}"
            self._host.run(["mount", "-t", "overlay", "-o", options, "host-hidden", folder])
            self._layered.append(folder)

    def _hidden_names(self, folder: str) -> list[str]:
        """Of `python3` also python3.11 and python3-config, but not of `sh` shred."""
        if not self._hidden or not os.path.isdir(folder):
            return []
        pattern = re.compile("(" + "|".join(map(re.escape, self._hidden)) + ")([-.].*)?")
        return [name for name in os.listdir(folder) if pattern.fullmatch(name)]
