"""What `batch`, `sweep` and `jobs resume` have in common: a job is run at this terminal, and its end is told."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from remote_runner.errors import ControlFailed, RemoteRunnerError
from remote_runner.jobs.audience import Audience
from remote_runner.jobs.control import Control
from remote_runner.jobs.deliver import Delivery
from remote_runner.jobs.joblog import Joblog
from remote_runner.jobs.journal import Journal, Loaded, Turn
from remote_runner.jobs.recall import Recall
from remote_runner.jobs.run import Job, run
from remote_runner.jobs.statistics import Statistics
from remote_runner.ui.jobs import JobsTerminal, stdout_sink
from remote_runner.ui.text import are, count

if TYPE_CHECKING:
    from remote_runner.hosts.address import Address
    from remote_runner.hosts.pool import Opens
    from remote_runner.jobs.formats import Format
    from remote_runner.jobs.journal import Matched
    from remote_runner.jobs.master import Master
    from remote_runner.jobs.places import Place
    from remote_runner.jobs.policy import Policy
    from remote_runner.jobs.scheduler import Scheduler

log = logging.getLogger('remote_runner')
#: Seconds in which the thread that runs a job answers, unless it is busy.
ANSWER = 2.0


def meta_of(kind: str, arguments: Sequence[str]) -> dict[str, object]:
    """What the journal keeps of a command, for it to be resumed: never a password."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('-p', '--pass')
    parser.add_argument('--detach', action='store_true')
    _, rest = parser.parse_known_args(list(arguments))
    return {'kind': kind, 'arguments': rest, 'folder': str(Path.cwd()), 'program': sys.argv[0]}


def tried_as(policy: Policy) -> list[object]:
    """How often and for which causes tasks are tried again, for JSON."""
    causes = policy.retry_on and [[on.cause.value, on.status] for on in policy.retry_on]
    return [policy.retries, causes and list(causes)]


def tell_changes(what: str, matched: Matched, noun: str) -> None:
    """Say that tasks were edited, if they were."""
    if matched.new or matched.dropped:
        gone = f'{matched.dropped} {"is" if matched.dropped == 1 else "are"} gone'
        log.info('%s has changed: %s new, %s', what, are(matched.new, noun), gone)


def tell_plan(what: str, addresses: Iterable[Address]) -> None:
    """Say what would be run where: `--dry-run`."""
    from remote_runner.hosts.address import fold

    slots: dict[int | None, list[str]] = {}
    for address in addresses:
        slots.setdefault(address.slots, []).append(address.where)
    hosts = count(sum(map(len, slots.values())), 'host')
    each = {number: 'a slot a core' if number is None else count(number, 'slot') for number in slots}
    told = ', '.join(f'{fold(names)} ({each[number]})' for number, names in slots.items())
    log.info('%s on %s: %s', what, hosts, told)


class Told(NamedTuple):
    """What is written of a job.

    Args:
        form: how results are written to stdout; None: they are not.
        keep_order: whether that is in the order of their tasks.
        joblog: a file to which a line a task is appended; None: nowhere.
        json: whether the statistics at the end are written to stderr as JSON.
        live: whether there is a live display; None: where stderr is a terminal that can show one.
    """

    form: Format | None = None
    keep_order: bool = False
    joblog: Path | None = None
    json: bool = False
    live: bool | None = None

    @classmethod
    def of(cls, options: argparse.Namespace) -> Told:
        """What the options of `add_result_options` say."""
        from remote_runner.cli.job_options import format_of

        form = None if options.format is None else format_of(options)
        return cls(form, options.keep_order, options.joblog, options.json)


class Running:
    """A job that is run from here.

    Args:
        job: what.
        place: where it lies on this machine.
        told: what is written of it.
    """

    def __init__(self, job: Job, place: Place, told: Told) -> None:
        self._job = job
        self._place = place
        self._told = told
        self._master: Master | None = None
        self._scheduler: Scheduler | None = None
        self._delivery: Delivery | None = None
        #: Where tasks stand in what the user wrote, where that may have changed.
        self._positions: dict[int, int] = {}
        self._is_paused = self._is_given_up = False
        #: Whether tasks were cancelled.
        self.is_cancelled = False
        self.statistics = Statistics(lambda number: self._positions.get(number, number))

    def begin(self, journal: Journal, connector: Opens) -> int:
        """Run it from its beginning; the exit status."""
        log.info('job %s', self._place.id)
        journal.note(tried_as=tried_as(self._job.policy))
        return self._run(journal, connector, None)

    def resume(self, journal: Journal, connector: Opens) -> int:
        """Go on where another master left it; the exit status."""
        self._reconsider(journal)
        loaded = journal.load()
        done, failed = loaded.done, sum(loaded.failed.values())
        log.info('job %s: of %s %d done, %d failed', self._place.id, count(loaded.tasks, 'task'), done, failed)
        self._positions = {task.number: task.position for task in loaded.unsettled}
        self.statistics.resumed(loaded.done, loaded.failed)
        return self._run(journal, connector, loaded)

    def _reconsider(self, journal: Journal) -> None:
        """What had failed for good is tried again, where tasks are tried more often now than the last time."""
        policy = self._job.policy
        now, before = tried_as(policy), journal.meta.get('tried_as')
        if now == before:
            return
        journal.note(tried_as=now)
        if before is not None and (number := journal.reopen(policy)):
            log.info('trying %s again that had failed: there are more retries now', count(number, 'task'))

    def cancel(self) -> None:
        """End what runs, and begin nothing more. From any thread."""
        self._is_given_up = True
        master, scheduler = self._master, self._scheduler
        if master is not None and scheduler is not None:
            master.ask(scheduler.cancel)

    def _meet(self, master: Master, scheduler: Scheduler) -> None:
        self._master, self._scheduler = master, scheduler
        if self._is_given_up:
            scheduler.cancel()

    def _run(self, journal: Journal, connector: Opens, loaded: Loaded | None) -> int:
        told = self._told
        self.statistics.expect(0, is_all=False, hosts=[address.where for address in self._job.addresses])
        more = f'remote_runner jobs failed {self._place.id}'
        with ExitStack() as stack:
            joblog = None if told.joblog is None else stack.enter_context(Joblog(told.joblog))
            shows = stack.enter_context(JobsTerminal(self.statistics, as_json=told.json, live=told.live, more=more))
            if told.form is not None:
                self._delivery = stack.enter_context(self._deliver(told.form))
            audience = Audience(self.statistics, shows, self._delivery, joblog)
            stack.enter_context(Control(self._place.folder, self._answer))
            try:
                if loaded is not None:
                    self._deliver_old(loaded)
                run(self._job, journal, connector, audience, loaded, self._meet)
                if self._delivery is not None:
                    self._delivery.close()
            except (RemoteRunnerError, OSError, KeyboardInterrupt):
                log.warning('job %s is not at its end: `remote_runner jobs resume %s` goes on', *[self._place.id] * 2)
                raise
            finally:
                self._master = None
                journal.write(Turn(delivered=audience.delivered()))
                if self._scheduler is not None:
                    self.statistics.saved(self._scheduler.progress.saved)
        journal.note(statistics=self.statistics.to_dict())
        view = self.statistics.view()
        if not view.total:
            log.warning('there were no commands')
        self.is_cancelled = view.cancelled > 0
        if self.is_cancelled:
            what = 'it was cancelled' if self._is_given_up else 'so many have failed that it was given up (halt)'
            log.warning('job %s: %s; %s', self._place.id, what, f'`remote_runner jobs resume {self._place.id}` goes on')
        return 1 if audience.refused or view.has_failed or view.cancelled else 0

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What another terminal asks, see `jobs/control.py`."""
        master, scheduler = self._master, self._scheduler
        if master is None or scheduler is None:
            raise ControlFailed('the job has just begun, or is ending', remedy='ask again in a moment')
        what = request['do']
        if what == 'pause':
            self._is_paused = True
            master.ask(scheduler.pause)
        elif what == 'resume' and not self._is_paused:
            raise ControlFailed('the job runs, and is not paused', remedy='`remote_runner jobs attach` follows it')
        elif what == 'resume':
            self._is_paused = False
            master.ask(scheduler.resume)
        elif what == 'cancel':
            self.cancel()
        elif what == 'status':
            return {'state': 'paused' if self._is_paused else 'running', **self.statistics.to_dict()}
        elif what == 'explain':
            position = request.get('task')
            if not isinstance(position, int):
                raise ControlFailed(f'{position!r} is no task', remedy='who asks may be of another version')
            number = next((number for number, at in self._positions.items() if at == position), position)
            return {'why': _asked(master, lambda: scheduler.why_waiting(number, time.monotonic()))}
        return {}

    def _deliver(self, form: Format) -> Delivery:
        return Delivery(
            form,
            stdout_sink(),
            read=Recall(self._place.folder),
            keep_order=self._told.keep_order,
            on_failure=self._stop_delivering,
            on_written=self._wake,
        )

    def _stop_delivering(self) -> None:
        if self._master is not None and self._delivery is not None:
            self._master.ask(self._delivery.check)

    def _wake(self) -> None:
        if self._master is not None:
            self._master.wake()

    def _deliver_old(self, loaded: Loaded) -> None:
        """What was settled, and nobody was given."""
        if self._delivery is None:
            return
        waiting = {one.position: one.number for one in loaded.undelivered}
        if self._told.keep_order:
            open_positions = waiting.keys() | {task.position for task in loaded.unsettled}
            self._delivery.skip(position for position in range(loaded.tasks) if position not in open_positions)
        for position, number in waiting.items():
            self._delivery.recall(position, number)


def _asked(master: Master, question: Callable[[], str]) -> str:
    """The answer, found in the thread that runs the job."""
    answers: list[str] = []
    is_answered = threading.Event()

    def find() -> None:
        answers.append(question())
        is_answered.set()

    master.ask(find)
    if not is_answered.wait(ANSWER):
        raise ControlFailed('the job is busy', remedy='ask again in a moment')
    return answers[0]
