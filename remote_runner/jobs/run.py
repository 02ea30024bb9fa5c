"""Running a job, from its beginning or from where another master left it, to its end.

    with Journal.create(place.folder, meta) as journal:
        run(Job(...), journal, place.folder, connector, audience)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from remote_runner.defaults import FANOUT
from remote_runner.hosts.address import Address
from remote_runner.hosts.host import Host
from remote_runner.hosts.pool import Opens
from remote_runner.jobs.engines.base import Links, nothing
from remote_runner.jobs.engines.link import Terms
from remote_runner.jobs.engines.ssh import SshEngine
from remote_runner.jobs.journal import Journal, Loaded
from remote_runner.jobs.master import Hears, Master, Validate
from remote_runner.jobs.policy import Policy
from remote_runner.jobs.scheduler import Scheduler
from remote_runner.jobs.source import Source

log = logging.getLogger(__name__)


class Job(NamedTuple):
    """What is to be done, and how.

    Args:
        id: under which hosts and people know it.
        addresses: the hosts, with their slots.
        source: where its tasks come from, those that the journal has not got.
        policy: how attempts are made.
        lease: seconds that hosts go on without a master.
        on_lost: what they do then: `kill` or `finish`.
        keep: of which attempts working folders stay: `all`, `failed` or `none`.
        environment: variables for all tasks.
        prepare: brings what tasks need to a host, see `SshEngine`.
        give_up: lets `prepare` come to its end soon, wherever it is under way: the job is over.
        validate: see `Master`.
        fanout: hosts that are connected to at the same time.
    """

    id: str
    addresses: Sequence[Address]
    source: Source
    policy: Policy = Policy()
    lease: float = 60.0
    on_lost: str = 'kill'
    keep: str = 'failed'
    environment: Mapping[str, str] = {}
    prepare: Callable[[Host], Links] = nothing
    give_up: Callable[[], None] = lambda: None
    validate: Validate | None = None
    fanout: int = FANOUT


def run(
    job: Job,
    journal: Journal,
    connector: Opens,
    hears: Hears,
    loaded: Loaded | None = None,
    meet: Callable[[Master, Scheduler], None] = lambda master, scheduler: None,
) -> None:
    """Run it until all its tasks are settled.

    Args:
        job: what.
        journal: its journal, which we are the master of.
        connector: makes connections.
        hears: is told how it goes.
        loaded: where another master left it; None: it has just begun.
        meet: is given who runs it, before it is run.

    Raises:
        HostsFailed: no host can be had; the job can be resumed.
        JournalFailed, OSError: nothing can be stored any more; the job can be resumed.
        KeyboardInterrupt: what ran on the hosts has been ended; the job can be resumed.
    """
    epoch = int(journal.meta.get('epoch', 0)) + 1
    has_ended = journal.meta.get('ended') is not None
    journal.note(epoch=epoch, ended=None)
    incoming = _incoming(journal.folder)
    terms = Terms(job.id, epoch, job.lease, job.on_lost, job.keep, job.environment, incoming)
    engine = SshEngine(job.addresses, connector, terms, job.prepare, job.fanout, job.policy.load)
    scheduler = Scheduler(job.policy)
    master = Master(
        journal, scheduler, engine, job.source, hears, validate=job.validate, keep_failed=job.keep != 'none'
    )
    meet(master, scheduler)
    try:
        if loaded is not None:
            master.restore(loaded, [] if has_ended else [host.host for host in journal.hosts()])
        master.run(engine.hosts)
    except KeyboardInterrupt:
        log.info('ending what runs on the hosts; a second Ctrl-C leaves that to them: %s', _alone(job))
        raise
    finally:
        with _leaving_it_to_hosts(job):
            job.give_up()
            engine.close('kill')  # what is still there does not count
            master.finish()
            _remove(incoming)
    journal.note(ended=time.time())


@contextmanager
def _leaving_it_to_hosts(job: Job) -> Iterator[None]:
    """Say so when somebody is too impatient to see the end of what runs there."""
    try:
        yield
    except KeyboardInterrupt:
        log.warning('what still runs on the hosts was left to them: %s', _alone(job))
        raise


def _alone(job: Job) -> str:
    """What hosts do that hear nothing of us any more."""
    if job.on_lost == 'finish':
        return 'they let it end, and keep what it brings for `jobs resume`'
    return f'they end it when they have not heard of us for {job.lease:g} s'


def _incoming(folder: Path) -> Path:
    """Where results come in; what another master left there came in part, or is told again."""
    incoming = folder / 'incoming'
    _remove(incoming)
    incoming.mkdir(mode=0o700)
    return incoming


def _remove(folder: Path) -> None:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
