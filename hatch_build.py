"""Called by hatchling: makes the man page that goes into the wheel."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManPage(BuildHookInterface):  # type: ignore[type-arg]
    """Puts remote_runner(1), made from the code that is packed, where man(1) looks for it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before the wheel is built."""
        sys.path.insert(0, self.root)
        from remote_runner.cli.shell.man import page

        self._folder = TemporaryDirectory()
        path = Path(self._folder.name, 'remote_runner.1')
        path.write_text(page(), encoding='ascii')
        build_data['shared_data'][str(path)] = 'share/man/man1/remote_runner.1'

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """After that."""
        self._folder.cleanup()
