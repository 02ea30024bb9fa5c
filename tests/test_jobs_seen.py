"""What a person sees of jobs: live at a terminal (a real one, in tmux), as plain lines elsewhere, and at the end."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_runner.cli.job_options import add_result_options, format_of
from remote_runner.cli.options import Parser
from remote_runner.errors import UsageError
from remote_runner.jobs.engines.base import HostDown, HostSilent, HostUp
from remote_runner.jobs.formats import Framed
from remote_runner.jobs.policy import Cause, Outcome
from remote_runner.jobs.statistics import Statistics
from remote_runner.ui.job_frame import frame, pace
from remote_runner.ui.job_tables import MOST_GROUPS, failures, ranges, summary
from remote_runner.ui.jobs import stdout_sink
from remote_runner.ui.text import width
from tests.job_results import FAILED, ended
from tests.test_statistics import Fed
from tests.tmux import Window, until

ROOT = Path(__file__).parents[1]
DAY = [
    "expect(6, hosts=['h1', 'h2', 'h3'])",
    'up(h1=2, h2=1)',
    "end(0, 'h1', b'zero\\n', seconds=2.0)",
    "end(1, 'h2', b'one\\n', seconds=1.0)",
    'after(11)',
    "end(2, 'h1', outcome=Outcome(Cause.EXIT, 3), tail='Traceback\\nKeyError: \\x1b[31mrate\\n', attempt=3)",
    "hear(HostSilent('h2', 'h2: connection reset'))",
    "hear(HostDown('h2', 'no route to host', True))",
    "end(3, 'h1', outcome=Outcome(Cause.REJECTED, 0, 'no ok in it'))",
    "end(4, 'h1', outcome=Outcome(Cause.EXIT, 3), tail='KeyError: \\x1b[31mrate')",
    'after(9)',
    "end(5, 'h1', b'five\\n', seconds=0.5)",
]


def drive(tmp_path: Path, *lines: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[bytes]:
    """Run the lines in a process that has no terminal."""
    script = tmp_path / 'lines'
    script.write_text('\n'.join(lines))
    command = [sys.executable, '-m', 'tests.jobs_driver', str(script), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False)


def texts(statistics: Statistics, height: int = 23) -> list[str]:
    return [''.join(text for text, _ in line) for line in frame(statistics.view(), height)]


class TestPlain:
    """Not on a terminal."""

    def test_a_line_now_and_then_and_all_numbers_at_the_end(self, tmp_path: Path) -> None:
        done = drive(tmp_path, *DAY)
        assert done.stdout == b'zero\none\nfive\n'
        assert done.stderr.decode().splitlines() == [
            'INFO: h1: ready, 2 slots',
            'INFO: h2: ready, 1 slot',
            'INFO: 2 of 6 tasks done, 0 running on 2 of 3 hosts, 11/min, 22 s left',
            'ERROR: task 2 failed on h1, attempt 3: exit status 3: KeyError: \\x1b[31mrate',
            'WARNING: h2: connection lost, connecting again: connection reset',
            'ERROR: h2: given up: no route to host',
            'ERROR: task 3 failed on h1: rejected (no ok in it)',
            'ERROR: task 4 failed on h1: exit status 3: KeyError: \\x1b[31mrate',
            'INFO: 3 of 6 tasks done in 20.0 s (18/min), 3 failed: 2 exit, 1 rejected',
            'HOST  SLOTS  DONE  FAILED  LOST    BUSY  SHARE  RESULTS  STATE',
            'h1        2     2       3     -  4.00 s   10 %     10 B',
            'h2        1     1       -     -  1.00 s    9 %      4 B  given up',
            'h3        -     -       -     -       -      -        -  never there',
            'slowest tasks: 0 on h1 2.00 s, 1 on h2 1.00 s',
            'ERROR: 3 of 6 tasks failed:',
            '  tasks 2, 4: exit status 3, on h1',
            '    | KeyError: \\x1b[31mrate',
            '  task 3: rejected (no ok in it), on h1',
        ]

    def test_of_frames_nothing_else_is_on_stdout(self, tmp_path: Path) -> None:
        done = drive(tmp_path, *DAY, options=('INFO', 'framed'))
        assert done.stdout == (
            b'\0\0\0\0\5\0\0\0zero\n' + b'\1\0\0\0\4\0\0\0one\n' + b'\5\0\0\0\5\0\0\0five\n'
        )  # fmt: skip

    def test_all_numbers_as_json(self, tmp_path: Path) -> None:
        done = drive(tmp_path, *DAY, options=('ERROR', 'text', '--json'))
        lines = done.stderr.decode().splitlines()
        [numbers] = [json.loads(line) for line in lines if line.startswith('{')]
        assert (numbers['done'], numbers['failed'], numbers['total']) == (3, {'exit': 2, 'rejected': 1}, 6)
        assert not any(line.startswith('HOST') for line in lines)

    def test_lines_become_seldom(self, tmp_path: Path) -> None:
        done = drive(tmp_path, 'expect(100)', 'up(h1=1)', *(['after(5)'] * 60), 'expect(0)')
        assert done.stderr.decode().count('of 100 tasks done') == 6 + 4

    def test_of_many_failures_the_first_are_told_at_once(self, tmp_path: Path) -> None:
        ends = [f"end({n}, 'h1', outcome=Outcome(Cause.EXIT, {n % 2 + 1}))" for n in range(1500)]
        done = drive(tmp_path, 'expect(2000)', 'up(h1=1)', *ends, "end(1999, 'h1', outcome=Outcome(Cause.CANCELLED))")
        lines = done.stderr.decode().splitlines()
        assert sum(line.startswith('ERROR: task ') for line in lines) == 20
        assert lines.count('ERROR: more tasks fail; all that did are listed at the end') == 1
        assert lines[-1] == '  … and 500 more, see remote_runner jobs failed j1'
        assert 'INFO: 0 of 2000 tasks done in 0.00 s, 1500 failed: 1500 exit, 1 cancelled' in lines

    def test_rich_is_not_imported(self, tmp_path: Path) -> None:
        imported = "logging.info([name for name in __import__('sys').modules if name.startswith('rich')])"
        assert b'INFO: []\n' in drive(tmp_path, *DAY, imported).stderr

    def test_ctrl_c_leaves_the_numbers(self, tmp_path: Path) -> None:
        done = drive(tmp_path, *DAY[:4], 'raise KeyboardInterrupt')
        assert done.returncode == 130
        assert b'INFO: 2 of 6 tasks done in' in done.stderr
        assert done.stderr.endswith(b'ERROR: interrupted\n')


class TestPicture:
    def test_hosts_what_is_slow_and_the_whole(self) -> None:
        fed = Fed(20, h1=2, host2=1)
        fed.all.expect(20, hosts=['h3'])
        for task in range(4):
            fed.finish(task, seconds=1.0)
        fed.finish(4, FAILED, host='host2')
        fed.begin(5)
        fed.begin(6, host='host2')
        fed.now += 8
        fed.begin(7)
        assert texts(fed.all) == [
            'h1     2 of 2 running,  75 % busy, 4 done, 0 failed',
            'host2  1 of 1 running, 100 % busy, 0 done, 1 failed',
            'h3     connecting',
            'slowest: 1006 on host2 for 8 s, 1005 on h1 for 8 s',
            '4 of 20 tasks done, 1 failed: 1 exit',
            '3 running on 2 of 3 hosts, 38/min, 24 s left  8 s',
        ]

    def test_hosts_in_trouble(self) -> None:
        fed = Fed(5, h1=1, h2=1, h3=1)
        fed.begin(0, host='h2')
        fed.all.hear(HostSilent('h1', 'h1: reset'))
        fed.all.hear(HostDown('h2', 'no route\nto it'))
        fed.all.hear(HostDown('h3', 'python3 is gone', True))
        assert texts(fed.all)[:3] == [
            'h1  connecting again: reset',
            'h2  not there: no route, 0 done, 1 lost',
            'h3  given up: python3 is gone',
        ]

    def test_while_tasks_come(self) -> None:
        fed = Fed(h1=1)
        fed.all.expect(7, is_all=False)
        fed.finish(0)
        assert texts(fed.all)[-2] == '1 of so far 7 done'

    def test_where_there_is_not_room_for_all_trouble_has_half_of_it(self) -> None:
        fed = Fed(100, **{f'h{number}': 1 for number in range(40)})
        for number in range(20, 40):
            fed.all.hear(HostDown(f'h{number}', 'gone'))
        fed.begin(0, host='h7')
        lines = texts(fed.all, 12)
        assert len(lines) == 12
        names = [line.split()[0] for line in lines[:9]]
        assert names == ['h0', 'h1', 'h2', 'h3', 'h7', 'h20', 'h21', 'h22', 'h23']
        assert lines[9] == '… and 31 more: 16 not there, 15 up'

    def test_trouble_has_all_of_it_where_nothing_else_is(self) -> None:
        fed = Fed(100, **{f'h{number}': 1 for number in range(40)})
        for number in range(1, 40):
            fed.all.hear(HostDown(f'h{number}', 'gone'))
        assert [line.split()[0] for line in texts(fed.all, 12)[:9]] == [f'h{number}' for number in range(9)]

    @given(hosts=st.integers(0, 50), height=st.integers(3, 60), running=st.integers(0, 60), down=st.integers(0, 50))
    @settings(max_examples=60)
    def test_it_fits(self, hosts: int, height: int, running: int, down: int) -> None:
        fed = Fed(1000, **{f'h{number}': 3 for number in range(hosts)})
        for task in range(running if hosts else 0):
            fed.begin(task, host=f'h{task % hosts}')
        fed.now += 70
        for number in range(min(down, hosts)):
            fed.all.hear(HostDown(f'h{number}', 'gone'))
        lines = texts(fed.all, height)
        assert len(lines) <= height
        assert lines[-2] == '0 of 1000 tasks done'
        numbers = [int(line.split()[2]) for line in lines if line.startswith('…')]
        shown = sum(bool(re.match(r'h\d', line)) for line in lines)
        assert shown + sum(numbers) == hosts

    def test_nothing_that_a_host_says_reaches_the_terminal(self) -> None:
        fed = Fed(1)
        fed.all.hear(HostUp('h\x1b1', 1))
        fed.all.hear(HostSilent('h\x1b1', '\x1b[2J'))
        assert texts(fed.all)[0] == 'h\\x1b1  connecting again: \\x1b[2J'


@pytest.mark.parametrize(
    ('rate', 'text'),
    [(1234.5, '1234/s'), (52.34, '52/s'), (9.5, '9.5/s'), (0.96, '1.0/s'), (0.5, '30/min'), (0.02, '1.2/min'),
     (0.001, '3.6/h')],
)  # fmt: skip
def test_paces(rate: float, text: str) -> None:
    assert pace(rate) == text


class TestEnd:
    def test_what_else_is_worth_a_line(self) -> None:
        fed = Fed(3, h1=1, h2=1)
        fed.begin(0)
        fed.start(0, 2, 'h2')
        fed.end(0, 2, host='h2', seconds=65.0)
        fed.all.settled(0, Outcome())
        fed.cancel(0)
        fed.all.saved(3.0)
        fed.begin(1)
        fed.all.hear(HostDown('h1', 'gone'))
        fed.start(1, 2, 'h2')
        lines = summary(fed.view()).splitlines()
        assert lines[0] == '1 of 3 tasks done in 0.00 s'
        assert lines[-4:] == [
            'slowest tasks: 1000 on h2 1 min 05 s',
            'tried again: 1 attempt',
            'lost with their hosts: 1 attempt',
            'second copies: 1, of which 1 ended first and saved 3.00 s',
        ]

    def test_of_many_hosts_those_with_trouble_are_listed(self) -> None:
        fed = Fed(1, **{f'h{number}': 1 for number in range(1000)})
        fed.all.hear(HostDown('h500', 'gone'))
        lines = summary(fed.view()).splitlines()
        assert [line.split()[0] for line in lines[1:3]] == ['HOST', 'h500']
        assert lines[3] == '… and 999 more hosts'

    def test_failures_by_how_they_failed(self) -> None:
        fed = Fed(1000, h1=1, h2=1)
        for task in range(5):
            fed.finish(task, Outcome(Cause.TIMEOUT), host=f'h{task % 2 + 1}')
        fed.finish(7, Outcome(Cause.TIMEOUT))
        fed.all.settled(8, Outcome(Cause.POISON))
        for task in range(100, 200):
            fed.finish(task, FAILED, tail=f'line {task}')
        lines = failures(fed.view(), 'more').splitlines()
        assert lines[:3] == [
            '107 of 1000 tasks failed:',
            '  tasks 1000-1004, 1007: over its time limit, on h[1-2]',
            '  task 1008: poison, lost on three different hosts',
        ]
        assert lines[3:5] == ['  task 1100: exit status 3, on h1', '    | line 100']
        assert lines[-1] == f'  … and {100 - (MOST_GROUPS - 2)} more, see more'

    def test_what_failed_before_a_resume_is_listed_elsewhere(self) -> None:
        fed = Fed(10, h1=1)
        fed.all.resumed(3, {Cause.EXIT: 2})
        assert failures(fed.view(), 'more') == '2 of 10 tasks failed before, see more'
        fed.finish(9, FAILED)
        assert failures(fed.view(), 'more').splitlines()[-1] == '  … and 2 more, see more'

    def test_ranges(self) -> None:
        assert ranges([3, 9, 7, 8]) == '3, 7-9'
        assert ranges([]) == ''


class Screen(Window):
    """A terminal on which the driver runs."""

    def __init__(self, columns: int, lines: int = 24) -> None:
        self._pipe = TemporaryDirectory(prefix='rr-tmux-')
        path = Path(self._pipe.name, 'lines')
        os.mkfifo(path)
        self._lines = os.open(path, os.O_RDWR)
        super().__init__(f'{sys.executable} -m tests.jobs_driver {path}; echo "status $?"; exec cat')
        self('resize-window', '-x', str(columns), '-y', str(lines))

    def do(self, *lines: str) -> None:
        for line in lines:
            os.write(self._lines, f'{line}\n'.encode())

    def close(self) -> None:
        os.close(self._lines)
        super().close()
        self._pipe.cleanup()


@pytest.fixture(params=[80, 120])
def screen(request: pytest.FixtureRequest) -> Iterator[Screen]:
    found = Screen(request.param)
    found.columns = request.param  # type: ignore[attr-defined]
    yield found
    found.close()


class TestTerminal:
    def test_forty_hosts_fit_and_results_stand_above(self, screen: Screen) -> None:
        columns: int = screen.columns  # type: ignore[attr-defined]
        screen.do('expect(1000)', 'up(' + ', '.join(f'node{n}=4' for n in range(40)) + ')')
        screen.do(*(f"begin({n}, 'node{n % 40}', ago={n})" for n in range(80)))
        screen.do("end(100, 'node3', b'a result \\x1b[2J\\n')", 'after(30)')
        lines = screen.shows(lambda lines: lines[-1].startswith('80 running on 40 of 40 hosts'))
        assert lines[-2] == '1 of 1000 tasks done'
        assert all(width(line) <= columns for line in lines)
        assert any(re.match(r'… and \d+ more: \d+ up$', line) for line in lines)
        until(lambda: 'a result\n' in re.sub(' +\n', '\n', screen('capture-pane', '-p', '-S', '-100')), screen.screen)

    def test_the_picture_makes_way_for_the_numbers(self, screen: Screen) -> None:
        screen.do(*DAY[:2])
        screen.shows(lambda lines: lines[-1].startswith('0 running on 2 of 3 hosts'))
        screen.do(*DAY[2:], 'delivery.close()', 'raise SystemExit(1)')
        lines = screen.shows(lambda lines: 'status 1' in lines)
        assert not any('running on' in line for line in lines)
        assert 'h1        2     2       3     -  4.00 s   10 %     10 B' in lines
        assert [line for line in lines if line in ('zero', 'one', 'five')] == ['zero', 'one', 'five']


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_results_that_a_terminal_would_obey_are_tamed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = b'a\x1b[2Jb\n\x1b]0;title\x07c\xff\n'
    (tmp_path / 'large').write_bytes(data)
    tty = Tty()
    monkeypatch.setattr(sys, 'stdout', tty)
    monkeypatch.setenv('NO_COLOR', '1')
    with (tmp_path / 'large').open('rb') as file:
        stdout_sink().copy(file, len(data))
    stdout_sink().write(data)
    assert tty.getvalue() == 2 * 'ab\nc\\xff\n'


def test_frames_are_not_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = Parser(prog='it')
    add_result_options(parser)
    options = parser.parse_args(['--format', 'framed'])
    assert isinstance(format_of(options), Framed)
    monkeypatch.setattr(sys, 'stdout', Tty())
    with pytest.raises(UsageError, match='frames are for programs, and stdout is a terminal'):
        format_of(options)


def test_numbers_are_counted_by_ended_alone() -> None:
    """A loop that tells of no orders is shown, too."""
    statistics = Statistics()
    statistics.hear(HostUp('h1', 1))
    statistics.hear(ended(0, {'stdout': b'x'}))
    statistics.settled(0, Outcome())
    assert statistics.view().done == 1
