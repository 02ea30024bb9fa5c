"""What is kept of a component's output: its limit, a disk that is full, and reading it from anywhere."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_runner.agent import folders, records
from remote_runner.agent.logs import Reader
from remote_runner.config import ready
from remote_runner.hosts.host import Host
from tests.deploying import Deployment, deploying
from tests.living import Lives, connected, status
from tests.testbed import Testbed
from tests.testbed.process import wait_until

FreshBed = Callable[..., Testbed]
LIMIT = 20_000


class Piece(NamedTuple):
    """A piece of output as a host sends it."""

    position: int
    time: float
    data: bytes


def output(agent: Host, deployment: Deployment, name: str, **how: object) -> list[Piece]:
    """What the host answers to a command that wants to see output."""
    asked = {'positions': {}, 'lines': None, 'since': None, 'follow': False, **how}
    call = agent.call('logs', session=deployment.session, names=[name], **asked)
    return [Piece(part[1], part[2], body) for part, body in call.parts()]


def text(pieces: list[Piece]) -> str:
    return b''.join(piece.data for piece in pieces).decode().replace('\r\n', '\n')


# The limit


def test_the_newest_output_is_kept_within_the_limit(deployment: Deployment, agent: Host) -> None:
    deployment.sh('it', 'seq -f "line %06.0f" 20000', log_limit=LIMIT, wait=True)
    assert deployment.run().status == 0
    folder = deployment.output_log('it').parent
    kept = {path.name: path.stat().st_size for path in folder.glob('output.*')}
    assert kept.keys() == {'output.log', 'output.log.1', 'output.idx', 'output.idx.1'}
    assert LIMIT / 3 < sum(kept.values()) <= LIMIT
    assert {(folder / name).stat().st_mode & 0o777 for name in kept} == {0o600}
    pieces = output(agent, deployment, 'it')
    found = text(pieces).split('\n')[1:]
    assert found == [f'line {number:06}' for number in range(20001 - len(found) + 1, 20001)] + ['']
    for before, after in pairwise(pieces):
        assert after.position == before.position + len(before.data)
        assert after.time >= before.time > 0
    end = pieces[-1].position + len(pieces[-1].data)
    assert end == len('line 000000\r\n') * 20000
    assert text(output(agent, deployment, 'it', lines=2)) == 'line 019999\nline 020000\n'
    assert text(output(agent, deployment, 'it', positions={'it': end - 7})) == '20000\n'


def test_the_limit_holds_over_restarts_and_positions_go_on(
    deployment: Deployment, lives: Lives, agent: Host
) -> None:
    lives.add('it', 'seq 1000 4000; test $life = 3', restart='on-failure', log_limit=str(LIMIT), wait=True)
    assert deployment.run().status == 0
    pieces = output(agent, deployment, 'it')
    assert text(pieces).endswith('\n3998\n3999\n4000\n')
    assert pieces[-1].position + len(pieces[-1].data) == 3 * (3001 * 6 + len('life 1\r\n'))
    assert sum(path.stat().st_size for path in deployment.output_log('it').parent.glob('output.*')) <= LIMIT


def test_it_is_ready_by_a_line_behind_a_rotation(deployment: Deployment, lives: Lives) -> None:
    """In the first life, and in the second one, which begins behind many bytes that are kept no more."""
    lives.add('it', 'seq 1000 6000; sleep 0.3; echo up; sleep 0.3; test $life = 2', log_limit=LIMIT,
              ready=ready.log('^up$'), restart='on-failure', start_timeout=10, wait=True)  # fmt: skip
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert len(ended.of('component_ready')) == 2


def test_a_failure_shows_the_last_lines_although_they_stand_in_two_files(deployment: Deployment) -> None:
    """Ten times of different length, so that one of them ends just behind a rotation."""
    for number in range(10):
        script = f'seq -f "line %05.0f" {2000 + 37 * number}; exit 3'
        deployment.sh(f'it-{number}', script, log_limit=10_000, start_grace=60)
    ended = deployment.run()
    for number in range(10):
        shown = ended.the('component_failed', f'it-{number}')['output'].split()
        assert len(shown) > 400, shown
        assert shown[-1] == f'{2000 + 37 * number:05}'
        assert shown[0] == 'line'


@pytest.mark.parametrize('value', ['5000', 9999, '1k', -1, '1X', 1.5, True, None])
def test_faults_of_the_limit(deployment: Deployment, value: object) -> None:
    deployment.sleep('it', log_limit=value)
    ended = deployment.run()
    assert ended.status == 2
    assert 'it@h1: log_limit must be ' in ended.stderr


# A full disk


@pytest.fixture
def small(fresh_bed: FreshBed, tmp_path: Path) -> Iterator[Deployment]:
    """A host whose disk for output holds little."""
    bed = fresh_bed(1)
    bed['h1'].tmpfs('/root/.local/state', '300K')
    bed['h1'].run(['dd', 'if=/dev/zero', 'of=/root/.local/state/filler', 'bs=1k', 'count=100'])
    with deploying(bed, tmp_path) as deployment:
        yield deployment


def test_a_full_disk_ends_nothing_and_is_told(small: Deployment) -> None:
    script = (
        'seq 100000 150000; touch /tmp/printed; while [ ! -e /tmp/go ]; do sleep 0.01; done; echo afterwards; '
        'touch /tmp/said; exec sleep 100000'
    )
    small.sh('it', script, wait=True)
    running = small.begin()
    pid = running.wait_for('component_started', 'it')['pid']
    small.appears('/tmp/printed')
    troubled = running.wait_for('component_troubled', 'it')
    assert troubled['reason'] == 'its output cannot be written on the host any more: No space left on device'
    assert small.runs(pid)
    with connected(small) as host:
        [found] = host.request('survey', 30, session=small.session)['components']
        assert found['alive']
        assert (found['status']['state'], found['status']['log_errno']) == ('started', 28)
        kept = text(output(host, small, 'it'))
        assert len(kept) > 50_000
        assert ''.join(f'{number}\n' for number in range(100000, 150001)).startswith(kept.rstrip('\r'))

    small.host().run(['rm', '/root/.local/state/filler'])
    small.host().run(['touch', '/tmp/go'])
    small.appears('/tmp/said')
    log = small.output_log('it')
    wait_until(lambda: log.read_bytes().endswith(b'afterwards\r\n'), 'output to be written again')
    with connected(small) as host:
        pieces = output(host, small, 'it', lines=1)
        assert pieces[-1].position + len(pieces[-1].data) == log.stat().st_size
        assert text(pieces).endswith('afterwards\n')
    small.quit()
    assert running.finish().status == 1
    assert status(small, 'it')['log_errno'] == 28


def test_on_a_full_disk_it_is_started_again_all_the_same(small: Deployment) -> None:
    """And what became of it is told, although its status file cannot be."""
    script = (
        'echo x >>/tmp/lives; test $(wc -l </tmp/lives) = 2 && exit 0; '
        'seq 100000 150000; dd if=/dev/zero of=/root/.local/state/more bs=1k count=500; exit 3'
    )
    small.sh('it', script, restart='on-failure', wait=True, start_grace=0)
    ended = small.run()
    assert ended.status == 0, ended.stderr
    assert len(ended.of('component_restarting')) == 1
    assert ended.the('component_exited')['status'] == 0


# Rules

_pieces = st.lists(st.text('ab\n', min_size=1, max_size=60).map(str.encode), max_size=40)


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now


class Written:
    """Output that was written, as it should be found again."""

    def __init__(self, folder: str, pieces: list[bytes], limit: int, reopen: int, readers: list[Reader]) -> None:
        self.data = b''
        self.starts: list[tuple[float, int]] = []
        log = records.Log(folder, limit)
        for number, piece in enumerate(pieces):
            clock.now += 1.0
            self.starts.append((clock.now, len(self.data)))
            log.write(piece)
            assert log.error == 0
            self.data += piece
            assert log.size == len(self.data)
            if reopen and number % reopen == 0:
                leave(log)
                log = records.Log(folder, limit)
                assert log.size == len(self.data)
            for reader in readers:
                check(self, reader)
        leave(log)
        files = [path for path in Path(folder).iterdir() if path.name != 'output.log' or pieces]
        assert not limit or sum(path.stat().st_size for path in files) <= limit
        self.base = len(self.data) - sum(path.stat().st_size for path in files if path.name.startswith('output.log'))

    def time_of(self, position: int) -> float:
        return max((when for when, begin in self.starts if begin <= position), default=0.0)


clock = Clock()


def leave(log: records.Log) -> None:
    """The end of the process to which it belongs."""
    for file in (log._fd, log._index):
        if file >= 0:
            os.close(file)


def check(written: Written, reader: Reader) -> bytes:
    """Read what there is; every piece of it must be what was written there, and then."""
    found, end = b'', reader.position
    for position, when, data in reader.pieces():
        assert data != b''
        assert data == written.data[position : position + len(data)]
        assert when == written.time_of(position) == written.time_of(position + len(data) - 1)
        assert position == end or not found  # what is kept no more is left out
        found, end = found + data, position + len(data)
    assert reader.position == len(written.data)
    return found


@pytest.fixture(scope='module', autouse=True)
def _fake_clock() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, 'time', clock)
        yield


@given(
    pieces=_pieces,
    limit=st.sampled_from([0, 150, 200, 400, 1000]),
    reopen=st.sampled_from([0, 1, 2, 7]),
    lines=st.integers(0, 12),
    part=st.floats(0, 1),
)
def test_what_was_written_is_read_from_anywhere(
    pieces: list[bytes], limit: int, reopen: int, lines: int, part: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        following = Reader('', folder)
        written = Written(folder, pieces, limit, reopen, [following])
        kept = written.data[written.base :]
        assert not written.base or limit
        position = int(part * len(written.data))
        since = 999.0 + part * (clock.now - 998.0)

        def begun(*how: object) -> bytes:
            reader = Reader('', folder)
            reader.begin(*how)
            found = check(written, reader)
            reader.close()
            return found

        assert begun(None, None, None) == kept
        assert begun(position, 3, None) == written.data[max(position, written.base) :]
        tail = b''.join(kept.splitlines(keepends=True)[-lines:]) if lines else b''
        assert begun(None, lines, None) == tail
        later = [begin for when, begin in written.starts if when >= since]
        young = written.data[max(min(later, default=len(written.data)), written.base) :]
        assert begun(None, None, since) == young
        assert begun(None, lines, since) == min(tail, young, key=len)
        following.close()


@pytest.mark.parametrize('killed_after', range(7))
def test_a_rotation_in_which_the_launcher_was_killed_is_ended(tmp_path: Path, killed_after: int) -> None:
    """Its steps are calls of rename and unlink, of which only the first few came to pass."""
    folder = str(tmp_path)
    log = records.Log(folder, 400)
    data = b''
    for number in range(25):
        clock.now += 1.0
        piece = b'line %d\n' % number
        log.write(piece)
        data += piece
    steps = 0

    class Killed(BaseException):
        """Here the launcher is gone."""

    def step(name: str) -> Callable[..., None]:
        def do(*paths: str) -> None:
            nonlocal steps
            steps += 1
            if steps > killed_after:
                raise Killed
            getattr(os, name)(*paths)

        return do

    class Posix:
        rename, unlink = staticmethod(step('rename')), staticmethod(step('unlink'))

        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, 'posix', Posix())
        if killed_after < 6:
            with pytest.raises(Killed):
                log._rotate()
        else:
            log._rotate()
    for name in ('before', 'after'):
        if name == 'after':
            again = records.Log(folder, 400)
            assert again.size == len(data)
            clock.now += 1.0
            again.write(b'more\n')
            data += b'more\n'
        reader = Reader('', folder)
        reader.begin(None, None, None)
        found = b''.join(piece for _, _, piece in reader.pieces())
        assert data.endswith(found)
        reader.close()
        if name == 'after':
            assert found.endswith(b'more\n')
            assert reader.position == len(data)


@pytest.mark.parametrize('limit', [0, 200])
def test_while_the_index_cannot_be_written_output_still_is(tmp_path: Path, limit: int) -> None:
    """And when it can be again, all is found where it was written."""

    class Posix:
        def open(self, path: str, *how: int) -> int:
            if 'idx' in path:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return os.open(path, *how)

        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

    folder = str(tmp_path)
    log = records.Log(folder, limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, 'posix', Posix())
        for number in range(30):
            clock.now += 1.0
            log.write(b'line %d\n' % number)
    assert log.error == errno.ENOSPC
    data = b''.join(b'line %d\n' % number for number in range(30))
    for more in (b'', b'more\n', b'and more\n'):
        clock.now += 1.0
        if more:
            log.write(more)
            data += more
        reader = Reader('', folder)
        reader.begin(None, None, None)
        found = b''.join(piece for _, _, piece in reader.pieces())
        assert found == data
        assert reader.position == log.size == len(data)
        reader.close()
    leave(log)


@given(_pieces, st.sampled_from([0, 150, 10_000]))
def test_the_tail_is_the_end_of_what_was_written(pieces: list[bytes], limit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written = Written(folder, pieces, limit, 0, [])
        assert folders.tail(folder).encode() == written.data[written.base :]


def test_the_tail_begins_with_a_whole_line(tmp_path: Path) -> None:
    (tmp_path / 'output.log').write_bytes(b'x' * 100 + b'secret\n' + b'y' * 4091)
    assert folders.tail(str(tmp_path)) == 'y' * 4091
    (tmp_path / 'output.log').write_bytes(b'z' * 5000)
    assert folders.tail(str(tmp_path)) == 'z' * 4096
    shutil.rmtree(tmp_path)
    assert folders.tail(str(tmp_path)) == ''
