"""Hosts that come, fall silent, come back with something or nothing, or never; and tasks that another master began."""

from __future__ import annotations

from remote_runner.jobs.policy import Cause, Outcome, Policy, RetryOn
from remote_runner.jobs.scheduler import ASIDE, STREAK, Cancel, Settled, Start
from tests.scheduling import BAD, GOOD, World

UNKNOWN = 'its dispatcher knows nothing of it'


class TestSilence:
    def test_nothing_new_goes_there(self) -> None:
        world = World(tasks=4, h1=1, h2=1)
        on_h1, on_h2 = world.starts()
        world.scheduler.host_silent('h1', world.now)
        assert world.end(on_h1)
        assert world.end(on_h2)
        assert [start.host for start in world.starts()] == ['h2']
        world.scheduler.host_up('h1', 1)
        assert [start.host for start in world.starts()] == ['h1']

    def test_what_runs_there_goes_on(self) -> None:
        world = World(tasks=1, h1=1, h2=1)
        [start] = world.starts()
        world.scheduler.host_silent('h1', world.now)
        world.now += 1000
        assert world.orders() == []
        assert world.scheduler.next_time(world.now) is None
        world.scheduler.host_up('h1', 1, frozenset({(0, 1)}))
        assert world.orders() == []
        assert world.end(start)
        assert world.settled == [Settled(0, 1, GOOD)]

    def test_a_copy_at_once_where_that_is_wanted(self) -> None:
        world = World(Policy(duplicates=True), tasks=2, h1=1, h2=1)
        on_h1, on_h2 = world.starts()
        world.end(on_h2)
        assert world.orders() == []
        world.scheduler.host_silent('h1', world.now)
        assert world.starts() == [Start(0, 2, 'h2')]
        assert world.orders() == []
        world.scheduler.host_up('h1', 1, frozenset({(0, 1)}))
        assert world.end(on_h1)
        assert world.orders() == [Cancel(0, 2, 'h2', 'superseded')]

    def test_a_copy_of_what_is_silent_twice(self) -> None:
        world = World(Policy(duplicates=True), tasks=1, h1=1, h2=1, h3=1)
        for number, host in enumerate(('h1', 'h2', 'h3'), 1):
            assert world.starts() == [Start(0, number, host)]
            world.scheduler.host_silent(host, world.now)
        assert world.starts() == []
        assert world.end(Start(0, 2, 'h2'))
        assert {(order.attempt, order.host) for order in world.orders()} == {(1, 'h1'), (3, 'h3')}

    def test_one_copy_is_enough(self) -> None:
        world = World(Policy(duplicates=True), tasks=1, h1=1, h2=1, h3=1)
        world.starts()
        for _ in range(2):
            world.scheduler.host_silent('h1', world.now)
            world.starts()
        assert world.scheduler.progress.copies == 1

    def test_another_copy_where_the_first_one_failed(self) -> None:
        world = World(Policy(duplicates=True), tasks=1, h1=1, h2=1, h3=1)
        world.starts()
        world.scheduler.host_silent('h1', world.now)
        [copy] = world.starts()
        world.end(copy, BAD, 5)
        [other] = world.starts()
        assert {copy.host, other.host} == {'h2', 'h3'}

    def test_time_limits_wait_for_news(self) -> None:
        """A host that comes back may bring that the task ended in time."""
        world = World(Policy(timeout_share=2.0, retries=0), tasks=6, h1=1, h2=1)
        _, quick = world.starts()
        world.scheduler.host_silent('h1', world.now)
        for _ in range(5):
            world.end(quick, seconds=2)
            [quick, *_] = world.starts() or [quick]
        world.now += 100
        assert world.orders() == []
        world.scheduler.host_up('h1', 1)
        assert Cancel(0, 1, 'h1', 'timeout') in world.orders()


class TestWhatAHostHas:
    def test_what_it_does_not_know_is_lost(self) -> None:
        world = World(Policy(retries=0), tasks=2, h1=2)
        world.starts()
        world.scheduler.host_silent('h1', world.now)
        world.scheduler.host_up('h1', 2, frozenset({(1, 1)}))
        assert world.starts() == [Start(0, 2, 'h1')]
        assert not world.end(Start(0, 1, 'h1'))
        assert world.end(Start(1, 1, 'h1'))

    def test_why_it_is_lost(self) -> None:
        world = World(tasks=1, h1=1, h2=1, h3=1)
        for _ in range(3):
            [start] = world.starts()
            world.scheduler.host_up(start.host, 1, frozenset())
        world.orders()
        assert world.settled == [Settled(0, 3, Outcome(Cause.POISON, why=UNKNOWN))]

    def test_what_does_not_count_is_ended(self) -> None:
        world = World(tasks=1, h1=1, h2=1)
        [start] = world.starts()
        world.end(start)
        world.scheduler.host_up('h1', 1, frozenset({(0, 1), (7, 3)}))
        assert world.orders() == [Cancel(0, 1, 'h1', 'superseded'), Cancel(7, 3, 'h1', 'superseded')]

    def test_without_saying_so_it_has_what_it_had(self) -> None:
        world = World(tasks=2, h1=1)
        [start] = world.starts()
        world.scheduler.host_up('h1', 2)
        assert [one.task for one in world.starts()] == [1]
        assert world.end(start)


class TestWhatWaitsAtAHost:
    def short(self, tasks: int, **slots: int) -> World:
        """So many are left, and tasks are so short that hosts have some at hand."""
        world = World(tasks=tasks + 3, h1=1)
        for _ in range(3):
            [start] = world.starts()
            world.end(start, seconds=0.001)
        for name, number in slots.items():
            world.scheduler.host_up(name, number)
        return world

    def test_it_is_no_poison(self) -> None:
        """What only waited there cannot be what ended the hosts."""
        world = self.short(5)
        for name in ('h1', 'h2', 'h3'):
            world.scheduler.host_up(name, 1)
            running, *waiting = [order for order in world.orders() if isinstance(order, Start)]
            assert ({one.host for one in waiting}, len(waiting), running.task) == ({name}, 4, 3)
            world.scheduler.host_down(name, world.now)
        world.scheduler.host_up('good', 1)
        world.work()
        assert world.outcomes() == {**dict.fromkeys(range(8)), 3: Cause.POISON}

    def test_it_stays_while_a_slot_there_is_quick(self) -> None:
        world = self.short(5)
        assert len(world.orders()) == 5
        world.scheduler.host_up('h2', 1)
        assert world.orders() == []

    def test_it_is_withdrawn_only_for_a_host_that_may_have_it(self) -> None:
        world = self.short(2)
        running, waiting = [order for order in world.orders() if isinstance(order, Start)]
        world.scheduler.started(running.task, running.attempt, world.now)
        world.scheduler.host_up('h2', 1)
        world.scheduler.pause()
        assert world.orders() == []
        world.scheduler.resume()
        orders = world.orders()
        assert orders == [
            Cancel(waiting.task, 1, 'h1', 'superseded'),
            Start(waiting.task, 2, 'h2', None),
        ]
        assert world.orders() == []

    def test_slots_are_filled_before_anything_waits(self) -> None:
        world = self.short(10, h2=9)
        hosts = [order.host for order in world.orders()]
        assert sorted(hosts) == ['h1'] + ['h2'] * 9

    def test_nothing_waits_behind_what_takes_long(self) -> None:
        world = World(tasks=100, h1=1, h2=1)
        _, quick = world.starts()
        for _ in range(3):
            world.end(quick, seconds=0.001, took=0.001)
            quick, *more = world.starts()
        assert {start.host for start in more} == {'h2'}
        assert len(more) > 2


class TestHostsThatAreComing:
    """A task that has failed waits for them, and others do not."""

    def test_it_is_tried_again_there(self) -> None:
        world = World(tasks=2, h1=1)
        world.scheduler.expect(['h1', 'h2'])
        [first] = world.starts()
        world.end(first, BAD)
        [second] = world.starts()
        assert (second.task, second.host) == (1, 'h1')
        world.end(second)
        assert world.starts() == []
        assert 'not on h1' in world.scheduler.why_waiting(0, world.now)
        world.scheduler.host_up('h2', 1)
        assert [(start.task, start.host) for start in world.starts()] == [(0, 'h2')]

    def test_they_may_not_come(self) -> None:
        world = World(tasks=1, h1=1)
        world.scheduler.expect(['h2'])
        [first] = world.starts()
        world.end(first, BAD)
        assert world.starts() == []
        world.scheduler.host_down('h2', world.now, 'off')
        assert [(start.task, start.host) for start in world.starts()] == [(0, 'h1')]


class TestHostsThatAreSetAside:
    def test_failures_there_cost_no_retries(self) -> None:
        """Also those of tasks that were under way when it was set aside."""
        world = World(Policy(retries=0), tasks=20, good=1, bad=10)
        starts = world.starts()
        for start in starts:
            if start.host == 'good':
                world.end(start)
        bad = [start for start in starts if start.host == 'bad']
        for start in bad:
            world.end(start, BAD)
        world.work(fails=['bad'])
        failed = {task for task, cause in world.outcomes().items() if cause is not None}
        # With no retries at all, those that failed before anybody could know it have failed for good.
        assert failed == {start.task for start in bad[: STREAK - 1]}

    def aside(self, policy: Policy | None = None) -> tuple[World, list[Start]]:
        """`bad` is about to be set aside: one more failure there."""
        world = World(policy, tasks=20, good=1, bad=10)
        starts = [order for order in world.orders() if isinstance(order, Start)]
        [good] = [start for start in starts if start.host == 'good']
        world.end(good)
        bad = [start for start in starts if start.host == 'bad']
        for start in bad[: STREAK - 1]:
            world.end(start, BAD)
        return world, bad[STREAK - 1 :]

    def test_a_failure_after_that_counts_for_nothing(self) -> None:
        world, [last, running, *_] = self.aside(Policy(retries=1))
        world.scheduler.started(running.task, running.attempt, world.now)
        world.end(last, BAD)
        world.end(running, BAD)
        tried = []
        while running.task not in world.outcomes():
            [start] = world.starts()
            world.end(start, BAD if start.task == running.task else GOOD, took=2.0)
            if start.task == running.task:
                tried.append((start.attempt, start.host))
        assert tried == [(2, 'good'), (3, 'good')]

    def test_nor_does_it_matter_whether_such_a_failure_is_tried_again(self) -> None:
        world, [last, *_] = self.aside(Policy(retry_on=(RetryOn(Cause.TIMEOUT),)))
        assert len(world.settled) == STREAK
        world.end(last, BAD)
        assert last.task not in world.outcomes()

    def test_where_nobody_can_do_it_any_more_it_is_the_tasks(self) -> None:
        world, [last, *_] = self.aside()
        world.end(last, BAD)
        world.now += ASIDE
        world.scheduler.host_down('good', world.now)
        [tried] = world.starts()
        world.end(tried, BAD)
        assert len(world.starts()) > 1

    def test_what_it_has_not_begun_is_for_others(self) -> None:
        world, [last, running, *waiting] = self.aside()
        world.scheduler.started(running.task, running.attempt, world.now)
        world.end(last, BAD)
        orders = world.orders()
        assert {order for order in orders if isinstance(order, Cancel)} == {
            Cancel(one.task, 1, 'bad', 'superseded') for one in waiting
        }
        [elsewhere] = [order for order in orders if isinstance(order, Start)]
        assert (elsewhere.task, elsewhere.attempt, elsewhere.host) == (waiting[0].task, 2, 'good')
        assert world.end(elsewhere)
        assert world.end(running)
        assert not world.end(waiting[0])
        world.work()
        assert world.outcomes() == dict.fromkeys(range(20))

    def test_what_it_has_stays_there_when_the_job_ends(self) -> None:
        world, [last, *others] = self.aside()
        world.scheduler.cancel(now_running=False)
        world.end(last, BAD)
        assert world.orders() == []
        assert all(world.end(start) for start in others)
        assert world.scheduler.is_over

    def test_one_that_runs_for_long_shows_that_the_host_is_fit(self) -> None:
        world = World(tasks=300, good=1, bad=2)
        for _ in range(STREAK):
            for start in world.starts():
                world.end(start, BAD if start.host == 'bad' else GOOD)
        world.now += ASIDE
        [tried] = [start for start in world.starts() if start.host == 'bad']
        world.end(tried, BAD, seconds=5)
        assert len([start for start in world.starts() if start.host == 'bad']) > 1

    def test_next_time_for_twice_as_long(self) -> None:
        world = World(tasks=300, good=1, bad=1)
        for _ in range(STREAK):
            for start in world.starts():
                world.end(start, BAD if start.host == 'bad' else GOOD)
        assert world.scheduler.progress.aside == {'bad': ASIDE}
        world.now += ASIDE
        [tried] = [start for start in world.starts() if start.host == 'bad']
        world.end(tried, BAD)
        assert world.scheduler.progress.aside == {'bad': ASIDE + 2 * ASIDE}


class TestTasksOfAnotherMaster:
    def test_attempts_count_on(self) -> None:
        world = World(h1=1)
        world.scheduler.restore(5, 3, {Cause.EXIT: 1}, [])
        world.settled += world.scheduler.settled()
        assert world.starts() == [Start(5, 4, 'h1')]

    def test_failures_count_on(self) -> None:
        world = World(Policy(retries=2), h1=1)
        world.scheduler.restore(0, 2, {Cause.EXIT: 2}, [])
        [start] = world.starts()
        world.end(start, BAD, 5)
        assert world.settled == [Settled(0, 3, BAD)]

    def test_what_still_runs_is_adopted(self) -> None:
        world = World(h2=1)
        world.scheduler.restore(0, 1, {}, [(1, 'h1')])
        assert world.orders() == []
        assert not world.scheduler.is_over
        world.scheduler.host_up('h1', 1, frozenset({(0, 1)}))
        assert world.orders() == []
        world.scheduler.started(0, 1, world.now, ago=100)
        assert world.end(Start(0, 1, 'h1'))
        assert world.scheduler.is_over

    def test_what_does_not_is_run_again(self) -> None:
        world = World()
        world.scheduler.restore(0, 1, {}, [(1, 'h1')])
        world.scheduler.host_up('h1', 1, frozenset())
        assert world.starts() == [Start(0, 2, 'h1')]

    def test_a_host_that_never_comes(self) -> None:
        world = World(h2=1)
        world.scheduler.restore(0, 1, {}, [(1, 'h1')])
        world.scheduler.host_down('h1', world.now, 'no route')
        assert world.starts() == [Start(0, 2, 'h2')]

    def test_both_copies(self) -> None:
        world = World(Policy(duplicates=True))
        world.scheduler.restore(0, 2, {}, [(2, 'h2'), (1, 'h1')])
        world.scheduler.host_up('h1', 1, frozenset({(0, 1)}))
        world.scheduler.host_up('h2', 1, frozenset({(0, 2)}))
        assert world.end(Start(0, 2, 'h2'))
        assert world.orders() == [Cancel(0, 1, 'h1', 'superseded')]
        assert world.scheduler.progress.copies_won == 1

    def test_hosts_on_which_it_was_lost_count_on(self) -> None:
        world = World(h1=1)
        world.scheduler.restore(0, 2, {}, [], lost_on=['h2', 'h3'])
        [start] = world.starts()
        world.scheduler.host_down('h1', world.now, 'gone')
        assert start.attempt == 3
        assert world.scheduler.settled() == [Settled(0, 3, Outcome(Cause.POISON, why='gone'))]

    def test_the_job_is_given_up(self) -> None:
        world = World()
        world.scheduler.cancel()
        world.scheduler.restore(0, 1, {}, [(1, 'h1')])
        assert world.orders() == [Cancel(0, 1, 'h1', 'cancelled')]
        assert world.outcomes() == {0: Cause.CANCELLED}


class TestLoad:
    def test_nothing_is_begun_above_it(self) -> None:
        world = World(Policy(load=1.5), tasks=20, h1=2, h2=2)
        assert world.starts() == []  # nobody knows the loads
        world.scheduler.host_load('h1', 1.5)
        world.scheduler.host_load('h2', 1.51)
        starts = world.starts()
        assert [start.host for start in starts] == ['h1', 'h1']
        world.scheduler.host_load('h1', 3.0)
        for start in starts:
            world.end(start)  # what runs is let be
        assert world.starts() == []
        world.scheduler.host_load('h2', 0.3)
        assert [start.host for start in world.starts()] == ['h2', 'h2']
        world.scheduler.host_load('h1', 1.0)
        world.work()
        assert set(world.outcomes().values()) == {None}

    def test_without_a_limit_it_does_not_matter(self) -> None:
        world = World(tasks=1, h1=1)
        world.scheduler.host_load('h1', 99.0)
        assert len(world.starts()) == 1

    def test_a_host_that_comes_back_says_its_load_first(self) -> None:
        world = World(Policy(load=1.5), tasks=4, h1=1)
        world.scheduler.host_load('h1', 0.1)
        [start] = world.starts()
        world.scheduler.host_silent('h1', world.now)
        world.scheduler.host_up('h1', 1, frozenset([(start.task, start.attempt)]))
        world.end(start)
        assert world.starts() == []
        world.scheduler.host_load('h1', 0.1)
        assert len(world.starts()) == 1
        world.scheduler.host_down('h1', world.now)
        world.scheduler.host_up('h1', 1)
        assert world.starts() == []

    def test_hosts_have_nothing_at_hand_that_would_begin_all_the_same(self) -> None:
        world = World(Policy(load=1.5), tasks=50, h1=1)
        world.scheduler.host_load('h1', 0.1)
        for _ in range(20):
            starts = world.starts()
            assert len(starts) == 1
            world.end(starts[0], seconds=0.001, took=0.001)

    def test_no_second_copy_goes_to_a_host_above_it(self) -> None:
        world = World(Policy(load=1.5, duplicates=True), tasks=1, h1=1, h2=1)
        for host in ('h1', 'h2'):
            world.scheduler.host_load(host, 0.1)
        [start] = world.starts()
        other = 'h2' if start.host == 'h1' else 'h1'
        world.scheduler.host_load(other, 2.0)
        world.now += 1000
        assert world.starts() == []
        world.scheduler.host_load(other, 1.0)
        assert [copy.host for copy in world.starts()] == [other]
