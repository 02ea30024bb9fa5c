"""Files on their way: folders of small and of large files, new, unchanged and changed, to one host and to many, near
and far, beside what else copies files.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from benchmarks import peers, report, trees
from benchmarks.measure import Contender, Series, take_turns
from benchmarks.report import Limit
from benchmarks.stage import OURS, RECIPES, SCRATCH, Stage
from benchmarks.trees import MEGABYTE, Tree
from tests.testbed import Testbed, TestHost
from tests.testbed.delay import far_away
from tests.testbed.process import wait_until

HOSTS = 20
RUNS = 5
#: Seconds until a peer is given up, and the timed runs of those that are slow.
PATIENCE = 120.0
SLOW_RUNS = 2
SLOW = ('pyinfra', 'ansible')
#: Seconds of the far link, there and back.
ROUND_TRIP = 0.05
CHANGE = MEGABYTE
#: Where the copies of each contender lie on the hosts.
BASE = '/srv/bench'
#: Bytes of disk and of memory to be left free.
_SPARE = 3_000 * MEGABYTE

NOTES = {
    'rsync': 'rsync -a',
    'rsync-c': 'rsync -ac',
    'rsync-inplace': 'rsync -a --inplace --no-whole-file',
    'scp': 'scp -r',
    'tar': 'tar | ssh',
    'pyinfra': 'files.sync',
    'ansible': 'copy',
}
_ALL = ('rsync', 'rsync-c', 'scp', 'tar', 'pyinfra', 'ansible')
_NO_SLOW = ('rsync', 'rsync-c', 'scp', 'tar')


class Before(Enum):
    """What a run finds at the host."""

    NOTHING = auto()
    SAME = auto()
    #: All but CHANGE bytes in the middle.
    SIMILAR = auto()


@dataclass(frozen=True)
class Quantity:
    """Something that is limited."""

    name: str
    unit: str
    of: Callable[[Series], float]


def _megabytes(series: Series) -> float:
    return series.memory.largest / 1e6 if series.memory else float('nan')


SECONDS = Quantity('time', ' s', lambda series: series.median)
SENT = Quantity('bytes sent to the host', ' B', lambda series: series.median_sent)
MEMORY = Quantity('memory of the largest process', ' MB', _megabytes)


@dataclass(frozen=True)
class AtMost:
    """How much ours may take: so many times what the best of these peers takes, or without peers just so much."""

    amount: float
    than: tuple[str, ...] = ()
    quantity: Quantity = SECONDS


@dataclass(frozen=True)
class Row:
    """One thing to be done with files."""

    name: str
    title: str
    limits: tuple[AtMost, ...]
    peers: tuple[str, ...]
    #: Small files, or bytes of a large one.
    count: int = 0
    size: int = 0
    before: Before = Before.NOTHING
    hosts: int = 1
    is_far: bool = False
    #: One copy is there for all contenders, made beforehand.
    is_shared: bool = False
    note: str = ''


_FAR = (
    f'The host is {1000 * ROUND_TRIP:g} ms away, there and back: a proxy of the test bed delays each direction by '
    f'{500 * ROUND_TRIP:g} ms, and does not limit how fast the data flow. '
)
_AGAIN = 'Scp and tar send all again, as they always do. '
_TOO_SLOW = 'Pyinfra and ansible go file by file and are left out: they stand in the first table. '

ROWS = (
    Row('small', '2,000 small files, new', (AtMost(0.9, ('rsync',)),), _ALL, count=2_000),
    Row('many', '20,000 small files, new', (AtMost(0.9, ('rsync',)),), _NO_SLOW, count=20_000, note=_TOO_SLOW),
    Row(
        'same',
        '20,000 small files, unchanged',
        (AtMost(1.0, ('rsync',)), AtMost(0.5, ('rsync-c',))),
        _NO_SLOW,
        count=20_000,
        before=Before.SAME,
        note='Rsync -a compares times and sizes alone. ' + _AGAIN + _TOO_SLOW,
    ),
    Row('big', '300 MB, new', (AtMost(1.0, ('rsync', 'scp')),), _ALL, size=300 * MEGABYTE),
    Row(
        'huge',
        '4 GB, unchanged',
        (AtMost(0.1, ('rsync-c',)),),
        ('rsync', 'rsync-c', *SLOW),
        size=4_000 * MEGABYTE,
        before=Before.SAME,
        is_shared=True,
        note='Rsync -a compares times and sizes alone. Scp and tar would send all again and are left out. ',
    ),
    Row(
        'patch',
        '300 MB, of which 1 MB in the middle has changed',
        (AtMost(1.2, ('rsync-inplace',)), AtMost(1.2, ('rsync-inplace',), SENT)),
        ('rsync', 'rsync-inplace', 'scp', 'tar', *SLOW),
        size=300 * MEGABYTE,
        before=Before.SIMILAR,
        note='The first run finds nothing at the host. ' + _AGAIN,
    ),
    Row(
        'fleet',
        f'100 MB, new, to {HOSTS} hosts',
        (AtMost(0.8, ('rsync',)), AtMost(150, quantity=MEMORY)),
        ('rsync', 'scp', 'tar', *SLOW),
        size=100 * MEGABYTE,
        hosts=HOSTS,
        note=f'Of rsync, scp and tar there are {HOSTS} at once. ',
    ),
    Row(
        'far',
        '2,000 small files, new, far away',
        (AtMost(1.2, ('rsync',)),),
        ('rsync', 'scp', 'tar'),
        count=2_000,
        is_far=True,
        note=_FAR + _TOO_SLOW,
    ),
    Row(
        'far-same',
        '2,000 small files, unchanged, far away',
        (AtMost(1.5),),
        _NO_SLOW,
        count=2_000,
        before=Before.SAME,
        is_far=True,
        note=_FAR + _AGAIN + _TOO_SLOW,
    ),
)


@dataclass(frozen=True)
class Scene:
    """A row on its stage: the hosts that take part, and what they are to be sent."""

    stage: Stage
    row: Row
    hosts: Sequence[TestHost]
    tree: Tree

    @classmethod
    @contextmanager
    def of(cls, row: Row, bed: Testbed) -> Iterator[Scene]:
        """Make the files; with the scene they go, here and on the hosts."""
        with _ssh_config(row, bed) as ssh_config, Stage.on(bed, ssh_config) as stage:
            root = stage.scratch / 'tree'
            tree = Tree.of_small_files(root, row.count) if row.count else Tree.of_one_file(root, _fitting(row))
            scene = cls(stage, row, bed.hosts[: row.hosts], tree)
            try:
                if row.is_shared:
                    scene.share()
                yield scene
            finally:
                for host in scene.hosts:
                    shutil.rmtree(host.path(BASE), ignore_errors=True)

    def folder(self, name: str) -> str:
        """Where the contender puts its `tree`, on the hosts."""
        return f'{BASE}/{"all" if self.row.is_shared else name}'

    def copies(self, contender: Contender) -> list[Path]:
        """What it has put there, as seen from outside."""
        return [host.path(f'{self.folder(contender.name)}/tree') for host in self.hosts]

    def share(self) -> None:
        """One copy for all contenders, with the times of the files."""
        for host in self.hosts:
            folder = host.path(self.folder('all'))
            folder.mkdir(parents=True)
            subprocess.run(['cp', '-a', str(self.tree.root), str(folder)], check=True)

    @property
    def text(self) -> str:
        """What is done."""
        size = f'{self.tree.size / 1e6:,.0f} MB of random bytes'
        small = f'{self.row.count:,} files of 0.2 to 8 kB in folders of {trees.OF_FOLDER}'
        what = f'{small if self.row.count else "one file"}, {size}'
        less = self.row.size and self.tree.size < self.row.size
        where = f'{len(self.hosts)} hosts' if len(self.hosts) > 1 else 'one host'
        return (
            f'To {where}: {what}. {_FOUND[self.row.before]} {self.row.note}'
            + (f'**There was no room for the {self.row.size / 1e6:,.0f} MB that are meant.** ' if less else '')
            + f'A peer is given up after {PATIENCE:g} s and not run again.'
        )


_FOUND = {
    Before.NOTHING: 'Before each run the copy is removed.',
    Before.SAME: 'Each finds the copy of its run before, or of another; what it remembers of earlier runs stays.',
    Before.SIMILAR: f'Before each run {CHANGE / 1e6:g} MB in the middle of the file gets new contents.',
}


def measure(
    scene: Scene, runs: int, wanted: Callable[[str], bool], say: Callable[[str], None]
) -> tuple[list[Series], list[Limit]]:
    """All contenders of the row that are wanted, in turns, and how ours stands."""
    stage, row = scene.stage, scene.row

    def before(contender: Contender) -> None:
        for host, copy in zip(scene.hosts, scene.copies(contender), strict=True):
            host.path(scene.folder(contender.name)).mkdir(parents=True, exist_ok=True)
            if row.before is Before.NOTHING:
                shutil.rmtree(copy, ignore_errors=True)
        if row.before is Before.SIMILAR:
            scene.tree.change_middle(CHANGE)
        # Nobody is to write to the disk what another has left, nor to read from it what another finds in memory.
        subprocess.run(['sync'], check=True)
        for folder in (scene.tree.root, *scene.copies(contender)):
            trees.read(folder)

    def check(contender: Contender) -> str | None:
        for host, copy in zip(scene.hosts, scene.copies(contender), strict=True):
            fault = scene.tree.fault(copy)
            if fault:
                return f'{host.name}: {fault}'
        return None

    def after(contender: Contender) -> None:
        stage.close_masters()
        for host in scene.hosts:
            _wait_for_quiet(host, contender)
        if row.before is Before.NOTHING:
            for copy in scene.copies(contender):
                shutil.rmtree(copy, ignore_errors=True)

    contenders = [contender for contender in _contenders(scene) if wanted(contender.name)]
    series = take_turns(contenders, runs, before=before, check=check, after=after, say=say, wire=stage.wire)
    return series, [_limit(row, at_most, series) for at_most in row.limits]


def _wait_for_quiet(host: TestHost, contender: Contender) -> None:
    wait_until(lambda: not host.processes(), f'{host.name}: the end of what {contender.name} left there')


def _contenders(scene: Scene) -> list[Contender]:
    """Ours, then the peers of the row; each runs in a folder beside `tree`."""
    stage, hosts = scene.stage, ','.join(host.name for host in scene.hosts)
    config = stage.ssh_config
    ssh = f'ssh -F {config}'
    stage.configure_ansible()

    def each(*argv: str) -> list[str]:
        """One command a host, all at once; HOST stands for its name."""
        if len(scene.hosts) > 1:
            return [str(RECIPES / 'at_once.sh'), hosts, *argv]
        return [word.replace('HOST', hosts) for word in argv]

    def there(name: str) -> str:
        return f'{scene.folder(name)}/tree'

    def rsync(name: str, *options: str) -> list[str]:
        return each('rsync', *options, '-e', ssh, '../tree/', f'HOST:{there(name)}/')

    unpack = f'mkdir -p {there("tar")} && tar -C {there("tar")} -xpf -'
    pyinfra, ansible = peers.program('pyinfra'), peers.program('ansible')
    inventory = hosts if len(scene.hosts) > 1 else f'@ssh/{hosts}'  # one name alone may be a file or a module
    commands = {
        'ours': [OURS, 'copy', '-F', config, hosts, '../tree/', there('ours')],
        'rsync': rsync('rsync', '-a'),
        'rsync-c': rsync('rsync-c', '-ac'),
        'rsync-inplace': rsync('rsync-inplace', '-a', '--inplace', '--no-whole-file'),
        'scp': each('scp', '-r', '-F', config, '../tree', f'HOST:{scene.folder("scp")}/'),
        'tar': each('sh', '-c', f'tar -C ../tree -cf - . | {ssh} HOST "{unpack}"'),
        'pyinfra': [
            *(pyinfra, '-y', '--data', f'ssh_config_file={config}', inventory),
            *('files.sync', 'src=../tree', f'dest={there("pyinfra")}'),
        ],
        'ansible': [
            *(ansible, 'all', '-i', f'{hosts},', '-m', 'copy'),
            *('-a', f'src=../tree/ dest={there("ansible")}/ mode=preserve'),
        ],
    }
    return [
        stage.contender(
            name,
            *commands[name],
            note=NOTES.get(name, ''),
            patience=PATIENCE,
            most_runs=SLOW_RUNS if name in SLOW else None,
        )
        for name in ('ours', *scene.row.peers)
    ]


def _limit(row: Row, at_most: AtMost, series: Sequence[Series]) -> Limit:
    quantity = at_most.quantity

    def measured(name: str) -> float:
        one = report.by_name(series, name)
        return quantity.of(one) if one and one.good else float('nan')

    ours = measured('ours')
    if not at_most.than:
        return Limit(f'{row.title}: {quantity.name}', ours, at_most.amount, quantity.unit)
    what = f'{row.title}: {quantity.name}, in terms of {" or ".join(NOTES[name] for name in at_most.than)}'
    values = [measured(name) for name in at_most.than]
    unknown = any(value != value for value in values)
    return Limit(what, float('nan') if unknown else ours / min(values), at_most.amount, ' x')


@contextmanager
def _ssh_config(row: Row, bed: Testbed) -> Iterator[Path]:
    if row.is_far:
        with far_away(bed, ROUND_TRIP) as ssh_config:
            yield ssh_config
    else:
        yield bed.ssh_config


def _fitting(row: Row) -> int:
    """The bytes of the large file: fewer than are meant when this machine has no room for it and for its copies."""
    places = 1 + row.hosts
    room = shutil.disk_usage(SCRATCH).free
    if row.before is Before.SIMILAR:
        places = 1 + len(row.peers) + 1
    if row.is_shared:  # all of it is to be in the page cache
        room = min(room, _available_memory())
    return max(MEGABYTE, min(row.size, (room - _SPARE) // places // MEGABYTE * MEGABYTE))


def _available_memory() -> int:
    lines = Path('/proc/meminfo').read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith('MemAvailable:'))
