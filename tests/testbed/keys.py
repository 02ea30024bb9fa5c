"""Ed25519 keys as OpenSSH writes them, made in this process: 200 runs of ssh-keygen would take as long as the hosts."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


@dataclass(frozen=True)
class Key:
    """`private` is the text of the key file, without passphrase; `public` is `ssh-ed25519 AAAA…`."""

    private: str
    public: str

    @classmethod
    def generate(cls) -> Key:
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return cls(private.decode(), public.decode())
