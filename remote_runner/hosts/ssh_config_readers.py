"""Reading an ssh_config: by OpenSSH itself, or by paramiko where that is not installed.

Both give the values of each keyword as `ssh -G` shows them.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence

from remote_runner.errors import HostError
from remote_runner.hosts.ssh_config_lines import config_files, lines

Values = Mapping[str, Sequence[str]]  # keyword in lower case -> its values in order
_SSH_LIMIT = 30.0  # seconds for `ssh -G`; Match exec may run programs
_DEFAULT_IDENTITIES = tuple(f'~/.ssh/id_{kind}' for kind in ('rsa', 'ecdsa', 'ed25519', 'dsa'))


def login_name() -> str:
    """Who we are; the number for a user whom no passwd entry names (ssh itself refuses to work then)."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def values_of_openssh(
    ssh: str, name: str, user: str | None, port: int | None, config_file: str | None, where: str
) -> Values:
    """What `ssh -G` says of host `name` (the program `ssh`, and options -l, -p and -F if given).

    Raises:
        HostError: it refuses, for a reason that the error shows.
    """
    command = [ssh, '-G']
    if config_file is not None:
        command += ['-F', config_file]
    if user is not None:
        command += ['-l', user]
    if port is not None:
        command += ['-p', str(port)]
    try:
        result = subprocess.run(
            [*command, '--', name], stdin=subprocess.DEVNULL, capture_output=True, timeout=_SSH_LIMIT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise HostError(f'ssh -G gave no answer within {_SSH_LIMIT:.0f} s', host=where) from error
    if result.returncode != 0:
        raise HostError(
            'ssh cannot read its configuration',
            host=where,
            output=result.stderr.decode(errors='replace'),
            remedy=f'try: {" ".join(command)} -- {name}',
        )
    values: dict[str, list[str]] = {}
    for line in result.stdout.decode(errors='surrogateescape').splitlines():
        keyword, _, value = line.partition(' ')
        values.setdefault(keyword, []).append(value)
    return values


def values_of_paramiko(
    name: str, user: str | None, port: int | None, config_file: str | None, where: str
) -> Values:
    """What paramiko makes of the same files; Includes are taken in where they stand.

    Raises:
        HostError: a file cannot be read, or needs OpenSSH (`Match exec`).
    """
    from remote_runner.hosts.paramiko_import import paramiko

    text = list(lines(config_files(config_file), must_exist=config_file is not None))
    if any(re.match(r'\s*match\b.*\bexec\b', line, re.IGNORECASE) for line in text):
        remedy = 'install openssh-client'
        raise HostError('Match exec in ssh_config needs OpenSSH', host=where, remedy=remedy)
    try:
        found = paramiko.SSHConfig.from_text('\n'.join(text)).lookup(name)
        variables = shlex.split(found.get('setenv', ''))
    except (paramiko.ConfigParseError, ValueError) as error:
        raise HostError(f'ssh_config cannot be read: {error}', host=where) from error
    values = {keyword: [value] if isinstance(value, str) else list(value or ()) for keyword, value in found.items()}
    values.setdefault('identityfile', list(_DEFAULT_IDENTITIES))
    values['setenv'] = variables
    if user is not None:
        values['user'] = [user]
    if port is not None:
        values['port'] = [str(port)]
    return values
