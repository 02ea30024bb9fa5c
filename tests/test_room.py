"""RR7, RR4: a run that a host has no room for ends nothing there."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploying import Deployment, Ended
from tests.testbed import Testbed
from tests.testbed.host import TestHost
from tests.testbed.process import wait_until

Beds = Callable[..., Testbed]
MB = 1 << 20


class Small:
    """A component on a host whose file system `/root/small` has 8 MB, and its files."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.host: TestHost = deployment.host()
        self.host.tmpfs('/root/small', '8M')
        self.folder = deployment.folder / 'files'
        self.folder.mkdir()

    def there(self, name: str) -> Path:
        return self.host.path(f'/root/small/{name}')

    def file(self, name: str, size: int, data: int | None = None) -> None:
        """A file of ours, with so many bytes of data, and a hole behind them."""
        path = self.folder / name
        path.write_bytes(os.urandom(size if data is None else data))
        os.truncate(path, size)

    def run(self, script: str = 'exec sleep 100000', base_dir: str | None = '/root/small', *options: str) -> Ended:
        self.deployment.clear()
        files = {str(path): path.name for path in sorted(self.folder.iterdir())}
        self.deployment.sh('it', script, base_dir=base_dir, files=files)
        self.deployment.sleep('far', 'h2')
        return self.deployment.run(*options)

    def is_refused(self, ended: Ended, needed: tuple[int, int], free: tuple[int, int], mount: str) -> None:
        """Nothing was changed, and what ran runs."""
        assert ended.status == 1
        told = rf'{mount} \(tmpfs\) has too little room: (\d+) bytes are needed, (\d+) are free'
        found = re.search(told, ended.stderr)
        assert found, ended.stderr
        assert needed[0] <= int(found[1]) <= needed[1]
        assert free[0] <= int(found[2]) <= free[1]
        assert f'session {self.deployment.session} runs on' in ended.stderr
        assert not ended.of('session_quit')


@pytest.fixture
def small(fresh_bed: Beds, tmp_path: Path) -> Small:
    return Small(Deployment(fresh_bed(2), tmp_path, f'room{os.getpid()}'))


def test_a_run_without_room_ends_nothing(small: Small) -> None:
    small.file('program', 5 * MB)
    first = small.run()
    assert first.status == 0, first.stderr
    pid, far = first.pid('it'), first.pid('far')
    old = small.there('program').read_bytes()
    # Both are there until the new one is whole.
    small.file('program', 4 * MB)
    small.is_refused(small.run(), (4 * MB, 4 * MB), (3 * MB - 65536, 3 * MB), '/root/small')
    assert small.deployment.runs(pid)
    assert small.deployment.runs(far, 'h2')
    assert small.there('program').read_bytes() == old
    assert [path.name for path in small.there('').iterdir()] == ['program']
    # With room it is replaced, and what is there already needs none.
    small.file('program', 3 * MB - 65536)
    small.file('second', 3 * MB)
    second = small.run()
    assert second.status == 0, second.stderr
    assert not small.deployment.runs(pid)
    third = small.run()
    assert third.status == 0, third.stderr


def test_a_hole_needs_no_room(small: Small) -> None:
    assert small.run().status == 0
    small.file('image', 100 * MB, MB)
    ended = small.run()
    assert ended.status == 0, ended.stderr
    assert small.there('image').stat().st_size == 100 * MB


def test_what_ends_with_the_session_is_room(small: Small) -> None:
    """A file that its program holds open, deleted or not, may be gone by then."""
    held = '/root/small/held'
    first = small.run(f'exec 3>{held}; head -c 6000000 /dev/zero >&3; rm {held}; : >/root/ready; exec sleep 100000')
    assert first.status == 0, first.stderr
    wait_until(small.host.path('/root/ready').exists, 'the file is written')
    small.file('program', 5 * MB)
    ended = small.run()
    assert ended.status == 0, ended.stderr


def test_where_there_is_no_base_dir(small: Small) -> None:
    """The files come into a new temporary folder, beside that of the run that is there; one that is kept needs none."""
    small.host.tmpfs('/tmp', '8M')
    small.file('program', 5 * MB)
    first = small.run(base_dir=None)
    assert first.status == 0, first.stderr
    small.is_refused(small.run(base_dir=None), (5 * MB, 5 * MB), (2 * MB, 3 * MB), '/tmp')
    assert small.deployment.runs(first.pid('it'))
    kept = small.run('exec sleep 100000', None, '--keep-running')
    assert kept.names('component_kept') == ['far', 'it'], kept.stderr
