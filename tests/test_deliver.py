"""Results on stdout: every byte of every format, in order where that is wanted, whatever the reader does."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import zlib
from base64 import b64decode
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_runner.errors import OutputClosed, OutputFailed, RemoteRunnerError
from remote_runner.jobs import formats
from remote_runner.jobs.deliver import Delivery
from remote_runner.jobs.formats import Format, Framed, JsonLines, Result, Text
from remote_runner.jobs.policy import Cause, Outcome
from remote_runner.jobs.sink import Descriptor
from remote_runner.jobs.statistics import Statistics
from remote_runner.jobs.task import Task
from remote_runner.jobs.views import Copies, Failure, HostView, Slow
from tests.commands import Commands
from tests.job_results import FAILED, result
from tests.testbed import Testbed
from tests.tmux import until

CLIENTS = Path(__file__).parent / 'clients'
MB = random.Random(1).randbytes(1_000_000)


def nothing_read(number: int) -> Result:
    raise AssertionError(f'task {number} was read back')


def delivered(
    form: Format, results: Sequence[Result], target: Path, *, keep_order: bool = False, flags: int = 0
) -> bytes:
    """What stands in a file after these were delivered."""
    number = os.open(target, os.O_WRONLY | os.O_CREAT | flags)
    try:
        with Delivery(form, Descriptor(number), read=nothing_read, keep_order=keep_order) as delivery:
            assert delivery.give(results) == []
    finally:
        os.close(number)
    return target.read_bytes()


class Reader:
    """The other end of a pipe that is our stdout; read when it is told to."""

    def __init__(self, *, blocking: bool = True) -> None:
        self.end, self.ours = os.pipe()
        os.set_blocking(self.ours, blocking)
        self._closed: set[int] = set()

    def read(self, size: int) -> bytes:
        data = b''
        while len(data) < size and (more := os.read(self.end, size - len(data))):
            data += more
        return data

    def read_all(self) -> bytes:
        return b''.join(iter(lambda: os.read(self.end, 1 << 16), b''))

    def close(self, *ends: int) -> None:
        """One end, or both; those that are closed already are left alone, for they may be somebody else's now."""
        for number in ends or (self.end, self.ours):
            if number not in self._closed:
                self._closed.add(number)
                os.close(number)


@pytest.fixture
def reader() -> Iterator[Reader]:
    found = Reader()
    yield found
    found.close()


@pytest.fixture
def slow() -> Iterator[Reader]:
    """One of which we cannot wait for by writing: O_NONBLOCK."""
    found = Reader(blocking=False)
    yield found
    found.close()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / 'out'


def stored(tmp_path: Path, data: bytes, name: str = 'large') -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


# Formats


class TestFramed:
    def test_index_and_length_are_int32_little_endian(self, out: Path) -> None:
        assert delivered(Framed(), [result(258, b'abc')], out) == b'\x02\x01\x00\x00\x03\x00\x00\x00abc'

    def test_a_large_result_is_the_same_as_a_file(self, out: Path, tmp_path: Path) -> None:
        frame = (7).to_bytes(4, 'little') + len(MB).to_bytes(4, 'little') + MB
        assert delivered(Framed(), [result(7, MB)], out) == frame
        assert delivered(Framed(), [result(7, stored(tmp_path, MB))], tmp_path / 'other') == frame

    def test_what_failed_has_no_frame(self, out: Path) -> None:
        given_ = [result(0, b'a'), result(1, outcome=FAILED), result(2, b'')]
        assert delivered(Framed(), given_, out) == bytes.fromhex('00000000 01000000 61 02000000 00000000')

    def test_of_a_sweep_the_result_that_is_its_stdout_is_framed(self, out: Path) -> None:
        task = Task('it', results={'trace': 'trace.bin', 'out': 'stdout'})
        one = result(0, task=task, results={'trace': b'no', 'out': b'yes'})
        assert delivered(Framed(), [one], out)[8:] == b'yes'

    def test_a_result_that_does_not_fit_is_refused_and_the_others_come(self, out: Path, tmp_path: Path) -> None:
        huge = tmp_path / 'huge'
        huge.touch()
        os.truncate(huge, 2**31)
        number = os.open(out, os.O_WRONLY | os.O_CREAT)
        with Delivery(Framed(), Descriptor(number), read=nothing_read, keep_order=True) as delivery:
            [refused] = delivery.give([result(0, b'a'), result(1, huge), result(2, b'c')])
        os.close(number)
        assert str(refused) == (
            'task 1: a frame cannot hold its stdout of 2147483648 bytes '
            '(the most is 2147483647; --format jsonl and text know no limit)'
        )
        assert out.read_bytes() == bytes.fromhex('00000000 01000000 61 02000000 01000000 63')

    def test_the_largest_fits(self, tmp_path: Path) -> None:
        path = tmp_path / 'huge'
        path.touch()
        os.truncate(path, formats.MOST)
        Framed().check(result(0, path))


class TestText:
    def test_it_is_what_was_printed(self, out: Path, tmp_path: Path) -> None:
        given_ = [result(0, b'a\xff\x00'), result(1, outcome=FAILED), result(2, stored(tmp_path, MB))]
        assert delivered(Text(), given_, out) == b'a\xff\x00' + MB

    def test_each_line_has_the_index_of_its_task(self, out: Path) -> None:
        given_ = [result(0, b'a\nb\n'), result(1), result(12, b'\n\nc'), result(13, b'd')]
        assert delivered(Text(tag=True), given_, out) == b'0\ta\n0\tb\n12\t\n12\t\n12\tc\n13\td\n'

    @given(st.lists(st.sampled_from([b'\n', b'ab', b'\n\n', b'c\n']), max_size=8), st.integers(1, 5))
    def test_pieces_of_files_make_no_difference_to_tags(self, words: list[bytes], size: int) -> None:
        data = b''.join(words)
        pieces = [data[begin : begin + size] for begin in range(0, len(data), size)]
        lines = data.split(b'\n')
        expected = b''.join(b'3\t' + line + b'\n' for line in (lines if lines[-1] else lines[:-1]))
        assert b''.join(formats._tagged(b'3\t', pieces)) == expected


class TestJsonLines:
    def objects(self, results: Sequence[Result], out: Path) -> list[dict[str, object]]:
        data = delivered(JsonLines(), results, out)
        assert data.isascii()
        assert data.endswith(b'\n')
        return [json.loads(line) for line in data.splitlines()]

    def test_an_object_a_task(self, out: Path) -> None:
        failed = result(1, outcome=Outcome(Cause.EXIT, 3, 'why'), tail='no such thing', attempt=3, host='h2')
        assert self.objects([result(0, 'grün "\n\U0001f600'.encode()), failed], out) == [
            {'index': 0, 'command': 'echo 0', 'host': 'h1', 'attempt': 1, 'began': 1000.0, 'seconds': 0.5,
             'status': 0, 'cause': None, 'why': '', 'tail': '', 'stdout': 'grün "\n\U0001f600'},
            {'index': 1, 'command': 'echo 1', 'host': 'h2', 'attempt': 3, 'began': 1000.0, 'seconds': 0.5,
             'status': 3, 'cause': 'exit', 'why': 'why', 'tail': 'no such thing', 'stdout': ''},
        ]  # fmt: skip

    def test_what_is_no_utf8_is_base64(self, out: Path, tmp_path: Path) -> None:
        cut = 'ü'.encode()[:1]
        found = self.objects([result(0, cut), result(1, stored(tmp_path, MB * 3))], out)
        assert [b64decode(str(one['stdout_base64'])) for one in found] == [cut, MB * 3]
        assert all('stdout' not in one for one in found)

    def test_a_large_text_is_one_string(self, out: Path, tmp_path: Path) -> None:
        text = 'aü\U0001f600' * 500_001  # characters lie across the borders of pieces
        [found] = self.objects([result(0, stored(tmp_path, text.encode()))], out)
        assert found['stdout'] == text

    def test_parameters_and_named_results_of_sweeps(self, out: Path) -> None:
        parameters = {'rate': 10, 'x': float('nan'), 'path': Path('/a'), 'many': (1, 2.5, None)}
        task = Task('it', parameters=parameters, results={'out': 'stdout', 'raw': 'a.bin'})
        one = result(0, task=task, results={'out': b'ok', 'raw': b'\xff'})
        none = result(1, task=task, results={})
        found = self.objects([one, none], out)
        assert found[0]['parameters'] == {'rate': 10, 'x': 'nan', 'path': '/a', 'many': [1, 2.5, None]}
        assert found[0]['results'] == {'out': 'ok', 'raw_base64': '/w=='}
        assert 'stdout' not in found[0]
        assert found[1]['results'] == {}

    def test_commands_that_are_no_utf8_are_escaped(self, out: Path) -> None:
        command = b'echo \xff'.decode('utf-8', 'surrogateescape')
        [found] = self.objects([result(0, task=Task(command))], out)
        assert str(found['command']).encode('utf-8', 'surrogateescape') == b'echo \xff'


# Order


@given(st.permutations(range(12)), st.sets(st.integers(0, 11)), st.integers(0, 4000), st.integers(1, 5))
def test_in_order_whatever_order_they_come_in(order: list[int], fail: set[int], room: int, turn: int) -> None:
    """Also where nearly nothing may be held in memory, and where some fail."""
    results = [result(n, b'%d\n' % n, FAILED if n in fail else None) for n in range(12)]
    reader = Reader()
    with Delivery(
        Text(), Descriptor(reader.ours), read=lambda number: results[number - 1000], keep_order=True, room=room
    ) as delivery:
        for begin in range(0, 12, turn):
            delivery.give([results[position] for position in order[begin : begin + turn]])
    assert delivery.waiting == 0
    reader.close(reader.ours)
    assert reader.read_all() == b''.join(b'%d\n' % n for n in range(12) if n not in fail)
    reader.close()


def test_as_they_come(reader: Reader) -> None:
    with Delivery(Text(), Descriptor(reader.ours), read=nothing_read) as delivery:
        delivery.give([result(5, b'5')])
        assert reader.read(1) == b'5'
        delivery.give([result(0, b'0')])
        assert reader.read(1) == b'0'


def test_in_order_a_result_leaves_as_soon_as_those_before_it_are_settled(reader: Reader) -> None:
    with Delivery(Text(), Descriptor(reader.ours), read=nothing_read, keep_order=True) as delivery:
        delivery.give([result(1, b'1'), result(2, b'2')])
        assert delivery.waiting == 2
        delivery.give([result(0, outcome=FAILED)])
        assert reader.read(2) == b'12'


def test_in_order_nothing_waits_for_what_is_skipped(reader: Reader) -> None:
    with Delivery(Text(), Descriptor(reader.ours), read=nothing_read, keep_order=True) as delivery:
        delivery.give([result(0, b'0'), result(3, b'3')])
        assert reader.read(1) == b'0'
        delivery.skip([1, 2])
        assert reader.read(1) == b'3'


def test_what_was_written_is_told_once(reader: Reader) -> None:
    told = threading.Semaphore(0)
    with Delivery(
        Text(), Descriptor(reader.ours), read=nothing_read, keep_order=True, on_written=told.release
    ) as delivery:
        delivery.give([result(0, b'0'), result(1, outcome=FAILED), result(3, b'3')])
        assert told.acquire(timeout=60)
        until(lambda: delivery.waiting == 1, lambda: delivery.waiting)
        assert delivery.take_written() == [1000, 1001]
        assert delivery.take_written() == []
    assert delivery.take_written() == [1003]


def test_what_was_settled_before_is_read_back(reader: Reader) -> None:
    with Delivery(Text(), Descriptor(reader.ours), read=lambda n: result(n - 1000, b'old'), keep_order=True) as given_:
        given_.give([result(1, b'new')])
        given_.recall(0, 1000)
        assert reader.read(6) == b'oldnew'


def test_a_gap_that_is_never_filled_holds_nothing_back_at_the_end(out: Path) -> None:
    assert delivered(Text(), [result(3, b'3'), result(1, b'1')], out, keep_order=True) == b'13'


def test_what_waits_is_read_back_beyond_the_room(slow: Reader) -> None:
    """The reader stops: results are taken all the same, and few of them are held."""
    read_back: list[int] = []

    def read(number: int) -> Result:
        read_back.append(number)
        return result(number - 1000, MB)

    with Delivery(Text(), Descriptor(slow.ours), read=read, room=3_500_000) as delivery:
        for position in range(10):
            delivery.give([result(position, MB)])
        assert delivery.waiting == 10
        thread = threading.Thread(target=delivery.close)
        thread.start()
        assert slow.read(10 * len(MB)) == 10 * MB
        thread.join()
    assert read_back == list(range(1003, 1010))


# Writing


@pytest.mark.parametrize('kind', ['memory', 'file'])
@pytest.mark.parametrize('form', [Framed(), Text(), Text(tag=True), JsonLines()])
def test_a_reader_with_a_small_buffer_that_is_not_waited_for(
    slow: Reader, tmp_path: Path, form: Format, kind: str
) -> None:
    given_ = [result(n, MB if kind == 'memory' else stored(tmp_path, MB)) for n in range(3)]
    expected = delivered(form, given_, tmp_path / 'expected')
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(slow.read_all()))
    with Delivery(form, Descriptor(slow.ours), read=nothing_read) as delivery:
        delivery.give(given_)
        thread.start()
    slow.close(slow.ours)
    thread.join()
    assert found == [expected]


def test_a_socket(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with (
        ours,
        theirs,
        theirs.makefile('rb') as file,
        Delivery(Text(), Descriptor(ours.fileno()), read=nothing_read) as delivery,
    ):
        delivery.give([result(0, stored(tmp_path, MB)), result(1, MB)])
        assert file.read(2 * len(MB)) == 2 * MB


def test_files_that_are_appended_to(out: Path, tmp_path: Path) -> None:
    """`>>results`: the kernel does not copy to such a file."""
    out.write_bytes(b'before\n')
    assert delivered(Text(), [result(0, stored(tmp_path, MB))], out, flags=os.O_APPEND) == b'before\n' + MB


class TestFailures:
    def failing(
        self, number: int, results: Sequence[Result], form: Format | None = None, written: Sequence[int] = ()
    ) -> RemoteRunnerError:
        """What `close` raises, after it was told that something has failed; these tasks are written."""
        told = threading.Event()
        delivery = Delivery(form or Framed(), Descriptor(number), read=nothing_read, on_failure=told.set)
        delivery.give(results)
        with pytest.raises(RemoteRunnerError) as caught:
            delivery.close()
        assert told.wait(60)
        with pytest.raises(type(caught.value)):
            delivery.give([result(0)])
        assert delivery.take_written() == list(written)
        return caught.value

    def test_nobody_reads(self, reader: Reader, tmp_path: Path) -> None:
        reader.close(reader.end)
        for data in (b'a', stored(tmp_path, MB)):
            error = self.failing(reader.ours, [result(0, data)])
            assert isinstance(error, OutputClosed)
            assert error.exit_status == 141
            assert str(error) == 'nobody reads the results any more'

    def test_the_disk_is_full(self, tmp_path: Path) -> None:
        full = os.open('/dev/full', os.O_WRONLY)
        for data in (b'a', stored(tmp_path, MB)):
            error = self.failing(full, [result(0, data)])
            assert isinstance(error, OutputFailed)
            assert error.exit_status == 1
            assert str(error) == 'the results cannot be written: No space left on device'
        os.close(full)

    @pytest.mark.parametrize('form', [Framed(), Text(), Text(tag=True), JsonLines()])
    def test_a_result_that_is_gone_is_named_and_those_before_it_are_there(
        self, form: Format, out: Path, tmp_path: Path
    ) -> None:
        number = os.open(out, os.O_WRONLY | os.O_CREAT)
        error = self.failing(number, [result(0, b'a'), result(1, tmp_path / 'gone'), result(2, b'c')], form, [1000])
        os.close(number)
        path = tmp_path / 'gone'
        assert str(error) == f'the result of task 1 cannot be read: {path}: No such file or directory'
        assert out.read_bytes() == delivered(form, [result(0, b'a')], tmp_path / 'other')

    def test_a_cut_frame_is_the_last_thing_written(self, reader: Reader) -> None:
        """The reader closes while it gets a frame: what it has is the beginning of the right bytes."""
        delivery = Delivery(Framed(), Descriptor(reader.ours), read=nothing_read)
        delivery.give([result(0, b'a'), result(1, MB), result(2, b'c')])
        first = reader.read(9 + 8 + 1000)
        reader.close(reader.end)
        with pytest.raises(OutputClosed):
            delivery.close()
        frame = (1).to_bytes(4, 'little') + len(MB).to_bytes(4, 'little') + MB
        assert first == bytes.fromhex('00000000 01000000 61') + frame[:1008]

    def test_a_file_that_shrinks_while_it_is_copied(self, slow: Reader, tmp_path: Path) -> None:
        path = stored(tmp_path, MB)
        delivery = Delivery(Framed(), Descriptor(slow.ours), read=nothing_read)
        delivery.give([result(0, path), result(1, b'b')])
        assert slow.read(8)[4:] == len(MB).to_bytes(4, 'little')
        os.truncate(path, 500_000)
        found: list[bytes] = []
        thread = threading.Thread(target=lambda: found.append(slow.read(499_000)))
        thread.start()
        with pytest.raises(OutputFailed, match='has been cut: it held 1000000 bytes'):
            delivery.close()
        thread.join()
        assert found == [MB[:499_000]]

    def test_what_the_journal_raises_is_raised(self, reader: Reader) -> None:
        def read(number: int) -> Result:
            raise OutputFailed(f'the journal has no task {number}')

        delivery = Delivery(Text(), Descriptor(reader.ours), read=read)
        delivery.give([result(0, b'a')])
        assert reader.read(1) == b'a'
        delivery.recall(1, 1001)
        with pytest.raises(OutputFailed, match='the journal has no task 1001'):
            delivery.close()


def test_ctrl_c_waits_for_no_reader(reader: Reader) -> None:
    delivery = Delivery(Text(), Descriptor(reader.ours), read=nothing_read)
    delivery.give([result(0, MB), result(1, b'never')])
    assert reader.read(10) == MB[:10]
    with pytest.raises(KeyboardInterrupt), delivery:
        raise KeyboardInterrupt
    [thread] = [thread for thread in threading.enumerate() if thread.name == 'delivery']
    assert reader.read(len(MB) - 10) == MB[10:]
    thread.join()
    reader.close(reader.ours)
    assert reader.read_all() == b''


# Programs that read frames


@pytest.fixture(scope='module')
def c_client(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    program = tmp_path_factory.mktemp('clients') / 'framed'
    subprocess.run(['cc', '-Wall', '-Wextra', '-Werror', '-O1', '-o', program, CLIENTS / 'framed.c'], check=True)
    return [str(program)]


@pytest.fixture(params=['c', 'python'])
def client(request: pytest.FixtureRequest) -> list[str]:
    if request.param == 'c':
        command: list[str] = request.getfixturevalue('c_client')
        return command
    return [sys.executable, str(CLIENTS / 'framed.py')]


DATA = [b'', b'one\n', MB, bytes(range(256)), b'\x00\x00\x00\x00\x08\x00\x00\x00', b'', MB[:65536], b'end']


def test_clients_read_every_frame(client: list[str], tmp_path: Path) -> None:
    results = [result(n, stored(tmp_path, data, f'r{n}') if n % 2 else data) for n, data in enumerate(DATA)]
    process = subprocess.Popen(client, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False)
    assert process.stdin
    with Delivery(Framed(), Descriptor(process.stdin.fileno()), read=nothing_read) as delivery:
        delivery.give(results)
    output, _ = process.communicate()
    assert process.returncode == 0
    assert output.decode().splitlines() == [f'{n} {len(d)} {zlib.crc32(d):08x}' for n, d in enumerate(DATA)]


def test_clients_get_a_frame_while_others_are_to_come(client: list[str]) -> None:
    process = subprocess.Popen(client, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    with Delivery(Framed(), Descriptor(process.stdin.fileno()), read=nothing_read) as delivery:
        for number in range(3):
            delivery.give([result(number, b'x')])
            assert process.stdout.readline().split()[0] == str(number).encode()
    process.communicate()


def test_clients_notice_every_cut(client: list[str], out: Path) -> None:
    frames = delivered(Framed(), [result(0, b''), result(1, b'abc')], out)
    for size in range(len(frames) + 1):
        done = subprocess.run(client, input=frames[:size], capture_output=True, check=False)
        assert done.returncode == (size not in (0, 8, 8 + 11)), (size, done.stderr)


def test_many_small_results_take_little_memory_and_each_is_written(reader: Reader) -> None:
    """Ten thousand that a reader takes late."""
    results = [result(n, b'%05d\n' % n) for n in range(10_000)]
    with Delivery(Text(), Descriptor(reader.ours), read=lambda number: results[number - 1000], room=100_000) as given_:
        for begin in range(0, 10_000, 100):
            given_.give(results[begin : begin + 100])
        until(lambda: given_._bytes <= 100_000, lambda: given_._bytes)
        thread = threading.Thread(target=given_.close)
        thread.start()
        assert reader.read(60_000) == b''.join(b'%05d\n' % n for n in range(10_000))
        thread.join()


def test_every_field_of_json_is_explained(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / 'docs' / 'job-results.md').read_text()
    task = Task('it', parameters={'a': 1}, results={'out': 'stdout'})
    given_ = [result(0, b'a'), result(1, b'\xff'), result(2, task=task, results={'out': b''})]
    found = [json.loads(line) for line in delivered(JsonLines(), given_, tmp_path / 'out').splitlines()]
    fields = {name for one in found for name in one}
    assert {'stdout', 'stdout_base64', 'results', 'parameters'} < fields
    numbers = Statistics().to_dict()
    numbers |= Failure(0, Cause.EXIT, '', 0, '', '')._asdict() | Slow(0, '', 0.0)._asdict() | Copies()._asdict()
    fields |= {*numbers, *HostView._fields} - {'position'}
    assert {name for name in fields if f'`{name}`' not in text} == set()


def test_clients_read_what_the_command_writes(client: list[str], bed: Testbed, tmp_path: Path) -> None:
    """All bytes of all that succeeded, once; what failed is named, and is the exit status."""
    lines = ['printf ""', 'head -c 1000000 /dev/zero', 'exit 3', r"printf 'a\377\000b'", 'echo noise >&2; echo 4']
    (tmp_path / 'commands').write_text('\n'.join(lines))
    commands = Commands(bed.directory / 'home', bed.ssh_config)
    options = ['-F', bed.ssh_config, '-H', '2/h1,h2', '--format', 'framed', '--retries', '0']
    done = commands.run('batch', tmp_path / 'commands', *options, status=1)
    assert 'task 2' in done.stderr
    read = subprocess.run(client, input=done.out, capture_output=True, check=True).stdout.decode()
    expected = {0: b'', 1: bytes(1_000_000), 3: b'a\xff\0b', 4: b'4\n'}
    assert sorted(read.splitlines()) == [f'{n} {len(data)} {zlib.crc32(data):08x}' for n, data in expected.items()]
