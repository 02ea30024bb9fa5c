"""Files of variables for the environment of a component: `component.env_file`."""

from __future__ import annotations

import re
from pathlib import Path

from remote_runner.config.reading import BadValueError

#: What shells take as a name. Others would be a line of some other file, a key say, which is not to be shown.
_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_]*')


def read_variables(path: str) -> dict[str, str]:
    """The variables of a file, one a line: `NAME=value`.

    Empty lines and those that begin with `#` do not count, nor does an `export` in front. A value is taken as it
    stands, without the quotes around it, if there are any.

    Raises:
        BadValueError: it cannot be read, or a line is something else.
    """
    try:
        text = Path(path).read_bytes().decode('utf-8', 'surrogateescape')
    except OSError as error:
        raise BadValueError(f'{path} cannot be read: {error.strerror}') from None
    variables: dict[str, str] = {}
    for number, line in enumerate(text.removeprefix('\ufeff').split('\n'), 1):
        content = line.strip()
        if not content or content.startswith('#'):
            continue
        name, _, value = (part.strip() for part in content.removeprefix('export ').partition('='))
        # The faults do not show the line: it may hold a secret.
        if not _NAME.fullmatch(name) or '=' not in content:
            raise BadValueError(f'{path}, line {number}: is no NAME=value')
        if '\0' in value:
            raise BadValueError(f'{path}, line {number}: its value holds a NUL byte')
        variables[name] = _unquoted(value)
    return variables


def _unquoted(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in '"\''
    return value[1:-1] if is_quoted else value
