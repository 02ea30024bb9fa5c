"""Batches from Python: results as an iterator.

    with Connector(SshOptions()) as connector:
        for result in results(['echo hello', 'uname -a'], parse_hosts(['4/node1,node2']), connector):
            print(result.position, result.ended.outcome.cause, result.ended.results)
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import Any

from remote_runner.hosts.address import Address
from remote_runner.hosts.pool import Opens
from remote_runner.jobs.book import Aside
from remote_runner.jobs.engines.base import Fact
from remote_runner.jobs.formats import Result
from remote_runner.jobs.journal import Journal
from remote_runner.jobs.master import Master
from remote_runner.jobs.places import make
from remote_runner.jobs.policy import Policy
from remote_runner.jobs.run import Job, run
from remote_runner.jobs.scheduler import Order, Scheduler
from remote_runner.jobs.source import Given
from remote_runner.jobs.task import Task

#: What comes last: all is over.
_END = None


def results(
    tasks: Iterable[Task | str],
    addresses: Iterable[Address],
    connector: Opens,
    policy: Policy | None = None,
    **job: Any,
) -> Iterator[Result]:
    """Run tasks over the slots of hosts; yield what became of each, also of those that failed, when that is known.

    The job is in the journal, as those of `remote_runner batch` are. Whoever leaves the loop early ends what runs.

    Args:
        tasks: commands for `sh`, or more than that. They are taken as slots get free.
        addresses: the hosts; their `slots`, or as many as they have cores.
        connector: makes connections.
        policy: how attempts are made.
        job: further values of `Job`: `lease`, `keep`, `environment`...

    Raises:
        HostsFailed: no host can be had.
        JournalFailed: nothing can be stored any more.
    """
    place = make()
    source = Given(task if isinstance(task, Task) else Task(task) for task in tasks)
    wanted = Job(id=place.id, addresses=list(addresses), source=source, policy=policy or Policy(), **job)
    hears = _Hears()
    masters: list[tuple[Master, Scheduler]] = []
    is_left = threading.Event()
    failures: list[BaseException] = []

    def meet(master: Master, scheduler: Scheduler) -> None:
        masters.append((master, scheduler))
        if is_left.is_set():
            scheduler.cancel()

    def work() -> None:
        try:
            with Journal.create(place.folder, {'kind': 'python'}) as journal:
                run(wanted, journal, connector, hears, meet=meet)
        except BaseException as error:  # raised again in the thread that waits for results
            failures.append(error)
        hears.queue.put(_END)

    thread = threading.Thread(target=work, name='job', daemon=True)
    thread.start()
    try:
        while (result := hears.queue.get()) is not _END:
            yield result
    finally:
        is_left.set()
        for master, scheduler in masters:
            master.ask(scheduler.cancel)
        thread.join()
    for failure in failures:
        raise failure


class _Hears:
    """See `master.Hears`."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[Result | None] = SimpleQueue()
        self._delivered: list[int] = []

    def expect(self, total: int, *, is_all: bool) -> None:
        """Nobody asks."""

    def ordered(self, orders: Iterable[Order]) -> None:
        """Nobody asks."""

    def hear(self, fact: Fact | Aside, *, counted: bool = True) -> None:
        """Nobody asks."""

    def give(self, results: list[Result]) -> None:
        """See `Hears`."""
        for result in results:
            self._delivered.append(result.ended.number)
            self.queue.put(result)

    def delivered(self) -> list[int]:
        """See `Hears`."""
        found, self._delivered = self._delivered, []
        return found
