"""The socket on which programs say how they are."""

from __future__ import annotations

import socket
from pathlib import Path

from remote_runner.agent.notify import Notify


def test_who_sends_without_end_is_heard_piece_by_piece(tmp_path: Path) -> None:
    """A socket that another user's deputy handed over may have an end of data that can be read for ever."""
    ours, theirs = socket.socketpair()
    theirs.close()
    notify = Notify(str(tmp_path / 'n'), ours, 0)  # type: ignore[arg-type]
    assert notify.receive() == []
    notify.close()


def test_what_is_left_comes_the_next_time(tmp_path: Path) -> None:
    notify = Notify(str(tmp_path / 'n'))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as program:
        for number in range(5):
            program.sendto(b'STATUS=%d' % number, notify.path)
        heard = [message['STATUS'] for message in notify.receive()]
    notify.close()
    assert heard == ['0', '1', '2', '3', '4']
    assert not (tmp_path / 'n').exists()
