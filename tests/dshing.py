"""Commands on the least loaded of some hosts, as a user runs them: hosts that share a folder, and a daemon for them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from remote_runner.hosts.address import parse_hosts
from remote_runner.hosts.ssh import Connector, SshOptions
from remote_runner.placement.keeper import Cluster
from remote_runner.placement.server import Server
from remote_runner.placement.wire import SOCKET
from tests.commands import Commands, Done, Running, environment
from tests.testbed import Testbed


class Served:
    """A daemon for the hosts of a bed, in a thread of this process. A context manager."""

    def __init__(self, bed: Testbed, folder: Path, hosts: Sequence[str] | None = None) -> None:
        self.bed = bed
        self.socket = folder / 'dshd.socket'
        self._hosts = list(hosts or [host.name for host in bed.hosts])

    def __enter__(self) -> Served:
        self._connector = Connector(SshOptions(config_file=str(self.bed.ssh_config)))
        self.cluster = Cluster(self._connector, parse_hosts(self._hosts))
        self.server = Server(self.cluster)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(os.fspath(self.socket))
        listening.listen(128)
        self.server.listen(listening)
        self.cluster.start()
        assert self.cluster.wait_until_up(60.0)
        self._thread = threading.Thread(target=self.server.run, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End it as a signal does."""
        self.server.stop()
        self._thread.join()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.server.__exit__()
        self.cluster.close()
        self._connector.close()
        self.socket.unlink()


class Dsh(Commands):
    """Runs `remote_runner dsh` in a folder, by a daemon."""

    def __init__(self, served: Served, home: Path, folder: Path) -> None:
        super().__init__(home, served.bed.ssh_config)
        self.served = served
        self.folder = folder
        self.variables = {SOCKET: str(served.socket)}

    def begin(self, *words: Any, **options: Any) -> Running:
        """Start `remote_runner dsh WORDS` in the shared folder."""
        return self.start('dsh', *words, **{'cwd': self.folder, **options})

    def dsh(self, *words: Any, status: int | None = 0, **options: Any) -> Done:
        """Run `remote_runner dsh WORDS` in the shared folder."""
        return self.run('dsh', *words, status=status, **{'cwd': self.folder, **options})

    def shell(self, text: str, program: str = 'sh', **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run a script of a shell there that has `$DSH`; it is not waited for a status of 0."""
        env = {**environment(self.home), **self.variables, 'DSH': f'{sys.executable} -m remote_runner dsh'}
        how = {'cwd': self.folder, 'env': env, 'capture_output': True, 'check': False, **options}
        return subprocess.run([program, '-c', text], **how)

    def script(self, text: str, *options: Any, status: int | None = 0, **more: Any) -> Done:
        """Run a script of the shell there."""
        return self.dsh(*options, 'sh', '-c', text, status=status, **more)
