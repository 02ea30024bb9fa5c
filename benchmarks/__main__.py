"""`benchmarks/run`: install the peers, bring up test hosts, measure, write what was measured into RESULTS.md."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

from benchmarks import deploy, dsh, exec, files, jobs, lifecycle, peers, report, startup  # noqa: A004  (as the command)
from benchmarks.measure import Series
from benchmarks.report import Chapter, Limit
from benchmarks.stage import Stage
from tests.testbed import Testbed

RESULTS = Path(__file__).resolve().parent / 'RESULTS.md'
WHAT = ('deploy', 'exec', 'startup', 'lifecycle', 'files', 'jobs', 'dsh')
RUNS = 7
DEPLOY_HOSTS, EXEC_HOSTS = 10, 40
STARTUP_RUNS = 20
JOBS_RUNS = 3
DSH_RUNS = 3
MEMORY_LIMIT = 120.0


@dataclass(frozen=True)
class Choice:
    """What the user wants measured."""

    what: list[str]
    tools: list[str]
    #: None for as many as each benchmark needs.
    runs: int | None
    #: Of the benchmark `files`.
    rows: list[str]
    #: Of the benchmark `jobs`.
    sizes: jobs.Sizes

    def is_complete(self, what: str) -> bool:
        """Whether all of a benchmark is measured."""
        if what == 'files' and set(self.rows) != {row.name for row in files.ROWS}:
            return False
        return not self.tools and (what != 'jobs' or self.sizes == jobs.Sizes())

    def runs_of(self, usual: int) -> int:
        """Timed runs of each contender, where that many are usual."""
        return usual if self.runs is None else self.runs

    def wanted(self, name: str) -> bool:
        """Whether this contender takes part."""
        return not self.tools or name in self.tools


def main() -> int:
    """Measure; 1 if a limit was missed."""
    choice = _choice()
    peers.install()
    is_kept = True
    for what in choice.what:
        hosts, runs, measure = _BENCHMARKS[what]
        with Testbed(hosts) as bed:
            chapters = list(measure(bed, choice))
        text = report.section(what, chapters, f'{choice.runs_of(runs)} runs each')
        print(text)
        if choice.is_complete(what):
            RESULTS.write_text(report.renewed(RESULTS.read_text(), {what: text}, WHAT))
        is_kept = is_kept and all(limit.is_kept for chapter in chapters for limit in chapter.limits)
    return 0 if is_kept else 1


def _choice() -> Choice:
    parser = argparse.ArgumentParser(prog='benchmarks/run', description=__doc__)
    parser.add_argument('what', nargs='*', metavar='WHAT', help=f'only these of {", ".join(WHAT)}')
    runs_help = f'timed runs of each, after a warm-up run (default: {RUNS}; files: {files.RUNS})'
    parser.add_argument('--runs', type=int, metavar='N', help=runs_help)
    parser.add_argument('--tools', default='', help='only these, such as ours,pyinfra; nothing is written')
    names = [row.name for row in files.ROWS]
    rows_help = f'of files only these of {", ".join(names)}; nothing is written'
    parser.add_argument('--rows', default=','.join(names), help=rows_help)
    scale_help = 'of jobs only every Nth task, to try it; nothing is written'
    parser.add_argument('--every', type=int, default=1, metavar='N', help=scale_help)
    options = parser.parse_args()
    unknown = set(options.what) - set(WHAT)
    if unknown:
        parser.error(f'no such benchmark: {", ".join(sorted(unknown))}')
    if options.runs is not None and options.runs < 1:
        parser.error('--runs: one at least')
    tools, rows = options.tools.split(','), options.rows.split(',')
    unknown = set(rows) - set(names)
    if unknown:
        parser.error(f'no such row of files: {", ".join(sorted(unknown))}')
    sizes = jobs.Sizes(*(max(jobs.DIFFERENT, size // options.every) for size in astuple(jobs.Sizes())))
    return Choice(options.what or list(WHAT), [tool for tool in tools if tool], options.runs, rows, sizes)


def _lifecycle(bed: Testbed, choice: Choice) -> Iterator[Chapter]:
    count = f'{EXEC_HOSTS * lifecycle.OF_HOST} components on {EXEC_HOSTS} hosts'
    busy = _busy()
    say = _sayer(f'status of {count}')
    with Stage.on(bed) as stage:
        series = lifecycle.measure_status(stage, choice.runs_of(RUNS), choice.wanted, say)
    limits = [Limit('`status` of 200 components on 40 hosts', _ours(series), 1.2, ' s')]
    text = f'How {count} are, with new connections each time; the peers list their processes with `ps`.'
    yield Chapter('Status', text, series, limits, busy)
    busy = _busy()
    say = _sayer(f'stop of {count}')
    with Stage.on(bed) as stage:
        series = lifecycle.measure_stop(stage, choice.runs_of(RUNS), choice.wanted, say)
        median, longest = lifecycle.follow(stage, say)
    with Stage.on(bed) as stage:
        memory, share = lifecycle.rest(stage, say)
    limits = [
        Limit('`stop` of 200 components on 40 hosts', _ours(series), 2.0, ' s'),
        Limit('`logs -f`: from print to line, median', 1000 * median, 100, ' ms'),
        Limit('`logs -f`: from print to line, longest', 1000 * longest, 100, ' ms'),
        Limit('launcher at rest: memory (PSS)', memory, 12, ' MB'),
        Limit('launcher at rest: share of a CPU', 100 * share, 0.1, ' %'),
    ]
    text = f'{count} are ended, until none is left; the peers quit the screen sessions and look every 20 ms.'
    yield Chapter('Stop', text, series, limits, busy)


def _ours(series: list[Series]) -> float:
    ours = report.by_name(series, 'ours')
    return ours.median if ours else float('nan')


def _deploy(bed: Testbed, choice: Choice) -> Iterator[Chapter]:
    for scene in deploy.SCENES:
        yield _scene(bed, scene, choice)


def _scene(bed: Testbed, scene: deploy.Scene, choice: Choice) -> Chapter:
    busy = _busy()
    say = _sayer(f'deploy on {DEPLOY_HOSTS} hosts, {scene.title}')
    with Stage.on(bed) as stage:
        series = deploy.measure(stage, scene, choice.runs_of(RUNS), choice.wanted, say)
    sizes = ', '.join(f'{size / 1000:g}' for size in sorted(deploy.SIZES.values()))
    text = (
        f'{DEPLOY_HOSTS} hosts; on each the session of an earlier run is quit, {len(deploy.SIZES)} files are brought '
        f'({sizes} kB; {scene.title}), and 2 programs are started in screen, the second on all hosts when the first '
        'runs on all. After every run both must run once on every host, anew, and the files be right.'
    )
    limit = Limit(f'deploy ({scene.title}), ours in terms of pyinfra', report.ratio(series, 'pyinfra'), 0.45, ' x')
    notes = ['Ours gives each of the two indexes its grace of 0.1 s, in which a program that ends at once is noticed.']
    return Chapter(f'Deploy: {scene.title}', text, series, _limits([limit], choice), busy, notes)


def _exec(bed: Testbed, choice: Choice) -> Iterator[Chapter]:
    busy = _busy()
    with Stage.on(bed) as stage:
        series = exec.measure(stage, choice.runs_of(RUNS), choice.wanted, _sayer(f'exec on {EXEC_HOSTS} hosts'))
    with Stage.on(bed) as stage:
        deploying = deploy.our_memory(stage) / 1e6
    ours = report.by_name(series, 'ours')
    largest = ours.memory.largest / 1e6 if ours and ours.memory else float('nan')
    limits = [
        Limit('exec, ours in terms of pyinfra', report.ratio(series, 'pyinfra'), 1.2, ' x'),
        Limit('exec, ours in terms of clush', report.ratio(series, 'clush'), 0.5, ' x'),
        Limit(f'memory, exec on {EXEC_HOSTS} hosts', largest, MEMORY_LIMIT, ' MB'),
        Limit(f'memory, deploy on {EXEC_HOSTS} hosts', deploying, MEMORY_LIMIT, ' MB'),
    ]
    text = f'`{exec.COMMAND}` on {EXEC_HOSTS} hosts, the output of each. Every host must have answered.'
    yield Chapter('Exec', text, series, _limits(limits, choice), busy)


def _startup(bed: Testbed, choice: Choice) -> Iterator[Chapter]:
    busy = _busy()
    with Stage.on(bed) as stage:
        series = startup.measure(stage, choice.runs_of(STARTUP_RUNS), choice.wanted, _sayer('--help'))
    ours = report.by_name(series, 'ours')
    limit = Limit('`remote_runner --help`', ours.median if ours else float('nan'), 0.2, ' s')
    yield Chapter('Start-up', '`--help`, into a file.', series, _limits([limit], choice), busy)


def _files(bed: Testbed, choice: Choice) -> Iterator[Chapter]:
    for row in files.ROWS:
        if row.name not in choice.rows:
            continue
        busy = _busy()
        say = _sayer(f'files: {row.title}')
        with files.Scene.of(row, bed) as scene:
            series, limits = files.measure(scene, choice.runs_of(files.RUNS), choice.wanted, say)
            yield Chapter(f'Files: {row.title}', scene.text, series, _limits(limits, choice), busy, group='Files')


def _jobs(bed: Testbed, choice: Choice) -> Iterator[Chapter]:
    sizes, runs = choice.sizes, choice.runs_of(JOBS_RUNS)
    slots = f'{jobs.HOSTS} hosts of {jobs.SLOTS} slots'
    busy = _busy()
    with Stage.on(bed) as stage:
        say = _sayer(f'jobs: {sizes.tasks} tasks')
        series, limits, notes = jobs.measure_tasks(stage, sizes, runs, choice.wanted, say)
    text = (
        f'`true` {sizes.tasks:,} times over {slots}, milliseconds of wall clock a task from before the command begins '
        f'until it has ended; GNU parallel {sizes.parallel:,} times, xargs with ssh {sizes.xargs:,} times. dask and '
        'HyperQueue run them on this machine, without hosts, files for what they print, and a journal. Every task must '
        'have been run, and each of our results have come. Ours is with its journal, and with a start and an end.'
    )
    yield Chapter('Jobs: what a task costs', text, series, _limits(limits, choice), busy, notes)
    if choice.wanted('ours'):
        busy = _busy()
        with Stage.on(bed) as stage:
            limits, notes = jobs.grow(stage, sizes, _sayer(f'jobs: {sizes.many} tasks'))
        text = f'`true` {sizes.many:,} times over {slots}. Memory is the peak that is resident, of the largest of each.'
        yield Chapter('Jobs: many tasks', text, [], limits, busy, notes)
    busy = _busy()
    with Stage.on(bed) as stage:
        say = _sayer(f'jobs: {sizes.large} large outputs')
        series, limits, notes = jobs.measure_output(stage, sizes, runs, choice.wanted, say)
    text = (
        f'{sizes.large:,} tasks over {slots} print 1 MB of random bytes each, which go into a file as frames; ssh '
        'brings as many from one host in one stream into a file. Every byte must be right.'
    )
    yield Chapter('Jobs: large outputs', text, series, _limits(limits, choice), busy, notes)


def _dsh(bed: Testbed, choice: Choice) -> Iterator[Chapter]:
    runs = choice.runs_of(DSH_RUNS)
    busy = _busy()
    with Stage.on(bed) as stage:
        series, limits = dsh.measure_commands(stage, runs, choice.wanted, _sayer('dsh: one command'))
    text = (
        f'`true` {dsh.COMMANDS} times one after the other and {dsh.AT_ONCE} times at once, milliseconds a command: '
        f'here, by `dsh` with a daemon of {dsh.BUILD_HOSTS} hosts, by ssh with a new connection each time, and over '
        'one that a control master holds.'
    )
    yield Chapter('dsh: one command', text, series, _limits(limits, choice), busy)
    busy = _busy()
    with Stage.on(bed) as stage:
        series, limits, notes = dsh.measure_build(stage, runs, choice.wanted, _sayer('dsh: make'))
    text = (
        f'A C project of {dsh.FILES} files, from its sources to the program, which must run: by gcc here, and by '
        f'`make CC="remote_runner dsh gcc"` over {dsh.BUILD_HOSTS} hosts that share its folder.'
    )
    yield Chapter('dsh: make', text, series, _limits(limits, choice), busy, notes)
    if choice.wanted('ours'):
        busy = _busy()
        with Stage.on(bed) as stage:
            limits = dsh.rest(stage, _sayer(f'dsh: a daemon of {dsh.HOSTS} hosts'))
        text = f'The daemon keeps the loads of {dsh.HOSTS} hosts, and nobody asks; for {dsh.IDLE:g} s.'
        yield Chapter('dsh: the daemon', text, [], limits, busy)


#: By name, how many hosts a benchmark needs, how many timed runs it usually has, and the benchmark.
_BENCHMARKS: dict[str, tuple[int, int, Callable[[Testbed, Choice], Iterator[Chapter]]]] = {
    'deploy': (DEPLOY_HOSTS, RUNS, _deploy),
    'exec': (EXEC_HOSTS, RUNS, _exec),
    'startup': (1, STARTUP_RUNS, _startup),
    'lifecycle': (EXEC_HOSTS, RUNS, _lifecycle),
    'files': (files.HOSTS, files.RUNS, _files),
    'jobs': (jobs.HOSTS, JOBS_RUNS, _jobs),
    'dsh': (dsh.HOSTS, DSH_RUNS, _dsh),
}


def _limits(limits: list[Limit], choice: Choice) -> list[Limit]:
    """Those for which all sides took part."""
    return limits if not choice.tools else [limit for limit in limits if limit.measured == limit.measured]


def _busy() -> float:
    """The share of the machine's CPU that others take, from 0 to 1 (proc(5), `stat`)."""

    def times() -> list[int]:
        return [int(word) for word in Path('/proc/stat').read_text().splitlines()[0].split()[1:]]

    before = times()
    time.sleep(2)
    spent = [now - then for now, then in zip(times(), before, strict=True)]
    return 1 - (spent[3] + spent[4]) / sum(spent)  # idle, iowait


def _sayer(title: str) -> Callable[[str], None]:
    print(f'== {title}', file=sys.stderr)

    def say(text: str) -> None:
        print(f'   {text}', file=sys.stderr, flush=True)

    return say


if __name__ == '__main__':
    sys.exit(main())
