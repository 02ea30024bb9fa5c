"""`Component` and `Config`: the two classes that configs and muddlers work with."""

from __future__ import annotations

import copy
import textwrap
from collections import Counter
from collections.abc import Iterator
from typing import Any

from remote_runner.config.attributes import ATTRIBUTES
from remote_runner.config.reading import BadValueError, read_args
from remote_runner.errors import ConfigError
from remote_runner.nearest import nearest


class UnknownAttributeError(AttributeError):
    """An attribute that no component has; the message names the nearest that it has."""


class Component:
    """One program on one host.

    Set what is needed, then `config.add_component(component)` stores a copy; so one component may serve as a template
    that is changed and added again. Values are checked when the whole config is, all at once; only an attribute that
    does not exist is an error at once.

        component = Component()
        component.name = 'publisher'
        component.host = 'node1'
        component.executable = 'publisher.py'
        component.files = {'bin/publisher.py': 'publisher.py'}
        component.args = ['--port', 7000]
        config.add_component(component)
    """

    LEGAL_ATTRS = frozenset(ATTRIBUTES)

    def __init__(self, **attributes: Any) -> None:
        for attribute in ATTRIBUTES.values():
            self.__dict__[attribute.name] = attribute.default()
        for name, value in attributes.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        if name not in ATTRIBUTES:
            raise self._unknown(name)
        self.__dict__[name] = ATTRIBUTES[name].keep(value)

    def __delattr__(self, name: str) -> None:
        """Give the attribute its default again."""
        if name not in ATTRIBUTES:
            raise self._unknown(name)
        self.__dict__[name] = ATTRIBUTES[name].default()

    def __getattr__(self, name: str) -> Any:
        raise self._unknown(name)

    def __repr__(self) -> str:
        return f'<Component {self.label}>'

    @property
    def label(self) -> str:
        """`name@host`, as messages show it."""
        name, host = (self.__dict__.get(part) for part in ('name', 'host'))
        return f'{"(no name)" if name is None else name}@{"(no host)" if host is None else host}'

    def get_missing_attributes(self) -> list[str]:
        """The names of required attributes that are not set."""
        return [a.name for a in ATTRIBUTES.values() if a.required and self.__dict__.get(a.name) is None]

    def all_set(self) -> bool:
        """Whether all required attributes are set."""
        return not self.get_missing_attributes()

    def check_all_set(self) -> None:
        """Raises:
        ConfigError: a required attribute is not set.
        """
        missing = self.get_missing_attributes()
        if missing:
            raise ConfigError(f'{self.label}: not set: {", ".join(missing)}')

    def args_as_text(self) -> list[str]:
        """The arguments as the program will see them.

        Raises:
            ConfigError: one of them cannot be an argument; the message names its position.
        """
        try:
            return list(read_args(self.args))
        except BadValueError as bad:
            raise ConfigError('; '.join(f'{self.label}: {fault("args", reason)}' for reason in bad.reasons)) from None

    def read(self) -> tuple[dict[str, Any], list[str]]:
        """All values in the form that a plan holds, and all that is wrong with them.

        A value with a fault is missing in the first; faults do not name the component.
        """
        values: dict[str, Any] = {}
        missing = self.get_missing_attributes()
        faults = [f'{name} is not set' for name in missing]
        for attribute in ATTRIBUTES.values():
            if attribute.name not in missing:
                try:
                    values[attribute.name] = attribute.read(self.__dict__[attribute.name])
                except BadValueError as bad:
                    faults += [fault(attribute.name, reason) for reason in bad.reasons]
        return values, faults

    @staticmethod
    def _unknown(name: str) -> AttributeError:
        if name.startswith('__'):  # copy and pickle ask for such names, often
            return AttributeError(name)
        # Not named in the exception (its `name` and `obj`): Python would then add a suggestion of its own.
        known = nearest(name, ATTRIBUTES)
        return UnknownAttributeError(f'a Component has no attribute {name!r}; the nearest is {known!r}')


def fault(name: str, reason: str) -> str:
    """`args` and `[2] is None` become `args[2] is None`."""
    return f'{name}{reason}' if reason.startswith('[') else f'{name} {reason}'


def attributes_as_text() -> str:
    """The table of attributes as the section of a docstring."""
    entries = []
    for attribute in ATTRIBUTES.values():
        default = 'required' if attribute.required else f'default {attribute.default()!r}'
        text = f'{attribute.name}: {attribute.meaning} ({default})'
        entries.append(textwrap.fill(text, 116, initial_indent=' ' * 8, subsequent_indent=' ' * 12))
    return '    Attributes:\n' + '\n'.join(entries) + '\n'


Component.__doc__ = f'{(Component.__doc__ or "").rstrip()}\n\n{attributes_as_text()}    '


class Config:
    """All components of a run. A config finds one ready-made in its namespace, named `config`."""

    LOCAL_HOST = 'localhost'

    __slots__ = ('_components',)

    def __init__(self) -> None:
        self._components: list[Component] = []

    def __repr__(self) -> str:
        return f'<Config of {len(self._components)} components>'

    def add_component(self, component: Component) -> None:
        """Store a deep copy of `component`; the original may be changed and added again.

        Raises:
            TypeError: it is no Component.
        """
        if not isinstance(component, Component):
            raise TypeError(f'add_component takes a Component, not {component!r}')
        self._components.append(copy.deepcopy(component))

    def all_components(self) -> Iterator[Component]:
        """The stored components in the order in which they were added: changing one changes the run.

        Components may be added or cleared meanwhile; that does not change what is gone through.
        """
        return iter(tuple(self._components))

    def all_remote_components(self) -> Iterator[Component]:
        """The stored components that run on other hosts."""
        return (component for component in self.all_components() if component.host != self.LOCAL_HOST)

    def all_local_components(self) -> Iterator[Component]:
        """The stored components that run on this machine."""
        return (component for component in self.all_components() if component.host == self.LOCAL_HOST)

    def all_hosts(self) -> set[str]:
        """The hosts of all components, as they are written."""
        return {component.host for component in self._components}

    def clear_components(self) -> None:
        """Forget all components, as a muddler does that adds others in their place."""
        self._components = []

    def check_names_unique(self) -> None:
        """Raises:
        ConfigError: two components have the same name on the same host.
        """
        counts = Counter(component.label for component in self._components)
        twice = [label for label, count in counts.items() if count > 1]
        if twice:
            raise ConfigError(f'there are several components of the same name and host: {", ".join(twice)}')
