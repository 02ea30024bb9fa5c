"""The patterns of `exclude`: what they leave out of a tree, compared with git and with a matcher written here."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from remote_runner.config import util
from remote_runner.config.exclude import Exclusion
from tests.privileges import unprivileged

Ignored = Callable[[Sequence[str]], set[str]]

FOLDERS = ('a', 'b', '.d')
FILES = ('c', 'ab', 'a.o', '[', '!x', '\\', '-', 'a-c')


def grow(top: Path, depth: int) -> None:
    """A tree with the names that the patterns below are about."""
    for name in FILES:
        (top / name).touch()
    (top / 'empty').mkdir()
    (top / 'link').symlink_to('empty')
    (top / 'nowhere').symlink_to('not-there')
    if depth:
        for name in FOLDERS:
            (top / name).mkdir()
            grow(top / name, depth - 1)


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp('exclude') / 'tree'
    top.mkdir()
    grow(top, 2)
    return top


@pytest.fixture(scope='module')
def ignored_by_git(tree: Path) -> Ignored:
    """Which paths of the tree git ignores with some lines in its excludes file."""
    environment = {**os.environ, 'GIT_CONFIG_GLOBAL': os.devnull, 'GIT_CONFIG_NOSYSTEM': '1'}
    lines = tree.parent / 'lines'
    command = ['git', f'--git-dir={tree.parent}/git', f'--work-tree={tree}', '-c', f'core.excludesFile={lines}']
    subprocess.run([*command, 'init', '--quiet', '--template='], env=environment, check=True)
    paths = '\0'.join(str(path.relative_to(tree)) for path in sorted(tree.rglob('*')))

    def ask(patterns: Sequence[str]) -> set[str]:
        lines.write_text('\n'.join(patterns) + '\n')
        argv = [*command, 'check-ignore', '--no-index', '--stdin', '-z']
        done = subprocess.run(argv, input=paths, capture_output=True, text=True, env=environment, cwd=tree)
        assert done.returncode in (0, 1), done.stderr  # 1: none is
        return set(done.stdout.split('\0')) - {''}

    return ask


def found(tree: Path, patterns: Any, links: str = 'keep') -> set[str]:
    return set(util.recursive_files_dict(tree, '/', exclude=patterns, links=links).values()) - {'/'}


def remaining(tree: Path, ignored: set[str]) -> set[str]:
    """What has nothing below it, of what is not ignored."""
    kept = {str(path.relative_to(tree)) for path in tree.rglob('*')} - ignored
    above = {path.rpartition('/')[0] for path in kept}
    return {f'/{path}' for path in kept - above}


TOKENS = [
    'a', 'b', 'c', '.d', '.o', 'empty', 'link', '-', '*', '*', '?', '**', '/', '/', '[ab]', '[!a]', '[^a]', '[a-c]',
    '[]a]', '[c-a]', '[!c-a]', '[.-0]', '[[]', '[a-]', '[\\]a]', '[!.-0]', '\\', '[', ']', '!', '***', '/**/', '**/',
    '/**',
]  # fmt: skip
#: What gitignore(5) says of `a**/b`, that these are plain asterisks, git itself does not do: it matches `ab`.
UNLIKE_ITS_MANUAL = re.compile(r'!?[^*?[\\]*[^*?[\\/]\*\*')
lines = (
    st.lists(st.sampled_from(TOKENS), min_size=1, max_size=6)
    .map(''.join)
    .filter(lambda line: not UNLIKE_ITS_MANUAL.match(line))
)


def accepted(pattern: str) -> bool:
    try:
        Exclusion(pattern)
    except ValueError:
        return False
    return True


@settings(max_examples=150)
@given(patterns=st.lists(lines, min_size=1, max_size=4))
@example(patterns=['*', '!a', '!*.o', 'b/'])
@example(patterns=['/a', '!/a/c'])
@example(patterns=['a/**/c', '**/b/[!a]*', '.d/**'])
@example(patterns=['\\!x', '\\\\', '\\['])
def test_as_git_does(tree: Path, ignored_by_git: Ignored, patterns: list[str]) -> None:
    refused = [pattern for pattern in patterns if not accepted(pattern)]
    assert ignored_by_git(refused) == set()
    patterns = [pattern for pattern in patterns if accepted(pattern)]
    assert found(tree, patterns) == remaining(tree, ignored_by_git(patterns))


def matches(pattern: Sequence[str], path: Sequence[str]) -> bool:
    """Whether a path matches a pattern, both cut at slashes."""
    if not pattern or not path:
        return not pattern and not path
    if pattern[0] == '**':
        return len(pattern) == 1 or any(matches(pattern[1:], path[at:]) for at in range(len(path)))
    return fnmatchcase(path[0], pattern[0]) and matches(pattern[1:], path[1:])


def is_left_out(pattern: str, path: str, *, is_folder: bool) -> bool:
    if pattern.endswith('/') and not is_folder:
        return False
    parts = pattern.rstrip('/').split('/')
    if len(parts) == 1:
        return matches(parts, [path.split('/')[-1]])
    return matches(parts[1:] if parts[0] == '' else parts, path.split('/'))


CHARACTERS = 'ab.ü\n\udcff😀$^('
words = st.text(CHARACTERS, min_size=1, max_size=3).filter(lambda word: word not in ('.', '..'))
names = st.one_of(
    st.just('**'),
    st.lists(st.one_of(words, st.sampled_from(['*', '?', '[a-ü]', '[!ab]'])), min_size=1, max_size=3)
    .map(''.join)
    .filter(lambda name: '**' not in name),
)
forms = st.tuples(st.sampled_from(['', '/']), st.lists(names, min_size=1, max_size=4), st.sampled_from(['', '/']))


@settings(max_examples=300)
@given(forms, st.lists(words, min_size=1, max_size=4), st.booleans())
def test_any_characters(form: tuple[str, list[str], str], path: list[str], is_folder: bool) -> None:
    """Also where git, which looks at bytes, knows of no characters."""
    pattern = form[0] + '/'.join(form[1]) + form[2]
    text = '/'.join(path)
    assert Exclusion(pattern).excludes(text, is_folder=is_folder) == is_left_out(pattern, text, is_folder=is_folder)


def test_two_asterisks_within_a_name(tree: Path) -> None:
    assert found(tree, 'a**/c') == found(tree, 'a*/c') == found(tree, []) - {'/a/c'}


class TestExclude:
    @pytest.mark.parametrize(
        ('exclude', 'expected'),
        [
            ((), {'/top.txt', '/x.o', '/build/out', '/sub/top.txt', '/sub/y.o', '/sub/build/z', '/a/b', '/a/x/y/b'}),
            ('*.o', {'/top.txt', '/build/out', '/sub/top.txt', '/sub/build/z', '/a/b', '/a/x/y/b'}),
            ('build/', {'/top.txt', '/x.o', '/sub/top.txt', '/sub/y.o', '/a/b', '/a/x/y/b'}),
            ('b/', {'/top.txt', '/x.o', '/build/out', '/sub/top.txt', '/sub/y.o', '/sub/build/z', '/a/b', '/a/x/y/b'}),
            ('/top.txt', {'/x.o', '/build/out', '/sub/top.txt', '/sub/y.o', '/sub/build/z', '/a/b', '/a/x/y/b'}),
            ('a/**/b', {'/top.txt', '/x.o', '/build/out', '/sub/top.txt', '/sub/y.o', '/sub/build/z', '/a/x/y'}),
            (['*', '!*.o', '!sub'], {'/x.o', '/sub/y.o'}),
            (['*'], {'/'}),
            (('sub', 'build', 'a', '*.o'), {'/top.txt'}),
            ({'sub', 'build', 'a', '*.o'}, {'/top.txt'}),
            (iter(['sub', 'build', 'a', '*.o']), {'/top.txt'}),
        ],
    )  # fmt: skip
    def test_what_is_left(self, tmp_path: Path, exclude: Any, expected: set[str]) -> None:
        for name in ('top.txt', 'x.o', 'build/out', 'sub/top.txt', 'sub/y.o', 'sub/build/z', 'a/b', 'a/x/y/b'):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        assert set(util.recursive_files_dict(tmp_path, '/', exclude=exclude).values()) == expected

    def test_a_folder_that_is_left_out_is_not_entered(self, tmp_path: Path) -> None:
        (tmp_path / 'sub').mkdir()
        (tmp_path / 'sub' / 'loop').symlink_to('..')
        assert util.recursive_files_dict(tmp_path, '/', exclude='sub') == {str(tmp_path): '/'}
        assert util.recursive_files_dict(tmp_path, '/', exclude='sub/loop') == {f'{tmp_path}/sub': '/sub'}

    def test_a_folder_that_is_left_out_need_not_be_readable(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tmp_path.chmod(0o755)
        (tmp_path / 'closed').mkdir(mode=0)
        (tmp_path / 'open').touch()
        monkeypatch.chdir(tmp_path)  # nobody may go through what is above it
        with unprivileged():
            assert found(Path(), 'closed/') == {'/open'}
            with pytest.raises(PermissionError):
                found(Path(), 'closed/*')

    def test_a_link_that_is_followed_is_what_it_leads_to(self, tmp_path: Path) -> None:
        (tmp_path / 'folder').mkdir()
        (tmp_path / 'link').symlink_to('folder')
        assert found(tmp_path, 'link/', links='follow') == {'/folder'}
        assert found(tmp_path, 'link/', links='keep') == {'/folder', '/link'}

    @pytest.mark.parametrize('exclude', [b'*.o', [b'*.o'], [None], ['a', 5], [Path('a')], None, 7])
    def test_what_is_no_text(self, tmp_path: Path, exclude: Any) -> None:
        for helper in (util.recursive_files_dict, util.glob_files_dict):
            with pytest.raises(TypeError, match=r'^exclude'):
                helper(str(tmp_path), '/', exclude=exclude)

    @pytest.mark.parametrize('pattern', ['', '/', '!', '!/', '//', '[a', 'x[!', '[]', 'a\\', 'a\\/', '[[:alpha:]]'])
    def test_what_matches_nothing(self, tmp_path: Path, pattern: str) -> None:
        for helper in (util.recursive_files_dict, util.glob_files_dict):
            with pytest.raises(ValueError, match=r'^exclude: the pattern .* matches nothing'):
                helper(str(tmp_path), '/', exclude=['a', pattern])


class TestExcludeOfGlobs:
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        for name in ('src/one.py', 'src/test/two.py', 'src/lib/test/three.py', 'src/lib/four.py', 'src/lib/five.txt'):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        monkeypatch.chdir(tmp_path)
        with util.relative_to(str(tmp_path)):
            yield

    @pytest.mark.parametrize(
        ('exclude', 'expected'),
        [
            ('test/', {'one.py', 'four.py'}),
            ('/test', {'one.py', 'three.py', 'four.py'}),
            ('lib/*.py', {'one.py', 'two.py', 'three.py'}),
            ('src', {'one.py', 'two.py', 'three.py', 'four.py'}),
            (['*.py', '!four.py'], {'four.py'}),
            (['test', '!three.py'], {'one.py', 'four.py'}),
        ],
    )
    def test_what_is_left(self, tmp_path: Path, exclude: Any, expected: set[str]) -> None:
        for pattern in ('src/**/*.py', './src/**/*.py', f'{tmp_path}/src/**/*.py'):
            files = util.glob_files_dict(pattern, '.', exclude=exclude)
            assert set(files.values()) == {f'./{name}' for name in expected}

    def test_without_a_wildcard(self) -> None:
        assert util.glob_files_dict('src/one.py', 'x', exclude='src') == {'src/one.py': 'x/one.py'}

    def test_nothing_is_left(self) -> None:
        with pytest.raises(FileNotFoundError):
            util.glob_files_dict('src/*.py', 'x', exclude='*.py')

    def test_two_of_one_name(self, tmp_path: Path) -> None:
        (tmp_path / 'src/lib/one.py').touch()
        assert len(util.glob_files_dict('src/**/*.py', 'x', exclude='/one.py')) == 4
