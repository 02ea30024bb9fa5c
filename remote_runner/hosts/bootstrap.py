"""Starting the agent on a host, whatever its login shell is and whatever its start-up files print.

One command prints a marker from python3; nothing is sent before the marker came, because start-up files may read
stdin. After it the first stage (`agent/stage.py`) goes over, and the agent itself where the host has it not cached.
"""

from __future__ import annotations

import hashlib
import random
import re
import time
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from remote_runner.errors import BootstrapFailed, ConnectionLost, PythonMissing
from remote_runner.hosts.connection import Channel, Connection
from remote_runner.hosts.shell import sh

#: Seconds from running the command to the agent's first words.
BOOTSTRAP_TIMEOUT = 20.0
#: Seconds without a marker after which one empty line is sent, for start-up files that wait for input.
NUDGE = 0.7
_PACKAGE = Path(__file__).parent.parent
_PYTHONS = 'python3 /usr/libexec/platform-python /usr/local/bin/python3'
_READER = (
    'import sys;print({a}*{b},flush=True);i=sys.stdin.buffer;exec(i.read(int(next(filter(bytes.strip,i)))))'
)
_NO_PYTHON = 'no python3'
_QUOTED = 2000


def command(a: int, b: int, python: str | None = None) -> str:
    """The bootstrap command; it prints the product of the two numbers, so that its own text never holds the marker.

    `python` is tried before all others, if its path needs no quoting.
    """
    pythons = f'{python} {_PYTHONS}' if python and re.fullmatch(r'[\w/.+-]+', python) else _PYTHONS
    python = _READER.format(a=a, b=b)
    search = f'for p in {pythons}; do command -v $p >/dev/null && exec $p -ISc "{python}"; done'
    return sh(f'{search}; echo {_NO_PYTHON} >&2; exit 127')


@lru_cache(maxsize=1)
def _sources() -> dict[str, str]:
    """The files that the agent consists of, by their paths."""
    paths = [_PACKAGE / '__init__.py', *(_PACKAGE / 'agent').glob('*.py'), *(_PACKAGE / 'wire').glob('*.py')]
    return {str(path.relative_to(_PACKAGE.parent)): path.read_text('utf-8') for path in sorted(paths)}


@lru_cache(maxsize=1)
def agent_key() -> str:
    """A hash that names the agent."""
    text = '\0'.join(part for item in _sources().items() for part in item)
    return hashlib.sha256(text.encode('utf-8')).hexdigest()[:20]


@lru_cache(maxsize=1)
def _bundle() -> bytes:
    """What a host asks for that does not have this agent: a JSON object {path: source}."""
    import json

    return json.dumps(_sources()).encode('ascii')


@lru_cache(maxsize=1)
def _first_stage() -> bytes:
    stage = (_PACKAGE / 'agent' / 'stage.py').read_text('utf-8')
    code = f'{stage}\n_start({agent_key()!r})\n'.encode('ascii')
    return b'%d\n' % len(code) + code


class _Reader:
    """Lines from a channel, within one deadline."""

    def __init__(self, host: str, channel: Channel, timeout: float) -> None:
        self._host = host
        self._channel = channel
        self._deadline = time.monotonic() + timeout
        self.buffer = b''

    def more(self, timeout: float | None = None) -> bool:
        """Read once; False at `timeout` (where given) without new bytes.

        Raises:
            BootstrapFailed: end of the output, or the deadline passed.
        """
        left = self._deadline - time.monotonic()
        try:
            data = self._channel.read(1 << 16, max(0.01, left if timeout is None else min(left, timeout)))
        except TimeoutError:
            if timeout is None or time.monotonic() >= self._deadline:
                raise self.failure('the agent did not start in time') from None
            return False
        except ConnectionLost as error:
            raise BootstrapFailed(error.what, host=self._host, output=self._printed()) from error
        if not data:
            raise self._ended()
        self.buffer += data
        return True

    def _printed(self) -> str:
        text = self.buffer.decode('utf-8', 'replace') + self._channel.stderr().decode('utf-8', 'replace')
        return text[-_QUOTED:]

    def failure(self, what: str) -> BootstrapFailed:
        """An error that quotes what the host printed."""
        remedy = 'what the login shell and its start-up files printed follows' if self._printed().strip() else (
            'the login shell printed nothing; does `ssh HOST true` work?'
        )
        return BootstrapFailed(what, host=self._host, remedy=remedy, output=self._printed())

    def _ended(self) -> BootstrapFailed:
        if self._channel.stderr().rstrip().endswith(_NO_PYTHON.encode()):
            what = 'python3 was not found'
            return PythonMissing(what, host=self._host, remedy='install the package python3 (3.6 or newer) there')
        return self.failure('the agent could not be started: the command ended')

    def line_after(self, pattern: re.Pattern[bytes], *, nudge: bool) -> re.Match[bytes]:
        """Wait for a match; it and what stands before it are dropped, what follows stays in `buffer`.

        `nudge`: send an empty line if nothing comes, which is skipped by who reads there.
        """
        nudged = not nudge
        while True:
            found = pattern.search(self.buffer)
            if found:
                self.buffer = self.buffer[found.end() :]
                return found
            if not self.more(None if nudged else NUDGE) and not nudged:
                nudged = True
                self._channel.write(b'\n')


class Started(NamedTuple):
    """An agent that runs.

    Args:
        channel: its channel, on which frames follow.
        first: what of them came already.
        seconds: from running the command to the marker: what the login shell and its start-up files took.
        printed: the end of what they printed.
    """

    channel: Channel
    first: bytes
    seconds: float
    printed: str

    def close(self) -> None:
        """End it."""
        self.channel.close()


def start_agent(host: str, connection: Connection, python: str | None = None) -> Started:
    """Start the agent, with the interpreter `python` if it can be had.

    Raises:
        BootstrapFailed: no marker in time, no python3, or the agent could not be stored.
        ConnectionLost: the connection broke.
    """
    a, b = random.randint(10**8, 10**9), random.randint(10**8, 10**9)
    begun = time.monotonic()
    channel = connection.open(command(a, b, python))
    reader = _Reader(host, channel, BOOTSTRAP_TIMEOUT)
    try:
        marker = reader.line_after(re.compile(rb'%d\r?\n' % (a * b)), nudge=True)
        seconds = time.monotonic() - begun
        channel.write(_first_stage())
        answer = reader.line_after(re.compile(rb'(have|need [\w.-]+)\n'), nudge=False)  # a busy host takes its time
        printed = marker.string[: marker.start()] + channel.stderr()
        if answer.group().startswith(b'need'):
            sources = _bundle()
            channel.write(b'%d\n' % len(sources) + sources)
        while not reader.buffer:
            reader.more()
    except BaseException:
        channel.close()
        raise
    return Started(channel, reader.buffer, seconds, printed.decode('utf-8', 'replace')[-_QUOTED:])
