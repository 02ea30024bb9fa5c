"""What came of the tasks of a job, as rows for other programs: CSV (RFC 4180) or JSON lines."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from remote_runner.jobs.reading import AttemptRow, Reader, TaskRow

#: What every task has, before its parameters and results.
COLUMNS = ('task', 'outcome', 'status', 'attempt', 'host', 'seconds')
#: What the outcome of a task that succeeded is called; of others it is the cause, and empty before there is one.
OK = 'ok'


def json_lines(reader: Reader) -> Iterator[str]:
    """An object a task."""
    for row, attempt in _tasks(reader):
        results = {name: _jsonable(content) for name, content in _results(reader, row).items()}
        shown = {**_common(row, attempt), 'command': row.task.command, 'parameters': row.task.parameters}
        yield json.dumps({**shown, 'results': results}) + '\n'


def csv_lines(reader: Reader) -> Iterator[str]:
    """A heading, and a row a task.

    A parameter that is called as a column before it is `parameter.NAME` there, such a result `result.NAME`. Bytes that
    are no UTF-8 stand as `\\xff`, lone surrogates as `\\ud800`.
    """
    parameters: dict[str, None] = {}
    for row in reader.tasks():
        parameters.update(dict.fromkeys(row.task.parameters))
    results = reader.result_names()
    columns = list(COLUMNS)
    for kind, names in (('parameter', list(parameters)), ('result', results)):
        for name in names:
            columns.append(f'{kind}.{name}' if name in columns else name)
    yield _csv(columns)
    for row, attempt in _tasks(reader):
        found = _results(reader, row)
        values = [row.task.parameters.get(name) for name in parameters]
        texts = [_readable(found[name]) if name in found else None for name in results]
        yield _csv([*_common(row, attempt).values(), *values, *texts])


def _csv(values: list[Any]) -> str:
    file = io.StringIO()
    csv.writer(file).writerow(values)
    return file.getvalue().encode('utf-8', 'backslashreplace').decode()


def _tasks(reader: Reader) -> Iterator[tuple[TaskRow, AttemptRow | None]]:
    """All that are wanted, each with the attempt that counts, or the last one."""
    for row in reader.tasks():
        yield row, reader.attempt(row.number, row.attempt) if row.attempt else None


def _common(row: TaskRow, attempt: AttemptRow | None) -> dict[str, Any]:
    name = None if row.outcome is None else OK if row.outcome.cause is None else row.outcome.cause.value
    where = (None, None) if attempt is None else (attempt.host, attempt.seconds)
    values = row.position, name, row.outcome and row.outcome.status, row.attempt or None, *where
    return dict(zip(COLUMNS, values, strict=True))


def _results(reader: Reader, row: TaskRow) -> dict[str, bytes]:
    found = reader.results(row.number) if row.outcome is not None and row.outcome.cause is None else {}
    return {name: content.read_bytes() if isinstance(content, Path) else content for name, content in found.items()}


def _jsonable(content: bytes) -> str | dict[str, str]:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {'base64': base64.b64encode(content).decode('ascii')}


def _readable(content: bytes) -> str:
    return content.decode('utf-8', 'backslashreplace')
