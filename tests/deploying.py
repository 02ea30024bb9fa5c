"""Deploying by the command, as users do, and seeing what became of it on the hosts.

    def test_it(deployment: Deployment) -> None:
        deployment.sh('hello', 'echo hello; exec sleep 1000')
        assert deployment.run().status == 0
        assert deployment.windows() == {0: 'hello'}

Nothing of remote_runner may be imported here, and nothing on a host is asked of remote_runner itself: what is shown
are screen's own answers and the host's own table of processes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from tests.schema import is_event
from tests.testbed import HostProcess, Testbed, TestHost
from tests.testbed.process import await_stop, children, wait_until

REPOSITORY = Path(__file__).resolve().parents[1]
PATIENCE = 60.0  # seconds; the longest that anything here may take, never what it should take

_CONFIG = """\
for attributes in {components}:
    component = Component()
    for name, value in attributes.items():
        setattr(component, name, value)
    config.add_component(component)
"""

Json = dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """What a command left: its exit status, the events of `--json`, and what it wrote."""

    status: int
    events: list[Json]
    stdout: str
    stderr: str

    def of(self, kind: str, component: str | None = None, host: str | None = None) -> list[Json]:
        return [event for event in self.events if _matches(event, kind, component, host)]

    def the(self, kind: str, component: str | None = None, host: str | None = None) -> Json:
        """The only event of this kind."""
        [event] = self.of(kind, component, host)
        return event

    def labels(self, kind: str) -> list[str]:
        """The components that have such an event, as name@host, sorted."""
        return sorted(f'{event["component"]}@{event["host"]}' for event in self.of(kind))

    def names(self, kind: str) -> list[str]:
        """The names of the components that have such an event, sorted."""
        return sorted(event['component'] for event in self.of(kind))

    def pid(self, component: str) -> int:
        """The pid, as its host sees it, of the program that was started."""
        return int(self.the('component_started', component)['pid'])

    def failure(self, component: str) -> str:
        """Why the component failed, with its last lines."""
        failed = self.the('component_failed', component)
        return f'{failed["reason"]}\n{failed.get("output", "")}'


class Running:
    """A command that runs."""

    def __init__(self, argv: Sequence[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd='/'
        )
        self._lines: list[str] = []
        self._errors: list[str] = []
        self._heard = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=arguments, daemon=True)
            for arguments in [(self._process.stdout, self._lines), (self._process.stderr, self._errors)]
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def events(self) -> list[Json]:
        """What has happened so far."""
        with self._heard:
            return [json.loads(line) for line in self._lines if line.startswith('{')]

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def wait_for(self, kind: str, component: str | None = None, host: str | None = None) -> Json:
        """The first such event, now or when it comes. Raises AssertionError when the command ends before."""
        found: list[Json] = []

        def came() -> bool:
            found.extend(event for event in self.events if _matches(event, kind, component, host))
            return bool(found) or not any(reader.is_alive() for reader in self._readers)

        with self._heard:
            self._heard.wait_for(came, PATIENCE)
        assert found, f'no {kind} of {component or host or "anything"} came:\n{"".join(self._lines + self._errors)}'
        return found[0]

    def signal(self, number: int) -> None:
        self._process.send_signal(number)
        if number == signal.SIGSTOP:
            await_stop(self._process.pid)

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.signal(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL; all that it would have said is lost."""
        self._process.kill()
        self.finish()

    def finish(self) -> Ended:
        """Wait for its end."""
        try:
            status = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            error.add_note(f'it said:\n{"".join(self._lines + self._errors)}')
            raise
        for reader in self._readers:
            reader.join(PATIENCE)
        assert all(is_event(line) for line in self.events if 'event' in line)
        return Ended(status, self.events, ''.join(self._lines), ''.join(self._errors))

    def _read(self, stream: Any, into: list[str]) -> None:
        for line in stream:
            with self._heard:
                into.append(line.decode(errors='replace'))
                self._heard.notify_all()
        stream.close()
        with self._heard:
            self._heard.notify_all()


class Session(NamedTuple):
    """A line of `screen -ls`."""

    pid: int
    name: str
    state: str


@dataclass
class Deployment:
    """Components, to be deployed on the hosts of a bed in a session whose name no one else uses."""

    bed: Testbed
    folder: Path
    session: str
    components: list[Json] = field(default_factory=list)

    # The config

    def add(self, name: str, executable: str, args: Sequence[object] = (), host: str = 'h1', **attributes: Any) -> None:
        """Add a component; attributes as they stand in a config."""
        self.components.append(
            {'name': name, 'host': host, 'executable': executable, 'args': list(args), **attributes}
        )

    def sh(self, name: str, script: str, host: str = 'h1', **attributes: Any) -> None:
        """Add a component that runs a script by sh, its only argument."""
        self.add(name, '/bin/sh', ['-c', script], host, **attributes)

    def python(self, name: str, program: str, host: str = 'h1', **attributes: Any) -> None:
        """Add a component that runs a program by the host's Python."""
        self.add(name, '/usr/bin/python3', ['-ISc', program], host, **attributes)

    def sleep(self, name: str = 'sleeper', host: str = 'h1', **attributes: Any) -> None:
        """Add a component that does nothing, for long."""
        self.add(name, '/bin/sleep', ['100000'], host, **attributes)

    def clear(self) -> None:
        """Forget the components, for another run in the same session."""
        self.components.clear()

    # The command

    def run(self, *options: str) -> Ended:
        """Deploy, and wait for the end of the command."""
        return self.begin(*options).finish()

    def begin(self, *options: str, session: str | None = None) -> Running:
        """Start the command that deploys."""
        return self.begin_plain('--json', *options, session=session)

    def begin_plain(self, *options: str, session: str | None = None) -> Running:
        """Start the command that deploys, with output for people."""
        return Running(self.command(*options, session=session), self.environment)

    def command(self, *options: str, session: str | None = None) -> list[str]:
        """The command that deploys, whose config is written by this."""
        config = self.folder / 'config.py'
        config.write_text(_CONFIG.format(components=ascii(self.components)))
        command = [sys.executable, '-m', 'remote_runner', '-F', str(self.bed.ssh_config), '-c', str(config)]
        return [*command, '--screen', session or self.session, *options]

    @property
    def environment(self) -> dict[str, str]:
        """That of someone who has just logged in, at home in the test's own folder."""
        home = self.folder / 'home'
        home.mkdir(exist_ok=True)
        return {
            'HOME': str(home),
            'LANG': 'C.UTF-8',
            'LOGNAME': 'root',
            'PATH': f'{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin',
            'PYTHONPATH': str(REPOSITORY),
            'SHELL': '/bin/sh',
            'TERM': 'xterm-256color',
            'USER': 'root',
        }

    def shell(self, line: str) -> str:
        """Run a line that the command told its user to run; what it prints."""
        done = subprocess.run(line, shell=True, capture_output=True, text=True, env=self.environment, timeout=PATIENCE)
        return done.stdout + done.stderr

    def stop_lines(self, ended: Ended) -> list[str]:
        """The commands by which, as the command said, what it left running can be stopped."""
        return re.findall(r'to stop: (.*)$', ended.stderr, re.MULTILINE)

    # What is there

    def host(self, name: str = 'h1') -> TestHost:
        return self.bed[name]

    def user(self, name: str, host: str = 'h1', shell: str = '/bin/bash') -> str:
        """A new user of a host, whom no other test knows; the name that they have there."""
        account = f'{name}-{self.session}'
        self.bed[host].add_user(account, shell)
        return account

    def sessions(self, host: str = 'h1', user: str | None = None) -> list[Session]:
        """The sessions of screen on a host, those of other names too."""
        return sessions(self.bed[host], user)

    def own_sessions(self, host: str = 'h1', user: str | None = None) -> list[Session]:
        """The sessions of exactly our name, dead ones too."""
        return [session for session in self.sessions(host, user) if session.name == self.session]

    def the_session(self, host: str = 'h1', user: str | None = None) -> Session:
        """Our session, the only one of its name."""
        [session] = self.own_sessions(host, user)
        return session

    def windows(self, host: str = 'h1', user: str | None = None) -> dict[int, str]:
        """Number and title of the windows of our session."""
        session = self.the_session(host, user)
        shown = screen(self.bed[host], f'{session.pid}.{session.name}', '-Q', 'windows', '%n=%t|', user=user)
        return {int(number): title for number, title in re.findall(r'(\d+)=(.*?)\| ?', shown, re.DOTALL)}

    def screen(self, *command: str, host: str = 'h1') -> None:
        """Have our session on a host carry out a command of screen, as by `screen -X`."""
        session = self.the_session(host)
        screen(self.bed[host], f'{session.pid}.{session.name}', '-X', *command)

    def quit(self, host: str = 'h1') -> None:
        """Quit our session on a host, as users do, and wait for the end of it and of all its processes."""
        family = descendants(self.bed[host], self.the_session(host).pid)
        self.screen('quit', host=host)
        wait_until(lambda: not self.own_sessions(host), f'the end of session {self.session} on {host}')
        gone(self.bed[host], family)

    def runs(self, pid: int, host: str = 'h1') -> bool:
        """Whether this process is alive."""
        return is_alive(self.bed[host], pid)

    def argv(self, pid: int, host: str = 'h1') -> list[str]:
        """The argv of a process, empty when it is not there."""
        process = tree(self.bed[host]).get(pid)
        return process.argv if process else []

    def processes(self, word: str, host: str = 'h1') -> list[HostProcess]:
        """The processes that have this word as an argument."""
        return [process for process in self.bed[host].processes() if word in process.argv]

    def sleepers(self, seconds: int = 100000, host: str = 'h1') -> list[HostProcess]:
        """The processes of sleep that sleep so long; as long as those of `sleep()` unless told."""
        return [process for process in self.processes(str(seconds), host) if process.argv[0].endswith('sleep')]

    def ends(self, pid: int, host: str = 'h1') -> None:
        """Wait for the end of a process."""
        wait_until(lambda: not self.runs(pid, host), f'the end of {pid} on {host}', PATIENCE)

    def is_stopped(self, host: str = 'h1') -> None:
        """Wait until nothing of ours is left on a host: neither sleepers nor the session."""
        wait_until(lambda: not self.sleepers(host=host), f'the end of what slept on {host}', PATIENCE)
        wait_until(lambda: not self.own_sessions(host), f'the end of the session on {host}', PATIENCE)

    def text(self, path: str, host: str = 'h1') -> str:
        """What is in a file of the host."""
        return self.bed[host].path(path).read_text()

    def written(self, path: str, host: str = 'h1') -> str:
        """What is in a file of the host, which may yet have to be written."""
        text = ''

        def is_there() -> bool:
            nonlocal text
            with suppress(FileNotFoundError):
                text = self.text(path, host)
            return text != ''

        wait_until(is_there, f'{path} on {host}', PATIENCE)
        return text

    def appears(self, path: str, host: str = 'h1') -> None:
        """Wait for a file of the host."""
        wait_until(self.bed[host].path(path).exists, f'{path} on {host}', PATIENCE)

    def output_log(self, name: str, host: str = 'h1') -> Path:
        """The file that keeps all that a component printed in the last run."""
        runs = self.bed[host].path(f'/root/.local/state/remote_runner/hosts/{host}/{self.session}')
        found = [path for path in runs.glob('*/*/status.json') if json.loads(path.read_text())['name'] == name]
        return max(found, key=lambda path: path.stat().st_mtime).with_name('output.log')

    def scene(self) -> str:
        """What there is to see on the hosts, for those who have to find out why a test failed."""
        return ''.join(_scene(host, self.session) for host in self.bed.hosts if host.machine.init)

    @contextmanager
    def file(self, path: str, text: str, host: str = 'h1') -> Iterator[None]:
        """A file that is there for a while."""
        file = self.bed[host].path(path)
        file.write_text(text)
        try:
            yield
        finally:
            file.unlink()


def screen(host: TestHost, session: str, *command: str, user: str | None = None) -> str:
    """What screen answers to a command for a session, given as PID.name."""
    return host.run(['screen', '-S', session, *command], user=user, check=False).stdout.decode(errors='replace')


def sessions(host: TestHost, user: str | None = None) -> list[Session]:
    shown = host.run(['screen', '-ls'], user=user, check=False).stdout.decode()
    found = re.findall(r'^\t(\d+)\.(\S+)\t.*\((\w+)[^)]*\)\s*$', shown, re.MULTILINE)
    return [Session(int(pid), name, state) for pid, name, state in found]


# Processes of a host


def tree(host: TestHost) -> dict[int, HostProcess]:
    return {process.pid: process for process in host.processes()}


def descendants(host: TestHost, pid: int) -> list[HostProcess]:
    """The processes below this one, and itself first."""
    found = []
    processes = tree(host)
    todo = [pid]
    while todo:
        pid = todo.pop()
        if pid in processes:
            found.append(processes[pid])
        todo += [process.pid for process in processes.values() if process.ppid == pid]
    return found


def ancestors(host: TestHost, pid: int) -> list[HostProcess]:
    """The processes above this one, the nearest first."""
    found = []
    processes = tree(host)
    while pid in processes and processes[pid].ppid in processes:
        pid = processes[pid].ppid
        found.append(processes[pid])
    return found


def children_of(host: TestHost, pid: int) -> list[HostProcess]:
    return [process for process in host.processes() if process.ppid == pid]


def connections(host: TestHost) -> list[HostProcess]:
    """The processes of sshd that serve connections."""
    return [process for process in host.processes() if process.argv[0].startswith('sshd')]


def is_alive(host: TestHost, pid: int) -> bool:
    """Whether the process is there, and not just waiting to be reaped."""
    try:
        stat = (host.root / 'proc' / str(pid) / 'stat').read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(')')[2].split()[0] not in 'ZX'


def gone(host: TestHost, processes: Sequence[HostProcess]) -> None:
    """Wait until none of these processes is alive."""
    shown = [f'{process.pid} {" ".join(process.argv)[:100]}' for process in processes]
    wait_until(lambda: not any(is_alive(host, process.pid) for process in processes), f'the end of {shown}', PATIENCE)


def kill(host: TestHost, number: signal.Signals, *pids: int) -> None:
    """Send a signal to processes of the host, which may be gone."""
    host.run(['kill', f'-{number.value}', *map(str, pids)], check=False)
    if number == signal.SIGSTOP:
        for pid in pids:
            await_stop(pid, host.root / 'proc')


def agents(host: TestHost) -> list[HostProcess]:
    """The agents of remote_runner: Pythons that a login shell of sshd started with code of our bootstrap."""
    found = []
    for process in host.processes():
        is_python = 'python' in process.argv[0] and any('exec(i.read(' in argument for argument in process.argv)
        if is_python and any(above.argv[0].startswith('sshd') for above in ancestors(host, process.pid)):
            found.append(process)
    return found


def the_agent(host: TestHost) -> HostProcess:
    """The only agent of the host, which may yet have to come."""
    wait_until(lambda: len(agents(host)) == 1, f'an agent on {host.name}', PATIENCE)
    return agents(host)[0]


def launchers(host: TestHost, session: str) -> list[HostProcess]:
    """The processes that screen started in the windows of a session."""
    processes = host.processes()
    servers = {process.pid for process in processes if 'SCREEN' in process.argv[0] and session in process.argv}
    return [process for process in processes if process.ppid in servers]


# A test's own


@contextmanager
def deploying(bed: Testbed, folder: Path) -> Iterator[Deployment]:
    """A deployment that leaves the hosts with the processes and sessions that they had before."""
    before = {host.name: {process.pid for process in host.processes()} for host in bed.hosts}
    deployment = Deployment(bed, folder, f't{os.getpid()}-{next(_numbers)}')
    try:
        yield deployment
    finally:
        _clean_here(deployment.session)
        for host in bed.hosts:
            if host.machine.init:
                _clean(host, before[host.name])


_numbers = count(1)


def _scene(host: TestHost, session: str) -> str:
    columns = 'pid,ppid,stat,lstart,args'
    processes = host.run(['ps', 'axfww', '-o', columns], check=False).stdout.decode(errors='replace')
    notes = sorted(host.path('/root/.local/state/remote_runner/hosts').glob(f'*/{session}/*/*/status.json'))
    statuses = ''.join(f'{note.parent.name}: {note.read_text()}\n' for note in notes)
    return f'----- {host.name}\n{processes}{statuses}'


def _clean(host: TestHost, before: set[int]) -> None:
    """Kill all that was not there before, until nothing of it is left, and forget what is left of its sessions."""

    def nothing_left() -> bool:
        left = [process.pid for process in host.processes() if process.pid not in before]
        if left:
            kill(host, signal.SIGKILL, *left)
        return not left

    wait_until(nothing_left, f'{host.name} to be as before')
    for path in [*host.path('/run/screen').iterdir(), *host.path('/tmp').iterdir()]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _clean_here(session: str) -> None:
    """End our session on this machine, if there is one, with all its processes."""
    for socket in Path('/run/screen').glob(f'S-*/*.{session}'):
        family = [int(socket.name.partition('.')[0])]
        for pid in family:
            family += [child.pid for child in children(pid)]
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        socket.unlink(missing_ok=True)
    for lock in Path(f'/tmp/remote_runner-{os.getuid()}').glob(f'{session}.*lock'):
        lock.unlink()


def _matches(event: Json, kind: str, component: str | None, host: str | None) -> bool:
    wanted = {'event': kind, 'component': component, 'host': host}
    return all(event.get(name) == value for name, value in wanted.items() if value is not None)
