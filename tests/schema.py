"""Whether the lines of `--json` are events as the docs list them: docs and this read the same classes."""

from __future__ import annotations

import types
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

from remote_runner.events import Event

KINDS = {kind.kind(): kind for kind in Event.__subclasses__()}


def is_event(line: dict[str, Any]) -> bool:
    """Whether a line is one of these events; an AssertionError says what is wrong with it."""
    hints = get_type_hints(KINDS[line['event']])
    fields = {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar}
    optional = {name for name, hint in fields.items() if type(None) in get_args(hint)}
    assert fields.keys() - optional <= line.keys(), f'a field is missing: {line}'
    assert line.keys() <= {'event', *fields}, f'a field is not in the docs: {line}'
    for name, hint in fields.items():
        assert name not in line or _is(line[name], hint), f'{name} is no {hint}: {line}'
    return True


def _is(value: Any, hint: Any) -> bool:
    """Whether a value of JSON is what became of one of this type."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(part is not type(None) and _is(value, part) for part in parts)
    if origin is tuple:
        return isinstance(value, list) and all(_is(item, parts[0]) for item in value)
    if origin is dict:
        keys_are_right = parts[0] is str or all(key.removeprefix('-').isdecimal() for key in value)
        return isinstance(value, dict) and keys_are_right and all(_is(item, parts[1]) for item in value.values())
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if hint is float else hint)
