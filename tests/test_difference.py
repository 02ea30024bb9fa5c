"""`remote_runner plan --diff`: what a run would change on its hosts is shown, and nothing is changed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.deploying import Deployment


def _plan(deployment: Deployment, *options: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    words = deployment.command()
    command = [*words[:3], 'plan', *words[3:], '--diff', *options]
    done = subprocess.run(command, capture_output=True, text=True, env=deployment.environment, cwd='/', timeout=60)
    assert done.returncode == status, done.stderr
    return done


def _differences(deployment: Deployment, *options: str) -> dict[str, Any]:
    found = json.loads(_plan(deployment, '--json', *options).stdout)['differences']
    return {each.pop('host'): each for each in found}


def _add(deployment: Deployment, tmp_path: Path) -> None:
    for name in ('one', 'two', 'mode'):
        (tmp_path / name).write_text(f'{name}\n')
        (tmp_path / name).chmod(0o640)
    files = {name: name for name in ('one', 'two', 'mode')}
    deployment.sleep(base_dir='/tmp/diff', files=files)
    deployment.sleep('fresh', 'h2', files={'one': 'deep/one'})


def test_before_the_first_run_all_is_new(deployment: Deployment, tmp_path: Path) -> None:
    _add(deployment, tmp_path)
    found = _differences(deployment)
    sizes = [{'remote': f'/tmp/diff/{name}', 'size': len(name) + 1} for name in ('one', 'two', 'mode')]
    assert found['h1'] == {'send': sizes, 'modes': [], 'unchanged': 0, 'stop': []}
    assert found['h2']['send'] == [{'remote': '/<temporary>/fresh/deep/one', 'size': 4}]
    assert not deployment.host().path('/tmp/diff').exists()
    assert deployment.own_sessions() == []


def test_what_differs_and_what_would_be_ended(deployment: Deployment, tmp_path: Path) -> None:
    _add(deployment, tmp_path)
    first = deployment.run()
    (tmp_path / 'two').write_text('changed\n')
    (tmp_path / 'mode').chmod(0o600)
    deployment.sleep('another', 'h3')
    found = _differences(deployment)
    assert found['h1'] == {
        'send': [{'remote': '/tmp/diff/two', 'size': 8}],
        'modes': [{'remote': '/tmp/diff/mode', 'mode': '0600'}],
        'unchanged': 1,
        'stop': ['sleeper@h1'],
    }
    assert found['h3']['stop'] == []
    assert _differences(deployment, '--no-kill')['h1']['stop'] == []
    assert len(_differences(deployment, '--always-copy')['h1']['send']) == 3
    text = _plan(deployment).stdout
    assert 'h1: 1 file to send (8 B), permission bits of 1 file to change, 1 unchanged\n' in text
    assert '  ends   sleeper@h1\n' in text
    assert '  sends  /tmp/diff/two (8 B)\n' in text
    assert deployment.text('/tmp/diff/two') == 'two\n'
    assert deployment.runs(first.pid('sleeper'))
    deployment.host().run(['rm', '-r', '/tmp/diff'])


def test_a_host_out_of_reach_is_named_and_the_others_compared(deployment: Deployment, tmp_path: Path) -> None:
    _add(deployment, tmp_path)
    deployment.sleep('lost', 'nowhere.invalid')
    done = _plan(deployment, '--json', status=3)
    shown = json.loads(done.stdout)
    assert [each['host'] for each in shown['differences']] == ['h1', 'h2']
    assert list(shown['unreachable']) == ['nowhere.invalid']
    assert 'nowhere.invalid' in done.stderr
