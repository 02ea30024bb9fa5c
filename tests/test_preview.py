"""`remote_runner plan`: what a run would do is shown, and nothing is done."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.commands import Commands
from tests.test_util import ODD_NAMES

_CONFIG = """\
for host in ('gate', 'me@node2'):
    component = Component(name='server', host=host, executable='server.py', base_dir='~/demo')
    component.files = {'bin/server.py': 'server.py', 'data': 'data/'}
    component.args = ['--pass', 'hunter2', 'two words']
    config.add_component(component)
config.add_component(Component(name='client', host='localhost', executable='/bin/true', start_index=2, wait=True))
print('printed by the config')
"""


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    """Of somebody whose hosts cannot be reached."""
    config = tmp_path / 'ssh_config'
    config.write_text(f'Host *\n  ProxyCommand touch {tmp_path}/connected; false\n')
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'data').mkdir()
    (tmp_path / 'bin/server.py').write_bytes(b'#' * 1234)
    (tmp_path / 'bin/server.py').chmod(0o751)
    (tmp_path / 'config.py').write_text(_CONFIG)
    return Commands(tmp_path / 'home', config)


def test_for_people(commands: Commands, tmp_path: Path) -> None:
    done = commands.run('plan', '-c', 'config.py', status=0, cwd=tmp_path)
    assert done.stdout.splitlines() == [
        'printed by the config',
        'session runner: 3 components on 3 hosts, 2 files (2.5 kB)',
        'index 0',
        "  server@gate       server.py --pass hunter2 'two words', 1 file (1.2 kB)  [in ~/demo]",
        "  server@me@node2   server.py --pass hunter2 'two words', 1 file (1.2 kB)  [in ~/demo]",
        'index 2',
        '  client@localhost  /bin/true  [waited for]',
    ]


def test_for_scripts(commands: Commands, tmp_path: Path) -> None:
    done = commands.run('plan', '-c', 'config.py', '--json', '--pass', 'hunter2', '--screen', 's', cwd=tmp_path)
    assert 'hunter2' not in done.stdout
    shown = json.loads(done.stdout)
    assert (shown['session'], shown['hosts']) == ('s', ['gate', 'me@node2', 'localhost'])
    assert [index['index'] for index in shown['indexes']] == [0, 2]
    server = shown['indexes'][0]['components'][0]
    assert server['args'] == ['--pass', '***', 'two words']
    assert server['files'] == [
        {
            'local': f'{tmp_path}/bin/server.py',
            'remote': 'server.py',
            'is_directory': False,
            'size': 1234,
            'mode': '0751',
        },
        {'local': f'{tmp_path}/data', 'remote': 'data/', 'is_directory': True},
    ]
    assert shown['indexes'][1]['components'][0]['wait'] is True


_LINKS = """\
component = Component(name='c', host='gate', executable='/bin/true')
component.files = {'bin/server.py': 'server.py', **util.recursive_files_dict('data', 'data', links='keep')}
config.add_component(component)
"""


def test_links(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / 'config.py').write_text(_LINKS)
    (tmp_path / 'data/file').symlink_to('./../bin/server.py')
    (tmp_path / 'data/nothing').symlink_to('no/where/')
    done = commands.run('plan', '-c', 'config.py', status=0, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == '  c@gate  /bin/true, 1 file (1.2 kB), 2 links'
    done = commands.run('plan', '-c', 'config.py', '--json', cwd=tmp_path)
    [component] = json.loads(done.stdout)['indexes'][0]['components']
    values = {'is_directory': False, 'is_link': True}
    assert component['files'][1:] == [
        {'local': f'{tmp_path}/data/file', 'remote': 'data/file', **values, 'target': './../bin/server.py'},
        {'local': f'{tmp_path}/data/nothing', 'remote': 'data/nothing', **values, 'target': 'no/where/'},
    ]
    assert 'is_link' not in component['files'][0]


@pytest.mark.parametrize('name', ODD_NAMES)
def test_odd_names(commands: Commands, tmp_path: Path, name: str) -> None:
    """They reach scripts as they are, and no terminal obeys them."""
    (tmp_path / 'config.py').write_text(_LINKS)
    (tmp_path / 'data' / name).write_text('12345')
    (tmp_path / 'data/link').symlink_to(name)
    done = commands.run('plan', '-c', 'config.py', '--json', status=0, cwd=tmp_path)
    [component] = json.loads(done.stdout)['indexes'][0]['components']
    shown = {file['remote']: file for file in component['files']}
    assert shown[f'data/{name}']['local'] == f'{tmp_path}/data/{name}'
    assert shown[f'data/{name}']['size'] == 5
    assert shown['data/link']['target'] == name
    done = commands.run('plan', '-c', 'config.py', status=0, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == '  c@gate  /bin/true, 2 files (1.2 kB), 1 link'
    (tmp_path / 'data' / name).unlink()
    (tmp_path / 'config.py').write_text(_LINKS.replace("'keep'", "'follow'"))
    done = commands.run('plan', '-c', 'config.py', status=2, cwd=tmp_path)
    assert 'data/link is a link to nothing' in done.stderr
    os.mkfifo(tmp_path / 'data' / name)
    done = commands.run('plan', '-c', 'config.py', status=2, cwd=tmp_path)
    assert done.stderr.count('is neither a file nor a directory') == 2
    assert all(line.isprintable() for line in done.stderr.splitlines())
    assert len(done.stderr.splitlines()) == 3


def test_of_a_choice(commands: Commands, tmp_path: Path) -> None:
    done = commands.run('plan', '-c', 'config.py', '--json', '--only=server', '--limit=gate', cwd=tmp_path)
    assert json.loads(done.stdout)['hosts'] == ['gate']


def test_connects_to_nobody(commands: Commands, tmp_path: Path) -> None:
    commands.run('plan', '-c', 'config.py', '-F', str(tmp_path / 'ssh_config'), cwd=tmp_path, status=0)
    assert not (tmp_path / 'connected').exists()


def test_of_a_config_with_faults(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / 'bin/server.py').unlink()
    done = commands.run('plan', '-c', 'config.py', cwd=tmp_path, status=2)
    assert 'does not exist' in done.stderr
