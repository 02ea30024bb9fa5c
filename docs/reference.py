"""Parts of the docs that the code itself says: directives that read parsers, tables and classes at build time.

`component-attributes` is the table of `config/attributes.py`, `sweep-attributes` that of `config/sweep_attributes.py`;
`command-line MODULE` is all that the parser of a command
explains; `event-classes` and `error-classes` list `events.py` and `errors.py`. Docstrings, which are written for
readers of the code, are made fit for autodoc.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from remote_runner import errors, events
from remote_runner.config.attributes import ATTRIBUTES
from remote_runner.config.component import Component
from remote_runner.config.sweep import Sweep
from remote_runner.config.sweep_attributes import SWEEP_ATTRIBUTES


class Generated(SphinxDirective):
    """A directive whose content is the Markdown that `lines` gives."""

    def lines(self) -> Iterable[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        text = StringList(list(self.lines()), source=self.get_source_info()[0])
        container = nodes.Element()
        self.state.nested_parse(text, self.content_offset, container)
        return list(container.children)


class ComponentAttributes(Generated):
    """The table of what a component may say."""

    table = ATTRIBUTES

    def lines(self) -> Iterator[str]:
        yield from ('| attribute | default | meaning |', '|---|---|---|')
        for attribute in self.table.values():
            default = '(required)' if attribute.required else f'`{attribute.default()!r}`'
            yield f'| `{attribute.name}` | {default} | {_escaped(attribute.meaning)} |'


class SweepAttributes(ComponentAttributes):
    """The table of what a sweep may say."""

    table = SWEEP_ATTRIBUTES


class CommandLine(Generated):
    """All options of a command, from its parser."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        parser: argparse.ArgumentParser = importlib.import_module(self.arguments[0]).make_parser()
        yield f':::{{program}} {parser.prog}'
        yield ':::'
        description = parser.description or ''
        yield from _paragraphs(description)
        usage = re.sub('^ {7}', '', parser.format_usage().removeprefix('usage: '), flags=re.MULTILINE)
        yield from _block('text', usage)
        for group in parser._action_groups:
            actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
            if not actions:
                continue
            yield f'**{(group.title or "").capitalize()}**'
            yield ''
            if group.description:
                yield from (_escaped(group.description), '')
            for action in actions:
                yield f':::{{option}} {_names(action)}'
                yield _escaped((action.help or '') % {**vars(action), 'prog': parser.prog})
                yield ':::'
                yield ''
        yield from _paragraphs(parser.epilog or '')


def _names(action: argparse.Action) -> str:
    value = action.metavar if isinstance(action.metavar, str) else ''
    if action.choices and not value:
        value = '{' + ','.join(map(str, action.choices)) + '}'
    if not action.option_strings:
        return value or action.dest
    suffix = '' if action.nargs == 0 else f' {value or action.dest.upper()}'
    return ', '.join(name + suffix for name in action.option_strings)


class EventClasses(Generated):
    """All events: fields, meaning, and what they are called in JSON."""

    def lines(self) -> Iterator[str]:
        for kind in _subclasses(events, events.Event):
            signature = ', '.join(f'{name}: {type_}' for name, type_ in kind.__annotations__.items())
            yield f'::::{{py:class}} {kind.__name__}({signature})'
            yield ':module: remote_runner.events'
            yield ''
            yield f'{_first(kind)} In JSON: `{kind.kind()}`.'
            yield '::::'
            yield ''


class ErrorClasses(Generated):
    """All errors and the exit status that each leads to."""

    def lines(self) -> Iterator[str]:
        yield from ('| error | exit status | meaning |', '|---|---|---|')
        for kind in _subclasses(errors, errors.RemoteRunnerError):
            yield f'| `{kind.__name__}` | {kind.exit_status} | {_first(kind)} |'


def _subclasses(module: object, base: type) -> list[type]:
    found = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, base)]
    return sorted((kind for kind in found if kind is not base), key=lambda kind: inspect.getsourcelines(kind)[1])


def _first(kind: type) -> str:
    """The first paragraph of a docstring."""
    return _escaped(' '.join(inspect.getdoc(kind).split('\n\n')[0].split()))


def _escaped(text: str) -> str:
    """Text as Markdown that shows it as it is; what stands between backticks is code."""
    pieces = text.split('`')
    pieces[::2] = [re.sub(r'([\\*_\[\]<>|])', r'\\\1', piece) for piece in pieces[::2]]
    pieces[1::2] = [piece.replace('|', '\\|') for piece in pieces[1::2]]
    return '`'.join(pieces)


def _block(language: str, text: str) -> list[str]:
    return ['', f'```{language}', *text.rstrip('\n').split('\n'), '```', '']


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of help: indented ones and lists of words are blocks of their own."""
    for paragraph in text.strip('\n').split('\n\n'):
        lines = paragraph.split('\n')
        is_block = any(line.startswith('  ') for line in lines)
        if is_block and not lines[0].startswith(' '):
            yield from (_escaped(lines.pop(0)), '')
        if is_block:
            yield from _block('text', inspect.cleandoc('\n' + '\n'.join(lines)))
        else:
            yield from (_escaped(' '.join(lines)), '')


def fit_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Make of the docstrings of the code what docutils understands.

    Indented examples become literal blocks. The attributes of a Component or Sweep stand in a table of their own.
    """
    if obj in (Component, Sweep) and '    Attributes:' in lines + [f'    {line}' for line in lines]:
        del lines[next(number for number, line in enumerate(lines) if line.strip() == 'Attributes:') :]
    if lines and lines[0].strip() == 'Raises:':
        lines[1:] = [f'    {line.strip()}' if line.strip() else '' for line in lines[1:]]
    result: list[str] = []
    for number, line in enumerate(lines):
        before = next((text for text in reversed(lines[:number]) if text), '')
        is_example = line.startswith('    ') and number > 0 and not lines[number - 1] and before[:1].strip()
        if is_example and not before.endswith('::'):
            result += ['::', '']
        result.append(line)
    lines[:] = result


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive('component-attributes', ComponentAttributes)
    app.add_directive('sweep-attributes', SweepAttributes)
    app.add_directive('command-line', CommandLine)
    app.add_directive('event-classes', EventClasses)
    app.add_directive('error-classes', ErrorClasses)
    app.connect('autodoc-process-docstring', fit_docstring, priority=400)  # before napoleon
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
