"""What the user's ssh_config says about a host: from an `Address` to a `Target` that can be dialled.

Where OpenSSH is installed its own `ssh -G` is asked, so that Include, Match, canonical names and everything else mean
what they mean to `ssh`; else paramiko's reader of the file is used. See ssh_config(5).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from remote_runner.defaults import CONNECT_TIMEOUT
from remote_runner.errors import AddressError, HostError
from remote_runner.hosts.address import Address, parse_address
from remote_runner.hosts.credentials import Credentials
from remote_runner.hosts.patterns import matches
from remote_runner.hosts.ssh_config_files import ConfigFiles, Outline
from remote_runner.hosts.ssh_config_lines import home
from remote_runner.hosts.ssh_config_readers import Values, login_name, values_of_openssh, values_of_paramiko

MOST_HOPS = 16


class SshOptions:
    """What the command line says about all SSH connections of a run.

    Args:
        user: `-u`: the user where the address names none; None: what ssh_config says.
        config_file: `ssh -F`; None: ~/.ssh/config and /etc/ssh/ssh_config.
        connect_timeout: seconds for the TCP connection and for the server's banner, each; None: what ssh_config says,
            else 10.
        accept_new_host_keys: trust and store keys of hosts that are in no known_hosts file, as OpenSSH's accept-new.
        credentials: the password; None: the one that the environment names a file of, if any.
        compress: compress what goes to hosts and comes from them, as ssh -C; jump hosts do as ssh_config says.
    """

    def __init__(
        self,
        *,
        user: str | None = None,
        config_file: str | None = None,
        connect_timeout: float | None = None,
        accept_new_host_keys: bool = False,
        credentials: Credentials | None = None,
        compress: bool = False,
    ) -> None:
        self.user = user
        self.config_file = config_file
        self.connect_timeout = connect_timeout
        self.accept_new_host_keys = accept_new_host_keys
        self.credentials = credentials or Credentials()
        self.compress = compress


class Target(NamedTuple):
    """All that is needed to reach one host, resolved. Names are those of ssh_config(5).

    Args:
        alias: the name as the user wrote it.
        hostname: the name or IP address to connect to.
        user, port: never None any more.
        jump: the jump host just before this one, which may have one itself; None: connect directly.
        proxy_command: the command whose stdin and stdout lead to the host, expanded.
        proxy_template: the same before expansion; the same for all hosts behind one proxy.
        identity_agent: path of the agent's socket; None: no agent.
        strict_host_key_checking: `yes`, `ask`, `accept-new` or `no`.
        connect_timeout: seconds.
        address_family: `any`, `inet` or `inet6`.
        environment: variables that commands are started with, as far as the server accepts them (SendEnv, SetEnv).
        compression: compress what goes over the connection.
    """

    alias: str
    hostname: str
    user: str
    port: int = 22
    jump: Target | None = None
    proxy_command: str | None = None
    proxy_template: str | None = None
    identity_files: tuple[str, ...] = ()
    certificate_files: tuple[str, ...] = ()
    identities_only: bool = False
    identity_agent: str | None = None
    pubkey_authentication: bool = True
    password_authentication: bool = True
    kbd_interactive_authentication: bool = True
    user_known_hosts_files: tuple[str, ...] = ()
    global_known_hosts_files: tuple[str, ...] = ()
    strict_host_key_checking: str = 'ask'
    hash_known_hosts: bool = False
    host_key_alias: str | None = None
    connect_timeout: float = CONNECT_TIMEOUT
    address_family: str = 'any'
    environment: tuple[tuple[str, str], ...] = ()
    compression: bool = False

    @property
    def known_as(self) -> str:
        """What the host is called in known_hosts: `name`, or `[name]:port` where the port is not 22 (sshd(8))."""
        if self.host_key_alias:
            return self.host_key_alias
        return self.hostname if self.port == 22 else f'[{self.hostname}]:{self.port}'

    @property
    def hops(self) -> tuple[Target, ...]:
        """The jump hosts on the way, the one nearest to us first."""
        return (*self.jump.hops, self.jump) if self.jump else ()


class Resolver:
    """Resolves addresses; one for many hosts, safe to use from many threads."""

    def __init__(self, options: SshOptions) -> None:
        self._options = options
        self._ssh = shutil.which('ssh')
        self._lock = threading.Lock()
        self._targets: dict[object, Target] = {}
        self._groups: dict[object, _Group] = {}
        standard = self._ssh in ('/usr/bin/ssh', '/bin/ssh')  # another one may read other files
        self._files = ConfigFiles.read(options.config_file, home()) if standard else None

    def resolve(self, address: Address) -> Target:
        """The target of `address`; `user@` beats `-u`, which beats ssh_config.

        Raises:
            HostError: ssh_config is wrong, or its jump hosts go in circles.
        """
        user = address.user if address.user is not None else self._options.user
        return self._resolve(address.name, user, address.port, (), address.where)

    def _resolve(
        self,
        name: str,
        user: str | None,
        port: int | None,
        seen: tuple[str, ...],
        where: str,
        jump: Target | None = None,
    ) -> Target:
        """`seen`: the hosts reached through this one, by name. `jump`: reach it that way, whatever it says."""
        if name in seen or len(seen) > MOST_HOPS:
            raise HostError(f'the jump hosts of ssh_config go in circles: {" from ".join((*seen, name))}', host=where)
        key = (name, user, port, seen, jump)
        with self._lock:
            known = self._targets.get(key)
        if known is None:
            values = self._values(name, user, port, where)
            known = self._target(name, values, seen, where, jump)
            with self._lock:
                self._targets[key] = known
        return known

    def _values(self, name: str, user: str | None, port: int | None, where: str) -> Values:
        if self._ssh is None:
            return values_of_paramiko(name, user, port, self._options.config_file, where)
        ask = partial(values_of_openssh, self._ssh, name, user, port, self._options.config_file, where)
        if self._files is None:
            return ask()
        outline = self._files.outline(name)
        with self._lock:
            group = self._groups.setdefault((outline.rest, user, port), _Group())
        return group.values(name, outline, user, port, ask)

    def _target(self, name: str, values: Values, seen: tuple[str, ...], where: str, jump: Target | None) -> Target:
        hostname = _first(values, 'hostname', name)
        user = _first(values, 'user', login_name())
        port = int(_first(values, 'port', '22'))
        alias = _optional(values, 'hostkeyalias')
        tokens = _Tokens(name, hostname, user, port, alias, _first(values, 'proxyjump', ''))
        command = _optional(values, 'proxycommand')
        jumps = _optional(values, 'proxyjump')
        if jump is None and jumps:
            jump = self._jump(tokens.expand(jumps), (*seen, name), where)
        if jump is not None:
            command = None
        if command and _first(values, 'proxyusefdpass', 'no') == 'yes':
            raise HostError('ProxyUseFdpass in ssh_config is not supported', host=where)
        user_files = _paths(values, 'userknownhostsfile', _USER_KNOWN_HOSTS)
        global_files = _paths(values, 'globalknownhostsfile', _GLOBAL_KNOWN_HOSTS)
        given = self._options.connect_timeout
        timeout = _optional(values, 'connecttimeout')
        return Target(
            alias=name,
            hostname=hostname,
            user=user,
            port=port,
            jump=jump,
            proxy_command=tokens.expand(command) if command else None,
            proxy_template=command,
            identity_files=tuple(tokens.path(file) for file in values.get('identityfile', ()) if file != 'none'),
            certificate_files=tuple(tokens.path(file) for file in values.get('certificatefile', ()) if file != 'none'),
            identities_only=_first(values, 'identitiesonly', 'no') == 'yes',
            identity_agent=_agent(_first(values, 'identityagent', 'SSH_AUTH_SOCK'), tokens),
            pubkey_authentication=_may_use(values, 'publickey', 'pubkeyauthentication'),
            password_authentication=_may_use(values, 'password', 'passwordauthentication'),
            kbd_interactive_authentication=_may_use(values, 'keyboard-interactive', 'kbdinteractiveauthentication'),
            user_known_hosts_files=tuple(map(tokens.path, user_files)),
            global_known_hosts_files=tuple(map(tokens.path, global_files)),
            strict_host_key_checking=_STRICT.get(_first(values, 'stricthostkeychecking', 'ask').lower(), 'yes'),
            hash_known_hosts=_first(values, 'hashknownhosts', 'no') == 'yes',
            host_key_alias=alias,
            connect_timeout=given if given is not None else float(timeout) if timeout else CONNECT_TIMEOUT,
            address_family=_first(values, 'addressfamily', 'any').lower(),
            environment=_environment(values),
            compression=_first(values, 'compression', 'no') == 'yes' or (self._options.compress and not seen),
        )

    def _jump(self, jumps: str, seen: tuple[str, ...], where: str) -> Target | None:
        """Resolve `[user@]host[:port],...`: the first is nearest to us, and is reached the way its own entry says."""
        hop: Target | None = None
        for item in jumps.split(','):
            try:
                address = parse_address(item.strip().removeprefix('ssh://').removesuffix('/'))
            except AddressError as error:
                raise HostError(f'ProxyJump {jumps} in ssh_config: {error.what}', host=where) from error
            hop = self._resolve(address.name, address.user, address.port, seen, where, hop)
        return hop


class _Group:
    """Hosts to which the same lines of ssh_config apply, but for HostName, Port and User.

    OpenSSH is asked about the first two of them, at the same time. If its answers are what `Outline` foretells, and are
    equal in all else, the others are not asked about.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asked = 0
        self._samples: list[Values] = []
        self._alike = True

    def values(
        self, name: str, outline: Outline, user: str | None, port: int | None, ask: Callable[[], Values]
    ) -> Values:
        """The values for one host of the group, if need be by `ask`."""
        own = {
            'hostname': [(outline.hostname or '%h').replace('%h', name).lower()],
            'port': [str(port or outline.port or 22)],
            'user': [user or outline.user or login_name()],
        }
        with self._changed:
            self._asked += 1
            is_sample = self._asked <= 2
            if not is_sample:
                self._changed.wait_for(lambda: not self._alike or len(self._samples) == 2)
                if self._alike:
                    return {**self._samples[0], **own}
        if not is_sample:
            return ask()
        values: Values = {}
        try:
            values = ask()
            return values
        finally:
            with self._changed:
                self._samples.append(values)
                first = self._samples[0]
                self._alike &= all(values.get(keyword) == value for keyword, value in own.items()) and all(
                    values.get(keyword) == first.get(keyword) for keyword in _USED
                )
                self._changed.notify_all()


#: Keywords that a Target is made of, but for those that a group of hosts may differ in.
_USED = (
    'addressfamily',
    'certificatefile',
    'connecttimeout',
    'globalknownhostsfile',
    'hashknownhosts',
    'hostkeyalias',
    'identitiesonly',
    'identityagent',
    'identityfile',
    'kbdinteractiveauthentication',
    'passwordauthentication',
    'proxycommand',
    'proxyjump',
    'preferredauthentications',
    'proxyusefdpass',
    'pubkeyauthentication',
    'sendenv',
    'setenv',
    'stricthostkeychecking',
    'userknownhostsfile',
)
_USER_KNOWN_HOSTS = ('~/.ssh/known_hosts', '~/.ssh/known_hosts2')
_GLOBAL_KNOWN_HOSTS = ('/etc/ssh/ssh_known_hosts', '/etc/ssh/ssh_known_hosts2')
_STRICT = {'ask': 'ask', 'accept-new': 'accept-new', 'no': 'no', 'off': 'no', 'false': 'no'}  # all else is 'yes'
_TOKEN = re.compile(r'%(.)|\$\{(\w+)\}')


def _first(values: Values, keyword: str, default: str) -> str:
    found = values.get(keyword)
    return found[0] if found else default


def _optional(values: Values, keyword: str) -> str | None:
    found = _first(values, keyword, 'none')
    return None if found.lower() == 'none' else found


def _may_use(values: Values, method: str, keyword: str) -> bool:
    preferred = _optional(values, 'preferredauthentications')
    wanted = preferred is None or method in preferred.split(',')
    return wanted and _first(values, keyword, 'yes') not in ('no', 'false')


def _environment(values: Values) -> tuple[tuple[str, str], ...]:
    """What of our environment SendEnv names, then what SetEnv sets."""
    patterns = [pattern for line in values.get('sendenv', ()) for pattern in line.split()]
    sent = {name: value for name, value in os.environ.items() if any(matches(name, [item]) for item in patterns)}
    setting = (item.partition('=') for item in values.get('setenv', ()))
    return tuple({**sent, **{name: value for name, _, value in setting}}.items())


def _paths(values: Values, keyword: str, default: Sequence[str]) -> Sequence[str]:
    """Paths of one line. `ssh -G` puts spaces between and quotes none: a word that starts no path continues one."""
    found = values.get(keyword)
    if not found:
        return default
    paths: list[str] = []
    for word in found[0].split():
        if paths and not word.startswith(('/', '~', '%', '${')):
            paths[-1] += f' {word}'
        elif word != 'none':
            paths.append(word)
    return paths


def _agent(setting: str, tokens: _Tokens) -> str | None:
    """IdentityAgent as a path. `$NAME` and SSH_AUTH_SOCK name variables of the environment."""
    if setting == 'none':
        return None
    if setting == 'SSH_AUTH_SOCK':
        return os.environ.get('SSH_AUTH_SOCK') or None
    if setting.startswith('$') and not setting.startswith('${'):
        return os.environ.get(setting[1:]) or None
    return tokens.path(setting)


class _Tokens:
    """Expands the TOKENS of ssh_config(5) for one host, `${NAME}` and a leading `~`."""

    def __init__(self, name: str, hostname: str, user: str, port: int, alias: str | None, jumps: str) -> None:
        machine = socket.gethostname()
        self._values = {
            '%': '%',
            'd': home(),
            'h': hostname,
            'i': str(os.getuid()),
            'j': jumps,
            'k': alias or hostname,
            'L': machine.partition('.')[0],
            'l': machine,
            'n': name,
            'p': str(port),
            'r': user,
            'u': login_name(),
        }
        what = ''.join(self._values[letter] for letter in 'lhprj')
        self._values['C'] = hashlib.sha1(what.encode(), usedforsecurity=False).hexdigest()

    def expand(self, text: str) -> str:
        """Unknown tokens and variables that are not set stay as they are."""
        return _TOKEN.sub(self._replace, text)

    def path(self, text: str) -> str:
        first, slash, rest = text.partition('/')
        if first == '~':
            text = home() + slash + rest
        elif first.startswith('~'):
            text = os.path.expanduser(first) + slash + rest  # noqa: PTH111 - ~user
        return self.expand(text)

    def _replace(self, match: re.Match[str]) -> str:
        if match[1]:
            return self._values.get(match[1], match[0])
        return os.environ.get(match[2], match[0])
