"""Batches that go on without the terminal that began them: `--detach`, `--detach-to` and `jobs attach`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_runner.jobs.holding import master
from tests.commands import ROOT, Site
from tests.testbed import Testbed, TestHost
from tests.testbed.process import wait_until


class Background(Site):
    """Somebody who lets batches go on by themselves."""

    def commands(self, *lines: str) -> Path:
        return self.file('commands', ''.join(f'{line}\n' for line in lines))

    def sessions(self) -> str:
        """The screen sessions of jobs of this home."""
        found = [path.name for path in Path('/run/screen').glob('S-*/*') if '.job-' in path.name]
        return ' '.join(name for name in found if name.partition('.job-')[2] in self.jobs())

    def jobs(self) -> list[str]:
        folder = self.home / '.local/state/remote_runner/jobs'
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _link(source: str, target: str) -> None:
    """A copy, or where that can be another name."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@pytest.fixture
def background(bed: Testbed, tmp_path: Path) -> Iterator[Background]:
    with Background(bed, tmp_path) as site:
        yield site
        for job in site.jobs():
            site.run('jobs', 'cancel', job, status=None)
        wait_until(lambda: not site.sessions(), 'the end of the sessions of jobs')


def test_it_goes_on_and_is_followed(background: Background) -> None:
    commands = background.commands(*(f'sleep 0.5; echo {number}' for number in range(8)), 'echo no; exit 3')
    words = ['batch', commands, '-F', background.ssh_config, '-H', '2/h1,2/h2', '--retries', '0']
    done = background.run(*words, '--detach')
    assert done.out == b''
    [job] = background.jobs()
    assert f'jobs attach {job}' in done.stderr
    background.run('jobs', 'show', job)
    followed = background.run('jobs', 'attach', '--format', 'text', '--keep-order', status=1)
    assert followed.stdout.split() == [str(number) for number in range(8)]
    assert '8 of 9 tasks done' in followed.stderr
    assert 'task 8' in followed.stderr
    # When it is over its results are still there, and so are its numbers.
    again = background.run('jobs', 'attach', job[:15], '--format', 'jsonl', '--json', status=1)
    assert {line['index'] for line in again.objects} == set(range(9))
    [numbers] = [json.loads(line) for line in again.stderr.splitlines() if line.startswith('{')]
    assert (numbers['done'], numbers['failed']) == (8, {'exit': 1})


def test_ctrl_c_ends_the_following_alone(background: Background) -> None:
    commands = background.commands('sleep 3; echo done')
    background.run('batch', commands, '-F', background.ssh_config, '-H', 'h1', '--detach')
    with background.start('jobs', 'attach') as following:
        wait_until(lambda: b'follow' in following.err, 'the follower')
        following.signal(signal.SIGINT)
        assert following.end().status == 130
    assert background.run('jobs', 'attach', '--format', 'text').stdout == 'done\n'


def test_standard_input_is_read_to_its_end(background: Background, tmp_path: Path) -> None:
    lines = tmp_path / 'lines'
    lines.write_text('echo a\n\necho b\n')
    with lines.open() as stdin:
        background.run('batch', '-', '-F', background.ssh_config, '-H', 'h1', '--detach', stdin=stdin)
    followed = background.run('jobs', 'attach', '--format', 'text', '-k')
    assert followed.stdout == 'a\nb\n'


def test_a_master_that_was_killed_is_told(background: Background) -> None:
    commands = background.commands('sleep 1', 'sleep 100')
    background.run('batch', commands, '-F', background.ssh_config, '-H', '2/h1', '--detach', '--lease', '2')
    [job] = background.jobs()
    found = master(background.home / '.local/state/remote_runner/jobs' / job)
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)
    wait_until(lambda: not background.sessions(), 'the end of its session')
    done = background.run('jobs', 'attach', status=1)
    assert f'jobs resume {job}' in done.stderr


def test_what_only_a_person_could_give_is_asked_for_before(background: Background) -> None:
    commands = background.commands('true')
    done = background.run(
        'batch', commands, '-F', background.ssh_config, '-H', 'h1', '--detach', '-p', 'secret', status=2
    )
    assert 'RR_PASS_FILE' in done.stderr
    lines = [
        'Host h1',
        f'HostName {background.bed["h1"].address}',
        'IdentityFile /nonexistent',
        'IdentitiesOnly yes',
        f'UserKnownHostsFile {background.bed.known_hosts}',
    ]
    config = background.file('no_key', '\n'.join(lines))
    done = background.run('batch', commands, '-F', config, '-H', 'h1', '--detach', status=3)
    assert 'the job was not begun' in done.stderr
    assert background.jobs() == []


class TestElsewhere:
    """`--detach-to`: the master runs on h1, and the tasks on others."""

    @pytest.fixture
    def h1(self, bed: Testbed) -> Iterator[TestHost]:
        """A host with remote_runner and a key of its own."""
        host = bed['h1']
        home = host.root / 'root'
        package = home / 'package'
        shutil.copytree(ROOT / 'remote_runner', package / 'remote_runner', ignore=shutil.ignore_patterns('__pycache__'))
        command = home / '.local/bin/remote_runner'
        command.parent.mkdir(parents=True, exist_ok=True)
        # Hosts do not see what lies in /tmp here, where the project may be.
        shutil.copytree(sysconfig.get_paths()['purelib'], package / 'libraries', copy_function=_link)
        path = 'PYTHONPATH=/root/package:/root/package/libraries'
        command.write_text(f'#!/bin/sh\n{path} exec /usr/bin/python3 -P -m remote_runner "$@"\n')
        command.chmod(0o755)
        config = bed.ssh_config.read_text()
        for name in ('key', 'known_hosts'):
            own = home / '.ssh' / f'bed_{name}'
            shutil.copyfile(getattr(bed, name), own)
            own.chmod(0o600)
            config = config.replace(str(getattr(bed, name)), f'/root/.ssh/{own.name}')
        (home / '.ssh/config').write_text(config)
        yield host
        for name in ('.ssh/config', '.ssh/bed_key', '.ssh/bed_known_hosts', '.local/bin/remote_runner'):
            (home / name).unlink()
        shutil.rmtree(package, ignore_errors=True)
        shutil.rmtree(home / '.cache/remote_runner/detached', ignore_errors=True)
        shutil.rmtree(home / '.local/state/remote_runner/jobs', ignore_errors=True)

    def test_it_goes_on_there(self, background: Background, h1: TestHost) -> None:
        commands = background.commands('cat dependencies/x', "echo 'it'\"'\"'s $RR_HOST'", 'exit 75')
        background.file('needed/x', 'needed\n')
        done = background.run(
            'batch', commands, background.folder / 'needed', '-F', background.ssh_config, '-H', '2/h2', '-H', 'h3',
            '--detach-to', 'h1', '--retry-on', 'timeout', '--keep', 'none',
        )  # fmt: skip
        assert 'ssh h1 remote_runner jobs attach' in done.stderr
        assert background.jobs() == []
        followed = h1.run(['/root/.local/bin/remote_runner', 'jobs', 'attach', '--format', 'jsonl'], check=False)
        found = {line['index']: line for line in map(json.loads, followed.stdout.splitlines())}
        assert found[0]['stdout'] == 'needed\n'
        assert found[1]['stdout'] == "it's $RR_HOST\n"
        assert (found[2]['status'], found[2]['attempt']) == (75, 1)

    def test_without_credentials_there(self, background: Background, h1: TestHost) -> None:
        """We can reach the hosts, and it cannot: that is told before anything is begun."""
        (h1.root / 'root/.ssh/bed_key').write_text('no key\n')
        commands = background.commands('touch /tmp/mark')
        words = ['batch', commands, '-F', background.ssh_config, '-H', 'h2,h3', '--detach-to', 'h1']
        done = background.run(*words, status=3)
        assert 'the job was not begun: it could not ask anybody for what is missing' in done.stderr
        for name in ('h2', 'h3'):
            assert re.search(rf'(?m)^ERROR: {name}: .*root', done.stderr), done
            assert not background.bed[name].path('/tmp/mark').exists()
        assert 'jobs attach' not in done.stderr
        assert list(h1.path('/root/.local/state/remote_runner/jobs').glob('*')) == []

    def test_without_remote_runner_there(self, background: Background) -> None:
        commands = background.commands('true')
        words = ['batch', commands, '-F', background.ssh_config, '-H', 'h3', '--detach-to', 'h2']
        done = background.run(*words, status=2)
        assert 'h2: there is no remote_runner on it (pip install remote_runner there)' in done.stderr
