"""Carrying out a plan: the main story of remote_runner, top to bottom.

    outcome = deploy(plan, connector, RunOptions(), events)

connects to all hosts, quits what an earlier run of the same session left, copies files, starts components index by
index, each proven by its call-back, and waits for those that are to be waited for.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

from remote_runner.agent.tree import describe_status
from remote_runner.deploy.board import RUNNING, Board, State, Tracked
from remote_runner.deploy.holder import Hold, whoami
from remote_runner.deploy.outcome import Experiment, Outcome, RunOptions, report
from remote_runner.deploy.plan import Plan
from remote_runner.deploy.prepare import SHORT, Preparation
from remote_runner.deploy.reach import Reach
from remote_runner.deploy.results import bring_home
from remote_runner.deploy.secrets import Secrets
from remote_runner.deploy.seen import Seen
from remote_runner.deploy.session import survey_run
from remote_runner.deploy.start import Starter, by_host, described
from remote_runner.deploy.sudo import Sudo
from remote_runner.deploy.watch import stop_components, wait_for_components, watching
from remote_runner.errors import (
    ComponentFailed,
    ConnectionLost,
    FetchFailed,
    FetchIncomplete,
    HostError,
    RemoteRunnerError,
    SessionFailed,
    StartFailed,
    of_hosts,
)
from remote_runner.events import (
    Events,
    HostConnected,
    HostConnecting,
    RunEnded,
    RunStarted,
)
from remote_runner.hosts.call import Header
from remote_runner.hosts.host import GIVE_UP_TIMEOUT, Host
from remote_runner.hosts.pool import Opens, Pool

__all__ = ['Outcome', 'RunOptions', 'deploy']

log = logging.getLogger(__name__)


def deploy(plan: Plan, connector: Opens, options: RunOptions, events: Events) -> Outcome:
    """Carry out `plan`; never raises what the outcome can tell.

    `outcome.exit_status`: 0 done; 1 something failed; 3 a host could not be reached, trusted or authenticated; 130
    interrupted (KeyboardInterrupt: what was starting is taken back, what has started stays).
    """
    begun = time.monotonic()
    if plan.secrets:
        events.mask = plan.secrets.mask
    with _Run(plan, connector, options, events) as run:
        outcome = run.outcome
        events.emit(run.introduction())
        try:
            run.carry_out()
        except RemoteRunnerError as error:
            outcome.error, outcome.exit_status = error, error.exit_status
            run.take_back(f'the run was ended: {type(error).__name__}')
        except KeyboardInterrupt as error:
            outcome.error, outcome.exit_status = error, 130
            run.take_back('interrupted')
    seconds = time.monotonic() - begun
    events.emit(RunEnded(run=outcome.run, exit_status=outcome.exit_status, seconds=seconds))
    return outcome


class _Run:
    """One run: its board, its hosts, and what it made on them."""

    def __init__(self, plan: Plan, connector: Opens, options: RunOptions, events: Events) -> None:
        self._plan = plan
        self._options = options
        self._events = events
        self._board = Board(events)
        self._pool = Pool(connector, self._board.hear, options.fanout, leave=options.last)
        self._me = whoami()
        run_id = options.join or new_run_id()
        self.outcome = Outcome(run_id, plan.session)
        self._hold = Hold(plan.session, self._me)
        self._starter = Starter(
            self._board,
            self._pool,
            plan.session,
            run_id,
            self._me,
            self._describe,
            start_timeout=options.start_timeout,
            zombie=options.zombie,
        )
        self.outcome.servers = self._starter.servers
        self._sudo = Sudo(options.sudo, self._keep_secret)
        self._reach = Reach(plan, self._pool, self._board, options, self.outcome, events)
        self._preparation = Preparation(plan, self._board, options, events)

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.outcome.components = self._board.all()
        self._pool.close()

    def introduction(self) -> RunStarted:
        """The first event."""
        plan = self._plan
        labels = {
            index: tuple(c.label for c in plan.components_of(index=index) if not c.is_undecided)
            for index in plan.indexes()
        }
        return RunStarted(
            run=self.outcome.run,
            session=plan.session,
            hosts=plan.hosts(),
            components=labels,
            undecided=tuple(c.name for c in plan.undecided()) or None,
        )

    def carry_out(self) -> None:
        """The story."""
        self._go_to_hosts()
        self._each(self._hold.take)
        if not self._options.kill_first:
            self._each(self._refuse_running)
        self._become_users()
        if self._options.copying.delete:
            self._each(self._preparation.check)
        self._each(self._check_room)
        self._each(self._preparation.make_ready)
        self._preparation.remember()
        self._reach.let_go()
        try:
            self._start_all()
        except RemoteRunnerError:
            with reported():
                self._preparation.complain()
            raise
        self._preparation.complain()

    def _start_all(self) -> None:
        """Start the components in their order, and wait for those that are to be waited for."""
        waves = [[tracked for tracked in wave if not tracked.kept] for wave in self._board.in_order()]
        for components, following in pairwise([*filter(None, waves), []]):
            self._start(components, following)
            self._see_to_critical()
        if self._options.experiment is None:
            self._wait()
        else:
            self._experiment(self._options.experiment)

    def _go_to_hosts(self) -> None:
        """Connect to all, and from now on know which component runs where."""
        plan = self._reach.connect()
        if plan is not self._plan:
            self._plan = plan
            self._preparation = Preparation(plan, self._board, self._options, self._events, self._reach.left)

    def _describe(self, tracked: Tracked) -> Header:
        base_dir = self._preparation.base_dirs[tracked.key]
        return described(tracked.plan, base_dir, self.outcome.run, self.outcome.session, self._plan.secrets)

    # ---- hosts ------------------------------------------------------------------------------------------------

    def _each(self, work: Callable[[Host], None]) -> None:
        """Do `work` on all hosts in parallel; when all are done, raise the errors together."""
        failures = [error for _, error in self._pool.each(work) if error is not None]
        if failures:
            raise of_hosts(failures)

    def _check_room(self, host: Host) -> None:
        """Where something is ended before files come."""
        if self._options.kill_first and host.name in self._hold.running:
            self._preparation.check_room(host)

    # ---- sessions ---------------------------------------------------------------------------------------------

    def _refuse_running(self, host: Host) -> None:
        """With `--no-kill`: a component that still runs cannot be started again."""
        wanted = {t.plan.name: t for t in self._board.all() if t.host == host.name}
        for found in host.request('running', timeout=SHORT, session=self._plan.session)['components']:
            if found.get('name') in wanted and found.get('state') != 'exited':
                tracked = wanted[found['name']]
                raise SessionFailed(
                    f'it still runs in session {self._plan.session} (pid {found.get("pid")})',
                    component=tracked.plan.name,
                    host=tracked.plan.host,
                    remedy='without --no-kill the session is replaced',
                )

    # ---- other users ------------------------------------------------------------------------------------------

    def _become_users(self) -> None:
        """Components that cannot run as the user they name have failed, before anything is changed on any host."""
        wanted = {name: [t.plan.user for t in own if t.plan.user] for name, own in by_host(self._board.all()).items()}
        reasons = self._sudo.check(self._pool, wanted)
        failed = [t for t in self._board.all() if (t.host, t.plan.user) in reasons]
        for tracked in failed:
            self._board.fail([tracked], reasons[tracked.host, tracked.plan.user or ''])
        if failed:
            raise StartFailed('\n'.join(report(tracked) for tracked in failed))

    def _keep_secret(self, password: str) -> None:
        self._events.mask = (self._plan.secrets | Secrets([password])).mask

    # ---- components -------------------------------------------------------------------------------------------

    def _start(self, components: list[Tracked], following: list[Tracked]) -> None:
        if self._starter.start(components, following):
            return
        self._settle()
        self._starter.see_through(components)
        self._see_to_critical()
        failed = [t for t in components if t.state not in RUNNING | {State.EXITED}]
        if not failed:
            return  # what was unknown has started
        # Programs that ended at once may have left descendants, and so may those that ended with success.
        stop_all = self._options.stop_on_failure or any(tracked.plan.critical for tracked in failed)
        wanted = (State.FAILED, State.EXITED, *RUNNING) if stop_all else (State.FAILED,)
        stop_components(self._board, self._pool, [t for t in self._board.of(*wanted) if t.pid])
        raise StartFailed('\n'.join(report(tracked) for tracked in failed))

    def _settle(self) -> None:
        """What was started while its connection broke: ask its host, if it can be reached again."""
        for name in by_host(t for t in self._board.of(State.UNKNOWN) if t.host in self._board.lost):
            with contextlib.suppress(HostError):
                self._reconnect(name)

    def _reconnect(self, name: str) -> None:
        """Connect to a host again, and learn what became of its components.

        Raises:
            HostError: it is still out of reach.
        """
        address = next(c.address for c in self._plan.components if c.address.where == name)
        loss = self._board.lost.get(name)
        self._events.emit(HostConnecting(host=name))
        begun = time.monotonic()
        host = self._pool.reconnect(address)
        own = [t for t in self._board.all() if t.host == name and t.state is not State.PLANNED]
        unknown = self._board.sight_again(own)
        keys = {t.key: t.plan.name for t in own}
        try:
            self._hold.renew(host)
            self._sudo.renew(host)
            states = host.request(
                'watch', timeout=SHORT, session=self._plan.session, run=self.outcome.run, keys=keys
            )['states']
        except RemoteRunnerError as error:
            self._board.lose_sight(unknown, error.what)
            if isinstance(error, HostError):
                raise
            raise ConnectionLost(f'the host cannot say what runs there: {error.what}', host=name) from error
        self._board.found(name, loss)
        for tracked in own:
            self._board.restore(tracked, states[tracked.key])
        self._events.emit(HostConnected(host=name, seconds=time.monotonic() - begun))

    def _see_to_critical(self) -> None:
        """End everything if a critical component has failed."""
        failed = self._board.failed_critical()
        if not failed:
            return
        self._hold.keep_others_out(self._each)
        log.error('%s has failed and is critical: all components are stopped', ', '.join(t.key for t in failed))
        stop_components(self._board, self._pool, [t for t in self._board.all() if t.pid])
        self._fail_ended(failed)
        raise ComponentFailed('\n'.join(report(tracked) for tracked in failed))

    def _fail_ended(self, components: list[Tracked]) -> None:
        """An exit without success is a failure of these."""
        for tracked in components:
            if tracked.state is State.EXITED and tracked.status:
                self._board.fail([tracked], f'it ended {describe_status(tracked.status)}', tracked.output)

    def _wait(self) -> None:
        """Stay until what is waited for has ended, end the others if that is asked for, and bring home what they wrote.

        Where nothing has `wait`, it is the critical ones that are waited for: without a command that is there nobody
        would stop the others when one of them fails.
        """
        everything = self._board.all()
        waited = [t for t in everything if t.plan.wait] or [t for t in everything if t.plan.critical]
        if not waited:
            if self._options.terminate:
                log.warning('--terminate has no effect: no component has wait=True')
            return
        self._hold.let_others_change(self._each)
        # The others may be critical, are ended or fetched from: their hosts must be in reach, too.
        has_failed = self._board.failed_critical
        wait_for_components(self._board, waited, self._reconnect, lambda: bool(has_failed()), beside=everything)
        try:
            self._end_of_wait(waited)
        except RemoteRunnerError:
            with reported():
                self._fetch()
            raise
        self._fetch()

    def _experiment(self, experiment: Experiment) -> None:
        """Do what the components were started for; the death of a critical one cancels it."""
        self._hold.let_others_change(self._each)
        with watching(self._board, self._reconnect, experiment.cancel):
            failure: RemoteRunnerError | None = None
            try:
                experiment.run()
            except RemoteRunnerError as error:
                failure = error
        try:
            self._see_to_critical()
        except RemoteRunnerError:
            with reported():
                self._fetch()
            raise
        if any(tracked.plan.wait for tracked in self._board.all()) and failure is None:
            self._wait()
            return
        if self._options.terminate:
            self._hold.keep_others_out(self._each)
            stop_components(self._board, self._pool, self._board.all())
        if failure is not None:
            with reported():
                self._fetch()
            raise failure
        self._fetch()

    def _end_of_wait(self, waited: list[Tracked]) -> None:
        """What was waited for has come, or cannot come any more."""
        self._see_to_critical()
        self._fail_ended(waited)
        if self._options.terminate:
            self._hold.keep_others_out(self._each)
            others = [tracked for tracked in self._board.all() if tracked not in waited]
            stop_components(self._board, self._pool, others + waited)
        failed = [t for t in waited if t.state is not State.EXITED]
        if failed:
            raise ComponentFailed('\n'.join(report(tracked) for tracked in failed))

    def _fetch(self) -> None:
        """Bring home what all components wrote."""
        if self._options.results is None:
            return
        found: list[Seen] = []
        failures: list[FetchFailed] = []
        for host, outcome in self._pool.each(lambda host: survey_run(host, self._plan.session, self.outcome.run)):
            if isinstance(outcome, RemoteRunnerError):
                failures.append(FetchFailed.of(outcome, host.name))
            else:
                found += outcome
        bring_home(self._pool, found, self._options.results, self._events, self._options.copying)
        if failures:
            raise FetchIncomplete(failures)

    # ---- the end ----------------------------------------------------------------------------------------------

    def take_back(self, reason: str) -> None:
        """Undo what is half done: starts under way, sessions and folders that nothing came into."""
        self._preparation.give_up()
        for _ in self._pool.each(lambda host: host.give_up(GIVE_UP_TIMEOUT)):
            continue
        out_of_sight = [t for t in self._board.of(*RUNNING) if t.host in self._board.lost]
        self._board.lose_sight(out_of_sight, 'the connection to its host is lost')
        self._starter.abort(reason)
        for host, outcome in self._pool.each(self._clean):
            if isinstance(outcome, RemoteRunnerError) and host.name not in self._board.lost:
                log.warning('%s could not be cleaned up: %s', host.name, outcome.what)

    def _clean(self, host: Host) -> None:
        self._preparation.clean(host, has_own_session=host.name in self._starter.own_servers)


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """An error within is told, and is not what ends the run: another one is."""
    try:
        yield
    except RemoteRunnerError as error:
        log.error('%s', error)


def new_run_id() -> str:
    """A name for a run, by UTC: in the order of names runs stand in that of their beginnings, wherever these were."""
    now = time.time()
    return time.strftime('%Y%m%d-%H%M%S', time.gmtime(now)) + f'-{int(now % 1 * 1000):03}{secrets.token_hex(1)}'
