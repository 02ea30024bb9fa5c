"""What this host has to do at the moment, and what it has to spare: the operation `load`.

The figures are the kernel's (proc(5)), or those of the control group that holds us where that allows less. They are the
fields of `placement/choose.py`'s Report.
"""

import math
import os

from remote_runner.agent.census import Census
from remote_runner.agent.limits import Limits
from remote_runner.agent.logins import Logins
from remote_runner.agent.records import read_file
from remote_runner.agent.request import Failure
from remote_runner.agent.threads import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List

    from remote_runner.agent.request import Request

LOADAVG, MEMINFO = '/proc/loadavg', '/proc/meminfo'


def load(request: "Request") -> "Dict[str, object]":
    """Operation `load`: a part at once and one each `interval` seconds, until it is cancelled; None: one as the result.

    A Failure of the kind `figures` tells what the kernel says that cannot be understood.
    """
    reporter = Reporter()
    interval = request.header.get('interval')
    if interval is None:
        return reporter.report()
    gone = Lock()
    gone.acquire()
    request.when_gone(lambda: gone.release() if gone.locked() else None)
    while True:
        request.send(reporter.report(), b'')
        gone.acquire(True, interval)
        request.check()


class Reporter:
    """Tells how this host is, again and again: it knows what need not be looked at twice."""

    def __init__(self) -> None:
        self._census = Census()
        self._limits = Limits()
        self._logins = Logins()
        uts = os.uname()
        self._platform = '{}-{}'.format(uts.sysname.lower(), uts.machine)

    def report(self) -> "Dict[str, object]":
        """The fields of a Report.

        Raises:
            Failure: the kernel says what cannot be understood.
        """
        limited: "List[str]" = []
        cores = len(os.sched_getaffinity(0))
        most = self._limits.cores()
        if most is not None and most < cores:
            cores = max(1, math.ceil(most))
            limited.append('cores')
        figures = memory_figures(_read(MEMINFO))
        memory = self._limits.memory()
        if memory is not None and memory[0] < figures['memory']:
            figures['memory'] = memory[0]
            figures['free_memory'] = max(0, min(figures['free_memory'], memory[1]))
            limited.append('memory')
        return dict(
            figures,
            load=load_average(_read(LOADAVG)),
            cores=cores,
            users=self._logins.count(),
            tasks=self._census.count(),
            platform=self._platform,
            limited=' '.join(limited),
        )


def load_average(text: str) -> float:
    """The load average of the last minute, of what `/proc/loadavg` says.

    Raises:
        Failure: it says something else.
    """
    try:
        average = float(text.split()[0])
    except (ValueError, IndexError):
        average = math.nan
    if not 0.0 <= average < math.inf:
        raise _damaged(LOADAVG, text)
    return average


def memory_figures(text: str) -> "Dict[str, int]":
    """Bytes of memory and swap, in all and free, of what `/proc/meminfo` says.

    Raises:
        Failure: it says something else.
    """
    found = {}
    for line in text.split('\n'):
        name, _, value = line.partition(':')
        number = value.split()[:1]
        if number and number[0].isdigit():
            found[name] = int(number[0]) * 1024
    try:
        if 'MemAvailable' not in found:  # before Linux 3.14
            found['MemAvailable'] = found['MemFree'] + found['Buffers'] + found['Cached']
        names = {'memory': 'MemTotal', 'free_memory': 'MemAvailable', 'swap': 'SwapTotal', 'free_swap': 'SwapFree'}
        return {own: found[name] for own, name in names.items()}
    except KeyError:
        raise _damaged(MEMINFO, text) from None


def _read(path: str) -> str:
    return read_file(path).decode('ascii', 'replace')


def _damaged(path: str, text: str) -> Failure:
    return Failure('{} cannot be understood: {!r}'.format(path, text[:80]), kind='figures')
