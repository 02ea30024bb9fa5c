"""Batches from Python, on this machine."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest

from remote_runner.errors import HostsFailed
from remote_runner.hosts.address import parse_hosts
from remote_runner.hosts.ssh import Connector
from remote_runner.hosts.ssh_config import SshOptions
from remote_runner.jobs import places
from remote_runner.jobs.journal import Journal
from remote_runner.jobs.policy import Cause, Policy
from remote_runner.jobs.simple import results
from remote_runner.jobs.task import Task


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.delenv('XDG_STATE_HOME', raising=False)
    return tmp_path


HERE = parse_hosts(['3/localhost'])


def test_what_became_of_each() -> None:
    tasks = ['echo a', 'exit 3', Task('cat in; cat', inputs={'in': b'b', 'stdin': b'c'})]
    with Connector(SshOptions()) as connector:
        found = {result.position: result.ended for result in results(tasks, HERE, connector, Policy(retries=1))}
    assert found[0].results == {'stdout': b'a\n'}
    assert (found[1].outcome.cause, found[1].outcome.status, found[1].attempt) == (Cause.EXIT, 3, 2)
    assert found[2].results == {'stdout': b'bc'}


def test_leaving_early_ends_what_runs(home: Path) -> None:
    tasks = (f'echo {number}; test {number} = 0 || sleep 1000' for number in itertools.count())
    with Connector(SshOptions()) as connector:
        found = results(tasks, HERE, connector)
        assert next(found).ended.results == {'stdout': b'0\n'}
        found.close()  # type: ignore[attr-defined]
    left = [pid for pid in filter(str.isdigit, os.listdir('/proc')) if str(home) in folder_of(pid)]
    assert left == []


def test_a_clock_that_is_set_back_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for it, and nothing took less than no time."""
    real, hours = time.time, itertools.count()
    monkeypatch.setattr(time, 'time', lambda: real() - 3600 * next(hours))
    tasks = ['sleep 1000', *(f'sleep 0.1; echo {number}' for number in range(4)), 'sleep 1000']
    with Connector(SshOptions()) as connector:
        found = results(tasks, HERE, connector, Policy(timeout_share=3.0, retries=0))
        causes = {result.position: result.ended.outcome.cause for result in found}
    assert causes == {0: Cause.TIMEOUT, **dict.fromkeys(range(1, 5)), 5: Cause.TIMEOUT}
    [place] = places.places()
    with Journal.look(place.folder) as reader:
        took = [each.seconds for each in reader.attempts()]
    assert len(took) == 6
    assert all(seconds is not None and 0 <= seconds < 60 for seconds in took), took


def folder_of(pid: str) -> str:
    try:
        return os.readlink(f'/proc/{pid}/cwd')
    except OSError:
        return ''


def test_no_host(home: Path) -> None:
    with Connector(SshOptions(connect_timeout=2)) as connector, pytest.raises(HostsFailed, match='nosuch'):
        list(results(['true'], parse_hosts(['nosuch.invalid']), connector))
