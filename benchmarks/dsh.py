"""dsh: what a command costs that goes to the least loaded host, a build with make over several, and an idle daemon."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Contender, Series, take_turns
from benchmarks.report import Limit, by_name
from benchmarks.stage import OURS, Stage

#: Hosts of an idle daemon, and of a build.
HOSTS, BUILD_HOSTS = 200, 4
#: Commands one after the other in each run, and at once.
COMMANDS, AT_ONCE = 50, 50
#: Files of the C project, and functions in each.
FILES, FUNCTIONS = 100, 40
#: Seconds in which the daemon's use of the CPU is counted, after those in which it settles.
IDLE, SETTLING = 60.0, 15.0
#: Where the project lies, here and on the hosts that share it.
_PROJECT = '/srv/rrbench-project'
_DSH = f'{OURS} dsh'


@dataclass(frozen=True)
class Daemon:
    """A daemon that runs: its process, and what its clients need in their environment."""

    pid: int
    environment: dict[str, str]


@contextmanager
def daemon(stage: Stage, hosts: Sequence[str]) -> Iterator[Daemon]:
    """A daemon of these hosts, up until the end of the block."""
    environment = {'RR_DSHD_SOCKET': str(stage.scratch / 'dshd')}
    home = stage.scratch / 'home'
    home.mkdir(mode=0o700, exist_ok=True)
    everything = {'HOME': str(home), 'PATH': os.environ['PATH'], 'LANG': 'C.UTF-8', **environment}
    argv = [OURS, 'dshd', '-H', ','.join(hosts), '-F', stage.ssh_config, '--background']
    said = subprocess.run(argv, env=everything, stdout=subprocess.PIPE, text=True, check=True).stdout
    try:
        yield Daemon(int(said.split()[-1]), environment)
    finally:
        subprocess.run([OURS, 'dshd', '--stop'], env=everything, check=True, stdout=subprocess.DEVNULL)


# ---- one command ---------------------------------------------------------------------------------------------------


def measure_commands(
    stage: Stage, runs: int, wanted: Callable[[str], bool], say: Callable[[str], None]
) -> tuple[list[Series], list[Limit]]:
    """`true` one after the other, and many at once, each by all that are wanted; the limits."""
    hosts = stage.hosts[:BUILD_HOSTS]
    master = f'-o ControlMaster=auto -o ControlPath={stage.control}/%n -o ControlPersist=60'
    with daemon(stage, hosts) as running:
        one_by_one = [
            _repeated(stage, 'true', '/bin/true', note='here'),
            _repeated(stage, 'ours', f'{_DSH} --dir / true', more=running.environment),
            _repeated(stage, 'ssh', f'ssh -F {stage.ssh_config} h1 true'),
            _repeated(stage, 'ssh, master', f'ssh -F {stage.ssh_config} {master} h1 true', note='control master'),
        ]
        at_once = [
            _at_once(stage, 'ours at once', f'{_DSH} --dir / true', more=running.environment),
            _at_once(stage, 'ssh at once', f'ssh -F {stage.ssh_config} h$((1 + $1 % {len(hosts)})) true'),
        ]
        series = take_turns(
            [one for one in one_by_one + at_once if wanted(one.name.split(' at')[0])],
            runs,
            before=lambda contender: None,
            check=lambda contender: None,
            after=lambda contender: stage.close_masters(),
            say=say,
        )
    medians = {one.contender.name: 1000 * one.median for one in series}
    ours = medians.get('ours', float('nan'))
    all_at_once = by_name(series, 'ours at once')
    failed = sum(run.fault is not None for run in [all_at_once.warm_up, *all_at_once.runs]) if all_at_once else 0
    limits = [
        Limit('`dsh true`: more than a bare `true`', ours - medians.get('true', float('nan')), 30, ' ms'),
        Limit('`dsh true` in terms of `ssh host true`', ours / medians.get('ssh', float('nan')), 0.5, ' x'),
        Limit(f'{AT_ONCE} x `dsh true` at once: runs in which one failed', failed, 0),
    ]
    return series, limits


def _repeated(
    stage: Stage, name: str, command: str, *, note: str = '', more: dict[str, str] | None = None
) -> Contender:
    """The command, so many times, one after the other."""
    script = f'for number in $(seq {COMMANDS}); do {command} || exit; done'
    return stage.contender(name, 'sh', '-c', script, note=note, more=more, tasks=COMMANDS)


def _at_once(stage: Stage, name: str, command: str, more: dict[str, str] | None = None) -> Contender:
    """The command, so many times at once; each is given its number as `$1`."""
    # After a status of 255, which is ssh's, xargs would end at once and leave the others running.
    script = f"seq {AT_ONCE} | xargs -P {AT_ONCE} -n 1 sh -c '{command} || exit 1' sh"
    return stage.contender(name, 'sh', '-c', script, note='at once', more=more, tasks=AT_ONCE)


# ---- a build -------------------------------------------------------------------------------------------------------


def measure_build(
    stage: Stage, runs: int, wanted: Callable[[str], bool], say: Callable[[str], None]
) -> tuple[list[Series], list[Limit], list[str]]:
    """A C project with make, here and over hosts that share its folder; the limits, and notes."""
    project = Path(_PROJECT)
    project.mkdir()
    try:
        write_project(project)
        for host in stage.bed.hosts[:BUILD_HOSTS]:
            host.share(_PROJECT, project)
        with daemon(stage, stage.hosts[:BUILD_HOSTS]) as running:
            compiler = f'CC={_DSH} gcc'
            builds = [
                stage.contender('make -j2', 'make', '-C', _PROJECT, '-j2', note='here'),
                stage.contender(
                    'ours', 'make', '-C', _PROJECT, '-j8', compiler, note='make -j8', more=running.environment
                ),
                stage.contender('make -j1', 'make', '-C', _PROJECT, note='here'),
                stage.contender(
                    'ours, -j1', 'make', '-C', _PROJECT, compiler, note='make -j1', more=running.environment
                ),
            ]
            series = take_turns(
                [one for one in builds if wanted(one.name.split(',')[0])],
                runs,
                before=lambda contender: _clean(project),
                check=lambda contender: _fault(project),
                after=lambda contender: None,
                say=say,
            )
    finally:
        shutil.rmtree(project)
    medians = {one.contender.name: one.median for one in series}
    nothing = float('nan')
    each = 1000 * (medians.get('ours, -j1', nothing) - medians.get('make -j1', nothing)) / (FILES + 1)
    share = medians.get('ours', nothing) / medians.get('make -j2', nothing)
    notes = [
        f'`make -j8` over {BUILD_HOSTS} hosts took {share:.2f} x the time of `make -j2` here. All hosts are this '
        f'machine and its {os.cpu_count()} cores, so nothing can be gained: what is seen is what the way there costs. '
        f'A compilation here takes {1000 * medians.get("make -j1", nothing) / (FILES + 1):.0f} ms.'
    ]
    return series, [Limit('a compilation by `dsh gcc`: more than by `gcc`', each, 40, ' ms')], notes


def write_project(folder: Path) -> None:
    """A C project that takes a compiler some time: many files, one header, a program that adds all up."""
    chance = random.Random(1)
    names = [f'part{number}' for number in range(FILES)]
    declarations = '\n'.join(f'unsigned {name}(unsigned);' for name in names)
    (folder / 'all.h').write_text(f'#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n{declarations}\n')
    for name in names:
        lines = ['#include "all.h"']
        for number in range(FUNCTIONS):
            a, b, c = (chance.randrange(3, 99) for _ in range(3))
            lines += [
                f'static unsigned f{number}(unsigned x) {{',
                f'    unsigned sum = {a};',
                f'    for (unsigned i = 0; i < {b}; ++i) sum = sum * {c}u + (x ^ (i << {a % 7}));',
                f'    switch (sum % {2 + c % 5}) {{ case 0: return sum / 3; case 1: return sum ^ x; default: break; }}',
                '    return sum;',
                '}',
            ]
        calls = ' + '.join(f'f{number}(x)' for number in range(FUNCTIONS))
        (folder / f'{name}.c').write_text('\n'.join([*lines, f'unsigned {name}(unsigned x) {{ return {calls}; }}', '']))
    calls = '\n'.join(f'    sum += {name}(sum);' for name in names)
    main = f'int main(void) {{\n    unsigned sum = 1;\n{calls}\n    printf("%u\\n", sum);\n    return 0;\n}}\n'
    (folder / 'main.c').write_text(f'#include "all.h"\n{main}')
    objects = ' '.join(f'{name}.o' for name in ['main', *names])
    (folder / 'Makefile').write_text(
        f'CC = gcc\nCFLAGS = -O2\nprogram: {objects}\n\tgcc -o $@ $^\n%.o: %.c all.h\n\t$(CC) $(CFLAGS) -c -o $@ $<\n'
    )


def _clean(project: Path) -> None:
    for built in [project / 'program', *project.glob('*.o')]:
        built.unlink(missing_ok=True)


def _fault(project: Path) -> str | None:
    """Whether the program was built and runs."""
    done = subprocess.run([project / 'program'], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 and done.stdout.strip().isdigit() else 'the program does not run'


# ---- an idle daemon ------------------------------------------------------------------------------------------------


def rest(stage: Stage, say: Callable[[str], None]) -> list[Limit]:
    """What a daemon takes that keeps the loads of many hosts and is asked for nothing."""
    with daemon(stage, stage.hosts) as running:
        time.sleep(SETTLING)
        before, began = _cpu(running.pid), time.monotonic()
        time.sleep(IDLE)
        share = (_cpu(running.pid) - before) / (time.monotonic() - began)
        memory = _resident(running.pid)
    say(f'    {100 * share:.1f} % of a core, {memory / 1e6:.0f} MB')
    return [
        Limit(f'daemon of {len(stage.hosts)} hosts: share of a core', 100 * share, 5, ' %'),
        Limit(f'daemon of {len(stage.hosts)} hosts: memory', memory / 1e6, 150, ' MB'),
    ]


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has taken (proc(5), `stat`)."""
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def _resident(pid: int) -> int:
    """Bytes of memory that it has had at most (proc(5), `status`)."""
    lines = Path(f'/proc/{pid}/status').read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith('VmHWM:'))
