"""Whom to believe: host keys in the known_hosts files, as sshd(8) describes them under SSH_KNOWN_HOSTS FILE FORMAT.

The files are read once for all hosts. They are only ever appended to.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hmac
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from remote_runner.errors import HostError
from remote_runner.hosts.certificates import why_not_believed
from remote_runner.hosts.patterns import matches
from remote_runner.hosts.public_key import PublicKey
from remote_runner.hosts.ssh_config import Target

#: Types of keys that are understood here, which are those of paramiko. Others in a file are passed over.
KEY_TYPES = ('ssh-ed25519', 'ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp384', 'ecdsa-sha2-nistp521', 'ssh-rsa')
_HASHED = '|1|'
_log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """One line of a known_hosts file."""

    file: str
    line: int
    marker: str  # '', '@revoked' or '@cert-authority'
    names: tuple[str, ...]
    key: PublicKey


class Verdict(Enum):
    """What the known_hosts files say about a key that a host shows."""

    KNOWN = 'known'
    NEW = 'new'
    CHANGED = 'changed'
    REVOKED = 'revoked'


class KnownHosts:
    """All known_hosts files of a run. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[str, _File] = {}
        self._added: dict[str, list[Entry]] = {}  # trusted in this run, where there is no file to write to

    def entries(self, target: Target) -> list[Entry]:
        """The lines that concern this host, those of the user's own files first.

        Raises:
            HostError: a file is there, but cannot be read.
        """
        with self._lock:
            return [*self._added.get(target.known_as, ()), *self._matching(target, target.known_as)]

    def known_types(self, target: Target) -> tuple[str, ...]:
        """The types of keys known of this host: it is asked for these first."""
        return tuple(dict.fromkeys(entry.key.type for entry in self.entries(target) if not entry.marker))

    def authorities(self, target: Target) -> tuple[Entry, ...]:
        """The lines of certificate authorities that may vouch for this host, but for revoked ones."""
        with self._lock:
            entries = [entry for name in _names(target) for entry in self._matching(target, name)]
        revoked = {entry.key for entry in entries if entry.marker == '@revoked'}
        return tuple(entry for entry in entries if entry.marker == '@cert-authority' and entry.key not in revoked)

    def judge(self, target: Target, key: PublicKey) -> tuple[Verdict, Entry | None]:
        """What the files say about `key`, and the line that says so (with CHANGED: one with another key).

        A key of another type than the known ones counts as changed, since the host is asked for the known types first.
        """
        entries = self.entries(target)
        for entry in entries:
            if entry.marker == '@revoked' and entry.key == key:
                return Verdict.REVOKED, entry
        plain = [entry for entry in entries if not entry.marker]
        for entry in plain:
            if entry.key == key:
                return Verdict.KNOWN, entry
        if (signed := self._signed(target, key)) is not None:
            return Verdict.KNOWN, signed
        if plain:
            return Verdict.CHANGED, next((entry for entry in plain if entry.key.type == key.type), plain[0])
        for name in _names(target)[1:]:
            with self._lock:
                for entry in self._matching(target, name):
                    if not entry.marker and entry.key == key:
                        return Verdict.KNOWN, entry
        return Verdict.NEW, None

    def _signed(self, target: Target, key: PublicKey) -> Entry | None:
        """The line of the authority whose certificate of `key` is to be believed. Without one the key itself counts."""
        if key.certificate is None:
            return None
        name = target.host_key_alias or target.hostname
        for entry in self.authorities(target):
            why = why_not_believed(key.certificate, name, entry.key)
            if why is None:
                return entry
            _log.debug('%s: the certificate of the host key is not believed: %s', target.alias, why)
        return None

    def add(self, target: Target, key: PublicKey) -> str | None:
        """Trust `key` from now on: append it to the first of the user's files.

        Returns:
            The file, or None if ssh_config names none: then the key is trusted in this run alone.

        Raises:
            HostError: the file cannot be written, or another run has stored another key of this host meanwhile.
        """
        with self._lock:
            if not target.user_known_hosts_files:
                self._added.setdefault(target.known_as, []).append(Entry('', 0, '', (target.known_as,), key))
                return None
            name = target.user_known_hosts_files[0]
            try:
                _append(name, target, key)
            except OSError as error:
                raise HostError(
                    f'the host key cannot be stored in {name}: {error.strerror}', host=target.alias
                ) from error
            self._files.pop(name, None)
            self._added.setdefault(target.known_as, []).append(Entry(name, 0, '', (target.known_as,), key))
            return name

    def _matching(self, target: Target, name: str) -> Iterator[Entry]:
        """You hold the lock."""
        for file in (*target.user_known_hosts_files, *target.global_known_hosts_files):
            yield from self._file(file).matching(name)

    def _file(self, name: str) -> _File:
        """You hold the lock."""
        if name not in self._files:
            self._files[name] = _File(name)
        return self._files[name]


class _File:
    """One known_hosts file, indexed: plain names by name; hashed ones and patterns are looked through."""

    def __init__(self, name: str) -> None:
        self._plain: dict[str, list[Entry]] = {}
        self._hashed: list[tuple[bytes, bytes, Entry]] = []
        self._patterns: list[Entry] = []
        self._found: dict[str, list[Entry]] = {}
        try:
            text = Path(name).read_text(encoding='utf-8', errors='replace')
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise HostError(f'the known_hosts file {name} cannot be read: {error.strerror}') from error
        for entry in parse(text, name):
            self._index(entry)

    def _index(self, entry: Entry) -> None:
        first = entry.names[0]
        if first.startswith(_HASHED):
            salt, _, digest = first.removeprefix(_HASHED).partition('|')
            try:
                self._hashed.append((base64.b64decode(salt), base64.b64decode(digest), entry))
            except binascii.Error:
                return
        elif any(letter in name for name in entry.names for letter in '*?!'):
            self._patterns.append(entry)
        else:
            for name in entry.names:
                self._plain.setdefault(name.lower(), []).append(entry)

    def matching(self, name: str) -> list[Entry]:
        """The entries of this name. Looking through hashed names is slow, and each is asked for several times."""
        if name not in self._found:
            self._found[name] = list(self._look_for(name.lower()))
        return self._found[name]

    def _look_for(self, name: str) -> Iterator[Entry]:
        yield from self._plain.get(name, ())
        for salt, digest, entry in self._hashed:
            if hmac.digest(salt, name.encode(), 'sha1') == digest:
                yield entry
        for entry in self._patterns:
            if matches(name, [pattern.lower() for pattern in entry.names]):
                yield entry


def _names(target: Target) -> tuple[str, ...]:
    """What to look for: as OpenSSH does, what is known of a host on port 22 is good on its other ports too."""
    if target.port == 22 or target.host_key_alias:
        return (target.known_as,)
    return (target.known_as, target.hostname)


def parse(text: str, file: str = '') -> Iterator[Entry]:
    """The lines of a known_hosts file. Lines that make no sense and types of keys unknown here are passed over."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith('@') else ''
        if len(words) < 3 or words[0].startswith('#') or marker not in ('', '@revoked', '@cert-authority'):
            continue
        names, kind, encoded = words[:3]
        if kind not in KEY_TYPES:
            continue
        try:
            key = PublicKey(kind, base64.b64decode(encoded, validate=True))
        except binascii.Error:
            continue
        yield Entry(file, number, marker, tuple(names.split(',')), key)


def _append(name: str, target: Target, key: PublicKey) -> None:
    """Append one line, in one write, under a lock that other runs of ours respect."""
    path = Path(name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        others = [entry for entry in _File(name).matching(target.known_as) if not entry.marker]
        if any(entry.key == key for entry in others):
            return
        if others:
            raise HostError(f'another run has just stored another host key in {name}', host=target.alias)
        size = os.fstat(descriptor).st_size
        complete = size == 0 or os.pread(descriptor, 1, size - 1) == b'\n'
        line = f'{_stored_name(target)} {key.type} {base64.b64encode(key.blob).decode()}\n'
        os.write(descriptor, (line if complete else f'\n{line}').encode())
    finally:
        os.close(descriptor)


def _stored_name(target: Target) -> str:
    name = target.known_as.lower()
    if not target.hash_known_hosts:
        return name
    salt = secrets.token_bytes(20)
    digest = hmac.digest(salt, name.encode(), 'sha1')
    return _HASHED + '|'.join(base64.b64encode(part).decode() for part in (salt, digest))
