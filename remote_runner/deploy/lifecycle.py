"""What is done to components that stand: stopping, starting again, signals, and waiting for them."""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Sequence
from itertools import groupby, pairwise

from remote_runner.deploy.board import OVER, State, Tracked
from remote_runner.deploy.holder import whoami
from remote_runner.deploy.outcome import report
from remote_runner.deploy.seen import Seen
from remote_runner.deploy.session import Session
from remote_runner.deploy.start import Starter
from remote_runner.deploy.sudo import Sudo
from remote_runner.deploy.watch import STOP_SLACK, stop_components, wait_for_components
from remote_runner.errors import (
    ComponentFailed,
    RemoteRunnerError,
    RequestFailed,
    SessionFailed,
    StartFailed,
    TimeIsUp,
    UsageError,
)
from remote_runner.hosts.address import fold_labels
from remote_runner.hosts.call import Header
from remote_runner.hosts.credentials import Credentials
from remote_runner.hosts.host import Host

#: Seconds that one host has for small things.
SHORT = 30.0


def stop(session: Session, wanted: Sequence[Seen], *, quit_sessions: bool) -> list[Tracked]:
    """End components in the reverse order of their starts; when this returns no descendant of them is alive.

    Args:
        session: where they are.
        wanted: which ones.
        quit_sessions: whether the screen sessions go too, with the windows of what has ended.

    Returns:
        Those that ran. The state of one that could not be proven to have ended is UNKNOWN.
    """
    session.lock(_hosts(wanted) | (set(session.pool.hosts) if quit_sessions else set()))
    session.settle(wanted)
    tracked = [one for one in session.watch(one for one in wanted if one.is_there) if not one.gone]
    for wave in reversed(_in_waves(tracked)):
        stop_components(session.board, session.pool, wave)
    if quit_sessions:
        session.each(lambda host: _quit(session, host), session.pool.hosts)
    return tracked


def _quit(session: Session, host: Host) -> None:
    try:
        host.request('quit', timeout=SHORT, session=session.session, stop_timeout=1.0)
    except RequestFailed as error:
        raise SessionFailed(error.what, host=host.name) from error


def allow(session: Session, wanted: Sequence[Seen], credentials: Credentials) -> None:
    """Have sudo let components run as the users they have, before anything is done to them.

    Raises:
        StartFailed: it does not.
    """
    wanted = [seen for seen in wanted if seen.facts['user'] is not None]
    users: dict[str, list[str]] = {host: [] for host in _hosts(wanted)}
    for seen in wanted:
        users[seen.at].append(seen.facts['user'])
    reasons = Sudo(credentials, session.keep_secret).check(session.pool, users)
    errors = [
        RemoteRunnerError(reasons[seen.at, seen.facts['user']], host=seen.host, component=seen.name)
        for seen in wanted
        if (seen.at, seen.facts['user']) in reasons
    ]
    if errors:
        raise StartFailed('\n'.join(map(str, errors)))


def start_again(session: Session, wanted: Sequence[Seen], start_timeout: float) -> list[Tracked]:
    """Start components that have ended as they were started before, in their order; each start is verified.

    Args:
        session: where they are; what was watched and ended there may be started again.
        wanted: which ones; none of them runs.
        start_timeout: seconds that one may take whose own limit is not known.

    Raises:
        UsageError: one of them runs.
        StartFailed: one did not start.
    """
    alive = [seen.label for seen in wanted if seen.is_there]
    if alive:
        raise UsageError(f'already running: {", ".join(alive)}', remedy='`restart` ends and starts them')
    session.lock(_hosts(wanted))
    runs = {seen.label: seen.run for seen in wanted}
    _hear_last_words(session, runs)
    session.board.forget(runs)
    for seen in wanted:
        session.board.add(seen.plan(), seen.at)

    def describe(tracked: Tracked) -> Header:
        return {'again': True, 'name': tracked.plan.name, 'run': runs[tracked.key]}

    starter = Starter(
        session.board,
        session.pool,
        session.session,
        next(iter(runs.values()), ''),
        whoami(),
        describe,
        start_timeout=start_timeout,
        zombie=True,
    )
    started = [tracked for tracked in session.board.all() if tracked.key in runs]
    try:
        for components, following in pairwise([*_in_waves(started), []]):
            if not starter.start(components, following):
                raise StartFailed('\n'.join(report(t) for t in components if t.state is not State.STARTED))
    except BaseException:
        starter.abort('the command was ended')
        raise
    return started


def _hear_last_words(session: Session, keys: Container[str]) -> None:
    """Wait until launchers that have ended are closed: what is heard later counts for those that come after them."""
    ended = [one for one in session.board.all() if one.key in keys]
    deadline = time.monotonic() + STOP_SLACK
    session.board.wait(lambda: not any(one.launcher and one.host not in session.board.lost for one in ended), deadline)


def send_signal(session: Session, wanted: Sequence[Seen], number: str) -> dict[str, str]:
    """Send a signal to the process groups of programs; why those did not get it that did not, by label.

    Raises:
        UsageError: a host knows no such signal.
    """
    results = {seen.label: seen.reason for seen in wanted if not seen.at}
    own = {host: [seen for seen in wanted if seen.at == host] for host in _hosts(wanted)}

    def send(host: Host) -> Header:
        names = [seen.name for seen in own[host.name]]
        runs = list(dict.fromkeys(seen.run for seen in own[host.name]))
        asked = {'session': session.session, 'names': names, 'runs': runs, 'signal': number}
        try:
            answer: Header = host.request('signal', timeout=SHORT, **asked)
        except RequestFailed as error:
            raise UsageError(error.what, host=host.name) from error
        return answer

    def work(host: Host) -> None:
        answer = send(host)['results']
        results.update({seen.label: answer.get(seen.name, 'it does not run') for seen in own[host.name]})

    session.each(work, own)
    return {label: why for label, why in results.items() if why}


def wait(
    session: Session, wanted: Sequence[Seen], what: str, timeout: float | None, begun: float | None = None
) -> list[Tracked]:
    """Wait until components have ended (`exit`) or are ready (`ready`), through broken connections.

    Args:
        session: where they are.
        wanted: which ones.
        what: `exit` or `ready`.
        timeout: seconds that this may take; None: as long as it takes.
        begun: since when these count (time.monotonic); None: since now.

    Raises:
        ComponentFailed: one of them has failed, or nobody can say what became of it.
        TimeIsUp: not all in time.
    """
    deadline = None if timeout is None else (time.monotonic() if begun is None else begun) + timeout
    tracked = session.watch(wanted)
    is_settled = _is_ready if what == 'ready' else _is_over
    in_time = wait_for_components(session.board, tracked, session.reconnect, settled=is_settled, deadline=deadline)
    for one in tracked:
        if one.state is State.EXITED and one.status:
            session.board.fail([one], f'it ended with exit status {one.status}', one.output)
    bad = [one for one in tracked if one.state in (State.FAILED, State.UNKNOWN, State.ABORTED)]
    if what == 'ready':
        bad += [one for one in tracked if one.state in (State.EXITED, State.STOPPED) and not one.is_ready]
    failures = [f'{seen.label}: {seen.reason}' for seen in wanted if seen.state == 'missing']
    failures += [report(one) for one in bad]
    if not in_time:
        late = fold_labels(one.key for one in tracked if not is_settled(one))
        how = 'not ready' if what == 'ready' else 'not ended'
        raise TimeIsUp('\n'.join([*failures, f'{how} within {timeout:g} s: {late}']))
    if failures:
        raise ComponentFailed('\n'.join(failures))
    return tracked


def _is_over(tracked: Tracked) -> bool:
    return tracked.state in OVER


def _is_ready(tracked: Tracked) -> bool:
    return tracked.state in OVER or (tracked.state is State.STARTED and tracked.is_ready)


def _in_waves(tracked: Iterable[Tracked]) -> list[list[Tracked]]:
    """Those that start together in one list, in the order of starts."""
    ordered = sorted(tracked, key=_order)
    return [list(wave) for _, wave in groupby(ordered, _order)]


def _order(tracked: Tracked) -> tuple[int, int]:
    return tracked.plan.start_index, tracked.plan.wave


def _hosts(wanted: Iterable[Seen]) -> set[str]:
    return {seen.at for seen in wanted if seen.at}
