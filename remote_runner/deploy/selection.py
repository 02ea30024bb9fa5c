"""Which components of a plan are meant: `--only` by their names, `--limit` by their hosts.

One whose host is not decided yet is where it ran last, as far as that is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from remote_runner.errors import UsageError
from remote_runner.hosts.address import Address, parse_hosts
from remote_runner.nearest import nearest

if TYPE_CHECKING:
    from remote_runner.deploy.component_plan import ComponentPlan


def only(components: Sequence[ComponentPlan], names: Iterable[str]) -> dict[int, ComponentPlan]:
    """Those whose name or `name@host` one of `names` matches, by their positions; see `Plan.only`."""
    known = list(dict.fromkeys(component.name for component in components))
    chosen: set[int] = set()
    unknown: list[str] = []
    for name in names:
        found = {
            position
            for position, component in enumerate(components)
            if any(_matches(text, name) for text in (component.name, component.label, component.where_it_was().label))
        }
        chosen |= found
        if not found:
            unknown.append(_unknown(name, known))
    if unknown:
        raise UsageError(f'no component is called {", ".join(unknown)}')
    return {position: components[position] for position in sorted(chosen)}


def limited(components: Sequence[ComponentPlan], hosts: Iterable[str]) -> dict[int, ComponentPlan]:
    """Those of these hosts, by their positions; see `Plan.limit`."""
    addresses = {where: address for component in components for where, address in _places(component).items()}
    chosen: set[str] = set()
    unknown: list[str] = []
    for text in hosts:
        for wanted in [text] if _is_pattern(text) else parse_hosts([text]):
            found = {host for host, address in addresses.items() if _is_meant(host, address, wanted)}
            chosen |= found
            if not found:
                unknown.append(_unknown(str(wanted), list(addresses)))
    if unknown:
        raise UsageError(f'no component runs on {", ".join(unknown)}')
    return {
        position: _limited(component, chosen)
        for position, component in enumerate(components)
        if chosen & _places(component).keys()
    }


def _places(component: ComponentPlan) -> dict[str, Address]:
    """The host on which a component is, or was last; those on which it may be, where it never ran on one of them."""
    placing = component.placing
    if placing is None or not component.is_undecided:
        return {component.host: component.address}
    found = {address.where: address for address in placing.candidates}
    return {placing.was: found[placing.was]} if placing.was in found else found


def _limited(component: ComponentPlan, hosts: set[str]) -> ComponentPlan:
    """The component, for which no other hosts come into question."""
    if component.placing is None or not component.is_undecided:
        return component
    left = tuple(address for address in component.placing.candidates if address.where in hosts)
    return component._replace(placing=component.placing._replace(candidates=left))


def _matches(text: str, pattern: str) -> bool:
    return text == pattern or fnmatchcase(text, pattern)


def _is_pattern(text: str) -> bool:
    return not text.startswith('@') and ('*' in text or '?' in text)


def _is_meant(host: str, address: Address, wanted: str | Address) -> bool:
    if isinstance(wanted, str):
        return _matches(host, wanted) or _matches(address.name, wanted)
    same_user, same_port = wanted.user in (None, address.user), wanted.port in (None, address.port)
    return address.name == wanted.name and same_user and same_port


def _unknown(name: str, known: list[str]) -> str:
    found = nearest(name, known)
    return f'{name!r} (the nearest is {found!r})' if found else f'{name!r}'
