"""`remote_runner jobs`: what is recorded of batches and sweeps on this machine."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from remote_runner.cli.main import show_error
from remote_runner.cli.options import Parser, add_log_level
from remote_runner.errors import JobHeld, RemoteRunnerError, UsageError

if TYPE_CHECKING:
    from remote_runner.jobs.places import Place
    from remote_runner.jobs.reading import AttemptRow, TaskRow
    from remote_runner.jobs.summary import Summary

_DESCRIPTION = """\
Show how batches and sweeps are that were run from this machine, tell those that run what to do, and remove what is
recorded of them.

    remote_runner jobs list
    remote_runner jobs show latency
    remote_runner jobs attach                               follow one that runs elsewhere
    remote_runner jobs pause                                from any terminal; what runs goes on
    remote_runner jobs resume                               after a pause, or where its master is gone
    remote_runner jobs explain 17                           why task 17 does not run, or what became of it
    remote_runner jobs failed --json | jq -r .command       what failed in the newest job
    remote_runner jobs export csv 20260803-1412 >results.csv
    remote_runner jobs clean --older 30d

ID is what `list` shows, or the beginning of it that no other job has, or the name of a sweep: the newest of that name.
Without it the newest job of all is meant.
"""
_USAGE = """\
%(prog)s list [options]
       %(prog)s show|failed [ID] [options]
       %(prog)s attach|resume [ID] [options]
       %(prog)s pause|cancel [ID] [options]
       %(prog)s explain TASK [ID] [options]
       %(prog)s export csv|jsonl [ID] [options]
       %(prog)s clean [ID...] [options]"""
#: Of the largest number that a task may have.
_DIGITS = 15
#: Actions that run a job have options of their own.
OTHERS = {'attach': 'remote_runner.cli.follow', 'resume': 'remote_runner.cli.resume'}
_SECONDS = {'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 7 * 86400}


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = Parser(
        prog='remote_runner jobs',
        description=_DESCRIPTION,
        usage=_USAGE,
        epilog='exit status: 0 it was done, 1 a journal cannot be read, a job could not be removed, or one that was\n'
        'to be told something does not run, 2 there is no such job',
    )
    actions = [*_ACTIONS, *OTHERS]
    what = 'what to do: ' + ', '.join(actions) + '; the last two have options of their own (--help)'
    parser.add_argument('action', choices=actions, metavar='ACTION', help=what)
    what = 'the job that is meant (default: the newest); before it stands the format for export, the TASK for explain'
    parser.add_argument('words', nargs='*', metavar='ID', help=what)
    what = 'clean: remove only what was not touched for so long, as 90m, 12h, 30d or 4w'
    parser.add_argument('--older', type=_age, metavar='AGE', help=what)
    parser.add_argument('-y', '--yes', action='store_true', help='clean: remove without asking')
    parser.add_argument(
        '--json', action='store_true', help='write one JSON object a line to stdout, for each job or task there is'
    )
    add_log_level(parser)
    return parser


def _age(text: str) -> float:
    found = re.fullmatch(r'(\d{1,6})([smhdw])', text)
    if found is None:
        raise argparse.ArgumentTypeError(f'{text!r} is no age such as 12h or 30d')
    return float(found[1]) * _SECONDS[found[2]]


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    if arguments and arguments[0] in OTHERS:
        return int(importlib.import_module(OTHERS[arguments[0]]).main(arguments[1:]))
    options = make_parser().parse_intermixed_args(arguments)
    if options.action in OTHERS:
        raise UsageError(f'{options.action} comes first', remedy=f'remote_runner jobs {options.action} ...')
    if options.action != 'clean' and (options.older is not None or options.yes):
        raise UsageError('--older and --yes belong to `jobs clean`')
    from remote_runner.ui.log import configure

    configure(options.log_level)
    return _ACTIONS[options.action](options)


def _job(words: Sequence[str]) -> Place:
    """The job that the rest of the words means."""
    from remote_runner.jobs.summary import meant

    if len(words) > 1:
        raise UsageError(f'{words[1]!r} is one word too many', remedy='one job at a time')
    return meant(words[0] if words else None)


# ---- list, show, failed ----------------------------------------------------------------------------------------


def _list(options: argparse.Namespace) -> int:
    if options.words:
        raise UsageError('`jobs list` shows all jobs', remedy='`jobs show ID` shows one')
    from remote_runner.jobs.places import places

    jobs, status = _summaries(places())
    from remote_runner.ui.journal import jobs_table

    _show(options, (job.to_dict() for job in jobs), lambda color: jobs_table(jobs, color=color))
    return max(status, _show_damage(jobs))


def _show_damage(jobs: Iterable[Summary]) -> int:
    """Tell of those that are damaged; the exit status."""
    damaged = [job for job in jobs if job.damage]
    for job in damaged:
        print(f'ERROR: {job.damage}', file=sys.stderr)  # noqa: T201
    return int(bool(damaged))


def _summaries(places: Iterable[Place]) -> tuple[list[Summary], int]:
    """What is known of them; of each that cannot be read an error is shown."""
    from remote_runner.jobs.summary import summary

    found, status = [], 0
    for place in places:
        try:
            found.append(summary(place))
        except RemoteRunnerError as error:
            show_error(error)
            status = error.exit_status
    return found, status


def _one(options: argparse.Namespace) -> int:
    from remote_runner.jobs.journal import Journal
    from remote_runner.jobs.summary import summary_of
    from remote_runner.ui.journal import job_text

    place = _job(options.words)
    with Journal.look(place.folder) as reader:
        job, hosts = summary_of(place, reader), reader.hosts()
    shown = {**job.to_dict(), 'hosts': [row._asdict() for row in hosts]}
    _show(options, [shown], lambda color: job_text(job, hosts, color=color))
    return 0


def _failed(options: argparse.Namespace) -> int:
    from remote_runner.jobs.journal import Journal
    from remote_runner.ui.journal import failed_text

    with Journal.look(_job(options.words).folder) as reader, reader.at_one_time():
        rows = list(reader.tasks(only_failed=True))
        failures = [(row, list(reader.attempts(row.number))) for row in rows]
    shown = (_described(row, attempts) for row, attempts in failures)
    _show(options, shown, lambda color: failed_text(failures, color=color))
    return 0


def _described(row: TaskRow, attempts: Iterable[AttemptRow]) -> dict[str, Any]:
    told = [
        {
            **{name: getattr(each, name) for name in ('attempt', 'host', 'state', 'began', 'seconds')},
            'cause': each.outcome and each.outcome.cause and each.outcome.cause.value,
            'status': each.outcome and each.outcome.status,
            'why': each.outcome.why if each.outcome else '',
            'tail': each.tail,
        }
        for each in attempts
    ]
    outcome = row.outcome
    return {
        'task': row.position,
        'command': row.task.command,
        'parameters': row.task.parameters,
        'cause': outcome and outcome.cause and outcome.cause.value,
        'status': outcome and outcome.status,
        'why': outcome.why if outcome else '',
        'attempts': told,
    }


def _show(options: argparse.Namespace, objects: Iterable[dict[str, Any]], text: Callable[[bool], str]) -> None:
    from remote_runner.ui.output import Output
    from remote_runner.ui.terminal import can_color

    if options.json:
        Output().write(''.join(f'{json.dumps(each)}\n' for each in objects))
    else:
        Output().write(text(can_color(sys.stdout)))


# ---- jobs that run ---------------------------------------------------------------------------------------------


def _tell(options: argparse.Namespace) -> int:
    """Tell the master of a job what to do."""
    from remote_runner.jobs.control import ask

    request, told = _TOLD[options.action]
    place = _job(options.words)
    answer = ask(place.folder, {'do': request})
    _show(options, [{'id': place.id, **answer}], lambda color: f'job {place.id} {told}\n')
    return 0


#: What a master is asked to do, and what it does then.
_TOLD = {
    'pause': ('pause', 'is paused: what runs goes on, and nothing more is begun'),
    'cancel': ('cancel', 'is cancelled: what runs is ended'),
}


def _explain(options: argparse.Namespace) -> int:
    """What the journal knows of a task, and what the master says of one that is not settled."""
    from remote_runner.jobs.control import ask
    from remote_runner.jobs.holding import master
    from remote_runner.jobs.journal import Journal
    from remote_runner.ui.journal import explained

    position, *words = options.words or ['']
    if not position.isdecimal() or len(position) > _DIGITS:
        what = f'{position!r} is no task' if position else 'a task is missing'
        raise UsageError(what, remedy='`jobs explain TASK [ID]`; tasks count from 0')
    place = _job(words)
    with Journal.look(place.folder) as reader, reader.at_one_time():
        row = next(reader.tasks(position=int(position)), None)
        attempts = [] if row is None else list(reader.attempts(row.number))
    if row is None:
        raise UsageError(f'job {place.id} has no task {position}', remedy='tasks count from 0')
    answer: dict[str, Any] = {}
    if row.outcome is None and master(place.folder) is not None:
        answer = ask(place.folder, {'do': 'explain', 'task': row.position})
    why = str(answer.get('why', '') if answer else '' if row.outcome else 'the job is not running')
    _show(
        options,
        [{**_described(row, attempts), 'explained': why}],
        lambda color: explained(row, attempts, why, color=color),
    )
    return 0


# ---- export ----------------------------------------------------------------------------------------------------


def _export(options: argparse.Namespace) -> int:
    from remote_runner.jobs import export
    from remote_runner.jobs.journal import Journal
    from remote_runner.ui.output import Output, check_stdout
    from remote_runner.ui.text import harmless

    check_stdout('what is exported')
    formats = {'csv': export.csv_lines, 'jsonl': export.json_lines}
    form, *words = options.words or ['']
    if form not in formats:
        raise UsageError(
            f'{form!r} is no format' if form else 'a format is missing', remedy='`jobs export csv|jsonl [ID]`'
        )
    if options.json and form != 'jsonl':
        raise UsageError('--json and csv exclude each other', remedy='`jobs export jsonl` writes JSON')
    output, is_terminal = Output(), sys.stdout is not None and sys.stdout.isatty()
    with Journal.look(_job(words).folder) as reader, reader.at_one_time():
        for line in formats[form](reader):
            output.write(harmless(line, keep='\r\n\t') if is_terminal else line)
            if not output.is_open:
                break
    return 0


# ---- clean -----------------------------------------------------------------------------------------------------


def _clean(options: argparse.Namespace) -> int:
    from remote_runner.jobs.places import find, places
    from remote_runner.jobs.removal import room

    named = list(dict.fromkeys(find(text) for text in options.words))
    jobs, status = _summaries(named or places())
    if named:
        for job in jobs:
            if job.master is not None:
                raise JobHeld(f'job {job.place.id} is running ({job.master})', remedy='end it first')
    else:
        status = max(status, _show_damage(jobs))
        jobs = [job for job in jobs if job.state in ('done', 'failed', 'cancelled')]
    if options.older is not None:
        jobs = [job for job in jobs if job.changed <= time.time() - options.older]
    wanted = [(job, room(job.place)) for job in jobs]
    from remote_runner.ui.journal import cleaning_table
    from remote_runner.ui.output import Output
    from remote_runner.ui.terminal import can_color

    if not options.json:
        Output().write(cleaning_table(wanted, color=can_color(sys.stdout)))
    if wanted and not options.yes and not _confirmed(wanted, options):
        print('nothing was removed', file=sys.stderr)  # noqa: T201
        return 1
    return max(status, _remove(wanted, options))


def _confirmed(wanted: Sequence[tuple[Summary, int]], options: argparse.Namespace) -> bool:
    """Ask once for all; whom JSON on stdout tells nothing reads on stderr what it is about."""
    from remote_runner.ui.journal import cleaning_table, total
    from remote_runner.ui.terminal import can_color

    if not sys.stdin.isatty():
        raise UsageError('there is nobody to confirm what is to be removed', remedy='--yes removes it without asking')
    sys.stdout.flush()
    if options.json:
        sys.stderr.write(cleaning_table(wanted, color=can_color(sys.stderr)))
    sys.stderr.write(f'Remove {total(wanted)} with all results? [yes/no] ')
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ('y', 'yes')


def _remove(wanted: Iterable[tuple[Summary, int]], options: argparse.Namespace) -> int:
    from remote_runner.jobs.removal import remove
    from remote_runner.ui.output import Output

    status = 0
    for job, size in wanted:
        try:
            remove(job.place)
        except RemoteRunnerError as error:  # one that was resumed meanwhile, say
            show_error(error)
            status = error.exit_status
            continue
        if options.json:
            Output().write(json.dumps({'id': job.place.id, 'outcome': 'removed', 'size': size}) + '\n')
    return status


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    'list': _list,
    'show': _one,
    'failed': _failed,
    **dict.fromkeys(_TOLD, _tell),
    'explain': _explain,
    'export': _export,
    'clean': _clean,
}
