"""What a run came to: the table, how to attach, what failed, and the events as JSON."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from remote_runner import events as e
from remote_runner.ui.output import JsonLines, Output
from remote_runner.ui.progress import Progress
from remote_runner.ui.tables import MOST_ROWS, Row, attach_lines, failures, result_table, row_of, stop_command

ROOT = Path(__file__).parents[1]
STARTED = Row('pub', 'h1', 0, 'started', 1234, 0, 0.05)


def states(*events: e.Event) -> list[str]:
    """The states that components have in the table after these events."""
    progress = Progress()
    for event in events:
        progress.apply(event, 0)
    return [row_of(component).state for component in progress.components()]


BEGUN = e.RunStarted(run='r', session='s', hosts=('h1',), components={0: ('a@h1',)})
START = e.ComponentStarting(component='a', host='h1', index=0)
RUNS = e.ComponentStarted(component='a', host='h1', pid=1, window=0, seconds=1)
FAILED = e.ComponentFailed(component='a', host='h1', reason='why')
ABORTED = e.ComponentAborted(component='a', host='h1', reason='why')
STOPPED = e.ComponentStopped(component='a', host='h1')
UNKNOWN = e.ComponentUnknown(component='a', host='h1', reason='why')


def exited(status: int) -> e.Event:
    return e.ComponentExited(component='a', host='h1', status=status)


@pytest.mark.parametrize(
    ('events', 'state'),
    [
        ([], 'not started'),
        ([START], 'starting'),
        ([START, RUNS], 'started'),
        ([START, RUNS, exited(0)], 'exited 0'),
        ([START, RUNS, exited(137)], 'exited 137'),
        ([START, FAILED], 'failed'),
        ([START, FAILED, STOPPED], 'failed'),
        ([START, FAILED, ABORTED], 'failed'),
        ([START, RUNS, exited(3), FAILED], 'failed'),
        ([START, RUNS, FAILED, exited(3)], 'failed'),
        ([START, ABORTED], 'aborted'),
        ([START, RUNS, STOPPED], 'stopped'),
        ([START, RUNS, STOPPED, exited(143)], 'stopped'),
        ([START, RUNS, exited(143), STOPPED], 'stopped'),
        ([START, UNKNOWN], 'unknown'),
        ([START, UNKNOWN, RUNS], 'started'),
        ([START, RUNS, UNKNOWN, exited(0)], 'exited 0'),
    ],
)
def test_states(events: list[e.Event], state: str) -> None:
    assert states(BEGUN, *events) == [state]
    if events:
        assert states(*events) == [state], 'also where the run was not announced'


def test_labels_are_taken_apart_by_the_hosts_that_there_are() -> None:
    progress = Progress()
    labels = ('a@root@h1', 'b@c@h2', 'd@h1')
    hosts = ('h1', 'root@h1', 'h2')
    progress.apply(e.RunStarted(run='r', session='s', hosts=hosts, components={0: labels}), 0)
    assert [(c.name, c.host) for c in progress.components()] == [('a', 'root@h1'), ('b@c', 'h2'), ('d', 'h1')]


def test_columns_stand_below_each_other_whatever_is_in_them() -> None:
    rows = [STARTED, Row('öffentlich', '主机', 0), Row('e\u0301\x1b[1m\n', 'h2', 0, 'exited 3', 7, 12, 75)]
    assert result_table(rows, 'runner').splitlines()[:4] == [
        'COMPONENT   HOST   PID  WINDOW  STATE              TIME',
        'pub         h1    1234       0  started          0.05 s',
        'öffentlich  主机     -       -  not started           -',
        'e\u0301\\x1b[1m\\n  h2       7      12  exited 3     1 min 15 s',
    ]


def test_colours_only_where_asked_for() -> None:
    rows = [STARTED, replace(STARTED, host='h2', state='failed')]
    plain, coloured = result_table(rows, 's'), result_table(rows, 's', color=True)
    assert '\x1b' not in plain
    assert '\x1b[1;31mfailed\x1b[0m' in coloured
    assert re.sub(r'\x1b\[[\d;]*m', '', coloured) == plain


@pytest.mark.parametrize(
    ('labels', 'session', 'line'),
    [
        (['pub@h1'], 'runner', 'remote_runner attach pub'),
        (['pub@localhost'], 'my', 'remote_runner attach pub --screen my'),
        (["a b'@h1"], 'runner', 'remote_runner attach \'a b\'"\'"\'\''),
        (['pub@h1', 'sub@h1', 'sup@h2'], 'runner', 'remote_runner attach NAME'),
        (['pub@h1', 'pub@h2', 'sub@h2'], 'my', 'remote_runner attach NAME@HOST --screen my'),
    ],
)
def test_how_to_attach(labels: list[str], session: str, line: str) -> None:
    rows = [replace(STARTED, component=label.split('@')[0], host=label.split('@')[1]) for label in labels]
    rows += [Row('x', 'h2'), Row('y', 'h3', state='aborted')]
    assert attach_lines(rows, session) == [f'attach: {line}   (windows: Ctrl-a ", leave: Ctrl-a d)']


@pytest.mark.parametrize(
    ('host', 'session', 'ssh', 'command'),
    [
        ('h1', 'runner', {}, '-H h1'),
        ('root@h1:22', 'my', {}, '-H root@h1:22 --screen my'),
        ('h1', 'runner', {'ssh_config': '/my config', 'user': 'anne'}, "-H h1 -u anne -F '/my config'"),
        ('node[1-3]', 'runner', {}, "-H 'node[1-3]'"),
        ('localhost', 'my', {'ssh_config': '/config', 'user': 'anne'}, '-H localhost --screen my'),
    ],
)
def test_how_to_stop(host: str, session: str, ssh: dict[str, str], command: str) -> None:
    assert stop_command(host, session, ssh) == f'remote_runner stop {command}'


def test_nothing_started_nothing_to_attach_to() -> None:
    assert result_table([Row('x', 'h1')], 's').splitlines()[-1] == '1 component: 1 not started'


def test_of_many_rows_those_that_went_wrong_are_shown() -> None:
    rows = [replace(STARTED, host=f'h{number}') for number in range(MOST_ROWS)]
    assert len(result_table(rows, 's').splitlines()) == 1 + MOST_ROWS + 2
    rows += [Row('bad', 'h1', 0, 'failed'), Row('ended', 'h1', 0, 'exited 3'), Row('late', 'h1', 1)]
    lines = result_table(rows, 's').splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ['bad', 'ended']
    assert lines[3:5] == ['… and 201 more', '203 components: 200 started, 1 failed, 1 exited 3, 1 not started']
    assert result_table([STARTED] * 201, 's').splitlines()[0] == '201 components: 201 started'


def test_failures_tell_reason_and_output_once() -> None:
    failed = Row('pub', 'h1', 0, 'failed', detail='ended with status 3', output='10%\r20%\r100%\r\n\tbad \x1b[1m\n\n')
    rows = [STARTED, *(replace(failed, host=f'node{number}') for number in range(5))]
    rows += [Row('sub', 'h2', 0, 'unknown', detail='connection lost')]
    assert failures(rows).splitlines() == [
        '6 of 7 components failed:',
        '  pub@node[0-4]: ended with status 3',
        '    | 100%',
        '    | \tbad \\x1b[1m',
        '  sub@h2: connection lost',
    ]
    assert failures([STARTED]) == ''


class TestJsonLines:
    def test_a_line_an_event_in_ascii(self) -> None:
        stream = io.StringIO()
        listener = JsonLines(Output(stream))
        listener(BEGUN)
        failed = e.ComponentFailed(time=1.5, component='ü', host='h1', reason='\udcff', output='a\nb')
        listener(failed)
        first, second = stream.getvalue().splitlines()
        assert json.loads(first)['components'] == {'0': ['a@h1']}
        assert second.isascii()
        assert json.loads(second) == failed.to_dict()

    @pytest.mark.parametrize('device', ['closed pipe', 'full disk', 'closed'])
    def test_the_run_goes_on_when_nobody_reads(self, device: str) -> None:
        script = (
            'from remote_runner.ui import log, output; from remote_runner.events import HostConnecting; import sys\n'
            'log.configure("INFO"); listen = output.JsonLines()\n'
            'for number in range(3): listen(HostConnecting(host="h1"))\n'
            'sys.stderr.write("went on\\n")'
        )
        if device == 'closed pipe':
            reading, stdout = os.pipe()
            os.close(reading)
        else:
            stdout = os.open('/dev/full', os.O_WRONLY)
        command = [sys.executable, '-c', script]
        if device == 'closed':
            command = ['sh', '-c', 'exec "$@" >&-', 'sh', *command]
        done = subprocess.run(command, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
        os.close(stdout)
        told = 'ERROR: stdout cannot be written: No space left on device\n' if device == 'full disk' else ''
        assert (done.stderr, done.returncode) == (f'{told}went on\n', 0)

    def test_what_cannot_be_encoded_is_escaped(self, caplog: pytest.LogCaptureFixture) -> None:
        stream = io.TextIOWrapper(io.BytesIO(), encoding='ascii')
        with caplog.at_level(logging.DEBUG):
            Output(stream).write('ü\udcff')
        stream.seek(0)
        assert stream.read() == '\\xfc\\udcff'
        assert not caplog.records
