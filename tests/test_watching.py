"""`status --watch`: the table of a session in a real terminal, and in a pipe."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.commands import COMMAND, component, environment
from tests.deploying import agents, kill, the_agent
from tests.standing import Standing, sh
from tests.testbed import Testbed
from tests.testbed.process import wait_until
from tests.tmux import Window, until

_MANY = """
for number in range(200):
    script = 'exit 3' if number % 50 == 7 else 'exec sleep 1000'
    config.add_component(Component(name=f'c-{number:03}', host='h1', executable='/bin/sh',
                                   args=['-c', f'sleep 1; {script}'], start_index=number // 100))
"""


@pytest.fixture
def site(bed: Testbed, tmp_path: Path) -> Iterator[Standing]:
    with Standing(bed, tmp_path) as site:
        yield site


@contextmanager
def watching(site: Standing, *arguments: str) -> Iterator[Window]:
    """A terminal on which somebody watches the session."""
    variables = [f'{name}={value}' for name, value in environment(site.home).items()]
    words = ['env', '-i', *variables, *COMMAND, 'status', '--watch', '-n', '0.3', '--screen', site.session]
    window = Window(f'echo before; {shlex.join([*words, *arguments])}; echo status $?; exec cat')
    try:
        yield window
    finally:
        window.close()


def says(*words: str) -> Callable[[list[str]], bool]:
    return lambda lines: all(re.search(word, '\n'.join(lines), re.MULTILINE) for word in words)


def test_what_becomes_of_components(site: Standing) -> None:
    site.write(component('one', 'h1'), sh('two', 'h2', 'until [ -e /tmp/end ]; do sleep 0.05; done; exit 3'))
    site.deploy()
    with watching(site) as window:
        lines = window.shows(says(r'^one +h1 +started', r'^two +h2 +started', ': 2 components: 2 started$'))
        assert lines[0] == 'before'
        assert lines[1].split() == ['COMPONENT', 'HOST', 'STATE', 'PID', 'TIME', 'CPU', 'MEMORY', 'SAYS']
        assert len(lines) == 5
        site.deployment.host('h2').path('/tmp/end').touch()
        window.shows(says(r'^two +h2 +exited 3', '1 started, 1 exited 3$'))
        site.deployment.host('h2').path('/tmp/end').unlink()
        site.later('restart', 'two')
        window.shows(says(r'^two +h2 +started'))
        site.later('stop', 'one')
        window.shows(says(r'^one +h1 +stopped'))


def test_the_table_is_always_there(site: Standing) -> None:
    site.write(component('one', 'h1'), component('two', 'h2'))
    site.deploy()
    with watching(site, '-n', '0.1') as window:
        window.shows(says('^two +h2 +started'))
        seen = {re.sub(r'\d+', 'N', '\n'.join(window.screen())) for _ in range(100)}
        assert all(says('^COMPONENT', '^one ', '^two ', '^session ')(text.splitlines()) for text in seen), seen


def test_ctrl_c_leaves_the_terminal_as_it_was(site: Standing) -> None:
    site.write(component('one', 'h1'))
    site.deploy()
    with watching(site) as window:
        window.shows(says('^one +h1 +started'))
        window('send-keys', 'C-c')
        assert [line.removeprefix('^C') for line in window.shows(says('status 130'))] == ['before', 'status 130']
        assert window('display-message', '-p', '#{cursor_flag} #{alternate_on}').strip() == '1 0'


def test_another_size(site: Standing) -> None:
    site.write(*(component(f'c-{number:02}', 'h1') for number in range(18)))
    site.deploy()
    with watching(site) as window:
        assert len(window.shows(says('^c-17 ', '18 components'))) == 21
        window('resize-window', '-x', '60', '-y', '10')
        small = window.shows(says('index 0: 18 started on h1', '^session .*18 components'))
        assert len(small) < 10
        window('resize-window', '-x', '100', '-y', '24')
        lines = window.shows(lambda lines: says('^c-17 ')(lines) and len(lines) == 20)
        assert sum(line.startswith('COMPONENT') for line in lines) == 1


def test_two_hundred_on_a_small_terminal(site: Standing) -> None:
    site.write(_MANY)
    site.deploy()
    ends = [f'c-{number:03}@h1' for number in (7, 57, 107, 157)]
    site.later('wait', *ends, status=1)
    table = site.table(status=1)
    assert [row.split()[0] for row in table[1:-1]] == [f'c-{number:03}' for number in range(200)]
    assert 'and 190 more' in site.later('status', 'x', status=2).stderr
    with watching(site) as window:
        lines = window.shows(says('^c-007 +h1 +exited 3', '^c-157 +h1 +exited 3', '4 exited 3'))
        assert [line for line in lines if line.startswith('index ')] == [
            'index 0: 98 started on h1',
            'index 1: 98 started on h1',
        ]
        assert len(lines) <= 24
        assert sum(line.startswith('c-') for line in lines) == 4
    with watching(site, 'c-00?') as window:
        window.shows(says('^c-000 +h1 +started', '^c-007 +h1 +exited 3', '10 components: 9 started, 1 exited 3'))
    site.later('stop')
    assert site.deployment.sleepers(1000) == []


def test_more_in_trouble_than_there_is_room_for(site: Standing) -> None:
    site.write(*(sh(f'bad-{number:02}', 'h1', 'sleep 0.5; exit 3') for number in range(40)), component('good', 'h1'))
    site.deploy()
    with watching(site) as window:
        lines = window.shows(says('40 exited 3, 1 started$'))
        shown = sum(line.startswith('bad-') for line in lines)
        assert lines[-3:-1] == ['index 0: 1 started on h1', f'… and {40 - shown} more in trouble']
        assert shown > 15


def test_in_a_pipe(site: Standing) -> None:
    site.write(component('one', 'h1'))
    site.deploy()
    with site.begin_later('status', '--watch', '-n', '0.2') as running:
        wait_until(lambda: running.out.count(b'COMPONENT') >= 3, 'three tables')
        running.signal(signal.SIGINT)
        done = running.end()
    assert (done.status, done.err) == (130, b'')
    assert b'\x1b' not in done.out
    tables = done.stdout.rstrip('\n').split('\n\n')
    assert [len(table.splitlines()) for table in tables] == [3] * len(tables)
    with site.begin_later('status', '--watch', '-n', '0.2', '--json', 'one') as running:
        wait_until(lambda: running.out.count(b'\n') >= 3, 'three objects')
        running.signal(signal.SIGINT)
        looks = [json.loads(line) for line in running.end().stdout.splitlines()]
    assert {look['components'][0]['state'] for look in looks} == {'started'}
    times = [look['time'] for look in looks]
    assert times == sorted(times)


def test_one_that_is_silent_keeps_nobody_waiting(fresh_bed: Callable[..., Testbed], tmp_path: Path) -> None:
    bed = fresh_bed(2)
    with Standing(bed, tmp_path) as site:
        site.write(component('one', 'h1'), component('two', 'h2'))
        site.deploy()
        wait_until(lambda: not agents(bed['h2']), 'the deployment to hang up')
        with site.begin_later('status', '--watch', '-n', '0.2', '--json') as running:
            wait_until(lambda: b'\n' in running.out, 'the first look')
            agent = the_agent(bed['h2'])
            kill(bed['h2'], signal.SIGSTOP, agent.pid)

            def looks() -> list[dict[str, Any]]:
                return [json.loads(line) for line in running.out.splitlines(keepends=True) if line.endswith(b'\n')]

            def unknown() -> list[dict[str, Any]]:
                return [look for look in looks() if look['components'][1]['state'] == 'unknown']

            # Were each look as long as its patience these would be 20 of 3 s.
            wait_until(lambda: len(unknown()) >= 20, 'many looks', 30)
            kill(bed['h2'], signal.SIGCONT, agent.pid)
            wait_until(lambda: looks()[-1]['components'][1]['state'] == 'started', 'the silence to end')
            assert looks()[-1]['unreachable'] == {}
            running.signal(signal.SIGINT)
            running.end()
            missed = unknown()
        for look in missed:
            one, two = look['components']
            assert one['state'] == 'started'
            assert re.fullmatch(r'it has not answered for \d+ s', two['reason'])
            assert look['unreachable'] == {'h2': f'h2: {two["reason"]}'}
        uptimes = [look['components'][0]['uptime'] for look in missed]
        assert uptimes == sorted(set(uptimes))


@pytest.mark.parametrize('how', ['record', 'hosts'])
def test_one_that_is_off_keeps_nobody_waiting(fresh_bed: Callable[..., Testbed], tmp_path: Path, how: str) -> None:
    """Connecting to it again takes for ever, and its components are remembered although nothing else tells of them."""
    bed = fresh_bed(2)
    with Standing(bed, tmp_path) as site:
        site.write(component('one', 'h1'), component('two', 'h2'))
        site.deploy()
        wait_until(lambda: not agents(bed['h2']), 'the deployment to hang up')
        where = [] if how == 'record' else ['-F', site.ssh_config, '-H', 'h[1-2]']
        options = ['--watch', '-n', '0.2', '--json', '--connect-timeout', '600', *where, 'one', 'two']
        with site.begin_later('status', *options) as running:
            wait_until(lambda: b'\n' in running.out, 'the first look')
            kill(bed['h2'], signal.SIGKILL, the_agent(bed['h2']).pid)
            bed['h2'].cut()
            before = running.out.count(b'\n')
            wait_until(lambda: b'unknown' in running.out, 'h2 to be missed', 30)
            wait_until(lambda: running.out.count(b'\n') > before + 30, 'many looks', 30)
            bed['h2'].heal()
            wait_until(lambda: b'unknown' not in running.out.splitlines()[-1], 'h2 to be back', 60)
            running.signal(signal.SIGINT)
            last = running.end().objects[-1]
        assert [seen['state'] for seen in last['components']] == ['started', 'started']


def test_a_host_that_is_away_for_a_while(fresh_bed: Callable[..., Testbed], tmp_path: Path) -> None:
    bed = fresh_bed(2)
    with Standing(bed, tmp_path) as site:
        site.write(component('one', 'h1'), component('two', 'h2'))
        site.deploy()
        with watching(site, '--connect-timeout', '1') as window:
            window.shows(says('^two +h2 +started'))
            bed['h2'].kill()
            until(lambda: says('^one +h1 +started', '^two +h2 +unknown')(window.screen()), window.screen, 30)
            bed['h2'].boot()
            until(lambda: says('^one +h1 +started', '^two +h2 +gone')(window.screen()), window.screen, 30)
