"""Certificates of OpenSSH (PROTOCOL.certkeys): whose key one is for, and whether a host's is to be believed."""

from __future__ import annotations

import base64
import time

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
)

from remote_runner.hosts.patterns import matches
from remote_runner.hosts.public_key import PublicKey

SUFFIX = '-cert-v01@openssh.com'


def certified_key(text: str) -> PublicKey | None:
    """The plain public key that a certificate (the text of a `-cert.pub` file) was made for; None if it is none."""
    certificate = _load(text.encode())
    return _key(certificate.public_key()) if certificate is not None else None


def why_not_believed(blob: bytes, name: str, authority: PublicKey) -> str | None:
    """Why a host certificate does not prove that its holder is `name`; None if it does.

    Args:
        blob: the certificate as on the wire.
        name: the host name, without port.
        authority: the key of who may vouch for it.
    """
    kind = blob[4 : 4 + int.from_bytes(blob[:4], 'big')]
    certificate = _load(kind + b' ' + base64.b64encode(blob))
    if certificate is None:
        return 'it cannot be read'
    signer = certificate.signature_key()
    if _key(signer) != authority:
        return 'it was signed by another authority'
    if isinstance(signer, RSAPublicKey) and not _signed_with_sha2(blob, signer.key_size):
        return 'it was signed with SHA-1'
    try:
        certificate.verify_cert_signature()
    except (InvalidSignature, UnsupportedAlgorithm):
        return 'its signature is wrong'
    if certificate.type is not SSHCertificateType.HOST:
        return 'it was made for a user'
    if certificate.critical_options:
        return 'it holds options that are not known here'
    if not certificate.valid_after <= time.time() < certificate.valid_before:
        return 'it has expired, or is not valid yet'
    principals = [principal.decode(errors='replace') for principal in certificate.valid_principals]
    if not any(matches(name.lower(), [principal]) for principal in principals):
        return f'it is not for {name}'
    return None


def _signed_with_sha2(blob: bytes, bits: int) -> bool:
    """Whether an RSA signature, which ends a certificate, is of a kind that OpenSSH still accepts (RFC 8332)."""
    return blob[: -4 - (bits + 7) // 8].endswith((b'rsa-sha2-256', b'rsa-sha2-512'))


def _load(text: bytes) -> SSHCertificate | None:
    try:
        certificate = load_ssh_public_identity(text)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return certificate if isinstance(certificate, SSHCertificate) else None


def _key(key: object) -> PublicKey:
    text: bytes = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)  # type: ignore[attr-defined]
    kind, blob = text.split()[:2]
    return PublicKey(kind.decode(), base64.b64decode(blob))
