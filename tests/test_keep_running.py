"""`--keep-running`: what has not changed goes on, through a deployment of the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deploying import Deployment, Ended, deploying
from tests.testbed import Testbed


@pytest.fixture
def deployed(deployment: Deployment, tmp_path: Path) -> dict[str, int]:
    """Three components on two hosts, one of which has a file: their pids."""
    (tmp_path / 'data').write_text('one\n')
    deployment.sleep('same')
    deployment.sleep('with-file', files={'data': 'data'})
    deployment.sleep('far', 'h2', start_index=1)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    return {event['component']: event['pid'] for event in ended.of('component_started')}


def _again(deployment: Deployment, *options: str) -> Ended:
    ended = deployment.run('--keep-running', *options)
    assert ended.status == 0, ended.stderr
    return ended


def _change(deployment: Deployment, name: str, **attributes: Any) -> None:
    [component] = [component for component in deployment.components if component['name'] == name]
    component.update(attributes)


def test_nothing_has_changed(deployment: Deployment, deployed: dict[str, int]) -> None:
    for _ in range(2):
        ended = _again(deployment)
        kept = {event['component']: event['pid'] for event in ended.of('component_kept')}
        assert kept == deployed
        assert ended.of('component_started') == []
        assert all(deployment.runs(deployed[name], host) for name, host in [('same', 'h1'), ('far', 'h2')])
    assert deployment.windows() == {0: 'same', 1: 'with-file'}


def test_a_file_has_changed(deployment: Deployment, deployed: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / 'data').write_text('two\n')
    ended = _again(deployment)
    assert ended.names('component_kept') == ['far', 'same']
    assert ended.names('component_started') == ['with-file']
    assert not deployment.runs(deployed['with-file'])
    assert sorted(deployment.windows().values()) == ['same', 'with-file']
    folder = deployment.host().root / f'proc/{ended.pid("with-file")}/cwd'
    assert (folder / 'data').read_text() == 'two\n'


def test_the_mode_of_a_file_has_changed(deployment: Deployment, deployed: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / 'data').chmod(0o600)
    assert _again(deployment).names('component_started') == ['with-file']


@pytest.mark.parametrize(
    'attributes',
    [{'args': ['100001']}, {'env': {'A': 'b'}}, {'stop_timeout': 3}, {'base_dir': '/tmp'}],
    ids=lambda attributes: next(iter(attributes)),
)
def test_an_attribute_has_changed(
    deployment: Deployment, deployed: dict[str, int], attributes: dict[str, Any]
) -> None:
    _change(deployment, 'far', **attributes)
    ended = _again(deployment)
    assert ended.names('component_kept') == ['same', 'with-file']
    assert ended.names('component_started') == ['far']
    assert not deployment.runs(deployed['far'], 'h2')
    assert list(deployment.windows('h2').values()) == ['far']


def test_one_has_ended_one_is_gone_one_is_new(deployment: Deployment, deployed: dict[str, int]) -> None:
    deployment.host().run(['kill', str(deployed['same'])])
    deployment.ends(deployed['same'])
    deployment.components[:] = [c for c in deployment.components if c['name'] != 'far']
    deployment.sleep('new', 'h2')
    ended = _again(deployment)
    assert ended.names('component_kept') == ['with-file']
    assert ended.names('component_started') == ['new', 'same']
    assert not deployment.runs(deployed['far'], 'h2')
    assert list(deployment.windows('h2').values()) == ['new']


def test_one_that_is_not_ready_is_replaced(deployment: Deployment) -> None:
    deployment.sleep('never', restart='always')
    deployment.sh('restless', 'sleep 0.3; exit 1', restart='always', start_grace=0)
    first = deployment.begin()
    first.wait_for('component_started', 'restless')
    first.finish()
    ended = deployment.run('--keep-running')
    assert ended.names('component_kept')[:1] == ['never']


def test_what_is_kept_is_waited_for(deployment: Deployment) -> None:
    script = 'while [ ! -e /tmp/end ]; do sleep 0.01; done; exit 3'
    deployment.sh('waited', script)
    assert deployment.run().status == 0
    deployment.clear()
    deployment.sh('waited', script)
    deployment.sleep('critical', critical=True, wait=True)
    running = deployment.begin('--keep-running')
    assert running.wait_for('component_kept', 'waited')
    running.wait_for('component_started', 'critical')
    deployment.host().run(['touch', '/tmp/end'])
    assert running.wait_for('component_exited', 'waited')['status'] == 3
    deployment.host().run(['rm', '/tmp/end'])
    running.interrupt()
    running.finish()


def test_without_a_record_all_are_replaced(deployment: Deployment, deployed: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / 'home/.local/state/remote_runner').rename(tmp_path / 'lost')
    ended = _again(deployment)
    assert ended.names('component_started') == ['far', 'same', 'with-file']
    assert not deployment.runs(deployed['same'])


def test_a_part_of_the_config_leaves_the_rest_alone(
    deployment: Deployment, deployed: dict[str, int], tmp_path: Path
) -> None:
    (tmp_path / 'data').write_text('two\n')
    _change(deployment, 'same', args=['100001'])
    ended = _again(deployment, '--only', 'same')
    assert ended.names('component_started') == ['same']
    assert deployment.runs(deployed['with-file'])
    assert not deployment.runs(deployed['same'])
    state = deployment.folder / 'home/.local/state/remote_runner/runs' / deployment.session
    [record] = state.glob('*/record.json')
    components = json.loads(record.read_text())['components']
    assert sorted(component['name'] for component in components) == ['far', 'same', 'with-file']
    assert deployment.runs(deployed['far'], 'h2')


def test_it_and_no_kill_exclude_each_other(deployment: Deployment) -> None:
    deployment.sleep()
    assert deployment.run('--keep-running', '--no-kill').status == 2


def test_a_host_that_was_off_starts_what_it_lost(
    fresh_bed: Callable[..., Testbed], tmp_path: Path
) -> None:
    """What an earlier life said last, before the power was cut, is no word of the one that begins."""
    with deploying(fresh_bed(2), tmp_path) as deployment:
        for host in ('h1', 'h2'):
            deployment.sleep('first', host)
            deployment.sleep('second', host, start_index=1)
        first = deployment.run()
        deployment.host('h2').kill()
        deployment.host('h2').boot()
        deployment.sleep('new', 'h2')
        ended = deployment.run('--keep-running')
        assert ended.status == 0, ended.stderr
        assert ended.labels('component_kept') == ['first@h1', 'second@h1']
        assert ended.labels('component_started') == ['first@h2', 'new@h2', 'second@h2']
        assert first.status == 0
