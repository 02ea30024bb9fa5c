"""How a host is written, wherever one is written: one grammar and one parser.

    [slots/][user@]name[:port] [load weight [memory weight]]

`name` is a host name, an alias of ssh_config, an IPv4 address or an IPv6 one (in brackets where a port follows:
`[fe80::1%eth0]:22`). It may be folded: `node[1-40]`, `node[01-10,12]-rack[1-2]`, `node[0-30/10]` (every tenth).
Several hosts are separated by commas or spaces, and `@FILE` stands for a file with one or more of them a line and
comments after `#`. A line of it may be `@FILE`, too, relative to the file in which it stands.

Everything else about a host comes from the user's ssh_config, see `ssh_config.py`.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from remote_runner.errors import AddressError

MOST_HOSTS = 100_000  # of one folded list; more is a slip of the finger
# Compiled when they are needed first, which takes longer than all else here.
_NUMBER = r'[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?'
_SLOTS = r'([0-9]+)/(.*)'
_RANGE = r'([0-9]+)(?:-([0-9]+)(?:/([0-9]+))?)?'
# What OpenSSH refuses in the name of a host or user (valid_hostname() and valid_ruser() in its ssh.c), since both end
# up in commands (ProxyCommand's %h and %r), and what this grammar uses itself.
_NOT_IN_A_NAME = r'[\s\x00-\x1f\x7f\'"`$\\;&<>|(){}\[\],@/#*?!:]'
_NOT_IN_A_USER = r'[\s\x00-\x1f\x7f\'"`;&<>|(){}\[\],/#:]'


class Address(NamedTuple):
    """A host as the user wrote it. `str()` gives that form back.

    Args:
        name: host name, alias or IP address; IPv6 without brackets.
        user: the user to log in as; None: `-u`, else what ssh_config says.
        port: TCP port; None: what ssh_config says.
        slots: how many tasks run there at once; None: not said.
        weights: load weight (multiplies the load; 2.0 is half as fast) and memory weight (higher is better); may be
            shorter than two.
    """

    name: str
    user: str | None = None
    port: int | None = None
    slots: int | None = None
    weights: tuple[float, ...] = ()

    @property
    def where(self) -> str:
        """`[user@]name[:port]`: how messages name this host."""
        name = f'[{self.name}]' if ':' in self.name and self.port is not None else self.name
        user = f'{self.user}@' if self.user is not None else ''
        port = f':{self.port}' if self.port is not None else ''
        return f'{user}{name}{port}'

    def __str__(self) -> str:
        slots = f'{self.slots}/' if self.slots is not None else ''
        return ' '.join([f'{slots}{self.where}', *(f'{weight!r}'.removesuffix('.0') for weight in self.weights)])


def is_file(path: str | Path) -> bool:
    """Whether there is such a file. What is too long for a path (a list of hosts, say) is none."""
    try:
        return Path(path).is_file()
    except OSError:
        return False


def parse_address(text: str) -> Address:
    """The one host that `text` means.

    Raises:
        AddressError: it cannot be understood, or means several hosts.
    """
    found = _parse_list(text)
    if len(found) == 1:
        return found[0]
    if not found:
        raise AddressError('a host is needed, but the text is empty')
    raise AddressError(f'one host is needed, but {text!r} means {len(found)}')


def parse_hosts(texts: Iterable[str], exclude: Iterable[str] = ()) -> list[Address]:
    """All hosts that `texts` mean, in order, each one once.

    Args:
        texts: lists of hosts as described above, `@FILE` included.
        exclude: hosts to leave out, in the same forms. One without user (or port) leaves out that name under any user
            (or port).

    Raises:
        AddressError: one cannot be understood, or a file cannot be read.
    """
    left_out: dict[str, list[Address]] = {}
    for address in _parse_texts(exclude):
        left_out.setdefault(address.name, []).append(address)
    found: dict[tuple[str, str | None, int | None], Address] = {}
    for address in _parse_texts(texts):
        if not any(
            out.user in (None, address.user) and out.port in (None, address.port)
            for out in left_out.get(address.name, ())
        ):
            found.setdefault((address.name, address.user, address.port), address)
    return list(found.values())


def fold(names: Iterable[str]) -> str:
    """The names as one short list for people: `node[1-3,7],gate`. `parse_hosts` reads it back.

    Numbers in the host name are folded, those in a user or port are not. The order is that of the first name of each
    folded list, within brackets it is ascending; a name given twice appears once.
    """
    return _fold([_pieces(name) for name in dict.fromkeys(names)])


def fold_labels(labels: Iterable[str]) -> str:
    """`NAME@HOST` of components as one short list for people: numbers of both are folded, `client-[1-9]@node[1-3]`."""
    return _fold([re.split(r'(\d+)', label, flags=re.ASCII) for label in dict.fromkeys(labels)])


def _fold(merged: list[list[str]]) -> str:
    """Names as lists of pieces that alternate between text and number, where a number becomes a set of numbers.

    Position by position, from the right, the names that differ in nothing else are merged.
    """
    for position in reversed(range(1, max((len(pieces) for pieces in merged), default=0), 2)):
        groups: dict[tuple[str, ...], list[list[str]]] = {}
        for pieces in merged:
            around = (*pieces[:position], '', *pieces[position + 1 :]) if position < len(pieces) else tuple(pieces)
            groups.setdefault(around, []).append(pieces)
        for group in groups.values():
            if len(group) > 1:
                group[0][position] = _fold_numbers([pieces[position] for pieces in group])
        merged = [group[0] for group in groups.values()]
    return ','.join(''.join(pieces) for pieces in merged)


def _pieces(name: str) -> list[str]:
    """`node01-rack2` -> ['node', '01', '-rack', '2', '']; user and port belong to the text around."""
    head, at, rest = name.rpartition('@')
    host, colon, tail = rest.partition(':')
    if ':' in tail:  # IPv6
        return [name]
    pieces = re.split(r'(\d+)', host, flags=re.ASCII)
    pieces[0] = head + at + pieces[0]
    pieces[-1] += colon + tail
    return pieces


def _fold_numbers(numbers: Sequence[str]) -> str:
    ranges: list[tuple[str, str]] = []
    for number in sorted(numbers, key=lambda text: (int(text), len(text))):
        if ranges and number == str(int(ranges[-1][1]) + 1).zfill(_width(ranges[-1][0])):
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return '[' + ','.join(first if first == last else f'{first}-{last}' for first, last in ranges) + ']'


def _width(first: str) -> int:
    """The width to which the numbers of a range are filled with zeros."""
    return len(first) if first.startswith('0') else 0


def _parse_texts(texts: Iterable[str]) -> Iterator[Address]:
    for text in texts:
        if text.startswith('@'):
            yield from _parse_file(text[1:])
        else:
            yield from _parse_list(text)


def _parse_file(name: str, folder: Path = Path(), via: tuple[Path, ...] = ()) -> Iterator[Address]:
    """The hosts of a file.

    Args:
        name: as it was written.
        folder: where relative paths begin.
        via: the files by which this one was named, the first one first.

    Raises:
        AddressError: it cannot be read, or names itself; what is wrong in it is raised when hosts are taken.
    """
    if not name:
        raise AddressError("'@' names no hosts file")
    try:
        path = folder / Path(name).expanduser()
        lines = path.read_text(encoding='utf-8').splitlines()
        if path.resolve() in (each.resolve() for each in via):
            chain = ', which names '.join(map(str, (*via, path)))
            raise AddressError(f'hosts files go round in a circle: {chain}', remedy='leave one of these out')
    except OSError as error:
        raise AddressError(f'the hosts file {path} cannot be read: {error.strerror}') from error
    except RuntimeError as error:  # of expanduser
        raise AddressError(f'the hosts file {name} cannot be found: {error}') from error
    except UnicodeDecodeError as error:
        raise AddressError(f'the hosts file {path} is not text in UTF-8') from error
    return _parse_lines(lines, path, (*via, path))


def _parse_lines(lines: Iterable[str], path: Path, via: tuple[Path, ...]) -> Iterator[Address]:
    found: Iterable[Address]
    for number, line in enumerate(lines, 1):
        text = line.partition('#')[0].strip()
        try:
            found = _parse_file(text[1:].strip(), path.parent, via) if text.startswith('@') else _parse_list(text)
        except AddressError as error:
            raise AddressError(f'{path}, line {number}: {error.what}', remedy=error.remedy) from error
        yield from found


def _parse_list(text: str) -> list[Address]:
    found: list[Address] = []
    for item in _split(text):
        addresses: list[Address] = []  # of the last word, which the weights belong to
        for word in item.split():
            if re.fullmatch(_NUMBER, word) and addresses:
                addresses = [_with_weight(address, word, text) for address in addresses]
            else:
                found += addresses
                addresses = list(_parse_word(word))
        found += addresses
    return found


def _split(text: str) -> list[str]:
    """Split at commas, but not at those within brackets."""
    items = ['']
    depth = 0
    for char in text:
        depth += (char == '[') - (char == ']')
        if depth not in (0, 1):
            raise AddressError(f'the brackets of {text!r} do not match')
        if char == ',' and depth == 0:
            items.append('')
        else:
            items[-1] += char
    if depth:
        raise AddressError(f'the brackets of {text!r} do not match')
    return items


def _with_weight(address: Address, word: str, text: str) -> Address:
    weight = float(word)
    if not 0 < weight < float('inf'):
        raise AddressError(f'the weight {word} in {text!r} is not above zero')
    if len(address.weights) == 2:
        raise AddressError(f'{text!r} has more than two weights')
    return address._replace(weights=(*address.weights, weight))


def _parse_word(word: str) -> Iterator[Address]:
    slots: int | None = None
    rest = word
    if match := re.fullmatch(_SLOTS, rest):
        slots, rest = int(match[1]), match[2]
        if slots < 1:
            raise AddressError(f'{word!r} has no slots')
    user: str | None
    user, at, rest = rest.rpartition('@')
    if not at:
        user = None
    elif ':' in user:
        raise AddressError(
            f'{user.partition(":")[0]}:***@{rest} holds a password',
            remedy='write user@name, and see --pass for ways to give a password',
        )
    elif not user or user.startswith('-') or user.endswith('\\') or re.search(_NOT_IN_A_USER, user):
        raise AddressError(f'{word!r} has no valid user before the @')
    pattern, port = _split_port(word, rest)
    for name in _expand(pattern):
        _check_name(name, word)
        yield Address(name, user, port, slots)


def _split_port(word: str, rest: str) -> tuple[str, int | None]:
    """Take the port off `name[:port]`; IPv6 addresses lose their brackets."""
    bracketed = re.fullmatch(r'\[([^\]]*:[^\]]*)\](?::(.*))?', rest, re.DOTALL)
    if bracketed:
        name, digits = bracketed[1], bracketed[2]
        _check_ipv6(name, word)
    elif rest.count(':') > 1:
        _check_ipv6(rest, word)
        return rest, None
    else:
        name, colon, after = rest.partition(':')
        digits = after if colon else None
    if digits is None:
        return name, None
    if not re.fullmatch(r'[0-9]{1,5}', digits) or not 1 <= int(digits) <= 65535:
        raise AddressError(f'the port of {word!r} is not a number from 1 to 65535')
    return name, int(digits)


def _check_ipv6(name: str, word: str) -> None:
    try:
        ipaddress.IPv6Address(name)
    except ValueError as error:
        raise AddressError(f'{word!r} holds no valid IPv6 address: {error}') from error
    if re.search(_NOT_IN_A_NAME, name.replace(':', '')):
        raise AddressError(f'{word!r} holds no valid IPv6 address')


def _check_name(name: str, word: str) -> None:
    if ':' in name:
        return  # IPv6, checked
    if not name:
        raise AddressError(f'{word!r} names no host')
    if name.startswith('-'):
        raise AddressError(f'{word!r} is an option, not a host')
    if bad := re.search(_NOT_IN_A_NAME, name):
        raise AddressError(f'{word!r} is no host: {bad[0]!r} cannot be part of a name')
    if re.fullmatch(_NUMBER, name):
        raise AddressError(f'{word!r} is a number, not a host', remedy='weights stand after the name of a host')


def _expand(pattern: str) -> Iterator[str]:
    """`node[1-3]` -> node1, node2, node3; the last bracket counts fastest."""
    if ':' in pattern or '[' not in pattern:
        return iter([pattern])
    parts: list[list[str]] = []
    count = 1
    for index, part in enumerate(re.split(r'\[([^\]]*)\]', pattern)):
        parts.append(_expand_numbers(part, pattern) if index % 2 else [part])
        count *= len(parts[-1])
        if count > MOST_HOSTS:
            raise AddressError(f'{pattern!r} means more than {MOST_HOSTS} hosts')
    return (''.join(combination) for combination in itertools.product(*parts))


def _expand_numbers(text: str, pattern: str) -> list[str]:
    """`01-03,7` -> 01, 02, 03, 7."""
    numbers: list[str] = []
    for item in text.split(','):
        match = re.fullmatch(_RANGE, item)
        if not match:
            raise AddressError(f'{item!r} in {pattern!r} is neither a number nor a range')
        first, last, step = match[1], match[2] or match[1], int(match[3] or 1)
        if int(last) < int(first) or step < 1:
            raise AddressError(f'the range {item!r} in {pattern!r} is empty')
        if (int(last) - int(first)) // step >= MOST_HOSTS:
            raise AddressError(f'{pattern!r} means more than {MOST_HOSTS} hosts')
        numbers += [str(number).zfill(_width(first)) for number in range(int(first), int(last) + 1, step)]
    return numbers
