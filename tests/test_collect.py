"""What becomes of results: `collect.csv`, `concat`, `blocks`, and what users write themselves (SP3)."""

from __future__ import annotations

import copy
import csv
import io
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_runner.config import collect
from remote_runner.config.collect import Names
from remote_runner.config.component import Config
from remote_runner.config.reading import BadValueError
from remote_runner.config.sweep import Sweep
from remote_runner.deploy.plan import make_plan
from remote_runner.deploy.sweeps import SweepPlan
from remote_runner.errors import CollectingFailed

TEXT = st.text(st.characters(exclude_characters='\0', exclude_categories=['Cs']))
Row = tuple[Mapping[str, Any], Mapping[str, bytes]]

NAMES = Names(('rate', 'seed'), ('out', 'trace'))
ROWS: list[Row] = [
    ({'rate': 1, 'seed': 'a b'}, {'out': b'1.5\n', 'trace': b'x'}),
    ({'rate': 10, 'seed': 'c'}, {'out': b'2.5\n', 'trace': b'y\nz\n'}),
]


def gathered(collector: Any, folder: Path, rows: Iterable[Row] = ROWS, names: Names = NAMES) -> None:
    collector.begin(str(folder), names)
    for parameters, results in rows:
        collector.add(parameters, results)
    collector.end()


def planned(folder: Path, collector: object) -> SweepPlan:
    config = Config()
    config.add_sweep(Sweep(name='s', hosts='h', parameters=[{'rate': 1, 'seed': 2}], command='x', collect=collector))
    [plan] = make_plan(config, str(folder), 'runner').sweeps
    return plan


def give(plan: SweepPlan, rows: Iterable[Row]) -> None:
    with plan.collecting() as add:
        for parameters, results in rows:
            add(parameters, results)


class TestCsv:
    def test_a_column_for_each_parameter_and_result(self, tmp_path: Path) -> None:
        gathered(collect.csv('t.csv'), tmp_path)
        assert (tmp_path / 't.csv').read_bytes() == (b'rate,seed,out,trace\r\n1,a b,1.5,x\r\n10,c,2.5,"y\nz"\r\n')

    def test_of_nothing_there_is_the_head(self, tmp_path: Path) -> None:
        gathered(collect.csv('t.csv'), tmp_path, [])
        assert (tmp_path / 't.csv').read_bytes() == b'rate,seed,out,trace\r\n'

    def test_bytes_that_are_no_text_stay_what_they_are(self, tmp_path: Path) -> None:
        gathered(collect.csv('t.csv'), tmp_path, [({'a': b'\xfe'}, {'r': b'\xff,\n'})], Names(('a',), ('r',)))
        assert (tmp_path / 't.csv').read_bytes() == b'a,r\r\n\xfe,"\xff,"\r\n'

    @given(rows=st.lists(st.tuples(TEXT, st.binary())))
    def test_it_is_read_back(self, rows: list[tuple[str, bytes]], tmp_path_factory: Any) -> None:
        folder = tmp_path_factory.mktemp('csv')
        gathered(collect.csv('t.csv'), folder, [({'a': a}, {'r': data}) for a, data in rows], Names(('a',), ('r',)))
        text = (folder / 't.csv').read_bytes().decode('utf-8', 'surrogateescape')
        found = list(csv.reader(io.StringIO(text, newline=''), strict=True))
        assert found == [['a', 'r'], *([a, data.decode('utf-8', 'surrogateescape').rstrip('\r\n')] for a, data in rows)]

    def test_a_parameter_and_a_result_of_one_name(self) -> None:
        names = Names(('out', 'seed'), ('out',))
        assert list(collect.csv('t').reasons(names)) == [  # type: ignore[attr-defined]
            "would have two columns 'out': a parameter and a result have that name"
        ]


class TestConcat:
    def test_to_the_byte(self, tmp_path: Path) -> None:
        gathered(collect.concat('all', result='trace'), tmp_path)
        assert (tmp_path / 'all').read_bytes() == b'xy\nz\n'

    def test_the_only_result_need_not_be_named(self, tmp_path: Path) -> None:
        gathered(collect.concat('all'), tmp_path, [({}, {'r': b'\0\xff'})] * 2, Names((), ('r',)))
        assert (tmp_path / 'all').read_bytes() == b'\0\xff\0\xff'

    @pytest.mark.parametrize('kind', [collect.concat, collect.blocks])
    def test_the_result_is_one_that_there_is(self, kind: Callable[..., Any]) -> None:
        assert list(kind('x').reasons(NAMES)) == [
            "needs to know which result: result='out', or another of 'out', 'trace'"
        ]
        assert list(kind('x', result='trce').reasons(NAMES)) == [
            "wants the result 'trce', which there is not; the nearest is 'trace'"
        ]
        assert list(kind('x', result='out').reasons(NAMES)) == []


class TestBlocks:
    def test_each_is_headed_by_its_parameters(self, tmp_path: Path) -> None:
        gathered(collect.blocks('all', result='trace'), tmp_path)
        assert (tmp_path / 'all').read_text() == '# rate=1 seed="a b"\nx\n\n\n# rate=10 seed=c\ny\nz\n'

    def test_heads_are_one_line_whatever_the_values_are(self, tmp_path: Path) -> None:
        values = ['a\nb', '"', '', 'ü', b'\xff', '# x', '\x1b']
        rows = [({'v': value}, {'r': b''}) for value in values]
        gathered(collect.blocks('all'), tmp_path, rows, Names(('v',), ('r',)))
        assert (tmp_path / 'all').read_bytes().split(b'\n\n\n') == [
            b'# v="a\\nb"', b'# v="\\""', b'# v=""', '# v=ü'.encode(), b'# v="\xff"', b'# v="# x"', b'# v="\\u001b"\n',
        ]  # fmt: skip

    def test_it_can_be_used_again(self, tmp_path: Path) -> None:
        collector = collect.blocks('all', result='out')
        gathered(collector, tmp_path)
        once = (tmp_path / 'all').read_bytes()
        gathered(collector, tmp_path)
        assert (tmp_path / 'all').read_bytes() == once


class TestFile:
    def test_it_appears_when_it_is_whole(self, tmp_path: Path) -> None:
        (tmp_path / 'all').write_text('before')
        collector: Any = collect.concat('all')
        collector.begin(str(tmp_path), Names((), ('r',)))
        for _ in range(100):
            collector.add({}, {'r': b'x' * 10_000})
            assert (tmp_path / 'all').read_text() == 'before'
        collector.end()
        assert (tmp_path / 'all').stat().st_size == 1_000_000
        assert os.listdir(tmp_path) == ['all']

    def test_what_comes_to_no_end_leaves_nothing(self, tmp_path: Path) -> None:
        plan = planned(tmp_path, collect.csv('t.csv'))
        (tmp_path / 't.csv').write_text('before')

        def rows() -> Iterator[Row]:
            yield {'rate': 1, 'seed': 2}, {'stdout': b'x'}
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            give(plan, rows())
        assert os.listdir(tmp_path) == ['t.csv']
        assert (tmp_path / 't.csv').read_text() == 'before'

    def test_after_a_kill_it_is_written_anew(self, tmp_path: Path) -> None:
        code = (
            'import os, signal, sys\nfrom remote_runner.config import collect\n'
            'c = collect.concat("all")\nc.begin(sys.argv[1], collect.Names((), ("r",)))\n'
            'c.add({}, {"r": b"x" * 1_000_000})\nos.kill(os.getpid(), signal.SIGKILL)\n'
        )
        done = subprocess.run([sys.executable, '-c', code, str(tmp_path)])
        assert done.returncode == -signal.SIGKILL
        assert not (tmp_path / 'all').exists()
        gathered(collect.concat('all'), tmp_path, [({}, {'r': b'y'})], Names((), ('r',)))
        assert (tmp_path / 'all').read_text() == 'y'
        assert os.listdir(tmp_path) == ['all']

    def test_two_at_once(self, tmp_path: Path) -> None:
        one: Any = collect.concat('all')
        one.begin(str(tmp_path), Names((), ('r',)))
        one.add({}, {'r': b'one'})
        with pytest.raises(CollectingFailed, match='all is being written by another sweep') as caught:
            gathered(collect.concat('all'), tmp_path, [], Names((), ('r',)))
        assert str(tmp_path) in str(caught.value)
        one.end()
        assert (tmp_path / 'all').read_text() == 'one'

    def test_folders_are_made_links_followed_and_permissions_those_of_others(self, tmp_path: Path) -> None:
        (tmp_path / 'link').symlink_to('a/b/all')
        before = os.umask(0o027)
        try:
            gathered(collect.csv('link'), tmp_path)
        finally:
            os.umask(before)
        assert (tmp_path / 'link').is_symlink()
        assert stat.S_IMODE((tmp_path / 'a/b/all').stat().st_mode) == 0o640

    def test_where_it_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / 'file').write_text('')
        with pytest.raises(CollectingFailed, match=r'file/x cannot be written: (Not a directory|File exists)'):
            gathered(collect.csv('file/x'), tmp_path)
        for path, said in (
            ('', 'is empty'),
            ('folder/', 'must name a file'),
            ('.', 'must name a file'),
            (3, 'must be a'),
        ):
            with pytest.raises(BadValueError, match=said):
                gathered(collect.csv(path), tmp_path)  # type: ignore[arg-type]

    def test_no_room(self, tmp_path: Path) -> None:
        plan = planned(tmp_path, collect.concat('all'))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            with pytest.raises(CollectingFailed, match='all cannot be written: File too large'):
                give(plan, [({'rate': 1, 'seed': 2}, {'stdout': b'x' * 10_000})] * 100)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert os.listdir(tmp_path) == []

    def test_copies_know_the_same(self) -> None:
        assert repr(copy.deepcopy(collect.concat('x', result='y'))) == "collect.concat('x', result='y')"
        assert repr(collect.csv(Path('x'))) == "collect.csv('x')"


class Own:
    """A collector as users write one."""

    calls: list[object] = []  # noqa: RUF012 - of the class: the collector is copied

    def begin(self, folder: str, names: Names) -> None:
        self.calls.append((folder, names.parameters, names.results))

    def add(self, parameters: Mapping[str, Any], results: Mapping[str, bytes]) -> None:
        if not results['stdout']:
            raise ValueError('nothing')
        self.calls.append((parameters, results))

    def end(self) -> None:
        self.calls.append('end')


class TestOfUsers:
    def test_a_function(self, tmp_path: Path) -> None:
        seen: list[object] = []
        with planned(tmp_path, lambda parameters, results: seen.append((parameters, results))).collecting() as add:
            add({'rate': 1}, {'stdout': b'x'})
            add({'rate': 2}, {'stdout': b'y'})
        assert seen == [({'rate': 1}, {'stdout': b'x'}), ({'rate': 2}, {'stdout': b'y'})]

    def test_a_collector_of_their_own(self, tmp_path: Path) -> None:
        Own.calls.clear()
        with planned(tmp_path, Own()).collecting() as add:
            add({'rate': 1}, {'stdout': b'x'})
        assert Own.calls == [
            (str(tmp_path), ('rate', 'seed'), ('stdout',)),
            ({'rate': 1}, {'stdout': b'x'}),
            'end',
        ]

    def test_one_that_fails_comes_to_no_end(self, tmp_path: Path) -> None:
        Own.calls.clear()
        with pytest.raises(ValueError, match='nothing'):
            give(planned(tmp_path, Own()), [({'rate': 1}, {'stdout': b''})])
        assert 'end' not in Own.calls

    def test_the_class_is_not_the_collector(self) -> None:
        [fault] = Sweep(name='s', hosts='h', parameters=[{'a': 1}], command='x', collect=Own).read()[1]
        assert fault == 'collect must be a collector, is the class Own; write Own()'

    def test_nothing_is_collected(self, tmp_path: Path) -> None:
        with planned(tmp_path, None).collecting() as add:
            add({'rate': 1}, {'stdout': b'x'})
        assert os.listdir(tmp_path) == []
