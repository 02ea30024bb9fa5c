"""What `batch`, `sweep` and `jobs resume` have in common: a job is run at this terminal, and its end is told."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from remote_runner.errors import RemoteRunnerError
from remote_runner.jobs.audience import Audience
from remote_runner.jobs.deliver import Delivery
from remote_runner.jobs.joblog import Joblog
from remote_runner.jobs.journal import Journal, Loaded, Turn
from remote_runner.jobs.recall import Recall
from remote_runner.jobs.run import Job, run
from remote_runner.jobs.sink import Descriptor
from remote_runner.jobs.statistics import Statistics

if TYPE_CHECKING:
    from remote_runner.hosts.pool import Opens
    from remote_runner.jobs.formats import Format
    from remote_runner.jobs.master import Master
    from remote_runner.jobs.places import Place
    from remote_runner.jobs.scheduler import Scheduler

log = logging.getLogger('remote_runner')


def meta_of(kind: str, arguments: Sequence[str]) -> dict[str, object]:
    """What the journal keeps of a command, for it to be resumed: never a password."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('-p', '--pass')
    _, rest = parser.parse_known_args(list(arguments))
    return {'kind': kind, 'arguments': rest, 'folder': str(Path.cwd()), 'program': sys.argv[0]}


class Running:
    """A job that is run from here.

    Args:
        job: what.
        place: where it lies on this machine.
        form: how results are written to stdout.
        options: those of `job_options`.
    """

    def __init__(self, job: Job, place: Place, form: Format, options: argparse.Namespace) -> None:
        self._job = job
        self._place = place
        self._form = form
        self._options = options
        #: Where tasks stand in what the user wrote, where that may have changed.
        self._positions: dict[int, int] = {}
        self.statistics = Statistics(lambda number: self._positions.get(number, number))

    def begin(self, connector: Opens, meta: dict[str, object]) -> int:
        """Run it from its beginning; the exit status."""
        with Journal.create(self._place.folder, meta) as journal:
            return self._run(journal, connector, None)

    def resume(self, journal: Journal, connector: Opens) -> int:
        """Go on where another master left it; the exit status."""
        loaded = journal.load()
        done, failed = loaded.done, sum(loaded.failed.values())
        log.info('job %s: of %d tasks %d are done, %d have failed', self._place.id, loaded.tasks, done, failed)
        self._positions = {task.number: task.position for task in loaded.unsettled}
        return self._run(journal, connector, loaded)

    def _run(self, journal: Journal, connector: Opens, loaded: Loaded | None) -> int:
        options, folder = self._options, self._place.folder
        masters: list[Master] = []

        def meet(master: Master, scheduler: Scheduler) -> None:
            masters.append(master)

        def fail() -> None:
            for master in masters:
                master.ask(delivery.check)

        def wake() -> None:
            for master in masters:
                master.wake()

        if loaded is None:
            log.info('job %s', self._place.id)
        self.statistics.expect(0, is_all=False, hosts=[address.where for address in self._job.addresses])
        with ExitStack() as stack:
            joblog = stack.enter_context(Joblog(options.joblog)) if options.joblog is not None else None
            delivery = Delivery(
                self._form,
                Descriptor(1),
                read=Recall(folder),
                keep_order=options.keep_order,
                on_failure=fail,
                on_written=wake,
            )
            stack.enter_context(delivery)
            audience = Audience(self.statistics, delivery, joblog)
            try:
                if loaded is not None:
                    self._deliver_old(loaded, delivery)
                run(self._job, journal, connector, audience, loaded, meet)
                delivery.close()
            except (RemoteRunnerError, OSError, KeyboardInterrupt):
                log.warning('job %s is not at its end: `remote_runner jobs resume %s` goes on', *[self._place.id] * 2)
                raise
            finally:
                journal.write(Turn(delivered=delivery.take_written()))
        return self._tell_end(audience)

    def _deliver_old(self, loaded: Loaded, delivery: Delivery) -> None:
        """What was settled, and nobody was given."""
        waiting = {one.position: one.number for one in loaded.undelivered}
        if self._options.keep_order:
            delivery.skip(position for position in range(loaded.tasks) if position not in waiting)
        for position, number in waiting.items():
            delivery.recall(position, number)

    def _tell_end(self, audience: Audience) -> int:
        if self._options.json:
            sys.stderr.write(json.dumps(self.statistics.to_dict()) + '\n')
        view = self.statistics.view()
        return 1 if audience.failed or view.has_failed or view.cancelled else 0
