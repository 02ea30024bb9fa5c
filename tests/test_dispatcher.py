"""Tasks on a host: what they find there, what they may bring, and how they end. All of them are real processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_runner.hosts.bootstrap import agent_key
from remote_runner.jobs.engines.base import Ended, Started
from remote_runner.jobs.policy import Cause, Outcome
from tests.dispatching import Job, behind, content, gone, is_alive, job_of, pid_in, work_folder
from tests.testbed.process import wait_until

GOOD = Outcome(None, 0)


@pytest.fixture
def job(home: Path) -> Iterator[Job]:
    with job_of(home) as job:
        yield job


# ---- what they find --------------------------------------------------------------------------------------------


def test_a_task_knows_what_it_is(job: Job) -> None:
    ended = job.run('echo $RR_TASK $RR_ATTEMPT $RR_HOST $RR_SLOT')
    assert ended.outcome == GOOD
    assert ended.results == {'stdout': b'1000 1 localhost %d\n' % ended.slot}
    assert ended.slot in (1, 2)


def test_its_folder_is_empty_and_its_own(job: Job) -> None:
    for _ in range(3):
        assert job.run('ls -A; touch something; pwd >&2').results == {'stdout': b''}


def test_inputs_lie_in_its_folder(job: Job) -> None:
    inputs = {'a b': b'1', 'deep/er/in.dat': bytes(range(256)), 'ü\udcff': b'odd', 'empty': b''}
    inputs['stdin'] = b'x' * 100_000
    ended = job.run('cat "a b" deep/er/in.dat; cat ./*ü*; cat empty; wc -c; ls -A | wc -l', inputs=inputs)
    assert content(ended.results['stdout']) == b'1' + bytes(range(256)) + b'odd' + b'100000\n4\n'


def test_without_input_its_standard_input_is_empty(job: Job) -> None:
    assert job.run('readlink /proc/self/fd/0; cat').results == {'stdout': b'/dev/null\n'}


def test_dependencies_are_found(home: Path, tmp_path: Path) -> None:
    (tmp_path / 'brought').mkdir()
    (tmp_path / 'brought' / 'data').write_text('here')
    job = Job(tmp_path, prepare=lambda host: {'dependencies': str(tmp_path / 'brought')})
    job.up()
    assert job.run('cat dependencies/data; touch x').results == {'stdout': b'here'}
    job.engine.close('drain')
    assert (tmp_path / 'brought' / 'data').read_text() == 'here'


def test_variables_of_the_job_and_of_the_login_are_there(home: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, environment={'WHAT': 'ü \udcff\n', 'RR_HOST': 'not this'})
    job.up()
    expected = 'ü \udcff\n'.encode('utf-8', 'surrogateescape')
    assert job.run('printf %s "$WHAT"; printf %s "$HOME"').results['stdout'] == expected + os.fsencode(home)
    job.engine.close('drain')


def test_it_begins_with_default_signals_and_three_files(job: Job) -> None:
    said = content(job.run('cat /proc/self/status; ls /proc/self/fd').results['stdout'])
    lines = dict(line.split(b':\t', 1) for line in said.splitlines() if b':\t' in line)
    glibc_keeps = 0b11 << 31  # posix_spawn ignores 32 and 33 for what it starts
    assert int(lines[b'SigIgn'], 16) & ~glibc_keeps == 0
    assert int(lines[b'SigBlk'], 16) == 0
    assert said.splitlines()[-4:] == [b'0', b'1', b'2', b'3']  # 3: the folder that ls reads


@pytest.mark.parametrize('size', [1000, 119_999, 120_001, 131_073, 200_000, 1_000_000])
def test_commands_of_any_size(job: Job, size: int) -> None:
    command = 'printf %s ' + 'x' * size + ' | wc -c; echo "$RR_TASK"'
    assert job.run(command).results == {'stdout': b'%d\n1000\n' % size}


def test_commands_that_are_no_plain_text(job: Job) -> None:
    odd = 'printf %s "\udcff\udc80ü\t"\nprintf "\\n"\n'
    assert job.run(odd).results == {'stdout': b'\xff\x80\xc3\xbc\t\n'}
    assert job.run('printf %s "quo\'te" \'dou"ble\' \\$HOME').results == {'stdout': b'quo\'tedou"ble$HOME'}


def test_what_cannot_be_a_command_is_no_end_of_the_others(job: Job) -> None:
    other = job.start('sleep 0.2; echo fine')
    ended = job.run('echo a\0b')
    assert ended.outcome.cause is Cause.RESOURCES
    assert 'null byte' in ended.outcome.why
    assert job.end_of(other).results == {'stdout': b'fine\n'}


def test_inputs_that_cannot_be_written_are_said(job: Job) -> None:
    for name in ('a\0b', 'n' * 300):
        ended = job.run('true', inputs={name: b''})
        assert ended.outcome.cause is Cause.RESOURCES
        assert 'cannot be started' in ended.outcome.why
        assert 0 <= ended.seconds < 60


# ---- what they bring -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('size', [0, 1, 32767, 32768, 32769, 262_144, 10_000_000])
def test_results_of_any_size(job: Job, size: int) -> None:
    program = f'{sys.executable} -c "import sys; sys.stdout.buffer.write(bytes(range(256)) * {size // 256 + 1})"'
    program += ' 2>/dev/null'  # it may find that nobody reads the end of it
    ended = job.run(f'{program} | head -c {size} | tee file >&2; cat file', results={
        'out': 'stdout', 'err': 'stderr', 'file': 'file',
    })  # fmt: skip
    expected = (bytes(range(256)) * (size // 256 + 1))[:size]
    assert ended.outcome == GOOD
    assert {name: content(result) for name, result in ended.results.items()} == dict.fromkeys(
        ['out', 'err', 'file'], expected
    )


def test_small_and_large_ones_do_not_mix(job: Job) -> None:
    commands = [f'head -c {size} /dev/zero | tr "\\0" "\\{n + 48:o}"' for n, size in enumerate([5, 40_000, 7, 300_000])]
    keys = [job.start(command) for command in commands * 5]
    for number, key in enumerate(keys):
        size = [5, 40_000, 7, 300_000][number % 4]
        assert content(job.end_of(key).results['stdout']) == bytes([48 + number % 4]) * size


def test_results_in_subfolders_and_by_links(job: Job) -> None:
    command = 'mkdir -p a/b; echo 1 >a/b/c; ln -s a/b/c link; echo 2 >"ü ?"'
    ended = job.run(command, results={'deep': 'a/b/c', 'link': 'link', 'odd': 'ü ?'})
    assert ended.results == {'deep': b'1\n', 'link': b'1\n', 'odd': b'2\n'}


@pytest.mark.parametrize(
    ('command', 'why'),
    [
        ('true', 'left no wanted: No such file'),
        ('mkdir wanted', 'is no file'),
        ('mkfifo wanted', 'is no file'),
        ('ln -s wanted wanted', 'left no wanted: Too many levels'),
        ('ln -s /dev/zero wanted', 'is no file'),
        ('echo x >wanted; rm -rf "$PWD"', 'left no wanted: No such file'),
    ],
)
def test_what_is_no_result_is_rejected(job: Job, command: str, why: str) -> None:
    ended = job.run(f'echo told >&2; {command}', results={'out': 'stdout', 'wanted': 'wanted'})
    assert ended.outcome.cause is Cause.REJECTED
    assert why in ended.outcome.why
    assert ended.results == {}
    assert ended.tail == 'told\n'


def test_a_task_that_removes_what_it_prints_is_rejected(job: Job) -> None:
    assert job.run('rm ../*.stdout').outcome.cause is Cause.REJECTED
    assert job.run('rm ../1.1.stdout; mkfifo ../1.1.stdout; exit 3').outcome == Outcome(
        Cause.EXIT, 3
    )


def test_what_it_leaves_is_removed_whatever_it_is(job: Job) -> None:
    deep = 'd=; for n in $(seq 200); do mkdir x; cd x; done; touch bottom'
    assert job.run(f'mkdir -p closed/in; touch closed/in/file; chmod -R 0 closed; mkfifo pipe; {deep}').outcome == GOOD


# ---- how they end ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('status', [1, 2, 75, 126, 127, 128, 137, 143, 200, 255])
def test_exit_statuses(job: Job, status: int) -> None:
    ended = job.run(f'echo said; exit {status}')
    assert ended.outcome == Outcome(Cause.EXIT, status)
    assert (ended.tail, ended.results) == ('said\n', {})


def test_the_death_by_each_signal(job: Job) -> None:
    harmless = {signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT}
    stopping = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
    numbers = [number for number in signal.valid_signals() - harmless - stopping if number not in (32, 33)]
    keys = {number: job.start(f'ulimit -c 0; trap - {int(number)}; kill -{int(number)} $$') for number in numbers}
    for number, key in keys.items():
        assert job.end_of(key).outcome == Outcome(Cause.EXIT, 128 + number)


def test_a_time_limit_ends_it_also_if_it_does_not_want_to(job: Job, tmp_path: Path) -> None:
    pid = tmp_path / 'pid'
    background = "(trap '' TERM; while :; do sleep 1; done) &"
    ended = job.run(f"trap '' TERM HUP INT; {background} echo $! >'{pid}'; wait; wait", 0.3)
    assert ended.outcome.cause is Cause.TIMEOUT
    assert ended.outcome.why == 'it took more than 0.3 s'
    assert not is_alive(pid_in(pid))


def test_a_time_limit_asks_first(job: Job) -> None:
    ended = job.run('trap "echo asked >&2; exit 0" TERM; while :; do sleep 0.05; done', 0.3)
    assert ended.outcome.cause is Cause.TIMEOUT
    assert ended.tail.endswith('asked\n')


def test_what_is_stopped_is_ended_too(job: Job) -> None:
    assert job.run('kill -STOP $$', 0.3).outcome.cause is Cause.TIMEOUT


def _daemon(pid: Path, then: str = 'time.sleep(1000)', clear: bool = False) -> str:
    """A command that leaves a process behind which has done all to get away."""
    fork = 'os.fork() and os._exit(0); os.setsid();'
    again = f'os.execve(sys.executable, [sys.executable, "-c", "import time; {then}"], dict())' if clear else then
    code = (
        f'import os, sys, time; {fork} os.fork() and os._exit(0); [os.close(n) for n in range(3)]; os.chdir("/");'
        f"open('{pid}', 'w').write('%d\\n' % os.getpid()); {again}"
    )
    return f"""{sys.executable} -c '{code.replace("'", '"')}'"""


def test_what_it_leaves_behind_is_ended_before_it_is_over(job: Job, tmp_path: Path) -> None:
    pid = tmp_path.parent / f'{tmp_path.name}.pid'
    ended = job.run(f'{_daemon(pid)}; while ! test -s {pid}; do sleep 0.01; done; echo done')
    assert ended.results == {'stdout': b'done\n'}
    assert not is_alive(pid_in(pid))


def test_what_cleared_all_its_traces_ends_with_the_last_task(job: Job, tmp_path: Path) -> None:
    pid = tmp_path.parent / f'{tmp_path.name}.pid'
    other = job.start('sleep 3; echo other')
    ended = job.run(f'{_daemon(pid, clear=True)}; while ! test -s {pid}; do sleep 0.01; done; sleep 0.2; echo done')
    assert ended.results == {'stdout': b'done\n'}
    assert job.end_of(other).results == {'stdout': b'other\n'}
    gone(pid_in(pid))


def test_neighbours_are_left_alone(job: Job, tmp_path: Path) -> None:
    """What one leaves behind is ended; what the other has in the background is not."""
    key = job.start('(sleep 2; echo late) & sleep 0.1; wait; echo end')
    for _ in range(5):
        assert job.run('setsid sleep 1000 & setsid sleep 1000 & echo x').results == {'stdout': b'x\n'}
    assert job.end_of(key).results == {'stdout': b'late\nend\n'}


def test_a_pipe_that_still_empties_is_not_cut(job: Job) -> None:
    """What bash does not wait for, sort(1) here, writes its result long after the task's own process has ended."""
    slow = 'cat >kept; sleep 1.5; cat kept >sorted'
    ended = job.run(f"bash -c 'seq 100000 > >({slow})'", results={'sorted': 'sorted'})
    assert ended.outcome == GOOD
    assert content(ended.results['sorted']) == b''.join(b'%d\n' % n for n in range(1, 100_001))


def test_a_server_in_the_background_does_not_hold_it_up(job: Job) -> None:
    assert job.run('while :; do :; done & sleep 1000 & echo served').results == {'stdout': b'served\n'}


def test_the_time_limit_counts_for_what_empties_pipes(job: Job) -> None:
    ended = job.run("bash -c 'echo x > >(sleep 1000)'", 1.0)
    assert ended.outcome.cause is Cause.TIMEOUT
    assert 'left behind' in ended.outcome.why


def test_cancelled_tasks_end_and_are_not_heard_of(job: Job, tmp_path: Path) -> None:
    pid = tmp_path / 'pid'
    key = job.start(f"trap '' TERM; echo $$ >'{pid}'; while :; do sleep 1; done")
    queued = [job.start('sleep 1000') for _ in range(4)]
    assert (job.next(Started).number, 1) in [key, queued[0]]
    job.engine.cancel([(job.host, each) for each in [key, *queued]])
    gone(pid_in(pid))
    assert job.run('echo next').results == {'stdout': b'next\n'}
    assert not [fact for fact in job.facts if isinstance(fact, Ended)]


def test_long_ones_are_told_of_while_they_run(job: Job) -> None:
    key = job.start('sleep 0.5')
    started = job.next(Started)
    assert (started.number, started.attempt) == key
    assert started.ago >= 0.1
    assert job.end_of(key).seconds >= 0.5


# ---- what it takes ---------------------------------------------------------------------------------------------


def _resident(pid: int) -> int:
    """Bytes of memory that it has had at most."""
    [line] = [line for line in Path(f'/proc/{pid}/status').read_text().splitlines() if line.startswith('VmHWM')]
    return int(line.split()[1]) << 10


def test_a_flood_of_output_needs_no_memory(job: Job) -> None:
    size = 200_000_000
    ended = job.run(f'head -c {size} /dev/zero; head -c {size} /dev/zero >&2')
    result = ended.results['stdout']
    assert isinstance(result, Path)
    assert result.stat().st_size == size
    result.unlink()
    assert _resident(behind(job)[1]) < 40 << 20


def test_many_short_tasks_leave_nothing(job: Job, home: Path) -> None:
    """No file, file descriptor, zombie or memory."""
    _, dispatcher = behind(job)

    def burst(count: int) -> None:
        keys = [job.start('echo $RR_TASK') for _ in range(count)]
        for number, key in keys:
            assert job.end_of((number, key)).results == {'stdout': b'%d\n' % (number + 1000)}

    def is_clean() -> bool:
        return sorted(name for name in os.listdir(work_folder(home, job)) if name[:6] != 'spare.') == ['lock', 'log']

    burst(500)
    wait_until(is_clean, 'lock and log alone')
    files, memory = len(os.listdir(f'/proc/{dispatcher}/fd')), _resident(dispatcher)
    for _ in range(5):
        burst(600)
    wait_until(is_clean, 'lock and log alone')
    assert len(list(work_folder(home, job).glob('spare.*'))) <= 100
    assert len(os.listdir(f'/proc/{dispatcher}/fd')) == files
    assert _resident(dispatcher) < memory + (2 << 20)
    assert Path(f'/proc/{dispatcher}/task/{dispatcher}/children').read_text() == ''


def test_folders_that_are_used_again_are_as_new(job: Job) -> None:
    makers = ('true', 'touch x', 'mkdir x', 'ln -s / x', 'chmod 755 .', 'touch .x', 'mkdir x; rmdir x')
    for _ in range(5):
        for maker in makers:
            job.run(maker)
            ended = job.run('ls -A; stat -c %a .; basename "$PWD"')
            assert ended.results == {'stdout': b'700\n%d.1\n' % ended.number}


def test_what_it_runs_is_what_was_brought(job: Job) -> None:
    line = Path(f'/proc/{behind(job)[1]}/cmdline').read_bytes()
    assert agent_key().encode() in line
