"""What tests of SSH need besides hosts: keys, an agent, servers that misbehave."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 20.0  # seconds; the longest that anything here may take, never what it should take


def make_key(path: Path, *options: str, password: str = '') -> Path:
    """A new key pair by ssh-keygen, with `path`.pub beside it."""
    subprocess.run(['ssh-keygen', '-q', '-N', password, '-f', path, *options], check=True)
    return path


@contextmanager
def ssh_agent(folder: Path, *keys: Path) -> Iterator[str]:
    """A real ssh-agent that holds `keys`; gives the path of its socket."""
    path = str(folder / 'agent')
    agent = subprocess.Popen(['ssh-agent', '-D', '-a', path], stdout=subprocess.PIPE)
    try:
        assert agent.stdout is not None
        assert re.match(rb'SSH_AUTH_SOCK=', agent.stdout.readline())
        for key in keys:
            subprocess.run(['ssh-add', '-q', key], env={**os.environ, 'SSH_AUTH_SOCK': path}, check=True)
        yield path
    finally:
        agent.terminate()
        agent.communicate()


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on this machine that calls `answer` for each connection, which is closed after; gives its port."""
    with socket.create_server(('127.0.0.1', 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)
