"""From a link to a transport whose keys are exchanged, or the reason why there is none (RFC 4253, 4.2 and 7)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from remote_runner.errors import ConnectionLost, HostUnreachable
from remote_runner.hosts.certificates import SUFFIX
from remote_runner.hosts.known_hosts import KEY_TYPES
from remote_runner.hosts.paramiko_import import IncompatiblePeer, paramiko
from remote_runner.hosts.public_key import PublicKey
from remote_runner.hosts.ssh_config import Target
from remote_runner.hosts.transport import Link, Transport

KEX_LIMIT = 15.0  # seconds for the key exchange, after the banner
_REFUSALS = (b'Exceeded MaxStartups', b'Not allowed at this time')  # what newer sshd say before they hang up


def host_key(transport: Transport, where: str) -> PublicKey:
    """The key that the server showed, and proved to hold, in the key exchange.

    Raises:
        ConnectionLost: the connection broke.
    """
    try:
        key = transport.get_remote_server_key()
    except paramiko.SSHException as error:
        raise ConnectionLost(transport.link.lost or 'the connection broke', host=where) from error
    certificate = key.public_blob.key_blob if key.public_blob is not None else None
    return PublicKey(key.get_name(), key.asbytes(), certificate)


def signature_algorithms(known: Iterable[str], certificates: bool) -> tuple[str, ...]:
    """The algorithms that a host may prove its key with, best first.

    Args:
        known: the types of keys known of the host.
        certificates: there is an authority that may vouch for it.
    """
    plain = [
        name
        for kind in dict.fromkeys((*known, *KEY_TYPES))
        for name in (('rsa-sha2-512', 'rsa-sha2-256') if kind == 'ssh-rsa' else (kind,))  # RFC 8332
    ]
    return (*(name + SUFFIX for name in plain if certificates), *plain)


def exchange_keys(link: Link, algorithms: tuple[str, ...], deadline: float, *, compress: bool = False) -> Transport:
    """Start a transport and wait until it has exchanged keys, or failed to. The banner must come before `deadline`."""
    transport = Transport(link, algorithms, compress=compress)
    transport.banner_timeout = max(0.1, deadline - time.monotonic())
    transport.handshake_timeout = KEX_LIMIT
    done = threading.Event()
    transport.start_client(event=done)
    done.wait(transport.banner_timeout + KEX_LIMIT + 2.0)
    return transport


def hung_up(link: Link) -> bool:
    """The server hung up before it said that it speaks SSH: too many at once (MaxStartups), try again."""
    return link.ended and (not link.head or link.head.startswith(_REFUSALS))


def why_no_ssh(transport: Transport, target: Target, where: str, said: str) -> HostUnreachable:
    """Why there is no SSH connection, from what came before it broke."""
    link = transport.link
    place = f'port {target.port}'
    if target.proxy_command is not None and link.ended and not link.head:
        return HostUnreachable('the ProxyCommand of ssh_config failed', host=where, output=said or None)
    if not link.head and link.ended:
        return HostUnreachable(
            f'{place}: {link.lost} before an SSH banner came',
            host=where,
            remedy='is sshd overloaded (MaxStartups), or does it refuse this machine?',
        )
    if not link.head:
        return HostUnreachable(
            f'{place} accepts the connection, but no SSH banner came within {target.connect_timeout:g} s',
            host=where,
            remedy='is it sshd that listens there, and is it alive?',
        )
    if not any(line.startswith(b'SSH-') for line in link.head.splitlines()):
        first = link.head.splitlines()[0][:80].decode(errors='replace')
        return HostUnreachable(f'what answers on {place} does not speak SSH: {first!r}', host=where)
    error = transport.get_exception()
    if isinstance(error, IncompatiblePeer):
        return HostUnreachable(f'the server shares no algorithm with us: {error}', host=where)
    reason = transport.farewell or link.lost or str(error or 'no answer in time')
    return HostUnreachable(f'the key exchange failed: {reason}', host=where)
