"""Hosts that say of their load and memory what a test wants: files in the place of the kernel's."""

from __future__ import annotations

from pathlib import Path

from tests.testbed import Testbed, TestHost

#: Bytes of each file: what is written into them is whole at any time, for their sizes never change.
_SIZE = 512
GB = 1_000_000_000


class Burden:
    """What one host says."""

    def __init__(self, host: TestHost, folder: Path) -> None:
        self._loadavg, self._meminfo = folder / 'loadavg', folder / 'meminfo'
        self.load(0.0)
        self.memory(8 * GB, 8 * GB)
        host.share('/proc/loadavg', self._loadavg)
        host.share('/proc/meminfo', self._meminfo)

    def load(self, average: float) -> None:
        """This is its load average of the last minute."""
        self.say(f'{average:.2f} 0.00 0.00 1/100 4711')

    def say(self, text: str) -> None:
        """`/proc/loadavg` says this."""
        _write(self._loadavg, text)

    def memory(self, free: int, total: int = 8 * GB, swap: int = 0, free_swap: int = 0) -> None:
        """Bytes."""
        found = {'MemTotal': total, 'MemFree': free // 2, 'MemAvailable': free}
        found |= {'SwapTotal': swap, 'SwapFree': free_swap}
        _write(self._meminfo, ''.join(f'{name + ":":16}{number // 1024:8} kB\n' for name, number in found.items()))


def _write(path: Path, text: str) -> None:
    data = text.encode().ljust(_SIZE, b'\n')
    if path.exists():
        with path.open('r+b', buffering=0) as file:
            file.write(data)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def burdened(bed: Testbed, folder: Path) -> dict[str, Burden]:
    """All hosts of a bed, idle for now."""
    return {host.name: Burden(host, folder / host.name) for host in bed.hosts}
