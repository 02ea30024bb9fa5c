"""The `util` of users' files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_runner.config import util
from remote_runner.deploy.check import target_path
from remote_runner.errors import AddressError
from tests.privileges import unprivileged


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

    def test_any_name(self, tree: Path) -> None:
        name = b'\xff \n*'.decode('utf-8', 'surrogateescape')
        (tree / 'src' / 'sub' / name).touch()
        assert util.recursive_files_dict('src/sub', 'to')[f'{tree}/src/sub/{name}'] == f'to/{name}'


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
