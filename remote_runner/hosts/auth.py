"""Logging in: which keys and methods are tried, in which order, and what is said when none is accepted.

The order: ssh-agent, keys in files, the password (RR12). Keys that need no password come first, then those that a
given password unlocks; a person is asked only when nothing else worked. RFC 4252; RFC 4256 for keyboard-interactive.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from remote_runner.errors import AuthenticationFailed, ConnectionLost, HostUnreachable
from remote_runner.hosts.agent_keys import Agent, AgentError, AgentKey
from remote_runner.hosts.credentials import Credentials
from remote_runner.hosts.keys import KeyFile, KeyRing
from remote_runner.hosts.paramiko_import import paramiko
from remote_runner.hosts.public_key import PublicKey
from remote_runner.hosts.ssh_config import Target
from remote_runner.hosts.transport import Transport

_log = logging.getLogger(__name__)


class Wallet:
    """The keys, agents and password of a run, shared by all hosts. Safe to use from many threads."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self.keys = KeyRing()
        self._agents: dict[str, Agent] = {}
        self._lock = threading.Lock()

    def agent(self, path: str) -> Agent:
        """The agent that listens at `path`."""
        with self._lock:
            if path not in self._agents:
                self._agents[path] = Agent(path)
            return self._agents[path]

    def close(self) -> None:
        """Close the connections to agents."""
        with self._lock:
            for agent in self._agents.values():
                agent.close()


def authenticate(
    transport: Transport,
    target: Target,
    wallet: Wallet,
    where: str,
    before_asking: Callable[[], object] = lambda: None,
) -> None:
    """Log in as `target.user`.

    Args:
        where: the host as the user wrote it, for errors and the prompt.
        before_asking: is called before anybody is asked for a password.

    Raises:
        AuthenticationFailed: nothing was accepted; says what was tried.
        ConnectionLost: the connection broke.
        HostUnreachable: the server gives no answer any more.
    """
    _Login(transport, target, wallet, where, before_asking).run()


class _Login:
    """One attempt at logging in on one host."""

    def __init__(
        self, transport: Transport, target: Target, wallet: Wallet, where: str, before_asking: Callable[[], object]
    ) -> None:
        self._transport = transport
        self._target = target
        self._wallet = wallet
        self._where = where
        self._before_asking = before_asking
        self._files = [wallet.keys.file(path) for path in target.identity_files]
        self._offered: set[bytes] = set()  # public keys
        self._tried: list[str] = []
        self._left_out: list[str] = []

    def run(self) -> None:
        target, credentials = self._target, self._wallet.credentials
        if target.pubkey_authentication and (
            self._with_agent() or self._with_files(None) or self._with_files(credentials.password())
        ):
            return
        if not self._tried and self._attempt('none', None, partial(self._transport.auth_none, target.user)):
            return  # the server lets everybody in; else it told what it accepts
        password = credentials.password()
        if password is None and self._password_would_help():
            self._before_asking()
            password = credentials.ask(f'Password for {target.user}@{target.alias}: ')
            if password is not None and target.pubkey_authentication and self._with_files(password):
                return
        if password is None or not self._with_password(password):
            raise self._failure(password)

    def _with_agent(self) -> bool:
        return any(self._offer(key, f'{key} of ssh-agent') for key in self._agent_keys())

    def _agent_keys(self) -> Sequence[AgentKey]:
        """Those that ssh_config names first, since sshd counts the attempts; with IdentitiesOnly no others."""
        if self._target.identity_agent is None:
            return ()
        try:
            keys = self._wallet.agent(self._target.identity_agent).keys()
        except AgentError as error:
            self._left_out.append(f'ssh-agent {error}')
            return ()
        named = [file.public.blob for file in self._files if file.public is not None]
        first = [key for key in keys if key.asbytes() in named]
        return first if self._target.identities_only else [*first, *(key for key in keys if key not in first)]

    def _with_files(self, password: str | None) -> bool:
        """Try the files that need no password (None), or those that `password` unlocks."""
        for file in self._files:
            if not file.private or file.problem or file.encrypted != (password is not None):
                continue
            if file.encrypted and not self._is_new(file):
                continue
            for key in file.unlock(password, self._target.certificate_files):
                certified = ' with its certificate' if key.public_blob is not None else ''
                if self._offer(key, f'{PublicKey(key.get_name(), key.asbytes())} {file}{certified}'):
                    return True
        return False

    def _offer(self, key: paramiko.PKey, label: str) -> bool:
        blob = key.public_blob.key_blob if key.public_blob is not None else key.asbytes()
        if blob in self._offered:
            return False
        self._offered.add(blob)
        return self._attempt('publickey', label, partial(self._transport.auth_publickey, self._target.user, key))

    def _with_password(self, password: str) -> bool:
        user = self._target.user
        if self._allows('password') and self._target.password_authentication:
            return self._attempt(
                'password', 'the password', partial(self._transport.auth_password, user, password, fallback=False)
            )
        if self._allows('keyboard-interactive') and self._target.kbd_interactive_authentication:
            answer = partial(self._answer, password)
            return self._attempt(
                'keyboard-interactive',
                'the password (keyboard-interactive)',
                partial(self._transport.auth_interactive, user, answer),
            )
        return False

    def _answer(self, password: str, _title: str, _text: str, fields: Sequence[tuple[str, bool]]) -> list[str]:
        """Answer the one hidden question; other questions (one-time codes) get an empty answer, which fails."""
        if len(fields) == 1 and not fields[0][1]:
            return [password]
        self._left_out += [f'the server asks {prompt.strip()!r}' for prompt, _echo in fields]
        return [''] * len(fields)

    def _allows(self, method: str) -> bool:
        return self._transport.allowed is None or method in self._transport.allowed

    def _is_new(self, file: KeyFile) -> bool:
        """Unlocking it may give something that was not offered yet: the agent may have held the same key."""
        offered = file.public is not None and file.public.blob in self._offered
        return not offered or bool(self._target.certificate_files)

    def _password_would_help(self) -> bool:
        return (
            (self._allows('password') and self._target.password_authentication)
            or (self._allows('keyboard-interactive') and self._target.kbd_interactive_authentication)
            or (self._allows('publickey') and any(map(self._is_locked, self._files)))
        )

    def _is_locked(self, file: KeyFile) -> bool:
        return file.encrypted and not file.problem and self._is_new(file)

    def _attempt(self, method: str, label: str | None, call: Callable[[], list[str]]) -> bool:
        """Whether the user is logged in now."""
        if not self._allows(method):
            return False
        if label is not None:
            self._tried.append(label)
        started = time.monotonic()
        try:
            remaining = call()
        except AgentError as error:
            self._left_out.append(f'ssh-agent {error} to sign with {label}')
        except (paramiko.SSHException, EOFError, OSError) as error:
            _log.debug('%s: %s: %s', self._where, label, error)
            if not self._transport.is_active():
                raise self._broken() from error
            if time.monotonic() - started >= self._transport.auth_timeout:
                raise HostUnreachable(
                    f'no answer to {label or "the log-in"} within {self._transport.auth_timeout:g} s', host=self._where
                ) from error
        else:
            return not remaining  # else it was accepted, and the server wants a further method
        return False

    def _broken(self) -> AuthenticationFailed | ConnectionLost:
        if not self._tried:
            return ConnectionLost(self._transport.link.lost or 'the connection broke', host=self._where)
        said = f' ({self._transport.farewell})' if self._transport.farewell else ''
        return AuthenticationFailed(
            f'the server ended the connection after {len(self._tried)} attempts to log in{said}; '
            f'tried: {", ".join(self._tried)}',
            host=self._where,
            remedy='sshd allows few attempts: name the right key with IdentityFile and IdentitiesOnly in ssh_config',
        )

    def _failure(self, password: str | None) -> AuthenticationFailed:
        left_out = list(self._left_out)
        for file in self._files:
            if file.problem:
                left_out.append(f'{file} {file.problem}')
            elif file.encrypted and file.public is not None and file.public.blob in self._offered:
                continue
            elif file.encrypted and password is None:
                left_out.append(f'{file} is encrypted and no password was given')
            elif file.encrypted and not file.unlock(password):
                left_out.append(f'{file} is not unlocked by the password')
        tried = f'tried: {", ".join(self._tried)}' if self._tried else 'there was nothing to try'
        parts = [f'user {self._target.user} was not accepted; {tried}']
        if left_out:
            parts.append(f'not tried: {", ".join(left_out)}')
        if self._transport.allowed is not None:
            parts.append(f'the server accepts {", ".join(sorted(self._transport.allowed))}')
        return AuthenticationFailed(
            '; '.join(parts),
            host=self._where,
            remedy='see that the user is right, and give a key (ssh-agent, IdentityFile) or --pass',
        )
