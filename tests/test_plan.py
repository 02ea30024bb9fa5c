"""The plan (RR4, RR7): what comes out of a config, what is found wrong, and what can be chosen of it."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_runner.config import util
from remote_runner.config.component import Component, Config
from remote_runner.config.paths import TreePath
from remote_runner.config.reading import shown
from remote_runner.deploy.component_plan import FilePlan
from remote_runner.deploy.plan import Plan, check_session, make_plan
from remote_runner.deploy.secrets import Secrets
from remote_runner.errors import AddressError, ConfigFaults, UsageError
from tests.privileges import unprivileged
from tests.test_util import ODD_NAMES


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The directory of a config with `a`, `b`, `program` (executable) and `folder/`."""
    for name in ('a', 'b', 'program'):
        (tmp_path / name).write_text(name)
    (tmp_path / 'program').chmod(0o755)
    (tmp_path / 'folder').mkdir()
    return tmp_path


def component(**attributes: Any) -> Component:
    return Component(**{'name': 'c', 'host': 'h', 'executable': 'run-it', **attributes})


def plan_of(here: Path, *components: Component) -> Plan:
    config = Config()
    for one in components:
        config.add_component(one)
    return make_plan(config, str(here), 'runner')


def faults_of(here: Path, *components: Component) -> list[str]:
    with pytest.raises(ConfigFaults) as caught:
        plan_of(here, *components)
    return list(caught.value.faults)


class TestWhatComesOut:
    def test_defaults(self, here: Path) -> None:
        [planned] = plan_of(here, component()).components
        assert (planned.name, planned.host, planned.executable, planned.base_dir) == ('c', 'h', 'run-it', None)
        assert (planned.args, planned.files, planned.start_index, planned.wait) == ((), (), 0, False)
        assert (planned.start_timeout, planned.start_grace, planned.stop_timeout) == (None, 0.1, 5)
        assert (planned.label, planned.is_local, planned.address.name) == ('c@h', False, 'h')

    def test_all_values(self, here: Path) -> None:
        values = {
            'name': 'a component/1 ü',
            'host': 'me@h:22',
            'base_dir': '~/w',
            'executable': Path('bin/x'),
            'args': [1, Path('/p')],
            'start_index': -3,
            'wait': True,
            'num_cores': 'many',
            'start_timeout': 60,
            'start_grace': 0,
            'stop_timeout': 0,
        }
        [planned] = plan_of(here, component(**values)).components
        assert (planned.name, planned.host, planned.base_dir) == ('a component/1 ü', 'me@h:22', '~/w')
        assert (planned.executable, planned.args, planned.start_index, planned.wait) == ('bin/x', ('1', '/p'), -3, True)
        assert (planned.start_timeout, planned.start_grace, planned.stop_timeout) == (60, 0, 0)
        assert (planned.address.user, planned.address.port) == ('me', 22)

    def test_files(self, here: Path) -> None:
        files = {'a': 'x', Path('./folder'): Path('d/'), here / 'b': '/opt/b', b'folder/../b': b'~/y'}
        [planned] = plan_of(here, component(files=files)).components
        assert planned.files == (
            FilePlan(f'{here}/a', 'x'),
            FilePlan(f'{here}/folder', 'd', is_directory=True),
            FilePlan(f'{here}/b', '/opt/b'),
            FilePlan(f'{here}/folder/../b', '~/y'),
        )

    def test_trees(self, here: Path) -> None:
        (here / 'folder' / 'link').symlink_to('../nowhere/')
        (here / 'folder' / 'file').symlink_to('../a')
        files = {'a': 'x', **util.recursive_files_dict(here / 'folder', './t/', links='keep')}
        files |= util.recursive_files_dict(here / 'folder', '~/t', exclude=['link', 'file'])
        [planned] = plan_of(here, component(files=files)).components
        assert planned.files == (
            FilePlan(f'{here}/a', 'x'),
            FilePlan(f'{here}/folder/file', './t/file', is_link=True),
            FilePlan(f'{here}/folder/link', './t/link', is_link=True),
            FilePlan(f'{here}/folder', '~/t', is_directory=True),
        )
        assert {type(file.remote) for file in planned.files} == {str}
        assert planned.trees == ('./t/', '~/t')
        assert [tree.exclude for tree in planned.trees] == [(), ('link', 'file')]

    def test_what_was_a_link_is_a_file_without_its_tree(self, here: Path) -> None:
        """A muddler that writes other text in place of a path that a helper gave makes an entry of its own."""
        (here / 'folder' / 'file').symlink_to('../a')
        files = util.recursive_files_dict(here / 'folder', 't', links='keep')
        config = Config()
        config.add_component(component(files=files))
        for stored in config.all_components():
            stored.files = {local: f'other/{remote}' for local, remote in stored.files.items()}
        [planned] = make_plan(config, str(here), 'runner').components
        assert (planned.files, planned.trees) == ((FilePlan(f'{here}/folder/file', 'other/t/file'),), ())

    def test_digest(self, here: Path) -> None:
        """What tells whether a component that runs was started with the same."""
        (here / 'folder' / 'file').symlink_to('../a')

        def digest(files: dict[str, str]) -> str:
            [planned] = plan_of(here, component(files=files)).components
            return planned.digest()

        followed = util.recursive_files_dict(here / 'folder', 't')
        kept = util.recursive_files_dict(here / 'folder', 't', links='keep')
        assert followed == kept
        assert digest(followed) != digest(kept)
        assert digest(kept) == digest(util.recursive_files_dict(here / 'folder', 't', links='keep'))
        assert digest(followed) == digest({'b': 't/file'}) != digest({'b': 't/other'})

    def test_home_directory_here(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('HOME', str(here))
        [planned] = plan_of(here, component(files={'~/a': 'x'})).components
        assert planned.files[0].local == f'{here}/a'

    def test_this_machine(self, here: Path) -> None:
        one = component(host='localhost', executable='program', base_dir='folder')
        [planned] = plan_of(here, one).components
        assert planned.is_local
        assert (planned.executable, planned.base_dir) == (f'{here}/program', f'{here}/folder')
        [planned] = plan_of(here, component(host='localhost', executable='/bin/sh')).components
        assert (planned.executable, planned.base_dir) == ('/bin/sh', None)

    def test_other_names_of_this_machine_are_reached_by_ssh(self, here: Path) -> None:
        plan = plan_of(here, component(host='127.0.0.1'), component(host='me@localhost'))
        assert [planned.is_local for planned in plan.components] == [False, False]

    def test_spaces_around_a_host(self, here: Path) -> None:
        plan = plan_of(here, *(component(host=host, executable='/bin/sh') for host in ['h1', ' localhost ']))
        assert [(planned.host, planned.is_local) for planned in plan.components] == [('h1', False), ('localhost', True)]

    def test_dots_behind_a_link(self, here: Path) -> None:
        (here / 'folder' / 'inner').mkdir()
        (here / 'folder' / 'other').touch()
        (here / 'link').symlink_to('folder/inner')
        [planned] = plan_of(here, component(files={'link/../other': 'x'})).components
        assert Path(planned.files[0].local).resolve() == here / 'folder' / 'other'

    def test_is_data(self, here: Path) -> None:
        one = component(args=['x'])
        plan = plan_of(here, one)
        with pytest.raises(AttributeError):
            plan.components[0].name = 'y'  # type: ignore[misc]
        hash(plan)
        assert plan == plan_of(here, one)

    def test_what_muddlers_changed_counts(self, here: Path) -> None:
        config = Config()
        config.add_component(component())
        for stored in config.all_components():
            stored.args.append('more')
        assert make_plan(config, str(here), 'runner').components[0].args == ('more',)

    def test_order_of_hosts_and_indexes(self, here: Path) -> None:
        plan = plan_of(
            here,
            component(host='h2', start_index=5),
            component(host='h1', start_index=-1),
            component(host='h2', name='d', start_index=-1),
        )
        assert plan.hosts() == ('h2', 'h1')
        assert plan.indexes() == (-1, 5)
        assert [c.label for c in plan.components_of(host='h2')] == ['c@h2', 'd@h2']
        assert [c.label for c in plan.components_of(index=-1)] == ['c@h1', 'd@h2']
        assert [c.label for c in plan.components_of(host='h2', index=-1)] == ['d@h2']
        assert len(plan.components_of()) == 3

    def test_json(self, here: Path) -> None:
        plan = plan_of(here, component(args=[b'\xff', 'x', '--pass=hunter2'], files={'a': 'x'}))
        record = json.loads(json.dumps(plan._replace(secrets=Secrets(['hunter2'])).to_dict()))
        assert record['session'] == 'runner'
        assert record['components'][0]['args'] == ['\udcff', 'x', '--pass=***']
        assert record['components'][0]['files'] == [{'local': f'{here}/a', 'remote': 'x', 'is_directory': False}]
        assert plan.to_dict()['components'][0]['args'][2] == '--pass=hunter2'

    def test_json_of_links(self, here: Path) -> None:
        name = b'\xff'.decode('utf-8', 'surrogateescape')
        (here / 'folder' / name).symlink_to('x')
        plan = plan_of(here, component(files=util.recursive_files_dict(here / 'folder', 't', links='keep')))
        [one] = json.loads(json.dumps(plan.to_dict()))['components']
        assert one['files'] == [
            {'local': f'{here}/folder/{name}', 'remote': f't/{name}', 'is_directory': False, 'is_link': True}
        ]
        assert 'trees' not in one

    def test_what_is_fetched(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('HOME', '/home/me')
        wanted = {'out': None, b'\xff*': '.', Path('/var/log/x'): 'logs/x', '~/y': '~/y', 'z': '/z/../z'}
        [planned] = plan_of(here, component(fetch=wanted)).components
        assert [tuple(entry) for entry in planned.fetch] == [
            ('out', '.'), ('\udcff*', '.'), ('/var/log/x', 'logs/x'), ('~/y', '/home/me/y'), ('z', '/z/../z')
        ]  # fmt: skip
        assert planned.to_dict()['fetch'][2] == {'remote': '/var/log/x', 'local': 'logs/x'}
        [local] = plan_of(here, component(host='localhost', executable='/bin/true', fetch={'out': None})).components
        assert [entry.remote for entry in local.fetch] == ['out']

    @pytest.mark.parametrize(
        ('text', 'secret', 'shown'),
        [
            ('x', None, 'x'),
            ('x', '', 'x'),
            ('x', 'x', '***'),
            ('axb', 'x', 'axb'),
            ('a hunter2 b hunter2', 'hunter2', 'a *** b ***'),
        ],
    )
    def test_secret_is_masked(self, text: str, secret: str | None, shown: str) -> None:
        assert Secrets([secret]).mask(text) == shown


class TestFaults:
    def test_all_at_once(self, here: Path) -> None:
        faults = faults_of(
            here,
            component(args=[None], wait=1),
            component(host='bad host!', files={'none': 'x'}),
            component(),
            component(name='d', host='localhost', executable='none'),
            Component(name='e'),
        )
        assert [fault.split(':')[0] for fault in faults] == [
            'c@h',
            'c@h',
            'c@bad host!',
            'c@bad host!',
            'd@localhost',
            'e@(no host)',
            'e@(no host)',
            'c@h',
        ]

    def test_same_component_under_two_texts_of_one_host(self, here: Path) -> None:
        assert faults_of(here, component(), component(host='2/h')) == [
            'c@h, c@2/h: 2 components of the same name on the same host'
        ]

    def test_what_is_no_duplicate(self, here: Path) -> None:
        plan_of(here, component(), component(host='root@h'), component(host='h:23'), component(name='C'))

    def test_unreadable_file(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            directory.chmod(0o755)
            (directory / 'a').touch(mode=0)
            (directory / 'closed').mkdir(mode=0)
            with unprivileged():
                faults = faults_of(directory, component(files={'a': 'a', 'closed/b': 'b'}))
            assert faults == [
                f'c@h: files: {name}/a is not readable',
                f'c@h: files: {name}/closed/b cannot be used: Permission denied',
            ]

    def test_executable_that_is_brought_without_its_bit(self, here: Path) -> None:
        """Its mode goes with it, so it could not run there either."""
        relative = component(executable='a', files={'a': 'a', 'program': 'x'})
        absolute = component(name='d', executable='/w/bin/x', base_dir='/w', files={'b': 'bin/x'})
        good = component(name='e', executable='x', files={'program': 'x', 'a': 'y'})
        assert faults_of(here, relative, absolute, good) == [
            f'c@h: executable a is {here}/a, which is not executable (chmod +x {here}/a)',
            f'd@h: executable /w/bin/x is {here}/b, which is not executable (chmod +x {here}/b)',
        ]

    def test_links(self, here: Path) -> None:
        (here / 'good').symlink_to('a')
        (here / 'broken').symlink_to('nowhere')
        (here / 'loop').symlink_to('loop')
        plan_of(here, component(files={'good': 'x'}))
        assert faults_of(here, component(files={'broken': 'x', 'loop': 'y', 'a/b': 'z'})) == [
            f'c@h: files: {here}/broken is a link to nothing',
            f'c@h: files: {here}/loop cannot be used: Too many levels of symbolic links',
            f'c@h: files: {here}/a/b does not exist',
        ]

    def test_fifo_and_socket(self, here: Path) -> None:
        os.mkfifo(here / 'fifo')
        assert faults_of(here, component(files={'fifo': 'x'})) == [
            f'c@h: files: {here}/fifo is neither a file nor a directory'
        ]

    def test_socket_device_and_fifo_in_a_tree(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(here)  # the path of a socket must be short
        os.mkfifo('folder/fifo')
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind('folder/socket')
        (here / 'folder' / 'tty').symlink_to('/dev/tty')
        files = util.recursive_files_dict('folder', 't')
        assert faults_of(here, component(files=files)) == [
            f'c@h: files: {here}/folder/{name} is neither a file nor a directory' for name in ('fifo', 'socket', 'tty')
        ]
        kept = util.recursive_files_dict('folder', 't', exclude=['fifo', 'socket'], links='keep')
        assert plan_of(here, component(files=kept)).components[0].files[0].is_link

    def test_links_that_are_followed_to_nothing(self, here: Path) -> None:
        (here / 'folder' / 'broken').symlink_to('nowhere')
        (here / 'folder' / 'loop').symlink_to('loop')
        assert faults_of(here, component(files=util.recursive_files_dict(here / 'folder', 't'))) == [
            f'c@h: files: {here}/folder/broken is a link to nothing',
            f'c@h: files: {here}/folder/loop cannot be used: Too many levels of symbolic links',
        ]

    def test_link_that_went(self, here: Path) -> None:
        for name in ('gone', 'replaced'):
            (here / 'folder' / name).symlink_to('x')
        files = util.recursive_files_dict(here / 'folder', 't', links='keep')
        for name in ('gone', 'replaced'):
            (here / 'folder' / name).unlink()
        (here / 'folder' / 'replaced').touch()
        assert faults_of(here, component(files=files)) == [
            f'c@h: files: {here}/folder/gone does not exist',
            f'c@h: files: {here}/folder/replaced is no symbolic link any more',
        ]

    @pytest.mark.parametrize(
        ('remote', 'expected'),
        [
            ('x' * 255, None),
            (b'\xff' * 255, None),
            ('ü' * 127, None),
            ('x' * 256, f'a path has a name of 256 bytes, hosts allow 255: {"x" * 56!r}'[:-1]),
            ('ü' * 128, f'a path has a name of 256 bytes, hosts allow 255: {"ü" * 56!r}'[:-1]),
            (f'/d/{"x" * 300}/y', 'a path has a name of 300 bytes, hosts allow 255'),
            ('/' + 'd/' * 2047, None),
            ('/' + 'd/' * 2048, 'a path is 4097 bytes long, hosts allow 4095'),
            ('a\0b', r"a path 'a\x00b' holds a NUL byte"),
            ('a\ud800', 'which is no character'),
        ],
        ids=['255', '255 bytes', '254 bytes', '256', '256 bytes', 'above', '4095', '4097', 'NUL', 'lone surrogate'],
    )
    def test_what_no_host_can_have(self, here: Path, remote: Any, expected: str | None) -> None:
        if expected is None:
            plan_of(here, component(files={'folder' if str(remote).endswith('/') else 'a': remote}))
        else:
            [fault] = faults_of(here, component(files={'a': remote}))
            assert fault.startswith("c@h: files['a']: ")
            assert expected in fault

    def test_path_that_is_too_long_below_its_base_dir(self, here: Path) -> None:
        base_dir = '/' + '/'.join(['b' * 200] * 20)  # 4020 bytes
        files = {'a': 'x' * 74, 'b': 'x' * 75}
        assert faults_of(here, component(base_dir=base_dir, files=files)) == [
            f'c@h: files: {here}/b would get a path that is 4096 bytes long, hosts allow 4095: {shown(base_dir)}'
        ]
        plan_of(here, component(base_dir=base_dir, files={'a': 'x' * 74}))

    @pytest.mark.parametrize('attribute', ['base_dir', 'executable'])
    @pytest.mark.parametrize('host', ['h', 'localhost'])
    def test_names_that_are_too_long_elsewhere(self, here: Path, attribute: str, host: str) -> None:
        values = {'host': host, 'executable': 'program', attribute: f'd/{"x" * 256}'}
        [fault] = faults_of(here, component(**values))
        assert fault.startswith(f'c@{host}: {attribute} has a name of 256 bytes, hosts allow 255: ')

    @pytest.mark.parametrize('name', ODD_NAMES)
    def test_odd_names(self, here: Path, name: str) -> None:
        """They come through; where something is wrong with one, no line is broken and no terminal obeys."""
        (here / 'folder' / name).write_text('x')
        files = util.recursive_files_dict(here / 'folder', 't')
        [planned] = plan_of(here, component(files=files)).components
        assert planned.files == (FilePlan(f'{here}/folder/{name}', f't/{name}'),)
        (here / 'folder' / name).unlink()
        (here / 'folder' / name).symlink_to('nowhere')
        [fault] = faults_of(here, component(files=files), component(name='d', base_dir='/b', files={'a': 't', **files}))
        assert fault.startswith('c@h, d@h: files: ')
        assert fault.endswith(' is a link to nothing')
        assert fault.isprintable()

    def test_local_script_that_is_not_readable_is_left_to_its_start(self, here: Path) -> None:
        (here / 'program').chmod(0o644)
        assert faults_of(here, component(host='localhost', executable='program')) == [
            f'c@localhost: executable {here}/program is not executable (chmod +x {here}/program)'
        ]


class TestTargets:
    """Two entries that want different things at one path of a host."""

    @pytest.mark.parametrize(
        ('one', 'other', 'expected'),
        [
            ({'files': {'a': '/x'}}, {'files': {'b': '/x'}}, True),
            ({'files': {'a': '/x'}}, {'files': {'a': '/x'}}, False),
            ({'files': {'a': '/x'}}, {'files': {'same': '/x'}}, False),
            ({'files': {'a': '/x'}}, {'files': {'b': '/x'}, 'host': 'h2'}, False),
            ({'files': {'a': '/x'}}, {'files': {'b': '/x'}, 'host': '2/h'}, True),
            ({'files': {'a': 'x'}}, {'files': {'b': 'x'}}, False),  # each in its own temporary directory
            ({'files': {'a': 'x'}, 'base_dir': '/w'}, {'files': {'b': './x'}, 'base_dir': '/w/'}, True),
            ({'files': {'a': 'x'}, 'base_dir': '/w'}, {'files': {'b': '/w/x'}}, True),
            ({'files': {'a': 'x'}, 'base_dir': '~/w'}, {'files': {'b': '~/w/x'}}, True),
            ({'files': {'a': 'x'}, 'base_dir': 'w'}, {'files': {'b': '~/w/x'}}, True),
            ({'files': {'a': 'x'}, 'base_dir': '/w'}, {'files': {'b': 'x'}, 'base_dir': '/v'}, False),
            ({'files': {'folder': '/x'}}, {'files': {'a': '/x'}}, True),
            ({'files': {'folder': '/x'}}, {'files': {'folder/in': '/x'}}, False),
            ({'files': {'folder': '/x'}}, {'files': {'a': '/x/y'}}, False),
            ({'files': {'a': '/x'}}, {'files': {'b': '/x/y/z'}}, True),
            ({'files': {'b': '/x/y/z'}}, {'files': {'a': '/x'}}, True),
            ({'files': {'a': '/x'}}, {'files': {'folder': '/x/y'}}, True),
            ({'files': {'a': '//x'}}, {'files': {'b': '/x'}}, True),
            ({'files': {'a': '/x'}}, {'files': {'copy': '/x'}}, False),
            ({'files': {'a': '/x'}}, {'files': {'grown': '/x'}}, True),
            ({'files': {'copy': 'x', 'a': './x'}}, {}, False),
            ({'files': {'a': TreePath('/x', '/')}}, {'files': {'copy': '/x'}}, False),
            ({'files': {'same': TreePath('/x', '/', True)}}, {'files': {'a': '/x'}}, True),
            ({'files': {'same': TreePath('/x', '/', True)}}, {'files': {'same': '/x'}}, True),
            ({'files': {'same': TreePath('/x', '/', True)}}, {'files': {'folder': '/x'}}, True),
            ({'files': {'same': TreePath('/x', '/', True)}}, {'files': {'again': TreePath('/x', '/', True)}}, False),
            ({'files': {'same': TreePath('/x', '/', True)}}, {'files': {'dotted': TreePath('/x', '/', True)}}, True),
            ({'files': {'to-folder': TreePath('/x', '/', True)}}, {'files': {'a': '/x/y'}}, True),
            ({'files': {'folder': '/x'}}, {'files': {'same': TreePath('/x/y', '/', True)}}, False),
        ],
    )
    def test_conflicts(self, here: Path, one: dict[str, Any], other: dict[str, Any], expected: bool) -> None:
        (here / 'same').symlink_to('a')
        (here / 'again').symlink_to('a')
        (here / 'dotted').symlink_to('./a')
        (here / 'to-folder').symlink_to('folder')
        (here / 'copy').write_text('a')
        (here / 'grown').write_text('aa')
        (here / 'folder' / 'in').mkdir()
        components = (component(name='one', **one), component(name='other', **other))
        if expected:
            [fault] = faults_of(here, *components)
            assert ' would ' in fault
        else:
            assert len(plan_of(here, *components).components) == 2

    def test_file_between_two_directories(self, here: Path) -> None:
        files = {'folder': '/x/y/z', 'a': '/x/y', str(here): '/x'}
        assert len(faults_of(here, component(files=files))) == 1

    def test_every_target_below_a_file_is_told(self, here: Path) -> None:
        """Whatever else lies between, and whichever comes first."""
        files = {'a': '/x/1', 'b': '/x', 'program': '/x/2/3/4', 'folder': '/x/2/3'}
        assert [fault.partition(' to become ')[2] for fault in faults_of(here, component(files=files))] == [
            "'/x/1'", "'/x/2/3'",
        ]  # fmt: skip

    def test_links_on_one_host_and_files_on_another(self, here: Path) -> None:
        (here / 'one').symlink_to('a')
        (here / 'other').symlink_to('./a')
        files = [component(name=name, host='h1', files={name: '/x'}) for name in ('one', 'other')]
        links = [component(name=name, host='h2', files={name: TreePath('/x', '/', True)}) for name in ('one', 'other')]
        for components in ([*files, *links], [*links, *files]):
            [fault] = faults_of(here, *components)
            assert fault.startswith('other@h2: ')

    def test_message_of_links(self, here: Path) -> None:
        (here / 'link').symlink_to('a')
        one = component(files={'a': 't/x'}, base_dir='/w')
        other = component(name='d', files={'link': TreePath('t/x', 't', True)}, base_dir='/w')
        [fault] = faults_of(here, one, other)
        assert fault == f"d@h: files: {here}/link (link of d@h) and {here}/a (file of c@h) would both become 't/x'"

    def test_what_cannot_be_compared(self, here: Path) -> None:
        one = component(files={'/proc/self/mem': '/x'})
        [fault] = faults_of(here, component(name='d', files={'/proc/self/maps': '/x'}), one)
        assert fault.startswith('c@h: files: /proc/self/mem (file of c@h) and /proc/self/maps (file of d@h) cannot be')
        assert fault.endswith(': Input/output error')


class TestChoosing:
    @pytest.fixture
    def plan(self, here: Path) -> Plan:
        return plan_of(
            here,
            *(component(name=name, host='node1') for name in ('pub', 'sub-1', 'sub-2')),
            *(component(name=name, host='me@node2:22') for name in ('pub', 'sub-1', 'sub-2')),
            component(name='odd[1]', host='gate'),
        )

    @pytest.mark.parametrize(
        ('names', 'count'),
        [
            (['pub'], 2),
            (['sub-*'], 4),
            (['sub-[13]'], 2),
            (['pub', '*-1'], 4),
            (['pub@node1'], 1),
            (['*@node1'], 3),
            (['odd[1]'], 1),
            (['*'], 7),
        ],
    )
    def test_only(self, plan: Plan, names: list[str], count: int) -> None:
        chosen = plan.only(names)
        assert len(chosen.components) == count
        assert (chosen.session, chosen.config_dir) == (plan.session, plan.config_dir)

    def test_only_unknown(self, plan: Plan) -> None:
        with pytest.raises(UsageError, match=r"no component is called 'sub1' \(the nearest is 'sub-1'\), 'x\*'"):
            plan.only(['sub1', 'pub', 'x*'])

    @pytest.mark.parametrize(
        ('hosts', 'count'),
        [
            (['node1'], 3),
            (['node[1-2]'], 6),
            (['node2'], 3),
            (['me@node2'], 3),
            (['me@node2:22'], 3),
            (['node*'], 6),
            (['me@*'], 3),
            (['node1, gate'], 4),
            (['gate', 'node?'], 7),
        ],
    )
    def test_limit(self, plan: Plan, hosts: list[str], count: int) -> None:
        assert len(plan.limit(hosts).components) == count

    def test_limit_from_a_file(self, plan: Plan, here: Path) -> None:
        (here / 'hosts').write_text('gate\nnode1\n')
        assert plan.limit([f'@{here}/hosts']).hosts() == ('node1', 'gate')

    @pytest.mark.parametrize('host', ['nod1', 'you@node2', 'node2:23', 'nope*'])
    def test_limit_unknown(self, plan: Plan, host: str) -> None:
        with pytest.raises(UsageError, match=r'no component runs on .* \(the nearest is '):
            plan.limit(['gate', host])

    def test_limit_that_is_no_host(self, plan: Plan) -> None:
        with pytest.raises(AddressError):
            plan.limit(['node['])


class TestSession:
    @pytest.mark.parametrize('name', ['runner', 'a', 'A.b_c-1', 'x' * 64])
    def test_names(self, name: str) -> None:
        check_session(name)

    @pytest.mark.parametrize('name', ['', 'a b', 'x' * 65, 'a/b', '-x', '.', '..', 'ü', 'a\n', '$HOME', '9;quit'])
    def test_what_is_none(self, here: Path, name: str) -> None:
        config = Config()
        config.add_component(component())
        with pytest.raises(UsageError, match='is no name for a screen session'):
            make_plan(config, str(here), name)


@pytest.fixture(autouse=True)
def _directory_stays() -> Iterator[None]:
    before = Path.cwd()
    yield
    assert Path.cwd() == before
