"""Log records as scripts read them, and text made fit for a terminal."""

from __future__ import annotations

import logging
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from remote_runner import events as e
from remote_runner.cli.options import LOG_LEVELS
from remote_runner.ui import log, text
from remote_runner.ui.lines import line_of

ROOT = Path(__file__).parents[1]


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Logging is left as it was."""
    root, paramiko = logging.getLogger(), logging.getLogger('paramiko')
    handlers, levels = root.handlers[:], (root.level, paramiko.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    paramiko.setLevel(levels[1])


@pytest.mark.usefixtures('configured')
class TestRecords:
    def test_level_and_message(self, capsys: pytest.CaptureFixture[str]) -> None:
        log.configure('INFO')
        log.configure('INFO')
        logging.debug('not shown')
        logging.info('100 %')
        logging.getLogger('of.a.user').warning('%s [red]and[/red] %d', 'a', 7)
        logging.critical('two\nlines\tand \x1b[2J')
        assert capsys.readouterr() == (
            '',
            'INFO: 100 %\nWARNING: a [red]and[/red] 7\nCRITICAL: two\nlines\tand \\x1b[2J\n',
        )

    @pytest.mark.parametrize(('level', 'shown'), [(level, LOG_LEVELS[n:]) for n, level in enumerate(LOG_LEVELS)])
    def test_levels(self, capsys: pytest.CaptureFixture[str], level: str, shown: list[str]) -> None:
        log.configure(level)
        for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger('user').log(number, 'x')
        assert capsys.readouterr().err == ''.join(f'{name}: x\n' for name in shown)

    def test_wrong_arguments_name_the_line_and_not_our_stack(self, capsys: pytest.CaptureFixture[str]) -> None:
        place = (__file__, 12)
        log.LogHandler().handle(logging.LogRecord('user', logging.INFO, *place, '%d files', ('no number',), None))
        message = capsys.readouterr().err
        assert message.startswith("INFO: '%d files' cannot be logged with ('no number',): ")
        assert f'({__file__}, line 12)' in message
        assert 'Traceback' not in message

    def test_an_error_with_its_trace(self, capsys: pytest.CaptureFixture[str]) -> None:
        log.configure('INFO')
        try:
            raise ValueError('why')
        except ValueError:
            logging.exception('what')
        assert capsys.readouterr().err.startswith('ERROR: what\nTraceback (most recent call last):\n')

    def test_paramiko_speaks_at_debug_alone(self, capsys: pytest.CaptureFixture[str]) -> None:
        log.configure('INFO')
        logging.getLogger('paramiko.transport').error('Exception (client)')
        assert capsys.readouterr().err == ''
        log.configure('DEBUG')
        logging.getLogger('paramiko.transport').debug('starting thread')
        assert capsys.readouterr().err == 'DEBUG: starting thread\n'

    def test_a_closed_stderr_is_no_error(self) -> None:
        script = (
            'import logging; from remote_runner.ui import log\n'
            'log.configure("INFO"); logging.info("x"); print("went on")'
        )
        command = ['sh', '-c', 'exec "$@" 2>&-', 'sh', sys.executable, '-c', script]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        assert (done.stdout, done.returncode) == ('went on\n', 0)


@pytest.mark.parametrize(
    ('event', 'level', 'line'),
    [
        (e.HostConnecting(host='h1'), 'DEBUG', 'h1: connecting'),
        (e.HostConnected(host='h1', seconds=62.4), 'INFO', 'h1: connected in 1 min 02 s'),
        (e.HostFailed(host='h1', error='h1: refused'), 'ERROR', 'h1: refused'),
        (e.HostFailed(host='h1', error='refused\x07\n    | banner'), 'ERROR', 'h1: refused\\x07\n    | banner'),
        (e.HostLost(host='h1', error='silent for 45 s'), 'WARNING', 'h1: silent for 45 s'),
        (e.HostMerged(host='h1', same_as='h2'), 'INFO', 'h1: is the same machine and user as h2'),
        (e.SessionQuit(host='h1', session='s', sessions=0, processes=0), None, ''),
        (
            e.SessionQuit(host='h1', session='s', sessions=1, processes=2),
            'INFO',
            'h1: session s of an earlier run quit: 1 session with 2 processes',
        ),
        (e.FilesCompared(host='h1', files=1, to_send=1, bytes=999), 'DEBUG', 'h1: 1 of 1 file to send (999 B)'),
        (e.FilesSending(host='h1', bytes=1, of_bytes=2), None, ''),
        (e.ResultsFetching(host='h1', bytes=1, of_bytes=2), None, ''),
        (e.FilesSent(host='h1', files=0, sent=0, modes=0, bytes=0, seconds=0), None, ''),
        (
            e.FilesSent(host='h1', files=0, sent=0, modes=0, bytes=0, seconds=1, links=2),
            'INFO',
            'h1: 2 links made in 1.00 s',
        ),
        (
            e.FilesSent(host='h1', files=5, sent=0, modes=2, bytes=0, seconds=1, unchanged=3, hashed=1),
            'INFO',
            'h1: permission bits of 2 files set, 3 files unchanged (SHA-1: 1 read, 4 remembered) in 1.00 s',
        ),
        (
            e.FilesSent(host='h1', files=5, sent=1, modes=0, bytes=9, seconds=1, sent_bytes=9, times=1, unchanged=3),
            'INFO',
            'h1: 1 file sent (9 B), times of 1 file set, 3 files unchanged (SHA-1: 4 remembered) in 1.00 s',
        ),
        (
            e.FilesSent(host='h1', files=2, sent=0, modes=0, bytes=0, seconds=1, shared=2, shared_with=('h2', 'h3')),
            'INFO',
            'h1: 2 files shared with h[2-3] in 1.00 s',
        ),
        (e.FilesDeleted(host='h1', deleted=0, failed=0, paths=()), None, ''),
        (e.FilesDeleted(host='h1', deleted=1, failed=0, paths=('/a\n',)), 'INFO', 'h1: 1 path deleted: /a\\n'),
        (
            e.FilesDeleted(host='h1', deleted=3, failed=1, paths=('/a', '/b/')),
            'WARNING',
            'h1: 3 paths deleted, 1 could not be: /a, /b/ and 2 more',
        ),
        (e.ComponentStarting(host='h1', component='c', index=0), 'DEBUG', 'c@h1: starting'),
        (e.ComponentFailed(host='h1', component='c', reason='a\nINFO: b'), 'ERROR', 'c@h1: a\\nINFO: b'),
        (e.ComponentExited(host='h1', component='c', status=0), 'INFO', 'c@h1: exited with status 0'),
        (e.ComponentExited(host='h1', component='c', status=137), 'WARNING', 'c@h1: exited with status 137 (SIGKILL)'),
        (e.ComponentExited(host='h1', component='c', status=255), 'WARNING', 'c@h1: exited with status 255'),
        (e.ComponentReady(host='h1', component='c', seconds=2.5), 'INFO', 'c@h1: ready in 2.50 s'),
        (e.ComponentSaid(host='h1', component='c', text='half way'), 'INFO', 'c@h1: says: half way'),
        (e.ComponentStopped(host='h1', component='c'), 'INFO', 'c@h1: stopped'),
        (e.ComponentAborted(host='h1', component='c', reason='x'), 'INFO', 'c@h1: start aborted: x'),
        (
            e.ComponentUnknown(host='h1', component='c', reason='x'),
            'ERROR',
            'c@h1: nobody knows whether it runs: x',
        ),
    ],
)
def test_facts(event: e.Event, level: str | None, line: str) -> None:
    assert line_of(event) == (None if level is None else (logging.getLevelName(level), line))


def test_every_event_has_its_line_or_is_known_to_have_none() -> None:
    values: dict[str, Any] = {'str': 'x', 'int': 7, 'float': 7.0, 'bool': True, 'tuple[str, ...]': ('x',)}
    values |= {'dict[int, tuple[str, ...]]': {0: ('x',)}, 'dict[str, str]': {'x': 'x'}}
    values |= {'tuple[str, ...] | None': ('x',)}
    silent = set()
    for kind in e.Event.__subclasses__():
        fields = {name: values[kind_of_field] for name, kind_of_field in kind.__annotations__.items()}
        if line_of(kind(**{**fields, 'component': 'c', 'host': 'h'})) is None:
            silent.add(kind)
    assert silent == {e.FilesSending, e.ResultsFetching}


@given(st.text())
def test_harmless_text_moves_no_cursor_and_can_be_encoded(raw: str) -> None:
    shown = text.harmless(raw)
    shown.encode()
    assert not [c for c in shown if unicodedata.category(c) in ('Cc', 'Cs', 'Zl', 'Zp')]
    assert text.harmless(shown) == shown


@pytest.mark.parametrize('shown', ['abc', 'öß', '主机', 'e\u0301', '…', 'カタカナ'])
def test_width_is_that_of_the_terminal(shown: str) -> None:
    assert text.width(shown) == cell_len(shown)


@pytest.mark.parametrize(
    ('count', 'shown'),
    [(0, '0 B'), (999, '999 B'), (1000, '1.0 kB'), (999_949, '999.9 kB'), (999_999, '1.0 MB'), (5 * 10**12, '5.0 TB')],
)
def test_size(count: int, shown: str) -> None:
    assert text.size(count) == shown


@pytest.mark.parametrize(
    ('number', 'shown'),
    [(9.994, '9.99 s'), (9.996, '10.0 s'), (59.96, '1 min 00 s'), (65.4, '1 min 05 s'), (7260, '2 h 01 min')],
)
def test_seconds(number: float, shown: str) -> None:
    assert text.seconds(number) == shown
