"""Storing the agent on a host that has it not yet. Sent with the agent, and run by the first stage before it is stored.

Each source is compiled once for this Python and stored as `<cache>/<name>/<path>c`, written to a temporary folder and
renamed, so that hosts that share a home never see half an agent. This file runs on its own: it imports none of ours.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, List


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

    stamp = MAGIC_NUMBER + bytes(12 if sys.version_info >= (3, 7) else 8)
    temporary = '{}.{}.{}'.format(folder, os.uname().nodename, os.getpid())
    os.mkdir(temporary, 0o700)
    try:
        for path, source in sources.items():
            target = os.path.join(temporary, path + 'c')
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, 'wb') as file:
                file.write(stamp + marshal.dumps(compile(source, path, 'exec', dont_inherit=True, optimize=2)))
    except OSError:
        _remove(temporary)
        raise
    try:
        os.rename(temporary, folder)
    except OSError:
        if load(folder):
            _remove(temporary)  # another host with this home was faster
        else:
            os.rename(folder, temporary + '.damaged')
            os.rename(temporary, folder)
            _remove(temporary + '.damaged')


def _remove(folder: str) -> None:
    for path, folders, files in os.walk(folder, topdown=False):
        for name in files:
            os.unlink(os.path.join(path, name))
        for name in folders:
            os.rmdir(os.path.join(path, name))
    os.rmdir(folder)
