"""`remote_runner copy`: what stands on the hosts afterwards, and what is said of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pytest

from remote_runner import events as e
from remote_runner.errors import SourcesFailed
from remote_runner.files.limit import Limit, parse_rate
from remote_runner.files.local import LocalFiles
from remote_runner.files.sources import gather
from remote_runner.ui.copied import Summary
from tests.commands import (
    COMMAND,
    PATIENCE,
    Commands,
    Done,
    Running,
    Word,
    alias_of,
    environment,
    nothing_runs,
    ssh_config,
)
from tests.deploying import Deployment
from tests.privileges import unprivileged
from tests.test_files import rubbish
from tests.testbed import Testbed
from tests.testbed.process import wait_until


class Copier(Commands):
    """Somebody in a folder of files, and a folder on the hosts that nobody else has."""

    def __init__(self, bed: Testbed, folder: Path) -> None:
        super().__init__(folder / 'home', bed.ssh_config)
        self.bed = bed
        self.here = folder / 'here'
        self.here.mkdir()
        self.base = f'/tmp/copies-{uuid4().hex}'

    def file(self, name: str, content: str | bytes = 'content\n', mode: int = 0o644) -> Path:
        path = self.here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    def copy(self, hosts: str, *words: Word, status: int | None = 0, **options: Any) -> Done:
        return self.run('copy', '-F', self.ssh_config, hosts, *words, status=status, cwd=self.here, **options)

    def there(self, path: str = '', host: str = 'h1') -> Path:
        return self.bed[host].path(self.base + path)

    def names(self, host: str = 'h1') -> list[str]:
        root = self.there(host=host)
        return sorted(str(path.relative_to(root)) for path in root.rglob('*'))


@pytest.fixture
def copier(bed: Testbed, tmp_path: Path) -> Iterator[Copier]:
    copier = Copier(bed, tmp_path)
    yield copier
    for host in bed.hosts:
        assert rubbish(host, '/tmp') == []
        shutil.rmtree(host.path(copier.base), ignore_errors=True)


class TestWhere:
    @pytest.mark.parametrize(
        ('sources', 'dest', 'expected'),
        [
            (['f'], '/new', ['new']),
            (['f'], '/new/deep', ['new', 'new/deep']),
            (['f'], '/new/', ['new', 'new/f']),
            (['f'], '/there', ['f', 'there/f']),
            (['f', 'g'], '/new', ['new', 'new/f', 'new/g']),
            (['d'], '/new', ['new', 'new/d', 'new/d/e', 'new/d/f', 'new/d/e/f']),
            (['d/'], '/new', ['new', 'new/e', 'new/f', 'new/e/f']),
            (['d/.'], '/new/', ['new', 'new/e', 'new/f', 'new/e/f']),
            (['d/', 'g'], '/new', ['new', 'new/e', 'new/f', 'new/e/f', 'new/g']),
            (['d/e', 'd/f'], '/new', ['new', 'new/e', 'new/e/f', 'new/f']),
            (['d/empty'], '/new', ['new', 'new/empty']),
        ],
    )
    def test_sources_and_dest(self, copier: Copier, sources: list[str], dest: str, expected: list[str]) -> None:
        for name in ('f', 'g', 'd/f', 'd/e/f'):
            copier.file(name, f'this is {name}')
        if sources == ['d/empty']:
            (copier.here / 'd/empty').mkdir()
        for host in ('h1', 'h2'):
            copier.there('/there', host).mkdir(parents=True)
        copier.copy('h[1-2]', *sources, copier.base + dest)
        for host in ('h1', 'h2'):
            wanted = {'there', *(name.replace('f', 'there/f', 1) if name == 'f' else name for name in expected)}
            assert set(copier.names(host)) == wanted

    def test_below_the_home_and_another_ones(self, copier: Copier, bed: Testbed) -> None:
        copier.file('f', 'content')
        name = copier.base.rpartition('/')[2]
        copier.copy('h1', 'f', f'{name}/a')
        copier.copy('h1', 'f', f'~/{name}/b')
        copier.copy('h1', 'f', f'~root/{name}/c')
        copier.copy('h1', 'f', f'./{name}/.')
        home = bed['h1'].path(f'/root/{name}')
        assert sorted(path.name for path in home.iterdir()) == ['a', 'b', 'c', 'f']
        shutil.rmtree(home)

    def test_options_stand_anywhere(self, copier: Copier) -> None:
        copier.file('f')
        copier.file('g')
        copier.copy('h1', '--no-times', 'f', '--links', 'keep', 'g', '--always-copy', copier.base)
        assert copier.names() == ['f', 'g']

    def test_hosts_from_a_file_and_without_some(self, copier: Copier) -> None:
        copier.file('f')
        copier.file('hosts', '# all of them\nh[1-3]\n')
        copier.copy('hosts', 'f', f'{copier.base}/a')
        copier.copy('@hosts', '-x', 'h2', 'f', f'{copier.base}/b')
        assert [copier.names(host) for host in ('h1', 'h2', 'h3')] == [['a', 'b'], ['a'], ['a', 'b']]

    def test_this_machine(self, copier: Copier, tmp_path: Path) -> None:
        copier.file('d/f', 'content')
        copier.copy('localhost', 'd', tmp_path / 'there')
        assert (tmp_path / 'there/d/f').read_text() == 'content'


class TestFaithfully:
    def test_content_bits_times_and_empty_folders(self, copier: Copier) -> None:
        copier.file('d/program', b'\x7fELF' + os.urandom(100), 0o751)
        copier.file('d/private/key', 'secret', 0o600)
        copier.file('d/odd/\udcff \n *', 'odd')
        copier.file('d/large', os.urandom(3_000_000), 0o444)
        copier.file('d/none', b'')
        (copier.here / 'd/empty/deep').mkdir(parents=True)
        for name, bits in {'d/private': 0o700, 'd/empty/deep': 0o1777, 'd/empty': 0o755, 'd': 0o2750}.items():
            (copier.here / name).chmod(bits)
        os.utime(copier.here / 'd/program', ns=(1, 1_234_567_890_123_456_789))
        copier.copy('h[1-2]', 'd', copier.base)
        for host in ('h1', 'h2'):
            assert seen(copier.there('/d', host)) == seen(copier.here / 'd')
        done = copier.copy('h[1-2]', 'd', copier.base, '--json')
        assert [sent['unchanged'] for sent in done.events('files_sent')] == [5, 5]

    def test_folders_that_nobody_may_write_to(self, copier: Copier, deployment: Deployment) -> None:
        copier.file('d/sealed/deep/f')
        (copier.here / 'd/sealed/deep').chmod(0o555)
        (copier.here / 'd/sealed').chmod(0o500)
        where = f'{deployment.user("anne", "h1")}@h1'
        for _ in range(2):
            copier.copy(where, 'd', copier.base)
            assert bits(copier.there('/d/sealed')) == 0o500
            assert bits(copier.there('/d/sealed/deep')) == 0o555
        copier.file('d/sealed/deep/f', 'changed')
        done = copier.copy(where, 'd', copier.base, status=1)
        assert f'cannot write {copier.base}/d/sealed/deep: Permission denied' in done.stderr

    def test_files_that_are_of_somebody_else(self, copier: Copier, deployment: Deployment) -> None:
        copier.file('d/f', mode=0o640)
        where = f'{deployment.user("anne", "h1")}@h1'
        copier.there().mkdir()
        copier.there().chmod(0o1777)
        there = copier.there('/f')
        there.write_text('content\n')
        there.chmod(0o644)
        done = copier.copy(where, 'd/', copier.base, status=1)
        why = 'Operation not permitted'
        assert f'cannot set the permission bits of {copier.base}/f to 0640: {why}\n' in done.stderr
        copier.file('d/f', 'changed')
        done = copier.copy(where, 'd/', copier.base, status=1)
        assert f'cannot write {copier.base}/f: {why}\n' in done.stderr
        assert there.read_text() == 'content\n'

    def test_bits_that_have_changed_since(self, copier: Copier) -> None:
        copier.file('d/sub/f')
        copier.copy('h1', 'd', copier.base)
        (copier.here / 'd/sub').chmod(0o711)
        (copier.here / 'd/sub/f').chmod(0o640)
        done = copier.copy('h1', 'd', copier.base, '--json')
        assert done.event('files_sent')['modes'] == 1
        assert (bits(copier.there('/d/sub')), bits(copier.there('/d/sub/f'))) == (0o711, 0o640)

    def test_dest_itself_stays_as_it_is(self, copier: Copier) -> None:
        copier.file('d/f')
        (copier.here / 'd').chmod(0o700)
        copier.there().mkdir(0o755)
        copier.there().chmod(0o1777)
        copier.copy('h1', 'd/', copier.base)
        assert bits(copier.there()) == 0o1777
        copier.copy('h1', 'd/', f'{copier.base}/new')
        assert bits(copier.there('/new')) == 0o700

    def test_links_are_followed(self, copier: Copier) -> None:
        copier.file('d/f', 'content')
        copier.file('elsewhere/g', 'more')
        (copier.here / 'd/to-file').symlink_to('f')
        (copier.here / 'd/to-folder').symlink_to('../elsewhere')
        (copier.here / 'link').symlink_to('d')
        copier.copy('h1', 'd', 'link', copier.base)
        expected = {'f': 'content', 'to-file': 'content', 'to-folder/g': 'more'}
        for top in ('d', 'link'):
            assert {name: copier.there(f'/{top}/{name}').read_text() for name in expected} == expected
        assert not any(path.is_symlink() for path in copier.there().rglob('*'))

    def test_links_are_kept(self, copier: Copier) -> None:
        copier.file('d/f', 'content')
        (copier.here / 'd/to-file').symlink_to('f')
        (copier.here / 'd/nowhere').symlink_to('../no/where')
        (copier.here / 'd/loop').symlink_to('.')
        (copier.here / 'link').symlink_to('d')
        copier.copy('h1', '--links', 'keep', 'd', 'link', copier.base)
        assert copier.names() == ['d', 'd/f', 'd/loop', 'd/nowhere', 'd/to-file', 'link']
        for name in ('d/to-file', 'd/nowhere', 'd/loop', 'link'):
            assert os.readlink(copier.there(f'/{name}')) == os.readlink(copier.here / name)
        copier.copy('h1', '--links', 'keep', 'link/', f'{copier.base}/in')
        assert not copier.there('/in').is_symlink()
        assert copier.there('/in/f').read_text() == 'content'

    def test_what_is_left_out(self, copier: Copier) -> None:
        for name in ['a.o', 'a.c', 'keep.o', 'build/x', 'sub/build/y', 'sub/b.o', 'top', 'sub/top', '../z.o']:
            copier.file(f'd/{name}')
        patterns = ['--exclude', '*.o', '--exclude', '!keep.o', '--exclude', 'build/', '--exclude', '/top']
        copier.copy('h1', 'd', 'z.o', copier.base, *patterns)
        assert copier.names() == ['d', 'd/a.c', 'd/keep.o', 'd/sub', 'd/sub/top']


class TestWhatIsWrong:
    def test_all_that_is_wrong_here_is_told_at_once_and_nothing_is_touched(self, copier: Copier) -> None:
        copier.file('d/f')
        copier.file('data')
        (copier.here / 'd/dangling').symlink_to('no/where')
        (copier.here / 'd/round').symlink_to('round')
        os.mkfifo(copier.here / 'd/pipe')
        done = copier.copy('h1', 'd', 'dta', copier.base, status=2)
        here = copier.here
        assert done.stderr.splitlines() == [
            'ERROR: this cannot be copied; no host was touched:',
            f'  - the link {here}/d/dangling leads to no/where, where nothing is',
            f'  - {here}/d/pipe is no file, folder or link, but a pipe',
            f'  - cannot read {here}/d/round: Too many levels of symbolic links',
            f'  - cannot read {here}/dta: No such file or directory (there is data beside it)',
        ]
        assert not copier.there().exists()

    def test_a_link_to_a_folder_above_itself(self, copier: Copier) -> None:
        copier.file('d/sub/f')
        (copier.here / 'd/sub/loop').symlink_to('..')
        done = copier.copy('h1', 'd', copier.base, status=2)
        assert f'the link {copier.here}/d/sub/loop leads back to a directory above it' in done.stderr

    def test_what_cannot_be_read_is_told_at_once(self) -> None:
        with TemporaryDirectory() as folder:  # others may not enter those that pytest makes
            here = Path(folder)
            here.chmod(0o755)
            for name in ('a', 'b', 'c', 'd'):
                (here / 'd' / name).mkdir(parents=True)
            for name in ('d/a/loop', 'd/b/loop'):
                (here / name).symlink_to('..')
            for name in ('d/f', 'd/g', 'f'):
                (here / name).touch(0o600)
            for name in ('c', 'd'):
                (here / 'd' / name).chmod(0o700)
            os.mkfifo(here / 'd/z')
            with unprivileged(), pytest.raises(SourcesFailed) as caught:
                gather(LocalFiles(), [f'{here}/d', f'{here}/f'], '/x')
            assert caught.value.faults == (
                f'cannot read {here}/d/f: Permission denied',
                f'cannot read {here}/d/g: Permission denied',
                f'{here}/d/z is no file, folder or link, but a pipe',
                f'the link {here}/d/a/loop leads back to a directory above it',
                f'the link {here}/d/b/loop leads back to a directory above it',
                f'cannot read {here}/d/c: Permission denied',
                f'cannot read {here}/d/d: Permission denied',
                f'cannot read {here}/f: Permission denied',
            )

    def test_where_it_was_begun_is_gone(self, copier: Copier) -> None:
        path = copier.file('f')
        leave = ['sh', '-c', 'mkdir gone; cd gone; rmdir ../gone; exec "$@"', 'sh']

        def copy(*sources: Word) -> Done:
            command = [*leave, *COMMAND, 'copy', '-F', copier.ssh_config, 'h1', *sources, copier.base]
            with Running(command, cwd=copier.here, env=environment(copier.home)) as running:
                return running.end()

        assert copy(path).status == 0
        assert copier.there().read_text() == 'content\n'
        done = copy('f', 'd/')
        assert done.status == 2
        assert done.stderr.splitlines() == [
            'ERROR: this cannot be copied; no host was touched:',
            '  - cannot read f: the folder that this was begun in is gone',
            '  - cannot read d/: the folder that this was begun in is gone',
        ]

    def test_a_locale_of_ascii(self, copier: Copier) -> None:
        copier.file('d/ü')
        variables = {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}
        done = copier.copy('h1', 'd/', f'{copier.base}/ü', '--delete', variables=variables)
        assert done.stdout.startswith('h1: 1 file sent (8 B) in ')
        assert copier.names() == ['ü', 'ü/ü']

    def test_thousands_of_faults(self, copier: Copier) -> None:
        (copier.here / 'd').mkdir()
        for number in range(1050):
            (copier.here / f'd/{number:04}').symlink_to('nowhere')
        done = copier.copy('h1', 'd', copier.base, status=2)
        head, *told, last = done.stderr.splitlines()
        assert head == 'ERROR: this cannot be copied; no host was touched:'
        assert len(told) == 100
        assert told[99] == f'  - the link {copier.here}/d/0099 leads to nowhere, where nothing is'
        assert last == '  … and 950 more'

    @pytest.mark.parametrize('how', [[], ['--always-copy']])
    def test_a_device_stays_one(self, copier: Copier, how: list[str]) -> None:
        copier.file('d/null')
        copier.there().mkdir()
        null = copier.there('/null')
        for name in ('d/null', 'd/'):
            os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            copier.there('/link').symlink_to('null')
            for dest in ('null', 'link') if name == 'd/null' else ('',):
                done = copier.copy('h1', name, f'{copier.base}/{dest}', *how, status=1)
                assert f'{copier.base}/{"link" if dest == "link" and not how else "null"} is a device' in done.stderr
                assert null.is_char_device()
            null.unlink()
            copier.there('/link').unlink()
        (copier.here / 'd/link').symlink_to('nowhere')
        os.mknod(copier.there('/link'), 0o600 | stat.S_IFBLK, os.makedev(7, 0))
        done = copier.copy('h1', 'd/link', copier.base, '--links', 'keep', *how, status=1)
        assert f'ERROR: h1: {copier.base}/link is a device' in done.stderr
        assert copier.there('/link').is_block_device()

    def test_a_file_on_the_way(self, copier: Copier) -> None:
        copier.file('f')
        copier.there().write_text('in the way')
        done = copier.copy('h1', 'f', f'{copier.base}/deep/f', status=1)
        assert f'ERROR: h1: cannot make the folder {copier.base}/deep: {copier.base} is no folder' in done.stderr
        copier.there().unlink()

    def test_a_file_system_without_room_for_another_file(self, copier: Copier) -> None:
        copier.file('d/f')
        host = copier.bed['h1']
        copier.there().mkdir()
        host.run(['mount', '-t', 'tmpfs', '-o', 'size=1M,nr_inodes=1', 'few', copier.base])
        try:
            done = copier.copy('h1', 'd/', copier.base, status=1)
            why = 'No space left on device (8 bytes, no more files can be made there: all inodes are used)'
            assert f'ERROR: h1: cannot write {copier.base}/f: {why}\n' in done.stderr
        finally:
            host.run(['umount', copier.base])

    def test_two_that_would_become_one(self, copier: Copier) -> None:
        for name in ('a/f', 'b/f', 'c/f/g'):
            copier.file(name)
        done = copier.copy('h1', 'a/', 'b/', copier.base, status=2)
        assert f'{copier.here}/a/f and {copier.here}/b/f would both become {copier.base}/f' in done.stderr
        assert 'to be a file' in copier.copy('h1', 'a/', 'c/', copier.base, status=2).stderr
        assert 'to be a folder' in copier.copy('h1', 'c/', 'a/', copier.base, status=2).stderr
        copier.copy('h1', 'a/f', 'a/', copier.base)
        assert copier.names() == ['f']

    @pytest.mark.parametrize(
        ('words', 'told'),
        [
            (['h1', 'f', ''], 'DEST is empty'),
            (['h1', 'f', 'h1:/srv/x'], "DEST 'h1:/srv/x' begins with a host, as for scp (hosts are HOSTS; else ./h1:"),
            (['h1', 'f'], 'required: DEST'),
            (['h1', 'f', 'x', '--bwlimit', 'fast'], "'fast' is no rate"),
            (['h1', 'd', 'x', '--exclude', '['], 'matches nothing'),
            (['h1', '-x', 'h1', 'f', 'x'], 'no host is left (see HOSTS and -x)'),
        ],
    )
    def test_words_that_make_no_sense(self, copier: Copier, words: list[str], told: str) -> None:
        copier.file('f')
        copier.file('d/f')
        assert told in copier.copy(*words, status=2).stderr

    def test_a_host_out_of_reach_stops_no_other(self, copier: Copier) -> None:
        copier.file('f')
        done = copier.copy('h[1-2],no-such-host', 'f', copier.base, status=3)
        assert 'ERROR: no-such-host: the name no-such-host is unknown' in done.stderr
        assert copier.there(host='h1').read_text() == copier.there(host='h2').read_text() == 'content\n'
        *_, last = done.stdout.splitlines()
        assert last.startswith('2 of 3 hosts: 2 files sent (16 B) in ')

    def test_what_is_wrong_here_is_told_also_if_no_host_can_be_reached(self, copier: Copier) -> None:
        copier.file('d/sub/f')
        for json_ in ([], ['--json']):
            done = copier.copy('no-such-host,nor-this', 'd', 'missing', copier.base, *json_, status=2)
            assert 'the name no-such-host is unknown' in done.stderr
            assert f'  - cannot read {copier.here}/missing: No such file or directory\n' in done.stderr
        ended = done.objects[-1]
        assert (ended['event'], ended['exit_status'], len(ended['failed'])) == ('copy_ended', 2, 2)
        copier.copy('no-such-host', 'd', copier.base, '--exclude', '[', status=2)

    def test_a_host_that_cannot_take_it_stops_no_other(self, copier: Copier) -> None:
        copier.file('d/f')
        copier.there(host='h2').write_text('in the way')
        done = copier.copy('h[1-3]', 'd', copier.base, status=1)
        assert f'ERROR: h2: cannot make the folder {copier.base}/d: {copier.base} is no folder' in done.stderr
        assert copier.names('h1') == copier.names('h3') == ['d', 'd/f']
        assert copier.there(host='h2').read_text() == 'in the way'
        copier.there(host='h2').unlink()

    def test_two_names_of_one_machine(self, copier: Copier, bed: Testbed, tmp_path: Path) -> None:
        copier.file('f')
        copier.ssh_config = ssh_config(tmp_path, bed, alias_of(bed, 'h1', 'alias', 'other'))
        done = copier.copy('h1,alias,h2', 'f', copier.base, '--json')
        assert {event['host'] for event in done.events('files_sent')} in ({'h1', 'h2'}, {'alias', 'h2'})
        assert len(done.events('host_merged')) == 1
        assert done.event('copy_ended')['hosts'] == 2


class TestWhatIsSaid:
    def test_equal_hosts_are_one_line(self, copier: Copier) -> None:
        copier.file('d/a', 'a' * 1000)
        copier.file('d/b', 'b' * 1000)
        first = copier.copy('h[1-3]', 'd', copier.base)
        each, total = first.stdout.splitlines()
        assert re.fullmatch(r'h\[1-3\]: 2 files sent \(2\.0 kB\) in [0-9.]+ s', each)
        assert re.fullmatch(r'all hosts: 6 files sent \(6\.0 kB\) in [0-9.]+ s, [0-9.]+ kB/s', total)
        assert first.stderr == ''

    def test_links_that_are_made(self, copier: Copier) -> None:
        copier.file('d/f')
        for name in 'abc':
            (copier.here / 'd' / name).symlink_to('f')
        words = ['h1', 'd', copier.base, '--links', 'keep']
        assert copier.copy(*words).stdout.startswith('h1: 1 file sent (8 B), 3 links made in ')
        (copier.here / 'd/b').unlink()
        (copier.here / 'd/b').symlink_to('nowhere')
        assert copier.copy(*words).stdout.startswith('h1: 1 link made, 1 file unchanged (SHA-1: 1 remembered) in ')
        assert copier.copy(*words, '--json').event('files_sent')['links'] == 0
        assert copier.copy('h1', 'd/a', *words[2:]).stdout.startswith('h1: 1 link made in ')

    def test_a_single_host_needs_no_sum(self, copier: Copier) -> None:
        copier.file('a')
        [line] = copier.copy('h1', 'a', copier.base).stdout.splitlines()
        assert line.startswith('h1: 1 file sent (8 B) in ')

    def test_why_files_were_not_sent(self, copier: Copier) -> None:
        for name in 'abcd':
            copier.file(f'd/{name}', name * 1000)
        copier.copy('h1', 'd', copier.base)
        copier.file('d/a', 'x' * 1000)
        (copier.here / 'd/b').chmod(0o600)
        os.utime(copier.here / 'd/c', (1, 1))
        [line] = copier.copy('h1', 'd', copier.base, '--no-hash-cache').stdout.splitlines()
        expected = '1 file sent (1.0 kB), permission bits of 1 file set, times of 1 file set, 1 file unchanged'
        assert line.startswith(f'h1: {expected} (SHA-1: 3 read) in ')

    def test_hosts_that_share_a_folder_and_one_that_failed(self) -> None:
        summary = Summary()
        for host in ('h1', 'h2', 'h3'):
            summary(e.HostConnecting(host=host))
        sent = {'files': 4, 'modes': 0, 'seconds': 1.0}
        summary(e.FilesSent(host='h2', sent=0, bytes=0, shared=4, shared_with=('h1',), **sent))
        summary(e.FilesSent(host='h1', sent=4, bytes=2000, sent_bytes=500, **sent))
        summary(e.FilesSent(host='h3', sent=4, bytes=2000, sent_bytes=500, **sent))
        summary(e.HostFailed(host='h3', error='cannot delete'))
        values = {'hosts': 3, 'failed': {}, 'exit_status': 1, 'files': 8, 'sent': 4, 'bytes': 0, 'sent_bytes': 0}
        summary(e.CopyEnded(seconds=2.0, **values))
        assert summary.text().splitlines() == [
            'h[1,3]: 4 files sent (2.0 kB, 500 B of it over the wire) in 1.00 s',
            'h2: 4 files shared with h1 in 1.00 s',
            '2 of 3 hosts: 4 files sent (2.0 kB, 500 B of it over the wire) in 2.00 s, 250 B/s',
        ]

    def test_how_much_was_deleted(self, copier: Copier) -> None:
        for name in 'abc':
            copier.file(f'd/{name}', name)
        copier.copy('h1', 'd', copier.base)
        for name in 'ab':
            (copier.here / 'd' / name).unlink()
        [line] = copier.copy('h1', 'd', copier.base, '--delete').stdout.splitlines()
        assert re.match(r'h1: 1 file unchanged \(SHA-1: 1 (read|remembered)\), 2 paths deleted in ', line)
        assert copier.names() == ['d', 'd/c']

    def test_a_remembered_sha1(self, copier: Copier, bed: Testbed) -> None:
        """What has just been written is read once more: its time is no proof yet."""
        copier.file('f', 'content')
        copier.copy('h1', 'f', copier.base)

        def remembers() -> bool:
            sent = copier.copy('h1', 'f', copier.base, '--json').event('files_sent')
            assert (sent['unchanged'], sent['sent']) == (1, 0)
            return bool(sent['hashed'] == 0)

        wait_until(remembers, 'the SHA-1 to be remembered')
        assert '1 file unchanged (SHA-1: 1 remembered)' in copier.copy('h1', 'f', copier.base).stdout

    def test_what_went_over_the_wire_of_a_large_file(self, copier: Copier) -> None:
        path = copier.file('f', os.urandom(4 << 20))
        copier.copy('h1', 'f', copier.base)
        with path.open('r+b') as file:
            file.seek(1 << 20)
            file.write(b'another')
        done = copier.copy('h1', 'f', copier.base, '--json')
        sent = done.event('files_sent')
        assert (sent['sent'], sent['bytes'], sent['sent_bytes']) == (1, 4 << 20, 1 << 16)
        ended = done.event('copy_ended')
        assert done.objects[-1] == ended
        assert {key: ended[key] for key in ('hosts', 'failed', 'exit_status', 'files', 'sent', 'sent_bytes')} == {
            'hosts': 1, 'failed': {}, 'exit_status': 0, 'files': 1, 'sent': 1, 'sent_bytes': 1 << 16
        }  # fmt: skip
        copier.file('f', os.urandom(5 << 20))
        assert '(5.2 MB)' in copier.copy('h1', 'f', copier.base).stdout

    def test_progress_counts_bytes_and_files(self, copier: Copier) -> None:
        for number in range(8):
            copier.file(f'd/{number}', os.urandom(1 << 20))
        done = copier.copy('h1', 'd', copier.base, '--json', '--bwlimit', '8m')
        steps = done.events('files_sending')
        assert {(step['of_bytes'], step['of_files']) for step in steps} == {(8 << 20, 8)}
        for key, whole in (('bytes', 8 << 20), ('files', 8)):
            values = [step[key] for step in steps]
            assert values == sorted(values)
            assert values[-1] == whole
            assert len(set(values)) > 3


class TestDryRun:
    """It is said what a copy would do, and nothing is done."""

    @pytest.fixture
    def before(self, copier: Copier) -> dict[str, dict[bytes, tuple[int, int, bytes | None]]]:
        """Two hosts that lack something of everything; what stands there."""
        for name in ('sent', 'bits', 'time', 'same', 'gone'):
            copier.file(f'd/{name}', f'{name}\n')
        (copier.here / 'd/folder').mkdir()
        (copier.here / 'd/link').symlink_to('same')
        copier.copy('h[1-2]', '--links', 'keep', 'd', copier.base)
        copier.file('d/sent', 'something else')
        (copier.here / 'd/bits').chmod(0o600)
        os.utime(copier.here / 'd/time', ns=(1, 1))
        (copier.here / 'd/gone').unlink()
        (copier.here / 'd/folder').chmod(0o700)
        (copier.here / 'd/new/deep').mkdir(parents=True)
        (copier.here / 'd/link').unlink()
        (copier.here / 'd/link').symlink_to('sent')
        return {host: seen(copier.there(host=host)) for host in ('h1', 'h2')}

    def test_what_would_be_done_is_told_and_then_done(
        self, copier: Copier, before: dict[str, dict[bytes, tuple[int, int, bytes | None]]]
    ) -> None:
        words = ['h[1-2]', 'd', copier.base, '--links', 'keep', '--delete']
        there = f'{copier.base}/d'
        done = copier.copy(*words, '-n')
        assert done.stdout.splitlines() == [
            'h[1-2]: 1 file to send (14 B), 1 link to make, 2 folders to make, times of 1 file to set, '
            'permission bits of 1 file to change, permission bits of 1 folder to change, 1 path to delete, 2 unchanged',
            f'  sends  {there}/sent (14 B)',
            f'  links  {there}/link -> sent',
            f'  makes  {there}/new/',
            f'  makes  {there}/new/deep/',
            f'  deletes  {there}/gone',
            f'  mode   {there}/bits (0600)',
            f'  mode   {there}/folder (0700)',
            f'  time   {there}/time',
        ]
        [shown] = [json.loads(copier.copy(*words, '--dry-run', '--json').stdout)]
        facts = {
            'send': [{'remote': f'{there}/sent', 'size': 14}],
            'modes': [{'remote': f'{there}/bits', 'mode': '0600'}],
            'unchanged': 2,
            'links': [{'remote': f'{there}/link', 'text': 'sent'}],
            'times': [f'{there}/time'],
            'folders': [f'{there}/new', f'{there}/new/deep'],
            'folder_modes': [{'remote': f'{there}/folder', 'mode': '0700'}],
            'delete': [f'{there}/gone'],
            'delete_count': 1,
            'left_alone': [],
        }
        assert shown == {'differences': [{'host': host, **facts} for host in ('h1', 'h2')], 'unreachable': {}}
        assert {host: seen(copier.there(host=host)) for host in before} == before
        sent = copier.copy(*words, '--json').events('files_sent')
        assert [(one['sent'], one['links'], one['modes'], one['times']) for one in sent] == [(1, 1, 1, 1)] * 2
        assert copier.names() == sorted(
            ['d', *(f'd/{name}' for name in ('bits', 'folder', 'link', 'new', 'new/deep', 'same', 'sent', 'time'))]
        )
        assert copier.copy(*words, '-n').stdout == 'h[1-2]: no file to send, 4 unchanged\n'

    def test_all_would_be_sent(self, copier: Copier) -> None:
        copier.file('d/f')
        (copier.here / 'd/sub').mkdir()
        copier.copy('h1', 'd', copier.base)
        told = copier.copy('h1', 'd', copier.base, '-n', '--always-copy').stdout
        assert told == f'h1: 1 file to send (8 B), 0 unchanged\n  sends  {copier.base}/d/f (8 B)\n'

    def test_no_folder_is_made(self, copier: Copier) -> None:
        copier.file('f')
        copier.file('d/f')
        for source, path in (('f', ''), ('d', '/d/f'), ('d/', '/f')):
            assert f'  sends  {copier.base}{path} (8 B)\n' in copier.copy('h1', source, copier.base, '-n').stdout
            assert not copier.there().exists()
        copier.there().mkdir()
        assert f'  sends  {copier.base}/f (8 B)\n' in copier.copy('h1', 'f', copier.base, '-n').stdout

    def test_what_was_interrupted_stays_to_be_gone_on_with(self, copier: Copier) -> None:
        copier.file('f', os.urandom(8 << 20))
        command = ['copy', '-F', copier.ssh_config, 'h1', 'f', copier.base, '--json', '--bwlimit', '1m']
        with copier.start(*command, cwd=copier.here) as running:
            wait_until(lambda: bool(came(running.out, 'h1')), '2 MB')
            running.signal(signal.SIGINT)
            running.end()
        [left] = rubbish(copier.bed['h1'], '/tmp')
        copier.file('other')
        for source in ('f', 'other'):
            copier.copy('h1', source, copier.base, '-n')
            assert rubbish(copier.bed['h1'], '/tmp') == [left]
        assert copier.copy('h1', 'f', copier.base, '--json').event('files_sent')['sent_bytes'] <= 7 << 20

    def test_a_folder_that_hosts_share_gets_no_mark(self, fresh_bed: Callable[..., Testbed], tmp_path: Path) -> None:
        bed = fresh_bed(2)
        there = tmp_path / 'there'
        there.mkdir()
        for host in bed.hosts:
            host.share('/srv/all', there)
        os.utime(there, ns=(1, 1))
        copier = Copier(bed, tmp_path)
        copier.file('d/f')
        told = copier.copy('h[1-2]', 'd/', '/srv/all', '-n').stdout
        assert told == 'h[1-2]: 1 file to send (8 B), 0 unchanged\n  sends  /srv/all/f (8 B)\n'
        assert there.stat().st_mtime_ns == 1
        assert list(there.iterdir()) == []

    def test_what_a_copy_would_end_with(self, copier: Copier) -> None:
        copier.file('d/f')
        copier.there('/d/f').mkdir(parents=True)
        done = copier.copy('h1,h3', 'd', copier.base, '-n', status=1)
        assert f'ERROR: h1: {copier.base}/d/f is a folder there, and a file here' in done.stderr
        assert done.stdout.startswith('h3: 1 file to send (8 B)')
        done = copier.copy('h3,no-such-host', 'd', copier.base, '-n', '--json', status=3)
        shown = json.loads(done.stdout)
        assert [each['host'] for each in shown['differences']] == ['h3']
        assert list(shown['unreachable']) == ['no-such-host']
        copier.copy('h3', 'd/', '/etc', '-n', '--delete', status=2)


class TestLimited:
    def test_all_hosts_together_stay_below_the_rate(self, copier: Copier) -> None:
        copier.file('f', os.urandom(1 << 20))
        begun = time.monotonic()
        copier.copy('h[1-3]', 'f', copier.base, '--bwlimit', '2m')
        assert time.monotonic() - begun > 1.2  # 3 MB at 2 MB/s, the first part at once
        for host in ('h1', 'h2', 'h3'):
            assert copier.there(host=host).read_bytes() == (copier.here / 'f').read_bytes()

    def test_compressed(self, copier: Copier) -> None:
        copier.file('d/text', 'some text, ' * 300_000)
        copier.file('d/random', os.urandom(3_000_000))
        copier.copy('h1', '-C', 'd', copier.base)
        assert seen(copier.there('/d')) == seen(copier.here / 'd')

    def test_none(self, copier: Copier) -> None:
        copier.file('f', os.urandom(1 << 20))
        copier.copy('h1', 'f', copier.base, '--bwlimit', '0')
        assert copier.there().read_bytes() == (copier.here / 'f').read_bytes()

    def test_ctrl_c_is_heard_while_waiting_and_what_came_is_gone_on_with(self, copier: Copier, bed: Testbed) -> None:
        copier.file('f', os.urandom(8 << 20))
        command = ['copy', '-F', copier.ssh_config, 'h[1-2]', 'f', copier.base, '--json', '--bwlimit', '1m']
        with copier.start(*command, cwd=copier.here) as running:
            wait_until(lambda: bool(came(running.out, 'h1') and came(running.out, 'h2')), '2 MB on both hosts')
            running.signal(signal.SIGINT)
            done = running.end()
        assert done.status == 130
        assert done.stderr.endswith('ERROR: interrupted\n')
        ended = done.event('copy_ended')
        assert (ended['exit_status'], ended['sent']) == (130, 0)
        assert (ended['hosts'], ended['failed']) == (2, {'h1': 'interrupted', 'h2': 'interrupted'})
        assert 4 << 20 < ended['sent_bytes'] < 16 << 20
        for host in ('h1', 'h2'):
            assert not copier.there(host=host).exists()
            nothing_runs(bed[host])
        again = copier.copy('h[1-2]', 'f', copier.base, '--json')
        for sent in again.events('files_sent'):
            assert sent['sent_bytes'] <= 7 << 20
        assert copier.there().read_bytes() == (copier.here / 'f').read_bytes()

    @pytest.mark.parametrize(
        ('text', 'rate'),
        [
            ('100', 102400), ('1.5m', 1.5 * (1 << 20)), ('1.5MiB', 1.5 * (1 << 20)), ('2mb', 2e6), ('3K', 3072),
            ('3kb', 3000), ('512b', 512), ('1g', 1 << 30), ('.5k', 512), ('0', 0),
        ],
    )  # fmt: skip
    def test_rates(self, text: str, rate: float) -> None:
        assert parse_rate(text) == rate

    @pytest.mark.parametrize('text', ['', 'x', '-1', '1x', '1 m', '1e3', '1mm', 'm', 'inf', '1ib'])
    def test_no_rates(self, text: str) -> None:
        with pytest.raises(ValueError, match='is no rate'):
            parse_rate(text)

    def test_who_waits_is_let_go(self) -> None:
        limit = Limit(1.0)
        limit(1000)
        waiting = threading.Thread(target=limit, args=(1,), daemon=True)
        waiting.start()
        limit.end()
        waiting.join(PATIENCE)
        assert not waiting.is_alive()


def came(out: bytes, host: str) -> list[dict[str, Any]]:
    """The progress of a host beyond 2 MB, from `--json`."""
    events = [json.loads(line) for line in out.splitlines(keepends=True) if line.endswith(b'\n')]
    return [one for one in events if one['event'] == 'files_sending' and one['host'] == host and one['bytes'] > 2 << 20]


def bits(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def seen(top: Path) -> dict[bytes, tuple[int, int, bytes | None]]:
    """All in a folder and itself: bits, and of files time and content."""
    found: dict[bytes, tuple[int, int, bytes | None]] = {}
    for path in (top, *top.rglob('*')):
        name = os.fsencode(os.path.relpath(path, top))
        status = path.stat()
        is_folder = path.is_dir()
        content = None if is_folder else path.read_bytes()
        found[name] = (stat.S_IMODE(status.st_mode), 0 if is_folder else status.st_mtime_ns, content)
    return found
