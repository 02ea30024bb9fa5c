"""Looking whether a component is ready: a process of its own beside the program, which may wait for what it asks.

The keeper forks it and reads its pipe: each line is why the component is not ready yet, if that is another reason than
before; an empty line is that it is ready, and the last. See `config/ready.py` for the kinds and what they mean.
"""

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional

    Values = Dict[str, Any]

#: Seconds between two looks, at first and at last.
FIRST_PAUSE = 0.02
LAST_PAUSE = 0.25
#: Seconds that one look may take.
LOOK_TIMEOUT = 5.0
#: Bytes of a line of output that are looked at.
MAX_LINE = 1 << 16


def probe(spec: "Values", folder: str, offset: int, write: int) -> None:
    """Look until the component is ready, and say so on the file descriptor `write`.

    Args:
        spec: what the component's launcher was told.
        folder: where its output lies.
        offset: where in its output this start begins (see `agent/logs.py`).
    """
    values = spec['ready']
    os.environ.clear()
    os.environb.update(spec['env'])
    if values['kind'] != 'log':  # which is ours, even where the folder is another user's
        os.chdir(spec['cwd'])
    looks = {'tcp': _tcp, 'http': _http, 'file': _file, 'command': _command, 'log': _log}
    look = looks[values['kind']](values, folder, offset)
    said = None
    pause = FIRST_PAUSE
    while True:
        reason = look()
        if reason is None:
            os.write(write, b'\n')
            return
        if reason != said:
            said = reason
            os.write(write, ' '.join(reason.split()).encode('utf-8', 'surrogateescape')[:1000] + b'\n')
        time.sleep(float(values.get('interval', pause)))
        pause = min(2 * pause, LAST_PAUSE)


def _tcp(values: "Values", folder: str, offset: int) -> "Callable[[], Optional[str]]":
    import socket

    host, port = values['host'], values['port']

    def look() -> "Optional[str]":
        try:
            socket.create_connection((host, port), LOOK_TIMEOUT).close()
        except OSError as error:
            return 'port {} of {}: {}'.format(port, host, error.strerror or error)
        return None

    return look


def _http(values: "Values", folder: str, offset: int) -> "Callable[[], Optional[str]]":
    import http.client
    from urllib.parse import urlsplit

    url = urlsplit(values['url'])
    path = (url.path or '/') + ('?' + url.query if url.query else '')

    def connect() -> http.client.HTTPConnection:
        if url.scheme == 'https':
            import ssl

            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE  # it is this machine's own, and nothing is told to it
            return http.client.HTTPSConnection(url.hostname or '', url.port, timeout=LOOK_TIMEOUT, context=context)
        return http.client.HTTPConnection(url.hostname or '', url.port, timeout=LOOK_TIMEOUT)

    def look() -> "Optional[str]":
        connection = connect()
        try:
            connection.request('GET', path)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return '{}: {}'.format(values['url'], getattr(error, 'strerror', None) or error)
        finally:
            connection.close()
        return None if status == values['status'] else '{} answers with status {}'.format(values['url'], status)

    return look


def _file(values: "Values", folder: str, offset: int) -> "Callable[[], Optional[str]]":
    path = os.path.expanduser(values['path'])

    def look() -> "Optional[str]":
        try:
            found = os.stat(path)
        except OSError as error:
            return '{}: {}'.format(path, error.strerror)
        is_old = _identity(found) == values['before']
        return '{} is still as it was before the start'.format(path) if is_old else None

    return look


def _identity(found: os.stat_result) -> "tuple[int, int, int]":
    return found.st_dev, found.st_ino, found.st_mtime_ns


def before(spec: "Values") -> None:
    """To be called before the program starts: remember a file that is there already."""
    values = spec['ready']
    if values['kind'] == 'file':
        try:
            path = os.path.join(os.fsdecode(spec['cwd']), os.path.expanduser(values['path']))
            values['before'] = _identity(os.stat(path))
        except OSError:
            values['before'] = None


def _command(values: "Values", folder: str, offset: int) -> "Callable[[], Optional[str]]":
    import subprocess

    argv = [os.path.expanduser(values['argv'][0]), *values['argv'][1:]]

    def look() -> "Optional[str]":
        try:
            done = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except OSError as error:
            return '{}: {}'.format(argv[0], error.strerror)
        output, _ = done.communicate()
        if done.returncode == 0:
            return None
        lines = output.decode('utf-8', 'replace').strip().splitlines()
        how = 'status {}'.format(done.returncode) if done.returncode > 0 else 'signal {}'.format(-done.returncode)
        return '{} ended with {}{}'.format(argv[0], how, ': ' + lines[-1] if lines else '')

    return look


def _log(values: "Values", folder: str, offset: int) -> "Callable[[], Optional[str]]":
    import re

    from remote_runner.agent.logs import Reader

    pattern = re.compile(values['regex'])
    escapes = re.compile(r'\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])')
    output = Reader('', folder)
    output.begin(offset, None, None)
    rest = [b'']

    def look() -> "Optional[str]":
        for _, _, data in output.pieces():
            *lines, last = (rest[0] + data).split(b'\n')
            rest[0] = last[-MAX_LINE:]
            for line in [*lines, last]:
                text = escapes.sub('', line.decode('utf-8', 'replace')).rstrip('\r')
                if pattern.search(text):
                    return None
        return 'no line of its output matches {!r} yet'.format(values['regex'])

    return look
