"""`remote_runner attach`: a person's terminal in the window of a component."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.attaching import Terminal
from tests.deploying import Deployment


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
