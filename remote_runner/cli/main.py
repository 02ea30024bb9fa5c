"""The command `remote_runner`: finds the subcommand and shows errors. Everything is imported late: help is fast."""

from __future__ import annotations

import atexit
import errno
import fcntl
import importlib
import os
import re
import signal
import stat
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from remote_runner.errors import RemoteRunnerError, UsageError

#: Subcommands: their modules, each with `main(arguments) -> exit status`, and what they do.
COMMANDS = {
    'run': ('remote_runner.cli.run', 'deploy a config (also without the word `run`)'),
    'plan': ('remote_runner.cli.plan', 'show what a run would do, and do nothing'),
    'status': ('remote_runner.cli.status', 'show how the components of a session are'),
    'logs': ('remote_runner.cli.logs', 'show the output of components'),
    'attach': ('remote_runner.cli.attach', 'put this terminal into the window of a component'),
    'fetch': ('remote_runner.cli.fetch', 'bring home what components wrote'),
    'stop': ('remote_runner.cli.stop', 'end components, in the reverse order of their starts'),
    'restart': ('remote_runner.cli.restart', 'end components and start them again'),
    'signal': ('remote_runner.cli.signal', 'send a signal to components'),
    'wait': ('remote_runner.cli.wait', 'wait until components have ended, or are ready'),
    'ps': ('remote_runner.cli.ps', 'show all sessions of given hosts'),
    'copy': ('remote_runner.cli.copy', 'copy files and folders to many hosts'),
    'exec': ('remote_runner.cli.exec', 'run a command on many hosts'),
    'batch': ('remote_runner.cli.batch', 'run many commands over the slots of many hosts'),
    'sweep': ('remote_runner.cli.sweep', 'run a command over many sets of parameters, on many hosts'),
    'find': ('remote_runner.cli.find', 'find processes on many hosts by their command lines'),
    'killall': ('remote_runner.cli.killall', 'end processes on many hosts, found by their command lines'),
    'jobs': ('remote_runner.cli.jobs', 'show what became of batches and sweeps, and remove what is recorded'),
    'dsh': ('remote_runner.cli.dsh', 'run a command on the host that has the least to do, as if it ran here'),
    'dshd': ('remote_runner.cli.dshd', 'keep hosts connected and know their loads, for load, dsh and scripts'),
    'load': ('remote_runner.cli.load', 'show the loads of hosts, and which is the best one'),
    'hosts': ('remote_runner.cli.hosts', 'review and trust the keys of hosts'),
    'doctor': ('remote_runner.cli.doctor', 'find out whether hosts have what a deployment needs'),
    'clean': ('remote_runner.cli.clean', 'remove what runs left on hosts and nobody needs'),
    'completion': ('remote_runner.cli.completion', 'completion for bash, zsh and fish, and the man page'),
    'help': ('remote_runner.cli.help', 'show what a command does, and its options'),
    'version': ('remote_runner.cli.version', 'show the version of remote_runner'),
}
EXIT_INTERRUPTED = 130
_STDERR = 2


def main(arguments: Sequence[str]) -> int:
    """Run the command line `arguments` (without the program's name); the exit status."""
    rest = list(arguments)
    try:
        if not rest or rest[0] not in COMMANDS:
            return _unnamed(rest)
        module, _ = COMMANDS[rest.pop(0)]
        return int(importlib.import_module(module).main(rest))
    except RemoteRunnerError as error:
        show_error(error)
        if _wants_debug(rest):
            traceback.print_exc()
        return error.exit_status
    except KeyboardInterrupt:
        print('\nERROR: interrupted', file=sys.stderr)  # noqa: T201
        return EXIT_INTERRUPTED


def _unnamed(arguments: list[str]) -> int:
    """Without the name of a command it is a run."""
    if arguments and not arguments[0].startswith('-'):
        raise UsageError(f'there is no command {arguments[0]!r}', remedy=f'the nearest is {_nearest(arguments[0])!r}')
    if any(word in COMMANDS for word in arguments):
        from remote_runner.cli import misplaced

        misplaced.check(arguments)
    from remote_runner.cli import run

    return run.main(arguments, names=False)


def _nearest(name: str) -> str:
    from remote_runner.nearest import nearest

    return nearest(name, COMMANDS) or ''


def _wants_debug(arguments: Sequence[str]) -> bool:
    """Whether `-l DEBUG` stands there, in whichever form: wrong options are shown before they are understood."""
    text = '\0'.join(arguments).upper()
    return re.search(r'(^|\0)(-L\0?|--LOG-LEVEL[=\0])DEBUG(\0|$)', text) is not None


def show_error(error: BaseException) -> None:
    """An error as log records are, on stderr: each line with its level, but those that belong to the one above."""
    lines = [line if line.startswith(' ') else f'ERROR: {line}' for line in str(error).split('\n')]
    print('\n'.join(lines), file=sys.stderr)  # noqa: T201


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """TERM and HUP clean up as Ctrl-C does."""
    raise KeyboardInterrupt


def run() -> NoReturn:
    """Run the command line of this process, and end it."""
    # Closed streams (`>&-`) are None: whoever closed them wants to read nothing.
    streams = (sys.stdout, sys.stderr)
    sys.stdout, sys.stderr = (stream or os.fdopen(os.open(os.devnull, os.O_WRONLY), 'w') for stream in streams)
    sys.setswitchinterval(0.0005)  # threads that talk to hosts wait less for imports and for each other
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup(1)
            signal.signal(number, _interrupt)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # were it ignored, nobody would learn how our children ended
    try:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = main(sys.argv[1:]) or _status_of_output()
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough: as cat(1) under head(1).
        sys.stdout = None
        status = 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO) or error.filename is not None:
            raise
        sys.stdout = None
        show_error(RemoteRunnerError(f'the output cannot be written: {error.strerror}'))
        status = 1
    _end(status)


def _status_of_output() -> int:
    """1 where something could not be written, which was told then: on a full disk, say."""
    module = sys.modules.get('remote_runner.ui.output')  # what was not imported has written nothing
    return int(module is not None and module.Output.has_failed)


def _end(status: int) -> NoReturn:
    """End the process, without taking apart first all that Python holds: that takes 20 ms.

    Where users' code has left threads, or files that may hold what is not written yet, Python sees to them.
    """
    is_alone = all(thread.daemon or thread is threading.main_thread() for thread in threading.enumerate())
    if is_alone:
        atexit._run_exitfuncs()
        is_alone = not any(_may_hold_output(int(file.name)) for file in Path('/proc/self/fd').iterdir())
    if not is_alone or not _flushed(sys.stdout, sys.stderr):
        sys.exit(status)
    os._exit(status)


def _flushed(*streams: TextIO | None) -> bool:
    """Whether nothing of what exit handlers printed is left to be written."""
    try:
        for stream in streams:
            if stream is not None:
                stream.flush()
    except OSError:
        return False
    return True


def _may_hold_output(number: int) -> bool:
    """Whether an open file can be written to and is neither a socket nor a standard stream."""
    try:
        flags, mode = fcntl.fcntl(number, fcntl.F_GETFL), os.fstat(number).st_mode
    except OSError:
        return False  # that of the list itself
    return number > _STDERR and flags & os.O_ACCMODE != os.O_RDONLY and not stat.S_ISSOCK(mode)
