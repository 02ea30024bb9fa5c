"""DS2 to DS4: `remote_runner load`, asking hosts itself and asking a daemon."""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from remote_runner.hosts.address import Address, parse_hosts
from remote_runner.hosts.ssh import Connector, SshOptions
from remote_runner.placement.keeper import Cluster
from remote_runner.placement.member import LOST, UP, HostState
from remote_runner.placement.server import Server
from remote_runner.ui.loads import loads_picture
from tests.burdens import GB, Burden
from tests.commands import COMMAND, Commands, Done, environment, nothing_runs
from tests.testbed import Testbed
from tests.testbed.process import PATIENCE, wait_until
from tests.tmux import Window


@pytest.fixture
def commands(own: Testbed, burdens: dict[str, Burden], tmp_path: Path) -> Iterator[Commands]:
    """Somebody without a daemon, for now. The hosts have loads of 1.5, 0.5 and 1.0."""
    for name, load in (('h1', 1.5), ('h2', 0.5), ('h3', 1.0)):
        burdens[name].load(load)
        burdens[name].memory(8 * GB)
    commands = Commands(tmp_path / 'home', own.ssh_config)
    commands.variables['RR_DSHD_SOCKET'] = str(tmp_path / 'dshd')
    yield commands
    for host in own.hosts:
        nothing_runs(host)


def load(commands: Commands, *arguments: str, status: int | None = 0) -> Done:
    return commands.run('load', '-F', commands.ssh_config, *arguments, status=status)


@contextmanager
def daemon(commands: Commands, *hosts: str) -> Iterator[Cluster]:
    """A daemon that has these hosts, which are all up."""
    with (
        Connector(SshOptions(config_file=str(commands.ssh_config))) as connector,
        Cluster(connector, parse_hosts(hosts), interval=0.3) as cluster,
        Server(cluster) as server,
        socket.socket(socket.AF_UNIX) as listening,
    ):
        cluster.start()
        wait_until(lambda: all(state.state == UP for state in cluster.hosts()), 'all hosts', PATIENCE)
        path = Path(commands.variables['RR_DSHD_SOCKET'])
        path.unlink(missing_ok=True)
        listening.bind(str(path))
        listening.listen()
        server.listen(listening)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield cluster
        finally:
            server.stop()
            thread.join()


def rows(done: Done) -> list[dict[str, str]]:
    """The table, a dict a row."""
    heading, *lines = done.stdout.splitlines()[:-1]
    names = heading.split()
    return [dict(zip(names, re.split(r' {2,}', line), strict=False)) for line in lines]


def told(done: Done) -> dict[str, dict[str, Any]]:
    """The hosts of `--json`, in their order."""
    [found] = done.objects
    return {host['name']: host for host in found['hosts']}


# The table


def test_the_table_has_the_best_one_first(commands: Commands, burdens: dict[str, Burden]) -> None:
    burdens['h3'].memory(2 * GB, 16 * GB, swap=4 * GB, free_swap=GB)
    done = load(commands, '-H', 'h1,h2', '-H', 'h3')
    assert done.stdout.splitlines()[0].split() == [
        'HOST', 'STATE', 'SCORE', 'LOAD', 'VIRTUAL', 'CORES', 'FREE', 'MEMORY', 'SWAPPED', 'USERS', 'TASKS', 'AGE',
    ]  # fmt: skip
    table = rows(done)
    assert [row['HOST'] for row in table] == ['h2', 'h3', 'h1']
    h2, h3, _ = table
    assert (h2['STATE'], h2['LOAD'], h2['VIRTUAL'], h2['SWAPPED'], h2['TASKS']) == ('up', '0.50', '0.00', '-', '0')
    assert (h3['FREE'], h3['MEMORY'], h3['SWAPPED']) == ('2.0 GB', '16.0 GB', '3.0 GB')
    assert done.stdout.endswith('\n3 hosts: 3 up\n')


def test_lost_ones_are_last_with_their_reasons(commands: Commands, own: Testbed) -> None:
    own['h2'].stop_sshd()
    try:
        done = load(commands, '-H', 'h[1-3]', status=3)
        found = told(load(commands, '-H', 'h[1-3]', '--json', status=3))
    finally:
        own['h2'].start_sshd()
    assert [row['HOST'] for row in rows(done)] == ['h3', 'h1', 'h2']
    assert re.search(r'^h2 +lost +- .*refused', done.stdout, re.MULTILINE)
    assert done.stdout.endswith('\n3 hosts: 2 up, 1 lost\n')
    assert list(found) == ['h3', 'h1', 'h2']
    assert (found['h2']['report'], found['h2']['score']) == (None, None)
    assert 'refused' in found['h2']['error']


def test_which_hosts(commands: Commands, burdens: dict[str, Burden]) -> None:
    burdens['h1'].memory(GB)
    assert [row['HOST'] for row in rows(load(commands, '-H', 'h[1-3]', '--min-memory', '2G'))] == ['h2', 'h3']
    assert [row['HOST'] for row in rows(load(commands, '-H', 'h[1-3]', '-x', 'h[2-3]'))] == ['h1']
    assert [row['HOST'] for row in rows(load(commands, '-H', 'h[1-3]', '--exclude', '*2,*3'))] == ['h1']
    assert load(commands, '-H', 'h1', '--platform', 'linux-vax').stdout == '0 hosts\n'


def test_the_cluster_file_and_its_weights(commands: Commands) -> None:
    file = commands.home / '.config/remote_runner/cluster'
    done = load(commands, status=2)
    assert all(place in done.stderr for place in ('-H', 'RR_CLUSTER', str(file)))
    file.parent.mkdir(parents=True)
    file.write_text('h1 0.1 2\nh2 5  # slow\n')
    found = told(load(commands, '--json'))
    assert list(found) == ['h1', 'h2']
    assert (found['h1']['load_weight'], found['h1']['memory_weight']) == (0.1, 2.0)
    assert found['h2']['score'] == pytest.approx(5 * (0.5 + 1) / found['h2']['report']['cores'])
    commands.variables['RR_CLUSTER'] = 'h3'
    assert list(told(load(commands, '--json'))) == ['h3']
    file.write_text('h1\nh2 zwei drei@\n')
    assert f'{file}, line 2' in load(commands, '-H', str(file), status=2).stderr


# The best one


def test_the_best_one(commands: Commands) -> None:
    assert load(commands, '-H', 'h[1-3]', '--best').stdout == 'h2\n'
    assert load(commands, '-H', 'h[1-3]', '--best', '--exclude', 'h2').stdout == 'h3\n'
    assert load(commands, '-H', 'h[1-3]', '--best', '--prefer', 'h1').stdout == 'h1\n'
    counts = Counter(load(commands, '-H', 'h[1-3]', '--best', '--count', '30').stdout.split())
    assert counts['h1'] < counts['h3'] < counts['h2']
    assert load(commands, '-H', 'h[1-2]', '--best', '--json', '--count', '1').objects == [{'hosts': ['h2']}]


def test_none_will_do(commands: Commands, own: Testbed) -> None:
    done = load(commands, '-H', 'h[1-2]', '--best', '--min-memory', '9G', status=1)
    assert 'no host will do' in done.stderr
    assert 'h[1-2]: 8.0 GB of memory are free, not 9.0 GB' in done.stderr
    own['h1'].stop_sshd()
    try:
        assert 'refused' in load(commands, '-H', 'h1', '--best', status=3).stderr
    finally:
        own['h1'].start_sshd()


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (['--best', '--watch'], '--best and --watch exclude each other'),
        (['--peek'], '--peek belongs to --best'),
        (['--count', '3'], '--count belongs to --best'),
        (['--best', '--count', '0'], "'0' is not a whole number above 0"),
        (['--min-memory', '2 GiB'], "'2 GiB'"),
        (['-H', 'no/such/file'], 'no/such/file: no such file'),
    ],
)
def test_wrong_usage(commands: Commands, arguments: list[str], says: str) -> None:
    assert says in load(commands, *arguments, status=2).stderr


# An evaluation function


def test_a_function_of_ones_own(commands: Commands) -> None:
    commands.home.mkdir()
    file = commands.home / 'score.py'
    file.write_text('def score(host):\n    return -host.report.load - host.virtual\n')
    evaluate = ['-H', 'h[1-3]', '--evaluate', 'score.py']
    assert [row['HOST'] for row in rows(load(commands, *evaluate))] == ['h1', 'h3', 'h2']
    assert load(commands, *evaluate, '--best').stdout == 'h1\n'
    with daemon(commands, 'h[1-3]') as cluster:
        assert [row['HOST'] for row in rows(load(commands, *evaluate))] == ['h1', 'h3', 'h2']
        assert load(commands, *evaluate, '--best', '--count', '2', '--peek').stdout == 'h1\nh1\n'
        assert all(state.virtual == 0 for state in cluster.hosts())
        assert load(commands, *evaluate, '--best', '--count', '2').stdout == 'h1\nh1\n'
        assert cluster.hosts()[0].virtual > 1
        assert 'no host will do' in load(commands, *evaluate, '--best', '--min-memory', '9G', status=1).stderr
    file.write_text('def score(host):\n    # a comment\n    return {}[host.name]\n')
    done = load(commands, *evaluate, status=2)
    assert re.search(r"score\.py, line 3: KeyError: 'h[123]'", done.stderr)
    assert 'Traceback' not in done.stderr


def test_a_function_of_ones_own_where_no_host_is_there(commands: Commands, own: Testbed) -> None:
    commands.home.mkdir()
    (commands.home / 'score.py').write_text('def score(host):\n    return host.report.load\n')
    with daemon(commands, 'h1') as cluster:
        own['h1'].stop_sshd(sessions=True)
        try:
            wait_until(lambda: 'refused' in (cluster.states()[0].error or ''), 'its loss', PATIENCE)
            done = load(commands, '--evaluate', 'score.py', '--best', status=3)
        finally:
            own['h1'].start_sshd()
    assert re.match('ERROR: no host will do:\n  - h1: .*refused', done.stderr)


# A daemon


def test_the_daemon_is_asked(commands: Commands, burdens: dict[str, Burden]) -> None:
    with daemon(commands, 'h1', 'h2 1.2', 'h3') as cluster:
        found = told(load(commands, '--json'))
        assert list(found) == ['h2', 'h3', 'h1']
        assert found['h2']['load_weight'] == 1.2
        assert found['h2']['identity'] == cluster.hosts()[1].identity
        assert load(commands, '--best', '--peek').stdout == 'h2\n'
        assert told(load(commands, '--json'))['h2']['virtual'] == 0
        assert load(commands, '--best').stdout == 'h2\n'
        assert told(load(commands, '--json'))['h2']['virtual'] > 0.1
        assert load(commands, '--best', '--exclude', 'h[2-3]').stdout == 'h1\n'
        counts = Counter(load(commands, '--best', '--count', '30').stdout.split())
        assert sum(counts.values()) == 30
        assert counts['h2'] < counts['h1']
        assert 'no host will do' in load(commands, '--best', '--min-memory', '9G', status=1).stderr
    assert 'RR_CLUSTER' in load(commands, status=2).stderr, 'its socket is still there'


def test_the_daemon_is_asked_about_hosts_that_it_has(commands: Commands, own: Testbed) -> None:
    """Others are connected to; a daemon that has them with other weights would rate them in another way."""
    with daemon(commands, 'h1', 'h2'):
        load(commands, '--best')
        assert list(told(load(commands, '-H', 'h2', '--json'))) == ['h2']
        assert told(load(commands, '-H', 'h2', '--json'))['h2']['virtual'] > 0
        assert load(commands, '-H', 'h1', '--best').stdout == 'h1\n'
        assert told(load(commands, '-H', 'h1', '--json'))['h1']['virtual'] > 0
        for others in ('h2 3', 'h[2-3]'):
            assert told(load(commands, '-H', others, '--json'))['h2']['virtual'] == 0
        own['h2'].stop_sshd(sessions=True)
        try:
            assert load(commands, status=3).stdout.endswith('2 hosts: 1 up, 1 lost\n')
        finally:
            own['h2'].start_sshd()


# Looking again and again


def test_watching_into_a_pipe(commands: Commands, burdens: dict[str, Burden]) -> None:
    with commands.start(
        'load', '-F', commands.ssh_config, '-H', 'h[1-2]', '--watch', '-n', '0.1', '--json'
    ) as running:
        wait_until(lambda: running.out.count(b'\n') > 1, 'two looks', PATIENCE)
        burdens['h2'].load(7.0)
        wait_until(lambda: b'"load": 7.0' in running.out, 'the change', PATIENCE)
        running.signal(signal.SIGINT)
        done = running.end()
    assert done.status == 130
    looks = [json.loads(line) for line in done.stdout.splitlines()]
    assert [host['name'] for host in looks[0]['hosts']] == ['h2', 'h1']
    assert [host['name'] for host in looks[-1]['hosts']] == ['h1', 'h2']


def test_watching_at_a_terminal(commands: Commands, burdens: dict[str, Burden]) -> None:
    with daemon(commands, 'h[1-3]'):
        variables = {**environment(commands.home), **commands.variables}
        words = ['env', '-i', *(f'{name}={value}' for name, value in variables.items()), *COMMAND]
        window = Window(f'{shlex.join([*words, "load", "--watch", "-n", "0.2"])}; echo status $?; exec cat')
        try:
            window.shows(lambda lines: [line.split()[:1] for line in lines[1:4]] == [['h2'], ['h3'], ['h1']])
            burdens['h1'].load(0.0)
            lines = window.shows(lambda lines: lines[1].startswith('h1'))
            assert lines[4] == '3 hosts: 3 up'
            window('send-keys', 'C-c')
            window.shows(lambda lines: 'status 130' in lines)
        finally:
            window.close()


def test_what_there_is_no_room_for() -> None:
    """The best hosts stay, and some of those that are lost."""
    up = [HostState(Address(f'up{number}'), UP, None, None, 0.0, 0.0, float(number), None) for number in range(30)]
    lost = [HostState(Address(f'lost{number}'), LOST, 'no', None, None, 0.0, None, None) for number in range(10)]
    for height in range(1, 60):
        lines = [''.join(text for text, _ in line) for line in loads_picture([*up, *lost], height)]
        assert len(lines) <= height
        assert lines[-1] == '40 hosts: 30 up, 10 lost'
        shown = [line for line in lines[1:-1] if line.startswith(('up', 'lost'))]
        assert not any(line.startswith('lost') for line in shown) or any(line.startswith('up0') for line in shown)
        assert len(shown) == 40 or height < 4 or f'… and {40 - len(shown)} more' in lines
    assert loads_picture([], 10) == [[('0 hosts', 'bold')]]
