"""The master of a job: hears what happened, lets the scheduler decide, makes it true in the journal, and acts on it.

    master = Master(journal, scheduler, engine, source, hear)
    status = master.run()

One thread runs it. What is ordered stands in the journal before a host hears of it, so no attempt ever comes twice;
what has ended stands there before a host forgets it, and before anybody is given a result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from remote_runner.errors import HostsFailed, RemoteRunnerError
from remote_runner.jobs.book import Aside, Cancel, Settled, Start
from remote_runner.jobs.engines.base import (
    Attempt,
    Ended,
    Engine,
    Fact,
    HostDown,
    HostLoad,
    HostSilent,
    HostUp,
    Key,
    Started,
)
from remote_runner.jobs.formats import Result
from remote_runner.jobs.journal import Journal, Loaded, Turn
from remote_runner.jobs.policy import Cause, Outcome
from remote_runner.jobs.scheduler import Scheduler
from remote_runner.jobs.source import Source
from remote_runner.jobs.task import Task

#: Tasks that are taken in at once, and that wait before more are.
TAKEN_IN = 5000
#: Seconds from one turn to the next at least, while hosts have enough at hand: much less than `times.AHEAD`.
PACE = 0.01

#: Why what the task at this position brought is not accepted; '': it is.
Validate = Callable[[int, Mapping[str, 'bytes | Path']], str]


class Hears(Protocol):
    """What wants to know how a job goes."""

    def expect(self, total: int, *, is_all: bool) -> None:
        """So many tasks are known by now; `is_all`: no more come."""

    def ordered(self, orders: Iterable[Start | Cancel]) -> None:
        """This is to be begun and ended now."""

    def hear(self, fact: Fact | Aside, *, counted: bool = True) -> None:
        """A fact; whether it counts. Or a host is set aside."""

    def give(self, results: list[Result]) -> None:
        """Tasks that are settled for good."""

    def delivered(self) -> list[int]:
        """The numbers of those of which nobody need hear any more, since this was asked last."""


class _Wanted(NamedTuple):
    """A task that is not settled: where it stands, and what it is."""

    position: int
    task: Task


class Master:
    """See above.

    Args:
        journal: of the job.
        scheduler: decides; `restore` fills it from the journal.
        engine: carries out.
        source: where tasks come from.
        hears: is told what happens.
        validate: looks at what tasks bring.
        keep_failed: whether working folders of failed attempts stay.
    """

    def __init__(
        self,
        journal: Journal,
        scheduler: Scheduler,
        engine: Engine,
        source: Source,
        hears: Hears,
        *,
        validate: Validate | None = None,
        keep_failed: bool = True,
    ) -> None:
        self._journal = journal
        self._scheduler = scheduler
        self._engine = engine
        self._source = source
        self._hears = hears
        self._validate = validate
        self._keep_failed = keep_failed
        self._wanted: dict[int, _Wanted] = {}
        #: Of each host what it was told of and has not told the end of, with the time when it was.
        self._live: dict[str, dict[Key, float]] = {}
        #: What a master before us had hosts do: when they do not know it, that may be because nobody was there.
        self._inherited: set[Key] = set()
        #: How the last attempt ended of tasks that are not settled.
        self._last: dict[int, Ended] = {}
        #: Hosts that may still come, and why others do not.
        self._hoped_for: set[str] = set()
        self._failures: dict[str, str] = {}
        self._was_up = False
        #: Hosts that may hold something of a master before us, of which nothing was heard yet.
        self._unvisited: set[str] = set()
        self._total = 0
        self._turn: _Turn = _Turn()
        self._next_turn = 0.0
        self._requests: list[Callable[[], None]] = []
        self._is_asked = threading.Event()
        self._lock = threading.Lock()

    # ---- before it runs ----------------------------------------------------------------------------------------

    def restore(self, loaded: Loaded, hosts: Iterable[str] = ()) -> None:
        """Go on where another master was; `hosts` may still hold something of what it had them do."""
        self._total = loaded.tasks
        self._unvisited.update(hosts)
        for number, position, task, attempts, failures, lost_on, live in loaded.unsettled:
            self._wanted[number] = _Wanted(position, task)
            if attempts:
                self._scheduler.restore(
                    number, attempts, failures, [(attempt, host) for attempt, host, _ in live], lost_on
                )
                for attempt, host, ordered in live:
                    self._live.setdefault(host, {})[number, attempt] = ordered
                    self._inherited.add((number, attempt))
                self._hears.ordered([Start(number, attempt, host) for attempt, host, _ in live])
            else:
                self._scheduler.add(number)
        for number, attempt, host in loaded.stray:
            self._live.setdefault(host, {})[number, attempt] = 0.0
        self._hears.expect(self._total, is_all=False)

    # ---- from other threads ------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Look at once at what there is to be done."""
        self._engine.wake()

    def ask(self, request: Callable[[], None]) -> None:
        """Do this in the thread that runs the job, soon."""
        with self._lock:
            self._requests.append(request)
        self._is_asked.set()
        self._engine.wake()

    # ---- the main story ----------------------------------------------------------------------------------------

    def run(self, hosts: Iterable[str]) -> None:
        """Until all tasks are settled.

        Args:
            hosts: those that the engine has.

        Raises:
            HostsFailed: no host could be had, or none may come any more; the job can be resumed.
            JournalFailed: it cannot be written any more.
            OSError: a result cannot be stored.
        """
        self._hoped_for.update(hosts)
        self._scheduler.expect(self._hoped_for)
        self._unvisited &= self._hoped_for
        gone = [host for host in self._live if host not in self._hoped_for]
        for host in gone:
            self._hear_down(HostDown(host, 'it is not among the hosts any more', is_final=True))
        self._take_in()
        self._act()
        if self._scheduler.is_over and not self._unvisited and not any(self._live.values()):
            return  # nobody need be asked
        self._engine.open()
        self._source.listen(self._engine.wake)
        while True:
            self._take_in()
            self._act()
            if self._scheduler.is_over and not self._unvisited:
                return
            self._check_hosts()
            self._gather()
            for fact in self._engine.poll(self._patience()):
                self._hear(fact)
            with self._lock:
                requests, self._requests = self._requests, []
            for request in requests:
                request()

    def _gather(self) -> None:
        """Let short tasks end together: a turn costs more than they do, and no slot waits for us."""
        now = time.monotonic()
        if self._scheduler.is_ahead and now < self._next_turn:
            self._is_asked.wait(self._next_turn - now)
            now = time.monotonic()
        self._is_asked.clear()
        self._next_turn = now + PACE

    def _patience(self) -> float | None:
        now = time.monotonic()
        soon = self._scheduler.next_time(now)
        left = None if soon is None else max(0.0, soon - now)
        return 0.0 if self._source.has_more and self._scheduler.waiting < TAKEN_IN else left

    def _take_in(self) -> None:
        """More tasks, where few are left."""
        if self._scheduler.is_halted:
            self._scheduler.close()  # what was not read is not wanted any more
        if self._scheduler.is_closed or self._scheduler.waiting >= TAKEN_IN:
            return
        tasks = self._source.take(TAKEN_IN)
        if tasks:
            number = self._journal.add(enumerate(tasks, self._total))
            for position, task in enumerate(tasks, self._total):
                self._wanted[number] = _Wanted(position, task)
                self._scheduler.add(number)
                number += 1
            self._total += len(tasks)
        if self._source.is_over:
            self._scheduler.close()
            self._journal.note(is_complete=True)
        if tasks or self._source.is_over:
            self._hears.expect(self._total, is_all=self._source.is_over)

    def _check_hosts(self) -> None:
        """What is off now may come back later, but not where nothing ever came: then somebody has to know."""
        if not (self._hoped_for if self._was_up else self._hoped_for - self._failures.keys()):
            failures = [RemoteRunnerError(why) for why in self._failures.values()]
            raise HostsFailed(failures, 'no host is left for the job' if self._was_up else 'no host could be had')

    # ---- facts -------------------------------------------------------------------------------------------------

    def _hear(self, fact: Fact) -> None:
        if isinstance(fact, Ended):
            self._hear_end(fact)
        elif isinstance(fact, Started):
            self._scheduler.started(fact.number, fact.attempt, time.monotonic(), fact.ago)
            self._hears.hear(fact)
        elif isinstance(fact, HostUp):
            self._hear_up(fact)
        elif isinstance(fact, HostLoad):
            self._scheduler.host_load(fact.host, fact.load)
            self._hears.hear(fact)
        elif isinstance(fact, HostSilent):
            self._scheduler.host_silent(fact.host, time.monotonic())
            self._hears.hear(fact)
        else:
            self._hear_down(fact)

    def _hear_end(self, fact: Ended) -> None:
        key = fact.number, fact.attempt
        wanted = self._wanted.get(fact.number)
        if self._validate is not None and wanted is not None and fact.outcome.cause is None:
            why = self._validate(wanted.position, fact.results)
            if why:
                fact = fact._replace(outcome=Outcome(Cause.REJECTED, fact.outcome.status, why))
        counts = self._scheduler.ended(*key, fact.outcome, time.monotonic(), fact.seconds)
        self._live.get(fact.host, {}).pop(key, None)
        self._turn.ended.append((fact, counts))
        has_failed = fact.outcome.cause is not None
        self._turn.taken.append((fact.host, key, has_failed and counts and self._keep_failed))
        if counts:
            self._last[fact.number] = fact
        self._hears.hear(fact, counted=counts)

    def _hear_up(self, fact: HostUp) -> None:
        self._was_up = True
        self._unvisited.discard(fact.host)
        self._failures.pop(fact.host, None)
        self._lose(fact.host, 'its dispatcher knows nothing of it', fact.have)
        self._inherited.difference_update(fact.have)
        self._scheduler.host_up(fact.host, fact.slots, fact.have)
        self._hears.hear(fact)

    def _hear_down(self, fact: HostDown) -> None:
        if fact.is_final:
            self._hoped_for.discard(fact.host)
        self._unvisited.discard(fact.host)
        is_news = fact.is_final or self._failures.get(fact.host) != fact.why
        self._failures[fact.host] = fact.why
        self._lose(fact.host, fact.why)
        self._scheduler.host_down(fact.host, time.monotonic(), fact.why)
        if is_news:
            self._hears.hear(fact)

    def _lose(self, host: str, why: str, have: frozenset[Key] = frozenset()) -> None:
        """What is under way at a host is lost, but for what it has."""
        live = self._live.get(host, {})
        for key in [key for key in live if key not in have]:
            counts = key[0] in self._wanted and key not in self._inherited
            self._end_here(host, key, live.pop(key), Outcome(Cause.LOST, None, why), counts=counts)

    def _end_here(self, host: str, key: Key, ordered: float, outcome: Outcome, *, counts: bool) -> None:
        """Nobody else says that an attempt is over."""
        fact = Ended(*key, host, 0, outcome, ordered, 0.0)
        self._turn.ended.append((fact, counts))
        if counts:
            self._last[key[0]] = fact

    # ---- acts --------------------------------------------------------------------------------------------------

    def _act(self) -> None:
        """What follows from all that was heard: first in the journal, then at the hosts, then for the user."""
        orders = self._scheduler.orders(time.monotonic())
        for news in self._scheduler.news():
            self._hears.hear(news)
        settled = self._scheduler.settled()
        turn, self._turn = self._turn, _Turn()
        delivered = self._hears.delivered()
        if not (orders or settled or turn.ended or delivered):
            return
        now = time.time()
        attempts: list[Attempt] = []
        cancelled: list[tuple[str, Key]] = []
        for order in orders:
            if isinstance(order, Start):
                number, attempt, host, timeout = order
                position, task = self._wanted[number]
                attempts.append(Attempt(number, attempt, host, task, position, timeout))
                self._live.setdefault(host, {})[number, attempt] = now
            else:
                self._cancel(order, turn)
                cancelled.append((order.host, (order.task, order.attempt)))
        self._journal.write(
            Turn(
                ordered=[(number, attempt, host, now) for number, attempt, host, *_ in attempts],
                ended=turn.ended,
                settled=settled,
                delivered=delivered,
            )
        )
        if cancelled:
            self._engine.cancel(cancelled)
        if turn.taken:
            self._engine.taken(turn.taken)
        if attempts:
            self._engine.submit(attempts)
        if orders:
            self._hears.ordered(orders)
        if settled:
            self._hears.give([self._result(one) for one in settled])

    def _cancel(self, order: Cancel, turn: _Turn) -> None:
        key = order.task, order.attempt
        ordered = self._live.get(order.host, {}).pop(key, None)
        if ordered is None:
            return  # of a master before us, and known to be over
        cause = Cause.TIMEOUT if order.why == 'timeout' else Cause.CANCELLED
        took = max(0.0, time.time() - ordered)  # that clock may have been set back since
        fact = Ended(*key, order.host, 0, Outcome(cause, None, order.why), ordered, took)
        turn.ended.append((fact, order.why == 'timeout'))
        if order.why == 'timeout':
            self._last[order.task] = fact

    def _result(self, settled: Settled) -> Result:
        number, attempt, outcome = settled
        position, task = self._wanted.pop(number)
        ended = self._last.pop(number, None)
        if ended is None or ended.attempt != attempt:
            ended = Ended(number, attempt, '', 0, outcome, 0.0, 0.0)
        if any(isinstance(content, Path) for content in ended.results.values()):
            ended = ended._replace(results=self._journal.results(number))
        return Result(position, task, ended._replace(outcome=outcome))

    def finish(self) -> None:
        """Note what was heard and delivered at last, and that what is under way does not count."""
        for host, live in self._live.items():
            for key, ordered in live.items():
                self._end_here(host, key, ordered, Outcome(Cause.CANCELLED, None, 'the job was ended'), counts=False)
            live.clear()
        turn, self._turn = self._turn, _Turn()
        self._journal.write(Turn(ended=turn.ended, delivered=self._hears.delivered()))


class _Turn:
    """What was heard, and is not in the journal yet."""

    def __init__(self) -> None:
        self.ended: list[tuple[Ended, bool]] = []
        self.taken: list[tuple[str, Key, bool]] = []
