"""Loading of configs, muddlers and arg parsers: RR1, RR8, RR9, RR15."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_runner.config.component import Component
from remote_runner.config.loader import Loaded, load, load_noting
from remote_runner.config.settings import ExtraArgs, Settings
from remote_runner.errors import ConfigError, ConfigFaults, UsageError, UserCodeError
from tests.privileges import unprivileged

COMPONENT = "c = Component(name='a', host='h', executable='x')\nconfig.add_component(c)\n"

Load = Callable[..., Loaded]


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Whatever users' files do: afterwards this process is as before."""
    before = (Path.cwd(), list(sys.path), list(sys.argv), set(sys.modules))
    yield
    after = (Path.cwd(), list(sys.path), list(sys.argv))
    assert after == before[:3]
    assert not [name for name in set(sys.modules) - before[3] if name.startswith(('remote_runner_', 'beside'))]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads the given texts as files: the config in `cfg/`, the rest in `tools/`, from the directory `here/`."""
    for name in ('cfg', 'tools', 'here'):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / 'here')

    def run(config: str = COMPONENT, *muddlers: str, parser: str | None = None, **settings: Any) -> Loaded:
        (tmp_path / 'cfg' / 'config.py').write_text(config)
        files = []
        for number, text in enumerate(muddlers, 1):
            (tmp_path / 'tools' / f'muddler{number}.py').write_text(text)
            files.append(f'../tools/muddler{number}.py')
        if parser is not None:
            (tmp_path / 'tools' / 'parser.py').write_text(parser)
            settings['arg_parser'] = '../tools/parser.py'
        return load_noting(Settings(config_file='../cfg/config.py', muddlers=tuple(files), **settings))

    return run


class TestConfigFile:
    def test_its_namespace(self, run: Load, tmp_path: Path) -> None:
        loaded = run(
            'import copy, os\n'
            'c = Component()\n'
            'c.args = [localhost, __file__, os.getcwd(), extra_options, options.config_file, util.__name__]\n'
            'config.add_component(copy.deepcopy(c))\n'
        )
        [stored] = loaded.config.all_components()
        file = str(tmp_path / 'cfg' / 'config.py')
        assert stored.args == ['localhost', file, str(tmp_path / 'cfg'), None, file, 'remote_runner.config.util']
        assert type(stored) is Component

    def test_is_not_main(self, run: Load) -> None:
        loaded = run(COMPONENT + "if __name__ == '__main__':\n    config.clear_components()\n")
        assert len(list(loaded.config.all_components())) == 1

    def test_what_looks_its_module_up_works(self, run: Load) -> None:
        run(
            'from __future__ import annotations\n'
            'import dataclasses, pickle, logging, typing\n'
            '@dataclasses.dataclass\n'
            'class Host:\n'
            '    name: str\n'
            '    friends: list[Host] = dataclasses.field(default_factory=list)\n'
            'typing.get_type_hints(Host)\n'
            "assert pickle.loads(pickle.dumps(Host('a'))) == Host('a')\n"
            "assert logging.getLogger(__name__).name != '__main__'\n"
        )

    def test_imports_what_stands_beside_it(self, run: Load, tmp_path: Path) -> None:
        (tmp_path / 'cfg' / 'beside_hosts.py').write_text("NAMES = ['one']\n")
        run('import beside_hosts\nassert beside_hosts.NAMES == ["one"]\n')

    def test_two_configs_with_helpers_of_one_name(self, tmp_path: Path) -> None:
        for name in ('one', 'two'):
            (tmp_path / name).mkdir()
            (tmp_path / name / 'beside_package').mkdir()
            (tmp_path / name / 'beside_package' / '__init__.py').write_text('')
            (tmp_path / name / 'beside_package' / 'inner.py').write_text(f'NAME = {name!r}\n')
            (tmp_path / name / 'config.py').write_text(
                'from beside_package.inner import NAME\nconfig.add_component(Component(name=NAME))\n'
            )
        for name in ('one', 'two'):
            [stored] = load(Settings(config_file=str(tmp_path / name / 'config.py'))).config.all_components()
            assert stored.name == name

    def test_helper_is_shared_by_files_of_one_directory(self, run: Load, tmp_path: Path) -> None:
        (tmp_path / 'tools' / 'beside_state.py').write_text('seen = []\n')
        loaded = run(
            COMPONENT,
            'import beside_state\ndef muddle(config): beside_state.seen.append(1)\n',
            'import beside_state\ndef muddle(config): config.add_component(Component(args=beside_state.seen))\n',
        )
        assert [c.args for c in loaded.config.all_components()] == [[], [1]]

    def test_does_not_inherit_our_future(self, run: Load) -> None:
        run('def f(a: 1): pass\nassert f.__annotations__ == {"a": 1}\n')

    def test_text_in_another_encoding(self, run: Load, tmp_path: Path) -> None:
        file = tmp_path / 'cfg' / 'latin.py'
        file.write_bytes("# -*- coding: latin-1 -*-\nconfig.add_component(Component(name='é'))\n".encode('latin-1'))
        [stored] = load(Settings(config_file=str(file))).config.all_components()
        assert stored.name == 'é'

    def test_its_directory_is_that_of_the_file_itself(self, run: Load, tmp_path: Path) -> None:
        run('')
        (tmp_path / 'here' / 'link.py').symlink_to('../cfg/config.py')
        settings = Settings(config_file='link.py')
        assert settings.config_dir == str(tmp_path / 'cfg')

    def test_changed_directory_does_not_leak(self, run: Load) -> None:
        run("import os\nos.chdir('/')\n")

    def test_working_directory_that_is_gone(self, run: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run('')
        (tmp_path / 'gone').mkdir()
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path / 'gone')
            (tmp_path / 'gone').rmdir()
            load(Settings(config_file=str(tmp_path / 'cfg' / 'config.py')))

    def test_interrupt_passes(self, run: Load) -> None:
        with pytest.raises(KeyboardInterrupt):
            run('raise KeyboardInterrupt\n')

    def test_error_beside_it_names_both_lines(self, run: Load, tmp_path: Path) -> None:
        (tmp_path / 'cfg' / 'beside_broken.py').write_text('def go():\n    raise RuntimeError("no")\n')
        with pytest.raises(UserCodeError) as caught:
            run('import beside_broken\nbeside_broken.go()\n')
        assert f'{tmp_path}/cfg/beside_broken.py, line 2: RuntimeError: no' in str(caught.value)
        assert f'called from {tmp_path}/cfg/config.py, line 2' in str(caught.value)

    def test_syntax_error_beside_it_names_that_file(self, run: Load, tmp_path: Path) -> None:
        (tmp_path / 'cfg' / 'beside_old.py').write_text("\nprint 'x'\n")
        with pytest.raises(UserCodeError) as caught:
            run('import beside_old\n')
        assert f"{tmp_path}/cfg/beside_old.py, line 2: SyntaxError" in str(caught.value)
        assert "write print('x')" in str(caught.value)
        assert f'called from {tmp_path}/cfg/config.py, line 1' in str(caught.value)

    def test_shows_the_line_as_it_is_now(self, run: Load) -> None:
        for text in ('first', 'second'):
            with pytest.raises(UserCodeError, match=f"raise ValueError\\('{text}'\\)"):
                run(f"raise ValueError('{text}')\n")
            linecache.getlines('../cfg/config.py')


class TestFiles:
    @pytest.mark.parametrize(
        ('prepare', 'message'),
        [
            (lambda path: None, 'no such file'),
            (lambda path: path.with_name('config.pyy').touch(), 'no such file (there is config.pyy beside it)'),
            (lambda path: path.mkdir(), 'is a directory (name the file in it)'),
            (lambda path: path.write_bytes(b'a = 1\nb = "\xff"\n'), 'line 2: byte 0xff is no utf-8 text'),
            (lambda path: path.write_bytes(b'# coding: klingon\n'), 'line 1: unknown encoding: klingon'),
            (lambda path: path.write_bytes(b'\x7fELF\0\0'), 'is no Python file, it holds NUL bytes'),
            (lambda path: path.symlink_to('config.py'), 'cannot be read: Too many levels of symbolic links'),
        ],
    )
    def test_that_cannot_be_read(self, tmp_path: Path, prepare: Callable[[Path], None], message: str) -> None:
        path = tmp_path / 'config.py'
        prepare(path)
        with pytest.raises(ConfigError) as caught:
            load(Settings(config_file=str(path)))
        assert str(caught.value).startswith(f'config {path}')
        assert message in str(caught.value)

    def test_without_permission(self, tmp_path: Path) -> None:
        path = tmp_path / 'config.py'
        path.touch(mode=0)
        settings = Settings(config_file=str(path))
        with unprivileged(), pytest.raises(ConfigError, match='cannot be read: Permission denied'):
            load(settings)

    def test_all_of_them_at_once_and_nothing_run(self, run: Load, tmp_path: Path) -> None:
        run(f"open('{tmp_path}/ran', 'w')\n")
        (tmp_path / 'ran').unlink()
        with pytest.raises(ConfigFaults) as caught:
            load(Settings(config_file='../cfg/config.py', muddlers=('m.py',), arg_parser='p.py'))
        assert [fault.split(': ')[0] for fault in caught.value.faults] == [
            f'arg parser {tmp_path}/here/p.py',
            f'muddler {tmp_path}/here/m.py',
        ]
        assert not (tmp_path / 'ran').exists()


class TestAllFaults:
    """Whatever is wrong with the files is told at once."""

    @pytest.mark.parametrize(
        ('statement', 'wrong'),
        [
            ("c.exectable = 'x'", 'exectable'),
            ("c . exectable='x'", 'exectable'),
            ("c.nmae += 'x'", 'nmae'),
            ('del c.fils', 'fils'),
            ("setattr(c, 'wiat', True)", 'wiat'),
            ("delattr(c, 'wiat')", 'wiat'),
            ("a = c.hots = 'x'", 'hots'),
            ("c.host, c.hots = 'xy'", 'hots'),
            ("if True: c.hots = 'x'", 'hots'),
            ("for c.args in [[]]: c.hots = 'x'", 'hots'),
            ("(lambda: None)(); c.hots = 'x'; c.name = 'b'", 'hots'),
        ],
    )
    def test_a_config_goes_on_after_an_attribute_that_is_unknown(
        self, run: Load, tmp_path: Path, statement: str, wrong: str
    ) -> None:
        loaded = run(f"c = Component(name='a')\n{statement}\nc.start_index = 7\nconfig.add_component(c)\n")
        [fault] = loaded.faults
        assert str(fault).startswith(
            f'{tmp_path}/cfg/config.py, line 2: AttributeError: a Component has no attribute {wrong!r}; the nearest is '
        )
        assert isinstance(fault, UserCodeError)
        assert fault.output == statement
        assert [c.start_index for c in loaded.config.all_components()] == [7]

    def test_the_same_line_in_a_loop_is_told_once(self, run: Load) -> None:
        loaded = run('for i in range(3):\n    c = Component()\n    c.nmae = i\n    config.add_component(c)\n')
        assert len(loaded.faults) == 1
        assert len(list(loaded.config.all_components())) == 3

    def test_functions_and_muddlers_go_on_too(self, run: Load) -> None:
        loaded = run(
            'def add(name):\n    c = Component(name=name)\n    c.hots = 1\n    config.add_component(c)\nadd("a")\n'
            + COMPONENT,
            'def muddle(config):\n    for c in config.all_components():\n        c.fils = {}\n        c.name = "b"\n',
        )
        assert ['hots' in str(fault) for fault in loaded.faults] == [True, False]
        assert 'called from' in str(loaded.faults[0])
        assert [c.name for c in loaded.config.all_components()] == ['b']

    @pytest.mark.parametrize(
        'text',
        [
            'try: c.nmae = 1\nexcept AttributeError: print("caught")\n',
            'try:\n    if True:\n        c.nmae = 1\nexcept Exception as error: print("caught", error)\n',
            'from contextlib import suppress as s\nwith s(AttributeError): c.nmae = 1\nprint("caught")\n',
            'def put(n): setattr(c, n, 1)\ntry: put("nmae")\nexcept AttributeError: print("caught")\n',
            'def put(n): c.nmae = n\ntry: put("nmae")\nexcept AttributeError: print("caught")\n',
        ],
    )
    def test_a_config_that_deals_with_the_error_itself(
        self, run: Load, capsys: pytest.CaptureFixture[str], text: str
    ) -> None:
        assert run(f'{COMPONENT}{text}').faults == ()
        assert 'caught' in capsys.readouterr().out

    def test_attributes_of_other_objects(self, run: Load) -> None:
        loaded = run(f'{COMPONENT}class Mine: pass\nmine = Mine()\nmine.anything = 5\nc.name = mine.anything\n')
        assert loaded.faults == ()
        with pytest.raises(UserCodeError, match='line 3: AttributeError'):
            run(f'{COMPONENT}None.anything = 5\n')

    def test_what_ends_the_load_comes_with_what_was_found_before(self, run: Load, tmp_path: Path) -> None:
        with pytest.raises(ConfigFaults) as caught:
            run('c = Component()\nc.hots = 1\nundefined\n', '', 'def muddle(config): 1 / 0\n', extra_args='x')
        assert [fault.splitlines()[0] for fault in caught.value.faults] == [
            '--extra-args needs --arg-parser (name the file whose parse_args() reads them)',
            f"{tmp_path}/cfg/config.py, line 2: AttributeError: a Component has no attribute 'hots'; "
            "the nearest is 'host'",
            f"{tmp_path}/cfg/config.py, line 3: NameError: name 'undefined' is not defined",
            f'muddler {tmp_path}/tools/muddler1.py: does not define muddle '
            '(define muddle(config) or muddle(config, options))',
        ]

    def test_who_does_not_ask_for_faults_gets_them_raised(self, run: Load) -> None:
        run('c = Component()\nc.hots = 1\n')
        with pytest.raises(UserCodeError, match="no attribute 'hots'"):
            load(Settings(config_file='../cfg/config.py'))

    def test_files_that_do_not_compile(self, run: Load, tmp_path: Path) -> None:
        with pytest.raises(ConfigFaults) as caught:
            run('(\n', 'def\n')
        assert [fault.splitlines()[0].split(': ')[:2] for fault in caught.value.faults] == [
            [f'{tmp_path}/cfg/config.py, line 1', 'SyntaxError'],
            [f'{tmp_path}/tools/muddler1.py, line 1', 'SyntaxError'],
        ]

    def test_the_lines_of_later_errors_are_the_users(self, run: Load, tmp_path: Path) -> None:
        text = 'class Mine: pass\nmine = Mine()\n\nmine.a = (\n    1 /\n    0)\n'
        with pytest.raises(UserCodeError, match=r'config\.py, line 5: ZeroDivisionError'):
            run(text)


class TestMuddlers:
    def test_apply_in_order_in_the_callers_directory(self, run: Load, tmp_path: Path) -> None:
        loaded = run(
            COMPONENT,
            'import os\ndef muddle(config):\n    for c in config.all_components(): c.args.append(os.getcwd())\n',
            'def muddle(config):\n    for c in config.all_components(): c.args.append("second")\n',
        )
        [stored] = loaded.config.all_components()
        assert stored.args == [str(tmp_path / 'here'), 'second']
        assert loaded.options.muddler == str(tmp_path / 'tools' / 'muddler2.py')
        assert loaded.options.muddlers == [str(tmp_path / 'tools' / f'muddler{n}.py') for n in (1, 2)]

    def test_their_namespace(self, run: Load) -> None:
        loaded = run(
            COMPONENT,
            'def muddle(config):\n'
            '    assert util.recursive_files_dict and localhost == "localhost" and __file__\n'
            '    config.add_component(Component(name=options.screen, args=[extra_options]))\n',
            parser='def parse_args(extra_args, ssh_user): return ssh_user\n',
            ssh_user='me',
            screen='mine',
        )
        added = list(loaded.config.all_components())[1]
        assert (type(added), added.name, added.args) == (Component, 'mine', ['me'])

    @pytest.mark.parametrize(
        ('signature', 'count'),
        [
            ('config', 1),
            ('config, options', 2),
            ('config, options=None', 2),
            ('config, anything', 2),
            ('config, debug=False', 1),
            ('config, debug=False, options=None', 1),
            ('*args', 2),
            ('config, *rest', 2),
            ('config, **more', 1),
            ('config, *, debug=False', 1),
            ('config, /', 1),
        ],
    )
    def test_get_what_they_take(self, run: Load, signature: str, count: int) -> None:
        loaded = run(
            COMPONENT,
            f'def muddle({signature}):\n'
            '    taken = []\n'
            '    for value in locals().values(): taken += value if isinstance(value, tuple) else [value]\n'
            '    config_list = [v for v in taken if hasattr(v, "all_components")]\n'
            '    given = [v for v in taken if hasattr(v, "config_file")]\n'
            '    config_list[0].add_component(Component(args=[len(config_list) + len(given)]))\n',
        )
        assert list(loaded.config.all_components())[1].args == [count]

    @pytest.mark.parametrize(
        ('text', 'message'),
        [
            ('', 'does not define muddle (define muddle(config) or muddle(config, options))'),
            ('muddle = 5', 'muddle is 5, no function'),
            ('def muddle(): pass', 'muddle() cannot be called'),
            ('def muddle(a, b, c): pass', 'muddle(a, b, c) cannot be called'),
            ('def muddle(config, *, must): pass', 'muddle(config, *, must) cannot be called'),
            ('def muddle(config): yield', 'muddle would do nothing when called'),
            ('async def muddle(config): pass', 'muddle would do nothing when called'),
        ],
    )
    def test_that_cannot_be_used(self, run: Load, tmp_path: Path, text: str, message: str) -> None:
        [fault] = run(COMPONENT, text).faults
        assert str(fault).startswith(f'muddler {tmp_path}/tools/muddler1.py: {message}')

    def test_callable_objects(self, run: Load) -> None:
        loaded = run(
            COMPONENT,
            'class Muddler:\n    def __call__(self, config): config.clear_components()\nmuddle = Muddler()\n',
        )
        assert not list(loaded.config.all_components())

    def test_built_in_functions(self, run: Load) -> None:
        with pytest.raises(UserCodeError, match='TypeError'):
            run(COMPONENT, 'muddle = getattr\n')

    def test_original_error_is_kept_for_debugging(self, run: Load) -> None:
        with pytest.raises(UserCodeError) as caught:
            run(COMPONENT, 'def muddle(config): 1 / 0\n')
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    @pytest.mark.parametrize(
        ('body', 'message'),
        [
            ('assert config is None', 'line 2: AssertionError'),
            ('raise SystemExit(3)', 'line 2: the muddler ended itself, with status 3'),
            ('config.add_component(xrange(3))', 'line 2: NameError'),
            ('config.nothing', 'line 2: AttributeError'),
        ],
    )
    def test_their_errors_name_their_line(self, run: Load, tmp_path: Path, body: str, message: str) -> None:
        with pytest.raises(UserCodeError) as caught:
            run(COMPONENT, f'def muddle(config):\n    {body}\n')
        assert f'{tmp_path}/tools/muddler1.py, {message}' in str(caught.value)
        assert body in str(caught.value)
        assert 'loader.py' not in str(caught.value)

    def test_relative_files_of_a_muddler_are_found_later(self, run: Load, tmp_path: Path) -> None:
        (tmp_path / 'here' / 'data').mkdir()
        (tmp_path / 'here' / 'data' / 'a').touch()
        (tmp_path / 'cfg' / 'data').mkdir()
        (tmp_path / 'cfg' / 'data' / 'b').touch()
        loaded = run(
            COMPONENT + "c.files = util.recursive_files_dict('data', '.')\nconfig.add_component(c)\n",
            "def muddle(config): config.add_component(Component(files=util.recursive_files_dict('data', '.')))\n",
        )
        _, of_config, of_muddler = loaded.config.all_components()
        assert of_config.files == {'data/b': './b'}
        assert of_muddler.files == {f'{tmp_path}/here/data/a': './a'}


ARGPARSE = (
    'import argparse\n'
    'def parse_args(extra_args, ssh_user):\n'
    '    parser = argparse.ArgumentParser(prog="extra")\n'
    '    parser.add_argument("--user-count", type=int, default=1)\n'
    '    parser.add_argument("-c")\n'
    '    return parser.parse_args({})\n'
)


class TestArgParsers:
    @pytest.mark.parametrize('words', ['extra_args', 'extra_args.split()', '__import__("shlex").split(extra_args)'])
    def test_get_the_text_and_its_words(self, run: Load, words: str) -> None:
        loaded = run(parser=ARGPARSE.format(words), extra_args='--user-count 3 -c x')
        assert vars(loaded.extra_options) == {'user_count': 3, 'c': 'x'}

    @pytest.mark.parametrize('text', ['-cx', '-c x', '--user-count=1 -c x'])
    def test_options_named_like_ours(self, run: Load, text: str) -> None:
        assert run(parser=ARGPARSE.format('extra_args'), extra_args=text).extra_options.c == 'x'

    def test_quotes(self, run: Load) -> None:
        loaded = run(parser=ARGPARSE.format('extra_args'), extra_args="-c 'a b'")
        assert loaded.extra_options.c == 'a b'

    def test_quote_that_does_not_end(self, run: Load, tmp_path: Path) -> None:
        with pytest.raises(UserCodeError) as caught:
            run(parser=ARGPARSE.format('extra_args'), extra_args="-c 'a b")
        assert f'{tmp_path}/tools/parser.py, line 6: --extra-args "-c \'a b": no closing quotation' in str(caught.value)

    def test_result_may_be_anything_and_reaches_the_config(self, run: Load) -> None:
        loaded = run(
            'config.add_component(Component(name=extra_options["a"]))',
            parser='def parse_args(x): return {"a": 1}',
        )
        assert [c.name for c in loaded.config.all_components()] == [1]

    def test_one_argument_form(self, run: Load) -> None:
        assert run(parser='def parse_args(extra_args): return extra_args', extra_args='a b').extra_options == 'a b'

    def test_user(self, run: Load) -> None:
        parser = 'def parse_args(extra_args, ssh_user=None): return ssh_user'
        assert run(parser=parser, ssh_user='me').extra_options == 'me'
        assert run(parser=parser).extra_options is None

    def test_run_in_the_callers_directory(self, run: Load, tmp_path: Path) -> None:
        loaded = run(parser='import os\nhere = os.getcwd()\ndef parse_args(x): return here, os.getcwd()')
        assert loaded.extra_options == (str(tmp_path / 'here'),) * 2

    def test_help(self, run: Load, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            run(parser=ARGPARSE.format('extra_args'), extra_args='--help')
        assert caught.value.code == 0
        assert '--user-count' in capsys.readouterr().out

    def test_wrong_argument(self, run: Load, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            run(parser=ARGPARSE.format('extra_args'), extra_args='--nonsense')
        assert caught.value.code == 2
        assert 'extra: error: unrecognized arguments: --nonsense' in capsys.readouterr().err

    def test_clean_end(self, run: Load) -> None:
        with pytest.raises(SystemExit) as caught:
            run(parser='import sys\ndef parse_args(x): sys.exit(0)')
        assert caught.value.code == 0

    @pytest.mark.parametrize(
        ('body', 'message'),
        [
            ('sys.exit(1)', 'line 3: the arg parser ended itself, with status 1'),
            ('exit(1)', 'line 3: the arg parser ended itself, with status 1'),
            ('sys.exit("no")', 'line 3: the arg parser ended itself: no'),
            ('assert not x, "why"', 'line 3: AssertionError: why'),
        ],
    )
    def test_their_errors_name_their_line(self, run: Load, tmp_path: Path, body: str, message: str) -> None:
        with pytest.raises(UserCodeError) as caught:
            run(parser=f'import sys\ndef parse_args(x):\n    {body}\n', extra_args='x')
        assert f'{tmp_path}/tools/parser.py, {message}' in str(caught.value)

    def test_without_parse_args(self, run: Load, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            run(parser='')
        file = tmp_path / 'tools' / 'parser.py'
        expected = 'does not define parse_args (define parse_args(extra_args, ssh_user))'
        assert str(caught.value) == f'arg parser {file}: {expected}'

    def test_extra_args_need_one(self, run: Load) -> None:
        [fault] = run(extra_args='--user-count 3').faults
        assert isinstance(fault, UsageError)
        assert '--extra-args needs --arg-parser' in str(fault)
        loaded = run(extra_args='')
        assert (loaded.extra_options, loaded.faults) == (None, ())

    def test_words_of_extra_args(self) -> None:
        assert list(ExtraArgs("a 'b c'")) == ['a', 'b c']
        assert ExtraArgs('a b').split() == ['a', 'b']
        assert list(ExtraArgs('')) == []


class TestOptions:
    def test_all_names(self, run: Load, tmp_path: Path) -> None:
        options = run(ssh_user='me', ssh_pass='secret', more={'fanout': 7}).options
        assert vars(options) == {
            'config_file': str(tmp_path / 'cfg' / 'config.py'),
            'ssh_user': 'me',
            'ssh_pass': 'secret',
            'log_level': 'INFO',
            'screen': 'runner',
            'kill_first': True,
            'terminate': False,
            'always_copy': False,
            'no_zombie': False,
            'muddler': None,
            'muddlers': [],
            'extra_args': None,
            'arg_parser': None,
            'remote_done_dir': None,
            'fanout': 7,
        }

    def test_password_is_never_shown(self, run: Load) -> None:
        settings = Settings(config_file='x', ssh_pass='secret', more={'other': 'secret'})
        loaded = run(ssh_pass='secret')
        for shown in (settings, loaded, loaded.options):
            assert 'secret' not in f'{shown!r} {shown}'

    def test_unknown_name(self, run: Load) -> None:
        with pytest.raises(AttributeError, match="no attribute 'screens'; the nearest is 'screen'"):
            run().options.screens  # noqa: B018

    def test_home_directory(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv('HOME', str(tmp_path))
        settings = Settings(config_file='~/c.py', muddlers=('~/m.py',), arg_parser='~no_such_user_here/p.py')
        assert (settings.config_file, settings.muddlers) == (f'{tmp_path}/c.py', (f'{tmp_path}/m.py',))
        assert settings.arg_parser == f'{Path.cwd()}/~no_such_user_here/p.py'
