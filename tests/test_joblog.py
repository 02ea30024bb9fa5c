"""The joblog has the columns of GNU parallel, and whole lines."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from remote_runner.errors import OutputFailed
from remote_runner.jobs.formats import Result
from remote_runner.jobs.joblog import Joblog
from remote_runner.jobs.policy import Cause, Outcome
from remote_runner.jobs.task import Task
from tests.job_results import result

HEADER = 'Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand'


def logged(path: Path, *results: Result) -> list[str]:
    with Joblog(path) as joblog:
        joblog.write(results)
    lines = path.read_bytes().decode('utf-8', 'surrogateescape').split('\n')
    assert lines.pop() == ''
    return lines


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / 'joblog'


def test_a_line_a_task(path: Path) -> None:
    assert logged(path, result(0, b'abc', began=1.5, seconds=0.25, host='h2')) == [
        HEADER,
        '1\th2\t1.500\t     0.250\t0\t3\t0\t0\techo 0',
    ]


@pytest.mark.parametrize(
    ('outcome', 'exit_value', 'signal'),
    [
        (Outcome(status=0), 0, 0),
        (Outcome(), 0, 0),
        (Outcome(Cause.EXIT, 3), 3, 0),
        (Outcome(Cause.EXIT, 128 + 9), 137, 9),
        (Outcome(Cause.EXIT, 255), 255, 0),
        (Outcome(Cause.TIMEOUT), -1, 0),
        (Outcome(Cause.TIMEOUT, 128 + 15), 143, 15),
        (Outcome(Cause.LOST), -1, 0),
        (Outcome(Cause.REJECTED, 0), -1, 0),
    ],
)
def test_how_it_ended(path: Path, outcome: Outcome, exit_value: int, signal: int) -> None:
    """What failed has never 0 for Exitval: many look at that alone."""
    line = logged(path, result(0, outcome=outcome))[1]
    assert line.split('\t')[6:8] == [str(exit_value), str(signal)]


def test_bytes_that_went_and_came(path: Path, tmp_path: Path) -> None:
    large = tmp_path / 'large'
    large.write_bytes(b'x' * 1000)
    task = Task('it', inputs={'a': b'12', 'stdin': b'345'}, results={'out': 'stdout', 'large': 'large'})
    line = logged(path, result(0, task=task, results={'out': b'1', 'large': large}))[1]
    assert line.split('\t')[4:6] == ['5', '1001']


def test_commands_stand_in_one_line_each(path: Path) -> None:
    """Also with tabs, newlines, and bytes that are no UTF-8."""
    command = b'printf "a\tb\nc" \xff'.decode('utf-8', 'surrogateescape')
    assert logged(path, result(0, task=Task(command)))[1].split('\t', 8)[8] == command.replace('\n', '\\n')


def test_what_never_began_has_no_line(path: Path) -> None:
    assert logged(path, result(0, outcome=Outcome(Cause.CANCELLED), attempt=0)) == [HEADER]


def test_a_second_run_appends_and_the_columns_are_named_once(path: Path) -> None:
    logged(path, result(0))
    assert [line.split('\t')[0] for line in logged(path, result(1))] == ['Seq', '1', '2']


def test_a_line_that_was_cut_is_ended_first(path: Path) -> None:
    path.write_text(f'{HEADER}\n1\th')
    assert logged(path, result(1))[1:] == ['1\th', '2\th1\t1000.000\t     0.500\t0\t0\t0\t0\techo 1']


def test_several_at_once_mix_whole_lines_alone(path: Path) -> None:
    logged(path)

    def write() -> None:
        with Joblog(path) as joblog:
            for turn in range(100):
                joblog.write(result(turn * 10 + n) for n in range(10))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = path.read_text().splitlines()[1:]
    assert sorted(lines) == sorted(
        4 * [f'{n + 1}\th1\t1000.000\t     0.500\t0\t0\t0\t0\techo {n}' for n in range(1000)]
    )


def test_it_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(OutputFailed) as caught:
        Joblog(tmp_path / 'none' / 'joblog')
    assert str(caught.value) == f'the joblog {tmp_path}/none/joblog cannot be opened: No such file or directory'


def test_the_disk_is_full() -> None:
    before = len(os.listdir('/proc/self/fd'))
    with pytest.raises(OutputFailed) as caught:
        Joblog(Path('/dev/full'))
    assert str(caught.value) == 'the joblog /dev/full cannot be written: No space left on device'
    assert len(os.listdir('/proc/self/fd')) == before


def test_gnu_parallel_writes_the_same_columns(path: Path, tmp_path: Path) -> None:
    theirs = tmp_path / 'theirs'
    commands = ['true', 'exit 3']
    subprocess.run(['parallel', '--joblog', theirs, ':::', *commands], check=False, capture_output=True)
    results = [
        result(0, task=Task('true')),
        result(1, task=Task('exit 3'), outcome=Outcome(Cause.EXIT, 3)),
    ]
    ours = [line.split('\t') for line in logged(path, *results)]
    found = [line.split('\t') for line in theirs.read_text().splitlines()]
    assert found[0] == ours[0]
    for line, other in zip(sorted(found[1:]), ours[1:], strict=True):
        assert [line[n] for n in (0, 4, 5, 6, 7, 8)] == [other[n] for n in (0, 4, 5, 6, 7, 8)]
        assert len(line[3]) == len(other[3])
