"""The command as its users run it, in a process of its own, and deployments that leave the hosts as they found them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.deploying import deploying
from tests.schema import is_event
from tests.testbed import Testbed, TestbedError, TestHost
from tests.testbed.process import await_stop, wait_until

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, '-m', 'remote_runner']
#: Seconds after which a command hangs: far more than any of them takes.
PATIENCE = 60.0
#: Whether tests may take minutes.
LONG = bool(os.environ.get('RR_LONG_TESTS'))
Word = str | os.PathLike[str]


@dataclass(frozen=True)
class Done:
    """A command that has ended. `peak` is the most memory it had, in MB."""

    argv: tuple[str, ...]
    status: int
    out: bytes
    err: bytes
    peak: float

    def __repr__(self) -> str:
        said = f'{" ".join(self.argv)!r} ended with {self.status}\nstdout:\n{self.stdout}\nstderr:\n{self.stderr}'
        return said.encode('utf-8', 'backslashreplace').decode()  # of what pytest can tell

    @property
    def stdout(self) -> str:
        return self.out.decode('utf-8', 'surrogateescape')

    @property
    def stderr(self) -> str:
        return self.err.decode('utf-8', 'surrogateescape')

    @cached_property
    def objects(self) -> list[dict[str, Any]]:
        """What stdout says, one JSON object a line."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    def events(self, kind: str, **fields: object) -> list[dict[str, Any]]:
        """The events of this kind (`files_sent`) that have these values, from `--json`."""
        wanted = {'event': kind, **fields}.items()
        return [event for event in self.objects if wanted <= event.items() and is_event(event)]

    def event(self, kind: str, **fields: object) -> dict[str, Any]:
        """The only such event."""
        [found] = self.events(kind, **fields)
        return found


class Running:
    """A command under way; a context manager that kills what has not ended."""

    def __init__(self, argv: Sequence[Word], **options: Any) -> None:
        self.argv = tuple(str(word) for word in argv)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            self._out, self._err = os.dup(out.fileno()), os.dup(err.fileno())
        self._peak = 0.0
        streams = {'stdin': subprocess.DEVNULL, 'stdout': self._out, 'stderr': self._err}
        self.process = subprocess.Popen(self.argv, **{**streams, **options})

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()
        os.close(self._out)
        os.close(self._err)

    @property
    def out(self) -> bytes:
        """What is on stdout so far."""
        return _read(self._out)

    @property
    def err(self) -> bytes:
        """What is on stderr so far."""
        return _read(self._err)

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        if number == signal.SIGSTOP:
            await_stop(self.pid)

    def end(self, patience: float = PATIENCE) -> Done:
        """Wait for its end."""
        try:
            wait_until(self._has_ended, f'the end of {self.argv}', patience)
        except TestbedError as error:
            error.add_note(f'stdout:\n{self.out.decode(errors="replace")}\nstderr:\n{self.err.decode(errors="replace")}')
            raise
        _, status = os.waitpid(self.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return Done(self.argv, self.process.returncode, self.out, self.err, self._peak)

    def _has_ended(self) -> bool:
        """Notes its peak of memory meanwhile: rusage would count ours too, from the moment before its exec."""
        with open(f'/proc/{self.pid}/status') as status:
            found = re.search(r'^VmHWM:\s*(\d+) kB', status.read(), re.MULTILINE)
        self._peak = float(found[1]) / 1000 if found else self._peak
        return bool(os.waitid(os.P_PID, self.pid, _LOOK))


#: Whether a process has ended; it can be reaped afterwards.
_LOOK = os.WEXITED | os.WNOWAIT | os.WNOHANG


def _read(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def environment(home: Path) -> dict[str, str]:
    """That of someone who has just logged in."""
    home.mkdir(exist_ok=True)
    return {
        'HOME': str(home),
        'LANG': 'C.UTF-8',
        'LOGNAME': 'root',
        'PATH': f'{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin',
        'PYTHONPATH': str(ROOT),
        'SHELL': '/bin/sh',
        'TERM': 'xterm-256color',
        'TMPDIR': str(home),  # of components of this machine: what they leave goes with the test
        'USER': 'root',
    }


class Commands:
    """Runs `remote_runner` for somebody who has a home and an ssh_config, that of a bed or another."""

    def __init__(self, home: Path, ssh_config: Path) -> None:
        self.home = home
        self.ssh_config = ssh_config
        #: Variables of the environment.
        self.variables: dict[str, str] = {}

    def start(self, *arguments: Word, **options: Any) -> Running:
        """Start `remote_runner ARGUMENTS`, with options of Popen."""
        variables = {**self.variables, **options.pop('variables', {})}
        env = {**environment(self.home), **variables}
        return Running([*COMMAND, *arguments], **{'cwd': self.home, 'env': env, **options})

    def run(self, *arguments: Word, status: int | None = 0, **options: Any) -> Done:
        """Run `remote_runner ARGUMENTS`; `status` is the exit status that is expected, None any."""
        with self.start(*arguments, **options) as running:
            done = running.end()
        assert status is None or done.status == status, done
        return done

    def exec(self, hosts: str, *arguments: str, **options: Any) -> Done:
        """`remote_runner exec -F SSH_CONFIG -H HOSTS ARGUMENTS`."""
        return self.run('exec', '-F', self.ssh_config, '-H', hosts, *arguments, **options)


def component(name: str, host: str, executable: str = '/bin/sleep', args: Sequence[object] = (), **more: Any) -> str:
    """The line of a config that adds a component; without `args` it sleeps."""
    if executable == '/bin/sleep' and not args:
        args = ['100000']
    values = {'name': name, 'host': host, 'executable': executable, 'args': list(args), **more}
    return f'config.add_component(Component(**{values!a}))\n'


class Site(Commands):
    """A config in a folder of its own, and a session that nobody else has. A context manager that leaves nothing.

    Where tests/deploying.py has components as data, this has the text of a config, for what only that can say.
    """

    def __init__(self, bed: Testbed, folder: Path, ssh_config: Path | None = None) -> None:
        super().__init__(folder / 'home', ssh_config or bed.ssh_config)
        self.bed = bed
        self.folder = folder
        self.config = folder / 'config.py'
        self._cleaning = deploying(bed, folder)

    def __enter__(self) -> Site:
        self.deployment = self._cleaning.__enter__()
        self.session = self.deployment.session
        return self

    def __exit__(self, *error: Any) -> None:
        self._cleaning.__exit__(*error)

    def write(self, *lines: str) -> None:
        """Write the config."""
        self.config.write_text(''.join(lines))

    def file(self, name: str, content: str | bytes = 'content\n', mode: int = 0o644) -> Path:
        """Write a file beside the config."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    def arguments(self, *arguments: Word) -> list[Word]:
        """Those of a deployment; later ones win."""
        return ['-F', self.ssh_config, '-c', self.config, '--screen', self.session, *arguments]

    def begin(self, *arguments: Word, **options: Any) -> Running:
        """Start the deployment, with `--json`."""
        return self.start(*self.arguments('--json', *arguments), **options)

    def deploy(self, *arguments: Word, status: int | None = 0, **options: Any) -> Done:
        """Deploy, with `--json`."""
        return self.run(*self.arguments('--json', *arguments), status=status, **options)

    def sessions_here(self) -> list[int]:
        """The pids of our sessions on this machine."""
        table = subprocess.run(['screen', '-ls', self.session], capture_output=True, text=True, check=False).stdout
        return [int(pid) for pid in re.findall(rf'^\t(\d+)\.{self.session}\t', table, re.MULTILINE)]


def eventually_exists(path: Path) -> Path:
    """Wait until something is in a file."""
    wait_until(lambda: path.exists() and path.stat().st_size > 0, f'something in {path}')
    return path


def nothing_runs(host: TestHost) -> None:
    """Wait until the host is at rest."""
    wait_until(lambda: not host.processes(), f'the end of all that runs on {host.name}')


def ssh_config(folder: Path, bed: Testbed, first: str) -> Path:
    """An ssh_config that says `first`, then what the bed's own says."""
    path = folder / 'ssh_config'
    path.write_text(f'{first}\nHost *\n  Include {bed.ssh_config}\n')
    return path


def alias_of(bed: Testbed, host: str, *names: str) -> str:
    """The block of an ssh_config that makes `names` further names of a host."""
    known = f'  UserKnownHostsFile {bed.known_hosts}\n  GlobalKnownHostsFile /dev/null\n'
    login = f'  User root\n  IdentityFile {bed.key}\n  IdentitiesOnly yes\n'
    return f'Host {" ".join(names)}\n  HostName {bed[host].address}\n{login}{known}'
