"""`logs`: the output of components, of many hosts in one stream."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from tests.commands import COMMAND, component, environment
from tests.standing import Standing, python, sh
from tests.testbed import Testbed, TestbedError
from tests.testbed.process import wait_until
from tests.tmux import Window

_CLOCK = """
import sys, time
for number in range(8):
    print('%.3f' % time.time(), number, flush=True)
    time.sleep(0.25)
"""
_BYTES = bytes(range(10)) + bytes(range(11, 256))
_WRITES_BYTES = f"""
import sys
sys.stdout.buffer.write({_BYTES!r} + b'\\n' + b'caf\\xe9 \\xff\\xfe\\n' + 'snow\\u2603'.encode())
"""


@pytest.fixture
def site(bed: Testbed, tmp_path: Path) -> Iterator[Standing]:
    with Standing(bed, tmp_path) as site:
        yield site


def ended(site: Standing, *labels: str) -> None:
    for label in labels:
        site.comes_to(label, 'exited')


class TestWhatThereIs:
    """Output of components that have ended."""

    @pytest.fixture(scope='class')
    @classmethod
    def site(cls, bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
        with Standing(bed, tmp_path_factory.mktemp('logs')) as site:
            site.write(
                python('clock', 'h1', _CLOCK),
                python('clock', 'h2', _CLOCK),
                sh('words', 'h1', 'echo first; echo "an ERROR"; sleep 0.5; echo last; printf "no newline"'),
                sh('words', 'h3', 'echo first; echo "an ERROR"; sleep 0.5; echo last; printf "no newline"'),
                sh('silent', 'localhost', 'exit 0'),
                python('bytes', 'h3', _WRITES_BYTES),
            )
            site.deploy()
            ended(site, 'clock@h1', 'clock@h2', 'words@h1', 'words@h3')
            yield site

    def test_in_the_order_of_times(self, site: Standing) -> None:
        lines = site.later('logs', 'clock').stdout.splitlines()
        found = [re.fullmatch(r'(clock@h[12]) \| (\d+\.\d+) (\d)', line) for line in lines]
        shown = [(each[1], float(each[2]), each[3]) for each in found if each]
        assert len(shown) == len(lines) == 16
        for host in ('h1', 'h2'):
            assert [number for label, _, number in shown if label == f'clock@{host}'] == list('01234567')
        # They were written in turns; what a busy machine holds back for a moment may change places.
        assert all(after - before > -0.4 for (_, before, _), (_, after, _) in pairwise(shown))

    def test_prefixes_are_aligned_where_there_are_several(self, site: Standing) -> None:
        lines = site.later('logs', 'words', '--grep', 'first', 'silent').stdout.splitlines()
        assert sorted(lines) == ['words@h1         | first', 'words@h3         | first']

    def test_what_ends_without_a_newline(self, site: Standing) -> None:
        lines = ['first', 'an ERROR', 'last', 'no newline']
        assert site.later('logs', 'words@h1').stdout == ''.join(f'words@h1 | {line}\n' for line in lines)

    def test_of_nothing(self, site: Standing) -> None:
        assert site.later('logs', 'silent').out == b''

    @pytest.mark.parametrize(('number', 'shown'), [('0', ''), ('1', '7'), ('3', '567'), ('99', '01234567')])
    def test_the_last_lines_of_each(self, site: Standing, number: str, shown: str) -> None:
        objects = site.later('logs', 'clock', '-n', number, '--json').objects
        for host in ('h1', 'h2'):
            assert ''.join(each['line'].split()[1] for each in objects if each['host'] == host) == shown

    def test_since(self, site: Standing) -> None:
        objects = site.later('logs', 'words@h1', '--json').objects
        assert [set(each) for each in objects] == [{'time', 'component', 'host', 'line'}] * 4
        assert [(each['component'], each['host'], each['line']) for each in objects][::2] == [
            ('words', 'h1', 'first'),
            ('words', 'h1', 'last'),
        ]
        moment = datetime.fromtimestamp(objects[2]['time'] - 0.25)
        late = site.later('logs', 'words@h1', '--since', moment.isoformat()).stdout.splitlines()
        assert late == ['words@h1 | last', 'words@h1 | no newline']
        assert site.later('logs', 'words@h1', '--since', '0s').out == b''
        assert site.later('logs', 'words@h1', '-n', '1', '--since', '1h').stdout == 'words@h1 | no newline\n'

    @pytest.mark.parametrize('text', ['tomorrow', '10', '-5m', '25:00', '2026-13-01', ''])
    def test_since_when(self, site: Standing, text: str) -> None:
        assert '--since' in site.later('logs', f'--since={text}', status=2).stderr

    def test_grep(self, site: Standing) -> None:
        found = site.later('logs', 'words', '--grep', 'ERR|^last$').stdout.splitlines()
        assert sorted(found[:2]) == ['words@h1 | an ERROR', 'words@h3 | an ERROR']
        assert sorted(found[2:]) == ['words@h1 | last', 'words@h3 | last']
        assert site.later('logs', '--grep', 'nowhere').out == b''
        assert '--grep' in site.later('logs', '--grep', '(', status=2).stderr

    def test_fold(self, site: Standing) -> None:
        assert site.later('logs', '--fold', 'words', 'clock@h1', '--grep', 'first|no| 7$').stdout.splitlines()[:5] == [
            '----------------',
            'words@h[1,3] (2)',
            '----------------',
            'first',
            'no newline',
        ]
        assert 'ERROR' in site.later('logs', '--fold', '-f', status=2).stderr
        assert 'ERROR' in site.later('logs', '--fold', '--json', status=2).stderr

    def test_time(self, site: Standing) -> None:
        line = site.later('logs', 'words@h1', '-n', '1', '--time').stdout
        assert re.fullmatch(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} words@h1 \| no newline\n', line)
        [said] = site.later('logs', 'words@h1', '-n', '1', '--json').objects
        assert line.startswith(datetime.fromtimestamp(said['time']).isoformat(' ')[:19])

    def test_bytes_are_what_they_were(self, site: Standing) -> None:
        out = site.later('logs', 'bytes').out
        assert out == b'bytes@h3 | ' + _BYTES + b'\nbytes@h3 | caf\xe9 \xff\xfe\nbytes@h3 | snow\xe2\x98\x83\n'
        objects = site.later('logs', 'bytes', '--json').objects
        lines = [each['line'].encode('utf-8', 'surrogateescape') for each in objects]
        assert lines == [_BYTES, b'caf\xe9 \xff\xfe', b'snow\xe2\x98\x83']

    def test_from_hosts_alone(self, site: Standing) -> None:
        done = site.from_elsewhere().run('logs', *site.elsewhere('h3'), '-n', '1', 'words')
        assert done.stdout == 'words@h3 | no newline\n'

    def test_a_reader_that_has_enough(self, site: Standing) -> None:
        command = f'{shlex.join(COMMAND)} logs --screen {site.session} clock | head -n 1; echo ${{PIPESTATUS[0]}}'
        done = subprocess.run(
            ['bash', '-c', command], capture_output=True, env=environment(site.home), cwd=site.home, check=True
        )
        assert done.stdout.count(b'\n') == 2
        assert done.stderr == b''


def test_what_ends_without_a_newline_stands_in_the_order_of_times(site: Standing) -> None:
    site.write(
        sh('asks', 'h2', 'printf "a question? "; exec sleep 1000'),
        sh('goes-on', 'h1', 'sleep 0.5; echo something else; exec sleep 1000', start_index=1),
    )
    site.deploy()
    wait_until(lambda: 'something else' in site.later('logs').stdout, 'its output')
    assert site.later('logs').stdout == 'asks@h2    | a question? \ngoes-on@h1 | something else\n'


class TestFollowing:
    """`-f`."""

    def test_what_comes(self, site: Standing) -> None:
        script = 'echo old; until [ -e /tmp/go ]; do sleep 0.05; done; echo new; exec sleep 1000'
        site.write(sh('one', 'h1', script), sh('two', 'h2', script), sh('other', 'h1', script))
        site.deploy()
        with site.begin_later('logs', '-f', 'one', 'two') as running:
            wait_until(lambda: running.out.count(b'old') == 2, 'what there is')
            site.deployment.host('h1').path('/tmp/go').touch()
            wait_until(lambda: b'one@h1 | new\n' in running.out, 'the line of h1')
            assert b'two@h2 | new' not in running.out
            site.deployment.host('h2').path('/tmp/go').touch()
            wait_until(lambda: b'two@h2 | new\n' in running.out, 'the line of h2')
            running.signal(signal.SIGINT)
            done = running.end()
        assert (done.status, done.err) == (130, b'')
        assert sorted(done.stdout.splitlines()) == sorted(
            f'{label} | {line}' for label in ('one@h1', 'two@h2') for line in ('old', 'new')
        )

    def test_begins_with_the_last_ten_lines(self, site: Standing) -> None:
        site.write(sh('one', 'h1', 'seq 100; exec sleep 1000'))
        site.deploy()
        wait_until(lambda: '| 100\n' in site.later('logs').stdout, 'its output')
        for arguments, first in ([[], 91], [['-n', '2'], 99], [['--since', '1h'], 1]):
            with site.begin_later('logs', '-f', *arguments) as running:
                wait_until(lambda: b'| 100\n' in running.out, 'the last line')
                running.signal(signal.SIGINT)
                done = running.end()
            assert done.stdout.splitlines()[0] == f'one@h1 | {first}'

    def test_through_a_restart_of_the_component(self, site: Standing) -> None:
        site.write(sh('one', 'h1', 'echo begin; exec sleep 1000'))
        site.deploy()
        with site.begin_later('logs', '-f', 'one') as running:
            wait_until(lambda: running.out.count(b'begin') == 1, 'what there is')
            site.later('restart', 'one')
            wait_until(lambda: running.out.count(b'begin') == 2, 'what comes')
            site.later('restart', 'one')
            wait_until(lambda: running.out.count(b'begin') == 3, 'what comes then')
            running.signal(signal.SIGTERM)
            assert running.end().stdout == 'one@h1 | begin\n' * 3

    def test_ends_when_all_have_ended(self, site: Standing) -> None:
        script = 'echo begin; until [ -e /tmp/go ]; do sleep 0.05; done; seq 20000; printf end'
        site.write(sh('one', 'h1', script), sh('two', 'h2', script), component('other', 'h1'))
        site.deploy()
        with site.begin_later('logs', '-f', 'one', 'two') as running:
            wait_until(lambda: running.out.count(b'begin') == 2, 'what there is')
            site.deployment.host('h1').path('/tmp/go').touch()
            site.comes_to('one@h1', 'exited')
            wait_until(lambda: b'one@h1 | 20000' in running.out, 'the lines of h1')
            assert running.process.poll() is None
            site.deployment.host('h2').path('/tmp/go').touch()
            done = running.end()
        assert (done.status, done.err) == (0, b'')
        for label in ('one@h1', 'two@h2'):
            own = [line.partition(' | ')[2] for line in done.stdout.splitlines() if line.startswith(label)]
            assert own == ['begin', *(str(number) for number in range(1, 20001)), 'end']
        # What has ended is shown, and that is all.
        done = site.later('logs', '-f', '-n', '1', 'one', 'two')
        assert sorted(done.stdout.splitlines()) == ['one@h1 | end', 'two@h2 | end']
        site.later('stop')
        done = site.later('logs', '-f', '-n', '1')
        assert sorted(done.stdout.splitlines()) == ['one@h1   | end', 'two@h2   | end']

    def test_goes_on_as_long_as_anything_that_it_started_does(self, site: Standing) -> None:
        child = 'until [ -e /tmp/go ]; do sleep 0.05; done; echo child'
        site.write(sh('parent', 'h1', f'setsid sh -c "{child}" & echo parent; sleep 0.2'))
        site.deploy()
        site.comes_to('parent@h1', 'exited')
        with site.begin_later('logs', '-f') as running:
            wait_until(lambda: b'parent' in running.out, 'what there is')
            site.deployment.host().path('/tmp/go').touch()
            assert running.end().stdout == 'parent@h1 | parent\nparent@h1 | child\n'

    def test_through_a_restart_that_takes_long(self, site: Standing) -> None:
        """While somebody has the session in hand nothing is over: here it waits for what starts before."""
        site.write(
            sh('first', 'h1', 'exec sleep 1000', 'ready=ready.file("/tmp/is-ready")'),
            sh('next', 'h1', 'echo begin; exec sleep 1000', start_index=1),
        )
        ready = site.deployment.host().path('/tmp/is-ready')
        with site.begin() as deploying:
            wait_until(lambda: b'component_started' in deploying.out, 'the first start')
            ready.touch()
            assert deploying.end().status == 0
        ready.unlink()
        with site.begin_later('logs', '-f', 'next') as running, site.begin_later('restart', '*') as restarting:
            site.comes_to('next@h1', 'stopped')
            wait_until(lambda: site.states('first') == {'first@h1': 'started'}, 'the first to run again')
            with pytest.raises(TestbedError):
                wait_until(lambda: running.process.poll() is not None, 'its end, which must not come', 4)
            ready.touch()
            assert restarting.end().status == 0
            wait_until(lambda: running.out.count(b'begin') == 2, 'what comes')
            site.later('stop')
            done = running.end()
        assert (done.status, done.stdout) == (0, 'next@h1 | begin\n' * 2)

    def test_what_its_policy_starts_again(self, site: Standing) -> None:
        site.write(sh('flaky', 'h1', 'sleep 0.2; echo again; exit 1', restart='always'))
        site.deploy()
        with site.begin_later('logs', '-f', '--json') as running:
            wait_until(lambda: running.out.count(b'again') >= 3, 'three lives')
            running.signal(signal.SIGINT)
            done = running.end()
        assert {each['line'] for each in done.objects} == {'again'}

    def test_a_line_that_is_being_written(self, site: Standing) -> None:
        script = 'printf "half "; until [ -e /tmp/go ]; do sleep 0.05; done; echo line; printf rest; cat'
        site.write(sh('one', 'h1', script))
        site.deploy()
        with site.begin_later('logs', '-f') as running:
            site.deployment.host().path('/tmp/go').touch()
            wait_until(lambda: b'one@h1 | half line\n' in running.out, 'the whole line')
            running.signal(signal.SIGINT)
            assert running.end().stdout in ('one@h1 | half line\none@h1 | rest\n', 'one@h1 | half line\n')

    def test_a_reader_that_goes_away(self, site: Standing) -> None:
        site.write(sh('one', 'h1', 'while echo line; do sleep 0.05; done'))
        site.deploy()
        read, write = os.pipe()
        with site.begin_later('logs', '-f', stdout=write) as running:
            os.close(write)
            assert os.read(read, 6) == b'one@h1'
            os.close(read)
            done = running.end()
        assert (done.status, done.err) == (141, b'')

    def test_many_lines_at_once(self, site: Standing) -> None:
        site.write(sh('one', 'h1', 'until [ -e /tmp/go ]; do sleep 0.05; done; seq 200000; exec sleep 1000'))
        site.deploy()
        with site.begin_later('logs', '-f', '-n', '300000') as running:
            site.deployment.host().path('/tmp/go').touch()
            wait_until(lambda: b'| 200000\n' in running.out, 'all of it')
            running.signal(signal.SIGINT)
            out = running.end().stdout
        assert out == ''.join(f'one@h1 | {number}\n' for number in range(1, 200001))


class TestOnATerminal:
    SCRIPT = (
        r"printf 'plain\n\033[31mred\033[0m\n\033]0;title\007after title\n\033[2J\033[Hnot cleared\n\033cnot reset\n'; "
        r"printf 'an open \033]0;title\nnot swallowed\n\033(0charset\n\302\2332Jhigh\nold state\rnew state\n\033[5'; "
        'exec sleep 1000'
    )
    SHOWN = (
        *('plain', 'red', 'after title', 'not cleared', 'not reset', 'an open ', 'not swallowed', 'charset', '2Jhigh'),
        *('new state', ''),
    )

    @pytest.mark.parametrize('variables', [{}, {'NO_COLOR': '1'}, {'TERM': 'dumb'}])
    def test_escape_sequences_do_nothing(self, site: Standing, variables: dict[str, str]) -> None:
        site.write(sh('one', 'h1', self.SCRIPT), component('two', 'h2'))
        site.deploy()
        wait_until(lambda: 'new state' in site.later('logs').stdout, 'its output')
        env = {**environment(site.home), **variables}
        words = ['env', '-i', *(f'{name}={value}' for name, value in env.items()), *COMMAND]
        command = shlex.join([*words, 'logs', '--screen', site.session, 'one', 'two'])
        window = Window(f'{command}; echo the end; exec cat')
        try:
            lines = window.shows(lambda lines: 'the end' in lines)
            assert lines[:-1] == [f'one@h1 | {words}'.rstrip() for words in self.SHOWN]
            colored = window('capture-pane', '-p', '-e')
            assert ('\x1b[31mred' in colored) == (not variables)
            assert ('\x1b[36mone@h1' in colored) == (not variables)
            assert window('display-message', '-p', '#{pane_title}').strip() != 'title'
        finally:
            window.close()

    def test_ctrl_c(self, site: Standing) -> None:
        site.write(sh('one', 'h1', 'echo hello; exec sleep 1000'))
        site.deploy()
        words = ['env', '-i', *(f'{name}={value}' for name, value in environment(site.home).items()), *COMMAND]
        window = Window(f'{shlex.join([*words, "logs", "-f", "--screen", site.session])}; echo status $?; exec cat')
        try:
            window.shows(lambda lines: 'one@h1 | hello' in lines)
            window('send-keys', 'C-c')
            lines = window.shows(lambda lines: any('status' in line for line in lines))
            assert lines[:2] in (['one@h1 | hello', '^Cstatus 130'], ['one@h1 | hello', 'status 130'])
        finally:
            window.close()
