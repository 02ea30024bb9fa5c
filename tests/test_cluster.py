"""DS2, DS3: the hosts of a cluster on real hosts: their loads, what becomes of them, and the choice among them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from remote_runner.errors import AuthenticationFailed, HostError, NoHostFits, UserCodeError
from remote_runner.hosts.address import parse_address, parse_hosts
from remote_runner.hosts.ssh import Connector, SshOptions
from remote_runner.placement import member
from remote_runner.placement.choose import Known, Report, Wanted
from remote_runner.placement.keeper import Cluster
from remote_runner.placement.member import CONNECTING, LOST, SILENCE, UP, HostState, delay_after
from tests.burdens import GB, Burden
from tests.commands import alias_of, nothing_runs, ssh_config
from tests.deploying import kill, the_agent
from tests.testbed import Testbed
from tests.testbed.process import PATIENCE, wait_until

#: Seconds between two reports.
INTERVAL = 0.3


class Watched:
    """A cluster, and what becomes of it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def state(self, name: str) -> HostState:
        [found] = [each for each in self.cluster.hosts() if each.address.where == name]
        return found

    def becomes(self, name: str, state: str) -> HostState:
        wait_until(lambda: self.state(name).state == state, f'{name} to be {state}', PATIENCE)
        return self.state(name)

    def tells(self, name: str, load: float) -> None:
        """Wait for a report of this load."""

        def told() -> bool:
            report = self.state(name).report
            return report is not None and report.load == load

        wait_until(told, f'{name} to tell of {load}', PATIENCE)

    def names(self, wanted: Wanted = Wanted(), count: int = 1, peek: bool = False) -> list[str]:  # noqa: B008
        return [name for name, _ in self.cluster.choose(wanted, count, peek)]


Keep = Callable[..., Watched]


@pytest.fixture
def keep(own: Testbed, burdens: dict[str, Burden], tmp_path: Path) -> Iterator[Keep]:
    """A cluster of these hosts, which are all up: `keep('h1', 'h2 2.0')`. It leaves nothing on the hosts."""
    with ExitStack() as stack:

        def make(*hosts: str, config: Path | None = None, **options: object) -> Watched:
            connector = stack.enter_context(
                Connector(SshOptions(config_file=str(config or own.ssh_config), connect_timeout=2.0))
            )
            given = {'interval': INTERVAL, 'jitter': lambda: 0.0, **options}
            cluster = stack.enter_context(Cluster(connector, parse_hosts(hosts), **given))  # type: ignore[arg-type]
            cluster.start()
            assert cluster.wait_until_up(PATIENCE), cluster.hosts()
            return Watched(cluster)

        yield make
    for burden in burdens.values():
        burden.load(0.0)
        burden.memory(8 * GB)
    for host in own.hosts:
        nothing_runs(host)


def test_loads_are_as_fresh_as_they_are_told(keep: Keep, burdens: dict[str, Burden]) -> None:
    burdens['h1'].load(1.5)
    watched = keep('h1', 'root@h2:22 2 3')
    first = watched.state('h1')
    assert (first.state, first.error, first.virtual) == (UP, None, 0.0)
    assert first.report is not None
    assert first.report.load == 1.5
    assert first.age is not None
    assert first.age < PATIENCE
    assert first.identity != watched.state('root@h2:22').identity
    burdens['h1'].load(2.5)
    burdens['h1'].memory(GB)
    watched.tells('h1', 2.5)
    burdens['h2'].load(4.0)
    watched.tells('root@h2:22', 4.0)
    h1, h2 = watched.cluster.hosts()
    assert h1.report is not None
    assert h2.report is not None
    assert h1.report.free_memory == GB // 1024 * 1024
    assert h1.score == pytest.approx((2.5 + 1) / h1.report.cores + 0.1 * 7 / 8, rel=1e-3)
    assert h2.score == pytest.approx(2 * (4.0 + 1) / h2.report.cores, abs=1e-3)


def test_the_best_one_follows_the_loads(keep: Keep, burdens: dict[str, Burden]) -> None:
    for name, load in (('h1', 1.0), ('h2', 0.5), ('h3', 0.9)):
        burdens[name].load(load)
    watched = keep('h[1-3]')
    assert watched.names(peek=True) == ['h2']
    burdens['h2'].load(5.0)
    watched.tells('h2', 5.0)
    assert watched.names(peek=True) == ['h3']
    assert watched.names(Wanted(hosts=('h[12]',)), peek=True) == ['h1']
    assert watched.names(Wanted(prefer=('h1',)), peek=True) == ['h1']
    burdens['h3'].memory(GB)
    wait_until(lambda: watched.state('h3').report.free_memory < 2 * GB, 'memory', PATIENCE)  # type: ignore[union-attr]
    assert watched.names(Wanted(min_memory=2 * GB), peek=True) == ['h1']


# Virtual load


def test_a_hundred_choices_at_once_spread(keep: Keep, own: Testbed, tmp_path: Path) -> None:
    """Over hosts with different cores and weights."""
    (tmp_path / 'cgroup.controllers').write_text('cpu\n')
    (tmp_path / 'cpu.max').write_text('100000 100000\n')
    own['h2'].share('/sys/fs/cgroup', tmp_path)
    watched = keep('h1', 'h2', 'h3 0.5')
    cores = {name: watched.state(name).report.cores for name in ('h1', 'h2', 'h3')}  # type: ignore[union-attr]
    assert cores['h2'] == 1
    power = {'h1': cores['h1'], 'h2': 1, 'h3': 2 * cores['h3']}
    asked = Counter(watched.names(count=100, peek=True))
    assert all(watched.state(name).virtual == 0 for name in power)
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def ask() -> None:
        for _ in range(10):
            [name] = watched.names()
            with lock:
                counts[name] += 1

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, own_power in power.items():
        share = 100 * own_power / sum(power.values())
        assert abs(counts[name] - share) <= max(1.0, 0.2 * share), counts
        assert abs(asked[name] - share) <= max(1.0, 0.2 * share), asked
        assert watched.state(name).virtual > 0.5 * share


def test_commands_count_until_they_have_ended(keep: Keep) -> None:
    watched = keep('h1')
    [(name, host)] = watched.cluster.choose(key='one')
    assert (name, host.facts.hostname) == ('h1', 'h1')
    watched.cluster.choose(key='two')
    assert watched.state('h1').virtual == pytest.approx(2.0, abs=0.5)
    watched.cluster.ended('h1', 'one')
    watched.cluster.ended('h1', 'two')
    watched.cluster.ended('gone', 'two')
    wait_until(lambda: watched.state('h1').virtual < 0.1, 'the virtual load to fade', PATIENCE)


def test_an_evaluation_function_of_ones_own(keep: Keep, burdens: dict[str, Burden]) -> None:
    burdens['h1'].load(5.0)

    def most_loaded(host: Known) -> float:
        if host.name == 'h3':
            raise UserCodeError('score.py, line 3: KeyError: h3')
        return -host.report.load

    watched = keep('h1', 'h2', rate=most_loaded)
    assert watched.names(peek=True) == ['h1']
    assert [state.score for state in watched.cluster.hosts()] == [-5.0, 0.0]
    watched.cluster.set_addresses(parse_hosts(['h[1-3]']))
    errors: list[UserCodeError] = []

    def fails(ask: Callable[[], object]) -> bool:
        try:
            ask()
        except UserCodeError as error:
            errors.append(error)
        return bool(errors)

    wait_until(lambda: fails(watched.cluster.hosts), 'h3 to be up', PATIENCE)
    assert 'line 3' in str(errors.pop())
    assert fails(watched.names)


def test_none_will_do(keep: Keep, own: Testbed) -> None:
    watched = keep('h[1-2]', 'h3')
    own['h3'].stop_sshd(sessions=True)
    try:
        watched.becomes('h3', LOST)
        with pytest.raises(NoHostFits) as raised:
            watched.names(Wanted(min_memory=9 * GB))
        lines = str(raised.value).splitlines()
        assert lines[:2] == ['no host will do:', '  - h[1-2]: 8.0 GB of memory are free, not 9.0 GB']
        assert lines[2].startswith('  - h3: ')
        assert raised.value.exit_status == 1
        assert set(raised.value.reasons) == {'h1', 'h2', 'h3'}
        with pytest.raises(NoHostFits, match='2 others: not among those that are wanted') as raised:
            watched.names(Wanted(hosts=('h3',)))
        assert raised.value.exit_status == 3
    finally:
        own['h3'].start_sshd()


# What becomes of hosts


def test_a_cut_host_is_lost_and_comes_back(keep: Keep, own: Testbed, burdens: dict[str, Burden]) -> None:
    watched = keep('h[1-2]')
    own['h1'].cut()
    try:
        lost = watched.becomes('h1', LOST)
        assert lost.error == f'it has been silent for {SILENCE * INTERVAL:g} s'
        assert lost.score is None
        assert watched.names(count=5) == ['h2'] * 5
        assert watched.state('h2').state == UP
    finally:
        own['h1'].heal()
    burdens['h1'].load(0.25)
    assert watched.becomes('h1', UP).error is None
    watched.tells('h1', 0.25)
    assert 'h1' in watched.names(count=20)


def test_a_host_without_power_comes_back_when_it_is_switched_on(keep: Keep, own: Testbed) -> None:
    watched = keep('h[1-2]')
    own['h1'].kill()
    watched.becomes('h1', LOST)
    own['h1'].boot()
    watched.becomes('h1', UP)
    assert 'h1' in watched.names(count=2)


def test_a_connection_that_breaks_is_noticed_at_once(keep: Keep, own: Testbed) -> None:
    watched = keep('h1', 'h2', interval=100.0)
    own['h1'].stop_sshd(sessions=True)
    try:
        error = watched.becomes('h1', LOST).error
        assert error is not None
        assert 'silent' not in error
        wait_until(lambda: 'refused' in (watched.state('h1').error or ''), 'another try', PATIENCE)
    finally:
        own['h1'].start_sshd()
    watched.becomes('h1', UP)


def test_delays_grow() -> None:
    """A host that is out of reach is tried less and less often, one that does not let us in hardly ever."""
    error = HostError('no')
    assert [delay_after(count, error, 1.0) for count in (0, 1, 2, 5, 6, 1000)] == [1.0, 2.0, 4.0, 32.0, 60.0, 60.0]
    assert delay_after(0, error, 0.0) == 0.5
    assert delay_after(0, AuthenticationFailed('no'), 1.0) == 600.0


def test_one_that_stays_away_is_tried_less_and_less_often() -> None:
    """Until it was up for longer than any delay."""
    now = 0.0
    host = member.Member(parse_address('h1'), INTERVAL, lambda: now, lambda: 1.0)
    report = Report(0.0, 1, 1, 1, 0, 0, 0, 0, 'linux-x86_64')
    delays = []
    for up in (None, None, None, member.MOST_DELAY, None, member.MOST_DELAY + 1, None):
        if up is not None:
            host.take(report)
            now += up
        host.lose(HostError('no route to host', host='h1'))
        assert host.due is not None
        delays.append(host.due - now)
        now = host.due
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 1.0, 2.0]


def test_hosts_are_not_lost_because_we_were_stopped(keep: Keep, own: Testbed) -> None:
    """What they have said meanwhile is still to be read."""
    away = 0.0
    watched = keep('h[1-2]', interval=1.0, clock=lambda: time.monotonic() + away)
    agents = [the_agent(own[name]).pid for name in ('h1', 'h2')]
    virtual = watched.cluster.choose(key='it')
    away = 100.0
    watched.cluster.ended(virtual[0][0], 'it')  # it wakes
    for name in ('h1', 'h2'):
        wait_until(lambda: (watched.state(name).age or 0.0) < 50, 'a report', PATIENCE)  # noqa: B023
        assert watched.state(name).error is None
    assert [the_agent(own[name]).pid for name in ('h1', 'h2')] == agents
    own['h1'].cut()
    try:
        away = 200.0
        watched.cluster.ended('h1', 'it')
        assert watched.becomes('h1', LOST).error == f'it has been silent for {SILENCE:g} s'
        assert watched.state('h2').state == UP
    finally:
        own['h1'].heal()


def test_a_stopped_agent_is_replaced(keep: Keep, own: Testbed) -> None:
    watched = keep('h1')
    stopped = the_agent(own['h1']).pid
    kill(own['h1'], signal.SIGSTOP, stopped)
    try:
        watched.becomes('h1', LOST)
        watched.becomes('h1', UP)
    finally:
        kill(own['h1'], signal.SIGCONT, stopped)
    assert the_agent(own['h1']).pid != stopped


def test_the_connection_stays_where_a_command_runs(keep: Keep, own: Testbed) -> None:
    """A host that is too busy to report must not lose what it is busy with."""
    watched = keep('h1', 'h2')
    [(_, host)] = watched.cluster.choose(Wanted(hosts=('h1',)), key='it')
    command = host.call('exec', command='sleep 1000')
    agent = the_agent(own['h1']).pid
    kill(own['h1'], signal.SIGSTOP, agent)
    watched.becomes('h1', LOST)
    assert watched.names(count=3) == ['h2'] * 3
    kill(own['h1'], signal.SIGCONT, agent)
    watched.becomes('h1', UP)
    assert the_agent(own['h1']).pid == agent
    assert not command.ended
    kill(own['h1'], signal.SIGSTOP, agent)
    watched.becomes('h1', LOST)
    watched.cluster.ended('h1', 'it')
    wait_until(lambda: command.ended, 'the end of the connection', PATIENCE)
    watched.becomes('h1', UP)
    kill(own['h1'], signal.SIGCONT, agent)
    assert the_agent(own['h1']).pid != agent


def test_a_host_that_tells_nonsense_is_lost_until_it_comes_to_its_senses(
    keep: Keep, own: Testbed, burdens: dict[str, Burden]
) -> None:
    watched = keep('h1')
    agent = the_agent(own['h1']).pid
    burdens['h1'].say('a lot')
    error = watched.becomes('h1', LOST).error
    assert error is not None
    assert error.startswith("/proc/loadavg cannot be understood: 'a lot")
    with pytest.raises(NoHostFits, match='h1: /proc/loadavg cannot be understood'):
        watched.names()
    burdens['h1'].load(2.0)
    watched.becomes('h1', UP)
    watched.tells('h1', 2.0)
    assert the_agent(own['h1']).pid == agent


def test_a_host_that_never_reports_is_lost(
    keep: Keep, own: Testbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent waits for something there; it is tried again."""
    monkeypatch.setattr(member, 'FIRST', 2.0)
    os.mkfifo(tmp_path / 'nothing comes')
    own['h2'].share('/proc/meminfo', tmp_path / 'nothing comes')
    try:
        watched = keep('h1', 'h2')
        wait_until(lambda: watched.state('h2').error == 'it has been silent for 2 s', 'h2 to be lost', PATIENCE)
    finally:
        own['h2'].run(['umount', '--lazy', '/proc/meminfo'])
        os.close(os.open(tmp_path / 'nothing comes', os.O_RDWR))  # who waits there need not any more
    watched.becomes('h2', UP)


def test_two_names_of_one_host(keep: Keep, own: Testbed, tmp_path: Path) -> None:
    watched = keep('h1', config=ssh_config(tmp_path, own, alias_of(own, 'h1', 'alias')))
    watched.cluster.set_addresses(parse_hosts(['h1', 'alias', 'h2']))
    wait_until(lambda: watched.state('alias').error is not None, 'it to be known', PATIENCE)
    assert watched.state('alias').error == 'it is another name of h1'
    watched.becomes('h2', UP)
    assert set(watched.names(count=6)) == {'h1', 'h2'}
    watched.cluster.set_addresses(parse_hosts(['alias', 'h2']))
    watched.becomes('alias', UP)
    assert set(watched.names(count=6)) == {'alias', 'h2'}


# The list of hosts


def test_hosts_are_added_and_removed_and_weighed(keep: Keep, own: Testbed) -> None:
    watched = keep('h1', 'h2')
    [(_, host)] = watched.cluster.choose(Wanted(hosts=('h2',)), key='it')
    watched.cluster.set_addresses(parse_hosts(['h3', 'h1 10']))
    assert [state.address.where for state in watched.cluster.hosts()] == ['h3', 'h1']
    assert watched.state('h1').state == UP
    assert watched.state('h1').address.weights == (10.0,)
    watched.becomes('h3', UP)
    watched.names(count=2)
    assert watched.names(count=4, peek=True) == ['h3'] * 4
    assert host.request('describe')['hostname'] == 'h2', 'a command runs there'
    watched.cluster.ended('h2', 'it')
    nothing_runs(own['h2'])
    watched.cluster.set_addresses(parse_hosts(['h2']))
    watched.becomes('h2', UP)
    nothing_runs(own['h1'])


def test_a_host_comes_back_to_the_list_while_a_command_runs_there(keep: Keep) -> None:
    watched = keep('h1', 'h2')
    [(_, host)] = watched.cluster.choose(Wanted(hosts=('h2',)), key='it')
    watched.cluster.set_addresses(parse_hosts(['h1']))
    watched.cluster.set_addresses(parse_hosts(['h1', 'h2']))
    assert watched.state('h2').state == UP
    assert watched.state('h2').virtual > 0.5
    assert watched.cluster.choose(Wanted(hosts=('h2',)), peek=True) == [('h2', host)]
    watched.cluster.ended('h2', 'it')


def test_lost_hosts_are_tried_at_once_with_a_new_list(keep: Keep, own: Testbed) -> None:
    own['h2'].stop_sshd()
    watched = keep('h1', 'h2', jitter=lambda: 1000.0)
    lost = watched.becomes('h2', LOST)
    assert 'refused' in (lost.error or '')
    own['h2'].start_sshd()
    watched.cluster.set_addresses(parse_hosts(['h1', 'h2']))
    watched.becomes('h2', UP)


def test_waiting_for_hosts(own: Testbed, burdens: dict[str, Burden]) -> None:
    config = SshOptions(config_file=str(own.ssh_config))
    own['h2'].stop_sshd()
    try:
        with Connector(config) as connector, Cluster(connector, parse_hosts(['h2'])) as cluster:
            assert not cluster.wait_until_up(0.0)
            assert cluster.hosts()[0].state == CONNECTING
            with pytest.raises(NoHostFits, match='h2: it is not connected yet'):
                cluster.choose()
            cluster.start()
            assert not cluster.wait_until_up(PATIENCE)
        with Connector(config) as connector, Cluster(connector, parse_hosts(['h1', 'h2'])) as cluster:
            cluster.start()
            assert cluster.wait_until_up(PATIENCE, every=False)
    finally:
        own['h2'].start_sshd()
    with Connector(config) as connector, Cluster(connector, []) as cluster:
        cluster.start()
        assert not cluster.wait_until_up(PATIENCE)
        with pytest.raises(NoHostFits, match='there are none'):
            cluster.choose()
    nothing_runs(own['h1'])
