"""`remote_runner clean` beside other work: agents of other versions, hosts with one home, runs that begin meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cleaning import OTHER, Litter, outcomes
from tests.commands import ROOT, Site, component
from tests.testbed import Testbed
from tests.testbed.process import wait_until


@pytest.fixture
def site(bed: Testbed, tmp_path: Path) -> Iterator[Site]:
    with Site(bed, tmp_path) as site:
        yield site


@pytest.fixture
def litter(site: Site) -> Litter:
    return Litter(site)


class TestAgents:
    def test_other_versions_go(self, litter: Litter) -> None:
        litter.shown()
        [own] = litter.cache.iterdir()
        names = [OTHER, f'{OTHER}.h1.999999', f'{own.name}.h1.999999.damaged', f'{OTHER}.h9.999999', 'notes']
        for name in names:
            litter.mkdir(f'{litter.account.home}/.cache/remote_runner/{name}/remote_runner')
        assert outcomes(litter.clean()) == {('agent', 'removed'): 3}
        assert sorted(path.name for path in litter.cache.iterdir()) == sorted([own.name, names[3], 'notes'])

    def test_what_a_launcher_of_another_version_runs_from_stays(self, litter: Litter, tmp_path: Path) -> None:
        older = older_version(tmp_path)
        litter.site.variables['PYTHONPATH'] = older
        litter.deploy('sleeper')
        del litter.site.variables['PYTHONPATH']
        [old] = litter.cache.iterdir()
        assert litter.shown()['agent'] == 0
        litter.stop()
        assert litter.shown()['agent'] == 1
        litter.clean()
        assert old not in litter.cache.iterdir()

    def test_what_a_connected_agent_of_another_version_runs_from_stays(self, litter: Litter, tmp_path: Path) -> None:
        variables = {'PYTHONPATH': older_version(tmp_path)}
        arguments = ['exec', '-F', litter.site.ssh_config, '-H', litter.where, '--', 'echo there; exec sleep 1000']
        with litter.site.start(*arguments, variables=variables) as command:
            wait_until(lambda: b'there' in command.out, 'the command on the host')
            [old] = litter.cache.iterdir()
            assert litter.clean()['items'] == []
            assert old.exists()
            command.signal(signal.SIGINT)
            command.end()
        wait_until(lambda: litter.shown()['agent'] == 1, 'the end of the agent')
        litter.clean()
        assert not old.exists()

    def test_hosts_that_share_a_home(self, fresh_bed: Callable[..., Testbed], tmp_path: Path) -> None:
        """A host cannot know what the others use: all that there are must be asked."""
        bed = fresh_bed(2)
        home = tmp_path / 'home of anne'
        home.mkdir()
        with Site(bed, tmp_path) as site:
            for name in ('h1', 'h2'):
                bed[name].add_user('anne')
                account = bed[name].account('anne')
                shutil.copytree(bed[name].path(account.home), home, dirs_exist_ok=True)
            for path in (home, *home.rglob('*')):
                os.chown(path, account.uid, account.gid)
            for name in ('h1', 'h2'):
                bed[name].share(account.home, home)
            site.variables['PYTHONPATH'] = older_version(tmp_path)
            site.write(component('sleeper', 'anne@h2'))
            site.deploy()
            del site.variables['PYTHONPATH']
            arguments = ['clean', '-F', site.ssh_config, '--yes', '--json', 'anne@h1']
            versions = (home / '.cache/remote_runner').iterdir
            [shown] = site.run(*arguments).objects
            assert 'h2' in shown['notes'][0]
            assert len(list(versions())) == 2
            site.run(*arguments, 'anne@h2')
            assert len(list(versions())) == 2
            site.run('stop', '-F', site.ssh_config, '-H', 'anne@h2', '--screen', site.session)
            site.run(*arguments, 'anne@h2')
            assert len(list(versions())) == 1


def older_version(folder: Path) -> str:
    """A copy of remote_runner with another agent, for PYTHONPATH."""
    copy = folder / 'older'
    shutil.copytree(ROOT / 'remote_runner', copy / 'remote_runner', ignore=shutil.ignore_patterns('__pycache__'))
    with (copy / 'remote_runner/agent/__init__.py').open('a') as file:
        file.write('# another version\n')
    return str(copy)


class TestRunsThatBeginMeanwhile:
    def test_they_are_not_disturbed(self, litter: Litter) -> None:
        """A run of the same session, whose older runs are being removed, and one in another session."""
        for _ in range(3):
            litter.is_over()
            litter.site.write(component('one', litter.where), component('two', litter.where))
            arguments = ['clean', '-F', litter.site.ssh_config, litter.where, '--keep', '0', '--yes']
            with litter.site.start(*arguments) as cleaning, litter.site.begin() as run:
                done, cleaned = run.end(), cleaning.end()
            assert (done.status, cleaned.status) == (0, 0), f'{done}\n{cleaned}'
            assert all(litter.site.deployment.runs(event['pid']) for event in done.events('component_started'))
            newest = litter.runs()[-1]
            assert sorted(path.name for path in newest.glob('?')) == ['0', '1']
            litter.stop()

    def test_they_wait_for_a_lock_and_hold_one_that_stands(self, litter: Litter) -> None:
        """Who cleans up holds a session for a moment, and removes the file of its lock."""
        litter.is_over()
        name = f'/tmp/remote_runner-{litter.account.uid}/{litter.site.session}.run.lock'
        script = f'exec 9>{name}; flock 9; echo held; read -r line; rm {name}; exec 9>&-; exec cat'
        command, environment = litter.host.entry(['sh', '-c', script], litter.user)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as holder:
            assert holder.stdin is not None
            assert holder.stdout is not None
            assert holder.stdout.readline() == b'held\n'
            litter.site.write(component('sleeper', litter.where, wait=True))
            with litter.site.begin() as run:
                wait_until(lambda: waits_for(litter, name), 'the run to wait')
                holder.stdin.write(b'\n')
                holder.stdin.flush()
                wait_until(lambda: b'component_started' in run.out, 'the start')
                done = litter.run('--yes', '--keep', '0')
        assert 'is left alone: it is held by' in done.stderr
        assert len(litter.runs()) == 2


def waits_for(litter: Litter, path: str) -> bool:
    """Whether an agent has a file open."""
    script = f'for f in /proc/[0-9]*/fd/*; do [ "$(readlink $f)" = {path} ] && readlink ${{f%fd/*}}exe; done; true'
    return b'python' in litter.host.run(['sh', '-c', script]).stdout
