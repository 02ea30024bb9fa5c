"""`remote_runner run NAMES`: components that have ended are started again."""

from __future__ import annotations

import subprocess

from tests.deploying import Deployment


def _run(deployment: Deployment, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [*deployment.command()[:3], 'run', *arguments, '--screen', deployment.session]
    return subprocess.run(words, capture_output=True, text=True, env=deployment.environment, cwd='/', timeout=60)


def _with_config(deployment: Deployment) -> list[str]:
    return deployment.command()[3:7]


def test_one_that_has_ended_is_started_as_it_was(deployment: Deployment) -> None:
    deployment.sh('once', 'echo "$X $$" >>/tmp/once-ran; exit 0', env={'X': 'x y'})
    deployment.sleep()
    first = deployment.run()
    deployment.ends(first.pid('once'))
    done = _run(deployment, '-F', str(deployment.bed.ssh_config), 'once')
    assert done.returncode == 0, done.stderr
    lines = deployment.text('/tmp/once-ran').splitlines()
    deployment.host().run(['rm', '/tmp/once-ran'])
    assert len(lines) == 2
    assert all(line.startswith('x y ') for line in lines)
    assert sorted(deployment.windows().values()) == ['once', 'sleeper']
    assert deployment.runs(first.pid('sleeper'))


def test_one_that_runs_is_left_alone(deployment: Deployment) -> None:
    deployment.sleep()
    first = deployment.run()
    done = _run(deployment, 'sleeper')
    assert done.returncode == 2
    assert 'sleeper@h1' in done.stderr
    assert 'restart' in done.stderr
    assert deployment.runs(first.pid('sleeper'))


def test_with_a_config_it_is_started_as_that_says(deployment: Deployment) -> None:
    deployment.sh('once', 'exit 0')
    deployment.sleep()
    first = deployment.run()
    deployment.ends(first.pid('once'))
    deployment.components[0]['args'] = ['-c', 'exec sleep 100000 # changed']
    done = _run(deployment, 'once', *_with_config(deployment), '--json')
    assert done.returncode == 0, done.stderr
    assert first.the('run_started')['run'] in done.stdout
    assert len(deployment.sleepers()) == 2
    assert sorted(deployment.windows().values()) == ['once', 'sleeper']


def test_one_that_cannot_be_started_any_more(deployment: Deployment) -> None:
    deployment.host().path('/tmp/program').write_text('#!/bin/sh\nexit 0\n')
    deployment.host().path('/tmp/program').chmod(0o755)
    deployment.add('once', '/tmp/program')
    first = deployment.run()
    deployment.ends(first.pid('once'))
    deployment.host().run(['rm', '/tmp/program'])
    done = _run(deployment, 'once')
    assert done.returncode == 1
    assert 'there is no file /tmp/program' in done.stderr


def test_a_name_that_is_none(deployment: Deployment) -> None:
    deployment.sleep()
    assert deployment.run().status == 0
    done = _run(deployment, 'nobody')
    assert done.returncode == 2
    assert 'nobody' in done.stderr
    assert 'sleeper@h1' in done.stderr


def test_last_lines_are_those_of_the_life_that_failed(deployment: Deployment) -> None:
    deployment.sh('once', 'echo bad; exit 3')
    assert deployment.run().failure('once').count('bad') == 1
    for _ in range(2):
        done = _run(deployment, 'once')
        assert done.returncode == 1
        assert done.stderr.count('| bad') == 1
