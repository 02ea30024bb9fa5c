"""RR11: files that did not change are not read again, and no file is ever taken for what it was before a change."""

from __future__ import annotations

import hashlib
import marshal
import mmap
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote_runner.agent import hash_files, hashes, sha1, stamps
from remote_runner.agent.hashes import Hashes
from remote_runner.agent.stamps import Clock
from tests.testbed.process import wait_until

SECOND = 10**9


class MovedClock(Clock):
    """The real clock, as it would be after somebody set it, or after some time has passed."""

    def __init__(self) -> None:
        self.moved = 0
        self.passed = 0
        self.waits = 0

    def tick(self) -> int:
        return super().tick() + self.moved + self.passed

    def read(self) -> tuple[int, int]:
        now, since_boot = super().read()
        return now + self.moved + self.passed, since_boot + self.passed

    def wait(self, nanoseconds: int) -> None:
        self.waits += 1
        super().wait(nanoseconds)


class Lab:
    """A folder with files and a cache, whose file system is what a test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = MovedClock()
        self.cache = folder / 'cache'
        self.proc = folder / 'proc'
        (self.proc / 'self').mkdir(parents=True)
        (self.proc / 'sys/kernel/random').mkdir(parents=True)
        self.boot('one')
        self.mount('ext4')

    def boot(self, name: str) -> None:
        """This is another start of the machine."""
        (self.proc / 'sys/kernel/random/boot_id').write_text(f'{name}\n')

    def mount(self, kind: str, device: int | None = None) -> None:
        """The folder is on such a file system."""
        device = self.folder.stat().st_dev if device is None else device
        number = f'{os.major(device)}:{os.minor(device)}'
        lines = ['22 27 0:21 / /proc rw,relatime - proc proc rw', f'7 1 {number} / /a\\040b rw - {kind} x - y rw']
        (self.proc / 'self/mountinfo').write_text('\n'.join(lines) + '\n')

    def hashes(self) -> Hashes:
        """As another run has them."""
        return Hashes(str(self.cache), self.clock, str(self.proc))

    def file(self, content: bytes = b'one', name: str = 'file') -> str:
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def settled(self, content: bytes = b'one', name: str = 'file') -> str:
        """A file that was there before."""
        path = self.file(content, name)
        self.settle(path)
        return path

    @staticmethod
    def settle(path: str) -> None:
        """Wait until a file is old enough to be remembered."""
        needed = os.stat(path).st_ctime_ns + SECOND // 50
        wait_until(lambda: Clock().tick() > needed, 'the end of the tick')

    def remembered(self, path: str) -> str | None:
        """What another run knows of a file without reading it: by itself, and with all others of its folder."""
        known = self.hashes().known(path, os.stat(path))
        assert told(self.hashes(), path) in (None, known)  # None: it has to be asked for by itself
        return known

    def learn(self, *paths: str) -> None:
        """A run that hashes these files."""
        run = self.hashes()
        for path in paths:
            assert run.sha1(path) == sha1_of(path)
        run.save()

    def shards(self) -> list[Path]:
        return sorted(path for path in self.cache.iterdir() if len(path.name) == 2)


def sha1_of(path: str) -> str:
    return hashlib.sha1(Path(path).read_bytes()).hexdigest()


def told(run: Hashes, path: str) -> str | None:
    """What a run knows of a file when it asks for all of its folder, as they are compared."""
    status = os.stat(path)
    folder, _, name = path.rpartition('/')
    entry = run.of_folder(folder, status.st_dev).get(name, b'')
    return entry[-20:].hex() if entry and entry.startswith(stamps.key_of(status)) else None


def rewrite(path: str, content: bytes) -> None:
    """Other content of the same size in the same inode, with the mtime that it had."""
    before = os.stat(path)
    with open(path, 'r+b') as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(path)
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


# ---- what is remembered -------------------------------------------------------------------------------------------


def test_a_file_that_did_not_change_is_not_read_again(lab: Lab) -> None:
    paths = [lab.settled(os.fsencode(name), name) for name in ('one', 'two', 'b\udcff d', 'ä', 'empty')]
    Path(paths[-1]).write_bytes(b'')
    lab.settle(paths[-1])
    lab.learn(*paths)
    for path in paths:
        assert lab.remembered(path) == sha1_of(path)
        os.chmod(path, 0)  # which gives it another ctime
        assert lab.remembered(path) is None


def test_what_was_learned_is_known_before_it_is_saved(lab: Lab) -> None:
    path = lab.settled()
    run = lab.hashes()
    assert run.known(path, os.stat(path)) is None
    assert run.sha1(path) == run.known(path, os.stat(path)) == run.sha1(path, os.stat(path)) == sha1_of(path)
    assert lab.remembered(path) is None


def test_no_cache(lab: Lab) -> None:
    path = lab.settled()
    run = Hashes(None)
    run.written(path, os.stat(path), '0' * 40)
    assert run.sha1(path) == sha1_of(path)
    assert run.known(path, os.stat(path)) is None
    rewrite(path, b'two')
    assert run.sha1(path, os.stat(path)) == sha1_of(path)
    run.save()
    assert not lab.cache.exists()


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', '/x')
    assert hash_files.cache_path() == '/x/remote_runner/hashes'
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', '/home/me')
    assert hash_files.cache_path() == '/home/me/.cache/remote_runner/hashes'


def test_errors_are_those_of_reading(lab: Lab) -> None:
    with pytest.raises(FileNotFoundError, match='missing'):
        lab.hashes().sha1(str(lab.folder / 'missing'))
    with pytest.raises(IsADirectoryError, match='proc'):
        lab.hashes().sha1(str(lab.proc))


def test_relative_paths_are_read_each_time(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lab.settled()
    monkeypatch.chdir(lab.folder)
    lab.learn('file', './file')
    assert lab.remembered('file') is lab.remembered('./file') is lab.remembered(path) is None
    assert not lab.cache.exists()


def test_without_a_cache_large_files_are_read_whole(lab: Lab) -> None:
    path = lab.file(random.Random(1).randbytes((2 << 20) + 17), 'large')
    assert sha1.sha1(path) == sha1_of(path)


# ---- changes ------------------------------------------------------------------------------------------------------


def test_same_size_and_restored_mtime(lab: Lab) -> None:
    path = lab.settled(b'one')
    run = lab.hashes()
    lab.learn(path)
    run.sha1(path)
    rewrite(path, b'two')
    assert lab.remembered(path) is run.known(path, os.stat(path)) is None
    assert run.sha1(path) == lab.hashes().sha1(path) == sha1_of(path)


def test_another_file_in_its_place(lab: Lab) -> None:
    path = lab.settled(b'one')
    lab.learn(path)
    before = os.stat(path)
    other = lab.file(b'two', 'other')
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.rename(other, path)
    assert lab.remembered(path) is None
    lab.settle(path)
    lab.learn(path)
    assert lab.remembered(path) == hashlib.sha1(b'two').hexdigest()


def test_written_in_the_tick_of_its_entry(lab: Lab) -> None:
    """Each is hashed while its tick may go on, and changed at once: nobody can tell by its status."""
    path = lab.file(b'%08d' % 0)
    run = lab.hashes()
    same = 0
    for number in range(2000):
        rewrite(path, b'%08d' % number)
        before = os.stat(path)
        run.sha1(path, before)
        with open(path, 'r+b') as file:
            file.write(b'%08d' % -number)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        same += os.stat(path).st_ctime_ns == before.st_ctime_ns
        assert run.known(path, os.stat(path)) in (None, sha1_of(path)), f'{same} changes could not be told'


def test_what_is_in_the_tick_of_its_entry_is_not_remembered(lab: Lab) -> None:
    """As a file system tells the time that tells it by the tick: with the clock standing still, all is in one."""
    path = lab.file()
    lab.clock.tick = lambda: os.stat(path).st_ctime_ns  # type: ignore[method-assign]
    lab.learn(path)
    assert lab.remembered(path) is None
    lab.clock.tick = lambda: os.stat(path).st_ctime_ns + SECOND // 50  # type: ignore[method-assign]
    lab.learn(path)
    assert lab.remembered(path) == sha1_of(path)


def test_changes_around_the_end_of_a_tick(lab: Lab) -> None:
    path = lab.file(b'%08d' % 0)
    run = lab.hashes()
    found = 0
    chance = random.Random(7)
    for number in range(150):
        rewrite(path, b'%08d' % number)
        Clock().wait(chance.randrange(SECOND // 50))
        run.sha1(path)
        found += run.known(path, os.stat(path)) is not None
        rewrite(path, b'%08d' % -number)
        assert run.sha1(path) == sha1_of(path)
    assert found


def test_whole_seconds_take_two(lab: Lab) -> None:
    """File systems that know no finer times: what is in the same second has the same."""
    path = lab.file()
    whole = os.stat(path).st_ctime_ns // SECOND * SECOND
    status = os.stat_result((*os.stat(path)[:10],), {'st_mtime_ns': whole, 'st_ctime_ns': whole})
    assert status.st_ctime_ns == whole
    assert stamps.age_of(status, whole + SECOND) <= 0
    assert stamps.age_of(status, whole + 2 * SECOND) <= 0
    assert stamps.age_of(status, whole + 2 * SECOND + SECOND // 50) > 0


@pytest.mark.parametrize('how', ['open', 'mapped'])
def test_what_may_be_written_to_without_another_ctime(lab: Lab, how: str) -> None:
    path = lab.file(b'a' * 4096)
    with open(path, 'r+b') as file:
        mapping = mmap.mmap(file.fileno(), 4096)
        if how == 'open':
            mapping.close()
        else:
            file.close()
            mapping[0:1] = b'b'
        lab.settle(path)
        lab.learn(path)
        assert lab.remembered(path) is None
        if how == 'mapped':
            mapping[0:1] = b'c'
            assert lab.hashes().sha1(path) == sha1_of(path)
            mapping.close()
    lab.settle(path)
    lab.learn(path)
    assert lab.remembered(path) == sha1_of(path)


def test_who_wants_to_write_meanwhile(lab: Lab) -> None:
    """Looking for writers gets in nobody's way, and nobody ends us for it."""
    path = lab.settled()
    code = 'import sys\nprint(flush=True)\nwhile True: open(sys.argv[1], "r+b").close()'
    with subprocess.Popen([sys.executable, '-c', code, path], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        try:
            assert writer.stdout.readline() == b'\n'
            told = set()
            with open(path, 'rb') as file:
                for _ in range(20000):
                    told.add(stamps.is_open_for_writing(file.fileno()))
            assert told == {True, False}
            assert writer.poll() is None
        finally:
            writer.kill()


def test_changed_while_it_is_read(lab: Lab) -> None:
    path = lab.settled(b'\0' * (1 << 24))
    done = threading.Event()

    def change() -> None:
        number = 0
        while not done.is_set():
            number += 1
            rewrite(path, b'%08d' % number)

    changing = threading.Thread(target=change)
    changing.start()
    run = lab.hashes()
    try:
        for _ in range(20):
            run.sha1(path)
    finally:
        done.set()
        changing.join()
    assert run.known(path, os.stat(path)) in (None, sha1_of(path))
    assert run.sha1(path) == sha1_of(path)


def test_what_changed_while_it_was_read_is_not_remembered(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lab.settled()
    real = hashes.sha1_of

    def digest(*arguments: Any) -> tuple[str, int]:
        found = real(*arguments)
        rewrite(path, b'two')
        return found

    monkeypatch.setattr(hashes, 'sha1_of', digest)
    run = lab.hashes()
    assert run.sha1(path) == hashlib.sha1(b'one').hexdigest()
    run.save()
    assert not lab.cache.exists()


def test_more_came_than_its_size_says(lab: Lab) -> None:
    path = '/proc/version'
    lab.mount('ext4', os.stat(path).st_dev)
    lab.clock.moved = 3600 * SECOND
    lab.learn(path)
    assert lab.remembered(path) is None


def test_times_to_come(lab: Lab) -> None:
    path = lab.file()
    os.utime(path, ns=(0, os.stat(path).st_ctime_ns + 1000 * SECOND))
    lab.settle(path)
    lab.learn(path)
    assert lab.remembered(path) is None


@pytest.mark.parametrize('year', [1902, 2400, 2446])
def test_times_far_away(lab: Lab, year: int) -> None:
    path = lab.file()
    os.utime(path, ((year - 1970) * 31556952,) * 2)
    lab.settle(path)
    lab.learn(path)
    assert lab.remembered(path) == (sha1_of(path) if year == 1902 else None)


# ---- the clock ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('back', [0.002, 5, 5000])
def test_clock_set_back_between_two_runs(lab: Lab, back: float) -> None:
    path = lab.settled()
    lab.clock.moved = 10000 * SECOND  # so that files are old enough for all but the step
    lab.learn(path)
    assert lab.remembered(path) == sha1_of(path)
    lab.clock.moved -= int(back * SECOND)
    assert lab.remembered(path) is None
    lab.learn(path)
    assert lab.remembered(path) == sha1_of(path)


@pytest.mark.parametrize('back', [0.002, 5, 5000])
def test_clock_set_back_in_a_run(lab: Lab, back: float) -> None:
    path, other = lab.settled(), lab.settled(b'two', 'other')
    lab.clock.moved = 10000 * SECOND
    run = lab.hashes()
    run.sha1(path)
    assert told(run, path) == run.known(path, os.stat(path)) == sha1_of(path)
    lab.clock.moved -= int(back * SECOND)
    assert told(run, path) is run.known(path, os.stat(path)) is None
    run.sha1(other)
    run.save()
    assert lab.remembered(path) is None
    assert lab.remembered(other) == sha1_of(other)


def test_clock_set_back_by_less_than_what_passed(lab: Lab) -> None:
    path = lab.settled()
    lab.clock.moved = 10000 * SECOND
    lab.learn(path)
    lab.clock.passed = 1000 * SECOND
    assert lab.remembered(path) == sha1_of(path)
    lab.clock.moved -= SECOND
    assert lab.remembered(path) is None


@pytest.mark.parametrize('is_noticed', [False, True])
def test_clock_set_back_while_a_file_is_read(lab: Lab, is_noticed: bool) -> None:
    path = lab.settled()
    run = lab.hashes()
    quiet = run._is_quiet

    def step(*arguments: Any) -> bool:
        answer = quiet(*arguments)
        lab.clock.moved = -5 * SECOND
        if is_noticed:  # by another thread
            assert run.known(str(lab.proc), os.stat(path)) is None
            run.save()
        return answer

    run._is_quiet = step  # type: ignore[method-assign]
    run.sha1(path)
    run.save()
    assert not lab.cache.exists()


def test_clock_set_back_before_saving(lab: Lab) -> None:
    path = lab.settled()
    run = lab.hashes()
    run.sha1(path)
    lab.clock.moved = -5 * SECOND
    run.save()
    assert not lab.cache.exists()


def test_saved_in_the_future(lab: Lab) -> None:
    """Nothing else tells of the step where the machine was started again since."""
    path = lab.settled()
    lab.clock.moved = 10000 * SECOND
    lab.learn(path)
    lab.boot('two')
    assert lab.remembered(path) == sha1_of(path)
    lab.clock.moved = 9000 * SECOND
    assert lab.remembered(path) is None


def test_changed_in_the_future(lab: Lab) -> None:
    path = lab.settled()
    lab.clock.moved = -3600 * SECOND
    lab.learn(path)
    assert lab.remembered(path) is None


def test_served_in_the_future(lab: Lab) -> None:
    """Whatever the cache says of its own time."""
    path = lab.file()
    os.utime(path, (0, 0))
    lab.settle(path)
    lab.learn(path)
    (shard,) = lab.shards()
    head = len(hash_files.MAGIC) + 20
    _, _, offset, groups = marshal.loads(shard.read_bytes()[head:])
    body = marshal.dumps((0, '', offset, groups))
    shard.write_bytes(hash_files.MAGIC + hashlib.sha1(body).digest() + body)
    assert lab.remembered(path) == sha1_of(path)
    lab.clock.moved = -3600 * SECOND
    assert lab.hashes().known(path, os.stat(path)) is None


# ---- file systems -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['tmpfs', 'vfat', 'fuse.sshfs', 'squashfs', '9p', 'cifs', 'fuseblk', 'what-else'])
def test_file_systems_whose_ctime_says_nothing(lab: Lab, kind: str) -> None:
    path = lab.settled()
    lab.learn(path)
    lab.mount(kind)
    lab.clock.moved = 3600 * SECOND
    assert lab.remembered(path) is None
    lab.settled(b'two', 'file')
    lab.learn(path)
    lab.mount('ext4')
    assert lab.remembered(path) is None


@pytest.mark.parametrize('kind', ['nfs', 'nfs4', 'ceph', 'lustre', 'overlay'])
def test_file_systems_that_take_a_minute(lab: Lab, kind: str) -> None:
    lab.mount(kind)
    path = lab.settled()
    lab.clock.moved = 50 * SECOND
    lab.learn(path)
    assert lab.remembered(path) is None
    lab.clock.moved = 61 * SECOND
    lab.learn(path)
    assert lab.remembered(path) == sha1_of(path)


def test_a_server_is_asked_for_the_status(lab: Lab) -> None:
    lab.mount('nfs')
    path = lab.settled()
    lab.clock.moved = 61 * SECOND
    lab.learn(path)
    heard_earlier = os.stat(path)
    rewrite(path, b'two')
    assert lab.hashes().known(path, heard_earlier) is None
    os.unlink(path)
    assert lab.hashes().known(path, heard_earlier) is None


@pytest.mark.parametrize(('kind', 'is_known'), [('btrfs', True), ('tmpfs', False)])
def test_devices_that_are_mounted_as_others(lab: Lab, kind: str, is_known: bool) -> None:
    lab.mount(kind, os.makedev(0, 4711))
    (lab.proc / 'self/fdinfo').mkdir()
    for number in range(3, 100):
        (lab.proc / f'self/fdinfo/{number}').write_text('pos:\t0\nflags:\t012000000\nmnt_id:\t7\nino:\t1\n')
    path = lab.settled()
    lab.learn(path)
    assert (lab.remembered(path) is not None) == is_known


def test_without_mounts_nothing_is_remembered(lab: Lab) -> None:
    (lab.proc / 'self/mountinfo').unlink()
    path = lab.settled()
    lab.learn(path)
    assert lab.remembered(path) is None


def test_the_kernel_tells_the_file_system(tmp_path: Path) -> None:
    for path in (str(tmp_path), '/proc/self/stat', '/dev/null'):
        command = ['df', '--output=fstype', path]
        kind = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
        assert stamps.Mounts('/proc').type(path, os.stat(path).st_dev) == kind
    mounts = stamps.Mounts('/proc')
    assert mounts._mount_of(str(tmp_path), tmp_path.stat().st_dev) in {number for number, _, _ in mounts._table()}
    assert mounts.boot()


def test_files_of_others_take_a_minute() -> None:
    """Who has them open is not told to us."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        lab = Lab(Path(folder))
        path = lab.settled()
        lab.cache.mkdir(0o700)
        os.chown(lab.cache, 65534, 65534)
        with as_nobody():
            lab.learn(path)
            assert lab.remembered(path) is None
            lab.clock.moved = 61 * SECOND
            lab.learn(path)
            assert lab.remembered(path) == sha1_of(path)


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


# ---- what we wrote ------------------------------------------------------------------------------------------------


def put(lab: Lab, content: bytes, earlier: int = SECOND, name: str = 'file') -> tuple[str, os.stat_result, str]:
    """Write a file as the agent does, with an mtime from before its renaming."""
    temporary, path = lab.folder / '.rr-x', str(lab.folder / name)
    with open(temporary, 'wb') as file:
        file.write(content)
        file.flush()
        now = os.fstat(file.fileno()).st_mtime_ns
        os.utime(file.fileno(), ns=(now, now - earlier))
        os.rename(temporary, path)
        status = os.fstat(file.fileno())
    return path, status, hashlib.sha1(content).hexdigest()


def test_what_we_wrote_is_not_read(lab: Lab) -> None:
    run = lab.hashes()
    written = [put(lab, b'%d' % number, name=f'file{number}') for number in range(3000)]
    for one in written:
        run.written(*one)
    run.save()
    later = lab.hashes()
    assert [later.known(path, status) for path, status, _ in written] == [digest for _, _, digest in written]


def test_what_others_changed_since_we_wrote_it(lab: Lab) -> None:
    changes: dict[str, Callable[[str], object]] = {
        'content': lambda path: Path(path).write_bytes(b'two'),
        'gone': os.unlink,
        'replaced': lambda path: os.rename(lab.file(b'two', 'other'), path),
    }
    for change in changes.values():
        run = lab.hashes()
        path, status, digest = put(lab, b'one')
        run.written(path, status, digest)
        change(path)
        run.save()
        assert lab.hashes().known(path, status) is None
        if os.path.exists(path):
            assert lab.hashes().known(path, os.stat(path)) is None


def test_permission_bits_that_others_changed_say_nothing_of_what_is_in_it(lab: Lab) -> None:
    run = lab.hashes()
    path, status, digest = put(lab, b'one')
    run.written(path, status, digest)
    os.chmod(path, 0o604)
    run.save()
    assert lab.hashes().known(path, os.stat(path)) in (None, digest)


def test_changed_in_the_tick_in_which_we_wrote_it(lab: Lab) -> None:
    """Its mtime tells, for it was given an earlier one; without one it is not remembered."""
    for number in range(300):
        run = lab.hashes()
        path, status, digest = put(lab, b'%08d' % number)
        run.written(path, status, digest)
        with open(path, 'r+b') as file:
            file.write(b'%08d' % -number)
        if number % 30 == 0:
            run.save()
            lab.settle(path)
        else:
            run._confirm(run._pending)
        assert run.known(path, os.stat(path)) in (None, sha1_of(path))
    run = lab.hashes()
    path, status, digest = put(lab, b'one')
    same = os.stat_result(status[:10], {'st_mtime_ns': status.st_ctime_ns, 'st_ctime_ns': status.st_ctime_ns})
    run.written(path, same, digest)
    assert run._pending == []


@pytest.mark.parametrize('kind', ['nfs', 'tmpfs', 'what-else'])
def test_what_we_wrote_elsewhere_is_read(lab: Lab, kind: str) -> None:
    lab.mount(kind)
    run = lab.hashes()
    run.written(*put(lab, b'one'))
    run.save()
    assert not lab.cache.exists()


def test_saving_waits_for_a_tick_and_no_longer(lab: Lab) -> None:
    run = lab.hashes()
    path, status, digest = put(lab, b'one')
    run.written(path, status, digest)
    lab.clock.tick = lambda: status.st_ctime_ns  # type: ignore[method-assign]
    run.save()
    assert 0 < lab.clock.waits < 10
    assert not lab.cache.exists()


# ---- the cache's own files ----------------------------------------------------------------------------------------


def test_it_is_ours_alone(lab: Lab) -> None:
    umask = os.umask(0)
    try:
        lab.learn(lab.settled())
    finally:
        os.umask(umask)
    assert lab.cache.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in lab.cache.iterdir()} == {0o600}


def test_what_others_may_have_written_is_not_read(lab: Lab) -> None:
    path = lab.settled()
    lab.learn(path)
    (shard,) = lab.shards()

    def is_known() -> bool:
        return lab.remembered(path) is not None

    assert is_known()
    for name in (shard, lab.cache):
        mode = name.stat().st_mode & 0o777
        for other in (mode | 0o020, mode | 0o002):
            name.chmod(other)
            assert not is_known()
        name.chmod(mode)
        os.chown(name, 65534, -1)
        assert not is_known()
        os.chown(name, 0, -1)
        assert is_known()
        real = name.with_name('real')
        name.rename(real)
        name.symlink_to(real)
        assert not is_known()
        name.unlink()
        real.rename(name)
        assert is_known()
    content = shard.read_bytes()
    shard.unlink()
    os.mkfifo(shard)
    assert not is_known()
    shard.unlink()
    shard.write_bytes(content)
    shard.chmod(0o600)
    assert is_known()


def test_damaged_at_every_byte(lab: Lab) -> None:
    path = lab.settled()
    lab.learn(path)
    (shard,) = lab.shards()
    content = shard.read_bytes()
    for position in range(len(content)):
        for bits in (0x01, 0x80, 0xFF):
            shard.write_bytes(content[:position] + bytes([content[position] ^ bits]) + content[position + 1 :])
            assert lab.remembered(path) is None
    lab.learn(path)
    assert lab.remembered(path) == sha1_of(path)


def test_truncated_at_every_length(lab: Lab) -> None:
    path = lab.settled()
    lab.learn(path)
    (shard,) = lab.shards()
    content = shard.read_bytes()
    for length in range(len(content)):
        shard.write_bytes(content[:length])
        assert lab.remembered(path) is None
    shard.write_bytes(content + b'x')
    assert lab.remembered(path) is None
    lab.learn(path)
    assert lab.remembered(path) == sha1_of(path)


def test_shapes_that_are_none(lab: Lab) -> None:
    path = lab.settled()
    lab.learn(path)
    (shard,) = lab.shards()
    head = len(hash_files.MAGIC) + 20
    now, boot, offset, groups = marshal.loads(shard.read_bytes()[head:])
    ((folder, (day, names)),) = groups.items()
    ((name, entry),) = names.items()

    def store(value: object) -> None:
        body = marshal.dumps(value)
        shard.write_bytes(hash_files.MAGIC + hashlib.sha1(body).digest() + body)

    store((now, boot, offset, groups))
    assert lab.remembered(path) == sha1_of(path)
    for value in (
        None,
        [now, boot, offset, groups],
        (now, boot, offset),
        (float(now), boot, offset, groups),
        (now, None, offset, groups),
        (now, boot, None, groups),
        (now, boot, offset, [folder]),
        (now, boot, offset, {folder: names}),
        (now, boot, offset, {folder: (None, names)}),
        (now, boot, offset, {folder: (day, [name])}),
        (now, boot, offset, {folder: (day, {name: entry[:-1]})}),
        (now, boot, offset, {folder: (day, {name: entry.decode('latin-1')})}),
        (now, boot, offset, {folder: (day, {name.encode(): entry})}),
        (now, boot, offset, {1: (day, names)}),
    ):
        store(value)
        assert lab.remembered(path) is None, value
    shard.write_bytes(hash_files.MAGIC + hashlib.sha1(b'?').digest() + b'?')
    assert lab.remembered(path) is None
    lab.learn(path)
    assert lab.remembered(path) == sha1_of(path)


def test_other_formats_are_not_read(lab: Lab) -> None:
    path = lab.settled()
    lab.learn(path)
    (shard,) = lab.shards()
    shard.write_bytes(shard.read_bytes().replace(b'hashes 1', b'hashes 2'))
    assert lab.remembered(path) is None


def test_nothing_new_nothing_written(lab: Lab) -> None:
    path = lab.settled()
    lab.learn(path)
    before = [os.stat(shard) for shard in lab.shards()]
    lab.learn(path)
    assert [os.stat(shard).st_ino for shard in lab.shards()] == [one.st_ino for one in before]
    lab.clock.moved = 86400 * SECOND  # that it was used is noted once a day
    for inode in (False, True):
        before = [os.stat(shard) for shard in lab.shards()]
        lab.learn(path)
        assert (os.stat(lab.shards()[0]).st_ino == before[0].st_ino) == inode


def test_what_another_run_saved_meanwhile_stays(lab: Lab) -> None:
    paths = [lab.settled(name.encode(), name) for name in ('one', 'two', 'three')]
    first, second = lab.hashes(), lab.hashes()
    lab.learn(paths[0])
    first.sha1(paths[1])
    second.sha1(paths[2])
    first.save()
    second.save()
    assert [lab.remembered(path) for path in paths] == [sha1_of(path) for path in paths]


RUN = """
import sys
from remote_runner.agent.hashes import Hashes
cache, proc, *paths = sys.argv[1:]
sys.stdin.readline()
for path in paths:
    run = Hashes(cache, proc=proc)
    run.sha1(path)
    run.save()
"""


def test_many_runs_save_at_once(lab: Lab) -> None:
    common = [lab.file(b'%d' % number, f'common{number}') for number in range(10)]
    own = [[lab.file(b'%d %d' % (run, number), f'{run}-{number}') for number in range(40)] for run in range(4)]
    lab.settle(own[-1][-1])
    words = [sys.executable, '-c', RUN, str(lab.cache), str(lab.proc)]
    runs = [subprocess.Popen([*words, *paths, *common], stdin=subprocess.PIPE) for paths in own]
    for run in runs:
        assert run.stdin is not None
        run.stdin.close()
    assert [run.wait(60) for run in runs] == [0] * 4
    for path in [*common, *(path for paths in own for path in paths)]:
        assert lab.remembered(path) == sha1_of(path)
    assert not [path for path in lab.cache.iterdir() if path.suffix]


def test_saving_where_it_cannot_be(lab: Lab) -> None:
    path = lab.settled()
    for nowhere in (f'{path}/cache', '/proc/none/cache', '/dev/null', '/proc/self'):
        run = Hashes(nowhere, lab.clock, str(lab.proc))
        assert run.sha1(path) == sha1_of(path)
        run.save()
        assert run.sha1(path) == sha1_of(path)


def test_full_disk(lab: Lab) -> None:
    path, other = lab.settled(), lab.settled(b'two', 'other')
    lab.learn(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = lab.hashes()
    run.sha1(other)
    before = {entry.name for entry in lab.cache.iterdir()}
    resource.setrlimit(resource.RLIMIT_FSIZE, (60, limits[1]))
    try:
        run.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {entry.name for entry in lab.cache.iterdir()} == before
    assert (lab.remembered(path), lab.remembered(other)) == (sha1_of(path), None)
    run.save()
    assert lab.remembered(other) == sha1_of(other)


def test_a_run_that_was_killed_while_it_saved(lab: Lab) -> None:
    path = lab.settled()
    lab.learn(path)
    (shard,) = lab.shards()
    shard.with_name(shard.name + '.new').write_bytes(b'half')
    rewrite(path, b'two')
    lab.settle(path)
    lab.learn(path)
    assert lab.remembered(path) == sha1_of(path)
    assert not shard.with_name(shard.name + '.new').exists()


def test_a_run_that_never_finishes_saving(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_files, '_PATIENCE', 0.05)
    path = lab.settled()
    lab.cache.mkdir(0o700)
    with hash_files.Home(str(lab.cache), stamps.Mounts(str(lab.proc))) as home:
        home.lock()
        run = lab.hashes()
        run.sha1(path)
        run.save()
        assert lab.shards() == []
    run.save()
    assert lab.remembered(path) == sha1_of(path)


@pytest.mark.parametrize(('kind', 'is_believed'), [('ext4', True), ('nfs', False), ('what-else', False)])
def test_a_home_of_many_hosts(lab: Lab, monkeypatch: pytest.MonkeyPatch, kind: str, is_believed: bool) -> None:
    """What another machine learned of its files says nothing of ours, even if it is a copy of ours."""
    path = lab.settled()
    lab.clock.moved = 61 * SECOND
    real = stamps.Mounts.type
    monkeypatch.setattr(stamps.Mounts, 'type', lambda *one: kind if one[1] == str(lab.cache) else real(*one))
    lab.learn(path)
    assert lab.remembered(path) == sha1_of(path)
    assert {entry.name for entry in lab.cache.iterdir() if entry.is_dir()} == (
        set() if is_believed else {os.uname().nodename}
    )
    lab.boot('two')
    assert lab.remembered(path) == (sha1_of(path) if is_believed else None)


def test_the_least_recently_used_go_first(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_files, 'LIMIT', 60000)
    days: list[list[str]] = []
    for day in range(6):
        (lab.folder / f'day{day}').mkdir()
        days.append([lab.file(b'%d' % number, f'day{day}/{number}') for number in range(150)])
    lab.settle(days[-1][-1])
    for day, paths in enumerate(days):
        lab.clock.moved = day * 86400 * SECOND
        lab.learn(*paths, *days[0][:1])
        assert sum(shard.stat().st_size for shard in lab.shards()) <= 60000
    known = [[lab.remembered(path) for path in paths] for paths in days]
    assert known[5] == [sha1_of(path) for path in days[5]]
    assert known[0] == [sha1_of(path) for path in days[0]]
    assert known[1] == [None] * 150


def test_one_folder_with_too_many_files(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_files, 'LIMIT', 10000)
    paths = [lab.file(b'%d' % number, f'{number}') for number in range(300)]
    lab.settle(paths[-1])
    lab.learn(*paths)
    known = [lab.remembered(path) for path in paths]
    assert 50 < len([digest for digest in known if digest]) < 150
    assert all(digest in (None, sha1_of(path)) for path, digest in zip(paths, known, strict=True))
    assert sum(shard.stat().st_size for shard in lab.shards()) <= 10000


# ---- threads ------------------------------------------------------------------------------------------------------


def test_one_file_holds_up_no_other(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    path, slow = lab.settled(), lab.file(b'two', 'slow')
    run = lab.hashes()
    found: list[str] = []
    digest, entered, may_go_on = hashes.sha1_of, threading.Event(), threading.Event()

    def waiting(*arguments: Any) -> tuple[str, int]:
        if threading.current_thread() is reading:
            entered.set()
            assert may_go_on.wait(60)
        return digest(*arguments)

    monkeypatch.setattr(hashes, 'sha1_of', waiting)
    reading = threading.Thread(target=lambda: found.append(run.sha1(slow)))
    reading.start()
    assert entered.wait(60)
    assert run.sha1(path) == run.known(path, os.stat(path)) == sha1_of(path)
    run.save()
    assert lab.remembered(path) == sha1_of(path)
    assert not found
    may_go_on.set()
    reading.join()
    assert found == [hashlib.sha1(b'two').hexdigest()]


def test_threads_share_it(lab: Lab) -> None:
    paths = []
    for folder in range(20):
        (lab.folder / f'f{folder}').mkdir()
        paths += [lab.file(b'%d' % number, f'f{folder}/{number}') for number in range(20)]
    lab.settle(paths[-1])
    run = lab.hashes()
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(10):
                for path in chance.sample(paths, 100):
                    assert run.sha1(path) == sha1_of(path)
                run.save()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    known = {path: lab.remembered(path) for path in paths}
    assert all(digest in (None, sha1_of(path)) for path, digest in known.items())
    assert sum(digest is not None for digest in known.values()) > 300


# ---- whatever happens ---------------------------------------------------------------------------------------------

_file = st.integers(0, 2)
_content = st.integers(0, 3)
_run = st.integers(0, 1)
_steps = st.one_of(
    st.tuples(st.sampled_from(['write', 'rewrite', 'replace', 'put', 'map']), _file, _content),
    st.tuples(st.sampled_from(['swap', 'link']), _file, _file),
    st.tuples(st.sampled_from(['sha1', 'sha1', 'sha1']), _run, _file),
    st.tuples(st.sampled_from(['save', 'reload']), _run),
    st.tuples(st.just('settle')),
    st.tuples(st.just('clock'), st.integers(0, 3)),
)


class World:
    """Three files, two runs, and all that may happen to them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.paths = [lab.file(b'content0', f'file{number}') for number in range(3)]
        self.runs = [lab.hashes(), lab.hashes()]

    def check(self) -> None:
        for run in self.runs:
            for path in self.paths:
                assert {run.known(path, os.stat(path)), told(run, path)} <= {None, sha1_of(path)}

    def do(self, step: str, *arguments: int) -> None:
        getattr(self, f'do_{step}')(*arguments)

    def do_write(self, file: int, content: int) -> None:
        Path(self.paths[file]).write_bytes(b'content%d' % content)

    def do_rewrite(self, file: int, content: int) -> None:
        rewrite(self.paths[file], b'content%d' % content)

    def do_replace(self, file: int, content: int) -> None:
        before = os.stat(self.paths[file])
        other = self.lab.file(b'content%d' % content, 'other')
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.rename(other, self.paths[file])

    def do_put(self, file: int, content: int) -> None:
        self.runs[0].written(*put(self.lab, b'content%d' % content, name=f'file{file}'))

    def do_map(self, file: int, content: int) -> None:
        with open(self.paths[file], 'r+b') as opened, mmap.mmap(opened.fileno(), 8) as mapping:
            mapping[7:8] = b'9'
            self.runs[0].sha1(self.paths[file])
            mapping[7:8] = b'%d' % content

    def do_swap(self, one: int, two: int) -> None:
        other = str(self.lab.folder / 'other')
        os.rename(self.paths[one], other)
        with suppress(FileNotFoundError):  # it may be the same
            os.rename(self.paths[two], self.paths[one])
        os.rename(other, self.paths[two])

    def do_link(self, one: int, two: int) -> None:
        if one != two:
            os.unlink(self.paths[one])
            os.link(self.paths[two], self.paths[one])

    def do_sha1(self, run: int, file: int) -> None:
        assert self.runs[run].sha1(self.paths[file]) == sha1_of(self.paths[file])

    def do_save(self, run: int) -> None:
        self.runs[run].save()

    def do_reload(self, run: int) -> None:
        self.runs[run] = self.lab.hashes()

    def do_settle(self) -> None:
        for path in self.paths:
            self.lab.settle(path)

    def do_clock(self, back: int) -> None:
        """Behind the file systems', which nobody may set here."""
        self.lab.clock.moved = -back * SECOND // 100


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(st.lists(_steps, min_size=5, max_size=30))
def test_no_hash_is_ever_stale(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as folder:
        world = World(Lab(Path(folder)))
        for step in steps:
            world.do(*step)
            world.check()
