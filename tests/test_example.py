"""The ta3 muddler (RR8), and the example with its harness (RR16)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from remote_runner.config.component import Component
from remote_runner.config.loader import load
from remote_runner.config.settings import Settings
from remote_runner.deploy.plan import Plan, make_plan
from remote_runner.errors import UserCodeError

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / 'example'
HARNESS = str(EXAMPLE / 'harness')
TA3 = ROOT / 'muddlers' / 'ta3_muddler.py'

PARSER = (
    'import argparse\n'
    'def parse_args(extra_args, ssh_user):\n'
    '    parser = argparse.ArgumentParser()\n'
    "    parser.add_argument('--harness')\n"
    "    parser.add_argument('--harness-args')\n"
    '    return parser.parse_args(extra_args)\n'
)


class TestTa3Muddler:
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / 'cfg').mkdir()
        (tmp_path / 'here').mkdir()
        (tmp_path / 'here' / 'my harness').touch(mode=0o755)
        (tmp_path / 'parser.py').write_text(PARSER)
        monkeypatch.chdir(tmp_path / 'here')

    def muddle(self, tmp_path: Path, extra_args: str | None = "--harness 'my harness'", **attributes: Any) -> Component:
        """The only component of a config, after the muddler."""
        values = {'name': 'publisher', 'host': 'h', 'executable': 'bin/x', **attributes}
        (tmp_path / 'cfg' / 'config.py').write_text(f'config.add_component(Component(**{values!r}))\n')
        parser = str(tmp_path / 'parser.py') if extra_args is not None else None
        settings = Settings(
            config_file='../cfg/config.py', muddlers=(str(TA3),), arg_parser=parser, extra_args=extra_args
        )
        [component] = load(settings).config.all_components()
        return component

    def test_harness_becomes_the_executable(self, tmp_path: Path) -> None:
        component = self.muddle(tmp_path, name='publisher-1', args=['-v', 5, 'a b'], files={'x': 'bin/x'}, wait=True)
        assert component.executable == 'my harness'
        assert component.args == ['-p', 'bin/x', '-a', '-v 5 a b']
        assert component.files == {'x': 'bin/x', f'{tmp_path}/here/my harness': 'my harness'}
        assert (component.name, component.host, component.wait) == ('publisher-1', 'h', True)

    def test_its_own_arguments_come_last(self, tmp_path: Path) -> None:
        component = self.muddle(tmp_path, "--harness 'my harness' --harness-args '--log \"a b\"'", args=['x'])
        assert component.args == ['-p', 'bin/x', '-a', 'x', '--log', 'a b']

    @pytest.mark.parametrize('name', ['subscriber', 'my-publisher', 'Publisher'])
    def test_other_names_are_left_alone(self, tmp_path: Path, name: str) -> None:
        component = self.muddle(tmp_path, None, name=name, args=['x'])
        assert (component.executable, component.args, component.files) == ('bin/x', ['x'], {})

    def test_on_this_machine(self, tmp_path: Path) -> None:
        component = self.muddle(tmp_path, host='localhost')
        assert component.executable == f'{tmp_path}/here/my harness'
        assert component.args == ['-p', f'{tmp_path}/cfg/bin/x', '-a', '']
        assert component.files == {}

    def test_that_is_on_the_hosts_already(self, tmp_path: Path) -> None:
        component = self.muddle(tmp_path, '--harness /opt/no/such/harness')
        assert (component.executable, component.files) == ('/opt/no/such/harness', {})

    def test_beside_the_config(self, tmp_path: Path) -> None:
        (tmp_path / 'cfg' / 'harness').touch()
        for extra_args in (None, ''):
            component = self.muddle(tmp_path, extra_args)
            assert (component.executable, component.files) == ('harness', {f'{tmp_path}/cfg/harness': 'harness'})

    def test_none(self, tmp_path: Path) -> None:
        with pytest.raises(UserCodeError, match='there is no test harness: name one with --extra-args'):
            self.muddle(tmp_path, None)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(UserCodeError, match=f'there is no test harness nope in {tmp_path}/here'):
            self.muddle(tmp_path, '--harness nope')

    def test_argument_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(UserCodeError, match=r'publisher@h: args\[0\] is None'):
            self.muddle(tmp_path, args=[None])

    def test_incomplete_component_is_left_to_the_check(self, tmp_path: Path) -> None:
        assert self.muddle(tmp_path, executable=None).args == []


def plan_of(config: str, extra_args: str | None = None, muddlers: tuple[str, ...] = ()) -> Plan:
    settings = Settings(
        config_file=str(EXAMPLE / config),
        muddlers=muddlers,
        arg_parser=None if extra_args is None else str(EXAMPLE / 'arg_parser.py'),
        extra_args=extra_args,
    )
    return make_plan(load(settings).config, settings.config_dir, settings.screen, settings.config_file)


class TestExample:
    def test_defaults(self) -> None:
        plan = plan_of('config.py')
        assert plan.hosts() == ('h1', 'h2', 'h3')
        assert plan.indexes() == (0, 1)
        assert [c.name for c in plan.components_of(host='h2')] == ['publisher', 'subscriber-1', 'subscriber-2']

    def test_with_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(ROOT)
        extra_args = '--hosts root@n[1-2]:22 --user-count 3 --harness example/harness'
        plan = plan_of('config.py', extra_args, (str(TA3),))
        assert plan.hosts() == ('root@n1:22', 'root@n2:22')
        assert len(plan.components) == 8
        publisher = plan.components[0]
        assert (publisher.executable, publisher.args[:3]) == ('harness', ('-p', 'publisher', '-a'))
        assert {file.remote: file.local for file in publisher.files} == {
            'publisher': str(EXAMPLE / 'bin' / 'publisher'),
            'harness': HARNESS,
        }

    def test_on_this_machine(self) -> None:
        plan = plan_of('config.py', '--hosts localhost', (str(TA3),))
        assert all(component.is_local for component in plan.components)
        assert plan_of('local.py').hosts() == ('localhost',)

    def test_publisher_and_subscriber_understand_each_other(self) -> None:
        with socket.create_server(('127.0.0.1', 0)) as free:
            port = str(free.getsockname()[1])
        subscriber = start('bin/subscriber', '--port', port, '--name', 'me')
        publisher = start('bin/publisher', '--port', port, '--messages', '0', '--interval', '0.05')
        assert subscriber.stdout is not None
        heard = [subscriber.stdout.readline() for _ in range(3)]
        publisher.terminate()
        rest, said = subscriber.communicate(timeout=30)[0], publisher.communicate(timeout=30)[0]
        first = int(heard[0].split()[-1])
        assert heard == [f'me: message {first + number}\n' for number in range(3)]
        assert rest.splitlines()[-1].endswith(' messages')
        assert subscriber.returncode == 0
        assert f'message {first} to 1 subscribers\n' in said

    def test_publisher_ends(self) -> None:
        publisher = start('bin/publisher', '--port', '0', '--messages', '2', '--interval', '0')
        said = publisher.communicate(timeout=30)[0]
        assert publisher.returncode == 0
        assert said.endswith('message 2 to 0 subscribers\ndone\n')

    def test_subscriber_without_publisher(self) -> None:
        with socket.create_server(('127.0.0.1', 0)) as free:
            port = str(free.getsockname()[1])
        subscriber = start('bin/subscriber', '--port', port, '--patience', '0')
        assert subscriber.communicate(timeout=30)[0].startswith(f'no publisher on port {port}: ')
        assert subscriber.returncode == 1

    def test_clock(self) -> None:
        assert start('bin/clock', '--ticks', '1').communicate(timeout=30)[0].endswith('tick 1 of 1\n')
        assert start('bin/clock', '--ticks', '1', '--down').communicate(timeout=30)[0] == '0 to go\n'
        wrong = start('bin/clock', '--tocks')
        assert (wrong.communicate(timeout=30)[0], wrong.returncode) == ('clock: what is --tocks?\n', 2)

    @pytest.mark.parametrize('path', ['harness', 'bin/publisher', 'bin/subscriber'])
    def test_runs_on_python_3_6(self, path: str) -> None:
        vermin = [sys.executable, '-c', 'import vermin; vermin.main()', '--no-tips', '-t=3.6-', '--violations']
        run = subprocess.run([*vermin, str(EXAMPLE / path)], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr


def start(program: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(EXAMPLE / program), *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


class TestHarness:
    def run(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run([HARNESS, *args], capture_output=True, text=True, timeout=30, check=False, **options)

    def test_prefixes_lines_and_passes_the_status_on(self, tmp_path: Path) -> None:
        program = tmp_path / 'program'
        program.write_text('#!/bin/sh\necho "$# $1 $2"\necho error >&2\nexit 3\n')
        program.chmod(0o755)
        done = self.run('-p', 'program', '-a', '--one  two', '--log', 'log', cwd=tmp_path)
        lines = done.stdout.splitlines()
        assert [line.split('] ')[1] for line in lines[1:]] == ['2 --one two', 'error', 'ended with status 3']
        assert done.returncode == 3
        assert (tmp_path / 'log').read_text() == done.stdout

    def test_program_on_path_with_one_option(self) -> None:
        done = self.run('-p', 'ls', '-a', '--version')
        assert done.returncode == 0
        assert 'ls (' in done.stdout

    @pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_passes_signals_on(self, number: signal.Signals, tmp_path: Path) -> None:
        script = f"trap 'echo got it; exit 7' {number.value}; echo ready; while :; do sleep 0.05; done"
        (tmp_path / 'trap').write_text(script)
        harness = subprocess.Popen([HARNESS, '-p', 'sh', '-a', f'{tmp_path}/trap'], stdout=subprocess.PIPE, text=True)
        assert harness.stdout is not None
        while 'ready' not in harness.stdout.readline():
            assert harness.poll() is None
        harness.send_signal(number)
        assert 'got it' in harness.communicate(timeout=30)[0]
        assert harness.returncode == 7

    def test_ends_by_the_signal_that_ended_the_program(self) -> None:
        harness = subprocess.Popen([HARNESS, '-p', 'sleep', '-a', '60'], stdout=subprocess.PIPE, text=True)
        assert harness.stdout is not None
        pid = int(harness.stdout.readline().split()[-1])
        os.kill(pid, signal.SIGKILL)
        assert 'ended by signal 9' in harness.communicate(timeout=30)[0]
        assert harness.returncode == -signal.SIGKILL

    def test_program_that_cannot_start(self) -> None:
        done = self.run('-p', '/no/such/program')
        assert (done.returncode, done.stderr) == (
            1,
            'harness: cannot start /no/such/program: No such file or directory\n',
        )

    @pytest.mark.parametrize('args', [[], ['-a', 'x'], ['-z'], ['-p']])
    def test_usage(self, args: list[str]) -> None:
        done = self.run(*args)
        assert done.returncode == 1
        assert "harness -p PROGRAM -a 'ARGS'" in done.stderr
