"""Which attempt at which task runs where and when: all policy of jobs, and nothing else.

    scheduler = Scheduler(Policy(retries=2))
    scheduler.host_up('h1', slots=4)
    scheduler.add(0)
    for order in scheduler.orders(now): ...            # Start and Cancel, for an engine to carry out
    scheduler.started(0, 1, now)                       # facts, as the engine hears of them
    scheduler.ended(0, 1, Outcome(), now, took=0.2)
    scheduler.settled()                                # what became of tasks, to be delivered

It knows tasks by their numbers, talks to nobody, and reads no clock: time comes with each call, in seconds that never
go back. Whatever facts come in whatever order, a task is settled once. What comes of an attempt that does not count any
more is `superseded`, and changes nothing.

Here is what counts: facts, retries, what is settled. `placement.py` decides where tasks run, `health.py` which hosts
are set aside, `times.py` how long is long; `book.py` remembers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from remote_runner.jobs.book import LOSSES, POISONOUS, Aside, Begun, Book, Cancel, Host, Live, Order, Settled, Start
from remote_runner.jobs.health import ASIDE, STREAK, Health
from remote_runner.jobs.placement import Placement
from remote_runner.jobs.policy import Cause, Outcome, Policy
from remote_runner.jobs.times import FEW, Times

if TYPE_CHECKING:
    from remote_runner.jobs.explain import Progress


__all__ = ['ASIDE', 'POISONOUS', 'STREAK', 'Cancel', 'Order', 'Scheduler', 'Settled', 'Start']

_CANCELLED = Outcome(Cause.CANCELLED)


class Scheduler:
    """See above. Not thread-safe: one thread uses it."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self._book = Book()
        self._times = Times(self.policy)
        self._health = Health(self._book)
        self._placement = Placement(self._book, self.policy, self._times)
        self._settled: list[Settled] = []
        self._is_paused = self._is_halted = False
        self.done = self.failed = 0
        self._retried = self._copies_won = 0
        self._saved = 0.0

    # ---- what is to be done ------------------------------------------------------------------------------------

    def add(self, task: int) -> None:
        """One more task, of a number that there was not before."""
        if self._is_halted:
            self._settle(task, 0, _CANCELLED)
        else:
            self._book.waiting.append(task)

    def restore(
        self,
        task: int,
        attempts: int,
        failures: Mapping[Cause, int],
        live: Iterable[tuple[int, str]],
        lost_on: Iterable[str] = (),
    ) -> None:
        """A task that another master began, instead of `add`.

        Args:
            task: its number.
            attempts: how many it had: further ones count on.
            failures: how often it failed for each cause.
            live: attempts of whose end nothing is known, each with its host. They are under way until `host_up` of that
                host says what it has, or `host_down` that it is gone.
            lost_on: hosts on which it was lost.
        """
        begun = self._book.tasks[task] = Begun()
        begun.attempts = attempts
        begun.failures.update(failures)
        begun.lost_on.update(lost_on)
        begun.avoided.update(begun.lost_on)
        begun.is_retried = bool(begun.lost_on) or any(failures.values())
        self._retried += begun.is_retried
        for number, name in sorted(live):
            begun.attempts = max(begun.attempts, number)
            inherited = self._book.put(begun, Live(task, number, self._host(name), is_copy=bool(begun.live)))
            inherited.is_inherited = True
        if self._is_halted:
            self._settle(task, begun.attempts, _CANCELLED, 'cancelled')
        elif not begun.live:
            self._book.again.append(task)

    def close(self) -> None:
        """No further task comes."""
        self._placement.is_closed = True

    @property
    def is_halted(self) -> bool:
        """Whether nothing more is begun, ever."""
        return self._is_halted

    @property
    def is_closed(self) -> bool:
        """Whether no further task comes."""
        return self._placement.is_closed

    @property
    def is_over(self) -> bool:
        """Whether all tasks are settled, and none comes any more."""
        return self.is_closed and not self.unsettled

    @property
    def unsettled(self) -> int:
        """How many tasks are not settled."""
        return len(self._book.waiting) + len(self._book.tasks)

    @property
    def is_ahead(self) -> bool:
        """Whether hosts have tasks at hand while others wait: none of their slots is idle if nothing is ordered now."""
        return self._times.ahead > 0 and bool(self._book.waiting)

    @property
    def waiting(self) -> int:
        """How many tasks no host was told of."""
        return len(self._book.waiting) + len(self._book.again)

    def pause(self) -> None:
        """Begin nothing more; what hosts were told of goes on."""
        self._is_paused = True

    def resume(self) -> None:
        """Go on."""
        self._is_paused = False

    def cancel(self, *, now_running: bool = True) -> None:
        """Settle what no host was told of, and (`now_running`) the rest, as cancelled."""
        self._is_halted = True
        waiting, again = list(self._book.waiting), list(self._book.again)
        self._book.waiting.clear()
        self._book.again.clear()
        for task in [*again, *waiting]:
            self._settle(task, self._book.attempts(task), _CANCELLED)
        if now_running:
            for task in list(self._book.tasks):
                self._settle(task, self._book.attempts(task), _CANCELLED, 'cancelled')

    # ---- facts about hosts -------------------------------------------------------------------------------------

    def expect(self, names: Iterable[str]) -> None:
        """These may be there soon: what has failed on others waits for them, until `host_up` or `host_down`."""
        self._book.coming.update(names)

    def host_up(self, name: str, slots: int, have: frozenset[tuple[int, int]] | None = None) -> None:
        """A host is there, or has so many slots from now on.

        With `have`, it is known which (task, attempt) it knows of, those counted in that are on their way there: others
        are lost, and what it has that does not count is ended.
        """
        host = self._host(name)
        self._book.coming.discard(name)
        if have is not None:
            self._lose(host, [live for key, live in host.attempts.items() if key not in have], _UNKNOWN)
            strange = sorted(key for key in have if key not in host.attempts)
            self._book.orders += [Cancel(*key, name, 'superseded') for key in strange]
            for live in host.attempts.values():
                live.is_inherited = False
        host.slots, host.is_up, host.is_silent = slots, True, False
        self._look_at(host)
        self._placement.heard_of(host)

    def host_load(self, name: str, load: float) -> None:
        """A host reports its load per core: with a limit of that it gets nothing new until one below it comes."""
        host = self._host(name)
        host.load = load
        host.is_loaded = self.policy.load is not None and load > self.policy.load
        self._look_at(host)

    def host_silent(self, name: str, now: float) -> None:
        """The connection to a host is lost and is being made anew: what is under way there may go on.

        It gets nothing new until `host_up`. With `duplicates`, idle slots take copies of what is there.
        """
        host = self._host(name)
        host.is_up, host.is_silent = False, True
        self._forget_load(host)
        self._look_at(host)
        self._placement.silent(host)

    def host_down(self, name: str, now: float, why: str = '') -> None:
        """A host is gone, with all that was under way there."""
        self._book.coming.discard(name)
        host = self._book.hosts.get(name)
        if host is None:
            return
        host.is_up = host.is_silent = False
        self._forget_load(host)
        self._look_at(host)
        self._lose(host, list(host.attempts.values()), why)

    def _host(self, name: str) -> Host:
        host = self._book.hosts.get(name)
        if host is None:
            host = self._book.hosts[name] = Host(name, ASIDE)
            self._forget_load(host)
        return host

    def _forget_load(self, host: Host) -> None:
        """Where loads matter it gets nothing before it has reported its own."""
        host.load, host.is_loaded = None, self.policy.load is not None

    def _look_at(self, host: Host) -> None:
        self._book.look_at(host)
        self._health.look_at(host)

    def _lose(self, host: Host, lost: list[Live], why: str) -> None:
        """Those are lost there. What only waited for a slot there cannot be what ended the host.

        Nor is that said of what another master ordered: the host may have ended it because nobody was there.
        """
        running = host.running()
        for live in lost:
            if not live.is_live:
                continue  # its task was given up meanwhile
            if live in running and not live.is_inherited:
                self._fail(live, Outcome(Cause.LOST, why=why), 0.0, 0.0)
            else:
                self._book.forget(live)
                self._go_on(live, Outcome(Cause.LOST, why=why))

    # ---- facts about attempts ----------------------------------------------------------------------------------

    def started(self, task: int, attempt: int, now: float, ago: float = 0.0) -> None:
        """An attempt was started `ago` seconds ago. Of short ones that need not be said: its slot is busy for long."""
        live = self._book.find(task, attempt)
        if live is not None and live.began is None:
            self._book.start(live, now - ago)
            self._placement.started(live)

    def ended(self, task: int, attempt: int, outcome: Outcome, now: float, took: float | None = None) -> bool:
        """An attempt has ended, or was lost; it took so many seconds by the clock of its host.

        Returns:
            whether it counts: else it was superseded.
        """
        live = self._book.find(task, attempt)
        if live is None:
            return False
        if took is None and live.began is not None:
            took = max(0.0, now - live.began)
        if outcome.cause is None:
            self._succeed(live, outcome, now, took)
        else:
            self._fail(live, outcome, took or 0.0, now)
        return True

    def _succeed(self, live: Live, outcome: Outcome, now: float, took: float | None) -> None:
        self._book.forget(live)
        self._health.succeeded(live.host)
        if took is not None:
            self._times.add(took)
        if live.is_copy:
            self._copies_won += 1
            others = self._book.tasks[live.task].live.values()
            began = min((other.began for other in others if other.began is not None), default=None)
            if began is not None and took is not None:
                self._saved += max(0.0, now - began - took)
        self._settle(live.task, live.number, outcome)

    def _fail(self, live: Live, outcome: Outcome, took: float, now: float) -> None:
        cause = outcome.cause
        assert cause is not None  # noqa: S101 - for the type checker
        self._book.forget(live)
        begun = self._book.tasks[live.task]
        begun.avoided.add(live.host.name)
        if cause is Cause.CANCELLED:
            self._settle(live.task, live.number, outcome)
        elif cause is Cause.LOST:
            begun.lost_on.add(live.host.name)
            begun.failures[cause] = begun.failures.get(cause, 0) + 1
            if len(begun.lost_on) >= POISONOUS or begun.failures[cause] >= LOSSES:
                self._settle(live.task, live.number, outcome._replace(cause=Cause.POISON))
            else:
                self._go_on(live, outcome, is_retry=True)
        else:
            begun.failures[cause] = begun.failures.get(cause, 0) + 1
            is_excused = self._health.failed(live.host, live.task, outcome, took, now)
            is_spent = begun.failures[cause] > self.policy.retries or not self.policy.allows(outcome)
            self._go_on(live, outcome, is_retry=True, is_final=is_spent and not is_excused)
            if is_excused:
                self._withdraw(live.host)

    def _go_on(self, live: Live, outcome: Outcome, *, is_retry: bool = False, is_final: bool = False) -> None:
        """An attempt came to nothing: another copy goes on, or the task is tried again, or this was the last one."""
        begun = self._book.tasks[live.task]
        if begun.live:
            for other in begun.live.values():
                self._placement.is_alone(other)
        elif is_final or self._is_halted:
            self._settle(live.task, live.number, outcome)
        else:
            if is_retry and not begun.is_retried:
                begun.is_retried = True
                self._retried += 1
            self._book.again.append(live.task)

    def _withdraw(self, host: Host) -> None:
        """It is set aside: what it has not begun is for others."""
        if self._is_halted:
            return
        for live in reversed(list(host.attempts.values())):
            if live.began is None:
                self._book.cancel(live, 'superseded')
                if not self._book.tasks[live.task].live:
                    self._book.again.appendleft(live.task)

    # ---- what is settled ---------------------------------------------------------------------------------------

    def _settle(self, task: int, attempt: int, outcome: Outcome, why: str = 'superseded') -> None:
        """It is decided; what else is under way for it is ended."""
        begun = self._book.tasks.get(task)
        if begun is not None:
            if begun.live:
                for other in list(begun.live.values()):
                    self._book.cancel(other, why)
            del self._book.tasks[task]
        self._settled.append(Settled(task, attempt, outcome))
        if outcome.cause is None:
            self.done += 1
        elif outcome.cause is not Cause.CANCELLED:
            self.failed += 1
            self._maybe_halt()

    def _maybe_halt(self) -> None:
        halt = self.policy.halt
        if halt is None or self._is_halted:
            return
        least = halt.at if halt.at >= 1 else max(FEW, halt.at * (self.done + self.failed))
        if self.failed >= least:
            self.cancel(now_running=halt.now)

    def settled(self) -> list[Settled]:
        """What was decided since this was asked last."""
        found, self._settled = self._settled, []
        return found

    # ---- orders ------------------------------------------------------------------------------------------------

    def orders(self, now: float) -> list[Order]:
        """What is to be done now."""
        for live in self._placement.late(now):
            if not live.is_live:
                continue  # the job was given up meanwhile
            self._book.orders.append(Cancel(live.task, live.number, live.host.name, 'timeout'))
            self._fail(live, Outcome(Cause.TIMEOUT), max(0.0, now - (live.began or 0.0)), now)
        self._health.due(now)
        if not self._is_paused and not self._is_halted:
            self._placement.use_slots(now, self.done)
        found, self._book.orders = self._book.orders, []
        return found

    def next_time(self, now: float) -> float | None:
        """When there may be more orders, if nothing happens before; None: not before something does."""
        if not self.unsettled:
            return None
        times = self._placement.next_times()
        if self._health.soonest is not None:
            times.append(self._health.soonest)
        return min((time for time in times if time > now), default=None)

    def news(self) -> list[Aside]:
        """Hosts that were set aside since this was asked last."""
        return self._health.news()

    # ---- what is said of it ------------------------------------------------------------------------------------

    @property
    def progress(self) -> Progress:
        """How far tasks are, for a display: it costs as much as there are hosts."""
        from remote_runner.jobs.explain import progress

        return progress(self._book, self._retried, self._placement.copies, self._copies_won, self._saved)

    def why_waiting(self, task: int, now: float) -> str:
        """What a task that was added waits for, or where it runs, as a sentence without its subject and full stop."""
        from remote_runner.jobs.explain import why_waiting

        return why_waiting(self._book, task, now, is_paused=self._is_paused, most_load=self.policy.load)


_UNKNOWN = 'its dispatcher knows nothing of it'
