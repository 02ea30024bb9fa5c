"""What is known of the files of this machine that are sent, and for how long."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from remote_runner.deploy.outcome import RunOptions
from remote_runner.deploy.prepare import Preparation
from remote_runner.events import Events
from remote_runner.files.delta import BLOCK

MB = 1 << 20


def test_digests_of_pieces_go_when_all_hosts_have_all(tmp_path: Path) -> None:
    path = tmp_path / 'large'
    path.touch()
    os.truncate(path, 64 * MB)
    nothing: Any = SimpleNamespace()
    preparation = Preparation(nothing, nothing, RunOptions(), Events())
    local = preparation._bringer.local
    local.look(str(path))
    tracemalloc.start()
    try:
        local.pieces(str(path), BLOCK)[:1]
        held, _ = tracemalloc.get_traced_memory()
        preparation.remember()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held - left > 64 * MB // BLOCK * 4
