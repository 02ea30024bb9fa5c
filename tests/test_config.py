"""What configs and muddlers work with: `Component` (RR2, RR5) and `Config` (RR3)."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
from collections import UserList, deque
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_runner.config.attributes import ATTRIBUTES
from remote_runner.config.component import Component, Config
from remote_runner.errors import ConfigError


class Level(str, Enum):  # noqa: UP042 - a StrEnum's str() is its value anyway
    LOW = 'low'


def component(**attributes: Any) -> Component:
    return Component(**{'name': 'a', 'host': 'h', 'executable': 'x', **attributes})


def config_of(*components: Component) -> Config:
    config = Config()
    for one in components:
        config.add_component(one)
    return config


class TestComponent:
    def test_defaults(self) -> None:
        fresh = Component()
        assert (fresh.name, fresh.host, fresh.executable, fresh.base_dir, fresh.num_cores) == (None,) * 5
        assert (fresh.args, fresh.files, fresh.fetch, fresh.start_index, fresh.wait) == ([], {}, {}, 0, False)
        assert (fresh.start_timeout, fresh.start_grace, fresh.stop_timeout) == (None, 0.1, 5)

    def test_lists_and_dicts_are_not_shared(self) -> None:
        one, other = Component(), Component()
        one.args.append('x')
        one.files['a'] = 'b'
        assert (other.args, other.files) == ([], {})

    def test_legal_attributes(self) -> None:
        given_by_spec = {
            'name', 'host', 'base_dir', 'executable', 'args', 'files', 'start_index', 'wait', 'num_cores',
        }  # fmt: skip
        assert given_by_spec < Component.LEGAL_ATTRS
        assert set(ATTRIBUTES) == Component.LEGAL_ATTRS

    @pytest.mark.parametrize(
        ('wrong', 'nearest'),
        [('exectuable', 'executable'), ('arg', 'args'), ('hosts', 'host'), ('startindex', 'start_index')],
    )
    def test_unknown_attribute_is_an_error_at_once(self, wrong: str, nearest: str) -> None:
        fresh = Component()
        for act in (
            lambda: setattr(fresh, wrong, 1),
            lambda: getattr(fresh, wrong),
            lambda: delattr(fresh, wrong),
            lambda: Component(**{wrong: 1}),
        ):
            with pytest.raises(AttributeError, match=f'no attribute {wrong!r}; the nearest is {nearest!r}'):
                act()

    def test_deleting_gives_the_default_again(self) -> None:
        one = component(args=['x'])
        del one.args
        assert one.args == []

    def test_deep_copies_and_pickles(self) -> None:
        one = component(args=['x', Path('/y')], files={'a': 'b'})
        for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
            other.args.append('more')
            other.files['c'] = 'd'
            assert (other.name, other.args) == ('a', ['x', Path('/y'), 'more'])
        assert (one.args, one.files) == (['x', Path('/y')], {'a': 'b'})

    def test_missing_attributes_are_the_required_ones(self) -> None:
        assert Component().get_missing_attributes() == ['name', 'host', 'executable']
        assert not Component().all_set()
        assert component().get_missing_attributes() == []
        assert component().all_set()
        component().check_all_set()
        with pytest.raises(ConfigError, match='a@h: not set: executable'):
            component(executable=None).check_all_set()

    def test_docs_name_every_attribute(self) -> None:
        for attribute in ATTRIBUTES.values():
            assert f'        {attribute.name}: ' in (Component.__doc__ or '')
            assert attribute.meaning.endswith('.')

    def test_repr_names_it(self) -> None:
        assert repr(component()) == '<Component a@h>'
        assert repr(Component()) == '<Component (no name)@(no host)>'


class TestArgs:
    @pytest.mark.parametrize(
        ('written', 'text'),
        [
            ('', ''),
            ('$HOME "x" \n*', '$HOME "x" \n*'),
            ('ünï', 'ünï'),
            (3, '3'),
            (-1, '-1'),
            (0.5, '0.5'),
            (True, 'True'),
            (Decimal('1.10'), '1.10'),
            (Path('/a b'), '/a b'),
            (b'raw \xff', 'raw \udcff'),
            (Level.LOW, 'low'),
        ],
    )
    def test_become_text(self, written: object, text: str) -> None:
        result = component(args=[written]).args_as_text()
        assert result == [text]
        assert type(result[0]) is str

    @pytest.mark.parametrize(
        'args',
        [('a', 1), (item for item in ('a', 1)), map(str, ['a', 1]), {'a': 0, '1': 0}, {'a': 0, '1': 0}.keys()],
        ids=['tuple', 'generator', 'map', 'dict', 'keys'],
    )
    def test_any_iterable_can_be_appended_to(self, args: object) -> None:
        config = config_of(component(args=args))
        for stored in config.all_components():
            stored.args.append('more')
            assert stored.args_as_text() == ['a', '1', 'more']

    @pytest.mark.parametrize('kind', [list, UserList, deque])
    def test_what_has_append_stays_what_it_is(self, kind: Any) -> None:
        args = kind(['a'])
        one = component(args=args)
        args.append('b')
        assert one.args is args
        assert one.args_as_text() == ['a', 'b']

    @pytest.mark.parametrize('args', ['-v', b'-v', None, 5, [None], ['a\0'], ['\ud800'], [object()], [['a']]])
    def test_what_is_no_list_of_arguments(self, args: object) -> None:
        with pytest.raises(ConfigError, match='a@h: args'):
            component(args=args).args_as_text()

    def test_none_names_its_position(self) -> None:
        with pytest.raises(ConfigError, match=r'a@h: args\[2\] is None'):
            component(args=['a', 'b', None]).args_as_text()

    @given(st.lists(st.binary(max_size=40).map(lambda data: data.replace(b'\0', b'')), max_size=8))
    def test_any_bytes_survive(self, args: list[bytes]) -> None:
        text = component(args=args).args_as_text()
        assert [argument.encode('utf-8', 'surrogateescape') for argument in text] == args
        assert component(args=text).args_as_text() == text

    @given(st.lists(st.text(max_size=40), max_size=8))
    def test_any_text_survives_or_is_refused(self, args: list[str]) -> None:
        fine = all('\0' not in arg and not any('\ud800' <= char < '\udc80' for char in arg) for arg in args)
        fine = fine and not any('\udcff' < char <= '\udfff' for arg in args for char in arg)
        if fine:
            assert component(args=args).args_as_text() == args
        else:
            with pytest.raises(ConfigError):
                component(args=args).args_as_text()

    @given(st.one_of(st.integers(), st.floats()))
    def test_numbers_read_back(self, number: float) -> None:
        [text] = component(args=[number]).args_as_text()
        assert type(number)(text) == number or number != number

    def test_a_program_gets_exactly_these(self, tmp_path: Path) -> None:
        args: list[Any] = ['', ' ', '$x', '*', "'", '"', '\n', 'é', b'\xff\xfe', 1, 2.5, tmp_path]
        text = component(args=args).args_as_text()
        out = subprocess.run(['printf', r'%s\0', *text], stdout=subprocess.PIPE, check=True).stdout
        expected = [b'', b' ', b'$x', b'*', b"'", b'"', b'\n', 'é'.encode(), b'\xff\xfe', b'1', b'2.5']
        assert out.split(b'\0') == [*expected, os.fsencode(tmp_path), b'']


class TestConfig:
    def test_stores_a_deep_copy(self) -> None:
        template = component(args=['1'])
        config = config_of(template)
        template.name = 'b'
        template.args.append('2')
        config.add_component(template)
        assert [(c.name, c.args) for c in config.all_components()] == [('a', ['1']), ('b', ['1', '2'])]

    def test_changing_what_it_yields_changes_the_run(self) -> None:
        config = config_of(component(), component(host='localhost'))
        for one in config.all_components():
            one.args.append('all')
        for one in config.all_remote_components():
            one.args.append('remote')
        for one in config.all_local_components():
            one.args.append('local')
        assert [one.args for one in config.all_components()] == [['all', 'remote'], ['all', 'local']]

    def test_hosts(self) -> None:
        config = config_of(component(), component(name='b'), component(host='localhost'))
        assert config.all_hosts() == {'h', 'localhost'}
        assert Config.LOCAL_HOST == 'localhost'

    def test_may_be_changed_while_it_is_gone_through(self) -> None:
        config = config_of(component(), component(name='b'))
        for one in config.all_components():
            config.clear_components()
            config.add_component(one)
        assert [one.name for one in config.all_components()] == ['b']

    def test_clear(self) -> None:
        config = config_of(component())
        config.clear_components()
        assert list(config.all_components()) == []
        assert config.all_hosts() == set()

    def test_names_are_unique_on_a_host_only(self) -> None:
        config = config_of(component(), component(host='other'), component(name='b'))
        config.check_names_unique()
        config.add_component(component())
        with pytest.raises(ConfigError, match='of the same name and host: a@h'):
            config.check_names_unique()

    def test_takes_components_alone(self) -> None:
        with pytest.raises(TypeError, match="takes a Component, not 'x'"):
            Config().add_component('x')  # type: ignore[arg-type]

    def test_has_no_other_attributes(self) -> None:
        with pytest.raises(AttributeError):
            Config().components = []  # type: ignore[attr-defined]

    def test_deep_copies(self) -> None:
        config = config_of(component())
        other = copy.deepcopy(config)
        other.add_component(component(name='b'))
        assert len(list(config.all_components())) == 1
        assert repr(other) == '<Config of 2 components>'
