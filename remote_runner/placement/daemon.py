"""What the daemon does beside serving: it follows its cluster file, and tells its log what becomes of its hosts."""

from __future__ import annotations

import logging
import resource
import threading
from collections.abc import Callable

from remote_runner.errors import DaemonRuns, RemoteRunnerError
from remote_runner.placement.cluster import ClusterFile, Following
from remote_runner.placement.keeper import Cluster
from remote_runner.placement.member import CONNECTING, UP, HostState
from remote_runner.placement.server import Server

log = logging.getLogger(__name__)

#: Seconds between two looks at what has become of the hosts, and that they have to answer at first.
LOOK = 2.0
PATIENCE = 120.0


class Daemon:
    """See above.

    Args:
        file: that names the hosts.
        cluster: these, not started yet.
        server: of the cluster; it is stopped by whoever has it.
        on_ready: called in the loop once each host is up or has failed; whether the log is another one from now on.
    """

    def __init__(
        self, file: ClusterFile, cluster: Cluster, server: Server, on_ready: Callable[[], bool]
    ) -> None:
        self._file = file
        self._cluster = cluster
        self._server = server
        self._on_ready = on_ready
        self._told: dict[str, str] = {}
        self._fault = self._shut = ''

    def run(self, open_doors: Callable[[], object], keep_open: Callable[[], bool]) -> None:
        """Until the server is stopped, or another daemon has its seat.

        Args:
            open_doors: called when there is a host to choose, or none that could be reached.
            keep_open: called again and again after that: sees to it that we are found; whether we were not.
        """
        self._keep_open = keep_open
        raise_file_limit()
        self._cluster.start()
        threading.Thread(target=self._await, args=[open_doors], name='ready', daemon=True).start()
        with Following(self._file, self._cluster.set_addresses, _tell):
            self._server.run()

    def reread(self) -> None:
        """Take the hosts from their file again, and try those at once that are lost. From any thread."""
        self._server.loop.soon(self._reread)

    def _reread(self) -> None:
        try:
            self._cluster.set_addresses(self._file.read())
            log.info('%s was read again', self._file.source)
        except RemoteRunnerError as error:
            _tell(error)

    def _await(self, open_doors: Callable[[], object]) -> None:
        self._cluster.wait_until_up(PATIENCE, every=False)
        self._server.loop.soon(open_doors)
        self._cluster.wait_until_up(PATIENCE)
        self._server.loop.soon(self._be_ready)

    def _be_ready(self) -> None:
        self._tell_news()
        if self._on_ready():
            self._told, self._fault = {}, ''  # told again, in its log
        self._look()

    def _look(self) -> None:
        self._server.loop.later(LOOK, self._look)
        self._see_to_doors()
        self._tell_news()

    def _see_to_doors(self) -> None:
        try:
            if self._keep_open():
                log.warning('the socket was removed, or its lock; there is another one now')
            self._shut = ''
        except DaemonRuns as error:
            log.error('%s; so this one ends', error)
            self._server.stop()
        except RemoteRunnerError as error:
            if str(error) != self._shut:
                log.error('nobody finds this daemon: %s', error)
            self._shut = str(error)

    def _tell_news(self) -> None:
        self._tell_fault()
        before, self._told = self._told, {}
        for state in self._cluster.states():
            name = state.address.where
            self._told[name] = before.get(name, '') if state.state == CONNECTING else state.state
            if self._told[name] != before.get(name, ''):
                _tell_of(state, is_news=name in before)
        for name in before.keys() - self._told.keys():
            log.info('%s: it is not in the cluster any more', name)

    def _tell_fault(self) -> None:
        """Say what is wrong with the user's evaluation function, when that is news."""
        fault = ''
        try:
            self._cluster.hosts()
        except RemoteRunnerError as error:
            fault = str(error)
            if fault != self._fault:
                log.error('%s', fault)
        self._fault = fault


def _tell_of(state: HostState, *, is_news: bool) -> None:
    name = state.address.where
    if state.state != UP:
        log.warning('%s: %s; it is tried again and again', name, state.error)
    elif is_news:
        log.info('%s: it is there', name)


def _tell(error: RemoteRunnerError) -> None:
    log.error('%s; the hosts stay as they were', error)


def raise_file_limit() -> None:
    """As many open files as we may have: each client is one, and each host several."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
