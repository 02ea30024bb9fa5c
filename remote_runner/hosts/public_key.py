"""Public keys as data: what is compared, stored and shown."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PublicKey:
    """A public key of a host or a user.

    Args:
        type: as on the wire, `ssh-ed25519`.
        blob: its bytes (RFC 4253, 6.6).
        certificate: that of a host, if it shows one; it is no part of the key.
    """

    type: str
    blob: bytes
    certificate: bytes | None = field(default=None, compare=False, repr=False)

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it: `SHA256:` and 43 letters."""
        return 'SHA256:' + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip('=')

    def __str__(self) -> str:
        kind = self.type.removeprefix('ssh-').removeprefix('ecdsa-sha2-')
        return f'{"ECDSA" if kind.startswith("nistp") else kind.upper()} {self.fingerprint}'
