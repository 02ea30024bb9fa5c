"""What a run would do, for people to read."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from remote_runner.ui.text import count, harmless, size, width

_WIDEST = 40  # columns of a label that others are aligned with


def preview_text(shown: Mapping[str, Any]) -> str:
    """The lines of `deploy.preview.preview`: a heading, then the components by start index."""
    components = [component for index in shown['indexes'] for component in index['components']]
    column = min(_WIDEST, max((width(_label(component)) for component in components), default=0))
    lines = [
        f'session {harmless(shown["session"])}: {count(len(components), "component")} on '
        f'{count(len(shown["hosts"]), "host")}{_files(components)}'
    ]
    for index in shown['indexes']:
        lines.append(f'index {index["index"]}')
        for component in index['components']:
            label = _label(component)
            padding = ' ' * max(0, column - width(label))
            lines.append(f'  {label}{padding}  {_command(component)}{_files([component])}{_notes(component)}')
    return '\n'.join(lines) + '\n'


def _label(component: Mapping[str, Any]) -> str:
    return harmless(f'{component["name"]}@{component["host"]}')


def _command(component: Mapping[str, Any]) -> str:
    words = [component['executable'], *component['args']]
    return harmless(' '.join(shlex.quote(word) for word in words))


def _files(components: Iterable[Mapping[str, Any]]) -> str:
    """`, 3 files (1.2 MB)`; of several components those of each host once."""
    files = {
        (component['host'], component['base_dir'] or component['name'], file['remote']): file['size']
        for component in components
        for file in component['files']
        if not file['is_directory']
    }
    return f', {count(len(files), "file")} ({size(sum(files.values()))})' if files else ''


def _notes(component: Mapping[str, Any]) -> str:
    notes = []
    if component['base_dir'] is not None:
        notes.append(f'in {harmless(component["base_dir"])}')
    if component['wait']:
        notes.append('waited for')
    return f'  [{", ".join(notes)}]' if notes else ''
