"""RESULTS.md: what was measured, on what, and how it stands against the limits."""

from __future__ import annotations

import os
import platform
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peers
from benchmarks.measure import Memory, Series

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
    """One benchmark: what was done, all runs, its limits, and how busy the machine was before (0 to 1)."""

    title: str
    text: str
    series: Sequence[Series]
    limits: Sequence[Limit]
    busy: float
    notes: Sequence[str] = ()


def ratio(series: Sequence[Series], to: str) -> float:
    """The median of ours in terms of that of a peer; not a number without either."""
    medians = {one.contender.name: one.median for one in series}
    return medians.get('ours', float('nan')) / medians.get(to, float('nan'))


def by_name(series: Sequence[Series], name: str) -> Series | None:
    """The series of a contender, if it took part."""
    return next((one for one in series if one.contender.name == name), None)


def write(chapters: Sequence[Chapter], runs: int) -> str:
    """The whole report, as Markdown."""
    limits = [limit for chapter in chapters for limit in chapter.limits]
    parts = [
        '# Results',
        'Written by `benchmarks/run`; README.md says what is measured and how. Seconds of wall clock, medians of the '
        f'runs after a warm-up run of each, taken in turns; {runs} runs each, `--help` more.',
        _table(
            ['limit', 'measured', 'at most', ''],
            [_limit(limit) for limit in limits],
        ),
        *(_chapter(chapter) for chapter in chapters),
        '## Machine and versions',
        _table(['', ''], [[key, value] for key, value in {**_machine(), **peers.versions()}.items() if value]),
    ]
    return '\n\n'.join(parts) + '\n'


def _warning(chapter: Chapter) -> str:
    return ' **Too much: these numbers are worth little.**' if chapter.busy > QUIET else ''


def _limit(limit: Limit) -> list[str]:
    numbers = [f'{limit.measured:.2f}{limit.unit}', f'{limit.limit:g}{limit.unit}']
    return [limit.what, *numbers, 'kept' if limit.is_kept else '**missed**']


def _chapter(chapter: Chapter) -> str:
    parts = [
        f'## {chapter.title}',
        chapter.text,
        _table(_HEAD, [_row(one, chapter.series) for one in chapter.series]),
        *(f'- {note}' for note in chapter.notes),
        *(f'- {one.contender.name}, a run that failed: {fault}' for one in chapter.series for fault in one.faults),
        f'Before it began, others took {chapter.busy:.0%} of the CPU.{_warning(chapter)}',
        'What was run:',
        '```\n' + '\n'.join(_command(one) for one in chapter.series) + '\n```',
    ]
    return '\n\n'.join(parts)


_HEAD = ['', 'median', 'min', 'max', 'first run', 'ours is', 'CPU', 'largest process', 'all processes', 'good runs']


def _row(one: Series, series: Sequence[Series]) -> list[str]:
    name = f'{one.contender.name} ({one.contender.note})' if one.contender.note else one.contender.name
    seconds, memory = [run.seconds for run in one.good], one.memory or Memory(0, 0)
    shown = [f'{value:.2f}' for value in (one.median, min(seconds), max(seconds))] if seconds else ['', '', '']
    return [
        f'**{name}**' if name == 'ours' else name,
        *shown,
        f'{one.warm_up.seconds:.2f}',
        '' if name == 'ours' else f'{ratio(series, one.contender.name):.2f} x',
        f'{max((run.cpu for run in one.good), default=0):.2f}',
        *(f'{peak / 1e6:.0f} MB' for peak in (memory.largest, memory.together)),
        f'{len(one.good)} of {len(one.runs)}',
    ]


def _command(one: Series) -> str:
    """The command as it was run, without our folders."""
    text = re.sub(r'h1([, ])h2\1[h0-9, ]*h(\d+)', r'h1\1h2\1…\1h\2', shlex.join(one.contender.argv))
    names = {str(peers.VENV / 'bin'): '', str(peers.HERE): 'benchmarks/', str(peers.HERE.parent / '.venv/bin'): ''}
    for path, shown in names.items():
        text = text.replace(f'{path}/', shown)
    for word in one.contender.argv:
        for part in (word, word.partition('=')[2], word.removeprefix('-F '), word.removeprefix('ssh -F ')):
            if part.startswith('/') and part.endswith('/ssh_config'):
                text = text.replace(part, 'ssh_config')
    return text


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


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
