"""RESULTS.md: what was measured, on what, and how it stands against the limits."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peers
from benchmarks.measure import Series

#: Others may take this share of the CPU.
QUIET = 0.1


@dataclass(frozen=True)
class Limit:
    """Something that must not be above a number."""

    what: str
    measured: float
    limit: float
    unit: str = ''

    @property
    def is_kept(self) -> bool:
        """False, too, when it could not be measured."""
        return self.measured <= self.limit


@dataclass(frozen=True)
class Chapter:
    """One benchmark: what was done, all runs, its limits, and how busy the machine was before (0 to 1).

    Chapters of one `group` are also shown in one table, at a glance.
    """

    title: str
    text: str
    series: Sequence[Series]
    limits: Sequence[Limit]
    busy: float
    notes: Sequence[str] = ()
    group: str = ''


def ratio(series: Sequence[Series], to: str) -> float:
    """The median of ours in terms of that of a peer; not a number without either."""
    medians = {one.contender.name: one.median for one in series}
    return medians.get('ours', float('nan')) / medians.get(to, float('nan'))


def by_name(series: Sequence[Series], name: str) -> Series | None:
    """The series of a contender, if it took part."""
    return next((one for one in series if one.contender.name == name), None)


def section(name: str, chapters: Sequence[Chapter], runs: str) -> str:
    """The report on one benchmark, as Markdown; `runs` says how many."""
    limits = [limit for chapter in chapters for limit in chapter.limits]
    parts = [
        f'{_MARK.format(name)}\n## {name.capitalize()}',
        f'Medians of the runs after a warm-up run of each, taken in turns; {runs}.',
        _table(['limit', 'measured', 'at most', ''], [_limit(limit) for limit in limits]),
        *(_glance(chapters, group) for group in dict.fromkeys(chapter.group for chapter in chapters) if group),
        *(_chapter(chapter) for chapter in chapters),
        f'### Machine and versions ({name})',
        _table(['', ''], [[key, value] for key, value in {**_machine(), **peers.versions()}.items() if value]),
    ]
    return '\n\n'.join(parts) + '\n'


#: Stands above each section.
_MARK = '<!-- {} -->'
_HEAD = """\
# Results

Written by `benchmarks/run`; README.md says what is measured and how. Seconds are those of wall clock. Each benchmark is
measured in one go, with all its contenders; at its end stands when, on what, and with which versions.

"""


def renewed(text: str, new: Mapping[str, str], order: Sequence[str]) -> str:
    """RESULTS.md, as `text` holds it, with new sections by their names."""
    names = '|'.join(map(re.escape, order))
    _, *found = re.split(f'^{_MARK.format(f"({names})")}$', text, flags=re.MULTILINE)
    old = {name: f'{_MARK.format(name)}{rest.rstrip()}\n' for name, rest in zip(found[::2], found[1::2], strict=True)}
    sections = {**old, **new}
    return _HEAD + '\n'.join(sections[name] for name in order if name in sections)


def _warning(chapter: Chapter) -> str:
    return ' **Too much: these numbers are worth little.**' if chapter.busy > QUIET else ''


def _limit(limit: Limit) -> list[str]:
    numbers = [f'{limit.measured:.2f}{limit.unit}', f'{limit.limit:g}{limit.unit}']
    return [limit.what, *numbers, 'kept' if limit.is_kept else '**missed**']


def _glance(chapters: Sequence[Chapter], group: str) -> str:
    """The medians of all chapters of the group, beside each other."""
    chapters = [chapter for chapter in chapters if chapter.group == group]
    contenders = {one.contender.name: one.contender.note for chapter in chapters for one in chapter.series}
    rows = []
    for chapter in chapters:
        ours = by_name(chapter.series, 'ours')
        cells = []
        for name in contenders:
            one = by_name(chapter.series, name)
            shown = _seconds(one) if one else ''
            is_better = one and ours and one.median < ours.median
            cells.append(f'**{shown}**' if is_better else shown)
        rows.append([chapter.title.removeprefix(f'{group}: '), *cells])
    head = ['', *(name if note in ('', name) else f'{name}: {note}' for name, note in contenders.items())]
    return f'### {group} at a glance\n\nMedians in seconds; what was faster than ours is bold.\n\n{_table(head, rows)}'


def _seconds(one: Series) -> str:
    if one.is_given_up:
        return f'over {one.contender.patience:g}'
    return _time(one, one.median) if one.good else 'failed'


def _time(one: Series, seconds: float) -> str:
    """Seconds; where they are those of a task, milliseconds."""
    return f'{1000 * seconds:.2f} ms' if one.contender.tasks else f'{seconds:.2f}'


def _chapter(chapter: Chapter) -> str:
    parts = [
        f'### {chapter.title}',
        chapter.text,
        *([_table(_head(chapter), [_row(one, chapter) for one in chapter.series])] if chapter.series else []),
        *(f'- {note}' for note in chapter.notes),
        *(f'- {one.contender.name}, a run that failed: {fault}' for one in chapter.series for fault in _faults(one)),
        f'Before it began, others took {chapter.busy:.0%} of the CPU.{_warning(chapter)}',
    ]
    if chapter.series:
        parts += ['What was run:', '```\n' + '\n'.join(_command(one) for one in chapter.series) + '\n```']
    return '\n\n'.join(parts)


def _faults(one: Series) -> list[str]:
    """Also that of the warm-up run, if there were no others."""
    return one.faults if one.runs or not one.warm_up.fault else [one.warm_up.fault]


def _counts_bytes(chapter: Chapter) -> bool:
    return any(run.wire for one in chapter.series for run in one.runs)


def _head(chapter: Chapter) -> list[str]:
    wire = ['to the hosts', 'from them'] if _counts_bytes(chapter) else []
    times = ['median', 'min', 'max', 'first run', 'ours is', 'CPU']
    return ['', *times, 'largest process', 'all processes', *wire, 'good runs']


def _row(one: Series, chapter: Chapter) -> list[str]:
    name = f'{one.contender.name} ({one.contender.note})' if one.contender.note else one.contender.name
    each = one.contender.tasks or 1
    seconds, memory = [run.seconds / each for run in one.good], one.memory
    wire = (one.median_sent, one.median_received) if _counts_bytes(chapter) else ()
    compared = ratio(chapter.series, one.contender.name)
    extremes = [_time(one, value) for value in (min(seconds), max(seconds))] if seconds else ['', '']
    return [
        f'**{name}**' if name == 'ours' else name,
        _seconds(one),
        *extremes,
        _time(one, one.warm_up.seconds / each),
        '' if name == 'ours' or compared != compared else f'{compared:.2f} x',
        _time(one, max(run.cpu for run in one.good) / each) if seconds else '',
        *([f'{peak / 1e6:.0f} MB' for peak in (memory.largest, memory.together)] if memory else ['', '']),
        *(f'{count / 1e6:.2f} MB' if one.good else '' for count in wire),
        f'{len(one.good)} of {len(one.runs)}',
    ]


def _command(one: Series) -> str:
    """The command as it was run, without our folders."""
    text = re.sub(r'h1([, ])h2\1[h0-9, ]*h(\d+)', r'h1\1h2\1…\1h\2', shlex.join(one.contender.argv))
    text = re.sub(r'(\d/h1,).*?(\d/h\d+)(?= )', r'\1…,\2', text)
    names = {str(peers.VENV / 'bin'): '', str(peers.HERE): 'benchmarks/', str(Path(sys.executable).parent): ''}
    for path, shown in names.items():
        text = text.replace(f'{path}/', shown)
    return re.sub(r'/[\w./-]*/ssh_config(?:\.far)?\b', 'ssh_config', text)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ['---'] * len(head), *rows]
    escaped = [[cell.replace('|', '\\|') for cell in cells] for cells in lines]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in escaped)


def _machine() -> dict[str, str]:
    cpu = [line.partition(':')[2].strip() for line in _lines('/proc/cpuinfo') if line.startswith('model name')]
    memory = [int(line.split()[1]) for line in _lines('/proc/meminfo') if line.startswith('MemTotal')]
    return {
        'date': time.strftime('%Y-%m-%d %H:%M %Z'),
        'cores': f'{os.cpu_count()}, {cpu[0] if cpu else platform.machine()}; the test hosts share them',
        'memory': f'{memory[0] / 1e6:.0f} GB',
        'kernel': f'{platform.system()} {platform.release()}',
        'distribution': platform.freedesktop_os_release()['PRETTY_NAME'],
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
