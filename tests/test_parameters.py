"""Sets of parameters: `util.parameters`, `util.product`, `util.zip`, and what is made of them (SP1)."""

from __future__ import annotations

import copy
import itertools
import operator
import os
import tracemalloc
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_runner.config import util
from remote_runner.config.parameters import Parameters, read_parameters
from remote_runner.config.reading import BadValueError
from remote_runner.errors import ConfigError

Written = Callable[[str], str]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Writes a file of parameters beside the config, and gives its name."""

    def write(text: str) -> str:
        (tmp_path / 'params.csv').write_bytes(text.encode())
        return 'params.csv'

    return write


@pytest.fixture(autouse=True)
def config_dir(tmp_path: Path) -> Iterable[None]:
    with util.relative_to(str(tmp_path)):
        yield


class TestFile:
    def test_cells_are_text_without_the_spaces_around(self, written: Written) -> None:
        found = util.parameters(written('rate | seed|file\n1|  2 | a b, "c"\n'))
        assert list(found) == [{'rate': '1', 'seed': '2', 'file': 'a b, "c"'}]
        assert found.names == ('rate', 'seed', 'file')

    def test_empty_lines_do_not_count(self, written: Written) -> None:
        assert list(util.parameters(written('\n  \na|b\n\n1|2\n \t\n3|4'))) == [
            {'a': '1', 'b': '2'},
            {'a': '3', 'b': '4'},
        ]

    def test_empty_cells_do(self, written: Written) -> None:
        assert list(util.parameters(written('a|b\n|\n|x\n'))) == [{'a': '', 'b': ''}, {'a': '', 'b': 'x'}]

    def test_windows_lines_and_byte_order_marks(self, written: Written) -> None:
        assert list(util.parameters(written('\ufeffa|b\r\n1|ü\r\n'))) == [{'a': '1', 'b': 'ü'}]

    def test_only_newlines_end_a_line(self, written: Written) -> None:
        assert list(util.parameters(written('a|b\nx\x0by|\u2028z\x85w\n'))) == [{'a': 'x\x0by', 'b': 'z\x85w'}]

    def test_an_absolute_path_and_one_of_the_home(self, written: Written, tmp_path: Path, monkeypatch: Any) -> None:
        name = written('a\n1\n')
        assert list(util.parameters(tmp_path / name)) == [{'a': '1'}]
        monkeypatch.setenv('HOME', str(tmp_path))
        assert list(util.parameters(f'~/{name}')) == [{'a': '1'}]

    def test_without_a_config_it_is_relative_to_the_working_directory(self, written: Written, tmp_path: Path) -> None:
        name = written('a\n1\n')
        with util.relative_to(''):
            with pytest.raises(ConfigError, match='no such file'):
                util.parameters(name)
            assert list(util.parameters(os.path.relpath(tmp_path / name))) == [{'a': '1'}]

    @pytest.mark.parametrize(
        ('text', 'said'),
        [
            ('a|b\n1|2\n1\n', 'params.csv, line 3: 1 cell, but the first line has 2 names'),
            ('\na|b\n\n1|2|3\n', 'params.csv, line 4: 3 cells, but the first line has 2 names'),
            ('a|a\n', "params.csv, line 1: 'a' is the name of 2 parameters"),
            ('a|\n', "params.csv, line 1: '' is no name for a parameter"),
            ('a|b c\n', "params.csv, line 1: 'b c' is no name"),
            ('1|2\n', "'1' is no name for a parameter.*; '2' is no name"),
            ('a|b{\n', "'b{' is no name"),
            ('', 'params.csv: is empty'),
            (' \n\n', 'params.csv: is empty'),
        ],
    )
    def test_what_is_wrong_with_it(self, written: Written, tmp_path: Path, text: str, said: str) -> None:
        with pytest.raises(ConfigError, match=said) as caught:
            util.parameters(written(text))
        assert str(tmp_path) in str(caught.value)

    def test_all_such_lines_are_told_but_of_many_the_first(self, written: Written) -> None:
        with pytest.raises(ConfigError) as caught:
            util.parameters(written('a|b\n' + 'x\n' * 3))
        assert [f'line {number}:' in str(caught.value) for number in (2, 3, 4)] == [True] * 3
        with pytest.raises(ConfigError, match=r'line 6: .*\nand 95 more such lines') as caught:
            util.parameters(written('a|b\n' + 'x\n' * 100))

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        (tmp_path / 'latin').write_bytes('a\n\nü\n'.encode('latin-1'))
        with pytest.raises(ConfigError, match='latin, line 3: byte 0xfc is no UTF-8 text'):
            util.parameters('latin')

    def test_files_that_are_not_there(self, written: Written) -> None:
        written('a\n')
        with pytest.raises(ConfigError, match=r'param\.csv: no such file \(there is params\.csv beside it\)'):
            util.parameters('param.csv')
        with pytest.raises(ConfigError, match='cannot be read: Is a directory'):
            util.parameters('.')

    @given(
        st.integers(1, 4).flatmap(
            lambda width: st.lists(
                st.lists(
                    st.text(st.characters(exclude_characters='|\n', codec='utf-8')).map(str.strip),
                    min_size=width,
                    max_size=width,
                ).filter(any),
                max_size=5,
            ).map(lambda rows: (width, rows))
        )
    )
    def test_whatever_cells_hold(self, table: tuple[int, list[list[str]]]) -> None:
        width, rows = table
        names = [f'p{number}' for number in range(width)]
        with TemporaryDirectory() as folder:
            path = Path(folder) / 'params'
            path.write_bytes('\n'.join(' | '.join(row) for row in [names, *rows]).encode())
            assert list(util.parameters(path)) == [dict(zip(names, row, strict=True)) for row in rows]


class TestProduct:
    def test_the_last_one_changes_fastest(self) -> None:
        found = util.product(rate=[1, 10], seed=range(2))
        assert list(found) == [
            {'rate': 1, 'seed': 0},
            {'rate': 1, 'seed': 1},
            {'rate': 10, 'seed': 0},
            {'rate': 10, 'seed': 1},
        ]
        assert len(found) == 4
        assert list(found) == list(found)

    def test_sets_come_first(self) -> None:
        found = util.product(util.zip(a=[1, 2], b=[3, 4]), c=['xy', 'z'])
        assert found.names == ('a', 'b', 'c')
        assert [tuple(each.values()) for each in found] == [
            (1, 3, 'xy'), (1, 3, 'z'), (2, 4, 'xy'), (2, 4, 'z'),
        ]  # fmt: skip

    def test_of_nothing_and_of_nothing_at_all(self) -> None:
        assert list(util.product()) == [{}]
        assert list(util.product(a=[1], b=[])) == []

    def test_generators_are_gone_through_once(self) -> None:
        found = util.product(a=(number for number in range(3)), b=[0, 1])
        assert len(found) == len(list(found)) == len(list(found)) == 6

    def test_a_million_sets_are_not_held_in_memory(self) -> None:
        tracemalloc.start()
        try:
            found = copy.deepcopy(util.product(a=range(1000), b=range(10), c=range(100)))
            count = sum(1 for _ in itertools.islice(found, 50_000))
            assert (len(found), count) == (1_000_000, 50_000)
            assert found[999_999] == {'a': 999, 'b': 9, 'c': 99}
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()

    def test_what_it_does_not_take(self) -> None:
        with pytest.raises(TypeError, match=r"host must be a list of values, is the text 'node1'; write \['node1'\]"):
            util.product(host='node1')
        with pytest.raises(TypeError, match=r'rate must be a list of values, is 3; write \[3\]'):
            util.product(rate=3)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match='takes lists of values by name'):
            util.product([1, 2])  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="both have a parameter 'a'"):
            util.product(util.product(a=[1]), a=[2])


class TestZip:
    def test_values_side_by_side(self) -> None:
        found = util.zip(rate=[1, 10], seed=range(7, 9))
        assert list(found) == [{'rate': 1, 'seed': 7}, {'rate': 10, 'seed': 8}]
        assert (len(found), found[-1]) == (2, {'rate': 10, 'seed': 8})

    def test_with_sets(self) -> None:
        assert list(util.zip(util.product(a=[1, 2], b=[3]), c=['xy', 'xy'])) == [
            {'a': 1, 'b': 3, 'c': 'xy'},
            {'a': 2, 'b': 3, 'c': 'xy'},
        ]

    def test_of_nothing(self) -> None:
        assert list(util.zip()) == []

    def test_lengths_must_be_equal(self) -> None:
        with pytest.raises(ValueError, match='rate: 2 values, but seed: 3; zip needs as many of each'):
            util.zip(rate=[1, 2], seed=[1, 2, 3])


class TestTogether:
    def test_times(self) -> None:
        one, other = util.zip(a=[1, 2], b=[3, 4]), util.product(c=[5, 6])
        assert [tuple(each.values()) for each in one * other] == [(1, 3, 5), (1, 3, 6), (2, 4, 5), (2, 4, 6)]
        with pytest.raises(ValueError, match="both have a parameter 'a', 'b'"):
            one * one

    def test_plus(self) -> None:
        one, other = util.zip(a=[1], b=[2]), util.product(b=[3], a=[4, 5])
        found = one + other + one
        assert [tuple(each.items()) for each in found] == [
            (('a', a), ('b', b)) for a, b in [(1, 2), (4, 3), (5, 3), (1, 2)]
        ]
        with pytest.raises(ValueError, match='sets of a, b cannot be followed by sets of c: all need the same names'):
            one + util.product(c=[1])

    def test_with_something_else(self) -> None:
        with pytest.raises(TypeError):
            util.product(a=[1]) * 3  # type: ignore[operator]
        with pytest.raises(TypeError):
            operator.add(util.product(a=[1]), [{'a': 1}])

    def test_equality_and_looks(self) -> None:
        assert util.product(a=[1, 2]) == util.zip(a=[1, 2])
        assert util.product(a=[1, 2]) != util.product(a=[1, 3])
        assert util.product(a=[1, 2]) != [{'a': 1}, {'a': 2}]
        assert repr(util.product(a=[1, 2], b=[3])) == '<2 parameter sets of a, b>'

    _leaves = st.builds(
        lambda name, values: util.product(**{name: values}), st.sampled_from('abc'), st.lists(st.integers(), max_size=3)
    )

    @given(st.lists(st.tuples(st.sampled_from('*+z'), _leaves), min_size=1, max_size=6))
    def test_what_is_at_a_position_is_what_comes_there(self, steps: list[tuple[str, Parameters]]) -> None:
        found = steps[0][1]
        for how, other in steps[1:]:
            try:
                found = found * other if how == '*' else found + other if how == '+' else util.zip(found, other)
            except ValueError:
                continue
        sets = list(found)
        assert [found[position] for position in range(len(found))] == sets
        assert all(tuple(each) == found.names for each in sets)
        with pytest.raises(IndexError):
            found[len(found)]


class TestRead:
    def test_a_list_of_dicts(self) -> None:
        found = read_parameters([{'a': 1, 'b': 2}, {'b': 3, 'a': 4}])
        assert [tuple(each.items()) for each in found] == [(('a', 1), ('b', 2)), (('a', 4), ('b', 3))]

    def test_values_that_can_be_text(self) -> None:
        values = ['a', b'\xff', 1, 0.5, True, Path('x'), Decimal('1.0')]
        assert [each['a'] for each in read_parameters(util.product(a=values))] == values

    @pytest.mark.parametrize(
        ('value', 'said'),
        [
            (3, 'must be parameter sets, is 3'),
            ('params.csv', r"must be parameter sets, is 'params.csv'; write util.parameters\('FILE'\)"),
            ({'a': [1]}, r"is {'a': \[1\]}.*util.product"),
            ([], 'holds no parameter set'),
            (util.product(a=[]), 'holds no parameter set'),
            ([1], r'\[0\] must be a dict of name to value, is 1'),
            ([{'a': 1}, {'b': 1}], r'\[1\] has other names than \[0\]: b, not a'),
            ([{1: 1}], '1 is no name for a parameter'),
            ([{'a b': 1}], "'a b' is no name for a parameter"),
            (util.product(a=[1, None]), r"\['a'\]\[1\] is None"),
            (util.product(a=['x\0y']), 'NUL'),
            ([{'a': []}], r"\[0\]\['a'\] is \[\]; write it as text"),
            (util.product(a=['\ud800']), 'no character'),
            (util.product(a=[None] * 100, b=[1]), r'has 95 more values of that kind'),
        ],
    )
    def test_what_is_none(self, value: object, said: str) -> None:
        with pytest.raises(BadValueError, match=said):
            read_parameters(value)
