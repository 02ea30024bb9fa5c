"""Turns in sending to many hosts."""

from __future__ import annotations

import threading

from remote_runner.files.lanes import LANES, SAMPLE, SHARE, Lanes

PART = 1 << 18


class _Sending:
    """A host that is sent one part, and is done when it is told so."""

    def __init__(self, shared: Lanes) -> None:
        self.is_at_it, self.may_end, self.is_over = threading.Event(), threading.Event(), threading.Event()
        self._shared = shared
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._shared.lane() as lane:
            lane.send(PART, self._work, self.is_over.is_set)

    def _work(self) -> bool:
        self.is_at_it.set()
        return self.may_end.wait(60)

    def end(self) -> None:
        self.may_end.set()
        self._thread.join()


def test_few_are_sent_to_at_a_time_and_the_next_when_one_is_done() -> None:
    shared = Lanes()
    first = [_Sending(shared) for _ in range(LANES)]
    assert all(one.is_at_it.wait(60) for one in first)
    other = _Sending(shared)
    assert not other.is_at_it.wait(0.2)
    first.pop().end()
    assert other.is_at_it.wait(60)
    for one in (*first, other):
        one.end()


def test_who_is_not_wanted_any_more_does_not_wait() -> None:
    shared = Lanes()
    first = [_Sending(shared) for _ in range(LANES)]
    assert all(one.is_at_it.wait(60) for one in first)
    other = _Sending(shared)
    other.is_over.set()
    assert other.is_at_it.wait(60)
    for one in (*first, other):
        one.end()


def _free(shared: Lanes) -> int:
    """How many turns nobody has."""
    free = shared._free
    taken = 0
    while free.acquire(blocking=False):
        taken += 1
    for _ in range(taken):
        free.release()
    return taken


def test_a_slow_host_needs_no_turn() -> None:
    shared = Lanes()
    with shared.lane() as lane:
        lane.send(PART, lambda: True, lambda: False)
        assert _free(shared) == LANES - 1
        slow = threading.Event()
        for _ in range(SAMPLE // PART):
            lane.send(PART, lambda: not slow.wait(0.03), lambda: False)
        assert _free(shared) == LANES
        assert lane.send(PART, lambda: True, lambda: False)
        assert _free(shared) == LANES


def test_after_its_share_it_is_another_ones_turn() -> None:
    shared = Lanes()
    with shared.lane() as lane:
        assert lane.send(SHARE - 1, lambda: True, lambda: False)
        assert _free(shared) == LANES - 1
        assert lane.send(1, lambda: True, lambda: False)
        assert _free(shared) == LANES
        assert lane.send(1, lambda: False, lambda: False) is False
        assert _free(shared) == LANES - 1
    assert _free(shared) == LANES


def test_nothing_to_send_needs_no_turn() -> None:
    shared = Lanes()
    with shared.lane() as lane:
        assert lane.send(0, lambda: True, lambda: False)
        assert _free(shared) == LANES
