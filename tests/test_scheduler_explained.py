"""What is said of tasks and hosts: why one waits, how far all are, what second copies were good for."""

from __future__ import annotations

from remote_runner.jobs.policy import Policy
from remote_runner.jobs.scheduler import ASIDE, STREAK, Start
from tests.scheduling import BAD, GOOD, World


def why(world: World, task: int) -> str:
    return world.scheduler.why_waiting(task, world.now)


class TestWhyOneWaits:
    def test_for_a_slot(self) -> None:
        world = World(tasks=4, h1=1)
        world.starts()
        assert why(world, 1) == 'waits for a slot: it is the next'
        assert why(world, 3) == 'waits for a slot: 2 before it'

    def test_it_does_not(self) -> None:
        world = World(tasks=2, h1=1, h2=1)
        start, _ = world.starts()
        world.now += 3
        assert why(world, 0) == 'runs at h1 since 3 s as attempt 1'
        world.scheduler.host_silent('h1', world.now)
        assert why(world, 0).endswith(' (the connection to h1 is being made anew)')
        world.end(start)
        assert why(world, 0) == 'is settled'

    def test_it_runs_twice(self) -> None:
        world = World(Policy(duplicates=True), tasks=1, h1=1, h2=1)
        world.starts()
        world.now += 5
        world.starts()
        assert why(world, 0) == 'runs at h1 since 5 s as attempt 1 and runs at h2 since 0 s as attempt 2'

    def test_it_waits_at_a_host(self) -> None:
        world = World(tasks=10, h1=1)
        for _ in range(3):
            for start in world.starts():
                world.end(start, seconds=0.001)
        world.orders()
        assert why(world, 3) == 'begins at h1 as attempt 1'
        assert why(world, 4) == 'waits at h1 as attempt 1 for a slot there'

    def test_for_its_retry(self) -> None:
        world = World(tasks=2, h1=1, h2=1)
        start, _ = world.starts()
        world.end(start, BAD, 5)
        assert world.starts() == []
        assert why(world, 0) == (
            'waits for its retry as attempt 2: it is the next; not on h1, where it failed, while there is another host'
        )

    def test_the_job_is_paused(self) -> None:
        world = World(tasks=1, h1=1)
        world.scheduler.pause()
        assert why(world, 0) == 'waits for a slot: it is the next; the job is paused'

    def test_hosts_are_loaded(self) -> None:
        world = World(Policy(load=1.5), tasks=3, h1=1, h2=1)
        assert why(world, 0) == 'waits for a slot: it is the next; the load of h[1-2] is not known yet'
        world.scheduler.host_load('h1', 1.72)
        world.scheduler.host_load('h2', 3)
        assert why(world, 0) == (
            'waits for a slot: it is the next; nothing is begun where the load per core is above 1.5: '
            'h2 (3.00), h1 (1.72), and no other host may be given something'
        )
        world.scheduler.host_load('h1', 1.0)
        world.starts()
        assert why(world, 1).endswith('; nothing is begun where the load per core is above 1.5: h2 (3.00)')
        world.scheduler.host_load('h2', 1.0)
        assert why(world, 1) == 'waits for a slot: it is the next'

    def test_there_is_no_host(self) -> None:
        world = World(tasks=1)
        assert why(world, 0) == 'waits for a slot: it is the next; no host is up'
        world.scheduler.host_up('node1', 1)
        world.scheduler.host_up('node2', 1)
        world.scheduler.host_silent('node1', world.now)
        world.scheduler.host_silent('node2', world.now)
        assert why(world, 0).endswith('; no host is up: the connection to node[1-2] is being made anew')

    def test_all_hosts_are_set_aside(self) -> None:
        world = World(tasks=1000, good=1, bad=1)
        for _ in range(STREAK):
            for start in world.starts():
                world.end(start, BAD if start.host == 'bad' else GOOD)
        world.scheduler.host_down('good', world.now)
        world.now += 2
        left = ASIDE - 2
        assert why(world, 999).endswith(
            f'; all hosts are set aside because everything failed there, bad for {left:.0f} s more'
        )

    def test_another_master_began_it(self) -> None:
        world = World()
        world.scheduler.restore(0, 2, {}, [(2, 'h1')])
        assert why(world, 0) == 'was given to h1 as attempt 2 by another master, and goes on when that host is up'


class TestProgress:
    def test_counts(self) -> None:
        world = World(tasks=5, h1=2, h2=1)
        start, *_ = world.starts()
        progress = world.scheduler.progress
        assert (progress.waiting, progress.running, progress.by_host) == (2, 3, {'h1': 2, 'h2': 1})
        world.end(start, BAD, 5)
        progress = world.scheduler.progress
        assert (progress.waiting, progress.running, progress.retried) == (3, 2, 1)
        world.work()
        assert world.scheduler.progress.retried == 1

    def test_what_waits_at_a_host_does_not_run(self) -> None:
        world = World(tasks=8, h1=1)
        for _ in range(3):
            for start in world.starts():
                world.end(start, seconds=0.001)
        assert len(world.orders()) == 5
        progress = world.scheduler.progress
        assert (progress.waiting, progress.running, progress.by_host) == (4, 1, {'h1': 1})

    def test_a_host_that_is_gone_makes_retries(self) -> None:
        world = World(tasks=2, h1=2, h2=1)
        world.starts()
        world.scheduler.host_down('h1', world.now)
        assert world.scheduler.progress.retried == 1

    def test_what_copies_saved(self) -> None:
        world = World(Policy(duplicates=True), tasks=1, h1=1, h2=1)
        world.starts()
        world.now += 60
        [copy] = world.starts()
        world.end(copy, seconds=2, took=1.5)
        progress = world.scheduler.progress
        # The other one had run for 62 s.
        assert (progress.copies, progress.copies_won, progress.saved) == (1, 1, 60.5)

    def test_a_copy_in_vain(self) -> None:
        world = World(Policy(duplicates=True), tasks=1, h1=1, h2=1)
        world.starts()
        world.now += 60
        world.starts()
        world.end(Start(0, 1, 'h1'))
        progress = world.scheduler.progress
        assert (progress.copies, progress.copies_won, progress.saved) == (1, 0, 0.0)
