"""`remote_runner plan`: what a run would do is shown, and nothing is done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import Commands

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
