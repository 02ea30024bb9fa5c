"""RR4, RR11: the engine that brings files, against an agent of this machine: what stands there afterwards, what went
over for it, and what is left when it is interrupted.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote_runner.agent.copies import temporary_path
from remote_runner.agent.main import Agent, describe
from remote_runner.agent.processes import is_gone, start_time
from remote_runner.errors import ConnectionLost, HostError, RequestFailed, TransferFailed
from remote_runner.files.delta import BLOCK
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import Placed, build_manifest
from remote_runner.hosts.bootstrap import Started
from remote_runner.hosts.call import Call
from remote_runner.hosts.connection import Connection
from remote_runner.hosts.host import Host
from remote_runner.hosts.local import LocalChannel, LocalConnection
from remote_runner.hosts.local_streams import LocalStreams
from remote_runner.wire.columns import ANY_TIME
from tests.bringing import MTIME, Cut, Deaf, Lab, facts, ignore, mode, placed, wait_for_end, write
from tests.commands import ROOT
from tests.test_files import ODD_NAMES
from tests.testbed.process import wait_until

MB = 1 << 20


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab(tmp_path / 'lab')
    monkeypatch.setenv('HOME', str(lab.home))
    for name in ('XDG_CACHE_HOME', 'XDG_STATE_HOME'):
        monkeypatch.delenv(name, raising=False)
    return lab


@contextmanager
def umask(bits: int) -> Iterator[None]:
    before = os.umask(bits)
    try:
        yield
    finally:
        os.umask(before)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def punched(path: Path, size: int, *data: tuple[int, bytes]) -> Path:
    """A sparse file with data at these offsets."""
    with write(path).open('wb') as file:
        for offset, content in data:
            file.seek(offset)
            file.write(content)
        file.truncate(size)
    os.utime(path, ns=(MTIME, MTIME))
    return path


def taken(path: Path) -> int:
    """Bytes that a file takes on the disk."""
    os.sync()
    return path.stat().st_blocks * 512


def ranges(path: Path) -> list[tuple[int, int]]:
    """Where in a file data are."""
    found, at = [], 0
    with path.open('rb') as file:
        while True:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return found
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            found.append((at, end))
            at = end


class Prefixed(LocalConnection):
    """One whose agent's shell does something first."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix

    def open(self, command: str) -> LocalChannel:
        return super().open(self._prefix + command)


class TestModes:
    MODES = (0o644, 0o755, 0o600, 0o444, 0o666, 0o777, 0o4755, 0o2755, 0o6711, 0o1644, 0o111, 0o000)

    @pytest.mark.parametrize(('ours', 'theirs'), list(itertools.product((0o077, 0o000), repeat=2)))
    def test_of_files_whatever_the_umasks(self, lab: Lab, ours: int, theirs: int) -> None:
        for bits in self.MODES:
            write(lab.here / f'{bits:o}', f'{bits:o}', bits)
        write(lab.here / 'large', noise(MB + 1), 0o4751)
        write(lab.here / 'empty', '', 0o640)
        lab.connect = lambda: Prefixed(f'umask {theirs:04o}; ')
        with umask(ours):
            assert lab.bring().names(lab.there)['send'] == {path.name for path in lab.here.iterdir()}
            lab.is_equal()
            for path in lab.here.iterdir():
                path.chmod(mode(path) ^ 0o4022)
            brought = lab.bring()
        assert brought.sent == 0
        assert brought.names(lab.there)['modes'] == {path.name for path in lab.here.iterdir()}
        lab.is_equal()

    @pytest.mark.parametrize('mask', [0o077, 0o000])
    def test_of_folders(self, lab: Lab, mask: int) -> None:
        for bits in (0o700, 0o755, 0o2775, 0o1777, 0o500, 0o550):
            folder = lab.here / f'{bits:o}/deeper'
            folder.mkdir(parents=True)
            write(folder / 'file')
            folder.chmod(bits)
            folder.parent.chmod(bits)
        (lab.here / 'theirs').mkdir(0o700)
        (lab.there / 'theirs').mkdir(0o711)
        with umask(mask):
            lab.bring(reversed(placed(lab.here, lab.there)))  # each folder behind what is in it
        lab.is_equal()
        for folder in lab.here.glob('[0-9]*'):
            for one in (folder, folder / 'deeper'):
                # We must be able to write into it.
                assert mode(lab.there / one.relative_to(lab.here)) == mode(one) | 0o700
        assert mode(lab.there / 'theirs') == 0o711
        assert lab.bring().sent == 0

    def test_of_folders_that_nobody_named_are_those_of_the_umask(self, lab: Lab) -> None:
        file = write(lab.here / 'file')
        lab.here.chmod(0o700)
        with umask(0o027):
            lab.bring([Placed(str(file), f'{lab.there}/new/deeper/file')])
        assert mode(lab.there / 'new') == mode(lab.there / 'new/deeper') == 0o750


class TestNames:
    def test_any(self, lab: Lab) -> None:
        names = [os.fsdecode(name) for name in [*ODD_NAMES, b'~root', b'~~', b'.rr', b'-', b'--', b'\r', b"'", b'"']]
        for number, name in enumerate(names):
            write(lab.here / 'files' / name, os.fsencode(name), 0o600 + number, MTIME + number)
            write(lab.here / 'folders' / name / name, b'', 0o600 + number, -MTIME + number)
            (lab.here / 'links').mkdir(exist_ok=True)
            (lab.here / 'links' / name).symlink_to(name)
            (lab.here / 'empty' / name).mkdir(parents=True)
        assert len(lab.bring().difference.send) == 2 * len(names)
        lab.is_equal()
        again = lab.bring()
        assert (again.names(lab.there), again.sent) == ({what: set() for what in again.names(lab.there)}, 0)

    def test_a_home(self, lab: Lab) -> None:
        file = write(lab.here / 'file')
        lab.bring([Placed(str(file), '~/deep/~'), Placed(str(file), '~/~root')])
        assert (lab.home / 'deep/~').read_text() == (lab.home / '~root').read_text() == 'content\n'
        before = set(os.listdir('/'))
        for path in ('~', '~root'):
            for lab.always_copy in (False, True):
                with pytest.raises(TransferFailed, match='is a folder'):
                    lab.bring([Placed(str(file), path)])
        assert set(os.listdir('/')) == before
        assert lab.rubbish() == []

    def test_one_source_for_many_targets(self, lab: Lab) -> None:
        small, large = write(lab.here / 'small'), write(lab.here / 'large', noise(2 * MB))
        targets = [f'{lab.there}/{number}/{file.name}' for number in range(3) for file in (small, large)]
        brought = lab.bring([Placed(str(lab.here / os.path.basename(target)), target) for target in targets])
        assert brought.sent == 3 * (8 + 2 * MB)
        for number in range(3):
            assert facts(lab.there / str(number)) == facts(lab.here)
        assert lab.rubbish() == []


@pytest.fixture(params=['compared', 'always copied'])
def either(request: pytest.FixtureRequest, lab: Lab) -> Lab:
    """Whether it was looked what is there already."""
    lab.always_copy = request.param == 'always copied'
    return lab


class TestLinks:
    TEXTS = ('./x/', 'nowhere', '/etc/passwd', '..', 'self', os.fsdecode(b'\xff\n'), 'x' * 4000, '~')

    def test_are_kept_to_the_letter(self, either: Lab) -> None:
        lab = either
        for number, text in enumerate(self.TEXTS):
            os.symlink(text, lab.here / str(number))  # pathlib would not keep the letter
        assert len(lab.bring().difference.links) == len(self.TEXTS)
        lab.is_equal()
        inodes = {path.name: path.lstat().st_ino for path in lab.there.iterdir()}
        assert len(lab.bring().difference.links) == (len(self.TEXTS) if lab.always_copy else 0)
        lab.is_equal()
        if not lab.always_copy:
            assert {path.name: path.lstat().st_ino for path in lab.there.iterdir()} == inodes

    def test_replace_files_and_links(self, either: Lab) -> None:
        lab = either
        write(lab.there / 'file', 'theirs')
        (lab.there / 'link').symlink_to('file')
        (lab.there / 'folder').mkdir()
        (lab.there / 'to-folder').symlink_to('folder')
        for name in ('link', 'to-folder', 'file'):
            (lab.here / name).symlink_to('other')
        (lab.here / 'folder').mkdir()
        lab.bring()
        lab.is_equal()

    def test_replace_no_folder(self, either: Lab) -> None:
        lab = either
        write(lab.there / 'taken/file', 'theirs')
        (lab.here / 'taken').symlink_to('other')
        with pytest.raises(TransferFailed, match=re.escape(f'{lab.there}/taken')):
            lab.bring()
        assert (lab.there / 'taken/file').read_text() == 'theirs'
        assert lab.rubbish() == []

    def test_that_are_targets_stay_and_what_they_point_to_is_replaced(self, either: Lab) -> None:
        lab = either
        write(lab.there / 'real/file', 'old')
        for name, text in {'link': 'real/file', 'twice': 'link', 'dangling': 'real/new', 'deep': 'gone/deep/x'}.items():
            (lab.there / name).symlink_to(text)
            write(lab.here / name, f'new {text if name != "twice" else "real/file"}', 0o640)
        write(lab.here / 'large', noise(MB), 0o755)
        (lab.there / 'large').symlink_to('real/large')
        lab.bring()
        for name in ('link', 'twice', 'dangling', 'deep', 'large'):
            assert (lab.there / name).is_symlink()
            assert (lab.there / name).read_bytes() == (lab.here / name).read_bytes()
            assert mode(lab.there / name) == mode(lab.here / name)
        assert (lab.there / 'real/file').read_text() == 'new real/file'
        assert sorted(path.name for path in (lab.there / 'real').iterdir()) == ['file', 'large', 'new']
        assert lab.rubbish() == []
        if not lab.always_copy:
            assert lab.bring().sent == 0

    def test_that_lead_to_themselves(self, lab: Lab) -> None:
        (lab.there / 'loop').symlink_to('loop')
        write(lab.here / 'loop')
        with pytest.raises(TransferFailed, match=re.escape(f'{lab.there}/loop')):
            lab.bring()
        assert os.readlink(lab.there / 'loop') == 'loop'


class TestWhatIsInTheWay:
    @pytest.mark.parametrize('size', [8, MB])
    def test_a_folder_where_a_file_should_be(self, either: Lab, size: int) -> None:
        lab = either
        write(lab.here / 'taken', bytes(size))
        for is_link in (False, True):
            if is_link:
                (lab.there / 'taken').rename(lab.there / 'elsewhere')
                (lab.there / 'taken').symlink_to('elsewhere')
            else:
                write(lab.there / 'taken/file', 'theirs')
            with pytest.raises(TransferFailed, match=r'taken|elsewhere') as caught:
                lab.bring()
            assert 'is a folder' in str(caught.value)
            assert (lab.there / 'taken/file').read_text() == 'theirs'
            assert lab.rubbish() == []

    @pytest.mark.parametrize('kind', ['folder', 'file', 'link'])
    def test_a_file_where_a_folder_should_be(self, either: Lab, kind: str) -> None:
        lab = either
        write(lab.there / 'taken', 'theirs')
        if kind == 'folder':
            (lab.here / 'taken').mkdir()
        elif kind == 'file':
            write(lab.here / 'taken/file')
        else:
            (lab.here / 'taken').mkdir()
            (lab.here / 'taken/link').symlink_to('x')
        with pytest.raises(TransferFailed, match=re.escape(f'{lab.there}/taken')):
            lab.bring()
        assert (lab.there / 'taken').read_text() == 'theirs'
        assert lab.rubbish() == []

    def test_what_is_neither_is_replaced(self, either: Lab) -> None:
        lab = either
        os.mkfifo(lab.there / 'fifo')
        os.mkfifo(lab.there / 'large')
        write(lab.here / 'fifo')
        write(lab.here / 'large', noise(MB))
        lab.bring()
        lab.is_equal()

    def test_a_running_executable(self, either: Lab) -> None:
        lab = either
        shutil.copy('/bin/sleep', lab.there / 'program')
        write(lab.here / 'program', Path('/bin/cat').read_bytes(), 0o755)
        with subprocess.Popen([lab.there / 'program', '1000']) as old:
            lab.bring()
            lab.is_equal()
            assert old.poll() is None
            old.kill()
        assert subprocess.run([lab.there / 'program'], input=b'it runs', capture_output=True).stdout == b'it runs'


class TestTimes:
    TIMES = (0, 1, -1, -MTIME, 1, 999_999_999, MTIME, 2**33 * 10**9 + 7)

    def test_are_kept(self, lab: Lab) -> None:
        for number, mtime in enumerate(self.TIMES):
            write(lab.here / f'small {number}', f'{number}', mtime=mtime)
        write(lab.here / 'large', noise(MB), mtime=MTIME + 1)
        lab.bring()
        lab.is_equal()

    def test_alone_may_differ(self, lab: Lab) -> None:
        for name, content in {'a': b'a', 'b': b'', 'c': noise(MB), 'd': b'd'}.items():
            write(lab.here / name, content)
        lab.bring()
        inodes = {path.name: path.stat().st_ino for path in lab.there.iterdir()}
        for name in 'abc':
            os.utime(lab.here / name, ns=(MTIME + 1, MTIME + 1))
        brought = lab.bring()
        assert brought.names(lab.there) == {'send': set(), 'modes': set(), 'times': {'a', 'b', 'c'}, 'links': set()}
        assert brought.sent == 0
        lab.is_equal()
        assert {path.name: path.stat().st_ino for path in lab.there.iterdir()} == inodes

    def test_are_not_kept(self, lab: Lab) -> None:
        lab.times = False
        write(lab.here / 'a', 'a', mtime=MTIME)
        write(lab.here / 'b', noise(MB), mtime=MTIME)
        lab.bring()
        lab.is_equal()
        for name in 'ab':
            assert (lab.there / name).stat().st_mtime_ns > MTIME
        before = facts(lab.there)
        assert lab.bring().names(lab.there)['times'] == set()
        assert facts(lab.there) == before

    @pytest.mark.parametrize('remembered', [True, False])
    @pytest.mark.parametrize('where', ['here', 'there'])
    def test_say_nothing_of_content(self, lab: Lab, remembered: bool, where: str) -> None:
        """Same size, and the time it had: what was remembered of it must not be believed."""
        lab.remembered = remembered
        names = {'small': 5, 'large': MB}
        for name, size in names.items():
            write(lab.here / name, noise(size))
        write(lab.here / 'same')
        for _ in range(2):  # both sides remember what they can
            lab.bring()
        for name, size in names.items():
            file = (lab.here if where == 'here' else lab.there) / name
            with file.open('r+b') as stream:
                stream.write(noise(size, 2))
            os.utime(file, ns=(MTIME, MTIME))
        assert lab.bring().names(lab.there)['send'] == set(names)
        lab.is_equal()


class TestSparse:
    def test_beyond_4_gib(self, lab: Lab) -> None:
        size = (4 << 30) + 12345
        end = noise(12345 + 4096)
        file = punched(lab.here / 'large', size, (size - len(end), end))
        assert lab.bring().sent < 2 * BLOCK
        there = lab.there / 'large'
        assert there.stat().st_size == size
        assert taken(there) <= taken(file) + BLOCK
        assert ranges(there) == ranges(file)
        with there.open('rb') as stream:
            stream.seek(size - len(end))
            assert stream.read() == end
        assert there.stat().st_mtime_ns == MTIME
        assert lab.rubbish() == []

    HOLES: ClassVar = {
        'nothing': (40 * MB, []),
        'at the begin': (8 * MB, [(7 * MB, noise(MB))]),
        'in the middle': (8 * MB, [(0, noise(MB)), (7 * MB + 4096, noise(MB - 4096))]),
        'at the end': (8 * MB + 5, [(0, noise(5))]),
        'many': (8 * MB, [(number * 2 * 8192, noise(8192, number)) for number in range(100)]),
        'small': (200_000, [(100_000, b'x')]),
    }

    @pytest.mark.parametrize('holes', HOLES)
    def test_holes_stay(self, either: Lab, holes: str) -> None:
        lab = either
        size, data = self.HOLES[holes]
        file = punched(lab.here / 'file', size, *data)
        there = lab.there / 'file'
        brought = lab.bring()
        assert brought.sent <= (taken(file) if size >= MB else size)
        lab.is_equal()
        if size >= MB:
            assert ranges(there) == ranges(file)
        # It changes in part: what did not, is as it was there, and what is a hole by now needs not be sent.
        punched(file, size + 3 * MB, *data[1:], (size + MB, noise(10_000)))
        brought = lab.bring()
        lab.is_equal()
        assert ranges(there) == ranges(file) or size < MB
        if not lab.always_copy:
            assert brought.sent <= 10_000 + 3 * BLOCK + (size if size < MB else 0)

    def test_instead_of_data(self, lab: Lab) -> None:
        """A hole is no data, whatever stood there."""
        write(lab.there / 'file', noise(2 * MB))
        file = punched(lab.here / 'file', 64 * MB, (32 * MB, noise(MB)))
        assert lab.bring().sent <= MB + 2 * BLOCK
        lab.is_equal()
        assert ranges(lab.there / 'file') == ranges(file)

    def test_zeros_are_data_where_they_were(self, lab: Lab) -> None:
        """Room that somebody has taken is not given away."""
        content = noise(MB) + bytes(4 * MB) + noise(MB, 2)
        write(lab.here / 'file', content)
        lab.bring()
        write(lab.here / 'file', b'changed' + content[7:])
        assert lab.bring().sent <= BLOCK
        lab.is_equal()
        assert taken(lab.there / 'file') >= len(content)

    def test_interrupted(self, lab: Lab) -> None:
        file = punched(lab.here / 'file', 96 * MB, (0, noise(2 * MB)), (64 * MB, noise(8 * MB)))
        lose_after(lab, 5 * MB)
        [copy] = lab.copies()
        came = copy.stat().st_size - 62 * MB
        assert came > 3 * MB
        assert lab.bring().sent <= 10 * MB - came + BLOCK
        lab.is_equal()
        assert ranges(lab.there / 'file') == ranges(file)

    def test_interrupted_and_data_became_a_hole(self, lab: Lab) -> None:
        punched(lab.here / 'file', 16 * MB, (0, noise(8 * MB)))
        lose_after(lab, 6 * MB)
        punched(lab.here / 'file', 16 * MB, (0, noise(MB)), (10 * MB, noise(MB, 3)))
        assert lab.bring().sent <= MB + BLOCK
        lab.is_equal()


def lose_after(lab: Lab, size: int, *names: str) -> None:
    """Bring all, or files of these names, and kill the agent when so many bytes were sent."""
    hosts: list[Host] = []
    sent = 0

    def limit(length: int) -> None:
        nonlocal sent
        sent += length
        if sent > size >= sent - length:
            os.kill(hosts[0].facts.pid, signal.SIGKILL)
            wait_for_end(hosts[0].facts.pid)

    what = [Placed(str(lab.here / name), str(lab.there / name)) for name in names]
    with changed(lab, met=hosts.append, limit=limit), pytest.raises(ConnectionLost):
        lab.bring(what or None)


@contextmanager
def changed(lab: Lab, **values: Any) -> Iterator[None]:
    """While this lasts, a lab has other attributes."""
    before = {name: getattr(lab, name) for name in values}
    for name, value in values.items():
        setattr(lab, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(lab, name, value)


class TestWhileItIsSent:
    @pytest.mark.parametrize('size', [200_000, 4 * MB])
    @pytest.mark.parametrize('how', ['grows', 'shrinks', 'changes', 'is replaced', 'vanishes'])
    def test_a_file_of_ours(self, lab: Lab, size: int, how: str) -> None:
        for name in ('a', 'b'):
            write(lab.here / name, noise(size))
            write(lab.there / name, 'old')
        file = lab.here / 'b'

        def change(length: int) -> None:
            if how == 'grows':
                with file.open('ab') as stream:
                    stream.write(b'more')
            elif how == 'shrinks':
                os.truncate(file, size // 2)
            elif how == 'changes':
                with file.open('r+b') as stream:
                    stream.seek(size - 1)
                    stream.write(b'!')
            else:
                file.unlink(missing_ok=True)
                if how == 'is replaced':
                    write(file, noise(size, 2), mtime=MTIME + 1)

        lab.limit = change
        if size < MB:  # it is read at once
            lab.between = lambda: change(0)
        expected = {'shrinks': 'became shorter|was changed', 'vanishes': 'cannot read'}.get(how, 'was changed')
        with pytest.raises(TransferFailed, match=f'{re.escape(str(file))}.*({expected})|{expected}.*{file}'):
            lab.bring()
        assert (lab.there / 'b').read_text() == 'old'
        lab.limit = lambda length: None
        lab.between = lambda: None
        write(file, noise(size + 1, 3))
        lab.bring()
        lab.is_equal()

    @pytest.mark.parametrize('size', [200_000, 4 * MB])
    def test_a_file_of_ours_changes_and_its_time_is_set_back(self, lab: Lab, size: int) -> None:
        file = write(lab.here / 'file', noise(size))
        write(lab.there / 'file', 'old')
        before = file.stat()

        def change(length: int = 0) -> None:
            with file.open('r+b') as stream:
                stream.write(b'?')  # where it was read already
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

        if size < MB:  # it is read at once
            lab.between = change
        else:
            lab.limit = change
        with pytest.raises(TransferFailed, match=f'{re.escape(str(file))} was changed while it was copied'):
            lab.bring()
        assert (lab.there / 'file').read_text() == 'old'
        assert file.stat()[:9] == before[:9]  # all but the ctime
        with changed(lab, between=lambda: None, limit=lambda length: None):
            lab.bring()
        lab.is_equal()

    @pytest.mark.parametrize(('what', 'told'), [('time', 'the time of'), ('mode', 'the permission bits of')])
    def test_a_file_there_that_needs_no_content_is_gone(self, lab: Lab, what: str, told: str) -> None:
        write(lab.here / 'file')
        there = write(lab.there / 'file', mode=0o600 if what == 'mode' else 0o644, mtime=MTIME - (what == 'time'))
        lab.between = there.unlink
        with pytest.raises(TransferFailed, match=f'cannot set {told} {re.escape(str(there))}.*: No such file'):
            lab.bring()

    def test_two_agents_write_one_file(self, lab: Lab) -> None:
        contents = {}
        start = threading.Barrier(3)
        for name in 'abc':
            contents[name] = write(lab.here / name, noise(8 * MB, ord(name)))
        failures: list[BaseException] = []

        def bring(name: str) -> None:
            try:
                with Host('localhost', LocalConnection(), lambda host, header: None) as host:
                    start.wait(30)
                    for _ in range(3):
                        lab.bring_to(host, [Placed(str(contents[name]), f'{lab.there}/file')])
            except (HostError, TransferFailed) as error:
                failures.append(error)

        threads = [threading.Thread(target=bring, args=(name,)) for name in 'abc']
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert (lab.there / 'file').read_bytes() in [path.read_bytes() for path in contents.values()]
        assert [path.name for path in lab.there.iterdir()] == ['file']
        assert lab.rubbish() == []


SIZE = 16 * MB
OLD = noise(SIZE)
CHANGES: dict[str, tuple[bytes, int]] = {
    'in place': (OLD[: 5 * MB] + noise(1000, 2) + OLD[5 * MB + 1000 :], BLOCK),
    'in place across two pieces': (OLD[: 5 * MB - 5] + b'0123456789' + OLD[5 * MB + 5 :], 2 * BLOCK),
    'in three places': (b'!' + OLD[1 : 8 * MB] + b'!' + OLD[8 * MB + 1 : -1] + b'!', 3 * BLOCK),
    'the last byte': (OLD[:-1] + bytes([OLD[-1] ^ 1]), BLOCK),
    'appended': (OLD + noise(100_000, 2), 100_000 + BLOCK),
    'truncated': (OLD[: 10 * MB + 5], BLOCK),
    'inserted in the middle': (OLD[: 7 * MB + 77] + b'hello' + OLD[7 * MB + 77 :], 2 * BLOCK),
    'taken out of the middle': (OLD[: 7 * MB + 77] + OLD[9 * MB + 3 :], 2 * BLOCK),
    'prepended': (noise(100_001, 2) + OLD, 100_001 + BLOCK),
    'the begin taken away': (OLD[333:], BLOCK),
    'twice as long': (OLD + OLD, SIZE),
}


class TestDelta:
    @pytest.mark.parametrize('what', CHANGES)
    def test_only_what_changed_is_sent(self, lab: Lab, what: str) -> None:
        content, limit = CHANGES[what]
        write(lab.there / 'file', OLD, mtime=MTIME - 1)
        write(lab.here / 'file', content, 0o751)
        brought = lab.bring()
        lab.is_equal()
        assert 0 <= brought.sent <= limit
        assert sum(map(len, [content])) >= brought.sent
        assert lab.bring().sent == 0

    def test_all_of_it_changed(self, lab: Lab) -> None:
        write(lab.there / 'file', OLD)
        write(lab.here / 'file', noise(SIZE, 2))
        assert lab.bring().sent == SIZE
        lab.is_equal()

    def test_nothing_changed(self, lab: Lab) -> None:
        lab.remembered = False
        write(lab.there / 'file', OLD)
        write(lab.here / 'file', OLD)
        assert lab.bring().sent == 0
        lab.is_equal()

    @pytest.mark.parametrize('how', ['changes', 'shrinks', 'is emptied', 'is gone', 'is a fifo'])
    def test_what_is_there_is_another_one_by_then(self, lab: Lab, how: str) -> None:
        """What was to be taken from there is sent after all, and nothing else is sent twice."""
        write(lab.there / 'file', OLD)
        write(lab.there / 'other', OLD)
        write(lab.here / 'file', OLD[: 10 * MB] + b'!' + OLD[10 * MB + 1 :])
        write(lab.here / 'other', OLD[: 5 * MB] + b'!' + OLD[5 * MB + 1 :])
        write(lab.here / 'small')
        file = lab.there / 'file'

        def change() -> None:
            if how == 'changes':
                with file.open('r+b') as stream:
                    stream.write(b'theirs')
            elif 'is' in how.split():
                file.unlink()
                if 'fifo' in how:
                    os.mkfifo(file)
                elif 'emptied' in how:
                    file.touch()
            else:
                os.truncate(file, MB)

        lab.between = change
        assert SIZE <= lab.bring().sent <= SIZE + 2 * BLOCK + 8
        lab.is_equal()

    def test_what_is_there_is_a_folder_by_then(self, lab: Lab) -> None:
        file = write(lab.there / 'file', OLD)
        write(lab.here / 'file', OLD[:-1])

        def change() -> None:
            file.unlink()
            write(file / 'inside')

        lab.between = change
        with pytest.raises(TransferFailed, match=re.escape(f'{file} is a folder')):
            lab.bring()
        assert (file / 'inside').exists()
        assert lab.rubbish() == []

    def test_many_files_with_few_open(self, lab: Lab) -> None:
        """Each is looked into, on both sides, and not all at once."""
        for number in range(80):
            write(lab.there / f'{number}', noise(MB, number))
            write(lab.here / f'{number}', noise(MB - 1, number) + b'!')
        lab.connect = lambda: Prefixed('ulimit -n 40; ')
        open_now = len(os.listdir('/proc/self/fd'))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 25, hard))
        try:
            brought = lab.bring()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert brought.sent == 80 * BLOCK
        lab.is_equal()


class TestCutAnywhere:
    """A small run of all that there is, cut at every frame, and in the middle of each."""

    def prepare(self, lab: Lab) -> None:
        for folder in (lab.here, lab.there):
            shutil.rmtree(folder)
            folder.mkdir()
        large = noise(2 * MB + 500_000)
        write(lab.here / 'new', large, 0o750)
        write(lab.here / 'changed', large[:-1] + b'!')
        write(lab.there / 'changed', large)
        for number in range(5):
            write(lab.here / f'folder/{number}', f'new {number}')
            write(lab.there / f'folder/{number}', f'old {number}')
        write(lab.here / 'empty', '')
        write(lab.here / 'mode', mode=0o755)
        write(lab.there / 'mode')
        write(lab.here / 'time')
        write(lab.there / 'time', mtime=MTIME - 1)
        (lab.here / 'link').symlink_to('new')
        (lab.there / 'link').symlink_to('old')
        (lab.here / 'no files').mkdir()

    @pytest.mark.parametrize(('step', 'part'), [(1, 0.0), (3, 0.6)])
    def test_leaves_old_files_or_new_ones(self, lab: Lab, step: int, part: float) -> None:
        resumed = 0
        for writes in itertools.count(0, step):
            cut = Cut(writes, part)
            resumed += self.check(lab, cut, lambda _, cut=cut: setattr(cut, 'is_armed', True))
            if not cut.is_cut:
                break
        assert writes > 15
        assert resumed > 0

    def test_and_so_does_an_agent_that_is_killed_at_any_of_its_answers(self, lab: Lab) -> None:
        for reads in itertools.count():
            deaf = Deaf(reads)
            self.check(lab, deaf, lambda host, deaf=deaf: setattr(deaf, 'pid', host.facts.pid))
            if not deaf.is_cut:
                break
        assert reads > 8

    def check(self, lab: Lab, cut: Cut | Deaf, met: Callable[[Host], object]) -> bool:
        """Bring all over a connection that is cut, and then once more; whether something could be gone on with."""
        self.prepare(lab)
        before, wanted = facts(lab.there), facts(lab.here)
        try:
            with changed(lab, connect=lambda: cut, met=met):
                lab.bring()
        except HostError:
            assert cut.is_cut
        after = {name: fact for name, fact in facts(lab.there).items() if b'.rr-' not in name}
        for name, fact in after.items():
            mixed = name in (b'mode', b'time')  # they are set one after the other
            assert fact in (before.get(name), wanted[name]) or mixed, name
            assert not mixed or fact[2] == wanted[name][2]
        own = temporary_path('', 'new')[-8:]  # tells of which file a copy is
        came = sum(path.stat().st_size for path in lab.copies() if path.name.endswith(own))
        if isinstance(cut, Cut):  # which lets the agent clean up
            assert all(path.stat().st_size >= MB for path in lab.copies())
        else:
            came = came if came >= MB else 0
        missing = sum((lab.here / os.fsdecode(name)).stat().st_size for name in wanted.keys() - after.keys())
        brought = lab.bring()
        lab.is_equal()
        assert brought.sent <= missing - came + 2 * BLOCK + 5 * len('new 0')
        return came > 0


MASTER = """
import os, signal, sys
from pathlib import Path
from tests.bringing import Lab
lab = Lab(Path(sys.argv[1]))
sent = 0

def limit(size):
    global sent
    sent += size
    if sent > int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

lab.limit = limit
lab.met = lambda host: print(host.facts.pid, flush=True)
lab.bring()
"""


class TestInterrupted:
    SIZE = 64 * MB

    def large(self, lab: Lab, name: str = 'large', seed: int = 1) -> Path:
        write(lab.there / name, 'old')
        return write(lab.here / name, noise(self.SIZE, seed))

    def is_resumed(self, lab: Lab) -> None:
        [copy] = lab.copies()
        there = copy.stat().st_size
        assert there > 15 * MB
        assert (lab.there / 'large').read_text() == 'old'
        assert self.SIZE - there <= lab.bring().sent <= self.SIZE - there + BLOCK
        lab.is_equal()

    def test_the_agent_is_killed(self, lab: Lab) -> None:
        self.large(lab)
        lose_after(lab, 20 * MB)
        self.is_resumed(lab)

    def test_the_master_is_killed(self, lab: Lab) -> None:
        self.large(lab)
        command = [sys.executable, '-c', MASTER, str(lab.folder), str(20 * MB)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        wait_for_end(int(done.stdout))
        self.is_resumed(lab)

    def test_twice(self, lab: Lab) -> None:
        self.large(lab)
        lose_after(lab, 20 * MB)
        lose_after(lab, 20 * MB)
        [copy] = lab.copies()
        assert copy.stat().st_size > 35 * MB
        self.is_resumed(lab)

    @pytest.mark.parametrize('how', ['in what came', 'behind it', 'it is shorter', 'all of it', 'longer'])
    def test_and_ours_changed_meanwhile(self, lab: Lab, how: str) -> None:
        file = self.large(lab)
        content = file.read_bytes()
        lose_after(lab, 20 * MB)
        there = lab.copies()[0].stat().st_size
        changed = {
            'in what came': (b'!' + content[1:], self.SIZE - there + 2 * BLOCK),
            'behind it': (content[:-1] + b'!', self.SIZE - there + BLOCK),
            'it is shorter': (content[: 2 * MB + 5], BLOCK),
            'all of it': (noise(self.SIZE, 2), self.SIZE),
            'longer': (content + content[:1000], self.SIZE - there + 1000 + BLOCK),
        }
        new, limit = changed[how]
        write(file, new)
        assert lab.bring().sent <= limit
        lab.is_equal()

    @pytest.mark.parametrize('how', ['is as it is there', 'is gone', 'is a link', 'is not compared'])
    def test_and_is_not_wanted_any_more(self, lab: Lab, how: str) -> None:
        file = self.large(lab)
        write(lab.here / 'other')
        lose_after(lab, 20 * MB)
        assert lab.copies()
        if how == 'is not compared':
            lab.always_copy = True
        else:
            file.unlink()
        if how == 'is as it is there':
            write(file, 'old')
            write(lab.there / 'other')  # so that there is nothing else to do
        elif how == 'is a link':
            file.symlink_to('other')
        lab.bring()
        assert lab.rubbish() == []
        if how == 'is gone':
            assert (lab.there / 'large').read_text() == 'old'
        else:
            lab.is_equal()

    def test_of_two_files(self, lab: Lab) -> None:
        for seed, name in enumerate(['large', 'second']):
            self.large(lab, name, seed)
        lose_after(lab, 20 * MB, 'large')
        lose_after(lab, 20 * MB, 'second', 'large')  # it is there before what it was to go on with
        copies = lab.copies()
        there = sum(path.stat().st_size for path in copies)
        assert len(copies) == 2
        assert lab.bring().sent <= 2 * self.SIZE - there + 2 * BLOCK
        lab.is_equal()

    def test_two_copies_of_one_file(self, lab: Lab) -> None:
        self.large(lab)
        lose_after(lab, 20 * MB)
        [copy] = lab.copies()
        content = (lab.here / 'large').read_bytes()
        journal = next((lab.home / '.cache/remote_runner').glob('copying-*'))
        dead = journal.name.rpartition('-')[2]
        other = dead_pid(int(dead))
        shorter = copy.with_name(copy.name.replace(f'-{dead}-', f'-{other}-'))
        shorter.write_bytes(content[: 3 * MB])
        shutil.copy(journal, journal.with_name(journal.name.replace(dead, str(other))))
        there = copy.stat().st_size
        assert lab.bring().sent <= self.SIZE - there + BLOCK
        lab.is_equal()

    @pytest.mark.parametrize('how', ['gone', 'shorter', 'changed'])
    def test_and_what_came_is_not_there_any_more(self, lab: Lab, how: str) -> None:
        """Between looking at it and going on with it."""
        self.large(lab)
        lose_after(lab, 20 * MB)
        [copy] = lab.copies()

        def between() -> None:
            if how == 'gone':
                copy.unlink()
            elif how == 'shorter':
                os.truncate(copy, 2 * MB)
            else:
                with copy.open('r+b') as file:
                    file.write(b'!')

        lab.between = between
        lab.bring()
        lab.is_equal()

    def test_small_ones_leave_nothing(self, lab: Lab) -> None:
        write(lab.here / 'large', noise(MB - 1))
        cut = Cut(12, 0.5)
        lab.connect = lambda: cut
        lab.met = lambda host: setattr(cut, 'is_armed', True)
        with pytest.raises(HostError):
            lab.bring()
        assert lab.rubbish() == []
        assert list(lab.there.iterdir()) == []

    def test_a_copy_of_another_host_or_of_one_who_lives_is_left_alone(self, lab: Lab) -> None:
        write(lab.here / 'file')
        name = os.path.basename(temporary_path(str(lab.there), 'file'))
        ours = lab.there / name
        theirs = lab.there / name.replace(os.uname().nodename, 'elsewhere')
        for path in (ours, theirs):
            path.write_bytes(noise(MB))
        lab.bring()
        assert sorted(path.name for path in lab.there.iterdir()) == sorted(['file', ours.name, theirs.name])

    @pytest.mark.parametrize('is_large', [True, False])
    def test_and_another_process_has_the_pid_of_the_agent(self, lab: Lab, is_large: bool) -> None:
        self.large(lab)
        lose_after(lab, 20 * MB)
        [copy] = lab.copies()
        [journal] = (lab.home / '.cache/remote_runner').glob('copying-*')
        dead, started = journal.name.split('-')[-2:]
        assert int(started) != start_time(os.getpid())
        for path in (copy, journal):
            path.rename(path.with_name(path.name.replace(f'-{dead}-', f'-{os.getpid()}-')))
        if is_large:
            self.is_resumed(lab)
        else:
            os.truncate(lab.copies()[0], 5)
            write(lab.here / 'large', 'small')
            lab.bring()
            lab.is_equal()

    def test_a_home_that_cannot_be_written(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing can be remembered there: not what was interrupted, and not what is where. All else works."""
        monkeypatch.setenv('HOME', '/proc')
        self.large(lab)
        write(lab.here / 'small')
        lose_after(lab, 20 * MB)
        assert len(lab.copies()) == 1
        assert lab.bring().sent <= self.SIZE + 8
        lab.is_equal()
        assert lab.bring().sent == 0


    def test_and_the_home_cannot_be_written(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('HOME', '/proc')
        cache = Path(f'/tmp/remote_runner-{os.getuid()}/cache')

        def journals() -> list[Path]:
            return [path for path in cache.glob('copying-*') if str(lab.there).encode() in path.read_bytes()]

        self.large(lab)
        lose_after(lab, 20 * MB)
        assert len(journals()) == 1
        self.is_resumed(lab)
        assert journals() == []
        # In a folder that is not copied to any more, nothing stays.
        write(lab.here / 'left/large', noise(self.SIZE, 2))
        lose_after(lab, 20 * MB, 'left/large')
        assert len(lab.copies()) == 1
        shutil.rmtree(lab.here / 'left')
        write(lab.here / 'other')
        lab.bring()
        assert (lab.copies(), journals()) == ([], [])


def test_who_is_gone_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    own, dead = os.getpid(), dead_pid(os.getpid())
    started = start_time(own) or 0
    assert [is_gone(own, started), is_gone(own, 0), is_gone(own, started + 1)] == [False, False, True]
    assert [is_gone(dead, started), is_gone(dead, 0)] == [True, True]
    monkeypatch.setattr('remote_runner.agent.processes.start_time', lambda pid: None)
    assert [is_gone(pid, 0) for pid in (own, 1, dead, 10**20)] == [False, False, True, True]


def dead_pid(near: int) -> int:
    """The number of no process."""
    return next(pid for pid in range(near + 1, near + 100_000) if not Path(f'/proc/{pid}').exists())


class _Pipes(LocalStreams):
    """The way to an agent in this process."""

    def __init__(self, to_agent: int, from_agent: int, agent: Agent, thread: threading.Thread) -> None:
        self._ends = (to_agent, from_agent)
        super().__init__(to_agent, from_agent)
        self._agent = agent
        self._thread = thread
        self.pid = os.getpid()

    def stderr(self) -> bytes:
        return b''

    def _close_files(self) -> None:
        for end in self._ends:
            os.close(end)
        self._thread.join(30)


@pytest.fixture
def inside(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab whose agent is in this process, to be hurt where it hurts."""

    def start_agent(name: str, connection: Connection, python: str | None) -> Started:
        to_agent, from_us = os.pipe()
        to_us, from_agent = os.pipe()
        agent = Agent(to_agent, from_agent)

        def serve() -> None:
            try:
                agent.send(dict(describe(), event='agent'))
                agent.run()
            finally:
                agent.farewell()
                os.close(to_agent)
                os.close(from_agent)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        channel: Any = _Pipes(from_us, to_us, agent, thread)
        return Started(channel, b'', 0.0, '')

    monkeypatch.setattr('remote_runner.hosts.host.start_agent', start_agent)
    return lab


class TestNoRoom:
    @pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG])
    @pytest.mark.parametrize(('size', 'room'), [(5 * MB, 0), (5 * MB, 3000), (5 * MB, 4 * MB), (99_999, 9)])
    def test_at_any_write(
        self, inside: Lab, monkeypatch: pytest.MonkeyPatch, number: int, size: int, room: int
    ) -> None:
        lab = inside
        write(lab.here / 'a', 'fits')
        write(lab.here / 'file', noise(size))
        write(lab.there / 'file', 'old')

        def full(fd: int, data: memoryview) -> int:
            nonlocal room
            if data == b'fits':
                return os.write(fd, data)
            if room == 0:
                raise OSError(number, os.strerror(number))
            written = os.write(fd, data[:room])  # as the kernel does: first less, then nothing
            room -= written
            return written

        with monkeypatch.context() as patch:
            patch.setattr('remote_runner.agent.small.write', full)
            with pytest.raises(TransferFailed) as caught:
                lab.bring()
        what = str(caught.value)
        assert f'{lab.there}/file' in what
        assert os.strerror(number) in what
        if number in (errno.ENOSPC, errno.EDQUOT):
            found = re.search(rf'\({size} bytes, (\d+) are free there\)', what)
            assert found
            assert int(found[1]) > 0
        assert (lab.there / 'a').read_text() == 'fits'
        assert (lab.there / 'file').read_text() == 'old'
        assert lab.rubbish() == []
        assert lab.bring().sent == size
        lab.is_equal()


    def test_and_not_even_for_what_came(self, inside: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        lab = inside
        write(lab.here / 'file', noise(5 * MB))

        def full(*_: object) -> int:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

        with monkeypatch.context() as patch:
            patch.setattr('remote_runner.agent.small.write', full)
            patch.setattr(os, 'ftruncate', full)
            with pytest.raises(TransferFailed, match=f'cannot write {re.escape(str(lab.there))}/file: Disk quota'):
                lab.bring()
        assert lab.rubbish() == []

    @pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT, errno.EIO])
    @pytest.mark.parametrize('size', [5 * MB, 99_999])
    def test_at_the_end(self, inside: Lab, monkeypatch: pytest.MonkeyPatch, number: int, size: int) -> None:
        """NFS may say it when the file is closed, which it is all the same (close(2))."""
        lab = inside
        write(lab.here / 'file', noise(size))
        write(lab.there / 'file', 'old')
        close = os.close
        failed: list[int] = []

        def full(fd: int) -> None:
            is_copy = not failed and '/.rr-' in os.readlink(f'/proc/self/fd/{fd}')
            close(fd)
            if is_copy:
                failed.append(fd)
                raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, 'close', full)
            with pytest.raises(TransferFailed) as caught:
                lab.bring()
        assert failed
        assert f'cannot write {lab.there}/file: {os.strerror(number)}' in str(caught.value)
        assert (f'({size} bytes, ' in str(caught.value)) == (number != errno.EIO)
        assert (lab.there / 'file').read_text() == 'old'
        assert lab.rubbish() == []
        lab.bring()
        lab.is_equal()


class TestTheKernelCopies:
    """What stays of a large file, where it can (copy_file_range(2))."""

    def prepare(self, lab: Lab) -> None:
        write(lab.there / 'file', OLD, mtime=MTIME - 1)
        write(lab.here / 'file', b'!' + OLD[1:])

    @pytest.mark.parametrize('number', [errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, None])
    @pytest.mark.parametrize('calls', [0, 2])
    def test_and_we_where_it_cannot(
        self, inside: Lab, monkeypatch: pytest.MonkeyPatch, number: int | None, calls: int
    ) -> None:
        lab = inside
        self.prepare(lab)
        asked = 0

        def refuse(source: int, target: int, count: int, offset: int, to: int) -> int:
            nonlocal asked
            asked += 1
            if asked <= calls:
                return os.pwrite(target, os.pread(source, count // 3, offset), to)  # it may do less
            if number is None:
                return 0
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, 'copy_file_range', refuse)
            assert lab.bring().sent == BLOCK
        assert asked == calls + 1
        lab.is_equal()

    @pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT, errno.EIO])
    def test_and_fails(self, inside: Lab, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        lab = inside
        self.prepare(lab)

        def fail(*_: int) -> int:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, 'copy_file_range', fail)
            with pytest.raises(TransferFailed, match=f'{re.escape(str(lab.there))}/file: {os.strerror(number)}'):
                lab.bring()
        assert (lab.there / 'file').read_bytes() == OLD
        assert lab.rubbish() == []
        assert lab.bring().sent == BLOCK
        lab.is_equal()


MEASURED = """
import json, os, re, sys
from pathlib import Path
from tests.bringing import Lab
lab = Lab(Path(sys.argv[1]))
result = {'agent': 0, 'files': 0}
hosts = []

def peak(pid):
    return int(re.search(r'VmHWM:\\s*(\\d+) kB', Path(f'/proc/{pid}/status').read_text())[1])

def limit(size):
    files = [len(os.listdir(f'/proc/{pid}/fd')) for pid in (os.getpid(), hosts[0].facts.pid)]
    result['files'] = max(result['files'], *files)

lab.met = hosts.append
lab.limit = limit
bring_to = lab.bring_to

def measured(host, what):
    brought = bring_to(host, what)
    result['agent'] = peak(host.facts.pid)
    return brought

lab.bring_to = measured
result['sent'] = lab.bring().sent
result['master'] = peak(os.getpid())
print(json.dumps(result))
"""


class TestCancelled:
    """While a host is at one file that takes an hour."""

    SIZE = 1 << 40

    def is_cancelled(self, host: Host, call: Call, opened: str) -> None:
        """Once an agent has this file open."""

        def is_open() -> bool:
            done = subprocess.run(['ls', '-l', f'/proc/{host.facts.pid}/fd'], capture_output=True, text=True)
            return opened in done.stdout  # what it closes meanwhile is told on stderr

        wait_until(is_open, 'the file is open')
        call.cancel()
        with pytest.raises(RequestFailed, match='cancelled'):
            call.result(60)

    @pytest.mark.parametrize('remembered', [True, False])
    def test_while_it_is_hashed(self, lab: Lab, remembered: bool) -> None:
        for folder in (lab.here, lab.there):
            punched(folder / 'file', self.SIZE)
        local = LocalFiles(remembered=remembered)
        manifest = build_manifest(local, placed(lab.here, lab.there))
        with Host('localhost', LocalConnection(), ignore) as host:
            call = host.call('compare', cache=remembered, links=(), folders=(), tops=())
            for places, body in manifest.parts(local):
                call.send(places, body)
            call.finish()
            self.is_cancelled(host, call, str(lab.there / 'file'))

    def test_while_it_is_looked_what_is_there(self, lab: Lab) -> None:
        path = punched(lab.there / 'file', self.SIZE)
        with Host('localhost', LocalConnection(), ignore) as host:
            call = host.call('blocks', path=str(path), size=self.SIZE, block=128 * MB)
            self.is_cancelled(host, call, str(path))

    @pytest.mark.parametrize('kind', ['z', 'p'])
    def test_while_it_is_put_together(self, lab: Lab, kind: str) -> None:
        path = str(lab.there / 'file')
        if kind == 'p':
            came = temporary_path(str(lab.there), 'file').replace(str(os.getpid()), str(dead_pid(os.getpid())))
            punched(Path(came), self.SIZE)
            writer = os.path.basename(came).removeprefix('.rr-').rpartition('-')[0]
            write(lab.home / f'.cache/remote_runner/copying-{writer}', f'{lab.there}\0', 0o600)
        with Host('localhost', LocalConnection(), ignore) as host:
            names = ('folders', 'modes', 'times', 'links', 'bits')
            call = host.call('put', cache=False, spared=[path], **dict.fromkeys(names, ()))
            call.send([[path, self.SIZE, 0o644, ANY_TIME, None, kind == 'p'], [kind, self.SIZE]], b'')
            self.is_cancelled(host, call, f'{lab.there}/.rr-{os.uname().nodename}-{host.facts.pid}-')
        assert not os.path.exists(path)


class TestMemory:
    def measure(self, lab: Lab) -> dict[str, int]:
        command = [sys.executable, '-c', MEASURED, str(lab.folder)]
        result: dict[str, int] = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
        return result

    def test_is_bounded(self, lab: Lab) -> None:
        write(lab.here / 'file')
        least = self.measure(lab)
        block = noise(MB)
        with (lab.here / 'large').open('wb') as file:
            for number in range(300):
                file.write(number.to_bytes(8, 'big') + block[8:])
        for number in range(2000):
            write(lab.here / f'small/{number % 20}/{number}', f'{number}' * 100)
        most = self.measure(lab)
        assert most['sent'] > 300 * MB
        for who in ('master', 'agent'):
            assert most[who] - least[who] < 12_000, (who, least, most)  # kB
        assert most['files'] <= least['files'] + 6
        lab.is_equal()
        # The large one once more, of which nearly all is there.
        with (lab.here / 'large').open('r+b') as file:
            file.seek(150 * MB)
            file.write(b'!')
        again = self.measure(lab)
        assert again['sent'] == BLOCK
        for who in ('master', 'agent'):
            assert again[who] - least[who] < 12_000, (who, least, again)
        lab.is_equal()


# ---- any tree, any change ------------------------------------------------------------------------------------------

CONTENTS = [b'', b'a', b'b', b'same size 1', b'same size 2', noise(300_000), noise(MB + 5), noise(MB + 5, 2)]
names = st.sampled_from([os.fsdecode(name) for name in (b'a', b'b', b'c d', b"'", b'new\nline', b'\xff', b'-x', b'~')])
paths = st.lists(names, min_size=1, max_size=3).map(tuple)
files = st.tuples(
    st.just('file'),
    st.sampled_from(range(len(CONTENTS))),
    st.sampled_from([0o644, 0o755, 0o600, 0o4711, 0o444]),
    st.sampled_from([MTIME, MTIME + 1, -5]),
)
links = st.tuples(st.just('link'), st.sampled_from(['a', 'nowhere', '..', './x/']))
Tree = dict[tuple[str, ...], Any]


def without_conflicts(tree: Tree) -> Tree:
    """Nothing stands below what is no folder."""
    return {path: what for path, what in tree.items() if not any(path[:end] in tree for end in range(1, len(path)))}


trees = st.dictionaries(paths, files | links | st.just(('folder',)), max_size=8).map(without_conflicts)
kinds = st.sampled_from(['content', 'mode', 'mtime', 'delete', 'rename', 'add'])
changes = st.lists(st.tuples(kinds, st.integers(0, 7), files, paths), max_size=6)
#: What somebody does to files on the host.
doings = st.lists(st.tuples(st.sampled_from(['content', 'mode', 'mtime', 'delete']), st.integers(0, 7)), max_size=4)


def after(tree: Tree, changes: list[Any]) -> Tree:
    tree = dict(tree)
    for what, number, (kind, content, bits, mtime), path in changes:
        keys = sorted(tree)
        if what == 'add':
            tree[path] = (kind, content, bits, mtime)
        elif keys:
            key = keys[number % len(keys)]
            old = tree[key]
            if what == 'delete':
                del tree[key]
            elif what == 'rename':
                tree[path] = tree.pop(key)
            elif old[0] == 'file':
                new = {'content': (kind, content, *old[2:]), 'mode': (*old[:2], bits, old[3])}
                tree[key] = new.get(what, (*old[:3], mtime))
    return without_conflicts(tree)


def plant(top: Path, tree: Tree) -> None:
    """Make it so, with nothing else."""
    shutil.rmtree(top)
    top.mkdir()
    for path, what in tree.items():
        place = top.joinpath(*path)
        place.parent.mkdir(parents=True, exist_ok=True)
        if what[0] == 'file':
            write(place, CONTENTS[what[1]], *what[2:])
        elif what[0] == 'link':
            os.symlink(what[1], place)
        else:
            place.mkdir()


def do(top: Path, doings: list[tuple[str, int]]) -> None:
    """Change files, in ways that are hard to see."""
    for what, number in doings:
        files = sorted(path for path in top.rglob('*') if path.is_file() and not path.is_symlink())
        if not files:
            return
        file = files[number % len(files)]
        status = file.stat()
        if what == 'delete':
            file.unlink()
        elif what == 'mode':
            file.chmod(0o640)
        elif what == 'mtime':
            os.utime(file, ns=(status.st_mtime_ns + 1, status.st_mtime_ns + 1))
        elif status.st_size:
            with file.open('r+b') as stream:
                byte = stream.read(1)
                stream.seek(0)
                stream.write(bytes([byte[0] ^ 1]))
            os.utime(file, ns=(status.st_mtime_ns, status.st_mtime_ns))


def expected(lab: Lab) -> dict[str, set[str]]:
    """What has to be done, by looking at both sides."""
    found: dict[str, set[str]] = {'send': set(), 'modes': set(), 'times': set(), 'links': set()}
    there = facts(lab.there)
    for name, wanted in facts(lab.here).items():
        path, has = os.fsdecode(name), there.get(name)
        if isinstance(wanted, tuple):
            if not isinstance(has, tuple) or wanted[2] != has[2]:
                found['send'].add(path)
                continue
            if wanted[0] != has[0]:
                found['modes'].add(path)
            if wanted[1] != has[1]:
                found['times'].add(path)
        elif wanted != 'folder' and wanted != has:
            found['links'].add(path)
    return found


def kind_of(path: Path) -> str:
    return 'link' if path.is_symlink() else 'folder' if path.is_dir() else 'file'


def clear_the_way(lab: Lab) -> None:
    """Remove from there what is of another kind than here: no tree replaces a folder, and links that are there stay."""
    for path, folders, files in os.walk(lab.there):
        for name in (*folders, *files):
            there = Path(path, name)
            here = lab.here / there.relative_to(lab.there)
            kinds = (kind_of(there), kind_of(here))
            if not os.path.lexists(here) or kinds[0] == kinds[1] or kinds == ('file', 'link'):
                continue
            if kinds[0] == 'folder':
                shutil.rmtree(there)
            else:
                there.unlink()


@pytest.fixture
def standing(lab: Lab) -> Iterator[Callable[[], Host]]:
    with Host('localhost', LocalConnection(), lambda host, header: None) as host:
        yield lambda: host


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees, changes, doings, st.booleans())
def test_any_tree_and_any_change(
    lab: Lab,
    standing: Callable[[], Host],
    tree: Tree,
    changes: list[Any],
    doings: list[tuple[str, int]],
    remembered: bool,
) -> None:
    lab.remembered = remembered
    shutil.rmtree(lab.there)
    lab.there.mkdir()
    plant(lab.here, tree)
    lab.bring_to(standing())
    lab.is_equal()
    plant(lab.here, after(tree, changes))
    do(lab.there, doings)
    clear_the_way(lab)
    wanted = expected(lab)
    brought = lab.bring_to(standing())
    assert brought.names(lab.there) == wanted
    assert brought.sent <= sum((lab.here / name).stat().st_size for name in wanted['send'])
    here, there = facts(lab.here), facts(lab.there)
    assert {name: there.get(name) for name in here} == here
    assert lab.rubbish() == []
    assert brought.sent == 0 or lab.bring_to(standing()).sent == 0
