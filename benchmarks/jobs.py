"""Jobs: what a task costs beside others that hand out tasks, how that and memory grow, and how much output comes.

`Sizes` says how many tasks that are; all hosts together have 8 slots.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import statistics
import struct
import subprocess
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peers
from benchmarks.measure import Contender, Series, run, take_turns
from benchmarks.report import Limit, by_name
from benchmarks.stage import OURS, RECIPES, Stage

HOSTS, SLOTS = 4, 2
#: Bytes of a large output, and how many different ones there are.
LARGE, DIFFERENT = 1_000_000, 10
#: Tasks at the beginning and at the end of many whose costs are compared.
COMPARED = 10_000
#: Seconds between two looks at processes.
LOOK = 0.2
#: Seconds in which a job that is killed or resumed must have gone on.
PATIENCE = 900.0
#: Where large outputs lie on the hosts.
_FOLDER = '/tmp/rrbench-jobs'
_FRAME = struct.Struct('<ii')
_ALONE = re.compile(rb'^tasks alone: ([\d.]+) s$', re.MULTILINE)
#: What shows which process of a host it is.
_DISPATCHER, _AGENT = 'dispatcher', 'agent'


@dataclass(frozen=True)
class Sizes:
    """How many tasks there are: of the costs a task, of the same of slow peers, of growth, and with large outputs."""

    tasks: int = 10_000
    parallel: int = 500
    xargs: int = 200
    many: int = 100_000
    large: int = 1_000


# ---- what a task costs ---------------------------------------------------------------------------------------------


def measure_tasks(
    stage: Stage, sizes: Sizes, runs: int, wanted: Callable[[str], bool], say: Callable[[str], None]
) -> tuple[list[Series], list[Limit], list[str]]:
    """`true` by all that are wanted; the limits, and notes."""
    alone: dict[str, list[float]] = defaultdict(list)

    def check(contender: Contender) -> str | None:
        found = _ALONE.search(contender.log.read_bytes())
        if found:
            alone[contender.name].append(1000 * float(found[1]) / contender.tasks)
        return _fault(contender)

    series = take_turns(
        [contender for contender in _contenders(stage, sizes) if wanted(contender.name)],
        runs,
        before=_clear,
        check=check,
        after=lambda contender: stage.close_masters(),
        say=say,
    )
    medians = {one.contender.name: 1000 * one.median for one in series}
    ours = medians.get('ours', float('nan'))
    limits = [Limit(f'{sizes.tasks:,} x `true`: a task', ours, 1.3, ' ms')]
    for name in ('parallel', 'xargs', 'HyperQueue', 'dask'):
        limits.append(Limit(f'a task, ours in terms of {name}', ours / medians.get(name, float('nan')), 1.0, ' x'))
    notes = []
    for name, found in alone.items():
        median = statistics.median(found)
        limits.append(Limit(f'a task, ours in terms of the tasks alone of {name}', ours / median, 1.0, ' x'))
        notes.append(f'{name}: {median:.2f} ms a task without start and end of its cluster; ours is with both.')
    return series, limits, notes


def _contenders(stage: Stage, sizes: Sizes) -> list[Contender]:
    python, each = peers.program('python'), str(HOSTS * SLOTS)
    master = f'-o ControlMaster=auto -o ControlPath={stage.control}/%n -o ControlPersist=60'
    logins = ['--sshloginfile', 'logins', '--ssh', f'ssh -F {stage.ssh_config} {master}', '--joblog', 'joblog']
    xargs = f'xargs -P {each} -I HOST ssh -F {stage.ssh_config} HOST true <hosts'
    contenders = [
        ours(stage, 'ours', ['true'] * sizes.tasks),
        stage.contender('parallel', 'parallel', *logins, '-a', 'commands', tasks=sizes.parallel, note='control master'),
        stage.contender('xargs', 'sh', '-c', xargs, tasks=sizes.xargs, note='ssh'),
        *(
            stage.contender(name, python, _recipe(name), str(sizes.tasks), each, tasks=sizes.tasks, note=note)
            for name, note in (('HyperQueue', 'one machine'), ('dask', 'one machine'), ('spawn', 'a bare loop'))
        ),
    ]
    parallel, xargs_folder = contenders[1].folder, contenders[2].folder
    (parallel / 'commands').write_text('true\n' * sizes.parallel)
    (parallel / 'logins').write_text(''.join(f'{SLOTS}/{host}\n' for host in stage.hosts))
    hosts = [stage.hosts[number % HOSTS] for number in range(sizes.xargs)]
    (xargs_folder / 'hosts').write_text('\n'.join(hosts) + '\n')
    return contenders


def _recipe(name: str) -> str:
    return str(RECIPES / name / 'tasks.py')


def ours(stage: Stage, name: str, commands: list[str]) -> Contender:
    """`batch` of these; its frames go into the file `frames` in its folder, and its journal below its home."""
    hosts = ','.join(f'{SLOTS}/{host}' for host in stage.hosts)
    batch = f'{OURS} batch commands -F {stage.ssh_config} -H {hosts} --format framed >frames'
    home = {'HOME': str(stage.scratch / f'~{name}')}
    contender = stage.contender(name, 'sh', '-c', f'exec {batch}', tasks=len(commands), more=home)
    _home(contender).mkdir(mode=0o700)
    (contender.folder / 'commands').write_text(''.join(f'{command}\n' for command in commands))
    return contender


def _clear(contender: Contender) -> None:
    """Nothing is left of the run before."""
    for name in ('frames', 'joblog'):
        (contender.folder / name).unlink(missing_ok=True)


def _fault(contender: Contender) -> str | None:
    """Whether each task was run, as far as the contender does not look itself."""
    frames, joblog = contender.folder / 'frames', contender.folder / 'joblog'
    if frames.exists():
        found = sorted(index for index, _ in _frames(frames))
        return None if found == list(range(contender.tasks)) else f'{len(found)} of {contender.tasks} results came'
    if joblog.exists():
        done = len(joblog.read_text().splitlines()) - 1
        return None if done == contender.tasks else f'{done} of {contender.tasks} tasks were run'
    return None


def _frames(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open('rb') as file:
        while header := file.read(_FRAME.size):
            index, size = _FRAME.unpack(header)
            yield index, file.read(size)


# ---- how it grows --------------------------------------------------------------------------------------------------


def grow(stage: Stage, sizes: Sizes, say: Callable[[str], None]) -> tuple[list[Limit], list[str]]:
    """Many tasks, to the end; the resume of what is done, and of what was killed half-way: limits, and notes."""
    contender = ours(stage, 'many', ['true'] * sizes.many)
    peaks: dict[str, int] = defaultdict(int)
    with _running(contender) as process:
        while not _has_ended(process):
            _look(stage, process.pid, peaks)
    if process.returncode or _fault(contender):
        raise RuntimeError(f'many: {process.returncode}, {_fault(contender)}\n{_said(contender)}')
    first, last, whole = _costs(_journal(contender))
    shown = ', '.join(f'{name} {peak / 1e6:.1f} MB' for name, peak in peaks.items())
    say(f'    {sizes.many} tasks: {first:.2f} ms each at first, {last:.2f} ms at last; {shown}')
    done = run(_resuming(stage, contender, 'done'))
    if done.fault:
        raise RuntimeError(f'resume of what is done: {done.fault}')
    say(f'    resume of what is done: {done.seconds:.2f} s')
    order, left = _half(stage, sizes, say)
    limits = [
        Limit(f'{sizes.many:,} x `true`: a task, the last ones in terms of the first', last / first, 1.1, ' x'),
        Limit(f'{sizes.many:,} x `true`: memory of the master', peaks['master'] / 1e6, 200, ' MB'),
        Limit('memory of a dispatcher', peaks[_DISPATCHER] / 1e6, 40, ' MB'),
        Limit('memory of an agent', peaks[_AGENT] / 1e6, 40, ' MB'),
        Limit(f'`jobs resume` of {sizes.many:,}, all done: to its end', done.seconds, 2.0, ' s'),
        Limit(f'`jobs resume` of {sizes.many:,}, half done: to the first order', order, 2.0, ' s'),
    ]
    notes = [
        f'{first:.2f} ms a task among the first {COMPARED:,}, {last:.2f} ms among the last, {whole:.2f} ms in all, by '
        'the times in the journal.',
        f'The master that was half done was killed with {left:,} tasks left; the first order is the first one that its '
        'successor wrote into the journal.',
    ]
    return limits, notes


def _half(stage: Stage, sizes: Sizes, say: Callable[[str], None]) -> tuple[float, int]:
    """Seconds from `jobs resume` to its first order, after a master was killed half-way; how many tasks were left."""
    contender = ours(stage, 'half', ['true'] * sizes.many)
    frames = contender.folder / 'frames'
    with _running(contender) as process:
        _wait(process, lambda: _size(frames) >= sizes.many // 2 * _FRAME.size)
        process.kill()
    begun = time.time()
    with _running(_resuming(stage, contender, 'rest')) as process, sqlite3.connect(_journal(contender)) as journal:
        [[left]] = journal.execute('SELECT COUNT(*) FROM unsettled')
        _wait(process, lambda: _first_order(journal, begun) is not None)
        process.send_signal(signal.SIGINT)
        process.wait()
        order = _first_order(journal, begun)
    assert order is not None
    say(f'    resume with {left} tasks left: {order - begun:.2f} s to the first order')
    return order - begun, left


def _resuming(stage: Stage, contender: Contender, name: str) -> Contender:
    """`jobs resume` of the job of a contender."""
    more = {'HOME': str(_home(contender))}
    return stage.contender(f'{contender.name}-{name}', 'sh', '-c', f'exec {OURS} jobs resume >frames', more=more)


def _costs(path: Path) -> tuple[float, float, float]:
    """Milliseconds from the end of a task to that of the next: of the first ones, of the last ones, and of all."""
    with sqlite3.connect(path) as journal:
        ends = sorted(end for (end,) in journal.execute('SELECT began + seconds FROM attempt WHERE state = 1'))
    few = min(COMPARED, len(ends) // 2)

    def each(some: list[float]) -> float:
        return 1000 * (some[-1] - some[0]) / (len(some) - 1)

    return each(ends[:few]), each(ends[-few:]), each(ends)


def _first_order(journal: sqlite3.Connection, after: float) -> float | None:
    [[found]] = journal.execute('SELECT MIN(ordered) FROM attempt WHERE ordered > ?', (after,))
    return None if found is None else float(found)


def _look(stage: Stage, master: int, peaks: dict[str, int]) -> None:
    """Note the largest peaks of resident memory, in bytes, of the master and of our processes on the hosts."""
    peaks['master'] = max(peaks['master'], _peak(Path('/proc') / str(master)))
    for host in stage.bed.hosts:
        for process in host.processes():
            words = ' '.join(process.argv)
            if 'dispatcher.py' in words:
                kind = _DISPATCHER
            elif '-ISc' in process.argv:
                kind = _AGENT
            else:
                continue
            peaks[kind] = max(peaks[kind], _peak(host.root / 'proc' / str(process.pid)))


def _peak(process: Path) -> int:
    """See proc_pid_status(5), `VmHWM`; 0 when it has just ended."""
    try:
        lines = (process / 'status').read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith('VmHWM:')), 0)


@contextmanager
def _running(contender: Contender) -> Iterator[subprocess.Popen[bytes]]:
    with contender.log.open('wb') as log:
        process = subprocess.Popen(
            contender.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=contender.folder,
            env=dict(contender.environment),
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        if _has_ended(process) or time.monotonic() > deadline:
            raise RuntimeError(f'the job ended too early, or not at all: {process.returncode}')


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has, or does within the time between two looks."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(LOOK)
    return process.returncode is not None


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _said(contender: Contender) -> str:
    return contender.log.read_text(errors='replace')[-2000:]


def _home(contender: Contender) -> Path:
    return Path(contender.environment['HOME'])


def _journal(contender: Contender) -> Path:
    """That of the only job in its home."""
    [found] = _home(contender).glob('.local/state/remote_runner/jobs/*/journal.db')
    return found


# ---- much output ---------------------------------------------------------------------------------------------------


def measure_output(
    stage: Stage, sizes: Sizes, runs: int, wanted: Callable[[str], bool], say: Callable[[str], None]
) -> tuple[list[Series], list[Limit], list[str]]:
    """Large outputs of many tasks, against one stream of as many bytes; the limits, and notes."""
    contents = [os.urandom(LARGE) for _ in range(DIFFERENT)]
    for host in stage.bed.hosts:
        folder = host.path(_FOLDER)
        folder.mkdir(exist_ok=True)
        for number, content in enumerate(contents):
            (folder / str(number)).write_bytes(content)
    sums = [zlib.crc32(content) for content in contents]
    wanted_sums = [sums[number % DIFFERENT] for number in range(sizes.large)]

    def check(contender: Contender) -> str | None:
        if contender.name == 'ours':
            found = {index: zlib.crc32(content) for index, content in _frames(contender.folder / 'frames')}
            return None if found == dict(enumerate(wanted_sums)) else 'results are missing or wrong'
        with (contender.folder / 'frames').open('rb') as file:
            pieces = [zlib.crc32(file.read(LARGE)) for _ in wanted_sums]
            return None if pieces == wanted_sums and not file.read(1) else 'bytes are missing or wrong'

    def forget(contender: Contender) -> None:
        _clear(contender)
        stage.close_masters()

    names = f'seq -f {_FOLDER}/%g 0 {DIFFERENT - 1}'
    rounds = -(-sizes.large // DIFFERENT)
    stream = f'for i in \\$(seq {rounds}); do {names}; done | head -n {sizes.large} | xargs cat'
    to_ssh = f'exec ssh -F {stage.ssh_config} h1 "{stream}" >frames'
    contenders = [
        ours(stage, 'ours', [f'cat {_FOLDER}/{number % DIFFERENT}' for number in range(sizes.large)]),
        stage.contender('ssh', 'sh', '-c', to_ssh, note='one stream', tasks=sizes.large),
    ]
    series = take_turns(
        [contender for contender in contenders if wanted(contender.name)],
        runs,
        before=_clear,
        check=check,
        after=forget,
        say=say,
    )
    seconds = {name: found.median for name in ('ours', 'ssh') if (found := by_name(series, name))}
    share = seconds.get('ours', float('nan')) / seconds.get('ssh', float('nan'))
    what = f'{sizes.large:,} x 1 MB: time, in terms of one stream of ssh (60 % of its rate)'
    limits = [Limit(what, share, 1 / 0.6, ' x')]
    notes = [f'{name}: {LARGE / 1e6 / each:.0f} MB/s.' for name, each in seconds.items()]
    return series, limits, notes
