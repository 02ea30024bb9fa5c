"""Bringing files of hosts home: what comes, what is left when it goes wrong, and what a host may not do."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_runner.agent.hash_files import cache_path
from remote_runner.agent.hashes import Hashes
from remote_runner.errors import ConnectionLost, FetchFailed, FetchIncomplete, HostError, TransferFailed
from remote_runner.files.fetch import Fetched, bring
from remote_runner.files.incoming import LocalFolder, UnsafePath
from remote_runner.files.limit import Limit
from remote_runner.files.listing import Wanted, check_distinct, look
from remote_runner.files.results import local_folder, results_folder
from remote_runner.files.transfer import Progress
from remote_runner.hosts.address import parse_address
from remote_runner.hosts.call import Header
from remote_runner.hosts.host import Host
from remote_runner.hosts.ssh import Connector
from remote_runner.hosts.ssh_config import SshOptions
from tests.commands import ROOT, Running
from tests.test_files import ODD_NAMES
from tests.testbed import Testbed
from tests.testbed.process import wait_until

Beds = Callable[..., Testbed]


def ignore(host: Host, header: Header) -> None:
    """Nothing that an agent says unasked matters here."""


def silent(*progress: int) -> None:
    """Nobody watches."""


def fetch(host: Host, wanted: Iterable[Wanted], progress: Progress) -> Fetched:
    """What is fetched of one host; raises FetchIncomplete where not all comes."""
    listing = look(host, wanted)
    check_distinct([listing])
    fetched = bring(host, listing, progress)
    if fetched.failures:
        raise FetchIncomplete(fetched.failures)
    return fetched


def connected(bed: Testbed, name: str = 'h1') -> Host:
    with Connector(SshOptions(config_file=str(bed.ssh_config))) as connector:
        return Host(name, connector.connect(parse_address(name)), ignore)


@pytest.fixture
def host(bed: Testbed) -> Iterator[Host]:
    with connected(bed) as host:
        yield host


@pytest.fixture
def base(bed: Testbed) -> Iterator[str]:
    """A folder on h1 that nobody else has."""
    path = f'/tmp/fetch-{uuid.uuid4().hex}'
    bed['h1'].path(path).mkdir()
    yield path
    shutil.rmtree(bed['h1'].path(path))


@pytest.fixture
def there(bed: Testbed, base: str) -> Path:
    """The same folder, seen from here."""
    return bed['h1'].path(base)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A local folder that is not there yet."""
    return tmp_path / 'new' / 'results'


@pytest.fixture(params=['unnamed', 'named'])
def incoming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the local file system knows files without a name."""
    if request.param == 'named':
        monkeypatch.delattr(os, 'O_TMPFILE')
    return str(request.param)


def write(path: Path, content: str | bytes = 'content\n', mode: int = 0o644, mtime: int = 10**18 + 123456789) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    os.utime(path, ns=(mtime, mtime))
    return path


def found(folder: Path) -> dict[bytes, Any]:
    """All below a folder, links followed: of files mode, mtime and content; of folders the mode."""
    result: dict[bytes, Any] = {}
    root = os.fsencode(folder)
    for path, folders, files in os.walk(root, followlinks=True):
        for name in folders:
            inner = os.path.join(path, name)
            result[os.path.relpath(inner, root)] = stat.S_IMODE(os.stat(inner).st_mode)
        for name in files:
            file = os.path.join(path, name)
            status = os.stat(file)
            with open(file, 'rb') as stream:
                digest = hashlib.file_digest(stream, 'sha1').hexdigest()
            result[os.path.relpath(file, root)] = (stat.S_IMODE(status.st_mode), status.st_mtime_ns, digest)
    return result


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*'))


def get(host: Host, base: str, here: Path, *patterns: str) -> Fetched:
    """Fetch, whatever becomes of it."""
    listing = look(host, [Wanted(base, pattern, str(here)) for pattern in patterns])
    check_distinct([listing])
    return bring(host, listing, silent)


class TestRoundTrip:
    def test_a_whole_tree_with_any_names(self, host: Host, base: str, there: Path, here: Path, incoming: str) -> None:
        for number, name in enumerate(ODD_NAMES):
            folder = os.path.join(os.fsencode(there), b'data/sub', name)
            os.makedirs(folder)
            write(Path(os.fsdecode(os.path.join(folder, name))), b'content of ' + name, 0o600 + number, 10**18 + number)
        write(there / 'data/empty file', '')
        write(there / 'data/private/file', os.urandom(3_000_000)).parent.chmod(0o700)
        (there / 'data/empty/deeper').mkdir(parents=True)
        (there / 'data/link').symlink_to('empty file')
        (there / 'data/folder-link').symlink_to('private')
        fetched = fetch(host, [Wanted(base, 'data', str(here))], silent)
        assert found(here / 'data') == found(there / 'data')
        assert len(fetched.files) == len(ODD_NAMES) + 4
        assert fetched.bytes == sum(Path(path).stat().st_size for path in fetched.files)
        assert names(here)[0] == 'data'
        assert not [path for path in here.rglob('*') if path.is_symlink()]

    def test_where_files_come_to_stand(self, host: Host, base: str, there: Path, here: Path) -> None:
        for name in ['a.log', 'b.log', '.hidden.log', 'c.txt', 'x/a.log', 'x/y/a.log', 'x/.h/a.log', 'x.log/inner']:
            write(there / 'out' / name)
        for pattern, expected in {
            'out/a.log': ['a.log'],
            f'{base}/out/x/a.log': ['a.log'],
            'out/*.log': ['a.log', 'b.log', 'x.log', 'x.log/inner'],
            'out/[!a].log': ['b.log', 'x.log', 'x.log/inner'],
            'out/?.txt': ['c.txt'],
            'out/.*.log': ['.hidden.log'],
            'out/*/a.log': ['x', 'x/a.log'],
            'out/**/a.log': ['a.log', 'x', 'x/a.log', 'x/y', 'x/y/a.log'],
            'out/x/**': ['a.log', 'y', 'y/a.log'],
            'out/x': ['x', 'x/.h', 'x/.h/a.log', 'x/a.log', 'x/y', 'x/y/a.log'],
            'out/x/': ['x', 'x/.h', 'x/.h/a.log', 'x/a.log', 'x/y', 'x/y/a.log'],
            'out/x/.': ['.h', '.h/a.log', 'a.log', 'y', 'y/a.log'],
            './out/../out//x.log': ['x.log', 'x.log/inner'],
            '*/x/**/a.log': ['out', 'out/x', 'out/x/a.log', 'out/x/y', 'out/x/y/a.log'],
            '**/y': ['out', 'out/x', 'out/x/y', 'out/x/y/a.log'],
        }.items():
            folder = here / uuid.uuid4().hex
            fetched = fetch(host, [Wanted(base, pattern, str(folder))], silent)
            assert names(folder) == expected, pattern
            assert fetched.empty == ()

    def test_paths_of_the_home(self, host: Host, bed: Testbed, here: Path) -> None:
        name = f'fetch-{uuid.uuid4().hex}'
        home = bed['h1'].path('/root')
        write(home / name / 'file')
        try:
            wanted = [
                Wanted('/', f'~/{name}/file', str(here / 'a')),
                Wanted(f'~/{name}', 'f*', str(here / 'b')),
                Wanted(name, 'file', str(here / 'c')),
                Wanted('/', f'~root/{name}/*', str(here / 'd')),
            ]
            fetch(host, wanted, silent)
            assert names(here) == ['a', 'a/file', 'b', 'b/file', 'c', 'c/file', 'd', 'd/file']
        finally:
            shutil.rmtree(home / name)

    def test_a_base_dir_with_wildcards_in_its_name(self, host: Host, base: str, there: Path, here: Path) -> None:
        write(there / '[x]*' / 'a.log')
        write(there / 'x' / 'b.log')
        fetch(host, [Wanted(f'{base}/[x]*', '*.log', str(here))], silent)
        assert names(here) == ['a.log']

    def test_links_and_loops(self, host: Host, base: str, there: Path, here: Path) -> None:
        write(there / 'data/file')
        write(there / 'data/real/inner')
        (there / 'data/real/up').symlink_to('..')
        (there / 'data/itself').symlink_to('itself')
        (there / 'data/here').symlink_to('.')
        (there / 'data/nowhere').symlink_to('/no/such/file')
        os.mkfifo(there / 'data/pipe')
        write(there / 'beside')
        (there / 'data/above').symlink_to(base)
        fetched = fetch(host, [Wanted(base, 'data', str(here))], silent)
        assert names(here) == [
            'data', 'data/above', 'data/above/beside', 'data/file', 'data/real', 'data/real/inner'
        ]  # fmt: skip
        assert {path.removeprefix(base): why for path, why in fetched.left_out} == {
            '/data/above/data': 'a folder that is in itself',
            '/data/here': 'a folder that is in itself',
            '/data/itself': 'a folder that is in itself',
            '/data/real/up': 'a folder that is in itself',
            '/data/nowhere': 'a link to nothing',
            '/data/pipe': 'neither a file nor a folder',
        }

    def test_globs_in_loops_end(self, host: Host, base: str, there: Path, here: Path) -> None:
        write(there / 'a/file')
        for name in ('b', 'c', 'd'):
            (there / 'a' / name).symlink_to('../a')
        fetch(host, [Wanted(base, '**/file', str(here)), Wanted(base, '**/a/**/file', str(here))], silent)
        assert names(here) == ['a', 'a/file']

    def test_a_tree_deeper_than_the_stack_of_python(self, host: Host, base: str, there: Path, here: Path) -> None:
        deep = 'd/' * 1100
        subprocess.run(['mkdir', '-p', there / deep], check=True)
        write(there / deep / 'file')
        try:
            for pattern in ('d', '**/file'):
                assert fetch(host, [Wanted(base, pattern, str(here))], silent).files == (f'{here}/{deep}file',)
                assert (here / deep / 'file').read_bytes() == b'content\n'
                subprocess.run(['rm', '-r', here], check=True)
        finally:
            subprocess.run(['rm', '-r', there / 'd', here], check=False, stderr=subprocess.DEVNULL)

    def test_set_user_id_is_left_there(self, host: Host, base: str, there: Path, here: Path) -> None:
        write(there / 'program', mode=0o6755)
        fetch(host, [Wanted(base, 'program', str(here))], silent)
        assert stat.S_IMODE((here / 'program').stat().st_mode) == 0o755

    def test_many_small_files_in_few_exchanges(
        self, host: Host, base: str, there: Path, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(3000):
            write(there / f'data/{number % 30}/{number}', f'{number}\n' * (number % 3))
        asked: Counter[str] = Counter()
        call = Host.call

        def counting(host: Host, op: str, **fields: Any) -> Any:
            asked[op] += 1
            return call(host, op, **fields)

        monkeypatch.setattr(Host, 'call', counting)
        fetched = fetch(host, [Wanted(base, 'data', str(here))], silent)
        assert len(fetched.files) == 3000
        assert found(here / 'data') == found(there / 'data')
        assert asked == {'list_files': 1, 'get': 1}


class TestRate:
    def test_all_hosts_together_stay_below_it(self, host: Host, base: str, there: Path, here: Path) -> None:
        contents = {name: os.urandom(600_000) for name in ('a', 'b')}
        for name, content in contents.items():
            (there / name).write_bytes(content)
        limit = Limit(1e6)
        begun = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            listings = [look(host, [Wanted(base, name, str(here))]) for name in contents]
            fetched = list(pool.map(lambda listing: bring(host, listing, silent, limit), listings))
        assert time.monotonic() - begun > 0.9  # 1.2 MB at 1 MB/s, the first part of each at once
        assert [one.bytes for one in fetched] == [600_000, 600_000]
        assert {name: (here / name).read_bytes() for name in contents} == contents

    def test_parts_are_small_where_it_is_low(self, host: Host, base: str, there: Path, here: Path) -> None:
        (there / 'file').write_bytes(bytes(50_000))

        class Counting(Limit):
            sizes: tuple[int, ...] = ()

            def __call__(self, size: int) -> None:
                self.sizes += (size,)

        limit = Counting(80_000.0)
        assert bring(host, look(host, [Wanted(base, 'file', str(here))]), silent, limit).bytes == 50_000
        assert [size for size in limit.sizes if size] == [10_000] * 5


class TestAgain:
    def test_what_is_here_already_is_not_sent(self, host: Host, base: str, there: Path, here: Path) -> None:
        all_names = ['same', 'content', 'longer', 'touched', 'mode', 'missing', 'link', 'emptied']
        for name in all_names:
            write(there / name, 'the same length')
        wanted = [Wanted(base, '*', str(here))]
        fetch(host, wanted, silent)
        before = {name: (here / name).stat() for name in all_names}
        write(here / 'content', 'THE SAME LENGTH')
        write(there / 'longer', 'the same length no more')
        write(there / 'touched', 'the same length', mtime=5)
        (there / 'mode').chmod(0o751)
        (here / 'missing').unlink()
        (here / 'link').rename(here / 'other')
        (here / 'link').symlink_to('other')
        write(there / 'emptied', '')
        fetched = fetch(host, wanted, silent)
        assert fetched.skipped == (str(here / 'mode'), str(here / 'same'))
        assert (here / 'same').stat() == before['same']
        assert (here / 'mode').stat().st_ino == before['mode'].st_ino
        assert (here / 'other').stat().st_ino == before['link'].st_ino
        (here / 'other').unlink()
        assert found(here) == found(there)
        assert not (here / 'link').is_symlink()
        assert len(fetch(host, wanted, silent).skipped) == len(all_names)

    def test_what_is_here_already_is_read_once(
        self, host: Host, base: str, there: Path, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
        write(there / 'file')
        get(host, base, here, 'file')

        def is_remembered() -> bool:
            assert get(host, base, here, 'file').skipped == (f'{here}/file',)
            known = Hashes(cache_path()).known(f'{here}/file', (here / 'file').stat())
            assert known in (None, hashlib.sha1(b'content\n').hexdigest())
            return known is not None

        wait_until(is_remembered, 'the SHA-1 to be remembered')

    def test_nothing_is_remembered(
        self, host: Host, base: str, there: Path, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
        write(there / 'file')
        get(host, base, here, 'file')
        listing = look(host, [Wanted(base, 'file', str(here))])
        for _ in range(2):
            assert bring(host, listing, silent, remembered=False).skipped == (f'{here}/file',)
        assert not Path(cache_path()).exists()

    def test_the_old_file_or_the_new(self, host: Host, base: str, there: Path, here: Path, incoming: str) -> None:
        write(there / 'file', 'new')
        old = write(here / 'file', 'old', 0o444)
        with old.open() as opened:
            fetch(host, [Wanted(base, 'file', str(here))], silent)
            assert opened.read() == 'old'
        assert old.read_text() == 'new'
        assert names(here) == ['file']

    def test_overlapping_patterns_bring_a_file_once(self, host: Host, base: str, there: Path, here: Path) -> None:
        write(there / 'a.log')
        wanted = [Wanted(base, pattern, str(here)) for pattern in ('*.log', 'a.log', f'/{base}/./*')]
        assert len(fetch(host, wanted, silent).files) == 1


class TestFailures:
    def test_missing_and_empty(self, host: Host, base: str, there: Path, here: Path) -> None:
        write(there / 'good')
        wanted = [Wanted(base, pattern, str(here)) for pattern in ('no/such', '*.none', 'good', 'good/x')]
        with pytest.raises(FetchIncomplete, match=rf'h1: no/such: is not there \(in {base}\)') as caught:
            fetch(host, wanted, silent)
        assert [(failure.host, failure.path) for failure in caught.value.failures] == [
            ('h1', 'no/such'), ('h1', 'good/x')
        ]  # fmt: skip
        assert caught.value.exit_status == 1
        assert names(here) == ['good']
        fetched = fetch(host, [Wanted(base, '*.none', str(here)), Wanted(base, 'none/*/x', str(here))], silent)
        assert fetched.empty == ('*.none', 'none/*/x')

    def test_many_are_counted(self, host: Host, base: str, there: Path, here: Path) -> None:
        for number in range(30):
            write(there / f'{number:02}')
        write(here / 'in-the-way')
        with pytest.raises(FetchIncomplete) as caught:
            fetch(host, [Wanted(base, '*', str(here / 'in-the-way'))], silent)
        assert len(caught.value.failures) == 30
        *told, last = str(caught.value).splitlines()
        paths = [f'{base}/{number:02}' for number in range(20)]
        assert [line.partition(' ')[2].split(':')[0] for line in told] == paths
        assert last == 'h1: … and 10 more'

    def test_many_of_one_host_hide_no_other(self) -> None:
        failures = [FetchFailed('no', host=name, path=f'/{n}') for n in range(21) for name in ('h1', 'h2')]
        lines = str(FetchIncomplete([*failures, FetchFailed('gone', host='h3')])).splitlines()
        assert (lines[0], lines[20], lines[21], lines[41:]) == (
            'h1: /0: no', 'h1: … and 1 more', 'h2: /0: no', ['h2: … and 1 more', 'h3: gone']
        )  # fmt: skip

    def test_a_pipe_is_not_waited_for(self, host: Host, base: str, there: Path, here: Path) -> None:
        os.mkfifo(there / 'pipe')
        [failure] = get(host, base, here, 'pipe').failures
        assert failure.path == f'{base}/pipe'

    def test_what_may_not_be_read(self, bed: Testbed, tmp_path: Path) -> None:
        user = f'u{uuid.uuid4().hex[:8]}'
        home = bed['h1'].path(bed['h1'].add_user(user))
        write(home / 'data/file')
        write(home / 'data/secret', mode=0)
        write(home / 'data/closed/file').parent.chmod(0)
        with connected(bed, f'{user}@h1') as host:
            fetched = get(host, '~', tmp_path / 'a', 'data')
            assert sorted(str(failure) for failure in fetched.failures) == [
                f'{user}@h1: /home/{user}/data/closed: Permission denied',
                f'{user}@h1: /home/{user}/data/secret: Permission denied',
            ]
            assert names(tmp_path / 'a') == ['data', 'data/closed', 'data/file']
            assert len(get(host, '~', tmp_path / 'b', 'data/*/*', 'data/closed/file').failures) == 2

    def test_a_file_that_grows_all_the_time(self, host: Host, bed: Testbed, base: str, there: Path, here: Path) -> None:
        line = 'a line of the log\n'
        write(there / 'log', line * 200_000)
        script = f'while :; do echo "{line.strip()}"; done >>{base}/log'
        command, environment = bed['h1'].entry(['sh', '-c', script])
        with subprocess.Popen(command, env=environment) as writer:
            try:
                size = len(line) * 200_000
                wait_until(lambda: (there / 'log').stat().st_size > size, 'it grows')
                listing = look(host, [Wanted(base, 'log', str(here))])
                listed = listing.files[0].size
                wait_until(lambda: (there / 'log').stat().st_size > listed, 'it grows on')
                assert bring(host, listing, silent).failures == ()
            finally:
                [program] = [process for process in bed['h1'].processes() if script in process.argv]
                bed['h1'].run(['kill', '-KILL', str(program.pid)])
                writer.wait()
        with (there / 'log').open('rb') as file:
            assert (here / 'log').read_bytes() == file.read(listed)

    def test_shorter_gone_or_replaced_since_it_was_listed(
        self, host: Host, base: str, there: Path, here: Path, incoming: str
    ) -> None:
        for name in ('a', 'shorter', 'gone', 'folder', 'pipe', 'empty', 'z'):
            write(there / name, 'x' * 1000)
        write(here / 'shorter', 'old')
        listing = look(host, [Wanted(base, '*', str(here))])
        os.truncate(there / 'shorter', 999)
        os.truncate(there / 'empty', 0)
        for name in ('gone', 'folder', 'pipe'):
            (there / name).unlink()
        (there / 'folder').mkdir()
        os.mkfifo(there / 'pipe')
        fetched = bring(host, listing, silent)
        assert {failure.path for failure in fetched.failures} == {
            f'{base}/{name}' for name in ('shorter', 'gone', 'folder', 'pipe', 'empty')
        }
        assert any('999 of 1000 bytes' in str(failure) for failure in fetched.failures)
        assert names(here) == ['a', 'shorter', 'z']
        assert (here / 'shorter').read_text() == 'old'

    def test_truncated_in_the_middle(self, host: Host, base: str, there: Path) -> None:
        write(there / 'large', bytes(32 << 20))
        write(there / 'next', 'next')
        call = host.call('get', files=[[f'{base}/large', 32 << 20], [f'{base}/next', 4]], part=1 << 18)
        parts = call.parts()
        came = len(next(parts)[1])
        os.truncate(there / 'large', 4 << 20)  # more than what may be under way before we take the next part
        ends = []
        for entries, body in parts:
            came += len(body)
            ends += [end for _, end in entries if end is not None]
        assert call.result() == {}
        assert came == (4 << 20) + 4
        assert ends[0]['what'].endswith(f'{4 << 20} of {32 << 20} bytes')
        assert ends[1] == hashlib.sha1(b'next').hexdigest()

    def test_where_a_folder_is(self, host: Host, base: str, there: Path, here: Path, incoming: str) -> None:
        write(there / 'taken')
        write(there / 'folder/inner')
        write(there / 'z')
        write(here / 'taken/inner', 'theirs')
        write(here / 'folder', 'theirs')
        fetched = get(host, base, here, '*')
        assert {failure.path for failure in fetched.failures} == {
            f'{base}/{name}' for name in ('taken', 'folder', 'folder/inner')
        }
        assert all(str(here) in str(failure) for failure in fetched.failures)
        assert names(here) == ['folder', 'taken', 'taken/inner', 'z']

    def test_two_files_for_one_path(self, host: Host, base: str, there: Path, here: Path) -> None:
        write(there / 'a/log')
        write(there / 'b/log')
        with pytest.raises(FetchFailed, match=rf'{base}/b/log: and {base}/a/log of h1 would both become {here}/log'):
            fetch(host, [Wanted(base, 'a/log', str(here)), Wanted(base, 'b/*', str(here))], silent)
        write(there / 'c/log/inner')
        with pytest.raises(FetchFailed, match='must be a folder'):
            fetch(host, [Wanted(base, 'a/log', str(here)), Wanted(base, 'c/log', str(here))], silent)
        assert not here.exists()

    def test_two_hosts_for_one_path(self, bed: Testbed, host: Host, base: str, there: Path, here: Path) -> None:
        write(there / 'log')
        with connected(bed, 'h2') as other:
            listings = [look(one, [Wanted('/', f'{base}/log', str(here))]) for one in (host, host)]
            check_distinct(listings)
            write(bed['h2'].path(base) / 'log')
            try:
                listings.append(look(other, [Wanted('/', f'{base}/log', str(here))]))
            finally:
                shutil.rmtree(bed['h2'].path(base))
            with pytest.raises(FetchFailed, match=r'h2: .*/log of h1'):
                check_distinct(listings)


class TestInterrupted:
    SIZE = 400 << 20

    @pytest.fixture
    def large(self, there: Path) -> None:
        with (there / 'large').open('wb') as file:
            file.truncate(self.SIZE)

    @pytest.mark.usefixtures('large', 'incoming')
    def test_by_the_user(self, host: Host, base: str, here: Path) -> None:
        write(here / 'large', 'old')

        def interrupt(done: int, total: int, *files: int) -> None:
            assert 0 < done < total == self.SIZE
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fetch(host, [Wanted(base, 'large', str(here))], interrupt)
        assert names(here) == ['large']
        assert (here / 'large').read_text() == 'old'
        assert get(host, base, here / 'again', 'large').bytes == self.SIZE  # over the same connection

    @pytest.mark.usefixtures('incoming')
    @pytest.mark.parametrize('how', ['sshd is killed', 'the agent is killed'])
    def test_the_connection_is_lost(self, fresh_bed: Beds, here: Path, how: str) -> None:
        bed = fresh_bed()
        there = bed['h1'].path('/root/data')
        write(there / 'a')
        with write(there / 'large').open('wb') as file:
            file.truncate(self.SIZE)
        write(there / 'z')
        write(here / 'large', 'old')
        came: list[int] = []
        own = connected(bed)

        def cut(done: int, total: int, *files: int) -> None:
            came.append(done)
            if len(came) == 1:
                if how == 'sshd is killed':
                    bed['h1'].stop_sshd(sessions=True)
                else:
                    bed['h1'].run(['kill', '-KILL', str(own.facts.pid)])

        with own, pytest.raises(ConnectionLost, match=r'h1: .*came: 1 file; 2 did not'):
            fetch(own, [Wanted('~/data', '*', str(here))], cut)
        assert 0 < came[0] < self.SIZE
        assert names(here) == ['a', 'large']
        assert (here / 'large').read_text() == 'old'

    @pytest.mark.usefixtures('incoming')
    def test_the_cable_is_cut_and_the_user_gives_up(self, fresh_bed: Beds, here: Path) -> None:
        bed = fresh_bed()
        there = bed['h1'].path('/root/data')
        with write(there / 'large').open('wb') as file:
            file.truncate(self.SIZE)
        is_cut = threading.Event()

        def cut(done: int, total: int, *files: int) -> None:
            if not is_cut.is_set():
                bed['h1'].cut()
                is_cut.set()

        outcome: list[BaseException] = []
        own = connected(bed)

        def run() -> None:
            try:
                fetch(own, [Wanted('~/data', '*', str(here))], cut)
            except HostError as error:
                outcome.append(error)

        with own:
            thread = threading.Thread(target=run)
            thread.start()
            assert is_cut.wait(60)
            own.close()
            thread.join(60)
        assert not thread.is_alive()
        assert isinstance(outcome[0], ConnectionLost)
        assert names(here) == []

    def test_a_host_that_is_lost_is_the_exit_status(self) -> None:
        lost = FetchFailed.of(ConnectionLost('gone', host='h1'), 'h1')
        wrong = FetchFailed('no such file', host='h2', path='/x')
        assert FetchIncomplete([lost, wrong]).exit_status == 3
        assert FetchIncomplete([wrong]).exit_status == 1

    def test_killed_on_the_spot(self, bed: Testbed, base: str, here: Path, large: None) -> None:
        write(here / 'large', 'old')
        with start(bed, base, 'large', here, HOLD='in the middle') as program:
            wait_until(lambda: b'progress' in program.out, 'some of it came')
            program.signal(signal.SIGKILL)
            done = program.end()
        assert done.status == -signal.SIGKILL
        assert 0 < int(done.stdout.split()[1]) < self.SIZE
        assert names(here) == ['large']
        assert (here / 'large').read_text() == 'old'


    def test_killed_where_what_comes_needs_a_name(
        self, bed: Testbed, host: Host, base: str, there: Path, here: Path, large: None
    ) -> None:
        """As on NFS. The next time nothing is left of it; what somebody else is at is left alone."""
        with start(bed, base, 'large', here / 'deep', HOLD='in the middle', NAMED='yes') as program:
            wait_until(lambda: b'progress' in program.out, 'some of it came')
            [copy] = names(here / 'deep')
            assert copy.startswith('.rr-')
            os.truncate(there / 'large', 1000)
            get(host, base, here / 'deep', 'large')
            assert names(here / 'deep') == [copy, 'large']
            program.signal(signal.SIGKILL)
            program.end()
        write(there / 'large', 'new')
        get(host, base, here / 'deep', 'large')
        assert names(here / 'deep') == ['large']
        assert (here / 'deep/large').read_text() == 'new'


PROGRAM = """
import json, os, re, signal, sys
if 'NAMED' in os.environ:
    os.O_TMPFILE = 0
from remote_runner.errors import FetchIncomplete
from tests.test_fetch import connected_by, fetch, Wanted
config, base, pattern, folder = sys.argv[1:]
result = {}

def progress(done, total, *files):
    print('progress', done, total, flush=True)
    while 'HOLD' in os.environ:
        signal.pause()

with connected_by(config) as host:
    try:
        fetched = fetch(host, [Wanted(base, pattern, folder)], progress)
        result['bytes'] = fetched.bytes
    except FetchIncomplete as error:
        result['failures'] = [[failure.path, failure.what] for failure in error.failures]
    with open(f'{os.environ["AGENT_PROC"]}/{host.facts.pid}/status') as status:
        result['agent'] = int(re.search(r'VmHWM:\\s*(\\d+) kB', status.read())[1])
with open('/proc/self/status') as status:
    result['peak'] = int(re.search(r'VmHWM:\\s*(\\d+) kB', status.read())[1])
result['names'] = sorted(os.listdir(folder))
print(json.dumps(result))
"""


def connected_by(ssh_config: str) -> Host:
    with Connector(SshOptions(config_file=ssh_config)) as connector:
        return Host('h1', connector.connect(parse_address('h1')), ignore)


def start(bed: Testbed, base: str, pattern: str, here: Path, mount: str | None = None, **environment: str) -> Running:
    """Fetch in a process of its own; with `mount`, in one to which a tmpfs with these options is mounted at `here`."""
    here.mkdir(parents=True, exist_ok=True)
    command: list[str] = [sys.executable, '-c', PROGRAM, str(bed.ssh_config), base, pattern, str(here)]
    if mount:
        script = 'mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@"'
        command = ['unshare', '--mount', 'sh', '-c', script, 'sh', mount, str(here), *command]
    environment = {**os.environ, 'AGENT_PROC': str(bed['h1'].path('/proc')), **environment}
    return Running(command, cwd=ROOT, env=environment)


def ended(program: Running) -> dict[str, Any]:
    with program:
        done = program.end()
    assert done.status == 0, done
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


class TestThisMachine:
    def test_a_large_file_in_little_memory(self, bed: Testbed, base: str, there: Path, here: Path) -> None:
        write(there / 'small')
        with (there / 'large').open('wb') as file:
            for number in range(200):
                file.write(number.to_bytes(8, 'big') + os.urandom((1 << 20) - 8))
        small = ended(start(bed, base, 'small', here))
        large = ended(start(bed, base, 'large', here))
        assert large['bytes'] == 200 << 20
        assert found(here) == found(there)
        for who in ('peak', 'agent'):
            assert 1000 < small[who] < large[who] + 20_000  # kB
            assert large[who] - small[who] < 20_000

    def test_a_full_disk(self, bed: Testbed, base: str, there: Path, here: Path) -> None:
        write(there / 'a')
        write(there / 'large', bytes(8 << 20))
        write(there / 'medium', bytes((2 << 20) + 500_000))
        write(there / 'z')
        result = ended(start(bed, base, '*', here, 'size=2m'))
        assert result['names'] == ['a', 'z']
        assert [path for path, _ in result['failures']] == [f'{base}/large', f'{base}/medium']
        for (_, what), name, size in zip(result['failures'], ['large', 'medium'], [8 << 20, 2597152], strict=True):
            assert f'{here}/{name}: {os.strerror(errno.ENOSPC)} ({size} bytes, ' in what
            assert 1_900_000 < int(re.findall(r', (\d+) are free there', what)[0]) < 2 << 20

    @pytest.mark.parametrize('is_whole', [True, False])
    def test_a_server_that_tells_at_the_end(
        self, host: Host, base: str, there: Path, here: Path, monkeypatch: pytest.MonkeyPatch, is_whole: bool
    ) -> None:
        """NFS knows no unnamed files, and may say it when a file is closed, which it is all the same (close(2))."""
        write(there / 'a')
        write(there / 'z')
        close, write_some = os.close, os.write
        failed: list[int] = []

        def full(fd: int, data: memoryview) -> int:
            if not is_whole and not failed:
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
            return write_some(fd, data)

        def late(fd: int) -> None:
            is_copy = not failed and f'{here}/.rr-' in os.readlink(f'/proc/self/fd/{fd}')
            close(fd)
            if is_copy:
                failed.append(fd)
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

        listing = look(host, [Wanted(base, '*', str(here))])
        with monkeypatch.context() as patch:
            patch.setattr(os, 'O_TMPFILE', 0)
            patch.setattr(os, 'close', late)
            patch.setattr('remote_runner.files.incoming.os.write', full)
            fetched = bring(host, listing, silent)
        [failure] = fetched.failures
        assert failed
        assert f'cannot write {here}/a: {os.strerror(errno.EDQUOT)} (8 bytes, ' in str(failure)
        assert names(here) == ['z']

    def test_a_folder_that_may_not_be_written(self, bed: Testbed, base: str, there: Path, here: Path) -> None:
        for name in ('a', 'b'):
            write(there / name)
        result = ended(start(bed, base, '*', here, 'ro'))
        assert [path for path, _ in result['failures']] == [f'{base}/a', f'{base}/b']
        assert all(os.strerror(errno.EROFS) in what for _, what in result['failures'])
        assert result['names'] == []


class Lying:
    """A host that answers what it likes."""

    name = 'liar'

    def __init__(self, *parts: tuple[Any, bytes], result: Any = None) -> None:
        self._parts = parts
        self._result = result

    def call(self, op: str, **_: Any) -> Lying:
        return self

    def parts(self) -> Iterator[tuple[Any, bytes]]:
        yield from self._parts

    def result(self) -> Any:
        return self._result

    def cancel(self) -> None:
        """It does not care."""


HOSTILE = [
    '../x', '..', '.', '', '/etc/x', '/x', 'a/../../x', 'a/..', 'a/./x', 'a//x', 'a/', '//x', 'nul\0', 'link/x',
    'link/deeper/x', 'to-parent/x', 'lone\ud800', './x',
]  # fmt: skip


class TestHostileHosts:
    @pytest.mark.parametrize('kind', ['file', 'folder'])
    def test_no_name_leaves_the_folder(self, tmp_path: Path, kind: str) -> None:
        outside = tmp_path / 'outside'
        outside.mkdir()
        here = tmp_path / 'here'
        (here / 'inside').mkdir(parents=True)
        (here / 'link').symlink_to(outside)
        (here / 'to-parent').symlink_to('..')
        (here / 'good-link').symlink_to('inside')
        (here / 'file-link').symlink_to(outside / 'x')
        before = names(tmp_path)
        good = ['good-link/new', 'a', '..a', '...', 'a~', '~', 'new\nline', '\udcff']
        good += ['file-link', 'link'] if kind == 'file' else []
        entries = [
            [0, name, f'/there/{number}', kind, 0, 0o6777, 0] for number, name in enumerate([*HOSTILE, *good])
        ]
        liar: Any = Lying(([entries, []], b''), result={'patterns': ['found']})
        listing = look(liar, [Wanted('/', 'x', str(here))])
        assert [failure.path for failure in listing.failures] == [f'/there/{n}' for n in range(len(HOSTILE))]
        for name, failure in zip(HOSTILE, listing.failures, strict=True):
            assert repr(name) in str(failure)
        inside = [(file.local, file.mode) for file in listing.files]
        inside += [(folder.local, folder.mode) for folder in listing.folders]
        assert inside == [(f'{here}/{name.replace("good-link", "inside")}', 0o777) for name in good]
        assert names(tmp_path) == before

    def test_a_link_is_replaced_and_not_written_through(self, host: Host, base: str, there: Path, here: Path) -> None:
        write(there / 'link', 'new')
        outside = write(here.parent / 'outside', 'untouched')
        here.mkdir()
        (here / 'link').symlink_to(outside)
        fetch(host, [Wanted(base, 'link', str(here))], silent)
        assert outside.read_text() == 'untouched'
        assert (here / 'link').read_text() == 'new'

    def test_a_folder_that_is_a_link_to_outside(self, host: Host, base: str, there: Path, here: Path) -> None:
        write(there / 'data/file')
        write(there / 'other')
        outside = here.parent / 'outside'
        outside.mkdir(parents=True)
        here.mkdir()
        (here / 'data').symlink_to(outside)
        with pytest.raises(FetchIncomplete, match='outside') as caught:
            fetch(host, [Wanted(base, '*', str(here))], silent)
        assert [failure.path for failure in caught.value.failures] == [f'{base}/data', f'{base}/data/file']
        assert names(outside) == []
        assert (here / 'other').exists()

    @pytest.mark.parametrize(
        ('entries', 'body'),
        [
            ([[6, None]], b'longer'),
            ([[5, None]], b'longer'),
            ([], b'x'),
            ([[9, None]], b'x'),
            ([[-1, None]], b'x'),
            ([[5, hashlib.sha1(b'right').hexdigest()], [0, 'one more']], b'right'),
            ([[3, None]], b'sho'),
            ([[5, 7], [0, 7]], b'right'),
        ],
    )
    def test_more_or_less_than_it_said(self, here: Path, entries: list[Any], body: bytes) -> None:
        listed = ([[[0, 'file', '/file', 'file', 5, 0o644, 0]], []], b'')
        listing = look(Lying(listed, result={'patterns': ['found']}), [Wanted('/', 'file', str(here))])  # type: ignore[arg-type]
        with pytest.raises(TransferFailed, match='liar'):
            bring(Lying((entries, body), result={}), listing, silent)  # type: ignore[arg-type]
        assert set(names(here)) <= {'file'}
        assert not (here / 'file').exists() or (here / 'file').read_bytes() == b'right'

    def test_what_is_not_what_was_sent(self, here: Path) -> None:
        listed = ([[[0, 'file', '/file', 'file', 5, 0o644, 0]], []], b'')
        listing = look(Lying(listed, result={'patterns': ['found']}), [Wanted('/', 'file', str(here))])  # type: ignore[arg-type]
        for digest, length in ((hashlib.sha1(b'other').hexdigest(), 5), (hashlib.sha1(b'righ').hexdigest(), 4)):
            liar: Any = Lying(([[length, digest]], b'right'[:length]), result={})
            [failure] = bring(liar, listing, silent).failures
            assert failure.path == '/file'
            assert names(here) == []

    @given(st.text() | st.lists(st.sampled_from(['..', '.', '', 'a', '\0', '~', '\udcff', '\ud800']), max_size=6))
    def test_any_name(self, name: str | list[str]) -> None:
        text = name if isinstance(name, str) else '/'.join(name)
        place = LocalFolder('/no/such/folder')
        for find in (place.file, place.folder):
            try:
                path = find(text)
            except UnsafePath:
                continue
            assert path == f'/no/such/folder/{text}'
            assert os.path.normpath(path) == path
            os.fsencode(path)


class TestResultsFolder:
    def test_readable(self) -> None:
        assert str(results_folder('/r', '20240101-120000', 'server', 'me@node1:2222')) == (
            '/r/20240101-120000/server@me@node1:2222'
        )
        assert str(results_folder('r', 'run', 'größe 1', 'h1')) == 'r/run/größe 1@h1'

    def test_one_component_of_a_path_each(self) -> None:
        assert str(results_folder('/r', '..', '../a/b', 'h/1')) == '/r/%2E./%2E.%2Fa%2Fb@h%2F1'
        assert results_folder('/r', 'x', 'a@b', 'c') != results_folder('/r', 'x', 'a', 'b@c')
        longest = results_folder('/r', 'x', 'n' * 300, 'h')
        assert len(longest.name) == 255
        assert longest != results_folder('/r', 'x', 'n' * 301, 'h')

    @given(*[st.text(st.characters(), min_size=1) | st.text('./@%\0\n\udcffä', min_size=1)] * 4)
    def test_distinct_and_safe(self, name: str, host: str, other_name: str, other_host: str) -> None:
        one, other = results_folder('/r', 'x', name, host), results_folder('/r', 'x', other_name, other_host)
        assert (one == other) == ((name, host) == (other_name, other_host))
        assert one.parent == Path('/r/x')
        assert os.path.normpath(one) == str(one)
        assert not one.name.startswith('.')
        assert len(os.fsencode(one.name)) <= 255

    def test_folders_of_components(self) -> None:
        results = results_folder('/r', 'x', 'a', 'h')
        for wanted, expected in {'.': '/r/x/a@h', 'logs': '/r/x/a@h/logs', '/abs/x': '/abs/x'}.items():
            assert local_folder(results, wanted) == expected
