"""One go at a task on this host: its files, its processes, and what came of it.

Of attempt 2 of task 12 there are, in the job's folder on this host: `12.2/`, its working folder; `12.2.stdout` and
`12.2.stderr`; and at last `12.2.json`, written in one step: where that stands, the attempt is over, none of its
processes is left, and what it brought is whole.
"""

import os
import stat
import time

import _signal

from remote_runner.agent import records, tree
from remote_runner.agent.spawning import spawn
from remote_runner.wire.compact_json import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Optional, Tuple

    from remote_runner.agent.spares import Spares

    Key = Tuple[int, int]

#: Bytes of a command that one argument of a program certainly holds (MAX_ARG_STRLEN of Linux is 131072).
MOST_ARGUMENT = 120000
#: Seconds that processes have to end by themselves which a task leaves behind.
LINGER = 0.5
#: Seconds that they have if they empty a pipe (`> >(sort >out)`): what they write may be a result.
EMPTYING = 60.0
#: Seconds between TERM and KILL, and between two KILLs.
GRACE, AGAIN = 2.0, 0.02
#: Bytes of free space below which a disk counts as full.
LITTLE = 1 << 16
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

    # ---- its begin ---------------------------------------------------------------------------------------------

    def put_inputs(self, inputs: "List[Tuple[str, bytes]]") -> None:
        """Write files into its working folder, or its standard input. Raises OSError, ValueError."""
        os.mkdir(self.path, 0o700)
        for name, content in inputs:
            if name == 'stdin':
                self.has_stdin = True
                path = self.path + '.stdin'
            else:
                path = os.path.join(self.path, local(name))
                os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            with open(path, 'wb') as file:
                file.write(content)

    def begin(
        self, slot: int, environment: "Dict[bytes, bytes]", links: "Dict[str, Optional[str]]", spares: "Spares"
    ) -> None:
        """Start it. Raises OSError, ValueError: it cannot be started."""
        self.slot = slot
        self.began = time.monotonic()
        if not spares.give(self.path):
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
        self.pid = spawn(argv, environment, files)
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
            if self.status is None:
                self.end(TIMEOUT, 'it took more than {:g} s'.format(self.limit))
            elif not self._is_emptying():
                self.end()
            elif now > self.ended + EMPTYING or (self.limit and now > self.began + self.limit):
                self.cause = TIMEOUT
                self.why = 'processes that it left behind still emptied a pipe {:.3g} s later'.format(now - self.ended)
                self.end()
            else:
                self.due = now + LINGER
            return
        self.kills += 1
        self.due = now + (AGAIN if self.kills < 100 else 1.0)
        self._signal(_signal.SIGKILL)

    def _signal(self, number: int) -> None:
        for pid in self._processes():
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                continue  # it has just ended, or has become another user's

    def _processes(self) -> "Iterator[int]":
        roots = list(self.strays)
        if self.status is None:
            roots.append(self.pid)
        for root in roots:
            yield root
            yield from tree.descendants(root)

    def _is_emptying(self) -> bool:
        """Whether one of its processes reads from a pipe into which none of them writes: it will come to its end."""
        pids = list(self._processes())
        pipes = {_reads_from(pid) for pid in pids} - {''}
        return bool(pipes) and bool(pipes - {pipe for pid in pids for pipe in _writes_to(pid)})

    # ---- what came of it ---------------------------------------------------------------------------------------

    def conclude(self, out_of_memory: bool) -> None:
        """All its processes are gone: find out what it brought, and write that down."""
        if self.cause is None and self.status and out_of_memory:
            self.cause, self.why = RESOURCES, 'the host had no memory left'
        elif self.cause is None and _is_full(self.path):
            self.cause, self.why = RESOURCES, 'the disk is full'  # what it printed may be cut, and few programs look
        elif self.cause is None and self.status:
            self.cause = EXIT
        if self.cause is None:
            self._measure()
        if self.cause is not None:
            self.tail = self._tail()
        try:
            self._write_down()
        except OSError as error:
            # Where this cannot be written, what it printed may be cut, too.
            if self.cause is None:
                self.cause, self.sizes = RESOURCES, []
                self.why = 'what it brought cannot be stored: {}'.format(error.strerror)

    def fail(self, error: "OSError | ValueError") -> None:
        """It cannot be started."""
        self.ended = time.monotonic()
        self.began = self.began or self.ended
        self.cause = RESOURCES
        where = ''
        if isinstance(error, OSError) and error.filename is not None:
            where = ' ({})'.format(os.fsdecode(error.filename))
        self.why = 'it cannot be started: {}{}'.format(_text(error), where)

    def _measure(self) -> None:
        sizes = []
        for name, what in self.results.items():
            path = self.file(what)
            try:
                found = os.stat(path)
                is_readable = os.access(path, os.R_OK)
            except (OSError, ValueError) as error:
                self.cause, self.why = REJECTED, 'it left no {}: {}'.format(what, _text(error))
                return
            if not stat.S_ISREG(found.st_mode):
                self.cause, self.why = REJECTED, 'the {} that it left is no file'.format(what)
                return
            if not is_readable:
                self.cause, self.why = REJECTED, 'the {} that it left cannot be read'.format(what)
                return
            sizes.append((name, found.st_size))
        self.sizes = sizes

    def file(self, what: str) -> str:
        """Where a result lies."""
        return '{}.{}'.format(self.path, what) if what in STREAMS else os.path.join(self.path, local(what))

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

    def forget(self, keep: bool, spares: "Optional[Spares]" = None) -> None:
        """Remove its files: nobody needs them any more. With `keep` people do: then it is only marked as over with.

        Its folder goes to `spares`, if it is none of the others'.
        """
        if keep:
            self._mark_kept()
            return
        ends = ['.json', '.stdout', '.stderr']
        if self.has_stdin or not self.command or len(self.command) > MOST_ARGUMENT:
            ends += ['.stdin', '.sh']
        for end in ends:
            records.forget(self.path + end)
        if spares is None or not spares.take(self.path):
            remove(self.path)

    def _mark_kept(self) -> None:
        try:
            os.rename(self.path + '.json', self.path + '.kept')
        except FileNotFoundError:
            try:
                records.write_file(self.path + '.kept', b'')
            except OSError:
                return  # the disk is full: nobody is promised that it is there for long
        except OSError:
            return


def remove(path: str) -> None:
    """Remove a working folder and all in it, as far as that can be done."""
    try:
        for entry in os.scandir(path):  # most have nothing else
            if entry.is_symlink():
                os.unlink(entry.path)
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError:
        _remove_all(path)


def _remove_all(path: str) -> None:
    from remote_runner.agent import removal

    try:
        removal.remove(path, os.lstat(path).st_ino)  # what cannot be removed `remote_runner clean` tells of
    except OSError:
        return


def local(name: str) -> str:
    """A name as masters tell it (UTF-8), for the functions of this Python, whatever it takes names to be."""
    return os.fsdecode(name.encode('utf-8', 'surrogateescape'))


def _text(error: "OSError | ValueError") -> str:
    return str(error.strerror if isinstance(error, OSError) else error)


def _is_full(path: str) -> bool:
    """Whether the disk is full on which that lies, or lay."""
    try:
        found = os.statvfs(os.path.dirname(path))
    except OSError:
        return False
    blocks = found.f_bavail if os.geteuid() else found.f_bfree
    return (found.f_blocks > 0 and blocks * found.f_frsize < LITTLE) or (found.f_files > 0 and found.f_favail == 0)


def _reads_from(pid: int) -> str:
    """The pipe that a process has as its standard input, as proc(5) names it; '' where that is something else."""
    try:
        target = os.readlink('/proc/{}/fd/0'.format(pid))
    except OSError:
        return ''
    return target if target.startswith('pipe:') else ''


def _writes_to(pid: int) -> "Iterator[str]":
    """The pipes into which a process can write."""
    folder = '/proc/{}/'.format(pid)
    try:
        names = os.listdir(folder + 'fd')
    except OSError:
        return  # it has just ended
    for name in names:
        try:
            target = os.readlink(folder + 'fd/' + name)
            if target.startswith('pipe:'):
                flags = records.read_file(folder + 'fdinfo/' + name).split(b'flags:')[1].split()[0]
                if int(flags, 8) & 3 != os.O_RDONLY:
                    yield target
        except OSError:
            continue  # it has just closed it
