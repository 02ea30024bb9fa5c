"""RR16: the example on three hosts, with the muddler and the arg parser, as a newcomer tries it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import ROOT, Site
from tests.deploying import ancestors
from tests.testbed import Testbed
from tests.testbed.process import wait_until

HOSTS = ['h1', 'h2', 'h3']


@pytest.fixture
def site(bed: Testbed, tmp_path: Path) -> Iterator[Site]:
    with Site(bed, tmp_path) as site:
        site.config = ROOT / 'example/config.py'
        yield site


def test_with_muddler_and_extra_args(site: Site) -> None:
    extra = '--hosts h[1-3] --harness example/harness --harness-args "--log harness.log" --user-count 3 --messages 0'
    words = ['-m', 'muddlers/ta3_muddler.py', '--arg-parser', 'example/arg_parser.py', '--extra-args', extra]
    done = site.deploy(*words, cwd=ROOT)
    names = ['publisher', 'subscriber-1', 'subscriber-2', 'subscriber-3']
    started = [(event['component'], event['host']) for event in done.events('component_started')]
    assert sorted(started) == [(name, host) for name in sorted(names) for host in HOSTS]
    assert {name for name, _ in started[:3]} == {'publisher'}
    for host in HOSTS:
        assert sorted(site.deployment.windows(host).values()) == names
        [pid] = [event['pid'] for event in done.events('component_started', component='publisher', host=host)]
        harness = site.deployment.argv(pid, host)
        assert harness[-6:] == ['-p', 'publisher', '-a', '--port 7300 --messages 0', '--log', 'harness.log']
        [program] = [process for process in site.bed[host].processes() if process.argv[-1:] == ['0']]
        assert program.argv[-4:] == ['--port', '7300', '--messages', '0']
        assert ancestors(site.bed[host], program.pid)[0].pid == pid
        for number in (1, 2, 3):
            log = site.deployment.output_log(f'subscriber-{number}', host)
            said = re.compile(rf'user {number} of 3 on {host}: message \d+')
            wait_until(lambda log=log, said=said: bool(said.search(log.read_text())), f'{log}')  # type: ignore[misc]
        log = site.deployment.output_log('publisher', host)
        wait_until(lambda log=log: ' to 3 subscribers' in log.read_text(), 'all subscribers')  # type: ignore[misc]
        assert re.search(r'^\[ *\d+\.\d{3}\] started .*/publisher as process', log.read_text(), re.MULTILINE)
    again = site.deploy(*words, cwd=ROOT)
    assert len(again.events('component_started')) == 12
    assert [event['sessions'] for event in again.events('session_quit')] == [1, 1, 1]


def test_as_it_is(site: Site) -> None:
    done = site.deploy('--limit', 'h1', cwd='/')
    assert sorted(event['component'] for event in done.events('component_started')) == [
        'publisher', 'subscriber-1', 'subscriber-2'
    ]  # fmt: skip
    assert site.run('-c', site.config, '-a', ROOT / 'example/arg_parser.py', '--extra-args=--help').stdout


def test_on_this_machine(site: Site) -> None:
    site.config = ROOT / 'example/local.py'
    done = site.deploy()
    assert [event['component'] for event in done.events('component_started')] == ['clock', 'countdown']
    assert len(site.sessions_here()) == 1
