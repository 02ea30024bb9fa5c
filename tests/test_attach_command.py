"""`remote_runner attach`: a person's terminal in the window of a component."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.attaching import Terminal
from tests.deploying import Deployment

#: A script that says what is typed.
_HEARS = 'echo it listens; while read line; do echo "heard $line"; done'


@pytest.fixture
def deployed(deployment: Deployment) -> Deployment:
    """Two components on a host, each of which says what is typed, and one on another."""
    for name in ('first', 'second'):
        deployment.sh(name, f'echo this is {name}; while read line; do echo "{name} heard $line"; done')
    deployment.sleep('far', 'h2')
    assert deployment.run().status == 0
    return deployment


def _words(deployment: Deployment, *arguments: str) -> list[str]:
    variables = [f'{name}={value}' for name, value in deployment.environment.items() if name != 'TERM']
    command = [*deployment.command()[:3], 'attach', *arguments, '--screen', deployment.session]
    return ['env', *variables, *command]


@contextmanager
def _terminal(deployment: Deployment, folder: Path, *arguments: str) -> Iterator[Terminal]:
    command = _words(deployment, *arguments)
    script = f'{subprocess.list2cmdline(command)}; echo "status $?"; exec sleep 1000'
    terminal = Terminal(folder, ['sh', '-c', script])
    try:
        yield terminal
    finally:
        terminal.close()


def test_it_shows_that_window_and_takes_keys(deployed: Deployment, tmp_path: Path) -> None:
    with _terminal(deployed, tmp_path, 'second') as terminal:
        terminal.wait_for('this is second')
        terminal.press('hello', 'Enter')
        assert 'second heard hello' in terminal.wait_for('second heard hello')
        terminal.press('C-a', 'd')
        terminal.wait_for('status 0')


def test_read_only_sends_nothing(deployed: Deployment, tmp_path: Path) -> None:
    with _terminal(deployed, tmp_path, 'first@h1', '--read-only') as terminal:
        terminal.wait_for('this is first')
        terminal.press('hello', 'Enter')
        terminal.press('q')
        terminal.wait_for('status 0')
    assert b'hello' not in deployed.output_log('first').read_bytes()


@pytest.mark.parametrize(
    ('arguments', 'words', 'status'),
    [
        (['*@h1'], 'means 2 components', 2),
        (['nobody'], 'no component', 2),
        ([], 'required: NAME', 2),
    ],
)
def test_what_it_cannot_mean(
    deployed: Deployment, tmp_path: Path, arguments: list[str], words: str, status: int
) -> None:
    with _terminal(deployed, tmp_path, *arguments) as terminal:
        text = terminal.wait_for(f'status {status}')
    assert words in text


def test_a_window_that_is_gone(deployed: Deployment, tmp_path: Path) -> None:
    deployed.quit()
    with _terminal(deployed, tmp_path, 'first') as terminal:
        text = terminal.wait_for('status 1')
    assert 'its session has ended' in ' '.join(text.split())


def test_without_a_terminal(deployed: Deployment) -> None:
    done = subprocess.run(
        _words(deployed, 'first'), stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd='/', timeout=60
    )
    assert done.returncode == 2
    assert 'terminal' in done.stderr


class TestJson:
    """Where a window is, and a command that shows it to whoever runs it."""

    @staticmethod
    def ask(deployment: Deployment, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            _words(deployment, '--json', *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd='/',
            timeout=60,
        )
        assert done.returncode == status, done.stderr
        return done

    @staticmethod
    def check_command(command: list[str], deployment: Deployment, folder: Path, words: str) -> None:
        """What the command shows is the window: its words are there, and keys reach its program."""
        variables = [f'{name}={value}' for name, value in deployment.environment.items() if name != 'TERM']
        terminal = Terminal(folder, ['env', *variables, *command])
        try:
            terminal.wait_for(words)
            terminal.press('hello', 'Enter')
            terminal.wait_for('heard hello')
        finally:
            terminal.close()

    def test_of_a_host(self, deployed: Deployment, tmp_path: Path) -> None:
        shown = json.loads(self.ask(deployed, 'second').stdout)
        command = shown.pop('command')
        [number] = [number for number, title in deployed.windows().items() if title == 'second']
        assert shown == {
            'component': 'second',
            'host': 'h1',
            'session': deployed.session,
            'server': f'{deployed.the_session().pid}.{deployed.session}',
            'window': number,
        }
        assert command[:5] == ['ssh', '-F', str(deployed.bed.ssh_config), '-t', 'h1']
        assert deployed.the_session().state == 'Detached'
        self.check_command(command, deployed, tmp_path, 'this is second')

    def test_of_another_user_and_port(self, deployment: Deployment, tmp_path: Path) -> None:
        user = deployment.user('anne')
        deployment.sh('theirs', _HEARS, 'h1:22')
        assert deployment.run('-u', user).status == 0
        command = json.loads(self.ask(deployment, 'theirs@h1:22').stdout)['command']
        assert command[:7] == ['ssh', '-F', str(deployment.bed.ssh_config), '-p', '22', '-t', f'{user}@h1']
        self.check_command(command, deployment, tmp_path, 'it listens')

    def test_of_this_machine(self, deployment: Deployment, tmp_path: Path) -> None:
        deployment.sh('here', _HEARS, 'localhost')
        assert deployment.run().status == 0
        command = json.loads(self.ask(deployment, 'here').stdout)['command']
        assert 'ssh' not in command
        self.check_command(command, deployment, tmp_path, 'it listens')

    def test_where_there_is_no_window(self, deployed: Deployment) -> None:
        deployed.quit()
        done = self.ask(deployed, 'first', status=1)
        assert 'its session has ended' in done.stderr
        assert done.stdout == ''

    def test_what_it_cannot_mean(self, deployed: Deployment) -> None:
        assert 'means 2 components' in self.ask(deployed, '*@h1', status=2).stderr
        assert 'exclude each other' in self.ask(deployed, 'first', '--read-only', status=2).stderr
