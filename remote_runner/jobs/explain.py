"""What `jobs explain` and a display say of what the scheduler is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from remote_runner.hosts.address import fold
from remote_runner.jobs.book import Begun, Book, Live

#: Hosts that are named with their loads.
MOST_NAMED = 4


class Progress(NamedTuple):
    """How far tasks are.

    Args:
        waiting: tasks that wait, here or at hosts.
        running: attempts that were begun or fill slots.
        by_host: the same of each host that has any.
        aside: hosts that are set aside, and when each of them is tried again, by the clock of the scheduler.
        retried: tasks that were tried again.
        copies: second copies that were started.
        copies_won: those that succeeded first.
        saved: seconds by which those were quicker than what they replaced, at least, added up: how long the other one
            had run when the copy had succeeded, less what the copy took. More cannot be known: the other one was ended
            then, and nobody can tell how long it would have gone on. 0 where nothing is known of when it began.
    """

    waiting: int = 0
    running: int = 0
    by_host: Mapping[str, int] = {}
    aside: Mapping[str, float] = {}
    retried: int = 0
    copies: int = 0
    copies_won: int = 0
    saved: float = 0.0


def progress(book: Book, retried: int, copies: int, copies_won: int, saved: float) -> Progress:
    """See above. It costs as much as there are hosts."""
    by_host = {host.name: host.busy for host in book.hosts.values() if host.attempts}
    queued = sum(len(host.attempts) - host.busy for host in book.hosts.values())
    waiting = len(book.waiting) + len(book.again) + queued
    aside = {host.name: host.aside_until for host in book.hosts.values() if host.aside_until is not None}
    return Progress(waiting, sum(by_host.values()), by_host, aside, retried, copies, copies_won, saved)


def why_waiting(book: Book, task: int, now: float, *, is_paused: bool, most_load: float | None = None) -> str:
    """What a task that was added waits for, or is about, without a full stop."""
    begun = book.tasks.get(task)
    if begun is not None and begun.live:
        return ' and '.join(_runs(live, now) for live in begun.live.values())
    if begun is None and task not in book.waiting:
        return 'is settled'
    hindrance = 'the job is paused' if is_paused else _loaded(book, most_load) or _no_host(book, now)
    if begun is None:
        waits = f'waits for a slot: {_before(len(book.again) + book.waiting.index(task))}'
    else:
        waits = _waits_again(book, begun, book.again.index(task))
    return f'{waits}; {hindrance}' if hindrance else waits


def _runs(live: Live, now: float) -> str:
    host, attempt = live.host, f'as attempt {live.number}'
    if live.began is not None:
        text = f'runs at {host.name} since {max(0.0, now - live.began):.0f} s {attempt}'
    elif not host.slots:
        return f'was given to {host.name} {attempt} by another master, and goes on when that host is up'
    elif live in host.running():
        text = f'begins at {host.name} {attempt}'
    else:
        text = f'waits at {host.name} {attempt} for a slot there'
    return f'{text} (the connection to {host.name} is being made anew)' if host.is_silent else text


def _waits_again(book: Book, begun: Begun, place: int) -> str:
    if not begun.is_retried:
        return f'waits for a slot: {_before(place)}'
    text = f'waits for its retry as attempt {begun.attempts + 1}: {_before(place)}'
    if not begun.avoided or not book.has_another(begun):
        return text
    return f'{text}; not on {fold(sorted(begun.avoided))}, where it failed, while there is another host'


def _before(number: int) -> str:
    return 'it is the next' if not number else f'{number} before it'


def _loaded(book: Book, most: float | None) -> str:
    """Which hosts get nothing because of their load; nothing where none is up that would get something else."""
    kept = [host for host in book.hosts.values() if host.is_up and host.aside_until is None and host.is_loaded]
    if not kept or most is None:
        return ''
    known = sorted((host for host in kept if host.load is not None), key=lambda host: -(host.load or 0.0))
    if not known:
        return f'the load of {fold(host.name for host in kept)} is not known yet'
    named = ', '.join(f'{host.name} ({host.load:.2f})' for host in known[:MOST_NAMED])
    more = f' and {len(known) - MOST_NAMED} more' if len(known) > MOST_NAMED else ''
    none = '' if book.usable else ', and no other host may be given something'
    return f'nothing is begun where the load per core is above {most:g}: {named}{more}{none}'


def _no_host(book: Book, now: float) -> str:
    """Why nothing can be begun anywhere; nothing where something can."""
    if book.usable:
        return ''
    aside = [host for host in book.hosts.values() if host.is_up and host.aside_until is not None]
    if aside:
        first = min(aside, key=lambda host: host.aside_until or 0.0)
        seconds = max(0.0, (first.aside_until or 0.0) - now)
        if first.is_short:
            return f'all hosts are set aside, {first.name} for {seconds:.0f} s more: {first.why_aside}'
        return f'all hosts are set aside because everything failed there, {first.name} for {seconds:.0f} s more'
    silent = [host.name for host in book.hosts.values() if host.is_silent]
    if silent:
        return f'no host is up: the connection to {fold(silent)} is being made anew'
    return 'no host is up'
