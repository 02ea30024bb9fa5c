"""The ssh engine against hosts: what they bring, what becomes of it when they are cut off, full, or without power."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from remote_runner.hosts.ssh import Connector, SshOptions
from remote_runner.jobs.engines.base import Ended, HostDown, HostSilent, HostUp
from remote_runner.jobs.policy import Cause
from tests.dispatching import Job, content
from tests.testbed import Testbed, TestHost
from tests.testbed.process import wait_until

Begin = Callable[..., Job]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """A job on a host of a bed: `begin(bed, '2/h1', lease=5.0)`; its engine is closed, and nothing is left of it."""
    with ExitStack() as stack:

        def make(bed: Testbed, address: str, **terms: object) -> Job:
            connector = stack.enter_context(Connector(SshOptions(config_file=str(bed.ssh_config))))
            job = Job(tmp_path, address, connector, **terms)
            before = _left(bed[job.host])
            stack.callback(lambda: _leave(bed[job.host], job, before))
            return job

        yield make


def _leave(host: TestHost, job: Job, before: set[bytes]) -> None:
    job.engine.close('drain')
    wait_until(lambda: not _behind(host), f'{host} to be left')
    assert _left(host) <= before


def _left(host: TestHost) -> set[bytes]:
    """What jobs have left there, other ones too: of failed tasks."""
    found = host.run(['sh', '-c', 'find /root/.local/state/remote_runner/work -mindepth 2 2>/dev/null; true']).stdout
    return set(found.splitlines())


def _behind(host: TestHost) -> list[int]:
    return [one.pid for one in host.processes() if any('agent/dispatcher.py' in word for word in one.argv)]


def _marked(host: TestHost, word: str) -> list[int]:
    """The processes of tasks whose commands have this word."""
    return [one.pid for one in host.processes() if any(word in argument for argument in one.argv)]


def test_many_tasks_over_ssh(bed: Testbed, begin: Begin) -> None:
    job = begin(bed, '3/h1')
    assert job.up().slots == 3
    keys = [job.start('echo $RR_TASK $RR_HOST; head -c 100000 /dev/zero') for _ in range(60)]
    slots = set()
    for number, key in enumerate(keys):
        ended = job.end_of(key)
        assert content(ended.results['stdout']) == b'%d h1\n' % (number + 1000) + bytes(100_000)
        slots.add(ended.slot)
    assert slots == {1, 2, 3}


def test_a_host_that_is_cut_off_goes_on_and_is_found_again(fresh_bed: Callable[..., Testbed], begin: Begin) -> None:
    bed = fresh_bed(1)
    host = bed['h1']
    job = begin(bed, '2/h1', lease=40.0)
    job.up()
    key = job.start('while ! test -e /tmp/go; do sleep 0.05; done; echo went on')
    wait_until(lambda: bool(_marked(host, '/tmp/go')), 'the task to run')
    sshd = [one.pid for one in host.processes() if one.argv[0].startswith('sshd')]
    host.run(['sh', '-c', 'kill -9 ' + ' '.join(map(str, sshd))])
    job.next(HostSilent)
    host.path('/tmp/go').touch()
    assert job.up().have == {key}
    assert job.end_of(key).results == {'stdout': b'went on\n'}


def test_a_host_whose_cable_is_out_ends_its_tasks_with_the_lease(
    fresh_bed: Callable[..., Testbed], begin: Begin
) -> None:
    bed = fresh_bed(1)
    host = bed['h1']
    job = begin(bed, '2/h1', lease=2.0)
    job.up()
    over = job.start('echo over')
    job.end_of(over, take=False)
    job.start('sleep 1000; true marked')
    wait_until(lambda: bool(_marked(host, 'marked')), 'the task to run')
    host.cut()
    try:
        job.next(HostSilent)
        job.next(HostDown)
        wait_until(lambda: not _marked(host, 'marked') and not _behind(host), 'its tasks to end')
    finally:
        host.heal()
    assert job.up().have == {over}
    assert job.end_of(over).results == {'stdout': b'over\n'}


def test_a_host_that_loses_its_power_begins_anew(fresh_bed: Callable[..., Testbed], begin: Begin) -> None:
    bed = fresh_bed(1)
    host = bed['h1']
    job = begin(bed, '2/h1', lease=3.0)
    job.up()
    over = job.start('echo over; echo its result >file', results={'out': 'stdout', 'file': 'file'})
    job.end_of(over, take=False)
    job.start('sleep 1000')
    host.kill()
    job.next(HostSilent)
    host.boot()
    up = job.up()
    assert up.have <= {over}  # what the disk has kept
    if up.have:
        assert job.end_of(over).results == {'out': b'over\n', 'file': b'its result\n'}
    assert job.run('echo on').results == {'stdout': b'on\n'}


# ---- disks -----------------------------------------------------------------------------------------------------


def test_a_full_disk_is_never_a_success(fresh_bed: Callable[..., Testbed], begin: Begin) -> None:
    bed = fresh_bed(1)
    host = bed['h1']
    host.tmpfs('/root/.local/state', size='2M')
    job = begin(bed, '2/h1')
    job.up()
    assert job.run('head -c 500000 /dev/zero').outcome.cause is None
    for command in ('head -c 10000000 /dev/zero', 'head -c 10000000 /dev/zero; true', 'yes >file; true'):
        ended = job.run(command)
        assert ended.outcome.cause is Cause.RESOURCES, (command, ended)
        assert ended.results == {}
    ended = job.run('true', inputs={'stdin': bytes(5_000_000)})
    assert ended.outcome.cause is Cause.RESOURCES
    assert 'No space left' in ended.outcome.why
    assert job.run('echo there is room; head -c 500000 /dev/zero').outcome.cause is None  # theirs was given back
    work = host.path('/root/.local/state/remote_runner/work')
    wait_until(lambda: {path.name for path in work.rglob('*') if path.is_file()} == {'lock', 'log'}, 'room')
    host.run(['sh', '-c', 'yes >/root/.local/state/filled; true'])
    for _ in range(10):
        assert job.run('echo x').outcome.cause is Cause.RESOURCES
        assert job.run('exit 5').outcome.cause is Cause.RESOURCES
    host.path('/root/.local/state/filled').unlink()
    assert job.run('echo again').results == {'stdout': b'again\n'}
    assert not [fact for fact in job.facts if isinstance(fact, HostSilent | HostDown | HostUp | Ended)]


def test_a_dispatcher_that_begins_on_a_full_disk(fresh_bed: Callable[..., Testbed], begin: Begin) -> None:
    bed = fresh_bed(1)
    host = bed['h1']
    host.tmpfs('/root/.local/state', size='1M')
    host.run(['sh', '-c', 'yes >/root/.local/state/filled; true'])
    job = begin(bed, '1/h1')
    job.up()
    assert job.run('head -c 200000 /dev/zero').outcome.cause is Cause.RESOURCES
    host.path('/root/.local/state/filled').unlink()
    assert content(job.run('head -c 200000 /dev/zero').results['stdout']) == bytes(200_000)


def test_a_disk_without_room_for_more_files(fresh_bed: Callable[..., Testbed], begin: Begin) -> None:
    bed = fresh_bed(1)
    host = bed['h1']
    host.tmpfs('/root/.local/state', size='4M')
    job = begin(bed, '1/h1')
    job.up()
    assert job.run('true').outcome.cause is None
    fill = 'mkdir full && cd full && n=0; while touch $n; do n=$((n+1)); done 2>/dev/null; true'
    host.run(['sh', '-c', f'mount -o remount,nr_inodes=200 /root/.local/state; cd /root/.local/state && {fill}'])
    ended = job.run('echo x')
    assert ended.outcome.cause is Cause.RESOURCES
    host.run(['rm', '-rf', '/root/.local/state/full'])
    assert job.run('echo again').results == {'stdout': b'again\n'}


# ---- memory ----------------------------------------------------------------------------------------------------


def test_who_is_killed_because_the_host_has_no_memory(
    fresh_bed: Callable[..., Testbed], begin: Begin, tmp_path: Path
) -> None:
    """The kernel kills, and counts that: what it kills is no fault of the task. Here the count alone is ours."""
    bed = fresh_bed(1)
    host = bed['h1']
    counter = tmp_path / 'vmstat'
    counter.write_text('pgfault 17\noom_kill 3\n')
    host.share('/proc/vmstat', counter)
    job = begin(bed, '2/h1')
    job.up()
    kernel = 'echo oom_kill {} >/proc/vmstat; '
    ended = job.run(kernel.format(4) + 'kill -9 $$')
    assert (ended.outcome.cause, ended.outcome.why) == (Cause.RESOURCES, 'the host had no memory left')
    ended = job.run('kill -9 $$')
    assert (ended.outcome.cause, ended.outcome.status) == (Cause.EXIT, 137)
    ended = job.run(kernel.format(5) + 'exit 3')
    assert (ended.outcome.cause, ended.outcome.status) == (Cause.EXIT, 3)
