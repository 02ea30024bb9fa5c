"""`--delete`: what is gone here goes there, below the folders that are brought with all that is in them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_runner.agent.copies import temporary_path
from remote_runner.agent.main import operation
from remote_runner.agent.request import Failure
from remote_runner.config.exclude import Exclusion
from remote_runner.errors import ConfigError, DeletionFailed, DeletionIncomplete, RequestFailed
from remote_runner.files.delete import Deleted, Surplus, check_trees, delete, find_surplus
from remote_runner.files.manifest import Entry, Manifest, Mirror, Tree
from tests.commands import Done, Site, alias_of, component, ssh_config
from tests.testbed import Testbed


class HereCall:
    """A request that is worked on by the agent's own code, in this process."""

    def __init__(self, op: str, fields: dict[str, Any]) -> None:
        self._op, self._fields = op, fields
        self._sent: deque[tuple[Any, bytes]] = deque()
        self._answers: list[tuple[Any, bytes]] = []
        self._result: Any = None
        self._failure: Failure | None = None
        self._is_done = False

    def send(self, part: Any, body: bytes) -> bool:
        self._sent.append((json.loads(json.dumps(part)), body))
        return True

    def finish(self) -> None:
        request: Any = SimpleNamespace(
            header=json.loads(json.dumps(self._fields)),
            parts=lambda: iter(self._sent),
            check=lambda: None,
            send=lambda part, body: self._answers.append((json.loads(json.dumps(part)), body)),
        )
        self._is_done = True
        try:
            self._result = operation(self._op)(request)
        except Failure as failure:
            self._failure = failure

    def parts(self) -> Iterator[tuple[Any, bytes]]:
        return iter(self._answers)

    def result(self) -> Any:
        if not self._is_done:
            self.finish()
        if self._failure is not None:
            raise RequestFailed(self._failure.what, host='here', kind=self._failure.kind)
        return self._result


#: A host whose files are those of this machine.
HERE: Any = SimpleNamespace(name='here', call=lambda op, **fields: HereCall(op, fields))


def mirror(top: Path | str, wanted: list[str], exclude: tuple[str, ...] = (), **more: Any) -> Manifest:
    """What is to stand in a folder, as files."""
    files = tuple(Entry('', f'{top}/{path}', 0, 0o644) for path in wanted)
    return Manifest(files, mirror=Mirror((Tree(str(top), exclude),), **more))


def found(manifest: Manifest, top: Path) -> set[str]:
    """What of a folder would be deleted."""
    return {path.removeprefix(f'{top}/') for path in find_surplus(HERE, manifest).paths()}


def make(top: Path, *paths: str) -> None:
    """Files, folders (with a slash at the end) and links (`name -> text`)."""
    for path in paths:
        name, _, text = path.partition(' -> ')
        place = top / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if text:
            place.symlink_to(text)
        elif name.endswith('/'):
            place.mkdir(exist_ok=True)
        else:
            place.write_text(path)


def left(top: Path) -> set[str]:
    """All that stands in a folder; no link is followed."""
    return {os.path.relpath(os.path.join(at, name), top) for at, dirs, files in os.walk(top) for name in dirs + files}


class TestFilter:
    """What is found on a host, and that just that is deleted."""

    NAMES = st.sampled_from(['a', 'b', '.c', 'x.o', 'build'])
    PATHS = st.lists(NAMES, min_size=1, max_size=4).map('/'.join)
    PATTERNS = st.sampled_from(
        ['a', '*.o', 'build/', '/a', 'a/b', '**/b', 'build/**', '!a', '!x.o', '/build/', '.c', '*', '!*/', 'a/**/b']
    )

    @settings(max_examples=300)
    @given(
        there=st.lists(st.tuples(PATHS, st.sampled_from(['file', 'folder', 'link'])), max_size=20),
        wanted=st.sets(st.integers(0, 19), max_size=8),
        exclude=st.lists(PATTERNS, max_size=4).map(tuple),
        inner=st.none() | st.tuples(PATHS, st.lists(PATTERNS, max_size=2).map(tuple)),
    )
    def test_what_remains_is_what_is_wanted_left_out_or_elsewhere(
        self,
        there: list[tuple[str, str]],
        wanted: set[int],
        exclude: tuple[str, ...],
        inner: tuple[str, tuple[str, ...]] | None,
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            top = Path(os.path.realpath(folder), 'top')
            outside = top.parent / 'outside'
            make(outside, 'a', 'b/x.o')
            top.mkdir()
            for path, kind in there:
                place = top / path
                if any(above.exists() and not above.is_dir() for above in place.parents) or place.is_symlink():
                    continue
                if any(above.is_symlink() for above in place.parents) or place.exists():
                    continue
                suffix = {'file': '', 'folder': '/', 'link': f' -> {outside}'}[kind]
                make(top, f'{path}{suffix}')
            all_there = left(top)
            expected = {path for number, path in enumerate(sorted(all_there)) if number in wanted}
            trees = [(top, exclude), *([(top / inner[0], inner[1])] if inner and (top / inner[0]).is_dir() else [])]
            if any(Path(os.path.realpath(tree)) != tree for tree, _ in trees):
                return  # a tree that is named through a link is the one that the link leads to
            manifest = Manifest(
                tuple(Entry('', f'{top}/{path}', 0, 0) for path in expected),
                mirror=Mirror(tuple(Tree(str(tree), patterns) for tree, patterns in trees)),
            )
            stays = expected | {path for path in all_there if self._is_left_out(top, path, trees)}
            stays |= {str(tree.relative_to(top)) for tree, _ in trees[1:]}
            stays |= {str(above) for path in stays for above in Path(path).parents} - {'.'}
            surplus = find_surplus(HERE, manifest)
            gone = {path.rstrip('/').removeprefix(f'{top}/') for path in surplus.paths()}
            assert gone == all_there - stays
            assert delete(HERE, surplus) == Deleted(len(gone))
            assert left(top) == stays
            assert left(outside) == {'a', 'b', 'b/x.o'}

    @staticmethod
    def _is_left_out(top: Path, path: str, trees: list[tuple[Path, tuple[str, ...]]]) -> bool:
        for tree, patterns in trees:
            place = top / path
            if tree not in place.parents:
                continue
            names = place.relative_to(tree).parts
            for length in range(1, len(names) + 1):
                part = Path(*names[:length])
                is_folder = (tree / part).is_dir() and not (tree / part).is_symlink()
                if Exclusion(patterns).excludes(str(part), is_folder=is_folder):
                    return True
        return False

    def test_links_are_deleted_as_links_and_never_followed(self, tmp_path: Path) -> None:
        top, other = tmp_path / 'top', tmp_path / 'other'
        make(other, 'file', 'folder/file')
        make(top, 'wanted', f'link -> {other}', f'deep/link -> {other}/folder', 'loop -> .', 'nowhere -> not/there')
        manifest = mirror(top, ['wanted'])
        assert found(manifest, top) == {'link', 'deep/', 'deep/link', 'loop', 'nowhere'}
        delete(HERE, find_surplus(HERE, manifest))
        assert left(top) == {'wanted'}
        assert left(other) == {'file', 'folder', 'folder/file'}

    def test_what_is_wanted_through_links_stays_with_the_links(self, tmp_path: Path) -> None:
        """Files that are copied onto a link go into what it leads to, see `agent/put.py`."""
        top = tmp_path / 'top'
        make(top, 'real/file', 'hop -> real', 'models -> hop', 'data -> one', 'one -> .two', '.two', 'old', 'real/old')
        (tmp_path / 'name').symlink_to(top)
        manifest = mirror(tmp_path / 'name', ['models/file', 'data'])
        assert found(manifest, top) == {'old', 'real/old'}
        assert found(manifest._replace(mirror=manifest.mirror._replace(trees=(Tree(f'{top}/models'),))), top) == {
            'real/old'
        }

    def test_a_link_that_is_kept_as_one_keeps_nothing_else(self, tmp_path: Path) -> None:
        make(tmp_path / 'top', 'link -> file', 'file')
        manifest = mirror(tmp_path / 'top', [])._replace(links=((f'{tmp_path}/top/link', 'file'),))
        assert found(manifest, tmp_path / 'top') == {'file'}

    def test_names_of_any_bytes_and_many(self, tmp_path: Path) -> None:
        top = tmp_path / 'top'
        top.mkdir()
        for number in range(2500):
            (top / f'{number}').touch()
        for name in (b'\xff', b'new\nline', 'ü'.encode(), b' ', b"'"):
            Path(os.fsdecode(os.fsencode(top) + b'/' + name)).touch()
        manifest = mirror(top, ['0', 'ü', '\udcff'])
        surplus = find_surplus(HERE, manifest)
        assert surplus.total == 2502
        assert delete(HERE, surplus).total == 2502
        assert left(top) == {'0', 'ü', '\udcff'}

    def test_deep_folders(self, tmp_path: Path) -> None:
        top = tmp_path / 'top'
        top.mkdir()
        depth = 1500
        fd = os.open(top, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir('d', dir_fd=fd)
            deeper = os.open('d', os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = deeper
        os.close(fd)
        surplus = find_surplus(HERE, mirror(top, []))
        assert delete(HERE, surplus) == Deleted(depth)
        assert left(top) == set()

    def test_copies_that_are_under_way(self, tmp_path: Path) -> None:
        top = tmp_path / 'top'
        own = Path(temporary_path(str(top), 'x')).name
        dead = own.replace(f'-{os.getpid()}-', '-4194305-')  # above the highest pid
        make(top, own, dead, f'old/{own}', 'old/file', '.rr-other-host-7-0123abcd', '.rr-notes')
        assert found(mirror(top, []), top) == {dead, 'old/file', '.rr-notes'}

    def test_a_folder_that_is_missing_or_none(self, tmp_path: Path) -> None:
        make(tmp_path, 'file')
        for name in ('missing', 'file', 'file/deeper'):
            assert find_surplus(HERE, mirror(tmp_path / name, [])) == Surplus()

    def test_without_trees_nothing_is_asked(self) -> None:
        def call(op: str, **fields: Any) -> None:
            raise AssertionError(op)

        host: Any = SimpleNamespace(name='h', call=call)
        assert find_surplus(host, Manifest(())) == Surplus()
        check_trees(host, Mirror())
        assert delete(host, Surplus()) == Deleted()


class TestRefused:
    @pytest.fixture
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        home = tmp_path / 'users' / 'anne'
        home.mkdir(parents=True)
        monkeypatch.setenv('HOME', str(home))
        monkeypatch.setenv('TMPDIR', str(tmp_path / 'temporary'))
        return home

    @pytest.mark.parametrize(
        ('root', 'reason'),
        [
            ('/', '/ is the root of the file system'),
            ('~/a/../../../../../../../../../..', '/ is the root of the file system'),
            ('~', 'is the home directory'),
            ('.', 'is the home directory'),
            ('{home}/..', 'holds the home directory, {home}'),
            ('{home}/link', 'is the home directory'),
            ('~/.ssh', '.ssh is the folder of the keys that are let in'),
            ('~/.local', 'holds a folder of remote_runner itself'),
            ('~/.cache/remote_runner', 'is a folder of remote_runner itself'),
            ('{home}/../../temporary', 'is the folder for temporary files'),
            ('/etc', '/etc is a folder of the system'),
            ('~/work', 'work holds base_dir of x@h, ~/work/x'),
            ('~/by-link', 'work holds base_dir of x@h, ~/work/x'),
        ],
    )
    def test_what_is_none_of_ours(self, home: Path, root: str, reason: str) -> None:
        (home / 'link').symlink_to('.')
        (home / 'by-link').symlink_to('work')
        (home / 'file').touch()
        trees = Mirror((Tree(root.format(home=home)),), apart=(('~/work/x', 'base_dir of x@h'),))
        for ask in (lambda: check_trees(HERE, trees), lambda: find_surplus(HERE, Manifest((), mirror=trees))):
            with pytest.raises(ConfigError) as caught:
                ask()
            assert reason.format(home=home) in str(caught.value)
            assert caught.value.exit_status == 2
            assert caught.value.host == 'here'

    @pytest.mark.parametrize('root', ['~/work/x', '~/work/x/data', '~/work/xy', '~/other'])
    def test_what_may_be_mirrored(self, home: Path, root: str) -> None:
        check_trees(HERE, Mirror((Tree(root),), apart=(('~/work/x', 'base_dir of x@h'),)))


class TestErrors:
    def test_many_are_counted(self) -> None:
        error = DeletionFailed([(f'/x/{number}', 'no') for number in range(25)], host='h')
        lines = str(error).splitlines()
        assert lines[0] == 'h: cannot delete /x/0: no'
        assert lines[19:] == ['h: cannot delete /x/19: no', 'h: … and 5 more']
        assert len(error.failures) == 25

    def test_of_several_hosts(self) -> None:
        error = DeletionIncomplete([DeletionFailed([('/x', 'no')], host=host) for host in ('h1', 'h2')])
        assert str(error) == 'h1: cannot delete /x: no\nh2: cannot delete /x: no'
        assert error.exit_status == 1


class TestChangedSince:
    """What was changed between the look and the deed stays."""

    @pytest.fixture
    def top(self, tmp_path: Path) -> Path:
        make(tmp_path / 'top', 'wanted', 'old', 'folder/one', 'folder/two', 'folder/deep/three')
        return tmp_path / 'top'

    def check(self, top: Path, change: Callable[[], object]) -> Deleted:
        surplus = find_surplus(HERE, mirror(top, ['wanted']))
        change()
        deleted = delete(HERE, surplus)
        assert deleted.failures == ()
        return deleted

    def test_a_file_that_came(self, top: Path) -> None:
        deleted = self.check(top, lambda: make(top, 'new', 'folder/deep/new'))
        assert left(top) == {'wanted', 'new', 'folder', 'folder/deep', 'folder/deep/new'}
        assert deleted == Deleted(4, (), (f'{top}/folder/deep',))

    @pytest.mark.parametrize('change', ['content', 'mode', 'other', 'link', 'folder'])
    def test_a_file_that_was_changed(self, top: Path, change: str) -> None:
        def do() -> None:
            path = top / 'folder' / 'one'
            if change == 'content':
                path.write_text('new')
            elif change == 'mode':
                path.chmod(0o600)
            else:
                path.rename(top / 'folder' / 'aside')
                make(top, {'other': 'folder/one', 'link': 'folder/one -> two', 'folder': 'folder/one/'}[change])

        deleted = self.check(top, do)
        assert f'{top}/folder/one' in deleted.changed
        assert {'folder', 'folder/one'} <= left(top)

    def test_a_folder_that_became_a_link(self, top: Path, tmp_path: Path) -> None:
        def do() -> None:
            (top / 'folder').rename(tmp_path / 'moved')
            (top / 'folder').symlink_to(tmp_path / 'moved')

        deleted = self.check(top, do)
        assert left(tmp_path / 'moved') == {'one', 'two', 'deep', 'deep/three'}
        assert left(top) == {'wanted', 'folder'}
        assert f'{top}/folder' in deleted.changed

    def test_what_is_gone_already(self, top: Path) -> None:
        deleted = self.check(top, lambda: [(top / 'old').unlink(), shutil.rmtree(top / 'folder' / 'deep')])
        assert deleted == Deleted(3)
        assert left(top) == {'wanted'}

    def test_two_names_of_one_file(self, top: Path) -> None:
        """To delete the one changes the ctime of the other."""
        os.link(top / 'old', top / 'older')
        os.link(top / 'old', top / 'oldest')
        assert self.check(top, lambda: None) == Deleted(8)
        assert left(top) == {'wanted'}


# ---- on hosts --------------------------------------------------------------------------------------------------


@pytest.fixture
def site(bed: Testbed, tmp_path: Path) -> Iterator[Site]:
    with Site(bed, tmp_path) as site:
        yield site


@pytest.fixture
def base(site: Site, bed: Testbed) -> Iterator[str]:
    """A path on the hosts that nobody else has."""
    path = f'/root/delete-{site.session}'
    yield path
    for host in bed.hosts:
        host.run(['rm', '-rf', path])


def tree(name: str, host: str, base_dir: str | None, *trees: str, **more: Any) -> str:
    """The lines of a config that add a component with trees, each the arguments of `recursive_files_dict`."""
    lines = [f'files = {more.pop("files", {})!a}\n']
    lines += [f'files.update(util.recursive_files_dict({arguments}))\n' for arguments in trees]
    values = {'name': name, 'host': host, 'executable': '/bin/sleep', 'args': ['100000'], 'base_dir': base_dir, **more}
    return ''.join([*lines, f'config.add_component(Component(**{values!a}, files=files))\n'])


def plan(site: Site, *options: str, status: int = 0) -> Done:
    return site.run('plan', *site.arguments('--diff', *options), status=status)


def differences(site: Site, *options: str) -> dict[str, dict[str, Any]]:
    shown = json.loads(plan(site, '--json', *options).stdout)['differences']
    return {each['host']: each for each in shown}


class TestRun:
    def test_what_is_gone_here_goes_there(self, site: Site, bed: Testbed, base: str) -> None:
        make(site.folder / 'src', 'a', 'sub/b', 'gone', 'sub/gone', 'folder/gone', 'empty/', 'keep.log')
        site.file('single')
        site.write(
            tree('x', 'h1', base, "'src', '.', exclude='*.log'", files={'single': 'single'}),
            tree('y', 'h2', base, "'src', '.', exclude='*.log'"),
        )
        site.deploy()
        make(bed['h1'].path(base), 'own.log', 'written', 'logs/deep.log', 'logs/other', f'out -> {base}/sub')
        for name in ('gone', 'sub/gone', 'folder/gone'):
            (site.folder / 'src' / name).unlink()
        shutil.rmtree(site.folder / 'src' / 'folder')
        (site.folder / 'src' / 'empty').rmdir()
        gone = ['gone', 'sub/gone', 'folder/gone', 'folder/', 'empty/']
        before = left(bed['h1'].path(base))
        diff = differences(site, '--delete')
        assert sorted(diff['h2']['delete']) == sorted(f'{base}/{path}' for path in gone)
        here = [*gone, 'written', 'logs/other', 'out']
        assert sorted(diff['h1']['delete']) == sorted(f'{base}/{path}' for path in here)
        assert diff['h1']['delete_count'] == len(here)
        assert diff['h1']['left_alone'] == []
        text = plan(site, '--delete').stdout
        assert f'h1: no file to send, {len(here)} paths to delete, 3 unchanged\n' in text
        assert f'  deletes  {base}/sub/gone\n' in text
        assert left(bed['h1'].path(base)) == before
        done = site.deploy('--delete')
        assert left(bed['h1'].path(base)) == {'a', 'sub', 'sub/b', 'single', 'own.log', 'logs', 'logs/deep.log'}
        assert left(bed['h2'].path(base)) == {'a', 'sub', 'sub/b'}
        event = done.event('files_deleted', host='h2')
        assert (event['deleted'], event['failed']) == (5, 0)
        assert sorted(event['paths']) == sorted(f'{base}/{path}' for path in gone)
        assert f'INFO: h1: {len(here)} paths deleted: ' in done.stderr
        again = site.deploy('--delete')
        assert {event['deleted'] for event in again.events('files_deleted')} == {0}
        assert 'deleted' not in again.stderr

    def test_without_the_option_nothing_goes(self, site: Site, bed: Testbed, base: str) -> None:
        make(site.folder / 'src', 'a')
        site.write(tree('x', 'h1', base, "'src', '.'"))
        make(bed['h1'].path(base), 'old')
        assert 'delete' not in differences(site)['h1']
        assert site.deploy().events('files_deleted') == []
        assert left(bed['h1'].path(base)) == {'a', 'old'}

    def test_only_below_trees(self, site: Site, bed: Testbed, base: str) -> None:
        """And not what somebody else brings there: another component, one on another host, or one that is left out."""
        make(site.folder / 'src', 'a')
        make(site.folder / 'other', 'b', 'deep/c')
        site.file('single')
        site.write(
            tree('x', 'h1', base, "'src', 'tree'", files={'single': 'single'}),
            tree('y', 'h1', f'{base}/y', files={'single': f'{base}/tree/of-y'}),
            tree('z', 'h2', base, "'other', 'tree'"),
            tree('w', 'h1', f'{base}/w', "'src', '.'", files={'single': '../tree/of-w'}),
        )
        site.deploy()
        make(bed['h1'].path(base), 'beside', 'tree/old', 'tree/b', 'tree/deep/old')
        site.deploy('--delete', '--only', 'x,y')
        there = left(bed['h1'].path(f'{base}/tree'))
        assert there == {'a', 'of-y', 'of-w', 'b', 'deep'}  # in which deep/c may come by way of h2
        assert {'beside', 'single'} <= left(bed['h1'].path(base))

    def test_sends_first(self, site: Site, bed: Testbed, base: str) -> None:
        """What cannot be sent keeps all from being deleted."""
        make(site.folder / 'src', 'a', 'blocked')
        site.write(tree('x', 'h1', base, "'src', '.'"))
        make(bed['h1'].path(base), 'old', 'blocked/inside')
        done = site.deploy('--delete', status=1)
        assert 'blocked is a folder there' in done.stderr
        assert {'old', 'blocked/inside'} <= left(bed['h1'].path(base))

    def test_all_files_are_to_be_sent(self, site: Site, bed: Testbed, base: str) -> None:
        make(site.folder / 'src', 'a')
        site.write(tree('x', 'h1', base, "'src', '.'"))
        make(bed['h1'].path(base), 'old')
        done = site.deploy('--delete', '--always-copy')
        assert done.event('files_sent')['sent'] == done.event('files_deleted')['deleted'] == 1
        assert left(bed['h1'].path(base)) == {'a'}

    def test_a_temporary_base_dir(self, site: Site) -> None:
        make(site.folder / 'src', 'a')
        site.write(tree('x', 'h1', None, "'src', '.'"))
        assert site.deploy('--delete').event('files_deleted')['deleted'] == 0
        site.write(tree('x', 'h1', None, "'src', '../x'"))
        assert 'x@h1: --delete: ../x leads out of its temporary base_dir' in site.deploy('--delete', status=2).stderr

    @pytest.mark.parametrize('how', ['run', 'plan'])
    def test_what_is_none_of_ours_is_refused_before_anything_is_changed(
        self, site: Site, bed: Testbed, base: str, how: str
    ) -> None:
        make(site.folder / 'src', 'a')
        site.write(component('before', 'h1'))
        site.deploy()
        site.write(tree('x', 'h1', f'{base}/x', "'src', '..'"), tree('y', 'h2', f'{base}/y'))
        make(bed['h1'].path(base), 'old')
        done = plan(site, '--delete', status=2) if how == 'plan' else site.deploy('--delete', status=2)
        assert f'h1: --delete: {base} holds base_dir of x@h1, {base}/x' in done.stderr
        assert left(bed['h1'].path(base)) == {'old'}
        assert not bed['h2'].path(base).exists()
        assert site.deployment.windows() == {0: 'before'}

    def test_what_cannot_be_deleted_is_named_and_the_rest_done(self, site: Site, bed: Testbed, base: str) -> None:
        make(site.folder / 'src', 'a')
        user = site.deployment.user('anne')
        home = bed['h1'].account(user).home
        config = ssh_config(site.folder, bed, alias_of(bed, 'h1', 'anne').replace('User root', f'User {user}'))
        site.ssh_config = config
        site.write(tree('x', 'anne', f'{home}/work', "'src', '.'"))
        make(bed['h1'].path(f'{home}/work'), 'locked/old', 'locked/older', 'old', 'closed/inside', 'listed/inside')
        bed['h1'].run(['chown', '-R', user, f'{home}/work'])
        bed['h1'].run(['chown', '-R', 'root', f'{home}/work/locked', f'{home}/work/closed', f'{home}/work/listed'])
        bed['h1'].run(['chmod', '700', f'{home}/work/closed'])
        bed['h1'].run(['chmod', '744', f'{home}/work/listed'])
        done = site.deploy('--delete', status=1)
        assert len(done.events('component_started')) == 1
        event = done.event('files_deleted')
        assert (event['deleted'], event['failed']) == (1, 4)
        for path, reason in [
            ('closed', 'it cannot be looked at: Permission denied'),
            ('listed/inside', 'it cannot be looked at: Permission denied'),
            ('locked/old', 'Permission denied'),
            ('locked/older', 'Permission denied'),
        ]:
            assert f'anne: cannot delete {home}/work/{path}: {reason}' in done.stderr
        assert left(bed['h1'].path(f'{home}/work')) >= {'a', 'locked/old', 'locked/older', 'closed/inside'}

    def test_other_file_systems_are_left_alone(
        self, fresh_bed: Callable[..., Testbed], tmp_path: Path
    ) -> None:
        bed = fresh_bed(1)
        with Site(bed, tmp_path) as site:
            make(site.folder / 'src', 'a', 'mounted/b')
            site.write(tree('x', 'h1', '/root/x', "'src', '.', exclude='spared/'"))
            make(bed['h1'].path('/root/x'), 'old', 'deep/disk/', 'deep/old', 'mounted/', 'spared/disk/', 'bound/')
            shared = tmp_path / 'shared'
            make(shared, 'file')
            for place in ('deep/disk', 'mounted', 'spared/disk'):
                bed['h1'].tmpfs(f'/root/x/{place}')
            bed['h1'].share('/root/x/bound', shared)
            for place in ('deep/disk', 'mounted'):
                bed['h1'].run(['touch', f'/root/x/{place}/file'])
            mounts = [f'/root/x/{place}' for place in ('bound', 'deep/disk', 'mounted')]
            diff = differences(site, '--delete')['h1']
            assert sorted(diff['left_alone']) == mounts
            assert sorted(diff['delete']) == ['/root/x/deep/old', '/root/x/old']
            done = site.deploy('--delete')
            for path in mounts:
                assert f'WARNING: h1: {path} is another file system: nothing in it is deleted' in done.stderr
            assert 'spared' not in done.stderr
            assert left(shared) == {'file'}
            assert bed['h1'].path('/root/x/mounted/file').exists()
            assert not bed['h1'].path('/root/x/deep/old').exists()

    def test_hosts_that_share_the_folder(self, fresh_bed: Callable[..., Testbed], tmp_path: Path) -> None:
        bed = fresh_bed(3)
        shared = tmp_path / 'shared'
        make(shared, *(f'old/{number}' for number in range(300)), 'old/deep/er')
        folder = tmp_path / 'config'
        folder.mkdir()
        for number, host in enumerate(bed.hosts):
            host.share(f'/root/mount-{number}', shared)
        with Site(bed, folder) as site:
            make(folder / 'src', 'a')
            site.write(
                tree('x', 'h1', '/root/mount-0', "'src', '.'"),
                tree('x', 'h2', '/root/mount-1', "'src', '.'"),
                tree('x', 'h3', '/root/mount-2', "'src', '.'"),
            )
            site.deploy('--delete')
            assert left(shared) == {'a'}

    def test_what_another_host_expects_in_a_shared_folder_stays(
        self, fresh_bed: Callable[..., Testbed], tmp_path: Path
    ) -> None:
        bed = fresh_bed(2)
        shared = tmp_path / 'shared'
        make(shared, 'old')
        folder = tmp_path / 'config'
        for host in bed.hosts:
            host.share('/root/shared', shared)
        make(folder / 'src', 'a')
        make(folder / 'other', 'b')
        with Site(bed, folder) as site:
            site.write(
                tree('x', 'h1', '/root/shared', "'src', '.'"),
                tree('y', 'h2', '/root/shared', "'other', '.'"),
            )
            for _ in range(2):
                site.deploy('--delete')
                assert left(shared) == {'a', 'b'}

    def test_the_option_needs_a_config(self, site: Site) -> None:
        assert '--delete needs a config' in site.run('run', 'x', '--delete', status=2).stderr


class TestCopy:
    """`remote_runner copy --delete`."""

    BESIDE = ('old', 'x.log', 'empty', 'empty/old')

    @pytest.mark.parametrize(
        ('sources', 'top', 'expected'),
        [
            (['src/'], '', {'a', 'deep', 'deep/b', 'empty', 'x.log'}),
            (['src/', 'file'], '', {'a', 'deep', 'deep/b', 'empty', 'x.log', 'file'}),
            (['src'], '/src', {'src', *(f'src/{path}' for path in ('a', 'deep', 'deep/b', 'empty')), *BESIDE}),
            (['file'], None, {'file', *BESIDE}),
        ],
    )
    def test_what_is_gone_here_goes_there(
        self, site: Site, bed: Testbed, base: str, sources: list[str], top: str | None, expected: set[str]
    ) -> None:
        make(site.folder, 'src/a', 'src/deep/b', 'src/empty/', 'src/y.log', 'file')
        there = bed['h1'].path(base)
        make(there, 'old', 'x.log', 'empty/old')
        if top:
            make(bed['h1'].path(base + top), 'old', 'deep/old')
        words = ['copy', '-F', site.ssh_config, 'h1', *sources, base, '--exclude', '*.log', '--json']
        done = site.run(*words, '--delete', cwd=site.folder)
        assert left(there) == expected
        events = done.events('files_deleted')
        assert [event['deleted'] for event in events] == ([] if top is None else [2])
        assert 'files_deleted' not in site.run(*words, cwd=site.folder).stdout

    def test_what_is_none_of_ours_is_refused(self, site: Site, bed: Testbed) -> None:
        make(site.folder, 'src/a')
        words = ['copy', '-F', site.ssh_config, 'h1', 'src/', '.', '--delete']
        done = site.run(*words, cwd=site.folder, status=2)
        assert 'h1: --delete: /root is the home directory' in done.stderr
        assert not bed['h1'].path('/root/a').exists()


class TestKeepRunning:
    def test_a_deleted_file_is_a_change_of_its_component(self, site: Site, bed: Testbed, base: str) -> None:
        make(site.folder / 'src', 'a')
        make(site.folder / 'other', 'b')
        site.write(
            tree('loses', 'h1', f'{base}/1', "'src', '.'"),
            tree('temporary', 'h1', None, "'src', 'data'"),
            tree('same', 'h1', f'{base}/2', "'other', '.'"),
        )
        site.deploy()
        kept = site.deploy('--delete', '--keep-running').events('component_kept')
        assert len(kept) == 3
        make(bed['h1'].path(base), '1/old', 'beside')  # a file that is gone here would be a change by itself
        diff = differences(site, '--delete', '--keep-running')['h1']
        assert diff['delete'] == [f'{base}/1/old']
        assert diff['stop'] == ['loses@h1']
        done = site.deploy('--delete', '--keep-running')
        assert [event['component'] for event in done.events('component_started')] == ['loses']
        assert left(bed['h1'].path(f'{base}/1')) == {'a'}
