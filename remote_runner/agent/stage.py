"""The first code that runs on a host after the marker: finds the agent in the cache, or asks for it, and starts it.

Short, because each host compiles it each time. Two lines stand around it: `i = <stdin>` of the bootstrap command and
the call of `_start`. It answers on stdout with a line, `have` or `need <python tag>`; after `need` comes a line with a
length and that many bytes: a JSON object {path: source text}, of which `agent/store.py` is run to store them all.

This file runs as it stands, in the namespace of `python3 -c`; it must not need anything that a later line defines.
"""

import os
import sys


def _is_usable(cache: str) -> bool:
    """Whether the agent lies in this folder, or would be stored there."""
    parent = cache
    while parent and not os.path.isdir(parent):
        parent = os.path.dirname(parent)
    if parent != cache:
        return os.access(parent or '.', os.W_OK)
    found = [os.stat(cache), os.stat(os.path.dirname(cache))]
    # Whoever may write to these could put another agent in the place of ours.
    return os.access(cache, os.W_OK) and all(s.st_uid == os.getuid() and not s.st_mode & 0o022 for s in found)


def _is_whole(folder: str) -> bool:
    """Whether all that `agent/store.py` put there is as it was: what is damaged may do anything when it is imported."""
    from binascii import crc32

    value = 0
    try:
        with open(os.path.join(folder, 'check'), 'rb') as file:
            wanted, *paths = file.read().split(b'\n')
        for path in paths:
            with open(os.path.join(os.fsencode(folder), path), 'rb', 0) as code:
                value = crc32(code.read(), value)
        return int(wanted) == value
    except (OSError, ValueError):
        return False


def _load(folder: str) -> bool:
    """Import the agent from `folder`; False where it is not there, or damaged.

    The folder stays open, for others to see that it is in use (`agent/living.py`).
    """
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    if not _is_whole(folder):
        os.close(held)
        return False
    sys.path.insert(0, folder)
    try:
        import remote_runner.agent.main  # noqa: F401
    except (ImportError, EOFError, ValueError, TypeError, AttributeError):
        sys.path.remove(folder)
        for name in [name for name in sys.modules if name.split('.')[0] == 'remote_runner']:
            del sys.modules[name]
        os.close(held)
        return False
    return True


def _start(key: str) -> None:
    """Run the agent of this hash."""
    if sys.version_info < (3, 6):
        print('python3 is', sys.version.split()[0], 'but 3.6 is needed', file=sys.stderr)
        sys.exit(1)
    tag = sys.implementation.cache_tag or 'python'
    name = '{}-{}'.format(key, tag)
    home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    caches = [os.path.join(home, 'remote_runner'), '/tmp/remote_runner-{}/cache'.format(os.getuid())]
    # The second counts only where the first cannot be used.
    cache = next(filter(_is_usable, caches), None)
    if cache is not None and _load(os.path.join(cache, name)):
        print('have', flush=True)
    else:
        print('need', tag, flush=True)
        import json

        stdin = sys.stdin.buffer
        sources = json.loads(stdin.read(int(stdin.readline())).decode('ascii'))
        scope: "dict[str, object]" = {}
        exec(sources['remote_runner/agent/store.py'], scope)  # noqa: S102 - that is how code comes here
        scope['store'](name, sources, caches, _load)  # type: ignore[operator]
    sys.modules['remote_runner.agent.main'].main()
