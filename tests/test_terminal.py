"""What a person sees of a run: live on a terminal (a real one, in tmux), and as plain lines everywhere else."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from remote_runner import events as e
from remote_runner.ui import live
from remote_runner.ui.frame import Line
from remote_runner.ui.terminal import Terminal
from tests.tmux import Tmux, until

ROOT = Path(__file__).parents[1]
RUN = e.RunStarted(
    run='r1', session='runner', hosts=('h1', 'h2'), components={0: ('pub@h1', 'pub@h2'), 1: ('sub@h2',)}
)
WHOLE_RUN = [
    RUN,
    e.HostConnecting(host='h1'),
    e.HostConnecting(host='h2'),
    e.HostConnected(host='h1', seconds=0.1234),
    e.HostConnected(host='h2', seconds=1.5),
    e.FilesCompared(host='h1', files=2003, to_send=3, bytes=12345),
    e.FilesSending(host='h1', bytes=5000, of_bytes=12345),
    e.FilesSent(host='h1', files=2003, sent=3, modes=0, bytes=12345, sent_bytes=12345, seconds=0.2, unchanged=2000),
    e.FilesSent(host='h2', files=2003, sent=0, modes=0, bytes=0, seconds=0.1, unchanged=2003, hashed=2003),
    e.ComponentStarting(host='h1', component='pub', index=0),
    e.ComponentStarted(host='h1', component='pub', pid=1234, window=0, seconds=0.05),
    e.ComponentFailed(host='h2', component='pub', reason='no such file: /opt/pub', output='one\ntwo\n'),
    e.RunEnded(run='r1', exit_status=1, seconds=2.5),
]


def drive(tmp_path: Path, *lines: str, level: str = 'INFO', **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the lines in a process that has no terminal."""
    script = tmp_path / 'lines'
    script.write_text('\n'.join(lines))
    command = [sys.executable, '-m', 'tests.terminal_driver', str(script), level]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def emit(*events: e.Event) -> list[str]:
    return [f'emit({event!r})' for event in events]


class TestPlain:
    """Not on a terminal."""

    def test_each_fact_is_a_log_record(self, tmp_path: Path) -> None:
        done = drive(tmp_path, *emit(*WHOLE_RUN))
        assert done.stderr.splitlines() == [
            'INFO: run r1 of session runner: 3 components on 2 hosts',
            'INFO: h1: connected in 0.12 s',
            'INFO: h2: connected in 1.50 s',
            'INFO: h1: 3 files sent (12.3 kB), 2000 files unchanged (SHA-1: 2000 remembered) in 0.20 s',
            'INFO: h2: 2003 files unchanged (SHA-1: 2003 read) in 0.10 s',
            'INFO: pub@h1: started (pid 1234, window 0) in 0.05 s',
            'ERROR: pub@h2: no such file: /opt/pub',
            'INFO: run r1 ended after 2.50 s with exit status 1',
            'ERROR: 1 of 3 components failed:',
            '  pub@h2: no such file: /opt/pub',
            '    | one',
            '    | two',
        ]

    def test_the_table_is_all_of_stdout(self, tmp_path: Path) -> None:
        assert drive(tmp_path, *emit(*WHOLE_RUN)).stdout.splitlines() == [
            'COMPONENT  HOST   PID  WINDOW  STATE          TIME',
            'pub        h1    1234       0  started      0.05 s',
            'pub        h2       -       -  failed            -',
            'sub        h2       -       -  not started       -',
            '3 components: 1 started, 1 failed, 1 not started',
            'attach: remote_runner attach NAME@HOST   (windows: Ctrl-a ", leave: Ctrl-a d)',
        ]

    def test_at_warning_only_trouble_is_left_and_the_table(self, tmp_path: Path) -> None:
        done = drive(tmp_path, *emit(*WHOLE_RUN), level='WARNING')
        assert {line.partition(':')[0] for line in done.stderr.splitlines() if not line.startswith(' ')} == {'ERROR'}
        assert done.stdout.startswith('COMPONENT')

    def test_without_escapes_even_where_colour_is_forced(self, tmp_path: Path) -> None:
        done = drive(tmp_path, *emit(*WHOLE_RUN), FORCE_COLOR='1', TERM='xterm-256color')
        assert not re.search(r'[\r\x1b]', done.stdout + done.stderr)

    def test_rich_is_not_imported(self, tmp_path: Path) -> None:
        imported = "sys.stderr.write(repr([name for name in sys.modules if name.startswith('rich')]))"
        assert drive(tmp_path, *emit(*WHOLE_RUN), imported).stderr.count('[]') == 1

    def test_without_components_there_is_no_table(self, tmp_path: Path) -> None:
        failed = e.HostFailed(host='h1', error='h1: no route to host')
        done = drive(tmp_path, *emit(RUN, failed, e.RunEnded(run='r1', exit_status=3, seconds=1)))
        assert done.stdout == ''
        assert 'ERROR: h1: no route to host\n' in done.stderr

    def test_ctrl_c_leaves_the_table(self, tmp_path: Path) -> None:
        done = drive(tmp_path, *emit(*WHOLE_RUN[:-2]), 'raise KeyboardInterrupt')
        assert done.returncode == 130
        assert done.stdout.startswith('COMPONENT')
        assert done.stderr.endswith('ERROR: interrupted\n')


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def at_terminal(monkeypatch: pytest.MonkeyPatch) -> Tty:
    """From now on stdout and stderr are one terminal. (No fixture: pytest sets both again when the test begins.)"""
    tty = Tty()
    monkeypatch.setattr(sys, 'stderr', tty)
    monkeypatch.setattr(sys, 'stdout', tty)
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.delenv('NO_COLOR', raising=False)
    return tty


def drawn(tty: Tty, text: str) -> None:
    until(lambda: text in tty.getvalue(), tty.getvalue)


def shows_cursor(tty: Tty) -> bool:
    return tty.getvalue().rfind('\x1b[?25h') > tty.getvalue().rfind('\x1b[?25l')


class TestLive:
    """On a terminal of which we see the bytes."""

    def test_cursor_and_streams_are_given_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tty = at_terminal(monkeypatch)
        with Terminal() as terminal:
            terminal(e.HostConnecting(host='h1'))
            drawn(tty, 'connecting')
            assert sys.stderr is not tty
        assert (sys.stderr, sys.stdout) == (tty, tty)
        assert shows_cursor(tty)

    def test_also_after_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tty = at_terminal(monkeypatch)

        def interrupted() -> None:
            with Terminal() as terminal:
                terminal(e.HostConnecting(host='h1'))
                drawn(tty, 'connecting')
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert sys.stderr is tty
        assert shows_cursor(tty)

    def test_a_broken_picture_does_not_keep_the_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tty = at_terminal(monkeypatch)
        seen = threading.Event()
        monkeypatch.setattr(threading, 'excepthook', lambda _: seen.set())
        display = live.Display(lambda height: [][height])
        with display:
            display.changed()
            assert seen.wait(30)
        assert sys.stderr is tty
        assert shows_cursor(tty)

    def test_text_of_hosts_is_shown_as_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tty = at_terminal(monkeypatch)
        with Terminal() as terminal:
            terminal(e.HostFailed(host='h1', error='[red]bad[/red] \x1b]0;title\x07 \x9b31m :smile:'))
            drawn(tty, r'failed: [red]bad[/red] \x1b]0;title\x07 \x9b31m :smile:')

    def test_lines_of_all_kinds_pass_above(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tty = at_terminal(monkeypatch)
        with Terminal() as terminal:
            terminal(e.HostConnecting(host='h1'))
            drawn(tty, 'connecting')
            long = 'x' * 300
            print(long)
            print('[red]half', end='', file=sys.stderr)
            print(' and half', file=sys.stderr)
            print('no end', end='')
        text = tty.getvalue()
        assert long + '\n' in text, 'wrapped'
        assert '[red]half and half\n' in text
        assert text.endswith('no end')

    def test_colour_can_be_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tty = at_terminal(monkeypatch)
        def colours() -> list[str]:
            tty.truncate(0)
            with Terminal() as terminal:
                terminal(e.HostConnecting(host='h1'))
                drawn(tty, 'connecting')
                terminal(e.ComponentStarted(host='h1', component='c', pid=1, window=0, seconds=1))
            return re.findall(r'\x1b\[[\d;]*3\d[\d;]*m', tty.getvalue())

        assert colours()
        monkeypatch.setenv('NO_COLOR', '1')
        assert not colours()

    @pytest.mark.parametrize('term', ['dumb', 'unknown', ''])
    def test_a_terminal_that_can_nothing_gets_plain_lines(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, term: str
    ) -> None:
        tty = at_terminal(monkeypatch)
        monkeypatch.setenv('TERM', term)
        with caplog.at_level(logging.INFO), Terminal() as terminal:
            terminal(e.HostConnected(host='h1', seconds=1))
        assert [record.getMessage() for record in caplog.records] == ['h1: connected in 1.00 s']
        assert tty.getvalue() == ''

    def test_facts_are_no_log_lines_but_trouble_is(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        at_terminal(monkeypatch)
        with caplog.at_level(logging.INFO), Terminal() as terminal:
            terminal(e.HostConnected(host='h1', seconds=1))
            terminal(e.HostLost(host='h1', error='silent for 45 s'))
        assert [record.getMessage() for record in caplog.records] == ['h1: silent for 45 s']

    def test_it_makes_way_for_a_question(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tty = at_terminal(monkeypatch)
        with Terminal() as terminal:
            terminal(e.HostConnecting(host='h1'))
            drawn(tty, 'connecting')
            with terminal.paused(), terminal.paused():
                assert sys.stderr is tty
                assert tty.getvalue().endswith('\x1b[2K'), 'not removed'
                terminal(e.HostConnected(host='h1', seconds=1))
                assert sys.stderr is tty
            drawn(tty, 'connected')

    def test_ten_pictures_a_second_at_most_and_none_without_need(self) -> None:
        pictures: list[float] = []

        def picture(height: int) -> list[Line]:
            pictures.append(time.monotonic())
            return [[('always the same', '')]]

        screen = io.StringIO()
        display = live.Display(picture, Console(file=screen, force_terminal=True, width=80, height=24))
        with display:
            deadline = time.monotonic() + 30
            while len(pictures) < 8 and time.monotonic() < deadline:
                display.changed()
        assert (pictures[-1] - pictures[0]) / (len(pictures) - 1) >= 0.99 / live.FRAME_RATE
        assert screen.getvalue().count('always the same') == 2  # when it came, and as it went

    def test_events_after_the_end_draw_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tty = at_terminal(monkeypatch)
        with Terminal() as terminal:
            pass
        terminal(e.HostConnecting(host='h1'))
        assert tty.getvalue() == ''
        assert not [thread for thread in threading.enumerate() if thread.name == 'display']


@pytest.fixture
def tmux() -> Iterator[Tmux]:
    tmux = Tmux()
    yield tmux
    tmux.close()


class TestTmux:
    """On a real terminal."""

    def test_three_hosts_from_connecting_to_the_table(self, tmux: Tmux) -> None:
        hosts = ('h1', 'node2', 'localhost')
        labels = tuple(f'pub@{host}' for host in hosts)
        tmux.do(*emit(e.RunStarted(run='r', session='runner', hosts=hosts, components={0: labels})))
        tmux.do(*emit(*(e.HostConnecting(host=host) for host in hosts)))
        tmux.shows(
            lambda lines: [line.split()[:2] for line in lines[:3]] == [[host, 'connecting'] for host in hosts]
            and lines[3].startswith('0 of 3 hosts connected')
        )
        tmux.do(
            *emit(*(e.HostConnected(host=host, seconds=0.1) for host in hosts)),
            "logging.getLogger('user').info('a [b]record[/b]')",
            "print('printed')",
            *emit(e.FilesCompared(host='h1', files=4, to_send=3, bytes=3_000_000)),
            *emit(e.FilesSending(host='h1', bytes=1_000_000, of_bytes=3_000_000)),
        )
        tmux.shows(
            lambda lines: lines[:2] == ['INFO: a [b]record[/b]', 'printed']
            and lines[2].startswith('h1         copying:  33 %, 1.0 MB of 3.0 MB, 3 files')
            and lines[3:5] == ['node2      connected', 'localhost  connected']
        )
        tmux.do(
            *emit(e.FilesSent(host='h1', files=4, sent=3, modes=0, bytes=3_000_000, seconds=0.3)),
            *emit(*(e.ComponentStarting(host=host, component='pub', index=0) for host in hosts)),
            *emit(e.ComponentStarted(host='h1', component='pub', pid=17, window=0, seconds=0.1)),
        )
        tmux.shows(
            lambda lines: lines[2] == 'h1         1 component: 1 running'
            and lines[3].startswith('node2      starting: 0/1 components of index 0')
            and lines[5].startswith('1 of 3 components started (index 0)')
        )
        tmux.end()
        lines = tmux.shows(lambda lines: lines[-1] == 'status 7')
        assert lines[:4] == [
            'INFO: a [b]record[/b]',
            'printed',
            'COMPONENT  HOST       PID  WINDOW  STATE       TIME',
            'pub        h1          17       0  started   0.10 s',
        ]
        assert tmux('display', '-p', '#{cursor_flag}').strip() == '1'

    def test_two_hundred_hosts_fit(self, tmux: Tmux) -> None:
        hosts = tuple(f'node{number}' for number in range(200))
        tmux.do(*emit(e.RunStarted(run='r', session='runner', hosts=hosts, components={})))
        tmux.do(*emit(*(e.HostConnecting(host=host) for host in hosts)))
        tmux.do(*emit(*(e.HostConnected(host=host, seconds=0.1) for host in hosts[:150])))
        lines = tmux.shows(lambda lines: '150 of 200 hosts connected' in lines[-1])
        assert [line.split()[0] for line in lines[:21]] == list(hosts[150:171])
        assert lines[21] == '… and 179 more: 150 connected, 29 connecting'
        tmux.do(
            *emit(e.HostFailed(host='node7', error='node7: no route to host')),
            *emit(e.FilesCompared(host='node3', files=9, to_send=9, bytes=900)),
        )
        lines = tmux.shows(lambda lines: 'copying' in ''.join(lines) and 'failed' in lines[-1])
        assert lines[0] == 'ERROR: node7: no route to host'
        assert lines[1].startswith('node3    copying:   0 %')
        assert lines[2:22] == ['node7    failed: no route to host', *lines[3:22]]
        assert len(lines) == 24

    def test_the_cursor_is_there_even_if_we_are_killed(self, tmux: Tmux) -> None:
        tmux.do(*emit(e.HostConnecting(host='h1')))
        tmux.shows(lambda lines: lines[0].startswith('h1  connecting'))
        tmux.do('import os; os.kill(os.getpid(), 9)')
        tmux.shows(lambda lines: 'status 137' in lines[-1])
        assert tmux('display', '-p', '#{cursor_flag}').strip() == '1'

    def test_ctrl_c_gives_the_terminal_back(self, tmux: Tmux) -> None:
        tmux.do(*emit(e.HostConnecting(host='h1')))
        tmux.shows(lambda lines: lines[0].startswith('h1  connecting'))
        tmux('send-keys', 'C-c')
        assert tmux.shows(lambda lines: lines[-1] == 'status 130') == ['ERROR: interrupted', 'status 130']
        assert tmux('display', '-p', '#{cursor_flag}').strip() == '1'
