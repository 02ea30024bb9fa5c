"""The user's terminal as that of a window of a session, on real terminals (tmux)."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from tests.commands import ssh_config
from tests.deploying import Deployment, kill
from tests.seats import KEEPS, PATIENCE, ROOT, Office, Seat, at_work
from tests.testbed import Testbed
from tests.testbed.process import wait_until


@pytest.fixture
def office(deployment: Deployment, tmp_path: Path) -> Iterator[Office]:
    with at_work(deployment, tmp_path) as office:
        yield office


class TestWindows:
    def test_it_is_shown_and_gets_the_keys_until_it_is_left(self, office: Office) -> None:
        for name in ('other', 'keeper', 'third'):
            kept = office.keeper(name)
        kept = kept.replace('third', 'keeper')
        office.run()
        seat = office.sit(*office.window('keeper'))
        seat.terminal.wait_for('ready')
        seat.terminal.press('hello there', 'Enter')
        seat.terminal.wait_for('got hello there')
        assert office.state() == 'Attached'
        seat.terminal.press('C-a', 'd')
        seat.given_back(0)
        assert office.deployment.text(kept) == 'hello there\n'
        assert office.state() == 'Detached'

    def test_keys_of_all_kinds_reach_the_program(self, office: Office) -> None:
        office.deployment.sh('raw', 'stty raw -echo; printf ready; head -c 6 | od -An -tx1')
        office.run()
        seat = office.sit(*office.window('raw'))
        seat.terminal.wait_for('ready')
        seat.terminal.press('C-c', 'C-z', 'C-\\', 'C-d', 'Enter', 'Tab')
        seat.terminal.wait_for('03 1a 1c 04 0d 09')

    def test_its_size_is_that_of_the_terminal(self, office: Office) -> None:
        program = (
            'import os, signal\n'
            'def show(*_):\n    print("%d x %d." % os.get_terminal_size(0), flush=True)\n'
            'signal.signal(signal.SIGWINCH, show)\nprint("ready")\nshow()\nwhile True: signal.pause()'
        )
        office.deployment.python('sized', program)
        office.run()
        seat = office.sit(*office.window('sized'), width=97, height=31)
        seat.terminal.wait_for('97 x 31.')
        seat.terminal.resize(70, 20)
        seat.terminal.wait_for('70 x 20.')
        seat.terminal.resize(101, 33)
        seat.terminal.wait_for('101 x 33.')

    def test_utf8(self, office: Office) -> None:
        kept = office.keeper()
        office.run()
        seat = office.sit(*office.window('keeper'))
        seat.terminal.wait_for('ready')
        seat.terminal.press('grüße €5 日本', 'Enter')
        seat.terminal.wait_for('got grüße €5 日本')
        assert office.deployment.text(kept) == 'grüße €5 日本\n'

    def test_two_terminals_show_different_windows(self, office: Office) -> None:
        office.keeper('one')
        office.keeper('two')
        office.run()
        seats = []
        for name in ('one', 'two'):
            folder = office.folder / name
            folder.mkdir()
            seat = Seat(folder, ['-F', str(office.deployment.bed.ssh_config), *office.window(name)])
            office.seats.append(seat)
            seats.append(seat)
            seat.terminal.wait_for('ready')
        for seat, word in zip(seats, ('first', 'second'), strict=True):
            seat.terminal.press(word, 'Enter')
            seat.terminal.wait_for(f'got {word}')
        assert 'second' not in seats[0].terminal.text()
        assert 'first' not in seats[1].terminal.text()

    def test_the_end_of_the_session(self, office: Office) -> None:
        office.keeper()
        office.run()
        seat = office.sit(*office.window('keeper'))
        seat.terminal.wait_for('ready')
        office.deployment.quit()
        assert '[screen is terminating]' in seat.given_back(0)

    @pytest.mark.parametrize('term', ['xterm-unheard-of', ''])
    def test_a_kind_of_terminal_that_the_host_does_not_know(self, office: Office, term: str) -> None:
        office.keeper()
        office.run()
        seat = office.sit(*office.window('keeper'), term=term)
        seat.terminal.wait_for('ready')
        seat.terminal.press('C-a', 'd')
        seat.given_back(0)

    @pytest.mark.parametrize('hidden', [['infocmp'], ['infocmp', 'tput']])
    def test_where_the_host_has_no_tools_to_know_it_by(self, office: Office, hidden: list[str]) -> None:
        office.keeper()
        office.run()
        for program in hidden:
            office.deployment.host().hide(program)
        try:
            for term in ('xterm-unheard-of', 'vt220'):
                seat = office.sit(*office.window('keeper'), term=term)
                seat.terminal.wait_for('ready')
                servers = office.deployment.processes('-x')
                assert servers, 'nobody is attached'
                environment = (office.deployment.host().root / f'proc/{servers[-1].pid}/environ').read_bytes()
                assert f'\0TERM={"vt220" if term == "vt220" else "xterm-256color"}\0'.encode() in environment
                seat.terminal.press('C-a', 'd')
                seat.given_back(0)
        finally:
            for program in hidden:
                office.deployment.host().unhide(program)


class TestGone:
    def test_the_session(self, office: Office) -> None:
        office.keeper()
        office.run()
        arguments = office.window('keeper')
        office.deployment.quit()
        text = office.sit(*arguments).given_back(69)
        assert f'remote_runner: session {office.deployment.session} (screen server {arguments[2]}) is gone' in text

    def test_the_session_though_another_begins_with_its_name(self, office: Office) -> None:
        office.keeper()
        office.run()
        arguments = office.window('keeper')
        arguments[3] = arguments[3][:-1]
        office.sit(*arguments).given_back(69)

    def test_the_session_whose_server_was_killed(self, office: Office) -> None:
        office.keeper()
        office.run()
        arguments = office.window('keeper')
        kill(office.deployment.host(), signal.SIGKILL, int(arguments[2]))
        office.deployment.ends(int(arguments[2]))
        assert 'is gone' in office.sit(*arguments).given_back(69)

    def test_the_window(self, office: Office) -> None:
        office.keeper()
        office.run()
        arguments = office.window('keeper')
        arguments[4] = '77'
        assert 'window 77 of session' in office.sit(*arguments).given_back(68)

    def test_screen(self, office: Office) -> None:
        office.keeper()
        office.run()
        arguments = office.window('keeper')
        office.deployment.host().hide('screen')
        try:
            assert 'screen is not installed here' in office.sit(*arguments).given_back(127)
        finally:
            office.deployment.host().unhide('screen')

    def test_nothing_that_is_a_terminal(self, office: Office, bed: Testbed) -> None:
        arguments = ['-F', str(bed.ssh_config), 'h1', 'window', '1', 'runner', '0']
        driver = f'{sys.executable} -m tests.attach_driver {shlex.join(arguments)} </dev/null'
        command = f'sh -c {shlex.quote(driver)}'
        output, status = pexpect.run(command, cwd=ROOT, withexitstatus=True, timeout=PATIENCE)
        assert status == 2
        assert output.decode().startswith('ERROR: stdin is no terminal')


class TestHosts:
    def test_through_a_jump_host(self, office: Office) -> None:
        office.keeper(host='h2')
        office.run()
        config = ssh_config(office.folder, office.deployment.bed, 'Host h2\n  ProxyJump h1\n')
        seat = office.sit(*office.window('keeper', 'h2'), config=config)
        seat.terminal.wait_for('ready')
        seat.terminal.press('hello', 'Enter')
        seat.terminal.wait_for('got hello')
        seat.terminal.press('C-a', 'd')
        seat.given_back(0)

    @pytest.mark.parametrize('shell', ['sh', 'bash', 'csh', 'tcsh', 'fish', 'zsh', 'mksh'])
    def test_under_any_login_shell(self, office: Office, shell: str) -> None:
        user = office.deployment.user(shell, shell=f'/usr/bin/{shell}')
        office.keeper(host=f'{user}@h1')
        office.run()
        seat = office.sit(*office.window('keeper', user=user), term='xterm-unheard-of')
        seat.terminal.wait_for('ready')
        seat.terminal.press('hello', 'Enter')
        seat.terminal.wait_for('got hello')
        seat.terminal.press('C-a', 'd')
        seat.given_back(0)

    def test_localhost(self, office: Office) -> None:
        kept = office.folder / 'kept'
        office.deployment.sh('keeper', KEEPS.format(kept=kept), host='localhost')
        office.run()
        [socket] = Path('/run/screen').glob(f'S-*/*.{office.deployment.session}')
        pid, _, session = socket.name.partition('.')
        seat = office.sit('localhost', 'window', pid, session, '0', width=90)
        seat.terminal.wait_for('ready')
        seat.terminal.press('hällo', 'Enter')
        seat.terminal.wait_for('got hällo')
        seat.terminal.press('C-a', 'd')
        seat.given_back(0)
        assert kept.read_text() == 'hällo\n'
        assert 'is gone' in office.sit('localhost', 'window', pid, 'another', '0').given_back(69)

    def test_localhost_from_within_the_session(self, office: Office) -> None:
        driver = shlex.join([sys.executable, '-m', 'tests.attach_driver', 'localhost', 'window'])
        said = office.folder / 'said'
        office.deployment.sleep(host='localhost')
        office.run()
        [socket] = Path('/run/screen').glob(f'S-*/*.{office.deployment.session}')
        script = office.folder / 'script'  # screen itself would fill in variables
        script.write_text(f'cd {ROOT}; {driver} ${{STY%%.*}} ${{STY#*.}} 0 >{said}')
        subprocess.run(['screen', '-S', socket.name, '-X', 'screen', 'sh', str(script)], check=True)
        wait_until(lambda: said.exists() and 'itself' in said.read_text(), 'a refusal')

    def test_a_server_that_gives_no_terminals(self, fresh_bed: Callable[..., Testbed], tmp_path: Path) -> None:
        bed = fresh_bed(1)
        bed['h1'].stop_sshd()
        bed['h1'].start_sshd({'PermitTTY': 'no'})
        seat = Seat(tmp_path, ['-F', str(bed.ssh_config), 'h1', 'command', 'true'])
        try:
            assert re.search(r'ERROR: h1: the server gives no terminal.*PermitTTY', seat.given_back(3))
        finally:
            seat.terminal.close()
