"""Where results go: a file descriptor that may be a pipe, a file or a socket, that may be full, slow or closed."""

from __future__ import annotations

import errno
import os
import select
from typing import BinaryIO, Protocol

from remote_runner.errors import OutputClosed, OutputFailed, RemoteRunnerError

#: Bytes that are read at once of a file that has to go through our hands.
PIECE = 1 << 20
# The kernel cannot copy to this by itself: appended files, some terminals and file systems.
_NOT_BY_THE_KERNEL = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class Sink(Protocol):
    """Takes bytes in order, all of them or none that follow.

    Raises:
        OutputClosed: nobody reads any more.
        OutputFailed: it cannot be written.
    """

    def write(self, data: bytes) -> None:
        """Write all of it; waits while the reader does not read."""

    def copy(self, file: BinaryIO, size: int) -> None:
        """Write the first `size` bytes of a file."""


class Descriptor:
    """A file descriptor, blocking or not. It is not closed; `what` errors call it."""

    def __init__(self, number: int, what: str = 'the results') -> None:
        self._number = number
        self._what = what

    def write(self, data: bytes) -> None:
        """Write all of it, see `Sink`."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._number, rest) :]
            except BlockingIOError:
                self._wait()
            except OSError as error:
                raise self._error(error) from error

    def copy(self, file: BinaryIO, size: int) -> None:
        """Write the first `size` bytes of a file, within the kernel where that is possible; see `Sink`."""
        done = 0
        while done < size:
            try:
                count = os.sendfile(self._number, file.fileno(), done, size - done)
            except BlockingIOError:
                self._wait()
                continue
            except OSError as error:
                if error.errno in _NOT_BY_THE_KERNEL:
                    copy_by_pieces(self, file, done, size)
                    return
                raise self._error(error) from error
            if not count:
                raise shorter(file, size)
            done += count

    def _wait(self) -> None:
        """Until there is room, or nobody reads: then the next try says so."""
        poll = select.poll()
        poll.register(self._number, select.POLLOUT)
        poll.poll()

    def _error(self, error: OSError) -> RemoteRunnerError:
        if isinstance(error, BrokenPipeError | ConnectionResetError):
            return OutputClosed(f'nobody reads {self._what} any more')
        return OutputFailed(f'{self._what} cannot be written: {error.strerror}')


def copy_by_pieces(sink: Sink, file: BinaryIO, begin: int, end: int) -> None:
    """Write these bytes of a file through `sink.write`."""
    file.seek(begin)
    while begin < end:
        data = file.read(min(PIECE, end - begin))
        if not data:
            raise shorter(file, end)
        sink.write(data)
        begin += len(data)


def shorter(file: BinaryIO, size: int) -> OutputFailed:
    """The error of a file that has less bytes than it had."""
    return OutputFailed(f'{file.name} has been cut: it held {size} bytes when its delivery began')
