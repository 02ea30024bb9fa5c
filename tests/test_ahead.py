"""Connections that are begun before the program that uses them is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_runner.errors import ConnectionLost, HostUnreachable
from remote_runner.hosts.address import parse_address, parse_hosts
from remote_runner.hosts.ahead import Ahead, Begun
from remote_runner.hosts.pool import connect
from remote_runner.hosts.ssh import Connector
from remote_runner.hosts.ssh_config import SshOptions
from tests.deploying import connections
from tests.testbed import Testbed
from tests.testbed.process import wait_until


def options(bed: Testbed, tmp_path: Path, more: str = '') -> SshOptions:
    config = tmp_path / 'ssh_config'
    config.write_text(f'Include {bed.ssh_config}\n{more}')
    return SshOptions(config_file=str(config))


def begin(bed: Testbed, tmp_path: Path, hosts: str, more: str = '', **limits: int) -> Ahead:
    return Ahead(options(bed, tmp_path, more), parse_hosts([hosts]), **limits)


def served(bed: Testbed, *names: str) -> bool:
    """Whether each of these hosts has one connection."""
    return all(len(connections(bed[name])) >= 1 for name in names)


def test_a_connection_is_taken_and_used(bed: Testbed, tmp_path: Path) -> None:
    ahead = begin(bed, tmp_path, 'h[1-2]')
    wait_until(lambda: served(bed, 'h1', 'h2'), 'sshd to have answered')
    before = [p.pid for p in connections(bed['h1'])]
    with Connector(ahead=ahead) as connector:
        for name in ('h1', 'h2'):
            with connector.connect(parse_address(name)) as connection:
                assert connection.open('echo "$SSH_CONNECTION"').read(100)
                if name == 'h1':
                    assert {p.pid for p in connections(bed['h1'])} & set(before)
        # The next one is dialled as ever.
        with connector.connect(parse_address('h1')) as connection:
            assert connection.open('echo again').read(100) == b'again\n'


def test_what_nobody_takes_is_closed(bed: Testbed, tmp_path: Path) -> None:
    with Connector(ahead=begin(bed, tmp_path, 'h1')):
        wait_until(lambda: served(bed, 'h1'), 'sshd to have answered')
    wait_until(lambda: connections(bed['h1']) == [], 'the connection to be closed')


def test_an_error_is_told_to_who_connects_with_its_own_name(bed: Testbed, tmp_path: Path) -> None:
    more = 'Host dead other\n  HostName 127.0.0.1\n  Port 9\n'
    for first, second in (('dead', 'other'), ('other', 'dead')):
        ahead = begin(bed, tmp_path, f'{first},{second}', more)
        with Connector(ahead=ahead) as connector:
            for name in (second, first):
                with pytest.raises(HostUnreachable) as caught:
                    connector.connect(parse_address(name))
                assert str(caught.value).startswith(f'{name}: cannot connect to 127.0.0.1 port 9: connection refused')


def test_a_host_that_does_not_answer_takes_the_time_limit_once(bed: Testbed, tmp_path: Path) -> None:
    bed['h2'].cut()
    try:
        ahead = begin(bed, tmp_path, 'h2', 'Host *\n  ConnectTimeout 1\n')
        wait_until(lambda: bool(ahead._begun), 'the call to begin')
        with Connector(ahead=ahead) as connector, pytest.raises(HostUnreachable, match='no answer') as caught:
            connector.connect(parse_address('h2'))
        # It is that of the connection which was begun ahead; none was begun afterwards.
        assert isinstance(caught.value.__cause__, HostUnreachable)
    finally:
        bed['h2'].heal()


def test_no_more_than_the_fanout_are_dialled(bed: Testbed, tmp_path: Path) -> None:
    with Connector(ahead=begin(bed, tmp_path, 'h[1-3]', fanout=2)):
        wait_until(lambda: served(bed, 'h1', 'h2'), 'sshd to have answered')
        assert connections(bed['h3']) == []


def test_jump_hosts_are_left_for_later(bed: Testbed, tmp_path: Path) -> None:
    with Connector(ahead=begin(bed, tmp_path, 'h2,h3', 'Host h2\n  ProxyJump h1\n')) as connector:
        wait_until(lambda: served(bed, 'h3'), 'sshd to have answered')
        assert connections(bed['h2']) == []
        with connector.connect(parse_address('h2')) as connection:
            assert connection.open('hostname').read(100) == b'h2\n'


def test_the_agent_is_started_ahead_too(bed: Testbed, tmp_path: Path) -> None:
    before = agents(bed)
    ahead = begin(bed, tmp_path, 'h1')
    wait_until(lambda: bool(ahead.connected()), 'the connection')
    with Connector(ahead=ahead) as connector:
        wait_until(lambda: bool(agents(bed) - before), 'the agent')
        [there] = agents(bed) - before
        with connect(parse_address('h1'), connector) as host:
            assert host.facts.pid == there
            assert agents(bed) - before == {there}


def agents(bed: Testbed) -> set[int]:
    """Pids of the agents on h1, as that host counts them; those that others have left may be just about to end."""
    return set(map(int, bed['h1'].run(['pgrep', '-f', 'python3 -ISc import sys'], check=False).stdout.split()))


def test_an_agent_that_nobody_wants_ends(bed: Testbed, tmp_path: Path) -> None:
    before = agents(bed)
    ahead = begin(bed, tmp_path, 'h1')
    wait_until(lambda: bool(ahead.connected()), 'the connection')
    with Connector(ahead=ahead):
        wait_until(lambda: bool(agents(bed) - before), 'the agent')
    wait_until(lambda: not agents(bed) - before, 'the end of the agent')


class Thing:
    closed = 0

    def close(self) -> None:
        self.closed += 1


class TestBegun:
    def test_it_is_given_to_who_asks(self) -> None:
        begun, thing = Begun[Thing](), Thing()
        begun.make(lambda: thing)
        assert begun.is_there
        assert begun.result() is thing
        assert not thing.closed

    def test_what_goes_wrong_is_told_to_who_asks(self) -> None:
        begun = Begun[Thing]()
        begun.make(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        assert not begun.is_there
        with pytest.raises(ZeroDivisionError):
            begun.result()

    def test_given_up_before_and_after(self) -> None:
        early, late, thing, other = Begun[Thing](), Begun[Thing](), Thing(), Thing()
        early.give_up()
        early.make(lambda: thing)
        late.make(lambda: other)
        late.give_up()
        assert thing.closed == other.closed == 1
        with pytest.raises(ConnectionLost):
            early.wait_until_wanted()
