"""Commands on a session that stands, on the days on which hosts, links, disks and processes fail."""

from __future__ import annotations

import getpass
import re
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest

from remote_runner.deploy.holder import lock
from remote_runner.errors import ConnectionLost, SessionHeld
from tests.commands import Commands
from tests.days import COUNTER, FreshBed, Standing, is_watched, is_whole, numbers, standing, watching_agent
from tests.deploying import is_alive, kill, the_agent
from tests.living import connected
from tests.test_screen import HEADS, add_hydra, wait_for_heads
from tests.testbed.process import wait_until

#: How soon a command gives up a host that is off.
SOON = ('--connect-timeout', '1')


@pytest.fixture
def two(fresh_bed: FreshBed, tmp_path: Path) -> Iterator[Standing]:
    """Two hosts of its own."""
    with standing(fresh_bed(2), tmp_path) as site:
        yield site


@pytest.fixture
def one(fresh_bed: FreshBed, tmp_path: Path) -> Iterator[Standing]:
    """One host of its own."""
    with standing(fresh_bed(1), tmp_path) as site:
        yield site


# Connections


def test_all_go_on_after_a_link_that_was_cut_until_it_counted_as_lost(two: Standing) -> None:
    """One test for `logs -f`, `wait` and a run: it takes the 45 s of silence after which a link is dead."""
    host = two.bed['h1']
    two.numbered('counter')
    two.numbered('counter', 'h2')
    two.until('again', restart='always')
    two.until('waited', wait=True)
    run = two.deployment.begin()
    run.wait_for('component_started', 'waited')
    life = run.wait_for('component_started', 'again')['pid']
    with two.begin_to('logs', '-f', 'counter') as follower, two.begin_to('wait', 'waited', '--json') as waiter:
        for name in ('h1', 'h2'):
            wait_until(lambda name=name: f'counter@{name}'.encode() in follower.out, f'lines of {name}')
            two.catches_up(follower, 'counter', name)
        is_watched(host, 2)
        host.cut()
        two.end('again')
        two.deployment.ends(life)
        host.path('/tmp/may-end-again').unlink()
        wait_until(lambda: two.state('again').get('state') == 'started', 'its next life')
        run.wait_for('host_lost', host='h1')
        wait_until(lambda: b'WARNING: h1' in follower.err, 'logs to notice')
        wait_until(lambda: b'host_lost' in waiter.out, 'wait to notice')
        two.catches_up(follower, 'counter', 'h2')
        host.heal()
        two.catches_up(follower)
        wait_until(lambda: b'host_connected' in waiter.out, 'wait to be back')
        two.end('waited')
        assert waiter.end().status == 0
        ended = run.finish()
        assert ended.status == 0, ended.stderr
        follower.signal(signal.SIGINT)
        done = follower.end()
    assert done.status == 130
    assert is_whole(done.out, 'counter@h1')
    assert is_whole(done.out, 'counter@h2')
    assert two.seen(status=0)['again@h1']['restarts'] == 1
    assert ended.of('component_started', 'again')[-1]['restarts'] == 1
    assert 'is held by' not in ended.stderr


def test_a_restart_of_sshd_is_no_end_of_logs_and_wait(one: Standing) -> None:
    host = one.bed['h1']
    one.numbered('counter')
    one.until('waited')
    one.start_all()
    with one.begin_to('logs', '-f', 'counter') as follower, one.begin_to('wait', 'waited', '--json') as waiter:
        wait_until(lambda: b'line' in follower.out, 'lines')
        is_watched(host)
        for _ in range(2):
            host.stop_sshd(sessions=True)
            host.start_sshd()
            one.catches_up(follower)
        one.end('waited')
        assert waiter.end().status == 0
        follower.signal(signal.SIGINT)
        assert is_whole(follower.end().out, 'counter@h1')


def test_a_connection_that_breaks_while_old_output_is_shown_loses_none_of_it(one: Standing) -> None:
    one.deployment.sh('old', 'echo begin; until [ -e /tmp/go ]; do sleep 0.01; done; echo line 300000; sleep 1000')
    one.start_all()
    folder = one.folder_of('old')
    wait_until(lambda: (folder / 'output.log').stat().st_size > 0, 'output')
    with (folder / 'output.log').open('wb') as log:
        log.write(b''.join(b'line %d\r\n' % n for n in range(300_000)))
    with one.begin_to('logs', '-f', '-n', '200000', stdout=subprocess.PIPE) as follower:
        assert follower.process.stdout
        out = follower.process.stdout.read(1000)
        one.bed['h1'].stop_sshd(sessions=True)
        one.bed['h1'].start_sshd()
        one.bed['h1'].path('/tmp/go').touch()
        while b'line 300000' not in out[-100:]:
            out += follower.process.stdout.read1()
        follower.signal(signal.SIGINT)
        assert follower.end().status == 130
    assert numbers(out, 'old@h1') == list(range(100_000, 300_001))


def test_what_ends_while_a_connection_is_broken_is_shown_to_its_end(two: Standing) -> None:
    """As long as its host is out of reach nobody knows, though all others have ended."""
    host = two.bed['h1']
    script = 'echo begin; until [ -e /tmp/go ]; do sleep 0.01; done; seq 5000'
    two.deployment.sh('far', script)
    two.deployment.sh('near', script, 'h2')
    two.start_all()
    with two.begin_to('logs', '-f') as follower:
        wait_until(lambda: follower.out.count(b'begin') == 2, 'what there is')
        host.stop_sshd(sessions=True)
        for name in ('h1', 'h2'):
            two.bed[name].path('/tmp/go').touch()
        wait_until(lambda: two.state('far').get('state') == 'exited', 'the end of one')
        wait_until(lambda: b'near@h2 | 5000' in follower.out, 'all of the other')
        wait_until(lambda: follower.err.count(b'the next attempt') >= 2, 'h1 to be missed')
        assert follower.process.poll() is None
        host.start_sshd()
        done = follower.end()
    assert done.status == 0
    lines = done.stdout.splitlines()
    for label in ('far@h1', 'near@h2'):
        own = [line.partition('| ')[2] for line in lines if line.startswith(label)]
        assert own == ['begin', *(str(number) for number in range(1, 5001))]


def test_an_agent_that_is_killed_is_no_end_of_logs_and_wait_and_components(one: Standing) -> None:
    host = one.bed['h1']
    one.numbered('counter')
    one.until('waited')
    one.start_all()
    before = one.seen(status=0)
    with one.begin_to('logs', '-f', 'counter') as follower:
        wait_until(lambda: b'line' in follower.out, 'lines')
        kill(host, signal.SIGKILL, the_agent(host).pid)
        one.catches_up(follower)
        follower.signal(signal.SIGINT)
        assert is_whole(follower.end().out, 'counter@h1')
    with one.begin_to('wait', 'waited', '--json') as waiter:
        agent = watching_agent(host)
        kill(host, signal.SIGKILL, agent.pid)
        one.deployment.ends(agent.pid)
        one.end('waited')
        assert waiter.end().status == 0
    assert one.seen(status=0)['counter@h1']['pid'] == before['counter@h1']['pid']


def test_a_host_that_loses_its_power_is_unknown_and_then_its_components_are_gone(two: Standing) -> None:
    for host in ('h1', 'h2'):
        two.deployment.sleep(host=host)
    two.start_all()
    with two.begin_to('wait', 'sleeper@h2') as waiter:
        watching_agent(two.bed['h2'])
        two.bed['h2'].kill()
        seen = two.seen(*SOON, status=3)
        assert seen['sleeper@h2']['state'] == 'unknown'
        assert seen['sleeper@h1']['state'] == 'started'
        shown = two.tell('status', *SOON, status=3)
        assert re.search(r'sleeper +h1 +started', shown.stdout)
        assert re.search(r'sleeper +h2 +unknown', shown.stdout)
        assert 'h2' in shown.stderr
        two.bed['h2'].boot()
        seen = two.seen(status=1)
        assert seen['sleeper@h2']['state'] == 'gone'
        assert 'restarted' in seen['sleeper@h2']['reason']
        assert seen['sleeper@h1']['state'] == 'started'
        done = waiter.end()
    assert done.status == 1
    assert 'sleeper@h2' in done.stderr
    assert 'Traceback' not in done.stderr
    assert two.tell('stop').status == 0
    two.start_all()
    assert two.seen(status=0)['sleeper@h2']['state'] == 'started'


# Launchers


@pytest.mark.parametrize('victim', ['guard', 'keeper'])
def test_a_program_ends_with_half_of_its_launcher_and_status_says_so(one: Standing, victim: str) -> None:
    host = one.bed['h1']
    word = add_hydra(one.deployment, 'hydra')
    one.start_all()
    wait_for_heads(one.deployment, word)
    guard, keeper = one.pids()
    with one.begin_to('wait') as waiter:
        watching_agent(host)
        kill(host, signal.SIGKILL, guard if victim == 'guard' else keeper)
        done = waiter.end()
    assert done.status == 1
    assert 'launcher was killed' in done.stderr
    wait_until(lambda: one.state('hydra')['state'] == 'killed', 'its end to be told')
    assert one.deployment.processes(word) == []
    assert 'launcher' in one.state('hydra')['reason']
    seen = one.seen(status=1)['hydra@h1']
    assert seen['state'] == 'killed'
    assert 'launcher was killed' in seen['reason']
    assert 'killed' in one.tell('status', status=1).stdout


@pytest.mark.parametrize('victim', ['guard', 'keeper'])
def test_half_a_launcher_that_still_ends_a_program_is_stopping(one: Standing, victim: str) -> None:
    host = one.bed['h1']
    word = add_hydra(one.deployment, 'hydra')
    one.deployment.components[-1]['stop_timeout'] = 1000
    one.start_all()
    wait_for_heads(one.deployment, word)
    guard, keeper = one.pids()
    kill(host, signal.SIGKILL, guard if victim == 'guard' else keeper)
    wait_until(lambda: not is_alive(host, guard if victim == 'guard' else keeper), 'its end')
    seen = one.seen(status=0)['hydra@h1']
    assert seen['state'] == 'stopping'
    with one.begin_to('wait') as waiter:
        watching_agent(host)
        heads = one.deployment.processes(word) + one.deployment.sleepers()
        kill(host, signal.SIGKILL, *[head.pid for head in heads])
        done = waiter.end()
    assert done.status == 1
    assert 'launcher was killed' in done.stderr
    wait_until(lambda: one.seen()['hydra@h1']['state'] == 'killed', 'its end to be told')


def _orphan(site: Standing, stop_timeout: float) -> str:
    """A program that nobody watches over; the word that its processes have as an argument."""
    word = add_hydra(site.deployment, 'hydra')
    site.deployment.components[-1]['stop_timeout'] = stop_timeout
    site.start_all()
    wait_for_heads(site.deployment, word)
    launcher = site.pids()
    kill(site.bed['h1'], signal.SIGKILL, *launcher)
    wait_until(lambda: not any(is_alive(site.bed['h1'], pid) for pid in launcher), 'their end')
    assert len(site.deployment.processes(word)) == HEADS
    return word


def test_what_a_killed_launcher_left_is_ended_by_status_which_says_so(one: Standing) -> None:
    word = _orphan(one, 0.5)
    heads = {head.pid for head in one.deployment.processes(word)}
    seen = one.seen(status=1)['hydra@h1']
    assert seen['state'] == 'killed'
    assert set(seen['left']) >= heads
    assert 'being ended' in seen['reason']
    wait_until(lambda: one.deployment.processes(word) == [], 'the end of what was left')
    wait_until(lambda: one.state('hydra')['state'] == 'killed', 'it to be noted')
    seen = one.seen(status=1)['hydra@h1']
    assert seen['state'] == 'killed'
    assert 'left' not in seen
    assert 'launcher was killed' in seen['reason']


@pytest.mark.parametrize('command', [('stop',), ('stop', 'hydra')])
def test_stop_returns_when_nothing_is_left_of_what_a_killed_launcher_left(
    one: Standing, command: tuple[str, ...]
) -> None:
    word = _orphan(one, 0.2)
    one.tell(*command)
    assert one.deployment.processes(word) == []


def test_restart_begins_when_nothing_is_left_of_what_a_killed_launcher_left(one: Standing) -> None:
    word = _orphan(one, 0.2)
    heads = {head.pid for head in one.deployment.processes(word)}
    one.tell('restart', 'hydra')
    assert not any(is_alive(one.bed['h1'], pid) for pid in heads)
    assert one.seen(status=0)['hydra@h1']['state'] == 'started'


def test_a_new_run_ends_what_a_killed_launcher_left(one: Standing) -> None:
    word = _orphan(one, 0.2)
    one.deployment.clear()
    one.deployment.sleep()
    one.start_all()
    assert one.deployment.processes(word) == []
    assert list(one.seen(status=0)) == ['sleeper@h1']


@pytest.mark.parametrize('command', ['status', 'stop', 'a new run'])
def test_what_a_killed_launcher_left_of_an_earlier_run_is_ended_too(one: Standing, command: str) -> None:
    """Others, who have no record of that run, have added components to the session since then."""
    word = add_hydra(one.deployment, 'hydra')
    one.deployment.components[-1]['stop_timeout'] = 0.2
    one.start_all()
    wait_for_heads(one.deployment, word)
    launcher = one.pids()
    one.deployment.clear()
    one.deployment.sleep('added')
    _, _, _, *arguments = one.deployment.command('--no-kill')
    Commands(one.folder / 'another home', one.ssh_config).run(*arguments)
    assert one.state('added')['run'] > one.state('hydra')['run']
    kill(one.bed['h1'], signal.SIGKILL, *launcher)
    wait_until(lambda: not any(is_alive(one.bed['h1'], pid) for pid in launcher), 'their end')
    elsewhere = ('-H', 'h1', '-F', one.ssh_config)
    if command == 'status':
        seen = one.seen(*elsewhere, status=1)
        assert (seen['hydra@h1']['state'], seen['added@h1']['state']) == ('killed', 'started')
        assert seen['hydra@h1']['left']
        wait_until(lambda: one.deployment.processes(word) == [], 'the end of what was left')
    elif command == 'stop':
        one.tell('stop', *elsewhere)
    else:
        one.start_all()
    assert one.deployment.processes(word) == []


def test_stop_leaves_nothing_of_programs_that_are_hard_to_end(two: Standing) -> None:
    words = {host: add_hydra(two.deployment, 'hydra', host) for host in ('h1', 'h2')}
    two.deployment.sleep(start_index=1)
    two.start_all()
    for host, word in words.items():
        wait_for_heads(two.deployment, word, host)
    two.tell('stop', 'hydra@h1')
    assert two.deployment.processes(words['h1']) == []
    assert len(two.deployment.processes(words['h2'], 'h2')) == HEADS
    assert len(two.deployment.sleepers()) == 1
    two.tell('stop')
    assert two.deployment.processes(words['h2'], 'h2') == []
    assert two.deployment.sleepers() == []
    assert two.deployment.own_sessions() + two.deployment.own_sessions('h2') == []


# Disks


STATE = '/root/.local/state'


def _is_full(site: Standing, log: Path) -> bool:
    """Whether a file does not grow while a command looks, which takes many lines of a counter."""
    size = log.stat().st_size
    site.seen()
    return size == log.stat().st_size


def test_a_full_disk_stops_no_program_and_output_goes_on_when_there_is_room(one: Standing) -> None:
    host = one.bed['h1']
    host.tmpfs(STATE, '2M')
    one.deployment.python('counter', COUNTER.replace("'line'", "'x' * 1000 + ' line'"))
    one.until('short')
    one.start_all()
    log = one.deployment.output_log('counter')
    wait_until(lambda: bool(numbers(log.read_bytes())), 'output')
    host.run(['sh', '-c', f'cat /dev/zero >{STATE}/filling'], check=False)
    wait_until(lambda: 'No space left' in one.seen()['counter@h1'].get('reason', ''), 'status to say so')
    wait_until(lambda: _is_full(one, log), 'the last block to be full')
    kept = log.read_bytes().rpartition(b'\n')[0]
    assert is_whole(kept, '')
    seen = one.seen(status=0)['counter@h1']
    assert seen['state'] == 'started'
    assert 'No space left' in one.tell('status', status=0).stdout
    one.end('short')
    wait_until(lambda: one.seen()['short@h1']['state'] == 'exited', 'status to tell of the end')
    host.path(f'{STATE}/filling').unlink()
    wait_until(lambda: len(numbers(log.read_bytes())) > len(numbers(kept)) + 10, 'output to go on')
    assert log.read_bytes().startswith(kept)
    assert b'are missing here' in log.read_bytes()
    assert b'are missing here' in one.tell('logs', 'counter').out
    wait_until(lambda: 'reason' not in one.seen(status=0)['counter@h1'], 'status to be content')
    assert is_alive(host, seen['pid'])
    one.tell('stop')


# Floods


FLOOD = 'import os\nwhile True:\n    os.write(1, b"x" * 65536)\n'
NUMBERS = 'import os\nfor n in range(10**9):\n    os.write(1, b"line %d\\n" % n)\n'
LINES = 'import os\nwhile True:\n    os.write(1, b"short\\n" * 10000)\n'


def _generations(folder: Path, seen: set[int]) -> int:
    """How many files of output have been seen; a file may have the inode of an earlier one."""
    with suppress(FileNotFoundError):
        seen.add((folder / 'output.log').stat().st_mtime_ns)
    return len(seen)


def _peak(host_root: Path, pid: int) -> float:
    """The most memory that a process has had, in MB."""
    [peak] = re.findall(r'^VmHWM:\s*(\d+) kB', (host_root / 'proc' / str(pid) / 'status').read_text(), re.MULTILINE)
    return int(peak) / 1000


@pytest.mark.parametrize('program', [FLOOD, LINES], ids=['no newlines', 'short lines'])
def test_a_flood_takes_little_memory_anywhere(one: Standing, program: str) -> None:
    host = one.bed['h1']
    limit = 1_000_000
    one.deployment.python('flood', program, log_limit=limit)
    one.numbered('counter')
    one.start_all()
    folder = one.folder_of('flood')
    with open('/dev/null', 'wb') as null, one.begin_to('logs', '-f', stdout=null) as follower:
        agent = the_agent(host)
        inodes: set[int] = set()
        wait_until(lambda: _generations(folder, inodes) > 40, 'much output', 60)
        assert _peak(host.root, agent.pid) < 50
        assert _peak(Path('/'), follower.pid) < 50
        follower.signal(signal.SIGINT)
        assert follower.end().status == 130
    pid = one.state('flood')['launcher'], one.state('flood')['keeper']
    for each in pid:
        assert _peak(host.root, each) < 50
    one.tell('stop', 'flood')
    assert sum(path.stat().st_size for path in folder.glob('output.*')) <= limit


def test_who_falls_behind_is_told_what_is_missing(one: Standing) -> None:
    one.deployment.python('flood', NUMBERS, log_limit=200_000)
    one.start_all()
    folder = one.folder_of('flood')
    with one.begin_to('logs', '-f', '-n', '0') as follower:
        wait_until(lambda: b'line' in follower.out, 'the first lines')
        follower.signal(signal.SIGSTOP)
        inodes: set[int] = set()
        wait_until(lambda: _generations(folder, inodes) > 20, 'much output', 60)
        follower.signal(signal.SIGCONT)
        wait_until(lambda: b'are not kept any more' in follower.out, 'the notice')
        follower.signal(signal.SIGINT)
        out = follower.end().out
    lines = [line.partition(b'| ')[2] for line in out.splitlines()]
    told = re.compile(rb'line \d+|\[remote_runner: \d+ bytes are not kept .*\]')
    whole = lines[1:-1]  # -n 0 may begin, and Ctrl-C may end amid a line
    wrong = [line for line in whole if not told.fullmatch(line)]
    assert wrong == []
    found = numbers(out, 'flood')[1:-1]
    assert found == sorted(set(found))


@pytest.mark.parametrize('options', [('-n', '0'), ('--since', '2999-01-01')], ids=['no lines', 'nothing since'])
def test_logs_goes_on_with_what_comes_where_nothing_was_to_be_shown(one: Standing, options: tuple[str, ...]) -> None:
    one.deployment.sh('quiet', 'echo before; until [ -e /tmp/go ]; do sleep 0.01; done; echo after; exec sleep 1000')
    one.numbered('counter')
    one.start_all()
    with one.begin_to('logs', '-f', *options) as follower:
        wait_until(lambda: b'line' in follower.out, 'it to follow')
        one.bed['h1'].path('/tmp/go').touch()
        wait_until(lambda: b'after' in follower.out, 'the second line')
        follower.signal(signal.SIGINT)
        assert b'before' not in follower.end().out


def test_the_times_of_much_output_take_little_memory(one: Standing) -> None:
    """As of a day of lines, ten milliseconds apart: their index is as long as they are."""
    one.deployment.sh('old', 'echo begin; exec sleep 1000')
    one.start_all()
    folder = one.folder_of('old')
    wait_until(lambda: (folder / 'output.log').stat().st_size > 0, 'output')
    many = 1_500_000
    begin = time.time() - many / 100
    with (folder / 'output.log').open('wb') as log, (folder / 'output.idx').open('wb') as index:
        log.write(b'line of it\r\n' * many)
        index.write(b''.join(struct.pack('<dQ', begin + n / 100, n * 12) for n in range(many)))
    since = datetime.fromtimestamp(begin + many / 200).isoformat()
    with open('/dev/null', 'wb') as null, one.begin_to('logs', '-f', '--since', since, stdout=null) as follower:
        agent = the_agent(one.bed['h1'])
        proc = one.bed['h1'].root / 'proc' / str(agent.pid)
        wait_until(lambda: _read_of(proc) > many * (12 + 16) / 2, 'all to be read', 120)
        assert _peak(one.bed['h1'].root, agent.pid) < 50
        assert _peak(Path('/'), follower.pid) < 50
        follower.signal(signal.SIGINT)
        follower.end()


def _read_of(proc: Path) -> int:
    """Bytes that a process has read (proc(5), io)."""
    return int((proc / 'io').read_text().split()[1])


# Clocks


def _set_clock(site: Standing, host: str, seconds: int) -> None:
    """All that comes through sshd of this host lives at another time, as with a wrong clock."""
    [library] = Path('/usr/lib').glob('*/faketime/libfaketime.so.1')
    variables = f'LD_PRELOAD={library} FAKETIME=+{seconds} FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1'
    site.bed[host].stop_sshd()
    site.bed[host].start_sshd({'SetEnv': variables})


def test_a_clock_that_is_an_hour_ahead_changes_nothing_that_is_shown(two: Standing) -> None:
    _set_clock(two, 'h2', 3600)
    wait = 'until [ -e /tmp/turn-$n ]; do sleep 0.01; done; sleep 0.05'  # farther apart than clocks can be told apart
    turns = f'n={{first}}; while :; do {wait}; echo turn $n; n=$((n+2)); done'
    for host, first in (('h1', 1), ('h2', 2)):
        two.deployment.sh('turns', turns.format(first=first), host)
    two.start_all()
    for turn in range(1, 9):
        host = 'h1' if turn % 2 else 'h2'
        two.bed[host].path(f'/tmp/turn-{turn}').touch()
        log = two.deployment.output_log('turns', host)
        wait_until(lambda turn=turn, log=log: b'turn %d' % turn in log.read_bytes(), f'turn {turn}')
    shown = two.tell('logs', '--json').objects
    assert [line['line'] for line in shown] == [f'turn {turn}' for turn in range(1, 9)]
    fourth = shown[3]['time']
    assert abs(shown[-1]['time'] - time.time()) < 60
    since = datetime.fromtimestamp((shown[3]['time'] + shown[4]['time']) / 2).isoformat()
    later = two.tell('logs', '--json', '--since', since).objects
    assert [line['line'] for line in later] == [f'turn {turn}' for turn in range(5, 9)]
    seen = two.seen(status=0)
    for one in seen.values():
        assert abs(one['started'] - fourth) < 60
        assert 0 <= one['uptime'] < 60


# Two masters


def test_who_comes_second_is_told_who_changes_the_session(two: Standing) -> None:
    word = add_hydra(two.deployment, 'hydra')
    two.deployment.components[-1]['stop_timeout'] = 1000
    two.deployment.sleep(host='h2')
    two.start_all()
    wait_for_heads(two.deployment, word)
    with two.begin_to('restart', 'hydra') as first:
        wait_until(lambda: two.seen()['hydra@h1']['state'] == 'stopping', 'it to begin')
        for command in (('stop',), ('restart', '*'), ('stop', 'hydra')):
            second = two.tell(*command, status=1)
            assert f'{getpass.getuser()} on {socket.gethostname()} (pid {first.pid}) since 2' in second.stderr
            assert 'Traceback' not in second.stderr
        assert two.seen(status=0)['sleeper@h2']['state'] == 'started'
        run = two.deployment.run()
        assert run.status == 1
        assert f'pid {first.pid}' in run.stderr
        heads = two.deployment.processes(word) + two.deployment.sleepers()
        kill(two.bed['h1'], signal.SIGKILL, *[head.pid for head in heads])
        assert first.end().status == 0
    assert two.seen(status=0)['hydra@h1']['state'] == 'started'


@pytest.mark.parametrize('how', ['killed', 'killed while the link is cut', 'with its machine'])
def test_a_dead_master_holds_a_session_no_longer_than_its_connection(one: Standing, how: str) -> None:
    """Of a machine that lost its power nobody hears any more: a minute of silence is the end of its connection."""
    host = one.bed['h1']
    word = add_hydra(one.deployment, 'hydra')
    one.deployment.components[-1]['stop_timeout'] = 1000
    one.start_all()
    wait_for_heads(one.deployment, word)
    with one.begin_to('stop') as first:
        wait_until(lambda: one.seen()['hydra@h1']['state'] == 'stopping', 'it to begin')
        agent = the_agent(host)
        if how != 'killed':
            host.cut()
        first.signal(signal.SIGKILL)
        first.end()
    if how == 'with its machine':
        wait_until(lambda: not is_alive(host, agent.pid), 'the agent to miss it', 120)
    if how != 'killed':
        host.heal()
    one.deployment.ends(agent.pid)
    heads = one.deployment.processes(word) + one.deployment.sleepers()
    kill(host, signal.SIGKILL, *[head.pid for head in heads])
    one.tell('stop')
    assert one.deployment.processes(word) == []


def test_who_comes_again_over_another_connection_finds_no_lock_of_its_own_in_the_way(one: Standing) -> None:
    with connected(one.deployment) as old, connected(one.deployment) as new:
        lock(old, one.session, 'me')
        with pytest.raises(SessionHeld, match='held by me'):
            lock(new, one.session, 'you')
        lock(new, one.session, 'me')
        with connected(one.deployment) as other, pytest.raises(SessionHeld, match='held by me'):
            lock(other, one.session, 'you')
        with pytest.raises(ConnectionLost):
            old.request('describe', 30)


@pytest.mark.parametrize('names', [(), ('it',)], ids=['all', 'one'])
def test_stop_ends_a_run_that_waits_which_says_by_whom(one: Standing, names: tuple[str, ...]) -> None:
    """Though the program ends with success when it is told to."""
    one.deployment.sh('it', 'trap "exit 0" TERM; while :; do sleep 0.01; done', wait=True)
    run = one.deployment.begin()
    run.wait_for('component_started', 'it')
    with one.begin_to('wait') as waiter:
        is_watched(one.bed['h1'], 2)
        wait_until(lambda: one.tell('stop', *names, status=None).status == 0, 'the run to let go of the session')
        done = waiter.end()
    ended = run.finish()
    assert ended.status == done.status == 1
    for stderr in (ended.stderr, done.stderr):
        assert f'it was stopped by {getpass.getuser()} on {socket.gethostname()} (pid ' in stderr
    seen = one.seen()['it@h1']
    assert (seen['state'], seen['status']) == ('stopped', 0)
    assert 'stopped by' in seen['reason']
