"""What jobs leave on hosts, and `remote_runner clean`, `find` and `killall`: dispatchers are ours, tasks the user's."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_runner.hosts.ssh import Connector, SshOptions
from remote_runner.jobs.engines.base import Ended
from tests.cleaning import Litter, outcomes
from tests.commands import Site
from tests.dispatching import Job
from tests.testbed import Testbed
from tests.testbed.process import wait_until

LONG = 40 * 86400.0


@pytest.fixture
def litter(bed: Testbed, tmp_path: Path) -> Iterator[Litter]:
    with Site(bed, tmp_path) as site:
        yield Litter(site)


@pytest.fixture
def job(litter: Litter, tmp_path: Path) -> Iterator[Job]:
    """A job of that user, which keeps the folders of failed tasks."""
    with Connector(SshOptions(config_file=str(litter.site.ssh_config))) as connector:
        job = Job(tmp_path, f'2/{litter.where}', connector, keep='failed')
        job.up()
        yield job
        job.engine.close('kill')


def _folders(litter: Litter) -> set[str]:
    return {path.name for path in litter.home.glob('.local/state/remote_runner/work/*/*')}


def _leave(litter: Litter, name: str, *files: str, age: float = 0.0) -> Path:
    """What a dispatcher that is gone has left."""
    [work] = litter.home.glob('.local/state/remote_runner/work/*')
    folder = work / name
    for each in ['lock', 'log', *files]:
        (folder / each).parent.mkdir(parents=True, exist_ok=True)
        (folder / each).touch()
    for path in [folder, *folder.rglob('*')]:
        os.chown(path, litter.account.uid, litter.account.gid)
        os.utime(path, (time.time() - age, time.time() - age))
    return folder


def test_what_a_living_dispatcher_has_stays(litter: Litter, job: Job) -> None:
    ended = job.start('exit 1')
    job.next(Ended)
    job.take(ended, keep=True)
    job.start('sleep 1000')
    shown = litter.clean('--keep', '0')
    assert ('job', 'removed') not in outcomes(shown)
    assert _folders(litter) == {job.id}
    assert job.run('echo on').results == {'stdout': b'on\n'}


def test_folders_of_jobs_that_are_over_go_but_for_the_newest(litter: Litter, job: Job) -> None:
    failed = job.start('exit 1')
    job.next(Ended)
    job.take(failed, keep=True)
    job.engine.close('drain')
    wait_until(lambda: not _pids(litter, 'agent/dispatcher.py'), 'the dispatcher to end')
    _leave(litter, 'older', '3.1/file', '3.1.kept', '3.1.stdout', age=3600)
    _leave(litter, 'torn', '4.1/file', '4.1.stdout', age=7200)
    assert outcomes(litter.clean())['job', 'removed'] == 2
    assert _folders(litter) == {job.id}
    assert outcomes(litter.clean('--keep', '0'))['job', 'removed'] == 1
    assert _folders(litter) == set()


def test_results_that_no_master_has_taken_wait_for_a_week(litter: Litter, job: Job) -> None:
    job.engine.close('drain')
    _leave(litter, 'waits', '3.1/file', '3.1.json', '3.1.stdout', age=3600)
    _leave(litter, 'forgotten', '3.1/file', '3.1.json', '3.1.stdout', age=LONG)
    shown = litter.clean('--keep', '0')
    assert [item['path'].rpartition('/')[2] for item in shown['items'] if item['kind'] == 'job'] == ['forgotten']
    assert _folders(litter) == {'waits'}


def test_dependencies_that_nobody_has_used_for_long_go(litter: Litter, job: Job) -> None:
    folder = litter.home / '.cache/remote_runner/dependencies'
    for name, age in [('used', 10 * 86400.0), ('unused', LONG), ('linked', LONG)]:
        (folder / name).mkdir(parents=True)
        (folder / name / 'data').touch()
        os.chown(folder / name, litter.account.uid, litter.account.gid)
        os.utime(folder / name, (time.time() - age, time.time() - age))
    os.chown(folder, litter.account.uid, litter.account.gid)
    task = _leave(litter, 'elsewhere', '3.1/file')
    inside = f'{litter.account.home}/.cache/remote_runner/dependencies'
    (task / '3.1' / 'dependencies').symlink_to(f'{inside}/linked')
    assert litter.shown()['dependencies'] == 1
    assert outcomes(litter.clean())['dependencies', 'removed'] == 1
    assert {path.name for path in folder.iterdir()} == {'used', 'linked'}


def test_a_job_marks_the_dependencies_that_it_uses(litter: Litter, tmp_path: Path) -> None:
    inside = '.cache/remote_runner/dependencies/brought'
    folder = litter.home / inside
    (folder / 'data').mkdir(parents=True)
    links = {'dependencies': f'{litter.account.home}/{inside}/data'}
    litter.host.run(['chown', '-R', litter.user, f'{litter.account.home}/.cache'])
    os.utime(folder, (1, 1))
    with Connector(SshOptions(config_file=str(litter.site.ssh_config))) as connector:
        job = Job(tmp_path, litter.where, connector, prepare=lambda host: links)
        job.up()
        job.engine.close('drain')
    assert folder.stat().st_mtime > time.time() - 3600


def test_find_and_killall_see_tasks_and_no_dispatchers(litter: Litter, job: Job) -> None:
    key = job.start('exec sleep 123456')
    wait_until(lambda: bool(_pids(litter, '123456')), 'the task to run')
    where = ['-F', litter.site.ssh_config, '-H', litter.where]
    for text in ('dispatcher.py', 'remote_runner'):
        litter.site.run('killall', text, *where, '--yes', status=None)
    assert len(_pids(litter, 'agent/dispatcher.py')) == 2
    assert litter.site.run('find', '123456', *where).status == 0
    litter.site.run('killall', '123456', *where, '--yes')
    ended = job.end_of(key)
    assert ended.outcome.status == 143
    assert job.run('echo on').results == {'stdout': b'on\n'}


def _pids(litter: Litter, word: str) -> list[int]:
    return [one.pid for one in litter.host.processes() if any(word in argument for argument in one.argv[:4])]
