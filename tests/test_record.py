"""Which run later commands start from: the newest that changed something."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from remote_runner.config import util
from remote_runner.config.component import Component, Config
from remote_runner.deploy.plan import make_plan
from remote_runner.deploy.record import Recorder, newest
from remote_runner.events import Events, FilesSent, RunStarted
from tests.deploying import Deployment
from tests.test_util import ODD_NAMES


def _command(deployment: Deployment, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [*deployment.command()[:3], *arguments, '--screen', deployment.session]
    return subprocess.run(words, capture_output=True, text=True, env=deployment.environment, cwd='/', timeout=60)


def _shown(deployment: Deployment) -> dict[str, Any]:
    """The components that `status` shows, by label."""
    components = json.loads(_command(deployment, 'status', '--json').stdout)['components']
    return {f'{each["name"]}@{each["host"]}': each for each in components}


def _records(deployment: Deployment) -> list[Path]:
    state = deployment.folder / 'home/.local/state/remote_runner/runs' / deployment.session
    return sorted(state.glob('*/record.json'))


def test_a_run_that_changed_nothing_hides_none_that_stands(deployment: Deployment) -> None:
    deployment.sleep()
    first = deployment.run()
    deployment.clear()
    deployment.sleep('other', 'nowhere.invalid')
    assert deployment.run().status == 3
    assert list(_shown(deployment)) == ['sleeper@h1']
    deployment.clear()
    deployment.sleep()
    again = deployment.run('--keep-running')
    assert again.names('component_kept') == ['sleeper']
    assert deployment.runs(first.pid('sleeper'))
    assert len(_records(deployment)) == 1
    logs = list(_records(deployment)[0].parent.parent.glob('*/events.jsonl'))
    assert len(logs) == 2, 'what the run that failed said is kept'


def test_components_that_are_added_leave_the_others_in_the_record(deployment: Deployment) -> None:
    deployment.sh('once', 'exit 0')
    deployment.sleep(host='h2')
    first = deployment.run()
    deployment.ends(first.pid('once'))
    assert deployment.run('--no-kill', '--only', 'once').status == 0
    assert sorted(_shown(deployment)) == ['once@h1', 'sleeper@h2']
    stopped = _command(deployment, 'stop')
    assert stopped.returncode == 0, stopped.stderr
    assert not deployment.runs(first.pid('sleeper'), 'h2')


def test_hosts_that_a_new_plan_leaves_out_are_named(deployment: Deployment) -> None:
    deployment.sleep()
    deployment.sleep('far', 'h2')
    first = deployment.run()
    deployment.clear()
    deployment.sleep()
    second = deployment.run()
    assert second.status == 0
    assert 'started on h2 is left alone' in second.stderr
    assert deployment.runs(first.pid('far'), 'h2')
    words = ['-F', str(deployment.bed.ssh_config)]
    assert _command(deployment, 'stop', '-H', 'h2', *words).returncode == 0
    assert not deployment.runs(first.pid('far'), 'h2')


def test_nothing_is_said_of_what_was_stopped(deployment: Deployment) -> None:
    deployment.sleep()
    deployment.sleep('far', 'h2')
    assert deployment.run().status == 0
    assert _command(deployment, 'stop').returncode == 0
    deployment.clear()
    deployment.sleep()
    assert 'left alone' not in deployment.run().stderr


def test_a_start_that_took_too_long_has_failed(deployment: Deployment) -> None:
    from remote_runner.config import ready

    deployment.sleep('late', ready=None)
    config = deployment.folder / 'late.py'
    deployment.command()
    text = (deployment.folder / 'config.py').read_text()
    config.write_text(f'{text}for each in config.all_components():\n    each.ready = {ready.tcp(9)!r}\n')
    done = _command(
        deployment, 'run', '-c', str(config), '-F', str(deployment.bed.ssh_config), '--start-timeout', '0.7'
    )
    assert done.returncode == 1
    shown = _shown(deployment)['late@h1']
    assert shown['state'] == 'failed'
    assert 'not ready within 0.7 s' in shown['reason']
    assert _command(deployment, 'status').returncode == 1


def test_names_alone_and_what_says_how_to_deploy(deployment: Deployment) -> None:
    deployment.sleep()
    assert deployment.run().status == 0
    for option in (['--limit', 'h2'], ['--only', 'x'], ['-t'], ['--no-kill'], ['--keep-running']):
        done = _command(deployment, 'run', 'sleeper', *option)
        assert done.returncode == 2, option
        assert 'needs a config' in done.stderr


def test_a_host_that_alone_was_named_and_is_out_of_reach(deployment: Deployment) -> None:
    deployment.sleep()
    where = ['-H', 'nowhere.invalid', '-F', str(deployment.bed.ssh_config)]
    for words in (['logs'], ['status'], ['stop', 'sleeper'], ['wait']):
        done = _command(deployment, *words, *where)
        assert done.returncode == 3, words
        assert 'nowhere.invalid' in done.stderr


def test_names_of_files_come_back_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_STATE_HOME', str(tmp_path / 'state'))
    (tmp_path / 'data').mkdir()
    for name in ODD_NAMES:
        (tmp_path / 'data' / name).touch()
    (tmp_path / 'data' / 'link').symlink_to(ODD_NAMES[0])
    config = Config()
    files = util.recursive_files_dict(tmp_path / 'data', 'd', links='keep')
    config.add_component(Component(name='c', host='h', executable='/bin/true', files=files))
    plan = make_plan(config, str(tmp_path), 'runner')
    events = Events()
    events.listen(Recorder(plan, {}))
    events.emit(RunStarted(run='1', session='runner', hosts=('h',), components={0: ('c@h',)}))
    events.emit(FilesSent(host='h', files=1, sent=1, modes=0, bytes=0, seconds=0.0))
    [component] = newest('runner').components
    assert component['files'] == plan.to_dict()['components'][0]['files']
    assert {file['remote'] for file in component['files']} == {f'd/{name}' for name in [*ODD_NAMES, 'link']}
    assert [file['remote'] for file in component['files'] if file.get('is_link')] == ['d/link']
