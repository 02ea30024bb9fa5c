"""The daemon as its user runs it: a process of its own, with a socket, a state folder and a cluster file of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from remote_runner.placement.wire import SOCKET
from remote_runner.wire import frames
from tests.commands import Commands, Done, Word
from tests.testbed import Testbed
from tests.testbed.process import PATIENCE, wait_until


class Daemons(Commands):
    """Runs `remote_runner dshd` for the hosts of a bed. A context manager that ends what is left."""

    def __init__(self, bed: Testbed, folder: Path, hosts: Sequence[str] | None = None) -> None:
        super().__init__(folder / 'home', bed.ssh_config)
        self.bed = bed
        self.socket = folder / 'socket'
        self.variables = {SOCKET: str(self.socket)}
        self.cluster = folder / 'cluster'
        self.name_hosts(*(hosts or [host.name for host in bed.hosts]))
        self._pids: list[int] = []

    def __enter__(self) -> Daemons:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def name_hosts(self, *lines: str) -> None:
        """Write the cluster file, as editors do."""
        new = self.cluster.with_name('cluster.new')
        new.write_text(''.join(f'{line}\n' for line in lines))
        new.rename(self.cluster)

    def dshd(self, *words: Word, status: int | None = 0, **options: Any) -> Done:
        """Run `remote_runner dshd WORDS`."""
        return self.run('dshd', *words, status=status, **options)

    def begin(self, *words: Word, **options: Any) -> int:
        """Start one in the background; its pid."""
        done = self.dshd('-F', self.ssh_config, '-H', self.cluster, '--background', *words, **options)
        return self.know(int(done.stdout))

    def know(self, pid: int) -> int:
        """It is killed at the end, if it is still there then."""
        self._pids.append(pid)
        return pid

    def kill(self, pid: int) -> None:
        """kill -9."""
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), 'its end')

    def status(self) -> dict[str, Any]:
        """What `--status --json` says."""
        return self.dshd('--status', '--json').objects[0]

    def states(self) -> dict[str, str]:
        """How the hosts are, by name."""
        return {host['name']: host['state'] for host in self.status()['hosts']}

    def becomes(self, **states: str) -> None:
        """Wait until the hosts are exactly so."""
        wait_until(lambda: self.states() == states, f'{states}', 2 * PATIENCE)

    def log(self) -> str:
        """What the last one in the background wrote."""
        return Path(self.home, f'.local/state/remote_runner/dshd/{socket.gethostname()}.log').read_text()

    def client(self) -> Client:
        """Somebody who speaks with it as they like."""
        return Client(self.socket)


def is_alive(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    done = subprocess.run(['ps', '-o', 'stat=', '-p', str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] not in ('', 'Z')


class Client:
    """A connection to a daemon, for frames of any kind. A context manager."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(os.fspath(path))
        self._decoder = frames.Decoder()
        self._came: list[tuple[dict[str, Any], bytes]] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, header: dict[str, Any], body: bytes = b'') -> None:
        self.socket.sendall(frames.encode(header, body))

    def next(self) -> tuple[dict[str, Any], bytes]:
        """The next frame; EOFError where it is hung up on."""
        while not self._came:
            data = self.socket.recv(1 << 18)
            if not data:
                raise EOFError
            self._came += self._decoder.feed(data)
        return self._came.pop(0)

    def ask(self, op: str, number: int | None = 1, **fields: Any) -> dict[str, Any]:
        """The answer to a request: with `result` or `error`; `number` None: that to none."""
        self.send({'id': number or 1, 'op': op, **fields})
        while True:
            header, _ = self.next()
            if header.get('id') == number and ('result' in header or 'error' in header):
                return header

    def run(self, *argv: str, number: int = 1, **fields: Any) -> str:
        """Start a command in /; the host."""
        rest = {'cwd': '/', 'umask': 0o22, 'env': {}, 'terminal': None, **fields}
        self.send({'id': number, 'op': 'run', 'wanted': {}, 'argv': list(argv), **rest})
        header, _ = self.next()
        return str(header['host'])

    def output_after_host(self) -> tuple[bytes, dict[str, Any]]:
        """The same as `output`, of a command whose host was not told yet."""
        header, _ = self.next()
        assert 'host' in header
        return self.output()

    def output(self, number: int = 1) -> tuple[bytes, dict[str, Any]]:
        """What a command writes to stdout, and its answer."""
        out = b''
        while True:
            header, body = self.next()
            assert header['id'] == number
            if header.get('part') == 'out':
                out += body
                self.send({'id': number, 'credit': len(body)})
            elif 'result' in header or 'error' in header:
                return out, header
