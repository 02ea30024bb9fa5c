"""`remote_runner find` and `killall`: processes of real hosts by their command lines; not ours, not other users'."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import Done, Site, component
from tests.testbed import Testbed
from tests.testbed.process import wait_until

STUBBORN = 'trap "" TERM; while :; do sleep {}; done'


class Hunt:
    """Somebody with a config, and processes on the hosts that have a number of their own in their command lines."""

    def __init__(self, site: Site, bed: Testbed) -> None:
        self.site = site
        self.bed = bed
        self.number = str(random.randrange(10**7, 10**8))

    def begin(self, host: str, *argv: str, user: str | None = None) -> int:
        """Start a process there, by default one that sleeps; its pid."""
        code = 'exec setsid "$@" </dev/null >/dev/null 2>&1 & echo $!'
        words = argv or ('sleep', self.number)
        pid = int(self.bed[host].run(['sh', '-c', code, 'sh', *words], user=user).stdout)
        wait_until(lambda: words[0] == self.argv(host, pid)[0], f'{words[0]} on {host}')
        return pid

    def argv(self, host: str, pid: int) -> list[str]:
        try:
            return (self.bed[host].root / 'proc' / str(pid) / 'cmdline').read_text().rstrip('\0').split('\0')
        except OSError:
            return ['']

    def lives(self, host: str, pid: int) -> bool:
        return self.argv(host, pid) != ['']

    def find(self, hosts: str, *more: str, text: str | None = None, status: int | None = 0) -> Done:
        return self._run('find', hosts, more, text, status)

    def killall(self, hosts: str, *more: str, text: str | None = None, status: int | None = 0, **how: object) -> Done:
        return self._run('killall', hosts, more, text, status, **how)

    def _run(
        self, command: str, hosts: str, more: tuple[str, ...], text: str | None, status: int | None, **how: object
    ) -> Done:
        words = [text or self.number, '-F', str(self.site.ssh_config), '-H', hosts, *more]
        return self.site.run(command, *words, status=status, **how)

    def end(self) -> None:
        for host in self.bed.hosts:
            host.run(['pkill', '-KILL', '-f', self.number], check=False)


@pytest.fixture
def hunt(bed: Testbed, tmp_path: Path) -> Iterator[Hunt]:
    with Site(bed, tmp_path) as site:
        hunt = Hunt(site, bed)
        yield hunt
        hunt.end()


class TestFind:
    def test_what_there_is_on_each_host(self, hunt: Hunt) -> None:
        first, second, third = hunt.begin('h1'), hunt.begin('h1'), hunt.begin('h2')
        found = hunt.find('h[1-3]', '--json').objects
        pids = {each['host']: [process['pid'] for process in each['processes']] for each in found}
        assert pids == {'h1': sorted([first, second]), 'h2': [third], 'h3': []}
        process = found[0]['processes'][0]
        assert process['command'] == f'sleep {hunt.number}'
        assert process['memory'] > 0
        assert 0 <= process['age'] < 600
        text = hunt.find('h[1-3]').stdout
        assert f'sleep {hunt.number}' in text
        assert text.endswith('3 processes on 2 hosts\n')

    def test_nothing(self, hunt: Hunt) -> None:
        assert hunt.find('h1', status=1).stdout == 'no process\n'

    def test_text_is_taken_to_the_letter(self, hunt: Hunt) -> None:
        hunt.begin('h1', 'sh', '-c', f'sleep {hunt.number}; true')
        hunt.find('h1', text=f'sleep .{hunt.number[1:]}', status=1)
        [found] = hunt.find('h1', '--json', text=f'-c sleep {hunt.number}; true').objects
        assert len(found['processes']) == 1
        for nothing in ('', ' '):
            done = hunt.site.run('find', nothing, '-F', str(hunt.site.ssh_config), '-H', 'h1', status=2)
            assert 'every process would be meant' in done.stderr

    def test_a_host_that_cannot_be_reached(self, hunt: Hunt) -> None:
        hunt.begin('h1')
        done = hunt.find('h1,nosuch.invalid', status=3)
        assert 'nosuch.invalid' in done.stderr
        assert '1 process on 1 host' in done.stdout

    def test_two_names_of_one_machine(self, hunt: Hunt) -> None:
        hunt.begin('h1')
        assert '1 process on 1 host' in hunt.find(f'h1,root@{hunt.bed["h1"].address}', '--accept-new-host-keys').stdout

    def test_what_is_hostile_is_shown_harmless(self, hunt: Hunt) -> None:
        hunt.begin('h1', 'sh', '-c', f'sleep {hunt.number} # \x1b[31m\n')
        shown = hunt.find('h1').stdout
        assert '\x1b' not in shown
        assert len(shown.splitlines()) == 4  # a heading, the shell, what it waits for, and their number


class TestOurs:
    def test_programs_of_components_are_found_and_what_is_behind_them_is_not(self, hunt: Hunt) -> None:
        hunt.site.write(component('x', 'h1', args=[hunt.number]))
        hunt.site.deploy()
        [found] = hunt.find('h1', '--json').objects
        assert [process['command'] for process in found['processes']] == [f'/bin/sleep {hunt.number}']
        everything = hunt.find('h1', '--json', text='remote_runner', status=1).objects
        assert everything[0]['processes'] == []
        assert everything[0]['left_out'] >= 3  # guard, keeper, agent
        for ours in ('launcher.py', 'import sys;print(', 'SCREEN', 'sshd'):
            [found] = hunt.find('h1', '--json', text=ours, status=1).objects
            assert found['processes'] == []
        assert 'left out' in hunt.find('h1', text='sshd', status=1).stdout

    def test_a_screen_of_somebody_is_found(self, hunt: Hunt) -> None:
        name = f's{hunt.number}'
        hunt.bed['h1'].run(['screen', '-dmS', name, 'sleep', '1000'])
        try:
            [found] = hunt.find('h1', '--json', text=name).objects
            assert len(found['processes']) == 1
        finally:
            hunt.bed['h1'].run(['screen', '-S', name, '-X', 'quit'])

    def test_the_command_itself_on_this_machine(self, hunt: Hunt) -> None:
        [found] = hunt.find('localhost', '--json', status=1).objects
        assert found['processes'] == []
        assert found['left_out'] >= 1

    def test_other_users(self, hunt: Hunt) -> None:
        host = hunt.bed['h1']
        if not host.path('/home/hunter').exists():
            host.add_user('hunter')
        ours, theirs = hunt.begin('h1'), hunt.begin('h1', user='hunter')
        [found] = hunt.find('hunter@h1', '--json').objects
        assert [process['pid'] for process in found['processes']] == [theirs]
        [found] = hunt.find('h1', '--json').objects
        assert [process['pid'] for process in found['processes']] == [ours]
        hunt.killall('h1', '--yes')
        assert not hunt.lives('h1', ours)
        assert hunt.lives('h1', theirs)


class TestKillall:
    def test_all_of_them_end(self, hunt: Hunt) -> None:
        first, second, third = hunt.begin('h1'), hunt.begin('h1'), hunt.begin('h2')
        done = hunt.killall('h[1-3]', '--yes')
        assert 'h1: 2 ended\nh2: 1 ended\n' in done.stdout
        assert not any(hunt.lives(*each) for each in (('h1', first), ('h1', second), ('h2', third)))
        assert hunt.killall('h[1-3]', '--yes', status=1).stdout == 'no process\n'

    def test_what_does_not_end_is_named(self, hunt: Hunt) -> None:
        pid = hunt.begin('h1', 'sh', '-c', STUBBORN.format(hunt.number))
        wait_until(lambda: len(hunt.find('h1', '--json').objects[0]['processes']) == 2, 'what it starts')
        done = hunt.killall('h1', '--yes', '--timeout', '0.5', status=1)
        assert f'2 still running ({pid} ' in done.stdout  # what it starts ignores TERM, too
        assert hunt.lives('h1', pid)
        [found] = hunt.killall('h1', '--yes', '--json', '--signal', 'SIGKILL', status=None).objects
        assert {process['outcome'] for process in found['processes']} <= {'ended', 'gone'}
        wait_until(lambda: not hunt.lives('h1', pid), 'the end')

    def test_a_signal_that_ends_nothing(self, hunt: Hunt) -> None:
        pid = hunt.begin('h1')
        [found] = hunt.killall('h1', '--yes', '--json', '--signal', 'cont').objects
        assert [process['outcome'] for process in found['processes']] == ['sent']
        assert hunt.lives('h1', pid)
        assert "'NOSUCH' is no signal" in hunt.killall('h1', '--yes', '--signal', 'NOSUCH', status=2).stderr

    def test_it_asks_once_for_all(self, hunt: Hunt) -> None:
        first, second = hunt.begin('h1'), hunt.begin('h2')
        for answer, status in (('no', 1), ('yes', 0)):
            master, slave = os.openpty()
            try:
                os.write(master, f'{answer}\n'.encode())
                done = hunt.killall('h[1-2]', stdin=slave, status=status)
            finally:
                os.close(master)
                os.close(slave)
            assert 'Send TERM to 2 processes on 2 hosts? [yes/no]' in done.stderr
            assert hunt.lives('h1', first) == hunt.lives('h2', second) == (answer == 'no')

    def test_nobody_to_ask(self, hunt: Hunt) -> None:
        pid = hunt.begin('h1')
        assert 'there is nobody to confirm' in hunt.killall('h1', status=2).stderr
        assert hunt.lives('h1', pid)

    def test_what_was_begun_since_is_not_touched(self, hunt: Hunt) -> None:
        first = hunt.begin('h1')
        master, slave = os.openpty()
        words = ['killall', hunt.number, '-F', str(hunt.site.ssh_config), '-H', 'h1']
        try:
            with hunt.site.start(*words, stdin=slave) as running:
                wait_until(lambda: b'[yes/no]' in running.err, 'the question')
                second = hunt.begin('h1')
                os.write(master, b'yes\n')
                running.end()
        finally:
            os.close(master)
            os.close(slave)
        assert not hunt.lives('h1', first)
        assert hunt.lives('h1', second)
