"""paramiko, imported in half the time.

What takes the other half is of no use to us, and kept from it during its import; who else uses it is not touched:

* paramiko.config imports `invoke`, for `Match exec` in ssh_config alone, and does without where it is not installed.
* paramiko looks for its own version with `importlib.metadata`, which imports parsers of e-mail and zip archives.
"""

from __future__ import annotations

import atexit
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

_METADATA = 'importlib.metadata'


def _version(name: str) -> str:
    """The version of an installed package, by the name of the folder that pip made for it."""
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.origin is not None:
        for folder in Path(spec.origin).parents[1].glob(f'{name}-*.dist-info'):
            return folder.name.removesuffix('.dist-info').rpartition('-')[2]
    return 'unknown'


@contextmanager
def _hidden() -> Iterator[None]:
    """What paramiko is told not to use, as far as nobody uses it yet."""
    metadata = ModuleType(_METADATA)
    vars(metadata)['version'] = _version
    stand_ins: dict[str, Any] = {'invoke': None, _METADATA: metadata}  # None is how `import` is told that there is none
    hidden = {} if 'paramiko' in sys.modules else {k: v for k, v in stand_ins.items() if k not in sys.modules}
    sys.modules.update(hidden)
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


with _hidden():
    import paramiko
    from paramiko.auth_handler import AuthOnlyHandler
    from paramiko.ssh_exception import IncompatiblePeer
    from paramiko.transport import ServiceRequestingTransport

# paramiko would stop all transports at the end of the process, one after the other; the system closes them at once.
atexit.unregister(vars(paramiko.transport).get('_join_lingering_threads'))  # type: ignore[arg-type]

__all__ = ['AuthOnlyHandler', 'IncompatiblePeer', 'ServiceRequestingTransport', 'paramiko']
