"""Public keys as data: what is compared, stored and shown."""

from __future__ import annotations

import base64
import hashlib


class PublicKey:
    """A public key of a host or a user. Two of one type and the same bytes are equal.

    Args:
        type_: as on the wire, `ssh-ed25519`.
        blob: its bytes (RFC 4253, 6.6).
        certificate: that of a host, if it shows one; it is no part of the key.
    """

    __slots__ = ('blob', 'certificate', 'type')

    def __init__(self, type_: str, blob: bytes, certificate: bytes | None = None) -> None:
        self.type = type_
        self.blob = blob
        self.certificate = certificate

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and (self.type, self.blob) == (other.type, other.blob)

    def __hash__(self) -> int:
        return hash((self.type, self.blob))

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it: `SHA256:` and 43 letters."""
        return 'SHA256:' + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip('=')

    def __str__(self) -> str:
        kind = self.type.removeprefix('ssh-').removeprefix('ecdsa-sha2-')
        return f'{"ECDSA" if kind.startswith("nistp") else kind.upper()} {self.fingerprint}'
