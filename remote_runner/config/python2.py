"""Recognising files that are written for Python 2, to say what to write instead.

Judged by the kind of error and by the text of the user's own line, never by Python's messages, which change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType

_Table = tuple[tuple[re.Pattern[str], str], ...]

# What Python 3 compiles but cannot run, and what to write.
_RUN: _Table = (
    (re.compile(r'\bprint\s*>>\s*(?P<file>[\w.]+)'), 'print(..., file={file})'),
    (re.compile(r'\bprint\s*(?P<text>\([^()]*\))\s*%\s*(?P<what>\([^()]*\)|[^\s,;#]+)'), 'print({text} % {what})'),
)

# What Python 3 does not compile, and what to write.
_COMPILE: _Table = (
    (re.compile(r'(?:^|[:;])\s*print\s*>>\s*(?P<file>[\w.]+).*'), 'print(..., file={file})'),
    (re.compile(r'(?:^|[:;])\s*print\s+(?P<what>[^\s=(#;][^#;]*?)\s*,?\s*$'), 'print({what})'),
    (re.compile(r'(?:^|[:;])\s*print\s+[^\s=(].*$'), 'print(...)'),
    (re.compile(r'(?:^|[:;])\s*exec\s+[^\s=(].*'), 'exec(...)'),
    (re.compile(r'\bexcept\s+(?P<what>[\w.]+|\(.*\))\s*,\s*(?P<name>\w+)\s*:'), 'except {what} as {name}:'),
    (re.compile(r'\braise\s+(?P<what>[\w.]+)\s*,\s*(?P<text>.+?)\s*$'), 'raise {what}({text})'),
    (re.compile(r'`(?P<what>[^`]+)`'), 'repr({what})'),
    (re.compile(r'<>'), '!='),
    (re.compile(r'\b(?P<number>(?:0[xX])?[0-9A-Fa-f]+)[lL]\b'), '{number}'),
    (re.compile(r'(?<![\w.])0(?P<digits>[0-7]+)\b'), '0o{digits}'),
    (re.compile(r'\b[uU][rR](?=[\'"])'), "r'...'"),
    (re.compile(r'\b(?:def\s+\w+|lambda)\s*\(?.*\(.*\).*:'), 'a plain parameter, and unpack it in the body'),
)

_NAMES = {
    'apply': 'function(*args)',
    'basestring': 'str',
    'cmp': '(a > b) - (a < b)',
    'coerce': 'explicit conversions',
    'execfile': 'exec(open(path).read())',
    'file': 'open',
    'intern': 'sys.intern',
    'long': 'int',
    'raw_input': 'input',
    'reduce': 'functools.reduce',
    'reload': 'importlib.reload',
    'unichr': 'chr',
    'unicode': 'str',
    'xrange': 'range',
}

# Attributes that objects of these types have lost.
_ATTRIBUTES: Mapping[str, tuple[type, str]] = {
    'has_key': (Mapping, 'key in mapping'),
    'iteritems': (Mapping, 'items()'),
    'iterkeys': (Mapping, 'keys()'),
    'itervalues': (Mapping, 'values()'),
    'viewitems': (Mapping, 'items()'),
    'viewkeys': (Mapping, 'keys()'),
    'viewvalues': (Mapping, 'values()'),
    'sort': (Iterable, 'sorted(...)'),
    'next': (Iterator, 'next(...)'),
    'decode': (str, 'the text itself, it is decoded already'),
    'getcwdu': (ModuleType, 'os.getcwd()'),
    'maxint': (ModuleType, 'sys.maxsize'),
    'letters': (ModuleType, 'string.ascii_letters'),
    'maketrans': (ModuleType, 'str.maketrans'),
}

_MODULES = {
    'ConfigParser': 'configparser',
    'Queue': 'queue',
    'SocketServer': 'socketserver',
    'StringIO': 'io',
    '__builtin__': 'builtins',
    'cPickle': 'pickle',
    'cStringIO': 'io',
    'commands': 'subprocess',
    'httplib': 'http.client',
    'urllib2': 'urllib.request',
    'urlparse': 'urllib.parse',
}


def remedy(error: BaseException, line: str) -> str | None:
    """What to write instead, if `error` comes from a line of Python 2; None if it does not look like it.

    Args:
        error: what Python raised.
        line: the user's own line that it is about.
    """
    instead = _instead(error, line)
    return f'this is Python 2; write {instead}' if instead else None


def _instead(error: BaseException, line: str) -> str | None:
    if isinstance(error, TabError):
        return 'the indentation with spaces alone'
    if isinstance(error, SyntaxError):
        return _from_line((error.text or line).rstrip(), _COMPILE, (error.offset or 1) - 1)
    if isinstance(error, TypeError):
        return _from_line(line, _RUN)
    if isinstance(error, NameError):
        return _NAMES.get(error.name or '')
    if isinstance(error, AttributeError):
        lost, instead = _ATTRIBUTES.get(error.name or '', (type(None), None))
        return instead if isinstance(error.obj, lost) else None
    if isinstance(error, ModuleNotFoundError):
        return _import(_MODULES.get(error.name or ''))
    return None


def _from_line(line: str, table: _Table, at: int | None = None) -> str | None:
    """What to write instead of the first thing of `table` in `line`, if it is where Python found the error."""
    for pattern, instead in table:
        for match in pattern.finditer(line):
            if at is None or match.start() <= at <= match.end():
                return instead.format(**match.groupdict())
    return None


def _import(module: str | None) -> str | None:
    return f'import {module}' if module else None
