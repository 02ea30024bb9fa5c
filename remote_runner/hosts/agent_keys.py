"""The keys that a running ssh-agent holds. Protocol: draft-miller-ssh-agent (as in OpenSSH's PROTOCOL.agent).

All hosts share one connection to the agent; it signs for one after the other.
"""

from __future__ import annotations

import socket
import struct
import threading
from typing import Any

from remote_runner.hosts.paramiko_import import paramiko
from remote_runner.hosts.public_key import PublicKey

_LIST, _KEYS = 11, 12  # SSH_AGENTC_REQUEST_IDENTITIES, SSH_AGENT_IDENTITIES_ANSWER
_SIGN, _SIGNATURE = 13, 14  # SSH_AGENTC_SIGN_REQUEST, SSH_AGENT_SIGN_RESPONSE
_FLAGS = {'rsa-sha2-256': 2, 'rsa-sha2-512': 4}
_LIMIT = 60.0  # seconds for one answer: the agent may ask a person for confirmation or a touch


class AgentError(Exception):
    """The agent cannot be reached, or does not do what it is asked to do."""


class Agent:
    """One agent's socket. Safe to use from many threads."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._keys: tuple[AgentKey, ...] | None = None

    def keys(self) -> tuple[AgentKey, ...]:
        """Its keys, asked for once.

        Raises:
            AgentError
        """
        with self._lock:
            if self._keys is None:
                answer = self._ask(_KEYS, bytes([_LIST]))
                self._keys = tuple(
                    AgentKey(self, answer.get_binary(), answer.get_text()) for _ in range(answer.get_int())
                )
            return self._keys

    def sign(self, blob: bytes, data: bytes, algorithm: str | None) -> paramiko.Message:
        """The signature of `data` (RFC 4253, 6.6) by the key `blob`.

        Raises:
            AgentError
        """
        message = paramiko.Message()
        message.add_byte(bytes([_SIGN]))
        message.add_string(blob)
        message.add_string(data)
        message.add_int(_FLAGS.get((algorithm or '').removesuffix('-cert-v01@openssh.com'), 0))
        with self._lock:
            return paramiko.Message(self._ask(_SIGNATURE, message.asbytes()).get_binary())

    def close(self) -> None:
        """Close the connection to the agent."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, expected: int, request: bytes) -> paramiko.Message:
        """You hold the lock."""
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.settimeout(_LIMIT)
                self._socket.connect(self.path)
            self._socket.sendall(struct.pack('>I', len(request)) + request)
            answer = self._receive(struct.unpack('>I', self._receive(4))[0])
        except OSError as error:
            self._close()
            raise AgentError(f'cannot be reached: {error.strerror or error}') from error
        if answer[0] != expected:
            raise AgentError('refused')
        return paramiko.Message(answer[1:])

    def _receive(self, size: int) -> bytes:
        assert self._socket is not None  # noqa: S101 - for mypy
        data = b''
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise ConnectionResetError('it closed the connection')
            data += part
        return data


class AgentKey(paramiko.PKey):
    """A key, or a certificate, held by an agent."""

    public_blob = None

    def __init__(self, agent: Agent, blob: bytes, comment: str) -> None:
        self._agent = agent
        self._blob = blob
        self._type = paramiko.Message(blob).get_text()
        self.comment = comment

    def __str__(self) -> str:
        return f'{PublicKey(self._type, self._blob)} {self.comment}'.rstrip()

    def asbytes(self) -> bytes:
        return self._blob

    def get_name(self) -> str:
        return self._type

    def can_sign(self) -> bool:
        return True

    @property
    def _fields(self) -> tuple[Any, ...]:
        return (self._type, self._blob)

    def sign_ssh_data(self, data: bytes, algorithm: str | None = None) -> paramiko.Message:
        """Raises AgentError."""
        return self._agent.sign(self._blob, data, algorithm)
