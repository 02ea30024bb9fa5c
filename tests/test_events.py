"""The stream of events: one order for all, and times that go with it."""

from __future__ import annotations

from remote_runner.events import Event, Events, HostConnecting


def heard(*times: float) -> list[float]:
    """The times of events that were made then, in the order in which they are emitted."""
    events = Events()
    found: list[Event] = []
    events.listen(found.append)
    for moment in times:
        events.emit(HostConnecting(time=moment, host='h1'))
    assert [(event.host, event.kind()) for event in found] == [('h1', 'host_connecting')] * len(times)
    return [event.time for event in found]


def test_an_event_that_was_overtaken_is_as_late_as_the_one_before_it() -> None:
    assert heard(100.0, 100.002, 100.001, 100.003) == [100.0, 100.002, 100.002, 100.003]


def test_a_clock_that_was_set_back_is_followed() -> None:
    assert heard(5000.0, 1400.0, 1400.5) == [5000.0, 1400.0, 1400.5]
