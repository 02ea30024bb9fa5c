"""`fetch`, by itself and at the end of a run that waited: what components wrote comes home."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploying import Deployment, deploying
from tests.testbed import Testbed

SCRIPT = 'mkdir -p out/deep; echo data >out/a.txt; echo more >out/deep/b.txt; echo printed'


def _command(deployment: Deployment, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = deployment.command()[:3] + list(arguments) + ['--screen', deployment.session]
    return subprocess.run(words, capture_output=True, text=True, env=deployment.environment, cwd='/', timeout=60)


def _files(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob('*') if path.is_file()}


def _results(deployment: Deployment) -> Path:
    [run] = (deployment.folder / 'results').iterdir()
    return run


def test_what_was_waited_for_comes_home_by_itself(deployment: Deployment) -> None:
    deployment.sh('client', SCRIPT, wait=True, fetch={'out': '.', 'out/deep/*.txt': 'deep'})
    deployment.sh('server', 'echo serving; exec sleep 100000', 'h2')
    ended = deployment.run('-t')
    assert ended.status == 0, ended.stderr
    run = _results(deployment)
    assert run.name == ended.the('run_started')['run']
    assert _files(run) == {
        'client@h1/output.log': 'printed\n',
        'client@h1/out/a.txt': 'data\n',
        'client@h1/out/deep/b.txt': 'more\n',
        'client@h1/deep/b.txt': 'more\n',
        'server@h2/output.log': 'serving\n',
    }
    fetched = ended.the('results_fetched', host='h1')
    assert fetched['files'] == 4
    assert fetched['folders'] == {'client@h1': str(run / 'client@h1')}


def test_not_with_no_fetch_and_elsewhere_with_results(deployment: Deployment, tmp_path: Path) -> None:
    deployment.sh('client', SCRIPT, wait=True)
    assert deployment.run('--no-fetch').status == 0
    assert not (deployment.folder / 'results').exists()
    assert deployment.run('--results', str(tmp_path / 'mine')).status == 0
    [output] = (tmp_path / 'mine').glob('*/client@h1/output.log')
    assert output.read_text() == 'printed\n'
    assert not (deployment.folder / 'results').exists()


def test_results_of_a_failure_come_too(deployment: Deployment) -> None:
    deployment.sh('client', f'{SCRIPT}; exit 3', wait=True, start_grace=0, fetch={'out/a.txt': '.', 'missing': '.'})
    ended = deployment.run()
    assert ended.status == 1
    assert (_results(deployment) / 'client@h1/a.txt').read_text() == 'data\n'
    assert 'missing' in ended.stderr
    assert 'exit status 3' in ended.stderr


def test_a_file_that_cannot_be_had_makes_the_run_fail(deployment: Deployment) -> None:
    deployment.sh('client', SCRIPT, wait=True, fetch={'missing': '.', 'out/a.txt': '.'})
    ended = deployment.run()
    assert ended.status == 1
    assert 'missing' in ended.stderr
    assert (_results(deployment) / 'client@h1/a.txt').exists()


def test_the_command_fetches_again_what_has_changed(deployment: Deployment) -> None:
    script = f'{SCRIPT}; while [ ! -e /tmp/go-on ]; do sleep 0.01; done; echo new >>out/a.txt; exec sleep 100000'
    deployment.sh('client', script, fetch={'out': '.'})
    deployment.sleep('other', 'h2')
    assert deployment.run().status == 0
    deployment.written(f'{_cwd(deployment)}/out/deep/b.txt')
    done = _command(deployment, 'fetch', '--json')
    assert done.returncode == 0, done.stderr
    files = _files(_results(deployment))
    assert files['client@h1/out/a.txt'] == 'data\n'
    deployment.host().run(['touch', '/tmp/go-on'])
    path = deployment.host().path(f'{_cwd(deployment)}/out/a.txt')
    deployment.host().run(['sh', '-c', f'until grep -q new {_cwd(deployment)}/out/a.txt; do sleep 0.01; done'])
    assert path.exists()
    again = _command(deployment, 'fetch', 'client', '--json')
    assert again.returncode == 0, again.stderr
    events = [json.loads(line) for line in again.stdout.splitlines()]
    [fetched] = [event for event in events if event['event'] == 'results_fetched']
    assert (fetched['files'], fetched['unchanged']) == (1, 2)
    assert _files(_results(deployment))['client@h1/out/a.txt'] == 'data\nnew\n'
    deployment.host().run(['rm', '/tmp/go-on'])


def _cwd(deployment: Deployment) -> str:
    [folder] = deployment.host().path('/tmp').glob('remote_runner-client-*')
    return f'/tmp/{folder.name}'


def test_the_command_says_where_the_results_are(deployment: Deployment) -> None:
    deployment.sh('client', SCRIPT)
    assert deployment.run().status == 0
    done = _command(deployment, 'fetch')
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == _results(deployment)
    assert re.fullmatch(r'INFO: h1: 1 file fetched \(\d+ B\) in [0-9.]+ s\n', done.stderr)
    again = _command(deployment, 'fetch')
    assert re.fullmatch(r'INFO: h1: 0 files fetched \(0 B\), 1 here already in [0-9.]+ s\n', again.stderr)


@pytest.fixture
def alone(fresh_bed: Callable[..., Testbed], tmp_path: Path) -> object:
    with deploying(fresh_bed(2), tmp_path) as deployment:
        yield deployment


def test_a_host_that_is_gone_is_named_and_the_others_are_fetched(alone: Deployment) -> None:
    for host in ('h1', 'h2'):
        alone.sh('client', SCRIPT, host)
    assert alone.run().status == 0
    alone.host('h2').kill()
    done = _command(alone, 'fetch', '--connect-timeout', '3')
    assert done.returncode == 3
    assert 'h2' in done.stderr
    assert (_results(alone) / 'client@h1/output.log').exists()


def test_a_host_that_is_lost_midway_is_the_exit_status(alone: Deployment) -> None:
    alone.sh('client', 'truncate -s 3G large', fetch={'large': '.'})
    alone.sh('client', SCRIPT, 'h2')
    assert alone.run().status == 0
    words = [*alone.command()[:3], 'fetch', '--json', '--screen', alone.session]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=alone.environment, cwd='/'
    ) as program:
        assert program.stdout is not None
        for line in program.stdout:
            event = json.loads(line)
            if event['event'] == 'results_fetching' and event['host'] == 'h1' and event['bytes'] < event['of_bytes']:
                alone.host('h1').stop_sshd(sessions=True)
                break
        _, told = program.communicate(timeout=60)
    assert program.returncode == 3, told
    assert 'ERROR: h1: ' in told
    assert 'nothing is half written here' in told
    assert (_results(alone) / 'client@h2/output.log').exists()


def test_what_is_fetched_slowly_can_be_interrupted(alone: Deployment) -> None:
    alone.sh('client', 'truncate -s 1M large', fetch={'large': '.'})
    assert alone.run().status == 0
    words = [*alone.command()[:3], 'fetch', '--json', '--screen', alone.session, '--bwlimit', '10k', '--no-hash-cache']
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=alone.environment, cwd='/'
    ) as program:
        assert program.stdout is not None
        assert any('"results_fetching"' in line for line in program.stdout)
        program.send_signal(signal.SIGINT)
        _, told = program.communicate(timeout=30)
    assert program.returncode == 130, told
    assert [path.name for path in (_results(alone) / 'client@h1').iterdir()] in ([], ['output.log'])
