"""Commands with NAMES have to do with the hosts of these alone; what is off elsewhere is in nobody's way."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_runner.deploy.holder import CHANGE, RUN, lock
from remote_runner.deploy.target import Target
from remote_runner.hosts.address import parse_hosts
from tests.commands import COMMAND, alias_of, component, environment, ssh_config
from tests.deploying import connections
from tests.living import connected
from tests.standing import Standing, by_label, sh
from tests.testbed import Testbed
from tests.testbed.process import wait_until
from tests.tmux import Window

#: So long would it take to find out that a host is off.
FOR_EVER = ('--connect-timeout', '600')
SOON = ('--connect-timeout', '1')


@pytest.fixture(scope='module')
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """Components on two hosts, of which the second is off."""
    with Testbed(2) as bed, Standing(bed, tmp_path_factory.mktemp('off')) as site:
        site.write(
            sh('one', 'h1', 'echo hello; exec sleep 1000'),
            sh('over', 'h1', 'exit 0'),
            component('two', 'h2', start_index=1),
            component('spare', 'h1'),
            component('both', 'h1'),
            component('both', 'h2'),
        )
        site.deploy()
        site.comes_to('over@h1', 'exited')
        bed['h2'].cut()
        yield site
        bed['h2'].heal()


@pytest.mark.parametrize(
    'words',
    [
        ['status', 'one', '*@h1'],
        ['status', 'both@h1', '--json'],
        ['logs', 'one'],
        ['wait', 'over'],
        ['wait', '--for', 'ready', 'o*'],
        ['signal', 'CONT', 'one'],
        ['fetch', 'one'],
        ['restart', 'one'],
        ['stop', 'spare'],
        ['restart', 'both@h1', 'over'],
    ],
    ids=' '.join,
)
def test_names_of_others(site: Standing, words: list[str]) -> None:
    done = site.later(*words, *FOR_EVER)
    assert done.stderr.count('h2') == 0


def test_names_of_others_that_are_started_again(site: Standing) -> None:
    site.later('stop', 'spare', *FOR_EVER)
    site.run('run', 'spare', '--screen', site.session, *FOR_EVER)
    assert by_label(site.later('status', '--json', 'spare', *FOR_EVER))['spare@h1']['state'] == 'started'


def test_names_of_others_by_the_config(site: Standing) -> None:
    asked = ['-F', site.ssh_config, '-c', site.config, '--screen', site.session, '--json', *FOR_EVER]
    assert list(by_label(site.run('status', 'one', 'over', *asked))) == ['one@h1', 'over@h1']


def test_attach_to_others(site: Standing) -> None:
    variables = [f'{name}={value}' for name, value in environment(site.home).items()]
    words = ['env', '-i', *variables, *COMMAND, 'attach', 'one', '--screen', site.session, *FOR_EVER]
    window = Window(f'{shlex.join(words)}; echo status $?; exec cat')
    try:
        window.shows(lambda lines: 'hello' in lines)
        window('send-keys', 'C-a', 'd')
        window.shows(lambda lines: 'status 0' in lines)
    finally:
        window.close()


def test_one_of_it(site: Standing) -> None:
    done = site.later('status', '--json', 'both', *SOON, status=3)
    assert {label: seen['state'] for label, seen in by_label(done).items()} == {
        'both@h1': 'started',
        'both@h2': 'unknown',
    }
    assert 'h2: ' in site.later('restart', 'one', 'both', *SOON, status=3).stderr
    assert 'h2: ' in site.later('stop', 'two', *SOON, status=3).stderr
    assert 'h2: ' in site.later('wait', 'tw?', *SOON, status=3).stderr


def test_a_name_that_may_be_one_of_it(site: Standing) -> None:
    for command in ('status', 'stop', 'logs'):
        done = site.later(command, 'one', 'nobody', *SOON, status=3)
        assert "nobody can say whether there is a component 'nobody'" in done.stderr
        assert done.stdout == ''


def test_without_names_it_is_meant(site: Standing) -> None:
    assert site.later('status', *SOON, status=3).stdout.count('unknown') == 3  # both rows, and the line that counts
    assert 'ERROR: h2: ' in site.later('logs', *SOON, status=3).stderr


def test_hosts_alone_say_nothing_of_names(site: Standing) -> None:
    done = site.run('status', 'one', *site.elsewhere('h[1-2]'), *SOON, status=3)
    assert 'h2' in done.stderr


def test_nobody_connects_to_others_nor_holds_the_session_there(bed: Testbed, tmp_path: Path) -> None:
    with Standing(bed, tmp_path) as site:
        site.write(component('one', 'h1'), component('two', 'h2'))
        site.deploy()
        wait_until(lambda: not connections(bed['h2']), 'the deployment to hang up')
        bed['h2'].stop_sshd()
        try:
            site.later('restart', 'one')
        finally:
            bed['h2'].start_sshd()
        with connected(site.deployment, 'h2') as host:
            lock(host, site.session, 'somebody', [RUN, CHANGE])
            site.later('restart', 'one')
            assert 'is held by somebody' in site.later('restart', '*', status=1).stderr
        site.later('stop', 'one')
        assert site.states() == {'one@h1': 'stopped', 'two@h2': 'started'}


def test_two_names_of_one_machine(bed: Testbed, tmp_path: Path) -> None:
    config = ssh_config(tmp_path, bed, alias_of(bed, 'h1', 'twin'))
    with Standing(bed, tmp_path, config) as site:
        site.write(component('one', 'h1'), component('two', 'twin'), component('three', 'h2'))
        site.deploy()
        ssh_config(tmp_path, bed, f'Host h1 h2\n  Port 9\n{alias_of(bed, "h1", "twin")}')
        assert site.states('two') == {'two@twin': 'started'}
        old = site.pid('two@twin')
        site.later('restart', 'two')
        site.later('stop', '*@twin')
        assert by_label(site.later('status', '--json', 'two'))['two@twin']['state'] == 'stopped'
        assert site.later('status', 'one', status=3).stdout.count('unknown') == 2
        ssh_config(tmp_path, bed, alias_of(bed, 'h1', 'twin'))
        assert site.states() == {'one@h1': 'started', 'two@twin': 'stopped', 'three@h2': 'started'}
        assert not site.deployment.runs(old)


class TestNarrowed:
    """Which hosts are dialled."""

    TARGET = Target(
        'runner',
        tuple(parse_hosts(['h1', 'root@h2', 'h3:22'])),
        expected=(('a', 'h1', 0), ('b', 'root@h2', 0), ('b', 'h3:22', 1), ('c', 'h3:22', 2)),
    )

    @pytest.mark.parametrize(
        ('patterns', 'hosts'),
        [
            ([], ['h1', 'root@h2', 'h3:22']),
            (['a'], ['h1']),
            (['b'], ['root@h2', 'h3:22']),
            (['b@h3:22'], ['h3:22']),
            (['c', '*@h1'], ['h1', 'h3:22']),
            (['a', 'nobody'], ['h1', 'root@h2', 'h3:22']),
            (['*'], ['h1', 'root@h2', 'h3:22']),
        ],
    )
    def test_by_names(self, patterns: list[str], hosts: list[str]) -> None:
        narrowed = self.TARGET.narrowed(patterns)
        assert [address.where for address in narrowed.addresses] == hosts
        assert {host for _, host, _ in narrowed.expected} == set(hosts)

    def test_where_nothing_is_expected(self) -> None:
        target = Target.of_hosts('runner', parse_hosts(['h[1-2]']))
        assert target.narrowed(['a']) == target
