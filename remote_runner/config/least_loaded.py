"""Where a component runs that may run on one of many hosts: what `util.least_loaded` gives.

It is pure data. Which host it will be is decided when the run is carried out, see `deploy/decide.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from remote_runner.hosts.address import Address, fold


@dataclass(frozen=True, slots=True)
class LeastLoaded:
    """The least loaded of some hosts. Two of equal values are the same.

    Args:
        hosts: which, with their weights; None: those of the cluster file.
        min_memory: bytes of memory that must be free there.
        platform: as `linux-x86_64`; None: any.
        count: on how many of them the component runs; None: on one.
        spread: of those components that have the same value here (True: all that have an equal `LeastLoaded`; text: a
            name for them) no two run on one host; False: they may.
    """

    hosts: tuple[Address, ...] | None
    min_memory: int = 0
    platform: str | None = None
    count: int | None = None
    spread: bool | str = False

    def __str__(self) -> str:
        """What stands where the name of a host would."""
        return f'least_loaded({fold(address.where for address in self.hosts or ())})'

    def __repr__(self) -> str:
        values: list[str] = [] if self.hosts is None else [repr([str(address) for address in self.hosts])]
        for name, default in (('min_memory', 0), ('platform', None), ('count', None), ('spread', False)):
            if (value := getattr(self, name)) != default:
                values.append(f'{name}={value!r}')
        return f'util.least_loaded({", ".join(values)})'

    @property
    def group(self) -> str | None:
        """What those have in common of which no two run on one host."""
        if not self.spread:
            return None
        return repr(self) if self.spread is True else self.spread
