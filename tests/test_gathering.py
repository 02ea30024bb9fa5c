"""Looking at the files of a copy in a process of its own: what is found comes as it is found, and nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from remote_runner.errors import SourcesFailed, TransferFailed
from remote_runner.files.ahead import Gathering
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import Entries, Group, Manifest
from remote_runner.files.sources import gather
from remote_runner.wire.columns import ROWS, unpack
from tests.testbed.process import wait_until

Hear = Callable[[Group], None]


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A few folders with a few files, and one with more than go into one part."""
    top = tmp_path / 'tree'
    for name in ('a/x', 'a/y', 'b/c/z', 'q'):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    (top / 'many').mkdir()
    for number in range(ROWS + 5):
        (top / 'many' / f'{number:05}').write_text(str(number))
    return top


@pytest.fixture
def begun() -> Iterator[Callable[..., Gathering]]:
    made = []

    def begin(look: Callable[[LocalFiles, Hear], Manifest]) -> Gathering:
        made.append(Gathering(look, remembered=False, times=True))
        return made[-1]

    yield begin
    for gathering in made:
        gathering.close()


def rows(gathering: Gathering) -> list[tuple[object, ...]]:
    """Folder, name, size, time and permission bits of all files, as hosts are told them."""
    found: list[tuple[object, ...]] = []
    for places, body in gathering.parts(LocalFiles(remembered=False)):
        each = iter(unpack(sum(count for _, count in places), body))
        for folder, count in places:
            for _ in range(count):
                size, mtime, mode, _, name = next(each)
                found.append((folder, name, size, mtime, mode))
    return found


def test_the_same_is_found_as_without_a_process(tree: Path, begun: Callable[..., Gathering]) -> None:
    gathering = begun(lambda local, hear: gather(local, [f'{tree}/'], '/there', hear=hear))
    expected = gather(LocalFiles(remembered=False), [f'{tree}/'], '/there')
    local = LocalFiles(remembered=False)
    told = rows(gathering)
    manifest = gathering.whole(local)
    assert list(manifest.files) == list(expected.files)
    assert told == [(*e.remote.rsplit('/', 1), e.size, e.mtime, e.mode) for e in expected.files]
    assert len(told) == ROWS + 9
    assert (manifest.folders, manifest.bits, manifest.mirror) == (expected.folders, expected.bits, expected.mirror)
    first = manifest.files[0]
    local.check_unchanged(first.local, os.stat(first.local))
    assert rows(gathering) == told  # another host is told the same


def test_parts_come_before_all_is_found(tree: Path, begun: Callable[..., Gathering]) -> None:
    going_on, go_on = os.pipe()

    def slowly(local: LocalFiles, hear: Hear) -> Manifest:
        manifest = gather(local, [f'{tree}/'], '/there', hear=hear)
        os.read(going_on, 1)
        return manifest

    gathering = begun(slowly)
    parts = gathering.parts(LocalFiles(remembered=False))
    places, _ = next(parts)
    assert sum(count for _, count in places) == ROWS
    os.write(go_on, b'.')
    assert sum(count for places, _ in parts for _, count in places) == 9
    os.close(going_on)
    os.close(go_on)


def test_a_process_that_is_killed(tree: Path, begun: Callable[..., Gathering]) -> None:
    gathering = begun(lambda local, hear: (gather(local, [f'{tree}/'], '/there', hear=hear), signal.pause())[0])
    parts = gathering.parts(LocalFiles(remembered=False))
    next(parts)
    os.kill(gathering._pid, signal.SIGKILL)
    assert list(parts) == []
    with pytest.raises(TransferFailed, match='the process that looked at the files was killed'):
        gathering.whole(LocalFiles(remembered=False))


def test_a_process_that_is_killed_before_files_are_asked_for(tree: Path, begun: Callable[..., Gathering]) -> None:
    gathering = begun(lambda local, hear: gather(local, [f'{tree}/'], '/there', hear=hear))
    manifest = gathering.whole(LocalFiles(remembered=False))
    os.kill(gathering._pid, signal.SIGKILL)
    assert len(manifest.files) == ROWS + 9
    with pytest.raises(TransferFailed, match='the process that looked at the files was killed'):
        manifest.files[0]


def test_who_cannot_begin_is_replaced(tree: Path, begun: Callable[..., Gathering]) -> None:
    us = os.getpid()

    def look(local: LocalFiles, hear: Hear) -> Manifest:
        if os.getpid() != us:
            os.kill(os.getpid(), signal.SIGKILL)
        return gather(local, [f'{tree}/'], '/there', hear=hear)

    gathering = begun(look)
    assert len(rows(gathering)) == ROWS + 9
    assert len(gathering.whole(LocalFiles(remembered=False)).files) == ROWS + 9


def test_no_further_process_is_allowed(
    tree: Path, begun: Callable[..., Gathering], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork() -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, 'fork', fork)
    gathering = begun(lambda local, hear: gather(local, [f'{tree}/'], '/there', hear=hear))
    assert len(rows(gathering)) == ROWS + 9


def test_faults_are_told(tmp_path: Path, begun: Callable[..., Gathering]) -> None:
    gathering = begun(lambda local, hear: gather(local, [f'{tmp_path}/none'], '/there', hear=hear))
    assert rows(gathering) == []
    with pytest.raises(SourcesFailed, match='No such file'):
        gathering.whole(LocalFiles(remembered=False))
    bad = begun(lambda local, hear: gather(local, [str(tmp_path)], '/there', exclude=['/'], hear=hear))
    with pytest.raises(ValueError, match='/'):
        bad.whole(LocalFiles(remembered=False))


def test_what_is_interrupted_ends_at_once() -> None:
    def for_ever(local: LocalFiles, hear: Hear) -> Manifest:
        while True:
            signal.pause()

    with closing(Gathering(for_ever, remembered=False, times=True)) as gathering:
        pid = gathering._pid
    wait_until(lambda: not Path(f'/proc/{pid}').exists(), 'the end of the process')


def test_entries_are_made_once(tmp_path: Path) -> None:
    asked = []
    (tmp_path / 'f').write_text('1')

    def load() -> list[Group]:
        asked.append(1)
        return [Group('/d', ['f'], str(tmp_path), ['f'], [(tmp_path / 'f').stat()])]

    files = Entries(1, load, LocalFiles(remembered=False))
    assert len(files) == 1
    assert asked == []
    assert [entry.remote for entry in files] == [files[0].remote] == ['/d/f']
    assert files[:1] == [files[0]]
    assert asked == [1]
