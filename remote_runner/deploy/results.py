"""Bringing home what components wrote: `component.fetch`, and always their output."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from remote_runner.deploy.seen import Seen
from remote_runner.errors import FetchFailed, FetchIncomplete, HostError, RemoteRunnerError
from remote_runner.events import Events, ResultsFetched, ResultsFetching
from remote_runner.files.fetch import bring
from remote_runner.files.limit import Limit
from remote_runner.files.listing import Listing, Wanted, check_distinct, look
from remote_runner.files.options import CopyOptions
from remote_runner.files.results import local_folder, results_folder
from remote_runner.hosts.host import Host
from remote_runner.hosts.pool import Pool

#: The component's output, with the older part of it where there is one.
OUTPUT = 'output.log*'
DEFAULT = CopyOptions()


def wanted_of(seen: Seen, root: Path) -> list[Wanted]:
    """What is to be fetched of a component, into `<root>/<run>/<name>@<host>/`."""
    folder = results_folder(root, seen.run, seen.name, seen.host)
    wanted = [Wanted(seen.facts['folder'], OUTPUT, str(folder))]
    for remote, local in seen.facts['about']['fetch']:
        wanted.append(Wanted(seen.facts['cwd'], remote, local_folder(folder, local)))
    return wanted


def bring_home(
    pool: Pool, components: Iterable[Seen], root: Path, events: Events, options: CopyOptions = DEFAULT
) -> None:
    """Fetch what components wrote, from all hosts in parallel. One file that fails stops no other.

    Args:
        pool: the connected hosts.
        components: which ones; each with the facts of its host.
        root: the folder of results.
        events: hears of what comes.
        options: how: the rate, and whether SHA-1s of earlier runs are believed.

    Raises:
        FetchFailed: two files would have one path here; nothing was written.
        FetchIncomplete: some files, or what a host had, could not be brought.
    """
    wanted: dict[str, list[Wanted]] = {}
    folders: dict[str, dict[str, str]] = {}
    for seen in components:
        wanted.setdefault(seen.at, []).extend(wanted_of(seen, root))
        folders.setdefault(seen.at, {})[seen.label] = str(results_folder(root, seen.run, seen.name, seen.host))
    listings: dict[str, Listing] = {}
    failures: list[FetchFailed] = []
    for host, found in pool.each(lambda host: look(host, wanted[host.name]) if host.name in wanted else None):
        if isinstance(found, Listing):
            listings[host.name] = found
        elif found is not None:
            failures.append(FetchFailed.of(found, host.name))
    out_of_reach = HostError('its host is out of reach')
    failures += [FetchFailed.of(out_of_reach, name) for name in wanted.keys() - pool.hosts.keys()]
    check_distinct(listings.values())
    bringing = _Bringing(events, options)
    try:
        for host, outcome in pool.each(
            lambda host: bringing(host, listings[host.name], folders[host.name]) if host.name in listings else ()
        ):
            failures += [FetchFailed.of(outcome, host.name)] if isinstance(outcome, RemoteRunnerError) else outcome
    finally:
        bringing.end()
    if failures:
        raise FetchIncomplete(failures)


class _Bringing:
    """Fetches from hosts, from all together below one rate. Thread-safe."""

    def __init__(self, events: Events, options: CopyOptions) -> None:
        self._events = events
        self._options = options
        self._limit = Limit(options.rate) if options.rate else None

    def end(self) -> None:
        """Who waits for his turn need not any more."""
        if self._limit is not None:
            self._limit.end()

    def __call__(self, host: Host, listing: Listing, folders: dict[str, str]) -> tuple[FetchFailed, ...]:
        """Fetch from one host, into these folders of components; what could not be."""
        begun = time.monotonic()

        def progress(arrived: int, of: int, files: int, of_files: int) -> None:
            event = ResultsFetching(host=host.name, bytes=arrived, of_bytes=of, files=files, of_files=of_files)
            self._events.emit(event)

        fetched = bring(host, listing, progress, self._limit, remembered=self._options.remembered)
        self._events.emit(
            ResultsFetched(
                host=host.name,
                files=len(fetched.files),
                bytes=fetched.bytes,
                unchanged=len(fetched.skipped),
                seconds=time.monotonic() - begun,
                folders=folders,
            )
        )
        return fetched.failures
