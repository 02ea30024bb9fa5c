"""Fixtures for tests that need hosts."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from remote_runner.hosts.host import Host
from tests.burdens import GB, Burden, burdened
from tests.deploying import Deployment, deploying
from tests.living import Lives, connected
from tests.testbed import Testbed


def pytest_configure() -> None:
    """No example of hypothesis is too slow: others work on this machine, too.

    And what the tests start begins with default signals, whatever started them: nohup(1), a shell in the background.
    Those that are ignored do nothing to us as before: so says a handler, which no program inherits.
    """
    settings.register_profile('busy', deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile('busy')
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own on this machine, for agents and what they run."""
    folder = tmp_path / "home with 'odd' $characters"
    folder.mkdir()
    monkeypatch.setenv('HOME', str(folder))
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.delenv('XDG_STATE_HOME', raising=False)
    return folder


@pytest.fixture(scope="session")
def bed() -> Iterator[Testbed]:
    """Three hosts shared by all tests of a session (with xdist: of a worker): leave them as you found them."""
    with Testbed(count=3) as bed:
        yield bed


@pytest.fixture(scope='module')
def own() -> Iterator[Testbed]:
    """Three hosts of a module, to be cut and changed at will, and healed at the end of each test."""
    with Testbed(count=3) as bed:
        yield bed


@pytest.fixture(scope='module')
def burdens(own: Testbed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Burden]:
    """What these hosts say of their load and memory, by name."""
    return burdened(own, tmp_path_factory.mktemp('burdens'))


@pytest.fixture
def loads(burdens: dict[str, Burden]) -> dict[str, Burden]:
    """The same, where all hosts are idle."""
    for burden in burdens.values():
        burden.load(0.0)
        burden.memory(8 * GB)
    return burdens


@pytest.fixture
def fresh_bed() -> Iterator[Callable[..., Testbed]]:
    """Hosts for one test alone, to cut, kill and change at will: `fresh_bed(2)`, arguments as for Testbed."""
    with ExitStack() as beds:
        yield lambda count=1, **options: beds.enter_context(Testbed(count, **options))


@pytest.fixture
def deployment(bed: Testbed, tmp_path: Path) -> Iterator[Deployment]:
    """Components to be deployed on the hosts of `bed`, which are as they were afterwards."""
    with deploying(bed, tmp_path) as deployment:
        yield deployment


@pytest.fixture
def lives(deployment: Deployment) -> Lives:
    """Components of `deployment` whose lives can be counted."""
    return Lives(deployment)


@pytest.fixture
def agent(deployment: Deployment) -> Iterator[Host]:
    """The first host of `deployment`, to be asked what commands ask it."""
    with connected(deployment) as host:
        yield host


def pytest_exception_interact(node: pytest.Item | pytest.Collector, report: pytest.TestReport) -> None:
    """Add what there is to see on the hosts to the report of a test that failed."""
    for value in getattr(node, 'funcargs', {}).values():
        if isinstance(value, Deployment):
            report.sections.append(('hosts', value.scene()))
