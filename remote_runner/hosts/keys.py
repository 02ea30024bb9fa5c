"""Private keys in files: each is read once, and unlocked once, for all hosts.

Formats: OpenSSH's own (PROTOCOL.key), PEM (PKCS#1, SEC1) and PKCS#8; ed25519, ECDSA and RSA; certificates beside them.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
import stat
import struct
import threading
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from remote_runner.hosts.certificates import certified_key
from remote_runner.hosts.paramiko_import import paramiko
from remote_runner.hosts.public_key import PublicKey

_HEADER = re.compile(rb'-----BEGIN (?:(\w+) )?PRIVATE KEY-----\s+(.*?)-----END', re.DOTALL)
_MAGIC = b'openssh-key-v1\0'
_DSA = 'DSA keys are no longer supported'
_CLASSES: dict[type[Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey], type[paramiko.PKey]] = {
    Ed25519PrivateKey: paramiko.Ed25519Key,
    EllipticCurvePrivateKey: paramiko.ECDSAKey,
    RSAPrivateKey: paramiko.RSAKey,
}


class KeyFile:
    """One private key file. Safe to use from many threads.

    Attributes:
        path: as ssh_config gives it, expanded.
        public: its public key, where that can be had without unlocking it.
        encrypted: it needs a password.
        problem: why it cannot be used at all; None if it can.
        exists: there is such a file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.public: PublicKey | None = None
        self.encrypted = False
        self.problem: str | None = None
        self.exists = True
        self._lock = threading.Lock()
        self._data = b''
        self._pems: dict[str | None, str | None] = {}
        self._unlocked: dict[tuple[str | None, tuple[str, ...]], list[paramiko.PKey]] = {}
        self._read()

    def __str__(self) -> str:
        home = str(Path.home())
        return '~' + self.path.removeprefix(home) if self.path.startswith(home + '/') else self.path

    def unlock(self, password: str | None, certificates: tuple[str, ...] = ()) -> list[paramiko.PKey]:
        """The private key to authenticate with: once with each certificate made for it, then alone.

        Args:
            password: not needed unless `encrypted`.
            certificates: files of CertificateFile. The one beside the key is found by itself.

        Returns:
            The keys; none if this is not the password.
        """
        wanted = (password if self.encrypted else None, certificates)
        with self._lock:
            if wanted not in self._unlocked:
                pem = self._pem(wanted[0])
                files = (f'{self.path}-cert.pub', *certificates)
                self._unlocked[wanted] = _with_certificates(pem, files) if pem else []
            return self._unlocked[wanted]

    def _read(self) -> None:
        try:
            status = os.stat(self.path)  # noqa: PTH116
            self._data = Path(self.path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            self.exists = False
        except OSError as error:
            self.problem = f'cannot be read: {error.strerror}'
        else:
            if match := _HEADER.search(self._data):
                self._read_private(match[1] or b'', match[2])
                if status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077:
                    self.problem = self.problem or f'can be read by others (chmod 600 {self})'
            elif not self._read_public(self._data):
                self.problem = 'is no private key'
        if self.public is None:
            try:
                self._read_public(Path(f'{self.path}.pub').read_bytes())
            except OSError:
                return

    def _read_private(self, kind: bytes, body: bytes) -> None:
        if kind == b'DSA':
            self.problem = _DSA
        elif kind == b'OPENSSH':
            self._read_openssh(body)
        else:
            self.encrypted = kind == b'ENCRYPTED' or b'Proc-Type: 4,ENCRYPTED' in body

    def _read_openssh(self, body: bytes) -> None:
        """What stands before the encrypted part: cipher and public key."""
        try:
            data = base64.b64decode(body)
            if not data.startswith(_MAGIC):
                raise ValueError('magic')
            cipher, rest = _string(data[len(_MAGIC) :])
            _kdf, rest = _string(rest)
            _options, rest = _string(rest)
            blob, rest = _string(rest[4:])  # after the number of keys
            kind = _string(blob)[0].decode('ascii')
        except (ValueError, struct.error):  # binascii.Error and UnicodeDecodeError are ValueErrors
            self.problem = 'is damaged'
            return
        self.encrypted = cipher != b'none'
        self.public = PublicKey(kind, blob)
        if kind == 'ssh-dss':
            self.problem = _DSA
        elif kind.startswith('sk-'):
            self.problem = 'is a security key, which works through ssh-agent alone'

    def _read_public(self, data: bytes) -> bool:
        words = data.split(maxsplit=2)
        if len(words) < 2:
            return False
        try:
            self.public = PublicKey(words[0].decode('ascii'), base64.b64decode(words[1], validate=True))
        except (binascii.Error, UnicodeDecodeError):
            return False
        if self.public.type == 'ssh-dss':
            self.problem = _DSA
        return True

    @property
    def private(self) -> bool:
        """There is a private key in it (ssh_config may name a public one, to choose a key of the agent)."""
        return self.exists and _HEADER.search(self._data) is not None

    def _pem(self, password: str | None) -> str | None:
        """The key without encryption, in OpenSSH's format; None if it cannot be unlocked. You hold the lock."""
        if password not in self._pems:
            try:
                self._pems[password] = self._decrypted(password)
            except (ValueError, TypeError):  # the wrong password, or a damaged file
                self._pems[password] = None
                self.problem = self.problem if self.encrypted else 'is damaged'
            except UnsupportedAlgorithm:
                self._pems[password] = None
                self.problem = 'is of a kind that is not supported'
        return self._pems[password]

    def _decrypted(self, password: str | None) -> str:
        secret = password.encode() if password is not None else None
        key: object
        if b'OPENSSH PRIVATE KEY' in self._data:
            key = serialization.load_ssh_private_key(self._data, secret)
        else:
            key = serialization.load_pem_private_key(self._data, secret)
        if not isinstance(key, tuple(_CLASSES)):
            raise UnsupportedAlgorithm(type(key).__name__)
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        ).decode()


class KeyRing:
    """All key files of a run. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[str, KeyFile] = {}

    def file(self, path: str) -> KeyFile:
        """The key file at `path`, read when first asked for."""
        with self._lock:
            if path not in self._files:
                self._files[path] = KeyFile(path)
            return self._files[path]


def _string(data: bytes) -> tuple[bytes, bytes]:
    """The string at the start of `data` (RFC 4251, 5), and what follows."""
    (size,) = struct.unpack_from('>I', data)
    if 4 + size > len(data):
        raise ValueError('short')
    return data[4 : 4 + size], data[4 + size :]


def _with_certificates(pem: str, files: Iterable[str]) -> list[paramiko.PKey]:
    key = _paramiko_key(pem)
    found: list[paramiko.PKey] = []
    for file in dict.fromkeys(files):
        try:
            text = Path(file).read_text()
        except (OSError, UnicodeDecodeError):
            continue
        if certified_key(text) == PublicKey(key.get_name(), key.asbytes()):
            found.append(_paramiko_key(pem))
            found[-1].load_certificate(text)
    return [*found, key]


def _paramiko_key(pem: str) -> paramiko.PKey:
    key = serialization.load_ssh_private_key(pem.encode(), None)
    kind = next(ours for theirs, ours in _CLASSES.items() if isinstance(key, theirs))
    return kind.from_private_key(io.StringIO(pem))
