"""Files of variables for the environment of a component: `component.env_file`."""

from __future__ import annotations

from pathlib import Path

from remote_runner.config.attributes import BadValueError, encodable, variable


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
        name, equals, value = content.removeprefix('export ').partition('=')
        try:
            if not equals:
                raise BadValueError('is no NAME=value')  # the line itself may hold a secret
            variables[variable(name.strip())] = encodable(_unquoted(value.strip()))
        except BadValueError as bad:
            raise BadValueError(f'{path}, line {number}: {bad}') from None
    return variables


def _unquoted(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in '"\''
    return value[1:-1] if is_quoted else value
