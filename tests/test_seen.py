"""What two machines see of a folder that they share: made late where files are looked at, in `agent/seen.py`."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_runner.agent import seen, views
from remote_runner.agent.request import Failure
from remote_runner.errors import RequestFailed
from remote_runner.hosts.host import Host
from remote_runner.hosts.local import LocalConnection
from remote_runner.placement import client
from remote_runner.wire import frames
from tests.test_run_command import end, ignore, start

Sight = list[int] | None


class Late:
    """In the place of `seen.look`: paths that show what is there only after so many looks."""

    def __init__(self, looks: dict[str, int], before: Sight = None) -> None:
        self.looks = looks
        self.paused: list[float] = []
        self._before = before
        self._look = seen.look

    def look(self, path: str) -> Sight:
        name = os.path.basename(path)
        self.looks[name] = self.looks.get(name, 0) - 1
        return self._before if self.looks[name] >= 0 else self._look(path)

    def pause(self, seconds: float) -> None:
        self.paused.append(seconds)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Late]:
    def make(looks: dict[str, int], before: Sight = None) -> Late:
        made = Late(looks, before)
        monkeypatch.setattr(seen, 'look', made.look)
        return made

    return make


class TestLooking:
    def test_kinds(self, tmp_path: Path) -> None:
        (tmp_path / 'file').write_bytes(b'four')
        os.mkfifo(tmp_path / 'pipe')
        status = (tmp_path / 'file').stat()
        assert seen.look(f'{tmp_path}/file') == [4, status.st_mtime_ns, status.st_ctime_ns]
        folder = seen.look(str(tmp_path))
        assert folder is not None
        assert folder[0] == -1
        assert seen.look(f'{tmp_path}/pipe') is not None  # nobody is waited for
        for nothing in ('none', 'file/x', 'none/x'):
            assert seen.look(f'{tmp_path}/{nothing}') is None

    def test_a_stale_handle_is_nothing_yet(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def stale(*arguments: Any) -> int:
            raise OSError(errno.ESTALE, 'Stale file handle')

        (tmp_path / 'file').touch()
        monkeypatch.setattr(os, 'open', stale)
        assert seen.look(f'{tmp_path}/file') is None

    @pytest.mark.parametrize(
        ('found', 'wanted', 'is_current'),
        [
            (None, None, True),
            (None, [4, 10, 10], False),
            ([4, 10, 10], None, False),
            ([4, 10, 10], [4, 10, 10], True),
            ([4, 10, 12], [4, 10, 11], True),  # its mode was changed
            ([4, 10, 10], [4, 10, 12], True),
            ([5, 10, 10], [4, 10, 10], False),
            ([4, 9, 9], [4, 10, 10], False),
            ([4, 20, 9], [4, 10, 10], False),  # what was renamed to here is older than what it took the place of
            ([7, 11, 11], [4, 10, 10], True),
        ],
    )
    def test_what_is_current(self, found: Sight, wanted: Sight, is_current: bool) -> None:
        assert seen.is_current(found, wanted) == is_current

    def test_words_that_may_be_paths(self) -> None:
        words = ['gcc', '-c', 'a.c', '-o', 'a.o', '-ob.o', '--out=c.o', 'of=d', '-DX=1', '-v', '']
        assert [word for word in seen.named(words) if word] == ['gcc', 'a.c', 'a.o', 'b.o', 'c.o', 'of=d', 'd', '1']


class TestWaiting:
    def test_for_what_is_not_there_yet(self, tmp_path: Path, late: Callable[..., Late]) -> None:
        (tmp_path / 'file').touch()
        wanted = {'file': seen.look(f'{tmp_path}/file')}
        made = late({'file': 5})
        assert seen.wait(wanted, str(tmp_path), time.monotonic() + 60, made.pause) == []
        assert made.looks == {'file': -1}
        assert len(made.paused) == 5
        assert made.paused == sorted(made.paused)

    def test_for_what_is_still_the_old_one(self, tmp_path: Path, late: Callable[..., Late]) -> None:
        (tmp_path / 'file').write_text('old')
        old = seen.look(f'{tmp_path}/file')
        assert old is not None
        (tmp_path / 'file').write_text('newer')
        made = late({'file': 3}, [old[0], old[1] - 1, old[2] - 1])
        now = (tmp_path / 'file').stat()
        wanted: dict[str, Sight] = {'file': [5, now.st_mtime_ns, now.st_ctime_ns]}
        assert seen.wait(wanted, str(tmp_path), time.monotonic() + 60, made.pause) == []
        assert made.looks == {'file': -1}

    def test_for_what_is_still_there(self, tmp_path: Path, late: Callable[..., Late]) -> None:
        made = late({'gone': 2}, [1, 1, 1])
        assert seen.wait({'gone': None}, str(tmp_path), time.monotonic() + 60, made.pause) == []
        assert made.looks == {'gone': -1}

    def test_no_longer_than_is_allowed(self, tmp_path: Path, late: Callable[..., Late]) -> None:
        made = late({'never': 1 << 30})
        wanted: dict[str, Sight] = {'never': [0, 1, 1], '.': seen.look(str(tmp_path))}
        assert seen.wait(wanted, str(tmp_path), time.monotonic() - 1, made.pause) == ['never']
        assert made.paused == []

    def test_what_was_seen_is_not_looked_at_again(self, tmp_path: Path, late: Callable[..., Late]) -> None:
        (tmp_path / 'one').touch()
        (tmp_path / 'two').touch()
        wanted = {name: seen.look(f'{tmp_path}/{name}') for name in ('one', 'two')}
        made = late({'one': 0, 'two': 4})
        assert seen.wait(wanted, str(tmp_path), time.monotonic() + 60, made.pause) == []
        assert made.looks == {'one': -1, 'two': -1}


class TestPlaces:
    """Which folders are one, as far as numbers tell."""

    def facts(self, **values: Any) -> dict[str, Any]:
        return {'boot': 'other', 'device': 1, 'private': False, 'inodes': [30, 20, 2], **values}

    def place(self, tmp_path: Path, **values: Any) -> seen.Place:
        place = seen.Place(str(tmp_path))
        for name, value in {'is_private': False, 'inodes': [30, 20, 2], **values}.items():
            setattr(place, name, value)
        return place

    def test_itself(self, tmp_path: Path) -> None:
        (tmp_path / 'a/b').mkdir(parents=True)
        place, other = seen.Place(f'{tmp_path}/a/b'), seen.Place(f'{tmp_path}/a')
        assert place.common(place.facts()) == len(place.inodes) >= 3
        assert place.common(other.facts()) == 0
        assert place.inodes[1:] == other.inodes[: len(place.inodes) - 1]

    def test_over_a_network(self, tmp_path: Path) -> None:
        assert self.place(tmp_path).common(self.facts()) == 3
        assert self.place(tmp_path).common(self.facts(private=True)) == 3  # the client is the server
        assert self.place(tmp_path, is_private=True).common(self.facts()) == 3  # or the host is

    def test_the_client_has_more_or_less_of_it(self, tmp_path: Path) -> None:
        assert self.place(tmp_path).common(self.facts(inodes=[30, 20])) == 2
        assert self.place(tmp_path).common(self.facts(inodes=[30, 20, 2, 9])) == 3

    def test_another_one(self, tmp_path: Path) -> None:
        assert self.place(tmp_path).common(self.facts(inodes=[31, 20, 2])) == 0
        assert self.place(tmp_path).common(self.facts(inodes=[30, 21, 2])) == 0

    def test_a_cloned_disk(self, tmp_path: Path) -> None:
        assert self.place(tmp_path, is_private=True).common(self.facts(private=True)) == 0


class TestTheHost:
    @pytest.fixture
    def host(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
        (tmp_path / 'home').mkdir()
        monkeypatch.setenv('HOME', str(tmp_path / 'home'))
        with Host('localhost', LocalConnection(), ignore) as connected:
            yield connected

    def shared(self, folder: Path, wait: float = 60.0, **files: Sight) -> dict[str, Any]:
        return {**seen.Place(str(folder)).facts(), 'files': files, 'wait': wait}

    def test_it_waits_for_a_file(self, host: Host, tmp_path: Path) -> None:
        shared = self.shared(tmp_path, late=[4, 10**18, 2**62])
        call = start(host, 'cat', 'late', cwd=str(tmp_path), shared=shared)
        call.finish()
        assert not call.ended
        (tmp_path / 'new').write_text('text')
        os.utime(tmp_path / 'new', ns=(10**18, 10**18))
        os.rename(tmp_path / 'new', tmp_path / 'late')
        assert end(call)[:2] == (0, b'text')

    def test_a_signal_that_comes_meanwhile_is_not_lost(self, host: Host, tmp_path: Path) -> None:
        shared = self.shared(tmp_path, late=[0, 10**18, 2**62])
        call = start(host, 'sleep', '1090', cwd=str(tmp_path), shared=shared)
        host.write({'id': call._number, 'part': ['signal', signal.SIGTERM]})
        (tmp_path / 'new').touch()
        os.utime(tmp_path / 'new', ns=(10**18, 10**18))
        os.rename(tmp_path / 'new', tmp_path / 'late')
        assert end(call).status == 128 + signal.SIGTERM

    def test_it_says_what_it_has_not_seen(self, host: Host, tmp_path: Path) -> None:
        files: dict[str, Sight] = {name: [4, 1, 1] for name in 'abcde'}
        with pytest.raises(RequestFailed, match=r'within 0\.1 s .*: a, b, c and 2 more') as failed:
            end(start(host, 'true', cwd=str(tmp_path), shared=self.shared(tmp_path, 0.1, **files)))
        assert failed.value.kind == 'late'

    def test_waiting_can_be_cancelled(self, host: Host, tmp_path: Path) -> None:
        call = start(host, 'true', cwd=str(tmp_path), shared=self.shared(tmp_path, never=[4, 1, 1]))
        call.cancel()
        with pytest.raises(RequestFailed, match='cancelled'):
            call.result()

    def test_it_tells_what_has_changed(self, host: Host, tmp_path: Path) -> None:
        for name in ('same', 'changed', 'gone'):
            (tmp_path / name).touch()
        text = 'echo new >made; echo >>changed; rm gone'
        words = ['x', 'made', 'changed', 'gone', 'same', '-oother']
        call = start(host, 'sh', '-c', text, *words, cwd=str(tmp_path), shared=self.shared(tmp_path))
        call.finish()
        list(call.parts())
        expected = {name: seen.look(f'{tmp_path}/{name}') for name in ('.', 'made', 'changed', 'gone')}
        assert call.result() == {'status': 0, 'seen': expected}

    def test_paths_outside_of_what_is_shared_do_not_count(self, tmp_path: Path) -> None:
        shared = self.shared(tmp_path, 0.0, **{'/nowhere/x': [1, 1, 1]})
        shared['inodes'] = shared['inodes'][:1]
        assert views.View(str(tmp_path), ['cat', '../x', '/etc/passwd'], shared, time.sleep).changes() == {}

    def test_a_network_folder_that_comes_late(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / 'folder'
        folder.mkdir()
        shared = self.shared(folder)
        folder.rename(tmp_path / 'away')
        monkeypatch.setattr(seen, 'PRIVATE', frozenset())
        pauses = iter([lambda: None, lambda: (tmp_path / 'away').rename(folder)])
        view = views.View(str(folder), [], shared, lambda seconds: next(pauses)())
        assert view.changes() == {}

    def test_one_of_this_machine_alone_does_not_come(self, tmp_path: Path) -> None:
        shared = self.shared(tmp_path)
        with pytest.raises(Failure, match='No such file') as failed:
            views.View(f'{tmp_path}/none', [], shared, lambda seconds: pytest.fail('nothing is waited for'))
        assert (failed.value.kind, failed.value.errno_name) == ('cwd', 'ENOENT')


class TestTheClient:
    """With somebody at the other end who says that a file was written."""

    def attend(self, folder: Path, monkeypatch: pytest.MonkeyPatch, sights: dict[str, Sight], wait: float) -> int:
        monkeypatch.chdir(folder)
        options = client.Options()
        options.command, options.has_no_input, options.wait_files = ['true'], True, wait
        ours, theirs = socket.socketpair()
        theirs.sendall(frames.encode({'id': 1, 'host': 'h9'}))
        theirs.sendall(frames.encode({'id': 1, 'result': {'status': 0, 'seen': sights}}))
        with ours, theirs:
            return client.attend(ours, options)

    def test_it_waits_until_it_sees_what_was_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def write() -> None:
            (tmp_path / 'new').write_text('text')
            os.utime(tmp_path / 'new', ns=(10**18, 10**18))
            os.rename(tmp_path / 'new', tmp_path / 'out')

        later = threading.Timer(0.1, write)
        later.start()
        assert self.attend(tmp_path, monkeypatch, {'out': [4, 10**18, 2**62], 'none': None}, 60.0) == 0
        assert (tmp_path / 'out').exists()

    def test_who_talks_nonsense(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        options = client.Options()
        options.command, options.has_no_input = ['true'], True
        ours, theirs = socket.socketpair()
        theirs.sendall(b'HTTP/1.1 400 Bad Request\r\n\r\n')
        with ours, theirs:
            assert client.attend(ours, options) == 1
        assert capfd.readouterr().err.startswith('ERROR: what the daemon says makes no sense')

    def test_it_says_what_it_does_not_see(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert self.attend(tmp_path, monkeypatch, {'out': [4, 1, 1]}, 0.1) == 1
        assert capfd.readouterr().err == (
            'ERROR: h9: what the command has written is not seen here within 0.1 s: out '
            '(--wait-files SECONDS waits longer)\n'
        )
