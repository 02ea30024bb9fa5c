"""Started by nohup(1), by cron(8) or in the background: what that does to signals is nothing to what runs on hosts."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands import component
from tests.standing import Standing, sh
from tests.testbed import Testbed
from tests.testbed.process import wait_until

_OUR_OWN = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
#: What Python ignores for itself.
_OF_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}
_TRAPS = """\
trap 'echo >{path}.hup' HUP
trap 'echo >{path}.int' INT
echo >{path}
while :; do sleep 0.02; done
"""


def nohup() -> None:
    """As nohup(1) in the background of a shell without job control."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


def adverse() -> None:
    """All is ignored, and blocked as far as the command itself goes on."""
    for number in _OUR_OWN:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, _OUR_OWN)


@pytest.fixture
def site(bed: Testbed, tmp_path: Path) -> Iterator[Standing]:
    with Standing(bed, tmp_path) as site:
        yield site


def signals(proc: Path, pid: int, field: str) -> set[int]:
    """The signals in a field of the status of a process, without the two that libc keeps for itself (signal(7))."""
    [mask] = re.findall(rf'^{field}:\s*(\w+)$', (proc / str(pid) / 'status').read_text(), re.MULTILINE)
    return {number for number in range(1, signal.NSIG) if int(mask, 16) >> (number - 1) & 1} - {32, 33}


def parents(proc: Path, pid: int) -> list[int]:
    """The keeper, the launcher in the window, and the screen server above a program."""
    found = []
    for _ in range(3):
        pid = int((proc / str(pid) / 'stat').read_text().rpartition(')')[2].split()[1])
        found.append(pid)
    return found


class TestWhatRunsOnHosts:
    @pytest.fixture(params=['localhost', 'h1'])
    def host(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def proc(self, site: Standing, host: str) -> Path:
        return Path('/proc') if host == 'localhost' else site.bed[host].root / 'proc'

    @pytest.mark.parametrize('start', [nohup, adverse])
    def test_nothing_is_ignored_or_blocked(self, site: Standing, host: str, start: Callable[[], None]) -> None:
        site.write(component('x', host))
        proc = self.proc(site, host)
        # A session that began as it should shows what screen ignores for itself.
        [usual] = site.deploy().events('component_started')
        usually = signals(proc, parents(proc, usual['pid'])[-1], 'SigIgn')
        [event] = site.deploy(preexec_fn=start).events('component_started')
        keeper, launcher, screen = parents(proc, event['pid'])
        assert 'screen' in (proc / str(screen) / 'comm').read_text()
        for pid in (event['pid'], keeper, launcher, screen):
            assert signals(proc, pid, 'SigBlk') == set()
        assert signals(proc, event['pid'], 'SigIgn') == set()
        assert signals(proc, keeper, 'SigIgn') == _OF_PYTHON
        assert signals(proc, launcher, 'SigIgn') == _OF_PYTHON
        assert signals(proc, screen, 'SigIgn') == usually
        site.later('stop')

    @pytest.mark.parametrize('start', [nohup, adverse])
    def test_commands(self, site: Standing, host: str, start: Callable[[], None]) -> None:
        command = 'grep -E "^Sig(Blk|Ign):" /proc/self/status; exit 5'
        done = site.exec(host, '--json', command, preexec_fn=start, status=5)
        assert re.findall(r'Sig...:\\t(\w+)', done.stdout) == ['0' * 16] * 2

    def test_a_shell_can_trap_what_was_ignored(self, site: Standing, host: str) -> None:
        path = f'{site.folder}/x' if host == 'localhost' else '/tmp/x'
        here = Path(path) if host == 'localhost' else site.bed[host].path(path)
        site.write(sh('traps', host, _TRAPS.format(path=path)))
        site.deploy(preexec_fn=nohup)
        wait_until(here.exists, 'its traps')
        site.later('signal', 'HUP', 'traps')
        wait_until(here.with_name('x.hup').exists, 'HUP')
        site.later('signal', 'INT', 'traps')
        wait_until(here.with_name('x.int').exists, 'INT')
        site.later('stop')


class TestTheCommand:
    def test_goes_on_ignoring_what_it_was_told_to(self, site: Standing) -> None:
        script = 'while [ ! -e /tmp/end ]; do sleep 0.02; done'
        site.write(sh('x', 'h1', script, wait=True))
        with site.begin(preexec_fn=nohup) as running:
            wait_until(lambda: b'"component_started"' in running.out, 'its start')
            own = Path('/proc')
            assert {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT} <= signals(own, running.pid, 'SigIgn')
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
                running.signal(number)
            site.bed['h1'].path('/tmp/end').touch()
            done = running.end()
        assert done.status == 0
        assert done.event('component_exited')['status'] == 0

    def test_is_still_ended_by_term(self, site: Standing) -> None:
        site.write(component('x', 'h1', wait=True))
        with site.begin(preexec_fn=nohup) as running:
            wait_until(lambda: b'"component_started"' in running.out, 'its start')
            running.signal(signal.SIGTERM)
            assert running.end().status == 130

    def test_learns_how_its_children_ended(self, site: Standing) -> None:
        bad = site.file('bad_ssh_config', 'NoSuchKeyword yes\n')
        done = site.run('exec', '-F', bad, '-H', 'h1', 'true', preexec_fn=adverse, status=None)
        assert 'ssh cannot read its configuration' in done.stderr
        assert done.status == site.run('exec', '-F', bad, '-H', 'h1', 'true', status=None).status != 0
