"""What is counted of tasks and hosts, and that it always adds up."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from remote_runner.jobs.engines.base import HostDown, HostSilent, HostUp, Started
from remote_runner.jobs.policy import Cause, Outcome
from remote_runner.jobs.scheduler import Cancel, Start
from remote_runner.jobs.statistics import (
    LATELY,
    MOST_FAILURES,
    SLOWEST,
    Statistics,
    last_line,
)
from remote_runner.jobs.views import Copies, Failure, HostView, Slow, State, View
from tests.job_results import FAILED, ended

GOOD = Outcome(status=0)
TIMEOUT = Outcome(Cause.TIMEOUT)


class Fed:
    """Statistics whose clock goes on when it is told to."""

    def __init__(self, total: int = 10, **slots: int) -> None:
        self.now = 100.0
        self.all = Statistics(lambda number: number + 1000, clock=lambda: self.now)
        self.all.expect(total)
        for name, number in slots.items():
            self.all.hear(HostUp(name, number))

    def start(self, task: int, attempt: int = 1, host: str = 'h1') -> None:
        self.all.ordered([Start(task, attempt, host)])

    def begin(self, task: int, attempt: int = 1, host: str = 'h1') -> None:
        """It is ordered, and begins now."""
        self.start(task, attempt, host)
        self.all.hear(Started(task, attempt, host, 0.0))

    def cancel(self, task: int, attempt: int = 1, host: str = 'h1', why: str = 'superseded') -> None:
        self.all.ordered([Cancel(task, attempt, host, why)])

    def end(
        self, task: int, attempt: int = 1, outcome: Outcome = GOOD, *, counted: bool = True, **other: object
    ) -> None:
        self.all.hear(ended(task, attempt=attempt, outcome=outcome, **other), counted=counted)  # type: ignore[arg-type]

    def finish(self, task: int, outcome: Outcome = GOOD, **other: object) -> None:
        """Its only attempt ends, and with it the task."""
        self.start(task, host=str(other.get('host', 'h1')))
        self.end(task, outcome=outcome, **other)  # type: ignore[arg-type]
        self.all.settled(task, outcome)

    def view(self) -> View:
        return self.all.view()

    def host(self, name: str = 'h1') -> HostView:
        return next(host for host in self.view().hosts if host.name == name)


def test_tasks_that_succeed(tmp_path: Path) -> None:
    fed = Fed(h1=2, h2=1)
    large = tmp_path / 'large'
    large.write_bytes(b'x' * 1000)
    fed.finish(0, seconds=3.0, results={'out': b'abc', 'large': large})
    fed.finish(1, seconds=2.0, host='h2', results={'stdout': b'de'})
    fed.now += 10.0
    view = fed.view()
    assert (view.total, view.done, view.failed, view.has_failed, view.running, view.bytes) == (10, 2, {}, 0, 0, 1005)
    assert [(host.done, host.busy, host.share, host.bytes) for host in view.hosts] == [
        (1, 3.0, 0.15, 1003),
        (1, 2.0, 0.2, 2),
    ]
    assert view.seconds == 10.0
    assert (view.mean_rate, view.left) == (0.2, 40.0)
    assert view.slow_done == [Slow(1000, 'h1', 3.0), Slow(1001, 'h2', 2.0)]


def test_what_failed_has_its_cause_and_last_line() -> None:
    fed = Fed(h1=2)
    fed.finish(0, FAILED, tail='first\nlast one \n\n', host='h1')
    fed.finish(1, Outcome(Cause.REJECTED, 0, 'no ok in it'))
    view = fed.view()
    assert view.failed == {Cause.EXIT: 1, Cause.REJECTED: 1}
    assert view.failures == [
        Failure(1000, Cause.EXIT, 'h1', 3, '', 'last one'),
        Failure(1001, Cause.REJECTED, 'h1', 0, 'no ok in it', ''),
    ]
    assert (fed.host().failed, fed.host().done) == (2, 0)


def test_what_succeeds_at_last_has_not_failed() -> None:
    fed = Fed(h1=1, h2=1)
    fed.start(0)
    fed.end(0, outcome=FAILED)
    fed.start(0, 2, 'h2')
    fed.end(0, 2, host='h2')
    fed.all.settled(0, GOOD)
    view = fed.view()
    assert (view.retried, view.done, view.failed, view.failures) == (1, 1, {}, [])
    assert [(host.failed, host.done) for host in view.hosts] == [(1, 0), (0, 1)]
    assert view.copies == Copies()


def test_second_copies_and_what_they_saved() -> None:
    fed = Fed(h1=1, h2=1)
    fed.begin(0)
    fed.now += 60
    fed.begin(0, 2, 'h2')
    fed.now += 5
    assert fed.view().copies == Copies(1, 0)
    fed.end(0, 2, host='h2', seconds=5.0)
    fed.all.settled(0, GOOD)
    fed.cancel(0, 1)
    fed.all.saved(12.5)
    view = fed.view()
    assert view.copies == Copies(1, 1, 12.5)
    assert (view.superseded, view.retried, view.running) == (1, 0, 0)
    assert (fed.host().superseded, fed.host().busy) == (1, 65.0)


def test_a_second_copy_that_loses() -> None:
    fed = Fed(h1=1, h2=1)
    fed.begin(0)
    fed.begin(0, 2, 'h2')
    fed.end(0, 1)
    fed.all.settled(0, GOOD)
    fed.end(0, 2, host='h2', counted=False, seconds=2.0)  # it ended before it could be ended
    view = fed.view()
    assert view.copies == Copies(1, 0)
    assert (view.superseded, view.done, fed.host('h2').done, fed.host('h2').busy) == (1, 1, 0, 2.0)


def test_what_waited_at_a_host_and_moves_is_no_copy_and_no_retry() -> None:
    fed = Fed(h1=1, h2=1)
    fed.start(0)
    fed.cancel(0)
    fed.start(0, 2, 'h2')
    view = fed.view()
    assert (view.copies, view.retried, view.superseded) == (Copies(), 0, 0)


def test_a_host_that_goes_takes_what_ran_there_with_it() -> None:
    fed = Fed(h1=2, h2=1)
    fed.begin(0)
    fed.start(1)
    fed.now += 4
    fed.all.hear(HostSilent('h1', 'connection reset'))
    assert (fed.host().state, fed.host().why, fed.host().running) == (State.SILENT, 'connection reset', 2)
    fed.all.hear(HostDown('h1', 'no route'))
    fed.now += 100
    host = fed.host()
    assert (host.state, host.why, host.running, host.lost, host.busy) == (State.DOWN, 'no route', 0, 2, 4.0)
    assert host.share == 0.5  # of the time for which it was there
    assert fed.view().lost == 2
    fed.all.settled(0, Outcome(Cause.POISON))
    assert fed.view().failures == [Failure(1000, Cause.POISON, 'h1', None, 'no route', '')]
    fed.start(1, 2, 'h2')
    assert fed.view().retried == 1
    fed.all.hear(HostDown('h1', 'no route', is_final=True))
    assert fed.host().state is State.GONE
    fed.all.hear(HostUp('h1', 3))
    assert (fed.host().state, fed.host().why, fed.host().slots) == (State.UP, '', 3)


def test_a_host_that_is_back_and_knows_not_all() -> None:
    """Its dispatcher was killed, say, and another one was begun: what runs again is no second copy."""
    fed = Fed(h1=3)
    fed.start(0)
    fed.start(1)
    fed.all.hear(HostSilent('h1', 'its dispatcher has ended'))
    fed.all.hear(HostUp('h1', 3, frozenset({(1, 1)})))
    assert (fed.host().running, fed.host().lost, fed.view().lost) == (1, 1, 1)
    fed.start(0, 2)
    assert (fed.view().retried, fed.view().copies.begun, fed.host().running) == (1, 0, 2)


def test_attempts_that_an_engine_says_are_lost() -> None:
    fed = Fed(h1=1)
    fed.start(0)
    fed.end(0, outcome=Outcome(Cause.LOST))
    assert (fed.view().lost, fed.host().lost, fed.host().failed) == (1, 1, 0)


def test_a_time_limit_of_ours() -> None:
    """The scheduler ends it, and nothing is heard of it."""
    fed = Fed(h1=1)
    fed.begin(0)
    fed.now += 8
    fed.cancel(0, why='timeout')
    fed.all.settled(0, TIMEOUT)
    assert (fed.host().failed, fed.host().busy, fed.host().running) == (1, 8.0, 0)
    assert fed.view().failures == [Failure(1000, Cause.TIMEOUT, 'h1', None, '', '')]


def test_cancelled_tasks_are_counted_alone() -> None:
    fed = Fed(3, h1=1)
    fed.begin(0)
    fed.cancel(0, why='cancelled')
    for task in range(3):
        fed.all.settled(task, Outcome(Cause.CANCELLED))
    view = fed.view()
    assert (view.cancelled, view.has_failed, view.failures, view.done, view.mean_rate) == (3, 0, [], 0, 0.0)


def test_what_runs_for_longest() -> None:
    fed = Fed(20, h1=20)
    for task in range(8):
        fed.begin(task)
        fed.now += 1
    fed.start(9)
    fed.all.hear(Started(9, 1, 'h1', 50.0))
    view = fed.view()
    assert view.slow_running == [Slow(1009, 'h1', 50.0), *(Slow(1000 + n, 'h1', 8.0 - n) for n in range(SLOWEST - 1))]
    assert view.running == 9


def test_what_took_longest() -> None:
    fed = Fed(20, h1=1)
    for task in range(20):
        fed.finish(task, seconds=float(task * 7 % 20))
    assert [slow.seconds for slow in fed.view().slow_done] == [19.0, 18.0, 17.0, 16.0, 15.0]


def test_no_more_run_than_there_are_slots() -> None:
    """Short ones are handed to hosts ahead, and nobody is told when they begin."""
    fed = Fed(100, h1=2)
    for task in range(50):
        fed.start(task)
    assert (fed.host().running, fed.view().running) == (2, 2)


def test_the_rate_lately_and_the_time_left() -> None:
    fed = Fed(1000, h1=1)
    for task in range(100):
        fed.now += 0.1
        fed.finish(task)
    assert round(fed.view().mean_rate, 6) == 10.0
    for task in range(100, 200):
        fed.now += 0.5
        fed.finish(task)
    view = fed.view()
    assert 1.8 <= view.rate <= 2.2
    assert view.left is not None
    assert 800 / 2.2 <= view.left <= 800 / 1.8
    fed.now += 2 * LATELY
    assert fed.view().rate == 0.0


def test_time_left_is_not_told_while_tasks_may_come() -> None:
    fed = Fed(h1=1)
    fed.all.expect(5, is_all=False)
    fed.now += 1
    fed.finish(0)
    assert fed.view().left is None
    fed.all.expect(5)
    assert fed.view().left == 4.0


def test_what_was_done_before_a_resume_does_not_make_us_faster() -> None:
    fed = Fed(h1=1)
    fed.all.expect(1000)
    fed.all.resumed(980, {Cause.EXIT: 7, Cause.CANCELLED: 3})
    fed.now += 2
    fed.finish(0)
    view = fed.view()
    assert (view.done, view.failed, view.cancelled) == (981, {Cause.EXIT: 7}, 3)
    assert (view.mean_rate, view.left) == (0.5, 18.0)


def test_hosts_are_listed_before_they_are_there() -> None:
    fed = Fed()
    fed.all.expect(1, hosts=['h2', 'h1'])
    fed.all.hear(HostUp('h1', 1))
    assert [(host.name, host.state) for host in fed.view().hosts] == [('h2', State.DOWN), ('h1', State.UP)]


def test_memory_is_bounded_however_many_fail() -> None:
    fed = Fed(5000, h1=1)
    for task in range(MOST_FAILURES + 500):
        fed.finish(task, FAILED)
    view = fed.view()
    assert (len(view.failures), view.has_failed) == (MOST_FAILURES, MOST_FAILURES + 500)
    assert not fed.all._trouble


def test_as_json() -> None:
    fed = Fed(h1=1)
    fed.finish(0, FAILED, tail='oh')
    fed.begin(1)
    found = json.loads(json.dumps(fed.all.to_dict()))
    assert found['failed'] == {'exit': 1}
    assert found['failures'] == [
        {'index': 1000, 'cause': 'exit', 'host': 'h1', 'status': 3, 'why': '', 'last_line': 'oh'}
    ]
    assert found['slow_running'] == [{'index': 1001, 'host': 'h1', 'seconds': 0.0}]
    assert found['hosts'][0]['state'] == 'up'
    assert found['copies'] == {'begun': 0, 'won': 0, 'saved': 0.0}


def test_the_last_line() -> None:
    assert [last_line(text) for text in ('', '\n', 'a', 'a\nb\n \n')] == ['', '', 'a', 'b']


def test_a_beginning_that_is_told_late_is_no_attempt_under_way() -> None:
    fed = Fed(h1=1)
    fed.finish(0)
    fed.all.hear(Started(0, 1, 'h1', 1.0))
    assert (fed.view().running, fed.view().slow_running) == (0, [])


class Together(RuleBasedStateMachine):
    """Whatever happens in whatever order, all tasks are counted once, and nothing is left over."""

    def __init__(self) -> None:
        super().__init__()
        self.fed = Fed(8, h1=2, h2=1)
        #: Attempts that count, with their hosts; and all that were ever begun.
        self.live: dict[tuple[int, int], str] = {}
        self.begun: dict[tuple[int, int], str] = {}
        self.settled: dict[int, Outcome] = {}

    def key(self, data: st.DataObject) -> tuple[int, int]:
        return data.draw(st.sampled_from(sorted(self.begun)))

    def forget(self, task: int, why: str) -> None:
        for key in [key for key in self.live if key[0] == task]:
            self.fed.cancel(*key, self.live.pop(key), why)

    def settle(self, task: int, outcome: Outcome) -> None:
        self.settled[task] = outcome
        self.fed.all.settled(task, outcome)
        self.forget(task, 'superseded')

    @rule(seconds=st.floats(0, 30), task=st.integers(0, 7), host=st.sampled_from(['h1', 'h2']))
    def starts(self, seconds: float, task: int, host: str) -> None:
        self.fed.now += seconds
        if task not in self.settled:
            attempt = 1 + sum(key[0] == task for key in self.begun)
            self.live[task, attempt] = self.begun[task, attempt] = host
            self.fed.start(task, attempt, host)

    @precondition(lambda self: self.begun)
    @rule(data=st.data())
    def begins(self, data: st.DataObject) -> None:
        """Also long after it has ended."""
        key = self.key(data)
        self.fed.all.hear(Started(*key, self.begun[key], 0.5))

    @precondition(lambda self: self.begun)
    @rule(data=st.data(), outcome=st.sampled_from([GOOD, FAILED, Outcome(Cause.LOST)]), final=st.booleans())
    def ends(self, data: st.DataObject, outcome: Outcome, final: bool) -> None:
        """Also more than once, and though it does not count."""
        key = self.key(data)
        counted = self.live.pop(key, None) is not None
        self.fed.end(*key, outcome, counted=counted, host=self.begun[key])
        if counted and (outcome.cause is None or final):
            self.settle(key[0], outcome)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), why=st.sampled_from(['timeout', 'superseded']))
    def is_cancelled(self, data: st.DataObject, why: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.live)))
        self.fed.cancel(*key, self.live.pop(key), why)

    @rule(name=st.sampled_from(['h1', 'h2']))
    def goes_and_comes(self, name: str) -> None:
        self.fed.all.hear(HostDown(name, 'gone'))
        self.live = {key: host for key, host in self.live.items() if host != name}
        self.fed.all.hear(HostUp(name, 2))

    @invariant()
    def it_adds_up(self) -> None:
        view = self.fed.view()
        assert view.done == sum(outcome.cause is None for outcome in self.settled.values())
        assert view.done + view.has_failed == len(self.settled)
        assert sum(host.done for host in view.hosts) == view.done
        assert sum(host.lost for host in view.hosts) == view.lost
        assert sum(host.superseded for host in view.hosts) == view.superseded
        assert sum(host.done + host.failed + host.lost + host.superseded for host in view.hosts) >= len(self.settled)
        assert len(view.failures) == view.has_failed
        assert all(0 <= host.share <= 1 and host.busy >= 0 for host in view.hosts)
        assert view.copies.won <= view.copies.begun
        for host in view.hosts:
            there = sum(name == host.name for name in self.live.values())
            assert min(there, host.slots) <= host.running <= there

    def teardown(self) -> None:
        """When it is over, nothing is under way."""
        for task in range(8):
            if task not in self.settled:
                self.fed.all.settled(task, Outcome(Cause.CANCELLED))
                self.forget(task, 'cancelled')
        view = self.fed.view()
        assert view.done + view.has_failed + view.cancelled == 8
        assert view.running == 0
        assert not self.fed.all._where
        assert not self.fed.all._copies
        assert not self.fed.all._trouble


TestTogether = Together.TestCase
TestTogether.settings = settings(max_examples=60, stateful_step_count=40)
