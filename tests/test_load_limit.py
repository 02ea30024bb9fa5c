"""`--load`: jobs whose hosts get nothing new while they are busy with what else runs there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.batching import PATIENCE, WAIT, Batches, marking
from tests.burdens import Burden, burdened
from tests.testbed import Testbed
from tests.testbed.process import wait_until


@pytest.fixture(scope='module')
def burdens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Testbed, dict[str, Burden]]]:
    with Testbed(count=2) as bed:
        yield bed, burdened(bed, tmp_path_factory.mktemp('burdens'))


@pytest.fixture
def loads(burdens: tuple[Testbed, dict[str, Burden]]) -> dict[str, Burden]:
    for burden in burdens[1].values():
        burden.load(0.0)
    return burdens[1]


@pytest.fixture
def site(burdens: tuple[Testbed, dict[str, Burden]], tmp_path: Path) -> Iterator[Batches]:
    with Batches(burdens[0], tmp_path) as site:
        yield site


@pytest.fixture
def cores(site: Batches) -> int:
    return int(site.bed['h1'].run(['nproc']).stdout)


def test_a_busy_host_gets_nothing(site: Batches, loads: dict[str, Burden], cores: int) -> None:
    loads['h1'].load(1.6 * cores)
    loads['h2'].load(1.4 * cores)
    done = site.batch(['echo $RR_HOST'] * 10, '2/h1,2/h2', '--load', '1.5')
    assert done.stdout.split() == ['h2'] * 10


def test_it_gets_tasks_when_it_is_idle_and_what_runs_is_let_be(
    site: Batches, loads: dict[str, Burden], cores: int
) -> None:
    loads['h1'].load(9 * cores)
    with site.begin_batch([marking('echo $RR_HOST')] * 3, '1/h1', '--load', '1.5', '-l', 'INFO') as running:
        wait_until(lambda: b'it gets nothing new' in running.err, 'its load', PATIENCE)
        why = site.tell('explain', '1').stdout
        assert 'nothing is begun where the load per core is above 1.5: h1 (9.00), and no other host' in why
        [shown] = site.tell('show', '--json').objects
        assert (shown['running'], shown['done']) == (0, 0)
        assert site.marks().total() == 0
        loads['h1'].load(1.5 * cores)
        done = running.end(PATIENCE)
    assert done.status == 0, done
    assert 'h1: load 9.00 a core, above 1.5: it gets nothing new' in done.stderr
    assert 'h1: load 1.50 a core, it gets tasks again' in done.stderr


def test_a_host_becomes_busy(site: Batches, loads: dict[str, Burden], cores: int) -> None:
    options = ['--load', '1.5', '--no-duplicates', '-l', 'INFO']
    with site.begin_batch([marking(f'{WAIT}; echo $RR_HOST')] * 8, '1/h1,1/h2', *options) as running:
        site.wait_for_marks(2, running)
        loads['h1'].load(4 * cores)
        wait_until(lambda: b'h1: load 4.00 a core' in running.err, 'its load', PATIENCE)
        site.go()
        done = running.end(PATIENCE)
    assert sorted(done.stdout.split()) == ['h1', *['h2'] * 7]


def test_a_sweep_has_it_too(site: Batches, loads: dict[str, Burden], cores: int) -> None:
    loads['h1'].load(1.6 * cores)
    site.write(
        "config.add_sweep(Sweep(name='s', hosts=['2/h1,2/h2'], parameters=util.product(n=range(6)), load=1.5,\n"
        "                       command='echo $RR_HOST', collect=collect.concat('out')))\n"
    )
    site.run('sweep', site.config, '-F', site.ssh_config)
    assert (site.folder / 'out').read_text().split() == ['h2'] * 6
    loads['h1'].load(0.0)
    loads['h2'].load(0.6 * cores)
    site.run('sweep', site.config, '-F', site.ssh_config, '--load', '0.5')
    assert (site.folder / 'out').read_text().split() == ['h1'] * 6


def test_a_host_that_cannot_say_is_told_of(site: Batches, loads: dict[str, Burden], cores: int) -> None:
    loads['h1'].say('many')
    with site.begin_batch([f'{WAIT}; echo $RR_HOST'] * 3, '1/h1,1/h2', '--load', '1.5', '-l', 'INFO') as running:
        wait_until(lambda: b'/proc/loadavg cannot be understood' in running.err, 'what is wrong', PATIENCE)
        site.go()
        done = running.end(PATIENCE)
    assert done.stdout.split() == ['h2'] * 3, done


@pytest.mark.parametrize('text', ['0', '-1', 'x', 'nan', 'inf', ''])
def test_what_is_no_load(site: Batches, text: str) -> None:
    done = site.batch(['true'], 'h1', f'--load={text}', status=2)
    assert f'argument --load: {text!r} is not a number above 0' in done.stderr
