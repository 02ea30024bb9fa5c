"""What other terminals can ask of the master of a job that runs: how it is, to pause, to go on, to give up.

    with Control(folder, handler): ...                     # the master; `handler` answers each request
    ask(folder, {'do': 'pause'}, timeout=10)               # another process of the same user

Requests and answers are JSON objects, a line each, over a unix socket (mode 0600). It lies in the private runtime
folder: sockets do not belong into a home, which machines may share, and their paths are short. The link `control` in
the folder of the job leads there. A request says what to `do`, one of `REQUESTS`; an answer with an `error` (and
perhaps a `remedy`) is a refusal.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from remote_runner.errors import ControlFailed, JobNotRunning, RemoteRunnerError
from remote_runner.jobs.holding import master

log = logging.getLogger(__name__)

#: What a master can be asked for. `cancel` ends what runs, too; `explain` has the position of a `task`.
REQUESTS = ('status', 'pause', 'resume', 'cancel', 'explain', 'detach-viewers')
#: The name of the link in the folder of a job.
LINK = 'control'
#: Bytes of a line at most.
LONGEST = 1 << 20
#: Seconds that an asker has to take an answer; others wait meanwhile.
_PATIENCE = 2.0
_PIECE = 1 << 16

Message = dict[str, Any]


class Control:
    """Answers what other processes ask, in a thread of its own, as long as `with` lasts.

    Where there can be no socket the job runs all the same: a warning says why nobody can ask it.

    Args:
        folder: that of the job, of which this process is the master.
        handler: what a request is answered with; called in the thread, one request at a time. A RemoteRunnerError is a
            refusal. It must not wait for whoever leaves the `with`, who waits for the thread.
    """

    def __init__(self, folder: Path, handler: Callable[[Message], Message]) -> None:
        self._folder = folder
        self._handler = handler
        self._link = folder / LINK
        self._path = Path()
        self._thread: threading.Thread | None = None
        self._askers: dict[int, tuple[socket.socket, bytearray]] = {}

    def __enter__(self) -> Control:
        try:
            listening = self._listen()
        except OSError as error:
            log.warning('other terminals cannot reach job %s: %s', self._folder.name, error)
            return self
        self._end_read, self._end_write = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, args=[listening], name='control', daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._thread is None:
            return
        os.close(self._end_write)
        self._thread.join()
        os.close(self._end_read)
        self._path.unlink(missing_ok=True)
        self._link.unlink(missing_ok=True)

    def _listen(self) -> socket.socket:
        """Who held this job before is dead, whatever it left."""
        from remote_runner.agent.request import Failure
        from remote_runner.agent.screen import runtime_folder

        try:
            self._path = Path(runtime_folder(), f'job-{self._folder.name}')
        except Failure as error:
            raise OSError(str(error)) from error
        for path in (self._path, self._link):
            path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(os.fsencode(self._path))
            self._path.chmod(0o600)
            listening.listen(64)
            listening.setblocking(False)
            self._link.symlink_to(self._path)
        except BaseException:
            listening.close()
            raise
        return listening

    # ---- the thread --------------------------------------------------------------------------------------------

    def _serve(self, listening: socket.socket) -> None:
        try:
            with listening:
                poll = select.poll()
                poll.register(listening, select.POLLIN)
                poll.register(self._end_read, select.POLLIN)
                while True:
                    ready = [number for number, _ in poll.poll()]
                    if self._end_read in ready:
                        return
                    for number in ready:
                        if number == listening.fileno():
                            self._accept(listening, poll)
                        elif not self._is_heard(*self._askers[number]):
                            poll.unregister(number)
                            self._askers.pop(number)[0].close()
        finally:
            for asker, _ in self._askers.values():
                asker.close()

    def _accept(self, listening: socket.socket, poll: select.poll) -> None:
        try:
            asker, _ = listening.accept()
        except OSError:
            return  # it has gone again
        asker.settimeout(_PATIENCE)
        self._askers[asker.fileno()] = asker, bytearray()
        poll.register(asker, select.POLLIN)

    def _is_heard(self, asker: socket.socket, buffer: bytearray) -> bool:
        """Answer what came; False where nobody asks any more."""
        try:
            piece = asker.recv(_PIECE)
            buffer += piece
            while (end := buffer.find(b'\n')) >= 0:
                line = bytes(buffer[:end])
                del buffer[: end + 1]
                asker.sendall(json.dumps(self._answer(line)).encode('ascii') + b'\n')
        except OSError:
            return False
        return bool(piece) and len(buffer) < LONGEST

    def _answer(self, line: bytes) -> Message:
        try:
            request = json.loads(line)
        except ValueError:
            request = None
        if not isinstance(request, dict) or request.get('do') not in REQUESTS:
            return {'error': 'that is nothing this master can do', 'remedy': 'it may be of another version'}
        try:
            return self._handler(request)
        except RemoteRunnerError as error:
            return {'error': error.what, 'remedy': error.remedy}


class Asker:
    """A connection to the master of a job, for one question after the other; `with`, or `close`.

    Args:
        folder: that of the job.
        timeout: seconds that an answer may take.

    Raises:
        JobNotRunning: nobody works on the job, or not on this machine.
        ControlFailed: its master cannot be reached.
    """

    def __init__(self, folder: Path, timeout: float = 10.0) -> None:
        self._folder = folder
        self._timeout = timeout
        at = master(folder)
        if at is None:
            remedy = f'`remote_runner jobs show {folder.name}` says how it is'
            raise JobNotRunning(f'job {folder.name} is not running', remedy=remedy)
        if not at.is_here:
            raise JobNotRunning(f'job {folder.name} is not running on this machine: {at}', remedy=f'ask on {at.host}')
        self._who = f'the master of job {folder.name} ({at})'
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(os.fsencode((folder / LINK).readlink()))
        except OSError as error:
            self._socket.close()
            remedy = 'it may be about to begin, or to end; try again'
            raise ControlFailed(f'{self._who} cannot be reached: {error.strerror or error}', remedy=remedy) from error
        self._buffer = bytearray()

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ask nothing more."""
        self._socket.close()

    def ask(self, request: Message) -> Message:
        """Ask, and wait for the answer.

        Raises:
            ControlFailed: it refuses, with its reason; or there is no answer in time. Then no further question may be
                asked over this connection.
        """
        deadline = time.monotonic() + self._timeout
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(json.dumps(request).encode('ascii') + b'\n')
            while b'\n' not in self._buffer:
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
                piece = self._socket.recv(_PIECE)
                if not piece:
                    raise ControlFailed(
                        f'{self._who} has ended', remedy='`remote_runner jobs show` says how far it was'
                    )
                self._buffer += piece
        except TimeoutError as error:
            what = f'{self._who} did not answer within {self._timeout:g} s'
            raise ControlFailed(what, remedy='it is stopped, or very busy') from error
        except OSError as error:
            raise ControlFailed(f'{self._who} is gone: {error.strerror}') from error
        line, _, rest = bytes(self._buffer).partition(b'\n')
        self._buffer[:] = rest
        answer: Message = json.loads(line)
        if 'error' in answer:
            raise ControlFailed(f'{self._who} refuses: {answer["error"]}', remedy=answer.get('remedy'))
        return answer


def ask(folder: Path, request: Message, timeout: float = 10.0) -> Message:
    """Ask the master of a job one thing.

    Raises:
        JobNotRunning: nobody works on the job, or not on this machine.
        ControlFailed: it cannot be reached, refuses, or does not answer within `timeout` seconds.
    """
    with Asker(folder, timeout) as asker:
        return asker.ask(request)
