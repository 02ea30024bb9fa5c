"""The way of a master to the dispatcher of a job on this host; it is begun where there is none."""

import fcntl
import os
import select
import struct
import termios
import time

import _socket

from remote_runner.agent import folders, processes, screen
from remote_runner.agent.request import Failure, Gone
from remote_runner.agent.threads import Thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Optional, Tuple

    from remote_runner.agent.request import Request

#: Bytes that are passed on at once, and beyond which the kernel is asked to.
CHUNK, MUCH = 1 << 18, 1 << 14
#: Seconds in which a dispatcher can be reached: the one that we find may be about to end.
PATIENCE = 10.0
#: What the folder is called in which the jobs of each host have theirs.
WORK = 'work'


def dispatch(request: "Request") -> "Dict[str, object]":
    """Operation `dispatch`: the parts of both directions are bytes from and to the dispatcher of `job`.

    It ends when the dispatcher has, or lets go of the connection. See `agent/job.py` for what is said.
    """
    folder, sock = _connect(request, request.header['job'])
    request.when_gone(lambda: _hang_up(sock))
    request.send({'folder': folder}, b'')
    Thread(_pass_on, request, sock)
    try:
        while True:
            size = _waiting(sock)
            if size > MUCH:
                request.pass_on(0, sock, min(size, CHUNK))
                continue
            data = sock.recv(CHUNK)
            if not data:
                return {}
            request.send(0, data)
    except OSError:
        return {}
    finally:
        request.when_gone(lambda: None)
        _hang_up(sock)


def _waiting(sock: "_socket.socket") -> int:
    """Bytes that have come by a socket; waits until there are some, or it has ended."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.poll()
    return int(struct.unpack('i', fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0])


def job_folder(job: str) -> str:
    """Where the tasks of a job have their folders on this host (a home may be shared by many hosts)."""
    try:
        home = folders.state_home()
        os.makedirs(home, 0o700, exist_ok=True)
        return folders.private_folders(home, 'remote_runner', WORK, os.uname().nodename, job)
    except OSError:
        return folders.private_folders(screen.runtime_folder(), WORK, os.uname().nodename, job)


def _pass_on(request: "Request", sock: "_socket.socket") -> None:
    """What comes from the master."""
    try:
        for _, data in request.parts():
            sock.sendall(data)
    except (OSError, Gone):
        pass  # the dispatcher is gone, or nobody wants to talk to it any more
    _hang_up(sock)


def _hang_up(sock: "_socket.socket") -> None:
    try:
        sock.shutdown(_socket.SHUT_RDWR)
    except OSError:
        return  # the other side was faster


def _connect(request: "Request", job: str) -> "Tuple[str, _socket.socket]":
    """The folder of the job, and the way to its dispatcher."""
    path = os.path.join(screen.runtime_folder(), 'tasks-{}'.format(job))
    deadline = time.monotonic() + PATIENCE
    while True:
        folder = job_folder(job)  # each time: a dispatcher that ends removes it
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            sock.connect(path)
            return folder, sock
        except OSError:
            sock.close()
        said = _begin(folder, path)
        if said not in ('', 'ready\n'):
            raise Failure('its dispatcher did not start: {}'.format(said.strip()), kind='dispatcher')
        if time.monotonic() > deadline:
            raise Failure('its dispatcher cannot be reached: {}'.format(_log(folder) or path), kind='dispatcher')
        if not said:
            request.check()
            select.poll().poll(50)  # no wait for a lock has an end


def _begin(folder: str, path: str) -> str:
    """Begin a dispatcher; what it says: `ready`, or nothing, if another one is there."""
    code = '{}/dispatcher{}'.format(os.path.dirname(__file__), os.path.splitext(__file__)[1])
    argv = [processes.PYTHON, '-IS', code, folder, path]
    read, write = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    try:
        pid = processes.spawn([os.fsencode(word) for word in argv], (null, write, write))
    finally:
        os.close(write)
        os.close(null)
    said = b''
    with open(read, 'rb', 0) as file:
        while not said.endswith(b'ready\n'):
            data = file.read(4096)
            if not data:
                break
            said += data
    os.waitpid(pid, 0)
    return said.decode('utf-8', 'replace')


def _log(folder: str) -> "Optional[str]":
    from remote_runner.agent import records

    try:
        return records.read_file(folder + '/log').decode('utf-8', 'replace')[-2000:]
    except OSError:
        return None
