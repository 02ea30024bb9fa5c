"""What facts of a host mean, and how findings are shown: `remote_runner doctor` without hosts."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest

from remote_runner.deploy.doctor import Diagnosis
from remote_runner.deploy.findings import (
    Finding,
    HostFacts,
    Level,
    Logind,
    Place,
    Screen,
    judge,
    judge_failure,
    kills_at_logout,
)
from remote_runner.errors import BootstrapFailed, HostUnreachable
from remote_runner.ui.doctor import doctor_text

WELL = HostFacts(
    user='anne',
    uid=1000,
    python='3.11.2',
    screen=Screen('/usr/bin/screen', '4.9.0', 9, 'No Sockets found in /run/screen/S-anne.'),
    logind=Logind(),
    places=(Place('home', '/home/anne', 1, 10**10, 10**6, 10**6, False), Place('/tmp', '/tmp', 2, 10**9, 0, 0, False)),
    home='/home/anne',
    home_error=None,
    runtime='/tmp/remote_runner-1000',
    runtime_problem='',
    clock_offset=0.01,
    nofile=None,
    sessions=10,
    start_seconds=0.1,
    printed='',
)


def levels(**changes: Any) -> dict[str, Level]:
    """The levels of what is not well about a host that differs from a good one in this."""
    findings = judge(dataclasses.replace(WELL, **changes))
    return {finding.check: finding.level for finding in findings if finding.level is not Level.OK}


class TestJudging:
    def test_well(self) -> None:
        assert levels() == {}

    @pytest.mark.parametrize(
        ('offset', 'words'),
        [(2.01, '2.0 s ahead'), (-3.25, '3.2 s behind'), (86400.0, '86400.0 s ahead'), (2.0, ''), (-1.99, ''), (0, '')],
    )
    def test_clocks(self, offset: float, words: str) -> None:
        [found] = [f for f in judge(dataclasses.replace(WELL, clock_offset=offset)) if f.check == 'clock']
        assert found.level is (Level.WARNING if words else Level.OK)
        assert words in found.what
        assert bool(found.remedy) == bool(words)

    def test_a_file_system_is_told_of_once(self) -> None:
        home = Place('home', '/root', 1, 5, 0, 0, False)
        places = (home, *(dataclasses.replace(home, name=name) for name in ('state folder', '/tmp')))
        found = [f for f in judge(dataclasses.replace(WELL, places=places)) if f.check == 'space']
        assert [(f.level, f.what) for f in found] == [(Level.WARNING, '0 MB free in home, state folder, /tmp (/root)')]

    def test_an_old_python(self) -> None:
        assert levels(python='3.5.3') == {'python': Level.ERROR}
        assert levels(python='3.6.0rc1') == {}

    def test_a_screen_that_hangs(self) -> None:
        screen = Screen('/usr/bin/screen', '', None, 'screen no end within 10 s')
        assert levels(screen=screen) == {'screen': Level.ERROR}

    @pytest.mark.parametrize(
        ('logind', 'user', 'kills'),
        [
            (Logind(), 'anne', False),
            (Logind(kill=True), 'anne', True),
            (Logind(kill=True), 'root', False),
            (Logind(kill=True, exclude=()), 'root', True),
            (Logind(kill=True, exclude=('anne',)), 'anne', False),
            (Logind(kill=True, only=('bert',)), 'anne', False),
            (Logind(only=('anne',)), 'anne', True),
            (Logind(kill=True, linger=True), 'anne', True),
        ],
    )
    def test_logout(self, logind: Logind, user: str, kills: bool) -> None:
        assert kills_at_logout(logind, user) is kills

    def test_failures(self) -> None:
        [found] = judge_failure(BootstrapFailed('no agent', host='h', remedy='mend it', output='a\nb\n'))
        assert found == Finding('agent', Level.ERROR, 'no agent\n    | a\n    | b', 'mend it')


def diagnosis(host: str, **changes: Any) -> Diagnosis:
    facts = dataclasses.replace(WELL, **changes)
    return Diagnosis(host, judge(facts), facts)


class TestText:
    def test_equal_hosts_are_folded(self) -> None:
        hosts = [diagnosis(f'node{n}', clock_offset=n / 100) for n in range(1, 41)]
        hosts[6] = diagnosis('node7', nofile=300, screen=Screen(None))
        assert doctor_text(hosts) == (
            'node[1-6,8-40]: all well (python 3.11.2, screen 4.9.0, clock +0.40 s)\n'
            'node7: 1 error, 1 warning (python 3.11.2, clock +0.01 s)\n'
            '  error: screen is not installed (install the package screen there)\n'
            '  warning: a program may have 300 files open '
            '(raise nofile, in /etc/security/limits.conf for example)\n'
        )

    def test_what_hosts_print_does_nothing_to_the_terminal(self) -> None:
        text = doctor_text([diagnosis('h', printed='\x1b[2J', screen=Screen('/bin/screen', '', 1, '\x07'))])
        assert '\x1b' not in text
        assert '\x07' not in text

    def test_colours(self) -> None:
        hosts = [diagnosis('good'), diagnosis('bad', nofile=3)]
        plain = doctor_text(hosts, verbose=True)
        colored = doctor_text(hosts, verbose=True, color=True)
        assert '\x1b[33mwarning\x1b[0m' in colored
        assert re.sub(r'\x1b\[[\d;]*m', '', colored) == plain

    def test_verbose_says_for_whom_it_holds(self) -> None:
        hosts = [diagnosis('h1'), diagnosis('h2'), diagnosis('h3', python='3.9.2')]
        lines = doctor_text(hosts, verbose=True).splitlines()
        assert lines[0].startswith('h[1-3]: all well (python 3.11.2/3.9.2, ')
        assert [line for line in lines if ' python: ' in line] == [
            '  ok: python: python 3.11.2 (h[1-2])',
            '  ok: python: python 3.9.2 (h3)',
        ]

    def test_exit_status(self) -> None:
        assert diagnosis('h').exit_status == 0
        assert diagnosis('h', nofile=3).exit_status == 0
        assert diagnosis('h', screen=Screen(None)).exit_status == 1
        error = HostUnreachable('refused', host='h')
        assert Diagnosis('h', judge_failure(error), out_of_reach=True).exit_status == 3

    def test_json(self) -> None:
        shown: dict[str, Any] = json.loads(json.dumps(diagnosis('h', nofile=3).to_dict()))
        assert shown['facts']['places'][0]['path'] == '/home/anne'
        assert [f['check'] for f in shown['findings'] if f['level'] == 'warning'] == ['nofile']
