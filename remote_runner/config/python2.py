"""Recognising files that are written for Python 2, to say what to write instead.

Judged by the kind of error and by the text of the user's own line, never by Python's messages, which change.
"""

from __future__ import annotations

import re

# Lines that Python 3 does not compile (or, `print >>f`, that it cannot run), and what to write.
_LINES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r'\bprint\s*>>\s*(?P<file>[\w.]+)'), 'print(..., file={file})'),
    (re.compile(r'\bprint\s+(?P<what>[^\s=(].*?)\s*,?\s*(?:[#;].*)?$'), 'print({what})'),
    (re.compile(r'\bprint\s*\('), 'print(...) with all of it inside the parentheses'),
    (re.compile(r'\bexec\s+[^\s=(]'), 'exec(...)'),
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

_ATTRIBUTES = {
    'has_key': 'key in mapping',
    'iteritems': 'items()',
    'iterkeys': 'keys()',
    'itervalues': 'values()',
    'viewitems': 'items()',
    'viewkeys': 'keys()',
    'viewvalues': 'values()',
    'getcwdu': 'os.getcwd()',
    'maxint': 'sys.maxsize',
    'letters': 'string.ascii_letters',
    'maketrans': 'str.maketrans',
    'sort': 'sorted(...)',
    'next': 'next(...)',
    'decode': 'the text itself, it is decoded already',
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
        return _from_line(line, _LINES)
    if isinstance(error, TypeError):
        return _from_line(line, _LINES[:1])
    if isinstance(error, NameError):
        return _NAMES.get(error.name or '')
    if isinstance(error, AttributeError):
        return _ATTRIBUTES.get(error.name or '')
    if isinstance(error, ModuleNotFoundError):
        return _import(_MODULES.get(error.name or ''))
    return None


def _from_line(line: str, table: tuple[tuple[re.Pattern[str], str], ...]) -> str | None:
    for pattern, instead in table:
        match = pattern.search(line)
        if match:
            return instead.format(**match.groupdict())
    return None


def _import(module: str | None) -> str | None:
    return f'import {module}' if module else None
