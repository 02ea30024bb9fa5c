"""`remote_runner plan --diff`: what a run would change on its hosts is shown, and nothing is changed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from remote_runner.config import ready
from tests.commands import Site, alias_of, ssh_config
from tests.deploying import Deployment
from tests.testbed import Testbed


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


def test_links_and_times(bed: Testbed, tmp_path: Path) -> None:
    with Site(bed, tmp_path) as site:
        base = f'/tmp/diff-{uuid4().hex}'
        site.file('data/f')
        for number in range(23):
            (tmp_path / f'data/l{number:02}').symlink_to('f')
        files = "files=util.recursive_files_dict('data', '.', links='keep')"
        site.write(
            f"config.add_component(Component(name='x', host='h1', executable='/bin/sleep', args=[100000],"
            f" base_dir='{base}', {files}))"
        )
        site.deploy()
        (tmp_path / 'data/l07').unlink()
        (tmp_path / 'data/l07').symlink_to('line\nbreak')
        os.utime(tmp_path / 'data/f', ns=(1, 1))
        options = ['plan', *site.arguments('--diff')]
        text = site.run(*options, '--keep-running').stdout
        assert 'h1: no file to send, 1 link to make, times of 1 file to set, 1 unchanged\n' in text
        assert '  ends   x@h1\n' in text
        assert f'  links  {base}/l07 -> line\\nbreak\n' in text
        [found] = json.loads(site.run(*options, '--json').stdout)['differences']
        assert found['links'] == [{'remote': f'{base}/l07', 'text': 'line\nbreak'}]
        assert found['times'] == [f'{base}/f']
        bed['h1'].run(['rm', '-r', base])
        text = site.run(*options).stdout
        assert 'h1: 1 file to send (8 B), 23 links to make, 0 unchanged\n' in text
        assert f'  links  {base}/l19 -> f\n  … and 3 more\n' in text


class TestKeepRunning:
    """What it says would be kept is what a run then keeps, and what it says would be ended is what that ends."""

    @pytest.fixture
    def deployed(self, deployment: Deployment, tmp_path: Path) -> dict[str, int]:
        """Components with files in temporary folders and in one of their own, on two hosts: their pids."""
        for name in ('data', 'own'):
            (tmp_path / name).write_text('one\n')
        deployment.sleep('same')
        deployment.sleep('with-file', files={'data': 'data'})
        deployment.sleep('at-home', base_dir='~/home', files={'own': 'own'})
        deployment.sleep('far', 'h2', start_index=1)
        ended = deployment.run()
        assert ended.status == 0, ended.stderr
        return {event['component']: event['pid'] for event in ended.of('component_started')}

    @staticmethod
    def check(deployment: Deployment, pids: dict[str, int], *options: str) -> dict[str, Any]:
        """Compare the plan with what a run then does; the differences by host."""
        found = _differences(deployment, '--keep-running', *options)
        hosts = {'far': 'h2'}
        assert all(deployment.runs(pid, hosts.get(name, 'h1')) for name, pid in pids.items())
        ended = deployment.run('--keep-running', *options)
        assert ended.status == 0, ended.stderr
        kept = sorted(label for each in found.values() for label in each['keep'])
        assert kept == ended.labels('component_kept')
        gone = [name for name, pid in pids.items() if not deployment.runs(pid, hosts.get(name, 'h1'))]
        stop = sorted(label for each in found.values() for label in each['stop'])
        assert stop == sorted(f'{name}@{hosts.get(name, "h1")}' for name in gone)
        sent = {event['host']: event['sent'] for event in ended.of('files_sent')}
        assert {host: len(each['send']) for host, each in found.items() if each['send'] or host in sent} == sent
        return found

    def test_nothing_has_changed(self, deployment: Deployment, deployed: dict[str, int]) -> None:
        found = self.check(deployment, deployed)
        assert found['h1'] == {
            'send': [],
            'modes': [],
            'unchanged': 2,
            'stop': [],
            'keep': ['same@h1', 'with-file@h1', 'at-home@h1'],
        }
        assert '  keeps  same@h1\n' in _plan(deployment, '--keep-running').stdout

    def test_an_argument_has_changed(self, deployment: Deployment, deployed: dict[str, int]) -> None:
        deployment.components[0]['args'] = ['100001']
        found = self.check(deployment, deployed)
        assert found['h1']['stop'] == ['same@h1']
        assert found['h2']['keep'] == ['far@h2']

    def test_a_component_with_a_file_has_changed(self, deployment: Deployment, deployed: dict[str, int]) -> None:
        """It gets a new folder, so the file is sent though it has not changed."""
        deployment.components[1]['args'] = ['100001']
        found = self.check(deployment, deployed)
        assert found['h1']['send'] == [{'remote': '/<temporary>/with-file/data', 'size': 4}]

    @pytest.mark.parametrize(('file', 'component'), [('data', 'with-file'), ('own', 'at-home')])
    def test_a_file_has_changed(
        self, deployment: Deployment, deployed: dict[str, int], tmp_path: Path, file: str, component: str
    ) -> None:
        (tmp_path / file).write_text('changed\n')
        found = self.check(deployment, deployed)
        assert found['h1']['stop'] == [f'{component}@h1']
        [sent] = found['h1']['send']
        assert sent['size'] == 8
        assert '<temporary>' not in sent['remote']  # it is started again where it ran

    def test_the_mode_of_a_file_has_changed(
        self, deployment: Deployment, deployed: dict[str, int], tmp_path: Path
    ) -> None:
        (tmp_path / 'own').chmod(0o600)
        assert self.check(deployment, deployed)['h1']['stop'] == ['at-home@h1']

    def test_one_has_ended_one_is_gone_one_is_new(self, deployment: Deployment, deployed: dict[str, int]) -> None:
        deployment.host().run(['kill', str(deployed['same'])])
        deployment.ends(deployed.pop('same'))
        deployment.components[:] = [c for c in deployment.components if c['name'] != 'far']
        deployment.sleep('new', 'h2')
        found = self.check(deployment, deployed)
        assert found['h1']['keep'] == ['with-file@h1', 'at-home@h1']
        assert found['h2'] == {'send': [], 'modes': [], 'unchanged': 0, 'stop': ['far@h2'], 'keep': []}

    def test_one_that_is_not_ready_is_replaced(self, deployment: Deployment) -> None:
        deployment.sleep('never', ready=ready.file('/tmp/never'), start_timeout=1000)
        first = deployment.begin()
        first.wait_for('component_started', 'never')
        try:
            found = _differences(deployment, '--keep-running')['h1']
        finally:
            first.kill()
        assert found['stop'] == ['never@h1']
        assert found['keep'] == []

    def test_a_part_leaves_the_rest_alone(
        self, deployment: Deployment, deployed: dict[str, int], tmp_path: Path
    ) -> None:
        (tmp_path / 'data').write_text('two\n')
        deployment.components[0]['args'] = ['100001']
        found = self.check(deployment, deployed, '--only', 'same')
        assert found['h1']['stop'] == ['same@h1']
        assert list(found) == ['h1']

    def test_all_files_are_to_be_sent(self, deployment: Deployment, deployed: dict[str, int]) -> None:
        found = self.check(deployment, deployed, '--always-copy')
        assert found['h1']['keep'] == ['same@h1']

    def test_without_a_record_all_are_replaced(
        self, deployment: Deployment, deployed: dict[str, int], tmp_path: Path
    ) -> None:
        (tmp_path / 'home/.local/state/remote_runner').rename(tmp_path / 'lost')
        found = self.check(deployment, deployed)
        assert found['h1']['keep'] == []
        assert len(found['h1']['stop']) == 3

    def test_two_names_of_one_machine(self, deployment: Deployment, tmp_path: Path) -> None:
        config = ssh_config(tmp_path, deployment.bed, alias_of(deployment.bed, 'h1', 'other'))
        deployment.sleep('here')
        deployment.sleep('there', 'other')
        deployment.sleep('changing', 'other')
        assert deployment.run('-F', str(config)).status == 0
        deployment.components[2]['args'] = ['100001']
        found = _differences(deployment, '-F', str(config), '--keep-running')
        assert found['h1']['keep'] == ['here@h1']
        assert found['other']['keep'] == ['there@other']
        assert {label for each in found.values() for label in each['stop']} == {'changing@other'}

    def test_it_and_no_kill_exclude_each_other(self, deployment: Deployment) -> None:
        deployment.sleep()
        assert 'exclude each other' in _plan(deployment, '--keep-running', '--no-kill', status=2).stderr


def test_a_host_out_of_reach_is_named_and_the_others_compared(deployment: Deployment, tmp_path: Path) -> None:
    _add(deployment, tmp_path)
    deployment.sleep('lost', 'nowhere.invalid')
    done = _plan(deployment, '--json', status=3)
    shown = json.loads(done.stdout)
    assert [each['host'] for each in shown['differences']] == ['h1', 'h2']
    assert list(shown['unreachable']) == ['nowhere.invalid']
    assert 'nowhere.invalid' in done.stderr
    done = _plan(deployment, '--json', '--skip-unreachable')
    assert json.loads(done.stdout) == shown
    assert 'WARNING: nowhere.invalid would be left out, with its components' in done.stderr
