"""The `util` of users' files."""

from __future__ import annotations

import copy
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_runner.config import util
from remote_runner.config.component import Component, Config
from remote_runner.config.paths import TreePath, named
from remote_runner.deploy.check import target_path
from remote_runner.deploy.plan import make_plan
from remote_runner.errors import AddressError
from tests.privileges import unprivileged

#: What the name of a file may be.
ODD_NAMES = [
    b'\xff \n*'.decode('utf-8', 'surrogateescape'),
    'it\'s "quoted"',
    '-rf',
    '--',
    ' ',
    '~',
    'x' * 255,
    'ü' * 127,
    '\x1b[2J\x07',
    '\\n',
    '\u202e[a]',
]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with `src/{a,sub/b,empty/,deep/empty/}`."""
    for name in ('src/sub', 'src/empty', 'src/deep/empty'):
        (tmp_path / name).mkdir(parents=True)
    for name in ('src/a', 'src/sub/b'):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestRecursiveFilesDict:
    @pytest.mark.parametrize('src', ['src', 'src/', './src', 'src/sub/..'])
    def test_relative_in_the_configs_directory(self, tree: Path, src: str) -> None:
        with util.relative_to(str(tree)):
            files = util.recursive_files_dict(src, '.')
        assert set(files.values()) == {'./a', './sub/b', './empty', './deep/empty'}
        assert all(Path(key).exists() and not key.startswith('/') for key in files)

    def test_keys_are_written_as_src_is(self, tree: Path) -> None:
        with util.relative_to(str(tree)):
            assert util.recursive_files_dict('src/sub', 'to') == {'src/sub/b': 'to/b'}

    def test_absolute(self, tree: Path) -> None:
        assert util.recursive_files_dict(tree / 'src', '/opt') == {
            f'{tree}/src/a': '/opt/a',
            f'{tree}/src/sub/b': '/opt/sub/b',
            f'{tree}/src/empty': '/opt/empty',
            f'{tree}/src/deep/empty': '/opt/deep/empty',
        }

    def test_relative_elsewhere_becomes_absolute(self, tree: Path) -> None:
        with util.relative_to('/'):
            assert util.recursive_files_dict('src/sub', '') == {f'{tree}/src/sub/b': '/b'}
        assert util.recursive_files_dict('./src/sub', '~/x') == {f'{tree}/src/sub/b': '~/x/b'}

    def test_empty(self, tree: Path) -> None:
        assert util.recursive_files_dict('src/empty', 'to') == {f'{tree}/src/empty': 'to'}

    def test_follows_links(self, tree: Path) -> None:
        (tree / 'src' / 'deep' / 'link').symlink_to('../sub')
        (tree / 'src' / 'deep' / 'file').symlink_to('../a')
        files = util.recursive_files_dict('src/deep', 'to')
        assert set(files.values()) == {'to/link/b', 'to/file', 'to/empty'}

    def test_one_directory_twice_is_no_loop(self, tree: Path) -> None:
        (tree / 'src' / 'again').symlink_to('sub')
        assert {'to/again/b', 'to/sub/b'} <= set(util.recursive_files_dict('src', 'to').values())

    @pytest.mark.parametrize('to', ['..', '.', '../../src'])
    def test_loop(self, tree: Path, to: str) -> None:
        (tree / 'src' / 'sub' / 'loop').symlink_to(to)
        with pytest.raises(ValueError, match='src/sub/loop leads back to a directory above it'):
            util.recursive_files_dict('src', 'to')

    def test_broken_links_are_left_for_the_check(self, tree: Path) -> None:
        (tree / 'src' / 'sub' / 'broken').symlink_to('nowhere')
        assert util.recursive_files_dict('src/sub', 'to')[f'{tree}/src/sub/broken'] == 'to/broken'

    def test_missing(self, tree: Path) -> None:
        with pytest.raises(FileNotFoundError):
            util.recursive_files_dict('none', 'to')

    def test_file(self, tree: Path) -> None:
        with pytest.raises(NotADirectoryError):
            util.recursive_files_dict('src/a', 'to')

    def test_unreadable(self, tree: Path) -> None:
        (tree / 'src' / 'sub').chmod(0)
        with unprivileged(), pytest.raises(PermissionError):
            util.recursive_files_dict('src', 'to')
        (tree / 'src' / 'sub').chmod(0o700)

    @pytest.mark.parametrize('name', ODD_NAMES)
    @pytest.mark.parametrize('links', ['follow', 'keep'])
    def test_any_name(self, tree: Path, name: str, links: str) -> None:
        (tree / 'src' / 'sub' / name).touch()
        (tree / 'src' / 'deep' / name).mkdir()
        (tree / 'src' / 'deep' / name / name).touch()
        files = util.recursive_files_dict('src', 'to', links=links)
        assert files[f'{tree}/src/sub/{name}'] == f'to/sub/{name}'
        assert files[f'{tree}/src/deep/{name}/{name}'] == f'to/deep/{name}/{name}'
        assert util.glob_files_dict('src/sub/*', 'to')[f'{tree}/src/sub/{name}'] == f'to/{name}'

    @pytest.mark.parametrize('name', ['~', '~root'])
    def test_names_that_look_like_home_directories(self, tree: Path, name: str) -> None:
        (tree / name).mkdir()
        (tree / name / '~').write_text('x')
        with util.relative_to(str(tree)):
            files = util.recursive_files_dict(name, 'to')
            assert files == {f'./{name}/~': 'to/~'}
            assert util.glob_files_dict(f'{name}/*', 'to') == files
        config = Config()
        config.add_component(Component(name='c', host='h', executable='x', files=files))
        [file] = make_plan(config, str(tree), 'runner').components[0].files
        assert Path(file.local).read_text() == 'x'

    def test_deep(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As deep as paths can be."""
        depth = (4000 - len(str(tmp_path))) // 2
        monkeypatch.chdir(tmp_path)
        for _ in range(depth):
            os.mkdir('d')
            os.chdir('d')
        try:
            [(key, value)] = util.recursive_files_dict(tmp_path, 'to').items()
            assert (key, value) == (f'{tmp_path}{"/d" * depth}', f'to{"/d" * depth}')
        finally:
            for _ in range(depth):  # too deep for shutil
                os.chdir('..')
                os.rmdir('d')


class TestLinks:
    @pytest.fixture
    def linked(self, tree: Path) -> Path:
        """`src` of `tree` with links to a file, to a folder, to nothing, to themselves, and up."""
        targets = {
            'up': '..',
            'to-file': 'a',
            'to-folder': './sub/',
            'to-nothing': 'no/where',
            'to-itself': 'to-itself',
        }
        for name, target in targets.items():
            (tree / 'src' / name).symlink_to(target)
        return tree

    def test_keep(self, linked: Path) -> None:
        files = util.recursive_files_dict('src', 'to', links='keep')
        links = {path for path in files.values() if isinstance(path, TreePath) and path.is_link}
        assert links == {'to/to-file', 'to/to-folder', 'to/to-nothing', 'to/to-itself', 'to/up'}
        assert set(files.values()) - links == {'to/a', 'to/sub/b', 'to/empty', 'to/deep/empty'}
        assert files[f'{linked}/src/to-folder'] == 'to/to-folder'

    def test_follow(self, linked: Path) -> None:
        (linked / 'src' / 'up').unlink()
        for files in (util.recursive_files_dict('src', 'to', links='follow'), util.recursive_files_dict('src', 'to')):
            assert {'to/to-file', 'to/to-folder/b'} < set(files.values())
            assert not any(path.is_link for path in files.values() if isinstance(path, TreePath))

    def test_the_folder_itself_may_be_one(self, tree: Path) -> None:
        (tree / 'link').symlink_to('src/sub')
        assert util.recursive_files_dict('link', 'to', links='keep') == {f'{tree}/link/b': 'to/b'}
        (tree / 'link-to-empty').symlink_to('src/empty')
        [path] = util.recursive_files_dict('link-to-empty', 'to', links='keep').values()
        assert isinstance(path, TreePath)
        assert (path, path.is_link) == ('to', False)

    @pytest.mark.parametrize('links', ['', 'Keep', None, True, b'keep', 'copy'])
    def test_what_is_neither(self, tree: Path, links: Any) -> None:
        with pytest.raises(ValueError, match="links must be 'follow' or 'keep', is "):
            util.recursive_files_dict('src', 'to', links=links)


class TestTreePath:
    def test_of_a_tree(self, tree: Path) -> None:
        for src, dest, root in [
            ('src', './to/', './to/'),
            ('src/empty', Path('to'), 'to'),
            ('src', '', '/'),
            ('src/empty', '', '/'),
        ]:
            for path in util.recursive_files_dict(src, dest).values():
                assert isinstance(path, TreePath)
                assert (path.root, path.is_link) == (root, False)
                assert path.startswith(root)

    @pytest.mark.parametrize(
        ('exclude', 'patterns'), [('b', ('b',)), (['b', '!c/'], ('b', '!c/')), (iter(['b']), ('b',)), ((), ())]
    )
    def test_what_was_left_out(self, tree: Path, exclude: Any, patterns: tuple[str, ...]) -> None:
        paths = util.recursive_files_dict('src', 'to', exclude).values()
        assert {path.exclude for path in paths if isinstance(path, TreePath)} == {patterns}
        assert not any(path.endswith('/b') for path in paths if patterns)

    @pytest.mark.parametrize(
        'copied',
        [
            copy.copy,
            copy.deepcopy,
            *(lambda path, protocol=protocol: pickle.loads(pickle.dumps(path, protocol)) for protocol in range(6)),
            lambda path: copy.deepcopy({'a': [path]})['a'][0],
            lambda path: {local: remote for local, remote in {'a': path}.items() if remote}['a'],
        ],
    )
    @pytest.mark.parametrize('is_link', [True, False])
    def test_copies(self, copied: Any, is_link: bool) -> None:
        path = TreePath('to/a\udcff', 'to', is_link, ('*.o', '\udcff'))
        other = copied(path)
        assert type(other) is TreePath
        assert (other, other.root, other.is_link) == ('to/a\udcff', 'to', is_link)
        assert other.exclude == ('*.o', '\udcff')
        assert (hash(other), repr(other), json.dumps([other])) == (hash(str(path)), repr(str(path)), '["to/a\\udcff"]')

    def test_is_plain_text_otherwise(self) -> None:
        path = TreePath('to/a', 'to')
        assert path == 'to/a'
        assert [type(text) for text in (str(path), path + '', path[:], f'{path}')] == [str] * 4
        with pytest.raises(AttributeError):
            path.root = 'x'  # type: ignore[misc]

    def test_in_a_component(self, tree: Path) -> None:
        one = Component(name='c', host='h', executable='x', files={'src/a': 'a'})
        one.files.update(util.recursive_files_dict('src', 'to'))
        one.files = {local: remote for local, remote in one.files.items() if 'deep' not in remote}
        values, faults = copy.deepcopy(one).read()
        assert faults == []
        roots = {remote: getattr(remote, 'root', None) for _, remote in values['files']}
        assert roots == {'a': None, 'to/a': 'to', 'to/sub/b': 'to', 'to/empty': 'to'}

    def test_globs_are_no_trees(self, tree: Path) -> None:
        assert [type(path) for path in util.glob_files_dict('src/*', 'to').values()] == [str]


@pytest.mark.parametrize(
    ('path', 'text'),
    [('/a b/ü😀', '/a b/ü😀'), ('/a\nb', "'/a\\nb'"), ('\x1b[2J', "'\\x1b[2J'"), ('\udcff', "'\\udcff'"), ('', '')],
)
def test_named(path: str, text: str) -> None:
    assert named(path) == text


class TestGlobFilesDict:
    def test_flat(self, tree: Path) -> None:
        with util.relative_to(str(tree)):
            assert util.glob_files_dict('src/*', 'to') == {'src/a': 'to/a'}
            assert util.glob_files_dict('src/**/*', 'to/') == {'src/a': 'to/a', 'src/sub/b': 'to/b'}
        assert util.glob_files_dict(f'{tree}/src/a*', 'to') == {f'{tree}/src/a': 'to/a'}

    def test_nothing(self, tree: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no file matches 'src/\*\.jar' in "):
            util.glob_files_dict('src/*.jar', 'to')

    def test_two_of_one_name(self, tree: Path) -> None:
        (tree / 'src' / 'deep' / 'a').touch()
        with pytest.raises(ValueError, match='src/a and src/deep/a would both become a in to'):
            util.glob_files_dict('src/**/*', 'to')


class TestHosts:
    def test_forms(self, tree: Path) -> None:
        (tree / 'hosts.txt').write_text('gate\n# nobody\nroot@node[1-2]:22\n')
        assert util.hosts('node[1-3]', 'node3, x') == ['node1', 'node2', 'node3', 'x']
        assert util.hosts('@hosts.txt') == ['gate', 'root@node1:22', 'root@node2:22']

    def test_wrong(self) -> None:
        with pytest.raises(AddressError):
            util.hosts('node[1-')


names = st.text(st.characters(exclude_characters='/\0', codec='utf-8'), min_size=1, max_size=8)


@given(st.lists(names, min_size=1, max_size=4), st.lists(names, max_size=3))
def test_target_does_not_depend_on_how_it_is_written(parts: list[str], base: list[str]) -> None:
    parts = [f'x{part}' for part in parts]
    base_dir = '/' + '/'.join(f'x{part}' for part in base)
    plain = target_path(base_dir, '/'.join(parts))
    assert plain == target_path(base_dir, './' + '//'.join(parts) + '/')
    assert plain == target_path('/elsewhere', f'{base_dir}/{"/".join(parts)}')
    assert plain == target_path(base_dir, f'up/../{"/".join(parts)}/.')
