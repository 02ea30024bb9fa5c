"""Values of users' attributes: each reader makes of what was written what a plan holds, or says what is wrong."""

from __future__ import annotations

import math
import os
import re
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, MutableSequence
from numbers import Number
from typing import TYPE_CHECKING, Any

from remote_runner.config.paths import TreePath
from remote_runner.config.ready import Ready

if TYPE_CHECKING:
    from remote_runner.config.least_loaded import LeastLoaded

#: When a component is started again.
RESTARTS = ('no', 'on-failure', 'always')
#: What counts as a time span, 31 years; with longer ones clocks and threads cannot deal.
MOST_SECONDS = 1e9
#: Bytes of a path, and of one name in it: NAME_MAX, and PATH_MAX without its NUL, of Linux (limits.h).
MOST_PATH = 4095
MOST_NAME = 255
#: Bytes of output that are kept at least, where they are limited.
LEAST_LOG = 10_000


class BadValueError(ValueError):
    """A value that makes no sense; `reasons` are phrases that follow the attribute's name."""

    def __init__(self, *reasons: str) -> None:
        super().__init__('; '.join(reasons))
        self.reasons = reasons


def shown(value: object) -> str:
    """A value for a message: its repr, cut; of objects that are no plain values, their type."""
    if value is not None and not isinstance(value, (str, bytes, int, float, list, tuple, dict)):
        return f'an object of type {type(value).__name__}'
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


def encodable(text: str) -> str:
    """`text`, if it can be a path or an argument of a program: no NUL byte, nothing that UTF-8 cannot carry.

    Bytes that are no UTF-8 stand in text as Python's `surrogateescape` puts them there.
    """
    if '\0' in text:
        raise BadValueError(f'{shown(text)} holds a NUL byte, which no path or argument can')
    try:
        text.encode('utf-8', 'surrogateescape')
    except UnicodeEncodeError as error:
        raise BadValueError(f'{shown(text)} holds {text[error.start]!a}, which is no character') from None
    return text


def plain(text: str) -> str:
    """A subclass of str (an Enum's member, say) as the very text that it holds."""
    return str.__str__(text)


def read_name(value: object) -> str:
    """A name: text of one line that can be shown."""
    if not isinstance(value, str):
        raise BadValueError(f'must be text, is {shown(value)}')
    text = plain(value)
    if not text.strip():
        raise BadValueError(f'is empty: {shown(text)}' if text else 'is empty')
    for character in text:
        if unicodedata.category(character) in ('Cc', 'Cs', 'Zl', 'Zp'):
            raise BadValueError(f'{shown(text)} holds the control character {character!a}')
    return text


def read_host(value: object) -> str:
    """A host as text, without the spaces that cutting a list at commas leaves."""
    return read_name(value).strip()


def read_place(value: object) -> str | LeastLoaded:
    """A host as text, or what it is decided by when the run is carried out."""
    from remote_runner.config.least_loaded import LeastLoaded

    if isinstance(value, LeastLoaded):
        return value
    return read_host(value)


def read_path(value: object) -> str:
    """A path: text, bytes or a path object, not empty."""
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise BadValueError(f'must be a path, is {shown(value)}')
    path = os.fspath(value)
    text = path.decode('utf-8', 'surrogateescape') if isinstance(path, bytes) else plain(path)
    if not text:
        raise BadValueError('is empty')
    return encodable(text)


def read_remote_path(value: object) -> str:
    """A path that a host can have."""
    path = read_path(value)
    check_length(path)
    return path


def check_length(path: str) -> None:
    """Raises:
    BadValueError: no host can have a path as long as that, or a name in it is too long.
    """
    if len(path) * 4 <= MOST_NAME:  # UTF-8 has at most 4 bytes for a character
        return
    data = path.encode('utf-8', 'surrogateescape')
    if len(data) > MOST_PATH:
        raise BadValueError(f'is {len(data)} bytes long, hosts allow {MOST_PATH}: {shown(path)}')
    name = max(data.split(b'/'), key=len)
    if len(name) > MOST_NAME:
        text = name.decode('utf-8', 'surrogateescape')
        raise BadValueError(f'has a name of {len(name)} bytes, hosts allow {MOST_NAME}: {shown(text)}')


def read_base_dir(value: object) -> str | None:
    """A path, or None for a fresh temporary directory."""
    if value is None:
        return None
    if value == '':
        raise BadValueError("is empty; write None for a fresh temporary directory, '~' for the home directory")
    return read_remote_path(value)


def argument(value: object) -> str:
    """One argument as text. Numbers and paths become text; bytes may be any but NUL."""
    if isinstance(value, str):
        return encodable(plain(value))
    if isinstance(value, bytes):
        return encodable(value.decode('utf-8', 'surrogateescape'))
    if isinstance(value, os.PathLike):
        return argument(os.fspath(value))
    if isinstance(value, Number):
        return str(value)
    if value is None:
        raise BadValueError('is None')
    raise BadValueError(f'is {shown(value)}; write it as text: str(...)')


def read_args(value: object) -> tuple[str, ...]:
    """The arguments of a program, each as text."""
    if isinstance(value, (str, bytes)):
        raise BadValueError(f'must be a list, is the text {shown(value)}; write [{shown(value)}], or split it')
    if not isinstance(value, Iterable):
        raise BadValueError(f'must be a list, is {shown(value)}')
    arguments: list[str] = []
    reasons: list[str] = []
    for position, item in enumerate(value):
        try:
            arguments.append(argument(item))
        except BadValueError as bad:
            reasons += [f'[{position}] {reason}' for reason in bad.reasons]
    if reasons:
        raise BadValueError(*reasons)
    return tuple(arguments)


def keep_args(value: object) -> object:
    """Whatever can be gone through is kept as a list, so that a muddler's `c.args.append` works on it."""
    if isinstance(value, (str, bytes, MutableSequence)) or not isinstance(value, Iterable):
        return value
    return list(value)


def read_files(value: object) -> tuple[tuple[str, str], ...]:
    """Pairs of local and remote path, both still as the user wrote them; a remote path of a tree knows that still."""
    if not isinstance(value, Mapping):
        raise BadValueError(f'must be a dict of local path to remote path, is {shown(value)}')
    pairs: list[tuple[str, str]] = []
    reasons: list[str] = []
    for local, remote in value.items():
        try:
            path, target = read_path(local), read_remote_path(remote)
            pairs.append((path, remote if isinstance(remote, TreePath) else target))
        except BadValueError as bad:
            reasons += [f'[{shown(local)}]: a path {reason}' for reason in bad.reasons]
    if reasons:
        raise BadValueError(*reasons)
    return tuple(pairs)


def read_fetch(value: object) -> tuple[tuple[str, str], ...]:
    """Pairs of remote path and local folder; None is the folder of the component itself."""
    if not isinstance(value, Mapping):
        raise BadValueError(f'must be a dict of remote path to local folder, is {shown(value)}')
    pairs: list[tuple[str, str]] = []
    reasons: list[str] = []
    for remote, folder in value.items():
        try:
            pairs.append((read_path(remote), '.' if folder is None else _read_results(folder)))
        except BadValueError as bad:
            reasons += [f'[{shown(remote)}]: a path {reason}' for reason in bad.reasons]
    if reasons:
        raise BadValueError(*reasons)
    return tuple(pairs)


def _read_results(value: object) -> str:
    """A local folder: absolute, with `~`, or below the results of the component."""
    path = read_path(value)
    if not path.startswith(('/', '~')) and '..' in path.split('/'):
        raise BadValueError(f'leads out of the results: {shown(path)}; an absolute one may lie anywhere')
    return path


def read_flag(value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise BadValueError(f'must be True or False, is {shown(value)}')
    return value


def read_index(value: object) -> int:
    """A whole number; negative ones come first."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadValueError(f'must be a whole number, is {shown(value)}')
    return int(value)


def read_seconds(value: object) -> float:
    """A time span in seconds, zero or more."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadValueError(f'must be a number of seconds, is {shown(value)}')
    if not 0 <= value < math.inf:
        raise BadValueError(f'must be a number of seconds from 0, is {shown(value)}')
    if value > MOST_SECONDS:
        raise BadValueError(f'must be at most {MOST_SECONDS:,.0f} seconds, is {shown(value)}')
    return float(value)


def read_time_limit(value: object) -> float | None:
    """A time limit in seconds, more than zero; None for the command's own."""
    if value is None:
        return None
    seconds = read_seconds(value)
    if seconds == 0:
        raise BadValueError('must be more than 0 seconds')
    return seconds


def read_ready(value: object) -> dict[str, Any] | None:
    """How to tell that a component is ready; None: it is when it has started."""
    if value is None:
        return None
    if not isinstance(value, Ready):
        raise BadValueError(f'must be one of ready.tcp, ready.http, ready.log and so on, is {shown(value)}')
    try:
        return {'kind': value.kind, **_READY[value.kind](value.values)}
    except BadValueError as bad:
        raise BadValueError(*[f'= ready.{value.kind}(...): {reason}' for reason in bad.reasons]) from None


def _read_ready_tcp(values: Mapping[str, Any]) -> dict[str, Any]:
    port = values['port']
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise BadValueError(f'the port must be a number from 1 to 65535, is {shown(port)}')
    return {'port': int(port), 'host': read_name(values['host'])}


def _read_ready_http(values: Mapping[str, Any]) -> dict[str, Any]:
    url, status = read_name(values['url']), values['status']
    if not re.match(r'https?://[^/\s]+', url):
        raise BadValueError(f'the URL must begin with http://HOST or https://HOST, is {shown(url)}')
    if isinstance(status, bool) or not isinstance(status, int) or not 100 <= status < 600:
        raise BadValueError(f'the status must be a number from 100 to 599, is {shown(status)}')
    return {'url': url, 'status': int(status)}


def _read_ready_log(values: Mapping[str, Any]) -> dict[str, Any]:
    regex = values['regex']
    if not isinstance(regex, str):
        raise BadValueError(f'the regular expression must be text, is {shown(regex)}')
    try:
        re.compile(regex)
    except re.error as error:
        raise BadValueError(f'{shown(regex)} is no regular expression: {error}') from None
    return {'regex': encodable(plain(regex))}


def _read_ready_command(values: Mapping[str, Any]) -> dict[str, Any]:
    argv = read_args(values['argv'])
    if not argv or not argv[0]:
        raise BadValueError('there is no command')
    interval = read_seconds(values['interval'])
    return {'argv': list(argv), 'interval': interval}


_READY: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    'notify': dict,
    'tcp': _read_ready_tcp,
    'http': _read_ready_http,
    'log': _read_ready_log,
    'command': _read_ready_command,
    'file': lambda values: {'path': read_path(values['path'])},
}


def read_restart(value: object) -> str:
    """When it is started again."""
    if value not in RESTARTS or not isinstance(value, str):
        raise BadValueError(f"must be 'no', 'on-failure' or 'always', is {shown(value)}")
    return plain(value)


def read_count(value: object) -> int | None:
    """A whole number from 0; None: no limit."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadValueError(f'must be a whole number from 0, is {shown(value)}')
    return int(value)


def read_load(value: object) -> float | None:
    """A load per core, more than 0; None: any."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= sys.float_info.max:
        raise BadValueError(f'must be a number above 0, is {shown(value)}')
    return float(value)


def read_signal(value: object) -> str:
    """A signal as hosts look it up: `TERM`, or a number as text."""
    if isinstance(value, signal.Signals):
        return value.name.removeprefix('SIG')
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < signal.NSIG:
        return str(value)
    if isinstance(value, str) and f'SIG{value.upper().removeprefix("SIG")}' in signal.Signals.__members__:
        return value.upper().removeprefix('SIG')
    raise BadValueError(f"must be a signal such as 'INT', is {shown(value)}")


def read_size(value: object) -> int:
    """A number of bytes, also as text with a unit: `'500M'` (1 M is 1,000,000 bytes)."""
    found = re.fullmatch(r'(\d+)([kMGT]?)B?', value) if isinstance(value, str) else None
    if found:
        return int(found[1]) * int(1000 ** ' kMGT'.index(found[2] or ' '))
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadValueError(f"must be a number of bytes, or text as '100M', is {shown(value)}")
    return int(value)


def read_log_limit(value: object) -> int:
    """A number of bytes that is worth something; 0: no limit."""
    size = read_size(value)
    if 0 < size < LEAST_LOG:
        raise BadValueError(f'must be at least {LEAST_LOG} bytes, or 0 for no limit, is {shown(value)}')
    return size


def read_env(value: object) -> tuple[tuple[str, str], ...]:
    """Variables of the environment and their values, each as text."""
    if not isinstance(value, Mapping):
        raise BadValueError(f'must be a dict of variables, is {shown(value)}')
    variables: dict[str, str] = {}
    reasons: list[str] = []
    for name, content in value.items():
        try:
            variables[variable(name)] = argument(content)
        except BadValueError as bad:
            reasons += [f'[{shown(name)}] {reason}' for reason in bad.reasons]
    if reasons:
        raise BadValueError(*reasons)
    return tuple(variables.items())


def variable(name: object) -> str:
    """The name of a variable of the environment."""
    if not isinstance(name, str) or not name or '=' in name:
        raise BadValueError('is no name of a variable')
    return encodable(plain(name))


def read_user(value: object) -> str | None:
    """The name of a user of the host; None: who logs in."""
    if value is None:
        return None
    name = read_host(value)
    # What useradd(8) and the directories of companies have, and sudo does not take for an option or a number.
    if name[0] in '-#%+' or any(character in ':/,=' or character.isspace() for character in name):
        raise BadValueError(f'{shown(name)} is no name of a user')
    return encodable(name)


def read_env_file(value: object) -> str | None:
    """A path, or None."""
    return None if value is None else read_path(value)


def read_names(value: object) -> tuple[str, ...]:
    """Components, each as `name` or `name@host`."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise BadValueError(f'must be a list of names, is {shown(value)}')
    names = list(value)
    for position, name in enumerate(names):
        try:
            read_name(name)
        except BadValueError as bad:
            raise BadValueError(*[f'[{position}] {reason}' for reason in bad.reasons]) from None
    return tuple(read_name(name) for name in names)


def read_anything(value: object) -> object:
    """Information that remote_runner itself does not use."""
    return value
