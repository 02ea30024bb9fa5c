"""What is run where and when, and what counts: slots, retries, hosts that are set aside, time limits, second copies."""

from __future__ import annotations

import pytest

from remote_runner.jobs.policy import Cause, Halt, Outcome, Policy, RetryOn
from remote_runner.jobs.scheduler import ASIDE, STREAK, Cancel, Scheduler, Settled, Start
from tests.scheduling import BAD, GOOD, World


class TestSlots:
    def test_as_many_as_there_are_slots(self) -> None:
        world = World(tasks=10, h1=2, h2=1)
        starts = world.starts()
        assert sorted(start.host for start in starts) == ['h1', 'h1', 'h2']
        assert [start.task for start in starts] == [0, 1, 2]
        assert world.starts() == []
        world.end(starts[2])
        assert [(start.task, start.host) for start in world.starts()] == [(3, starts[2].host)]

    def test_all_of_them_in_the_end(self) -> None:
        world = World(tasks=100, h1=2, h2=3)
        world.work()
        assert world.outcomes() == dict.fromkeys(range(100))
        assert world.scheduler.is_over
        assert (world.scheduler.done, world.scheduler.failed) == (100, 0)

    def test_short_tasks_wait_at_the_host(self) -> None:
        world = World(tasks=1000, h1=2)
        for _ in range(5):
            for start in world.starts():
                world.end(start, seconds=0.001, took=0.001)
        assert len(world.starts()) > 20

    def test_what_waits_at_a_host_goes_to_an_idle_one(self) -> None:
        world = World(tasks=8, h1=1)
        for _ in range(3):
            for start in world.starts():
                world.end(start, seconds=0.001)
        waiting = [order for order in world.orders() if isinstance(order, Start)]
        assert len(waiting) == 5
        world.scheduler.started(waiting[0].task, 1, world.now)
        world.scheduler.host_up('h2', 1)
        orders = world.orders()
        assert {order.task for order in orders if isinstance(order, Cancel)} == {one.task for one in waiting[1:]}
        assert {order.host for order in orders if isinstance(order, Start)} == {'h2'}
        # What was begun there all the same does not count.
        assert not world.end(waiting[1])

    def test_a_delay_between_starts(self) -> None:
        world = World(Policy(delay=3.0), tasks=3, h1=3)
        assert len(world.starts()) == 1
        assert world.starts() == []
        assert world.scheduler.next_time(world.now) == 3.0
        world.now = 3.0
        assert len(world.starts()) == 1

    def test_a_pause(self) -> None:
        world = World(tasks=3, h1=1)
        [first] = world.starts()
        world.scheduler.pause()
        world.end(first)
        assert world.starts() == []
        world.scheduler.resume()
        assert len(world.starts()) == 1


class TestFailures:
    def test_it_is_tried_again_elsewhere(self) -> None:
        world = World(tasks=1, h1=1, h2=1)
        [first] = world.starts()
        world.end(first, BAD, 5)
        [second] = world.starts()
        assert (second.attempt, second.host) == (2, 'h2' if first.host == 'h1' else 'h1')
        world.end(second)
        assert world.settled == [Settled(0, 2, GOOD)]

    def test_so_often_for_each_cause(self) -> None:
        world = World(Policy(retries=2), tasks=1, h1=1)
        for outcome in (BAD, Outcome(Cause.TIMEOUT), BAD, Outcome(Cause.TIMEOUT)):
            [start] = world.starts()
            world.end(start, outcome, 5)
        assert world.settled == []
        [start] = world.starts()
        world.end(start, BAD, 5)
        assert world.settled == [Settled(0, 5, BAD)]
        assert world.scheduler.is_over

    @pytest.mark.parametrize(
        ('outcome', 'tries'),
        [(BAD, 1), (Outcome(Cause.EXIT, 75), 3), (Outcome(Cause.TIMEOUT), 3), (Outcome(Cause.REJECTED), 1)],
    )
    def test_only_for_what_is_to_be_tried_again(self, outcome: Outcome, tries: int) -> None:
        world = World(Policy(retry_on=(RetryOn(Cause.EXIT, 75), RetryOn(Cause.TIMEOUT))), tasks=1, h1=1)
        for _ in range(tries):
            assert world.settled == []
            [start] = world.starts()
            world.end(start, outcome, 5)
        assert world.settled == [Settled(0, tries, outcome)]

    def test_a_host_that_is_gone_costs_no_retry(self) -> None:
        world = World(Policy(retries=0), tasks=4, h1=2, h2=2)
        starts = world.starts()
        world.scheduler.host_down('h1', world.now)
        assert [world.end(start) for start in starts] == [start.host == 'h2' for start in starts]
        world.work()
        assert set(world.outcomes().values()) == {None}

    def test_poison(self) -> None:
        world = World(tasks=1, h1=1, h2=1, h3=1)
        for _ in range(3):
            [start] = world.starts()
            world.scheduler.host_down(start.host, world.now, 'gone')
        world.orders()
        assert world.settled == [Settled(0, 3, Outcome(Cause.POISON, why='gone'))]

    def test_who_is_beside_poison_is_not_taken_for_it(self) -> None:
        """Whatever runs beside task 0 is lost with it, once and again, but not on a third host."""
        world = World(tasks=2)
        for host in ('h1', 'h2'):
            world.scheduler.host_up(host, 2)
            assert [start.task for start in world.starts()] == [0, 1]
            world.scheduler.host_down(host, world.now)
        world.scheduler.host_up('h3', 2)
        [start] = world.starts()
        assert start.task == 0
        assert world.starts() == []
        world.scheduler.host_down('h3', world.now)
        world.scheduler.host_up('h3', 2)
        world.work()
        assert world.outcomes() == {0: Cause.POISON, 1: None}

    def test_lost_on_one_host_again_and_again_is_no_poison(self) -> None:
        world = World(tasks=1, h1=1)
        for _ in range(10):
            [start] = world.starts()
            world.end(start, Outcome(Cause.LOST))
        [start] = world.starts()
        world.end(start)
        assert world.settled == [Settled(0, 11, GOOD)]

    def test_halting_soon_and_now(self) -> None:
        for now in (False, True):
            world = World(Policy(retries=0, halt=Halt(2, now=now)), tasks=9, h1=4)
            starts = world.starts()
            world.end(starts[0], BAD, 5)
            assert len(world.settled) == 1
            world.end(starts[1], BAD)
            orders = world.orders()
            assert [order for order in orders if isinstance(order, Start)] == []
            cancelled = [order.why for order in orders if isinstance(order, Cancel)]
            assert cancelled == (['cancelled'] * 2 if now else [])
            assert world.end(starts[2]) != now
            assert world.end(starts[3]) != now
            assert world.scheduler.is_over
            assert sorted(world.outcomes()) == list(range(9))

    def test_halting_at_a_share(self) -> None:
        world = World(Policy(retries=0, halt=Halt(0.5)), tasks=20, h1=1)
        for number in range(6):
            [start] = world.starts()
            world.end(start, BAD if number % 2 else GOOD, 5)
        assert world.starts() == []
        assert (world.scheduler.done, world.scheduler.failed) == (3, 3)


class TestHostsThatAreSetAside:
    def test_where_everything_fails_at_once(self) -> None:
        world = World(Policy(retries=2), tasks=60, good=1, bad=1)
        world.work(fails=['bad'])
        assert set(world.outcomes().values()) == {None}
        bad = [start for start in world.settled if start.attempt > 1]
        assert len(bad) <= STREAK + 60 * 2 / ASIDE + 1  # after that one now and then, to see whether it can do it

    def test_it_comes_back(self) -> None:
        world = World(tasks=300, good=1, bad=1)
        for _ in range(STREAK):
            for start in world.starts():
                world.end(start, BAD if start.host == 'bad' else GOOD)
        assert {start.host for start in world.starts()} == {'good'}
        world.now += ASIDE
        [tried] = [start for start in world.starts() if start.host == 'bad']
        world.end(tried, seconds=2)
        world.work()
        assert set(world.outcomes().values()) == {None}

    def test_where_all_hosts_fail_it_is_the_task(self) -> None:
        world = World(tasks=20, h1=1, h2=1)
        world.work(fails=['h1', 'h2'])
        assert set(world.outcomes().values()) == {Cause.EXIT}


class TestTimeLimits:
    def test_one_that_is_given(self) -> None:
        world = World(Policy(timeout=60), tasks=1, h1=1)
        assert world.starts() == [Start(0, 1, 'h1', 60)]

    def test_in_terms_of_the_median(self) -> None:
        world = World(Policy(timeout_share=3.0, retries=0), tasks=6, h1=1, h2=1)
        [slow, quick] = world.starts()
        assert slow.timeout is None
        for _ in range(3):
            world.end(quick, seconds=2)
            [quick] = world.starts()
        assert quick.timeout == 6.0
        assert world.scheduler.next_time(world.now) == world.now or world.now >= 6.0
        world.now += 1
        world.end(quick)
        orders = world.orders()
        assert Cancel(slow.task, slow.attempt, slow.host, 'timeout') in orders
        assert world.outcomes()[slow.task] is Cause.TIMEOUT


    def test_the_first_that_is_late_may_end_all(self) -> None:
        world = World(Policy(timeout_share=2.0, retries=0, halt=Halt(1, now=True)), tasks=9, slow=2, quick=1)
        starts = world.starts()
        [quick] = [start for start in starts if start.host == 'quick']
        for _ in range(2):
            world.end(quick, seconds=1)
            [quick] = world.starts()
        world.end(quick, seconds=1)
        reasons = sorted(order.why for order in world.orders() if isinstance(order, Cancel))
        assert reasons == ['cancelled', 'timeout']
        assert world.scheduler.is_over


class TestSecondCopies:
    def world(self) -> tuple[World, Start]:
        world = World(Policy(duplicates=True), tasks=7, h1=1, h2=1)
        slow, quick = world.starts()
        while True:
            world.end(quick, seconds=1)
            starts = world.starts()
            if not starts:
                return world, slow
            [quick] = starts
            if quick.task == slow.task:
                return world, quick

    def test_an_idle_slot_runs_the_slowest_again(self) -> None:
        world, copy = self.world()
        assert (copy.task, copy.attempt, copy.host) == (0, 2, 'h2')
        world.end(copy, seconds=1)
        assert world.orders() == [Cancel(0, 1, 'h1', 'superseded')]
        assert not world.end(Start(0, 1, 'h1'))
        assert world.outcomes() == dict.fromkeys(range(7))

    def test_the_first_may_be_the_first(self) -> None:
        world, _ = self.world()
        assert world.end(Start(0, 1, 'h1'), seconds=1)
        assert world.orders() == [Cancel(0, 2, 'h2', 'superseded')]
        assert world.scheduler.is_over

    def test_one_that_fails_leaves_it_to_the_other(self) -> None:
        world, copy = self.world()
        world.end(copy, BAD, 5)
        assert world.starts() == []
        world.end(Start(0, 1, 'h1'))
        assert world.scheduler.is_over
        assert world.outcomes()[0] is None

    def test_none_where_they_are_not_wanted(self) -> None:
        world = World(tasks=2, h1=1, h2=1)
        _, quick = world.starts()
        world.end(quick)
        world.now += 1000
        assert world.orders() == []
        assert world.scheduler.next_time(world.now) is None


def test_it_is_ahead_while_hosts_have_short_tasks_at_hand_and_more_wait() -> None:
    scheduler = Scheduler(Policy())
    scheduler.host_up('h1', slots=1)
    for task in range(40):
        scheduler.add(task)
    assert not scheduler.is_ahead  # nobody knows how long they take
    for task in range(3):
        scheduler.orders(float(task))
        scheduler.ended(task, 1, Outcome(), float(task), took=0.01)
    assert scheduler.is_ahead
    for task in range(3, 40):
        scheduler.orders(float(task))
        scheduler.ended(task, 1, Outcome(), float(task), took=0.01)
    assert not scheduler.is_ahead  # who gives us tasks one by one does not wait for others
