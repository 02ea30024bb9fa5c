"""The record of a run on this machine: what later commands start from.

`~/.local/state/remote_runner/runs/<session>/<run id>/` (below XDG_STATE_HOME, if that is set) holds `record.json`, what
was to run where and how its hosts are reached, and `events.jsonl`, all that happened, as `--json` prints it. Secrets
are masked in both. Nobody else may read them (mode 0600).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from remote_runner.deploy.holder import whoami
from remote_runner.deploy.plan import Plan
from remote_runner.errors import UsageError
from remote_runner.events import (
    ComponentKept,
    ComponentPlaced,
    ComponentStarting,
    Event,
    FilesSending,
    FilesSent,
    ResultsFetching,
    RunStarted,
    SessionQuit,
)
from remote_runner.hosts.address import Address, parse_address

log = logging.getLogger(__name__)

#: The form of `record.json`; another number is another form.
VERSION = 1
#: Events of which each says that something is not on a host as it was.
_CHANGES = (SessionQuit, FilesSent, ComponentStarting, ComponentKept)
#: The file of a record whose components were all ended since.
_STOPPED = 'stopped'
#: Records of a session that are kept.
KEPT = 50


class Record(NamedTuple):
    """A run that was begun from this machine.

    Args:
        run: its id.
        session: its screen session.
        started: when, Unix time.
        by: who began it.
        config_file: the config; None if there was no file.
        ssh: how hosts are reached: the options `user`, `ssh_config`, where they were given.
        components: the plan's components, as `plan --json` shows them.
    """

    run: str
    session: str
    started: float
    by: str
    config_file: str | None
    ssh: dict[str, Any]
    components: list[dict[str, Any]]

    def is_stopped(self) -> bool:
        """Whether all of it was ended by `remote_runner stop`."""
        return (self._folder / _STOPPED).exists()

    def note_stop(self) -> None:
        """All of it has been ended."""
        try:
            (self._folder / _STOPPED).touch(0o600)
        except OSError as error:
            log.warning('the record of run %s cannot be written: %s', self.run, error)

    @property
    def _folder(self) -> Path:
        return runs_folder() / self.session / self.run


def runs_folder() -> Path:
    """Where the records of all sessions are."""
    state = os.environ.get('XDG_STATE_HOME') or Path('~/.local/state').expanduser()
    return Path(state) / 'remote_runner' / 'runs'


class Recorder:
    """Writes the record of one run: a listener of its events. What cannot be written is told once, and no more.

    Args:
        plan: what is carried out.
        ssh: how its hosts are reached, see `Record`.
        is_part: where the run has a record, components that are not in the plan stay there.
    """

    def __init__(self, plan: Plan, ssh: dict[str, Any], *, is_part: bool = False) -> None:
        self._plan = plan
        self._ssh = ssh
        self._is_part = is_part
        self._file: IO[str] | None = None
        self._begun: RunStarted | None = None
        self._placed: list[Address] = []
        self._is_recorded = False

    def __call__(self, event: Event) -> None:
        """Write one event. The first one makes the folder, the first that changes something the record.

        Later commands start from the newest record: a run that changed nothing must not hide the one that stands.
        """
        try:
            if isinstance(event, RunStarted):
                self._begun = event
                self._file = self._begin(event)
            elif isinstance(event, ComponentPlaced) and event.host is not None:
                self._placed.append(parse_address(event.host))
            elif isinstance(event, _CHANGES) and not self._is_recorded and self._begun and self._file:
                self._is_recorded = True
                self._write_record(self._begun)
            if self._file is not None and not isinstance(event, FilesSending | ResultsFetching):
                self._file.write(json.dumps(event.to_dict()) + '\n')
                self._file.flush()
        except OSError as error:
            self._file = None
            log.warning('the record of this run cannot be written: %s', error)

    def _begin(self, event: RunStarted) -> IO[str]:
        sessions = runs_folder() / event.session
        folder = sessions / event.run
        runs_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = _open_private(folder / 'events.jsonl', os.O_APPEND)
        for old in sorted(path for path in sessions.iterdir() if path.is_dir())[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)  # what cannot go now goes next time
        return file

    def _write_record(self, event: RunStarted) -> None:
        components = self._plan.placed(self._placed).to_dict()['components']
        if self._is_part:
            known = next((old.components for old in records(event.session) if old.run == event.run), [])
            own = {(c['name'], c['host']) for c in components}
            own |= {(c.name, c.placing.was) for c in self._plan.undecided() if c.placing is not None}
            components = [*(c for c in known if (c['name'], c['host']) not in own), *components]
        config_file = self._plan.config_file
        record = Record(event.run, event.session, event.time, whoami(), config_file, self._ssh, components)
        folder = runs_folder() / event.session / event.run
        whole = folder / f'record.{os.getpid()}.new'
        with _open_private(whole) as file:
            json.dump({'version': VERSION, **record._asdict()}, file)
        whole.rename(folder / 'record.json')
        (folder / _STOPPED).unlink(missing_ok=True)


def _open_private(path: Path, how: int = os.O_TRUNC) -> IO[str]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600), 'w')


def records(session: str) -> Iterator[Record]:
    """The records of a session, the newest first; one that is damaged is left out, with a warning."""
    folder = runs_folder() / session
    for path in sorted(folder.glob('*/record.json'), reverse=True):
        try:
            values = json.loads(path.read_text())
            if values.pop('version') == VERSION:
                yield Record(**values)
            else:
                log.warning('the record %s was written by another version of remote_runner', path)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning('the record %s cannot be read: %s', path, error)


def newest(session: str) -> Record:
    """The record of the last run of a session.

    Raises:
        UsageError: there is none.
    """
    for record in records(session):
        return record
    known = sorted(path.name for path in runs_folder().glob('*') if path.is_dir())
    there = f'there are some of {", ".join(known)}: --screen NAME; ' if known else ''
    remedy = f'{there}-c CONFIG or -H HOSTS find a session without a record'
    raise UsageError(f'no run of session {session} is recorded here', remedy=remedy)
