"""Hosts without room or memory are waited for where there is no other, and tasks lose no try."""

from __future__ import annotations

from collections.abc import Callable

from remote_runner.jobs.health import ASIDE, SHORTAGES
from remote_runner.jobs.policy import Cause, Outcome, Policy
from remote_runner.jobs.scheduler import Start
from tests.scheduling import BAD, GOOD, World

FULL = Outcome(Cause.RESOURCES, None, 'the disk is full')


def work(world: World, fails: Callable[[Start], bool], seconds: float = 0.1, until: float = 1e9) -> list[float]:
    """Do all that is ordered until nothing is, or it is so late; how long was waited for room, each time."""
    waited = []
    while world.now < until:
        starts = world.starts()
        for start in starts:
            world.end(start, FULL if fails(start) else GOOD, took=0.1)
        waited += [news.seconds for news in world.scheduler.news() if news.why == FULL.why]
        if not starts:
            later = world.scheduler.next_time(world.now)
            if later is None:
                break
            world.now = later
        world.now += seconds
    return waited


def test_all_wait_until_there_is_room_and_lose_no_try() -> None:
    world = World(Policy(retries=1), tasks=50, h1=4)
    waited = work(world, lambda start: world.now < 60)
    assert waited == [ASIDE, 2 * ASIDE, 4 * ASIDE]
    assert set(world.outcomes().values()) == {None}


def test_it_fills_up_on_the_way() -> None:
    world = World(Policy(retries=1), tasks=500, h1=4)
    waited = work(world, lambda start: 0.25 < world.now < 5)
    assert waited == [ASIDE]
    assert set(world.outcomes().values()) == {None}


def test_the_last_task_waits_too() -> None:
    world = World(Policy(retries=0), tasks=1, h1=4)
    assert work(world, lambda start: world.now < 15) == [ASIDE, 2 * ASIDE]
    assert world.outcomes() == {0: None}


def test_one_that_runs_for_long_does_not_make_others_lose_tries() -> None:
    world = World(Policy(retries=1), tasks=2, h1=2)
    long, short = world.starts()
    world.end(short, FULL)
    assert work(world, lambda start: world.now < 15, until=100) == [ASIDE, 2 * ASIDE]
    assert world.end(long)
    assert set(world.outcomes().values()) == {None}


def test_not_for_ever() -> None:
    """Then tasks fail as they ever did, each after its retries."""
    world = World(Policy(retries=1), tasks=20, h1=2)
    waited = work(world, lambda start: True)
    assert waited == [ASIDE * 2**number for number in range(SHORTAGES)]
    assert set(world.outcomes().values()) == {Cause.RESOURCES}
    assert sum(waited) < world.now < sum(waited) + 30


def test_a_task_that_needs_too_much_delays_no_other() -> None:
    for number in (0, 7, 30):
        world = World(tasks=60, h1=1)
        assert work(world, lambda start, number=number: start.task == number) == []  # type: ignore[misc]
        assert world.outcomes() == {task: Cause.RESOURCES if task == number else None for task in range(60)}


def test_what_succeeds_meanwhile_shows_that_there_is_room() -> None:
    world = World(tasks=6, h1=3)
    first, second, third = world.starts()
    world.end(first, FULL)
    world.end(second, FULL)
    assert world.starts() == []
    assert [(news.host, news.seconds, news.why) for news in world.scheduler.news()] == [('h1', ASIDE, FULL.why)]
    world.end(third, seconds=1)
    assert len(world.starts()) == 3
    assert work(world, lambda start: False) == []
    assert set(world.outcomes().values()) == {None}


def test_another_host_takes_it_and_nobody_waits() -> None:
    world = World(Policy(retries=1), tasks=40, h1=1, h2=1)
    assert work(world, lambda start: start.host == 'h1')[0] == ASIDE
    assert set(world.outcomes().values()) == {None}
    assert world.now < ASIDE


def test_two_hosts_without_room() -> None:
    world = World(tasks=10, h1=1, h2=1)
    waited = work(world, lambda start: world.now < 20)
    assert waited[:2] == [ASIDE, ASIDE]
    assert set(world.outcomes().values()) == {None}


def test_what_else_fails_has_had_room() -> None:
    world = World(Policy(retries=0), tasks=4, h1=1)
    work(world, lambda start: True, until=5)
    assert world.scheduler.progress.aside == {'h1': ASIDE + 0.1}
    world.now = 11
    [start] = world.starts()
    world.end(start, BAD, seconds=3)
    assert world.scheduler.progress.aside == {}
    assert world.outcomes()[start.task] is Cause.EXIT


def test_it_is_explained() -> None:
    world = World(tasks=2, h1=1)
    work(world, lambda start: True, until=1)
    world.now = 4
    assert world.scheduler.why_waiting(1, world.now).endswith(
        '; all hosts are set aside, h1 for 6 s more: the disk is full'
    )
