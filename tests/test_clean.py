"""`remote_runner clean`: what runs left on real hosts goes, after it was shown; what anybody needs stays."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cleaning import OTHER, Litter, outcomes
from tests.commands import ROOT, Running, Site, component
from tests.deploying import gone, kill, launchers
from tests.testbed import Testbed
from tests.testbed.process import wait_until

IGNORES = ['-c', 'trap "" HUP TERM; while :; do /bin/sleep 1; done']


@pytest.fixture
def site(bed: Testbed, tmp_path: Path) -> Iterator[Site]:
    with Site(bed, tmp_path) as site:
        yield site


@pytest.fixture
def litter(site: Site) -> Litter:
    return Litter(site)


class TestRunsThatAreOver:
    def test_all_of_them_go_with_their_base_dirs(self, litter: Litter) -> None:
        litter.is_over()
        litter.is_over()
        assert (len(litter.runs()), len(litter.base_dirs())) == (2, 2)
        shown = litter.clean('--keep', '0')
        assert outcomes(shown)['run', 'removed'] == outcomes(shown)['base_dir', 'removed'] == 2
        assert all(item['outcome'] == 'removed' for item in shown['items'])
        assert (litter.runs(), litter.base_dirs()) == ([], [])
        assert list(litter.home.glob('.local/state/remote_runner/hosts/*/*')) == []
        assert list(litter.runtime.iterdir()) == []
        assert litter.clean('--keep', '0') == {'host': litter.where, 'items': [], 'kept': {}, 'notes': []}

    def test_the_newest_stays_with_its_base_dir(self, litter: Litter) -> None:
        for _ in range(3):
            litter.is_over()
        newest = litter.runs()[-1]
        assert outcomes(litter.clean())['run', 'removed'] == 2
        assert litter.runs() == [newest]
        [base_dir] = litter.base_dirs()
        where = ['-F', litter.site.ssh_config, '-H', litter.where, '--screen', litter.site.session]
        litter.site.run('restart', *where, 'sleeper')
        [status] = litter.site.run('status', *where, '--json').objects
        assert [seen['state'] for seen in status['components']] == ['started']
        assert litter.base_dirs() == [base_dir]

    def test_what_failed_before_anything_ran(self, litter: Litter) -> None:
        litter.deploy('broken', executable='/nowhere', status=1)
        litter.orphan()
        litter.stop()
        litter.clean('--keep', '0')
        assert (litter.runs(), litter.base_dirs()) == ([], [])

    def test_what_a_killed_command_was_removing(self, litter: Litter) -> None:
        litter.is_over()
        litter.is_over()
        old = litter.runs()[0]
        old.rename(old.with_name('.' + old.name))
        assert litter.shown()['run'] == 1
        litter.clean()
        assert len(litter.runs()) == 1


class TestAlive:
    def test_a_session_of_which_something_runs(self, litter: Litter) -> None:
        litter.is_over()
        pid = litter.deploy('one', 'two').event('component_started', component='one')['pid']
        litter.stop('two')
        before = litter.runs(), litter.base_dirs()
        shown = litter.clean('--keep', '0')
        assert (litter.runs(), litter.base_dirs()) == before
        assert 'alive' in shown['kept'][litter.site.session]
        assert litter.site.deployment.runs(pid)
        assert litter.site.deployment.sessions(user=litter.user)

    def test_a_session_whose_programs_have_ended_and_whose_windows_stand(self, litter: Litter) -> None:
        litter.deploy('short', executable='/bin/true', args=['x'])
        litter.ends()
        shown = litter.clean('--keep', '0')
        assert 'screen' in shown['kept'][litter.site.session]
        assert len(litter.runs()) == len(litter.base_dirs()) == 1
        litter.stop()
        litter.clean('--keep', '0')
        assert litter.runs() == litter.base_dirs() == []

    def test_a_session_that_somebody_holds(self, litter: Litter) -> None:
        litter.is_over()
        orphan = litter.orphan()
        path = f'/tmp/remote_runner-{litter.account.uid}/{litter.site.session}.run.lock'
        command, environment = litter.host.entry(['flock', path, 'sh', '-c', 'echo held; exec cat'], litter.user)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b'held\n'
            done = litter.run('--keep', '0', '--yes')
            assert f'session {litter.site.session} is left alone: it is held by' in done.stderr
            assert len(litter.runs()) == 1
            assert orphan in litter.base_dirs()  # the run that holds it may have just made it
        litter.clean('--keep', '0')
        assert litter.runs() == litter.base_dirs() == []

    def test_a_base_dir_in_which_somebody_works(self, litter: Litter) -> None:
        orphan, other = litter.orphan(), litter.orphan('remote_runner-other-0123456789')
        script = f'cd /tmp/{orphan.name} && echo there && exec cat'
        command, environment = litter.host.entry(['sh', '-c', script], litter.user)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as shell:
            assert shell.stdout is not None
            assert shell.stdout.readline() == b'there\n'
            litter.clean()
            assert litter.base_dirs() == [orphan]
            assert not other.exists()
        litter.clean()
        assert litter.base_dirs() == []


class TestNotOurs:
    def test_links_and_folders_that_others_planted(self, litter: Litter) -> None:
        precious = litter.mkdir(f'{litter.account.home}/precious')
        (precious / 'thesis').write_text('all of it\n')
        for number, user in enumerate((litter.user, 'root')):
            target = f'{litter.account.home}/precious'
            litter.host.run(['ln', '-s', target, f'/tmp/remote_runner-x-012345678{number}'], user=user)
        theirs = litter.mkdir('/tmp/remote_runner-x-0123456782', 'root')
        open_to_all = litter.orphan('remote_runner-2026-2026071201')
        open_to_all.chmod(0o755)
        assert litter.clean('--keep', '0')['items'] == []
        assert (precious / 'thesis').read_text() == 'all of it\n'
        assert theirs.exists()
        assert open_to_all.exists()

    def test_what_links_in_a_base_dir_lead_to_stays(self, litter: Litter) -> None:
        precious = litter.mkdir(f'{litter.account.home}/precious')
        (precious / 'thesis').write_text('all of it\n')
        folder = litter.orphan()
        script = (
            f'cd /tmp/{folder.name}; ln -s ~/precious link; ln -s ~/precious/thesis file; mkdir -p a/b; touch a/b/c; '
            "chmod 500 a/b a; touch \"$(printf 'new\\nline')\" \"$(printf '\\377')\"; ln ~/precious/thesis hard; "
            'i=0; while [ $i -lt 150 ]; do mkdir d; touch d/f; cd d; i=$((i+1)); done'
        )
        litter.host.run(['sh', '-c', script], user=litter.user)
        assert outcomes(litter.clean()) == {('base_dir', 'removed'): 1}
        assert not folder.exists()
        assert (precious / 'thesis').read_text() == 'all of it\n'

    def test_a_name_with_a_newline(self, litter: Litter) -> None:
        folder = litter.orphan('remote_runner-new\nline\x1b[31m-0123456789')
        done = litter.run('--dry-run', '--verbose')
        assert r'new\nline\x1b[31m-' in done.stdout
        litter.clean()
        assert not folder.exists()

    def test_what_cannot_be_removed_is_named(self, litter: Litter) -> None:
        folder, other = litter.orphan(), litter.orphan('remote_runner-other-0123456789')
        litter.mkdir(f'/tmp/{folder.name}/deep', 'root')
        (folder / 'deep/file').touch()
        done = litter.run('--yes', status=1)
        assert re.search(rf'^ERROR: {litter.where}: /tmp/{folder.name} could not be removed: deep', done.stderr, re.M)
        assert (folder / 'deep/file').exists()
        assert not other.exists()

    def test_what_is_mounted_in_a_base_dir(self, litter: Litter) -> None:
        folder = litter.orphan()
        litter.mkdir(f'/tmp/{folder.name}/mounted')
        litter.mkdir(f'{litter.account.home}/precious')
        (litter.home / 'precious/thesis').write_text('all of it\n')
        where = f'/tmp/{folder.name}/mounted'
        litter.host.run(['mount', '--bind', f'{litter.account.home}/precious', where])
        try:
            shown = litter.clean(status=1)
        finally:
            litter.host.run(['umount', where])
        assert 'mount point' in shown['items'][0]['why']
        assert (litter.home / 'precious/thesis').read_text() == 'all of it\n'
        litter.clean()
        assert not folder.exists()


class TestConfirmation:
    def test_nothing_goes_unless_somebody_says_so(self, litter: Litter) -> None:
        folder = litter.orphan()
        done = litter.run('--dry-run')
        assert re.search(rf'^{litter.where} +temporary base_dir +1 +\S+ \S*B +\d+ s$', done.stdout, re.M)
        assert litter.run(status=2).stderr.startswith('ERROR: there is nobody to confirm')
        assert self.answer(litter, b'no\n') == 1
        assert folder.exists()
        assert self.answer(litter, b'yes\n') == 0
        assert not folder.exists()

    def test_what_came_to_life_meanwhile_stays(self, litter: Litter) -> None:
        """A session was shown, and before the answer comes somebody starts it."""
        litter.is_over()
        master, slave = os.openpty()
        arguments = ['clean', '-F', litter.site.ssh_config, litter.where, '--keep', '0']
        with litter.site.start(*arguments, stdin=slave) as command:
            self.is_asked(command)
            pid = litter.deploy('sleeper').event('component_started')['pid']
            os.write(master, b'yes\n')
            done = command.end()
        os.close(master)
        os.close(slave)
        assert done.status == 0, done
        assert litter.site.deployment.runs(pid)
        assert (len(litter.runs()), len(litter.base_dirs())) == (2, 2)
        assert 'stays: 1 component is alive' in done.stderr

    @staticmethod
    def is_asked(command: Running) -> None:
        wait_until(lambda: b'[yes/no]' in command.err, 'the question')

    def answer(self, litter: Litter, answer: bytes) -> int:
        """The exit status of a command that is answered so."""
        master, slave = os.openpty()
        with litter.site.start('clean', '-F', litter.site.ssh_config, litter.where, stdin=slave) as command:
            self.is_asked(command)
            os.write(master, answer)
            done = command.end()
        os.close(master)
        os.close(slave)
        return done.status


class TestSmallThings:
    def test_sockets_links_locks_and_copies(self, litter: Litter) -> None:
        litter.deploy('sleeper', base_dir='~/work')
        [live] = [path for path in litter.runtime.iterdir() if path.is_socket() and not path.name.startswith('agent')]
        script = (
            'import os, socket\n'
            f'os.chdir("/tmp/remote_runner-{litter.account.uid}")\n'
            'for name, kind in ("agent-999999", 1), ("20260101-000000-000ab-0", 1), ("20260101-000000-000ab-0.n", 2):\n'
            '    socket.socket(socket.AF_UNIX, kind).bind(name)\n'
            'os.symlink("/nowhere", "link-00000000-0")\n'
            'os.symlink("/tmp", "link-00000001-0")\n'
            'open("gone.run.lock", "w")\n'
            'for pid in 999999, 1:\n'
            '    open(os.path.expanduser("~/work/.rr-h1-%d-01234567" % pid), "w")\n'
        )
        litter.host.run(['python3', '-c', script], user=litter.user)
        shown = litter.clean()
        removed = {os.path.basename(item['path']) for item in shown['items'] if item['outcome'] == 'removed'}
        assert removed >= {'agent-999999', 'link-00000000-0', 'gone.run.lock', '.rr-h1-999999-01234567'}
        assert outcomes(shown) == dict.fromkeys([('link', 'removed'), ('lock', 'removed'), ('copy', 'removed')], 1) | {
            ('socket', 'removed'): 3
        }
        left = {path.name for path in litter.runtime.iterdir()}
        assert {live.name, 'link-00000001-0'} <= left
        assert not left & removed
        assert [path.name for path in (litter.home / 'work').iterdir()] == ['.rr-h1-1-01234567']

    def test_programs_whose_launchers_were_killed(self, litter: Litter) -> None:
        pid = litter.deploy('stubborn', executable='/bin/sh', args=IGNORES, stop_timeout=0.1).event(
            'component_started'
        )['pid']
        [server] = litter.site.deployment.own_sessions(user=litter.user)
        guards = [process.pid for process in launchers(litter.host, litter.site.session)]
        keepers = [process.pid for process in litter.host.processes() if process.ppid in guards]
        own = [process for process in litter.host.processes() if process.pid in (server.pid, *guards, *keepers)]
        for process in own:
            kill(litter.host, signal.SIGSTOP, process.pid)
        kill(litter.host, signal.SIGKILL, *[process.pid for process in own])
        gone(litter.host, own)
        assert litter.site.deployment.runs(pid)
        assert litter.shown('--keep', '0')['program'] == 1
        shown = litter.clean('--keep', '0')
        assert outcomes(shown)['program', 'removed'] == 1
        litter.site.deployment.ends(pid)
        assert litter.runs() == litter.base_dirs() == []


class TestHosts:
    def test_one_out_of_reach(self, litter: Litter) -> None:
        folder = litter.orphan()
        done = litter.run('nobody@h2', '--yes', status=3)
        assert 'nobody@h2' in done.stderr
        assert not folder.exists()


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

    def test_a_session_that_is_looked_at_is_waited_for(self, litter: Litter) -> None:
        litter.is_over()
        name = f'/tmp/remote_runner-{litter.account.uid}/{litter.site.session}.run.lock'
        script = f'exec 9>{name}; flock 9; echo held; read -r line; rm {name}; exec 9>&-; exec cat'
        command, environment = litter.host.entry(['sh', '-c', script], litter.user)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as holder:
            assert holder.stdin is not None
            assert holder.stdout is not None
            assert holder.stdout.readline() == b'held\n'
            litter.site.write(component('sleeper', litter.where))
            with litter.site.begin() as run:
                wait_until(lambda: waits_for(litter, name), 'the run to wait')
                holder.stdin.write(b'\n')
                holder.stdin.flush()
                assert run.end().status == 0
            done = litter.run('--yes', '--keep', '0')
        assert 'alive' in done.stderr


def waits_for(litter: Litter, path: str) -> bool:
    """Whether an agent has a file open."""
    script = f'for f in /proc/[0-9]*/fd/*; do [ "$(readlink $f)" = {path} ] && readlink ${{f%fd/*}}exe; done; true'
    return b'python' in litter.host.run(['sh', '-c', script]).stdout
