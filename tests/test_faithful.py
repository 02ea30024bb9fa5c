"""RR4: files arrive as they are, and interrupted copies are gone on with: on real hosts, over real SSH."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote_runner.errors import ConnectionLost, TransferFailed
from remote_runner.files.delta import BLOCK
from remote_runner.files.manifest import Placed
from remote_runner.hosts.address import parse_address
from remote_runner.hosts.connection import Connection
from remote_runner.hosts.host import Host
from remote_runner.hosts.ssh import Connector
from remote_runner.hosts.ssh_config import SshOptions
from tests.bringing import MTIME, Lab, facts, mode, placed, rubbish, write
from tests.commands import ROOT, Site, component
from tests.deploying import agents
from tests.test_files import ODD_NAMES
from tests.testbed import Testbed, TestHost
from tests.testbed.process import wait_until

Beds = Callable[..., Testbed]
MB = 1 << 20


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


class Remote(Lab):
    """A lab whose `there` is the folder `path` of a host.

    Args:
        folder: ours.
        bed: whose host it is.
        name: of the host, with the user.
    """

    def __init__(self, folder: Path, bed: Testbed, name: str, path: str) -> None:
        super().__init__(folder)
        self.host: TestHost = bed[name.rpartition('@')[2]]
        self.path = path
        self._bed = bed
        self._name = name
        self.there = self.host.path(path)
        self.connect = self._connect

    def _connect(self) -> Connection:
        with Connector(SshOptions(config_file=str(self._bed.ssh_config))) as connector:
            return connector.connect(parse_address(self._name))

    def placed(self) -> list[Placed]:
        """All of `here`."""
        return placed(self.here, self.path)

    def wait_for(self, host: Host | None = None) -> None:
        """Wait for the end of its agents."""
        wait_until(lambda: not agents(self.host), 'the end of the agent')

    def rubbish(self) -> list[str]:
        home = self.host.path('/root')
        return rubbish(self.there, home / '.cache')


@pytest.fixture
def lab(bed: Testbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    """A folder of h1 that nobody else has."""
    lab = Remote(tmp_path / 'lab', bed, 'h1', f'/tmp/faithful-{uuid.uuid4().hex}')
    monkeypatch.setenv('XDG_CACHE_HOME', str(lab.home / '.cache'))
    lab.there.mkdir()
    yield lab
    lab.wait_for()
    shutil.rmtree(lab.there)


@pytest.fixture
def site(bed: Testbed, tmp_path: Path) -> Iterator[Site]:
    with Site(bed, tmp_path) as site:
        yield site


def bring(lab: Remote) -> int:
    """Bring all of `here`; how many bytes were sent."""
    return lab.bring(lab.placed()).sent


class TestTrees:
    def test_any_names_links_modes_and_times_by_the_command(self, site: Site, bed: Testbed) -> None:
        base = f'/tmp/base-{site.session}'
        data = site.folder / 'data'
        for number, raw in enumerate(ODD_NAMES):
            name = os.fsdecode(raw)
            write(data / 'sub' / name / name, raw, 0o600 + number, MTIME + number)
            os.symlink(name, data / 'sub' / name / (name[:200] + ' link'))
        (data / 'empty/deeper').mkdir(parents=True)
        write(data / 'nothing', '', 0o444, -1)
        write(data / 'large', noise(2 * MB), 0o4750)
        os.symlink('nowhere', data / 'dangling')
        os.symlink('empty', data / 'to-folder')
        line = (
            f"config.add_component(Component(name='x', host='h1', base_dir={base!r}, executable='/bin/sleep',"
            " args=[100000], files=util.recursive_files_dict('data', 'tree', links='keep')))"
        )
        site.write(line)
        there = bed['h1'].path(f'{base}/tree')
        try:
            site.deploy(umask=0o077)
            assert facts(there) == facts(data)
            done = site.deploy(umask=0)
            assert done.event('files_compared')['to_send'] == 0
            assert facts(there) == facts(data)
            for path in (data / 'large', data / 'nothing'):
                path.chmod(0o604)
                os.utime(path, ns=(5, 5))
            sent = site.deploy().event('files_sent')
            assert (sent['sent'], sent['modes']) == (0, 2)
            assert facts(there) == facts(data)
            # Times do not matter any more, to nobody.
            os.utime(data / 'large', ns=(7, 7))
            assert site.deploy('--no-times').event('files_compared')['to_send'] == 0
            assert (there / 'large').stat().st_mtime_ns == 5
        finally:
            shutil.rmtree(bed['h1'].path(base), ignore_errors=True)

    @pytest.mark.parametrize('umask', ['0077', '0000'])
    def test_umasks_of_hosts(self, bed: Testbed, lab: Remote, umask: str) -> None:
        """That of the login shell is what files and folders are made under that nobody gave bits."""
        user = f'mask{umask}'
        home = bed['h1'].add_user(user)
        bed['h1'].path(home).joinpath('.bashrc').write_text(f'umask {umask}\n')
        own = Remote(lab.folder, bed, f'{user}@h1', f'{home}/new')
        for bits in (0o644, 0o755, 0o600, 0o444, 0o4755, 0o1777):
            write(own.here / f'{bits:o}/{bits:o}', f'{bits:o}', bits)
            write(own.here / f'{bits:o}/large', noise(MB, bits), bits)
            (own.here / f'{bits:o}').chmod(bits | 0o700)
        own.bring(own.placed())
        assert facts(own.there) == facts(own.here)
        for folder in own.here.iterdir():
            assert mode(own.there / folder.name) == mode(folder)
        assert mode(own.there) == 0o777 & ~int(umask, 8)
        assert {path.stat().st_uid for path in own.there.rglob('*')} == {bed['h1'].account(user).uid}

    def test_one_source_for_targets_on_many_hosts(self, site: Site, bed: Testbed) -> None:
        base = f'/tmp/base-{site.session}'
        write(site.folder / 'large', noise(3 * MB), 0o750)
        targets = ('one', 'two/large')
        files = {f'{"./" * number}large': target for number, target in enumerate(targets)}
        site.write(*[component('x', host.name, base_dir=base, files=files) for host in bed.hosts])
        try:
            done = site.deploy()
            assert [event['sent'] for event in done.events('files_sent')] == [2, 2, 2]
            for host in bed.hosts:
                for target in targets:
                    there = host.path(f'{base}/{target}')
                    assert there.read_bytes() == noise(3 * MB)
                    assert (mode(there), there.stat().st_mtime_ns) == (0o750, MTIME)
        finally:
            for host in bed.hosts:
                shutil.rmtree(host.path(base), ignore_errors=True)


class TestNotAllowed:
    WHAT = ('small', 'large', 'link', 'folder', 'below')

    @pytest.mark.parametrize('what', WHAT)
    def test_a_folder_that_is_read_only(self, bed: Testbed, lab: Remote, what: str) -> None:
        user = f'reader-{what}'
        home = bed['h1'].add_user(user)
        own = Remote(lab.folder, bed, f'{user}@h1', f'{home}/closed')
        own.there.mkdir()
        write(own.there / 'file', 'old', 0o444)
        if what == 'small':
            write(own.here / 'file', 'new')
        elif what == 'large':
            write(own.here / 'file', noise(2 * MB))
        elif what == 'link':
            os.symlink('elsewhere', own.here / 'file')
        elif what == 'folder':
            (own.here / 'new').mkdir()
        else:
            write(own.here / 'new/file')
        with pytest.raises(TransferFailed) as caught:
            own.bring(own.placed())
        assert f'{home}/closed' in str(caught.value)
        assert 'ermission denied' in str(caught.value)
        assert [path.name for path in own.there.iterdir()] == ['file']
        assert (own.there / 'file').read_text() == 'old'
        assert rubbish(bed['h1'].path(home)) == []

    def test_a_file_of_somebody_else(self, bed: Testbed, lab: Remote) -> None:
        """In a folder of ours it is replaced; its mode alone cannot be changed, and its time does not matter."""
        home = bed['h1'].add_user('other')
        own = Remote(lab.folder, bed, 'other@h1', f'{home}/open')
        own.there.mkdir()
        bed['h1'].run(['chown', 'other', f'{home}/open'])
        write(own.there / 'same', 'same', mtime=MTIME - 1)
        write(own.there / 'file', 'old')
        write(own.here / 'same', 'same')
        write(own.here / 'file', 'new', 0o640)
        own.bring(own.placed())
        assert ((own.there / 'file').read_text(), mode(own.there / 'file')) == ('new', 0o640)
        assert (own.there / 'file').stat().st_uid == bed['h1'].account('other').uid
        assert (own.there / 'same').stat().st_mtime_ns == MTIME - 1
        (own.here / 'same').chmod(0o600)
        with pytest.raises(TransferFailed, match=re.escape(f'{home}/open/same')):
            own.bring(own.placed())


MASTER = """
import os, signal, sys
from pathlib import Path
from tests.test_faithful import Remote
from tests.testbed import Testbed
bed = Testbed.open(sys.argv[1])
lab = Remote(Path(sys.argv[2]), bed, 'h1', sys.argv[3])
sent = 0

def limit(size):
    global sent
    sent += size
    if sent > int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

lab.limit = limit
lab.bring(lab.placed())
"""


class TestInterrupted:
    SIZE = 64 * MB

    def interrupt(self, bed: Testbed, lab: Remote, how: str) -> None:
        """Begin to bring, until 20 MB are on the way."""
        if how == 'the master is killed':
            # Its connection is gone with it, and its agent ends in its own time.
            command = [sys.executable, '-c', MASTER, bed.name, str(lab.folder), lab.path, str(20 * MB)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == -signal.SIGKILL, done.stderr
            lab.wait_for()
            return
        hosts: list[Host] = []
        sent = 0

        def limit(length: int) -> None:
            nonlocal sent
            sent += length
            if sent > 20 * MB >= sent - length:
                if how == 'the agent is killed':
                    lab.host.run(['kill', '-KILL', str(hosts[0].facts.pid)])
                else:
                    lab.host.stop_sshd(sessions=True)

        lab.met, lab.limit = hosts.append, limit
        with pytest.raises(ConnectionLost):
            lab.bring(lab.placed())
        lab.limit = lambda size: None
        if 'sshd' in how:
            lab.host.start_sshd()

    @pytest.mark.parametrize('how', ['the agent is killed', 'the master is killed', 'sshd is killed'])
    def test_the_next_run_sends_what_is_missing(
        self, fresh_bed: Beds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        bed = fresh_bed()
        lab = Remote(tmp_path / 'lab', bed, 'h1', '/root/data')
        monkeypatch.setenv('XDG_CACHE_HOME', str(lab.home / '.cache'))
        write(lab.here / 'large', noise(self.SIZE), 0o751)
        write(lab.there / 'large', 'old')
        self.interrupt(bed, lab, how)
        [copy] = [path for path in lab.there.iterdir() if path.name.startswith('.rr-')]
        came = copy.stat().st_size
        assert came > 10 * MB
        assert (lab.there / 'large').read_text() == 'old'
        assert self.SIZE - came <= bring(lab) <= self.SIZE - came + BLOCK
        lab.is_equal()
        assert bring(lab) == 0


class TestNoRoom:
    def test_the_message_says_what_is_free_and_what_was_interrupted_goes_first(
        self, fresh_bed: Beds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bed = fresh_bed()
        bed['h1'].tmpfs('/root/small', '8M')
        lab = Remote(tmp_path / 'lab', bed, 'h1', '/root/small/data')
        monkeypatch.setenv('XDG_CACHE_HOME', str(lab.home / '.cache'))
        lab.there.mkdir()
        write(lab.there / 'file', noise(2 * MB))
        write(lab.here / 'file', noise(9 * MB, 2))
        with pytest.raises(TransferFailed) as caught:
            bring(lab)
        found = re.search(rf'/root/small/data/file: (.*) \({9 * MB} bytes, (\d+) are free there\)', str(caught.value))
        assert found
        assert found[1] == 'No space left on device'
        assert 5 * MB < int(found[2]) <= 6 * MB  # what our own copy took is free again
        assert (lab.there / 'file').read_bytes() == noise(2 * MB)
        assert lab.rubbish() == []
        # A copy that was interrupted and that nobody wants any more gives its room to what is wanted.
        write(lab.here / 'file', noise(5 * MB, 3))
        hosts: list[Host] = []
        sent = 0

        def limit(length: int) -> None:
            nonlocal sent
            sent += length
            if sent > 4 * MB >= sent - length:
                lab.host.run(['kill', '-KILL', str(hosts[0].facts.pid)])

        lab.met, lab.limit = hosts.append, limit
        with pytest.raises(ConnectionLost):
            bring(lab)
        assert len(lab.copies()) == 1
        lab.limit = lambda size: None
        (lab.here / 'file').unlink()
        write(lab.here / 'elsewhere/other', noise(5 * MB, 4))
        assert bring(lab) == 5 * MB
        assert (lab.there / 'elsewhere/other').read_bytes() == noise(5 * MB, 4)
        assert lab.rubbish() == []


def test_a_file_system_that_is_read_only(fresh_bed: Beds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bed = fresh_bed()
    bed['h1'].tmpfs('/root/fixed', '8M')
    lab = Remote(tmp_path / 'lab', bed, 'h1', '/root/fixed')
    monkeypatch.setenv('XDG_CACHE_HOME', str(lab.home / '.cache'))
    write(lab.there / 'file', 'old')
    bed['h1'].run(['mount', '-o', 'remount,ro', '/root/fixed'])
    write(lab.here / 'file', 'new')
    for size in (3, MB):
        write(lab.here / 'file', noise(size))
        with pytest.raises(TransferFailed, match=r'/root/fixed.*Read-only file system'):
            bring(lab)
    assert (lab.there / 'file').read_text() == 'old'
    assert stat.S_ISREG((lab.there / 'file').stat().st_mode)
