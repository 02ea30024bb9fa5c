"""scripts/demo and scripts/test, as a newcomer calls them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pages import ROOT
from tests.privileges import unprivileged
from tests.testbed import registry

Script = Callable[..., subprocess.CompletedProcess[str]]


def run(script: str, *arguments: str, cwd: Path = Path('/'), **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / 'scripts' / script, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **variables},
    )


@pytest.fixture(scope='module')
def demo() -> Iterator[Script]:
    """scripts/demo with a bed of its own, which is gone afterwards."""
    bed = f'demo-test-{os.getpid()}'

    def demo(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        return run('demo', *arguments, cwd=cwd, DEMO_BED=bed)

    yield demo
    down = demo('down')
    assert down.returncode == 0, down.stdout + down.stderr
    assert not (ROOT / f'.{bed}').exists()
    assert bed not in [claim.name for claim in registry.claims()]
    assert demo('down').returncode == 0


class TestDemo:
    def test_deploys_the_example_and_its_commands_work(self, demo: Script, tmp_path: Path) -> None:
        for folder in (ROOT, tmp_path):  # the second time, the hosts are there
            done = demo(cwd=folder)
            assert done.returncode == 0, done.stdout + done.stderr
            assert '9 components: 9 started' in done.stdout
            [look] = re.findall('^look at h1 +(.*) screen -x runner$', done.stdout, re.MULTILINE)
            listed = subprocess.run([*look.split(), 'screen', '-ls'], capture_output=True, text=True, cwd=folder)
            assert len(re.findall(r'\d+\.runner', listed.stdout)) == 1, listed

    def test_the_command_it_shows_is_the_one_it_runs(self, demo: Script) -> None:
        shown = demo().stdout
        [command] = re.findall(r'^\$ (.*\\\n.*)$', shown, re.MULTILINE)
        again = subprocess.run(['bash', '-c', command], capture_output=True, text=True, cwd=ROOT)
        assert '9 components: 9 started' in again.stdout, again.stderr

    def test_wrong_usage(self) -> None:
        done = run('demo', 'up')
        assert done.returncode == 2
        assert done.stderr.startswith('scripts/demo: what is up?')

    def test_help_needs_no_root(self, open_scripts: Path) -> None:
        with unprivileged():
            done = subprocess.run([open_scripts / 'demo', '--help'], capture_output=True, text=True)
        assert 'scripts/demo down' in done.stdout, done.stderr

    def test_without_root_it_says_what_to_do(self, open_scripts: Path) -> None:
        (open_scripts / 'bash').symlink_to('/bin/bash')  # and no sudo
        for name in ('dirname', 'id'):
            (open_scripts / name).symlink_to(f'/usr/bin/{name}')
        with unprivileged():
            done = subprocess.run(
                [open_scripts / 'demo'], capture_output=True, text=True, env={'PATH': str(open_scripts)}
            )
        assert done.returncode == 1
        assert done.stderr == f'test hosts need root, and there is no sudo: run {open_scripts}/demo as root\n'


@pytest.fixture
def open_scripts() -> Iterator[Path]:
    """The scripts in a folder that everybody may enter, which the repository's may not be."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(shutil.copytree(ROOT / 'scripts', Path(folder) / 'scripts'))


class TestTest:
    def test_with_arguments_only_pytest_runs(self, tmp_path: Path) -> None:
        done = run('test', 'tests/test_address.py', '-q', '-k', 'fold', cwd=tmp_path)
        assert done.returncode == 0, done.stdout
        assert re.match(r'\d+ passed', done.stdout.splitlines()[-1])
        assert 'ruff' not in done.stdout

    def test_a_failing_step_ends_it_with_what_it_said(self) -> None:
        script = f'. {ROOT}/scripts/setup; step first true; step second sh -c "echo why; exit 3"; echo never'
        done = subprocess.run(['bash', '-c', script], capture_output=True, text=True)
        assert done.returncode == 3
        assert re.fullmatch(r'first +ok +\d+\.\d s\nsecond +FAILED \(exit status 3\)\nwhy\n', done.stdout)
