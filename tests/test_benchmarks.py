"""What the benchmarks find: copies that are wrong, peers that take too long, limits that are kept."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import files, jobs, peers, report
from benchmarks.files import SENT, AtMost
from benchmarks.measure import Contender, Run, Series, Wire, take_turns
from benchmarks.report import Chapter
from benchmarks.trees import OF_FOLDER, Tree
from tests.testbed.process import Process, wait_until

NAME = 'part000/file00003'


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree.of_small_files(tmp_path / 'tree', OF_FOLDER + 5)


@pytest.fixture
def copy(tree: Tree, tmp_path: Path) -> Path:
    """One that is right, and was found right before."""
    copy = shutil.copytree(tree.root, tmp_path / 'copy')
    assert tree.fault(copy) is None
    return copy


def overwrite(path: Path) -> None:
    """Other bytes, as many, in the same file, with its old times."""
    times = path.stat()
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def link(path: Path) -> None:
    path.rename(path.with_name('elsewhere'))
    path.symlink_to('elsewhere')


FAULTS: dict[str, Callable[[Path], object]] = {
    f'{NAME} is missing': Path.unlink,
    'part000/more should not be there': lambda path: shutil.copy(path, path.with_name('more')),
    f'{NAME} has mode 600, not 644': lambda path: path.chmod(0o600),
    f'{NAME} has other contents': overwrite,
    'part000/elsewhere should not be there': link,
}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_copy_that_is_wrong(tree: Tree, copy: Path, fault: str) -> None:
    FAULTS[fault](copy / NAME)
    assert tree.fault(copy) == fault


def test_an_old_copy_is_wrong(tmp_path: Path) -> None:
    tree = Tree.of_one_file(tmp_path / 'tree', 3_000_000)
    copy = shutil.copytree(tree.root, tmp_path / 'copy')
    assert tree.fault(copy) is None
    before = (tree.root / 'large').read_bytes()
    tree.change_middle(1_000_000)
    after = (tree.root / 'large').read_bytes()
    assert (after[:1_000_000], after[2_000_000:]) == (before[:1_000_000], before[2_000_000:])
    assert len(after) == len(before)
    assert tree.fault(copy) == 'large has other contents'


def test_who_takes_too_long_is_ended_and_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, 'versions', lambda: {'a peer': '1'})  # none of them need be installed here
    slow = tmp_path / 'slow.sh'
    slow.write_text('setsid sh -c "echo \\$\\$ >>pids; exec sleep 1000" & echo $$ >>pids; wait\n')
    contenders = [
        Contender('slow', ['sh', str(slow)], tmp_path, os.environ, patience=2),
        Contender('quick', ['true'], tmp_path, os.environ),
        Contender('rare', ['true'], tmp_path, os.environ, most_runs=1),
    ]
    slow_one, quick, rare = turns(contenders, 3)
    assert (slow_one.warm_up.fault, slow_one.runs, slow_one.memory) == ('given up after 2 s', [], None)
    assert (len(quick.good), len(rare.good)) == (3, 1)
    pids = [int(pid) for pid in (tmp_path / 'pids').read_text().split()]
    assert len(pids) == 2
    wait_until(lambda: not any(is_alive(pid) for pid in pids), 'the end of what is given up')
    text = report.section('files', [Chapter('Row', '', [slow_one, quick], [], 0, group='All')], 'as many')
    assert re.search(r'\| Row \| over 2 \| 0\.\d\d \|', text)


def test_a_benchmark_renews_its_own_section() -> None:
    order = ['deploy', 'exec', 'files']
    first = report.renewed('# Results of old\n', {'files': '<!-- files -->\n## Files\n\n| 1 |\n'}, order)
    second = report.renewed(first, {'deploy': '<!-- deploy -->\n## Deploy\n\n| 2 |\n'}, order)
    head, deploy, files = second.split('<!-- ')
    assert head == first.split('<!-- ')[0]
    assert head.startswith('# Results\n')
    assert (deploy, files) == ('deploy -->\n## Deploy\n\n| 2 |\n\n', 'files -->\n## Files\n\n| 1 |\n')
    assert report.renewed(second, {}, order) == second
    third = report.renewed(second, {'files': '<!-- files -->\n| 3 |\n'}, order)
    assert third == second.replace('## Files\n\n| 1 |', '| 3 |')


def is_alive(pid: int) -> bool:
    try:
        return Process.of(pid).is_alive
    except ProcessLookupError:
        return False


def turns(contenders: list[Contender], runs: int) -> list[Series]:
    return take_turns(
        contenders,
        runs,
        before=lambda contender: None,
        check=lambda contender: None,
        after=lambda contender: None,
        say=lambda text: None,
    )


def series(name: str, *runs: Run) -> Series:
    return Series(Contender(name, [name], Path(), {}), Run(9, 0), list(runs))


def test_limits() -> None:
    all_series = [
        series('ours', *(Run(seconds, 0, None, wire=Wire(seconds * 100, 0)) for seconds in (1, 2, 9))),
        series('rsync', Run(4, 0, wire=Wire(100, 0)), Run(1, 0, 'wrong')),
        series('scp', Run(5, 0, wire=Wire(1000, 0))),
        series('tar', Run(1, 0, 'wrong')),
    ]

    def limit(at_most: AtMost) -> tuple[float, bool]:
        found = files._limit(files.ROWS[0], at_most, all_series)
        return found.measured, found.is_kept

    assert limit(AtMost(0.5, ('rsync', 'scp'))) == (0.5, True)
    assert limit(AtMost(0.4, ('rsync', 'scp'))) == (0.5, False)
    assert limit(AtMost(1.5)) == (2, False)
    assert limit(AtMost(1.5, ('rsync',), SENT)) == (2, False)
    assert limit(AtMost(9, ('rsync', 'tar')))[1] is False  # who failed is no measure
    assert limit(AtMost(9, ('rsync-c',)))[1] is False


def test_costs_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, 'versions', lambda: {'a peer': '1'})
    few = Series(Contender('few', ['few'], Path(), {}, tasks=100), Run(9, 0), [Run(2, 0.5)])
    many = Series(Contender('ours', ['ours'], Path(), {}, tasks=1000), Run(9, 0), [Run(5, 1)])
    assert report.ratio([many, few], 'few') == pytest.approx(0.25)
    text = report.section('jobs', [Chapter('Tasks', '', [many, few], [], 0)], 'some')
    assert '| few | 20.00 ms | 20.00 ms | 20.00 ms | 90.00 ms | 0.25 x | 5.00 ms |' in text


@pytest.mark.parametrize(
    ('frames', 'fault'),
    [
        ([2, 0, 1], None),
        ([0, 1], '2 of 3 results came'),
        ([0, 1, 1], '3 of 3 results came'),
        ([0, 1, 2, 2], '4 of 3 results came'),
    ],
)
def test_each_result_comes_once(frames: list[int], fault: str | None, tmp_path: Path) -> None:
    (tmp_path / 'frames').write_bytes(b''.join(struct.pack('<ii', index, 2) + b'ok' for index in frames))
    assert jobs._fault(Contender('ours', [], tmp_path, {}, tasks=3)) == fault


def test_costs_of_the_first_and_the_last_tasks(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / 'journal.db') as journal:
        journal.execute('CREATE TABLE attempt (began REAL, seconds REAL, state INTEGER)')
        ends = [0, 1, 2, 3, 5, 7, 9, 11]
        journal.executemany('INSERT INTO attempt VALUES (?, 0.5, 1)', [(end - 0.5,) for end in reversed(ends)])
        journal.execute('INSERT INTO attempt VALUES (1000, 1, 2)')  # superseded
    first, last, whole = jobs._costs(tmp_path / 'journal.db')
    assert (first, last) == (1000, 2000)
    assert whole == pytest.approx(11000 / 7)
