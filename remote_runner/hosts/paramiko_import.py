"""paramiko, imported in a third less time.

paramiko.config imports `invoke`, a third of all that is imported, for `Match exec` in ssh_config alone, and does
without where it is not installed. It is told so during its own import; whoever else uses `invoke` is not touched.
"""

from __future__ import annotations

import sys

_hide = 'paramiko' not in sys.modules and 'invoke' not in sys.modules
if _hide:
    sys.modules['invoke'] = None  # type: ignore[assignment]  # this is how `import` is told that there is none
try:
    import paramiko
    from paramiko.auth_handler import AuthOnlyHandler
    from paramiko.ssh_exception import IncompatiblePeer
    from paramiko.transport import ServiceRequestingTransport
finally:
    if _hide:
        del sys.modules['invoke']

__all__ = ['AuthOnlyHandler', 'IncompatiblePeer', 'ServiceRequestingTransport', 'paramiko']
