"""Storing the agent on a host that has it not yet. Sent with the agent, and run by the first stage before it is stored.

Each source is compiled once for this Python and stored as `<cache>/<name>/<path>c`, written to a temporary folder and
renamed, so that hosts that share a home never see half an agent. `<cache>/<name>/check` holds the CRC-32 of all of them
together, and their paths, for the first stage to see whether they are as they were. This file runs on its own: it
imports none of ours.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, List

#: How often something that stands in the way of the agent is taken away: other hosts with this home do so, too.
TRIES = 5


def store(name: str, sources: "Dict[str, str]", caches: "List[str]", load: "Callable[[str], bool]") -> None:
    """Store the agent as `name` in the first of `caches` that can be used, and load it from there.

    Where the home cannot be written to, that is the second.
    """
    for cache in caches:
        folder = os.path.join(cache, name)
        if not _private(cache):
            continue
        try:
            _store(folder, sources, load)
        except OSError as error:
            print('cannot store the agent in {}: {}'.format(cache, error.strerror), file=sys.stderr)
            continue
        if load(folder):
            return
    print('no folder for the agent: tried', ' and '.join(caches), file=sys.stderr)
    sys.exit(1)


def _private(path: str) -> bool:
    """Make `path` a folder of ours that nobody else can write to; False where that cannot be."""
    try:
        parent = os.path.dirname(path)
        if not os.path.isdir(parent):
            os.makedirs(parent, 0o700)
        if not _is_ours(parent):  # whoever may write there could put another folder in the place of ours
            return False
        os.makedirs(path, 0o700, exist_ok=True)
        return _is_ours(path) and os.access(path, os.W_OK)
    except OSError:
        return False


def _is_ours(path: str) -> bool:
    """Whether `path` is ours, and nobody else may write to it."""
    found = os.stat(path)
    return found.st_uid == os.getuid() and not found.st_mode & 0o022


def _store(folder: str, sources: "Dict[str, str]", load: "Callable[[str], bool]") -> None:
    """Compile `sources` and put them at `folder` in one step."""
    import marshal
    from _frozen_importlib_external import MAGIC_NUMBER
    from binascii import crc32

    stamp = MAGIC_NUMBER + bytes(12 if sys.version_info >= (3, 7) else 8)
    temporary = '{}.{}.{}'.format(folder, os.uname().nodename, os.getpid())
    paths = sorted(sources)
    value = 0
    os.mkdir(temporary, 0o700)
    try:
        for path in paths:
            target = os.path.join(temporary, path + 'c')
            os.makedirs(os.path.dirname(target), exist_ok=True)
            code = stamp + marshal.dumps(compile(sources[path], path, 'exec', dont_inherit=True, optimize=2))
            value = crc32(code, value)
            with open(target, 'wb') as file:
                file.write(code)
        with open(os.path.join(temporary, 'check'), 'w') as check:
            check.write('\n'.join([str(value)] + [path + 'c' for path in paths]))
        _put(temporary, folder, load)
    except OSError:
        _remove(temporary)
        raise


def _put(temporary: str, folder: str, load: "Callable[[str], bool]") -> None:
    """Rename it to `folder`, in place of what is damaged there."""
    taken_away = []
    for attempt in range(TRIES):
        try:
            os.rename(temporary, folder)
            break
        except OSError:
            if load(folder):
                _remove(temporary)  # another host with this home was faster
                break
            if attempt == TRIES - 1:
                raise
        damaged = '{}.damaged{}'.format(temporary, attempt)
        try:
            os.rename(folder, damaged)
            taken_away.append(damaged)
        except FileNotFoundError:
            continue  # another host has taken it away
    for damaged in taken_away:
        try:
            _remove(damaged)
        except OSError as error:
            print('cannot remove {}: {}'.format(damaged, error.strerror), file=sys.stderr)


def _remove(path: str) -> None:
    """Remove a file or a folder, also one that was made unreadable."""
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
        return
    os.chmod(path, 0o700)
    for name in os.listdir(path):
        _remove(os.path.join(path, name))
    os.rmdir(path)
