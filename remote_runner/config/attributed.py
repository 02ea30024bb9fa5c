"""What `Component` and `Sweep` have in common: attributes of a table, set freely and checked all at once."""

from __future__ import annotations

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from remote_runner.config.attributes import Attribute
from remote_runner.config.reading import BadValueError
from remote_runner.errors import ConfigError
from remote_runner.nearest import nearest


class UnknownAttributeError(AttributeError):
    """An attribute that nothing of this kind has; the message names the nearest that it has."""


class Attributed(ABC):
    """Has the attributes of a table and no others; a subclass says of which, and what messages call it."""

    LEGAL_ATTRS: ClassVar[frozenset[str]]
    _TABLE: ClassVar[Mapping[str, Attribute]]
    _KIND: ClassVar[str]

    def __init_subclass__(cls, table: Mapping[str, Attribute] | None = None) -> None:
        if table is not None:  # else it is a user's own subclass
            cls._TABLE = table
            cls._KIND = cls.__name__
            cls.LEGAL_ATTRS = frozenset(table)
            cls.__doc__ = f'{(cls.__doc__ or "").rstrip()}\n\n{attributes_as_text(table)}    '

    def __init__(self, **attributes: Any) -> None:
        for attribute in self._TABLE.values():
            self.__dict__[attribute.name] = attribute.default()
        for name, value in attributes.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self._TABLE:
            raise self._unknown(name)
        self.__dict__[name] = self._TABLE[name].keep(value)

    def __delattr__(self, name: str) -> None:
        """Give the attribute its default again."""
        if name not in self._TABLE:
            raise self._unknown(name)
        self.__dict__[name] = self._TABLE[name].default()

    def __getattr__(self, name: str) -> Any:
        raise self._unknown(name)

    def __repr__(self) -> str:
        return f'<{self._KIND} {self.label}>'

    @property
    @abstractmethod
    def label(self) -> str:
        """What messages call it."""

    def get_missing_attributes(self) -> list[str]:
        """The names of required attributes that are not set."""
        return [a.name for a in self._TABLE.values() if a.required and self.__dict__.get(a.name) is None]

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

    def read(self) -> tuple[dict[str, Any], list[str]]:
        """All values in the form that a plan holds, and all that is wrong with them.

        A value with a fault is missing in the first; faults do not name what has them.
        """
        values: dict[str, Any] = {}
        missing = self.get_missing_attributes()
        faults = [f'{name} is not set' for name in missing]
        for attribute in self._TABLE.values():
            if attribute.name not in missing:
                try:
                    values[attribute.name] = attribute.read(self.__dict__[attribute.name])
                except BadValueError as bad:
                    faults += [fault(attribute.name, reason) for reason in bad.reasons]
        return values, faults

    def _unknown(self, name: str) -> AttributeError:
        if name.startswith('__'):  # copy and pickle ask for such names, often
            return AttributeError(name)
        # Not named in the exception (its `name` and `obj`): Python would then add a suggestion of its own.
        known = nearest(name, self._TABLE)
        return UnknownAttributeError(f'a {self._KIND} has no attribute {name!r}; the nearest is {known!r}')


def fault(name: str, reason: str) -> str:
    """`args` and `[2] is None` become `args[2] is None`."""
    return f'{name}{reason}' if reason.startswith('[') else f'{name} {reason}'


def attributes_as_text(table: Mapping[str, Attribute]) -> str:
    """A table of attributes as the section of a docstring."""
    entries = []
    for attribute in table.values():
        default = 'required' if attribute.required else f'default {attribute.default()!r}'
        text = f'{attribute.name}: {attribute.meaning} ({default})'
        entries.append(textwrap.fill(text, 116, initial_indent=' ' * 8, subsequent_indent=' ' * 12))
    return '    Attributes:\n' + '\n'.join(entries) + '\n'
