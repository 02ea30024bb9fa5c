"""Whatever facts come in whatever order, each task is settled once, and all attempts are accounted for."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from remote_runner.jobs import health
from remote_runner.jobs.policy import Cause, Halt, Outcome, Policy
from remote_runner.jobs.scheduler import Cancel, Order, Scheduler, Settled, Start
from tests.scheduling import BAD, GOOD

HOSTS = st.sampled_from(['h1', 'h2', 'h3', 'h4'])
Key = tuple[int, int]


class Facts(RuleBasedStateMachine):
    """Facts in any order, late ones and those that come twice too."""

    @initialize(
        duplicates=st.booleans(),
        retries=st.integers(0, 2),
        share=st.sampled_from([None, 2.0]),
        delay=st.sampled_from([0.0, 0.0, 0.5]),
        halt=st.sampled_from([None, None, Halt(2), Halt(1, now=True)]),
        streak=st.sampled_from([1, 2, health.STREAK]),
        load=st.sampled_from([None, None, 1.0]),
        tasks=st.integers(0, 12),
    )
    def begin(
        self,
        duplicates: bool,
        retries: int,
        share: float | None,
        delay: float,
        halt: Halt | None,
        streak: int,
        load: float | None,
        tasks: int,
    ) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(health, 'STREAK', streak)
        policy = Policy(
            retries=retries, duplicates=duplicates, timeout_share=share, delay=delay, halt=halt, load=load
        )
        self.scheduler = Scheduler(policy)
        #: Hosts that have said since they came up that they are below it.
        self.idle: set[str] = set()
        self.now = 0.0
        self.is_paused = False
        #: Where each attempt was ordered; and how many attempts each task had.
        self.ordered: dict[Key, str] = {}
        self.attempts: dict[int, int] = {}
        self.live: set[Key] = set()
        self.ended: set[Key] = set()
        self.settled: dict[int, Settled] = {}
        self.added = 0
        self.up: dict[str, int] = {}
        #: Of what hosts have, and what does not count.
        self.to_be_ended: set[tuple[Key, str]] = set()
        for _ in range(tasks):
            self.add()

    # ---- tasks -------------------------------------------------------------------------------------------------

    @rule()
    def add(self) -> None:
        if not self.scheduler.is_closed:
            self.scheduler.add(self.added)
            self.added += 1
            self.hear()

    @rule(
        hosts=st.lists(st.one_of(st.none(), HOSTS), max_size=3),
        failures=st.dictionaries(st.sampled_from([Cause.EXIT, Cause.TIMEOUT]), st.integers(0, 1)),
        lost_on=st.sets(HOSTS, max_size=2),
    )
    def restore(self, hosts: list[str | None], failures: dict[Cause, int], lost_on: set[str]) -> None:
        """A task of another master; its attempts have ended (None), or not."""
        task = self.added
        live = [(attempt, host) for attempt, host in enumerate(hosts, 1) if host is not None]
        self.scheduler.restore(task, len(hosts), failures, live, lost_on)
        self.added += 1
        self.attempts[task] = len(hosts)
        for attempt, host in enumerate(hosts, 1):
            self.ordered[task, attempt] = host or 'before'
            (self.ended.add if host is None else self.live.add)((task, attempt))
        self.hear()

    @rule(running=st.booleans())
    def cancel(self, running: bool) -> None:
        self.scheduler.close()
        self.scheduler.cancel(now_running=running)
        self.hear()

    @rule()
    def close(self) -> None:
        self.scheduler.close()

    @rule()
    def pause(self) -> None:
        """Until somebody resumes it; all else may happen meanwhile."""
        self.scheduler.pause()
        self.is_paused = True

    @rule()
    def resume(self) -> None:
        self.scheduler.resume()
        self.is_paused = False

    # ---- hosts -------------------------------------------------------------------------------------------------

    @rule(name=HOSTS, slots=st.integers(1, 3))
    def host_up(self, name: str, slots: int) -> None:
        self.scheduler.host_up(name, slots)
        self.up[name] = slots

    @rule(name=HOSTS, slots=st.integers(1, 3), data=st.data())
    def host_up_with(self, name: str, slots: int, data: st.DataObject) -> None:
        """It says what it has: of all that it was ever told, and something that nobody knows."""
        known = [*sorted(key for key, host in self.ordered.items() if host == name), (1000, 1)]
        have = frozenset(data.draw(st.lists(st.sampled_from(known), unique=True)))
        self.scheduler.host_up(name, slots, have)
        self.up[name] = slots
        self.live -= {key for key in self.live if self.ordered[key] == name and key not in have}
        self.to_be_ended |= {(key, name) for key in have if key not in self.live}
        self.hear()

    @rule(name=HOSTS, load=st.sampled_from([0.5, 1.5]))
    def host_load(self, name: str, load: float) -> None:
        self.scheduler.host_load(name, load)
        (self.idle.add if load < 1 else self.idle.discard)(name)

    @rule(name=HOSTS)
    def host_silent(self, name: str) -> None:
        self.idle.discard(name)
        self.scheduler.host_silent(name, self.now)
        self.up.pop(name, None)

    @rule(name=HOSTS)
    def host_down(self, name: str) -> None:
        if name in self.scheduler._book.hosts:  # one that was never there is not known by this
            self.idle.discard(name)
        self.scheduler.host_down(name, self.now)
        self.up.pop(name, None)
        self.live -= {key for key in self.live if self.ordered[key] == name}
        self.hear()

    # ---- attempts ----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.ordered)
    @rule(
        data=st.data(),
        outcome=st.sampled_from([GOOD, GOOD, BAD, *(Outcome(cause) for cause in Cause)]),
        took=st.sampled_from([None, 0.0, 0.001, 3.0]),
    )
    def end(self, data: st.DataObject, outcome: Outcome, took: float | None) -> None:
        key = data.draw(st.sampled_from(sorted(self.ordered)))
        was_settled = key[0] in self.settled
        counts = self.scheduler.ended(*key, outcome, self.now, took)
        assert not (counts and (key in self.ended or was_settled or key not in self.live))
        if counts:
            self.ended.add(key)
        self.live.discard(key)
        self.hear()
        if counts and outcome.cause is None:
            assert self.settled[key[0]] == Settled(*key, outcome)

    @precondition(lambda self: self.ordered)
    @rule(data=st.data(), ago=st.sampled_from([0.0, 0.5]))
    def start(self, data: st.DataObject, ago: float) -> None:
        self.scheduler.started(*data.draw(st.sampled_from(sorted(self.ordered))), self.now, ago)

    @rule(seconds=st.sampled_from([0.0, 0.01, 1.0, 20.0]))
    def orders(self, seconds: float) -> None:
        self.now += seconds
        self.take()
        later = self.scheduler.next_time(self.now)
        assert later is None or later > self.now

    def take(self) -> list[Order]:
        orders = self.scheduler.orders(self.now)
        for order in orders:
            key = (order.task, order.attempt)
            if isinstance(order, Start):
                assert not self.is_paused
                assert order.host in self.up
                assert self.scheduler.policy.load is None or order.host in self.idle
                assert order.attempt == self.attempts.get(order.task, 0) + 1
                assert order.task not in self.settled
                self.attempts[order.task] = order.attempt
                self.ordered[key] = order.host
                self.live.add(key)
            else:
                assert self.ordered.get(key, order.host) == order.host
                self.live.discard(key)
        cancelled = {((order.task, order.attempt), order.host) for order in orders if isinstance(order, Cancel)}
        assert self.to_be_ended <= cancelled
        self.to_be_ended.clear()
        self.hear()
        return orders

    def hear(self) -> None:
        for one in self.scheduler.settled():
            assert one.task not in self.settled
            self.settled[one.task] = one
            assert one.attempt == 0 or (one.task, one.attempt) in self.ordered

    # ---- what always holds -------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_lost(self) -> None:
        if hasattr(self, 'scheduler'):
            assert self.scheduler.unsettled + len(self.settled) == self.added

    @invariant()
    def everything_can_be_explained(self) -> None:
        if hasattr(self, 'scheduler'):
            sentences = {task: self.scheduler.why_waiting(task, self.now) for task in range(self.added)}
            assert {task for task, text in sentences.items() if text == 'is settled'} == set(self.settled)

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, 'scheduler'):
            progress = self.scheduler.progress
            book = self.scheduler._book
            live = sum(len(begun.live) for begun in book.tasks.values())
            assert live == sum(len(host.attempts) for host in book.hosts.values())
            assert progress.waiting + progress.running == live + len(book.waiting) + len(book.again)
            for host in book.hosts.values():
                assert host.begun == sum(attempt.began is not None for attempt in host.attempts.values())
                assert len(host.running()) == host.busy
                assert (host.name in book.usable) == host.is_usable
                assert not host.is_usable or host.free <= 0 or host in book.free
                assert not host.is_jammed or host in book.jammed
            assert all(number >= 0 for begun in book.tasks.values() for number in begun.failures.values())
            waiting = [*book.waiting, *book.again]
            assert len(set(waiting)) == len(waiting)
            assert {task for task, begun in book.tasks.items() if not begun.live} == set(book.again)

    def teardown(self) -> None:
        """Whatever happened: with a host that can do it, all is settled, once it is known what became of the others."""
        if not hasattr(self, 'scheduler'):
            return
        self.patch.undo()
        self.resume()
        self.scheduler.close()
        self.host_up('good', 1)
        self.host_load('good', 0.5)
        for _ in range(10_000):
            if self.scheduler.is_over:
                break
            for key in sorted(self.live):
                self.scheduler.ended(*key, GOOD, self.now)
            self.live.clear()
            self.orders(5.0)
        assert self.scheduler.is_over
        assert sorted(self.settled) == list(range(self.added))


Facts.TestCase.settings = settings(max_examples=300, stateful_step_count=40)
TestFacts = Facts.TestCase
