"""What a run, or a copy, would do, for people to read."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from remote_runner.hosts.address import fold
from remote_runner.ui.text import count, harmless, size, width

_MOST_FILES = 20  # of a host that are named
_WIDEST = 40  # columns of a label that others are aligned with


def preview_text(shown: Mapping[str, Any]) -> str:
    """The lines of `deploy.preview.preview`: a heading, then the components by start index."""
    components = [component for index in shown['indexes'] for component in index['components']]
    column = min(_WIDEST, max((width(_label(component)) for component in components), default=0))
    if not components and shown.get('sweeps'):
        return ''.join(f'{line}\n' for sweep in shown['sweeps'] for line in _sweep(sweep))
    lines = [
        f'session {harmless(shown["session"])}: {count(len(components), "component")} on '
        f'{_hosts(shown)}{_files(components)}'
    ]
    for index in shown['indexes']:
        lines.append(f'index {index["index"]}')
        for component in index['components']:
            label = _label(component)
            padding = ' ' * max(0, column - width(label))
            lines.append(f'  {label}{padding}  {_command(component)}{_files([component])}{_notes(component)}')
    for sweep in shown.get('sweeps', ()):
        lines += _sweep(sweep)
    return '\n'.join(lines) + '\n'


def _hosts(shown: Mapping[str, Any]) -> str:
    """`3 hosts`, `2 hosts and the least loaded of 8`, `the least loaded of 8 hosts`."""
    number, candidates = len(shown['hosts']), len(shown.get('candidates', ()))
    if not candidates:
        return count(number, 'host')
    return f'{count(number, "host")} and the least loaded of {candidates}' if number else (
        f'the least loaded of {count(candidates, "host")}'
    )


def _sweep(sweep: Mapping[str, Any]) -> list[str]:
    """`sweep latency: 10 tasks of rate, seed on 2 hosts, 1 file (1.2 MB)`, and its command."""
    names = ', '.join(sweep['parameters'])
    sizes = [file['size'] for file in (*sweep['files'], *sweep['executables']) if 'size' in file]
    files = f', {count(len(sizes), "file")} ({size(sum(sizes))})' if sizes else ''
    heading = f'sweep {sweep["name"]}: {count(sweep["tasks"], "task")}{f" of {names}" if names else ""}'
    return [
        harmless(f'{heading} on {count(len(sweep["hosts"]), "host")}{files}'),
        f'  {harmless(sweep["command"])}',
    ]


def _label(component: Mapping[str, Any]) -> str:
    return harmless(f'{component["name"]}@{component["host"]}')


def _command(component: Mapping[str, Any]) -> str:
    words = [component['executable'], *component['args']]
    return harmless(' '.join(shlex.quote(word) for word in words))


def _files(components: Iterable[Mapping[str, Any]]) -> str:
    """`, 3 files (1.2 MB), 1 link`; of several components those of each host once."""
    brought = {
        (component['host'], component['base_dir'] or component['name'], file['remote']): file
        for component in components
        for file in component['files']
        if not file['is_directory']
    }
    sizes = [file['size'] for file in brought.values() if not file.get('is_link')]
    links = len(brought) - len(sizes)
    text = f', {count(len(sizes), "file")} ({size(sum(sizes))})' if sizes else ''
    return f'{text}, {count(links, "link")}' if links else text


def _notes(component: Mapping[str, Any]) -> str:
    notes = []
    if component['base_dir'] is not None:
        notes.append(f'in {harmless(component["base_dir"])}')
    if component['wait']:
        notes.append('waited for')
    notes += _placing(component)
    return f'  [{", ".join(notes)}]' if notes else ''


def _placing(component: Mapping[str, Any]) -> list[str]:
    """What is wanted of its host, where that is decided later, or was decided just now."""
    placing = component.get('least_loaded')
    if placing is None:
        return []
    notes = []
    if placing['min_memory']:
        notes.append(f'{size(placing["min_memory"])} of memory')
    if placing['platform']:
        notes.append(harmless(placing['platform']))
    if placing['spread']:
        notes.append('spread')
    if placing['was']:
        notes.append(harmless(f'last on {placing["was"]}'))
    return notes


def differences_text(found: Iterable[Mapping[str, Any]]) -> str:
    """The lines of `plan --diff` and `copy --dry-run`; hosts on which the same would be done stand together."""
    groups: list[tuple[dict[str, Any], list[str]]] = []
    for each in found:
        facts = {key: value for key, value in each.items() if key != 'host'}
        hosts = next((hosts for other, hosts in groups if other == facts), None)
        if hosts is None:
            groups.append((facts, [each['host']]))
        else:
            hosts.append(each['host'])
    return ''.join(_difference_text(fold(hosts), facts) for facts, hosts in groups)


def _difference_text(hosts: str, found: Mapping[str, Any]) -> str:
    sent = sum(file['size'] for file in found['send'])
    facts = [f'{count(len(found["send"]), "file")} to send ({size(sent)})' if found['send'] else 'no file to send']
    if found.get('links'):
        facts.append(f'{count(len(found["links"]), "link")} to make')
    if found.get('folders'):
        facts.append(f'{count(len(found["folders"]), "folder")} to make')
    if found.get('times'):
        facts.append(f'times of {count(len(found["times"]), "file")} to set')
    if found['modes']:
        facts.append(f'permission bits of {count(len(found["modes"]), "file")} to change')
    if found.get('folder_modes'):
        facts.append(f'permission bits of {count(len(found["folder_modes"]), "folder")} to change')
    if found.get('delete_count'):
        facts.append(f'{count(found["delete_count"], "path")} to delete')
    facts.append(f'{found["unchanged"]} unchanged')
    lines = [f'{harmless(hosts)}: {", ".join(facts)}']
    lines += [f'  keeps  {harmless(label)}' for label in found.get('keep', [])]
    lines += [f'  ends   {harmless(label)}' for label in found.get('stop', [])]
    lines += _first([f'  sends  {harmless(file["remote"])} ({size(file["size"])})' for file in found['send']])
    links = found.get('links', [])
    lines += _first([f'  links  {harmless(link["remote"])} -> {harmless(link["text"])}' for link in links])
    lines += _first([f'  makes  {harmless(path)}/' for path in found.get('folders', [])])
    deleted = found.get('delete', [])
    lines += [f'  deletes  {harmless(path)}' for path in deleted[:_MOST_FILES]]
    if found.get('delete_count', 0) > _MOST_FILES:
        lines.append(f'  … and {found["delete_count"] - _MOST_FILES} more')
    lines += [f'  leaves {harmless(path)} alone, with what is in it' for path in found.get('left_alone', [])]
    modes = [*found['modes'], *found.get('folder_modes', [])]
    lines += _first([f'  mode   {harmless(file["remote"])} ({file["mode"]})' for file in modes])
    lines += _first([f'  time   {harmless(path)}' for path in found.get('times', [])])
    return '\n'.join(lines) + '\n'


def _first(lines: list[str]) -> list[str]:
    more = [f'  … and {len(lines) - _MOST_FILES} more'] if len(lines) > _MOST_FILES else []
    return [*lines[:_MOST_FILES], *more]
