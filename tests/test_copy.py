"""`remote_runner copy`: what stands on the hosts afterwards, and what is said of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.commands import Commands, Done, Word
from tests.test_files import rubbish
from tests.testbed import Testbed


class Copier(Commands):
    """Somebody in a folder of files, and a folder on the hosts that nobody else has."""

    def __init__(self, bed: Testbed, folder: Path) -> None:
        super().__init__(folder / 'home', bed.ssh_config)
        self.bed = bed
        self.here = folder / 'here'
        self.here.mkdir()
        self.base = f'/tmp/copies-{uuid4().hex}'

    def file(self, name: str, content: str | bytes = 'content\n', mode: int = 0o644) -> Path:
        path = self.here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    def copy(self, hosts: str, *words: Word, status: int | None = 0, **options: Any) -> Done:
        return self.run('copy', '-F', self.ssh_config, hosts, *words, status=status, cwd=self.here, **options)

    def there(self, path: str = '', host: str = 'h1') -> Path:
        return self.bed[host].path(self.base + path)

    def names(self, host: str = 'h1') -> list[str]:
        root = self.there(host=host)
        return sorted(str(path.relative_to(root)) for path in root.rglob('*'))


@pytest.fixture
def copier(bed: Testbed, tmp_path: Path) -> Iterator[Copier]:
    copier = Copier(bed, tmp_path)
    yield copier
    for host in bed.hosts:
        assert rubbish(host, '/tmp') == []
        shutil.rmtree(host.path(copier.base), ignore_errors=True)


class TestWhere:
    @pytest.mark.parametrize(
        ('sources', 'dest', 'expected'),
        [
            (['f'], '/new', ['new']),
            (['f'], '/new/deep', ['new', 'new/deep']),
            (['f'], '/new/', ['new', 'new/f']),
            (['f'], '/there', ['f', 'there/f']),
            (['f', 'g'], '/new', ['new', 'new/f', 'new/g']),
            (['d'], '/new', ['new', 'new/d', 'new/d/e', 'new/d/f', 'new/d/e/f']),
            (['d/'], '/new', ['new', 'new/e', 'new/f', 'new/e/f']),
            (['d/.'], '/new/', ['new', 'new/e', 'new/f', 'new/e/f']),
            (['d/', 'g'], '/new', ['new', 'new/e', 'new/f', 'new/e/f', 'new/g']),
            (['d/e', 'd/f'], '/new', ['new', 'new/e', 'new/e/f', 'new/f']),
            (['d/empty'], '/new', ['new', 'new/empty']),
        ],
    )
    def test_sources_and_dest(self, copier: Copier, sources: list[str], dest: str, expected: list[str]) -> None:
        for name in ('f', 'g', 'd/f', 'd/e/f'):
            copier.file(name, f'this is {name}')
        if sources == ['d/empty']:
            (copier.here / 'd/empty').mkdir()
        for host in ('h1', 'h2'):
            copier.there('/there', host).mkdir(parents=True)
        copier.copy('h[1-2]', *sources, copier.base + dest)
        for host in ('h1', 'h2'):
            wanted = {'there', *(name.replace('f', 'there/f', 1) if name == 'f' else name for name in expected)}
            assert set(copier.names(host)) == wanted
