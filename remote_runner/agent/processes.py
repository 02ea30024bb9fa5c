"""Processes on this host: starting them, looking at them, waiting for them and ending them."""

import errno
import os
import select
import sys
import time

import _signal

from remote_runner.agent import records, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterable, List, Optional, Set, Tuple, Union

    from remote_runner.agent.request import Request

    #: A process that no other can be mistaken for: pid and start time in clock ticks.
    Process = Tuple[int, int]

PIECE = 1 << 16
#: Signals that Python ignores for itself and that programs must not inherit as ignored.
IGNORED_BY_PYTHON = (_signal.SIGPIPE, _signal.SIGXFSZ)
SHELL = '/bin/sh'
#: Folders beside $PATH in which programs are looked for: a login shell's PATH may be bare.
PLACES = ['/usr/local/bin', '/usr/bin', '/bin', '/opt/local/bin']
#: The interpreter that runs us, whatever shim stood before it.
PYTHON = sys.executable or os.readlink('/proc/self/exe')


def environment(process: "Union[int, str]") -> "Dict[bytes, bytes]":
    """The environment with which a process began: its pid, or 'self' (proc(5), `environ`).

    Raises:
        OSError: it is gone, or another user's.
    """
    with open('/proc/{}/environ'.format(process), 'rb') as file:
        pairs = [item.split(b'=', 1) for item in file.read().split(b'\0') if b'=' in item]
    return {pair[0]: pair[1] for pair in pairs}


#: What the connection gave us. Python >= 3.7 puts an LC_CTYPE of its own into os.environ (PEP 538), which programs must
#: not see.
ENVIRONMENT = environment('self')


def find(program: str) -> "Optional[str]":
    """The path of a program of the host, or None."""
    for folder in os.fsdecode(ENVIRONMENT.get(b'PATH', b'')).split(':') + PLACES:
        candidate = os.path.join(folder, program)
        if folder and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None


def spawn(argv: "List[bytes]", fds: "Tuple[int, int, int]") -> int:
    """Start a program, by its path, in a session of its own with these as stdin, stdout and stderr; its pid.

    All that it inherits is as the login shell would give it.

    Raises:
        OSError: it could not be started.
    """
    report, write_report = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for target, fd in enumerate(fds):
                os.dup2(fd, target)
            for number in IGNORED_BY_PYTHON:
                _signal.signal(number, _signal.SIG_DFL)
            os.execve(argv[0], argv, ENVIRONMENT)
        except OSError as error:
            os.write(write_report, str(error.errno).encode('ascii'))
        finally:
            os._exit(127)
    os.close(write_report)
    failure = os.read(report, 16)
    os.close(report)
    if failure:
        os.waitpid(pid, 0)
        raise OSError(int(failure), os.strerror(int(failure)), os.fsdecode(argv[0]))
    return pid


def _spawn_helper(argv: "List[bytes]", fds: "Tuple[int, int, int]") -> int:
    """`spawn` for short commands of ours, 2 ms faster: posix_spawn (Python 3.8, glibc 2.26) copies no page tables.

    With glibc, two signals that it keeps for itself are then ignored; users' programs must not inherit that.
    """
    posix_spawn = getattr(os, 'posix_spawn', None)
    if posix_spawn is None:
        return spawn(argv, fds)
    actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(fds)]  # novm
    return int(posix_spawn(argv[0], argv, ENVIRONMENT, file_actions=actions, setsigdef=IGNORED_BY_PYTHON))


def run(argv: "List[bytes]", timeout: float) -> "Tuple[int, bytes]":
    """Run a short command to its end; its wait status and what it printed.

    Raises:
        OSError: it could not be started, or (ETIMEDOUT) did not end in time and was killed.
    """
    read, write = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    try:
        pid = _spawn_helper(argv, (null, write, write))
    finally:
        os.close(write)
        os.close(null)
    deadline = time.monotonic() + timeout
    output: "List[bytes]" = []
    poll = select.poll()
    poll.register(read, select.POLLIN)
    try:
        while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            data = os.read(read, PIECE)
            if not data:
                return os.waitpid(pid, 0)[1], b''.join(output)
            output.append(data)
    finally:
        os.close(read)
    os.kill(pid, _signal.SIGKILL)
    os.waitpid(pid, 0)
    raise OSError(errno.ETIMEDOUT, 'no end within {:g} s'.format(timeout), os.fsdecode(b' '.join(argv)))


def start_time(pid: int) -> "Optional[int]":
    """When a process was started, in clock ticks since boot; None where it is gone (zombies are gone)."""
    try:
        stat = records.read_file('/proc/{}/stat'.format(pid))
    except OSError:
        return None
    fields = stat[stat.rindex(b')') + 2 :].split()
    return None if fields[0] in (b'Z', b'X') else int(fields[19])


def is_gone(pid: int, started: int) -> bool:
    """Whether a process has ended that was `started` then (`start_time`; 0: nobody knows), whoever has its pid now."""
    now = start_time(pid)
    if now is not None:
        return started not in (0, now)
    if start_time(os.getpid()) is not None:
        return True
    try:
        os.kill(pid, 0)  # where there is no /proc, that is all there is to ask
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass  # it is another user's
    return False


def identify(pids: "Iterable[int]") -> "Set[Process]":
    """Those of `pids` that are alive, each with its start time."""
    found = set()
    for pid in pids:
        started = start_time(pid)
        if started is not None:
            found.add((pid, started))
    return found


def alive(processes: "Iterable[Process]") -> "Set[Process]":
    """Those that are still there."""
    return {process for process in processes if start_time(process[0]) == process[1]}


def wait_gone(processes: "Set[Process]", timeout: float) -> "Set[Process]":
    """Wait until all are gone; those that are left after `timeout` seconds.

    With pidfd_open(2) (Linux 5.3, Python 3.9) this sleeps until they end; elsewhere it looks every 20 ms.
    """
    deadline = time.monotonic() + timeout
    left = alive(processes)
    while left and time.monotonic() < deadline:
        pidfd = _pidfd(min(left)[0])
        if pidfd is None:
            select.poll().poll(20)
        else:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            os.close(pidfd)
        left = alive(left)
    return left


def _pidfd(pid: int) -> "Optional[int]":
    pidfd_open = getattr(os, 'pidfd_open', None)
    if pidfd_open is None:
        return None
    try:
        return int(pidfd_open(pid))
    except OSError:
        return None


def kill(processes: "Iterable[Process]", number: int) -> None:
    """Send a signal to those that are still the processes meant."""
    for pid, _ in alive(processes):
        try:
            os.kill(pid, number)
        except OSError as error:
            if error.errno not in (errno.ESRCH, errno.EPERM):
                raise


def execute(request: "Request") -> "Dict[str, object]":
    """Operation `exec`: run a command line in the user's login shell and stream its output.

    Parts go out as `out` and `err`; the result holds the wait status as a shell shows it. If the connection is lost,
    or the request cancelled, the command's process group is ended.
    """
    command = str(request.header['command']).encode('utf-8', 'surrogateescape')
    shell = ENVIRONMENT.get(b'SHELL') or SHELL.encode()
    out, write_out = os.pipe()
    err, write_err = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        pid = spawn([shell, b'-c', command], (null, write_out, write_err))
    finally:
        for fd in (null, write_out, write_err):
            os.close(fd)
    try:
        _stream(request, {out: 'out', err: 'err'}, pid)
        return {'status': tree.exit_code(os.waitpid(pid, 0)[1])}
    except BaseException:
        end_group(pid)
        raise
    finally:
        os.close(out)
        os.close(err)


def _stream(request: "Request", sources: "Dict[int, str]", pid: int) -> None:
    """Send what comes from the pipes until they are closed, or the command ended and left them to a daemon."""
    woken, wake = os.pipe()
    pidfd = _pidfd(pid)
    request.when_gone(lambda: os.write(wake, b'.'))
    poll = select.poll()
    for fd in [*sources, woken] + ([] if pidfd is None else [pidfd]):
        poll.register(fd, select.POLLIN)
    left = set(sources)
    ended = False
    try:
        while left:
            # Without pidfd_open(2) nothing wakes us at the command's end: look now and then.
            ready = poll.poll(0 if ended else (200 if pidfd is None else None))
            request.check()
            if ended and not ready:
                return
            for fd in sources.keys() & {fd for fd, _ in ready}:
                data = os.read(fd, PIECE)
                if data:
                    request.send(sources[fd], data)
                else:
                    poll.unregister(fd)
                    left.discard(fd)
            if not ended and (start_time(pid) is None if pidfd is None else pidfd in dict(ready)):
                ended = True
                if pidfd is not None:
                    poll.unregister(pidfd)
    finally:
        request.when_gone(lambda: None)
        for fd in (woken, wake) if pidfd is None else (woken, wake, pidfd):
            os.close(fd)


def end_group(pid: int) -> None:
    """TERM, and KILL after two seconds, to the process group that `pid` leads; reaps `pid`."""
    for number, patience in ((_signal.SIGTERM, 2.0), (_signal.SIGKILL, 5.0)):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            break
        if not wait_gone(identify([pid]), patience):
            break
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
