"""`remote_runner clean`: what runs left on real hosts goes, after it was shown; what anybody needs stays."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cleaning import Litter, outcomes
from tests.commands import Running, Site
from tests.deploying import agents, ancestors, gone, kill, launchers
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
        assert litter.runs() == litter.base_dirs() == [], shown

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


    def test_a_component_with_another_state_folder(self, litter: Litter) -> None:
        """Its spec is nowhere to be found, but by its launcher."""
        rc = litter.home / '.bashrc'
        before = rc.read_text()
        rc.write_text(f'export XDG_STATE_HOME=~/elsewhere\n{before}')
        litter.deploy('sleeper', executable='/bin/sh', args=['-c', 'cd /; exec sleep 1000'])
        rc.write_text(before)
        assert litter.runs() == []
        orphan = litter.orphan()
        assert litter.shown('--keep', '0')['base_dir'] == 1
        litter.clean('--keep', '0')
        assert [path.name[:21] for path in litter.base_dirs()] == ['remote_runner-sleeper']
        assert not orphan.exists()


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

    def test_who_is_asked_reads_apart_from_the_json_what_it_is_about(self, litter: Litter) -> None:
        litter.orphan()
        master, slave = os.openpty()
        os.write(master, b'no\n')
        done = litter.run('--json', stdin=slave, status=1)
        os.close(master)
        os.close(slave)
        [shown] = done.objects
        assert [item['kind'] for item in shown['items']] == ['base_dir']
        assert 'temporary base_dir' in done.stderr

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

    def test_sockets_of_killed_launchers_go_with_the_next_run(self, litter: Litter) -> None:
        def there() -> set[str]:
            return {path.name for path in litter.runtime.iterdir() if path.is_socket() and path.name[:5] != 'agent'}

        pid = litter.deploy('killed').event('component_started')['pid']
        [dead] = there()
        keeper, launcher = above = ancestors(litter.host, pid)[:2]
        kill(litter.host, signal.SIGSTOP, keeper.pid)  # screen would let the launcher go on
        kill(litter.host, signal.SIGKILL, launcher.pid, keeper.pid, pid)
        gone(litter.host, above)
        litter.site.deploy('--screen', f'{litter.site.session}-beside')
        [alive] = there() - {dead}
        # One of a program that says how it is, one that somebody may be about to listen on, and one that somebody
        # listens on, of whom the kernel does not tell us: as in a container.
        said, new, elsewhere = (f'20260101-000000-000ab-{end}' for end in ('0.n', '1', '2'))
        script = (
            'import os, signal, socket\n'
            f'os.chdir("/tmp/remote_runner-{litter.account.uid}")\n'
            f'socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).bind("{said}")\n'
            f'socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).bind("{new}")\n'
            f'listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)\nlistening.bind("{elsewhere}")\n'
            'listening.listen()\nprint(flush=True)\nsignal.pause()\n'
        )
        uid = litter.account.uid
        argv, env = litter.host.entry(['unshare', '-n', 'setpriv', f'--reuid={uid}', 'python3', '-c', script])
        with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b'\n'
                # Somebody else may have seen already that a launcher was killed.
                assert there() - {dead} == {alive, said, new, elsewhere}
                for name in there() - {new}:
                    os.utime(litter.runtime / name, (0, 0))
                litter.deploy('next')
                wait_until(lambda: not there() & {dead, said}, 'the sockets to go')
                assert {alive, new, elsewhere} < there()
            finally:
                process.kill()

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
        assert litter.runs() == litter.base_dirs() == [], shown


    def test_programs_that_fork_while_they_are_ended(self, litter: Litter) -> None:
        forks = '(trap "" TERM HUP; while :; do /bin/sleep 1005 & /bin/sleep 0.01; done) & '
        pid = litter.deploy('forks', executable='/bin/sh', args=['-c', 3 * forks + 'wait'], stop_timeout=0.1).event(
            'component_started'
        )['pid']
        above = ancestors(litter.host, pid)[:3]
        for process in reversed(above):
            kill(litter.host, signal.SIGSTOP, process.pid)
        kill(litter.host, signal.SIGKILL, *[process.pid for process in above])
        gone(litter.host, above)
        wait_until(lambda: not agents(litter.host), 'the deployment to hang up')
        shown = litter.clean('--keep', '0')
        assert outcomes(shown)['program', 'removed'] == 1
        assert [process.argv for process in litter.host.processes() if '1005' in process.argv] == []
        assert litter.runs() == litter.base_dirs() == [], shown


class TestHosts:
    def test_one_out_of_reach(self, litter: Litter) -> None:
        folder = litter.orphan()
        done = litter.run('nobody@h2', '--yes', status=3)
        assert 'nobody@h2' in done.stderr
        assert not folder.exists()
