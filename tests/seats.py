"""Somebody at a terminal that is relayed, as `tests/attach_driver.py` does it, to windows of a deployment."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.attaching import Terminal
from tests.deploying import Deployment
from tests.testbed.process import wait_until

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 30.0  # seconds; the longest that anything may take to appear
#: A program that keeps each line that it reads, and says so.
KEEPS = 'stty -echo; echo ready; while read -r line; do echo "$line" >>{kept}; echo "got $line"; done'


class Seat:
    """Somebody at a terminal in which the driver runs, between two looks at the terminal's modes."""

    def __init__(self, folder: Path, arguments: list[str], *, term: str | None = None, **size: int) -> None:
        self.folder = folder
        driver = shlex.join([sys.executable, '-m', 'tests.attach_driver', *arguments])
        set_term = f'export TERM={shlex.quote(term)}; ' if term is not None else ''
        script = (
            f'cd {ROOT}; stty -g >{folder}/before; echo this was here; '
            f"{set_term}sh -c 'echo $$ >{folder}/pid; exec \"$@\"' sh {driver}; "
            f'echo "status $?"; stty -g >{folder}/after; exec cat'
        )
        for name in ('before', 'after', 'pid'):
            (folder / name).unlink(missing_ok=True)
        self.terminal = Terminal(folder, ['sh', '-c', script], **size)

    @property
    def pid(self) -> int:
        return int((self.folder / 'pid').read_text())

    def given_back(self, status: int) -> str:
        """Wait for the end of the driver; what the terminal shows, which is in its old mode."""
        text = self.terminal.wait_for(f'status {status}')
        wait_until(lambda: (self.folder / 'after').exists() and (self.folder / 'after').read_text() != '', 'stty')
        assert (self.folder / 'after').read_text() == (self.folder / 'before').read_text()
        assert self.terminal.shows_cursor()
        return text


class Office:
    """A deployment, and seats from which its windows are attached to."""

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self.deployment = deployment
        self.folder = folder
        self.seats: list[Seat] = []

    def keeper(self, name: str = 'keeper', **attributes: str) -> str:
        """Add a component that keeps what it reads; the file."""
        kept = f'/tmp/{name}-{self.deployment.session}'
        self.deployment.sh(name, KEEPS.format(kept=kept), **attributes)
        return kept

    def run(self) -> None:
        ended = self.deployment.run()
        assert ended.status == 0, ended.stderr

    def window(self, name: str, host: str = 'h1', user: str | None = None) -> list[str]:
        """The driver's arguments for the window of a component."""
        session = self.deployment.the_session(host, user)
        [number] = [number for number, title in self.deployment.windows(host, user).items() if title == name]
        where = f'{user}@{host}' if user else host
        return [where, 'window', str(session.pid), session.name, str(number)]

    def sit(self, *arguments: str, config: Path | None = None, term: str | None = None, **size: int) -> Seat:
        config = config or self.deployment.bed.ssh_config
        seat = Seat(self.folder, ['-F', str(config), *arguments], term=term, **size)
        self.seats.append(seat)
        return seat

    def state(self) -> str:
        return self.deployment.the_session().state


@contextmanager
def at_work(deployment: Deployment, folder: Path) -> Iterator[Office]:
    """An office whose seats are left afterwards."""
    office = Office(deployment, folder)
    try:
        yield office
    finally:
        for seat in office.seats:
            seat.terminal.close()
