"""The first code that runs on a host after the marker: finds the agent in the cache, or asks for it, and starts it.

The master sends it with two lines before it: `KEY = '<hash of the agent>'` and `i = <stdin>` is there already from the
bootstrap command. It answers on stdout with one line, `have` or `need <python tag>`; after `need` comes one line with a
length and that many bytes: a JSON object {path: source text}. Each source is compiled once for this Python and stored
as `<cache>/<KEY>-<tag>/<path>c`, written to a temporary folder and renamed, so that hosts that share a home never see
half an agent.

This file runs as it stands, in the namespace of `python3 -c`; it must not need anything that a later line defines.
"""

import os
import sys

_TAG = sys.implementation.cache_tag or 'python'


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
    found = os.stat(path)
    return found.st_uid == os.getuid() and not found.st_mode & 0o022


def _caches() -> "list[str]":
    """Where the agent may lie, best first: the user's cache, else a folder under /tmp."""
    home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return [os.path.join(home, 'remote_runner'), '/tmp/remote_runner-{}/cache'.format(os.getuid())]


def _load(folder: str) -> bool:
    """Import the agent from `folder`; False where it is not there or damaged."""
    if not os.path.isdir(folder):
        return False
    sys.path.insert(0, folder)
    try:
        import remote_runner.agent.main  # noqa: F401
    except (ImportError, EOFError, ValueError, TypeError, AttributeError):
        sys.path.remove(folder)
        for name in [name for name in sys.modules if name.split('.')[0] == 'remote_runner']:
            del sys.modules[name]
        return False
    return True


def _store(folder: str, sources: "dict[str, str]") -> None:
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
        if _load(folder):
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


def _fetch(key: str) -> None:
    """Ask the master for the agent, store it, import it."""
    stdin = sys.stdin.buffer
    print('need', _TAG, flush=True)
    import json

    sources = json.loads(stdin.read(int(stdin.readline())).decode('ascii'))
    for cache in _caches():
        folder = os.path.join(cache, '{}-{}'.format(key, _TAG))
        if not _private(cache):
            continue
        try:
            _store(folder, sources)
        except OSError as error:
            print('cannot store the agent in {}: {}'.format(cache, error.strerror), file=sys.stderr)
            continue
        if _load(folder):
            return
    print('no folder for the agent: tried', ' and '.join(_caches()), file=sys.stderr)
    sys.exit(1)


def _start(key: str) -> None:
    if sys.version_info < (3, 6):
        print('python3 is', sys.version.split()[0], 'but 3.6 is needed', file=sys.stderr)
        sys.exit(1)
    # The second cache counts only where the first cannot be used.
    cache = next((cache for cache in _caches() if _private(cache)), None)
    if cache is not None and _load(os.path.join(cache, '{}-{}'.format(key, _TAG))):
        print('have', flush=True)
    else:
        _fetch(key)
    sys.modules['remote_runner.agent.main'].main()
