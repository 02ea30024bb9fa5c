"""RR4, RR11: what stands on the hosts after a deployment, and what does not, whatever happens on the way."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import stat
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from remote_runner.config.loader import load
from remote_runner.config.settings import Settings
from remote_runner.deploy.plan import make_plan
from remote_runner.deploy.run import RunOptions, deploy
from remote_runner.events import Events
from remote_runner.hosts.host import Host
from remote_runner.hosts.ssh import Connector
from remote_runner.hosts.ssh_config import SshOptions
from tests.commands import Done, Site, component, eventually_exists
from tests.deploying import the_agent
from tests.testbed import Testbed, TestHost
from tests.testbed.process import wait_until

Beds = Callable[..., Testbed]


@pytest.fixture
def site(bed: Testbed, tmp_path: Path) -> Iterator[Site]:
    with Site(bed, tmp_path) as site:
        yield site


@pytest.fixture
def base(site: Site, bed: Testbed) -> Iterator[str]:
    """A path on the hosts that nobody else has."""
    path = f'/tmp/base-{site.session}'
    yield path
    for host in bed.hosts:
        shutil.rmtree(host.path(path), ignore_errors=True)


def tree(folder: Path) -> dict[bytes, tuple[int, bytes | None]]:
    """All below a folder, links followed: mode and content; None for folders, whose mode is not ours."""
    found: dict[bytes, tuple[int, bytes | None]] = {}
    root = os.fsencode(folder)
    for path, folders, files in os.walk(root, followlinks=True):
        for name in folders:
            found[os.path.relpath(os.path.join(path, name), root)] = (0, None)
        for name in files:
            file = os.path.join(path, name)
            with open(file, 'rb') as stream:
                found[os.path.relpath(file, root)] = (stat.S_IMODE(os.stat(file).st_mode), stream.read())
    return found


def rubbish(host: TestHost, *folders: str) -> list[str]:
    """What copying left under names of its own."""
    found = host.run(['find', *folders, '-name', '.rr-*'], check=False).stdout
    return found.decode().splitlines()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestWhere:
    def test_relative_absolute_and_home(self, site: Site, bed: Testbed, base: str) -> None:
        for name in 'abcdef':
            site.file(f'local/{name}', f'this is {name}')
        absolute = site.file('elsewhere/g', 'this is g')
        files = {
            'local/a': 'a',
            'local/b': 'new/deep/b',
            'local/c': f'{base}/absolute/c',
            'local/d': f'~/home-{site.session}/d',
            './local/e': './new/../e',
            'local/../local/f': '../base-f',
            str(absolute): 'g',
        }
        site.write(component('x', 'h1', base_dir=f'{base}/dir', files=files))
        done = site.deploy(cwd='/')
        assert done.event('files_sent')['sent'] == 7
        there = [
            f'{base}/dir/a',
            f'{base}/dir/new/deep/b',
            f'{base}/absolute/c',
            f'/root/home-{site.session}/d',
            f'{base}/dir/e',
            f'{base}/base-f',
            f'{base}/dir/g',
        ]
        for name, path in zip('abcdefg', there, strict=True):
            assert bed['h1'].path(path).read_text() == f'this is {name}'
        shutil.rmtree(bed['h1'].path(f'/root/home-{site.session}'))

    def test_a_program_runs_in_its_base_dir_from_there(self, site: Site, bed: Testbed, base: str) -> None:
        program = '#!/bin/sh\necho "$0 $(pwd)" >"$1"; exec sleep 100000\n'
        site.file('programs/one', program, 0o755)
        name = f'dir-{site.session}'
        here = {'programs/one': 'bin/one'}
        elsewhere = f'~/{name}/one'
        site.write(
            component('absolute', 'h1', 'bin/one', ['seen'], base_dir=f'{base}/a', files=here),
            component('relative', 'h1', 'bin/one', ['seen'], base_dir=f'{name}/b', files=here),
            component('home', 'h1', './bin/one', ['seen'], base_dir=f'~/{name}/c', files=here),
            component('elsewhere', 'h1', elsewhere, ['seen'], base_dir=f'{base}/d', files={'programs/one': elsewhere}),
            component('above', 'h1', f'{base}/a/bin/one', ['seen'], base_dir=f'{base}/e'),
        )  # fmt: skip
        site.deploy()
        expected = {
            f'{base}/a': f'{base}/a/bin/one',
            f'/root/{name}/b': f'/root/{name}/b/bin/one',
            f'/root/{name}/c': f'/root/{name}/c/bin/one',
            f'{base}/d': f'/root/{name}/one',
            f'{base}/e': f'{base}/a/bin/one',
        }
        for folder, program in expected.items():
            seen = eventually_exists(bed['h1'].path(f'{folder}/seen')).read_text()
            executable, where = seen.split()
            assert (os.path.normpath(os.path.join(folder, executable)), where) == (program, folder)
        shutil.rmtree(bed['h1'].path(f'/root/{name}'))

    def test_without_base_dir_each_has_a_fresh_temporary_one(self, site: Site, bed: Testbed) -> None:
        site.file('data')
        script = f'pwd >>/tmp/seen-{site.session}; cat data && exec sleep 100000'
        site.write(
            *[
                component(name, host, '/bin/sh', ['-c', script], files={'data': 'data'})
                for name, host in [('a', 'h1'), ('b', 'h1'), ('a', 'h2')]
            ]
        )
        seen = [bed[host].path(f'/tmp/seen-{site.session}') for host in ('h1', 'h2')]
        for run in (1, 2):
            site.deploy()
            wait_until(lambda run=run: seen[0].read_text().count('\n') == 2 * run, 'both wrote')  # type: ignore[misc]
        eventually_exists(seen[1])
        folders = seen[0].read_text().split()
        assert len(set(folders)) == 4
        for folder in folders:
            there = bed['h1'].path(folder)
            assert (there / 'data').read_text() == 'content\n'
            assert mode(there) == 0o700
            assert not bed['h2'].path(folder).exists()
            shutil.rmtree(there)

    def test_an_executable_is_sent_only_if_it_stands_in_files(self, site: Site, bed: Testbed, base: str) -> None:
        program = site.file('program', '#!/bin/sh\nexec sleep 100000\n', 0o755)
        site.write(component('x', 'h1', 'program', base_dir=base))
        done = site.deploy(status=1)
        assert done.event('component_failed')['component'] == 'x'
        assert f'{base}/program' in done.stderr
        assert not done.events('files_sent')
        assert not bed['h1'].path(f'{base}/program').exists()
        assert not Path(base).exists()
        site.write(component('x', 'h1', 'program', base_dir=base, files={str(program): 'program'}))
        site.deploy()


ODD_NAMES = [
    b'with space', b"quo'te", b'"double"', b'new\nline', b'-dash', b'--help', b'$HOME', b'`id`', b'*', b'?', b'[a]',
    b'~', b'#hash', b'back\\slash', b'tab\t', b'\x01\x1b[1m', 'größe→'.encode(), b'not utf-8 \xff\xc3', b'%s %d',
    b'x' * 255, b'.hidden', b'a|b&c;d', b'{x}', b'\x80', b' ', b'trailing ',
]  # fmt: skip


class TestFolders:
    def test_a_folder_is_created_without_what_is_in_it(self, site: Site, bed: Testbed, base: str) -> None:
        site.file('full/content')
        (site.folder / 'empty').mkdir()
        files = {'empty': 'made/empty', 'full': 'made/full', site.folder / 'full': f'{base}/absolute'}
        site.write(component('x', 'h1', base_dir=base, files={str(key): value for key, value in files.items()}))
        site.deploy()
        made = bed['h1'].path(base)
        assert sorted(str(path.relative_to(made)) for path in made.rglob('*')) == [
            'absolute', 'made', 'made/empty', 'made/full'
        ]  # fmt: skip
        (made / 'made/full/theirs').write_text('stays')
        site.deploy()
        assert (made / 'made/full/theirs').read_text() == 'stays'

    def test_a_folder_where_a_file_is(self, site: Site, bed: Testbed, base: str) -> None:
        (site.folder / 'empty').mkdir()
        site.write(component('x', 'h1', base_dir=base, files={'empty': 'taken'}))
        there = bed['h1'].path(base)
        there.mkdir()
        (there / 'taken').write_text('a file')
        done = site.deploy(status=1)
        assert f'{base}/taken' in done.stderr
        assert 'h1' in done.stderr
        assert (there / 'taken').read_text() == 'a file'

    def test_a_whole_tree_with_any_names(self, site: Site, bed: Testbed, base: str) -> None:
        data = site.folder / 'data'
        for number, name in enumerate(ODD_NAMES):
            folder = os.path.join(os.fsencode(data), b'sub', name)
            os.makedirs(folder)
            with open(os.path.join(folder, name), 'wb') as file:
                file.write(b'content of ' + name)
            os.chmod(os.path.join(folder, name), 0o600 + number)
        (data / 'empty/deeper').mkdir(parents=True)
        site.file('data/target', 'linked to', 0o640)
        (data / 'link').symlink_to('target')
        (data / 'folder-link').symlink_to('sub')
        files = "util.recursive_files_dict('data', 'tree')"
        site.write(
            f"config.add_component(Component(name='x', host='h1', base_dir={base!r}, files={files},"
            " executable='/bin/sleep', args=[100000]))"
        )
        count = len(ODD_NAMES) * 2 + 2
        done = site.deploy()
        assert done.event('files_sent')['sent'] == count
        assert tree(bed['h1'].path(f'{base}/tree')) == tree(data)
        before = {path: path.stat() for path in bed['h1'].path(base).rglob('*')}
        done = site.deploy()
        assert done.event('files_compared')['files'] == count
        assert done.event('files_compared')['to_send'] == 0
        assert {path: path.stat() for path in bed['h1'].path(base).rglob('*')} == before


class TestComparing:
    def test_what_differs_is_sent_and_nothing_else(self, site: Site, bed: Testbed, base: str) -> None:
        names = ['same', 'longer', 'shorter', 'content', 'mode', 'both', 'missing', 'touched', 'theirs', 'emptied']
        for name in [*names, 'empty']:
            site.file(name, '' if name == 'empty' else 'the same length')
        names.append('empty')
        site.write(component('x', 'h1', base_dir=base, files={name: name for name in names}))
        done = site.deploy()
        assert done.event('files_sent')['sent'] == len(names)
        there = {name: bed['h1'].path(f'{base}/{name}') for name in names}
        assert {mode(path) for path in there.values()} == {0o644}
        for path in there.values():
            os.utime(path, ns=(10**18, 10**18))
        before = {name: path.stat() for name, path in there.items()}

        site.file('longer', 'the same length no more')
        site.file('shorter', 'the')
        site.file('content', 'THE SAME LENGTH')
        site.file('emptied', '')
        (site.folder / 'mode').chmod(0o751)
        site.file('both', 'both: same size', 0o600)
        there['missing'].unlink()
        there['theirs'].write_text('they changed it')
        os.utime(there['theirs'], ns=(10**18, 10**18))
        there['touched'].touch()
        before['touched'] = there['touched'].stat()
        done = site.deploy()
        sent = {'longer', 'shorter', 'content', 'both', 'missing', 'theirs', 'emptied'}
        compared, finished = done.event('files_compared'), done.event('files_sent')
        assert (compared['files'], compared['to_send']) == (len(names), len(sent))
        assert (finished['sent'], finished['modes']) == (len(sent), 1)
        for name, path in there.items():
            assert path.read_bytes() == (site.folder / name).read_bytes()
            assert mode(path) == mode(site.folder / name)
            now = path.stat()
            if name not in sent:
                assert now.st_ino == before[name].st_ino, name
            assert now.st_mtime_ns == (site.folder / name).stat().st_mtime_ns, name

        before = {name: path.stat() for name, path in there.items()}
        done = site.deploy('--always-copy')
        assert done.event('files_sent')['sent'] == len(names)
        for name, path in there.items():
            assert path.stat().st_ino != before[name].st_ino
            assert path.read_bytes() == (site.folder / name).read_bytes()

    def test_permission_bits_whatever_the_umasks(self, site: Site, bed: Testbed) -> None:
        modes = [0o644, 0o755, 0o600, 0o444, 0o666, 0o777, 0o4755, 0o2755, 0o1644, 0o111]
        for number in modes:
            site.file(f'{number:o}', f'{number:o}', number)
        home = bed['h1'].add_user('strict')
        bed['h1'].path(home).joinpath('.bashrc').write_text('umask 0077\n')
        files = {f'{number:o}': f'files/{number:o}' for number in modes}
        site.write(component('x', 'strict@h1', base_dir='umasks', files=files))
        done = site.deploy(umask=0o027)
        assert done.event('files_sent')['sent'] == len(modes)
        there = bed['h1'].path(f'{home}/umasks/files')
        assert {path.name: f'{mode(path):o}' for path in there.iterdir()} == {f'{n:o}': f'{n:o}' for n in modes}
        bed['h1'].path(home).joinpath('.bashrc').write_text('umask 0000\n')
        done = site.deploy('--always-copy')
        assert {path.name: f'{mode(path):o}' for path in there.iterdir()} == {f'{n:o}': f'{n:o}' for n in modes}

    def test_a_large_file_in_little_memory(self, site: Site, bed: Testbed, base: str) -> None:
        block = os.urandom(1 << 20)
        local = site.folder / 'large'
        with local.open('wb') as file:
            for number in range(100):
                file.write(number.to_bytes(8, 'big') + block[8:])
        site.write(component('x', 'h1', base_dir=base, files={'large': 'large'}))
        done = site.deploy()
        with local.open('rb') as one, bed['h1'].path(f'{base}/large').open('rb') as other:
            assert hashlib.file_digest(one, 'sha1').digest() == hashlib.file_digest(other, 'sha1').digest()
        assert done.event('files_sent')['bytes'] == 100 << 20
        assert 20 < done.peak < 100
        progress = [event['bytes'] for event in done.events('files_sending')]
        assert progress == sorted(progress)
        assert progress[-1] == 100 << 20

    def test_a_file_for_three_hosts_is_read_once_to_compare(self, site: Site, bed: Testbed, base: str) -> None:
        size = 30 << 20
        local = site.file('large', os.urandom(size))
        for host in bed.hosts:
            host.path(base).mkdir()
            shutil.copy(local, host.path(f'{base}/large'))
        site.write(*[component('x', host.name, base_dir=base, files={'large': 'large'}) for host in bed.hosts])
        with site.begin() as command:
            wait_until(lambda: bool(os.waitid(os.P_PID, command.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)), 'its end')
            read = re.search(r'rchar: (\d+)', Path(f'/proc/{command.pid}/io').read_text())
            done = command.end()
        assert [event['to_send'] for event in done.events('files_compared')] == [0, 0, 0]
        assert read
        assert size < int(read[1]) < 2 * size


    def test_what_is_remembered_is_read_if_it_is_not_to_be_believed(self, site: Site, bed: Testbed, base: str) -> None:
        site.file('file', 'content')
        site.write(component('x', 'h1', base_dir=base, files={'file': 'file'}))

        def hashed(*options: str) -> int:
            sent = site.deploy(*options).event('files_sent')
            assert (sent['sent'], sent['unchanged']) == (0, 1)
            return int(sent['hashed'])

        site.deploy()
        wait_until(lambda: hashed() == 0, 'the SHA-1 to be remembered')
        assert hashed('--no-hash-cache') == 1
        assert hashed() == 0

    def test_a_run_stays_below_its_rate(self, site: Site, bed: Testbed, base: str) -> None:
        site.file('file', os.urandom(1 << 20))
        site.write(*[component('x', host.name, base_dir=base, files={'file': 'file'}) for host in bed.hosts])
        done = site.deploy('--bwlimit', '2m')
        assert done.event('run_ended')['seconds'] > 1.2  # 3 MB at 2 MB/s, the first part at once
        assert all((host.path(base) / 'file').stat().st_size == 1 << 20 for host in bed.hosts)


def ops_of(site: Site, monkeypatch: pytest.MonkeyPatch) -> tuple[Counter[str], list[dict[str, Any]]]:
    """Deploy from Python; what was asked of the agents, by operation, and the events."""
    asked: Counter[str] = Counter()
    call = Host.call

    def counting(host: Host, op: str, **fields: Any) -> Any:
        asked[op] += 1
        return call(host, op, **fields)

    events = Events()
    heard: list[dict[str, Any]] = []
    events.listen(lambda event: heard.append(event.to_dict()))
    settings = Settings(config_file=str(site.config), screen=site.session)
    plan = make_plan(load(settings).config, settings.config_dir, settings.screen, settings.config_file)
    with monkeypatch.context() as patch, Connector(SshOptions(config_file=str(site.ssh_config))) as connector:
        patch.setattr(Host, 'call', counting)
        outcome = deploy(plan, connector, RunOptions(), events)
    assert outcome.exit_status == 0, outcome.error
    return asked, heard


def test_many_files_take_as_many_exchanges_as_few(
    site: Site, bed: Testbed, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2000):
        site.file(f'data/{number % 20}/{number}', f'number {number}\n')
    site.file('few/one')
    line = "config.add_component(Component(name='x', host='h1', base_dir={!r}, executable='/bin/sleep', args=[100000], files=util.recursive_files_dict({!r}, {!r})))"  # noqa: E501
    site.write(line.format(base, 'few', 'few'))
    few, _ = ops_of(site, monkeypatch)
    assert few['compare'] == few['put'] == 1
    site.write(line.format(base, 'data', 'many'))
    many, events = ops_of(site, monkeypatch)
    assert many['compare'] == many['put'] == 1
    assert sum(many.values()) <= sum(few.values()) + 1  # which quits the earlier session
    assert [event['sent'] for event in events if event['event'] == 'files_sent'] == [2000]
    assert tree(bed['h1'].path(f'{base}/many')) == tree(site.folder / 'data')
    again, events = ops_of(site, monkeypatch)
    assert again['compare'] == 1
    assert [event['to_send'] for event in events if event['event'] == 'files_compared'] == [0]


class TestReplacing:
    def test_a_running_executable(self, site: Site, bed: Testbed, base: str) -> None:
        host = bed['h1']
        host.path(base).mkdir()
        shutil.copy('/bin/sleep', host.path(f'{base}/program'))
        command, environment = host.entry([f'{base}/program', '100001'])
        with subprocess.Popen(command, env=environment) as old:
            wait_until(lambda: any('100001' in process.argv for process in host.processes()), 'it runs')
            site.file('program', Path('/bin/cat').read_bytes(), 0o755)
            site.write(component('x', 'h1', 'program', base_dir=base, files={'program': 'program'}))
            site.deploy()
            assert host.path(f'{base}/program').read_bytes() == Path('/bin/cat').read_bytes()
            [process] = [process for process in host.processes() if process.argv[-1] == '100001']
            host.run(['kill', str(process.pid)])
            old.wait()

    def test_a_link_stays_and_what_it_points_to_is_replaced(self, site: Site, bed: Testbed, base: str) -> None:
        there = bed['h1'].path(base)
        (there / 'real').mkdir(parents=True)
        (there / 'real/file').write_text('old')
        (there / 'link').symlink_to('real/file')
        (there / 'dangling').symlink_to('real/new')
        (there / 'folder').symlink_to('real')
        site.file('new', 'new content')
        files = {'link': 'link', 'dangling': 'dangling', 'below': 'folder/below'}
        for name in files:
            shutil.copy(site.folder / 'new', site.folder / name)
        site.write(component('x', 'h1', base_dir=base, files=files))
        done = site.deploy()
        assert done.event('files_sent')['sent'] == 3
        for name in ('link', 'dangling', 'folder'):
            assert (there / name).is_symlink()
        for name in ('file', 'new', 'below'):
            assert (there / 'real' / name).read_text() == 'new content'
        assert site.deploy().event('files_compared')['to_send'] == 0

    def test_where_a_folder_is(self, site: Site, bed: Testbed, base: str) -> None:
        there = bed['h1'].path(base)
        (there / 'taken').mkdir(parents=True)
        site.file('file')
        site.write(component('x', 'h1', base_dir=base, files={'file': 'taken'}))
        for option in ((), ('--always-copy',)):
            done = site.deploy(*option, status=1)
            [line] = [line for line in done.stderr.splitlines() if line.startswith('ERROR: ')]
            assert f'{base}/taken' in line
            assert 'h1' in line
            assert not done.events('component_starting')
        assert list((there / 'taken').iterdir()) == []
        assert rubbish(bed['h1'], base) == []

    def test_below_a_file(self, site: Site, bed: Testbed, base: str) -> None:
        there = bed['h1'].path(base)
        there.mkdir()
        (there / 'taken').write_text('a file')
        site.file('file')
        site.write(component('x', 'h1', base_dir=base, files={'file': 'taken/below'}))
        done = site.deploy(status=1)
        assert f'{base}/taken' in done.stderr
        assert (there / 'taken').read_text() == 'a file'

    def test_a_folder_that_may_not_be_written(self, site: Site, bed: Testbed) -> None:
        home = bed['h1'].add_user('reader')
        there = bed['h1'].path(home)
        for folder in ('closed', 'open'):
            (there / folder).mkdir()
            (there / folder / 'file').write_text('old')
            (there / folder / 'file').chmod(0o444)
            bed['h1'].run(['chown', '-R', 'reader' if folder == 'open' else 'root', f'{home}/{folder}'])
        site.file('file', 'new!')
        site.write(component('x', 'reader@h1', base_dir='open', files={'file': 'file'}))
        site.deploy()
        assert (there / 'open/file').read_text() == 'new!'
        site.write(component('x', 'reader@h1', base_dir='closed', files={'file': 'file'}))
        done = site.deploy(status=1)
        [line] = [line for line in done.stderr.splitlines() if line.startswith('ERROR: ')]
        assert f'{home}/closed' in line
        assert 'ermission denied' in line
        assert (there / 'closed/file').read_text() == 'old'
        assert rubbish(bed['h1'], home) == []

    def test_a_disk_that_fills_up(self, site: Site, fresh_bed: Beds, tmp_path: Path) -> None:
        bed = fresh_bed()
        bed['h1'].tmpfs('/root/small', '2M')
        there = bed['h1'].path('/root/small')
        (there / 'file').write_text('old')
        folder = tmp_path / 'small'
        folder.mkdir()
        with Site(bed, folder) as site:
            site.file('file', os.urandom(3 << 20))
            site.file('first', 'fits')
            site.write(component('x', 'h1', base_dir='/root/small', files={'first': 'first', 'file': 'file'}))
            done = site.deploy(status=1)
            [line] = [line for line in done.stderr.splitlines() if line.startswith('ERROR: ')]
            assert '/root/small/file' in line
            assert 'No space left on device' in line
            assert not done.events('component_starting')
            assert (there / 'file').read_text() == 'old'
            assert rubbish(bed['h1'], '/root/small') == []
            site.file('file', os.urandom(1 << 20))
            site.deploy()
            assert (there / 'file').read_bytes() == (folder / 'file').read_bytes()

    def test_a_reader_sees_the_old_file_or_the_new_one(self, site: Site, bed: Testbed, base: str) -> None:
        host = bed['h1']
        host.path(base).mkdir()
        contents = [bytes([number]) * (8 << 20) for number in (1, 2, 3)]
        host.path(f'{base}/file').write_bytes(contents[0])
        watch = (
            'import hashlib, os\n'
            'seen = []\n'
            "while not os.path.exists('stop'):\n"
            "    digest = hashlib.sha1(open('file', 'rb').read()).hexdigest()\n"
            '    if digest not in seen:\n'
            '        seen.append(digest)\n'
            "        print(digest, file=open('seen', 'a'), flush=True)\n"
        )
        command, environment = host.entry(['sh', '-c', f'cd {base} && exec python3 -c "$0"', watch])
        digests = [hashlib.sha1(content).hexdigest() for content in contents]
        with subprocess.Popen(command, env=environment) as reader:
            seen = eventually_exists(host.path(f'{base}/seen'))
            for number in (1, 2):
                site.file('file', contents[number])
                site.write(component('x', 'h1', base_dir=base, files={'file': 'file'}))
                site.deploy()
                wait_until(lambda number=number: digests[number] in seen.read_text(), 'it sees it')  # type: ignore[misc]
            host.path(f'{base}/stop').touch()
            assert reader.wait(30) == 0
        assert seen.read_text().split() == digests

    def test_hosts_that_share_a_folder(self, fresh_bed: Beds, tmp_path: Path) -> None:
        bed = fresh_bed(3)
        shared = tmp_path / 'shared'
        shared.mkdir()
        folder = tmp_path / 'config'
        folder.mkdir()
        for host in bed.hosts:
            host.share('/root/shared', shared)
        with Site(bed, folder) as site:
            site.file('file', os.urandom(3 << 20))
            files = {'file': 'file'}
            site.write(*[component('x', host.name, base_dir='/root/shared', files=files) for host in bed.hosts])
            site.deploy()
            assert [path.name for path in shared.iterdir()] == ['file']
            assert (shared / 'file').read_bytes() == (folder / 'file').read_bytes()


class TestInterrupted:
    """In the middle of a large copy: the agent is stopped as soon as some of the file is there."""

    SIZE = 96 << 20
    CONTENT = random.Random(1).randbytes(1 << 20) * 96

    @pytest.fixture
    def own(self, fresh_bed: Beds, tmp_path: Path) -> Iterator[Site]:
        """A host with an old file in /root/data, and a config that sends a large new one there, and then another."""
        with Site(fresh_bed(), tmp_path) as site:
            site.file('large', '').write_bytes(self.CONTENT)
            site.file('other', 'other')
            site.write(component('x', 'h1', base_dir='/root/data', files={'large': 'large', 'other': 'other'}))
            folder = site.bed['h1'].path('/root/data')
            folder.mkdir()
            (folder / 'large').write_text('old')
            yield site

    @contextmanager
    def stopped(self, host: TestHost) -> Iterator[int]:
        """The agent's pid, while it is stopped in the middle."""
        folder = host.path('/root/data')

        def some_came() -> bool:
            return any(path.stat().st_size for path in folder.glob('.rr-*'))

        wait_until(some_came, 'a part of the large file')
        agent = the_agent(host).pid
        host.run(['kill', '-STOP', str(agent)])
        yield agent
        host.run(['kill', '-CONT', str(agent)], check=False)

    def is_old(self, host: TestHost) -> None:
        folder = host.path('/root/data')
        assert (folder / 'large').read_text() == 'old'

    def errors(self, done: Done) -> str:
        assert 'Traceback' not in done.stderr
        assert not done.events('component_starting')
        return '\n'.join(line for line in done.stderr.splitlines() if line.startswith('ERROR: '))

    def works_again(self, site: Site) -> None:
        site.file('large', 'much smaller now')
        site.deploy()
        folder = site.bed['h1'].path('/root/data')
        assert (folder / 'large').read_text() == 'much smaller now'
        assert sorted(path.name for path in folder.iterdir()) == ['large', 'other']

    def test_the_agent_is_killed(self, own: Site) -> None:
        host = own.bed['h1']
        with own.begin() as command:
            with self.stopped(host) as agent:
                host.run(['kill', '-KILL', str(agent)])
            done = command.end()
        assert done.status == 3
        assert 'h1' in self.errors(done)
        assert (host.path('/root/data') / 'large').read_text() == 'old'
        self.works_again(own)

    def test_the_connection_is_closed(self, own: Site) -> None:
        host = own.bed['h1']
        with own.begin() as command:
            with self.stopped(host):
                host.stop_sshd(sessions=True)
            done = command.end()
        assert done.status == 3
        assert 'h1' in self.errors(done)
        self.is_old(host)
        host.start_sshd()
        self.works_again(own)

    def test_the_cable_is_cut_and_the_user_gives_up(self, own: Site) -> None:
        host = own.bed['h1']
        host.stop_sshd()
        host.start_sshd({'ClientAliveInterval': 1, 'ClientAliveCountMax': 1})
        with own.begin() as command:
            with self.stopped(host):
                host.cut()
            command.signal(signal.SIGINT)
            done = command.end()
        assert done.status == 130
        self.errors(done)
        self.is_old(host)
        host.heal()
        self.works_again(own)

    def test_the_user_gives_up(self, own: Site) -> None:
        host = own.bed['h1']
        with own.begin() as command:
            with self.stopped(host):
                command.signal(signal.SIGINT)
            done = command.end()
        assert done.status == 130
        self.errors(done)
        self.is_old(host)
        assert not (host.path('/root/data') / 'other').exists()
        self.works_again(own)

    def test_the_user_gives_up_while_the_agent_is_silent(self, own: Site) -> None:
        host = own.bed['h1']
        with own.begin() as command, self.stopped(host):
            command.signal(signal.SIGINT)
            done = command.end()
        assert done.status == 130
        self.errors(done)
        self.is_old(host)
        self.works_again(own)

    @pytest.mark.parametrize('what', ['changes', 'shrinks', 'is replaced by a folder', 'vanishes before its turn'])
    def test_a_local_file(self, own: Site, what: str) -> None:
        host = own.bed['h1']
        large, other = own.folder / 'large', own.folder / 'other'
        with own.begin() as command:
            with self.stopped(host):
                if what == 'changes':
                    with large.open('r+b') as file:
                        file.seek(self.SIZE - 1000)
                        file.write(b'changed')
                elif what == 'shrinks':
                    os.truncate(large, self.SIZE - 1000)
                else:
                    other.unlink()
                    if 'folder' in what:
                        other.mkdir()
            done = command.end()
        assert done.status == 1
        error = self.errors(done)
        there = host.path('/root/data')
        if what in ('changes', 'shrinks'):
            assert '/large' in error
            self.is_old(host)
        else:
            assert str(other) in error
            assert (there / 'large').read_bytes() in (b'old', self.CONTENT)
        assert not (there / 'other').exists()
        if other.is_dir():
            other.rmdir()
        other.write_text('other')
        self.works_again(own)


class TestTwoComponents:
    def test_with_one_source_for_one_target(self, site: Site, bed: Testbed, base: str) -> None:
        site.file('one')
        site.write(
            component('a', 'h1', base_dir=base, files={'one': 'target'}),
            component('b', 'h1', base_dir='/', files={'./one': f'{base}/target'}),
        )
        done = site.deploy()
        assert done.event('files_sent')['sent'] == 1
        assert bed['h1'].path(f'{base}/target').read_text() == 'content\n'

    def test_with_two_sources_for_one_target(self, site: Site, bed: Testbed, base: str) -> None:
        site.file('one', 'one')
        site.file('two', 'two')
        site.write(
            component('a', 'h1', base_dir=base, files={'one': 'target'}),
            component('b', 'h1', base_dir='/', files={'two': f'{base}/target'}),
            component('c', 'h2', base_dir=base, files={'two': 'target'}),
        )
        done = site.deploy(status=2)
        assert done.objects == []
        for word in ('a@h1', 'b@h1', f'{base}/target', 'one', 'two'):
            assert word in done.stderr
        assert 'c@h2' not in done.stderr
        assert not bed['h1'].path(base).exists()

    @pytest.mark.parametrize('how', ['the home', 'below the home', 'a link', 'a link above'])
    def test_with_two_sources_for_one_target_of_two_names(self, site: Site, bed: Testbed, base: str, how: str) -> None:
        """Only the host can tell: before it is sent anything."""
        name = f'names-{site.session}'
        folders = {
            'the home': (f'~/{name}', f'/root/{name}'),
            'below the home': (name, f'/root/{name}'),
            'a link': (f'{base}/real', f'{base}/link'),
            'a link above': (f'{base}/real/deep', f'{base}/link'),
        }[how]
        if 'link' in how:
            bed['h1'].path(f'{base}/real').mkdir(parents=True)
            bed['h1'].path(f'{base}/link').symlink_to('real')
        site.file('one', 'one')
        site.file('two', 'two')
        site.file('same')
        target = 'deep/target' if 'above' in how else 'target'
        here = {'one': 'target', 'same': 'same'}
        site.write(
            component('a', 'h1', base_dir=folders[0], files=here),
            component('b', 'h1', base_dir=folders[1], files={'two': target, './same': f'{target[:-6]}same'}),
        )
        real = bed['h1'].path(f'{base}/real' if 'link' in how else f'/root/{name}')
        plan = site.run('plan', *site.arguments('--diff'), status=1)
        for done in (plan, site.deploy(status=1), site.deploy('--always-copy', status=1)):
            for word in ('a@h1', 'b@h1', f'/{target}', '/one', '/two'):
                assert word in done.stderr
            assert list(real.rglob('*')) == []
        site.file('two', 'one')
        site.deploy()
        assert sorted(path.name for path in real.rglob('*') if path.is_file()) == ['same', 'target']
        shutil.rmtree(real)


def test_a_local_file_that_is_missing_is_found_before_anything_is_touched(site: Site, bed: Testbed, base: str) -> None:
    site.file('there')
    site.write(component('a', 'h1', base_dir=base, files={'there': 'x', 'gone': 'y', 'folder/gone': 'z'}))
    done = site.deploy(status=2)
    assert done.objects == []
    for word in ('gone', 'folder/gone', 'a@h1'):
        assert word in done.stderr
    assert not bed['h1'].path(base).exists()
