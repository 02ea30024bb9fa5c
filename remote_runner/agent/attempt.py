"""One go at a task on this host: its files, its processes, and what came of it.

Of attempt 2 of task 12 there are, in the job's folder on this host: `12.2/`, its working folder; `12.2.stdout` and
`12.2.stderr`; and at last `12.2.json`, written in one step: where that stands, the attempt is over, none of its
processes is left, and what it brought is whole.
"""

import errno
import os
import stat
import time

import _signal

from remote_runner.agent import processes, records, tree
from remote_runner.wire.compact_json import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

    Key = Tuple[int, int]

#: Bytes of a command that one argument of a program certainly holds (MAX_ARG_STRLEN of Linux is 131072).
MOST_ARGUMENT = 120000
#: Seconds that processes have to end by themselves which a task leaves behind: pipes that still empty, say.
LINGER = 0.5
#: Seconds between TERM and KILL, and between two KILLs.
GRACE, AGAIN = 2.0, 0.02
#: Bytes of what a failed task printed last that are told.
TAIL = 2000
#: Why attempts fail: values of `jobs/policy.py`'s Cause.
TIMEOUT, EXIT, REJECTED, RESOURCES, LOST = 'timeout', 'exit', 'rejected', 'resources', 'lost'
#: What is wanted of a task of which nothing else was said.
STDOUT = {'stdout': 'stdout'}
#: What a name of a result means that is no path.
STREAMS = ('stdout', 'stderr')
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


class Attempt:
    """See above. It is told about its processes by the dispatcher, which alone may wait for them.

    Args:
        folder: of the job on this host.
        key: (number of the task, which go at it).
        position: what the user numbers the task.
        command: for `sh -c`.
        limit: seconds that it may take; 0: as many as it takes.
        results: what is wanted of it: names, and for each `stdout`, `stderr` or a path in its working folder.
    """

    __slots__ = (
        'began',
        'cause',
        'command',
        'due',
        'ended',
        'has_stdin',
        'is_ending',
        'is_unwanted',
        'key',
        'kills',
        'limit',
        'name',
        'path',
        'pid',
        'position',
        'results',
        'sizes',
        'slot',
        'status',
        'strays',
        'tail',
        'told',
        'why',
    )

    def __init__(
        self, folder: str, key: "Key", position: int, command: bytes, limit: float, results: "Optional[Dict[str, str]]"
    ) -> None:
        self.key = key
        self.name = '{}.{}'.format(*key)
        self.path = '{}/{}'.format(folder, self.name)
        self.position = position
        self.command = command
        self.limit = limit
        self.results = results or STDOUT
        self.slot = self.pid = 0
        #: Clock readings (monotonic) of its begin and end.
        self.began = self.ended = 0.0
        #: When something is to be done about it: its time limit, or the next step of ending it.
        self.due: "Optional[float]" = None
        self.is_ending = self.is_unwanted = self.has_stdin = False
        self.kills = 0
        #: The exit status of its main process, once that has ended.
        self.status: "Optional[int]" = None
        #: Its processes that are children of the dispatcher, because their parents have ended.
        self.strays: "set[int]" = set()
        self.cause: "Optional[str]" = None
        self.why = self.tail = ''
        self.sizes: "List[Tuple[str, int]]" = []
        #: Whether the present master was told that it began.
        self.told = False

    # ---- its begin ---------------------------------------------------------------------------------------------

    def put_inputs(self, inputs: "List[Tuple[str, bytes]]") -> None:
        """Write files into its working folder, or its standard input. Raises OSError."""
        os.mkdir(self.path, 0o700)
        for name, content in inputs:
            if name == 'stdin':
                self.has_stdin = True
                path = self.path + '.stdin'
            else:
                path = os.path.join(self.path, name)
                os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            with open(path, 'wb') as file:
                file.write(content)

    def begin(self, slot: int, environment: "Dict[bytes, bytes]", links: "Dict[str, Optional[str]]") -> None:
        """Start it. Raises OSError: it cannot be started."""
        self.slot = slot
        self.began = time.monotonic()
        try:
            os.mkdir(self.path, 0o700)
        except FileExistsError:
            pass  # with its inputs
        for name, target in links.items():
            path = os.path.join(self.path, name)
            os.makedirs(path if target is None else os.path.dirname(path), 0o700, exist_ok=True)
            if target is not None:
                os.symlink(target, path)
        environment = dict(environment)
        environment[b'RR_TASK'] = str(self.position).encode('ascii')
        environment[b'RR_ATTEMPT'] = str(self.key[1]).encode('ascii')
        environment[b'RR_SLOT'] = str(slot).encode('ascii')
        stdin = self.path + '.stdin' if self.has_stdin else os.devnull
        files = ((stdin, os.O_RDONLY), (self.path + '.stdout', _CREATE), (self.path + '.stderr', _CREATE))
        argv = [b'sh', b'-c', self.command]
        if len(self.command) > MOST_ARGUMENT:
            records.write_file(self.path + '.sh', self.command)
            argv = [b'sh', os.fsencode(self.path) + b'.sh']
        os.chdir(self.path)
        self.pid = _spawn(argv, environment, files)
        if self.limit:
            self.due = self.began + self.limit

    # ---- its end -----------------------------------------------------------------------------------------------

    def main_ended(self, status: int) -> None:
        """Its main process has."""
        self.status = tree.exit_code(status)
        self.ended = time.monotonic()
        if not self.is_ending:
            self.due = None

    def linger(self) -> None:
        """Its main process left others behind: end them, but not at once."""
        if not self.is_ending and self.due is None:
            self.due = time.monotonic() + LINGER

    def end(self, cause: "Optional[str]" = None, why: str = '') -> None:
        """Begin to end all its processes."""
        if self.is_ending:
            return
        self.is_ending = True
        if self.status is None:
            self.cause, self.why = cause, why
        self.due = time.monotonic() + GRACE
        self._signal(_signal.SIGTERM)
        self._signal(_signal.SIGCONT)

    def tick(self, now: float) -> None:
        """What is due now: its time limit, or the next step of ending it."""
        if self.due is None or now < self.due:
            return
        if not self.is_ending:
            self.end(TIMEOUT, 'it took more than {:g} s'.format(self.limit))
            return
        self.kills += 1
        self.due = now + (AGAIN if self.kills < 100 else 1.0)
        self._signal(_signal.SIGKILL)

    def _signal(self, number: int) -> None:
        roots = list(self.strays)
        if self.status is None:
            roots.append(self.pid)
        for root in roots:
            for pid in [root, *tree.descendants(root)]:
                try:
                    os.kill(pid, number)
                except (ProcessLookupError, PermissionError):
                    continue  # it has just ended, or has become another user's

    # ---- what came of it ---------------------------------------------------------------------------------------

    def conclude(self, out_of_memory: bool) -> None:
        """All its processes are gone: find out what it brought, and write that down."""
        if self.cause is None and self.status:
            self.cause = EXIT
            if out_of_memory:
                self.cause, self.why = RESOURCES, 'the host had no memory left'
            elif _is_full(self.path):
                self.cause, self.why = RESOURCES, 'the disk is full'
        if self.cause is None:
            self._measure()
        else:
            self.tail = self._tail()
        try:
            self._write_down()
        except OSError as error:
            # Where this cannot be written, what it printed may be cut, too.
            if self.cause is None:
                self.cause, self.sizes = RESOURCES, []
                self.why = 'what it brought cannot be stored: {}'.format(error.strerror)

    def fail(self, error: OSError) -> None:
        """It cannot be started."""
        self.ended = time.monotonic()
        self.cause = RESOURCES
        where = ' ({})'.format(os.fsdecode(error.filename)) if error.filename is not None else ''
        self.why = 'it cannot be started: {}{}'.format(error.strerror, where)

    def _measure(self) -> None:
        for name, what in self.results.items():
            try:
                found = os.stat(self.file(what))
            except OSError as error:
                self.cause, self.why = REJECTED, 'it left no {}: {}'.format(what, error.strerror)
                return
            if not stat.S_ISREG(found.st_mode):
                self.cause, self.why = REJECTED, 'the {} that it left is no file'.format(what)
                return
            self.sizes.append((name, found.st_size))

    def file(self, what: str) -> str:
        """Where a result lies."""
        return '{}.{}'.format(self.path, what) if what in STREAMS else os.path.join(self.path, what)

    def _tail(self) -> str:
        for name in reversed(STREAMS):
            path = self.file(name)
            size = records.size_of(path)
            if size > 0:
                try:
                    return records.read_piece(path, max(0, size - TAIL), TAIL).decode('utf-8', 'replace')
                except OSError:
                    continue  # it removed it
        return ''

    def _write_down(self) -> None:
        text = dumps(
            {
                'position': self.position,
                'results': self.results,
                'slot': self.slot,
                'cause': self.cause,
                'status': self.status,
                'why': self.why,
                'began': time.time() - (time.monotonic() - self.began),
                'seconds': self.ended - self.began,
                'sizes': self.sizes,
                'tail': self.tail,
            }
        )
        records.write_file(self.path + '.json', text.encode('ascii'))

    @classmethod
    def recall(cls, folder: str, key: "Key", found: "Dict[str, Any]") -> "Attempt":
        """One of which `found` was written down. Raises KeyError, TypeError: that is not all."""
        self = cls(folder, key, int(found['position']), b'', 0.0, dict(found['results']))
        self.slot, self.cause, self.status = int(found['slot']), found['cause'], found['status']
        self.why, self.tail = str(found['why']), str(found['tail'])
        self.sizes = [(str(name), int(size)) for name, size in found['sizes']]
        self.began = time.monotonic() - (time.time() - float(found['began']))
        self.ended = self.began + float(found['seconds'])
        return self

    def forget(self, keep: bool) -> None:
        """Remove its files: nobody needs them any more. With `keep` people do: then it is only marked as over with."""
        if keep:
            try:
                os.rename(self.path + '.json', self.path + '.kept')
            except OSError:
                records.write_file(self.path + '.kept', b'')
            return
        ends = ['.json', '.stdout', '.stderr']
        if self.has_stdin or not self.command or len(self.command) > MOST_ARGUMENT:
            ends += ['.stdin', '.sh']
        for end in ends:
            records.forget(self.path + end)
        remove(self.path)


def remove(path: str) -> None:
    """Remove a folder and all in it, as far as that can be done."""
    try:
        for entry in os.scandir(path):  # most have nothing else
            if entry.is_symlink():
                os.unlink(entry.path)
        os.rmdir(path)
        return
    except OSError as error:
        if error.errno == errno.ENOENT:
            return
    import shutil

    def make_writable(_: object, failed: str, why: object) -> None:
        os.chmod(os.path.dirname(failed), 0o700)
        if os.path.isdir(failed) and not os.path.islink(failed):
            os.chmod(failed, 0o700)
            shutil.rmtree(failed, ignore_errors=True)
        else:
            os.unlink(failed)

    try:
        shutil.rmtree(path, onerror=make_writable)
    except OSError:
        return  # `remote_runner clean` tells of it


def _is_full(path: str) -> bool:
    found = os.statvfs(os.path.dirname(path))
    return found.f_bavail == 0 or (found.f_files > 0 and found.f_favail == 0)


def _spawn(argv: "List[bytes]", environment: "Dict[bytes, bytes]", files: "Tuple[Tuple[str, int], ...]") -> int:
    """Start /bin/sh in a session of its own with these as stdin, stdout and stderr. Raises OSError."""
    global _posix_spawn
    if _posix_spawn is not None:
        actions = [(os.POSIX_SPAWN_OPEN, fd, path, flags, 0o600) for fd, (path, flags) in enumerate(files)]
        try:
            return int(
                _posix_spawn(
                    processes.SHELL,
                    argv,
                    environment,
                    file_actions=actions,
                    setsid=True,
                    setsigdef=processes.IGNORED_BY_PYTHON,
                )
            )
        except NotImplementedError:
            _posix_spawn = None  # a C library without POSIX_SPAWN_SETSID
    return _fork(argv, environment, files)


_posix_spawn = getattr(os, 'posix_spawn', None)


def _fork(argv: "List[bytes]", environment: "Dict[bytes, bytes]", files: "Tuple[Tuple[str, int], ...]") -> int:
    report, write_report = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for target, (path, flags) in enumerate(files):
                fd = os.open(path, flags, 0o600)
                os.dup2(fd, target)
                os.close(fd)
            for number in processes.IGNORED_BY_PYTHON:
                _signal.signal(number, _signal.SIG_DFL)
            os.execve(processes.SHELL, argv, environment)
        except OSError as error:
            os.write(write_report, str(error.errno).encode('ascii'))
        finally:
            os._exit(127)
    os.close(write_report)
    failure = os.read(report, 16)
    os.close(report)
    if failure:
        os.waitpid(pid, 0)
        raise OSError(int(failure), os.strerror(int(failure)))
    return pid
