"""Processes of this user that are found by their command lines, and ended: never our own, never other users'."""

import os
import time

import _signal

from remote_runner.agent import folders, processes
from remote_runner.agent.living import is_agent, is_dispatcher, is_launcher, own_processes
from remote_runner.agent.records import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Set

    from remote_runner.agent.request import Request

#: Bytes of a command line that are told.
MOST = 4096
#: Signals that end a process which does nothing about them, and that are sent for that.
ENDING = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGABRT, _signal.SIGKILL, _signal.SIGTERM)
_TICKS = os.sysconf('SC_CLK_TCK')
_PAGE = os.sysconf('SC_PAGE_SIZE')


class _Process:
    """What the kernel says of one process (proc(5))."""

    def __init__(self, pid: int) -> None:
        """Raises OSError: it is gone, or a zombie."""
        stat = read_file('/proc/{}/stat'.format(pid))
        fields = stat[stat.rindex(b')') + 2 :].split()
        if fields[0] in (b'Z', b'X'):
            raise ProcessLookupError
        self.pid = pid
        self.parent = int(fields[1])
        self.cpu = (int(fields[11]) + int(fields[12])) / _TICKS
        self.started = int(fields[19])
        self.memory = int(fields[21]) * _PAGE
        self.argv = read_file('/proc/{}/cmdline'.format(pid)).rstrip(b'\0').split(b'\0')

    @property
    def command(self) -> str:
        """Its command line, as ps(1) shows it."""
        return os.fsdecode(b' '.join(self.argv))


def _look(pid: int) -> "Optional[_Process]":
    try:
        return _Process(pid)
    except OSError:
        return None


def find(request: "Request") -> "Dict[str, object]":
    """Operation `find`: processes whose command lines contain `text`.

    The result lists `found`: [pid, start in clock ticks since boot, seconds since then, seconds of CPU, bytes of
    memory, command line]; and says how many of `ours` contain it, too: agents, launchers, their screens, dispatchers,
    commands of remote_runner, and all above the agent that answers.
    """
    text = request.header['text']
    now = time.clock_gettime(getattr(time, 'CLOCK_BOOTTIME', 7))
    all_own = [each for each in map(_look, own_processes()) if each is not None]
    ours = _ours(all_own)
    matching = [each for each in all_own if text in each.command]
    found = [
        [each.pid, each.started, max(0.0, now - each.started / _TICKS), each.cpu, each.memory, each.command[:MOST]]
        for each in matching
        if each.pid not in ours
    ]
    return {'found': sorted(found), 'ours': len(matching) - len(found)}


def _ours(all_own: "List[_Process]") -> "Set[int]":
    """The pids of those without which nobody would be told, or that belong to remote_runner itself."""
    found = set(_above(os.getpid()))
    launchers = [each for each in all_own if is_launcher(each.argv)]
    screens = {each.parent for each in launchers}
    for each in all_own:
        is_screen = each.pid in screens and os.path.basename(each.argv[0]).lower() == b'screen'
        if is_screen or is_agent(each.argv) or is_dispatcher(each.argv) or _is_command(each.argv):
            found.add(each.pid)
    return found | {each.pid for each in launchers}


def _above(pid: int) -> "List[int]":
    """A process and all that began it."""
    found = []
    while pid > 0 and pid not in found:
        found.append(pid)
        process = _look(pid)
        pid = process.parent if process is not None else 0
    return found


def _is_command(argv: "List[bytes]") -> bool:
    """Whether a process is a remote_runner command of somebody on this host."""
    if not os.path.basename(argv[0]).startswith(b'python'):
        return False
    words = argv[1:4]
    return any(os.path.basename(word) == b'remote_runner' for word in words)  # a script of that name, or `-m`


def end(request: "Request") -> "Dict[str, object]":
    """Operation `end`: send `signal` (`TERM`, `15`) to `processes`, pairs of pid and start as `find` told them.

    The result tells of each what came of it: `ended` (within `patience` seconds), `left` (it goes on), `sent` (a signal
    that is not meant to end it), `gone` (it had ended before), `refused`.
    """
    header = request.header
    number = folders.signal_number(header['signal'])
    results: "Dict[processes.Process, str]" = {}
    for pid, started in header['processes']:
        results[pid, started] = _send(pid, started, number)
    sent = {process for process, result in results.items() if result == 'sent'}
    if number in ENDING:
        left = processes.wait_gone(sent, header['patience'])
        results.update((process, 'left' if process in left else 'ended') for process in sent)
    return {'results': [results[pid, started] for pid, started in header['processes']]}


def _send(pid: int, started: int, number: int) -> str:
    if processes.start_time(pid) != started:
        return 'gone'
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return 'gone'
    except PermissionError:
        return 'refused'  # it has become another user's
    return 'sent'
