"""Starting programs of users: as fast as the host's Python and C library can."""

import os

import _signal

from remote_runner.agent import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Tuple, Union

    #: What becomes stdin, stdout and stderr: paths, and flags to open them with, or what is open already.
    Files = Tuple[Union[Tuple[str, int], int], ...]

#: None where there is none: before Python 3.8, or with a C library that knows no POSIX_SPAWN_SETSID.
_posix_spawn = getattr(os, 'posix_spawn', None)


def spawn(
    argv: "List[bytes]",
    environment: "Dict[bytes, bytes]",
    files: "Files",
    program: "Union[str, bytes]" = processes.SHELL,
) -> int:
    """Start a program, as a rule /bin/sh, in a session of its own; its pid.

    A terminal that is opened for it becomes the controlling one of the session.

    Raises:
        OSError: it cannot be started, or a file cannot be opened.
        ValueError: there is a zero byte in a word.
    """
    global _posix_spawn
    if _posix_spawn is not None:
        dup, open_ = os.POSIX_SPAWN_DUP2, os.POSIX_SPAWN_OPEN  # novm
        actions = [
            (dup, file, fd) if isinstance(file, int) else (open_, fd, *file, 0o600) for fd, file in enumerate(files)
        ]
        try:
            return int(
                _posix_spawn(
                    program,
                    argv,
                    environment,
                    file_actions=actions,
                    setsid=True,
                    setsigdef=processes.IGNORED_BY_PYTHON,
                )
            )
        except NotImplementedError:
            _posix_spawn = None
    return _fork(argv, environment, files, program)


def _fork(
    argv: "List[bytes]", environment: "Dict[bytes, bytes]", files: "Files", program: "Union[str, bytes]"
) -> int:
    report, write_report = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for target, file in enumerate(files):
                if isinstance(file, int):
                    os.dup2(file, target)
                else:
                    fd = os.open(file[0], file[1], 0o600)
                    os.dup2(fd, target)
                    os.close(fd)
            for number in processes.IGNORED_BY_PYTHON:
                _signal.signal(number, _signal.SIG_DFL)
            os.execve(program, argv, environment)
        except OSError as error:
            os.write(write_report, str(error.errno).encode('ascii'))
        except ValueError:
            os.write(write_report, b'0')
        finally:
            os._exit(127)
    os.close(write_report)
    failure = os.read(report, 16)
    os.close(report)
    if failure:
        os.waitpid(pid, 0)
        if failure == b'0':
            raise ValueError('embedded null byte')  # what posix_spawn says
        raise OSError(int(failure), os.strerror(int(failure)))
    return pid
