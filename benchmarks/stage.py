"""What every contender is given: a folder of its own, a clean home, the ssh_config of the test hosts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.measure import PATIENCE, Contender, Wire
from tests.testbed import Testbed

RECIPES = Path(__file__).resolve().parent / 'recipes'
#: Where scratch folders lie, and the disks of the test hosts.
SCRATCH = Path('/tmp')
OURS = str(Path(sys.executable).with_name('remote_runner'))

_ANSIBLE_CONFIG = """\
[defaults]
forks = {hosts}
gathering = explicit
interpreter_python = /usr/bin/python3
[ssh_connection]
pipelining = True
ssh_args = -F {ssh_config} -o ControlMaster=auto -o ControlPersist=60s
control_path_dir = {control}
"""


@dataclass(frozen=True)
class Stage:
    """The test hosts and a scratch folder (short: sockets lie in it) with a folder for each contender."""

    bed: Testbed
    scratch: Path
    #: The path of an ssh_config that names the hosts.
    ssh_config: str

    @classmethod
    @contextmanager
    def on(cls, bed: Testbed, ssh_config: Path | None = None) -> Iterator[Stage]:
        """A stage whose scratch folder goes with it; the hosts are reached by the bed's ssh_config, or by another."""
        with tempfile.TemporaryDirectory(prefix='rrbench-', dir=SCRATCH) as folder:
            yield cls(bed, Path(folder), str(ssh_config or bed.ssh_config))

    @property
    def hosts(self) -> list[str]:
        """The names of the hosts."""
        return [host.name for host in self.bed.hosts]

    @property
    def control(self) -> Path:
        """Where masters of OpenSSH connections have their sockets."""
        return self.scratch / 'cm'

    def contender(
        self,
        name: str,
        *argv: str,
        note: str = '',
        more: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
        most_runs: int | None = None,
        tasks: int = 0,
    ) -> Contender:
        """A command in a folder of its own, with what there is of a recipe for it."""
        folder, home = self.scratch / name.replace(' ', '-'), self.scratch / 'home'
        home.mkdir(mode=0o700, exist_ok=True)
        self.control.mkdir(mode=0o700, exist_ok=True)
        recipe = RECIPES / name
        if recipe.is_dir():
            shutil.copytree(recipe, folder)
        else:
            folder.mkdir()
        environment = {
            'HOME': str(home),
            'PATH': f'{peers.VENV}/bin:/usr/local/bin:/usr/bin:/bin',
            'LANG': 'C.UTF-8',
            'ANSIBLE_CONFIG': str(self.scratch / 'ansible.cfg'),
            **(more or {}),
        }
        return Contender(name, argv, folder, environment, note, patience, most_runs, tasks)

    def configure_ansible(self) -> None:
        """Write its best ordinary settings."""
        settings = _ANSIBLE_CONFIG.format(hosts=len(self.hosts), ssh_config=self.ssh_config, control=self.control)
        (self.scratch / 'ansible.cfg').write_text(settings)

    def write_json(self, contender: Contender, **values: Any) -> None:
        """Give a recipe its values."""
        (contender.folder / 'deploy.json').write_text(json.dumps({'deploy': values}))

    def wire(self) -> Wire:
        """The bytes there have ever been on the cables of the hosts, seen at the bridge (proc_pid_net(5), `dev`)."""
        links = {host.machine.link for host in self.bed.hosts}
        lines = [line.partition(':') for line in Path('/proc/net/dev').read_text().splitlines()]
        counts = [list(map(int, numbers.split())) for name, _, numbers in lines if name.strip() in links]
        return Wire(to_hosts=sum(count[8] for count in counts), from_hosts=sum(count[0] for count in counts))

    def close_masters(self) -> None:
        """End the master connections that a run left, so that every run begins without any."""
        for socket in self.control.iterdir():
            command = ['ssh', '-F', '/dev/null', '-o', f'ControlPath={socket}', '-O', 'exit', 'any']
            subprocess.run(command, capture_output=True, check=False)
