"""A session that stands, and the commands on it as its users type them.

    with Standing(bed, tmp_path) as site:
        site.write(sh('broker', 'h1', 'exec sleep 1000'))
        site.deploy()
        assert site.seen()['broker@h1']['state'] == 'started'
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from tests.commands import Commands, Done, Running, Site, Word
from tests.testbed.process import wait_until

Json = dict[str, Any]


def sh(name: str, host: str, script: str, raw: str = '', **more: Any) -> str:
    """The line of a config that adds a component that runs a script by sh; `raw` are attributes as they are typed."""
    values = {'name': name, 'host': host, 'executable': '/bin/sh', 'args': ['-c', script], **more}
    return f'config.add_component(Component(**{values!a}{", " if raw else ""}{raw}))\n'


def python(name: str, host: str, program: str, **more: Any) -> str:
    """The same for one that runs a program by the host's Python."""
    return sh(name, host, '', executable='/usr/bin/python3', args=['-ISc', program], **more)


class Standing(Site):
    """A site with the commands that come after the deployment."""

    def later(self, command: str, *arguments: Word, status: int | None = 0, **options: Any) -> Done:
        """A command on our session, which it finds by the record."""
        return self.run(command, '--screen', self.session, *arguments, status=status, **options)

    def begin_later(self, command: str, *arguments: Word, **options: Any) -> Running:
        """The same, not waited for."""
        return self.start(command, '--screen', self.session, *arguments, **options)

    def from_elsewhere(self) -> Commands:
        """The commands of somebody who has no record of anything; `elsewhere` are the options that they need."""
        return Commands(self.folder / 'another home', self.ssh_config)

    def elsewhere(self, hosts: str) -> list[Word]:
        """The options by which a session is found without a record."""
        return ['-F', self.ssh_config, '--screen', self.session, '-H', hosts]

    def seen(self, *arguments: Word) -> dict[str, Json]:
        """What `status --json` says of each component, by label."""
        return by_label(self.later('status', '--json', *arguments, status=None))

    def states(self, *arguments: Word) -> dict[str, str]:
        """The state of each component, by label."""
        return {label: seen['state'] for label, seen in self.seen(*arguments).items()}

    def table(self, *arguments: Word, status: int | None = 0) -> list[str]:
        """The lines of `status`."""
        return self.later('status', *arguments, status=status).stdout.splitlines()

    def comes_to(self, label: str, state: str, restarts: int = 0) -> Json:
        """Wait until the status file of a component says so; what `status` then says of it."""
        name, _, host = label.rpartition('@')

        def is_so() -> bool:
            path = self.deployment.output_log(name, host).with_name('status.json')
            says = json.loads(path.read_text())
            return bool(says['state'] == state and says.get('restarts', 0) >= restarts)

        wait_until(is_so, f'{label} to be {state}', 30)
        return self.seen(label)[label]

    def pid(self, label: str) -> int:
        """The pid of the program, as its host sees it."""
        return int(self.seen(label)[label]['pid'])

    def by(self) -> str:
        """Who we are, as others see it."""
        return f'root on {socket.gethostname()}'

    def runs_folder(self) -> Path:
        """Where the records of our session are."""
        return self.home / '.local/state/remote_runner/runs' / self.session


def by_label(done: Done) -> dict[str, Json]:
    """The components of `status --json`."""
    return {f'{seen["name"]}@{seen["host"]}': seen for seen in json.loads(done.stdout)['components']}


def placed(done: Done) -> dict[str, str]:
    """On which hosts components run of which that was decided."""
    return {event['component']: event['host'] for event in done.events('component_placed')}
