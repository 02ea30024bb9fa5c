"""What of a large file need not be sent: pieces that the host has already, in the file's earlier content or in an
interrupted copy, and holes.

Both sides compute digests of pieces of a fixed size, at the same time, and only digests go over. A change in place, a
longer or shorter end, and one insertion or deletion are found: pieces are counted from the begin, and where the size
differs, from the end as well. A rolling checksum (rsync's) would find pieces at any offset; in Python it is slower than
sending the file, see docs/files.md. Whatever is found, the SHA-1 of the whole decides on the host.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from remote_runner.errors import TransferFailed
from remote_runner.files.local import LocalFiles
from remote_runner.files.manifest import Entry
from remote_runner.hosts.call import Call
from remote_runner.hosts.host import Host
from remote_runner.wire.pieces import DIGEST, digest_of

#: Bytes from which on it is worth to look what is there already.
LEAST = 1 << 20
#: Bytes of a piece: the least, and pieces that a file has at most.
BLOCK = 1 << 16
BLOCKS = 1 << 16
#: Bytes of data that are sent at once.
DATA = 1 << 18
#: Bytes that the host has, and that it is told of at once.
SPARED = 16 << 20


class Basis(NamedTuple):
    """What a host has of a file.

    Args:
        block: bytes of a piece.
        size: of the file that is there.
        front: digests of its pieces, counted from its begin; back: the same, from its end backwards.
        partial: of an interrupted copy, from its begin.
    """

    block: int
    size: int
    front: tuple[bytes, ...]
    back: tuple[bytes, ...]
    partial: tuple[bytes, ...]


class Step(NamedTuple):
    """The next bytes of a file, and where they come from.

    Args:
        kind: `data` (it is sent), `copy` (of what is there, at `there`), `partial` (an interrupted copy has it), or
            `hole`.
        offset, length: in the file.
        there: offset in the file that is there.
    """

    kind: str
    offset: int
    length: int
    there: int = 0


def block_size(size: int) -> int:
    """Bytes of a piece of a file of this size."""
    block = BLOCK
    while size // block > BLOCKS:
        block *= 2
    return block


class Looking:
    """Asking one host what it has of one file."""

    def __init__(self, host: Host, entry: Entry) -> None:
        self._block = block_size(entry.size)
        self._call: Call = host.call('blocks', path=entry.remote, size=entry.size, block=self._block)

    def result(self) -> Basis:
        """What it has.

        Raises:
            ConnectionLost: the connection broke.
            RequestFailed: the file became shorter meanwhile.
        """
        digests: dict[str, list[bytes]] = {'front': [], 'back': [], 'partial': []}
        for (what, _), body in self._call.parts():
            digests[what] += [body[at : at + DIGEST] for at in range(0, len(body), DIGEST)]
        size = self._call.result()['size']
        digests['back'].reverse()
        return Basis(self._block, size, *(tuple(digests[what]) for what in ('front', 'back', 'partial')))


def steps(fd: int, entry: Entry, basis: Basis | None, local: LocalFiles) -> Iterator[Step]:
    """How the host puts a file together, that is open here.

    Raises:
        TransferFailed: it cannot be read.
    """
    is_sparse = local.is_sparse(entry.local)
    try:
        if basis is None:
            yield from _ranges(fd, 0, entry.size, is_sparse)
        else:
            own = local.pieces(entry.local, basis.block)
            yield from _joined(_compared(fd, entry.size, is_sparse, basis, own))
    except OSError as error:
        raise TransferFailed(f'cannot read {entry.local}: {error.strerror}') from error


def _ranges(fd: int, at: int, end: int, is_sparse: bool) -> Iterator[Step]:
    """Data and holes (lseek(2), SEEK_DATA)."""
    while at < end:
        data, hole = at, end
        if is_sparse:
            try:
                data = min(os.lseek(fd, at, os.SEEK_DATA), end)
                hole = min(os.lseek(fd, data, os.SEEK_HOLE), end) if data < end else end
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                data = end  # nothing but a hole is left
        if data > at:
            yield Step('hole', at, data - at)
        if hole > data:
            yield Step('data', data, hole - data)
        at = max(hole, data)


def is_alike(entry: Entry, basis: Basis | None, local: LocalFiles) -> bool:
    """Whether a host may have a file already, as far as pieces tell.

    Raises:
        TransferFailed: it cannot be read.
    """
    return basis is not None and basis.size == entry.size and basis.front == local.pieces(entry.local, basis.block)


def _compared(fd: int, size: int, is_sparse: bool, basis: Basis, own: Sequence[bytes]) -> Iterator[Step]:
    block = basis.block
    end = size - _same_end(fd, size, basis) * block
    for number, at in enumerate(range(0, end, block)):
        length = min(block, end - at)
        inside = tuple(_ranges(fd, at, at + length, is_sparse))
        if all(step.kind == 'hole' for step in inside):
            yield from inside
            continue
        digest = own[number] if length == block else b''
        if digest and digest == _at(basis.partial, number):
            yield Step('partial', at, length)
        elif digest and digest == _at(basis.front, number):
            yield Step('copy', at, length, at)
        else:
            yield from inside
    if end < size:
        yield Step('copy', end, size - end, basis.size - (size - end))


def _same_end(fd: int, size: int, basis: Basis) -> int:
    """How many pieces at the end are those at the end of what is there."""
    for number, digest in enumerate(basis.back[: size // basis.block]):
        if digest_of(os.pread(fd, basis.block, size - (number + 1) * basis.block)) != digest:
            return number
    return min(len(basis.back), size // basis.block)


def _at(digests: tuple[bytes, ...], number: int) -> bytes | None:
    return digests[number] if number < len(digests) else None


def _joined(single: Iterator[Step]) -> Iterator[Step]:
    """The same in few steps."""
    last: Step | None = None
    for step in single:
        if last is None:
            last = step
        elif _continues(last, step):
            last = last._replace(length=last.length + step.length)
        else:
            yield last
            last = step
    if last is not None:
        yield last


def _continues(last: Step, step: Step) -> bool:
    if last.length >= (DATA if step.kind == 'data' else SPARED):
        return False  # the host can be at it while what follows is still looked at
    return step.kind == last.kind and (step.kind != 'copy' or step.there == last.there + last.length)
