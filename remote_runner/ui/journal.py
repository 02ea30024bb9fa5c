"""Jobs that are recorded on this machine, for people to read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence

from remote_runner.jobs.policy import Cause, Outcome
from remote_runner.jobs.reading import AttemptRow, HostRow, TaskRow
from remote_runner.jobs.summary import Summary
from remote_runner.ui.tables import Column, layout
from remote_runner.ui.text import count, first_line, harmless, indented, seconds, size

#: Characters of a text from outside that a table shows, and rows of a table about one job.
_WIDTH, _ROWS = 60, 200
_NUMBERS = {'TASKS', 'DONE', 'FAILED', 'LEFT', 'LOST', 'SUPERSEDED', 'RUNNING', 'TIME', 'TASK', 'ATTEMPT', 'SIZE'}
_CAUSES = {
    Cause.LOST: 'lost with its host',
    Cause.TIMEOUT: 'over its time limit',
    Cause.EXIT: 'ended without success',
    Cause.REJECTED: 'not accepted',
    Cause.RESOURCES: 'could not be started',
    Cause.CANCELLED: 'cancelled',
    Cause.POISON: 'poison: lost with several hosts',
}


def _columns(names: str) -> list[Column]:
    return [Column(name, name in _NUMBERS) for name in names.split()]


def jobs_table(jobs: Sequence[Summary], *, color: bool = False) -> str:
    """A line a job, and how many there are."""
    rows = [
        [
            job.place.id,
            _short(job.place.name) or '-',
            job.state,
            *(
                '-' if job.damage else str(number)
                for number in (job.counts.tasks, job.counts.done, failed(job), job.counts.left)
            ),
            _short(_words(job.meta.get('what'))),
        ]
        for job in jobs
    ]
    lines = layout(_columns('ID NAME STATE TASKS DONE FAILED LEFT WHAT'), rows, color=color) if rows else []
    return '\n'.join([*lines, count(len(rows), 'job') if rows else 'no job']) + '\n'


def failed(job: Summary) -> int:
    """How many of its tasks finally failed."""
    return sum(job.counts.failed.values())


def job_text(job: Summary, hosts: Iterable[HostRow], *, color: bool = False) -> str:
    """What there is to know of one job."""
    meta, counts = job.meta, job.counts
    master = f' ({job.master})' if job.master is not None else ''
    values = {
        'job': job.place.id,
        'name': job.place.name,
        'what': _words(meta.get('what')),
        'state': f'{job.state}{master}',
        'started': _moment(meta.get('started')),
        'ended': _moment(meta.get('ended')),
        'tasks': f'{counts.tasks}: {counts.done} done, {failed(job)} failed, {counts.left} left'
        + (f' ({counts.running} running)' if counts.running and job.master else ''),
        **{
            f'  {_CAUSES[cause]}': str(number)
            for cause, number in sorted(counts.failed.items(), key=lambda one: -one[1])
        },
        'folder': str(job.place.folder),
    }
    room = max(len(name) for name, value in values.items() if value)
    lines = [f'{name:<{room}}  {harmless(value)}' for name, value in values.items() if value]
    rows = [
        [
            harmless(row.host),
            *(str(number) for number in (row.done, row.failed, row.lost, row.superseded, row.running)),
            seconds(row.seconds),
        ]
        for row in hosts
    ]
    if rows:
        columns = _columns('HOST DONE FAILED LOST SUPERSEDED RUNNING TIME')
        lines += ['', *_shortened(layout(columns, rows[:_ROWS], color=color), len(rows))]
    return '\n'.join(lines) + '\n'


def failed_text(failures: Sequence[tuple[TaskRow, Sequence[AttemptRow]]], *, color: bool = False) -> str:
    """Tasks that finally failed: a table, what each printed last, and how many there are of each cause."""
    if not failures:
        return 'no task failed\n'
    rows = [
        [
            str(row.position),
            said(row.outcome),
            str(len(attempts)),
            harmless(attempts[-1].host) if attempts else '-',
            _short(row.task.command),
        ]
        for row, attempts in failures[:_ROWS]
    ]
    columns = [Column('TASK', True), Column('CAUSE'), Column('ATTEMPTS', True), Column('HOST'), Column('COMMAND')]
    lines = _shortened(layout(columns, rows, color=color), len(failures))
    for row, attempts in failures[:_ROWS]:
        tail = indented(attempts[-1].tail) if attempts else []
        lines += [f'task {row.position}:', *tail] if tail else []
    causes = Counter(row.outcome.cause for row, _ in failures if row.outcome)
    told = ', '.join(f'{number} {_CAUSES[cause]}' for cause, number in causes.most_common() if cause is not None)
    return '\n'.join([*lines, f'{count(len(failures), "task")} failed: {told}']) + '\n'


def explained(row: TaskRow, attempts: Sequence[AttemptRow], why: str, *, color: bool = False) -> str:
    """All attempts at a task, and why it does not run where it is not settled.

    Args:
        why: what its master says.
    """
    lines = [f'task {row.position}: {said(row.outcome)}', f'command: {_short(row.task.command)}']
    if row.task.parameters:
        values = ', '.join(f'{name}={value}' for name, value in row.task.parameters.items())
        lines.append(f'parameters: {harmless(values)}')
    lines += [harmless(line) for line in why.splitlines()]
    rows = [
        [
            str(each.attempt),
            harmless(each.host),
            _moment(each.ordered if each.began is None else each.began),
            '-' if each.seconds is None else seconds(each.seconds),
            'running' if each.outcome is None else said(each.outcome),
            'superseded' if each.state == 'superseded' else '',
        ]
        for each in attempts
    ]
    if rows:
        columns = [Column(name, name in _NUMBERS) for name in ('ATTEMPT', 'HOST', 'BEGAN', 'TIME', 'END', '')]
        lines += ['', *layout(columns, rows, color=color)]
    return '\n'.join(lines) + '\n'


def said(outcome: Outcome | None) -> str:
    """An outcome in some words, harmless."""
    if outcome is None:
        return 'not settled'
    if outcome.cause is None:
        return 'ok'
    status = f' {outcome.status}' if outcome.status is not None else ''
    return f'{outcome.cause.value}{status}' + (f': {_short(first_line(outcome.why))}' if outcome.why else '')


def cleaning_table(jobs: Sequence[tuple[Summary, int]], *, color: bool = False) -> str:
    """Jobs that are to be removed with the bytes that they take, and how many they are."""
    rows = [
        [job.place.id, _short(job.place.name) or '-', job.state, _left(job), _moment(job.changed), size(room)]
        for job, room in jobs
    ]
    lines = layout(_columns('ID NAME STATE LEFT CHANGED SIZE'), rows, color=color) if rows else []
    return '\n'.join([*lines, total(jobs) if rows else 'nothing to remove']) + '\n'


def _left(job: Summary) -> str:
    return '-' if job.damage else str(job.counts.left)


def total(jobs: Sequence[tuple[Summary, int]]) -> str:
    """`3 jobs (1.2 MB)`."""
    return f'{count(len(jobs), "job")} ({size(sum(room for _, room in jobs))})'


def _shortened(lines: list[str], number: int) -> list[str]:
    return [*lines, f'… and {number - _ROWS} more'] if number > _ROWS else lines


def _short(text: str) -> str:
    text = harmless(text)
    return text if len(text) <= _WIDTH else f'{text[: _WIDTH - 1]}…'


def _words(value: object) -> str:
    return '' if value is None else str(value)


def _moment(when: object) -> str:
    return time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(when)) if isinstance(when, int | float) else ''
