"""Text with parameters in it: `./client --rate {rate}`.

`{rate}` stands for the value of that parameter: in a command for `sh` it is quoted, so that the program gets exactly
that text as (part of) one argument. `{rate:raw}` is the text itself, for the shell to read. `{{` and `}}` are braces.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from remote_runner.config.reading import BadValueError, encodable, shown
from remote_runner.nearest import nearest

_BRACES = re.compile(r'\{\{|\}\}|\{([^{}]*)\}|\{|\}')
_RAW = 'raw'
#: What the shell reads in another way than text of the same letters where a command begins (POSIX, 2.4).
_RESERVED = {
    *('!', '{', '}', '[[', ']]', 'case', 'do', 'done', 'elif', 'else', 'esac', 'fi', 'for', 'function', 'if', 'in'),
    *('select', 'then', 'time', 'until', 'while'),
}
#: Where quotes, comments and substitutions of sh begin and end, as far as `innermost_quote` needs it.
_SYNTAX = re.compile(r'\\.|\$\(|[\'"`()]|(?<!\\\s)(?<![^\s;&|(])#[^\n]*', re.DOTALL)


class Slot(NamedTuple):
    """A place for the value of a parameter.

    Args:
        name: of the parameter.
        is_raw: whether its text stands there as it is.
        must_quote: whether it is quoted also where `sh` would take it for text anyway: `{n}>file`.
    """

    name: str
    is_raw: bool = False
    must_quote: bool = False

    def __str__(self) -> str:
        return f'{{{self.name}:{_RAW}}}' if self.is_raw else f'{{{self.name}}}'


class Template(NamedTuple):
    """Text and slots in turn."""

    pieces: tuple[str | Slot, ...]

    def slots(self) -> Iterator[Slot]:
        """The slots, in order."""
        return (piece for piece in self.pieces if isinstance(piece, Slot))

    def unknown(self, names: Iterable[str]) -> Iterator[str]:
        """What is wrong with slots for parameters that are none of `names`."""
        known = tuple(names)
        for slot in dict.fromkeys(slot for slot in self.slots() if slot.name not in known):
            found = nearest(slot.name, known)
            hint = f'the nearest is {{{found}}}' if found else 'there are none'
            yield f'names {slot}, which is no parameter; {hint} (a brace itself is written {{{{ or }}}})'

    def text(self, values: Mapping[str, str]) -> str:
        """With values as they are."""
        return ''.join([piece if isinstance(piece, str) else values[piece.name] for piece in self.pieces])

    def shell(self, values: Mapping[str, str]) -> str:
        """With values as `sh` has to find them."""
        return ''.join(
            [
                piece
                if isinstance(piece, str)
                else values[piece.name]
                if piece.is_raw
                else quoted(values[piece.name], piece.must_quote)
                for piece in self.pieces
            ]
        )


def parse(text: str) -> Template:
    """The template that `text` is.

    Raises:
        BadValueError: its braces make no sense.
    """
    try:
        text.encode('utf-8', 'surrogateescape')
    except UnicodeEncodeError as error:
        raise BadValueError(f'{shown(text)} holds {text[error.start]!a}, which is no character') from None
    pieces: list[str | Slot] = ['']
    reasons: list[str] = []
    position = 0
    for found in _BRACES.finditer(text):
        pieces[-1] = f'{pieces[-1]}{text[position : found.start()]}'
        position = found.end()
        token = found[0]
        if token in ('{{', '}}'):
            pieces[-1] = f'{pieces[-1]}{token[0]}'
        elif found[1] is None:
            reasons.append(f'has a single {token} after {shown(text[: found.start()])}; write {token * 2}')
        else:
            name, colon, way = found[1].partition(':')
            if not name:
                reasons.append(f'has {token}, which names no parameter; for braces write {{{{ and }}}}')
            elif colon and way != _RAW:
                reasons.append(f'has {token}: after the colon comes `{_RAW}` or nothing')
            pieces += [Slot(name, bool(colon)), '']
    pieces[-1] = f'{pieces[-1]}{text[position:]}'
    if reasons:
        raise BadValueError(*reasons)
    return Template(tuple(piece for piece in pieces if piece != ''))


def parse_command(text: str) -> Template:
    """The template of a command for `sh`.

    Raises:
        BadValueError: its braces make no sense, or what stands around a slot would change its value.
    """
    pieces = list(parse(encodable(text)).pieces)
    reasons: list[str] = []
    before = ''
    for index, piece in enumerate(pieces):
        if isinstance(piece, str):
            before += piece
            continue
        within = innermost_quote(before)
        if within != "'" and re.search(r'(?<![\\$])\$$', before):
            own = f'${{{{{piece.name}}}}}'
            reasons.append(f'has ${piece}: write {piece} for the parameter, {own} for a variable of the shell')
        elif not piece.is_raw and within:
            reasons.append(
                f'has {piece} within quotes: leave them out, it is quoted anyway, or write {{{piece.name}:raw}}'
            )
        after = pieces[index + 1] if index + 1 < len(pieces) else ''
        pieces[index] = piece._replace(must_quote=isinstance(after, str) and after[:1] in ('<', '>') and after != '')
        before += 'x'
    if reasons:
        raise BadValueError(*dict.fromkeys(reasons))
    return Template(tuple(pieces))


def quoted(text: str, must_quote: bool = False) -> str:
    """`text` as one word of `sh`, which is nothing but text there: no assignment, no reserved word."""
    if must_quote or '=' in text or text in _RESERVED:
        return "'" + text.replace("'", "'\"'\"'") + "'"
    return shlex.quote(text)


def innermost_quote(text: str) -> str:
    """The quote within which stands what follows this beginning of a command: `'`, `"` or none (``).

    Behind a here-document none is known of.
    """
    if '<<' in text:
        return ''
    within = ['']  # what is open, the innermost last: a quote, a bracket of $(...), a backtick
    position = 0
    while found := _SYNTAX.search(text, position):
        position = found.end()
        token, innermost = found[0], within[-1]
        if innermost == "'":
            if "'" not in token:
                continue
            position = found.start() + token.index("'") + 1  # neither a backslash nor a # is anything special there
            within.pop()
        elif token[0] == '#' and innermost == '"':
            position = found.start() + 1
        elif token[0] in '\\#':
            continue
        elif token == (')' if innermost in ('(', '$(') else innermost):
            within.pop()
        elif token in ('$(', '"', '`') or (token in ("'", '(') and innermost != '"'):
            within.append(token)
    return within[-1] if within[-1] in ('"', "'") else ''
