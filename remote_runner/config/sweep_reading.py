"""Values of the attributes of sweeps, as `reading.py` has those of components."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from remote_runner.config.collect import OfFunction
from remote_runner.config.reading import (
    BadValueError,
    argument,
    check_length,
    encodable,
    plain,
    read_name,
    read_path,
    read_seconds,
    shown,
)
from remote_runner.config.template import Template, parse, parse_command
from remote_runner.nearest import nearest

STDIN = 'stdin'
STREAMS = ('stdout', 'stderr')
#: What may be tried again, see jobs/policy.py; a task that is lost with its host always is.
CAUSES = ('exit', 'timeout', 'rejected', 'resources')
KEEPS = ('all', 'failed', 'none')
ON_LOST = ('kill', 'finish')
#: What `uname -sm` says of common machines, and what else these are called.
_MACHINES = ('x86_64', 'aarch64', 'armv7l', 'armv6l', 'i686', 'ppc64le', 'riscv64', 's390x')
_ALSO_CALLED = {'amd64': 'x86_64', 'x64': 'x86_64', 'arm64': 'aarch64', 'arm': 'armv7l', 'x86': 'i686', 'i386': 'i686'}

_RESULT = re.compile(r'[^\W\d][\w.-]*')


def read_host_texts(value: object) -> tuple[str, ...]:
    """Texts that mean hosts; what they mean is for the plan to say, which knows where `@FILE` lies."""
    if isinstance(value, str):
        return (read_name(value),)
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise BadValueError(f'must be a list of hosts, is {shown(value)}')
    texts, reasons = [], []
    for position, host in enumerate(value):
        try:
            texts.append(read_name(host))
        except BadValueError as bad:
            reasons += [f'[{position}] {reason}' for reason in bad.reasons]
    if reasons:
        raise BadValueError(*reasons)
    if not texts:
        raise BadValueError('is empty')
    return tuple(texts)


def read_command(value: object) -> Template | tuple[Template, ...]:
    """A command for `sh`, or words, each of which is one argument."""
    if isinstance(value, str):
        if not value.strip():
            raise BadValueError('is empty')
        return parse_command(plain(value))
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise BadValueError(f'must be text for the shell or a list of words, is {shown(value)}')
    words: list[Template] = []
    reasons: list[str] = []
    for position, word in enumerate(value):
        try:
            words.append(parse(argument(word)))
        except BadValueError as bad:
            reasons += [f'[{position}] {reason}' for reason in bad.reasons]
    if reasons:
        raise BadValueError(*reasons)
    if not words or not words[0].pieces:
        raise BadValueError('is empty')
    return tuple(words)


def read_inputs(value: object) -> dict[str, Template]:
    """Contents of files by their paths in the working folder."""
    if not isinstance(value, Mapping):
        raise BadValueError(f'must be a dict of file to content, is {shown(value)}')
    inputs: dict[str, Template] = {}
    reasons: list[str] = []
    for name, content in value.items():
        try:
            path = name if name == STDIN else read_inner_path(name)
        except BadValueError as bad:
            reasons += [f'[{shown(name)}]: the path {reason}' for reason in bad.reasons]
            continue
        try:
            if path in inputs:
                raise BadValueError('is there twice')
            inputs[path] = _content(content)
        except BadValueError as bad:
            reasons += [f'[{shown(name)}] {reason}' for reason in bad.reasons]
    folders = {'/'.join(parts[:end]) for path in inputs for parts in [path.split('/')] for end in range(1, len(parts))}
    reasons += [f'[{shown(path)}] must be a folder as well' for path in inputs if path in folders]
    if reasons:
        raise BadValueError(*reasons)
    return inputs


def _content(value: object) -> Template:
    if isinstance(value, bytes):
        return parse(value.decode('utf-8', 'surrogateescape'))
    if not isinstance(value, str):
        raise BadValueError(f'must be text or bytes, is {shown(value)}')
    return parse(plain(value))


def read_results(value: object) -> dict[str, str]:
    """Where results are found, by their names; none named: what the command prints."""
    if not isinstance(value, Mapping):
        raise BadValueError(f'must be a dict of name to stdout, stderr or a file, is {shown(value)}')
    results: dict[str, str] = {}
    reasons: list[str] = []
    for name, source in value.items():
        if not isinstance(name, str) or not _RESULT.fullmatch(plain(name)):
            reasons.append(f'[{shown(name)}]: the name must be a letter, then letters, digits and any of _ . -')
            continue
        try:
            results[plain(name)] = source if source in STREAMS else read_inner_path(source)
        except BadValueError as bad:
            reasons += [f'[{name!r}] {reason}' for reason in bad.reasons]
    if reasons:
        raise BadValueError(*reasons)
    return results or {'stdout': 'stdout'}


def read_inner_path(value: object) -> str:
    """The path of a file in the working folder of a task, without what says nothing (`./`, `//`)."""
    path = read_path(value)
    check_length(path)
    if path.startswith(('/', '~')):
        raise BadValueError(f'must be below the working folder, is {shown(path)}')
    parts = [part for part in path.split('/') if part not in ('', '.')]
    if '..' in parts:
        raise BadValueError(f'leads out of the working folder: {shown(path)}')
    if not parts or path.endswith(('/', '/.')):
        raise BadValueError(f'must be a file, is a folder: {shown(path)}')
    if '{' in path or '}' in path:
        raise BadValueError(f'takes no parameters, has braces: {shown(path)}')
    return '/'.join(parts)


def read_executables(value: object) -> tuple[tuple[str, str], ...]:
    """Pairs of platform and local path."""
    if not isinstance(value, Mapping):
        raise BadValueError(f'must be a dict of platform to local path, is {shown(value)}')
    pairs: list[tuple[str, str]] = []
    reasons: list[str] = []
    for platform, path in value.items():
        try:
            pairs.append((_platform(platform), read_path(path)))
        except BadValueError as bad:
            reasons += [f'[{shown(platform)}] {reason}' for reason in bad.reasons]
    if reasons:
        raise BadValueError(*reasons)
    return tuple(pairs)


def _platform(value: object) -> str:
    known = [f'linux-{machine}' for machine in _MACHINES]
    if not isinstance(value, str):
        raise BadValueError(f'must be a platform such as {known[0]!r}')
    text = plain(value)
    system, _, machine = text.rpartition('-')
    meant = _ALSO_CALLED.get(machine.lower(), machine)
    if system == 'linux' and machine == meant and re.fullmatch('[a-z0-9_]+', machine):
        return text
    better = f'linux-{meant}' if meant in _MACHINES else nearest(text, known)
    raise BadValueError(f'is no platform as hosts name it (uname -sm); the nearest is {better!r}')


def read_task_limit(value: object) -> float | str | None:
    """Seconds, more than 0, or a percentage of the median, above 100, as text; None: there is no limit."""
    if value is None:
        return None
    if isinstance(value, str):
        share = re.fullmatch(r'\s*([0-9]+(?:\.[0-9]+)?)\s*%\s*', value)
        if not share:
            raise BadValueError(f"must be a number of seconds, or text as '300%' of the median, is {shown(value)}")
        if not 100 < float(share[1]) <= 1e9:
            raise BadValueError(f'must be more than 100% of the median, is {shown(value)}: half of all would end there')
        return f'{share[1]}%'
    seconds = read_seconds(value)
    if seconds == 0:
        raise BadValueError('must be more than 0 seconds')
    return seconds


def read_number(value: object) -> int:
    """A whole number from 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadValueError(f'must be a whole number from 0, is {shown(value)}')
    return int(value)


def read_retry_on(value: object) -> tuple[tuple[str, int | None], ...] | None:
    """Causes, each with the exit status that is meant, or any; None: all."""
    if value is None:
        return None
    if isinstance(value, str):
        items: list[object] = [item.strip() for item in value.split(',')]
    elif isinstance(value, Iterable) and not isinstance(value, (bytes, Mapping)):
        items = list(value)
    else:
        raise BadValueError(f"must be a list of causes, as ['exit:75', 'timeout'], is {shown(value)}")
    found: list[tuple[str, int | None]] = []
    reasons: list[str] = []
    for item in items:
        cause, colon, status = item.partition(':') if isinstance(item, str) else ('', '', '')
        if cause not in CAUSES:
            hint = f'; the nearest is {nearest(cause, CAUSES)!r}' if cause else ''
            reasons.append(f'must be of {", ".join(CAUSES)} and exit:N, is {shown(item)}{hint}')
        elif colon and (cause != 'exit' or not re.fullmatch('[0-9]{1,3}', status) or not 0 < int(status) < 256):
            reasons.append(f'must have a status from 1 to 255 behind exit: alone, is {shown(item)}')
        else:
            found.append((cause, int(status) if colon else None))
    if reasons:
        raise BadValueError(*reasons)
    return tuple(found)


def read_halt(value: object) -> tuple[float, bool] | None:
    """How many failed tasks end all, or (below 1) what share of them, and whether what runs ends at once."""
    if value is None:
        return None
    found = re.fullmatch(r'(soon|now),fail=([0-9]+(?:\.[0-9]+)?)(%?)', value) if isinstance(value, str) else None
    if found:
        number = float(found[2])
        at = number / 100 if found[3] else number
        if 0 < at < 1 if found[3] else at >= 1 and at.is_integer():
            return at, found[1] == 'now'
    raise BadValueError(f"must be as 'soon,fail=3', 'now,fail=1' or 'soon,fail=10%', is {shown(value)}")


def one_of(choices: tuple[str, ...]) -> Callable[[object], str]:
    """A reader of one of these words."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            words = f'{", ".join(map(repr, choices[:-1]))} or {choices[-1]!r}'
            raise BadValueError(f'must be {words}, is {shown(value)}')
        return plain(value)

    return read


def read_lease(value: object) -> float:
    """Seconds, more than 0."""
    seconds = read_seconds(value)
    if seconds == 0:
        raise BadValueError('must be more than 0 seconds')
    return seconds


def read_validate(value: object) -> Callable[..., Any] | None:
    """A function of parameters and results."""
    return None if value is None else _function(value)


def read_collect(value: object) -> Any:
    """A collector, or a function of parameters and results; None: nothing is collected."""
    if value is None:
        return None
    if all(callable(getattr(value, name, None)) for name in ('begin', 'add', 'end')):
        if isinstance(value, type):
            raise BadValueError(f'must be a collector, is the class {value.__name__}; write {value.__name__}()')
        return value
    if not callable(value):
        raise BadValueError(f"must be collect.csv('FILE') or another collector, or a function, is {shown(value)}")
    if getattr(value, '__module__', None) == OfFunction.__module__:
        name = getattr(value, '__name__', '')
        raise BadValueError(f"is the function collect.{name} itself; write collect.{name}('FILE')")
    return OfFunction(_function(value))


def _function(value: object) -> Callable[..., Any]:
    if not callable(value):
        raise BadValueError(f'must be a function of parameters and results, is {shown(value)}')
    if inspect.isgeneratorfunction(value) or inspect.iscoroutinefunction(value):
        raise BadValueError('would do nothing when called: no yield, no async')
    try:
        signature = inspect.signature(value)
    except ValueError:  # a built-in function without one
        return value
    try:
        signature.bind({}, {})
    except TypeError:
        name = getattr(value, '__name__', type(value).__name__)
        raise BadValueError(f'must take (parameters, results), is {name}{signature}') from None
    return value


def read_task_name(value: object) -> str:
    """A name that can be shown, and be part of a path of ours."""
    return encodable(read_name(value))
