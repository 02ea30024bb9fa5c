"""`Component` and `Config`: the two classes that configs and muddlers work with."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from remote_runner.config.attributed import Attributed, fault
from remote_runner.config.attributes import ATTRIBUTES
from remote_runner.config.reading import BadValueError, read_args
from remote_runner.errors import ConfigError

if TYPE_CHECKING:
    from remote_runner.config.sweep import Sweep
    from remote_runner.config.usercode import Caller


class Component(Attributed, table=ATTRIBUTES):
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

    @property
    def label(self) -> str:
        """`name@host`, as messages show it."""
        name, host = (self.__dict__.get(part) for part in ('name', 'host'))
        return f'{"(no name)" if name is None else name}@{"(no host)" if host is None else host}'

    def args_as_text(self) -> list[str]:
        """The arguments as the program will see them.

        Raises:
            ConfigError: one of them cannot be an argument; the message names its position.
        """
        try:
            return list(read_args(self.args))
        except BadValueError as bad:
            raise ConfigError('; '.join(f'{self.label}: {fault("args", reason)}' for reason in bad.reasons)) from None


class Config:
    """All components and sweeps of a run. A config finds one ready-made in its namespace, named `config`."""

    LOCAL_HOST = 'localhost'

    __slots__ = ('_caller', '_components', '_sweeps')

    def __init__(self, caller: Caller | None = None) -> None:
        self._components: list[Component] = []
        self._sweeps: list[Sweep] = []
        self._caller = caller

    def __repr__(self) -> str:
        sweeps = f' and {len(self._sweeps)} sweeps' if self._sweeps else ''
        return f'<Config of {len(self._components)} components{sweeps}>'

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

    def add_sweep(self, sweep: Sweep) -> None:
        """Store a deep copy of `sweep`; the original may be changed and added again.

        Raises:
            TypeError: it is no Sweep.
        """
        from remote_runner.config.sweep import Sweep  # late: most configs have none

        if not isinstance(sweep, Sweep):
            raise TypeError(f'add_sweep takes a Sweep, not {sweep!r}')
        self._sweeps.append(copy.deepcopy(sweep))

    def all_sweeps(self) -> Iterator[Sweep]:
        """The stored sweeps in the order in which they were added: changing one changes the run."""
        return iter(tuple(self._sweeps))

    def clear_sweeps(self) -> None:
        """Forget all sweeps."""
        self._sweeps = []

    @property
    def caller(self) -> Caller | None:
        """What calls functions of the users' files later on (for the plan); None: nothing special does."""
        return self._caller

    def check_names_unique(self) -> None:
        """Raises:
        ConfigError: two components have the same name on the same host.
        """
        counts = Counter(component.label for component in self._components)
        twice = [label for label, count in counts.items() if count > 1]
        if twice:
            raise ConfigError(f'there are several components of the same name and host: {", ".join(twice)}')
