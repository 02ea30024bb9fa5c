"""After the start: `status`, `stop` and `logs -f` of 200 components on 40 hosts, and what a launcher costs at rest."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import peers
from benchmarks.measure import Contender, Series, run, take_turns
from benchmarks.stage import OURS, Stage

#: Components of each host.
OF_HOST = 5
#: What they run: nothing else on a host has this word as an argument.
SECONDS = '100123'
#: Lines whose way through `logs -f` is measured, and seconds from one to the next.
LINES, BEAT = 40, 0.25
#: Seconds for which a launcher at rest is watched.
REST = 10.0
_SESSION = 'bench-life'

_CONFIG = """\
for host in {hosts}:
    for number in range({of_host}):
        config.add_component(
            Component(name=f'sleeper{{number}}', host=host, executable='/bin/sleep', args=[{seconds}], start_grace=0)
        )
"""
_TICKER = """\
config.add_component(
    Component(name='ticker', host='h1', executable='/usr/bin/python3', args=['-c', {program!r}])
)
"""
_TICKS = """\
import time
while True:
    time.sleep({beat})
    print('tick', time.time(), flush=True)
"""


def measure_status(stage: Stage, runs: int, wanted: Callable[[str], bool], say: Callable[[str], None]) -> list[Series]:
    """How all components are, new connections each time."""
    deployer = _deployer(stage)
    _must(deployer)
    look = f'ps -o pid,stat,etimes,rss,args -C sleep | grep -w {SECONDS}'
    contenders = [
        stage.contender('ours', OURS, 'status', '--screen', _SESSION, more=_home_of(deployer)),
        *_peers(stage, look),
    ]
    return take_turns(
        [contender for contender in contenders if wanted(contender.name)],
        runs,
        before=lambda contender: None,
        check=lambda contender: _not_shown(stage, contender),
        after=lambda contender: None,
        say=say,
    )


def measure_stop(stage: Stage, runs: int, wanted: Callable[[str], bool], say: Callable[[str], None]) -> list[Series]:
    """The end of all components; before each run they are deployed."""
    deployer = _deployer(stage)
    gone = f'timeout 10 sh -c {shlex.quote(f"while pgrep -f ^/bin/sleep.{SECONDS} >/dev/null; do sleep 0.02; done")}'
    contenders = [
        stage.contender('ours', OURS, 'stop', '--screen', _SESSION, more=_home_of(deployer)),
        *_peers(stage, f'screen -S {_SESSION} -X quit >/dev/null; {gone}'),
    ]
    return take_turns(
        [contender for contender in contenders if wanted(contender.name)],
        runs,
        before=lambda contender: _must(deployer),
        check=lambda contender: _left(stage),
        after=lambda contender: None,
        say=say,
    )


def _home_of(deployer: Contender) -> dict[str, str]:
    return {'HOME': deployer.environment['HOME']}


def _peers(stage: Stage, command: str) -> list[Contender]:
    """The same for the peers, as their users would say it."""
    ssh, hosts = f'-F {stage.ssh_config}', ','.join(stage.hosts)
    data = ['--data', f'ssh_config_file={stage.ssh_config}']
    clush, pyinfra = peers.program('clush'), peers.program('pyinfra')
    return [
        stage.contender('pyinfra', pyinfra, '-y', *data, hosts, 'exec', '--', command),
        stage.contender('clush', clush, '-o', ssh, '-w', f'h[1-{len(stage.hosts)}]', command),
    ]


def _deployer(stage: Stage) -> Contender:
    """What starts all components."""
    contender = stage.contender(
        'deployer', OURS, '-F', stage.ssh_config, '--screen', _SESSION, '-c', 'config.py', '-l', 'ERROR'
    )
    config = _CONFIG.format(hosts=stage.hosts, of_host=OF_HOST, seconds=SECONDS)
    (contender.folder / 'config.py').write_text(config)
    return contender


def _must(contender: Contender) -> None:
    done = run(contender)
    if done.fault:
        raise RuntimeError(f'{contender.name}: {done.fault}\n{contender.log.read_text()}')


def _sleepers(stage: Stage) -> int:
    running = [process.argv for host in stage.bed.hosts for process in host.processes()]
    return sum(argv[:2] == ['/bin/sleep', SECONDS] for argv in running)


def _not_shown(stage: Stage, contender: Contender) -> str | None:
    """Every component, running, in the output."""
    text = contender.log.read_text(errors='replace')
    shown = text.count(' started ') if contender.name == 'ours' else text.count(SECONDS)
    wanted = OF_HOST * len(stage.hosts)
    # pyinfra prints the command, too.
    return None if shown >= wanted else f'{shown} of {wanted} components shown'


def _left(stage: Stage) -> str | None:
    left = _sleepers(stage)
    return f'{left} components run on' if left else None


# ---- logs -f -------------------------------------------------------------------------------------------------------


def follow(stage: Stage, say: Callable[[str], None]) -> tuple[float, float]:
    """The median and the longest time, in seconds, from a program's print to the line of `logs -f`."""
    contender = stage.contender('ticker', OURS, '-F', stage.ssh_config, '--screen', 'bench-tick', '-c', 'config.py')
    (contender.folder / 'config.py').write_text(_TICKER.format(program=_TICKS.format(beat=BEAT)))
    _must(contender)
    argv = [OURS, 'logs', '-f', '-n', '0', '--screen', 'bench-tick']
    delays = []
    with _running(argv, contender) as lines:
        for line in lines:
            now = time.time()
            delays.append(now - float(line.split()[-1]))
            if len(delays) > LINES:
                break
    _must(stage.contender('ticker-stop', OURS, 'stop', '--screen', 'bench-tick', more=_home_of(contender)))
    delays = delays[1:]  # the first may have waited for its connection
    say(f'    logs -f: median {1000 * statistics.median(delays):.1f} ms, longest {1000 * max(delays):.1f} ms')
    return statistics.median(delays), max(delays)


@contextlib.contextmanager
def _running(argv: list[str], contender: Contender) -> Iterator[Iterator[str]]:
    environment = dict(contender.environment)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment, cwd=contender.folder) as process:
        assert process.stdout is not None
        try:
            yield iter(process.stdout)
        finally:
            process.send_signal(signal.SIGINT)


# ---- a launcher at rest --------------------------------------------------------------------------------------------


def rest(stage: Stage, say: Callable[[str], None]) -> tuple[float, float]:
    """Of the launcher of an idle component: memory in MB (PSS of both processes), and its share of a CPU."""
    deployer = _deployer(stage)
    _must(deployer)
    host = stage.bed.hosts[0]
    names = ('launcher.py', 'launcher.pyc')
    launchers = [process.pid for process in host.processes() if any(word.endswith(names) for word in process.argv)]
    folder = host.root / 'proc'
    before = [_ticks(folder / str(pid)) for pid in launchers]
    time.sleep(REST)
    used = sum(_ticks(folder / str(pid)) for pid in launchers) - sum(before)
    pss = sum(_pss(folder / str(pid)) for pid in launchers) / OF_HOST
    share = used / os.sysconf('SC_CLK_TCK') / REST / OF_HOST
    say(f'    launcher at rest: {pss / 1000:.1f} MB, {share:.2%} of a CPU')
    _must(stage.contender('rest-stop', OURS, 'stop', '--screen', _SESSION, more=_home_of(deployer)))
    return pss / 1000, share


def _ticks(process: Path) -> int:
    fields = (process / 'stat').read_text().rpartition(')')[2].split()
    return int(fields[11]) + int(fields[12])


def _pss(process: Path) -> int:
    """Proportional set size in kB."""
    lines = (process / 'smaps_rollup').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith('Pss:'))
