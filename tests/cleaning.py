"""A user of a host whom nobody else knows, and what `remote_runner clean` finds and removes there."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from tests.commands import Done, Site, Word, component
from tests.deploying import launchers
from tests.testbed import TestHost
from tests.testbed.process import wait_until

#: An agent of another version, as the cache names it.
OTHER = f'{"ab12" * 5}-cpython-311'


class Litter:
    """One user's things on one host of a site."""

    def __init__(self, site: Site, host: str = 'h1') -> None:
        self.site = site
        self.host: TestHost = site.bed[host]
        self.user = site.deployment.user('anne', host)
        self.where = f'{self.user}@{host}'
        self.account = self.host.account(self.user)
        self.home = self.host.path(self.account.home)
        self.runtime = self.host.path(f'/tmp/remote_runner-{self.account.uid}')
        self.cache = self.home / '.cache/remote_runner'

    def deploy(self, *names: str, status: int | None = 0, **attributes: Any) -> Done:
        """Deploy components; they sleep unless told otherwise."""
        self.site.write(*[component(name, self.where, **attributes) for name in names])
        return self.site.deploy(status=status)

    def stop(self, *names: str) -> None:
        """End components, and the session where none is named."""
        where = ['-F', self.site.ssh_config, '-H', self.where, '--screen', self.site.session]
        self.site.run('stop', *where, *names)

    def is_over(self, **attributes: Any) -> None:
        """A run that came and went."""
        self.deploy('sleeper', **attributes)
        self.stop()

    def ends(self) -> None:
        """Wait until the launchers of the session are gone; its windows stay."""
        wait_until(lambda: launchers(self.host, self.site.session) == [], 'the end of the components')

    def run(self, *arguments: Word, status: int | None = 0, **options: Any) -> Done:
        """`remote_runner clean`."""
        return self.site.run('clean', '-F', self.site.ssh_config, self.where, *arguments, status=status, **options)

    def clean(self, *arguments: Word, status: int | None = 0) -> dict[str, Any]:
        """What `clean --yes --json` says of the host."""
        [shown] = self.run('--yes', '--json', *arguments, status=status).objects
        return dict(shown)

    def shown(self, *arguments: Word) -> Counter[str]:
        """How much there is of each kind."""
        [shown] = self.run('--dry-run', '--json', *arguments).objects
        return Counter(item['kind'] for item in shown['items'])

    def runs(self) -> list[Path]:
        """The folders of runs, the oldest first."""
        return sorted(self.home.glob(f'.local/state/remote_runner/hosts/*/{self.site.session}/*'))

    def base_dirs(self) -> list[Path]:
        """The temporary folders of runs."""
        found = self.host.path('/tmp').iterdir()
        return sorted(path for path in found if re.fullmatch(r'remote_runner-.+-[0-9a-f]{10}', path.name))

    def mkdir(self, path: str, user: str | None = None) -> Path:
        """A new folder (mode 0700) of the user, or of somebody else."""
        self.host.run(['mkdir', '-p', '-m', '700', path], user=user or self.user)
        return self.host.path(path)

    def orphan(self, name: str = 'remote_runner-orphan-0123456789') -> Path:
        """A temporary folder with a file that no run knows."""
        folder = self.mkdir(f'/tmp/{name}')
        (folder / 'result').write_text('42\n')
        return folder

    def status(self, name: str) -> dict[str, Any]:
        """What the newest launcher of a component wrote."""
        paths = [path for run in self.runs() for path in run.glob('*/status.json')]
        found = [json.loads(path.read_text()) for path in paths]
        return dict([status for status in found if status['name'] == name][-1])


def outcomes(shown: dict[str, Any]) -> Counter[tuple[str, str]]:
    """How much of each kind was removed, kept, and could not be removed."""
    return Counter((item['kind'], item['outcome']) for item in shown['items'])
