"""Copying files and folders to many hosts, without a config.

    outcome = copy(wanted, addresses, connector, events)

Each host is copied to as soon as it is connected, and one that fails stops no other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from remote_runner.defaults import FANOUT
from remote_runner.deploy.bring import Bringer
from remote_runner.errors import RemoteRunnerError, RequestFailed, SourcesFailed, TransferFailed
from remote_runner.events import CopyEnded, Events, HostConnected, HostConnecting, HostFailed, HostMerged
from remote_runner.files.ahead import Gathering
from remote_runner.files.manifest import Manifest
from remote_runner.files.sources import gather, is_ambiguous
from remote_runner.hosts.address import Address
from remote_runner.hosts.host import ANSWER_TIMEOUT, GIVE_UP_TIMEOUT, Host
from remote_runner.hosts.pool import Opens, Pool, distinct

#: The exit status of what was interrupted.
INTERRUPTED = 130


class Wanted(NamedTuple):
    """What is to be copied, and where to; see `files/sources.py`.

    Args:
        sources: files and folders of this machine.
        dest: a path on the hosts.
        exclude: what is left out.
        keep_links: links stay links.
    """

    sources: tuple[str, ...]
    dest: str
    exclude: tuple[str, ...] = ()
    keep_links: bool = False


class Copying:
    """One command that copies: what it has gathered, and where it is copied to. A context manager.

    Args:
        wanted: what and where to.
        bringer: how.
        events: hears what happens.
        gathering: has begun to look at what is wanted, where a process of its own does that: then hosts are connected
            to meanwhile.

    Raises:
        SourcesFailed: something is not there, or cannot be read; of a `gathering`, `copy` says that.
        ValueError: a pattern of `exclude` can match nothing; the same.
    """

    def __init__(self, wanted: Wanted, bringer: Bringer, events: Events, gathering: Gathering | None = None) -> None:
        self._wanted = wanted
        self._bringer = bringer
        self._events = events
        self._is_ambiguous = is_ambiguous(wanted.sources, wanted.dest)
        self._gathering = gathering
        self._found = gathering or self._gather(into=True)
        self._of_one = self._gather(into=False) if self._is_ambiguous else None
        self._lock = threading.Lock()
        self._machines: dict[str, str] = {}
        self._begun = 0.0

    def _gather(self, *, into: bool) -> Manifest:
        sources, dest, exclude, keep_links = self._wanted
        return gather(self._bringer.local, sources, dest, exclude=exclude, keep_links=keep_links, into=into)

    def copy(
        self, addresses: Iterable[Address], connector: Opens, fanout: int = FANOUT, *, leave: bool = False
    ) -> dict[str, RemoteRunnerError]:
        """Copy to all hosts; the errors of those on which it failed.

        Two names of one machine and user are one host. `leave`: see `Pool`.

        Raises:
            KeyboardInterrupt: the hosts have let go of what they were at; of large files they keep what came.
        """
        self._begun = time.monotonic()
        status = 1
        failures: dict[str, RemoteRunnerError] = {}
        through: set[str] = set()
        hosts: Iterable[Address] = list(addresses)
        with Pool(connector, fanout=fanout, leave=leave) as pool:
            try:
                hosts = names = distinct(hosts, connector, fanout)
                for address, others in names.items():
                    self._events.emit(HostConnecting(host=address.where))
                    for other in others:
                        self._events.emit(HostMerged(host=other.where, same_as=address.where))
                for address, failure in pool.serve(names, self._serve):
                    if isinstance(failure, SourcesFailed):
                        raise failure
                    through.add(address.where)
                    if failure is not None:
                        failures[address.where] = failure
                        self._events.emit(HostFailed(host=address.where, error=str(failure)))
                if self._gathering is not None:
                    self._gathering.whole(self._bringer.local)  # if no host could be asked, what is wrong here is told
                status = exit_status(failures.values())
            except SourcesFailed as error:
                status = error.exit_status
                raise
            except ValueError:
                status = SourcesFailed.exit_status
                raise
            except KeyboardInterrupt:
                status = INTERRUPTED
                self._bringer.give_up()
                for _ in pool.each(lambda host: host.give_up(GIVE_UP_TIMEOUT)):
                    continue
                raise
            finally:
                self._bringer.local.save()
                if self._gathering is not None:
                    self._gathering.close()
                told = {host: str(failure) for host, failure in failures.items()}
                if status == INTERRUPTED:
                    told |= {address.where: 'interrupted' for address in hosts if address.where not in through}
                self._end(told, status)
        return failures

    def _end(self, failed: dict[str, str], status: int) -> None:
        """Say what came of it."""
        done = self._bringer.done
        self._events.emit(
            CopyEnded(
                hosts=len({sent.host for sent in done} | failed.keys()),
                failed=failed,
                exit_status=status,
                files=sum(sent.files for sent in done),
                sent=sum(sent.sent for sent in done),
                bytes=sum(sent.bytes for sent in done),
                sent_bytes=self._bringer.sent_bytes(),
                seconds=time.monotonic() - self._begun,
            )
        )

    def _serve(self, host: Host) -> None:
        """Copy to a host that is connected."""
        with self._lock:
            first = self._machines.setdefault(host.facts.identity, host.name)
        if first != host.name:
            self._events.emit(HostMerged(host=host.name, same_as=first))
            return
        self._events.emit(HostConnected(host=host.name, seconds=time.monotonic() - self._begun))
        self._bringer.bring(host, self._wanted_on(host))

    def _wanted_on(self, host: Host) -> Manifest | Gathering:
        if self._of_one is None:
            return self._found
        try:
            [is_folder] = host.request('are_folders', timeout=ANSWER_TIMEOUT, paths=[self._wanted.dest])['folders']
        except RequestFailed as error:
            raise TransferFailed(error.what, host=host.name) from error
        return self._found if is_folder else self._of_one


def exit_status(failures: Iterable[RemoteRunnerError]) -> int:
    """0 all is there, 1 a file could not be brought, 3 a host could not be reached, trusted or authenticated."""
    return max((failure.exit_status for failure in failures), default=0)
