"""Folders that are made for components on a host: all of them, or none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from remote_runner.agent.files import prepare
from remote_runner.agent.request import Failure


def test_where_one_cannot_be_made_none_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    components = [
        ['one', None, None],
        ['two', str(tmp_path / 'a' / 'b'), None],
        ['three', None, 'no-such-user'],
    ]
    request: Any = SimpleNamespace(header={'components': components, 'create': True})
    with pytest.raises(Failure, match='no-such-user'):
        prepare(request)
    assert list(tmp_path.iterdir()) == []
