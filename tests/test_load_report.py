"""DS2: what a host tells of its load, and where it has that from."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import ClassVar

import pytest

from remote_runner.agent.limits import Limits
from remote_runner.agent.load import Reporter, are_alike, load, load_average, memory_figures
from remote_runner.agent.logins import session_user, utmp_users
from remote_runner.agent.request import Failure
from remote_runner.errors import RequestFailed
from remote_runner.hosts.address import parse_address
from remote_runner.hosts.call import Call
from remote_runner.hosts.host import Host
from remote_runner.hosts.pool import connect
from remote_runner.hosts.ssh import Connector, SshOptions
from remote_runner.placement.choose import Report
from tests.burdens import GB, Burden
from tests.deploying import Deployment
from tests.testbed import Testbed
from tests.testbed.process import PATIENCE, wait_until


@pytest.fixture
def h1(own: Testbed, burdens: dict[str, Burden]) -> Iterator[Host]:
    with Connector(SshOptions(config_file=str(own.ssh_config))) as connector, connect(
        parse_address('h1'), connector
    ) as host:
        yield host
    burdens['h1'].load(0.0)
    burdens['h1'].memory(8 * GB)


_INTERVAL = 0.05


def look(host: Host) -> Report:
    return Report(**host.request('load', interval=None))


def reporting(host: Host, field: str) -> tuple[Call, SimpleQueue[float]]:
    """One field of what it reports at short intervals."""
    told: SimpleQueue[float] = SimpleQueue()
    return host.call('load', interval=_INTERVAL, on_part=lambda part, body: told.put(part[field])), told


def becomes(told: SimpleQueue[float], value: float) -> None:
    seen = [told.get(timeout=PATIENCE)]
    while seen[-1] != value:
        assert len(seen) < PATIENCE / _INTERVAL, seen
        seen.append(told.get(timeout=PATIENCE))


# What the kernel says


def test_once(h1: Host, burdens: dict[str, Burden]) -> None:
    burdens['h1'].load(3.25)
    burdens['h1'].memory(3 * GB, 16 * GB, swap=2 * GB, free_swap=GB)
    kib = {name: number // 1024 * 1024 for name, number in {'3': 3 * GB, '16': 16 * GB, '2': 2 * GB, '1': GB}.items()}
    cores = len(os.sched_getaffinity(0))
    platform = f'linux-{os.uname().machine}'
    assert look(h1) == Report(3.25, cores, kib['16'], kib['3'], kib['2'], kib['1'], 0, 0, platform)


def test_again_and_again_until_it_is_cancelled(h1: Host, burdens: dict[str, Burden]) -> None:
    call, told = reporting(h1, 'load')
    becomes(told, 0.0)
    burdens['h1'].load(7.5)
    becomes(told, 7.5)
    call.cancel()
    with pytest.raises(RequestFailed, match='cancelled'):
        call.result(PATIENCE)
    assert look(h1).load == 7.5, 'the agent lives on'


@pytest.mark.parametrize(
    ('now', 'alike'),
    [
        ({}, True),
        ({'load': 1.2, 'free_memory': 4 * GB - GB // 25, 'free_swap': GB // 25}, True),
        ({'load': 1.3}, False),
        ({'load': 0.7}, False),
        ({'free_memory': 4 * GB - GB // 5}, False),
        ({'free_swap': GB // 5}, False),
        ({'tasks': 3}, False),
        ({'users': 1}, False),
        ({'cores': 3}, False),
        ({'limited': 'cores'}, False),
    ],
)
def test_what_is_worth_telling(now: dict[str, object], alike: bool) -> None:
    told = {'load': 1.0, 'cores': 4, 'memory': 8 * GB, 'free_memory': 4 * GB, 'swap': GB, 'free_swap': 0}
    told |= {'users': 0, 'tasks': 2, 'platform': 'linux-x86_64', 'limited': ''}
    assert are_alike(told, told | now) is alike
    assert not are_alike({}, told)


def test_a_host_at_rest_says_half_as_much(h1: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    report = h1.request('load', interval=None)
    loads = iter([0.0, 0.0, 0.0, 0.0, 5.0, 5.0, 5.0, 9.0, 9.0])

    class Asked:
        header: ClassVar = {'interval': 0.0}
        told: ClassVar[list[float]] = []

        def when_gone(self, wake: object) -> None:
            pass

        def check(self) -> None:
            pass

        def send(self, part: dict[str, float], body: bytes) -> None:
            self.told.append(part['load'])

    monkeypatch.setattr(Reporter, 'report', lambda reporter: {**report, 'load': next(loads)})
    with pytest.raises(StopIteration):
        load(Asked())  # type: ignore[arg-type]
    assert Asked.told == [0.0, 0.0, 5.0, 5.0, 9.0]


def test_figures_that_cannot_be_understood(h1: Host, burdens: dict[str, Burden]) -> None:
    call = h1.call('load', interval=_INTERVAL, on_part=lambda part, body: None)
    burdens['h1'].say('many')
    with pytest.raises(RequestFailed, match=r"^h1: /proc/loadavg cannot be understood: 'many\\n") as raised:
        call.result(PATIENCE)
    assert raised.value.kind == 'figures'


@pytest.mark.parametrize('text', ['', '\n', 'x 1 2', '-1.0 0 0', 'nan 0 0', 'inf 0 0', '\0'])
def test_damaged_load_averages(text: str) -> None:
    with pytest.raises(Failure, match='/proc/loadavg cannot be understood'):
        load_average(text)


@pytest.mark.parametrize('text', ['', 'MemTotal:', 'MemTotal: 1 kB\nMemFree: 1 kB\n', 'MemTotal: x kB\nMemFree: 1'])
def test_damaged_memory(text: str) -> None:
    with pytest.raises(Failure, match='/proc/meminfo cannot be understood'):
        memory_figures(text)


def test_memory_of_old_kernels() -> None:
    figures = {'MemTotal': 100, 'MemFree': 10, 'Buffers': 20, 'Cached': 30, 'SwapTotal': 5, 'SwapFree': 4}
    text = ''.join(f'{name}: {number} kB\n' for name, number in figures.items()) + 'Odd line\n'
    told = {'memory': 100, 'free_memory': 60, 'swap': 5, 'free_swap': 4}
    assert memory_figures(text) == {name: number * 1024 for name, number in told.items()}


def test_a_machine_under_load(bed: Testbed) -> None:
    """The machine's own load average, while something keeps a core busy."""
    with (
        Connector(SshOptions(config_file=str(bed.ssh_config))) as connector,
        connect(parse_address('h2'), connector) as host,
        subprocess.Popen(['sh', '-c', 'while :; do :; done']) as busy,
    ):
        try:
            wait_until(lambda: os.getloadavg()[0] > 0.05, 'the load to show', PATIENCE)
            before, told, after = os.getloadavg()[0], look(host), os.getloadavg()[0]
        finally:
            busy.kill()
    assert 0 < min(before, after) - 0.01 <= told.load <= max(before, after) + 0.01
    assert 0 < told.free_memory < told.memory


# What control groups allow


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace('__', '.')).write_text(f'{value}\n')


def limits(folder: Path, own: str) -> Limits:
    (folder / 'own').write_text(own)
    return Limits(str(folder), str(folder / 'own'))


def test_version_2_and_the_groups_above(tmp_path: Path) -> None:
    write(tmp_path, cgroup__controllers='cpu memory')
    stat = 'anon 1000\ninactive_file 300\nactive_file 7'
    write(tmp_path / 'a', cpu__max='150000 100000', memory__max=4000, memory__current=1000, memory__stat=stat)
    write(tmp_path / 'a/b', cpu__max='max 100000', memory__max='max', memory__current=900)
    found = limits(tmp_path, '0::/a/b\n')
    assert (found.cores(), found.memory()) == (1.5, (4000, 3300))
    write(tmp_path / 'a/b', memory__max=2000, memory__stat='inactive_file 100')
    assert found.memory() == (2000, 1200)


def test_version_1(tmp_path: Path) -> None:
    group = tmp_path / 'memory/docker/x'
    write(group, memory__limit_in_bytes=5000, memory__usage_in_bytes=2000, memory__stat='total_inactive_file 500')
    write(tmp_path / 'memory', memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=10**9)
    write(tmp_path / 'cpu', cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    found = limits(tmp_path, '4:memory:/docker/x\n3:cpu,cpuacct:/elsewhere\n0::/\n')
    assert (found.cores(), found.memory()) == (None, (5000, 3500))
    write(tmp_path / 'cpu', cpu__cfs_quota_us=50000)
    assert found.cores() == 0.5


@pytest.mark.parametrize('own', ['', 'rubbish', '0::/gone', '1:name=systemd:/x\n'])
def test_no_limits(tmp_path: Path, own: str) -> None:
    found = limits(tmp_path, own)
    assert (found.cores(), found.memory()) == (None, None)


def test_a_host_in_a_container_says_so(own: Testbed, tmp_path: Path) -> None:
    """Its agent finds the limits of its own group where they are mounted."""
    write(tmp_path, cgroup__controllers='cpu memory', cpu__max='100000 100000')
    write(tmp_path, memory__max=2 * GB, memory__current=GB // 2)
    own['h2'].share('/sys/fs/cgroup', tmp_path)
    with Connector(SshOptions(config_file=str(own.ssh_config))) as connector, connect(
        parse_address('h2'), connector
    ) as host:
        found = look(host)
        assert (found.cores, found.memory, found.free_memory) == (1, 2 * GB, 2 * GB - GB // 2)
        assert found.limited == ('cores memory' if len(os.sched_getaffinity(0)) > 1 else 'memory')


# Who is logged in


def utmp(kind: int, pid: int, user: str, size: int = 384) -> bytes:
    return struct.pack('=hhi32s4s32s', kind, 0, pid, b'pts/0', b'0', user.encode()).ljust(size, b'\0')


@pytest.mark.parametrize('size', [384, 400])
def test_utmp(size: int) -> None:
    records = [utmp(2, 0, 'reboot', size), utmp(7, 17, 'anne', size), utmp(8, 18, 'bert', size), utmp(7, 19, '', size)]
    assert list(utmp_users(b''.join(records))) == [('anne', 17)]
    assert list(utmp_users(b'')) == []
    assert list(utmp_users(b'rubbish' * 100)) == []


@pytest.mark.parametrize(
    ('lines', 'users'),
    [
        ('UID=7\nUSER=anne\nSTATE=active\nCLASS=user\nTTY=pts/3\n', ['anne']),
        ('UID=7\nUSER=anne\nSTATE=online\nCLASS=user\nSEAT=seat0\nDISPLAY=:0\n', ['anne']),
        ('UID=7\nUSER=anne\nSTATE=active\nCLASS=user\nTYPE=tty\n', []),
        ('UID=7\nUSER=anne\nSTATE=closing\nCLASS=user\nTTY=pts/3\n', []),
        ('UID=7\nUSER=gdm\nSTATE=active\nCLASS=greeter\nSEAT=seat0\n', []),
        ('', []),
    ],
)
def test_sessions_of_logind(tmp_path: Path, lines: str, users: list[str]) -> None:
    (tmp_path / '4').write_text(lines)
    assert [name for name, _ in session_user(str(tmp_path / '4'))] == users


def test_users_come_and_go(own: Testbed, h1: Host) -> None:
    """By both ways: each user counts once."""
    run = own['h1'].path('/run')
    init = 1  # somebody who lives
    (run / 'systemd/sessions').mkdir(parents=True, exist_ok=True)
    call, told = reporting(h1, 'users')
    becomes(told, 0)
    (run / 'utmp').write_bytes(utmp(7, init, 'anne') + utmp(7, init, 'anne') + utmp(7, 99999, 'dead'))
    becomes(told, 1)
    (run / 'systemd/sessions/1').write_text('USER=anne\nTTY=pts/0\n')
    (run / 'systemd/sessions/2').write_text('USER=bert\nTTY=pts/1\n')
    becomes(told, 2)
    (run / 'utmp').unlink()
    (run / 'systemd/sessions/1').unlink()
    becomes(told, 1)
    (run / 'systemd/sessions/2').unlink()
    becomes(told, 0)
    call.cancel()


# What of ours runs there


def test_tasks(deployment: Deployment, agent: Host) -> None:
    call, told = reporting(agent, 'tasks')
    becomes(told, 0)
    deployment.sleep('one')
    deployment.sleep('two')
    assert deployment.run().status == 0
    becomes(told, 2)
    command = agent.call('exec', command='sleep 1000')
    becomes(told, 3)
    command.cancel()
    becomes(told, 2)
    runs = [agent.call('run', argv=['sleep', '1001'], cwd='/', umask=0, env={}, terminal=None) for _ in range(2)]
    becomes(told, 4)
    for run in runs:
        run.cancel()
    becomes(told, 2)
    call.cancel()
